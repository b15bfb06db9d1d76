package file

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"sluice/journal/event"
	"sluice/keymgr"
)

var _ keymgr.Sharer = (*Store)(nil)

// Holds implements keymgr.Sharer.
func (s *Store) Holds(ref string) bool {
	if checkRef(ref) != nil {
		return false
	}
	text, err := readPrivate(filepath.Join(s.dir, ref))
	clear(text)
	return err == nil
}

// Share implements keymgr.Sharer: the private part is PKCS #8 in DER.
func (s *Store) Share(ctx context.Context, ref string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := checkRef(ref); err != nil {
		return nil, fmt.Errorf("share key: %w", err)
	}
	path := filepath.Join(s.dir, ref)
	text, err := readPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("share key %s: %w", path, keymgr.ErrNoKey)
	}
	if err != nil {
		return nil, fmt.Errorf("share key: %w", err)
	}
	defer clear(text)
	private, err := decodePEM(text)
	if err != nil {
		return nil, fmt.Errorf("share key %s: %w", path, err)
	}
	return encodePKCS8(private)
}

// errSecret stands for errors that might show a part of a private key.
var errSecret = errors.New("no private key in PKCS #8")

// Accept implements keymgr.Sharer.
func (s *Store) Accept(ctx context.Context, key event.Key, secret []byte, proof func(crypto.Signer) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if key.Keystore != s.name {
		return fmt.Errorf("take key %s: it belongs in keystore %q, this is %q", key.ID, key.Keystore, s.name)
	}
	if err := checkRef(key.Reference); err != nil {
		return fmt.Errorf("take key %s: %w", key.ID, err)
	}
	private, err := decodePKCS8(secret)
	if err != nil {
		return fmt.Errorf("take key %s: %w", key.ID, errSecret)
	}
	if made, err := keymgr.NewKey(keymgr.Role(key.Role), key.Algorithm, private.Public()); err != nil || made.ID != key.ID {
		return fmt.Errorf("take key %s: the private part is that of another key", key.ID)
	}
	signer, err := NewSigner(private, s.stdlib)
	if err != nil {
		return fmt.Errorf("take key %s: %w", key.ID, err)
	}
	if err := proof(signer); err != nil {
		return err
	}
	pem, err := encodePEM(private)
	if err != nil {
		return fmt.Errorf("take key %s: %w", key.ID, errSecret)
	}
	defer clear(pem)
	if err := writeFile(s.dir, key.Reference, pem); err != nil {
		return fmt.Errorf("take key %s: %w", key.ID, err)
	}
	return nil
}
