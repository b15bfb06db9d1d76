package zone

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/miekg/dns"
)

var (
	errFewTokens  = errors.New("RDATA ends early")
	errManyTokens = errors.New("data after the end of the RDATA")
	errBadNumber  = errors.New("bad number")
	errBadAddress = errors.New("bad address")
	errBadHex     = errors.New("bad hexadecimal data")
	errBadBase64  = errors.New("bad base64 data")
	errLongText   = errors.New("string longer than 255 bytes")
	errBadTime    = errors.New("bad time")
	errBadGroups  = errors.New("want four groups of one to four hexadecimal digits (RFC 6742), not")
	errBadTypes   = errors.New("bad type in the bitmap")
	errQuoted     = errors.New("quoted string where none is allowed")
)

// rdataParser appends RDATA field by field. After an error it does nothing
// more, so that errors are looked at once, at the end.
type rdataParser struct {
	dst    []byte
	rest   []token
	origin Name
	err    error
}

func (p *rdataParser) fail(err error, text []byte) {
	if p.err == nil {
		p.err = fmt.Errorf("%w %.60q", err, text)
	}
}

// next is the next token, which must not be quoted.
func (p *rdataParser) next() ([]byte, bool) {
	if p.err != nil {
		return nil, false
	}
	if len(p.rest) == 0 {
		p.err = errFewTokens
		return nil, false
	}
	t := p.rest[0]
	p.rest = p.rest[1:]
	if t.quoted {
		p.fail(errQuoted, t.text)
		return nil, false
	}
	return t.text, true
}

func (p *rdataParser) name() {
	text, ok := p.next()
	if !ok {
		return
	}
	dst, err := appendNameText(p.dst, text, p.origin)
	p.dst = dst
	if err != nil {
		p.fail(err, text)
	}
}

func (p *rdataParser) number(limit uint64) uint64 {
	text, ok := p.next()
	if !ok {
		return 0
	}
	n, ok := parseUint(text, limit)
	if !ok {
		p.fail(errBadNumber, text)
	}
	return n
}

func (p *rdataParser) u8()  { p.dst = append(p.dst, byte(p.number(0xff))) }
func (p *rdataParser) u16() { p.dst = binary.BigEndian.AppendUint16(p.dst, uint16(p.number(0xffff))) }

func (p *rdataParser) u32() {
	p.dst = binary.BigEndian.AppendUint32(p.dst, uint32(p.number(0xffffffff)))
}

// ttl is a time in seconds, with units or without.
func (p *rdataParser) ttl() {
	text, ok := p.next()
	if !ok {
		return
	}
	n, plain := parseUint(text, 0xffffffff)
	if !plain {
		ttl, err := parseTTL(text)
		if err != nil {
			p.fail(errBadNumber, text)
		}
		n = uint64(ttl)
	}
	p.dst = binary.BigEndian.AppendUint32(p.dst, uint32(n))
}

// algorithm is a number or a mnemonic (RFC 4034, A.1).
func (p *rdataParser) algorithm() {
	text, ok := p.next()
	if !ok {
		return
	}
	n, ok := parseUint(text, 0xff)
	if !ok {
		a, known := dns.StringToAlgorithm[string(upper(text))]
		if !known {
			p.fail(errBadNumber, text)
		}
		n = uint64(a)
	}
	p.dst = append(p.dst, byte(n))
}

func upper(text []byte) []byte {
	up := make([]byte, len(text))
	for i, c := range text {
		if c >= 'a' && c <= 'z' {
			c -= 'a' - 'A'
		}
		up[i] = c
	}
	return up
}

// text is a character-string, quoted or not, without its length.
func (p *rdataParser) text() {
	if p.err != nil {
		return
	}
	if len(p.rest) == 0 {
		p.err = errFewTokens
		return
	}
	t := p.rest[0].text
	p.rest = p.rest[1:]
	for i := 0; i < len(t); i++ {
		c := t[i]
		if c == '\\' {
			b, used, ok := unescape(t[i+1:])
			if !ok {
				p.fail(errBadEscape, t)
				return
			}
			c = b
			i += used
		}
		p.dst = append(p.dst, c)
	}
}

// charString is text with its length before it.
func (p *rdataParser) charString() {
	at := len(p.dst)
	p.dst = append(p.dst, 0)
	p.text()
	n := len(p.dst) - at - 1
	if n > 255 {
		p.err = errLongText
		return
	}
	p.dst[at] = byte(n)
}

func (p *rdataParser) charStrings() {
	for first := true; p.err == nil && (first || len(p.rest) > 0); first = false {
		p.charString()
	}
}

func (p *rdataParser) ipv4() {
	text, ok := p.next()
	if !ok {
		return
	}
	var parts, digits int
	var n uint
	for i := 0; i <= len(text); i++ {
		if i < len(text) && text[i] >= '0' && text[i] <= '9' && digits < 3 && (digits == 0 || n > 0) {
			n = n*10 + uint(text[i]-'0')
			digits++
			continue
		}
		if digits == 0 || n > 255 || parts == 4 || (i < len(text) && text[i] != '.') {
			p.fail(errBadAddress, text)
			return
		}
		p.dst = append(p.dst, byte(n))
		parts++
		n, digits = 0, 0
	}
	if parts != 4 {
		p.fail(errBadAddress, text)
	}
}

func (p *rdataParser) ipv6() {
	text, ok := p.next()
	if !ok {
		return
	}
	a, err := netip.ParseAddr(string(text))
	if err != nil || a.Is4() || a.Zone() != "" {
		p.fail(errBadAddress, text)
		return
	}
	b := a.As16()
	p.dst = append(p.dst, b[:]...)
}

// groups is a 64-bit locator or identifier: four groups of hexadecimal digits,
// zeros in front of a group left out or not (RFC 6742, 2.1.2).
func (p *rdataParser) groups() {
	text, ok := p.next()
	if !ok {
		return
	}
	groups, digits := 0, 0
	var group uint16
	for i := 0; i <= len(text); i++ {
		if i < len(text) && digits < 4 && hexValue(text[i]) >= 0 {
			group = group<<4 | uint16(hexValue(text[i]))
			digits++
			continue
		}
		if digits == 0 || groups == 4 || (i < len(text) && text[i] != ':') {
			break
		}
		p.dst = binary.BigEndian.AppendUint16(p.dst, group)
		groups++
		group, digits = 0, 0
		if i == len(text) && groups == 4 {
			return
		}
	}
	p.fail(errBadGroups, text)
}

// hex is hexadecimal data up to the end of the record, at least one byte.
func (p *rdataParser) hex() {
	start, high := len(p.dst), -1
	for len(p.rest) > 0 && p.err == nil {
		text, _ := p.next()
		for _, c := range text {
			v := hexValue(c)
			if v < 0 {
				p.fail(errBadHex, text)
				return
			}
			if high < 0 {
				high = v
				continue
			}
			p.dst = append(p.dst, byte(high<<4|v))
			high = -1
		}
	}
	if p.err == nil && (high >= 0 || len(p.dst) == start) {
		p.err = errBadHex
	}
}

func hexValue(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// base64 is base64 data up to the end of the record; it may be empty.
func (p *rdataParser) base64() {
	if p.err != nil || len(p.rest) == 0 {
		return
	}
	text := p.rest[0].text
	if len(p.rest) > 1 || p.rest[0].quoted {
		text = nil
		for len(p.rest) > 0 && p.err == nil {
			t, _ := p.next()
			text = append(text, t...)
		}
	}
	p.rest = nil
	dst, err := base64.StdEncoding.Strict().AppendDecode(p.dst, text)
	if err != nil {
		p.fail(errBadBase64, text)
		return
	}
	p.dst = dst
}

// typ is an RR type as a field (RRSIG's type covered).
func (p *rdataParser) typ() {
	text, ok := p.next()
	if !ok {
		return
	}
	t, ok := parseTypeText(text)
	if !ok {
		p.fail(errBadTypes, text)
	}
	p.dst = append(p.dst, byte(t>>8), byte(t))
}

// time is YYYYMMDDHHmmSS or seconds since 1970 (RFC 4034, 3.2).
func (p *rdataParser) time() {
	text, ok := p.next()
	if !ok {
		return
	}
	n, ok := parseUint(text, 0xffffffff)
	if len(text) == 14 {
		n, ok = parseTime(text)
	}
	if !ok {
		p.fail(errBadTime, text)
	}
	p.dst = binary.BigEndian.AppendUint32(p.dst, uint32(n))
}

// types is a type bitmap up to the end of the record (RFC 4034, 4.1.2).
func (p *rdataParser) types() {
	var windows [256][32]byte
	var used [256]int8 // length of each bitmap
	for len(p.rest) > 0 && p.err == nil {
		text, _ := p.next()
		t, ok := parseTypeText(text)
		if !ok || t == 0 {
			p.fail(errBadTypes, text)
			return
		}
		w, b := t>>8, t&0xff
		windows[w][b/8] |= 0x80 >> (b % 8)
		used[w] = max(used[w], int8(b/8)+1)
	}
	if p.err != nil {
		return
	}
	for w, n := range used {
		if n > 0 {
			p.dst = append(append(p.dst, byte(w), byte(n)), windows[w][:n]...)
		}
	}
}

// parseRData appends the RDATA of type t that tokens stand for.
func (r *reader) parseRData(dst []byte, t Type, tokens []token, origin Name) ([]byte, error) {
	if len(tokens) > 0 && !tokens[0].quoted && string(tokens[0].text) == `\#` {
		return parseUnknown(dst, t, tokens[1:])
	}
	p := rdataParser{dst: dst, rest: tokens, origin: origin}
	if !p.common(t) && !p.dnssec(t) && !p.own(t) {
		return r.parseByLibrary(dst, t, tokens, origin)
	}
	if p.err == nil && len(p.rest) > 0 {
		p.err = errManyTokens
	}
	if p.err == nil {
		p.err = checkFields(t, p.dst[len(dst):])
	}
	return p.dst, p.err
}

// parseByLibrary has miekg/dns read the RDATA, and checks what comes out of
// it: the library reads a record whose fields are missing as an empty one.
func (r *reader) parseByLibrary(dst []byte, t Type, tokens []token, origin Name) ([]byte, error) {
	if t == Type(dns.TypeLOC) {
		if err := checkAltitude(tokens); err != nil {
			return dst, err
		}
		tokens = exactSeconds(tokens)
	}
	start := len(dst)
	dst, err := r.lib.parse(dst, t, tokens, origin)
	if err == nil {
		err = CheckRData(t, dst[start:])
	}
	return dst, err
}

// common parses the types that most zones are made of.
func (p *rdataParser) common(t Type) bool {
	switch uint16(t) {
	case dns.TypeNS, dns.TypeCNAME, dns.TypePTR, dns.TypeDNAME, dns.TypeMB, dns.TypeMD, dns.TypeMF, dns.TypeMG, dns.TypeMR:
		p.name()
	case dns.TypeA:
		p.ipv4()
	case dns.TypeAAAA:
		p.ipv6()
	case dns.TypeMX, dns.TypeKX, dns.TypeAFSDB, dns.TypeRT:
		p.u16()
		p.name()
	case dns.TypeTXT, dns.TypeSPF:
		p.charStrings()
	case dns.TypeSOA:
		p.name()
		p.name()
		p.u32()
		for range 4 {
			p.ttl()
		}
	case dns.TypeSRV:
		p.u16()
		p.u16()
		p.u16()
		p.name()
	case dns.TypeCAA:
		p.u8()
		p.charString()
		p.text()
	case dns.TypeTLSA, dns.TypeSMIMEA:
		p.u8()
		p.u8()
		p.u8()
		p.hex()
	case dns.TypeSSHFP:
		p.u8()
		p.u8()
		p.hex()
	case dns.TypeNID, dns.TypeL64:
		p.u16()
		p.groups()
	default:
		return false
	}
	return true
}

// dnssec parses the types of RFC 4034 and its kin.
func (p *rdataParser) dnssec(t Type) bool {
	switch uint16(t) {
	case dns.TypeDS, dns.TypeCDS, dns.TypeDLV, dns.TypeTA:
		p.u16()
		p.algorithm()
		p.u8()
		p.hex()
	case dns.TypeDNSKEY, dns.TypeCDNSKEY:
		p.u16()
		p.u8()
		p.algorithm()
		p.base64()
	case dns.TypeRRSIG:
		p.typ()
		p.algorithm()
		p.u8()
		p.ttl()
		p.time()
		p.time()
		p.u16()
		p.name()
		p.base64()
	case dns.TypeNSEC:
		p.name()
		p.types()
	case dns.TypeNSEC3:
		p.u8()
		p.u8()
		p.u16()
		p.salt()
		p.hash()
		p.types()
	case dns.TypeNSEC3PARAM:
		p.u8()
		p.u8()
		p.u16()
		p.salt()
	case dns.TypeZONEMD:
		p.u32()
		p.u8()
		p.u8()
		p.hex()
	default:
		return false
	}
	return true
}
