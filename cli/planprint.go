package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"

	"sluice/cli/fleet"
	"sluice/pipeline"
)

// maxShown is how many changes of a kind are printed for people; --json has all.
const maxShown = 100

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// together is the meter's show for callers that work at the same time.
func (m *meter) together() func(pipeline.Progress) {
	var mu sync.Mutex
	return func(p pipeline.Progress) {
		mu.Lock()
		defer mu.Unlock()
		m.show(p)
	}
}

// sign is how a change begins its line.
func (e *env) sign(action string) string {
	switch action {
	case fleet.Add:
		return e.paint(green, "+")
	case fleet.Remove:
		return e.paint(red, "-")
	}
	return e.paint(yellow, "~")
}

// printFleetPlan tells people what a plan does.
func (e *env) printFleetPlan(plan fleet.Plan) error {
	var b strings.Builder
	for _, p := range plan.Policies {
		e.writePolicyChange(&b, p)
	}
	shown := map[string]int{}
	for _, z := range plan.Zones {
		if shown[z.Action]++; shown[z.Action] <= maxShown || z.Refused != "" {
			e.writeZoneChange(&b, z)
		}
	}
	for _, action := range []string{fleet.Add, fleet.Change, fleet.Remove} {
		if n := shown[action]; n > maxShown {
			fmt.Fprintf(&b, "%s and %d more to %s, which --json lists\n", e.sign(action), n-maxShown, action)
		}
	}
	for i, d := range plan.Drift {
		if i == maxShown {
			fmt.Fprintf(&b, "! and %d more differences, which --json lists\n", len(plan.Drift)-maxShown)
			break
		}
		what := "zone " + d.Zone
		if d.Zone == "" {
			what = "policy " + d.Policy
		}
		fmt.Fprintf(&b, "%s %s: %s\n", e.paint(yellow, "!"), what, d.Text)
		writeBound(&b, d.Bound, d.ByHand)
	}
	s := plan.Summary
	fmt.Fprintf(&b, "%d to add, %d to change, %d to remove", s.Add, s.Change, s.Remove)
	if s.Policies > 0 {
		fmt.Fprintf(&b, ", and %s", policyCount(s.Policies))
	}
	fmt.Fprintf(&b, "; %d unchanged", s.Unchanged)
	if s.Drift > 0 {
		fmt.Fprintf(&b, "; %s left as they are", count(uint64(s.Drift), "difference"))
	}
	if s.Catalogs > 0 {
		fmt.Fprintf(&b, "; %d left to catalogs", s.Catalogs)
	}
	if s.Refused > 0 {
		fmt.Fprintf(&b, "; %s", e.paint(red, fmt.Sprintf("%d refused", s.Refused)))
	}
	b.WriteString("\n")
	return e.printf("%s", b.String())
}

func (e *env) writePolicyChange(b *strings.Builder, p fleet.PolicyChange) {
	fmt.Fprintf(b, "%s policy %s", e.sign(p.Action), p.Policy)
	if len(p.Zones) > 0 {
		fmt.Fprintf(b, ", which rules %s", count(uint64(len(p.Zones)), "zone"))
	}
	b.WriteString("\n")
	for line := range strings.Lines(p.Diff) {
		if strings.HasPrefix(line, "+ ") || strings.HasPrefix(line, "- ") {
			b.WriteString("      " + strings.TrimRight(line, "\n") + "\n")
		}
	}
	for _, effect := range p.Effects {
		fmt.Fprintf(b, "    %s: %s\n", someNames(effect.Zones), effect.Text)
	}
	for _, text := range p.Notices {
		fmt.Fprintf(b, "    notice: %s\n", text)
	}
	e.writeRefused(b, p.Refused)
}

func (e *env) writeZoneChange(b *strings.Builder, z fleet.ZoneChange) {
	fmt.Fprintf(b, "%s zone %s", e.sign(z.Action), z.Zone)
	if z.Action == fleet.Add {
		fmt.Fprintf(b, ": source %s, policy %s", z.Source, z.Policy)
		if len(z.Keys) > 0 {
			fmt.Fprintf(b, ", with %s: %s", count(uint64(len(z.Keys)), "key"), strings.Join(z.Keys, ", "))
		}
	}
	b.WriteString("\n")
	for _, text := range z.Changes {
		fmt.Fprintf(b, "    %s\n", text)
	}
	writeBound(b, z.Bound, z.ByHand)
	e.writeRefused(b, z.Refused)
}

// writeBound tells who changed a zone last.
func writeBound(b *strings.Builder, bound *pipeline.ZoneBinding, byHand bool) {
	if bound == nil {
		return
	}
	how := ""
	if byHand {
		how = " by hand"
	}
	fmt.Fprintf(b, "    changed last%s: by %s (%s), %s", how, bound.Actor, bound.Door, when(bound.Time))
	if bound.Reason != "" {
		fmt.Fprintf(b, ": %s", bound.Reason)
	}
	b.WriteString("\n")
}

func (e *env) writeRefused(b *strings.Builder, text string) {
	if text != "" {
		fmt.Fprintf(b, "    %s\n", e.paint(red, "refused: "+text))
	}
}

// printFleetReport tells people what became of a plan.
func (e *env) printFleetReport(plan fleet.Plan, report fleet.Report) error {
	if plan.Empty() {
		return e.printf("nothing to do; %d unchanged\n", plan.Summary.Unchanged)
	}
	var b strings.Builder
	shown := 0
	tell := func(kind, name string, out fleet.Outcome) {
		if out.Outcome == "" {
			return // the daemon went away before
		}
		if shown++; shown > maxShown && out.Outcome == fleet.Done {
			return
		}
		color, text := green, out.Outcome
		if out.Outcome != fleet.Done {
			color = red
		}
		fmt.Fprintf(&b, "%s %s %s: %s", e.sign(out.Action), kind, name, e.paint(color, text))
		if out.Text != "" {
			fmt.Fprintf(&b, ": %s", out.Text)
		}
		b.WriteString("\n")
	}
	for _, out := range report.Policies {
		tell("policy", out.Policy, out)
	}
	for _, out := range report.Zones {
		tell("zone", out.Zone, out)
	}
	if shown > maxShown {
		fmt.Fprintf(&b, "of %d changes, those that were done are shown up to %d; --json lists all\n", shown, maxShown)
	}
	fmt.Fprintf(&b, "%d done, %d failed, %d refused; %d unchanged\n", report.Done, report.Failed, report.Refused, plan.Summary.Unchanged)
	return e.printf("%s", b.String())
}
