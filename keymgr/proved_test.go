package keymgr

import (
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/journal/event"
)

var (
	west = Prover{Worker: "west", NKey: "UWEST"}
	east = Prover{Worker: "east", NKey: "UEAST"}
)

func provedBy(ks KeySet, p Prover, ids ...string) KeySet {
	return Evolve(ks, event.Event{Facts: &event.KeyProved{IDs: ids, Worker: p.Worker, NKey: p.NKey}})
}

func TestUnproved_NamesEachProverThatLacks(t *testing.T) {
	ks := Evolve(KeySet{}, event.Event{Facts: &event.KeyGenerated{Keys: []event.Key{{ID: "a"}, {ID: "b"}}}})
	both := []string{"a", "b"}
	if got := ks.Unproved(both, nil); len(got) != 0 {
		t.Errorf("alone, %v are not proved", got)
	}
	one := provedBy(provedBy(ks, west, "a", "b"), east, "a")
	got := one.Unproved(both, []Prover{west, east})
	if len(got) != 1 || !slices.Equal(got["east"], []string{"b"}) {
		t.Errorf("not proved: %v", got)
	}
	text := UnprovedText(got)
	if !strings.Contains(text, "waits for worker east to prove possession of b") || !strings.Contains(text, "sluice worker remove east") {
		t.Error(text)
	}
	if len(ks.Keys[0].Proved) != 0 {
		t.Error("the fold changed the set that it was given")
	}
}

func TestUnproved_ProofOfAnEarlierEnrolmentDoesNotCount(t *testing.T) {
	ks := Evolve(KeySet{}, event.Event{Facts: &event.KeyGenerated{Keys: []event.Key{{ID: "a"}}}})
	ks = provedBy(ks, west, "a")
	again := Prover{Worker: west.Worker, NKey: "UWEST2"}
	if got := ks.Unproved([]string{"a"}, []Prover{again}); len(got["west"]) != 1 {
		t.Errorf("not proved: %v", got)
	}
	ks = provedBy(ks, again, "a")
	if got := ks.Unproved([]string{"a"}, []Prover{again}); len(got) != 0 || len(ks.Keys[0].Proved) != 1 {
		t.Errorf("not proved: %v, %v", got, ks.Keys[0].Proved)
	}
}

func TestUnproved_KeysInUseAndForeignOnesAreHeldByNobody(t *testing.T) {
	ks := Evolve(KeySet{}, event.Event{Facts: &event.KeyGenerated{Keys: []event.Key{{ID: "a"}}}})
	ks = Evolve(ks, event.Event{Time: time.Unix(1, 0), Facts: &event.KeyActivated{IDs: []string{"a"}}})
	ks = Evolve(ks, event.Event{Facts: &event.KeyImported{Keys: []event.Key{{ID: "f"}}, Foreign: true}})
	ks = provedBy(ks, east, "f")
	if got := ks.Unproved([]string{"a", "f"}, []Prover{west}); len(got) != 0 {
		t.Errorf("not proved: %v", got)
	}
	if k, _ := ks.ByID("f"); len(k.Proved) != 0 {
		t.Error("a foreign key was proved")
	}
}
