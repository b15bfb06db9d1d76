package manyzones

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Busiest is the most rollovers that began within one hour of the simulated
// clock, and Hours in how many hours any did.
func (r *Report) Busiest() (most, hours int) {
	by := map[time.Time]int{}
	for _, at := range r.Begun {
		by[at.Truncate(time.Hour)]++
	}
	for _, n := range by {
		most = max(most, n)
	}
	return most, len(by)
}

// Took is how long, by the simulated clock, a rollover took: the middle one and
// the longest.
func (r *Report) Took() (middle, longest time.Duration) {
	var all []time.Duration
	for zone, end := range r.Ended {
		all = append(all, end.Sub(r.Begun[zone]))
	}
	if len(all) == 0 {
		return 0, 0
	}
	slices.Sort(all)
	return all[len(all)/2], all[len(all)-1]
}

// Markdown writes the report as a table.
func (r *Report) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d zones of ten records, algorithm 13, KSK and ZSK, three public servers and a parent; %d of the zones have a public server\n"+
		"that takes connections and says nothing.\n\n", r.Zones, r.Silent)
	b.WriteString("| part of a run | wall s | CPU s | CPU ms a zone | RSS MiB | peak RSS MiB |\n|---|---|---|---|---|---|\n")
	for _, p := range r.Parts {
		fmt.Fprintf(&b, "| %s | %.1f | %.1f | %.1f | %d | %d |\n", p.Name, p.Wall.Seconds(), p.CPU.Seconds(),
			p.CPU.Seconds()*1000/float64(r.Zones), p.RSS>>20, p.Peak>>20)
	}
	if len(r.Begun) > 0 {
		r.rollovers(&b)
	}
	fmt.Fprintf(&b, "\nA scrape of the metrics: %.0f ms at best, %.0f ms of CPU, %d series, %d KiB.\n",
		float64(r.Scrape.Best.Microseconds())/1000, float64(r.Scrape.CPU.Microseconds())/1000, r.Scrape.Series, r.Scrape.Bytes>>10)
	return b.String()
}

func (r *Report) rollovers(b *strings.Builder) {
	most, hours := r.Busiest()
	middle, longest := r.Took()
	fmt.Fprintf(b, "\nBy the simulated clock: %d rollovers began in %d hours, at most %d in one; one took %s, the longest %s. "+
		"%d zones were held, all of them with the silent server.\n",
		len(r.Begun), hours, most, middle.Round(time.Minute), longest.Round(time.Minute), len(r.Held))
}
