package kmip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
)

// Types of an item (KMIP 1.4, 9.1.1.2).
const (
	typeStructure   = 0x01
	typeInteger     = 0x02
	typeLong        = 0x03
	typeBigInteger  = 0x04
	typeEnumeration = 0x05
	typeBoolean     = 0x06
	typeText        = 0x07
	typeBytes       = 0x08
	typeDateTime    = 0x09
	typeInterval    = 0x0A
	typeDateTimeX   = 0x0B // in microseconds, KMIP 2.0
)

const (
	headerLength = 8  // tag, type and length of an item
	maxDepth     = 24 // of structures in structures
)

// errEncoding reports what is no TTLV.
var errEncoding = errors.New("malformed KMIP message")

// item is a TTLV item: tag, type and value without padding. It refers to the
// message that it was read from, and takes no memory of its own.
type item struct {
	tag   uint32
	kind  byte
	value []byte
}

// decode reads a message, which is one item, and checks all that is in it: what
// is read of it later is well-formed.
func decode(message []byte) (item, error) {
	it, rest, err := next(message)
	if err != nil {
		return item{}, err
	}
	if len(rest) > 0 {
		return item{}, fmt.Errorf("%w: %d bytes too many", errEncoding, len(rest))
	}
	return it, it.check(0)
}

// next reads the first item of b.
func next(b []byte) (it item, rest []byte, err error) {
	if len(b) < headerLength {
		return it, nil, fmt.Errorf("%w: it ends within an item", errEncoding)
	}
	it.tag, it.kind = uint32(b[0])<<16|uint32(b[1])<<8|uint32(b[2]), b[3]
	length := uint64(binary.BigEndian.Uint32(b[4:]))
	b = b[headerLength:]
	padded := (length + 7) &^ 7
	if padded > uint64(len(b)) {
		return it, nil, fmt.Errorf("%w: item %06X of %d bytes ends beyond the message", errEncoding, it.tag, length)
	}
	it.value = b[:length:length]
	return it, b[padded:], nil
}

// check checks the type and length of an item and of all in it.
func (it item) check(depth int) error {
	ok := false
	switch it.kind {
	case typeStructure:
		if depth > maxDepth {
			return fmt.Errorf("%w: more than %d structures in one another", errEncoding, maxDepth)
		}
		rest := it.value
		for len(rest) > 0 {
			var sub item
			var err error
			if sub, rest, err = next(rest); err != nil {
				return err
			}
			if err := sub.check(depth + 1); err != nil {
				return err
			}
		}
		return nil
	case typeInteger, typeEnumeration, typeInterval:
		ok = len(it.value) == 4
	case typeLong, typeBoolean, typeDateTime, typeDateTimeX:
		ok = len(it.value) == 8
	case typeBigInteger:
		ok = len(it.value) > 0 && len(it.value)%8 == 0
	case typeText, typeBytes:
		ok = true
	}
	if !ok {
		return fmt.Errorf("%w: item %06X of type %d has %d bytes", errEncoding, it.tag, it.kind, len(it.value))
	}
	return nil
}

// items walks what a structure has in it; nothing of another type.
func (it item) items() iter.Seq[item] {
	return func(yield func(item) bool) {
		if it.kind != typeStructure {
			return
		}
		for rest := it.value; len(rest) > 0; {
			sub, after, err := next(rest)
			if err != nil || !yield(sub) {
				return
			}
			rest = after
		}
	}
}

// find gives the first item of a structure with a tag; the zero item where there
// is none. Further tags lead into what was found.
func (it item) find(tags ...uint32) item {
	for _, tag := range tags {
		var found item
		for sub := range it.items() {
			if sub.tag == tag {
				found = sub
				break
			}
		}
		it = found
	}
	return it
}

// is reports whether there is such an item, of a type.
func (it item) is(kind byte) bool { return it.tag != 0 && it.kind == kind }

// number is the value of an enumeration or integer; ok is false for others.
func (it item) number() (n uint32, ok bool) {
	if !it.is(typeEnumeration) && !it.is(typeInteger) {
		return 0, false
	}
	return binary.BigEndian.Uint32(it.value), true
}

// text is the value of a text string, with what does not print left out, and no
// longer than most bytes.
func (it item) text(most int) string {
	if !it.is(typeText) {
		return ""
	}
	return printable(string(it.value), most)
}

// printable leaves out of a server's text what does not print.
func printable(s string, most int) string {
	var out []rune
	for _, r := range s {
		if len(out) >= most {
			out = append(out, '.', '.', '.')
			break
		}
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0xfffd {
			r = ' '
		}
		out = append(out, r)
	}
	return string(out)
}

// encoder appends items.
type encoder struct{ b []byte }

// head appends tag and type, and leaves room for the length.
func (e *encoder) head(tag uint32, kind byte) {
	e.b = append(e.b, byte(tag>>16), byte(tag>>8), byte(tag), kind, 0, 0, 0, 0)
}

// structure appends a structure with what fn appends.
func (e *encoder) structure(tag uint32, fn func()) {
	start := len(e.b)
	e.head(tag, typeStructure)
	fn()
	binary.BigEndian.PutUint32(e.b[start+4:], uint32(len(e.b)-start-headerLength)) //nolint:gosec // bounded by maxRequest
}

// raw appends an item of any type but a structure.
func (e *encoder) raw(tag uint32, kind byte, value []byte) {
	start := len(e.b)
	e.head(tag, kind)
	binary.BigEndian.PutUint32(e.b[start+4:], uint32(len(value))) //nolint:gosec // bounded by maxRequest
	e.b = append(e.b, value...)
	for len(e.b)%8 != 0 {
		e.b = append(e.b, 0)
	}
}

func (e *encoder) integer(tag, n uint32) {
	e.raw(tag, typeInteger, binary.BigEndian.AppendUint32(nil, n))
}

func (e *encoder) enumeration(tag, n uint32) {
	e.raw(tag, typeEnumeration, binary.BigEndian.AppendUint32(nil, n))
}

func (e *encoder) boolean(tag uint32, yes bool) {
	n := uint64(0)
	if yes {
		n = 1
	}
	e.raw(tag, typeBoolean, binary.BigEndian.AppendUint64(nil, n))
}

func (e *encoder) text(tag uint32, s string) { e.raw(tag, typeText, []byte(s)) }

func (e *encoder) bytes(tag uint32, b []byte) { e.raw(tag, typeBytes, b) }
