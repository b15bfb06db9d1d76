package pipeline

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

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

// contentOf is the contents of a version as text, the SOA left out.
func (r *rig) contentOf(q DumpQuery) string {
	r.t.Helper()
	var b bytes.Buffer
	q.Loaded = true
	if err := r.e.Dump(r.t.Context(), "example.com", q, &b); err != nil {
		r.t.Fatal(err)
	}
	var keep []string
	for line := range strings.Lines(b.String()) {
		if !strings.Contains(line, "\tSOA\t") && !strings.Contains(line, " SOA ") {
			keep = append(keep, line)
		}
	}
	return strings.Join(keep, "")
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
	if s := r.snapshot(); s.Released != nil {
		t.Error("the comparison with the source is not over")
	}
	if _, err := r.e.Release(t.Context(), testActor, "example.com", ""); !errors.Is(err, ErrState) {
		t.Errorf("a second release: %v", err)
	}
	replayAll(t, r)
}

func (r *rig) snapshot() State {
	r.t.Helper()
	z, err := r.e.find("example.com")
	if err != nil {
		r.t.Fatal(err)
	}
	return z.snapshot()
}

func serialPolicy(t *testing.T, policy string) map[string]Policy {
	t.Helper()
	p, err := Parse("default", fmt.Appendf(nil, "version = \"v1\"\n[signer]\nserial-policy = %q\n", policy))
	if err != nil {
		t.Fatal(err)
	}
	return map[string]Policy{"default": p}
}

var _ = event.StageSigned
