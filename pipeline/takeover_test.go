package pipeline

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/journal/event"
	"sluice/journal/journaltest"
	"sluice/keymgr"
	"sluice/pipeline/observe"
)

// exported writes the keys of a zone as another signer takes them.
func (w *rolling) exported(t *testing.T) (files []KeyFile) {
	t.Helper()
	dir := t.TempDir()
	for _, k := range w.status().Keys {
		f, err := w.e.ExportKey(t.Context(), testActor, "example.com", k.ID)
		if err != nil {
			t.Fatal(err)
		}
		for suffix, text := range map[string][]byte{".private": f.Private, ".key": f.Public, ".state": f.State} {
			if err := os.WriteFile(filepath.Join(dir, f.Name+suffix), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		files = append(files, KeyFile{Path: filepath.Join(dir, f.Name+".private"), Role: keymgr.Role(k.Role)})
	}
	return files
}

// successor is an engine to which the zone of another goes over: the world
// sees what the other published until it publishes itself.
func (w *rolling) successor(t *testing.T) *rolling {
	t.Helper()
	n := &rolling{h: w.h}
	n.rig = &rig{t: t, dir: t.TempDir(), journal: journaltest.New(), clock: w.h.clock()}
	n.rig.observe = (&outside{shows: func(q observe.Question) (z, p []keymgr.Seen) {
		if r, err := n.e.find("example.com"); err == nil && r.snapshot().Published != nil {
			return n.shows(q)
		}
		return w.shows(q)
	}}).observe
	p, err := Parse("default", []byte("version = \"v1\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	n.start(map[string]Policy{"default": p})
	return n
}

// stoodAs is the keys that are not removed and the rollovers of a zone, in a
// line.
func stoodAs(st ZoneStatus, wanted []string) string {
	var parts []string
	for _, k := range st.Keys {
		if k.State != keymgr.Removed {
			parts = append(parts, k.ID+" "+string(k.State))
		}
	}
	slices.Sort(parts)
	for _, r := range st.Rollovers {
		parts = append(parts, fmt.Sprintf("%s %v %v %s", r.Kind, r.Old, r.New, r.Name))
	}
	return strings.Join(append(parts, "ds "+strings.Join(wanted, " ")), ", ")
}

func (w *rolling) wanted() []string {
	w.t.Helper()
	r, err := w.e.find("example.com")
	if err != nil {
		w.t.Fatal(err)
	}
	return r.snapshot().Keys.DS.Wanted
}

// What one engine gives out, another takes over as it stood, whatever rollover
// it was in, and brings that to its end.
func TestEngine_ExportedKeysAreTakenOverAsTheyStood(t *testing.T) {
	for _, row := range []struct {
		kind keymgr.Kind
		step int
	}{{"", 0}, {keymgr.RollZSK, 1}, {keymgr.RollZSK, 2}, {keymgr.RollKSK, 1}, {keymgr.RollKSK, 2}, {keymgr.RollAlgorithm, 1}, {keymgr.RollAlgorithm, 2}, {keymgr.RollAlgorithm, 3}} {
		t.Run(fmt.Sprintf("%s %d", row.kind, row.step), func(t *testing.T) {
			w := newRolling(t, "")
			w.secure()
			// So long that all has got around.
			w.h.move(w.h.now().Add(10 * day))
			w.observes()
			st := w.settle()
			if row.kind != "" {
				q := RolloverRequest{Kind: row.kind}
				if row.kind == keymgr.RollAlgorithm {
					q.Algorithm = "ED25519"
				}
				w.rolls(q)
				st = w.runs("the step", func(st ZoneStatus) bool { return st.Rollovers[0].Step == row.step })
			}
			keys := w.exported(t)
			if got := w.historyOf("key.exported"); len(got) != len(keys) || !strings.HasPrefix(got[0], "private part given out: ") {
				t.Errorf("history %q", got)
			}
			n := w.successor(t)
			_, err := n.e.AddZone(t.Context(), testActor, NewZone{Name: "example.com", Source: n.zoneFile(smallZone), Import: keys})
			if err != nil {
				t.Fatal(err)
			}
			before := stoodAs(st, w.wanted())
			if after := n.await(); stoodAs(after, n.wanted()) != before || after.LastError != "" {
				t.Errorf("before %s\nafter  %s, error %q", before, stoodAs(after, n.wanted()), after.LastError)
			} else if *after.PublishedSerial <= *st.PublishedSerial {
				t.Errorf("serial %d after %d", *after.PublishedSerial, *st.PublishedSerial)
			}
			if got := n.historyOf("rollover.started"); strings.Contains(strings.Join(got, "\n"), "secure") {
				t.Errorf("the way to the first DS begins anew: %q", got)
			}
			n.verifies()
			n.runs("the end", func(st ZoneStatus) bool {
				n.verifies()
				return quiet(st)
			})
		})
	}
}

func TestEngine_TakeOverIsRefusedWhereTheParentTrustsAnotherKey(t *testing.T) {
	keys := bindKeys(t)
	r, o := newObserved(t, "")
	other := event.DS{Tag: 12345, Algorithm: 13, DigestType: keymgr.DigestSHA256, Digest: strings.Repeat("ab", 32)}
	o.show(func(observe.Question) (z, p []keymgr.Seen) {
		return []keymgr.Seen{{Server: "ns1.", Address: netip.MustParseAddrPort("192.0.2.1:53"), Serial: 4000000}}, parentHas(3600, 1, other)
	})
	z := NewZone{Name: "example.org", Source: r.zoneFile(strings.ReplaceAll(smallZone, "example.com", "example.org")), Import: keys}
	if _, err := r.e.AddZone(t.Context(), testActor, z); err == nil || !strings.Contains(err.Error(), "belongs to zone example.com.") {
		t.Errorf("keys of another zone: %v", err)
	}
	z.Name, z.Source = "example.com", r.zoneFile(smallZone)
	if err := r.e.RemoveZone(t.Context(), testActor, "example.com", true); err != nil {
		t.Fatal(err)
	}
	_, err := r.e.AddZone(t.Context(), testActor, z)
	if !errors.Is(err, ErrState) || !strings.Contains(err.Error(), "DS of tag 12345, and none of the keys matches it: import the KSK with that tag") {
		t.Fatalf("error %v", err)
	}
	plan, err := r.e.PlanTakeover(t.Context(), z)
	if err != nil || !strings.Contains(plan.Refused, "12345") || len(plan.Keys) != 2 || plan.Serial == nil || *plan.Serial != 4000000 ||
		!strings.Contains(plan.DS, "the parent has DS 12345") {
		t.Errorf("plan %+v, %v", plan, err)
	}
	if zones, err := r.e.Zones(t.Context()); err != nil || len(zones) != 0 {
		t.Errorf("zones %v, %v", zones, err)
	}
	if before, after := plannedTakeover(State{}, dayOne), plannedTakeover(State{Keys: keymgr.Evolve(keymgr.KeySet{}, event.Event{
		Facts: &event.KeyImported{Keys: []event.Key{{ID: "a", Role: "zsk", Tag: 7, Life: &event.KeyLife{State: "retired"}}}},
	})}, dayOne); len(before) != 0 || len(after) != 1 || !strings.HasSuffix(after[0].Text, "notes: ZSK 7 retired") {
		t.Errorf("planned %+v, %+v", before, after)
	}
	// The question is about the keys of the zone's servers, wherever they are.
	if q := o.questions(); !q[len(q)-1].Find || !q[len(q)-1].Tags {
		t.Errorf("asked %+v", q[len(q)-1])
	}
	z.Force = true
	if _, err = r.e.AddZone(t.Context(), testActor, z); err != nil {
		t.Fatal(err)
	}
	if st := r.await(); st.Published == nil || st.Published.Serial <= 4000000 || st.LastError != "" {
		t.Errorf("forced: %+v", st.ZoneSummary)
	}
}

func TestEngine_KSKAloneIsCompletedWhereNobodyTrustsTheZone(t *testing.T) {
	keys := bindKeys(t)
	zsk := slices.IndexFunc(keys, func(k KeyFile) bool { return k.Role == keymgr.ZSK })
	r, o := newObserved(t, "")
	if err := r.e.RemoveZone(t.Context(), testActor, "example.com", true); err != nil {
		t.Fatal(err)
	}
	o.show(func(observe.Question) (z, p []keymgr.Seen) {
		seen := keymgr.Seen{Server: "ns1.", Address: netip.MustParseAddrPort("192.0.2.1:53"), Serial: 5}
		return []keymgr.Seen{seen}, []keymgr.Seen{{Server: "parent", Error: "no answer"}}
	})
	if _, err := r.e.AddZone(t.Context(), testActor, NewZone{Name: "example.com", Source: r.zoneFile(smallZone), Import: slices.Delete(slices.Clone(keys), zsk, zsk+1)}); err != nil {
		t.Fatal(err)
	}
	if st := r.await(); st.Published == nil || len(st.Keys) != 2 {
		t.Errorf("a KSK alone, of a zone that nobody trusts, is completed: %+v", st.ZoneSummary)
	}
}

func TestEngine_KeyThatIsGoneIsNotExported(t *testing.T) {
	w := newRolling(t, "[key-manager]\nauto-remove-delay = \"5d\"\n")
	w.secure()
	w.rolls(RolloverRequest{Kind: keymgr.RollZSK})
	st := w.runs("the end", quiet)
	gone := inKeys(st.Keys, keymgr.Removed)
	if _, err := w.e.ExportKey(t.Context(), testActor, "example.com", "0011223344556677"); !errors.Is(err, ErrNotFound) {
		t.Errorf("no such key: %v", err)
	}
	if f, err := w.e.ExportKey(t.Context(), testActor, "example.com", gone.ID); err != nil || !strings.Contains(string(f.State), "DNSKEYState: unretentive") {
		t.Errorf("a removed key: %v\n%s", err, f.State)
	}
	w.h.move(w.h.now().Add(6 * day))
	w.settle()
	n := len(w.historyOf("key.exported"))
	if _, err := w.e.ExportKey(t.Context(), testActor, "example.com", gone.ID); !errors.Is(err, ErrState) || !strings.Contains(err.Error(), "was deleted at") {
		t.Errorf("a deleted key: %v", err)
	}
	if got := w.historyOf("key.exported"); len(got) != n {
		t.Errorf("history %q", got)
	}
}

func inKeys(keys []keymgr.Key, s keymgr.State) keymgr.Key {
	i := slices.IndexFunc(keys, func(k keymgr.Key) bool { return k.State == s })
	return keys[max(i, 0)]
}
