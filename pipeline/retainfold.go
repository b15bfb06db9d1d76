package pipeline

import (
	"context"
	"errors"
	"fmt"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/pipeline/store"
)

// purges is what a fold has to know of later events: which instances have lost
// their chunks to retention, and what stands for those whose base has. It follows
// from the journal alone. The zero value knows of none.
type purges struct {
	passed journal.SeqSet // instances, and snapshots
	// stand is the sequence of the snapshot.taken of an instance, planned what is
	// not in the journal yet.
	stand   map[uint64]uint64
	planned map[uint64]*event.Snapshot
	upTo    uint64 // what was read
	// archived: chunks may be found elsewhere, so what was purged is tried.
	archived bool
}

// learn reads what the events of a zone, or of all ("") from a sequence on, say
// of purges.
func (p *purges) learn(ctx context.Context, j journal.Journal, id event.ZoneID, first uint64) error {
	return j.Read(ctx, id, max(first, p.upTo+1), 0, func(rec journal.Record) error {
		p.take(rec)
		return nil
	})
}

func (p *purges) take(rec journal.Record) {
	p.upTo = rec.Seq
	switch f := rec.Event.Facts.(type) {
	case *event.BulkPurged:
		p.pass(f.Instances)
	case *event.SnapshotTaken:
		if p.stand == nil {
			p.stand = map[uint64]uint64{}
		}
		for _, part := range []*event.Snapshot{f.Loaded, f.Signed} {
			if part != nil {
				p.stand[part.Instance] = rec.Seq
			}
		}
	}
}

// pass notes that events have lost their chunks.
func (p *purges) pass(seqs []uint64) {
	if p.passed == nil {
		p.passed = journal.SeqSet{}
	}
	for _, seq := range seqs {
		p.passed.Add(seq)
	}
	for instance, seq := range p.stand {
		if p.passed.Has(seq) {
			delete(p.stand, instance)
		}
	}
}

// over reports whether a fold passes over an event: the contents that it names
// are gone.
func (p *purges) over(rec journal.Record) bool {
	switch f := rec.Event.Facts.(type) {
	case *event.InstanceLoaded, *event.InstanceSigned:
		return p.passed.Has(rec.Seq)
	case *event.InstancePublished:
		return p.passed.Has(f.Signed)
	}
	return false
}

// fold folds an event of a zone into a projection. It reports false where it
// passed over it: the projection then holds nothing of the instance, and no
// state says that it is broken. Errors are those of store.Apply.
func (p *purges) fold(ctx context.Context, j journal.Journal, st *store.Store, rec journal.Record, chunks store.ChunkSource, states ...store.ZoneState) (bool, error) {
	if p.over(rec) {
		if !p.archived {
			return false, st.Skip(ctx, rec, states...)
		}
		err := st.Apply(ctx, rec, chunks, states...)
		if errors.Is(err, journal.ErrNoChunk) || errors.Is(err, store.ErrBroken) {
			return false, st.Skip(ctx, rec, states...)
		}
		return err == nil, err
	}
	if base := diffBase(rec); base != 0 && p.passed.Has(base) && !p.archived {
		return p.foldWhole(ctx, j, st, rec, chunks, states...)
	}
	err := st.Apply(ctx, rec, chunks, states...)
	if (errors.Is(err, journal.ErrNoChunk) || errors.Is(err, store.ErrBroken)) && diffBase(rec) != 0 {
		if ok, again := p.foldWhole(ctx, j, st, rec, chunks, states...); again == nil {
			return ok, nil
		}
	}
	return err == nil, err
}

// diffBase is the sequence of what an event's items are a diff to; 0 where they
// are whole.
func diffBase(rec journal.Record) uint64 {
	switch f := rec.Event.Facts.(type) {
	case *event.InstanceLoaded:
		return f.Base
	case *event.InstanceSigned:
		return f.Base
	}
	return 0
}

// foldWhole folds an instance from its snapshot: the same instance, but whole.
func (p *purges) foldWhole(ctx context.Context, j journal.Journal, st *store.Store, rec journal.Record, chunks store.ChunkSource, states ...store.ZoneState) (bool, error) {
	part, err := p.snapshot(ctx, j, rec)
	if err != nil {
		return false, err
	}
	switch f := rec.Event.Facts.(type) {
	case *event.InstanceLoaded:
		whole := *f
		whole.Base, whole.Manifest = 0, part.Manifest
		rec.Event.Facts = &whole
	case *event.InstanceSigned:
		whole := *f
		whole.Base, whole.Manifest = 0, part.Manifest
		rec.Event.Facts = &whole
	}
	err = st.Apply(ctx, rec, chunks, states...)
	return err == nil, err
}

// snapshot finds what stands for an instance; store.ErrBroken where nothing
// does.
func (p *purges) snapshot(ctx context.Context, j journal.Journal, rec journal.Record) (part *event.Snapshot, err error) {
	if part = p.planned[rec.Seq]; part != nil {
		return part, nil
	}
	seq := p.stand[rec.Seq]
	if seq != 0 {
		err = j.Read(ctx, rec.Event.Zone, seq, seq, func(at journal.Record) error {
			if f, ok := at.Event.Facts.(*event.SnapshotTaken); ok {
				for _, of := range []*event.Snapshot{f.Loaded, f.Signed} {
					if of != nil && of.Instance == rec.Seq {
						part = of
					}
				}
			}
			return nil
		})
	}
	if err == nil && part == nil {
		err = fmt.Errorf("%w: what event %d builds on was purged, and no snapshot stands for it", store.ErrBroken, rec.Seq)
	}
	return part, err
}

// foldHeld folds an event into the projection. Where its chunks are missing, it
// looks at later events first: retention may have purged them.
func (e *Engine) foldHeld(ctx context.Context, rec journal.Record, states ...store.ZoneState) error {
	_, err := e.purges.fold(ctx, e.journal, e.store, rec, e.chunks, states...)
	if !errors.Is(err, journal.ErrNoChunk) && !errors.Is(err, store.ErrBroken) {
		return err
	}
	if lerr := e.purges.learn(ctx, e.journal, "", rec.Seq+1); lerr != nil {
		return lerr
	}
	_, err = e.purges.fold(ctx, e.journal, e.store, rec, e.chunks, states...)
	return err
}

// learn reads what retention has done to the zone, once.
func (s *scratch) learn(ctx context.Context) error {
	if s.learned {
		return nil
	}
	s.learned = true
	return s.purges.learn(ctx, s.e.journal, s.id, 1)
}

// useArchive lets a scratch projection find purged chunks in the archive, if
// there is one.
func (s *scratch) useArchive() {
	if s.e.cfg.Archive == nil {
		return
	}
	s.readFrom(journal.WithArchive(s.e.journal, s.e.cfg.Archive))
	s.purges.archived = true
}

// readFrom says where a scratch projection finds chunks.
func (s *scratch) readFrom(j journal.Journal) {
	s.chunks = func(ctx context.Context, m event.Manifest, fn func([]byte) error) error {
		return journal.Chunks(ctx, j, m, fn)
	}
}

// reach makes a scratch projection ready to show an instance: one that was
// purged is looked for in the archive. Errors: journal.ErrPurged.
func (s *scratch) reach(ctx context.Context, seq uint64) error {
	if err := s.learn(ctx); err != nil || !s.purges.passed.Has(seq) {
		return err
	}
	if s.e.cfg.Archive == nil {
		return s.e.purgedVersion("", s.id)
	}
	s.useArchive()
	return nil
}

// purgedVersion says that a version is no longer held, and which ones are.
func (e *Engine) purgedVersion(name string, id event.ZoneID) error {
	e.mu.RLock()
	r := e.runners[id]
	e.mu.RUnlock()
	from := "it may stand in the archive, if there is one (archive-dir in the config)"
	if r != nil {
		s := r.snapshot()
		if name == "" {
			name = s.Name
		}
		if s.Retained != nil {
			from = fmt.Sprintf("the oldest one that is held is serial %d; older ones are read from an archive, where the config has one (archive-dir)", s.Retained.Serial)
		}
	}
	return fmt.Errorf("zone %s: that version is %w; %s: %w", name, journal.ErrPurged, from, ErrNotFound)
}
