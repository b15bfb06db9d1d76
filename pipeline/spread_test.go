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
	slices.SortFunc(out, func(a, b event.SignedBy) int { return cmp2(a.Keys, b.Keys) })
	return out
}

func cmp2(a, b []string) int { return strings.Compare(strings.Join(a, " "), strings.Join(b, " ")) }

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
	w.reload(wideZone(4_000_000_000, names, "text"))
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
			if f.Spread != nil || !e.began.IsZero() && e.ended.IsZero() {
				if e.began.IsZero() {
					e.began = w.h.now()
				}
				if f.Spread == nil {
					e.ended = w.h.now()
				}
				e.made, e.versions, e.largest = e.made+int(f.Made), e.versions+1, max(e.largest, int(f.Made))
			}
			w.verifies()
			if d := cmp.Diff(w.countServed(), f.SignedBy); d != "" {
				w.t.Fatalf("signatures by key (-served +event):\n%s", d)
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
	names := 1000
	if os.Getenv("SLUICE_LONG") != "" {
		names = 30_000
	}
	w := newWide(t, "[key-manager.zsk]\nvalidity = \"forever\"\n", names)
	w.rolls(RolloverRequest{Kind: keymgr.RollZSK})
	old := w.settle().Rollovers[0].Old[0]
	held := 0
	e := w.follow("the end of the rollover", func(st ZoneStatus) bool {
		for _, ro := range st.Rollovers {
			if left := w.facts().Spread; left != nil {
				held++
				if ro.Name != "sign" || ro.Phase != keymgr.PhasePublish || !strings.Contains(ro.Text, "signatures are replaced until") {
					t.Fatalf("with signatures left: %+v", ro)
				}
			}
			if ro.Wait != nil && ro.Name == "sign" && !time.Unix(ro.Wait.Earliest, 0).After(e0(w).Add(time.Duration(ro.Wait.Seconds)*time.Second-time.Second)) {
				t.Fatalf("the wait ends %s, which does not count from the last signature", time.Unix(ro.Wait.Earliest, 0))
			}
		}
		return quiet(st)
	})
	total := int(w.facts().Signatures)
	if held == 0 || e.versions < 10 {
		t.Fatalf("%d versions, held %d times: nothing was spread", e.versions, held)
	}
	mean := float64(e.made) / float64(e.versions)
	if float64(e.largest) > 2*mean {
		t.Errorf("a burst of %d signatures, the mean slice has %.0f", e.largest, mean)
	}
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

// e0 is when what is served now was published with these keys and signers.
func e0(w *rolling) time.Time {
	r, err := w.e.find("example.com")
	if err != nil {
		return time.Time{}
	}
	return r.snapshot().Served.At
}

var _ = fmt.Sprint
