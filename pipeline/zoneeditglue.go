package pipeline

import (
	"bytes"
	"maps"
	"slices"

	"sluice/signer/zone"
)

// servers looks for name servers that a change leaves without an address: those
// of NS RRsets that changed or came to light, and those whose address went. It
// looks up nothing else.
func (c *editCheck) servers() error {
	if c.glue == zone.GlueIgnore {
		return nil
	}
	sought := map[string]map[string]bool{} // servers by NS RRset, both as owner keys; nil: all of it
	for _, key := range slices.Sorted(maps.Keys(c.z.sets)) {
		if zone.Kind(key[0]) != zone.KindContents {
			continue
		}
		set := c.z.sets[key]
		now, err := set.value([]byte(key))
		if err != nil {
			return err
		}
		if bytes.Equal(set.before, now) {
			continue
		}
		_, owner, t, err := zone.SplitKey([]byte(key))
		if err != nil {
			return err
		}
		switch {
		case t == zone.TypeNS && len(now) > 0:
			sought[string(owner)] = nil
		case t == zone.TypeNS || t == zone.TypeDNAME && len(now) == 0:
			err = c.uncovered(owner, sought)
		case (t == zone.TypeA || t == zone.TypeAAAA) && len(now) == 0:
			err = c.lostAddress(owner, sought)
		}
		if err != nil {
			return err
		}
	}
	for _, ns := range slices.Sorted(maps.Keys(sought)) {
		if err := c.lacking([]byte(ns), sought[ns]); err != nil {
			return err
		}
	}
	return nil
}

// uncovered adds the delegations below a name that hides them no more.
func (c *editCheck) uncovered(owner []byte, sought map[string]map[string]bool) error {
	prefix := append([]byte{byte(zone.KindContents)}, owner[:len(owner)-1]...)
	it := c.z.read.Walk(prefix)
	for it.Next() && bytes.HasPrefix(it.Key(), prefix) {
		if _, below, t, err := zone.SplitKey(it.Key()); err != nil {
			return err
		} else if t == zone.TypeNS && !bytes.Equal(below, owner) {
			sought[string(below)] = nil
			if err := c.z.grow(len(below) + editOverhead); err != nil {
				return err
			}
		}
	}
	return it.Err()
}

// lostAddress adds a name whose address went where it is a name server's: of
// the apex, or of the delegation at or above it. What a wildcard gave may
// concern each server of the apex.
func (c *editCheck) lostAddress(owner []byte, sought map[string]map[string]bool) error {
	add := func(ns []byte) error {
		value, err := c.z.now(contentsKey(ns, zone.TypeNS))
		if err != nil || len(value) == 0 {
			return err
		}
		zone.ServersBelow(ns, value, func(target []byte) {
			all, known := sought[string(ns)]
			if known && all == nil || !bytes.Equal(target, owner) && !zone.CoversKey(owner, target) {
				return
			}
			if !known {
				all = map[string]bool{}
				sought[string(ns)] = all
			}
			all[string(target)] = true
		})
		return nil
	}
	if err := add(c.z.name); err != nil {
		return err
	}
	// The outermost delegation is the one that counts: lacking sees to it.
	for ns := range c.z.above(owner) {
		if err := add(ns); err != nil {
			return err
		}
	}
	return nil
}

// lacking tells which servers of an NS RRset have no address; only is those to
// look at, nil all.
func (c *editCheck) lacking(ns []byte, only map[string]bool) error {
	value, err := c.z.now(contentsKey(ns, zone.TypeNS))
	if err != nil || len(value) == 0 {
		return err
	}
	owned := zone.Value(bytes.Clone(value)) // what follows reads others
	if hidden, err := c.z.hidden(ns); hidden || err != nil {
		return err
	}
	apex := bytes.Equal(ns, c.z.name)
	zone.ServersBelow(ns, owned, func(target []byte) {
		if err != nil || only != nil && !only[string(target)] {
			return
		}
		found := false
		if found, err = c.z.address(target, apex); err == nil && !found {
			c.problem(c.glue.MissingAddress(c.z.name, ns, target))
		}
	})
	return err
}

// above walks the names from below the apex down to a name, as owner keys. What
// it gives is valid until the next one.
func (z *zoneEdit) above(owner []byte) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		var key []byte
		for i := len(z.name) - 1; i < len(owner)-1; i++ {
			if owner[i] != 0 {
				continue
			}
			if key = append(append(key[:0], owner[:i+1]...), 0); !yield(key) {
				return
			}
		}
	}
}

// hidden reports whether a name stands below a delegation or a DNAME.
func (z *zoneEdit) hidden(owner []byte) (bool, error) {
	if bytes.Equal(owner, z.name) {
		return false, nil
	}
	if value, err := z.now(contentsKey(z.name, zone.TypeDNAME)); err != nil || len(value) > 0 {
		return err == nil, err
	}
	for name := range z.above(owner) {
		if len(name) == len(owner) {
			break
		}
		for _, t := range []zone.Type{zone.TypeNS, zone.TypeDNAME} {
			if value, err := z.now(contentsKey(name, t)); err != nil || len(value) > 0 {
				return err == nil, err
			}
		}
	}
	return false, nil
}

// address reports whether a name has an address; by a wildcard, too, where it
// may.
func (z *zoneEdit) address(owner []byte, wildcards bool) (bool, error) {
	has := func(owner []byte) (bool, error) {
		for _, t := range []zone.Type{zone.TypeA, zone.TypeAAAA} {
			if value, err := z.now(contentsKey(owner, t)); err != nil || len(value) > 0 {
				return err == nil, err
			}
		}
		return false, nil
	}
	if found, err := has(owner); found || err != nil || !wildcards {
		return found, err
	}
	wildcard := func(above []byte) []byte { return append(append([]byte{}, above[:len(above)-1]...), '*', 0, 0) }
	if len(owner) > len(z.name) {
		if found, err := has(wildcard(z.name)); found || err != nil {
			return found, err
		}
	}
	for above := range z.above(owner) {
		if len(above) == len(owner) {
			break
		}
		if found, err := has(wildcard(above)); found || err != nil {
			return found, err
		}
	}
	return false, nil
}

// contentsKey is the key of an RRset of the contents.
func contentsKey(owner []byte, t zone.Type) []byte {
	key := append([]byte{byte(zone.KindContents)}, owner...)
	return append(key, byte(t>>8), byte(t))
}
