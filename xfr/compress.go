package xfr

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// A message's names are a tree: each label written in full hangs under the
// label after it. The table finds a label by its text and by the offset of
// the name behind it, so one comparison of one label tells whether a longer
// suffix can be pointed to; names are looked up from the right.
const (
	tableSlots = 1 << 12
	tableFull  = tableSlots / 2
	maxProbes  = 8      // keeps chosen names from making searches long
	maxPointer = 0x3fff // RFC 1035, 4.1.4
)

// slot says that the label at offset at has the name at parent behind it; it
// counts only where epoch is the table's.
type slot struct {
	epoch      uint32
	at, parent uint16
}

// table is the compression table of one message at a time.
type table struct {
	slots [tableSlots]slot
	epoch uint32
	used  int
}

// clear forgets all names: a new message begins.
func (t *table) clear() {
	t.epoch++
	t.used = 0
	if t.epoch == 0 {
		t.slots = [tableSlots]slot{}
		t.epoch = 1
	}
}

// find is the offset of label (length byte included) before the name at
// parent, or 0.
func (t *table) find(msg []byte, parent uint16, label []byte) uint16 {
	h := hashLabel(parent, label)
	for range maxProbes {
		s := &t.slots[h%tableSlots]
		if s.epoch != t.epoch {
			return 0
		}
		if s.parent == parent && bytes.HasPrefix(msg[s.at:], label) {
			return s.at
		}
		h++
	}
	return 0
}

// add notes that label at offset at has the name at parent behind it. A full
// table notes nothing more: the message only gets longer.
func (t *table) add(at, parent uint16, label []byte) {
	if t.used == tableFull {
		return
	}
	h := hashLabel(parent, label)
	for range maxProbes {
		s := &t.slots[h%tableSlots]
		if s.epoch != t.epoch {
			*s = slot{epoch: t.epoch, at: at, parent: parent}
			t.used++
			return
		}
		h++
	}
}

// hashLabel mixes eight bytes at a time.
func hashLabel(parent uint16, label []byte) uint32 {
	const k = 0x9e3779b97f4a7c15
	h := uint64(parent) * k
	for ; len(label) >= 8; label = label[8:] {
		h = bits.RotateLeft64(h^binary.LittleEndian.Uint64(label), 29) * k
	}
	var tail uint64
	for i, c := range label {
		tail |= uint64(c) << (8 * i)
	}
	h = bits.RotateLeft64(h^tail, 29) * k
	return uint32(h >> 40)
}
