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

// forgetfulJournal stores an append of zones, and then has who asked give up before
// the answer.
type forgetfulJournal struct {
	*countingJournal
	lost int // the number of the append
}

type giveUp struct{}

func (f *forgetfulJournal) Append(ctx context.Context, id event.ZoneID, head journal.Head, events ...event.Event) (journal.Head, error) {
	next, err := f.countingJournal.Append(ctx, id, head, events...)
	f.mu.Lock()
	lost := f.appends == f.lost
	f.mu.Unlock()
	if stop, ok := ctx.Value(giveUp{}).(context.CancelFunc); ok && lost && events[0].Type == "zone.added" {
		stop()
		return head, ctx.Err()
	}
	return next, err
}

// Who gives up takes nobody along: zones that went with its append are added, and
// those who asked for them are told so.
func TestAddZone_OneGivesUpAfterTheAppend(t *testing.T) {
	j := &forgetfulJournal{&countingJournal{Memory: journaltest.New(), slow: make(chan struct{})}, 2}
	r := newRig(t, j, nil)
	file := r.zoneFile(smallZone)
	var work sync.WaitGroup
	var mu sync.Mutex
	var results []error
	add := func(name string) {
		work.Go(func() {
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			_, err := r.e.AddZone(context.WithValue(ctx, giveUp{}, stop), testActor, NewZone{Name: name, Source: file})
			mu.Lock()
			defer mu.Unlock()
			results = append(results, err)
		})
	}
	add("first.example")
	until(t, "the first append is under way", func() bool {
		j.mu.Lock()
		defer j.mu.Unlock()
		return j.appends == 1
	})
	const zones = 5
	for i := range zones {
		add(fmt.Sprintf("z%d.example", i))
	}
	until(t, "all wait", func() bool {
		r.e.additions.mu.Lock()
		defer r.e.additions.mu.Unlock()
		return len(r.e.additions.waiting) >= zones
	})
	close(j.slow)
	work.Wait()
	gone := 0
	for _, err := range results {
		if errors.Is(err, context.Canceled) {
			gone++
		} else if err != nil {
			t.Error(err)
		}
	}
	all, err := r.e.FindZones(t.Context(), ZoneQuery{})
	if err != nil || len(all) != zones+1 || gone != 1 {
		t.Errorf("%d zones, %d gave up, %v", len(all), gone, err)
	}
}
