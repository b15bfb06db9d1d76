package journal

import (
	"bytes"
	"context"
	"sync"

	"sluice/journal/event"
)

const (
	// freshChunk is the longest chunk, in bytes, that is kept when it is written.
	freshChunk = 32 << 10
	// freshBytes and freshChunks bound what is kept in all.
	freshBytes  = 8 << 20
	freshChunks = 8192
)

// fresh keeps small chunks from when they are written until the fold, which comes
// to most of them at once, has read them: it needs not ask the store for each.
type fresh struct {
	mu    sync.Mutex
	by    map[freshKey][]byte // guarded by mu
	order []freshKey          // guarded by mu; oldest first, also those taken since
	bytes int                 // guarded by mu; of what by holds
}

type freshKey struct {
	subject string
	sha256  event.Hash
}

// freshCopy is what keep takes of a chunk; nil where that is too long.
func freshCopy(raw []byte) []byte {
	if len(raw) > freshChunk {
		return nil
	}
	return bytes.Clone(raw)
}

// keep keeps a chunk that the store has acknowledged, where there is a copy.
func (f *fresh) keep(subject string, hash event.Hash, raw []byte) {
	if raw == nil {
		return
	}
	key := freshKey{subject, hash}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.by == nil {
		f.by = map[freshKey][]byte{}
	}
	if _, ok := f.by[key]; ok {
		return
	}
	f.by[key] = raw
	f.order = append(f.order, key)
	for f.bytes += len(raw); f.bytes > freshBytes || len(f.order) > freshChunks; f.order = f.order[1:] {
		f.dropLocked(f.order[0])
	}
}

// take hands a chunk out, once.
func (f *fresh) take(subject string, c event.Chunk) ([]byte, bool) {
	key := freshKey{subject, c.SHA256}
	f.mu.Lock()
	defer f.mu.Unlock()
	raw, ok := f.by[key]
	f.dropLocked(key)
	return raw, ok && uint64(len(raw)) == c.Bytes
}

// dropLocked forgets a chunk. The caller holds mu.
func (f *fresh) dropLocked(key freshKey) {
	f.bytes -= len(f.by[key])
	delete(f.by, key)
}

// Fresh is j for a reader that comes to each chunk soon after it was written, and
// once: what this process has written itself is not read from the store. Who is to
// say what the store holds reads from j.
func Fresh(j Journal) Journal {
	if n, ok := j.(*NATS); ok {
		return freshReader{Journal: j, fresh: &n.fresh}
	}
	return j
}

type freshReader struct {
	Journal
	fresh *fresh
}

// Chunk implements Journal.
func (r freshReader) Chunk(ctx context.Context, subject string, c event.Chunk) ([]byte, error) {
	if raw, ok := r.fresh.take(subject, c); ok {
		return raw, nil
	}
	return r.Journal.Chunk(ctx, subject, c)
}
