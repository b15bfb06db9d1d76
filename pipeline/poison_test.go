package pipeline

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/journal/event"
	"sluice/journal/journaltest"
)

func TestPoison_QuarantinesTheRole(t *testing.T) {
	j := journaltest.New()
	c := crewOn(t, j, journaltest.NewCoordinator(crewLease))
	g := &gate{Keystore: c.keys}
	w := c.add("main", "", func(cfg *Config) { cfg.Coordinator, cfg.Keystore = nil, g })
	w.zone("example.com.", smallZone)
	c.allServe("example.com.")
	was := w.published("example.com.")
	g.mu.Lock()
	g.panics = true
	g.mu.Unlock()
	r, err := w.e.find("example.com.")
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the role rests", func() bool {
		if _, rests := w.state("example.com.").Quarantines[RoleSign]; rests {
			return true
		}
		r.askResign(false) // does not wait for the back-off
		return false
	})
	q := w.state("example.com.").Quarantines[RoleSign]
	if q.Tries != maxTries || q.Command != "sign" || !strings.Contains(q.Error, "token driver") {
		t.Errorf("quarantine %+v", q)
	}
	st, err := w.e.Zone(t.Context(), "example.com.")
	if err != nil || !slices.ContainsFunc(st.Notices, func(n Notice) bool { return strings.Contains(n.Hint, "sluice zone reset") }) {
		t.Errorf("status says nothing: %+v, %v", st.Notices, err)
	}
	if w.published("example.com.") != was {
		t.Error("something was published")
	}
	g.mu.Lock()
	g.panics = false
	g.mu.Unlock()
	if _, err := w.e.Reset(t.Context(), testActor, "example.com.", NewDecision{Reason: "driver replaced"}); err != nil {
		t.Fatal(err)
	}
	if err := w.e.Resign(t.Context(), testActor, "example.com.", false); err != nil {
		t.Fatal(err)
	}
	until(t, "it is signed again", func() bool { return w.published("example.com.") > was })
}

func TestIntents_CountWhatTheProcessDiedOf(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	c := Publish{Signed: 7}
	id := event.ZoneID("00000000000000aa")
	for tries := range maxTries + 1 {
		in, err := openIntents(dir) // a new process after the last one died
		if err != nil {
			t.Fatal(err)
		}
		before, err := in.begin(id, c)
		if err != nil || before.Tries != tries {
			t.Fatalf("start %d: %d tries before, %v", tries, before.Tries, err)
		}
	}
	in, err := openIntents(dir)
	if err != nil {
		t.Fatal(err)
	}
	if before, err := in.begin(id, Publish{Signed: 8}); err != nil || before.Tries != 0 {
		t.Errorf("another command: %+v, %v", before, err)
	}
	if err := in.end(id, Publish{Signed: 8}, intent{}, ""); err != nil {
		t.Fatal(err)
	}
	if in, err = openIntents(dir); err != nil || len(in.left) != 0 {
		t.Errorf("left after a good end: %v, %v", in.left, err)
	}
}

// Others' events wait for the fold of this zone's: a panic must not leave it
// locked.
func TestPanic_LeavesTheZoneUnlocked(t *testing.T) {
	c := crewOn(t, journaltest.New(), journaltest.NewCoordinator(crewLease))
	w := c.add("main", "", func(cfg *Config) { cfg.Coordinator = nil })
	w.zone("example.com.", smallZone)
	c.allServe("example.com.")
	r, err := w.e.find("example.com.")
	if err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	r.reload = 1 // so that there is a command to compare with
	r.mu.Unlock()
	err = attempt(func() error { _, _ = r.wanted(nil); return nil }) // it has no identity
	if _, ok := errors.AsType[panicked](err); !ok {
		t.Fatalf("no panic: %v", err)
	}
	free := r.mu.TryLock()
	r.mu.Unlock() // the end of the test needs the zone
	if !free {
		t.Fatal("the zone is locked for ever")
	}
}
