package cli

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"

	"sluice/signer/zone"
)

// runs keeps the items of a zone on disk, one ascending run of chunks a kind.
// It is a signer.Sink. Runs are read only when all of them are written.
type runs struct {
	spill zone.Spill
	kinds map[zone.Kind]*run
}

// run is the items of one kind: chunks, each behind its length in 4 bytes.
type run struct {
	file  zone.SpillFile
	out   *bufio.Writer
	size  int64
	chunk zone.ChunkBuilder
}

func newRuns(spill zone.Spill) *runs { return &runs{spill: spill, kinds: map[zone.Kind]*run{}} }

// Put takes an item; within a kind keys ascend. The state of the digest is
// not kept.
func (r *runs) Put(key, value []byte) error {
	kind := zone.Kind(key[0])
	if kind == zone.KindDigest {
		return nil
	}
	k := r.kinds[kind]
	if k == nil {
		f, err := r.spill.Create()
		if err != nil {
			return err
		}
		k = &run{file: f, out: bufio.NewWriterSize(f, 64<<10)}
		r.kinds[kind] = k
	}
	full, err := k.chunk.Add(key, value)
	if err != nil || !full {
		return err
	}
	if err := k.flush(); err != nil {
		return err
	}
	_, err = k.chunk.Add(key, value)
	return err
}

// flush writes the chunk so far.
func (k *run) flush() error {
	raw := k.chunk.Bytes()
	if len(raw) == 0 {
		return nil
	}
	var length [4]byte
	binary.BigEndian.PutUint32(length[:], uint32(len(raw)))
	if _, err := k.out.Write(length[:]); err != nil {
		return err
	}
	if _, err := k.out.Write(raw); err != nil {
		return err
	}
	k.size += int64(len(length) + len(raw))
	k.chunk.Reset()
	return nil
}

// finish writes what is still in memory, and gives that back.
func (k *run) finish() error {
	if k.out == nil {
		return nil
	}
	if err := k.flush(); err != nil {
		return err
	}
	err := k.out.Flush()
	k.chunk, k.out = zone.ChunkBuilder{}, nil
	return err
}

// merged ends the writing and walks all items in the order of owner, type and
// kind. It may be called again.
func (r *runs) merged() (zone.Iterator, error) {
	var iters []zone.Iterator
	for kind := zone.KindContents; kind <= zone.KindChainSigs; kind++ {
		k := r.kinds[kind]
		if k == nil {
			continue
		}
		if err := k.finish(); err != nil {
			return nil, err
		}
		iters = append(iters, &runReader{in: bufio.NewReaderSize(io.NewSectionReader(k.file, 0, k.size), 64<<10)})
	}
	return zone.Merge(iters...), nil
}

// close frees the files.
func (r *runs) close() error {
	var first error
	for _, k := range r.kinds {
		if err := k.file.Close(); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// runReader walks one run.
type runReader struct {
	in    *bufio.Reader
	raw   []byte
	chunk zone.ChunkReader
	err   error
}

func (r *runReader) Next() bool {
	for r.err == nil {
		if r.raw != nil {
			if r.chunk.Next() {
				return true
			}
			if r.err = r.chunk.Err(); r.err != nil {
				return false
			}
		}
		if !r.load() {
			return false
		}
	}
	return false
}

// load reads the next chunk.
func (r *runReader) load() bool {
	var length [4]byte
	if _, err := io.ReadFull(r.in, length[:]); err != nil {
		if err != io.EOF {
			r.err = fmt.Errorf("read temporary file: %w", err)
		}
		return false
	}
	n := int(binary.BigEndian.Uint32(length[:]))
	if n > zone.MaxChunk {
		r.err = fmt.Errorf("read temporary file: chunk of %d bytes", n)
		return false
	}
	if cap(r.raw) < n {
		r.raw = make([]byte, zone.MaxChunk)
	}
	r.raw = r.raw[:n]
	if _, err := io.ReadFull(r.in, r.raw); err != nil {
		r.err = fmt.Errorf("read temporary file: %w", err)
		return false
	}
	r.chunk.Reset(r.raw)
	return true
}

func (r *runReader) Key() []byte   { return r.chunk.Key() }
func (r *runReader) Value() []byte { return r.chunk.Value() }
func (r *runReader) Err() error    { return r.err }
func (r *runReader) Close() error  { return nil }

// tee copies what an iterator yields into a sink.
type tee struct {
	zone.Iterator
	to  *runs
	err error
}

func (t *tee) Next() bool {
	if t.err != nil || !t.Iterator.Next() {
		return false
	}
	t.err = t.to.Put(t.Key(), t.Value())
	return t.err == nil
}

func (t *tee) Err() error {
	if t.err != nil {
		return t.err
	}
	return t.Iterator.Err()
}
