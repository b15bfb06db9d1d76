package kmip

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"

	"github.com/cloudflare/circl/sign/ed448"
)

// Bounds of an RSA key: DNSSEC allows moduli of 512 to 4096 bits.
const (
	maxModulus  = 4096
	maxExponent = 1<<31 - 1
)

// errFormat reports a public key in a form that is not read.
var errFormat = errors.New("the server gives the public key in a form that is not known here")

// readPublic reads the answer to Get of a public key. algorithm and curve say
// what it must be.
func readPublic(payload item, want template) (crypto.PublicKey, error) {
	block := payload.find(tagPublicKey, tagKeyBlock)
	format, ok := block.find(tagKeyFormatType).number()
	if !ok {
		return nil, errFormat
	}
	material := block.find(tagKeyValue, tagKeyMaterial)
	var public crypto.PublicKey
	var err error
	switch {
	case material.is(typeStructure) && format == formatRSA:
		public, err = rsaKey(material.find(tagModulus).value, material.find(tagPublicExponent).value)
	case material.is(typeStructure) && (format == formatEC || format == formatECDSA):
		curve, ok := material.find(tagRecommendedCurve).number()
		if !ok {
			return nil, errFormat
		}
		public, err = pointKey(curve, material.find(tagQString).value)
	case !material.is(typeBytes):
		return nil, errFormat
	case format == formatPKCS1:
		public, err = x509.ParsePKCS1PublicKey(material.value)
	case format == formatX509:
		public, err = subjectKey(material.value)
	case format == formatRaw:
		public, err = rawKey(material.value, want)
	default:
		return nil, fmt.Errorf("%w (format 0x%02X)", errFormat, format)
	}
	if err != nil {
		return nil, fmt.Errorf("the server's public key: %w", err)
	}
	return public, checkPublic(public)
}

// rawKey reads bytes of which the server does not say what they are.
func rawKey(b []byte, want template) (crypto.PublicKey, error) {
	if want.curve != 0 {
		if key, err := pointKey(want.curve, b); err == nil {
			return key, nil
		}
	}
	if key, err := subjectKey(b); err == nil {
		return key, nil
	}
	return x509.ParsePKCS1PublicKey(b)
}

// checkPublic refuses keys that DNSSEC does not have.
func checkPublic(public crypto.PublicKey) error {
	if pub, ok := public.(*rsa.PublicKey); ok && (pub.N.BitLen() > maxModulus || pub.N.BitLen() < 512 || pub.E < 3 || pub.E > maxExponent) {
		return fmt.Errorf("an RSA key of %d bits is none of DNSSEC", pub.N.BitLen())
	}
	_, err := fingerprint(public)
	return err
}

func rsaKey(modulus, exponent []byte) (crypto.PublicKey, error) {
	n, e := new(big.Int).SetBytes(modulus), new(big.Int).SetBytes(exponent)
	if len(modulus) > maxModulus/8+16 || !e.IsInt64() || e.Int64() > maxExponent {
		return nil, errors.New("it is too large")
	}
	return &rsa.PublicKey{N: n, E: int(e.Int64())}, nil
}

// pointKey reads a point on a curve.
func pointKey(curve uint32, point []byte) (crypto.PublicKey, error) {
	switch curve {
	case curveP256, curveP384:
		ec := elliptic.P256()
		if curve == curveP384 {
			ec = elliptic.P384()
		}
		size := (ec.Params().BitSize + 7) / 8
		if len(point) == 2*size {
			point = append([]byte{4}, point...)
		}
		if len(point) == 1+size { // compressed
			x, y := elliptic.UnmarshalCompressed(ec, point)
			if x == nil {
				return nil, errors.New("it is no point on its curve")
			}
			point = make([]byte, 1+2*size)
			point[0] = 4
			x.FillBytes(point[1 : 1+size])
			y.FillBytes(point[1+size:])
		}
		return ecdsa.ParseUncompressedPublicKey(ec, point)
	case curve25519:
		if len(point) == ed25519.PublicKeySize {
			return ed25519.PublicKey(point), nil
		}
	case curve448:
		if len(point) == ed448.PublicKeySize {
			return ed448.PublicKey(point), nil
		}
	default:
		return nil, fmt.Errorf("its curve, number 0x%02X, is none of DNSSEC", curve)
	}
	return nil, fmt.Errorf("it has %d bytes", len(point))
}

// subjectKey reads a SubjectPublicKeyInfo.
func subjectKey(der []byte) (crypto.PublicKey, error) {
	if key, err := x509.ParsePKIXPublicKey(der); err == nil {
		return key, nil
	}
	// crypto/x509 does not know Ed448 (RFC 8410).
	var info struct {
		Algorithm struct{ OID asn1.ObjectIdentifier }
		Key       asn1.BitString
	}
	rest, err := asn1.Unmarshal(der, &info)
	if err != nil || len(rest) > 0 || !info.Algorithm.OID.Equal(asn1.ObjectIdentifier{1, 3, 101, 113}) || len(info.Key.Bytes) != ed448.PublicKeySize {
		return nil, errors.New("it is no SubjectPublicKeyInfo of a kind that is known here")
	}
	return ed448.PublicKey(info.Key.Bytes), nil
}
