package keymgr

import (
	"encoding/hex"
	"net/netip"
	"slices"
	"time"

	"sluice/journal/event"
	"sluice/signer/zone"
)

// Observation is what the world showed of a zone when it was last asked: every
// address of every public name server, and of every server of the parent.
type Observation struct {
	// At is when the asking began: what it says was so at that time or later.
	At time.Time `json:"at"`
	// Zone is the zone's public name servers, one entry an address. A server
	// whose addresses are not known has one entry with Error.
	Zone []Seen `json:"zone,omitempty"`
	// Parent is the parent's servers, likewise.
	Parent []Seen `json:"parent,omitempty"`
	// KeyTTL and DSTTL are the largest TTLs of the DNSKEY and DS RRsets that a
	// cache may still hold, in seconds; 0 where none was ever seen.
	KeyTTL uint32 `json:"key_ttl,omitempty"`
	DSTTL  uint32 `json:"ds_ttl,omitempty"`
	// KeysSince is since when all public servers show keys that stand by in the
	// DNSKEY RRset, by ID.
	KeysSince map[string]time.Time `json:"keys_since,omitempty"`
	// ParentMargin is REFRESH + RETRY of the parent's SOA, in seconds; 0 where
	// that was never seen.
	ParentMargin uint32 `json:"parent_margin,omitempty"`
}

// Seen is what one address of a server answered.
type Seen struct {
	Server  string         `json:"server"`  // its name, or its address where that is all that is known
	Address netip.AddrPort `json:"address"` // zero where none is known
	// Error says why it gave no usable answer; all below but Since is empty
	// then.
	Error string `json:"error,omitempty"`
	// Since is from when on it has answered as it does now: with an error, or
	// without.
	Since time.Time `json:"since,omitzero"`

	// What a server of the zone shows.

	Serial uint32          `json:"serial,omitempty"`  // of its SOA
	Keys   []string        `json:"keys,omitempty"`    // IDs of the keys in its DNSKEY RRset
	Tags   []uint16        `json:"tags,omitempty"`    // of the same keys, where they were asked for
	KeyTTL uint32          `json:"key_ttl,omitempty"` // of its DNSKEY RRset, in seconds
	Signed []SeenSignature `json:"signed,omitempty"`  // the RRSIGs of SOA, DNSKEY, CDS, CDNSKEY and of samples
	// CDS and CDNSKEY are what its RRsets of these types name: IDs of keys in
	// its DNSKEY RRset, event.CDSDelete for the request to remove all DS
	// (RFC 8078, 4), for others what the record says. Sorted.
	CDS     []string `json:"cds,omitempty"`
	CDNSKEY []string `json:"cdnskey,omitempty"`

	// What a server of the parent shows.

	DS    []event.DS `json:"ds,omitempty"`
	DSTTL uint32     `json:"ds_ttl,omitempty"` // in seconds
	// Margin is REFRESH + RETRY of its SOA, in seconds, where that was validated.
	Margin uint32 `json:"margin,omitempty"`
	// Validated: the DS RRset, or the proof that there is none, was validated
	// from a trust anchor down. What was not does not count.
	Validated bool `json:"validated,omitempty"`
	// Unvalidated says why not. Insecure: because the parent is proven not to be
	// signed, so that nobody can validate a DS from there.
	Unvalidated string `json:"unvalidated,omitempty"`
	Insecure    bool   `json:"insecure,omitempty"`
	// NoDS: it is proven that there is no DS.
	NoDS bool `json:"no_ds,omitempty"`
}

// SeenSignature is one RRSIG of an answer.
type SeenSignature struct {
	Owner     string `json:"owner"` // as in the answer
	Type      string `json:"type"`  // the type covered
	Tag       uint16 `json:"tag"`
	Algorithm uint8  `json:"algorithm"`
	// Key is the ID of the key in the server's DNSKEY RRset that it verifies
	// with; empty where there is none.
	Key string `json:"key,omitempty"`
}

// Note takes over from the observation before what holds on, and notes since when
// all public servers show the keys that stand by. ended is when the last server
// was asked. A server that says nothing changes nothing; one that is new, or
// does not show a key, has that begin anew.
func (o *Observation) Note(last *Observation, standby []Key, ended time.Time) {
	o.KeysSince = nil
	known := map[string]bool{}
	if last != nil {
		o.ParentMargin = max(o.ParentMargin, last.ParentMargin)
		for _, s := range last.Zone {
			known[s.Server+" "+s.Address.String()] = true
		}
	}
	var margin uint32
	for _, s := range o.Parent {
		margin = max(margin, s.Margin)
	}
	if margin > 0 {
		o.ParentMargin = margin
	}
	for i := range standby {
		id := standby[i].ID
		shown, silent, grown := len(o.Zone) > 0, false, false
		for _, s := range o.Zone {
			grown = grown || !known[s.Server+" "+s.Address.String()]
			silent = silent || s.Error != ""
			shown = shown && (s.Error != "" || slices.Contains(s.Keys, id))
		}
		var since time.Time
		if last != nil {
			since = last.KeysSince[id]
		}
		switch {
		case !shown, silent && (grown || since.IsZero()):
			continue
		case grown || since.IsZero():
			since = ended
		}
		if o.KeysSince == nil {
			o.KeysSince = map[string]time.Time{}
		}
		o.KeysSince[id] = since
	}
}

// Failed lists the entries that gave no usable answer; of the parent's also
// those whose answer was not validated.
func Failed(seen []Seen, parent bool) []Seen {
	var out []Seen
	for _, s := range seen {
		if s.Error != "" || parent && !s.Validated {
			out = append(out, s)
		}
	}
	return out
}

// DSKey is the ID of the key among keys that a DS of the zone stands for; ""
// where there is none, or where the digest type is not known here.
func DSKey(owner zone.Name, ds event.DS, keys []Key) string {
	digest, err := ds.Bytes()
	if err != nil {
		return ""
	}
	for _, k := range keys {
		if k.Tag != ds.Tag || k.Algorithm != ds.Algorithm {
			continue
		}
		rdata, err := RData(k.Key)
		if err != nil {
			continue
		}
		if own, err := DS(owner, rdata, ds.DigestType); err == nil && slices.Equal(own[4:], digest) {
			return k.ID
		}
	}
	return ""
}

// DSOf is the DS record of a key, as the parent has it.
func DSOf(owner zone.Name, k Key, digest uint8) (event.DS, error) {
	rdata, err := RData(k.Key)
	if err != nil {
		return event.DS{}, err
	}
	ds, err := DS(owner, rdata, digest)
	if err != nil {
		return event.DS{}, err
	}
	return event.DS{Tag: k.Tag, Algorithm: k.Algorithm, DigestType: digest, Digest: hex.EncodeToString(ds[4:]), Key: k.ID}, nil
}
