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

// EventType implements Facts.
func (*DSSubmitted) EventType() string { return "ds.submitted" }

// EventType implements Facts.
func (*DSWithdrawn) EventType() string { return "ds.withdrawn" }

// EventType implements Facts.
func (*DSObserved) EventType() string { return "ds.observed" }
