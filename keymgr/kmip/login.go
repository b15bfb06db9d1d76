package kmip

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sluice/keymgr"
)

// Names of files in the folder of logins, behind a keystore's name.
const (
	loginSuffix   = ".login"
	refusedSuffix = ".refused" // SHA-256 of the login that the server refused
)

// maxLogin bounds a login in bytes.
const maxLogin = 256 << 10

// logins is a folder (mode 0700) with the login of each keystore in a file (mode
// 0600).
type logins struct{ dir string }

func (l logins) path(name, suffix string) (string, error) {
	if name == "" || strings.HasPrefix(name, ".") || strings.ContainsAny(name, "/\\\x00") {
		return "", fmt.Errorf("keystore name %q", name)
	}
	return filepath.Join(l.dir, name+suffix), nil
}

// read is the login of a keystore.
func (l logins) read(name string) (login keymgr.ServerLogin, secret string, err error) {
	path, err := l.path(name, loginSuffix)
	if err != nil {
		return login, "", err
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return login, "", problem{
			fmt.Errorf("the login of keystore %q is not here (%s)", name, path),
			fmt.Sprintf("sluice keystore test %s --ca-file FILE --cert-file FILE --key-file FILE", name),
		}
	}
	if err != nil {
		return login, "", err
	}
	defer f.Close() //nolint:errcheck // opened for reading
	info, err := f.Stat()
	if err != nil {
		return login, "", err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return login, "", problem{fmt.Errorf("%s is open to others (mode %04o): a login must not be", path, info.Mode().Perm()), "chmod 600 " + path}
	}
	text, err := io.ReadAll(io.LimitReader(f, maxLogin+1))
	if err != nil {
		return login, "", err
	}
	login, err = keymgr.ParseServerLogin(string(text))
	return login, string(text), err
}

// keep stores a login. One that was refused before is no longer.
func (l logins) keep(name, secret string) error {
	if len(secret) > maxLogin {
		return fmt.Errorf("the login of keystore %q has %d bytes, at most %d are kept", name, len(secret), maxLogin)
	}
	if err := l.write(name, loginSuffix, secret); err != nil {
		return fmt.Errorf("store the login of keystore %q: %w", name, err)
	}
	return l.remove(name, refusedSuffix)
}

// forget deletes all files of a keystore.
func (l logins) forget(name string) error {
	err := errors.Join(l.remove(name, loginSuffix), l.remove(name, refusedSuffix))
	if err != nil {
		return fmt.Errorf("delete the login of keystore %q: %w", name, err)
	}
	return nil
}

// refuse notes that the server refused a password, so that it is not tried again
// by a later process either: servers lock accounts.
func (l logins) refuse(name, secret string) error {
	return l.write(name, refusedSuffix, digestOf(secret)+"\n")
}

// accept ends that.
func (l logins) accept(name string) error { return l.remove(name, refusedSuffix) }

// refused reports whether the server refused this login.
func (l logins) refused(name, secret string) (bool, error) {
	path, err := l.path(name, refusedSuffix)
	if err != nil {
		return false, err
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return strings.TrimSpace(string(text)) == digestOf(secret), err
}

func digestOf(secret string) string {
	sum := sha256.Sum256([]byte("sluice refused login\x00" + secret))
	return hex.EncodeToString(sum[:])
}

func (l logins) write(name, suffix, text string) error {
	path, err := l.path(name, suffix)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(l.dir, ".new-*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) //nolint:errcheck // gone already once it was renamed
	if _, err = tmp.WriteString(text); err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	return l.sync()
}

func (l logins) remove(name, suffix string) error {
	path, err := l.path(name, suffix)
	if err != nil {
		return err
	}
	if err := os.Remove(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	return l.sync()
}

func (l logins) sync() error {
	d, err := os.Open(l.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// problem is an error with what to do about it.
type problem struct {
	error
	hint string
}

func (p problem) Unwrap() error { return p.error }

// Hint implements keymgr.Hinter.
func (p problem) Hint() string { return p.hint }
