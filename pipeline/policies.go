package pipeline

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"sluice/journal"
	"sluice/journal/event"
)

// Policies lists the loaded policies by name, and the zones that they rule.
func (e *Engine) Policies(context.Context) ([]PolicyInfo, error) {
	e.mu.RLock()
	names := slices.Sorted(maps.Keys(e.policies))
	e.mu.RUnlock()
	out := make([]PolicyInfo, 0, len(names))
	for _, name := range names {
		if info, ok := e.policyInfo(name); ok {
			info.Text = ""
			out = append(out, info)
		}
	}
	return out, nil
}

// Policy tells one policy, with its text.
func (e *Engine) Policy(_ context.Context, name string) (PolicyInfo, error) {
	info, ok := e.policyInfo(name)
	if !ok {
		return PolicyInfo{}, fmt.Errorf("policy %q: %w", name, ErrNotFound)
	}
	return info, nil
}

func (e *Engine) policyInfo(name string) (PolicyInfo, bool) {
	p, ok := e.policy(name)
	if !ok {
		return PolicyInfo{}, false
	}
	info := PolicyInfo{Name: name, SHA256: hex.EncodeToString(p.SHA256[:]), Text: string(p.Text), Zones: []string{}}
	for _, s := range e.states() {
		if s.Policy.Name != name {
			continue
		}
		info.Zones = append(info.Zones, s.Name)
		if s.Policy.SHA256 != p.SHA256 {
			info.Stale = append(info.Stale, s.Name)
		}
	}
	return info, true
}

// usablePolicy is the policy that a zone may be bound to. Errors: ErrNotFound,
// and ErrState where its file has a fault.
func (e *Engine) usablePolicy(name string) (Policy, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if p, ok := e.policies[name]; ok {
		return p, nil
	}
	for _, at := range []string{name, ""} {
		if fault := e.faults[at]; fault != nil {
			return Policy{}, fmt.Errorf("policy %q is not loaded: %w: %w", name, ErrState, fault)
		}
	}
	if name == CatalogPolicy {
		return catalogPolicy()
	}
	return Policy{}, fmt.Errorf("policy %q: %w", name, ErrNotFound)
}

// policyFault is what is wrong with the file of a policy, or nil.
func (e *Engine) policyFault(name string) error {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.faults[name]
}

// Alarms says what an operator must see to although all zones work, one line
// each.
func (e *Engine) Alarms() []string {
	alarms := e.processAlarms()
	if text := e.missingKeysAlarm(); text != "" {
		alarms = append(alarms, text)
	}
	alarms = append(alarms, slices.Sorted(slices.Values(e.overdueAlarms()))...)
	return append(alarms, e.policyAlarms()...)
}

// countAlarms is how many Alarms are, where it is known how the zones are.
func (e *Engine) countAlarms(zones []ZoneMeasure) int {
	n, missing := len(e.processAlarms())+len(e.policyAlarms()), 0
	for i := range zones {
		for _, notice := range zones[i].Notices {
			switch {
			case notice.Code == NoticeKeysMissing:
				missing = 1 // all in one line
			case notice.Code == NoticeExpiryNear && notice.Severity == severityAlarm:
				n++
			}
		}
	}
	return n + missing
}

// processAlarms are those that are about no zone.
func (e *Engine) processAlarms() []string {
	var alarms []string
	if e.lost != "" {
		alarms = append(alarms, e.lost)
	}
	if doubt := e.watch.check(); doubt != nil {
		alarms = append(alarms, clockAlarm(*doubt)+"; "+ClockHint)
	}
	if e.cfg.Reserve != nil {
		if text := e.cfg.Reserve.status().alarm(); text != "" {
			alarms = append(alarms, text)
		}
	}
	if e.cfg.Certificates != nil {
		alarms = append(alarms, e.cfg.Certificates()...)
	}
	return append(alarms, e.keystoreAlarms()...)
}

// policyAlarms are those about the policies' files.
func (e *Engine) policyAlarms() []string {
	var alarms []string
	e.mu.RLock()
	defer e.mu.RUnlock()
	for _, name := range slices.Sorted(maps.Keys(e.faults)) {
		alarms = append(alarms, "policy file not loaded: "+e.faults[name].Error())
	}
	return alarms
}

// faultsByPolicy sorts what LoadDir found wrong by policy; "" takes what is
// wrong with the folder.
func faultsByPolicy(faults []error) map[string]error {
	by := map[string]error{}
	for _, err := range faults {
		if fault, ok := errors.AsType[*PolicyFault](err); ok {
			by[fault.Policy] = fault.Err
		} else {
			by[""] = err
		}
	}
	return by
}

// addDefault adds the built-in policy where nothing else is called "default".
// Where a file with a fault is, or may be, its zones must not silently be
// ruled by another text.
func addDefault(policies map[string]Policy, faults map[string]error) {
	if _, ok := policies["default"]; !ok && faults["default"] == nil && faults[""] == nil {
		policies["default"] = Default()
	}
}

// states lists the zones that live, by name.
func (e *Engine) states() []State {
	e.mu.RLock()
	names := slices.Sorted(maps.Keys(e.names))
	all := make([]*runner, 0, len(names))
	for _, name := range names {
		all = append(all, e.runners[e.names[name]])
	}
	e.mu.RUnlock()
	out := make([]State, 0, len(all))
	for _, r := range all {
		out = append(out, r.snapshot())
	}
	return out
}

// eachState goes through the zones that live, in no order. What is done again and
// again does it so: with many zones sorting them, and holding them all, is work.
func (e *Engine) eachState() iter.Seq[State] {
	return func(yield func(State) bool) {
		e.mu.RLock()
		all := make([]*runner, 0, len(e.names))
		for _, id := range e.names {
			all = append(all, e.runners[id])
		}
		e.mu.RUnlock()
		for _, r := range all {
			if !yield(r.snapshot()) {
				return
			}
		}
	}
}

// ReloadPolicies reads the policy folder again. Zones of a changed policy are
// bound to its new text, each by an event. A file with an error changes
// nothing; a policy that zones use stays when its file is gone.
func (e *Engine) ReloadPolicies(ctx context.Context, actor event.Actor) (PolicyChange, error) {
	if err := e.hasPolicyDir(); err != nil {
		return PolicyChange{}, err
	}
	e.policing.Lock()
	defer e.policing.Unlock()
	read, faults := LoadDir(e.cfg.PolicyDir)
	byPolicy := faultsByPolicy(faults)
	addDefault(read, byPolicy)
	e.mu.Lock()
	e.faults = byPolicy
	e.mu.Unlock()
	change := PolicyChange{}
	for _, err := range faults {
		change.Errors = append(change.Errors, err.Error())
	}
	e.takePolicies(read, len(faults) > 0, &change)
	for _, s := range e.states() {
		p, ok := e.policy(s.Policy.Name)
		if !ok || s.Policy.SHA256 == p.SHA256 {
			continue
		}
		if err := e.mayTurn(ctx, s, p); err != nil {
			change.Errors = append(change.Errors, "zone "+s.Name+" keeps the text that it is bound to: "+err.Error())
			continue
		}
		if err := e.rebind(ctx, actor, s.Zone, p, ""); err != nil {
			return change, err
		}
		change.Rebound = append(change.Rebound, s.Name)
	}
	e.catalogs.poke() // members may wait for a policy
	return change, nil
}

// takePolicies replaces the loaded policies and notes what changed. With
// faults, a policy whose file was not read stays as it is.
func (e *Engine) takePolicies(read map[string]Policy, faults bool, change *PolicyChange) {
	used := map[string]bool{"default": true}
	for _, s := range e.states() {
		used[s.Policy.Name] = true
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(e.policies)) {
		if _, ok := read[name]; ok {
			continue
		}
		if faults || used[name] {
			change.Unchanged = append(change.Unchanged, name)
			continue
		}
		delete(e.policies, name)
		change.Removed = append(change.Removed, name)
	}
	for _, name := range slices.Sorted(maps.Keys(read)) {
		p := read[name]
		old, ok := e.policies[name]
		switch {
		case !ok:
			change.Added = append(change.Added, name)
		case old.SHA256 == p.SHA256:
			change.Unchanged = append(change.Unchanged, name)
			continue
		default:
			change.Updated = append(change.Updated, name)
			change.Diffs = append(change.Diffs, lineDiff(name, string(old.Text), string(p.Text)))
		}
		e.policies[name] = p
	}
	slices.Sort(change.Unchanged)
}

// rebind binds a zone to the present text of its policy.
func (e *Engine) rebind(ctx context.Context, actor event.Actor, id event.ZoneID, p Policy, reason string) error {
	e.mu.RLock()
	r := e.runners[id]
	e.mu.RUnlock()
	for {
		s := r.snapshot()
		if s.Removed != 0 || s.Policy.Name != p.Name || s.Policy.SHA256 == p.SHA256 {
			return nil
		}
		head, err := e.append(ctx, id, s.Head, 0, actor, &event.PolicyBound{
			Zone: s.Name, Source: s.Source, Policy: p.Name, SHA256: p.SHA256,
			Text: string(p.Text), SerialFloor: s.SerialFloor, Reason: reason,
		})
		if err == nil {
			return r.await(ctx, func(now State) bool { return now.Head.Seq >= head.Seq })
		}
		if !errors.Is(err, journal.ErrConflict) {
			return err
		}
		if err := r.await(ctx, func(now State) bool { return now.Head.Seq > s.Head.Seq }); err != nil {
			return err
		}
	}
}

// lineDiff shows the lines that two texts do not share, in order.
func lineDiff(name, old, now string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "policy %s\n", name)
	a, c := strings.Split(old, "\n"), strings.Split(now, "\n")
	for len(a) > 0 || len(c) > 0 {
		switch {
		case len(a) > 0 && len(c) > 0 && a[0] == c[0]:
			a, c = a[1:], c[1:]
		case len(a) > 0 && !slices.Contains(c, a[0]):
			b.WriteString("- " + a[0] + "\n")
			a = a[1:]
		case len(c) > 0:
			b.WriteString("+ " + c[0] + "\n")
			c = c[1:]
		default:
			b.WriteString("- " + a[0] + "\n")
			a = a[1:]
		}
	}
	return b.String()
}
