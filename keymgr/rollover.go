package keymgr

import (
	"slices"
	"time"

	"sluice/journal/event"
)

// Rollover is one that runs, as its events tell it.
type Rollover struct {
	ID        uint64    `json:"id"` // number of its rollover.started
	Kind      Kind      `json:"kind"`
	Method    Method    `json:"method"`
	Old       []string  `json:"old,omitempty"` // IDs of the keys that leave
	New       []string  `json:"new,omitempty"` // IDs of the keys that come
	Reason    string    `json:"reason,omitempty"`
	Emergency bool      `json:"emergency,omitempty"` // nothing waits for a person
	Started   time.Time `json:"started"`
	Start     time.Time `json:"start,omitzero"`   // when step 1 begins; zero: it did at once
	Turned    bool      `json:"turned,omitempty"` // on its way back
	Step      int       `json:"step"`             // from 1; 0: it has not begun
	Since     time.Time `json:"since"`            // when the step began
	// Reported is what people say they saw since the step began.
	Reported []Sight `json:"reported,omitempty"`
	// Seen is when all that the step needs to see was seen; zero before.
	Seen time.Time `json:"seen,omitzero"`
	// Elsewhere is since when the step's change is public by the notes of a
	// former signer; zero where that is not known. The wait counts from then.
	Elsewhere time.Time `json:"elsewhere,omitzero"`
	// Taken: nobody here saw the DS that goes, since a former signer changed it,
	// or the parent was told in vain so far.
	Taken bool `json:"taken,omitempty"`
	// Wait is what has to pass since then; nil where nothing has to.
	Wait *event.Wait `json:"wait,omitempty"`
	// DSSeen: the DS of a new key was seen at the parent.
	DSSeen bool `json:"ds_seen,omitempty"`
}

// StepName is the name of the step at which the rollover is.
func (r Rollover) StepName() string { return r.step().name }

// StepText tells what happens in that step.
func (r Rollover) StepText() string { return r.step().text }

// Steps is how many steps it has.
func (r Rollover) Steps() int { return len(r.steps()) }

// step is the current step. A step number that there is none of is the last
// one: nothing begins any more.
func (r *Rollover) step() step {
	all := r.steps()
	switch {
	case len(all) == 0:
		return step{name: "unknown", text: "this program does not know the rollover"}
	case r.Step == 0:
		return step{name: "planned", text: "begin"}
	}
	return all[min(max(r.Step, 1), len(all))-1]
}

// turn lets what was to leave come, and the other way round.
func (r *Rollover) turn(at int) {
	r.Old, r.New, r.Turned = r.New, r.Old, true
	r.begin(at, r.Since)
}

func (r *Rollover) begin(at int, now time.Time) {
	r.Step, r.Since, r.Reported, r.Seen, r.Wait, r.Elsewhere = at, now, nil, time.Time{}, nil, time.Time{}
}

// concerns reports whether one of the keys takes part.
func (r *Rollover) concerns(ids []string) bool {
	return slices.ContainsFunc(ids, func(id string) bool { return slices.Contains(r.Old, id) || slices.Contains(r.New, id) })
}

// DSState is what a zone's parent is to have, and what it has.
type DSState struct {
	// Wanted is the IDs of the keys that the parent is to have DS records of.
	Wanted []string `json:"wanted,omitempty"`
	// Withdrawn: it is to have none; Was is what it was to have before, and what
	// it had.
	Withdrawn bool     `json:"withdrawn,omitempty"`
	Was       []string `json:"was,omitempty"`
	// CDS: the zone tells it so by CDS and CDNSKEY.
	CDS bool `json:"cds,omitempty"`
	// Declined: the way to the first DS was given up, and begins again only
	// when somebody asks for it.
	Declined bool `json:"declined,omitempty"`
	// Since is when that was decided; zero where it never was.
	Since time.Time `json:"since,omitzero"`
	// Sets is the DS RRsets that the parent's servers handed out when that was
	// seen last, an empty one for proven absence; none where it is not known.
	Sets []event.DSSet `json:"sets,omitempty"`
	// Observed is when they were seen first.
	Observed time.Time `json:"observed,omitzero"`
	// Before is what was handed out earlier, as long as caches may hold it.
	Before []PastDS `json:"before,omitempty"`
}

// PastDS is a DS RRset that the parent's servers hand out no longer.
type PastDS struct {
	event.DSSet
	// Last is when it was handed out at the latest.
	Last time.Time `json:"last"`
}

// pastDSKept is for how long after its TTL a DS RRset of the past is kept in
// mind: longer than any margin.
const pastDSKept = 30 * 24 * time.Hour

// maxPastDS bounds DSState.Before.
const maxPastDS = 64

// absent reports whether it is proven that there is no DS at any server.
func (d DSState) absent() bool {
	return len(d.Sets) > 0 && !slices.ContainsFunc(d.Sets, func(s event.DSSet) bool { return len(s.DS) > 0 })
}

// observe notes what the parent has now.
func (d DSState) observe(f *event.DSObserved, at time.Time) DSState {
	var before []PastDS
	for _, p := range d.Before {
		if p.Last.Add(time.Duration(p.TTL)*time.Second + pastDSKept).After(at) {
			before = append(before, p)
		}
	}
	for _, s := range d.Sets {
		if !slices.ContainsFunc(f.Sets, func(n event.DSSet) bool { return n.TTL >= s.TTL && slices.Equal(n.DS, s.DS) }) {
			before = append(before, PastDS{DSSet: s, Last: at})
		}
	}
	d.Before = before[max(0, len(before)-maxPastDS):]
	d.Sets, d.Observed = f.Sets, at
	return d
}

// HeldUntil is until when caches may hold a DS: far away while the parent has
// one, zero where none was ever seen or all have run out.
func (d DSState) HeldUntil(now time.Time, margin time.Duration) time.Time {
	var until time.Time
	for _, s := range d.Sets {
		if len(s.DS) > 0 {
			return time.Unix(1<<40, 0)
		}
	}
	for _, p := range d.Before {
		if at := p.Last.Add(time.Duration(p.TTL)*time.Second + margin); len(p.DS) > 0 && at.After(now) && at.After(until) {
			until = at
		}
	}
	return until
}

// Gone reports whether the way to no DS has come to its end: it was seen, or
// reported, that the parent has none, and the time since has passed.
func (ks KeySet) Gone(now time.Time, margin time.Duration) bool {
	return ks.DS.Withdrawn && ks.DS.absent() && ks.DS.HeldUntil(now, margin).IsZero() && !ks.leaving()
}

// cacheable lists the DS RRsets that a cache may hold; known is false where
// nobody has ever seen the parent's.
func (d DSState) cacheable(now time.Time, margin time.Duration) (sets []event.DSSet, known bool) {
	sets = slices.Clone(d.Sets)
	for _, p := range d.Before {
		if p.Last.Add(time.Duration(p.TTL)*time.Second + margin).After(now) {
			sets = append(sets, p.DSSet)
		}
	}
	return sets, len(d.Sets) > 0
}

// evolveRollover folds the events of rollovers and of the parent.
func (ks KeySet) evolveRollover(e event.Event) KeySet {
	switch f := e.Facts.(type) {
	case *event.RolloverStarted:
		ks.DS.Declined = ks.DS.Declined && Kind(f.Kind) != RollSecure
		r := Rollover{
			ID: e.N, Kind: Kind(f.Kind), Method: Method(f.Method), Old: f.Old, New: f.New,
			Reason: f.Reason, Emergency: f.Emergency, Started: e.Time, Step: 1, Since: e.Time,
		}
		if f.Start != 0 {
			r.Step, r.Start = 0, time.Unix(f.Start, 0).UTC()
		}
		if f.Step != 0 {
			r.Step = int(min(f.Step, 99)) //nolint:gosec // small
			r.Taken = r.Kind != RollSecure && r.StepName() == "change-ds"
		}
		r.Taken = r.Taken || r.Kind == RollInsecure && ks.DS.HeldUntil(e.Time, 0).IsZero()
		if f.Since != 0 {
			r.Elsewhere = time.Unix(f.Since, 0).UTC()
		}
		ks.Rollovers = append(slices.Clone(ks.Rollovers), r)
	case *event.RolloverAdvanced:
		return ks.changeRollover(f.Rollover, func(r *Rollover) { r.advance(f, e.Time) })
	case *event.RolloverAborted:
		if f.Step == 0 {
			if r, ok := ks.Rollover(f.Rollover); ok && r.Kind == RollSecure {
				ks.DS.Declined = true
			}
			return ks.endRollover(f.Rollover)
		}
		return ks.changeRollover(f.Rollover, func(r *Rollover) {
			r.turn(int(min(f.Step, 99))) //nolint:gosec // small
			r.Since = e.Time
		})
	case *event.RolloverCompleted:
		return ks.endRollover(f.Rollover)
	case *event.DSSubmitted:
		ks.DS.Wanted, ks.DS.CDS, ks.DS.Withdrawn, ks.DS.Was, ks.DS.Since = f.IDs, f.CDS, false, nil, e.Time
	case *event.DSWithdrawn:
		ks.DS.Was = ks.trusted()
		ks.DS.Wanted, ks.DS.CDS, ks.DS.Withdrawn, ks.DS.Since = nil, f.CDS, true, e.Time
	case *event.CDSChanged:
		ks.DS.CDS = f.CDS
	case *event.DSObserved:
		ks.DS = ks.DS.observe(f, e.Time)
		ks.Rollovers = slices.Clone(ks.Rollovers)
		for i := range ks.Rollovers {
			r := &ks.Rollovers[i]
			r.DSSeen = r.DSSeen || !r.Turned && slices.ContainsFunc(f.Sets, func(s event.DSSet) bool { return hasDSOf(s.DS, r.New) })
		}
	}
	return ks
}

// advance folds a step of its own.
func (r *Rollover) advance(f *event.RolloverAdvanced, at time.Time) {
	if n := int(min(f.Step, 99)); n != r.Step { //nolint:gosec // small
		r.begin(n, at)
	}
	if f.Reported != "" && !slices.Contains(r.Reported, Sight(f.Reported)) {
		r.Reported = append(slices.Clone(r.Reported), Sight(f.Reported))
	}
	switch {
	case f.Lost != "":
		r.Seen, r.Wait, r.Elsewhere = time.Time{}, nil, time.Time{}
	case f.Seen != 0:
		r.Seen, r.Wait = time.Unix(f.Seen, 0).UTC(), f.Wait
	}
}

func (ks KeySet) changeRollover(id uint64, fn func(*Rollover)) KeySet {
	ks.Rollovers = slices.Clone(ks.Rollovers)
	for i := range ks.Rollovers {
		if ks.Rollovers[i].ID == id {
			fn(&ks.Rollovers[i])
		}
	}
	return ks
}

func (ks KeySet) endRollover(id uint64) KeySet {
	var out []Rollover
	for _, r := range ks.Rollovers {
		if r.ID != id {
			out = append(out, r)
		}
	}
	ks.Rollovers = out
	return ks
}

// Rollover finds one that runs.
func (ks KeySet) Rollover(id uint64) (Rollover, bool) {
	for _, r := range ks.Rollovers {
		if r.ID == id {
			return r, true
		}
	}
	return Rollover{}, false
}

// Unsigned is the key set once the zone was published unsigned: what the parent
// was to have is no matter any more, nor is the way there or away from there.
func (ks KeySet) Unsigned() KeySet {
	ks.DS.Wanted, ks.DS.CDS, ks.DS.Withdrawn, ks.DS.Since = nil, false, false, time.Time{}
	ks.DS.Was, ks.DS.Declined = nil, false
	ks = ks.Unseen()
	ks.Rollovers = slices.DeleteFunc(ks.Rollovers, func(r Rollover) bool { return r.Kind == RollSecure || r.Kind == RollInsecure })
	return ks
}

// Unseen is the key set once something was published that is not signed with it.
// Caches take that up, so what rollovers have seen holds no more.
func (ks KeySet) Unseen() KeySet {
	ks.Rollovers = slices.Clone(ks.Rollovers)
	for i := range ks.Rollovers {
		r := &ks.Rollovers[i]
		r.begin(r.Step, r.Since)
	}
	return ks
}

// hasDSOf reports whether one of the records stands for one of the keys.
func hasDSOf(records []event.DS, ids []string) bool {
	return slices.ContainsFunc(records, func(d event.DS) bool { return d.Key != "" && slices.Contains(ids, d.Key) })
}

// only is those of the IDs whose key satisfies a condition.
func (ks KeySet) only(ids []string, keep func(*Key) bool) []string {
	var out []string
	for _, id := range ids {
		if i := ks.index(id); i >= 0 && keep(&ks.Keys[i]) {
			out = append(out, id)
		}
	}
	return out
}

// wanted is the keys that the parent is to have DS records of once some come
// and some leave, those of other signers among them.
func (ks KeySet) wanted(come, leave []string) []string {
	var out []string
	for _, id := range slices.Concat(ks.DS.Wanted, ks.foreignDS(), come) {
		if !slices.Contains(leave, id) {
			out = append(out, id)
		}
	}
	out = ks.only(out, func(k *Key) bool { return k.SignsKeys() && k.State != Removed })
	slices.Sort(out)
	return slices.Compact(out)
}

// secure reports whether the parent has a DS of the zone, or was told to have one.
func (ks KeySet) secure() bool {
	return len(ks.trusted()) > 0 || len(ks.DS.Sets) > 0 && !ks.DS.absent()
}

// asked is the IDs of the keys that the parent may add DS records of any moment:
// it was told to, and the way back to none has not come to its end.
func (ks KeySet) asked() []string {
	for _, r := range ks.Rollovers {
		if r.Kind == RollInsecure && len(ks.DS.Wanted) == 0 {
			return r.Old
		}
	}
	return ks.DS.Wanted
}

// MayGetDS reports whether the parent may add a DS any moment, since it was told
// to.
func (ks KeySet) MayGetDS() bool { return len(ks.asked()) > 0 }

// leaving reports whether the zone is on its way to no DS.
func (ks KeySet) leaving() bool {
	return slices.ContainsFunc(ks.Rollovers, func(r Rollover) bool { return r.Kind == RollInsecure })
}

// trusted is the IDs of the keys that the parent was told to have DS records
// of, and of those that it has them of.
func (ks KeySet) trusted() []string {
	out := slices.Clone(ks.DS.Wanted)
	for _, set := range ks.DS.Sets {
		for _, d := range set.DS {
			if d.Key != "" {
				out = append(out, d.Key)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
