package zone

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// MaxChunk is the longest raw chunk in bytes.
const MaxChunk = 768 << 10

// MaxValue is the longest value in bytes. A longer RRset is an error where
// it enters, so that every item fits into a chunk.
const MaxValue = 512 << 10

// MaxKey is the longest key in bytes: kind, owner key with every byte
// escaped, type.
const MaxKey = 1 + 2*MaxNameLength + 2

// chunkVersion is the first byte of a chunk. After it stands, for each item:
// uvarint length of what the key shares with the key before, uvarint length
// of the rest, uvarint length of the value, rest of the key, value.
const chunkVersion = 1

// ChunkBuilder packs items of one kind into a raw chunk. The zero value is
// ready to use.
type ChunkBuilder struct {
	buf   []byte
	last  []byte
	items uint64
}

// Add packs an item. Where full is true, the item was not taken, since the
// chunk has no room for it or holds another kind: take the chunk with Bytes,
// Reset, and add the item again. Keys must ascend within a chunk; a value of
// length zero deletes the key. It returns an error for an item that fits into
// no chunk and for keys out of order.
func (b *ChunkBuilder) Add(key, value []byte) (full bool, err error) {
	if len(key) == 0 || len(key) > MaxKey || len(value) > MaxValue {
		return false, fmt.Errorf("item with a key of %d and a value of %d bytes fits into no chunk", len(key), len(value))
	}
	shared := 0
	if b.items == 0 {
		b.buf = append(b.buf[:0], chunkVersion)
	} else {
		if key[0] != b.last[0] || len(b.buf)+len(key)+len(value)+3*binary.MaxVarintLen32 > MaxChunk {
			return true, nil
		}
		if bytes.Compare(b.last, key) >= 0 {
			return false, fmt.Errorf("chunk: key %x does not follow %x", key, b.last)
		}
		shared = sharedPrefix(b.last, key)
	}
	b.buf = appendEntry(b.buf, shared, key, value)
	b.last = append(b.last[:shared], key[shared:]...)
	b.items++
	return false, nil
}

// Items counts the items packed since the last Reset.
func (b *ChunkBuilder) Items() uint64 { return b.items }

// Bytes is the raw chunk so far, valid until the next Add or Reset; it is
// empty while there are no items.
func (b *ChunkBuilder) Bytes() []byte {
	if b.items == 0 {
		return nil
	}
	return b.buf
}

// Reset begins a new chunk.
func (b *ChunkBuilder) Reset() { b.buf, b.last, b.items = b.buf[:0], b.last[:0], 0 }

// appendEntry appends a prefix-coded entry.
func appendEntry(dst []byte, shared int, key, value []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(shared))
	dst = binary.AppendUvarint(dst, uint64(len(key)-shared))
	dst = binary.AppendUvarint(dst, uint64(len(value)))
	dst = append(dst, key[shared:]...)
	return append(dst, value...)
}

// sharedPrefix is the length of what a and b begin with in common.
func sharedPrefix(a, b []byte) int {
	n := min(len(a), len(b))
	i := 0
	for ; i+8 <= n; i += 8 {
		if binary.LittleEndian.Uint64(a[i:]) != binary.LittleEndian.Uint64(b[i:]) {
			break
		}
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}

var errBadChunk = errors.New("malformed chunk")

// ChunkReader walks the items of a raw chunk. It trusts nothing: keys must be
// well-formed, of one kind and ascending, values empty or valid. It
// implements Iterator; Value points into the chunk.
type ChunkReader struct {
	rest  []byte
	value []byte
	key   [MaxKey]byte
	klen  int
	owner int // length of kind and owner key of the key before, 0 at the start
	err   error
}

// NewChunkReader walks raw, which must not change meanwhile.
func NewChunkReader(raw []byte) *ChunkReader {
	r := &ChunkReader{}
	r.Reset(raw)
	return r
}

// Reset begins the walk of another chunk.
func (r *ChunkReader) Reset(raw []byte) {
	r.rest, r.value, r.klen, r.owner, r.err = nil, nil, 0, 0, nil
	switch {
	case len(raw) == 0:
		r.err = fmt.Errorf("%w: empty", errBadChunk)
	case len(raw) > MaxChunk:
		r.err = fmt.Errorf("%w: %d bytes, more than %d", errBadChunk, len(raw), MaxChunk)
	case raw[0] != chunkVersion:
		r.err = fmt.Errorf("%w: version %d, this program knows %d", errBadChunk, raw[0], chunkVersion)
	default:
		r.rest = raw[1:]
	}
}

// Next moves to the next item; false at the end or after an error.
func (r *ChunkReader) Next() bool {
	if r.err != nil || len(r.rest) == 0 {
		return false
	}
	if !r.next() {
		r.err = fmt.Errorf("%w: item %d bytes before the end", errBadChunk, len(r.rest))
		r.rest, r.value, r.klen = nil, nil, 0
		return false
	}
	return true
}

func (r *ChunkReader) next() bool {
	b := r.rest
	shared, n1 := binary.Uvarint(b)
	if n1 <= 0 {
		return false
	}
	suffix, n2 := binary.Uvarint(b[n1:])
	if n2 <= 0 {
		return false
	}
	vlen, n3 := binary.Uvarint(b[n1+n2:])
	if n3 <= 0 {
		return false
	}
	b = b[n1+n2+n3:]
	if shared > uint64(r.klen) || suffix > MaxKey-shared || suffix > uint64(len(b)) ||
		vlen > MaxValue || vlen > uint64(len(b))-suffix {
		return false
	}
	rest := b[:suffix]
	old := r.key[shared:r.klen]
	// Ascending and shared to the full: the first byte that differs is greater.
	if len(rest) == 0 || (r.klen > 0 && (shared == 0 || (len(old) > 0 && rest[0] <= old[0]))) {
		return false
	}
	copy(r.key[shared:], rest)
	r.klen = int(shared + suffix)
	r.value = b[suffix : suffix+vlen : suffix+vlen]
	r.rest = b[suffix+vlen:]
	if Kind(r.key[0]) == KindDigest {
		return r.klen == 1 && len(r.value) == StateSize
	}
	if r.klen < 4 || Kind(r.key[0]) < KindContents || Kind(r.key[0]) > KindChainSigs {
		return false
	}
	if r.owner != r.klen-2 || int(shared) < r.owner {
		r.owner = r.klen - 2
		if !validOwnerKey(r.key[1:r.owner]) {
			return false
		}
	}
	return len(r.value) == 0 || Value(r.value).Check() == nil
}

// Key is the key of the present item, valid until the next call of Next.
func (r *ChunkReader) Key() []byte { return r.key[:r.klen] }

// Value is the value of the present item; it points into the chunk.
func (r *ChunkReader) Value() []byte { return r.value }

// Err is what ended the walk early.
func (r *ChunkReader) Err() error { return r.err }

// Close does nothing.
func (r *ChunkReader) Close() error { return nil }
