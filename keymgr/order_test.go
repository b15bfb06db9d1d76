package keymgr

import (
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/journal/event"
)

func latest(n int) int { return n - 1 }

// A KSK that stood by is shown long before it signs the DNSKEY RRset: what
// counts is that every server shows its signature.
func TestStandby_KSKIsSeenOnceItSigns(t *testing.T) {
	for _, method := range []Method{DoubleKSK, DoubleRRset} {
		w := newWorld(latest)
		w.above = time.Second // else the wait for the DS is enough
		w.secure(t, false)
		w.settle(t, "the first DS")
		w.newKeys([]Role{KSK}, 13)
		standby := w.ks.Keys[len(w.ks.Keys)-1].ID
		w.add(&event.KeyPublished{IDs: []string{standby}})
		for range 20 {
			w.tick(15*time.Minute, 3600)
		}
		if err := w.start(RollKSK, method, 13, false); err != nil {
			t.Fatal(err)
		}
		if r := w.ks.Rollovers[0]; !slices.Equal(r.New, []string{standby}) {
			t.Fatalf("%s brings %v", method, r.New)
		}
		for range 6 * 60 {
			w.tick(time.Minute, 3600)
			if why := w.bogus(); why != "" {
				t.Fatalf("%s: %s", method, why)
			}
		}
		if len(w.ks.Rollovers) > 0 {
			t.Errorf("%s does not end: %+v", method, Next(w.ks, w.ks.Rollovers[0], w.p, w.known()))
		}
	}
}

// What was seen before a zone was published unsigned says nothing of what caches
// have since.
func TestUnsigned_WhatWasSeenBeforeCountsNoMore(t *testing.T) {
	w := newWorld(func(int) int { return 0 }) // all servers have all at once
	w.secure(t, false)
	for w.ks.Rollovers[0].Wait == nil {
		w.tick(15*time.Minute, 3600)
	}
	if !w.mayUnsign() {
		t.Fatalf("%+v", w.ks.DS)
	}
	w.unsign(3600, 14400)
	w.pass(5 * time.Hour) // the wait of before is long over
	w.unsigned = false
	w.decide()
	_ = w.start(RollSecure, "", 13, false) // where it does not run already
	for range 24 * 12 {
		w.tick(5*time.Minute, 3600)
		if why := w.bogus(); why != "" {
			t.Fatal(why)
		}
	}
	if len(w.ks.Rollovers) > 0 || w.ks.DS.absent() {
		t.Errorf("the DS does not come: %+v", w.ks.Rollovers)
	}
}

func TestUnseen_RolloversLookAnew(t *testing.T) {
	w, r := atStep(t, RollZSK, PrePublication, 1, true)
	r.Reported = []Sight{SeeKeys}
	w.ks.Rollovers[0] = r
	for what, ks := range map[string]KeySet{"passed through": w.ks.Unseen(), "unsigned": w.ks.Unsigned()} {
		got := ks.Rollovers[0]
		if !got.Seen.IsZero() || got.Wait != nil || len(got.Reported) > 0 || got.Step != 1 || !got.Since.Equal(r.Since) {
			t.Errorf("%s: %+v", what, got)
		}
	}
	if w.ks.Rollovers[0].Seen.IsZero() {
		t.Error("the set of before was changed")
	}
}

// Time that only the clock saw go by is no wait.
func TestNext_AnAcceptedClockBeginsTheWaitAnew(t *testing.T) {
	w, r := atStep(t, RollKSK, DoubleKSK, 2, true)
	k := w.known()
	k.Now = k.Now.Add(30 * 24 * time.Hour)
	k.ClockSet = k.Now
	s := Next(w.ks, r, w.p, k)
	f, ok := s.Do[0].(*event.RolloverAdvanced)
	if !ok || f.Lost == "" {
		t.Fatalf("%+v", s)
	}
	r.advance(f, k.Now)
	if s = Next(w.ks, r, w.p, k); len(s.Do) != 1 {
		t.Fatalf("%+v", s)
	}
	if f, ok = s.Do[0].(*event.RolloverAdvanced); !ok || f.Seen < k.Now.Unix() || f.Wait.Earliest <= k.Now.Unix() {
		t.Errorf("%+v", s)
	}
	r.advance(f, k.Now)
	if s = Next(w.ks, r, w.p, k); s.Phase != PhaseWait {
		t.Errorf("%+v", s)
	}

	// A ZSK that stood by, too, counts from then.
	w, r = atStep(t, RollZSK, PrePublication, 1, false)
	w.decide()
	w.pass(time.Hour)
	w.observe(func() bool { return false })
	w.seen.KeysSince = map[string]time.Time{r.New[0]: w.now.Add(-30 * time.Minute)}
	for _, set := range []bool{false, true} {
		k, want := w.known(), w.now.Add(-30*time.Minute)
		if set {
			k.ClockSet, want = w.now, w.now
		}
		s := Next(w.ks, r, w.p, k)
		if f, ok := s.Do[0].(*event.RolloverAdvanced); !ok || f.Seen != want.Unix() {
			t.Errorf("clock set %v: %+v", set, s)
		}
	}
}

// A zone whose DS was withdrawn gets none because its keys are exchanged.
func TestChangeDS_AZoneWithoutDSStaysSo(t *testing.T) {
	for _, kind := range []Kind{RollCSK, RollAlgorithm} {
		w := newWorld(half)
		w.secure(t, false)
		w.settle(t, "the first DS")
		if err := w.start(RollInsecure, "", 0, false); err != nil {
			t.Fatal(err)
		}
		w.settle(t, "the last DS")
		algorithm := uint8(13)
		if kind == RollAlgorithm {
			algorithm = 15
		}
		if err := w.start(kind, "", algorithm, true); err != nil {
			t.Fatal(err)
		}
		w.settle(t, string(kind))
		if d := w.ks.DS; !d.Withdrawn || !d.absent() || len(d.Wanted) > 0 {
			t.Errorf("after %s: %+v", kind, d)
		}
		if got := w.ks.Signing(); len(got) != 1 || got[0].Role != string(CSK) || got[0].Algorithm != algorithm {
			t.Errorf("after %s %+v", kind, got)
		}
	}
}

// The way to the first DS that nobody wants any more: the parent may have taken
// it up, so it goes back over no DS.
func TestInsecure_TakesThePlaceOfTheWayToTheFirstDS(t *testing.T) {
	w := newWorld(half)
	w.secure(t, false)
	for w.ks.Rollovers[0].Step < 2 {
		if err := w.start(RollInsecure, "", 0, false); err == nil {
			t.Fatal("begins before the parent was told")
		}
		w.decide()
		w.pass(15 * time.Minute)
		w.observe(func() bool { return false })
	}
	if w.mayUnsign() {
		t.Error("the parent was told to add a DS, and the zone may go unsigned")
	}
	if _, err := Abort(w.ks, w.ks.Rollovers[0], w.p, ""); err == nil || !strings.Contains(err.Error(), "insecure") {
		t.Errorf("abort: %v", err)
	}
	if err := w.start(RollInsecure, "", 0, false); err != nil {
		t.Fatal(err)
	}
	if len(w.ks.Rollovers) != 1 || w.ks.Rollovers[0].Kind != RollInsecure || !w.ks.DS.Withdrawn {
		t.Fatalf("%+v, %+v", w.ks.Rollovers, w.ks.DS)
	}
	w.settle(t, "the way back")
	if !w.mayUnsign() {
		t.Errorf("%+v", w.ks.DS)
	}
}

// A zone at rest with two algorithms, one of which has no DS: neither loses half
// of its keys.
func TestHardStop_EachAlgorithmGoesOnToSignAll(t *testing.T) {
	w := newWorld(half)
	w.secure(t, false)
	w.settle(t, "the first DS")
	w.newKeys([]Role{KSK, ZSK}, 15)
	more := ids(w.ks.InState(Generated))
	w.add(&event.KeyActivated{IDs: more})
	for role, id := range map[Role]string{KSK: more[0], ZSK: more[1]} {
		for _, f := range []event.Facts{&event.KeyRetired{IDs: []string{id}}, &event.KeyRemoved{IDs: []string{id}}} {
			err := w.ks.MayBecome([]event.Facts{f}, w.known())
			if err == nil || !strings.Contains(err.Error(), "algorithm 15") {
				t.Errorf("%s of the %s: %v", f.EventType(), role, err)
			}
		}
	}
	if err := w.ks.MayBecome([]event.Facts{&event.KeyRemoved{IDs: more}}, w.known()); err != nil {
		t.Errorf("both go: %v", err)
	}
}
