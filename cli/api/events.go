package api

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"sluice/pipeline"
)

const (
	// heartbeat is how often a live stream with nothing to tell says that it
	// lives, so that nothing on the way takes it for dead.
	heartbeat = 15 * time.Second
	// patience is how long a client may take nothing before it is cut off. Until
	// then it costs its place in the journal and one page of it, however far it
	// is behind.
	patience = 30 * time.Second
	// retryAfter is when a client that was cut off comes back.
	retryAfter = 3 * time.Second
)

// tail sends events as they come, from the parameter from on (a sequence or
// an RFC 3339 time) or from behind Last-Event-ID.
func (s *server) tail(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("zone")
	if name != "" {
		if _, err := s.engine.Zone(r.Context(), name); err != nil {
			return err
		}
	}
	from, err := s.tailStart(r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(r.Context())
	e := &events{w: w, control: http.NewResponseController(w), cancel: cancel}
	beats := make(chan struct{})
	go func() {
		defer close(beats)
		e.beat(ctx, s.heartbeat)
	}()
	defer func() {
		cancel()
		<-beats
	}()
	if err := e.begin(from - 1); err != nil {
		return nil // the client left
	}
	err = s.engine.Tail(ctx, name, from, !seesSealed(ctx), func(l pipeline.HistoryLine) error {
		return e.send(l.Seq, "", eventOf(l))
	})
	if err != nil && ctx.Err() == nil {
		_ = e.send(0, "problem", problemOf(err)) // where the client still listens
	}
	return nil
}

// tailStart is the sequence that a live stream begins with. It is known before
// the client hears that it is connected, so that it misses nothing from there on.
func (s *server) tailStart(r *http.Request) (uint64, error) {
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		n, err := strconv.ParseUint(last, 10, 63)
		if err != nil {
			return 0, fmt.Errorf("%w: Last-Event-ID %q is not a sequence", ErrRequest, last)
		}
		return s.notAhead(r.Context(), n+1)
	}
	text := r.URL.Query().Get("from")
	if text == "" {
		return s.engine.NextSeq(r.Context())
	}
	if n, err := strconv.ParseUint(text, 10, 63); err == nil {
		return s.notAhead(r.Context(), max(n, 1))
	}
	t, err := timeParam(r, "from")
	if err != nil {
		return 0, fmt.Errorf("%w: from %q is neither a sequence nor an RFC 3339 time", ErrRequest, text)
	}
	return s.engine.SeqAt(r.Context(), t)
}

// notAhead refuses a place that the journal has not come to: nothing would be
// sent for long, and then it would not be what the client missed.
func (s *server) notAhead(ctx context.Context, from uint64) (uint64, error) {
	next, err := s.engine.NextSeq(ctx)
	if err == nil && from > next {
		err = fmt.Errorf("%w: sequence %d is ahead of the journal, whose newest event is %d: it may have been restored; begin anew", ErrRequest, from-1, next-1)
	}
	return from, err
}

// events writes server-sent events. Its methods may be called concurrently.
type events struct {
	mu      sync.Mutex
	w       http.ResponseWriter // guarded by mu
	begun   bool                // guarded by mu
	control *http.ResponseController
	cancel  context.CancelFunc // ends the stream
}

// begin sends the header, so that a client knows that it is connected, and the
// last sequence that it does not get: one that is cut off before the first event
// comes back to the same place.
func (e *events) begin(last uint64) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.begun = true
	e.w.Header().Set("Content-Type", mediaEvents)
	e.w.Header().Set("Cache-Control", "no-store")
	e.w.WriteHeader(http.StatusOK)
	line := strconv.AppendInt([]byte("retry: "), retryAfter.Milliseconds(), 10)
	line = strconv.AppendUint(append(line, "\nid: "...), last, 10)
	return e.write(append(line, '\n', '\n'))
}

// send sends one event; name is empty for ordinary ones.
func (e *events) send(id uint64, name string, v any) error {
	raw, err := marshal(v) // never holds a line break
	if err != nil {
		return err
	}
	var line []byte
	if id > 0 {
		line = strconv.AppendUint(append(line, "id: "...), id, 10)
		line = append(line, '\n')
	}
	if name != "" {
		line = append(append(append(line, "event: "...), name...), '\n')
	}
	line = append(append(append(line, "data: "...), raw...), '\n', '\n')
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.write(line)
}

// beat sends comments until ctx ends.
func (e *events) beat(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		e.mu.Lock()
		if e.begun {
			_ = e.write([]byte(": still here\n\n")) // where it fails the stream ends
		}
		e.mu.Unlock()
	}
}

// write sends text at once, and ends the stream where the client does not take
// it. The caller holds mu.
func (e *events) write(text []byte) error {
	// Where there is no deadline, as within the process, the request's context
	// ends the write.
	_ = e.control.SetWriteDeadline(time.Now().Add(patience))
	_, err := e.w.Write(text)
	if err == nil {
		err = e.control.Flush()
	}
	if err != nil {
		e.cancel()
	}
	return err
}
