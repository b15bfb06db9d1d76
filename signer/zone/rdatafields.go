package zone

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/miekg/dns"
)

var (
	errBadPrefix   = errors.New("bad address prefix; it is [!]family:address/length, family 1 or 2 (RFC 3123)")
	errBadRelay    = errors.New("bad relay type (RFC 8777, 4.2)")
	errNoRelay     = errors.New("where the relay type is 0, the relay is . and not")
	errBadTag      = errors.New("tag is not letters and digits (RFC 8659, 4.1)")
	errBadX25      = errors.New("X.25 address is not one string of at least four digits (RFC 1183, 3.1)")
	errBadAltitude = errors.New("altitude is not within -100000.00m and 42849672.95m (RFC 1876, 2)")
	errStrings     = errors.New("wrong number of character-strings")
	errNoKey       = errors.New("no key")
	errNoData      = errors.New("no data")
)

// own parses types that miekg/dns reads too strictly, too laxly or not whole.
func (p *rdataParser) own(t Type) bool {
	switch uint16(t) {
	case dns.TypeNAPTR:
		p.u16()
		p.u16()
		p.charString()
		p.charString()
		p.charString()
		p.name()
	case dns.TypeHINFO:
		p.charString()
		p.charString()
	case dns.TypeX25:
		p.charString()
	case dns.TypeISDN:
		p.charString()
		if len(p.rest) > 0 {
			p.charString()
		}
	case dns.TypeAMTRELAY:
		p.relay()
	case dns.TypeAPL:
		for p.err == nil && len(p.rest) > 0 {
			p.prefix()
		}
	case uint16(typeDSYNC):
		p.typ()
		p.scheme()
		p.u16()
		p.name()
	case uint16(typeWALLET):
		p.charStrings()
	default:
		return false
	}
	return true
}

// scheme is how a DSYNC record wants to be told: a number, or NOTIFY (RFC 9859,
// 2).
func (p *rdataParser) scheme() {
	if len(p.rest) > 0 && !p.rest[0].quoted && string(upper(p.rest[0].text)) == "NOTIFY" {
		p.rest, p.dst = p.rest[1:], append(p.dst, 1)
		return
	}
	p.u8()
}

// The relay types of RFC 8777, 4.2.3. The upper bit of the field is another.
const (
	relayNone = iota
	relayIPv4
	relayIPv6
	relayName
	relayTypes = 0x7f
)

// relay is the RDATA of AMTRELAY (RFC 8777, 4.3.1).
func (p *rdataParser) relay() {
	p.u8()
	discovery := byte(p.number(1))
	kind := byte(p.number(relayTypes))
	p.dst = append(p.dst, discovery<<7|kind)
	switch kind {
	case relayNone:
		if text, ok := p.next(); ok && string(text) != "." {
			p.fail(errNoRelay, text)
		}
	case relayIPv4:
		p.ipv4()
	case relayIPv6:
		p.ipv6()
	case relayName:
		p.name()
	default:
		p.fail(errBadRelay, strconv.AppendUint(nil, uint64(kind), 10))
	}
}

// prefix is one item of APL (RFC 3123, 5).
func (p *rdataParser) prefix() {
	text, ok := p.next()
	if !ok {
		return
	}
	rest, not := bytes.CutPrefix(text, []byte("!"))
	family, rest, _ := bytes.Cut(rest, []byte(":"))
	net, err := netip.ParsePrefix(string(rest))
	af, known := parseUint(family, 2)
	if err != nil || !known || net.Addr().Zone() != "" || (af == 1) != net.Addr().Is4() || af == 0 {
		p.fail(errBadPrefix, text)
		return
	}
	address := bytes.TrimRight(net.Addr().AsSlice(), "\x00")
	n := byte(len(address))
	if not {
		n |= 0x80
	}
	p.dst = append(append(p.dst, 0, byte(af), byte(net.Bits()), n), address...)
}

// relay is the RDATA of AMTRELAY.
func (w *textWriter) relay() {
	w.u8()
	b := w.take(1)
	if b == nil {
		return
	}
	w.space()
	w.dst = append(w.dst, '0'+b[0]>>7, ' ')
	kind := b[0] & relayTypes
	w.dst = append(strconv.AppendUint(w.dst, uint64(kind), 10), ' ')
	w.some = false
	switch kind {
	case relayNone:
		w.dst = append(w.dst, '.')
	case relayIPv4, relayIPv6:
		w.address(4 + 12*int(kind-relayIPv4))
	case relayName:
		w.name()
	default:
		w.bad = true
	}
}

// address is an address of n bytes.
func (w *textWriter) address(n int) {
	if a, ok := netip.AddrFromSlice(w.take(n)); ok {
		w.dst = a.AppendTo(w.dst)
	}
}

// prefixes is the RDATA of APL. Where it is empty there is no text.
func (w *textWriter) prefixes() {
	w.bad = checkPrefixes(w.rest) != nil || len(w.rest) == 0
	for len(w.rest) > 0 && !w.bad {
		head := w.take(4)
		if head[0] != 0 || head[1] == 0 || head[1] > 2 {
			w.bad = true
			return
		}
		w.space()
		if head[3]&0x80 != 0 {
			w.dst = append(w.dst, '!')
		}
		var full [16]byte
		copy(full[:], w.take(int(head[3]&0x7f)))
		address := netip.AddrFrom16(full)
		if head[1] == 1 {
			address = netip.AddrFrom4([4]byte(full[:4]))
		}
		w.dst = address.AppendTo(append(w.dst, '0'+head[1], ':'))
		w.dst = strconv.AppendUint(append(w.dst, '/'), uint64(head[2]), 10)
	}
}

// own writes the types that rdataParser.own reads.
func (w *textWriter) own(t Type) bool {
	switch uint16(t) {
	case dns.TypeNAPTR:
		w.u16()
		w.u16()
		w.charString()
		w.charString()
		w.charString()
		w.name()
	case dns.TypeHINFO:
		w.charString()
		w.charString()
	case dns.TypeX25:
		w.charString()
	case dns.TypeISDN:
		w.charString()
		if len(w.rest) > 0 {
			w.charString()
		}
	case dns.TypeAMTRELAY:
		w.relay()
	case dns.TypeAPL:
		w.prefixes()
	default:
		return false
	}
	return true
}

// checkFields checks what neither the parsers here nor miekg/dns look at, and
// for which secondaries refuse a zone: fields that are empty, of the wrong
// length or of the wrong characters.
func checkFields(t Type, rdata []byte) error {
	switch uint16(t) {
	case dns.TypeDS, dns.TypeCDS, dns.TypeDLV, dns.TypeTA:
		return checkDigest(rdata)
	case dns.TypeDNSKEY, dns.TypeCDNSKEY, dns.TypeRKEY:
		return checkFilled(rdata, 4, errNoKey)
	case dns.TypeKEY:
		if len(rdata) == 4 && rdata[0]&0xc0 == 0xc0 {
			return nil // it says so (RFC 2535, 3.1.2)
		}
		return checkFilled(rdata, 4, errNoKey)
	case dns.TypeTLSA, dns.TypeSMIMEA:
		return checkFilled(rdata, 3, errNoData)
	case dns.TypeCERT:
		return checkFilled(rdata, 5, errNoData)
	case dns.TypeSSHFP:
		return checkFingerprint(rdata)
	case dns.TypeZONEMD:
		return checkFilled(rdata, 17, errNoData)
	case dns.TypeCAA:
		return checkTag(rdata)
	case dns.TypeX25:
		return checkX25(rdata)
	case dns.TypeISDN:
		return checkStrings(rdata, 1, 2)
	case dns.TypeHINFO:
		return checkStrings(rdata, 2, 2)
	case dns.TypeAMTRELAY:
		return checkRelay(rdata)
	case dns.TypeAPL:
		return checkPrefixes(rdata)
	default:
		return nil
	}
}

// fieldsAlone are types of which checkFields checks everything.
func fieldsAlone(t Type) bool {
	switch uint16(t) {
	case dns.TypeDS, dns.TypeCDS, dns.TypeX25, dns.TypeISDN, dns.TypeHINFO, dns.TypeAMTRELAY, dns.TypeAPL:
		return true
	default:
		return false
	}
}

// checkFilled wants something behind the first fixed bytes.
func checkFilled(rdata []byte, fixed int, missing error) error {
	if len(rdata) <= fixed {
		return fmt.Errorf("%w: %w", errBadRData, missing)
	}
	return nil
}

// checkFingerprint checks SSHFP (RFC 4255, 3.1; RFC 6594).
func checkFingerprint(rdata []byte) error {
	if len(rdata) < 3 {
		return fmt.Errorf("%w: %w", errBadRData, errNoData)
	}
	n := len(rdata) - 2
	if kind := rdata[1]; (kind == 1 && n != 20) || (kind == 2 && n != 32) {
		return fmt.Errorf("%w: %d bytes of type %d", errDigestSize, n, kind)
	}
	return nil
}

// checkTag checks the tag of CAA (RFC 8659, 4.1).
func checkTag(rdata []byte) error {
	if len(rdata) < 3 || rdata[1] == 0 || len(rdata) < 2+int(rdata[1]) {
		return fmt.Errorf("%w: %w", errBadRData, errBadTag)
	}
	tag := rdata[2 : 2+int(rdata[1])]
	for _, c := range tag {
		if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return fmt.Errorf("%w: %.60q", errBadTag, tag)
		}
	}
	return nil
}

func checkX25(rdata []byte) error {
	if err := checkStrings(rdata, 1, 1); err != nil || len(rdata) < 5 {
		return errBadX25
	}
	for _, c := range rdata[1:] {
		if c < '0' || c > '9' {
			return errBadX25
		}
	}
	return nil
}

// checkStrings wants RDATA to be least to most character-strings.
func checkStrings(rdata []byte, least, most int) error {
	count := 0
	for ; len(rdata) > 0; count++ {
		if len(rdata) < 1+int(rdata[0]) {
			return fmt.Errorf("%w: %w", errBadRData, errFewTokens)
		}
		rdata = rdata[1+int(rdata[0]):]
	}
	if count < least || count > most {
		return fmt.Errorf("%w: %w", errBadRData, errStrings)
	}
	return nil
}

// checkRelay checks AMTRELAY; what stands in types unknown here is not looked
// at.
func checkRelay(rdata []byte) error {
	if len(rdata) < 2 {
		return fmt.Errorf("%w: %w", errBadRData, errFewTokens)
	}
	relay := rdata[2:]
	switch rdata[1] & relayTypes {
	case relayNone:
		return checkLength(relay, 0)
	case relayIPv4:
		return checkLength(relay, 4)
	case relayIPv6:
		return checkLength(relay, 16)
	case relayName:
		if _, err := NameFromWire(relay); err != nil {
			return fmt.Errorf("%w: %w", errBadRData, err)
		}
	}
	return nil
}

// checkPrefixes checks APL (RFC 3123, 4); addresses of families unknown here
// are not looked at.
func checkPrefixes(rdata []byte) error {
	for len(rdata) > 0 {
		if len(rdata) < 4 || len(rdata)-4 < int(rdata[3]&0x7f) {
			return fmt.Errorf("%w: %w", errBadRData, errFewTokens)
		}
		address := rdata[4 : 4+int(rdata[3]&0x7f)]
		bits := 255
		if rdata[0] == 0 && rdata[1] == 1 {
			bits = 32
		} else if rdata[0] == 0 && rdata[1] == 2 {
			bits = 128
		}
		if int(rdata[2]) > bits || (bits < 255 && len(address) > bits/8) || (len(address) > 0 && address[len(address)-1] == 0) {
			return fmt.Errorf("%w: %w", errBadRData, errBadPrefix)
		}
		rdata = rdata[4+len(address):]
	}
	return nil
}

// checkAltitude checks the altitude among the tokens of LOC: miekg/dns lets
// one that is too large start again from below.
func checkAltitude(tokens []token) error {
	for i, tok := range tokens[:max(len(tokens)-1, 0)] {
		if text := upper(tok.text); len(text) != 1 || (text[0] != 'E' && text[0] != 'W') {
			continue
		}
		text := bytes.TrimSuffix(bytes.TrimSuffix(tokens[i+1].text, []byte("m")), []byte("M"))
		m, err := strconv.ParseFloat(string(text), 64)
		if err != nil || !(m >= -100000 && m <= 42849672.95) {
			return fmt.Errorf("%w: %.60q", errBadAltitude, tokens[i+1].text)
		}
	}
	return nil
}

// exactSeconds adds half a thousandth to the seconds among the tokens of LOC:
// miekg/dns cuts off what it holds as a float, so that 16.159 would be 16.158.
func exactSeconds(tokens []token) []token {
	tokens = slices.Clone(tokens)
	begin, shift := 0, 0
	for i := range tokens {
		tokens[i].at += shift
		if text := upper(tokens[i].text); len(text) != 1 || !bytes.Contains([]byte("NSEW"), text) {
			continue
		}
		// Degrees, minutes and seconds stand before it, or fewer of them.
		if i == begin+3 {
			seconds := &tokens[i-1]
			whole, thousandths, _ := bytes.Cut(seconds.text, []byte("."))
			if len(thousandths) <= 3 {
				before := len(seconds.text)
				seconds.text = fmt.Appendf(nil, "%s.%s%s5", whole, thousandths, "000"[len(thousandths):])
				shift += len(seconds.text) - before
				tokens[i].at += len(seconds.text) - before
			}
		}
		begin = i + 1
	}
	return tokens
}
