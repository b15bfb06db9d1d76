package pipeline

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/journal/journaltest"
	"sluice/signer/zone"
)

// zoneOf is a small zone with one address that differs from version to version.
func zoneOf(serial int, more ...string) string {
	text := strings.Replace(smallZone, "hostmaster 7 ", fmt.Sprintf("hostmaster %d ", serial), 1)
	text = strings.Replace(text, "192.0.2.80", fmt.Sprintf("192.0.2.%d", 80+serial-7), 1)
	return text + strings.Join(more, "\n") + "\n"
}

func (r *rig) rollBack(q RollbackRequest) RollbackPlan {
	r.t.Helper()
	if q.Reason == "" {
		q.Reason = "yesterday's was right"
	}
	plan, err := r.e.Rollback(r.t.Context(), testActor, "example.com", q)
	if err != nil {
		r.t.Fatal(err)
	}
	return plan
}

func (r *rig) release() ZoneStatus {
	r.t.Helper()
	if _, err := r.e.Release(r.t.Context(), testActor, "example.com", "the source is right"); err != nil {
		r.t.Fatal(err)
	}
	return r.await()
}

func TestRollback_PublishesTheOldContentUnderAHigherSerialAndHoldsIt(t *testing.T) {
	r := newRig(t, journaltest.New(), serialPolicy(t, "counter"))
	first := r.add(zoneOf(7))
	digest := first.Loaded.ContentDigest
	r.reload(zoneOf(8, "new IN A 192.0.2.99"))
	second := r.reload(zoneOf(9, "newer IN A 192.0.2.98"))

	plan := r.rollBack(RollbackRequest{To: fmt.Sprint(first.Published.Serial)})
	if !plan.Done || plan.DSChanges+plan.NSChanges != 0 || plan.Removed != 3 || plan.Added != 2 {
		t.Errorf("plan %+v", plan)
	}
	st := r.await()
	if st.Published.Serial != plan.NextSerial || !zone.Serial(second.Published.Serial).Before(zone.Serial(st.Published.Serial)) {
		t.Errorf("serial %d after %d, planned %d", st.Published.Serial, second.Published.Serial, plan.NextSerial)
	}
	if st.Published.ContentDigest != digest {
		t.Errorf("content digest %s, want the old version's %s", st.Published.ContentDigest, digest)
	}
	if st.Held == nil || !st.Held.Published || st.State != "published, held" || !strings.Contains(st.WaitsFor, "release") {
		t.Errorf("state %q, waits for %q, held %+v", st.State, st.WaitsFor, st.Held)
	}
	if rep, err := r.e.VerifyZone(t.Context(), "example.com", nil); err != nil || !rep.OK() {
		t.Errorf("verify: %v, %v", err, rep)
	}
	if err := r.e.Reload(t.Context(), testActor, "example.com", false); !errors.Is(err, ErrState) || !strings.Contains(err.Error(), "zone release") {
		t.Errorf("a reload of a held zone: %v", err)
	}
	replayAll(t, r)

	r.stop()
	r.start(serialPolicy(t, "counter"))
	if again := r.await(); again.Published.Serial != st.Published.Serial || again.Held == nil {
		t.Errorf("after a restart serial %d, held %v", again.Published.Serial, again.Held)
	}
	st = r.release()
	if st.Held != nil || st.Published.ContentDigest != second.Loaded.ContentDigest || st.Loaded.Serial != 9 {
		t.Errorf("released: held %v, loaded %d, content %s", st.Held, st.Loaded.Serial, st.Published.ContentDigest)
	}
	if s := r.zone(); s.Released != nil {
		t.Error("the comparison with the source is not over")
	}
	if _, err := r.e.Release(t.Context(), testActor, "example.com", ""); !errors.Is(err, ErrState) {
		t.Errorf("a second release: %v", err)
	}
	replayAll(t, r)
}

func serialPolicy(t *testing.T, policy string) map[string]Policy {
	t.Helper()
	p, err := Parse("default", fmt.Appendf(nil, "version = \"v1\"\n[signer]\nserial-policy = %q\n", policy))
	if err != nil {
		t.Fatal(err)
	}
	return map[string]Policy{"default": p}
}

// published is every version that was published, oldest first.
func (r *rig) published() []event.InstancePublished {
	r.t.Helper()
	var all []event.InstancePublished
	err := r.journal.Read(r.t.Context(), r.zone().Zone, 1, 0, func(rec journal.Record) error {
		if f, ok := rec.Event.Facts.(*event.InstancePublished); ok {
			all = append(all, *f)
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

// serialsRise wants each published serial after the one before.
func (r *rig) serialsRise() {
	r.t.Helper()
	all := r.published()
	for i := 1; i < len(all); i++ {
		if !zone.Serial(all[i-1].Serial).Before(zone.Serial(all[i].Serial)) {
			r.t.Errorf("serial %d was published after %d", all[i].Serial, all[i-1].Serial)
		}
	}
}

func TestRollback_ChangesOfDelegationsWantToBeConfirmed(t *testing.T) {
	r := newRig(t, journaltest.New(), serialPolicy(t, "counter"))
	first := r.add(zoneOf(7))
	other := strings.ReplaceAll(zoneOf(8, "more IN NS ns.example.net."), "12345 13 2", "54321 13 2")
	second := r.reload(other)
	to := fmt.Sprint(first.Published.Serial)
	want := []DiffLine{
		{Removed: true, Record: "more.example.com.\t3600\tIN\tNS\tns.example.net."},
		{Removed: true, Record: "secure.example.com.\t3600\tIN\tDS\t54321 13 2 " + strings.ToUpper(someDigest)},
		{Record: "secure.example.com.\t3600\tIN\tDS\t12345 13 2 " + strings.ToUpper(someDigest)},
	}
	plan := r.rollBack(RollbackRequest{To: to})
	if diff := cmp.Diff(want, plan.Differences); diff != "" || plan.DSChanges != 2 || plan.NSChanges != 1 || plan.Done {
		t.Errorf("done %v, %d DS, %d NS, differences (-want +got):\n%s", plan.Done, plan.DSChanges, plan.NSChanges, diff)
	}
	if again := r.rollBack(RollbackRequest{To: to, Confirm: strings.Repeat("0", 64)}); again.Done || again.Confirm != plan.Confirm {
		t.Errorf("the digest of other differences confirms these: %+v", again)
	}
	if st := r.await(); st.Published.Serial != second.Published.Serial || st.Held != nil {
		t.Error("something was changed before it was confirmed")
	}
	if done := r.rollBack(RollbackRequest{To: to, Confirm: plan.Confirm}); !done.Done {
		t.Error("their own digest does not confirm the differences")
	}
	if st := r.await(); st.Published.ContentDigest != first.Published.ContentDigest {
		t.Error("not the old content")
	}
	held := r.zone().Held
	if held.Facts.DSChanges != 2 || held.Facts.NSChanges != 1 || held.Facts.FromSerial != second.Published.Serial {
		t.Errorf("the event says %+v", held.Facts)
	}
}

func TestRollback_IsRefusedWhereItCannotBeDone(t *testing.T) {
	keep := serialPolicy(t, "keep")
	keep["strict"] = serialPolicy(t, "keep-strict")["default"]
	r := newRig(t, journaltest.New(), keep)
	first := r.add(zoneOf(7))
	r.reload(zoneOf(8))
	for _, tt := range []struct {
		fact string
		q    RollbackRequest
		kind error
		want string
	}{
		{"no reason", RollbackRequest{To: "7"}, ErrInvalid, "needs a reason"},
		{"no version", RollbackRequest{Reason: "x"}, ErrInvalid, "no version is named"},
		{"a serial that never was", RollbackRequest{To: "6", Reason: "x"}, ErrNotFound, "no version has the serial 6"},
		{"an event that is no instance", RollbackRequest{To: "s2", Reason: "x"}, ErrNotFound, "no instance of sequence 2"},
		{"what is published", RollbackRequest{To: "8", Reason: "x"}, ErrState, "that very content, as serial 8"},
		{"a long reason", RollbackRequest{To: "7", Reason: strings.Repeat("x", 2001)}, ErrInvalid, "longer than 2000 bytes"},
	} {
		_, err := r.e.Rollback(t.Context(), testActor, "example.com", tt.q)
		if !errors.Is(err, tt.kind) || !strings.Contains(fmt.Sprint(err), tt.want) {
			t.Errorf("%s: %v, want %q", tt.fact, err, tt.want)
		}
	}
	if _, err := r.turn("strict"); err != nil {
		t.Fatal(err)
	}
	_, err := r.e.Rollback(t.Context(), testActor, "example.com", RollbackRequest{To: "7", Reason: "x"})
	if !errors.Is(err, ErrState) || !strings.Contains(err.Error(), "publish its content at the source with a higher one") {
		t.Errorf("under keep-strict: %v", err)
	}
	if _, err := r.turn("default"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.e.SetMaintenance(t.Context(), testActor, "example.com", true, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := r.e.Rollback(t.Context(), testActor, "example.com", RollbackRequest{To: "7", Reason: "x"}); !errors.Is(err, ErrState) {
		t.Errorf("in maintenance: %v", err)
	}
	if st := r.await(); st.Published.Serial != 8 || st.Held != nil || st.Published.ContentDigest == first.Published.ContentDigest {
		t.Errorf("serial %d, held %v", st.Published.Serial, st.Held)
	}
}

// Under keep the version has the published serial plus one, until the source's
// is higher.
func TestRollback_SerialKeepGoesOnFromThePublishedOne(t *testing.T) {
	r := newRig(t, journaltest.New(), serialPolicy(t, "keep"))
	first := r.add(zoneOf(7))
	r.reload(zoneOf(10))
	plan := r.rollBack(RollbackRequest{To: "7"})
	if st := r.await(); plan.NextSerial != 11 || st.Published.Serial != 11 || st.Published.ContentDigest != first.Published.ContentDigest {
		t.Errorf("planned %d, published %d", plan.NextSerial, st.Published.Serial)
	}
	if st := r.release(); st.Published.Serial != 12 || st.Loaded.Serial != 10 {
		t.Errorf("released: published %d, loaded %d", st.Published.Serial, st.Loaded.Serial)
	}
	if st := r.reload(zoneOf(13)); st.Published.Serial != 13 {
		t.Errorf("the source's serial is higher again: published %d", st.Published.Serial)
	}
	r.serialsRise()
}

func TestNoVersion_SaysWhatThereIs(t *testing.T) {
	serial := uint32(7)
	at := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	for want, got := range map[string]string{
		"no published version has the serial 7, but l12 has it": noVersion(DumpQuery{Serial: &serial}, 12),
		"no loaded version has the serial 7, but s13 has it":    noVersion(DumpQuery{Serial: &serial, Loaded: true}, 13),
		"no version has the serial 7":                           noVersion(DumpQuery{Serial: &serial}, 0),
		"no version was published by 2026-05-01T00:00:00Z":      noVersion(DumpQuery{At: at}, 0),
		"no version was loaded up to event 4":                   noVersion(DumpQuery{Seq: 4, Loaded: true}, 0),
		"no version was published yet":                          noVersion(DumpQuery{}, 0),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
