package journal

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	markerFile   = "sluice-journal.json"
	lockFile     = "lock"
	storeVersion = 1
	standalone   = "standalone"
	// moved is the mode of a store whose journal lives elsewhere.
	moved = "moved"
	// standbyMode is that of a store that is the copy of a journal elsewhere.
	standbyMode = "standby"
)

// marker says what a store directory is. It guards a standalone store from
// being started as a cluster member, which would delete its streams.
type marker struct {
	Format   int    `json:"format"`
	Mode     string `json:"mode"`
	Identity string `json:"identity"` // of the EVENTS stream
	// Complete is set once both streams are on disk: from then on a missing
	// stream is a loss and never made anew.
	Complete bool `json:"complete"`
	// MovedTo is where the journal of a store that moved lives, once Finished;
	// until then neither takes events.
	MovedTo  string `json:"moved_to,omitempty"`
	Finished bool   `json:"finished,omitempty"`
	// CopyOf is where the journal is that a standby's store is the copy of.
	CopyOf string `json:"copy_of,omitempty"`
	// Next is the identity that a standby's store gets when its promotion, which
	// began, is over; Was is the one that a promoted store had.
	Next string `json:"next_identity,omitempty"`
	Was  string `json:"former_identity,omitempty"`
	// Restored is set where the store was filled with what an earlier journal
	// held, or is a copy of it that was promoted.
	Restored *restored `json:"restored,omitempty"`
}

// restored is what a filled store keeps of its origin.
type restored struct {
	// Former are the logs that this one goes on from, by their origins.
	Former []string `json:"former"`
	// BulkFirst and BulkLast are the sequences in BULK of the chunks that were
	// filled in, each named by an event under another sequence. They stand
	// behind all that events name, so that a hint never meets another chunk.
	// Both are 0 where the chunks have the sequences that events name.
	BulkFirst uint64 `json:"bulk_first"`
	BulkLast  uint64 `json:"bulk_last"`
}

// holds reports whether a sequence in BULK is that of a chunk filled in.
func (r *restored) holds(seq uint64) bool {
	return r != nil && seq >= r.BulkFirst && seq <= r.BulkLast
}

// owns reports whether a stream of an identity is the store's. Those of a store
// that was promoted may still have the one of before.
func (m marker) owns(identity string) bool {
	return identity == m.Identity || m.Was != "" && identity == m.Was
}

// lockStore takes the advisory lock of a store directory. The lock ends with
// the process or when the file is closed.
func lockStore(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make journal directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock journal: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	_ = f.Close() // nothing was written
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("lock %s: %w", dir, ErrLocked)
	}
	return nil, fmt.Errorf("lock %s: %w", dir, err)
}

// readMarker returns the marker of a store of a mode, after making one in an
// empty directory.
func readMarker(dir, mode string) (marker, error) {
	m, err := peekMarker(dir)
	switch {
	case err != nil:
		return marker{}, err
	case m == nil:
		return newMarker(dir, mode)
	case m.Mode != mode:
		return marker{}, modeError(dir, *m)
	}
	return *m, nil
}

// peekMarker returns the marker of a store, whatever its mode; nil where there
// is none.
func peekMarker(dir string) (*marker, error) {
	path := filepath.Join(dir, markerFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // there is none
	}
	if err != nil {
		return nil, fmt.Errorf("read journal marker: %w", err)
	}
	var m marker
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("read journal marker %s: %w", path, err)
	}
	switch {
	case m.Format < 1 || m.Format > storeVersion:
		return nil, fmt.Errorf("journal %s has format %d, this program knows %d", dir, m.Format, storeVersion)
	case m.Identity == "":
		return nil, fmt.Errorf("journal marker %s names no identity", path)
	}
	return &m, nil
}

// ErrMode reports a store that is not for the use that was tried: its journal
// moved elsewhere, say.
var ErrMode = errors.New("the journal is not to be used so")

// modeError says why a store is not opened, and what to do instead.
func modeError(dir string, m marker) error {
	switch {
	case m.Mode == moved && m.Finished:
		return fmt.Errorf("%w: that of %s moved to %s: start with --nats-url %s", ErrMode, dir, m.MovedTo, m.MovedTo)
	case m.Mode == moved:
		return fmt.Errorf("%w: that of %s is on its way to %s: run sluice cluster grow again to finish that", ErrMode, dir, m.MovedTo)
	}
	if m.Mode == standbyMode {
		return fmt.Errorf("%w: %s is the copy of the journal at %s: sluice cluster promote makes a journal of it", ErrMode, dir, m.CopyOf)
	}
	return fmt.Errorf("%w: %s was made for mode %q, which this program does not open like this", ErrMode, dir, m.Mode)
}

func newMarker(dir, mode string) (marker, error) {
	id, err := newIdentity()
	if err != nil {
		return marker{}, err
	}
	m := marker{Format: storeVersion, Mode: mode, Identity: id}
	return m, makeMarker(dir, m)
}

// newIdentity makes an identity that no other journal has.
func newIdentity() (string, error) {
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		return "", fmt.Errorf("make journal identity: %w", err)
	}
	return hex.EncodeToString(id), nil
}

// makeMarker marks an empty directory.
func makeMarker(dir string, m marker) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read journal directory: %w", err)
	}
	for _, e := range entries {
		if e.Name() != lockFile && e.Name() != markerFile+".new" {
			return fmt.Errorf("%s holds %q but no %s: not a journal of this program", dir, e.Name(), markerFile)
		}
	}
	return writeMarker(dir, m)
}

// writeMarker replaces the marker; it is on disk when it returns.
func writeMarker(dir string, m marker) error {
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("write journal marker: %w", err)
	}
	if err := replaceFile(filepath.Join(dir, markerFile), append(data, '\n')); err != nil {
		return fmt.Errorf("write journal marker: %w", err)
	}
	return nil
}

// replaceFile writes a file whole or not at all; it is on disk when it
// returns.
func replaceFile(path string, data []byte) error {
	if err := writeSynced(path+".new", data); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return syncPath(filepath.Dir(path))
}

// syncPath brings a file or a directory to the disk.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func writeSynced(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
