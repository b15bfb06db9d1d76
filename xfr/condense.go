package xfr

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"

	"sluice/signer/zone"
)

// maxCondense is how many steps are made one: each of them is read by two
// iterators, and what they say of one RRset is held.
const maxCondense = 32

// condense makes one step of several (RFC 1995, 6), or a few where there are
// very many.
func condense(diffs []Diff, apex zone.Name) []Diff {
	if len(diffs) < 2 {
		return diffs
	}
	out := make([]Diff, 0, (len(diffs)+maxCondense-1)/maxCondense)
	for steps := range slices.Chunk(diffs, maxCondense) {
		if len(steps) == 1 {
			out = append(out, steps[0])
			continue
		}
		out = append(out, &condensed{steps, zone.AppendOwnerKey(nil, apex)})
	}
	return out
}

// condensed is the net difference of several steps.
type condensed struct {
	steps []Diff // oldest first, at least one
	apex  []byte // owner key
}

func (c *condensed) From() zone.Serial { return c.steps[0].From() }
func (c *condensed) To() zone.Serial   { return c.steps[len(c.steps)-1].To() }
func (c *condensed) FromSOA() []byte   { return c.steps[0].FromSOA() }
func (c *condensed) ToSOA() []byte     { return c.steps[len(c.steps)-1].ToSOA() }

// Bytes is the sum over the steps; the net difference is not larger.
func (c *condensed) Bytes() int64 {
	sum := int64(0)
	for _, d := range c.steps {
		sum += d.Bytes()
	}
	return sum
}

func (c *condensed) Removed() (zone.Iterator, error) { return c.net(false) }
func (c *condensed) Added() (zone.Iterator, error)   { return c.net(true) }

// net opens the iterators of all steps. Of a record's changes the first and
// the last count: one that begins with its removal was there before, one that
// ends with its addition is there now.
func (c *condensed) net(added bool) (zone.Iterator, error) {
	n := &netIterator{added: added, apex: c.apex}
	for i, d := range c.steps {
		for part, open := range []func() (zone.Iterator, error){d.Removed, d.Added} {
			it, err := open()
			if err != nil {
				return nil, errors.Join(fmt.Errorf("read diff %d to %d: %w", d.From(), d.To(), err), n.Close())
			}
			n.open = append(n.open, it)
			n.start(it, 2*i+part)
		}
	}
	return n, nil
}

// cursor is an iterator within the merge. Order is the place of what it holds
// in time: even for removals, odd for additions.
type cursor struct {
	zone.Iterator
	key   []byte
	order int
}

// change is one record that went or came.
type change struct {
	head  []byte // TTL and owner, as in a value
	rdata []byte
	order int
}

// netIterator merges the changes of several steps, RRset by RRset.
type netIterator struct {
	added bool
	apex  []byte
	open  []zone.Iterator
	heap  []*cursor // by key, then order; the front is the least
	held  []*cursor // items of KindContents that a KindMade item may follow
	err   error

	key     []byte
	value   []byte
	arena   []byte
	changes []change // of the present RRset
	left    []change // of these what is to be handed out
}

// start takes an iterator in at its first item.
func (n *netIterator) start(it zone.Iterator, order int) {
	c := &cursor{Iterator: it, order: order}
	if n.forward(c) {
		n.push(c)
	}
}

// forward moves a cursor on; false at its end or after an error.
func (n *netIterator) forward(c *cursor) bool {
	if !c.Next() {
		n.fail(c.Err())
		return false
	}
	key := c.Key()
	if len(key) < 4 || bytes.Compare(key, c.key) <= 0 || zone.Value(c.Value()).Check() != nil {
		n.fail(fmt.Errorf("diff at key %x: %w", key, errBadItem))
		return false
	}
	c.key = append(c.key[:0], key...)
	return true
}

func (n *netIterator) fail(err error) {
	if n.err == nil {
		n.err = err
	}
}

func (c *cursor) compare(o *cursor) int {
	return cmp.Or(bytes.Compare(c.key, o.key), cmp.Compare(c.order, o.order))
}

func (n *netIterator) push(c *cursor) {
	n.heap = append(n.heap, c)
	for i := len(n.heap) - 1; i > 0; {
		up := (i - 1) / 2
		if n.heap[up].compare(n.heap[i]) <= 0 {
			break
		}
		n.heap[up], n.heap[i] = n.heap[i], n.heap[up]
		i = up
	}
}

// sink puts the front back in order after it moved on.
func (n *netIterator) sink() {
	h := n.heap
	for i := 0; ; {
		least := i
		for _, down := range [2]int{2*i + 1, 2*i + 2} {
			if down < len(h) && h[down].compare(h[least]) < 0 {
				least = down
			}
		}
		if least == i {
			return
		}
		h[i], h[least] = h[least], h[i]
		i = least
	}
}

// next moves the front on.
func (n *netIterator) next() {
	if !n.forward(n.heap[0]) {
		last := len(n.heap) - 1
		n.heap[0] = n.heap[last]
		n.heap = n.heap[:last]
	}
	n.sink()
}

// Next moves to the next RRset with a net change of the wanted kind.
func (n *netIterator) Next() bool {
	for n.err == nil {
		if len(n.left) > 0 {
			n.emit()
			return true
		}
		if !n.collect() {
			return false
		}
		n.reduce()
	}
	return false
}

// collect takes all changes of the next RRset.
func (n *netIterator) collect() bool {
	n.arena, n.changes = n.arena[:0], n.changes[:0]
	for len(n.heap) > 0 && n.holdBack() {
		n.next()
	}
	if len(n.held) > 0 && (len(n.heap) == 0 || n.heap[0].key[0] > byte(zone.KindContents)) {
		for _, c := range n.held {
			n.push(c)
		}
		n.held = nil
	}
	if len(n.heap) == 0 || n.err != nil {
		return false
	}
	n.key = append(n.key[:0], n.heap[0].key...)
	for len(n.heap) > 0 && bytes.Equal(n.heap[0].key, n.key) {
		n.take(n.heap[0].Value(), n.heap[0].order)
		n.next()
	}
	return n.err == nil
}

// holdBack keeps an item of KindContents that an item of KindMade may hide or
// reveal: the changes of both are those of one RRset. Only RRsets of the apex
// are such.
func (n *netIterator) holdBack() bool {
	c := n.heap[0]
	kind, owner, t, err := zone.SplitKey(c.key)
	if err != nil || kind != zone.KindContents || !bytes.Equal(owner, n.apex) || !zone.SignersOwn(t, true) {
		return false
	}
	key := bytes.Clone(c.key)
	key[0] = byte(zone.KindMade)
	held := &cursor{Iterator: zone.Slice(zone.Item{Key: key, Value: bytes.Clone(c.Value())}), order: c.order}
	held.Next()
	held.key = bytes.Clone(key)
	n.held = append(n.held, held)
	return true
}

// take copies the records of a value.
func (n *netIterator) take(value []byte, order int) {
	n.arena = slices.Grow(n.arena, len(value))
	at := len(n.arena)
	n.arena = append(n.arena, value...)
	v := zone.Value(n.arena[at:])
	head := v[:5+len(v.Owner())]
	for rdata := range v.Records() {
		n.changes = append(n.changes, change{head, rdata, order})
	}
}

// reduce keeps of the changes those that are left in the end, one a record.
func (n *netIterator) reduce() {
	t := n.recordType()
	same := func(a, b change) int {
		return cmp.Or(bytes.Compare(a.head, b.head), zone.CompareRData(t, a.rdata, b.rdata), bytes.Compare(a.rdata, b.rdata))
	}
	if len(n.changes) > 1 {
		slices.SortFunc(n.changes, func(a, b change) int { return cmp.Or(same(a, b), cmp.Compare(a.order, b.order)) })
	}
	kept := n.changes[:0]
	for i := 0; i < len(n.changes); {
		first := n.changes[i]
		last := first
		for i++; i < len(n.changes) && same(first, n.changes[i]) == 0; i++ {
			last = n.changes[i]
		}
		before, after := first.order%2 == 0, last.order%2 == 1
		if before != after && after == n.added {
			kept = append(kept, last)
		}
	}
	n.left = kept
}

func (n *netIterator) recordType() zone.Type {
	if k := zone.Kind(n.key[0]); k == zone.KindSigs || k == zone.KindChainSigs {
		return zone.TypeRRSIG
	}
	return zone.Type(n.key[len(n.key)-2])<<8 | zone.Type(n.key[len(n.key)-1])
}

// emit makes a value of the changes that have TTL and owner in common.
func (n *netIterator) emit() {
	head := n.left[0].head
	n.value = append(n.value[:0], head...)
	i := 0
	for ; i < len(n.left) && bytes.Equal(n.left[i].head, head); i++ {
		n.value = zone.AppendRData(n.value, n.left[i].rdata)
	}
	n.left = n.left[i:]
}

func (n *netIterator) Key() []byte   { return n.key }
func (n *netIterator) Value() []byte { return n.value }
func (n *netIterator) Err() error    { return n.err }

func (n *netIterator) Close() error {
	var err error
	for _, it := range n.open {
		err = errors.Join(err, it.Close())
	}
	n.open, n.heap, n.held = nil, nil, nil
	return err
}

// errOverLimit: the net difference is larger than what is measured against.
var errOverLimit = errors.New("over the limit")

// measure returns errOverLimit where the rough size of diffs in wire form is
// above limit.
func measure(diffs []Diff, limit int64) error {
	size := int64(0)
	for _, d := range diffs {
		for _, open := range []func() (zone.Iterator, error){d.Removed, d.Added} {
			it, err := open()
			if err != nil {
				return err
			}
			for size <= limit && it.Next() {
				size += itemBytes(it.Value())
			}
			if err := errors.Join(it.Err(), it.Close()); err != nil {
				return err
			}
			if size > limit {
				return errOverLimit
			}
		}
	}
	return nil
}

// itemBytes is the rough size of an item: a record takes a pointer to its
// owner and the fixed fields beside its RDATA.
func itemBytes(value []byte) int64 {
	size := int64(16) // the owner's first label
	for rdata := range zone.Value(value).Records() {
		size += 12 + int64(len(rdata))
	}
	return size
}
