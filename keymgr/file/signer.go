package file

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"fmt"
	"io"

	"github.com/cloudflare/circl/sign/ed448"
)

// NewSigner wraps a private key so that it signs without a random source:
// ECDSA signatures are those of RFC 6979. A P-256 key is a signer.BatchSigner
// unless stdlib says that crypto/ecdsa alone shall sign. It takes
// *rsa.PrivateKey, *ecdsa.PrivateKey (P-256, P-384), ed25519.PrivateKey and
// ed448.PrivateKey.
func NewSigner(private crypto.Signer, stdlib bool) (crypto.Signer, error) {
	switch key := private.(type) {
	case *rsa.PrivateKey, ed25519.PrivateKey, ed448.PrivateKey:
		return softKey{private}, nil
	case *ecdsa.PrivateKey:
		switch {
		case key.Curve == elliptic.P256() && !stdlib:
			return newP256(key)
		case key.Curve == elliptic.P256(), key.Curve == elliptic.P384():
			return softKey{private}, nil
		}
		return nil, fmt.Errorf("curve %s is not used in DNSSEC", key.Curve.Params().Name)
	}
	return nil, fmt.Errorf("%T is not used in DNSSEC", private)
}

// softKey drops the random source: with nil, crypto/ecdsa is deterministic
// (RFC 6979); RSA PKCS #1 v1.5, Ed25519 and Ed448 are in any case.
type softKey struct{ private crypto.Signer }

// Public implements crypto.Signer.
func (k softKey) Public() crypto.PublicKey { return k.private.Public() }

// Sign implements crypto.Signer.
func (k softKey) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.private.Sign(nil, digest, opts)
}
