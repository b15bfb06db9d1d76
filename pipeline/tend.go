package pipeline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
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
	longestMend = 10 * time.Second
)

// tend keeps the journal in order until ctx ends: it reopens a store that
// stopped answering, looks for room where there was none, and sweeps chunks
// that nothing refers to.
func (e *Engine) tend(ctx context.Context) {
	sweep := time.NewTicker(sweepGrace)
	defer sweep.Stop()
	relieve := time.NewTicker(relieveEvery)
	defer relieve.Stop()
	for {
		select {
		case <-e.stuck:
			e.mend(ctx)
		case <-e.short:
			e.shortage(ctx)
		case <-relieve.C:
			e.relieve(ctx)
		case <-sweep.C:
			e.sweep(ctx, sweepGrace)
		case <-ctx.Done():
			return
		}
	}
}

// note looks at an error of the journal or the projection, and starts what
// mends it. It returns the error.
func (e *Engine) note(err error) error {
	switch {
	case errors.Is(err, journal.ErrNoSpace), errors.Is(err, syscall.ENOSPC):
		if !errors.Is(err, errLowDisk) && !errors.Is(err, errLowBulk) {
			e.refused.Store(true)
		}
		poke(e.short)
	case errors.Is(err, journal.ErrStorage):
		e.setTrouble(journalTrouble, err)
		poke(e.stuck)
	case errors.Is(err, store.ErrDamaged):
		e.setTrouble(storeTrouble, err)
		e.giveUp(err)
	}
	return err
}

// poke fills a channel that asks for something once.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// mend reopens the journal's store until it answers, with the reserve given up
// where there is no room for that. What failed meanwhile failed for that.
func (e *Engine) mend(ctx context.Context) {
	j, ok := e.cfg.Journal.(reopener)
	if !ok {
		return
	}
	wait := e.mended.pause(machineTime())
	for {
		if !sleep(ctx, wait) {
			return
		}
		wait = min(max(2*wait, time.Second), longestMend)
		if err := e.signRoom(0); err != nil {
			e.log.WarnContext(ctx, "little room for the journal", "error", err)
		}
		err := j.Reopen(ctx)
		if err == nil {
			_, err = e.journal.Status(ctx)
		}
		if err == nil {
			e.log.WarnContext(ctx, "journal store reopened")
			select {
			case <-e.stuck:
			default:
			}
			e.setTrouble(journalTrouble, nil)
			e.mended.at = machineTime()
			e.retry()
			return
		}
		if ctx.Err() != nil {
			return
		}
		e.log.ErrorContext(ctx, "journal store does not open", "error", err, "again_in", wait)
	}
}

// mending is when the journal was reopened last, and how long was waited
// before that. It belongs to the goroutine that tends.
type mending struct {
	at   time.Time
	wait time.Duration
}

// pause is how long to wait before the journal is reopened again: a disk that
// stays full would else have it reopened without end.
func (m *mending) pause(now time.Time) time.Duration {
	if m.at.IsZero() || now.Sub(m.at) > 2*longestMend {
		m.wait = 0
	} else {
		m.wait = min(max(2*m.wait, time.Second), longestMend)
	}
	return m.wait
}

// sleep waits, or reports false where ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// sweep removes orphan chunks that are older than grace. A command that is
// about to name some of them is told, and sends them again. The server stamps chunks with the machine's
// time, so that is what they are judged by, also in a rehearsal.
func (e *Engine) sweep(ctx context.Context, grace time.Duration) {
	j, ok := e.cfg.Journal.(sweeper)
	if !ok || !e.chief() {
		return
	}
	done, err := j.SweepOrphans(ctx, grace, machineTime().UTC())
	switch {
	case err != nil && ctx.Err() == nil:
		e.log.WarnContext(ctx, "sweep failed", "error", e.note(err))
	case done.Chunks > 0:
		e.log.InfoContext(ctx, "unused chunks swept", "chunks", done.Chunks, "bytes", done.Bytes)
	}
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
	if cancel != nil { // else Run has not begun; it finds the trouble
		cancel(gaveUp(cause))
	}
}

// gaveUp is the error that Run ends with.
func gaveUp(cause error) error {
	return fmt.Errorf("%w; start again: the projection is then rebuilt from the journal", cause)
}

// marked reports why the projection was given up, if it was.
func (e *Engine) marked() error {
	text, err := os.ReadFile(filepath.Join(e.cfg.StoreDir, damagedMark))
	if err != nil {
		return nil //nolint:nilerr // no mark, no damage
	}
	return fmt.Errorf("%w: %s", store.ErrDamaged, oneLine(string(text)))
}
