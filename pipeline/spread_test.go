package pipeline

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/signer/zone"
)

// countServed counts the RRsets that are served by the keys whose signatures
// they have, reading all of them.
func (w *rolling) countServed() []event.SignedBy {
	w.t.Helper()
	name, err := zone.ParseName("example.com")
	if err != nil {
		w.t.Fatal(err)
	}
	v, err := w.e.Source().View(name)
	if err != nil {
		w.t.Fatal(err)
	}
	defer v.Close()
	it, err := v.Items()
	if err != nil {
		w.t.Fatal(err)
	}
	defer it.Close()
	ids := map[sigName]string{}
	for _, k := range w.await().Keys {
		ids[sigName{k.Algorithm, k.Tag}] = k.ID
	}
	counts := map[string]uint64{}
	apex := zone.AppendOwnerKey(nil, name)
	for it.Next() {
		kind, owner, t, err := zone.SplitKey(it.Key())
		if err != nil {
			w.t.Fatal(err)
		}
		keys := t == zone.TypeDNSKEY || t == zone.TypeCDS || t == zone.TypeCDNSKEY
		if kind != zone.KindSigs && kind != zone.KindChainSigs || keys && string(owner) == string(apex) {
			continue
		}
		var by []string
		for d := range zone.Value(it.Value()).Records() {
			by = append(by, ids[sigName{d[2], binary.BigEndian.Uint16(d[16:])}])
		}
		slices.Sort(by)
		counts[strings.Join(by, " ")]++
	}
	var out []event.SignedBy
	for by, n := range counts {
		out = append(out, event.SignedBy{Keys: strings.Fields(by), RRsets: n})
	}
	slices.SortFunc(out, func(a, b event.SignedBy) int {
		return strings.Compare(strings.Join(a.Keys, " "), strings.Join(b.Keys, " "))
	})
	return out
}

// facts is the published instance's.
func (w *rolling) facts() event.InstanceSigned {
	w.t.Helper()
	r, err := w.e.find("example.com")
	if err != nil {
		w.t.Fatal(err)
	}
	return r.snapshot().Published.Signed.Facts
}

// newWide is a zone of so many names that its parent has a DS of.
func newWide(t *testing.T, policy string, names int) *rolling {
	t.Helper()
	w := newRolling(t, "[key-manager]\npropagation-margin = \"1h\"\nobservation-interval = \"6h\"\n"+policy)
	w.secure()
	w.reload(wideZone(1_000_000, names, "text"))
	w.settle()
	return w
}

// exchanged is what happened while signatures were exchanged.
type exchanged struct {
	made, largest, versions int
	began, ended            time.Time
}

// next moves the clock to the next thing to do.
func (w *rolling) next() ZoneStatus {
	w.t.Helper()
	st := w.settle()
	at := w.h.now().Add(6 * time.Hour)
	if st.NextAt != nil && st.NextAt.Before(at) {
		at = *st.NextAt
	}
	if o := st.Observation; o != nil && o.NextAt != nil && o.NextAt.Before(at) {
		at = *o.NextAt
	}
	w.h.move(at)
	return w.settle()
}

// follow goes on until a condition holds, and checks each version: it
// verifies, its signatures are counted rightly, and the old key is published as
// long as it has some.
func (w *rolling) follow(what string, met func(ZoneStatus) bool) (e exchanged) {
	w.t.Helper()
	st := w.settle()
	last := ""
	for range 3000 {
		if f := w.facts(); st.Published.Instance != last {
			if f.Exchange != nil || !e.began.IsZero() && e.ended.IsZero() {
				if e.began.IsZero() {
					e.began = w.h.now()
				}
				if f.Exchange == nil {
					e.ended = w.h.now()
				}
				e.made, e.versions, e.largest = e.made+int(f.Made), e.versions+1, max(e.largest, int(f.Made))
			}
			w.verifies()
			if d := cmp.Diff(w.countServed(), f.SignedBy); d != "" {
				w.t.Fatalf("signatures by key (-served +event):\n%s", d)
			}
			if first := slices.MinFunc(w.expirations(), time.Time.Compare); first.Before(time.Unix(f.Earliest, 0)) {
				w.t.Fatalf("a signature expires at %s, the event says that none does before %s", first, time.Unix(f.Earliest, 0))
			} else if left := first.Sub(w.h.now()); left < Default().RemainTime()/2 {
				w.t.Fatalf("a signature has %s left", left)
			}
			for _, by := range f.SignedBy {
				for _, id := range by.Keys {
					if !slices.Contains(f.Keys, id) && !slices.Contains(f.Signers, id) {
						w.t.Fatalf("%d RRsets have signatures by key %s, which is not published", by.RRsets, id)
					}
				}
			}
			last = st.Published.Instance
		}
		if met(st) {
			return e
		}
		st = w.next()
	}
	w.t.Fatalf("%s does not come: %+v", what, st.Rollovers)
	return e
}

func TestSpread_AZSKRolloverMakesNoBurstAndWaitsForTheLastSignature(t *testing.T) {
	names := 600
	if os.Getenv("SLUICE_LONG") != "" {
		names = 30_000
	}
	w := newWide(t, "[key-manager.zsk]\nvalidity = \"forever\"\n", names)
	w.rolls(RolloverRequest{Kind: keymgr.RollZSK})
	old := w.settle().Rollovers[0].Old[0]
	held := 0
	e := w.follow("the end of the rollover", func(st ZoneStatus) bool {
		for _, ro := range st.Rollovers {
			if left := w.facts().Exchange; left != nil {
				held++
				if ro.Name != "sign" || ro.Phase != keymgr.PhasePublish || !strings.Contains(ro.Text, "signatures are replaced until") {
					t.Fatalf("with signatures left: %+v", ro)
				}
			}
			if ro.Wait != nil && ro.Name == "sign" && ro.Seen.Before(w.servedKeys().At) {
				t.Fatalf("the wait counts from %s, the last signature was published at %s", ro.Seen, w.servedKeys().At)
			}
		}
		return quiet(st)
	})
	total := int(w.facts().Signatures)
	if held == 0 || e.versions < 10 {
		t.Fatalf("%d versions, held %d times: nothing was spread", e.versions, held)
	}
	noBurst(t, e)
	if e.made < total*9/10 || e.made > total*13/10 {
		t.Errorf("%d signatures made to exchange %d", e.made, total)
	}
	if took := e.ended.Sub(e.began); took > Default().keyRollTime() || took < Default().keyRollTime()*3/4 {
		t.Errorf("it took %s of %s", took, Default().keyRollTime())
	}
	if by := w.facts().SignedBy; len(by) != 1 || slices.Contains(by[0].Keys, old) {
		t.Errorf("in the end %+v", by)
	}
	replayAll(t, w.rig)
	hash := w.liveHash()
	w.stop()
	if err := os.RemoveAll(filepath.Join(w.dir, "projections")); err != nil {
		t.Fatal(err)
	}
	w.start(nil)
	if w.liveHash() != hash {
		t.Error("the rebuilt projection differs")
	}
}

// served is whose signatures are published, and since when.
func (w *rolling) servedKeys() keymgr.Served {
	w.t.Helper()
	r, err := w.e.find("example.com")
	if err != nil {
		w.t.Fatal(err)
	}
	return r.snapshot().Served
}

func noBurst(t *testing.T, e exchanged) {
	t.Helper()
	if mean := float64(e.made) / float64(e.versions); e.versions < 3 || float64(e.largest) > 2*mean {
		t.Errorf("a burst of %d signatures, %d versions have %.0f in the mean", e.largest, e.versions, mean)
	}
}

const inTwoDays = "[signer]\nkey-roll-time = \"2d\"\n"

// Whatever the method, signatures are exchanged in slices, and no step begins
// before the last of them.
func TestSpread_EachMethodMakesNoBurst(t *testing.T) {
	for _, row := range []struct {
		q      RolloverRequest
		step   string // the one that waits for the signatures
		active string
	}{
		{q: RolloverRequest{Kind: keymgr.RollZSK}, step: "sign", active: "[ksk/13 zsk/13]"},
		{q: RolloverRequest{Kind: keymgr.RollZSK, Method: keymgr.DoubleSignature}, step: "double", active: "[ksk/13 zsk/13]"},
		{q: RolloverRequest{Kind: keymgr.RollCSK}, step: "double", active: "[csk/13]"},
		{q: RolloverRequest{Kind: keymgr.RollAlgorithm, Algorithm: "ED25519"}, step: "introduce", active: "[csk/15]"},
	} {
		t.Run(string(row.q.Kind)+" "+string(row.q.Method), func(t *testing.T) {
			policy := inTwoDays
			if row.active[1] == 'c' {
				policy = "[key-manager.generation]\nuse-csk = true\n[key-manager.csk]\nauto-start = false\n" + policy
			}
			w := newWide(t, policy, 320)
			w.rolls(row.q)
			held := false
			e := w.follow("the end of the rollover", func(st ZoneStatus) bool {
				if w.facts().Exchange != nil {
					held = true
					if ro := st.Rollovers[0]; ro.Name != row.step || ro.Phase != keymgr.PhasePublish {
						t.Fatalf("with signatures left: %+v", ro)
					}
				}
				return quiet(st)
			})
			if !held {
				t.Fatal("nothing was spread")
			}
			noBurst(t, e)
			if took := e.ended.Sub(e.began); took > 2*day || took < day {
				t.Errorf("it took %s of two days", took)
			}
			if got := fmt.Sprint(inState(w.settle().Keys, keymgr.Active)); got != row.active {
				t.Errorf("active %s", got)
			}
			if by := w.facts().SignedBy; len(by) != 1 {
				t.Errorf("in the end %+v", by)
			}
			replayAll(t, w.rig)
		})
	}
}

// spreading begins a rollover and goes on until some slices were done.
func (w *rolling) spreading(slices int) event.Exchange {
	w.t.Helper()
	w.rolls(RolloverRequest{Kind: keymgr.RollZSK})
	w.follow("the slices", func(ZoneStatus) bool {
		if w.facts().Exchange != nil {
			slices--
		}
		return slices < 0
	})
	return *w.facts().Exchange
}

func TestSpread_AKSKIsExchangedBesideIt(t *testing.T) {
	w := newWide(t, "", 400)
	w.spreading(2)
	w.rolls(RolloverRequest{Kind: keymgr.RollKSK})
	most := 0
	w.follow("the KSK", func(st ZoneStatus) bool {
		if most = max(most, int(st.Published.Made)); w.facts().Exchange == nil {
			t.Fatal("the signatures are exchanged before the KSK")
		}
		return len(st.Rollovers) == 1
	})
	if total := int(w.facts().Signatures); most > total/8 {
		t.Errorf("%d of %d signatures made at once", most, total)
	}
}

func TestSpread_ChangesAreSignedByTheNewKeyAlone(t *testing.T) {
	w := newWide(t, inTwoDays, 320)
	w.spreading(1)
	old := w.settle().Rollovers[0].Old[0]
	for serial := 1_000_001; serial < 1_000_006; serial++ {
		before := w.facts()
		w.reload(strings.Replace(wideZone(serial, 320, "text"), "n5 IN A 192.0.2.5", fmt.Sprintf("n5 IN A 192.0.2.5\nn%d-new IN A 192.0.2.1", serial), 1))
		w.settle()
		f := w.facts()
		if d := cmp.Diff(w.countServed(), f.SignedBy); d != "" {
			t.Fatalf("signatures by key (-served +event):\n%s", d)
		}
		left := func(f event.InstanceSigned) (n uint64) {
			for _, by := range f.SignedBy {
				if slices.Contains(by.Keys, old) {
					n += by.RRsets
				}
			}
			return n
		}
		if before.Exchange != nil && left(f) > left(before) {
			t.Errorf("serial %d: %d RRsets signed by the old key, before %d", serial, left(f), left(before))
		}
		w.verifies()
		w.next()
	}
	// What is left is found again after a rebuild.
	w.stop()
	if err := os.RemoveAll(filepath.Join(w.dir, "projections")); err != nil {
		t.Fatal(err)
	}
	w.start(nil)
	w.follow("the end", quiet)
	if by := w.facts().SignedBy; len(by) != 1 || slices.Contains(by[0].Keys, old) {
		t.Errorf("in the end %+v", by)
	}
}

func TestSpread_AnAbortedRolloverExchangesThemBack(t *testing.T) {
	w := newWide(t, inTwoDays, 320)
	w.spreading(2)
	ro := w.settle().Rollovers[0]
	if _, err := w.e.AbortRollover(t.Context(), testActor, "example.com", 0, "tried"); err != nil {
		t.Fatal(err)
	}
	w.follow("the end", quiet)
	if by := w.facts().SignedBy; len(by) != 1 || by[0].Keys[0] != ro.Old[0] {
		t.Errorf("in the end %+v, the old key was %s", by, ro.Old[0])
	}
}

func TestSpread_FullSigningAndEmergenciesDoAllAtOnce(t *testing.T) {
	w := newWide(t, inTwoDays, 320)
	w.spreading(2)
	if err := w.e.Resign(t.Context(), testActor, "example.com", true); err != nil {
		t.Fatal(err)
	}
	st := w.settle()
	if f := w.facts(); f.Exchange != nil || len(f.SignedBy) != 1 || st.Published.Made != st.Published.Signatures {
		t.Errorf("after full signing: %+v, %+v", f.Exchange, f.SignedBy)
	}
	w.follow("the end", quiet)
	w.rolls(RolloverRequest{Kind: keymgr.RollZSK, Emergency: true})
	e := w.follow("the end", quiet)
	if e.versions > 0 {
		t.Errorf("an emergency is spread over %d versions", e.versions)
	}
}

func TestSpread_AfterAStandstillSliceFollowsSlice(t *testing.T) {
	w := newWide(t, inTwoDays, 600)
	sp := w.spreading(1)
	w.stop()
	w.h.move(time.Unix(sp.Until, 0).Add(time.Hour))
	w.start(nil)
	e := w.follow("the end", func(ZoneStatus) bool { return w.facts().Exchange == nil })
	if total := int(w.facts().Signatures); e.largest > total/3 {
		t.Errorf("%d of %d signatures made at once", e.largest, total)
	}
}

// A version of its own would leave the source's serial: what the source brings
// takes the slices along, and only what is left at the end goes by itself.
func TestSpread_UnderKeepSlicesComeWithTheSource(t *testing.T) {
	w := newWide(t, "[signer]\nserial-policy = \"keep\"\nkey-roll-time = \"2d\"\n", 320)
	w.rolls(RolloverRequest{Kind: keymgr.RollZSK})
	w.follow("the exchange", func(ZoneStatus) bool { return w.facts().Exchange != nil })
	sp := *w.facts().Exchange
	instance := w.settle().Published.Instance
	w.h.move(time.Unix(sp.Since, 0).Add(day))
	if st := w.settle(); st.Published.Instance != instance {
		t.Error("a slice went by itself")
	}
	left := w.servedKeys().Left
	w.reload(wideZone(1_000_100, 320, "text"))
	if now := w.servedKeys().Left; now > left*7/10 || w.facts().Serial != 1_000_100 {
		t.Errorf("after half of the time the source brought serial %d: %d RRsets left of %d", w.facts().Serial, now, left)
	}
	w.h.move(time.Unix(sp.Until, 0))
	w.follow("the end", func(ZoneStatus) bool { return w.facts().Exchange == nil })
	if at := w.h.now().Sub(time.Unix(sp.Until, 0)); at > 6*time.Hour {
		t.Errorf("done %s late", at)
	}
}

func TestSpread_PlansAndStatusTellHowLongItTakes(t *testing.T) {
	w := newWide(t, inTwoDays, 320)
	w.rolls(RolloverRequest{Kind: keymgr.RollZSK})
	plan, err := w.e.KeyPlan(t.Context(), "example.com", time.Time{})
	if err != nil || len(plan) < 2 {
		t.Fatalf("%v, plan %+v", err, plan)
	}
	last := plan[1]
	if last.Wait == nil || last.Wait.Inputs[0].Name != "Dsgn" || last.Wait.Inputs[0].Seconds != 2*86400 || last.Wait.Inputs[0].Source != "signer.key-roll-time" {
		t.Fatalf("plan %+v", last)
	}
	w.follow("the exchange", func(ZoneStatus) bool { return w.facts().Exchange != nil })
	st := w.next()
	x, ro := st.Exchange, st.Rollovers[0]
	if x == nil || x.Left == 0 || x.Left >= x.RRsets || !slices.Equal(x.Keys, ro.Old) || x.NextAt == nil || x.Until.Sub(x.Since) != 2*day {
		t.Errorf("exchange %+v", x)
	}
	if told := w.history("instance.signed"); len(told) == 0 || !strings.Contains(told[len(told)-1], fmt.Sprintf("%d RRsets by %s", x.Left, ro.Old[0])) {
		t.Errorf("history %q", told)
	}
	if want := fmt.Sprintf("those of %d RRsets are left", x.Left); !strings.Contains(ro.Text, want) {
		t.Errorf("rollover %q, want %q", ro.Text, want)
	}
	if plan, err = w.e.KeyPlan(t.Context(), "example.com", time.Time{}); err != nil || plan[0].Wait.Inputs[0].Seconds == 0 || plan[0].Wait.Inputs[0].Seconds >= 2*86400 {
		t.Errorf("%v, plan %+v", err, plan[0].Wait)
	}
	w.follow("the wait", func(st ZoneStatus) bool { return st.Rollovers[0].Phase == keymgr.PhaseWait })
	ro = w.settle().Rollovers[0]
	if in := ro.Wait.Inputs[0]; in.Name != "Dsgn" || in.Seconds != 0 || ro.Seen.Before(w.servedKeys().At) {
		t.Errorf("the wait %+v counts from %s, the last signature was published at %s", ro.Wait, ro.Seen, w.servedKeys().At)
	}
	if w.settle().Exchange != nil {
		t.Error("an exchange that is done")
	}
}
