package zone

import "github.com/miekg/dns"

// FoldsRData reports whether names inside the RDATA of t are put in lower
// case for order and signatures (RFC 4034, 6.2 with RFC 6840, 5.1: NSEC and
// RRSIG's signer name aside, which we always write in lower case).
func (t Type) FoldsRData() bool {
	_, ok := nameLayout(t)
	return ok
}

// layout says where names stand in RDATA: skip bytes, then names names, after
// strings character-strings in between.
type layout struct{ skip, strings, names int }

// nameLayout lists the types of RFC 4034, 6.2.
func nameLayout(t Type) (layout, bool) {
	switch uint16(t) {
	case dns.TypeNS, dns.TypeMD, dns.TypeMF, dns.TypeCNAME, dns.TypeMB, dns.TypeMG, dns.TypeMR,
		dns.TypePTR, dns.TypeDNAME, dns.TypeNXT:
		return layout{names: 1}, true
	case dns.TypeSOA, dns.TypeMINFO, dns.TypeRP:
		return layout{names: 2}, true
	case dns.TypeMX, dns.TypeAFSDB, dns.TypeRT, dns.TypeKX:
		return layout{skip: 2, names: 1}, true
	case dns.TypePX:
		return layout{skip: 2, names: 2}, true
	case dns.TypeSRV:
		return layout{skip: 6, names: 1}, true
	case dns.TypeNAPTR:
		return layout{skip: 4, strings: 3, names: 1}, true
	case dns.TypeSIG, dns.TypeRRSIG:
		return layout{skip: 18, names: 1}, true
	}
	return layout{}, false
}

// AppendCanonicalRData appends rdata in canonical form (RFC 4034, 6.2).
// Malformed RDATA is appended as it stands.
func AppendCanonicalRData(dst []byte, t Type, rdata []byte) []byte {
	l, ok := nameLayout(t)
	if !ok {
		return append(dst, rdata...)
	}
	at := l.skip
	for range l.strings {
		if at >= len(rdata) {
			return append(dst, rdata...)
		}
		at += 1 + int(rdata[at])
	}
	if at > len(rdata) {
		return append(dst, rdata...)
	}
	end := at
	for range l.names {
		n, err := NameLength(rdata[end:])
		if err != nil {
			return append(dst, rdata...)
		}
		end += n
	}
	dst = append(dst, rdata[:at]...)
	dst = AppendFold(dst, rdata[at:end])
	return append(dst, rdata[end:]...)
}
