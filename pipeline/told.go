package pipeline

import (
	"slices"
	"time"

	"sluice/journal"
	"sluice/journal/event"
)

// Told is what became of telling the parent what it is to have now, beside CDS
// and CDNSKEY. What was told before is forgotten.
type Told struct {
	// Request is the number of the ds.submitted or ds.withdrawn that is told,
	// Seq its sequence.
	Request uint64    `json:"request"`
	Seq     uint64    `json:"seq"`
	Time    time.Time `json:"time"`
	// Hooks is what the hooks did, by command.
	Hooks  []Telling `json:"hooks,omitempty"`
	Push   *Telling  `json:"push,omitempty"`
	Notify *Telling  `json:"notify,omitempty"`
}

// Telling is one way of telling the parent.
type Telling struct {
	Command string `json:"command,omitempty"` // of a hook
	// Done: it succeeded, and is not repeated.
	Done bool `json:"done,omitempty"`
	// Failed counts the tries that did not, of which Error and Time are the
	// last's.
	Failed int       `json:"failed,omitempty"`
	Error  string    `json:"error,omitempty"`
	Time   time.Time `json:"time"`
	// Text says in words what was done.
	Text string `json:"text,omitempty"`
}

// next is the telling after another try.
func (t *Telling) next(at time.Time, reason, text string) *Telling {
	out := Telling{}
	if t != nil {
		out = *t
	}
	out.Time, out.Error, out.Text = at, reason, text
	if out.Done = reason == ""; !out.Done {
		out.Failed++
	}
	return &out
}

// hook finds what a hook did; nil where it has not run.
func (t *Told) hook(command string) *Telling {
	for i := range t.Hooks {
		if t.Hooks[i].Command == command {
			return &t.Hooks[i]
		}
	}
	return nil
}

// parentEvent is what hooks are told.
func (s State) parentEvent() string {
	if s.Keys.DS.Withdrawn {
		return eventDSGone
	}
	return eventDSReady
}

// What hooks are told.
const (
	eventDSReady = "ds-ready" // the parent is to have these DS records and no other
	eventDSGone  = "ds-gone"  // the parent is to have no DS record
)

// evolveTold folds what the parent is to be told and was.
func evolveTold(s State, rec journal.Record) State {
	request, at := uint64(0), rec.Event.Time
	switch f := rec.Event.Facts.(type) {
	case *event.DSSubmitted, *event.DSWithdrawn:
		s.Told = &Told{Request: rec.Event.N, Seq: rec.Seq, Time: at}
		return s
	case *event.HookRan:
		request = f.Request
	case *event.DSPushed:
		request = f.Request
	case *event.DSNotified:
		request = f.Request
	}
	if s.Told == nil || request != s.Told.Request {
		return s
	}
	told := *s.Told
	switch f := rec.Event.Facts.(type) {
	case *event.HookRan:
		next := *told.hook(f.Hook.Command).next(at, f.Error, "")
		next.Command = f.Hook.Command
		told.Hooks = slices.DeleteFunc(slices.Clone(told.Hooks), func(t Telling) bool { return t.Command == next.Command })
		told.Hooks = append(told.Hooks, next)
		told.Hooks = told.Hooks[max(0, len(told.Hooks)-maxHooks):]
	case *event.DSPushed:
		told.Push = told.Push.next(at, f.Error, pushedText(f))
	case *event.DSNotified:
		told.Notify = told.Notify.next(at, f.Error, notifiedText(f))
	}
	s.Told = &told
	return s
}
