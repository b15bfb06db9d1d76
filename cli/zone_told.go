package cli

import (
	"strings"

	"sluice/pipeline"
)

// printTold prints what became of telling the parent.
func (e *env) printTold(t *pipeline.ToldStatus) error {
	if t == nil {
		return nil
	}
	what := "DS records that it is to have"
	if t.Event == "ds-gone" {
		what = "removal of all DS records"
	}
	head := "the parent is told of the " + what + " since " + when(t.Since)
	if t.Settled {
		head += "; it has what it is to have"
	}
	var lines []string
	if t.ByCDS {
		lines = append(lines, "by CDS and CDNSKEY in the zone")
	}
	for _, w := range t.Ways {
		text := w.Text
		if !w.At.IsZero() {
			text += ", " + when(w.At)
		}
		if w.RetryAt != nil {
			text += "; again " + when(*w.RetryAt)
		}
		lines = append(lines, text)
	}
	if len(lines) == 0 {
		lines = append(lines, "by hand: sluice key ds prints what")
	}
	return e.printf("\n%s\n  %s\n", head, strings.Join(lines, "\n  "))
}
