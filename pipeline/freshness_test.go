package pipeline

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/journal/event"
	"sluice/journal/journaltest"
)

func TestOverdue_GrowsWorseAsTimeRunsOut(t *testing.T) {
	s := boundState(withKeys("active"), withLoaded(5), withSigned(6, 5), asPublished)
	end, remain := time.Unix(s.Published.Signed.Facts.Earliest, 0), Default().RemainTime()
	for _, tt := range []struct {
		left, next time.Duration
		want       string
	}{
		{remain + time.Hour, remain, ""},
		{remain, remain / 2, severityInfo},
		{remain/2 + time.Second, remain / 2, severityInfo},
		{remain / 2, remain / 4, severityWarning},
		{remain / 4, -1, severityAlarm},
		{-time.Hour, -1, severityAlarm},
	} {
		got, next := overdue(s, Default(), end.Add(-tt.left))
		if got != tt.want || tt.next < 0 && !next.IsZero() || tt.next >= 0 && !next.Equal(end.Add(-tt.next)) {
			t.Errorf("%s left: %q, next at %s", tt.left, got, next)
		}
	}
	s.Published.Signed.Facts.Mode = string(ModeUnsigned)
	if got, _ := overdue(s, Default(), end); got != "" {
		t.Errorf("a zone without signatures: %q", got)
	}
	if got, _ := overdue(State{}, Default(), end); got != "" {
		t.Errorf("a zone that is not published: %q", got)
	}
}

// lines is a log that a test reads while it is written.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

// about are the lines with a word.
func (l *lines) about(word string) (out []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.buf.String()) {
		if strings.Contains(line, word) {
			out = append(out, line)
		}
	}
	return out
}

// overdue is the notice of signatures that were not made again.
func (r *rig) overdue() Notice {
	r.t.Helper()
	st, err := r.e.Zone(r.t.Context(), "example.com")
	if err != nil {
		r.t.Fatal(err)
	}
	for _, n := range st.Notices {
		if strings.HasPrefix(n.Text, "signatures ") {
			return n
		}
	}
	return Notice{}
}

func TestFreshness_AlarmsWithTimeLeftWhileKeysCannotBeRead(t *testing.T) {
	h, log := newHand(dayOne), &lines{}
	r := &rig{t: t, dir: t.TempDir(), journal: journaltest.New(), clock: h.clock()}
	r.logger = slog.New(slog.NewTextHandler(log, nil))
	r.start(nil)
	st := r.add(smallZone)
	keys, away := filepath.Join(r.dir, "keys"), filepath.Join(r.dir, "away")
	if err := os.Rename(keys, away); err != nil {
		t.Fatal(err)
	}
	end, remain := *st.NextExpiry, Default().RemainTime()
	for _, tt := range []struct {
		left     time.Duration
		severity string
		text     string
		logged   int
	}{
		{remain + time.Minute, "", "", 0},
		{remain - time.Minute, severityInfo, "signatures expire in 13d23h, the first at " + end.Format(time.RFC3339), 1},
		{remain - time.Hour, severityInfo, "signatures expire in 13d23h", 1},
		{remain/2 - time.Minute, severityWarning, "signatures expire in 6d23h", 2},
		{remain/4 - time.Minute, severityAlarm, "signatures expire in 3d11h", 3},
		{30 * time.Minute, severityAlarm, "signatures expire in 30m0s", 3},
		{-26 * time.Hour, severityAlarm, "signatures have expired, the first 1d2h ago", 3},
	} {
		h.move(end.Add(-tt.left))
		until(t, fmt.Sprintf("it is told with %s left", tt.left), func() bool {
			r.await()
			n := r.overdue()
			return n.Severity == tt.severity && strings.HasPrefix(n.Text, tt.text) && len(log.about("signatures are overdue")) == tt.logged &&
				(tt.severity == "" || strings.Contains(n.Text, "keys") && strings.Contains(n.Hint, "zone history"))
		})
		alarms := strings.Join(r.e.Alarms(), "\n")
		if want := tt.severity == severityAlarm; strings.Contains(alarms, "example.com. signatures ") != want {
			t.Errorf("with %s left health says %q", tt.left, alarms)
		}
		if n := r.e.Measure(t.Context()).Alarms; n != len(r.e.Alarms()) {
			t.Errorf("with %s left metrics count %d of %d alarms", tt.left, n, len(r.e.Alarms()))
		}
	}
	if err := os.Rename(away, keys); err != nil {
		t.Fatal(err)
	}
	if err := r.e.Resign(t.Context(), testActor, "example.com", false); err != nil {
		t.Fatal(err)
	}
	until(t, "signatures are fresh again", func() bool { return len(log.about("signatures are fresh again")) == 1 })
	if n := r.overdue(); n.Text != "" || r.earliest().Before(h.now().Add(remain)) {
		t.Errorf("then: %+v, the first expires at %s", n, r.earliest())
	}
}

// signingRests reports whether nothing is signed or about to be.
func (r *rig) signingRests() bool {
	r.t.Helper()
	rn, err := r.e.find("example.com")
	if err != nil {
		r.t.Fatal(err)
	}
	rn.mu.Lock()
	defer rn.mu.Unlock()
	if rn.lanes[SigningLane].busy || rn.lanes[SignedReviewLane].busy {
		return false
	}
	for _, c := range rn.decide().Commands {
		if c.Lane() == SigningLane || c.Lane() == SignedReviewLane {
			return false
		}
	}
	return true
}

// Whatever becomes of new content, what is published is made again in slices,
// in time, and nothing else is served.
func TestFreshness_SlicesGoOnWhateverBecomesOfNewContent(t *testing.T) {
	const hang = "[loader.review]\nmode = \"script\"\nhooks = [{ command = \"test $SLUICE_SERIAL = 1 || sleep 300\", timeout = \"10m\" }]\n"
	const names = 120
	reload := func(r *rig) error { return r.e.Reload(r.t.Context(), testActor, "example.com", false) }
	changed := func(r *rig) error { r.zoneFile(wideZone(2, names, "new")); return reload(r) }
	then := func(first func(*rig) error, next func(*rig) ZoneStatus) func(*rig) error {
		return func(r *rig) error { err := first(r); r.await(); next(r); return err }
	}
	rejected := func(stage string) func(*rig) ZoneStatus {
		return func(r *rig) ZoneStatus { return r.reject(stage) }
	}
	for _, tt := range []struct {
		fact, policy string
		do           func(*rig) error
	}{
		{"nothing", "", func(*rig) error { return nil }},
		{"it waits", loadedManual, changed},
		{"it was rejected", loadedManual, then(changed, rejected(event.StageLoaded))},
		{"it halted the zone", loadedManual + "on-reject = \"halt\"\n", then(changed, rejected(event.StageLoaded))},
		{"signed, it waits", signedManual, changed},
		{"signed, it was rejected", signedManual, then(changed, rejected(event.StageSigned))},
		{"signed, it halted the zone", signedManual + "on-reject = \"halt\"\n", then(changed, rejected(event.StageSigned))},
		{"its hook hangs", hang, changed},
		{"it is bad", "", func(r *rig) error { r.zoneFile("@ IN SOA nonsense\n"); return reload(r) }},
		{"its source is away", "", func(r *rig) error {
			if err := os.Remove(r.zoneFile("")); err != nil {
				return err
			}
			return reload(r)
		}},
		{"its servers are away", "", func(r *rig) error {
			_, err := r.e.SetZone(r.t.Context(), testActor, "example.com", ZoneChange{Source: "127.0.0.1:1"})
			return err
		}},
		{"maintenance blocks it", "", func(r *rig) error {
			_, err := r.e.SetMaintenance(r.t.Context(), testActor, "example.com", true, "moving")
			return err
		}},
	} {
		t.Run(tt.fact, func(t *testing.T) {
			t.Parallel()
			r, h := handRig(t, tt.policy)
			st := r.add(wideZone(1, names, "old"))
			for _, rv := range st.Reviews {
				st = r.approve(rv.Stage)
			}
			signatures := st.Published.Signatures
			if err := tt.do(r); err != nil {
				t.Fatal(err)
			}
			until(t, "it is known", r.signingRests)
			made := 0
			for h.now().Before(dayOne.Add(15 * day)) {
				h.move(h.now().Add(4 * time.Hour))
				before, serial := h.now(), *st.PublishedSerial
				until(t, "signing is at rest", r.signingRests)
				now, err := r.e.Zone(t.Context(), "example.com")
				if err != nil {
					t.Fatal(err)
				}
				if st = now; *st.PublishedSerial == serial {
					continue
				}
				made += int(st.Published.Made)
				if left := r.earliest().Sub(before); left < Default().RemainTime() {
					t.Fatalf("at %s a signature has %s left", before, left)
				}
				if st.Published.Made > signatures/5 {
					t.Fatalf("at %s %d of %d signatures are made again", before, st.Published.Made, signatures)
				}
			}
			if n := r.overdue(); n.Text != "" || made < int(signatures) {
				t.Errorf("%d signatures made again in 15 days, of %d; notice %q", made, signatures, n.Text)
			}
			if text := r.dump(); !strings.Contains(text, "\"old\"") || strings.Contains(text, "\"new\"") {
				t.Error("unapproved content is served")
			}
		})
	}
}

// A clock that is ahead must not wake the zone over and over.
func TestFreshness_ADoubtedClockArmsNoTimerInItsPast(t *testing.T) {
	r := &rig{t: t, dir: t.TempDir(), journal: journaltest.New(), clock: NewRehearsal(dayOne, 0)}
	r.start(nil)
	r.add(smallZone)
	if !r.clock.Move(20 * day) {
		t.Fatal("the clock does not move")
	}
	until(t, "the clock is doubted", func() bool { return !r.e.ClockStatus().Trusted })
	rn, err := r.e.find("example.com")
	if err != nil {
		t.Fatal(err)
	}
	rn.mu.Lock()
	defer rn.mu.Unlock()
	if next := rn.watchOverdue(); !next.IsZero() {
		t.Errorf("wakes at %s, the clock shows %s", next, r.clock.Now())
	}
}
