package zone

import (
	"encoding/binary"
	"errors"
)

// Kind says to which part of a zone an item belongs. Within a kind, items
// stand in canonical order.
type Kind byte

// The kinds of items. Values are fixed: they stand in chunks for ever.
const (
	// KindDigest holds the state of a set hash; its key is the kind alone.
	// It is the last item of an instance's chunks.
	KindDigest Kind = 0x7f
	// KindContents is an RRset of the input, signer's own records left out.
	KindContents Kind = 0x10
	// KindMade is an RRset made by the signer: SOA with our serial, DNSKEY,
	// CDS, CDNSKEY, NSEC3PARAM, ZONEMD, NSEC. It hides a KindContents item of
	// the same owner and type.
	KindMade Kind = 0x11
	// KindSigs is the set of RRSIGs over one RRset of KindContents or
	// KindMade; the key's type is the covered type.
	KindSigs Kind = 0x12
	// KindChain is an NSEC3 record.
	KindChain Kind = 0x13
	// KindChainSigs is the set of RRSIGs over one NSEC3 record; the key's
	// type is NSEC3.
	KindChainSigs Kind = 0x14
)

// A key is: kind (1 byte), owner key, type (2 bytes, big-endian).
//
// An owner key sorts in canonical order (RFC 4034, 6.1): the labels from
// right to left in lower case, 0x00 written as 0x01 0x01 and 0x01 as 0x01
// 0x02, each label ended by 0x00 and the name by a further 0x00. A parent
// sorts before its children, and all RRsets of a name stand together.

// AppendKey appends the key of an item.
func AppendKey(dst []byte, kind Kind, owner Name, t Type) []byte {
	dst = append(dst, byte(kind))
	dst = AppendOwnerKey(dst, owner)
	return append(dst, byte(t>>8), byte(t))
}

// AppendOwnerKey appends the owner key of n.
func AppendOwnerKey(dst []byte, n Name) []byte {
	return append(appendLabels(dst, n), 0)
}

func appendOwnerKey(dst, wire []byte) []byte { return append(appendLabels(dst, wire), 0) }

// AppendOwnerPrefix appends the owner key of n without its last byte. Every
// owner key that begins with it is n or below n.
func AppendOwnerPrefix(dst []byte, n Name) []byte { return appendLabels(dst, n) }

func appendLabels[N Name | []byte](dst []byte, n N) []byte {
	var starts [128]uint8
	count := 0
	for i := 0; i < len(n) && n[i] != 0; i += 1 + int(n[i]) {
		starts[count] = uint8(i)
		count++
	}
	for count--; count >= 0; count-- {
		i := int(starts[count])
		for _, c := range []byte(n[i+1 : i+1+int(n[i])]) {
			switch c = foldByte(c); c {
			case 0:
				dst = append(dst, 1, 1)
			case 1:
				dst = append(dst, 1, 2)
			default:
				dst = append(dst, c)
			}
		}
		dst = append(dst, 0)
	}
	return dst
}

var errBadKey = errors.New("malformed item key")

// SplitKey takes a key apart. The owner key keeps its terminator. It returns
// an error for anything that AppendKey cannot have made, KindDigest excepted.
func SplitKey(key []byte) (kind Kind, ownerKey []byte, t Type, err error) {
	if len(key) < 4 {
		return 0, nil, 0, errBadKey
	}
	kind, ownerKey = Kind(key[0]), key[1:len(key)-2]
	if kind < KindContents || kind > KindChainSigs || ownerKey[len(ownerKey)-1] != 0 {
		return 0, nil, 0, errBadKey
	}
	return kind, ownerKey, Type(binary.BigEndian.Uint16(key[len(key)-2:])), nil
}

// AppendNameOfKey appends, in wire form and lower case, the name whose owner
// key is given.
func AppendNameOfKey(dst []byte, ownerKey []byte) ([]byte, error) {
	if len(ownerKey) == 0 || ownerKey[len(ownerKey)-1] != 0 {
		return dst, errBadKey
	}
	var ends [128]uint16
	count, start, body := 0, 0, ownerKey[:len(ownerKey)-1]
	for i, c := range body {
		if c != 0 {
			continue
		}
		if i == start || count == len(ends) {
			return dst, errBadKey
		}
		ends[count] = uint16(i)
		count++
		start = i + 1
	}
	if start != len(body) || len(body) > 2*MaxNameLength {
		return dst, errBadKey
	}
	base := len(dst)
	for count--; count >= 0; count-- {
		from := 0
		if count > 0 {
			from = int(ends[count-1]) + 1
		}
		at := len(dst)
		dst = append(dst, 0)
		label := body[from:ends[count]]
		for i := 0; i < len(label); i++ {
			c := label[i]
			if c == 1 {
				if i++; i == len(label) || label[i] < 1 || label[i] > 2 {
					return dst, errBadKey
				}
				c = label[i] - 1
			}
			dst = append(dst, c)
		}
		if len(dst)-at-1 > 63 {
			return dst, errBadKey
		}
		dst[at] = byte(len(dst) - at - 1)
	}
	dst = append(dst, 0)
	if len(dst)-base > MaxNameLength {
		return dst, errBadKey
	}
	return dst, nil
}

// validOwnerKey reports whether AppendOwnerKey can have made k.
func validOwnerKey(k []byte) bool {
	if len(k) == 0 || k[len(k)-1] != 0 {
		return false
	}
	label, total := 0, 1
	for i := 0; i < len(k)-1; i++ {
		switch c := k[i]; {
		case c == 0:
			if label == 0 {
				return false
			}
			total += 1 + label
			label = 0
			continue
		case c == 1:
			if i++; k[i] != 1 && k[i] != 2 {
				return false
			}
		case c >= 'A' && c <= 'Z':
			return false
		}
		if label++; label > 63 {
			return false
		}
	}
	return label == 0 && total <= MaxNameLength
}

// NameOfKey is AppendNameOfKey into a new Name.
func NameOfKey(ownerKey []byte) (Name, error) {
	var buf [MaxNameLength + 64]byte
	wire, err := AppendNameOfKey(buf[:0], ownerKey)
	return Name(wire), err
}

// Iterator walks items in ascending order of their keys. Key and Value are
// valid until the next call of Next or Close. A value of length zero deletes
// the key (in a diff only).
type Iterator interface {
	// Next moves to the next item; false at the end or after an error.
	Next() bool
	// Key is the key of the present item.
	Key() []byte
	// Value is the value of the present item.
	Value() []byte
	// Err is what ended the walk early.
	Err() error
	// Close frees what the iterator holds.
	Close() error
}
