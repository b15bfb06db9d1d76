package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"sluice/journal"
	"sluice/journal/event"
)

// maxTogether is how many zones that are added at the same time share an append.
const maxTogether = 64

// additions are zones that wait to be added. Its zero value is ready.
type additions struct {
	mu      sync.Mutex
	waiting []*addition // guarded by mu, in the order in which they came
}

// addition is one of them.
type addition struct {
	actor event.Actor
	facts *event.ZoneAdded
	done  chan error // has room for what became of it
	// tried: an append of it was begun behind after, and may have come about
	// though nobody was told. Owned by who holds adding.
	tried bool
	after uint64
}

func (a *additions) push(some ...*addition) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting = append(a.waiting, some...)
}

// take takes one out, and with it others that the same actor asks for.
func (a *additions) take(first *addition) []*addition {
	a.mu.Lock()
	defer a.mu.Unlock()
	batch := []*addition{first}
	a.waiting = slices.DeleteFunc(a.waiting, func(one *addition) bool {
		if one != first && one.actor == first.actor && len(batch) < maxTogether {
			batch = append(batch, one)
			return true
		}
		return one == first
	})
	return batch
}

// addTogether appends the event that adds a zone, and waits until it is folded.
// An append takes its time on disk, whatever is in it: who comes while one is
// under way goes with the next.
func (e *Engine) addTogether(ctx context.Context, actor event.Actor, facts *event.ZoneAdded) error {
	if err := e.mayAppendInstance(facts); err != nil {
		return err
	}
	a := &addition{actor: actor, facts: facts, done: make(chan error, 1)}
	e.additions.push(a)
	e.adding.Lock()
	defer e.adding.Unlock()
	select {
	case err := <-a.done: // it went with another one
		return err
	default:
	}
	batch := e.additions.take(a)
	err := e.addAll(ctx, batch)
	switch {
	case err == nil:
		return <-a.done
	case ctx.Err() != nil:
		e.additions.push(batch[1:]...) // they have not given up: each tries again
		return err
	}
	for _, one := range batch[1:] {
		one.done <- err
	}
	return err
}

// addAll appends the events of a batch, and tells each what became of it; an
// error is that of all, who were not told. The caller holds adding.
func (e *Engine) addAll(ctx context.Context, batch []*addition) error {
	for {
		e.mu.RLock()
		ready, head := e.ready, e.registry.Head
		var fit []*addition
		var facts []event.Facts
		refused := map[*addition]error{}
		names := map[string]bool{}
		for _, one := range batch {
			name := one.facts.Name
			if _, ok := e.names[name]; ok || names[name] {
				refused[one] = fmt.Errorf("zone %s is already here: %w; to change it: sluice zone set %s", name, ErrState, name)
				continue
			}
			names[name] = true
			fit, facts = append(fit, one), append(facts, one.facts)
			if !one.tried {
				one.tried, one.after = true, head.Seq
			}
		}
		e.mu.RUnlock()
		if !ready {
			return fmt.Errorf("the journal is still being read: %w", ErrState)
		}
		next, err := head, error(nil)
		if len(fit) > 0 {
			next, err = e.append(ctx, event.Instance, head, 0, batch[0].actor, facts...)
		}
		if err == nil && len(fit) > 0 {
			err = e.awaitFold(ctx, next.Seq)
		} else if errors.Is(err, journal.ErrConflict) {
			if err = e.awaitFold(ctx, head.Seq+1); err == nil {
				continue
			}
		}
		if err != nil {
			return err
		}
		for one, why := range refused {
			if e.addedBefore(one) {
				why = nil
			}
			one.done <- why
		}
		for _, one := range fit {
			one.done <- nil
		}
		return nil
	}
}

// addedBefore reports whether an addition came about by an append of which nobody
// was told: who began it had given up.
func (e *Engine) addedBefore(one *addition) bool {
	r, err := e.find(one.facts.Name)
	if err != nil || !one.tried {
		return false
	}
	s := r.snapshot()
	return s.Added.Seq > one.after && s.Added.Actor == one.actor
}
