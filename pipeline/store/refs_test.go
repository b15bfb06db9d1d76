package store

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"sluice/journal"
	"sluice/journal/event"
)

func TestEvents_AreThoseOfTheZoneInOrder(t *testing.T) {
	s := openTest(t, vfs.NewMem(), Config{})
	defer s.Close()
	const a, b event.ZoneID = "00000000000000aa", "00000000000000ab"
	p := newSeeded(3)
	began := time.Unix(1_700_000_000, 123_000).UTC()
	all := map[event.ZoneID][]EventRef{}
	n := map[event.ZoneID]uint64{}
	for seq := uint64(1); seq <= 400; seq++ {
		facts := []event.Facts{
			&event.LoadFailed{}, &event.KeyRemoved{}, &event.RolloverStarted{}, &event.InstanceFetched{}, &event.ClockAccepted{},
			&event.ZoneAdded{Name: "example.", ID: a}, &event.CatalogChanged{ID: b},
		}[p.pick(7)]
		id := []event.ZoneID{a, b}[p.pick(2)]
		switch facts.(type) {
		case *event.ZoneAdded, *event.CatalogChanged, *event.ClockAccepted:
			id = event.Instance
		}
		n[id]++
		at := began.Add(time.Duration(p.pick(1000)) * time.Millisecond) // orders nothing
		rec := journal.Record{Seq: seq, Event: event.Event{Type: facts.EventType(), Zone: id, N: n[id], Time: at, Facts: facts}}
		if err := s.Skip(t.Context(), rec); err != nil {
			t.Fatal(err)
		}
		want := EventRef{Zone: id, Seq: seq, N: n[id], Time: at, Type: rec.Event.Type}
		switch facts.(type) {
		case *event.ZoneAdded:
			want.Zone, want.N = a, 0
		case *event.CatalogChanged:
			want.Zone, want.N = b, 0
		case *event.ClockAccepted:
			continue
		}
		all[want.Zone] = append(all[want.Zone], want)
	}
	for range 500 {
		f := EventFilter{From: uint64(p.pick(450)), UpTo: uint64(p.pick(450)), Keys: p.pick(3) == 0, Newest: p.pick(2) == 0, Max: p.pick(30)}
		if p.pick(3) == 0 {
			f.UpTo = math.MaxUint64
		}
		if p.pick(3) == 0 {
			word := []string{"load.failed", "zone.added", "key.removed"}[p.pick(3)]
			f.Match = func(r EventRef) bool { return r.Type == word }
		}
		id := []event.ZoneID{a, b, "00000000000000ff"}[p.pick(3)]
		f.Zones = []event.ZoneID{id}
		var want []EventRef
		for _, r := range all[id] {
			if f.Selects(r) {
				want = append(want, r)
			}
		}
		if f.Max > 0 && len(want) > f.Max {
			if f.Newest {
				want = want[len(want)-f.Max:]
			} else {
				want = want[:f.Max]
			}
		}
		got, err := s.Events(f)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" && len(want)+len(got) > 0 {
			t.Fatalf("%+v: %s", f, diff)
		}
	}
	both, err := s.Events(EventFilter{Zones: []event.ZoneID{b, a}, UpTo: math.MaxUint64})
	if err != nil || len(both) != len(all[a])+len(all[b]) {
		t.Fatalf("%d of both, %v", len(both), err)
	}
	for i := 1; i < len(both); i++ {
		if both[i].Seq <= both[i-1].Seq {
			t.Fatalf("event %d behind %d", both[i].Seq, both[i-1].Seq)
		}
	}
}

func TestLives_AreTheZonesOfAName(t *testing.T) {
	s := openTest(t, vfs.NewMem(), Config{})
	defer s.Close()
	for i, name := range []string{"example.", "a.example.", "example.", "example.org.", "example."} {
		f := &event.ZoneAdded{Name: name, ID: event.ZoneID(fmt.Sprintf("%016x", 9-i))}
		rec := journal.Record{Seq: uint64(i + 1), Event: event.Event{Type: f.EventType(), Zone: event.Instance, N: uint64(i + 1), Facts: f}}
		if err := s.Apply(t.Context(), rec, nil); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string][]event.ZoneID{
		"example.": {"0000000000000009", "0000000000000007", "0000000000000005"}, "a.example.": {"0000000000000008"},
		"example.org.": {"0000000000000006"}, "example": nil, "org.": nil,
	} {
		got, err := s.Lives(name)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}
