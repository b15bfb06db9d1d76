package pipeline

import (
	"context"
	"fmt"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/signer/zone"
)

// chunkSink packs items into chunks and sends them to BULK. It implements
// signer.Sink: kinds may alternate, within a kind keys ascend.
type chunkSink struct {
	ctx      context.Context //nolint:containedctx // one sink serves one call; signer.Sink has no context
	out      journal.ChunkWriter
	builders map[zone.Kind]*zone.ChunkBuilder
}

func newChunkSink(ctx context.Context, out journal.ChunkWriter) *chunkSink {
	return &chunkSink{ctx: ctx, out: out, builders: map[zone.Kind]*zone.ChunkBuilder{}}
}

// Put adds one item.
func (s *chunkSink) Put(key, value []byte) error {
	kind := zone.Kind(key[0])
	b := s.builders[kind]
	if b == nil {
		b = new(zone.ChunkBuilder)
		s.builders[kind] = b
	}
	full, err := b.Add(key, value)
	if err != nil {
		return err
	}
	if !full {
		return nil
	}
	if err := s.flush(b); err != nil {
		return err
	}
	_, err = b.Add(key, value)
	return err
}

func (s *chunkSink) flush(b *zone.ChunkBuilder) error {
	if b.Items() == 0 {
		return nil
	}
	err := s.out.Put(s.ctx, journal.RawChunk{Raw: b.Bytes(), Items: b.Items()})
	b.Reset()
	return err
}

// finish sends what is left, the digest's state last, and returns the
// manifest once everything is on disk.
func (s *chunkSink) finish() (event.Manifest, error) {
	for _, kind := range []zone.Kind{
		zone.KindContents, zone.KindMade, zone.KindSigs, zone.KindChain, zone.KindChainSigs, zone.KindDigest,
	} {
		if b := s.builders[kind]; b != nil {
			if err := s.flush(b); err != nil {
				return event.Manifest{}, err
			}
		}
	}
	m, err := s.out.Finish(s.ctx)
	if err != nil {
		return m, fmt.Errorf("store chunks: %w", err)
	}
	return m, nil
}

// putState adds the state of the instance's set hash.
func (s *chunkSink) putState(h *zone.SetHash) error {
	return s.Put([]byte{byte(zone.KindDigest)}, h.AppendState(nil))
}
