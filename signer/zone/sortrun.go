package zone

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// sortRun is one sorted run while it is read.
type sortRun interface {
	// next moves on; false at the end or after an error.
	next() (bool, error)
	entry() (key, payload []byte)
}

// bufferRun reads a sorted buffer.
type bufferRun struct {
	buf     *sortBuffer
	at      int    // in the index, of the entry after the present one
	left    uint32 // payloads of the present entry that are not yet read
	rest    []byte // of the arena, where they stand
	key     []byte
	payload []byte
}

func (r *bufferRun) next() (bool, error) { return r.step(), nil }

func (r *bufferRun) step() bool {
	if r.left == 0 {
		if r.at == len(r.buf.index) {
			return false
		}
		at := r.buf.index[r.at].at
		r.at++
		r.left = binary.LittleEndian.Uint32(r.buf.arena[at:])
		r.key = r.buf.key(at)
		r.rest = r.buf.arena[at+sortHeader+len(r.key):]
	}
	r.left--
	n := 4 + int(binary.LittleEndian.Uint32(r.rest))
	r.payload, r.rest = r.rest[4:n], r.rest[n:]
	return true
}

func (r *bufferRun) entry() (key, payload []byte) { return r.key, r.payload }

// fileRun reads a run from a spill file through a buffer of its own.
type fileRun struct {
	file    io.ReaderAt
	at, end int64 // what of the run is not yet in buf
	buf     []byte
	rest    []byte // what of buf is not yet read
	key     []byte
	payload []byte
}

func newFileRun(f io.ReaderAt, span runSpan, size int) *fileRun {
	return &fileRun{file: f, at: span.from, end: span.to, buf: make([]byte, int(min(int64(size), span.to-span.from)))}
}

var errBadRun = errors.New("spill file damaged")

func (r *fileRun) next() (bool, error) {
	if len(r.rest) == 0 && r.at == r.end {
		return false, nil
	}
	shared, suffix, size, head := r.head()
	for head == 0 {
		ok, err := r.fill(len(r.rest) + 1)
		if err != nil || !ok {
			return false, err
		}
		shared, suffix, size, head = r.head()
	}
	if shared > len(r.key) || suffix > 0xffff || size > maxSortMemory {
		return false, errBadRun
	}
	if total := head + suffix + size; total > len(r.rest) {
		if ok, err := r.fill(total); err != nil || !ok {
			return false, err
		}
	}
	r.key = append(r.key[:shared], r.rest[head:head+suffix]...)
	r.payload = r.rest[head+suffix : head+suffix+size]
	r.rest = r.rest[head+suffix+size:]
	return true, nil
}

func (r *fileRun) entry() (key, payload []byte) { return r.key, r.payload }

// head reads the lengths of an entry; n is 0 where they are not yet all in
// the buffer.
func (r *fileRun) head() (shared, suffix, size, n int) {
	a, n1 := binary.Uvarint(r.rest)
	if n1 <= 0 {
		return 0, 0, 0, 0
	}
	b, n2 := binary.Uvarint(r.rest[n1:])
	if n2 <= 0 {
		return 0, 0, 0, 0
	}
	c, n3 := binary.Uvarint(r.rest[n1+n2:])
	if n3 <= 0 {
		return 0, 0, 0, 0
	}
	return int(min(a, 1<<20)), int(min(b, 1<<20)), int(min(c, 2*maxSortMemory)), n1 + n2 + n3
}

// fill reads on until at least need bytes are there.
func (r *fileRun) fill(need int) (bool, error) {
	if int64(need-len(r.rest)) > r.end-r.at {
		return false, errBadRun
	}
	if need > len(r.buf) {
		grown := make([]byte, need)
		copy(grown, r.rest)
		r.buf, r.rest = grown, grown[:len(r.rest)]
	} else {
		r.rest = r.buf[:copy(r.buf, r.rest)]
	}
	have := len(r.rest)
	n := int(min(int64(len(r.buf)-have), r.end-r.at))
	if got, err := r.file.ReadAt(r.buf[have:have+n], r.at); got < n {
		return false, fmt.Errorf("read spill file: %w", err)
	}
	r.at += int64(n)
	r.rest = r.buf[:have+n]
	return true, nil
}

// sortedRuns merges runs with a tournament tree. Where there is one run, it
// is read as it stands.
type sortedRuns struct {
	file   SpillFile
	runs   []sortRun
	single sortRun
	heads  []runHead // of each run
	tree   []int     // tree[0]: the winner; tree[1:]: the losers
	err    error
	key    []byte
	value  []byte
}

type runHead struct {
	prefix  uint64
	key     []byte
	payload []byte
	ended   bool
}

func (m *sortedRuns) Next() bool {
	if m.err != nil {
		return false
	}
	if m.single != nil {
		ok, err := m.single.next()
		if !ok {
			m.err, m.key, m.value = err, nil, nil
			return false
		}
		m.key, m.value = m.single.entry()
		return true
	}
	switch {
	case len(m.runs) == 0:
		return false
	case m.heads == nil:
		m.begin()
	default:
		w := m.tree[0]
		m.step(w)
		m.replay(w)
	}
	w := &m.heads[m.tree[0]]
	m.key, m.value = w.key, w.payload
	if m.err != nil || w.ended {
		m.key, m.value = nil, nil
		return false
	}
	return true
}

// begin reads the first entry of each run and plays all matches.
func (m *sortedRuns) begin() {
	n := len(m.runs)
	m.heads = make([]runHead, n)
	m.tree = make([]int, n)
	for i := range m.runs {
		m.step(i)
		m.tree[i] = -1
	}
	for i := range n {
		m.replay(i)
	}
}

// step moves run i on.
func (m *sortedRuns) step(i int) {
	h := &m.heads[i]
	ok, err := m.runs[i].next()
	if !ok {
		h.ended, h.key, h.payload = true, nil, nil
		if m.err == nil {
			m.err = err
		}
		return
	}
	h.key, h.payload = m.runs[i].entry()
	h.prefix = keyPrefix(h.key)
}

// replay plays the matches from leaf i to the root. While the tree is being
// built, a run waits where it meets no other.
func (m *sortedRuns) replay(i int) {
	for at := (i + len(m.runs)) / 2; at > 0; at /= 2 {
		if m.tree[at] < 0 {
			m.tree[at] = i
			return
		}
		if m.less(m.tree[at], i) {
			m.tree[at], i = i, m.tree[at]
		}
	}
	m.tree[0] = i
}

// less orders the heads of runs a and b; the earlier run wins a tie.
func (m *sortedRuns) less(a, b int) bool {
	x, y := &m.heads[a], &m.heads[b]
	if x.ended || y.ended {
		return !x.ended || (y.ended && a < b)
	}
	if x.prefix != y.prefix {
		return x.prefix < y.prefix
	}
	if c := bytes.Compare(x.key, y.key); c != 0 {
		return c < 0
	}
	return a < b
}

func (m *sortedRuns) Key() []byte   { return m.key }
func (m *sortedRuns) Value() []byte { return m.value }
func (m *sortedRuns) Err() error    { return m.err }

func (m *sortedRuns) Close() error {
	m.runs, m.single, m.heads = nil, nil, nil
	if m.file == nil {
		return nil
	}
	f := m.file
	m.file = nil
	return f.Close()
}
