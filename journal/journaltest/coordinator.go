package journaltest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/journal"
)

// Coordinator is the coordination of workers in one process. It blocks on
// channels and timers only, so that it works under testing/synctest.
type Coordinator struct {
	lease time.Duration

	mu       sync.Mutex
	revision uint64              // guarded by mu
	entries  map[string]entry    // guarded by mu; leases and announcements by key
	answers  map[string][]answer // guarded by mu; by subject
	away     bool                // guarded by mu
	number   int                 // guarded by mu; of the last answer
	turn     int                 // guarded by mu; whose turn it is in a queue
}

type entry struct {
	data     []byte
	revision uint64
	until    time.Time
}

type answer struct {
	number int
	queue  string
	ctx    context.Context //nolint:containedctx // ends when the answering is stopped
	fn     journal.Handler
	work   *sync.WaitGroup
}

// NewCoordinator makes a coordination whose leases hold for a time.
func NewCoordinator(lease time.Duration) *Coordinator {
	return &Coordinator{lease: lease, entries: map[string]entry{}, answers: map[string][]answer{}}
}

// SetAway lets every call fail as if the stream were cut off, or ends that.
func (c *Coordinator) SetAway(away bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.away = away
}

// LeaseTime implements journal.Coordinator.
func (c *Coordinator) LeaseTime() time.Duration { return c.lease }

// enter begins a call. The caller holds mu.
func (c *Coordinator) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.away {
		return journal.ErrStorage
	}
	now := time.Now()
	maps.DeleteFunc(c.entries, func(_ string, e entry) bool { return !now.Before(e.until) })
	return nil
}

// put stores an entry. The caller holds mu.
func (c *Coordinator) put(key string, data []byte) uint64 {
	c.revision++
	c.entries[key] = entry{data: slices.Clone(data), revision: c.revision, until: time.Now().Add(c.lease)}
	return c.revision
}

const (
	aliveKey = "alive."
	leaseKey = "lease."
)

// TakeLease implements journal.Coordinator.
func (c *Coordinator) TakeLease(ctx context.Context, name, holder string) (journal.Lease, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.enter(ctx); err != nil {
		return journal.Lease{}, err
	}
	if e, ok := c.entries[leaseKey+name]; ok && string(e.data) != holder {
		return journal.Lease{}, fmt.Errorf("take lease %s: %w", name, journal.ErrHeld)
	}
	return journal.Lease{Name: name, Holder: holder, Revision: c.put(leaseKey+name, []byte(holder))}, nil
}

// RenewLease implements journal.Coordinator.
func (c *Coordinator) RenewLease(ctx context.Context, l journal.Lease) (journal.Lease, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.enter(ctx); err != nil {
		return journal.Lease{}, err
	}
	if e, ok := c.entries[leaseKey+l.Name]; !ok || e.revision != l.Revision {
		return journal.Lease{}, fmt.Errorf("renew lease %s: %w", l.Name, journal.ErrHeld)
	}
	l.Revision = c.put(leaseKey+l.Name, []byte(l.Holder))
	return l, nil
}

// ReleaseLease implements journal.Coordinator.
func (c *Coordinator) ReleaseLease(ctx context.Context, l journal.Lease) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.enter(ctx); err != nil {
		return err
	}
	if e, ok := c.entries[leaseKey+l.Name]; ok && e.revision == l.Revision {
		delete(c.entries, leaseKey+l.Name)
	}
	return nil
}

// Announce implements journal.Coordinator.
func (c *Coordinator) Announce(ctx context.Context, worker string, about []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.enter(ctx); err != nil {
		return err
	}
	if !journal.ValidWorker(worker) {
		return fmt.Errorf("announce worker %q: bad name", worker)
	}
	c.put(aliveKey+worker, about)
	return nil
}

// Leave implements journal.Coordinator.
func (c *Coordinator) Leave(ctx context.Context, worker string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.enter(ctx); err != nil {
		return err
	}
	delete(c.entries, aliveKey+worker)
	return nil
}

// Standing implements journal.Coordinator.
func (c *Coordinator) Standing(ctx context.Context) (journal.Standing, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.enter(ctx); err != nil {
		return journal.Standing{}, err
	}
	var st journal.Standing
	for _, key := range slices.Sorted(maps.Keys(c.entries)) {
		e := c.entries[key]
		if worker, ok := strings.CutPrefix(key, aliveKey); ok {
			st.Workers = append(st.Workers, journal.Living{Worker: worker, About: slices.Clone(e.data)})
		}
		if name, ok := strings.CutPrefix(key, leaseKey); ok {
			st.Leases = append(st.Leases, journal.Lease{Name: name, Holder: string(e.data), Revision: e.revision})
		}
	}
	return st, nil
}

// Ask implements journal.Coordinator.
func (c *Coordinator) Ask(ctx context.Context, subject string, data []byte) ([]byte, error) {
	a, err := c.pick(ctx, subject)
	if err != nil {
		return nil, err
	}
	type result struct {
		data []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		defer a.work.Done()
		out, err := a.fn(a.ctx, slices.Clone(data))
		if err != nil {
			err = journal.Refused{Text: err.Error()}
		}
		done <- result{out, err}
	}()
	select {
	case r := <-done:
		return r.data, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// pick finds who answers a question, and counts it as under way.
func (c *Coordinator) pick(ctx context.Context, subject string) (answer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.enter(ctx); err != nil {
		return answer{}, err
	}
	all := c.answers[subject]
	if len(all) == 0 {
		return answer{}, fmt.Errorf("ask %s: %w", subject, journal.ErrNobody)
	}
	c.turn++
	a := all[c.turn%len(all)]
	a.work.Add(1)
	return a, nil
}

// Answer implements journal.Coordinator.
func (c *Coordinator) Answer(subject, queue string, fn journal.Handler) (func(), error) {
	ctx, cancel := context.WithCancel(context.Background())
	c.mu.Lock()
	defer c.mu.Unlock()
	c.number++
	a := answer{number: c.number, queue: queue, ctx: ctx, fn: fn, work: new(sync.WaitGroup)}
	c.answers[subject] = append(c.answers[subject], a)
	return func() {
		c.mu.Lock()
		c.answers[subject] = slices.DeleteFunc(slices.Clone(c.answers[subject]), func(o answer) bool { return o.number == a.number })
		c.mu.Unlock()
		cancel()
		a.work.Wait()
	}, nil
}

var _ journal.Coordinator = (*Coordinator)(nil)
