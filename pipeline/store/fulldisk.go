package store

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	// spaceEvery is how often a write that found the disk full is tried again.
	spaceEvery = 200 * time.Millisecond
	// loadCategory marks the tables of a load: their writer takes an error.
	loadCategory vfs.DiskWriteCategory = "store-load"
)

// patientFS keeps Pebble alive on a full disk. Pebble ends the process where
// its log or manifest cannot be written, so those writes, and flushes, wait
// until there is room. Reads and snapshots go on meanwhile, since Pebble holds
// no lock that they need. A compaction fails instead: that frees what it has
// written, and it is tried again. So does the load of an instance.
type patientFS struct {
	vfs.FS
	w *waiter
}

// waiter counts the writes that wait for room.
type waiter struct {
	fault func(error)

	mu      sync.Mutex
	armed   bool // guarded by mu; while the store is being opened or closed nothing waits
	waiting int  // guarded by mu
}

// arm says whether writes may wait.
func (w *waiter) arm(on bool) {
	w.mu.Lock()
	w.armed = on
	w.mu.Unlock()
}

// stalled reports whether a write waits.
func (w *waiter) stalled() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.waiting > 0
}

// begin reports whether a write that met err is to wait.
func (w *waiter) begin(err error) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.armed {
		return false
	}
	if w.waiting++; w.waiting == 1 {
		w.fault(fmt.Errorf("%w: %w", ErrNoSpace, err))
	}
	return true
}

func (w *waiter) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waiting--; w.waiting == 0 {
		w.fault(nil)
	}
}

// write writes until the disk is no longer full.
func (w *waiter) write(do func() error) error {
	err := do()
	if !isFull(err) || !w.begin(err) {
		return err
	}
	defer w.end()
	tick := time.NewTicker(spaceEvery)
	defer tick.Stop()
	for isFull(err) {
		<-tick.C
		err = do()
	}
	return err
}

// isFull reports whether a write failed for want of room.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// noSpace adds ErrNoSpace to errors of a full disk.
func noSpace(err error) error {
	if !isFull(err) || errors.Is(err, ErrNoSpace) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrNoSpace, err)
}

// Create implements vfs.FS.
func (p patientFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if !waits(c) {
		f, err := p.FS.Create(name, c)
		return p.slow(f, c), p.pause(err, c)
	}
	return p.open(func() (vfs.File, error) { return p.FS.Create(name, c) })
}

// OpenReadWrite implements vfs.FS.
func (p patientFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return p.open(func() (vfs.File, error) { return p.FS.OpenReadWrite(name, c, opts...) })
}

// ReuseForWrite implements vfs.FS.
func (p patientFS) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return p.open(func() (vfs.File, error) { return p.FS.ReuseForWrite(oldname, newname, c) })
}

// Unwrap implements vfs.FS.
func (p patientFS) Unwrap() vfs.FS { return p.FS }

// open opens a file whose writes wait.
func (p patientFS) open(do func() (vfs.File, error)) (f vfs.File, err error) {
	err = p.w.write(func() (err error) {
		f, err = do()
		return err
	})
	if err != nil {
		return nil, err
	}
	return &patientFile{File: f, w: p.w}, nil
}

// waits reports whether writes of a category wait for room.
func waits(c vfs.DiskWriteCategory) bool {
	return c != loadCategory && !isCompaction(c)
}

func isCompaction(c vfs.DiskWriteCategory) bool {
	return strings.HasPrefix(string(c), "pebble-compaction") || strings.HasPrefix(string(c), "pebble-blob")
}

// pause delays the failure of a compaction: Pebble begins the next at once.
func (p patientFS) pause(err error, c vfs.DiskWriteCategory) error {
	if isFull(err) && isCompaction(c) {
		<-time.After(time.Second)
	}
	return err
}

// slow is a file whose failing writes pause.
func (p patientFS) slow(f vfs.File, c vfs.DiskWriteCategory) vfs.File {
	if f == nil || !isCompaction(c) {
		return f
	}
	return &compactionFile{File: f, p: p, c: c}
}

// compactionFile is a file that a compaction writes.
type compactionFile struct {
	vfs.File
	p patientFS
	c vfs.DiskWriteCategory
}

// Write implements vfs.File.
func (f *compactionFile) Write(b []byte) (int, error) {
	n, err := f.File.Write(b)
	return n, f.p.pause(err, f.c)
}

// patientFile is a file whose writes wait for room.
type patientFile struct {
	vfs.File
	w *waiter
}

// Write implements vfs.File.
func (f *patientFile) Write(b []byte) (n int, err error) {
	err = f.w.write(func() error {
		m, err := f.File.Write(b[n:])
		n += m
		return err
	})
	return n, err
}

// WriteAt implements vfs.File.
func (f *patientFile) WriteAt(b []byte, at int64) (n int, err error) {
	err = f.w.write(func() error {
		m, err := f.File.WriteAt(b[n:], at+int64(n))
		n += m
		return err
	})
	return n, err
}
