//go:build cgo

package pkcs11

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	p11 "github.com/miekg/pkcs11"

	"sluice/keymgr"
)

// On 2026-05-05 each of .DE's HSMs had a key pair of its own under one label
// and key tag, and most signatures of the zone did not verify.
func TestIncident_DE2026_TokensOfOneLabel(t *testing.T) {
	h := needSoftHSM(t)
	first, _ := h.token(t, "zsk")
	second, _ := h.token(t, "zsk")
	tokens := h.newTokens(t)
	token := keymgr.Token{Name: "hsm", Module: h.module, Label: "zsk"}
	_, err := tokens.Find(t.Context(), token, testPIN)
	wantText(t, err, "2 tokens have this label", first, second, "--serial")

	token.Serial = first
	if got, err := tokens.Find(t.Context(), token, testPIN); err != nil || got.Serial != first {
		t.Fatalf("found %+v, %v", got, err)
	}
	one := h.open(t, tokens, token)
	k := makeKey(t, one)
	ref, err := parseReference(k.Reference)
	if err != nil {
		t.Fatal(err)
	}
	token.Name, token.Serial = "other", second
	two := h.open(t, tokens, token)
	if _, err := two.Signer(t.Context(), k.Reference); !errors.Is(err, keymgr.ErrNoKey) {
		t.Errorf("the other token has the key: %v", err)
	}
	// Another key pair under the same label and CKA_ID there.
	plant(t, two, ref.id, "sluice zsk example")
	_, err = two.Signer(t.Context(), k.Reference)
	wantText(t, err, "is another one", second, "fingerprint")
	if err := keymgr.Prove(t.Context(), two, k); err == nil {
		t.Error("the key proves itself on a token that has another one")
	}
	if err := keymgr.Prove(t.Context(), one, k); err != nil {
		t.Error(err)
	}
	// And once more on the first one: which of them signs is not known.
	plant(t, one, ref.id, "copy")
	if err := one.lost(t); err != nil {
		t.Fatal(err)
	}
	_, err = one.Signer(t.Context(), k.Reference)
	wantText(t, err, "2 private keys have the CKA_ID", `"copy"`, `"sluice zsk example"`, first)
}

// lost has a keystore connect anew.
func (s *Store) lost(t *testing.T) error {
	t.Helper()
	c, err := s.connected(t.Context())
	if err == nil {
		s.lose(c)
	}
	return err
}

// plant makes a key pair on a token with a given CKA_ID.
func plant(t *testing.T, s *Store, id []byte, label string) {
	t.Helper()
	made, err := recipe(dns.ECDSAP256SHA256, 0)
	if err != nil {
		t.Fatal(err)
	}
	err = s.do(t.Context(), func(ctx context.Context, c *connection) error {
		return s.with(ctx, c, func(lib library, session p11.SessionHandle) error {
			_, _, err := made.generate(lib, session, true, id, label)
			return err
		})
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestStore_ReplacedTokenIsNotTaken(t *testing.T) {
	h := needSoftHSM(t)
	serial, dir := h.token(t, "zones")
	tokens := h.newTokens(t)
	s := h.open(t, tokens, keymgr.Token{Name: "hsm", Label: "zones", Serial: serial})
	k := makeKey(t, s)
	if err := os.Rename(dir, filepath.Join(h.dir, "away")); err != nil {
		t.Fatal(err)
	}
	replaced, _ := h.token(t, "zones")
	if err := s.lost(t); err != nil {
		t.Fatal(err)
	}
	_, err := s.Signer(t.Context(), k.Reference)
	wantText(t, err, "not there", replaced, serial)
}

func TestStore_SoftHSMGoneAndBack(t *testing.T) {
	h := needSoftHSM(t)
	serial, dir := h.token(t, "zones")
	s := h.open(t, h.newTokens(t), keymgr.Token{Name: "hsm", Label: "zones", Serial: serial})
	k := signerOf(t, s, makeKey(t, s))
	away := filepath.Join(h.dir, "away")
	if err := os.Rename(dir, away); err != nil {
		t.Fatal(err)
	}
	wantText(t, sign(k, "a"), `keystore "hsm"`, serial)
	wantText(t, s.Check(t.Context()), "not there")
	if err := os.Rename(away, dir); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := sign(k, "b")
		if err == nil {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("the token is back: %v", err)
		}
	}
	if st := s.State(); !st.Connected || st.Problem != "" {
		t.Errorf("state %+v", st)
	}
}

func TestStore_KeyDeletedBesideUsIsMissed(t *testing.T) {
	h := needSoftHSM(t)
	serial, _ := h.token(t, "zones")
	tokens := h.newTokens(t)
	s := h.open(t, tokens, keymgr.Token{Name: "hsm", Label: "zones", Serial: serial})
	k := makeKey(t, s)
	signs := signerOf(t, s, k)
	ref, err := parseReference(k.Reference)
	if err != nil {
		t.Fatal(err)
	}
	err = s.do(t.Context(), func(ctx context.Context, c *connection) error {
		return s.with(ctx, c, func(lib library, session p11.SessionHandle) error {
			found, err := objects(lib, session, p11.CKO_PRIVATE_KEY, ref.id)
			if err != nil {
				return err
			}
			return destroy(lib, session, found...)
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := sign(signs, "a"); !errors.Is(err, keymgr.ErrNoKey) {
		t.Errorf("signing gives %v, want ErrNoKey", err)
	}
}

func TestGenerate_KeysCannotLeaveTheToken(t *testing.T) {
	h := needSoftHSM(t)
	serial, _ := h.token(t, "zones")
	s := h.open(t, h.newTokens(t), keymgr.Token{Name: "hsm", Label: "zones", Serial: serial})
	for _, algorithm := range []uint8{dns.RSASHA256, dns.ECDSAP256SHA256, dns.ED25519} {
		k, err := s.Generate(t.Context(), keymgr.Spec{Zone: "example.", Role: keymgr.KSK, Algorithm: algorithm}, nil)
		if err != nil {
			t.Fatal(err)
		}
		ref, err := parseReference(k.Reference)
		if err != nil {
			t.Fatal(err)
		}
		want := map[uint]bool{
			p11.CKA_SENSITIVE: true, p11.CKA_ALWAYS_SENSITIVE: true, p11.CKA_EXTRACTABLE: false, p11.CKA_NEVER_EXTRACTABLE: true,
			p11.CKA_PRIVATE: true, p11.CKA_TOKEN: true, p11.CKA_SIGN: true,
		}
		err = s.do(t.Context(), func(ctx context.Context, c *connection) error {
			return s.with(ctx, c, func(lib library, session p11.SessionHandle) error {
				found, err := objects(lib, session, p11.CKO_PRIVATE_KEY, ref.id)
				if err != nil || len(found) != 1 {
					t.Errorf("algorithm %d: %d private keys with the CKA_ID, %v", algorithm, len(found), err)
					return err
				}
				for attribute, value := range want {
					a, err := lib.GetAttributeValue(session, found[0], []*p11.Attribute{p11.NewAttribute(attribute, nil)})
					if err != nil {
						return err
					}
					if got := !bytes.Equal(a[0].Value, []byte{0}); got != value {
						t.Errorf("algorithm %d: attribute 0x%x is %v", algorithm, attribute, got)
					}
				}
				a, err := lib.GetAttributeValue(session, found[0], []*p11.Attribute{p11.NewAttribute(p11.CKA_LABEL, nil)})
				if err == nil && string(a[0].Value) != "sluice ksk example" {
					t.Errorf("label %q", a[0].Value)
				}
				return err
			})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestFind_SaysWhatIsWrong(t *testing.T) {
	h := needSoftHSM(t)
	serial, _ := h.token(t, "zones")
	tokens := h.newTokens(t)
	plain := filepath.Join(h.dir, "plain")
	if err := os.WriteFile(plain, []byte("no library"), 0o600); err != nil {
		t.Fatal(err)
	}
	for fact, row := range map[string]struct {
		token keymgr.Token
		pin   string
		words []string
	}{
		"no module":     {keymgr.Token{Module: "/nowhere.so", Label: "zones"}, testPIN, []string{"/nowhere.so is not there", "libsofthsm2.so"}},
		"relative path": {keymgr.Token{Module: "x.so", Label: "zones"}, testPIN, []string{"absolute path"}},
		"no library":    {keymgr.Token{Module: plain, Label: "zones"}, testPIN, []string{"cannot be loaded", "ldd"}},
		"other label":   {keymgr.Token{Module: h.module, Label: "zonen"}, testPIN, []string{"not there", `"zones"`, serial}},
		"other serial":  {keymgr.Token{Module: h.module, Label: "zones", Serial: "0"}, testPIN, []string{"not there", serial}},
		"wrong PIN":     {keymgr.Token{Module: h.module, Label: "zones"}, "99999999", []string{"refuses the PIN", "CKR_PIN_INCORRECT"}},
		"no PIN":        {keymgr.Token{Module: h.module, Label: "zones"}, "", []string{"PIN"}},
	} {
		t.Run(fact, func(t *testing.T) {
			row.token.Name = "hsm"
			_, err := tokens.Find(t.Context(), row.token, row.pin)
			wantText(t, err, row.words...)
		})
	}
}

func TestTest_MeasuresAndLeavesNothing(t *testing.T) {
	h := needSoftHSM(t)
	serial, dir := h.token(t, "zones")
	s := h.open(t, h.newTokens(t), keymgr.Token{Name: "hsm", Label: "zones", Serial: serial})
	before, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, algorithm := range []uint8{0, dns.ED25519} {
		r, err := s.Test(t.Context(), algorithm, "")
		if err != nil {
			t.Fatal(err)
		}
		if r.Signatures < 1 || r.PerSecond <= 0 || r.Sign <= 0 || r.Slowest < r.Sign || r.Generate <= 0 || r.Sessions != 8 || !strings.Contains(r.Manufacturer, "SoftHSM") {
			t.Errorf("report %+v", r)
		}
	}
	after, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(after) != len(before) {
		t.Errorf("%d files in the token's folder, %d before", len(after), len(before))
	}
}

func FuzzParseReference(f *testing.F) {
	f.Add("pkcs11:id=%01%02%03%04%05%06%07%08%09%0a%0b%0c%0d%0e%0f%10;type=private")
	f.Add("pkcs11:id=%01;type=private?x-public=0102030405060708090a0b0c0d0e0f10")
	f.Add("pkcs11:id=;type=private")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := parseReference(text)
		if err != nil {
			if !errors.Is(err, keymgr.ErrNoKey) {
				t.Errorf("error %v", err)
			}
			return
		}
		if r.String() != text || len(r.print) != printLength || len(r.id) == 0 {
			t.Errorf("%q reads as %+v", text, r)
		}
	})
}

// What a token says of a public key is read without harm, whatever it is.
func FuzzPublicKey(f *testing.F) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	point, err := private.PublicKey.Bytes()
	if err != nil {
		f.Fatal(err)
	}
	for _, c := range curves() {
		f.Add(c.params, append([]byte{4, byte(len(point))}, point...))
		f.Add(c.params, point)
	}
	f.Add([]byte{1, 0, 1}, bytes.Repeat([]byte{0xff}, 256))
	f.Fuzz(func(t *testing.T, params, point []byte) {
		for _, read := range []func([]byte, []byte) (crypto.PublicKey, error){curveKey, func(a, b []byte) (crypto.PublicKey, error) { return rsaKey(b, a) }} {
			public, err := read(params, point)
			if err != nil {
				continue
			}
			if _, err := fingerprint(public); err != nil {
				t.Errorf("%T has no fingerprint: %v", public, err)
			}
			sum := sha256.Sum256(point)
			if keymgr.Verifies(public, sum[:], crypto.SHA256, make([]byte, 64)) {
				t.Errorf("%T verifies zeros", public)
			}
		}
	})
}

// BenchmarkSignBatch is what a token in files signs, verification included.
func BenchmarkSignBatch(b *testing.B) {
	h := needSoftHSM(b)
	serial, _ := h.token(b, "zones")
	s := h.open(b, h.newTokens(b), keymgr.Token{Name: "hsm", Label: "zones", Serial: serial})
	k, err := s.Generate(b.Context(), keymgr.Spec{Zone: "example.", Role: keymgr.ZSK, Algorithm: dns.ECDSAP256SHA256}, nil)
	if err != nil {
		b.Fatal(err)
	}
	signs, err := s.Signer(b.Context(), k.Reference)
	if err != nil {
		b.Fatal(err)
	}
	batch, ok := signs.(batchKey)
	if !ok {
		b.Fatalf("a P-256 key is a %T", signs)
	}
	digests := make([]byte, 32*256)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if _, err := batch.SignBatch(nil, digests); err != nil {
			b.Fatal(err)
		}
		n += 256
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "signatures/s")
}
