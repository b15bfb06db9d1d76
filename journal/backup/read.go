package backup

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/klauspost/compress/zstd"

	"sluice/journal"
	"sluice/journal/event"
)

// folderSource reads the parts of a backup.
type folderSource struct {
	dir      string
	manifest Manifest
	dec      *zstd.Decoder
	part     Part
	events   *summedFile
	chunks   *summedFile
}

// OfFolder reads the backup in dir, as a source of all its events. Errors:
// ErrNoBackup, ErrDamaged.
func OfFolder(dir string) (Manifest, Source, error) {
	m, err := ReadManifest(dir)
	if err != nil {
		return m, nil, err
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderMaxMemory(journal.MaxRawChunk), zstd.WithDecoderLowmem(true))
	return m, &folderSource{dir: dir, manifest: m, dec: dec}, err
}

// Events implements Source; it reads whole parts, from the first on.
func (s *folderSource) Events(ctx context.Context, first, last uint64, fn func(uint64, []byte) error) error {
	if first != 1 || last != s.manifest.Size {
		return fmt.Errorf("a backup is read as a whole, not from event %d to %d", first, last)
	}
	for _, p := range s.manifest.Parts {
		if err := s.readPart(ctx, p, fn); err != nil {
			return err
		}
	}
	return nil
}

func (s *folderSource) readPart(ctx context.Context, p Part, fn func(uint64, []byte) error) (err error) {
	s.part = p
	if s.events, err = openSummed(filepath.Join(s.dir, p.eventsFile()), p.Events); err != nil {
		return err
	}
	defer s.events.f.Close()
	if s.chunks, err = openSummed(filepath.Join(s.dir, p.chunksFile()), p.Chunks); err != nil {
		return err
	}
	defer s.chunks.f.Close()
	for seq := p.First; seq <= p.Last; seq++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		message, err := s.events.message()
		if err != nil {
			return fmt.Errorf("event %d: %w", seq, err)
		}
		if err := fn(seq, message); err != nil {
			return err
		}
	}
	return errors.Join(s.events.end(), s.chunks.end())
}

// Chunk implements Source.
func (s *folderSource) Chunk(_ context.Context, subject string, c event.Chunk) ([]byte, error) {
	var top [len(c.SHA256) + 4]byte
	if _, err := io.ReadFull(s.chunks, top[:]); err != nil {
		return nil, fmt.Errorf("%s ends too early: %w", s.chunks.path, ErrDamaged)
	}
	size := binary.BigEndian.Uint32(top[len(c.SHA256):])
	switch {
	case event.Hash(top[:len(c.SHA256)]) != c.SHA256:
		return nil, fmt.Errorf("%s holds another chunk than %s of %s: %w", s.chunks.path, c.SHA256, subject, ErrDamaged)
	case size == noChunk:
		return nil, fmt.Errorf("chunk %s of %s: %w", c.SHA256, subject, journal.ErrNoChunk)
	case size > maxPacked || c.Bytes > journal.MaxRawChunk:
		return nil, fmt.Errorf("%s: a chunk of %d bytes: %w", s.chunks.path, size, ErrDamaged)
	}
	packed := make([]byte, size)
	if _, err := io.ReadFull(s.chunks, packed); err != nil {
		return nil, fmt.Errorf("%s ends too early: %w", s.chunks.path, ErrDamaged)
	}
	raw := make([]byte, 0, c.Bytes)
	if size > 0 {
		var err error
		if raw, err = s.dec.DecodeAll(packed, raw); err != nil {
			return nil, fmt.Errorf("%s: chunk %s: %w: %w", s.chunks.path, c.SHA256, ErrDamaged, err)
		}
	}
	if sha256.Sum256(raw) != c.SHA256 || uint64(len(raw)) != c.Bytes {
		return nil, fmt.Errorf("%s: chunk %s is not what its hash says: %w", s.chunks.path, c.SHA256, ErrDamaged)
	}
	return raw, nil
}

// summedFile is a file of a backup that is compared with its hash once it was
// read.
type summedFile struct {
	path string
	want File
	f    *os.File
	r    *bufio.Reader
	sum  hash.Hash
	size int64
}

func openSummed(path string, want File) (*summedFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return &summedFile{path: path, want: want, f: f, r: bufio.NewReaderSize(f, 64<<10), sum: sha256.New()}, nil
}

// Read implements io.Reader.
func (s *summedFile) Read(b []byte) (int, error) {
	n, err := s.r.Read(b)
	s.sum.Write(b[:n])
	s.size += int64(n)
	return n, err
}

// line reads a line without its end.
func (s *summedFile) line() ([]byte, error) {
	var line []byte
	for {
		part, err := s.r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > event.MaxLine+1:
			return nil, fmt.Errorf("%s has a line of more than %d bytes: %w", s.path, event.MaxLine, ErrDamaged)
		case err == nil:
			s.sum.Write(line)
			s.size += int64(len(line))
			return line[:len(line)-1], nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, fmt.Errorf("%s ends too early: %w", s.path, ErrDamaged)
		}
	}
}

// message reads a public line, and a sealed one that follows it.
func (s *summedFile) message() ([]byte, error) {
	message, err := s.line()
	if err != nil {
		return nil, err
	}
	if next, _ := s.r.Peek(event.SealedStart); !event.IsSealedLine(next) {
		return message, nil
	}
	sealed, err := s.line()
	return slices.Concat(message, []byte{'\n'}, sealed), err
}

// end compares what was read with what the manifest says.
func (s *summedFile) end() error {
	if _, err := s.r.ReadByte(); !errors.Is(err, io.EOF) || s.size != s.want.Bytes || event.Hash(s.sum.Sum(nil)) != s.want.SHA256 {
		return fmt.Errorf("%s is not as it was written: %w", s.path, ErrDamaged)
	}
	return nil
}
