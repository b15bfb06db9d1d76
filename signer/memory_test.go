package signer

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"sluice/signer/zone"
)

// stream is a zone of n delegations, all with DS, that is nowhere in memory.
type stream struct {
	n, at      int
	ds         bool
	key, value []byte
}

func (s *stream) Next() bool {
	if s.at > s.n {
		return false
	}
	owner := zone.Name("\x03tld\x00")
	switch {
	case s.at == 0 && !s.ds:
		s.put(owner, zone.TypeNS, []byte("\x02ns\x03tld\x00"))
		s.ds = true
	case s.at == 0:
		soa := append([]byte("\x02ns\x03tld\x00\x04root\x03tld\x00"), make([]byte, 20)...)
		binary.BigEndian.PutUint32(soa[len(soa)-4:], 3600)
		s.put(owner, zone.TypeSOA, soa)
		s.at, s.ds = 1, false
	default:
		owner = zone.Name(fmt.Sprintf("\x0adelegation\x09%09d%s", s.at, string(owner)))
		if !s.ds {
			s.put(owner, zone.TypeNS, []byte("\x02ns\x03tld\x00"))
			s.ds = true
			return true
		}
		s.put(owner, zone.TypeDS, append([]byte{1, 2, 13, 2}, make([]byte, 32)...))
		s.at, s.ds = s.at+1, false
	}
	return true
}

func (s *stream) put(owner zone.Name, t zone.Type, rdata []byte) {
	s.key = zone.AppendKey(s.key[:0], zone.KindContents, owner, t)
	s.value = zone.AppendValue(s.value[:0], owner, 3600, rdata)
}

func (s *stream) Key() []byte   { return s.key }
func (s *stream) Value() []byte { return s.value }
func (s *stream) Err() error    { return nil }
func (s *stream) Close() error  { return nil }

// diskSpill keeps spill files on disk.
type diskSpill struct {
	dir string
	n   int
}

func (d *diskSpill) Create() (zone.SpillFile, error) {
	d.n++
	return os.Create(filepath.Join(d.dir, fmt.Sprint(d.n)))
}

// heapSink watches the live heap.
type heapSink struct {
	items, bytes int
	peak         uint64
}

func (s *heapSink) Put(key, value []byte) error {
	s.bytes += len(key) + len(value)
	if s.items++; s.items%100_000 == 0 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		s.peak = max(s.peak, m.HeapAlloc)
	}
	return nil
}

func TestSign_MemoryDoesNotGrowWithTheZone(t *testing.T) {
	if testing.Short() {
		t.Skip("signs 200,000 delegations")
	}
	for _, denial := range []Denial{NSEC, NSEC3} {
		keys := testKeys(t, algP256)
		for i := range keys {
			keys[i].Signer = constantKey{keys[i].Signer}
		}
		p := testParams("tld.", denial)
		p.VerifyAll = false
		in := Input{Contents: &stream{n: 200_000}, ContentState: new(zone.SetHash), Spill: &diskSpill{dir: t.TempDir()}}
		r, err := newRun(in, keys, p)
		if err != nil {
			t.Fatal(err)
		}
		r.always, r.every = 0, 1<<40
		sink := &heapSink{}
		if _, err := r.sign(t.Context(), in, sink); err != nil {
			t.Fatal(err)
		}
		if limit := uint64(40 << 20); sink.peak > limit || sink.bytes < 3*int(limit)/2 {
			t.Errorf("%s: %d bytes live while %d items of %d bytes came out", denial, sink.peak, sink.items, sink.bytes)
		}
		t.Logf("%s: %d MiB live, %d MiB out", denial, sink.peak>>20, sink.bytes>>20)
	}
}
