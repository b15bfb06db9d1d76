//go:build linux

package pipeline

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/journal/journaltest"
)

// TestEngine_InstanceWithoutRoomLeavesOthersAlone makes a disk full between
// the moment that an instance is stored in the journal and its fold.
func TestEngine_InstanceWithoutRoomLeavesOthersAlone(t *testing.T) {
	j := journaltest.New()
	r := &rig{t: t, dir: t.TempDir(), journal: j, clock: hourASecond()}
	disk := filepath.Join(r.dir, "projections")
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=64m"); err != nil {
		t.Skipf("needs the right to mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	r.start(nil)
	// Nothing is refused in time.
	r.e.journal, r.e.signJournal = j, j
	r.e.spill.room = func(uint64) error { return nil }
	r.e.signSpill.room = r.e.spill.room
	r.add(smallZone)
	before := r.served()
	filler := filepath.Join(disk, "filler")
	if err := os.WriteFile(filler, make([]byte, 64<<20), 0o600); err == nil {
		t.Fatal("the disk is not full")
	}
	var large strings.Builder
	large.WriteString(smallZone)
	for i := range 12_000 {
		fmt.Fprintf(&large, "large%d IN TXT", i)
		for range 4 {
			fmt.Fprintf(&large, " %q", strings.Repeat(fmt.Sprintf("%08x", uint32(i*2654435761)), 30))
		}
		large.WriteString("\n")
	}
	r.zoneFile(large.String())
	if err := r.e.Reload(t.Context(), testActor, "example.com", false); err != nil {
		t.Fatal(err)
	}
	z, err := r.e.find("example.com")
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the instance is given up", func() bool { return z.snapshot().Loaded.Broken != "" })
	if r.served() != before {
		t.Error("something else is served on a full disk")
	}
	if err := r.e.Health(t.Context()); err == nil {
		t.Error("health knows of nothing")
	}
	other := NewZone{Name: "other.example", Source: filepath.Join(r.dir, "other")}
	if err := os.WriteFile(other.Source, []byte(strings.ReplaceAll(smallZone, "example.com", "other.example")), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.e.AddZone(t.Context(), testActor, other); err != nil {
		t.Fatal(err)
	}
	until(t, "the other zone is published", func() bool {
		st, err := r.e.Zone(t.Context(), "other.example")
		return err == nil && st.Published != nil
	})
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	until(t, "the large zone is published once there is room", func() bool {
		return newestServed(r) && z.snapshot().Published.Loaded.Facts.Records > 12_000
	})
	replayAll(t, r)
}
