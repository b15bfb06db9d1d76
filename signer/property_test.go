package signer

import (
	"bytes"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"pgregory.net/rapid"

	"sluice/signer/zone"
)

// drawName draws a name of up to four labels from few, so that names meet.
func drawName(t *rapid.T, label string) string {
	labels := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "C", "d", "*", "ns", `\000`, `\001z`, "aa", "-"}), 1, 4).Draw(t, label)
	return strings.Join(labels, ".") + ".example."
}

// drawZone draws a zone with delegations, glue, empty non-terminals,
// wildcards and DNAME as text.
func drawZone(t *rapid.T) []string {
	lines := []string{
		"example. 3600 IN SOA ns.example. root.example. 1 3600 300 3600000 1800",
		"example. 3600 IN NS ns.example.",
	}
	for i := range rapid.IntRange(0, 25).Draw(t, "names") {
		lines = append(lines, drawRecord(t, i))
	}
	return lines
}

func drawRecord(t *rapid.T, i int) string {
	name := drawName(t, fmt.Sprint("name", i))
	switch rapid.IntRange(0, 7).Draw(t, fmt.Sprint("type", i)) {
	case 0:
		return name + " 300 IN NS NS.example."
	case 1:
		return name + " 300 IN NS ns.example.\n" + name +
			" 600 IN DS 1 13 2 00112233445566778899AABBCCDDEEFF00112233445566778899AABBCCDDEEFF"
	case 2:
		return name + " 3600 IN DNAME target.test."
	case 3:
		return name + " 60 IN MX 5 Mail.example."
	case 4:
		return name + " 60 IN TYPE65280 \\# 2 0102"
	case 5:
		return fmt.Sprintf("%s 60 IN TXT \"%d\"", name, i)
	default:
		return fmt.Sprintf("%s 60 IN A 192.0.2.%d", name, i)
	}
}

func drawParams(t *rapid.T) Params {
	p := testParams("example.", rapid.SampledFrom([]Denial{NSEC, NSEC3, NSEC3OptOut}).Draw(t, "denial"))
	p.ZONEMD = rapid.Bool().Draw(t, "zonemd")
	p.Workers = rapid.IntRange(1, 3).Draw(t, "workers")
	p.Jitter = time.Duration(rapid.IntRange(0, 3).Draw(t, "jitter")) * time.Hour
	if p.Denial != NSEC {
		p.Iterations = uint16(rapid.IntRange(0, 3).Draw(t, "iterations"))
		p.Salt = rapid.SliceOfN(rapid.Byte(), 0, 4).Draw(t, "salt")
	}
	return p
}

// verifyKept verifies a zone and compares the report with the result.
func verifyKept(rt *rapid.T, t *testing.T, z memZone, p Params, res *Result) {
	r := mustVerify(t, z, p, func(o *VerifyOptions) { o.ContentSum, o.SignedSum = &res.ContentSum, &res.SignedSum })
	if !r.OK() {
		rt.Fatalf("%s\n%v", strings.Join(z.lines(t), "\n"), r.Err())
	}
	if r.Records != res.Records || r.RRsets != res.RRsets || r.Signatures != res.Signatures || !r.Earliest.Equal(res.Earliest) {
		rt.Fatalf("report %+v, result %+v", r, res)
	}
}

func TestSign_RandomZonesVerify(t *testing.T) {
	keys := testKeys(t, algEd25519)
	rapid.Check(t, func(rt *rapid.T) {
		contents := parse(t, "example.", strings.Join(drawZone(rt), "\n")+"\n")
		p := drawParams(rt)
		z, res := mustSign(t, contents, keys, p)
		verifyKept(rt, t, z, p, res)
	})
}

func TestSign_OutputDoesNotDependOnWorkers(t *testing.T) {
	keys := testKeys(t, algP256)
	rapid.Check(t, func(rt *rapid.T) {
		contents := parse(t, "example.", strings.Join(drawZone(rt), "\n")+"\n")
		p := drawParams(rt)
		p.VerifyAll = false
		p.Workers = 1
		one, _ := mustSign(t, contents, keys, p)
		p.Workers = 4
		four, _ := mustSign(t, contents, keys, p)
		if !maps.EqualFunc(one, four, func(a, b []byte) bool { return string(a) == string(b) }) {
			rt.Fatal("zones differ")
		}
	})
}

// With a frozen clock and deterministic keys, signing on top of a previous
// instance gives the same bytes as signing anew, whatever changed.
func TestSign_OnPreviousEqualsFull(t *testing.T) {
	keys := testKeys(t, algEd25519)
	other := append(testKeys(t, algEd25519), testKey(t, algEd25519, 256, "zsk 2"))
	rapid.Check(t, func(rt *rapid.T) {
		lines := drawZone(rt)
		p := drawParams(rt)
		previous, _ := mustSign(t, parse(t, "example.", strings.Join(lines, "\n")+"\n"), keys, p)

		changed := lines[:2:2]
		for i, l := range lines[2:] {
			if rapid.IntRange(0, 3).Draw(rt, fmt.Sprint("drop", i)) > 0 {
				changed = append(changed, l)
			}
		}
		for i := range rapid.IntRange(0, 5).Draw(rt, "more") {
			changed = append(changed, drawRecord(rt, 100+i))
		}
		contents := parse(t, "example.", strings.Join(changed, "\n")+"\n")
		q := drawParams(rt)
		q.Jitter = p.Jitter
		q.Serial++
		use := keys
		if rapid.Bool().Draw(rt, "roll") {
			use = other
		}
		got, res := mustResign(t, contents, previous, use, q)
		want, full := mustSign(t, contents, use, q)
		if diff := cmp.Diff(want.lines(t), got.lines(t)); diff != "" {
			rt.Fatalf("zones differ (-full +on previous):\n%s", diff)
		}
		if !maps.EqualFunc(want, got, func(a, b []byte) bool { return string(a) == string(b) }) {
			rt.Fatal("zones differ in bytes")
		}
		if res.SignedSum != full.SignedSum || res.Records != full.Records || res.Signatures != full.Signatures || res.Reused+res.Made != res.Signatures {
			rt.Fatalf("result %+v, of full signing %+v", res, full)
		}
		verifyKept(rt, t, got, q, res)
	})
}

// With ZONEMD no bit of a zone may change unseen, but for the case of
// letters, which neither digest nor signatures know.
func TestVerify_FindsAnyFlippedBit(t *testing.T) {
	keys := testKeys(t, algEd25519)
	rapid.Check(t, func(rt *rapid.T) {
		contents := parse(t, "example.", strings.Join(drawZone(rt), "\n")+"\n")
		p := drawParams(rt)
		p.ZONEMD = true
		z, _ := mustSign(t, contents, keys, p)
		delete(z, string([]byte{byte(zone.KindDigest)}))
		delete(z, keyOf(t, zone.KindContents, "example.", zone.TypeSOA)) // hidden by ours
		key := rapid.SampledFrom(z.keys()).Draw(rt, "item")
		value := bytes.Clone(z[key])
		at := rapid.IntRange(0, len(value)-1).Draw(rt, "byte")
		before := value[at]
		value[at] ^= 1 << rapid.IntRange(0, 7).Draw(rt, "bit")
		if bytes.EqualFold([]byte{before}, []byte{value[at]}) {
			return
		}
		z[key] = value
		r, err := Verify(t.Context(), z.merged(), VerifyOptions{Apex: p.Apex, At: testTime(), Spill: memSpill{}})
		if err == nil && r.OK() {
			rt.Fatalf("byte %d of item %q: %#x became %#x unseen", at, key, before, value[at])
		}
	})
}

// No RDATA, however malformed, makes Verify fall over.
func FuzzVerify(f *testing.F) {
	p := testParams("example.", NSEC3)
	p.ZONEMD = true
	good, _ := mustSign(f, parse(f, "example.", sampleZone), testKeys(f, algEd25519), p)
	delete(good, string([]byte{byte(zone.KindDigest)}))
	for i, key := range good.keys() {
		for rdata := range zone.Value(good[key]).Records() {
			f.Add(uint16(i), rdata)
		}
	}
	f.Fuzz(func(t *testing.T, item uint16, rdata []byte) {
		if len(rdata) > 4096 {
			return
		}
		z := maps.Clone(good)
		keys := z.keys()
		key := keys[int(item)%len(keys)]
		z[key] = zone.AppendValue(nil, zone.Root, zone.Value(z[key]).TTL(), rdata)
		if _, err := Verify(t.Context(), z.merged(), VerifyOptions{Apex: p.Apex, At: testTime(), Spill: memSpill{}, Workers: 1}); err != nil {
			t.Fatal(err)
		}
	})
}

func TestNSEC3Hash_EqualsLibrary(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		name := strings.ToLower(drawName(rt, "name"))
		iterations := uint16(rapid.IntRange(0, 20).Draw(rt, "iterations"))
		salt := rapid.SliceOfN(rapid.Byte(), 0, 8).Draw(rt, "salt")
		var buf []byte
		hash := nsec3Hash([]byte(mustName(t, name)), salt, iterations, &buf)
		want := dns.HashName(name, dns.SHA1, iterations, fmt.Sprintf("%x", salt))
		if got := strings.ToUpper(nsec3Encoding().EncodeToString(hash[:])); got != want {
			rt.Fatalf("%s: %s, want %s", name, got, want)
		}
	})
}

func TestBitmap_RoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		set := rapid.MapOf(rapid.Uint16Range(1, 65535), rapid.Just(true)).Draw(rt, "types")
		var types []zone.Type
		for v := range set {
			types = append(types, zone.Type(v))
		}
		sortTypes(types)
		got, err := decodeTypes(nil, appendBitmap(nil, types))
		if err != nil || !cmp.Equal(got, types) {
			rt.Fatalf("%v gave %v, %v", types, got, err)
		}
	})
}
