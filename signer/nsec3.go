package signer

import (
	"bytes"
	"encoding/base32"
	"encoding/binary"
	"fmt"

	"sluice/signer/zone"
)

const nsec3Hashed = 32 // letters of a hash in base32hex

// nsec3Encoding is the form of hashes in owner names (RFC 5155, 3.3), in
// lower case.
func nsec3Encoding() *base32.Encoding {
	return base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)
}

// ent is a name on the way from the apex to the present name.
type ent struct {
	end     int // length of its owner key prefix
	hasHash bool
}

// entStack finds empty non-terminals. A name on the way that owns nothing
// gets its NSEC3 record when the first name below it does, so that one that
// only leads to delegations left out by opt-out gets none (RFC 5155, 7.1).
type entStack struct {
	prefix []byte // owner key of the present name without its last byte
	path   []ent
}

// enter moves to the name with the given owner key. It returns how many names
// were not on the way before.
func (s *entStack) enter(ownerKey []byte, apexLength int) (more int) {
	prefix := ownerKey[:len(ownerKey)-1]
	for len(s.path) > 0 && !bytes.HasPrefix(prefix, s.prefix[:s.path[len(s.path)-1].end]) {
		s.path = s.path[:len(s.path)-1]
	}
	at := apexLength - 1
	if len(s.path) == 0 {
		s.path = append(s.path, ent{end: at})
		more++
	} else {
		at = s.path[len(s.path)-1].end
	}
	for i := at; i < len(prefix); i++ {
		if prefix[i] == 0 {
			s.path = append(s.path, ent{end: i + 1})
			more++
		}
	}
	s.prefix = append(s.prefix[:0], prefix...)
	return more
}

// addNSEC3 feeds the names that get an NSEC3 record because of n.
func (w *walk) addNSEC3(n *node) error {
	w.ents.enter(n.ownerKey, len(w.run.apexKey))
	if n.delegation && !n.secure && w.run.params.Denial == NSEC3OptOut {
		return nil
	}
	w.types = n.nsec3Types(w.types[:0])
	w.next = appendBitmap(w.next[:0], w.types)
	bitmap := w.next
	for i := len(w.ents.path) - 1; i >= 0 && !w.ents.path[i].hasHash; i-- {
		e := &w.ents.path[i]
		e.hasHash = true
		name := w.name
		if i < len(w.ents.path)-1 {
			var err error
			w.key = append(append(w.key[:0], w.ents.prefix[:e.end]...), 0)
			if w.value, err = zone.AppendNameOfKey(w.value[:0], w.key); err != nil {
				return fmt.Errorf("read contents: %w", err)
			}
			name, bitmap = w.value, nil
			if w.run.part.cuts(w.ents.prefix[:e.end]) {
				w.run.addEdge(name)
				continue
			}
		}
		b := w.feed.now
		b.entries = append(b.entries, entry{name: b.add(name), bitmap: b.add(bitmap)})
		if err := w.feed.next(); err != nil {
			return err
		}
	}
	return nil
}

// nsec3Types appends the types that the name's NSEC3 record shows: RRSIG where
// something is signed.
func (n *node) nsec3Types(dst []zone.Type) []zone.Type {
	dst = n.bitmapTypes(dst)
	if !n.delegation || n.secure {
		dst = append(dst, zone.TypeRRSIG)
		sortTypes(dst)
	}
	return dst
}

// chainPass feeds the NSEC3 chain in the order of the hashes, or, for a zone
// without one, the deletion of the previous one.
type chainPass struct {
	run         *run
	feed        *feed
	chain, sigs *cursor
	owner, key  []byte
	value       []byte
	first, last [20]byte
	after       *[20]byte // the hash after the last; nil: the first
	bitmap      []byte
}

func (r *run) chainPass(f *feed, in Input, sorted zone.Iterator) error {
	c := &chainPass{run: r, feed: f}
	if r.part != nil {
		c.after = r.part.after
	}
	if p := in.Previous; p != nil {
		var err error
		if c.chain, err = newCursor(p.Chain, zone.KindChain); err != nil {
			return err
		}
		if c.sigs, err = newCursor(p.ChainSigs, zone.KindChainSigs); err != nil {
			return err
		}
	}
	if sorted != nil {
		if err := c.records(sorted); err != nil {
			return err
		}
	}
	if err := c.chain.skip(f, zone.KindChain, nil); err != nil {
		return err
	}
	return c.sigs.skip(f, zone.KindChainSigs, nil)
}

// records feeds each NSEC3 record once the next hash is known.
func (c *chainPass) records(sorted zone.Iterator) error {
	encoding := nsec3Encoding()
	begun := false
	for sorted.Next() {
		hash := [20]byte(sorted.Key())
		switch {
		case !begun:
			begun, c.first = true, hash
		case hash == c.last:
			return fmt.Errorf("two names have the NSEC3 hash %s: change the salt", encoding.EncodeToString(hash[:]))
		default:
			if err := c.record(encoding, hash); err != nil {
				return err
			}
		}
		c.last = hash
		c.bitmap = append(c.bitmap[:0], sorted.Value()...)
	}
	if err := sorted.Err(); err != nil {
		return fmt.Errorf("sort NSEC3 hashes: %w", err)
	}
	if !begun {
		return nil
	}
	if c.after != nil {
		return c.record(encoding, *c.after)
	}
	return c.record(encoding, c.first)
}

// record feeds the NSEC3 record of c.last.
func (c *chainPass) record(encoding *base32.Encoding, next [20]byte) error {
	c.build(encoding, next)
	u := unit{kind: zone.KindChain, typ: zone.TypeNSEC3}
	return c.feed.signed(u, c.owner, c.key, c.value, c.chain, c.sigs, nil)
}

// build makes owner, key and value of the NSEC3 record of c.last.
func (c *chainPass) build(encoding *base32.Encoding, next [20]byte) {
	r := c.run
	c.owner = append(c.owner[:0], nsec3Hashed)
	c.owner = encoding.AppendEncode(c.owner, c.last[:])
	c.key = append(c.key[:0], byte(zone.KindChain))
	c.key = append(c.key, r.apexKey[:len(r.apexKey)-1]...)
	c.key = append(c.key, c.owner[1:]...)
	c.key = append(c.key, 0, 0, 0, byte(zone.TypeNSEC3))
	c.owner = append(c.owner, r.apex...)

	p := r.params
	flags := byte(0)
	if p.Denial == NSEC3OptOut {
		flags = 1
	}
	size := 5 + len(p.Salt) + 1 + len(next) + len(c.bitmap)
	c.value = zone.AppendValueHeader(c.value[:0], zone.Root, r.denialTTL)
	c.value = binary.BigEndian.AppendUint16(c.value, uint16(size))
	c.value = append(c.value, 1, flags)
	c.value = binary.BigEndian.AppendUint16(c.value, p.Iterations)
	c.value = append(c.value, byte(len(p.Salt)))
	c.value = append(c.value, p.Salt...)
	c.value = append(c.value, byte(len(next)))
	c.value = append(c.value, next[:]...)
	c.value = append(c.value, c.bitmap...)
}

// nsec3Param is the RDATA of the NSEC3PARAM record (RFC 5155, 4).
func (p *Params) nsec3Param() []byte {
	d := []byte{1, 0, byte(p.Iterations >> 8), byte(p.Iterations), byte(len(p.Salt))}
	return append(d, p.Salt...)
}
