package keymgr

import (
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/journal/event"
)

// atStep brings a world into a step of a rollover, with its wait running or
// not.
func atStep(t *testing.T, kind Kind, m Method, step int, waiting bool) (*world, Rollover) {
	t.Helper()
	w := newWorld(half)
	w.secure(t, false)
	begun := false
	for range 400 {
		w.tick(5*time.Minute, 3600)
		if len(w.ks.Rollovers) == 0 && !begun {
			if err := w.start(kind, m, 13, false); err != nil {
				t.Fatal(err)
			}
			begun = true
		}
		if begun && w.ks.Rollovers[0].Step == step && (w.ks.Rollovers[0].Wait != nil) == waiting {
			return w, w.ks.Rollovers[0]
		}
	}
	t.Fatal("the step does not come")
	return nil, Rollover{}
}

// .NZ, 2023-05-29: the TTL of the DS had grown, the old key was removed while
// the old DS was cached. A wait that runs grows with the TTL.
func TestIncident_NZ2023_DSTTLGrowsDuringRollover(t *testing.T) {
	w, before := atStep(t, RollKSK, DoubleKSK, 2, true)
	w.dsTTLs = w.dsTTLs.See(86400, w.now)
	w.decide()
	after := w.ks.Rollovers[0]
	if grown := after.Wait.Earliest - before.Wait.Earliest; grown != 86400-3600 {
		t.Errorf("the wait grew by %d seconds, want 82800: %+v", grown, after.Wait)
	}
	w.dsTTLs = nil
	w.extra = -w.margin
	w.decide()
	if now := w.ks.Rollovers[0].Wait; now.Earliest != after.Wait.Earliest {
		t.Errorf("a shorter TTL and margin shorten the wait: %+v", now)
	}
}

// .NL, 2012-10-28: the signer crashed, the ZSK was not published, and the
// rollover assumed that it was.
func TestIncident_NL2012_UnpublishedKeyHoldsTheStep(t *testing.T) {
	w, _ := atStep(t, RollZSK, PrePublication, 1, false)
	w.observe(func() bool { return false })
	w.zones = w.zones[:len(w.zones)-1] // what was to be published never was
	for range 1000 {
		w.now = w.now.Add(time.Hour)
		w.seen.At = w.now
		r := w.ks.Rollovers[0]
		if s := Next(w.ks, r, w.p, w.known()); s.Phase != PhasePublish {
			t.Fatalf("goes on without the key being published: %+v", s)
		}
	}
}

// .NL, too: published here, but a server does not have it.
func TestIncident_NL2012_ServerThatLacksTheKeyIsNamed(t *testing.T) {
	w, r := atStep(t, RollZSK, PrePublication, 1, false)
	w.decide()
	w.pass(2 * time.Hour)
	w.observe(func() bool { return false })
	w.seen.Zone[1].Keys = slices.Clone(w.seen.Zone[1].Keys[:1])
	s := Next(w.ks, r, w.p, w.known())
	if s.Phase != PhaseSee || len(s.Missing) != 1 || s.Missing[0].Server != "ns2.example." || !strings.Contains(s.Text, "does not show key "+r.New[0]) {
		t.Errorf("%+v", s)
	}
	w.seen.Zone[1] = Seen{Server: "ns2.example.", Error: "time-out", Since: w.now.Add(-time.Hour)}
	if s = Next(w.ks, r, w.p, w.known()); s.Phase != PhaseSee || !strings.Contains(s.Text, "time-out since "+w.now.Add(-time.Hour).Format(time.RFC3339)) {
		t.Errorf("an unreachable server: %+v", s)
	}
}

// .FJ, 2022-03: signed by a key without DS.
func TestIncident_FJ2022_KeyWithoutDSReplacesNone(t *testing.T) {
	w, r := atStep(t, RollKSK, DoubleKSK, 2, false)
	if err := w.ks.MayBecome([]event.Facts{&event.KeyRemoved{IDs: r.Old}}, w.known()); err == nil {
		t.Error("the key whose DS caches hold may be removed")
	}
	if err := w.ks.MayBecome([]event.Facts{&event.KeyRemoved{IDs: r.New}}, w.known()); err == nil {
		t.Error("the key may be removed that the parent was told to have a DS of")
	}
	w, r = atStep(t, RollKSK, DoubleKSK, 1, true)
	if err := w.ks.MayBecome([]event.Facts{&event.KeyRemoved{IDs: r.New}}, w.known()); err != nil {
		t.Errorf("the key without DS may not be removed: %v", err)
	}
}

// A DS of another algorithm that somebody added at the parent demands that
// all is signed with it (RFC 4035, 2.2); one of the same algorithm does not.
func TestHardStop_ExtraDS(t *testing.T) {
	w, r := atStep(t, RollZSK, PrePublication, 2, true)
	extra := func(algorithm uint8) {
		w.add(&event.DSObserved{Sets: []event.DSSet{{TTL: 60, DS: []event.DS{
			{Tag: 1, Algorithm: 13, Key: "ksk-1"}, {Tag: 9, Algorithm: algorithm},
		}}}})
	}
	change := []event.Facts{&event.KeyRemoved{IDs: r.Old}}
	extra(13)
	if err := w.ks.MayBecome(change, w.known()); err != nil {
		t.Errorf("an extra DS of the algorithm that signs: %v", err)
	}
	extra(8)
	if err := w.ks.MayBecome(change, w.known()); err == nil || !strings.Contains(err.Error(), "algorithm 8") {
		t.Errorf("an extra DS of another algorithm: %v", err)
	}
	if err := w.ks.MayBecome(nil, w.known()); err != nil {
		t.Errorf("a refresh is stopped: %v", err)
	}
}

// What was seen and is not so any more begins the wait anew.
func TestNext_LostSightBeginsAnew(t *testing.T) {
	w, _ := atStep(t, RollKSK, DoubleKSK, 2, true)
	w.seen.Parent[0].DS = nil
	w.decide()
	if r := w.ks.Rollovers[0]; !r.Seen.IsZero() || r.Wait != nil {
		t.Errorf("still waits: %+v", r)
	}
}

// A policy may have each step wait for a person.
func TestNext_WaitsForAPerson(t *testing.T) {
	w, r := atStep(t, RollZSK, PrePublication, 1, false)
	w.p.ZSK.Auto = Auto{}
	w.decide()
	w.pass(2 * time.Hour)
	w.observe(func() bool { return false })
	if s := Next(w.ks, r, w.p, w.known()); s.Phase != PhasePerson || !strings.Contains(s.Text, "--dnskey-seen") {
		t.Fatalf("%+v", s)
	}
	w.add(&event.RolloverAdvanced{Rollover: r.ID, Step: 1, Name: "publish", Reported: string(SeeKeys)})
	w.decide()
	w.pass(3 * time.Hour)
	r = w.ks.Rollovers[0]
	if s := Next(w.ks, r, w.p, w.known()); s.Phase != PhasePerson || !strings.Contains(s.Text, "--next") {
		t.Fatalf("%+v", s)
	}
	w.add(&event.RolloverAdvanced{Rollover: r.ID, Step: 1, Name: "publish", Reported: string(ReportNext)})
	w.decide()
	if r = w.ks.Rollovers[0]; r.Step != 2 {
		t.Errorf("does not go on: %+v", r)
	}
	r.Emergency = true
	if s := Next(w.ks, r, w.p, w.known()); s.Phase == PhasePerson {
		t.Errorf("an emergency waits for a person: %+v", s)
	}
}

func TestNewPlan_Conflicts(t *testing.T) {
	w, _ := atStep(t, RollKSK, DoubleKSK, 1, true)
	for kind, fits := range map[Kind]bool{
		RollZSK: true, RollKSK: false, RollCSK: false, RollAlgorithm: false, RollInsecure: false, RollSecure: false,
	} {
		if _, err := w.ks.NewPlan(kind, "", w.p); (err == nil) != fits {
			t.Errorf("%s beside a KSK's: %v", kind, err)
		}
	}
	if err := w.start(RollZSK, "", 13, false); err != nil {
		t.Error(err)
	}
	if _, err := w.ks.NewPlan(RollZSK, DoubleDS, w.p); err == nil {
		t.Error("a ZSK is exchanged by double-ds")
	}
}

// RFC 7583, 3.2.1: Tpub(N+1) <= Tact(N) + Lzsk - Ipub.
func TestDues_NewKeySignsWhenTheOldReachesItsAge(t *testing.T) {
	w, _ := atStep(t, RollKSK, DoubleKSK, 1, true)
	w.p.ZSK.Validity = 90 * 24 * time.Hour
	zsk, _ := w.ks.ByID("zsk-2")
	dues := w.ks.Dues(w.p, w.known().Timing)
	want := zsk.Activated.Add(w.p.ZSK.Validity - 90*time.Minute)
	if len(dues) != 1 || dues[0].Kind != RollZSK || !dues[0].At.Equal(want) || !dues[0].Auto {
		t.Errorf("%+v, want one at %s", dues, want)
	}
}
