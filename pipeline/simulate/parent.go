package simulate

import (
	"fmt"
	"slices"
	"time"

	"sluice/journal/event"
	"sluice/keymgr/world"
	"sluice/pipeline"
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
	// silent is since when the server was silent that last kept it from reading.
	silent time.Time
	why    string
}

// runHook runs a hook on paper: the parent follows it where hooks tell it.
func (r *run) runHook(c pipeline.RunParentHook) ([]event.Facts, error) {
	if r.set.HooksTell {
		r.follow("a hook told it")
	}
	return []event.Facts{&event.HookRan{
		Request: c.Request, Event: c.Event, Number: uint64(c.Number), Hook: event.HookOutcome{Command: c.Command}, //nolint:gosec // from 1
	}}, nil
}

// notifyParent has a parent that reads CDS read it now.
func (r *run) notifyParent(c pipeline.NotifyParent) ([]event.Facts, error) {
	if r.set.ReadsCDS {
		r.parent.next = r.now.Add(time.Second)
	}
	return []event.Facts{&event.DSNotified{Request: c.Request, Target: parentName(0), Server: parentName(0), Rcode: "NOERROR", Validated: true}}, nil
}

// follow has the parent take up what the zone wants of it.
func (r *run) follow(why string) {
	p := &r.parent
	p.seen, p.since, p.due, p.why = slices.Clone(r.state.Keys.DS.Wanted), r.now, r.now.Add(r.set.ParentDelay), why
}

// parentActs reads CDS when that is due, and acts on what it read.
func (r *run) parentActs() error {
	p := &r.parent
	if !p.due.IsZero() && !r.now.Before(p.due) {
		p.due = time.Time{}
		r.setDS(p.seen, p.why)
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
		if since := r.world.Down(i); !since.IsZero() {
			r.cannotRead(i, since)
			p.since = time.Time{}
			return
		}
		if i > 0 && !slices.Equal(v.cds, want) {
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
		p.due, p.why = r.now.Add(r.set.ParentDelay), "it read CDS"
	}
}

// cannotRead tells, once an outage, that a silent server keeps the parent from
// reading what it is to have.
func (r *run) cannotRead(server int, since time.Time) {
	ds := r.state.Keys.DS
	if !ds.CDS || since.Equal(r.parent.silent) || slices.Equal(ds.Wanted, r.sets[r.world.NewestDS()]) {
		return
	}
	r.parent.silent = since
	r.out.add(Line{
		Time: r.now, Kind: KindHeld, Text: "the parent does not follow CDS: " + serverName(server) + " gives it no answer",
		Why: "all servers must show the same CDS", Next: "it reads CDS again " + rfc(r.parent.next),
	})
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
