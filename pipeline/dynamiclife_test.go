package pipeline

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"sluice/journal/event"
	"sluice/journal/journaltest"
)

// While one instance is under review, further updates are taken and wait; they
// merge into the one after it.
func TestUpdate_WaitsForTheReviewBeforeIt(t *testing.T) {
	r := newUpdated(t, loadedManual+allUpdates)
	r.add(smallZone)
	r.approve(event.StageLoaded)
	insert := func(lines ...string) {
		t.Helper()
		if got := r.update(func(m *dns.Msg) { m.Insert(rrs(t, lines...)) }); got != "NOERROR" {
			t.Fatalf("%v: answered %s", lines, got)
		}
	}
	insert("one 60 A 192.0.2.1")
	under := r.await().Reviews[0].Instance
	insert("two 60 A 192.0.2.2")
	insert("three 60 A 192.0.2.3")
	// What waits counts for what an update requires.
	if got := r.update(func(m *dns.Msg) { m.NameUsed(rrs(t, "one A 192.0.2.1", "two A 192.0.2.1")) }); got != "NOERROR" {
		t.Errorf("names that wait are in use: answered %s", got)
	}
	st := r.await()
	if len(st.Reviews) != 1 || st.Reviews[0].Instance != under || st.Updates.Waiting != 2 {
		t.Fatalf("under review %+v, updates %+v", st.Reviews, st.Updates)
	}
	st = r.approve(event.StageLoaded)
	if len(st.Reviews) != 1 || st.Reviews[0].Instance == under || st.Updates.Waiting != 0 || st.Updates.Taken != 3 {
		t.Fatalf("then under review %+v, updates %+v", st.Reviews, st.Updates)
	}
	r.approve(event.StageLoaded)
	for _, name := range []string{"one", "two", "three"} {
		if !strings.Contains(r.dump(), name+".example.com.") {
			t.Errorf("%s is not published", name)
		}
	}
}

// What a review refuses is dropped; what was accepted after it stays, as far as it
// still has a place.
func TestUpdate_AfterARejectedOneStays(t *testing.T) {
	r := newUpdated(t, loadedManual+allUpdates)
	r.add(smallZone)
	r.approve(event.StageLoaded)
	for _, fill := range []func(*dns.Msg){
		func(m *dns.Msg) { m.Insert(rrs(t, "bad 60 A 192.0.2.66")) },
		func(m *dns.Msg) { m.Insert(rrs(t, "good 60 A 192.0.2.1")) },
	} {
		if got := r.update(fill); got != "NOERROR" {
			t.Fatalf("answered %s", got)
		}
		r.await()
	}
	r.reject(event.StageLoaded)
	r.approve(event.StageLoaded)
	text := r.dump()
	if strings.Contains(text, "bad.example.com.") || !strings.Contains(text, "good.example.com.") {
		t.Errorf("published:\n%s", text)
	}
}

// An update that was acknowledged is not lost, though the process ended before
// anything was made of it, and the projection is rebuilt from the journal.
func TestUpdate_AcknowledgedOutlivesProcessAndProjection(t *testing.T) {
	r := newUpdated(t, loadedManual+allUpdates)
	policies := map[string]Policy{"default": reviewPolicy(t, loadedManual+allUpdates)}
	r.add(smallZone)
	r.approve(event.StageLoaded)
	for i := range 3 {
		if got := r.update(func(m *dns.Msg) { m.Insert(rrs(t, fmt.Sprintf("h%d 60 A 192.0.2.%d", i, i))) }); got != "NOERROR" {
			t.Fatalf("answered %s", got)
		}
		r.await()
	}
	hash := r.liveHash()
	r.stop()
	if err := os.RemoveAll(filepath.Join(r.dir, "projections")); err != nil {
		t.Fatal(err)
	}
	r.start(policies)
	if r.liveHash() != hash {
		t.Error("the projection's keys and values differ after the rebuild")
	}
	if st := r.await(); st.Updates.Waiting != 2 {
		t.Fatalf("updates after the rebuild: %+v", st.Updates)
	}
	r.approve(event.StageLoaded)
	r.approve(event.StageLoaded)
	if text := r.dump(); !strings.Contains(text, "h0.example.com.") || !strings.Contains(text, "h2.example.com.") {
		t.Errorf("published:\n%s", text)
	}
	err := r.e.Replay(t.Context(), "example.com", "", true, nil, func(s ReplayStep) error {
		if !s.Equal {
			t.Errorf("%s differs", s.Instance)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// Once updates were taken the source was the beginning alone.
func TestUpdate_SourceIsReadAgainOnlyWhereSomebodySaysSo(t *testing.T) {
	r := newUpdated(t, allUpdates)
	r.add(smallZone)
	ctx := t.Context()
	if err := r.e.Reload(ctx, testActor, "example.com", false); err != nil {
		t.Errorf("a reload before the first update: %v", err)
	}
	r.await()
	if got := r.update(func(m *dns.Msg) {
		m.Insert(rrs(t, "new 60 A 192.0.2.9", "new 60 A 192.0.2.10"))
		m.RemoveName(rrs(t, "www A 192.0.2.80"))
	}); got != "NOERROR" {
		t.Fatalf("answered %s", got)
	}
	r.await()
	err := r.e.Reload(ctx, testActor, "example.com", false)
	if !errors.Is(err, ErrState) || !strings.Contains(err.Error(), "sluice zone reload --full example.com.") {
		t.Errorf("a reload: %v", err)
	}
	err = r.e.Reload(ctx, testActor, "example.com", true)
	if !errors.Is(err, ErrState) || !strings.Contains(err.Error(), "2 records of it are not in its source and would go, 1 would come back") {
		t.Errorf("a reload in full: %v", err)
	}
	if text := r.dump(); !strings.Contains(text, "new.example.com.") {
		t.Error("the update is gone")
	}
	if err := r.e.Replace(ctx, testActor, "example.com"); err != nil {
		t.Fatal(err)
	}
	st := r.await()
	if text := r.dump(); strings.Contains(text, "new.example.com.") || !strings.Contains(text, "www.example.com.") || st.Updates.Taken != 0 {
		t.Errorf("after the replacement, updates %+v:\n%s", st.Updates, text)
	}
	if err := r.e.Reload(ctx, testActor, "example.com", false); err != nil {
		t.Errorf("a reload afterwards: %v", err)
	}
}

// Another source takes the place of the zone's contents. Updates are not taken
// until it was read: they would be lost with those, or keep it from being read.
func TestUpdate_WaitsForAnotherSource(t *testing.T) {
	for name, updated := range map[string]bool{"plain zone": false, "updated zone": true} {
		t.Run(name, func(t *testing.T) {
			r := newUpdated(t, allUpdates)
			ctx := t.Context()
			r.add(smallZone)
			insert := func(name string) string {
				return r.update(func(m *dns.Msg) { m.Insert(rrs(t, name+" 60 A 192.0.2.9")) })
			}
			if updated {
				if got := insert("old"); got != "NOERROR" {
					t.Fatalf("answered %s", got)
				}
				r.await()
			}
			file := filepath.Join(t.TempDir(), "other")
			if _, err := r.e.SetZone(ctx, testActor, "example.com", ZoneChange{Source: file}); err != nil {
				t.Fatal(err)
			}
			r.await()
			if got := insert("early"); got != "SERVFAIL" {
				t.Errorf("before the other source is there: answered %s", got)
			}
			if err := os.WriteFile(file, []byte(smallZone), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := r.e.Reload(ctx, testActor, "example.com", false); err != nil {
				t.Fatal(err)
			}
			r.await()
			if got := r.state().Loaded.Facts.Source; got != file {
				t.Fatalf("loaded from %s", got)
			}
			if got := insert("late"); got != "NOERROR" {
				t.Errorf("once it was read: answered %s", got)
			}
			r.await()
			if text := r.dump(); strings.Contains(text, "old.example.com.") || strings.Contains(text, "early.example.com.") || !strings.Contains(text, "late.example.com.") {
				t.Errorf("published:\n%s", text)
			}
		})
	}
}

// Updates are taken of a zone whose other source holds the same as the one before.
func TestUpdate_AfterAnotherSourceOfTheSameContents(t *testing.T) {
	r := newUpdated(t, allUpdates)
	r.add(smallZone)
	file := filepath.Join(t.TempDir(), "copy")
	if err := os.WriteFile(file, []byte(smallZone), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.e.SetZone(t.Context(), testActor, "example.com", ZoneChange{Source: file}); err != nil {
		t.Fatal(err)
	}
	r.await()
	if got := r.update(func(m *dns.Msg) { m.Insert(rrs(t, "late 60 A 192.0.2.9")) }); got != "NOERROR" {
		t.Errorf("answered %s", got)
	}
}

func TestUpdate_ZoneWithoutAFile(t *testing.T) {
	r := newUpdated(t, allUpdates)
	ctx := t.Context()
	if _, err := r.e.AddZone(ctx, testActor, NewZone{Name: "example.com", Source: "update:ns1.example.net,NS2.example.net."}); err != nil {
		t.Fatal(err)
	}
	st := r.await()
	if st.State != "published" || st.Source != "update:ns1.example.net.,NS2.example.net." {
		t.Fatalf("%+v", st)
	}
	if got := r.update(func(m *dns.Msg) { m.Insert(rrs(t, "www 60 A 192.0.2.9")) }); got != "NOERROR" {
		t.Fatalf("answered %s", got)
	}
	r.await()
	want := []string{
		"example.com. 3600 IN NS NS2.example.net.", "example.com. 3600 IN NS ns1.example.net.", "www.example.com. 60 IN A 192.0.2.9",
	}
	if diff := cmp.Diff(want, r.contents()); diff != "" {
		t.Error(diff)
	}
}

func TestAddZone_SourceAndUpdatesMustFit(t *testing.T) {
	r := newRig(t, journaltest.New(), map[string]Policy{"default": reviewPolicy(t, ""), "dyn": newPolicyOf(t, "dyn", allUpdates)})
	for _, tc := range []struct{ source, policy, want string }{
		{"update:ns1.example.net", "default", "add a [[loader.update]] rule"},
		{"update:", "dyn", "names no name server"},
		{"192.0.2.1", "dyn", "would undo them"},
	} {
		_, err := r.e.AddZone(t.Context(), testActor, NewZone{Name: "example.com", Source: tc.source, Policy: tc.policy})
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s with %s: %v", tc.source, tc.policy, err)
		}
	}
}

func newPolicyOf(t *testing.T, name, text string) Policy {
	t.Helper()
	p, err := Parse(name, []byte("version = \"v1\"\n"+text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A zone that is held, in maintenance or halted takes no updates; a rollback and
// its release leave alone what updates made.
func TestUpdate_WhileAZoneIsHeld(t *testing.T) {
	r := newUpdated(t, allUpdates)
	before := r.add(smallZone)
	insert := func(name string) string {
		return r.update(func(m *dns.Msg) { m.Insert(rrs(t, name+" 60 A 192.0.2.9")) })
	}
	if got := insert("one"); got != "NOERROR" {
		t.Fatalf("answered %s", got)
	}
	r.await()
	if _, err := r.e.SetMaintenance(t.Context(), testActor, "example.com", true, "test"); err != nil {
		t.Fatal(err)
	}
	if got := insert("two"); got != "SERVFAIL" {
		t.Errorf("in maintenance: answered %s", got)
	}
	if _, err := r.e.SetMaintenance(t.Context(), testActor, "example.com", false, "test"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.e.Rollback(t.Context(), testActor, "example.com", RollbackRequest{To: fmt.Sprint(before.Published.Serial), Reason: "test"}); err != nil {
		t.Fatal(err)
	}
	r.await()
	if got := insert("two"); got != "SERVFAIL" || strings.Contains(r.dump(), "one.example.com.") {
		t.Errorf("held: answered %s", got)
	}
	if _, err := r.e.Release(t.Context(), testActor, "example.com", "test"); err != nil {
		t.Fatal(err)
	}
	st := r.await()
	if st.Held != nil || r.state().Released != nil {
		t.Errorf("after the release: held %+v, release %+v", st.Held, r.state().Released)
	}
	if got := insert("two"); got != "NOERROR" {
		t.Errorf("after the release: answered %s", got)
	}
	r.await()
	if text := r.dump(); strings.Contains(text, "one.example.com.") || !strings.Contains(text, "two.example.com.") {
		t.Errorf("published:\n%s", text)
	}
}

// Retention purges what instances have of updates, and never what still waits.
func TestRetention_KeepsUpdatesThatWait(t *testing.T) {
	z := &pastZone{}
	publish := func(l uint64) {
		s := z.add(&event.InstanceSigned{Loaded: l, Manifest: z.manifest(60)})
		z.add(&event.InstancePublished{Signed: s, Loaded: l})
	}
	publish(z.add(&event.InstanceLoaded{Manifest: z.manifest(40)}))
	taken := z.add(&event.UpdateAccepted{Updates: []event.AcceptedUpdate{{Added: 1}}, Manifest: z.manifest(1)})
	waits := z.add(&event.UpdateAccepted{Updates: []event.AcceptedUpdate{{Added: 1}}, Manifest: z.manifest(1)})
	publish(z.add(&event.InstanceLoaded{Manifest: z.manifest(40), Transfer: event.ByUpdate, Updates: 1, UpdatesTo: taken}))
	h := &holdings{}
	for _, rec := range z.recs {
		h.take(rec)
	}
	h.settle()
	purged := map[uint64]bool{}
	for _, n := range h.plan(h.oldest(RetentionPolicy{Versions: 1}, z.recs[len(z.recs)-1].Event.Time, 0)).purge {
		purged[n.seq] = true
	}
	if !purged[1] || !purged[taken] || purged[waits] {
		t.Errorf("purged %v, where l1 and update %d are to go and update %d to stay", purged, taken, waits)
	}
}
