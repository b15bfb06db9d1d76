//go:build cgo

package pkcs11

import (
	"context"
	"crypto"
	"encoding/hex"
	"errors"
	"fmt"

	p11 "github.com/miekg/pkcs11"

	"sluice/journal/event"
	"sluice/keymgr"
)

var _ keymgr.Adopter = (*Store)(nil)

// parseID reads a CKA_ID in hex.
func parseID(text string) ([]byte, error) {
	id, err := hex.DecodeString(text)
	if err != nil || len(id) == 0 || len(id) > maxID {
		return nil, fmt.Errorf("%q is no CKA_ID: want 1 to %d bytes in hex", text, maxID)
	}
	return id, nil
}

// Public implements keymgr.Adopter.
func (s *Store) Public(ctx context.Context, id string) (crypto.PublicKey, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	raw, err := parseID(id)
	if err != nil {
		return nil, fmt.Errorf("read public key: %w", err)
	}
	var found crypto.PublicKey
	err = s.do(ctx, func(ctx context.Context, c *connection) error {
		var read crypto.PublicKey // a call that nobody waits for any more writes here
		err := s.with(ctx, c, func(lib library, session p11.SessionHandle) (err error) {
			read, err = publicOf(lib, session, raw)
			return err
		})
		if err == nil {
			found = read
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the public key with the CKA_ID %s: %w", id, err)
	}
	return found, nil
}

// publicOf reads the public key of the pair that has a CKA_ID.
func publicOf(lib library, session p11.SessionHandle, id []byte) (crypto.PublicKey, error) {
	private, err := onlyPrivate(lib, session, id)
	if err != nil {
		return nil, err
	}
	public, err := objects(lib, session, p11.CKO_PUBLIC_KEY, id)
	if err != nil {
		return nil, err
	}
	why := errors.New("there is no public key beside the private one")
	// Of an RSA key the private part tells the public one.
	for _, h := range append(public, private) {
		key, err := readPublic(lib, session, h)
		if err == nil {
			return key, nil
		}
		if lost(err) {
			return nil, err
		}
		if len(public) > 0 {
			why = err
		}
	}
	return nil, why
}

// Adopt implements keymgr.Adopter.
func (s *Store) Adopt(ctx context.Context, id string, key event.Key) (event.Key, error) {
	adopted, err := s.adopt(ctx, id, key)
	if err != nil {
		return event.Key{}, fmt.Errorf("take up the key with the CKA_ID %s: %w", id, err)
	}
	return adopted, nil
}

func (s *Store) adopt(ctx context.Context, id string, key event.Key) (event.Key, error) {
	if err := ctx.Err(); err != nil {
		return key, err
	}
	raw, err := parseID(id)
	if err != nil {
		return key, err
	}
	rdata, err := keymgr.RData(key)
	if err != nil {
		return key, err
	}
	public, err := keymgr.PublicKey(rdata)
	if err != nil {
		return key, err
	}
	print, err := fingerprint(public)
	if err != nil {
		return key, err
	}
	ref := reference{id: raw, print: print}
	if _, err := s.object(ctx, ref); err != nil {
		return key, err
	}
	key.Keystore, key.Reference, key.Adopted = s.token.Name, ref.String(), true
	return key, keymgr.Prove(ctx, s, key)
}
