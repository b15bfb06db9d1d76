package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"sluice/journal/event"
	"sluice/signer/zone"
)

// errNoZONEMD reports input without the ZONEMD record that the policy wants.
var errNoZONEMD = errors.New(`no ZONEMD record that can be verified, and loader.checks.zonemd = "require"`)

// maxZONEMD bounds the ZONEMD records of one incremental transfer.
const maxZONEMD = 16

// takeZONEMD notes what became of the ZONEMD records of the input, and refuses
// it where the policy does. What is passed through is verified later, and
// needs to have one only.
func takeZONEMD(facts *event.InstanceLoaded, p Policy, outcome zone.ZONEMDOutcome) error {
	facts.ZONEMD = ""
	if outcome != zone.ZONEMDAbsent {
		facts.ZONEMD = string(outcome)
	}
	if p.Checks().ZONEMD == zonemdRequire && outcome != zone.ZONEMDVerified &&
		(outcome != zone.ZONEMDUnchecked || !p.passThrough()) {
		return errNoZONEMD
	}
	return nil
}

func (z *zoneEdit) addZONEMD(rdata []byte) error {
	if len(z.zonemd) == maxZONEMD {
		return fmt.Errorf("%w: more than %d ZONEMD records", errNotApplicable, maxZONEMD)
	}
	z.zonemd = append(z.zonemd, bytes.Clone(rdata))
	return nil
}

// checkZONEMD verifies the ZONEMD records that an incremental transfer leads
// to, in one pass over the zone as it will be. before is what became of those
// of the instance that it is a diff to. Where they do not match what is stored
// of the zone, a whole transfer has the last word: what was left out of the
// input, or changed in it, is part of the digest.
func (t *transfer) checkZONEMD(ctx context.Context, before string, facts *event.InstanceLoaded) error {
	z, want := t.edit, t.policy.Checks().ZONEMD
	outcome := zone.ZONEMDAbsent
	switch {
	case z.all || want == zonemdIgnore:
		if outcome = zone.ZONEMDUnchecked; !z.hasZONEMD(before) {
			outcome = zone.ZONEMDAbsent
		}
	case len(z.zonemd) == 0 && before != "" && z.zonemdGone == 0:
		return fmt.Errorf("%w: the ZONEMD record did not change with the zone", errNotApplicable)
	case len(z.zonemd) > 0:
		for word := range z.stripped {
			if word != zone.TypeZONEMD.String() {
				return fmt.Errorf("%w: its ZONEMD record covers records that are left out", errNotApplicable)
			}
		}
		var err error
		if outcome, err = t.digest(ctx, zone.Serial(facts.Serial)); err != nil {
			return err
		}
	}
	return takeZONEMD(facts, t.policy, outcome)
}

// hasZONEMD reports whether the zone has a ZONEMD record that nobody looks at.
func (z *zoneEdit) hasZONEMD(before string) bool {
	if !z.all {
		return len(z.zonemd) > 0 || before != "" && z.zonemdGone == 0
	}
	value, err := z.now(zone.AppendKey(nil, zone.KindMade, z.apex, zone.TypeZONEMD))
	return err == nil && len(value) > 0
}

// digest verifies the ZONEMD records against the zone with its changes.
func (t *transfer) digest(ctx context.Context, serial zone.Serial) (zone.ZONEMDOutcome, error) {
	if err := take(ctx, t.e.heavy); err != nil {
		return "", err
	}
	defer give(t.e.heavy)
	check := zone.NewZONEMDCheck(t.apex, serial, t.edit.zonemd)
	n := int64(0)
	err := t.edit.whole(func(key []byte, value zone.Value) error {
		if n++; n%4096 == 0 {
			t.report(Progress{Stage: "load", Done: n})
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
		return check.Add(key, value)
	})
	if err != nil {
		return "", err
	}
	outcome, err := check.Finish()
	if errors.Is(err, zone.ErrZONEMD) {
		return "", fmt.Errorf("%w: %w", errNotApplicable, err)
	}
	return outcome, err
}

// whole walks the contents as they are after the edit.
func (z *zoneEdit) whole(fn func(key []byte, value zone.Value) error) (err error) {
	it, err := z.view.Kind(zone.KindContents)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	edited := slices.Sorted(maps.Keys(z.sets))
	upTo := func(key []byte) error {
		for len(edited) > 0 && (key == nil || edited[0] <= string(key)) {
			value, err := z.sets[edited[0]].value([]byte(edited[0]))
			if err != nil {
				return err
			}
			if len(value) > 0 {
				if err := fn([]byte(edited[0]), value); err != nil {
					return err
				}
			}
			edited = edited[1:]
		}
		return nil
	}
	for it.Next() {
		if err := upTo(it.Key()); err != nil {
			return err
		}
		if z.sets[string(it.Key())] == nil {
			if err := fn(it.Key(), it.Value()); err != nil {
				return err
			}
		}
	}
	if err := it.Err(); err != nil {
		return err
	}
	return upTo(nil)
}
