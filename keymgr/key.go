package keymgr

import (
	"time"

	"sluice/journal/event"
)

// State is where a key stands in its life (RFC 7583, 3.1).
type State string

// The states. Ready and dead have no event: they follow from times, see
// Key.StateAt.
const (
	Generated State = "generated" // made, not in the DNSKEY RRset
	Published State = "published" // in the DNSKEY RRset, caches may not have it yet
	Ready     State = "ready"     // published for so long that every cache has it
	Active    State = "active"    // it signs
	Retired   State = "retired"   // signs no longer, still published
	Dead      State = "dead"      // nothing that a cache holds needs it any more
	Removed   State = "removed"   // out of the DNSKEY RRset
	Revoked   State = "revoked"   // published with the REVOKE bit (RFC 5011, 2.1)

	// An algorithm's signatures come before its keys and go after them (RFC
	// 6781, 4.1.4): these sign without standing in the DNSKEY RRset.
	Introduced State = "introduced"
	Withdrawn  State = "withdrawn"
)

// Key is one key of a zone and its life up to now. Times are those of the
// events, in UTC; zero where it has not happened.
type Key struct {
	event.Key
	State     State     `json:"state"`
	Generated time.Time `json:"generated,omitzero"` // made or imported
	Imported  bool      `json:"imported,omitempty"`
	// Foreign: it is a public key of another signer of the zone (RFC 8901). It
	// is published and never signs here.
	Foreign   bool      `json:"foreign,omitempty"`
	BackedUp  time.Time `json:"backed_up,omitzero"` // by the word of a person
	Proved    []Proof   `json:"proved,omitempty"`   // by worker; each proved that it holds the private part
	Published time.Time `json:"published,omitzero"`
	Activated time.Time `json:"activated,omitzero"`
	Retired   time.Time `json:"retired,omitzero"`
	Removed   time.Time `json:"removed,omitzero"`
	Destroyed time.Time `json:"destroyed,omitzero"` // the private part was deleted
}

// InRRset reports whether the key stands in the DNSKEY RRset.
func (k *Key) InRRset() bool {
	switch k.State {
	case Published, Ready, Active, Retired, Dead, Revoked:
		return true
	case Generated, Removed, Introduced, Withdrawn:
	}
	return false
}

// Signs reports whether the key makes signatures.
func (k *Key) Signs() bool { return k.State == Active || k.State == Introduced || k.State == Withdrawn }

// SignsKeys reports whether the key's role is to sign the DNSKEY, CDS and
// CDNSKEY RRsets.
func (k *Key) SignsKeys() bool { return k.HasRole(KSK) || k.HasRole(CSK) }

// SignsZone reports whether the key's role is to sign everything else.
func (k *Key) SignsZone() bool { return k.HasRole(ZSK) || k.HasRole(CSK) }

// HasRole reports whether the key's role is r.
func (k *Key) HasRole(r Role) bool { return k.Role == string(r) }

// StateAt is the state with the two that only time brings: a published key is
// ready once spread has passed since it was published, a retired one dead once
// gone has passed since it was retired (RFC 7583, 3.1). spread is the zone's
// propagation delay plus the DNSKEY TTL, gone the propagation delay plus the
// largest TTL that the key signed.
func (k *Key) StateAt(now time.Time, spread, gone time.Duration) State {
	switch {
	case k.State == Published && !now.Before(k.Published.Add(spread)):
		return Ready
	case k.State == Retired && !now.Before(k.Retired.Add(gone)):
		return Dead
	}
	return k.State
}
