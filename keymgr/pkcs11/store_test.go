//go:build cgo

package pkcs11

import (
	"testing"

	"sluice/keymgr"
	"sluice/keymgr/keystoretest"
)

func TestKeystore(t *testing.T) {
	keystoretest.Run(t, func(t *testing.T) keystoretest.Open {
		h := needSoftHSM(t)
		serial, _ := h.token(t, "zones")
		tokens := h.newTokens(t)
		return func(t *testing.T) keymgr.Keystore {
			return h.open(t, tokens, keymgr.Token{Name: "hsm", Label: "zones", Serial: serial})
		}
	})
}
