package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"sluice/signer/zone"
)

// kindIter walks the items of one kind as one instance sees them.
type kindIter struct {
	it     *pebble.Iterator
	lens   lens
	begun  bool
	passed bool   // skip is set
	skip   []byte // key, without version, of the last entry newer than the generation
	key    []byte
	value  []byte
	err    error
}

func (s *Store) kindIter(r pebble.Reader, z uint32, l lens, kind zone.Kind) (*kindIter, error) {
	return s.rangeIter(r, z, l, kind, nil, nil)
}

// rangeIter walks the items whose owner keys lie from from on and before to;
// an empty bound is none.
func (s *Store) rangeIter(r pebble.Reader, z uint32, l lens, kind zone.Kind, from, to []byte) (*kindIter, error) {
	prefix := append(generationKey(z, l.generation), byte(kind))
	upper := after(prefix)
	if len(to) > 0 {
		upper = append(slices.Clone(prefix), to...)
	}
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: append(slices.Clone(prefix), from...), UpperBound: upper})
	if err != nil {
		return nil, damaged(err)
	}
	return &kindIter{it: it, lens: l}, nil
}

// Next moves to the next item that the instance has.
func (i *kindIter) Next() bool {
	if i.err != nil {
		return false
	}
	var ok bool
	if i.begun {
		ok = i.it.Next()
	} else {
		ok, i.begun = i.it.First(), true
	}
	for ; ok; ok = i.it.Next() {
		k := i.it.Key()
		n := len(k) - versionLen
		if n < dataPrefix+4 {
			i.err = errShortKey
			break
		}
		version := ^binary.BigEndian.Uint64(k[n:])
		if version == i.lens.generation {
			// The oldest entry of its key: seen unless a newer one was.
			if i.passed {
				i.passed = false
				if bytes.Equal(k[:n], i.skip) {
					continue
				}
			}
			i.key, i.value = k[dataPrefix:n], i.it.Value()
			return true
		}
		if version > i.lens.version || (i.lens.hidden != nil && slices.Contains(i.lens.hidden, version)) {
			continue
		}
		if i.passed && bytes.Equal(k[:n], i.skip) {
			continue
		}
		i.skip, i.passed = append(i.skip[:0], k[:n]...), true
		if v := i.it.Value(); len(v) > 0 {
			i.key, i.value = k[dataPrefix:n], v
			return true
		}
	}
	i.key, i.value = nil, nil
	if i.err == nil {
		i.err = damaged(i.it.Error())
	}
	return false
}

var errShortKey = errors.Join(ErrDamaged, errors.New("short key"))

// Key is the item's key, valid until the next call.
func (i *kindIter) Key() []byte { return i.key }

// Value is the item's value, valid until the next call.
func (i *kindIter) Value() []byte { return i.value }

// Err is what ended the walk early.
func (i *kindIter) Err() error { return i.err }

// Close frees the iterator.
func (i *kindIter) Close() error {
	if i.it == nil {
		return nil
	}
	err := i.it.Close()
	i.it, i.key, i.value, i.begun = nil, nil, nil, true
	if i.err == nil {
		i.err = errClosedIter
	}
	return damaged(err)
}

var errClosedIter = errors.New("iterator closed")

// chain walks one iterator after the other.
type chain struct {
	now  zone.Iterator
	rest []zone.Iterator
}

// Next moves to the next item.
func (c *chain) Next() bool {
	for !c.now.Next() {
		if c.now.Err() != nil || len(c.rest) == 0 {
			return false
		}
		err := c.now.Close()
		c.now, c.rest = c.rest[0], c.rest[1:]
		if err != nil {
			return false
		}
	}
	return true
}

// Key is the item's key, valid until the next call.
func (c *chain) Key() []byte { return c.now.Key() }

// Value is the item's value, valid until the next call.
func (c *chain) Value() []byte { return c.now.Value() }

// Err is what ended the walk early.
func (c *chain) Err() error { return c.now.Err() }

// Close frees all iterators.
func (c *chain) Close() error {
	err := c.now.Close()
	for _, it := range c.rest {
		err = errors.Join(err, it.Close())
	}
	c.rest = nil
	return err
}

// partIter walks one part of a diff, or any keys with values behind a prefix.
type partIter struct {
	it     *pebble.Iterator
	prefix int
	begun  bool
}

// Next moves to the next item.
func (i *partIter) Next() bool {
	if !i.begun {
		i.begun = true
		return i.it.First()
	}
	return i.it.Next()
}

// Key is the item's key, valid until the next call.
func (i *partIter) Key() []byte { return i.it.Key()[i.prefix:] }

// Value is the item's value, valid until the next call.
func (i *partIter) Value() []byte { return i.it.Value() }

// Err is what ended the walk early.
func (i *partIter) Err() error { return damaged(i.it.Error()) }

// Close frees the iterator.
func (i *partIter) Close() error { return damaged(i.it.Close()) }
