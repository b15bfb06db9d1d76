package pipeline

import (
	"context"
	"fmt"
	"sync"
	"time"

	"sluice/journal"
	"sluice/journal/event"
)

const (
	// clockTolerance is how far the clock may be from the last trusted event
	// and the time that went by since.
	clockTolerance = 5 * time.Minute
	// longestOff is for how long a daemon may have been off: a clock that
	// shows more is as likely to be wrong.
	longestOff = 366 * 24 * time.Hour
	// noClockBefore is before any true time: a machine's clock without a
	// battery begins at 1970 or at the day it was made.
	noClockBefore = 1767225600 // 2026-01-01
	// clockEvery is how often the clock is looked at when nothing is decided.
	clockEvery = time.Second
	// clockMoved is how much the clock may move against the time that goes by
	// before timers are set anew.
	clockMoved = time.Minute
)

// ClockDoubt is why the clock is not trusted.
type ClockDoubt struct {
	Seq   uint64             `json:"seq"` // of clock.doubted
	Facts event.ClockDoubted `json:"facts"`
}

// clockBase is what the clock is compared with.
type clockBase struct {
	wall    time.Time     // a time that was trusted
	elapsed time.Duration // the Reading then
	ahead   time.Duration // how far the clock may be ahead of it, beside the time that went by
	bound   bool          // ahead counts
}

// doubts compares a reading of the clock: expected is what it should show, at
// least; reason is empty where it can be trusted.
func (b clockBase) doubts(now time.Time, elapsed time.Duration) (expected time.Time, reason string) {
	expected = b.wall.Add(elapsed - b.elapsed)
	switch off := now.Sub(expected); {
	case off < -clockTolerance:
		return expected, fmt.Sprintf("it is %s behind", (-off).Round(time.Second))
	case b.bound && off > b.ahead:
		return expected, fmt.Sprintf("it is %s ahead", off.Round(time.Second))
	}
	return expected, ""
}

// atStart is what a clock is compared with at the start of a daemon, which
// cannot know for how long it was off: last is the time of the journal's
// newest event, zero for none; doubt is what stood when it ended. After a
// doubt the events that followed it say nothing.
func atStart(last time.Time, doubt *ClockDoubt, elapsed time.Duration) clockBase {
	b := clockBase{wall: last, elapsed: elapsed, ahead: longestOff, bound: true}
	switch {
	case doubt != nil:
		b.wall = time.Unix(doubt.Facts.Expected, 0).UTC()
		if wrong := time.Unix(doubt.Facts.Shown, 0).Sub(b.wall); wrong > 0 {
			b.ahead = max(wrong-clockTolerance, clockTolerance)
		}
	case last.IsZero():
		b.wall, b.bound = time.Unix(noClockBefore, 0).UTC(), false
	}
	return b
}

// clockWatch tells whether the clock can be trusted: it does not move by
// itself against the time that goes by.
type clockWatch struct {
	clock   Clock
	changed chan struct{} // asks watchClock to look

	mu      sync.Mutex
	armed   bool                // guarded by mu; before, there is nothing to compare with
	started bool                // guarded by mu; base is a reading of this process
	base    clockBase           // guarded by mu
	doubt   *event.ClockDoubted // guarded by mu; nil while the clock is trusted
}

func newClockWatch(c Clock) *clockWatch {
	return &clockWatch{clock: c, changed: make(chan struct{}, 1)}
}

// arm begins to compare.
func (w *clockWatch) arm(base clockBase) {
	w.mu.Lock()
	w.armed, w.started, w.base = true, false, base
	w.mu.Unlock()
}

// check looks at the clock, and says why it is not trusted; nil where it is.
func (w *clockWatch) check() *event.ClockDoubted {
	now, elapsed := w.clock.Reading()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.look(now, elapsed)
}

// look compares a reading. A clock that shows again what is expected is
// trusted again. The caller holds mu.
func (w *clockWatch) look(now time.Time, elapsed time.Duration) *event.ClockDoubted {
	if !w.armed {
		return nil
	}
	was := w.doubt
	expected, reason := w.base.doubts(now, elapsed)
	switch {
	case reason == "":
		w.doubt = nil
		if !w.started {
			w.trust(now, elapsed)
		}
	case was == nil:
		w.doubt = &event.ClockDoubted{Shown: now.Unix(), Expected: expected.Unix(), Reason: reason}
	}
	if (was == nil) != (w.doubt == nil) {
		poke(w.changed)
	}
	return w.doubt
}

// trust compares with this reading from here on. The caller holds mu.
func (w *clockWatch) trust(now time.Time, elapsed time.Duration) {
	w.started, w.doubt = true, nil
	w.base = clockBase{wall: now, elapsed: elapsed, ahead: clockTolerance, bound: true}
}

// stamped takes the reading that an event got which is now stored. One that
// cannot be trusted is not compared with later.
func (w *clockWatch) stamped(now time.Time, elapsed time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.armed && w.look(now, elapsed) == nil {
		w.trust(now, elapsed)
	}
}

// accept trusts the clock as it is.
func (w *clockWatch) accept() {
	now, elapsed := w.clock.Reading()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.armed {
		w.trust(now, elapsed)
		poke(w.changed)
	}
}

// expected is what the clock should show now, at least.
func (w *clockWatch) expected() time.Time {
	now, elapsed := w.clock.Reading()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.armed {
		return now
	}
	expected, _ := w.base.doubts(now, elapsed)
	return expected
}

// newestTime is the time of the journal's newest event; zero where it has
// none, or one that cannot be read: the fold tells of that.
func (e *Engine) newestTime(ctx context.Context) time.Time {
	var newest time.Time
	_, last, err := e.journal.Stream(ctx)
	if err == nil && last > 0 {
		err = e.journal.Read(ctx, "", last, last, func(rec journal.Record) error {
			newest = rec.Event.Time
			return nil
		})
	}
	if err != nil {
		e.log.WarnContext(ctx, "clock not compared with the newest event", "error", err)
	}
	return newest
}

// startClock compares the clock with what the journal says, before any zone
// goes to work.
func (e *Engine) startClock() {
	_, elapsed := e.clock.Reading()
	e.mu.RLock()
	base := atStart(e.newest, e.registry.Clock, elapsed)
	e.mu.RUnlock()
	e.watch.arm(base)
	e.watch.check()
}

// watchClock looks at the clock until ctx ends: it notes in the journal that
// the clock is in doubt and that it no longer is, and lets the zones decide
// anew when the clock was set.
func (e *Engine) watchClock(ctx context.Context) {
	tick := time.NewTicker(clockEvery)
	defer tick.Stop()
	var doubted, failing bool
	ahead := e.clockAhead()
	for {
		doubt, was := e.watch.check(), ahead
		ahead = e.clockAhead()
		if (doubt != nil) != doubted {
			doubted = doubt != nil
			e.tellClock(ctx, doubt)
			e.retime()
		} else if (ahead - was).Abs() > clockMoved {
			e.retime()
		}
		err := e.recordClock(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			e.log.WarnContext(ctx, "state of the clock not recorded yet", "error", err)
		}
		failing = err != nil
		select {
		case <-tick.C:
		case <-e.watch.changed:
		case <-ctx.Done():
			return
		}
	}
}

// clockAhead is by how much the clock is ahead of the time that goes by: it
// changes when the clock is set.
func (e *Engine) clockAhead() time.Duration {
	now, elapsed := e.clock.Reading()
	return now.Sub(time.Unix(0, 0)) - elapsed
}

func (e *Engine) tellClock(ctx context.Context, doubt *event.ClockDoubted) {
	if doubt != nil {
		e.log.ErrorContext(ctx, "clock not trusted, nothing is signed", "reason", clockText(*doubt), "hint", ClockHint)
	} else {
		e.log.InfoContext(ctx, "clock trusted again")
	}
}

// ClockHint is what to do about a clock in doubt.
const ClockHint = "set the clock, which ends this by itself; or if it is right: sluice clock accept"

func clockText(d event.ClockDoubted) string {
	at := func(sec int64) string { return time.Unix(sec, 0).UTC().Format(time.RFC3339) }
	return fmt.Sprintf("the clock showed %s where %s was expected: %s", at(d.Shown), at(d.Expected), d.Reason)
}

// clockAlarm is the alarm for a clock in doubt.
func clockAlarm(d event.ClockDoubted) string {
	return clockText(d) + "; nothing is signed until it is set or accepted"
}

// recordClock appends that the clock is in doubt, or no longer is, where the
// journal does not say so yet.
func (e *Engine) recordClock(ctx context.Context) error {
	e.clocking.Lock()
	defer e.clocking.Unlock()
	return e.recordClockLocked(ctx)
}

// recordClockLocked is recordClock for a caller that holds clocking.
func (e *Engine) recordClockLocked(ctx context.Context) error {
	if e.member() {
		return nil // it stops its own signing; the clock of the instance is the main process's
	}
	doubt := e.watch.check()
	e.mu.RLock()
	recorded := e.registry.Clock
	e.mu.RUnlock()
	switch {
	case doubt != nil && recorded == nil:
		return e.appendInstance(ctx, event.Program, doubt, func() error { return nil })
	case doubt == nil && recorded != nil:
		return e.appendInstance(ctx, event.Program, &event.ClockAccepted{
			Shown: e.clock.Now().Unix(), Expected: e.watch.expected().Unix(), Reason: "it shows what is expected",
		}, func() error { return nil })
	}
	return nil
}

// retime lets every zone decide anew after the clock was set, or was in doubt:
// what this process remembers of times from before does not bind it.
func (e *Engine) retime() {
	now := e.clock.Now()
	for _, r := range e.allRunners() {
		r.clockSet(now)
		r.step()
	}
}

// clockSet forgets what was to happen by the clock as it was.
func (r *runner) clockSet(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.lanes {
		r.lanes[i].LaneState = LaneState{}
	}
	r.began = now // a zone is not too old because the clock moved
	if r.up.good.After(now) {
		r.up.good = now
	}
	if r.up.next.Sub(now) > r.soaTimers().refresh {
		r.up.next = now
	}
	r.notify()
}

// ClockStatus is what the clock shows, and whether it is trusted.
type ClockStatus struct {
	Now       time.Time `json:"now"`
	Rehearsal bool      `json:"rehearsal"` // the clock is simulated
	Trusted   bool      `json:"trusted"`
	// Expected is what the last trusted event and the time measured since then
	// say; after a restart it is the least that the clock must show.
	Expected time.Time `json:"expected"`
	// Reason says why the clock is not trusted, Since what it showed then.
	Reason string     `json:"reason,omitempty"`
	Since  *time.Time `json:"since,omitempty"`
}

// ClockStatus tells how the clock is.
func (e *Engine) ClockStatus() ClockStatus {
	doubt := e.watch.check()
	st := ClockStatus{
		Now: e.clock.Now().Truncate(time.Second), Rehearsal: e.clock.Simulated(), Trusted: doubt == nil,
		Expected: e.watch.expected().UTC().Truncate(time.Second),
	}
	if doubt != nil {
		since := time.Unix(doubt.Shown, 0).UTC()
		st.Reason, st.Since = doubt.Reason, &since
	}
	return st
}

// AcceptClock trusts the clock as it is: signing goes on. Errors: ErrState
// where it is trusted already.
func (e *Engine) AcceptClock(ctx context.Context, actor event.Actor, reason string) (ClockStatus, error) {
	e.clocking.Lock()
	defer e.clocking.Unlock()
	// What is accepted stands in the journal first.
	if err := e.recordClockLocked(ctx); err != nil {
		return ClockStatus{}, err
	}
	if e.watch.check() == nil {
		return ClockStatus{}, errorState("the clock is trusted, it shows %s: there is nothing to accept", e.clock.Now().Format(time.RFC3339))
	}
	err := e.appendInstance(ctx, actor, &event.ClockAccepted{
		Shown: e.clock.Now().Unix(), Expected: e.watch.expected().Unix(), Reason: reason,
	}, func() error { return nil })
	if err != nil {
		return ClockStatus{}, err
	}
	// Before any zone is judged by the clock: none is too old because it moved.
	for _, r := range e.allRunners() {
		r.clockSet(e.clock.Now())
	}
	e.watch.accept()
	return e.ClockStatus(), nil
}

// foldClock folds what was said of the clock.
func foldClock(reg Registry, rec journal.Record) Registry {
	switch f := rec.Event.Facts.(type) {
	case *event.ClockDoubted:
		reg.Clock = &ClockDoubt{Seq: rec.Seq, Facts: *f}
	case *event.ClockAccepted:
		reg.Clock = nil
		if by := time.Duration(f.Shown-f.Expected) * time.Second; by.Abs() > clockTolerance {
			reg.Accepted = time.Unix(f.Shown, 0).UTC()
		}
	}
	return reg
}

// clockAccepted is when a clock in doubt was last accepted; zero for never.
func (e *Engine) clockAccepted() time.Time {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.registry.Accepted
}

// MoveClock moves the clock of a rehearsal, as somebody does who sets the
// machine's. Errors: ErrState for the machine's clock.
func (e *Engine) MoveClock(by time.Duration) (ClockStatus, error) {
	if !e.clock.Move(by) {
		return ClockStatus{}, errorState("the machine's clock is not ours to set; serve with --clock for a rehearsal")
	}
	poke(e.watch.changed)
	return e.ClockStatus(), nil
}

// stampHolds reports whether something that happened at stamp still holds up
// what is to wait until the given time. A stamp from after now is that of a
// wrong clock, and holds up nothing.
func stampHolds(stamp, until, now time.Time) bool {
	return !now.Before(stamp) && now.Before(until)
}
