package signer

import (
	"bytes"
	"fmt"
	"slices"

	"sluice/signer/zone"
)

// endChanged ends a name of the changes: its marks, those of the names that
// it begins or ceases to hide, that of the name before it in an NSEC chain.
func (u *update) endChanged() error {
	c := &u.changed
	if len(c.types) == 0 {
		return nil
	}
	more := false
	for _, m := range c.types {
		more = more || m.mark != markChanged
		if err := u.note(c.ownerKey, m.typ, m.mark); err != nil {
			return err
		}
	}
	if more {
		if err := u.follow(c); err != nil {
			return err
		}
	}
	*c = changedName{
		ownerKey: c.ownerKey[:0], types: c.types[:0],
		expanded: c.expanded, keyBefore: c.keyBefore,
	}
	return nil
}

// follow finds the names that a name concerns which has won or lost types.
func (u *update) follow(c *changedName) error {
	hid, hides, err := u.hiding(c)
	if err != nil {
		return err
	}
	if hid != hides {
		if err := u.expand(c); err != nil {
			return err
		}
	}
	if u.run.params.Denial != NSEC || c.had && c.has {
		return nil
	}
	// Does the name come or go altogether?
	had, has := c.had, c.has
	at := bytes.Clone(c.ownerKey)
	if !had {
		if had, err = u.old.below(zone.KindContents, at); err != nil {
			return err
		}
	}
	if !has {
		if has, err = u.now.below(zone.KindContents, at); err != nil {
			return err
		}
	}
	if had == has {
		return nil
	}
	return u.linkBefore(at)
}

// hiding says whether a changed name hid and hides what is below it.
func (u *update) hiding(c *changedName) (hid, hides bool, err error) {
	if !c.nsHere && !c.dHere {
		return false, false, nil
	}
	apex := len(c.ownerKey) == len(u.run.apexKey)
	for _, k := range []struct {
		t              zone.Type
		here, had, has bool
	}{
		{zone.TypeNS, c.nsHere, c.hadNS, c.hasNS},
		{zone.TypeDNAME, c.dHere, c.hadDN, c.hasDN},
	} {
		if k.t == zone.TypeNS && apex {
			continue
		}
		if !k.here {
			value, err := u.now.get(zone.KindContents, c.ownerKey, k.t)
			if err != nil {
				return false, false, err
			}
			k.had = value != nil
			k.has = k.had
		}
		hid, hides = hid || k.had, hides || k.has
	}
	return hid, hides, nil
}

// expand marks all names below one that begins or ceases to hide them. Names
// that were not there before are among the changes by themselves.
func (u *update) expand(c *changedName) error {
	prefix := c.ownerKey[:len(c.ownerKey)-1]
	if len(c.expanded) > 0 && bytes.HasPrefix(c.ownerKey, c.expanded[:len(c.expanded)-1]) {
		return nil // below one that was done
	}
	c.expanded = append(c.expanded[:0], c.ownerKey...)
	var first, last []byte
	err := u.now.each(zone.KindContents, prefix, func(ownerKey []byte, _ zone.Type, _ zone.Value) (bool, error) {
		if bytes.Equal(ownerKey, last) || bytes.Equal(ownerKey, c.ownerKey) {
			return true, nil
		}
		if first == nil {
			first = bytes.Clone(ownerKey)
		}
		last = append(last[:0], ownerKey...)
		return true, u.note(ownerKey, 0, markStanding)
	})
	if err != nil || first == nil || u.run.params.Denial != NSEC {
		return err
	}
	return u.linkBefore(first)
}

// linkBefore marks the name before one in an NSEC chain.
func (u *update) linkBefore(ownerKey []byte) error {
	var err error
	if u.other, err = u.elsewhere.appendBefore(u.other[:0], ownerKey); err != nil || len(u.other) == 0 {
		return err
	}
	return u.note(u.other, 0, markLink)
}

// namesPass looks at each marked name in order and feeds what has to be made
// or deleted there.
func (u *update) namesPass(f *feed) error {
	u.walk.feed = f
	sorted, err := u.names.Sort()
	if err != nil {
		return fmt.Errorf("sort names: %w", err)
	}
	defer sorted.Close() //nolint:errcheck // Err tells
	var ownerKey []byte
	names := uint64(0)
	for sorted.Next() {
		key := sorted.Key()
		owner, t := key[:len(key)-2], zone.Type(key[len(key)-2])<<8|zone.Type(key[len(key)-1])
		if !bytes.Equal(owner, ownerKey) {
			if len(u.marks) > 0 {
				if err := u.name(f, ownerKey); err != nil {
					return err
				}
			}
			ownerKey, u.marks = append(ownerKey[:0], owner...), u.marks[:0]
			if names++; names%progressEvery == 0 && u.run.params.Progress != nil {
				u.run.params.Progress(names)
			}
		}
		m := mark(sorted.Value()[0])
		if n := len(u.marks); n > 0 && u.marks[n-1].typ == t {
			u.marks[n-1].mark |= m
		} else {
			u.marks = append(u.marks, typeMark{t, m})
		}
	}
	if err := sorted.Err(); err != nil {
		return fmt.Errorf("sort names: %w", err)
	}
	return u.name(f, ownerKey)
}

// marked is the mark of a type at the present name.
func (u *update) marked(t zone.Type) mark {
	for _, m := range u.marks {
		if m.typ == t {
			return m.mark
		}
	}
	return 0
}

// read fills u.node with the name's RRsets in the new zone; it stays empty
// where the name is hidden.
func (u *update) read(ownerKey []byte) error {
	u.node.reset(ownerKey)
	hidden, err := u.above.find(ownerKey)
	if err != nil {
		return err
	}
	if u.hidden = hidden >= 0; u.hidden {
		return nil
	}
	return u.now.each(zone.KindContents, ownerKey, func(_ []byte, t zone.Type, value zone.Value) (bool, error) {
		u.node.take(t, value, u.marked(t)&(markAdded|markChanged) == 0, len(u.run.apexKey))
		return true, nil
	})
}

// name decides what the present name is and feeds what differs there.
func (u *update) name(f *feed, ownerKey []byte) (err error) {
	r, n := u.run, &u.node
	if err := u.read(ownerKey); err != nil {
		return err
	}
	apex := len(ownerKey) == len(r.apexKey)
	if apex {
		if err := r.addApexSets(n); err != nil {
			return err
		}
	}
	if u.walk.name, err = zone.AppendNameOfKey(u.walk.name[:0], ownerKey); err != nil {
		return fmt.Errorf("read changes: %w", err)
	}
	var all, chain bool // all RRsets may differ; so may the denial record
	for _, m := range u.marks {
		all = all || m.mark&markStanding != 0 || m.typ == zone.TypeNS && m.mark&(markAdded|markRemoved) != 0
		chain = chain || m.mark&^(markChanged|markDue|markExchange) != 0
	}
	nsec := r.params.Denial == NSEC && (chain || u.marked(zone.TypeNSEC) != 0)
	switch {
	case nsec && len(n.sets) > 0:
		if u.other, err = u.above.appendNext(u.other[:0], ownerKey, n.delegation || n.dname); err != nil {
			return err
		}
		if err := u.walk.addNSEC(n, u.other); err != nil {
			return err
		}
	case chain && r.params.Denial != NSEC:
		if err := u.noteHashes(); err != nil {
			return err
		}
	}
	if err := u.readBefore(ownerKey, all, nsec); err != nil {
		return err
	}
	for _, t := range u.types {
		if err := u.rrset(f, t); err != nil {
			return err
		}
	}
	return nil
}

// readBefore lists in u.types the RRsets to look at and reads what the
// previous instance made of them.
func (u *update) readBefore(ownerKey []byte, all, nsec bool) error {
	u.types, u.before, u.beforeS, u.arena = u.types[:0], u.before[:0], u.beforeS[:0], u.arena[:0]
	apex := len(ownerKey) == len(u.run.apexKey)
	if all {
		for _, s := range u.node.sets {
			u.types = append(u.types, s.typ)
		}
		for _, kind := range []zone.Kind{zone.KindMade, zone.KindSigs} {
			err := u.old.each(kind, ownerKey, func(_ []byte, t zone.Type, value zone.Value) (bool, error) {
				u.types = append(u.types, t)
				u.keep(kind, t, value)
				return true, nil
			})
			if err != nil {
				return err
			}
		}
	} else {
		for _, m := range u.marks {
			if m.typ != 0 {
				u.types = append(u.types, m.typ)
			}
		}
		if nsec {
			u.types = append(u.types, zone.TypeNSEC)
		}
	}
	slices.Sort(u.types)
	u.types = slices.Compact(u.types)
	if all {
		return nil
	}
	for _, t := range u.types {
		for _, kind := range []zone.Kind{zone.KindMade, zone.KindSigs} {
			if kind == zone.KindMade && !apex && t != zone.TypeNSEC {
				continue
			}
			value, err := u.old.get(kind, ownerKey, t)
			if err != nil {
				return err
			}
			if value != nil {
				u.keep(kind, t, value)
			}
		}
	}
	return nil
}

// keep keeps an item of the previous instance.
func (u *update) keep(kind zone.Kind, t zone.Type, value zone.Value) {
	s := nodeSet{typ: t}
	s.value.from = len(u.arena)
	u.arena = append(u.arena, value...)
	s.value.to = len(u.arena)
	if kind == zone.KindMade {
		u.before = append(u.before, s)
	} else {
		u.beforeS = append(u.beforeS, s)
	}
}

// kept is the value of an item that was kept, or nil.
func (u *update) kept(sets []nodeSet, t zone.Type) []byte {
	for i := range sets {
		if sets[i].typ == t {
			return u.arena[sets[i].value.from:sets[i].value.to]
		}
	}
	return nil
}

// rrset feeds what differs at one RRset of the present name: what is made of
// it, its signatures, or that both are gone.
func (u *update) rrset(f *feed, t zone.Type) error {
	n := &u.node
	s, made, sigs := n.find(t), u.kept(u.before, t), u.kept(u.beforeS, t)
	u.key = append(append(u.key[:0], byte(zone.KindContents)), n.ownerKey...)
	u.key = append(u.key, byte(t>>8), byte(t))
	if made != nil && (s == nil || !s.isMade) {
		if err := f.gone(zone.KindMade, u.key, made); err != nil {
			return err
		}
	}
	if s == nil || n.delegation && !s.isMade && t != zone.TypeDS {
		if sigs == nil {
			return nil
		}
		return f.gone(zone.KindSigs, u.key, sigs)
	}
	value := n.arena[s.value.from:s.value.to]
	apex := len(n.ownerKey) == len(u.run.apexKey)
	one := unit{
		kind: zone.KindContents, typ: t, same: s.same, fresh: u.marked(t)&markDue != 0,
		apexKeys: apex && (t == zone.TypeDNSKEY || t == zone.TypeCDS || t == zone.TypeCDNSKEY),
	}
	if s.isMade {
		one.kind, one.existed, one.same = zone.KindMade, made != nil, bytes.Equal(made, value)
	}
	if one.same && sigs != nil && !one.fresh {
		asked := one.apexKeys || u.marked(t)&markExchange != 0
		if !asked || u.run.signedSo(sigs, one.apexKeys) {
			return nil
		}
	}
	return f.put(one, u.walk.name, u.key, value, made, sigs)
}

// put feeds a unit with what the previous instance has of it.
func (f *feed) put(u unit, owner, key, value, before, sigs []byte) error {
	b := f.now
	if f.owner.empty() || !bytes.Equal(b.bytes(f.owner), owner) {
		f.owner = b.add(owner)
	}
	u.owner, u.key, u.value = f.owner, b.add(key), b.add(value)
	u.before, u.sigs = b.add(before), b.add(sigs)
	b.units = append(b.units, u)
	return f.next()
}

// gone feeds the deletion of an item of the previous instance.
func (f *feed) gone(kind zone.Kind, key, value []byte) error {
	b := f.now
	b.units = append(b.units, unit{kind: kind, delete: true, key: b.add(key), before: b.add(value)})
	return f.next()
}

// find is the RRset of a type, or nil.
func (n *node) find(t zone.Type) *nodeSet {
	for i := range n.sets {
		if n.sets[i].typ == t {
			return &n.sets[i]
		}
	}
	return nil
}
