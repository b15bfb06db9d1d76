package pipeline

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Coming is something that will happen to a zone by itself, at the earliest.
type Coming struct {
	At   time.Time `json:"at"`
	Text string    `json:"text"` // what, a sentence
}

// coming lists what will happen: what the decision waits for, and what ends. The
// caller holds mu.
func (r *runner) coming(st ZoneStatus, d Decision) []Coming {
	s := r.state
	out := slices.Clone(d.Later)
	if o := st.Observation; o != nil && o.NextAt != nil {
		out = append(out, Coming{*o.NextAt, "the zone's name servers and its parent are asked what they show"})
	}
	for _, w := range st.Secondaries {
		if w.Telling != nil && w.RetryAt != nil {
			out = append(out, Coming{*w.RetryAt, fmt.Sprintf("%s is told of serial %d again", w.Server, *w.Telling)})
		}
	}
	if u := st.Upstream; u != nil && u.ExpiresAt != nil {
		out = append(out, Coming{*u.ExpiresAt, "EXPIRE: what was loaded is too old, unless a server of the source answers before"})
	}
	if st.NextExpiry != nil && st.Published != nil && st.Published.Mode == ModeSign {
		out = append(out, Coming{*st.NextExpiry, "the first signature ends, unless it is made again before"})
	} else if st.NextExpiry != nil {
		out = append(out, Coming{*st.NextExpiry, "the first signature of the source ends, unless the source signs again before"})
	}
	if p, err := r.e.boundPolicy(s); err == nil && p.Mode() == ModeSign {
		for _, due := range s.Dues(p, r.moment()) {
			if !due.Auto && due.At.After(r.e.clock.Now()) {
				out = append(out, Coming{due.At, fmt.Sprintf("a rollover of %s is due, and waits for a person: %s", due.Kind, due.Reason)})
			}
		}
	}
	return inOrder(out)
}

// inOrder sorts what comes by time, and tells nothing twice.
func inOrder(all []Coming) []Coming {
	all = slices.DeleteFunc(all, func(c Coming) bool { return c.At.IsZero() || c.At.Unix() >= never })
	for i := range all {
		all[i].At = all[i].At.UTC().Truncate(time.Second)
	}
	slices.SortFunc(all, func(a, b Coming) int { return cmp.Or(a.At.Compare(b.At), strings.Compare(a.Text, b.Text)) })
	return slices.Compact(all)
}
