package pipeline

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/pipeline/store"
	"sluice/signer/zone"
)

// historyID finds a zone by name, also one that was removed (the newest of
// that name).
func (e *Engine) historyID(ctx context.Context, name string) (event.ZoneID, error) {
	n, err := zone.ParseName(name)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	e.mu.RLock()
	id, ok := e.names[n.Fold().String()]
	e.mu.RUnlock()
	if ok {
		return id, nil
	}
	ids, err := e.lives(ctx, name)
	if err != nil {
		return "", err
	}
	return ids[len(ids)-1], nil
}

// lives lists the zones that had a name, oldest first; the last one lives
// unless it was removed.
func (e *Engine) lives(ctx context.Context, name string) ([]event.ZoneID, error) {
	n, err := zone.ParseName(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	name = n.Fold().String()
	ids, err := e.livesOf(ctx, name)
	if err == nil && len(ids) == 0 {
		err = fmt.Errorf("zone %s: %w", name, ErrNotFound)
	}
	return ids, err
}

// livesOf is lives for a name as the registry writes it; none for one that
// never was.
func (e *Engine) livesOf(ctx context.Context, name string) ([]event.ZoneID, error) {
	folded := e.store.Position().Seq
	ids, err := e.store.Lives(name)
	if err != nil {
		return nil, err
	}
	err = e.unfolded(ctx, folded, func(rec journal.Record) error {
		if f, ok := rec.Event.Facts.(*event.ZoneAdded); ok && f.Name == name && !slices.Contains(ids, f.ID) {
			ids = append(ids, f.ID)
		}
		return nil
	}, event.Instance)
	return ids, err
}

// unfolded reads the events of zones behind a sequence, zone by zone: as a rule
// there are none.
func (e *Engine) unfolded(ctx context.Context, behind uint64, fn func(journal.Record) error, ids ...event.ZoneID) error {
	_, last, err := e.journal.Stream(ctx)
	if err != nil || last <= behind {
		return err
	}
	for _, id := range ids {
		if err := e.journal.Read(ctx, id, behind+1, last, fn); err != nil {
			return err
		}
	}
	return nil
}

// past is where the events of some zones stand in the journal: as the projection
// has it, and what is not folded yet.
type past struct {
	e      *Engine
	ids    []event.ZoneID
	folded uint64
	tail   []store.EventRef // behind folded
}

// past looks at the events of zones that are there now.
func (e *Engine) past(ctx context.Context, ids ...event.ZoneID) (*past, error) {
	return e.pastFrom(ctx, e.store.Position().Seq, ids...)
}

// pastFrom is past, with the projection believed up to a sequence.
func (e *Engine) pastFrom(ctx context.Context, folded uint64, ids ...event.ZoneID) (*past, error) {
	p := &past{e: e, ids: ids, folded: folded}
	err := e.unfolded(ctx, p.folded, func(rec journal.Record) error {
		if r, ok := store.RefOf(rec); ok && slices.Contains(ids, r.Zone) {
			p.tail = append(p.tail, r)
		}
		return nil
	}, append([]event.ZoneID{event.Instance}, ids...)...)
	slices.SortFunc(p.tail, func(a, b store.EventRef) int { return cmp.Compare(a.Seq, b.Seq) })
	return p, err
}

// find lists the events that a filter selects, by sequence.
func (p *past) find(f store.EventFilter) ([]store.EventRef, error) {
	var tail []store.EventRef
	for _, r := range p.tail {
		if f.Selects(r) {
			tail = append(tail, r)
		}
	}
	f.Zones, f.UpTo = p.ids, min(f.UpTo, p.folded)
	if f.Newest && len(tail) >= f.Max {
		return tail[len(tail)-f.Max:], nil
	}
	if f.Newest {
		f.Max -= len(tail)
	}
	refs, err := p.e.store.Events(f)
	if refs = append(refs, tail...); !f.Newest && len(refs) > f.Max {
		refs = refs[:f.Max]
	}
	return refs, err
}

// begin is the sequence of the first event that a filter selects, or with a
// limit of the first of the last so many; 0 where there is none.
func (p *past) begin(f store.EventFilter, limit int) (uint64, error) {
	f.Newest, f.Max = limit > 0, max(limit, 1)
	refs, err := p.find(f)
	if err != nil || len(refs) == 0 {
		return 0, err
	}
	return refs[0].Seq, nil
}

const (
	// pastAtOnce is how many events are looked up before they are read.
	pastAtOnce = 512
	// maxHole is how many events that nobody asked for are read rather than
	// asking the journal once more.
	maxHole = 3
)

// each reads the events that a filter selects, in order.
func (p *past) each(ctx context.Context, f store.EventFilter, fn func(store.EventRef, journal.Record) error) error {
	f.Max = pastAtOnce
	for {
		refs, err := p.find(f)
		if err != nil || len(refs) == 0 {
			return err
		}
		f.From = refs[len(refs)-1].Seq + 1
		for len(refs) > 0 {
			n := run(refs)
			if err := p.read(ctx, refs[:n], fn); err != nil {
				return err
			}
			refs = refs[n:]
		}
	}
}

// run is how many of the events are read by one request: those that follow one
// another in a zone, all but a few.
func run(refs []store.EventRef) int {
	n := 1
	for n < len(refs) && refs[n].Zone == refs[0].Zone && refs[n].N > refs[n-1].N && refs[n].N-refs[n-1].N <= maxHole+1 && refs[0].N > 0 {
		n++
	}
	return n
}

// read reads the events of a run. What the journal has lost is left out.
func (p *past) read(ctx context.Context, refs []store.EventRef, fn func(store.EventRef, journal.Record) error) error {
	id, count := refs[0].Zone, int(refs[len(refs)-1].N-refs[0].N)+1 //nolint:gosec // at most (maxHole+1) * pastAtOnce
	if refs[0].N == 0 {
		id = event.Instance
	}
	return p.e.journal.ReadNext(ctx, id, refs[0].Seq, count, func(rec journal.Record) error {
		for len(refs) > 0 && refs[0].Seq < rec.Seq {
			refs = refs[1:]
		}
		if len(refs) == 0 || refs[0].Seq != rec.Seq {
			return nil
		}
		return fn(refs[0], rec)
	})
}
