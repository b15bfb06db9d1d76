package pipeline

import (
	"context"
	"errors"
	"fmt"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/pipeline/store"
	"sluice/signer/zone"
)

// ZoneRetention is what retention does, or would do, for a zone.
type ZoneRetention struct {
	Zone string `json:"zone"`
	ID   string `json:"id"`
	// Rule is what the policy says, in words.
	Rule string `json:"rule"`
	// Versions is the number of published versions that can be rebuilt now, and
	// Kept that of those that stay. OldestSerial and OldestSeq name the oldest one
	// that stays.
	Versions     int    `json:"versions"`
	Kept         int    `json:"kept"`
	OldestSerial uint32 `json:"oldest_serial,omitempty"`
	OldestSeq    uint64 `json:"oldest_seq,omitempty"`
	// Held is what the zone takes up in BULK, in bytes, and Bytes what goes of it,
	// in Chunks chunks of Instances events.
	Held      uint64 `json:"held"`
	Instances int    `json:"instances"`
	Chunks    uint64 `json:"chunks"`
	Bytes     uint64 `json:"bytes"`
	// Snapshot: one is taken first; it needs roughly SnapshotBytes, uncompressed.
	Snapshot      bool   `json:"snapshot"`
	SnapshotBytes uint64 `json:"snapshot_bytes,omitempty"`
	Archived      bool   `json:"archived"`
	Done          bool   `json:"done"`
	// Error is why it was left; what is served is not touched by it.
	Error string `json:"error,omitempty"`
}

// retaining is retention at work on one zone.
type retaining struct {
	e     *Engine
	r     *runner
	s     State // at the beginning
	p     RetentionPolicy
	h     holdings
	plan  retention
	size  func(chunkEvent) uint64
	purge journal.Purger
}

// prepareRetention reads what is held of a zone, and plans. Where the journal
// cannot be purged it is ErrState.
func (e *Engine) prepareRetention(ctx context.Context, r *runner) (*retaining, error) {
	s := r.snapshot()
	p, err := e.boundPolicy(s)
	if err != nil {
		return nil, err
	}
	purger, ok := e.cfg.Journal.(journal.Purger)
	if !ok {
		return nil, errorState("this journal cannot be purged from here")
	}
	t := &retaining{e: e, r: r, s: s, p: p.Retention(), purge: purger}
	first := uint64(1)
	if s.Retained != nil && len(s.Grants) == 0 { // grants are folded from the beginning
		first = s.Retained.Kept
	}
	if s.Head.Seq >= first {
		err = e.journal.Read(ctx, s.Zone, first, s.Head.Seq, func(rec journal.Record) error {
			t.h.take(rec)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	t.h.settle()
	diffs, err := e.store.OldestDiff(s.Zone)
	if err != nil {
		return nil, err
	}
	stored, err := purger.StoredBytes(ctx, s.Zone)
	if err != nil {
		return nil, err
	}
	t.size = t.h.sizes(stored)
	t.plan = t.h.plan(t.h.oldest(t.p, e.clock.Now(), diffs))
	if !t.p.purges() || s.Published == nil || s.goesBack() {
		t.plan.purge, t.plan.snapshot, t.plan.raw, t.plan.cost = nil, [2]uint64{}, 0, 0
	}
	return t, nil
}

// describe is the plan as it is told.
func (t *retaining) describe() ZoneRetention {
	z := ZoneRetention{
		Zone: t.s.Name, ID: string(t.s.Zone), Rule: t.p.text(), Versions: len(t.h.published), Kept: t.plan.stay,
		OldestSerial: t.plan.oldest.serial, OldestSeq: t.plan.oldest.seq, Instances: len(t.plan.purge),
		Snapshot: t.plan.snapshot != [2]uint64{}, SnapshotBytes: t.plan.cost,
		Archived: t.e.cfg.Archive != nil && len(t.plan.purge) > 0,
	}
	for _, n := range t.h.all {
		z.Held += t.size(n)
	}
	for _, n := range t.plan.purge {
		z.Chunks += n.chunks
		z.Bytes += t.size(n)
	}
	return z
}

// run does what was planned: a snapshot where one is needed, the proof, the
// archive, the event, and then the purge. What it leaves undone before the event
// changes nothing; what it leaves undone after it, the next run finishes.
func (t *retaining) run(ctx context.Context, actor event.Actor, progress func(Progress)) error {
	tell := func(stage string) { progress(Progress{Zone: t.s.Name, Stage: stage}) }
	var taken *event.SnapshotTaken
	if t.plan.snapshot != [2]uint64{} {
		tell("snapshot")
		var err error
		if taken, err = t.snapshot(ctx); err != nil {
			return fmt.Errorf("take snapshot: %w", err)
		}
	}
	tell("prove")
	if err := t.prove(ctx, taken); err != nil {
		return fmt.Errorf("prove that the zone can be rebuilt without what goes: %w; see: sluice journal verify", err)
	}
	if taken != nil {
		seq, err := t.append(ctx, actor, taken)
		if err != nil {
			return fmt.Errorf("record snapshot: %w", err)
		}
		for _, instance := range t.plan.snapshot {
			if instance != 0 {
				t.plan.snapshots[instance] = seq
			}
		}
	}
	archived := false
	if a := t.e.cfg.Archive; a != nil {
		tell("archive")
		archived = true
		err := t.eachPurged(ctx, func(rec journal.Record, m event.Manifest) error {
			err := a.Put(ctx, t.e.journal, rec, m, t.s.Name)
			if errors.Is(err, journal.ErrNoChunk) { // it was lost before: nothing more is lost
				t.e.log.WarnContext(ctx, "chunks not archived: the journal does not hold them", "zone", t.s.Name, "seq", rec.Seq, "error", err)
				archived, err = false, nil
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	// Commit: from here on nobody counts on the chunks that go.
	if _, err := t.append(ctx, actor, t.plan.facts(t.size, archived)...); err != nil {
		return fmt.Errorf("record purge: %w", err)
	}
	tell("purge")
	alone := t.plan.alone(&t.h)
	return t.eachPurged(ctx, func(rec journal.Record, m event.Manifest) error {
		_, err := t.purge.PurgeChunks(ctx, m, alone[rec.Seq])
		return t.e.note(err)
	})
}

// eachPurged calls fn for the manifests of the events that lose their chunks,
// the oldest first.
func (t *retaining) eachPurged(ctx context.Context, fn func(journal.Record, event.Manifest) error) error {
	for _, n := range t.plan.purge {
		if err := t.e.eachManifest(ctx, t.s.Zone, n.seq, fn); err != nil {
			return err
		}
	}
	return nil
}

// eachManifest calls fn for the manifests of one event.
func (e *Engine) eachManifest(ctx context.Context, id event.ZoneID, seq uint64, fn func(journal.Record, event.Manifest) error) error {
	return e.journal.Read(ctx, id, seq, seq, func(rec journal.Record) error {
		for _, m := range event.Manifests(rec.Event.Facts) {
			if err := fn(rec, m); err != nil {
				return err
			}
		}
		return nil
	})
}

// append appends what was done, and waits until it is folded. What a person or
// the sweep did meanwhile may stop it.
func (t *retaining) append(ctx context.Context, actor event.Actor, facts ...event.Facts) (uint64, error) {
	for {
		s := t.r.snapshot()
		switch p, err := t.e.boundPolicy(s); {
		case err != nil:
			return 0, err
		case s.Removed != 0:
			return 0, fmt.Errorf("zone %s was removed meanwhile: %w", s.Name, ErrState)
		case p.Retention() != t.p:
			return 0, fmt.Errorf("the zone's retention was changed meanwhile: %w", ErrState)
		case s.Swept != t.s.Swept:
			return 0, fmt.Errorf("%w: try again", errSwept)
		case s.goesBack(): // to a version, perhaps, that was to go
			return 0, fmt.Errorf("the zone goes back to an earlier version meanwhile: %w", ErrState)
		}
		head, err := t.e.append(ctx, t.s.Zone, s.Head, 0, actor, facts...)
		if errors.Is(err, journal.ErrConflict) {
			if err := t.r.await(ctx, func(now State) bool { return now.Head.Seq > s.Head.Seq }); err != nil {
				return 0, err
			}
			continue
		}
		if err != nil {
			return 0, err
		}
		return head.Seq, t.r.await(ctx, func(now State) bool { return now.Head.Seq >= head.Seq })
	}
}

// snapshot writes the items of the oldest version that stays, from the
// projection where that still holds it.
func (t *retaining) snapshot(ctx context.Context) (*event.SnapshotTaken, error) {
	st, done, err := t.version(ctx)
	if err != nil {
		return nil, err
	}
	defer done() //nolint:errcheck // read only
	taken := &event.SnapshotTaken{Published: t.plan.oldest.seq, Serial: t.plan.oldest.serial, Proved: t.s.Head.Seq}
	if seq := t.plan.snapshot[0]; seq != 0 {
		if taken.Loaded, err = t.write(ctx, "l", seq, st.Loaded); err != nil {
			return nil, err
		}
	}
	if seq := t.plan.snapshot[1]; seq != 0 {
		if taken.Signed, err = t.write(ctx, "s", seq, st.Signed); err != nil {
			return nil, err
		}
	}
	return taken, nil
}

// version finds a projection that holds the oldest version that stays: the one
// at work, or one that is built for it and goes with done.
func (t *retaining) version(ctx context.Context) (st *store.Store, done func() error, err error) {
	v, err := t.e.store.Signed(t.s.Zone, t.plan.oldest.signed)
	if err == nil {
		return t.e.store, v.Close, nil
	}
	if !errors.Is(err, store.ErrNoInstance) {
		return nil, nil, err
	}
	if err := t.e.room(t.plan.held); err != nil {
		return nil, nil, err
	}
	sc, err := t.e.newScratch(ctx, t.s.Zone)
	if err != nil {
		return nil, nil, err
	}
	sc.limit = t.plan.oldest.seq
	if err := sc.fold(ctx, func(journal.Record) error { return nil }); err != nil {
		return nil, nil, errors.Join(err, sc.close())
	}
	return sc.store, sc.close, nil
}

// write writes all items of an instance as chunks.
func (t *retaining) write(ctx context.Context, letter string, seq uint64, open func(event.ZoneID, uint64) (*store.View, error)) (*event.Snapshot, error) {
	v, err := open(t.s.Zone, seq)
	if err != nil {
		return nil, err
	}
	defer v.Close()                                             //nolint:errcheck // read only
	j := roomyJournal{Journal: t.e.cfg.Journal, room: t.e.room} // BULK's last room may be used: more comes free
	out := j.NewChunks(t.s.Zone, fmt.Sprintf("snapshot-%s%d-%d", letter, seq, t.s.Head.Seq))
	sink := newChunkSink(ctx, out)
	part := &event.Snapshot{Instance: seq}
	for _, kind := range v.OwnKinds() {
		n, err := copyKind(ctx, v, kind, sink)
		if err != nil {
			return nil, err
		}
		part.Items += n
	}
	h, err := v.SetHash()
	if err != nil {
		return nil, err
	}
	part.Digest = h.Sum()
	if err := sink.putState(h); err != nil {
		return nil, err
	}
	part.Manifest, err = sink.finish()
	return part, err
}

// copyKind copies the items of one kind.
func copyKind(ctx context.Context, v *store.View, kind zone.Kind, sink *chunkSink) (n uint64, err error) {
	it, err := v.Kind(kind)
	if err != nil {
		return 0, err
	}
	defer it.Close() //nolint:errcheck // read only
	for ; it.Next(); n++ {
		if n%4096 == 0 && ctx.Err() != nil {
			return n, ctx.Err()
		}
		if err := sink.Put(it.Key(), it.Value()); err != nil {
			return n, err
		}
	}
	return n, it.Err()
}

// prove rebuilds the zone in an empty projection as if the purge were done
// already: every instance that stays must have its recorded digest, those of
// the oldest version computed from their items, and what is served must be the
// same item by item.
func (t *retaining) prove(ctx context.Context, taken *event.SnapshotTaken) error {
	if err := t.e.room(t.plan.held); err != nil {
		return err
	}
	sc, err := t.e.newScratch(ctx, t.s.Zone)
	if err != nil {
		return err
	}
	defer sc.close() //nolint:errcheck // a scratch folder
	if err := sc.learn(ctx); err != nil {
		return err
	}
	t.pretend(&sc.purges, taken)
	sc.limit = t.s.Head.Seq
	met := map[uint64]bool{}
	err = sc.fold(ctx, func(rec journal.Record) error {
		full := rec.Seq == t.plan.oldest.loaded || rec.Seq == t.plan.oldest.signed
		step, ok, err := sc.step(rec, full)
		if err != nil || !ok {
			return err
		}
		if met[rec.Seq] = true; !step.Equal {
			return fmt.Errorf("%s: rebuilt digest %s differs from the recorded %s", step.Instance, step.Rebuilt, step.Recorded)
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case !met[t.plan.oldest.loaded] || !met[t.plan.oldest.signed]:
		return fmt.Errorf("the version of serial %d was not met", t.plan.oldest.serial)
	case sc.state.Published == nil:
		return errors.New("nothing is published at its end")
	}
	return t.e.comparePublished(sc)
}

// pretend lets a fold take a plan as done.
func (t *retaining) pretend(p *purges, taken *event.SnapshotTaken) {
	seqs := make([]uint64, 0, len(t.plan.purge))
	for _, n := range t.plan.purge {
		seqs = append(seqs, n.seq)
	}
	p.pass(seqs)
	if taken == nil {
		return
	}
	p.planned = map[uint64]*event.Snapshot{}
	for _, part := range []*event.Snapshot{taken.Loaded, taken.Signed} {
		if part != nil {
			p.planned[part.Instance] = part
		}
	}
}

// finishPurge removes what the last purge was to remove and did not.
func (t *retaining) finishPurge(ctx context.Context) error {
	was := t.s.Retained
	if was == nil {
		return nil
	}
	stored, err := t.purge.StoredBytes(ctx, t.s.Zone)
	if err != nil || len(stored) == 0 {
		return err
	}
	var gone []uint64
	err = t.e.journal.Read(ctx, t.s.Zone, was.First, was.Purged, func(rec journal.Record) error {
		if f, ok := rec.Event.Facts.(*event.BulkPurged); ok {
			gone = append(gone, f.Instances...)
		}
		return nil
	})
	for _, seq := range gone {
		if err != nil {
			return err
		}
		err = t.e.eachManifest(ctx, t.s.Zone, seq, func(_ journal.Record, m event.Manifest) error {
			if _, ok := stored[m.Subject]; !ok {
				return nil
			}
			_, err := t.purge.PurgeChunks(ctx, m, false)
			return err
		})
	}
	return err
}
