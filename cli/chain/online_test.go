package chain

import (
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// rename answers for a name below a DNAME as RFC 6672, 3.2 says: with the CNAME
// that it makes, which nobody signs.
func (z *testZone) rename(m *dns.Msg, name string) bool {
	for owner := above(name); dns.IsSubDomain(z.apex, owner) && owner != "."; owner = above(owner) {
		set := z.sets[owner][dns.TypeDNAME]
		if len(set) == 0 {
			continue
		}
		target := strings.TrimSuffix(name, owner) + set[0].(*dns.DNAME).Target
		m.Answer = append(slices.Clone(set), &dns.CNAME{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeCNAME, Class: dns.ClassINET, Ttl: 60}, Target: target})
		return true
	}
	return false
}

// answerCompact answers for a name that is not there: from a wildcard as if the
// name had the records itself, else that the name alone has none (RFC 9824, 3.1).
func (z *testZone) answerCompact(m *dns.Msg, wild, name string, q dns.Question) {
	if !z.exists(wild) {
		m.Ns = append(m.Ns, z.sets[z.apex][dns.TypeSOA]...)
		m.Ns = append(m.Ns, z.nsecAt(name, dns.TypeNXNAME)...)
		return
	}
	var made []dns.RR
	for _, rr := range z.sets[wild][q.Qtype] {
		if _, ok := rr.(*dns.RRSIG); !ok {
			rr = dns.Copy(rr)
			rr.Header().Name = name
			made = append(made, rr)
		}
	}
	if len(made) > 0 {
		m.Answer = z.sign(made)
		return
	}
	m.Ns = append(m.Ns, z.sets[z.apex][dns.TypeSOA]...)
	m.Ns = append(m.Ns, z.nsecAt(name, z.typesAt(wild)...)...)
}

func (z *testZone) typesAt(owner string) (out []uint16) {
	for t := range z.sets[owner] {
		if t != dns.TypeNSEC {
			out = append(out, t)
		}
	}
	return out
}

// nsecAt is a signed NSEC that speaks of one name alone.
func (z *testZone) nsecAt(name string, types ...uint16) []dns.RR {
	return z.nsecFrom(name, `\000.`+name, types...)
}

// nsecFrom is a signed NSEC from one name to another.
func (z *testZone) nsecFrom(name, next string, types ...uint16) []dns.RR {
	types = append(types, dns.TypeRRSIG, dns.TypeNSEC)
	slices.Sort(types)
	return z.sign([]dns.RR{&dns.NSEC{
		Hdr:        dns.RR_Header{Name: name, Rrtype: dns.TypeNSEC, Class: dns.ClassINET, Ttl: 300},
		NextDomain: next, TypeBitMap: types,
	}})
}
