package event

import "encoding/hex"

// DS is a DS record at the parent.
type DS struct {
	Tag        uint16 `json:"tag"`
	Algorithm  uint8  `json:"algorithm"`
	DigestType uint8  `json:"digest_type"`
	Digest     string `json:"digest"` // lower-case hex
	// Key is the ID of the zone's key that it stands for; empty where it stands
	// for none.
	Key string `json:"key,omitempty"`
}

// Bytes is the digest.
func (d DS) Bytes() ([]byte, error) { return hex.DecodeString(d.Digest) }

// DSSubmitted says which keys the parent is to have DS records of, and of no
// other, from here on. Those with CDS set stand in CDS and CDNSKEY from the next
// signed instance on (RFC 7344); without it the set is to be handed over by
// other means, and the zone has neither record.
type DSSubmitted struct {
	IDs []string `json:"ids"`
	CDS bool     `json:"cds"`
}

// DSWithdrawn says that the parent is to have no DS any more: CDS and CDNSKEY
// ask for their deletion from the next signed instance on (RFC 8078, 4).
type DSWithdrawn struct {
	CDS bool `json:"cds"`
}

// DSObserved says what the parent's servers have, when that changed.
type DSObserved struct {
	// Sets is the different DS RRsets that were handed out, one where all
	// servers agree. An empty one is proven absence. All are validated, or
	// reported by a person.
	Sets []DSSet `json:"sets"`
	// Servers is how many addresses were asked; 0 where a person reported it.
	Servers uint64 `json:"servers,omitempty"`
	// Unreachable names those that gave no usable answer.
	Unreachable []string `json:"unreachable,omitempty"`
	// Time is when the asking began, in epoch seconds.
	Time int64 `json:"time"`
}

// DSSet is one DS RRset.
type DSSet struct {
	DS  []DS   `json:"ds,omitempty"`
	TTL uint32 `json:"ttl"` // in seconds, the largest that was seen
}

// CDSChanged says whether CDS and CDNSKEY, from the next signed instance on,
// say what the parent is to have, which does not change.
type CDSChanged struct {
	CDS    bool   `json:"cds"`
	Reason string `json:"reason,omitempty"`
}

// DSPushed is a dynamic update (RFC 2136) of the DS RRset at the parent, or an
// attempt at it.
type DSPushed struct {
	// Request is the number of the ds.submitted or ds.withdrawn that it follows.
	Request uint64 `json:"request"`
	// Server is the one that answered last, Zone the zone that holds the DS.
	Server string `json:"server,omitempty"`
	Zone   string `json:"zone,omitempty"`
	// Rcode is its answer in words; empty where none came.
	Rcode string `json:"rcode,omitempty"`
	// Added and Removed is what the update changed; both are empty where the
	// parent had what it is to have. Kept is what it has besides and is not ours
	// to remove.
	Added   []DS `json:"added,omitempty"`
	Removed []DS `json:"removed,omitempty"`
	Kept    []DS `json:"kept,omitempty"`
	// Error says why it failed; empty where it did not.
	Error string `json:"error,omitempty"`
}

// DSNotified is a NOTIFY(CDS) to the parent's agent (RFC 9859), or an attempt
// at it.
type DSNotified struct {
	// Request is the number of the ds.submitted or ds.withdrawn that it follows.
	Request uint64 `json:"request"`
	// None: the parent is proven, or says unsigned, to name no agent.
	None bool `json:"none,omitempty"`
	// Owner is where its DSYNC RRset stands, Target whom that names, with port.
	Owner  string `json:"owner,omitempty"`
	Target string `json:"target,omitempty"`
	// Validated: the DSYNC RRset was validated from a trust anchor down; else the
	// parent is proven not to be signed.
	Validated bool `json:"validated,omitempty"`
	// Server is the address that answered last, Rcode its answer in words.
	Server string `json:"server,omitempty"`
	Rcode  string `json:"rcode,omitempty"`
	// Error says why it failed; empty where it did not.
	Error string `json:"error,omitempty"`
}

// SignalPushed is a dynamic update (RFC 2136) of the records by which the
// operator of name servers vouches for the zone's CDS and CDNSKEY (RFC 9615), or
// an attempt at it.
type SignalPushed struct {
	// Keys is what they say, as InstanceSigned.CDS; empty where they are removed.
	Keys []string `json:"keys,omitempty"`
	// Owners is where they stand now, or stood; of an attempt that failed those
	// that were reached.
	Owners []string `json:"owners,omitempty"`
	// Error says why it failed; empty where it did not.
	Error string `json:"error,omitempty"`
}

// HookRan is a run of a hook that tells the parent, or somebody, about DS.
type HookRan struct {
	// Request is the number of the ds.submitted or ds.withdrawn that it follows.
	Request uint64 `json:"request"`
	// Event is ds-ready or ds-gone.
	Event string `json:"event"`
	// Number is the hook's in the policy, from 1.
	Number uint64 `json:"number"`
	// Error says why it failed; empty where it did not.
	Error string      `json:"error,omitempty"`
	Hook  HookOutcome `json:"hook"`
}

// EventType implements Facts.
func (*CDSChanged) EventType() string { return "cds.changed" }

// EventType implements Facts.
func (*DSPushed) EventType() string { return "ds.pushed" }

// EventType implements Facts.
func (*DSNotified) EventType() string { return "ds.notified" }

// EventType implements Facts.
func (*SignalPushed) EventType() string { return "signal.pushed" }

// EventType implements Facts.
func (*HookRan) EventType() string { return "hook.ran" }

// EventType implements Facts.
func (*DSSubmitted) EventType() string { return "ds.submitted" }

// EventType implements Facts.
func (*DSWithdrawn) EventType() string { return "ds.withdrawn" }

// EventType implements Facts.
func (*DSObserved) EventType() string { return "ds.observed" }
