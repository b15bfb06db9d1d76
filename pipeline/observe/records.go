package observe

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/miekg/dns"

	"sluice/signer/zone"
)

// Bounds on what one answer may make us do. Real answers are far below them.
const (
	maxRecords  = 512 // records read of a section
	maxAttempts = 16  // signatures verified for an RRset
	maxProof    = 16  // RRsets read of a proof
	maxKeySize  = 600 // bytes of a DNSKEY: RSA of 4096 bits and some room
)

// rrset is an RRset of an answer with the RRSIGs over it.
type rrset struct {
	owner zone.Name // case as it came
	t     zone.Type
	ttl   uint32 // the lowest of its records (RFC 2181, 5.2)
	data  [][]byte
	sigs  []rrsig
}

// rrsig is RRSIG RDATA (RFC 4034, 3.1).
type rrsig struct {
	algorithm, labels                  uint8
	originalTTL, expiration, inception uint32
	tag                                uint16
	signer                             zone.Name // in lower case
	head                               []byte    // all before the signature, the signer's name in lower case
	signature                          []byte
}

// rrsets groups the records of a section; class IN alone counts.
func rrsets(section []dns.RR) ([]rrset, error) {
	if len(section) > maxRecords {
		return nil, fmt.Errorf("%d records in a section, more than %d", len(section), maxRecords)
	}
	var sets []rrset
	find := func(owner zone.Name, t zone.Type) *rrset {
		for i := range sets {
			if sets[i].t == t && sets[i].owner.Equal(owner) {
				return &sets[i]
			}
		}
		return nil
	}
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
		owner, data, err := wire(rr)
		if err != nil {
			return nil, err
		}
		ttl := h.Ttl
		if ttl > 1<<31-1 {
			ttl = 0 // RFC 2181, 8
		}
		set := find(owner, zone.Type(h.Rrtype))
		if set == nil {
			sets = append(sets, rrset{owner: owner, t: zone.Type(h.Rrtype), ttl: ttl})
			set = &sets[len(sets)-1]
		}
		set.ttl = min(set.ttl, ttl)
		set.data = append(set.data, data)
	}
	for _, rr := range sigs {
		owner, data, err := wire(rr)
		if err != nil {
			return nil, err
		}
		covered, sig, ok := parseRRSIG(data)
		if !ok {
			continue
		}
		if set := find(owner, covered); set != nil {
			set.sigs = append(set.sigs, sig)
		}
	}
	for i := range sets {
		sets[i].data = zone.SortRData(sets[i].t, sets[i].data)
	}
	return sets, nil
}

// wire is a record's owner and RDATA, uncompressed.
func wire(rr dns.RR) (owner zone.Name, rdata []byte, err error) {
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

// parseRRSIG reads RRSIG RDATA; ok is false where it is malformed.
func parseRRSIG(data []byte) (covered zone.Type, sig rrsig, ok bool) {
	if len(data) < 18 {
		return 0, rrsig{}, false
	}
	n, err := zone.NameLength(data[18:])
	if err != nil || len(data) <= 18+n {
		return 0, rrsig{}, false
	}
	sig = rrsig{
		algorithm: data[2], labels: data[3],
		originalTTL: binary.BigEndian.Uint32(data[4:]),
		expiration:  binary.BigEndian.Uint32(data[8:]),
		inception:   binary.BigEndian.Uint32(data[12:]),
		tag:         binary.BigEndian.Uint16(data[16:]),
		signer:      zone.Name(data[18 : 18+n]).Fold(),
		signature:   data[18+n:],
	}
	sig.head = append(bytes.Clone(data[:18]), sig.signer...)
	return zone.Type(binary.BigEndian.Uint16(data)), sig, true
}

// message is what the signature signs (RFC 4034, 3.1.8.1).
func (s *rrsig) message(set *rrset) []byte {
	owner := set.owner.Fold()
	if owner.IsWildcard() || int(s.labels) < owner.Labels() {
		for owner.Labels() > int(s.labels) {
			owner = owner.Parent()
		}
		owner = "\x01*" + owner
	}
	msg := bytes.Clone(s.head)
	for _, data := range set.data {
		canonical := zone.AppendCanonicalRData(nil, set.t, data)
		msg = append(msg, owner...)
		msg = binary.BigEndian.AppendUint16(msg, uint16(set.t))
		msg = append(msg, 0, byte(dns.ClassINET))
		msg = binary.BigEndian.AppendUint32(msg, s.originalTTL)
		msg = zone.AppendRData(msg, canonical)
	}
	return msg
}

// synthesized reports whether the signature says that a wildcard made the set.
func (s *rrsig) synthesized(set *rrset) bool {
	labels := set.owner.Labels()
	if set.owner.IsWildcard() {
		labels--
	}
	return int(s.labels) != labels
}
