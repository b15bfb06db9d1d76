package event

// JournalExported says that events are about to be given out as an audit export.
// It stands under Instance, and where all zones were asked for in the export
// itself.
type JournalExported struct {
	// Zones are the names that were asked for; absent: all.
	Zones []string `json:"zones,omitempty"`
	// Since and Until is the time that was asked for, in epoch seconds; 0 for no
	// bound.
	Since int64 `json:"since,omitempty"`
	Until int64 `json:"until,omitempty"`
	// Chunks: contents of zones went along.
	Chunks bool `json:"chunks,omitempty"`
	// Dropped are the kinds or fields of sealed values that were left out, "all"
	// alone for every one; absent where they went along.
	Dropped []string `json:"dropped,omitempty"`
}

// TSIGExported says that the secret of a TSIG key was given out. It stands under
// Instance.
type TSIGExported struct {
	Name string `json:"name"`
}

// EventType implements Facts.
func (*JournalExported) EventType() string { return "journal.exported" }

// EventType implements Facts.
func (*TSIGExported) EventType() string { return "tsig.exported" }
