package signer

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"sluice/signer/zone"
)

// merge brings items that were added kind by kind into the order of
// zone.Merge; a made RRset hides the contents' of its type.
func (g *group) merge() {
	rank := func(k zone.Kind) int {
		switch k {
		case zone.KindMade:
			return 0
		case zone.KindContents:
			return 1
		default:
			return 2
		}
	}
	slices.SortFunc(g.items, func(a, b groupItem) int {
		if a.typ != b.typ {
			return int(a.typ) - int(b.typ)
		}
		return rank(a.kind) - rank(b.kind)
	})
	g.items = slices.DeleteFunc(g.items, func(i groupItem) bool {
		return i.kind == zone.KindContents && slices.ContainsFunc(g.items, func(o groupItem) bool {
			return o.kind == zone.KindMade && o.typ == i.typ
		})
	})
}

// judgeNames judges each name noted, in order.
func (c *changeCheck) judgeNames(ctx context.Context) error {
	sorted, err := c.names.Sort()
	if err != nil {
		return fmt.Errorf("sort names: %w", err)
	}
	defer sorted.Close() //nolint:errcheck // Err tells
	var last []byte
	for n := 0; sorted.Next(); n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if bytes.Equal(sorted.Key(), last) {
			continue
		}
		last = append(last[:0], sorted.Key()...)
		if err := c.judgeName(last); err != nil {
			return err
		}
	}
	if err := sorted.Err(); err != nil {
		return fmt.Errorf("sort names: %w", err)
	}
	return nil
}

// judgeName judges one name by all its records.
func (c *changeCheck) judgeName(ownerKey []byte) error {
	v := c.v
	if err := c.group(ownerKey); err != nil {
		return err
	}
	v.seq++
	apex := bytes.Equal(ownerKey, v.apexKey)
	is, exists, err := c.standing(apex)
	if err != nil {
		return err
	}
	if err := c.sameContents(apex); err != nil {
		return err
	}
	v.judgeSets(is, apex)
	if err := v.pool.next(); err != nil || v.unsigned {
		return err
	}
	visible := exists && is != occluded
	if visible {
		v.denial.expected(&v.group, is)
	}
	if v.denial.nsec3 {
		if v.group.find(zone.TypeNSEC) != nil {
			v.fault(zone.TypeNSEC, RuleChain, "NSEC in a zone with NSEC3")
		}
		return c.expectHashes(is, exists)
	}
	if !visible {
		v.denial.noNSEC(v)
	}
	return c.linkNSEC(visible)
}

// standing says what the present name is and whether it owns contents.
func (c *changeCheck) standing(apex bool) (is standing, exists bool, err error) {
	g := &c.v.group
	cut := false
	for _, it := range g.items {
		if it.kind == zone.KindContents || it.kind == zone.KindMade && it.typ != zone.TypeNSEC {
			exists = true
			cut = cut || it.typ == zone.TypeNS && !apex
		}
	}
	if !apex {
		hides, err := c.hides(zone.Name(g.name).Parent())
		if err != nil || hides {
			return occluded, exists, err
		}
	}
	if cut {
		return delegation, exists, nil
	}
	return authoritative, exists, nil
}

// hides reports whether a name or one above it hides what is below it.
func (c *changeCheck) hides(name zone.Name) (bool, error) {
	if string(name) == string(c.parent) && len(c.parent) > 0 {
		return c.parentHides, nil
	}
	apex := len(name) == len(c.v.apex)
	hides := false
	for _, t := range []zone.Type{zone.TypeDNAME, zone.TypeNS} {
		if t == zone.TypeNS && apex {
			continue
		}
		value, err := c.now.get(zone.KindContents, zone.AppendOwnerKey(c.buf[:0], name), t)
		if err != nil {
			return false, err
		}
		hides = hides || value != nil
	}
	if !hides && !apex {
		var err error
		if hides, err = c.hides(name.Parent()); err != nil {
			return false, err
		}
	}
	c.parent, c.parentHides = append(c.parent[:0], name...), hides
	return hides, nil
}

// sameContents demands that what the signer made hides no contents but the
// SOA, and that but for its serial.
func (c *changeCheck) sameContents(apex bool) error {
	v := c.v
	for i := range v.group.items {
		it := &v.group.items[i]
		if it.kind != zone.KindMade || zone.SignersOwn(it.typ, apex) {
			continue
		}
		if !apex || it.typ != zone.TypeSOA {
			v.fault(it.typ, RuleDigest, "made by the signer, yet not its own")
			continue
		}
		input, err := c.now.get(zone.KindContents, v.apexKey, zone.TypeSOA)
		if err != nil {
			return err
		}
		if input == nil || !equalButSerial(v.group.value(it), input) {
			v.fault(it.typ, RuleDigest, "not the SOA of the contents")
		}
	}
	return nil
}

// equalButSerial compares two SOA RRsets.
func equalButSerial(a, b zone.Value) bool {
	for rdata := range a.Records() {
		at, _, err := soaFields(rdata)
		if err != nil || len(a) != len(b) {
			return false
		}
		from := len(a) - len(rdata) + at
		return bytes.Equal(a[:from], b[:from]) && bytes.Equal(a[from+4:], b[from+4:])
	}
	return false
}

// linkNSEC checks the present name's NSEC record and the links on both of its
// sides; where it has none, that the name before leads past it.
func (c *changeCheck) linkNSEC(visible bool) error {
	v, d := c.v, &c.v.denial
	g := &v.group
	nsec := g.find(zone.TypeNSEC)
	if visible && nsec == nil {
		v.fault(zone.TypeNSEC, RuleChain, "no NSEC record")
		return nil
	}
	next, err := c.nextNSEC(g.ownerKey)
	if err != nil {
		return err
	}
	if nsec != nil {
		d.checkTTL(v, nsec.TTL())
		if n := nsec.Count(); n != 1 {
			v.fault(zone.TypeNSEC, RuleChain, "%d NSEC records, want 1", n)
			return nil
		}
		d.hasNext = false
		for rdata := range nsec.Records() {
			if !visible {
				d.want = d.want[:0]
			}
			d.record(v, rdata)
		}
		if d.hasNext && !bytes.Equal(d.nextKey, next) {
			v.fault(zone.TypeNSEC, RuleChain, "next name is not %v", nameOfKey(next))
		}
		next = append(next[:0], g.ownerKey...)
	}
	if len(g.ownerKey) == len(v.apexKey) {
		return nil
	}
	return c.beforeNSEC(next)
}

// nextNSEC is the owner key of the NSEC record behind a name; the apex behind
// the last one.
func (c *changeCheck) nextNSEC(ownerKey []byte) ([]byte, error) {
	c.buf = append(append(c.buf[:0], ownerKey[:len(ownerKey)-1]...), 1)
	owner, err := c.now.first(zone.KindMade, c.buf, nil)
	if err != nil {
		return nil, err
	}
	if owner == nil {
		owner = c.v.apexKey
	}
	return bytes.Clone(owner), nil
}

// beforeNSEC checks that the NSEC record before the present name leads to
// next.
func (c *changeCheck) beforeNSEC(next []byte) error {
	v := c.v
	owner, _, err := c.now.last(zone.KindMade, v.group.ownerKey)
	if err != nil {
		return err
	}
	if owner == nil {
		v.fault(zone.TypeNSEC, RuleChain, "no NSEC record before the name")
		return nil
	}
	owner = bytes.Clone(owner)
	value, err := c.now.get(zone.KindMade, owner, zone.TypeNSEC)
	if err != nil {
		return err
	}
	name := nameOfKey(owner)
	if value == nil {
		v.faultAt(name, zone.TypeNSEC, RuleChain, "no NSEC record")
		return nil
	}
	for rdata := range value.Records() {
		n, err := zone.NameLength(rdata)
		if err != nil {
			v.faultAt(name, zone.TypeNSEC, RuleChain, "next name: %v", err)
			return nil
		}
		c.buf = zone.AppendOwnerKey(c.buf[:0], zone.Name(rdata[:n]))
		if !bytes.Equal(c.buf, next) {
			v.faultAt(name, zone.TypeNSEC, RuleChain, "next name is not %v", nameOfKey(next))
		}
	}
	return nil
}

// nameOfKey is the name of an owner key, for faults.
func nameOfKey(ownerKey []byte) zone.Name {
	name, err := zone.NameOfKey(ownerKey)
	if err != nil {
		return zone.Root
	}
	return name
}
