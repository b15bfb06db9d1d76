package pipeline

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"sluice/journal/journaltest"
)

// Zones without number may share a server that never answers: those of other
// servers do not wait for it, and neither holds a goroutine.
func TestQueues_OneThatStandsStillHoldsUpNoOther(t *testing.T) {
	r := newRig(t, journaltest.New(), nil)
	q := queues{most: 3}
	var stuck, most, now, done atomic.Int64
	release := make(chan struct{})
	for range 1000 {
		q.add(r.e, "silent", func(ctx context.Context) {
			stuck.Add(1)
			select {
			case <-release:
			case <-ctx.Done():
			}
		})
	}
	order := make(chan int, 1000)
	for i := range 1000 {
		q.add(r.e, fmt.Sprint("live ", i%2), func(context.Context) {
			most.Store(max(most.Load(), now.Add(1)))
			if i%2 == 0 {
				order <- i
			}
			now.Add(-1)
			done.Add(1)
		})
	}
	until(t, "all of the others are done", func() bool { return done.Load() == 1000 })
	until(t, "three stand still", func() bool { return stuck.Load() == 3 })
	if most.Load() > 6 {
		t.Errorf("%d at a time in two queues", most.Load())
	}
	close(order)
	n := 0
	for range order {
		n++
	}
	if n != 500 {
		t.Errorf("%d of 500 were run", n)
	}
	close(release)
	until(t, "the queues are gone", func() bool {
		q.mu.Lock()
		defer q.mu.Unlock()
		return len(q.by) == 0
	})
	if stuck.Load() != 1000 {
		t.Errorf("%d of 1000 were run", stuck.Load())
	}
	r.stop()
	if q.add(r.e, "late", func(context.Context) { t.Error("run after the end") }) {
		t.Error("work is taken after the end")
	}
}
