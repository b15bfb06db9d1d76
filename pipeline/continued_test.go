package pipeline

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/journal"
	"sluice/journal/backup"
	"sluice/journal/event"
	"sluice/journal/journaltest"
	"sluice/keymgr"
)

// richJournal has a zone live through loads, a first DS, a rollover, refreshes,
// a rollback of what it is, and removal; and come back by transfers and reviews.
func richJournal(t *testing.T) *rolling {
	t.Helper()
	w := newRolling(t, "[loader.review]\nmode = \"manual\"\n")
	ctx := t.Context()
	passes := func() {
		t.Helper()
		w.approve(event.StageLoaded)
		w.settle()
	}
	passes()
	w.reload(strings.Replace(smallZone, "192.0.2.80", "192.0.2.81", 1))
	passes()
	w.reload(strings.Replace(smallZone, "192.0.2.80", "192.0.2.99", 1))
	w.reject(event.StageLoaded)
	w.secure()
	w.rolls(RolloverRequest{Kind: keymgr.RollZSK})
	w.runs("the end of the rollover", quiet)
	for range 3 { // refreshes
		w.h.move(w.h.now().Add(12 * 24 * time.Hour))
		w.settle()
	}
	if err := w.e.RemoveZone(ctx, testActor, "example.com", true); err != nil {
		t.Fatal(err)
	}
	p := newPrimary(t, zoneFileOf(1, "www A 192.0.2.80", "old TXT a"))
	w.addFrom(p.addr)
	passes()
	p.serve(zoneFileOf(2, "www A 192.0.2.81"), soa(1), "old 300 TXT a", "www 300 A 192.0.2.80", soa(2), "www 300 A 192.0.2.81")
	w.ask(false)
	passes()
	kinds := map[string]bool{}
	if err := w.journal.Read(ctx, "", 1, 0, func(rec journal.Record) error {
		kinds[rec.Event.Type] = true
		if f, ok := rec.Event.Facts.(*event.InstanceLoaded); ok && f.Transfer == "IXFR" {
			kinds["IXFR"] = true
		}
		if f, ok := rec.Event.Facts.(*event.InstanceSigned); ok && f.Base != 0 && f.Made > 1 {
			kinds["refresh"] = true
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"IXFR", "refresh", "zone.removed", "review.approved", "review.rejected", "instance.published", "rollover.completed", "key.removed", "ds.submitted",
	} {
		if !kinds[want] {
			t.Errorf("the journal has no %s", want)
		}
	}
	return w
}

// walk is every live key and value, with the identity of the journal left out.
func (r *rig) walk() []string {
	r.t.Helper()
	identity, _, err := r.journal.Stream(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	var out []string
	if err := r.e.store.Walk(func(key, value []byte) error {
		out = append(out, string(key)+"="+string(bytes.ReplaceAll(value, []byte(identity), []byte("IDENTITY"))))
		return nil
	}); err != nil {
		r.t.Fatal(err)
	}
	return out
}

// replayAll replays the zones of a name and returns the digests.
func (r *rig) replayAll() (digests []string) {
	r.t.Helper()
	if err := r.e.Replay(r.t.Context(), "example.com", "", true, nil, func(s ReplayStep) error {
		if !s.Equal {
			r.t.Errorf("%s differs", s.Instance)
		}
		digests = append(digests, s.Instance+" "+s.Rebuilt)
		return nil
	}); err != nil {
		r.t.Errorf("replay: %v", err)
	}
	return digests
}

// What a backup holds gives the same elsewhere: the same digests and, byte for
// byte, the same projection, without any key, on one processor.
func TestBackup_ReplaysElsewhereWithoutKeys(t *testing.T) {
	w := richJournal(t)
	dir := filepath.Join(t.TempDir(), "copy")
	folder, err := backup.OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	head, source, err := w.e.Backup(t.Context(), journal.Position{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := folder.Write(t.Context(), head, source, backup.WriteOptions{Now: dayOne, Program: "test"})
	if err = errors.Join(err, folder.Close()); err != nil || s.Missing > 0 {
		t.Fatalf("%+v, %v", s, err)
	}
	want, digests := w.walk(), w.replayAll()
	w.stop()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	m, err := backup.ReadManifest(dir)
	if err != nil {
		t.Fatal(err)
	}
	fill, err := journal.NewRebuild(t.Context(), journal.Config{Dir: filepath.Join(t.TempDir(), "journal")}, []string{m.Origin}, m.BulkLast)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fill.Close() })
	if _, err := backup.Check(t.Context(), dir, backup.CheckOptions{Fill: fill}); err != nil {
		t.Fatal(err)
	}
	j, err := fill.Finish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := &rig{t: t, dir: t.TempDir(), journal: j, clock: w.clock}
	elsewhere.start(nil)
	if got := elsewhere.replayAll(); len(got) == 0 || !slices.Equal(got, digests) {
		t.Errorf("digests\n%v\nwant\n%v", got, digests)
	}
	got := elsewhere.walk()
	if _, last, err := j.Stream(t.Context()); err != nil || last != s.Size {
		t.Fatalf("the journal elsewhere has %d events, not %d: it went on, %v", last, s.Size, err)
	}
	if len(got) != len(want) {
		t.Errorf("%d keys, want %d", len(got), len(want))
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Fatalf("key %d of %d:\n%q\nwant\n%q", i, len(want), got[i], want[i])
		}
	}
}

func TestEngine_TellsOfItsLastCopy(t *testing.T) {
	r, _ := newSealed(t, nil)
	r.add(smallZone)
	head, source, err := r.e.Backup(t.Context(), journal.Position{})
	if err != nil || head.Checkpoint == "" || head.Key != r.head().Key || head.Rehearsal != r.clock.Simulated() {
		t.Fatalf("%+v, %v", head, err)
	}
	seen := uint64(0)
	if err := source.Events(t.Context(), 1, head.Size, func(seq uint64, _ []byte) error { seen = seq; return nil }); err != nil || seen != head.Size {
		t.Errorf("events up to %d of %d, %v", seen, head.Size, err)
	}
	for what, b := range map[string]BackupDone{
		"nowhere":         {Size: head.Size, Hash: head.Hash},
		"another event":   {Size: head.Size - 1, Hash: head.Hash, Place: "/copy"},
		"a later journal": {Size: head.Size + 9, Hash: head.Hash, Place: "/copy"},
	} {
		if err := r.e.RecordBackup(t.Context(), testActor, b); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := r.e.RecordBackup(t.Context(), testActor, BackupDone{Size: head.Size, Hash: head.Hash, Place: "/copy"}); err != nil {
		t.Fatal(err)
	}
	st, err := r.e.JournalStatus(context.WithoutCancel(t.Context()))
	if err != nil || st.Backup == nil || st.Backup.Size != head.Size || st.Backup.Place != "/copy" {
		t.Errorf("%+v, %v", st.Backup, err)
	}
	// A copy is made as often as somebody likes: no checkpoint for it alone.
	before := len(r.checkpoints())
	if _, _, err := r.e.Backup(t.Context(), journal.Position{Stream: head.Identity, Seq: head.Size, Hash: head.Hash}); err != nil {
		t.Fatal(err)
	}
	if after := len(r.checkpoints()); after != before {
		t.Errorf("%d checkpoints, there were %d", after, before)
	}
	if _, _, err := r.e.Backup(t.Context(), journal.Position{Stream: "other", Seq: 1, Hash: head.Hash}); !errors.Is(err, ErrState) {
		t.Errorf("a copy of another journal is added to: %v", err)
	}
}

func TestEngine_NewLogHasNoCheckpointOfTheOldOne(t *testing.T) {
	j := journaltest.New()
	r := newRig(t, j, nil)
	r.add(smallZone)
	r.stop()
	head, err := j.Head(t.Context(), event.Instance)
	if err != nil {
		t.Fatal(err)
	}
	last := &event.JournalContinued{Origin: "old.example", Stream: "memory", Size: head.Seq, Hash: head.Hash, Reason: "restored"}
	if _, err := j.Append(t.Context(), event.Instance, head, event.New(time.Now(), event.Instance, testActor, last)); err != nil {
		t.Fatal(err)
	}
	r.start(nil)
	until(t, "the new log is told of", func() bool {
		st, err := r.e.JournalStatus(t.Context())
		return err == nil && st.Continued != nil && st.Continued.Origin == "old.example" && st.Continued.Size == head.Seq
	})
}
