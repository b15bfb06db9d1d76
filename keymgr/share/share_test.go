package share

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/journal/event"
	"sluice/keymgr"
)

func identity(t testing.TB, name string) *Identity {
	t.Helper()
	secret, seed, err := NewSecrets()
	if err != nil {
		t.Fatal(err)
	}
	id, err := ParseIdentity(name, secret, seed)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

var here = Context{Stream: strings.Repeat("ab", 16), Zone: "0123456789abcdef", Name: "example.", Key: "00112233aabbccdd"}

func parcel(t testing.TB) Parcel {
	t.Helper()
	nonce, err := NewNonce()
	if err != nil {
		t.Fatal(err)
	}
	return Parcel{Kind: KindKey, Context: here, Nonce: nonce, Secret: []byte("the private part")}
}

func TestSeal_OpensForTheRecipientAlone(t *testing.T) {
	from, to, other := identity(t, "main"), identity(t, "w1"), identity(t, "w2")
	p := parcel(t)
	sealed, err := Seal(from, to.Peer(), p)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed, p.Secret) || bytes.Contains(sealed, []byte(here.Key)) {
		t.Error("the sealed parcel shows what it holds")
	}
	if name, err := Sender(sealed); err != nil || name != "main" {
		t.Errorf("sender %q, %v", name, err)
	}
	got, err := Open(to, from.Peer(), sealed)
	if err != nil {
		t.Fatal(err)
	}
	want := p
	want.From, want.To = "main", "w1"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if err := got.For(here); err != nil {
		t.Error(err)
	}

	named := identity(t, "w1") // the same name, other secrets
	for what, try := range map[string]func() (Parcel, error){
		"another worker":              func() (Parcel, error) { return Open(other, from.Peer(), sealed) },
		"one that has taken the name": func() (Parcel, error) { return Open(named, from.Peer(), sealed) },
		"another sender":              func() (Parcel, error) { return Open(to, other.Peer(), sealed) },
		"a sender of the same name": func() (Parcel, error) {
			return Open(to, identity(t, "main").Peer(), sealed)
		},
		"a sender without a key": func() (Parcel, error) { return Open(to, Peer{Name: "main"}, sealed) },
	} {
		if p, err := try(); !errors.Is(err, ErrRefused) || p.Secret != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestOpen_EveryChangedByteIsRefused(t *testing.T) {
	from, to := identity(t, "main"), identity(t, "w1")
	sealed, err := Seal(from, to.Peer(), parcel(t))
	if err != nil {
		t.Fatal(err)
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := Open(to, from.Peer(), bad); !errors.Is(err, ErrRefused) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
	}
	for i := range sealed {
		if _, err := Open(to, from.Peer(), sealed[:i]); !errors.Is(err, ErrRefused) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
	if _, err := Open(to, from.Peer(), append(sealed, make([]byte, MaxSealed)...)); !errors.Is(err, ErrRefused) {
		t.Errorf("too large: %v", err)
	}
}

func TestFor_AnotherContextIsRefused(t *testing.T) {
	p := parcel(t)
	for what, change := range map[string]func(*Context){
		"stream": func(c *Context) { c.Stream = strings.Repeat("cd", 16) },
		"zone":   func(c *Context) { c.Zone = "fedcba9876543210" },
		"name":   func(c *Context) { c.Name = "example.org." },
		"key":    func(c *Context) { c.Key = "ffffffffffffffff" },
	} {
		c := here
		change(&c)
		if err := p.For(c); !errors.Is(err, ErrRefused) {
			t.Errorf("another %s: %v", what, err)
		}
	}
}

func TestSeal_RefusesWhatIsTooLarge(t *testing.T) {
	from, to := identity(t, "main"), identity(t, "w1")
	p := parcel(t)
	p.Secret = make([]byte, maxSecret+1)
	if _, err := Seal(from, to.Peer(), p); err == nil {
		t.Error("a secret that is too large was sealed")
	}
	p = parcel(t)
	p.Name = strings.Repeat("a", maxText+1)
	if _, err := Seal(from, to.Peer(), p); err == nil {
		t.Error("a name that is too long was sealed")
	}
	p = parcel(t)
	p.Secret = make([]byte, maxSecret)
	if sealed, err := Seal(from, to.Peer(), p); err != nil || len(sealed) > MaxSealed {
		t.Errorf("the largest secret: %d bytes, %v", len(sealed), err)
	} else if _, err := Open(to, from.Peer(), sealed); err != nil {
		t.Error(err)
	}
	if _, err := Seal(from, Peer{Name: "w1", Recipient: "age1nonsense"}, parcel(t)); err == nil {
		t.Error("sealed to a recipient that is none")
	}
}

func TestParseIdentity_ErrorsShowNoSecret(t *testing.T) {
	secret, seed, err := NewSecrets()
	if err != nil {
		t.Fatal(err)
	}
	for what, in := range map[string][3]string{
		"name": {"W1", secret, seed},
		"age":  {"w1", secret[:len(secret)-1], seed},
		"seed": {"w1", secret, seed[:len(seed)-1] + "A="},
	} {
		_, err := ParseIdentity(in[0], in[1], in[2])
		if err == nil {
			t.Errorf("%s: accepted", what)
		} else if strings.Contains(err.Error(), secret[20:40]) || strings.Contains(err.Error(), seed[10:30]) {
			t.Errorf("%s: the error shows a secret", what)
		}
	}
}

func p256(t testing.TB) (event.Key, crypto.Signer) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := keymgr.NewKey(keymgr.ZSK, 13, private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return key, private
}

func TestProve_NamesKeyWorkerAndJournal(t *testing.T) {
	key, private := p256(t)
	_, another := p256(t)
	p := parcel(t)
	p.Key, p.To = key.ID, "w1"
	sig, err := p.Prove(private, key)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Verify(sig, key); err != nil {
		t.Error(err)
	}
	if _, err := p.Prove(another, key); !errors.Is(err, ErrRefused) {
		t.Errorf("another private key proves it: %v", err)
	}
	for what, change := range map[string]func(*Parcel){
		"worker": func(p *Parcel) { p.To = "w2" },
		"stream": func(p *Parcel) { p.Stream = "cd" },
		"zone":   func(p *Parcel) { p.Zone = "fedcba9876543210" },
		"name":   func(p *Parcel) { p.Name = "example.org." },
		"nonce":  func(p *Parcel) { p.Nonce[0] ^= 1 },
		"key":    func(p *Parcel) { p.Key = "ffffffffffffffff" },
	} {
		q := p
		change(&q)
		if err := q.Verify(sig, key); !errors.Is(err, ErrRefused) {
			t.Errorf("another %s: %v", what, err)
		}
	}
}

func FuzzParcel(f *testing.F) {
	p := parcel(f)
	plain, err := p.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain)
	f.Add([]byte(plainMagic))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := decodeParcel(data)
		if err != nil {
			return
		}
		again, err := p.encode()
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("decoded %x, encodes %x, %v", data, again, err)
		}
	})
}

func FuzzOpen(f *testing.F) {
	from, to := identity(f, "main"), identity(f, "w1")
	sealed, err := Seal(from, to.Peer(), parcel(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := Open(to, from.Peer(), data); err == nil && !bytes.Equal(data, sealed) {
			t.Error("something else than what was sealed opens")
		}
	})
}
