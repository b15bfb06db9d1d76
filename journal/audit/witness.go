package audit

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// algCosignature is the key type of Ed25519 cosignatures (C2SP
// tlog-cosignature).
const algCosignature = 4

// ParseWitness reads the public key of a witness, NAME+HASH+KEY: one that
// makes cosignatures (C2SP tlog-cosignature, Ed25519), or signs notes as they
// are.
func ParseWitness(public string) (*Verifier, error) {
	if v, err := ParseVerifier(public); err == nil {
		return v, nil
	}
	bad := fmt.Errorf("witness %q: want NAME+HASH+KEY with an Ed25519 key", public)
	parts := strings.SplitN(public, "+", 3)
	if len(parts) != 3 {
		return nil, bad
	}
	key, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(key) != 1+ed25519.PublicKeySize || key[0] != algCosignature {
		return nil, bad
	}
	sum := sha256.Sum256(append([]byte(parts[0]+"\n"), key...))
	if hex.EncodeToString(sum[:4]) != parts[1] {
		return nil, bad
	}
	return &Verifier{&cosigner{parts[0], binary.BigEndian.Uint32(sum[:]), key[1:]}, public}, nil
}

// cosigner verifies cosignatures: a time in seconds (8 bytes) and a signature
// over it and the note.
type cosigner struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

var _ note.Verifier = (*cosigner)(nil)

func (c *cosigner) Name() string    { return c.name }
func (c *cosigner) KeyHash() uint32 { return c.hash }

func (c *cosigner) Verify(text, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	signed := fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", binary.BigEndian.Uint64(sig), text)
	return ed25519.Verify(c.key, signed, sig[8:])
}
