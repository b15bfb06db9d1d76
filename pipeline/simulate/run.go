package simulate

import (
	"context"
	"fmt"
	"slices"
	"time"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/keymgr/world"
	"sluice/pipeline"
)

// run is one rehearsal. What happens at one moment is settled before time
// goes on.
type run struct {
	set   Setting
	now   time.Time
	world *world.World

	state  pipeline.State
	seq    uint64
	n      uint64
	lanes  map[pipeline.Lane]pipeline.LaneState
	wakeAt time.Time // when the zone decides again by itself
	lookAt time.Time // when a rollover wants to see something
	sights pipeline.Sightings
	sigs   signatures

	// What stands behind the world's versions and DS sets, by their numbers.
	versions []published
	sets     [][]string // IDs of keys

	parent parent
	people people
	rolls  []Roll // that are to come
	// numbers are those of rollovers by their IDs.
	numbers map[uint64]uint64
	edges   []edge // of failures, that are to come

	out     timeline
	lives   lives
	holds   []hold
	summary Summary
}

// published is a version of the zone.
type published struct {
	serial  uint32
	keys    []string
	signers []string // of the SOA
	cds     []string
	madeBy  []string // all signers
}

// edge is when a failure begins or ends.
type edge struct {
	at time.Time
	Failure
}

// Run rehearses a setting. fn gets each line of the timeline as it is known,
// oldest first; its error ends the rehearsal, as the end of ctx does. The same
// setting always gives the same.
func Run(ctx context.Context, s Setting, fn func(Line) error) (Summary, error) {
	if err := s.Check(); err != nil {
		return Summary{}, err
	}
	r := newRun(s, fn)
	for {
		if err := ctx.Err(); err != nil {
			return r.summary, err
		}
		if err := r.moment(); err != nil {
			return r.summary, fmt.Errorf("at %s: %w", rfc(r.now), err)
		}
		next := r.next()
		if next.IsZero() || next.After(s.Until) {
			break
		}
		r.now = next
		r.world.Pass(next)
	}
	r.now = s.Until
	r.world.Pass(s.Until)
	return r.end()
}

func newRun(s Setting, fn func(Line) error) *run {
	s.From, s.Until = s.From.UTC().Truncate(time.Second), s.Until.UTC().Truncate(time.Second)
	r := &run{
		set: s, now: s.From, numbers: map[uint64]uint64{}, lanes: map[pipeline.Lane]pipeline.LaneState{},
		versions: []published{{}}, sets: [][]string{nil},
		out: timeline{fn: fn}, summary: Summary{From: s.From, Until: s.Until},
	}
	r.lives.names = map[string]string{}
	r.world = world.New(s.From, s.Servers, s.Parents, world.Version{KeyTTL: s.ZoneTTL, SigTTL: s.ZoneTTL}, world.DSSet{TTL: s.DSTTL})
	for _, f := range s.Failures {
		i, ofParent, _ := s.server(f.Server)
		if ofParent {
			r.world.FailParent(i, world.Outage{From: f.From, Until: f.Until})
		} else {
			r.world.Fail(i, world.Outage{From: f.From, Until: f.Until, Expire: s.Expire})
		}
		r.edges = append(r.edges, edge{f.From, f}, edge{f.Until, f})
	}
	slices.SortStableFunc(r.edges, func(a, b edge) int { return a.at.Compare(b.at) })
	r.rolls = slices.SortedStableFunc(slices.Values(s.Rolls), func(a, b Roll) int { return a.At.Compare(b.At) })
	r.sigs = newSignatures(s.RRsets)
	r.parent.next = s.From.Add(s.ParentInterval)
	r.seq = 1
	r.state = pipeline.NewState(pipeline.Registered{
		Seq: r.seq, Time: s.From, Actor: event.Program,
		Facts: event.ZoneAdded{Name: s.Zone, ID: "0000000000000001", Source: "/zone", Policy: s.Policy.Name},
	})
	r.sights.First(r.state.Zone, 1, s.From, s.Policy.ObservationInterval())
	return r
}

// moment does all that is to be done now.
func (r *run) moment() error {
	r.outages()
	r.arrivals()
	if err := r.asked(); err != nil {
		return err
	}
	if err := r.parentActs(); err != nil {
		return err
	}
	if err := r.peopleAct(); err != nil {
		return err
	}
	if err := r.settle(); err != nil {
		return err
	}
	for r.lookIsDue() {
		if err := r.look(); err != nil {
			return err
		}
		if err := r.settle(); err != nil {
			return err
		}
	}
	r.checkCaches()
	r.watchHolds()
	r.watchPeople()
	r.whatNext()
	return r.out.flush()
}

// next is when something happens again.
func (r *run) next() time.Time {
	var next time.Time
	sooner := func(at time.Time) {
		if !at.IsZero() && at.After(r.now) && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	sooner(r.wakeAt)
	sooner(r.world.Next())
	sooner(r.parent.next)
	sooner(r.parent.due)
	sooner(r.people.next())
	if r.looks() {
		sooner(r.sights.Due(r.lookAt))
	}
	if len(r.rolls) > 0 {
		sooner(r.rolls[0].At)
	}
	if len(r.edges) > 0 {
		sooner(r.edges[0].at)
	}
	if next.Nanosecond() > 0 {
		next = next.Truncate(time.Second).Add(time.Second)
	}
	return next
}

// view is what a decision sees now.
func (r *run) view() pipeline.Moment {
	m := pipeline.Moment{Now: r.now, Sights: pipeline.Sights{
		Observation: r.sights.Last(), Refresh: r.set.Refresh, Retry: r.set.Retry, Expire: r.set.Expire,
	}}
	for lane, s := range r.lanes {
		m.Lanes[lane] = s
	}
	return m
}

// mostCommands bounds what is done at one moment: more is a fault.
const mostCommands = 1000

// settle does what the zone needs until it needs nothing more now.
func (r *run) settle() error {
	for range mostCommands {
		d := pipeline.Decide(r.state, r.set.Policy, r.view())
		r.wakeAt, r.lookAt = d.WakeAt, d.LookAt
		if len(d.Commands) == 0 {
			return nil
		}
		c := d.Commands[0]
		facts, err := r.do(c)
		if err != nil {
			return fmt.Errorf("%T: %w", c, err)
		}
		if len(facts) == 0 {
			return fmt.Errorf("%T records nothing", c)
		}
		r.record(event.Program, facts...)
	}
	return fmt.Errorf("more than %d commands at once", mostCommands)
}

// record folds facts as the journal would hold them.
func (r *run) record(actor event.Actor, facts ...event.Facts) {
	for _, f := range facts {
		r.seq, r.n = r.seq+1, r.n+1
		ev := event.Event{
			Version: 1, Type: f.EventType(), Time: r.now, Zone: r.state.Zone, Actor: actor, N: r.n, Facts: f,
		}
		before := r.state
		r.state = pipeline.Evolve(r.state, journal.Record{Seq: r.seq, Event: ev}, "")
		r.lives.name(f)
		r.tell(before, ev)
		r.lives.note(r.state.Keys.Keys, r.now)
		r.folded(ev)
	}
}

// folded lets the world follow an event.
func (r *run) folded(ev event.Event) {
	switch f := ev.Facts.(type) {
	case *event.InstancePublished:
		r.publish()
	case *event.RolloverStarted:
		rolled := Rolled{ID: r.number(ev.N), Kind: keymgr.Kind(f.Kind), Method: keymgr.Method(f.Method), From: r.now}
		if ro, ok := r.state.Keys.Rollover(ev.N); ok && ro.Step == 1 {
			rolled.Steps = append(rolled.Steps, StepBegun{Step: 1, Name: ro.StepName(), At: r.now})
		}
		r.summary.Rollovers = append(r.summary.Rollovers, rolled)
	case *event.RolloverAdvanced:
		r.steps(f)
	case *event.RolloverCompleted:
		r.rolled(f.Rollover).Until = new(r.now)
	case *event.RolloverAborted:
		if f.Step == 0 { // else it goes the way back
			r.rolled(f.Rollover).Aborted = new(r.now)
		}
	case *event.DSSubmitted, *event.DSWithdrawn:
		r.parent.told = r.now
		r.people.submit = time.Time{}
	}
}

// number is that of a rollover: in the order in which they came. It gives a
// new one the next.
func (r *run) number(id uint64) uint64 {
	if _, ok := r.numbers[id]; !ok {
		r.numbers[id] = uint64(len(r.numbers) + 1)
	}
	return r.numbers[id]
}

// rolled finds a rollover in the summary.
func (r *run) rolled(id uint64) *Rolled { return &r.summary.Rollovers[r.number(id)-1] }

// steps notes that a step began.
func (r *run) steps(f *event.RolloverAdvanced) {
	ro := r.rolled(f.Rollover)
	if n := len(ro.Steps); n == 0 || ro.Steps[n-1].Step != int(f.Step) { //nolint:gosec // small
		ro.Steps = append(ro.Steps, StepBegun{Step: int(f.Step), Name: f.Name, At: r.now}) //nolint:gosec // small
	}
}

// publish hands the newest version to the public servers.
func (r *run) publish() {
	f := r.state.Published.Signed.Facts
	var mixed [][]world.Key
	for _, by := range f.SignedBy {
		mixed = append(mixed, r.keys(by.Keys))
	}
	v := published{serial: f.Serial, keys: f.Keys, signers: r.signing(f.Signers, (*keymgr.Key).SignsZone), cds: f.CDS, madeBy: f.Signers}
	r.versions = append(r.versions, v)
	r.world.Publish(world.Version{
		Published: r.keys(f.Keys), Signers: r.keys(f.Signers), Mixed: mixed, Serial: f.Serial,
		KeyTTL: time.Duration(r.set.Policy.DNSKEYTTL()) * time.Second, SigTTL: max(r.set.ZoneTTL, time.Duration(r.set.Policy.DNSKEYTTL())*time.Second),
	}, func(i int) world.Lag {
		return world.Lag{Shown: r.set.Propagation * time.Duration(i+1) / time.Duration(r.set.Servers), Late: r.set.Late}
	})
	r.world.Pass(r.now)
}

// signing is those of the IDs whose key has a role.
func (r *run) signing(ids []string, has func(*keymgr.Key) bool) []string {
	var out []string
	for _, id := range ids {
		if k, ok := r.state.Keys.ByID(id); ok && has(&k) {
			out = append(out, id)
		}
	}
	return out
}

// keys is what validators know of keys.
func (r *run) keys(ids []string) []world.Key {
	var out []world.Key
	for _, id := range ids {
		if k, ok := r.state.Keys.ByID(id); ok {
			out = append(out, world.Key{ID: r.lives.names[id], Algorithm: k.Algorithm, SignsKeys: k.SignsKeys(), SignsZone: k.SignsZone()})
		}
	}
	return out
}

// checkCaches searches all caches.
func (r *run) checkCaches() {
	r.summary.Checks++
	b := r.world.Bogus()
	if b == nil {
		return
	}
	r.summary.Bogus++
	if r.summary.Bogus <= mostBogus {
		r.out.add(Line{Time: r.now, Kind: KindBogus, Text: "a validator may refuse answers: " + b.String()})
	}
}

// mostBogus is how many moments are told of.
const mostBogus = 20

// end tells what has not come to its end, and sums up.
func (r *run) end() (Summary, error) {
	r.out.sign(r.now, &r.sigs)
	if err := r.out.flush(); err != nil {
		return r.summary, err
	}
	sum := &r.summary
	for _, s := range r.state.Rolling(r.set.Policy, r.view()) {
		r.rolled(s.ID).Waits = r.lives.replace(s.Text)
	}
	r.holdsEnd()
	sum.Keys = r.lives.end(r.now)
	sum.MostKeys, sum.TwoKeys = crowd(sum.Keys)
	sum.Between = between(sum.Rollovers)
	sum.Versions, sum.Made, sum.Largest, sum.LeastLeft = r.sigs.versions, r.sigs.made, r.sigs.largest, r.sigs.leastLeft()
	return *sum, nil
}
