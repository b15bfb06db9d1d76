package file

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"sluice/signer/zone"
)

// tsigSuffix ends the name of a TSIG key's file; before it stands the key's
// name, lower case, escaped as in a URL's path.
const tsigSuffix = ".tsig"

// maxTSIGFile bounds a TSIG key's file in bytes.
const maxTSIGFile = 4 << 10

// TSIG holds TSIG keys in a folder, a file each (mode 0600) with the line
// "ALGORITHM BASE64". It is safe for concurrent use.
type TSIG struct {
	dir  string
	mu   sync.RWMutex
	keys map[zone.Name]tsigSecret // guarded by mu; names in lower case
}

type tsigSecret struct {
	algorithm string
	secret    []byte
}

// OpenTSIG reads the keys of a folder, which is made where it is missing. A
// file that cannot be read or understood is an error.
func OpenTSIG(dir string) (*TSIG, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	t := &TSIG{dir: dir, keys: map[zone.Name]tsigSecret{}}
	for _, entry := range entries {
		escaped, ok := strings.CutSuffix(entry.Name(), tsigSuffix)
		if !ok || strings.HasPrefix(escaped, ".") {
			continue
		}
		name, key, err := readTSIG(filepath.Join(dir, entry.Name()), escaped)
		if err != nil {
			return nil, fmt.Errorf("TSIG key %s: %w", entry.Name(), err)
		}
		t.keys[name] = key
	}
	return t, nil
}

var errTSIGFile = errors.New("want one line: ALGORITHM BASE64")

func readTSIG(path, escaped string) (zone.Name, tsigSecret, error) {
	text, err := url.PathUnescape(escaped)
	if err != nil {
		return "", tsigSecret{}, err
	}
	name, err := zone.ParseName(text)
	if err != nil {
		return "", tsigSecret{}, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", tsigSecret{}, err
	}
	if info.Size() > maxTSIGFile {
		return "", tsigSecret{}, errTSIGFile
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", tsigSecret{}, err
	}
	words := strings.Fields(string(raw))
	if len(words) != 2 {
		return "", tsigSecret{}, errTSIGFile
	}
	secret, err := base64.StdEncoding.DecodeString(words[1])
	if err != nil {
		return "", tsigSecret{}, errTSIGFile // the cause would show a part of the secret
	}
	return name.Fold(), tsigSecret{words[0], secret}, nil
}

// Secret is the algorithm and the secret of a key; the name is in lower case.
// The secret is not to be changed.
func (t *TSIG) Secret(name zone.Name) (algorithm string, secret []byte, ok bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	k, ok := t.keys[name]
	return k.algorithm, k.secret, ok
}

// Names lists the keys, sorted.
func (t *TSIG) Names() []zone.Name {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.Sorted(maps.Keys(t.keys))
}

// Put stores a key, durably, in place of one of the same name.
func (t *TSIG) Put(name zone.Name, algorithm string, secret []byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	name = name.Fold()
	line := algorithm + " " + base64.StdEncoding.EncodeToString(secret) + "\n"
	if err := t.write(t.path(name), line); err != nil {
		return fmt.Errorf("store TSIG key %s: %w", name, err)
	}
	t.keys[name] = tsigSecret{algorithm, slices.Clone(secret)}
	return nil
}

// Remove deletes a key; one that is not there is no error.
func (t *TSIG) Remove(name zone.Name) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	name = name.Fold()
	if err := os.Remove(t.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove TSIG key %s: %w", name, err)
	}
	delete(t.keys, name)
	return t.syncDir()
}

// path is where a key's file stands. A name has at most 255 octets, but its
// escapes may be longer than a file's name: the system then refuses it.
func (t *TSIG) path(name zone.Name) string {
	return filepath.Join(t.dir, url.PathEscape(strings.TrimSuffix(name.String(), "."))+tsigSuffix)
}

func (t *TSIG) write(path, line string) error {
	tmp := filepath.Join(t.dir, ".new"+tsigSuffix)
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.WriteString(line); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	if err := os.Rename(tmp, path); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return t.syncDir()
}

func (t *TSIG) syncDir() error {
	d, err := os.Open(t.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
