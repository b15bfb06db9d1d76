package signer

import (
	"encoding/binary"

	"sluice/signer/zone"
)

// maxGiven is up to how many keys Result.SignedBy can tell apart.
const maxGiven = 64

// Spread has the RRsets of the previous instance that did not change keep the
// signatures that they have, where other keys sign now, until their turn
// comes: so that an exchange of keys makes no burst. What is kept is valid
// beyond Params.Refresh, by keys that were given, and covers each algorithm of
// the DNSKEY RRset. DNSKEY, CDS and CDNSKEY at the apex never wait.
//
// An RRset has its turn where the first of its signatures expires from From on
// and before To, in epoch seconds. Expirations are spread evenly, however and
// whenever the signatures were made (Params.Jitter), and a signature that is
// exchanged before it is due for a refresh keeps its expiration.
type Spread struct {
	From, To int64
}

// turn reports whether RRsets have their turn whose signatures expire then.
func (s *Spread) turn(expires uint32) bool {
	at := s.From + int64(int32(expires-uint32(s.From))) //nolint:gosec // RFC 4034, 3.1.5
	return at >= s.From && at < s.To
}

// byKeys counts RRsets by the keys whose signatures they have. It is for one
// goroutine.
type byKeys struct {
	counts  map[uint64]int64
	mask    uint64 // of the present run of equal ones
	n       int64
	unknown bool // some signature is by no key that was given
}

func (b *byKeys) add(mask uint64, n int64) {
	if mask != b.mask {
		b.flush()
		b.mask = mask
	}
	b.n += n
}

func (b *byKeys) flush() {
	if b.n == 0 {
		return
	}
	if b.counts == nil {
		b.counts = map[uint64]int64{}
	}
	if b.counts[b.mask] += b.n; b.counts[b.mask] == 0 {
		delete(b.counts, b.mask)
	}
	b.n = 0
}

func (b *byKeys) merge(o *byKeys) {
	o.flush()
	for mask, n := range o.counts {
		b.add(mask, n)
	}
	b.flush()
	b.unknown = b.unknown || o.unknown
}

// givenKey is how RRSIGs name a key that was given.
type givenKey struct {
	sigKey
	bit uint64
}

// noteGiven lists how RRSIGs name the keys, and makes those that do not sign
// the zone ready whose signatures may stay.
func (r *run) noteGiven(keys []Key) {
	r.countable = len(keys) <= maxGiven
	for i, k := range keys {
		g := givenKey{sigKey{k.DNSKEY[3], zone.KeyTag(k.DNSKEY)}, 1 << (i % maxGiven)}
		for _, o := range r.named {
			r.countable = r.countable && o.sigKey != g.sigKey
		}
		r.named = append(r.named, g)
		if r.params.Spread == nil || k.Signer != nil && k.SignsZone {
			continue
		}
		// A key of an algorithm that is not known here signed nothing here.
		if pub, err := parsePublicKey(k.DNSKEY); err == nil {
			r.former = append(r.former, &signingKey{publicKey: pub, bit: g.bit})
		}
	}
	for _, k := range r.keys {
		k.bit = r.bitOf(k.alg, k.tag)
	}
}

// bitOf is the bit of the key that an RRSIG names; 0 where it was not given.
func (r *run) bitOf(alg uint8, tag uint16) uint64 {
	for i := range r.named {
		if g := &r.named[i]; g.alg == alg && g.tag == tag {
			return g.bit
		}
	}
	return 0
}

// maskOf is the bits of the keys of a set of RRSIGs; known is false where one
// of them was not given.
func (r *run) maskOf(sigs zone.Value) (mask uint64, known bool) {
	known = true
	for rdata := range sigs.Records() {
		if len(rdata) < sigName {
			return mask, false
		}
		bit := r.bitOf(rdata[sigAlgorithm], binary.BigEndian.Uint16(rdata[sigTag:]))
		mask |= bit
		known = known && bit != 0
	}
	return mask, known
}

// wanted is the bits of the keys that sign an RRset.
func (r *run) wanted(apexKeys bool) (mask uint64) {
	for _, i := range r.signers(apexKeys) {
		mask |= r.keys[i].bit
	}
	return mask
}

// signedSo reports whether a set of RRSIGs is by the keys that sign, and by no
// others.
func (r *run) signedSo(sigs zone.Value, apexKeys bool) bool {
	mask, known := r.maskOf(sigs)
	return known && mask == r.wanted(apexKeys)
}

// isApexKeys reports whether key, whatever its kind, is that of the apex's
// DNSKEY, CDS or CDNSKEY.
func (r *run) isApexKeys(key []byte) bool {
	if len(key) != 1+len(r.apexKey)+2 || string(key[1:len(key)-2]) != string(r.apexKey) {
		return false
	}
	switch zone.Type(binary.BigEndian.Uint16(key[len(key)-2:])) {
	case zone.TypeDNSKEY, zone.TypeCDS, zone.TypeCDNSKEY:
		return true
	default:
		return false
	}
}

// keep takes the signatures of a unit that stay as they are, its turn not
// having come; false where they do not do.
func (w *worker) keep(b *batch, u *unit, head []byte) bool {
	r := w.run
	first, any := uint32(0), false
	for rdata := range zone.Value(b.bytes(u.sigs)).Records() {
		if len(rdata) < sigName {
			return false
		}
		if at := binary.BigEndian.Uint32(rdata[sigExpiration:]); !any || serialTimeBefore(at, first) {
			first, any = at, true
		}
	}
	if r.params.Spread.turn(first) {
		return false
	}
	from := len(w.refs)
	var covered [256]bool
	take := func(k *signingKey) {
		if old := w.reusable(b, u, k, head); old != nil {
			w.refs = append(w.refs, sigRef{taken: old, bit: k.bit})
			covered[k.alg] = true
		}
	}
	for _, i := range r.forZone {
		take(r.keys[i])
	}
	for _, k := range r.former {
		take(k)
	}
	for _, alg := range r.algorithms {
		if !covered[alg] {
			w.refs = w.refs[:from]
			return false
		}
	}
	return true
}
