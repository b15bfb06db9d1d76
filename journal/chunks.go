package journal

import (
	"context"
	"fmt"

	"sluice/journal/event"
)

// readAhead is how many chunks Chunks holds at most: 6 MiB.
const readAhead = 8

// Chunks calls fn for the raw bytes of each chunk of a manifest, in order. It
// resolves an indirect list and reads a few chunks ahead. The slice belongs to
// fn. A chunk that is missing, damaged, or not as many as the manifest counts
// is ErrNoChunk.
func Chunks(ctx context.Context, j Journal, m event.Manifest, fn func(raw []byte) error) error {
	var read uint64
	each := func(_ event.Chunk, raw []byte) error {
		read++
		return fn(raw)
	}
	if len(m.Indirect) == 0 {
		if err := ahead(ctx, j, m.Subject, m.Chunks, each); err != nil {
			return err
		}
	} else {
		err := ahead(ctx, j, m.Subject, m.Indirect, func(_ event.Chunk, raw []byte) error {
			part, err := event.DecodeChunkList(raw)
			if err != nil {
				return err
			}
			return ahead(ctx, j, m.Subject, part, each)
		})
		if err != nil {
			return err
		}
	}
	if read != m.Count {
		return fmt.Errorf("manifest of %s counts %d chunks and lists %d: %w", m.Subject, m.Count, read, ErrNoChunk)
	}
	return nil
}

type chunkResult struct {
	raw []byte
	err error
}

// ahead reads chunks by several goroutines and hands them on in order. It
// waits for its goroutines.
func ahead(ctx context.Context, j Journal, subject string, chunks []event.Chunk, fn func(event.Chunk, []byte) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		pending [readAhead]chan chunkResult
		started int
	)
	start := func() {
		c, to := chunks[started], make(chan chunkResult, 1)
		pending[started%readAhead] = to
		started++
		go func() {
			raw, err := j.Chunk(ctx, subject, c)
			to <- chunkResult{raw, err}
		}()
	}
	done := 0
	defer func() {
		cancel()
		for ; done < started; done++ {
			<-pending[done%readAhead]
		}
	}()
	for done < len(chunks) {
		for started < len(chunks) && started < done+readAhead {
			start()
		}
		r := <-pending[done%readAhead]
		c := chunks[done]
		done++
		if r.err != nil {
			return r.err
		}
		if err := fn(c, r.raw); err != nil {
			return err
		}
	}
	return nil
}
