package keymgr

import (
	"testing"
	"time"
)

// Zones that were set up together do not roll together: each begins at a place
// of its own, never later than its age asks.
func TestDues_ZonesBeginAtPlacesOfTheirOwn(t *testing.T) {
	w, _ := atStep(t, RollKSK, DoubleKSK, 1, true)
	w.p.ZSK.Validity = 90 * 24 * time.Hour
	timing := w.known().Timing
	last := w.ks.Dues(w.p, timing)[0].At
	hours := map[int]int{}
	for i := range uint64(2400) {
		timing.Place = i * 0x9e3779b97f4a7c15 // as a hash scatters them
		at := w.ks.Dues(w.p, timing)[0].At
		sooner := last.Sub(at)
		if sooner < 0 || sooner >= 24*time.Hour {
			t.Fatalf("place %d begins %s sooner than it must", i, sooner)
		}
		hours[int(sooner/time.Hour)]++
	}
	for h := range 24 {
		if n := hours[h]; n < 60 || n > 140 {
			t.Errorf("%d of 2400 zones begin in hour %d, want about 100", n, h)
		}
	}
	w.p.ZSK.Validity = time.Minute
	if at := w.ks.Dues(w.p, timing)[0]; w.p.ZSK.Validity-at.At.Sub(w.ks.InState(Active)[0].Activated) > 40*time.Second {
		t.Errorf("a key that lives for a minute is exchanged at %+v", at)
	}
}
