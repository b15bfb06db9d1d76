package pipeline

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/journal/journaltest"
	"sluice/keymgr"
	"sluice/pipeline/store"
)

// countedJournal counts the events that are read from it, other than by
// following it.
type countedJournal struct {
	journal.Journal
	read atomic.Int64
}

func (j *countedJournal) counted(fn func(journal.Record) error) func(journal.Record) error {
	return func(rec journal.Record) error {
		j.read.Add(1)
		return fn(rec)
	}
}

// Read implements journal.Journal.
func (j *countedJournal) Read(ctx context.Context, zone event.ZoneID, first, last uint64, fn func(journal.Record) error) error {
	return j.Journal.Read(ctx, zone, first, last, j.counted(fn))
}

// ReadNext implements journal.Journal.
func (j *countedJournal) ReadNext(ctx context.Context, zone event.ZoneID, first uint64, n int, fn func(journal.Record) error) error {
	return j.Journal.ReadNext(ctx, zone, first, n, j.counted(fn))
}

// longAgo is when the events of a crowd begin.
var longAgo = time.Unix(1_700_000_000, 0).UTC()

// crowd appends n events of a zone, and three times as many of others between
// them.
func crowd(t *testing.T, r *rig, id event.ZoneID, n int) {
	t.Helper()
	add := func(id event.ZoneID, f event.Facts) {
		for {
			head, err := r.journal.Head(t.Context(), id)
			if err == nil {
				_, err = r.journal.Append(t.Context(), id, head, event.New(longAgo.Add(time.Duration(head.N)*time.Minute), id, testActor, f))
			}
			if err == nil {
				return
			}
			if !errors.Is(err, journal.ErrConflict) {
				t.Fatal(err)
			}
		}
	}
	for range n {
		add(id, &event.InstanceFetched{Fetches: []event.Fetch{{Address: "192.0.2.1"}}})
		for k := range 3 {
			add(event.ZoneID(fmt.Sprintf("%016x", 0xf0+k)), &event.LoadFailed{Source: "file", Reason: "none", Total: 1})
		}
	}
	_, last, err := r.journal.Stream(t.Context())
	if err == nil {
		err = r.e.awaitFold(t.Context(), last)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestHistory_ReadsAboutAsMuchAsItShows(t *testing.T) {
	j := &countedJournal{Journal: journaltest.New()}
	r := newRig(t, j, nil)
	r.add(smallZone)
	id := r.zone().Zone
	const events = 1500
	crowd(t, r, id, events)
	shown := func(q HistoryQuery) (seqs []uint64, read int64) {
		before := j.read.Load()
		if err := r.e.History(t.Context(), "example.com", q, func(l HistoryLine) error {
			seqs = append(seqs, l.Seq)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return seqs, j.read.Load() - before
	}
	all, read := shown(HistoryQuery{})
	if len(all) < events || read > int64(len(all)) {
		t.Fatalf("%d events, read %d", len(all), read)
	}
	var keys []uint64
	for _, name := range event.Types() {
		if event.OfKeys(name) {
			some, _ := shown(HistoryQuery{Types: []string{name}})
			keys = append(keys, some...)
		}
	}
	for name, c := range map[string]struct {
		q    HistoryQuery
		most int64
	}{
		"the newest":      {HistoryQuery{Limit: 20}, 20},
		"those before":    {HistoryQuery{Limit: 20, Before: all[len(all)-20]}, 20},
		"the first":       {HistoryQuery{Before: all[5]}, 5 + int64(len(keys))},
		"one type":        {HistoryQuery{Types: []string{"instance.published"}}, 3},
		"about keys":      {HistoryQuery{Types: []string{"key.activated"}}, 4 * int64(len(keys))},
		"a stretch":       {HistoryQuery{Since: longAgo.Add(700 * time.Minute), Until: longAgo.Add(709 * time.Minute)}, 10},
		"none":            {HistoryQuery{Types: []string{"zone.removed"}, Limit: 20}, 0},
		"before the zone": {HistoryQuery{Before: 1}, 0},
	} {
		seqs, read := shown(c.q)
		if read > c.most || c.most > 0 && len(seqs) == 0 {
			t.Errorf("%s: %d events shown, %d read, want at most %d", name, len(seqs), read, c.most)
		}
		if c.q.Limit > 0 && c.most > 0 && len(seqs) != c.q.Limit {
			t.Errorf("%s: %d events, want %d", name, len(seqs), c.q.Limit)
		}
	}
	before := j.read.Load()
	n := r.e.newNarrator(false)
	rec := journal.Record{Seq: all[len(all)-1] + 1, Event: event.Event{Type: "key.removed", Zone: id, N: 2, Facts: &event.KeyRemoved{}}}
	if err := n.catchUp(t.Context(), rec); err != nil {
		t.Fatal(err)
	}
	if read := j.read.Load() - before; read == 0 || read > 4*int64(len(keys)) {
		t.Errorf("a tail reads %d events to know the keys, of which %d events tell", read, len(keys))
	}
}

// Whatever is asked for, it is what a walk over the whole journal finds.
func TestHistory_IsWhatTheJournalHolds(t *testing.T) {
	r := newRig(t, journaltest.New(), nil)
	source := r.zoneFile(smallZone)
	add := func() {
		t.Helper()
		if _, err := r.e.AddZone(t.Context(), testActor, NewZone{Name: "example.com", Source: source, Policy: "default"}); err != nil {
			t.Fatal(err)
		}
		r.await()
	}
	add()
	r.reload(smallZone + "more IN A 192.0.2.9\n")
	first := r.zone().Zone
	r.parent(false, nil)
	if err := r.e.RemoveZone(t.Context(), testActor, "example.com", true); err != nil {
		t.Fatal(err)
	}
	crowd(t, r, first, 40) // late events of the zone that is gone
	add()
	crowd(t, r, r.zone().Zone, 40)
	ids, err := r.e.lives(t.Context(), "EXAMPLE.com")
	if err != nil || !slices.Equal(ids, []event.ZoneID{first, r.zone().Zone}) {
		t.Fatalf("lives %v, %v", ids, err)
	}
	walk := func(q HistoryQuery) (lines []HistoryLine) {
		n := r.e.newNarrator(false)
		if err := r.journal.Read(t.Context(), "", 1, 0, func(rec journal.Record) error {
			ref, ok := store.RefOf(rec)
			if !ok || !slices.Contains(ids, ref.Zone) {
				return nil
			}
			l := q.evident(rec, n.line(rec))
			if q.matches(ref) && (q.Before == 0 || rec.Seq < q.Before) {
				lines = append(lines, l)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if q.Limit > 0 {
			lines = lines[max(0, len(lines)-q.Limit):]
		}
		return lines
	}
	all := walk(HistoryQuery{})
	var queries []HistoryQuery
	for _, limit := range []int{0, 1, 7, 30, 1000} {
		for _, before := range []uint64{0, 1, all[5].Seq, all[len(all)/2].Seq + 1} {
			for _, types := range [][]string{nil, {"instance.published"}, {"key.activated", "zone.added", "zone.removed"}, {"instance.fetched"}} {
				at := all[len(all)/3].Time // events do not stand in the order of their times
				for _, bounds := range [][2]time.Time{{}, {at}, {{}, at}, {longAgo, at}} {
					queries = append(queries, HistoryQuery{
						Limit: limit, Before: before, Types: types, Since: bounds[0], Until: bounds[1], Evidence: len(queries)%4 == 0,
					})
				}
			}
		}
	}
	for _, q := range queries {
		var got []HistoryLine
		if err := r.e.History(t.Context(), "example.com", q, func(l HistoryLine) error { got = append(got, l); return nil }); err != nil {
			t.Fatal(err)
		}
		want := walk(q)
		if diff := cmp.Diff(want, got); diff != "" && len(want)+len(got) > 0 {
			t.Fatalf("%+v: (-journal +history)\n%s", q, diff)
		}
	}
	if _, err := r.e.lives(t.Context(), "never.example"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a zone that never was: %v", err)
	}
}

// Events that are not folded yet are told as well.
func TestPast_IsTheSameHoweverMuchIsFolded(t *testing.T) {
	r := newRig(t, journaltest.New(), nil)
	r.add(smallZone)
	id := r.zone().Zone
	crowd(t, r, id, 30)
	filters := []store.EventFilter{
		{UpTo: math.MaxUint64, Newest: true, Max: 7},
		{UpTo: math.MaxUint64, Newest: true, Max: 1000},
		{From: 3, UpTo: 40, Max: 9},
		{UpTo: math.MaxUint64, Keys: true, Max: 5},
		{UpTo: 60, Newest: true, Max: 12, Match: func(r store.EventRef) bool { return r.Seq%2 == 0 }},
	}
	_, last, err := r.journal.Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	whole, err := r.e.past(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range filters {
		want, err := whole.find(f)
		if err != nil || len(want) == 0 {
			t.Fatalf("filter %d: %d, %v", i, len(want), err)
		}
		for folded := range last {
			p, err := r.e.pastFrom(t.Context(), folded, id)
			if err != nil {
				t.Fatal(err)
			}
			got, err := p.find(f)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("filter %d, folded up to %d: %s", i, folded, diff)
			}
		}
	}
}

// Who follows what is folded is told of keys without a zone's past being read.
func TestTail_TellsOfKeysAsTheyAreFolded(t *testing.T) {
	j := &countedJournal{Journal: journaltest.New()}
	r := newRig(t, j, nil)
	r.add(smallZone)
	_, last, err := r.journal.Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	end := r.e.recent.follow()
	if _, err := r.e.AbortRollover(t.Context(), testActor, "example.com", 0, "no parent"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.e.Roll(t.Context(), testActor, "example.com", RolloverRequest{Kind: keymgr.RollZSK}); err != nil {
		t.Fatal(err)
	}
	var want []HistoryLine
	if err := r.e.History(t.Context(), "example.com", HistoryQuery{}, func(l HistoryLine) error {
		if l.Seq > last && event.OfKeys(l.Type) {
			want = append(want, l)
		}
		return nil
	}); err != nil || len(want) < 3 {
		t.Fatalf("%d events about keys, %v", len(want), err)
	}
	tail := func() (got []HistoryLine, read int64) {
		before, stop := j.read.Load(), errors.New("enough")
		if err := r.e.Tail(t.Context(), "", last+1, false, func(l HistoryLine) error {
			if event.OfKeys(l.Type) {
				got = append(got, l)
			}
			if len(got) == len(want) {
				return stop
			}
			return nil
		}); !errors.Is(err, stop) {
			t.Fatal(err)
		}
		return got, j.read.Load() - before
	}
	got, read := tail()
	if diff := cmp.Diff(want, got); diff != "" || read != 0 {
		t.Errorf("%d events were read; -history +tail:\n%s", read, diff)
	}
	end()
	if got, read = tail(); cmp.Diff(want, got) != "" || read == 0 {
		t.Errorf("%d events were read of what nobody followed; -history +tail:\n%s", read, cmp.Diff(want, got))
	}
	if k := &r.e.recent; k.followers != 0 || k.before != nil {
		t.Errorf("kept for nobody: %d", len(k.before))
	}
}

func TestRecentKeys_HoldsTheNewest(t *testing.T) {
	var k recentKeys
	note := func(seq uint64) {
		k.note(journal.Record{Seq: seq, Event: event.Event{Type: "key.removed", Zone: "a"}}, keymgr.KeySet{Keys: make([]keymgr.Key, int(seq))})
	}
	note(1)
	defer k.follow()()
	for seq := uint64(2); seq < 2+2*maxRecent; seq++ {
		note(seq)
	}
	if len(k.before) != maxRecent {
		t.Errorf("%d are kept", len(k.before))
	}
	for seq, want := range map[uint64]bool{1: false, 2: false, 1 + maxRecent: false, 2 + maxRecent: true, 1 + 2*maxRecent: true} {
		if ks, ok := k.of(seq); ok != want || ok && len(ks.Keys) != int(seq) { //nolint:gosec // few
			t.Errorf("%d: %t, %d keys", seq, ok, len(ks.Keys))
		}
	}
}
