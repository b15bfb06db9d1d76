package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"sluice/journal"
	"sluice/journal/event"
)

// runner drives one zone: what is folded, asked or due makes it decide, and
// what is decided runs in its lane. It holds no goroutine while the zone is
// at rest.
type runner struct {
	e  *Engine
	id event.ZoneID

	mu     sync.Mutex
	state  State  // guarded by mu; replaced by the fold
	reload uint64 // guarded by mu; newest request not yet served
	full   bool   // guarded by mu; one of the requests wants everything
	resign uint64 // guarded by mu; newest request to sign not yet served
	// resignFull: guarded by mu; one of them wants all signatures made again.
	resignFull bool
	bringing   bool            // guarded by mu; content is on its way in
	requests   uint64          // guarded by mu; requests so far
	lanes      [lanes]laneWork // guarded by mu
	progress   Progress        // guarded by mu
	changed    chan struct{}   // guarded by mu; closed and replaced at every change
	disarm     func()          // guarded by mu; frees the timer
	began      time.Time       // guarded by mu; from when on EXPIRE counts at the earliest
	overdue    string          // guarded by mu; how bad that was when it was last told
	up         upstream        // guarded by mu
	out        outbound        // guarded by mu
	fetches    fetches         // guarded by mu
	sight      sight           // guarded by mu
	probing    probing         // guarded by mu
	updating   updating        // guarded by mu
	// answered: guarded by mu; when a server of the source last answered the
	// worker that loads the zone, where that is another process.
	answered time.Time
	need     uint64 // guarded by mu; what signing it all takes, as Engine.signNeed counts it

	unhanded map[string]string // guarded by mu; why keys were not handed to workers
}

// laneWork is what this process does in one lane.
type laneWork struct {
	busy bool // something runs, or waits for its turn
	// turn is the one that is waited for; nil where none is.
	turn    *turn
	tries   int
	failure error // of the last command; nil once one succeeds
	// failedAt is when the last command failed.
	failedAt time.Time
	LaneState
}

func newRunner(e *Engine, s State) *runner {
	r := &runner{e: e, id: s.Zone, state: s, changed: make(chan struct{}), disarm: func() {}, began: e.clock.Now()}
	r.countNeed()
	return r
}

// snapshot is the state as folded so far.
func (r *runner) snapshot() State {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state
}

// fold takes the state that the projection now holds.
func (r *runner) fold(s State) {
	r.mu.Lock()
	was := r.state.Published
	r.state = s
	r.countNeed()
	r.notify()
	r.mu.Unlock()
	if p := s.Published; s.Removed != 0 || p != nil && (was == nil || was.Seq != p.Seq) {
		r.announce()
	}
}

// notify wakes all that wait for a change. The caller holds mu.
func (r *runner) notify() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// askReload notes a request to load; full wants everything. What failed lately
// is tried again at once.
func (r *runner) askReload(full bool) {
	r.mu.Lock()
	r.requests++
	r.reload = r.requests
	r.full = r.full || full
	r.lanes[ContentLane].LaneState = LaneState{} // who asks does not wait for a back-off
	r.notify()
	r.mu.Unlock()
	r.step()
}

// decide is Decide on what stands now. The caller holds mu.
func (r *runner) decide() Decision { return r.decideAt(r.moment()) }

func (r *runner) decideAt(m Moment) Decision {
	p, err := r.e.boundPolicy(r.state)
	if err != nil {
		r.lanes[SigningLane].failure = err
		return Decision{}
	}
	return Decide(r.state, p, m)
}

// moment is what a decision sees now. The caller holds mu.
func (r *runner) moment() Moment {
	t := r.soaTimers()
	m := Moment{
		Now: r.e.clock.Now(), ClockDoubted: r.e.watch.check() != nil, ClockSet: r.e.clockAccepted(),
		Reload: r.reload, Full: r.full, Resign: r.resign, ResignFull: r.resignFull, Inbound: r.inbound(),
		Elsewhere: r.e.elsewhere(r.id),
		Workers:   r.e.otherWorkers(), Lacks: r.e.lacks(r.state),
		Sights: Sights{Observation: r.sight.last, Refresh: t.refresh, Retry: t.retry, Expire: t.expire},
	}
	for i := range r.lanes {
		m.Lanes[i] = r.lanes[i].LaneState
	}
	return m
}

// step decides and starts what idle lanes can do.
func (r *runner) step() {
	if !r.e.running() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	d := r.decide()
	for _, c := range d.Commands {
		lane := &r.lanes[c.Lane()]
		if lane.runs() {
			continue
		}
		if !r.begin(lane, r.current(c)) {
			return
		}
	}
	if worse := r.watchOverdue(); !worse.IsZero() {
		d.wake(worse, "signatures are overdue")
	}
	if next := r.observed(d.LookAt); !next.IsZero() {
		d.wake(next, "what the world sees")
	}
	r.arm(d.WakeAt)
}

// arm sets the timer for the next decision. The caller holds mu.
func (r *runner) arm(at time.Time) {
	r.disarm()
	r.disarm = func() {}
	if at.IsZero() || !r.e.running() {
		return
	}
	r.disarm = r.e.clock.AfterFunc(at, func() {
		r.e.start(func(context.Context) { r.step() })
	})
}

// run executes one command and decides again.
func (r *runner) run(ctx context.Context, c Command) {
	err := r.e.note(r.attempt(ctx, c))
	r.e.endDuty(RoleOf(c), r.id)
	dropped := errors.Is(err, errDropped) || errors.Is(err, errNotOurs)
	if dropped {
		err = nil
	}
	r.mu.Lock()
	r.lanes[c.Lane()].busy = false
	lane := &r.lanes[failLane(c)]
	r.progress = Progress{}
	load, isLoad := c.(Load)
	switch {
	case err == nil:
		lane.tries, lane.failure, lane.LaneState = 0, nil, LaneState{}
		if isLoad && !dropped {
			r.loadEnded(load, nil)
		}
	case ctx.Err() == nil:
		lane.tries++
		lane.FailedFor = c.Identity()
		lane.RetryAt = r.e.clock.Now().Add(backoff(lane.tries))
		if c.Lane() == ShareLane {
			lane.RetryAt = r.e.clock.Now().Add(shareBackoff(lane.tries))
		}
		lane.failure, lane.failedAt = err, r.e.clock.Now()
		if isLoad {
			r.loadFailed(load, lane, err)
		}
		r.e.log.WarnContext(ctx, "command failed", "zone", r.state.Name, "command", fmt.Sprintf("%T", c), "error", err)
	}
	// Where the journal did not answer, the request stands: it is not known
	// what became of it.
	if isLoad && !dropped && load.Asked == r.reload && !errors.Is(err, journal.ErrStorage) {
		r.reload, r.full = 0, false
	}
	if sign, ok := c.(Sign); ok && !dropped && sign.Asked == r.resign {
		r.resign, r.resignFull = 0, false
	}
	r.notify()
	r.mu.Unlock()
	r.step()
}

// loadFailed says when a load that failed is tried again: at once where that
// was asked for meanwhile. The caller holds mu.
func (r *runner) loadFailed(c Load, lane *laneWork, err error) {
	if again := r.loadEnded(c, err); !again.IsZero() {
		lane.RetryAt = again
	}
	if r.reload > c.Asked {
		lane.LaneState = LaneState{}
	}
}

// backoff is how long a lane waits after the given number of failures in a
// row: a minute, doubled up to an hour.
func backoff(tries int) time.Duration {
	return min(time.Minute<<max(0, min(tries-1, 6)), time.Hour)
}

// attempt has the work granted to this process and does it. A command that
// brought its process down too often is not tried again: its zone's work of
// that role rests. A panic is an error like others.
func (r *runner) attempt(ctx context.Context, c Command) error {
	if err := r.takeUp(ctx, RoleOf(c)); err != nil {
		return err
	}
	before, err := r.e.intents.begin(r.id, c)
	if err != nil { // on a full disk: the command is wanted nevertheless
		r.e.log.WarnContext(ctx, "command under way not noted", "error", err)
	}
	bad := ""
	if before.Tries >= maxTries {
		err = r.e.appendZone(ctx, event.Program, r, func(s State) (event.Facts, error) {
			if _, ok := s.Quarantines[RoleOf(c)]; ok {
				return nil, nil
			}
			return &event.WorkerQuarantined{
				WorkerRole: string(RoleOf(c)), Command: commandWord(c), Tries: before.Tries, Error: before.Error,
			}, nil
		})
		if err != nil {
			return err
		}
	} else if err = attempt(func() error { return r.execute(ctx, c) }); err != nil {
		if p, ok := errors.AsType[panicked](err); ok {
			bad = p.text
			r.e.log.ErrorContext(ctx, "command panicked", "zone", r.snapshot().Name, "command", commandWord(c), "panic", p.text, "stack", string(p.stack))
		}
	}
	if werr := r.e.intents.end(r.id, c, before, bad); werr != nil {
		r.e.log.WarnContext(ctx, "command under way not noted", "error", werr)
	}
	return err
}

// execute does what the command says and appends what came of it. Events are
// appended also where it failed: the failure is one.
func (r *runner) execute(ctx context.Context, c Command) error {
	for {
		s := r.snapshot()
		facts, failure := r.do(ctx, s, c)
		if len(facts) == 0 {
			return failure
		}
		commit := r.commit
		if brings(c) {
			commit = r.bring
		}
		err := commit(ctx, s, c, facts)
		if errors.Is(err, errSwept) {
			continue
		}
		return errors.Join(err, failure)
	}
}

// do does what the command says, when there is a place. The place is given back
// before the result is appended: many zones then wait for the disk together.
func (r *runner) do(ctx context.Context, s State, c Command) ([]event.Facts, error) {
	switch c.(type) {
	case Sign:
		for _, place := range r.e.signPlaces(s) {
			if err := take(ctx, place); err != nil {
				return nil, err
			}
			defer give(place)
		}
	case Publish, OpenReview:
		if err := take(ctx, r.e.heavy); err != nil {
			return nil, err
		}
		defer give(r.e.heavy)
	case HandKeys:
		if err := take(ctx, r.e.handing); err != nil {
			return nil, err
		}
		defer give(r.e.handing)
	case Load, Rollback, ApplyUpdates, BindPolicy, GenerateKeys, ActivateKeys, AdoptKeys, BeginRollover, AdvanceRollover, DestroyKeys, RunHook, CloseReview,
		ChangeCDS, RunParentHook, PushDS, PushSignal, NotifyParent: // a load takes its place itself
	}
	return r.e.do(ctx, s, c, r.report)
}

// errSwept reports that chunks were swept while a command ran: it runs again.
var errSwept = errors.New("chunks were swept meanwhile")

// errDropped reports that what a command made is not wanted any more. A request
// that it was made for stands.
var errDropped = errors.New("result dropped")

// bring commits new content. It never cancels a running sign: it waits for it, and
// a sign whose turn comes meanwhile waits for the content.
func (r *runner) bring(ctx context.Context, began State, c Command, facts []event.Facts) error {
	defer func() {
		r.mu.Lock()
		r.bringing = false
		r.notify()
		r.mu.Unlock()
	}()
	if err := r.awaitSigning(ctx); err != nil {
		return err
	}
	return r.commit(ctx, began, c, facts)
}

// commit appends a command's facts behind what is folded now, as long as the
// decision still asks for the same command, and waits until they are folded.
func (r *runner) commit(ctx context.Context, began State, c Command, facts []event.Facts) error {
	for {
		s, wanted := r.wanted(c)
		if !wanted {
			r.e.log.InfoContext(ctx, "result dropped", "zone", s.Name, "command", fmt.Sprintf("%T", c))
			return errDropped
		}
		if s.Swept != began.Swept {
			return errSwept
		}
		if s.Grants[RoleOf(c)].Epoch != began.Grants[RoleOf(c)].Epoch {
			return errDropped // it was another's meanwhile
		}
		for _, f := range facts {
			if failed, ok := f.(*event.SignFailed); ok && RoleOf(c) != RoleSign && (len(s.Grants) > 0 || r.e.duties != nil) {
				failed.WorkerRole = string(RoleOf(c))
			}
		}
		head, err := r.e.append(ctx, r.id, s.Head, Cause(s, c), event.Program, facts...)
		if errors.Is(err, journal.ErrConflict) {
			if err := r.await(ctx, func(now State) bool { return now.Head.Seq > s.Head.Seq }); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		return r.await(ctx, func(now State) bool { return now.Head.Seq >= head.Seq })
	}
}

// wanted is the state as folded so far, and whether the decision asks for c
// then. A panic of the decision leaves the zone unlocked: others' events wait
// for this one's fold.
func (r *runner) wanted(c Command) (State, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state, r.wants(c)
}

// wants reports whether the decision asks for c now: a rollover that failed does
// not come before what runs meanwhile. The caller holds mu.
func (r *runner) wants(c Command) bool {
	m := r.moment()
	if roll := &m.Lanes[RollLane]; failLane(c) != RollLane && !roll.RetryAt.After(m.Now) {
		roll.RetryAt = m.Now.Add(time.Second)
	}
	for _, w := range r.decideAt(m).Commands {
		if w.Identity() == c.Identity() {
			return true
		}
	}
	return false
}

// awaitSigning waits until the signing lane holds nothing back, and keeps signings
// here from beginning until bring ends.
func (r *runner) awaitSigning(ctx context.Context) error {
	for {
		r.mu.Lock()
		busy, changed := r.lanes[SigningLane].holdsBack(), r.changed
		r.bringing = !busy
		r.mu.Unlock()
		if !busy {
			return r.awaitSigner(ctx)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// await waits until the folded state satisfies a condition.
func (r *runner) await(ctx context.Context, met func(State) bool) error {
	for {
		r.mu.Lock()
		ok, changed := met(r.state), r.changed
		r.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// report notes where long work stands.
func (r *runner) report(p Progress) {
	r.mu.Lock()
	p.Zone = r.state.Name
	r.progress = p
	r.notify()
	r.mu.Unlock()
}

// atRest reports whether the zone does nothing and has nothing to do but wait
// for time to pass. The caller holds mu.
func (r *runner) atRest() bool {
	for i := range r.lanes {
		if r.lanes[i].busy && !Lane(i).aside() {
			return false
		}
	}
	return !slices.ContainsFunc(r.decide().Commands, func(c Command) bool {
		return !c.Lane().aside() && (r.e.duties == nil || r.e.owns(RoleOf(c), r.id))
	})
}
