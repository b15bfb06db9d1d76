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
	lists [len(kinds)]*listWriter
	last  [len(kinds)][]byte // last key of each kind
	key   []byte
	state bool // the digest's state was met
	read  zone.ChunkReader
}

// load takes all chunks. In a large load the next is fetched while one is
// taken in.
func (l *loader) load(ctx context.Context, m event.Manifest, chunks ChunkSource) error {
	n := uint64(0)
	take := func(raw []byte) error {
		n++
		items, err := l.chunk(raw)
		if err != nil {
			return fmt.Errorf("chunk %d of %d: %w", n, m.Count, err)
		}
		if n <= uint64(len(m.Chunks)) && items != m.Chunks[n-1].Items {
			return fmt.Errorf("%w: chunk %d of %d: %d items, the manifest says %d", ErrBroken, n, m.Count, items, m.Chunks[n-1].Items)
		}
		return nil
	}
	run := ahead
	if _, small := l.e.(*batchEdit); small {
		run = inTurn
	}
	if err := run(ctx, m, chunks, take); err != nil {
		return err
	}
	if n != m.Count {
		return fmt.Errorf("%w: %d chunks, the manifest says %d", ErrBroken, n, m.Count)
	}
	if !l.state {
		return fmt.Errorf("%w: no digest state in the chunks", ErrBroken)
	}
	for _, w := range l.lists {
		if w == nil {
			continue
		}
		if err := w.flush(l.e); err != nil {
			return err
		}
	}
	return nil
}

// inTurn fetches and takes on one goroutine.
func inTurn(ctx context.Context, m event.Manifest, chunks ChunkSource, take func(raw []byte) error) error {
	return chunks(ctx, m, take)
}

// ahead runs take on one goroutine and chunks on another.
func ahead(ctx context.Context, m event.Manifest, chunks ChunkSource, take func(raw []byte) error) error {
	g, ctx := errgroup.WithContext(ctx)
	raws := make(chan []byte, 2)
	g.Go(func() error {
		defer close(raws)
		return chunks(ctx, m, func(raw []byte) error {
			select {
			case raws <- raw:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	g.Go(func() error {
		for raw := range raws {
			if err := take(raw); err != nil {
				return err
			}
		}
		return nil
	})
	return g.Wait()
}

var (
	errOrder  = fmt.Errorf("%w: keys out of order", ErrBroken)
	errKind   = fmt.Errorf("%w: kind of items that this instance cannot have", ErrBroken)
	errDelete = fmt.Errorf("%w: deletion in a whole instance", ErrBroken)
	errDigest = fmt.Errorf("%w: digest state does not belong to the event's digest", ErrBroken)
)

// chunk takes one chunk and counts its items.
func (l *loader) chunk(raw []byte) (items uint64, err error) {
	l.read.Reset(raw)
	k := -1
	for l.read.Next() {
		items++
		key, value := l.read.Key(), l.read.Value()
		if items == 1 {
			if zone.Kind(key[0]) == zone.KindDigest {
				k = -1
			} else if k, err = l.begin(key); err != nil {
				return items, err
			}
		}
		if k < 0 {
			if err := l.digest(value); err != nil {
				return items, err
			}
			continue
		}
		if err := l.item(k, key, value); err != nil {
			return items, err
		}
	}
	if k >= 0 {
		l.last[k] = append(l.last[k][:0], l.read.Key()...)
	}
	if err := l.read.Err(); err != nil {
		return items, fmt.Errorf("%w: %w", ErrBroken, err)
	}
	return items, nil
}

// begin checks the first key of a chunk and prepares for its kind.
func (l *loader) begin(key []byte) (k int, err error) {
	k = kindIndex(zone.Kind(key[0]))
	if k < 0 || !l.m.has(kinds[k]) {
		return k, errKind
	}
	if bytes.Compare(key, l.last[k]) <= 0 {
		return k, errOrder
	}
	if l.m.Base != 0 && l.lists[k] == nil {
		l.lists[k] = &listWriter{z: l.z, seq: l.m.Seq, kind: kinds[k]}
	}
	if l.key == nil {
		l.key = generationKey(l.z, l.m.Generation)
	}
	return k, nil
}

func (l *loader) item(k int, key, value []byte) error {
	if l.m.Base != 0 {
		l.m.Changed[k]++
		if err := l.lists[k].add(l.e, key); err != nil {
			return err
		}
	} else if len(value) == 0 {
		return errDelete
	} else {
		l.m.Bytes += wireBytes(key, value)
	}
	l.key = appendVersion(append(l.key[:dataPrefix], key...), l.m.Seq)
	return l.e.set(laneData+lane(k), l.key, value)
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
