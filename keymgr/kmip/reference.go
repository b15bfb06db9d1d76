package kmip

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/miekg/dns"

	"sluice/keymgr"
)

// A reference names a key pair by its name on the server, and by its public key:
//
//	kmip:name=sluice%20zsk%20example.com%201f8b...;public=8b1f...
//
// The private key has the name and " private" behind it, the public key the name
// and " public". The name is random in its last part and given once.
const (
	refPrefix     = "kmip:name="
	refPublic     = ";public="
	privateSuffix = " private"
	publicSuffix  = " public"
)

const (
	printLength  = 16  // of a fingerprint in bytes
	randomLength = 8   // of what is random in a name, in bytes
	maxName      = 200 // of a name in bytes
)

// reference is where a key pair is.
type reference struct {
	name  string
	print [printLength]byte // of the public key
}

// String is the reference as events have it.
func (r reference) String() string {
	return refPrefix + url.PathEscape(r.name) + refPublic + hex.EncodeToString(r.print[:])
}

// parseReference reads what String made, and nothing else.
func parseReference(text string) (reference, error) {
	bad := fmt.Errorf("%q is no reference to a key on a KMIP server: %w", text, keymgr.ErrNoKey)
	rest, ok := strings.CutPrefix(text, refPrefix)
	if !ok {
		return reference{}, bad
	}
	escaped, print, ok := strings.Cut(rest, refPublic)
	if !ok || len(print) != 2*printLength {
		return reference{}, bad
	}
	name, err := url.PathUnescape(escaped)
	if err != nil || name == "" || len(name) > maxName {
		return reference{}, bad
	}
	r := reference{name: name}
	if _, err := hex.Decode(r.print[:], []byte(print)); err != nil || r.String() != text {
		return reference{}, bad
	}
	return r, nil
}

// newName names a new key pair: for people, and unlike any other.
func newName(what string) (string, error) {
	var random [randomLength]byte
	if _, err := rand.Read(random[:]); err != nil {
		return "", err
	}
	return "sluice " + what + " " + hex.EncodeToString(random[:]), nil
}

// labelOf tells people whose key it is.
func labelOf(spec keymgr.Spec) string {
	name := strings.TrimSuffix(spec.Zone, ".")
	if name == "" {
		name = "."
	}
	return string(spec.Role) + " " + name[:min(len(name), 64)]
}

// fingerprint is of a public key, whatever role and algorithm it serves.
func fingerprint(public crypto.PublicKey) (print [printLength]byte, err error) {
	for _, algorithm := range []uint8{dns.ECDSAP256SHA256, dns.RSASHA256, dns.ED25519, dns.ECDSAP384SHA384, dns.ED448} {
		field, err := keymgr.PublicField(algorithm, public)
		if err != nil {
			continue // it is not of this algorithm
		}
		sum := sha256.Sum256(append([]byte("sluice KMIP key\x00"), field...))
		copy(print[:], sum[:])
		return print, nil
	}
	return print, errors.New("the public key is of no kind that DNSSEC uses")
}
