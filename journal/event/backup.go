package event

// KeyBackedUp says that a copy of the private parts of keys is kept elsewhere,
// by the word of whoever made it.
type KeyBackedUp struct {
	IDs []string `json:"ids"`
}

// EventType implements Facts.
func (*KeyBackedUp) EventType() string { return "key.backed-up" }
