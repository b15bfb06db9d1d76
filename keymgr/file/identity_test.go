package file

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOpenIdentity_IsTheSameAfterARestart(t *testing.T) {
	dir := t.TempDir()
	first, err := OpenIdentity(dir, "main")
	if err != nil {
		t.Fatal(err)
	}
	again, err := OpenIdentity(dir, "main")
	if err != nil || again.Peer() != first.Peer() {
		t.Fatalf("%v, %v, was %v", again, err, first)
	}
	path := filepath.Join(dir, identityFile)
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenIdentity(dir, "main"); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("open to the group: %v", err)
	}
}

func TestOpenIdentity_RefusesADamagedFile(t *testing.T) {
	for _, text := range []string{"\n", "one\n", "AGE-SECRET-KEY-1\nSU\n", "a\nb\nc\n"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, identityFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if id, err := OpenIdentity(dir, "main"); err == nil {
			t.Errorf("%q gives %v", text, id)
		}
	}
}
