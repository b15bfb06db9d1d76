package signer

import "sluice/signer/zone"

// appendBitmap appends the type bitmap of types, which must ascend (RFC 4034,
// 4.1.2).
func appendBitmap(dst []byte, types []zone.Type) []byte {
	for len(types) > 0 {
		window := types[0] >> 8
		var bits [32]byte
		last := 0
		for len(types) > 0 && types[0]>>8 == window {
			low := types[0] & 0xff
			last = int(low >> 3)
			bits[last] |= 0x80 >> (low & 7)
			types = types[1:]
		}
		dst = append(dst, byte(window), byte(last+1))
		dst = append(dst, bits[:last+1]...)
	}
	return dst
}
