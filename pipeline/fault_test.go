package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/journal/journaltest"
	"sluice/pipeline/store"
)

// hourASecond is a rehearsal's clock, so that back-off takes no real time.
func hourASecond() Clock {
	return NewRehearsal(time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC), 3600)
}

// TestEngine_AFaultAtEveryWrite fails each write of a zone's way from source
// to publication and through a reload, stored or not, and wants the zone to
// arrive all the same, after a restart too.
func TestEngine_AFaultAtEveryWrite(t *testing.T) {
	changed := strings.Replace(smallZone, "192.0.2.80", "192.0.2.81", 1)
	for n := 0; ; n++ {
		met := false
		for _, persisted := range []bool{false, true} {
			t.Run(fmt.Sprintf("write %d, stored %v", n, persisted), func(t *testing.T) {
				j := journaltest.New()
				r := &rig{t: t, dir: t.TempDir(), journal: j, clock: hourASecond()}
				r.start(nil)
				j.FailAt(n, persisted)
				ctx := t.Context()
				z := NewZone{Name: "example.com", Source: r.zoneFile(smallZone)}
				if _, err := r.e.AddZone(ctx, testActor, z); err != nil && !persisted {
					if _, err = r.e.AddZone(ctx, testActor, z); err != nil {
						t.Fatal(err)
					}
				}
				arrives := func(address string) {
					until(t, "the zone is published with "+address, func() bool {
						st, err := r.e.Zone(ctx, "example.com")
						return err == nil && st.Published != nil && strings.Contains(r.dump(), address) && newestServed(r)
					})
				}
				arrives("192.0.2.80")
				r.zoneFile(changed)
				for range 2 { // one request may be lost with the fault
					if err := r.e.Reload(ctx, testActor, "example.com", false); err != nil {
						t.Fatal(err)
					}
					r.await()
				}
				arrives("192.0.2.81")
				met = met || j.Failed()
				served := r.served()
				r.stop()
				r.journal = j.Reopen()
				r.start(nil)
				if r.served() != served {
					t.Error("after a restart something else is served")
				}
				replayAll(t, r)
			})
		}
		if !met {
			if n < 10 {
				t.Errorf("only %d writes met", n)
			}
			return
		}
	}
}

// newestServed reports whether what was loaded last is what is served.
func newestServed(r *rig) bool {
	z, err := r.e.find("example.com")
	if err != nil {
		return false
	}
	s := z.snapshot()
	return s.Loaded != nil && s.Published != nil && s.Published.Loaded.Seq == s.Loaded.Seq
}

// replayAll wants every digest rebuilt as it was recorded.
func replayAll(t *testing.T, r *rig) {
	t.Helper()
	if err := r.e.Replay(t.Context(), "example.com", "", true, nil, func(ReplayStep) error { return nil }); err != nil {
		t.Error(err)
	}
}

func TestEngine_LostChunksAreMadeAnew(t *testing.T) {
	j := journaltest.New()
	r := &rig{t: t, dir: t.TempDir(), journal: j, clock: hourASecond()}
	r.start(nil)
	r.add(smallZone)
	r.stop()
	st, err := j.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for seq := st.Bulk.FirstSeq; seq <= st.Bulk.LastSeq; seq++ {
		j.SetChunk(seq, nil)
	}
	if err := os.RemoveAll(filepath.Join(r.dir, "projections")); err != nil {
		t.Fatal(err)
	}
	r.start(nil)
	until(t, "the zone is loaded and signed anew", func() bool {
		st, err := r.e.Zone(t.Context(), "example.com")
		return err == nil && st.State == "published" && st.Published.Instance != "s6"
	})
	if rep, err := r.e.VerifyZone(t.Context(), "example.com", nil); err != nil || !rep.OK() {
		t.Errorf("verify: %v, %v", err, rep)
	}
}

// sweptMeanwhile sweeps the chunks of each kind of instance once, just before the
// event that names them is appended.
type sweptMeanwhile struct {
	*journaltest.Memory
	mu   sync.Mutex
	done map[string]bool // guarded by mu; by type of event
}

func (j *sweptMeanwhile) Append(ctx context.Context, zone event.ZoneID, head journal.Head, events ...event.Event) (journal.Head, error) {
	for _, ev := range events {
		for _, m := range event.Manifests(ev.Facts) {
			j.mu.Lock()
			done := j.done[ev.Type]
			j.done[ev.Type] = true
			j.mu.Unlock()
			if done {
				continue
			}
			if _, err := j.Memory.Append(ctx, zone, head, event.New(ev.Time, zone, event.Program, &event.BulkSwept{Chunks: m.Count})); err != nil {
				return head, err
			}
			for _, c := range m.Chunks {
				j.SetChunk(c.Seq, nil)
			}
		}
	}
	return j.Memory.Append(ctx, zone, head, events...)
}

// A command whose chunks were swept before it could name them sends them again.
func TestEngine_SweptChunksAreSentAgain(t *testing.T) {
	j := &sweptMeanwhile{Memory: journaltest.New(), done: map[string]bool{}}
	r := newRig(t, j, nil)
	if st := r.add(smallZone); st.Published == nil || st.LastError != "" || len(j.done) != 2 {
		t.Fatalf("published %+v, error %q, swept %v", st.Published, st.LastError, j.done)
	}
	if n := r.countType("instance.loaded") + r.countType("instance.signed"); n != 2 {
		t.Errorf("%d instances, want one of each kind", n)
	}
	rep, err := journal.Verify(t.Context(), j, journal.VerifyOptions{Chunks: true})
	if err != nil || rep.FaultCount != 0 || rep.Manifests != 2 {
		t.Errorf("the journal names chunks that it does not hold: %+v, %v", rep.Faults, err)
	}
}

func TestEngine_SignaturesAreMadeAgainInTime(t *testing.T) {
	r := &rig{t: t, dir: t.TempDir(), journal: journaltest.New()}
	r.clock = NewRehearsal(time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC), 86400*10)
	r.start(nil)
	first := r.add(smallZone)
	until(t, "ten versions later", func() bool {
		n := 0
		err := r.e.History(t.Context(), "example.com", HistoryQuery{Types: []string{"instance.published"}}, func(HistoryLine) error {
			n++
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		st, err := r.e.Zone(t.Context(), "example.com")
		if err != nil {
			t.Fatal(err)
		}
		if st.NextExpiry != nil && r.clock.Now().After(*st.NextExpiry) {
			t.Fatalf("signatures expired at %s, now %s", st.NextExpiry, r.clock.Now())
		}
		return n > 10
	})
	if st, _ := r.e.Zone(t.Context(), "example.com"); st.Published.Serial == first.Published.Serial {
		t.Error("the serial did not move")
	}
}

func TestEngine_DamagedProjectionIsRebuilt(t *testing.T) {
	r := newRig(t, journaltest.New(), nil)
	r.add(smallZone)
	served := r.served()
	r.stop()
	files, err := filepath.Glob(filepath.Join(r.dir, "projections", "*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		if strings.Contains(filepath.Base(f), "MANIFEST") {
			if err := os.WriteFile(f, []byte("nothing of use"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	r.start(nil)
	if r.served() != served {
		t.Error("what is served differs after the rebuild")
	}
}

func TestEngine_EventsThatTheJournalLostAreAnAlarm(t *testing.T) {
	mem := journaltest.New()
	r := newRig(t, mem, nil)
	r.add(smallZone)
	_, last, err := mem.Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.reload(strings.Replace(smallZone, "192.0.2.80", "192.0.2.81", 1))
	r.stop()
	r.start(nil)
	if alarms := r.e.Alarms(); len(alarms) != 0 {
		t.Errorf("alarms of a whole journal: %q", alarms)
	}
	r.stop()
	mem.Truncate(last)
	r.start(nil)
	want := fmt.Sprintf("the journal ends at event %d,", last)
	if alarms := r.e.Alarms(); len(alarms) != 1 || !strings.Contains(alarms[0], want) {
		t.Errorf("alarms %q, want one with %q", alarms, want)
	}
}

// TestEngine_ProjectionOfAnotherProgramIsRebuilt starts on what an older program
// leaves that met an event which it had to understand and did not.
func TestEngine_ProjectionOfAnotherProgramIsRebuilt(t *testing.T) {
	mem := journaltest.New()
	r := newRig(t, mem, nil)
	r.add(smallZone)
	served := r.served()
	r.stop()
	dir := filepath.Join(r.dir, "projections")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	identity, _, err := mem.Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	older, err := store.Open(dir, store.Config{Stream: identity, Events: "fewer"})
	if err != nil {
		t.Fatal(err)
	}
	err = mem.Read(t.Context(), "", 1, 0, func(rec journal.Record) error {
		if rec.Event.Zone == event.Instance {
			return older.Apply(t.Context(), rec, nil)
		}
		data, err := json.Marshal(State{Zone: rec.Event.Zone, Name: "example.com.", Head: rec.Head(), Halted: &Halt{Seq: 1, Reason: "it needs a newer program"}})
		if err != nil {
			return err
		}
		return older.Skip(t.Context(), rec, store.ZoneState{Zone: rec.Event.Zone, Data: data})
	})
	if err = errors.Join(err, older.Close()); err != nil {
		t.Fatal(err)
	}
	r.start(nil)
	if r.served() != served {
		t.Error("what is served differs")
	}
	st, err := r.e.Zone(t.Context(), "example.com.")
	if err != nil || slices.ContainsFunc(st.Notices, func(n Notice) bool { return n.Code == NoticeZoneBroken }) {
		t.Errorf("notices %+v, error %v", st.Notices, err)
	}
}

func TestEngine_UnknownEventHaltsItsZoneAlone(t *testing.T) {
	s := boundState(withKeys("active"), withLoaded(5))
	rec := recordOf(t, 9, event.Event{Type: "zone.teleported", MustUnderstand: true})
	if got := Evolve(s, rec, ""); got.Halted == nil || len(Decide(got, Default(), Moment{Now: noon}).Commands) != 0 {
		t.Error("the zone goes on")
	}
	rec = recordOf(t, 9, event.Event{Type: "zone.admired"})
	if got := Evolve(s, rec, ""); got.Halted != nil || len(Decide(got, Default(), Moment{Now: noon}).Commands) == 0 {
		t.Error("the zone stopped at an event that it may pass over")
	}
}

// What others published behind an event that this program had to understand and
// does not is not served: its state does not say what that is.
func TestEngine_HaltedZoneStaysAsItIsServed(t *testing.T) {
	r := reviewRig(t, signedManual)
	r.add(smallZone)
	r.approve(event.StageSigned)
	served := r.served()
	r.reload(strings.Replace(smallZone, "192.0.2.80", "192.0.2.81", 1))
	s := r.zone()
	if s.Signed.Seq == s.Published.Signed.Seq {
		t.Fatal("nothing waits to be published")
	}
	r.stop()
	at := r.e.clock.Now().Truncate(time.Microsecond)
	f := s.Signed.Facts
	_, err := r.journal.Append(t.Context(), s.Zone, s.Head,
		event.Event{Type: "zone.teleported", Time: at, Zone: s.Zone, Actor: testActor, MustUnderstand: true, Raw: []byte("{}")},
		event.New(at, s.Zone, testActor, &event.InstancePublished{Signed: s.Signed.Seq, Loaded: f.Loaded, Serial: f.Serial, SignedDigest: f.SignedDigest}))
	if err != nil {
		t.Fatal(err)
	}
	for _, how := range []string{"gone on with", "built anew"} {
		r.start(r.policies)
		if got := r.zone(); got.Halted == nil || r.served() != served {
			t.Errorf("projection %s: halted %+v, served as before: %v", how, got.Halted, r.served() == served)
		}
		r.stop()
		if err := os.RemoveAll(filepath.Join(r.dir, "projections")); err != nil {
			t.Fatal(err)
		}
	}
}
