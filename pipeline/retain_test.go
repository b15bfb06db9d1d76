package pipeline

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/journal/journaltest"
	"sluice/signer/zone"
)

// retentionPolicy is the built-in policy with other rules of retention.
func retentionPolicy(t *testing.T, rules string) map[string]Policy {
	t.Helper()
	p, err := Parse("default", []byte("version = \"v1\"\n[retention]\n"+rules+"\n"))
	if err != nil {
		t.Fatal(err)
	}
	return map[string]Policy{"default": p}
}

// pastOf is smallZone after some changes: addresses that come and go, a name
// that moves, an RRset that grows.
func pastOf(n int) string {
	text := strings.Replace(smallZone, "192.0.2.80", fmt.Sprintf("192.0.2.%d", 81+n%100), 1)
	if n%3 == 1 {
		text = strings.Replace(text, "a.ent", "b.ent", 1)
	}
	for i := range n % 5 {
		text += fmt.Sprintf("more%d IN TXT %q\n", i, strings.Repeat("x", 10*n%200+1))
	}
	return text
}

// retained is a zone with a past.
func retainedRig(t *testing.T, rules string, changes int) (*rig, *journaltest.Memory) {
	t.Helper()
	j := journaltest.New()
	r := &rig{t: t, dir: t.TempDir(), journal: j, policies: retentionPolicy(t, rules)}
	r.start(r.policies)
	r.add(smallZone)
	for n := range changes {
		r.reload(pastOf(n))
	}
	return r, j
}

// serials are those of the published versions, oldest first.
func (r *rig) serials() (all []uint32) {
	r.t.Helper()
	err := r.e.History(r.t.Context(), "example.com", HistoryQuery{}, func(l HistoryLine) error {
		ev, err := event.Decode(l.Event)
		if f, ok := ev.Facts.(*event.InstancePublished); ok {
			all = append(all, f.Serial)
		}
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

// version is a published version as text, every record and signature.
func (r *rig) version(serial uint32) (string, error) {
	var b bytes.Buffer
	err := r.e.Dump(r.t.Context(), "example.com", DumpQuery{Serial: &serial}, &b)
	return b.String(), err
}

// whole is all that the projection shows of the zone: its state, what is served
// byte by byte, each step for IXFR and the last versions.
func (r *rig) whole(versions int) map[string]string {
	r.t.Helper()
	run, err := r.e.find("example.com")
	if err != nil {
		r.t.Fatal(err)
	}
	s := run.snapshot()
	s.Head, s.Retained = journal.Head{}, nil // retention tells of itself
	state, err := json.Marshal(s)
	if err != nil {
		r.t.Fatal(err)
	}
	out := map[string]string{"state": string(state), "served": r.served()}
	all := r.serials()
	for _, serial := range all[max(0, len(all)-versions):] {
		text, err := r.version(serial)
		if err != nil {
			r.t.Fatalf("version %d: %v", serial, err)
		}
		out[fmt.Sprint(serial)] = text
	}
	name, err := zone.ParseName("example.com")
	if err != nil {
		r.t.Fatal(err)
	}
	v, err := r.e.Source().View(name)
	if err != nil {
		r.t.Fatal(err)
	}
	defer v.Close()
	for _, from := range all {
		steps, ok := v.Diffs(zone.Serial(from))
		text := fmt.Sprint(ok)
		for _, step := range steps {
			for _, part := range []func() (zone.Iterator, error){step.Removed, step.Added} {
				it, err := part()
				if err != nil {
					r.t.Fatal(err)
				}
				for it.Next() {
					text += fmt.Sprintf("\n%x %x", it.Key(), it.Value())
				}
				if err := errors.Join(it.Err(), it.Close()); err != nil {
					r.t.Fatal(err)
				}
				text += "\n--"
			}
		}
		out[fmt.Sprintf("from %d", from)] = text
	}
	return out
}

// rebuild throws the projection away and folds it anew.
func (r *rig) rebuild() {
	r.t.Helper()
	r.stop()
	if err := os.RemoveAll(filepath.Join(r.dir, "projections")); err != nil {
		r.t.Fatal(err)
	}
	r.start(r.policies)
	r.await()
}

func (r *rig) compact(q CompactQuery) ZoneRetention {
	r.t.Helper()
	report, err := r.e.Compact(r.t.Context(), testActor, q, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	if len(report.Zones) != 1 {
		r.t.Fatalf("report %+v", report)
	}
	return report.Zones[0]
}

func (r *rig) bulkBytes() uint64 {
	r.t.Helper()
	st, err := r.e.cfg.Journal.Status(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return st.Bulk.Bytes
}

func TestRetention_RebuildFromSnapshotEqualsRebuildFromZero(t *testing.T) {
	r, _ := retainedRig(t, "versions = 5\nixfr-versions = 3", 40)
	all := r.serials()
	live := r.whole(5)
	r.rebuild()
	if diff := cmp.Diff(live, r.whole(5)); diff != "" {
		t.Fatalf("rebuilt from zero (-live +rebuilt):\n%s", diff)
	}
	before := r.bulkBytes()
	plan := r.compact(CompactQuery{DryRun: true})
	if plan.Done || plan.Instances == 0 || !plan.Snapshot || plan.Kept != 5 || plan.OldestSerial != all[len(all)-5] {
		t.Errorf("plan %+v", plan)
	}
	if r.bulkBytes() != before {
		t.Error("a dry run changed BULK")
	}
	z := r.compact(CompactQuery{})
	if z.Error != "" || !z.Done || z.Kept != 5 || z.OldestSerial != all[len(all)-5] || z.Instances != plan.Instances {
		t.Fatalf("compacted %+v", z)
	}
	if after := r.bulkBytes(); after > before/2 {
		t.Errorf("BULK has %d of %d bytes left", after, before)
	}
	if diff := cmp.Diff(live, r.whole(5)); diff != "" {
		t.Errorf("at work (-before +after the purge):\n%s", diff)
	}
	r.rebuild()
	if diff := cmp.Diff(live, r.whole(5)); diff != "" {
		t.Errorf("rebuilt from the snapshot (-before +after the purge):\n%s", diff)
	}
	hash := r.liveHash()
	r.rebuild()
	if r.liveHash() != hash {
		t.Error("two rebuilds from the snapshot differ")
	}
	if rep, err := r.e.VerifyZone(t.Context(), "example.com", nil); err != nil || !rep.OK() {
		t.Errorf("verify: %v, %v", err, rep)
	}
	replayAll(t, r)
	rep, err := journal.Verify(t.Context(), r.journal, journal.VerifyOptions{Chunks: true})
	if err != nil || rep.FaultCount != 0 || rep.Purged == 0 {
		t.Errorf("verify of the journal: %+v, %v", rep, err)
	}
}

// The zone goes on, and is compacted again and again.
func TestRetention_GoesOnForEver(t *testing.T) {
	r, _ := retainedRig(t, "versions = 2\nixfr-versions = 1", 6)
	most := uint64(0)
	for n := range 8 {
		for i := range 5 {
			r.reload(pastOf(6 + 5*n + i))
		}
		if z := r.compact(CompactQuery{}); z.Error != "" || !z.Done {
			t.Fatalf("round %d: %+v", n, z)
		}
		if n == 1 {
			most = r.bulkBytes()
		}
	}
	if now := r.bulkBytes(); now > 2*most {
		t.Errorf("BULK has grown from %d to %d bytes", most, now)
	}
	live := r.whole(2)
	r.rebuild()
	if diff := cmp.Diff(live, r.whole(2)); diff != "" {
		t.Errorf("rebuilt (-live +rebuilt):\n%s", diff)
	}
	st, err := r.e.JournalStatus(t.Context())
	if err != nil || len(st.Zones) != 1 {
		t.Fatal(err)
	}
	all := r.serials()
	if z := st.Zones[0]; z.OldestSerial != all[len(all)-2] || z.Held == nil || *z.Held != r.bulkBytes() || *z.Purgeable != 0 || z.Retention != "keeps 2 versions" {
		t.Errorf("status %+v of serials %v", z, all)
	}
}

func TestRetention_PurgedVersionsAreToldFromUnknownOnes(t *testing.T) {
	r, _ := retainedRig(t, "versions = 2\nixfr-versions = 0", 12)
	all := r.serials()
	if z := r.compact(CompactQuery{}); z.Error != "" || !z.Done {
		t.Fatalf("%+v", z)
	}
	for _, serial := range all[:len(all)-2] {
		_, err := r.version(serial)
		if !errors.Is(err, journal.ErrPurged) || !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), fmt.Sprint(all[len(all)-2])) {
			t.Fatalf("dump of %d: %v", serial, err)
		}
		err = r.e.Diff(t.Context(), "example.com", fmt.Sprint(serial), fmt.Sprint(all[len(all)-1]), func(DiffLine) error { return nil })
		if !errors.Is(err, journal.ErrPurged) {
			t.Fatalf("diff from %d: %v", serial, err)
		}
	}
	if _, err := r.version(1); errors.Is(err, journal.ErrPurged) || !errors.Is(err, ErrNotFound) {
		t.Errorf("a serial that never was: %v", err)
	}
	err := r.e.Diff(t.Context(), "example.com", fmt.Sprint(all[len(all)-2]), fmt.Sprint(all[len(all)-1]), func(DiffLine) error { return nil })
	if err != nil {
		t.Errorf("diff of what is held: %v", err)
	}
	err = r.e.Replay(t.Context(), "example.com", fmt.Sprint(all[1]), false, nil, func(ReplayStep) error { return nil })
	if !errors.Is(err, journal.ErrPurged) {
		t.Errorf("replay to a purged version: %v", err)
	}
}

func TestRetention_HoldKeepsAll(t *testing.T) {
	for _, rules := range []string{"versions = 1\nixfr-versions = 0\nhold = true", "ixfr-versions = 0"} {
		r, _ := retainedRig(t, rules, 6)
		before := r.bulkBytes()
		z := r.compact(CompactQuery{})
		if z.Error != "" || z.Instances != 0 || z.Bytes != 0 || r.bulkBytes() != before {
			t.Errorf("%s: %+v", rules, z)
		}
		st, err := r.e.JournalStatus(t.Context())
		if err != nil || len(st.Zones) != 1 {
			t.Fatal(err)
		}
		if z := st.Zones[0]; z.Held == nil || *z.Held != before || *z.Purgeable != 0 || z.OldestSerial != 0 {
			t.Errorf("%s: status %+v", rules, z)
		}
	}
}

// Days keep each moment of that time, whatever the number of versions.
func TestRetention_DaysKeepEachMoment(t *testing.T) {
	r, _ := retainedRig(t, "versions = 1\ndays = 1\nixfr-versions = 0", 5)
	if z := r.compact(CompactQuery{}); z.Error != "" || z.Instances != 0 || z.Kept != 6 {
		t.Errorf("within the day: %+v", z)
	}
}

// What a clock says that jumped makes no version old, from the first moment on.
func TestRetention_NothingIsOldByADoubtedClock(t *testing.T) {
	r := &rig{t: t, dir: t.TempDir(), journal: journaltest.New(), clock: NewRehearsal(noon, 1), policies: retentionPolicy(t, "days = 30\nixfr-versions = 0")}
	r.start(r.policies)
	r.add(smallZone)
	for n := range 5 {
		r.reload(pastOf(n))
	}
	for range 20 {
		r.moveClock(365 * day)
		if z := r.compact(CompactQuery{}); !strings.Contains(z.Error, "the clock is not trusted") {
			t.Fatalf("%d instances purged, error %q", z.Instances, z.Error)
		}
		r.moveClock(-365 * day)
		until(t, "the clock is trusted again", func() bool { return r.e.ClockStatus().Trusted && r.e.clockTrusted() })
	}
}

func TestRetention_ArchiveGivesBackOldVersions(t *testing.T) {
	r, j := retainedRig(t, "versions = 2\nixfr-versions = 0", 12)
	all := r.serials()
	live := map[uint32]string{}
	for _, serial := range all {
		text, err := r.version(serial)
		if err != nil {
			t.Fatal(err)
		}
		live[serial] = text
	}
	r.stop()
	id, _, err := j.Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	a, err := journal.OpenArchive(t.TempDir(), id)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	r.archive = a
	r.start(r.policies)
	if z := r.compact(CompactQuery{}); z.Error != "" || !z.Archived {
		t.Fatalf("%+v", z)
	}
	for range 2 { // and what was a snapshot is archived later
		for _, serial := range all {
			if text, err := r.version(serial); err != nil || text != live[serial] {
				t.Fatalf("version %d from the archive: same %v, %v", serial, text == live[serial], err)
			}
		}
		for n := range 12 {
			r.reload(pastOf(20 + n))
		}
		if z := r.compact(CompactQuery{}); z.Error != "" || !z.Done || z.Instances == 0 {
			t.Fatalf("%+v", z)
		}
	}
	steps := 0
	err = r.e.Replay(t.Context(), "example.com", "", true, nil, func(ReplayStep) error { steps++; return nil })
	if err != nil || steps != 2*(1+12+24) {
		t.Errorf("replay with the archive: %d instances, %v", steps, err)
	}
	if err := os.RemoveAll(a.Dir()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.version(all[0]); !errors.Is(err, ErrNotFound) || !errors.Is(err, journal.ErrPurged) {
		t.Errorf("without its files: %v", err)
	}
	r.rebuild()
	if _, err := r.version(all[0]); !errors.Is(err, journal.ErrPurged) {
		t.Errorf("without its files, rebuilt: %v", err)
	}
}

// A fault at each write of a compaction, stored or not: nothing of what stays is
// lost, and the next compaction brings it to its end.
func TestRetention_AFaultAtEveryWrite(t *testing.T) {
	for n := 0; ; n++ {
		met := false
		for _, persisted := range []bool{false, true} {
			r, j := retainedRig(t, "versions = 2\nixfr-versions = 1", 6)
			live := r.whole(2)
			j.FailAt(n, persisted)
			_, err := r.e.Compact(t.Context(), testActor, CompactQuery{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			met = met || j.Failed()
			r.stop()
			r.journal = j.Reopen()
			r.rebuild()
			if diff := cmp.Diff(live, r.whole(2)); diff != "" {
				t.Fatalf("write %d, stored %v: rebuilt (-before +after):\n%s", n, persisted, diff)
			}
			if z := r.compact(CompactQuery{}); z.Error != "" || !z.Done {
				t.Fatalf("write %d, stored %v: again: %+v", n, persisted, z)
			}
			r.rebuild()
			if diff := cmp.Diff(live, r.whole(2)); diff != "" {
				t.Fatalf("write %d, stored %v: in the end (-before +after):\n%s", n, persisted, diff)
			}
			// What no manifest names is swept elsewhere.
			if left := r.leftover(); left != 0 {
				t.Errorf("write %d, stored %v: %d bytes of purged events are left", n, persisted, left)
			}
			r.stop()
		}
		if !met {
			if n < 8 {
				t.Errorf("only %d writes met", n)
			}
			return
		}
	}
}

// leftover is what BULK holds of events whose chunks were purged.
func (r *rig) leftover() (bytes uint64) {
	r.t.Helper()
	p := new(purges)
	if err := p.learn(r.t.Context(), r.journal, "", 1); err != nil {
		r.t.Fatal(err)
	}
	err := r.journal.Read(r.t.Context(), "", 1, 0, func(rec journal.Record) error {
		if !p.passed.Has(rec.Seq) {
			return nil
		}
		for _, m := range event.Manifests(rec.Event.Facts) {
			for _, c := range m.Chunks {
				raw, err := r.journal.Chunk(r.t.Context(), m.Subject, c)
				if err == nil {
					bytes += uint64(len(raw))
				}
			}
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return bytes
}
