package keymgr

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"sync"

	"sluice/journal/event"
)

// Proofs is how many signatures a proof takes, all at a time: behind one token
// several devices may stand, each of which has to hold the same key.
const Proofs = 8

// Prove checks that ks holds the private part of key: it signs some messages at
// a time, and the key's DNSKEY verifies each. Nothing may become active without
// it.
func Prove(ctx context.Context, ks Keystore, key event.Key) error {
	rdata, err := RData(key)
	if err != nil {
		return err
	}
	s, err := ks.Signer(ctx, key.Reference)
	if err != nil {
		return fmt.Errorf("prove key %s: %w", key.ID, err)
	}
	errs := make([]error, Proofs)
	var wg sync.WaitGroup
	for i := range errs {
		// The text cannot be mistaken for signed DNS data, which begins with the
		// covered type.
		message := fmt.Appendf(nil, "\xff\xffsluice proof %d of possession of key %s", i, key.ID)
		wg.Go(func() {
			sig, err := Sign(s, key.Algorithm, message)
			if err != nil {
				errs[i] = fmt.Errorf("prove key %s: sign: %w", key.ID, err)
			} else if err := Verify(rdata, message, sig); err != nil {
				errs[i] = fmt.Errorf("prove key %s: keystore %q signs with another key: %w", key.ID, ks.Name(), err)
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// holds reports whether a signer says that it has the key of a DNSKEY.
func holds(s crypto.Signer, rdata []byte) error {
	public, err := PublicKey(rdata)
	if err != nil {
		return err
	}
	if same, ok := public.(interface{ Equal(crypto.PublicKey) bool }); !ok || !same.Equal(s.Public()) {
		return errors.New("it holds another key there")
	}
	return nil
}
