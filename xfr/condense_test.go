package xfr

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"sluice/signer/zone"
)

// modelZone is the records of a zone: of each item key (Contents and Made
// apart) one TTL, one owner and a set of RDATA.
type modelZone map[string]modelSet

type modelSet struct {
	kind  zone.Kind
	owner string
	ttl   uint32
	data  string // each byte an RDATA
}

// modelNames are the names and types of the model; DNSKEY at the apex may
// move between kinds.
func modelKeys() []struct {
	owner zone.Name
	kinds []zone.Kind
	t     zone.Type
} {
	return []struct {
		owner zone.Name
		kinds []zone.Kind
		t     zone.Type
	}{
		{"\x07example\x00", []zone.Kind{zone.KindContents, zone.KindMade}, zone.TypeDNSKEY},
		{"\x07example\x00", []zone.Kind{zone.KindContents}, zone.TypeTXT},
		{"\x07example\x00", []zone.Kind{zone.KindSigs}, zone.TypeTXT},
		{"\x01a\x07example\x00", []zone.Kind{zone.KindContents}, zone.TypeTXT},
		{"\x01a\x07example\x00", []zone.Kind{zone.KindMade}, zone.TypeNSEC},
		{"\x01b\x07example\x00", []zone.Kind{zone.KindContents}, zone.TypeDNSKEY},
	}
}

// draw makes the next version: each RRset is left, changed or dropped.
func (z modelZone) draw(t *rapid.T) modelZone {
	next := maps.Clone(z)
	for i, k := range modelKeys() {
		name := fmt.Sprint(i)
		switch rapid.IntRange(0, 3).Draw(t, "what becomes of "+name) {
		case 0:
			delete(next, name)
		case 1, 2:
			owner := []byte(k.owner)
			if rapid.Bool().Draw(t, "upper case") {
				owner[1] -= 'a' - 'A'
			}
			data := rapid.SliceOfNDistinct(rapid.ByteRange(1, 5), 1, 4, rapid.ID).Draw(t, "records")
			slices.Sort(data)
			next[name] = modelSet{
				rapid.SampledFrom(k.kinds).Draw(t, "kind"), string(owner),
				rapid.Uint32Range(1, 2).Draw(t, "TTL"), string(data),
			}
		}
	}
	return next
}

// diffHalf is what stands in a but not in b, as the store writes it: under
// the kind of the newer version, or of the older one where there is none.
func diffHalf(a, b, older, newer modelZone) []item {
	var out []item
	for i, k := range modelKeys() {
		name := fmt.Sprint(i)
		set, ok := a[name]
		if !ok {
			continue
		}
		other, both := b[name]
		both = both && other.owner == set.owner && other.ttl == set.ttl
		var data [][]byte
		for _, c := range []byte(set.data) {
			if !both || !bytes.Contains([]byte(other.data), []byte{c}) {
				data = append(data, []byte{c})
			}
		}
		if len(data) == 0 {
			continue
		}
		kind := set.kind
		if o, ok := older[name]; ok {
			kind = max(kind, o.kind)
		}
		if n, ok := newer[name]; ok {
			kind = max(kind, n.kind)
		}
		out = append(out, item{zone.AppendKey(nil, kind, k.owner, k.t), zone.AppendValue(nil, zone.Name(set.owner), set.ttl, data...)})
	}
	return byKey(out)
}

func (z modelZone) step(next modelZone, from zone.Serial) *memDiff {
	return &memDiff{from: from, to: from + 1, removed: diffHalf(z, next, z, next), added: diffHalf(next, z, z, next), size: 1}
}

// flat is the records of a diff's half, kinds left out.
func flat(t *rapid.T, open func() (zone.Iterator, error)) []string {
	it, err := open()
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	var before []byte
	for it.Next() {
		if bytes.Compare(before, it.Key()) > 0 {
			t.Fatalf("key %x after %x", it.Key(), before)
		}
		before = append(before[:0], it.Key()...)
		v := zone.Value(it.Value())
		if err := v.Check(); err != nil {
			t.Fatal(err)
		}
		_, owner, rtype, err := zone.SplitKey(it.Key())
		if err != nil {
			t.Fatal(err)
		}
		sigs := zone.Kind(it.Key()[0]) == zone.KindSigs
		for d := range v.Records() {
			out = append(out, fmt.Sprintf("%x %s %d sigs %v: %d %x", owner, v.Owner(), rtype, sigs, v.TTL(), d))
		}
	}
	if err := errors.Join(it.Err(), it.Close()); err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

func TestRFC1995_6_CondensedIsTheNetDifference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		first := modelZone{}.draw(t)
		now := first
		var diffs []Diff
		for i := range rapid.IntRange(2, 6).Draw(t, "steps") {
			next := now.draw(t)
			diffs = append(diffs, now.step(next, zone.Serial(i)))
			now = next
		}
		got := condense(diffs, "\x07Example\x00")
		if len(got) != 1 || got[0].From() != 0 || got[0].To() != zone.Serial(len(diffs)) {
			t.Fatalf("%d steps, from %d to %d", len(got), got[0].From(), got[0].To())
		}
		want := first.step(now, 0)
		if d := cmp.Diff(flat(t, want.Removed), flat(t, got[0].Removed)); d != "" {
			t.Errorf("removed: %s", d)
		}
		if d := cmp.Diff(flat(t, want.Added), flat(t, got[0].Added)); d != "" {
			t.Errorf("added: %s", d)
		}
	})
}

func TestCondense_ManyStepsBecomeFew(t *testing.T) {
	var diffs []Diff
	for i := range uint32(2*maxCondense + 1) {
		diffs = append(diffs, exampleDiff(t, i, i+1))
	}
	got := condense(diffs, "\x07Example\x00")
	if len(got) != 3 || !joined(got, 0, zone.Serial(len(diffs))) || got[2] != diffs[len(diffs)-1] {
		t.Errorf("%d steps", len(got))
	}
	sum := int64(0)
	for _, d := range got {
		sum += d.Bytes()
	}
	if sum != int64(400*len(diffs)) {
		t.Errorf("%d bytes", sum)
	}
}

func TestCondense_DamageIsTold(t *testing.T) {
	good, bad := exampleDiff(t, 3, 5), exampleDiff(t, 5, 7)
	for fact, items := range map[string][]item{
		"not in order":   {bad.added[1], bad.added[0]},
		"a key twice":    {bad.added[0], bad.added[0]},
		"a short key":    {{[]byte{1}, bad.added[0].value}},
		"a broken value": {{bad.added[0].key, bad.added[0].value[:6]}},
	} {
		it, err := condense([]Diff{good, &memDiff{from: 5, to: 7, removed: items}}, "\x07Example\x00")[0].Removed()
		if err != nil {
			t.Fatal(err)
		}
		for it.Next() {
		}
		if !errors.Is(it.Err(), errBadItem) {
			t.Errorf("%s: %v", fact, it.Err())
		}
		if err := it.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestIXFR_AXFROnlyPeersGetTheZone(t *testing.T) {
	view := &onlyView{memView: ixfrView(t)}
	addr, _ := startServer(t, Config{Source: viewSource{view}})
	for _, tc := range []struct {
		only bool
		have uint32
		want TransferKind
	}{{false, 5, IXFR}, {true, 5, AXFR}, {true, 7, UpToDate}} {
		view.only = tc.only
		r, err := NewClient(ClientConfig{}).Transfer(t.Context(), endpoint(t, addr), exampleName, serialOf(tc.have), new(memSink))
		if err != nil || r.Kind != tc.want {
			t.Errorf("%+v: %v, %v", tc, r.Kind, err)
		}
	}
}

// onlyView is a view that may keep peers to AXFR.
type onlyView struct {
	*memView
	only bool
}

func (v *onlyView) AXFROnly(Peer) bool { return v.only }

type viewSource struct{ view View }

func (v viewSource) View(zone.Name) (View, error) { return v.view, nil }

// BenchmarkCondense makes one step of 30 that change 100 RRsets each, half of
// them in common.
func BenchmarkCondense(b *testing.B) {
	var diffs []Diff
	for step := range uint32(30) {
		d := &memDiff{from: zone.Serial(step), to: zone.Serial(step + 1)}
		for i := range uint32(100) {
			n := i
			if i%2 == 0 {
				n += 1000 * step
			}
			owner := zone.Name(fmt.Sprintf("\x08%08d\x07example\x00", n))
			key := zone.AppendKey(nil, zone.KindContents, owner, zone.TypeA)
			d.removed = append(d.removed, item{key, zone.AppendValue(nil, owner, 300, []byte{1, 2, 3, byte(step)})})
			d.added = append(d.added, item{key, zone.AppendValue(nil, owner, 300, []byte{1, 2, 3, byte(step + 1)})})
		}
		d.removed, d.added = byKey(d.removed), byKey(d.added)
		diffs = append(diffs, d)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := measure(condense(diffs, exampleName), 1<<40); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(2*6000*b.N)/b.Elapsed().Seconds()/1e6, "Mrecords/s")
}
