package pipeline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"sluice/journal"
	"sluice/journal/audit"
	"sluice/journal/event"
)

// Sealing is how the journal is sealed: signed checkpoints over all events.
type Sealing struct {
	Key *audit.Key
	// Interval is the longest time that an event waits for a checkpoint, and
	// Events the largest number of events that do.
	Interval time.Duration
	Events   uint64
	// Witnesses may sign checkpoints too.
	Witnesses []*audit.Verifier
	// File, where not empty, is replaced by each new checkpoint, and Hook, where
	// it has a command, is run with it in SLUICE_CHECKPOINT: somebody outside is
	// to have it, or nothing shows that the whole journal was made anew.
	File string
	Hook Hook
}

// sealed is what of the sealing may change while the engine runs.
type sealed struct {
	Sealing
	kinds []string // of values that are sealed, or their fields
}

// SetSealing replaces from now on how the journal is sealed, but for the key and
// the interval, and what of events is, as Config has it.
func (e *Engine) SetSealing(s Sealing, kinds []string) { e.sealed.Store(&sealed{s, kinds}) }

// sealRetry is how long a checkpoint that failed waits for the next try.
const sealRetry = time.Minute

// Checkpointed is the newest checkpoint in the journal.
type Checkpointed struct {
	Seq   uint64    `json:"seq"` // of its event
	Time  time.Time `json:"time"`
	Size  uint64    `json:"size"`
	Root  string    `json:"root"` // hex
	Zones uint64    `json:"zones"`
	Note  string    `json:"note"`
	// Cosigned are the witnesses that signed it too.
	Cosigned []string `json:"cosigned,omitempty"`
}

// AuditHead is what `audit head` shows.
type AuditHead struct {
	Key        string        `json:"key"`                  // the public audit key
	Checkpoint *Checkpointed `json:"checkpoint,omitempty"` // nil before the first
	Later      uint64        `json:"later"`                // events that it does not count
	Trouble    string        `json:"trouble,omitempty"`    // why the last one could not be made or handed out
}

// seals makes checkpoints until ctx ends.
func (e *Engine) seals(ctx context.Context) {
	for {
		next := e.cfg.Sealing.Interval
		err := e.sealWhereDue(ctx)
		if ctx.Err() != nil {
			return
		}
		e.setSealTrouble(ctx, err)
		if err != nil {
			next = min(next, sealRetry)
		}
		early := e.sealable
		if err != nil {
			early = nil
		}
		due, stop := e.clock.Timer(e.clock.Now().Add(next))
		select {
		case <-due:
		case <-early:
		case <-ctx.Done():
		}
		stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// sealWhereDue makes a checkpoint where there are events that none counts,
// other than checkpoints.
func (e *Engine) sealWhereDue(ctx context.Context) error {
	if !e.chief() {
		return nil
	}
	if err := e.goesOn(); err != nil {
		return err
	}
	e.mu.RLock()
	last, folded := e.registry.Checkpoint, e.folded
	e.mu.RUnlock()
	from := uint64(1)
	if last != nil {
		from = last.Size + 1
	}
	if folded < from {
		return nil
	}
	err := e.journal.Read(ctx, "", from, folded, func(rec journal.Record) error {
		if selfMatter(rec.Event.Facts) {
			return nil
		}
		return errFound
	})
	if !errors.Is(err, errFound) {
		return err
	}
	_, err = e.Seal(ctx, event.Program)
	return err
}

// goesOn reports whether the key is the one that signed the newest checkpoint.
// With another one nobody could verify the log any more, also once the key is
// there again. Errors: ErrState.
func (e *Engine) goesOn() error {
	e.mu.RLock()
	last := e.registry.Checkpoint
	e.mu.RUnlock()
	if last == nil {
		return nil
	}
	if _, _, err := audit.ReadCheckpoint(last.Note, e.cfg.Sealing.Key.Verifier()); err != nil {
		return fmt.Errorf("the checkpoint before (seq %d) was signed with another audit key: put audit*.key back from the copy of keys/ and restart: %w", last.Seq, ErrState)
	}
	return nil
}

// errFound ends a reading that has found what it looked for.
var errFound = errors.New("found")

// Seal makes a checkpoint over all events that are there, and hands it out.
// Errors: ErrState (no audit key, or another one than before).
func (e *Engine) Seal(ctx context.Context, actor event.Actor) (audit.Checkpoint, error) {
	if e.cfg.Sealing.Key == nil {
		return audit.Checkpoint{}, fmt.Errorf("this process has no audit key: %w", ErrState)
	}
	e.sealing.Lock()
	defer e.sealing.Unlock()
	if err := e.goesOn(); err != nil {
		return audit.Checkpoint{}, err
	}
	l, err := e.store.Log()
	if err != nil {
		return audit.Checkpoint{}, err
	}
	c, err := audit.Take(e.cfg.Sealing.Key.Name(), l)
	if err = errors.Join(err, l.Close()); err != nil {
		return c, fmt.Errorf("make checkpoint: %w", err)
	}
	signed, err := c.Sign(e.cfg.Sealing.Key)
	if err != nil {
		return c, fmt.Errorf("sign checkpoint: %w", err)
	}
	facts := &event.JournalCheckpointed{
		Size: uint64(c.Size), Root: c.Root, Zones: uint64(c.Zones), ZonesRoot: c.ZonesRoot, Note: signed,
	}
	if err := e.appendInstance(ctx, actor, facts, func() error { return nil }); err != nil {
		return c, err
	}
	return c, e.handOut(ctx, c, signed)
}

// handOut gives a checkpoint to file and hook.
func (e *Engine) handOut(ctx context.Context, c audit.Checkpoint, signed string) error {
	s := e.sealed.Load()
	if s.File != "" {
		if err := replaceFile(s.File, []byte(signed)); err != nil {
			return fmt.Errorf("write checkpoint: %w", err)
		}
	}
	if s.Hook.Command == "" {
		return nil
	}
	out, err := e.hook(ctx, "checkpoint", s.Hook, []string{"SLUICE_CHECKPOINT=" + signed, fmt.Sprintf("SLUICE_CHECKPOINT_SIZE=%d", c.Size)})
	if err == nil && (out.ExitCode != 0 || out.TimedOut) {
		err = errors.New(hookReason(out, s.Hook.Timeout))
	}
	if err != nil {
		return fmt.Errorf("hook of the checkpoint: %w", err)
	}
	return nil
}

// replaceFile puts a file into its place once it is whole and on disk.
func replaceFile(path string, content []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) //nolint:errcheck // gone already once it was renamed
	if err = tmp.Chmod(0o644); err == nil {
		if _, err = tmp.Write(content); err == nil {
			err = tmp.Sync()
		}
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// setSealTrouble keeps why there is no checkpoint, and tells it once.
func (e *Engine) setSealTrouble(ctx context.Context, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	e.mu.Lock()
	was := e.sealTrouble
	e.sealTrouble = text
	e.mu.Unlock()
	switch {
	case text == was:
	case text != "":
		e.log.ErrorContext(ctx, "checkpoint of the journal failed", "error", err, "hint", "the journal goes on; it is tried again")
	default:
		e.log.InfoContext(ctx, "checkpoints of the journal are made again")
	}
}

// AuditHead is the newest checkpoint. Errors: ErrState (no audit key).
func (e *Engine) AuditHead() (AuditHead, error) {
	if e.cfg.Sealing.Key == nil {
		return AuditHead{}, fmt.Errorf("this process has no audit key: %w", ErrState)
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	h := AuditHead{Key: e.cfg.Sealing.Key.Verifier().String(), Checkpoint: e.registry.Checkpoint, Later: e.folded, Trouble: e.sealTrouble}
	if h.Checkpoint != nil {
		h.Later -= h.Checkpoint.Size
	}
	return h, nil
}

// foldCheckpoint is the newest checkpoint after an event.
func foldCheckpoint(c *Checkpointed, rec journal.Record) *Checkpointed {
	switch f := rec.Event.Facts.(type) {
	case *event.JournalCheckpointed:
		return &Checkpointed{Seq: rec.Seq, Time: rec.Event.Time, Size: f.Size, Root: f.Root.String(), Zones: f.Zones, Note: f.Note}
	case *event.JournalCosigned:
		if c == nil || c.Size != f.Size {
			return c
		}
		next := *c
		next.Cosigned = append(append([]string(nil), c.Cosigned...), f.Witness)
		return &next
	}
	return c
}

// askSealLocked asks for a checkpoint where many events wait for one. The
// caller holds mu.
func (e *Engine) askSealLocked() {
	sealed := uint64(0)
	if c := e.registry.Checkpoint; c != nil {
		sealed = c.Size
	}
	if e.cfg.Sealing.Key == nil || e.folded-sealed < e.sealed.Load().Events {
		return
	}
	select {
	case e.sealable <- struct{}{}:
	default:
	}
}
