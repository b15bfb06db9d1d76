package event

// JournalContinued begins a new log on top of an earlier one: of a journal that
// was restored from a backup, or of a mirror that was promoted. It stands under
// Instance, right behind the events that were taken over, which keep their
// sequences and bytes. What the earlier log had behind them is not known here,
// and may have been published.
type JournalContinued struct {
	Origin string `json:"origin"` // of the earlier log: the name of its audit key
	Stream string `json:"stream"` // identity of the stream that it stood in
	Size   uint64 `json:"size"`   // events taken over: those with sequences up to it
	Hash   Hash   `json:"hash"`   // record hash of the last of them
	Root   Hash   `json:"root"`   // of the Merkle tree over their public lines
	// Key is the public audit key of the earlier log, by which its checkpoints
	// verify; absent where it is not known.
	Key    string `json:"key,omitempty"`
	Reason string `json:"reason"` // how the new log came about
}

// JournalBackedUp says that a copy of the journal was made. It stands under
// Instance.
type JournalBackedUp struct {
	Size    uint64 `json:"size"`              // events in the copy: those with sequences up to it
	Hash    Hash   `json:"hash"`              // record hash of the last of them
	Chunks  uint64 `json:"chunks"`            // chunks in the copy
	Missing uint64 `json:"missing,omitempty"` // chunks that the journal no longer held
	Place   string `json:"place"`             // where it is, as whoever made it says
}

// EventType implements Facts.
func (*JournalContinued) EventType() string { return "journal.continued" }

// EventType implements Facts.
func (*JournalBackedUp) EventType() string { return "journal.backed-up" }
