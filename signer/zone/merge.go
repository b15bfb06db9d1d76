package zone

import "bytes"

// Item is one key with its value.
type Item struct {
	Key, Value []byte
}

// Slice walks items that lie in memory. The items must be in ascending order
// of their keys.
func Slice(items ...Item) Iterator { return &sliceIterator{rest: items} }

type sliceIterator struct {
	now  Item
	rest []Item
}

func (s *sliceIterator) Next() bool {
	if len(s.rest) == 0 {
		s.now = Item{}
		return false
	}
	s.now, s.rest = s.rest[0], s.rest[1:]
	return true
}

func (s *sliceIterator) Key() []byte   { return s.now.Key }
func (s *sliceIterator) Value() []byte { return s.now.Value }
func (s *sliceIterator) Err() error    { return nil }
func (s *sliceIterator) Close() error  { s.rest = nil; return nil }

// Merge walks several iterators at once in the order of owner, type and kind,
// keys kept as they are: an RRset's RRSIGs follow it. A KindMade item hides
// the KindContents item of the same owner and type. Where two iterators have
// the same key, the one named first is heard. Each iterator must hold items
// of one kind. Close closes all of them.
func Merge(iters ...Iterator) Iterator {
	return &merger{iters: iters}
}

type merger struct {
	iters []Iterator
	begun bool
	live  []*source // in order; live[0] is the present item. Few are merged, so a list will do.
	err   error
}

type source struct {
	Iterator
	key  []byte
	kind byte // for the order: KindMade comes ahead of KindContents, to hide it
	rank int
}

// before compares in the order of Merge.
func (s *source) before(o *source) bool {
	if c := bytes.Compare(s.key[1:], o.key[1:]); c != 0 {
		return c < 0
	}
	if s.kind != o.kind {
		return s.kind < o.kind
	}
	return s.rank < o.rank
}

func (m *merger) Next() bool {
	if m.err != nil {
		return false
	}
	if !m.begun {
		m.begun = true
		for i, it := range m.iters {
			// From the front, the new one sinks to where it belongs.
			m.live = append([]*source{{Iterator: it, rank: i}}, m.live...)
			if !m.advance(0) {
				return false
			}
		}
		return len(m.live) > 0
	}
	if len(m.live) == 0 {
		return false
	}
	// Only what stands right behind the first can be hidden by it or be equal
	// to it, and is dropped before the first moves on.
	for len(m.live) > 1 && hides(m.live[0].key, m.live[1].key) {
		if !m.advance(1) {
			return false
		}
	}
	return m.advance(0) && len(m.live) > 0
}

// hides reports whether an item with key a makes the next one, with key b,
// invisible.
func hides(a, b []byte) bool {
	return (a[0] == b[0] || (Kind(a[0]) == KindMade && Kind(b[0]) == KindContents)) && bytes.Equal(a[1:], b[1:])
}

// advance moves live[i] on and puts it where its new key belongs; false after
// an error.
func (m *merger) advance(i int) bool {
	s := m.live[i]
	if !s.Next() {
		m.err = s.Err()
		m.live = append(m.live[:i], m.live[i+1:]...)
		return m.err == nil
	}
	s.key = s.Key()
	if len(s.key) == 0 {
		m.err = errBadKey
		return false
	}
	if s.kind = s.key[0]; Kind(s.kind) == KindMade {
		s.kind = byte(KindContents) - 1
	}
	for ; i+1 < len(m.live) && m.live[i+1].before(s); i++ {
		m.live[i] = m.live[i+1]
	}
	m.live[i] = s
	return true
}

func (m *merger) Key() []byte {
	if len(m.live) == 0 {
		return nil
	}
	return m.live[0].key
}

func (m *merger) Value() []byte {
	if len(m.live) == 0 {
		return nil
	}
	return m.live[0].Iterator.Value()
}

func (m *merger) Err() error { return m.err }

func (m *merger) Close() error {
	var first error
	for _, it := range m.iters {
		if err := it.Close(); err != nil && first == nil {
			first = err
		}
	}
	m.live = nil
	return first
}

// DiffItems walks two iterators with keys in ascending byte order and calls
// fn for every key whose value differs: before is nil where only the new one
// has the key, after is nil where only the old one has it. The slices are
// valid during the call. An error of fn or of an iterator ends the walk and
// is returned; the iterators are not closed.
func DiffItems(before, after Iterator, fn func(key, before, after []byte) error) error {
	haveOld, haveNew := before.Next(), after.Next()
	for haveOld || haveNew {
		c := 0
		switch {
		case !haveNew:
			if err := after.Err(); err != nil {
				return err
			}
			c = -1
		case !haveOld:
			if err := before.Err(); err != nil {
				return err
			}
			c = 1
		default:
			c = bytes.Compare(before.Key(), after.Key())
		}
		var err error
		switch {
		case c < 0:
			err = fn(before.Key(), before.Value(), nil)
		case c > 0:
			err = fn(after.Key(), nil, after.Value())
		case !bytes.Equal(before.Value(), after.Value()):
			err = fn(after.Key(), before.Value(), after.Value())
		}
		if err != nil {
			return err
		}
		if c <= 0 {
			haveOld = before.Next()
		}
		if c >= 0 {
			haveNew = after.Next()
		}
	}
	if err := before.Err(); err != nil {
		return err
	}
	return after.Err()
}
