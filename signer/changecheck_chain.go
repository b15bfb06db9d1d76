package signer

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"sluice/signer/zone"
)

// What stands first in an entry of changeCheck.hashes.
const (
	hashRequired byte = iota // the name that follows has a record; its types follow
	hashOptional             // it has one, or one with opt-out covers it
	hashAbsent               // it has none
	hashChanged              // the record or its RRSIGs changed: was there, is there
)

// noteChain notes a change of an NSEC3 record or its RRSIGs.
func (c *changeCheck) noteChain(kind zone.Kind, ownerKey, before, after []byte) error {
	v := c.v
	hash, err := hashOfKey(v.apexKey, ownerKey)
	if err != nil || !v.denial.nsec3 {
		if len(after) > 0 && !v.unsigned {
			v.faultAt(nameOfKey(ownerKey), zone.TypeNSEC3, RuleChain, "NSEC3 that does not belong to this zone's chain")
		}
		return nil
	}
	entry := []byte{hashChanged, 1, 1}
	if kind == zone.KindChain {
		entry[1], entry[2] = flag(len(before) > 0), flag(len(after) > 0)
	}
	return c.hashes.Add(hash[:], entry)
}

func flag(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// expectHashes notes what the NSEC3 chain must have of the present name and
// of the names above it that own nothing.
func (c *changeCheck) expectHashes(is standing, exists bool) error {
	v := c.v
	if !v.denial.hashes.begun {
		return nil // a fault by now
	}
	g := &v.group
	name := zone.Name(g.name)
	switch {
	case exists && is == occluded:
		if err := c.expect(name, hashAbsent, nil); err != nil {
			return err
		}
	case exists:
		how := hashRequired
		if is == delegation && !slices.Contains(v.denial.want, zone.TypeDS) {
			how = hashOptional
		}
		if err := c.expect(name, how, v.denial.want); err != nil {
			return err
		}
	case len(name) > len(v.apex):
		if err := c.expectEmpty(name); err != nil {
			return err
		}
	}
	if len(name) == len(v.apex) {
		return nil
	}
	for name = name.Parent(); len(name) > len(v.apex); name = name.Parent() {
		c.buf = zone.AppendOwnerKey(c.buf[:0], name)
		if here, err := c.now.below(zone.KindContents, c.buf); err != nil || here {
			return err
		}
		if err := c.expectEmpty(name); err != nil {
			return err
		}
	}
	return nil
}

// expectEmpty notes what the chain must have of a name that owns nothing: a
// record where a name below has signatures.
func (c *changeCheck) expectEmpty(name zone.Name) error {
	hidden, err := c.hides(name)
	if err != nil {
		return err
	}
	prefix := zone.AppendOwnerPrefix(nil, name)
	below, err := c.now.below(zone.KindContents, prefix)
	if err != nil {
		return err
	}
	if hidden || !below {
		return c.expect(name, hashAbsent, nil)
	}
	signed, err := c.now.below(zone.KindSigs, prefix)
	if err != nil {
		return err
	}
	how := hashOptional
	if signed {
		how = hashRequired
	}
	return c.expect(name, how, nil)
}

func (c *changeCheck) expect(name zone.Name, how byte, types []zone.Type) error {
	h := &c.v.denial.hashes
	h.name2 = append(h.name2[:0], name...)
	hash := nsec3Hash(h.name2, h.salt, h.iterations, &h.buf)
	c.entry = append(c.entry[:0], how, byte(len(name)))
	c.entry = append(c.entry, name...)
	for _, t := range types {
		c.entry = binary.BigEndian.AppendUint16(c.entry, uint16(t))
	}
	return c.hashes.Add(hash[:], c.entry)
}

// hashVerdict is all that is known of one hash.
type hashVerdict struct {
	hash          [20]byte
	expected      bool
	how           byte
	name          zone.Name
	types         []byte
	changed       bool
	appears, goes bool // the record came; it went
}

// judgeHashes brings together, by hash, what the chain must have and what of
// it changed.
func (c *changeCheck) judgeHashes(ctx context.Context) error {
	sorted, err := c.hashes.Sort()
	if err != nil {
		return fmt.Errorf("sort NSEC3 hashes: %w", err)
	}
	defer sorted.Close() //nolint:errcheck // Err tells
	var w hashVerdict
	for n := 0; sorted.Next(); n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if hash := [20]byte(sorted.Key()); hash != w.hash || n == 0 {
			if n > 0 {
				if err := c.judgeHash(&w); err != nil {
					return err
				}
			}
			w = hashVerdict{hash: hash, types: w.types[:0]}
		}
		c.gather(&w, sorted.Value())
	}
	if err := sorted.Err(); err != nil {
		return fmt.Errorf("sort NSEC3 hashes: %w", err)
	}
	if !w.expected && !w.changed {
		return nil
	}
	return c.judgeHash(&w)
}

func (c *changeCheck) gather(w *hashVerdict, entry []byte) {
	if entry[0] == hashChanged {
		w.changed = true
		w.appears = w.appears || entry[1] == 0
		w.goes = w.goes || entry[2] == 0
		return
	}
	name := entry[2 : 2+int(entry[1])]
	if w.expected && string(name) != string(w.name) {
		c.v.faultAt(zone.Name(name), zone.TypeNSEC3, RuleChain, "has the same hash as %v", w.name)
		return
	}
	w.expected, w.how, w.name = true, entry[0], zone.Name(name)
	w.types = append(w.types[:0], entry[2+len(name):]...)
}

// judgeHash judges one record, or its absence, and the links around it.
func (c *changeCheck) judgeHash(w *hashVerdict) error {
	v := c.v
	v.seq++
	ownerKey := appendHashKey(nil, v.apexKey, w.hash)
	owner := nameOfKey(ownerKey)
	value, err := c.now.get(zone.KindChain, ownerKey, zone.TypeNSEC3)
	if err != nil {
		return err
	}
	if value == nil {
		if err := c.missing(w, ownerKey); err != nil || !w.goes {
			return err
		}
		return c.linkNSEC3(ownerKey, nil)
	}
	value = bytes.Clone(value)
	if n := value.Count(); n != 1 {
		v.faultAt(owner, zone.TypeNSEC3, RuleChain, "%d NSEC3 records, want 1", n)
		return nil
	}
	v.denial.checkTTL(v, value.TTL())
	for rdata := range value.Records() {
		f, err := parseNSEC3(rdata)
		if err != nil {
			v.faultAt(owner, zone.TypeNSEC3, RuleChain, "%v", err)
			return nil
		}
		if err := c.record(w, owner, ownerKey, f); err != nil {
			return err
		}
		if w.changed {
			if err := c.linkNSEC3(ownerKey, f.next); err != nil {
				return err
			}
		}
	}
	if !w.changed {
		return nil
	}
	return c.judgeChainSigs(ownerKey, value)
}

// missing judges a hash without a record.
func (c *changeCheck) missing(w *hashVerdict, ownerKey []byte) error {
	v := c.v
	switch {
	case !w.expected && w.goes:
		v.faultAt(nameOfKey(ownerKey), zone.TypeNSEC3, RuleChain, "removed, yet no name has changed that it belonged to")
	case w.expected && w.how == hashRequired:
		v.faultAt(w.name, zone.TypeNSEC3, RuleChain, "no NSEC3 record")
	case w.expected && w.how == hashOptional:
		f, _, err := c.covering(ownerKey)
		if err != nil {
			return err
		}
		if f.flags&1 == 0 {
			v.faultAt(w.name, zone.TypeNSEC3, RuleChain, "no NSEC3 record, and none with opt-out covers it")
		}
	}
	sigs, err := c.now.get(zone.KindChainSigs, ownerKey, zone.TypeNSEC3)
	if err == nil && sigs != nil {
		v.faultAt(nameOfKey(ownerKey), zone.TypeNSEC3, RuleOrphan, "RRSIG over an RRset that is not there")
	}
	return err
}

// record judges an NSEC3 record by what is expected of it, or, where only its
// link may have changed, by what it was.
func (c *changeCheck) record(w *hashVerdict, owner zone.Name, ownerKey []byte, f nsec3Fields) error {
	v, h := c.v, &c.v.denial.hashes
	if f.iterations != h.iterations || !bytes.Equal(f.salt, h.salt) {
		v.faultAt(owner, zone.TypeNSEC3, RuleChain, "iterations or salt differ from NSEC3PARAM")
	}
	if f.flags > 1 {
		v.faultAt(owner, zone.TypeNSEC3, RuleChain, "unknown flags %#x", f.flags)
	}
	if f.flags&1 == 1 {
		v.report.Denial = NSEC3OptOut
	}
	switch {
	case w.expected && w.how == hashAbsent, !w.expected && w.appears:
		v.faultAt(owner, zone.TypeNSEC3, RuleChain, "NSEC3 of a name that is not there")
		return nil
	case w.expected:
		var err error
		if v.denial.types, err = decodeTypes(v.denial.types[:0], f.bitmap); err != nil {
			v.faultAt(owner, zone.TypeNSEC3, RuleBitmap, "%v", err)
			return nil
		}
		if want := typeList(w.types); !slices.Equal(v.denial.types, want) {
			v.faultAt(owner, zone.TypeNSEC3, RuleBitmap, "of %v: shows %v, want %v", w.name, v.denial.types, want)
		}
		return nil
	}
	before, err := c.old.get(zone.KindChain, ownerKey, zone.TypeNSEC3)
	if err != nil {
		return err
	}
	for rdata := range before.Records() {
		was, err := parseNSEC3(rdata)
		if err != nil {
			return c.old.wrap(err)
		}
		if was.flags != f.flags {
			v.faultAt(owner, zone.TypeNSEC3, RuleChain, "its flags have changed")
		}
		if !bytes.Equal(was.bitmap, f.bitmap) {
			v.faultAt(owner, zone.TypeNSEC3, RuleBitmap, "changed, yet no name has changed that it belongs to")
		}
	}
	return nil
}

// covering is the record before an owner key in the circle of hashes.
func (c *changeCheck) covering(ownerKey []byte) (f nsec3Fields, owner []byte, err error) {
	apex := c.v.apexKey[:len(c.v.apexKey)-1]
	owner, value, err := c.now.last(zone.KindChain, ownerKey)
	if err == nil && owner == nil {
		c.buf = append(append(c.buf[:0], apex...), 0xff)
		owner, value, err = c.now.last(zone.KindChain, c.buf)
	}
	if err != nil || owner == nil {
		return f, nil, err
	}
	for rdata := range value.Records() {
		if f, err = parseNSEC3(rdata); err != nil {
			c.v.faultAt(nameOfKey(owner), zone.TypeNSEC3, RuleChain, "%v", err)
			return nsec3Fields{}, nil, nil
		}
	}
	return f, owner, nil
}

// linkNSEC3 checks that the record before a hash leads to it, and that its own
// next hash is that of the record behind. Without a record of its own the one
// before must lead past it.
func (c *changeCheck) linkNSEC3(ownerKey, next []byte) error {
	v := c.v
	c.buf = append(append(c.buf[:0], ownerKey[:len(ownerKey)-1]...), 1)
	behind, err := c.now.first(zone.KindChain, c.buf, nil)
	if err == nil && behind == nil {
		behind, err = c.now.first(zone.KindChain, v.apexKey[:len(v.apexKey)-1], nil)
	}
	if err != nil {
		return err
	}
	if behind == nil {
		v.faultAt(v.apex, zone.TypeNSEC3, RuleChain, "no NSEC3 records")
		return nil
	}
	leads := bytes.Clone(behind)
	if next != nil {
		if hash, err := hashOfKey(v.apexKey, leads); err != nil || !bytes.Equal(hash[:], next) {
			v.faultAt(nameOfKey(ownerKey), zone.TypeNSEC3, RuleChain, "the next hash is not that of the next record")
		}
		leads = ownerKey
	}
	f, before, err := c.covering(ownerKey)
	if err != nil || before == nil {
		return err
	}
	if hash, err := hashOfKey(v.apexKey, leads); err != nil || !bytes.Equal(hash[:], f.next) {
		v.faultAt(nameOfKey(before), zone.TypeNSEC3, RuleChain, "the next hash is not that of the next record")
	}
	return nil
}

// judgeChainSigs hands an NSEC3 record with its RRSIGs to the pool.
func (c *changeCheck) judgeChainSigs(ownerKey []byte, value zone.Value) error {
	v, g := c.v, &c.v.group
	if err := g.begin(ownerKey); err != nil {
		return c.now.wrap(err)
	}
	g.add(zone.KindChain, zone.TypeNSEC3, c.itemKey(zone.KindChain, ownerKey, zone.TypeNSEC3), value)
	sigs, err := c.now.get(zone.KindChainSigs, ownerKey, zone.TypeNSEC3)
	if err != nil {
		return err
	}
	if sigs != nil {
		g.add(zone.KindChainSigs, zone.TypeNSEC3, c.itemKey(zone.KindChainSigs, ownerKey, zone.TypeNSEC3), sigs)
	}
	v.judgeSets(chainOnly, false)
	return v.pool.next()
}
