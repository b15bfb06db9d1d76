package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sync/errgroup"
)

// edit collects what one event changes; commit makes all of it hold at once.
// Within a lane keys ascend; lanes may alternate. A tableEdit's lanes of data
// and lists may be set by one goroutine each.
type edit interface {
	set(l lane, key, value []byte) error
	remove(l lane, key []byte) error
	// removeAll deletes every key that begins with prefix.
	removeAll(prefix []byte) error
	// forget drops what was set in a lane.
	forget(l lane) error
	commit(ctx context.Context) error
	// abort frees what an edit holds; after commit it does nothing.
	abort() error
}

// lane is a sequence of ascending keys.
type lane int

// The lanes of an edit. Data and lists have one for each kind.
const (
	laneMeta lane = iota // keys in any order, few
	laneRemoved
	laneAdded
	laneData
	laneLists = laneData + lane(len(kinds))
	// laneDue takes keys without a value, and deletions, in any order and from
	// any goroutine; keys with values ascend.
	laneDue = laneLists + lane(len(kinds))
	lanes   = laneDue + 1
)

// batchEdit is for small changes.
type batchEdit struct {
	s     *Store
	main  *pebble.Batch
	parts [2]*pebble.Batch // the diff, which may be forgotten
}

func (s *Store) newBatch() *batchEdit { return &batchEdit{s: s, main: s.db.NewBatch()} }

func (e *batchEdit) batch(l lane) *pebble.Batch {
	if l != laneRemoved && l != laneAdded {
		return e.main
	}
	p := &e.parts[l-laneRemoved]
	if *p == nil {
		*p = e.s.db.NewBatch()
	}
	return *p
}

func (e *batchEdit) set(l lane, key, value []byte) error { return e.batch(l).Set(key, value, nil) }

func (e *batchEdit) remove(l lane, key []byte) error { return e.batch(l).Delete(key, nil) }

// fewKeys is up to how many keys are deleted one by one: a range tombstone
// costs every later read of the memtable more than a few points.
const fewKeys = 64

func (e *batchEdit) removeAll(prefix []byte) (err error) {
	end := after(prefix)
	it, err := e.s.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: end})
	if err != nil {
		return damaged(err)
	}
	defer func() { err = errors.Join(err, damaged(it.Close())) }()
	var keys [][]byte
	for ok := it.First(); ok; ok = it.Next() {
		if len(keys) == fewKeys {
			return e.main.DeleteRange(prefix, end, nil)
		}
		keys = append(keys, bytes.Clone(it.Key()))
	}
	for _, k := range keys {
		if err := e.main.Delete(k, nil); err != nil {
			return err
		}
	}
	return nil
}

func (e *batchEdit) forget(l lane) error {
	if p := e.parts[l-laneRemoved]; p != nil {
		p.Reset()
	}
	return nil
}

// commit does not wait for the disk: a crash leaves a prefix of the events,
// and the position says which.
func (e *batchEdit) commit(context.Context) error {
	for _, p := range e.parts {
		if p != nil && !p.Empty() {
			if err := e.main.Apply(p, nil); err != nil {
				return err
			}
		}
	}
	return e.main.Commit(pebble.NoSync)
}

func (e *batchEdit) abort() error {
	var err error
	for _, b := range []*pebble.Batch{e.main, e.parts[0], e.parts[1]} {
		if b != nil {
			err = errors.Join(err, b.Close())
		}
	}
	e.main, e.parts = nil, [2]*pebble.Batch{}
	return err
}

// tableEdit is for large changes: each lane goes into sstables of its own,
// and one Ingest adds them all. Their key ranges never overlap.
type tableEdit struct {
	s      *Store
	lanes  [lanes]*laneTables
	meta   map[string][]byte // nil values delete
	dueMu  sync.Mutex
	due    map[string]bool // guarded by dueMu; keys of laneDue without a value; false deletes
	ranges []string        // prefixes to delete
	files  atomic.Int64
	// closing ends full tables, which takes a sync each, while the next fill.
	closing errgroup.Group
}

// closingTables is how many tables are ended at once.
const closingTables = 2

// bytesPerSync is after how many bytes of a table their writing out begins.
const bytesPerSync = 1 << 20

// laneTables are the tables of one lane.
type laneTables struct {
	open  *sstable.Writer
	paths []string
	start []byte // what all keys of the open table begin with
	bytes uint64 // in the open table, before compression
}

func (s *Store) newTables() (*tableEdit, error) {
	if err := s.cfg.FS.MkdirAll(s.scratch(), 0o700); err != nil {
		return nil, fmt.Errorf("make scratch folder: %w", err)
	}
	e := &tableEdit{s: s, meta: map[string][]byte{}, due: map[string]bool{}}
	e.closing.SetLimit(closingTables)
	return e, nil
}

func (e *tableEdit) set(l lane, key, value []byte) error {
	if l == laneMeta {
		e.meta[string(key)] = append([]byte{}, value...)
		return nil
	}
	if l == laneDue && len(value) == 0 {
		e.setDue(key, true)
		return nil
	}
	t, err := e.table(l, key, len(value))
	if err != nil {
		return err
	}
	return t.open.Set(key, value)
}

func (e *tableEdit) remove(l lane, key []byte) error {
	if l == laneMeta {
		e.meta[string(key)] = nil
		return nil
	}
	if l == laneDue {
		e.setDue(key, false)
		return nil
	}
	t, err := e.table(l, key, 0)
	if err != nil {
		return err
	}
	return t.open.Delete(key)
}

func (e *tableEdit) removeAll(prefix []byte) error {
	e.ranges = append(e.ranges, string(prefix))
	return nil
}

// table is the open table of a lane with room for one more entry. A table
// holds entries of one generation only, lest it span another one's tables.
func (e *tableEdit) table(l lane, key []byte, value int) (*laneTables, error) {
	t := e.lanes[l]
	if t == nil {
		t = &laneTables{}
		e.lanes[l] = t
	}
	if t.open != nil && (t.bytes >= e.s.cfg.TableSize || !bytes.HasPrefix(key, t.start)) {
		e.closing.Go(t.open.Close)
		t.open = nil
	}
	if t.open == nil {
		w, path, err := e.create()
		if err != nil {
			return nil, err
		}
		t.open, t.bytes, t.start = w, 0, append(t.start[:0], key[:dataPrefix]...)
		t.paths = append(t.paths, path)
	}
	t.bytes += uint64(len(key) + value)
	return t, nil
}

func (t *laneTables) close() error {
	if t == nil || t.open == nil {
		return nil
	}
	err := t.open.Close()
	t.open = nil
	return err
}

func (e *tableEdit) create() (*sstable.Writer, string, error) {
	path := e.s.cfg.FS.PathJoin(e.s.scratch(), strconv.FormatInt(e.files.Add(1), 10)+".sst")
	f, err := e.s.cfg.FS.Create(path, loadCategory)
	if err != nil {
		return nil, "", fmt.Errorf("create table: %w", err)
	}
	// The disk is kept busy from the start, so that the sync at the end is short.
	f = vfs.NewSyncingFile(f, vfs.SyncingFileOptions{BytesPerSync: bytesPerSync})
	return sstable.NewWriter(objstorageprovider.NewFileWritable(f), e.s.writer), path, nil
}

func (e *tableEdit) forget(l lane) error {
	t := e.lanes[l]
	e.lanes[l] = nil
	if t == nil {
		return nil
	}
	err := errors.Join(t.close(), e.closing.Wait())
	for _, p := range t.paths {
		err = errors.Join(err, e.s.cfg.FS.Remove(p))
	}
	return err
}

// commit ingests. The position is among the keys, so Pebble writes every
// batch before it into tables first, and a crash leaves all of them or a
// prefix without these.
func (e *tableEdit) commit(ctx context.Context) error {
	if err := e.writeDue(); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	var paths []string
	for _, t := range e.lanes {
		if t == nil {
			continue
		}
		if t.open != nil {
			e.closing.Go(t.open.Close)
			t.open = nil
		}
		paths = append(paths, t.paths...)
	}
	if err := e.closing.Wait(); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	single := func(fill func(w *sstable.Writer) error) error {
		w, path, err := e.create()
		if err != nil {
			return err
		}
		paths = append(paths, path)
		return errors.Join(fill(w), w.Close())
	}
	for _, prefix := range e.ranges {
		if err := single(func(w *sstable.Writer) error {
			return w.DeleteRange([]byte(prefix), after([]byte(prefix)))
		}); err != nil {
			return fmt.Errorf("write table: %w", err)
		}
	}
	if err := single(e.writeMeta); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	if err := e.s.db.Ingest(ctx, paths); err != nil {
		return fmt.Errorf("ingest %d tables: %w", len(paths), damaged(err))
	}
	return nil
}

func (e *tableEdit) setDue(key []byte, there bool) {
	e.dueMu.Lock()
	e.due[string(key)] = there
	e.dueMu.Unlock()
}

// writeDue writes what stands in e.due, in order.
func (e *tableEdit) writeDue() error {
	for _, k := range slices.Sorted(maps.Keys(e.due)) {
		t, err := e.table(laneDue, []byte(k), 0)
		if err == nil && e.due[k] {
			err = t.open.Set([]byte(k), nil)
		} else if err == nil {
			err = t.open.Delete([]byte(k))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (e *tableEdit) writeMeta(w *sstable.Writer) error {
	keys := make([]string, 0, len(e.meta))
	for k := range e.meta {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		var err error
		if v := e.meta[k]; v != nil {
			err = w.Set([]byte(k), v)
		} else {
			err = w.Delete([]byte(k))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (e *tableEdit) abort() error {
	var err error
	for _, t := range e.lanes {
		err = errors.Join(err, t.close())
	}
	e.lanes = [lanes]*laneTables{}
	err = errors.Join(err, e.closing.Wait())
	return errors.Join(err, e.s.cfg.FS.RemoveAll(e.s.scratch()))
}
