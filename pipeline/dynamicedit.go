package pipeline

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/miekg/dns"

	"sluice/signer/zone"
	"sluice/xfr"
)

// updateError is an update that is answered with an RCODE.
type updateError struct {
	rcode int
	why   string // for people
}

func (u *updateError) Error() string {
	return fmt.Sprintf("%s: %s", dns.RcodeToString[u.rcode], u.why)
}

func updateRefused(rcode int, format string, args ...any) error {
	return &updateError{rcode, fmt.Sprintf(format, args...)}
}

// change is a record of the update section that is well formed and allowed. What
// it does follows from its class (RFC 2136, 2.5).
type change = xfr.UpdateRecord

// updateEdit applies updates to a loaded instance, each of them whole or not at
// all. It reads and holds the RRsets that they touch, nothing else of the zone.
type updateEdit struct {
	*zoneEdit
	policy Policy
	owners map[string][]string  // keys of sets by kind and owner
	undo   map[string]editedSet // what the present update changed, as it was
}

func (e *Engine) newUpdateEdit(s State, base uint64, p Policy) (*updateEdit, error) {
	apex, err := apexOf(s)
	if err != nil {
		return nil, err
	}
	z, err := e.newZoneEdit(s, base, apex, p)
	if err != nil {
		return nil, err
	}
	return &updateEdit{zoneEdit: z, policy: p, owners: map[string][]string{}, undo: map[string]editedSet{}}, nil
}

func (u *updateEdit) atApex(owner zone.Name) bool { return len(owner) == len(u.apex) }

// look finds an RRset as it stands now.
func (u *updateEdit) look(owner zone.Name, t zone.Type) (*editedSet, error) {
	u.key = zone.AppendKey(u.key[:0], zone.KindContents, owner, t)
	if set := u.sets[string(u.key)]; set != nil {
		return set, nil
	}
	value, err := u.read.Get(u.key)
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
	u.sets[string(u.key)] = set
	at := string(u.key[:len(u.key)-2])
	u.owners[at] = append(u.owners[at], string(u.key))
	return set, u.grow(len(u.key) + len(value) + editOverhead)
}

// touch finds an RRset that is about to change.
func (u *updateEdit) touch(owner zone.Name, t zone.Type) (*editedSet, error) {
	set, err := u.look(owner, t)
	if err != nil {
		return nil, err
	}
	if _, ok := u.undo[string(u.key)]; !ok {
		was := *set
		was.records = slices.Clone(set.records)
		u.undo[string(u.key)] = was
	}
	return set, nil
}

// types lists the types that a name has now.
func (u *updateEdit) types(owner zone.Name) ([]zone.Type, error) {
	prefix := zone.AppendOwnerKey([]byte{byte(zone.KindContents)}, owner)
	var types []zone.Type
	it := u.read.Walk(prefix)
	for it.Next() && bytes.HasPrefix(it.Key(), prefix) {
		types = append(types, typeOfKey(it.Key()))
	}
	if err := it.Err(); err != nil {
		return nil, err
	}
	for _, key := range u.owners[string(prefix)] {
		t, some := typeOfKey([]byte(key)), len(u.sets[key].records) > 0
		i := slices.Index(types, t)
		switch {
		case some && i < 0:
			types = append(types, t)
		case !some && i >= 0:
			types = slices.Delete(types, i, i+1)
		}
	}
	slices.Sort(types)
	return types, nil
}

func typeOfKey(key []byte) zone.Type { return zone.Type(binary.BigEndian.Uint16(key[len(key)-2:])) }

// require checks the prerequisites of an update (RFC 2136, 3.2). served is the
// serial that the zone is published with, where that stands for the contents as
// they are now.
func (u *updateEdit) require(prerequisites []xfr.UpdateRecord, served *zone.Serial) error {
	type wanted struct {
		owner zone.Name
		t     zone.Type
		data  [][]byte
	}
	var sets []wanted
	for _, rr := range prerequisites {
		switch {
		case rr.TTL != 0:
			return updateRefused(dns.RcodeFormatError, "prerequisite with a TTL")
		case !rr.Owner.Under(u.apex):
			return updateRefused(dns.RcodeNotZone, "prerequisite %s is not in the zone", rr.Owner)
		}
		switch rr.Class {
		case dns.ClassANY, dns.ClassNONE:
			if len(rr.RData) != 0 {
				return updateRefused(dns.RcodeFormatError, "prerequisite of class ANY or NONE with data")
			}
			if err := u.inUse(rr); err != nil {
				return err
			}
		case dns.ClassINET:
			i := slices.IndexFunc(sets, func(w wanted) bool { return w.t == rr.Type && w.owner.Equal(rr.Owner) })
			if i < 0 {
				i, sets = len(sets), append(sets, wanted{owner: rr.Owner, t: rr.Type})
			}
			sets[i].data = append(sets[i].data, rr.RData)
		default:
			return updateRefused(dns.RcodeFormatError, "prerequisite of class %d", rr.Class)
		}
	}
	for _, w := range sets {
		set, err := u.look(w.owner, w.t)
		if err != nil {
			return err
		}
		want := zone.SortRData(w.t, w.data)
		have := zone.SortRData(w.t, slices.Clone(set.records))
		same := slices.EqualFunc(want, have, func(a, b []byte) bool {
			return zone.CompareRData(w.t, a, b) == 0 || w.t == zone.TypeSOA && served != nil && sameSOA(a, b, *served)
		})
		if !same {
			return updateRefused(dns.RcodeNXRrset, "prerequisite: %s %s has other records", w.owner, w.t)
		}
	}
	return nil
}

// sameSOA reports whether an SOA is that of the contents under the serial that
// the zone is published with.
func sameSOA(asked, have []byte, served zone.Serial) bool {
	if len(asked) < 20 || len(asked) != len(have) || soaSerialOf(asked) != served {
		return false
	}
	return zone.CompareRData(zone.TypeSOA, withSerial(asked, soaSerialOf(have)), have) == 0
}

// soaSerialOf is the serial in SOA RDATA that was checked.
func soaSerialOf(rdata []byte) zone.Serial {
	return zone.Serial(binary.BigEndian.Uint32(rdata[len(rdata)-20:]))
}

// withSerial is SOA RDATA with another serial.
func withSerial(rdata []byte, serial zone.Serial) []byte {
	rdata = bytes.Clone(rdata)
	binary.BigEndian.PutUint32(rdata[len(rdata)-20:], uint32(serial))
	return rdata
}

// inUse checks a prerequisite that says whether a name, or an RRset, is there.
func (u *updateEdit) inUse(rr xfr.UpdateRecord) error {
	if rr.Type == zone.Type(dns.TypeANY) {
		types, err := u.types(rr.Owner)
		switch {
		case err != nil:
			return err
		case rr.Class == dns.ClassANY && len(types) == 0:
			return updateRefused(dns.RcodeNameError, "prerequisite: %s has no records", rr.Owner)
		case rr.Class == dns.ClassNONE && len(types) > 0:
			return updateRefused(dns.RcodeYXDomain, "prerequisite: %s has records", rr.Owner)
		}
		return nil
	}
	if err := zone.CheckType(rr.Type); err != nil {
		return updateRefused(dns.RcodeFormatError, "prerequisite of type %s", rr.Type)
	}
	set, err := u.look(rr.Owner, rr.Type)
	switch {
	case err != nil:
		return err
	case rr.Class == dns.ClassANY && len(set.records) == 0:
		return updateRefused(dns.RcodeNXRrset, "prerequisite: %s %s is not there", rr.Owner, rr.Type)
	case rr.Class == dns.ClassNONE && len(set.records) > 0:
		return updateRefused(dns.RcodeYXRrset, "prerequisite: %s %s is there", rr.Owner, rr.Type)
	}
	return nil
}

// prescan checks the form of an update section (RFC 2136, 3.4.1).
func (u *updateEdit) prescan(changes []xfr.UpdateRecord) error {
	for _, rr := range changes {
		if !rr.Owner.Under(u.apex) {
			return updateRefused(dns.RcodeNotZone, "%s is not in the zone", rr.Owner)
		}
		deletesAll := rr.Class == dns.ClassANY && rr.Type == zone.Type(dns.TypeANY)
		bad := !deletesAll && zone.CheckType(rr.Type) != nil
		switch rr.Class {
		case dns.ClassINET:
		case dns.ClassANY:
			bad = bad || rr.TTL != 0 || len(rr.RData) != 0
		case dns.ClassNONE:
			bad = bad || rr.TTL != 0 || rr.RData == nil
		default:
			bad = true
		}
		if bad {
			return updateRefused(dns.RcodeFormatError, "%s %s of class %d is no change", rr.Owner, rr.Type, rr.Class)
		}
	}
	return nil
}

// permit checks that rules allow what an update section changes.
func (u *updateEdit) permit(rules []UpdateRule, peer xfr.Peer, changes []xfr.UpdateRecord) error {
	for _, rr := range changes {
		if rr.Type != zone.Type(dns.TypeANY) {
			if err := u.mayChange(rules, peer, rr.Owner, rr.Type); err != nil {
				return err
			}
			continue
		}
		types, err := u.types(rr.Owner)
		if err != nil {
			return err
		}
		for _, t := range types {
			if u.atApex(rr.Owner) && (t == zone.TypeSOA || t == zone.TypeNS) {
				continue // these stay
			}
			if err := u.mayChange(rules, peer, rr.Owner, t); err != nil {
				return err
			}
		}
		if len(types) == 0 && !slices.ContainsFunc(rules, func(r UpdateRule) bool {
			return slices.ContainsFunc(r.Names, func(pattern string) bool { return nameAllowed(pattern, rr.Owner, u.apex, peer.Key) })
		}) {
			return updateRefused(dns.RcodeRefused, "no rule of loader.update lets key %s change %s", peer.Key, rr.Owner)
		}
	}
	return nil
}

func (u *updateEdit) mayChange(rules []UpdateRule, peer xfr.Peer, owner zone.Name, t zone.Type) error {
	if zone.SignersOwn(t, u.atApex(owner)) {
		return updateRefused(dns.RcodeRefused, "%s %s is made by the signer", owner, t)
	}
	if !allowed(rules, peer, owner, u.apex, t) {
		return updateRefused(dns.RcodeRefused, "no rule of loader.update lets key %s change %s %s", peer.Key, owner, t)
	}
	return nil
}

// try applies an update section (RFC 2136, 3.4.2) and checks what comes of it.
// Where that fails nothing has changed. served is the serial that the zone is
// published with, which a new one must be after, too; nil for none. It returns how
// many records come and go.
func (u *updateEdit) try(changes []change, served *zone.Serial) (added, removed uint64, err error) {
	clear(u.undo)
	for _, c := range changes {
		if err = u.apply(c, served); err != nil {
			break
		}
	}
	if err == nil {
		err = u.check()
	}
	if err != nil {
		for key, was := range u.undo {
			*u.sets[key] = was
		}
		return 0, 0, err
	}
	for key, was := range u.undo {
		before, err := was.value([]byte(key))
		if err != nil {
			return 0, 0, err
		}
		now, err := u.sets[key].value([]byte(key))
		if err != nil {
			return 0, 0, err
		}
		if bytes.Equal(before, now) {
			continue
		}
		gone, come := recordChanges(before, now)
		added, removed = added+come, removed+gone
	}
	return added, removed, nil
}

// check looks at the names that the present update changed as a load would.
func (u *updateEdit) check() error {
	c := newEditCheck(u.zoneEdit, "UPDATE", u.policy.Checks().Glue)
	names := map[string]bool{}
	for key := range u.undo {
		names[key[:len(key)-2]] = true
	}
	for _, at := range slices.Sorted(maps.Keys(names)) {
		if err := c.name(u.owners[at]); err != nil {
			return err
		}
	}
	if c.glue == zone.GlueRequire {
		if err := c.servers(); err != nil {
			return err
		}
	}
	if err := c.finish(); err != nil {
		faults, ok := errors.AsType[*zone.LoadError](err)
		if ok && len(faults.Errors) > 0 {
			return updateRefused(dns.RcodeRefused, "%v", faults.Errors[0].Err)
		}
		return err
	}
	return nil
}

// apply has one record of an update section its effect.
func (u *updateEdit) apply(c change, served *zone.Serial) error {
	switch c.Class {
	case dns.ClassINET:
		return u.put(c, served)
	case dns.ClassNONE:
		return u.removeRecord(c)
	}
	if c.Type != zone.Type(dns.TypeANY) {
		return u.removeSet(c.Owner, c.Type)
	}
	types, err := u.types(c.Owner)
	if err != nil {
		return err
	}
	for _, t := range types {
		if err := u.removeSet(c.Owner, t); err != nil {
			return err
		}
	}
	return nil
}

// removeSet removes an RRset; SOA and NS of the apex stay.
func (u *updateEdit) removeSet(owner zone.Name, t zone.Type) error {
	if u.atApex(owner) && (t == zone.TypeSOA || t == zone.TypeNS) {
		return nil
	}
	set, err := u.touch(owner, t)
	if err != nil {
		return err
	}
	set.records = nil
	return nil
}

// removeRecord removes a record that is there; the SOA and the last NS record of
// the apex stay.
func (u *updateEdit) removeRecord(c change) error {
	if c.Type == zone.TypeSOA {
		return nil
	}
	set, err := u.touch(c.Owner, c.Type)
	if err != nil {
		return err
	}
	i := set.find(c.Type, c.RData)
	if i < 0 || c.Type == zone.TypeNS && u.atApex(c.Owner) && len(set.records) == 1 {
		return nil
	}
	set.records = slices.Delete(set.records, i, i+1)
	return nil
}

// put adds a record, or replaces the one that it cannot stand beside. The RRset
// takes its TTL (RFC 2181, 5.2).
func (u *updateEdit) put(c change, served *zone.Serial) error {
	ttl, err := u.ttlOf(c)
	if err != nil {
		return err
	}
	if skip, err := u.ignored(c, served); skip || err != nil {
		return err
	}
	set, err := u.touch(c.Owner, c.Type)
	if err != nil {
		return err
	}
	if len(set.records) == 0 {
		set.owner = c.Owner
	}
	set.ttl, set.mixed = ttl, false
	if i := replacedBy(set, c); i >= 0 {
		if set.find(c.Type, c.RData) < 0 {
			set.records[i] = c.RData
		}
	} else {
		set.records = append(set.records, c.RData)
	}
	return u.grow(len(c.RData) + editOverhead)
}

// replacedBy is the record that one takes the place of; -1 for none.
func replacedBy(set *editedSet, c change) int {
	switch uint16(c.Type) {
	case dns.TypeSOA, dns.TypeCNAME, dns.TypeDNAME:
		return min(0, len(set.records)-1)
	case 11: // WKS: those of the same address and protocol (RFC 2136, 3.4.2.2)
		return slices.IndexFunc(set.records, func(d []byte) bool { return len(d) >= 5 && len(c.RData) >= 5 && bytes.Equal(d[:5], c.RData[:5]) })
	}
	return set.find(c.Type, c.RData)
}

// ttlOf is the TTL of a record that comes.
func (u *updateEdit) ttlOf(c change) (uint32, error) {
	ttl := c.TTL
	if ttl > 1<<31-1 {
		ttl = 0 // RFC 2181, 8
	}
	if u.ttl == 0 || ttl <= u.ttl {
		return ttl, nil
	}
	if !u.cut {
		return 0, updateRefused(dns.RcodeRefused, "%s %s: TTL %d is above the policy's limit of %d", c.Owner, c.Type, ttl, u.ttl)
	}
	return u.ttl, nil
}

// ignored reports whether a record that is to come is passed over (RFC 2136,
// 3.4.2.2): beside a CNAME, a CNAME beside others, and an SOA whose serial is not
// after that of the zone.
func (u *updateEdit) ignored(c change, served *zone.Serial) (bool, error) {
	if c.Type == zone.TypeSOA {
		if !u.atApex(c.Owner) {
			return true, nil
		}
		set, err := u.look(c.Owner, c.Type)
		if err != nil || len(set.records) == 0 {
			return false, err
		}
		serial := soaSerialOf(c.RData)
		return !soaSerialOf(set.records[0]).Before(serial) || served != nil && !served.Before(serial), nil
	}
	types, err := u.types(c.Owner)
	if err != nil {
		return false, err
	}
	beside := func(t zone.Type) bool {
		switch uint16(t) {
		case dns.TypeCNAME, dns.TypeKEY, dns.TypeSIG, dns.TypeNXT:
			return false // these may stand beside a CNAME, or are it
		}
		return true
	}
	if c.Type == zone.TypeCNAME {
		return slices.ContainsFunc(types, beside), nil
	}
	return beside(c.Type) && slices.Contains(types, zone.TypeCNAME), nil
}

// raise gives the zone a serial after that of its base, where something changed
// and no update set one.
func (u *updateEdit) raise(base zone.Serial) error {
	changed, err := u.changed()
	if err != nil {
		return err
	}
	set, err := u.look(u.apex, zone.TypeSOA)
	if err != nil || !changed || len(set.records) == 0 || base.Before(soaSerialOf(set.records[0])) {
		return err
	}
	set.records = [][]byte{withSerial(set.records[0], base+1)}
	return nil
}
