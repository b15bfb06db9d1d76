package cli

import (
	"os"
	"path/filepath"
	"testing"
)

func TestResolvers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(path, []byte("search a.b\nnameserver 192.0.2.1\nnameserver 2001:db8::1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := resolvers(path)
	if err != nil || len(got) != 2 || got[1].String() != "[2001:db8::1]:53" {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := resolvers(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a missing file is no error")
	}
}

func TestResolverList_ConfigWins(t *testing.T) {
	got, err := resolverList([]string{"192.0.2.1", "[2001:db8::1]:5353"}, "none")()
	if err != nil || len(got) != 2 || got[0].String() != "192.0.2.1:53" || got[1].String() != "[2001:db8::1]:5353" {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := resolverList([]string{"ns.example"}, "none")(); err == nil {
		t.Error("a name is no resolver")
	}
}

func TestNewObserver_BadAnchorIsAnError(t *testing.T) {
	if _, err := newObserver(daemonConfig{TrustAnchors: []string{"example. IN A 192.0.2.1"}}, "none"); err == nil {
		t.Error("an address is taken for a trust anchor")
	}
}
