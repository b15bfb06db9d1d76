//go:build cgo

package pkcs11

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/miekg/dns"
	p11 "github.com/miekg/pkcs11"

	"sluice/journal/event"
	"sluice/keymgr"
)

// elsewhere makes a key pair as OpenDNSSEC does: a CKA_ID of 16 random bytes,
// its hex digits for a label. Without a public key on the token where bare is
// true (<SkipPublicKey/>).
func elsewhere(t *testing.T, s *Store, algorithm uint8, name string, bare bool) (id string) {
	t.Helper()
	sum := sha256.Sum256([]byte(name))
	id = hex.EncodeToString(sum[:16])
	made, err := recipe(algorithm, 0)
	if err != nil {
		t.Fatal(err)
	}
	err = s.do(t.Context(), func(ctx context.Context, c *connection) error {
		return s.with(ctx, c, func(lib library, session p11.SessionHandle) error {
			public, _, err := made.generate(lib, session, true, sum[:16], id)
			if err == nil && bare {
				err = destroy(lib, session, public)
			}
			return err
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// recordOf is the key that a DNSKEY record of a key pair describes.
func recordOf(t *testing.T, s *Store, id string, role keymgr.Role, algorithm uint8) event.Key {
	t.Helper()
	public, err := s.Public(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	k, err := keymgr.NewKey(role, algorithm, public)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestAdopt_KeysThatOthersMade(t *testing.T) {
	h := needSoftHSM(t)
	serial, _ := h.token(t, "OpenDNSSEC")
	tokens := h.newTokens(t)
	token := keymgr.Token{Name: "softhsm", Label: "OpenDNSSEC", Serial: serial}
	s := h.open(t, tokens, token)
	for _, row := range []struct {
		name      string
		role      keymgr.Role
		algorithm uint8
		bare      bool
	}{
		{"RSA without a public key on the token", keymgr.KSK, dns.RSASHA256, true},
		{"RSA with one", keymgr.ZSK, dns.RSASHA512, false},
		{"P-256", keymgr.CSK, dns.ECDSAP256SHA256, false},
		{"P-384", keymgr.KSK, dns.ECDSAP384SHA384, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			id := elsewhere(t, s, row.algorithm, row.name, row.bare)
			record := recordOf(t, s, id, row.role, row.algorithm)
			record.Life = &event.KeyLife{State: "active"}
			k, err := s.Adopt(t.Context(), strings.ToUpper(id), record)
			if err != nil {
				t.Fatal(err)
			}
			if !k.Adopted || k.Keystore != "softhsm" || k.ID != record.ID || k.Life != record.Life {
				t.Errorf("taken up as %+v", k)
			}
			again := h.open(t, h.newTokens(t), token) // another process
			if err := keymgr.Prove(t.Context(), again, k); err != nil {
				t.Errorf("after a start: %v", err)
			}
		})
	}
}

func TestAdopt_RefusesOtherKeys(t *testing.T) {
	h := needSoftHSM(t)
	serial, _ := h.token(t, "OpenDNSSEC")
	s := h.open(t, h.newTokens(t), keymgr.Token{Name: "softhsm", Label: "OpenDNSSEC", Serial: serial})
	id := elsewhere(t, s, dns.ECDSAP256SHA256, "one", false)
	other := elsewhere(t, s, dns.ECDSAP256SHA256, "other", false)
	twice := elsewhere(t, s, dns.ECDSAP256SHA256, "twice", false)
	bare := elsewhere(t, s, dns.ECDSAP256SHA256, "bare", true)
	record := recordOf(t, s, id, keymgr.KSK, dns.ECDSAP256SHA256)
	elsewhere(t, s, dns.ECDSAP256SHA256, "twice", false)

	for _, row := range []struct {
		name, id string
		want     []string
	}{
		{"another key pair under the ID", other, []string{other, "is another one"}},
		{"no key under the ID", "00ff", []string{"no private key has the CKA_ID 00ff"}},
		{"two under the ID", twice, []string{"2 private keys have the CKA_ID", twice}},
		{"no public key to compare", bare, []string{"the public key with the CKA_ID " + bare + " is not on the token"}},
		{"no ID", "", []string{`"" is no CKA_ID: want 1 to 255 bytes in hex`}},
		{"no hex", "xyz", []string{`"xyz" is no CKA_ID`}},
		{"too long", strings.Repeat("00", 256), []string{"is no CKA_ID"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := s.Adopt(t.Context(), row.id, record)
			wantText(t, err, row.want...)
			if row.name == "no key under the ID" && !errors.Is(err, keymgr.ErrNoKey) {
				t.Errorf("%v is not ErrNoKey", err)
			}
		})
	}
	if _, err := s.Public(t.Context(), "00ff"); !errors.Is(err, keymgr.ErrNoKey) {
		t.Errorf("public key of nothing: %v", err)
	}
	_, err := s.Public(t.Context(), bare)
	wantText(t, err, bare, "no public key")
	record.DNSKEY = "AQE"
	if _, err := s.Adopt(t.Context(), id, record); err == nil {
		t.Error("a record that is none is taken")
	}
}

func TestOpenWith_KeepsNoPIN(t *testing.T) {
	h := needSoftHSM(t)
	serial, _ := h.token(t, "OpenDNSSEC")
	tokens := h.newTokens(t)
	token := keymgr.Token{Name: "softhsm", Module: h.module, Label: "OpenDNSSEC", Serial: serial}
	s := tokens.OpenWith(token, testPIN)
	if err := s.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := tokens.pins.read("softhsm"); err == nil {
		t.Error("the PIN was kept")
	}
	wrong := tokens.OpenWith(token, "0000")
	wantText(t, wrong.Check(t.Context()), "refuses the PIN")
	if err := wrong.Close(); err != nil {
		t.Fatal(err)
	}
	if refused, err := tokens.pins.Refused("softhsm", "0000"); err != nil || refused {
		t.Errorf("the refusal was noted: %v", err)
	}
}
