package file

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/signer/zone"
)

func TestTSIG_KeysOutliveTheProcessInPrivateFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tsig")
	s, err := OpenTSIG(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"Transfer.Example.", `odd\/name\.here.`} {
		name, err := zone.ParseName(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Put(name, "hmac-sha256", []byte("0123456789abcdef "+text)); err != nil {
			t.Fatal(err)
		}
	}
	if s, err = OpenTSIG(dir); err != nil {
		t.Fatal(err)
	}
	names := s.Names()
	if len(names) != 2 {
		t.Fatalf("%d keys after reading anew", len(names))
	}
	name, _ := zone.ParseName("transfer.example")
	algorithm, secret, ok := s.Secret(name)
	if !ok || algorithm != "hmac-sha256" || string(secret) != "0123456789abcdef Transfer.Example." {
		t.Errorf("%q %q %v", algorithm, secret, ok)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", e.Name(), info.Mode(), err)
		}
	}
	if err := s.Remove(name); err != nil {
		t.Fatal(err)
	}
	if _, _, ok := s.Secret(name); ok || len(s.Names()) != 1 {
		t.Error("a removed key is still there")
	}
	if s, err = OpenTSIG(dir); err != nil || len(s.Names()) != 1 {
		t.Errorf("a removed key came back: %v", err)
	}
}

func TestTSIG_ErrorsNeverShowTheSecret(t *testing.T) {
	dir := t.TempDir()
	const secret = "bm90LXF1aXRl!broken"
	if err := os.WriteFile(filepath.Join(dir, "k.tsig"), []byte("hmac-sha256 "+secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenTSIG(dir); err == nil || strings.Contains(err.Error(), secret) || !strings.Contains(err.Error(), "k.tsig") {
		t.Errorf("error is %v", err)
	}
}
