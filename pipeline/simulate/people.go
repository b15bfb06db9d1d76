package simulate

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/pipeline"
)

// operator is who acts where a person is waited for.
var operator = event.Actor{Name: "operator", Door: "cli"} //nolint:gochecknoglobals // a constant in all but name

// people is what waits for a person.
type people struct {
	submit time.Time // when the DS is brought to the parent by hand
	waits  []waiting
}

// waiting is something that a person does at a time; zero is never.
type waiting struct {
	what string // identifies it
	at   time.Time
	do   func(r *run) error
}

func (p *people) next() time.Time {
	at := p.submit
	for _, w := range p.waits {
		if !w.at.IsZero() && (at.IsZero() || w.at.Before(at)) {
			at = w.at
		}
	}
	return at
}

// inTime is when a person acts on what is there now; zero is never.
func (r *run) inTime() time.Time {
	if r.set.OperatorDelay < 0 {
		return time.Time{}
	}
	return r.now.Add(max(r.set.OperatorDelay, time.Second))
}

// peopleAct does what people do now.
func (r *run) peopleAct() error {
	p := &r.people
	if !p.submit.IsZero() && !r.now.Before(p.submit) {
		p.submit = time.Time{}
		r.setDS(slices.Clone(r.state.Keys.DS.Wanted), "a person brought it there")
	}
	for i := 0; i < len(p.waits); i++ {
		w := p.waits[i]
		if w.at.IsZero() || r.now.Before(w.at) {
			continue
		}
		p.waits[i].at = time.Time{} // once; what is still waited for then stands there
		if err := w.do(r); err != nil {
			return err
		}
	}
	return nil
}

// byHand reports whether the parent has to be told by a person.
func (r *run) byHand() bool {
	ds, to := r.state.Keys.DS, r.set.Policy.Parent()
	if len(to.Servers) > 0 || r.set.HooksTell && len(to.Hooks) > 0 {
		return false
	}
	return !ds.Since.IsZero() && (!ds.CDS || !r.set.ReadsCDS) &&
		(len(ds.Wanted) > 0 || ds.Withdrawn) && !slices.Equal(ds.Wanted, r.sets[r.world.NewestDS()])
}

// watchPeople finds what waits for a person now.
func (r *run) watchPeople() {
	var now []waiting
	if r.byHand() {
		now = append(now, waiting{what: "ds since " + rfc(r.state.Keys.DS.Since)})
	}
	moment := r.view()
	for _, s := range r.state.Rolling(r.set.Policy, moment) {
		if s.Phase == keymgr.PhasePerson {
			now = append(now, waiting{what: fmt.Sprintf("rollover %d of %s, step %d: %s", r.number(s.ID), s.Kind, s.Step, s.Text), do: report(s.ID)})
		}
	}
	if ids := r.unsaved(); len(ids) > 0 {
		now = append(now, waiting{what: "keys are to be backed up and marked: " + strings.Join(ids, ", "), do: backUp(ids)})
	}
	for _, due := range r.state.Dues(r.set.Policy, moment) {
		if !due.Auto && !r.now.Before(due.At) {
			now = append(now, waiting{what: "due " + due.Reason, do: begin(due)})
		}
	}
	for i, w := range now {
		was := slices.IndexFunc(r.people.waits, func(old waiting) bool { return old.what == w.what })
		if was >= 0 {
			now[i] = r.people.waits[was]
			continue
		}
		now[i].at = r.inTime()
		r.summary.Persons++
		if w.do == nil {
			r.people.submit, now[i].at = now[i].at, time.Time{}
		}
		r.out.add(r.personLine(w))
	}
	r.people.waits = now
}

// personLine tells what a person is to do.
func (r *run) personLine(w waiting) Line {
	l := Line{Time: r.now, Kind: KindPerson, Person: true}
	switch {
	case w.do == nil && r.state.Keys.DS.Withdrawn:
		l.Text = "a person is to have the parent remove the DS"
	case w.do == nil:
		l.Text = "a person is to bring the DS of " + r.lives.list(r.state.Keys.DS.Wanted) + " to the parent: sluice key ds " + r.state.Name
	default:
		l.Text = "waits for a person: " + r.lives.replace(w.what)
	}
	if at := r.inTime(); at.IsZero() {
		l.Next = "nobody comes (--operator-delay lets somebody come)"
	} else {
		l.Next, l.NextAt = "that is done", &at
	}
	return l
}

// unsaved is the keys that something waits to see backed up.
func (r *run) unsaved() []string {
	if !r.set.Policy.Rollovers().Backup {
		return nil
	}
	var ids []string
	for _, k := range r.state.Keys.ToBackUp(time.Time{}) {
		if k.Activated.IsZero() {
			ids = append(ids, k.ID)
		}
	}
	return ids
}

// backUp is a person who marks keys as backed up.
func backUp(ids []string) func(*run) error {
	return func(r *run) error {
		r.record(operator, &event.KeyBackedUp{IDs: ids})
		return nil
	}
}

// report is a person who reports what a rollover waits for, or lets it go on.
func report(id uint64) func(*run) error {
	return func(r *run) error {
		ro, ok := r.state.Keys.Rollover(id)
		if !ok {
			return nil
		}
		seen := ro.Needs()
		if len(seen) == 0 {
			seen = []keymgr.Sight{keymgr.ReportNext}
		}
		for _, s := range seen {
			facts, err := r.state.Report(r.set.Policy, r.view(), pipeline.StepReport{
				Rollover: id, Seen: s, TTL: uint32(r.set.DSTTL / time.Second), //nolint:gosec // not negative
			})
			if errors.Is(err, pipeline.ErrState) {
				return nil // it waits for that no longer
			}
			if err != nil {
				return err
			}
			r.record(operator, facts...)
		}
		return nil
	}
}

// begin is a person who begins a rollover that is due.
func begin(due keymgr.Due) func(*run) error {
	return func(r *run) error {
		return r.roll(pipeline.RolloverRequest{Kind: due.Kind, Reason: due.Reason})
	}
}

// roll begins a rollover that somebody asks for.
func (r *run) roll(q pipeline.RolloverRequest) error {
	if q.Reason == "" {
		q.Reason = "asked for"
	}
	facts, _, err := r.state.Begin(r.set.Policy, r.view(), q, nil, r.makeKey)
	if errors.Is(err, keymgr.ErrConflicts) || errors.Is(err, pipeline.ErrState) {
		r.out.add(Line{Time: r.now, Kind: KindPerson, Of: q.Kind, Text: fmt.Sprintf("the rollover of %s that was asked for is refused", q.Kind), Why: r.lives.replace(err.Error())})
		return nil
	}
	if err != nil {
		return err
	}
	r.record(operator, facts...)
	return nil
}

// asked begins the rollovers that were planned for now.
func (r *run) asked() error {
	for len(r.rolls) > 0 && !r.now.Before(r.rolls[0].At) {
		q := r.rolls[0].Request
		r.rolls = r.rolls[1:]
		if r.state.Published == nil {
			if err := r.settle(); err != nil {
				return err
			}
		}
		if err := r.roll(q); err != nil {
			return err
		}
	}
	return nil
}
