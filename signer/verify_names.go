package signer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"

	"sluice/signer/zone"
)

// standing is what a name is in its zone.
type standing int

const (
	authoritative standing = iota
	delegation
	occluded
	chainOnly // owns NSEC3 records alone
)

// endGroup judges a name, all its items being known.
func (v *verifier) endGroup() error {
	g := &v.group
	apex := bytes.Equal(g.ownerKey, v.apexKey)
	if apex {
		v.readApex()
		if err := v.denial.hashes.ready(v); err != nil {
			return err
		}
	}
	if err := v.zonemd.feed(g); err != nil {
		return err
	}
	is := v.denial.standing(g, apex)
	v.judgeSets(is, apex)
	if err := v.pool.next(); err != nil {
		return err
	}
	if is == occluded || is == chainOnly || v.unsigned {
		v.denial.noNSEC(v)
		return v.chainRecords()
	}
	if err := v.denial.name(v, is); err != nil {
		return err
	}
	return v.chainRecords()
}

// judgeSets hands each RRset of the present name with its RRSIGs to the pool.
func (v *verifier) judgeSets(is standing, apex bool) {
	g := &v.group
	for i := range g.items {
		it := &g.items[i]
		v.seq++
		if it.kind == zone.KindSigs || it.kind == zone.KindChainSigs {
			if !v.coversNext(i) {
				v.fault(it.typ, RuleOrphan, "RRSIG over an RRset that is not there")
			}
			v.pool.hash(g, it, false)
			v.report.Records += uint64(g.value(it).Count())
			v.report.Signatures += uint64(g.value(it).Count())
			continue
		}
		v.report.RRsets++
		v.report.Records += uint64(g.value(it).Count())
		if it.typ == zone.TypeRRSIG || it.typ == zone.TypeNSEC3 && it.kind != zone.KindChain {
			v.fault(it.typ, RuleApex, "a record of this type does not stand among the contents")
		}
		content := it.kind != zone.KindChain && !zone.SignersOwn(it.typ, apex)
		v.pool.hash(g, it, content)
		signed := is == authoritative || it.kind == zone.KindChain ||
			is == delegation && (it.typ == zone.TypeDS || it.typ == zone.TypeNSEC)
		var sigs *groupItem
		if i+1 < len(g.items) && coveredBy(it, &g.items[i+1]) {
			sigs = &g.items[i+1]
		}
		switch {
		case !signed && sigs != nil:
			v.fault(it.typ, RuleGlue, "RRSIG over data that is not authoritative")
		case signed && !v.unsigned && !(apex && it.typ == zone.TypeDNSKEY):
			v.pool.check(v, it, sigs)
		}
	}
}

// coversNext reports whether the RRSIGs at i follow their RRset.
func (v *verifier) coversNext(i int) bool {
	return i > 0 && coveredBy(&v.group.items[i-1], &v.group.items[i])
}

// coveredBy reports whether sigs are the RRSIGs of an RRset, in the order of
// zone.Merge next to it.
func coveredBy(set, sigs *groupItem) bool {
	if set.typ != sigs.typ {
		return false
	}
	if sigs.kind == zone.KindChainSigs {
		return set.kind == zone.KindChain
	}
	return sigs.kind == zone.KindSigs && (set.kind == zone.KindContents || set.kind == zone.KindMade)
}

// decodeTypes reads a type bitmap (RFC 4034, 4.1.2) and demands its one
// correct form.
func decodeTypes(dst []zone.Type, b []byte) ([]zone.Type, error) {
	window := -1
	for len(b) > 0 {
		if len(b) < 3 || int(b[0]) <= window || b[1] == 0 || b[1] > 32 || len(b) < 2+int(b[1]) {
			return dst, errors.New("malformed type bitmap")
		}
		window = int(b[0])
		bits := b[2 : 2+int(b[1])]
		if bits[len(bits)-1] == 0 {
			return dst, errors.New("type bitmap with zero bytes at the end")
		}
		for i, octet := range bits {
			for bit := range 8 {
				if octet&(0x80>>bit) != 0 {
					dst = append(dst, zone.Type(window<<8|i<<3|bit))
				}
			}
		}
		b = b[2+len(bits):]
	}
	return dst, nil
}

// denialCheck follows the denial chain through the names.
type denialCheck struct {
	nsec3       bool
	ttl         uint32 // that denial records should have
	ttlSeen     bool
	below       []byte // owner key prefix below which all is occluded
	hidden      bool   // below is set
	nextKey     []byte // NSEC: owner key that the last record names next
	hasNext     bool
	last        zone.Name // NSEC: the last name with a record
	types, want []zone.Type
	hashes      hashCheck
}

// standing finds out what the present name is.
func (d *denialCheck) standing(g *group, apex bool) standing {
	if d.hidden && bytes.HasPrefix(g.ownerKey, d.below) {
		return occluded
	}
	d.hidden = false
	chain, cut, dname := true, false, false
	for i := range g.items {
		it := &g.items[i]
		if it.kind != zone.KindContents && it.kind != zone.KindMade {
			continue
		}
		chain = false
		cut = cut || it.typ == zone.TypeNS && !apex
		dname = dname || it.typ == zone.TypeDNAME
	}
	if chain {
		return chainOnly
	}
	if cut || dname {
		d.hidden = true
		d.below = append(d.below[:0], g.ownerKey[:len(g.ownerKey)-1]...)
	}
	if cut {
		return delegation
	}
	return authoritative
}

// noNSEC reports an NSEC record where none belongs.
func (d *denialCheck) noNSEC(v *verifier) {
	if v.group.find(zone.TypeNSEC) != nil && !v.unsigned {
		v.fault(zone.TypeNSEC, RuleChain, "NSEC at a name that is not authoritative")
	}
}

// expected lists, in d.want, the types that a denial record must show.
func (d *denialCheck) expected(g *group, is standing) {
	d.want = d.want[:0]
	signed := false
	for i := range g.items {
		it := &g.items[i]
		if it.kind != zone.KindContents && it.kind != zone.KindMade {
			continue
		}
		if is == delegation && it.typ != zone.TypeNS && it.typ != zone.TypeDS && it.typ != zone.TypeNSEC {
			continue
		}
		d.want = append(d.want, it.typ)
		signed = signed || is == authoritative || it.typ != zone.TypeNS
	}
	if signed {
		d.want = append(d.want, zone.TypeRRSIG)
	}
	slices.Sort(d.want)
}

// name checks the denial record of a name that is authoritative or a
// delegation.
func (d *denialCheck) name(v *verifier, is standing) error {
	g := &v.group
	nsec := g.find(zone.TypeNSEC)
	d.expected(g, is)
	if d.nsec3 {
		if nsec != nil {
			v.fault(zone.TypeNSEC, RuleChain, "NSEC in a zone with NSEC3")
		}
		return d.hashes.name(v, is)
	}
	if d.hasNext && !bytes.Equal(d.nextKey, g.ownerKey) {
		v.faultAt(d.last, zone.TypeNSEC, RuleChain, "next name is not %v", zone.Name(g.name))
	}
	d.hasNext = false
	if nsec == nil {
		v.fault(zone.TypeNSEC, RuleChain, "no NSEC record")
		return nil
	}
	d.last = zone.Name(g.name)
	d.checkTTL(v, nsec.TTL())
	if nsec.Count() != 1 {
		v.fault(zone.TypeNSEC, RuleChain, "%d NSEC records, want 1", nsec.Count())
		return nil
	}
	for rdata := range nsec.Records() {
		d.record(v, rdata)
	}
	return nil
}

// record takes one NSEC record's RDATA.
func (d *denialCheck) record(v *verifier, rdata []byte) {
	n, err := zone.NameLength(rdata)
	if err != nil {
		v.fault(zone.TypeNSEC, RuleChain, "next name: %v", err)
		return
	}
	d.nextKey, d.hasNext = zone.AppendOwnerKey(d.nextKey[:0], zone.Name(rdata[:n])), true
	if d.types, err = decodeTypes(d.types[:0], rdata[n:]); err != nil {
		v.fault(zone.TypeNSEC, RuleBitmap, "%v", err)
		return
	}
	if !slices.Equal(d.types, d.want) {
		v.fault(zone.TypeNSEC, RuleBitmap, "shows %v, want %v", d.types, d.want)
	}
}

// checkTTL compares a denial record's TTL with RFC 9077, 3.
func (d *denialCheck) checkTTL(v *verifier, ttl uint32) {
	if ttl != d.ttl && !d.ttlSeen {
		d.ttlSeen = true
		v.notice("denial records have a TTL of %d, RFC 9077 wants %d", ttl, d.ttl)
	}
}

// finish closes the chain.
func (d *denialCheck) finish(v *verifier) error {
	v.seq++
	switch {
	case v.unsigned:
		return nil
	case d.nsec3:
		return d.hashes.finish(v)
	case d.hasNext && !bytes.Equal(d.nextKey, v.apexKey):
		v.faultAt(d.last, zone.TypeNSEC, RuleChain, "the last NSEC does not lead to the apex")
	}
	return nil
}

func (d *denialCheck) close() error {
	if d.hashes.sorter == nil {
		return nil
	}
	return d.hashes.sorter.Close()
}

// nsec3Fields takes NSEC3 RDATA apart (RFC 5155, 3.2).
type nsec3Fields struct {
	flags      byte
	iterations uint16
	salt       []byte
	next       []byte
	bitmap     []byte
}

func parseNSEC3(rdata []byte) (f nsec3Fields, err error) {
	bad := errors.New("malformed NSEC3 RDATA")
	if len(rdata) < 6 {
		return f, bad
	}
	if rdata[0] != 1 {
		return f, errors.New("unknown NSEC3 hash algorithm")
	}
	f.flags, f.iterations = rdata[1], binary.BigEndian.Uint16(rdata[2:])
	n := int(rdata[4])
	if len(rdata) < 5+n+1 {
		return f, bad
	}
	f.salt, rdata = rdata[5:5+n], rdata[5+n:]
	n = int(rdata[0])
	if n != 20 || len(rdata) < 1+n {
		return f, bad
	}
	f.next, f.bitmap = rdata[1:1+n], rdata[1+n:]
	return f, nil
}
