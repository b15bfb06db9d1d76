package signer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"

	"github.com/cloudflare/circl/sign/ed448"

	"sluice/signer/zone"
)

// The signing algorithms (IANA DNS Security Algorithm Numbers).
const (
	algRSASHA256 = 8
	algRSASHA512 = 10
	algP256      = 13
	algP384      = 14
	algEd25519   = 15
	algEd448     = 16
)

// The DNSKEY flags (RFC 4034, 2.1.1; RFC 5011, 7).
const (
	flagZone   = 1 << 8
	flagRevoke = 1 << 7
)

var errBadSignature = errors.New("signature does not verify")

// publicKey is a DNSKEY record made ready to check signatures.
type publicKey struct {
	rdata   []byte
	flags   uint16
	alg     uint8
	tag     uint16
	sigSize int // bytes of a signature
	rsa     *rsa.PublicKey
	ec      *ecdsa.PublicKey
	ed      ed25519.PublicKey
	ed448   ed448.PublicKey
}

// parsePublicKey reads DNSKEY RDATA (RFC 4034, 2.1).
func parsePublicKey(rdata []byte) (*publicKey, error) {
	if len(rdata) < 5 {
		return nil, errors.New("DNSKEY RDATA too short")
	}
	if rdata[2] != 3 {
		return nil, fmt.Errorf("DNSKEY protocol %d, want 3", rdata[2])
	}
	k := &publicKey{
		rdata: rdata,
		flags: binary.BigEndian.Uint16(rdata),
		alg:   rdata[3],
		tag:   zone.KeyTag(rdata),
	}
	var err error
	switch k.alg {
	case algRSASHA256, algRSASHA512:
		k.rsa, err = parseRSA(rdata[4:])
		if err == nil {
			k.sigSize = k.rsa.Size()
		}
	case algP256:
		k.ec, err = parseECDSA(elliptic.P256(), rdata[4:])
		k.sigSize = 64
	case algP384:
		k.ec, err = parseECDSA(elliptic.P384(), rdata[4:])
		k.sigSize = 96
	case algEd25519:
		k.ed = rdata[4:]
		k.sigSize = ed25519.SignatureSize
		if len(k.ed) != ed25519.PublicKeySize {
			err = errors.New("wrong length")
		}
	case algEd448:
		k.ed448 = rdata[4:]
		k.sigSize = ed448.SignatureSize
		if len(k.ed448) != ed448.PublicKeySize {
			err = errors.New("wrong length")
		}
	default:
		return nil, fmt.Errorf("algorithm %d is not supported", k.alg)
	}
	if err != nil {
		return nil, fmt.Errorf("public key of algorithm %d: %w", k.alg, err)
	}
	return k, nil
}

// parseRSA reads a public key in the form of RFC 3110, 2.
func parseRSA(b []byte) (*rsa.PublicKey, error) {
	if len(b) < 1 {
		return nil, errors.New("too short")
	}
	n, b := int(b[0]), b[1:]
	if n == 0 {
		if len(b) < 2 {
			return nil, errors.New("too short")
		}
		n, b = int(binary.BigEndian.Uint16(b)), b[2:]
	}
	if n == 0 || n >= len(b) {
		return nil, errors.New("too short")
	}
	e := new(big.Int).SetBytes(b[:n])
	if !e.IsInt64() || e.Int64() < 3 || e.Int64() > 1<<31-1 {
		return nil, errors.New("exponent out of range")
	}
	mod := new(big.Int).SetBytes(b[n:])
	if bits := mod.BitLen(); bits < 512 || bits > 4096 {
		return nil, fmt.Errorf("modulus of %d bits, want 512 to 4096", bits)
	}
	return &rsa.PublicKey{N: mod, E: int(e.Int64())}, nil
}

// parseECDSA reads a public key in the form of RFC 6605, 4.
func parseECDSA(curve elliptic.Curve, b []byte) (*ecdsa.PublicKey, error) {
	point := make([]byte, 1, 1+len(b))
	point[0] = 4
	return ecdsa.ParseUncompressedPublicKey(curve, append(point, b...))
}

// appendSigned appends what the private key signs: a digest of message, or
// message itself for the algorithms that hash on their own.
func (k *publicKey) appendSigned(dst, message []byte) []byte {
	switch k.alg {
	case algRSASHA256, algP256:
		sum := sha256.Sum256(message)
		return append(dst, sum[:]...)
	case algP384:
		sum := sha512.Sum384(message)
		return append(dst, sum[:]...)
	case algRSASHA512:
		sum := sha512.Sum512(message)
		return append(dst, sum[:]...)
	}
	return append(dst, message...)
}

// hash is the digest that appendSigned makes, 0 for none.
func (k *publicKey) hash() crypto.Hash {
	switch k.alg {
	case algRSASHA256, algP256:
		return crypto.SHA256
	case algP384:
		return crypto.SHA384
	case algRSASHA512:
		return crypto.SHA512
	}
	return 0
}

// check verifies a signature in the form of an RRSIG record over what
// appendSigned made.
func (k *publicKey) check(signed, sig []byte) error {
	ok := false
	switch {
	case len(sig) != k.sigSize:
		return fmt.Errorf("signature of %d bytes, want %d", len(sig), k.sigSize)
	case k.rsa != nil:
		if err := rsa.VerifyPKCS1v15(k.rsa, k.hash(), signed, sig); err != nil {
			return fmt.Errorf("%w: %w", errBadSignature, err)
		}
		return nil
	case k.ec != nil:
		half := len(sig) / 2
		r, s := new(big.Int).SetBytes(sig[:half]), new(big.Int).SetBytes(sig[half:])
		ok = ecdsa.Verify(k.ec, signed, r, s)
	case k.ed != nil:
		ok = ed25519.Verify(k.ed, signed, sig)
	case k.ed448 != nil:
		ok = ed448.Verify(k.ed448, signed, sig, "")
	}
	if !ok {
		return errBadSignature
	}
	return nil
}
