package share

import (
	"crypto"
	"crypto/rand"
	"fmt"

	"sluice/journal/event"
	"sluice/keymgr"
)

// NewNonce makes a nonce.
func NewNonce() (n Nonce, err error) {
	_, err = rand.Read(n[:])
	return n, err
}

// challenge is what a process signs to prove that it holds a key. It cannot be
// mistaken for signed DNS data, which begins with the covered type. Only the
// sender of the parcel and its recipient know the nonce: the signature proves
// the key and the recipient.
func (p *Parcel) challenge() []byte {
	out := []byte("\xff\xffsluice proof of possession\n")
	for _, text := range []string{p.Stream, string(p.Zone), p.Name, p.Key, p.To} {
		out = appendBytes(out, []byte(text))
	}
	return append(out, p.Nonce[:]...)
}

// Prove signs the challenge of a parcel with a private key, and verifies that
// with the public key that the journal names. Errors wrap ErrRefused where the
// private key is another one.
func (p *Parcel) Prove(s crypto.Signer, key event.Key) ([]byte, error) {
	if key.ID != p.Key {
		return nil, refused("it is for key %s, not for key %s", p.Key, key.ID)
	}
	sig, err := keymgr.Sign(s, key.Algorithm, p.challenge())
	if err != nil {
		return nil, fmt.Errorf("prove key %s: sign: %w", key.ID, err)
	}
	if err := p.Verify(sig, key); err != nil {
		return nil, err
	}
	return sig, nil
}

// Verify checks that a signature answers the challenge of a parcel with the
// private part of key. An error wraps ErrRefused.
func (p *Parcel) Verify(sig []byte, key event.Key) error {
	rdata, err := keymgr.RData(key)
	if err != nil {
		return err
	}
	if key.ID != p.Key {
		return refused("it is for key %s, not for key %s", p.Key, key.ID)
	}
	if err := keymgr.Verify(rdata, p.challenge(), sig); err != nil {
		return refused("worker %q has not proved key %s: the signature is not by it", p.To, key.ID)
	}
	return nil
}
