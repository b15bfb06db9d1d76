package xfr

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/miekg/dns"

	"sluice/signer/zone"
)

// Record is one resource record of class IN. Its slices are valid during the
// call that hands it over.
type Record struct {
	// Owner is the owner in wire form, uncompressed, case as it came.
	Owner []byte
	Type  zone.Type
	// TTL is in seconds; one above 2^31-1 came in as 0 (RFC 2181, 8).
	TTL uint32
	// RData is uncompressed and right for its type.
	RData []byte
}

var (
	errBadOwner  = errors.New("malformed owner")
	errOutOfZone = errors.New("owner out of the zone")
	errBadClass  = errors.New("class is not IN")
	errBadData   = errors.New("malformed RDATA")
	errAnswerEnd = errors.New("data behind the last record")
)

// decoder reads the records of messages. It decompresses names and checks
// each record; nothing in it grows with what is read.
type decoder struct {
	apex zone.Name // lower case
	msg  []byte
	at   int
	rr   Record

	ownerAt int // where rr.Owner stands in msg; 0 unknown
	owner   [zone.MaxNameLength]byte
	rdata   []byte
}

// begin starts on the records of a message.
func (d *decoder) begin(msg []byte, at int) { d.msg, d.at, d.ownerAt = msg, at, 0 }

// next reads a record into d.rr.
func (d *decoder) next() error {
	at, err := d.readOwner()
	if err != nil {
		return err
	}
	msg := d.msg
	if len(msg) < at+10 {
		return errBadMessage
	}
	h := msg[at : at+10]
	t := zone.Type(binary.BigEndian.Uint16(h))
	d.rr.Type = t
	if binary.BigEndian.Uint16(h[2:]) != classIN {
		return d.wrong(errBadClass)
	}
	if d.rr.TTL = binary.BigEndian.Uint32(h[4:]); d.rr.TTL > 1<<31-1 {
		d.rr.TTL = 0
	}
	dataAt := at + 10
	end := dataAt + int(binary.BigEndian.Uint16(h[8:]))
	if end > len(msg) {
		return d.wrong(errBadMessage)
	}
	d.at = end
	if err := d.data(t, dataAt, end); err != nil {
		return d.wrong(err)
	}
	return nil
}

// wrong names the record that an error is about.
func (d *decoder) wrong(err error) error {
	return fmt.Errorf("%s %s: %w", zone.Name(d.rr.Owner), d.rr.Type, err)
}

// readOwner reads the owner at d.at and returns where it ends. Owners that
// point to the one before, as most do, are not read again.
func (d *decoder) readOwner() (end int, err error) {
	msg, at := d.msg, d.at
	pointed := 0
	if at+1 < len(msg) && msg[at] >= 0xc0 {
		pointed = int(msg[at]&0x3f)<<8 | int(msg[at+1])
		if pointed == d.ownerAt && pointed != 0 {
			return at + 2, nil
		}
	}
	name, end, ok := readName(d.owner[:0], msg, at)
	if !ok {
		return 0, errBadOwner
	}
	d.rr.Owner = name
	if !under(name, d.apex) {
		d.ownerAt = 0
		d.rr.Type = 0
		return 0, fmt.Errorf("%s: %w", zone.Name(name), errOutOfZone)
	}
	if d.ownerAt = at; pointed != 0 {
		d.ownerAt = pointed
	}
	return end, nil
}

// under reports whether a name in wire form is apex, which is in lower case,
// or below it.
func under(name []byte, apex zone.Name) bool {
	i := 0
	for len(name)-i > len(apex) {
		i += 1 + int(name[i])
	}
	return equalFold(name[i:], apex)
}

// data reads RDATA of type t. Names are decompressed where they may be
// compressed: RFC 3597, 4.
func (d *decoder) data(t zone.Type, at, end int) error {
	rdata := d.msg[at:end:end]
	d.rr.RData = rdata
	var ok bool
	switch uint16(t) {
	case dns.TypeNS, dns.TypeMD, dns.TypeMF, dns.TypeCNAME, dns.TypeMB, dns.TypeMG, dns.TypeMR, dns.TypePTR:
		return d.names(at, end, 0, 1, 0)
	case dns.TypeSOA:
		return d.names(at, end, 0, 2, 20)
	case dns.TypeMINFO, dns.TypeRP:
		return d.names(at, end, 0, 2, 0)
	case dns.TypeMX, dns.TypeAFSDB, dns.TypeRT:
		return d.names(at, end, 2, 1, 0)
	case dns.TypePX:
		return d.names(at, end, 2, 2, 0)
	case dns.TypeSRV:
		return d.names(at, end, 6, 1, 0)
	case dns.TypeNAPTR:
		skip, ok := stringsEnd(rdata, 4, 3)
		if !ok {
			return errBadData
		}
		return d.names(at, end, skip, 1, 0)
	case dns.TypeSIG:
		return d.names(at, end, 18, 1, -1)
	case dns.TypeNXT:
		return d.names(at, end, 0, 1, -1)
	case dns.TypeA:
		ok = len(rdata) == 4
	case dns.TypeAAAA:
		ok = len(rdata) == 16
	case dns.TypeTXT, dns.TypeSPF:
		ok = len(rdata) > 0 && onlyStrings(rdata)
	case dns.TypeDNSKEY, dns.TypeCDNSKEY, dns.TypeTLSA, dns.TypeSMIMEA:
		ok = len(rdata) > 4
	case dns.TypeNSEC:
		n, err := zone.NameLength(rdata)
		ok = err == nil && checkBitmap(rdata[n:])
	case dns.TypeNSEC3:
		ok = checkNSEC3(rdata)
	default:
		if err := zone.CheckType(t); err != nil {
			return err
		}
		return zone.CheckRData(t, rdata)
	}
	if !ok {
		return errBadData
	}
	return nil
}

// names reads RDATA of skip bytes, names, and tail bytes; a tail of -1 is of
// any length but none.
func (d *decoder) names(at, end, skip, names, tail int) error {
	msg := d.msg[:end]
	if at+skip > end {
		return errBadData
	}
	out := append(d.rdata[:0], msg[at:at+skip]...)
	at += skip
	for range names {
		base := len(out)
		var buf [zone.MaxNameLength]byte
		name, next, ok := readName(buf[:0], msg, at)
		if !ok {
			return errBadData
		}
		out, at = append(out[:base], name...), next
	}
	if rest := end - at; tail >= 0 && rest != tail || tail < 0 && rest == 0 {
		return errBadData
	}
	out = append(out, msg[at:]...)
	if d.rdata = out; len(out) > maxMessage {
		return errBadData
	}
	d.rr.RData = out
	return nil
}

// stringsEnd is where count character-strings from at on end.
func stringsEnd(rdata []byte, at, count int) (int, bool) {
	for range count {
		if at >= len(rdata) {
			return 0, false
		}
		at += 1 + int(rdata[at])
	}
	return at, at <= len(rdata)
}

func onlyStrings(rdata []byte) bool {
	at := 0
	for at < len(rdata) {
		at += 1 + int(rdata[at])
	}
	return at == len(rdata)
}

// checkNSEC3 checks the shape of NSEC3 RDATA (RFC 5155, 3.2).
func checkNSEC3(rdata []byte) bool {
	at, ok := stringsEnd(rdata, 4, 1)
	if !ok {
		return false
	}
	hash := at
	if at, ok = stringsEnd(rdata, at, 1); !ok || rdata[hash] == 0 {
		return false
	}
	return checkBitmap(rdata[at:])
}

// checkBitmap checks the shape of a list of types (RFC 4034, 4.1.2).
func checkBitmap(bitmap []byte) bool {
	last := -1
	for len(bitmap) > 0 {
		if len(bitmap) < 3 {
			return false
		}
		window, n := int(bitmap[0]), int(bitmap[1])
		if window <= last || n < 1 || n > 32 || len(bitmap) < 2+n || bitmap[1+n] == 0 {
			return false
		}
		last, bitmap = window, bitmap[2+n:]
	}
	return true
}

// soaSerial is the serial in checked SOA RDATA.
func soaSerial(rdata []byte) zone.Serial {
	return zone.Serial(binary.BigEndian.Uint32(rdata[len(rdata)-20:]))
}

// scanned is what the sections behind the answers hold.
type scanned struct {
	tsig          *tsigRecord
	tsigAt        int
	extendedRcode int
	extended      string // extended error in words
}

// read passes over all records of a message from the answers at at on, and
// notes OPT and TSIG.
func (s *scanned) read(msg []byte, at int) error {
	*s = scanned{}
	additional := int(binary.BigEndian.Uint16(msg[10:]))
	before := int(binary.BigEndian.Uint16(msg[6:])) + int(binary.BigEndian.Uint16(msg[8:]))
	for range before {
		if at = skipRecord(msg, at); at == 0 {
			return errBadMessage
		}
	}
	for i := range additional {
		end := skipRecord(msg, at)
		if end == 0 {
			return errBadMessage
		}
		if err := s.extra(msg, at, i == additional-1); err != nil {
			return err
		}
		at = end
	}
	if at != len(msg) {
		return errAnswerEnd
	}
	return nil
}

// extra notes the record at at of the additional section.
func (s *scanned) extra(msg []byte, at int, last bool) error {
	rr, ok := readRecord(msg, at)
	if !ok {
		return errBadMessage
	}
	switch rr.rtype {
	case typeTSIG:
		if s.tsig, ok = parseTSIG(rr, msg); !ok || !last {
			return errTSIGPlace
		}
		s.tsigAt = rr.start
	case typeOPT:
		s.extendedRcode = int(rr.ttl>>24) << 4
		s.extended = extendedError(msg[rr.dataAt:rr.end])
	}
	return nil
}

// extendedError puts the first extended error of an OPT record into words
// (RFC 8914, 2), its text shortened and quoted.
func extendedError(options []byte) string {
	for len(options) >= 4 {
		code, n := binary.BigEndian.Uint16(options), int(binary.BigEndian.Uint16(options[2:]))
		if options = options[4:]; len(options) < n {
			return ""
		}
		if code == dns.EDNS0EDE && n >= 2 {
			info := binary.BigEndian.Uint16(options)
			words, ok := dns.ExtendedErrorCodeToString[info]
			if !ok {
				words = fmt.Sprintf("extended error %d", info)
			}
			if text := options[2:n]; len(text) > 0 {
				words += fmt.Sprintf(": %.120q", text)
			}
			return words
		}
		options = options[n:]
	}
	return ""
}

// skipRecord is where the record at at ends; 0 where it does not.
func skipRecord(msg []byte, at int) int {
	for at < len(msg) && msg[at] != 0 && msg[at] < 64 {
		at += 1 + int(msg[at])
	}
	if at < len(msg) && msg[at] >= 0xc0 {
		at++
	}
	at++
	if len(msg) < at+10 {
		return 0
	}
	at += 10 + int(binary.BigEndian.Uint16(msg[at+8:]))
	if at > len(msg) {
		return 0
	}
	return at
}
