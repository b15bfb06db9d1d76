package pipeline

import (
	"context"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/journal"
	"sluice/keymgr"
	"sluice/pipeline/store"
	"sluice/xfr"
)

// Measurement is how a process and its zones are at a moment. Making it reads
// what is in memory and asks the journal for the sizes of its streams, at most a
// second; nothing else waits for others.
type Measurement struct {
	Clock   ClockStatus
	Ready   bool      // the journal was read, and nothing keeps all zones from working
	Stale   time.Time // since when the journal does not answer; zero where it does
	Alarms  int       // of the whole process
	Version string

	Counts  Counts
	Client  xfr.ClientStats // transfers in, NOTIFYs out
	Journal *JournalMeasure // nil where it did not answer in time
	// Written is what this process wrote; nil where the journal cannot tell.
	Written *journal.Stats
	Folded  uint64 // sequence of the event that was folded last
	Store   store.Metrics
	Reserve *ReserveStatus // nil where there is none

	Workers   WorkersMeasure
	Keystores []KeystoreMeasure
	Zones     []ZoneMeasure // by name
	Catalogs  []CatalogMeasure
}

// JournalMeasure is what both streams hold.
type JournalMeasure struct{ Events, Bulk journal.StreamStatus }

// WorkersMeasure is who shares the work, as this process saw it last.
type WorkersMeasure struct {
	Alive  int
	Held   map[Role]int // partitions whose work this process holds, by role
	Unheld map[Role]int // that nobody holds
}

// KeystoreMeasure is how a keystore is.
type KeystoreMeasure struct {
	Name string
	Up   bool // it could be used when it was last
}

// Stages of a zone, of which it is in one at a time.
const (
	StageNew       = "new"       // nothing was published yet
	StageWorking   = "working"   // it is being loaded, signed or verified
	StageReview    = "review"    // something waits for a verdict
	StagePublished = "published" // it rests
	StageFailed    = "failed"    // its source cannot be loaded, or it cannot be signed
	StageHalted    = "halted"    // a review, or the journal, stopped it
	StageExpired   = "expired"   // its source was silent for EXPIRE: nothing is served
)

// Stages are all of them.
func Stages() []string {
	return []string{StageNew, StageWorking, StageReview, StagePublished, StageFailed, StageHalted, StageExpired}
}

// ZoneMeasure is a zone's status, and what that says in sentences as numbers.
type ZoneMeasure struct {
	ZoneStatus
	Stage string
	// Due is when the first signature that is published has only the policy's
	// remain-time left, and Alarm when status calls it an alarm that it was not
	// made anew; zero where nothing is signed.
	Due, Alarm time.Time
	// LoadFailed and SignFailed are when what it holds now last failed.
	LoadFailed, SignFailed time.Time
	DS                     DSMeasure
	// Late is from when on the rollover of the same place in Rollovers takes
	// longer than it should; zero where it waits for a person.
	Late []time.Time
}

// DSMeasure is how a zone stands with its parent.
type DSMeasure struct {
	Told   bool // the parent is to have certain DS records, or none
	Known  bool // what it has was seen
	InStep bool // it has what it is to have
	Since  time.Time
	// AtParent: it has a DS.
	AtParent bool
}

// measureTime is how long the journal may take to say how large its streams are.
const measureTime = time.Second

// Measure tells how the process and its zones are.
func (e *Engine) Measure(ctx context.Context) Measurement {
	m := Measurement{
		Clock: e.ClockStatus(), Stale: e.staleSince(), Version: e.cfg.Version,
		Ready: e.Health(ctx) == nil, Counts: e.counts.read(), Client: e.client.Stats(), Folded: e.foldedSeq(),
		Workers: e.workersMeasure(),
	}
	m.Store, _ = e.store.Metrics() // what was closed has none
	if j, ok := e.cfg.Journal.(interface{ Stats() journal.Stats }); ok {
		written := j.Stats()
		m.Written = &written
	}
	if e.cfg.Reserve != nil {
		reserve := e.cfg.Reserve.status()
		m.Reserve = &reserve
	}
	bounded, cancel := context.WithTimeout(ctx, measureTime)
	defer cancel()
	if st, err := e.fill.look(bounded, e.cfg.Journal, lookFillEvery); err == nil {
		m.Journal = &JournalMeasure{st.Events, st.Bulk}
	}
	m.Catalogs = e.catalogMeasures()
	for _, ks := range e.usedKeystores() {
		m.Keystores = append(m.Keystores, KeystoreMeasure{ks.Name(), ks.State().Problem == ""})
	}
	e.mu.RLock()
	all := make([]*runner, 0, len(e.names))
	for _, id := range e.names {
		all = append(all, e.runners[id])
	}
	e.mu.RUnlock()
	m.Zones = make([]ZoneMeasure, len(all))
	var work sync.WaitGroup
	parts := min(runtime.GOMAXPROCS(0), len(all))
	for part := range parts {
		work.Go(func() {
			for i := part; i < len(all); i += parts {
				m.Zones[i] = all[i].measure(m.Clock.Now)
			}
		})
	}
	work.Wait()
	m.Alarms = e.countAlarms(m.Zones)
	slices.SortFunc(m.Zones, func(a, b ZoneMeasure) int { return strings.Compare(a.Name, b.Name) })
	return m
}

// measure tells how a zone is.
func (r *runner) measure(now time.Time) ZoneMeasure {
	z := ZoneMeasure{ZoneStatus: r.describedAs(true)} // nothing is told of what comes next
	r.mu.Lock()
	s, busy, heard := r.state, r.lanes[ContentLane].runs() || r.lanes[SigningLane].runs(), r.up.good
	r.mu.Unlock()
	if f := s.LoadFailure; f != nil && !heard.After(f.Time) {
		z.LoadFailed = f.Time
	}
	if u := z.Upstream; u != nil && u.LastError != "" && u.Since != nil && z.LoadFailed.IsZero() {
		z.LoadFailed = *u.Since
	}
	if f := s.SignFailure; f != nil {
		z.SignFailed = f.Time
	}
	z.Stage = stageOf(s, z, busy)
	p, err := r.e.boundPolicy(s)
	if err != nil {
		return z
	}
	z.Due, z.Alarm = overdueTimes(s, p)
	z.DS = dsMeasure(s, p)
	for _, ro := range z.Rollovers {
		z.Late = append(z.Late, lateAt(ro, now))
	}
	return z
}

// stageOf is the one word for where a zone stands.
func stageOf(s State, z ZoneMeasure, busy bool) string {
	pending := slices.ContainsFunc(z.Reviews, func(rv ReviewStatus) bool { return rv.State == "pending" })
	switch {
	case s.Halted != nil, s.Stopped != nil:
		return StageHalted
	case z.State == StageExpired:
		return StageExpired
	case busy:
		return StageWorking
	case !z.LoadFailed.IsZero(), !z.SignFailed.IsZero():
		return StageFailed
	case pending:
		return StageReview
	case s.Published != nil:
		return StagePublished
	}
	return StageNew
}

// overdueTimes is when signatures of what is published are due, and when it is
// an alarm that they were not made anew, as overdue judges it.
func overdueTimes(s State, p Policy) (due, alarm time.Time) {
	_, at := overdue(s, p, time.Time{})
	due = at
	for !at.IsZero() {
		alarm = at
		_, at = overdue(s, p, at)
	}
	return due, alarm
}

// dsMeasure is how a zone stands with its parent, by its events.
func dsMeasure(s State, p Policy) DSMeasure {
	ds := s.Keys.DS
	m := DSMeasure{Known: len(ds.Sets) > 0, Since: ds.Since}
	for _, set := range ds.Sets {
		m.AtParent = m.AtParent || len(set.DS) > 0
	}
	if p.Mode() != ModeSign || ds.Since.IsZero() {
		return m
	}
	m.Told, m.InStep = true, s.Keys.AtParent()
	if m.InStep && ds.Observed.After(m.Since) {
		m.Since = ds.Observed
	}
	return m
}

const (
	// lateWait is how long after its wait a rollover may take for the next step.
	lateWait = time.Hour
	// lateSight is how long what a step wants may take to be seen.
	lateSight = 24 * time.Hour
)

// lateAt is from when on a rollover takes longer than it should; zero where it
// waits for a person.
func lateAt(ro RolloverStatus, now time.Time) time.Time {
	switch ro.Phase {
	case keymgr.PhasePerson, keymgr.PhaseBackup, keymgr.PhaseProof, keymgr.PhaseBlocked:
		return time.Time{}
	case keymgr.PhaseWait:
		if ro.Until != nil {
			return ro.Until.Add(lateWait)
		}
	case keymgr.PhaseDo, keymgr.PhasePublish, keymgr.PhaseSee:
	}
	if ro.Since.IsZero() { // it has not begun
		return now.Add(lateSight)
	}
	return ro.Since.Add(lateSight)
}

// workersMeasure is what this process knows of who shares the work; nobody is
// asked.
func (e *Engine) workersMeasure() WorkersMeasure {
	w := WorkersMeasure{Held: map[Role]int{}, Unheld: map[Role]int{}}
	if e.duties == nil {
		w.Alive = 1
		for _, role := range ownedRoles() {
			if e.hasRole(role) {
				w.Held[role] = Partitions
			}
		}
		return w
	}
	d := e.duties
	d.mu.Lock()
	defer d.mu.Unlock()
	w.Alive = len(d.standing.Workers)
	for _, role := range ownedRoles() {
		for p := range Partitions {
			at := duty{role, p}
			if d.ownsLocked(at) {
				w.Held[role]++
			} else if d.holders[at.lease()] == "" {
				w.Unheld[role]++
			}
		}
	}
	return w
}
