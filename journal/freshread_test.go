package journal_test

import (
	"bytes"
	"errors"
	"testing"

	"sluice/journal"
)

func TestFresh_HandsOutOnceWhatTheStoreNeedNotBeAskedFor(t *testing.T) {
	j := openDir(t, journal.Config{Dir: t.TempDir()})
	raw := bytes.Repeat([]byte("www.example.com "), 100)
	m := mustPut(t, j, "c1", raw)
	if n, err := j.PurgeChunks(t.Context(), m, true); err != nil || n != 1 {
		t.Fatalf("purged %d, %v", n, err)
	}
	read := func(from journal.Journal) (got []byte, err error) {
		err = journal.Chunks(t.Context(), from, m, func(raw []byte) error {
			got = append(got, raw...)
			return nil
		})
		return got, err
	}
	if _, err := read(j); !errors.Is(err, journal.ErrNoChunk) {
		t.Errorf("the journal reads what its store has lost: %v", err)
	}
	if got, err := read(journal.Fresh(j)); err != nil || !bytes.Equal(got, raw) {
		t.Errorf("read %d bytes, %v; want the %d that were written", len(got), err, len(raw))
	}
	if _, err := read(journal.Fresh(j)); !errors.Is(err, journal.ErrNoChunk) {
		t.Errorf("read twice: %v", err)
	}
}
