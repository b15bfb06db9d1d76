package zone

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func mergeItem(kind Kind, owner Name, t Type, value string) Item {
	return Item{AppendKey(nil, kind, owner, t), []byte(value)}
}

func walk(t *testing.T, it Iterator) []string {
	t.Helper()
	var got []string
	for it.Next() {
		kind, owner, typ, err := SplitKey(it.Key())
		if err != nil {
			t.Fatal(err)
		}
		name, err := NameOfKey(owner)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s %s %x %s", name, typ, kind, it.Value()))
	}
	if it.Err() != nil {
		t.Fatal(it.Err())
	}
	return got
}

func TestMerge_OrderAndHiding(t *testing.T) {
	contents := []Item{
		mergeItem(KindContents, "\x01a\x00", TypeNS, "ns"),
		mergeItem(KindContents, "\x01a\x00", TypeSOA, "input soa"),
		mergeItem(KindContents, "\x01b\x01a\x00", TypeA, "b a"),
	}
	made := []Item{
		mergeItem(KindMade, "\x01a\x00", TypeSOA, "our soa"),
		mergeItem(KindMade, "\x01a\x00", TypeDNSKEY, "key"),
	}
	sigs := []Item{
		mergeItem(KindSigs, "\x01a\x00", TypeNS, "ns sig"),
		mergeItem(KindSigs, "\x01a\x00", TypeSOA, "soa sig"),
		mergeItem(KindSigs, "\x01b\x01a\x00", TypeA, "b sig"),
	}
	chain := []Item{mergeItem(KindChain, "\x02ab\x01a\x00", TypeNSEC3, "nsec3")}
	want := []string{
		"a. NS 10 ns", "a. NS 12 ns sig", "a. SOA 11 our soa", "a. SOA 12 soa sig", "a. DNSKEY 11 key",
		"ab.a. NSEC3 13 nsec3", "b.a. A 10 b a", "b.a. A 12 b sig",
	}
	m := Merge(Slice(sigs...), Slice(contents...), Slice(), Slice(made...), Slice(chain...))
	if diff := cmp.Diff(want, walk(t, m)); diff != "" {
		t.Error(diff)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	newer := []Item{mergeItem(KindContents, "\x01a\x00", TypeNS, "newer ns")}
	got := walk(t, Merge(Slice(newer...), Slice(contents...)))
	if diff := cmp.Diff([]string{"a. NS 10 newer ns", "a. SOA 10 input soa", "b.a. A 10 b a"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestMerge_IsTheSortedUnionWithoutWhatIsHidden(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kinds := []Kind{KindContents, KindMade, KindSigs, KindChain, KindContents}
		all := map[string]string{} // owner, type and kind; the first iterator wins
		var iters []Iterator
		for i, kind := range kinds {
			have := map[string]Item{}
			for range rapid.IntRange(0, 12).Draw(t, "items") {
				n := rapid.SampledFrom([]Name{Root, "\x01a\x00", "\x01b\x01a\x00", "\x01c\x00"}).Draw(t, "owner")
				it := mergeItem(kind, n, Type(rapid.IntRange(1, 3).Draw(t, "type")), fmt.Sprint(i))
				have[string(it.Key)] = it
			}
			var items []Item
			for _, key := range slices.Sorted(maps.Keys(have)) {
				items = append(items, have[key])
				order := key[1:] + key[:1]
				if _, ok := all[order]; !ok {
					all[order] = fmt.Sprint(i)
				}
			}
			iters = append(iters, Slice(items...))
		}
		m := Merge(iters...)
		for _, order := range slices.Sorted(maps.Keys(all)) {
			last := len(order) - 1
			if _, made := all[order[:last]+string([]byte{byte(KindMade)})]; made && Kind(order[last]) == KindContents {
				continue
			}
			if !m.Next() || string(m.Key()[1:])+string(m.Key()[:1]) != order || string(m.Value()) != all[order] {
				t.Fatalf("want %x of %s, got %x of %s", order, all[order], m.Key(), m.Value())
			}
		}
		if m.Next() || m.Err() != nil {
			t.Fatalf("one too many: %x, %v", m.Key(), m.Err())
		}
	})
}

type failing struct {
	Iterator
	left int
}

var errIter = errors.New("iterator fails")

func (f *failing) Next() bool { f.left--; return f.left >= 0 && f.Iterator.Next() }
func (f *failing) Err() error {
	if f.left < 0 {
		return errIter
	}
	return nil
}

func TestMerge_AndDiffItemsReportErrors(t *testing.T) {
	items := []Item{mergeItem(KindContents, "\x01a\x00", TypeA, "1"), mergeItem(KindContents, "\x01b\x00", TypeA, "2")}
	for left := range 2 {
		m := Merge(&failing{Slice(items...), left}, Slice(items...))
		for m.Next() {
		}
		if !errors.Is(m.Err(), errIter) {
			t.Errorf("merge: %v", m.Err())
		}
		nop := func(_, _, _ []byte) error { return nil }
		if err := DiffItems(&failing{Slice(items...), left}, Slice(items...), nop); !errors.Is(err, errIter) {
			t.Errorf("diff, old fails: %v", err)
		}
		if err := DiffItems(Slice(items...), &failing{Slice(items...), left}, nop); !errors.Is(err, errIter) {
			t.Errorf("diff, new fails: %v", err)
		}
	}
	stop := errors.New("stop")
	if err := DiffItems(Slice(), Slice(items...), func(_, _, _ []byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
}

func TestDiffItems_NamesEveryDifference(t *testing.T) {
	r := sequence(7)
	for range 200 {
		before, after := map[string]string{}, map[string]string{}
		var olds, news []Item
		for i := range 30 {
			key := fmt.Sprintf("k%02d", i)
			if r.upTo(3) > 0 {
				before[key] = fmt.Sprint(r.upTo(2))
				olds = append(olds, Item{[]byte(key), []byte(before[key])})
			}
			if r.upTo(3) > 0 {
				after[key] = fmt.Sprint(r.upTo(2))
				news = append(news, Item{[]byte(key), []byte(after[key])})
			}
		}
		last := []byte(nil)
		err := DiffItems(Slice(olds...), Slice(news...), func(key, o, n []byte) error {
			if bytes.Compare(last, key) >= 0 || (o == nil && n == nil) || bytes.Equal(o, n) {
				return fmt.Errorf("key %q after %q: %q -> %q", key, last, o, n)
			}
			last = bytes.Clone(key)
			if v, ok := before[string(key)]; ok != (o != nil) || v != string(o) {
				return fmt.Errorf("key %q: old value %q", key, o)
			}
			delete(before, string(key))
			if n != nil {
				before[string(key)] = string(n)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(after, before); diff != "" {
			t.Fatal(diff)
		}
	}
}
