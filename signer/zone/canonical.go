package zone

import (
	"bytes"
	"cmp"

	"github.com/miekg/dns"
)

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

// foldRange says which part of RDATA is names to be put in lower case. It is
// empty for types without such names and for malformed RDATA.
func foldRange(t Type, rdata []byte) (from, to int) {
	l, ok := nameLayout(t)
	if !ok {
		return 0, 0
	}
	from = l.skip
	for range l.strings {
		if from >= len(rdata) {
			return 0, 0
		}
		from += 1 + int(rdata[from])
	}
	if from > len(rdata) {
		return 0, 0
	}
	to = from
	for range l.names {
		n, err := NameLength(rdata[to:])
		if err != nil {
			return 0, 0
		}
		to += n
	}
	return from, to
}

// AppendCanonicalRData appends rdata in canonical form (RFC 4034, 6.2).
// Malformed RDATA is appended as it stands.
func AppendCanonicalRData(dst []byte, t Type, rdata []byte) []byte {
	from, to := foldRange(t, rdata)
	dst = append(dst, rdata[:from]...)
	dst = AppendFold(dst, rdata[from:to])
	return append(dst, rdata[to:]...)
}

// CompareRData compares RDATA of type t in canonical order (RFC 4034, 6.3):
// names are compared in lower case where RFC 4034, 6.2 says so.
func CompareRData(t Type, a, b []byte) int {
	if !t.FoldsRData() {
		return bytes.Compare(a, b)
	}
	fromA, toA := foldRange(t, a)
	fromB, toB := foldRange(t, b)
	for i := range min(len(a), len(b)) {
		x, y := a[i], b[i]
		if i >= fromA && i < toA {
			x = foldByte(x)
		}
		if i >= fromB && i < toB {
			y = foldByte(y)
		}
		if x != y {
			return cmp.Compare(x, y)
		}
	}
	return cmp.Compare(len(a), len(b))
}
