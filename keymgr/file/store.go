package file

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cloudflare/circl/sign/ed448"
	"github.com/miekg/dns"

	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/signer/zone"
)

// Config says where a keystore is and how its keys sign.
type Config struct {
	// Name is the keystore's name in events; "" is "file".
	Name string
	// Dir is the folder; it is made (0700) where it is absent.
	Dir string
	// StdlibECDSA signs P-256 by crypto/ecdsa alone, without batches.
	StdlibECDSA bool
}

// Store is a keystore in a folder. It is safe for concurrent use.
type Store struct {
	name   string
	dir    string
	stdlib bool
}

var _ keymgr.Keystore = (*Store)(nil)

// maxFile bounds what is read of a key file: a 16,384-bit RSA key takes less.
const maxFile = 64 << 10

// maxTries bounds the search for a key tag that is free.
const maxTries = 1000

// Open opens the keystore in cfg.Dir. A folder or a key file that others can
// read is an error that says how to mend it.
func Open(cfg Config) (*Store, error) {
	if cfg.Dir == "" {
		return nil, errors.New("open keystore: no folder given")
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open keystore: %w", err)
	}
	info, err := os.Stat(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("open keystore: %w", err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("open keystore: %s is not a folder", cfg.Dir)
	}
	if err := checkMode(cfg.Dir, info.Mode()); err != nil {
		return nil, fmt.Errorf("open keystore: %w", err)
	}
	if err := checkFiles(cfg.Dir); err != nil {
		return nil, fmt.Errorf("open keystore: %w", err)
	}
	name := cfg.Name
	if name == "" {
		name = "file"
	}
	return &Store{name: name, dir: cfg.Dir, stdlib: cfg.StdlibECDSA}, nil
}

// checkFiles refuses key files that could not be used, so that a fault shows
// at the start and not at the next signing. It names the first ones.
func checkFiles(dir string) error {
	const most, batch = 10, 256
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close() //nolint:errcheck // opened for reading
	var faults []error
	for len(faults) < most {
		entries, err := d.ReadDir(batch)
		for _, entry := range entries {
			if checkRef(entry.Name()) != nil || len(faults) == most {
				continue // not a key
			}
			path := filepath.Join(dir, entry.Name())
			info, err := os.Stat(path)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err == nil {
				err = checkFile(path, info.Mode())
			}
			if err != nil {
				faults = append(faults, err)
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	return errors.Join(faults...)
}

// checkFile refuses what is not a file that only its owner may read.
func checkFile(path string, mode fs.FileMode) error {
	if !mode.IsRegular() {
		return fmt.Errorf("%s is not a regular file", path)
	}
	return checkMode(path, mode)
}

// checkMode refuses what group or others may read or write.
func checkMode(path string, mode fs.FileMode) error {
	if mode.Perm()&0o077 == 0 {
		return nil
	}
	want := "600"
	if mode.IsDir() {
		want = "700"
	}
	return fmt.Errorf("%s is open to others (mode %04o): private keys must not be; run chmod %s %s",
		path, mode.Perm(), want, path)
}

// Name implements keymgr.Keystore.
func (s *Store) Name() string { return s.name }

// Generate implements keymgr.Keystore.
func (s *Store) Generate(ctx context.Context, spec keymgr.Spec, avoid []uint16) (event.Key, error) {
	switch spec.Role {
	case keymgr.KSK, keymgr.ZSK, keymgr.CSK:
	default:
		return event.Key{}, fmt.Errorf("generate key: role %q: want ksk, zsk or csk", spec.Role)
	}
	for range maxTries {
		if err := ctx.Err(); err != nil {
			return event.Key{}, err
		}
		private, err := generate(spec)
		if err != nil {
			return event.Key{}, fmt.Errorf("generate key: %w", err)
		}
		key, err := keymgr.NewKey(spec.Role, spec.Algorithm, private.Public())
		if err != nil {
			return event.Key{}, fmt.Errorf("generate key: %w", err)
		}
		rdata, err := keymgr.RData(key)
		if err != nil {
			return event.Key{}, fmt.Errorf("generate key: %w", err)
		}
		revoked := keymgr.RevokedTag(rdata)
		if slices.Contains(avoid, key.Tag) || slices.Contains(avoid, revoked) {
			continue
		}
		return s.save(spec.Zone, key, private)
	}
	return event.Key{}, fmt.Errorf("generate key: no free key tag in %d tries, %d are taken", maxTries, len(avoid))
}

func generate(spec keymgr.Spec) (crypto.Signer, error) {
	switch spec.Algorithm {
	case dns.RSASHA256, dns.RSASHA512:
		bits := spec.Bits
		if bits == 0 {
			bits = 2048
		}
		if bits < 1024 || bits > 4096 {
			return nil, fmt.Errorf("RSA modulus of %d bits: want 1024 to 4096", bits)
		}
		return rsa.GenerateKey(rand.Reader, bits)
	case dns.ECDSAP256SHA256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case dns.ECDSAP384SHA384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case dns.ED25519:
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	case dns.ED448:
		_, private, err := ed448.GenerateKey(rand.Reader)
		return private, err
	}
	return nil, fmt.Errorf("algorithm %d is not supported: want 8, 10, 13, 14, 15 or 16", spec.Algorithm)
}

// save writes the private key and fills in where it stands.
func (s *Store) save(zoneName string, key event.Key, private crypto.Signer) (event.Key, error) {
	pem, err := encodePEM(private)
	if err != nil {
		return event.Key{}, fmt.Errorf("save key %s: %w", key.ID, err)
	}
	defer clear(pem)
	key.Keystore = s.name
	key.Reference = reference(zoneName, key)
	if err := writeFile(s.dir, key.Reference, pem); err != nil {
		return event.Key{}, fmt.Errorf("save key %s: %w", key.ID, err)
	}
	return key, nil
}

// reference is the file name of a key: zone, algorithm, tag and ID. The ID
// alone tells keys apart; the rest is for people.
func reference(zoneName string, key event.Key) string {
	name := strings.TrimSuffix(zoneName, ".")
	if n, err := zone.ParseName(zoneName); err == nil {
		name = strings.TrimSuffix(n.Fold().String(), ".")
	}
	if name == "" {
		name = "root"
	}
	var b strings.Builder
	for _, c := range []byte(name) {
		switch {
		case b.Len() >= 120:
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_':
			b.WriteByte(c)
		case c == '.' && b.Len() > 0:
			b.WriteByte(c)
		default:
			b.WriteByte('=')
		}
	}
	return fmt.Sprintf("%s+%03d+%05d+%s%s", b.String(), key.Algorithm, key.Tag, key.ID, suffix)
}

const suffix = ".pem"

// checkRef refuses a reference that is not the plain name of a key file.
func checkRef(ref string) error {
	if !strings.HasSuffix(ref, suffix) || strings.HasPrefix(ref, ".") ||
		strings.ContainsAny(ref, "/\\\x00") {
		return fmt.Errorf("%q is not a key's file name: %w", ref, keymgr.ErrNoKey)
	}
	return nil
}

// Has reports whether the file of a private key is there.
func (s *Store) Has(ref string) bool {
	if checkRef(ref) != nil {
		return false
	}
	_, err := os.Stat(filepath.Join(s.dir, ref))
	return !errors.Is(err, fs.ErrNotExist)
}

// Signer implements keymgr.Keystore. A P-256 key is a signer.BatchSigner
// unless the keystore was told otherwise.
func (s *Store) Signer(ctx context.Context, ref string) (crypto.Signer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := checkRef(ref); err != nil {
		return nil, fmt.Errorf("open key: %w", err)
	}
	path := filepath.Join(s.dir, ref)
	text, err := readPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open key %s: %w", path, keymgr.ErrNoKey)
	}
	if err != nil {
		return nil, fmt.Errorf("open key: %w", err)
	}
	defer clear(text)
	private, err := decodePEM(text)
	if err != nil {
		return nil, fmt.Errorf("open key %s: %w", path, err)
	}
	return NewSigner(private, s.stdlib)
}

// Remove implements keymgr.Keystore.
func (s *Store) Remove(ctx context.Context, ref string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := checkRef(ref); err != nil {
		return fmt.Errorf("remove key: %w", err)
	}
	path := filepath.Join(s.dir, ref)
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove key %s: %w", path, keymgr.ErrNoKey)
	}
	if err != nil {
		return fmt.Errorf("remove key: %w", err)
	}
	return syncDir(s.dir)
}

// readPrivate reads a key file that only its owner may read.
func readPrivate(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := checkFile(path, info.Mode()); err != nil {
		return nil, err
	}
	return readBounded(f, path)
}

func readBounded(f *os.File, path string) ([]byte, error) {
	buf := make([]byte, maxFile+1)
	n, err := f.ReadAt(buf, 0)
	if n > maxFile {
		return nil, fmt.Errorf("%s is larger than %d bytes: not a key file", path, maxFile)
	}
	// ReadAt ends a file that is shorter than the buffer with io.EOF.
	if n == 0 && err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return bytes.TrimSpace(buf[:n]), nil
}

// writeFile writes a file so that it is there in full or not at all.
func writeFile(dir, name string, data []byte) error {
	tmp, err := os.CreateTemp(dir, ".new-*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) //nolint:errcheck // gone already once it was renamed
	if _, err = tmp.Write(data); err == nil {
		err = tmp.Sync()
	}
	if closeErr := tmp.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	// Commit: from here on the key exists.
	if err := os.Rename(tmp.Name(), filepath.Join(dir, name)); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if closeErr := d.Close(); err == nil {
		err = closeErr
	}
	return err
}
