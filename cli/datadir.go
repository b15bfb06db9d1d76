package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"sluice/pipeline"
)

// dataFormat is the format of a data directory, see marker.
const dataFormat = 1

// marker stands in a data directory's file "version".
type marker struct {
	Format int    `json:"format"`
	Clock  string `json:"clock"` // real or rehearsal
}

// The clocks of a marker.
const (
	realClock      = "real"
	rehearsalClock = "rehearsal"
)

// dataDir is a data directory that this process holds the lock of.
type dataDir struct {
	path string
	lock *os.File
	// beside is what may stand in an unmarked directory; "" for nothing.
	beside string
}

func (d *dataDir) journal() string     { return filepath.Join(d.path, "journal") }
func (d *dataDir) projections() string { return filepath.Join(d.path, "projections") }
func (d *dataDir) spill() string       { return filepath.Join(d.path, "projections", "tmp") }
func (d *dataDir) upstream() string    { return filepath.Join(d.path, "projections", "upstream.json") }
func (d *dataDir) run() string         { return filepath.Join(d.path, "projections", "run") }
func (d *dataDir) keys() string        { return filepath.Join(d.path, "keys") }
func (d *dataDir) socket() string      { return filepath.Join(d.path, "sluice.sock") }

// openDataDir takes the lock of a data directory. With create, one that does
// not exist is made, marked with the clock; one made with another clock is
// refused. The caller closes it.
func openDataDir(path, clock string, create bool) (*dataDir, error) {
	d, err := openAnyDataDir(path, clock, create)
	if err == nil && create {
		if err = d.checkOwner(); err == nil {
			err = d.checkJournal()
		}
		if err != nil {
			return nil, errors.Join(err, d.close())
		}
	}
	return d, err
}

// openAnyDataDir is openDataDir wherever the journal is.
func openAnyDataDir(path, clock string, create bool) (*dataDir, error) {
	if create {
		if err := os.MkdirAll(path, 0o700); err != nil {
			return nil, err
		}
	}
	d := &dataDir{path: path}
	if create {
		if err := d.checkOurs(); err != nil { // before anything is written
			return nil, err
		}
	}
	if err := d.takeLock(create); err != nil {
		return nil, err
	}
	if err := d.checkMarker(clock, create); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// checkJournal refuses a directory whose journal is gone, a file system that is
// not mounted, say: all zones would be gone with it. What the journal gave rise
// to says that there was one.
func (d *dataDir) checkJournal() error {
	entries, err := os.ReadDir(d.journal())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(entries) > 0 {
		return nil
	}
	for _, dir := range []string{d.keys(), d.projections()} {
		made, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, f := range made {
			if name := f.Name(); filepath.Ext(name) == ".pem" || name == "zones" {
				return withHint(
					fmt.Errorf("the journal %s is missing, but there is %s: %w", d.journal(), filepath.Join(dir, name), pipeline.ErrState),
					"mount it, or restore it from the backup; to begin anew without any zone, choose another directory with --data")
			}
		}
	}
	return nil
}

// close gives the lock back.
func (d *dataDir) close() error { return d.lock.Close() }

func (d *dataDir) takeLock(create bool) error {
	flags := os.O_RDWR
	if create {
		flags |= os.O_CREATE
	}
	path := filepath.Join(d.path, "lock")
	f, err := os.OpenFile(path, flags, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("no data directory %s: %w: %w", d.path, pipeline.ErrNotFound, err)
	}
	if err != nil {
		return err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		holder := make([]byte, 20)
		n, _ := f.ReadAt(holder, 0) // empty where the holder has not written it yet
		_ = f.Close()               // nothing was written
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("lock %s: %w", path, err)
		}
		return withHint(
			fmt.Errorf("data directory %s is in use by process %s: %w", d.path, bytes.TrimSpace(holder[:n]), pipeline.ErrState),
			"stop that daemon, or choose another directory with --data")
	}
	if err = f.Truncate(0); err == nil {
		_, err = fmt.Fprintf(f, "%d\n", os.Getpid())
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	d.lock = f
	return nil
}

// checkMarker reads the marker, or writes it into an empty directory.
func (d *dataDir) checkMarker(clock string, create bool) error {
	path := filepath.Join(d.path, "version")
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && create {
		return d.writeMarker(path, clock)
	}
	if err != nil {
		return err
	}
	var m marker
	if err := json.Unmarshal(text, &m); err != nil || m.Clock != realClock && m.Clock != rehearsalClock && m.Format <= dataFormat {
		return withHint(fmt.Errorf("the version marker %s is damaged: it holds %q", path, bytes.TrimSpace(text[:min(len(text), 100)])),
			`restore it; where the daemon never ran with --clock here, it is {"format":1,"clock":"real"}, else {"format":1,"clock":"rehearsal"}`)
	}
	if m.Format < 1 || m.Format > dataFormat {
		return fmt.Errorf("data directory %s has format %d, this program knows up to %d: %w", d.path, m.Format, dataFormat, pipeline.ErrState)
	}
	if clock == "" || clock == m.Clock {
		return nil
	}
	err = fmt.Errorf("data directory %s was made with the %s clock: %w", d.path, m.Clock, pipeline.ErrState)
	if m.Clock == rehearsalClock {
		return withHint(err, "go on with --clock START[,RATE], or choose another directory with --data")
	}
	return withHint(err, "a rehearsal needs a directory of its own: --data DIR")
}

// rehearsal reports whether the directory was made with a simulated clock.
func (d *dataDir) rehearsal() (bool, error) {
	text, err := os.ReadFile(filepath.Join(d.path, "version"))
	if err != nil {
		return false, err
	}
	var m marker
	err = json.Unmarshal(text, &m)
	return m.Clock == rehearsalClock, err
}

// checkOurs refuses a directory that holds something else and no marker: it is
// not ours to mark.
func (d *dataDir) checkOurs() error {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return err
	}
	foreign := ""
	for _, e := range entries {
		name := e.Name()
		if name == "version" {
			return nil
		}
		if foreign == "" && name != "lock" && name != d.beside && !strings.HasPrefix(name, ".") {
			foreign = name
		}
	}
	if foreign != "" {
		return fmt.Errorf("%s holds %q but no version marker: it is no data directory", d.path, foreign)
	}
	return nil
}

// writeMarker marks a new directory.
func (d *dataDir) writeMarker(path, clock string) error {
	if err := d.checkOurs(); err != nil {
		return err
	}
	text, err := json.Marshal(marker{Format: dataFormat, Clock: clock})
	if err != nil {
		return err
	}
	tmp := filepath.Join(d.path, ".version")
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write(append(text, '\n')); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	// Commit: from here on the directory is ours, and has its clock.
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	dir, err := os.Open(d.path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
