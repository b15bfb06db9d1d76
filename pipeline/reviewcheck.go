package pipeline

import (
	"errors"
	"fmt"

	"sluice/journal/event"
	"sluice/signer/zone"
)

// checkLoaded holds the newest loaded instance against the policy's limits.
// It names the checks made, and in fault what is wrong.
func (e *Engine) checkLoaded(s State, p Policy) (checks []string, fault string, err error) {
	c, f := p.Checks(), s.Loaded.Facts
	if c.MinRecords > 0 {
		checks = append(checks, "min-records")
		if f.Records < c.MinRecords {
			return checks, fmt.Sprintf("%d records, loader.checks.min-records wants %d", f.Records, c.MinRecords), nil
		}
	}
	if len(c.Required) > 0 {
		checks = append(checks, "required-records")
		if fault, err = e.checkRequired(s, c.Required); fault != "" || err != nil {
			return checks, fault, err
		}
	}
	if c.MaxChangePercent > 0 && s.Approved != nil && s.Approved.Broken == "" {
		checks = append(checks, "max-change-percent")
		if fault, err = e.checkChange(s, c.MaxChangePercent); fault != "" || err != nil {
			return checks, fault, err
		}
	}
	return checks, "", nil
}

func (e *Engine) checkRequired(s State, required []string) (fault string, err error) {
	apex, err := apexOf(s)
	if err != nil {
		return "", err
	}
	v, err := e.store.Loaded(s.Zone, s.Loaded.Seq)
	if err != nil {
		return "", err
	}
	defer v.Close() //nolint:errcheck // read only
	for _, text := range required {
		owner, t, err := parseRequired(text, apex)
		if err != nil {
			return "", err
		}
		value, err := v.Get(zone.AppendKey(nil, zone.KindContents, owner, t))
		if err != nil {
			return "", err
		}
		if len(value) == 0 {
			return fmt.Sprintf("no %s record at %s, loader.checks.required-records wants one", t, owner), nil
		}
	}
	return "", nil
}

// checkChange bounds the share of RRsets that differ from the last approved
// instance, the SOA left out. It stops as soon as there are too many.
func (e *Engine) checkChange(s State, percent int) (fault string, err error) {
	before, now := s.Approved, s.Loaded
	total := max(before.Facts.RRsets, now.Facts.RRsets, 1)
	limit := total / 100 * uint64(percent)
	limit += total % 100 * uint64(percent) / 100
	if most := now.Facts.Added + now.Facts.Removed; now.Facts.Base == before.Seq && most <= limit {
		return "", nil // no more RRsets than records can have changed
	}
	a, err := e.store.Contents(s.Zone, before.Seq)
	if err != nil {
		return "", err
	}
	defer a.Close() //nolint:errcheck // read only
	b, err := e.store.Contents(s.Zone, now.Seq)
	if err != nil {
		return "", err
	}
	defer b.Close() //nolint:errcheck // read only
	changed := uint64(0)
	err = zone.DiffItems(a, b, func(key, _, _ []byte) error {
		if isInputSOA(key) {
			return nil
		}
		if changed++; changed > limit {
			return errEnough
		}
		return nil
	})
	switch {
	case errors.Is(err, errEnough):
		return fmt.Sprintf("more than %d of %d RRsets changed against %s, loader.checks.max-change-percent allows %d %%",
			limit, total, instanceWordOf(event.StageLoaded, before.Seq), percent), nil
	case err != nil:
		return "", err
	}
	return "", nil
}
