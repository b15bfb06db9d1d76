package signer

import (
	"context"

	"golang.org/x/sync/errgroup"

	"sluice/signer/zone"
)

// Bounds of one batch. A batch is what one worker takes at a time; BatchSigner
// gains from some hundred signatures at once.
const (
	batchUnits = 256
	batchBytes = 256 << 10
	// firstBatch is how many units the first batches have: a small change keeps
	// all workers busy too.
	firstBatch = 16
)

// share is how many units a batch gets after n units in earlier ones: a
// quarter of them, within the bounds.
func share(n int) int { return min(max(n/4, firstBatch), batchUnits) }

// span is a part of a batch's data.
type span struct{ from, to int }

func (s span) empty() bool { return s.from == s.to }

// unit is one RRset to sign, or one key to delete.
type unit struct {
	kind     zone.Kind // KindContents, KindMade or KindChain; of a deletion also the kinds of signatures
	typ      zone.Type
	delete   bool
	same     bool // value equals the previous one
	existed  bool // the previous instance has an item of this kind and key
	apexKeys bool // signed by the keys that sign keys
	fresh    bool // no previous signature is taken over
	key      span // key with a byte for the kind
	owner    span // name in wire form, lower case
	value    span
	before   span // previous value, where existed and not same; of a deletion, what is deleted
	sigs     span // previous RRSIGs
}

// entry is a name that gets an NSEC3 record.
type entry struct {
	name   span
	bitmap span
	hash   [20]byte
}

// output is one item that a batch gave.
type output struct {
	key, value span // of batch.out; an empty value deletes
	changed    bool // goes to the sink
}

// batch travels from the producer to a worker to the collector.
type batch struct {
	data    []byte
	units   []unit
	entries []entry

	out     []byte
	outputs []output
	err     error
	done    chan struct{}
}

func (b *batch) reset() {
	b.data, b.units, b.entries = b.data[:0], b.units[:0], b.entries[:0]
	b.out, b.outputs, b.err = b.out[:0], b.outputs[:0], nil
}

func (b *batch) full(units int) bool {
	return len(b.units) >= units || len(b.entries) >= 4*batchUnits || len(b.data) >= batchBytes
}

func (b *batch) add(p []byte) span {
	from := len(b.data)
	b.data = append(b.data, p...)
	return span{from, len(b.data)}
}

func (b *batch) bytes(s span) []byte { return b.data[s.from:s.to] }

// feed is the producer's end of a pipeline.
type feed struct {
	ctx   context.Context //nolint:containedctx // lives as long as one pipeline
	now   *batch
	units int  // in the batches before now
	owner span // of now: the last owner name added
	free  chan *batch
	jobs  chan *batch
	order chan *batch
}

// next hands the present batch over when it is full.
func (f *feed) next() error {
	if !f.now.full(share(f.units)) {
		return nil
	}
	return f.flush()
}

func (f *feed) flush() error {
	if len(f.now.units) == 0 && len(f.now.entries) == 0 {
		f.now.reset()
		return nil
	}
	b := f.now
	f.units += len(b.units)
	b.done = make(chan struct{})
	select {
	case f.order <- b:
	case <-f.ctx.Done():
		return f.ctx.Err()
	}
	select {
	case f.jobs <- b:
	case <-f.ctx.Done():
		return f.ctx.Err()
	}
	select {
	case f.now = <-f.free:
	case <-f.ctx.Done():
		return f.ctx.Err()
	}
	f.now.reset()
	f.owner = span{}
	return nil
}

// pipeline runs produce, the workers and the collector until all that produce
// fed is collected. The order of what is collected is that of the feed. Its
// memory is that of a fixed number of batches.
func (r *run) pipeline(ctx context.Context, produce func(*feed) error, collect func(*batch) error) error {
	g, ctx := errgroup.WithContext(ctx)
	n := 2*len(r.workers) + 2
	f := &feed{
		ctx:   ctx,
		free:  make(chan *batch, n),
		jobs:  make(chan *batch, n),
		order: make(chan *batch, n),
	}
	for len(r.batches) < n {
		r.batches = append(r.batches, &batch{})
	}
	for _, b := range r.batches {
		f.free <- b
	}
	f.now = <-f.free
	f.now.reset()
	g.Go(func() error {
		defer close(f.order)
		defer close(f.jobs)
		if err := produce(f); err != nil {
			return err
		}
		return f.flush()
	})
	for _, w := range r.workers {
		g.Go(func() error {
			for b := range f.jobs {
				if b.err = ctx.Err(); b.err == nil {
					b.err = w.process(b)
				}
				close(b.done)
			}
			return nil
		})
	}
	g.Go(func() error {
		for b := range f.order {
			select {
			case <-b.done:
			case <-ctx.Done():
				return ctx.Err()
			}
			if b.err != nil {
				return b.err
			}
			if err := collect(b); err != nil {
				return err
			}
			f.free <- b
		}
		return nil
	})
	return g.Wait()
}
