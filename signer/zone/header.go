package zone

import (
	"errors"
	"fmt"
)

// header is what stands between owner and RDATA.
type header struct {
	t       Type
	ttl     uint32
	haveTTL bool
}

var (
	errClass       = errors.New("class is not IN")
	errTwice       = errors.New("class or TTL given twice")
	errBadTTL      = errors.New("bad TTL")
	errUnknownType = errors.New("unknown record type")
	errTTLRange    = fmt.Errorf("TTL above %d", maxTTL)
)

// parseHeader reads TTL and class, in any order and each optional, and the
// type; it returns the tokens of the RDATA.
func parseHeader(tokens []token) (h header, rest []token, err error) {
	haveClass := false
	for i := range tokens {
		text := tokens[i].text
		if tokens[i].quoted || len(text) == 0 {
			break
		}
		if text[0] >= '0' && text[0] <= '9' {
			if h.haveTTL {
				return h, nil, errTwice
			}
			if h.ttl, err = parseTTL(text); err != nil {
				return h, nil, err
			}
			h.haveTTL = true
			continue
		}
		if is, in := parseClass(text); is {
			if !in {
				return h, nil, fmt.Errorf("%w: %q", errClass, text)
			}
			if haveClass {
				return h, nil, errTwice
			}
			haveClass = true
			continue
		}
		t, ok := parseTypeText(text)
		if !ok {
			return h, nil, fmt.Errorf("%w %.40q (by its number it is understood: TYPE1234 \\# ..., RFC 3597)", errUnknownType, text)
		}
		h.t = t
		return h, tokens[i+1:], nil
	}
	return h, nil, errNoType
}

// parseClass reports whether text is a class, and whether it is IN. ANY is
// read as the type.
func parseClass(text []byte) (is, in bool) {
	switch len(text) {
	case 2:
		a, b := text[0]&^0x20, text[1]&^0x20
		in = a == 'I' && b == 'N'
		return in || (a == 'C' && (b == 'H' || b == 'S')) || (a == 'H' && b == 'S'), in
	case 4:
		return equalFold(text, "NONE"), false
	}
	if len(text) > 5 && equalFold(text[:5], "CLASS") {
		n, ok := parseUint(text[5:], 0xffff)
		return ok, n == 1
	}
	return false, false
}

// parseTypeText is ParseType with the common types ahead and no allocation.
func parseTypeText(text []byte) (Type, bool) {
	switch string(text) {
	case "A":
		return TypeA, true
	case "NS":
		return TypeNS, true
	case "DS":
		return TypeDS, true
	case "AAAA":
		return TypeAAAA, true
	case "RRSIG":
		return TypeRRSIG, true
	case "NSEC3":
		return TypeNSEC3, true
	case "NSEC":
		return TypeNSEC, true
	case "CNAME":
		return TypeCNAME, true
	case "MX":
		return TypeMX, true
	case "TXT":
		return TypeTXT, true
	}
	return ParseType(string(text))
}

// parseTTL reads seconds, or numbers with the units w, d, h, m and s.
func parseTTL(text []byte) (uint32, error) {
	var total, n uint64
	digits := false
	for _, c := range text {
		if c >= '0' && c <= '9' {
			n = n*10 + uint64(c-'0')
			digits = true
		} else {
			if !digits {
				return 0, fmt.Errorf("%w %.40q", errBadTTL, text)
			}
			switch c | 0x20 {
			case 'w':
				n *= 7 * 24 * 3600
			case 'd':
				n *= 24 * 3600
			case 'h':
				n *= 3600
			case 'm':
				n *= 60
			case 's':
			default:
				return 0, fmt.Errorf("%w %.40q", errBadTTL, text)
			}
			total += n
			n, digits = 0, false
		}
		if n > maxTTL || total > maxTTL {
			return 0, errTTLRange
		}
	}
	if total += n; total > maxTTL {
		return 0, errTTLRange
	}
	if len(text) == 0 {
		return 0, errBadTTL
	}
	return uint32(total), nil
}

// parseUint reads a decimal number of at most limit.
func parseUint(text []byte, limit uint64) (uint64, bool) {
	if len(text) == 0 || len(text) > 19 {
		return 0, false
	}
	var n uint64
	for _, c := range text {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return n, n <= limit
}

// equalFold compares text with upper, which is in upper case.
func equalFold(text []byte, upper string) bool {
	if len(text) != len(upper) {
		return false
	}
	for i, c := range text {
		if c >= 'a' && c <= 'z' {
			c -= 'a' - 'A'
		}
		if c != upper[i] {
			return false
		}
	}
	return true
}
