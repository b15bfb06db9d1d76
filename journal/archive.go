package journal

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"

	"sluice/journal/event"
)

// An archive holds chunks that retention has purged, a file for each event that
// committed some:
//
//	DIR/<identity>/<zone-id>/<command>-<sequence>.chunks
//
// A file is the chunks as zstd frames, one behind the other, then the index, a
// JSON object, its length in eight bytes, big-endian, and the word SLUICEAR. The
// index holds the public line of the event, so that a file can be understood, and
// proved, by itself.

const (
	archiveEnd     = ".chunks"
	archiveMagic   = "SLUICEAR"
	archiveVersion = 1
	// maxIndex bounds the index of a file: some 500,000 chunks.
	maxIndex = 128 << 20
)

// Archive is a folder of purged chunks. It is safe for concurrent use.
type Archive struct {
	dir string // of the journal
	enc *zstd.Encoder
	dec *zstd.Decoder

	mu   sync.Mutex
	open struct { // guarded by mu; the file that was read last
		path  string
		index archiveIndex
		at    map[event.Hash]int
	}
}

// archiveIndex is the end of a file.
type archiveIndex struct {
	Version  int             `json:"v"`
	Identity string          `json:"identity"` // of the journal
	Zone     event.ZoneID    `json:"zone"`
	Name     string          `json:"name"`
	Seq      uint64          `json:"seq"`
	Subject  string          `json:"subject"`
	Event    json.RawMessage `json:"event"` // the public line
	Chunks   []archivedChunk `json:"chunks"`
}

// archivedChunk is one frame of a file.
type archivedChunk struct {
	SHA256 event.Hash `json:"sha256"` // of the raw chunk
	Bytes  uint64     `json:"bytes"`  // raw
	At     uint64     `json:"at"`     // where its frame begins
	Packed uint64     `json:"packed"` // the frame's length
}

// OpenArchive opens the archive of a journal in a folder, which must be there:
// a disk that is not mounted is then no empty archive.
func OpenArchive(dir, identity string) (*Archive, error) {
	st, err := os.Stat(dir)
	switch {
	case err != nil:
		return nil, fmt.Errorf("open archive: %w; make the folder, or correct archive-dir in the config", err)
	case !st.IsDir():
		return nil, fmt.Errorf("open archive: %s is no folder; correct archive-dir in the config", dir)
	case identity == "" || strings.ContainsAny(identity, "/\\."):
		return nil, fmt.Errorf("open archive: bad identity %q", identity)
	}
	a := &Archive{dir: filepath.Join(dir, identity)}
	a.enc, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err == nil {
		a.dec, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(4<<20))
	}
	if err != nil {
		return nil, fmt.Errorf("open archive: %w", err)
	}
	return a, nil
}

// Dir is the folder of the journal's files.
func (a *Archive) Dir() string { return a.dir }

// Close frees what reading holds.
func (a *Archive) Close() {
	a.dec.Close()
	_ = a.enc.Close()
}

// path is the file of an event's chunks.
func (a *Archive) path(zone event.ZoneID, subject string, seq uint64) string {
	return filepath.Join(a.dir, string(zone), fmt.Sprintf("%s-%d%s", commandOf(subject), seq, archiveEnd))
}

// commandOf is the last token of a subject in BULK.
func commandOf(subject string) string { return subject[strings.LastIndexByte(subject, '.')+1:] }

// Put copies the chunks of one of an event's manifests into the archive. When it
// returns they are on disk and were read back. An error wraps ErrNoChunk where
// the journal does not hold them.
func (a *Archive) Put(ctx context.Context, j Journal, rec Record, m event.Manifest, name string) (err error) {
	if _, err := ChunkSubject(rec.Event.Zone, commandOf(m.Subject)); err != nil {
		return fmt.Errorf("archive event %d: %w", rec.Seq, err)
	}
	path := a.path(rec.Event.Zone, m.Subject, rec.Seq)
	defer func() {
		if err != nil {
			err = fmt.Errorf("archive event %d in %s: %w", rec.Seq, path, err)
		}
	}()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	index := archiveIndex{
		Version: archiveVersion, Identity: filepath.Base(a.dir), Zone: rec.Event.Zone, Name: name, Seq: rec.Seq,
		Subject: m.Subject, Event: rec.Line,
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // gone already once it was renamed
	if err = a.write(ctx, f, j, m, &index); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		if err := syncPath(dir); err != nil {
			return err
		}
		if dir == filepath.Dir(a.dir) {
			break
		}
	}
	return a.check(path, m.Subject, index)
}

// write writes frames, index and end.
func (a *Archive) write(ctx context.Context, f *os.File, j Journal, m event.Manifest, index *archiveIndex) error {
	out := bufio.NewWriterSize(f, 1<<20)
	at := uint64(0)
	var packed []byte
	put := func(c event.Chunk, raw []byte) error {
		packed = a.enc.EncodeAll(raw, packed[:0])
		_, err := out.Write(packed)
		index.Chunks = append(index.Chunks, archivedChunk{SHA256: c.SHA256, Bytes: c.Bytes, At: at, Packed: uint64(len(packed))})
		at += uint64(len(packed))
		return err
	}
	err := ahead(ctx, j, m.Subject, m.Chunks, put)
	if err == nil {
		err = ahead(ctx, j, m.Subject, m.Indirect, func(c event.Chunk, raw []byte) error {
			part, err := event.DecodeChunkList(raw)
			if err == nil {
				err = put(c, raw)
			}
			if err != nil {
				return err
			}
			return ahead(ctx, j, m.Subject, part, put)
		})
	}
	if err != nil {
		return err
	}
	text, err := json.Marshal(index)
	if err != nil {
		return err
	}
	text = append(binary.BigEndian.AppendUint64(text, uint64(len(text))), archiveMagic...)
	if _, err := out.Write(text); err != nil {
		return err
	}
	return out.Flush()
}

// check reads a file back.
func (a *Archive) check(path, subject string, want archiveIndex) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // read only
	have, err := readIndex(f)
	switch {
	case err != nil:
		return err
	case have.Subject != subject || have.Seq != want.Seq || !bytes.Equal(have.Event, want.Event) || !slices.Equal(have.Chunks, want.Chunks):
		return errors.New("what was read back differs from what was written")
	}
	for _, c := range have.Chunks {
		if _, err := a.frame(f, c); err != nil {
			return err
		}
	}
	return nil
}

// frame reads one chunk and compares it with its hash.
func (a *Archive) frame(f io.ReaderAt, c archivedChunk) ([]byte, error) {
	if c.Packed > maxPayload || c.Bytes > MaxRawChunk {
		return nil, fmt.Errorf("chunk %s: %d bytes: %w", c.SHA256, c.Bytes, ErrNoChunk)
	}
	packed := make([]byte, c.Packed)
	if _, err := f.ReadAt(packed, int64(c.At)); err != nil { //nolint:gosec // an offset beyond the file is an error of ReadAt
		return nil, err
	}
	raw, err := a.dec.DecodeAll(packed, make([]byte, 0, c.Bytes))
	if err != nil || uint64(len(raw)) != c.Bytes || sha256.Sum256(raw) != c.SHA256 {
		return nil, fmt.Errorf("chunk %s is damaged: %w", c.SHA256, ErrNoChunk)
	}
	return raw, nil
}

// readIndex reads the end of a file.
func readIndex(f *os.File) (index archiveIndex, err error) {
	st, err := f.Stat()
	if err != nil {
		return index, err
	}
	const tail = 8 + len(archiveMagic)
	end := make([]byte, tail)
	if st.Size() < int64(tail) {
		return index, errNoArchive
	}
	if _, err := f.ReadAt(end, st.Size()-int64(tail)); err != nil {
		return index, err
	}
	n := binary.BigEndian.Uint64(end)
	if string(end[8:]) != archiveMagic || n > maxIndex || n > uint64(st.Size()-int64(tail)) {
		return index, errNoArchive
	}
	text := make([]byte, n)
	if _, err := f.ReadAt(text, st.Size()-int64(tail)-int64(n)); err != nil {
		return index, err
	}
	if err := json.Unmarshal(text, &index); err != nil {
		return index, fmt.Errorf("%w: %w", errNoArchive, err)
	}
	if index.Version != archiveVersion {
		return index, fmt.Errorf("its version is %d: it needs a newer program", index.Version)
	}
	return index, nil
}

var errNoArchive = errors.New("it is no file of an archive, or not whole")

// Chunk is the raw bytes of an archived chunk, checked against its hash;
// ErrNoChunk where the archive does not hold it.
func (a *Archive) Chunk(subject string, c event.Chunk) ([]byte, error) {
	parts := strings.Split(subject, ".")
	if len(parts) != 3 || !event.ZoneID(parts[1]).Valid() {
		return nil, fmt.Errorf("archived chunk of %q: %w", subject, ErrNoChunk)
	}
	if _, err := ChunkSubject(event.ZoneID(parts[1]), parts[2]); err != nil {
		return nil, fmt.Errorf("archived chunk: %w: %w", ErrNoChunk, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open.path != "" && a.open.index.Subject == subject {
		if raw, err := a.fromOpen(c); err == nil {
			return raw, nil
		}
	}
	paths, err := filepath.Glob(filepath.Join(a.dir, parts[1], parts[2]+"-*"+archiveEnd))
	if err != nil {
		return nil, fmt.Errorf("archived chunk of %s: %w", subject, err)
	}
	missing := ErrNoChunk
	for _, path := range paths {
		if err := a.load(path); err != nil {
			missing = fmt.Errorf("%w: %w", ErrNoChunk, err)
			continue
		}
		raw, err := a.fromOpen(c)
		if err == nil {
			return raw, nil
		}
		missing = err
	}
	return nil, fmt.Errorf("archived chunk %s of %s: %w", c.SHA256, subject, missing)
}

// load reads the index of a file. The caller holds mu.
func (a *Archive) load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // read only
	index, err := readIndex(f)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	a.open.path, a.open.index, a.open.at = path, index, make(map[event.Hash]int, len(index.Chunks))
	for i, c := range index.Chunks {
		a.open.at[c.SHA256] = i
	}
	return nil
}

// fromOpen reads a chunk of the file that was read last. The caller holds mu.
func (a *Archive) fromOpen(c event.Chunk) ([]byte, error) {
	i, ok := a.open.at[c.SHA256]
	if !ok || a.open.index.Chunks[i].Bytes != c.Bytes {
		return nil, ErrNoChunk
	}
	f, err := os.Open(a.open.path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoChunk, err)
	}
	defer f.Close() //nolint:errcheck // read only
	raw, err := a.frame(f, a.open.index.Chunks[i])
	if errors.Is(err, io.EOF) || errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: %w", ErrNoChunk, err)
	}
	return raw, err
}

// WithArchive is a journal that finds purged chunks in an archive; j itself
// where a is nil.
func WithArchive(j Journal, a *Archive) Journal {
	if a == nil {
		return j
	}
	return archived{j, a}
}

type archived struct {
	Journal
	archive *Archive
}

// Chunk implements Journal.
func (j archived) Chunk(ctx context.Context, subject string, c event.Chunk) ([]byte, error) {
	raw, err := j.Journal.Chunk(ctx, subject, c)
	if !errors.Is(err, ErrNoChunk) {
		return raw, err
	}
	if raw, aerr := j.archive.Chunk(subject, c); aerr == nil {
		return raw, nil
	}
	return nil, err
}
