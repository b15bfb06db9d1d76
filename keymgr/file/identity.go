package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sluice/keymgr/share"
)

// identityFile holds the secret parts of a process's identity: two lines, an age
// identity and the seed of an nkey.
const identityFile = "worker.identity"

// OpenIdentity reads the identity of the process called name from dir, and makes
// one (0600) where there is none.
func OpenIdentity(dir, name string) (*share.Identity, error) {
	path := filepath.Join(dir, identityFile)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		secret, seed, err := share.NewSecrets()
		if err != nil {
			return nil, err
		}
		if err := writeFile(dir, identityFile, []byte(secret+"\n"+seed+"\n")); err != nil {
			return nil, err
		}
		return share.ParseIdentity(name, secret, seed)
	}
	if err != nil {
		return nil, err
	}
	if err := checkFile(path, info.Mode()); err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // opened for reading
	text, err := readBounded(f, path)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	lines := strings.Fields(string(text))
	if len(lines) != 2 {
		return nil, fmt.Errorf("%s: want two lines, an age identity and the seed of an nkey", path)
	}
	id, err := share.ParseIdentity(name, lines[0], lines[1])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return id, nil
}
