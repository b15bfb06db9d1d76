package journal_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"sluice/journal"
	"sluice/journal/event"
)

// An append that was stored before, with its answer lost, is found however many
// events of its own and of other zones came since; one that was not is a
// conflict.
func TestAppend_FindsWhatWasStoredBefore(t *testing.T) {
	const zone, other = event.ZoneID("00000000000000aa"), event.ZoneID("00000000000000bb")
	at := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	fail := func(n int) event.Event {
		return event.Event{Time: at, Actor: event.Program, Facts: &event.LoadFailed{Source: "x", Reason: fmt.Sprint(n)}}
	}
	for ours := 1; ours <= 3; ours++ {
		for since := range 5 {
			for _, batch := range []bool{false, true} {
				t.Run(fmt.Sprintf("%d events, %d since, in a batch %v", ours, since, batch), func(t *testing.T) {
					j := openDir(t, journal.Config{Dir: t.TempDir()})
					head, err := j.Append(t.Context(), zone, journal.Head{}, fail(0))
					if err != nil {
						t.Fatal(err)
					}
					var events []event.Event
					for i := range ours {
						events = append(events, fail(10+i))
					}
					stored, err := j.Append(t.Context(), zone, head, events...)
					if err != nil {
						t.Fatal(err)
					}
					var later []event.Event
					for i := range since {
						later = append(later, fail(20+i))
					}
					next := stored
					if batch && since > 0 {
						next, err = j.Append(t.Context(), zone, next, later...)
					}
					for i := 0; !batch && i < since && err == nil; i++ {
						if next, err = j.Append(t.Context(), zone, next, later[i]); err == nil {
							var head journal.Head
							if head, err = j.Head(t.Context(), other); err == nil {
								_, err = j.Append(t.Context(), other, head, fail(30+i))
							}
						}
					}
					if err != nil {
						t.Fatal(err)
					}
					if got, err := j.Append(t.Context(), zone, head, events...); err != nil || got != stored {
						t.Errorf("again: %+v, %v, want %+v", got, err, stored)
					}
					events[ours-1] = fail(99)
					if _, err := j.Append(t.Context(), zone, head, events...); !errors.Is(err, journal.ErrConflict) {
						t.Errorf("other events behind the same head: %v", err)
					}
					if _, err := j.Append(t.Context(), zone, stored, later...); since > 0 && err != nil {
						t.Errorf("what came since, again: %v", err)
					}
				})
			}
		}
	}
}
