package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"sluice/e2e/zonegen"
)

// smallDisk mounts a file system of the given size.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := shortDir(t)
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

// fillUp leaves so much room on the disk of dir, and returns the file that
// takes up the rest.
func fillUp(t *testing.T, dir string, leave int64) string {
	t.Helper()
	name := filepath.Join(dir, "filler")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for tries := 0; ; tries++ {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			t.Fatal(err)
		}
		n := int64(st.Bavail)*st.Bsize - leave
		err := unix.Fallocate(int(f.Fd()), 0, 0, n)
		if err == nil {
			return name
		}
		// The daemon may have written in between.
		if !errors.Is(err, unix.ENOSPC) || tries == 100 {
			t.Fatalf("fill %d bytes: %v", n, err)
		}
		if err := f.Truncate(0); err != nil {
			t.Fatal(err)
		}
	}
}

// daemonOn starts a daemon with its data in a folder below dir.
func daemonOn(t *testing.T, dir string, flags []string, zones ...string) *daemon {
	t.Helper()
	d := &daemon{data: filepath.Join(dir, "data"), addr: freeAddr(t), flags: flags}
	for _, z := range zones {
		d.flags = append(d.flags, "--zone", z)
	}
	d.start(t)
	return d
}

// awaitHealthy waits until the daemon says that it is well.
func (d *daemon) awaitHealthy(t *testing.T) {
	t.Helper()
	await(t, "the daemon is well", time.Minute, func() (bool, string) {
		r := d.cli(t, "health")
		return r.code == 0, r.String()
	})
}

// refuses runs a client's command that must fail, and wants its message to
// speak of something.
func (d *daemon) refuses(t *testing.T, of string, args ...string) {
	t.Helper()
	r := d.cli(t, args...)
	if r.code == 0 || !strings.Contains(r.stdout+r.stderr, of) {
		t.Errorf("sluice %v does not fail speaking of %q: %v", args, of, r)
	}
}

func TestFullDisk_LastVersionStaysServedAndReloadGoesOn(t *testing.T) {
	for _, c := range []struct {
		name  string
		leave int64
	}{
		{"nearly full", 5 << 20},
		{"not a block left", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			disk := smallDisk(t, "512m")
			g := newGenerated(t, zonegen.Config{Kind: zonegen.Hosting, Names: 500})
			zone := g.Apex()
			d := daemonOn(t, disk, nil, g.source(), exampleZone())
			serial := d.awaitServed(t, zone)
			d.awaitServed(t, example)
			before := axfrBytes(t, d.addr, zone)
			history := d.must(t, "zone", "history", zone)

			filler := fillUp(t, disk, c.leave)
			larger := g.Config
			larger.Names, larger.Serial = 60000, 2
			g.put(t, larger)
			d.refuses(t, "space", "zone", "reload", zone)
			d.refuses(t, "space", "health")
			if status := d.must(t, "zone", "status", zone); !strings.Contains(status, "space") {
				t.Errorf("zone status does not speak of space:\n%s", status)
			}
			if !bytes.Equal(axfrBytes(t, d.addr, zone), before) {
				t.Error("something else is served on a full disk")
			}
			if _, err := serialAt(d.addr, example); err != nil {
				t.Errorf("the other zone: %v", err)
			}

			// The daemon tries again by itself as soon as there is room, also in that of its
			// reserve: the disk has room for all that it may read then.
			g.change(t, 20, 2)
			if err := os.Remove(filler); err != nil {
				t.Fatal(err)
			}
			d.awaitHealthy(t)
			d.must(t, "zone", "reload", zone)
			d.awaitChange(t, zone, serial)
			if now := d.must(t, "zone", "history", zone); !strings.HasPrefix(now, strings.TrimRight(history, "\n")) {
				t.Errorf("the history does not go on from what it was:\n%s\nbefore:\n%s", now, history)
			}
			d.must(t, "journal", "verify")
			d.must(t, "zone", "replay", zone, "--verify")
			d.must(t, "zone", "replay", example, "--verify")
		})
	}
}

// reserve is the state of the disk reserve.
func (d *daemon) reserve(t *testing.T) string {
	t.Helper()
	r := d.cli(t, "journal", "status", "--json")
	var st struct {
		Reserve struct {
			State         string `json:"state"`
			Bytes, Wanted uint64
		} `json:"reserve"`
	}
	if err := json.Unmarshal([]byte(r.stdout), &st); err != nil {
		return fmt.Sprintf("%v: %v", err, r)
	}
	return st.Reserve.State
}

func (d *daemon) awaitReserve(t *testing.T, state string) {
	t.Helper()
	await(t, "the disk reserve is "+state, time.Minute, func() (bool, string) {
		got := d.reserve(t)
		return got == state, got
	})
}

// TestFullDisk_ReserveSignsEverythingOnceMore leaves not a block on the disk,
// again and again.
func TestFullDisk_ReserveSignsEverythingOnceMore(t *testing.T) {
	disk := smallDisk(t, "192m")
	g := newGenerated(t, zonegen.Config{Kind: zonegen.Hosting, Names: 2000})
	zone := g.Apex()
	d := daemonOn(t, disk, nil, g.source(), exampleZone())
	serial := d.awaitServed(t, zone)
	other := d.awaitServed(t, example)
	d.awaitReserve(t, "held")

	// Signing goes on, loading does not.
	first := fillUp(t, disk, 0)
	if err := os.Rename(first, first+"1"); err != nil {
		t.Fatal(err)
	}
	d.must(t, "zone", "resign", zone, "--full")
	serial = d.awaitChange(t, zone, serial)
	d.must(t, "zone", "resign", example, "--full")
	other = d.awaitChange(t, example, other)
	d.must(t, "zone", "verify", zone)
	d.awaitReserve(t, "released")
	if r := d.cli(t, "health"); !strings.Contains(r.stdout+r.stderr, "reserve") && !strings.Contains(r.stderr, "full") {
		t.Errorf("health does not speak of the reserve: %v", r)
	}
	if status := d.must(t, "zone", "status", zone); !strings.Contains(status, "disk reserve was used up") {
		t.Errorf("zone status does not speak of the reserve:\n%s", status)
	}
	g.change(t, 20, 2)
	d.refuses(t, "space", "zone", "reload", zone)

	// Without reserve, zones are served with an alarm.
	fillUp(t, disk, 0)
	before := axfrBytes(t, d.addr, zone)
	d.refuses(t, "full", "zone", "resign", zone, "--full")
	d.refuses(t, "space", "health")
	if !bytes.Equal(axfrBytes(t, d.addr, zone), before) {
		t.Error("something else is served without reserve")
	}

	// With room, everything goes on, and the reserve is taken back.
	for _, name := range []string{first, first + "1"} {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	d.awaitHealthy(t)
	d.awaitReserve(t, "held")
	d.must(t, "zone", "reload", zone)
	serial = d.awaitChange(t, zone, serial)

	// A daemon that starts on a full disk gives it up to open its journal.
	d.stop()
	first = fillUp(t, disk, 0)
	d.start(t)
	if got := d.awaitServed(t, zone); got != serial {
		t.Errorf("serial %d after a start on a full disk, want %d", got, serial)
	}
	d.must(t, "zone", "resign", example, "--full")
	d.awaitChange(t, example, other)
	if err := os.Remove(first); err != nil {
		t.Fatal(err)
	}
	d.awaitHealthy(t)
	d.awaitReserve(t, "held")
	d.must(t, "journal", "verify")
	d.must(t, "zone", "replay", zone, "--verify")
}

// TestFullDisk_StickyWriteErrorIsMended lets the journal's server meet the
// full disk in the middle of its own writing, after which it refuses
// everything until it is opened again.
func TestFullDisk_StickyWriteErrorIsMended(t *testing.T) {
	disk := smallDisk(t, "192m")
	d := daemonOn(t, disk, nil, exampleZone())
	serial := d.awaitServed(t, example)
	d.awaitReserve(t, "held")
	// The end of maintenance is an event longer than what the projection then
	// writes of the zone, so that the journal meets the full disk first.
	long := strings.Repeat("the disk is full ", 2000)
	d.must(t, "zone", "maintenance", "enable", example)
	filler := fillUp(t, disk, 0)
	refused := false
	for n := 0; n < 500 && !refused; n++ {
		refused = d.cli(t, "zone", "maintenance", []string{"disable", "enable"}[n%2], example, "--reason", []string{long, ""}[n%2]).code != 0
	}
	if !refused {
		t.Fatal("a full disk takes 500 events")
	}
	// It may be stored or not: one of both is possible.
	await(t, "events are taken again on the full disk", time.Minute, func() (bool, string) {
		on, off := d.cli(t, "zone", "maintenance", "enable", example), d.cli(t, "zone", "maintenance", "disable", example)
		return off.code == 0, on.String() + off.String()
	})
	if log := d.log(); !strings.Contains(log, "journal store reopened") || !strings.Contains(log, "disk reserve released") {
		t.Errorf("the reserve was not released, or the journal not reopened:\n%s", d.tail())
	}
	d.must(t, "zone", "resign", example, "--full")
	d.awaitChange(t, example, serial)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	d.awaitHealthy(t)
	d.awaitReserve(t, "held")
	d.must(t, "journal", "verify")
	d.must(t, "zone", "replay", example, "--verify")
}

func TestFullJournal_OneZoneTooLargeLeavesOthersAlone(t *testing.T) {
	dir := shortDir(t)
	config := writeFile(t, filepath.Join(dir, "config.toml"), "version = \"v1\"\n[journal]\nbulk-max-size = \"3MiB\"\n")
	g := newGenerated(t, zonegen.Config{Kind: zonegen.Hosting, Names: 500})
	other := newGenerated(t, zonegen.Config{Kind: zonegen.Hosting, Names: 100, Zone: "other.example."})
	zone := g.Apex()
	d := daemonOn(t, dir, []string{"--config", config}, g.source(), other.source())
	serial := d.awaitServed(t, zone)
	otherSerial := d.awaitServed(t, other.Apex())
	before := axfrBytes(t, d.addr, zone)

	larger := g.Config
	larger.Names, larger.Serial = 200_000, 2
	g.put(t, larger)
	d.refuses(t, "no space left for the journal", "zone", "reload", zone)
	if got := d.must(t, "zone", "history", zone, "--type", "load.failed"); !strings.Contains(got, "space") {
		t.Errorf("no load.failed speaks of space:\n%s", got)
	}
	if !bytes.Equal(axfrBytes(t, d.addr, zone), before) {
		t.Error("something else is served")
	}
	// What the failed load left makes room for the others.
	d.awaitHealthy(t)
	other.change(t, 10, 1)
	d.must(t, "zone", "reload", other.Apex())
	d.awaitChange(t, other.Apex(), otherSerial)
	g.change(t, 10, 2)
	d.must(t, "zone", "reload", zone)
	d.awaitChange(t, zone, serial)
	d.must(t, "journal", "verify")
}

// damageChunks flips octets in the file that holds the zone's contents.
func damageChunks(t *testing.T, data string) {
	t.Helper()
	var largest string
	var length int64
	eachFile(t, filepath.Join(data, "journal"), func(name string, size int64) {
		if filepath.Ext(name) == ".blk" && strings.Contains(name, "BULK") && size > length {
			largest, length = name, size
		}
	})
	if largest == "" {
		t.Fatal("the journal has no chunks")
	}
	text := []byte(readFile(t, largest))
	for at := len(text) / 3; at < len(text)/3+64; at++ {
		text[at] ^= 0x5a
	}
	if err := os.WriteFile(largest, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestDamagedChunk_ServedFromTheProjectionThenMadeAnew(t *testing.T) {
	g := newGenerated(t, zonegen.Config{Kind: zonegen.Hosting, Names: 2000})
	zone := g.Apex()
	d := daemonOn(t, shortDir(t), nil)
	d.awaitHealthy(t)
	d.must(t, "zone", "add", zone, "--source", g.file)
	serial := d.awaitServed(t, zone)
	before := axfrBytes(t, d.addr, zone)
	d.stop()
	damageChunks(t, d.data)

	d.start(t)
	if got := d.awaitServed(t, zone); got != serial {
		t.Errorf("serial %d with a damaged chunk, want %d", got, serial)
	}
	if !bytes.Equal(axfrBytes(t, d.addr, zone), before) {
		t.Error("something else is served with a damaged chunk")
	}
	r := d.cli(t, "journal", "verify", "--json")
	var report struct {
		FaultCount uint64 `json:"fault_count"`
		Faults     []struct {
			Seq  uint64 `json:"seq"`
			What string `json:"what"`
		} `json:"faults"`
	}
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil {
		t.Fatalf("%v: %v", err, r)
	}
	if r.code != 1 || report.FaultCount == 0 || report.Faults[0].Seq == 0 || !strings.Contains(report.Faults[0].What, "chunk") {
		t.Errorf("journal verify does not name the damage: %v", r)
	}
	d.stop()

	// Without the projection, too, the zone is made anew from its source.
	if err := os.RemoveAll(filepath.Join(d.data, "projections")); err != nil {
		t.Fatal(err)
	}
	d.start(t)
	again := d.awaitServed(t, zone)
	if int32(again-serial) < 0 {
		t.Errorf("serial %d after %d", again, serial)
	}
	d.must(t, "zone", "verify", zone)
	g.change(t, 20, 1)
	d.must(t, "zone", "reload", zone)
	d.awaitChange(t, zone, again)
}

// pebbleFiles are the files of the projection with an ending or beginning.
func pebbleFiles(t *testing.T, data, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(data, "projections", "zones", pattern))
	if err != nil || len(names) == 0 {
		t.Fatalf("no file %s in the projection: %v", pattern, err)
	}
	return names
}

func TestDamagedProjection_IsRebuilt(t *testing.T) {
	g := newGenerated(t, zonegen.Config{Kind: zonegen.TLD, Names: 3000})
	zone := g.Apex()
	d := daemonOn(t, shortDir(t), nil)
	d.awaitHealthy(t)
	d.must(t, "zone", "add", zone, "--source", g.file)
	serial := d.awaitServed(t, zone)
	before := axfrBytes(t, d.addr, zone)
	spoil := func(pattern string, part func([]byte) []byte) func(*testing.T) {
		return func(t *testing.T) {
			for _, name := range pebbleFiles(t, d.data, pattern) {
				if err := os.WriteFile(name, part([]byte(readFile(t, name))), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	flip := func(b []byte) []byte {
		for at := len(b) / 2; at < min(len(b), len(b)/2+32); at++ {
			b[at] ^= 0xff
		}
		return b
	}
	remove := func(pattern string) func(*testing.T) {
		return func(t *testing.T) {
			for _, name := range pebbleFiles(t, d.data, pattern) {
				if err := os.Remove(name); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for _, c := range []struct {
		name   string
		damage func(*testing.T)
	}{
		{"manifest flipped", spoil("MANIFEST-*", flip)},
		{"manifest cut off", spoil("MANIFEST-*", func(b []byte) []byte { return b[:len(b)/2] })},
		{"manifest missing", remove("MANIFEST-*")},
		{"marker of the manifest missing", remove("marker.manifest*")},
		{"tables missing", remove("*.sst")},
		{"tables cut off", spoil("*.sst", func(b []byte) []byte { return b[:len(b)/2] })},
		{"tables flipped in the middle", spoil("*.sst", flip)},
		{"no folder", func(t *testing.T) {
			if err := os.RemoveAll(filepath.Join(d.data, "projections")); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d.stop()
			c.damage(t)
			d.start(t)
			d.serveOrRestart(t, zone, serial, before)
			d.must(t, "zone", "replay", zone, "--verify")
		})
	}
}

// serveOrRestart wants the zone served as before. Damage that is met only in
// reading may end the daemon once, with a message that names it.
func (d *daemon) serveOrRestart(t *testing.T, zone string, serial uint32, want []byte) {
	t.Helper()
	restarted := false
	await(t, "the zone is served as before", time.Minute, func() (bool, string) {
		if !d.running() {
			if restarted || d.cmd.ProcessState.ExitCode() != 1 || !strings.Contains(d.log(), "rebuilt from the journal") {
				t.Fatalf("the daemon has ended, %v:\n%s", d.cmd.ProcessState, d.tail())
			}
			restarted = true
			d.start(t)
		}
		got, err := serialAt(d.addr, zone)
		if err != nil || got != serial {
			return false, fmt.Sprintf("serial %d, %v", got, err)
		}
		m := new(dns.Msg)
		m.SetAxfr(zone)
		m.Id = 4711 // that of axfrBytes
		_, raw, err := transfer(d.addr, m)
		return err == nil && bytes.Equal(raw, want), fmt.Sprintf("%d bytes of %d, %v", len(raw), len(want), err)
	})
}

func TestServe_RefusesWhatIsNotItsData(t *testing.T) {
	dir := shortDir(t)
	d := daemonOn(t, dir, nil, exampleZone())
	d.awaitServed(t, example)
	d.kill() // leaves its socket behind
	if _, err := os.Stat(filepath.Join(d.data, "sluice.sock")); errors.Is(err, fs.ErrNotExist) {
		t.Fatal("the socket did not stay")
	}
	if r := d.cli(t, "health"); r.code != 5 {
		t.Errorf("a client of a stale socket: %v; want exit code 5", r)
	}
	serve := func(data string, flags ...string) result {
		return run(t, program(t), append([]string{"serve", "--data", data, "--listen", freeAddr(t)}, flags...)...)
	}
	check := func(name string, r result, says ...string) {
		t.Helper()
		if r.code != 4 {
			t.Errorf("%s: %v; want exit code 4", name, r)
		}
		for _, part := range says {
			if !strings.Contains(r.stderr, part) {
				t.Errorf("%s does not speak of %q: %v", name, part, r)
			}
		}
	}
	check("a rehearsal on real data", serve(d.data, "--clock", "2027-01-01T00:00:00Z"), d.data, "real clock", "--data")

	d.start(t)
	d.awaitServed(t, example)
	check("a second daemon", serve(d.data), d.data)
	d.stop()

	marker := filepath.Join(d.data, "version")
	text := readFile(t, marker)
	writeFile(t, marker, `{"format":999,"clock":"real"}`+"\n")
	check("data of a newer format", serve(d.data), d.data, "999")
	writeFile(t, marker, `{"format":1,"clock":"rehearsal"}`+"\n")
	check("real work on a rehearsal's data", serve(d.data), d.data, "rehearsal clock", "--clock")
	writeFile(t, marker, text)
	d.start(t)
	d.awaitServed(t, example)
}
