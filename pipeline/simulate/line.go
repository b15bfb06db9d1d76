package simulate

import (
	"time"

	"sluice/journal/event"
	"sluice/keymgr"
)

// Kind says what a line of the timeline is about.
type Kind string

// The kinds of lines.
const (
	KindEvent   Kind = "event"   // what the journal would hold
	KindWorld   Kind = "world"   // what servers and the parent do
	KindSigning Kind = "signing" // the versions since the last such line, in one
	KindHeld    Kind = "held"    // a server that does not answer holds a rollover up, or does so no longer
	KindPerson  Kind = "person"  // something waits for a person, or a person acts
	KindBogus   Kind = "bogus"   // a validator may hold together what does not validate
)

// Line is one line of the timeline. Keys are named by role and number, KSK-1,
// rollovers by number, from 1 in the order in which they came.
type Line struct {
	Time     time.Time   `json:"time"`
	Kind     Kind        `json:"kind"`
	Type     string      `json:"type,omitempty"` // of the event
	Rollover uint64      `json:"rollover,omitempty"`
	Of       keymgr.Kind `json:"of,omitempty"` // kind of the rollover
	Step     int         `json:"step,omitempty"`
	Text     string      `json:"text"`
	Why      string      `json:"why,omitempty"`
	Wait     *event.Wait `json:"wait,omitempty"` // that begins
	// Next is what comes next, NextAt when at the earliest.
	Next   string     `json:"next,omitempty"`
	NextAt *time.Time `json:"next_at,omitempty"`
	Person bool       `json:"person,omitempty"` // a person is waited for
}

// KeyLife is when a key did what.
type KeyLife struct {
	Name      string     `json:"name"`
	Role      string     `json:"key_role"`
	Algorithm uint8      `json:"algorithm"`
	Spans     []Span     `json:"spans"`        // of its states, in order
	DS        []Interval `json:"ds,omitempty"` // when the parent's newest DS RRset had it
}

// Span is a time in which a key was in one state.
type Span struct {
	State keymgr.State `json:"state"`
	Interval
}

// Interval is a time from begin to end.
type Interval struct {
	From  time.Time `json:"from"`
	Until time.Time `json:"until"`
}

// Rolled is one rollover of the rehearsal.
type Rolled struct {
	ID     uint64        `json:"id"`
	Kind   keymgr.Kind   `json:"kind"`
	Method keymgr.Method `json:"method"`
	From   time.Time     `json:"from"`
	Steps  []StepBegun   `json:"steps"`
	// Until is when it was done, Aborted when it was given up without a way
	// back; where it is neither, Waits says what for.
	Until   *time.Time `json:"until,omitempty"`
	Aborted *time.Time `json:"aborted,omitempty"`
	Waits   string     `json:"waits,omitempty"`
}

// StepBegun is when a step of a rollover began.
type StepBegun struct {
	Step int       `json:"step"` // from 1
	Name string    `json:"step_name"`
	At   time.Time `json:"at"`
}

// Held is how long a server that did not answer held rollovers up.
type Held struct {
	Server  string `json:"server"`
	Seconds uint64 `json:"seconds"`
}

// Summary is what a rehearsal came to.
type Summary struct {
	From      time.Time `json:"from"`
	Until     time.Time `json:"until"`
	Keys      []KeyLife `json:"keys"`
	Rollovers []Rolled  `json:"rollovers"`
	// MostKeys is the most keys that the DNSKEY RRset had at a time, and
	// TwoKeys for how many seconds at the longest, without a break, it had more
	// than one key of a role.
	MostKeys int    `json:"most_keys"`
	TwoKeys  uint64 `json:"two_keys_seconds"`
	// Between is the shortest time from the begin of one rollover to that of the
	// next of the same kind, in seconds; 0 where there were no two.
	Between uint64 `json:"between_seconds,omitempty"`
	Held    []Held `json:"held,omitempty"`
	// Persons is how often something waited for a person.
	Persons int `json:"persons"`
	// Versions is how many were published; Made is the signatures that were made
	// in all, Largest in one version but for the first.
	Versions int `json:"versions"`
	Made     int `json:"made"`
	Largest  int `json:"largest"`
	// LeastLeft is the least time, in seconds, that a published signature had
	// left when the next version came.
	LeastLeft uint64 `json:"least_left_seconds"`
	// Checks is at how many moments caches were searched, and Bogus at how many
	// of them a validator may have held together what does not validate.
	Checks int `json:"checks"`
	Bogus  int `json:"bogus"`
}
