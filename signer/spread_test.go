package signer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"sluice/signer/zone"
)

// firstExpiry is when the first of a set of RRSIGs expires.
func firstExpiry(sigs zone.Value) int64 {
	first := int64(1) << 40
	for rdata := range sigs.Records() {
		first = min(first, int64(binary.BigEndian.Uint32(rdata[sigExpiration:])))
	}
	return first
}

// signedBy counts a zone's RRsets by the keys whose signatures they have.
func signedBy(z memZone, apex zone.Name, keys []Key) map[uint64]int64 {
	out := map[uint64]int64{}
	apexKey := string(zone.AppendOwnerKey(nil, apex))
	for _, kind := range []zone.Kind{zone.KindSigs, zone.KindChainSigs} {
		for key, value := range z {
			if zone.Kind(key[0]) != kind {
				continue
			}
			switch t := zone.Type(binary.BigEndian.Uint16([]byte(key[len(key)-2:]))); t {
			case zone.TypeDNSKEY, zone.TypeCDS, zone.TypeCDNSKEY:
				if key[1:len(key)-2] == apexKey {
					continue
				}
			default:
			}
			mask := uint64(0)
			for rdata := range zone.Value(value).Records() {
				for i, k := range keys {
					if k.DNSKEY[3] == rdata[sigAlgorithm] && zone.KeyTag(k.DNSKEY) == binary.BigEndian.Uint16(rdata[sigTag:]) {
						mask |= 1 << i
					}
				}
			}
			out[mask]++
		}
	}
	return out
}

// exchangeOf is what an update is told where it stands for a spread.
func exchangeOf(previous memZone, s Spread) func(func(key []byte) error) error {
	return func(fn func(key []byte) error) error {
		for _, kind := range []zone.Kind{zone.KindSigs, zone.KindChainSigs} {
			for it := previous.kind(kind); it.Next(); {
				if !s.turn(uint32(firstExpiry(it.Value()))) {
					continue
				}
				if err := fn(it.Key()); err != nil {
					return err
				}
			}
		}
		return nil
	}
}

// exchange is a change of the keys that sign.
type exchange struct {
	name          string
	before, after []Key
}

func exchanges(t testing.TB) []exchange {
	ksk, a, b := testKey(t, algEd25519, 257, "ksk"), testKey(t, algEd25519, 256, "zsk"), testKey(t, algEd25519, 256, "zsk 2")
	published := func(k Key) Key {
		k.Signer, k.SignsKeys, k.SignsZone = nil, false, false
		return k
	}
	unpublished := func(k Key) Key {
		k.Published = false
		return k
	}
	csk, csk2 := testKey(t, algEd25519, 257, "csk"), testKey(t, algEd25519, 257, "csk 2")
	csk.SignsZone, csk2.SignsZone = true, true
	ksk2, zsk2 := testKey(t, algP256, 257, "ksk p256"), testKey(t, algP256, 256, "zsk p256")
	return []exchange{
		{"pre-publication", []Key{ksk, a, published(b)}, []Key{ksk, published(a), b}},
		{"double signature begins", []Key{ksk, a}, []Key{ksk, a, b}},
		{"double signature ends", []Key{ksk, a, b}, []Key{ksk, published(a), b}},
		{"a CSK comes", []Key{csk}, []Key{csk, csk2}},
		{"a CSK for KSK and ZSK", []Key{ksk, a}, []Key{ksk, a, csk}},
		{"an algorithm comes", []Key{ksk, a}, []Key{ksk, a, unpublished(ksk2), unpublished(zsk2)}},
		{"an algorithm goes", []Key{ksk, a, unpublished(ksk2), unpublished(zsk2)}, []Key{ksk, a}},
		{"a published key goes at once", []Key{ksk, a, b}, []Key{ksk, b}},
	}
}

// Whatever the keys change to and whatever else changes meanwhile, each RRset
// is validly signed at each step, an update makes what signing on the previous
// instance makes, the count of signatures by key is exact, and in the end the
// zone is that of signing anew.
func TestSpread_EachStepIsValidAndCountedAndTheLastIsFullSigning(t *testing.T) {
	all := exchanges(t)
	rapid.Check(t, func(rt *rapid.T) {
		e := rapid.SampledFrom(all).Draw(rt, "exchange")
		lines := drawZone(rt)
		p := drawParams(rt)
		p.ZONEMD = false
		p.Jitter = time.Duration(rapid.IntRange(1, 5).Draw(rt, "window")) * time.Hour
		z, was := mustSign(t, zoneOf(t, lines...), e.before, p)
		if diff := cmp.Diff(signedBy(z, p.Apex, e.before), was.SignedBy); diff != "" {
			rt.Fatalf("full signing counts (-zone +result):\n%s", diff)
		}
		const steps = 4
		end, window := p.Expiration.Unix()+1, int64(p.Jitter/time.Second)
		p.Spread = &Spread{From: end - rapid.Int64Range(0, window).Draw(rt, "range")}
		for step := 1; step <= steps; step++ {
			if rapid.Bool().Draw(rt, fmt.Sprint("changes", step)) {
				lines = drawChange(rt, lines, step)
			}
			p.Serial++
			if p.Spread.To = p.Spread.From + (end-p.Spread.From)*int64(step)/steps; step == steps {
				p.Spread.From = end - window
			}
			contents := zoneOf(t, lines...)
			next, res := mustResign(t, contents, z, e.after, p)
			if diff := cmp.Diff(signedBy(next, p.Apex, e.after), res.SignedBy); diff != "" {
				rt.Fatalf("%s, step %d: counts (-zone +result):\n%s", e.name, step, diff)
			}
			in := updateInput(t, contents, z)
			in.Exchange = exchangeOf(z, *p.Spread)
			checkUpdate(t, rt, in, apply(contents, z), z, next, e, p)
			also := [][]byte{}
			for _, k := range e.after {
				if !k.Published {
					also = append(also, k.DNSKEY)
				}
			}
			r := mustVerify(t, next, p, func(o *VerifyOptions) {
				o.ContentSum, o.SignedSum, o.AlsoSigning = &res.ContentSum, &res.SignedSum, also
			})
			if !r.OK() || r.Signatures != res.Signatures || r.Records != res.Records || r.RRsets != res.RRsets || !r.Earliest.Equal(res.Earliest) {
				rt.Fatalf("%s, step %d: %v\nreport %+v, result %+v", e.name, step, r.Err(), r, res)
			}
			turns(t, rt, next, e.after, p)
			z = next
		}
		p.Spread = nil
		want, _ := mustSign(t, zoneOf(t, lines...), e.after, p)
		if diff := cmp.Diff(want.lines(t), z.lines(t)); diff != "" {
			rt.Fatalf("%s: not signed in full in the end (-full +spread):\n%s", e.name, diff)
		}
	})
}

// checkUpdate demands that an update makes what signing made, where it can.
func checkUpdate(t *testing.T, rt *rapid.T, in UpdateInput, out, before, want memZone, e exchange, p Params) {
	if slices.ContainsFunc(e.before, func(k Key) bool {
		return !slices.ContainsFunc(e.after, func(o Key) bool { return string(o.DNSKEY) == string(k.DNSKEY) })
	}) {
		return // signatures by a key that is not given: signing on the previous instance drops them
	}
	res, err := Update(t.Context(), in, e.after, p, &orderSink{t, map[byte]string{}, out})
	if key := zone.AppendKey(nil, zone.KindMade, p.Apex, zone.TypeDNSKEY); errors.Is(err, ErrFull) && string(before[string(key)]) != string(want[string(key)]) {
		return // the DNSKEY RRset has changed
	}
	if err != nil {
		rt.Fatal(err)
	}
	if diff := cmp.Diff(want.lines(t), out.lines(t)); diff != "" {
		rt.Fatalf("%s: update differs (-signed +update):\n%s", e.name, diff)
	}
	if !equalZones(want, out) {
		rt.Fatalf("%s: update differs in bytes", e.name)
	}
	counts := signedBy(before, p.Apex, e.after)
	for mask, n := range res.SignedBy {
		if counts[mask] += n; counts[mask] == 0 {
			delete(counts, mask)
		}
	}
	if diff := cmp.Diff(signedBy(want, p.Apex, e.after), counts); diff != "" {
		rt.Fatalf("%s: update counts (-zone +base and result):\n%s", e.name, diff)
	}
}

// turns demands that what has had its turn is by the keys that sign, and that
// what has not is by keys that were given.
func turns(t *testing.T, rt *rapid.T, z memZone, keys []Key, p Params) {
	t.Helper()
	var signers uint64
	for i, k := range keys {
		if k.SignsZone {
			signers |= 1 << i
		}
	}
	for key, value := range z {
		if k := zone.Kind(key[0]); k != zone.KindSigs && k != zone.KindChainSigs {
			continue
		}
		one := signedBy(memZone{key: value}, p.Apex, keys)
		for _, mask := range slices.Collect(maps.Keys(one)) {
			if p.Spread.turn(uint32(firstExpiry(value))) && mask != signers {
				rt.Fatalf("%q has had its turn and is signed by %b, want %b", key, mask, signers)
			}
			if mask == 0 {
				rt.Fatalf("%q is signed by a key that was not given", key)
			}
		}
	}
}

func TestSpread_TurnsCompareAsRRSIGTimesDo(t *testing.T) {
	s := Spread{From: 1<<32 - 10, To: 1<<32 + 10}
	for _, row := range []struct {
		at   uint32
		want bool
	}{{1<<32 - 11, false}, {1<<32 - 10, true}, {0, true}, {9, true}, {10, false}} {
		if got := s.turn(row.at); got != row.want {
			t.Errorf("expires %d: turn %v", row.at, got)
		}
	}
}

func TestSpread_KeysThatCannotBeToldApartAreNotCounted(t *testing.T) {
	keys := testKeys(t, algEd25519)
	other := sameTag(t, keys[1])
	p := testParams("example.", NSEC)
	_, res := mustSign(t, zoneOf(t, "example. 60 IN SOA ns root 1 1 1 1 1", "example. 60 IN NS ns"), append(keys, other), p)
	if res.SignedBy != nil {
		t.Errorf("counted %v", res.SignedBy)
	}
}

// While both keys are published a zone with signatures by either is right; by
// one that is withdrawn it is not.
func TestSpread_SignaturesOfAWithdrawnKeyAreFaults(t *testing.T) {
	e := exchanges(t)[0]
	p := testParams("example.", NSEC3)
	p.Jitter = 6 * time.Hour
	contents := parse(t, "example.", sampleZone)
	z, _ := mustSign(t, contents, e.before, p)
	p.Serial++
	end := p.Expiration.Unix() + 1
	p.Spread = &Spread{From: end - 6*3600, To: end - 3*3600}
	half, res := mustResign(t, contents, z, e.after, p)
	if left := res.SignedBy[1<<1]; left == 0 || res.SignedBy[1<<2] == 0 {
		t.Fatalf("signed by %v: nothing is left to exchange", res.SignedBy)
	}
	if r := mustVerify(t, half, p, nil); !r.OK() {
		t.Error(r.Err())
	}
	if r := mustCheck(t, z, half, checkOptions(p)); !r.OK() {
		t.Error(r.Err())
	}
	// The DNSKEY RRset loses the key, its signatures stay.
	without, _ := mustSign(t, contents, []Key{e.after[0], e.after[2]}, p)
	gone := maps.Clone(half)
	for _, kind := range []zone.Kind{zone.KindMade, zone.KindSigs} {
		key := string(zone.AppendKey(nil, kind, p.Apex, zone.TypeDNSKEY))
		gone[key] = without[key]
	}
	r := mustVerify(t, gone, p, func(o *VerifyOptions) { o.MaxFaults = 1000 })
	orphans := int64(0)
	for _, f := range r.Faults {
		if f.Rule == RuleOrphan {
			orphans++
		}
	}
	if orphans != res.SignedBy[1<<1] {
		t.Errorf("%d signatures of the key are faults, %d are left", orphans, res.SignedBy[1<<1])
	}
}
