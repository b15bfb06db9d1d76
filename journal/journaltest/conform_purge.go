package journaltest

import (
	"errors"
	"testing"

	"sluice/journal"
	"sluice/journal/event"
)

// purger is the journal as retention sees it.
func purger(t *testing.T, j journal.Journal) journal.Purger {
	t.Helper()
	p, ok := j.(journal.Purger)
	if !ok {
		t.Fatalf("%T is no Purger", j)
	}
	return p
}

func wantGone(t *testing.T, j journal.Journal, m event.Manifest) {
	t.Helper()
	if err := journal.Chunks(t.Context(), j, m, func([]byte) error { return nil }); !errors.Is(err, journal.ErrNoChunk) {
		t.Errorf("chunks of a purged manifest: %v, want ErrNoChunk", err)
	}
}

func purgedChunksAreGone(t *testing.T, j journal.Journal) {
	p := purger(t, j)
	one, two := [][]byte{content(1, 300), content(2, 500)}, [][]byte{content(3, 700)}
	m, other := putAll(t, j, "x", one...), putAll(t, j, "y", two...)
	sizes, err := p.StoredBytes(t.Context(), zoneA)
	if err != nil || len(sizes) != 2 || sizes[m.Subject] < 800 || sizes[other.Subject] < 700 {
		t.Errorf("stored %v, %v", sizes, err)
	}
	if n, err := p.PurgeChunks(t.Context(), m, true); err != nil || n != 2 {
		t.Errorf("purged %d, %v", n, err)
	}
	wantGone(t, j, m)
	wantChunks(t, j, other, two)
	if n, err := p.PurgeChunks(t.Context(), m, true); err != nil || n != 0 {
		t.Errorf("the second time: %d, %v", n, err)
	}
	if sizes, err = p.StoredBytes(t.Context(), zoneA); err != nil || len(sizes) != 1 {
		t.Errorf("stored afterwards %v, %v", sizes, err)
	}
	if sizes, err = p.StoredBytes(t.Context(), zoneB); err != nil || len(sizes) != 0 {
		t.Errorf("stored of a zone without chunks %v, %v", sizes, err)
	}
}

// A command that ran twice has both manifests under one subject, perhaps with
// the same bytes.
func purgeKeepsWhatSharesASubject(t *testing.T, j journal.Journal) {
	p := purger(t, j)
	raws := [][]byte{content(1, 300), content(2, 500)}
	first := putAll(t, j, "x", raws...)
	second := putAll(t, j, "x", raws...)
	if n, err := p.PurgeChunks(t.Context(), first, false); err != nil || n != 2 {
		t.Errorf("purged %d, %v", n, err)
	}
	wantChunks(t, j, second, raws)
	if n, err := p.PurgeChunks(t.Context(), first, false); err != nil || n != 0 {
		t.Errorf("the second time: %d, %v", n, err)
	}
	wantChunks(t, j, second, raws)
	third := putAll(t, j, "x", raws...)
	if n, err := p.PurgeChunks(t.Context(), second, true); err != nil || n != 2 {
		t.Errorf("purged alone: %d, %v", n, err)
	}
	wantChunks(t, j, third, raws) // of a command that runs meanwhile
}

// In a restored store the sequences of manifests mean nothing.
func purgeWithoutHints(t *testing.T, j journal.Journal) {
	p := purger(t, j)
	raws := [][]byte{content(1, 300), content(2, 500)}
	m := putAll(t, j, "x", raws...)
	for i := range m.Chunks {
		m.Chunks[i].Seq += 1000
	}
	if n, err := p.PurgeChunks(t.Context(), m, false); err != nil || n != 0 {
		t.Errorf("purged beside others: %d, %v", n, err)
	}
	if n, err := p.PurgeChunks(t.Context(), m, true); err != nil || n != 2 {
		t.Errorf("purged alone: %d, %v", n, err)
	}
	wantGone(t, j, m)
}

func purgedListIsGone(t *testing.T, j journal.Journal) {
	var raws [][]byte
	for i := range event.MaxDirect + 1 {
		raws = append(raws, content(i, 40))
	}
	m := putAll(t, j, "indirect", raws...)
	if n, err := purger(t, j).PurgeChunks(t.Context(), m, true); err != nil || n != uint64(len(raws))+1 {
		t.Errorf("purged %d, %v", n, err)
	}
	wantGone(t, j, m)
}

// What bulk.purged names is no fault; the same loss without it is one.
func verifyKnowsWhatWasPurged(t *testing.T, j journal.Journal) {
	m, other := putAll(t, j, "x", content(1, 100)), putAll(t, j, "y", content(2, 100))
	h := mustAppend(t, j, zoneA, journal.Head{}, changed(zoneA, 1))
	h = mustAppend(t, j, zoneA, h,
		event.New(at(2), zoneA, event.Program, &event.InstanceLoaded{Source: "file", Manifest: m}),
		event.New(at(3), zoneA, event.Program, &event.InstanceLoaded{Source: "file", Manifest: other}))
	for _, m := range []event.Manifest{m, other} {
		if _, err := purger(t, j).PurgeChunks(t.Context(), m, true); err != nil {
			t.Fatal(err)
		}
	}
	r, err := journal.Verify(t.Context(), j, journal.VerifyOptions{Chunks: true})
	if err != nil || r.FaultCount != 2 || r.Purged != 0 {
		t.Fatalf("verify of lost chunks: %+v, %v", r, err)
	}
	mustAppend(t, j, zoneA, h, event.New(at(4), zoneA, event.Program, &event.BulkPurged{From: 2, To: 2, Instances: []uint64{2}}))
	r, err = journal.Verify(t.Context(), j, journal.VerifyOptions{Chunks: true})
	if err != nil || r.FaultCount != 1 || r.Purged != 1 || r.Faults[0].Seq != 3 {
		t.Errorf("verify of purged chunks: %+v, %v", r, err)
	}
}
