package pipeline

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"sluice/journal"
	"sluice/journal/audit"
	"sluice/journal/event"
	"sluice/journal/journaltest"
)

// newSealed starts an engine that seals its journal once an hour.
func newSealed(t *testing.T, change func(*Sealing)) (*rig, *byHand) {
	t.Helper()
	secret, err := audit.NewKey("log.example/sluice")
	if err != nil {
		t.Fatal(err)
	}
	key, err := audit.ParseKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	hand := newHand(dayOne)
	r := &rig{t: t, dir: t.TempDir(), journal: journaltest.New(), clock: hand.clock()}
	r.sealing = Sealing{Key: key, Interval: time.Hour, Events: 1000}
	if change != nil {
		change(&r.sealing)
	}
	r.start(nil)
	return r, hand
}

// A key that was lost and made anew would end what can be verified.
func TestSeal_AnotherKeySignsNothing(t *testing.T) {
	r, _ := newSealed(t, nil)
	r.add(smallZone)
	if _, err := r.e.Seal(t.Context(), event.Program); err != nil {
		t.Fatal(err)
	}
	r.stop()
	former := r.sealing.Key
	secret, err := audit.NewKey(former.Name())
	if err != nil {
		t.Fatal(err)
	}
	if r.sealing.Key, err = audit.ParseKey(secret); err != nil {
		t.Fatal(err)
	}
	r.start(nil)
	until(t, "it is told", func() bool { return strings.Contains(r.head().Trouble, "another audit key") })
	if _, err := r.e.Seal(t.Context(), event.Program); !errors.Is(err, ErrState) || len(r.checkpoints()) != 1 {
		t.Errorf("sealed with another key: %v, %d checkpoints", err, len(r.checkpoints()))
	}
	r.stop()
	r.sealing.Key = former
	r.start(nil)
	defer r.stop()
	if _, err := r.e.Seal(t.Context(), event.Program); err != nil || len(r.checkpoints()) != 2 {
		t.Errorf("with the former key: %v, %d checkpoints", err, len(r.checkpoints()))
	}
}

// checkpoints lists those in the journal.
func (r *rig) checkpoints() (all []*event.JournalCheckpointed) {
	r.t.Helper()
	if err := r.journal.Read(r.t.Context(), event.Instance, 1, 0, func(rec journal.Record) error {
		if f, ok := rec.Event.Facts.(*event.JournalCheckpointed); ok {
			all = append(all, f)
		}
		return nil
	}); err != nil {
		r.t.Fatal(err)
	}
	return all
}

func (r *rig) head() AuditHead {
	r.t.Helper()
	h, err := r.e.AuditHead()
	if err != nil {
		r.t.Fatal(err)
	}
	return h
}

func TestSeal_OnceAnIntervalWhereSomethingCame(t *testing.T) {
	file := filepath.Join(t.TempDir(), "checkpoint")
	r, hand := newSealed(t, func(s *Sealing) { s.File = file })
	r.add(smallZone)
	if n := len(r.checkpoints()); n != 0 {
		t.Fatalf("%d checkpoints before their time", n)
	}
	hand.move(dayOne.Add(time.Hour))
	until(t, "the journal is sealed", func() bool { h := r.head(); return h.Checkpoint != nil })
	h := r.head()
	if h.Later != 1 || h.Checkpoint.Size != h.Checkpoint.Seq-1 {
		t.Errorf("%+v: want all events but its own counted", h)
	}
	until(t, "the checkpoint is handed out", func() bool {
		out, err := os.ReadFile(file)
		return err == nil && string(out) == h.Checkpoint.Note
	})
	// Nothing came since but the checkpoint itself, over a restart too.
	hand.move(dayOne.Add(2 * time.Hour))
	r.stop()
	r.start(nil)
	hand.move(dayOne.Add(3 * time.Hour))
	if err := r.e.sealWhereDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(r.checkpoints()); n != 1 {
		t.Errorf("%d checkpoints, want the first one alone", n)
	}
	r.reload(strings.Replace(smallZone, " 7 ", " 8 ", 1))
	if err := r.e.sealWhereDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(r.checkpoints()); n != 2 {
		t.Errorf("%d checkpoints, want two", n)
	}
	report, err := r.e.VerifyJournal(t.Context(), VerifyQuery{Checkpoints: []string{h.Checkpoint.Note}}, nil)
	if err != nil || report.FaultCount != 0 || report.Checkpoints != 3 {
		t.Errorf("%+v, %v", report, err)
	}
}

func TestSeal_ManyEventsDoNotWait(t *testing.T) {
	r, _ := newSealed(t, func(s *Sealing) { s.Events = 3 })
	r.add(smallZone)
	until(t, "the journal is sealed before its time", func() bool { return r.head().Checkpoint != nil })
}

// A checkpoint that cannot be handed out is in the journal all the same, and
// what is wrong is told.
func TestSeal_HookThatFailsIsTold(t *testing.T) {
	r, _ := newSealed(t, func(s *Sealing) {
		s.Hook = Hook{Command: `echo "no room for $SLUICE_CHECKPOINT_SIZE"; exit 3`, Timeout: 10 * time.Second}
	})
	r.add(smallZone)
	_, err := r.e.Seal(t.Context(), testActor)
	if err == nil || !strings.Contains(err.Error(), "exit code 3: no room for") {
		t.Errorf("%v", err)
	}
	if len(r.checkpoints()) != 1 {
		t.Error("it is not in the journal")
	}
}

func TestSeal_NoKeyNoCheckpoint(t *testing.T) {
	r := newRig(t, journaltest.New(), nil)
	_, head := r.e.AuditHead()
	_, seal := r.e.Seal(t.Context(), testActor)
	export := r.e.AuditExport(t.Context(), jane, ExportQuery{}, nil)
	for _, err := range []error{head, seal, export} {
		if !errors.Is(err, ErrState) {
			t.Errorf("%v, want ErrState", err)
		}
	}
}

// What the engine exports is proved, by zone too, and names what it has.
func TestAuditExport_IsProved(t *testing.T) {
	r, _ := newSealed(t, nil)
	r.add(smallZone)
	if _, err := r.e.Seal(t.Context(), testActor); err != nil {
		t.Fatal(err)
	}
	for _, q := range []ExportQuery{{}, {Zones: []string{"EXAMPLE.com"}, Chunks: true}} {
		dir := fstest.MapFS{}
		if err := r.e.AuditExport(t.Context(), jane, q, func(path string, content []byte) error {
			dir[path] = &fstest.MapFile{Data: bytes.Clone(content)}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		report, err := audit.Verify(dir, r.sealing.Key.Verifier())
		if err != nil || report.FaultCount != 0 || report.Checkpoints != 1 || q.Chunks != (report.Chunks > 0) {
			t.Errorf("%+v: %+v, %v", q, report, err)
		}
	}
	if err := r.e.AuditExport(t.Context(), jane, ExportQuery{Zones: []string{"not.here"}}, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown zone: %v", err)
	}
	if err := r.e.AuditExport(t.Context(), jane, ExportQuery{Since: dayOne.Add(time.Hour)}, nil); err == nil {
		t.Error("a time without events gives an export")
	}
}
