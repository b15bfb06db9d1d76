package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"sluice/journal/event"
	"sluice/signer/zone"
	"sluice/xfr"
)

// States calls fn for every zone with stored pipeline state, removed ones and
// event.Instance among them. The slice belongs to fn.
func (s *Store) States(fn func(id event.ZoneID, state []byte) error) (err error) {
	snap, err := s.snapshot()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, snap.Close()) }()
	one := func(id event.ZoneID, z uint32) error {
		state, err := s.get(snap, metaKey(z, tagState))
		if err != nil || state == nil {
			return err
		}
		return fn(id, state)
	}
	err = s.each(snap, []byte{spaceZones}, []byte{spaceZones}, func(k, _ []byte) error {
		id := event.ZoneID(k[1:])
		known, _, err := s.zone(snap, id)
		if err != nil {
			return err
		}
		return one(id, known.Number)
	})
	if err != nil {
		return err
	}
	return one(event.Instance, 0)
}

// Common is what states have in common, by its hash; nil where none has it.
func (s *Store) Common(hash event.Hash) (data []byte, err error) {
	snap, err := s.snapshot()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, snap.Close()) }()
	return s.get(snap, commonKey(hash))
}

// SignedItems walks a signed instance as View.Items does.
func (s *Store) SignedItems(id event.ZoneID, signed uint64) (zone.Iterator, error) {
	return s.walk(id, signed, (*View).Items)
}

// Made walks the items of one kind of a signed instance.
func (s *Store) Made(id event.ZoneID, signed uint64, kind zone.Kind) (zone.Iterator, error) {
	return s.walk(id, signed, func(v *View) (zone.Iterator, error) { return v.Kind(kind) })
}

func (s *Store) walk(id event.ZoneID, signed uint64, open func(*View) (zone.Iterator, error)) (zone.Iterator, error) {
	v, all, err := s.open(id)
	if err != nil {
		return nil, err
	}
	var it zone.Iterator
	if err = v.look(all, signed, true); err == nil {
		it, err = open(v)
	}
	return it, errors.Join(err, v.Close())
}

// Contents walks the KindContents items of a loaded instance, ErrNoInstance
// where the store does not hold it. Later events do not disturb the walk.
func (s *Store) Contents(id event.ZoneID, loaded uint64) (zone.Iterator, error) {
	v, all, err := s.open(id)
	if err != nil {
		return nil, err
	}
	var it zone.Iterator
	if err = v.look(all, loaded, false); err == nil {
		it, err = v.Kind(zone.KindContents)
	}
	return it, errors.Join(err, v.Close())
}

// LoadedItems walks all items of a loaded instance, kind by kind: those of
// KindContents, and the others after them where it is whole.
func (s *Store) LoadedItems(id event.ZoneID, loaded uint64) (zone.Iterator, error) {
	v, all, err := s.open(id)
	if err != nil {
		return nil, err
	}
	var it zone.Iterator
	if err = v.look(all, loaded, false); err == nil {
		it, err = v.kindByKind()
	}
	return it, errors.Join(err, v.Close())
}

// kindByKind walks the items of all kinds that the instance has, one kind
// after the other.
func (v *View) kindByKind() (zone.Iterator, error) {
	out := &chain{}
	for _, kind := range v.meta.kinds() {
		it, err := v.Kind(kind)
		if err != nil {
			return nil, errors.Join(err, out.Close())
		}
		if out.now == nil {
			out.now = it
		} else {
			out.rest = append(out.rest, it)
		}
	}
	return out, nil
}

// ContentState is the state of the content digest of a loaded instance.
func (s *Store) ContentState(id event.ZoneID, loaded uint64) (*zone.SetHash, error) {
	return s.state(id, loaded, false)
}

// SignedState is the state of the signed digest of a signed instance.
func (s *Store) SignedState(id event.ZoneID, signed uint64) (*zone.SetHash, error) {
	return s.state(id, signed, true)
}

func (s *Store) state(id event.ZoneID, seq uint64, signed bool) (*zone.SetHash, error) {
	v, all, err := s.open(id)
	if err != nil {
		return nil, err
	}
	var h *zone.SetHash
	if _, err = all.instance(seq, signed); err == nil {
		h, err = s.setHash(v.snap, v.z, seq)
	}
	return h, errors.Join(err, v.Close())
}

// Instances lists the instances that the store holds, by sequence. A zone
// that it does not know has none.
func (s *Store) Instances(id event.ZoneID) ([]InstanceMeta, error) {
	v, all, err := s.open(id)
	if errors.Is(err, xfr.ErrUnknownZone) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []InstanceMeta
	for _, m := range all {
		if !m.Past {
			out = append(out, *m)
		}
	}
	return out, v.Close()
}

// CountChanges is how many items two loaded or two signed instances differ in
// at most, and false where the store does not know the way, as Changes says.
// It reads none of them.
func (s *Store) CountChanges(id event.ZoneID, from, to uint64) (count uint64, known bool, err error) {
	v, all, err := s.open(id)
	if err != nil {
		return 0, false, err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	_, _, walk, err := all.way(from, to)
	for _, m := range walk {
		count += m.changed()
	}
	return count, walk != nil, err
}

// way are two instances of one sort, and those whose diffs lead from one to
// the other; nil where none do.
func (all metas) way(from, to uint64) (a, b *InstanceMeta, walk metas, err error) {
	a, b = all.find(from), all.find(to)
	if a == nil || b == nil || a.Past || b.Past || a.Signed != b.Signed {
		return nil, nil, nil, fmt.Errorf("%w: %d or %d", ErrNoInstance, from, to)
	}
	// The same pair twice: between looks at a signed and a loaded one.
	walk = all.between(head{Signed: from, Loaded: from}, head{Signed: to, Loaded: to})
	return a, b, walk[:len(walk)/2], nil
}

// Changes calls fn for every item in which two loaded or two signed instances
// differ, by kind and then in key order: before is nil where only the later
// one has the item, after is nil where only the earlier one has it. The work
// follows the number of changes. It reports false, and calls nothing, where
// the store does not know the way: a whole instance came between.
func (s *Store) Changes(id event.ZoneID, from, to uint64, fn func(key, before, after []byte) error) (known bool, err error) {
	v, all, err := s.open(id)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	a, b, walk, err := all.way(from, to)
	if err != nil || walk == nil {
		return false, err
	}
	x, y := all.lens(a), all.lens(b)
	read := func(fn changeFunc) error { return s.eachDifferent(v, walk, a, x, y, fn) }
	n := uint64(0)
	for _, m := range walk {
		n += m.changed()
	}
	if n < aheadFrom {
		return true, read(fn)
	}
	return true, readAhead(read, fn)
}

// eachDifferent calls fn for every item that one of the instances of walk
// changed and that two lenses of a's generation see differently.
func (s *Store) eachDifferent(v *View, walk metas, a *InstanceMeta, x, y lens, fn changeFunc) (err error) {
	r, err := s.entries(v.snap, v.z, a.Generation)
	if err != nil {
		return err
	}
	defer func() { err = r.closeWith(err) }()
	for _, kind := range a.kinds() {
		err := s.eachChanged(v.snap, v.z, walk, kind, func(key []byte) error {
			if err := r.seek(key, []lens{x, y}); err != nil {
				return err
			}
			before, after := r.value(&x), r.value(&y)
			if bytes.Equal(before, after) {
				return nil
			}
			return fn(key, before, after)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Walk calls fn for every live key and value in order, for comparing two
// stores. Stores that applied the same events hold the same.
func (s *Store) Walk(fn func(key, value []byte) error) (err error) {
	snap, err := s.snapshot()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, snap.Close()) }()
	return s.each(snap, nil, nil, fn)
}

// LiveHash is the SHA-256 over every live key and value, each with its length
// in four bytes before it.
func (s *Store) LiveHash() ([32]byte, error) {
	h := sha256.New()
	var n [4]byte
	err := s.Walk(func(key, value []byte) error {
		for _, b := range [][]byte{key, value} {
			binary.BigEndian.PutUint32(n[:], uint32(len(b)))
			h.Write(n[:])
			h.Write(b)
		}
		return nil
	})
	return [32]byte(h.Sum(nil)), err
}
