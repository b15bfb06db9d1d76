package xfr

import (
	"crypto/hmac"
	"crypto/md5"  //nolint:gosec // hmac-md5 is verified only where the operator allows weak algorithms
	"crypto/sha1" //nolint:gosec // likewise hmac-sha1
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"hash"
	"time"

	"github.com/miekg/dns"

	"sluice/signer/zone"
)

// Keys finds the TSIG keys that requests may be signed with.
type Keys interface {
	// Secret returns the algorithm and the secret of a key. The name is in
	// lower case. The algorithm is one of hmac-sha224, hmac-sha256,
	// hmac-sha384 and hmac-sha512, or of hmac-sha1 and hmac-md5, which count
	// only where Config.WeakTSIG is set. The secret is not changed.
	Secret(name zone.Name) (algorithm string, secret []byte, ok bool)
}

// tsigFudge is the fudge of our own signatures, in seconds (RFC 8945, 10).
const tsigFudge = 300

// tsigRecord is the TSIG record of a request (RFC 8945, 4.2).
type tsigRecord struct {
	key, algorithm zone.Name // lower case
	time           uint64    // seconds since the epoch, 48 bits
	fudge          uint16
	mac            []byte
	id             uint16 // original ID
	code           uint16
	other          []byte
}

// parseTSIG reads the RDATA of a TSIG record.
func parseTSIG(rr record, msg []byte) (*tsigRecord, bool) {
	if rr.class != classANY || rr.ttl != 0 {
		return nil, false
	}
	// The algorithm's name is not compressed (RFC 8945, 4.2).
	data := msg[rr.dataAt:rr.end]
	n, err := zone.NameLength(data)
	if err != nil || len(data) < n+10 {
		return nil, false
	}
	t := &tsigRecord{key: zone.Name(rr.owner).Fold(), algorithm: zone.Name(data[:n]).Fold()}
	data = data[n:]
	t.time = uint64(binary.BigEndian.Uint16(data))<<32 | uint64(binary.BigEndian.Uint32(data[2:]))
	t.fudge = binary.BigEndian.Uint16(data[6:])
	size := int(binary.BigEndian.Uint16(data[8:]))
	data = data[10:]
	if len(data) < size+6 {
		return nil, false
	}
	t.mac, data = data[:size], data[size:]
	t.id = binary.BigEndian.Uint16(data)
	t.code = binary.BigEndian.Uint16(data[2:])
	t.other = data[6:]
	return t, len(t.other) == int(binary.BigEndian.Uint16(data[4:]))
}

// tsigAlgorithm is the hash of an algorithm and its wire name; nil where it
// is not known or too weak.
func tsigAlgorithm(name string, weak bool) (func() hash.Hash, zone.Name) {
	switch name {
	case "hmac-sha224":
		return sha256.New224, "\x0bhmac-sha224\x00"
	case "hmac-sha256":
		return sha256.New, "\x0bhmac-sha256\x00"
	case "hmac-sha384":
		return sha512.New384, "\x0bhmac-sha384\x00"
	case "hmac-sha512":
		return sha512.New, "\x0bhmac-sha512\x00"
	}
	switch {
	case weak && name == "hmac-sha1":
		return sha1.New, "\x09hmac-sha1\x00"
	case weak && name == "hmac-md5":
		return md5.New, "\x08hmac-md5\x07sig-alg\x03reg\x03int\x00"
	}
	return nil, ""
}

// tsigSigner ends the messages of one answer in TSIG records.
type tsigSigner struct {
	key, algorithm zone.Name
	mac            hash.Hash // nil: the record says what is wrong, unsigned
	last           []byte    // MAC of the request, then of the message before
	begun          bool      // the first message is signed
	code           uint16    // TSIG error
	clientTime     uint64    // stands for our time in an answer with an error
}

// verifyTSIG checks the TSIG record of a request (RFC 8945, 5.2) and returns
// what signs the answer and the TSIG error, 0 if there is none. It is false
// where the record is malformed.
func verifyTSIG(msg []byte, req *request, keys Keys, weak bool, now time.Time) (*tsigSigner, bool) {
	t := req.tsig
	s := &tsigSigner{key: t.key, algorithm: t.algorithm, clientTime: t.time, code: dns.RcodeBadKey}
	if keys == nil {
		return s, true
	}
	name, secret, ok := keys.Secret(t.key)
	newHash, wire := tsigAlgorithm(name, weak)
	if !ok || newHash == nil || wire != t.algorithm {
		return s, true
	}
	mac := hmac.New(newHash, secret)
	// RFC 8945, 5.2.2.1: at least half of the hash and 10 bytes, else it is
	// malformed; we take no truncated MAC at all.
	if len(t.mac) > mac.Size() || len(t.mac) < max(10, mac.Size()/2) {
		return s, false
	}
	var head [headerLen]byte
	copy(head[:], msg)
	binary.BigEndian.PutUint16(head[:], t.id)
	binary.BigEndian.PutUint16(head[10:], binary.BigEndian.Uint16(msg[10:])-1)
	mac.Write(head[:])
	mac.Write(msg[headerLen:req.tsigAt])
	mac.Write(tsigVariables(t))
	want := mac.Sum(nil)
	if !hmac.Equal(want[:len(t.mac)], t.mac) {
		s.code = dns.RcodeBadSig
		return s, true
	}
	s.mac, s.last, s.code = mac, t.mac, 0
	switch ours := uint64(now.Unix()); {
	case max(ours, t.time)-min(ours, t.time) > uint64(t.fudge):
		s.code = dns.RcodeBadTime
	case len(t.mac) < mac.Size():
		s.code = dns.RcodeBadTrunc
	}
	return s, true
}

// tsigVariables is what a MAC covers beside the message (RFC 8945, 4.3.3).
func tsigVariables(t *tsigRecord) []byte {
	dst := []byte(t.key)
	dst = append(dst, 0, classANY, 0, 0, 0, 0)
	dst = append(dst, t.algorithm...)
	dst = appendTimers(dst, t)
	dst = binary.BigEndian.AppendUint16(dst, t.code)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(t.other)))
	return append(dst, t.other...)
}

func appendTimers(dst []byte, t *tsigRecord) []byte {
	dst = appendTime(dst, t.time)
	return binary.BigEndian.AppendUint16(dst, t.fudge)
}

func appendTime(dst []byte, t uint64) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(t>>32))
	return binary.BigEndian.AppendUint32(dst, uint32(t))
}

// size is the most that one record takes.
func (s *tsigSigner) size() int {
	n := len(s.key) + 10 + len(s.algorithm) + 16 + 6
	if s.mac != nil {
		n += s.mac.Size()
	}
	return n
}

// appendTo signs the message that is buf[start:] and appends the record
// (RFC 8945, 5.3): the first message of an answer covers the request's MAC
// and all variables, each later one the MAC before it and the timers.
func (s *tsigSigner) appendTo(buf []byte, start int, now time.Time) []byte {
	msg := buf[start:]
	t := tsigRecord{
		key: s.key, algorithm: s.algorithm, time: uint64(now.Unix()), fudge: tsigFudge,
		id: binary.BigEndian.Uint16(msg), code: s.code,
	}
	if s.code != 0 {
		t.time = s.clientTime
	}
	if s.code == dns.RcodeBadTime {
		t.other = appendTime(nil, uint64(now.Unix()))
	}
	if s.mac != nil {
		s.mac.Reset()
		s.mac.Write([]byte{byte(len(s.last) >> 8), byte(len(s.last))})
		s.mac.Write(s.last)
		s.mac.Write(msg)
		if s.begun {
			s.mac.Write(appendTimers(nil, &t))
		} else {
			s.mac.Write(tsigVariables(&t))
		}
		s.last = s.mac.Sum(nil)
		s.begun, t.mac = true, s.last
	}
	return appendTSIG(buf, start, &t)
}

// appendTSIG appends a TSIG record to the message that is buf[start:].
func appendTSIG(buf []byte, start int, t *tsigRecord) []byte {
	count := buf[start+10:]
	binary.BigEndian.PutUint16(count, binary.BigEndian.Uint16(count)+1)
	buf = append(buf, t.key...)
	buf = append(buf, byte(typeTSIG>>8), byte(typeTSIG), 0, classANY, 0, 0, 0, 0)
	buf = binary.BigEndian.AppendUint16(buf, uint16(len(t.algorithm)+16+len(t.mac)+len(t.other)))
	buf = append(buf, t.algorithm...)
	buf = appendTimers(buf, t)
	buf = binary.BigEndian.AppendUint16(buf, uint16(len(t.mac)))
	buf = append(buf, t.mac...)
	buf = binary.BigEndian.AppendUint16(buf, t.id)
	buf = binary.BigEndian.AppendUint16(buf, t.code)
	buf = binary.BigEndian.AppendUint16(buf, uint16(len(t.other)))
	return append(buf, t.other...)
}
