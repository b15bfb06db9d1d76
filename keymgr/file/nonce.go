package file

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"

	"filippo.io/bigmod"
)

// nonceState is HMAC_DRBG over SHA-256 as RFC 6979, 3.2 uses it, without
// allocation. Its buffers hold secrets: wipe it after use.
type nonceState struct {
	k, v  [32]byte
	inner [64 + 32 + 1 + 32 + 32]byte // key ^ ipad, then the message
	outer [64 + 32]byte               // key ^ opad, then the inner hash
}

// nonce writes the first candidate for private key d and reduced digest h
// (RFC 6979, 3.2 a to h.2).
func (s *nonceState) nonce(out, d, h *[32]byte) {
	for i := range s.v {
		s.v[i] = 1
		s.k[i] = 0
	}
	s.setKey()
	s.update(0, d, h)
	s.update(1, d, h)
	s.mac(out, 32)
}

// update is steps d and e, or f and g: K = HMAC(K, V | b | d | h), V =
// HMAC(K, V).
func (s *nonceState) update(b byte, d, h *[32]byte) {
	s.inner[96] = b
	copy(s.inner[97:129], d[:])
	copy(s.inner[129:], h[:])
	s.mac(&s.k, 97)
	s.setKey()
	s.mac(&s.v, 32)
}

// setKey prepares both pads for k.
func (s *nonceState) setKey() {
	for i, c := range s.k {
		s.inner[i] = c ^ 0x36
		s.outer[i] = c ^ 0x5c
	}
	for i := 32; i < 64; i++ {
		s.inner[i] = 0x36
		s.outer[i] = 0x5c
	}
}

// mac is HMAC(k, V | what stands after it), of n bytes in all.
func (s *nonceState) mac(out *[32]byte, n int) {
	copy(s.inner[64:96], s.v[:])
	sum := sha256.Sum256(s.inner[:64+n])
	copy(s.outer[64:], sum[:])
	*out = sha256.Sum256(s.outer[:])
}

// putNat writes a number modulo the order, big-endian, without allocation.
func putNat(out *[32]byte, x *bigmod.Nat) {
	limbs := x.Bits()
	if bits.UintSize == 64 {
		for i, l := range limbs[:4] {
			binary.BigEndian.PutUint64(out[24-8*i:], uint64(l))
		}
		return
	}
	for i, l := range limbs[:8] {
		binary.BigEndian.PutUint32(out[28-4*i:], uint32(l))
	}
}

// set copies y to x; both are of the order's length.
func set(x, y *bigmod.Nat) { copy(x.Bits(), y.Bits()) }
