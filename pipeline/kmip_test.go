package pipeline

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"sluice/keymgr"
)

// pretendedServers are servers instead of tokens.
type pretendedServers struct{ *pretended }

// Find implements keymgr.Tokens.
func (p pretendedServers) Find(_ context.Context, t keymgr.Token, secret string) (keymgr.Token, error) {
	login, err := keymgr.ParseServerLogin(secret)
	if err == nil && login.Password != "swordfish" {
		err = errors.New("the server refuses the password")
	}
	return t, err
}

// Open implements keymgr.Tokens.
func (p pretendedServers) Open(t keymgr.Token) keymgr.TokenKeystore {
	t.Label = "server" // a folder of its own
	return p.pretended.Open(t)
}

func TestKeystore_ServersAreKeystoresToo(t *testing.T) {
	r, _ := newTokenRig(t, newHand(dayOne))
	good := func() NewKeystore {
		return NewKeystore{Name: "kms", KMIP: &NewServer{
			Address: "kmip.example.net:5696", ServerName: "kmip",
			ServerLogin: ServerLogin{CA: "-----BEGIN", Username: "sluice", Password: "swordfish"},
		}}
	}
	if _, err := r.e.AddKeystore(t.Context(), testActor, good()); !errors.Is(err, ErrState) || !strings.Contains(fmt.Sprint(err), "no KMIP servers") {
		t.Errorf("without servers: %v", err)
	}
	servers := pretendedServers{newPretended(t)}
	r.e.cfg.Servers = servers
	for fact, row := range map[string]struct {
		change func(*NewKeystore)
		kind   error
		text   string
	}{
		"no port":           {func(n *NewKeystore) { n.KMIP.Address = "kmip.example.net" }, ErrInvalid, "HOST:PORT"},
		"no CA":             {func(n *NewKeystore) { n.KMIP.CA = "" }, ErrInvalid, "a CA or a pin"},
		"nobody":            {func(n *NewKeystore) { n.KMIP.Username = "" }, ErrInvalid, "is needed"},
		"half a proof":      {func(n *NewKeystore) { n.KMIP.Certificate = "x" }, ErrInvalid, "needs its key"},
		"a token, too":      {func(n *NewKeystore) { n.Token = "zones" }, ErrInvalid, "not both"},
		"sessions":          {func(n *NewKeystore) { n.Sessions = 1000 }, ErrInvalid, "sessions"},
		"a taken name":      {func(n *NewKeystore) { n.Name = "hsm" }, ErrState, "already here"},
		"another's secrets": {func(n *NewKeystore) { n.KMIP.Password = "guess-work" }, ErrState, "refuses the password"},
	} {
		n := good()
		row.change(&n)
		_, err := r.e.AddKeystore(t.Context(), testActor, n)
		if !errors.Is(err, row.kind) || !strings.Contains(fmt.Sprint(err), row.text) || strings.Contains(fmt.Sprint(err), "guess-work") {
			t.Errorf("%s: %v", fact, err)
		}
	}
	if len(servers.pins) != 0 {
		t.Errorf("logins of %v are kept", servers.pins)
	}
	k, err := r.e.AddKeystore(t.Context(), testActor, good())
	if err != nil || k.Kind != "kmip" || k.Address != "kmip.example.net:5696" || k.ServerName != "kmip" || k.Token != "" {
		t.Fatalf("%+v, %v", k, err)
	}
	if !strings.Contains(servers.pins["kms"], "swordfish") {
		t.Error("the login is not kept")
	}
	report, err := r.e.TestKeystore(t.Context(), "kms", KeystoreTest{KMIP: &ServerLogin{Password: "swordfish"}})
	if err != nil || report.Address != k.Address {
		t.Errorf("%+v, %v", report, err)
	}
	if _, err := r.e.TestKeystore(t.Context(), "kms", KeystoreTest{PIN: "1234"}); !errors.Is(err, ErrInvalid) {
		t.Errorf("a PIN for a server: %v", err)
	}
	if _, err := r.e.TestKeystore(t.Context(), "hsm", KeystoreTest{KMIP: &ServerLogin{}}); !errors.Is(err, ErrInvalid) {
		t.Errorf("a login for a token: %v", err)
	}
	if err := r.e.RemoveKeystore(t.Context(), testActor, "kms"); err != nil {
		t.Fatal(err)
	}
	if _, kept := servers.pins["kms"]; kept {
		t.Error("the login of a removed keystore is kept")
	}
}
