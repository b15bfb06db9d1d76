package event

// ZoneAdded names a new zone. It stands under Instance, in ev._.zone.
type ZoneAdded struct {
	Name        string  `json:"name"` // absolute, lower case, final dot
	ID          ZoneID  `json:"id"`
	Source      string  `json:"source"` // file path, or IP[:PORT][^TSIGKEY]
	Policy      string  `json:"policy"`
	SerialFloor *uint32 `json:"serial_floor,omitempty"` // published serials stand above it
	// Import lists keys that were brought along; key.imported follows in the
	// zone's own events.
	Import []Key `json:"import,omitempty"`
	// Force takes the keys over though the world may not trust them.
	Force bool `json:"force,omitempty"`
	// Public lists public keys of other signers of the zone, likewise.
	Public []Key `json:"import_public,omitempty"`
	// Reason is why, as who added it said.
	Reason string `json:"reason,omitempty"`
	// Member is the zone's place in the catalog that lists it.
	Member *Membership `json:"member,omitempty"`
}

// ZoneRemoved ends a zone; its history stays. It stands under Instance.
type ZoneRemoved struct {
	Name  string `json:"name"`
	ID    ZoneID `json:"id"`
	Force bool   `json:"force,omitempty"`
	// Reason is why, as who removed it said.
	Reason string `json:"reason,omitempty"`
}

// ZoneChanged gives a zone another source.
type ZoneChanged struct {
	Source string `json:"source"`
	// Reason is why, as who changed it said.
	Reason string `json:"reason,omitempty"`
}

// PolicyBound says which policy, word for word, rules a zone from here on. It
// is a zone's first event.
type PolicyBound struct {
	Zone   string `json:"zone"` // the zone's name
	Source string `json:"source"`
	Policy string `json:"policy"`
	SHA256 Hash   `json:"sha256"` // of Text
	Text   string `json:"text"`   // the policy file
	// SerialFloor repeats zone.added's, so that a zone folds from its own
	// events alone.
	SerialFloor *uint32 `json:"serial_floor,omitempty"`
	// Reason is why, as who changed policy or source said.
	Reason string `json:"reason,omitempty"`
}

// SerialRaised puts a floor under the serials that are published from here on.
type SerialRaised struct {
	Floor  uint32 `json:"floor"` // published serials stand above it
	Reason string `json:"reason,omitempty"`
}

// EventType implements Facts.
func (*SerialRaised) EventType() string { return "serial.raised" }

// EventType implements Facts.
func (*ZoneAdded) EventType() string { return "zone.added" }

// EventType implements Facts.
func (*ZoneRemoved) EventType() string { return "zone.removed" }

// EventType implements Facts.
func (*ZoneChanged) EventType() string { return "zone.changed" }

// EventType implements Facts.
func (*PolicyBound) EventType() string { return "policy.bound" }
