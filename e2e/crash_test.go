package e2e

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/e2e/zonegen"
)

// moment is a point within a span that looks random but is the same in every
// run of the test.
func moment(round int, span time.Duration) time.Duration {
	h := fnv.New64a()
	fmt.Fprintf(h, "kill %d", round)
	return time.Duration(h.Sum64() % uint64(span))
}

// published is a version that was seen being served, and the events that were
// shown then.
type published struct {
	serial uint32
	axfr   []byte
	events string // one a line, oldest first
}

func TestKill_NothingPublishedIsLost(t *testing.T) {
	rounds := 20
	if long() {
		rounds = 200
	}
	g := newGenerated(t, zonegen.Config{Kind: zonegen.TLD, Names: 1500})
	zone := g.Apex()
	program(t) // so that its building is not in the span
	began := time.Now()
	d := startDaemon(t, denialPolicy("nsec3-opt-out"), g.source())
	d.awaitServed(t, zone)
	span := time.Since(began) * 5 / 4
	for round := range rounds {
		var seen published
		if round%4 == 0 {
			// Kill somewhere in the first load, signing and publication.
			d.kill()
			if err := os.RemoveAll(d.data); err != nil {
				t.Fatal(err)
			}
			d.start(t)
		} else {
			seen.serial = d.awaitServed(t, zone)
			seen.axfr = axfrBytes(t, d.addr, zone)
			g.change(t, 30, uint32(round+1))
			reload := exec.Command(program(t), "--api", d.socket(), "zone", "reload", zone)
			if err := reload.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = reload.Wait() }() // it fails when its daemon dies
		}
		select {
		case <-time.After(moment(round, span)):
		case <-d.exited:
			t.Fatalf("round %d: the daemon ended by itself:\n%s", round, d.tail())
		}
		if now, err := serialAt(d.addr, zone); err == nil && now != seen.serial {
			seen = published{serial: now}
			if raw := axfrBytes(t, d.addr, zone); serialIs(d.addr, zone, now) {
				seen.axfr = raw
			}
		}
		if r := d.cli(t, "zone", "history", zone, "--json"); r.code == 0 {
			seen.events = r.stdout
		}
		d.kill()
		d.start(t)
		checkSurvived(t, round, d, zone, seen)
		if round%5 == 0 {
			d.must(t, "zone", "replay", zone, "--verify")
			d.must(t, "journal", "verify")
		}
		if t.Failed() {
			return
		}
	}
	file, _ := d.dumpTo(t, zone)
	must(t, program(t), "verify", zone, file)
	d.must(t, "zone", "replay", zone, "--verify")
	d.must(t, "journal", "verify")
}

func serialIs(addr, zone string, want uint32) bool {
	got, err := serialAt(addr, zone)
	return err == nil && got == want
}

// checkSurvived says whether what was seen before the kill is still there.
func checkSurvived(t *testing.T, round int, d *daemon, zone string, seen published) {
	t.Helper()
	serial := d.awaitServed(t, zone)
	if int32(serial-seen.serial) < 0 && seen.serial != 0 {
		t.Errorf("round %d: serial %d after serial %d was served", round, serial, seen.serial)
	}
	if events := d.must(t, "zone", "history", zone, "--json"); !strings.HasPrefix(events, seen.events) {
		t.Errorf("round %d: events were lost or changed:\n%s\nbefore the kill:\n%s", round, events, seen.events)
	}
	if serial == seen.serial && seen.axfr != nil {
		raw := axfrBytes(t, d.addr, zone)
		if serialIs(d.addr, zone, serial) && !bytes.Equal(raw, seen.axfr) {
			t.Errorf("round %d: serial %d is served with other bytes than before the kill", round, serial)
		}
	}
}

func TestRebuild_DeletedProjectionsComeBackByteForByte(t *testing.T) {
	g := newGenerated(t, zonegen.Config{Kind: zonegen.Hosting, Names: 2000})
	zone := g.Apex()
	d := startDaemon(t, "", g.source(), exampleZone())
	d.awaitServed(t, example)
	serial := d.awaitServed(t, zone)
	for round := range uint32(4) {
		g.change(t, 60, round+1)
		d.must(t, "zone", "reload", zone)
		serial = d.awaitChange(t, zone, serial)
	}
	before := map[string][]byte{zone: axfrBytes(t, d.addr, zone), example: axfrBytes(t, d.addr, example)}
	projections := filepath.Join(d.data, "projections")
	for _, c := range []struct {
		name   string
		damage func(t *testing.T)
	}{
		{"deleted", func(t *testing.T) {
			if err := os.RemoveAll(projections); err != nil {
				t.Fatal(err)
			}
		}},
		{"overwritten in part", func(t *testing.T) { overwriteMiddles(t, projections) }},
		{"emptied", func(t *testing.T) { emptyFiles(t, projections) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			d.stop()
			c.damage(t)
			d.start(t)
			for z, want := range before {
				d.awaitServed(t, z)
				if !bytes.Equal(axfrBytes(t, d.addr, z), want) {
					t.Errorf("%s is served with other bytes", z)
				}
			}
			d.must(t, "zone", "replay", zone, "--verify")
		})
	}
}

// eachFile calls fn for every plain file below dir.
func eachFile(t *testing.T, dir string, fn func(name string, size int64)) {
	t.Helper()
	n := 0
	err := filepath.Walk(dir, func(name string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			n++
			fn(name, info.Size())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if n == 0 {
		t.Fatalf("there is no file in %s", dir)
	}
}

func overwriteMiddles(t *testing.T, dir string) {
	t.Helper()
	eachFile(t, dir, func(name string, size int64) {
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteAt(bytes.Repeat([]byte{0xa5}, int(min(size/2, 4096))), size/4); err != nil {
			t.Fatal(err)
		}
	})
}

func emptyFiles(t *testing.T, dir string) {
	t.Helper()
	eachFile(t, dir, func(name string, _ int64) {
		if err := os.Truncate(name, 0); err != nil {
			t.Fatal(err)
		}
	})
}

func TestRebuild_SameBytesOnOneProcessor(t *testing.T) {
	g := newGenerated(t, zonegen.Config{Kind: zonegen.TLD, Names: 3000})
	d := startDaemon(t, denialPolicy("nsec3"), g.source())
	d.awaitServed(t, g.Apex())
	before := axfrBytes(t, d.addr, g.Apex())
	d.stop()
	if err := os.RemoveAll(filepath.Join(d.data, "projections")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOMAXPROCS", "1")
	d.start(t)
	d.awaitServed(t, g.Apex())
	if !bytes.Equal(axfrBytes(t, d.addr, g.Apex()), before) {
		t.Error("the zone is served with other bytes")
	}
}

func TestJournal_FlippedOctetIsFound(t *testing.T) {
	g := newGenerated(t, zonegen.Config{Kind: zonegen.Hosting, Names: 2000})
	d := startDaemon(t, "", g.source())
	d.awaitServed(t, g.Apex())
	d.stop()
	must(t, program(t), "journal", "verify", "--data", d.data)
	// The largest file of messages holds the zone's contents.
	var largest string
	var length int64
	eachFile(t, filepath.Join(d.data, "journal"), func(name string, size int64) {
		if filepath.Ext(name) == ".blk" && size > length {
			largest, length = name, size
		}
	})
	if largest == "" {
		t.Fatal("the journal has no file of messages")
	}
	text := []byte(readFile(t, largest))
	text[len(text)/2] ^= 0x10
	if err := os.WriteFile(largest, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := run(t, program(t), "journal", "verify", "--data", d.data); r.code != 1 {
		t.Errorf("journal verify: %v; want exit code 1", r)
	}
}
