package event

// UpdateAccepted says that dynamic updates of a zone (RFC 2136) were taken. The
// actor is the TSIG key that signed them. From here on they count: the next
// loaded instance has them, and what is loaded before that a later update is
// judged by.
type UpdateAccepted struct {
	Updates []AcceptedUpdate `json:"updates"` // in their order, at least one
	// Manifest names the chunks with the records of their update sections.
	Manifest Manifest `json:"manifest"`
}

// AcceptedUpdate is one message.
type AcceptedUpdate struct {
	Address string `json:"address"` // where it came from, without a port
	TLS     bool   `json:"tls,omitempty"`
	// Certificate is the name that the client proved over TLS.
	Certificate string `json:"certificate,omitempty"`
	// Prerequisites is how many it had, Added and Removed how many records it
	// brings and takes away.
	Prerequisites uint64 `json:"prerequisites,omitempty"`
	Added         uint64 `json:"added"`
	Removed       uint64 `json:"removed"`
}

// ByUpdate is the Transfer of an InstanceLoaded that dynamic updates made.
const ByUpdate = "UPDATE"

// EventType implements Facts.
func (*UpdateAccepted) EventType() string { return "update.accepted" }
