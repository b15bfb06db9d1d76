package event

// ClockDoubted says that the wall clock is not trusted: nothing is signed
// until clock.accepted. It stands under Instance, in ev._.clock, and so does
// its end. Its own time is that of the clock in doubt.
type ClockDoubted struct {
	// Shown is what the clock showed, Expected what the last trusted event and
	// the time measured since then say; both in seconds since 1970.
	Shown    int64  `json:"shown"`
	Expected int64  `json:"expected"`
	Reason   string `json:"reason"`
}

// ClockAccepted says that the wall clock is trusted from here on: by word of a
// person, or because it shows again what was expected.
type ClockAccepted struct {
	Shown    int64  `json:"shown"`    // seconds since 1970, as accepted
	Expected int64  `json:"expected"` // seconds since 1970
	Reason   string `json:"reason,omitempty"`
}

// EventType implements Facts.
func (*ClockDoubted) EventType() string { return "clock.doubted" }

// EventType implements Facts.
func (*ClockAccepted) EventType() string { return "clock.accepted" }
