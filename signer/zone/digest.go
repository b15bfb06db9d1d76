package zone

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// StateSize is the length in bytes of a set hash's state.
const StateSize = 2048

// The kinds of items that a set hash distinguishes. Their values are fixed.
const (
	// HashRRset is an RRset: its records in wire form as served, one after
	// the other (owner, type, class, TTL, length, RDATA).
	HashRRset byte = 1
	// HashRRSIG is one RRSIG record in the same form.
	HashRRSIG byte = 2
)

// SetHash is the state of a homomorphic set hash: LtHash with 1,024 lanes of
// 16 bits. Replacing an item is one subtraction and one addition, so a change
// of k RRsets costs k whatever the zone's size. The zero value is the hash of
// the empty set.
//
// An item's lanes are 2,048 bytes of AES-256-CTR key stream, zero IV, keyed
// by the SHA-256 of its kind byte and its wire form. The signed digest of an
// instance covers all its RRsets and RRSIGs as they are; the content digest
// covers the RRsets of the input with the SOA's serial set to zero.
//
// The methods that add or remove items are meant for a few; a Hasher does the
// same without allocating.
type SetHash struct {
	lanes [StateSize / 8]uint64 // 1,024 lanes of 16 bits, little-endian
}

// AddSet adds every item of o, which may be hashed elsewhere at the same
// time.
func (s *SetHash) AddSet(o *SetHash) {
	for i, b := range o.lanes {
		s.lanes[i] = addLanes(s.lanes[i], b)
	}
}

// SubSet removes every item of o.
func (s *SetHash) SubSet(o *SetHash) {
	for i, b := range o.lanes {
		s.lanes[i] = subLanes(s.lanes[i], b)
	}
}

// Add adds an item in wire form; kind is HashRRset or HashRRSIG.
func (s *SetHash) Add(kind byte, item []byte) { s.with(func(h *Hasher) { h.Add(kind, item) }) }

// Remove takes out an item that was added.
func (s *SetHash) Remove(kind byte, item []byte) { s.with(func(h *Hasher) { h.Remove(kind, item) }) }

// AddItem adds a zone's item as Hasher.AddItem does.
func (s *SetHash) AddItem(key, value []byte) (err error) {
	s.with(func(h *Hasher) { err = h.AddItem(key, value) })
	return err
}

// RemoveItem takes out a zone's item as Hasher.RemoveItem does.
func (s *SetHash) RemoveItem(key, value []byte) (err error) {
	s.with(func(h *Hasher) { err = h.RemoveItem(key, value) })
	return err
}

// AddContent adds a zone's item in content form as Hasher.AddContent does.
func (s *SetHash) AddContent(key, value []byte) (err error) {
	s.with(func(h *Hasher) { err = h.AddContent(key, value) })
	return err
}

// RemoveContent takes out a zone's item in content form.
func (s *SetHash) RemoveContent(key, value []byte) (err error) {
	s.with(func(h *Hasher) { err = h.RemoveContent(key, value) })
	return err
}

func (s *SetHash) with(fn func(*Hasher)) {
	h := Hasher{Set: *s}
	fn(&h)
	*s = h.Set
}

// AppendState appends the state, StateSize bytes.
func (s *SetHash) AppendState(dst []byte) []byte {
	for _, w := range s.lanes {
		dst = binary.LittleEndian.AppendUint64(dst, w)
	}
	return dst
}

// LoadState replaces the state by one that AppendState made.
func (s *SetHash) LoadState(state []byte) error {
	if len(state) != StateSize {
		return fmt.Errorf("set hash state of %d bytes, want %d", len(state), StateSize)
	}
	for i := range s.lanes {
		s.lanes[i] = binary.LittleEndian.Uint64(state[8*i:])
	}
	return nil
}

// Sum is the digest: the SHA-256 of the state.
func (s *SetHash) Sum() [32]byte {
	var buf [StateSize]byte
	return sha256.Sum256(s.AppendState(buf[:0]))
}

// highBits are the highest bits of the four lanes in a word.
const highBits = 0x8000800080008000

// addLanes adds four lanes at once; no carry goes from lane to lane.
func addLanes(a, b uint64) uint64 {
	return ((a &^ highBits) + (b &^ highBits)) ^ ((a ^ b) & highBits)
}

// subLanes subtracts four lanes at once.
func subLanes(a, b uint64) uint64 {
	return ((a | highBits) - (b &^ highBits)) ^ ((a ^ b ^ highBits) & highBits)
}

// Hasher adds items to a set hash and keeps its buffers from item to item. It
// is for one goroutine; the Sets of several are joined with AddSet.
type Hasher struct {
	// Set is the state so far. It may be read and replaced between calls.
	Set    SetHash
	item   []byte
	stream [StateSize]byte
}

// Add adds an item in wire form; kind is HashRRset or HashRRSIG.
func (h *Hasher) Add(kind byte, item []byte) {
	h.item = append(append(h.item[:0], kind), item...)
	h.add(h.item, false)
}

// Remove takes out an item that was added.
func (h *Hasher) Remove(kind byte, item []byte) {
	h.item = append(append(h.item[:0], kind), item...)
	h.add(h.item, true)
}

// AddItem adds a zone's item: each record of KindSigs and KindChainSigs by
// itself as an RRSIG, all others as one RRset. It returns an error for a
// malformed key or value.
func (h *Hasher) AddItem(key, value []byte) error { return h.addItem(key, value, false, false) }

// RemoveItem takes out a zone's item.
func (h *Hasher) RemoveItem(key, value []byte) error { return h.addItem(key, value, true, false) }

// AddContent adds a zone's item in content form, that is with zero for the
// serial of an SOA.
func (h *Hasher) AddContent(key, value []byte) error { return h.addItem(key, value, false, true) }

// RemoveContent takes out a zone's item in content form.
func (h *Hasher) RemoveContent(key, value []byte) error { return h.addItem(key, value, true, true) }

var errNoHashItem = errors.New("an item without records cannot be hashed")

func (h *Hasher) addItem(key, value []byte, remove, content bool) error {
	kind, ownerKey, t, err := SplitKey(key)
	if err != nil {
		return err
	}
	v := Value(value)
	if len(v) <= valueHeader {
		return errNoHashItem
	}
	var ownerBuf [MaxNameLength + 64]byte
	owner := v.Owner()
	if owner == nil {
		if owner, err = AppendNameOfKey(ownerBuf[:0], ownerKey); err != nil {
			return err
		}
	}
	single := kind == KindSigs || kind == KindChainSigs
	buf := append(h.item[:0], HashRRset)
	if single {
		buf[0], t = HashRRSIG, TypeRRSIG
	}
	for b := v.body(); len(b) >= 2; {
		end := 2 + int(binary.BigEndian.Uint16(b))
		if end > len(b) {
			return errBadValue
		}
		buf = append(buf, owner...)
		buf = append(buf, byte(t>>8), byte(t), 0, 1)
		buf = append(buf, v[:4]...)
		buf = append(buf, b[:end]...)
		switch {
		case single:
			h.add(buf, remove)
			buf = buf[:1]
		case content && t == TypeSOA && end > 22:
			clear(buf[len(buf)-20 : len(buf)-16])
		}
		b = b[end:]
	}
	if !single {
		h.add(buf, remove)
	}
	h.item = buf
	return nil
}

// add adds or subtracts the lanes of item, which begins with its kind.
func (h *Hasher) add(item []byte, remove bool) {
	key := sha256.Sum256(item)
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return // only for keys of a wrong length
	}
	var iv [aes.BlockSize]byte
	clear(h.stream[:])
	cipher.NewCTR(block, iv[:]).XORKeyStream(h.stream[:], h.stream[:])
	lanes, stream := &h.Set.lanes, &h.stream
	if remove {
		for i := range lanes {
			lanes[i] = subLanes(lanes[i], binary.LittleEndian.Uint64(stream[8*i:]))
		}
		return
	}
	for i := range lanes {
		lanes[i] = addLanes(lanes[i], binary.LittleEndian.Uint64(stream[8*i:]))
	}
}
