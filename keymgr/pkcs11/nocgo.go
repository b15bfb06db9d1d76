//go:build !cgo

package pkcs11

import (
	"context"
	"crypto"
	"fmt"
	"time"

	"sluice/journal/event"
	"sluice/keymgr"
)

// NewTokens is what a program without cgo has: all that is asked of a token
// fails, and says why.
func NewTokens(dir string, _ func() time.Time) *Tokens { return &Tokens{newPINs(dir)} }

// Tokens implements keymgr.Tokens without any.
type Tokens struct{ pins pins }

func errNoCgo() error {
	return fmt.Errorf("%w: this program was built without cgo; build it with CGO_ENABLED=1 and a C compiler", keymgr.ErrTokens)
}

// Find implements keymgr.Tokens.
func (t *Tokens) Find(context.Context, keymgr.Token, string) (keymgr.Token, error) {
	return keymgr.Token{}, errNoCgo()
}

// KeepPIN implements keymgr.Tokens.
func (t *Tokens) KeepPIN(string, string) error { return errNoCgo() }

// ForgetPIN implements keymgr.Tokens.
func (t *Tokens) ForgetPIN(name string) error { return t.pins.Forget(name) }

// Open implements keymgr.Tokens.
func (t *Tokens) Open(token keymgr.Token) keymgr.TokenKeystore { return &Store{token} }

// OpenWith is Open.
func (t *Tokens) OpenWith(token keymgr.Token, _ string) keymgr.TokenKeystore { return &Store{token} }

// Store is a keystore that cannot be used.
type Store struct{ token keymgr.Token }

// Name implements keymgr.Keystore.
func (s *Store) Name() string { return s.token.Name }

// Token implements keymgr.TokenKeystore.
func (s *Store) Token() keymgr.Token { return s.token }

// State implements keymgr.TokenKeystore.
func (s *Store) State() keymgr.TokenState {
	return keymgr.TokenState{Problem: errNoCgo().Error(), Hint: "build with CGO_ENABLED=1", Stopped: true}
}

// Check implements keymgr.TokenKeystore.
func (s *Store) Check(context.Context) error { return errNoCgo() }

// Test implements keymgr.TokenKeystore.
func (s *Store) Test(context.Context, uint8, string) (keymgr.TokenTest, error) {
	return keymgr.TokenTest{}, errNoCgo()
}

// Close implements keymgr.TokenKeystore.
func (s *Store) Close() error { return nil }

// Generate implements keymgr.Keystore.
func (s *Store) Generate(context.Context, keymgr.Spec, []uint16) (event.Key, error) {
	return event.Key{}, errNoCgo()
}

// Signer implements keymgr.Keystore.
func (s *Store) Signer(context.Context, string) (crypto.Signer, error) { return nil, errNoCgo() }

// Public implements keymgr.Adopter.
func (s *Store) Public(context.Context, string) (crypto.PublicKey, error) { return nil, errNoCgo() }

// Adopt implements keymgr.Adopter.
func (s *Store) Adopt(context.Context, string, event.Key) (event.Key, error) {
	return event.Key{}, errNoCgo()
}

// Remove implements keymgr.Keystore.
func (s *Store) Remove(context.Context, string) error { return errNoCgo() }
