package signer

import (
	"crypto"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"sluice/signer/zone"
)

// Where the fields of RRSIG RDATA stand (RFC 4034, 3.1).
const (
	sigAlgorithm  = 2
	sigLabels     = 3
	sigOriginal   = 4
	sigExpiration = 8
	sigInception  = 12
	sigTag        = 16
	sigName       = 18
)

// signingKey is a key made ready to sign.
type signingKey struct {
	*publicKey
	signer crypto.Signer
	batch  BatchSigner   // nil: sign one by one
	whole  MessageSigner // nil: sign digests
	// trusted: an RRSIG with this key's algorithm and tag in the previous
	// instance can only be by this key.
	trusted bool
	bit     uint64 // among the keys given
}

func newSigningKey(k Key) (*signingKey, error) {
	pub, err := parsePublicKey(k.DNSKEY)
	if err != nil {
		return nil, err
	}
	sk := &signingKey{publicKey: pub, signer: k.Signer}
	if m, ok := k.Signer.(MessageSigner); ok {
		sk.whole = m
	} else if b, ok := k.Signer.(BatchSigner); ok && pub.alg == algP256 {
		sk.batch = b
	}
	return sk, nil
}

// appendToSign appends what appendSignatures takes: message itself, or a digest
// of it.
func (k *signingKey) appendToSign(dst, message []byte) []byte {
	if k.whole != nil {
		return append(dst, message...)
	}
	return k.appendSigned(dst, message)
}

// checkSigned verifies a signature over what appendToSign made.
func (k *signingKey) checkSigned(signed, sig []byte) error {
	if k.whole != nil {
		signed = k.appendSigned(nil, signed)
	}
	return k.check(signed, sig)
}

// String names the key in errors.
func (k *publicKey) String() string { return fmt.Sprintf("key %d of algorithm %d", k.tag, k.alg) }

// appendSignatures appends the signatures over each part of signed; ends says
// where the parts end.
func (k *signingKey) appendSignatures(dst, signed []byte, ends []int) ([]byte, error) {
	if k.whole != nil || k.batch != nil {
		before := len(dst)
		var err error
		if k.whole != nil {
			dst, err = k.whole.SignMessages(dst, signed, ends, k.hash())
		} else {
			dst, err = k.batch.SignBatch(dst, signed)
		}
		if err != nil {
			return dst, fmt.Errorf("sign with %v: %w", k, err)
		}
		if len(dst)-before != len(ends)*k.sigSize {
			return dst, fmt.Errorf("sign with %v: %d signatures gave %d bytes", k, len(ends), len(dst)-before)
		}
		return dst, nil
	}
	start := 0
	for _, end := range ends {
		sig, err := k.signer.Sign(nil, signed[start:end], k.hash())
		if err == nil && k.ec != nil {
			dst, err = appendFixedECDSA(dst, sig, k.sigSize/2)
		} else if err == nil {
			if len(sig) != k.sigSize {
				err = fmt.Errorf("signature of %d bytes, want %d", len(sig), k.sigSize)
			}
			dst = append(dst, sig...)
		}
		if err != nil {
			return dst, fmt.Errorf("sign with %v: %w", k, err)
		}
		start = end
	}
	return dst, nil
}

// appendFixedECDSA turns an ASN.1 signature into r|s, each of size bytes (RFC
// 6605, 4).
func appendFixedECDSA(dst, sig []byte, size int) ([]byte, error) {
	var r, s []byte
	var inner cryptobyte.String
	input := cryptobyte.String(sig)
	if !input.ReadASN1(&inner, asn1.SEQUENCE) || !input.Empty() ||
		!inner.ReadASN1Integer(&r) || !inner.ReadASN1Integer(&s) || !inner.Empty() ||
		len(r) > size || len(s) > size {
		return dst, errors.New("not an ASN.1 ECDSA signature")
	}
	for _, n := range [2][]byte{r, s} {
		for range size - len(n) {
			dst = append(dst, 0)
		}
		dst = append(dst, n...)
	}
	return dst, nil
}

// appendSigPrefix appends RRSIG RDATA up to and with the signer's name;
// algorithm and tag are left zero for setSigKey. labels is what the Labels
// field says.
func appendSigPrefix(dst []byte, t zone.Type, labels uint8, ttl, expiration, inception uint32, apex zone.Name) []byte {
	dst = append(dst, byte(t>>8), byte(t), 0, labels)
	dst = binary.BigEndian.AppendUint32(dst, ttl)
	dst = binary.BigEndian.AppendUint32(dst, expiration)
	dst = binary.BigEndian.AppendUint32(dst, inception)
	dst = append(dst, 0, 0)
	return append(dst, apex...)
}

// setSigKey writes a key's algorithm and tag into RRSIG RDATA.
func setSigKey(prefix []byte, alg uint8, tag uint16) {
	prefix[sigAlgorithm] = alg
	binary.BigEndian.PutUint16(prefix[sigTag:], tag)
}

// appendSignedRRs appends the records of an RRset as a signature covers them
// (RFC 4034, 3.1.8.1): owner in lower case, original TTL, canonical RDATA.
func appendSignedRRs(dst, owner []byte, t zone.Type, ttl uint32, v zone.Value) []byte {
	folds := t.FoldsRData()
	for rdata := range v.Records() {
		dst = append(dst, owner...)
		dst = append(dst, byte(t>>8), byte(t), 0, 1)
		dst = binary.BigEndian.AppendUint32(dst, ttl)
		dst = append(dst, byte(len(rdata)>>8), byte(len(rdata)))
		if folds {
			dst = zone.AppendCanonicalRData(dst, t, rdata)
		} else {
			dst = append(dst, rdata...)
		}
	}
	return dst
}

// sigLabelCount is the Labels field for an owner: neither the root nor a
// leading asterisk counts (RFC 4034, 3.1.3).
func sigLabelCount(owner []byte) uint8 {
	n := uint8(0)
	for i := 0; i < len(owner) && owner[i] != 0; i += 1 + int(owner[i]) {
		n++
	}
	if len(owner) > 2 && owner[0] == 1 && owner[1] == '*' {
		n--
	}
	return n
}

// serialTimeBefore compares RRSIG times by serial arithmetic (RFC 4034,
// 3.1.5).
func serialTimeBefore(a, b uint32) bool { return int32(a-b) < 0 }
