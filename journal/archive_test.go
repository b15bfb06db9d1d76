package journal_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/journal/journaltest"
)

// archiveRig is a journal with one instance, and an archive.
func archiveRig(t *testing.T, raws ...[]byte) (*journaltest.Memory, *journal.Archive, journal.Record, event.Manifest) {
	t.Helper()
	j := journaltest.New()
	m := mustPut(t, j, "load", raws...)
	mustAppend(t, j, journal.Head{}, event.New(time.Unix(1, 0), zone, event.Program, &event.InstanceLoaded{Source: "file", Manifest: m}))
	var rec journal.Record
	if err := j.Read(t.Context(), zone, 1, 0, func(r journal.Record) error { rec = r; return nil }); err != nil {
		t.Fatal(err)
	}
	a, err := journal.OpenArchive(t.TempDir(), "memory")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return j, a, rec, m
}

func archiveFile(t *testing.T, a *journal.Archive) string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(a.Dir(), string(zone), "*"))
	if err != nil || len(paths) != 1 {
		t.Fatalf("files %v, %v", paths, err)
	}
	return paths[0]
}

func TestArchive_GivesBackWhatWasPurged(t *testing.T) {
	many := make([][]byte, event.MaxDirect+2)
	for i := range many {
		many[i] = bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 1+i%50)
	}
	j, a, rec, m := archiveRig(t, many...)
	if err := a.Put(t.Context(), j, rec, m, "example."); err != nil {
		t.Fatal(err)
	}
	if _, err := j.PurgeChunks(t.Context(), m, true); err != nil {
		t.Fatal(err)
	}
	if err := journal.Chunks(t.Context(), j, m, func([]byte) error { return nil }); !errors.Is(err, journal.ErrNoChunk) {
		t.Fatalf("the journal alone: %v", err)
	}
	i := 0
	err := journal.Chunks(t.Context(), journal.WithArchive(j, a), m, func(raw []byte) error {
		if !bytes.Equal(raw, many[i]) {
			t.Errorf("chunk %d differs", i)
		}
		i++
		return nil
	})
	if err != nil || i != len(many) {
		t.Errorf("%d chunks of %d, %v", i, len(many), err)
	}
	text, err := os.ReadFile(archiveFile(t, a))
	if err != nil || !bytes.Contains(text, rec.Line) {
		t.Errorf("the file lacks the event's public line, %v", err)
	}
	if err := a.Put(t.Context(), j, rec, m, "example."); !errors.Is(err, journal.ErrNoChunk) {
		t.Errorf("what is gone cannot be archived: %v", err)
	}
}

// Each byte of a file that is changed, and each end that is cut, is found or
// makes no difference to what comes out.
func TestArchive_DamageIsFound(t *testing.T) {
	raw := []byte("some contents of a zone, some contents of a zone")
	j, a, rec, m := archiveRig(t, raw)
	if err := a.Put(t.Context(), j, rec, m, "example."); err != nil {
		t.Fatal(err)
	}
	path := archiveFile(t, a)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	try := func(damaged []byte) {
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		fresh, err := journal.OpenArchive(filepath.Dir(a.Dir()), "memory")
		if err != nil {
			t.Fatal(err)
		}
		defer fresh.Close()
		got, err := fresh.Chunk(m.Subject, m.Chunks[0])
		switch {
		case err == nil && !bytes.Equal(got, raw):
			t.Fatalf("other bytes came out: %q", got)
		case err != nil && !errors.Is(err, journal.ErrNoChunk):
			t.Fatalf("%v is no ErrNoChunk", err)
		case err != nil:
			found++
		}
	}
	for i := range whole {
		damaged := bytes.Clone(whole)
		damaged[i] ^= 0x15
		try(damaged)
	}
	for n := 0; n < len(whole); n += 7 {
		try(whole[:n])
	}
	if found < len(whole)/7 {
		t.Errorf("only %d of %d damages were found", found, len(whole)+len(whole)/7)
	}
	other := m.Chunks[0]
	other.SHA256[3] ^= 1
	if _, err := a.Chunk(m.Subject, other); !errors.Is(err, journal.ErrNoChunk) {
		t.Errorf("another hash: %v", err)
	}
	for _, subject := range []string{"", "bulk.x", "bulk.../../x", "bulk.00000000000000aa.*", "bulk.00000000000000aa.a.b"} {
		if _, err := a.Chunk(subject, m.Chunks[0]); !errors.Is(err, journal.ErrNoChunk) {
			t.Errorf("subject %q: %v", subject, err)
		}
	}
}

func TestOpenArchive_WantsAFolder(t *testing.T) {
	dir := t.TempDir()
	if _, err := journal.OpenArchive(filepath.Join(dir, "missing"), "id"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a folder that is not there: %v", err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := journal.OpenArchive(file, "id"); err == nil {
		t.Error("a file was taken as the folder")
	}
}
