package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/signer/zone"
)

// FleetWish is how policies and zones are to be; what it does not name stays.
type FleetWish struct {
	Policies []PolicyWish `json:"policies,omitempty"`
	Zones    []ZoneWish   `json:"zones,omitempty"`
	// With are policies that the zones may name although they are not there yet;
	// nothing is told of them.
	With []PolicyWish `json:"with,omitempty"`
}

// PolicyWish is a policy as it is to be.
type PolicyWish struct {
	Name string `json:"name"`
	Text string `json:"text"` // the policy file
}

// ZoneWish is a zone as it is to be.
type ZoneWish struct {
	Name   string `json:"name"`
	Source string `json:"source,omitempty"` // "" leaves a zone's own
	Policy string `json:"policy,omitempty"` // "" leaves a zone's own
	Remove bool   `json:"remove,omitempty"`
	// Keys are the IDs of keys that it is to have, or to have had.
	Keys []string `json:"keys,omitempty"`
}

// FleetOutlook is what would change where wishes came true.
type FleetOutlook struct {
	Policies []PolicyPlan  `json:"policies"`
	Zones    []ZoneOutlook `json:"zones"`
}

// ZoneOutlook is what would change of a zone.
type ZoneOutlook struct {
	Zone    string   `json:"zone"`
	Change  string   `json:"change"`            // added, changed, removed, unchanged
	Changes []string `json:"changes,omitempty"` // what, a sentence each
	// MissingKeys are those of the wish that it never had.
	MissingKeys []string `json:"missing_keys,omitempty"`
	// Bound tells by which event the zone has its source and its policy; nil of a
	// zone that is not there, or does not change.
	Bound *ZoneBinding `json:"bound,omitempty"`
	// Catalog is the catalog that it comes from, or itself where it is one; "" else.
	Catalog string `json:"catalog,omitempty"`
	// Refused says why it is not possible now; "" where nothing speaks against it.
	Refused string `json:"refused,omitempty"`
}

// ZoneBinding is the event that gave a zone its source or its policy last.
type ZoneBinding struct {
	Position uint64    `json:"position"` // its sequence, by which changes can be refused
	Time     time.Time `json:"time"`
	Actor    string    `json:"actor"`
	Door     string    `json:"door"`
	Reason   string    `json:"reason,omitempty"`
}

// What becomes of a zone.
const (
	zoneAdded     = "added"
	zoneChanged   = "changed"
	zoneRemoved   = "removed"
	zoneUnchanged = "unchanged"
)

// Outlook says what would change where a wish came true; nothing changes. closed
// leaves out what is sealed. Zones and policies are in the order of the wish.
// Errors: ErrInvalid where a policy's text has a fault.
func (e *Engine) Outlook(ctx context.Context, actor event.Actor, w FleetWish, closed bool) (FleetOutlook, error) {
	out := FleetOutlook{Policies: make([]PolicyPlan, 0, len(w.Policies)), Zones: []ZoneOutlook{}}
	wished := map[string]Policy{}
	for i, want := range slices.Concat(w.With, w.Policies) {
		if err := CheckPolicyName(want.Name); err != nil {
			return out, err
		}
		p, err := Parse(want.Name, []byte(want.Text))
		if err != nil {
			return out, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		wished[want.Name] = p
		if i < len(w.With) {
			continue
		}
		plan := e.policyPlan(ctx, p, actor)
		if e.cfg.PolicyDir == "" && plan.Change != policyUnchanged {
			plan.Refused = "the daemon runs without --policy-dir: give it one, and start it again"
		}
		out.Policies = append(out.Policies, plan)
	}
	policy := func(name string) (Policy, error) {
		if p, ok := wished[name]; ok {
			return p, nil
		}
		return e.usablePolicy(name)
	}
	out.Zones = make([]ZoneOutlook, len(w.Zones))
	var work errgroup.Group
	work.SetLimit(lookedAt)
	for i, want := range w.Zones {
		work.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			out.Zones[i] = e.zoneOutlook(ctx, want, closed, policy)
			return nil
		})
	}
	return out, work.Wait()
}

// lookedAt is how many zones of an outlook are looked at at a time: each reads an
// event.
const lookedAt = 16

// zoneOutlook says what would change of one zone.
func (e *Engine) zoneOutlook(ctx context.Context, want ZoneWish, closed bool, policy func(string) (Policy, error)) ZoneOutlook {
	out := ZoneOutlook{Zone: want.Name, Change: zoneUnchanged}
	refuse := func(err error) ZoneOutlook {
		out.Refused = err.Error()
		return out
	}
	n, err := zone.ParseName(want.Name)
	if err != nil {
		return refuse(err)
	}
	out.Zone = n.Fold().String()
	r, err := e.find(want.Name)
	switch {
	case errors.Is(err, ErrNotFound) && want.Remove:
		return out
	case errors.Is(err, ErrNotFound):
		out.Change = zoneAdded
		if want.Source == "" {
			return refuse(fmt.Errorf("zone %s has no source", out.Zone))
		}
		if n.IsWildcard() {
			return refuse(errors.New("a wildcard cannot be a zone"))
		}
		if want.Policy == "" {
			want.Policy = "default"
		}
		if _, err = policy(want.Policy); err == nil {
			_, err = e.checkSource(want.Source)
		}
		if err != nil {
			return refuse(err)
		}
		return out
	case err != nil:
		return refuse(err)
	}
	s := r.snapshot()
	if err := e.removable(s); err != nil {
		out.Catalog = e.catalogName(s)
		if want.Remove {
			out.Change = zoneRemoved
			return refuse(err)
		}
	}
	if want.Remove {
		out.Change, out.Refused = zoneRemoved, removalDoubt(s)
		if out.Bound, err = e.bindingOf(ctx, s, closed); err != nil {
			return refuse(err)
		}
		return out
	}
	for _, id := range want.Keys {
		if _, ok := s.Keys.ByID(id); !ok {
			out.MissingKeys = append(out.MissingKeys, id)
		}
	}
	out.Changes, err = e.changeOutlook(ctx, s, want, policy)
	if err == nil && len(out.Changes) == 0 {
		return out
	}
	out.Change = zoneChanged
	bound, readErr := e.bindingOf(ctx, s, closed)
	if out.Bound = bound; err == nil {
		err = readErr
	}
	if err != nil {
		return refuse(err)
	}
	return out
}

// catalogName is the catalog that a zone is, or comes from.
func (e *Engine) catalogName(s State) string {
	if c, ok := e.catalogOf(s.Zone); ok {
		return c.Name
	}
	c, _ := e.listedBy(s)
	return c.Name
}

// changeOutlook says what a wish changes of a zone that is there.
func (e *Engine) changeOutlook(ctx context.Context, s State, want ZoneWish, policy func(string) (Policy, error)) ([]string, error) {
	change := ZoneChange{Source: want.Source}
	if want.Source != "" {
		var err error
		if change.Source, err = e.checkSource(want.Source); err != nil {
			return nil, err
		}
	}
	var p Policy
	if want.Policy != "" && want.Policy != s.Policy.Name {
		var err error
		if p, err = policy(want.Policy); err != nil {
			return nil, err
		}
		change.Policy = want.Policy
	}
	_, changes, err := e.planTurn(ctx, s, change, p)
	return changes, err
}

// removalDoubt says what speaks against removing a zone, as far as that is known
// without asking anybody; "" where nothing does.
func removalDoubt(s State) string {
	if s.ParentDS == nil {
		return ""
	}
	for _, set := range s.ParentDS.Sets {
		if len(set.DS) > 0 {
			return "its parent had a DS when that was seen last: have it removed there, and wait until its TTL has run out"
		}
	}
	return ""
}

// bindingOf reads who gave a zone its source and its policy, and why.
func (e *Engine) bindingOf(ctx context.Context, s State, closed bool) (*ZoneBinding, error) {
	b := &ZoneBinding{Position: s.position(), Time: s.Added.Time, Actor: s.Added.Actor.Name, Door: s.Added.Actor.Door}
	id, seq := s.Zone, b.Position
	read := func(rec journal.Record) error {
		ev := shown(rec, closed).Event
		b.Time, b.Actor, b.Door = ev.Time, ev.Actor.Name, ev.Actor.Door
		switch f := ev.Facts.(type) {
		case *event.PolicyBound:
			b.Reason = f.Reason
		case *event.ZoneChanged:
			b.Reason = f.Reason
		case *event.ZoneAdded:
			b.Reason = f.Reason
		}
		return nil
	}
	if seq != 0 {
		if err := e.journal.Read(ctx, id, seq, seq, read); err != nil {
			return nil, err
		}
	}
	// A zone is bound for the first time by the program itself, as who added it
	// asked for.
	if seq == 0 || b.Actor == event.Program.Name && b.Door == event.Program.Door {
		if err := e.journal.Read(ctx, event.Instance, s.Added.Seq, s.Added.Seq, read); err != nil {
			return nil, err
		}
	}
	return b, nil
}
