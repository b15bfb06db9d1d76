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

// canonical appends the RFC 8785 form of one JSON text to dst. It takes
// integers only, and drops object members that are null.
func canonical(dst, src []byte) ([]byte, error) {
	c := canonicalizer{dec: json.NewDecoder(bytes.NewReader(src))}
	c.dec.UseNumber()
	dst, err := c.value(dst, 0)
	if err != nil {
		return nil, err
	}
	if _, err := c.dec.Token(); err == nil {
		return nil, errors.New("more than one JSON value")
	}
	return dst, nil
}

type canonicalizer struct{ dec *json.Decoder }

var errNull = errors.New("null in an array")

func (c *canonicalizer) value(dst []byte, depth int) ([]byte, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("nested deeper than %d", maxDepth)
	}
	tok, err := c.dec.Token()
	if err != nil {
		return nil, err
	}
	switch t := tok.(type) {
	case json.Delim:
		if t == '{' {
			return c.object(dst, depth)
		}
		return c.array(dst, depth)
	case string:
		return appendString(dst, t)
	case json.Number:
		return appendNumber(dst, t)
	case bool:
		return strconv.AppendBool(dst, t), nil
	default:
		return nil, errNull
	}
}

func (c *canonicalizer) array(dst []byte, depth int) ([]byte, error) {
	dst = append(dst, '[')
	for i := 0; c.dec.More(); i++ {
		if i > 0 {
			dst = append(dst, ',')
		}
		var err error
		if dst, err = c.value(dst, depth+1); err != nil {
			return nil, err
		}
	}
	if _, err := c.dec.Token(); err != nil {
		return nil, err
	}
	return append(dst, ']'), nil
}

// member is one object member; its value stands in the buffer from..to.
type member struct {
	key      string
	from, to int
}

func (c *canonicalizer) object(dst []byte, depth int) ([]byte, error) {
	var (
		members []member
		values  []byte
	)
	for c.dec.More() {
		tok, err := c.dec.Token()
		if err != nil {
			return nil, err
		}
		key, _ := tok.(string)
		from := len(values)
		grown, err := c.value(values, depth+1)
		if errors.Is(err, errNull) {
			continue
		}
		if err != nil {
			return nil, err
		}
		values = grown
		members = append(members, member{key, from, len(values)})
	}
	if _, err := c.dec.Token(); err != nil {
		return nil, err
	}
	slices.SortFunc(members, func(a, b member) int { return compareUTF16(a.key, b.key) })
	dst = append(dst, '{')
	for i, m := range members {
		if i > 0 {
			if m.key == members[i-1].key {
				return nil, fmt.Errorf("member %q twice", m.key)
			}
			dst = append(dst, ',')
		}
		var err error
		if dst, err = appendString(dst, m.key); err != nil {
			return nil, err
		}
		dst = append(dst, ':')
		dst = append(dst, values[m.from:m.to]...)
	}
	return append(dst, '}'), nil
}

// compareUTF16 orders keys by their UTF-16 code units (RFC 8785, 3.2.3).
func compareUTF16(a, b string) int {
	for i := 0; i < len(a) && i < len(b); i++ {
		if a[i] >= utf8.RuneSelf || b[i] >= utf8.RuneSelf {
			return slices.Compare(utf16.Encode([]rune(a)), utf16.Encode([]rune(b)))
		}
		if a[i] != b[i] {
			return int(a[i]) - int(b[i])
		}
	}
	return len(a) - len(b)
}

func appendNumber(dst []byte, n json.Number) ([]byte, error) {
	i, err := strconv.ParseInt(string(n), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("number %s is no integer", n)
	}
	if i > maxInteger || i < -maxInteger {
		return nil, fmt.Errorf("number %s is beyond 2^53", n)
	}
	return strconv.AppendInt(dst, i, 10), nil
}

// appendString writes a string as RFC 8785, 3.2.2.2 has it: only the quote,
// the backslash and control characters are escaped.
func appendString(dst []byte, s string) ([]byte, error) {
	if !utf8.ValidString(s) {
		return nil, fmt.Errorf("string %q is not UTF-8", s)
	}
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
	return append(dst, '"'), nil
}
