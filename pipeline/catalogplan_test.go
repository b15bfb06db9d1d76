package pipeline

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/signer/zone"
)

// readCatalog reads the catalog zone catalog.example from the lines of a zone
// file.
func readCatalog(t testing.TB, most uint64, lines ...string) ([]catalogEntry, error) {
	t.Helper()
	apex, err := zone.ParseName("catalog.example.")
	if err != nil {
		t.Fatal(err)
	}
	text := "$TTL 0\n@ IN SOA invalid. invalid. 1 3600 600 2147483646 0\n@ IN NS invalid.\n" + strings.Join(lines, "\n") + "\n"
	in, err := zone.Load(t.Context(), zone.LoadOptions{FS: fstest.MapFS{"z": {Data: []byte(text)}}, File: "z", Origin: apex, Spill: SpillDir(t.TempDir())})
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	r := newCatalogReader(apex, most)
	tee := &catalogTee{Iterator: in.Items, reader: r}
	for tee.Next() {
	}
	if err := tee.Err(); err != nil {
		return nil, err
	}
	return r.finish()
}

func TestRFC9432_4_MembersAndTheirProperties(t *testing.T) {
	got, err := readCatalog(t, 10,
		`version TXT "2"`,
		"M1.zones PTR One.Example.",
		"group.m1.zones TXT nodnssec",
		"group.m1.zones TXT operator-y nsec3",
		"m2.zones PTR two.example.",
		"coo.m2.zones PTR Other.example.",
		`group.m3.zones TXT "of no member"`,
		`a\.b.zones PTR three.example.`,
		"other.m2.zones TXT ignored",
		"x.ext A 192.0.2.1",
		"zones PTR ignored.example.",
		"deep.x.m2.zones PTR ignored.example.",
	)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(got, func(a, b catalogEntry) int { return strings.Compare(a.Name, b.Name) })
	want := []catalogEntry{
		{Label: "m1", Name: "one.example.", Groups: []string{"nodnssec", "operator-y nsec3"}},
		{Label: `a\.b`, Name: "three.example."},
		{Label: "m2", Name: "two.example.", Owner: "other.example."},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// "If there is a clash or the catalog zone is broken, it MUST NOT be processed."
func TestRFC9432_5_1_BrokenCatalogs(t *testing.T) {
	groups := make([]string, maxMemberGroups+1)
	for i := range groups {
		groups[i] = fmt.Sprintf("group.m1.zones TXT g%d", i)
	}
	for name, lines := range map[string][]string{
		"no version":                       {"m1.zones PTR one.example."},
		"another version":                  {`version TXT "1"`},
		"version in two strings":           {`version TXT "2" "x"`},
		"two versions":                     {`version TXT "2"`, `version TXT "3"`},
		"two PTR records of a member":      {`version TXT "2"`, "m1.zones PTR one.example.", "m1.zones PTR two.example."},
		"one member under two labels":      {`version TXT "2"`, "m1.zones PTR one.example.", "m2.zones PTR ONE.example."},
		"two new owners":                   {`version TXT "2"`, "m1.zones PTR one.example.", "coo.m1.zones PTR a.example.", "coo.m1.zones PTR b.example."},
		"more members than max-members":    {`version TXT "2"`, "m1.zones PTR one.example.", "m2.zones PTR two.example.", "m3.zones PTR three.example."},
		"more groups than anybody can use": append([]string{`version TXT "2"`, "m1.zones PTR one.example."}, groups...),
	} {
		if got, err := readCatalog(t, 2, lines...); !errors.Is(err, errBrokenCatalog) {
			t.Errorf("%s: %v, %v, want a broken catalog", name, got, err)
		}
	}
	if _, err := readCatalog(t, 2, `version TXT "2"`); err != nil {
		t.Errorf("an empty catalog: %v", err)
	}
}

func FuzzReadCatalog(f *testing.F) {
	apex := zone.Name("\x07catalog\x07example\x00")
	value := func(rdata ...[]byte) []byte { return zone.AppendValue(nil, apex, 0, rdata...) }
	key := func(name string, t zone.Type) []byte {
		n, err := zone.ParseNameAt(name, apex)
		if err != nil {
			f.Fatal(err)
		}
		return zone.AppendKey(nil, zone.KindContents, n, t)
	}
	f.Add(key("version", zone.TypeTXT), value([]byte("\x012")), key("m.zones", typePTR), value([]byte("\x01a\x00")))
	f.Add(key("m.zones", typePTR), value([]byte("\x01a\x00")), key("group.m.zones", zone.TypeTXT), value([]byte("\x01a\x05b")))
	f.Add(key("m.zones", typePTR), value([]byte("\x01a")), key("coo.m.zones", typePTR), value([]byte("\x00")))
	f.Fuzz(func(t *testing.T, key1, value1, key2, value2 []byte) {
		r := newCatalogReader(apex, 1)
		for _, item := range [][2][]byte{{key1, value1}, {key2, value2}} {
			if len(item[1]) < 7 || zone.Value(item[1]).Check() != nil {
				return // the store holds no such item
			}
			if err := r.add(item[0], item[1]); err != nil {
				return
			}
		}
		entries, err := r.finish()
		if err == nil && len(entries) > 1 {
			t.Errorf("%d members, where 1 may be", len(entries))
		}
		for _, e := range entries {
			if len(e.Groups) > maxMemberGroups {
				t.Errorf("%d groups", len(e.Groups))
			}
		}
	})
}

// catalogWorld is a catalog and the zones here, as plans change them.
type catalogWorld struct {
	in    catalogInput
	zones map[string]*State
	seq   uint64
	now   time.Time
}

func (w *catalogWorld) plan() catalogPlan {
	in := w.in
	in.Now = w.now
	in.Members = nil
	for _, name := range slices.Sorted(maps.Keys(w.zones)) {
		if s := w.zones[name]; s.Member != nil && s.Member.CatalogID == in.ID {
			in.Members = append(in.Members, catalogMemberOf(*s))
		}
	}
	in.Other = func(name string) (otherZone, bool) {
		s := w.zones[name]
		if s == nil {
			return otherZone{}, false
		}
		if s.Member == nil {
			return otherZone{}, true
		}
		return otherZone{Catalog: s.Member.Catalog}, true
	}
	return planCatalog(in)
}

func (w *catalogWorld) record(f event.Facts) journal.Record {
	w.seq++
	return journal.Record{Seq: w.seq, Event: event.Event{Type: f.EventType(), Time: w.now, Facts: f}}
}

func (w *catalogWorld) fold(name string, f event.Facts) {
	s, ok := evolveCatalog(*w.zones[name], w.record(f))
	if !ok {
		panic(f.EventType())
	}
	w.zones[name] = &s
}

// do carries out at most so much of a plan, as the engine does. It reports
// whether there was something.
func (w *catalogWorld) do(p catalogPlan, most int) (did bool) {
	for _, m := range p.Unlist[:min(len(p.Unlist), most)] {
		w.fold(m.Name, &event.MemberUnlisted{
			Catalog: w.in.Name, Serial: w.in.Serial, Due: w.now.Add(time.Duration(w.in.Settings.RemovalDelay) * time.Second).Unix(), Approved: w.in.Approved,
		})
		did = true
	}
	for _, m := range p.Change[:min(len(p.Change), most)] {
		w.fold(m.Name, &event.MemberListed{Membership: m.Membership, Reset: m.Reset})
		did = true
	}
	for _, m := range p.Remove[:min(len(p.Remove), most)] {
		delete(w.zones, m.Name)
		did = true
	}
	for _, m := range p.Add[:min(len(p.Add), most)] {
		w.seq++
		s := NewState(Registered{Seq: w.seq, Time: w.now, Facts: event.ZoneAdded{Name: m.Name, Source: m.Source, Policy: m.Policy, Member: &m.Membership}})
		w.zones[m.Name] = &s
		did = true
	}
	return did
}

// Whatever versions a catalog has, and wherever the work on one stops: once there
// is nothing left to do, the members are those that it lists but for the zones
// that are here on their own, what it lists no more is announced or held, and
// nothing was removed before its time.
func TestPlanCatalog_MembersFollowAnyVersions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		settings := event.CatalogSettings{
			Policy: "default", Groups: []event.CatalogGroup{{Group: "g", Policy: "dense"}}, MaxMembers: 100,
			MaxRemovals: uint64(rapid.IntRange(0, 4).Draw(t, "max removals")), RemovalDelay: 3600,
		}
		w := &catalogWorld{
			in:    catalogInput{Name: "catalog.example.", ID: "c1", Settings: settings, Source: "192.0.2.1:53"},
			zones: map[string]*State{"z0.example.": {Name: "z0.example."}}, now: time.Unix(1_700_000_000, 0).UTC(),
		}
		names := make([]string, 12)
		for i := range names {
			names[i] = fmt.Sprintf("z%d.example.", i)
		}
		for range rapid.IntRange(1, 8).Draw(t, "versions") {
			w.now = w.now.Add(time.Duration(rapid.IntRange(0, 3*24*60).Draw(t, "minutes")) * time.Minute)
			w.in.Loaded, w.in.Serial, w.in.Approved, w.in.Entries = w.in.Loaded+1, w.in.Serial+1, rapid.Bool().Draw(t, "approved"), nil
			listed := map[string]catalogEntry{}
			for _, name := range rapid.SliceOfDistinct(rapid.SampledFrom(names), rapid.ID[string]).Draw(t, "members") {
				e := catalogEntry{Name: name, Label: "l" + fmt.Sprint(rapid.IntRange(0, 1).Draw(t, "label"))}
				if rapid.Bool().Draw(t, "in a group") {
					e.Groups = []string{"g"}
				}
				listed[name] = e
				w.in.Entries = append(w.in.Entries, e)
			}
			before := map[string]*State{}
			maps.Copy(before, w.zones)
			for range rapid.IntRange(0, 2).Draw(t, "rounds before it stops") {
				w.do(w.plan(), 1)
			}
			var p catalogPlan
			for rounds := 0; ; rounds++ {
				if p = w.plan(); !w.do(p, 3) {
					break
				}
				if rounds > 100 {
					t.Fatal("the work does not end")
				}
			}
			w.check(t, p, listed, before)
		}
	})
}

func (w *catalogWorld) check(t *rapid.T, p catalogPlan, listed map[string]catalogEntry, before map[string]*State) {
	for name, e := range listed {
		s := w.zones[name]
		switch {
		case s == nil:
			t.Fatalf("%s is listed and not here", name)
		case name == "z0.example.":
			if s.Member != nil {
				t.Fatalf("%s was taken over", name)
			}
		case s.Member.Unlisted != nil || s.Member.Label != e.Label || (s.Member.Policy == "dense") != (len(e.Groups) > 0):
			t.Fatalf("%s is not as it is listed: %+v", name, s.Member)
		}
	}
	if _, ok := listed["z0.example."]; ok != (len(p.Conflicts) == 1) {
		t.Fatalf("conflicts: %v", p.Conflicts)
	}
	if w.zones["z0.example."] == nil {
		t.Fatal("a zone on its own was removed")
	}
	for name, s := range w.zones {
		if _, ok := listed[name]; !ok && s.Member != nil && s.Member.Unlisted == nil && p.Held == nil {
			t.Fatalf("%s is not listed, and neither announced nor held", name)
		}
	}
	if p.Held != nil && w.in.Approved {
		t.Fatal("what is approved is held")
	}
	for name, s := range before {
		if w.zones[name] == nil && (s.Member.Unlisted == nil || w.now.Before(s.Member.Unlisted.due())) {
			t.Fatalf("%s was removed before its time: %+v", name, s.Member.Unlisted)
		}
	}
}

func member(name, label string) memberNow {
	m := event.Membership{Catalog: "c.", CatalogID: "c1", Label: label, Source: "192.0.2.1:53", Policy: "default"}
	return memberNow{Name: name, Member: Member{Membership: m}, Source: m.Source, Policy: m.Policy}
}

func TestPlanCatalog_TheBrakeHolds(t *testing.T) {
	now := time.Unix(1_700_000_000, 0).UTC()
	plan := func(here, listed int, change func(*catalogInput)) catalogPlan {
		in := catalogInput{
			Name: "c.", ID: "c1", Source: "192.0.2.1:53", Now: now, Loaded: 7, Serial: 3,
			Settings: event.CatalogSettings{Policy: "default", MaxMembers: 1000, MaxRemovals: 10, MaxRemovalsPercent: 10},
			Other:    func(string) (otherZone, bool) { return otherZone{}, false },
		}
		for i := range here {
			in.Members = append(in.Members, member(fmt.Sprintf("z%03d.", i), "l"))
		}
		for i := range listed {
			in.Entries = append(in.Entries, catalogEntry{Name: fmt.Sprintf("z%03d.", i), Label: "l"})
		}
		if change != nil {
			change(&in)
		}
		return planCatalog(in)
	}
	announced := func(n int, ago time.Duration, approved bool) func(*catalogInput) {
		return func(in *catalogInput) {
			for i := range n {
				m := &in.Members[len(in.Members)-1-i]
				m.Member.Unlisted = &Unlisted{Time: now.Add(-ago), Facts: event.MemberUnlisted{Due: now.Add(-time.Minute).Unix(), Approved: approved}}
			}
		}
	}
	for name, c := range map[string]struct {
		plan   catalogPlan
		unlist int
		remove int
		held   bool
	}{
		"ten of fifty may go":                      {plan(50, 40, nil), 10, 0, false},
		"eleven of fifty may not":                  {plan(50, 39, nil), 0, 0, true},
		"twenty of two hundred may go":             {plan(200, 180, nil), 20, 0, false},
		"twenty-one of two hundred may not":        {plan(200, 179, nil), 0, 0, true},
		"the last one may not":                     {plan(1, 0, nil), 0, 0, true},
		"all may, approved":                        {plan(200, 0, func(in *catalogInput) { in.Approved = true }), 200, 0, false},
		"all may, where the catalog ends":          {plan(200, 200, func(in *catalogInput) { in.Ending = true }), 200, 0, false},
		"six today and six more may not":           {plan(50, 38, announced(6, time.Hour, false)), 0, 0, true},
		"six approved today and six more may go":   {plan(50, 38, announced(6, time.Hour, true)), 6, 6, false},
		"six yesterday and six more may go":        {plan(50, 38, announced(6, 25*time.Hour, false)), 6, 6, false},
		"while something is held nothing goes":     {plan(50, 20, announced(6, 25*time.Hour, false)), 0, 0, true},
		"what is announced alone is removed":       {plan(50, 44, announced(6, time.Hour, false)), 0, 6, false},
		"an empty catalog lets announced ones go":  {plan(6, 0, announced(6, time.Hour, false)), 0, 6, false},
		"a catalog that lists all removes nothing": {plan(50, 50, nil), 0, 0, false},
	} {
		if p := c.plan; len(p.Unlist) != c.unlist || len(p.Remove) != c.remove || (p.Held != nil) != c.held {
			t.Errorf("%s: %d announced, %d removed, held %+v", name, len(p.Unlist), len(p.Remove), p.Held)
		}
	}
}

// "…the catalog consumer … MUST NOT … unless the coo property names the new
// catalog" (RFC 9432, 4.3.1).
func TestRFC9432_4_3_1_ChangeOfOwnership(t *testing.T) {
	for name, c := range map[string]struct {
		other    otherZone
		change   bool
		former   string
		conflict string
	}{
		"a zone on its own is never taken over":         {otherZone{}, false, "", "on its own"},
		"another catalog's stays with it":               {otherZone{Catalog: "old."}, false, "", "does not give it"},
		"one given to a third catalog stays":            {otherZone{Catalog: "old.", Owner: "third."}, false, "", "does not give it"},
		"one given to this catalog comes":               {otherZone{Catalog: "old.", Owner: "c."}, true, "old.", ""},
		"one that this catalog left behind comes again": {otherZone{Catalog: "c.", Former: true}, true, "", ""},
		"one that another left behind stays":            {otherZone{Catalog: "old.", Former: true}, false, "", "left by"},
	} {
		p := planCatalog(catalogInput{
			Name: "c.", ID: "c1", Source: "192.0.2.1:53", Settings: event.CatalogSettings{Policy: "default"},
			Entries: []catalogEntry{{Name: "z.", Label: "l"}}, Other: func(string) (otherZone, bool) { return c.other, true },
		})
		why := ""
		if len(p.Conflicts) == 1 {
			why = p.Conflicts[0].Why
		}
		if len(p.Add) != 0 || (len(p.Change) == 1) != c.change || c.change && p.Change[0].Former != c.former || !strings.Contains(why, c.conflict) || (why == "") != (c.conflict == "") {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

// A catalog is read where it, or what it asks for, may have changed: not each time
// that one of its members was published.
func TestCatalogs_AreNotReadForEachZoneThatIsPublished(t *testing.T) {
	c, now := newCatalogs(), time.Unix(1_800_000_000, 0)
	look := func(what string, want bool) {
		t.Helper()
		if got := c.takeFollow(now); got != want {
			t.Errorf("%s: looked at %t, want %t", what, got, want)
		}
	}
	look("after the start", true)
	c.changed()
	look("a zone was published", false)
	c.poke()
	look("a version of it was published", true)
	look("nothing happened", false)
	c.next = now.Add(time.Second)
	look("before a removal is due", false)
	c.next = now
	look("a removal is due", true)
}
