package validate

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/miekg/dns"

	"sluice/signer/zone"
)

// Bounds on what one answer may make us do. Real answers are far below them.
const (
	// MaxRecords is how many records are read of a section.
	MaxRecords = 512
	// MaxAttempts is how many signatures are verified for an RRset.
	MaxAttempts = 16
	// MaxProof is how many RRsets are read of a proof.
	MaxProof = 16
	// MaxKeySize is how many bytes a DNSKEY has: RSA of 4096 bits and some room.
	MaxKeySize = 600
)

// RRset is an RRset of an answer with the RRSIGs over it.
type RRset struct {
	Owner zone.Name // case as it came
	Type  zone.Type
	TTL   uint32   // the lowest of its records (RFC 2181, 5.2)
	Data  [][]byte // in canonical order
	Sigs  []Signature
}

// Signature is RRSIG RDATA (RFC 4034, 3.1).
type Signature struct {
	Algorithm, Labels                  uint8
	OriginalTTL, Expiration, Inception uint32
	Tag                                uint16
	Signer                             zone.Name // in lower case
	Bytes                              []byte    // the signature itself
	head                               []byte    // all before it, the signer's name in lower case
}

// Group groups the records of a section; class IN alone counts.
func Group(section []dns.RR) ([]RRset, error) {
	if len(section) > MaxRecords {
		return nil, fmt.Errorf("%d records in a section, more than %d", len(section), MaxRecords)
	}
	var sets []RRset
	var sigs []dns.RR
	for _, rr := range section {
		h := rr.Header()
		if h.Class != dns.ClassINET {
			continue
		}
		if h.Rrtype == dns.TypeRRSIG {
			sigs = append(sigs, rr)
			continue
		}
		owner, data, err := Wire(rr)
		if err != nil {
			return nil, err
		}
		ttl := h.Ttl
		if ttl > 1<<31-1 {
			ttl = 0 // RFC 2181, 8
		}
		set := Find(sets, owner, zone.Type(h.Rrtype))
		if set == nil {
			sets = append(sets, RRset{Owner: owner, Type: zone.Type(h.Rrtype), TTL: ttl})
			set = &sets[len(sets)-1]
		}
		set.TTL = min(set.TTL, ttl)
		set.Data = append(set.Data, data)
	}
	for _, rr := range sigs {
		owner, data, err := Wire(rr)
		if err != nil {
			return nil, err
		}
		covered, sig, ok := parseRRSIG(data)
		if !ok {
			continue
		}
		if set := Find(sets, owner, covered); set != nil {
			set.Sigs = append(set.Sigs, sig)
		}
	}
	for i := range sets {
		sets[i].Data = zone.SortRData(sets[i].Type, sets[i].Data)
	}
	return sets, nil
}

// Wire is a record's owner and RDATA, uncompressed.
func Wire(rr dns.RR) (owner zone.Name, rdata []byte, err error) {
	buf := make([]byte, dns.Len(rr)+zone.MaxNameLength)
	end, err := dns.PackRR(rr, buf, 0, nil, false)
	if err != nil {
		return "", nil, err
	}
	n, err := zone.NameLength(buf[:end])
	if err != nil || end < n+10 {
		return "", nil, fmt.Errorf("record of type %d: malformed", rr.Header().Rrtype)
	}
	return zone.Name(buf[:n]), buf[n+10 : end : end], nil
}

// Find finds an RRset among those of a section; nil where it is not there.
func Find(sets []RRset, name zone.Name, t zone.Type) *RRset {
	for i := range sets {
		if sets[i].Type == t && sets[i].Owner.Equal(name) {
			return &sets[i]
		}
	}
	return nil
}

// parseRRSIG reads RRSIG RDATA; ok is false where it is malformed.
func parseRRSIG(data []byte) (covered zone.Type, sig Signature, ok bool) {
	if len(data) < 18 {
		return 0, Signature{}, false
	}
	n, err := zone.NameLength(data[18:])
	if err != nil || len(data) <= 18+n {
		return 0, Signature{}, false
	}
	sig = Signature{
		Algorithm: data[2], Labels: data[3],
		OriginalTTL: binary.BigEndian.Uint32(data[4:]),
		Expiration:  binary.BigEndian.Uint32(data[8:]),
		Inception:   binary.BigEndian.Uint32(data[12:]),
		Tag:         binary.BigEndian.Uint16(data[16:]),
		Signer:      zone.Name(data[18 : 18+n]).Fold(),
		Bytes:       data[18+n:],
	}
	sig.head = append(bytes.Clone(data[:18]), sig.Signer...)
	return zone.Type(binary.BigEndian.Uint16(data)), sig, true
}

// Message is what the signature signs (RFC 4034, 3.1.8.1).
func (s *Signature) Message(set *RRset) []byte {
	owner := set.Owner.Fold()
	if owner.IsWildcard() || int(s.Labels) < owner.Labels() {
		for owner.Labels() > int(s.Labels) {
			owner = owner.Parent()
		}
		owner = "\x01*" + owner
	}
	msg := bytes.Clone(s.head)
	for _, data := range set.Data {
		canonical := zone.AppendCanonicalRData(nil, set.Type, data)
		msg = append(msg, owner...)
		msg = binary.BigEndian.AppendUint16(msg, uint16(set.Type))
		msg = append(msg, 0, byte(dns.ClassINET))
		msg = binary.BigEndian.AppendUint32(msg, s.OriginalTTL)
		msg = zone.AppendRData(msg, canonical)
	}
	return msg
}

// Synthesized reports whether the signature says that a wildcard made the set.
func (s *Signature) Synthesized(set *RRset) bool {
	labels := set.Owner.Labels()
	if set.Owner.IsWildcard() {
		labels--
	}
	return int(s.Labels) != labels
}
