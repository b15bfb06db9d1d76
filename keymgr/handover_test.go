package keymgr

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"sluice/journal/event"
)

// handOver lets another signer take the zone over with the keys and what is
// noted of them, and all that it can see. It says why it did not.
func (w *world) handOver(fails func() bool) string {
	if w.unsigned {
		return "the zone is unsigned"
	}
	k := w.known()
	var keys []event.Key
	for _, key := range w.ks.Keys {
		if key.Foreign {
			return "a zone with further signers goes over as a whole or not at all"
		}
		life := w.ks.LifeOf(key, w.p, k)
		state, notes := ReadLife(life, Role(key.Role), w.now)
		life.State, life.Notes = string(state), notes
		out := key.Key
		out.Life = life
		keys = append(keys, out)
	}
	next := &world{
		now: w.now, margin: w.margin, above: w.above, extra: w.extra, p: w.p, blind: w.blind, cut: w.cut, zones: w.zones, sets: w.sets, World: w.World,
		made: w.made, random: w.random,
		// It knows the zone's contents, and of the parent what it sees.
		sigTTLs: w.sigTTLs,
	}
	next.add(&event.KeyImported{Keys: keys})
	next.observe(fails)
	t := next.ks.TakeOver(next.p, Known{Now: next.now, Observation: next.seen, Timing: next.known().Timing})
	if t.Refused != "" {
		return t.Refused
	}
	next.add(t.Do...)
	for _, f := range t.Do {
		if a, ok := f.(*event.KeyAdopted); ok {
			next.keyTTLs = next.keyTTLs.See(a.KeyTTL, next.now)
		}
	}
	*w = *next
	w.decide()
	return ""
}

// However often and whenever a zone goes over to another signer, with whatever
// rollovers running, no validator ever holds what does not validate.
func TestTakeOver_NeverBogus(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		random := func(n int) int { return rapid.IntRange(0, n-1).Draw(rt, "random") }
		w := newWorld(random)
		w.secure(rt, random(2) == 1)
		for range rapid.IntRange(20, 120).Draw(rt, "steps") {
			if random(8) == 0 {
				silent := random(4) == 0
				w.handOver(func() bool { return silent && random(2) == 0 })
			} else {
				w.act(random)
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

// A zone that was handed over comes to rest by itself, with keys of each role.
func TestTakeOver_RolloversEnd(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		random := func(n int) int { return rapid.IntRange(0, n-1).Draw(rt, "random") }
		w := newWorld(random)
		w.secure(rt, false)
		never := func() bool { return false }
		step := func() {
			w.parentActs(3600)
			w.pass(w.margin)
			w.observe(never)
			w.decide()
			if why := w.bogus(); why != "" {
				rt.Fatal(why)
			}
		}
		for range 40 {
			step()
		}
		kinds := []Kind{RollZSK, RollKSK, RollCSK, RollAlgorithm}
		algorithm := uint8(13)
		kind := kinds[random(len(kinds))]
		if kind == RollAlgorithm {
			algorithm = 15
		}
		if err := w.start(kind, "", algorithm, false); err != nil {
			rt.Fatal(err)
		}
		for range random(60) {
			step()
		}
		if why := w.handOver(never); why != "" {
			rt.Fatalf("refused: %s, at %+v", why, w.ks)
		}
		for range 400 {
			step()
		}
		if len(w.ks.Rollovers) > 0 {
			rt.Fatalf("still running: %+v", w.ks.Rollovers)
		}
		var roles []string
		for _, k := range w.ks.Signing() {
			roles = append(roles, k.Role)
		}
		if slices.Sort(roles); !slices.Equal(roles, []string{"ksk", "zsk"}) || len(w.ks.Published()) != 2 {
			rt.Fatalf("keys %+v", w.ks.Keys)
		}
	})
}
