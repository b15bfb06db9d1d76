package pipeline

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/journal/journaltest"
)

// countingJournal counts appends to the instance's own events, and fails some of
// them.
type countingJournal struct {
	*journaltest.Memory
	mu      sync.Mutex
	appends int
	slow    chan struct{} // where not nil, the first append waits for it
}

func (c *countingJournal) Append(ctx context.Context, id event.ZoneID, head journal.Head, events ...event.Event) (journal.Head, error) {
	if id == event.Instance && events[0].Type == "zone.added" {
		c.mu.Lock()
		c.appends++
		first := c.appends == 1
		c.mu.Unlock()
		if first && c.slow != nil {
			<-c.slow
		}
	}
	return c.Memory.Append(ctx, id, head, events...)
}

// Zones that are added while an append is under way go together with the next
// one, each with an answer of its own.
func TestAddZone_ManyShareAnAppend(t *testing.T) {
	j := &countingJournal{Memory: journaltest.New(), slow: make(chan struct{})}
	r := newRig(t, j, nil)
	file := r.zoneFile(smallZone)
	const zones = 40
	results := make(chan error, 2*zones+1)
	var work sync.WaitGroup
	add := func(name string) {
		work.Go(func() {
			_, err := r.e.AddZone(t.Context(), testActor, NewZone{Name: name, Source: file})
			results <- err
		})
	}
	add("first.example")
	until(t, "the first append is under way", func() bool {
		j.mu.Lock()
		defer j.mu.Unlock()
		return j.appends == 1
	})
	for i := range zones {
		add(fmt.Sprintf("z%d.example", i))
		add(fmt.Sprintf("Z%d.EXAMPLE.", i)) // the same again
	}
	until(t, "all wait", func() bool {
		r.e.additions.mu.Lock()
		defer r.e.additions.mu.Unlock()
		return len(r.e.additions.waiting) >= 2*zones
	})
	close(j.slow)
	work.Wait()
	close(results)
	taken := 0
	for err := range results {
		if errors.Is(err, ErrState) {
			taken++
		} else if err != nil {
			t.Error(err)
		}
	}
	all, err := r.e.FindZones(t.Context(), ZoneQuery{})
	if err != nil || len(all) != zones+1 || taken != zones {
		t.Errorf("%d zones, %d refused, %v", len(all), taken, err)
	}
	if j.appends > 5 {
		t.Errorf("%d appends", j.appends)
	}
}
