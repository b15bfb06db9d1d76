package cli

import (
	"strings"

	"sluice/pipeline"
)

// probeText is what validating resolvers said, in a line; "" where nobody asks.
func probeText(p *pipeline.ProbeStatus) string {
	if p == nil {
		return ""
	}
	text := p.Text
	if p.At != nil {
		text += ", " + when(*p.At)
	}
	if p.NextAt != nil {
		text += "; asked again " + when(*p.NextAt)
	}
	return text
}

// printProbe lists what each resolver answered.
func (e *env) printProbe(p *pipeline.ProbeStatus) error {
	if p == nil || len(p.Answers) == 0 {
		return nil
	}
	rows := make([][]string, 0, len(p.Answers))
	for _, a := range p.Answers {
		outcome := a.Outcome
		switch outcome {
		case pipeline.ProbeValidated:
		case pipeline.ProbeBogus:
			outcome = e.paint(red, outcome)
		default:
			outcome = e.paint(yellow, outcome)
		}
		note := strings.Join(append([]string{a.Rcode}, a.Extended...), "; ")
		if a.Error != "" {
			note = a.Error
		}
		rows = append(rows, []string{a.Resolver, a.Owner + " " + a.Type, a.Transport, outcome, note, "since " + when(a.Since)})
	}
	return e.printTable([]string{"RESOLVER", "ASKED FOR", "OVER", "OUTCOME", "ANSWER", "NOTE"}, rows)
}
