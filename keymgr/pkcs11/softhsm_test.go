//go:build cgo

package pkcs11

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"sluice/keymgr"
)

// softHSM is SoftHSM's module with tokens in a folder of the test.
type softHSM struct {
	module string
	dir    string
	tokens string // the folder of the tokens
}

// needSoftHSM sets up SoftHSM for a test, or skips it. The module reads its
// configuration when it is initialised, so tests that use it do not run at the
// same time.
func needSoftHSM(t testing.TB) *softHSM {
	t.Helper()
	h := &softHSM{dir: t.TempDir()}
	for _, dir := range []string{"/usr/lib/softhsm", "/usr/lib/x86_64-linux-gnu/softhsm", "/usr/lib/aarch64-linux-gnu/softhsm", "/usr/lib64/softhsm", "/usr/local/lib/softhsm"} {
		if path := filepath.Join(dir, "libsofthsm2.so"); h.module == "" {
			if _, err := os.Stat(path); err == nil {
				h.module = path
			}
		}
	}
	if _, err := exec.LookPath("softhsm2-util"); err != nil || h.module == "" {
		if os.Getenv("SLUICE_REQUIRE_PEERS") == "1" {
			t.Fatal("SoftHSM is not installed (e2e/deps.sh)")
		}
		t.Skip("SoftHSM is not installed (e2e/deps.sh)")
	}
	h.tokens = filepath.Join(h.dir, "tokens")
	if err := os.Mkdir(h.tokens, 0o700); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(h.dir, "softhsm2.conf")
	text := fmt.Sprintf("directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n", h.tokens)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	return h
}

const testPIN = "3141592653"

// token makes a token, and gives its serial number and folder.
func (h *softHSM) token(t testing.TB, label string) (serial, dir string) {
	t.Helper()
	before, err := filepath.Glob(filepath.Join(h.tokens, "*"))
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "softhsm2-util", "--init-token", "--free", "--label", label, "--pin", testPIN, "--so-pin", "2718281828").CombinedOutput()
	if err != nil {
		t.Fatalf("softhsm2-util: %v\n%s", err, out)
	}
	after, err := filepath.Glob(filepath.Join(h.tokens, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range after {
		if !strings.Contains(strings.Join(before, "\n"), path) {
			dir = path
		}
	}
	// The folder's name ends in the serial number: 8-4-4-4-12 hex digits.
	found := regexp.MustCompile(`([0-9a-f]{4})-([0-9a-f]{12})$`).FindStringSubmatch(dir)
	if found == nil {
		t.Fatalf("folder of the token: %q", dir)
	}
	return found[1] + found[2], dir
}

// newTokens is what a process has, with its own folder of PINs.
func (h *softHSM) newTokens(t testing.TB) *Tokens {
	t.Helper()
	return NewTokens(filepath.Join(h.dir, "pins"), time.Now)
}

// open adds a keystore on a token and opens it.
func (h *softHSM) open(t testing.TB, tokens *Tokens, token keymgr.Token) *Store {
	t.Helper()
	token.Module = h.module
	if err := tokens.KeepPIN(token.Name, testPIN); err != nil {
		t.Fatal(err)
	}
	s := tokens.open(token)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}
