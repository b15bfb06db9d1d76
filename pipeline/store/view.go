package store

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"sluice/journal/event"
	"sluice/signer/zone"
	"sluice/xfr"
)

// View is one instance of a zone, unchanging while it is open, whatever is
// applied meanwhile. It has all of xfr.View but Allows. A view is for one
// goroutine; its iterators may be used by others. Close it soon: it keeps
// what it reads on disk.
type View struct {
	s      *Store
	snap   *snapshot
	z      uint32
	head   head
	meta   InstanceMeta
	bytes  uint64 // of all items, roughly
	loaded lens
	signed lens // zero for a loaded instance

	apex               zone.Name
	soaKey, soaValue   []byte
	sigsKey, sigsValue []byte           // over the SOA
	points             *pebble.Iterator // for Get
	key                []byte
}

// open finds a zone for reading.
func (s *Store) open(id event.ZoneID) (*View, metas, error) {
	snap, err := s.snapshot()
	if err != nil {
		return nil, nil, err
	}
	known, err := s.known(snap, id)
	if err != nil {
		return nil, nil, errors.Join(err, snap.Close())
	}
	return &View{s: s, snap: snap, z: known.entry.Number, head: known.head}, known.all, nil
}

// look makes v show one instance.
func (v *View) look(all metas, seq uint64, signed bool) error {
	m, err := all.instance(seq, signed)
	if err != nil {
		return err
	}
	v.meta = *m
	l := m
	if signed {
		v.signed = all.lens(m)
		if l, err = all.instance(m.Loaded, false); err != nil {
			return err
		}
	}
	v.loaded = all.lens(l)
	if v.bytes = m.Bytes; signed {
		v.bytes += l.Bytes
	}
	return nil
}

// fill makes v the view of one instance, or closes it.
func (v *View) fill(all metas, seq uint64, signed bool) (*View, error) {
	if err := v.look(all, seq, signed); err != nil {
		return nil, errors.Join(err, v.Close())
	}
	id := soaID{v.z, seq, signed}
	if k, ok := v.s.memory.soa(id); ok {
		v.apex, v.soaKey, v.soaValue, v.sigsKey, v.sigsValue = k.apex, k.soaKey, k.soaValue, k.sigsKey, k.sigsValue
		return v, nil
	}
	if err := v.readSOA(); err != nil {
		return nil, errors.Join(err, v.Close())
	}
	v.s.memory.keepSOA(id, knownSOA{v.apex, v.soaKey, v.soaValue, v.sigsKey, v.sigsValue})
	return v, nil
}

// Published opens what the zone serves; xfr.ErrNotReady where there is
// nothing yet, xfr.ErrUnknownZone where the store does not know the zone.
func (s *Store) Published(id event.ZoneID) (*View, error) {
	v, all, err := s.open(id)
	if err != nil {
		return nil, err
	}
	if v.head.Signed == 0 {
		return nil, errors.Join(fmt.Errorf("zone %s: %w", id, xfr.ErrNotReady), v.Close())
	}
	return v.fill(all, v.head.Signed, true)
}

// Signed opens a signed instance, ErrNoInstance where the store does not hold
// it.
func (s *Store) Signed(id event.ZoneID, seq uint64) (*View, error) {
	v, all, err := s.open(id)
	if err != nil {
		return nil, err
	}
	return v.fill(all, seq, true)
}

// Loaded opens a loaded instance, as the loaded-review server shows it:
// KindContents only, or all kinds of a whole one, with the source's serial.
func (s *Store) Loaded(id event.ZoneID, seq uint64) (*View, error) {
	v, all, err := s.open(id)
	if err != nil {
		return nil, err
	}
	return v.fill(all, seq, false)
}

// readSOA finds the apex, the owner of the very first item, and its SOA.
func (v *View) readSOA() (err error) {
	it, err := v.Kind(zone.KindContents)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	if !it.Next() {
		return errors.Join(fmt.Errorf("instance %s: no contents", instanceName(v.meta.Seq, v.meta.Signed)), it.Err())
	}
	key := bytes.Clone(it.Key())
	key[len(key)-2], key[len(key)-1] = byte(zone.TypeSOA>>8), byte(zone.TypeSOA)
	for _, kind := range []zone.Kind{zone.KindMade, zone.KindContents} {
		key[0] = byte(kind)
		value, err := v.Get(key)
		if err != nil {
			return err
		}
		if value == nil {
			continue
		}
		v.soaKey, v.soaValue = key, bytes.Clone(value)
		if err := v.readSOASigs(); err != nil {
			return err
		}
		if owner := zone.Value(v.soaValue).Owner(); owner != nil {
			v.apex = zone.Name(owner)
			return nil
		}
		v.apex, err = zone.NameOfKey(key[1 : len(key)-2])
		return damaged(err)
	}
	return fmt.Errorf("instance %s: no SOA", instanceName(v.meta.Seq, v.meta.Signed))
}

func (v *View) readSOASigs() error {
	key := bytes.Clone(v.soaKey)
	key[0] = byte(zone.KindSigs)
	value, err := v.Get(key)
	if err != nil || value == nil {
		return err
	}
	v.sigsKey, v.sigsValue = key, bytes.Clone(value)
	return nil
}

// Meta describes the instance.
func (v *View) Meta() InstanceMeta { return v.meta }

// Apex is the zone's name, case as served.
func (v *View) Apex() zone.Name { return v.apex }

// Serial is the serial of its SOA.
func (v *View) Serial() zone.Serial { return v.meta.Serial }

// Bytes is the rough size of all items in wire form.
func (v *View) Bytes() int64 { return int64(v.bytes) }

// SOA is the key and value of the SOA RRset.
func (v *View) SOA() (key, value []byte) { return v.soaKey, v.soaValue }

// SOASigs is the key and value of the KindSigs item over the SOA RRset; both
// are nil where there is none.
func (v *View) SOASigs() (key, value []byte) { return v.sigsKey, v.sigsValue }

// lensOf says where the items of a kind are; false where it has none.
func (v *View) lensOf(kind zone.Kind) (lens, bool) {
	if kind == zone.KindContents || v.meta.Whole && kindIndex(kind) >= 0 {
		return v.loaded, true
	}
	return v.signed, v.meta.Signed && kindIndex(kind) > 0
}

// Kind walks the items of one kind, hidden ones included, as the signer wants
// them of the previous instance. It is empty for kinds that the instance
// cannot have. The iterator may outlive the view.
func (v *View) Kind(kind zone.Kind) (zone.Iterator, error) {
	l, ok := v.lensOf(kind)
	if !ok {
		return zone.Slice(), nil
	}
	return v.s.kindIter(v.snap, v.z, l, kind)
}

// OwnKinds are the kinds of items that the instance itself has, ascending: those
// that its chunks hold.
func (v *View) OwnKinds() []zone.Kind { return v.meta.kinds() }

// OldestDiff is the sequence of the signed instance that the oldest diff kept for
// IXFR leads from; 0 where none is kept.
func (s *Store) OldestDiff(id event.ZoneID) (seq uint64, err error) {
	v, _, err := s.open(id)
	if errors.Is(err, xfr.ErrUnknownZone) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	steps, err := s.steps(v.snap, v.z, v.head)
	if err == nil && len(steps) > 0 {
		seq = steps[0].FromSeq
	}
	return seq, errors.Join(err, v.Close())
}

// KindBetween is Kind for the names whose owner keys lie from from on and before
// to; an empty bound is none.
func (v *View) KindBetween(kind zone.Kind, from, to []byte) (zone.Iterator, error) {
	l, ok := v.lensOf(kind)
	if !ok {
		return zone.Slice(), nil
	}
	return v.s.rangeIter(v.snap, v.z, l, kind, from, to)
}

// Items walks every item: first KindContents, KindMade and KindSigs merged by
// owner, then KindChain and KindChainSigs merged by owner. A KindContents
// item hidden by a KindMade one is left out. The iterator may outlive the
// view.
func (v *View) Items() (zone.Iterator, error) {
	if !v.meta.Signed && !v.meta.Whole {
		return v.Kind(zone.KindContents)
	}
	its := make([]zone.Iterator, len(kinds))
	for i, k := range kinds {
		it, err := v.Kind(k)
		if err != nil {
			for _, it := range its[:i] {
				err = errors.Join(err, it.Close())
			}
			return nil, err
		}
		its[i] = it
	}
	return &chain{now: zone.Merge(its[:3]...), rest: []zone.Iterator{zone.Merge(its[3:]...)}}, nil
}

// Get is the value of one item, nil where the instance does not have it. It
// is valid until the next call. Hidden items are found.
func (v *View) Get(key []byte) ([]byte, error) {
	if len(key) == 0 {
		return nil, nil
	}
	l, ok := v.lensOf(zone.Kind(key[0]))
	if !ok {
		return nil, nil
	}
	if v.points == nil {
		prefix := appendZone(nil, spaceData, v.z)
		it, err := v.snap.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
		if err != nil {
			return nil, damaged(err)
		}
		v.points = it
	}
	v.key = append(append(v.key[:0], generationKey(v.z, l.generation)...), key...)
	r := entries{it: v.points, key: v.key}
	if err := r.seek(key, []lens{l}); err != nil {
		return nil, err
	}
	v.key = r.key
	return r.value(&l), nil
}

// SetHash is the state of the instance's set hash: the signed digest's of a
// signed instance, the content digest's of a loaded one.
func (v *View) SetHash() (*zone.SetHash, error) { return v.s.setHash(v.snap, v.z, v.meta.Seq) }

// ContentState is the state of the content digest of what it was made of.
func (v *View) ContentState() (*zone.SetHash, error) {
	if v.meta.Signed {
		return v.s.setHash(v.snap, v.z, v.meta.Loaded)
	}
	return v.SetHash()
}

func (s *Store) setHash(r pebble.Reader, z uint32, seq uint64) (*zone.SetHash, error) {
	raw, err := s.get(r, metaSeqKey(z, tagDigest, seq))
	if err != nil {
		return nil, err
	}
	h := new(zone.SetHash)
	if err := h.LoadState(raw); err != nil {
		return nil, fmt.Errorf("%w: digest of instance %d: %w", ErrDamaged, seq, err)
	}
	return h, nil
}

// Close frees the view.
func (v *View) Close() error {
	var err error
	if v.points != nil {
		err = v.points.Close()
		v.points = nil
	}
	if v.snap != nil {
		err = errors.Join(err, v.snap.Close())
		v.snap = nil
	}
	return damaged(err)
}

// Diffs is the way from an earlier served serial to this instance, one step a
// served instance; false where the store does not know all of it.
func (v *View) Diffs(from zone.Serial) ([]xfr.Diff, bool) {
	if from == v.meta.Serial {
		return nil, true
	}
	steps, err := v.s.steps(v.snap, v.z, v.head)
	if err != nil {
		v.s.cfg.Logger.Error("diffs unreadable", "zone", v.apex.String(), "error", err)
		return nil, false
	}
	at, begin := v.meta.Seq, len(steps)
	var end int
	for i, step := range slices.Backward(steps) {
		if step.ToSeq != at {
			continue
		}
		if begin == len(steps) {
			end = i + 1
		}
		at, begin = step.FromSeq, i
		if step.From == from {
			out := make([]xfr.Diff, 0, end-begin)
			for _, m := range steps[begin:end] {
				out = append(out, &Diff{v: v, meta: m})
			}
			return out, true
		}
	}
	return nil, false
}

// LastDiff is the step that led to this instance; false where the store does
// not hold it.
func (v *View) LastDiff() (*Diff, bool) {
	steps, err := v.s.steps(v.snap, v.z, v.head)
	if err != nil {
		v.s.cfg.Logger.Error("diffs unreadable", "zone", v.apex.String(), "error", err)
		return nil, false
	}
	for _, step := range slices.Backward(steps) {
		if step.ToSeq == v.meta.Seq {
			return &Diff{v: v, meta: step}, true
		}
	}
	return nil, false
}

// Diff is one step between two served instances. It implements xfr.Diff and
// lives as long as its view.
type Diff struct {
	v    *View
	meta diffMeta
}

// From is the serial that the step leads from.
func (d *Diff) From() zone.Serial { return d.meta.From }

// To is the serial that the step leads to.
func (d *Diff) To() zone.Serial { return d.meta.To }

// FromSOA is the value of the old SOA RRset.
func (d *Diff) FromSOA() []byte { return d.meta.FromSOA }

// ToSOA is the value of the new SOA RRset.
func (d *Diff) ToSOA() []byte { return d.meta.ToSOA }

// Removed walks the records that went, the SOA left out, by kind, owner and
// type; a value holds only the records concerned.
func (d *Diff) Removed() (zone.Iterator, error) { return d.part(partRemoved) }

// Added walks the records that came, in the same way.
func (d *Diff) Added() (zone.Iterator, error) { return d.part(partAdded) }

// Bytes is the rough size of both in wire form.
func (d *Diff) Bytes() int64 { return d.meta.Bytes }

func (d *Diff) part(part byte) (zone.Iterator, error) {
	if d.v.snap == nil {
		return nil, ErrClosed
	}
	prefix := append(diffKey(d.v.z, d.meta.ToSeq), part)
	it, err := d.v.snap.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return nil, damaged(err)
	}
	return &partIter{it: it, prefix: len(prefix)}, nil
}
