package pipeline

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/journal/event"
	"sluice/keymgr"
)

// RolloverStatus is a rollover that runs, and what it waits for.
type RolloverStatus struct {
	ID        uint64        `json:"id"`
	Kind      keymgr.Kind   `json:"kind"`
	Method    keymgr.Method `json:"method"`
	Old       []string      `json:"old,omitempty"`
	New       []string      `json:"new,omitempty"`
	Reason    string        `json:"reason,omitempty"`
	Emergency bool          `json:"emergency,omitempty"`
	Returning bool          `json:"returning,omitempty"` // aborted, on its way back
	Started   time.Time     `json:"started"`
	Step      int           `json:"step"`
	Steps     int           `json:"steps"`
	Name      string        `json:"step_name"`
	Since     time.Time     `json:"since"` // when the step began
	// Phase is what it waits for: publish, see, wait, person, backup, proof, blocked; Text
	// tells it.
	Phase   keymgr.Phase     `json:"phase"`
	Text    string           `json:"text"`
	Until   *time.Time       `json:"until,omitempty"` // when the wait is over
	Missing []keymgr.Missing `json:"missing,omitempty"`
	Seen    *time.Time       `json:"seen,omitempty"` // when all that is to be seen was
	Wait    *event.Wait      `json:"wait,omitempty"`
}

// PlannedStep is something that will happen to a zone's keys.
type PlannedStep struct {
	Rollover uint64      `json:"rollover,omitempty"` // 0: one that has not begun
	Kind     keymgr.Kind `json:"kind"`
	Step     int         `json:"step,omitempty"`
	Name     string      `json:"step_name,omitempty"`
	Text     string      `json:"text"`
	// Earliest is when it can begin; what is waited for may take longer.
	Earliest time.Time      `json:"earliest"`
	After    string         `json:"after,omitempty"` // what must be so before
	See      []keymgr.Sight `json:"see,omitempty"`
	Wait     *event.Wait    `json:"wait,omitempty"` // what has to pass before it
	Person   bool           `json:"person,omitempty"`
}

// rolloverStatus tells of the rollovers, and what a person should know. The
// caller holds mu.
func (r *runner) rolloverStatus(st *ZoneStatus) {
	s := r.state
	p, err := r.e.boundPolicy(s)
	if err != nil || p.Mode() != ModeSign {
		return
	}
	m := r.moment()
	st.Rollovers = s.Rolling(p, m)
	for _, ro := range st.Rollovers {
		tell := func(severity string, code NoticeCode, hint string) {
			st.Notices = append(st.Notices, Notice{
				Severity: severity, Code: code, Since: sinceOf(ro.Since), Hint: hint,
				Text: fmt.Sprintf("rollover %d of %s, step %d of %d: %s", ro.ID, ro.Kind, ro.Step, ro.Steps, ro.Text),
			})
		}
		switch ro.Phase {
		case keymgr.PhasePerson:
			tell(severityWarning, NoticeRolloverPerson, fmt.Sprintf("sluice key step %s --rollover %d %s", s.Name, ro.ID, stepFlag(ro.Text)))
		case keymgr.PhaseBlocked:
			tell(severityAlarm, NoticeRolloverBlocked, "see: sluice key status "+s.Name)
		case keymgr.PhaseBackup:
			tell(severityWarning, NoticeRolloverBackup, "copy the keystore, then: sluice key backup mark "+s.Name)
		case keymgr.PhaseProof:
			tell(severityWarning, NoticeRolloverProof, "see: sluice worker list; sluice key distribute "+s.Name)
		case keymgr.PhasePublish, keymgr.PhaseSee, keymgr.PhaseWait, keymgr.PhaseDo:
		}
	}
	st.Notices = slices.Concat(st.Notices, backupNotices(s, p), proofNotices(s, p, m), foreignNotices(s, m))
	for _, want := range otherKeys(s, p) {
		if len(s.Keys.Signing()) > 0 && !takesPart(s, want.Kind) && !p.Rollovers().Auto(want.Kind).Start {
			st.Notices = append(st.Notices, Notice{
				Severity: severityInfo, Code: NoticeKeysDiffer, Text: want.Reason, Hint: fmt.Sprintf("sluice key roll %s %s", s.Name, want.Kind),
			})
		}
	}
	for _, due := range s.Dues(p, m) {
		if !due.Auto && !m.Now.Before(due.At) {
			st.Notices = append(st.Notices, Notice{
				Severity: severityWarning, Code: NoticeRolloverDue, Since: sinceOf(due.At), Text: due.Reason,
				Hint: fmt.Sprintf("sluice key roll %s %s", s.Name, due.Kind),
			})
		}
	}
}

func takesPart(s State, kind keymgr.Kind) bool {
	return slices.ContainsFunc(s.Keys.Rollovers, func(r keymgr.Rollover) bool { return r.Kind == kind })
}

// stepFlag is the flag that a sentence about a person names.
func stepFlag(text string) string {
	if i := strings.LastIndex(text, "--"); i >= 0 {
		return strings.Fields(text[i:])[0]
	}
	return "--" + string(keymgr.ReportNext)
}

// Rolling lists the rollovers that run, and what each waits for. It is pure.
func (s State) Rolling(p Policy, m Moment) []RolloverStatus {
	var out []RolloverStatus
	k := s.known(p, m)
	for _, r := range s.Keys.Rollovers {
		ro := RolloverStatus{
			ID: r.ID, Kind: r.Kind, Method: r.Method, Old: r.Old, New: r.New, Reason: r.Reason, Emergency: r.Emergency,
			Returning: r.Turned, Started: r.Started, Step: r.Step, Steps: r.Steps(), Name: r.StepName(), Since: r.Since, Wait: r.Wait,
			Seen: timeOrNil(r.Seen),
		}
		next := keymgr.Next(s.Keys, r, p.Rollovers(), k)
		ro.Phase, ro.Text, ro.Until, ro.Missing = next.Phase, next.Text, timeOrNil(next.Until), next.Missing
		out = append(out, ro)
	}
	return out
}

// Dues lists the rollovers that the age of keys asks for, now or later. It is
// pure.
func (s State) Dues(p Policy, m Moment) []keymgr.Due {
	return s.Keys.Dues(p.Rollovers(), s.known(p, m).Timing)
}

// Rollovers lists the rollovers of a zone that run.
func (e *Engine) Rollovers(_ context.Context, name string) ([]RolloverStatus, error) {
	s, p, m, err := e.zoneMoment(name)
	if err != nil {
		return nil, err
	}
	return s.Rolling(p, m), nil
}

// KeyPlan lists what will happen to a zone's keys and when at the earliest,
// up to a time; zero is no bound. Nothing changes.
func (e *Engine) KeyPlan(_ context.Context, name string, until time.Time) ([]PlannedStep, error) {
	s, p, m, err := e.zoneMoment(name)
	if err != nil || p.Mode() != ModeSign {
		return nil, err
	}
	k, roll := s.known(p, m), p.Rollovers()
	out := plannedTakeover(s, m.Now)
	for _, r := range s.Keys.Rollovers {
		for _, a := range r.Ahead(roll, k) {
			out = append(out, plannedStep(r.ID, r.Kind, a))
		}
	}
	if len(s.Keys.Signing()) > 0 {
		for _, want := range otherKeys(s, p) {
			if !takesPart(s, want.Kind) {
				out = append(out, plannedRoll(roll, k, want.Kind, m.Now, want.Reason, roll.Auto(want.Kind).Start)...)
			}
		}
	}
	for _, due := range s.Keys.Dues(roll, k.Timing) {
		at := due.At
		if at.Before(m.Now) {
			at = m.Now
		}
		out = append(out, plannedRoll(roll, k, due.Kind, at, due.Reason, due.Auto)...)
	}
	slices.SortStableFunc(out, func(a, b PlannedStep) int { return a.Earliest.Compare(b.Earliest) })
	if !until.IsZero() {
		out = slices.DeleteFunc(out, func(a PlannedStep) bool { return a.Earliest.After(until) })
	}
	return out, nil
}

// plannedRoll is the course of a rollover that has not begun.
func plannedRoll(roll keymgr.RollPolicy, k keymgr.Known, kind keymgr.Kind, at time.Time, reason string, auto bool) []PlannedStep {
	out := []PlannedStep{{Kind: kind, Text: "a rollover begins: " + reason, Earliest: at, Person: !auto}}
	then := keymgr.Rollover{Kind: kind, Method: roll.Method(kind), Started: at, Since: at, Step: 1}
	k.Now = at
	for _, a := range then.Ahead(roll, k) {
		out = append(out, plannedStep(0, kind, a))
	}
	return out
}

func plannedStep(id uint64, kind keymgr.Kind, a keymgr.AheadStep) PlannedStep {
	return PlannedStep{
		Rollover: id, Kind: kind, Step: a.Step, Name: a.Name, Text: a.Text, Earliest: a.Earliest,
		See: a.See, Wait: a.Wait, Person: a.Person, After: a.After,
	}
}

// zoneMoment is a zone's state, policy and moment.
func (e *Engine) zoneMoment(name string) (State, Policy, Moment, error) {
	r, err := e.find(name)
	if err != nil {
		return State{}, Policy{}, Moment{}, err
	}
	s := r.snapshot()
	p, m, err := e.moment(s)
	return s, p, m, err
}

// describeRollover tells an event of rollovers or of the parent as a sentence;
// "" for others.
func describeRollover(ev event.Event) string {
	switch f := ev.Facts.(type) {
	case *event.RolloverStarted:
		verb := "begins"
		if f.Start != 0 {
			verb = "is to begin at " + time.Unix(f.Start, 0).UTC().Format(time.RFC3339)
		}
		return fmt.Sprintf("rollover %d of %s %s by %s: %s%s", ev.N, f.Kind, verb, f.Method, exchangeText(f.Old, f.New), because(f.Reason))
	case *event.RolloverAdvanced:
		return advancedText(f)
	case *event.RolloverCompleted:
		return fmt.Sprintf("rollover %d is done", f.Rollover)
	case *event.RolloverAborted:
		if f.Step == 0 {
			return fmt.Sprintf("rollover %d aborted", f.Rollover) + because(f.Reason)
		}
		return fmt.Sprintf("rollover %d aborted, it goes the way back from step %d, %s", f.Rollover, f.Step, f.Name) + because(f.Reason)
	case *event.DSSubmitted:
		how := "by CDS and CDNSKEY"
		if !f.CDS {
			how = "by other means than CDS (sluice key ds)"
		}
		return fmt.Sprintf("the parent is to have the DS of %s alone, told %s", strings.Join(f.IDs, ", "), how)
	case *event.DSWithdrawn:
		if f.CDS {
			return "the parent is to remove all DS, told by CDS and CDNSKEY"
		}
		return "the parent is to remove all DS, told by other means than CDS"
	}
	return ""
}

func exchangeText(before, after []string) string {
	switch {
	case len(before) == 0:
		return strings.Join(after, ", ")
	case len(after) == 0:
		return "without " + strings.Join(before, ", ")
	}
	return strings.Join(before, ", ") + " by " + strings.Join(after, ", ")
}

func advancedText(f *event.RolloverAdvanced) string {
	head := fmt.Sprintf("rollover %d, step %d, %s", f.Rollover, f.Step, f.Name)
	switch {
	case f.Lost != "":
		return head + ": what was seen is not so any more, the wait begins anew: " + f.Lost
	case f.Reported == string(keymgr.ReportNext):
		return head + ": a person lets it go on"
	case f.Reported != "":
		return head + ": reported, " + f.Reported
	case f.Wait != nil:
		return fmt.Sprintf("%s: seen everywhere at %s; next not before %s, %s", head, time.Unix(f.Seen, 0).UTC().Format(time.RFC3339),
			time.Unix(f.Wait.Earliest, 0).UTC().Format(time.RFC3339), keymgr.WaitText(f.Wait))
	case f.Seen != 0:
		return head + ": seen everywhere"
	}
	return head + " begins"
}
