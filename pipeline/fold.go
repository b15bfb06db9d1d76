package pipeline

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"

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
	if r == nil || r.snapshot().Removed != 0 {
		return e.foldLate(ctx, rec)
	}
	before := r.snapshot()
	next, err := e.apply(ctx, rec, before)
	if err != nil {
		return err
	}
	e.recent.note(rec, before.Keys)
	e.passed(rec.Seq)
	r.fold(next)
	r.step()
	if e.cfg.Remote && next.Published != nil && next.Published.Seq == rec.Seq {
		poke(e.unkept)
	}
	e.zoneMoved(before, next)
	return nil
}

// knownEvents names the types of events that this program knows. A state that was
// folded without one of them, or with one that is not among them, is not what
// this program makes of the journal.
func knownEvents() string {
	sum := sha256.Sum256([]byte(strings.Join(event.Types(), "\n")))
	return hex.EncodeToString(sum[:8])
}

// apply writes one of a zone's own events, with the state after it.
func (e *Engine) apply(ctx context.Context, rec journal.Record, s State) (State, error) {
	next := EvolveNext(s, rec, "")
	stored, err := e.encodeState(&next)
	if err != nil {
		return s, err
	}
	if !s.Counts(rec) {
		e.log.WarnContext(ctx, "event of a former owner passed over", "zone", s.Name, "seq", rec.Seq, "type", rec.Event.Type, "epoch", rec.Event.Epoch)
	}
	if !s.Counts(rec) || next.Halted != nil { // a halted zone stays as it is served
		return next, e.store.Skip(ctx, rec, stored)
	}
	err = e.foldHeld(ctx, rec, stored)
	if err == nil {
		return next, nil
	}
	if !errors.Is(err, journal.ErrNoChunk) && !errors.Is(err, store.ErrBroken) && !e.tooLarge(rec, err) {
		return s, fmt.Errorf("fold event %d of zone %s: %w", rec.Seq, s.Name, err)
	}
	e.log.ErrorContext(ctx, "instance cannot be read from the journal", "zone", s.Name, "seq", rec.Seq, "error", err)
	next = EvolveNext(s, rec, err.Error())
	if stored, err = e.encodeState(&next); err != nil {
		return s, err
	}
	return next, e.store.Skip(ctx, rec, stored)
}

// foldLate passes over an event of a zone that was removed.
func (e *Engine) foldLate(ctx context.Context, rec journal.Record) error {
	if err := e.store.Skip(ctx, rec); err != nil {
		return fmt.Errorf("pass over event %d: %w", rec.Seq, err)
	}
	e.passed(rec.Seq)
	return nil
}

// passed makes a folded sequence known.
func (e *Engine) passed(seq uint64) {
	e.mu.Lock()
	e.folded = seq
	e.moveLocked()
	e.askSealLocked()
	e.mu.Unlock()
}

// foldInstance folds what belongs to the whole instance.
func (e *Engine) foldInstance(ctx context.Context, rec journal.Record) error {
	e.mu.RLock()
	reg := e.registry
	e.mu.RUnlock()
	if reg.Broken == "" && (rec.Event.N != reg.Head.N+1 || rec.Event.Prev != reg.Head.Hash) {
		reg.Broken = fmt.Sprintf("the journal is damaged: event %d of the instance does not follow event %d", rec.Event.N, reg.Head.N)
		e.log.ErrorContext(ctx, "journal damaged", "seq", rec.Seq, "error", reg.Broken)
	}
	reg.Head, reg.Catalogs = rec.Head(), foldCatalogs(reg.Catalogs, rec)
	var added *State
	switch f := rec.Event.Facts.(type) {
	case *event.ZoneAdded:
		s := NewState(registered(rec, f))
		added = &s
		reg.Zones++
	case *event.ZoneRemoved:
		reg.Zones--
	case *event.ClockDoubted, *event.ClockAccepted:
		reg = foldClock(reg, rec)
	case *event.TSIGAdded:
		reg.TSIG = maps.Clone(reg.TSIG)
		if reg.TSIG == nil {
			reg.TSIG = map[string]string{}
		}
		reg.TSIG[f.Name] = f.Algorithm
		reg.TSIGFrom = withTSIG(reg.TSIGFrom, f.Name, TSIGOrigin{Seq: rec.Seq, Worker: f.Worker})
	case *event.TSIGRemoved:
		reg.TSIG = maps.Clone(reg.TSIG)
		delete(reg.TSIG, f.Name)
		reg.TSIGFrom = withTSIG(reg.TSIGFrom, f.Name, TSIGOrigin{})
	case *event.KeystoreAdded:
		reg.Keystores = maps.Clone(reg.Keystores)
		if reg.Keystores == nil {
			reg.Keystores = map[string]event.KeystoreAdded{}
		}
		reg.Keystores[f.Name] = *f
	case *event.KeystoreRemoved:
		reg.Keystores = maps.Clone(reg.Keystores)
		delete(reg.Keystores, f.Name)
	case *event.WorkerEnrolled, *event.WorkerRemoved:
		reg.Workers = foldWorkers(reg.Workers, rec)
	case *event.AccessGranted, *event.AccessWithdrawn:
		reg.Tokens = foldAccess(reg.Tokens, rec)
	default:
		reg = foldJournal(reg, rec)
	}
	states := make([]store.ZoneState, 0, 2)
	data, err := json.Marshal(reg)
	if err != nil {
		return err
	}
	states = append(states, store.ZoneState{Zone: event.Instance, Data: data})
	if added != nil {
		state, err := e.encodeState(added)
		if err != nil {
			return err
		}
		states = append(states, state)
	}
	if err := e.store.Apply(ctx, rec, e.chunks, states...); err != nil {
		return fmt.Errorf("fold event %d: %w", rec.Seq, err)
	}
	if r := e.takeInstance(rec, reg, added); r != nil {
		r.step()
	}
	e.instanceMoved(rec.Event.Facts)
	switch rec.Event.Facts.(type) {
	case *event.AccessGranted, *event.AccessWithdrawn:
		e.mu.Lock()
		close(e.granted)
		e.granted = make(chan struct{})
		e.mu.Unlock()
	case *event.WorkerEnrolled, *event.WorkerRemoved:
		if e.running() { // before, it is told at once
			e.admit()
		}
		e.stepAll() // whom keys wait for has changed
	}
	return nil
}

// takeInstance makes a folded event of the whole instance visible, and
// returns the runner of the zone that it concerns. A runner's lock is never
// taken with mu held: it is the other way round everywhere.
func (e *Engine) takeInstance(rec journal.Record, reg Registry, added *State) *runner {
	e.mu.Lock()
	e.registry, e.folded = reg, rec.Seq
	var r *runner
	removed, ok := rec.Event.Facts.(*event.ZoneRemoved)
	switch {
	case added != nil:
		r = e.adopt(*added)
	case ok:
		r = e.runners[removed.ID]
		if e.names[removed.Name] == removed.ID {
			delete(e.names, removed.Name)
		}
	}
	e.moveLocked()
	e.mu.Unlock()
	if r != nil && ok {
		s := r.snapshot()
		s.Removed = rec.Seq
		r.fold(s)
	}
	return r
}

// moveLocked wakes all that wait for the fold. The caller holds mu.
func (e *Engine) moveLocked() {
	close(e.moved)
	e.moved = make(chan struct{})
}

// awaitFold waits until the event of that sequence is folded.
func (e *Engine) awaitFold(ctx context.Context, seq uint64) error {
	for {
		e.mu.RLock()
		folded, moved := e.folded, e.moved
		e.mu.RUnlock()
		if folded >= seq {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// chunks reads an instance's chunks in order, for the fold.
func (e *Engine) chunks(ctx context.Context, m event.Manifest, fn func(raw []byte) error) error {
	return journal.Chunks(ctx, e.fresh, m, fn)
}
