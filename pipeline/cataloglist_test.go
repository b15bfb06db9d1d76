package pipeline

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"sluice/journal/event"
	"sluice/journal/journaltest"
	"sluice/signer/zone"
)

// listRig is an engine that produces the catalog example.com of zones which are
// here by their states alone.
type listRig struct {
	*rig
	here []event.ZoneID
}

func newListRig(t *testing.T, listed string) *listRig {
	t.Helper()
	r := &listRig{rig: &rig{t: t, dir: t.TempDir(), journal: journaltest.New(), logger: slog.New(slog.DiscardHandler)}}
	policies := map[string]Policy{"default": Default(), "dense": reviewPolicy(t, ""), "thin": reviewPolicy(t, "")}
	p, err := Parse("listed", []byte("version = \"v1\"\n[signer]\nmode = \"unsigned\"\n"+listed))
	if err != nil {
		t.Fatal(err)
	}
	policies["listed"] = p
	r.start(policies)
	if _, err := r.e.AddCatalog(t.Context(), testActor, NewCatalog{Name: "example.com", Kind: event.CatalogProduced, Policy: "listed"}); err != nil {
		t.Fatal(err)
	}
	r.await()
	return r
}

// put gives a zone a state; the catalog is not told.
func (r *listRig) put(id event.ZoneID, policy string, published bool) {
	s := State{Zone: id, Name: string(id) + ".example.", Policy: BoundPolicy{Name: policy}}
	if published {
		s.Published = &Published{}
	}
	r.e.mu.Lock()
	run := r.e.runners[id]
	if run == nil {
		run = newRunner(r.e, s)
		r.e.runners[id] = run
		r.here = append(r.here, id)
	}
	r.e.mu.Unlock()
	run.mu.Lock()
	run.state = s
	run.mu.Unlock()
}

// end takes all of these zones away.
func (r *listRig) end() {
	r.e.mu.Lock()
	for _, id := range r.here {
		delete(r.e.runners, id)
	}
	r.e.mu.Unlock()
	r.here = nil
	r.e.catalogs.relisted()
}

// load has the list made, and waits for it.
func (r *listRig) load() State {
	r.t.Helper()
	run, err := r.e.find("example.com")
	if err != nil {
		r.t.Fatal(err)
	}
	run.askReload(false)
	if st := r.await(); st.LastError != "" {
		r.t.Fatal(st.LastError)
	}
	return run.snapshot()
}

// names are the zones that the newest version lists.
func (r *listRig) names(s State) (names []string) {
	r.t.Helper()
	c, _ := r.e.catalogOf(s.Zone)
	c.Settings.MaxMembers = 1 << 20
	s.Published = &Published{Loaded: *s.Loaded}
	entries, err := r.e.entriesOf(c, s)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name, ".example."))
	}
	slices.Sort(names)
	return names
}

// differs says what the version that is loaded does not have of the whole list.
func (r *listRig) differs(s State) string {
	r.t.Helper()
	apex, err := apexOf(s)
	if err != nil {
		r.t.Fatal(err)
	}
	c, _ := r.e.catalogOf(s.Zone)
	want, err := r.e.wholeList(r.t.Context(), apex, r.e.published(c), func(Progress) {})
	if err != nil {
		r.t.Fatal(err)
	}
	defer want.Close()
	got, err := r.e.store.LoadedItems(s.Zone, s.Loaded.Seq)
	if err != nil {
		r.t.Fatal(err)
	}
	defer got.Close()
	var b strings.Builder
	err = zone.DiffItems(got, want.Items, func(key, before, after []byte) error {
		fmt.Fprintf(&b, "%q: %q, want %q\n", key, before, after)
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	f := s.Loaded.Facts
	if f.ContentDigest != want.ContentState.Sum() || f.RRsets != want.RRsets || f.Records != want.Records || f.Serial != uint32(want.Serial) {
		fmt.Fprintf(&b, "digest %v, %d RRsets, %d records, serial %d; want %v, %d, %d, %d\n", f.ContentDigest, f.RRsets, f.Records, f.Serial,
			event.Hash(want.ContentState.Sum()), want.RRsets, want.Records, want.Serial)
	}
	return b.String()
}

// However zones come, go and change, the list that is made of what has moved is
// that of all zones.
func TestCatalogList_IncrementalEqualsFull(t *testing.T) {
	t.Parallel()
	r := newListRig(t, "")
	policies := []string{"default", "dense", "thin"}
	group := rapid.SampledFrom([]string{"n3", `n"3\`, "\x00\xff", strings.Repeat("g", maxGroupLength)})
	rapid.Check(t, func(rt *rapid.T) {
		r.end()
		settings := func() {
			ch := CatalogChange{Policies: new(rapid.SampledFrom([][]string{{}, {"dense"}, policies}).Draw(rt, "policies")), Groups: new([]event.CatalogGroup{})}
			for _, p := range rapid.SliceOfNDistinct(rapid.SampledFrom(policies), 0, 2, rapid.ID).Draw(rt, "grouped") {
				*ch.Groups = append(*ch.Groups, event.CatalogGroup{Group: group.Draw(rt, "group"), Policy: p})
			}
			if _, err := r.e.SetCatalog(t.Context(), testActor, "example.com", ch); err != nil {
				rt.Fatal(err)
			}
		}
		settings()
		r.load()
		for range rapid.IntRange(1, 5).Draw(rt, "versions") {
			for range rapid.IntRange(0, 6).Draw(rt, "changes") {
				id := event.ZoneID(rapid.SampledFrom([]string{"a", "b", "c.d", `e\.f`, `\000`}).Draw(rt, "zone"))
				r.put(id, rapid.SampledFrom(policies).Draw(rt, "policy"), rapid.Bool().Draw(rt, "published"))
				r.e.catalogs.moved(id)
			}
			if rapid.IntRange(0, 9).Draw(rt, "other settings") == 0 {
				settings()
			}
			if diff := r.differs(r.load()); diff != "" {
				rt.Fatal(diff)
			}
		}
	})
}

func TestCatalogList_AChangeLooksAtWhatHasMovedAlone(t *testing.T) {
	t.Parallel()
	r := newListRig(t, "")
	first := r.load().Loaded.Seq
	r.put("a", "default", true)
	r.put("unseen", "default", true)
	r.e.catalogs.moved("a")
	s := r.load()
	if diff := cmp.Diff([]string{"a"}, r.names(s)); diff != "" || s.Loaded.Facts.Base != first || s.Loaded.Facts.Added != 1 {
		t.Errorf("more was looked at than has moved: %s%+v", diff, s.Loaded.Facts)
	}
	// What moved without a change is no version.
	r.e.catalogs.moved("a")
	if now := r.load().Loaded.Seq; now != s.Loaded.Seq {
		t.Errorf("l%d became l%d", s.Loaded.Seq, now)
	}
	// More than is looked at one by one is all of it.
	for i := range mostMoved {
		r.e.catalogs.moved(event.ZoneID(fmt.Sprint("gone", i)))
	}
	s = r.load()
	if diff := cmp.Diff([]string{"a"}, r.names(s)); diff != "" {
		t.Error(diff)
	}
	r.e.catalogs.moved("b")
	for i := range mostMoved {
		r.e.catalogs.moved(event.ZoneID(fmt.Sprint("gone", i)))
	}
	s = r.load()
	if diff := cmp.Diff([]string{"a", "unseen"}, r.names(s)); diff != "" {
		t.Error(diff)
	}
}

// A version that a review drops is no base of the next one, which lists what moved
// in it, too.
func TestCatalogList_WhatADroppedVersionListedIsListedByTheNext(t *testing.T) {
	t.Parallel()
	r := newListRig(t, "[loader.review]\nmode = \"manual\"\n")
	r.approve(event.StageLoaded)
	first := r.load().Loaded.Seq
	r.put("a", "default", true)
	r.e.catalogs.moved("a")
	r.load()
	r.reject(event.StageLoaded)
	r.put("b", "default", true)
	r.e.catalogs.moved("b")
	s := r.load()
	if diff := cmp.Diff([]string{"a", "b"}, r.names(s)); diff != "" || s.Loaded.Facts.Base != first {
		t.Errorf("%s%+v", diff, s.Loaded.Facts)
	}
}

// What moves while a list is made is in the next one.
func TestCatalogList_WhatMovesWhileItIsMadeIsNotLost(t *testing.T) {
	t.Parallel()
	r := newListRig(t, "")
	ids := make([]event.ZoneID, 300)
	for i := range ids {
		ids[i] = event.ZoneID(fmt.Sprint("z", i))
		r.put(ids[i], "default", i%2 == 0)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for round := range 10 {
			for i, id := range ids {
				r.put(id, "default", (i+round)%3 != 0)
				r.e.catalogs.moved(id)
			}
		}
	}()
	for moving := true; moving; {
		select {
		case <-done:
			moving = false
		default:
		}
		r.load()
	}
	if diff := r.differs(r.load()); diff != "" {
		t.Error(diff)
	}
}
