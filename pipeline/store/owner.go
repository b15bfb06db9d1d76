package store

import (
	"github.com/cockroachdb/pebble/v2"

	"sluice/signer/zone"
)

// Owner walks the KindContents items of one name, given by its owner key. The
// work does not follow the size of the zone.
func (v *View) Owner(ownerKey []byte) (zone.Iterator, error) {
	if v.snap == nil {
		return nil, ErrClosed
	}
	l, _ := v.lensOf(zone.KindContents)
	prefix := append(generationKey(v.z, l.generation), byte(zone.KindContents))
	prefix = append(prefix, ownerKey...) // no other name's key begins so: its last label has ended
	it, err := v.snap.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return nil, damaged(err)
	}
	return &kindIter{it: it, lens: l}, nil
}
