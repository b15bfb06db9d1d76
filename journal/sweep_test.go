package journal

import (
	"slices"
	"testing"
	"time"

	"sluice/journal/event"
)

// What a manifest names that came after the sweep had read the events is no
// orphan: the sweep meets it when it tells the zone.
func TestSweep_LeavesAZoneThatHasJustCommitted(t *testing.T) {
	const zone event.ZoneID = "00000000000000aa"
	at := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	j, err := Open(t.Context(), Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() }) //nolint:errcheck // the test is over
	head, err := j.Append(t.Context(), zone, Head{}, event.New(at, zone, event.Program, &event.LoadFailed{Source: "file", Reason: "gone", Total: 1}))
	if err != nil {
		t.Fatal(err)
	}
	w := j.NewChunks(zone, "late")
	if err := w.Put(t.Context(), RawChunk{Raw: []byte("contents"), Items: 1}); err != nil {
		t.Fatal(err)
	}
	m, err := w.Finish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := j.learnNamed(t.Context()); err != nil {
		t.Fatal(err)
	}
	orphans, err := j.listOrphans(t.Context(), time.Now().Add(time.Hour))
	if err != nil || len(orphans[zone]) != 1 {
		t.Fatalf("orphans %+v, %v", orphans, err)
	}
	if _, err := j.Append(t.Context(), zone, head, event.New(at, zone, event.Program, &event.InstanceLoaded{Source: "file", Manifest: m})); err != nil {
		t.Fatal(err)
	}
	var r SweepReport
	if err := j.sweepZone(t.Context(), zone, orphans[zone], at, &r); err != nil || r.Chunks != 0 || !slices.Equal(r.Skipped, []event.ZoneID{zone}) {
		t.Errorf("swept %+v, %v", r, err)
	}
	if err := Chunks(t.Context(), j, m, func([]byte) error { return nil }); err != nil {
		t.Errorf("what was committed: %v", err)
	}
}
