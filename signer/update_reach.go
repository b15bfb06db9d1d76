package signer

import (
	"bytes"
	"fmt"

	"sluice/signer/zone"
)

// side is one of the two instances that an update or its check reads. What it
// hands out is checked.
type side struct {
	access Access
	what   string // for errors
	key    []byte
	owner  []byte
}

func (s *side) wrap(err error) error { return fmt.Errorf("read %s: %w", s.what, err) }

// set makes s.key of its parts.
func (s *side) set(kind zone.Kind, ownerKey []byte, t zone.Type) []byte {
	s.key = append(append(s.key[:0], byte(kind)), ownerKey...)
	s.key = append(s.key, byte(t>>8), byte(t))
	return s.key
}

// get is the value of an item or nil, valid until the next get of the kind.
func (s *side) get(kind zone.Kind, ownerKey []byte, t zone.Type) (zone.Value, error) {
	value, err := s.access.Get(s.set(kind, ownerKey, t))
	if err == nil && value != nil {
		err = checkItem(ownerKey, value)
	}
	if err != nil {
		return nil, s.wrap(err)
	}
	return value, nil
}

// first is the owner key of the first item of a kind whose key is not below
// from and begins with the kind and prefix; nil where there is none. It is
// valid until the next call.
func (s *side) first(kind zone.Kind, from, prefix []byte) (owner []byte, err error) {
	s.key = append(append(s.key[:0], byte(kind)), from...)
	it := s.access.Walk(s.key)
	if it.Next() && bytes.HasPrefix(it.Key()[1:], prefix) {
		var k []byte
		if _, k, _, err = zone.SplitKey(it.Key()); err == nil {
			s.owner = append(s.owner[:0], k...)
			owner = s.owner
		}
	}
	if err == nil {
		err = it.Err()
	}
	if cerr := it.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, s.wrap(err)
	}
	return owner, nil
}

// last is the owner key of the last item of a kind whose key is below before;
// nil where there is none. It is valid until the next call.
func (s *side) last(kind zone.Kind, before []byte) (owner []byte, value zone.Value, err error) {
	s.key = append(append(s.key[:0], byte(kind)), before...)
	key, value, err := s.access.Last(s.key)
	if err == nil && key != nil {
		var k []byte
		if _, k, _, err = zone.SplitKey(key); err == nil {
			s.owner = append(s.owner[:0], k...)
			owner, err = s.owner, value.Check()
		}
	}
	if err != nil {
		return nil, nil, s.wrap(err)
	}
	return owner, value, nil
}

// each calls fn for every item of a kind whose key begins with the kind and
// prefix. fn must not walk the same kind.
func (s *side) each(kind zone.Kind, prefix []byte, fn func(ownerKey []byte, t zone.Type, value zone.Value) (more bool, err error)) error {
	s.key = append(append(s.key[:0], byte(kind)), prefix...)
	it := s.access.Walk(s.key)
	defer it.Close() //nolint:errcheck // read only
	for it.Next() && bytes.HasPrefix(it.Key()[1:], prefix) {
		_, ownerKey, t, err := zone.SplitKey(it.Key())
		if err == nil {
			err = checkItem(ownerKey, it.Value())
		}
		if err != nil {
			return s.wrap(err)
		}
		if more, err := fn(ownerKey, t, it.Value()); err != nil || !more {
			return err
		}
	}
	if err := it.Err(); err != nil {
		return s.wrap(err)
	}
	return nil
}

// below reports whether a kind has an item at the name with the given prefix
// or below it.
func (s *side) below(kind zone.Kind, prefix []byte) (bool, error) {
	owner, err := s.first(kind, prefix, prefix)
	return owner != nil, err
}

// ancestors knows the names between the apex and a name of the contents:
// which are there and which hide what lies below them. It keeps one path, so
// names asked for in order share their lookups.
type ancestors struct {
	side    *side
	apexKey []byte
	prefix  []byte // owner key of the last name without its last byte
	levels  []ancestor
	key     []byte
}

// ancestor is a proper ancestor of a name.
type ancestor struct {
	end    int  // length of its owner key prefix
	exists bool // it owns contents
	hides  bool // it is a delegation or has a DNAME record
}

// find looks at all proper ancestors of a name, the apex first. It gives the
// length of the owner key prefix of the first one that hides the name, or -1.
func (a *ancestors) find(ownerKey []byte) (hidden int, err error) {
	prefix := ownerKey[:len(ownerKey)-1]
	n := len(a.levels)
	for n > 0 && (a.levels[n-1].end >= len(prefix) || !bytes.HasPrefix(prefix, a.prefix[:a.levels[n-1].end])) {
		n--
	}
	a.levels = a.levels[:n]
	a.prefix = append(a.prefix[:0], prefix...)
	at := len(a.apexKey) - 1
	if n > 0 {
		at = a.levels[n-1].end
	} else if at < len(prefix) {
		if err := a.look(at); err != nil {
			return -1, err
		}
	}
	for i := at; i < len(prefix)-1; i++ {
		if prefix[i] == 0 {
			if err := a.look(i + 1); err != nil {
				return -1, err
			}
		}
	}
	for _, l := range a.levels {
		if l.hides {
			return l.end, nil
		}
	}
	return -1, nil
}

// look adds the ancestor whose prefix has the given length.
func (a *ancestors) look(end int) error {
	l := ancestor{end: end}
	a.key = append(append(a.key[:0], a.prefix[:end]...), 0)
	err := a.side.each(zone.KindContents, a.key, func(_ []byte, t zone.Type, _ zone.Value) (bool, error) {
		l.exists = true
		l.hides = l.hides || t == zone.TypeDNAME || t == zone.TypeNS && end != len(a.apexKey)-1
		return t < zone.TypeDNAME && !l.hides, nil
	})
	a.levels = append(a.levels, l)
	return err
}

// appendNext appends the owner key of the name that follows in the zone
// without what is hidden: past everything below where hides. The apex follows
// the last name.
func (a *ancestors) appendNext(dst, ownerKey []byte, hides bool) ([]byte, error) {
	prefix := ownerKey[:len(ownerKey)-1]
	if hides {
		if len(ownerKey) == len(a.apexKey) {
			return append(dst, a.apexKey...), nil
		}
		prefix = prefix[:len(prefix)-1]
	}
	// No owner key has 1 alone there: it is the first byte of an escape.
	a.key = append(append(a.key[:0], prefix...), 1)
	owner, err := a.side.first(zone.KindContents, a.key, a.apexKey[:len(a.apexKey)-1])
	if err != nil || owner == nil {
		return append(dst, a.apexKey...), err
	}
	return append(dst, owner...), nil
}

// appendBefore appends the owner key of the name before one, without what is
// hidden; nothing before the first.
func (a *ancestors) appendBefore(dst, ownerKey []byte) ([]byte, error) {
	owner, _, err := a.side.last(zone.KindContents, ownerKey)
	if err != nil || owner == nil {
		return dst, err
	}
	hidden, err := a.find(owner)
	if err != nil || hidden < 0 {
		return append(dst, owner...), err
	}
	return append(append(dst, owner[:hidden]...), 0), nil
}
