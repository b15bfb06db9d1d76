package pipeline

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"sluice/journal"
	"sluice/signer"
)

const (
	// shareWaiting bounds the parts that wait to be signed, for each of those
	// that sign.
	shareWaiting = 2
	// sharePatience is the least time that another process is given for a part
	// before this one signs it as well. It has twice the time that the slowest
	// part so far took.
	sharePatience = time.Second
	// shareFailures is after how many failures another process is not asked any
	// more.
	shareFailures = 2
)

// sharing hands parts of a zone to this process and others. What another does
// not answer in time, or refuses, this one does itself: the others can help and
// cannot hinder.
type sharing struct {
	e       *Engine
	keys    []signer.Key
	helpers []*helper

	mu      sync.Mutex
	wake    chan struct{} // guarded by mu; closed and replaced at every change
	waiting []*shareTask  // guarded by mu
	asked   []*shareTask  // guarded by mu; others sign them
	done    []*shareDone  // guarded by mu; by number
	left    int           // guarded by mu; tasks that are not done
	all     bool          // guarded by mu; no further task will come
	slowest time.Duration // guarded by mu; of what others answered
	took    func(*shareJob, *shareDone) error
}

// helper is another process.
type helper struct {
	name     string
	failures int // guarded by the sharing's mu
}

// shareTask is one part. But for number and job it is guarded by the sharing's mu.
type shareTask struct {
	number int
	job    *shareJob
	own    bool      // for this process alone
	began  time.Time // when another was asked
	doing  bool      // this process signs it, too
	done   bool
	drop   []context.CancelFunc // end what is done of it
}

func newSharing(e *Engine, keys []signer.Key, names []string) *sharing {
	x := &sharing{e: e, keys: keys, wake: make(chan struct{})}
	for _, name := range names {
		x.helpers = append(x.helpers, &helper{name: name})
	}
	return x
}

// changed wakes all that wait. The caller holds mu.
func (x *sharing) changed() {
	close(x.wake)
	x.wake = make(chan struct{})
}

// run has all jobs done that produce emits, and returns what came of them in
// their order. took is given each as it comes, one at a time.
func (x *sharing) run(ctx context.Context, produce func(emit func(*shareJob) error) error, took func(*shareJob, *shareDone) error) ([]*shareDone, error) {
	x.waiting, x.asked, x.done, x.left, x.all, x.took = nil, nil, nil, 0, false, took
	g, ctx := errgroup.WithContext(ctx)
	others, finished := context.WithCancel(ctx)
	defer finished()
	g.Go(func() error {
		if err := produce(func(j *shareJob) error { return x.put(ctx, j) }); err != nil {
			return err
		}
		x.mu.Lock()
		defer x.mu.Unlock()
		x.all = true
		x.changed()
		return nil
	})
	var own sync.WaitGroup
	for range sharePlaces {
		own.Add(1)
		g.Go(func() error {
			defer own.Done()
			return x.work(ctx)
		})
	}
	g.Go(func() error {
		own.Wait() // then all is done
		finished()
		return nil
	})
	for _, h := range x.helpers {
		for range sharePlaces {
			g.Go(func() error { return x.ask(others, h) })
		}
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return x.done, nil
}

// put adds a job once there is room for it.
func (x *sharing) put(ctx context.Context, j *shareJob) error {
	t := &shareTask{job: j, own: j.Range != nil && len(j.Range.From) == 0}
	for {
		x.mu.Lock()
		if len(x.waiting) < shareWaiting*sharePlaces*(1+len(x.helpers)) {
			t.number = len(x.done)
			x.done = append(x.done, nil)
			x.waiting = append(x.waiting, t)
			x.left++
			x.changed()
			x.mu.Unlock()
			return nil
		}
		wake := x.wake
		x.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// work signs parts in this process until all are done.
func (x *sharing) work(ctx context.Context) error {
	for {
		t, err := x.next(ctx)
		if t == nil || err != nil {
			return err
		}
		mine, cancel := x.until(ctx, t)
		done, err := x.e.signPart(mine, t.job, x.keys)
		cancel()
		if err == nil {
			err = x.finish(t, done, 0)
		} else if x.isDone(t) {
			err = nil // another was faster
		}
		if err != nil {
			return err
		}
	}
}

// until is a context that ends when a part is done.
func (x *sharing) until(ctx context.Context, t *shareTask) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	x.mu.Lock()
	defer x.mu.Unlock()
	if t.drop = append(t.drop, cancel); t.done {
		cancel()
	}
	return ctx, cancel
}

func (x *sharing) isDone(t *shareTask) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return t.done
}

// next is the next part for this process: one that waits, or one with which
// another has had its time. It is nil when all are done.
func (x *sharing) next(ctx context.Context) (*shareTask, error) {
	for {
		x.mu.Lock()
		if x.all && x.left == 0 {
			x.mu.Unlock()
			return nil, nil
		}
		if len(x.waiting) > 0 {
			t := x.waiting[0]
			x.waiting, t.doing = x.waiting[1:], true
			x.changed()
			x.mu.Unlock()
			return t, nil
		}
		t, rest := x.late()
		wake := x.wake
		x.mu.Unlock()
		if t != nil {
			return t, nil
		}
		var late <-chan time.Time
		if rest > 0 {
			late = time.After(rest)
		}
		select {
		case <-wake:
		case <-late:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// late is a part that another was given and has not answered in time, or how
// long it is until there is one; 0 where others have nothing. The caller holds
// mu.
func (x *sharing) late() (*shareTask, time.Duration) {
	rest := time.Duration(0)
	patience := max(sharePatience, 2*x.slowest)
	now := machineTime()
	for _, t := range x.asked {
		if t.done || t.doing {
			continue
		}
		left := t.began.Add(patience).Sub(now)
		if left <= 0 {
			t.doing = true
			return t, 0
		}
		if rest == 0 || left < rest {
			rest = left
		}
	}
	return nil, rest
}

// ask has another process sign parts until all are done, or until it does not
// do any more.
func (x *sharing) ask(ctx context.Context, h *helper) error {
	for {
		t := x.give(ctx, h)
		if t == nil {
			return nil
		}
		began := machineTime()
		done, err := x.askPart(ctx, t, h)
		if err != nil {
			x.failed(ctx, t, h, err)
		} else if err := x.finish(t, done, machineTime().Sub(began)); err != nil {
			return err
		}
	}
}

// give is the next part for another process; nil when it gets none any more.
func (x *sharing) give(ctx context.Context, h *helper) *shareTask {
	for {
		x.mu.Lock()
		if h.failures >= shareFailures || x.all && x.left == 0 || ctx.Err() != nil {
			x.mu.Unlock()
			return nil
		}
		for i, t := range x.waiting {
			if t.own {
				continue
			}
			x.waiting = append(x.waiting[:i:i], x.waiting[i+1:]...)
			t.began = machineTime()
			x.asked = append(x.asked, t)
			x.changed()
			x.mu.Unlock()
			return t
		}
		wake := x.wake
		x.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
			return nil
		}
	}
}

// askPart asks for a part, and holds the answer against the question.
func (x *sharing) askPart(ctx context.Context, t *shareTask, h *helper) (*shareDone, error) {
	question, err := encodeShare(t.job, t.job.hashes)
	if err != nil {
		return nil, err
	}
	ctx, cancel := x.until(ctx, t)
	defer cancel()
	data, err := x.e.cfg.Coordinator.Ask(ctx, journal.PartSubject(h.name), question)
	if err != nil {
		return nil, err
	}
	done := &shareDone{}
	if done.hashes, err = decodeShare(data, done); err != nil {
		return nil, err
	}
	done.Worker = h.name
	return done, done.check(t.job)
}

// finish takes what was made of a part, unless it was made before; others
// needed a time for it.
func (x *sharing) finish(t *shareTask, done *shareDone, needed time.Duration) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.forget(t)
	x.slowest = max(x.slowest, needed)
	if t.done {
		return nil
	}
	t.done = true
	for _, drop := range t.drop {
		drop()
	}
	if err := x.took(t.job, done); err != nil {
		return err
	}
	done.hashes = nil
	x.done[t.number] = done
	x.left--
	x.changed()
	return nil
}

// forget takes a part from those that others sign. The caller holds mu.
func (x *sharing) forget(t *shareTask) {
	for i, o := range x.asked {
		if o == t {
			x.asked = append(x.asked[:i:i], x.asked[i+1:]...)
			return
		}
	}
}

// failed gives a part that another did not sign back, for this process.
func (x *sharing) failed(ctx context.Context, t *shareTask, h *helper, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.forget(t)
	if t.done || ctx.Err() != nil {
		return
	}
	h.failures++
	if errors.Is(err, journal.ErrNobody) {
		h.failures = shareFailures
	}
	x.e.log.WarnContext(ctx, "another worker did not sign a part of a zone: it is signed here",
		"worker", h.name, "error", err, "asked_again", h.failures < shareFailures)
	if t.own = true; !t.doing {
		x.waiting = append([]*shareTask{t}, x.waiting...)
	}
	x.changed()
}
