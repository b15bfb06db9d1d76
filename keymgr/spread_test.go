package keymgr

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sluice/journal/event"
)

// spreadModel has the signatures of a model exchanged bit by bit.
type spreadModel struct {
	on   bool
	last func() bool // whether the last of them go now
	now  bool
	lies bool // what is published is told as if they were gone at once
}

// spreadSets is the sets of keys that sign RRsets in the next version: those of
// the last one, where the keys may still sign, and that of the keys that sign.
func (w *world) spreadSets(last *zoneVersion) [][]Key {
	if !w.spread.on {
		return nil
	}
	target := slices.DeleteFunc(w.ks.Signing(), func(k Key) bool { return !k.SignsZone() })
	out := [][]Key{target}
	if now := w.spread.now; now || len(last.keys) == 0 {
		w.spread.now = false
		return out
	}
	sets := last.sets
	if len(sets) == 0 {
		sets = [][]Key{slices.DeleteFunc(slices.Clone(last.signing), func(k Key) bool { return !k.SignsZone() })}
	}
	for _, set := range sets {
		var kept []Key
		for _, k := range set {
			if now, ok := w.ks.ByID(k.ID); ok && (now.InRRset() || now.Signs()) {
				kept = append(kept, now)
			}
		}
		covers := func(k Key) bool {
			return slices.ContainsFunc(kept, func(o Key) bool { return o.Algorithm == k.Algorithm })
		}
		done := slices.ContainsFunc(out, func(o []Key) bool { return slices.Equal(ids(o), ids(kept)) })
		if !done && len(kept) > 0 && !slices.ContainsFunc(w.ks.Published(), func(k Key) bool { return !covers(k) }) {
			out = append(out, kept)
		}
	}
	return out
}

// lastSlice reports whether the last signatures by other keys go now.
func (w *world) lastSlice(v zoneVersion) bool {
	w.spread.now = w.spread.on && len(v.sets) > 1 && slices.Equal(ids(v.signing), ids(w.ks.Signing())) && w.spread.last()
	return w.spread.now
}

// signers is whose signatures the version has: see Served.Signers.
func (v zoneVersion) signers() []string {
	var out []string
	lacks := func(k Key) func([]Key) bool {
		return func(set []Key) bool { return !slices.Contains(ids(set), k.ID) }
	}
	for _, k := range v.signing {
		if !k.SignsZone() || !slices.ContainsFunc(v.sets, lacks(k)) {
			out = append(out, k.ID)
		}
	}
	for _, set := range v.sets {
		for _, id := range ids(set) {
			if !slices.Contains(out, id) && !slices.Contains(ids(v.signing), id) {
				out = append(out, id)
			}
		}
	}
	slices.Sort(out)
	return out
}

// every lets the last signatures go at each nth asking.
func every(n int) func() bool {
	asked := 0
	return func() bool {
		asked++
		return asked%n == 0
	}
}

// A rollover that takes signatures for gone which are left makes bogus what a
// validator holds; one that waits for the last of them does not.
func TestSpread_TheStepWaitsForTheLastSignature(t *testing.T) {
	for _, name := range []string{"zsk-pre-publication", "zsk-double-signature", "csk", "split-to-csk", "csk-to-split", "algorithm"} {
		c := courses()[slices.IndexFunc(courses(), func(c course) bool { return c.name == name })]
		for _, lies := range []bool{false, true} {
			w := newWorld(half)
			w.spread = spreadModel{on: true, last: every(120), lies: lies}
			w.blind = lies
			found, held := "", 0
			c.run(t, w, func() {
				if len(w.zones[len(w.zones)-1].sets) > 1 {
					held++
				}
				if why := w.bogus(); found == "" {
					found = why
				}
			})
			if held < 100 && !lies || lies == (found == "") {
				t.Errorf("%s: signatures are left for %d steps, told wrongly %v: %q", name, held, lies, found)
			}
		}
	}
}

// Whatever happens while signatures are exchanged, nothing becomes bogus.
func TestSpread_NeverBogus(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		random := func(n int) int { return rapid.IntRange(0, n-1).Draw(rt, "random") }
		w := newWorld(random)
		w.spread = spreadModel{on: true, last: func() bool { return random(4) == 0 }}
		w.secure(rt, random(2) == 1)
		for range rapid.IntRange(20, 150).Draw(rt, "steps") {
			w.act(random)
			if why := w.bogus(); why != "" {
				rt.Fatal(why)
			}
		}
	})
}

func TestHardStop_AKeyStaysWhoseSignaturesAreLeft(t *testing.T) {
	w := newWorld(half)
	w.secure(t, false)
	for range 100 {
		w.tick(15*time.Minute, 3600)
	}
	if err := w.start(RollZSK, PrePublication, 13, false); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if w.tick(15*time.Minute, 3600); w.ks.Rollovers[0].Step == 2 {
			break
		}
	}
	r, k := w.ks.Rollovers[0], w.known()
	gone := []event.Facts{&event.KeyRemoved{IDs: r.Old}}
	for _, row := range []struct {
		sets    [][]string
		refused bool
	}{
		{nil, false},
		{[][]string{r.New}, false},
		{[][]string{r.New, append(slices.Clone(r.Old), r.New...)}, false},
		{[][]string{r.New, r.Old}, true},
	} {
		k.Served.Sets, k.Served.Left = row.sets, 7
		err := w.ks.MayBecome(gone, k)
		if (err != nil) != row.refused {
			t.Errorf("signed by %v: %v", row.sets, err)
		}
		if row.refused && !strings.Contains(err.Error(), "7 RRsets are left") {
			t.Error(err)
		}
	}
	// Where it is proven that the parent has no DS, nobody validates.
	k.Served.Sets = [][]string{r.Old}
	ks := w.ks
	ks.DS = DSState{Sets: []event.DSSet{{TTL: 60}}}
	if err := ks.MayBecome(gone, k); err != nil {
		t.Error(err)
	}
	// Unless it was told to, and may have it any moment.
	ks.DS.Wanted = []string{"ksk-1"}
	if err := ks.MayBecome(gone, k); err == nil {
		t.Error("signatures lose their key while the parent is to add a DS")
	}
}

func TestNext_AKSKDoesNotWaitForSignaturesOfZSKs(t *testing.T) {
	w := newWorld(half)
	w.spread = spreadModel{on: true, last: func() bool { return false }}
	w.secure(t, false)
	for range 100 {
		w.tick(15*time.Minute, 3600)
	}
	for _, k := range []Kind{RollZSK, RollKSK} {
		if err := w.start(k, "", 13, false); err != nil {
			t.Fatal(err)
		}
	}
	for range 400 {
		w.tick(15*time.Minute, 3600)
	}
	if len(w.ks.Rollovers) != 1 || w.ks.Rollovers[0].Kind != RollZSK || w.ks.Rollovers[0].Step != 2 {
		t.Fatalf("rollovers %+v", w.ks.Rollovers)
	}
	s := Next(w.ks, w.ks.Rollovers[0], w.p, w.known())
	if s.Phase != PhasePublish {
		t.Errorf("%+v", s)
	}
	k := w.known()
	k.Served.Left, k.Served.Until = 12, w.now.Add(time.Hour)
	if s = Next(w.ks, w.ks.Rollovers[0], w.p, k); !strings.Contains(s.Text, "those of 12 RRsets are left") {
		t.Errorf("%+v", s)
	}
}
