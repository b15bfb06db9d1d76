package store

import (
	"bytes"
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"sluice/journal/event"
	"sluice/signer/zone"
)

// loader takes the chunks of one instance into an edit.
type loader struct {
	s     *Store
	e     edit
	z     uint32
	m     *InstanceMeta
	parts [len(kinds)]part
	due   *dueIndex        // nil for a loaded instance
	first zone.ChunkReader // for the first key of a chunk
	state bool             // the digest's state was met
}

// part takes the chunks of one kind.
type part struct {
	l     *loader
	kind  int
	list  *listWriter // of a diff
	due   *dueWriter  // of signatures
	last  []byte      // last key
	key   []byte
	bytes uint64
	read  zone.ChunkReader
	queue chan numbered // nil until its goroutine runs
}

// numbered is a chunk with its place in the manifest, from 0.
type numbered struct {
	n   uint64
	raw []byte
}

// load takes all chunks. In a large load each kind is taken in by a goroutine
// of its own while the next chunks are fetched.
func (l *loader) load(ctx context.Context, m event.Manifest, chunks ChunkSource) error {
	run := l.inTurn
	if _, large := l.e.(*tableEdit); large {
		run = l.atOnce
	}
	n, err := run(ctx, m, chunks)
	if err != nil {
		return err
	}
	if n != m.Count {
		return fmt.Errorf("%w: %d chunks, the manifest says %d", ErrBroken, n, m.Count)
	}
	if !l.state {
		return fmt.Errorf("%w: no digest state in the chunks", ErrBroken)
	}
	for i := range l.parts {
		l.m.Bytes += l.parts[i].bytes
		if w := l.parts[i].list; w != nil {
			if err := w.flush(l.e); err != nil {
				return err
			}
		}
	}
	if l.due == nil {
		return nil
	}
	return l.due.finish(l.e)
}

// inTurn fetches and takes on one goroutine, and counts the chunks.
func (l *loader) inTurn(ctx context.Context, m event.Manifest, chunks ChunkSource) (n uint64, err error) {
	err = chunks(ctx, m, func(raw []byte) error {
		n++
		p, err := l.part(raw)
		if err != nil {
			return chunkError(n, m, err)
		}
		return l.take(m, p, numbered{n - 1, raw})
	})
	return n, err
}

// atOnce fetches on one goroutine and takes each kind on another.
func (l *loader) atOnce(ctx context.Context, m event.Manifest, chunks ChunkSource) (n uint64, err error) {
	g, ctx := errgroup.WithContext(ctx)
	fetch := func(raw []byte) error {
		c := numbered{n, raw}
		n++
		p, err := l.part(raw)
		if err != nil {
			return chunkError(n, m, err)
		}
		if p == nil {
			return l.take(m, nil, c)
		}
		if p.queue == nil {
			p.queue = make(chan numbered, 2)
			g.Go(func() error {
				for c := range p.queue {
					if err := l.take(m, p, c); err != nil {
						return err
					}
				}
				return nil
			})
		}
		select {
		case p.queue <- c:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	err = chunks(ctx, m, fetch)
	for i := range l.parts {
		if q := l.parts[i].queue; q != nil {
			close(q)
		}
	}
	// Where taking failed, fetching has only been told to stop.
	if failed := g.Wait(); failed != nil {
		return n, failed
	}
	return n, err
}

// part is what takes a chunk, by its first key; nil for the digest's state.
func (l *loader) part(raw []byte) (*part, error) {
	l.first.Reset(raw)
	if !l.first.Next() {
		if err := l.first.Err(); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrBroken, err)
		}
		return nil, fmt.Errorf("%w: an empty chunk", ErrBroken)
	}
	kind := zone.Kind(l.first.Key()[0])
	if kind == zone.KindDigest {
		return nil, nil //nolint:nilnil // says so above
	}
	k := kindIndex(kind)
	if k < 0 || !l.m.has(kinds[k]) {
		return nil, errKind
	}
	p := &l.parts[k]
	if p.l == nil {
		p.l, p.kind, p.key = l, k, generationKey(l.z, l.m.Generation)
		if l.m.Base != 0 {
			p.list = &listWriter{z: l.z, seq: l.m.Seq, kind: kinds[k]}
		}
		if l.due != nil && isSigs(kind) {
			p.due = l.due.writer(kind)
		}
	}
	return p, nil
}

// take takes one chunk and holds its count of items against the manifest.
func (l *loader) take(m event.Manifest, p *part, c numbered) error {
	var items uint64
	var err error
	if p == nil {
		items, err = l.digests(c.raw)
	} else {
		items, err = p.chunk(c.raw)
	}
	if err != nil {
		return chunkError(c.n+1, m, err)
	}
	if c.n < uint64(len(m.Chunks)) && items != m.Chunks[c.n].Items {
		return fmt.Errorf("%w: chunk %d of %d: %d items, the manifest says %d", ErrBroken, c.n+1, m.Count, items, m.Chunks[c.n].Items)
	}
	return nil
}

func chunkError(n uint64, m event.Manifest, err error) error {
	return fmt.Errorf("chunk %d of %d: %w", n, m.Count, err)
}

var (
	errOrder  = fmt.Errorf("%w: keys out of order", ErrBroken)
	errKind   = fmt.Errorf("%w: kind of items that this instance cannot have", ErrBroken)
	errDelete = fmt.Errorf("%w: deletion in a whole instance", ErrBroken)
	errDigest = fmt.Errorf("%w: digest state does not belong to the event's digest", ErrBroken)
)

// chunk takes one chunk and counts its items.
func (p *part) chunk(raw []byte) (items uint64, err error) {
	for p.read.Reset(raw); p.read.Next(); items++ {
		key := p.read.Key()
		if items == 0 && bytes.Compare(key, p.last) <= 0 {
			return items, errOrder
		}
		if err := p.item(key, p.read.Value()); err != nil {
			return items, err
		}
	}
	p.last = append(p.last[:0], p.read.Key()...)
	if err := p.read.Err(); err != nil {
		return items, fmt.Errorf("%w: %w", ErrBroken, err)
	}
	return items, nil
}

func (p *part) item(key, value []byte) error {
	m := p.l.m
	if m.Base != 0 {
		m.Changed[p.kind]++
		if err := p.list.add(p.l.e, key); err != nil {
			return err
		}
	} else if len(value) == 0 {
		return errDelete
	} else {
		p.bytes += wireBytes(key, value)
	}
	if p.due != nil && len(value) > 0 {
		if err := p.due.add(p.l.e, key, value); err != nil {
			return err
		}
	}
	p.key = appendVersion(append(p.key[:dataPrefix], key...), m.Seq)
	return p.l.e.set(laneData+lane(p.kind), p.key, value)
}

// digests takes the chunk with the digest's state and counts its items.
func (l *loader) digests(raw []byte) (items uint64, err error) {
	for l.first.Reset(raw); l.first.Next(); items++ {
		if err := l.digest(l.first.Value()); err != nil {
			return items, err
		}
	}
	if err := l.first.Err(); err != nil {
		return items, fmt.Errorf("%w: %w", ErrBroken, err)
	}
	return items, nil
}

// digest keeps the state of the instance's set hash once it fits the event.
func (l *loader) digest(state []byte) error {
	var h zone.SetHash
	if err := h.LoadState(state); err != nil {
		return err
	}
	want := l.m.ContentDigest
	if l.m.Signed {
		want = l.m.SignedDigest
	}
	if h.Sum() != want {
		return errDigest
	}
	if l.state {
		return errOrder
	}
	l.state = true
	return l.e.set(laneMeta, metaSeqKey(l.z, tagDigest, l.m.Seq), state)
}
