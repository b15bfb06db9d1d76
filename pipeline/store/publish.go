package store

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"sluice/journal/event"
	"sluice/signer/zone"
)

// How many diffs are kept for IXFR.
const (
	// maxSteps is the number of steps between served instances, where the
	// event does not say otherwise.
	maxSteps = 20
	// minRoom is how many records all steps of a zone together may have, if
	// the zone itself has fewer. Beyond, a transfer of the whole is smaller.
	minRoom = 500
)

// limits bound the diffs that are kept beside their size against the zone's.
type limits struct {
	steps uint64
	bytes int64 // 0: no limit
	at    int64 // of the publication, epoch seconds
	// since is when, in epoch seconds, a diff may have been published at the
	// earliest: who holds the instance before it has let the zone expire since
	// (RFC 1995, 5).
	since int64
}

func limitsOf(f *event.InstancePublished, at time.Time) limits {
	if f.Keep == nil {
		return limits{steps: maxSteps, at: at.Unix()}
	}
	return limits{steps: f.Keep.Steps, bytes: int64(min(f.Keep.Bytes, math.MaxInt64)), at: at.Unix()}
}

// expireOf is EXPIRE of the value of an SOA RRset, in seconds.
func expireOf(soa zone.Value) int64 {
	for data := range soa.Records() {
		if len(data) >= 20 {
			return int64(binary.BigEndian.Uint32(data[len(data)-8:]))
		}
	}
	return 0
}

// manyChanges is from how many changed items on a publication goes in as
// sstables: as a batch it would take too much memory.
const manyChanges = 50_000

// applyPublished moves what is served, keeps the diff for IXFR, and drops
// what no instance reads any more.
func (s *Store) applyPublished(e *edit, z uint32, at time.Time, f *event.InstancePublished) error {
	all, before, err := s.metas(s.db, z)
	if err != nil {
		return err
	}
	m, err := all.instance(f.Signed, true)
	if err != nil {
		return err
	}
	if m.Seq == before.Signed {
		return nil
	}
	now := head{Signed: m.Seq, Loaded: m.Loaded}
	keep := retained(all, now)
	changed := all.between(before, now)
	n := uint64(0)
	for _, mates := range all.generations() {
		for _, o := range walked(all, mates, keep, changed) {
			n += o.changed()
		}
	}
	if n > s.many {
		if err := s.intoTables(e); err != nil {
			return err
		}
	}
	if now.OldestDiff, err = s.publish(*e, z, all, before, now, keep, changed, limitsOf(f, at)); err != nil {
		return err
	}
	floor := m.Earliest
	for _, o := range slices.Backward(all) {
		if keep[o.Seq] != unused {
			now.Oldest = o.Seq
		}
		if keep[o.Seq] == readable && o.Generation == m.Generation {
			floor = min(floor, o.Earliest)
		}
	}
	if err := s.passed(*e, z, m.Generation, floor); err != nil {
		return err
	}
	return setJSON(*e, metaKey(z, tagHead), now)
}

// publish sweeps and makes the diff on the way. It returns the oldest diff
// left.
func (s *Store) publish(e edit, z uint32, all metas, before, now head, keep map[uint64]use, changed metas, most limits) (oldest uint64, err error) {
	if changed == nil {
		if err := s.sweep(e, z, all, keep, nil, nil); err != nil {
			return 0, err
		}
		return s.dropDiffs(e, z, before, now, 0, most)
	}
	d, err := s.newDiffer(e, z, all, before, now, most)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	if err := s.sweep(e, z, all, keep, changed, d); err != nil {
		return 0, err
	}
	return d.finish(before, now)
}

// between are the instances whose diffs lead from one publication to the
// next, or nil where none do because a whole instance came between.
func (all metas) between(before, now head) metas {
	out := metas{}
	for _, pair := range [2][2]uint64{{before.Signed, now.Signed}, {before.Loaded, now.Loaded}} {
		a, b := all.find(pair[0]), all.find(pair[1])
		if a == nil || b == nil || a.Generation != b.Generation {
			return nil
		}
		x, lastX := all.lineage(a)
		y, lastY := all.lineage(b)
		for len(x) > 0 || len(y) > 0 {
			switch {
			case len(x) == 0 || (len(y) > 0 && y[0].Seq > x[0].Seq):
				out, y = append(out, y[0]), y[1:]
			case len(y) == 0 || x[0].Seq > y[0].Seq:
				out, x = append(out, x[0]), x[1:]
			default:
				x, y, lastX, lastY = nil, nil, 0, 0
			}
		}
		if lastX != lastY {
			return nil
		}
	}
	return out
}

// differ makes the diff between two publications, record by record.
type differ struct {
	s             *Store
	e             edit
	z             uint32
	before, after side
	meta          diffMeta
	limit         uint64 // in records
	most          limits
	key           []byte
	sets          [2][]byte // removed, added: a value each
	cmp           recordComparer
}

// side is one side of a diff.
type side struct {
	loaded, signed   lens
	whole            bool     // all kinds are the loaded instance's
	contents, single *entries // for items hidden or hiding; single reads KindMade
}

// lensOf says where the items of a kind are.
func (v *side) lensOf(kind zone.Kind) *lens {
	if kind == zone.KindContents || v.whole {
		return &v.loaded
	}
	return &v.signed
}

// diffMeta describes a diff.
type diffMeta struct {
	From    zone.Serial `json:"from"`
	To      zone.Serial `json:"to"`
	FromSeq uint64      `json:"from_seq"` // signed instances
	ToSeq   uint64      `json:"to_seq"`
	FromSOA []byte      `json:"from_soa"` // values
	ToSOA   []byte      `json:"to_soa"`
	Records uint64      `json:"records"` // removed and added
	Bytes   int64       `json:"bytes"`   // of these in wire form, roughly
	Time    int64       `json:"time"`    // of the publication, epoch seconds
}

func (s *Store) newDiffer(e edit, z uint32, all metas, before, now head, most limits) (*differ, error) {
	from, to := all.find(before.Signed), all.find(now.Signed)
	d := &differ{s: s, e: e, z: z, most: most, limit: max(to.Records, minRoom), key: diffKey(z, to.Seq)}
	d.meta = diffMeta{From: from.Serial, To: to.Serial, FromSeq: from.Seq, ToSeq: to.Seq, Time: most.at}
	both := [2]*side{&d.before, &d.after}
	for i, m := range []*InstanceMeta{from, to} {
		v := both[i]
		v.loaded, v.signed, v.whole = all.lens(all.find(m.Loaded)), all.lens(m), m.Whole
		var err error
		if v.contents, err = s.entries(s.db, z, v.loaded.generation); err == nil {
			v.single, err = s.entries(s.db, z, v.lensOf(zone.KindMade).generation)
		}
		if err != nil {
			return nil, errors.Join(err, d.close())
		}
	}
	return d, nil
}

func (d *differ) close() error {
	var err error
	for _, v := range []*side{&d.before, &d.after} {
		for _, r := range []*entries{v.contents, v.single} {
			if r != nil {
				err = r.closeWith(err)
			}
		}
	}
	return err
}

// other reads the item of the same owner and type in the other one of
// KindContents and KindMade.
func (v *side) other(key []byte) ([]byte, error) {
	r, kind := v.contents, zone.KindContents
	if zone.Kind(key[0]) == zone.KindContents {
		r, kind = v.single, zone.KindMade
	}
	l := v.lensOf(kind)
	own := key[0]
	key[0] = byte(kind)
	err := r.seek(key, []lens{*l})
	key[0] = own
	return r.value(l), err
}

// hideable reports whether an item of KindContents may be hidden.
func hideable(t zone.Type) bool { return t == zone.TypeSOA || zone.SignersOwn(t, true) }

// visit takes one changed item; r stands at it.
func (d *differ) visit(generation uint64, key []byte, r *entries) error {
	kind := zone.Kind(key[0])
	a, b := d.before.lensOf(kind), d.after.lensOf(kind)
	if generation != b.generation || d.meta.Records > d.limit {
		return nil
	}
	before, after := r.value(a), r.value(b)
	_, _, t, err := zone.SplitKey(key)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	switch {
	case kind == zone.KindContents && hideable(t):
		x, err := d.before.other(key)
		if err != nil {
			return err
		}
		y, err := d.after.other(key)
		if err != nil || x != nil || y != nil {
			return err
		}
	case kind == zone.KindMade && (before != nil || after != nil):
		if before == nil {
			before, err = d.before.other(key)
		}
		if after == nil && err == nil {
			after, err = d.after.other(key)
		}
		if err != nil {
			return err
		}
	}
	if bytes.Equal(before, after) {
		return nil
	}
	if t == zone.TypeSOA && (kind == zone.KindContents || kind == zone.KindMade) {
		d.meta.FromSOA, d.meta.ToSOA = bytes.Clone(before), bytes.Clone(after)
		return nil
	}
	return d.put(kind, t, key, before, after)
}

// put stores the records that went and came.
func (d *differ) put(kind zone.Kind, t zone.Type, key, before, after []byte) error {
	if kind == zone.KindSigs || kind == zone.KindChainSigs {
		t = zone.TypeRRSIG
	}
	var n int
	d.sets[partRemoved], d.sets[partAdded], n = d.cmp.diff(t, before, after, d.sets[partRemoved][:0], d.sets[partAdded][:0])
	d.meta.Records += uint64(n)
	for part, v := range d.sets {
		if len(v) == 0 {
			continue
		}
		d.meta.Bytes += int64(wireBytes(key, v))
		d.key = append(append(d.key[:dataPrefix], byte(part)), key...)
		if err := d.e.set(laneRemoved+lane(part), d.key, v); err != nil {
			return err
		}
	}
	return nil
}

// finish keeps the diff where it is worth it, and as many older ones as fit
// beside it.
func (d *differ) finish(before, now head) (oldest uint64, err error) {
	most := d.most
	if d.meta.Records > d.limit || len(d.meta.FromSOA) == 0 || len(d.meta.ToSOA) == 0 ||
		most.steps == 0 || most.bytes > 0 && d.meta.Bytes > most.bytes {
		if err := errors.Join(d.e.forget(laneRemoved), d.e.forget(laneAdded)); err != nil {
			return 0, err
		}
		return d.s.dropDiffs(d.e, d.z, before, now, 0, most)
	}
	if err := setJSON(d.e, metaSeqKey(d.z, tagDiff, d.meta.ToSeq), d.meta); err != nil {
		return 0, err
	}
	most.since = most.at - expireOf(d.meta.ToSOA)
	if most.steps--; most.bytes > 0 {
		most.bytes = max(1, most.bytes-d.meta.Bytes)
	}
	return d.s.dropDiffs(d.e, d.z, before, now, d.limit-d.meta.Records, most)
}

// dropDiffs drops the oldest diffs, so that those kept have no more than room
// records and stay within the limits; room 0 drops all. It returns the oldest
// one left, which is the one to now if nothing else is.
func (s *Store) dropDiffs(e edit, z uint32, before, now head, room uint64, most limits) (oldest uint64, err error) {
	oldest = now.Signed
	steps, err := s.steps(s.db, z, before)
	if err != nil {
		return 0, err
	}
	for _, m := range slices.Backward(steps) {
		if room > m.Records && most.takes(m) {
			room, oldest = room-m.Records, m.ToSeq
			continue
		}
		room = 0
		if err := e.remove(laneMeta, metaSeqKey(z, tagDiff, m.ToSeq)); err != nil {
			return 0, err
		}
		if err := e.removeAll(diffKey(z, m.ToSeq)); err != nil {
			return 0, err
		}
	}
	return oldest, nil
}

// takes reports whether one more diff fits, and counts it.
func (l *limits) takes(m diffMeta) bool {
	if l.steps == 0 || m.Time < l.since || l.bytes > 0 && m.Bytes >= l.bytes {
		return false
	}
	if l.steps--; l.bytes > 0 {
		l.bytes -= m.Bytes
	}
	return true
}

// steps are the diffs of a zone, the oldest first.
func (s *Store) steps(r pebble.Reader, z uint32, h head) (all []diffMeta, err error) {
	err = s.each(r, metaKey(z, tagDiff), metaSeqKey(z, tagDiff, h.OldestDiff), func(_, v []byte) error {
		var m diffMeta
		if err := json.Unmarshal(v, &m); err != nil {
			return fmt.Errorf("%w: diff of zone %d: %w", ErrDamaged, z, err)
		}
		all = append(all, m)
		return nil
	})
	return all, err
}
