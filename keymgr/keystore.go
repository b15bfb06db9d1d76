package keymgr

import (
	"context"
	"crypto"
	"errors"

	"sluice/journal/event"
)

// ErrNoKey reports a reference that the keystore does not hold.
var ErrNoKey = errors.New("no such private key")

// Keystore holds private keys. All implementations pass keystoretest.Run.
type Keystore interface {
	// Name is the keystore's name, as events and policies give it.
	Name() string
	// Generate makes a key pair and returns its description; the private part
	// is durable when it returns. avoid lists DNSSEC key tags that the new key
	// must not have, neither as it is nor with the REVOKE bit.
	Generate(ctx context.Context, spec Spec, avoid []uint16) (event.Key, error)
	// Signer returns the private key behind ref. It signs digests as
	// crypto.Signer says (the message itself for Ed25519 and Ed448), and is
	// safe for concurrent use.
	Signer(ctx context.Context, ref string) (crypto.Signer, error)
	// Remove deletes a private key.
	Remove(ctx context.Context, ref string) error
}

// Importer is a keystore that takes key pairs made elsewhere.
type Importer interface {
	// Import reads a private key file in BIND's format (K*.private) with its
	// public .key beside it and keeps the pair. zone is the absolute name that
	// the key must belong to. The role must fit the key's flags; "" takes it
	// from them: KSK with SEP, ZSK without. A key that is already here is no
	// error. What its former signer noted of it, in the .private file and in a
	// .state file beside it, comes along.
	Import(ctx context.Context, path, zone string, role Role) (event.Key, error)
	// Look describes what Import would take up, and keeps nothing.
	Look(ctx context.Context, path, zone string, role Role) (event.Key, error)
}

// Describer is a keystore that reads what files say of a key whose private part
// is elsewhere.
type Describer interface {
	// Describe reads a .key file, and what a former signer noted of the key in a
	// .state file beside it. zone and role are as with Import. The key has neither
	// keystore nor reference, and nothing is kept.
	Describe(ctx context.Context, path, zone string, role Role) (event.Key, error)
}

// Adopter is a keystore in which other programs may have made key pairs, that
// have an ID there: CKA_ID, in hex, on a PKCS#11 token.
type Adopter interface {
	// Public reads the public key of a pair. ErrNoKey where none has the ID.
	Public(ctx context.Context, id string) (crypto.PublicKey, error)
	// Adopt takes up a pair: it must have the public key that key describes, and
	// proves itself by signing. Nothing is changed in the keystore. The key comes
	// back with Keystore, Reference and Adopted. ErrNoKey where none has the ID.
	Adopt(ctx context.Context, id string, key event.Key) (event.Key, error)
}

// Exporter is a keystore that gives private keys out.
type Exporter interface {
	// Export writes a key pair in BIND's format, with what its Life notes.
	// Whoever holds Private must not let others read it. ErrNoKey where the
	// private part is not there.
	Export(ctx context.Context, zone string, key event.Key) (KeyFiles, error)
}

// Sharer is a keystore whose private keys can be handed from one process to
// another. Nobody but keymgr/share's parcels may carry them.
type Sharer interface {
	// Holds reports whether the private key behind a reference is here and can be
	// read.
	Holds(ref string) bool
	// Share gives a private key out, as PKCS #8 in DER, for the process that it is
	// encrypted to at once. Who asked wipes it. ErrNoKey where it is not here.
	Share(ctx context.Context, ref string) ([]byte, error)
	// Accept takes up a private key that Share gave out elsewhere, under the
	// reference that the journal names. It refuses one that is not that of key,
	// and asks proof before anything is kept. It is durable when it returns.
	Accept(ctx context.Context, key event.Key, secret []byte, proof func(crypto.Signer) error) error
}

// KeyFiles is a key pair as BIND's files.
type KeyFiles struct {
	Name    string `json:"name"`    // of the files, without .private, .key and .state
	Private []byte `json:"private"` // the private part
	Public  []byte `json:"public"`
	State   []byte `json:"state"`
}

// Spec is what a new key shall be.
type Spec struct {
	Zone      string // absolute name, for the reference only
	Role      Role
	Algorithm uint8 // IANA number: 8, 10, 13, 14, 15, 16
	Bits      int   // RSA modulus; 0 is 2048
	// Keystore is the one that shall make it, "" the one for files. A keystore
	// does not look at it: whoever chooses one does.
	Keystore string
}

// Role says what a key signs.
type Role string

// The roles.
const (
	KSK Role = "ksk" // the DNSKEY, CDS and CDNSKEY RRsets
	ZSK Role = "zsk" // everything else
	CSK Role = "csk" // all
)
