package pipeline

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"sluice/xfr"
)

// foldStuck is how long one event may take to be folded before the fold counts
// as stuck: the contents of the largest zone take minutes.
const foldStuck = 30 * time.Minute

// pulse is how far the fold was when it was looked at before, and whether
// somebody still looks.
type pulse struct {
	mu    sync.Mutex
	busy  bool      // guarded by mu; an earlier look has not come back
	seq   uint64    // guarded by mu
	since time.Time // guarded by mu; by the machine's clock; zero while it need not get on
}

// errNoAnswer reports a part of the engine that does not answer.
var errNoAnswer = errors.New("does not answer")

// Alive finds out whether the engine still answers: the zones' states, the
// projection, the journal's store where that is in this process, and the fold,
// which must get on where there is something to fold. That something is wrong
// and says so is an answer: a restart would not mend it. Alive returns when
// ctx ends at the latest, with an error that names what does not answer.
func (e *Engine) Alive(ctx context.Context) error {
	p := &e.pulse
	p.mu.Lock()
	if p.busy {
		p.mu.Unlock()
		return fmt.Errorf("engine: %w since it was asked before", errNoAnswer)
	}
	p.busy = true
	p.mu.Unlock()
	// A part that hangs keeps its goroutine; no second one is started.
	part := make(chan string, 4)
	done := make(chan error, 1)
	go func() {
		err := e.look(ctx, part)
		p.mu.Lock()
		p.busy = false
		p.mu.Unlock()
		done <- err
	}()
	at := "engine"
	for {
		select {
		case at = <-part:
		case err := <-done:
			return err
		case <-ctx.Done():
			return fmt.Errorf("%s: %w: %w", at, errNoAnswer, ctx.Err())
		}
	}
}

// look walks the parts of the engine and says which it is at.
func (e *Engine) look(ctx context.Context, part chan<- string) error {
	part <- "states of the zones"
	for range e.eachState() {
	}
	part <- "projection"
	e.store.Position()
	last := uint64(0)
	if !e.cfg.Remote {
		part <- "journal"
		_, newest, err := e.journal.Stream(ctx)
		if ctx.Err() != nil {
			return fmt.Errorf("journal: %w: %w", errNoAnswer, ctx.Err())
		}
		if err == nil {
			last = newest
		}
	}
	part <- "fold"
	e.mu.RLock()
	folded, ready := e.folded, e.ready
	e.mu.RUnlock()
	idle := !ready || last <= folded || e.Trouble() != nil
	return e.pulse.beat(folded, idle, machineTime())
}

// beat notes where the fold is; idle says that it need not get on. One that
// stood at the same event for too long is an error.
func (p *pulse) beat(folded uint64, idle bool, now time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if idle {
		p.since = time.Time{}
		return nil
	}
	if folded != p.seq || p.since.IsZero() {
		p.seq, p.since = folded, now
		return nil
	}
	if stood := now.Sub(p.since); stood > foldStuck {
		return fmt.Errorf("fold: %w: event %d has been folded for %s", errNoAnswer, folded+1, stood.Round(time.Second))
	}
	return nil
}

// Serves reports whether zones are served: the journal was read, or does not
// answer, and what was published last is served as it stands.
func (e *Engine) Serves() bool { return e.mayServe() }

// Folded is the sequence of the last event that the projection has, and how
// many zones there are.
func (e *Engine) Folded() (seq uint64, zones int) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.folded, len(e.names)
}

// SetTransferLimits replaces the limits of transfers that begin from now on.
func (e *Engine) SetTransferLimits(l xfr.Limits) { e.client.SetLimits(l) }
