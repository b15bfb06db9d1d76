package journal

// SeqSet is a set of sequences, dense in parts: it takes a bit for each, in
// pages of 4,096.
type SeqSet map[uint64]*[64]uint64

// Add adds a sequence; the set must not be nil.
func (s SeqSet) Add(seq uint64) {
	p := s[seq>>12]
	if p == nil {
		p = new([64]uint64)
		s[seq>>12] = p
	}
	p[seq>>6&63] |= 1 << (seq & 63)
}

// Has reports whether a sequence is in the set.
func (s SeqSet) Has(seq uint64) bool {
	p := s[seq>>12]
	return p != nil && p[seq>>6&63]&(1<<(seq&63)) != 0
}
