package signer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"sluice/signer/zone"
)

// updateMemory bounds what each of Update's sorters keeps in memory.
const updateMemory = 8 << 20

// mark says what is to be looked at: an RRset of a name, or, with type 0, the
// name.
type mark byte

const (
	markAdded    mark = 1 << iota // the contents have the RRset anew
	markRemoved                   // the contents have lost the RRset
	markChanged                   // its value in the contents is another
	markDue                       // its signatures are to be made anew
	markStanding                  // the name may be hidden by another name, or no longer
	markLink                      // another name may be the next one in the NSEC chain
	markExchange                  // its signatures are to be by those keys that sign
)

// update is one call of Update. It belongs to the goroutine that calls it and
// then to the producer of the pipeline.
type update struct {
	run       *run
	in        UpdateInput
	now, old  side
	above     ancestors // for names in order
	elsewhere ancestors // for others
	names     *zone.Sorter
	ents      *zone.Sorter // names without contents that may need an NSEC3 record
	hashes    *zone.Sorter // NSEC3 hashes whose records may change
	sorters   []*zone.Sorter
	delta     Delta // of the contents

	changed changedName
	walk    *walk // for what it shares with Sign
	node    node
	marks   []typeMark
	types   []zone.Type
	before  []nodeSet // what the previous instance has at the name: made RRsets and RRSIGs
	beforeS []nodeSet
	arena   []byte
	hidden  bool
	key     []byte
	other   []byte
	entry   []byte
	hashBuf []byte
}

type typeMark struct {
	typ zone.Type
	mark
}

// Update signs a zone of which little has changed, on top of a previous
// instance made with the same keys and parameters: the items that it hands to
// sink are the same diff that Sign would make, found without reading the
// zone. A change of k RRsets of a zone with n takes O(k log n), where k
// counts the RRsets that change on either side: denial records and names that
// a delegation or DNAME begins or ceases to hide are among them.
//
// Signatures of what has not changed stay unless Due or Exchange names them,
// even those by keys that sign no longer, but for those of DNSKEY, CDS and
// CDNSKEY at the apex; with all keys the same and nothing else due,
// the outcome equals that of Sign. Update returns ErrFull, wrapped, where the
// published keys, the denial parameters or the TTL of denial records change
// and where a ZONEMD record is wanted. The counts of Result that tell of the
// whole zone are zero; Delta tells what changed, and Earliest is that of the
// signatures written. After an error what the sink holds is worthless.
func Update(ctx context.Context, in UpdateInput, keys []Key, p Params, sink Sink) (*Result, error) {
	u, err := newUpdate(in, keys, p)
	if err != nil {
		return nil, fmt.Errorf("update %v: %w", p.Apex, err)
	}
	res, err := u.sign(ctx, sink)
	for _, s := range u.sorters {
		err = errors.Join(err, s.Close())
	}
	if err != nil {
		return nil, fmt.Errorf("update %v: %w", p.Apex, err)
	}
	return res, nil
}

func newUpdate(in UpdateInput, keys []Key, p Params) (*update, error) {
	switch {
	case in.Contents == nil || in.Changes == nil || in.ContentState == nil:
		return nil, errors.New("no contents")
	case in.Previous == nil || in.SignedState == nil:
		return nil, fmt.Errorf("%w: no previous instance", ErrFull)
	case in.Spill == nil:
		return nil, errors.New("no spill")
	case p.ZONEMD:
		return nil, fmt.Errorf("%w: a ZONEMD record covers all of it", ErrFull)
	}
	none := zone.Slice() // what Sign would read from start to end
	r, err := newRun(Input{
		Contents: none, ContentState: in.ContentState, Spill: in.Spill,
		Previous: &Previous{
			SignedState: in.SignedState,
			Contents:    none, Made: none, Sigs: none, Chain: none, ChainSigs: none,
		},
	}, keys, p)
	if err != nil {
		return nil, err
	}
	r.updates = true
	u := &update{run: r, in: in}
	u.now = side{access: in.Contents, what: "contents"}
	u.old = side{access: in.Previous, what: "the previous instance"}
	u.above = ancestors{side: &u.now, apexKey: r.apexKey}
	u.elsewhere = ancestors{side: &u.now, apexKey: r.apexKey}
	u.walk = &walk{run: r}
	u.names = u.sorter()
	if p.Denial != NSEC {
		u.ents, u.hashes = u.sorter(), u.sorter()
	}
	return u, nil
}

func (u *update) sorter() *zone.Sorter {
	s := zone.NewSorter(u.in.Spill, updateMemory)
	u.sorters = append(u.sorters, s)
	return s
}

func (u *update) sign(ctx context.Context, sink Sink) (*Result, error) {
	r := u.run
	r.sink = sink
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := u.compareApex(); err != nil {
		return nil, err
	}
	if err := u.collect(ctx); err != nil {
		return nil, err
	}
	if err := r.pipeline(ctx, u.namesPass, r.collect); err != nil {
		return nil, err
	}
	if r.params.Denial != NSEC {
		rewrites, err := u.resolveChain()
		if err != nil {
			return nil, err
		}
		pass := func(f *feed) error { return u.chainPass(f, rewrites) }
		if err := errors.Join(r.pipeline(ctx, pass, r.collect), rewrites.Close()); err != nil {
			return nil, err
		}
	}
	some := false
	delta := u.delta
	for _, w := range r.workers {
		delta.merge(w.counts.delta)
		some = some || w.counts.any
	}
	res, err := r.result(Input{ContentState: u.in.ContentState, Previous: &Previous{SignedState: u.in.SignedState}}, sink)
	if err != nil {
		return nil, err
	}
	if res.Delta = delta; !some {
		res.Earliest = time.Time{}
	}
	res.Records, res.RRsets, res.Signatures = 0, 0, 0
	return res, nil
}

// compareApex finds out whether more changes than Update follows up.
func (u *update) compareApex() error {
	r := u.run
	if err := u.read(r.apexKey); err != nil {
		return err
	}
	if err := r.addApexSets(&u.node); err != nil {
		return err
	}
	for _, t := range []zone.Type{zone.TypeDNSKEY, zone.TypeNSEC3PARAM, zone.TypeSOA} {
		before, err := u.old.get(zone.KindMade, r.apexKey, t)
		if err != nil {
			return err
		}
		if t == zone.TypeDNSKEY {
			r.trustKeys(bytes.Clone(before))
		}
		var now []byte
		if s := u.node.find(t); s != nil && s.isMade {
			now = u.node.arena[s.value.from:s.value.to]
		}
		if t != zone.TypeSOA {
			if !bytes.Equal(before, now) {
				return fmt.Errorf("%w: the %v RRset changes", ErrFull, t)
			}
			continue
		}
		ttl, err := denialTTLOf(before)
		if err != nil || ttl != r.denialTTL {
			return fmt.Errorf("%w: the TTL of denial records changes", ErrFull)
		}
	}
	return u.compareDenial()
}

// denialTTLOf is the TTL of the denial records of a zone with the given SOA
// RRset (RFC 9077, 3).
func denialTTLOf(soa zone.Value) (uint32, error) {
	if soa == nil {
		return 0, errors.New("no SOA")
	}
	for rdata := range soa.Records() {
		_, minimum, err := soaFields(rdata)
		return min(soa.TTL(), minimum), err
	}
	return 0, errors.New("no SOA")
}

// compareDenial demands that the previous instance has the same denial chain.
func (u *update) compareDenial() error {
	r := u.run
	kind, owner, t := zone.KindMade, r.apexKey, zone.TypeNSEC
	if r.params.Denial != NSEC {
		kind, t = zone.KindChain, zone.TypeNSEC3
		hash := nsec3Hash([]byte(r.apex), r.params.Salt, r.params.Iterations, &u.hashBuf)
		owner = appendHashKey(nil, r.apexKey, hash)
	}
	value, err := u.old.get(kind, owner, t)
	if err != nil {
		return err
	}
	if value == nil {
		return fmt.Errorf("%w: the denial type changes", ErrFull)
	}
	for rdata := range value.Records() {
		if t == zone.TypeNSEC {
			break
		}
		f, err := parseNSEC3(rdata)
		if err != nil {
			return u.old.wrap(err)
		}
		if f.flags&1 == 1 != (r.params.Denial == NSEC3OptOut) {
			return fmt.Errorf("%w: opt-out changes", ErrFull)
		}
	}
	return nil
}

// changedName gathers what changes at one name of the contents.
type changedName struct {
	ownerKey      []byte
	types         []typeMark
	had, has      bool // some RRset was there, some is there
	hadNS, hasNS  bool
	hadDN, hasDN  bool
	nsHere, dHere bool // NS, DNAME are among types
	expanded      []byte
	keyBefore     []byte
}

// collect reads the changes and notes which names are to be looked at.
func (u *update) collect(ctx context.Context) error {
	n := 0
	err := u.in.Changes(func(key, before, after []byte) error {
		if n++; n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		return u.change(key, before, after)
	})
	if err == nil {
		err = u.endChanged()
	}
	if err == nil && u.in.Due != nil {
		err = u.in.Due(func(key []byte) error { return u.due(key, markDue, eventDue) })
	}
	if err == nil && u.in.Exchange != nil {
		err = u.in.Exchange(func(key []byte) error { return u.due(key, markExchange, eventExchange) })
	}
	if err != nil {
		return err
	}
	return u.note(u.run.apexKey, 0, markStanding)
}

// note adds a mark.
func (u *update) note(ownerKey []byte, t zone.Type, m mark) error {
	u.key = append(append(u.key[:0], ownerKey...), byte(t>>8), byte(t))
	return u.names.Add(u.key, []byte{byte(m)})
}

// change takes one item in which the contents differ.
func (u *update) change(key, before, after []byte) error {
	kind, ownerKey, t, err := zone.SplitKey(key)
	c, r := &u.changed, u.run
	switch {
	case err != nil:
		return fmt.Errorf("read changes: %w", err)
	case kind != zone.KindContents || bytes.Compare(key, c.keyBefore) <= 0:
		return errors.New("read changes: items out of order")
	case !bytes.HasPrefix(ownerKey, r.apexKey[:len(r.apexKey)-1]):
		return fmt.Errorf("changes go beyond the apex %v", r.params.Apex)
	}
	c.keyBefore = append(c.keyBefore[:0], key...)
	if !bytes.Equal(ownerKey, c.ownerKey) {
		if err := u.endChanged(); err != nil {
			return err
		}
		c.ownerKey = append(c.ownerKey[:0], ownerKey...)
	}
	m := markChanged
	switch {
	case len(before) == 0 && len(after) == 0:
		return nil
	case len(before) == 0:
		m = markAdded
	case len(after) == 0:
		m = markRemoved
	}
	had, has := m != markAdded, m != markRemoved
	if err := u.count(key, before, after, had, has); err != nil {
		return fmt.Errorf("read changes: %w", err)
	}
	c.types = append(c.types, typeMark{t, m})
	c.had, c.has = c.had || had, c.has || has
	switch t {
	case zone.TypeNS:
		c.nsHere, c.hadNS, c.hasNS = true, had, has
	case zone.TypeDNAME:
		c.dHere, c.hadDN, c.hasDN = true, had, has
	default:
	}
	return nil
}

// count keeps digest and counts of a change; the SOA is left to its made form.
func (u *update) count(key, before, after []byte, had, has bool) error {
	if u.run.isApexSOA(key) {
		return nil
	}
	if had {
		if err := zone.Value(before).Check(); err != nil {
			return err
		}
		u.delta.remove(zone.KindContents, before)
		if err := u.run.hasher.RemoveItem(key, before); err != nil {
			return err
		}
	}
	if !has {
		return nil
	}
	if err := zone.Value(after).Check(); err != nil {
		return err
	}
	u.delta.add(zone.KindContents, after)
	return u.run.hasher.AddItem(key, after)
}

// due notes a key whose signatures are to be made anew or exchanged.
func (u *update) due(key []byte, m mark, flag byte) error {
	kind, ownerKey, t, err := zone.SplitKey(key)
	switch {
	case err == nil && kind == zone.KindSigs:
		return u.note(ownerKey, t, m)
	case err == nil && kind == zone.KindChainSigs:
		if hash, err := hashOfKey(u.run.apexKey, ownerKey); err == nil && u.hashes != nil {
			return u.hashes.Add(hash[:], []byte{flag})
		}
		return nil // not a record of this chain
	case err == nil:
		return fmt.Errorf("read what is due: kind %#x", byte(kind))
	}
	return fmt.Errorf("read what is due: %w", err)
}
