package validate

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

// MaxIterations is how many iterations of an NSEC3 are computed (RFC 9276,
// 3.2).
const MaxIterations = 100

// Absence is what a proof says of a name that has no DS.
type Absence struct {
	Cut    bool // it is a delegation, or under opt-out may be one
	Exists bool // false: it does not exist, or under opt-out may not
}

var errNoProof = errors.New("the answer does not prove that there is no DS")

// NoDS checks the proof, in an answer's authority section, that a name has no
// DS in the zone apex that has the keys (RFC 4035, 5.4; RFC 5155, 8.6).
func NoDS(name, apex zone.Name, authority []RRset, keys []Key, now time.Time) (a Absence, err error) {
	err = errNoProof
	var nsec3 []NSEC3
	read := 0
	for i := range authority {
		set := &authority[i]
		if set.Type != zone.TypeNSEC && set.Type != zone.TypeNSEC3 || len(set.Data) != 1 {
			continue
		}
		if read++; read > MaxProof {
			break
		}
		if _, _, fault := set.Verified(apex, keys, now); fault != nil {
			err = fault
			continue
		}
		if set.Type == zone.TypeNSEC3 {
			if h, ok := ParseNSEC3(set, apex); ok {
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
	return Absence{}, err
}

// hasNoDS reads the types of the name itself. Those of the zone's own apex say
// nothing of its parent (RFC 6840, 4.4).
func hasNoDS(types []byte) (a Absence, ok bool) {
	if HasType(types, zone.TypeDS) || HasType(types, zone.TypeSOA) || HasType(types, zone.TypeCNAME) {
		return Absence{}, false
	}
	return Absence{Exists: true, Cut: HasType(types, zone.TypeNS)}, true
}

// CannotSpeak reports whether what has these types says nothing of names below
// it, since they are another zone's or were renamed (RFC 6840, 4.1).
func CannotSpeak(types []byte) bool {
	return HasType(types, zone.TypeNS) && !HasType(types, zone.TypeSOA) || HasType(types, zone.TypeDNAME)
}

// byNSEC reads what one NSEC proves of a name.
func byNSEC(name, apex zone.Name, set *RRset) (a Absence, ok bool) {
	n, ok := ParseNSEC(set)
	if !ok {
		return Absence{}, false
	}
	if n.Owner.Equal(name) {
		return hasNoDS(n.Types)
	}
	if name.Under(n.Owner) && CannotSpeak(n.Types) || !n.Covers(name, apex) {
		return Absence{}, false
	}
	// A name with names below it exists and has no records.
	return Absence{Exists: n.Next.Under(name)}, true
}

// NSEC is an NSEC record.
type NSEC struct {
	Owner, Next zone.Name
	Types       []byte // bitmap
}

// ParseNSEC reads the first record of an RRset; ok is false where it is
// malformed.
func ParseNSEC(set *RRset) (n NSEC, ok bool) {
	end, err := zone.NameLength(set.Data[0])
	if err != nil {
		return NSEC{}, false
	}
	return NSEC{Owner: set.Owner, Next: zone.Name(set.Data[0][:end]), Types: set.Data[0][end:]}, true
}

// Covers reports whether a name lies between owner and next in the zone apex:
// it has no records then, and does not exist but where Next is below it.
func (n *NSEC) Covers(name, apex zone.Name) bool {
	at, from, to := zone.AppendOwnerKey(nil, name), zone.AppendOwnerKey(nil, n.Owner), zone.AppendOwnerKey(nil, n.Next)
	last := n.Next.Equal(apex)
	return bytes.Compare(from, at) < 0 && (last || bytes.Compare(at, to) < 0) && n.Next.Under(apex)
}

// Encloser is the closest name above a name that exists, as an NSEC that covers
// the name shows.
func (n *NSEC) Encloser(name zone.Name) zone.Name {
	for name = name.Parent(); name != zone.Root; name = name.Parent() {
		if n.Owner.Under(name) || n.Next.Under(name) {
			break
		}
	}
	return name
}

// NSEC3 is an NSEC3 of known parameters.
type NSEC3 struct {
	Owner, Next []byte // hashes
	OptOut      bool
	Types       []byte // bitmap
	Salt        string // in hex digits
	Iterations  uint16
}

// ParseNSEC3 reads the first record of an RRset of the zone apex; ok is false
// where it is to be ignored (RFC 5155, 8.1 and 8.2) or has too many iterations.
func ParseNSEC3(set *RRset, apex zone.Name) (h NSEC3, ok bool) {
	d := set.Data[0]
	if len(d) < 5 || d[0] != 1 || d[1]&^1 != 0 {
		return h, false // RFC 5155, 8.1 and 8.2
	}
	h.OptOut = d[1]&1 != 0
	h.Iterations = binary.BigEndian.Uint16(d[2:])
	saltEnd := 5 + int(d[4])
	if h.Iterations > MaxIterations || len(d) < saltEnd+1 || len(d) < saltEnd+1+int(d[saltEnd]) {
		return h, false
	}
	h.Salt = hex.EncodeToString(d[5:saltEnd])
	end := saltEnd + 1 + int(d[saltEnd])
	h.Next, h.Types = d[saltEnd+1:end], d[end:]
	if !set.Owner.Parent().Equal(apex) || len(set.Owner) < 2 {
		return h, false
	}
	label := strings.ToUpper(string(set.Owner[1 : 1+int(set.Owner[0])]))
	owner, err := base32.HexEncoding.WithPadding(base32.NoPadding).DecodeString(label)
	h.Owner = owner
	return h, err == nil && len(owner) == len(h.Next)
}

// Hash is the hash of a name with the parameters of h.
func (h *NSEC3) Hash(name zone.Name) []byte {
	text := dns.HashName(name.String(), dns.SHA1, h.Iterations, h.Salt)
	sum, err := base32.HexEncoding.WithPadding(base32.NoPadding).DecodeString(text)
	if err != nil {
		return nil
	}
	return sum
}

// Is reports whether the record is that of the name.
func (h *NSEC3) Is(name zone.Name) bool { return bytes.Equal(h.Owner, h.Hash(name)) }

// Covers reports whether the record says that no record is of the name.
func (h *NSEC3) Covers(name zone.Name) bool {
	at := h.Hash(name)
	after, before := bytes.Compare(h.Owner, at) < 0, bytes.Compare(at, h.Next) < 0
	if bytes.Compare(h.Owner, h.Next) >= 0 { // the last one, or the only one
		return (after || before) && !bytes.Equal(at, h.Owner)
	}
	return after && before
}

// byNSEC3 reads what NSEC3 records prove of a name (RFC 5155, 8.3 to 8.6).
// That no wildcard is there need not be proven: none can make a DS.
func byNSEC3(name, apex zone.Name, all []NSEC3) (a Absence, ok bool) {
	const most = 4 // what a proof needs at most, and one
	if all = all[:min(len(all), most)]; len(all) == 0 {
		return Absence{}, false
	}
	find := func(is func(*NSEC3) bool) *NSEC3 {
		for i := range all {
			if is(&all[i]) {
				return &all[i]
			}
		}
		return nil
	}
	if h := find(func(h *NSEC3) bool { return h.Is(name) }); h != nil {
		return hasNoDS(h.Types)
	}
	for closer := name; !closer.Equal(apex) && closer.Under(apex); closer = closer.Parent() {
		encloser := find(func(h *NSEC3) bool { return h.Is(closer.Parent()) })
		if encloser == nil {
			continue
		}
		cover := find(func(h *NSEC3) bool { return h.Covers(closer) })
		if CannotSpeak(encloser.Types) || cover == nil {
			return Absence{}, false
		}
		return Absence{Cut: cover.OptOut}, true
	}
	return Absence{}, false
}

// HasType looks a type up in a type bitmap (RFC 4034, 4.1.2).
func HasType(bitmap []byte, t zone.Type) bool {
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

// NotThere checks the proof that a name that a wildcard answered for does not
// exist itself (RFC 4035, 5.3.4; RFC 5155, 8.8). labels is how many labels the
// closest name that exists has.
func NotThere(name zone.Name, labels int, apex zone.Name, authority []RRset, keys []Key, now time.Time) error {
	closer := name
	for closer.Labels() > labels+1 {
		closer = closer.Parent()
	}
	read := 0
	for i := range authority {
		set := &authority[i]
		if set.Type != zone.TypeNSEC && set.Type != zone.TypeNSEC3 || len(set.Data) != 1 {
			continue
		}
		if read++; read > MaxProof {
			break
		}
		if _, _, err := set.Verified(apex, keys, now); err != nil {
			continue
		}
		if set.Type == zone.TypeNSEC3 {
			if h, ok := ParseNSEC3(set, apex); ok && h.Covers(closer) {
				return nil
			}
			continue
		}
		a, ok := byNSEC(name, apex, set)
		if n, read := ParseNSEC(set); ok && read && !a.Exists && !set.Owner.Equal(name) && n.Encloser(name).Labels() == labels {
			return nil
		}
	}
	return errors.New("it comes from a wildcard, and nothing proves that there is no closer name")
}
