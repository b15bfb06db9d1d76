package store

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"sluice/journal"
	"sluice/journal/event"
)

// EventRef says where one of a zone's events stands in the journal, and what it
// may be asked for by.
type EventRef struct {
	Zone event.ZoneID // whose history it belongs to
	Seq  uint64
	N    uint64 // the zone's running number; 0: an event of the whole instance that concerns the zone
	Time time.Time
	Type string
}

// OfKeys reports whether it is one that the zone's keys are folded from.
func (r EventRef) OfKeys() bool { return r.N != 0 && event.OfKeys(r.Type) }

// RefOf is where an event stands; false for one that is in no zone's history.
func RefOf(rec journal.Record) (EventRef, bool) {
	r := EventRef{Zone: rec.Event.Zone, Seq: rec.Seq, N: rec.Event.N, Time: rec.Event.Time, Type: rec.Event.Type}
	if r.Zone == event.Instance {
		r.Zone, r.N = event.Concerned(rec.Event.Facts), 0
	}
	return r, r.Zone != ""
}

// EventFilter selects events of some zones.
type EventFilter struct {
	Zones      []event.ZoneID
	From, UpTo uint64 // sequences, both included
	Keys       bool   // only those that keys are folded from
	// Match is asked of each that the rest selects, until there are enough; nil
	// takes all.
	Match  func(EventRef) bool
	Newest bool // the last Max; else the first
	Max    int  // 0: no bound
}

// Selects reports whether an event of one of the zones is meant.
func (f EventFilter) Selects(r EventRef) bool {
	return f.From <= r.Seq && r.Seq <= f.UpTo && (!f.Keys || r.OfKeys()) && (f.Match == nil || f.Match(r))
}

// The lanes of a zone's events. Those that keys are folded from have one of
// their own, since they are read without the others.
const (
	refsPlain = 0
	refsKeys  = 1
)

// setRef adds an event to the index of its zone, and a zone's to that of names.
func (s *Store) setRef(e edit, rec journal.Record) error {
	r, ok := RefOf(rec)
	if !ok {
		return nil
	}
	if f, ok := rec.Event.Facts.(*event.ZoneAdded); ok {
		if err := e.set(laneMeta, binary.BigEndian.AppendUint64(nameKey(f.Name), rec.Seq), []byte(f.ID)); err != nil {
			return err
		}
	}
	lane := byte(refsPlain)
	if r.OfKeys() {
		lane = refsKeys
	}
	value := binary.AppendUvarint(nil, r.N)
	value = binary.AppendVarint(value, r.Time.UnixMicro())
	return e.set(laneMeta, refKey(r.Zone, lane, r.Seq), append(value, r.Type...))
}

func nameKey(name string) []byte { return append(append([]byte{spaceNames}, name...), 0) }

func refKey(id event.ZoneID, lane byte, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(append(append([]byte{spaceRefs}, id...), 0, lane), seq)
}

// Lives lists the zones that had a name, as zone.added writes it, oldest first.
func (s *Store) Lives(name string) (ids []event.ZoneID, err error) {
	snap, err := s.snapshot()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, snap.Close()) }()
	prefix := nameKey(name)
	return ids, s.each(snap, prefix, prefix, func(_, id []byte) error {
		ids = append(ids, event.ZoneID(id))
		return nil
	})
}

// Events lists the events that a filter selects, by sequence. Its cost follows
// what is looked through from the end where it begins; the journal is not read.
func (s *Store) Events(f EventFilter) (refs []EventRef, err error) {
	if f.From > f.UpTo {
		return nil, nil
	}
	snap, err := s.snapshot()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, snap.Close()) }()
	types := map[string]string{}
	for _, id := range f.Zones {
		for _, lane := range []byte{refsPlain, refsKeys} {
			if f.Keys && lane != refsKeys {
				continue
			}
			some, err := laneEvents(snap, f, id, lane, types)
			if err != nil {
				return nil, err
			}
			refs = append(refs, some...)
		}
	}
	slices.SortFunc(refs, func(a, b EventRef) int { return cmp.Compare(a.Seq, b.Seq) })
	switch {
	case f.Max == 0 || len(refs) <= f.Max:
		return refs, nil
	case f.Newest:
		return refs[len(refs)-f.Max:], nil
	}
	return refs[:f.Max], nil
}

// laneEvents lists what a filter selects of one lane, in the order of the walk.
// types holds each type's text once.
func laneEvents(r pebble.Reader, f EventFilter, id event.ZoneID, lane byte, types map[string]string) (refs []EventRef, err error) {
	upper := after(refKey(id, lane, math.MaxUint64))
	if f.UpTo != math.MaxUint64 {
		upper = refKey(id, lane, f.UpTo+1)
	}
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: refKey(id, lane, f.From), UpperBound: upper})
	if err != nil {
		return nil, damaged(err)
	}
	defer func() { err = errors.Join(err, damaged(it.Close())) }()
	begin, next := it.First, it.Next
	if f.Newest {
		begin, next = it.Last, it.Prev
	}
	for ok := begin(); ok; ok = next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return nil, damaged(err)
		}
		ref, err := readRef(id, it.Key(), value, types)
		if err != nil {
			return nil, err
		}
		if !f.Selects(ref) {
			continue
		}
		if refs = append(refs, ref); f.Max > 0 && len(refs) == f.Max {
			break
		}
	}
	return refs, nil
}

func readRef(id event.ZoneID, key, value []byte, types map[string]string) (EventRef, error) {
	r := EventRef{Zone: id, Seq: binary.BigEndian.Uint64(key[len(key)-8:])}
	n, a := binary.Uvarint(value)
	micros, b := binary.Varint(value[max(a, 0):])
	if a <= 0 || b <= 0 {
		return r, fmt.Errorf("%w: event %d of zone %s", ErrDamaged, r.Seq, id)
	}
	word := value[a+b:]
	known, ok := types[string(word)]
	if !ok {
		known = string(word)
		types[known] = known
	}
	r.N, r.Time, r.Type = n, time.UnixMicro(micros).UTC(), known
	return r, nil
}
