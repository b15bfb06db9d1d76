package pipeline

import (
	"os"

	"sluice/signer/zone"
)

// SpillDir is a folder for temporary files. Each is unlinked as soon as it is
// made, so that a crash leaves nothing behind.
type SpillDir string

// Create implements zone.Spill.
func (d SpillDir) Create() (zone.SpillFile, error) {
	f, err := os.CreateTemp(string(d), ".sluice-spill-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		_ = f.Close() // the removal's error says more
		return nil, err
	}
	return f, nil
}

// empty makes the folder anew.
func (d SpillDir) empty() error {
	if err := os.RemoveAll(string(d)); err != nil {
		return err
	}
	return os.MkdirAll(string(d), 0o700)
}
