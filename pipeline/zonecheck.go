package pipeline

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"sluice/signer/zone"
)

// maxFindings is how many findings of one check are listed; all are counted.
const maxFindings = 20

// ZoneCheck is what the built-in checks find in the newest loaded instance.
type ZoneCheck struct {
	Zone     string       `json:"zone"`
	Instance string       `json:"instance"` // l<sequence>
	Serial   uint32       `json:"serial"`
	Records  uint64       `json:"records"`
	Policy   string       `json:"policy"`
	OK       bool         `json:"ok"`
	Checks   []CheckFound `json:"checks"`
}

// CheckFound is what one check found.
type CheckFound struct {
	Check   string   `json:"check"`
	OK      bool     `json:"ok"`
	Faults  []string `json:"faults,omitempty"` // the first ones
	Total   uint64   `json:"total,omitempty"`  // of the faults
	Notices []string `json:"notices,omitempty"`
}

func (c *CheckFound) fault(format string, args ...any) {
	c.OK = false
	if c.Total++; len(c.Faults) < maxFindings {
		c.Faults = append(c.Faults, oneLine(fmt.Sprintf(format, args...)))
	}
}

func (c *CheckFound) note(text string) {
	if len(c.Notices) < maxFindings {
		c.Notices = append(c.Notices, oneLine(text))
	}
}

// CheckZone runs the built-in checks over the newest loaded instance, by the
// policy that the zone is bound to: what the loader demands of a zone, and the
// policy's limits. It changes nothing. Errors: ErrNotFound, ErrState where
// nothing is loaded.
func (e *Engine) CheckZone(ctx context.Context, name string, progress func(Progress)) (*ZoneCheck, error) {
	r, err := e.find(name)
	if err != nil {
		return nil, err
	}
	s := r.snapshot()
	switch {
	case s.Loaded == nil:
		return nil, errorState("zone %s: nothing is loaded", s.Name)
	case s.Loaded.Broken != "":
		return nil, errorState("zone %s: l%d cannot be read (%s)", s.Name, s.Loaded.Seq, s.Loaded.Broken)
	}
	p, err := e.boundPolicy(s)
	if err != nil {
		return nil, err
	}
	out := &ZoneCheck{
		Zone: s.Name, Instance: fmt.Sprintf("l%d", s.Loaded.Seq), Serial: s.Loaded.Facts.Serial,
		Records: s.Loaded.Facts.Records, Policy: s.Policy.Name, OK: true,
	}
	found, err := e.checkItems(ctx, s, p, progress)
	if err != nil {
		return nil, fmt.Errorf("check l%d: %w", s.Loaded.Seq, e.note(err))
	}
	out.Checks = append(found, checkZONEMD(s, p))
	for _, limit := range e.limits(s, p) {
		fault, err := limit.find()
		if err != nil {
			return nil, fmt.Errorf("check l%d: %w", s.Loaded.Seq, err)
		}
		c := CheckFound{Check: limit.name, OK: true}
		if fault != "" {
			c.fault("%s", fault)
		}
		out.Checks = append(out.Checks, c)
	}
	for _, c := range out.Checks {
		out.OK = out.OK && c.OK
	}
	return out, nil
}

// checkItems walks the instance: what the loader demands, TTLs, the digest.
func (e *Engine) checkItems(ctx context.Context, s State, p Policy, progress func(Progress)) ([]CheckFound, error) {
	apex, err := apexOf(s)
	if err != nil {
		return nil, err
	}
	it, err := e.store.LoadedItems(s.Zone, s.Loaded.Seq)
	if err != nil {
		return nil, err
	}
	defer it.Close() //nolint:errcheck // read only
	rules, ttls, digest := CheckFound{Check: "zone", OK: true}, CheckFound{Check: "max-ttl", OK: true}, CheckFound{Check: "digest", OK: true}
	glue := CheckFound{Check: "glue", OK: true}
	checker := zone.NewChecker(apex, p.Checks().Glue, func(found zone.Problem) {
		c := &rules
		if errors.Is(found, zone.ErrGlue) || errors.Is(found, zone.ErrServerAddress) {
			c = &glue
		}
		if found.Notice {
			c.note(found.Error())
		} else {
			c.fault("%s", found.Error())
		}
	})
	var hasher zone.Hasher
	high := 0
	for n := int64(0); it.Next(); n++ {
		key, value := it.Key(), zone.Value(it.Value())
		if n%4096 == 0 {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if progress != nil {
				progress(Progress{Zone: s.Name, Stage: "check", Done: n, Total: int64(s.Loaded.Facts.RRsets)})
			}
		}
		if err := hasher.AddContent(key, value); err != nil {
			digest.fault("%v", err)
			continue
		}
		if zone.Kind(key[0]) == zone.KindContents {
			checker.Item(key, value)
		}
		if limit := p.loadTTL(); limit != 0 && value.TTL() > limit {
			high++
		}
	}
	if err := it.Err(); err != nil {
		return nil, err
	}
	checker.Finish()
	switch {
	case high > 0 && p.ClampTTL():
		ttls.note(fmt.Sprintf("%d RRsets with a TTL above %d, which the next load lowers", high, p.loadTTL()))
	case high > 0:
		ttls.fault("%d RRsets with a TTL above %d, which the next load refuses", high, p.loadTTL())
	}
	if sum := hasher.Set.Sum(); sum != s.Loaded.Facts.ContentDigest {
		digest.fault("the projection holds %s, the event says %s; stop the daemon and delete projections/: they are rebuilt from the journal",
			hex.EncodeToString(sum[:]), hex.EncodeToString(s.Loaded.Facts.ContentDigest[:]))
	}
	if p.Checks().Glue == zone.GlueIgnore {
		glue.note("not looked for: loader.checks.glue is \"ignore\"")
	}
	return []CheckFound{rules, glue, ttls, digest}, nil
}

// checkZONEMD tells what became of the ZONEMD record that the instance came
// with.
func checkZONEMD(s State, p Policy) CheckFound {
	c := CheckFound{Check: "zonemd", OK: true}
	facts := s.Loaded.Facts
	outcome := zone.ZONEMDOutcome(facts.ZONEMD)
	if outcome == "" {
		outcome = zone.ZONEMDAbsent
	}
	if err := takeZONEMD(&facts, p, outcome); errors.Is(err, errNoZONEMD) {
		c.fault("%v", err)
	}
	c.note(string(outcome))
	return c
}
