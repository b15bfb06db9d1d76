package signer

import (
	"crypto"
	"time"

	"sluice/signer/zone"
)

// Denial is how non-existence is proved.
type Denial string

// The denial types, as policies and events write them.
const (
	NSEC        Denial = "nsec"
	NSEC3       Denial = "nsec3"
	NSEC3OptOut Denial = "nsec3-opt-out"
)

// Key is a key that stands in the DNSKEY RRset, signs, or both.
type Key struct {
	DNSKEY []byte        // RDATA (RFC 4034, 2.1)
	Signer crypto.Signer // nil: published only
	// SignsKeys: it signs DNSKEY, CDS and CDNSKEY at the apex (a KSK's part).
	SignsKeys bool
	// SignsZone: it signs everything else (a ZSK's part).
	SignsZone bool
	Published bool // it stands in the DNSKEY RRset
	CDS       bool // CDS and CDNSKEY name it
}

// Params is everything but contents and keys that a signed zone follows from.
type Params struct {
	Apex       zone.Name
	Serial     zone.Serial // of the signed SOA
	Inception  time.Time
	Expiration time.Time
	// Jitter spreads expirations over a window of this length: each RRset has
	// a place in it, a hash of owner and type that never changes, and its
	// signatures expire at the last time not after Expiration that is at that
	// place of some window, counted from 1970. So they stay spread however
	// much is signed at once, and a signature made again before it expires
	// gains whole windows. It must leave every signature valid beyond Refresh.
	// Zero spreads nothing.
	Jitter time.Duration
	// Refresh: a signature of the previous instance whose expiration is
	// before it is made again.
	Refresh time.Time

	Denial     Denial
	Iterations uint16 // RFC 9276 wants 0
	Salt       []byte // RFC 9276 wants none

	DNSKEYTTL uint32  // of DNSKEY, CDS and CDNSKEY, in seconds
	CDSDigest []uint8 // DS digest types that CDS lists; RFC 4509: 2, RFC 6605: 4
	// CDSDelete has CDS and CDNSKEY ask the parent to remove all DS records
	// (RFC 8078, 4), whatever the keys say.
	CDSDelete bool
	ZONEMD    bool // make a ZONEMD record (RFC 8976: SIMPLE, SHA-384)

	Workers int // signing goroutines; 0: one a core
	// Spread, where set, lets signatures of the previous instance stay that are
	// by other keys than those that sign; Update follows it by what it is told
	// to exchange.
	Spread *Spread
	// Progress, where set, hears now and then how many RRsets of the contents
	// were read. It is called from one goroutine at a time.
	Progress func(rrsets uint64)
	// NoDigest skips the signed digest: the sink is given no KindDigest item,
	// the Result has neither sums nor state, and Input needs no ContentState.
	// It is for a zone that is written and forgotten; it cannot be combined
	// with a previous instance.
	NoDigest bool
	// VerifyAll checks every new signature; else all up to 1,000 and 1 in 64
	// above, of each part but the first of a zone signed in parts all up to 16.
	VerifyAll bool
}
