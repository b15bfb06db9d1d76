package signer

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"sluice/signer/zone"
)

const sampleZone = `
example.	3600 IN SOA ns1.example. Bugs.x.w.example. 1 3600 300 3600000 1800
example.	3600 IN NS ns1.example.
example.	3600 IN MX 1 xx.Example.
ns1.example.	3600 IN A 192.0.2.1
*.w.example.	600 IN MX 1 ai.example.
x.y.w.example.	3600 IN MX 1 xx.example.
xx.example.	3600 IN A 192.0.2.10
XX.example.	3600 IN AAAA 2001:db8::f00:baaa
a.example.	3600 IN NS ns1.a.example.
a.example.	3600 IN NS ns2.example.
a.example.	3600 IN DS 58470 5 1 3079F1593EBAD6DC121E202A8B766A6A4837206C
ns1.a.example.	3600 IN A 192.0.2.5
b.example.	3600 IN NS ns1.b.example.
ns1.b.example.	3600 IN A 192.0.2.7
only.ent.example.	3600 IN NS ns1.example.
t.deep.ent2.example.	3600 IN TXT "x"
d.example.	3600 IN DNAME elsewhere.test.
under.d.example.	3600 IN A 192.0.2.9
_ds.ns1.example.	3600 IN CDS 1 13 2 00112233445566778899AABBCCDDEEFF00112233445566778899AABBCCDDEEFF
`

// checkWithLibrary verifies every RRSIG with miekg/dns.
func checkWithLibrary(t testing.TB, z memZone, keys []Key) (count int) {
	t.Helper()
	for _, key := range z.keys() {
		kind := zone.Kind(key[0])
		if kind != zone.KindSigs && kind != zone.KindChainSigs {
			continue
		}
		covered := z[string(rune(zone.KindMade))+key[1:]]
		if kind == zone.KindChainSigs {
			covered = z[string(rune(zone.KindChain))+key[1:]]
		} else if covered == nil {
			covered = z[string(rune(zone.KindContents))+key[1:]]
		}
		if covered == nil {
			t.Errorf("RRSIG over nothing at %q", key)
			continue
		}
		plain := "\x10" + key[1:]
		rrset := records(t, []byte(plain), covered)
		for _, rr := range records(t, []byte(key), z[key]) {
			sig := rr.(*dns.RRSIG)
			count++
			ok := false
			for _, k := range keys {
				dnskey := records(t, zone.AppendKey(nil, zone.KindMade, zone.Root, zone.TypeDNSKEY),
					zone.AppendValue(nil, zone.Root, 3600, k.DNSKEY))[0].(*dns.DNSKEY)
				dnskey.Hdr.Name = sig.SignerName
				if dnskey.KeyTag() == sig.KeyTag && dnskey.Algorithm == sig.Algorithm && sig.Verify(dnskey, rrset) == nil {
					ok = true
				}
			}
			if !ok {
				t.Errorf("%v: no key verifies it", sig)
			}
		}
	}
	return count
}

func TestSign_LibraryVerifiesEverySignature(t *testing.T) {
	contents := parse(t, "example.", sampleZone)
	for _, alg := range []uint8{algRSASHA256, algRSASHA512, algP256, algP384, algEd25519} {
		for _, denial := range []Denial{NSEC, NSEC3, NSEC3OptOut} {
			keys := testKeys(t, alg)
			z, res := mustSign(t, contents, keys, testParams("example.", denial))
			if n := checkWithLibrary(t, z, keys); uint64(n) != res.Signatures || res.Made != res.Signatures || res.Verified != res.Made {
				t.Errorf("algorithm %d %s: %d RRSIGs, result %+v", alg, denial, n, res)
			}
			if want := testTime().Add(14 * 24 * time.Hour); !res.Earliest.Equal(want) {
				t.Errorf("earliest %v, want %v", res.Earliest, want)
			}
			var h zone.Hasher
			it := z.merged()
			for it.Next() {
				if err := h.AddItem(it.Key(), it.Value()); err != nil {
					t.Fatal(err)
				}
			}
			if h.Set.Sum() != res.SignedSum {
				t.Errorf("algorithm %d %s: signed digest differs from that of the items", alg, denial)
			}
		}
	}
}

func TestSign_NoDigestLeavesTheItemsAsTheyAre(t *testing.T) {
	contents := parse(t, "example.", sampleZone)
	keys := testKeys(t, algEd25519)
	for _, denial := range []Denial{NSEC, NSEC3} {
		p := testParams("example.", denial)
		want, with := mustSign(t, contents, keys, p)
		delete(want, string(rune(zone.KindDigest)))
		p.NoDigest = true
		out := memZone{}
		res, err := Sign(t.Context(), Input{
			Contents: &teeItems{Iterator: contents.kind(zone.KindContents), to: out}, Spill: memSpill{},
		}, keys, p, out)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, out); diff != "" {
			t.Errorf("%s: %s", denial, diff)
		}
		if res.SignedState != nil || res.SignedSum != [32]byte{} || res.ContentSum != [32]byte{} {
			t.Errorf("%s: a digest nobody made: %+v", denial, res)
		}
		with.SignedState, with.SignedSum, with.ContentSum = nil, [32]byte{}, [32]byte{}
		if diff := cmp.Diff(with, res); diff != "" {
			t.Errorf("%s: %s", denial, diff)
		}
	}
	p := testParams("example.", NSEC)
	p.NoDigest = true
	err := signError(t, keys, p, func(in *Input) {
		in.Previous = &Previous{SignedState: new(zone.SetHash)}
	})
	if err == nil || !strings.Contains(err.Error(), "previous instance without the digest") {
		t.Errorf("a diff without the digest: %v", err)
	}
}

// teeItems keeps what passes.
type teeItems struct {
	zone.Iterator
	to memZone
}

func (i *teeItems) Next() bool {
	if !i.Iterator.Next() {
		return false
	}
	i.to[string(i.Key())] = bytes.Clone(i.Value())
	return true
}
