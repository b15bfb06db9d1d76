package audit_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"sluice/journal"
	"sluice/journal/audit"
	"sluice/journal/event"
	"sluice/journal/journaltest"
)

const (
	zoneA event.ZoneID = "00000000000000aa"
	zoneB event.ZoneID = "00000000000000bb"
)

// testLog is a journal in memory with the tree over it.
type testLog struct {
	*journaltest.Memory
	t      *testing.T
	key    *audit.Key
	heads  map[event.ZoneID]journal.Head
	hashes []tlog.Hash
	size   int64
	drop   func(map[string]event.SealedValue) // before an export
}

func newLog(t *testing.T) *testLog {
	t.Helper()
	secret, err := audit.NewKey("log.example/sluice")
	if err != nil {
		t.Fatal(err)
	}
	key, err := audit.ParseKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	return &testLog{Memory: journaltest.New(), t: t, key: key, heads: map[event.ZoneID]journal.Head{}}
}

func (l *testLog) Size() int64 { return l.size }

func (l *testLog) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var out []tlog.Hash
	for _, i := range indexes {
		if i >= int64(len(l.hashes)) {
			return nil, errors.New("no such hash")
		}
		out = append(out, l.hashes[i])
	}
	return out, nil
}

func (l *testLog) Heads(fn func(audit.Head) error) error {
	for _, id := range slices.Sorted(maps.Keys(l.heads)) {
		if err := fn(audit.Head{Zone: id, N: l.heads[id].N, Hash: l.heads[id].Hash}); err != nil {
			return err
		}
	}
	return nil
}

// add appends an event, a minute after the one before.
func (l *testLog) add(zone event.ZoneID, facts event.Facts) {
	l.t.Helper()
	at := time.Date(2026, 1, 1, 0, int(l.size), 0, 0, time.UTC)
	ev := event.Event{Zone: zone, Type: facts.EventType(), Time: at, Actor: event.Program, Facts: facts}
	if _, ok := facts.(*event.LoadFailed); ok {
		if err := event.Seal(&ev, []string{"facts.reason"}, func(salt []byte) { salt[0] = byte(l.size) }); err != nil {
			l.t.Fatal(err)
		}
	}
	head, err := l.Append(l.t.Context(), zone, l.heads[zone], ev)
	if err != nil {
		l.t.Fatal(err)
	}
	l.heads[zone] = head
	grown, err := tlog.StoredHashesForRecordHash(l.size, tlog.Hash(head.Hash), l)
	if err != nil {
		l.t.Fatal(err)
	}
	l.hashes = append(l.hashes, grown...)
	l.size++
}

// seal appends a checkpoint.
func (l *testLog) seal() {
	l.t.Helper()
	c, err := audit.Take(l.key.Name(), l)
	if err != nil {
		l.t.Fatal(err)
	}
	note, err := c.Sign(l.key)
	if err != nil {
		l.t.Fatal(err)
	}
	l.add(event.Instance, &event.JournalCheckpointed{Size: uint64(c.Size), Root: c.Root, Zones: uint64(c.Zones), ZonesRoot: c.ZonesRoot, Note: note})
}

// load appends an instance of a zone with a chunk.
func (l *testLog) load(zone event.ZoneID, content string) {
	l.t.Helper()
	w := l.NewChunks(zone, strings.ReplaceAll(content, " ", ""))
	if err := w.Put(l.t.Context(), journal.RawChunk{Raw: []byte(content), Items: 1}); err != nil {
		l.t.Fatal(err)
	}
	m, err := w.Finish(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	l.add(zone, &event.InstanceLoaded{Source: "file", Serial: 1, Records: 1, Manifest: m})
}

// history is a log with two zones and a few checkpoints.
func history(t *testing.T) *testLog {
	t.Helper()
	l := newLog(t)
	l.add(event.Instance, &event.ZoneAdded{Name: "a.example.", ID: zoneA, Source: "a.zone"})
	l.load(zoneA, "contents of a")
	l.seal()
	l.add(event.Instance, &event.ZoneAdded{Name: "b.example.", ID: zoneB, Source: "b.zone"})
	for i := range 9 {
		l.add([]event.ZoneID{zoneA, zoneB}[i%2], &event.LoadFailed{Source: "x", Reason: fmt.Sprintf("reason %d", i), Total: 1})
	}
	l.seal()
	l.load(zoneB, "contents of b")
	l.seal()
	l.add(zoneA, &event.LoadFailed{Source: "x", Reason: "after the last checkpoint", Total: 1})
	return l
}

// export makes an export in memory.
func (l *testLog) export(filter audit.Filter) fstest.MapFS {
	l.t.Helper()
	dir := fstest.MapFS{}
	source := audit.Source{
		Log: l, Key: l.key,
		Read: func(ctx context.Context, zone event.ZoneID, last uint64, fn audit.EventFunc) error {
			return l.Read(ctx, zone, 1, last, func(rec journal.Record) error {
				if l.drop != nil {
					l.drop(rec.Sealed)
				}
				return fn(rec.Seq, rec.Line, rec.Sealed, &rec.Event)
			})
		},
		Chunks: func(ctx context.Context, m event.Manifest, fn func([]byte) error) error {
			return journal.Chunks(ctx, l, m, fn)
		},
	}
	err := audit.Export(l.t.Context(), source, filter, func(path string, content []byte) error {
		dir[path] = &fstest.MapFile{Data: bytes.Clone(content)}
		return nil
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return dir
}

func (l *testLog) verify(dir fstest.MapFS) audit.Report {
	l.t.Helper()
	r, err := audit.Verify(dir, l.key.Verifier())
	if err != nil {
		l.t.Fatal(err)
	}
	return r
}

var filters = map[string]audit.Filter{
	"whole":      {},
	"chunks":     {Chunks: true},
	"zone":       {Zones: []audit.Zone{{ID: zoneA, Name: "a.example."}}},
	"both zones": {Zones: []audit.Zone{{ID: zoneA, Name: "a.example."}, {ID: zoneB, Name: "b.example."}}, Chunks: true},
	"since":      {Since: time.Date(2026, 1, 1, 0, 5, 0, 0, time.UTC)},
	"until":      {Until: time.Date(2026, 1, 1, 0, 8, 30, 0, time.UTC), Zones: []audit.Zone{{ID: zoneB, Name: "b.example."}}},
}

func TestExport_IsProved(t *testing.T) {
	l := history(t)
	for name, filter := range filters {
		t.Run(name, func(t *testing.T) {
			r := l.verify(l.export(filter))
			if r.FaultCount != 0 || r.Events == 0 || r.Checkpoints != 3 || r.Size != l.size || r.Whole != (name == "whole" || name == "chunks") {
				t.Errorf("%+v", r)
			}
			if filter.Chunks != (r.Chunks > 0) {
				t.Errorf("%d chunks", r.Chunks)
			}
		})
	}
}

// Whatever byte changes is found, and so is every file that goes or comes.
func TestExport_EveryChangedByteIsFound(t *testing.T) {
	l := history(t)
	for name, filter := range filters {
		t.Run(name, func(t *testing.T) {
			dir := l.export(filter)
			for path, f := range dir {
				for i := 0; i < len(f.Data); i += step(len(f.Data)) {
					was := f.Data[i]
					for _, b := range []byte{was ^ 1, '\n'} {
						if b == was {
							continue
						}
						f.Data[i] = b
						if r := l.verify(dir); r.FaultCount == 0 {
							t.Errorf("%s: byte %d from %q to %q is not found", path, i, was, b)
						}
					}
					f.Data[i] = was
				}
				for _, data := range [][]byte{nil, f.Data[:len(f.Data)/2], append(bytes.Clone(f.Data), '\n')} {
					if len(data) == len(f.Data) {
						continue
					}
					changed := maps.Clone(dir)
					changed[path] = &fstest.MapFile{Data: data}
					if r := l.verify(changed); r.FaultCount == 0 {
						t.Errorf("%s: %d of %d bytes are not found", path, len(data), len(f.Data))
					}
				}
				gone := maps.Clone(dir)
				delete(gone, path)
				if r := l.verify(gone); r.FaultCount == 0 {
					t.Errorf("%s: nobody misses it", path)
				}
			}
			dir["more"] = &fstest.MapFile{Data: []byte("x")}
			if r := l.verify(dir); r.FaultCount == 0 {
				t.Error("a further file is not found")
			}
		})
	}
}

// step leaves out most bytes of long files.
func step(n int) int { return max(1, n/60) }

// resign makes the manifest fit what stands in dir, as somebody with the key
// could: what is found then is found by the log alone.
func (l *testLog) resign(dir fstest.MapFS, events int) {
	l.t.Helper()
	if err := audit.Resign(dir, l.key, events); err != nil {
		l.t.Fatal(err)
	}
}

// Dropping, swapping and repeating an event is found by the log itself, and
// the event is named.
func TestExport_EveryMissingOrMovedEventIsNamed(t *testing.T) {
	l := history(t)
	for name, filter := range filters {
		t.Run(name, func(t *testing.T) {
			dir := l.export(filter)
			lines := strings.SplitAfter(string(dir["events-000001.jsonl"].Data), "\n")
			lines = lines[:len(lines)-1]
			for i := range lines {
				for what, changed := range map[string][]string{
					"dropped":  slices.Delete(slices.Clone(lines), i, i+1),
					"swapped":  swap(slices.Clone(lines), i, (i+1)%len(lines)),
					"repeated": slices.Insert(slices.Clone(lines), i, lines[i]),
				} {
					copied := maps.Clone(dir)
					copied["events-000001.jsonl"] = &fstest.MapFile{Data: []byte(strings.Join(changed, ""))}
					l.resign(copied, len(changed))
					r := l.verify(copied)
					if r.FaultCount == 0 {
						t.Errorf("event line %d %s: not found", i, what)
					} else if !slices.ContainsFunc(r.Faults, func(f audit.Fault) bool { return f.Seq > 0 || f.File == "heads.jsonl" }) {
						t.Errorf("event line %d %s: no event named: %+v", i, what, r.Faults)
					}
				}
			}
		})
	}
}

func swap(lines []string, i, j int) []string {
	lines[i], lines[j] = lines[j], lines[i]
	return lines
}

func TestExport_OfAnotherLogIsRefused(t *testing.T) {
	a, b := history(t), history(t)
	if r, err := audit.Verify(a.export(audit.Filter{}), b.key.Verifier()); err != nil || r.FaultCount == 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestTree_RootIsThatOfTlog(t *testing.T) {
	l := newLog(t)
	var tree audit.Tree
	for i := range 130 {
		l.add(zoneA, &event.LoadFailed{Source: "x", Reason: fmt.Sprint(i), Total: 1})
		tree.Append(l.heads[zoneA].Hash)
		want, err := tlog.TreeHash(l.size, l)
		if err != nil || tree.Root() != event.Hash(want) || tree.Size() != l.size {
			t.Fatalf("root of %d: %s, want %s, %v", l.size, tree.Root(), want, err)
		}
	}
}

// The tree of RFC 6962, 2.1.3: its empty root.
func TestRFC6962_EmptyTree(t *testing.T) {
	const want = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	if got := new(audit.Tree).Root().String(); got != want {
		t.Errorf("root %s, want %s", got, want)
	}
}

func TestCheckpoint_ReadsOnlyItsOwnBytes(t *testing.T) {
	l := history(t)
	c, err := audit.Take(l.key.Name(), l)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := c.Sign(l.key)
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := audit.ReadCheckpoint(signed, l.key.Verifier())
	if err != nil || got != c {
		t.Fatalf("%+v, %v, want %+v", got, err, c)
	}
	for i := range signed {
		for _, b := range []byte{signed[i] ^ 1, signed[i] ^ 0x20, '=', '\n'} {
			changed := signed[:i] + string(b) + signed[i+1:]
			if changed == signed {
				continue
			}
			if _, _, err := audit.ReadCheckpoint(changed, l.key.Verifier()); err == nil {
				t.Errorf("byte %d from %q to %q passes", i, signed[i], b)
			}
		}
	}
}

func FuzzReadCheckpoint(f *testing.F) {
	secret, err := audit.NewKey("log.example/sluice")
	if err != nil {
		f.Fatal(err)
	}
	key, err := audit.ParseKey(secret)
	if err != nil {
		f.Fatal(err)
	}
	signed, err := audit.Checkpoint{Origin: key.Name(), Size: 3, Zones: 1}.Sign(key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(signed)
	f.Fuzz(func(t *testing.T, text string) {
		if c, _, err := audit.ReadCheckpoint(text, key.Verifier()); err == nil && !strings.HasPrefix(text, c.Text()) {
			t.Errorf("%q is read as %+v", text, c)
		}
	})
}
