package store

import (
	"encoding/json"
	"fmt"
	"math/bits"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"sluice/journal/event"
	"sluice/signer/zone"
)

// InstanceMeta is what the store knows of an instance.
type InstanceMeta struct {
	Seq    uint64 `json:"seq"`              // of its event
	Signed bool   `json:"signed,omitempty"` // a signed instance; else a loaded one
	// Whole: a loaded one has items of all kinds, and a signed one of it shows
	// them as they are and has none itself.
	Whole bool `json:"whole,omitempty"`
	// Generation is the sequence of the instance whose items are stored
	// whole; this one is it, or a version inside it.
	Generation uint64      `json:"generation"`
	Base       uint64      `json:"base,omitempty"`   // its items were a diff to that instance
	Loaded     uint64      `json:"loaded,omitempty"` // of a signed one: what was signed
	Serial     zone.Serial `json:"serial"`
	Records    uint64      `json:"records"` // of the whole instance
	// Bytes is the rough size of its items in wire form, those of KindContents
	// left out of a signed one.
	Bytes         uint64     `json:"bytes"`
	ContentDigest event.Hash `json:"content_digest"`
	SignedDigest  event.Hash `json:"signed_digest,omitzero"`
	// Earliest is when the first of a signed instance's signatures expires, or
	// a time before that; Expiration when those made for it do, or up to a
	// while before. Both are in epoch seconds.
	Earliest   int64 `json:"earliest,omitempty"`
	Expiration int64 `json:"expiration,omitempty"`
	// Grain is the number of bits of the longest stretch of time of a block in
	// the expiry index of its generation, as far as it sees.
	Grain byte `json:"grain,omitempty"`
	// Past: it cannot be read any more and only tells entries apart.
	Past bool `json:"past,omitempty"`
	// Abandoned: nothing will be built on it, and the next publication drops
	// it.
	Abandoned bool `json:"abandoned,omitempty"`
	// Changed counts the items of a diff, by kind from KindContents on.
	Changed [len(kinds)]uint64 `json:"changed,omitzero"`
}

func (m *InstanceMeta) changed() uint64 {
	n := uint64(0)
	for _, c := range m.Changed {
		n += c
	}
	return n
}

// scaleBytes estimates the size of a diff's instance from its base.
func (m *InstanceMeta) scaleBytes(base *InstanceMeta) {
	if m.Bytes = base.Bytes; base.Records > 0 {
		hi, lo := bits.Mul64(base.Bytes, m.Records)
		if hi < base.Records {
			m.Bytes, _ = bits.Div64(hi, lo, base.Records)
		}
	}
}

// wireBytes is the rough size of an item in wire form.
func wireBytes(key, value []byte) uint64 {
	return uint64(len(value) + zone.Value(value).Count()*(len(key)+8))
}

// kinds are those that its items can have.
func (m *InstanceMeta) kinds() []zone.Kind {
	switch {
	case m.Signed && m.Whole:
		return nil
	case m.Signed:
		return kinds[1:]
	case m.Whole:
		return kinds[:]
	}
	return kinds[:1]
}

// has reports whether its own items may be of a kind.
func (m *InstanceMeta) has(kind zone.Kind) bool { return slices.Contains(m.kinds(), kind) }

// head is what a zone serves.
type head struct {
	Signed uint64 `json:"signed"` // 0: nothing yet
	Loaded uint64 `json:"loaded"`
	// Where to begin to look, so that no reader walks over what earlier
	// publications deleted: no instance and no diff is older.
	Oldest     uint64 `json:"oldest"`
	OldestDiff uint64 `json:"oldest_diff"`
}

func (s *Store) head(r pebble.Reader, z uint32) (head, error) {
	var h head
	raw, err := s.get(r, metaKey(z, tagHead))
	if err != nil || raw == nil {
		return h, err
	}
	if err := json.Unmarshal(raw, &h); err != nil {
		return h, fmt.Errorf("%w: head of zone %d: %w", ErrDamaged, z, err)
	}
	return h, nil
}

// metas are the instances of a zone that the store holds, in ascending order.
type metas []*InstanceMeta

func (s *Store) metas(r pebble.Reader, z uint32) (all metas, h head, err error) {
	if h, err = s.head(r, z); err != nil {
		return nil, h, err
	}
	err = s.each(r, metaKey(z, tagInstance), metaSeqKey(z, tagInstance, h.Oldest), func(_, v []byte) error {
		m := new(InstanceMeta)
		if err := json.Unmarshal(v, m); err != nil {
			return fmt.Errorf("%w: instance of zone %d: %w", ErrDamaged, z, err)
		}
		all = append(all, m)
		return nil
	})
	return all, h, err
}

// each walks the keys that begin with prefix, from a key on.
func (s *Store) each(r pebble.Reader, prefix, from []byte, fn func(key, value []byte) error) error {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: after(prefix)})
	if err != nil {
		return damaged(err)
	}
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		var v []byte
		if v, err = it.ValueAndErr(); err == nil {
			err = fn(it.Key(), v)
		}
	}
	if cerr := it.Close(); err == nil {
		err = cerr
	}
	return damaged(err)
}

// find is the instance with that sequence, or nil.
func (all metas) find(seq uint64) *InstanceMeta {
	i, ok := slices.BinarySearchFunc(all, seq, func(m *InstanceMeta, seq uint64) int {
		switch {
		case m.Seq < seq:
			return -1
		case m.Seq > seq:
			return 1
		}
		return 0
	})
	if !ok {
		return nil
	}
	return all[i]
}

// instance is find for one of the given sort, with an error.
func (all metas) instance(seq uint64, signed bool) (*InstanceMeta, error) {
	m := all.find(seq)
	if m == nil || m.Past || m.Signed != signed {
		return nil, fmt.Errorf("%w: %s", ErrNoInstance, instanceName(seq, signed))
	}
	return m, nil
}

func instanceName(seq uint64, signed bool) string {
	if signed {
		return fmt.Sprintf("s%d", seq)
	}
	return fmt.Sprintf("l%d", seq)
}

// lineage is m, its base, that one's base and so on, as far as the store
// holds them, in descending order. last is the base of the final one: 0
// where it began its generation.
func (all metas) lineage(m *InstanceMeta) (line metas, last uint64) {
	for m != nil {
		line, last = append(line, m), m.Base
		if last == 0 {
			break
		}
		m = all.find(last)
	}
	return line, last
}

// lens tells which entries of a generation an instance sees: versions up to
// its own, those of other branches left out.
type lens struct {
	generation uint64
	version    uint64
	hidden     []uint64 // versions of other branches, mostly none
}

func (l *lens) sees(version uint64) bool {
	return version <= l.version && !slices.Contains(l.hidden, version)
}

func (all metas) lens(m *InstanceMeta) lens {
	l := lens{generation: m.Generation, version: m.Seq}
	line, _ := all.lineage(m)
	for _, o := range slices.Backward(all) {
		switch {
		case o.Generation != m.Generation || o.Seq > m.Seq:
		case len(line) > 0 && line[0] == o:
			line = line[1:]
		default:
			l.hidden = append(l.hidden, o.Seq)
		}
	}
	return l
}
