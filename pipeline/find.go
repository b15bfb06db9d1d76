package pipeline

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// ZoneQuery selects zones; the zero value selects all.
type ZoneQuery struct {
	// After leaves out zones whose names do not come after it.
	After string
	// Limit is at most how many; 0 is all.
	Limit int
	// State is a state, or one of the parts of it between commas.
	State  string
	Policy string
	// Severity leaves out zones without a notice that is at least so severe.
	Severity string
}

// FindZones lists zones by name. Errors: ErrInvalid.
func (e *Engine) FindZones(_ context.Context, q ZoneQuery) ([]ZoneSummary, error) {
	least := slices.Index(severities(), q.Severity)
	if q.Severity != "" && least < 0 {
		return nil, fmt.Errorf("%w: severity %q: want one of %s", ErrInvalid, q.Severity, strings.Join(severities(), ", "))
	}
	out := []ZoneSummary{}
	for _, r := range e.runnersAfter(q.After) {
		if q.Policy != "" && policyName(r.snapshot()) != q.Policy {
			continue
		}
		z := r.summary()
		if q.State != "" && z.State != q.State && !slices.Contains(strings.Split(z.State, ", "), q.State) ||
			least >= 0 && !slices.ContainsFunc(z.Notices, func(n Notice) bool { return slices.Index(severities(), n.Severity) >= least }) {
			continue
		}
		if out = append(out, z); len(out) == q.Limit {
			break
		}
	}
	return out, nil
}

// ZoneStates are the words that the state of a zone is made of. A state is one of
// them, or several with commas between.
func ZoneStates() []string {
	return []string{
		"new", "loading", "signing", "verifying", "working", "published", "input failed", "signing failed",
		"failed", "in review", "held", "halted", "expired",
	}
}

// severities are the severities of notices, the least first.
func severities() []string { return []string{severityInfo, severityWarning, severityAlarm} }

// policyName is the name of the policy that a zone is bound to.
func policyName(s State) string {
	if s.Policy.Name == "" {
		return s.Added.Facts.Policy
	}
	return s.Policy.Name
}

// runnersAfter are the zones whose names come after name, in their order.
func (e *Engine) runnersAfter(name string) []*runner {
	e.mu.RLock()
	defer e.mu.RUnlock()
	names := make([]string, 0, len(e.names))
	for n := range e.names {
		if n > name {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	out := make([]*runner, 0, len(names))
	for _, n := range names {
		out = append(out, e.runners[e.names[n]])
	}
	return out
}

// NextSeq is the sequence of the next event.
func (e *Engine) NextSeq(ctx context.Context) (uint64, error) {
	_, last, err := e.journal.Stream(ctx)
	return last + 1, err
}
