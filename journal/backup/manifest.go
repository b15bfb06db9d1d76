package backup

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"sluice/journal"
	"sluice/journal/audit"
	"sluice/journal/event"
)

const (
	formatVersion = 1
	manifestFile  = "manifest"
	lockFile      = "lock"
	// maxManifest bounds a manifest in bytes.
	maxManifest = 64 << 20
	sumWord     = "sha256 "
)

// ErrNoBackup reports a folder that holds no whole backup.
var ErrNoBackup = errors.New("no backup")

// ErrDamaged reports a backup, or a journal on its way into one, that is not as
// it was written.
var ErrDamaged = errors.New("damaged")

// ErrOther reports a folder with a backup of another journal.
var ErrOther = errors.New("backup of another journal")

// Head says what a backup holds of which journal.
type Head struct {
	Identity string     `json:"identity"` // of the stream of events
	Origin   string     `json:"origin"`   // of its audit log
	Key      string     `json:"key,omitempty"`
	Size     uint64     `json:"size"` // events: those with sequences up to it
	Hash     event.Hash `json:"hash"` // record hash of the last one
	// Checkpoint is the newest signed one over the events, where there is one.
	Checkpoint string `json:"checkpoint,omitempty"`
	// Rehearsal: the journal was written under a simulated clock.
	Rehearsal bool `json:"rehearsal,omitempty"`
}

// Manifest says what a backup is. A folder is a backup once it stands there.
type Manifest struct {
	Format int `json:"format"`
	Head
	Taken   time.Time `json:"taken"`
	Program string    `json:"program"`
	// BulkLast is the highest sequence in BULK that an event names.
	BulkLast uint64       `json:"bulk_last"`
	Tree     []event.Hash `json:"tree"`  // complete subtrees over all events, largest first
	Heads    File         `json:"heads"` // where the chains of the zones end
	Parts    []Part       `json:"parts"`
}

// Part is a run of events and the chunks that they name.
type Part struct {
	First   uint64 `json:"first"`
	Last    uint64 `json:"last"`
	Events  File   `json:"events"`
	Chunks  File   `json:"chunks"`
	Count   uint64 `json:"count"`   // chunks
	Missing uint64 `json:"missing"` // chunks that the journal no longer held
}

// File is a file of a backup.
type File struct {
	Bytes  int64      `json:"bytes"`
	SHA256 event.Hash `json:"sha256"`
}

func (p Part) eventsFile() string { return fmt.Sprintf("events-%016d-%016d.jsonl", p.First, p.Last) }
func (p Part) chunksFile() string { return fmt.Sprintf("chunks-%016d-%016d.bin", p.First, p.Last) }
func (m Manifest) headsFile() string {
	return fmt.Sprintf("heads-%016d.jsonl", m.Size)
}

// Position is where the backup ends.
func (m Manifest) Position() journal.Position {
	return journal.Position{Stream: m.Identity, Seq: m.Size, Hash: m.Hash}
}

// Chunks counts the chunks, and Missing those that the journal did not hold.
func (m Manifest) Chunks() (count, missing uint64) {
	for _, p := range m.Parts {
		count, missing = count+p.Count, missing+p.Missing
	}
	return count, missing
}

// text is the manifest as it is written: JSON, and the hash over it.
func (m Manifest) text() ([]byte, error) {
	raw, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return nil, err
	}
	raw = append(raw, '\n')
	return fmt.Appendf(raw, "%s%s\n", sumWord, event.Hash(sha256.Sum256(raw))), nil
}

// parseManifest reads what text writes.
func parseManifest(text []byte) (m Manifest, err error) {
	cut := bytes.LastIndexByte(bytes.TrimSuffix(text, []byte("\n")), '\n') + 1
	body, last := text[:cut], text[cut:]
	if want := fmt.Appendf(nil, "%s%s\n", sumWord, event.Hash(sha256.Sum256(body))); !bytes.Equal(last, want) {
		return m, fmt.Errorf("%w: its last line is not the hash of what stands before it", ErrDamaged)
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	var version struct {
		Format int `json:"format"`
	}
	if json.Unmarshal(body, &version) == nil && version.Format > formatVersion {
		return m, fmt.Errorf("it has format %d, this program knows %d", version.Format, formatVersion)
	}
	dec.DisallowUnknownFields()
	if err := dec.Decode(&m); err != nil {
		return m, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return m, m.check()
}

// check finds what the format does not allow.
func (m Manifest) check() error {
	next := uint64(1)
	for _, p := range m.Parts {
		if p.First != next || p.Last < p.First {
			return fmt.Errorf("%w: events %d to %d stand where %d is next", ErrDamaged, p.First, p.Last, next)
		}
		next = p.Last + 1
	}
	switch _, err := audit.NewTree(int64(m.Size), m.Tree); {
	case m.Format != formatVersion:
		return fmt.Errorf("%w: format %d", ErrDamaged, m.Format)
	case m.Size == 0 || next != m.Size+1:
		return fmt.Errorf("%w: %d events in its parts, the manifest says %d", ErrDamaged, next-1, m.Size)
	case err != nil:
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	case m.Identity == "":
		return fmt.Errorf("%w: it names no journal", ErrDamaged)
	}
	return nil
}

// ReadManifest reads the manifest of the backup in dir. Errors: ErrNoBackup,
// ErrDamaged.
func ReadManifest(dir string) (Manifest, error) {
	path := filepath.Join(dir, manifestFile)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Manifest{}, fmt.Errorf("%w in %s: there is no file %s", ErrNoBackup, dir, manifestFile)
	}
	if err != nil {
		return Manifest{}, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxManifest))
	if err != nil {
		return Manifest{}, err
	}
	m, err := parseManifest(text)
	if err != nil {
		return Manifest{}, fmt.Errorf("manifest %s: %w", path, err)
	}
	return m, nil
}
