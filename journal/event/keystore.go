package event

// KeystoreAdded names a token, or a KMIP server, that the instance keeps keys on
// from here on. It stands under Instance, in ev._.keystore. A PIN, a password or
// a private key never stands in an event.
type KeystoreAdded struct {
	Name   string `json:"name"`
	Module string `json:"module"` // path of the PKCS #11 library; "" of a server
	Token  string `json:"token"`  // its label
	Serial string `json:"serial"` // its serial number
	// Address is that of a KMIP server, host:port; "" of a token. ServerName is
	// what its certificate must be for, absent for the host; ServerPin is
	// "sha256:" and the hash of its public key in base64, absent where a CA
	// vouches for it.
	Address    string `json:"address,omitempty"`
	ServerName string `json:"server_name,omitempty"`
	ServerPin  string `json:"server_pin,omitempty"`
	// Sessions is how many calls may be with it at a time, Timeout how long one
	// may take in milliseconds; absent for the usual.
	Sessions int   `json:"sessions,omitempty"`
	Timeout  int64 `json:"timeout,omitempty"`
}

// KeystoreRemoved ends the use of a token or server. Its keys stay on it. It stands
// under Instance.
type KeystoreRemoved struct {
	Name string `json:"name"`
}

// EventType implements Facts.
func (*KeystoreAdded) EventType() string { return "keystore.added" }

// EventType implements Facts.
func (*KeystoreRemoved) EventType() string { return "keystore.removed" }
