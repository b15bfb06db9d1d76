package store

import (
	"bytes"
	"encoding/binary"
	"errors"

	"github.com/cockroachdb/pebble/v2"

	"sluice/signer"
	"sluice/signer/zone"
)

// Access is random access to the items of one instance, hidden ones included.
// It is for one goroutine, keeps a few iterators open until Close, and may
// outlive its view's other iterators but not the view.
type Access struct {
	v     *View
	kinds [len(kinds)]kindAccess
}

var _ signer.Access = (*Access)(nil)

// kindAccess reads one kind. Each way to read has an iterator of its own, so
// that keys which ascend within it cost less than a search.
type kindAccess struct {
	open                bool
	there               bool // the instance has items of this kind
	lens                lens
	start               int    // length of what stands before the kind in prefix
	prefix              []byte // of all stored keys of the kind
	get, last, position *pebble.Iterator
	key                 []byte
	lastKey, lastValue  []byte
	walk                accessWalk
}

// Access opens random access to the view's instance, to be closed before the
// view.
func (v *View) Access() *Access { return &Access{v: v} }

// kind prepares the reading of key's kind; nil where the instance has none of
// it.
func (a *Access) kind(key []byte) *kindAccess {
	if len(key) == 0 {
		return nil
	}
	i := kindIndex(zone.Kind(key[0]))
	if i < 0 {
		return nil
	}
	k := &a.kinds[i]
	if !k.open {
		k.open = true
		if k.lens, k.there = a.v.lensOf(kinds[i]); k.there {
			k.prefix = generationKey(a.v.z, k.lens.generation)
			k.start = len(k.prefix)
			k.prefix = append(k.prefix, byte(kinds[i]))
		}
	}
	if !k.there {
		return nil
	}
	return k
}

// iterator opens *it, an iterator over the kind, if that was not done yet.
func (a *Access) iterator(k *kindAccess, it **pebble.Iterator) error {
	if *it != nil {
		return nil
	}
	if a.v.snap == nil {
		return ErrClosed
	}
	opened, err := a.v.snap.NewIter(&pebble.IterOptions{LowerBound: k.prefix, UpperBound: after(k.prefix)})
	if err != nil {
		return damaged(err)
	}
	*it = opened
	return nil
}

// stored is the stored key of an item without its version.
func (k *kindAccess) stored(key []byte) []byte {
	k.key = append(append(k.key[:0], k.prefix[:k.start]...), key...)
	return k.key
}

// Get is the value of one item, nil where the instance does not have it. It
// is valid until the next Get of the same kind.
func (a *Access) Get(key []byte) ([]byte, error) {
	k := a.kind(key)
	if k == nil {
		return nil, nil
	}
	if err := a.iterator(k, &k.get); err != nil {
		return nil, err
	}
	stored := k.stored(key)
	for ok := k.get.SeekGE(stored); ok; ok = k.get.Next() {
		found := k.get.Key()
		if len(found) != len(stored)+versionLen || !bytes.HasPrefix(found, stored) {
			return nil, nil
		}
		if !k.lens.sees(^binary.BigEndian.Uint64(found[len(stored):])) {
			continue
		}
		value, err := k.get.ValueAndErr()
		if err != nil || len(value) == 0 {
			return nil, damaged(err)
		}
		return value, nil
	}
	return nil, damaged(k.get.Error())
}

// Walk walks the items of from's kind, in ascending order, from the first key
// that is not below from. The iterator is valid until the next Walk of the
// same kind; its Close does nothing.
func (a *Access) Walk(from []byte) zone.Iterator {
	k := a.kind(from)
	if k == nil {
		return zone.Slice()
	}
	w := &k.walk
	*w = accessWalk{lens: k.lens, skip: w.skip[:0], from: append(append(w.from[:0], k.prefix[:k.start]...), from...)}
	if w.err = a.iterator(k, &k.position); w.err == nil {
		w.it = k.position
	}
	return w
}

// Last is the last item of before's kind whose key is below before; nil where
// there is none. Both slices are valid until the next Last of the same kind.
func (a *Access) Last(before []byte) (key, value []byte, err error) {
	k := a.kind(before)
	if k == nil {
		return nil, nil, nil
	}
	if err := a.iterator(k, &k.last); err != nil {
		return nil, nil, err
	}
	// Backwards, the versions of a key come from the oldest on: the last one
	// seen is the one that counts.
	k.lastKey, k.lastValue = k.lastKey[:0], k.lastValue[:0]
	for ok := k.last.SeekLT(k.stored(before)); ok; ok = k.last.Prev() {
		found := k.last.Key()
		n := len(found) - versionLen
		if n < dataPrefix+4 {
			return nil, nil, errShortKey
		}
		if len(k.lastValue) > 0 && !bytes.Equal(found[:n], k.lastKey) {
			break
		}
		if !k.lens.sees(^binary.BigEndian.Uint64(found[n:])) {
			continue
		}
		v, err := k.last.ValueAndErr()
		if err != nil {
			return nil, nil, damaged(err)
		}
		k.lastKey, k.lastValue = append(k.lastKey[:0], found[:n]...), append(k.lastValue[:0], v...)
	}
	if err := k.last.Error(); err != nil || len(k.lastValue) == 0 {
		return nil, nil, damaged(err)
	}
	return k.lastKey[dataPrefix:], k.lastValue, nil
}

// Close frees the iterators.
func (a *Access) Close() error {
	var err error
	for i := range a.kinds {
		k := &a.kinds[i]
		for _, it := range []**pebble.Iterator{&k.get, &k.last, &k.position} {
			if *it != nil {
				err = errors.Join(err, (*it).Close())
				*it = nil
			}
		}
		*k = kindAccess{open: true}
	}
	return damaged(err)
}

// accessWalk is the iterator of Walk.
type accessWalk struct {
	it         *pebble.Iterator
	lens       lens
	from       []byte
	begun      bool
	passed     bool   // skip is set
	skip       []byte // stored key, without version, whose entry was seen
	key, value []byte
	err        error
}

// Next moves to the next item that the instance has.
func (w *accessWalk) Next() bool {
	w.key, w.value = nil, nil
	if w.err != nil || w.it == nil {
		return false
	}
	var ok bool
	if w.begun {
		ok = w.it.Next()
	} else {
		ok, w.begun = w.it.SeekGE(w.from), true
	}
	for ; ok; ok = w.it.Next() {
		k := w.it.Key()
		n := len(k) - versionLen
		if n < dataPrefix+4 {
			w.err = errShortKey
			return false
		}
		version := ^binary.BigEndian.Uint64(k[n:])
		if !w.lens.sees(version) || w.passed && bytes.Equal(k[:n], w.skip) {
			continue
		}
		if w.passed = version != w.lens.generation; w.passed { // else no older one follows
			w.skip = append(w.skip[:0], k[:n]...)
		}
		v, err := w.it.ValueAndErr()
		if err != nil {
			w.err = damaged(err)
			return false
		}
		if len(v) > 0 {
			w.key, w.value = k[dataPrefix:n], v
			return true
		}
	}
	w.err = damaged(w.it.Error())
	return false
}

// Key is the item's key, valid until the next call.
func (w *accessWalk) Key() []byte { return w.key }

// Value is the item's value, valid until the next call.
func (w *accessWalk) Value() []byte { return w.value }

// Err is what ended the walk early.
func (w *accessWalk) Err() error { return w.err }

// Close does nothing: the iterator is the access's.
func (w *accessWalk) Close() error { return nil }
