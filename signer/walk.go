package signer

import (
	"bytes"
	"errors"
	"fmt"

	"sluice/signer/zone"
)

// progressEvery is after how many RRsets progress is told.
const progressEvery = 4096

// node is one owner name of the contents.
type node struct {
	ownerKey []byte
	sets     []nodeSet
	arena    []byte // values of sets
	dname    bool
	delegation,
	secure bool // a delegation with DS
}

// nodeSet is one RRset of a node. The NS RRset of a delegation has no value.
type nodeSet struct {
	typ    zone.Type
	value  span // of arena
	same   bool // equal in the previous contents
	isMade bool
}

func (n *node) reset(ownerKey []byte) {
	n.ownerKey = append(n.ownerKey[:0], ownerKey...)
	n.sets, n.arena = n.sets[:0], n.arena[:0]
	n.dname, n.delegation, n.secure = false, false, false
}

func (n *node) add(t zone.Type, value []byte, same, isMade bool) {
	s := nodeSet{typ: t, same: same, isMade: isMade}
	s.value.from = len(n.arena)
	n.arena = append(n.arena, value...)
	s.value.to = len(n.arena)
	n.sets = append(n.sets, s)
}

// walk is one pass over the contents. It decides what each name is and feeds
// what has to be signed. It belongs to the producer.
type walk struct {
	run      *run
	feed     *feed
	now      *node // being read
	pending  *node // NSEC: waits for the next name
	begun    bool
	occluded bool   // everything below cut is occluded
	cut      []byte // owner key prefix of the last delegation or DNAME
	skip     bool   // the present name is occluded
	lastKey  []byte
	contents *cursor
	made     *cursor
	sigs     *cursor
	ents     entStack
	types    []zone.Type
	name     []byte
	next     []byte
	key      []byte
	value    []byte
}

// contentsPass feeds everything but the NSEC3 chain.
func (r *run) contentsPass(f *feed, in Input) error {
	w := &walk{run: r, feed: f, now: &node{}, pending: &node{}}
	if p := in.Previous; p != nil {
		var err error
		if w.contents, err = newCursor(p.Contents, zone.KindContents); err != nil {
			return err
		}
		made := p.Made
		if r.part != nil {
			r.trustKeys(r.part.frame.DNSKEY)
		} else {
			var dnskey zone.Value
			if made, dnskey, err = apexAhead(p.Made, r.apexKey); err != nil {
				return err
			}
			r.trustKeys(dnskey)
		}
		if w.made, err = newCursor(made, zone.KindMade); err != nil {
			return err
		}
		if w.sigs, err = newCursor(p.Sigs, zone.KindSigs); err != nil {
			return err
		}
	}
	for n := uint64(1); in.Contents.Next(); n++ {
		if r.params.Progress != nil && n%progressEvery == 0 {
			r.params.Progress(n)
		}
		if err := w.item(in.Contents.Key(), in.Contents.Value()); err != nil {
			return err
		}
	}
	if err := in.Contents.Err(); err != nil {
		return fmt.Errorf("read contents: %w", err)
	}
	return w.end()
}

// item takes one RRset of the contents.
func (w *walk) item(key, value []byte) error {
	kind, ownerKey, t, err := zone.SplitKey(key)
	if err != nil {
		return fmt.Errorf("read contents: %w", err)
	}
	if kind != zone.KindContents || bytes.Compare(key, w.lastKey) <= 0 {
		return errors.New("read contents: items out of order")
	}
	w.lastKey = append(w.lastKey[:0], key...)
	if err := checkItem(ownerKey, value); err != nil {
		return fmt.Errorf("read contents: %w", err)
	}
	if !w.begun || !bytes.Equal(ownerKey, w.now.ownerKey) {
		if err := w.start(ownerKey); err != nil {
			return err
		}
	}
	same, err := w.compare(key, value)
	if err != nil {
		return err
	}
	r := w.run
	r.read++
	if !(t == zone.TypeSOA && len(ownerKey) == len(r.apexKey)) {
		r.counts.records += uint64(zone.Value(value).Count())
		if err := r.digestForZONEMD(key, value); err != nil {
			return err
		}
	}
	if w.skip {
		r.counts.rrsets++
		return nil
	}
	w.now.take(t, value, same, len(r.apexKey))
	return nil
}

// take adds an RRset of the contents.
func (n *node) take(t zone.Type, value []byte, same bool, apexLength int) {
	switch {
	case t == zone.TypeDNAME:
		n.dname = true
	case t == zone.TypeNS && len(n.ownerKey) != apexLength:
		n.delegation = true
		value = nil
	case t == zone.TypeDS:
		n.secure = true
	}
	n.add(t, value, same, false)
}

// checkItem demands that a value is well formed and that an owner in it is
// that of the key.
func checkItem(ownerKey, value []byte) error {
	v := zone.Value(value)
	if err := v.Check(); err != nil {
		return err
	}
	if owner := v.Owner(); owner != nil {
		var buf [2*zone.MaxNameLength + 2]byte
		if !bytes.Equal(zone.AppendOwnerKey(buf[:0], zone.Name(owner)), ownerKey) {
			return fmt.Errorf("owner %v does not fit its key", zone.Name(owner))
		}
	}
	return nil
}

// compare walks the previous contents beside the new ones. It keeps the
// signed digest of what has changed; the SOA is left to its made form.
func (w *walk) compare(key, value []byte) (same bool, err error) {
	if w.contents == nil {
		return false, nil
	}
	old, err := w.contents.seek(key, w.goneContents)
	if err != nil {
		return false, err
	}
	if old != nil && bytes.Equal(old, value) {
		return true, w.contents.next()
	}
	if old != nil {
		if err := w.goneContents(key, old); err != nil {
			return false, err
		}
		if err := w.contents.next(); err != nil {
			return false, err
		}
	}
	if w.run.isApexSOA(key) {
		return false, nil
	}
	return false, w.run.hasher.AddItem(key, value)
}

func (w *walk) goneContents(key, value []byte) error {
	if w.run.isApexSOA(key) {
		return nil
	}
	return w.run.hasher.RemoveItem(key, value)
}

// start closes the present name and opens the next.
func (w *walk) start(ownerKey []byte) error {
	r := w.run
	if !w.begun {
		if err := w.begin(ownerKey); err != nil {
			return err
		}
	} else if err := w.close(); err != nil {
		return err
	}
	if !bytes.HasPrefix(ownerKey, r.apexKey[:len(r.apexKey)-1]) {
		return fmt.Errorf("contents go beyond the apex %v", r.params.Apex)
	}
	if r.part.ends(ownerKey) {
		return errBeyond
	}
	if w.occluded && !bytes.HasPrefix(ownerKey, w.cut) {
		w.occluded = false
	}
	w.skip = w.occluded
	w.now.reset(ownerKey)
	return nil
}

// begin demands that the first name is the one that belongs there, and takes up
// the walk where the ranges before leave it.
func (w *walk) begin(ownerKey []byte) error {
	r := w.run
	w.begun = true
	if r.part == nil || r.part.atApex() {
		if !bytes.Equal(ownerKey, r.apexKey) {
			return fmt.Errorf("contents do not begin with the apex %v", r.params.Apex)
		}
		return nil
	}
	if !bytes.Equal(ownerKey, r.part.From) {
		return errBeyond
	}
	if len(r.part.Hidden) > 0 {
		w.occluded, w.cut = true, append(w.cut[:0], r.part.Hidden...)
	}
	return w.ents.resume(r.part.Range, len(r.apexKey))
}

// close decides what the present name is, all its RRsets being known.
func (w *walk) close() error {
	n := w.now
	if w.skip {
		return nil
	}
	if n.delegation || n.dname {
		w.occluded = true
		w.cut = append(w.cut[:0], n.ownerKey[:len(n.ownerKey)-1]...)
	}
	if len(n.ownerKey) == len(w.run.apexKey) {
		if err := w.run.addApexSets(n); err != nil {
			return err
		}
	}
	if w.run.params.Denial != NSEC {
		return w.emit(n, nil)
	}
	if len(w.pending.ownerKey) > 0 {
		if err := w.emit(w.pending, n.ownerKey); err != nil {
			return err
		}
	}
	w.pending, w.now = n, w.pending
	return nil
}

// end closes the zone.
func (w *walk) end() error {
	if !w.begun {
		return errors.New("contents are empty")
	}
	if err := w.close(); err != nil {
		return err
	}
	if w.run.params.Denial == NSEC && len(w.pending.ownerKey) > 0 {
		next := w.run.apexKey
		if w.run.part != nil {
			next = w.run.part.Next
		}
		if err := w.emit(w.pending, next); err != nil {
			return err
		}
	}
	if _, err := w.contents.seek(nil, w.goneContents); err != nil {
		return err
	}
	if err := w.made.skip(w.feed, zone.KindMade, nil); err != nil {
		return err
	}
	return w.sigs.skip(w.feed, zone.KindSigs, nil)
}

// emit feeds a name: its RRsets that are signed, its denial record. next is
// the owner key of the next name in an NSEC chain.
func (w *walk) emit(n *node, next []byte) error {
	var err error
	if w.name, err = zone.AppendNameOfKey(w.name[:0], n.ownerKey); err != nil {
		return fmt.Errorf("read contents: %w", err)
	}
	if next != nil {
		if err := w.addNSEC(n, next); err != nil {
			return err
		}
	} else if err := w.addNSEC3(n); err != nil {
		return err
	}
	for i := range n.sets {
		s := &n.sets[i]
		if n.delegation && !s.isMade && s.typ != zone.TypeDS {
			w.run.counts.rrsets++
			continue
		}
		if err := w.emitSet(n, s); err != nil {
			return err
		}
	}
	return nil
}

// emitSet feeds one RRset.
func (w *walk) emitSet(n *node, s *nodeSet) error {
	w.key = append(w.key[:0], byte(zone.KindContents))
	w.key = append(w.key, n.ownerKey...)
	w.key = append(w.key, byte(s.typ>>8), byte(s.typ))
	u := unit{kind: zone.KindContents, typ: s.typ, same: s.same}
	apex := len(n.ownerKey) == len(w.run.apexKey)
	u.apexKeys = apex && (s.typ == zone.TypeDNSKEY || s.typ == zone.TypeCDS || s.typ == zone.TypeCDNSKEY)
	var held *heldUnit
	if s.isMade {
		u.kind = zone.KindMade
		if s.typ == zone.TypeZONEMD {
			held = &w.run.held
		}
	}
	return w.feed.signed(u, w.name, w.key, n.arena[s.value.from:s.value.to], w.made, w.sigs, held)
}

// signed feeds a unit after what it needs of the previous instance; kind and
// type of u are set. made and sigs walk the items of its kind and their
// signatures. A held unit, the ZONEMD record, waits for the end of the run.
func (f *feed) signed(u unit, owner, key, value []byte, made, sigs *cursor, held *heldUnit) error {
	sigKind := zone.KindSigs
	if u.kind == zone.KindChain {
		sigKind = zone.KindChainSigs
	}
	if u.kind != zone.KindContents {
		if err := made.skip(f, u.kind, key); err != nil {
			return err
		}
	}
	if err := sigs.skip(f, sigKind, key); err != nil {
		return err
	}
	// From here on all goes into one batch.
	b := f.now
	var err error
	if u.kind != zone.KindContents {
		if u.before, u.existed, err = made.take(b, key); err != nil {
			return err
		}
		u.same = u.existed && bytes.Equal(b.bytes(u.before), value)
	}
	if u.sigs, _, err = sigs.take(b, key); err != nil {
		return err
	}
	if held != nil {
		held.set(b, &u, owner, key)
		return nil
	}
	if f.owner.empty() || !bytes.Equal(b.bytes(f.owner), owner) {
		f.owner = b.add(owner)
	}
	u.owner, u.key, u.value = f.owner, b.add(key), b.add(value)
	b.units = append(b.units, u)
	return f.next()
}

// addNSEC adds a name's NSEC record to its RRsets (RFC 4034, 4; the TTL by
// RFC 9077, 3.1).
func (w *walk) addNSEC(n *node, next []byte) error {
	var err error
	if w.next, err = zone.AppendNameOfKey(w.next[:0], next); err != nil {
		return fmt.Errorf("read contents: %w", err)
	}
	w.types = append(n.bitmapTypes(w.types[:0]), zone.TypeNSEC, zone.TypeRRSIG)
	sortTypes(w.types)
	w.next = appendBitmap(w.next, w.types)
	w.value = zone.AppendValueHeader(w.value[:0], zone.Root, w.run.denialTTL)
	w.value = zone.AppendRData(w.value, w.next)
	n.add(zone.TypeNSEC, w.value, false, true)
	n.sort()
	return nil
}

// bitmapTypes appends the types that a denial record shows: at a delegation
// only NS and DS are the parent's (RFC 4035, 2.3).
func (n *node) bitmapTypes(dst []zone.Type) []zone.Type {
	for _, s := range n.sets {
		if !n.delegation || s.typ == zone.TypeNS || s.typ == zone.TypeDS {
			dst = append(dst, s.typ)
		}
	}
	return dst
}

// sort puts made RRsets in their place; there are few of them, at the end.
func (n *node) sort() {
	for i := 1; i < len(n.sets); i++ {
		for j := i; j > 0 && n.sets[j].typ < n.sets[j-1].typ; j-- {
			n.sets[j], n.sets[j-1] = n.sets[j-1], n.sets[j]
		}
	}
}

// sortTypes sorts types that are nearly in order.
func sortTypes(types []zone.Type) {
	for i := 1; i < len(types); i++ {
		for j := i; j > 0 && types[j] < types[j-1]; j-- {
			types[j], types[j-1] = types[j-1], types[j]
		}
	}
}
