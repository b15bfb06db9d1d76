package keymgr

import (
	"context"
	"fmt"

	"sluice/journal/event"
)

// Prove checks that ks holds the private part of key: it signs a message, and
// the key's DNSKEY verifies it. Nothing may become active without it.
func Prove(ctx context.Context, ks Keystore, key event.Key) error {
	rdata, err := RData(key)
	if err != nil {
		return err
	}
	s, err := ks.Signer(ctx, key.Reference)
	if err != nil {
		return fmt.Errorf("prove key %s: %w", key.ID, err)
	}
	// The text cannot be mistaken for signed DNS data, which begins with the
	// covered type.
	message := []byte("\xff\xffsluice proof of possession of key " + key.ID)
	sig, err := Sign(s, key.Algorithm, message)
	if err != nil {
		return fmt.Errorf("prove key %s: sign: %w", key.ID, err)
	}
	if err := Verify(rdata, message, sig); err != nil {
		return fmt.Errorf("prove key %s: keystore %q signs with another key: %w", key.ID, ks.Name(), err)
	}
	return nil
}
