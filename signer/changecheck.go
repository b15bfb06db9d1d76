package signer

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"sluice/signer/zone"
)

// CheckInput is what CheckChanges looks at.
type CheckInput struct {
	// Previous is a signed instance that was checked before, Signed the one
	// made on top of it; each with all kinds.
	Previous, Signed Access
	// Changes calls fn for every item of any kind in which the two differ, in
	// any order of kinds: before is nil where the item is new, after is nil
	// where it is gone.
	Changes func(fn func(key, before, after []byte) error) error
	// ContentState and SignedState are the states of Previous's digests. With
	// them ContentSum and SignedSum of the options are compared.
	ContentState, SignedState *zone.SetHash
}

// CheckChanges is Verify for an instance of which little has changed: it
// judges every name at which something differs from the previous instance,
// every name that such a name begins or ceases to hide, and every link of the
// denial chain that changed, as Verify would, at a cost that follows the
// number of changes. What did not change was checked when it came; times of
// signatures that stay are not looked at again. It decides by itself, from
// the records of both instances, what must hold.
//
// The report counts what was looked at, not the zone. CheckChanges returns
// ErrFull, wrapped, where published keys or denial parameters differ and
// where there is a ZONEMD record: the whole zone must be verified then.
func CheckChanges(ctx context.Context, in CheckInput, o VerifyOptions) (*Report, error) {
	c, err := newChangeCheck(in, o)
	if err == nil {
		err = c.run(ctx)
		err = errors.Join(err, c.names.Close(), c.hashes.Close())
	}
	if err != nil {
		return nil, fmt.Errorf("check changes of %v: %w", o.Apex, err)
	}
	return c.v.report, nil
}

// changeCheck is one call of CheckChanges.
type changeCheck struct {
	in       CheckInput
	v        *verifier
	now, old side
	names    *zone.Sorter // owner keys to judge
	hashes   *zone.Sorter // NSEC3 records to judge
	content  *zone.Hasher // nil: not wanted
	signed   *zone.Hasher // nil: not wanted
	lastCut  []byte       // the last name below which all were noted

	parent      []byte // the last parent asked for, in wire form
	parentHides bool   // it or a name above it hides what is below it
	key         []byte
	buf         []byte
	entry       []byte
}

func newChangeCheck(in CheckInput, o VerifyOptions) (*changeCheck, error) {
	switch {
	case in.Previous == nil || in.Signed == nil || in.Changes == nil:
		return nil, errors.New("no instances to compare")
	case o.Spill == nil:
		return nil, errors.New("no spill")
	case o.ContentSum != nil && in.ContentState == nil, o.SignedSum != nil && in.SignedState == nil:
		return nil, errors.New("a digest to compare without the previous state")
	}
	v, err := newVerifier(o)
	if err != nil {
		return nil, err
	}
	v.partial = true
	c := &changeCheck{in: in, v: v}
	c.now = side{access: in.Signed, what: "the signed instance"}
	c.old = side{access: in.Previous, what: "the previous instance"}
	c.names = zone.NewSorter(o.Spill, updateMemory)
	c.hashes = zone.NewSorter(o.Spill, updateMemory)
	if in.ContentState != nil {
		c.content = &zone.Hasher{Set: *in.ContentState}
	}
	if in.SignedState != nil {
		c.signed = &zone.Hasher{Set: *in.SignedState}
	}
	return c, nil
}

// run walks the changes, then the names, then the NSEC3 records.
func (c *changeCheck) run(ctx context.Context) error {
	v := c.v
	v.pool = newCheckPool(ctx, v)
	err := c.walk(ctx)
	if err = errors.Join(err, v.pool.finish()); err != nil {
		return err
	}
	c.compareDigests()
	v.report.Faults, v.report.FaultCount = v.faults.sorted()
	return nil
}

func (c *changeCheck) walk(ctx context.Context) error {
	if err := c.readApex(); err != nil {
		return err
	}
	n := 0
	err := c.in.Changes(func(key, before, after []byte) error {
		if n++; n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if err := c.change(key, before, after); err != nil {
			return fmt.Errorf("read changes: %w", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := c.names.Add(c.v.apexKey, nil); err != nil {
		return err
	}
	if err := c.judgeNames(ctx); err != nil {
		return err
	}
	return c.judgeHashes(ctx)
}

// readApex reads keys and denial parameters and demands that they are those
// of the previous instance.
func (c *changeCheck) readApex() error {
	v := c.v
	for _, t := range []zone.Type{zone.TypeDNSKEY, zone.TypeNSEC3PARAM, zone.TypeZONEMD} {
		before, err := c.old.get(zone.KindMade, v.apexKey, t)
		if err != nil {
			return err
		}
		now, err := c.now.get(zone.KindMade, v.apexKey, t)
		if err != nil {
			return err
		}
		if !bytes.Equal(before, now) {
			return fmt.Errorf("%w: the %v RRset has changed", ErrFull, t)
		}
		if t == zone.TypeZONEMD && now != nil {
			return fmt.Errorf("%w: a ZONEMD record covers all of it", ErrFull)
		}
	}
	if err := c.group(v.apexKey); err != nil {
		return err
	}
	v.seq++
	v.readApex()
	return nil
}

// group reads all items of a name, NSEC3 records aside, in the order of
// zone.Merge.
func (c *changeCheck) group(ownerKey []byte) error {
	g := &c.v.group
	if err := g.begin(ownerKey); err != nil {
		return c.now.wrap(err)
	}
	for _, kind := range []zone.Kind{zone.KindContents, zone.KindMade, zone.KindSigs} {
		err := c.now.each(kind, ownerKey, func(_ []byte, t zone.Type, value zone.Value) (bool, error) {
			g.add(kind, t, c.itemKey(kind, ownerKey, t), value)
			return true, nil
		})
		if err != nil {
			return err
		}
	}
	g.merge()
	return nil
}

func (c *changeCheck) itemKey(kind zone.Kind, ownerKey []byte, t zone.Type) []byte {
	c.key = append(append(c.key[:0], byte(kind)), ownerKey...)
	c.key = append(c.key, byte(t>>8), byte(t))
	return c.key
}

// change takes one difference: digests, and what it makes suspect.
func (c *changeCheck) change(key, before, after []byte) error {
	kind, ownerKey, t, err := zone.SplitKey(key)
	if err != nil {
		return err
	}
	v := c.v
	if !bytes.HasPrefix(ownerKey, v.apexKey[:len(v.apexKey)-1]) {
		return fmt.Errorf("an item beyond the apex")
	}
	if err := c.digest(kind, ownerKey, t, key, before, after); err != nil {
		return err
	}
	switch kind {
	case zone.KindChain, zone.KindChainSigs:
		return c.noteChain(kind, ownerKey, before, after)
	case zone.KindContents:
		if (t == zone.TypeNS || t == zone.TypeDNAME) && (len(before) == 0) != (len(after) == 0) {
			if err := c.noteBelow(ownerKey); err != nil {
				return err
			}
		}
	default:
	}
	return c.names.Add(ownerKey, nil)
}

// digest keeps the digests of both instances' difference.
func (c *changeCheck) digest(kind zone.Kind, ownerKey []byte, t zone.Type, key, before, after []byte) error {
	hidden := kind == zone.KindContents && t == zone.TypeSOA && bytes.Equal(ownerKey, c.v.apexKey)
	for i, value := range [2][]byte{before, after} {
		if len(value) == 0 {
			continue
		}
		if err := zone.Value(value).Check(); err != nil {
			return err
		}
		if c.signed != nil && !hidden {
			if err := addOrRemove(c.signed.AddItem, c.signed.RemoveItem, i, key, value); err != nil {
				return err
			}
		}
		if c.content != nil && kind == zone.KindContents {
			if err := addOrRemove(c.content.AddContent, c.content.RemoveContent, i, key, value); err != nil {
				return err
			}
		}
	}
	return nil
}

func addOrRemove(add, remove func(key, value []byte) error, which int, key, value []byte) error {
	if which == 0 {
		return remove(key, value)
	}
	return add(key, value)
}

// noteBelow notes the names below one that may begin or cease to hide them.
func (c *changeCheck) noteBelow(ownerKey []byte) error {
	if len(c.lastCut) > 0 && bytes.HasPrefix(ownerKey, c.lastCut) {
		return nil
	}
	c.lastCut = append(c.lastCut[:0], ownerKey[:len(ownerKey)-1]...)
	return c.now.each(zone.KindContents, c.lastCut, func(below []byte, _ zone.Type, _ zone.Value) (bool, error) {
		return true, c.names.Add(below, nil)
	})
}

// compareDigests holds the differences against the digests wanted.
func (c *changeCheck) compareDigests() {
	v := c.v
	v.seq++
	if c.content != nil {
		v.report.ContentSum = c.content.Set.Sum()
		if want := v.opts.ContentSum; want != nil && *want != v.report.ContentSum {
			v.faultAt(v.apex, zone.TypeSOA, RuleDigest, "the contents are not those expected: digest %x, want %x", v.report.ContentSum, *want)
		}
	}
	if want := v.opts.SignedSum; want != nil && *want != c.signed.Set.Sum() {
		v.faultAt(v.apex, zone.TypeSOA, RuleDigest, "the signed zone is not the one expected: digest %x, want %x", c.signed.Set.Sum(), *want)
	}
}
