package keymgr

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	_ "crypto/sha256" // the hash functions that Hash names
	_ "crypto/sha512" // likewise
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"strconv"

	"github.com/cloudflare/circl/sign/ed448"
	"github.com/miekg/dns"

	"sluice/journal/event"
	"sluice/signer"
	"sluice/signer/zone"
)

// Flags of a DNSKEY (RFC 4034, 2.1.1; RFC 5011, 3).
const (
	FlagZone   = 0x0100
	FlagRevoke = 0x0080
	FlagSEP    = 0x0001
)

var (
	errAlgorithm = errors.New("algorithm not supported")
	errBadKey    = errors.New("malformed public key")
	errBadSig    = errors.New("signature does not verify")
)

// AlgorithmName is the mnemonic of an algorithm, as in ECDSAP256SHA256 (IANA, DNS
// Security Algorithm Numbers), or its number where it has none.
func AlgorithmName(algorithm uint8) string {
	if name := dns.AlgorithmToString[algorithm]; name != "" {
		return name
	}
	return strconv.Itoa(int(algorithm))
}

// Hash is the hash function whose digest a private key of the algorithm signs;
// zero for those that sign the message itself (RFC 8080). ok is false for an
// algorithm that is not supported.
func Hash(algorithm uint8) (h crypto.Hash, ok bool) {
	switch algorithm {
	case dns.RSASHA256, dns.ECDSAP256SHA256:
		return crypto.SHA256, true
	case dns.ECDSAP384SHA384:
		return crypto.SHA384, true
	case dns.RSASHA512:
		return crypto.SHA512, true
	case dns.ED25519, dns.ED448:
		return 0, true
	}
	return 0, false
}

// RoleFlags is the flags of the DNSKEY of a key of that role.
func RoleFlags(r Role) uint16 {
	if r == ZSK {
		return FlagZone
	}
	return FlagZone | FlagSEP
}

// NewKey describes a key pair: role, algorithm and public key make its DNSKEY,
// ID and tag. Keystore and Reference are left to the keystore. It fails where
// algorithm and key do not fit together.
func NewKey(role Role, algorithm uint8, public crypto.PublicKey) (event.Key, error) {
	rdata := binary.BigEndian.AppendUint16(nil, RoleFlags(role))
	rdata = append(rdata, 3, algorithm)
	rdata, err := appendPublic(rdata, algorithm, public)
	if err != nil {
		return event.Key{}, err
	}
	return Describe(role, rdata), nil
}

// Describe makes the description of a key of its DNSKEY RDATA, which must be
// longer than its fixed part of 4 bytes.
func Describe(role Role, rdata []byte) event.Key {
	return event.Key{
		ID: zone.KeyID(rdata), Role: string(role), Algorithm: rdata[3], Tag: zone.KeyTag(rdata),
		DNSKEY: base64.StdEncoding.EncodeToString(rdata),
	}
}

// RevokedTag is the tag that a key has once its REVOKE bit is set.
func RevokedTag(rdata []byte) uint16 {
	revoked := bytes.Clone(rdata)
	if len(revoked) > 1 {
		revoked[1] |= FlagRevoke
	}
	return zone.KeyTag(revoked)
}

// PublicField is the public key field of a DNSKEY of the algorithm (RFC 4034,
// 2.1.4). It fails where algorithm and key do not fit together.
func PublicField(algorithm uint8, public crypto.PublicKey) ([]byte, error) {
	return appendPublic(nil, algorithm, public)
}

// appendPublic appends the public key field of a DNSKEY (RFC 3110, 2; RFC
// 6605, 4; RFC 8080, 3).
func appendPublic(dst []byte, algorithm uint8, public crypto.PublicKey) ([]byte, error) {
	mismatch := fmt.Errorf("%T: no key for algorithm %d", public, algorithm)
	switch pub := public.(type) {
	case *rsa.PublicKey:
		if algorithm != dns.RSASHA256 && algorithm != dns.RSASHA512 {
			return nil, mismatch
		}
		e := big.NewInt(int64(pub.E)).Bytes()
		return append(append(append(dst, byte(len(e))), e...), pub.N.Bytes()...), nil
	case *ecdsa.PublicKey:
		if curve, _ := curveOf(algorithm); curve == nil || curve != pub.Curve {
			return nil, mismatch
		}
		point, err := pub.Bytes()
		if err != nil {
			return nil, err
		}
		return append(dst, point[1:]...), nil
	case ed25519.PublicKey:
		if algorithm != dns.ED25519 {
			return nil, mismatch
		}
		return append(dst, pub...), nil
	case ed448.PublicKey:
		if algorithm != dns.ED448 {
			return nil, mismatch
		}
		return append(dst, pub...), nil
	}
	return nil, mismatch
}

// curveOf is the curve of an ECDSA algorithm and the length of its numbers.
func curveOf(algorithm uint8) (elliptic.Curve, int) {
	switch algorithm {
	case dns.ECDSAP256SHA256:
		return elliptic.P256(), 32
	case dns.ECDSAP384SHA384:
		return elliptic.P384(), 48
	}
	return nil, 0
}

// PublicKey reads the public key of a DNSKEY: *rsa.PublicKey,
// *ecdsa.PublicKey, ed25519.PublicKey or ed448.PublicKey.
func PublicKey(rdata []byte) (crypto.PublicKey, error) {
	if len(rdata) <= 4 || rdata[2] != 3 {
		return nil, errBadKey
	}
	algorithm, field := rdata[3], rdata[4:]
	switch algorithm {
	case dns.RSASHA256, dns.RSASHA512:
		return readRSA(field)
	case dns.ECDSAP256SHA256, dns.ECDSAP384SHA384:
		curve, size := curveOf(algorithm)
		if len(field) != 2*size {
			return nil, errBadKey
		}
		pub, err := ecdsa.ParseUncompressedPublicKey(curve, append([]byte{4}, field...))
		if err != nil {
			return nil, errBadKey
		}
		return pub, nil
	case dns.ED25519:
		if len(field) != ed25519.PublicKeySize {
			return nil, errBadKey
		}
		return ed25519.PublicKey(bytes.Clone(field)), nil
	case dns.ED448:
		if len(field) != ed448.PublicKeySize {
			return nil, errBadKey
		}
		return ed448.PublicKey(bytes.Clone(field)), nil
	}
	return nil, fmt.Errorf("%d: %w", algorithm, errAlgorithm)
}

// readRSA reads RFC 3110, 2.
func readRSA(field []byte) (*rsa.PublicKey, error) {
	n, rest := int(field[0]), field[1:]
	if n == 0 {
		if len(rest) < 2 {
			return nil, errBadKey
		}
		n, rest = int(binary.BigEndian.Uint16(rest)), rest[2:]
	}
	if n == 0 || n > 4 || len(rest) <= n {
		return nil, errBadKey
	}
	e := new(big.Int).SetBytes(rest[:n]).Int64()
	if e > 1<<31-1 {
		return nil, errBadKey
	}
	return &rsa.PublicKey{E: int(e), N: new(big.Int).SetBytes(rest[n:])}, nil
}

// Sign signs message as an RRSIG's signature field has it: r|s for ECDSA (RFC
// 6605, 4), the plain signature otherwise.
func Sign(s crypto.Signer, algorithm uint8, message []byte) ([]byte, error) {
	h, ok := Hash(algorithm)
	if !ok {
		return nil, fmt.Errorf("%d: %w", algorithm, errAlgorithm)
	}
	if m, ok := s.(signer.MessageSigner); ok {
		return m.SignMessages(nil, message, []int{len(message)}, h)
	}
	if h != 0 {
		d := h.New()
		d.Write(message)
		message = d.Sum(nil)
	}
	sig, err := s.Sign(nil, message, h)
	if err != nil {
		return nil, err
	}
	if _, size := curveOf(algorithm); size > 0 {
		return plainECDSA(sig, size)
	}
	return sig, nil
}

// plainECDSA makes r|s of an ASN.1 signature.
func plainECDSA(der []byte, size int) ([]byte, error) {
	var sig struct{ R, S *big.Int }
	rest, err := asn1.Unmarshal(der, &sig)
	if err != nil || len(rest) > 0 || sig.R.Sign() <= 0 || sig.S.Sign() <= 0 ||
		sig.R.BitLen() > 8*size || sig.S.BitLen() > 8*size {
		return nil, errors.New("malformed ECDSA signature")
	}
	out := make([]byte, 2*size)
	sig.R.FillBytes(out[:size])
	sig.S.FillBytes(out[size:])
	return out, nil
}

// Verify checks a signature made by Sign with a DNSKEY.
func Verify(rdata, message, sig []byte) error {
	public, err := PublicKey(rdata)
	if err != nil {
		return err
	}
	algorithm := rdata[3]
	digest := message
	h, _ := Hash(algorithm)
	if h != 0 {
		d := h.New()
		d.Write(message)
		digest = d.Sum(nil)
	}
	if !Verifies(public, digest, h, sig) {
		return errBadSig
	}
	return nil
}

// Verifies reports whether a signature, in the form of RRSIG records, is that of
// a public key over a digest by h; over the message itself where h is zero.
func Verifies(public crypto.PublicKey, digest []byte, h crypto.Hash, sig []byte) bool {
	switch pub := public.(type) {
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(pub, h, digest, sig) == nil
	case *ecdsa.PublicKey:
		size := (pub.Curve.Params().BitSize + 7) / 8
		return len(sig) == 2*size &&
			ecdsa.Verify(pub, digest, new(big.Int).SetBytes(sig[:size]), new(big.Int).SetBytes(sig[size:]))
	case ed25519.PublicKey:
		return ed25519.Verify(pub, digest, sig)
	case ed448.PublicKey:
		return ed448.Verify(pub, digest, sig, "")
	}
	return false
}
