package event

// KeystoreAdded names a token that the instance keeps keys on from here on. It
// stands under Instance, in ev._.keystore. The PIN never stands in an event.
type KeystoreAdded struct {
	Name   string `json:"name"`
	Module string `json:"module"` // path of the PKCS #11 library
	Token  string `json:"token"`  // its label
	Serial string `json:"serial"` // its serial number
	// Sessions is how many calls may be with it at a time, Timeout how long one
	// may take in milliseconds; absent for the usual.
	Sessions int   `json:"sessions,omitempty"`
	Timeout  int64 `json:"timeout,omitempty"`
}

// KeystoreRemoved ends the use of a token. Its keys stay on it. It stands
// under Instance.
type KeystoreRemoved struct {
	Name string `json:"name"`
}

// EventType implements Facts.
func (*KeystoreAdded) EventType() string { return "keystore.added" }

// EventType implements Facts.
func (*KeystoreRemoved) EventType() string { return "keystore.removed" }
