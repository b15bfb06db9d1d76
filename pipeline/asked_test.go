package pipeline

import (
	"fmt"
	"testing"
	"time"

	"sluice/journal/event"
	"sluice/journal/journaltest"
)

// What the same caller asks for again and again is one event in ten minutes; what
// others ask for, and other things, are events of their own.
func TestUsed_TheSameAgainIsRecordedOnceInAWhile(t *testing.T) {
	hand := newHand(dayOne)
	memory := journaltest.New()
	r := &rig{t: t, dir: t.TempDir(), journal: memory, clock: hand.clock()}
	r.start(nil)
	r.add(smallZone)
	ada, bob := event.Actor{Name: "ada", Door: "api", Role: "operator"}, event.Actor{Name: "bob", Door: "api", Role: "operator"}
	ask := func(actor event.Actor, request string, want int) {
		t.Helper()
		for range 3 {
			if err := r.e.Used(t.Context(), actor, "example.com", request); err != nil {
				t.Fatal(err)
			}
		}
		if _, facts := eventsOf[*event.AccessUsed](t, memory); len(facts) != want {
			t.Errorf("%d events after %s asked for %s, want %d", len(facts), actor.Name, request, want)
		}
	}
	ask(ada, "POST /zones/example.com/reload", 1)
	ask(bob, "POST /zones/example.com/reload", 2)
	ask(ada, "POST /zones/example.com/resign", 3)
	hand.move(dayOne.Add(askedPause + time.Minute))
	ask(ada, "POST /zones/example.com/reload", 4)
}

func TestAsked_ItsMemoryIsBounded(t *testing.T) {
	var a asked
	for i := range 2 * maxAsked {
		a.recorded(dayOne, askedFor{request: fmt.Sprint(i)})
	}
	if len(a.last) != maxAsked {
		t.Errorf("%d requests are remembered, want %d", len(a.last), maxAsked)
	}
	later := dayOne.Add(askedPause)
	a.recorded(later, askedFor{request: "later"})
	if len(a.last) != 1 || !a.lately(later, askedFor{request: "later"}) || a.lately(later, askedFor{request: "0"}) {
		t.Errorf("%d requests are remembered once the others are old", len(a.last))
	}
}
