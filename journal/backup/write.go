package backup

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"sluice/journal"
	"sluice/journal/audit"
	"sluice/journal/event"
)

const (
	// partEvents and partChunks are the sizes in bytes from which a part is
	// followed by another one.
	partEvents = 32 << 20
	partChunks = 256 << 20
	// smallPart is the size in bytes up to which the last part is written anew
	// with what came since, so that there are few of them.
	smallPart = 8 << 20
	// noChunk is the length of a chunk that is missing.
	noChunk = 1<<32 - 1
	// maxPacked bounds a compressed chunk in bytes.
	maxPacked = 1 << 20
)

// WriteOptions says what Write does besides.
type WriteOptions struct {
	Now     time.Time
	Program string // software that writes it
	// Key, where not nil, signs a checkpoint over all that the backup has.
	Key *audit.Key
	// Progress, where not nil, is called after each event with its sequence
	// and the last one.
	Progress func(seq, last uint64)
}

// Summary says what Write did.
type Summary struct {
	Dir      string     `json:"dir"`
	Identity string     `json:"identity"`
	From     uint64     `json:"from"` // first event that was new
	Size     uint64     `json:"size"` // events in the backup
	Hash     event.Hash `json:"hash"` // record hash of the last one
	Chunks   uint64     `json:"chunks"`
	Missing  uint64     `json:"missing"` // chunks that the journal no longer held
	Bytes    int64      `json:"bytes"`   // of all files
	// Gone are those of this time that should have been there: no bulk.purged
	// tells of them. One an event, the first ones.
	Gone []Gone `json:"gone"`
}

// Gone is a chunk that the journal no longer held.
type Gone struct {
	Seq     uint64     `json:"seq"` // of the event that names it
	Subject string     `json:"subject"`
	SHA256  event.Hash `json:"sha256"`
}

// maxGone bounds the missing chunks that a summary lists.
const maxGone = 100

// Folder is a folder for backups that this process holds the lock of.
type Folder struct {
	dir  string
	lock *os.File
	// manifest of the backup in it; nil where there is none.
	manifest *Manifest
}

// OpenFolder takes the lock of a folder, which is made where there is none. It
// must be empty or hold a backup.
func OpenFolder(dir string) (*Folder, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	m, err := ReadManifest(dir)
	f := &Folder{dir: dir}
	switch {
	case err == nil:
		f.manifest = &m
	case !errors.Is(err, ErrNoBackup):
		return nil, err
	default:
		if err := onlyOurs(dir); err != nil {
			return nil, err
		}
	}
	if f.lock, err = os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("a backup to %s is running already: %w", dir, err), f.lock.Close())
	}
	if f.manifest != nil { // it may have been replaced before the lock was ours
		m, err = ReadManifest(dir)
		f.manifest = &m
	}
	if err != nil && !errors.Is(err, ErrNoBackup) {
		return nil, errors.Join(err, f.lock.Close())
	}
	return f, nil
}

// Close gives the lock back.
func (f *Folder) Close() error { return f.lock.Close() }

// Position is where the backup ends that stands here; the zero value where
// there is none.
func (f *Folder) Position() journal.Position {
	if f.manifest == nil {
		return journal.Position{}
	}
	return f.manifest.Position()
}

// ours matches the files that a backup consists of, finished or not.
var ours = regexp.MustCompile(`^((events|chunks)-\d{16}-\d{16}\.(jsonl|bin)|heads-\d{16}\.jsonl|manifest|lock|\.new-.*)$`)

// onlyOurs refuses a folder that holds something else: it is not ours to write
// into.
func onlyOurs(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !ours.MatchString(e.Name()) {
			return fmt.Errorf("%s holds %q and no backup: choose an empty folder", dir, e.Name())
		}
	}
	return nil
}

// writer writes one backup.
type writer struct {
	*Folder
	WriteOptions
	head   Head
	source Source
	next   Manifest
	point  *audit.Checkpoint // nil where there is none
	// gone are chunks that were missing, by the event that names them.
	gone    map[uint64]Gone
	chain   *chain
	enc     *zstd.Encoder
	packed  []byte
	summary Summary

	part   Part
	events *partFile
	chunks *partFile
}

// Write brings the folder up to what head says. The source gives the events
// behind Position, which head is of. Until it returns, the folder is the backup
// that it was before. Errors: ErrDamaged, ErrOther.
func (f *Folder) Write(ctx context.Context, head Head, s Source, opts WriteOptions) (Summary, error) {
	w := &writer{Folder: f, WriteOptions: opts, head: head, source: s, chain: &chain{heads: map[event.ZoneID]journal.Head{}}, gone: map[uint64]Gone{}}
	w.summary = Summary{Dir: f.dir, Identity: head.Identity, Gone: []Gone{}}
	var err error
	if w.enc, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true)); err != nil {
		return w.summary, err
	}
	if err := w.begin(); err != nil {
		return w.summary, err
	}
	defer w.drop()
	first := w.chain.size + 1
	w.summary.From = first
	if err := s.Events(ctx, first, head.Size, func(seq uint64, line []byte) error { return w.event(ctx, seq, line) }); err != nil {
		return w.summary, err
	}
	if w.chain.size != head.Size || w.chain.hash != head.Hash {
		return w.summary, fmt.Errorf("the journal ended with event %d, not with event %d as it said: %w", w.chain.size, head.Size, ErrDamaged)
	}
	if w.events != nil {
		if err := w.flush(); err != nil {
			return w.summary, err
		}
	}
	return w.summary, w.commit()
}

// begin takes up the backup that is there.
func (w *writer) begin() error {
	w.next = Manifest{Format: formatVersion, Head: w.head, Taken: w.Now.UTC().Truncate(time.Second), Program: w.Program}
	if w.head.Size == 0 {
		return fmt.Errorf("%w: the journal has no event yet", ErrNoBackup)
	}
	var err error
	if w.point, err = readPoint(w.head); err != nil {
		return err
	}
	if err := w.sweep(); err != nil || w.manifest == nil {
		return err
	}
	have := w.manifest
	switch {
	case have.Identity != w.head.Identity, have.Rehearsal != w.head.Rehearsal:
		return fmt.Errorf("%s is of the journal %s, this one is %s: %w", w.dir, have.Identity, w.head.Identity, ErrOther)
	case w.head.Size < have.Size:
		return fmt.Errorf("%s holds %d events, the journal only %d: %w", w.dir, have.Size, w.head.Size, ErrOther)
	}
	heads, err := readSummed(filepath.Join(w.dir, have.headsFile()), have.Heads)
	if err != nil {
		return err
	}
	if w.chain, err = newChain(*have, heads); err != nil {
		return err
	}
	w.next.Parts = append(w.next.Parts, have.Parts...)
	last := have.Parts[len(have.Parts)-1]
	if last.Events.Bytes+last.Chunks.Bytes > smallPart || have.Size == w.head.Size {
		return nil
	}
	w.next.Parts = w.next.Parts[:len(w.next.Parts)-1]
	return w.reopen(last)
}

// sweep removes what no manifest names: a backup that did not come to its end
// left it.
func (f *Folder) sweep() error {
	named := map[string]bool{manifestFile: true, lockFile: true}
	if m := f.manifest; m != nil {
		named[m.headsFile()] = true
		for _, p := range m.Parts {
			named[p.eventsFile()], named[p.chunksFile()] = true, true
		}
	}
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if name := e.Name(); ours.MatchString(name) && !named[name] {
			if err := os.Remove(filepath.Join(f.dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// reopen begins a part with the content of an earlier one.
func (w *writer) reopen(p Part) error {
	if err := w.openPart(p.First); err != nil {
		return err
	}
	w.part.Count, w.part.Missing = p.Count, p.Missing
	for _, c := range []struct {
		to   *partFile
		name string
		want File
	}{{w.events, p.eventsFile(), p.Events}, {w.chunks, p.chunksFile(), p.Chunks}} {
		raw, err := readSummed(filepath.Join(w.dir, c.name), c.want)
		if err == nil {
			_, err = c.to.Write(raw)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) openPart(first uint64) (err error) {
	w.part = Part{First: first}
	if w.events, err = newPartFile(w.dir); err != nil {
		return err
	}
	w.chunks, err = newPartFile(w.dir)
	return err
}

// event takes one stored line and the chunks that it names.
func (w *writer) event(ctx context.Context, seq uint64, line []byte) error {
	e, err := w.chain.add(seq, line)
	if err != nil {
		return err
	}
	if err := w.chain.checkPoint(w.point); err != nil {
		return err
	}
	if w.events == nil {
		if err := w.openPart(seq); err != nil {
			return err
		}
	}
	w.part.Last = seq
	for _, b := range [][]byte{line, {'\n'}} {
		if _, err := w.events.Write(b); err != nil {
			return err
		}
	}
	err = w.chain.eachChunk(e.Facts, func(subject string, c event.Chunk) ([]byte, error) {
		raw, err := w.source.Chunk(ctx, subject, c)
		if errors.Is(err, journal.ErrNoChunk) {
			w.gone[seq] = Gone{seq, subject, c.SHA256}
			w.part.Missing++
			return nil, w.record(c.SHA256, noChunk, nil)
		}
		if err != nil {
			return nil, err
		}
		w.part.Count++
		w.packed = w.packed[:0]
		if len(raw) > 0 {
			w.packed = w.enc.EncodeAll(raw, w.packed)
		}
		return raw, w.record(c.SHA256, uint32(len(w.packed)), w.packed) //nolint:gosec // at most maxPacked
	})
	if err != nil {
		return fmt.Errorf("event %d: %w", seq, err)
	}
	if f, ok := e.Facts.(*event.BulkPurged); ok {
		for _, purged := range f.Instances {
			delete(w.gone, purged) // it is not to be there
		}
	}
	if w.Progress != nil {
		w.Progress(seq, w.head.Size)
	}
	if w.events.size > partEvents || w.chunks.size > partChunks {
		return w.flush()
	}
	return nil
}

// readPoint reads the signed checkpoint that the journal gave along.
func readPoint(head Head) (*audit.Checkpoint, error) {
	if head.Checkpoint == "" {
		return nil, nil //nolint:nilnil // there need not be one
	}
	key, err := audit.ParseVerifier(head.Key)
	if err != nil {
		return nil, err
	}
	c, _, err := audit.ReadCheckpoint(head.Checkpoint, key)
	if err != nil {
		return nil, fmt.Errorf("checkpoint of the journal: %w: %w", ErrDamaged, err)
	}
	return &c, nil
}

// checkPoint compares the events with the checkpoint once they are all there
// that it counts.
func (c *chain) checkPoint(point *audit.Checkpoint) error {
	if point != nil && uint64(point.Size) == c.size && point.Root != c.tree.Root() {
		return fmt.Errorf("the first %d events are not those that the signed checkpoint counts: %w", point.Size, ErrDamaged)
	}
	return nil
}

// record writes a chunk.
func (w *writer) record(sum event.Hash, size uint32, packed []byte) error {
	var top [len(sum) + 4]byte
	copy(top[:], sum[:])
	binary.BigEndian.PutUint32(top[len(sum):], size)
	if _, err := w.chunks.Write(top[:]); err != nil {
		return err
	}
	_, err := w.chunks.Write(packed)
	return err
}

// flush ends a part.
func (w *writer) flush() (err error) {
	if w.part.Events, err = w.events.finish(filepath.Join(w.dir, w.part.eventsFile())); err != nil {
		return err
	}
	if w.part.Chunks, err = w.chunks.finish(filepath.Join(w.dir, w.part.chunksFile())); err != nil {
		return err
	}
	w.next.Parts = append(w.next.Parts, w.part)
	w.events, w.chunks = nil, nil
	return nil
}

// drop removes what an error left unfinished.
func (w *writer) drop() {
	for _, f := range []*partFile{w.events, w.chunks} {
		if f != nil {
			f.drop()
		}
	}
}

// commit makes the folder the new backup.
func (w *writer) commit() error {
	w.next.Tree, w.next.BulkLast = w.chain.tree.Edges(), w.chain.bulkLast
	if w.Key != nil {
		var err error
		if w.next.Checkpoint, err = w.chain.checkpoint(w.Key.Name()).Sign(w.Key); err != nil {
			return err
		}
	}
	f, err := newPartFile(w.dir)
	if err != nil {
		return err
	}
	defer f.drop()
	if err := w.chain.writeHeads(f); err != nil {
		return err
	}
	if w.next.Heads, err = f.finish(filepath.Join(w.dir, w.next.headsFile())); err != nil {
		return err
	}
	text, err := w.next.text()
	if err != nil {
		return err
	}
	m, err := newPartFile(w.dir)
	if err != nil {
		return err
	}
	defer m.drop()
	if _, err := m.Write(text); err != nil {
		return err
	}
	if err := syncDir(w.dir); err != nil {
		return err
	}
	// Commit: from here on the folder is the new backup, before it was the
	// earlier one. What that alone named goes now.
	if _, err := m.finish(filepath.Join(w.dir, manifestFile)); err != nil {
		return err
	}
	if err := syncDir(w.dir); err != nil {
		return err
	}
	for _, seq := range slices.Sorted(maps.Keys(w.gone)) {
		if len(w.summary.Gone) < maxGone {
			w.summary.Gone = append(w.summary.Gone, w.gone[seq])
		}
	}
	w.manifest = &w.next
	w.summary.Size, w.summary.Hash = w.next.Size, w.next.Hash
	w.summary.Chunks, w.summary.Missing = w.next.Chunks()
	w.summary.Bytes = w.next.Heads.Bytes
	for _, p := range w.next.Parts {
		w.summary.Bytes += p.Events.Bytes + p.Chunks.Bytes
	}
	return w.sweep()
}

// partFile is a file on its way into a backup.
type partFile struct {
	f    *os.File
	w    *bufio.Writer
	sum  hash.Hash
	size int64
}

func newPartFile(dir string) (*partFile, error) {
	f, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return nil, err
	}
	return &partFile{f: f, w: bufio.NewWriterSize(f, 64<<10), sum: sha256.New()}, nil
}

// Write implements io.Writer.
func (p *partFile) Write(b []byte) (int, error) {
	p.sum.Write(b)
	p.size += int64(len(b))
	return p.w.Write(b)
}

// finish puts the file into its place; what it holds is on disk then.
func (p *partFile) finish(path string) (File, error) {
	err := p.w.Flush()
	if err == nil {
		err = p.f.Sync()
	}
	if err = errors.Join(err, p.f.Close()); err != nil {
		return File{}, err
	}
	if err := os.Rename(p.f.Name(), path); err != nil {
		return File{}, err
	}
	return File{Bytes: p.size, SHA256: event.Hash(p.sum.Sum(nil))}, nil
}

// drop removes a file that was not finished; one that was is in its place.
func (p *partFile) drop() {
	_ = p.f.Close()           // it may be closed already
	_ = os.Remove(p.f.Name()) // it may be in its place
}

// readSummed reads a file of a backup whole; it is one that fits into memory.
func readSummed(path string, want File) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is missing: %w", path, ErrDamaged)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, want.Bytes+1))
	if err == nil && (int64(len(raw)) != want.Bytes || !bytes.Equal(sum(raw), want.SHA256[:])) {
		err = fmt.Errorf("%s is not as it was written: %w", path, ErrDamaged)
	}
	return raw, err
}

func sum(raw []byte) []byte {
	s := sha256.Sum256(raw)
	return s[:]
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
