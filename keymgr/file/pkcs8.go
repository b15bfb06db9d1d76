package file

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/cloudflare/circl/sign/ed448"
)

const pemType = "PRIVATE KEY"

// pkcs8 is PrivateKeyInfo (RFC 5208, 5; RFC 8410, 7).
type pkcs8 struct {
	Version   int
	Algorithm pkix.AlgorithmIdentifier
	Private   []byte
}

// oidEd448 is id-Ed448 (RFC 8410, 3).
func oidEd448() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{1, 3, 101, 113} }

func encodePEM(private crypto.Signer) ([]byte, error) {
	der, err := encodePKCS8(private)
	if err != nil {
		return nil, err
	}
	defer clear(der)
	return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der}), nil
}

func encodePKCS8(private crypto.Signer) ([]byte, error) {
	key, ok := private.(ed448.PrivateKey)
	if !ok {
		return x509.MarshalPKCS8PrivateKey(private)
	}
	inner, err := asn1.Marshal(key.Seed())
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(pkcs8{Algorithm: pkix.AlgorithmIdentifier{Algorithm: oidEd448()}, Private: inner})
}

func decodePEM(text []byte) (crypto.Signer, error) {
	block, rest := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no PEM block")
	}
	defer clear(block.Bytes)
	if block.Type != pemType {
		return nil, fmt.Errorf("PEM block is %q, want %q (unencrypted PKCS#8)", block.Type, pemType)
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("data after the PEM block")
	}
	return decodePKCS8(block.Bytes)
}

func decodePKCS8(der []byte) (crypto.Signer, error) {
	var info pkcs8
	rest, err := asn1.Unmarshal(der, &info)
	if err == nil && len(rest) == 0 && info.Algorithm.Algorithm.Equal(oidEd448()) {
		return decodeEd448(info)
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	private, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%T cannot sign", key)
	}
	return private, nil
}

func decodeEd448(info pkcs8) (crypto.Signer, error) {
	var seed []byte
	rest, err := asn1.Unmarshal(info.Private, &seed)
	if err != nil || len(rest) > 0 || len(seed) != ed448.SeedSize {
		return nil, errors.New("malformed Ed448 private key")
	}
	return ed448.NewKeyFromSeed(seed), nil
}
