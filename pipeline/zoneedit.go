package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"sluice/journal/event"
	"sluice/pipeline/store"
	"sluice/signer/zone"
	"sluice/xfr"
)

// maxEdit bounds what an incremental transfer may hold in memory, in bytes; a
// larger one is given up for a whole transfer, which spills.
const maxEdit = 32 << 20

// editOverhead is what a record costs beside its data, roughly.
const editOverhead = 96

// zoneEdit applies an incremental transfer to a loaded instance. It reads and
// holds the RRsets that change, nothing else of the zone.
type zoneEdit struct {
	view *store.View
	read *store.Access // of view
	apex zone.Name
	name []byte // owner key of the apex
	ttl  uint32 // the highest allowed; 0: no limit
	cut  bool   // a higher one is lowered
	all  bool   // the signer's own records are kept: the zone is passed through

	sets     map[string]*editedSet // by item key
	size     int
	key      []byte
	stripped map[string]uint64
	clamped  int
	// What came and went of the ZONEMD records that are left out.
	zonemd     [][]byte
	zonemdGone int
}

// editedSet is an RRset under change.
type editedSet struct {
	before  zone.Value // nil: there was none
	owner   zone.Name  // as written; "" follows from the key
	ttl     uint32
	mixed   bool // records came with several TTLs
	records [][]byte
}

func (e *Engine) newZoneEdit(s State, base uint64, apex zone.Name, p Policy) (*zoneEdit, error) {
	v, err := e.store.Loaded(s.Zone, base)
	if err != nil {
		return nil, e.note(err)
	}
	return &zoneEdit{
		view: v, read: v.Access(), apex: apex, name: zone.AppendOwnerKey(nil, apex), ttl: p.loadTTL(), cut: p.ClampTTL(), all: v.Meta().Whole,
		sets: map[string]*editedSet{}, stripped: map[string]uint64{},
	}, nil
}

func (z *zoneEdit) close() error { return errors.Join(z.read.Close(), z.view.Close()) }

// own reports whether a record is the signer's own, which is not taken over.
func (z *zoneEdit) own(rr *xfr.Record) bool {
	return !z.all && zone.SignersOwn(rr.Type, len(rr.Owner) == len(z.apex))
}

// set finds the RRset of a record as it stands now.
func (z *zoneEdit) set(rr *xfr.Record) (*editedSet, error) {
	kind, t := zone.OwnItem(rr.Type, len(rr.Owner) == len(z.apex), rr.RData)
	z.key = append(z.key[:0], byte(kind))
	z.key = zone.AppendOwnerKey(z.key, zone.Name(rr.Owner))
	if !bytes.HasPrefix(z.key[1:], z.name[:len(z.name)-1]) {
		return nil, fmt.Errorf("%s is not below %s", zone.Name(rr.Owner), z.apex)
	}
	z.key = append(z.key, byte(t>>8), byte(t))
	if set := z.sets[string(z.key)]; set != nil {
		return set, nil
	}
	value, err := z.read.Get(z.key)
	if err != nil {
		return nil, err
	}
	set := &editedSet{}
	if value != nil {
		set.before = bytes.Clone(value)
		set.owner, set.ttl = zone.Name(set.before.Owner()), set.before.TTL()
		for data := range set.before.Records() {
			set.records = append(set.records, data)
		}
	}
	z.sets[string(z.key)] = set
	return set, z.grow(len(z.key) + len(value) + editOverhead)
}

func (z *zoneEdit) grow(n int) error {
	if z.size += n; z.size > maxEdit {
		return fmt.Errorf("%w: more than %d bytes", errNotApplicable, maxEdit)
	}
	return nil
}

func (set *editedSet) find(t zone.Type, data []byte) int {
	return slices.IndexFunc(set.records, func(d []byte) bool { return zone.CompareRData(t, d, data) == 0 })
}

// remove takes a record away. One that is not there means that the sender
// speaks of another zone than the one loaded.
func (z *zoneEdit) remove(rr *xfr.Record) error {
	if z.own(rr) {
		if rr.Type == zone.TypeZONEMD {
			z.zonemdGone++
		}
		return nil
	}
	if zone.CheckRData(rr.Type, rr.RData) != nil {
		return fmt.Errorf("%w: malformed %s %s to be removed", errNotApplicable, zone.Name(rr.Owner), rr.Type)
	}
	set, err := z.set(rr)
	if err != nil {
		return err
	}
	i := set.find(rr.Type, rr.RData)
	if i < 0 {
		return fmt.Errorf("%w: %s %s to be removed is not there", errNotApplicable, zone.Name(rr.Owner), rr.Type)
	}
	set.records = slices.Delete(set.records, i, i+1)
	return nil
}

// add adds a record, which must not be there.
func (z *zoneEdit) add(rr *xfr.Record) error {
	if z.own(rr) {
		z.stripped[rr.Type.String()]++
		if rr.Type == zone.TypeZONEMD {
			return z.addZONEMD(rr.RData)
		}
		return nil
	}
	if err := zone.CheckType(rr.Type); err != nil {
		return z.refuse(rr, err)
	}
	if err := zone.CheckRData(rr.Type, rr.RData); err != nil {
		return z.refuse(rr, err)
	}
	ttl := rr.TTL
	if z.ttl != 0 && ttl > z.ttl {
		if !z.cut {
			return z.refuse(rr, fmt.Errorf("TTL %d is above the policy's limit of %d", ttl, z.ttl))
		}
		z.clamped++
		ttl = z.ttl
	}
	set, err := z.set(rr)
	if err != nil {
		return err
	}
	if set.find(rr.Type, rr.RData) >= 0 {
		return fmt.Errorf("%w: %s %s to be added is there already", errNotApplicable, zone.Name(rr.Owner), rr.Type)
	}
	if len(set.records) == 0 {
		set.owner, set.ttl, set.mixed = zone.Name(rr.Owner), ttl, false
	}
	if ttl != set.ttl {
		set.ttl, set.mixed = min(ttl, set.ttl), true
	}
	set.records = append(set.records, bytes.Clone(rr.RData))
	return z.grow(len(rr.RData) + editOverhead)
}

// replace makes an RRset what one record says, or nothing where that has no data.
func (z *zoneEdit) replace(rr xfr.Record) error {
	set, err := z.set(&rr)
	if err != nil {
		return err
	}
	set.records = nil
	if rr.RData != nil {
		set.owner, set.ttl, set.records = zone.Name(rr.Owner), rr.TTL, [][]byte{rr.RData}
	}
	return z.grow(len(rr.RData) + editOverhead)
}

// changed reports whether anything is other than before.
func (z *zoneEdit) changed() (bool, error) {
	for key, set := range z.sets {
		now, err := set.value([]byte(key))
		if err != nil || !bytes.Equal(set.before, now) {
			return true, err
		}
	}
	return false, nil
}

// refuse tells what is wrong with a record, which no other form of transfer
// would mend.
func (z *zoneEdit) refuse(rr *xfr.Record, err error) error {
	return &zone.LoadError{Total: 1, Errors: []zone.FileError{{
		File: "IXFR", Record: fmt.Sprintf("%s %s", zone.Name(rr.Owner), rr.Type), Err: err,
	}}}
}

// value is the RRset as it is to be; nil where nothing is left.
func (set *editedSet) value(key []byte) (zone.Value, error) {
	if len(set.records) == 0 {
		return nil, nil
	}
	kind, ownerKey, t, err := zone.SplitKey(key)
	if err != nil {
		return nil, err
	}
	if kind == zone.KindSigs || kind == zone.KindChainSigs {
		t = zone.TypeRRSIG
	}
	owner := set.owner
	if owner == "" {
		if owner, err = zone.NameOfKey(ownerKey); err != nil {
			return nil, err
		}
	}
	return zone.AppendValue(nil, owner, set.ttl, zone.SortRData(t, set.records)...), nil
}

// applyEdit checks what an incremental transfer changed, sends it, and fills
// in the facts.
func (e *Engine) applyEdit(ctx context.Context, t *transfer, facts *event.InstanceLoaded) error {
	z := t.edit
	base, _ := baseOf(t.s, t.c.Base) // known: run asked
	state, err := z.view.ContentState()
	if err != nil {
		return e.note(err)
	}
	facts.Serial, facts.RRsets, facts.Records, facts.MaxTTL = base.Serial, base.RRsets, base.Records, base.MaxTTL
	facts.Signatures = base.Signatures
	out := newChunkSink(ctx, e.journal.NewChunks(t.s.Zone, t.c.Identity()))
	check := newEditCheck(z, t.ep.String(), t.policy.Checks().Glue)
	hasher := zone.Hasher{Set: *state}
	if err := z.send(out, check, &hasher, facts); err != nil {
		return err
	}
	if err := t.checkCatalog(ctx); err != nil {
		return err
	}
	if facts.Earliest, err = z.earliest(base.Earliest, e.clock.Now().Add(t.policy.RemainTime())); err != nil {
		return err
	}
	if err := t.checkZONEMD(ctx, base.ZONEMD, facts); err != nil {
		return err
	}
	facts.Stripped, facts.Notices = z.stripped, z.notices(check.notices)
	facts.ContentDigest = hasher.Set.Sum()
	if err := out.putState(&hasher.Set); err != nil {
		return err
	}
	facts.Manifest, err = out.finish()
	return err
}

// sendEdit sends what changed of an instance whose facts the given ones begin with,
// and fills these in.
func (e *Engine) sendEdit(ctx context.Context, s State, c Command, z *zoneEdit, file string, glue zone.GlueCheck, facts *event.InstanceLoaded) error {
	state, err := z.view.ContentState()
	if err != nil {
		return e.note(err)
	}
	out := newChunkSink(ctx, e.journal.NewChunks(s.Zone, c.Identity()))
	check := newEditCheck(z, file, glue)
	hasher := zone.Hasher{Set: *state}
	if err := z.send(out, check, &hasher, facts); err != nil {
		return err
	}
	facts.Notices = append(facts.Notices, z.notices(check.notices)...)
	facts.ContentDigest = hasher.Set.Sum()
	if err := out.putState(&hasher.Set); err != nil {
		return err
	}
	facts.Manifest, err = out.finish()
	return err
}

// send sends what changed, checks it, and counts and hashes it.
func (z *zoneEdit) send(out *chunkSink, check *editCheck, hasher *zone.Hasher, facts *event.InstanceLoaded) error {
	keys := slices.Sorted(maps.Keys(z.sets))
	for len(keys) > 0 {
		n := sameOwner(keys)
		moved := false
		for _, key := range keys[:n] {
			now, same, err := z.change(hasher, []byte(key), facts)
			if err != nil {
				return err
			}
			if same {
				continue
			}
			moved = true
			if err := out.Put([]byte(key), now); err != nil {
				return err
			}
		}
		if moved {
			if err := check.name(keys[:n]); err != nil {
				return err
			}
		}
		keys = keys[n:]
	}
	if err := check.servers(); err != nil {
		return err
	}
	if err := check.finish(); err != nil {
		return err
	}
	facts.Serial = uint32(serialOf(check.soa))
	return nil
}

// sameOwner is how many of the first keys are of one name; keys are sorted.
func sameOwner(keys []string) int {
	owner := func(i int) string { return keys[i][:len(keys[i])-2] }
	n := 1
	for n < len(keys) && owner(n) == owner(0) {
		n++
	}
	return n
}

// change counts and hashes one RRset's change; same where nothing came of it.
func (z *zoneEdit) change(h *zone.Hasher, key []byte, facts *event.InstanceLoaded) (now zone.Value, same bool, err error) {
	set := z.sets[string(key)]
	now, err = set.value(key)
	if err != nil || bytes.Equal(set.before, now) {
		return nil, true, err
	}
	removed, added := recordChanges(set.before, now)
	facts.Removed += removed
	facts.Added += added
	rrsets, signatures := uint64(1), uint64(0)
	if kind := zone.Kind(key[0]); kind != zone.KindContents {
		rrsets = 0
		if kind == zone.KindSigs || kind == zone.KindChainSigs {
			signatures = 1
		}
	}
	if len(set.before) > 0 {
		facts.RRsets -= rrsets
		facts.Records -= uint64(set.before.Count())
		facts.Signatures -= signatures * uint64(set.before.Count())
		if err := h.RemoveContent(key, set.before); err != nil {
			return nil, false, err
		}
	}
	if len(now) > 0 {
		facts.RRsets += rrsets
		facts.Records += uint64(now.Count())
		facts.Signatures += signatures * uint64(now.Count())
		facts.MaxTTL = max(facts.MaxTTL, now.TTL())
		if err := h.AddContent(key, now); err != nil {
			return nil, false, err
		}
	}
	return now, false, nil
}

func (z *zoneEdit) notices(more []string) []string {
	if z.clamped > 0 {
		more = append(more, fmt.Sprintf("%d TTLs above the policy's limit were lowered to it", z.clamped))
	}
	mixed := 0
	for _, set := range z.sets {
		if set.mixed {
			mixed++
		}
	}
	if mixed > 0 {
		more = append(more, fmt.Sprintf("%d RRsets came with several TTLs and take the lowest (RFC 2181, 5.2)", mixed))
	}
	return more
}

// editCheck checks the names that a change touches, each with all its types.
type editCheck struct {
	z       *zoneEdit
	file    string
	checker *zone.Checker
	glue    zone.GlueCheck
	soa     zone.Value
	notices []string
	faults  zone.LoadError
}

func newEditCheck(z *zoneEdit, file string, glue zone.GlueCheck) *editCheck {
	c := &editCheck{z: z, file: file, glue: glue}
	// The checker sees only names that change; glue is looked up (servers).
	c.checker = zone.NewChecker(z.apex, zone.GlueIgnore, c.problem)
	return c
}

func (c *editCheck) problem(p zone.Problem) {
	if !p.Notice {
		c.fault(p)
	} else if len(c.notices) < 20 {
		c.notices = append(c.notices, p.Error())
	}
}

func (c *editCheck) fault(err error) {
	if c.faults.Total++; len(c.faults.Errors) < 20 {
		c.faults.Errors = append(c.faults.Errors, zone.FileError{File: c.file, Err: err})
	}
}

// name feeds the RRsets of one name, the changed ones in place of the old, to
// the checker. changed is the keys of the changed ones.
func (c *editCheck) name(changed []string) (err error) {
	if zone.Kind(changed[0][0]) != zone.KindContents {
		return c.lengths(changed)
	}
	owner := changed[0][1 : len(changed[0])-2]
	items := map[string]zone.Value{}
	// No other name's key begins so: its last label has ended.
	prefix := []byte(changed[0][:1+len(owner)])
	it := c.z.read.Walk(prefix)
	for it.Next() && bytes.HasPrefix(it.Key(), prefix) {
		items[string(it.Key())] = bytes.Clone(it.Value())
	}
	if err := it.Err(); err != nil {
		return err
	}
	for _, key := range changed {
		if items[key], err = c.z.sets[key].value([]byte(key)); err != nil {
			return err
		}
	}
	for _, key := range slices.Sorted(maps.Keys(items)) {
		value := items[key]
		if len(value) > zone.MaxValue {
			c.fault(fmt.Errorf("RRset longer than %d bytes", zone.MaxValue))
		}
		if len(value) > 0 {
			c.checker.Item([]byte(key), value)
		}
	}
	return nil
}

// lengths bounds RRsets that no other rule of the loader's concerns.
func (c *editCheck) lengths(changed []string) error {
	for _, key := range changed {
		value, err := c.z.sets[key].value([]byte(key))
		if err != nil {
			return err
		}
		if len(value) > zone.MaxValue {
			c.fault(fmt.Errorf("RRset longer than %d bytes", zone.MaxValue))
		}
	}
	return nil
}

// finish checks the apex and tells what is wrong.
func (c *editCheck) finish() error {
	for _, need := range []struct {
		t    zone.Type
		what string
	}{{zone.TypeSOA, "no SOA record at the apex"}, {zone.TypeNS, "no NS record at the apex"}} {
		value, err := c.z.now(zone.AppendKey(nil, zone.KindContents, c.z.apex, need.t))
		if err != nil {
			return err
		}
		if len(value) == 0 {
			c.fault(errors.New(need.what))
		}
		if need.t == zone.TypeSOA {
			c.soa = bytes.Clone(value)
		}
	}
	if c.faults.Total > 0 {
		return &c.faults
	}
	return nil
}

// now is the value of an item after the change; nil where there is none.
func (z *zoneEdit) now(key []byte) (zone.Value, error) {
	if set := z.sets[string(key)]; set != nil {
		return set.value(key)
	}
	return z.read.Get(key)
}
