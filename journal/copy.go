package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"sluice/journal/audit"
	"sluice/journal/event"
)

const (
	hdrExpectedLast = "Nats-Expected-Last-Sequence"

	// copyPage bounds the bytes of one reading and of one batch, copyBatch the
	// messages of a batch.
	copyPage  = 4 << 20
	copyBatch = 256
	// copyWindow and copyInFlight bound what is sent and not answered.
	copyWindow   = 256
	copyInFlight = 16 << 20
	// copyTries is how often a copy goes on after answers were lost, where
	// nothing came to stand in between.
	copyTries = 20
	copyWait  = 250 * time.Millisecond

	// copyKey stands in the metadata of a stream that is being copied.
	copyKey = "sluice-copy"
	copying = "unfinished"
	// formerKey stands there where a journal goes on from other logs: their
	// origins.
	formerKey = "sluice-former"

	// gapSubject is where messages stand for a while that hold the places of
	// removed ones, so that what follows keeps its sequence.
	gapSubject = "bulk._.gap"
)

// CopyProgress is how far a copy is.
type CopyProgress struct {
	Stream     string // EVENTS or BULK
	Done, Last uint64 // sequences
}

// copier appends to a stream what another one holds. Each message keeps its
// sequence, subject and bytes.
type copier struct {
	from, to end
	stream   string
	tell     func(CopyProgress)
	// check, where not nil, sees each message before it is written.
	check  func(context.Context, storedLine) error
	filled uint64 // places of removed messages that were held
}

// run copies what stands behind the end of the copy, up to a sequence.
func (c *copier) run(ctx context.Context, last uint64) error {
	at, tries := uint64(0), 0
	for {
		info, err := c.to.info(ctx, c.stream)
		if err == nil && info.State.LastSeq >= last {
			return nil
		}
		if err == nil {
			if info.State.LastSeq > at {
				at, tries = info.State.LastSeq, 0
			}
			err = c.copyOn(ctx, info.State.LastSeq+1, last)
		}
		if err == nil {
			continue
		}
		// An answer that was lost: the stream itself says how far it came.
		if tries++; tries > copyTries || !errors.Is(err, ErrUnreachable) && !errors.Is(err, errMoved) && !errors.Is(err, errBusy) {
			return fmt.Errorf("copy stream %s: %w", c.stream, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(copyWait):
		}
	}
}

// copyOn copies from a sequence to another without a pause.
func (c *copier) copyOn(ctx context.Context, next, last uint64) error {
	w, err := newWriter(c.to, c.stream, next)
	if err != nil {
		return err
	}
	defer w.close()
	err = c.from.each(ctx, c.stream, next, last, func(l storedLine) error {
		if err := c.fill(ctx, w, next, l.seq); err != nil {
			return err
		}
		if c.check != nil {
			if err := c.check(ctx, l); err != nil {
				return err
			}
		}
		next = l.seq + 1
		c.tell(CopyProgress{Stream: c.stream, Done: l.seq, Last: last})
		if c.stream == eventsStream {
			return w.batch(ctx, l)
		}
		return w.put(ctx, l.subject, l.data)
	})
	if err == nil {
		err = w.flush(ctx)
	}
	if err == nil {
		err = c.fill(ctx, w, next, last+1)
	}
	return errors.Join(err, w.done(ctx))
}

// fill takes the places of messages that were removed, from a sequence up to
// another one that is there.
func (c *copier) fill(ctx context.Context, w *writer, next, upTo uint64) error {
	if next < upTo && c.stream == eventsStream {
		return fmt.Errorf("events %d to %d are missing: restore a backup", next, upTo-1)
	}
	for ; next < upTo; next++ {
		if err := w.put(ctx, gapSubject, nil); err != nil {
			return err
		}
		c.filled++
	}
	return nil
}

// dropGaps removes the messages that held places.
func dropGaps(ctx context.Context, to end) error {
	if err := to.purge(ctx, bulkStream, jetstream.WithPurgeSubject(gapSubject)); err != nil {
		return fmt.Errorf("remove fillers of stream %s: %w", bulkStream, err)
	}
	return nil
}

// purge removes messages of a stream.
func (e end) purge(ctx context.Context, stream string, which jetstream.StreamPurgeOpt) error {
	return e.insist(ctx, func(ctx context.Context) error {
		st, err := e.js.Stream(ctx, stream)
		if err == nil {
			err = st.Purge(ctx, which)
		}
		return err
	})
}

// Same is what two copies of a journal were found to have in common.
type Same struct {
	Events uint64     `json:"events"`
	Chunks uint64     `json:"chunks"` // messages in BULK
	Hash   event.Hash `json:"hash"`   // record hash of the last event
	Root   event.Hash `json:"root"`   // of the Merkle tree over all events
}

// compare reads both streams at both ends and compares every message.
func compare(ctx context.Context, a, b end, tell func(CopyProgress)) (s Same, err error) {
	var tree audit.Tree
	s.Events, err = compareStream(ctx, a, b, eventsStream, tell, func(l storedLine) {
		s.Hash = event.RecordHash(event.PublicLine(l.data))
		tree.Append(s.Hash)
	})
	if err == nil {
		s.Chunks, err = compareStream(ctx, a, b, bulkStream, tell, func(storedLine) {})
	}
	s.Root = tree.Root()
	return s, err
}

func compareStream(ctx context.Context, a, b end, stream string, tell func(CopyProgress), fn func(storedLine)) (n uint64, err error) {
	ia, err := a.info(ctx, stream)
	if err != nil {
		return 0, err
	}
	ib, err := b.info(ctx, stream)
	if err != nil {
		return 0, err
	}
	last := ia.State.LastSeq
	if ib.State.LastSeq != last {
		return 0, fmt.Errorf("compare stream %s: one ends at %d, the other at %d", stream, last, ib.State.LastSeq)
	}
	other := reader{end: b, stream: stream, next: 1}
	err = a.each(ctx, stream, 1, last, func(l storedLine) error {
		m, err := other.read(ctx)
		switch {
		case errors.Is(err, errNotFound):
			return fmt.Errorf("compare stream %s: message %d was not copied", stream, l.seq)
		case err != nil:
			return err
		case m.seq != l.seq || m.subject != l.subject || !bytes.Equal(m.data, l.data):
			return fmt.Errorf("compare stream %s: message %d (%s) differs from message %d (%s) of the copy", stream, l.seq, l.subject, m.seq, m.subject)
		}
		n++
		fn(l)
		tell(CopyProgress{Stream: stream, Done: l.seq, Last: last})
		return nil
	})
	if err != nil {
		return n, err
	}
	if m, err := other.read(ctx); err == nil {
		return n, fmt.Errorf("compare stream %s: the copy has a message %d that is not in the other", stream, m.seq)
	} else if !errors.Is(err, errNotFound) {
		return n, err
	}
	return n, nil
}

// reader reads a stream message by message.
type reader struct {
	end    end
	stream string
	next   uint64
	lines  []storedLine
}

// read returns the next message; errNotFound at the end.
func (r *reader) read(ctx context.Context) (storedLine, error) {
	if len(r.lines) == 0 {
		var err error
		if r.lines, err = r.end.run(ctx, r.stream, r.next); err != nil {
			return storedLine{}, err
		}
		if len(r.lines) == 0 {
			return storedLine{}, errNotFound
		}
	}
	l := r.lines[0]
	r.lines, r.next = r.lines[1:], l.seq+1
	return l, nil
}
