package pipeline

import (
	"bytes"
	"crypto/sha256"
	"testing"
	"unsafe"

	"sluice/journal/event"
	"sluice/journal/journaltest"
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
