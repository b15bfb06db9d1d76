package event

// KeyProved says that a worker holds the private parts of keys, or has access
// to them: it signed a challenge that it alone could read, and the public keys
// verified that.
type KeyProved struct {
	IDs    []string `json:"ids"`
	Worker string   `json:"worker"`
	NKey   string   `json:"nkey"` // as which the worker was enrolled then, U...
}

// EventType implements Facts.
func (*KeyProved) EventType() string { return "key.proved" }
