package pipeline

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/journal/event"
	"sluice/journal/journaltest"
	"sluice/keymgr"
	"sluice/pipeline/observe"
	"sluice/signer/zone"
)

// rolling is an engine whose zone the world sees as it is published, with a
// parent that follows CDS at once.
type rolling struct {
	*rig
	h *byHand
}

func newRolling(t *testing.T, policy string) *rolling {
	t.Helper()
	return newRollingWith(t, policy, nil)
}

// newRollingWith has the keystore wrapped.
func newRollingWith(t *testing.T, policy string, wrap func(keymgr.Keystore) keymgr.Keystore) *rolling {
	t.Helper()
	w := &rolling{h: newHand(dayOne)}
	w.rig = &rig{t: t, dir: t.TempDir(), journal: journaltest.New(), clock: w.h.clock(), wrap: wrap}
	o := &outside{shows: w.shows}
	w.rig.observe = o.observe
	p, err := Parse("default", []byte("version = \"v1\"\n"+policy))
	if err != nil {
		t.Fatal(err)
	}
	unsigned, err := Parse("unsigned", []byte("version = \"v1\"\nsigner.mode = \"unsigned\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	w.start(map[string]Policy{"default": p, "unsigned": unsigned})
	w.add(smallZone)
	return w
}

func (w *rolling) shows(observe.Question) (z, p []keymgr.Seen) {
	r, err := w.e.find("example.com")
	if err != nil {
		return nil, nil
	}
	s := r.snapshot()
	if s.Published == nil {
		return nil, parentHas(86400, 2)
	}
	f := s.Published.Signed.Facts
	seen := keymgr.Seen{Server: "ns1.example.com.", Address: netip.MustParseAddrPort("192.0.2.1:53"), Serial: f.Serial, Keys: f.Keys, KeyTTL: 3600, CDS: f.CDS, CDNSKEY: f.CDS}
	for _, id := range f.Signers {
		if k, _ := s.Keys.ByID(id); k.SignsZone() {
			sig := keymgr.SeenSignature{Owner: "example.com.", Type: "SOA", Tag: k.Tag, Algorithm: k.Algorithm}
			if slices.Contains(f.Keys, id) {
				sig.Key = id
			}
			seen.Signed = append(seen.Signed, sig)
		}
		if k, _ := s.Keys.ByID(id); k.SignsKeys() && slices.Contains(f.Keys, id) {
			seen.Signed = append(seen.Signed, keymgr.SeenSignature{Owner: "example.com.", Type: "DNSKEY", Tag: k.Tag, Algorithm: k.Algorithm, Key: id})
		}
	}
	var list []event.DS
	apex, err := zone.ParseName("example.com")
	if err != nil {
		return nil, nil
	}
	for _, k := range s.Keys.Keys {
		if slices.Contains(f.CDS, k.ID) {
			ds, err := keymgr.DSOf(apex, k, keymgr.DigestSHA256)
			if err != nil {
				return nil, nil
			}
			ds.Key = ""
			list = append(list, ds)
		}
	}
	return []keymgr.Seen{seen}, parentHas(86400, 2, list...)
}

// settle waits until nothing is left to do now.
func (w *rolling) settle() ZoneStatus {
	w.t.Helper()
	var st ZoneStatus
	until(w.t, "the zone has settled", func() bool {
		st = w.await()
		o := st.Observation
		return (st.NextAt == nil || st.NextAt.After(w.h.now())) && (o == nil || !o.Running && o.NextAt != nil && o.NextAt.After(w.h.now()))
	})
	return st
}

// runs lets time pass until a condition holds.
func (w *rolling) runs(what string, met func(ZoneStatus) bool) ZoneStatus {
	w.t.Helper()
	for range 400 {
		st := w.settle()
		if met(st) {
			return st
		}
		w.h.move(w.h.now().Add(15 * time.Minute))
	}
	w.t.Fatalf("%s does not come: %+v", what, w.settle().Rollovers)
	return ZoneStatus{}
}

func (w *rolling) secure() ZoneStatus {
	w.t.Helper()
	return w.runs("the first DS", func(st ZoneStatus) bool { return len(st.Rollovers) == 0 && st.Published != nil })
}

func quiet(st ZoneStatus) bool { return len(st.Rollovers) == 0 }

func (w *rolling) verifies() {
	w.t.Helper()
	if rep, err := w.e.VerifyZone(w.t.Context(), "example.com", nil); err != nil || !rep.OK() {
		w.t.Fatalf("verify: %v, %v", err, rep)
	}
}

func (w *rolling) rolls(q RolloverRequest) ZoneStatus {
	w.t.Helper()
	st, err := w.e.Roll(w.t.Context(), testActor, "example.com", q)
	if err != nil {
		w.t.Fatal(err)
	}
	return st
}

func inState(keys []keymgr.Key, s keymgr.State) (roles []string) {
	for _, k := range keys {
		if k.State == s {
			roles = append(roles, fmt.Sprintf("%s/%d", k.Role, k.Algorithm))
		}
	}
	slices.Sort(roles)
	return roles
}

func TestEngine_FirstDSWaitsUntilNothingUnsignedIsLeft(t *testing.T) {
	w := newRolling(t, "")
	if strings.Contains(w.dump(), "\tCDS\t") {
		t.Error("CDS stands in the first version")
	}
	ds, err := w.e.DS(t.Context(), "example.com", "ds")
	if err != nil || len(ds) != 1 || ds[0].Submit {
		t.Errorf("DS %+v, %v", ds, err)
	}
	st := w.runs("the wait", func(st ZoneStatus) bool { return len(st.Rollovers) == 1 && st.Rollovers[0].Phase == keymgr.PhaseWait })
	// REFRESH + RETRY and the largest TTL.
	if got := st.Rollovers[0].Wait.Seconds; got != 7200+3600+3600 {
		t.Errorf("waits %d seconds: %s", got, st.Rollovers[0].Text)
	}
	w.secure()
	if dump := w.dump(); !strings.Contains(dump, "\tCDS\t") || !strings.Contains(dump, "\tCDNSKEY\t") {
		t.Error("neither CDS nor CDNSKEY")
	}
	w.verifies()
	if ds, err = w.e.DS(t.Context(), "example.com", "ds"); err != nil || len(ds) != 1 || !ds[0].Submit || !strings.Contains(ds[0].Note, "has it") {
		t.Errorf("DS %+v, %v", ds, err)
	}
	if got := w.historyOf("rollover.started", "ds.submitted", "rollover.completed"); len(got) != 3 ||
		!strings.Contains(got[0], "secure begins by first-ds") || !strings.Contains(got[1], "told by CDS and CDNSKEY") {
		t.Errorf("history %q", got)
	}
}

func TestEngine_RolloversEndWithOtherKeys(t *testing.T) {
	for _, row := range []struct {
		q                RolloverRequest
		active, replaced string
	}{
		{q: RolloverRequest{Kind: keymgr.RollZSK}, active: "[ksk/13 zsk/13]", replaced: "[zsk/13]"},
		{q: RolloverRequest{Kind: keymgr.RollZSK, Method: keymgr.DoubleSignature}, active: "[ksk/13 zsk/13]", replaced: "[zsk/13]"},
		{q: RolloverRequest{Kind: keymgr.RollKSK}, active: "[ksk/13 zsk/13]", replaced: "[ksk/13]"},
		{q: RolloverRequest{Kind: keymgr.RollCSK}, active: "[ksk/13 zsk/13]", replaced: "[ksk/13 zsk/13]"},
		{q: RolloverRequest{Kind: keymgr.RollAlgorithm, Algorithm: "ED25519"}, active: "[ksk/15 zsk/15]", replaced: "[ksk/13 zsk/13]"},
	} {
		t.Run(string(row.q.Kind)+" "+string(row.q.Method), func(t *testing.T) {
			w := newRolling(t, "")
			w.secure()
			if st := w.rolls(row.q); len(st.Rollovers) != 1 {
				t.Fatalf("rollovers %+v", st.Rollovers)
			}
			st := w.runs("the end", func(st ZoneStatus) bool {
				w.verifies()
				return quiet(st)
			})
			if a, r := fmt.Sprint(inState(st.Keys, keymgr.Active)), fmt.Sprint(inState(st.Keys, keymgr.Removed)); a != row.active || r != row.replaced {
				t.Errorf("active %s, removed %s", a, r)
			}
			if st.LastError != "" {
				t.Error(st.LastError)
			}
		})
	}
}

func TestEngine_ZSKIsReplacedWhenItsAgeComes(t *testing.T) {
	w := newRolling(t, "[key-manager.zsk]\nvalidity = \"10d\"\n[key-manager]\npropagation-margin = \"1h\"\n")
	w.secure()
	plan, err := w.e.KeyPlan(t.Context(), "example.com", time.Time{})
	if err != nil || len(plan) != 3 || plan[0].Kind != keymgr.RollZSK || !strings.Contains(plan[0].Text, "reaches its age") {
		t.Fatalf("plan %+v, %v", plan, err)
	}
	if !strings.Contains(plan[0].Text, "sooner than it must") {
		t.Errorf("the plan does not tell why then: %s", plan[0].Text)
	}
	if at := plan[0].Earliest.Sub(dayOne); at < 10*day-14*time.Hour || at > 10*day-2*time.Hour {
		t.Errorf("begins after %s", at)
	}
	w.h.move(plan[0].Earliest)
	st := w.runs("the rollover", func(st ZoneStatus) bool { return len(st.Rollovers) == 1 })
	if st.Rollovers[0].Reason == "" || st.Rollovers[0].Kind != keymgr.RollZSK {
		t.Errorf("%+v", st.Rollovers[0])
	}
	w.runs("its end", quiet)
}

func TestEngine_RestartGoesOnWithARollover(t *testing.T) {
	w := newRolling(t, "")
	w.secure()
	w.rolls(RolloverRequest{Kind: keymgr.RollKSK})
	before := w.runs("the wait", func(st ZoneStatus) bool { return st.Rollovers[0].Phase == keymgr.PhaseWait })
	w.stop()
	w.start(nil)
	if after := w.settle(); after.Rollovers[0].Wait.Earliest != before.Rollovers[0].Wait.Earliest || after.Rollovers[0].Step != before.Rollovers[0].Step {
		t.Errorf("%+v, then %+v", before.Rollovers[0], after.Rollovers[0])
	}
	w.runs("the end", quiet)
}

func TestEngine_ClosedNetworkIsRolledByHand(t *testing.T) {
	w := newRolling(t, "[key-manager]\nobservation-interval = 0\n")
	report := func(seen keymgr.Sight, ttl uint32) {
		t.Helper()
		if _, err := w.e.ReportStep(t.Context(), testActor, "example.com", StepReport{Seen: seen, TTL: ttl}); err != nil {
			t.Fatal(err)
		}
	}
	byHand := func(what string, met func(ZoneStatus) bool) {
		t.Helper()
		for range 100 {
			if st := w.await(); met(st) {
				return
			}
			w.h.move(w.h.now().Add(time.Hour))
		}
		t.Fatalf("%s does not come: %+v", what, w.status().Rollovers)
	}
	byHand("the rollover", func(st ZoneStatus) bool { return len(st.Rollovers) == 1 })
	if _, err := w.e.ReportStep(t.Context(), testActor, "example.com", StepReport{Seen: keymgr.SeeDS, TTL: 3600}); err == nil ||
		!strings.Contains(err.Error(), "--dnskey-seen") {
		t.Errorf("the DS before the keys: %v", err)
	}
	report(keymgr.SeeKeys, 0)
	report(keymgr.SeeSigs, 0)
	byHand("the DS", func(st ZoneStatus) bool { return st.Rollovers[0].Step == 2 })
	if _, err := w.e.ReportStep(t.Context(), testActor, "example.com", StepReport{Seen: keymgr.SeeDS}); err == nil {
		t.Error("a DS without its TTL")
	}
	report(keymgr.SeeDS, 3600)
	byHand("the end", quiet)
	w.rolls(RolloverRequest{Kind: keymgr.RollKSK, Method: keymgr.DoubleDS})
	report(keymgr.SeeDS, 7200)
	byHand("the exchange", func(st ZoneStatus) bool { return st.Rollovers[0].Step == 2 })
	if strings.Contains(w.dump(), "\tCDS\t") {
		t.Error("CDS would have the parent drop a DS")
	}
	report(keymgr.SeeKeys, 0)
	byHand("the end", quiet)
	w.verifies()
}

func TestEngine_AbortedRolloverLeavesTheOldKeys(t *testing.T) {
	for _, step := range []int{1, 2} {
		w := newRolling(t, "")
		st := w.secure()
		keys := inState(st.Keys, keymgr.Active)
		w.rolls(RolloverRequest{Kind: keymgr.RollZSK})
		w.runs("the step", func(st ZoneStatus) bool { return st.Rollovers[0].Step == step })
		if _, err := w.e.AbortRollover(t.Context(), testActor, "example.com", 0, "tried"); err != nil {
			t.Fatal(err)
		}
		st = w.runs("the end", quiet)
		w.verifies()
		if got := inState(st.Keys, keymgr.Active); !slices.Equal(got, keys) || len(inState(st.Keys, keymgr.Removed)) != 1 {
			t.Errorf("keys %v", got)
		}
		if k := st.Keys[len(st.Keys)-1]; k.State != keymgr.Removed {
			t.Errorf("the new key is %s", k.State)
		}
	}
}

func TestEngine_GoingInsecureAndComingBack(t *testing.T) {
	w := newRolling(t, "")
	w.secure()
	w.rolls(RolloverRequest{Kind: keymgr.RollInsecure})
	w.await()
	if dump := w.dump(); !strings.Contains(dump, "\tCDS\t0 0 0 00") && !strings.Contains(dump, "CDS\t0 0 0 ") {
		t.Errorf("no CDS that asks for removal:\n%s", dump)
	}
	if st, err := w.turn("unsigned"); err == nil || !strings.Contains(err.Error(), "its parent had a DS when that was seen last") {
		t.Errorf("turns while the DS is there: %v, %s", err, st.State)
	}
	w.runs("the DS gone", func(st ZoneStatus) bool { return st.Rollovers[0].Phase == keymgr.PhaseWait })
	if st, err := w.turn("unsigned"); err == nil || !strings.Contains(err.Error(), "caches may hold its DS until") {
		t.Errorf("turns while caches hold the DS: %v, %s", err, st.State)
	}
	w.runs("the end", quiet)
	w.verifies()
	if _, err := w.e.Roll(t.Context(), testActor, "example.com", RolloverRequest{Kind: keymgr.RollKSK}); err == nil {
		t.Error("a KSK is exchanged without a DS")
	}
	w.rolls(RolloverRequest{Kind: keymgr.RollSecure})
	w.runs("the end", quiet)
	if ds, err := w.e.DS(t.Context(), "example.com", "ds"); err != nil || !ds[0].Submit {
		t.Errorf("DS %+v, %v", ds, err)
	}
	// Once more, to the end.
	w.rolls(RolloverRequest{Kind: keymgr.RollInsecure})
	w.runs("the end", quiet)
	if _, err := w.turn("unsigned"); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(w.dump(), "RRSIG") {
		t.Error("still signed")
	}
	if _, err := w.turn("default"); err != nil {
		t.Fatal(err)
	}
	w.runs("the way to the first DS", func(st ZoneStatus) bool { return len(st.Rollovers) == 1 && st.Rollovers[0].Kind == keymgr.RollSecure })
	w.runs("the end", quiet)
	w.verifies()
}

// A parent that was told to have a DS may add it any moment, though it has none.
func TestEngine_GoesUnsignedOnlyOnceTheParentIsToldToHaveNoDS(t *testing.T) {
	w := &rolling{h: newHand(dayOne)}
	w.rig = &rig{t: t, dir: t.TempDir(), journal: journaltest.New(), clock: w.h.clock()}
	insecure := false
	o := &outside{}
	o.show(func(q observe.Question) (z, p []keymgr.Seen) {
		z, _ = w.shows(q)
		p = parentHas(86400, 2)
		for i := range p {
			p[i].Insecure, p[i].Validated, p[i].NoDS = insecure, !insecure, !insecure
		}
		return z, p
	})
	w.rig.observe = o.observe
	policies := map[string]Policy{}
	for _, mode := range []string{"sign", "unsigned"} {
		p, err := Parse(mode, []byte("version = \"v1\"\nsigner.mode = \""+mode+"\"\n"))
		if err != nil {
			t.Fatal(err)
		}
		policies[mode] = p
	}
	policies["default"] = policies["sign"]
	w.start(policies)
	w.add(smallZone)
	w.runs("the parent is told", func(st ZoneStatus) bool {
		return len(st.Rollovers) == 1 && st.Rollovers[0].Kind == keymgr.RollSecure && st.Rollovers[0].Step == 2
	})
	if _, err := w.turn("unsigned"); !errors.Is(err, ErrState) || !strings.Contains(err.Error(), "was told to have a DS") {
		t.Fatalf("turns while a DS may come: %v", err)
	}
	w.rolls(RolloverRequest{Kind: keymgr.RollInsecure})
	w.await()
	if _, err := w.turn("unsigned"); !errors.Is(err, ErrState) || !strings.Contains(err.Error(), "was told to have a DS") {
		t.Fatalf("turns while the DS may come that the parent was told of before: %v", err)
	}
	w.runs("the end", quiet)
	if _, err := w.turn("unsigned"); err != nil {
		t.Fatal(err)
	}
	// Below a parent that is not signed nobody validates, whatever it was told.
	if _, err := w.turn("sign"); err != nil {
		t.Fatal(err)
	}
	w.runs("the parent is told", func(st ZoneStatus) bool { return len(st.Rollovers) == 1 && st.Rollovers[0].Step == 2 })
	o.mu.Lock()
	insecure = true
	o.mu.Unlock()
	if _, err := w.turn("unsigned"); err != nil {
		t.Error(err)
	}
}

// Of a zone with two algorithms the keys of one are exchanged, the oldest first.
func TestBegin_KeysOfOtherAlgorithmsStay(t *testing.T) {
	s := boundState(withKeys(keymgr.Active))
	for i, id := range []string{"k2", "z2"} {
		s.Keys.Keys = append(s.Keys.Keys, keymgr.Key{
			Key: event.Key{ID: id, Role: []string{"ksk", "zsk"}[i], Algorithm: 15}, State: keymgr.Active, Activated: noon.Add(-time.Hour),
		})
	}
	s.Keys.DS.Wanted = []string{"k1", "k2"}
	begin := func(q RolloverRequest) *event.RolloverStarted {
		do, _, err := s.Begin(Default(), Moment{Now: noon}, q, nil, func(spec keymgr.Spec, _ []uint16) (event.Key, error) {
			return event.Key{ID: "new", Role: string(spec.Role), Algorithm: spec.Algorithm}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		made, _ := do[0].(*event.KeyGenerated)
		started, _ := do[1].(*event.RolloverStarted)
		if made == nil || started == nil || len(started.Old) != 1 {
			t.Fatalf("%+v begins with %+v", q, do)
		}
		if k, _ := s.Keys.ByID(started.Old[0]); k.Algorithm != made.Keys[0].Algorithm || k.Role != made.Keys[0].Role {
			t.Errorf("%+v puts %+v in the place of %+v", q, made.Keys[0], k)
		}
		return started
	}
	for _, row := range []struct {
		kind      keymgr.Kind
		algorithm string
		want      string
	}{{keymgr.RollZSK, "", "z2"}, {keymgr.RollKSK, "", "k2"}, {keymgr.RollZSK, "ECDSAP256SHA256", "z1"}} {
		if got := begin(RolloverRequest{Kind: row.kind, Algorithm: row.algorithm}); got.Old[0] != row.want {
			t.Errorf("%s %s exchanges %v, want %s", row.kind, row.algorithm, got.Old, row.want)
		}
	}
}

func TestEvolve_WhatIsPassedThroughHasRolloversLookAnew(t *testing.T) {
	s := boundState(withKeys(keymgr.Active), withLoaded(5), withSigned(6, 5), asPublished)
	s.Keys.Rollovers = []keymgr.Rollover{{ID: 1, Kind: keymgr.RollZSK, Step: 1, Seen: noon, Wait: &event.Wait{Earliest: 1}}}
	s.Published.Signed.Facts.Mode = string(ModePassThrough)
	if r := evolveServed(s, nil).Keys.Rollovers[0]; !r.Seen.IsZero() || r.Wait != nil || r.Step != 1 {
		t.Errorf("%+v", r)
	}
}

func TestEngine_KeyThatSignsIsNotRemoved(t *testing.T) {
	w := newRolling(t, "")
	st := w.secure()
	if _, err := w.e.RemoveKey(t.Context(), testActor, "example.com", st.Keys[0].ID); err == nil {
		t.Error("a key that signs is removed")
	}
	keys, err := w.e.GenerateKey(t.Context(), testActor, "example.com", keymgr.ZSK, "", "")
	if err != nil {
		t.Fatal(err)
	}
	st, err = w.e.RemoveKey(t.Context(), testActor, "example.com", keys[0].ID)
	if err != nil || fmt.Sprint(inState(st.Keys, keymgr.Removed)) != "[zsk/13]" {
		t.Errorf("%v, %v", inState(st.Keys, keymgr.Removed), err)
	}
}

func TestEngine_PlannedRolloverBeginsInTime(t *testing.T) {
	w := newRolling(t, "")
	w.secure()
	start := w.h.now().Add(20 * time.Hour).Truncate(time.Second)
	st := w.rolls(RolloverRequest{Kind: keymgr.RollZSK, Start: start})
	if r := st.Rollovers[0]; r.Step != 0 || r.Until == nil || !r.Until.Equal(start) {
		t.Errorf("%+v", r)
	}
	plan, err := w.e.KeyPlan(t.Context(), "example.com", start.Add(time.Hour))
	if err != nil || len(plan) != 1 || !plan[0].Earliest.Equal(start) || plan[0].Step != 1 {
		t.Errorf("plan %+v, %v", plan, err)
	}
	w.h.move(start.Add(-time.Minute))
	if st = w.settle(); st.Rollovers[0].Step != 0 {
		t.Errorf("begins early: %+v", st.Rollovers[0])
	}
	w.h.move(start)
	if st = w.settle(); len(inState(st.Keys, keymgr.Published)) != 1 {
		t.Errorf("does not begin: %+v", st.Rollovers[0])
	}
	w.runs("the end", quiet)
}

func TestEngine_RemovedKeysAreDeletedInTime(t *testing.T) {
	w := newRolling(t, "[key-manager]\nauto-remove-delay = \"5d\"\n")
	w.secure()
	w.rolls(RolloverRequest{Kind: keymgr.RollZSK})
	st := w.runs("the end", quiet)
	i := slices.IndexFunc(st.Keys, func(k keymgr.Key) bool { return k.State == keymgr.Removed })
	gone := st.Keys[i]
	w.h.move(gone.Removed.Add(5*day - time.Minute))
	if st = w.settle(); !st.Keys[i].Destroyed.IsZero() {
		t.Error("deleted early")
	}
	if _, err := w.e.keystore.Signer(t.Context(), gone.Reference); err != nil {
		t.Errorf("before: %v", err)
	}
	w.h.move(gone.Removed.Add(5 * day))
	if st = w.settle(); st.Keys[i].Destroyed.IsZero() {
		t.Errorf("not deleted: %+v", st.Keys[i])
	}
	if _, err := w.e.keystore.Signer(t.Context(), gone.Reference); !errors.Is(err, keymgr.ErrNoKey) {
		t.Errorf("after: %v", err)
	}
}
