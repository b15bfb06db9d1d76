package store

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// spool keeps values in a file until they are read back in the order of their
// keys, which it holds in memory.
type spool struct {
	fs   vfs.FS
	path string
	file vfs.File
	size int64
	list []spooled
}

type spooled struct {
	spool  *spool
	key    []byte
	offset int64
	length int
}

func (p *spool) put(key, value []byte) (err error) {
	if p.file == nil {
		if p.file, err = p.fs.Create(p.path, loadCategory); err != nil {
			return fmt.Errorf("create spool: %w", err)
		}
	}
	if _, err := p.file.Write(value); err != nil {
		return fmt.Errorf("write spool: %w", err)
	}
	p.list = append(p.list, spooled{p, bytes.Clone(key), p.size, len(value)})
	p.size += int64(len(value))
	return nil
}

// readSpools reads everything back and removes the files.
func readSpools(from []*spool, fn func(key, value []byte) error) (err error) {
	var list []spooled
	for _, p := range from {
		if p.file == nil {
			continue
		}
		defer func() { err = errors.Join(err, p.close()) }()
		err = p.file.Close()
		p.file = nil
		if err != nil {
			return fmt.Errorf("write spool: %w", err)
		}
		if p.file, err = p.fs.Open(p.path); err != nil {
			return fmt.Errorf("open spool: %w", err)
		}
		list = append(list, p.list...)
	}
	slices.SortFunc(list, func(a, b spooled) int { return bytes.Compare(a.key, b.key) })
	var buf []byte
	for _, s := range list {
		buf = slices.Grow(buf[:0], s.length)[:s.length]
		if _, err := s.spool.file.ReadAt(buf, s.offset); err != nil {
			return fmt.Errorf("read spool: %w", err)
		}
		if err := fn(s.key, buf); err != nil {
			return err
		}
	}
	return nil
}

// close removes the file.
func (p *spool) close() error {
	if p.file == nil {
		return nil
	}
	err := p.file.Close()
	p.file, p.list = nil, nil
	return errors.Join(err, p.fs.Remove(p.path))
}
