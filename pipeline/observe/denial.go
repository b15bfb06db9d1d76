package observe

import (
	"bytes"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"time"

	"github.com/miekg/dns"

	"sluice/signer/zone"
)

// maxIterations is how many iterations of an NSEC3 are computed (RFC 9276,
// 3.2).
const maxIterations = 100

// absence is what a proof says of a name that has no DS.
type absence struct {
	cut    bool // it is a delegation, or under opt-out may be one
	exists bool // false: it does not exist, or under opt-out may not
}

var errNoProof = errors.New("the answer does not prove that there is no DS")

// noDS checks the proof, in an answer's authority section, that a name has no
// DS in the zone apex that has the keys (RFC 4035, 5.4; RFC 5155, 8.6).
func noDS(name, apex zone.Name, authority []rrset, keys []key, now time.Time) (a absence, err error) {
	err = errNoProof
	var nsec3 []nsec3
	read := 0
	for i := range authority {
		set := &authority[i]
		if set.t != zone.TypeNSEC && set.t != zone.TypeNSEC3 || len(set.data) != 1 {
			continue
		}
		if read++; read > maxProof {
			break
		}
		if _, _, fault := set.verified(apex, keys, now); fault != nil {
			err = fault
			continue
		}
		if set.t == zone.TypeNSEC3 {
			if h, ok := parseNSEC3(set, apex); ok {
				nsec3 = append(nsec3, h)
			}
			continue
		}
		if a, ok := byNSEC(name, apex, set); ok {
			return a, nil
		}
	}
	if a, ok := byNSEC3(name, apex, nsec3); ok {
		return a, nil
	}
	return absence{}, err
}

// hasNoDS reads the types of the name itself. Those of the zone's own apex say
// nothing of its parent (RFC 6840, 4.4).
func hasNoDS(types []byte) (a absence, ok bool) {
	if hasType(types, zone.TypeDS) || hasType(types, zone.TypeSOA) || hasType(types, zone.TypeCNAME) {
		return absence{}, false
	}
	return absence{exists: true, cut: hasType(types, zone.TypeNS)}, true
}

// cannotSpeak reports whether what has these types says nothing of names below
// it, since they are another zone's or were renamed (RFC 6840, 4.1).
func cannotSpeak(types []byte) bool {
	return hasType(types, zone.TypeNS) && !hasType(types, zone.TypeSOA) || hasType(types, zone.TypeDNAME)
}

// byNSEC reads what one NSEC proves of a name.
func byNSEC(name, apex zone.Name, set *rrset) (a absence, ok bool) {
	n, err := zone.NameLength(set.data[0])
	if err != nil {
		return absence{}, false
	}
	next, types := zone.Name(set.data[0][:n]), set.data[0][n:]
	if set.owner.Equal(name) {
		return hasNoDS(types)
	}
	if name.Under(set.owner) && cannotSpeak(types) {
		return absence{}, false
	}
	at, from, to := zone.AppendOwnerKey(nil, name), zone.AppendOwnerKey(nil, set.owner), zone.AppendOwnerKey(nil, next)
	last := next.Equal(apex)
	if bytes.Compare(from, at) >= 0 || !last && bytes.Compare(at, to) >= 0 || !next.Under(apex) {
		return absence{}, false
	}
	// A name with names below it exists and has no records.
	return absence{exists: next.Under(name)}, true
}

// nsec3 is an NSEC3 of known parameters.
type nsec3 struct {
	owner, next []byte // hashes
	optOut      bool
	types       []byte
	salt        string
	iterations  uint16
}

func parseNSEC3(set *rrset, apex zone.Name) (h nsec3, ok bool) {
	d := set.data[0]
	if len(d) < 5 || d[0] != 1 || d[1]&^1 != 0 {
		return h, false // RFC 5155, 8.1 and 8.2
	}
	h.optOut = d[1]&1 != 0
	h.iterations = binary.BigEndian.Uint16(d[2:])
	saltEnd := 5 + int(d[4])
	if h.iterations > maxIterations || len(d) < saltEnd+1 || len(d) < saltEnd+1+int(d[saltEnd]) {
		return h, false
	}
	h.salt = hex.EncodeToString(d[5:saltEnd])
	end := saltEnd + 1 + int(d[saltEnd])
	h.next, h.types = d[saltEnd+1:end], d[end:]
	if !set.owner.Parent().Equal(apex) || len(set.owner) < 2 {
		return h, false
	}
	label := strings.ToUpper(string(set.owner[1 : 1+int(set.owner[0])]))
	owner, err := base32.HexEncoding.WithPadding(base32.NoPadding).DecodeString(label)
	h.owner = owner
	return h, err == nil && len(owner) == len(h.next)
}

// hash is the hash of a name with the parameters of h.
func (h *nsec3) hash(name zone.Name) []byte {
	text := dns.HashName(name.String(), dns.SHA1, h.iterations, h.salt)
	sum, err := base32.HexEncoding.WithPadding(base32.NoPadding).DecodeString(text)
	if err != nil {
		return nil
	}
	return sum
}

func (h *nsec3) is(name zone.Name) bool { return bytes.Equal(h.owner, h.hash(name)) }

func (h *nsec3) covers(name zone.Name) bool {
	at := h.hash(name)
	after, before := bytes.Compare(h.owner, at) < 0, bytes.Compare(at, h.next) < 0
	if bytes.Compare(h.owner, h.next) >= 0 { // the last one, or the only one
		return (after || before) && !bytes.Equal(at, h.owner)
	}
	return after && before
}

// byNSEC3 reads what NSEC3 records prove of a name (RFC 5155, 8.3 to 8.6).
// That no wildcard is there need not be proven: none can make a DS.
func byNSEC3(name, apex zone.Name, all []nsec3) (a absence, ok bool) {
	const most = 4 // what a proof needs at most, and one
	if all = all[:min(len(all), most)]; len(all) == 0 {
		return absence{}, false
	}
	find := func(is func(*nsec3) bool) *nsec3 {
		for i := range all {
			if is(&all[i]) {
				return &all[i]
			}
		}
		return nil
	}
	if h := find(func(h *nsec3) bool { return h.is(name) }); h != nil {
		return hasNoDS(h.types)
	}
	for closer := name; !closer.Equal(apex) && closer.Under(apex); closer = closer.Parent() {
		encloser := find(func(h *nsec3) bool { return h.is(closer.Parent()) })
		if encloser == nil {
			continue
		}
		cover := find(func(h *nsec3) bool { return h.covers(closer) })
		if cannotSpeak(encloser.types) || cover == nil {
			return absence{}, false
		}
		return absence{cut: cover.optOut}, true
	}
	return absence{}, false
}

// hasType looks a type up in a type bitmap (RFC 4034, 4.1.2).
func hasType(bitmap []byte, t zone.Type) bool {
	for len(bitmap) >= 2 && len(bitmap) >= 2+int(bitmap[1]) {
		window, bits := bitmap[0], bitmap[2:2+int(bitmap[1])]
		if window == byte(t>>8) {
			at := int(t & 0xff)
			return at/8 < len(bits) && bits[at/8]&(0x80>>(at%8)) != 0
		}
		bitmap = bitmap[2+len(bits):]
	}
	return false
}
