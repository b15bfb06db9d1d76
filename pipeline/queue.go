package pipeline

import (
	"context"
	"sync"
)

// queues run work in the background: of each queue so much at a time, in the
// order in which it came. What waits holds no goroutine, as there may be
// something of each zone; and a server that does not answer holds up only the
// queue that has its name.
type queues struct {
	most int // of each queue at a time

	mu sync.Mutex
	by map[string]*queue // guarded by mu; those with work
}

type queue struct {
	running int
	waiting []func(context.Context)
}

// add runs fn when its turn in a queue comes, and reports whether zones may
// work. What waits when Run ends is dropped.
func (q *queues) add(e *Engine, name string, fn func(context.Context)) bool {
	if !e.running() {
		return false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	w := q.by[name]
	if w == nil {
		w = &queue{}
		if q.by == nil {
			q.by = map[string]*queue{}
		}
		q.by[name] = w
	}
	if w.running >= q.most {
		w.waiting = append(w.waiting, fn)
		return true
	}
	w.running++
	if e.start(func(ctx context.Context) { q.work(ctx, name, fn) }) {
		return true
	}
	q.endLocked(name)
	return false
}

// work runs fn, and what waits in its queue, until nothing does.
func (q *queues) work(ctx context.Context, name string, fn func(context.Context)) {
	for fn != nil {
		fn(ctx)
		fn = q.next(ctx, name)
	}
}

// next is what comes next; nil where nothing does.
func (q *queues) next(ctx context.Context, name string) func(context.Context) {
	q.mu.Lock()
	defer q.mu.Unlock()
	w := q.by[name]
	if len(w.waiting) == 0 || ctx.Err() != nil {
		w.waiting = nil
		q.endLocked(name)
		return nil
	}
	fn := w.waiting[0]
	w.waiting[0] = nil
	w.waiting = w.waiting[1:]
	return fn
}

// endLocked takes one off what runs. The caller holds mu.
func (q *queues) endLocked(name string) {
	if w := q.by[name]; w.running > 1 {
		w.running--
	} else {
		delete(q.by, name)
	}
}
