package zone

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
)

// KeyTag is the key tag of DNSKEY RDATA (RFC 4034, appendix B; B.1 for
// algorithm 1). It is 0 for RDATA too short to be a key.
func KeyTag(dnskey []byte) uint16 {
	if len(dnskey) < 4 {
		return 0
	}
	if dnskey[3] == 1 {
		if len(dnskey) < 7 {
			return 0
		}
		return binary.BigEndian.Uint16(dnskey[len(dnskey)-3:])
	}
	var sum uint32
	for i, c := range dnskey {
		if i&1 == 0 {
			sum += uint32(c) << 8
		} else {
			sum += uint32(c)
		}
	}
	return uint16(sum + sum>>16)
}

// KeyID is the ID of a key: the first 16 hex digits of the SHA-256 of its
// DNSKEY RDATA.
func KeyID(dnskey []byte) string {
	sum := sha256.Sum256(dnskey)
	return hex.EncodeToString(sum[:8])
}
