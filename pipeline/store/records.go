package store

import (
	"bytes"
	"encoding/binary"

	"sluice/signer/zone"
)

// recordComparer finds the records in which two values of one RRset differ.
type recordComparer struct{ a, b []byte }

// diff appends to removed and added the values that hold the records that
// went and came (nothing where there are none) and counts these records. nil
// is an RRset that is not there. A change of the TTL or of the owner's case
// changes all records. Values are in canonical order of their RDATA.
func (c *recordComparer) diff(t zone.Type, before, after, removed, added []byte) (gone, came []byte, records int) {
	switch {
	case before == nil:
		return removed, append(added, after...), zone.Value(after).Count()
	case after == nil:
		return append(removed, before...), added, zone.Value(before).Count()
	}
	x, hx := splitValue(before)
	y, hy := splitValue(after)
	if !bytes.Equal(hx, hy) {
		return append(removed, before...), append(added, after...),
			zone.Value(before).Count() + zone.Value(after).Count()
	}
	take := func(dst, head, from []byte) (out, rest []byte) {
		if len(dst) == 0 {
			dst = append(dst, head...)
		}
		n := 2 + int(binary.BigEndian.Uint16(from))
		records++
		return append(dst, from[:n]...), from[n:]
	}
	for len(x) > 0 || len(y) > 0 {
		switch o := c.order(t, x, y); {
		case o < 0:
			removed, x = take(removed, hx, x)
		case o > 0:
			added, y = take(added, hy, y)
		default:
			n, m := 2+int(binary.BigEndian.Uint16(x)), 2+int(binary.BigEndian.Uint16(y))
			if bytes.Equal(x[:n], y[:m]) {
				x, y = x[n:], y[m:]
				continue
			}
			removed, x = take(removed, hx, x)
			added, y = take(added, hy, y)
		}
	}
	return removed, added, records
}

// splitValue takes a value apart into its records and what stands before.
func splitValue(v []byte) (records, head []byte) {
	n := 5 + int(v[4])
	return v[n:], v[:n]
}

// order compares the first records of two lists; an empty list comes last.
func (c *recordComparer) order(t zone.Type, x, y []byte) int {
	switch {
	case len(x) == 0:
		return 1
	case len(y) == 0:
		return -1
	}
	x = x[2 : 2+binary.BigEndian.Uint16(x)]
	y = y[2 : 2+binary.BigEndian.Uint16(y)]
	if !t.FoldsRData() {
		return bytes.Compare(x, y)
	}
	c.a = zone.AppendCanonicalRData(c.a[:0], t, x)
	c.b = zone.AppendCanonicalRData(c.b[:0], t, y)
	return bytes.Compare(c.a, c.b)
}
