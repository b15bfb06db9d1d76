package keymgr

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"sluice/journal/event"
)

var updateGolden = flag.Bool("update", false, "write golden traces")

// course is a rollover from beginning to end.
type course struct {
	name      string
	kind      Kind
	method    Method
	csk       bool // the zone begins with a CSK
	toCSK     bool
	algorithm uint8
}

func courses() []course {
	return []course{
		{name: "zsk-pre-publication", kind: RollZSK, method: PrePublication, algorithm: 13},
		{name: "zsk-double-signature", kind: RollZSK, method: DoubleSignature, algorithm: 13},
		{name: "ksk-double-ksk", kind: RollKSK, method: DoubleKSK, algorithm: 13},
		{name: "ksk-double-ds", kind: RollKSK, method: DoubleDS, algorithm: 13},
		{name: "ksk-double-rrset", kind: RollKSK, method: DoubleRRset, algorithm: 13},
		{name: "csk", kind: RollCSK, csk: true, toCSK: true, algorithm: 13},
		{name: "split-to-csk", kind: RollCSK, toCSK: true, algorithm: 13},
		{name: "csk-to-split", kind: RollCSK, csk: true, algorithm: 13},
		{name: "algorithm", kind: RollAlgorithm, algorithm: 15},
		{name: "algorithm-to-csk", kind: RollAlgorithm, toCSK: true, algorithm: 15},
		{name: "insecure", kind: RollInsecure},
	}
}

// secure brings a world to a secure zone.
func (w *world) secure(t interface{ Fatal(...any) }, csk bool) {
	roles := []Role{KSK, ZSK}
	if csk {
		roles = []Role{CSK}
	}
	if err := w.first(roles, 13); err != nil {
		t.Fatal(err)
	}
}

// tick is a while in which nobody fails.
func (w *world) tick(d time.Duration, ttl uint32) {
	w.decide()
	w.parentActs(ttl)
	w.pass(d)
	w.observe(func() bool { return false })
}

func (c course) run(t *testing.T, w *world, each func()) {
	w.secure(t, c.csk)
	for range 200 {
		w.tick(15*time.Minute, 3600)
		each()
		if len(w.ks.Rollovers) == 0 {
			break
		}
	}
	if len(w.ks.Rollovers) > 0 {
		t.Fatal("the first DS never comes")
	}
	if err := w.start(c.kind, c.method, c.algorithm, c.toCSK); err != nil {
		t.Fatal(err)
	}
	for range 400 {
		w.tick(15*time.Minute, 3600)
		each()
		if len(w.ks.Rollovers) == 0 && c.kind == RollInsecure && !w.unsigned {
			w.unsign(3600, 7200)
			w.pass(0)
			each()
		}
	}
	if len(w.ks.Rollovers) > 0 {
		t.Errorf("the rollover does not end: %+v", Next(w.ks, w.ks.Rollovers[0], w.p, w.known()))
	}
}

func half(n int) int { return n / 2 }

func TestRFC7583_Timelines(t *testing.T) {
	for _, c := range courses() {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(half)
			began := w.now
			var out strings.Builder
			shown := 0
			c.run(t, w, func() {
				for _, e := range w.events[shown:] {
					fmt.Fprintf(&out, "%8s  %s\n", e.Time.Sub(began).Truncate(time.Minute), traceLine(e))
				}
				shown = len(w.events)
				if why := w.bogus(); why != "" {
					t.Fatal(why)
				}
			})
			path := filepath.Join("testdata", "timeline", c.name+".txt")
			if *updateGolden {
				if err := os.WriteFile(path, []byte(out.String()), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), out.String()); d != "" {
				t.Errorf("timeline (-want +got):\n%s", d)
			}
		})
	}
}

func traceLine(e event.Event) string {
	switch f := e.Facts.(type) {
	case *event.KeyGenerated:
		var made []string
		for _, k := range f.Keys {
			made = append(made, fmt.Sprintf("%s (algorithm %d)", k.ID, k.Algorithm))
		}
		return "made " + strings.Join(made, ", ")
	case *event.KeyActivated:
		return fmt.Sprintf("%s &{IDs:%v}", f.EventType(), f.IDs)
	case *event.RolloverStarted:
		return fmt.Sprintf("rollover %d: %s by %s, %v to %v", e.N, f.Kind, f.Method, f.Old, f.New)
	case *event.RolloverAdvanced:
		text := fmt.Sprintf("rollover %d, step %d %s", f.Rollover, f.Step, f.Name)
		if f.Seen != 0 {
			text += ": seen everywhere"
		}
		if f.Wait != nil {
			text += fmt.Sprintf("; wait %s, %s", time.Duration(f.Wait.Seconds)*time.Second, f.Wait.Formula)
		}
		return text
	case *event.RolloverCompleted:
		return fmt.Sprintf("rollover %d is done", f.Rollover)
	case *event.DSObserved:
		var sets []string
		for _, s := range f.Sets {
			keys := []string{}
			for _, d := range s.DS {
				keys = append(keys, d.Key)
			}
			sets = append(sets, fmt.Sprint(keys))
		}
		return "the parent has the DS of " + strings.Join(sets, " and ")
	case *event.DSSubmitted:
		return fmt.Sprintf("DS of %v submitted, CDS %t", f.IDs, f.CDS)
	}
	return fmt.Sprintf("%s %+v", e.Facts.EventType(), e.Facts)
}

// waits names every wait; each must be needed.
func waits() map[string]string {
	return map[string]string{
		"Ipub": "zsk-pre-publication", "IretZSK": "zsk-pre-publication", "IretDouble": "zsk-double-signature",
		"IpubC": "ksk-double-ksk", "IretKSK": "ksk-double-ksk", "IpubP": "ksk-double-ds", "IretC": "ksk-double-ds",
		"IpubCP": "ksk-double-rrset", "Isig": "algorithm", "Iwdr": "algorithm", "Ifirst": "zsk-pre-publication", "Ilast": "insecure",
	}
}

// The model can tell: with any of the waits cut to zero it finds what does not
// validate.
func TestRollover_EachWaitIsNeeded(t *testing.T) {
	for name, of := range waits() {
		t.Run(name, func(t *testing.T) {
			c := courses()[slices.IndexFunc(courses(), func(c course) bool { return c.name == of })]
			w := newWorld(half)
			w.cut, w.blind = name, true
			found := ""
			c.run(t, w, func() {
				if found == "" {
					found = w.bogus()
				}
			})
			if found == "" {
				t.Errorf("without %s nothing becomes bogus", name)
			}
		})
	}
}

// A first DS that is taken back before anybody here saw it may have come and
// gone: caches hold it for longer than any TTL that was seen.
func TestRollover_DSThatWasNeverSeenIsWaitedFor(t *testing.T) {
	for name, cut := range map[string]bool{"whole": false, "cut": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(half)
			never, found := func() bool { return false }, ""
			pass := func(d time.Duration) {
				w.pass(d)
				if found == "" {
					found = w.bogus()
				}
			}
			w.secure(t, false)
			for len(w.ks.DS.Wanted) == 0 {
				pass(15 * time.Minute)
				w.observe(never)
				w.decide()
			}
			w.parentActs(14400)
			pass(2 * w.above)
			if cut {
				w.cut = "IlastUnseen"
			}
			if err := w.start(RollInsecure, "", 13, false); err != nil {
				t.Fatal(err)
			}
			w.parentActs(3600)
			pass(2 * w.above)
			for range 400 {
				w.observe(never)
				w.decide()
				if w.mayUnsign() {
					w.unsign(3600, 7200)
				}
				pass(15 * time.Minute)
			}
			if !w.unsigned {
				t.Errorf("the zone never becomes unsigned: %+v", w.ks.Rollovers)
			}
			if cut != (found != "") {
				t.Errorf("bogus: %q", found)
			}
		})
	}
}

// The hard stop alone keeps the parent's DS matched, whatever the waits are.
func TestHardStop_HoldsWithoutTheWaits(t *testing.T) {
	for _, name := range []string{"IretKSK", "IpubP", "IpubCP"} {
		c := courses()[slices.IndexFunc(courses(), func(c course) bool { return c.name == waits()[name] })]
		w := newWorld(half)
		w.cut = name
		c.run(t, w, func() {
			if why := w.bogus(); why != "" {
				t.Errorf("%s: %s", name, why)
			}
		})
	}
}

// Whatever happens, in whatever order, no validator may hold together what
// does not validate, and no wait gets shorter.
func TestRollover_NeverBogus(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		random := func(n int) int { return rapid.IntRange(0, n-1).Draw(rt, "random") }
		w := newWorld(random)
		w.above = time.Duration(random(4)) * 30 * time.Minute
		w.secure(rt, random(2) == 1)
		waiting := map[uint64]event.Wait{}
		for range rapid.IntRange(20, 150).Draw(rt, "steps") {
			w.act(random)
			for _, r := range w.ks.Rollovers {
				if before, ok := waiting[r.ID]; ok && r.Wait != nil && r.Wait.Formula == before.Formula && r.Wait.Earliest < before.Earliest {
					rt.Fatalf("the wait of rollover %d became shorter: %+v, then %+v", r.ID, before, *r.Wait)
				}
				if delete(waiting, r.ID); r.Wait != nil {
					waiting[r.ID] = *r.Wait
				}
			}
			if why := w.bogus(); why != "" {
				rt.Fatal(why)
			}
		}
		if d := w.refold(); d != "" {
			rt.Fatal(d)
		}
	})
}

// act is one thing that may happen.
func (w *world) act(random func(int) int) {
	ttls := []uint32{300, 3600, 14400}
	switch random(17) {
	case 0:
		c := courses()[random(len(courses()))]
		alg := w.algorithm()
		if c.kind == RollAlgorithm {
			alg = 28 - alg
		}
		_ = w.start(c.kind, c.method, alg, c.toCSK) // refused where it may not
	case 1:
		if n := len(w.ks.Rollovers); n > 0 && random(3) == 0 {
			r := w.ks.Rollovers[random(n)]
			if do, err := Abort(w.ks, r, w.p, "tried"); err == nil && w.ks.MayBecome(do, w.known()) == nil {
				w.add(do...)
			}
		}
	case 2:
		w.parentActs(ttls[random(3)])
	case 3:
		if w.mayUnsign() {
			w.unsign(ttls[random(3)], ttls[random(3)])
		}
	case 4:
		w.publish(ttls[random(3)], ttls[random(3)])
	case 5:
		w.ks = w.again()
	case 6:
		w.extra = time.Duration(random(3)) * w.margin
	case 7:
		if w.unsigned || w.ks.DS.Since.IsZero() {
			w.unsigned = false
			_ = w.start(RollSecure, "", 13, false) // refused where it may not
		}
	case 8:
		w.shares(random)
	case 9:
		w.standsBy(random)
	default:
		w.decide()
	}
	w.pass(time.Duration(random(5400)) * time.Second)
	fails := random(4) == 0
	w.observe(func() bool { return fails && random(2) == 0 })
	if random(2) == 0 {
		w.decide()
	}
}

func (w *world) algorithm() uint8 {
	for _, k := range w.ks.Signing() {
		return k.Algorithm
	}
	return 13
}
