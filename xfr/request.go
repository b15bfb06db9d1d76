package xfr

import (
	"encoding/binary"
	"errors"

	"github.com/miekg/dns"

	"sluice/signer/zone"
)

// Bits of the header's second word (RFC 1035, 4.1.1).
const (
	flagQR    = 1 << 15
	flagAA    = 1 << 10
	flagTC    = 1 << 9
	flagRD    = 1 << 8
	flagCD    = 1 << 4
	maskOp    = 0xf << 11
	headerLen = 12
)

const (
	typeOPT  = zone.Type(dns.TypeOPT)
	typeTSIG = zone.Type(dns.TypeTSIG)
	typeIXFR = zone.Type(dns.TypeIXFR)
	typeAXFR = zone.Type(dns.TypeAXFR)

	classIN  = dns.ClassINET
	classANY = dns.ClassANY
)

// errDrop: the message gets no answer (a response, or no full header).
var errDrop = errors.New("not a request")

// errFormat: the header could be read, the rest could not.
var errFormat = errors.New("malformed request")

// request is what a query says, as far as this server reads it.
type request struct {
	id     uint16
	flags  uint16 // second word of the header as it came
	name   zone.Name
	qtype  zone.Type
	qclass uint16

	edns    bool
	version byte   // EDNS version
	payload uint16 // largest UDP payload that the client takes
	do      bool

	hasSerial bool        // an SOA stood in the authority section, or a NOTIFY's answer section
	serial    zone.Serial // of that SOA: what an IXFR client holds, or a NOTIFY tells

	update *UpdateMessage // of an update

	tsig   *tsigRecord // nil where the request was not signed
	tsigAt int         // where the TSIG record begins in the message
}

func (r *request) opcode() int { return int(r.flags&maskOp) >> 11 }

// hasQuestion reports whether the question could be read, so that an answer
// may repeat it.
func (r *request) hasQuestion() bool { return r.name != "" }

// parseRequest reads a message. On errFormat the request holds what had been
// read so far, the header at least.
func parseRequest(msg []byte) (request, error) {
	var r request
	if len(msg) < headerLen {
		return r, errDrop
	}
	r.id, r.flags = binary.BigEndian.Uint16(msg), binary.BigEndian.Uint16(msg[2:])
	if r.flags&flagQR != 0 {
		return r, errDrop
	}
	switch r.opcode() {
	case dns.OpcodeQuery, dns.OpcodeNotify, dns.OpcodeUpdate:
	default:
		return r, nil // other opcodes give the sections other meanings
	}
	if binary.BigEndian.Uint16(msg[4:]) != 1 {
		return r, errFormat
	}
	var buf [zone.MaxNameLength]byte
	name, at, ok := readName(buf[:0], msg, headerLen)
	if !ok || len(msg) < at+4 {
		return r, errFormat
	}
	r.name = zone.Name(name)
	r.qtype = zone.Type(binary.BigEndian.Uint16(msg[at:]))
	r.qclass = binary.BigEndian.Uint16(msg[at+2:])
	if r.opcode() == dns.OpcodeUpdate {
		return r, r.readUpdate(msg, at+4)
	}
	return r, r.readSections(msg, at+4)
}

// readSections reads the records behind the question.
func (r *request) readSections(msg []byte, at int) error {
	counts := [3]int{}
	for i := range counts {
		counts[i] = int(binary.BigEndian.Uint16(msg[6+2*i:]))
	}
	for section, count := range counts {
		for i := range count {
			rr, ok := readRecord(msg, at)
			if !ok {
				return errFormat
			}
			last := section == 2 && i == count-1
			if err := r.take(msg, rr, section, last); err != nil {
				return err
			}
			at = rr.end
		}
	}
	if at != len(msg) {
		return errFormat
	}
	return nil
}

// take notes one record of section (0 answer, 1 authority, 2 additional).
func (r *request) take(msg []byte, rr record, section int, last bool) error {
	switch rr.rtype {
	case typeOPT:
		// RFC 6891, 6.1.1: one OPT, in the additional section, owned by the root.
		if section != 2 || r.edns || len(rr.owner) != 1 {
			return errFormat
		}
		r.edns = true
		r.payload, r.version, r.do = rr.class, byte(rr.ttl>>16), rr.ttl&0x8000 != 0
	case typeTSIG:
		// RFC 8945, 5.1: one TSIG, the last record of the additional section.
		if !last {
			return errFormat
		}
		t, ok := parseTSIG(rr, msg)
		if !ok {
			return errFormat
		}
		r.tsig, r.tsigAt = t, rr.start
	case zone.TypeSOA:
		want := 1
		if r.opcode() == dns.OpcodeNotify {
			want = 0
		}
		if section != want || r.hasSerial || !zone.Name(rr.owner).Equal(r.name) {
			return nil
		}
		serial, ok := soaSerialAt(msg, rr)
		if !ok {
			return errFormat
		}
		r.hasSerial, r.serial = true, serial
	}
	return nil
}

// record is one resource record of a request; data lies at [dataAt, end).
type record struct {
	owner  []byte
	rtype  zone.Type
	class  uint16
	ttl    uint32
	start  int
	dataAt int
	end    int
}

func readRecord(msg []byte, at int) (record, bool) {
	r := record{start: at}
	owner, at, ok := readName(nil, msg, at)
	if !ok || len(msg) < at+10 {
		return r, false
	}
	r.owner = owner
	r.rtype = zone.Type(binary.BigEndian.Uint16(msg[at:]))
	r.class = binary.BigEndian.Uint16(msg[at+2:])
	r.ttl = binary.BigEndian.Uint32(msg[at+4:])
	r.dataAt = at + 10
	r.end = r.dataAt + int(binary.BigEndian.Uint16(msg[at+8:]))
	return r, r.end <= len(msg)
}

// soaSerialAt reads the serial of an SOA record inside a message.
func soaSerialAt(msg []byte, rr record) (zone.Serial, bool) {
	var buf [zone.MaxNameLength]byte
	at := rr.dataAt
	for range 2 {
		var ok bool
		if _, at, ok = readName(buf[:0], msg[:rr.end], at); !ok {
			return 0, false
		}
	}
	if rr.end-at != 20 {
		return 0, false
	}
	return zone.Serial(binary.BigEndian.Uint32(msg[at:])), true
}

// readName appends the uncompressed form of the name at msg[at:] and returns
// where it ends. A pointer must go back, so that every name ends.
func readName(dst, msg []byte, at int) (name []byte, end int, ok bool) {
	limit, end := at, -1
	for at < len(msg) {
		l := int(msg[at])
		switch {
		case l == 0:
			if end < 0 {
				end = at + 1
			}
			return append(dst, 0), end, true
		case l < 64:
			if at+1+l > len(msg) || len(dst)+1+l >= zone.MaxNameLength {
				return dst, 0, false
			}
			dst = append(dst, msg[at:at+1+l]...)
			at += 1 + l
		case l >= 0xc0 && at+1 < len(msg):
			to := (l&0x3f)<<8 | int(msg[at+1])
			if to >= limit || to < headerLen {
				return dst, 0, false
			}
			if end < 0 {
				end = at + 2
			}
			at, limit = to, to
		default:
			return dst, 0, false
		}
	}
	return dst, 0, false
}
