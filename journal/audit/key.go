package audit

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// Key is the private key that signs checkpoints and manifests: Ed25519, in
// the encoding of package note. It must not be logged.
type Key struct {
	signer   note.Signer
	verifier *Verifier
}

// NewKey makes a key and returns its secret encoding. name is that of the log,
// by custom a host name and a path, without scheme.
func NewKey(name string) (secret string, err error) {
	if name == "" || strings.ContainsAny(name, "+ \t\n") {
		return "", fmt.Errorf("name of the log %q: want a host name and a path, without spaces and +", name)
	}
	secret, _, err = note.GenerateKey(rand.Reader, name)
	return secret, err
}

// errKey quotes nothing: what it is about is a secret.
var errKey = errors.New("not the private key of a note signer")

// ParseKey reads a secret encoding, PRIVATE+KEY+NAME+HASH+SEED.
func ParseKey(secret string) (*Key, error) {
	signer, err := note.NewSigner(secret)
	if err != nil {
		return nil, errKey
	}
	// The seed stands behind a byte that names the algorithm. Its base64 may
	// have a plus.
	parts := strings.SplitN(secret, "+", 5)
	seed, err := base64.StdEncoding.DecodeString(parts[len(parts)-1])
	if err != nil || len(seed) != 1+ed25519.SeedSize {
		return nil, errKey
	}
	public, ok := ed25519.NewKeyFromSeed(seed[1:]).Public().(ed25519.PublicKey)
	if !ok {
		return nil, errKey
	}
	text, err := note.NewEd25519VerifierKey(signer.Name(), public)
	if err != nil {
		return nil, errKey
	}
	verifier, err := ParseVerifier(text)
	if err != nil {
		return nil, errKey
	}
	return &Key{signer, verifier}, nil
}

// Name is the name of the log.
func (k *Key) Name() string { return k.signer.Name() }

// Verifier is the public key.
func (k *Key) Verifier() *Verifier { return k.verifier }

// Verifier is a public key: what an auditor has to know beforehand.
type Verifier struct {
	verifier note.Verifier
	text     string
}

// ParseVerifier reads a public encoding, NAME+HASH+KEY.
func ParseVerifier(public string) (*Verifier, error) {
	v, err := note.NewVerifier(public)
	if err != nil {
		return nil, fmt.Errorf("audit key %q: want NAME+HASH+KEY, as sluice audit head prints it", public)
	}
	return &Verifier{v, public}, nil
}

// Name is the name of the log.
func (v *Verifier) Name() string { return v.verifier.Name() }

// String is the public encoding.
func (v *Verifier) String() string { return v.text }
