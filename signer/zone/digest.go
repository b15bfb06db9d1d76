package zone

// SetHash is the state of a homomorphic set hash: LtHash with 1,024 lanes of
// 16 bits. Replacing an item is one subtraction and one addition, so a change
// of k RRsets costs k whatever the zone's size. The zero value is the hash of
// the empty set.
type SetHash struct {
	lanes [256]uint64 // 1,024 lanes of 16 bits, little-endian
}
