package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	// maxInteger is the largest integer that every JSON reader keeps exact.
	maxInteger = 1 << 53
	maxDepth   = 16
)

// canonical appends the RFC 8785 form of one JSON text to dst. The text is as
// encoding/json writes it: valid and without white space. Numbers must be
// integers; object members that are null are dropped.
func canonical(dst, src []byte) ([]byte, error) {
	c := canonicalizer{src: src}
	dst, err := c.value(dst, 0)
	if err != nil {
		return nil, err
	}
	if c.at != len(src) {
		return nil, errors.New("more than one JSON value")
	}
	return dst, nil
}

type canonicalizer struct {
	src []byte
	at  int
}

var (
	errNull   = errors.New("null outside an object")
	errSyntax = errors.New("no valid JSON")
)

// peek returns the next byte, 0 at the end.
func (c *canonicalizer) peek() byte {
	if c.at < len(c.src) {
		return c.src[c.at]
	}
	return 0
}

// accept steps over a byte if it is the next one.
func (c *canonicalizer) accept(b byte) bool {
	if c.peek() != b {
		return false
	}
	c.at++
	return true
}

func (c *canonicalizer) value(dst []byte, depth int) ([]byte, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("nested deeper than %d", maxDepth)
	}
	switch c.peek() {
	case '{':
		return c.object(dst, depth)
	case '[':
		return c.array(dst, depth)
	case '"':
		s, err := c.str()
		return append(dst, s...), err
	case 't', 'f', 'n':
		return c.literal(dst)
	default:
		return c.number(dst)
	}
}

func (c *canonicalizer) literal(dst []byte) ([]byte, error) {
	for _, word := range []string{"true", "false"} {
		if bytes.HasPrefix(c.src[c.at:], []byte(word)) {
			c.at += len(word)
			return append(dst, word...), nil
		}
	}
	if c.null() {
		return nil, errNull
	}
	return nil, errSyntax
}

// null steps over a null.
func (c *canonicalizer) null() bool {
	if !bytes.HasPrefix(c.src[c.at:], []byte("null")) {
		return false
	}
	c.at += len("null")
	return true
}

func (c *canonicalizer) array(dst []byte, depth int) ([]byte, error) {
	c.at++
	dst = append(dst, '[')
	if c.accept(']') {
		return append(dst, ']'), nil
	}
	for {
		var err error
		if dst, err = c.value(dst, depth+1); err != nil {
			return nil, err
		}
		switch {
		case c.accept(','):
			dst = append(dst, ',')
		case c.accept(']'):
			return append(dst, ']'), nil
		default:
			return nil, errSyntax
		}
	}
}

// member is one object member: its canonical key, and where key, colon and
// value stand in the buffer.
type member struct {
	key      []byte
	from, to int
}

func (c *canonicalizer) object(dst []byte, depth int) ([]byte, error) {
	c.at++
	dst = append(dst, '{')
	if c.accept('}') {
		return append(dst, '}'), nil
	}
	start := len(dst)
	var room [16]member
	members := room[:0]
	for more := true; more; {
		key, err := c.str()
		if err != nil {
			return nil, err
		}
		if !c.accept(':') {
			return nil, errSyntax
		}
		if !c.null() {
			from := len(dst)
			dst = append(append(dst, key...), ':')
			if dst, err = c.value(dst, depth+1); err != nil {
				return nil, err
			}
			dst = append(dst, ',')
			members = append(members, member{key, from, len(dst)})
		}
		more = c.accept(',')
	}
	if !c.accept('}') {
		return nil, errSyntax
	}
	if err := sortMembers(dst[start:], start, members); err != nil {
		return nil, err
	}
	if len(members) > 0 {
		dst = dst[:len(dst)-1] // the last comma
	}
	return append(dst, '}'), nil
}

// sortMembers brings the members in buf, each ended by a comma, into order.
func sortMembers(buf []byte, start int, members []member) error {
	ascending := func(i int) bool { return i == 0 || compareKeys(members[i-1].key, members[i].key) < 0 }
	done := true
	for i := range members {
		done = done && ascending(i)
	}
	if done {
		return nil
	}
	slices.SortFunc(members, func(a, b member) int { return compareKeys(a.key, b.key) })
	was := bytes.Clone(buf)
	at := 0
	for i, m := range members {
		if !ascending(i) {
			return fmt.Errorf("member %s twice", m.key)
		}
		at += copy(buf[at:], was[m.from-start:m.to-start])
	}
	return nil
}

// compareKeys orders two canonical keys with their quotes by the UTF-16 code
// units that they stand for (RFC 8785, 3.2.3).
func compareKeys(a, b []byte) int {
	if plain(a) && plain(b) {
		return bytes.Compare(a[1:len(a)-1], b[1:len(b)-1])
	}
	var s, t string
	if json.Unmarshal(a, &s) != nil || json.Unmarshal(b, &t) != nil {
		return bytes.Compare(a, b)
	}
	return slices.Compare(utf16.Encode([]rune(s)), utf16.Encode([]rune(t)))
}

func plain(key []byte) bool {
	for _, b := range key {
		if b >= utf8.RuneSelf || b == '\\' {
			return false
		}
	}
	return true
}

// str reads a string and returns it in canonical form, with quotes.
func (c *canonicalizer) str() ([]byte, error) {
	from := c.at
	if !c.accept('"') {
		return nil, errSyntax
	}
	simple := true
	for ; c.at < len(c.src); c.at++ {
		switch b := c.src[c.at]; {
		case b == '\\':
			simple = false
			c.at++
		case b < 0x20:
			return nil, errSyntax
		case b == '"':
			c.at++
			text := c.src[from:c.at]
			if !utf8.Valid(text) {
				return nil, fmt.Errorf("string %q is not UTF-8", text)
			}
			if simple {
				return text, nil
			}
			var s string
			if err := json.Unmarshal(text, &s); err != nil {
				return nil, err
			}
			return appendString(make([]byte, 0, len(text)), s), nil
		}
	}
	return nil, errSyntax
}

func (c *canonicalizer) number(dst []byte) ([]byte, error) {
	from := c.at
	for c.at < len(c.src) && (c.src[c.at] == '-' || c.src[c.at] == '+' || c.src[c.at] == '.' ||
		c.src[c.at] >= '0' && c.src[c.at] <= '9' || c.src[c.at]|0x20 == 'e') {
		c.at++
	}
	text := string(c.src[from:c.at])
	i, err := strconv.ParseInt(text, 10, 64)
	switch {
	case text == "":
		return nil, errSyntax
	case err != nil:
		return nil, fmt.Errorf("number %s is no integer of 64 bits", text)
	case i > maxInteger || i < -maxInteger:
		return nil, fmt.Errorf("number %s is beyond 2^53", text)
	}
	return strconv.AppendInt(dst, i, 10), nil
}

// appendString writes a string as RFC 8785, 3.2.2.2 has it: only the quote,
// the backslash and control characters are escaped.
func appendString(dst []byte, s string) []byte {
	const digits = "0123456789abcdef"
	dst = append(dst, '"')
	for i := 0; i < len(s); i++ {
		b := s[i]
		switch {
		case b == '"' || b == '\\':
			dst = append(dst, '\\', b)
		case b >= 0x20:
			dst = append(dst, b)
		case b == '\b':
			dst = append(dst, '\\', 'b')
		case b == '\t':
			dst = append(dst, '\\', 't')
		case b == '\n':
			dst = append(dst, '\\', 'n')
		case b == '\f':
			dst = append(dst, '\\', 'f')
		case b == '\r':
			dst = append(dst, '\\', 'r')
		default:
			dst = append(dst, '\\', 'u', '0', '0', digits[b>>4], digits[b&15])
		}
	}
	return append(dst, '"')
}
