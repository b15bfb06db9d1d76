package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"

	"sluice/journal/event"
)

// MaxAppend is how many events one Append takes.
const MaxAppend = 1000

const (
	hdrExpected        = "Nats-Expected-Last-Subject-Sequence"
	hdrExpectedSubject = "Nats-Expected-Last-Subject-Sequence-Subject"
	hdrBatchID         = "Nats-Batch-Id"
	hdrBatchSeq        = "Nats-Batch-Sequence"
	hdrBatchCommit     = "Nats-Batch-Commit"

	codeWrongSequence   = 10071
	codeInFlight        = 10164
	codeUnavailable     = 10008 // a cluster without leader
	codeNoResources     = 10023
	codeNoStorage       = 10047
	codeTooManyRequests = 10167
	descMaxBytes        = "maximum bytes exceeded"
	descNoSpace         = "no space left"
)

// Line is an event made ready to be stored.
type Line struct {
	Subject string
	Bytes   []byte     // the message: the public line, and the sealed one where there is one
	Hash    event.Hash // of the public line
}

// Lines gives the events their place behind a head and encodes them, so that
// every implementation writes the same bytes. It cuts times to microseconds
// and fills in Version, N, Prev, and where they are empty Zone and Type.
func Lines(zone event.ZoneID, head Head, events []event.Event) ([]Line, error) {
	if len(events) > MaxAppend {
		return nil, fmt.Errorf("append %d events: more than %d", len(events), MaxAppend)
	}
	lines := make([]Line, len(events))
	for i := range events {
		e := events[i]
		if e.Zone == "" {
			e.Zone = zone
		}
		if e.Zone != zone {
			return nil, fmt.Errorf("append to zone %q: event of zone %q", zone, e.Zone)
		}
		if e.Type == "" && e.Facts != nil {
			e.Type = e.Facts.EventType()
		}
		e.Time = e.Time.UTC().Truncate(time.Microsecond)
		e.Version, e.N, e.Prev = event.EnvelopeVersion, head.N+1, head.Hash
		b, public, err := event.EncodeMessage(&e)
		if err != nil {
			return nil, fmt.Errorf("append to zone %q: %w", zone, err)
		}
		lines[i] = Line{Subject: event.Subject(&e), Bytes: b, Hash: event.RecordHash(public)}
		head.N, head.Hash = e.N, lines[i].Hash
	}
	return lines, nil
}

// Append implements Journal. One event is one synced message, several are one
// atomic batch.
func (j *NATS) Append(ctx context.Context, zone event.ZoneID, head Head, events ...event.Event) (Head, error) {
	lines, err := Lines(zone, head, events)
	if err != nil || len(lines) == 0 {
		return head, err
	}
	if err := ctx.Err(); err != nil {
		return head, err
	}
	// Commit: once the store has answered, the events exist for ever. A crash
	// before leaves none of them.
	seq, err := j.publishInTurn(ctx, zone, head.Seq, lines)
	if err == nil {
		j.stats.wrote(lines)
		return Head{Seq: seq, N: head.N + uint64(len(lines)), Hash: lines[len(lines)-1].Hash}, nil
	}
	if !errors.Is(err, ErrConflict) && !errors.Is(err, ErrStorage) {
		return head, fmt.Errorf("append to zone %q: %w", zone, err)
	}
	// The answer to an earlier try may have been lost.
	now, stored, rerr := j.stored(ctx, zone, head, lines, err)
	if rerr == nil && stored {
		j.stats.wrote(lines)
		return now, nil
	}
	return head, fmt.Errorf("append to zone %q: %w", zone, err)
}

// publishInTurn waits until no other write to the zone is on its way between a
// cluster's servers: whether that one wins, and is a conflict, is not known
// before.
func (j *NATS) publishInTurn(ctx context.Context, zone event.ZoneID, expected uint64, lines []Line) (uint64, error) {
	bounded, cancel := context.WithTimeout(ctx, j.cfg.Timeout)
	defer cancel()
	for {
		seq, err := j.publish(ctx, zone, expected, lines)
		if !errors.Is(err, errInFlight) {
			return seq, err
		}
		select {
		case <-bounded.Done():
			return 0, j.failure(ctx, bounded.Err())
		case <-time.After(turnWait):
		}
	}
}

// publish sends lines and returns the sequence of the last one.
func (j *NATS) publish(ctx context.Context, zone event.ZoneID, expected uint64, lines []Line) (uint64, error) {
	batch := ""
	if len(lines) > 1 {
		batch = nuid.Next()
	}
	for i, l := range lines {
		msg := &nats.Msg{Subject: l.Subject, Data: l.Bytes, Header: nats.Header{}}
		if i == 0 {
			// Every writer of a zone uses exactly this filter: a cluster
			// compares writes in flight by its text.
			msg.Header[hdrExpected] = []string{strconv.FormatUint(expected, 10)}
			msg.Header[hdrExpectedSubject] = []string{zone.Filter()}
		}
		if batch != "" {
			msg.Header[hdrBatchID] = []string{batch}
			msg.Header[hdrBatchSeq] = []string{strconv.Itoa(i + 1)}
		}
		if i < len(lines)-1 {
			if err := j.mayPublish(msg.Subject); err != nil {
				return 0, err
			}
			s, err := j.session()
			if err != nil {
				return 0, err
			}
			if err := s.nc.PublishMsg(msg); err != nil {
				return 0, j.failure(ctx, err)
			}
			continue
		}
		if batch != "" {
			msg.Header[hdrBatchCommit] = []string{"1"}
		}
		answer, err := j.request(ctx, msg)
		if err != nil {
			return 0, err
		}
		return parseAck(answer.Data)
	}
	return 0, errors.New("nothing to publish")
}

// parseAck reads the store's answer to a publish.
func parseAck(data []byte) (uint64, error) {
	var ack struct {
		Seq   uint64    `json:"seq"`
		Error *apiError `json:"error"`
	}
	if err := json.Unmarshal(data, &ack); err != nil {
		return 0, fmt.Errorf("read acknowledgement: %w", err)
	}
	if ack.Error != nil {
		return 0, ack.Error.err()
	}
	if ack.Seq == 0 {
		return 0, errors.New("acknowledgement without sequence")
	}
	return ack.Seq, nil
}

type apiError struct {
	Code        int    `json:"code"`
	ErrCode     int    `json:"err_code"`
	Description string `json:"description"`
}

var errBusy = errors.New("store is busy")

// errInFlight reports that another write to the zone was not decided yet. Of
// this one nothing was stored.
var errInFlight = errors.New("another write is on its way")

// turnWait is how long to wait for that one: about the time that the servers of
// a cluster take to agree on a write.
const turnWait = 5 * time.Millisecond

func (e *apiError) err() error {
	switch {
	case e.Code == codeDenied:
		return fmt.Errorf("%w: %s", ErrDenied, e.Description)
	case e.ErrCode == codeWrongSequence:
		var c conflict
		if _, err := fmt.Sscanf(e.Description, "wrong last sequence: %d", &c.last); err != nil {
			return ErrConflict // the sequence is a hint
		}
		return c
	case e.ErrCode == codeInFlight:
		return errInFlight
	case e.ErrCode == codeUnavailable:
		return fmt.Errorf("%w: %s", errAway, e.Description)
	case e.ErrCode == codeTooManyRequests:
		return errBusy
	case e.ErrCode == codeNoStorage, e.ErrCode == codeNoResources,
		strings.Contains(e.Description, descMaxBytes), strings.Contains(e.Description, descNoSpace):
		return fmt.Errorf("%w: %s", ErrNoSpace, e.Description)
	}
	return fmt.Errorf("store refused: %s (%d)", e.Description, e.ErrCode)
}

// conflict is ErrConflict with the sequence of the zone's newest event.
type conflict struct{ last uint64 }

func (c conflict) Error() string { return ErrConflict.Error() }

func (c conflict) Is(err error) bool { return err == ErrConflict }

// stored reports whether exactly these lines stand behind head. why is what the
// append failed with. Mostly the zone's newest event tells: its number says how
// many came, its hash and the one before that which. Only where many came since
// are they read.
func (j *NATS) stored(ctx context.Context, zone event.ZoneID, head Head, lines []Line, why error) (Head, bool, error) {
	newest, err := j.newest(ctx, zone, why)
	if errors.Is(err, errNotFound) {
		return head, false, nil
	}
	if err != nil {
		return head, false, err
	}
	want, last := head.N+uint64(len(lines)), lines[len(lines)-1].Hash
	// The events of a batch stand behind each other.
	for newest.Event.N > want {
		before, err := j.at(ctx, newest.Seq-1)
		if err != nil || before.Event.Zone != zone || before.Event.N != newest.Event.N-1 {
			break
		}
		newest = before
	}
	switch {
	case newest.Event.N < want, newest.Event.N == want && newest.Hash != last, newest.Event.N == want+1 && newest.Event.Prev != last:
		return head, false, nil
	case newest.Event.N == want:
		return newest.Head(), true, nil
	}
	return j.scan(ctx, zone, head, lines)
}

// newest is the newest event of a zone.
func (j *NATS) newest(ctx context.Context, zone event.ZoneID, why error) (Record, error) {
	if c, ok := errors.AsType[conflict](why); ok && c.last > 0 {
		if r, err := j.at(ctx, c.last); err == nil && r.Event.Zone == zone {
			return r, nil
		}
	}
	line, err := j.get(ctx, eventsStream, getRequest{LastFor: zone.Filter()})
	if err != nil {
		return Record{}, err
	}
	return line.record()
}

// at is the event of a sequence.
func (j *NATS) at(ctx context.Context, seq uint64) (Record, error) {
	line, err := j.get(ctx, eventsStream, getRequest{Seq: seq})
	if err != nil {
		return Record{}, err
	}
	return line.record()
}

// scan reads all that stands behind head, to find exactly these lines. It costs
// the store much.
func (j *NATS) scan(ctx context.Context, zone event.ZoneID, head Head, lines []Line) (Head, bool, error) {
	now, next := head, head.Seq+1
	for i := 0; i < len(lines); {
		p, err := j.page(ctx, zone, next, len(lines)-i)
		if err != nil {
			return head, false, err
		}
		for _, m := range p.lines {
			if i == len(lines) || m.subject != lines[i].Subject || event.RecordHash(event.PublicLine(m.data)) != lines[i].Hash {
				return head, false, nil
			}
			now = Head{Seq: m.seq, N: now.N + 1, Hash: lines[i].Hash}
			next, i = m.seq+1, i+1
		}
		if p.pending == 0 && i < len(lines) {
			return head, false, nil
		}
	}
	return now, true, nil
}
