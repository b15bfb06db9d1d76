package zone

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/miekg/dns"
)

var (
	errBadSalt    = errors.New("bad salt")
	errBadHash    = errors.New("bad hashed name")
	errDigestSize = errors.New("digest has the wrong length for its type")
	errRRSIGBare  = errors.New("no signature")
)

// checkDigest checks the length of the digest in DS RDATA (RFC 4034, 5.1.4;
// RFC 4509; RFC 6605).
func checkDigest(rdata []byte) error {
	if len(rdata) < 4 {
		return errBadRData
	}
	n := len(rdata) - 4
	want := n
	switch rdata[3] {
	case dns.SHA1:
		want = 20
	case dns.SHA256:
		want = 32
	case dns.SHA384:
		want = 48
	}
	if n != want {
		return fmt.Errorf("%w: %d bytes, want %d", errDigestSize, n, want)
	}
	return nil
}

// salt is NSEC3 salt in hexadecimal, or - for none (RFC 5155, 3.3).
func (p *rdataParser) salt() {
	text, ok := p.next()
	if !ok {
		return
	}
	if string(text) == "-" {
		p.dst = append(p.dst, 0)
		return
	}
	if len(text)%2 != 0 || len(text) > 2*255 {
		p.fail(errBadSalt, text)
		return
	}
	p.dst = append(p.dst, byte(len(text)/2))
	for i := 0; i < len(text); i += 2 {
		a, b := hexValue(text[i]), hexValue(text[i+1])
		if a < 0 || b < 0 {
			p.fail(errBadSalt, text)
			return
		}
		p.dst = append(p.dst, byte(a<<4|b))
	}
}

// hash is a hashed name in base32hex without padding (RFC 5155, 3.3).
func (p *rdataParser) hash() {
	text, ok := p.next()
	if !ok {
		return
	}
	at := len(p.dst)
	p.dst = append(p.dst, 0)
	var bits, held uint
	for _, c := range text {
		v := base32Value(c)
		if v < 0 {
			p.fail(errBadHash, text)
			return
		}
		held = held<<5 | uint(v)
		if bits += 5; bits >= 8 {
			bits -= 8
			p.dst = append(p.dst, byte(held>>bits))
		}
	}
	n := len(p.dst) - at - 1
	// What is left over are fewer bits than a digit, and zero.
	if bits >= 5 || held&(1<<bits-1) != 0 || n < 1 || n > 255 {
		p.fail(errBadHash, text)
		return
	}
	p.dst[at] = byte(n)
}

// base32Value is the value of a digit of base32hex (RFC 4648, 7), or -1.
func base32Value(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'A' && c <= 'V':
		return int(c-'A') + 10
	case c >= 'a' && c <= 'v':
		return int(c-'a') + 10
	}
	return -1
}

// parseTime reads YYYYMMDDHHmmSS. Times from 2106 on wrap around, as RRSIG's
// serial arithmetic wants (RFC 4034, 3.1.5).
func parseTime(text []byte) (uint64, bool) {
	var f [6]int
	at := 0
	for i, width := range [6]int{4, 2, 2, 2, 2, 2} {
		n, ok := parseUint(text[at:at+width], 9999)
		if !ok {
			return 0, false
		}
		f[i] = int(n)
		at += width
	}
	t := time.Date(f[0], time.Month(f[1]), f[2], f[3], f[4], f[5], 0, time.UTC)
	if t.Month() != time.Month(f[1]) || t.Day() != f[2] || t.Hour() != f[3] || t.Minute() != f[4] || t.Second() != f[5] {
		return 0, false
	}
	return uint64(uint32(t.Unix())), true
}

var (
	errUnknownLength = errors.New("the length after \\# is not that of the data")
	errUnknownForm   = errors.New("no presentation form is known; write it as \\# (RFC 3597)")
	errBadRData      = errors.New("RDATA is not valid for its type")
)

// parseUnknown reads RDATA in the form of RFC 3597, 5.
func parseUnknown(dst []byte, t Type, tokens []token) ([]byte, error) {
	p := rdataParser{dst: dst, rest: tokens}
	start := len(dst)
	want := p.number(1<<63 - 1)
	if want > 0xffff {
		return p.dst, errRDataLong
	}
	if len(p.rest) > 0 {
		p.hex()
	}
	if p.err != nil {
		return p.dst, p.err
	}
	rdata := p.dst[start:]
	if uint64(len(rdata)) != want {
		return p.dst, fmt.Errorf("%w: %d and %d", errUnknownLength, want, len(rdata))
	}
	return p.dst, CheckRData(t, rdata)
}

// CheckType returns an error for types that cannot stand in a zone: type 0,
// OPT, NXNAME and the other meta-types and query types (RFC 6895, 3.1).
func CheckType(t Type) error {
	if t == 0 || t == Type(dns.TypeOPT) || (t >= 128 && t <= 255) || t == 0xffff {
		return fmt.Errorf("%s: %w", t, errNotData)
	}
	return nil
}

// CheckRData checks RDATA in wire form that comes from outside: that it is
// what its type says, as far as the type is known, and that names in it are
// not compressed.
func CheckRData(t Type, rdata []byte) error {
	if len(rdata) > 0xffff {
		return errRDataLong
	}
	if err := checkFields(t, rdata); err != nil || fieldsAlone(t) {
		return err
	}
	switch t {
	case TypeA:
		return checkLength(rdata, 4)
	case TypeAAAA:
		return checkLength(rdata, 16)
	case Type(dns.TypeSVCB), Type(dns.TypeHTTPS):
		if err := checkByLibrary(t, rdata); err != nil {
			return err
		}
		return checkService(rdata)
	default:
	}
	if l, ok := nameLayout(t); ok && t != Type(dns.TypeNXT) {
		if _, to := foldRange(t, rdata); to == 0 {
			return errBadRData
		} else if rest := len(rdata) - to; rest != 0 && !(t == TypeSOA && rest == 20) && l.skip != 18 {
			return fmt.Errorf("%w: %w", errBadRData, errManyTokens)
		} else if l.skip == 18 && rest == 0 {
			return fmt.Errorf("%w: %w", errBadRData, errRRSIGBare)
		} else if t == TypeSOA && rest == 0 {
			return errBadRData
		}
		return nil
	}
	return checkByLibrary(t, rdata)
}

func checkLength(rdata []byte, want int) error {
	if len(rdata) != want {
		return fmt.Errorf("%w: %d bytes, want %d", errBadRData, len(rdata), want)
	}
	return nil
}

// checkByLibrary has miekg/dns read the RDATA, and wants to see the same
// bytes come out of it.
func checkByLibrary(t Type, rdata []byte) error {
	if _, known := dns.TypeToRR[uint16(t)]; !known {
		return nil
	}
	if len(rdata) == 0 && t != Type(dns.TypeNULL) && t != Type(dns.TypeAPL) {
		return fmt.Errorf("%w: it is empty", errBadRData)
	}
	h := dns.RR_Header{Name: ".", Rrtype: uint16(t), Class: dns.ClassINET, Rdlength: uint16(len(rdata))}
	rr, n, err := dns.UnpackRRWithHeader(h, rdata, 0)
	if err != nil {
		return fmt.Errorf("%w: %s", errBadRData, libraryMessage(err))
	}
	if n != len(rdata) {
		return fmt.Errorf("%w: %w", errBadRData, errManyTokens)
	}
	packed := make([]byte, len(rdata)+rrHeaderSize+512)
	end, err := dns.PackRR(rr, packed, 0, nil, false)
	if err != nil {
		return fmt.Errorf("%w: %s", errBadRData, libraryMessage(err))
	}
	if !bytes.Equal(packed[rrHeaderSize:end], rdata) {
		return fmt.Errorf("%w: it reads as %s", errBadRData, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	return nil
}

// rrHeaderSize is the length of a record with the root as its owner, RDATA
// left out.
const rrHeaderSize = 11
