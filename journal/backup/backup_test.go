package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/journal"
	"sluice/journal/audit"
	"sluice/journal/event"
	"sluice/journal/journaltest"
)

const (
	zoneA event.ZoneID = "00000000000000aa"
	zoneB event.ZoneID = "00000000000000bb"
)

var testTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// world is a journal with a key, and the copies of it.
type world struct {
	t   *testing.T
	j   journal.Journal
	key *audit.Key
	dir string
	n   int
}

func newWorld(t *testing.T) *world {
	t.Helper()
	secret, err := audit.NewKey("log.example/sluice")
	if err != nil {
		t.Fatal(err)
	}
	key, err := audit.ParseKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, j: journaltest.New(), key: key, dir: filepath.Join(t.TempDir(), "copy")}
}

func (w *world) append(zone event.ZoneID, facts ...event.Facts) {
	w.t.Helper()
	head, err := w.j.Head(w.t.Context(), zone)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range facts {
		e := event.New(testTime, zone, event.Program, f)
		if _, ok := f.(*event.ZoneAdded); ok {
			if err := event.Seal(&e, []string{"facts.source"}, func(salt []byte) { salt[0] = 1 }); err != nil {
				w.t.Fatal(err)
			}
		}
		if head, err = w.j.Append(w.t.Context(), zone, head, e); err != nil {
			w.t.Fatal(err)
		}
	}
}

// load appends an instance with that many chunks, and its publication.
func (w *world) load(zone event.ZoneID, chunks int) {
	w.t.Helper()
	w.n++
	out := w.j.NewChunks(zone, fmt.Sprintf("load%d", w.n))
	for i := range chunks {
		raw := bytes.Repeat(fmt.Appendf(nil, "%s %d %d,", zone, w.n, i), i%3*100) // some are empty
		if err := out.Put(w.t.Context(), journal.RawChunk{Raw: raw, Items: 1}); err != nil {
			w.t.Fatal(err)
		}
	}
	m, err := out.Finish(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	w.append(zone, &event.InstanceLoaded{Source: "s", Serial: uint32(w.n), Manifest: m},
		&event.InstancePublished{Signed: 1, Loaded: 1, Serial: uint32(w.n)})
}

func (w *world) addZones() {
	w.t.Helper()
	w.append(event.Instance, &event.ZoneAdded{ID: zoneA, Name: "a.example.", Source: "s"}, &event.ZoneAdded{ID: zoneB, Name: "b.example.", Source: "s"})
	w.load(zoneA, 3)
	w.load(zoneB, 5)
}

// copy brings the folder up to date, by way of the messages of a daemon.
func (w *world) copy() (Summary, error) {
	w.t.Helper()
	f, err := OpenFolder(w.dir)
	if err != nil {
		return Summary{}, err
	}
	defer f.Close()
	head, err := Complete(w.t.Context(), w.j, Head{Origin: w.key.Name(), Key: w.key.Verifier().String()})
	if err != nil {
		w.t.Fatal(err)
	}
	r, out := io.Pipe()
	go func() {
		out.CloseWithError(Send(context.Background(), out, head, OfJournal(w.j), f.Position().Seq+1))
	}()
	defer r.Close()
	got, source, err := Receive(r)
	if err != nil {
		w.t.Fatal(err)
	}
	return f.Write(w.t.Context(), got, source, WriteOptions{Now: testTime, Program: "test", Key: w.key})
}

func (w *world) mustCopy() Summary {
	w.t.Helper()
	s, err := w.copy()
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// lines are the stored lines of a journal.
func lines(t *testing.T, j journal.Journal, last uint64) (out []string) {
	t.Helper()
	if err := OfJournal(j).Events(t.Context(), 1, last, func(_ uint64, line []byte) error {
		out = append(out, string(line))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// contents are the raw chunks that the events of a journal name, in order.
func contents(t *testing.T, j journal.Journal, last uint64) (out []string) {
	t.Helper()
	if err := j.Read(t.Context(), "", 1, last, func(rec journal.Record) error {
		for _, m := range event.Manifests(rec.Event.Facts) {
			if err := journal.Chunks(t.Context(), j, m, func(raw []byte) error {
				out = append(out, string(raw))
				return nil
			}); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// rebuilt makes a journal of the copy.
func (w *world) rebuilt(floors map[event.ZoneID]uint32) (*journal.NATS, *Checked) {
	w.t.Helper()
	m, err := ReadManifest(w.dir)
	if err != nil {
		w.t.Fatal(err)
	}
	fill, err := journal.NewRebuild(w.t.Context(), journal.Config{Dir: filepath.Join(w.t.TempDir(), "journal")}, []string{m.Origin}, m.BulkLast)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { fill.Close() })
	c, err := Check(w.t.Context(), w.dir, CheckOptions{Key: w.key.Verifier(), Fill: fill})
	if err != nil {
		w.t.Fatal(err)
	}
	j, err := fill.Finish(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	how := Continuation{Now: testTime, Actor: event.Program, Reason: "test", Floors: floors, FloorReason: "test"}
	if err := c.Continue(w.t.Context(), j, how); err != nil {
		w.t.Fatal(err)
	}
	return j, c
}

func TestBackup_ComesBackUnderTheSameSequences(t *testing.T) {
	w := newWorld(t)
	w.addZones()
	first := w.mustCopy()
	w.load(zoneA, 2)
	w.append(event.Instance, &event.ZoneRemoved{ID: zoneB, Name: "b.example."})
	s := w.mustCopy()
	if s.From != first.Size+1 || s.Size != first.Size+3 || s.Missing != 0 || s.Chunks != 10 {
		t.Fatalf("second copy: %+v after %+v", s, first)
	}
	j, c := w.rebuilt(map[event.ZoneID]uint32{zoneA: 1000})
	if diff := cmp.Diff(lines(t, w.j, s.Size), lines(t, j, s.Size)); diff != "" {
		t.Errorf("events (-journal +restored):\n%s", diff)
	}
	if diff := cmp.Diff(contents(t, w.j, s.Size), contents(t, j, s.Size)); diff != "" {
		t.Errorf("chunks (-journal +restored):\n%s", diff)
	}
	if len(c.Zones) != 2 || c.Zones[0].Name != "a.example." || *c.Zones[0].Serial != 3 || c.Zones[0].Removed || !c.Zones[1].Removed || c.Signed != s.Size {
		t.Errorf("zones %+v, signed %d", c.Zones, c.Signed)
	}
	identity, last, err := j.Stream(t.Context())
	if err != nil || identity == s.Identity || last != s.Size+2 || !slices.Equal(j.Former(), []string{w.key.Name()}) {
		t.Errorf("stream %s with %d events, former %v, %v", identity, last, j.Former(), err)
	}
	var got *event.JournalContinued
	if err := j.Read(t.Context(), event.Instance, s.Size+1, 0, func(rec journal.Record) error {
		got, _ = rec.Event.Facts.(*event.JournalContinued)
		return nil
	}); err != nil || got == nil || got.Stream != s.Identity || got.Size != s.Size || got.Hash != s.Hash || got.Root.String() != c.Root {
		t.Errorf("continued %+v, %v", got, err)
	}
	report, err := journal.Verify(t.Context(), j, journal.VerifyOptions{Chunks: true})
	if err != nil || report.FaultCount != 0 || report.Chunks == 0 {
		t.Errorf("verify: %+v, %v", report, err)
	}
	// A later copy of the restored journal is one of its own.
	w.j = j
	if _, err := w.copy(); !errors.Is(err, ErrOther) {
		t.Errorf("copy of another journal: %v", err)
	}
}

// kept keeps the chunks that it gets.
type kept map[event.Hash]bool

func (k kept) Event(context.Context, *event.Event, []byte) error { return nil }

func (k kept) Chunk(_ context.Context, _ string, c event.Chunk, raw []byte) error {
	k[event.Hash(sha256.Sum256(raw))] = true
	if sha256.Sum256(raw) != c.SHA256 {
		return errors.New("it is another chunk")
	}
	return nil
}

func TestBackup_IndirectListsComeAlong(t *testing.T) {
	w := newWorld(t)
	w.append(event.Instance, &event.ZoneAdded{ID: zoneA, Name: "a.example.", Source: "s"})
	w.load(zoneA, event.MaxDirect+2)
	s := w.mustCopy()
	got := kept{}
	if _, err := Check(t.Context(), w.dir, CheckOptions{Fill: got}); err != nil {
		t.Fatal(err)
	}
	want := contents(t, w.j, s.Size)
	for _, raw := range want {
		if !got[sha256.Sum256([]byte(raw))] {
			t.Errorf("chunk %.20q is missing", raw)
		}
	}
	if s.Chunks != event.MaxDirect+3 || len(want) != event.MaxDirect+2 {
		t.Errorf("%d chunks in the copy of %d and their list", s.Chunks, len(want))
	}
}

func TestBackup_SweepKeepsWhatWasRestored(t *testing.T) {
	w := newWorld(t)
	w.addZones()
	s := w.mustCopy()
	j, _ := w.rebuilt(nil)
	// A chunk of the new log that nothing names, the only one to go.
	out := j.NewChunks(zoneA, "orphan")
	if err := out.Put(t.Context(), journal.RawChunk{Raw: []byte("orphan"), Items: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	r, err := j.SweepOrphans(t.Context(), 0, time.Now().Add(time.Hour))
	if err != nil || r.Chunks != 1 {
		t.Fatalf("swept %+v, %v", r, err)
	}
	if got, want := contents(t, j, s.Size), contents(t, w.j, s.Size); !slices.Equal(got, want) {
		t.Errorf("%d chunks are left, want %d", len(got), len(want))
	}
}

func TestBackup_MissingChunksAreNamed(t *testing.T) {
	w := newWorld(t)
	w.addZones()
	memory, ok := w.j.(*journaltest.Memory)
	if !ok {
		t.Fatal("not in memory")
	}
	memory.SetChunk(2, nil)
	s := w.mustCopy()
	if s.Missing != 1 || len(s.Gone) != 1 || s.Gone[0].Seq != 3 || s.Chunks != 7 {
		t.Errorf("copy %+v", s)
	}
	if again := w.mustCopy(); again.Missing != 1 || len(again.Gone) != 0 {
		t.Errorf("copy of nothing new: %+v", again)
	}
	if _, c := w.rebuilt(nil); c.Signed != s.Size {
		t.Errorf("signed %d", c.Signed)
	}
}

func TestBackup_PurgedChunksAreNoFault(t *testing.T) {
	w := newWorld(t)
	w.addZones()
	memory, ok := w.j.(*journaltest.Memory)
	if !ok {
		t.Fatal("not in memory")
	}
	for seq := range uint64(3) { // those of zone A
		memory.SetChunk(seq+1, nil)
	}
	w.append(zoneA, &event.BulkPurged{From: 3, To: 3, Instances: []uint64{3}, Chunks: 3, Oldest: 4, Kept: 4})
	memory.SetChunk(5, nil)
	s := w.mustCopy()
	if s.Missing != 4 || len(s.Gone) != 1 || s.Gone[0].Seq != 5 {
		t.Errorf("copy %+v", s)
	}
}

// damaged checks that a check finds what was done to the copy.
func (w *world) damaged(what string) {
	w.t.Helper()
	if _, err := Check(w.t.Context(), w.dir, CheckOptions{}); !errors.Is(err, ErrDamaged) {
		w.t.Errorf("%s: %v", what, err)
	}
}

func TestBackup_EveryChangedByteIsFound(t *testing.T) {
	w := newWorld(t)
	w.addZones()
	w.mustCopy()
	entries, err := os.ReadDir(w.dir)
	if err != nil || len(entries) != 5 {
		t.Fatalf("%d files, %v", len(entries), err)
	}
	for _, entry := range entries {
		if entry.Name() == lockFile {
			continue
		}
		path := filepath.Join(w.dir, entry.Name())
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		step := len(whole)/97 + 1
		if strings.HasPrefix(entry.Name(), "heads-") {
			continue // only the next copy reads it
		}
		for at := 0; at < len(whole); at += step {
			changed := bytes.Clone(whole)
			changed[at] ^= 0x10
			write(t, path, changed)
			w.damaged(fmt.Sprintf("%s, byte %d", entry.Name(), at))
		}
		write(t, path, whole[:len(whole)-1])
		w.damaged(entry.Name() + " without its end")
		write(t, path, append(bytes.Clone(whole), '\n'))
		w.damaged(entry.Name() + " with more")
		write(t, path, whole)
	}
	if _, err := Check(t.Context(), w.dir, CheckOptions{Key: w.key.Verifier()}); err != nil {
		t.Fatal(err)
	}
	other := newWorld(t)
	if _, err := Check(t.Context(), w.dir, CheckOptions{Key: other.key.Verifier()}); !errors.Is(err, ErrDamaged) {
		t.Errorf("with the key of another log: %v", err)
	}
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// failing ends in the middle.
type failing struct {
	Source
	after uint64
}

var errFailing = errors.New("the source fails")

func (f failing) Events(ctx context.Context, first, last uint64, fn func(uint64, []byte) error) error {
	return f.Source.Events(ctx, first, last, func(seq uint64, line []byte) error {
		if seq > f.after {
			return errFailing
		}
		return fn(seq, line)
	})
}

func TestBackup_UnfinishedOneIsTheEarlierOne(t *testing.T) {
	w := newWorld(t)
	w.addZones()
	// The first one fails: there is none.
	for after := range uint64(3) {
		f, err := OpenFolder(w.dir)
		if err != nil {
			t.Fatal(err)
		}
		head, err := Complete(t.Context(), w.j, Head{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(t.Context(), head, failing{OfJournal(w.j), after}, WriteOptions{Now: testTime}); !errors.Is(err, errFailing) {
			t.Fatal(err)
		}
		f.Close()
		if _, err := Check(t.Context(), w.dir, CheckOptions{}); !errors.Is(err, ErrNoBackup) {
			t.Errorf("after %d events: %v", after, err)
		}
	}
	s := w.mustCopy()
	w.load(zoneA, 4)
	f, err := OpenFolder(w.dir)
	if err != nil {
		t.Fatal(err)
	}
	head, err := Complete(t.Context(), w.j, Head{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenFolder(w.dir); err == nil {
		t.Error("two copies into one folder at a time")
	}
	if _, err := f.Write(t.Context(), head, failing{OfJournal(w.j), head.Size - 1}, WriteOptions{Now: testTime}); !errors.Is(err, errFailing) {
		t.Fatal(err)
	}
	f.Close()
	if c, err := Check(t.Context(), w.dir, CheckOptions{}); err != nil || c.Manifest.Size != s.Size {
		t.Errorf("%+v, %v", c, err)
	}
	if s = w.mustCopy(); s.Size != head.Size {
		t.Errorf("%+v", s)
	}
	entries, err := os.ReadDir(w.dir)
	if err != nil || len(entries) != 5 {
		t.Errorf("%v, %v", entries, err)
	}
}

func TestBackup_DamagedJournalIsNotCopied(t *testing.T) {
	w := newWorld(t)
	w.addZones()
	memory, ok := w.j.(*journaltest.Memory)
	if !ok {
		t.Fatal("not in memory")
	}
	line := []byte(lines(t, w.j, 2)[1])
	memory.SetLine(2, bytes.Replace(line, []byte("b.example."), []byte("c.example."), 1))
	// The next event links to what stands there now, not to what stood there.
	w.append(event.Instance, &event.ZoneRemoved{ID: zoneB, Name: "b.example."})
	memory.SetLine(2, line)
	if _, err := w.copy(); !errors.Is(err, ErrDamaged) {
		t.Errorf("journal whose link does not fit: %v", err)
	}
}

func TestOpenFolder_RefusesWhatIsNotABackup(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "letter.txt"), []byte("dear"))
	if _, err := OpenFolder(dir); err == nil || !strings.Contains(err.Error(), "letter.txt") {
		t.Errorf("%v", err)
	}
	if _, err := Check(t.Context(), filepath.Join(dir, "none"), CheckOptions{}); !errors.Is(err, ErrNoBackup) {
		t.Errorf("%v", err)
	}
}

func FuzzParseManifest(f *testing.F) {
	m := Manifest{
		Format: formatVersion, Head: Head{Identity: "aa", Size: 1}, Tree: make([]event.Hash, 1), Taken: testTime,
		Parts: []Part{{First: 1, Last: 1}},
	}
	text, err := m.text()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte("sha256 \n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := parseManifest(text)
		if err != nil {
			return
		}
		again, err := m.text()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseManifest(again); err != nil {
			t.Errorf("written again: %v", err)
		}
	})
}

func FuzzReceive(f *testing.F) {
	var b bytes.Buffer
	w := journaltest.New()
	head, err := w.Append(f.Context(), event.Instance, journal.Head{}, event.New(testTime, event.Instance, event.Program, &event.ZoneAdded{ID: zoneA, Name: "a."}))
	if err != nil {
		f.Fatal(err)
	}
	if err := Send(f.Context(), &b, Head{Identity: "aa", Size: head.Seq, Hash: head.Hash}, OfJournal(w), 1); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, stream []byte) {
		head, s, err := Receive(bytes.NewReader(stream))
		if err != nil {
			return
		}
		dir, err := OpenFolder(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		_, err = dir.Write(t.Context(), head, s, WriteOptions{Now: testTime})
		if err == nil && dir.Position() != (journal.Position{Stream: head.Identity, Seq: head.Size, Hash: head.Hash}) {
			t.Errorf("written up to %+v, not %+v", dir.Position(), head)
		}
	})
}
