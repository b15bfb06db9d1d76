package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	urfave "github.com/urfave/cli/v2"
)

func outputFlag() urfave.Flag {
	return &urfave.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write to `FILE`, - is standard output"}
}

// outFile is where a command writes its result.
type outFile struct {
	path    string // with all symbolic links followed; "" is standard output
	replace bool   // a regular file, or none yet: it is there in full or not at all
	mode    fs.FileMode
}

// findOutput looks at what -o names. What is not a regular file, such as
// /dev/null or a pipe, is written to and never replaced.
func findOutput(path string) (outFile, error) {
	if path == "" || path == "-" {
		return outFile{}, nil
	}
	out := outFile{replace: true, mode: 0o644}
	var err error
	if out.path, err = followLinks(path); err != nil {
		return out, fmt.Errorf("write %s: %w", path, err)
	}
	info, err := os.Stat(out.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return out, nil
	case err != nil:
		return out, fmt.Errorf("write %s: %w", path, err)
	case info.IsDir():
		return out, fmt.Errorf("write %s: it is a folder", path)
	}
	out.replace, out.mode = info.Mode().IsRegular(), info.Mode().Perm()
	return out, nil
}

// maxLinks bounds a chain of symbolic links, as Linux does.
const maxLinks = 40

// followLinks is path without symbolic links. The file itself need not be
// there, its folder must.
func followLinks(path string) (string, error) {
	for range maxLinks {
		dir, err := filepath.EvalSymlinks(filepath.Dir(path))
		if errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("there is no folder %s", filepath.Dir(path))
		}
		if err != nil {
			return "", err
		}
		path = filepath.Join(dir, filepath.Base(path))
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			return path, nil
		}
		if err != nil || info.Mode()&fs.ModeSymlink == 0 {
			return path, err
		}
		link, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		if !filepath.IsAbs(link) {
			link = filepath.Join(dir, link)
		}
		path = link
	}
	return "", errors.New("too many symbolic links")
}

// folder is where temporary files of the work may stand: on the disk of the
// result where there is one.
func (o outFile) folder() string {
	if !o.replace {
		return "."
	}
	return filepath.Dir(o.path)
}

// writeTo gives fn what -o names to write to.
func (e *env) writeTo(path string, fn func(io.Writer) error) error {
	out, err := findOutput(path)
	switch {
	case err != nil:
		return err
	case out.path == "":
		return writeBuffered(e.stdout, fn)
	case out.replace:
		return out.write(fn)
	}
	f, err := os.OpenFile(out.path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(writeBuffered(f, fn), f.Close())
}

func writeBuffered(w io.Writer, fn func(io.Writer) error) error {
	b := bufio.NewWriterSize(w, 64<<10)
	if err := fn(b); err != nil {
		_ = b.Flush() // what there is; the error says that it is not all
		return err
	}
	return b.Flush()
}

// write makes a file beside the result and puts it in its place once it is
// complete and on disk.
func (o outFile) write(fn func(io.Writer) error) error {
	tmp, err := os.CreateTemp(o.folder(), "."+filepath.Base(o.path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) //nolint:errcheck // gone already once it was renamed
	if err = tmp.Chmod(o.mode); err == nil {
		if err = fn(tmp); err == nil {
			err = tmp.Sync()
		}
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), o.path)
}
