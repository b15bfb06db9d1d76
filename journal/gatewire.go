package journal

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// The protocol of NATS clients, as far as members speak it. The gate reads each
// operation strictly and writes it anew, so that the server behind it reads
// nothing else than what was judged.
const (
	maxOperation = 4096
	maxHeaders   = 4096
)

var errProtocol = errors.New("not the protocol of a member")

// operation is one operation of a client.
type operation struct {
	verb string // CONNECT, PING, PONG, SUB, UNSUB, PUB
	args []string
	// Of PUB: where to, where the answer goes, the headers, and how many bytes
	// of payload stand in the reader.
	subject, reply string
	headers        map[string]string
	payload        int
}

// readOperation reads one operation, without the payload of PUB.
func readOperation(r *bufio.Reader) (operation, error) {
	line, err := r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull), len(line) > maxOperation:
		return operation{}, fmt.Errorf("%w: an operation is too long", errProtocol)
	case err != nil:
		return operation{}, err
	}
	text, ok := strings.CutSuffix(string(line), "\r\n")
	if !ok {
		return operation{}, fmt.Errorf("%w: a line without its end", errProtocol)
	}
	verb, rest, _ := strings.Cut(text, " ")
	op := operation{verb: strings.ToUpper(verb)}
	if op.verb == "CONNECT" {
		op.args = []string{rest}
		return op, nil
	}
	op.args = strings.Fields(rest)
	for _, a := range op.args {
		for _, c := range []byte(a) {
			if c <= ' ' || c >= 0x7f {
				return operation{}, fmt.Errorf("%w: %q", errProtocol, text)
			}
		}
	}
	most := map[string][2]int{"PING": {0, 0}, "PONG": {0, 0}, "SUB": {2, 3}, "UNSUB": {1, 2}, "PUB": {2, 3}, "HPUB": {3, 4}}
	bounds, known := most[op.verb]
	if !known || len(op.args) < bounds[0] || len(op.args) > bounds[1] {
		return operation{}, fmt.Errorf("%w: %q", errProtocol, text)
	}
	if op.verb == "PUB" || op.verb == "HPUB" {
		err = op.readPublish(r)
	}
	return op, err
}

// readPublish reads what a PUB or HPUB says, and the headers.
func (op *operation) readPublish(r *bufio.Reader) error {
	sizes := 1
	if op.verb == "HPUB" {
		sizes = 2
	}
	names, numbers := op.args[:len(op.args)-sizes], op.args[len(op.args)-sizes:]
	op.subject = names[0]
	if len(names) > 1 {
		op.reply = names[1]
	}
	var n [2]int
	for i, text := range numbers {
		v, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return fmt.Errorf("%w: size %q", errProtocol, text)
		}
		n[i] = int(v)
	}
	headers, total := 0, n[0]
	if sizes == 2 {
		headers, total = n[0], n[1]
	}
	if headers > maxHeaders || headers > total || total > maxPayload {
		return fmt.Errorf("%w: a message of %d bytes, headers %d", errProtocol, total, headers)
	}
	op.verb, op.payload = "PUB", total-headers
	if headers == 0 {
		return nil
	}
	block := make([]byte, headers)
	if _, err := io.ReadFull(r, block); err != nil {
		return err
	}
	return op.readHeaders(block)
}

// readHeaders reads a block of headers; only those that members need are taken.
func (op *operation) readHeaders(block []byte) error {
	text, ok := strings.CutPrefix(string(block), "NATS/1.0\r\n")
	if !ok {
		return fmt.Errorf("%w: headers %q", errProtocol, block)
	}
	op.headers = map[string]string{}
	for text != "\r\n" {
		line, rest, more := strings.Cut(text, "\r\n")
		key, value, colon := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		_, again := op.headers[key]
		if !more || !colon || again || !memberHeader(key) || strings.ContainsAny(value, "\r\n\x00") {
			return fmt.Errorf("%w: header %q", errProtocol, line)
		}
		op.headers[key], text = value, rest
	}
	return nil
}

// memberHeader reports whether members may set a header.
func memberHeader(key string) bool {
	switch key {
	case hdrExpected, hdrExpectedSubject, hdrBatchID, hdrBatchSeq, hdrBatchCommit, hdrOperation, hdrRefused:
		return true
	}
	return false
}

// write writes the operation as it was understood. The payload of PUB and its
// end follow.
func (op *operation) write(w *bufio.Writer) error {
	if op.verb != "PUB" {
		_, err := w.WriteString(strings.TrimSpace(op.verb+" "+strings.Join(op.args, " ")) + "\r\n")
		return err
	}
	var headers bytes.Buffer
	if op.headers != nil {
		headers.WriteString("NATS/1.0\r\n")
		for key, value := range op.headers {
			fmt.Fprintf(&headers, "%s: %s\r\n", key, value)
		}
		headers.WriteString("\r\n")
	}
	verb, reply, sizes := "PUB", "", strconv.Itoa(op.payload)
	if op.headers != nil {
		verb, sizes = "HPUB", fmt.Sprintf("%d %d", headers.Len(), headers.Len()+op.payload)
	}
	if op.reply != "" {
		reply = op.reply + " "
	}
	if _, err := fmt.Fprintf(w, "%s %s %s%s\r\n", verb, op.subject, reply, sizes); err != nil {
		return err
	}
	_, err := w.Write(headers.Bytes())
	return err
}

// connectOptions are the members of a CONNECT that reach the server.
type connectOptions struct {
	Verbose      bool   `json:"verbose"`
	Pedantic     bool   `json:"pedantic"`
	NKey         string `json:"nkey"`
	Signature    string `json:"sig"`
	Name         string `json:"name,omitempty"`
	Lang         string `json:"lang,omitempty"`
	Version      string `json:"version,omitempty"`
	Protocol     int    `json:"protocol"`
	Echo         bool   `json:"echo"`
	Headers      bool   `json:"headers"`
	NoResponders bool   `json:"no_responders"`
}

// readConnect reads a CONNECT and leaves in it what a member needs.
func (op *operation) readConnect() (nkey string, err error) {
	var o connectOptions
	if err := json.Unmarshal([]byte(op.args[0]), &o); err != nil {
		return "", fmt.Errorf("%w: %w", errProtocol, err)
	}
	o.Echo = true // the gate answers on the same connection
	text, err := json.Marshal(o)
	op.args[0] = string(text)
	return o.NKey, err
}

// endPayload reads the end of a payload.
func endPayload(r *bufio.Reader) error {
	var end [2]byte
	if _, err := io.ReadFull(r, end[:]); err != nil {
		return err
	}
	if string(end[:]) != "\r\n" {
		return fmt.Errorf("%w: a payload without its end", errProtocol)
	}
	return nil
}
