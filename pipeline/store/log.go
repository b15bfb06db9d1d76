package store

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"golang.org/x/mod/sumdb/tlog"

	"sluice/journal"
	"sluice/journal/audit"
	"sluice/journal/event"
)

// errNoHash reports a hash of the tree that was never made, since the journal
// lacks events.
var errNoHash = errors.New("the tree over all events is not whole: the journal lacks events")

// setLog adds an event to the Merkle tree over all events, and moves its
// zone's head. Behind a gap of the journal the tree does not grow.
func (s *Store) setLog(e edit, rec journal.Record) error {
	leaf := int64(rec.Seq) - 1
	grown, err := tlog.StoredHashesForRecordHash(leaf, tlog.Hash(rec.Hash), treeReader{s, s.db})
	if err != nil && !errors.Is(err, errNoHash) {
		return err
	}
	if err == nil {
		first := tlog.StoredHashIndex(0, leaf)
		for i, h := range grown {
			if err := e.set(laneMeta, treeKey(first+int64(i)), h[:]); err != nil {
				return err
			}
		}
	}
	return e.set(laneMeta, headKey(rec.Event.Zone), append(binary.BigEndian.AppendUint64(nil, rec.Event.N), rec.Hash[:]...))
}

func treeKey(index int64) []byte {
	return binary.BigEndian.AppendUint64([]byte{spaceTree}, uint64(index))
}

func headKey(id event.ZoneID) []byte { return append([]byte{spaceHeads}, id...) }

// treeReader reads hashes of the tree.
type treeReader struct {
	s *Store
	r pebble.Reader
}

// ReadHashes implements tlog.HashReader.
func (t treeReader) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		v, err := t.s.get(t.r, treeKey(index))
		if err != nil {
			return nil, err
		}
		if len(v) != len(out[i]) {
			return nil, errNoHash
		}
		copy(out[i][:], v)
	}
	return out, nil
}

// Log is the Merkle tree over all events and the heads of all zones as they
// stood when it was taken. Close frees it.
type Log struct {
	snap *snapshot
	size int64
}

// Log takes the tree as it stands.
func (s *Store) Log() (*Log, error) {
	snap, err := s.snapshot()
	if err != nil {
		return nil, err
	}
	p, err := s.positionIn(snap)
	if err != nil {
		return nil, errors.Join(err, snap.Close())
	}
	return &Log{snap, int64(p)}, nil
}

// Size is the number of events.
func (l *Log) Size() int64 { return l.size }

// ReadHashes implements tlog.HashReader.
func (l *Log) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	return treeReader{l.snap.s, l.snap}.ReadHashes(indexes)
}

// Heads calls fn with the head of each zone, sorted by zone, and with that of
// the whole instance. An error of fn ends it and is returned.
func (l *Log) Heads(fn func(audit.Head) error) (err error) {
	it, err := l.snap.NewIter(&pebble.IterOptions{LowerBound: []byte{spaceHeads}, UpperBound: after([]byte{spaceHeads})})
	if err != nil {
		return damaged(err)
	}
	defer func() { err = errors.Join(err, damaged(it.Close())) }()
	for ok := it.First(); ok; ok = it.Next() {
		v := it.Value()
		h := audit.Head{Zone: event.ZoneID(it.Key()[1:])}
		if len(v) != 8+len(h.Hash) {
			return fmt.Errorf("%w: head of zone %s", ErrDamaged, h.Zone)
		}
		h.N = binary.BigEndian.Uint64(v)
		copy(h.Hash[:], v[8:])
		if err := fn(h); err != nil {
			return err
		}
	}
	return nil
}

// Close frees it.
func (l *Log) Close() error { return l.snap.Close() }
