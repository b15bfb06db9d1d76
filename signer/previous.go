package signer

import (
	"bytes"
	"fmt"

	"sluice/signer/zone"
)

// cursor walks one iterator of the previous instance beside the new one. A
// nil cursor, that of a full run, is at its end.
type cursor struct {
	it   zone.Iterator
	kind zone.Kind
	more bool
}

// newCursor moves to the first item of it.
func newCursor(it zone.Iterator, kind zone.Kind) (*cursor, error) {
	c := &cursor{it: it, kind: kind}
	return c, c.next()
}

func (c *cursor) next() error {
	if c.more = c.it.Next(); !c.more {
		if err := c.it.Err(); err != nil {
			return fmt.Errorf("read the previous instance: %w", err)
		}
		return nil
	}
	if _, _, _, err := zone.SplitKey(c.it.Key()); err != nil {
		return fmt.Errorf("read the previous instance: %w", err)
	}
	if k := zone.Kind(c.it.Key()[0]); k != c.kind {
		return fmt.Errorf("read the previous instance: kind %#x where %#x belongs", byte(k), byte(c.kind))
	}
	if err := zone.Value(c.it.Value()).Check(); err != nil {
		return fmt.Errorf("read the previous instance: %w", err)
	}
	return nil
}

// seek moves to key, whose first byte does not count, hands each item before
// it to gone, and returns the value that key had, or nil. The value is valid
// until the next call. A nil key goes to the end.
func (c *cursor) seek(key []byte, gone func(key, value []byte) error) ([]byte, error) {
	if c == nil {
		return nil, nil
	}
	for c.more {
		if key != nil {
			switch cmp := bytes.Compare(c.it.Key()[1:], key[1:]); {
			case cmp == 0:
				return c.it.Value(), nil
			case cmp > 0:
				return nil, nil
			}
		}
		if err := gone(c.it.Key(), c.it.Value()); err != nil {
			return nil, err
		}
		if err := c.next(); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// skip moves to key and feeds the deletion of each item before it.
func (c *cursor) skip(f *feed, kind zone.Kind, key []byte) error {
	_, err := c.seek(key, func(key, value []byte) error {
		b := f.now
		b.units = append(b.units, unit{kind: kind, delete: true, key: b.add(key), before: b.add(value)})
		return f.next()
	})
	return err
}

// take copies the value of key into b and moves past it. The cursor must have
// been moved there by skip.
func (c *cursor) take(b *batch, key []byte) (value span, ok bool, err error) {
	if c == nil || !c.more || !bytes.Equal(c.it.Key()[1:], key[1:]) {
		return span{}, false, nil
	}
	value = b.add(c.it.Value())
	return value, true, c.next()
}

// ahead is an iterator whose first items were read ahead.
type ahead struct {
	zone.Iterator
	items []zone.Item
	key   []byte
	value []byte
	more  bool // the inner iterator stands on an item not yet given
}

// apexAhead reads the items of the apex and returns an iterator that still
// gives them, with the value of the DNSKEY RRset or nil.
func apexAhead(it zone.Iterator, apexKey []byte) (zone.Iterator, zone.Value, error) {
	a := &ahead{Iterator: it}
	var dnskey zone.Value
	for {
		if a.more = it.Next(); !a.more {
			break
		}
		_, ownerKey, t, err := zone.SplitKey(it.Key())
		if err == nil {
			err = zone.Value(it.Value()).Check()
		}
		if err != nil {
			return nil, nil, fmt.Errorf("read the previous instance: %w", err)
		}
		if !bytes.Equal(ownerKey, apexKey) {
			break
		}
		item := zone.Item{Key: bytes.Clone(it.Key()), Value: bytes.Clone(it.Value())}
		a.items = append(a.items, item)
		if t == zone.TypeDNSKEY {
			dnskey = item.Value
		}
	}
	return a, dnskey, nil
}

func (a *ahead) Next() bool {
	switch {
	case len(a.items) > 0:
		a.key, a.value = a.items[0].Key, a.items[0].Value
		a.items = a.items[1:]
	case a.more || a.Iterator.Next():
		a.more = false
		a.key, a.value = a.Iterator.Key(), a.Iterator.Value()
	default:
		return false
	}
	return true
}

func (a *ahead) Key() []byte   { return a.key }
func (a *ahead) Value() []byte { return a.value }
