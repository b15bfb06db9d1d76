package pipeline

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"
	"unsafe"

	"sluice/journal/event"
	"sluice/journal/journaltest"
	"sluice/pipeline/store"
)

// The text of a policy stands in the projection once, not in the state of each
// zone, and comes back with a restart, for all zones as one.
func TestPolicyTexts_AreKeptOnce(t *testing.T) {
	r := newRig(t, journaltest.New(), nil)
	r.add(smallZone)
	if _, err := r.e.AddZone(t.Context(), testActor, NewZone{Name: "other.example", Source: r.zoneFile(smallZone)}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.e.Await(t.Context(), "other.example", nil); err != nil {
		t.Fatal(err)
	}
	want := Template()
	same := func(when string) {
		t.Helper()
		var texts []string
		for _, name := range []string{"example.com", "other.example"} {
			z, err := r.e.find(name)
			if err != nil {
				t.Fatal(err)
			}
			texts = append(texts, z.snapshot().Policy.Text)
		}
		if texts[0] != want || texts[1] != want || unsafe.StringData(texts[0]) != unsafe.StringData(texts[1]) {
			t.Errorf("%s: the zones do not share the text of their policy", when)
		}
	}
	same("while it runs")
	line := []byte(want[:200])
	if err := r.e.store.States(func(id event.ZoneID, state []byte) error {
		if bytes.Contains(state, line[:bytes.IndexByte(line, '\n')]) {
			t.Errorf("the state of zone %s holds the policy", id)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	r.stop()
	r.start(nil)
	same("after a restart")
}

// Without the text of a policy the zones that it rules cannot be read: that is
// said, and the next start builds the projection anew.
func TestPolicyTexts_MissingOneIsDamage(t *testing.T) {
	r := newRig(t, journaltest.New(), nil)
	r.add(smallZone)
	s := r.zone()
	stored, err := r.e.encodeState(&s)
	if err != nil {
		t.Fatal(err)
	}
	r.stop()
	lost, err := store.Open(t.TempDir(), store.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lost.Close() }) // it holds nothing
	r.e.store, r.e.texts.by = lost, nil
	if _, err := r.e.decodeState(s.Zone, stored.Data); !errors.Is(err, store.ErrDamaged) || !strings.Contains(err.Error(), "start again") {
		t.Errorf("error %v, want ErrDamaged, and what to do", err)
	}
	r.start(nil)
	if got := r.zone().Policy.Text; got != Template() {
		t.Errorf("after the next start the zone has the policy %q", got)
	}
	if err := r.e.marked(); err != nil {
		t.Errorf("the projection was not built anew: %v", err)
	}
}

// What is published and what it was made of are the same memory, however often it
// is signed anew, and after a restart.
func TestState_IsLeanAtRest(t *testing.T) {
	r := newRig(t, journaltest.New(), nil)
	r.add(smallZone)
	lean := func(when string) {
		t.Helper()
		s := r.zone()
		if p := s.Published; s.Signed != &p.Signed || s.Loaded != &p.Loaded || s.Approved != &p.Loaded {
			t.Errorf("%s: parts of the state are kept twice", when)
		}
	}
	lean("new")
	if err := r.e.Resign(t.Context(), testActor, "example.com", true); err != nil {
		t.Fatal(err)
	}
	r.await()
	lean("signed anew")
	r.stop()
	r.start(nil)
	lean("after a restart")
}

// A text that is not what its hash says stays with its zone, and is no other's.
func TestPolicyTexts_AWrongHashIsNoOthers(t *testing.T) {
	e := &Engine{}
	hash := event.Hash(sha256.Sum256([]byte("right")))
	for _, text := range []string{"wrong", "right", "wrong", "right"} {
		s := State{Zone: "z", Policy: BoundPolicy{Name: "p", SHA256: hash, Text: text}}
		stored, err := e.encodeState(&s)
		if err != nil {
			t.Fatal(err)
		}
		if right := text == "right"; (stored.Common == text) != right || bytes.Contains(stored.Data, []byte(text)) == right {
			t.Errorf("%s: kept apart %q, with the zone %s", text, stored.Common, stored.Data)
		}
		back, err := e.decodeState("z", stored.Data)
		if err != nil || back.Policy.Text != text {
			t.Errorf("%s: read back as %q, %v", text, back.Policy.Text, err)
		}
	}
}
