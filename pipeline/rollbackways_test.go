package pipeline

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/journal/journaltest"
	"sluice/keymgr"
	"sluice/signer/zone"
	"sluice/xfr"
)

func TestDecide_HeldZoneMakesItsContentOnce(t *testing.T) {
	p := Default()
	held := func(s *State) {
		s.Held = &Hold{Seq: 9, Facts: event.ZoneHeld{Loaded: 3}}
	}
	made := func(s *State) { held(s); s.Held.Loaded = 5 }
	released := func(s *State) { s.Released = &Release{Seq: 10} }
	from := func(s *State) { s.Source = "192.0.2.1:53" }
	back := Rollback{Held: 9, Loaded: 3, Base: 5}
	for _, tt := range []struct {
		fact string
		edit []func(*State)
		at   Moment
		want Command
	}{
		{"the content is made", []func(*State){held}, Moment{Now: noon}, back},
		{"a request to load waits", []func(*State){held}, Moment{Now: noon, Reload: 1}, back},
		{"it is made once", []func(*State){made}, Moment{Now: noon, Reload: 1}, nil},
		{"it is made again where it is lost", []func(*State){made, func(s *State) { s.Loaded.Broken = "no chunk" }}, Moment{Now: noon}, Rollback{Held: 9, Loaded: 3, Base: 0}},
		{"what a review dropped is not made again", []func(*State){made, func(s *State) { s.Loaded.Abandoned = "rejected" }}, Moment{Now: noon}, nil},
		{"maintenance comes first", []func(*State){held, func(s *State) { s.Maintenance = &Maintenance{} }}, Moment{Now: noon}, nil},
		{"a halt comes first", []func(*State){held, func(s *State) { s.Stopped = &Stop{Stage: event.StageSigned} }}, Moment{Now: noon}, nil},
		{"servers are not asked", []func(*State){made, from}, Moment{Now: noon}, nil},
		{"the file is compared after the release", []func(*State){released}, Moment{Now: noon}, Load{Source: "/zones/example.com", Base: 5, Released: 10}},
		{"servers send all after the release", []func(*State){released, from}, Moment{Now: noon, Reload: 4}, Load{Source: "192.0.2.1:53", Base: 5, Full: true, Released: 10, Asked: 4}},
	} {
		t.Run(tt.fact, func(t *testing.T) {
			s := boundState(append([]func(*State){withKeys(keymgr.Active), withLoaded(5), withSigned(6, 5), asPublished}, tt.edit...)...)
			var got Command
			for _, c := range Decide(s, p, tt.at).Commands {
				if c.Lane() == ContentLane {
					got = c
				}
			}
			if got != tt.want {
				t.Errorf("%+v, want %+v", got, tt.want)
			}
		})
	}
}

// Under keep, signatures wait for the source's serial to move; that of a held
// zone is not read.
func TestResignAt_AHeldZoneDoesNotWaitForItsSource(t *testing.T) {
	for _, tt := range []struct {
		policy  string
		waiting time.Duration // beyond the time at which they are due
	}{{"keep", Default().RemainTime() / 2}, {"counter", 0}} {
		p := serialPolicy(t, tt.policy)["default"]
		s := boundState(withKeys(keymgr.Active), withLoaded(5), withSigned(6, 5), asPublished)
		free := resignAt(s, s.Signed, p, 1)
		s.Held = &Hold{Loaded: 5}
		held := resignAt(s, s.Signed, p, 1)
		if due := refreshDue(s.Signed, p); !held.Equal(due) || free.Sub(due) != tt.waiting {
			t.Errorf("%s: due %s, held %s, else %s", tt.policy, due, held, free)
		}
	}
	strict := serialPolicy(t, "keep-strict")["default"]
	s := boundState(withKeys(keymgr.Active), withLoaded(5), withSigned(6, 5), asPublished)
	s.Held = &Hold{Loaded: 5}
	if at := resignAt(s, s.Signed, strict, 1); at.Unix() != never {
		t.Errorf("keep-strict publishes without a new serial at %s", at)
	}
}

// The source is not asked while the zone is held, whatever it says, and read in
// full afterwards, whatever its serial.
func TestRollback_ServersAreComparedInFullAfterTheRelease(t *testing.T) {
	p := newPrimary(t, zoneFileOf(10, "www A 192.0.2.80"))
	r := newRig(t, journaltest.New(), serialPolicy(t, "counter"))
	first := r.addFrom(p.addr)
	p.serve(zoneFileOf(11, "www A 192.0.2.81"))
	r.ask(false)
	r.rollBack(RollbackRequest{To: first.Published.Instance})
	if st := r.await(); st.Published.ContentDigest != first.Published.ContentDigest || st.Upstream.NextAt != nil || st.Upstream.ExpiresAt != nil {
		t.Errorf("published %+v, upstream %+v", st.Published, st.Upstream)
	}
	p.questions()
	p.serve(zoneFileOf(12, "www A 192.0.2.82"))
	name, _ := zone.ParseName("example.com")
	news := zone.Serial(12)
	r.e.Notified(name, &news, xfr.Peer{})
	r.stop()
	r.start(serialPolicy(t, "counter"))
	if st := r.await(); st.Held == nil || p.questions() != "" {
		t.Errorf("held %v; the source was asked", st.Held)
	}
	p.serve(zoneFileOf(9, "www A 192.0.2.79"))
	st := r.release()
	if asked := p.questions(); asked != "AXFR" || st.Loaded.Serial != 9 || st.LastError != "" {
		t.Errorf("asked %q, loaded serial %d, error %q", asked, st.Loaded.Serial, st.LastError)
	}
	p.serve(zoneFileOf(13, "www A 192.0.2.83"))
	if st = r.ask(false); st.Loaded.Serial != 13 {
		t.Errorf("loaded serial %d afterwards", st.Loaded.Serial)
	}
	r.serialsRise()
	replayAll(t, r)
}

// A source that was put right by taking it back, too, changes nothing and ends
// the comparison all the same.
func TestRollback_ASourceThatWentBackTooIsFollowedAgain(t *testing.T) {
	r := newRig(t, journaltest.New(), serialPolicy(t, "counter"))
	first := r.add(zoneOf(7))
	r.reload(zoneOf(8))
	r.rollBack(RollbackRequest{To: first.Published.Instance})
	held := r.await()
	r.zoneFile(zoneOf(7))
	st := r.release()
	if r.zone().Released != nil || st.Published.Serial != held.Published.Serial || len(st.Notices) != 0 {
		t.Errorf("serial %d after %d, notices %v", st.Published.Serial, held.Published.Serial, st.Notices)
	}
	if st = r.reload(zoneOf(9)); st.Loaded.Serial != 9 || st.State != "published" {
		t.Errorf("the next version: serial %d, %s", st.Loaded.Serial, st.State)
	}
}

func TestRollback_ASourceThatCannotBeReadIsTriedAgainAfterTheRelease(t *testing.T) {
	r := newRig(t, journaltest.New(), serialPolicy(t, "counter"))
	first := r.add(zoneOf(7))
	second := r.reload(zoneOf(8))
	r.rollBack(RollbackRequest{To: first.Published.Instance})
	r.await()
	r.zoneFile("@ IN SOA nonsense\n")
	st := r.release()
	if st.LastError == "" || r.zone().Released == nil || st.Published.ContentDigest != first.Published.ContentDigest {
		t.Fatalf("error %q, released %v", st.LastError, r.zone().Released)
	}
	if st = r.reload(zoneOf(8)); st.LastError != "" || r.zone().Released != nil || st.Published.ContentDigest != second.Published.ContentDigest {
		t.Errorf("error %q, released %v", st.LastError, r.zone().Released)
	}
}

// Nobody asks the source of a held zone, so EXPIRE does not count; it counts
// from the release on.
func TestRollback_AHeldZoneDoesNotExpire(t *testing.T) {
	text := func(serial int) string {
		return fmt.Sprintf("$TTL 300\n@ 3600 SOA ns1 hostmaster %d 7200 3600 14400 300\n@ NS ns1\nns1 A 192.0.2.%d\n", serial, serial)
	}
	p := newPrimary(t, text(1))
	policy, err := Parse("default", []byte("version = \"v1\"\n[signer]\nserial-policy = \"counter\"\n[loader]\non-expire = \"stop\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	clock := newHand(dayOne)
	r := &rig{t: t, dir: t.TempDir(), journal: journaltest.New(), clock: clock.clock()}
	r.start(map[string]Policy{"default": policy})
	first := r.addFrom(p.addr)
	p.serve(text(2))
	r.ask(false)
	r.rollBack(RollbackRequest{To: first.Published.Instance})
	r.await()
	p.set(true)
	clock.move(clock.now().Add(10 * 24 * time.Hour))
	name, _ := zone.ParseName("example.com")
	serves := func() bool {
		v, err := r.e.Source().View(name)
		return err == nil && v.Close() == nil
	}
	if st := r.await(); !serves() || st.State != "published, held" {
		t.Fatalf("a held zone is served no longer: %s", st.State)
	}
	if st := r.release(); !serves() {
		t.Fatalf("it expired with the release: %s", st.State)
	}
	clock.move(clock.now().Add(5 * time.Hour))
	until(t, "EXPIRE counts from the release on", func() bool { return !serves() })
}

func TestRollback_PassesTheReviews(t *testing.T) {
	r := reviewRig(t, "[loader.review]\nmode = \"manual\"\n[signer]\nserial-policy = \"counter\"\n")
	r.add(zoneOf(7))
	first := r.approve(event.StageLoaded)
	r.reload(zoneOf(8))
	second := r.approve(event.StageLoaded)
	r.reload(zoneOf(9))
	waiting := r.review(event.StageLoaded)

	// What is under review comes first.
	plan := r.rollBack(RollbackRequest{To: first.Published.Instance})
	if !strings.Contains(strings.Join(plan.Notes, "\n"), waiting.Instance+" is under review: its verdict comes first") {
		t.Errorf("notes %q", plan.Notes)
	}
	if st := r.await(); st.Held == nil || st.Held.Loaded != "" || r.review(event.StageLoaded).Instance != waiting.Instance {
		t.Errorf("held %+v", st.Held)
	}
	st := r.reject(event.StageLoaded)
	back := r.review(event.StageLoaded)
	if back.Instance != st.Held.Loaded || back.Digest != first.Loaded.ContentDigest || st.Published.Serial != second.Published.Serial {
		t.Fatalf("under review %+v, held %+v", back, st.Held)
	}
	// A bad verdict on it keeps what is published, and it is not made again.
	st = r.reject(event.StageLoaded)
	if len(st.Reviews) != 0 || st.Published.Serial != second.Published.Serial || st.Held.Published {
		t.Errorf("reviews %v, held %+v", st.Reviews, st.Held)
	}
	if !strings.Contains(fmt.Sprint(st.Notices), "roll back to another version, or: sluice zone release") {
		t.Errorf("notices %v", st.Notices)
	}
	r.rollBack(RollbackRequest{To: first.Published.Instance, Reason: "all the same"})
	r.await()
	if st = r.approve(event.StageLoaded); st.Published.ContentDigest != first.Published.ContentDigest || !st.Held.Published {
		t.Errorf("approved: %+v, held %+v", st.Published, st.Held)
	}
	r.serialsRise()
	replayAll(t, r)
}

// loseChunks takes the chunks of an instance out of the journal.
func (r *rig) loseChunks(instance string) {
	r.t.Helper()
	seq, _, ok := instanceWord(instance)
	if !ok {
		r.t.Fatal(instance)
	}
	var m []event.Manifest
	err := r.journal.Read(r.t.Context(), r.zone().Zone, seq, seq, func(rec journal.Record) error {
		m = event.Manifests(rec.Event.Facts)
		return nil
	})
	if err != nil || len(m) != 1 || len(m[0].Chunks) == 0 {
		r.t.Fatal(m, err)
	}
	mem, ok := r.journal.(*journaltest.Memory)
	if !ok {
		r.t.Fatal("not a journal in memory")
	}
	for _, c := range m[0].Chunks {
		mem.SetChunk(c.Seq, nil)
	}
}

func TestVersions_WhatIsHeldNoLongerIsToldWithTheOldestThatIs(t *testing.T) {
	r := newRig(t, journaltest.New(), serialPolicy(t, "counter"))
	first := r.add(zoneOf(7))
	second := r.reload(zoneOf(8))
	r.reload(zoneOf(9))
	r.loseChunks(second.Loaded.Instance)
	r.loseChunks(second.Published.Instance)
	dump := func(serial uint32) error {
		return r.e.Dump(t.Context(), "example.com", DumpQuery{Serial: &serial}, &strings.Builder{})
	}
	oldest := fmt.Sprintf("the oldest version that is: serial %d, %s, published at %s",
		first.Published.Serial, first.Published.Instance, first.Published.Time.UTC().Format(time.RFC3339))
	err := dump(second.Published.Serial)
	if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), second.Published.Instance+" are no longer held; "+oldest) {
		t.Errorf("dump: %v, want %q", err, oldest)
	}
	_, err = r.e.Rollback(t.Context(), testActor, "example.com", RollbackRequest{To: fmt.Sprint(second.Published.Serial), Reason: "x"})
	if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), second.Loaded.Instance+" are no longer held; "+oldest) {
		t.Errorf("rollback: %v", err)
	}
	err = r.e.Diff(t.Context(), "example.com", second.Loaded.Instance, "9", func(DiffLine) error { return nil })
	if !errors.Is(err, ErrNotFound) {
		t.Errorf("diff: %v", err)
	}
	if st := r.await(); st.Held != nil {
		t.Error("the zone is held")
	}
	r.rollBack(RollbackRequest{To: first.Published.Instance})
	if st := r.await(); st.Published.ContentDigest != first.Published.ContentDigest {
		t.Error("the older version, which is held, was not published")
	}
	r.loseChunks(first.Loaded.Instance)
	if err := dump(first.Published.Serial); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "nor those of any other") {
		t.Errorf("dump of the first: %v", err)
	}
}

// The chunks went between the request and its execution: the zone stays as it
// is, says so, and can be released.
func TestRollback_ContentThatIsLostMeanwhileIsAFailureThatIsTold(t *testing.T) {
	r := newRig(t, journaltest.New(), serialPolicy(t, "counter"))
	first := r.add(zoneOf(7))
	second := r.reload(zoneOf(8))
	r.loseChunks(first.Loaded.Instance)
	s := r.zone()
	if _, err := r.journal.Append(t.Context(), s.Zone, s.Head, event.New(r.e.clock.Now().Truncate(time.Microsecond), s.Zone, testActor, &event.ZoneHeld{
		Serial: first.Published.Serial, Loaded: loadedSeq(t, first), From: s.Published.Loaded.Seq, Reason: "x",
	})); err != nil {
		t.Fatal(err)
	}
	until(t, "the failure is told", func() bool {
		st := r.status()
		return strings.Contains(st.LastError, "no longer held") && st.Held != nil && !st.Held.Published
	})
	if st := r.release(); st.LastError != "" || st.Published.Serial != second.Published.Serial || st.Held != nil {
		t.Errorf("released: %q, serial %d", st.LastError, st.Published.Serial)
	}
}

func loadedSeq(t *testing.T, st ZoneStatus) uint64 {
	t.Helper()
	seq, loaded, ok := instanceWord(st.Loaded.Instance)
	if !loaded || !ok {
		t.Fatal(st.Loaded.Instance)
	}
	return seq
}

// TestRollback_AFaultAtEveryWrite fails each write of a rollback and of the
// release, stored or not, and wants both to arrive, after a restart too.
func TestRollback_AFaultAtEveryWrite(t *testing.T) {
	for n := 0; ; n++ {
		met := false
		for _, persisted := range []bool{false, true} {
			t.Run(fmt.Sprintf("write %d, stored %v", n, persisted), func(t *testing.T) {
				j := journaltest.New()
				r := &rig{t: t, dir: t.TempDir(), journal: j, clock: hourASecond()}
				r.start(serialPolicy(t, "counter"))
				first := r.add(zoneOf(7))
				second := r.reload(zoneOf(8, "more IN A 192.0.2.7"))
				j.FailAt(n, persisted)
				ctx := t.Context()
				q := RollbackRequest{To: fmt.Sprint(first.Published.Serial), Reason: "x"}
				if _, err := r.e.Rollback(ctx, testActor, "example.com", q); err != nil {
					if _, err = r.e.Rollback(ctx, testActor, "example.com", q); err != nil && !persisted {
						t.Fatal(err)
					}
				}
				arrives := func(digest string, held bool) {
					until(t, "that content is published", func() bool {
						st := r.status()
						return st.Published.ContentDigest == digest && (st.Held != nil) == held && newestServed(r)
					})
				}
				arrives(first.Published.ContentDigest, true)
				if _, err := r.e.Release(ctx, testActor, "example.com", ""); err != nil {
					if _, err = r.e.Release(ctx, testActor, "example.com", ""); err != nil && !persisted {
						t.Fatal(err)
					}
				}
				arrives(second.Published.ContentDigest, false)
				met = met || j.Failed()
				served := r.served()
				r.stop()
				r.journal = j.Reopen()
				r.start(serialPolicy(t, "counter"))
				if r.served() != served {
					t.Error("after a restart something else is served")
				}
				r.serialsRise()
				replayAll(t, r)
			})
		}
		if !met {
			if n < 8 {
				t.Errorf("only %d writes met", n)
			}
			return
		}
	}
}

// A restart anywhere between request and publication goes on with it: the
// journal is cut behind each of its events, as a crash leaves it.
func TestRollback_ARestartAfterEachEventArrives(t *testing.T) {
	whole := journaltest.New()
	r := newRig(t, whole, serialPolicy(t, "counter"))
	first := r.add(zoneOf(7))
	second := r.reload(zoneOf(8))
	_, began, err := whole.Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.rollBack(RollbackRequest{To: fmt.Sprint(first.Published.Serial)})
	r.await()
	r.release()
	_, ended, err := whole.Stream(t.Context())
	if err != nil || ended < began+6 {
		t.Fatal(began, ended, err)
	}
	r.stop()
	for last := ended - 1; last > began; last-- {
		whole.Truncate(last) // from the end on: what a cut leaves is the next one's whole
		if err := os.RemoveAll(filepath.Join(r.dir, "projections")); err != nil {
			t.Fatal(err)
		}
		again := &rig{t: t, dir: r.dir, journal: whole.Reopen()}
		again.start(serialPolicy(t, "counter"))
		st := again.await()
		want := second.Published.ContentDigest
		if st.Held != nil {
			want = first.Published.ContentDigest
		}
		if st.Published.ContentDigest != want || st.LastError != "" {
			t.Errorf("cut behind event %d: held %v, content %s, error %q", last, st.Held, st.Published.ContentDigest, st.LastError)
		}
		again.serialsRise()
		replayAll(t, again)
		again.stop()
	}
}

// What was published in another mode comes back in today's: without the DNSSEC
// records that a source brought along, signed with the keys of here.
func TestRollback_AcrossAChangeOfMode(t *testing.T) {
	origin := newSignedElsewhere(t, "")
	origin.add(zoneOf(7))
	r := newRig(t, journaltest.New(), modePolicies(t, ""))
	first := r.addWith("through", r.zoneFile(origin.dump()))
	if _, err := r.e.Rollback(t.Context(), testActor, "example.com", RollbackRequest{To: "7", Reason: "x"}); !errors.Is(err, ErrState) || !strings.Contains(err.Error(), "signer.mode sign") {
		t.Errorf("of a zone that is passed through: %v", err)
	}
	origin.reload(zoneOf(8, "more IN A 192.0.2.9"))
	r.reload(origin.dump())
	r.parent(false, nil)
	if st, err := r.turn("default"); err != nil || st.LastError != "" {
		t.Fatal(err, st.LastError)
	}
	plan := r.rollBack(RollbackRequest{To: fmt.Sprint(first.Published.Serial)})
	if st := r.await(); !plan.Done || st.Published.Mode != ModeSign || st.Published.Serial != plan.NextSerial {
		t.Errorf("done %v, published %+v", plan.Done, st.Published)
	}
	var want strings.Builder
	bare := newRig(t, journaltest.New(), nil)
	bare.add(zoneOf(7))
	want.WriteString(bare.unsigned())
	if got := r.unsigned(); got != want.String() {
		t.Errorf("content\n%s\nwant\n%s", got, want.String())
	}
	if rep, err := r.e.VerifyZone(t.Context(), "example.com", nil); err != nil || !rep.OK() {
		t.Errorf("verify: %v, %v", err, rep)
	}
	signed := r.await()
	if st, err := r.turn("unsigned"); err != nil || st.Published.Mode != ModeUnsigned {
		t.Fatal(err, st.Published)
	}
	if strings.Contains(r.dump(), "RRSIG") || signed.Held == nil {
		t.Error("the held zone did not turn")
	}
	r.release()
	r.rollBack(RollbackRequest{To: fmt.Sprint(signed.Published.Serial)})
	if st := r.await(); st.Published.Mode != ModeUnsigned || r.unsigned() != want.String() || strings.Contains(r.dump(), "RRSIG") {
		t.Errorf("unsigned again: %+v", st.Published)
	}
	r.serialsRise()
	replayAll(t, r)
}

// Keys that were replaced since do not come back, and secondaries that have
// what was published until then take an IXFR.
func TestRollback_AcrossAKeyRollKeepsTodaysKeys(t *testing.T) {
	w := newRolling(t, "[signer]\nserial-policy = \"counter\"\n")
	first := w.secure()
	w.reload(zoneOf(8, "more IN A 192.0.2.9"))
	w.rolls(RolloverRequest{Kind: keymgr.RollZSK})
	before := w.runs("the end of the rollover", quiet)
	keys := w.zone().Published.Signed.Facts.Keys
	w.rollBack(RollbackRequest{To: fmt.Sprint(first.Published.Serial)})
	st := w.settle()
	f := w.zone().Published.Signed.Facts
	if st.Published.ContentDigest != first.Published.ContentDigest || !slices.Equal(f.Keys, keys) || st.Published.Reused == 0 {
		t.Errorf("published %+v with keys %v, want those of before, %v", st.Published, f.Keys, keys)
	}
	if n, known := w.ixfr(before.Published.Serial); !known || n == 0 || n > 20 {
		t.Errorf("%d records lead there by IXFR, known %v", n, known)
	}
	w.verifies()
	w.serialsRise()
	replayAll(t, w.rig)
}

func TestSetZone_SaysThatAHeldZoneReadsNoSource(t *testing.T) {
	r := newRig(t, journaltest.New(), modePolicies(t, ""))
	first := r.add(zoneOf(7))
	r.reload(zoneOf(8))
	r.rollBack(RollbackRequest{To: fmt.Sprint(first.Published.Serial)})
	r.await()
	other := filepath.Join(r.dir, "other.zone")
	if err := os.WriteFile(other, []byte(zoneOf(9)), 0o600); err != nil {
		t.Fatal(err)
	}
	plan, err := r.e.SetZone(t.Context(), testActor, "example.com", ZoneChange{Source: other})
	if err != nil || !plan.Done || !strings.Contains(strings.Join(plan.Changes, "\n"), "that source is read once it is released") {
		t.Errorf("plan %+v, %v", plan, err)
	}
	if st := r.await(); st.Loaded.Serial != 7 {
		t.Errorf("serial %d was loaded", st.Loaded.Serial)
	}
	if st := r.release(); st.Loaded.Serial != 9 || st.Source != other {
		t.Errorf("released: serial %d from %s", st.Loaded.Serial, st.Source)
	}
}

// What retention keeps can be gone back to, from its snapshot; what it purged
// cannot, and the message says up to where.
func TestRollback_GoesAsFarBackAsRetentionKeeps(t *testing.T) {
	r, _ := retainedRig(t, "versions = 3\nixfr-versions = 0", 9)
	all := r.published()
	kept, gone := all[len(all)-3], all[len(all)-4]
	if z := r.compact(CompactQuery{}); z.Error != "" || !z.Done {
		t.Fatalf("%+v", z)
	}
	_, err := r.e.Rollback(t.Context(), testActor, "example.com", RollbackRequest{To: fmt.Sprint(gone.Serial), Reason: "x"})
	if !errors.Is(err, ErrNotFound) || !errors.Is(err, journal.ErrPurged) || !strings.Contains(err.Error(), fmt.Sprintf("the oldest one that is held is serial %d", kept.Serial)) {
		t.Errorf("to a version that was purged: %v", err)
	}
	plan := r.rollBack(RollbackRequest{To: fmt.Sprint(kept.Serial)})
	st := r.await()
	if !plan.Done || !st.Held.Published || st.LastError != "" {
		t.Fatalf("done %v, held %+v, %q", plan.Done, st.Held, st.LastError)
	}
	var differ []string
	err = r.e.Diff(t.Context(), "example.com", fmt.Sprint(kept.Serial), fmt.Sprint(st.Published.Serial), func(l DiffLine) error {
		if !strings.Contains(l.Record, "\tSOA\t") && !strings.Contains(l.Record, "\tRRSIG\t") {
			differ = append(differ, l.Record)
		}
		return nil
	})
	if err != nil || len(differ) != 0 {
		t.Errorf("%v, differs in %q", err, differ)
	}
	if again := r.compact(CompactQuery{}); again.Error != "" {
		t.Errorf("retention afterwards: %+v", again)
	}
	r.rebuild()
	if after := r.await(); after.Published.Serial != st.Published.Serial || after.Held == nil {
		t.Errorf("rebuilt: serial %d after %d, held %v", after.Published.Serial, st.Published.Serial, after.Held)
	}
}

// What a review dropped can be had as long as the journal holds it, too.
func TestVersions_LoadedOnesThatWereDroppedAreFound(t *testing.T) {
	r := reviewRig(t, "[loader.review]\nmode = \"manual\"\n[signer]\nserial-policy = \"counter\"\n")
	r.add(zoneOf(7))
	first := r.approve(event.StageLoaded)
	want := map[string]string{first.Loaded.Instance: r.unsigned()}
	for n := 8; n < 14; n++ {
		st := r.reload(zoneOf(n))
		want[st.Loaded.Instance] = r.unsigned()
		if n == 11 {
			r.approve(event.StageLoaded)
		} else {
			r.reject(event.StageLoaded)
		}
	}
	for instance, text := range want {
		v, err := r.e.openNamed(t.Context(), "example.com", instance)
		if err != nil {
			t.Fatalf("%s: %v", instance, err)
		}
		items := zone.Merge(v.parts...)
		var b strings.Builder
		out := zone.NewWriter(&b)
		for items.Next() {
			if err := out.WriteItem(items.Key(), items.Value()); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(items.Err(), out.Flush(), v.close()); err != nil || b.String() != text {
			t.Errorf("%s: %v\n%s\nwant\n%s", instance, err, b.String(), text)
		}
	}
}
