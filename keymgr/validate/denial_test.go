package validate

import (
	"crypto"
	"testing"
	"time"

	"github.com/miekg/dns"

	"sluice/signer/zone"
)

// A wildcard does not answer for names below one that exists: an NSEC that shows
// such a name is no proof that the wildcard may (RFC 4035, 5.3.4; RFC 4592, 3.3.1).
func TestNotThere_WantsTheWildcardsOwnEncloser(t *testing.T) {
	key := &dns.DNSKEY{Hdr: dns.RR_Header{Name: "example.", Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 60}, Flags: 257, Protocol: 3, Algorithm: dns.ECDSAP256SHA256}
	private, err := key.Generate(256)
	if err != nil {
		t.Fatal(err)
	}
	_, rdata, err := Wire(key)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	proof := func(owner, next string, types ...uint16) []RRset {
		nsec := &dns.NSEC{Hdr: dns.RR_Header{Name: owner, Rrtype: dns.TypeNSEC, Class: dns.ClassINET, Ttl: 60}, NextDomain: next, TypeBitMap: types}
		sig := &dns.RRSIG{
			Hdr: dns.RR_Header{Name: owner, Rrtype: dns.TypeRRSIG, Class: dns.ClassINET, Ttl: 60}, Algorithm: key.Algorithm, KeyTag: key.KeyTag(), SignerName: "example.",
			Inception: uint32(now.Add(-time.Hour).Unix()), Expiration: uint32(now.Add(time.Hour).Unix()),
		}
		if err := sig.Sign(private.(crypto.Signer), []dns.RR{nsec}); err != nil {
			t.Fatal(err)
		}
		sets, err := Group([]dns.RR{nsec, sig})
		if err != nil {
			t.Fatal(err)
		}
		return sets
	}
	for _, c := range []struct {
		fact   string
		labels int // of the wildcard's parent
		proof  []RRset
		ok     bool
	}{
		{"a neighbour on either side", 1, proof("a.example.", "z.example.", dns.TypeA), true},
		{"the parent exists", 1, proof("near.example.", "z.example.", dns.TypeA), false},
		{"the parent has names below it", 1, proof("a.example.", "z.near.example.", dns.TypeA), false},
		{"the parent's own wildcard", 2, proof("near.example.", "z.example.", dns.TypeA), true},
		{"the name is an empty non-terminal", 2, proof("near.example.", "x.a.near.example.", dns.TypeA), false},
		{"the parent is another zone", 2, proof("near.example.", "z.example.", dns.TypeNS), false},
		{"the proof is of other names", 1, proof("o.example.", "z.example.", dns.TypeA), false},
	} {
		name, err := zone.ParseName("a.near.example.")
		if err != nil {
			t.Fatal(err)
		}
		err = NotThere(name, c.labels, "\x07example\x00", c.proof, ZoneKeys([][]byte{rdata}), now)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.fact, err)
		}
	}
}
