package signer

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"sluice/signer/zone"
)

func allKinds() []zone.Kind {
	return []zone.Kind{zone.KindContents, zone.KindMade, zone.KindSigs, zone.KindChain, zone.KindChainSigs}
}

// checkInput compares two signed zones.
func checkInput(t testing.TB, previous, signed memZone) CheckInput {
	t.Helper()
	state := new(zone.SetHash)
	if err := state.LoadState(previous[string([]byte{byte(zone.KindDigest)})]); err != nil {
		t.Fatal(err)
	}
	return CheckInput{
		Previous: newMemAccess(previous), Signed: newMemAccess(signed),
		Changes:      changesOf(previous, signed, allKinds()...),
		ContentState: previous.contentState(t), SignedState: state,
	}
}

func checkOptions(p Params) VerifyOptions {
	return VerifyOptions{Apex: p.Apex, At: testTime(), Spill: memSpill{}, Workers: 1}
}

func mustCheck(t testing.TB, previous, signed memZone, o VerifyOptions) *Report {
	t.Helper()
	r, err := CheckChanges(t.Context(), checkInput(t, previous, signed), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestCheckChanges_AcceptsUpdates(t *testing.T) {
	keys := testKeys(t, algEd25519)
	rapid.Check(t, func(rt *rapid.T) {
		lines := drawZone(rt)
		p := drawParams(rt)
		p.ZONEMD = false
		previous, _ := mustSign(t, zoneOf(t, lines...), keys, p)
		p.Serial++
		signed, res := mustUpdate(t, zoneOf(t, drawChange(rt, lines, 1)...), previous, keys, p)
		o := checkOptions(p)
		o.ContentSum, o.SignedSum = &res.ContentSum, &res.SignedSum
		if r := mustCheck(t, previous, signed, o); !r.OK() || r.Serial != p.Serial {
			rt.Fatalf("%s\n%v", strings.Join(signed.lines(t), "\n"), r.Err())
		}
	})
}

// What Verify finds in a zone whose update went wrong in one item, the check
// of the changes finds, without looking at the digests.
func TestCheckChanges_FindsWhatVerifyFinds(t *testing.T) {
	keys := testKeys(t, algEd25519)
	rapid.Check(t, func(rt *rapid.T) {
		lines := drawZone(rt)
		p := drawParams(rt)
		p.ZONEMD = false
		previous, _ := mustSign(t, zoneOf(t, lines...), keys, p)
		p.Serial++
		contents := zoneOf(t, drawChange(rt, lines, 1)...)
		good, _ := mustUpdate(t, contents, previous, keys, p)
		var changed []string
		if err := changesOf(previous, good, allKinds()[1:]...)(func(key, _, _ []byte) error {
			changed = append(changed, string(key))
			return nil
		}); err != nil {
			rt.Fatal(err)
		}
		bad := maps.Clone(good)
		key := rapid.SampledFrom(changed).Draw(rt, "item")
		damage(rt, bad, previous, key)
		if equalZones(bad, good) {
			return
		}
		full, err := Verify(t.Context(), bad.merged(), checkOptions(p))
		if err != nil || full.OK() {
			return
		}
		o := checkOptions(p)
		o.ContentSum = new(contents.contentState(t).Sum())
		r, err := CheckChanges(t.Context(), checkInput(t, previous, bad), o)
		if err == nil && r.OK() {
			rt.Fatalf("item %q: unseen: %v\n%s\nbefore:\n%s", key, full.Err(),
				strings.Join(bad.lines(t), "\n"), strings.Join(previous.lines(t), "\n"))
		}
	})
}

// damage spoils one item that an update put: it is left as it was, is not
// there, or has a wrong bit.
func damage(rt *rapid.T, bad, previous memZone, key string) {
	switch how := rapid.IntRange(0, 2).Draw(rt, "damage"); {
	case how == 0 && previous[key] != nil:
		bad[key] = previous[key]
	case how == 2 && bad[key] != nil:
		value := bytes.Clone(bad[key])
		value[rapid.IntRange(5, len(value)-1).Draw(rt, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(rt, "bit")
		if zone.Value(value).Check() == nil {
			bad[key] = value
		}
	default:
		delete(bad, key)
	}
}

// A run that overlooks something leaves faults that the check finds.
func TestCheckChanges_FindsWhatWasOverlooked(t *testing.T) {
	base := []string{
		"example. 3600 IN SOA ns.example. root.example. 1 3600 300 3600000 1800",
		"example. 3600 IN NS ns.example.",
		"a.example. 60 IN A 192.0.2.1",
		"m.b.example. 60 IN A 192.0.2.2",
		"x.y.b.example. 60 IN A 192.0.2.3",
		"d.example. 60 IN NS ns.d.example.",
		"d.example. 60 IN DS 1 13 2 00112233445566778899AABBCCDDEEFF00112233445566778899AABBCCDDEEFF",
	}
	without := func(prefix string) []string {
		return slices.DeleteFunc(slices.Clone(base), func(l string) bool { return strings.HasPrefix(l, prefix) })
	}
	tests := []struct {
		name  string
		lines []string
		drop  string    // owner of what was overlooked
		kind  zone.Kind // of it
		only  Denial
		rule  Rule
	}{
		{"new cut, name below keeps RRSIG", append(slices.Clone(base), "b.example. 60 IN NS ns.test."), "m.b.example.", zone.KindSigs, "", RuleGlue},
		{"new cut, name below keeps NSEC", append(slices.Clone(base), "b.example. 60 IN NS ns.test."), "m.b.example.", zone.KindMade, NSEC, RuleChain},
		{"new name without NSEC", append(slices.Clone(base), "c.example. 60 IN A 192.0.2.9"), "c.example.", zone.KindMade, NSEC, RuleChain},
		{"new name unsigned", append(slices.Clone(base), "c.example. 60 IN A 192.0.2.9"), "c.example.", zone.KindSigs, "", RuleUnsigned},
		{"gone name keeps NSEC", without("a."), "a.example.", zone.KindMade, NSEC, RuleChain},
		{"gone name keeps RRSIG", without("a."), "a.example.", zone.KindSigs, "", RuleOrphan},
	}
	keys := testKeys(t, algEd25519)
	for _, d := range []Denial{NSEC, NSEC3, NSEC3OptOut} {
		p := testParams("example.", d)
		previous, _ := mustSign(t, zoneOf(t, base...), keys, p)
		p.Serial++
		for _, tt := range tests {
			if tt.only != "" && tt.only != d {
				continue
			}
			t.Run(fmt.Sprintf("%s/%s", d, tt.name), func(t *testing.T) {
				z, _ := mustUpdate(t, zoneOf(t, tt.lines...), previous, keys, p)
				if r := mustCheck(t, previous, z, checkOptions(p)); !r.OK() {
					t.Fatal(r.Err())
				}
				prefix := string(zone.AppendOwnerKey([]byte{byte(tt.kind)}, mustName(t, tt.drop)))
				for _, from := range []memZone{z, previous} {
					for _, k := range from.keys() {
						if !strings.HasPrefix(k, prefix) {
							continue
						}
						if previous[k] == nil {
							delete(z, k)
						} else {
							z[k] = previous[k]
						}
					}
				}
				r := mustCheck(t, previous, z, checkOptions(p))
				if !slices.ContainsFunc(r.Faults, func(f Fault) bool { return f.Rule == tt.rule }) {
					t.Errorf("no fault of rule %s, but: %v", tt.rule, r.Err())
				}
			})
		}
	}
}

// Each NSEC3 record that an update leaves out, keeps or forgets to relink is
// found.
func TestCheckChanges_FindsEachWrongLink(t *testing.T) {
	keys := testKeys(t, algEd25519)
	lines := strings.Split(strings.TrimSpace(sampleZone), "\n")
	for _, d := range []Denial{NSEC, NSEC3, NSEC3OptOut} {
		p := testParams("example.", d)
		previous, _ := mustSign(t, parse(t, "example.", sampleZone), keys, p)
		p.Serial++
		more := strings.Join(lines, "\n") + "\nnew.ent.example. 60 IN A 192.0.2.1\n"
		good, _ := mustUpdate(t, parse(t, "example.", more), previous, keys, p)
		n := 0
		if err := changesOf(previous, good, zone.KindMade, zone.KindSigs, zone.KindChain, zone.KindChainSigs)(func(key, before, _ []byte) error {
			bad := maps.Clone(good)
			if bad[string(key)] = before; before == nil {
				delete(bad, string(key))
			}
			n++
			if r := mustCheck(t, previous, bad, checkOptions(p)); r.OK() {
				t.Errorf("%s: item %q left as it was: unseen", d, key)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if n < 6 {
			t.Errorf("%s: only %d items changed", d, n)
		}
	}
}
