package event

// KeyLife is what the former signer of an imported key noted of it. Times are
// epoch seconds, 0 where it noted none.
type KeyLife struct {
	// State is how the key stands by these notes, read in the way in which
	// nothing that a cache holds becomes bogus: generated, published, active,
	// retired, removed.
	State string `json:"state"`
	// Notes tells what the former signer's notes lack or contradict, and how
	// that was read.
	Notes []string `json:"notes,omitempty"`

	TTL uint32 `json:"ttl,omitempty"` // of the DNSKEY record, in seconds

	Created     int64 `json:"created,omitempty"`
	Published   int64 `json:"published,omitempty"`
	Activated   int64 `json:"activated,omitempty"`
	Retired     int64 `json:"retired,omitempty"` // signs no longer from then on
	Revoked     int64 `json:"revoked,omitempty"`
	Removed     int64 `json:"removed,omitempty"`
	DSPublished int64 `json:"ds_published,omitempty"`
	DSRemoved   int64 `json:"ds_removed,omitempty"`
	CDS         int64 `json:"cds,omitempty"`        // stands in CDS and CDNSKEY from then on
	CDSDelete   int64 `json:"cds_delete,omitempty"` // no longer from then on

	Lifetime    uint64 `json:"lifetime,omitempty"`    // in seconds; 0: not limited, or not noted
	Predecessor uint16 `json:"predecessor,omitempty"` // key tag
	Successor   uint16 `json:"successor,omitempty"`   // key tag

	// Goal is what the key is to become: omnipresent or hidden; empty where no
	// states were noted.
	Goal string `json:"goal,omitempty"`
	// How far each of its records has got around, in BIND's words.
	DNSKEY   *Spread `json:"dnskey_spread,omitempty"`
	ZoneSigs *Spread `json:"zone_rrsig_spread,omitempty"`
	KeySigs  *Spread `json:"key_rrsig_spread,omitempty"`
	DS       *Spread `json:"ds_spread,omitempty"`
}

// Spread says how far a record has got around.
type Spread struct {
	// State is hidden (no cache holds it), rumoured (some may), omnipresent (all
	// that hold such records hold it) or unretentive (withdrawn, some may still
	// hold it).
	State string `json:"state"`
	Since int64  `json:"since,omitempty"` // in epoch seconds
}

// KeyAdopted says that keys of a former signer stand from the next signed
// instance on as they stood there, since the times that it noted. Those that
// sign proved themselves.
type KeyAdopted struct {
	Keys []AdoptedKey `json:"keys"`
	// KeyTTL is the largest TTL of the former DNSKEY RRset, in seconds, that
	// caches may hold.
	KeyTTL uint32   `json:"key_ttl,omitempty"`
	Notes  []string `json:"notes,omitempty"` // what was found, and how it was read
}

// AdoptedKey is how a key stands. Times are epoch seconds, 0 where it has not
// happened.
type AdoptedKey struct {
	ID        string `json:"id"`
	State     string `json:"state"` // published, introduced, active, retired, removed
	Published int64  `json:"published,omitempty"`
	Activated int64  `json:"activated,omitempty"`
	Retired   int64  `json:"retired,omitempty"`
	Removed   int64  `json:"removed,omitempty"`
}

// KeyExported says that the private part of a key was given out.
type KeyExported struct {
	ID string `json:"id"`
}

// EventType implements Facts.
func (*KeyAdopted) EventType() string { return "key.adopted" }

// EventType implements Facts.
func (*KeyExported) EventType() string { return "key.exported" }
