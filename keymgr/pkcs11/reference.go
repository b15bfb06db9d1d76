package pkcs11

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/miekg/dns"

	"sluice/keymgr"
)

// A reference is a PKCS #11 URI (RFC 7512) that names a key pair by its CKA_ID,
// and by its public key where the CKA_ID does not follow from that:
//
//	pkcs11:id=%1f%8b...;type=private
//	pkcs11:id=%01;type=private?x-public=1f8b...
//
// Labels are for people and never looked at.
const (
	refPrefix = "pkcs11:id="
	refType   = ";type=private"
	refPublic = "?x-public="
)

// printLength is the length of a fingerprint in bytes.
const printLength = 16

// maxID bounds a CKA_ID in bytes.
const maxID = 255

// reference is where a key pair is.
type reference struct {
	id    []byte // CKA_ID
	print []byte // of the public key
	text  string // as it was read; "" for one that was not
}

// String is the reference as events have it.
func (r reference) String() string {
	if r.text != "" {
		return r.text
	}
	var b strings.Builder
	b.WriteString(refPrefix)
	for _, c := range r.id {
		fmt.Fprintf(&b, "%%%02x", c)
	}
	b.WriteString(refType)
	if !bytes.Equal(r.id, r.print) {
		b.WriteString(refPublic + hex.EncodeToString(r.print))
	}
	return b.String()
}

// parseReference reads what String made, and nothing else.
func parseReference(text string) (reference, error) {
	bad := fmt.Errorf("%q is no reference to a key on a token: %w", text, keymgr.ErrNoKey)
	rest, ok := strings.CutPrefix(text, refPrefix)
	if !ok {
		return reference{}, bad
	}
	id, rest, ok := strings.Cut(rest, refType)
	if !ok || len(id)%3 != 0 || id == "" || len(id) > 3*maxID {
		return reference{}, bad
	}
	var r reference
	for i := 0; i < len(id); i += 3 {
		c, err := hex.DecodeString(id[i+1 : i+3])
		if id[i] != '%' || err != nil {
			return reference{}, bad
		}
		r.id = append(r.id, c[0])
	}
	r.print = r.id
	if rest != "" {
		print, ok := strings.CutPrefix(rest, refPublic)
		if !ok {
			return reference{}, bad
		}
		var err error
		if r.print, err = hex.DecodeString(print); err != nil {
			return reference{}, bad
		}
	}
	if len(r.print) != printLength || r.String() != text {
		return reference{}, bad
	}
	r.text = text
	return r, nil
}

// fingerprint is of a public key, whatever role and algorithm it serves.
func fingerprint(public crypto.PublicKey) ([]byte, error) {
	for _, algorithm := range []uint8{dns.ECDSAP256SHA256, dns.RSASHA256, dns.ED25519, dns.ECDSAP384SHA384, dns.ED448} {
		field, err := keymgr.PublicField(algorithm, public)
		if err != nil {
			continue // it is not of this algorithm
		}
		sum := sha256.Sum256(append([]byte("sluice token key\x00"), field...))
		return sum[:printLength], nil
	}
	return nil, errors.New("the public key is of no kind that DNSSEC uses")
}
