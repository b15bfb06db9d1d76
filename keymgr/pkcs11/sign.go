//go:build cgo

package pkcs11

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"fmt"
	"io"
	"math/big"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cloudflare/circl/sign/ed448"
	p11 "github.com/miekg/pkcs11"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"sluice/keymgr"
	"sluice/signer"
)

// Signer implements keymgr.Keystore. Each signature is verified before it is
// returned. A P-256 key is a signer.BatchSigner that uses all sessions at once.
func (s *Store) Signer(ctx context.Context, ref string) (crypto.Signer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r, err := parseReference(ref)
	if err != nil {
		return nil, fmt.Errorf("open key: %w", err)
	}
	o, err := s.object(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("open key %s: %w", ref, err)
	}
	k := key{store: s, ref: r, public: o.public}
	if pub, ok := o.public.(*ecdsa.PublicKey); ok && pub.Curve == elliptic.P256() {
		return batchKey{k}, nil
	}
	return k, nil
}

// object finds a key pair, with a new connection where that is needed.
func (s *Store) object(ctx context.Context, ref reference) (o *object, err error) {
	err = s.do(ctx, func(ctx context.Context, c *connection) (err error) {
		o, err = s.find(ctx, c, ref)
		return err
	})
	return o, err
}

// key is a private key on a token.
type key struct {
	store  *Store
	ref    reference
	public crypto.PublicKey
}

// Public implements crypto.Signer.
func (k key) Public() crypto.PublicKey { return k.public }

// Sign implements crypto.Signer. It waits for a token that does not answer as
// long as the keystore's time-out says.
func (k key) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	sig, err := k.raw(digest, opts.HashFunc())
	if err != nil {
		return nil, err
	}
	if _, ok := k.public.(*ecdsa.PublicKey); !ok {
		return sig, nil
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1BigInt(new(big.Int).SetBytes(sig[:len(sig)/2]))
		b.AddASN1BigInt(new(big.Int).SetBytes(sig[len(sig)/2:]))
	})
	return b.Bytes()
}

// raw makes a signature as the token gives it, r|s for ECDSA, and verifies it.
func (k key) raw(digest []byte, hash crypto.Hash) ([]byte, error) {
	mechanism, input, err := k.mechanism(digest, hash)
	if err != nil {
		return nil, err
	}
	var sig []byte
	sign := func(ctx context.Context, c *connection) error {
		o, err := k.store.find(ctx, c, k.ref)
		if err != nil {
			return err
		}
		var made []byte // a call that nobody waits for any more writes here, not to sig
		err = k.store.with(ctx, c, func(lib library, session p11.SessionHandle) (err error) {
			if err = lib.SignInit(session, mechanism, o.private); err == nil {
				made, err = lib.Sign(session, input)
			}
			return err
		})
		if err == nil {
			sig = made
		} else if stale(err) {
			c.forget(k.ref)
		}
		return err
	}
	err = k.store.do(context.Background(), sign)
	if stale(err) {
		err = k.store.do(context.Background(), sign)
	}
	if err != nil {
		return nil, err
	}
	if !keymgr.Verifies(k.public, digest, hash, sig) {
		return nil, &BadSignatureError{
			Keystore: k.store.Name(), Token: tokenName(k.store.Token()), Reference: k.ref.String(),
			Digest: slices.Clone(digest), Signature: sig,
		}
	}
	return sig, nil
}

// mechanism is how the token is asked for a signature, and over what.
func (k key) mechanism(digest []byte, hash crypto.Hash) ([]*p11.Mechanism, []byte, error) {
	switch pub := k.public.(type) {
	case *rsa.PublicKey:
		prefix := digestInfo(hash)
		if prefix == nil || len(digest) != hash.Size() {
			return nil, nil, fmt.Errorf("sign a digest of %d bytes by %v: not used in DNSSEC", len(digest), hash)
		}
		return []*p11.Mechanism{p11.NewMechanism(p11.CKM_RSA_PKCS, nil)}, append(prefix, digest...), nil
	case *ecdsa.PublicKey:
		if len(digest) > (pub.Curve.Params().BitSize+7)/8 {
			return nil, nil, fmt.Errorf("sign a digest of %d bytes on curve %s: too long", len(digest), pub.Curve.Params().Name)
		}
		return []*p11.Mechanism{p11.NewMechanism(p11.CKM_ECDSA, nil)}, digest, nil
	case ed25519.PublicKey, ed448.PublicKey:
		if hash != 0 {
			return nil, nil, fmt.Errorf("sign a digest by %v: Edwards curves sign messages", hash)
		}
		return []*p11.Mechanism{p11.NewMechanism(ckmEdDSA, nil)}, digest, nil
	}
	return nil, nil, fmt.Errorf("%T is not used in DNSSEC", k.public)
}

// digestInfo is what stands before a digest in PKCS #1 v1.5 (RFC 8017, 9.2).
func digestInfo(hash crypto.Hash) []byte {
	switch hash { //nolint:exhaustive // DNSSEC has no others
	case crypto.SHA256:
		return []byte("\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20")
	case crypto.SHA512:
		return []byte("\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40")
	}
	return nil
}

// batchKey is a P-256 key.
type batchKey struct{ key }

var _ signer.BatchSigner = batchKey{}

// digestSize and sigSize are those of P-256.
const (
	digestSize = 32
	sigSize    = 64
)

// SignBatch implements signer.BatchSigner: the digests are signed in as many
// sessions as there are, each signature is verified. The first fault ends it.
// Tokens take random nonces, so the signatures differ from run to run.
func (k batchKey) SignBatch(dst, digests []byte) ([]byte, error) {
	if len(digests)%digestSize != 0 {
		return dst, fmt.Errorf("sign a batch of %d bytes: want a multiple of %d", len(digests), digestSize)
	}
	count := len(digests) / digestSize
	start := len(dst)
	dst = slices.Grow(dst, count*sigSize)[:start+count*sigSize]
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	for range min(count, k.store.token.Sessions) {
		wg.Go(func() {
			for failed.Load() == nil {
				i := int(next.Add(1)) - 1
				if i >= count {
					return
				}
				sig, err := k.raw(digests[i*digestSize:(i+1)*digestSize], crypto.SHA256)
				if err != nil {
					failed.CompareAndSwap(nil, &err)
					return
				}
				copy(dst[start+i*sigSize:], sig)
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return dst[:start], *err
	}
	return dst, nil
}
