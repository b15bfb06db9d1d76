package chain

import (
	"crypto"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"sluice/signer/zone"
)

// testKey is a key of a zone of the tests.
type testKey struct {
	*dns.DNSKEY
	signer    crypto.Signer
	signsKeys bool
	signsZone bool
	hidden    bool // not in the DNSKEY RRset
}

func newKey(t testing.TB, apex string, flags uint16, algorithm uint8) *testKey {
	t.Helper()
	k := &testKey{signsKeys: flags&1 != 0, signsZone: flags&1 == 0, DNSKEY: &dns.DNSKEY{
		Hdr:   dns.RR_Header{Name: apex, Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 3600},
		Flags: flags, Protocol: 3, Algorithm: algorithm,
	}}
	bits := 256
	switch algorithm {
	case dns.RSASHA1, dns.RSASHA256, dns.RSASHA512:
		bits = 1024
	case dns.ECDSAP384SHA384:
		bits = 384
	}
	private, err := k.Generate(bits)
	if err != nil {
		t.Fatal(err)
	}
	k.signer = private.(crypto.Signer)
	return k
}

// testZone is a zone that a test makes, signs and spoils.
type testZone struct {
	t          testing.TB
	apex       string
	keys       []*testKey
	unsigned   bool
	nsec3      bool
	optOut     bool
	iterations uint16
	compact    bool // absence is proven as RFC 9824 says, by answers signed as they are asked for
	serial     uint32
	from, to   time.Time // of signatures
	plain      []dns.RR
	// signing changes a signature before it is made; false leaves it out.
	signing func(sig *dns.RRSIG) bool
	// denying changes an NSEC or NSEC3 before it is signed.
	denying func(rr dns.RR)

	sets  map[string]map[uint16][]dns.RR // once built: by owner and type, signatures among them
	order []string                       // owners that NSEC or NSEC3 are of
}

func newZone(t testing.TB, apex string, lines ...string) *testZone {
	t.Helper()
	z := &testZone{t: t, apex: apex, serial: 7, from: time.Now().Add(-time.Hour), to: time.Now().Add(30 * 24 * time.Hour)}
	z.keys = []*testKey{newKey(t, apex, 257, dns.ECDSAP256SHA256), newKey(t, apex, 256, dns.ECDSAP256SHA256)}
	z.add(lines...)
	return z
}

func (z *testZone) add(lines ...string) {
	z.t.Helper()
	for _, line := range lines {
		rr, err := dns.NewRR(line)
		if err != nil {
			z.t.Fatalf("%s: %v", line, err)
		}
		z.plain = append(z.plain, rr)
	}
}

func (z *testZone) drop(name string, t uint16) {
	z.plain = slices.DeleteFunc(z.plain, func(rr dns.RR) bool { return rr.Header().Name == name && rr.Header().Rrtype == t })
}

// ds are the DS records of the zone's first keys.
func (z *testZone) ds() string { return z.keys[0].ToDS(dns.SHA256).String() }

func ownerKey(name string) string {
	n, err := zone.ParseName(name)
	if err != nil {
		panic(err)
	}
	return string(zone.AppendOwnerKey(nil, n))
}

func above(name string) string {
	if i := strings.IndexByte(name, '.'); i >= 0 && i+1 < len(name) {
		return name[i+1:]
	}
	return "."
}

// cutOf is the delegation at or above a name; "" where there is none.
func (z *testZone) cutOf(name string) (cut string) {
	for ; name != z.apex && name != "."; name = above(name) {
		if len(z.sets[name][dns.TypeNS]) > 0 {
			cut = name
		}
	}
	return cut
}

// build signs the zone and makes its denial chain.
func (z *testZone) build() {
	z.t.Helper()
	z.sets = map[string]map[uint16][]dns.RR{}
	put := func(rr dns.RR) {
		h := rr.Header()
		h.Name = strings.ToLower(h.Name)
		if z.sets[h.Name] == nil {
			z.sets[h.Name] = map[uint16][]dns.RR{}
		}
		z.sets[h.Name][h.Rrtype] = append(z.sets[h.Name][h.Rrtype], rr)
	}
	soa, err := dns.NewRR(fmt.Sprintf("%s 3600 IN SOA ns1.%s h. %d 3600 600 604800 300", z.apex, strings.TrimPrefix(z.apex, "."), z.serial))
	if err != nil {
		z.t.Fatal(err)
	}
	put(soa)
	for _, rr := range z.plain {
		put(dns.Copy(rr))
	}
	if z.unsigned {
		return
	}
	for _, k := range z.keys {
		if !k.hidden {
			put(k.DNSKEY)
		}
	}
	z.deny(put)
	for owner, sets := range z.sets {
		cut := z.cutOf(owner)
		for t, set := range sets {
			if cut == "" || cut == owner && (t == dns.TypeDS || t == dns.TypeNSEC) || t == dns.TypeNSEC3 {
				sets[t] = z.sign(set)
			}
		}
	}
}

// deny makes the NSEC or NSEC3 chain.
func (z *testZone) deny(put func(dns.RR)) {
	z.order = nil
	names := map[string]bool{}
	for owner := range z.sets {
		if cut := z.cutOf(owner); cut != "" && cut != owner {
			continue
		}
		if z.nsec3 && z.optOut && z.cutOf(owner) == owner && len(z.sets[owner][dns.TypeDS]) == 0 {
			continue
		}
		names[owner] = true
		if z.nsec3 {
			for up := owner; up != z.apex; up = above(up) {
				names[up] = true
			}
		}
	}
	byKey := map[string]string{}
	for name := range names {
		key := ownerKey(name)
		if z.nsec3 {
			key = dns.HashName(name, dns.SHA1, z.iterations, "")
		}
		byKey[key] = name
		z.order = append(z.order, key)
	}
	slices.Sort(z.order)
	var made []dns.RR
	for i, key := range z.order {
		name, next := byKey[key], z.order[(i+1)%len(z.order)]
		types := []uint16{}
		for t := range z.sets[name] {
			types = append(types, t)
		}
		hdr := dns.RR_Header{Name: name, Class: dns.ClassINET, Ttl: 300}
		if len(types) > 0 && (z.cutOf(name) == "" || len(z.sets[name][dns.TypeDS]) > 0 || !z.nsec3) {
			types = append(types, dns.TypeRRSIG)
		}
		if z.nsec3 {
			slices.Sort(types)
			hdr.Rrtype, hdr.Name = dns.TypeNSEC3, strings.ToLower(key)+"."+strings.TrimPrefix(z.apex, ".")
			flags := uint8(0)
			if z.optOut {
				flags = 1
			}
			made = append(made, &dns.NSEC3{Hdr: hdr, Hash: dns.SHA1, Flags: flags, Iterations: z.iterations, HashLength: 20, NextDomain: next, TypeBitMap: types})
			continue
		}
		types = append(types, dns.TypeNSEC)
		slices.Sort(types)
		hdr.Rrtype = dns.TypeNSEC
		made = append(made, &dns.NSEC{Hdr: hdr, NextDomain: byKey[next], TypeBitMap: types})
	}
	for _, rr := range made {
		if z.denying != nil {
			z.denying(rr)
		}
		put(rr)
	}
}

// sign adds the signatures over a set.
func (z *testZone) sign(set []dns.RR) []dns.RR {
	z.t.Helper()
	out := slices.Clone(set)
	for _, k := range z.keys {
		if keys := set[0].Header().Rrtype == dns.TypeDNSKEY; keys && !k.signsKeys || !keys && !k.signsZone {
			continue
		}
		sig := &dns.RRSIG{
			Hdr:       dns.RR_Header{Ttl: set[0].Header().Ttl},
			Inception: uint32(z.from.Unix()), Expiration: uint32(z.to.Unix()), TypeCovered: set[0].Header().Rrtype,
			KeyTag: k.KeyTag(), SignerName: z.apex, Algorithm: k.Algorithm,
		}
		sig.Hdr.Name = set[0].Header().Name
		if z.signing != nil && !z.signing(sig) {
			continue
		}
		if err := sig.Sign(k.signer, set); err != nil {
			z.t.Fatal(err)
		}
		out = append(out, sig)
	}
	return out
}

// answer answers a question as RFC 1034, 4.3.2 and RFC 4035, 3.1 say.
func (z *testZone) answer(m *dns.Msg, q dns.Question) {
	name := strings.ToLower(q.Name)
	m.Authoritative = true
	if cut := z.cutOf(name); cut != "" && (cut != name || q.Qtype != dns.TypeDS) {
		m.Authoritative = false
		m.Ns = append(m.Ns, z.sets[cut][dns.TypeNS]...)
		if ds := z.sets[cut][dns.TypeDS]; len(ds) > 0 {
			m.Ns = append(m.Ns, ds...)
		} else {
			m.Ns = append(m.Ns, z.noData(cut)...)
		}
		for _, rr := range z.sets[cut][dns.TypeNS] {
			if ns, ok := rr.(*dns.NS); ok {
				m.Extra = append(append(m.Extra, z.sets[ns.Ns][dns.TypeA]...), z.sets[ns.Ns][dns.TypeAAAA]...)
			}
		}
		return
	}
	if z.exists(name) {
		z.answerAt(m, name, name, q)
		return
	}
	if z.rename(m, name) {
		return
	}
	closest := name
	for !z.exists(closest) {
		closest = above(closest)
	}
	wild := "*." + strings.TrimPrefix(closest, ".")
	if z.compact {
		z.answerCompact(m, wild, name, q)
		return
	}
	if z.exists(wild) {
		z.answerAt(m, wild, name, q)
		m.Ns = append(m.Ns, z.cover(next(name, closest))...)
		if len(m.Answer) == 0 && z.nsec3 {
			m.Ns = append(m.Ns, z.match(closest)...)
		}
		return
	}
	m.Rcode = dns.RcodeNameError
	m.Ns = append(m.Ns, z.sets[z.apex][dns.TypeSOA]...)
	if z.unsigned {
		return
	}
	if z.nsec3 {
		m.Ns = append(m.Ns, z.match(closest)...)
		m.Ns = append(m.Ns, z.cover(next(name, closest))...)
	} else {
		m.Ns = append(m.Ns, z.cover(name)...)
	}
	m.Ns = append(m.Ns, z.cover(wild)...)
}

// next is the name one label below the closest that exists.
func next(name, closest string) string {
	for above(name) != closest {
		name = above(name)
	}
	return name
}

func (z *testZone) exists(name string) bool {
	if len(z.sets[name]) > 0 || name == z.apex {
		return true
	}
	for owner := range z.sets {
		if strings.HasSuffix(owner, "."+name) && len(z.sets[owner][dns.TypeNSEC3]) == 0 {
			return true
		}
	}
	return false
}

// answerAt answers from the sets of an owner, in the name that was asked for.
func (z *testZone) answerAt(m *dns.Msg, owner, name string, q dns.Question) {
	set := z.sets[owner][q.Qtype]
	if len(set) == 0 {
		set = z.sets[owner][dns.TypeCNAME]
	}
	if len(set) == 0 {
		m.Ns = append(m.Ns, z.sets[z.apex][dns.TypeSOA]...)
		m.Ns = append(m.Ns, z.noData(owner)...)
		return
	}
	for _, rr := range set {
		rr = dns.Copy(rr)
		rr.Header().Name = name
		m.Answer = append(m.Answer, rr)
	}
}

// noData proves that an owner does not have a type.
func (z *testZone) noData(owner string) []dns.RR {
	if z.unsigned {
		return nil
	}
	if z.compact {
		return z.nsecAt(owner, z.typesAt(owner)...)
	}
	if got := z.match(owner); got != nil {
		return got
	}
	if !z.nsec3 {
		return z.cover(owner)
	}
	closest := above(owner)
	for z.match(closest) == nil {
		closest = above(closest)
	}
	return append(z.match(closest), z.cover(next(owner, closest))...)
}

// match is the NSEC or NSEC3 of a name.
func (z *testZone) match(name string) []dns.RR {
	if z.nsec3 {
		return z.sets[strings.ToLower(dns.HashName(name, dns.SHA1, z.iterations, ""))+"."+strings.TrimPrefix(z.apex, ".")][dns.TypeNSEC3]
	}
	return z.sets[name][dns.TypeNSEC]
}

// cover is the NSEC or NSEC3 before a name.
func (z *testZone) cover(name string) []dns.RR {
	if z.unsigned {
		return nil
	}
	key := ownerKey(name)
	if z.nsec3 {
		key = dns.HashName(name, dns.SHA1, z.iterations, "")
	}
	at := z.order[len(z.order)-1]
	for _, k := range z.order {
		if k < key {
			at = k
		}
	}
	if z.nsec3 {
		return z.sets[strings.ToLower(at)+"."+strings.TrimPrefix(z.apex, ".")][dns.TypeNSEC3]
	}
	for owner := range z.sets {
		if ownerKey(owner) == at {
			return z.sets[owner][dns.TypeNSEC]
		}
	}
	return nil
}
