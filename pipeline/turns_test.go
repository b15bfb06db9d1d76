package pipeline

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/journal/journaltest"
)

// oneTurn lets one command of each queue be under way, and keeps those of a queue
// from it until release is called.
func (r *rig) oneTurn(queue string) (release func()) {
	r.t.Helper()
	q := &r.e.turns
	q.mu.Lock()
	q.most = 1
	q.mu.Unlock()
	held := make(chan struct{})
	if !q.add(r.e, queue, func(ctx context.Context) {
		select {
		case <-held:
		case <-ctx.Done():
		}
	}) {
		r.t.Fatal("no work is taken")
	}
	return func() { close(held) }
}

// A change of a zone that is served does not wait until very many new ones are
// loaded.
func TestTurns_AChangeGoesBeforeNewZones(t *testing.T) {
	r := newRig(t, journaltest.New(), nil)
	r.add(smallZone)
	release := r.oneTurn("load")
	const zones = 12
	for i := range zones {
		name := fmt.Sprintf("new%d.example", i)
		path := filepath.Join(r.dir, name)
		if err := os.WriteFile(path, []byte(smallZone), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := r.e.AddZone(t.Context(), testActor, NewZone{Name: name, Source: path}); err != nil {
			t.Fatal(err)
		}
	}
	waiting := func(n int) func() bool {
		return func() bool {
			r.e.turns.mu.Lock()
			defer r.e.turns.mu.Unlock()
			w := r.e.turns.by["load"]
			return len(w.waiting)+len(w.pressing) == n
		}
	}
	until(t, "all new zones wait", waiting(zones))
	if st, err := r.e.Zone(t.Context(), "new3.example"); err != nil || st.State != "new" || !strings.Contains(st.WaitsFor, "its turn") {
		t.Errorf("a zone that waits: %s, waits for %q, %v", st.State, st.WaitsFor, err)
	}
	r.zoneFile(smallZone + "more A 192.0.2.99\n")
	if err := r.e.Reload(t.Context(), testActor, "example.com", false); err != nil {
		t.Fatal(err)
	}
	until(t, "the change waits, too", waiting(zones+1))
	release()
	for i := range zones {
		if _, err := r.e.Await(t.Context(), fmt.Sprintf("new%d.example", i), nil); err != nil {
			t.Fatal(err)
		}
	}
	r.await()
	own := r.zone().Zone
	var order []event.ZoneID
	if err := r.journal.Read(t.Context(), "", 1, 0, func(rec journal.Record) error {
		if rec.Event.Type == "instance.loaded" {
			order = append(order, rec.Event.Zone)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if at := slices.Index(order[1:], own); at != 0 || len(order) != zones+2 {
		t.Errorf("the change was loaded after %d of %d new zones", at, len(order)-2)
	}
}

// New content does not wait for signatures over the old one that nobody has begun
// to make; those are not made then.
func TestTurns_WhatWaitsGivesWayToNewContent(t *testing.T) {
	r := newRig(t, journaltest.New(), nil)
	r.add(smallZone)
	release := r.oneTurn("sign")
	before, loads := r.count("instance.signed"), r.count("instance.loaded")
	if err := r.e.Resign(t.Context(), testActor, "example.com", false); err != nil {
		t.Fatal(err)
	}
	until(t, "it waits for its turn", func() bool { return strings.Contains(r.status().WaitsFor, "its turn") })
	if st := r.status(); st.State != "published" {
		t.Errorf("state %q while it waits", st.State)
	}
	r.zoneFile(smallZone + "more A 192.0.2.99\n")
	if err := r.e.Reload(t.Context(), testActor, "example.com", false); err != nil {
		t.Fatal(err)
	}
	until(t, "the new content is loaded", func() bool { return r.count("instance.loaded") == loads+1 })
	r.e.turns.mu.Lock()
	if w := r.e.turns.by["sign"]; len(w.pressing) != 1 || len(w.waiting) != 0 {
		t.Errorf("%d and %d places: the zone is to keep the one that it has", len(w.pressing), len(w.waiting))
	}
	r.e.turns.mu.Unlock()
	release()
	r.await()
	if !strings.Contains(r.dump(), "192.0.2.99") {
		t.Error("the new content is not published")
	}
	if n := r.count("instance.signed") - before; n != 1 {
		t.Errorf("%d instances were signed, want 1: %v", n, r.historyOf("instance.signed"))
	}
}

// What is signed and waits to be published is published before newer content comes
// in: else what it was made of would not be known any more.
func TestTurns_WhatIsToBePublishedHoldsContentBack(t *testing.T) {
	r := newRig(t, journaltest.New(), nil)
	r.add(smallZone)
	release := r.oneTurn("publish")
	r.zoneFile(smallZone + "more A 192.0.2.98\n")
	if err := r.e.Reload(t.Context(), testActor, "example.com", false); err != nil {
		t.Fatal(err)
	}
	until(t, "it waits to be published", func() bool {
		return r.count("instance.signed") == 2 && strings.Contains(r.status().WaitsFor, "its turn")
	})
	r.zoneFile(smallZone + "more A 192.0.2.99\n")
	if err := r.e.Reload(t.Context(), testActor, "example.com", false); err != nil {
		t.Fatal(err)
	}
	z, err := r.e.find("example.com")
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the newer content is there, or read and held back", func() bool {
		z.mu.Lock()
		held := z.lanes[ContentLane].runs() && z.progress.Stage == "load" && len(r.e.heavy) == 0
		z.mu.Unlock()
		return held || r.count("instance.loaded") == 3
	})
	release()
	r.await()
	var order []string
	for _, kind := range r.types() {
		if kind == "instance.loaded" || kind == "instance.published" {
			order = append(order, strings.TrimPrefix(kind, "instance."))
		}
	}
	if all := strings.Join(order, " "); all != "loaded published loaded published loaded published" {
		t.Errorf("order: %s", all)
	}
	if p := r.zone().Published; p.Loaded.Facts.Serial == 0 || !strings.Contains(r.dump(), "192.0.2.99") {
		t.Errorf("published: %+v", p.Loaded)
	}
}

// A signing whose turn comes while content is on its way in does not begin: it
// would be of the old content.
func TestTurns_ASigningWaitsForContentOnItsWay(t *testing.T) {
	r := newRig(t, journaltest.New(), nil)
	r.add(smallZone)
	release := r.oneTurn("sign")
	if err := r.e.Resign(t.Context(), testActor, "example.com", false); err != nil {
		t.Fatal(err)
	}
	until(t, "it waits for its turn", func() bool { return strings.Contains(r.status().WaitsFor, "its turn") })
	z, err := r.e.find("example.com")
	if err != nil {
		t.Fatal(err)
	}
	place := func(bringing bool) *turn {
		z.mu.Lock()
		defer z.mu.Unlock()
		z.bringing = bringing
		return z.lanes[SigningLane].turn
	}
	at := place(true)
	ended, cancel := context.WithCancel(t.Context())
	cancel() // it waits until then
	if c, begun := z.take(ended, SigningLane, at); begun || place(true) != at {
		t.Fatalf("%T began, or lost its place", c)
	}
	place(false)
	release()
	r.await()
	if n := r.count("instance.signed"); n != 2 {
		t.Errorf("%d instances were signed, want 2", n)
	}
}

// What is pressing goes first; what is not has its turn all the same.
func TestQueues_PressingGoesFirst(t *testing.T) {
	r := newRig(t, journaltest.New(), nil)
	q := queues{most: 1}
	release, began := make(chan struct{}), make(chan struct{})
	q.add(r.e, "", func(context.Context) { close(began); <-release })
	<-began
	var got []string
	done := make(chan struct{})
	const each = 8
	for i := range each {
		q.addRanked(r.e, "", false, func(context.Context) { got = append(got, "later") })
		q.addRanked(r.e, "", true, func(context.Context) { got = append(got, "first") })
		if i == each-1 {
			q.add(r.e, "", func(context.Context) { close(done) })
		}
	}
	close(release)
	<-done
	const want = "first first first later first first first later first first later later later later later later"
	if all := strings.Join(got, " "); all != want {
		t.Errorf("order:\n%s, want\n%s", all, want)
	}
}
