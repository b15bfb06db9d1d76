package keymgr

import (
	"slices"
	"strings"
	"time"

	"sluice/journal/event"
)

// AheadStep is a step of a rollover that has not begun.
type AheadStep struct {
	Step     int
	Name     string
	Text     string
	Earliest time.Time   // it begins no earlier
	After    string      // what must be so before, a sentence
	Wait     *event.Wait // what has to pass before; nil where nothing has to
	See      []Sight     // what the step waits for once it has begun
	Person   bool        // it waits for a person
}

// Ahead lists the steps to come, with the earliest time of each: what has to be
// seen may take longer.
func (r Rollover) Ahead(p RollPolicy, k Known) []AheadStep {
	all := r.steps()
	auto := r.automatic(p)
	if r.Emergency {
		k.Timing.Signing = Term{}
	}
	var out []AheadStep
	from := k.Now
	if r.Start.After(from) {
		from = r.Start
	}
	for i := r.Step; i >= 0 && i < len(all); i++ {
		cur, next := step{}, all[i]
		if i > 0 {
			cur = all[i-1]
		}
		a := AheadStep{Step: i + 1, Name: next.name, Text: next.text, See: next.see, Earliest: from}
		if i == r.Step && r.Wait != nil {
			a.Wait = r.Wait
		} else if cur.wait != nil {
			a.Wait = k.Timing.since(cur.wait(k.Timing), from)
		}
		if a.Wait != nil {
			if at := time.Unix(a.Wait.Earliest, 0).UTC(); at.After(a.Earliest) {
				a.Earliest = at
			}
		}
		if len(cur.see) > 0 && (i > r.Step || r.Seen.IsZero()) {
			a.After = sightText(cur.see)
		}
		a.Person = next.last() && !auto.Done || !next.last() && !auto.Expire || !auto.Report && len(cur.see) > 0 && (i > r.Step || r.Seen.IsZero())
		from = a.Earliest
		out = append(out, a)
	}
	return out
}

func sightText(sights []Sight) string {
	var parts []string
	for _, s := range sights {
		switch s {
		case SeeKeys:
			parts = append(parts, "the DNSKEY RRset is seen at all servers of the zone")
		case SeeSigs:
			parts = append(parts, "the signatures are seen there")
		case SeeDS:
			parts = append(parts, "the DS is seen at all servers of the parent")
		case SeeDSGone:
			parts = append(parts, "the old DS is gone from all servers of the parent")
		case ReportNext:
		}
	}
	return strings.Join(parts, " and ")
}

// Needs is what the rollover still waits to see; empty where that is seen.
func (r Rollover) Needs() []Sight {
	if !r.Seen.IsZero() {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(r.step().see), func(s Sight) bool { return slices.Contains(r.Reported, s) })
}

// Concerns reports whether a key takes part.
func (r Rollover) Concerns(id string) bool { return r.concerns([]string{id}) }
