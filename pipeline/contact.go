package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"sluice/journal"
	"sluice/pipeline/store"
	"sluice/xfr"
)

// contact is whether the journal's store, where that is elsewhere, answers this
// process. A process that was cut off serves what it published last, as a
// secondary does that reaches no primary.
type contact struct {
	mu      sync.Mutex
	last    time.Time // guarded by mu; by the engine's clock, when it last answered
	since   time.Time // guarded by mu; zero while it answers
	behind  uint64    // guarded by mu; up to where must be folded before what is served is current
	stored  time.Time // guarded by mu; last as the file has it
	unknown bool      // guarded by mu; the projection was not yet held against the journal
}

// StaleStatus says that the journal does not answer this process.
type StaleStatus struct {
	Since time.Time `json:"since"` // when it answered last
}

// probeEvery is how often it is asked whether the journal answers, and probeTime
// how long that may take; a process is cut off where it did not for so long.
const (
	probeEvery = 2 * time.Second
	probeTime  = 6 * time.Second
	// storeContactEvery is how often it is written down when it answered.
	storeContactEvery = time.Minute
	contactFile       = "contact.json"
)

// startContact takes up when the journal last answered an earlier run.
func (e *Engine) startContact(away bool) {
	c := &e.contact
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = e.clock.Now()
	if !away {
		return
	}
	c.unknown = true
	var last time.Time
	if data, err := os.ReadFile(filepath.Join(e.cfg.RunDir, contactFile)); err == nil && e.cfg.RunDir != "" {
		_ = json.Unmarshal(data, &last) // what cannot be read was never known
	}
	// Nothing is known of an earlier contact: what is served ends with its
	// signatures, or is not served.
	c.last, c.since, c.stored = last, last, last
	if last.IsZero() {
		c.since = e.clock.Now()
	}
}

// keepContact asks the journal whether it answers, until ctx ends.
func (e *Engine) keepContact(ctx context.Context) {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		e.probe(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// keepPublished has on disk what was published, until ctx ends: started again
// while the journal is away, this process serves what it served.
func (e *Engine) keepPublished(ctx context.Context) {
	for {
		select {
		case <-e.unkept:
		case <-ctx.Done():
			return
		}
		if err := e.note(e.store.Sync()); err != nil {
			e.log.WarnContext(ctx, "what was published is not on disk yet", "error", err)
		}
	}
}

func (e *Engine) probe(ctx context.Context) {
	bounded, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	_, last, err := e.journal.Stream(bounded)
	if ctx.Err() != nil {
		return
	}
	now := e.clock.Now()
	c := &e.contact
	c.mu.Lock()
	was := c.since
	switch {
	case err != nil && was.IsZero() && now.Sub(c.last) >= probeTime:
		c.since = c.last
	case err == nil:
		if !was.IsZero() {
			c.behind = last
		}
		c.last, c.since = now, time.Time{}
	}
	is := c.since
	store := err == nil && now.Sub(c.stored) >= storeContactEvery
	if store {
		c.stored = now
	}
	c.mu.Unlock()
	switch {
	case was.IsZero() && !is.IsZero():
		e.log.ErrorContext(ctx, "the journal does not answer: what was published is served as it stands", "since", is, "error", err)
		for _, r := range e.allRunners() {
			r.announce() // secondaries are told nothing from here on
		}
	case !was.IsZero() && is.IsZero():
		e.log.WarnContext(ctx, "the journal answers again", "since", was)
	}
	if store && e.cfg.RunDir != "" {
		if werr := e.storeContact(now); werr != nil {
			e.log.WarnContext(ctx, "contact with the journal not noted", "error", werr)
		}
	}
}

func (e *Engine) storeContact(at time.Time) error {
	data, err := json.Marshal(at)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(e.cfg.RunDir, contactFile), data, 0o600)
}

// awaitContact waits until the journal answers a process that was started
// without it, and holds the projection against it.
func (e *Engine) awaitContact(ctx context.Context) error {
	e.contact.mu.Lock()
	unknown := e.contact.unknown
	e.contact.mu.Unlock()
	if !unknown {
		return nil
	}
	for {
		at := e.store.Position()
		identity, _, err := e.journal.Stream(ctx)
		ok := at.Seq == 0 // nothing was folded yet
		if err == nil && !ok {
			ok, err = e.journal.Check(ctx, at)
		}
		if err == nil && ok {
			ok = e.store.Name(identity) == nil
		}
		switch {
		case err == nil && ok:
			e.contact.mu.Lock()
			e.contact.unknown = false
			e.contact.mu.Unlock()
			return nil
		case err == nil:
			err := fmt.Errorf("%w: it does not follow from the journal that answers now", store.ErrDamaged)
			e.giveUp(err)
			return gaveUp(err)
		}
		if !sleep(ctx, probeEvery) {
			return ctx.Err()
		}
	}
}

// staleSince is since when the journal does not answer; zero where it does.
func (e *Engine) staleSince() time.Time {
	e.contact.mu.Lock()
	defer e.contact.mu.Unlock()
	return e.contact.since
}

// staleStatus is that for people, nil where it answers.
func (e *Engine) staleStatus() *StaleStatus {
	if since := e.staleSince(); !since.IsZero() {
		return &StaleStatus{Since: since}
	}
	return nil
}

// staleError says that this process is cut off, nil where it is not.
func (e *Engine) staleError() error {
	since := e.staleSince()
	if since.IsZero() {
		return nil
	}
	return errorState("the journal has not answered since %s: what was published then is served until its SOA EXPIRE or its signatures run out; "+
		"see whether the process with the journal runs and can be reached", since.Format(time.RFC3339))
}

// mayServe reports whether what this process holds may be served: it has
// caught up with the journal, also after it was cut off, or is cut off.
func (e *Engine) mayServe() bool {
	e.mu.RLock()
	ready, folded := e.ready, e.folded
	e.mu.RUnlock()
	if !e.cfg.Remote {
		return ready
	}
	e.contact.mu.Lock()
	defer e.contact.mu.Unlock()
	return !e.contact.since.IsZero() || ready && folded >= e.contact.behind
}

// staleEnd is when what a cut-off process serves of a zone ends: the SOA's
// EXPIRE after the last contact, or the earliest end of a signature.
func (r *runner) staleEnd(v *store.View) time.Time {
	c := &r.e.contact
	c.mu.Lock()
	last := c.last
	c.mu.Unlock()
	s := r.snapshot()
	if s.Published != nil && last.Before(s.Published.Time) {
		last = s.Published.Time // it was in touch when that was published
	}
	_, soa := v.SOA()
	end := last.Add(timersOf(soa).expire)
	if s.Published != nil && s.Published.Signed.Facts.Earliest != 0 {
		if sigs := time.Unix(s.Published.Signed.Facts.Earliest, 0); sigs.Before(end) {
			end = sigs
		}
	}
	return end
}

// checkStale is xfr.ErrNotReady where a cut-off process may not serve a zone
// any longer.
func (r *runner) checkStale(v *store.View) error {
	if r.e.staleSince().IsZero() || r.e.clock.Now().Before(r.staleEnd(v)) {
		return nil
	}
	return xfr.ErrNotReady
}

// unreachable reports whether an error says that a journal elsewhere does not
// answer.
func (e *Engine) unreachable(err error) bool {
	return e.cfg.Remote && errors.Is(err, journal.ErrStorage)
}
