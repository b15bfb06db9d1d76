package event

// ZoneHeld takes a zone back to an earlier version's content, and holds it
// there: no source is read until zone.released. The loaded instance that it
// leads to names it as its cause.
type ZoneHeld struct {
	Serial   uint32 `json:"serial"`             // of the version whose content is wanted
	Instance uint64 `json:"instance,omitempty"` // sequence of its instance.signed; 0 where it never was signed
	Loaded   uint64 `json:"loaded"`             // sequence of the instance.loaded that it was made of
	// ContentDigest is that instance's.
	ContentDigest Hash `json:"content_digest"`
	// From and FromSerial are the sequence of the instance.loaded that was
	// published until then, and the serial that it was published with.
	From       uint64 `json:"from"`
	FromSerial uint32 `json:"from_serial"`
	// DSChanges and NSChanges count the DS and NS records that differ between
	// the two; who asked for it has confirmed them.
	DSChanges uint64 `json:"ds_changes,omitempty"`
	NSChanges uint64 `json:"ns_changes,omitempty"`
	Reason    string `json:"reason"`
}

// ZoneReleased ends a hold: the source is read in full, and what differs from
// what was held is taken over.
type ZoneReleased struct {
	Reason string `json:"reason,omitempty"`
}

// EventType implements Facts.
func (*ZoneHeld) EventType() string { return "zone.held" }

// EventType implements Facts.
func (*ZoneReleased) EventType() string { return "zone.released" }
