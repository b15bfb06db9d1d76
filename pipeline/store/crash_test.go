package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2" //nolint:depguard // Pebble takes no other generator for what a crash loses
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// journalOf makes the events of a random history, with the hash of the store
// after each.
func journalOf(t *testing.T, p seeded, steps int, cfg Config) (m *model, hashes map[uint64][32]byte) {
	t.Helper()
	s := openTest(t, vfs.NewMem(), cfg)
	defer s.Close()
	m, hashes = newModel("example.", 5), map[uint64][32]byte{}
	empty, err := s.LiveHash()
	if err != nil {
		t.Fatal(err)
	}
	hashes[0] = empty
	m.apply(t, s, m.events[0])
	for range steps {
		rec := m.events[len(m.events)-1]
		if hashes[rec.Seq], err = s.LiveHash(); err != nil {
			t.Fatal(err)
		}
		held, err := s.Instances(m.id)
		if err != nil {
			t.Fatal(err)
		}
		m.step(p, held)
		m.apply(t, s, m.events[len(m.events)-1])
	}
	last := m.events[len(m.events)-1]
	if hashes[last.Seq], err = s.LiveHash(); err != nil {
		t.Fatal(err)
	}
	return m, hashes
}

// After a power loss at any point the store holds exactly what it held at its
// position, and the rest of the journal leads it to the same end, whether
// events went in as batches or as tables.
func TestStore_PowerLossLeavesAPrefix(t *testing.T) {
	for seed := range 8 {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			p := newSeeded(seed + 1000)
			m, hashes := journalOf(t, p, 30, Config{})
			fs := vfs.NewCrashableMem()
			// Some loads are large, some are not.
			cfg := Config{BatchLimit: 2600, TableSize: 500}
			s := openTest(t, fs, cfg)
			for _, rec := range m.events {
				s.many = uint64(p.pick(2) * 1000)
				m.apply(t, s, rec)
				if p.pick(3) == 0 {
					if err := s.db.Flush(); err != nil {
						t.Fatal(err)
					}
				}
				lost := vfs.CrashCloneCfg{UnsyncedDataPercent: 50 * p.pick(3), RNG: rand.New(p)}
				m.checkCrashed(t, fs.CrashClone(lost), cfg, hashes, rec.Seq)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			last := m.events[len(m.events)-1].Seq
			s = openTest(t, fs.CrashClone(vfs.CrashCloneCfg{}), cfg)
			defer s.Close()
			if got := s.Position().Seq; got != last {
				t.Fatalf("after a clean end the position is %d, want %d", got, last)
			}
		})
	}
}

// checkCrashed opens what a crash left and folds the rest.
func (m *model) checkCrashed(t *testing.T, fs vfs.FS, cfg Config, hashes map[uint64][32]byte, upTo uint64) {
	t.Helper()
	s := openTest(t, fs, cfg)
	defer s.Close()
	at := s.Position().Seq
	want, known := hashes[at]
	got, err := s.LiveHash()
	if err != nil {
		t.Fatal(err)
	}
	if !known || at > upTo || got != want {
		t.Fatalf("crash after event %d: the store at position %d is not what it was there", upTo, at)
	}
	for _, rec := range m.events {
		m.apply(t, s, rec)
	}
	if got, err = s.LiveHash(); err != nil {
		t.Fatal(err)
	}
	if got != hashes[m.events[len(m.events)-1].Seq] {
		t.Fatalf("crash after event %d: the rest leads to another end", upTo)
	}
}

// A crash inside Apply leaves the event folded or not at all.
func TestStore_FaultInsideApplyLeavesAPrefix(t *testing.T) {
	p := newSeeded(7)
	m, hashes := journalOf(t, p, 25, Config{})
	for i, rec := range m.events {
		fs := vfs.NewCrashableMem()
		cfg := Config{BatchLimit: 1, TableSize: 500}
		s := openTest(t, fs, cfg)
		for _, before := range m.events[:i] {
			m.apply(t, s, before)
		}
		// Clones are taken while the event is applied, in the chunk source.
		var clones []*vfs.MemFS
		source := m.source
		take := func() {
			clones = append(clones, fs.CrashClone(vfs.CrashCloneCfg{}))
		}
		if err := s.Apply(t.Context(), rec, tap(source, take), m.state(rec)); err != nil {
			t.Fatal(err)
		}
		take()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		for _, c := range clones {
			m.checkCrashed(t, c, cfg, hashes, rec.Seq)
		}
	}
}

// Pebble takes a manifest that ends early for a crash. Wherever it ends, the
// store is what it was at its position, or is known to be damaged.
func TestStore_ManifestCutOffIsNoticed(t *testing.T) {
	p := newSeeded(99)
	m, hashes := journalOf(t, p, 40, Config{})
	cfg := Config{BatchLimit: 2600, TableSize: 500}
	fs := vfs.NewCrashableMem()
	s := openTest(t, fs, cfg)
	defer s.Close()
	damagedStores, wholeStores := 0, 0
	for i, rec := range m.events {
		m.apply(t, s, rec)
		if i%7 == 3 {
			if err := s.db.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		if i%3 != 0 && i != len(m.events)-1 {
			continue
		}
		for _, end := range recordEnds(t, fs) {
			cut := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(p)})
			cutManifest(t, cut, end)
			opened, err := Open("store", Config{Stream: "stream", FS: cut})
			if errors.Is(err, ErrDamaged) {
				damagedStores++
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			wholeStores++
			at := opened.Position().Seq
			if got, err := opened.LiveHash(); err != nil || got != hashes[at] {
				t.Fatalf("after event %d, manifest cut at %d: the store at position %d is not what it was there: %v", rec.Seq, end, at, err)
			}
			if err := opened.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if damagedStores == 0 || wholeStores == 0 {
		t.Fatalf("%d stores were damaged and %d whole, want some of both", damagedStores, wholeStores)
	}
}

// manifest reads the store's manifest.
func manifest(t *testing.T, fs vfs.FS) (path string, content []byte) {
	t.Helper()
	names, err := fs.List("store")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasPrefix(name, "MANIFEST-") {
			path = fs.PathJoin("store", name)
		}
	}
	f, err := fs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if content, err = io.ReadAll(f); err != nil {
		t.Fatal(err)
	}
	return path, content
}

// recordEnds is where the records of the manifest end, and the middle of each.
func recordEnds(t *testing.T, fs vfs.FS) (ends []int64) {
	t.Helper()
	_, content := manifest(t, fs)
	records := record.NewReader(bytes.NewReader(content), 0)
	for {
		r, err := records.Next()
		if errors.Is(err, io.EOF) {
			return ends
		}
		if err != nil {
			t.Fatal(err)
		}
		begin := records.Offset()
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, (begin+records.Offset())/2, records.Offset())
	}
}

func cutManifest(t *testing.T, fs vfs.FS, end int64) {
	t.Helper()
	path, content := manifest(t, fs)
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(content[:end]); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
