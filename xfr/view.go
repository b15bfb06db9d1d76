package xfr

import (
	"errors"

	"sluice/signer/zone"
)

// Errors of a Source.
var (
	// ErrUnknownZone: this server has no such zone.
	ErrUnknownZone = errors.New("unknown zone")
	// ErrNotReady: the zone has nothing to serve yet.
	ErrNotReady = errors.New("zone not ready")
)

// Source finds what a listener serves.
type Source interface {
	// View opens the read view of the zone of that name (any case). The
	// caller closes it. Errors are ErrUnknownZone, ErrNotReady, or a fault.
	View(name zone.Name) (View, error)
}

// View is one instance of a zone, unchanging while it is open.
type View interface {
	// Apex is the zone's name, case as served.
	Apex() zone.Name
	// Serial is the serial of its SOA.
	Serial() zone.Serial
	// SOA is the key and value of the SOA RRset.
	SOA() (key, value []byte)
	// SOASigs is the key and value of the KindSigs item over the SOA RRset;
	// both are nil where the zone is not signed.
	SOASigs() (key, value []byte)
	// Items walks every item of the instance: first KindContents, KindMade
	// and KindSigs merged by owner, then KindChain and KindChainSigs merged
	// by owner. A KindContents item hidden by a KindMade one is left out. The
	// SOA is among them.
	Items() (zone.Iterator, error)
	// Diffs is the way from an earlier serial to this one, one step a served
	// instance; false where it is not known in full.
	Diffs(from zone.Serial) ([]Diff, bool)
	// Bytes is the rough size of all items in wire form; 0 where it is not
	// known. Diffs that are larger in sum are answered with the whole zone.
	Bytes() int64
	// Allows reports whether the zone's policy lets a peer transfer it.
	Allows(peer Peer) bool
	// Close frees the view.
	Close() error
}

// AXFROnly is a View whose policy names peers that are sent whole zones only:
// what they ask for by IXFR they get as AXFR.
type AXFROnly interface {
	// AXFROnly reports whether the peer is such.
	AXFROnly(peer Peer) bool
}

// Diff is one step between two served instances (RFC 1995).
type Diff interface {
	// From and To are the serials.
	From() zone.Serial
	To() zone.Serial
	// FromSOA and ToSOA are the values of the SOA RRsets.
	FromSOA() []byte
	ToSOA() []byte
	// Removed and Added walk the records that went and came, the SOAs left
	// out, in ascending order of keys. Keys are item keys; a value holds only
	// the records concerned. A record goes or comes once in each.
	Removed() (zone.Iterator, error)
	Added() (zone.Iterator, error)
	// Bytes is the rough size of both in wire form.
	Bytes() int64
}
