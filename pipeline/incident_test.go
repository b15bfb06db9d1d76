package pipeline

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/journal/journaltest"
	"sluice/keymgr"
)

// Each test here is named after an outage. The list of them is in DESIGN.md of
// keymgr.

// unreliable is a keystore that signs wrongly while it is told to.
type unreliable struct {
	keymgr.Keystore
	bad   atomic.Int64 // how many of the next signatures are wrong
	after atomic.Int64 // how many good ones come first
}

func (u *unreliable) Signer(ctx context.Context, ref string) (crypto.Signer, error) {
	s, err := u.Keystore.Signer(ctx, ref)
	if err != nil {
		return nil, err
	}
	return &unreliableSigner{s, u}, nil
}

type unreliableSigner struct {
	crypto.Signer
	store *unreliable
}

func (s *unreliableSigner) Sign(random io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	sig, err := s.Signer.Sign(random, message, opts)
	if err == nil && s.store.bad.Load() > 0 && s.store.after.Add(-1) < 0 && s.store.bad.Add(-1) >= 0 {
		sig = slices.Clone(sig)
		sig[len(sig)-1] ^= 1
	}
	return sig, err
}

// newUnreliable is an engine with such a keystore and a clock that is moved by
// hand.
func newUnreliable(t *testing.T, policy string) (*rig, *unreliable, *byHand) {
	t.Helper()
	u, h := &unreliable{}, newHand(dayOne)
	p, err := Parse("default", []byte("version = \"v1\"\n"+policy))
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, dir: t.TempDir(), journal: journaltest.New(), clock: h.clock()}
	r.wrap = func(ks keymgr.Keystore) keymgr.Keystore {
		u.Keystore = ks
		return u
	}
	r.start(map[string]Policy{"default": p})
	return r, u, h
}

func (r *rig) wantsValid() {
	r.t.Helper()
	if rep, err := r.e.VerifyZone(r.t.Context(), "example.com", nil); err != nil || !rep.OK() {
		r.t.Errorf("what is served does not verify: %v, %v", err, rep)
	}
}

// numbered is the small zone with another address.
func numbered(n int) string {
	return strings.Replace(smallZone, "192.0.2.80", fmt.Sprintf("192.0.2.%d", 100+n), 1)
}

// .DE, 2026-05-05: each token had a key pair of its own under one label, and two
// thirds of the signatures were by pairs that nobody had published. A key that
// does not always sign as its DNSKEY says never becomes active, and nothing that
// it made is served.
func TestIncident_DE2026_KeyPairsUnderOneLabel(t *testing.T) {
	m := &mixed{}
	w := newRollingWith(t, "", func(ks keymgr.Keystore) keymgr.Keystore {
		m.Keystore = ks
		return m
	})
	w.secure()
	served := w.served()
	m.on.Store(true)
	failed := 0
	for range 12 {
		st, err := w.e.Roll(t.Context(), testActor, "example.com", RolloverRequest{Kind: keymgr.RollZSK, Method: keymgr.DoubleSignature})
		if err != nil {
			failed++
			if !strings.Contains(err.Error(), "does not prove itself") {
				t.Fatal(err)
			}
			continue
		}
		// The proof met the right pair. What is signed does not get out.
		w.await()
		if st = w.status(); w.served() != served {
			t.Fatalf("served: %+v", st.Published)
		}
		if got := w.historyOf("sign.failed"); len(got) == 0 || !strings.Contains(got[0], "does not verify") {
			t.Errorf("history says %q", got)
		}
		break
	}
	if failed == 0 {
		t.Error("each proof met the right pair")
	}
	m.on.Store(false)
	w.runs("the end", quiet)
	w.verifies()
}

// mixed is a keystore in which one reference stands for three key pairs, one of
// them the published one. It signs with the next pair each time.
type mixed struct {
	keymgr.Keystore
	on   atomic.Bool
	asks atomic.Int64
}

func (m *mixed) Signer(ctx context.Context, ref string) (crypto.Signer, error) {
	s, err := m.Keystore.Signer(ctx, ref)
	if err != nil {
		return nil, err
	}
	return &mixedSigner{s, m}, nil
}

type mixedSigner struct {
	crypto.Signer
	store *mixed
}

func (s *mixedSigner) Sign(random io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	if !s.store.on.Load() || s.store.asks.Add(1)%3 == 0 {
		return s.Signer.Sign(random, message, opts)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return other.Sign(nil, message, opts)
}

// .SE, 2022-02-04: the signing chain made bad RRSIGs in six hourly versions,
// and later ones took them over.
func TestIncident_SE2022_BadSignatureIsNotCarriedOn(t *testing.T) {
	r, u, h := newUnreliable(t, "")
	r.add(smallZone)
	served := r.served()
	for n := range 6 {
		h.move(h.now().Add(time.Hour))
		// What is tried again while the clock was moved is bad too.
		u.after.Store(int64(n % 2))
		u.bad.Store(1000)
		r.reload(numbered(n))
		if r.served() != served {
			t.Fatalf("version %d with a bad signature is served", n)
		}
	}
	if got := r.historyOf("sign.failed"); len(got) < 6 || !strings.Contains(got[0], "does not verify") {
		t.Errorf("history says %q", got)
	}
	if n := r.count("instance.signed"); n != 1 {
		t.Errorf("%d signed versions were journaled, want the first alone", n)
	}
	st := r.status()
	if st.State != "published, signing failed" || !slices.ContainsFunc(st.Notices, func(n Notice) bool { return n.Severity == severityAlarm }) {
		t.Errorf("status %q, notices %+v", st.State, st.Notices)
	}
	u.bad.Store(0)
	st = r.reload(numbered(6))
	if st.LastError != "" || !strings.Contains(r.dump(), "192.0.2.106") {
		t.Errorf("with a keystore that is right again: %q, %s", st.State, st.LastError)
	}
	r.wantsValid()
}

// .AU, 2022-03-22 and 2023-09-18: signing the zone again, without a change of
// it, brought bad records. Nothing but a version that passed replaces what is
// served, and the way on needs nobody.
func TestIncident_AU2022_BadRefreshLeavesTheLastGoodVersion(t *testing.T) {
	r, u, h := newUnreliable(t, "")
	first := r.add(smallZone)
	served := r.served()
	due := *first.NextAt
	for range 20 { // until signatures are due
		if u.bad.Store(1000); r.count("sign.failed") > 0 {
			break
		}
		h.move(due)
		until(t, "the zone is at rest", func() bool {
			st := r.await()
			due = *st.NextAt
			return st.NextAt.After(h.now())
		})
	}
	if r.count("sign.failed") == 0 {
		t.Fatal("the bad signatures were not met")
	}
	if r.served() != served {
		t.Fatal("what was made badly is served")
	}
	u.bad.Store(0)
	h.move(h.now().Add(2 * time.Hour)) // past the back-off: nobody asks
	until(t, "the zone is signed again by itself", func() bool {
		return r.await().LastError == "" && r.served() != served
	})
	r.wantsValid()
}

// .AU, 2023-09-18, and what replaced the bad version by hand in others: a
// version is replaced as a whole, and only by one that passed its review.
func TestIncident_AU2023_WhatTheGateRejectsIsNeverServedInPart(t *testing.T) {
	h := newHand(dayOne)
	// The checker sees what it is to judge by AXFR in life; here by its name.
	flag := filepath.Join(t.TempDir(), "bad")
	p := reviewPolicy(t, fmt.Sprintf("[signer.review]\nmode = \"script\"\nhooks = [{ command = \"! test -e %s\" }]\n", flag))
	r := &rig{t: t, dir: t.TempDir(), journal: journaltest.New(), clock: h.clock()}
	r.start(map[string]Policy{"default": p})
	r.add(smallZone)
	served := r.served()
	if err := os.WriteFile(flag, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	st := r.reload(changedZone())
	if r.served() != served || r.count("review.rejected") != 1 || r.count("instance.abandoned") != 1 {
		t.Fatalf("after the verdict: %+v, history %q", st.ZoneSummary, r.historyOf("review.rejected", "instance.abandoned"))
	}
	if err := os.Remove(flag); err != nil {
		t.Fatal(err)
	}
	// The way back is the last good version, and it is kept fresh.
	h.move(h.now().Add(20 * 24 * time.Hour))
	until(t, "the last good content has fresh signatures", func() bool {
		r.await()
		return r.served() != served
	})
	if dump := r.dump(); strings.Contains(dump, "192.0.2.81") || !strings.Contains(dump, "192.0.2.80") {
		t.Error("what was rejected came back with a refresh")
	}
	r.wantsValid()
}

// .MX, 2023-04-04, twice in a day; likewise .VE 2023 and .NA 2019 and 2022:
// bogus RRSIGs that came back after a fix. What is to replace them goes through
// the same gate, and what was wrong is kept to be looked at.
func TestIncident_MX2023_FixGoesThroughTheGateAndTheBadVersionIsKept(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad")
	p := reviewPolicy(t, fmt.Sprintf("[signer.review]\nmode = \"script\"\nhooks = [{ command = \"! test -e %s\" }]\n", bad))
	r := newRig(t, journaltest.New(), map[string]Policy{"default": p})
	r.add(smallZone)
	served := r.served()
	if err := os.WriteFile(bad, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for n := range 2 {
		r.reload(numbered(n))
		if r.served() != served {
			t.Fatalf("fix %d is served though the gate rejected it", n)
		}
	}
	rejected := r.historyOf("review.rejected")
	if len(rejected) != 2 {
		t.Fatalf("verdicts %q", rejected)
	}
	if err := os.Remove(bad); err != nil {
		t.Fatal(err)
	}
	st := r.reload(numbered(2))
	if !strings.Contains(r.dump(), "192.0.2.102") || r.count("review.approved") < 2 {
		t.Errorf("the fix is not served, or without a verdict: %+v", st.ZoneSummary)
	}
	r.wantsValid()
	// Every instance that was signed, the bad ones too, comes out of the
	// journal with the digest of then.
	seen := map[string]bool{}
	if err := r.e.Replay(t.Context(), "example.com", "", true, nil, func(s ReplayStep) error {
		seen[s.Instance] = s.Equal
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, text := range rejected {
		if name, _, _ := strings.Cut(text, " "); !seen[name] {
			t.Errorf("%s cannot be had any more: %v", name, seen)
		}
	}
}

// .RU, 2024-01-30: the new ZSK was put to use, and signatures by it failed. One
// command returns to the key before, which is still published.
func TestIncident_RU2024_OneCommandReturnsToTheKeyBefore(t *testing.T) {
	w := newRolling(t, "")
	w.secure()
	zsk := func() string {
		r, err := w.e.find("example.com")
		if err != nil {
			t.Fatal(err)
		}
		s := r.snapshot()
		for _, id := range s.Published.Signed.Facts.Signers {
			if k, _ := s.Keys.ByID(id); k.SignsZone() {
				return id
			}
		}
		return ""
	}
	before := zsk()
	w.rolls(RolloverRequest{Kind: keymgr.RollZSK})
	w.runs("the new key signs", func(ZoneStatus) bool { return zsk() != before })
	at := w.h.now()
	if _, err := w.e.AbortRollover(t.Context(), testActor, "example.com", 0, "signatures by the new key do not verify"); err != nil {
		t.Fatal(err)
	}
	w.settle()
	if got := zsk(); got != before || !w.h.now().Equal(at) {
		t.Errorf("signs with %s, want %s at once", got, before)
	}
	w.verifies()
	st := w.runs("the end", quiet)
	if got := zsk(); got != before || len(inState(st.Keys, keymgr.Removed)) != 1 {
		t.Errorf("in the end signs with %s, want %s; removed %v", got, before, inState(st.Keys, keymgr.Removed))
	}
	w.verifies()
}

// RIPE NCC, February and April 2011: a signer's bug showed in a KSK rollover.
// What it made is checked before it is published, and the rollover waits.
func TestIncident_RIPENCC2011_BadKSKRolloverIsNotPublished(t *testing.T) {
	u := &unreliable{}
	w := newRollingWith(t, "", func(ks keymgr.Keystore) keymgr.Keystore {
		u.Keystore = ks
		return u
	})
	st := w.secure()
	served, serial := w.served(), st.Published.Serial
	u.bad.Store(1 << 30)
	if _, err := w.e.Roll(t.Context(), testActor, "example.com", RolloverRequest{Kind: keymgr.RollKSK}); err == nil {
		t.Error("a key that does not prove itself begins to sign")
	}
	u.after.Store(keymgr.Proofs) // the proof is right, the DNSKEY RRset's signature is not
	if _, err := w.e.Roll(t.Context(), testActor, "example.com", RolloverRequest{Kind: keymgr.RollKSK}); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		w.h.move(w.h.now().Add(time.Hour))
		w.await()
	}
	if st = w.status(); w.served() != served || st.Published.Serial != serial {
		t.Fatal("what the signer made is served")
	}
	if ro := st.Rollovers[0]; ro.Phase != keymgr.PhasePublish || ro.Step != 1 {
		t.Errorf("the rollover goes on: %+v", ro)
	}
	u.bad.Store(0)
	w.runs("the end", quiet)
	w.verifies()
}

// lateReader is a journal whose newest events are not read until later.
type lateReader struct {
	*journaltest.Memory
	held    atomic.Bool
	until   chan struct{} // closed when they are
	refused atomic.Int64  // appends that met events which were not read
}

func (l *lateReader) stop() { l.held.Store(true) }

func (l *lateReader) Follow(ctx context.Context, id event.ZoneID, from uint64, caughtUp func(), fn func(journal.Record) error) error {
	return l.Memory.Follow(ctx, id, from, caughtUp, func(rec journal.Record) error {
		if l.held.Load() {
			select {
			case <-l.until:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return fn(rec)
	})
}

func (l *lateReader) Append(ctx context.Context, id event.ZoneID, head journal.Head, events ...event.Event) (journal.Head, error) {
	next, err := l.Memory.Append(ctx, id, head, events...)
	if errors.Is(err, journal.ErrConflict) {
		l.refused.Add(1)
	}
	return next, err
}

// APNIC reverse zones, 2012-12: the standby signer took over with other ZSKs.
// One that does not know the newest events signs nothing that counts.
func TestIncident_APNIC2012_OlderViewSignsNothing(t *testing.T) {
	j := journaltest.New()
	h := newHand(dayOne)
	a := &rig{t: t, dir: t.TempDir(), journal: j, clock: h.clock()}
	a.start(nil)
	a.add(smallZone)
	if _, err := a.e.AbortRollover(t.Context(), testActor, "example.com", 0, "no parent here"); err != nil {
		t.Fatal(err)
	}
	// The standby shares journal and keys, and has read all events so far.
	late := &lateReader{Memory: j, until: make(chan struct{})}
	b := &rig{t: t, dir: t.TempDir(), journal: late, clock: h.clock()}
	if err := os.Symlink(filepath.Join(a.dir, "keys"), filepath.Join(b.dir, "keys")); err != nil {
		t.Fatal(err)
	}
	b.start(nil)
	b.await()
	late.stop()
	if _, err := a.e.Roll(t.Context(), testActor, "example.com", RolloverRequest{Kind: keymgr.RollZSK, Method: keymgr.DoubleSignature}); err != nil {
		t.Fatal(err)
	}
	newest := a.await()
	keys := len(inState(newest.Keys, keymgr.Active))
	if st := b.status(); len(inState(st.Keys, keymgr.Active)) == keys {
		t.Fatal("the standby knows of the new key")
	}
	_, last, err := j.Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// It is to sign now, with what it knows.
	if err := b.e.Resign(t.Context(), testActor, "example.com", true); err != nil {
		t.Fatal(err)
	}
	until(t, "the standby has met the newer events", func() bool { return late.refused.Load() > 0 })
	if _, now, err := j.Stream(t.Context()); err != nil || now != last {
		t.Fatalf("events %d to %d came from an older view, %v", last+1, now, err)
	}
	close(late.until)
	until(t, "the standby goes on with the newest keys", func() bool {
		st := b.await()
		return len(inState(st.Keys, keymgr.Active)) == keys && st.Published.Serial > newest.Published.Serial
	})
	b.wantsValid()
	r, err := b.e.find("example.com")
	if err != nil {
		t.Fatal(err)
	}
	if s := r.snapshot(); len(s.Published.Signed.Facts.Signers) != keys {
		t.Errorf("signed with %v", s.Published.Signed.Facts.Signers)
	}
}

// .MG, 2017: signatures whose inception lay in the future.
func TestIncident_MG2017_NothingIsSignedByAClockThatJumped(t *testing.T) {
	r := rehearse(t)
	r.add(smallZone)
	served := r.served()
	r.moveClock(90 * 24 * time.Hour)
	if err := r.e.Resign(t.Context(), testActor, "example.com", true); err != nil {
		t.Fatal(err)
	}
	r.wantDoubt(served, "192.0.2.81") // loads it, and wants nothing signed
	r.moveClock(-90 * 24 * time.Hour)
	r.wantSigned("192.0.2.81")
}

// .xn--wgbh1c, 2020, eight days: RRSIGs expired, and nobody noticed.
func TestIncident_XNWGBH1C2020_ExpiryIsAnAlarmWithDaysLeft(t *testing.T) {
	r, u, h := newUnreliable(t, "")
	st := r.add(smallZone)
	end := *st.NextExpiry
	u.bad.Store(1 << 30) // from now on nothing can be signed
	h.move(end.Add(-3 * 24 * time.Hour))
	until(t, "health is in alarm, with the time that is left", func() bool {
		r.await()
		return strings.Contains(strings.Join(r.e.Alarms(), "\n"), "example.com. signatures expire in ")
	})
	if n := r.overdue(); n.Severity != severityAlarm || !strings.Contains(n.Text, "does not verify") || n.Hint == "" {
		t.Errorf("status says %+v", n)
	}
	u.bad.Store(0)
	h.move(h.now().Add(2 * time.Hour))
	until(t, "the alarm ends with the cause", func() bool {
		r.await()
		return len(r.e.Alarms()) == 0
	})
	r.wantsValid()
}

// Slack, 2021-09-30: the DS was withdrawn while resolvers had it cached, and the
// zone was served without signatures.
func TestIncident_Slack2021_TheWayToUnsignedWaitsForTheDSTTL(t *testing.T) {
	w := newRolling(t, "")
	w.secure()
	if _, err := w.turn("unsigned"); err == nil || !strings.Contains(err.Error(), "DS") {
		t.Errorf("turns at once: %v", err)
	}
	w.rolls(RolloverRequest{Kind: keymgr.RollInsecure})
	st := w.runs("no server of the parent has the DS", func(st ZoneStatus) bool { return st.Rollovers[0].Phase == keymgr.PhaseWait })
	wait := st.Rollovers[0].Wait
	if !slices.ContainsFunc(wait.Inputs, func(in event.WaitInput) bool { return in.Name == "TTLds" && in.Seconds == 86400 }) {
		t.Errorf("waits %s", keymgr.WaitText(wait))
	}
	earliest := time.Unix(wait.Earliest, 0)
	for !w.h.now().After(earliest.Add(-time.Hour)) {
		if _, err := w.turn("unsigned"); err == nil || !strings.Contains(w.dump(), "RRSIG") {
			t.Fatalf("unsigned at %s, while caches may hold the DS until %s", w.h.now(), earliest)
		}
		w.h.move(w.h.now().Add(6 * time.Hour))
		w.settle()
	}
	w.runs("the end", quiet)
	if _, err := w.turn("unsigned"); err != nil {
		t.Error(err)
	}
}

// 1.1.1.1, 2023-10-04, the other half: an old copy was used for weeks, and
// nobody was told. Input that grows old is told from its first failure on, and
// is an alarm once it may not be vouched for; what is served stays signed.
func TestIncident_OneOneOneOne2023_StaleInputIsAnAlarm(t *testing.T) {
	p := newPrimary(t, "$TTL 300\n@ 3600 SOA ns1 hostmaster 3 7200 3600 86400 300\n@ NS ns1\nns1 A 192.0.2.1\n")
	h := newHand(dayOne)
	r := &rig{t: t, dir: t.TempDir(), journal: journaltest.New(), clock: h.clock()}
	r.start(nil)
	r.addFrom(p.addr)
	served := r.served()
	p.set(true) // nobody answers
	told := func(severity, what string) {
		t.Helper()
		until(t, severity+": "+what, func() bool { return hasNotice(r.await(), severity, what) })
	}
	h.move(h.now().Add(3 * time.Hour))
	told("warning", "REFUSED")
	h.move(h.now().Add(48 * time.Hour))
	told("alarm", "for the EXPIRE time of the SOA")
	if r.served() != served {
		t.Error("what is served changed without input")
	}
	h.move(h.now().Add(20 * 24 * time.Hour))
	until(t, "the signatures of the old content are fresh", func() bool {
		r.await()
		return r.served() != served
	})
	r.wantsValid()
}

// .SE, 2009-10-12: a script left out the final dot in the whole zone. A change
// of most of the zone is not taken, whatever the reason, until a person says so.
func TestIncident_SE2009_AWholeZoneThatChangedWaitsForAPerson(t *testing.T) {
	zoneOf := func(dot string) string {
		text := "$TTL 3600\n@ SOA ns1 hostmaster 7 7200 3600 1209600 300\n@ NS ns1\nns1 A 192.0.2.1\n"
		for i := range 40 {
			text += fmt.Sprintf("d%d NS ns.d%d.example.com%s\nns.d%d A 192.0.2.53\n", i, i, dot, i)
		}
		return text
	}
	r := reviewRig(t, "[loader.checks]\nmax-change-percent = 20\n[loader.review]\non-reject = \"halt\"\n")
	r.add(zoneOf("."))
	served := r.served()
	st := r.reload(zoneOf(""))
	if r.served() != served || st.State != "halted" || !hasNotice(st, "info", "is a final dot missing?") {
		t.Fatalf("after the script: %q, %+v", st.State, st.Notices)
	}
	if got := r.historyOf("review.rejected"); len(got) != 1 || !strings.Contains(got[0], "max-change-percent") {
		t.Errorf("verdicts %q", got)
	}
	if _, err := r.e.Override(t.Context(), testActor, "example.com", event.StageLoaded, NewDecision{}); err == nil {
		t.Error("overridden without a reason")
	}
	if _, err := r.e.Reset(t.Context(), testActor, "example.com", NewDecision{Reason: "the script is corrected"}); err != nil {
		t.Fatal(err)
	}
	if st = r.reload(strings.Replace(zoneOf("."), " 7 ", " 8 ", 1)); st.State != "published" || strings.Contains(r.dump(), "example.com.example.com.") {
		t.Errorf("with the zone corrected: %q, %+v", st.State, st.Notices)
	}
	r.wantsValid()
}
