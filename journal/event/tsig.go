package event

// TSIGAdded names a TSIG key that the instance holds from here on. It stands
// under Instance, in ev._.tsig. The secret never stands in an event.
type TSIGAdded struct {
	Name      string `json:"name"`      // absolute, lower case, final dot
	Algorithm string `json:"algorithm"` // hmac-sha256 ...
	// Worker is the one that has the secret, from which others get it; empty
	// where nobody else was there.
	Worker string `json:"worker,omitempty"`
}

// TSIGRemoved ends the use of a TSIG key. It stands under Instance.
type TSIGRemoved struct {
	Name string `json:"name"`
}

// EventType implements Facts.
func (*TSIGAdded) EventType() string { return "tsig.added" }

// EventType implements Facts.
func (*TSIGRemoved) EventType() string { return "tsig.removed" }
