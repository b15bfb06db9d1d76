package pipeline

import (
	"errors"
	"fmt"

	"sluice/journal/event"
	"sluice/signer/zone"
)

// limit is one of the policy's limits for what was loaded; find says what is
// wrong, "" where nothing is.
type limit struct {
	name string
	find func() (fault string, err error)
}

// limits are those that the policy sets, for the newest loaded instance.
func (e *Engine) limits(s State, p Policy) []limit {
	var out []limit
	c, f := p.Checks(), s.Loaded.Facts
	if c.MinRecords > 0 {
		out = append(out, limit{"min-records", func() (string, error) {
			if f.Records >= c.MinRecords {
				return "", nil
			}
			return fmt.Sprintf("%d records, loader.checks.min-records wants %d", f.Records, c.MinRecords), nil
		}})
	}
	if len(c.Required) > 0 {
		out = append(out, limit{"required-records", func() (string, error) { return e.checkRequired(s, c.Required) }})
	}
	if c.MaxChangePercent > 0 && s.Approved != nil && s.Approved.Broken == "" {
		out = append(out, limit{"max-change-percent", func() (string, error) { return e.checkChange(s, c.MaxChangePercent) }})
	}
	return out
}

// checkLoaded holds the newest loaded instance against the policy's limits.
// It names the checks made, and in fault what is wrong.
func (e *Engine) checkLoaded(s State, p Policy) (checks []string, fault string, err error) {
	for _, limit := range e.limits(s, p) {
		checks = append(checks, limit.name)
		if fault, err = limit.find(); fault != "" || err != nil {
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
