package file

import (
	"crypto"
	"crypto/ecdsa"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"sync"

	"filippo.io/bigmod"
	"filippo.io/nistec"

	"sluice/signer"
)

// batchSize is how many signatures share one inversion. At 256 the inversion
// costs less than a hundredth of the batch.
const batchSize = 256

// minBatch is the batch from which sharing pays; smaller ones go to
// crypto/ecdsa.
const minBatch = 3

// p256Key is a P-256 private key that signs in batches. Whatever touches the
// private key or a nonce is constant-time: nistec's scalar multiplication and
// bigmod's arithmetic. What is not secret, and may steer the control flow, is
// whether a candidate nonce lies in range, and r and s.
type p256Key struct {
	private *ecdsa.PrivateKey
	scalar  [32]byte // big-endian private key, for the nonces
	d       *bigmod.Nat
	n       *bigmod.Modulus // order of the group
	inverse []byte          // n - 2, public: the exponent of an inversion
	scratch sync.Pool       // of *p256Scratch
}

var _ signer.BatchSigner = (*p256Key)(nil)

// p256Scratch is the memory of one batch. It is wiped before it goes back.
type p256Scratch struct {
	point          *nistec.P256Point
	drbg           nonceState
	nonce          [batchSize]bigmod.Nat // k
	prefix         [batchSize]bigmod.Nat // products of all nonces up to here
	rx             [batchSize][32]byte   // x of k times the base point
	left           [batchSize]bool       // left to crypto/ecdsa
	e, r, s, acc   bigmod.Nat
	reduced, kwire [32]byte
}

func newP256(private *ecdsa.PrivateKey) (*p256Key, error) {
	order := private.Params().N
	n, err := bigmod.NewModulus(order.Bytes())
	if err != nil {
		return nil, fmt.Errorf("P-256: %w", err)
	}
	k := &p256Key{private: private, n: n, inverse: new(big.Int).Sub(order, big.NewInt(2)).Bytes()}
	scalar, err := private.Bytes()
	if err != nil {
		return nil, fmt.Errorf("P-256: %w", err)
	}
	copy(k.scalar[:], scalar)
	clear(scalar)
	if k.d, err = bigmod.NewNat().SetBytes(k.scalar[:], n); err != nil {
		return nil, fmt.Errorf("P-256: private key out of range: %w", err)
	}
	k.scratch.New = func() any { return k.newScratch() }
	return k, nil
}

// newScratch makes every number as long as the order.
func (k *p256Key) newScratch() *p256Scratch {
	s := &p256Scratch{point: nistec.NewP256Point()}
	zero := make([]byte, 32)
	size := func(x *bigmod.Nat) {
		// Zero is below the order: there is no error.
		_, _ = x.SetBytes(zero, k.n)
	}
	for i := range s.nonce {
		size(&s.nonce[i])
		size(&s.prefix[i])
	}
	size(&s.e)
	size(&s.r)
	size(&s.s)
	size(&s.acc)
	return s
}

// Public implements crypto.Signer.
func (k *p256Key) Public() crypto.PublicKey { return k.private.Public() }

// Sign implements crypto.Signer: deterministic (RFC 6979), ASN.1.
func (k *p256Key) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.private.Sign(nil, digest, opts)
}

var errDigests = errors.New("digests are not a multiple of 32 bytes")

// SignBatch implements signer.BatchSigner.
func (k *p256Key) SignBatch(dst, digests []byte) ([]byte, error) {
	if len(digests)%32 != 0 {
		return dst, errDigests
	}
	start := len(dst)
	dst = slices.Grow(dst, 2*len(digests))[:start+2*len(digests)]
	out := dst[start:]
	for len(digests) > 0 {
		count := min(len(digests)/32, batchSize)
		var err error
		if count < minBatch {
			err = k.signSingly(out, digests[:32*count])
		} else {
			err = k.signShared(out, digests[:32*count])
		}
		if err != nil {
			return dst[:start], err
		}
		out, digests = out[64*count:], digests[32*count:]
	}
	return dst, nil
}

// signSingly signs with crypto/ecdsa, one by one.
func (k *p256Key) signSingly(out, digests []byte) error {
	for i := 0; i < len(digests)/32; i++ {
		der, err := k.private.Sign(nil, digests[32*i:32*i+32], crypto.SHA256)
		if err != nil {
			return err
		}
		var sig struct{ R, S *big.Int }
		if _, err := asn1.Unmarshal(der, &sig); err != nil {
			return err
		}
		sig.R.FillBytes(out[64*i : 64*i+32])
		sig.S.FillBytes(out[64*i+32 : 64*i+64])
	}
	return nil
}

// signShared signs at most batchSize digests with one inversion: the inverse
// of the product of all nonces, from which each nonce's own follows by
// multiplying back from the end.
func (k *p256Key) signShared(out, digests []byte) error {
	s := k.scratch.Get().(*p256Scratch)
	defer func() {
		s.wipe()
		k.scratch.Put(s)
	}()
	return k.signSharedWith(s, out, digests, noneLeft)
}

// noneLeft leaves no digest to crypto/ecdsa beyond those that must be.
func noneLeft(int) bool { return false }

// signSharedWith is signShared with a scratch that is left unwiped. leave adds
// to the digests that are left to crypto/ecdsa.
func (k *p256Key) signSharedWith(s *p256Scratch, out, digests []byte, leave func(int) bool) error {
	count := len(digests) / 32
	last := -1 // the last index that takes part
	for i := range count {
		ok, err := k.nonceAt(s, i, digests[32*i:32*i+32])
		if err != nil {
			return err
		}
		if s.left[i] = !ok || leave(i); s.left[i] {
			continue
		}
		set(&s.prefix[i], &s.nonce[i])
		if last >= 0 {
			s.prefix[i].Mul(&s.prefix[last], k.n)
		}
		last = i
	}
	if last >= 0 {
		s.acc.Exp(&s.prefix[last], k.inverse, k.n)
	}
	for i := last; i >= 0; i-- {
		if s.left[i] {
			continue
		}
		before := i - 1
		for before >= 0 && s.left[before] {
			before--
		}
		// acc is the inverse of the product up to i; times the product up to
		// the one before, it is the inverse of nonce i.
		set(&s.s, &s.acc)
		if before >= 0 {
			s.s.Mul(&s.prefix[before], k.n)
			s.acc.Mul(&s.nonce[i], k.n)
		}
		if err := k.finish(s, i, out[64*i:64*i+64], digests[32*i:32*i+32]); err != nil {
			return err
		}
	}
	for i := range count {
		if s.left[i] {
			if err := k.signSingly(out[64*i:64*i+64], digests[32*i:32*i+32]); err != nil {
				return err
			}
		}
	}
	return nil
}

// nonceAt makes nonce i and its point's x. It reports false where the first
// candidate is out of range (RFC 6979, 3.2 h: about once in 2^32).
func (k *p256Key) nonceAt(s *p256Scratch, i int, digest []byte) (bool, error) {
	if _, err := s.e.SetOverflowingBytes(digest, k.n); err != nil {
		return false, err
	}
	putNat(&s.reduced, &s.e)
	s.drbg.nonce(&s.kwire, &k.scalar, &s.reduced)
	nonce := &s.nonce[i]
	if _, err := nonce.SetBytes(s.kwire[:], k.n); err != nil || nonce.IsZero() == 1 {
		return false, nil //nolint:nilerr // the error says: not below the order
	}
	if _, err := s.point.ScalarBaseMult(s.kwire[:]); err != nil {
		return false, err
	}
	x, err := s.point.BytesX()
	if err != nil {
		return false, err
	}
	copy(s.rx[i][:], x)
	return true, nil
}

// finish makes signature i; s.s holds the inverse of its nonce.
func (k *p256Key) finish(s *p256Scratch, i int, out, digest []byte) error {
	if _, err := s.r.SetOverflowingBytes(s.rx[i][:], k.n); err != nil {
		return err
	}
	if _, err := s.e.SetOverflowingBytes(digest, k.n); err != nil {
		return err
	}
	putNat((*[32]byte)(out[:32]), &s.r)
	zero := s.r.IsZero()
	s.r.Mul(k.d, k.n)
	s.r.Add(&s.e, k.n)
	s.s.Mul(&s.r, k.n)
	if zero|s.s.IsZero() == 1 {
		s.left[i] = true
		return nil
	}
	putNat((*[32]byte)(out[32:64]), &s.s)
	return nil
}

// wipe clears everything that the private key could be computed from.
func (s *p256Scratch) wipe() {
	for i := range s.nonce {
		clear(s.nonce[i].Bits())
		clear(s.prefix[i].Bits())
	}
	clear(s.e.Bits())
	clear(s.r.Bits())
	clear(s.s.Bits())
	clear(s.acc.Bits())
	clear(s.kwire[:])
	s.drbg = nonceState{}
	s.point.SetGenerator()
}
