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
	running  int
	turns    int // given so far to what waited
	pressing []func(context.Context)
	waiting  []func(context.Context) // what is not pressing
}

// everyTurn is how many turns there are to one that is not for what is
// pressing, where both wait.
const everyTurn = 4

// add runs fn when its turn in a queue comes, and reports whether zones may
// work. What waits when Run ends is dropped.
func (q *queues) add(e *Engine, name string, fn func(context.Context)) bool {
	return q.addRanked(e, name, false, fn)
}

// addRanked is add, before what is not pressing where fn is.
func (q *queues) addRanked(e *Engine, name string, pressing bool, fn func(context.Context)) bool {
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
	switch {
	case w.running < q.most:
	case pressing:
		w.pressing = append(w.pressing, fn)
		return true
	default:
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
	if len(w.pressing)+len(w.waiting) == 0 || ctx.Err() != nil {
		w.pressing, w.waiting = nil, nil
		q.endLocked(name)
		return nil
	}
	from := &w.pressing
	if w.turns++; len(w.pressing) == 0 || len(w.waiting) > 0 && w.turns%everyTurn == 0 {
		from = &w.waiting
	}
	fn := (*from)[0]
	(*from)[0] = nil
	*from = (*from)[1:]
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
