package signer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/signer/zone"
)

// sameAsSign updates previous to lines and compares with signing anew.
func sameAsSign(t *testing.T, previous memZone, keys []Key, p Params, lines []string) (memZone, *Result) {
	t.Helper()
	contents := zoneOf(t, lines...)
	got, res := mustUpdate(t, contents, previous, keys, p)
	want, _ := mustSign(t, contents, keys, p)
	if !equalZones(got, want) {
		t.Errorf("differs from full signing:\ngot:\n%s\nwant:\n%s", strings.Join(got.lines(t), "\n"), strings.Join(want.lines(t), "\n"))
	}
	if r := mustCheck(t, previous, got, checkOptions(p)); !r.OK() {
		t.Errorf("check: %v", r.Err())
	}
	if r := mustVerify(t, got, p, nil); !r.OK() {
		t.Errorf("verify: %v", r.Err())
	}
	return got, res
}

const testDS = " 60 IN DS 1 13 2 00112233445566778899AABBCCDDEEFF00112233445566778899AABBCCDDEEFF"

// Each row is a zone and what is added to it; the change is also taken back.
func TestUpdate_Cases(t *testing.T) {
	apex := []string{
		"example. 3600 IN SOA ns.example. root.example. 1 3600 300 3600000 1800",
		"example. 3600 IN NS ns.example.",
	}
	tests := []struct {
		name      string
		base, add []string
	}{
		{"first name", []string{"m.example. 60 IN A 192.0.2.1"}, []string{`\000.example. 60 IN A 192.0.2.2`}},
		{"last name", []string{"m.example. 60 IN A 192.0.2.1"}, []string{`\255.example. 60 IN A 192.0.2.2`}},
		{"only name below the apex", nil, []string{"m.example. 60 IN A 192.0.2.1"}},
		{"wildcard", []string{"m.example. 60 IN A 192.0.2.1"}, []string{"*.example. 60 IN A 192.0.2.2", "*.m.example. 60 IN TXT x"}},
		{"apex RRset", []string{"m.example. 60 IN A 192.0.2.1"}, []string{"example. 60 IN MX 1 m.example.", "example. 60 IN TYPE65280 \\# 1 00"}},
		{"another type at a name", []string{"m.example. 60 IN A 192.0.2.1"}, []string{"m.example. 60 IN AAAA ::1"}},
		{"empty non-terminals", []string{"b.example. 60 IN A 192.0.2.1"}, []string{"a.b.c.d.example. 60 IN A 192.0.2.2", "x.y.b.example. 60 IN A 192.0.2.3"}},
		{"name at an empty non-terminal", []string{"a.b.c.example. 60 IN A 192.0.2.1"}, []string{"c.example. 60 IN A 192.0.2.2"}},
		{"cut with glue", []string{"m.example. 60 IN A 192.0.2.1"}, []string{"c.example. 60 IN NS ns.c.example.", "ns.c.example. 60 IN A 192.0.2.2"}},
		{
			"cut over names",
			[]string{"a.c.example. 60 IN A 192.0.2.1", "x.y.z.c.example. 60 IN A 192.0.2.1", "z.c.example. 60 IN TXT z", "d.example. 60 IN A 192.0.2.1"},
			[]string{"c.example. 60 IN NS ns.test."},
		},
		{"secure cut over names", []string{"a.c.example. 60 IN A 192.0.2.1", "x.y.c.example. 60 IN A 192.0.2.1"}, []string{"c.example. 60 IN NS ns.test.", "c.example." + testDS}},
		{"cut over a cut", []string{"a.c.example. 60 IN NS ns.test.", "a.c.example." + testDS, "g.a.c.example. 60 IN A 192.0.2.1"}, []string{"c.example. 60 IN NS ns.test."}},
		{"cut at a name", []string{"c.example. 60 IN A 192.0.2.1", "c.example. 60 IN TXT x"}, []string{"c.example. 60 IN NS ns.test."}},
		{"DNAME over names", []string{"a.c.example. 60 IN A 192.0.2.1", "c.example. 60 IN A 192.0.2.1"}, []string{"c.example. 60 IN DNAME x.test."}},
		{"DNAME at the apex", []string{"a.c.example. 60 IN A 192.0.2.1", "b.example. 60 IN NS ns.test."}, []string{"example. 60 IN DNAME x.test."}},
		{"data below a cut", []string{"c.example. 60 IN NS ns.test."}, []string{"a.c.example. 60 IN A 192.0.2.1", "b.a.c.example. 60 IN NS ns.test.", "d.c.example. 60 IN DNAME x.test."}},
		{"DS at a cut", []string{"c.example. 60 IN NS ns.test."}, []string{"c.example." + testDS}},
		{"DS at a cut below an empty non-terminal", []string{"c.e.example. 60 IN NS ns.test.", "d.e.example. 60 IN NS ns.test."}, []string{"c.e.example." + testDS}},
		{"DS at a cut beside another one", []string{"c.e.example. 60 IN NS ns.test.", "d.f.e.example. 60 IN NS ns.test.", "d.f.e.example." + testDS}, []string{"c.e.example." + testDS}},
		{"insecure cuts below an empty non-terminal", []string{"m.example. 60 IN A 192.0.2.1"}, []string{"c.e.example. 60 IN NS ns.test.", "d.e.example. 60 IN NS ns.test."}},
		{"two nested cuts at once", []string{"x.a.c.example. 60 IN A 192.0.2.1", "y.c.example. 60 IN A 192.0.2.1"}, []string{"c.example. 60 IN NS ns.test.", "a.c.example. 60 IN NS ns.test."}},
		{"escaped labels", []string{`a\.b.example. 60 IN A 192.0.2.1`}, []string{`\000\001.a\.b.example. 60 IN A 192.0.2.2`, `\001.example. 60 IN NS ns.test.`}},
	}
	keys := testKeys(t, algEd25519)
	for _, d := range []Denial{NSEC, NSEC3, NSEC3OptOut} {
		for _, tt := range tests {
			t.Run(fmt.Sprintf("%s/%s", d, tt.name), func(t *testing.T) {
				p := testParams("example.", d)
				base := slices.Concat(apex, tt.base)
				z, _ := mustSign(t, zoneOf(t, base...), keys, p)
				p.Serial++
				z, _ = sameAsSign(t, z, keys, p, slices.Concat(base, tt.add))
				p.Serial++
				sameAsSign(t, z, keys, p, base)
			})
		}
	}
}

func TestUpdate_NothingButTheSOAChanges(t *testing.T) {
	keys := testKeys(t, algEd25519)
	for _, d := range []Denial{NSEC, NSEC3, NSEC3OptOut} {
		p := testParams("example.", d)
		contents := parse(t, "example.", sampleZone)
		previous, _ := mustSign(t, contents, keys, p)
		p.Serial++
		sink := &countSink{}
		res, err := Update(t.Context(), updateInput(t, contents, previous), keys, p, sink)
		if err != nil {
			t.Fatal(err)
		}
		if sink.items != 3 || res.Made != 1 || res.Delta.SignaturesAdded != 1 || res.Delta.RRsetsAdded != 1 {
			t.Errorf("%s: %d items, %+v; want SOA, its RRSIG, digest", d, sink.items, res)
		}
		p.Serial--
		if res, err = Update(t.Context(), updateInput(t, contents, previous), keys, p, sink); err != nil || res.Made != 0 || !res.Earliest.IsZero() {
			t.Errorf("%s: %+v, %v; nothing has changed", d, res, err)
		}
	}
}

// dueIn lists signature items whose expiration is before a moment.
func dueIn(z memZone, before time.Time) func(fn func(key []byte) error) error {
	return func(fn func(key []byte) error) error {
		for _, k := range z.keys() {
			if kind := zone.Kind(k[0]); kind != zone.KindSigs && kind != zone.KindChainSigs {
				continue
			}
			for rdata := range zone.Value(z[k]).Records() {
				expiration := uint32(rdata[8])<<24 | uint32(rdata[9])<<16 | uint32(rdata[10])<<8 | uint32(rdata[11])
				if serialTimeBefore(expiration, uint32(before.Unix())) {
					if err := fn([]byte(k)); err != nil {
						return err
					}
					break
				}
			}
		}
		return nil
	}
}

// A refresh of what is due equals what Sign refreshes by itself.
func TestUpdate_DueEqualsRefreshOfSign(t *testing.T) {
	keys := testKeys(t, algEd25519)
	for _, d := range []Denial{NSEC, NSEC3, NSEC3OptOut} {
		p := testParams("example.", d)
		p.Jitter = 4 * 24 * time.Hour
		contents := parse(t, "example.", sampleZone)
		previous, full := mustSign(t, contents, keys, p)
		p.Serial++
		p.Inception, p.Expiration = p.Inception.Add(7*24*time.Hour), p.Expiration.Add(7*24*time.Hour)
		p.Refresh = full.Earliest.Add(2 * 24 * time.Hour)
		want, resigned := mustResign(t, contents, previous, keys, p)
		if resigned.Made < 4 || resigned.Reused < 4 {
			t.Fatalf("%s: %d made, %d reused: not a slice", d, resigned.Made, resigned.Reused)
		}
		in := updateInput(t, contents, previous)
		in.Due = dueIn(previous, p.Refresh)
		got := apply(contents, previous)
		res, err := Update(t.Context(), in, keys, p, &orderSink{t, map[byte]string{}, got})
		if err != nil {
			t.Fatal(err)
		}
		if !equalZones(got, want) || res.Made != resigned.Made || res.SignedSum != resigned.SignedSum {
			t.Errorf("%s: made %d, Sign made %d", d, res.Made, resigned.Made)
		}
		o := checkOptions(p)
		o.At = p.Inception.Add(time.Hour)
		if r := mustCheck(t, previous, got, o); !r.OK() {
			t.Errorf("%s: %v", d, r.Err())
		}
	}
}

// What is due is made anew though it would last, and what is not there is
// passed over.
func TestUpdate_DueIsMadeAnew(t *testing.T) {
	keys := testKeys(t, algEd25519)
	p := testParams("example.", NSEC3)
	contents := zoneOf(t, "example. 60 IN SOA a. b. 1 2 3 4 5", "example. 60 IN NS ns.test.", "a.example. 60 IN A 192.0.2.1")
	previous, _ := mustSign(t, contents, keys, p)
	p.Serial++
	p.Inception, p.Expiration = p.Inception.Add(time.Hour), p.Expiration.Add(time.Hour)
	in := updateInput(t, contents, previous)
	in.Due = func(fn func(key []byte) error) error {
		return errors.Join(
			fn([]byte(keyOf(t, zone.KindSigs, "a.example.", zone.TypeA))),
			fn([]byte(keyOf(t, zone.KindSigs, "a.example.", zone.TypeMX))),
			fn([]byte(keyOf(t, zone.KindSigs, "nowhere.example.", zone.TypeA))),
			fn([]byte(keyOf(t, zone.KindChainSigs, "nowhere.example.", zone.TypeNSEC3))),
			fn([]byte(keyOf(t, zone.KindChainSigs, strings.Repeat("0", 32)+".example.", zone.TypeNSEC3))),
		)
	}
	res, err := Update(t.Context(), in, keys, p, &countSink{})
	if err != nil || res.Made != 2 {
		t.Errorf("made %+v, %v; want the SOA's and one A's", res, err)
	}
}

// What the keys do may change where the DNSKEY RRset does not: CDS at once,
// signatures as Due says.
func TestUpdate_KeysMayChangeTheirPart(t *testing.T) {
	keys := append(testKeys(t, algEd25519), testKey(t, algEd25519, 256, "zsk 2"))
	keys[2].SignsZone = false
	later := slices.Clone(keys)
	later[0].CDS, later[1].SignsZone, later[2].SignsZone = false, false, true
	contents := parse(t, "example.", sampleZone)
	for _, d := range []Denial{NSEC, NSEC3, NSEC3OptOut} {
		p := testParams("example.", d)
		previous, _ := mustSign(t, contents, keys, p)
		p.Serial++
		want, _ := mustResign(t, contents, previous, later, p)
		in := updateInput(t, contents, previous)
		in.Due = dueIn(previous, p.Expiration.Add(time.Second))
		got := apply(contents, previous)
		if _, err := Update(t.Context(), in, later, p, &orderSink{t, map[byte]string{}, got}); err != nil {
			t.Fatal(err)
		}
		if !equalZones(got, want) {
			t.Errorf("%s: differs from signing on the previous instance:\n%s", d, strings.Join(got.lines(t), "\n"))
		}
		// Without Due what did not change stays, and verifies.
		half, _ := mustUpdate(t, contents, previous, later, p)
		if r := mustVerify(t, half, p, nil); !r.OK() {
			t.Errorf("%s: %v", d, r.Err())
		}
		if r := mustCheck(t, previous, half, checkOptions(p)); !r.OK() {
			t.Errorf("%s: %v", d, r.Err())
		}
	}
}

func TestUpdate_ErrFull(t *testing.T) {
	lines := strings.Split(strings.TrimSpace(sampleZone), "\n")
	contents := parse(t, "example.", strings.Join(lines, "\n")+"\n")
	keys := testKeys(t, algEd25519)
	base := testParams("example.", NSEC3)
	previous, _ := mustSign(t, contents, keys, base)
	tests := []struct {
		name   string
		params func(*Params)
		keys   []Key
		input  func(*UpdateInput)
	}{
		{name: "ZONEMD", params: func(p *Params) { p.ZONEMD = true }},
		{name: "NSEC", params: func(p *Params) { p.Denial = NSEC }},
		{name: "opt-out", params: func(p *Params) { p.Denial = NSEC3OptOut }},
		{name: "salt", params: func(p *Params) { p.Salt = []byte{1} }},
		{name: "iterations", params: func(p *Params) { p.Iterations = 1 }},
		{name: "key", keys: append(testKeys(t, algEd25519), testKey(t, algEd25519, 256, "zsk 2"))},
		{name: "TTL of DNSKEY", params: func(p *Params) { p.DNSKEYTTL++ }},
		{name: "no previous instance", input: func(in *UpdateInput) { in.Previous = nil }},
		{name: "previous instance unsigned", input: func(in *UpdateInput) { in.Previous = newMemAccess(contents) }},
		{name: "SOA minimum", input: func(in *UpdateInput) {
			z := parse(t, "example.", sampleZone)
			z.set(zone.KindContents, mustName(t, "example."), zone.TypeSOA, 7, []byte("\x00\x00"+strings.Repeat("\x00", 19)+"\x07"))
			in.Contents = newMemAccess(z)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, use, in := base, keys, updateInput(t, contents, previous)
			if tt.params != nil {
				tt.params(&p)
			}
			if tt.keys != nil {
				use = tt.keys
			}
			if tt.input != nil {
				tt.input(&in)
			}
			if _, err := Update(t.Context(), in, use, p, &countSink{}); !errors.Is(err, ErrFull) {
				t.Errorf("got %v, want ErrFull", err)
			}
		})
	}
}

func TestUpdate_BadInput(t *testing.T) {
	contents := parse(t, "example.", sampleZone)
	keys := testKeys(t, algEd25519)
	p := testParams("example.", NSEC3)
	previous, _ := mustSign(t, contents, keys, p)
	key := func(name string, typ zone.Type) []byte { return []byte(keyOf(t, zone.KindContents, name, typ)) }
	good := zone.AppendValue(nil, zone.Root, 60, []byte{192, 0, 2, 1})
	changes := func(keys ...[]byte) func(*UpdateInput) {
		return func(in *UpdateInput) {
			in.Changes = func(fn func(key, before, after []byte) error) error {
				for _, k := range keys {
					if err := fn(k, nil, good); err != nil {
						return err
					}
				}
				return nil
			}
		}
	}
	tests := []struct {
		name  string
		input func(*UpdateInput)
		want  string
	}{
		{"no contents", func(in *UpdateInput) { in.Contents = nil }, "no contents"},
		{"no spill", func(in *UpdateInput) { in.Spill = nil }, "no spill"},
		{"changes out of order", changes(key("b.example.", zone.TypeA), key("a.example.", zone.TypeA)), "out of order"},
		{"changes twice", changes(key("b.example.", zone.TypeA), key("b.example.", zone.TypeA)), "out of order"},
		{"changes of another kind", changes([]byte(keyOf(t, zone.KindMade, "b.example.", zone.TypeA))), "out of order"},
		{"changes beyond the apex", changes(key("b.test.", zone.TypeA)), "beyond the apex"},
		{"changes with a malformed key", changes([]byte{byte(zone.KindContents), 1}), "malformed"},
		{"changes with a malformed value", func(in *UpdateInput) {
			in.Changes = func(fn func(key, before, after []byte) error) error {
				return fn(key("b.example.", zone.TypeA), good[:7], nil)
			}
		}, "malformed"},
		{"what is due of another kind", func(in *UpdateInput) {
			in.Due = func(fn func(key []byte) error) error { return fn(key("b.example.", zone.TypeA)) }
		}, "due"},
		{"contents without SOA", func(in *UpdateInput) {
			z := parse(t, "example.", sampleZone)
			delete(z, string(key("example.", zone.TypeSOA)))
			in.Contents = newMemAccess(z)
		}, "no SOA"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := updateInput(t, contents, previous)
			tt.input(&in)
			if _, err := Update(t.Context(), in, keys, p, &countSink{}); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Update(ctx, updateInput(t, contents, previous), keys, p, &countSink{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// Whichever read fails, the error comes out.
func TestUpdate_EveryFailingReadIsTold(t *testing.T) {
	keys := testKeys(t, algEd25519)
	lines := []string{
		"example. 60 IN SOA a. b. 1 2 3 4 5", "example. 60 IN NS ns.test.",
		"a.b.example. 60 IN NS ns.test.", "c.b.example. 60 IN A 192.0.2.1", "d.example. 60 IN A 192.0.2.1",
	}
	after := append(slices.Clone(lines[:3]), "b.example. 60 IN NS ns.test.", "x.y.example. 60 IN A 192.0.2.1", "a.b.example."+testDS)
	for _, d := range []Denial{NSEC, NSEC3OptOut} {
		p := testParams("example.", d)
		previous, _ := mustSign(t, zoneOf(t, lines...), keys, p)
		contents := zoneOf(t, after...)
		signed, _ := mustUpdate(t, contents, previous, keys, p)
		for which := range 2 {
			for n := 1; ; n++ {
				in := updateInput(t, contents, previous)
				fails := []Access{in.Contents, in.Previous}[which].(*memAccess)
				fails.fail = n
				_, err := Update(t.Context(), in, keys, p, &countSink{})
				if fails.calls < n {
					if err != nil || n < 10 {
						t.Fatalf("%s: %d reads: %v", d, n, err)
					}
					break
				}
				if !errors.Is(err, errAccess) {
					t.Fatalf("%s: access %d, read %d of %d: %v", d, which, n, fails.calls, err)
				}
			}
			for n := 1; ; n++ {
				in := checkInput(t, previous, signed)
				fails := []Access{in.Signed, in.Previous}[which].(*memAccess)
				fails.fail = n
				_, err := CheckChanges(t.Context(), in, checkOptions(p))
				if fails.calls < n {
					if err != nil || n < 3 {
						t.Fatalf("%s: check, %d reads: %v", d, n, err)
					}
					break
				}
				if !errors.Is(err, errAccess) {
					t.Fatalf("%s: check, access %d, read %d of %d: %v", d, which, n, fails.calls, err)
				}
			}
		}
	}
}

// The cost of a change does not follow the zone: reads are counted.
func TestUpdate_ReadsFollowTheChange(t *testing.T) {
	keys := testKeys(t, algEd25519)
	for _, d := range []Denial{NSEC, NSEC3, NSEC3OptOut} {
		p := testParams("example.", d)
		var zones []memZone
		var lines [][]string
		for _, names := range []int{40, 400} {
			list := []string{"example. 60 IN SOA a. b. 1 2 3 4 5", "example. 60 IN NS ns.test."}
			for i := range names {
				// An empty non-terminal with nothing but delegations, one with DS.
				list = append(list, fmt.Sprintf("n%d.e.example. 60 IN NS ns.test.", i))
			}
			list = append(list, "n5.e.example."+testDS)
			z, _ := mustSign(t, zoneOf(t, list...), keys, p)
			zones, lines = append(zones, z), append(lines, list)
		}
		for _, change := range [][]string{
			{"n5.e.example." + testDS},                 // the last DS goes
			{"", "n6.e.example." + testDS},             // another one comes
			{"n7.e.example. 60 IN NS ns.test."},        // a delegation goes
			{"", "new.x.y.example. 60 IN A 192.0.2.1"}, // a name comes
			{"n5.e.example. 60 IN NS ns.test."},        // DS without NS: no delegation
			{"", "a.n5.e.example. 60 IN A 192.0.2.1"},  // glue comes
			{"", "e.example. 60 IN TXT x"},             // the empty non-terminal is none
		} {
			var reads, checks []int
			for i, z := range zones {
				after := slices.DeleteFunc(slices.Clone(lines[i]), func(l string) bool { return l == change[0] })
				in := updateInput(t, zoneOf(t, append(after, change[1:]...)...), z)
				if _, err := Update(t.Context(), in, keys, p, &countSink{}); err != nil {
					t.Fatal(err)
				}
				reads = append(reads, in.Contents.(*memAccess).calls+in.Previous.(*memAccess).calls)
				signed, _ := mustUpdate(t, zoneOf(t, append(after, change[1:]...)...), z, keys, p)
				check := checkInput(t, z, signed)
				if r, err := CheckChanges(t.Context(), check, checkOptions(p)); err != nil || !r.OK() {
					t.Fatal(err, r.Err())
				}
				checks = append(checks, check.Signed.(*memAccess).calls+check.Previous.(*memAccess).calls)
			}
			for _, n := range [][]int{reads, checks} {
				if n[1] > n[0]+10 || n[0] > 200 {
					t.Errorf("%s: change %q took %d reads in a small zone, %d in a large one", d, change, n[0], n[1])
				}
			}
		}
	}
}

// In the root zone nothing is above the apex.
func TestUpdate_RootZone(t *testing.T) {
	keys := testKeys(t, algEd25519)
	for _, d := range []Denial{NSEC, NSEC3, NSEC3OptOut} {
		p := testParams(".", d)
		p.Apex = zone.Root
		base := ". 60 IN SOA a. b. 1 2 3 4 5\n. 60 IN NS a.\na. 60 IN A 192.0.2.1\n"
		z, _ := mustSign(t, parse(t, ".", base), keys, p)
		for _, more := range []string{
			"com. 60 IN NS a.\n", "com. 60 IN NS a.\ncom." + testDS + "\nx.y.org. 60 IN A 192.0.2.1\n",
			". 60 IN DNAME test.\norg. 60 IN A 192.0.2.1\n", "",
		} {
			p.Serial++
			contents := parse(t, ".", base+more)
			got, _ := mustUpdate(t, contents, z, keys, p)
			if want, _ := mustSign(t, contents, keys, p); !equalZones(got, want) {
				t.Errorf("%s: %q differs from full signing:\n%s", d, more, strings.Join(got.lines(t), "\n"))
			}
			if r := mustCheck(t, z, got, checkOptions(p)); !r.OK() {
				t.Errorf("%s: %q: %v", d, more, r.Err())
			}
			z = got
		}
	}
}

// No owner key makes hashOfKey fall over, and what it takes is a hash.
func FuzzHashOfKey(f *testing.F) {
	apexKey := zone.AppendOwnerKey(nil, "\x07example\x00")
	f.Add(appendHashKey(nil, apexKey, [20]byte{1, 2, 3}))
	f.Add(apexKey)
	f.Add([]byte("example\x00" + strings.Repeat("0", nsec3Hashed+2)))
	f.Add([]byte("example\x00zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz\x00\x00"))
	f.Fuzz(func(t *testing.T, ownerKey []byte) {
		hash, err := hashOfKey(apexKey, ownerKey)
		if err == nil && string(appendHashKey(nil, apexKey, hash)) != string(ownerKey) {
			t.Errorf("%q became %x", ownerKey, hash)
		}
	})
}
