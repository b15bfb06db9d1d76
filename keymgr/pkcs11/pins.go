package pkcs11

import (
	"bytes"
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

// Names of files in the folder of PINs, behind a keystore's name.
const (
	pinSuffix     = ".pin"
	refusedSuffix = ".refused" // SHA-256 of the PIN that the token refused
)

// maxPIN bounds a PIN in bytes.
const maxPIN = 255

// pins is a folder (mode 0700) with the PIN of each keystore in a file (mode
// 0600).
type pins struct{ dir string }

func (p pins) path(name, suffix string) (string, error) {
	if name == "" || strings.HasPrefix(name, ".") || strings.ContainsAny(name, "/\\\x00") {
		return "", fmt.Errorf("keystore name %q", name)
	}
	return filepath.Join(p.dir, name+suffix), nil
}

// read is the PIN of a keystore.
func (p pins) read(name string) (string, error) {
	path, err := p.path(name, pinSuffix)
	if err != nil {
		return "", err
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", problem{
			fmt.Errorf("the PIN of keystore %q is not here (%s)", name, path),
			fmt.Sprintf("sluice keystore test %s --pin-file FILE", name),
		}
	}
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // opened for reading
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", problem{fmt.Errorf("%s is open to others (mode %04o): a PIN must not be", path, info.Mode().Perm()), "chmod 600 " + path}
	}
	text, err := io.ReadAll(io.LimitReader(f, maxPIN+2))
	if err != nil {
		return "", err
	}
	defer clear(text)
	pin := string(bytes.TrimRight(text, "\r\n"))
	return pin, checkPIN(pin)
}

// checkPIN refuses what cannot be a PIN, without showing it.
func checkPIN(pin string) error {
	if pin == "" || len(pin) > maxPIN || strings.ContainsAny(pin, "\r\n\x00") {
		return fmt.Errorf("a PIN has 1 to %d bytes, on one line", maxPIN)
	}
	return nil
}

// keep stores a PIN. One that was refused before is no longer.
func (p pins) keep(name, pin string) error {
	if err := checkPIN(pin); err != nil {
		return err
	}
	if err := p.write(name, pinSuffix, pin+"\n"); err != nil {
		return fmt.Errorf("store the PIN of keystore %q: %w", name, err)
	}
	return p.remove(name, refusedSuffix)
}

// forget deletes all files of a keystore.
func (p pins) forget(name string) error {
	err := errors.Join(p.remove(name, pinSuffix), p.remove(name, refusedSuffix))
	if err != nil {
		return fmt.Errorf("delete the PIN of keystore %q: %w", name, err)
	}
	return nil
}

// refuse notes that the token refused a PIN, so that it is not tried again by
// a later process either: a token counts.
func (p pins) refuse(name, pin string) error {
	return p.write(name, refusedSuffix, digestOf(pin)+"\n")
}

// accept ends that.
func (p pins) accept(name string) error { return p.remove(name, refusedSuffix) }

// refused reports whether the token refused this PIN.
func (p pins) refused(name, pin string) (bool, error) {
	path, err := p.path(name, refusedSuffix)
	if err != nil {
		return false, err
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return strings.TrimSpace(string(text)) == digestOf(pin), err
}

func digestOf(pin string) string {
	sum := sha256.Sum256([]byte("sluice refused PIN\x00" + pin))
	return hex.EncodeToString(sum[:])
}

func (p pins) write(name, suffix, text string) error {
	path, err := p.path(name, suffix)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(p.dir, ".new-*") // 0600
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
	return p.sync()
}

func (p pins) remove(name, suffix string) error {
	path, err := p.path(name, suffix)
	if err != nil {
		return err
	}
	if err := os.Remove(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	return p.sync()
}

func (p pins) sync() error {
	d, err := os.Open(p.dir)
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

// hintOf is what an error says to do; "" where it does not.
func hintOf(err error) string { return keymgr.HintOf(err) }
