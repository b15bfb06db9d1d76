package share

import (
	"errors"
	"fmt"

	"filippo.io/age"
	"github.com/nats-io/nkeys"
)

// Identity is what a process opens and signs parcels with. The public parts
// stand in the journal, in worker.enrolled.
type Identity struct {
	name   string
	age    *age.X25519Identity
	signer nkeys.KeyPair
}

// ParseIdentity reads the secret parts of the process called name: an age
// X25519 identity (AGE-SECRET-KEY-1...) and the seed of an nkey of a user
// (SU...). Its errors show nothing of them.
func ParseIdentity(name, ageSecret, seed string) (*Identity, error) {
	if !WorkerName(name) {
		return nil, fmt.Errorf("name of a process %q: want up to %d lower-case letters, digits and -", name, maxWorkerName)
	}
	id, err := age.ParseX25519Identity(ageSecret)
	if err != nil {
		return nil, errors.New("the age identity cannot be read: want one that begins with AGE-SECRET-KEY-1")
	}
	pair, err := nkeys.FromSeed([]byte(seed))
	if err != nil {
		return nil, errors.New("the nkey seed cannot be read: want that of a user, which begins with SU")
	}
	if public, err := pair.PublicKey(); err != nil || !nkeys.IsValidPublicUserKey(public) {
		return nil, errors.New("the nkey seed is not that of a user, which begins with SU")
	}
	return &Identity{name: name, age: id, signer: pair}, nil
}

// NewSecrets makes the secret parts of an identity: an age X25519 identity and
// the seed of an nkey of a user.
func NewSecrets() (ageSecret, seed string, err error) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return "", "", fmt.Errorf("make an age identity: %w", err)
	}
	pair, err := nkeys.CreateUser()
	if err != nil {
		return "", "", fmt.Errorf("make an nkey: %w", err)
	}
	raw, err := pair.Seed()
	if err != nil {
		return "", "", fmt.Errorf("make an nkey: %w", err)
	}
	return id.String(), string(raw), nil
}

// Name is the name of the process.
func (i *Identity) Name() string { return i.name }

// Recipient is what others encrypt to, age1...
func (i *Identity) Recipient() string { return i.age.Recipient().String() }

// NKey is what others verify the signatures of the process with, U...
func (i *Identity) NKey() string {
	public, err := i.signer.PublicKey()
	if err != nil {
		return "" // ParseIdentity has asked for it
	}
	return public
}

// Peer is another process as the journal names it.
type Peer struct {
	Name      string
	Recipient string // age1...
	NKey      string // U...
}

// Peer is the public part of an identity.
func (i *Identity) Peer() Peer {
	return Peer{Name: i.name, Recipient: i.Recipient(), NKey: i.NKey()}
}

// maxWorkerName bounds the name of a process in bytes.
const maxWorkerName = 32

// WorkerName reports whether a process may have a name.
func WorkerName(name string) bool {
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return name != "" && len(name) <= maxWorkerName
}
