package cli

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"runtime"

	"golang.org/x/sync/errgroup"

	"sluice/signer/zone"
)

// batchSize is how many bytes of items are made into text at a time.
const batchSize = 256 << 10

// batch is items on their way to text.
type batch struct {
	items []byte // length of key (2 bytes), length of value (4 bytes), key, value
	text  bytes.Buffer
	done  chan error // takes one value when text is complete
}

// writeZone writes items as a zone file. Text is made on all cores and
// written in order.
func writeZone(ctx context.Context, items zone.Iterator, w io.Writer) error {
	workers := runtime.GOMAXPROCS(0)
	free := make(chan *batch, 2*workers+1)
	for range cap(free) {
		free <- &batch{done: make(chan error, 1)}
	}
	todo := make(chan *batch, cap(free))
	order := make(chan *batch, cap(free))
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(todo)
		defer close(order)
		return cutBatches(ctx, items, free, todo, order)
	})
	for range workers {
		g.Go(func() error {
			for b := range todo {
				b.done <- b.format()
			}
			return nil
		})
	}
	g.Go(func() error {
		for b := range order {
			if err := <-b.done; err != nil {
				return err
			}
			if _, err := w.Write(b.text.Bytes()); err != nil {
				return err
			}
			free <- b
		}
		return nil
	})
	return g.Wait()
}

// cutBatches copies items into batches and sends each to be formatted and to
// be written.
func cutBatches(ctx context.Context, items zone.Iterator, free, todo, order chan *batch) error {
	var b *batch
	send := func() {
		todo <- b
		order <- b
		b = nil
	}
	for items.Next() {
		if b == nil {
			select {
			case b = <-free:
				b.items = b.items[:0]
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		key, value := items.Key(), items.Value()
		b.items = binary.BigEndian.AppendUint16(b.items, uint16(len(key)))
		b.items = binary.BigEndian.AppendUint32(b.items, uint32(len(value)))
		b.items = append(append(b.items, key...), value...)
		if len(b.items) >= batchSize {
			send()
		}
	}
	if err := items.Err(); err != nil {
		return err
	}
	if b != nil {
		send()
	}
	return nil
}

// format makes the text of a batch.
func (b *batch) format() error {
	b.text.Reset()
	out := zone.NewWriter(&b.text)
	for rest := b.items; len(rest) > 0; {
		klen, vlen := int(binary.BigEndian.Uint16(rest)), int(binary.BigEndian.Uint32(rest[2:]))
		rest = rest[6:]
		if err := out.WriteItem(rest[:klen], rest[klen:klen+vlen]); err != nil {
			return err
		}
		rest = rest[klen+vlen:]
	}
	return out.Flush()
}
