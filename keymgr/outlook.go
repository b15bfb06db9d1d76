package keymgr

import (
	"fmt"
	"time"
)

// Outlook tells in a sentence how a rollover goes on: what it waits for, and
// what comes then. It follows from the rollover's events alone.
func (r Rollover) Outlook() string {
	all := r.steps()
	if len(all) == 0 {
		return ""
	}
	if r.Step == 0 {
		return fmt.Sprintf("step 1 of %d, %s, at %s", len(all), all[0].text, r.Start.UTC().Format(time.RFC3339))
	}
	then := "it is done"
	if n := min(r.Step, len(all)); n < len(all) {
		then = fmt.Sprintf("step %d of %d, %s", n+1, len(all), all[n].text)
	}
	if needs := r.Needs(); len(needs) > 0 {
		text := then + ", once " + sightText(needs)
		if r.step().wait != nil {
			text += " and what caches hold has run out"
		}
		return text
	}
	if r.Wait != nil {
		return then + ", not before " + time.Unix(r.Wait.Earliest, 0).UTC().Format(time.RFC3339)
	}
	return then
}
