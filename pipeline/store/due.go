package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/bits"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"sluice/journal/event"
	"sluice/signer/zone"
)

// The expiry index names the signatures of a generation by when they expire.
// Few signatures that a diff brings have an entry each, which goes when the
// item goes. Those of a whole generation, or of a large diff, stand in blocks
// of keys that expire within the same stretch of time; what was replaced since
// stays named in them until that time has passed, and a reader passes it over.
const (
	// formSingle marks an entry for one item: version (8) and item key follow,
	// and the time before it is the expiration.
	formSingle = 0
	// formBlock, and the grain's number of bits with it, marks a block of keys
	// that expire from the time before it on and within the grain: version
	// (8), kind (1), block (4) follow.
	formBlock = 1

	// duePrefix is the length of what stands before the form.
	duePrefix = dataPrefix + 8
	// blockDiff is from how many bytes of chunks on a diff's signatures are
	// indexed in blocks.
	blockDiff = 8 << 20
	// stretches is about how many blocks, small ones aside, stand beside each
	// other in the time that signatures are valid.
	stretches = 512
	// maxDueBlock is from which size on a block is written, maxDueOpen how
	// much is kept of all that are not yet.
	maxDueBlock = 8 << 10
	maxDueOpen  = 4 << 20
	// manyDue is from how many changed items on a publication leaves the
	// entries of what goes behind, to go when their time has passed.
	manyDue = 50_000
)

// dueKey is what the expiry index of a generation begins with.
func dueKey(z uint32, generation uint64) []byte {
	return binary.BigEndian.AppendUint64(appendZone(make([]byte, 0, maxDataKey+9), spaceDue, z), generation)
}

// appendSingle appends the entry of one item to a dueKey.
func appendSingle(dst []byte, expiration int64, version uint64, item []byte) []byte {
	dst = append(appendTime(dst, expiration), formSingle)
	return append(binary.BigEndian.AppendUint64(dst, version), item...)
}

// appendTime appends a time in epoch seconds, which is never before 1970.
func appendTime(dst []byte, t int64) []byte {
	return binary.BigEndian.AppendUint64(dst, uint64(max(t, 0)))
}

// expiration is when the first of the RRSIGs of an item expires, in epoch
// seconds: the time nearest to about.
func expiration(value zone.Value, about int64) (int64, error) {
	first, found := int64(math.MaxInt64), false
	for rdata := range value.Records() {
		if len(rdata) < 12 {
			return 0, fmt.Errorf("%w: an RRSIG of %d bytes", ErrBroken, len(rdata))
		}
		t := binary.BigEndian.Uint32(rdata[8:]) // RFC 4034, 3.1
		first, found = min(first, about+int64(int32(t-uint32(about)))), true
	}
	if !found {
		return 0, fmt.Errorf("%w: no RRSIG in a set of them", ErrBroken)
	}
	return first, nil
}

func isSigs(kind zone.Kind) bool { return kind == zone.KindSigs || kind == zone.KindChainSigs }

// grain is the number of bits of the stretch of time of a block, for
// signatures that are valid for so many seconds.
func grain(valid int64) byte {
	return byte(max(bits.Len64(uint64(max(valid, 0))/stretches)-1, 0))
}

// inBlocks reports whether the index names the signatures of an instance in
// blocks. It follows from the event alone.
func inBlocks(f *event.InstanceSigned) bool {
	if f.Base == 0 || len(f.Manifest.Indirect) > 0 {
		return true
	}
	n := uint64(0)
	for _, c := range f.Manifest.Chunks {
		n += c.Bytes
	}
	return n >= blockDiff
}

// dueIndex indexes the signatures of one instance while it is loaded.
type dueIndex struct {
	s       *Store
	z       uint32
	m       *InstanceMeta
	blocks  bool
	spooled bool // blocks come in another order than the edit wants
	shift   byte
	writers []*dueWriter
}

func (s *Store) dueIndex(e edit, z uint32, m *InstanceMeta, blocks bool, valid int64) *dueIndex {
	x := &dueIndex{s: s, z: z, m: m, blocks: blocks, shift: grain(valid)}
	if blocks {
		m.Grain = max(m.Grain, x.shift)
		_, x.spooled = e.(*tableEdit)
	}
	return x
}

// writer is what indexes the items of one kind.
func (x *dueIndex) writer(kind zone.Kind) *dueWriter {
	w := &dueWriter{dueIndex: x, kind: kind, key: dueKey(x.z, x.m.Generation), open: map[int64]*dueBlock{}}
	if x.spooled {
		w.spool = &spool{fs: x.s.cfg.FS, path: x.s.cfg.FS.PathJoin(x.s.scratch(), fmt.Sprintf("due%d", kind))}
	}
	x.writers = append(x.writers, w)
	return w
}

// finish writes what is left.
func (x *dueIndex) finish(e edit) error {
	var spools []*spool
	for _, w := range x.writers {
		if err := w.writeAll(e); err != nil {
			return err
		}
		if w.spool != nil {
			spools = append(spools, w.spool)
		}
	}
	return readSpools(spools, func(key, value []byte) error { return e.set(laneDue, key, value) })
}

// close frees what is left where finish was not reached.
func (x *dueIndex) close() error {
	var err error
	for _, w := range x.writers {
		if w.spool != nil {
			err = errors.Join(err, w.spool.close())
		}
	}
	return err
}

// dueWriter indexes the items of one kind. It is for one goroutine.
type dueWriter struct {
	*dueIndex
	kind  zone.Kind
	open  map[int64]*dueBlock // by the beginning of their stretch of time
	held  int
	spool *spool // nil: the edit takes keys in any order
	key   []byte
}

// dueBlock is a block that is being filled.
type dueBlock struct {
	number uint32
	keyList
}

// add indexes one item.
func (w *dueWriter) add(e edit, key, value []byte) error {
	if err := zone.Value(value).Check(); err != nil {
		return fmt.Errorf("%w: %w", ErrBroken, err)
	}
	at, err := expiration(value, w.m.Expiration)
	if err != nil {
		return err
	}
	if !w.blocks {
		w.key = appendSingle(w.key[:dataPrefix], at, w.m.Seq, key)
		return e.set(laneDue, w.key, nil)
	}
	start := max(at, 0) >> w.shift << w.shift
	b := w.open[start]
	if b == nil {
		b = &dueBlock{}
		w.open[start] = b
	}
	before := len(b.buf)
	b.add(key)
	w.held += len(b.buf) - before
	switch {
	case len(b.buf) >= maxDueBlock:
		return w.write(e, start, b)
	case w.held >= maxDueOpen:
		return w.writeAll(e)
	}
	return nil
}

func (w *dueWriter) write(e edit, start int64, b *dueBlock) error {
	if len(b.buf) == 0 {
		return nil
	}
	w.key = append(appendTime(w.key[:dataPrefix], start), formBlock+w.shift)
	w.key = append(binary.BigEndian.AppendUint64(w.key, w.m.Seq), byte(w.kind))
	w.key = binary.BigEndian.AppendUint32(w.key, b.number)
	b.number++
	w.held -= len(b.buf)
	var err error
	if w.spool != nil {
		err = w.spool.put(w.key, b.buf)
	} else {
		err = e.set(laneDue, w.key, b.buf)
	}
	b.reset()
	return err
}

func (w *dueWriter) writeAll(e edit) error {
	for _, start := range slices.Sorted(maps.Keys(w.open)) {
		if err := w.write(e, start, w.open[start]); err != nil {
			return err
		}
	}
	return nil
}

// dueCleaner drops entries of the index.
type dueCleaner struct {
	e     edit
	z     uint32
	about int64 // a time near to the expirations
	off   bool  // they go when their time has passed
	key   []byte
}

// drop drops the entry of an item that goes. One that stands in a block stays
// there.
func (c *dueCleaner) drop(generation, version uint64, item, value []byte) error {
	if c == nil || c.off || version == generation || len(value) == 0 || !isSigs(zone.Kind(item[0])) {
		return nil
	}
	at, err := expiration(value, c.about)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	c.key = appendSingle(append(c.key[:0], dueKey(c.z, generation)...), at, version, item)
	return c.e.remove(laneDue, c.key)
}

// passed drops the entries of a generation whose time has passed: no readable
// instance has a signature that expires before floor.
func (s *Store) passed(e edit, z uint32, generation uint64, floor int64) error {
	prefix := dueKey(z, generation)
	return s.keysBetween(prefix, appendTime(bytes.Clone(prefix), floor), func(key []byte) error {
		if len(key) <= duePrefix {
			return errShortKey
		}
		start := int64(binary.BigEndian.Uint64(key[dataPrefix:]))
		if form := key[duePrefix]; form >= formBlock && start+1<<(form-formBlock) > floor {
			return nil
		}
		return e.remove(laneDue, key)
	})
}

// keysBetween walks keys from one up to another.
func (s *Store) keysBetween(from, to []byte, fn func(key []byte) error) error {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return damaged(err)
	}
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		err = fn(it.Key())
	}
	if cerr := it.Close(); err == nil {
		err = cerr
	}
	return damaged(err)
}

// Due walks the items with signatures of a signed instance, the first to
// expire first, or rather: at each call of fn no later one will expire before
// floor, which ascends. It ends when fn wants no more. Times are in epoch
// seconds. The work follows the number of items that it meets. Key and RRSIGs
// are valid during the call only.
func (v *View) Due(fn func(key []byte, sigs zone.Value, expires, floor int64) (more bool, err error)) error {
	return v.DueFrom(0, fn)
}

// DueFrom is Due from a time on: each item that expires then or later is met,
// and perhaps a few that expire before.
func (v *View) DueFrom(at int64, fn func(key []byte, sigs zone.Value, expires, floor int64) (more bool, err error)) (err error) {
	if v.snap == nil {
		return ErrClosed
	}
	if !v.meta.Signed {
		return nil
	}
	prefix := dueKey(v.z, v.signed.generation)
	// Nothing expires before Earliest, but a block may begin before it.
	from := appendTime(bytes.Clone(prefix), max(v.meta.Earliest, at)-1<<v.meta.Grain)
	it, err := v.snap.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: after(prefix)})
	if err != nil {
		return damaged(err)
	}
	defer func() { err = joinClose(err, it) }()
	items, err := v.s.entries(v.snap, v.z, v.signed.generation)
	if err != nil {
		return err
	}
	defer func() { err = items.closeWith(err) }()
	d := dueReader{v: v, items: items, fn: fn}
	for ok := it.First(); ok; ok = it.Next() {
		block, err := it.ValueAndErr()
		if err != nil {
			return damaged(err)
		}
		if more, err := d.entry(it.Key(), block); err != nil || !more {
			return err
		}
	}
	return damaged(it.Error())
}

func joinClose(err error, it *pebble.Iterator) error {
	if cerr := it.Close(); err == nil {
		err = damaged(cerr)
	}
	return err
}

// dueReader takes the entries of the index apart.
type dueReader struct {
	v     *View
	items *entries
	fn    func(key []byte, sigs zone.Value, expires, floor int64) (more bool, err error)
	list  keyReader
}

func (d *dueReader) entry(key, block []byte) (more bool, err error) {
	if len(key) < duePrefix+1+8 {
		return false, errShortKey
	}
	floor := int64(binary.BigEndian.Uint64(key[dataPrefix:]))
	version := binary.BigEndian.Uint64(key[duePrefix+1:])
	if !d.v.signed.sees(version) {
		return true, nil
	}
	if key[duePrefix] == formSingle {
		return d.item(version, key[duePrefix+9:], floor)
	}
	d.list.reset(block)
	for d.list.next() {
		if more, err := d.item(version, d.list.key, floor); err != nil || !more {
			return more, err
		}
	}
	return true, d.list.err
}

// item looks whether the instance has the item as it was in that version.
func (d *dueReader) item(version uint64, key []byte, floor int64) (more bool, err error) {
	if err := d.items.seek(key, []lens{d.v.signed}); err != nil {
		return false, err
	}
	at := d.items.find(&d.v.signed)
	if at < 0 || d.items.list[at].version != version || d.items.list[at].from == d.items.list[at].to {
		return true, nil
	}
	sigs := zone.Value(d.items.value(&d.v.signed))
	expires, err := expiration(sigs, d.v.meta.Expiration)
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return d.fn(key, sigs, expires, floor)
}
