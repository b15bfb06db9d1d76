package pipeline

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// errNotRegular reports a source that is a folder, a pipe or a device.
var errNotRegular = errors.New("not a regular file")

// ZoneFiles is the folder of a zone file: what the file may include from. It
// opens regular files only, so that a pipe never keeps a load waiting.
type ZoneFiles struct {
	root *os.Root
	// Name is the zone file's name in the folder.
	Name string
}

// OpenZoneFile opens the folder of a zone file; path may be a symbolic link.
// The caller closes it.
func OpenZoneFile(path string) (*ZoneFiles, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(filepath.Dir(real))
	if err != nil {
		return nil, err
	}
	return &ZoneFiles{root: root, Name: filepath.Base(real)}, nil
}

// Open implements fs.FS.
func (z *ZoneFiles) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	f, err := z.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: name, Err: errNotRegular}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Close frees the folder.
func (z *ZoneFiles) Close() error {
	if err := z.root.Close(); err != nil {
		return fmt.Errorf("close folder: %w", err)
	}
	return nil
}
