package file

import (
	"bytes"
	"crypto"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"sluice/keymgr"
)

func TestShare_KeyMovesToAnotherKeystore(t *testing.T) {
	for _, algorithm := range []uint8{dns.RSASHA256, dns.ECDSAP256SHA256, dns.ECDSAP384SHA384, dns.ED25519, dns.ED448} {
		from, to := newStore(t), newStore(t)
		key, err := from.Generate(t.Context(), keymgr.Spec{Zone: "example.", Role: keymgr.KSK, Algorithm: algorithm}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !from.Holds(key.Reference) || to.Holds(key.Reference) {
			t.Errorf("algorithm %d: Holds is wrong before the key moved", algorithm)
		}
		if _, err := to.Share(t.Context(), key.Reference); !errors.Is(err, keymgr.ErrNoKey) {
			t.Errorf("algorithm %d: shared what is not there: %v", algorithm, err)
		}
		secret, err := from.Share(t.Context(), key.Reference)
		if err != nil {
			t.Fatal(err)
		}
		proved := false
		if err := to.Accept(t.Context(), key, secret, func(crypto.Signer) error { proved = true; return nil }); err != nil || !proved {
			t.Fatalf("algorithm %d: proved %v, %v", algorithm, proved, err)
		}
		if err := keymgr.Prove(t.Context(), to, key); err != nil {
			t.Error(err)
		}
		info, err := os.Stat(filepath.Join(to.dir, key.Reference))
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("algorithm %d: mode %v, %v", algorithm, info, err)
		}
	}
}

func TestAccept_RefusesAnotherKeyAndKeepsNothing(t *testing.T) {
	from, to := newStore(t), newStore(t)
	spec := keymgr.Spec{Zone: "example.", Role: keymgr.ZSK, Algorithm: dns.ECDSAP256SHA256}
	key, err := from.Generate(t.Context(), spec, nil)
	if err != nil {
		t.Fatal(err)
	}
	other, err := from.Generate(t.Context(), spec, nil)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := from.Share(t.Context(), key.Reference)
	if err != nil {
		t.Fatal(err)
	}
	yes := func(crypto.Signer) error { return nil }
	no := errors.New("not proved")
	outside := key
	outside.Reference = "../" + key.Reference
	elsewhere := key
	elsewhere.Keystore = "token"
	csk := key
	csk.Role = string(keymgr.KSK) // another flag, another DNSKEY
	for what, err := range map[string]error{
		"the private part of another key": to.Accept(t.Context(), other, secret, yes),
		"another role":                    to.Accept(t.Context(), csk, secret, yes),
		"a path":                          to.Accept(t.Context(), outside, secret, yes),
		"another keystore":                to.Accept(t.Context(), elsewhere, secret, yes),
		"a damaged private part":          to.Accept(t.Context(), key, secret[:len(secret)-1], yes),
		"no proof":                        to.Accept(t.Context(), key, secret, func(crypto.Signer) error { return no }),
	} {
		if err == nil {
			t.Errorf("%s was accepted", what)
		} else if strings.Contains(err.Error(), string(secret[40:60])) {
			t.Errorf("%s: the error shows the private key", what)
		}
	}
	entries, err := os.ReadDir(to.dir)
	if err != nil || len(entries) != 0 {
		t.Errorf("the keystore holds %v, %v", entries, err)
	}
	if again, err := from.Share(t.Context(), key.Reference); err != nil || !bytes.Equal(again, secret) {
		t.Errorf("a second time something else is shared: %v", err)
	}
}
