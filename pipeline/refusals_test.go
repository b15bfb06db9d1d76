package pipeline

import (
	"fmt"
	"testing"
	"time"

	"sluice/journal/event"
)

func refusal(name, why, route, peer string) Refusal {
	return Refusal{Actor: event.Actor{Name: name, Door: "api"}, Facts: event.AccessRefused{Why: why, Method: "POST", Route: route, Peer: peer}}
}

func TestRefusals_TheFirstIsToldAtOnceTheRestAsANumber(t *testing.T) {
	var r refusals
	now := noon
	told, due := r.note(now, refusal("eve", event.RefusedRole, "/zones", "192.0.2.1"))
	if !due || told.Facts.Count != 1 || told.Facts.Route != "/zones" {
		t.Fatalf("first: %+v, %v", told, due)
	}
	for i := range 10 {
		if _, due := r.note(now.Add(time.Duration(i)*time.Second), refusal("eve", event.RefusedRole, "/zones", fmt.Sprintf("192.0.2.%d", 1+i%2))); due {
			t.Fatal("a further one is told at once")
		}
	}
	if tell, left := r.due(now.Add(59 * time.Second)); len(tell) != 0 || !left {
		t.Fatalf("before a minute: %+v", tell)
	}
	tell, left := r.due(now.Add(time.Minute))
	if len(tell) != 1 || !left || tell[0].Facts.Count != 10 || tell[0].Facts.Peers != 2 || tell[0].Facts.Since != now.Unix() || tell[0].Actor.Name != "eve" {
		t.Fatalf("after a minute: %+v, %v", tell, left)
	}
	if tell, left = r.due(now.Add(3 * time.Minute)); len(tell) != 0 || left {
		t.Errorf("where nothing followed: %+v, %v", tell, left)
	}
	if _, due = r.note(now.Add(time.Hour), refusal("eve", event.RefusedRole, "/zones", "")); !due {
		t.Error("after a pause the first is told at once again")
	}
}

// A flood without a token makes some two dozen events a day, whatever its addresses.
func TestRefusals_AFloodIsFewEvents(t *testing.T) {
	var r refusals
	events, counted := 0, uint64(0)
	for second := range 86400 {
		now := noon.Add(time.Duration(second) * time.Second)
		if _, due := r.note(now, refusal("unknown", event.RefusedUnknown, fmt.Sprintf("/%d", second), fmt.Sprintf("2001:db8::%x", second))); due {
			events++
		}
		tell, _ := r.due(now)
		for _, q := range tell {
			events++
			counted += q.Facts.Count
		}
	}
	if events > 32 || counted < 80_000 {
		t.Errorf("%d events tell of %d tries", events, counted)
	}
	for i := range 10 * maxRefused {
		r.note(noon, refusal(fmt.Sprintf("t%d", i), event.RefusedRole, "/zones", ""))
	}
	if n := len(r.kinds); n > maxRefused+4 {
		t.Errorf("%d kinds are kept", n)
	}
}
