package pipeline

import (
	"context"
	"fmt"

	"sluice/journal/event"
	"sluice/signer/zone"
)

// doRollback makes a loaded instance with the content of an earlier one.
func (e *Engine) doRollback(ctx context.Context, s State, c Rollback, report func(Progress)) ([]event.Facts, error) {
	began := e.clock.Now()
	loaded, err := e.rollback(ctx, s, c, report)
	return e.loadOutcome(ctx, s, rollbackSource(c.Loaded), loaded, began, err)
}

// rollback sends the earlier content, or what it changes against the base. One
// pass over both: the projection does not keep what was overtaken.
func (e *Engine) rollback(ctx context.Context, s State, c Rollback, report func(Progress)) (*event.InstanceLoaded, error) {
	if err := take(ctx, e.heavy); err != nil {
		return nil, err
	}
	defer give(e.heavy)
	report(Progress{Stage: "load"})
	v, err := e.open(ctx, target{id: s.Zone, loaded: true, seq: c.Loaded, upTo: c.Loaded})
	if err != nil {
		return nil, err
	}
	defer v.close() //nolint:errcheck // read only
	wanted := &countedItems{Iterator: v.contents()}
	facts := &event.InstanceLoaded{Source: rollbackSource(c.Loaded), Base: c.Base, Rollback: c.Loaded}
	out := newChunkSink(ctx, e.journal.NewChunks(s.Zone, c.Identity()))
	if err := e.sendBack(s, c, wanted, out, facts); err != nil {
		return nil, err
	}
	facts.ContentDigest = wanted.hash.Set.Sum()
	if !v.meta.Whole && facts.ContentDigest != v.meta.ContentDigest {
		return nil, fmt.Errorf("l%d: content digest as rebuilt differs from the event's", c.Loaded)
	}
	facts.Serial, facts.MaxTTL = uint32(wanted.serial), wanted.maxTTL
	facts.RRsets, facts.Records = wanted.rrsets, wanted.records
	if c.Base == 0 {
		facts.Added = wanted.records
	}
	if err := out.putState(&wanted.hash.Set); err != nil {
		return nil, err
	}
	facts.Manifest, err = out.finish()
	return facts, err
}

// sendBack sends the items of a whole instance, or of a diff.
func (e *Engine) sendBack(s State, c Rollback, wanted *countedItems, out *chunkSink, facts *event.InstanceLoaded) error {
	if c.Base == 0 {
		for wanted.Next() {
			if err := out.Put(wanted.Key(), wanted.Value()); err != nil {
				return err
			}
		}
		return wanted.Err()
	}
	before, err := e.store.Contents(s.Zone, c.Base)
	if err != nil {
		return err
	}
	defer before.Close() //nolint:errcheck // read only
	return zone.DiffItems(before, wanted, func(key, old, now []byte) error {
		removed, added := recordChanges(old, now)
		facts.Removed += removed
		facts.Added += added
		return out.Put(key, now)
	})
}

// countedItems counts and hashes the contents that go by.
type countedItems struct {
	zone.Iterator
	hash            zone.Hasher
	err             error
	rrsets, records uint64
	maxTTL          uint32
	serial          zone.Serial
}

// Next implements zone.Iterator.
func (c *countedItems) Next() bool {
	if c.err != nil || !c.Iterator.Next() {
		return false
	}
	key, value := c.Iterator.Key(), zone.Value(c.Iterator.Value())
	if c.err = c.hash.AddContent(key, value); c.err != nil {
		return false
	}
	c.rrsets++
	c.records += uint64(value.Count())
	c.maxTTL = max(c.maxTTL, value.TTL())
	if isInputSOA(key) {
		c.serial = serialOf(value)
	}
	return true
}

// Err implements zone.Iterator.
func (c *countedItems) Err() error {
	if c.err != nil {
		return c.err
	}
	return c.Iterator.Err()
}
