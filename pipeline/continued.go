package pipeline

import (
	"context"
	"fmt"
	"time"

	"sluice/journal"
	"sluice/journal/backup"
	"sluice/journal/event"
)

// BackedUp is the last copy of the journal that was told of.
type BackedUp struct {
	Seq  uint64    `json:"seq"` // of the event that tells of it
	Time time.Time `json:"time"`
	// Size is the number of events in the copy, so the sequence of the last.
	Size  uint64 `json:"size"`
	Place string `json:"place"`
	// Missing counts chunks that the journal no longer held.
	Missing uint64 `json:"missing,omitempty"`
}

// Continued says from which log this one goes on.
type Continued struct {
	Seq    uint64    `json:"seq"` // of journal.continued
	Time   time.Time `json:"time"`
	Origin string    `json:"origin"` // of the earlier log
	Size   uint64    `json:"size"`   // events taken over from it
	Reason string    `json:"reason"`
}

// foldJournal folds what the journal says about itself.
func foldJournal(reg Registry, rec journal.Record) Registry {
	switch f := rec.Event.Facts.(type) {
	case *event.JournalBackedUp:
		reg.Backup = &BackedUp{Seq: rec.Seq, Time: rec.Event.Time, Size: f.Size, Place: f.Place, Missing: f.Missing}
	case *event.JournalContinued:
		reg.Continued = &Continued{Seq: rec.Seq, Time: rec.Event.Time, Origin: f.Origin, Size: f.Size, Reason: f.Reason}
		reg.Checkpoint = nil // it was of the earlier log
	default:
		reg.Checkpoint = foldCheckpoint(reg.Checkpoint, rec)
	}
	return reg
}

// selfMatter reports whether an event is only about the log itself: no
// checkpoint is made for it alone.
func selfMatter(f event.Facts) bool {
	switch f.(type) {
	case *event.JournalCheckpointed, *event.JournalCosigned, *event.JournalBackedUp, *event.JournalExported:
		return true
	}
	return false
}

// describeJournal tells an event of the journal about itself as a sentence;
// empty for others.
func describeJournal(ev event.Event) string {
	switch f := ev.Facts.(type) {
	case *event.JournalCheckpointed:
		return fmt.Sprintf("checkpoint over %d events, root %s", f.Size, f.Root)
	case *event.JournalCosigned:
		return fmt.Sprintf("checkpoint over %d events cosigned by %s", f.Size, f.Witness)
	case *event.JournalExported:
		return exportedText(f)
	case *event.TSIGExported:
		return fmt.Sprintf("secret of TSIG key %s given out", f.Name)
	case *event.JournalBackedUp:
		text := fmt.Sprintf("copied to %s: %d events, %d chunks", f.Place, f.Size, f.Chunks)
		if f.Missing > 0 {
			text += fmt.Sprintf(", %d chunks missing", f.Missing)
		}
		return text
	case *event.JournalContinued:
		return fmt.Sprintf("a new log goes on from %d events of %s: %s; what was published behind them is not known here",
			f.Size, f.Origin, f.Reason)
	}
	return ""
}

// Backup tells what a copy of the journal holds when it is made now, and where
// its events come from. after is where an earlier copy ends; the zero value for
// none. Errors: ErrState (the earlier copy is of another journal, or the journal
// is still being read).
func (e *Engine) Backup(ctx context.Context, after journal.Position) (head backup.Head, s backup.Source, err error) {
	if err := e.Health(ctx); err != nil {
		return head, nil, err
	}
	if key := e.cfg.Sealing.Key; key != nil {
		// Whether the checkpoint could be handed out is no matter of the copy.
		if err := e.sealWhereDue(ctx); err != nil {
			e.log.WarnContext(ctx, "copy of the journal without a new checkpoint", "error", err)
		}
		head.Key, head.Origin = key.Verifier().String(), key.Name()
		e.mu.RLock()
		if c := e.registry.Checkpoint; c != nil {
			head.Checkpoint = c.Note
		}
		e.mu.RUnlock()
	}
	head.Rehearsal = e.clock.Simulated()
	if head, err = backup.Complete(ctx, e.cfg.Journal, head); err != nil {
		return head, nil, err
	}
	if after.Seq > 0 {
		ours, err := e.cfg.Journal.Check(ctx, after)
		if err != nil {
			return head, nil, err
		}
		if !ours || after.Seq > head.Size {
			return head, nil, fmt.Errorf("the backup there ends with event %d of journal %s, which is not part of this journal %s: %w",
				after.Seq, after.Stream, head.Identity, ErrState)
		}
	}
	return head, backup.OfJournal(e.cfg.Journal), nil
}

// BackupDone is a copy of the journal that somebody made.
type BackupDone struct {
	Size    uint64     `json:"size"`
	Hash    event.Hash `json:"hash"` // record hash of the last event
	Chunks  uint64     `json:"chunks"`
	Missing uint64     `json:"missing"`
	Place   string     `json:"place"`
}

// maxPlace bounds the words about where a copy is.
const maxPlace = 4096

// RecordBackup records that a copy of the journal was made. Errors: ErrInvalid
// (it is not of this journal).
func (e *Engine) RecordBackup(ctx context.Context, actor event.Actor, b BackupDone) error {
	if b.Place == "" || len(b.Place) > maxPlace {
		return fmt.Errorf("%w: say where the copy is, in at most %d bytes", ErrInvalid, maxPlace)
	}
	identity, _, err := e.journal.Stream(ctx)
	if err != nil {
		return err
	}
	ours, err := e.journal.Check(ctx, journal.Position{Stream: identity, Seq: b.Size, Hash: b.Hash})
	if err != nil {
		return err
	}
	if !ours || b.Size == 0 {
		return fmt.Errorf("%w: the copy ends with another event %d than this journal has", ErrInvalid, b.Size)
	}
	facts := &event.JournalBackedUp{Size: b.Size, Hash: b.Hash, Chunks: b.Chunks, Missing: b.Missing, Place: b.Place}
	return e.appendInstance(ctx, actor, facts, func() error { return nil })
}
