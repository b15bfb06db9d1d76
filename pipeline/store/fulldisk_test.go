package store

import (
	"errors"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// smallFS is a file system that can be made full: then nothing can be written,
// and of the last write a part was.
type smallFS struct {
	vfs.FS
	full *atomic.Bool
}

func (f smallFS) check(name string) error {
	if f.full.Load() {
		return &os.PathError{Op: "write", Path: name, Err: syscall.ENOSPC}
	}
	return nil
}

func (f smallFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.check(name); err != nil {
		return nil, err
	}
	file, err := f.FS.Create(name, c)
	return smallFile{file, f}, err
}

func (f smallFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.ReuseForWrite(from, to, c)
	return smallFile{file, f}, err
}

type smallFile struct {
	vfs.File
	fs smallFS
}

func (f smallFile) Write(b []byte) (int, error) {
	if err := f.fs.check("file"); err != nil {
		n, _ := f.File.Write(b[:len(b)/2])
		return n, err
	}
	return f.File.Write(b)
}

// On a full disk Apply waits or fails, what was applied before can be read, and
// once there is room everything goes on as if nothing had been.
func TestStore_OutlivesAFullDisk(t *testing.T) {
	p := newSeeded(42)
	m, hashes := journalOf(t, p, 40, Config{})
	fs := smallFS{vfs.NewMem(), new(atomic.Bool)}
	faults := make(chan error, 1000)
	cfg := Config{BatchLimit: 1, TableSize: 500, Fault: func(err error) { faults <- err }}
	s := openTest(t, fs, cfg)
	stalls, failures := 0, 0
	for i, rec := range m.events {
		fs.full.Store(true)
		applied := make(chan error, 1)
		go func() {
			var err error
			if i%2 == 0 {
				_, err = s.db.AsyncFlush() // makes Pebble begin another log
			}
			if err == nil {
				err = m.tryApply(s, rec)
			}
			applied <- err
		}()
		select {
		case err := <-applied:
			if errors.Is(err, ErrNoSpace) {
				failures++
			} else if err != nil {
				t.Fatal(err)
			}
			applied <- err
		case fault := <-faults:
			if !errors.Is(fault, ErrNoSpace) {
				t.Fatal(fault)
			}
			stalls++
			if got, err := s.LiveHash(); err != nil || i > 0 && got != hashes[m.events[i-1].Seq] && got != hashes[rec.Seq] {
				t.Errorf("event %d: read on a full disk: %x, %v", rec.Seq, got, err)
			}
		}
		fs.full.Store(false)
		err := <-applied
		if errors.Is(err, ErrNoSpace) {
			err = m.tryApply(s, rec)
		}
		if err != nil {
			t.Fatal(err)
		}
		if got, err := s.LiveHash(); err != nil || got != hashes[rec.Seq] {
			t.Fatalf("event %d: something else is held once there is room: %v", rec.Seq, err)
		}
		awaitUnstalled(t, s)
		for len(faults) > 0 {
			if fault := <-faults; fault != nil && !errors.Is(fault, ErrNoSpace) {
				t.Fatal(fault)
			}
		}
	}
	t.Logf("%d stalls, %d failures", stalls, failures)
	if stalls == 0 || failures == 0 {
		t.Errorf("the full disk was met by %d waiting and %d failing writes", stalls, failures)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func awaitUnstalled(t *testing.T, s *Store) {
	t.Helper()
	limit := time.NewTimer(20 * time.Second)
	defer limit.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for s.Stalled() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatal("still waits for room")
		}
	}
}

func TestStore_CloseOnAFullDiskKeepsWhatWasApplied(t *testing.T) {
	m, hashes := journalOf(t, newSeeded(5), 12, Config{})
	mem := vfs.NewMem()
	fs := smallFS{mem, new(atomic.Bool)}
	s := openTest(t, fs, Config{})
	for _, rec := range m.events {
		m.apply(t, s, rec)
	}
	mem.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 4096, TotalBytes: 1 << 30})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	last := m.events[len(m.events)-1].Seq
	m.checkCrashed(t, mem, Config{}, hashes, last)
}
