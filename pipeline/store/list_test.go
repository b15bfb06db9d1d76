package store

import (
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"sluice/signer/zone"
	"sluice/xfr"
)

// View lacks only Allows of what listeners read.
var (
	_ xfr.View = struct {
		*View
		allows
	}{}
	_ xfr.Diff = (*Diff)(nil)
)

type allows struct{}

func (allows) Allows(xfr.Peer) bool { return false }

func TestList_ManyBlocksComeBackInOrder(t *testing.T) {
	s := openTest(t, vfs.NewMem(), Config{})
	defer s.Close()
	m := newModel("example.", 1)
	e := s.newBatch()
	defer func() {
		if err := e.abort(); err != nil {
			t.Error(err)
		}
	}()
	var all []*InstanceMeta
	var want []string
	for seq := range uint64(3) {
		w := listWriter{z: 1, seq: seq, kind: zone.KindSigs}
		in := &InstanceMeta{Seq: seq}
		// Each list has every third key, and all share every tenth.
		var mine []string
		for n := range 60_000 {
			if n%3 == int(seq) || n%10 == 0 {
				mine = append(mine, m.key(zone.KindSigs, 1+n%999, zone.Type(n/999)))
			}
		}
		want = append(want, mine...)
		slices.Sort(mine)
		for _, k := range mine {
			if err := w.add(e, []byte(k)); err != nil {
				t.Fatal(err)
			}
			in.Changed[kindIndex(zone.KindSigs)]++
		}
		if err := w.flush(e); err != nil {
			t.Fatal(err)
		}
		if w.block < 2 {
			t.Fatalf("%d blocks, the test wants several", w.block)
		}
		all = append(all, in)
	}
	if err := e.commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	slices.Sort(want)
	want = slices.Compact(want)
	var got []string
	err := s.eachChanged(s.db, 1, all, zone.KindSigs, func(key []byte) error {
		got = append(got, string(key))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("keys:\n%s", d)
	}
}

// FuzzList: a block of any bytes ends in an error or in keys, never in a
// panic or without end.
func FuzzList(f *testing.F) {
	w := listWriter{z: 1, seq: 1, kind: zone.KindMade}
	if err := w.add(nil, []byte("\x11example\x00\x00\x00\x06")); err != nil {
		f.Fatal(err)
	}
	f.Add(w.buf)
	f.Add([]byte{0, 0xff, 0xff, 1})
	s, err := Open("store", Config{FS: vfs.NewMem()})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	f.Fuzz(func(t *testing.T, raw []byte) {
		if err := s.db.Set(blockKey(1, 1, zone.KindMade, 0), raw, nil); err != nil {
			t.Fatal(err)
		}
		l, err := s.readList(s.db, 1, 1, zone.KindMade)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for l.next() {
			n++
		}
		if n > len(raw) {
			t.Errorf("%d keys in %d bytes", n, len(raw))
		}
		if err := l.it.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestRecordComparer_OnlyWhatDiffers(t *testing.T) {
	owner := zone.Name("\x01A\x00")
	value := func(owner zone.Name, ttl uint32, data ...string) []byte {
		var rdata [][]byte
		for _, d := range data {
			rdata = append(rdata, []byte(d))
		}
		return zone.AppendValue(nil, owner, ttl, zone.SortRData(zone.TypeNS, rdata)...)
	}
	a, b, c, upper := "\x01a\x00", "\x01b\x00", "\x01c\x00", "\x01B\x00"
	for _, tc := range []struct {
		fact                         string
		before, after, removed, come []byte
		records                      int
	}{
		{"new RRset", nil, value(owner, 1, a, b), nil, value(owner, 1, a, b), 2},
		{"RRset gone", value(owner, 1, a), nil, value(owner, 1, a), nil, 1},
		{"one record replaced", value(owner, 1, a, b), value(owner, 1, a, c), value(owner, 1, b), value(owner, 1, c), 2},
		{"another TTL changes all", value(owner, 1, a, b), value(owner, 2, a, b), value(owner, 1, a, b), value(owner, 2, a, b), 4},
		{"another case of the owner changes all", value(owner, 1, a), value("\x01a\x00", 1, a), value(owner, 1, a), value("\x01a\x00", 1, a), 2},
		{"another case in RDATA changes that record", value(owner, 1, a, b, c), value(owner, 1, a, upper, c), value(owner, 1, b), value(owner, 1, upper), 2},
	} {
		var cmpr recordComparer
		removed, come, n := cmpr.diff(zone.TypeNS, tc.before, tc.after, nil, nil)
		if d := cmp.Diff([][]byte{tc.removed, tc.come}, [][]byte{removed, come}); d != "" || n != tc.records {
			t.Errorf("%s: %d records, want %d\n%s", tc.fact, n, tc.records, d)
		}
	}
}
