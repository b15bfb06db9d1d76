package pipeline

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/journal/journaltest"
)

func TestRemoveZone_RefusedWhileADSIsSeen(t *testing.T) {
	r := newRig(t, journaltest.New(), nil)
	r.add(smallZone)
	r.parent(true, nil)
	if err := r.e.RemoveZone(t.Context(), testActor, "example.com", false); !errors.Is(err, ErrState) {
		t.Errorf("removal with a DS at the parent: %v", err)
	}
	r.parent(false, errors.New("no answer"))
	if err := r.e.RemoveZone(t.Context(), testActor, "example.com", false); !errors.Is(err, ErrState) || !strings.Contains(err.Error(), "no answer") {
		t.Errorf("removal while the parent cannot be asked: %v", err)
	}
	if err := r.e.RemoveZone(t.Context(), testActor, "example.com", true); err != nil {
		t.Errorf("forced removal: %v", err)
	}
}

func TestRemoveZone_NeverPublishedNeedsNoParent(t *testing.T) {
	r := newRig(t, journaltest.New(), nil)
	r.parent(false, errors.New("no answer"))
	if _, err := r.e.AddZone(t.Context(), testActor, NewZone{Name: "example.com", Source: filepath.Join(t.TempDir(), "missing"), Policy: "default"}); err != nil {
		t.Fatal(err)
	}
	if err := r.e.RemoveZone(t.Context(), testActor, "example.com", false); err != nil {
		t.Error(err)
	}
}

func TestOpenZoneFile(t *testing.T) {
	dir := t.TempDir()
	real := filepath.Join(dir, "real", "zone")
	if err := os.MkdirAll(filepath.Join(dir, "real", "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(real, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "real", "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	z, err := OpenZoneFile(filepath.Join(dir, "link"))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	f, err := z.Open(z.Name)
	if err != nil {
		t.Fatalf("a link to a zone file: %v", err)
	}
	defer f.Close()
	for _, name := range []string{"pipe", "folder"} {
		if _, err := z.Open(name); !errors.Is(err, errNotRegular) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := z.Open("../link"); err == nil {
		t.Error("a way out of the folder is open")
	}
}

func TestReplay_NoSuchInstanceIsNotFound(t *testing.T) {
	r := newRig(t, journaltest.New(), nil)
	r.add(smallZone)
	for _, to := range []string{"9999", "seq:1", "@1"} {
		err := r.e.Replay(t.Context(), "example.com", to, false, nil, func(ReplayStep) error { return nil })
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("--to %s: %v", to, err)
		}
	}
}

func TestEvolveNext_AMissingEventHaltsTheZone(t *testing.T) {
	s := boundState(withKeys("active"), withLoaded(5))
	s.Head = journal.Head{Seq: 8, N: 2, Hash: event.Hash{2}}
	next := func(n uint64, prev event.Hash) State {
		rec := recordOf(t, 9, event.Event{N: n, Prev: prev, Facts: &event.MaintenanceChanged{Enabled: true}})
		return EvolveNext(s, rec, "")
	}
	if got := next(3, event.Hash{2}); got.Halted != nil || got.Maintenance == nil {
		t.Errorf("the next event: halted %+v, maintenance %+v", got.Halted, got.Maintenance)
	}
	for what, got := range map[string]State{"a gap": next(4, event.Hash{2}), "the same number": next(2, event.Hash{2}), "another event before it": next(3, event.Hash{1})} {
		if got.Halted == nil || !strings.Contains(got.Halted.Reason, "does not follow") || got.Maintenance != nil {
			t.Errorf("%s: halted %+v, maintenance %+v", what, got.Halted, got.Maintenance)
		}
		later := recordOf(t, 10, event.Event{N: got.Head.N + 1, Prev: got.Head.Hash, Facts: &event.MaintenanceChanged{Enabled: true}})
		if after := EvolveNext(got, later, ""); after.Halted == nil || after.Halted.Seq != 9 || after.Maintenance != nil || after.Head != later.Head() {
			t.Errorf("%s, and one more: halted %+v, maintenance %+v", what, after.Halted, after.Maintenance)
		}
	}
}

func TestDecide_CompletesKeysInTheirAlgorithm(t *testing.T) {
	s := boundState(withKeys("generated"))
	s.Keys.Keys = s.Keys.Keys[1:]
	s.Keys.Keys[0].Algorithm = 15
	for _, c := range Decide(s, Default(), Moment{Now: noon}).Commands {
		if g, ok := c.(GenerateKeys); ok && g.Algorithm != 15 {
			t.Errorf("a KSK of algorithm %d beside a ZSK of algorithm 15", g.Algorithm)
		}
	}
}
