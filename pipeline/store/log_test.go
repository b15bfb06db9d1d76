package store

import (
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/sumdb/tlog"

	"sluice/journal"
	"sluice/journal/audit"
	"sluice/journal/event"
)

// skipped folds events that have no data into a store, and returns the root
// and the heads after them.
func skipped(t *testing.T, s *Store, seqs ...uint64) (root event.Hash, heads []audit.Head) {
	t.Helper()
	var tree audit.Tree
	at := map[event.ZoneID]audit.Head{}
	for _, seq := range seqs {
		zone := []event.ZoneID{event.Instance, "0000000000000001", "0000000000000002"}[seq%3]
		rec := journal.Record{Seq: seq, Hash: event.RecordHash(fmt.Appendf(nil, "event %d", seq))}
		rec.Event.Zone, rec.Event.N = zone, at[zone].N+1
		if err := s.Skip(t.Context(), rec); err != nil {
			t.Fatal(err)
		}
		tree.Append(rec.Hash)
		at[zone] = audit.Head{Zone: zone, N: rec.Event.N, Hash: rec.Hash}
	}
	for _, id := range []event.ZoneID{"0000000000000001", "0000000000000002", event.Instance} {
		heads = append(heads, at[id])
	}
	return tree.Root(), heads
}

func TestLog_IsThatOfAllEvents(t *testing.T) {
	for _, n := range []uint64{3, 4, 64, 65, 100, 127, 300} {
		s := openTest(t, vfs.NewMem(), Config{})
		var seqs []uint64
		for i := range n {
			seqs = append(seqs, i+1)
		}
		want, heads := skipped(t, s, seqs...)
		l, err := s.Log()
		if err != nil {
			t.Fatal(err)
		}
		root, err := tlog.TreeHash(l.Size(), l)
		if err != nil || event.Hash(root) != want || l.Size() != int64(n) {
			t.Errorf("%d events: root %s of %d, %v, want %s", n, root, l.Size(), err, want)
		}
		var got []audit.Head
		if err := l.Heads(func(h audit.Head) error { got = append(got, h); return nil }); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(heads, got); d != "" {
			t.Errorf("%d events: heads:\n%s", n, d)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Events that the journal has lost leave the zones served, and no root.
func TestLog_HasNoRootBehindAGap(t *testing.T) {
	s := openTest(t, vfs.NewMem(), Config{})
	defer s.Close()
	skipped(t, s, 1, 2, 3, 5, 6, 7, 8)
	l, err := s.Log()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if root, err := tlog.TreeHash(l.Size(), l); err == nil {
		t.Errorf("root %s over a journal without event 4", root)
	}
}
