package zone

import (
	"errors"
	"fmt"
)

// Name is a domain name in uncompressed wire form (RFC 1035, 3.1), case kept.
// The zero value is not a name; the root is Root.
type Name string

// Root is the name of the root zone.
const Root Name = "\x00"

// MaxNameLength is the longest name in wire form (RFC 1035, 2.3.4).
const MaxNameLength = 255

var (
	errEmptyLabel   = errors.New("empty label")
	errLongLabel    = errors.New("label longer than 63 bytes")
	errLongName     = errors.New("name longer than 255 bytes")
	errBadEscape    = errors.New("bad escape")
	errEmptyName    = errors.New("empty name")
	errTruncated    = errors.New("truncated name")
	errCompressed   = errors.New("compressed name")
	errTrailingData = errors.New("data after the name")
)

// ParseName reads an absolute name in presentation form (RFC 1035, 5.1). The
// final dot may be absent.
func ParseName(text string) (Name, error) { return ParseNameAt(text, Root) }

// ParseNameAt reads a name in presentation form; one without a final dot is
// relative to origin, and "@" is origin itself.
func ParseNameAt(text string, origin Name) (Name, error) {
	var buf [MaxNameLength]byte
	wire, err := appendNameText(buf[:0], []byte(text), origin)
	if err != nil {
		return "", fmt.Errorf("name %q: %w", text, err)
	}
	return Name(wire), nil
}

// appendNameText appends the name that text stands for, as ParseNameAt reads
// it. On an error dst may have grown.
func appendNameText(dst, text []byte, origin Name) ([]byte, error) {
	switch {
	case len(text) == 0:
		return dst, errEmptyName
	case len(text) == 1 && text[0] == '@':
		return append(dst, origin...), nil
	case len(text) == 1 && text[0] == '.':
		return append(dst, 0), nil
	}
	base, start := len(dst), len(dst)
	dst = append(dst, 0)
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c == '.' {
			n := len(dst) - start - 1
			if n == 0 {
				return dst, errEmptyLabel
			}
			if n > 63 {
				return dst, errLongLabel
			}
			dst[start] = byte(n)
			start = len(dst)
			dst = append(dst, 0)
			continue
		}
		if c == '\\' {
			b, used, ok := unescape(text[i+1:])
			if !ok {
				return dst, errBadEscape
			}
			c = b
			i += used
		}
		dst = append(dst, c)
	}
	if n := len(dst) - start - 1; n > 63 {
		return dst, errLongLabel
	} else if n > 0 {
		// No final dot: relative to origin.
		dst[start] = byte(n)
		dst = append(dst, origin...)
	}
	if len(dst)-base > MaxNameLength {
		return dst, errLongName
	}
	return dst, nil
}

// unescape reads what follows a backslash: DDD or a single character.
func unescape(s []byte) (b byte, used int, ok bool) {
	if len(s) == 0 {
		return 0, 0, false
	}
	if s[0] < '0' || s[0] > '9' {
		return s[0], 1, true
	}
	if len(s) < 3 || s[1] < '0' || s[1] > '9' || s[2] < '0' || s[2] > '9' {
		return 0, 0, false
	}
	v := int(s[0]-'0')*100 + int(s[1]-'0')*10 + int(s[2]-'0')
	return byte(v), 3, v <= 255
}

// NameFromWire checks that wire holds exactly one uncompressed name.
func NameFromWire(wire []byte) (Name, error) {
	n, err := NameLength(wire)
	if err != nil {
		return "", err
	}
	if n != len(wire) {
		return "", errTrailingData
	}
	return Name(wire), nil
}

// NameLength reports how many bytes the uncompressed name at the start of
// wire takes.
func NameLength(wire []byte) (int, error) {
	for i := 0; i < len(wire) && i < MaxNameLength; {
		l := int(wire[i])
		switch {
		case l == 0:
			return i + 1, nil
		case l > 63:
			return 0, errCompressed
		}
		i += 1 + l
	}
	if len(wire) >= MaxNameLength {
		return 0, errLongName
	}
	return 0, errTruncated
}

// String is the presentation form with the final dot.
func (n Name) String() string {
	if n == "" {
		return ""
	}
	return string(n.AppendText(make([]byte, 0, len(n)+8)))
}

// AppendText appends the presentation form with the final dot.
func (n Name) AppendText(dst []byte) []byte {
	return appendNameAsText(dst, n)
}

// appendNameAsText appends a name in wire form as text.
func appendNameAsText[N Name | []byte](dst []byte, n N) []byte {
	if len(n) <= 1 {
		return append(dst, '.')
	}
	for i := 0; i < len(n) && n[i] != 0; {
		end := i + 1 + int(n[i])
		for j := i + 1; j < end; j++ {
			switch c := n[j]; {
			case (c >= 'a' && c <= 'z') || c == '-' || (c >= '0' && c <= '9'):
				dst = append(dst, c)
			case c == '.' || c == '\\' || c == '"' || c == '(' || c == ')' || c == ';' || c == '@' || c == '$':
				dst = append(dst, '\\', c)
			case c <= ' ' || c >= 0x7f:
				dst = append(dst, '\\', '0'+c/100, '0'+c/10%10, '0'+c%10)
			default:
				dst = append(dst, c)
			}
		}
		dst = append(dst, '.')
		i = end
	}
	return dst
}

// Fold is the name in lower case, the form used for order and signatures
// (RFC 4034, 6.2).
func (n Name) Fold() Name {
	for i := 0; i < len(n); i++ {
		if c := n[i]; c >= 'A' && c <= 'Z' {
			// Label lengths are at most 63, so they are never letters.
			return Name(AppendFold(make([]byte, 0, len(n)), []byte(n)))
		}
	}
	return n
}

// IsFolded reports whether the name holds no upper-case letter.
func (n Name) IsFolded() bool { return isFolded(n) }

func isFolded[N Name | []byte](n N) bool {
	for i := 0; i < len(n); i++ {
		if c := n[i]; c >= 'A' && c <= 'Z' {
			return false
		}
	}
	return true
}

// Equal compares without regard to case (RFC 4343).
func (n Name) Equal(o Name) bool {
	if len(n) != len(o) {
		return false
	}
	for i := 0; i < len(n); i++ {
		if foldByte(n[i]) != foldByte(o[i]) {
			return false
		}
	}
	return true
}

// Under reports whether n is apex or below it.
func (n Name) Under(apex Name) bool {
	d := len(n) - len(apex)
	if d < 0 || !n[d:].Equal(apex) {
		return false
	}
	for i := 0; i < d; {
		i += 1 + int(n[i])
		if i == d {
			return true
		}
	}
	return d == 0
}

// Parent is the name without its first label; the root is its own parent.
func (n Name) Parent() Name {
	if len(n) <= 1 {
		return Root
	}
	return n[1+int(n[0]):]
}

// Labels counts the labels without the root.
func (n Name) Labels() int {
	count := 0
	for i := 0; i < len(n) && n[i] != 0; i += 1 + int(n[i]) {
		count++
	}
	return count
}

// IsWildcard reports whether the first label is "*" (RFC 4592, 2.1.1).
func (n Name) IsWildcard() bool { return len(n) > 2 && n[0] == 1 && n[1] == '*' }

func foldByte(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// AppendFold appends wire with upper-case ASCII letters made lower case.
func AppendFold(dst []byte, wire []byte) []byte {
	for _, c := range wire {
		dst = append(dst, foldByte(c))
	}
	return dst
}
