package xfr

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/miekg/dns"

	"sluice/signer/zone"
)

const (
	maxMessage = 1<<16 - 1
	// softMessage is where a message of a stream ends. Only names in the first
	// 16 KiB of a message can be pointed to, so longer messages would repeat
	// owners: they take more bytes and no less time.
	softMessage = maxPointer + 1
	// blockSize holds several messages, so that one write sends them together;
	// a block always has room for one message of the largest size.
	blockSize = 2 + maxMessage + 64<<10
	// optLen is an OPT record with one extended error without text.
	optLen = 11 + 4 + 2
	// udpPayload is the largest UDP answer (flag day 2020); clients may ask
	// for less.
	udpPayload = 1232
)

var (
	// errFull: the answer does not fit into the one message it may have.
	errFull = errors.New("answer does not fit into one message")
	// errBadItem: an item of the view is damaged.
	errBadItem = errors.New("damaged item")
)

// sink takes blocks of finished messages.
type sink interface {
	// emit sends block and returns an empty one to go on with. The caller no
	// longer touches block.
	emit(block []byte) (empty []byte, err error)
}

// encoder writes answers straight into wire form, with names compressed where
// RFC 3597, 4 allows it. It is owned by one goroutine.
type encoder struct {
	req    *request
	out    sink // nil where the answer is one message
	framed bool // each message is preceded by its length (RFC 1035, 4.2.2)
	sign   *tsigSigner

	buf   []byte // finished messages, then the open one
	start int    // where the open message's header stands in buf
	hard  int    // the open message never gets longer
	flags uint16
	extra *extra // what the additional section of the first message says

	answers   int
	authority bool  // the records stand in the authority section
	records   int64 // of all messages
	messages  int64
	bytes     int64

	table    table
	apex     []byte
	apexAt   uint16 // where the apex stands in the open message; 0 unknown
	below    []byte // what the keys of all names at and below the apex begin with
	lower    []byte // the apex in lower case
	tail     []byte // the last name of RDATA without its first label
	tailAt   uint16 // where tail stands in the open message; 0 unknown
	ownerKey []byte // owner key of the last item
	owner    []byte // its owner in wire form
	ownCase  bool   // owner comes from a value, not from the key
	ownerAt  uint16 // where owner stands in the open message; 0 unknown
}

// extra is the content of an OPT record (RFC 6891) of ours.
type extra struct {
	rcode int // the upper bits stand in the OPT record
	ede   ede
}

// begin makes ready for an answer to req whose messages take size bytes at
// most; they are appended to buf.
func (e *encoder) begin(req *request, buf []byte, out sink, framed bool, size int) {
	e.req, e.out, e.framed, e.buf = req, out, framed, buf
	e.sign, e.extra, e.apex, e.authority = nil, nil, nil, false
	e.below, e.lower = e.below[:0], e.lower[:0]
	e.flags = flagQR | req.flags&(maskOp|flagRD|flagCD)
	e.answers, e.records, e.messages, e.bytes = 0, 0, 0, 0
	e.hard = size
	if req.edns {
		e.hard -= optLen
		e.extra = &extra{ede: edeNone}
	}
	e.ownerKey = e.ownerKey[:0]
}

// release forgets the request; the buffers stay for the next one.
func (e *encoder) release() {
	e.req, e.out, e.sign, e.extra, e.apex = nil, nil, nil, nil, nil
	e.buf = e.buf[:0]
}

// signWith makes every message end in a TSIG record.
func (e *encoder) signWith(s *tsigSigner) {
	if s != nil {
		e.sign, e.hard = s, e.hard-s.size()
	}
}

// open starts a message; the first one repeats the question.
func (e *encoder) open() {
	if e.framed {
		e.buf = append(e.buf, 0, 0)
	}
	e.start = len(e.buf)
	e.buf = append(e.buf, make([]byte, headerLen)...)
	e.table.clear()
	e.answers, e.apexAt, e.ownerAt, e.tailAt = 0, 0, 0, 0
	if e.messages > 0 || !e.req.hasQuestion() {
		return
	}
	e.name([]byte(e.req.name))
	e.buf = binary.BigEndian.AppendUint16(e.buf, uint16(e.req.qtype))
	e.buf = binary.BigEndian.AppendUint16(e.buf, e.req.qclass)
}

// finish ends the open message: header, OPT in the first one, TSIG, length.
func (e *encoder) finish() error {
	msg := e.buf[e.start:]
	binary.BigEndian.PutUint16(msg, e.req.id)
	flags, additional := e.flags, 0
	questions := 0
	if e.messages == 0 {
		if e.req.hasQuestion() {
			questions = 1
		}
		if e.extra != nil {
			e.appendOPT()
			additional++
			flags |= uint16(e.extra.rcode & 0xf)
		}
	}
	msg = e.buf[e.start:]
	binary.BigEndian.PutUint16(msg[2:], flags)
	binary.BigEndian.PutUint16(msg[4:], uint16(questions))
	section := 6
	if e.authority {
		section = 8
	}
	binary.BigEndian.PutUint16(msg[section:], uint16(e.answers))
	binary.BigEndian.PutUint16(msg[10:], uint16(additional))
	if e.sign != nil {
		e.buf = e.sign.appendTo(e.buf, e.start, time.Now())
		msg = e.buf[e.start:]
	}
	if len(msg) > maxMessage {
		return errFull
	}
	if e.framed {
		binary.BigEndian.PutUint16(e.buf[e.start-2:], uint16(len(msg)))
	}
	e.messages++
	e.bytes += int64(len(msg))
	return nil
}

// setCode sets the RCODE of the answer, its upper bits in OPT (RFC 6891, 6.1.3).
func (e *encoder) setCode(rcode int, why ede) {
	if e.extra != nil {
		e.extra.rcode, e.extra.ede = rcode, why
		return
	}
	e.flags = e.flags&^0xf | uint16(rcode&0xf)
}

// appendOPT appends the OPT record, with the extended error (RFC 8914, 2).
func (e *encoder) appendOPT() {
	var do byte
	if e.req.do {
		do = 0x80
	}
	size := uint16(udpPayload)
	e.buf = append(e.buf, 0, byte(typeOPT>>8), byte(typeOPT), byte(size>>8), byte(size),
		byte(e.extra.rcode>>4), 0, do, 0)
	if e.extra.ede == edeNone {
		e.buf = append(e.buf, 0, 0)
		return
	}
	e.buf = append(e.buf, 0, 6, 0, dns.EDNS0EDE, 0, 2)
	e.buf = binary.BigEndian.AppendUint16(e.buf, uint16(e.extra.ede))
}

// next finishes the open message and opens another, in a fresh block where
// this one has no room left for a message of the largest size.
func (e *encoder) next() error {
	if e.out == nil || e.answers == 0 {
		return errFull
	}
	if err := e.finish(); err != nil {
		return err
	}
	if cap(e.buf)-len(e.buf) < 2+maxMessage {
		empty, err := e.out.emit(e.buf)
		if err != nil {
			return err
		}
		e.buf = empty[:0]
	}
	e.open()
	return nil
}

// end finishes the last message and sends what is left.
func (e *encoder) end() error {
	if err := e.finish(); err != nil {
		return err
	}
	if e.out == nil {
		return nil
	}
	_, err := e.out.emit(e.buf)
	return err
}

// item writes the records of one item.
func (e *encoder) item(key, value []byte) error {
	if len(key) < 4 || len(value) < 5 || len(value) < 5+int(value[4]) {
		return fmt.Errorf("key %x: %w", key, errBadItem)
	}
	kind, ownerKey := zone.Kind(key[0]), key[1:len(key)-2]
	if err := e.setOwner(ownerKey, value[5:5+int(value[4])]); err != nil {
		return fmt.Errorf("key %x: %w", key, err)
	}
	rtype := zone.Type(binary.BigEndian.Uint16(key[len(key)-2:]))
	if kind == zone.KindSigs || kind == zone.KindChainSigs {
		rtype = zone.TypeRRSIG
	}
	// NSEC3 owners are hashes: nothing else ever ends in one.
	plain := kind == zone.KindChain || kind == zone.KindChainSigs
	for body := value[5+int(value[4]):]; len(body) > 0; {
		if len(body) < 2 || len(body) < 2+int(binary.BigEndian.Uint16(body)) {
			return fmt.Errorf("key %x: %w", key, errBadItem)
		}
		rdata := body[2 : 2+int(binary.BigEndian.Uint16(body))]
		body = body[2+len(rdata):]
		if err := e.record(rtype, value[:4], rdata, plain); err != nil {
			return err
		}
	}
	return nil
}

// setOwner makes the owner of the records that follow known: name where it
// has upper case, else what the key says. Items of one owner stand together.
func (e *encoder) setOwner(ownerKey, name []byte) error {
	if bytes.Equal(ownerKey, e.ownerKey) {
		if len(name) == 0 && !e.ownCase || e.ownCase && bytes.Equal(name, e.owner) {
			return nil
		}
	}
	e.ownerAt, e.ownCase = 0, len(name) > 0
	e.ownerKey = append(e.ownerKey[:0], ownerKey...)
	if len(name) > 0 {
		if n, err := zone.NameLength(name); err != nil || n != len(name) {
			return errBadItem
		}
		e.owner = append(e.owner[:0], name...)
		return nil
	}
	if e.childOfApex(ownerKey) {
		return nil
	}
	var err error
	e.owner, err = zone.AppendNameOfKey(e.owner[:0], ownerKey)
	return err
}

// childOfApex makes the owner from its key, which is that of nearly all names
// of a large zone: one label without escapes, before the apex.
func (e *encoder) childOfApex(ownerKey []byte) bool {
	if len(e.below) == 0 {
		e.below = zone.AppendOwnerPrefix(e.below, zone.Name(e.apex))
		e.lower = zone.AppendFold(e.lower, e.apex)
	}
	n := len(ownerKey) - len(e.below) - 2
	if n < 1 || n > 63 || !bytes.HasPrefix(ownerKey, e.below) {
		return false
	}
	label := ownerKey[len(e.below) : len(e.below)+n]
	for _, c := range label {
		if c <= 1 {
			return false
		}
	}
	if ownerKey[len(ownerKey)-2] != 0 || ownerKey[len(ownerKey)-1] != 0 || 1+n+len(e.lower) > zone.MaxNameLength {
		return false
	}
	e.owner = append(append(append(e.owner[:0], byte(n)), label...), e.lower...)
	return true
}

// record writes one record of the present owner.
func (e *encoder) record(rtype zone.Type, ttl, rdata []byte, plain bool) error {
	longest := len(e.owner) + 10 + len(rdata)
	if n := len(e.buf) - e.start + longest; n > min(softMessage, e.hard) && (n > e.hard || e.answers > 0) {
		if err := e.next(); err != nil {
			return err
		}
		if len(e.buf)-e.start+longest > e.hard {
			return errFull
		}
	}
	switch {
	case e.ownerAt != 0:
		e.buf = append(e.buf, 0xc0|byte(e.ownerAt>>8), byte(e.ownerAt))
	case plain:
		e.ownerAt = e.plainName(e.owner)
	default:
		e.ownerAt = e.name(e.owner)
	}
	e.buf = append(e.buf, byte(rtype>>8), byte(rtype), 0, classIN, ttl[0], ttl[1], ttl[2], ttl[3],
		byte(len(rdata)>>8), byte(len(rdata)))
	switch rtype {
	case zone.TypeNS, zone.TypeCNAME, zone.TypeSOA, zone.TypeMX, zone.Type(dns.TypePTR):
		e.compressed(rtype, rdata)
	default:
		e.buf = append(e.buf, rdata...)
	}
	e.answers++
	e.records++
	return nil
}

// compressed writes RDATA that holds names which may be pointers (RFC 3597,
// 4), after its length, which is set anew.
func (e *encoder) compressed(rtype zone.Type, rdata []byte) {
	at := len(e.buf)
	names := 1
	switch rtype {
	case zone.TypeMX:
		n := min(2, len(rdata))
		e.buf = append(e.buf, rdata[:n]...)
		rdata = rdata[n:]
	case zone.TypeSOA:
		names = 2
	}
	for range names {
		n, err := zone.NameLength(rdata)
		if err != nil {
			break // goes out as it came in
		}
		e.target(rdata[:n])
		rdata = rdata[n:]
	}
	e.buf = append(e.buf, rdata...)
	binary.BigEndian.PutUint16(e.buf[at-2:], uint16(len(e.buf)-at))
}

// target writes a name of RDATA. Those of one RRset often differ in their
// first label alone.
func (e *encoder) target(wire []byte) {
	first := 1 + int(wire[0])
	if e.tailAt != 0 && first > 1 && bytes.Equal(wire[first:], e.tail) {
		e.leaf(wire[:first], e.tailAt)
		return
	}
	e.tailAt = 0
	at := e.name(wire)
	if at == 0 || first == 1 || wire[first] == 0 {
		return
	}
	// The label at the offset has what follows it in full or as a pointer.
	msg := e.buf[e.start:]
	next := int(at) + first
	if msg[next]&0xc0 == 0xc0 {
		next = int(binary.BigEndian.Uint16(msg[next:]) & maxPointer)
	}
	if next <= maxPointer {
		e.tail, e.tailAt = append(e.tail[:0], wire[first:]...), uint16(next)
	}
}

// leaf writes a label before the name at parent, or points to where both
// stand.
func (e *encoder) leaf(label []byte, parent uint16) {
	msg := e.buf[e.start:]
	if at := e.table.find(msg, parent, label); at != 0 {
		e.pointer(at)
		return
	}
	base := len(msg)
	e.buf = append(e.buf, label...)
	e.pointer(parent)
	if base <= maxPointer {
		e.table.add(uint16(base), parent, label)
	}
}

// name writes a name, as far as possible by pointing to an earlier one of the
// same case, and returns where it can be pointed to, or 0.
func (e *encoder) name(wire []byte) uint16 {
	var ends [129]uint8 // where label i begins; ends[count] is behind the last
	count, apexLabel := 0, -1
	i := 0
	for wire[i] != 0 {
		if len(e.apex) > 1 && len(wire)-i == len(e.apex) && bytes.Equal(wire[i:], e.apex) {
			apexLabel = count
			if e.apexAt != 0 {
				break
			}
		}
		ends[count] = uint8(i)
		count++
		i += 1 + int(wire[i])
	}
	ends[count] = uint8(i)
	msg := e.buf[e.start:]
	parent, todo := uint16(0), count
	if apexLabel >= 0 && e.apexAt != 0 {
		parent = e.apexAt
	}
	for todo > 0 {
		at := e.table.find(msg, parent, wire[ends[todo-1]:ends[todo]])
		if at == 0 {
			break
		}
		parent = at
		todo--
		if todo == apexLabel {
			e.apexAt = at
		}
	}
	if todo == 0 && parent != 0 {
		e.pointer(parent)
		return parent
	}
	base := len(msg)
	e.buf = append(e.buf, wire[:ends[todo]]...)
	if parent != 0 {
		e.pointer(parent)
	} else {
		e.buf = append(e.buf, 0)
	}
	if todo == 0 || base+int(ends[todo-1]) > maxPointer {
		return 0
	}
	for j := todo - 1; j >= 0; j-- {
		at := uint16(base + int(ends[j]))
		e.table.add(at, parent, wire[ends[j]:ends[j+1]])
		if parent = at; j == apexLabel {
			e.apexAt = at
		}
	}
	return uint16(base)
}

// plainName writes a name that no later one will end in: its labels in full,
// then the apex.
func (e *encoder) plainName(wire []byte) uint16 {
	d := len(wire) - len(e.apex)
	if e.apexAt == 0 || d <= 0 || int(wire[0])+1 != d || !bytes.Equal(wire[d:], e.apex) {
		return e.name(wire)
	}
	base := len(e.buf) - e.start
	e.buf = append(e.buf, wire[:d]...)
	e.pointer(e.apexAt)
	if base > maxPointer {
		return 0
	}
	return uint16(base)
}

func (e *encoder) pointer(at uint16) { e.buf = append(e.buf, 0xc0|byte(at>>8), byte(at)) }
