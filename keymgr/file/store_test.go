package file

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/keymgr/keystoretest"
	"sluice/signer"
)

func openDir(t *testing.T, cfg Config) *Store {
	t.Helper()
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newStore(t *testing.T) *Store {
	t.Helper()
	return openDir(t, Config{Dir: filepath.Join(t.TempDir(), "keys")})
}

func makeKey(t *testing.T, s *Store, algorithm uint8) event.Key {
	t.Helper()
	key, err := s.Generate(t.Context(), keymgr.Spec{Zone: "example.com.", Role: keymgr.ZSK, Algorithm: algorithm}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestStore_IsAKeystore(t *testing.T) {
	for name, stdlib := range map[string]bool{"batches": false, "crypto/ecdsa": true} {
		t.Run(name, func(t *testing.T) {
			keystoretest.Run(t, func(t *testing.T) keystoretest.Open {
				cfg := Config{Dir: filepath.Join(t.TempDir(), "keys"), StdlibECDSA: stdlib}
				return func(t *testing.T) keymgr.Keystore { return openDir(t, cfg) }
			})
		})
	}
}

func TestStore_StdlibECDSAOffersNoBatches(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	batched := openDir(t, Config{Dir: dir})
	plain := openDir(t, Config{Dir: dir, StdlibECDSA: true})
	key := makeKey(t, batched, dns.ECDSAP256SHA256)
	open := func(s *Store) crypto.Signer {
		signer, err := s.Signer(t.Context(), key.Reference)
		if err != nil {
			t.Fatal(err)
		}
		return signer
	}
	one, other := open(batched), open(plain)
	if _, ok := one.(signer.BatchSigner); !ok {
		t.Error("by default a P-256 key signs in batches")
	}
	if _, ok := other.(signer.BatchSigner); ok {
		t.Error("with StdlibECDSA a P-256 key signs in batches")
	}
	sum := sha256.Sum256([]byte("same"))
	a, errA := one.Sign(rand.Reader, sum[:], crypto.SHA256)
	b, errB := other.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err := errors.Join(errA, errB); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Error("the two make different signatures: one of them uses the random source")
	}
}

func TestStore_FilesAreForTheOwnerOnly(t *testing.T) {
	s := newStore(t)
	for _, algorithm := range []uint8{dns.ECDSAP256SHA256, dns.ED448} {
		key := makeKey(t, s, algorithm)
		info, err := os.Stat(filepath.Join(s.dir, key.Reference))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != 0o600 {
			t.Errorf("%s has mode %o", key.Reference, info.Mode())
		}
		if !strings.HasPrefix(key.Reference, "example.com+0") || !strings.Contains(key.Reference, key.ID) {
			t.Errorf("reference %q does not tell zone and ID", key.Reference)
		}
	}
	info, err := os.Stat(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o700 {
		t.Errorf("folder has mode %o", info.Mode())
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 2 {
		t.Errorf("the folder holds %v, want the two keys and nothing temporary", entries)
	}
}

func TestStore_RefusesWhatOthersMayRead(t *testing.T) {
	s := newStore(t)
	key := makeKey(t, s, dns.ED25519)
	path := filepath.Join(s.dir, key.Reference)
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o601} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := s.Signer(t.Context(), key.Reference)
		if err == nil || !strings.Contains(err.Error(), "chmod 600 "+path) {
			t.Errorf("mode %o: error %v, want one that says chmod 600", mode, err)
		}
	}
	if err := os.Chmod(s.dir, 0o750); err != nil { //nolint:gosec // the mode under test
		t.Fatal(err)
	}
	if _, err := Open(Config{Dir: s.dir}); err == nil || !strings.Contains(err.Error(), "chmod 700 "+s.dir) {
		t.Errorf("folder of mode 0750: error %v, want one that says chmod 700", err)
	}
}

func TestOpen_Faults(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"", file, filepath.Join(file, "below")} {
		if _, err := Open(Config{Dir: dir}); err == nil {
			t.Errorf("Open(%q): no error", dir)
		}
	}
}

func TestSigner_BadFilesAreErrors(t *testing.T) {
	s := newStore(t)
	good := makeKey(t, s, dns.ED448)
	text, err := os.ReadFile(filepath.Join(s.dir, good.Reference))
	if err != nil {
		t.Fatal(err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	odd, err := encodePEM(p224)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	short := pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: block.Bytes[:len(block.Bytes)-1]})
	for fact, content := range map[string][]byte{
		"empty": nil, "no PEM": []byte("secret"), "half": text[:len(text)/2], "two": append(bytes.Clone(text), text...),
		"another type": bytes.ReplaceAll(text, []byte("PRIVATE KEY"), []byte("EC PRIVATE KEY")),
		"truncated":    short, "too large": bytes.Repeat([]byte("x"), maxFile+1), "P-224": odd,
	} {
		if err := os.WriteFile(filepath.Join(s.dir, "bad.pem"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := s.Signer(t.Context(), "bad.pem")
		if err == nil || errors.Is(err, keymgr.ErrNoKey) {
			t.Errorf("%s: error %v, want one that is not ErrNoKey", fact, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error shows the file's content: %v", fact, err)
		}
	}
	if err := os.Mkdir(filepath.Join(s.dir, "folder.pem"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Signer(t.Context(), "folder.pem"); err == nil {
		t.Error("a folder is taken for a key")
	}
}

func TestReference_IsAPlainFileName(t *testing.T) {
	key := event.Key{ID: "0123456789abcdef", Algorithm: 13, Tag: 7}
	for zoneName, want := range map[string]string{
		"Example.COM.":                   "example.com+013+00007+0123456789abcdef.pem",
		".":                              "root+013+00007+0123456789abcdef.pem",
		"":                               "root+013+00007+0123456789abcdef.pem",
		"../../etc/passwd":               "=..=..",
		"a/b.":                           "a=b+013",
		`0\.x.example.`:                  "0=.x.example+013",
		strings.Repeat("a.", 126) + "a.": strings.Repeat("a.", 60) + "+013",
	} {
		got := reference(zoneName, key)
		if strings.ContainsAny(got, "/\\\x00") || len(got) > 255 || checkRef(got) != nil {
			t.Errorf("reference of %q is %q", zoneName, got)
		}
		if !strings.HasPrefix(got, want) && !strings.Contains(want, "..") {
			t.Errorf("reference of %q is %q, want %q", zoneName, got, want)
		}
	}
}

func FuzzDecodePEM(f *testing.F) {
	for _, algorithm := range []uint8{dns.ECDSAP256SHA256, dns.ED25519, dns.ED448} {
		private, err := generate(keymgr.Spec{Algorithm: algorithm})
		if err != nil {
			f.Fatal(err)
		}
		text, err := encodePEM(private)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		private, err := decodePEM(text)
		if err != nil {
			return
		}
		s, err := NewSigner(private, false)
		if err != nil {
			return
		}
		if s.Public() == nil {
			t.Error("a signer without public key")
		}
	})
}

func TestOpen_KeyFilesOpenToOthersAreRefused(t *testing.T) {
	s := newStore(t)
	good, bad := makeKey(t, s, dns.ED25519), makeKey(t, s, dns.ED25519)
	if err := os.WriteFile(filepath.Join(s.dir, "notes.txt"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	openDir(t, Config{Dir: s.dir}) // what is no key does not matter
	if err := os.Chmod(filepath.Join(s.dir, bad.Reference), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := Open(Config{Dir: s.dir})
	if err == nil || !strings.Contains(err.Error(), "chmod 600 "+filepath.Join(s.dir, bad.Reference)) ||
		strings.Contains(err.Error(), good.Reference) {
		t.Errorf("error %v", err)
	}
	for range 20 {
		key := makeKey(t, s, dns.ED25519)
		if err := os.Chmod(filepath.Join(s.dir, key.Reference), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(Config{Dir: s.dir}); err == nil || strings.Count(err.Error(), "chmod") != 10 {
		t.Errorf("not the first ten: %v", err)
	}
}
