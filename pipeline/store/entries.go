package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// entry is one version of one key.
type entry struct {
	version  uint64
	from, to int // of its value; equal for a deletion
}

// entries reads all versions of one key after the other, fastest where keys
// ascend.
type entries struct {
	it    *pebble.Iterator
	key   []byte // of the data keyspace, without the version
	list  []entry
	buf   []byte // the values
	found []bool
}

func (s *Store) entries(r pebble.Reader, z uint32, generation uint64) (*entries, error) {
	prefix := generationKey(z, generation)
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return nil, damaged(err)
	}
	return &entries{it: it, key: prefix}, nil
}

func (r *entries) closeWith(err error) error { return errors.Join(err, damaged(r.it.Close())) }

// seek reads the versions of an item, the newest first, until each of the
// lenses has what it sees; all of them where there are none. Since older ones
// were dropped when nobody read them any more, none is left behind those that
// all readable instances see; the iterator need not walk over the remains.
func (r *entries) seek(key []byte, readers []lens) error {
	r.found = slices.Grow(r.found[:0], len(readers))[:len(readers)]
	clear(r.found)
	left := len(readers)
	r.key = append(r.key[:dataPrefix], key...)
	r.list, r.buf = r.list[:0], r.buf[:0]
	for ok := r.it.SeekGE(r.key); ok; ok = r.it.Next() {
		k := r.it.Key()
		if len(k) != len(r.key)+versionLen || !bytes.HasPrefix(k, r.key) {
			break
		}
		v, err := r.it.ValueAndErr()
		if err != nil {
			return damaged(err)
		}
		from := len(r.buf)
		r.buf = append(r.buf, v...)
		version := ^binary.BigEndian.Uint64(k[len(r.key):])
		r.list = append(r.list, entry{version, from, len(r.buf)})
		for i := range readers {
			if !r.found[i] && readers[i].sees(version) {
				r.found[i] = true
				left--
			}
		}
		if left == 0 && len(readers) > 0 {
			return nil
		}
	}
	return damaged(r.it.Error())
}

// find is the place of the entry that a lens reads, or -1.
func (r *entries) find(l *lens) int {
	for i, e := range r.list {
		if l.sees(e.version) {
			return i
		}
	}
	return -1
}

// value is what a lens reads, nil where the item is not there. It is valid
// until the next seek.
func (r *entries) value(l *lens) []byte {
	i := r.find(l)
	if i < 0 || r.list[i].from == r.list[i].to {
		return nil
	}
	return r.buf[r.list[i].from:r.list[i].to]
}

// dropUnread deletes the entries that none of the lenses reads, and then the
// deletions with nothing older below them.
func (r *entries) dropUnread(e edit, l lane, kept []lens, due *dueCleaner) error {
	read := make([]bool, len(r.list))
	for i := range kept {
		if at := r.find(&kept[i]); at >= 0 {
			read[at] = true
		}
	}
	for i := len(r.list) - 1; i >= 0; i-- {
		if !read[i] {
			continue
		}
		if r.list[i].from != r.list[i].to {
			break
		}
		read[i] = false
	}
	for i, x := range r.list {
		if read[i] {
			continue
		}
		if err := e.remove(l, appendVersion(r.key, x.version)); err != nil {
			return err
		}
		generation := binary.BigEndian.Uint64(r.key[dataPrefix-8:])
		if err := due.drop(generation, x.version, r.key[dataPrefix:], r.buf[x.from:x.to]); err != nil {
			return err
		}
	}
	return nil
}
