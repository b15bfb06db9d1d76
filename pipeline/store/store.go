package store

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"sluice/journal"
	"sluice/journal/event"
)

// Errors that callers tell apart.
var (
	// ErrDamaged: the directory does not hold a whole store of this layout.
	// The caller removes it and rebuilds from the journal.
	ErrDamaged = errors.New("store damaged")
	// ErrNoInstance: the store does not hold that instance, or no longer.
	ErrNoInstance = errors.New("instance not in the store")
	// ErrBroken: what the journal holds of an instance does not make one, or
	// it builds on an instance that the store does not hold. The event can
	// only be skipped.
	ErrBroken = errors.New("instance cannot be built")
	// ErrNoSpace: the disk is full. Where Apply returns it, nothing has
	// changed, and it may be tried again.
	ErrNoSpace = errors.New("no space left on the disk of the projection")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("store closed")
)

// Config is how a store is opened. The zero value is usable.
type Config struct {
	// Stream is the identity of the EVENTS stream that the events come from.
	// It stands in the position. Empty: the one stored, for reading only.
	Stream string
	// Events says what events the states are folded from: those that the program
	// knows. A store of a program that knew others is ErrDamaged: what that passed
	// over, or stopped at, is folded anew.
	Events string
	// Cache is the size of the block cache in bytes; 0 is 32 MiB.
	Cache int64
	// Memtable is the size of a memtable in bytes; 0 is 8 MiB.
	Memtable uint64
	// BatchLimit is the size in raw bytes from which a load goes in as
	// sstables; 0 is 8 MiB.
	BatchLimit uint64
	// TableSize is the size of the sstables made by a load, in bytes; 0 is
	// 32 MiB.
	TableSize uint64
	// Logger hears of faults of Pebble; nil is silence.
	Logger *slog.Logger
	// Fault hears, from any goroutine, of what no call may tell: ErrNoSpace
	// when Pebble begins to wait for room on the disk, nil when it goes on, and
	// ErrDamaged where it reads a damaged file. It must not call the store. nil
	// is nobody.
	Fault func(error)
	// FS is where the directory lies; nil is the operating system's.
	FS vfs.FS
}

// Store is an open store. One goroutine at a time applies events (others
// wait); views may be opened and read meanwhile from any goroutine.
type Store struct {
	db     *pebble.DB
	cfg    Config
	dir    string
	writer sstable.WriterOptions
	room   *waiter
	stalls *atomic.Uint64 // times that Pebble made writes wait

	apply sync.Mutex              // held while an event is applied
	many  uint64                  // manyChanges, fewer in tests
	named map[event.ZoneID]uint32 // zones that this event names first; guarded by apply
	// common is what is known to be kept of spaceCommon; guarded by apply.
	common map[event.Hash]bool

	memory memory

	mu       sync.RWMutex
	position journal.Position // guarded by mu
	closed   bool             // guarded by mu
}

// Open opens the store in dir and makes it where there is none. Only one
// process can have it open. An error that wraps ErrDamaged means that the
// directory should be removed and the store built anew.
func Open(dir string, cfg Config) (*Store, error) {
	cfg = withDefaults(cfg)
	room := &waiter{fault: cfg.Fault}
	cfg.FS = patientFS{cfg.FS, room}
	stalls := new(atomic.Uint64)
	opts := options(cfg, stalls)
	defer opts.Cache.Unref()
	db, err := pebble.Open(dir, opts)
	if err != nil {
		return nil, fmt.Errorf("open store %q: %w", dir, unopenable(err))
	}
	s := &Store{db: db, cfg: cfg, dir: dir, room: room, stalls: stalls, many: manyChanges, common: map[event.Hash]bool{}}
	s.writer = opts.MakeWriterOptions(0, db.TableFormat())
	if err := s.start(); err != nil {
		return nil, errors.Join(fmt.Errorf("open store %q: %w", dir, err), db.Close())
	}
	room.arm(true)
	return s, nil
}

func withDefaults(cfg Config) Config {
	if cfg.Cache == 0 {
		cfg.Cache = 32 << 20
	}
	if cfg.Memtable == 0 {
		cfg.Memtable = 8 << 20
	}
	if cfg.BatchLimit == 0 {
		cfg.BatchLimit = 8 << 20
	}
	if cfg.TableSize == 0 {
		cfg.TableSize = 32 << 20
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Fault == nil {
		cfg.Fault = func(error) {}
	}
	if cfg.FS == nil {
		cfg.FS = vfs.Default
	}
	return cfg
}

func options(cfg Config, stalls *atomic.Uint64) *pebble.Options {
	opts := &pebble.Options{
		Cache:                       pebble.NewCache(cfg.Cache),
		FS:                          cfg.FS,
		FormatMajorVersion:          pebble.FormatValueSeparation,
		MemTableSize:                cfg.Memtable,
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       4,
		L0StopWritesThreshold:       20,
		MaxOpenFiles:                500,
		Logger:                      logger{cfg.Logger},
	}
	// Damage is an error of the call that met it; by default it would end the
	// process.
	opts.EventListener = &pebble.EventListener{
		DataCorruption: func(i pebble.DataCorruptionInfo) {
			cfg.Logger.Error("store damaged", "file", i.Path, "error", i.Details.Error()) // without its stack
			cfg.Fault(fmt.Errorf("%w: %s: %w", ErrDamaged, i.Path, i.Details))
		},
		WriteStallBegin: func(pebble.WriteStallBeginInfo) { stalls.Add(1) },
		BackgroundError: func(err error) { cfg.Logger.Error("store fault", "error", err) },
	}
	// An ingest waits until everything before it is in tables, so that what a
	// crash leaves is always a prefix.
	opts.Experimental.DisableIngestAsFlushable = func() bool { return true }
	// Signatures and digests do not shrink, and names share what they begin
	// with: compression would save a third of the disk and cost a quarter of
	// the CPU time of a large change.
	for i := range opts.Levels {
		opts.Levels[i].BlockSize = 16 << 10
		opts.Levels[i].Compression = func() *sstable.CompressionProfile { return sstable.NoCompression }
	}
	opts.EnsureDefaults()
	return opts
}

// start reads the position and clears what a crashed load left.
func (s *Store) start() error {
	if err := s.cfg.FS.RemoveAll(s.scratch()); err != nil {
		return fmt.Errorf("clear scratch folder: %w", err)
	}
	raw, err := s.get(s.db, []byte{spacePosition})
	if err != nil || raw == nil {
		return err
	}
	var p storedPosition
	if err := json.Unmarshal(raw, &p); err != nil {
		return fmt.Errorf("%w: position: %w", ErrDamaged, err)
	}
	if p.Schema != schema {
		return fmt.Errorf("%w: layout %d, this program writes %d", ErrDamaged, p.Schema, schema)
	}
	if p.Events != s.cfg.Events {
		return fmt.Errorf("%w: it was folded by a program that knew other events", ErrDamaged)
	}
	s.position = p.Position
	return s.checkMarks()
}

// checkMarks finds a store that lost edits before its last ones, as one whose
// manifest was cut off: Pebble takes that for a crash and replays its log on
// top of the tables that it still knows. Each edit deletes the mark of the one
// before, so where edits are missing the mark of the last one that is left
// before the gap still stands; where all before the log are missing, the mark
// of the beginning does not.
func (s *Store) checkMarks() (err error) {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: markKey(0), UpperBound: []byte{spaceZones}})
	if err != nil {
		return damaged(err)
	}
	defer func() { err = errors.Join(err, damaged(it.Close())) }()
	var marks []uint64
	for ok := it.First(); ok; ok = it.Next() {
		if key := it.Key(); len(key) == len(markKey(0)) {
			marks = append(marks, binary.BigEndian.Uint64(key[1:]))
		}
	}
	if !slices.Equal(marks, []uint64{0, s.position.Seq}) {
		return fmt.Errorf("%w: events before %d are missing", ErrDamaged, s.position.Seq)
	}
	return nil
}

func (s *Store) scratch() string { return s.cfg.FS.PathJoin(s.dir, "loading") }

// storedPosition is the value of spacePosition.
type storedPosition struct {
	Schema int    `json:"schema"`
	Events string `json:"events,omitempty"`
	journal.Position
}

// Position is how far the store has read; zero where it is fresh.
func (s *Store) Position() journal.Position {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.position
}

// Stalled reports whether Pebble waits for room on the disk. Then Apply may
// block, reads do not, and Close cannot flush.
func (s *Store) Stalled() bool { return s.room.stalled() }

// Sync returns once everything applied is on disk.
func (s *Store) Sync() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil
	}
	return damaged(s.db.LogData(nil, pebble.Sync))
}

// Close ends the store; everything applied is on disk when it returns. Views
// must be closed before. On a full disk it leaves out the flush: what was
// applied stands in the log. While Pebble waits for room, Close changes nothing
// and returns ErrNoSpace; the next opening finds a prefix of the events.
func (s *Store) Close() error {
	if s.Stalled() {
		return ErrNoSpace
	}
	s.apply.Lock()
	defer s.apply.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	var err error
	if s.canFlush() {
		err = s.db.Flush()
	}
	s.room.arm(false)
	return errors.Join(err, s.db.Close())
}

// canFlush reports whether the memtables have room on the disk.
func (s *Store) canFlush() bool {
	usage, err := s.cfg.FS.GetDiskUsage(s.dir)
	return err != nil || usage.AvailBytes > s.db.Metrics().MemTable.Size+s.cfg.Memtable
}

// snapshot takes a consistent picture, to be closed.
func (s *Store) snapshot() (*snapshot, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, ErrClosed
	}
	return &snapshot{s.db.NewSnapshot(), s}, nil
}

// snapshot is a consistent picture of the store.
type snapshot struct {
	*pebble.Snapshot
	s *Store
}

// Close frees it. That may begin a compaction, which waits while Pebble waits
// for room on the disk; who has read must not.
func (p *snapshot) Close() error {
	if p.s.Stalled() {
		go p.Snapshot.Close() //nolint:errcheck // it never fails
		return nil
	}
	return p.Snapshot.Close()
}

// get reads one value; nil where there is none. The slice is a copy.
func (s *Store) get(r pebble.Reader, key []byte) ([]byte, error) {
	v, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, damaged(err)
	}
	defer closer.Close()
	return append(make([]byte, 0, len(v)), v...), nil
}

// damaged adds ErrDamaged to errors that a rebuild mends, and ErrNoSpace to
// those of a full disk.
func damaged(err error) error {
	if err == nil || errors.Is(err, ErrDamaged) {
		return err
	}
	if pebble.IsCorruptionError(err) || errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return noSpace(err)
}

// unopenable says why a store does not open: what the operating system does
// not refuse is damage.
func unopenable(err error) error {
	if _, refused := errors.AsType[syscall.Errno](err); refused && !errors.Is(err, fs.ErrNotExist) {
		return damaged(err)
	}
	if errors.Is(err, ErrDamaged) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}

// Metrics is what a store tells about itself.
type Metrics struct {
	Position journal.Position
	Disk     uint64 // bytes on disk, obsolete files included
	Memory   uint64 // bytes of memtables and block cache
	Tables   int64  // sstables
	Debt     uint64 // bytes that wait for compaction
	ReadAmp  int    // tables that a read may have to look into
	L0       int64  // sstables that were not compacted yet

	Compactions, Flushes   uint64
	Stalls                 uint64 // times that writes had to wait for compactions or flushes
	CacheHits, CacheMisses uint64 // of the block cache
}

// Metrics reads the counters. They start anew with each opening.
func (s *Store) Metrics() (Metrics, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return Metrics{}, ErrClosed
	}
	m := s.db.Metrics()
	out := Metrics{
		Position: s.position,
		Disk:     m.DiskSpaceUsage(),
		Memory:   m.MemTable.Size + uint64(max(m.BlockCache.Size, 0)),
		Debt:     m.Compact.EstimatedDebt,
		ReadAmp:  m.ReadAmp(),
		L0:       m.Levels[0].TablesCount,

		Compactions: uint64(max(m.Compact.Count, 0)), Flushes: uint64(max(m.Flush.Count, 0)), Stalls: s.stalls.Load(),
		CacheHits: uint64(max(m.BlockCache.Hits, 0)), CacheMisses: uint64(max(m.BlockCache.Misses, 0)),
	}
	for i := range m.Levels {
		out.Tables += m.Levels[i].TablesCount
	}
	return out, nil
}

// zoneEntry is the value of spaceZones.
type zoneEntry struct {
	Number  uint32 `json:"number"`
	Removed bool   `json:"removed,omitempty"`
}

// zone looks a zone up; false where the store does not know it.
func (s *Store) zone(r pebble.Reader, id event.ZoneID) (zoneEntry, bool, error) {
	raw, err := s.get(r, zoneKey(id))
	if err != nil || raw == nil {
		return zoneEntry{}, false, err
	}
	var e zoneEntry
	if err := json.Unmarshal(raw, &e); err != nil {
		return zoneEntry{}, false, fmt.Errorf("%w: zone %s: %w", ErrDamaged, id, err)
	}
	return e, true, nil
}

// logger hands Pebble's messages on. Pebble cannot go on after a fatal one
// (its log or manifest could not be written), so that ends the process; what
// is on disk then is a prefix of the events.
type logger struct{ log *slog.Logger }

// Infof drops what Pebble tells about its routine.
func (logger) Infof(string, ...any) {}

// Errorf logs a fault that Pebble lived through.
func (l logger) Errorf(format string, args ...any) {
	l.log.Error("store fault", "error", fmt.Sprintf(format, args...))
}

// Fatalf logs a fault that Pebble cannot live through.
func (l logger) Fatalf(format string, args ...any) {
	msg := fmt.Sprintf(format, args...)
	l.log.Error("store cannot go on", "error", msg)
	panic("store: " + msg)
}
