package journal_test

import (
	"testing"

	"sluice/journal"
)

func TestStats_CountWhatIsStored(t *testing.T) {
	j := openDir(t, journal.Config{})
	head, err := j.Append(t.Context(), gateZone, journal.Head{}, loadFailed(1))
	if err != nil {
		t.Fatal(err)
	}
	one := j.Stats().EventBytes
	if one == 0 {
		t.Fatal("an event has no bytes")
	}
	if _, err := j.Append(t.Context(), gateZone, journal.Head{}, loadFailed(2)); err == nil {
		t.Fatal("a conflict was stored")
	}
	if got := j.Stats().EventBytes; got != one {
		t.Errorf("%d bytes after a conflict, want %d", got, one)
	}
	if _, err := j.Append(t.Context(), gateZone, head, loadFailed(3)); err != nil {
		t.Fatal(err)
	}
	w := j.NewChunks(gateZone, "stats")
	if err := w.Put(t.Context(), journal.RawChunk{Raw: make([]byte, 1000), Items: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := j.Stats()
	if got.EventBytes <= one || got.Chunks != 1 || got.ChunkBytes == 0 || got.ChunkBytes >= 1000 {
		t.Errorf("%+v", got)
	}
}
