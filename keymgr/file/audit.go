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

// auditFile holds the private audit key.
const auditFile = "audit.key"

// OpenAudit reads the key that signs checkpoints from dir, and makes one of
// that name (0600) where there is none. A key of another name is an error: its
// log would be another one.
func OpenAudit(dir, name string) (*audit.Key, error) {
	path := filepath.Join(dir, auditFile)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		secret, err := audit.NewKey(name)
		if err != nil {
			return nil, err
		}
		if err := writeFile(dir, auditFile, []byte(secret+"\n")); err != nil {
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
	secret, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	key, err := audit.ParseKey(strings.TrimSpace(string(secret)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if key.Name() != name {
		return nil, fmt.Errorf("%s: it is the key of the log %q, audit.origin in the config says %q", path, key.Name(), name)
	}
	return key, nil
}
