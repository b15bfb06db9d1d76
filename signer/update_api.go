package signer

import (
	"errors"

	"sluice/signer/zone"
)

// ErrFull reports that Update cannot do a change, since it touches more than
// what follows from the changed contents: Sign with a previous instance can.
var ErrFull = errors.New("the zone has to be signed in full")

// Access is random access to the items of one instance. It is for one
// goroutine.
type Access interface {
	// Get is the value of an item, nil where there is none. It is valid until
	// the next Get of the same kind.
	Get(key []byte) (value []byte, err error)
	// Walk walks the items of from's kind from the first key that is not
	// below from, a key or the beginning of one. Only one walk of a kind is
	// used at a time: the iterator is valid until the next Walk of the kind.
	Walk(from []byte) zone.Iterator
	// Last is the last item of before's kind whose key is below before, a key
	// or the beginning of one; nil where there is none. Both slices are valid
	// until the next Last of the same kind.
	Last(before []byte) (key, value []byte, err error)
}

// UpdateInput is what Update works on.
type UpdateInput struct {
	// Contents are the new contents (KindContents).
	Contents Access
	// Previous is the previous signed instance with the contents that it was
	// made of: all kinds.
	Previous Access
	// Changes calls fn for every KindContents item in which Contents differ
	// from those of Previous, with ascending keys: before is nil where the
	// item is new, after is nil where it is gone.
	Changes func(fn func(key, before, after []byte) error) error
	// ContentState is the state of the content digest of Contents.
	ContentState *zone.SetHash
	// SignedState is the state of the signed digest of Previous.
	SignedState *zone.SetHash
	// Due, where set, calls fn with the keys of KindSigs and KindChainSigs
	// items whose signatures are to be made anew, whatever their expiration
	// is. One that is not there is passed over.
	Due func(fn func(key []byte) error) error
	// Exchange, where set, calls fn with the keys of KindSigs and KindChainSigs
	// items that are to be signed by the keys that sign now and by no others:
	// what is so already stays, and so does what fits of the others.
	Exchange func(fn func(key []byte) error) error
	// Spill holds what does not fit into memory of a large change.
	Spill zone.Spill
}

// Delta is by how much an instance differs from its previous one. An RRset
// that changed counts on both sides with all its records.
type Delta struct {
	RecordsAdded, RecordsRemoved       uint64 // RRSIG and NSEC3 with them
	RRsetsAdded, RRsetsRemoved         uint64 // RRSIGs not counted
	SignaturesAdded, SignaturesRemoved uint64 // RRSIG records
}

// merge adds o.
func (d *Delta) merge(o Delta) {
	d.RecordsAdded += o.RecordsAdded
	d.RecordsRemoved += o.RecordsRemoved
	d.RRsetsAdded += o.RRsetsAdded
	d.RRsetsRemoved += o.RRsetsRemoved
	d.SignaturesAdded += o.SignaturesAdded
	d.SignaturesRemoved += o.SignaturesRemoved
}

func (d *Delta) add(kind zone.Kind, value zone.Value) {
	n := uint64(value.Count())
	d.RecordsAdded += n
	if kind == zone.KindSigs || kind == zone.KindChainSigs {
		d.SignaturesAdded += n
		return
	}
	d.RRsetsAdded++
}

func (d *Delta) remove(kind zone.Kind, value zone.Value) {
	n := uint64(value.Count())
	d.RecordsRemoved += n
	if kind == zone.KindSigs || kind == zone.KindChainSigs {
		d.SignaturesRemoved += n
		return
	}
	d.RRsetsRemoved++
}
