package store

import (
	"bytes"
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"sluice/signer/zone"
)

// maxBlock is from which size on a block of changed keys is written.
const maxBlock = 32 << 10

// listWriter writes the keys that a diff changes, in blocks of prefix-coded
// keys: uvarint length shared with the key before, uvarint length of the
// rest, the rest.
type listWriter struct {
	z     uint32
	seq   uint64
	kind  zone.Kind
	block uint32
	keyList
}

// keyList is a block of prefix-coded keys.
type keyList struct{ buf, last []byte }

func (w *keyList) add(key []byte) {
	shared := 0
	for shared < len(w.last) && shared < len(key) && w.last[shared] == key[shared] {
		shared++
	}
	w.buf = binary.AppendUvarint(w.buf, uint64(shared))
	w.buf = binary.AppendUvarint(w.buf, uint64(len(key)-shared))
	w.buf = append(w.buf, key[shared:]...)
	w.last = append(w.last[:shared], key[shared:]...)
}

func (w *keyList) reset() { w.buf, w.last = w.buf[:0], w.last[:0] }

// keyReader reads such a block.
type keyReader struct {
	rest []byte
	key  []byte
	err  error
}

func (l *keyReader) reset(block []byte) { l.rest, l.key, l.err = block, l.key[:0], nil }

func (l *keyReader) next() bool {
	if l.err != nil || len(l.rest) == 0 {
		return false
	}
	shared, n := binary.Uvarint(l.rest)
	if n <= 0 || shared > uint64(len(l.key)) {
		l.err = errBadList
		return false
	}
	suffix, m := binary.Uvarint(l.rest[n:])
	if m <= 0 || suffix > uint64(len(l.rest)-n-m) {
		l.err = errBadList
		return false
	}
	from := n + m
	l.key = append(l.key[:shared], l.rest[from:from+int(suffix)]...)
	l.rest = l.rest[from+int(suffix):]
	return true
}

func (w *listWriter) add(e edit, key []byte) error {
	if len(w.buf) >= maxBlock {
		if err := w.flush(e); err != nil {
			return err
		}
	}
	w.keyList.add(key)
	return nil
}

func (w *listWriter) flush(e edit) error {
	if len(w.buf) == 0 {
		return nil
	}
	err := e.set(laneLists+lane(kindIndex(w.kind)), blockKey(w.z, w.seq, w.kind, w.block), w.buf)
	w.block++
	w.reset()
	return err
}

var errBadList = fmt.Errorf("%w: list of changed keys", ErrDamaged)

// listReader walks the changed keys of one instance and kind.
type listReader struct {
	it *pebble.Iterator
	keyReader
}

func (s *Store) readList(r pebble.Reader, z uint32, seq uint64, kind zone.Kind) (*listReader, error) {
	prefix := append(listKey(z, seq), byte(kind))
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return nil, damaged(err)
	}
	l := &listReader{it: it}
	l.open(it.First())
	return l, nil
}

func (l *listReader) open(ok bool) {
	l.reset(nil)
	if ok {
		l.rest, l.err = l.it.ValueAndErr()
	} else {
		l.err = l.it.Error()
	}
}

func (l *listReader) next() bool {
	if len(l.rest) == 0 && l.err == nil && l.it.Valid() {
		l.open(l.it.Next())
	}
	return l.keyReader.next()
}

// union walks the changed keys of several instances as one ascending list.
type union struct{ lists []*listReader }

func (u *union) Len() int           { return len(u.lists) }
func (u *union) Less(i, j int) bool { return bytes.Compare(u.lists[i].key, u.lists[j].key) < 0 }
func (u *union) Swap(i, j int)      { u.lists[i], u.lists[j] = u.lists[j], u.lists[i] }
func (u *union) Push(x any)         { u.lists = append(u.lists, x.(*listReader)) }
func (u *union) Pop() any {
	x := u.lists[len(u.lists)-1]
	u.lists = u.lists[:len(u.lists)-1]
	return x
}

// eachChanged calls fn for every key of a kind that one of the instances
// changed, in ascending order, each once.
func (s *Store) eachChanged(r pebble.Reader, z uint32, from []*InstanceMeta, kind zone.Kind, fn func(key []byte) error) (err error) {
	u := &union{}
	var all []*listReader
	defer func() {
		for _, l := range all {
			err = errors.Join(err, damaged(l.it.Close()))
		}
	}()
	for _, m := range from {
		if m.Changed[kindIndex(kind)] == 0 {
			continue
		}
		l, err := s.readList(r, z, m.Seq, kind)
		if err != nil {
			return err
		}
		all = append(all, l)
		if l.next() {
			u.lists = append(u.lists, l)
		} else if l.err != nil {
			return damaged(l.err)
		}
	}
	heap.Init(u)
	var last []byte
	for len(u.lists) > 0 {
		l := u.lists[0]
		if last == nil || !bytes.Equal(last, l.key) {
			last = append(last[:0], l.key...)
			if err := fn(last); err != nil {
				return err
			}
		}
		if l.next() {
			heap.Fix(u, 0)
			continue
		}
		if l.err != nil {
			return damaged(l.err)
		}
		heap.Pop(u)
	}
	return nil
}
