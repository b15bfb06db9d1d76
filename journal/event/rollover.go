package event

// RolloverStarted begins a rollover. Its number is that of this event, n.
type RolloverStarted struct {
	// Kind is zsk, ksk, csk, algorithm, secure (the first DS) or insecure (the
	// way to no DS).
	Kind      string   `json:"kind"`
	Method    string   `json:"method"`
	Old       []string `json:"old,omitempty"` // IDs of the keys that leave
	New       []string `json:"new,omitempty"` // IDs of the keys that come
	Reason    string   `json:"reason"`
	Emergency bool     `json:"emergency,omitempty"` // nothing waits for a person
	// Start is when its first step begins, in epoch seconds; 0 is at once, with
	// the changes of keys in the events beside this one.
	Start int64 `json:"start,omitempty"`
	// Step is the step at which a rollover of a former signer is taken over; 0
	// where it begins here. Since is from when on, in epoch seconds, what that
	// step changes is public by the notes of the former signer; 0 where that is
	// not known.
	Step  uint64 `json:"step,omitempty"`
	Since int64  `json:"since,omitempty"`
}

// RolloverAdvanced says how a rollover goes on: it enters a step, with the
// changes of keys in the events beside it, or what the step waits for was seen.
type RolloverAdvanced struct {
	Rollover uint64 `json:"rollover"` // number of its rollover.started
	Step     uint64 `json:"step"`     // from 1
	Name     string `json:"name"`     // of the step
	// Reported is what a person says was seen: dnskey-seen, rrsig-seen, ds-seen
	// or ds-gone; next lets a step begin that waits for a person.
	Reported string `json:"reported,omitempty"`
	// Seen is when all that the step needs to see was seen, in epoch seconds;
	// Wait is what has to pass since.
	Seen int64 `json:"seen,omitempty"`
	Wait *Wait `json:"wait,omitempty"`
	// Lost says why what was seen is not so any more: the wait begins anew.
	Lost string `json:"lost,omitempty"`
}

// Wait is a time that has to pass, with all that it follows from.
type Wait struct {
	Formula  string      `json:"formula"` // RFC 7583's, in its words
	Inputs   []WaitInput `json:"inputs"`
	Seconds  uint64      `json:"seconds"`  // how long it is
	Earliest int64       `json:"earliest"` // when it is over, in epoch seconds
}

// WaitInput is one term of a formula.
type WaitInput struct {
	Name    string `json:"name"`
	Seconds uint64 `json:"seconds"`
	Source  string `json:"source"` // where it was taken from
}

// RolloverCompleted ends a rollover: nothing that a cache holds needs what was
// before.
type RolloverCompleted struct {
	Rollover uint64 `json:"rollover"`
}

// RolloverAborted ends a rollover or, with Step, turns it round: what was to
// leave comes, what came leaves, and it goes on with that step.
type RolloverAborted struct {
	Rollover uint64 `json:"rollover"`
	Step     uint64 `json:"step,omitempty"`
	Name     string `json:"name,omitempty"` // of the step
	Reason   string `json:"reason,omitempty"`
}

// EventType implements Facts.
func (*RolloverStarted) EventType() string { return "rollover.started" }

// EventType implements Facts.
func (*RolloverAdvanced) EventType() string { return "rollover.advanced" }

// EventType implements Facts.
func (*RolloverCompleted) EventType() string { return "rollover.completed" }

// EventType implements Facts.
func (*RolloverAborted) EventType() string { return "rollover.aborted" }
