package zone

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

const (
	minSortMemory  = 64 << 10
	maxSortMemory  = 1 << 30
	firstSortArena = 4 << 10
	// maxMergeRuns bounds how many runs are read at once; more are first
	// merged into fewer.
	maxMergeRuns = 128
	// entrySize is what an entry costs beside its bytes in the arena.
	entrySize   = 16
	sortHeader  = 6 // number of payloads (4) and length of the key (2)
	spillBuffer = 128 << 10
)

var (
	errSorterDone = errors.New("sorter used after Sort or Close")
	errNoSpill    = errors.New("more to sort than fits into memory, and no place to spill it")
)

// Sorter sorts entries of a key and a payload by external merge sort in a
// fixed amount of memory. What does not fit is spilled; a small set never
// touches the spill. It is for one goroutine; a second one, its own, sorts
// and spills a full buffer while the next one fills.
type Sorter struct {
	limit   int // of one buffer
	spill   Spill
	filling *sortBuffer
	spare   *sortBuffer
	out     *runWriter
	busy    chan spilled // not nil while a buffer is being spilled
	closed  bool
	err     error
}

type spilled struct {
	buf *sortBuffer
	err error
}

// NewSorter makes a sorter that keeps about memory bytes. Temporary files
// come from spill; where it is nil, more than memory is an error.
func NewSorter(spill Spill, memory int) *Sorter {
	memory = min(max(memory, minSortMemory), maxSortMemory)
	return &Sorter{limit: memory / 2, spill: spill, filling: &sortBuffer{}}
}

// Add adds an entry; key and payload are copied. A key is at most 65,535
// bytes long. One entry may be longer than the memory; it is held none the
// less.
func (s *Sorter) Add(key, payload []byte) error {
	if s.closed {
		return errSorterDone
	}
	if len(key) > 0xffff || len(payload) > maxSortMemory {
		return fmt.Errorf("sort: entry with a key of %d and a payload of %d bytes is too long", len(key), len(payload))
	}
	b := s.filling
	if b.size()+len(key)+len(payload)+sortHeader+4+entrySize > s.limit && len(b.index) > 0 {
		if err := s.flush(); err != nil {
			return err
		}
		b = s.filling
	}
	b.add(key, payload, s.limit)
	return nil
}

// flush hands the full buffer over to be sorted and spilled.
func (s *Sorter) flush() error {
	if err := s.wait(); err != nil {
		return err
	}
	if s.out == nil {
		if s.spill == nil {
			return errNoSpill
		}
		f, err := s.spill.Create()
		if err != nil {
			s.err = fmt.Errorf("create spill file: %w", err)
			return s.err
		}
		s.out = &runWriter{file: f}
	}
	full, out, done := s.filling, s.out, make(chan spilled, 1)
	s.filling, s.spare = s.spare, nil
	if s.filling == nil {
		s.filling = &sortBuffer{}
	}
	s.busy = done
	go func() {
		full.sort()
		err := out.writeRun(full)
		full.reset()
		done <- spilled{full, err}
	}()
	return nil
}

// wait waits for the buffer that is being spilled.
func (s *Sorter) wait() error {
	if s.busy != nil {
		r := <-s.busy
		s.busy = nil
		s.spare = r.buf
		if s.err == nil {
			s.err = r.err
		}
	}
	return s.err
}

// Sort ends the input and walks the entries in ascending order of their
// keys, those with equal keys in the order of Add. The payload is the
// iterator's value. The iterator holds the sorter's files; its Close frees
// them. The sorter cannot be used any more.
func (s *Sorter) Sort() (Iterator, error) {
	if s.closed {
		return nil, errSorterDone
	}
	if err := s.wait(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.closed = true
	s.filling.sort()
	last := &bufferRun{buf: s.filling}
	if s.out == nil {
		return &sortedRuns{single: last}, nil
	}
	s.spare = nil
	out, err := s.out.reduce(s.spill, s.limit)
	if err != nil {
		return nil, errors.Join(err, s.out.file.Close())
	}
	m := &sortedRuns{file: out.file}
	for _, r := range out.runs {
		m.runs = append(m.runs, newFileRun(out.file, r, readSize(s.limit, len(out.runs))))
	}
	m.runs = append(m.runs, last)
	return m, nil
}

// Close frees what the sorter holds when Sort is not called. It does nothing
// after Sort.
func (s *Sorter) Close() error {
	if s.closed {
		return nil
	}
	spilling := s.wait() // its error was or will be reported by Add or Sort
	s.closed = true
	s.filling, s.spare = nil, nil
	if s.out == nil {
		return nil
	}
	if err := s.out.file.Close(); err != nil && spilling == nil {
		return fmt.Errorf("close spill file: %w", err)
	}
	return nil
}

// readSize is the read buffer of each of n runs.
func readSize(limit, n int) int { return min(max(limit/n, 16<<10), 256<<10) }

// sortBuffer holds entries until they are sorted. Entries with the same key
// that come one after the other are one in the index; in the arena stand
// their number, the length of the key, the key, and of each the payload with
// its length.
type sortBuffer struct {
	arena  []byte
	index  []sortEntry
	shared int // length of what all keys begin with
}

type sortEntry struct {
	prefix uint64 // 8 bytes of the key, after the shared part, big-endian
	at     int    // in arena; ascends in the order of Add
}

func (b *sortBuffer) size() int { return len(b.arena) + entrySize*len(b.index) }

func (b *sortBuffer) reset() { b.arena, b.index, b.shared = b.arena[:0], b.index[:0], 0 }

func (b *sortBuffer) add(key, payload []byte, limit int) {
	at := len(b.arena)
	if need := at + sortHeader + len(key) + 4 + len(payload); need > cap(b.arena) {
		// Doubling, but never far above what the limit lets be used.
		grown := make([]byte, at, max(need, min(max(2*cap(b.arena), firstSortArena), limit)))
		copy(grown, b.arena)
		b.arena = grown
	}
	n := len(b.index)
	if n == 0 || !bytes.Equal(b.key(b.index[n-1].at), key) {
		b.arena = binary.LittleEndian.AppendUint32(b.arena, 0)
		b.arena = binary.LittleEndian.AppendUint16(b.arena, uint16(len(key)))
		b.arena = append(b.arena, key...)
		b.index = append(b.index, sortEntry{at: at})
		if n == 0 {
			b.shared = len(key)
		} else if first := b.key(0); b.shared > len(key) || !bytes.Equal(first[:b.shared], key[:b.shared]) {
			b.shared = min(b.shared, sharedPrefix(first, key))
		}
		n++
	}
	count := b.arena[b.index[n-1].at:]
	binary.LittleEndian.PutUint32(count, binary.LittleEndian.Uint32(count)+1)
	b.arena = binary.LittleEndian.AppendUint32(b.arena, uint32(len(payload)))
	b.arena = append(b.arena, payload...)
}

// key is the key of the entry at arena[at:].
func (b *sortBuffer) key(at int) []byte {
	e := b.arena[at+sortHeader-2:]
	return e[2 : 2+int(binary.LittleEndian.Uint16(e))]
}

func (b *sortBuffer) sort() {
	for i := range b.index {
		b.index[i].prefix = keyPrefix(b.key(b.index[i].at)[b.shared:])
	}
	slices.SortFunc(b.index, func(x, y sortEntry) int {
		if x.prefix != y.prefix {
			if x.prefix < y.prefix {
				return -1
			}
			return 1
		}
		if c := bytes.Compare(b.key(x.at)[b.shared:], b.key(y.at)[b.shared:]); c != 0 {
			return c
		}
		return cmp.Compare(x.at, y.at)
	})
}

// keyPrefix is the first 8 bytes of key as a number; shorter keys are filled
// up with zeros, so that equal prefixes still need a comparison.
func keyPrefix(key []byte) uint64 {
	if len(key) >= 8 {
		return binary.BigEndian.Uint64(key)
	}
	var b [8]byte
	copy(b[:], key)
	return binary.BigEndian.Uint64(b[:])
}

// runWriter writes sorted runs one after the other into one spill file.
type runWriter struct {
	file SpillFile
	runs []runSpan
	end  int64
	buf  []byte
	last []byte
}

// runSpan is where a run lies in the file.
type runSpan struct{ from, to int64 }

func (w *runWriter) writeRun(b *sortBuffer) error {
	w.begin()
	for r := (&bufferRun{buf: b}); r.step(); {
		if err := w.put(r.entry()); err != nil {
			return err
		}
	}
	return w.finish()
}

func (w *runWriter) begin() {
	w.runs = append(w.runs, runSpan{from: w.end, to: w.end})
	w.last = w.last[:0]
}

// put appends an entry to the present run in the coding of chunks.
func (w *runWriter) put(key, payload []byte) error {
	shared := sharedPrefix(w.last, key)
	w.buf = appendEntry(w.buf, shared, key, payload)
	w.last = append(w.last[:shared], key[shared:]...)
	if len(w.buf) < spillBuffer {
		return nil
	}
	return w.write()
}

func (w *runWriter) write() error {
	if _, err := w.file.Write(w.buf); err != nil {
		return fmt.Errorf("write spill file: %w", err)
	}
	w.end += int64(len(w.buf))
	w.buf = w.buf[:0]
	return nil
}

func (w *runWriter) finish() error {
	err := w.write()
	w.runs[len(w.runs)-1].to = w.end
	return err
}

// reduce merges neighbouring runs until at most maxMergeRuns are left. On an
// error the file of w itself stays open.
func (w *runWriter) reduce(spill Spill, limit int) (*runWriter, error) {
	for len(w.runs) > maxMergeRuns {
		f, err := spill.Create()
		if err != nil {
			return nil, fmt.Errorf("create spill file: %w", err)
		}
		next := &runWriter{file: f}
		for group := range slices.Chunk(w.runs, maxMergeRuns) {
			if err := next.mergeRuns(w.file, group, limit); err != nil {
				return nil, errors.Join(err, f.Close())
			}
		}
		old := w.file
		*w = *next
		if err := old.Close(); err != nil {
			return nil, fmt.Errorf("close spill file: %w", err)
		}
	}
	return w, nil
}

func (w *runWriter) mergeRuns(file SpillFile, group []runSpan, limit int) error {
	m := &sortedRuns{}
	for _, r := range group {
		m.runs = append(m.runs, newFileRun(file, r, readSize(limit, len(group))))
	}
	w.begin()
	for m.Next() {
		if err := w.put(m.Key(), m.Value()); err != nil {
			return err
		}
	}
	if m.err != nil {
		return m.err
	}
	return w.finish()
}
