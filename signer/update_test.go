package signer

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"sluice/signer/zone"
)

// drawChange draws lines on top of others: some go, some come, some change
// their TTL or case.
func drawChange(t *rapid.T, lines []string, step int) []string {
	changed := slices.Clone(lines[:2])
	for i, l := range lines[2:] {
		switch rapid.IntRange(0, 7).Draw(t, fmt.Sprint("fate", step, i)) {
		case 0, 1:
		case 2:
			changed = append(changed, strings.Replace(l, " 60 ", " 61 ", 1))
		case 3:
			changed = append(changed, strings.ToUpper(l[:1])+l[1:])
		case 4:
			ns, _, _ := strings.Cut(l, "\n") // a delegation without its DS
			changed = append(changed, ns)
		default:
			changed = append(changed, l)
		}
	}
	switch rapid.IntRange(0, 5).Draw(t, fmt.Sprint("apex", step)) {
	case 0:
		changed = append(changed, "example. 60 IN DNAME target.test.")
	case 1:
		changed = append(changed, fmt.Sprintf("Example. 60 IN MX %d mail.example.", step))
	case 2:
		changed[0] = fmt.Sprintf("example. 3600 IN SOA ns.example. root%d.example. %d 3600 300 3600000 1800", step, step+1)
	}
	for i := range rapid.IntRange(0, 5).Draw(t, fmt.Sprint("more", step)) {
		changed = append(changed, drawRecord(t, 50*step+i))
	}
	return changed
}

func equalZones(a, b memZone) bool {
	return maps.EqualFunc(a, b, func(x, y []byte) bool { return string(x) == string(y) })
}

// Incremental equals full: with equal times and deterministic keys, updates
// one after the other give the bytes that signing on the previous instance
// and signing anew give.
func TestUpdate_EqualsSign(t *testing.T) {
	keys := testKeys(t, algEd25519)
	rapid.Check(t, func(rt *rapid.T) {
		lines := drawZone(rt)
		p := drawParams(rt)
		p.ZONEMD = false
		z, was := mustSign(t, zoneOf(t, lines...), keys, p)
		for step := range 3 {
			lines = drawChange(rt, lines, step+1)
			p.Serial++
			contents := zoneOf(t, lines...)
			got, res := mustUpdate(t, contents, z, keys, p)
			resigned, again := mustResign(t, contents, z, keys, p)
			want, full := mustSign(t, contents, keys, p)
			if diff := cmp.Diff(want.lines(t), got.lines(t)); diff != "" {
				rt.Fatalf("step %d: zones differ (-full +update):\n%s", step, diff)
			}
			if !equalZones(want, got) || !equalZones(resigned, got) {
				rt.Fatalf("step %d: zones differ in bytes", step)
			}
			if res.SignedSum != full.SignedSum || res.ContentSum != full.ContentSum {
				rt.Fatalf("step %d: result %+v, of full signing %+v", step, res, full)
			}
			d := res.Delta
			if was.Records+d.RecordsAdded-d.RecordsRemoved != full.Records ||
				was.RRsets+d.RRsetsAdded-d.RRsetsRemoved != full.RRsets ||
				was.Signatures+d.SignaturesAdded-d.SignaturesRemoved != full.Signatures {
				rt.Fatalf("step %d: delta %+v from %+v, full %+v", step, d, was, full)
			}
			wantCounts(rt, z, got, was, res, again)
			z, was = got, full
		}
	})
}

// wantCounts holds what an update, and signing on the previous instance, tell of
// the difference against the zones themselves.
func wantCounts(t *rapid.T, before, after memZone, was, update, sign *Result) {
	differs := map[string]bool{}
	for _, pair := range [][2]memZone{{before, after}, {after, before}} {
		for key, value := range pair[0] {
			if len(key) > 2 && isDenial(zone.Kind(key[0]), typeOfKey([]byte(key))) && string(pair[1][key]) != string(value) {
				differs[key] = true
			}
		}
	}
	denial := uint64(len(differs))
	for name, r := range map[string]*Result{"update": update, "sign": sign} {
		if r.DenialChanged != denial {
			t.Fatalf("%s: %d denial records changed, the zones differ in %d", name, r.DenialChanged, denial)
		}
	}
	if was.Signatures-sign.Dropped != sign.Reused {
		t.Fatalf("%d signatures before, %d dropped, %d reused", was.Signatures, sign.Dropped, sign.Reused)
	}
	if update.Dropped != sign.Dropped || update.NewSets != sign.NewSets || update.Made != sign.Made {
		t.Fatalf("update made %d signatures for %d RRsets and dropped %d, sign %d, %d, %d",
			update.Made, update.NewSets, update.Dropped, sign.Made, sign.NewSets, sign.Dropped)
	}
}

// However a change is split, the zone is the same.
func TestUpdate_AnySplitGivesTheSameZone(t *testing.T) {
	keys := testKeys(t, algEd25519)
	rapid.Check(t, func(rt *rapid.T) {
		lines := drawZone(rt)
		p := drawParams(rt)
		p.ZONEMD = false
		z, _ := mustSign(t, zoneOf(t, lines...), keys, p)
		before, after := zoneOf(t, lines...), zoneOf(t, drawChange(rt, lines, 1)...)
		p.Serial++
		whole, _ := mustUpdate(t, after, z, keys, p)
		moved := slices.Clone(after.keys())
		for k := range before {
			if after[k] == nil {
				moved = append(moved, k)
			}
		}
		slices.Sort(moved)
		now := maps.Clone(before)
		for i, k := range rapid.Permutation(moved).Draw(rt, "order") {
			if string(now[k]) == string(after[k]) {
				continue
			}
			if after[k] == nil {
				delete(now, k)
			} else {
				now[k] = after[k]
			}
			if i%2 == 0 {
				z, _ = mustUpdate(t, now, z, keys, p)
			}
		}
		z, _ = mustUpdate(t, now, z, keys, p)
		if diff := cmp.Diff(whole.lines(t), z.lines(t)); diff != "" || !equalZones(whole, z) {
			rt.Fatalf("zones differ (-whole +split):\n%s", diff)
		}
	})
}

// Parameters may change at any time: on top of the previous instance it gives
// what signing anew gives, and changes of contents follow as before.
func TestUpdate_FollowsAChangeOfParameters(t *testing.T) {
	keys := testKeys(t, algEd25519)
	two := append(testKeys(t, algEd25519), testKeys(t, algP256)...)
	rapid.Check(t, func(rt *rapid.T) {
		lines := drawZone(rt)
		p := drawParams(rt)
		p.ZONEMD = false
		z, _ := mustSign(t, zoneOf(t, lines...), keys, p)
		for step := range 3 {
			q := drawParams(rt)
			q.ZONEMD, q.Jitter, q.Serial = false, p.Jitter, p.Serial+1
			q.DNSKEYTTL = uint32(rapid.SampledFrom([]int{60, 3600}).Draw(rt, "dnskey ttl"))
			use := keys
			if rapid.IntRange(0, 3).Draw(rt, "algorithms") == 0 {
				use = two
			}
			minimum := rapid.SampledFrom([]int{60, 1800}).Draw(rt, "minimum")
			lines[0] = fmt.Sprintf("example. 3600 IN SOA ns.example. root.example. %d 3600 300 3600000 %d", step, minimum)
			contents := zoneOf(t, lines...)
			got, res := mustResign(t, contents, z, use, q)
			want, _ := mustSign(t, contents, use, q)
			if !equalZones(want, got) {
				rt.Fatalf("step %d: another zone than signed anew:\n%s", step, cmp.Diff(want.lines(t), got.lines(t)))
			}
			verifyKept(rt, t, got, q, res)
			changed := drawChange(rt, lines, step+1)
			changed[0] = lines[0] // its minimum is the denial records' TTL
			q.Serial++
			contents = zoneOf(t, changed...)
			z, _ = mustUpdate(t, contents, got, use, q)
			if want, _ = mustSign(t, contents, use, q); !equalZones(want, z) {
				rt.Fatalf("step %d: an update differs from full signing:\n%s", step, cmp.Diff(want.lines(t), z.lines(t)))
			}
			lines, p = changed, q
		}
	})
}
