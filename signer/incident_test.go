package signer

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"testing"

	"sluice/signer/zone"
)

// Each test here is named after an outage. The list of them is in DESIGN.md of
// keymgr.

// .FR, 2011-02-12: signing what changed broke the NSEC3 chain, and nobody
// looked at NSEC3. Each link that a change touches is checked, by the check of
// the changes as well as by that of the whole zone.
func TestIncident_FR2011_BrokenNSEC3LinkIsFound(t *testing.T) {
	keys := testKeys(t, algP256)
	for _, denial := range []Denial{NSEC3, NSEC3OptOut} {
		p := testParams("example.", denial)
		previous, _ := mustSign(t, parse(t, "example.", sampleZone), keys, p)
		p.Serial++
		contents := parse(t, "example.", sampleZone+"new.example. 3600 IN A 192.0.2.77\nsecure.example. 3600 IN NS ns1.example.\n"+
			"secure.example. 3600 IN DS 58470 5 1 3079F1593EBAD6DC121E202A8B766A6A4837206C\n")
		good, _ := mustUpdate(t, contents, previous, keys, p)
		if r := mustCheck(t, previous, good, checkOptions(p)); !r.OK() {
			t.Fatalf("%s: the good update: %v", denial, r.Err())
		}
		links := 0
		for _, key := range good.keys() {
			if zone.Kind(key[0]) != zone.KindChain || bytes.Equal(previous[key], good[key]) {
				continue
			}
			links++
			for what, spoil := range map[string]func(z memZone, sigs string){
				"is not there": func(z memZone, sigs string) { delete(z, key); delete(z, sigs) },
				"is the old one": func(z memZone, sigs string) {
					if delete(z, key); previous[key] != nil {
						z[key], z[sigs] = previous[key], previous[sigs]
					}
				},
			} {
				bad := maps.Clone(good)
				spoil(bad, string(rune(zone.KindChainSigs))+key[1:])
				r, err := CheckChanges(t.Context(), checkInput(t, previous, bad), checkOptions(p))
				if err == nil && r.OK() {
					t.Errorf("%s: a link that %s is not found by the check of the changes", denial, what)
				}
				if full := mustVerify(t, bad, p, nil); full.OK() || !slices.ContainsFunc(full.Faults, func(f Fault) bool { return f.Rule == RuleChain }) {
					t.Errorf("%s: a link that %s is not found by the check of the zone: %v", denial, what, full.Err())
				}
			}
		}
		if links < 3 {
			t.Errorf("%s: only %d links changed", denial, links)
		}
	}
}

// Slack, 2021-09-30: the NSEC of a wildcard did not name all of its types, so
// that a validator took AAAA records for proven away.
func TestIncident_Slack2021_WildcardBitmapNamesAllTypes(t *testing.T) {
	const more = "*.w.example. 600 IN A 192.0.2.66\n*.w.example. 600 IN AAAA 2001:db8::66\n*.deep.ent3.example. 600 IN TXT x\n"
	keys := testKeys(t, algP256)
	for _, denial := range []Denial{NSEC, NSEC3} {
		p := testParams("example.", denial)
		z, _ := mustSign(t, parse(t, "example.", sampleZone+more), keys, p)
		at := func(name string) string {
			if denial == NSEC {
				return keyOf(t, zone.KindMade, name, zone.TypeNSEC)
			}
			return keyOf(t, zone.KindChain, hashedOwner(t, name), zone.TypeNSEC3)
		}
		types := map[string]string{
			"*.w.example.":         "A MX AAAA RRSIG",
			"*.deep.ent3.example.": "TXT RRSIG",
		}
		if denial == NSEC {
			for name := range types {
				types[name] += " NSEC"
			}
		} else {
			// Empty non-terminals, one above a wildcard, have NSEC3 records
			// without any type.
			types["ent3.example."], types["deep.ent3.example."], types["y.w.example."] = "", "", ""
		}
		for name, want := range types {
			texts, err := zone.RecordTexts([]byte(at(name)), z[at(name)])
			if err != nil || len(texts) != 1 {
				t.Fatalf("%s: no record at %s: %v", denial, name, err)
			}
			if got := bitmapOf(texts[0], denial); got != want {
				t.Errorf("%s: the record at %s names %q, want %q", denial, name, got, want)
			}
		}
		// A bitmap that lacks one of them does not pass, however well it is
		// signed.
		bad := maps.Clone(z)
		typ := zone.TypeNSEC
		owner := "*.w.example."
		key := at(owner)
		if denial == NSEC3 {
			typ, owner = zone.TypeNSEC3, hashedOwner(t, owner)
		}
		value := zone.Value(z[key])
		for data := range value.Records() {
			short := slices.Clone(data)
			i := bytes.LastIndex(short, []byte{0, 6}) // window 0: A, MX, AAAA, RRSIG, NSEC
			if i < 0 {
				t.Fatalf("%s: no bitmap in %x", denial, short)
			}
			short[i+2+28/8] &^= 0x80 >> (28 % 8) // AAAA
			bad[key] = zone.AppendValue(nil, zone.Root, value.TTL(), short)
		}
		resignItem(t, bad, owner, typ, keys[1], p)
		if r := mustVerify(t, bad, p, nil); r.OK() || r.Faults[0].Rule != RuleBitmap {
			t.Errorf("%s: a bitmap without AAAA: %v", denial, r.Err())
		}
	}
}

// bitmapOf is the types that an NSEC or NSEC3 record in presentation form ends
// with.
func bitmapOf(text string, denial Denial) string {
	fields := strings.Fields(text)
	if denial == NSEC {
		return strings.Join(fields[5:], " ")
	}
	return strings.Join(fields[9:], " ")
}

// jdnssec-tools: two ZSKs with one tag confused a verifier. Tags are a hint
// here: each signature belongs to the key that it verifies with.
func TestIncident_JDNSSECTools_TwoZSKsWithOneTag(t *testing.T) {
	ksk, one := testKey(t, algEd25519, 257, "ksk"), testKey(t, algEd25519, 256, "zsk")
	two := sameTag(t, one)
	p := testParams("example.", NSEC)
	z, _ := mustSign(t, parse(t, "example.", sampleZone), []Key{ksk, one, two}, p)
	if r := mustVerify(t, z, p, nil); !r.OK() {
		t.Error(r.Err())
	}
	// One of the two signatures over a set is spoilt: the other one's being
	// right does not hide it.
	key := keyOf(t, zone.KindSigs, "ns1.example.", zone.TypeA)
	if n := zone.Value(z[key]).Count(); n != 2 {
		t.Fatalf("%d signatures over one set", n)
	}
	for i := range 2 {
		bad := maps.Clone(z)
		bad[key] = bytes.Clone(z[key])
		records := slices.Collect(zone.Value(bad[key]).Records())
		records[i][len(records[i])-1] ^= 1
		if r := mustVerify(t, bad, p, nil); r.OK() || r.Faults[0].Rule != RuleSignature {
			t.Errorf("signature %d of two with one tag is spoilt: %v", i, r.Err())
		}
	}
}

// niclabs/dns-tools: a library packed type bitmaps into a buffer with remains
// of what was there before, which gave a wrong ZONEMD.
func TestIncident_DNSTools_BitmapInADirtyBuffer(t *testing.T) {
	sets := [][]zone.Type{
		{zone.TypeA},
		{zone.TypeA, zone.TypeAAAA, zone.TypeRRSIG, zone.TypeNSEC},
		{zone.TypeNS, 257, 1024},
		{65280},
		{1, 255, 256, 511, 65535},
	}
	dirty := bytes.Repeat([]byte{0xff}, 4096)
	for _, types := range sets {
		clean := appendBitmap(nil, types)
		if got := appendBitmap(dirty[:0:len(dirty)], types); !bytes.Equal(got, clean) {
			t.Errorf("%v: %x in a buffer with remains, want %x", types, got, clean)
		}
		for i := range dirty {
			dirty[i] = 0xff
		}
	}
	// The whole zone: its digest is the same whatever was signed before with
	// the same buffers.
	keys := testKeys(t, algEd25519)
	p := testParams("example.", NSEC)
	p.ZONEMD = true
	small, _ := mustSign(t, parse(t, "example.", sampleZone), keys, p)
	crowded := sampleZone
	for _, name := range []string{"ns1", "xx", "*.w", "x.y.w"} {
		crowded += name + ".example. 3600 IN TYPE65280 \\# 1 00\n" + name + ".example. 3600 IN TXT x\n" + name + ".example. 3600 IN CAA 0 issue \"x\"\n"
	}
	mustSign(t, parse(t, "example.", crowded), keys, p)
	again, _ := mustSign(t, parse(t, "example.", sampleZone), keys, p)
	if !equalZones(small, again) {
		t.Error("the same zone is signed in two ways")
	}
	if r := mustVerify(t, again, p, nil); !r.OK() || !r.ZONEMD {
		t.Errorf("ZONEMD: %v", r.Err())
	}
}
