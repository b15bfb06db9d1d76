package pipeline

import (
	"errors"
	"time"

	"sluice/signer/zone"
)

// earliest is when the first of the signatures ends that the zone has after
// the edit, in epoch seconds, given that time before it; 0 without any. It may
// name a time that is too early, as it looks at all signatures only where it
// would lie before due.
func (z *zoneEdit) earliest(before int64, due time.Time) (int64, error) {
	var sigs zone.Kept
	for key, set := range z.sets {
		value, err := set.value([]byte(key))
		if err != nil {
			return 0, err
		}
		if len(value) > 0 {
			sigs.Add([]byte(key), value)
		}
	}
	bound := before
	if bound == 0 || sigs.Earliest != 0 && sigs.Earliest < bound {
		bound = sigs.Earliest
	}
	if bound == 0 || !time.Unix(bound, 0).Before(due) {
		return bound, nil
	}
	for _, kind := range []zone.Kind{zone.KindSigs, zone.KindChainSigs} {
		if err := z.unchanged(kind, sigs.Add); err != nil {
			return 0, err
		}
	}
	return sigs.Earliest, nil
}

// unchanged calls fn for each item of a kind that the edit leaves alone.
func (z *zoneEdit) unchanged(kind zone.Kind, fn func(key []byte, value zone.Value)) (err error) {
	it, err := z.view.Kind(kind)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for it.Next() {
		if z.sets[string(it.Key())] == nil {
			fn(it.Key(), it.Value())
		}
	}
	return it.Err()
}
