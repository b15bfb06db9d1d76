package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"sluice/journal/event"
)

const (
	pageEvents = 512
	pageBytes  = 1 << 20
	// pollEvery bounds how long a lost wake can delay a follower.
	pollEvery = 5 * time.Second
	// retryEvery is how often a follower tries a store that does not answer.
	retryEvery = 250 * time.Millisecond
)

// getRequest asks the server for stored messages.
type getRequest struct {
	Seq      uint64 `json:"seq,omitempty"`
	LastFor  string `json:"last_by_subj,omitempty"`
	NextFor  string `json:"next_by_subj,omitempty"`
	Batch    int    `json:"batch,omitempty"`
	MaxBytes int    `json:"max_bytes,omitempty"`
}

// stored is one message as the server holds it.
type storedLine struct {
	seq     uint64
	subject string
	data    []byte
}

// page is a run of messages and how many more match behind it.
type page struct {
	lines   []storedLine
	pending uint64
}

// errNotFound reports that nothing stored matches.
var errNotFound = errors.New("not found")

// get reads one message.
func (j *NATS) get(ctx context.Context, stream string, req getRequest) (storedLine, error) {
	// Only the leader knows for sure what the last one is.
	if req.LastFor != "" && j.replicated() {
		return j.getFromLeader(ctx, stream, req)
	}
	line, err := j.getDirect(ctx, stream, req)
	if errors.Is(err, errNotFound) && j.replicated() {
		return j.getFromLeader(ctx, stream, req)
	}
	return line, err
}

// replicated reports whether several servers may hold the journal. Each of
// them answers readers, and may lag behind what was acknowledged.
func (j *NATS) replicated() bool {
	s, err := j.session()
	return err == nil && j.remote() && s.nc.ConnectedClusterName() != ""
}

// getFromLeader reads one message from a stream's leader.
func (j *NATS) getFromLeader(ctx context.Context, stream string, req getRequest) (storedLine, error) {
	body, err := json.Marshal(req)
	if err != nil {
		return storedLine{}, err
	}
	answer, err := j.request(ctx, &nats.Msg{Subject: "$JS.API.STREAM.MSG.GET." + stream, Data: body})
	if err != nil {
		return storedLine{}, err
	}
	return parseMessage(answer.Data)
}

// getDirect reads one message from any server that holds the stream.
func (j *NATS) getDirect(ctx context.Context, stream string, req getRequest) (storedLine, error) {
	body, err := json.Marshal(req)
	if err != nil {
		return storedLine{}, err
	}
	answer, err := j.request(ctx, &nats.Msg{Subject: "$JS.API.DIRECT.GET." + stream, Data: body})
	if err != nil {
		return storedLine{}, err
	}
	return parseDirect(answer)
}

// parseDirect reads the answer to a request for one message.
func parseDirect(answer *nats.Msg) (storedLine, error) {
	if status := answer.Header.Get("Status"); status == "404" {
		return storedLine{}, errNotFound
	} else if status != "" {
		return storedLine{}, fmt.Errorf("store answers %s %s", status, answer.Header.Get("Description"))
	}
	return parseStored(answer)
}

func parseStored(m *nats.Msg) (storedLine, error) {
	seq, err := strconv.ParseUint(m.Header.Get("Nats-Sequence"), 10, 64)
	if err != nil {
		return storedLine{}, fmt.Errorf("answer without sequence: %w", err)
	}
	return storedLine{seq: seq, subject: m.Header.Get("Nats-Subject"), data: m.Data}, nil
}

// page reads up to limit events of zone from a sequence on, in one bounded
// request that leaves no state in the server.
func (j *NATS) page(ctx context.Context, zone event.ZoneID, from uint64, limit int) (page, error) {
	p, err := j.pageDirect(ctx, zone, from, limit)
	if err != nil || p.pending > 0 || !j.replicated() {
		return p, err
	}
	// That was the end as one server has it. Whether it is the end the leader
	// knows.
	req := getRequest{Seq: max(from, 1), NextFor: "ev.>"}
	if n := len(p.lines); n > 0 {
		req.Seq = p.lines[n-1].seq + 1
	}
	if zone != "" {
		req.NextFor = zone.Filter()
	}
	line, err := j.getFromLeader(ctx, eventsStream, req)
	switch {
	case errors.Is(err, errNotFound):
		return p, nil
	case err != nil:
		return page{}, err
	}
	p.pending = 1 // there may be more
	if len(p.lines) < limit {
		p.lines = append(p.lines, line)
	}
	return p, nil
}

func (j *NATS) pageDirect(ctx context.Context, zone event.ZoneID, from uint64, limit int) (page, error) {
	req := getRequest{Seq: max(from, 1), Batch: min(max(limit, 1), pageEvents), MaxBytes: pageBytes}
	if zone != "" {
		req.NextFor = zone.Filter()
	}
	body, err := json.Marshal(req)
	if err != nil {
		return page{}, err
	}
	s, err := j.session()
	if err != nil {
		return page{}, err
	}
	inbox := s.nc.NewInbox()
	sub, err := s.nc.SubscribeSync(inbox)
	if err != nil {
		return page{}, j.failure(ctx, err)
	}
	defer sub.Unsubscribe() //nolint:errcheck // it fails on a closed connection only
	if err := s.nc.PublishRequest("$JS.API.DIRECT.GET."+eventsStream, inbox, body); err != nil {
		return page{}, j.failure(ctx, err)
	}
	bounded, cancel := context.WithTimeout(ctx, j.cfg.Timeout)
	defer cancel()
	var p page
	for {
		m, err := sub.NextMsgWithContext(bounded)
		if err != nil {
			return page{}, j.failure(ctx, err)
		}
		switch status := m.Header.Get("Status"); status {
		case "":
			line, err := parseStored(m)
			if err != nil {
				return page{}, err
			}
			p.lines = append(p.lines, line)
		case "204":
			p.pending, err = strconv.ParseUint(m.Header.Get("Nats-Num-Pending"), 10, 64)
			return p, err
		case "404":
			return p, nil
		case "503":
			return page{}, j.noAnswer(nats.ErrNoResponders)
		default:
			return page{}, fmt.Errorf("store answers %s %s", status, m.Header.Get("Description"))
		}
	}
}

// record decodes a stored line.
func (l storedLine) record() (Record, error) {
	e, sealed, err := event.DecodeMessage(l.data)
	if err != nil {
		return Record{}, fmt.Errorf("event %d: %w", l.seq, err)
	}
	if want := event.Subject(&e); want != l.subject {
		return Record{}, fmt.Errorf("event %d stands under %s, not %s", l.seq, l.subject, want)
	}
	line := event.PublicLine(l.data)
	return Record{Seq: l.seq, Hash: event.RecordHash(line), Line: line, Event: e, Sealed: sealed, Subject: l.subject}, nil
}

// Head implements Journal.
func (j *NATS) Head(ctx context.Context, zone event.ZoneID) (Head, error) {
	if !zone.Valid() {
		return Head{}, fmt.Errorf("read head of zone %q: bad zone id", zone)
	}
	line, err := j.get(ctx, eventsStream, getRequest{LastFor: zone.Filter()})
	if errors.Is(err, errNotFound) {
		return Head{}, nil
	}
	if err != nil {
		return Head{}, fmt.Errorf("read head of zone %q: %w", zone, err)
	}
	r, err := line.record()
	if err != nil {
		return Head{}, fmt.Errorf("read head of zone %q: %w", zone, err)
	}
	return r.Head(), nil
}

// Check implements Journal.
func (j *NATS) Check(ctx context.Context, p Position) (bool, error) {
	if p.Stream != j.identity {
		return false, nil
	}
	if p.Seq == 0 {
		return p.Hash.IsZero(), nil
	}
	line, err := j.get(ctx, eventsStream, getRequest{Seq: p.Seq})
	if errors.Is(err, errNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("check position %d: %w", p.Seq, err)
	}
	return event.RecordHash(event.PublicLine(line.data)) == p.Hash, nil
}

// Read implements Journal.
func (j *NATS) Read(ctx context.Context, zone event.ZoneID, first, last uint64, fn func(Record) error) error {
	if last == 0 {
		var err error
		if _, last, err = j.Stream(ctx); err != nil {
			return err
		}
	}
	return j.readLines(ctx, zone, first, last, func(l storedLine) error {
		r, err := l.record()
		if err != nil {
			return fmt.Errorf("read journal: %w", err)
		}
		return fn(r)
	})
}

// ReadNext implements Journal.
func (j *NATS) ReadNext(ctx context.Context, zone event.ZoneID, first uint64, n int, fn func(Record) error) error {
	for n > 0 {
		p, err := j.page(ctx, zone, first, n)
		if err != nil {
			return fmt.Errorf("read journal from %d: %w", first, err)
		}
		for _, l := range p.lines {
			r, err := l.record()
			if err != nil {
				return fmt.Errorf("read journal: %w", err)
			}
			if err := fn(r); err != nil {
				return err
			}
			first = l.seq + 1
		}
		if n -= len(p.lines); p.pending == 0 || len(p.lines) == 0 {
			return nil
		}
	}
	return nil
}

// ReadRaw implements RawReader.
func (j *NATS) ReadRaw(ctx context.Context, first uint64, fn func(seq uint64, subject string, message []byte) error) error {
	_, last, err := j.Stream(ctx)
	if err != nil {
		return err
	}
	return j.readLines(ctx, "", first, last, func(l storedLine) error { return fn(l.seq, l.subject, l.data) })
}

func (j *NATS) readLines(ctx context.Context, zone event.ZoneID, first, last uint64, fn func(storedLine) error) error {
	for next := first; next <= last; {
		// No more than can stand up to last: who wants one event reads one.
		limit := pageEvents
		if left := last - next; left < pageEvents {
			limit = int(left) + 1
		}
		p, err := j.page(ctx, zone, next, limit)
		if err != nil {
			return fmt.Errorf("read journal from %d: %w", next, err)
		}
		for _, l := range p.lines {
			if l.seq > last {
				return nil
			}
			if err := fn(l); err != nil {
				return err
			}
			next = l.seq + 1
		}
		if p.pending == 0 || len(p.lines) == 0 {
			return nil
		}
	}
	return nil
}

// Follow implements Journal.
func (j *NATS) Follow(ctx context.Context, zone event.ZoneID, first uint64, caughtUp func(), fn func(Record) error) error {
	woken := j.hub.add(zone)
	defer j.hub.remove(zone, woken)
	f := follower{j: j, zone: zone, next: max(first, 1), caughtUp: caughtUp, fn: fn}
	for {
		wait := pollEvery
		if err := f.drain(ctx); errors.Is(err, ErrStorage) && !f.failed {
			wait = retryEvery
		} else if err != nil {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-woken:
		case <-timer.C:
		}
		timer.Stop()
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// follower is one Follow under way.
type follower struct {
	j        *NATS
	zone     event.ZoneID
	next     uint64
	end      uint64 // last sequence at the start, once known
	endKnown bool
	caughtUp func() // nil once called
	fn       func(Record) error
	failed   bool // fn failed: its error ends the follower, whatever it is
}

// drain delivers all that stands in the stream.
func (f *follower) drain(ctx context.Context) error {
	if !f.endKnown {
		_, last, err := f.j.Stream(ctx)
		if err != nil {
			return err
		}
		f.end, f.endKnown = last, true
		f.progress()
	}
	for {
		p, err := f.j.page(ctx, f.zone, f.next, pageEvents)
		if err != nil {
			return err
		}
		for _, l := range p.lines {
			r, err := l.record()
			if err != nil {
				return fmt.Errorf("follow journal: %w", err)
			}
			if err := f.fn(r); err != nil {
				f.failed = true
				return err
			}
			f.next = l.seq + 1
			f.progress()
		}
		if p.pending == 0 || len(p.lines) == 0 {
			f.end = 0
			f.progress()
			return nil
		}
	}
}

func (f *follower) progress() {
	if f.caughtUp != nil && f.next > f.end {
		f.caughtUp()
		f.caughtUp = nil
	}
}
