package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"sluice/journal"
	"sluice/journal/audit"
	"sluice/journal/event"
	"sluice/signer/zone"
)

// ExportQuery says what an audit export has; the zero value asks for all.
type ExportQuery struct {
	Zones  []string // all that ever had these names
	Since  time.Time
	Until  time.Time
	Chunks bool
	// DropSealed leaves the sealed values out; with Drop only these: kinds of
	// SealKinds or fields.
	DropSealed bool
	Drop       []string
}

// keeps reports which sealed values of an event go along.
func (q ExportQuery) keeps(rec journal.Record) map[string]event.SealedValue {
	if q.DropSealed && len(q.Drop) == 0 {
		return nil
	}
	kept := maps.Clone(rec.Sealed)
	shown := opened(rec).Event
	for _, drop := range q.Drop {
		delete(kept, drop)
		for _, field := range sealedFields(&shown, drop) {
			delete(kept, field)
		}
	}
	return kept
}

// AuditExport gives the files of an export to sink, the manifest last. It
// covers the events that are there when it begins; the last of them says that it
// is given out. Errors: ErrState (no audit key), ErrNotFound, ErrInvalid.
func (e *Engine) AuditExport(ctx context.Context, actor event.Actor, q ExportQuery, sink audit.Sink) (err error) {
	if e.cfg.Sealing.Key == nil {
		return fmt.Errorf("this process has no audit key: %w", ErrState)
	}
	if err := checkDropped(q.Drop); err != nil {
		return err
	}
	filter := audit.Filter{Since: q.Since, Until: q.Until, Chunks: q.Chunks}
	for _, text := range q.Zones {
		name, err := zone.ParseName(text)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		ids, err := e.lives(ctx, text)
		if err != nil {
			return err
		}
		for _, id := range ids {
			filter.Zones = append(filter.Zones, audit.Zone{ID: id, Name: name.Fold().String()})
		}
	}
	if err := e.noteExport(ctx, actor, q, exportedNames(filter.Zones)); err != nil {
		return err
	}
	l, err := e.store.Log()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	source := audit.Source{
		Log: l, Key: e.cfg.Sealing.Key, Program: e.software(),
		Read: func(ctx context.Context, zone event.ZoneID, last uint64, fn audit.EventFunc) error {
			return e.journal.Read(ctx, zone, 1, last, func(rec journal.Record) error {
				return fn(rec.Seq, rec.Line, q.keeps(rec), &rec.Event)
			})
		},
		Chunks: e.everyChunk,
	}
	if err = audit.Export(ctx, source, filter, sink); errors.Is(err, audit.ErrNoEvents) {
		err = fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return err
}

// everyChunk calls fn with the chunks of a manifest, and with those that list
// them.
func (e *Engine) everyChunk(ctx context.Context, m event.Manifest, fn func([]byte) error) error {
	j := journal.WithArchive(e.journal, e.cfg.Archive)
	for _, c := range m.Indirect {
		raw, err := j.Chunk(ctx, m.Subject, c)
		if err == nil {
			err = fn(raw)
		}
		if err != nil {
			return err
		}
	}
	return journal.Chunks(ctx, j, m, fn)
}

// CosignCheckpoint keeps a checkpoint that witnesses have signed too, once for
// each witness. Errors: ErrInvalid, ErrState.
func (e *Engine) CosignCheckpoint(ctx context.Context, actor event.Actor, note string) (AuditHead, error) {
	if e.cfg.Sealing.Key == nil {
		return AuditHead{}, fmt.Errorf("this process has no audit key: %w", ErrState)
	}
	c, names, err := audit.ReadCosigned(note, e.cfg.Sealing.Key.Verifier(), e.sealed.Load().Witnesses)
	if err != nil {
		return AuditHead{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if len(names) == 0 {
		return AuditHead{}, fmt.Errorf("%w: no witness of audit.witnesses in the config has signed it", ErrInvalid)
	}
	ours := func() error {
		have := e.registry.Checkpoint
		if have == nil || have.Size != uint64(c.Size) || have.Root != c.Root.String() {
			return fmt.Errorf("the newest checkpoint is another one: %w; see sluice audit head", ErrState)
		}
		return nil
	}
	for _, name := range names {
		facts := &event.JournalCosigned{Size: uint64(c.Size), Witness: name, Note: note}
		if err := e.appendInstance(ctx, actor, facts, ours); err != nil {
			return AuditHead{}, err
		}
	}
	return e.AuditHead()
}
