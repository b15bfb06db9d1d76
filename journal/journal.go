package journal

import (
	"context"
	"errors"

	"sluice/journal/event"
)

// ErrConflict reports that the zone has events which the decision did not
// see: fold again, decide again.
var ErrConflict = errors.New("the zone has newer events")

// ErrNoChunk reports a chunk that BULK no longer holds, or whose bytes are
// not those that its manifest names.
var ErrNoChunk = errors.New("chunk missing or damaged")

// ErrPurged reports chunks that retention has removed. It is a kind of
// ErrNoChunk.
var ErrPurged error = purgedError{}

// ErrStorage reports that the store does not answer, or cannot write. What was
// being written may or may not be stored; the same call again finds out.
// Reopen recovers the embedded server once the cause is gone.
var ErrStorage = errors.New("journal store does not answer; disk full?")

// ErrNoSpace reports that a stream has reached its limit or the disk is full.
// Nothing was written.
var ErrNoSpace = errors.New("no space left for the journal")

// ErrLocked reports a store that another process has open.
var ErrLocked = errors.New("journal is in use by another process")

// ErrClosed reports a call after Close.
var ErrClosed = errors.New("journal is closed")

// Head is where a zone's chain of events ends. The zero Head is that of a
// zone without events.
type Head struct {
	Seq  uint64     `json:"seq"`  // sequence of the zone's last event
	N    uint64     `json:"n"`    // its running number
	Hash event.Hash `json:"hash"` // its record hash
}

// Record is one stored event.
type Record struct {
	Seq     uint64      // sequence in EVENTS, from 1
	Hash    event.Hash  // tlog.RecordHash of Line
	Line    []byte      // the public line as stored
	Event   event.Event // Line decoded; Facts is nil for a type this program does not know
	Subject string
	// Sealed are the values of the sealed line, by the fields of Event.Sealed;
	// those that are not there were dropped. They are to be shown, by event.Open,
	// and never folded: a journal without them gives the same states.
	Sealed map[string]event.SealedValue
}

// Head is the zone's head once the record is folded.
func (r Record) Head() Head { return Head{Seq: r.Seq, N: r.Event.N, Hash: r.Hash} }

// Position is how far a projection has read: which stream, up to where, and
// what stood there.
type Position struct {
	Stream string     `json:"stream"` // identity of the EVENTS stream
	Seq    uint64     `json:"seq"`
	Hash   event.Hash `json:"hash"`
}

// RawChunk is one chunk on its way into BULK.
type RawChunk struct {
	Raw   []byte // uncompressed, at most MaxRawChunk
	Items uint64
}

// MaxRawChunk is the longest raw chunk in bytes.
const MaxRawChunk = 768 << 10

// Journal is the append-only truth. Its implementations, the embedded or
// external NATS one and journaltest's in memory, pass journaltest.Conform.
type Journal interface {
	// Append stores events of one zone behind head, all or none, and returns
	// the zone's new head. It fills in Version, N and Prev. ErrConflict means
	// that head is stale; events that already stand behind head with the same
	// bytes (a lost acknowledgement) are success. The events are on disk when
	// it returns.
	Append(ctx context.Context, zone event.ZoneID, head Head, events ...event.Event) (Head, error)

	// Read calls fn for the events of zone ("" for all zones) with sequences
	// from first to last, both included, in order; last 0 is the end as it
	// stands now. An error of fn ends it and is returned.
	Read(ctx context.Context, zone event.ZoneID, first, last uint64, fn func(Record) error) error

	// ReadNext calls fn for the first n events of zone ("" for all zones) from a
	// sequence on, in order, and reads no others; where there are fewer, for
	// those. An error of fn ends it and is returned.
	ReadNext(ctx context.Context, zone event.ZoneID, first uint64, n int, fn func(Record) error) error

	// Follow calls fn for every event of zone ("" for all) from first on, and
	// goes on with new ones as they come until ctx ends (then it returns
	// ctx.Err()) or fn fails. caughtUp, where not nil, is called once, when
	// all that stood there at the start was delivered.
	Follow(ctx context.Context, zone event.ZoneID, first uint64, caughtUp func(), fn func(Record) error) error

	// Head reads a zone's head from its last event.
	Head(ctx context.Context, zone event.ZoneID) (Head, error)

	// Check reports whether the stream still holds what a position says.
	Check(ctx context.Context, p Position) (bool, error)

	// Stream is the identity of the EVENTS stream, and last its last
	// sequence.
	Stream(ctx context.Context) (identity string, last uint64, err error)

	// NewChunks starts a command's chunks in BULK.
	NewChunks(zone event.ZoneID, command string) ChunkWriter

	// Chunk returns the raw bytes of a chunk, checked against its hash. The
	// slice belongs to the caller.
	Chunk(ctx context.Context, subject string, c event.Chunk) ([]byte, error)

	// Status describes both streams.
	Status(ctx context.Context) (Status, error)

	// Close ends it; further calls fail.
	Close() error
}

// RawReader is a Journal that also shows messages as they are stored, damaged
// ones too. Both implementations are; Verify needs it.
type RawReader interface {
	// ReadRaw calls fn for the stored messages with sequences from first on:
	// the public line, and a sealed one where there is one, as
	// event.DecodeMessage reads them.
	ReadRaw(ctx context.Context, first uint64, fn func(seq uint64, subject string, message []byte) error) error
}

// ChunkWriter sends the chunks of one command, a bounded number of bytes in
// flight. Nothing refers to them until the event with the manifest is
// appended.
type ChunkWriter interface {
	// Put compresses and sends a chunk. It keeps no reference to Raw. The
	// sending goes on after it returns; ctx must live until Finish returns.
	// An error may be that of an earlier chunk.
	Put(ctx context.Context, c RawChunk) error
	// Finish waits until every chunk is on disk and returns the manifest. It
	// sends an indirect list where there are more than 1,000.
	Finish(ctx context.Context) (event.Manifest, error)
}

// Status is what both streams hold.
type Status struct {
	Identity string       `json:"identity"`
	Events   StreamStatus `json:"events"`
	Bulk     StreamStatus `json:"bulk"`
}

// StreamStatus is what one stream holds.
type StreamStatus struct {
	Messages uint64 `json:"messages"`
	Bytes    uint64 `json:"bytes"`
	MaxBytes int64  `json:"max_bytes"` // -1: no limit
	FirstSeq uint64 `json:"first_seq"`
	LastSeq  uint64 `json:"last_seq"`
}
