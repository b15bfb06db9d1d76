package event

// Key is a key as its first event describes it. The private part never
// stands in an event.
type Key struct {
	ID        string `json:"id"`        // first 16 hex digits of SHA-256 over the DNSKEY RDATA
	Role      string `json:"key_role"`  // ksk, zsk, csk
	Algorithm uint8  `json:"algorithm"` // IANA number
	Tag       uint16 `json:"tag"`       // RFC 4034, appendix B
	DNSKEY    string `json:"dnskey"`    // the whole DNSKEY RDATA in base64
	Keystore  string `json:"keystore"`  // name of the keystore that holds it
	Reference string `json:"reference"` // where in the keystore
	// Adopted: another program made the private part in the keystore. It is not
	// deleted from here.
	Adopted bool `json:"adopted,omitempty"`
	// Life is what a former signer noted of an imported key; nil where nothing
	// was noted.
	Life *KeyLife `json:"life,omitempty"`
}

// KeyGenerated says that keys were made. They neither stand in the DNSKEY
// RRset nor sign yet.
type KeyGenerated struct {
	Keys  []Key `json:"keys"`
	Ahead bool  `json:"ahead,omitempty"` // before anything needs them
}

// KeyImported says that keys came from elsewhere.
type KeyImported struct {
	Keys []Key  `json:"keys"`
	From string `json:"from"` // file or URI
	// Foreign: they are the public keys of another signer of the zone (RFC
	// 8901), whose private parts are not here.
	Foreign bool `json:"foreign,omitempty"`
}

// KeyPublished says that keys stand in the DNSKEY RRset from the next signed
// instance on.
type KeyPublished struct {
	IDs []string `json:"ids"`
}

// KeyActivated says that keys sign from the next signed instance on; they are
// published with it. Each proved itself: its keystore signed and the public
// key verified it.
type KeyActivated struct {
	IDs []string `json:"ids"`
	// Lives is for how long from here on the policy in force means to use them;
	// keys that are not there are used until somebody decides otherwise.
	Lives []PlannedLife `json:"planned_lives,omitempty"`
}

// PlannedLife is for how long a key is meant to be used.
type PlannedLife struct {
	ID      string `json:"id"`
	Seconds uint64 `json:"seconds"` // from its activation until it is gone
}

// KeyIntroduced says that keys sign from the next signed instance on without
// standing in the DNSKEY RRset: an algorithm's signatures come before its keys
// (RFC 6781, 4.1.4). Each proved itself.
type KeyIntroduced struct {
	IDs []string `json:"ids"`
}

// KeyWithdrawn says that keys leave the DNSKEY RRset and go on signing: an
// algorithm's keys go before its signatures (RFC 6781, 4.1.4).
type KeyWithdrawn struct {
	IDs []string `json:"ids"`
}

// KeyRetired says that keys sign no longer but stay published.
type KeyRetired struct {
	IDs []string `json:"ids"`
}

// KeyRemoved says that keys leave the DNSKEY RRset.
type KeyRemoved struct {
	IDs []string `json:"ids"`
}

// EventType implements Facts.
func (*KeyGenerated) EventType() string { return "key.generated" }

// EventType implements Facts.
func (*KeyImported) EventType() string { return "key.imported" }

// EventType implements Facts.
func (*KeyPublished) EventType() string { return "key.published" }

// EventType implements Facts.
func (*KeyActivated) EventType() string { return "key.activated" }

// KeyDestroyed says that the private parts of removed keys were deleted from
// their keystores.
type KeyDestroyed struct {
	IDs []string `json:"ids"`
}

// EventType implements Facts.
func (*KeyDestroyed) EventType() string { return "key.destroyed" }

// EventType implements Facts.
func (*KeyIntroduced) EventType() string { return "key.introduced" }

// EventType implements Facts.
func (*KeyWithdrawn) EventType() string { return "key.withdrawn" }

// EventType implements Facts.
func (*KeyRetired) EventType() string { return "key.retired" }

// EventType implements Facts.
func (*KeyRemoved) EventType() string { return "key.removed" }

// Keys returns the keys that an event describes.
func Keys(f Facts) []Key {
	switch f := f.(type) {
	case *KeyGenerated:
		return f.Keys
	case *KeyImported:
		return f.Keys
	default:
		return nil
	}
}

// KeyIDs returns the IDs of keys that an event says something new of.
func KeyIDs(f Facts) []string {
	switch f := f.(type) {
	case *KeyPublished:
		return f.IDs
	case *KeyActivated:
		return f.IDs
	case *KeyIntroduced:
		return f.IDs
	case *KeyWithdrawn:
		return f.IDs
	case *KeyRetired:
		return f.IDs
	case *KeyRemoved:
		return f.IDs
	case *KeyDestroyed:
		return f.IDs
	case *KeyProved:
		return f.IDs
	default:
		return nil
	}
}
