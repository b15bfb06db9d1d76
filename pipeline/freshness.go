package pipeline

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"sluice/journal/event"
)

// overdue says how bad it is that signatures of what is published were not
// made again yet: no word while each has its remain-time left, a notice while
// the first still has half of it, a warning down to a quarter, then an alarm.
// Where they wait for the source's serial (resignAt), there is no word before
// half, or an alarm from there on. next is when it becomes worse; zero where it
// cannot.
func overdue(s State, p Policy, now time.Time) (severity string, next time.Time) {
	pub := s.Published
	if pub == nil || pub.Signed.mode() != ModeSign || pub.Signed.Facts.Earliest == 0 {
		return "", time.Time{}
	}
	end, remain := time.Unix(pub.Signed.Facts.Earliest, 0).UTC(), p.RemainTime()
	type step struct {
		severity string
		until    time.Time
	}
	steps := []step{
		{"", end.Add(-remain)},
		{severityInfo, end.Add(-remain / 2)},
		{severityWarning, end.Add(-remain / 4)},
	}
	switch _, waits := waitsForSource(s, p); {
	case waits && p.set.serial == SerialKeep:
		steps[0].until = steps[1].until
	case waits:
		steps = steps[:2]
	}
	for _, step := range steps {
		if now.Before(step.until) {
			return step.severity, step.until
		}
	}
	return severityAlarm, time.Time{}
}

// overdueNotice tells that signatures of what is published are not made again,
// how much time is left, why, and what to do; false where there is nothing to
// tell. The caller holds mu.
func (r *runner) overdueNotice(p Policy, now time.Time) (Notice, bool) {
	severity, _ := overdue(r.state, p, now)
	if severity == "" {
		return Notice{}, false
	}
	end := time.Unix(r.state.Published.Signed.Facts.Earliest, 0).UTC()
	reason, hint := r.whyOverdue(p, now)
	text := fmt.Sprintf("signatures expire in %s, the first at %s", SpanText(end.Sub(now)), end.Format(time.RFC3339))
	if !now.Before(end) {
		text = fmt.Sprintf("signatures have expired, the first %s ago, at %s", SpanText(now.Sub(end)), end.Format(time.RFC3339))
	}
	return Notice{Severity: severity, Code: NoticeExpiryNear, Text: text + ": " + reason, Hint: hint, Since: sinceOf(overdueSince(r.state, p))}, true
}

// overdueSince is from when on the signatures of what is published are overdue.
func overdueSince(s State, p Policy) time.Time {
	return time.Unix(s.Published.Signed.Facts.Earliest, 0).UTC().Add(-p.RemainTime())
}

// whyOverdue says why signatures are not made again, and what to do about it.
// The caller holds mu.
func (r *runner) whyOverdue(p Policy, now time.Time) (reason, hint string) {
	s, lane := r.state, &r.lanes[SigningLane]
	pub := s.Published
	history := "see: sluice zone history " + s.Name
	if reason, hint := r.overdueForAll(); reason != "" {
		return reason, hint
	}
	source, waits := waitsForSource(s, p)
	switch {
	case s.Halted != nil:
		return s.Halted.Reason, "see: sluice journal verify"
	case pub.Loaded.Broken != "":
		return "the contents cannot be read from the journal: " + pub.Loaded.Broken, "sluice zone reload " + s.Name + " --full"
	case expired(p, Moment{Now: now, Inbound: r.inbound()}):
		return "the source has not answered for longer than the SOA's EXPIRE, and loader.on-expire is stop",
			"see that a server answers, then: sluice zone reload " + s.Name
	case len(s.Keys.Signing()) == 0:
		return "no key signs", "see: sluice key list " + s.Name
	case waits && p.set.serial == SerialKeepStrict:
		return fmt.Sprintf("serial-policy keep-strict publishes the source's serial or nothing, and what is approved has %d", source),
			fmt.Sprintf("raise the serial at the source above %d, or bind the zone to a policy with serial-policy keep", pub.Signed.Facts.Serial)
	}
	if reason, hint := r.e.keystoreTrouble(s); reason != "" {
		return reason, hint
	}
	switch {
	case lane.failure != nil:
		return oneLine(lane.failure.Error()), history
	case s.SignFailure != nil:
		return s.SignFailure.Stage + " failed: " + s.SignFailure.Reason, history
	case lane.runs():
		return "they are being made again", ""
	case lane.waits():
		return "they wait for their turn: many zones have work", ""
	}
	for _, rv := range r.e.reviews(s, p) {
		if rv.Stage == event.StageSigned {
			return fmt.Sprintf("%s is in review and waits for %s", rv.Instance, rv.WaitsFor),
				fmt.Sprintf("decide: sluice zone approve %s --signed %s, or: sluice zone reject ...", s.Name, rv.Instance)
		}
	}
	if d := s.RefreshRejected; d != nil && d.Instance > pub.Signed.Seq {
		return fmt.Sprintf("s%d, which has new ones, was dropped: %s", d.Instance, d.Reason),
			"correct the review; it is tried again by itself, or: sluice zone resign " + s.Name
	}
	return "they were not made again yet", history
}

// overdueForAll is what keeps all zones from being signed.
func (r *runner) overdueForAll() (reason, hint string) {
	if doubt := r.e.watch.check(); doubt != nil {
		return clockAlarm(*doubt), ClockHint
	}
	if err := r.e.Trouble(); err != nil {
		return err.Error(), "free space on the disk or raise the journal's limits"
	}
	return "", ""
}

// overdueAt is the moment at which what is left of signatures is judged: that
// of the clock, or what it should show where it is not trusted.
func (e *Engine) overdueAt() time.Time {
	if e.watch.check() != nil {
		return e.watch.expected()
	}
	return e.clock.Now()
}

// watchOverdue logs how bad it is once each time that this changes, and
// returns when it becomes worse. The caller holds mu.
func (r *runner) watchOverdue() (next time.Time) {
	p, err := r.e.boundPolicy(r.state)
	if err != nil || r.state.Removed != 0 {
		return time.Time{}
	}
	now := r.e.overdueAt()
	severity, next := overdue(r.state, p, now)
	if !next.After(r.e.clock.Now()) {
		next = time.Time{} // the clock is ahead: a timer would go off at once, and again
	}
	if severity == r.overdue {
		return next
	}
	r.overdue = severity
	level := slog.LevelInfo
	switch severity {
	case severityWarning:
		level = slog.LevelWarn
	case severityAlarm:
		level = slog.LevelError
	}
	ctx := context.Background()
	if n, some := r.overdueNotice(p, now); some {
		r.e.log.Log(ctx, level, "signatures are overdue", "zone", r.state.Name, "severity", n.Severity, "text", n.Text, "hint", n.Hint)
	} else {
		r.e.log.InfoContext(ctx, "signatures are fresh again", "zone", r.state.Name)
	}
	return next
}

// overdueAlarms is a line for each zone whose signatures run out.
func (e *Engine) overdueAlarms() []string {
	e.mu.RLock()
	all := make([]*runner, 0, len(e.names))
	for _, id := range e.names {
		all = append(all, e.runners[id])
	}
	e.mu.RUnlock()
	var out []string
	now := e.overdueAt()
	for _, r := range all {
		p, err := e.boundPolicy(r.snapshot())
		if err != nil {
			continue
		}
		r.mu.Lock()
		if n, some := r.overdueNotice(p, now); some && n.Severity == severityAlarm {
			out = append(out, r.state.Name+" "+n.Text+"; "+n.Hint)
		}
		r.mu.Unlock()
	}
	return out
}

// SpanText is a length of time in its two largest units.
func SpanText(d time.Duration) string {
	d = d.Round(time.Second)
	switch {
	case d >= day:
		return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
}
