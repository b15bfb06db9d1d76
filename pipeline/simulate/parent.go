package simulate

import (
	"fmt"
	"slices"
	"time"

	"sluice/journal/event"
	"sluice/keymgr/world"
)

// parent is what reads CDS and has DS records.
type parent struct {
	next time.Time // when it reads CDS
	told time.Time // when the zone last wanted something of it

	// What it saw last, since when, and when it acts on that; zero where it does
	// not.
	seen  []string
	since time.Time
	due   time.Time
}

// parentActs reads CDS when that is due, and acts on what it read.
func (r *run) parentActs() error {
	p := &r.parent
	if !p.due.IsZero() && !r.now.Before(p.due) {
		p.due = time.Time{}
		r.setDS(p.seen, "it read CDS")
	}
	if !r.set.ReadsCDS {
		p.next = time.Time{}
		return nil
	}
	for !r.now.Before(p.next) {
		p.next = p.next.Add(r.set.ParentInterval)
		r.readCDS()
	}
	return nil
}

// readCDS is one look of the parent at the zone's servers: all must show the
// same (RFC 7344, 6.1), the first of all for a while (RFC 8078, 3.3).
func (r *run) readCDS() {
	p := &r.parent
	var want []string
	for i := range r.set.Servers {
		v := r.versions[r.world.Shown(i)]
		if !r.world.Down(i).IsZero() || i > 0 && !slices.Equal(v.cds, want) {
			p.since = time.Time{}
			return
		}
		want = v.cds
	}
	have := r.sets[r.world.NewestDS()]
	if slices.Equal(want, []string{event.CDSDelete}) {
		want = []string{}
	}
	if want == nil || slices.Equal(want, have) {
		p.since = time.Time{}
		return
	}
	if p.since.IsZero() || !slices.Equal(p.seen, want) {
		p.seen, p.since = want, r.now
	}
	if len(have) > 0 || r.now.Sub(p.since) >= r.set.Bootstrap {
		p.due = r.now.Add(r.set.ParentDelay)
	}
}

// setDS gives the parent another DS RRset.
func (r *run) setDS(want []string, why string) {
	if slices.Equal(want, r.sets[r.world.NewestDS()]) {
		return
	}
	r.sets = append(r.sets, want)
	r.world.SetDS(world.DSSet{Keys: r.keys(want), TTL: r.set.DSTTL}, func(i int) world.Lag {
		return world.Lag{Shown: r.set.Propagation * time.Duration(i) / time.Duration(r.set.Parents), Late: r.set.Late}
	})
	r.world.Pass(r.now)
	r.lives.ds(want, r.now)
	text := "the parent has no DS any more"
	if len(want) > 0 {
		text = "the parent has the DS of " + r.lives.list(want)
	}
	r.out.add(Line{
		Time: r.now, Kind: KindWorld, Text: text, Why: why,
		Next: fmt.Sprintf("caches may hold the DS RRset from before for its TTL of %s", r.set.DSTTL),
	})
}
