// Package fleet reads and writes folders that say which policies and zones a
// daemon is to have:
//
//	policies/NAME.toml   policies, as they stand in the daemon's policy folder
//	zones.toml           zones
//	zones/*.toml         more zones, in files of the same form
//	keys/                key files that zones name
//
// A file of zones is TOML: version = "v1", and one [[zone]] for each. Make
// compares a folder with what runs, and Apply makes what runs like the folder,
// each zone all or nothing.
package fleet

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/pelletier/go-toml/v2"
)

// Version is what files of zones begin with.
const Version = "v1"

// Fleet is what a folder says.
type Fleet struct {
	Policies map[string][]byte // the text of each, by name
	Zones    []Zone            // in the order of their names

	// Dir is the folder, and Digest the SHA-256 of what Read read there, in hex.
	Dir    string
	Digest string
}

// Zone is a zone as it is to be.
type Zone struct {
	Name string `toml:"name"`
	// Source is a file on the daemon's machine, or IP[:PORT][^TSIGKEY]. A
	// relative path is below the folder.
	Source string `toml:"source"`
	Policy string `toml:"policy,omitempty"` // "" is "default"
	// SerialFloor is a serial that published ones stand above, or "auto"; it
	// counts when the zone is added.
	SerialFloor string `toml:"serial-floor,omitempty"`
	// Keys are what the zone is added with, where another signer had it before.
	Keys []Key `toml:"key,omitempty"`

	// File and Line are where it was read, for messages; Line is 0 where it is
	// not known.
	File string `toml:"-"`
	Line int    `toml:"-"`
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
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s is there already, and is not replaced: give another folder", path)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = out.Write(text)
	return err
}
