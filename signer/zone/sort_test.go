package zone

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
)

func TestSorter_SortsStably(t *testing.T) {
	for _, tc := range []struct {
		name        string
		n, memory   int
		payload     int
		files, keys int
	}{
		{name: "in memory", n: 100, memory: 1 << 20, payload: 20, keys: 50},
		{name: "none", n: 0, memory: 1 << 20},
		{name: "several runs", n: 30_000, memory: 64 << 10, payload: 30, keys: 9000, files: 1},
		{name: "two levels of merging", n: 60_000, memory: 64 << 10, payload: 70, keys: 1 << 30, files: 2},
		{name: "entries beyond the memory", n: 40, memory: 64 << 10, payload: 100_000, keys: 10, files: 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := sequence(1)
			spill := &memSpill{}
			s := NewSorter(spill, tc.memory)
			type entry struct{ key, payload string }
			var want []entry
			for i := range tc.n {
				key := fmt.Sprintf("common-%x", r.upTo(tc.keys))
				payload := fmt.Sprint(i) + string(bytes.Repeat([]byte{'x'}, r.upTo(tc.payload)))
				want = append(want, entry{key, payload})
				if err := s.Add([]byte(key), []byte(payload)); err != nil {
					t.Fatal(err)
				}
			}
			slices.SortStableFunc(want, func(a, b entry) int { return bytes.Compare([]byte(a.key), []byte(b.key)) })
			it, err := s.Sort()
			if err != nil {
				t.Fatal(err)
			}
			for i := 0; it.Next(); i++ {
				if i >= len(want) || string(it.Key()) != want[i].key || string(it.Value()) != want[i].payload {
					t.Fatalf("entry %d is %q, %.20q", i, it.Key(), it.Value())
				}
				if i == len(want)-1 {
					want = nil
				}
			}
			if it.Err() != nil || len(want) != 0 {
				t.Fatalf("err %v, %d entries missing", it.Err(), len(want))
			}
			if spill.made != tc.files {
				t.Errorf("%d spill files made, want %d", spill.made, tc.files)
			}
			if err := it.Close(); err != nil || spill.open != 0 {
				t.Errorf("close: %v, %d files open", err, spill.open)
			}
			if err := s.Add([]byte("k"), nil); err == nil {
				t.Error("Add after Sort is not refused")
			}
		})
	}
}

func TestSorter_SpillFailureIsReported(t *testing.T) {
	fill := func(s *Sorter) error {
		for i := range 20_000 {
			if err := s.Add(fmt.Appendf(nil, "%08x", i*2654435761), []byte("payload of some length")); err != nil {
				return err
			}
		}
		it, err := s.Sort()
		if err != nil {
			return err
		}
		for it.Next() {
		}
		return errors.Join(it.Err(), it.Close())
	}
	for _, spill := range []*memSpill{{failWrite: 1}, {failWrite: 5}, {failRead: true}} {
		s := NewSorter(spill, 64<<10)
		if err := fill(s); !errors.Is(err, errSpill) {
			t.Errorf("got %v", err)
		}
		s.Close()
		if spill.open != 0 {
			t.Errorf("%d files left open", spill.open)
		}
	}
}

func TestSorter_WithoutSpillStaysInMemory(t *testing.T) {
	s := NewSorter(nil, 64<<10)
	var err error
	for n := 0; err == nil && n < 10_000; n++ {
		err = s.Add(fmt.Appendf(nil, "%d", n), make([]byte, 100))
	}
	if !errors.Is(err, errNoSpill) {
		t.Errorf("got %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func BenchmarkSorter(b *testing.B) {
	const n = 1_000_000
	r := sequence(1)
	keys := make([][]byte, n)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "\x10tld\x00d%07d-x\x00\x00\x00\x02", r.upTo(n))
	}
	payload := bytes.Repeat([]byte{7}, 60)
	b.ReportAllocs()
	for b.Loop() {
		s := NewSorter(&memSpill{}, 40<<20)
		for _, k := range keys {
			if err := s.Add(k, payload); err != nil {
				b.Fatal(err)
			}
		}
		it, err := s.Sort()
		if err != nil {
			b.Fatal(err)
		}
		for it.Next() {
		}
		it.Close()
	}
	b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "entries/s")
}
