package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

// end is one end of a copy: the streams as the server of a connection shows
// them.
type end struct {
	nc      *nats.Conn
	js      jetstream.JetStream
	timeout time.Duration
}

// How a store says that nothing is there, and a cluster that it does not know
// its servers yet.
const (
	codeNoMessage = 10037
	codeNoStream  = 10059
	codeNoPeers   = 10005
)

// ask sends one request, which may be repeated, and waits for its answer.
func (e end) ask(ctx context.Context, subject string, data []byte) (m *nats.Msg, err error) {
	err = e.insist(ctx, func(ctx context.Context) error {
		m, err = e.nc.RequestMsgWithContext(ctx, &nats.Msg{Subject: subject, Data: data})
		return err
	})
	return m, err
}

// insist calls fn until it is answered: a cluster that is about to choose a
// leader drops what is asked of it.
func (e end) insist(ctx context.Context, fn func(context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	for {
		try, done := context.WithTimeout(bounded, min(e.timeout, askEvery))
		err := fn(try)
		done()
		if err == nil || bounded.Err() != nil || !unanswered(err) {
			return e.failure(ctx, err)
		}
		select {
		case <-bounded.Done():
			return e.failure(ctx, err)
		case <-time.After(copyWait):
		}
	}
}

// askEvery is after how long a request without an answer is repeated.
const askEvery = 2 * time.Second

// unanswered reports whether an error says that nobody could answer yet.
func unanswered(err error) bool {
	refused := new(jetstream.APIError)
	if errors.As(err, &refused) {
		return refused.Code == 503 || refused.ErrorCode == codeNoPeers
	}
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) ||
		errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrNoStreamResponse) ||
		errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, nats.ErrDisconnected) ||
		errors.Is(err, nats.ErrConnectionReconnecting) || errors.Is(err, nats.ErrReconnectBufExceeded)
}

// failure says what a request without an answer means.
func (e end) failure(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case !unanswered(err):
		return err
	}
	return fmt.Errorf("%s does not answer: %w (%w)", e.where(), ErrUnreachable, err)
}

// where names the server for people.
func (e end) where() string {
	if e.nc.IsConnected() && e.nc.ConnectedServerName() != "" {
		return "server " + e.nc.ConnectedServerName()
	}
	return "the server"
}

// ErrUnreachable reports a server elsewhere that does not answer.
var ErrUnreachable = errors.New("no answer")

// info describes a stream; errNotFound where there is none.
func (e end) info(ctx context.Context, stream string) (*jetstream.StreamInfo, error) {
	m, err := e.ask(ctx, "$JS.API.STREAM.INFO."+stream, nil)
	if err != nil {
		return nil, err
	}
	var info struct {
		jetstream.StreamInfo
		Error *apiError `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &info); err != nil {
		return nil, fmt.Errorf("describe stream %s: %w", stream, err)
	}
	switch {
	case info.Error == nil:
		return &info.StreamInfo, nil
	case info.Error.ErrCode == codeNoStream:
		return nil, errNotFound
	}
	return nil, fmt.Errorf("describe stream %s: %w", stream, info.Error.err())
}

// next is the first message of a stream from a sequence on that a filter
// matches, as the stream's leader has it: a copy of the stream may lag.
func (e end) next(ctx context.Context, stream, filter string, from uint64) (storedLine, error) {
	body, err := json.Marshal(getRequest{Seq: from, NextFor: filter})
	if err != nil {
		return storedLine{}, err
	}
	if e.nc.ConnectedClusterName() == "" { // there is only one
		m, err := e.ask(ctx, "$JS.API.DIRECT.GET."+stream, body)
		if err != nil {
			return storedLine{}, err
		}
		return parseDirect(m)
	}
	m, err := e.ask(ctx, "$JS.API.STREAM.MSG.GET."+stream, body)
	if err != nil {
		return storedLine{}, err
	}
	return parseMessage(m.Data)
}

// parseMessage reads the answer of a stream's leader.
func parseMessage(data []byte) (storedLine, error) {
	var answer struct {
		Message struct {
			Subject string `json:"subject"`
			Seq     uint64 `json:"seq"`
			Data    []byte `json:"data"`
		} `json:"message"`
		Error *apiError `json:"error"`
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return storedLine{}, fmt.Errorf("read message: %w", err)
	}
	switch {
	case answer.Error != nil && answer.Error.ErrCode == codeNoMessage:
		return storedLine{}, errNotFound
	case answer.Error != nil:
		return storedLine{}, answer.Error.err()
	}
	return storedLine{seq: answer.Message.Seq, subject: answer.Message.Subject, data: answer.Message.Data}, nil
}

// run reads the messages of a stream from a sequence on, as many as one
// bounded answer holds; none means that the stream has no more.
func (e end) run(ctx context.Context, stream string, from uint64) ([]storedLine, error) {
	body, err := json.Marshal(getRequest{Seq: max(from, 1), Batch: pageEvents, MaxBytes: copyPage})
	if err != nil {
		return nil, err
	}
	inbox := e.nc.NewInbox()
	sub, err := e.nc.SubscribeSync(inbox)
	if err != nil {
		return nil, e.failure(ctx, err)
	}
	defer sub.Unsubscribe() //nolint:errcheck // it fails on a closed connection only
	if err := e.nc.PublishRequest("$JS.API.DIRECT.GET."+stream, inbox, body); err != nil {
		return nil, e.failure(ctx, err)
	}
	bounded, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	var lines []storedLine
	for {
		m, err := sub.NextMsgWithContext(bounded)
		if err != nil {
			return nil, e.failure(ctx, err)
		}
		switch status := m.Header.Get("Status"); status {
		case "":
			line, err := parseStored(m)
			if err != nil {
				return nil, err
			}
			lines = append(lines, line)
			continue
		case "204", "404":
		case "503":
			return nil, e.failure(ctx, nats.ErrNoResponders)
		default:
			return nil, fmt.Errorf("store answers %s %s", status, m.Header.Get("Description"))
		}
		if len(lines) > 0 {
			return lines, nil
		}
		line, err := e.next(ctx, stream, ">", from)
		if errors.Is(err, errNotFound) {
			return nil, nil
		}
		return []storedLine{line}, err
	}
}

// each calls fn for every message of a stream from one sequence to another,
// both included, in order.
func (e end) each(ctx context.Context, stream string, from, to uint64, fn func(storedLine) error) error {
	for from <= to {
		lines, err := e.run(ctx, stream, from)
		if err != nil {
			return fmt.Errorf("read stream %s from %d: %w", stream, from, err)
		}
		if len(lines) == 0 {
			return nil
		}
		for _, l := range lines {
			if l.seq > to {
				return nil
			}
			if err := fn(l); err != nil {
				return err
			}
			from = l.seq + 1
		}
	}
	return nil
}

// writer appends messages to a stream so that each stands at the sequence that
// it is to have, and keeps a bounded number of bytes in flight.
type writer struct {
	end    end
	stream string
	next   uint64 // the sequence of the next message

	inbox   string
	answers *nats.Subscription
	flying  map[string]flight // by the subject of the answer
	bytes   int
	held    []storedLine // of a batch that is not sent yet
	heldLen int
}

// flight is a message on its way.
type flight struct {
	seq   uint64
	bytes int
}

func newWriter(e end, stream string, next uint64) (*writer, error) {
	w := &writer{end: e, stream: stream, next: next, inbox: e.nc.NewInbox(), flying: make(map[string]flight)}
	var err error
	if w.answers, err = e.nc.SubscribeSync(w.inbox + ".*"); err != nil {
		return nil, err
	}
	return w, nil
}

func (w *writer) close() { _ = w.answers.Unsubscribe() } // fails on a closed connection only

// put sends one message; done waits for all answers.
func (w *writer) put(ctx context.Context, subject string, data []byte) error {
	msg := &nats.Msg{
		Subject: subject, Data: data, Reply: w.inbox + "." + strconv.FormatUint(w.next, 10),
		Header: nats.Header{hdrExpectedLast: {strconv.FormatUint(w.next-1, 10)}},
	}
	if err := w.room(ctx, len(data)); err != nil {
		return err
	}
	if err := w.end.nc.PublishMsg(msg); err != nil {
		return w.end.failure(ctx, err)
	}
	w.flying[msg.Reply] = flight{w.next, len(data)}
	w.bytes += len(data)
	w.next++
	return nil
}

// batch sends one message as part of an atomic batch, which grouped syncs make
// many times faster for small ones.
func (w *writer) batch(ctx context.Context, l storedLine) error {
	if len(w.held) == copyBatch || w.heldLen+len(l.data) > copyPage {
		if err := w.flush(ctx); err != nil {
			return err
		}
	}
	w.held, w.heldLen = append(w.held, l), w.heldLen+len(l.data)
	return nil
}

// flush sends the batch and waits for its answer.
func (w *writer) flush(ctx context.Context) error {
	held := w.held
	w.held, w.heldLen = nil, 0
	switch len(held) {
	case 0:
		return nil
	case 1:
		if err := w.put(ctx, held[0].subject, held[0].data); err != nil {
			return err
		}
		return w.done(ctx)
	}
	id := nuid.Next()
	for i, l := range held {
		msg := &nats.Msg{Subject: l.subject, Data: l.data, Header: nats.Header{
			hdrBatchID: {id}, hdrBatchSeq: {strconv.Itoa(i + 1)},
		}}
		if i == 0 {
			msg.Header[hdrExpectedLast] = []string{strconv.FormatUint(w.next-1, 10)}
		}
		last := w.next + uint64(i)
		if i == len(held)-1 {
			msg.Header[hdrBatchCommit] = []string{"1"}
			msg.Reply = w.inbox + "." + strconv.FormatUint(last, 10)
			w.flying[msg.Reply] = flight{seq: last}
		}
		if err := w.end.nc.PublishMsg(msg); err != nil {
			return w.end.failure(ctx, err)
		}
	}
	w.next += uint64(len(held))
	return w.done(ctx)
}

// room waits until a further message may be in flight.
func (w *writer) room(ctx context.Context, n int) error {
	for len(w.flying) > 0 && (len(w.flying) >= copyWindow || w.bytes+n > copyInFlight) {
		if err := w.answer(ctx); err != nil {
			return err
		}
	}
	return nil
}

// done waits until everything that was sent is on disk.
func (w *writer) done(ctx context.Context) error {
	for len(w.flying) > 0 {
		if err := w.answer(ctx); err != nil {
			return err
		}
	}
	return nil
}

// answer waits for one answer.
func (w *writer) answer(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, w.end.timeout)
	defer cancel()
	m, err := w.answers.NextMsgWithContext(bounded)
	if err != nil {
		return w.end.failure(ctx, err)
	}
	f, ok := w.flying[m.Subject]
	if !ok {
		return nil // a batch's messages may be answered singly
	}
	if m.Header.Get("Status") == "503" {
		return w.end.failure(ctx, nats.ErrNoResponders)
	}
	seq, err := parseAck(m.Data)
	switch {
	case errors.Is(err, ErrConflict):
		return fmt.Errorf("write stream %s: %w", w.stream, errMoved)
	case err != nil:
		return fmt.Errorf("write stream %s: %w", w.stream, err)
	case seq != f.seq:
		return fmt.Errorf("write stream %s: message %d came to stand at %d", w.stream, f.seq, seq)
	}
	delete(w.flying, m.Subject)
	w.bytes -= f.bytes
	return nil
}

// errMoved reports a stream that does not end where its writer left it: an
// answer was lost, or somebody else writes to it.
var errMoved = errors.New("it does not end where it was left")
