package pipeline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"sluice/journal"
	"sluice/pipeline/store"
)

// What a journal may offer beyond its interface: the embedded one does.
type (
	reopener interface {
		Reopen(ctx context.Context) error
	}
	sweeper interface {
		SweepOrphans(ctx context.Context, grace time.Duration, now time.Time) (journal.SweepReport, error)
	}
)

const (
	// sweepGrace is how old an unreferenced chunk must be before it is swept,
	// and how often that is looked for.
	sweepGrace = time.Hour
	// longestMend is the longest wait between two attempts to reopen.
	longestMend = time.Minute
)

// tend keeps the journal in order until ctx ends: it reopens a store that
// stopped answering, and sweeps chunks that nothing refers to.
func (e *Engine) tend(ctx context.Context) {
	sweep := time.NewTicker(sweepGrace)
	defer sweep.Stop()
	for {
		select {
		case <-e.stuck:
			e.mend(ctx)
		case <-sweep.C:
			e.sweep(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// note looks at an error of the journal or the projection, and starts what
// mends it. It returns the error.
func (e *Engine) note(err error) error {
	switch {
	case errors.Is(err, journal.ErrStorage), errors.Is(err, journal.ErrNoSpace):
		e.setTrouble(err)
		select {
		case e.stuck <- struct{}{}:
		default:
		}
	case errors.Is(err, store.ErrDamaged):
		e.setTrouble(err)
		e.giveUp(err)
	}
	return err
}

// mend reopens the journal's store until it answers.
func (e *Engine) mend(ctx context.Context) {
	j, ok := e.journal.(reopener)
	if !ok {
		return
	}
	wait := time.Second
	for {
		err := j.Reopen(ctx)
		if err == nil {
			_, err = e.journal.Status(ctx)
		}
		if err == nil {
			e.log.WarnContext(ctx, "journal store reopened")
			e.setTrouble(nil)
			return
		}
		if ctx.Err() != nil {
			return
		}
		e.log.ErrorContext(ctx, "journal store does not open", "error", err, "again_in", wait)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		wait = min(2*wait, longestMend)
	}
}

// sweep removes orphan chunks. The server stamps chunks with the machine's
// time, so that is what they are judged by, also in a rehearsal.
func (e *Engine) sweep(ctx context.Context) {
	j, ok := e.journal.(sweeper)
	if !ok {
		return
	}
	done, err := j.SweepOrphans(ctx, sweepGrace, machineTime().UTC())
	switch {
	case err != nil && ctx.Err() == nil:
		e.log.WarnContext(ctx, "sweep failed", "error", e.note(err))
	case done.Chunks > 0:
		e.log.InfoContext(ctx, "unused chunks swept", "chunks", done.Chunks, "bytes", done.Bytes)
	}
}

// setTrouble notes what keeps all zones from working; nil clears it.
func (e *Engine) setTrouble(err error) {
	e.mu.Lock()
	e.trouble = err
	e.mu.Unlock()
}

// Trouble is what keeps all zones from working, or nil.
func (e *Engine) Trouble() error {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.trouble
}

// damagedMark, in the projection's folder, says that it must be built anew.
const damagedMark = "DAMAGED"

// giveUp marks the projection as damaged and ends Run: the next start builds
// it anew from the journal.
func (e *Engine) giveUp(cause error) {
	mark := filepath.Join(e.cfg.StoreDir, damagedMark)
	if err := os.WriteFile(mark, []byte(cause.Error()+"\n"), 0o600); err != nil {
		cause = errors.Join(cause, err)
	}
	e.mu.RLock()
	cancel := e.cancel
	e.mu.RUnlock()
	if cancel != nil {
		cancel(fmt.Errorf("%w; start again: the projection is then rebuilt from the journal", cause))
	}
}

// marked reports why the projection was given up, if it was.
func (e *Engine) marked() error {
	text, err := os.ReadFile(filepath.Join(e.cfg.StoreDir, damagedMark))
	if err != nil {
		return nil //nolint:nilerr // no mark, no damage
	}
	return fmt.Errorf("%w: %s", store.ErrDamaged, oneLine(string(text)))
}
