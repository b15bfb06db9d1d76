package zone

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// textWriter takes RDATA apart and appends its presentation form. What does
// not fit sets bad, and the form of RFC 3597 is written instead.
type textWriter struct {
	dst  []byte
	rest []byte
	bad  bool
	some bool // a field was written
}

// appendRDataText appends RDATA in presentation form.
func appendRDataText(dst []byte, t Type, rdata []byte) []byte {
	w := textWriter{dst: dst, rest: rdata}
	if w.common(t) || w.dnssec(t) || w.own(t) {
		if !w.bad && len(w.rest) == 0 {
			return w.dst
		}
	} else if text, ok := libraryText(t, rdata); ok {
		return append(dst, text...)
	}
	dst = append(w.dst[:len(dst)], `\# `...)
	dst = strconv.AppendInt(dst, int64(len(rdata)), 10)
	if len(rdata) > 0 {
		dst = appendHex(append(dst, ' '), rdata)
	}
	return dst
}

// libraryText is what miekg/dns writes, where the same RDATA comes out of
// reading it again.
func libraryText(t Type, rdata []byte) (string, bool) {
	if _, known := dns.TypeToRR[uint16(t)]; !known {
		return "", false
	}
	h := dns.RR_Header{Name: ".", Rrtype: uint16(t), Class: dns.ClassINET, Rdlength: uint16(len(rdata))}
	rr, n, err := dns.UnpackRRWithHeader(h, rdata, 0)
	if err != nil || n != len(rdata) || len(rdata) == 0 {
		return "", false
	}
	full := rr.String()
	text := strings.TrimPrefix(full, rr.Header().String())
	if strings.ContainsAny(text, "\n\r\x00") {
		return "", false
	}
	if t == Type(dns.TypeSVCB) || t == Type(dns.TypeHTTPS) {
		// Knot DNS and ldns do not read an empty value. Quotes within one have a
		// backslash before them.
		text = strings.ReplaceAll(text, `=""`, "")
	}
	var back libParser
	lex := newLexer(strings.NewReader(text), int64(len(text)), func(int) error { return nil })
	if lex.next() != nil {
		return "", false
	}
	again, err := back.parse(nil, t, lex.tokens, Root)
	return text, err == nil && bytes.Equal(again, rdata)
}

// take is the next n bytes.
func (w *textWriter) take(n int) []byte {
	if w.bad || n > len(w.rest) {
		w.bad = true
		return nil
	}
	b := w.rest[:n]
	w.rest = w.rest[n:]
	return b
}

func (w *textWriter) space() {
	if w.some {
		w.dst = append(w.dst, ' ')
	}
	w.some = true
}

func (w *textWriter) u8() {
	if b := w.take(1); b != nil {
		w.space()
		w.dst = strconv.AppendUint(w.dst, uint64(b[0]), 10)
	}
}

func (w *textWriter) u16() {
	if b := w.take(2); b != nil {
		w.space()
		w.dst = strconv.AppendUint(w.dst, uint64(binary.BigEndian.Uint16(b)), 10)
	}
}

func (w *textWriter) u32() {
	if b := w.take(4); b != nil {
		w.space()
		w.dst = strconv.AppendUint(w.dst, uint64(binary.BigEndian.Uint32(b)), 10)
	}
}

func (w *textWriter) name() {
	n, err := NameLength(w.rest)
	if w.bad || err != nil {
		w.bad = true
		return
	}
	w.space()
	w.dst = appendNameAsText(w.dst, w.rest[:n])
	w.rest = w.rest[n:]
}

// text is n bytes as a quoted string.
func (w *textWriter) text(n int) {
	b := w.take(n)
	if w.bad {
		return
	}
	w.space()
	w.dst = append(w.dst, '"')
	for _, c := range b {
		switch {
		case c == '"' || c == '\\':
			w.dst = append(w.dst, '\\', c)
		case c < ' ' || c >= 0x7f:
			w.dst = append(w.dst, '\\', '0'+c/100, '0'+c/10%10, '0'+c%10)
		default:
			w.dst = append(w.dst, c)
		}
	}
	w.dst = append(w.dst, '"')
}

func (w *textWriter) charString() {
	if b := w.take(1); b != nil {
		w.text(int(b[0]))
	}
}

// tag is a character string of letters and digits, written without quotes: the
// field's parsers take no others there (RFC 8659, 4.1).
func (w *textWriter) tag() {
	b := w.take(1)
	if b != nil {
		b = w.take(int(b[0]))
	}
	for _, c := range b {
		if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			w.bad = true
		}
	}
	if w.bad || len(b) == 0 {
		w.bad = true
		return
	}
	w.space()
	w.dst = append(w.dst, b...)
}

// hex is the rest, which must not be empty.
func (w *textWriter) hex() {
	if w.bad || len(w.rest) == 0 {
		w.bad = true
		return
	}
	w.space()
	w.dst = appendHex(w.dst, w.rest)
	w.rest = nil
}

func appendHex(dst, data []byte) []byte {
	const digits = "0123456789ABCDEF"
	for _, c := range data {
		dst = append(dst, digits[c>>4], digits[c&15])
	}
	return dst
}

// base64 is the rest; nothing is written for nothing.
func (w *textWriter) base64() {
	if w.bad || len(w.rest) == 0 {
		return
	}
	w.space()
	w.dst = base64.StdEncoding.AppendEncode(w.dst, w.rest)
	w.rest = nil
}

// salt is NSEC3 salt.
func (w *textWriter) salt() {
	b := w.take(1)
	if b == nil {
		return
	}
	w.space()
	if b[0] == 0 {
		w.dst = append(w.dst, '-')
		return
	}
	w.dst = appendHex(w.dst, w.take(int(b[0])))
}

// hash is a hashed name.
func (w *textWriter) hash() {
	b := w.take(1)
	if b == nil || b[0] == 0 {
		w.bad = true
		return
	}
	w.space()
	w.dst = appendBase32Hex(w.dst, w.take(int(b[0])))
}

// appendBase32Hex appends data in base32hex without padding (RFC 4648, 7).
func appendBase32Hex(dst, data []byte) []byte {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUV"
	var bits, held uint
	for _, c := range data {
		held = held<<8 | uint(c)
		for bits += 8; bits >= 5; {
			bits -= 5
			dst = append(dst, digits[held>>bits&31])
		}
	}
	if bits > 0 {
		dst = append(dst, digits[held<<(5-bits)&31])
	}
	return dst
}

// types is a type bitmap (RFC 4034, 4.1.2), the rest.
func (w *textWriter) types() {
	last := -1
	for len(w.rest) > 0 && !w.bad {
		head := w.take(2)
		if head == nil || int(head[0]) <= last || head[1] == 0 || head[1] > 32 {
			w.bad = true
			return
		}
		last = int(head[0])
		bits := w.take(int(head[1]))
		if bits == nil || bits[len(bits)-1] == 0 || (last == 0 && bits[0]&0x80 != 0) {
			w.bad = true
			return
		}
		for i, b := range bits {
			for j := 0; b != 0; j++ {
				if b&0x80 != 0 {
					w.space()
					w.dst = append(w.dst, typeText(Type(last<<8|i<<3|j))...)
				}
				b <<= 1
			}
		}
	}
}

// time is a time as YYYYMMDDHHmmSS.
func (w *textWriter) time() {
	b := w.take(4)
	if b == nil {
		return
	}
	w.space()
	sec := binary.BigEndian.Uint32(b)
	y, m, d := civil(sec / 86400)
	sec %= 86400
	w.dst = append(w.dst, '0'+byte(y/1000), '0'+byte(y/100%10))
	for _, n := range [6]uint32{y % 100, m, d, sec / 3600, sec / 60 % 60, sec % 60} {
		w.dst = append(w.dst, '0'+byte(n/10), '0'+byte(n%10))
	}
}

// civil is the date of the nth day since 1970.
func civil(n uint32) (year, month, day uint32) {
	// Years are counted from March, so that leap days come last: 719468 days
	// lie between 0000-03-01 and 1970-01-01, 146097 in 400 years.
	z := n + 719468
	era := z / 146097
	doe := z % 146097
	yoe := (doe - doe/1460 + doe/36524 - doe/146096) / 365
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	mp := (5*doy + 2) / 153
	day = doy - (153*mp+2)/5 + 1
	month = mp + 3
	year = yoe + era*400
	if month > 12 {
		month -= 12
		year++
	}
	return year, month, day
}

// common writes the types that most zones are made of.
func (w *textWriter) common(t Type) bool {
	switch uint16(t) {
	case dns.TypeNS, dns.TypeCNAME, dns.TypePTR, dns.TypeDNAME, dns.TypeMB, dns.TypeMD, dns.TypeMF, dns.TypeMG, dns.TypeMR:
		w.name()
	case dns.TypeA:
		if b := w.take(4); b != nil {
			w.dst = netip.AddrFrom4([4]byte(b)).AppendTo(w.dst)
		}
	case dns.TypeAAAA:
		if b := w.take(16); b != nil {
			w.dst = netip.AddrFrom16([16]byte(b)).AppendTo(w.dst)
		}
	case dns.TypeMX, dns.TypeKX, dns.TypeAFSDB, dns.TypeRT:
		w.u16()
		w.name()
	case dns.TypeTXT, dns.TypeSPF:
		for first := true; !w.bad && (first || len(w.rest) > 0); first = false {
			w.charString()
		}
	case dns.TypeSOA:
		w.name()
		w.name()
		for range 5 {
			w.u32()
		}
	case dns.TypeSRV:
		w.u16()
		w.u16()
		w.u16()
		w.name()
	case dns.TypeCAA:
		w.u8()
		w.tag()
		w.text(len(w.rest))
	case dns.TypeTLSA, dns.TypeSMIMEA:
		w.u8()
		w.u8()
		w.u8()
		w.hex()
	case dns.TypeSSHFP:
		w.u8()
		w.u8()
		w.hex()
	default:
		return false
	}
	return true
}

// dnssec writes the types of RFC 4034 and its kin.
func (w *textWriter) dnssec(t Type) bool {
	switch uint16(t) {
	case dns.TypeDS, dns.TypeCDS, dns.TypeDLV, dns.TypeTA:
		w.u16()
		w.u8()
		w.u8()
		w.hex()
	case dns.TypeDNSKEY, dns.TypeCDNSKEY:
		w.u16()
		w.u8()
		w.u8()
		w.base64()
	case dns.TypeRRSIG:
		if b := w.take(2); b != nil {
			w.space()
			w.dst = append(w.dst, typeText(Type(binary.BigEndian.Uint16(b)))...)
		}
		w.u8()
		w.u8()
		w.u32()
		w.time()
		w.time()
		w.u16()
		w.name()
		w.base64()
	case dns.TypeNSEC:
		w.name()
		w.types()
	case dns.TypeNSEC3:
		w.u8()
		w.u8()
		w.u16()
		w.salt()
		w.hash()
		w.types()
	case dns.TypeNSEC3PARAM:
		w.u8()
		w.u8()
		w.u16()
		w.salt()
	case dns.TypeZONEMD:
		w.u32()
		w.u8()
		w.u8()
		w.hex()
	default:
		return false
	}
	return true
}
