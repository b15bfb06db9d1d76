package pipeline

import (
	"errors"
	"strings"
	"testing"
	"time"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/journal/journaltest"
	"sluice/keymgr"
)

func TestClockBase_Doubts(t *testing.T) {
	running := clockBase{wall: noon, elapsed: time.Hour, ahead: clockTolerance, bound: true}
	doubt := func(shown time.Duration) *ClockDoubt {
		return &ClockDoubt{Facts: event.ClockDoubted{Shown: noon.Add(shown).Unix(), Expected: noon.Unix()}}
	}
	const day = 24 * time.Hour
	for _, c := range []struct {
		name    string
		base    clockBase
		now     time.Time
		elapsed time.Duration
		doubted bool
	}{
		{"as much as went by", running, noon.Add(9 * day), 9*day + time.Hour, false},
		{"five minutes ahead", running, noon.Add(time.Minute + clockTolerance), time.Hour + time.Minute, false},
		{"more than five minutes ahead", running, noon.Add(time.Minute + clockTolerance + 1), time.Hour + time.Minute, true},
		{"five minutes behind", running, noon.Add(time.Hour - clockTolerance), 2 * time.Hour, false},
		{"more than five minutes behind", running, noon.Add(time.Hour - clockTolerance - 1), 2 * time.Hour, true},
		{"centuries ahead", running, noon.AddDate(800, 0, 0), time.Hour, true},
		{"off for a month", atStart(noon, nil, 0), noon.Add(31 * day), 0, false},
		{"off for two years", atStart(noon, nil, 0), noon.Add(731 * day), 0, true},
		{"started before the newest event", atStart(noon, nil, 0), noon.Add(-time.Hour), 0, true},
		{"set right after such a start", atStart(noon, nil, 0), noon.Add(40 * day), time.Minute, false},
		{"started a little before the newest event", atStart(noon, nil, 0), noon.Add(-time.Minute), 0, false},
		{"first start in 1970", atStart(time.Time{}, nil, 0), time.Unix(100, 0), 0, true},
		{"first start", atStart(time.Time{}, nil, 0), noon, 0, false},
		{"started again while ahead", atStart(noon.Add(50*day), doubt(50*day), 0), noon.Add(50*day + time.Hour), 0, true},
		{"set back before the start", atStart(noon.Add(50*day), doubt(50*day), 0), noon.Add(3 * day), 0, false},
		{"started again while behind", atStart(noon.Add(-50*day), doubt(-50*day), 0), noon.Add(-49 * day), 0, true},
		{"set right before the start", atStart(noon.Add(-50*day), doubt(-50*day), 0), noon.Add(day), 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, reason := c.base.doubts(c.now, c.elapsed); (reason != "") != c.doubted {
				t.Errorf("reason %q, want doubt %v", reason, c.doubted)
			}
		})
	}
}

// TestDecide_NothingIsSignedByADoubtedClock takes each state from which keys,
// signatures, reviews of signatures or publication would follow.
func TestDecide_NothingIsSignedByADoubtedClock(t *testing.T) {
	keyless := boundState()
	for name, s := range map[string]State{
		"keys to make":      keyless,
		"content to sign":   boundState(withKeys(keymgr.Active), withLoaded(5)),
		"keys to activate":  boundState(withKeys(keymgr.Generated), withLoaded(5)),
		"nothing loaded":    boundState(withKeys(keymgr.Active)),
		"refresh when late": boundState(withKeys(keymgr.Active), withLoaded(5)),
	} {
		t.Run(name, func(t *testing.T) {
			sane := Decide(s, Default(), Moment{Now: noon}).Commands
			doubted := Decide(s, Default(), Moment{Now: noon, ClockDoubted: true}).Commands
			if len(sane) == 0 {
				t.Fatal("nothing would be done anyway")
			}
			for _, c := range doubted {
				if c.Lane() == SigningLane || c.Lane() == SignedReviewLane {
					t.Errorf("%T is asked for", c)
				}
			}
			for _, c := range sane {
				if _, ok := c.(Load); ok && len(doubted) == 0 {
					t.Error("nothing is loaded")
				}
			}
		})
	}
}

func TestStampHolds_NothingOnceItIsFromAfterNow(t *testing.T) {
	until := noon.Add(time.Hour)
	if !stampHolds(noon, until, noon.Add(time.Minute)) || stampHolds(noon, until, until) || stampHolds(noon, until, noon.Add(-time.Second)) {
		t.Error("a stamp does not hold exactly from its own time until the end")
	}
}

// rehearse starts a rig whose clock runs as time does, until it is set.
func rehearse(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), journal: journaltest.New(), clock: NewRehearsal(noon, 1)}
	r.start(nil)
	return r
}

func (r *rig) moveClock(by time.Duration) {
	r.t.Helper()
	if _, err := r.e.MoveClock(by); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) zone() State {
	r.t.Helper()
	z, err := r.e.find("example.com")
	if err != nil {
		r.t.Fatal(err)
	}
	return z.snapshot()
}

// types lists the types of all events so far.
func (r *rig) types() []string {
	r.t.Helper()
	var types []string
	if err := r.journal.Read(r.t.Context(), "", 1, 0, func(rec journal.Record) error {
		types = append(types, rec.Event.Type)
		return nil
	}); err != nil {
		r.t.Fatal(err)
	}
	return types
}

func (r *rig) countType(name string) int {
	n := 0
	for _, t := range r.types() {
		if t == name {
			n++
		}
	}
	return n
}

// wantDoubt wants the doubt told and noted, what is published served, and new
// content loaded and not signed.
func (r *rig) wantDoubt(serving string, address string) {
	r.t.Helper()
	until(r.t, "the doubt stands in the journal", func() bool { return r.countType("clock.doubted") > r.countType("clock.accepted") })
	signed := r.countType("instance.signed")
	loaded := r.zone().Loaded.Seq
	st := r.reload(strings.Replace(smallZone, "192.0.2.80", address, 1))
	if s := r.zone(); s.Loaded.Seq == loaded || s.Signed.Facts.Loaded == s.Loaded.Seq {
		r.t.Errorf("l%d was loaded, l%d is signed; want a new one loaded and not signed", s.Loaded.Seq, s.Signed.Facts.Loaded)
	}
	if n := r.countType("instance.signed"); n != signed {
		r.t.Errorf("%d signed instances, want %d", n, signed)
	}
	if r.served() != serving {
		r.t.Error("something else is served")
	}
	if !hasNotice(st, "alarm", "nothing is signed") || st.WaitsFor != "a clock that is trusted" {
		r.t.Errorf("status tells of no alarm: %+v, waits for %q", st.Notices, st.WaitsFor)
	}
	if alarms := r.e.Alarms(); len(alarms) != 1 || !strings.Contains(alarms[0], "sluice clock accept") {
		r.t.Errorf("alarms %q", alarms)
	}
	if now := r.e.ClockStatus(); now.Trusted || now.Reason == "" {
		r.t.Errorf("clock %+v", now)
	}
	if err := r.e.Health(r.t.Context()); err != nil {
		r.t.Errorf("health: %v", err)
	}
}

// wantSigned wants what is loaded published, with signatures of now.
func (r *rig) wantSigned(address string) {
	r.t.Helper()
	until(r.t, "what was loaded is published", func() bool { return newestServed(r) })
	now, f := r.clock.Now(), r.zone().Published.Signed.Facts
	if now.Before(time.Unix(f.Inception, 0)) || now.Sub(time.Unix(f.Inception, 0)) > 25*time.Hour {
		r.t.Errorf("signatures begin at %s, now %s", time.Unix(f.Inception, 0).UTC(), now)
	}
	if !strings.Contains(r.dump(), address) {
		r.t.Error("the new address is not published")
	}
	if rep, err := r.e.VerifyZone(r.t.Context(), "example.com", nil); err != nil || !rep.OK() {
		r.t.Errorf("verify: %v, %+v", err, rep)
	}
	if len(r.e.Alarms()) != 0 || !r.e.ClockStatus().Trusted {
		r.t.Errorf("still in doubt: %+v", r.e.ClockStatus())
	}
}

func hasNotice(st ZoneStatus, severity, text string) bool {
	for _, n := range st.Notices {
		if n.Severity == severity && strings.Contains(n.Text, text) {
			return true
		}
	}
	return false
}

func TestEngine_ClockJumpStopsSigningUntilAccepted(t *testing.T) {
	for name, by := range map[string]time.Duration{
		"forward": 2 * time.Hour, "back": -2 * time.Hour, "past the refresh": 20 * 24 * time.Hour,
	} {
		t.Run(name, func(t *testing.T) {
			r := rehearse(t)
			r.add(smallZone)
			if _, err := r.e.AcceptClock(t.Context(), testActor, ""); !errors.Is(err, ErrState) {
				t.Errorf("a trusted clock is accepted: %v", err)
			}
			serving := r.served()
			r.moveClock(by)
			r.wantDoubt(serving, "192.0.2.81")
			st, err := r.e.AcceptClock(t.Context(), testActor, "seen")
			if err != nil || !st.Trusted {
				t.Fatalf("accept: %+v, %v", st, err)
			}
			if _, m, err := r.e.moment(r.state()); err != nil || m.ClockSet.IsZero() {
				t.Errorf("rollovers do not know of it: %v", err)
			}
			r.wantSigned("192.0.2.81")
			if r.countType("clock.doubted") != 1 || r.countType("clock.accepted") != 1 {
				t.Errorf("events %v", r.types())
			}
			replayAll(t, r)
		})
	}
}

func TestEngine_ClockSetRightIsTrustedByItself(t *testing.T) {
	r := rehearse(t)
	r.add(smallZone)
	serving := r.served()
	r.moveClock(365 * 24 * time.Hour)
	r.wantDoubt(serving, "192.0.2.82")
	r.moveClock(-365 * 24 * time.Hour)
	r.wantSigned("192.0.2.82")
	until(t, "the end of the doubt is noted", func() bool { return r.countType("clock.accepted") == 1 })
}

func TestEngine_SmallStepsOfTheClockAreTaken(t *testing.T) {
	r := rehearse(t)
	r.add(smallZone)
	for _, address := range []string{"192.0.2.91", "192.0.2.92", "192.0.2.93", "192.0.2.94"} {
		r.moveClock(4 * time.Minute) // more than five minutes in all
		r.reload(strings.Replace(smallZone, "192.0.2.80", address, 1))
		r.wantSigned(address)
	}
	if n := r.countType("clock.doubted"); n != 0 {
		t.Errorf("%d doubts", n)
	}
}

func TestEngine_StartBeforeTheNewestEventIsDoubted(t *testing.T) {
	r := rehearse(t)
	r.add(smallZone)
	serving := r.served()
	r.stop()
	r.clock = NewRehearsal(noon.Add(-time.Hour), 1)
	r.start(nil)
	r.wantDoubt(serving, "192.0.2.83")
	r.stop()
	r.start(nil) // a restart is no cure
	if r.e.ClockStatus().Trusted {
		t.Error("a restart ends the doubt")
	}
	if _, err := r.e.AcceptClock(t.Context(), testActor, ""); err != nil {
		t.Fatal(err)
	}
	r.wantSigned("192.0.2.83")
	r.stop()
	r.clock = NewRehearsal(noon.Add(30*24*time.Hour), 1)
	r.start(nil)
	if !r.e.ClockStatus().Trusted {
		t.Error("a daemon that was off for a month is in doubt")
	}
	r.reload(strings.Replace(smallZone, "192.0.2.80", "192.0.2.84", 1))
	r.wantSigned("192.0.2.84")
}

func TestEngine_RestartDoesNotEndADoubtAboutTheFuture(t *testing.T) {
	r := rehearse(t)
	r.add(smallZone)
	serving := r.served()
	r.moveClock(60 * 24 * time.Hour)
	r.wantDoubt(serving, "192.0.2.85")
	r.stop()
	r.start(nil)
	if r.e.ClockStatus().Trusted || r.served() != serving {
		t.Error("the clock is trusted after a restart, or something else is served")
	}
	r.stop()
	r.clock = NewRehearsal(noon.Add(time.Minute), 1)
	r.start(nil)
	r.wantSigned("192.0.2.85")
	until(t, "the end of the doubt is noted", func() bool { return r.countType("clock.accepted") == 1 })
}

// TestEngine_ABadStampBindsNothing lets a person accept a clock that is years
// ahead, and then sets it right.
func TestEngine_ABadStampBindsNothing(t *testing.T) {
	r := rehearse(t)
	r.add(smallZone)
	const wrong = 5 * 365 * 24 * time.Hour
	r.moveClock(wrong)
	r.wantDoubt(r.served(), "192.0.2.86")
	if _, err := r.e.AcceptClock(t.Context(), testActor, "a mistake"); err != nil {
		t.Fatal(err)
	}
	r.wantSigned("192.0.2.86")
	r.moveClock(-wrong)
	until(t, "the step back is in doubt", func() bool { return r.countType("clock.doubted") == 2 })
	if _, err := r.e.AcceptClock(t.Context(), testActor, "now it is right"); err != nil {
		t.Fatal(err)
	}
	until(t, "what was signed in the future is signed again", func() bool {
		return !signedAhead(&r.zone().Published.Signed, r.clock.Now())
	})
	r.await()
	r.wantSigned("192.0.2.86")
	r.reload(strings.Replace(smallZone, "192.0.2.80", "192.0.2.87", 1))
	r.wantSigned("192.0.2.87")
	r.stop()
	r.start(nil)
	if !r.e.ClockStatus().Trusted {
		t.Errorf("after a restart: %+v", r.e.ClockStatus())
	}
	r.reload(strings.Replace(smallZone, "192.0.2.80", "192.0.2.88", 1))
	r.wantSigned("192.0.2.88")
}

// TestEngine_NoZoneExpiresByADoubtedClock takes a zone that is not to be served
// once it was not asked for longer than EXPIRE, and moves the clock past that.
func TestEngine_NoZoneExpiresByADoubtedClock(t *testing.T) {
	p := newPrimary(t, zoneFileOf(1))
	policy, err := Parse("default", []byte("version = \"v1\"\n[loader]\non-expire = \"stop\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, dir: t.TempDir(), journal: journaltest.New(), clock: NewRehearsal(noon, 1)}
	r.start(map[string]Policy{"default": policy})
	r.addFrom(p.addr)
	p.set(true)
	serving := r.served()
	r.moveClock(300 * 24 * time.Hour)
	until(t, "the server was asked by the wrong clock", func() bool {
		st, err := r.e.Zone(t.Context(), "example.com")
		return err == nil && st.LastError != "" && st.State != "expired"
	})
	if r.served() != serving {
		t.Error("something else is served")
	}
	if _, err := r.e.AcceptClock(t.Context(), testActor, ""); err != nil {
		t.Fatal(err)
	}
	if r.served() != serving {
		t.Error("the zone is not served right after the clock was accepted")
	}
}
