package event

import "cmp"

// Chunk is one chunk of a manifest.
type Chunk struct {
	SHA256 Hash   `json:"sha256"` // of the raw, uncompressed chunk
	Seq    uint64 `json:"seq"`    // sequence in BULK: a hint, the hash decides
	Items  uint64 `json:"items"`
	Bytes  uint64 `json:"bytes"` // raw length
}

// Manifest names the chunks that hold an instance's items. It stands in the
// event that commits them.
type Manifest struct {
	// Subject is the BULK subject of the chunks: bulk.<zone-id>.<command-hash>.
	Subject string `json:"subject"`
	// Chunks in order; their items are in ascending key order throughout.
	Chunks []Chunk `json:"chunks,omitempty"`
	// Indirect is set instead of Chunks where there are more than MaxDirect:
	// chunks that each hold a JSON array with a part of the list, in order.
	Indirect []Chunk `json:"indirect,omitempty"`
	// Count is the number of chunks in the list.
	Count uint64 `json:"count"`
}

// LoadFailed says why new input was refused; the last good contents stay.
type LoadFailed struct {
	Source string   `json:"source"`
	Reason string   `json:"reason"` // one line
	Errors []string `json:"errors,omitempty"`
	Total  uint64   `json:"total"` // errors found; Errors holds the first ones
}

// InstanceLoaded commits a loaded instance: l<sequence of this event>.
type InstanceLoaded struct {
	Source string `json:"source"`
	Serial uint32 `json:"serial"` // as the source had it
	// Base is the sequence of the instance.loaded that the items are a diff
	// to; 0 where they are the whole contents, a new generation.
	Base uint64 `json:"base,omitempty"`
	// Manifest holds items of zone.KindContents, and the digest state.
	Manifest      Manifest          `json:"manifest"`
	ContentDigest Hash              `json:"content_digest"`
	RRsets        uint64            `json:"rrsets"`             // of the whole instance
	Records       uint64            `json:"records"`            // of the whole instance
	Added         uint64            `json:"added"`              // records
	Removed       uint64            `json:"removed"`            // records
	MaxTTL        uint32            `json:"max_ttl"`            // no TTL of the instance is above it, in seconds
	Stripped      map[string]uint64 `json:"stripped,omitempty"` // signer's own records dropped from input, by type
	Notices       []string          `json:"notices,omitempty"`
	DurationMS    uint64            `json:"duration_ms"`
	// Peer is the server that the zone came from, Transfer "AXFR" or "IXFR"
	// and Bytes what it sent; empty where Source is a file. Of what dynamic
	// updates made Transfer is ByUpdate, and Peer is empty.
	Peer     string `json:"peer,omitempty"`
	Transfer string `json:"transfer,omitempty"`
	Bytes    uint64 `json:"bytes,omitempty"`
	// PassThrough: the instance keeps the DNSSEC records of the input, in items
	// of all kinds, to be published as they are; else they were stripped. Its
	// content digest then covers them too, and Records counts them.
	PassThrough bool   `json:"pass_through,omitempty"`
	Signatures  uint64 `json:"signatures,omitempty"`      // RRSIG records kept
	Earliest    int64  `json:"earliest_expiry,omitempty"` // epoch seconds; no RRSIG kept ends before it
	// ZONEMD says what became of the ZONEMD records of the input: verified,
	// unsupported, unchecked; empty where there was none.
	ZONEMD string `json:"zonemd,omitempty"`
	// Rollback is set where the contents are those of an earlier instance: the
	// sequence of its instance.loaded. Source then names it in words.
	Rollback uint64 `json:"rollback,omitempty"`
	// PeerIdentity is what Peer proved to be; nil where Source is a file.
	PeerIdentity *PeerIdentity `json:"peer_identity,omitempty"`
	// Software is what loaded it: version and build, see Software.
	Software string `json:"software,omitempty"`
	// Updates is how many dynamic updates were applied to Base. UpdatesTo is the
	// sequence of the last update.accepted that it has, or, where it came from
	// the source, that it takes the place of.
	Updates   uint64 `json:"updates,omitempty"`
	UpdatesTo uint64 `json:"updates_to,omitempty"`
}

// PeerIdentity is what a server that a zone was taken from proved to be.
type PeerIdentity struct {
	Address string `json:"address"` // without a port
	// Key is the TSIG key whose signatures cover all that came, Algorithm its
	// algorithm, such as hmac-sha256.
	Key       string `json:"key,omitempty"`
	Algorithm string `json:"algorithm,omitempty"`
	// Over TLS: Pin is that of the public key that it has (sha256: and base64,
	// RFC 7858, 4.2), Certificate the SHA-256 of its certificate, and Name what
	// that was valid for up to a trusted root, where that was asked.
	Pin         string `json:"tls_pin,omitempty"`
	Certificate string `json:"tls_certificate,omitempty"`
	Name        string `json:"tls_name,omitempty"`
}

// InstanceSigned commits a signed instance: s<sequence of this event>.
type InstanceSigned struct {
	Loaded   uint64 `json:"loaded"` // sequence of the instance.loaded that was signed
	Serial   uint32 `json:"serial"`
	Previous uint32 `json:"previous_serial,omitempty"`
	// Base is the sequence of the instance.signed that the items are a diff
	// to; 0 where they are all that the signer made, a new generation.
	Base uint64 `json:"base,omitempty"`
	// Mode is empty where the signer signed, "unsigned" where it made only the
	// SOA, and "pass-through" where everything is the loaded instance's.
	Mode          string   `json:"mode,omitempty"`
	Manifest      Manifest `json:"manifest"`
	ContentDigest Hash     `json:"content_digest"`
	SignedDigest  Hash     `json:"signed_digest"`
	Keys          []string `json:"keys"`    // IDs of the keys in the DNSKEY RRset
	Signers       []string `json:"signers"` // IDs of the keys that sign
	Denial        string   `json:"denial"`  // nsec, nsec3, nsec3-opt-out
	Params        string   `json:"params"`  // the policy's signing parameters in one line
	Records       uint64   `json:"records"` // of the whole instance, RRSIGs too
	Signatures    uint64   `json:"signatures"`
	Made          uint64   `json:"made"`   // signatures made new
	Reused        uint64   `json:"reused"` // signatures taken over
	Verified      uint64   `json:"verified"`
	Inception     int64    `json:"inception"`       // epoch seconds, of new signatures
	Expiration    int64    `json:"expiration"`      // epoch seconds, of new signatures
	Earliest      int64    `json:"earliest_expiry"` // epoch seconds, of all signatures
	DurationMS    uint64   `json:"duration_ms"`
	// CDS is the IDs of the keys in CDS and CDNSKEY, or "delete" alone where
	// these ask for the removal of all DS records (RFC 8078, 4).
	CDS []string `json:"cds,omitempty"`
	// SignedBy counts RRsets by the keys whose signatures they have; absent
	// where they were not counted: then all are by Signers.
	SignedBy []SignedBy `json:"signed_by,omitempty"`
	// Exchange is how far signatures are exchanged that are not by Signers; absent
	// where they are or were exchanged at once.
	Exchange *Exchange `json:"exchange,omitempty"`
	// Parts is who signed how much of it, by worker; absent where one process
	// signed all.
	Parts []SignedParts `json:"parts,omitempty"`
	// Against the instance that it is a diff to: NewSets is how many RRsets have
	// a signature that was made new, Dropped how many signatures went, and Denial
	// records (NSEC or NSEC3) that came, went or are others are DenialChanged.
	// Where there is no such instance nothing went, and all denial records came.
	NewSets       uint64 `json:"rrsets_signed,omitempty"`
	Dropped       uint64 `json:"dropped,omitempty"`
	DenialChanged uint64 `json:"denial_changed,omitempty"`
	// Software is what signed it, see Software; of Parts each has its own.
	Software string `json:"software,omitempty"`
}

// SignedParts is what a worker signed of an instance.
type SignedParts struct {
	Worker     string `json:"worker"`
	Parts      uint64 `json:"parts"`
	Signatures uint64 `json:"signatures"` // new ones
	// Software is what signed them, where that is another one than the event's.
	Software string `json:"software,omitempty"`
}

// SignedBy is how many RRsets have signatures by certain keys and by no
// others. DNSKEY, CDS and CDNSKEY at the apex do not count.
type SignedBy struct {
	Keys   []string `json:"keys"` // IDs, sorted
	RRsets uint64   `json:"rrsets"`
}

// Exchange tells how signatures are exchanged once other keys sign: an RRset has
// its turn when its signatures are made again, or by when the first of them
// expires. All times are in epoch seconds.
type Exchange struct {
	Since  int64  `json:"since"`  // when it began
	Until  int64  `json:"until"`  // when all is to be done
	From   int64  `json:"from"`   // RRsets that expire from here on
	To     int64  `json:"to"`     // and before here have their turn in slices,
	Slices uint64 `json:"slices"` // so many, evenly spread over the time
	// Reached: those that expire before here have had it.
	Reached int64 `json:"reached"`
}

// CDSDelete stands in InstanceSigned.CDS for the request to remove all DS
// records.
const CDSDelete = "delete"

// SignFailed says why a loaded instance could not be signed, or did not pass
// the egress gate; what is published stays.
type SignFailed struct {
	Loaded uint64   `json:"loaded"`
	Stage  string   `json:"stage"` // sign, verify
	Reason string   `json:"reason"`
	Errors []string `json:"errors,omitempty"`
	// WorkerRole is the role of the worker that found it, where workers share
	// the zone's work: review, publish; empty is sign.
	WorkerRole string `json:"worker_role,omitempty"`
	// Faults is how many there are in all, where Errors holds the first ones.
	Faults uint64 `json:"faults,omitempty"`
}

// InstancePublished says that a signed instance is served from here on.
type InstancePublished struct {
	Signed       uint64 `json:"signed"` // sequence of its instance.signed
	Loaded       uint64 `json:"loaded"`
	Serial       uint32 `json:"serial"`
	SignedDigest Hash   `json:"signed_digest"`
	// Keep bounds the differences that are kept for IXFR, this one included;
	// nil is 20 steps and no more than the zone itself.
	Keep *DiffLimits `json:"keep,omitempty"`
	// Software is what verified it at the egress gate and let it out, see
	// Software.
	Software string `json:"software,omitempty"`
	// Gate is what the egress gate looked at; nil where it did so when the
	// instance's review was opened.
	Gate *Gate `json:"gate,omitempty"`
}

// Gate is what the egress gate looked at before it passed an instance: all of
// it, or what differs from the published one that it is a diff to.
type Gate struct {
	RRsets     uint64 `json:"rrsets"`     // RRSIGs not counted
	Signatures uint64 `json:"signatures"` // RRSIG records
	Verified   uint64 `json:"verified"`   // of these, with the public key
}

// DiffLimits bounds the differences between published instances that a zone
// keeps, which are never more than the zone itself.
type DiffLimits struct {
	Steps uint64 `json:"steps"` // 0 keeps none
	Bytes uint64 `json:"bytes"` // in wire form, all steps together; 0 sets no limit
}

// InstanceFetched says which peers took published instances by transfer. What
// a peer takes again is not told again.
type InstanceFetched struct {
	Fetches []Fetch `json:"fetches"` // at least one
}

// Fetch is one transfer of a published instance, or of the way to it.
type Fetch struct {
	Signed uint64 `json:"signed"` // sequence of its instance.signed
	Serial uint32 `json:"serial"`
	// Key is the TSIG key that the peer signed with, Certificate the name
	// that it proved over TLS; Address is where it asked from.
	Key         string `json:"key,omitempty"`
	Certificate string `json:"certificate,omitempty"`
	Address     string `json:"address"`
	TLS         bool   `json:"tls,omitempty"`
	Transfer    string `json:"transfer"` // AXFR or IXFR
	Time        int64  `json:"time"`     // epoch seconds of its end
}

// Peer is who took it: the TSIG key, else the name in the certificate, else
// the address.
func (f Fetch) Peer() string { return cmp.Or(f.Key, f.Certificate, f.Address) }

// BulkSwept says that chunks that no manifest names are about to be purged
// from this zone. A writer that meets it sends its chunks again.
type BulkSwept struct {
	Chunks uint64 `json:"chunks"`
	Bytes  uint64 `json:"bytes"`
	Until  uint64 `json:"until"` // sequences in BULK up to here
}

// EventType implements Facts.
func (*LoadFailed) EventType() string { return "load.failed" }

// EventType implements Facts.
func (*InstanceLoaded) EventType() string { return "instance.loaded" }

// EventType implements Facts.
func (*InstanceSigned) EventType() string { return "instance.signed" }

// EventType implements Facts.
func (*SignFailed) EventType() string { return "sign.failed" }

// EventType implements Facts.
func (*InstancePublished) EventType() string { return "instance.published" }

// EventType implements Facts.
func (*InstanceFetched) EventType() string { return "instance.fetched" }

// EventType implements Facts.
func (*BulkSwept) EventType() string { return "bulk.swept" }
