//go:build linux

package journal_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/journal"
)

// smallDisk mounts a file system of a few megabytes.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("needs the right to mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

func TestFullDisk_RecoversByReopen(t *testing.T) {
	disk := smallDisk(t, "24m")
	filler := filepath.Join(disk, "filler")
	if err := os.WriteFile(filler, make([]byte, 12<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	j := openDir(t, journal.Config{Dir: filepath.Join(disk, "journal"), Timeout: 500 * time.Millisecond})
	m := mustPut(t, j, "before", noise(1, 1000))
	head := mustAppend(t, j, journal.Head{}, changed(1))

	w := j.NewChunks(zone, "full")
	var err error
	for i := 0; i < 100 && err == nil; i++ {
		err = w.Put(t.Context(), journal.RawChunk{Raw: noise(i, journal.MaxRawChunk)})
	}
	_, err = w.Finish(t.Context())
	t.Logf("chunks on a full disk: %v", err)
	if !errors.Is(err, journal.ErrNoSpace) && !errors.Is(err, journal.ErrStorage) {
		t.Errorf("chunks on a full disk: %v", err)
	}
	for i := 2; i < 100_000; i++ {
		var next journal.Head
		if next, err = j.Append(t.Context(), zone, head, changed(i)); err != nil {
			break
		}
		head = next
	}
	t.Logf("append on a full disk: %v", err)
	if !errors.Is(err, journal.ErrNoSpace) && !errors.Is(err, journal.ErrStorage) {
		t.Errorf("append on a full disk: %v", err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	_, err = j.Append(t.Context(), zone, head, changed(100_000))
	t.Logf("append with space freed: %v", err)
	if err := j.Reopen(t.Context()); err != nil {
		t.Fatal(err)
	}
	// What was under way may be stored or not: the same append finds out.
	if now, err := j.Head(t.Context(), zone); err != nil || now.N < head.N {
		t.Fatalf("head %+v, %v, acknowledged %+v", now, err, head)
	} else {
		head = now
	}
	mustAppend(t, j, head, changed(100_001))
	mustPut(t, j, "after", noise(2, 1000))
	if _, err := j.Chunk(t.Context(), m.Subject, m.Chunks[0]); err != nil {
		t.Errorf("chunk from before: %v", err)
	}
	if r := mustVerify(t, j); r.FaultCount != 0 {
		t.Errorf("verify: %+v", r)
	}
}
