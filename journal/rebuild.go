package journal

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"sync"

	"sluice/journal/event"
)

// batchBytes bounds the lines that are stored at once while a store is filled.
const batchBytes = 4 << 20

// Rebuild fills an empty store with what an earlier journal held: the same
// lines under the same sequences, and its chunks. The store has an identity of
// its own, so that no projection takes it for the earlier one.
type Rebuild struct {
	j     *NATS
	m     marker
	lines []Line
	bytes int
	last  uint64 // sequence of the last stored line

	inFlight chan struct{}
	sending  sync.WaitGroup
	mu       sync.Mutex
	err      error  // guarded by mu: the first failure of a chunk
	bulkLast uint64 // guarded by mu
	moved    []move // guarded by mu
}

// NewRebuild makes an empty store in cfg.Dir. former are the origins of the
// logs that the new one goes on from, and bulkLast is the highest sequence in
// BULK that an event of them names.
func NewRebuild(ctx context.Context, cfg Config, former []string, bulkLast uint64) (*Rebuild, error) {
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		return nil, fmt.Errorf("make journal identity: %w", err)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	if entries, err := os.ReadDir(cfg.Dir); err != nil || len(entries) > 0 {
		return nil, errors.Join(err, fmt.Errorf("fill journal: %s is not empty", cfg.Dir))
	}
	m := marker{
		Format: storeVersion, Mode: standalone, Identity: hex.EncodeToString(id),
		Restored: &restored{Former: former, BulkFirst: bulkLast + 1, BulkLast: bulkLast},
	}
	if err := writeMarker(cfg.Dir, m); err != nil {
		return nil, err
	}
	j, err := Open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	m.Complete = true
	return &Rebuild{j: j, m: m, bulkLast: bulkLast, inFlight: make(chan struct{}, window)}, nil
}

// Former are the origins of the logs that this one goes on from, the oldest
// first; none where it began in an empty store.
func (j *NATS) Former() []string {
	if j.restored == nil {
		return nil
	}
	return j.restored.Former
}

// Event stores the next line, which has to be that of the sequence behind the
// last one. It keeps the line.
func (r *Rebuild) Event(ctx context.Context, e *event.Event, line []byte) error {
	r.lines = append(r.lines, Line{Subject: event.Subject(e), Bytes: line})
	if r.bytes += len(line); r.bytes < batchBytes && len(r.lines) < MaxAppend {
		return nil
	}
	return r.flush(ctx)
}

// flush stores the lines that wait.
func (r *Rebuild) flush(ctx context.Context) error {
	if len(r.lines) == 0 {
		return nil
	}
	seq, err := r.j.publish(ctx, "", r.last, r.lines)
	if err != nil {
		return fmt.Errorf("fill journal: %w", err)
	}
	if want := r.last + uint64(len(r.lines)); seq != want {
		return fmt.Errorf("fill journal: event %d was stored as %d", want, seq)
	}
	r.last, r.lines, r.bytes = seq, nil, 0
	return nil
}

// Chunk stores a chunk under its subject, with c as its event names it. The
// sending goes on after it returns; ctx must live until Finish returns. It keeps
// raw.
func (r *Rebuild) Chunk(ctx context.Context, subject string, c event.Chunk, raw []byte) error {
	if err := r.failed(); err != nil {
		return err
	}
	select {
	case r.inFlight <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	r.sending.Go(func() {
		packed := r.j.enc.EncodeAll(raw, nil)
		seq, err := r.j.send(ctx, subject, packed)
		r.mu.Lock()
		if r.bulkLast = max(r.bulkLast, seq); err != nil && r.err == nil {
			r.err = fmt.Errorf("fill journal: chunk of %s: %w", subject, err)
		}
		r.moved = append(r.moved, move{c.Seq, seq})
		r.mu.Unlock()
		<-r.inFlight
	})
	return nil
}

func (r *Rebuild) failed() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// Finish waits until all of it is on disk, and returns the journal, to which
// events may be appended from here on.
func (r *Rebuild) Finish(ctx context.Context) (*NATS, error) {
	r.sending.Wait()
	err := errors.Join(r.failed(), r.flush(ctx))
	if err != nil {
		return nil, err
	}
	if err := writeMoves(r.j.cfg.Dir, r.moved); err != nil {
		return nil, err
	}
	r.m.Restored.BulkLast = r.bulkLast
	if err := writeMarker(r.j.cfg.Dir, r.m); err != nil {
		return nil, err
	}
	r.j.restored = r.m.Restored
	return r.j, nil
}

// Close closes the store, and with it the journal that Finish returned. Before
// Finish was successful, the store is worth nothing.
func (r *Rebuild) Close() error {
	r.sending.Wait()
	return r.j.Close()
}
