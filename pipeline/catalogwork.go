package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"sluice/journal/event"
)

// catalogWork carries out parts of a plan.
type catalogWork struct {
	e     *Engine
	c     Catalog
	actor event.Actor
	cause uint64 // of what follows from the published version
	seen  *catalogSeen
}

// fault notes what could not be done with a member.
func (w *catalogWork) fault(name string, err error) {
	w.seen.Failed++
	if len(w.seen.Faults) < shownMembers {
		w.seen.Faults = append(w.seen.Faults, memberConflict{name, oneLine(err.Error())})
	}
}

// hold records that a version's removals wait for a person.
func (w *catalogWork) hold(ctx context.Context, r *runner, held *event.CatalogHeld) error {
	if held == nil {
		return nil
	}
	return w.e.appendCaused(ctx, w.actor, r, func(s State) (event.Facts, uint64, error) {
		if s.Published == nil || s.Published.Loaded.Seq != held.Loaded || s.catalogHold() != nil {
			return nil, 0, nil
		}
		return held, s.Published.Seq, nil
	})
}

// unlist announces removals.
func (w *catalogWork) unlist(ctx context.Context, p catalogPlan) (more bool, err error) {
	todo := p.Unlist[:min(len(p.Unlist), catalogRound)]
	serial := w.serial()
	for _, m := range todo {
		r, err := w.e.find(m.Name)
		if err != nil {
			continue
		}
		err = w.e.appendCaused(ctx, w.actor, r, func(s State) (event.Facts, uint64, error) {
			if s.Member == nil || s.Member.CatalogID != w.c.ID || s.Member.Unlisted != nil {
				return nil, 0, nil
			}
			due := w.e.clock.Now().Add(time.Duration(w.c.Settings.RemovalDelay) * time.Second) //nolint:gosec // bounded at the door
			return &event.MemberUnlisted{Catalog: w.c.Name, Serial: serial, Due: due.Unix(), Approved: w.approved() || w.c.Ending}, w.cause, nil
		})
		if err != nil && !errors.Is(err, ErrNotFound) {
			return false, err
		}
		w.seen.Unlisted++
	}
	return len(todo) > 0, nil // the next look knows when they are due
}

func (w *catalogWork) serial() uint32 {
	if r, err := w.e.find(w.c.Name); err == nil {
		if p := r.snapshot().Published; p != nil {
			return p.Loaded.Facts.Serial
		}
	}
	return 0
}

func (w *catalogWork) approved() bool {
	r, err := w.e.find(w.c.Name)
	if err != nil {
		return false
	}
	s := r.snapshot()
	return s.Published != nil && s.Brake != nil && s.Brake.Approved == s.Published.Loaded.Seq
}

// change lists members as the catalog says by now. What a person gave a zone by
// hand stays.
func (w *catalogWork) change(ctx context.Context, p catalogPlan) (more bool, err error) {
	done := 0
	for _, m := range p.Change {
		if done == catalogRound {
			return true, nil
		}
		r, err := w.e.find(m.Name)
		if err != nil {
			continue
		}
		if err := w.adjust(ctx, &m, r.snapshot()); err != nil {
			if ctx.Err() != nil {
				return false, err
			}
			w.fault(m.Name, err)
		}
		err = w.e.appendCaused(ctx, w.actor, r, func(s State) (event.Facts, uint64, error) {
			if old := s.Member; old != nil {
				same := old.Membership
				same.Serial = m.Serial
				if same == m.Membership && old.Unlisted == nil {
					return nil, 0, nil
				}
			}
			done++
			return &event.MemberListed{Membership: m.Membership, Reset: m.Reset, Former: m.Former}, w.cause, nil
		})
		if err != nil && !errors.Is(err, ErrNotFound) {
			return false, err
		}
	}
	return false, nil
}

// adjust gives a zone the source and the policy that its catalog names by now.
// Where that is refused, the member keeps what it was given before.
func (w *catalogWork) adjust(ctx context.Context, m *memberChange, s State) error {
	if s.Member == nil {
		return nil
	}
	var c ZoneChange
	given := s.Member.Membership
	if m.Source != given.Source && s.Source == given.Source {
		c.Source = m.Source
	}
	if m.Policy != given.Policy && s.Policy.Name == given.Policy {
		c.Policy = m.Policy
	}
	if c == (ZoneChange{}) {
		return nil
	}
	plan, err := w.e.SetZone(ctx, w.actor, m.Name, c)
	if err == nil && plan.Proposed {
		err = fmt.Errorf("policy %s waits for a person: sluice zone set %s --policy %s", m.Policy, m.Name, m.Policy)
	}
	if err != nil {
		m.Source, m.Policy = given.Source, given.Policy
	}
	return err
}

// remove removes zones whose time has come and that no DS speaks for. What was
// refused is tried again after a while.
func (w *catalogWork) remove(ctx context.Context, p catalogPlan) (more bool, err error) {
	if w.e.watch.check() != nil {
		for _, m := range p.Remove { // tried again by itself
			w.fault(m.Name, errorState("its time may not have come: the clock is not trusted; see: sluice status"))
		}
		return false, nil
	}
	now := w.e.clock.Now()
	maps.DeleteFunc(w.e.catalogs.tried, func(_ string, before refusedRemoval) bool { return now.Sub(before.at) >= catalogAgain })
	var todo []memberNow
	for _, m := range p.Remove {
		if before, ok := w.e.catalogs.tried[m.Name]; ok {
			w.fault(m.Name, before.err)
		} else if len(todo) == removalRound {
			more = true
		} else {
			todo = append(todo, m)
		}
	}
	for batch := range slices.Chunk(todo, catalogRemovals) {
		failed := make([]error, len(batch))
		var work sync.WaitGroup
		for i, m := range batch {
			work.Go(func() {
				failed[i] = w.e.removeZone(ctx, w.actor, m.Name, Removal{Reason: "catalog " + w.c.Name + " lists it no more"})
			})
		}
		work.Wait()
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		for i, m := range batch {
			if failed[i] != nil {
				w.fault(m.Name, failed[i])
				w.e.catalogs.tried[m.Name] = refusedRemoval{now, failed[i]}
				continue
			}
			delete(w.e.catalogs.tried, m.Name)
			w.seen.Members--
			w.seen.Unlisted--
		}
	}
	return more, nil
}

// end removes the zone of a catalog whose last member is gone.
func (w *catalogWork) end(ctx context.Context) error {
	return w.e.appendInstance(ctx, w.actor, &event.ZoneRemoved{Name: w.c.Name, ID: w.c.ID}, func() error {
		if w.e.names[w.c.Name] != w.c.ID {
			return fmt.Errorf("zone %s: %w", w.c.Name, ErrNotFound)
		}
		return nil
	})
}

// add adds zones, as many at a time as leave room for the others.
func (w *catalogWork) add(ctx context.Context, p catalogPlan) (more bool, err error) {
	added := 0
	var facts []event.Facts
	flush := func() error {
		if len(facts) == 0 {
			return nil
		}
		w.e.settle(ctx)
		err := w.append(ctx, facts)
		added += len(facts)
		facts = nil
		return err
	}
	for _, m := range p.Add {
		if added+len(facts) == catalogRound {
			more = true
			break
		}
		f, err := w.e.newZone(ctx, NewZone{Name: m.Name, Source: m.Source, Policy: m.Policy})
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if err != nil {
			w.fault(m.Name, err)
			continue
		}
		f.Member = &m.Membership
		if facts = append(facts, f); len(facts) == catalogBatch {
			if err := flush(); err != nil {
				return false, err
			}
		}
	}
	if err := flush(); err != nil {
		return false, err
	}
	w.seen.Members += added
	w.seen.Waiting -= added
	return more, nil
}

// append adds zones in one append, those whose names were taken meanwhile left
// out.
func (w *catalogWork) append(ctx context.Context, facts []event.Facts) error {
	for {
		taken := map[string]bool{}
		err := w.e.appendInstanceAll(ctx, w.actor, w.cause, facts, func() error {
			for _, f := range facts {
				if name := f.(*event.ZoneAdded).Name; w.e.names[name] != "" {
					taken[name] = true
				}
			}
			if len(taken) > 0 {
				return errTaken
			}
			return nil
		})
		if !errors.Is(err, errTaken) {
			if err == nil {
				w.e.catalogs.fresh = append(w.e.catalogs.fresh, w.e.addedRunners(facts)...)
			}
			return err
		}
		facts = slices.DeleteFunc(facts, func(f event.Facts) bool { return taken[f.(*event.ZoneAdded).Name] })
		if len(facts) == 0 {
			return nil
		}
	}
}

var errTaken = errors.New("names taken meanwhile")

func (e *Engine) addedRunners(facts []event.Facts) []*runner {
	e.mu.RLock()
	defer e.mu.RUnlock()
	out := make([]*runner, 0, len(facts))
	for _, f := range facts {
		if r := e.runners[f.(*event.ZoneAdded).ID]; r != nil {
			out = append(out, r)
		}
	}
	return out
}

// settle waits until few enough of the zones that were added lately have neither
// been published nor failed, and no longer than a moment.
func (e *Engine) settle(ctx context.Context) {
	due := time.NewTimer(catalogSettle)
	defer due.Stop()
	look := time.NewTicker(settleLook) // each event that is folded would be a look at all of them
	defer look.Stop()
	for {
		e.catalogs.fresh = slices.DeleteFunc(e.catalogs.fresh, func(r *runner) bool {
			s := r.snapshot()
			return s.Published != nil || s.LoadFailure != nil || s.SignFailure != nil || s.Removed != 0
		})
		if len(e.catalogs.fresh) < catalogFresh {
			return
		}
		select {
		case <-look.C:
		case <-due.C:
			e.catalogs.fresh = nil
			return
		case <-ctx.Done():
			return
		}
	}
}
