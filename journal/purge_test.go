package journal_test

import (
	"testing"
	"time"

	"sluice/journal"
	"sluice/journal/event"
)

// The sweep passes over manifests whose lists retention has purged, and still
// keeps what others name.
func TestSweep_PassesOverWhatWasPurged(t *testing.T) {
	j := openDir(t, journal.Config{Dir: t.TempDir()})
	many := make([][]byte, event.MaxDirect+1)
	for i := range many {
		many[i] = []byte{byte(i), byte(i >> 8)}
	}
	old, kept := mustPut(t, j, "old", many...), mustPut(t, j, "kept", many[0], many[1])
	at := time.Unix(1_700_000_000, 0)
	head := mustAppend(t, j, journal.Head{}, event.New(at, zone, event.Program, &event.InstanceLoaded{Source: "file", Manifest: old}))
	head = mustAppend(t, j, head, event.New(at, zone, event.Program, &event.InstanceLoaded{Source: "file", Manifest: kept}))
	mustAppend(t, j, head, event.New(at, zone, event.Program, &event.BulkPurged{From: 1, To: 1, Instances: []uint64{1}}))
	if n, err := j.PurgeChunks(t.Context(), old, true); err != nil || n != event.MaxDirect+2 {
		t.Fatalf("purged %d, %v", n, err)
	}
	mustPut(t, j, "orphan", []byte("a"), []byte("b"), []byte("c"))
	r, err := j.SweepOrphans(t.Context(), 0, time.Now().Add(time.Hour))
	if err != nil || r.Chunks != 3 {
		t.Fatalf("sweep: %+v, %v", r, err)
	}
	if err := journal.Chunks(t.Context(), j, kept, func([]byte) error { return nil }); err != nil {
		t.Errorf("what a manifest names: %v", err)
	}
}
