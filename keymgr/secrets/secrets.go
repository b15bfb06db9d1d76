// Package secrets keeps what keystores log in with: in files for their owner
// alone, and with a note of what was refused, so that it is not tried again.
package secrets

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
)

// refusedSuffix ends the name of a file with the SHA-256 of what was refused.
const refusedSuffix = ".refused"

// Folder is a folder (mode 0700) with the secret of each keystore in a file (mode
// 0600). All that is written is durable.
type Folder struct {
	Dir    string
	Word   string // what a secret is called, such as PIN; it is part of the notes of what was refused
	Suffix string // of the files, behind the keystore's name
	Most   int    // bytes that a secret has
	// Give tells how to give the secret of a keystore anew.
	Give func(name string) string
}

func (f Folder) path(name, suffix string) (string, error) {
	if name == "" || strings.HasPrefix(name, ".") || strings.ContainsAny(name, "/\\\x00") {
		return "", fmt.Errorf("keystore name %q", name)
	}
	return filepath.Join(f.Dir, name+suffix), nil
}

// Read is the secret of a keystore, whose reader clears it. Errors of which
// somebody can do something say so by keymgr.Hinter.
func (f Folder) Read(name string) ([]byte, error) {
	path, err := f.path(name, f.Suffix)
	if err != nil {
		return nil, err
	}
	in, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, problem{fmt.Errorf("the %s of keystore %q is not here (%s)", f.Word, name, path), f.Give(name)}
	}
	if err != nil {
		return nil, err
	}
	defer in.Close() //nolint:errcheck // opened for reading
	info, err := in.Stat()
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, problem{fmt.Errorf("%s is open to others (mode %04o): a %s must not be", path, info.Mode().Perm(), f.Word), "chmod 600 " + path}
	}
	return io.ReadAll(io.LimitReader(in, int64(f.Most)+1))
}

// Keep stores a secret. One that was refused before is no longer.
func (f Folder) Keep(name, secret string) error {
	if len(secret) > f.Most {
		return fmt.Errorf("the %s of keystore %q has %d bytes, at most %d are kept", f.Word, name, len(secret), f.Most)
	}
	if err := f.write(name, f.Suffix, secret); err != nil {
		return fmt.Errorf("store the %s of keystore %q: %w", f.Word, name, err)
	}
	return f.remove(name, refusedSuffix)
}

// Forget deletes all files of a keystore; that there are none is no error.
func (f Folder) Forget(name string) error {
	if err := errors.Join(f.remove(name, f.Suffix), f.remove(name, refusedSuffix)); err != nil {
		return fmt.Errorf("delete the %s of keystore %q: %w", f.Word, name, err)
	}
	return nil
}

// Refuse notes that a secret was refused, so that it is not tried again by a later
// process either: tokens count, and servers lock accounts.
func (f Folder) Refuse(name, secret string) error {
	return f.write(name, refusedSuffix, f.digest(secret)+"\n")
}

// Accept ends that.
func (f Folder) Accept(name string) error { return f.remove(name, refusedSuffix) }

// Refused reports whether this secret was refused.
func (f Folder) Refused(name, secret string) (bool, error) {
	path, err := f.path(name, refusedSuffix)
	if err != nil {
		return false, err
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return strings.TrimSpace(string(text)) == f.digest(secret), err
}

func (f Folder) digest(secret string) string {
	sum := sha256.Sum256([]byte("sluice refused " + f.Word + "\x00" + secret))
	return hex.EncodeToString(sum[:])
}

func (f Folder) write(name, suffix, text string) error {
	path, err := f.path(name, suffix)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(f.Dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(f.Dir, ".new-*") // 0600
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
	return f.sync()
}

func (f Folder) remove(name, suffix string) error {
	path, err := f.path(name, suffix)
	if err != nil {
		return err
	}
	if err := os.Remove(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	return f.sync()
}

func (f Folder) sync() error {
	d, err := os.Open(f.Dir)
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
