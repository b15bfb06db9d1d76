package keymgr

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/journal/event"
)

// ErrConflicts reports that a rollover cannot begin beside one that runs, or
// with the keys that there are.
var ErrConflicts = errors.New("not possible with the zone's keys as they are")

func conflict(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), ErrConflicts)
}

// Plan is a rollover that may begin.
type Plan struct {
	Kind      Kind
	Method    Method
	Old       []string
	New       []string // empty until the keys are there
	Reason    string
	Emergency bool
	Start     time.Time // zero: at once
}

// NewRoles is the roles of the keys that a kind of rollover brings.
func NewRoles(k Kind, useCSK bool) []Role {
	switch k {
	case RollZSK:
		return []Role{ZSK}
	case RollKSK:
		return []Role{KSK}
	case RollCSK, RollAlgorithm:
		if useCSK {
			return []Role{CSK}
		}
		return []Role{KSK, ZSK}
	case RollSecure, RollInsecure, RollForeign:
	}
	return nil
}

// NewPlan says which keys a rollover takes out, or why it cannot begin.
func (ks KeySet) NewPlan(k Kind, m Method, p RollPolicy) (Plan, error) {
	if k == RollForeign {
		return ks.planJoin(Plan{Kind: k})
	}
	if m == "" {
		m = p.Method(k)
	}
	if !slices.Contains(Methods(k), m) {
		return Plan{}, conflict("a rollover of %s has no method %q, it has %s", k, m, methodList(k))
	}
	plan := Plan{Kind: k, Method: m}
	if err := ks.free(k); err != nil {
		return plan, err
	}
	for _, key := range ks.Signing() {
		takes := true
		switch k {
		case RollZSK:
			takes = key.HasRole(ZSK)
		case RollKSK:
			takes = key.HasRole(KSK)
		case RollInsecure:
			takes = key.SignsKeys()
		case RollCSK, RollAlgorithm, RollSecure, RollForeign:
		}
		if takes && k == RollSecure {
			plan.New = append(plan.New, key.ID)
		} else if takes {
			plan.Old = append(plan.Old, key.ID)
		}
	}
	slices.Sort(plan.Old)
	slices.Sort(plan.New)
	return plan, ks.fits(plan)
}

// fits checks a plan's keys and what the parent has.
func (ks KeySet) fits(plan Plan) error {
	secure := ks.secure()
	switch k := plan.Kind; {
	case len(plan.Old)+len(plan.New) == 0 && (k == RollZSK || k == RollKSK):
		return conflict("the zone has no %s that signs; a CSK is exchanged by a rollover of kind csk", strings.ToUpper(string(k)))
	case len(plan.Old)+len(plan.New) == 0:
		return conflict("the zone has no key that signs")
	case k == RollKSK && !secure:
		return conflict("the parent has no DS of the zone, and was not told to have one: begin with a rollover to secure")
	case k == RollSecure && len(ks.DS.Wanted) > 0:
		return conflict("the parent was told already to have a DS")
	case k == RollInsecure && ks.DS.Withdrawn:
		return conflict("the parent was told already to have no DS")
	case k == RollInsecure && !secure:
		return conflict("the parent has no DS of the zone, and was not told to have one: the zone is insecure")
	}
	return nil
}

// free reports whether a rollover may begin beside those that run: those of a
// ZSK go beside those of a KSK and beside the way to the first or to no DS,
// those of other signers' keys beside all; the way to no DS takes the place of
// that to the first one; all others stand alone.
func (ks KeySet) free(k Kind) error {
	for _, r := range ks.Rollovers {
		zone := k == RollZSK && r.Kind != RollZSK && r.Kind != RollCSK && r.Kind != RollAlgorithm && (r.Kind != RollSecure || r.Step > 1)
		other := r.Kind == RollZSK && (k == RollKSK || k == RollSecure || k == RollInsecure)
		if zone || other || r.Kind == RollForeign || k == RollInsecure && r.Kind == RollSecure && r.Step > 1 {
			continue
		}
		return conflict("a rollover of kind %s runs (%d, step %q): %s", r.Kind, r.ID, r.StepName(), r.wayOut())
	}
	return nil
}

// wayOut is what a person can do for another rollover to begin.
func (r *Rollover) wayOut() string {
	switch {
	case r.Kind == RollSecure && r.Step > 1:
		return "it ends once the DS is seen at all servers of the parent; have it added there (sluice key ds), " +
			"or report it where the parent cannot be asked (sluice key step --ds-seen TTL), or go back (sluice key roll ZONE insecure)"
	case r.Kind == RollSecure:
		return "the zone's first DS comes first; it ends by itself, or give it up (sluice key abort) and begin again later (sluice key roll ZONE secure)"
	}
	return "let it end (sluice key status), or abort it (sluice key abort)"
}

func methodList(k Kind) string {
	var out []string
	for _, m := range Methods(k) {
		out = append(out, string(m))
	}
	return strings.Join(out, ", ")
}

// Spare is the IDs of keys that wait to be used, one for each role, of an
// algorithm: published ones first, then those that were backed up, then the
// oldest. lacking is the roles that no key waits for.
func (ks KeySet) Spare(roles []Role, algorithm uint8) (spare []string, lacking []Role) {
	for _, role := range roles {
		best := -1
		for i, k := range ks.Keys {
			if k.Foreign || !k.HasRole(role) || k.Algorithm != algorithm || k.State != Generated && k.State != Published {
				continue
			}
			if ks.taken(k.ID) {
				continue
			}
			if best < 0 || k.fitter(&ks.Keys[best]) {
				best = i
			}
		}
		if best < 0 {
			lacking = append(lacking, role)
			continue
		}
		spare = append(spare, ks.Keys[best].ID)
	}
	slices.Sort(spare)
	return spare, lacking
}

// Begin is what begins a rollover: its event, and what its first step changes.
// Keys that these activate or introduce must prove themselves first.
func (ks KeySet) Begin(plan Plan, p RollPolicy, k Known) ([]event.Facts, error) {
	r := Rollover{
		Kind: plan.Kind, Method: plan.Method, Old: plan.Old, New: plan.New, Emergency: plan.Emergency, Step: 1,
	}
	started := &event.RolloverStarted{
		Kind: string(plan.Kind), Method: string(plan.Method), Old: plan.Old, New: plan.New,
		Reason: plan.Reason, Emergency: plan.Emergency,
	}
	do := append(ks.replaced(plan.Kind), started)
	unsaved := p.Backup && len(ks.Unsaved(plan.New)) > 0
	if unsaved || len(ks.Unproved(plan.New, k.Provers)) > 0 || plan.Start.After(k.Now) {
		// What is not backed up, or not proved, has it wait at its first step.
		start := k.Now
		if plan.Start.After(start) {
			start = plan.Start
		}
		started.Start = ceilUnix(start)
		return do, nil
	}
	first := r.step()
	do = append(do, first.enter(ks, &r, p)...)
	if err := ks.MayBecome(do, k); err != nil {
		return nil, conflict("cannot %s: %v", first.text, err)
	}
	return do, nil
}

// replaced ends the rollover whose place one of a kind takes.
func (ks KeySet) replaced(by Kind) (do []event.Facts) {
	for _, r := range ks.Rollovers {
		if by == RollInsecure && r.Kind == RollSecure {
			do = append(do, &event.RolloverAborted{Rollover: r.ID, Reason: "the way to no DS takes its place"})
		}
	}
	return do
}

// Due is a rollover that a policy asks for, and from when on.
type Due struct {
	Kind   Kind
	At     time.Time
	Reason string
	Auto   bool // it begins by itself
}

// Dues lists the rollovers that the age of keys asks for, now or later. One
// begins so early that the new key may sign when the old one has reached its
// age (RFC 7583, 3.2.1: Tpub <= Tact + L - Ipub), and by up to a day sooner, each
// zone at a place of its own.
func (ks KeySet) Dues(p RollPolicy, t Timing) []Due {
	var out []Due
	for _, row := range []struct {
		kind   Kind
		role   Role
		policy RolePolicy
	}{{RollKSK, KSK, p.KSK}, {RollZSK, ZSK, p.ZSK}, {RollCSK, CSK, p.CSK}} {
		if row.policy.Validity == 0 {
			continue
		}
		for _, k := range ks.InState(Active) {
			taken := slices.ContainsFunc(ks.Rollovers, func(r Rollover) bool { return slices.Contains(r.Old, k.ID) && r.Kind != RollInsecure })
			if !k.HasRole(row.role) || taken {
				continue
			}
			lead := min(t.Margin.Value+t.KeyTTL.Value, row.policy.Validity/2)
			early := t.early(row.policy.Validity)
			due := Due{
				Kind: row.kind, At: k.Activated.Add(row.policy.Validity - lead - early), Auto: row.policy.Auto.Start,
				Reason: fmt.Sprintf("key %s reaches its age of %s", k.ID, age(row.policy.Validity)),
			}
			if early > 0 {
				due.Reason += fmt.Sprintf("; %s sooner than it must, so that not all zones begin at once", early)
			}
			out = append(out, due)
			break
		}
	}
	return out
}

// age is a length of time in days where it is whole ones.
func age(d time.Duration) string {
	if day := 24 * time.Hour; d >= day && d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	return d.String()
}
