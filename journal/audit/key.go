package audit

import (
	"crypto/rand"
	"fmt"

	"golang.org/x/mod/sumdb/note"
)

// Key is the private key that signs checkpoints and manifests: Ed25519, in
// the encoding of package note. It must not be logged.
type Key struct {
	signer note.Signer
}

// NewKey makes a key and returns its secret and public encodings. name is
// that of the log, by custom a host name and a path, without scheme: it must
// have no space and no plus.
func NewKey(name string) (secret, public string, err error) {
	if secret, public, err = note.GenerateKey(rand.Reader, name); err != nil {
		return "", "", fmt.Errorf("make audit key: %w", err)
	}
	if _, err := ParseVerifier(public); err != nil {
		return "", "", fmt.Errorf("make audit key: %w", err)
	}
	return secret, public, nil
}

// ParseKey reads a secret encoding. Its errors do not quote it.
func ParseKey(secret string) (*Key, error) {
	s, err := note.NewSigner(secret)
	if err != nil {
		return nil, fmt.Errorf("read audit key: not a note signer's key")
	}
	return &Key{s}, nil
}

// Name is the name of the log.
func (k *Key) Name() string { return k.signer.Name() }

// Verifier is a public key: what an auditor has to know beforehand.
type Verifier struct {
	verifier note.Verifier
	text     string
}

// ParseVerifier reads a public encoding: NAME+HASH+KEY.
func ParseVerifier(public string) (*Verifier, error) {
	v, err := note.NewVerifier(public)
	if err != nil {
		return nil, fmt.Errorf("read audit key %q: want NAME+HASH+KEY, as sluice audit head prints it", public)
	}
	return &Verifier{v, public}, nil
}

// Name is the name of the log.
func (v *Verifier) Name() string { return v.verifier.Name() }

// String is the public encoding.
func (v *Verifier) String() string { return v.text }
