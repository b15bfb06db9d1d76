// Package fleet reads and writes folders that say which policies and zones a
// daemon is to have:
//
//	policies/NAME.toml   policies, as they stand in the daemon's policy folder
//	zones.toml           zones
//	zones/*.toml         more zones, in files of the same form
//	keys/                key files that zones name
//
// A file of zones is TOML: version = "v1", and one [[zone]] for each.
package fleet

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// Version is what files of zones begin with.
const Version = "v1"

// Fleet is what a folder says.
type Fleet struct {
	Policies map[string][]byte // the text of each, by name
	Zones    []Zone            // in the order of their names
}

// Zone is a zone as it is to be.
type Zone struct {
	Name string `toml:"name"`
	// Source is a file on the daemon's machine, or IP[:PORT][^TSIGKEY].
	Source string `toml:"source"`
	Policy string `toml:"policy,omitempty"` // "" is "default"
	// SerialFloor is a serial that published ones stand above, or "auto"; it
	// counts when the zone is added.
	SerialFloor string `toml:"serial-floor,omitempty"`
	// Keys are what the zone is added with, where another signer had it before.
	Keys []Key `toml:"key,omitempty"`

	// File is where it was read, for messages.
	File string `toml:"-"`
}

// Key is a key of a former signer.
type Key struct {
	Role string `toml:"role,omitempty"` // ksk, zsk or csk; none with Public
	// File is K*.private of BIND's format, with its .key and .state beside it; a
	// relative path is below the folder. With Keystore it is the .key file, and
	// with Public a file of DNSKEY records.
	File string `toml:"file"`
	// Keystore and ID name a key that is on a token already: the keystore's name,
	// and CKA_ID in hex.
	Keystore string `toml:"keystore,omitempty"`
	ID       string `toml:"id,omitempty"`
	Public   bool   `toml:"public,omitempty"` // another signer's
}

// zonesFile is a file of zones.
type zonesFile struct {
	Version string `toml:"version"`
	Zones   []Zone `toml:"zone"`
}

// Read reads a folder. Errors name the file and the line.
func Read(dir string) (Fleet, error) {
	f := Fleet{Policies: map[string][]byte{}}
	policies, err := filepath.Glob(filepath.Join(dir, "policies", "*.toml"))
	if err != nil {
		return f, err
	}
	for _, path := range policies {
		text, err := os.ReadFile(path)
		if err != nil {
			return f, err
		}
		f.Policies[strings.TrimSuffix(filepath.Base(path), ".toml")] = text
	}
	files, err := filepath.Glob(filepath.Join(dir, "zones", "*.toml"))
	if err != nil {
		return f, err
	}
	for _, path := range append([]string{filepath.Join(dir, "zones.toml")}, files...) {
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return f, err
		}
		var z zonesFile
		d := toml.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields()
		if err := d.Decode(&z); err != nil {
			return f, fmt.Errorf("%s: %w", path, err)
		}
		if z.Version != Version {
			return f, fmt.Errorf("%s: version %q: want %q", path, z.Version, Version)
		}
		for i := range z.Zones {
			z.Zones[i].File = path
		}
		f.Zones = append(f.Zones, z.Zones...)
	}
	slices.SortFunc(f.Zones, func(a, b Zone) int { return strings.Compare(a.Name, b.Name) })
	return f, nil
}

// Write writes a folder, which must not hold such files yet.
func (f Fleet) Write(dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, "policies"), 0o755); err != nil {
		return err
	}
	for name, text := range f.Policies {
		if err := writeNew(filepath.Join(dir, "policies", name+".toml"), text); err != nil {
			return err
		}
	}
	text, err := toml.Marshal(zonesFile{Version, f.Zones})
	if err != nil {
		return err
	}
	return writeNew(filepath.Join(dir, "zones.toml"), text)
}

// writeNew writes a file that is not there yet.
func writeNew(path string, text []byte) (err error) {
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = out.Write(text)
	return err
}
