package journaltest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"sluice/journal"
	"sluice/journal/event"
)

// ErrInjected is what a write fails with that FailAt chose. It also matches
// journal.ErrStorage: the caller cannot know whether the write was stored.
var ErrInjected = fmt.Errorf("injected failure: %w", journal.ErrStorage)

// Memory is a journal in memory. Its methods may be called from several
// goroutines, and it blocks on channels only, so that it works under
// testing/synctest.
type Memory struct {
	store *store

	mu     sync.Mutex
	closed bool          // guarded by mu
	end    chan struct{} // closed by Close
}

// store is what outlives a Reopen.
type store struct {
	mu       sync.Mutex
	identity string
	lines    []line                  // guarded by mu; sequence is index+1
	heads    map[event.ZoneID]uint64 // guarded by mu; last sequence
	chunks   map[uint64]chunk        // guarded by mu
	lastBulk uint64                  // guarded by mu
	grown    chan struct{}           // guarded by mu; closed and replaced at each append
	writes   int                     // guarded by mu
	fail     struct {
		at      int
		persist bool
	} // guarded by mu; at is -1 for never
}

type line struct {
	subject string
	zone    event.ZoneID
	data    []byte
}

type chunk struct {
	subject string
	raw     []byte
}

// New returns an empty journal.
func New() *Memory {
	s := &store{
		identity: "memory", heads: make(map[event.ZoneID]uint64),
		chunks: make(map[uint64]chunk), grown: make(chan struct{}),
	}
	s.fail.at = -1
	return &Memory{store: s, end: make(chan struct{})}
}

// FailAt makes the n-th write from now on (0 is the next one) fail once with
// ErrInjected. Writes are Append, and each chunk of a ChunkWriter. With persisted
// the write is stored all the same, as if its acknowledgement were lost.
func (m *Memory) FailAt(n int, persisted bool) {
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	m.store.fail.at, m.store.fail.persist = m.store.writes+n, persisted
}

// Failed reports whether the failure that FailAt asked for has happened.
func (m *Memory) Failed() bool {
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	return m.store.fail.at >= 0 && m.store.writes > m.store.fail.at
}

// Writes is the number of writes so far, failed ones too.
func (m *Memory) Writes() int {
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	return m.store.writes
}

// Reopen closes the journal as a crash would and returns a new one on what
// was stored. A failure not yet met is forgotten.
func (m *Memory) Reopen() *Memory {
	_ = m.Close()
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	m.store.fail.at = -1
	return &Memory{store: m.store, end: make(chan struct{})}
}

// SetLine replaces a stored message, as damage or tampering would.
func (m *Memory) SetLine(seq uint64, data []byte) {
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	m.store.lines[seq-1].data = bytes.Clone(data)
}

// SetChunk replaces the raw bytes of a stored chunk; nil removes it.
func (m *Memory) SetChunk(seq uint64, raw []byte) {
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	if raw == nil {
		delete(m.store.chunks, seq)
		return
	}
	m.store.chunks[seq] = chunk{m.store.chunks[seq].subject, bytes.Clone(raw)}
}

// Truncate loses every event behind seq, as an older copy of the disk would.
func (m *Memory) Truncate(seq uint64) {
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	m.store.lines = m.store.lines[:seq]
	clear(m.store.heads)
	for i, l := range m.store.lines {
		m.store.heads[l.zone] = uint64(i) + 1
	}
}

// write counts a write, and says whether to store it and what to return.
// The caller holds mu.
func (s *store) write() (persist bool, err error) {
	n := s.writes
	s.writes++
	if n == s.fail.at {
		return s.fail.persist, ErrInjected
	}
	return true, nil
}

func (m *Memory) open(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return journal.ErrClosed
	}
	return nil
}

// Append implements journal.Journal.
func (m *Memory) Append(ctx context.Context, zone event.ZoneID, head journal.Head, events ...event.Event) (journal.Head, error) {
	if err := m.open(ctx); err != nil {
		return head, err
	}
	lines, err := journal.Lines(zone, head, events)
	if err != nil || len(lines) == 0 {
		return head, err
	}
	s := m.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.heads[zone] != head.Seq {
		if now, ok := s.stored(zone, head, lines); ok {
			return now, nil
		}
		return head, fmt.Errorf("append to zone %q: %w", zone, journal.ErrConflict)
	}
	persist, err := s.write()
	if persist {
		for _, l := range lines {
			s.lines = append(s.lines, line{l.Subject, zone, l.Bytes})
		}
		s.heads[zone] = uint64(len(s.lines))
		close(s.grown)
		s.grown = make(chan struct{})
	}
	if err != nil {
		return head, fmt.Errorf("append to zone %q: %w", zone, err)
	}
	last := lines[len(lines)-1]
	return journal.Head{Seq: uint64(len(s.lines)), N: head.N + uint64(len(lines)), Hash: last.Hash}, nil
}

// stored reports whether exactly these lines stand behind head. The caller
// holds mu.
func (s *store) stored(zone event.ZoneID, head journal.Head, lines []journal.Line) (journal.Head, bool) {
	i := 0
	for at := head.Seq; at < uint64(len(s.lines)) && i < len(lines); at++ {
		l := s.lines[at]
		if l.zone != zone {
			continue
		}
		if l.subject != lines[i].Subject || event.RecordHash(event.PublicLine(l.data)) != lines[i].Hash {
			return head, false
		}
		head = journal.Head{Seq: at + 1, N: head.N + 1, Hash: lines[i].Hash}
		i++
	}
	return head, i == len(lines)
}

// from returns the next line of zone at or after a sequence, and a channel
// that closes when there may be more.
func (m *Memory) from(zone event.ZoneID, seq uint64) (uint64, line, <-chan struct{}) {
	s := m.store
	s.mu.Lock()
	defer s.mu.Unlock()
	for at := max(seq, 1); at <= uint64(len(s.lines)); at++ {
		if l := s.lines[at-1]; zone == "" || l.zone == zone {
			return at, l, s.grown
		}
	}
	return 0, line{}, s.grown
}

func (l line) record(seq uint64) (journal.Record, error) {
	data := bytes.Clone(l.data)
	e, sealed, err := event.DecodeMessage(data)
	if err != nil {
		return journal.Record{}, fmt.Errorf("read journal: event %d: %w", seq, err)
	}
	public := event.PublicLine(data)
	return journal.Record{Seq: seq, Hash: event.RecordHash(public), Line: public, Event: e, Sealed: sealed, Subject: l.subject}, nil
}

// Read implements journal.Journal.
func (m *Memory) Read(ctx context.Context, zone event.ZoneID, first, last uint64, fn func(journal.Record) error) error {
	if last == 0 {
		var err error
		if _, last, err = m.Stream(ctx); err != nil {
			return err
		}
	}
	for next := first; ; next++ {
		if err := m.open(ctx); err != nil {
			return err
		}
		seq, l, _ := m.from(zone, next)
		if seq == 0 || seq > last {
			return nil
		}
		r, err := l.record(seq)
		if err != nil {
			return err
		}
		if err := fn(r); err != nil {
			return err
		}
		next = seq
	}
}

// ReadNext implements journal.Journal.
func (m *Memory) ReadNext(ctx context.Context, zone event.ZoneID, first uint64, n int, fn func(journal.Record) error) error {
	enough := errors.New("enough")
	if n <= 0 {
		return nil
	}
	err := m.Read(ctx, zone, first, 0, func(rec journal.Record) error {
		if err := fn(rec); err != nil {
			return err
		}
		if n--; n == 0 {
			return enough
		}
		return nil
	})
	if err == enough { //nolint:errorlint // this very value
		return nil
	}
	return err
}

// ReadRaw implements journal.RawReader.
func (m *Memory) ReadRaw(ctx context.Context, first uint64, fn func(seq uint64, subject string, message []byte) error) error {
	for next := first; ; next++ {
		if err := m.open(ctx); err != nil {
			return err
		}
		seq, l, _ := m.from("", next)
		if seq == 0 {
			return nil
		}
		if err := fn(seq, l.subject, bytes.Clone(l.data)); err != nil {
			return err
		}
		next = seq
	}
}

// Follow implements journal.Journal.
func (m *Memory) Follow(ctx context.Context, zone event.ZoneID, first uint64, caughtUp func(), fn func(journal.Record) error) error {
	_, end, err := m.Stream(ctx)
	if err != nil {
		return err
	}
	next := max(first, 1)
	for {
		if err := m.open(ctx); err != nil {
			return err
		}
		seq, l, grown := m.from(zone, next)
		if caughtUp != nil && (seq == 0 || seq > end) {
			caughtUp()
			caughtUp = nil
		}
		if seq == 0 {
			select {
			case <-ctx.Done():
			case <-m.end:
			case <-grown:
			}
			continue
		}
		r, err := l.record(seq)
		if err != nil {
			return err
		}
		if err := fn(r); err != nil {
			return err
		}
		next = seq + 1
	}
}

// Head implements journal.Journal.
func (m *Memory) Head(ctx context.Context, zone event.ZoneID) (journal.Head, error) {
	if err := m.open(ctx); err != nil {
		return journal.Head{}, err
	}
	if !zone.Valid() {
		return journal.Head{}, fmt.Errorf("read head of zone %q: bad zone id", zone)
	}
	s := m.store
	s.mu.Lock()
	defer s.mu.Unlock()
	seq := s.heads[zone]
	if seq == 0 {
		return journal.Head{}, nil
	}
	r, err := s.lines[seq-1].record(seq)
	return r.Head(), err
}

// Check implements journal.Journal.
func (m *Memory) Check(ctx context.Context, p journal.Position) (bool, error) {
	if err := m.open(ctx); err != nil {
		return false, err
	}
	s := m.store
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case p.Stream != s.identity || p.Seq > uint64(len(s.lines)):
		return false, nil
	case p.Seq == 0:
		return p.Hash.IsZero(), nil
	}
	return event.RecordHash(event.PublicLine(s.lines[p.Seq-1].data)) == p.Hash, nil
}

// Stream implements journal.Journal.
func (m *Memory) Stream(ctx context.Context) (identity string, last uint64, err error) {
	if err := m.open(ctx); err != nil {
		return "", 0, err
	}
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	return m.store.identity, uint64(len(m.store.lines)), nil
}

// Status implements journal.Journal.
func (m *Memory) Status(ctx context.Context) (journal.Status, error) {
	if err := m.open(ctx); err != nil {
		return journal.Status{}, err
	}
	s := m.store
	s.mu.Lock()
	defer s.mu.Unlock()
	st := journal.Status{Identity: s.identity}
	st.Events = journal.StreamStatus{Messages: uint64(len(s.lines)), MaxBytes: -1, LastSeq: uint64(len(s.lines))}
	if len(s.lines) > 0 {
		st.Events.FirstSeq = 1
	}
	for _, l := range s.lines {
		st.Events.Bytes += uint64(len(l.data))
	}
	st.Bulk = journal.StreamStatus{Messages: uint64(len(s.chunks)), MaxBytes: -1, LastSeq: s.lastBulk}
	for seq, c := range s.chunks {
		st.Bulk.Bytes += uint64(len(c.raw))
		if st.Bulk.FirstSeq == 0 || seq < st.Bulk.FirstSeq {
			st.Bulk.FirstSeq = seq
		}
	}
	return st, nil
}

// Close implements journal.Journal.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return journal.ErrClosed
	}
	m.closed = true
	close(m.end)
	return nil
}

// NewChunks implements journal.Journal.
func (m *Memory) NewChunks(zone event.ZoneID, command string) journal.ChunkWriter {
	w := &chunkWriter{m: m}
	w.subject, w.err = journal.ChunkSubject(zone, command)
	return w
}

type chunkWriter struct {
	m       *Memory
	subject string
	chunks  []event.Chunk
	err     error // the first failure; every later call returns it
}

// Put implements journal.ChunkWriter.
func (w *chunkWriter) Put(ctx context.Context, c journal.RawChunk) error {
	if len(c.Raw) > journal.MaxRawChunk {
		return fmt.Errorf("chunk of %d bytes: more than %d", len(c.Raw), journal.MaxRawChunk)
	}
	if w.err != nil {
		return w.err
	}
	if w.err = w.m.open(ctx); w.err != nil {
		return w.err
	}
	s := w.m.store
	s.mu.Lock()
	defer s.mu.Unlock()
	persist, err := s.write()
	if persist {
		s.lastBulk++
		s.chunks[s.lastBulk] = chunk{w.subject, bytes.Clone(c.Raw)}
	}
	if err != nil {
		w.err = fmt.Errorf("write chunk %d of %s: %w", len(w.chunks), w.subject, err)
		return w.err
	}
	w.chunks = append(w.chunks, event.Chunk{
		SHA256: sha256.Sum256(c.Raw), Seq: s.lastBulk, Items: c.Items, Bytes: uint64(len(c.Raw)),
	})
	return nil
}

// Finish implements journal.ChunkWriter.
func (w *chunkWriter) Finish(ctx context.Context) (event.Manifest, error) {
	if w.err == nil {
		w.err = w.m.open(ctx)
	}
	return journal.FinishManifest(w.subject, func() ([]event.Chunk, error) {
		chunks := w.chunks
		w.chunks = nil
		return chunks, w.err
	}, func(list []journal.RawChunk) error {
		for _, c := range list {
			if err := w.Put(ctx, c); err != nil {
				return err
			}
		}
		return nil
	})
}

// Chunk implements journal.Journal.
func (m *Memory) Chunk(ctx context.Context, subject string, c event.Chunk) ([]byte, error) {
	if err := m.open(ctx); err != nil {
		return nil, err
	}
	s := m.store
	s.mu.Lock()
	defer s.mu.Unlock()
	fits := func(at chunk) bool {
		return at.subject == subject && uint64(len(at.raw)) == c.Bytes && sha256.Sum256(at.raw) == c.SHA256
	}
	if at := s.chunks[c.Seq]; fits(at) {
		return bytes.Clone(at.raw), nil
	}
	for _, at := range s.chunks {
		if fits(at) {
			return bytes.Clone(at.raw), nil
		}
	}
	return nil, fmt.Errorf("chunk %s of %s: %w", c.SHA256, subject, journal.ErrNoChunk)
}

// PurgeChunks implements journal.Purger.
func (m *Memory) PurgeChunks(ctx context.Context, manifest event.Manifest, alone bool) (removed uint64, err error) {
	var list []event.Chunk
	err = journal.EachChunk(ctx, m, manifest, func(c event.Chunk) error {
		list = append(list, c)
		return nil
	})
	if err != nil && !errors.Is(err, journal.ErrNoChunk) {
		return 0, err
	}
	if err := m.open(ctx); err != nil {
		return 0, err
	}
	s := m.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if persist, err := s.write(); !persist {
		return 0, err
	}
	for _, c := range list {
		seqs := []uint64{c.Seq}
		if alone {
			seqs = append(seqs, slices.Sorted(maps.Keys(s.chunks))...)
		}
		for _, seq := range seqs {
			at, ok := s.chunks[seq]
			if ok && at.subject == manifest.Subject && sha256.Sum256(at.raw) == c.SHA256 {
				delete(s.chunks, seq)
				removed++
				break
			}
		}
	}
	return removed, nil
}

// StoredBytes implements journal.Purger.
func (m *Memory) StoredBytes(ctx context.Context, zone event.ZoneID) (map[string]uint64, error) {
	if err := m.open(ctx); err != nil {
		return nil, err
	}
	s := m.store
	s.mu.Lock()
	defer s.mu.Unlock()
	sizes := map[string]uint64{}
	for _, c := range s.chunks {
		if strings.HasPrefix(c.subject, "bulk."+string(zone)+".") {
			sizes[c.subject] += uint64(len(c.raw))
		}
	}
	return sizes, nil
}

var (
	_ journal.Purger    = (*Memory)(nil)
	_ journal.Journal   = (*Memory)(nil)
	_ journal.RawReader = (*Memory)(nil)
)
