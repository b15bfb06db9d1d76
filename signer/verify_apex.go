package signer

import (
	"bytes"
	"encoding/binary"
	"slices"

	"sluice/signer/zone"
)

// verifyKeys is the DNSKEY RRset.
type verifyKeys struct {
	all        []*publicKey
	algorithms []uint8      // each must sign every RRset (RFC 4035, 2.2)
	also       []*publicKey // keys that may sign unpublished
	unknown    []sigKey     // published keys that cannot be used
	signing    []*publicKey // those that validly sign the DNSKEY RRset
}

// sigKey is what an RRSIG says about its key.
type sigKey struct {
	alg uint8
	tag uint16
}

// find appends the keys that an RRSIG's algorithm and tag name.
func (k *verifyKeys) find(dst []*publicKey, alg uint8, tag uint16) []*publicKey {
	for _, p := range k.all {
		if p.alg == alg && p.tag == tag && p.flags&flagZone != 0 {
			dst = append(dst, p)
		}
	}
	for _, p := range k.also {
		if p.alg == alg && p.tag == tag {
			dst = append(dst, p)
		}
	}
	return dst
}

// readApex takes from the apex what all other checks need.
func (v *verifier) readApex() {
	g := &v.group
	v.readSOA(g)
	if g.find(zone.TypeNS) == nil {
		v.fault(zone.TypeNS, RuleApex, "no NS records")
	}
	v.readKeys(g)
	v.readDenial(g)
	v.checkCDS(g)
	v.zonemd = v.newZONEMDCheck(g)
}

func (v *verifier) readSOA(g *group) {
	soa := g.find(zone.TypeSOA)
	if soa == nil || soa.Count() != 1 {
		v.fault(zone.TypeSOA, RuleApex, "not one SOA record")
		return
	}
	for rdata := range soa.Records() {
		at, minimum, err := soaFields(rdata)
		if err != nil {
			v.fault(zone.TypeSOA, RuleApex, "%v", err)
			return
		}
		v.report.Serial = zone.Serial(binary.BigEndian.Uint32(rdata[at:]))
		v.denial.ttl = min(soa.TTL(), minimum)
	}
}

// readKeys reads the DNSKEY RRset and checks who signs it.
func (v *verifier) readKeys(g *group) {
	dnskey := g.find(zone.TypeDNSKEY)
	if dnskey == nil {
		v.unsigned = true
		v.fault(zone.TypeDNSKEY, RuleApex, "no DNSKEY records: the zone is not signed")
		return
	}
	for rdata := range dnskey.Records() {
		v.report.Keys++
		k, err := parsePublicKey(bytes.Clone(rdata))
		if err != nil {
			v.notice("DNSKEY %d: %v; its RRSIGs are not checked", zone.KeyTag(rdata), err)
			if len(rdata) >= 4 {
				v.keys.unknown = append(v.keys.unknown, sigKey{rdata[3], zone.KeyTag(rdata)})
			}
			continue
		}
		v.keys.all = append(v.keys.all, k)
		if k.flags&flagZone != 0 && k.flags&flagRevoke == 0 && !slices.Contains(v.keys.algorithms, k.alg) {
			v.keys.algorithms = append(v.keys.algorithms, k.alg)
		}
	}
	if len(v.keys.algorithms) == 0 {
		v.unsigned = true
		v.fault(zone.TypeDNSKEY, RuleApex, "no DNSKEY record of a supported algorithm")
		return
	}
	for i := range g.items {
		if it := &g.items[i]; it.typ == zone.TypeDNSKEY && i+1 < len(g.items) && coveredBy(it, &g.items[i+1]) {
			v.checkTrust(it, &g.items[i+1])
			return
		}
	}
	v.fault(zone.TypeDNSKEY, RuleUnsigned, "no RRSIG")
}

// checkTrust verifies the DNSKEY RRset at once and demands that an anchor, or
// a SEP key where there is none, signs it.
func (v *verifier) checkTrust(set, sigs *groupItem) {
	w := v.pool.aside
	w.judge(&checkJob{
		seq: v.seq, typ: zone.TypeDNSKEY, owner: v.group.name,
		value: v.group.value(set), sigs: v.group.value(sigs), full: true,
	}, func(k *publicKey) { v.keys.signing = append(v.keys.signing, k) })
	hasSEP := slices.ContainsFunc(v.keys.all, func(k *publicKey) bool { return k.flags&1 == 1 && k.flags&flagRevoke == 0 })
	for _, k := range v.keys.signing {
		if k.flags&flagRevoke != 0 {
			continue
		}
		if len(v.opts.Anchors) == 0 && (k.flags&1 == 1 || !hasSEP) {
			return
		}
		for _, a := range v.opts.Anchors {
			if a.matches(v.apex, k.rdata) {
				return
			}
		}
	}
	if len(v.opts.Anchors) > 0 {
		v.fault(zone.TypeDNSKEY, RuleTrust, "not signed by a key that a trust anchor stands for")
		return
	}
	v.fault(zone.TypeDNSKEY, RuleTrust, "not signed by a key with the SEP flag")
}

// matches reports whether the anchor stands for a key.
func (a Anchor) matches(apex zone.Name, dnskey []byte) bool {
	if a.Type == zone.TypeDNSKEY {
		return bytes.Equal(a.RData, dnskey)
	}
	if a.Type != zone.TypeDS || len(a.RData) < 4 {
		return false
	}
	ds, err := dsRData(apex, dnskey, a.RData[3])
	return err == nil && bytes.Equal(ds, a.RData)
}

// readDenial finds out which denial chain the zone has.
func (v *verifier) readDenial(g *group) {
	param := g.find(zone.TypeNSEC3PARAM)
	v.report.Denial = NSEC
	if param == nil {
		return
	}
	v.denial.nsec3 = true
	v.report.Denial = NSEC3
	for rdata := range param.Records() {
		if len(rdata) < 5 || rdata[0] != 1 || rdata[1] != 0 || len(rdata) != 5+int(rdata[4]) {
			v.fault(zone.TypeNSEC3PARAM, RuleChain, "malformed or of an unknown algorithm or with flags")
			continue
		}
		iterations := binary.BigEndian.Uint16(rdata[2:])
		if v.denial.hashes.begun {
			v.fault(zone.TypeNSEC3PARAM, RuleChain, "more than one NSEC3PARAM record")
			return
		}
		v.denial.hashes.begin(iterations, rdata[5:])
		if iterations > 0 {
			v.notice("NSEC3 with %d iterations, RFC 9276 wants 0", iterations)
		}
		if rdata[4] > 0 {
			v.notice("NSEC3 with a salt, RFC 9276 wants none")
		}
	}
}

// checkCDS compares CDS and CDNSKEY with the DNSKEY RRset (RFC 7344, 4): what
// they name must be published, and both must name the same keys. The DS RRset
// that follows must validate the DNSKEY RRset: one of the keys signs it, and
// each of their algorithms does. Others may be another signer's (RFC 8901, 6).
func (v *verifier) checkCDS(g *group) {
	if v.unsigned {
		return
	}
	cds, cdnskey := g.find(zone.TypeCDS), g.find(zone.TypeCDNSKEY)
	byCDS, byCDNSKEY := map[*publicKey]bool{}, map[*publicKey]bool{}
	if cds != nil {
		for rdata := range cds.Records() {
			if bytes.Equal(rdata, []byte{0, 0, 0, 0, 0}) {
				continue // RFC 8078, 4: remove the DS
			}
			v.matchCDS(zone.TypeCDS, byCDS, func(k *publicKey) bool { return Anchor{zone.TypeDS, rdata}.matches(v.apex, k.rdata) })
		}
	}
	if cdnskey != nil {
		for rdata := range cdnskey.Records() {
			if bytes.Equal(rdata, []byte{0, 0, 3, 0, 0}) {
				continue
			}
			v.matchCDS(zone.TypeCDNSKEY, byCDNSKEY, func(k *publicKey) bool { return bytes.Equal(rdata, k.rdata) })
		}
	}
	v.checkNamed(zone.TypeCDS, byCDS)
	v.checkNamed(zone.TypeCDNSKEY, byCDNSKEY)
	if cds == nil || cdnskey == nil {
		return
	}
	for _, k := range v.keys.all {
		if byCDS[k] != byCDNSKEY[k] {
			v.fault(zone.TypeCDS, RuleCDS, "CDS and CDNSKEY do not name the same keys: %v", k)
		}
	}
}

func (v *verifier) matchCDS(t zone.Type, named map[*publicKey]bool, matches func(*publicKey) bool) {
	for _, k := range v.keys.all {
		if matches(k) {
			named[k] = true
			return
		}
	}
	v.fault(t, RuleCDS, "names a key that is not in the DNSKEY RRset, or by an unsupported digest")
}

// checkNamed checks that a DS RRset of the named keys would validate.
func (v *verifier) checkNamed(t zone.Type, named map[*publicKey]bool) {
	if len(named) == 0 {
		return
	}
	signs := false
	for _, k := range v.keys.all {
		if !named[k] {
			continue
		}
		signs = signs || slices.Contains(v.keys.signing, k)
		if !slices.ContainsFunc(v.keys.signing, func(o *publicKey) bool { return o.alg == k.alg }) {
			v.fault(t, RuleCDS, "names %v, of an algorithm that does not sign the DNSKEY RRset", k)
		}
	}
	if !signs {
		v.fault(t, RuleCDS, "names no key that signs the DNSKEY RRset")
	}
}

// zonemdCheck digests the zone for its ZONEMD records (RFC 8976, 4).
type zonemdCheck struct {
	hashes [3]*zonemdHash // by hash algorithm; nil: not wanted
	want   [3][]byte
}

// newZONEMDCheck reads the ZONEMD RRset; nil means that there is nothing to
// verify.
func (v *verifier) newZONEMDCheck(g *group) *zonemdCheck {
	set := g.find(zone.TypeZONEMD)
	if set == nil {
		return nil
	}
	z := &zonemdCheck{}
	usable := false
	seen := map[[2]byte]bool{}
	for rdata := range set.Records() {
		if len(rdata) < 6+12 {
			v.fault(zone.TypeZONEMD, RuleZONEMD, "malformed RDATA")
			continue
		}
		scheme, algorithm := rdata[4], rdata[5]
		pair := [2]byte{scheme, algorithm}
		if seen[pair] {
			v.fault(zone.TypeZONEMD, RuleZONEMD, "two records with scheme %d and hash %d", scheme, algorithm)
			continue
		}
		seen[pair] = true
		if serial := zone.Serial(binary.BigEndian.Uint32(rdata)); serial != v.report.Serial {
			v.fault(zone.TypeZONEMD, RuleZONEMD, "serial %d, the SOA has %d", serial, v.report.Serial)
			continue
		}
		if scheme != zonemdSimple || algorithm != zonemdSHA384 && algorithm != zonemdSHA512 {
			v.notice("ZONEMD with scheme %d and hash %d is not supported", scheme, algorithm)
			continue
		}
		usable = true
		z.hashes[algorithm] = newZONEMDHash(algorithm, v.apexKey)
		z.want[algorithm] = bytes.Clone(rdata[6:])
	}
	if !usable {
		return nil
	}
	return z
}

// feed takes the items of a name.
func (z *zonemdCheck) feed(g *group) error {
	if z == nil {
		return nil
	}
	for _, h := range z.hashes {
		if h == nil {
			continue
		}
		for i := range g.items {
			it := &g.items[i]
			if err := h.add(g.bytes(it.key), g.value(it)); err != nil {
				return err
			}
		}
	}
	return nil
}

// finish compares the digests; one that fits is enough (RFC 8976, 4).
func (z *zonemdCheck) finish(v *verifier) {
	if z == nil {
		return
	}
	for algorithm, h := range z.hashes {
		if h == nil {
			continue
		}
		if bytes.Equal(h.sum(), z.want[algorithm]) {
			v.report.ZONEMD = true
			continue
		}
		v.faultAt(v.apex, zone.TypeZONEMD, RuleZONEMD, "the digest of hash %d does not fit the zone", algorithm)
	}
}
