package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/e2e/zonegen"
)

// compaction is what these tests read of a compaction.
type compaction struct {
	Bytes, Held uint64
	Failed      int
	Zones       []struct {
		Kept, Instances int
		OldestSerial    uint32 `json:"oldest_serial"`
		Archived, Done  bool
		Snapshot        bool
		Error           string
	}
}

// journalSize is what the two streams hold, and what a zone's versions do.
type journalSize struct {
	Events, Bulk struct{ Bytes, Messages uint64 }
	Zones        []struct {
		OldestSerial uint32 `json:"oldest_serial"`
		Purgeable    uint64 `json:"purgeable_bytes"`
	}
}

func decoded[T any](t *testing.T, text string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}

// retentionDaemon runs a zone with a past of so many versions.
func retentionDaemon(t *testing.T, rules, config string, versions int) (*daemon, *generated, []uint32) {
	t.Helper()
	g := newGenerated(t, zonegen.Config{Kind: zonegen.TLD, Names: 400})
	d := &daemon{addr: freeAddr(t)}
	dir := shortDir(t)
	d.data = filepath.Join(dir, "data")
	if err := os.Mkdir(filepath.Join(dir, "policies"), 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "policies", "default.toml"), "version = \"v1\"\n[retention]\n"+rules)
	file := writeFile(t, filepath.Join(dir, "config.toml"), "version = \"v1\"\n"+config)
	d.flags = []string{"--config", file, "--policy-dir", filepath.Join(dir, "policies"), "--zone", g.source()}
	d.start(t)
	serials := []uint32{d.awaitServed(t, g.Apex())}
	for n := 1; n < versions; n++ {
		g.change(t, 40, uint32(n))
		d.must(t, "zone", "reload", g.Apex())
		serials = append(serials, d.awaitChange(t, g.Apex(), serials[n-1]))
	}
	return d, g, serials
}

func (d *daemon) dumpOf(t *testing.T, zone string, serial uint32) result {
	t.Helper()
	return d.cli(t, "zone", "dump", zone, "--serial", fmt.Sprint(serial))
}

// Old versions go, with a copy in the archive; what stays is rebuilt as it was.
func TestRetention_CompactsAndRebuilds(t *testing.T) {
	t.Parallel()
	archive := shortDir(t)
	d, g, serials := retentionDaemon(t, "versions = 4\nixfr-versions = 2\n", fmt.Sprintf("[journal]\narchive-dir = %q\n", archive), 14)
	zone := g.Apex()
	dumps := map[uint32]string{}
	for _, serial := range serials {
		dumps[serial] = d.dumpOf(t, zone, serial).stdout
	}
	before := decoded[journalSize](t, d.must(t, "--json", "journal", "status"))
	plan := decoded[compaction](t, d.must(t, "--json", "journal", "compact", "--dry-run"))
	if z := plan.Zones[0]; plan.Bytes == 0 || z.Done || z.Kept != 4 || !z.Snapshot || before.Zones[0].Purgeable != plan.Bytes {
		t.Fatalf("plan %+v, status %+v", plan, before)
	}
	d.must(t, "journal", "compact", "--zone", zone)
	after := decoded[journalSize](t, d.must(t, "--json", "journal", "status"))
	if after.Bulk.Bytes > before.Bulk.Bytes*2/3 || after.Events.Messages <= before.Events.Messages || after.Zones[0].OldestSerial != serials[10] {
		t.Errorf("before %+v, after %+v", before, after)
	}
	served := axfr(t, d.addr, zone)
	steps := ixfr(t, d.addr, zone, serials[11])
	same := func(when string) {
		t.Helper()
		for _, serial := range serials {
			if r := d.dumpOf(t, zone, serial); r.code != 0 || r.stdout != dumps[serial] {
				t.Fatalf("%s: version %d differs: %s", when, serial, r.stderr)
			}
		}
		sameZone(t, when, axfr(t, d.addr, zone), served)
		if now := ixfr(t, d.addr, zone, serials[11]); zoneText(now) != zoneText(steps) {
			t.Errorf("%s: IXFR has %d records, %d before", when, len(now), len(steps))
		}
	}
	same("after the purge")
	d.stop()
	if err := os.RemoveAll(filepath.Join(d.data, "projections")); err != nil {
		t.Fatal(err)
	}
	d.start(t)
	d.awaitServed(t, zone)
	same("rebuilt")
	d.must(t, "journal", "verify")
	d.must(t, "zone", "verify", zone)
	d.must(t, "zone", "replay", zone, "--verify")
	if text := d.must(t, "zone", "history", zone); !strings.Contains(text, "snapshot of serial") || !strings.Contains(text, "they are in the archive") {
		t.Errorf("history does not tell of retention:\n%s", text)
	}

	// Without its files, an old version is told from one that never was.
	if err := os.Rename(archive, archive+"-away"); err != nil {
		t.Fatal(err)
	}
	r := d.dumpOf(t, zone, serials[3])
	if r.code != 3 || !strings.Contains(r.stderr, "no longer held") || !strings.Contains(r.stderr, fmt.Sprint(serials[10])) {
		t.Errorf("dump of a purged version: %v", r)
	}
	if r := d.dumpOf(t, zone, serials[10]); r.code != 0 || r.stdout != dumps[serials[10]] {
		t.Errorf("dump of the oldest version held: %v", r)
	}
	d.stop()
	r = run(t, program(t), append([]string{"serve", "--data", d.data, "--listen", d.addr}, d.flags...)...)
	if r.code == 0 || !strings.Contains(r.stderr, "archive-dir") {
		t.Errorf("a daemon without the archive's folder: %v", r)
	}
}

// A compaction that is killed at any moment loses nothing of what stays, and the
// next one brings it to its end.
func TestRetention_SurvivesKills(t *testing.T) {
	t.Parallel()
	d, g, serials := retentionDaemon(t, "versions = 3\nixfr-versions = 1\n", "", 10)
	zone := g.Apex()
	stay := serials[len(serials)-3:]
	dumps := map[uint32]string{}
	for _, serial := range stay {
		dumps[serial] = d.dumpOf(t, zone, serial).stdout
	}
	for round := range 4 {
		if round%2 == 1 {
			g.change(t, 40, uint32(100+round))
			d.must(t, "zone", "reload", zone)
			serials = append(serials, d.awaitChange(t, zone, serials[len(serials)-1]))
			stay = serials[len(serials)-3:]
			dumps[stay[2]] = d.dumpOf(t, zone, stay[2]).stdout
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			d.cli(t, "journal", "compact")
		}()
		// The moment is anywhere in it: it need not be the same in each run.
		select {
		case <-done:
		case <-time.After(time.Duration(round) * 60 * time.Millisecond):
		}
		d.kill()
		<-done
		if err := os.RemoveAll(filepath.Join(d.data, "projections")); err != nil {
			t.Fatal(err)
		}
		d.start(t)
		d.awaitServed(t, zone)
		for _, serial := range stay {
			if r := d.dumpOf(t, zone, serial); r.code != 0 || r.stdout != dumps[serial] {
				t.Fatalf("round %d: version %d differs: %s", round, serial, r.stderr)
			}
		}
		d.must(t, "journal", "verify")
	}
	d.must(t, "journal", "compact")
	last := decoded[compaction](t, d.must(t, "--json", "journal", "compact"))
	if z := last.Zones[0]; last.Failed != 0 || z.Instances != 0 || !z.Done || z.OldestSerial != stay[0] {
		t.Errorf("in the end %+v", last)
	}
	d.must(t, "zone", "replay", zone, "--verify")
}
