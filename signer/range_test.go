package signer

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"sluice/signer/zone"
)

// between walks the items of one kind whose owner keys lie from from on and
// before to; empty bounds are none.
func (m memZone) between(k zone.Kind, from, to []byte) zone.Iterator {
	var items []zone.Item
	for _, key := range m.keys() {
		if zone.Kind(key[0]) != k {
			continue
		}
		owner := []byte(key[1 : len(key)-2])
		if bytes.Compare(owner, from) >= 0 && (len(to) == 0 || bytes.Compare(owner, to) < 0) {
			items = append(items, zone.Item{Key: []byte(key), Value: m[key]})
		}
	}
	return zone.Slice(items...)
}

// former is what a part reads of a previous instance.
func (m memZone) former(from, to []byte) *Previous {
	if m == nil {
		return nil
	}
	return &Previous{
		Contents: m.between(zone.KindContents, from, to), Made: m.between(zone.KindMade, from, to),
		Sigs: m.between(zone.KindSigs, from, to), Chain: m.between(zone.KindChain, from, to),
		ChainSigs: m.between(zone.KindChainSigs, from, to),
	}
}

// parted signs a zone range by range, and the chain run by run.
type parted struct {
	t        testing.TB
	contents memZone
	previous memZone // nil for none
	keys     []Key
	params   Params
	frame    Frame
	cut      func(what string) bool // whether to cut here
	sink     Sink
	parts    []*Part
	hashes   map[string]string // bitmap by hash
}

func (p *parted) sign() *Result {
	p.t.Helper()
	apex := p.params.Apex
	var dnskey zone.Value
	for k, v := range p.previous {
		if k == string(zone.AppendKey(nil, zone.KindMade, apex, zone.TypeDNSKEY)) {
			dnskey = v
		}
	}
	var err error
	soa := p.contents[string(zone.AppendKey(nil, zone.KindContents, apex, zone.TypeSOA))]
	if p.frame, err = NewFrame(soa, dnskey); err != nil {
		p.t.Fatal(err)
	}
	p.hashes = map[string]string{}
	cut := func(ownerKey []byte, _ uint64) bool { return p.cut(fmt.Sprintf("cut at %q", ownerKey)) }
	if err := split(p.contents.kind(zone.KindContents), apex, cut, p.signRange); err != nil {
		p.t.Fatal(err)
	}
	p.signChain()
	var former *zone.SetHash
	if p.previous != nil {
		former = new(zone.SetHash)
		if err := former.LoadState(p.previous[string([]byte{byte(zone.KindDigest)})]); err != nil {
			p.t.Fatal(err)
		}
	}
	res := Join(p.params, p.contents.contentState(p.t), former, p.parts...)
	if err := p.sink.Put([]byte{byte(zone.KindDigest)}, res.SignedState.AppendState(nil)); err != nil {
		p.t.Fatal(err)
	}
	return res
}

func (p *parted) signRange(rng Range) error {
	keys := p.keys
	if len(rng.From) > 0 {
		keys = slices.Clone(keys)
		for i := range keys {
			if !keys[i].SignsZone {
				keys[i].Signer = nil // only the apex needs it
			}
		}
	}
	in := Input{Contents: p.contents.between(zone.KindContents, rng.From, rng.To), Previous: p.previous.former(rng.From, rng.To)}
	part, err := SignRange(p.t.Context(), rng, p.frame, in, keys, p.params, p.sink, func(hash, bitmap []byte) error {
		if _, ok := p.hashes[string(hash)]; ok {
			return fmt.Errorf("hash %x came twice", hash)
		}
		p.hashes[string(hash)] = string(bitmap)
		return nil
	})
	if err == nil {
		p.parts = append(p.parts, part)
	}
	return err
}

func (p *parted) signChain() {
	for _, part := range p.parts {
		for _, hash := range part.Edges {
			if bitmap := p.hashes[string(hash[:])]; bitmap != "" {
				p.t.Fatalf("edge %x owns something", hash)
			}
			p.hashes[string(hash[:])] = ""
		}
	}
	hashes := slices.Sorted(maps.Keys(p.hashes))
	if len(hashes) == 0 {
		p.signRun(nil, nil, nil, [HashSize]byte{})
		return
	}
	first, from := 0, []byte(nil)
	for i := range hashes {
		if last := i == len(hashes)-1; last || p.cut(fmt.Sprintf("cut behind %x", hashes[i])) {
			next, to := [HashSize]byte([]byte(hashes[0])), []byte(nil)
			if !last {
				next = [HashSize]byte([]byte(hashes[i+1]))
				to = ChainOwnerKey(p.params.Apex, next)
			}
			p.signRun(hashes[first:i+1], from, to, next)
			first, from = i+1, to
		}
	}
}

func (p *parted) signRun(hashes []string, from, to []byte, next [HashSize]byte) {
	items := make([]zone.Item, 0, len(hashes))
	for _, h := range hashes {
		items = append(items, zone.Item{Key: []byte(h), Value: []byte(p.hashes[h])})
	}
	rng := ChainRange{After: next, Hashes: zone.Slice(items...)}
	part, err := SignChain(p.t.Context(), rng, p.frame, Input{Previous: p.previous.former(from, to)}, p.keys, p.params, p.sink)
	if err != nil {
		p.t.Fatal(err)
	}
	p.parts = append(p.parts, part)
}

// equalResults compares what does not depend on how a zone was cut: each part
// checks its own first signatures.
func equalResults(t *rapid.T, want, got *Result) {
	a, b := *want, *got
	a.Verified, b.Verified, a.SignedState, b.SignedState = 0, 0, nil, nil
	if diff := cmp.Diff(a, b); diff != "" {
		t.Fatalf("results differ (-whole +parts):\n%s", diff)
	}
}

// Ranges put together equal the whole in every byte, wherever the zone is cut:
// below delegations and DNAMEs, within empty non-terminals, at wildcards.
func TestSignRange_PartsEqualWhole(t *testing.T) {
	keys := testKeys(t, algEd25519)
	rapid.Check(t, func(rt *rapid.T) {
		contents := parse(t, "example.", strings.Join(drawZone(rt), "\n")+"\n")
		p := drawParams(rt)
		p.ZONEMD = false
		want, full := mustSign(t, contents, keys, p)
		got := maps.Clone(contents)
		parts := &parted{
			t: t, contents: contents, keys: keys, params: p, sink: &orderSink{t, map[byte]string{}, got},
			cut: func(what string) bool { return rapid.Bool().Draw(rt, what) },
		}
		res := parts.sign()
		if !maps.EqualFunc(want, got, bytes.Equal) {
			rt.Fatalf("zones differ (-whole +parts):\n%s", cmp.Diff(want.lines(t), got.lines(t)))
		}
		equalResults(rt, full, res)
	})
}

// The same on top of a previous instance, which may have had other contents,
// keys and parameters.
func TestSignRange_PartsOnPreviousEqualWhole(t *testing.T) {
	keys := testKeys(t, algEd25519)
	other := append(testKeys(t, algEd25519), testKey(t, algEd25519, 256, "zsk 2"))
	rapid.Check(t, func(rt *rapid.T) {
		p := drawParams(rt)
		previous, _ := mustSign(t, parse(t, "example.", strings.Join(drawZone(rt), "\n")+"\n"), keys, p)
		contents := parse(t, "example.", strings.Join(drawZone(rt), "\n")+"\n")
		q := drawParams(rt)
		q.Jitter, q.ZONEMD = p.Jitter, false
		q.Serial++
		use := keys
		if rapid.Bool().Draw(rt, "roll") {
			use = other
			if rapid.Bool().Draw(rt, "slowly") {
				q.Spread = &Spread{}
			}
		}
		want, full := mustResign(t, contents, previous, use, q)
		got := maps.Clone(previous)
		maps.Copy(got, contents)
		maps.DeleteFunc(got, func(k string, _ []byte) bool {
			_, ok := contents[k]
			return zone.Kind(k[0]) == zone.KindContents && !ok
		})
		parts := &parted{
			t: t, contents: contents, previous: previous, keys: use, params: q, sink: &orderSink{t, map[byte]string{}, got},
			cut: func(what string) bool { return rapid.Bool().Draw(rt, what) },
		}
		res := parts.sign()
		if !maps.EqualFunc(want, got, bytes.Equal) {
			rt.Fatalf("zones differ (-whole +parts):\n%s", cmp.Diff(want.lines(t), got.lines(t)))
		}
		equalResults(rt, full, res)
	})
}

// Split's ranges follow each other without a gap, none longer than it has to be.
func TestSplit_RangesFollowEachOther(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		contents := parse(t, "example.", strings.Join(drawZone(rt), "\n")+"\n")
		size := uint64(rapid.IntRange(0, 8).Draw(rt, "size"))
		at, read := []byte(nil), uint64(0)
		err := Split(contents.kind(zone.KindContents), mustName(t, "example."), size, func(r Range) error {
			if !bytes.Equal(r.From, at) {
				return fmt.Errorf("range from %q, want %q", r.From, at)
			}
			at = r.To
			read += r.RRsets
			return nil
		})
		if err != nil || at != nil || int(read) != len(contents) {
			rt.Fatalf("%d of %d RRsets, last %q: %v", read, len(contents), at, err)
		}
	})
	apex := mustName(t, "example.")
	gone := errors.New("enough")
	if err := Split(parse(t, "example.", sampleZone).kind(zone.KindContents), apex, 1, func(Range) error { return gone }); !errors.Is(err, gone) {
		t.Fatalf("error of the function became %v", err)
	}
	for what, it := range map[string]zone.Iterator{
		"no contents":  zone.Slice(),
		"disk gone":    failing{zone.Slice()},
		"out of order": parse(t, "example.", "example. 60 IN A 192.0.2.1\nother.test. 60 IN A 192.0.2.1\n").kind(zone.KindContents),
	} {
		if err := Split(it, apex, 1, func(Range) error { return nil }); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Contents that are not those of the range are refused, whatever is wrong.
func TestSignRange_OtherContentsAreRefused(t *testing.T) {
	contents := parse(t, "example.", sampleZone)
	keys, p := testKeys(t, algEd25519), testParams("example.", NSEC)
	frame, err := NewFrame(contents[keyOf(t, zone.KindContents, "example.", zone.TypeSOA)], nil)
	if err != nil {
		t.Fatal(err)
	}
	var ranges []Range
	err = Split(contents.kind(zone.KindContents), p.Apex, 5, func(r Range) error {
		ranges = append(ranges, r)
		return nil
	})
	if err != nil || len(ranges) < 3 {
		t.Fatal(len(ranges), err)
	}
	sign := func(r Range, it zone.Iterator, p Params) error {
		_, err := SignRange(t.Context(), r, frame, Input{Contents: it}, keys, p, memZone{}, nil)
		return err
	}
	here := func(r Range) zone.Iterator { return contents.between(zone.KindContents, r.From, r.To) }
	r := ranges[1]
	if err := sign(r, here(r), p); err != nil {
		t.Fatal(err)
	}
	fewer := r
	fewer.RRsets++
	for what, err := range map[string]error{
		"before": sign(r, contents.between(zone.KindContents, nil, r.To), p),
		"behind": sign(r, contents.between(zone.KindContents, r.From, nil), p),
		"fewer":  sign(fewer, here(r), p),
		"other":  sign(r, here(ranges[2]), p),
	} {
		if !errors.Is(err, errBeyond) {
			t.Errorf("%s: %v", what, err)
		}
	}
	p.ZONEMD = true
	if err := sign(r, here(r), p); !errors.Is(err, ErrWhole) {
		t.Errorf("with ZONEMD: %v", err)
	}
	p.ZONEMD = false
	keys[1].Signer = nil
	if err := sign(r, here(r), p); err == nil || !strings.Contains(err.Error(), "no private key") {
		t.Errorf("without the key of the zone: %v", err)
	}
}

// A sample is one of the whole zone: it does not grow with the number of parts.
func TestSignRange_SampleDoesNotGrowWithParts(t *testing.T) {
	var b strings.Builder
	b.WriteString("example. 60 IN SOA ns.example. root.example. 1 1 1 1 60\nexample. 60 IN NS ns.example.\n")
	for i := range 400 {
		fmt.Fprintf(&b, "n%03d.example. 60 IN A 192.0.2.1\n", i)
	}
	p := testParams("example.", NSEC)
	p.VerifyAll = false
	names := 0
	parts := &parted{
		t: t, contents: parse(t, "example.", b.String()), keys: testKeys(t, algP256), params: p, sink: memZone{},
		cut: func(string) bool { names++; return names%100 == 0 },
	}
	parts.sign()
	if len(parts.parts) != 6 { // the last deletes a chain that there is not
		t.Fatalf("%d parts", len(parts.parts))
	}
	for i, part := range parts.parts {
		want := part.Made // the first is checked up to 1,000
		if i > 0 {
			want = min(part.Made, partVerified) + part.Made/SampleEvery
		}
		if part.Verified != want {
			t.Errorf("part %d: %d of %d signatures checked, want %d", i, part.Verified, part.Made, want)
		}
	}
}
