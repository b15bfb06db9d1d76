package xfr

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/miekg/dns"

	"sluice/signer/zone"
)

// query is a message to a server.
type query struct {
	opcode int
	name   zone.Name
	qtype  zone.Type
	have   *zone.Serial // what an IXFR client holds
	soa    zone.Value   // what a NOTIFY tells; nil tells nothing
	edns   bool
	agent  zone.Name // where errors may be reported (RFC 9567), with edns
	// records are those of an update, counts how many stand in its prerequisite
	// and update sections.
	records []byte
	counts  [2]uint16
}

// options are the EDNS options of the message.
func (q *query) options() []byte {
	if q.agent == "" {
		return nil
	}
	out := []byte{0, reportChannel}
	return zone.AppendRData(out, []byte(q.agent))
}

// reportChannel is the code of the Report-Channel option (RFC 9567, 5).
const reportChannel = 18

// RcodeError is an answer without records.
type RcodeError struct {
	// Rcode is the response code; 0 where only TSIG speaks of an error.
	Rcode int
	// TSIG is the error code of the answer's TSIG record, 0 for none.
	TSIG int
	// Extended is the extended error (RFC 8914) in words; may be empty.
	Extended string
}

// Error names the codes.
func (e *RcodeError) Error() string {
	s := "the server answered " + rcodeText(e.Rcode)
	if e.TSIG != 0 {
		s += ", TSIG error " + rcodeText(e.TSIG)
	}
	if e.Extended != "" {
		s += " (" + e.Extended + ")"
	}
	return s
}

func rcodeText(code int) string {
	if s, ok := dns.RcodeToString[code]; ok {
		return s
	}
	return fmt.Sprintf("RCODE %d", code)
}

// pack writes the message and signs it with the key that key names.
func (q *query) pack(id uint16, key *tsigKey, now time.Time) ([]byte, *tsigVerifier) {
	flags := uint16(q.opcode) << 11
	if q.opcode == dns.OpcodeNotify {
		flags |= flagAA // RFC 1996, 4.7 shows it set
	}
	counts := [4]uint16{1}
	msg := make([]byte, headerLen, 512)
	msg = append(msg, q.name...)
	msg = binary.BigEndian.AppendUint16(msg, uint16(q.qtype))
	msg = append(msg, 0, classIN)
	if q.soa != nil {
		counts[1] = 1
		msg = append(msg, 0xc0, headerLen, 0, byte(zone.TypeSOA), 0, classIN)
		msg = binary.BigEndian.AppendUint32(msg, q.soa.TTL())
		for data := range q.soa.Records() {
			msg = zone.AppendRData(msg, data)
			break
		}
	}
	if q.have != nil {
		// Of the client's SOA only the serial counts (RFC 1995, 3).
		counts[2] = 1
		msg = append(msg, 0xc0, headerLen, 0, byte(zone.TypeSOA), 0, classIN, 0, 0, 0, 0, 0, 22, 0, 0)
		msg = binary.BigEndian.AppendUint32(msg, uint32(*q.have))
		msg = append(msg, make([]byte, 16)...)
	}
	if q.records != nil {
		counts[1], counts[2] = q.counts[0], q.counts[1]
		msg = append(msg, q.records...)
	}
	if q.edns {
		counts[3] = 1
		msg = append(msg, 0, 0, byte(typeOPT), byte(udpPayload>>8), byte(udpPayload&0xff), 0, 0, 0, 0)
		msg = zone.AppendRData(msg, q.options())
	}
	binary.BigEndian.PutUint16(msg, id)
	binary.BigEndian.PutUint16(msg[2:], flags)
	for i, n := range counts {
		binary.BigEndian.PutUint16(msg[4+2*i:], n)
	}
	if key == nil {
		return msg, nil
	}
	return key.sign(msg, now)
}

// reply is an answer whose header, question and TSIG are right.
type reply struct {
	msg      []byte
	flags    uint16
	answers  int
	answerAt int
	scan     scanned
}

var (
	errNotOurs      = errors.New("the answer does not belong to the question")
	errBadMessage   = errors.New("malformed message")
	errTruncatedTCP = errors.New("truncated answer over TCP")
	errTruncatedUDP = errors.New("truncated answer")
)

// check reads an answer's header and question and verifies its TSIG. The
// error is errNotOurs for what may come from anyone. first says that the
// question must be repeated.
func (q *query) check(msg []byte, id uint16, v *tsigVerifier, first bool, now time.Time) (reply, error) {
	r := reply{msg: msg}
	if len(msg) < headerLen {
		return r, errNotOurs
	}
	r.flags = binary.BigEndian.Uint16(msg[2:])
	if binary.BigEndian.Uint16(msg) != id || r.flags&flagQR == 0 || int(r.flags&maskOp)>>11 != q.opcode {
		return r, errNotOurs
	}
	questions := int(binary.BigEndian.Uint16(msg[4:]))
	r.answers = int(binary.BigEndian.Uint16(msg[6:]))
	r.answerAt = headerLen
	rcode := int(r.flags & 0xf)
	// The answer to an update may leave its zone section out (RFC 2136, 3.8).
	if questions > 1 || questions == 0 && first && rcode == 0 && q.opcode != dns.OpcodeUpdate {
		return r, errNotOurs
	}
	if questions == 1 {
		var buf [zone.MaxNameLength]byte
		name, at, ok := readName(buf[:0], msg, headerLen)
		if !ok || len(msg) < at+4 || !equalFold(name, q.name) ||
			binary.BigEndian.Uint16(msg[at:]) != uint16(q.qtype) || binary.BigEndian.Uint16(msg[at+2:]) != classIN {
			return r, errNotOurs
		}
		r.answerAt = at + 4
	}
	extra := binary.BigEndian.Uint32(msg[8:]) != 0 // authority or additional
	if extra {
		if err := r.scan.read(msg, r.answerAt); err != nil {
			return r, err
		}
	}
	if err := r.verify(v, now); err != nil {
		return r, err
	}
	rcode |= r.scan.extendedRcode
	if rcode != 0 {
		return r, &RcodeError{Rcode: rcode, Extended: r.scan.extended}
	}
	return r, nil
}

// verify checks the TSIG of the answer against what was asked.
func (r *reply) verify(v *tsigVerifier, now time.Time) error {
	t := r.scan.tsig
	if v == nil {
		if t != nil {
			return errUnasked
		}
		return nil
	}
	if t == nil {
		if rcode := int(r.flags & 0xf); rcode != 0 {
			// An unsigned refusal is told, but decides nothing over UDP.
			return &unsignedError{RcodeError{Rcode: rcode | r.scan.extendedRcode, Extended: r.scan.extended}}
		}
		return v.skip(r.msg)
	}
	if err := v.verify(r.msg, t, r.scan.tsigAt, now); err != nil {
		if t.code != 0 {
			return &unsignedError{RcodeError{Rcode: int(r.flags & 0xf), TSIG: int(t.code), Extended: r.scan.extended}}
		}
		return err
	}
	if t.code != 0 {
		return &RcodeError{Rcode: int(r.flags & 0xf), TSIG: int(t.code), Extended: t.clock()}
	}
	return nil
}

// unsignedError is a refusal that anybody can have sent.
type unsignedError struct{ RcodeError }

func (e *unsignedError) Error() string { return e.RcodeError.Error() + ", unsigned" }

func (e *unsignedError) Unwrap() error { return &e.RcodeError }

// ask sends q until it is answered: over UDP once for each of tries, then
// over TCP.
func (c *Client) ask(ctx context.Context, ep Endpoint, q *query, tries []time.Duration) (reply, error) {
	r, err := c.askOnce(ctx, ep, q, tries)
	var code *RcodeError
	if q.edns && errors.As(err, &code) && code.Rcode == dns.RcodeFormatError {
		// A server that knows no EDNS (RFC 6891, 7).
		plain := *q
		plain.edns = false
		return c.askOnce(ctx, ep, &plain, tries)
	}
	return r, err
}

func (c *Client) askOnce(ctx context.Context, ep Endpoint, q *query, tries []time.Duration) (reply, error) {
	key, err := c.key(ep)
	if err != nil {
		return reply{}, err
	}
	var heard error
	if ep.TLS == nil {
		for _, wait := range tries {
			r, err := c.askUDP(ctx, ep, q, key, wait)
			if err == nil {
				return r, nil
			}
			if ctx.Err() != nil {
				return reply{}, ctx.Err()
			}
			if code, ok := errors.AsType[*RcodeError](err); ok && !isUnsigned(err) {
				return reply{}, code
			}
			if heard = err; errors.Is(err, errTruncatedUDP) {
				break
			}
		}
	}
	r, err := c.askTCP(ctx, ep, q, key)
	if err != nil && heard != nil && !errors.Is(heard, errTruncatedUDP) {
		if _, ok := errors.AsType[*RcodeError](err); !ok {
			err = fmt.Errorf("over TCP: %w; over UDP: %w", err, heard)
		}
	}
	return r, err
}

func isUnsigned(err error) bool {
	_, ok := errors.AsType[*unsignedError](err)
	return ok
}

// askUDP asks once, from a fresh port and with a fresh ID. What does not
// answer the question is passed over until the time is up; it may be forged.
func (c *Client) askUDP(ctx context.Context, ep Endpoint, q *query, key *tsigKey, wait time.Duration) (reply, error) {
	conn, err := c.dial(ctx, "udp", ep)
	if err != nil {
		return reply{}, err
	}
	defer closeWith(ctx, conn)()
	begun := time.Now()
	if err := conn.SetDeadline(begun.Add(wait)); err != nil {
		return reply{}, err
	}
	id := newID()
	msg, signed := q.pack(id, key, begun)
	if _, err := conn.Write(msg); err != nil {
		return reply{}, err
	}
	buf := make([]byte, 4096)
	var passed error
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return reply{}, errors.Join(err, passed)
		}
		v := signed.clone()
		r, err := q.check(buf[:n], id, v, true, time.Now())
		switch code, ok := errors.AsType[*RcodeError](err); {
		case err == nil && r.flags&flagTC != 0:
			return r, errTruncatedUDP
		case err == nil:
			return r, v.finished()
		case ok && !isUnsigned(err):
			return r, code
		}
		passed = err
	}
}

// askTCP asks once over TCP or TLS.
func (c *Client) askTCP(ctx context.Context, ep Endpoint, q *query, key *tsigKey) (reply, error) {
	conn, err := c.dial(ctx, "tcp", ep)
	if err != nil {
		return reply{}, err
	}
	defer closeWith(ctx, conn)()
	begun := time.Now()
	if err := conn.SetDeadline(begun.Add(c.limits.Load().Idle)); err != nil {
		return reply{}, err
	}
	id := newID()
	msg, v := q.pack(id, key, begun)
	if err := writeFramed(conn, msg); err != nil {
		return reply{}, err
	}
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return reply{}, err
	}
	answer := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(conn, answer); err != nil {
		return reply{}, err
	}
	r, err := q.check(answer, id, v, true, time.Now())
	switch {
	case err != nil:
		return r, err
	case r.flags&flagTC != 0:
		return r, errTruncatedTCP
	}
	return r, v.finished()
}

func writeFramed(conn net.Conn, msg []byte) error {
	framed := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(msg)), uint16(len(msg)))
	_, err := conn.Write(append(framed, msg...))
	return err
}

// closeWith breaks conn off when ctx ends; the function it returns closes it.
func closeWith(ctx context.Context, conn net.Conn) func() {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // reading tells
	return func() {
		stop()
		_ = conn.Close() // all that was wanted has been read
	}
}

// equalFold compares names in wire form without regard to case.
func equalFold[A, B []byte | zone.Name](a A, b B) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		x, y := a[i], b[i]
		if x == y {
			continue
		}
		if x >= 'A' && x <= 'Z' {
			x += 'a' - 'A'
		}
		if y >= 'A' && y <= 'Z' {
			y += 'a' - 'A'
		}
		if x != y {
			return false
		}
	}
	return true
}
