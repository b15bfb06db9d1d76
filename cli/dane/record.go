package dane

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// Certificate usages (RFC 7218, 2.1).
const (
	PKIXTA = 0 // the CA's certificate, with usual validation
	PKIXEE = 1 // the server's, with usual validation
	DANETA = 2 // a CA's certificate, which is trusted for being listed
	DANEEE = 3 // the server's certificate or key, which is trusted for being listed
)

// Record is TLSA RDATA (RFC 6698, 2.1).
type Record struct {
	Usage    uint8  `json:"usage"`
	Selector uint8  `json:"selector"` // 0: the whole certificate; 1: its public key
	Matching uint8  `json:"matching"` // 0: as it is; 1: SHA-256; 2: SHA-512
	Data     string `json:"data"`     // in hex digits
}

var (
	errShort    = errors.New("a TLSA record of less than four bytes")
	errNoCert   = errors.New("no certificate (PEM or DER)")
	errUsage    = errors.New("usage: want 0 (PKIX-TA), 1 (PKIX-EE), 2 (DANE-TA) or 3 (DANE-EE)")
	errSelector = errors.New("selector: want 0 (certificate) or 1 (public key)")
	errMatching = errors.New("matching: want 0 (in full), 1 (SHA-256) or 2 (SHA-512)")
)

// ParseRecord reads RDATA in wire form.
func ParseRecord(rdata []byte) (Record, error) {
	if len(rdata) < 4 {
		return Record{}, errShort
	}
	return Record{Usage: rdata[0], Selector: rdata[1], Matching: rdata[2], Data: hex.EncodeToString(rdata[3:])}, nil
}

// Usable says why a record cannot be used; nil where it can.
func (r Record) Usable() error {
	switch {
	case r.Usage > DANEEE:
		return errUsage
	case r.Selector > 1:
		return errSelector
	case r.Matching > 2:
		return errMatching
	}
	return nil
}

// String is the data of the record as a zone file has it.
func (r Record) String() string {
	return fmt.Sprintf("%d %d %d %s", r.Usage, r.Selector, r.Matching, strings.ToUpper(r.Data))
}

// Make makes the record of a certificate.
func Make(cert *x509.Certificate, usage, selector, matching uint8) (Record, error) {
	r := Record{Usage: usage, Selector: selector, Matching: matching}
	if err := r.Usable(); err != nil {
		return Record{}, err
	}
	if (usage == PKIXTA || usage == DANETA) && !cert.IsCA {
		return Record{}, fmt.Errorf("the certificate of %s is not a CA's: usage %d wants one; give the chain with the CA's certificate last", cert.Subject, usage)
	}
	r.Data = hex.EncodeToString(r.of(cert))
	return r, nil
}

// of is what the record's data is where it is of a certificate.
func (r Record) of(cert *x509.Certificate) []byte {
	data := cert.Raw
	if r.Selector == 1 {
		data = cert.RawSubjectPublicKeyInfo
	}
	switch r.Matching {
	case 1:
		sum := sha256.Sum256(data)
		return sum[:]
	case 2:
		sum := sha512.Sum512(data)
		return sum[:]
	}
	return data
}

// Is reports whether the record is of a certificate.
func (r Record) Is(cert *x509.Certificate) bool {
	data, err := hex.DecodeString(r.Data)
	return err == nil && r.Usable() == nil && bytes.Equal(data, r.of(cert))
}

// maxChain is how many certificates are looked at.
const maxChain = 16

// ReadCertificates reads certificates, the server's first: PEM, or one in DER.
func ReadCertificates(text []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for rest := text; len(out) < maxChain; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(out)+1, err)
		}
		out = append(out, cert)
	}
	if len(out) > 0 {
		return out, nil
	}
	cert, err := x509.ParseCertificate(text)
	if err != nil {
		return nil, errNoCert
	}
	return []*x509.Certificate{cert}, nil
}

// Pick is the certificate of a chain that a record of a usage is made of: the
// server's, or the last CA's.
func Pick(chain []*x509.Certificate, usage uint8) *x509.Certificate {
	if usage == PKIXTA || usage == DANETA {
		return chain[len(chain)-1]
	}
	return chain[0]
}
