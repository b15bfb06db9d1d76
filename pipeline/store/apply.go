package store

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/signer/zone"
)

// ChunkSource calls fn with the raw chunks of a manifest, in order; an
// indirect list is resolved. The slice belongs to fn, which may still read it
// while the next chunk is fetched. An error of fn ends it and is returned.
type ChunkSource func(ctx context.Context, m event.Manifest, fn func(raw []byte) error) error

// ZoneState is what the pipeline wants kept for a zone; the store does not
// look inside.
type ZoneState struct {
	Zone event.ZoneID
	Data []byte
	// Common, where not empty, is a part that states of other zones have as
	// well: it is kept once, by its hash, for as long as the store lives.
	Common     string
	CommonHash event.Hash
}

// Apply folds one event: data, position and states become visible together
// and hold together after a crash. Zones without a state among states keep
// theirs. An event at or before the position changes nothing. After an error
// nothing has changed; it names zone, event and chunk. ErrBroken, and an
// error of chunks, mean that the instance cannot be had (see Skip).
func (s *Store) Apply(ctx context.Context, rec journal.Record, chunks ChunkSource, states ...ZoneState) error {
	return s.fold(ctx, rec, states, func(e *edit) error { return s.applyFacts(ctx, e, rec, chunks) })
}

// Skip moves the position over an event without its data, where the journal
// no longer holds it, and keeps states. Instances that build on a skipped one
// cannot be applied either.
func (s *Store) Skip(ctx context.Context, rec journal.Record, states ...ZoneState) error {
	return s.fold(ctx, rec, states, func(e *edit) error {
		_, _, err := s.number(*e, rec.Event.Zone)
		return err
	})
}

// Name says of which stream the events are, where the store was opened without
// knowing: from the next event on it stands with the position. It must be the
// one that the position names, if that does.
func (s *Store) Name(stream string) error {
	s.apply.Lock()
	defer s.apply.Unlock()
	s.mu.RLock()
	at := s.position
	s.mu.RUnlock()
	if at.Stream != "" && at.Stream != stream {
		return fmt.Errorf("store of stream %q cannot take events of stream %q", at.Stream, stream)
	}
	s.cfg.Stream = stream
	return nil
}

// fold runs apply and commits what it put into the edit, which it may
// replace.
func (s *Store) fold(ctx context.Context, rec journal.Record, states []ZoneState, apply func(*edit) error) (err error) {
	s.apply.Lock()
	defer s.apply.Unlock()
	s.mu.RLock()
	closed, position := s.closed, s.position
	s.mu.RUnlock()
	switch {
	case closed:
		return ErrClosed
	case s.cfg.Stream != "" && position.Stream != "" && position.Stream != s.cfg.Stream:
		return fmt.Errorf("store of stream %q cannot take events of stream %q", position.Stream, s.cfg.Stream)
	case rec.Seq <= position.Seq:
		return nil
	}
	s.named = map[event.ZoneID]uint32{}
	var e edit = s.newBatch()
	defer func() { err = errors.Join(err, e.abort()) }()
	if err = apply(&e); err == nil {
		err = s.setStates(e, states)
	}
	if err == nil {
		err = s.setLog(e, rec)
	}
	if err == nil {
		err = s.setRef(e, rec)
	}
	if err != nil {
		return fmt.Errorf("zone %s, event %d: %w", rec.Event.Zone, rec.Seq, noSpace(err))
	}
	if s.cfg.Stream != "" {
		position.Stream = s.cfg.Stream
	}
	before := position.Seq
	position.Seq, position.Hash = rec.Seq, rec.Hash
	if err := s.setPosition(e, before, position); err != nil {
		return err
	}
	s.memory.touch(rec.Event.Zone, rec.Seq)
	// Commit: from here on the event is folded.
	if err := e.commit(ctx); err != nil {
		return fmt.Errorf("zone %s, event %d: %w", rec.Event.Zone, rec.Seq, damaged(err))
	}
	s.mu.Lock()
	s.position = position
	s.mu.Unlock()
	return nil
}

// setPosition moves the position, and its mark: the mark that an edit sets is
// deleted by the next edit alone (see checkMarks).
func (s *Store) setPosition(e edit, before uint64, position journal.Position) error {
	if before == 0 {
		if err := e.set(laneMeta, markKey(0), nil); err != nil {
			return err
		}
	} else if err := e.remove(laneMeta, markKey(before)); err != nil {
		return err
	}
	if err := e.set(laneMeta, markKey(position.Seq), nil); err != nil {
		return err
	}
	return setJSON(e, []byte{spacePosition}, storedPosition{Schema: schema, Events: s.cfg.Events, Position: position})
}

// setStates comes after everything else: what removes a zone leaves its state.
func (s *Store) setStates(e edit, states []ZoneState) error {
	for _, st := range states {
		z, ok := s.named[st.Zone]
		if !ok && st.Zone != event.Instance {
			known, found, err := s.zone(s.db, st.Zone)
			if err != nil {
				return err
			}
			if !found {
				return fmt.Errorf("state of zone %s, which no event named", st.Zone)
			}
			z = known.Number
		}
		if err := s.setCommon(e, st); err != nil {
			return err
		}
		if err := e.set(laneMeta, metaKey(z, tagState), st.Data); err != nil {
			return err
		}
	}
	return nil
}

// setCommon keeps what a state has in common with others, where that is new.
func (s *Store) setCommon(e edit, st ZoneState) error {
	if st.Common == "" || s.common[st.CommonHash] {
		return nil
	}
	key := commonKey(st.CommonHash)
	there, err := s.get(s.db, key)
	if err != nil {
		return err
	}
	if there == nil {
		return e.set(laneMeta, key, []byte(st.Common))
	}
	s.common[st.CommonHash] = true
	return nil
}

func setJSON(e edit, key []byte, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	return e.set(laneMeta, key, raw)
}

// applyFacts puts what the facts of rec say into the edit. Data of a zone
// that is gone is left out.
func (s *Store) applyFacts(ctx context.Context, e *edit, rec journal.Record, chunks ChunkSource) error {
	z, removed, err := s.number(*e, rec.Event.Zone)
	if err != nil {
		return err
	}
	switch f := rec.Event.Facts.(type) {
	case *event.ZoneAdded:
		_, _, err = s.number(*e, f.ID)
	case *event.ZoneRemoved:
		err = s.removeZone(*e, f.ID)
	case *event.InstanceLoaded:
		if !removed {
			err = s.applyLoaded(ctx, e, z, rec.Seq, f, chunks)
		}
	case *event.InstanceSigned:
		if !removed {
			err = s.applySigned(ctx, e, z, rec.Seq, f, chunks)
		}
	case *event.InstancePublished:
		if !removed {
			err = s.applyPublished(e, z, rec.Event.Time, f)
		}
	case *event.InstanceAbandoned:
		if !removed {
			err = s.applyAbandoned(*e, z, f)
		}
	}
	if errors.Is(err, ErrNoInstance) {
		return fmt.Errorf("%w: %w", ErrBroken, err)
	}
	return err
}

// number is the number of a zone. The first event that names a zone gives it
// the next one; event.Instance has 0.
func (s *Store) number(e edit, id event.ZoneID) (z uint32, removed bool, err error) {
	if id == event.Instance {
		return 0, false, nil
	}
	if z, ok := s.named[id]; ok {
		return z, false, nil
	}
	known, ok, err := s.zone(s.db, id)
	if err != nil || ok {
		return known.Number, known.Removed, err
	}
	next := uint32(1)
	raw, err := s.get(s.db, []byte{spaceNext})
	if err != nil {
		return 0, false, err
	}
	if len(raw) == 4 {
		next = binary.BigEndian.Uint32(raw)
	}
	next += uint32(len(s.named))
	if err := setJSON(e, zoneKey(id), zoneEntry{Number: next}); err != nil {
		return 0, false, err
	}
	s.named[id] = next
	return next, false, e.set(laneMeta, []byte{spaceNext}, binary.BigEndian.AppendUint32(nil, next+1))
}

// removeZone drops all data of a zone. Its number stays taken, so that a late
// event of the zone finds that it is gone.
func (s *Store) removeZone(e edit, id event.ZoneID) error {
	z, _, err := s.number(e, id)
	if err != nil {
		return err
	}
	for _, space := range []byte{spaceMeta, spaceData, spaceLists, spaceDiffs, spaceDue} {
		if err := e.removeAll(appendZone(nil, space, z)); err != nil {
			return err
		}
	}
	return setJSON(e, zoneKey(id), zoneEntry{Number: z, Removed: true})
}

func (s *Store) applyLoaded(ctx context.Context, e *edit, z uint32, seq uint64, f *event.InstanceLoaded, chunks ChunkSource) error {
	all, h, err := s.metas(s.db, z)
	if err != nil {
		return err
	}
	m := &InstanceMeta{
		Seq: seq, Generation: seq, Base: f.Base, Serial: zone.Serial(f.Serial),
		Records: f.Records, ContentDigest: f.ContentDigest, Whole: f.PassThrough,
	}
	return s.applyInstance(ctx, e, z, all, h, m, f.Manifest, nil, chunks)
}

func (s *Store) applySigned(ctx context.Context, e *edit, z uint32, seq uint64, f *event.InstanceSigned, chunks ChunkSource) error {
	all, h, err := s.metas(s.db, z)
	if err != nil {
		return err
	}
	l, err := all.instance(f.Loaded, false)
	if err != nil {
		return err
	}
	m := &InstanceMeta{
		Seq: seq, Signed: true, Whole: l.Whole, Generation: seq, Base: f.Base, Loaded: f.Loaded, Serial: zone.Serial(f.Serial),
		Records: f.Records, ContentDigest: f.ContentDigest, SignedDigest: f.SignedDigest,
		Earliest: f.Earliest, Expiration: f.Expiration,
	}
	return s.applyInstance(ctx, e, z, all, h, m, f.Manifest, f, chunks)
}

// applyAbandoned lets the next publication drop an instance.
func (s *Store) applyAbandoned(e edit, z uint32, f *event.InstanceAbandoned) error {
	all, _, err := s.metas(s.db, z)
	if err != nil {
		return err
	}
	m := all.find(f.Instance)
	if m == nil || m.Past || m.Signed != (f.Stage == event.StageSigned) {
		return nil
	}
	gone := *m
	gone.Abandoned = true
	return setJSON(e, metaSeqKey(z, tagInstance, m.Seq), gone)
}

func (s *Store) applyInstance(ctx context.Context, e *edit, z uint32, all metas, h head, m *InstanceMeta, list event.Manifest, signed *event.InstanceSigned, chunks ChunkSource) (err error) {
	if m.Base != 0 {
		base, err := all.instance(m.Base, m.Signed)
		if err != nil {
			return err
		}
		if base.Whole != m.Whole {
			return fmt.Errorf("%w: %s does not have the kinds of items of %s", ErrBroken,
				instanceName(m.Base, m.Signed), instanceName(m.Seq, m.Signed))
		}
		m.Generation, m.Grain = base.Generation, base.Grain
		m.scaleBytes(base)
	}
	if s.large(list) {
		if err := s.intoTables(e); err != nil {
			return err
		}
	}
	l := loader{s: s, e: *e, z: z, m: m}
	if signed != nil {
		l.due = s.dueIndex(*e, z, m, inBlocks(signed), signed.Expiration-signed.Inception)
		defer func() { err = errors.Join(err, l.due.close()) }()
	}
	if err := l.load(ctx, list, chunks); err != nil {
		return err
	}
	if err := setJSON(*e, metaSeqKey(z, tagInstance, m.Seq), m); err != nil {
		return err
	}
	if m.Base != 0 {
		return nil
	}
	return s.sweep(*e, z, append(all, m), retained(append(all, m), h), nil, nil)
}

// intoTables goes on with an edit that has room for much. What the one
// before holds, a zone's number at most, goes along.
func (s *Store) intoTables(e *edit) error {
	t, err := s.newTables()
	if err != nil {
		return err
	}
	if err := moveMeta(*e, t); err != nil {
		return errors.Join(err, t.abort())
	}
	err = (*e).abort()
	*e = t
	return err
}

// moveMeta copies what a batch sets so far, a zone's number at most.
func moveMeta(from, to edit) error {
	b, ok := from.(*batchEdit)
	if !ok {
		return nil
	}
	r := b.main.Reader()
	for {
		_, k, v, ok, err := r.Next()
		if err != nil || !ok {
			return err
		}
		if err := to.set(laneMeta, k, v); err != nil {
			return err
		}
	}
}

// large reports whether a load goes in as sstables. An indirect list names
// more than 1,000 chunks.
func (s *Store) large(m event.Manifest) bool {
	if len(m.Indirect) > 0 {
		return true
	}
	n := uint64(0)
	for _, c := range m.Chunks {
		n += c.Bytes
	}
	return n >= s.cfg.BatchLimit
}
