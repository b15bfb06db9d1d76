package zone

import (
	"strconv"

	"github.com/miekg/dns"
)

// Type is an RR type.
type Type uint16

// The RR types that the signer treats in a way of their own.
const (
	TypeA          = Type(dns.TypeA)
	TypeNS         = Type(dns.TypeNS)
	TypeCNAME      = Type(dns.TypeCNAME)
	TypeSOA        = Type(dns.TypeSOA)
	TypeMX         = Type(dns.TypeMX)
	TypeTXT        = Type(dns.TypeTXT)
	TypeAAAA       = Type(dns.TypeAAAA)
	TypeDNAME      = Type(dns.TypeDNAME)
	TypeDS         = Type(dns.TypeDS)
	TypeRRSIG      = Type(dns.TypeRRSIG)
	TypeNSEC       = Type(dns.TypeNSEC)
	TypeDNSKEY     = Type(dns.TypeDNSKEY)
	TypeNSEC3      = Type(dns.TypeNSEC3)
	TypeNSEC3PARAM = Type(dns.TypeNSEC3PARAM)
	TypeCDS        = Type(dns.TypeCDS)
	TypeCDNSKEY    = Type(dns.TypeCDNSKEY)
	TypeZONEMD     = Type(dns.TypeZONEMD)
	TypeNXNAME     = Type(dns.TypeNXNAME)
)

// Types that zone files may name though miekg/dns does not. They are written by
// number (RFC 3597), which programs read that do not know the names either.
const (
	typeDSYNC  = Type(66)  // RFC 9859
	typeWALLET = Type(262) // character-strings, as TXT
)

// String is the mnemonic, or TYPEn (RFC 3597, 5).
func (t Type) String() string {
	if s, ok := dns.TypeToString[uint16(t)]; ok && t != 0 && t != 0xffff {
		return s
	}
	return "TYPE" + strconv.Itoa(int(t))
}

// ParseType reads a mnemonic or TYPEn, in any case.
func ParseType(s string) (Type, bool) {
	var buf [16]byte
	if len(s) > len(buf) {
		return 0, false
	}
	up := buf[:0]
	for _, c := range []byte(s) {
		if c >= 'a' && c <= 'z' {
			c -= 'a' - 'A'
		}
		up = append(up, c)
	}
	if t, ok := dns.StringToType[string(up)]; ok {
		return Type(t), true
	}
	switch string(up) {
	case "DSYNC":
		return typeDSYNC, true
	case "WALLET":
		return typeWALLET, true
	}
	if len(up) > 4 && string(up[:4]) == "TYPE" {
		n, err := strconv.ParseUint(string(up[4:]), 10, 16)
		return Type(n), err == nil
	}
	return 0, false
}

// SignersOwn reports whether records of type t are the signer's own and are
// dropped from input: RRSIG, NSEC and NSEC3 anywhere; DNSKEY, CDS, CDNSKEY,
// NSEC3PARAM and ZONEMD at the apex. DS never is.
func SignersOwn(t Type, atApex bool) bool {
	switch t {
	case TypeRRSIG, TypeNSEC, TypeNSEC3:
		return true
	case TypeDNSKEY, TypeCDS, TypeCDNSKEY, TypeNSEC3PARAM, TypeZONEMD:
		return atApex
	default:
		return false
	}
}
