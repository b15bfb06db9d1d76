package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sluice/journal/audit"
)

// AuditFile holds the private audit key of a log that goes on from no other.
const AuditFile = "audit.key"

// OpenAudit reads the key that signs checkpoints from dir, and makes one of
// that name (0600) where there is none. A key of another name is an error: its
// log would be another one.
func OpenAudit(dir, name string) (*audit.Key, error) { return OpenAuditFile(dir, AuditFile, name) }

// OpenAuditFile is OpenAudit with a file of that name.
func OpenAuditFile(dir, file, name string) (*audit.Key, error) {
	path := filepath.Join(dir, file)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		secret, err := audit.NewKey(name)
		if err != nil {
			return nil, err
		}
		if err := writeFile(dir, file, []byte(secret+"\n")); err != nil {
			return nil, err
		}
		return audit.ParseKey(secret)
	}
	if err != nil {
		return nil, err
	}
	if err := checkFile(path, info.Mode()); err != nil {
		return nil, err
	}
	key, err := ReadAudit(path)
	if err != nil {
		return nil, err
	}
	if key.Name() != name {
		return nil, fmt.Errorf("%s: it is the key of the log %q, audit.origin in the config says %q", path, key.Name(), name)
	}
	return key, nil
}

// ReadAudit reads a private audit key, whatever its name.
func ReadAudit(path string) (*audit.Key, error) {
	secret, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	key, err := audit.ParseKey(strings.TrimSpace(string(secret)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}
