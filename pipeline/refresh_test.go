package pipeline

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/journal/journaltest"
	"sluice/signer/zone"
)

// byHand is a clock that a test moves.
type byHand struct {
	mu     sync.Mutex
	at     time.Time
	timers map[chan time.Time]time.Time
}

func newHand(at time.Time) *byHand { return &byHand{at: at, timers: map[chan time.Time]time.Time{}} }

func (h *byHand) clock() Clock { return Clock{start: dayOne, moved: new(atomic.Int64), hand: h} }

func (h *byHand) now() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.at
}

func (h *byHand) timer(at time.Time) (<-chan time.Time, func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	due := make(chan time.Time, 1)
	if !at.After(h.at) {
		due <- h.at
		return due, func() {}
	}
	h.timers[due] = at
	return due, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.timers, due)
	}
}

// move sets the clock forward.
func (h *byHand) move(to time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.at = to
	for due, at := range h.timers {
		if !at.After(to) {
			due <- to
			delete(h.timers, due)
		}
	}
}

var dayOne = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// wideZone has two RRsets at each of so many names.
func wideZone(serial, names int, text string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "$TTL 3600\n@ IN SOA ns1 hostmaster %d 7200 3600 1209600 300\n IN NS ns1\nns1 IN A 192.0.2.1\n", serial)
	for i := range names {
		fmt.Fprintf(&b, "n%d IN A 192.0.2.%d\n IN TXT %q\n", i, i%250, text)
	}
	return b.String()
}

// handRig is an engine whose clock the test moves.
func handRig(t *testing.T, policy string) (*rig, *byHand) {
	t.Helper()
	h := newHand(dayOne)
	r := &rig{t: t, dir: t.TempDir(), journal: journaltest.New(), clock: h.clock()}
	r.start(map[string]Policy{"default": reviewPolicy(t, policy)})
	return r, h
}

// expirations are those of all signatures that are served.
func (r *rig) expirations() []time.Time {
	r.t.Helper()
	name, err := zone.ParseName("example.com")
	if err != nil {
		r.t.Fatal(err)
	}
	v, err := r.e.Source().View(name)
	if err != nil {
		r.t.Fatal(err)
	}
	defer v.Close()
	it, err := v.Items()
	if err != nil {
		r.t.Fatal(err)
	}
	defer it.Close()
	var out []time.Time
	for it.Next() {
		if k := zone.Kind(it.Key()[0]); k != zone.KindSigs && k != zone.KindChainSigs {
			continue
		}
		for d := range zone.Value(it.Value()).Records() {
			at := uint32(d[8])<<24 | uint32(d[9])<<16 | uint32(d[10])<<8 | uint32(d[11])
			out = append(out, time.Unix(int64(at), 0).UTC())
		}
	}
	return out
}

// earliest is the first of the expirations, held against what the events say.
func (r *rig) earliest() time.Time {
	r.t.Helper()
	first := time.Unix(math.MaxInt32, 0).UTC()
	for _, at := range r.expirations() {
		if at.Before(first) {
			first = at
		}
	}
	st, err := r.e.Zone(r.t.Context(), "example.com")
	if err != nil {
		r.t.Fatal(err)
	}
	if st.NextExpiry == nil || !st.NextExpiry.Equal(first) {
		r.t.Fatalf("the first signature expires at %s, the events say %s", first, st.NextExpiry)
	}
	return first
}

// ixfr is the number of records of the way from a serial to what is served.
func (r *rig) ixfr(from uint32) (records int, known bool) {
	r.t.Helper()
	name, err := zone.ParseName("example.com")
	if err != nil {
		r.t.Fatal(err)
	}
	v, err := r.e.Source().View(name)
	if err != nil {
		r.t.Fatal(err)
	}
	defer v.Close()
	steps, ok := v.Diffs(zone.Serial(from))
	for _, d := range steps {
		for _, part := range []func() (zone.Iterator, error){d.Removed, d.Added} {
			it, err := part()
			if err != nil {
				r.t.Fatal(err)
			}
			for it.Next() {
				records += zone.Value(it.Value()).Count()
			}
			it.Close()
		}
	}
	return records, ok
}

// slices counts what each refresh made.
type slices60 struct {
	made, largest, versions int
	least                   time.Duration // that each signature has left; 0: the default remain-time
}

// run moves the clock from one thing to do to the next until a time, and
// looks after each: no signature is ever short of its remain-time, an IXFR
// has the records of the slice and no others.
func (s *slices60) run(t *testing.T, r *rig, h *byHand, until time.Time) {
	t.Helper()
	st := r.await()
	for at := *st.NextAt; at.Before(until); at = *st.NextAt {
		before := st
		h.move(at)
		if st = r.await(); st.Published.Instance == before.Published.Instance {
			if st.NextAt == nil || !st.NextAt.After(at) {
				t.Fatalf("nothing was done at %s: %+v", at, st.ZoneSummary)
			}
			continue
		}
		made := int(st.Published.Made)
		s.made, s.versions, s.largest = s.made+made, s.versions+1, max(s.largest, made)
		if left := r.earliest().Sub(at); left < cmp.Or(s.least, Default().RemainTime()) {
			t.Fatalf("at %s a signature has %s left", at, left)
		}
		if n, ok := r.ixfr(before.Published.Serial); !ok || n != 2*(made-1)+2 {
			t.Fatalf("at %s: %d signatures made, the IXFR has %d records (known: %v)", at, made, n, ok)
		}
	}
	h.move(until)
	r.await()
}

// rate checks that refreshes make, in a time, what a steady schedule makes,
// and no burst.
func (s *slices60) rate(t *testing.T, signatures uint64, over time.Duration) {
	t.Helper()
	mean := float64(s.made) / float64(s.versions)
	if float64(s.largest) > 2*mean {
		t.Errorf("a burst of %d signatures, the mean slice has %.0f", s.largest, mean)
	}
	cycles := float64(s.made) / float64(signatures)
	if want := float64(over) / float64(Default().window()); cycles < want-0.7 || cycles > want+0.7 {
		t.Errorf("each signature was made %.2f times in %s, a steady schedule makes it %.2f times", cycles, over, want)
	}
	if n := int(over / Default().set.refreshInterval); s.versions > n+2 {
		t.Errorf("%d versions in %s, one an interval are %d", s.versions, over, n)
	}
}

func TestRefresh_SixtyDaysWithoutABurst(t *testing.T) {
	names := 500
	if os.Getenv("SLUICE_LONG") != "" {
		names = 20_000
	}
	r, h := handRig(t, "")
	st := r.add(wideZone(1, names, "as it was"))
	signatures := st.Published.Signatures
	var calm slices60
	calm.run(t, r, h, dayOne.Add(30*day))
	calm.rate(t, signatures, 30*day)

	// All is signed again at once, and is due as evenly as before.
	r.reload(wideZone(2, names, "as it is"))
	if err := r.e.Resign(t.Context(), testActor, "example.com", true); err != nil {
		t.Fatal(err)
	}
	st = r.await()
	if st.Published.Made != st.Published.Signatures {
		t.Fatalf("%d of %d signatures made", st.Published.Made, st.Published.Signatures)
	}
	served, hash := r.served(), r.liveHash()
	r.stop()
	if err := os.RemoveAll(filepath.Join(r.dir, "projections")); err != nil {
		t.Fatal(err)
	}
	r.start(nil)
	if r.served() != served || r.liveHash() != hash {
		t.Error("the rebuilt projection differs")
	}
	var changed slices60
	changed.run(t, r, h, dayOne.Add(60*day))
	changed.rate(t, signatures, 30*day)
	if rep, err := r.e.VerifyZone(t.Context(), "example.com", nil); err != nil || !rep.OK() {
		t.Errorf("verify: %v, %v", err, rep)
	}
	replayAll(t, r)
	hash = r.liveHash()
	r.stop()
	if err := os.RemoveAll(filepath.Join(r.dir, "projections")); err != nil {
		t.Fatal(err)
	}
	r.start(nil)
	if r.liveHash() != hash {
		t.Error("the rebuilt projection differs after 60 days")
	}
}

// versions are the signed instances so far.
func (r *rig) versions() (out []event.InstanceSigned) {
	r.t.Helper()
	st, err := r.e.Zone(r.t.Context(), "example.com")
	if err != nil {
		r.t.Fatal(err)
	}
	err = r.journal.Read(r.t.Context(), event.ZoneID(st.ID), 1, 0, func(rec journal.Record) error {
		if f, ok := rec.Event.Facts.(*event.InstanceSigned); ok {
			out = append(out, *f)
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

func TestRefresh_WhatExpiresFirstGoesFirstAfterAStandstill(t *testing.T) {
	r, h := handRig(t, "")
	st := r.add(wideZone(1, 1500, "text"))
	r.stop()
	h.move(dayOne.Add(12 * day))
	r.start(nil)
	r.await()
	all, most := r.versions(), Default().SliceSize(st.Published.Signatures)
	if want := int(st.Published.Signatures) * 9 / 10 / most; len(all)-1 < want || len(all)-1 > want+2 {
		t.Errorf("%d refreshes of at most %d signatures, %d signatures, nine tenths of them due", len(all)-1, most, st.Published.Signatures)
	}
	grain := int64(2 * time.Hour / time.Second)
	for i, f := range all[1:] {
		if int(f.Made) > most+1 || f.Earliest+grain < all[i].Earliest || f.Base == 0 {
			t.Errorf("refresh %d: %d signatures made; the first then expires at %d, before at %d", i, f.Made, f.Earliest, all[i].Earliest)
		}
	}
	if left := r.earliest().Sub(h.now()); left < Default().RemainTime() {
		t.Errorf("in the end a signature has %s left", left)
	}
	replayAll(t, r)
}

func TestRefresh_WhatHasExpiredDoesNotWaitForASlice(t *testing.T) {
	r, h := handRig(t, "")
	r.add(wideZone(1, 1500, "text"))
	r.stop()
	h.move(dayOne.Add(20 * day))
	r.start(nil)
	r.await()
	if all := r.versions(); len(all) > 3 || time.Unix(all[1].Earliest, 0).Before(h.now().Add(Default().RemainTime()/urgentPart)) {
		t.Errorf("%d versions; after the first refresh a signature expires at %s", len(all), time.Unix(all[1].Earliest, 0))
	}
	if left := r.earliest().Sub(h.now()); left < Default().RemainTime() {
		t.Errorf("in the end a signature has %s left", left)
	}
}

const keepSerial = "[signer]\nserial-policy = \"keep\"\n"

// notKept is the alarms about a serial that is not the source's.
func notKept(st ZoneStatus) (out []string) {
	for _, n := range st.Notices {
		if n.Severity == severityAlarm && strings.Contains(n.Text, "serial-policy keep") {
			out = append(out, n.Text)
		}
	}
	return out
}

func TestSerialKeep_SixtyDaysWithoutABurstThoughTheSourceStandsStill(t *testing.T) {
	r, h := handRig(t, keepSerial)
	half := Default().RemainTime() / 2
	st := r.add(wideZone(1, 500, "text"))
	calm := slices60{least: half}
	calm.run(t, r, h, dayOne.Add(60*day))
	// It began half of the remain-time late, and went on as steadily.
	calm.rate(t, st.Published.Signatures, 60*day-half)
	if st = r.await(); st.Published.Serial != uint32(1+calm.versions) || len(notKept(st)) != 1 {
		t.Errorf("serial %d after %d versions, alarms %q", st.Published.Serial, calm.versions, notKept(st))
	}
	replayAll(t, r)
}

func TestSerialKeep_SignaturesWaitForTheSourceAndComeWithIt(t *testing.T) {
	r, h := handRig(t, keepSerial)
	remain, lead := Default().RemainTime(), Default().refreshLead()
	st := r.add(wideZone(10, 700, "text"))
	signatures := st.Published.Signatures
	for serial := uint32(11); serial < 14; serial++ {
		// It is due, and nothing happens, until the source moves.
		h.move(h.now().Add(5 * day))
		if st = r.await(); st.Published.Serial != serial-1 || len(notKept(st)) > 0 || r.overdue().Text != "" {
			t.Fatalf("after five days serial %d, alarms %q, %q", st.Published.Serial, notKept(st), r.overdue().Text)
		}
		due := r.earliest()
		if left := due.Sub(h.now()); left > remain || left < remain/2 {
			t.Fatalf("after five days a signature has %s left: nothing is due", left)
		}
		if want := due.Add(-remain/2 - lead); st.NextAt == nil || !st.NextAt.Equal(want) || !strings.Contains(st.Next, "unless the source's moves") {
			t.Errorf("next: %v, want %s; for %q", st.NextAt, want, st.Next)
		}
		st = r.reload(wideZone(int(serial), 700, "text"))
		if st.Published.Serial != serial || len(notKept(st)) > 0 {
			t.Errorf("serial %d, alarms %q", st.Published.Serial, notKept(st))
		}
		// More than a slice, and no more than what is due.
		if made := int(st.Published.Made); made <= Default().SliceSize(signatures) || made > int(signatures)*6/10 {
			t.Errorf("%d of %d signatures came along", made, signatures)
		}
		if left := r.earliest().Sub(h.now()); left < remain {
			t.Errorf("then a signature has %s left", left)
		}
	}
	// The source stands still: at half of the remain-time ours goes on alone.
	st = r.await()
	at := *st.NextAt
	h.move(at.Add(-time.Second))
	if st = r.await(); st.Published.Serial != 13 {
		t.Errorf("a second before: serial %d", st.Published.Serial)
	}
	h.move(at)
	if st = r.await(); st.Published.Serial != 14 || len(notKept(st)) != 1 || st.Published.Made >= signatures/4 {
		t.Errorf("then serial %d, alarms %q, %d signatures made", st.Published.Serial, notKept(st), st.Published.Made)
	}
	if left := r.earliest().Sub(at); left < remain/2 {
		t.Errorf("a signature has %s left", left)
	}
	// max(source, previous + 1), until the source is ahead again.
	for _, step := range []struct {
		source, want uint32
		alarms       int
	}{{14, 15, 1}, {15, 16, 1}, {40, 40, 0}} {
		if st = r.reload(wideZone(int(step.source), 700, "text")); st.Published.Serial != step.want || len(notKept(st)) != step.alarms {
			t.Errorf("source %d: serial %d, alarms %q", step.source, st.Published.Serial, notKept(st))
		}
	}
	replayAll(t, r)
}

func TestSerialKeepStrict_AlarmsWithTimeLeftAndPublishesNothing(t *testing.T) {
	r, h := handRig(t, "[signer]\nserial-policy = \"keep-strict\"\n")
	st := r.add(wideZone(10, 20, "text"))
	end, remain := *st.NextExpiry, Default().RemainTime()
	for _, row := range []struct {
		left     time.Duration
		severity string
	}{{remain + day, ""}, {remain - time.Hour, severityInfo}, {remain/2 - time.Minute, severityAlarm}, {time.Hour, severityAlarm}} {
		h.move(end.Add(-row.left))
		st = r.await()
		n := r.overdue()
		if n.Severity != row.severity || n.Text != "" && (!strings.Contains(n.Text, "keep-strict") || !strings.Contains(n.Hint, "above 10")) {
			t.Errorf("with %s left: %+v", row.left, n)
		}
		if alarms := strings.Join(r.e.Alarms(), "\n"); strings.Contains(alarms, "keep-strict") != (row.severity == severityAlarm) {
			t.Errorf("with %s left health says %q", row.left, alarms)
		}
		if st.Published.Serial != 10 || len(r.versions()) != 1 || st.LastError != "" {
			t.Errorf("with %s left: serial %d, %d versions, error %q", row.left, st.Published.Serial, len(r.versions()), st.LastError)
		}
	}
	if err := r.e.Resign(t.Context(), testActor, "example.com", false); err == nil || !strings.Contains(err.Error(), "above 10") {
		t.Errorf("resign: %v", err)
	}
	if st = r.reload(wideZone(11, 20, "text")); st.Published.Serial != 11 || r.overdue().Text != "" || r.earliest().Before(h.now().Add(remain)) {
		t.Errorf("the source moved: serial %d, %+v, the first expires at %s", st.Published.Serial, r.overdue(), r.earliest())
	}
	if failed := r.history("sign.failed"); len(failed) > 0 {
		t.Errorf("signing failed: %q", failed)
	}
}

// What was signed here is served until the source brings signatures that fit,
// and stays fresh until then, under a serial of ours.
func TestRefresh_GoesOnUnderAPolicyThatPassesThrough(t *testing.T) {
	h := newHand(dayOne)
	r := &rig{t: t, dir: t.TempDir(), journal: journaltest.New(), clock: h.clock()}
	r.start(modePolicies(t, ""))
	st := r.add(smallZone)
	serial, end := st.Published.Serial, *st.NextExpiry
	if st, err := r.turn("through"); err != nil || st.Published.Serial != serial || st.LastError == "" {
		t.Fatalf("turned with an unsigned source: %v, %+v", err, st)
	}
	h.move(end.Add(-Default().RemainTime()))
	until(t, "signatures are made again", func() bool { return r.await().Published.Serial != serial })
	if left := r.earliest().Sub(h.now()); left < Default().RemainTime() {
		t.Errorf("then a signature has %s left", left)
	}
}
