package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/pipeline/store"
)

// fold brings one event into the projection: data, states and position in one
// write. An instance whose chunks cannot be had is marked broken, and the
// zone makes it anew.
func (e *Engine) fold(ctx context.Context, rec journal.Record) error {
	if rec.Event.Zone == event.Instance {
		return e.foldInstance(ctx, rec)
	}
	e.mu.RLock()
	r := e.runners[rec.Event.Zone]
	e.mu.RUnlock()
	if r == nil {
		return fmt.Errorf("event %d: zone %s was never added", rec.Seq, rec.Event.Zone)
	}
	next, err := e.apply(ctx, rec, r.snapshot())
	if err != nil {
		return err
	}
	e.mu.Lock()
	e.folded = rec.Seq
	e.moveLocked()
	e.mu.Unlock()
	r.fold(next)
	r.step()
	return nil
}

// apply writes one of a zone's own events, with the state after it.
func (e *Engine) apply(ctx context.Context, rec journal.Record, s State) (State, error) {
	next := Evolve(s, rec, "")
	data, err := json.Marshal(next)
	if err != nil {
		return s, err
	}
	err = e.store.Apply(ctx, rec, e.chunks, store.ZoneState{Zone: s.Zone, Data: data})
	if err == nil {
		return next, nil
	}
	if !errors.Is(err, journal.ErrNoChunk) && !errors.Is(err, store.ErrBroken) {
		return s, fmt.Errorf("fold event %d of zone %s: %w", rec.Seq, s.Name, err)
	}
	e.log.ErrorContext(ctx, "instance cannot be read from the journal", "zone", s.Name, "seq", rec.Seq, "error", err)
	next = Evolve(s, rec, err.Error())
	if data, err = json.Marshal(next); err != nil {
		return s, err
	}
	return next, e.store.Skip(ctx, rec, store.ZoneState{Zone: s.Zone, Data: data})
}

// foldInstance folds what belongs to the whole instance.
func (e *Engine) foldInstance(ctx context.Context, rec journal.Record) error {
	e.mu.RLock()
	reg := e.registry
	e.mu.RUnlock()
	reg.Head = rec.Head()
	var zoneState *State
	switch f := rec.Event.Facts.(type) {
	case *event.ZoneAdded:
		s := NewState(rec, f)
		zoneState = &s
		reg.Zones++
	case *event.ZoneRemoved:
		e.mu.RLock()
		r := e.runners[f.ID]
		e.mu.RUnlock()
		if r != nil {
			s := r.snapshot()
			s.Removed = rec.Seq
			zoneState = &s
			reg.Zones--
		}
	}
	data, err := json.Marshal(reg)
	if err != nil {
		return err
	}
	states := []store.ZoneState{{Zone: event.Instance, Data: data}}
	if zoneState != nil {
		if data, err = json.Marshal(zoneState); err != nil {
			return err
		}
		states = append(states, store.ZoneState{Zone: zoneState.Zone, Data: data})
	}
	if err := e.store.Apply(ctx, rec, e.chunks, states...); err != nil {
		return fmt.Errorf("fold event %d: %w", rec.Seq, err)
	}
	e.takeInstance(rec, reg, zoneState)
	return nil
}

// takeInstance makes the folded facts visible.
func (e *Engine) takeInstance(rec journal.Record, reg Registry, s *State) {
	e.mu.Lock()
	e.registry, e.folded = reg, rec.Seq
	var r *runner
	if s != nil {
		if r = e.runners[s.Zone]; r == nil {
			r = e.adopt(*s)
		}
		if s.Removed != 0 && e.names[s.Name] == s.Zone {
			delete(e.names, s.Name)
		}
	}
	e.moveLocked()
	e.mu.Unlock()
	if r != nil {
		r.fold(*s)
		r.step()
	}
}

// chunks reads an instance's chunks in order.
func (e *Engine) chunks(ctx context.Context, m event.Manifest, fn func(raw []byte) error) error {
	return journal.Chunks(ctx, e.journal, m, fn)
}
