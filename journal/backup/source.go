package backup

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"sluice/journal"
	"sluice/journal/event"
)

// Source is where the events of a backup come from, with their chunks.
type Source interface {
	// Events calls fn for the stored messages with sequences from first to
	// last, in order: a public line, and a sealed one where there is one.
	Events(ctx context.Context, first, last uint64, fn func(seq uint64, line []byte) error) error
	// Chunk returns the raw bytes of a chunk that the event of the present fn
	// names. It is called for each of them once, those of an indirect list
	// behind the chunk that lists them. journal.ErrNoChunk: it is not there.
	Chunk(ctx context.Context, subject string, c event.Chunk) ([]byte, error)
}

// OfJournal reads from a journal itself.
func OfJournal(j journal.Journal) Source { return live{j} }

type live struct{ j journal.Journal }

// errEnd ends a reading where it was to end.
var errEnd = errors.New("end")

// Events implements Source.
func (s live) Events(ctx context.Context, first, last uint64, fn func(uint64, []byte) error) error {
	raw, ok := s.j.(journal.RawReader)
	if !ok {
		return errors.New("back up journal: it cannot show raw lines")
	}
	err := raw.ReadRaw(ctx, first, func(seq uint64, _ string, line []byte) error {
		if seq > last {
			return errEnd
		}
		return fn(seq, line)
	})
	if errors.Is(err, errEnd) {
		return nil
	}
	return err
}

// Chunk implements Source.
func (s live) Chunk(ctx context.Context, subject string, c event.Chunk) ([]byte, error) {
	return s.j.Chunk(ctx, subject, c)
}

// Complete fills in what a journal holds now: identity, number of events, hash
// of the last, and, where there is none, an origin that follows from the
// identity.
func Complete(ctx context.Context, j journal.Journal, head Head) (Head, error) {
	var err error
	if head.Identity, head.Size, err = j.Stream(ctx); err != nil || head.Size == 0 {
		return head, err
	}
	if head.Origin == "" {
		head.Origin = Origin(head.Identity)
	}
	err = OfJournal(j).Events(ctx, head.Size, head.Size, func(_ uint64, line []byte) error {
		head.Hash = event.RecordHash(event.PublicLine(line))
		return nil
	})
	if err == nil && head.Hash.IsZero() {
		err = fmt.Errorf("event %d, the last one, cannot be read: %w", head.Size, ErrDamaged)
	}
	return head, err
}

// Origin is what the audit log of a journal is named where nothing else is
// wanted.
func Origin(identity string) string { return "sluice/" + identity }

// The kinds of messages between a daemon and who copies its journal.
const (
	kindHead    = 'h' // JSON of Head; the first message
	kindEvent   = 'e' // a stored message
	kindChunk   = 'c' // raw bytes of the next chunk
	kindMissing = 'm' // the next chunk is not there
	kindEnd     = 'z' // nothing is missing; the last message
)

// maxMessage bounds a message in bytes.
const maxMessage = journal.MaxRawChunk + 64<<10

// Send writes what head says of a source, from an event on, as Receive reads
// it.
func Send(ctx context.Context, w io.Writer, head Head, s Source, first uint64) error {
	out := bufio.NewWriterSize(w, 64<<10)
	send := func(kind byte, data []byte) error {
		var top [5]byte
		top[0] = kind
		binary.BigEndian.PutUint32(top[1:], uint32(len(data))) //nolint:gosec // lines and chunks are bounded
		if _, err := out.Write(top[:]); err != nil {
			return err
		}
		_, err := out.Write(data)
		return err
	}
	raw, err := json.Marshal(head)
	if err == nil {
		err = send(kindHead, raw)
	}
	if err == nil {
		err = out.Flush() // the reader begins to work
	}
	if err != nil {
		return err
	}
	var c chain
	err = s.Events(ctx, first, head.Size, func(seq uint64, line []byte) error {
		if err := send(kindEvent, line); err != nil {
			return err
		}
		e, _, err := event.DecodeMessage(line)
		if err != nil {
			return fmt.Errorf("event %d: %w; see: sluice journal verify", seq, err)
		}
		return c.eachChunk(e.Facts, func(subject string, chunk event.Chunk) ([]byte, error) {
			raw, err := s.Chunk(ctx, subject, chunk)
			if errors.Is(err, journal.ErrNoChunk) {
				return nil, send(kindMissing, nil)
			}
			if err != nil {
				return nil, err
			}
			return raw, send(kindChunk, raw)
		})
	})
	if err == nil {
		err = send(kindEnd, nil)
	}
	if err != nil {
		return err
	}
	return out.Flush()
}

// Receive reads what Send writes: what the journal holds, and the source of it
// from the first event on that was asked for.
func Receive(r io.Reader) (Head, Source, error) {
	s := &received{r: bufio.NewReaderSize(r, 64<<10)}
	var head Head
	kind, data, err := s.next()
	if err == nil && kind != kindHead {
		err = fmt.Errorf("message of kind %q where the head is expected", kind)
	}
	if err == nil {
		err = json.Unmarshal(data, &head)
	}
	if err != nil {
		return head, nil, fmt.Errorf("receive backup: %w", err)
	}
	return head, s, nil
}

type received struct{ r *bufio.Reader }

// next reads one message.
func (s *received) next() (kind byte, data []byte, err error) {
	var top [5]byte
	if _, err := io.ReadFull(s.r, top[:]); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(top[1:])
	if n > maxMessage {
		return 0, nil, fmt.Errorf("message of %d bytes", n)
	}
	data = make([]byte, n)
	_, err = io.ReadFull(s.r, data)
	return top[0], data, err
}

// Events implements Source; first has to be what was asked for.
func (s *received) Events(ctx context.Context, first, last uint64, fn func(uint64, []byte) error) error {
	for seq := first; ; seq++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		kind, data, err := s.next()
		switch {
		case err != nil:
			return fmt.Errorf("receive event %d: %w", seq, err)
		case kind == kindEnd && seq == last+1:
			return nil
		case kind != kindEvent || seq > last:
			return fmt.Errorf("receive event %d: message of kind %q", seq, kind)
		}
		if err := fn(seq, data); err != nil {
			return err
		}
	}
}

// Chunk implements Source.
func (s *received) Chunk(_ context.Context, subject string, c event.Chunk) ([]byte, error) {
	kind, data, err := s.next()
	switch {
	case err != nil:
		return nil, fmt.Errorf("receive chunk of %s: %w", subject, err)
	case kind == kindMissing:
		return nil, fmt.Errorf("chunk %s of %s: %w", c.SHA256, subject, journal.ErrNoChunk)
	case kind != kindChunk:
		return nil, fmt.Errorf("receive chunk of %s: message of kind %q", subject, kind)
	case sha256.Sum256(data) != c.SHA256 || uint64(len(data)) != c.Bytes:
		return nil, fmt.Errorf("receive chunk of %s: it is not %s: %w", subject, c.SHA256, ErrDamaged)
	}
	return data, nil
}
