package zone

import (
	"bytes"
	"encoding/binary"
	"errors"
	"iter"
	"slices"
)

// Serial is an SOA serial number; it compares by RFC 1982.
type Serial uint32

// Before reports whether s precedes t (RFC 1982, 3.2). It is false both ways
// where the distance is exactly 2^31.
func (s Serial) Before(t Serial) bool { return s != t && int32(t-s) > 0 }

// Value is an RRset without what its key says, in this form: TTL (4 bytes),
// length of the owner (1 byte; 0 when the owner is in lower case, as in the
// key), the owner in wire form, case kept; then for each record its RDATA's
// length (2 bytes) and RDATA. RDATA is uncompressed, case kept, and stands
// in the canonical order of its folded form (RFC 4034, 6.3). Numbers are
// big-endian.
type Value []byte

const valueHeader = 5

// AppendValue appends the value of an RRset. rdata must be sorted with
// SortRData and free of duplicates.
func AppendValue(dst []byte, owner Name, ttl uint32, rdata ...[]byte) Value {
	dst = AppendValueHeader(dst, owner, ttl)
	for _, d := range rdata {
		dst = AppendRData(dst, d)
	}
	return dst
}

// AppendValueHeader appends TTL and owner; records follow with AppendRData.
func AppendValueHeader(dst []byte, owner Name, ttl uint32) []byte {
	dst = binary.BigEndian.AppendUint32(dst, ttl)
	if owner.IsFolded() {
		return append(dst, 0)
	}
	dst = append(dst, byte(len(owner)))
	return append(dst, owner...)
}

// AppendRData appends one record's length and RDATA.
func AppendRData(dst []byte, rdata []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(rdata)))
	return append(dst, rdata...)
}

// TTL is the RRset's time to live in seconds.
func (v Value) TTL() uint32 { return binary.BigEndian.Uint32(v) }

// Owner is the owner in wire form with its case, or nil where it is in lower
// case and follows from the key.
func (v Value) Owner() []byte {
	n := int(v[4])
	if n == 0 {
		return nil
	}
	return v[valueHeader : valueHeader+n]
}

// body is the part with the records.
func (v Value) body() []byte { return v[valueHeader+int(v[4]):] }

// Records walks the RDATA of each record. The value must be valid.
func (v Value) Records() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for b := v.body(); len(b) > 0; {
			n := int(binary.BigEndian.Uint16(b))
			if !yield(b[2 : 2+n : 2+n]) {
				return
			}
			b = b[2+n:]
		}
	}
}

// Count is the number of records.
func (v Value) Count() int {
	n := 0
	for range v.Records() {
		n++
	}
	return n
}

var errBadValue = errors.New("malformed RRset value")

// Check reports whether the value's lengths are right. Values from outside
// (chunks) are checked once, before anything else reads them.
func (v Value) Check() error {
	if len(v) < valueHeader || len(v) < valueHeader+int(v[4]) {
		return errBadValue
	}
	if o := v.Owner(); o != nil {
		if n, err := NameLength(o); err != nil || n != len(o) {
			return errBadValue
		}
	}
	b := v.body()
	if len(b) == 0 {
		return errBadValue
	}
	for len(b) > 0 {
		if len(b) < 2 || len(b) < 2+int(binary.BigEndian.Uint16(b)) {
			return errBadValue
		}
		b = b[2+int(binary.BigEndian.Uint16(b)):]
	}
	return nil
}

// RRset is one RRset taken out of its item, for code that is not on a hot
// path.
type RRset struct {
	Owner Name
	Type  Type
	TTL   uint32
	Data  [][]byte // RDATA in canonical order
}

// RRsetOf makes an RRset of an item. The slices of Data are copies.
func RRsetOf(key, value []byte) (RRset, error) {
	_, ownerKey, t, err := SplitKey(key)
	if err != nil {
		return RRset{}, err
	}
	v := Value(value)
	if err := v.Check(); err != nil {
		return RRset{}, err
	}
	set := RRset{Type: t, TTL: v.TTL(), Owner: Name(v.Owner())}
	if set.Owner == "" {
		if set.Owner, err = NameOfKey(ownerKey); err != nil {
			return RRset{}, err
		}
	}
	for d := range v.Records() {
		set.Data = append(set.Data, bytes.Clone(d))
	}
	return set, nil
}

// Value is the value of the RRset; Data is sorted and freed of duplicates
// first.
func (s *RRset) Value() Value {
	s.Data = SortRData(s.Type, s.Data)
	return AppendValue(nil, s.Owner, s.TTL, s.Data...)
}

// SortRData sorts RDATA of type t in canonical order and drops duplicates
// (RFC 4034, 6.3). Names inside are compared in lower case where RFC 4034,
// 6.2 and RFC 6840, 5.1 say so.
func SortRData(t Type, rdata [][]byte) [][]byte {
	compare := func(a, b []byte) int { return CompareRData(t, a, b) }
	slices.SortStableFunc(rdata, compare)
	return slices.CompactFunc(rdata, func(a, b []byte) bool { return compare(a, b) == 0 })
}
