package pipeline

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/journal/event"
	"sluice/journal/journaltest"
	"sluice/pipeline/store"
	"sluice/signer/zone"
)

func changedZone() string { return strings.Replace(smallZone, "192.0.2.80", "192.0.2.81", 1) }

// reviewRig is an engine whose default policy has the given lines.
func reviewRig(t *testing.T, policy string) *rig {
	t.Helper()
	return newRig(t, journaltest.New(), map[string]Policy{"default": reviewPolicy(t, policy)})
}

// review is the one review of the zone.
func (r *rig) review(stage string) ReviewStatus {
	r.t.Helper()
	st, err := r.e.Zone(r.t.Context(), "example.com")
	if err != nil {
		r.t.Fatal(err)
	}
	for _, rv := range st.Reviews {
		if rv.Stage == stage {
			return rv
		}
	}
	r.t.Fatalf("nothing is under %s review: %+v", stage, st.ZoneSummary)
	return ReviewStatus{}
}

func verdictOn(rv ReviewStatus) NewVerdict {
	return NewVerdict{Instance: rv.Instance, Digest: rv.Digest, Reason: "said so"}
}

func (r *rig) approve(stage string) ZoneStatus {
	r.t.Helper()
	if _, err := r.e.Approve(r.t.Context(), testActor, "example.com", stage, verdictOn(r.review(stage))); err != nil {
		r.t.Fatal(err)
	}
	return r.await()
}

func (r *rig) reject(stage string) ZoneStatus {
	r.t.Helper()
	if _, err := r.e.Reject(r.t.Context(), testActor, "example.com", stage, verdictOn(r.review(stage))); err != nil {
		r.t.Fatal(err)
	}
	return r.await()
}

// count is the number of events of a type.
func (r *rig) count(kind string) int {
	r.t.Helper()
	n := 0
	err := r.e.History(r.t.Context(), "example.com", HistoryQuery{Types: []string{kind}}, func(HistoryLine) error { n++; return nil })
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}

// fetched is every item that a review listener would serve.
func (r *rig) fetched(stage string) string {
	r.t.Helper()
	name, err := zone.ParseName("example.com")
	if err != nil {
		r.t.Fatal(err)
	}
	v, err := r.e.ReviewSource(stage).View(name)
	if err != nil {
		r.t.Fatal(err)
	}
	defer v.Close()
	it, err := v.Items()
	if err != nil {
		r.t.Fatal(err)
	}
	defer it.Close()
	var b strings.Builder
	for it.Next() {
		texts, err := zone.RecordTexts(it.Key(), it.Value())
		if err != nil {
			r.t.Fatal(err)
		}
		b.WriteString(strings.Join(texts, "\n") + "\n")
	}
	return b.String()
}

func TestReview_NothingIsServedBeforeItsVerdicts(t *testing.T) {
	r := reviewRig(t, loadedManual+signedManual)
	st := r.add(smallZone)
	if st.Published != nil || st.Signed != nil || st.State != "in review" {
		t.Fatalf("before the verdict: %+v", st)
	}
	if text := r.fetched(event.StageLoaded); !strings.Contains(text, "192.0.2.80") || strings.Contains(text, "RRSIG") {
		t.Errorf("the loaded review server shows:\n%s", text)
	}
	if st = r.approve(event.StageLoaded); st.Published != nil || st.Signed == nil {
		t.Fatalf("after the first verdict: %+v", st)
	}
	if text := r.fetched(event.StageSigned); !strings.Contains(text, "RRSIG") {
		t.Errorf("the signed review server shows:\n%s", text)
	}
	if st = r.approve(event.StageSigned); st.Published == nil || st.Published.Instance != st.Signed.Instance || st.State != "published" {
		t.Fatalf("after both verdicts: %+v", st)
	}
	served := r.served()
	r.reload(changedZone())
	if !strings.Contains(r.fetched(event.StageLoaded), "192.0.2.81") || r.served() != served {
		t.Error("the review server does not show the new content, or publication does")
	}
	r.approve(event.StageLoaded)
	if !strings.Contains(r.fetched(event.StageSigned), "192.0.2.81") || r.served() != served {
		t.Error("the signed review server does not show the new content, or publication does")
	}
	r.approve(event.StageSigned)
	if !strings.Contains(r.dump(), "192.0.2.81") {
		t.Error("the approved content is not served")
	}
	replayAll(t, r)
}

func TestReview_RejectedContentIsDroppedAndTheNextIsADiffToTheLastGood(t *testing.T) {
	r := reviewRig(t, loadedManual)
	r.add(smallZone)
	first := r.approve(event.StageLoaded)
	served := r.served()
	r.reload(strings.Replace(smallZone, "192.0.2.80", "192.0.2.66", 1) + "evil IN A 192.0.2.66\n")
	st := r.reject(event.StageLoaded)
	if r.served() != served || st.State != "published" || len(st.Notices) == 0 {
		t.Errorf("after the rejection: %+v", st.ZoneSummary)
	}
	if text := r.fetched(event.StageLoaded); strings.Contains(text, "192.0.2.66") {
		t.Error("the review server still shows what was rejected")
	}
	st = r.reload(changedZone())
	// A record of the address and of nothing else: against the first, not
	// against the rejected one.
	if st.Loaded.Added != 1 || st.Loaded.Removed != 1 {
		t.Errorf("%d added, %d removed", st.Loaded.Added, st.Loaded.Removed)
	}
	st = r.approve(event.StageLoaded)
	if text := r.dump(); strings.Contains(text, "192.0.2.66") || !strings.Contains(text, "192.0.2.81") || st.Published.Serial == first.Published.Serial {
		t.Errorf("served:\n%s", text)
	}
	replayAll(t, r)
}

// Content that is rejected over and over must not fill the disk while the
// published content is only signed again.
func TestReview_DroppedContentLeavesTheProjection(t *testing.T) {
	ctx := t.Context()
	r := reviewRig(t, loadedManual)
	r.add(smallZone)
	first := r.approve(event.StageLoaded)
	r.reload(changedZone())
	rejected, _, _ := instanceWord(r.review(event.StageLoaded).Instance)
	r.reject(event.StageLoaded)
	id := event.ZoneID(first.ID)
	if err := r.e.rebind(ctx, testActor, id, reviewPolicy(t, loadedManual+"[signer]\ndenial.type = \"nsec3\"\n"), ""); err != nil {
		t.Fatal(err)
	}
	if st := r.await(); st.Published.Serial == first.Published.Serial {
		t.Fatalf("%+v", st)
	}
	if _, err := r.e.store.Loaded(id, rejected); !errors.Is(err, store.ErrNoInstance) {
		t.Errorf("l%d is still there: %v", rejected, err)
	}
	if st := r.reload(strings.Replace(changedZone(), "a.ent", "b.ent", 1)); len(st.Reviews) != 1 || st.Loaded.Added != 2 {
		t.Errorf("%+v", st.Loaded)
	}
	r.approve(event.StageLoaded)
	served, hash := r.served(), r.liveHash()
	r.stop()
	if err := os.RemoveAll(filepath.Join(r.dir, "projections")); err != nil {
		t.Fatal(err)
	}
	r.start(nil)
	if r.served() != served || r.liveHash() != hash {
		t.Error("the rebuilt projection differs")
	}
}

// What was dropped has no contents any more: how often its source is asked, and
// when the zone expires, is said by the SOA of what was approved.
func TestReview_DroppedContentSetsNoTimers(t *testing.T) {
	r := reviewRig(t, loadedManual)
	r.add(smallZone)
	r.approve(event.StageLoaded)
	r.reload(strings.Replace(changedZone(), " 7200 ", " 60 ", 1))
	r.reject(event.StageLoaded)
	for range 2 { // in this process, and in one that knows the store alone
		run, err := r.e.find("example.com")
		if err != nil {
			t.Fatal(err)
		}
		run.mu.Lock()
		got := run.soaTimers()
		run.mu.Unlock()
		if want := (soaTimers{2 * time.Hour, time.Hour, 2 * week}); got != want {
			t.Errorf("timers %v, want those of the approved content, %v", got, want)
		}
		r.stop()
		r.start(nil)
	}
}

func TestReview_VerdictNamesInstanceAndDigest(t *testing.T) {
	ctx := t.Context()
	r := reviewRig(t, loadedManual)
	r.add(smallZone)
	old := verdictOn(r.review(event.StageLoaded))
	for name, v := range map[string]NewVerdict{
		"another digest":   {Instance: old.Instance, Digest: strings.Repeat("00", 32)},
		"no digest":        {Instance: old.Instance},
		"another instance": {Instance: "l999", Digest: old.Digest},
	} {
		if _, err := r.e.Approve(ctx, testActor, "example.com", event.StageLoaded, v); !errors.Is(err, ErrState) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, v := range map[string]NewVerdict{
		"a signed instance": {Instance: "s3", Digest: old.Digest},
		"a serial":          {Instance: "7", Digest: old.Digest},
		"a long reason":     {Instance: old.Instance, Digest: old.Digest, Reason: strings.Repeat("x", maxReason+1)},
	} {
		if _, err := r.e.Approve(ctx, testActor, "example.com", event.StageLoaded, v); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := r.e.Approve(ctx, testActor, "example.com", event.StageSigned, NewVerdict{Instance: "s3"}); !errors.Is(err, ErrState) {
		t.Errorf("nothing under review: %v", err)
	}
	r.approve(event.StageLoaded)
	for _, give := range []func() error{
		func() error {
			_, err := r.e.Approve(ctx, testActor, "example.com", event.StageLoaded, old)
			return err
		},
		func() error {
			_, err := r.e.Reject(ctx, testActor, "example.com", event.StageLoaded, old)
			return err
		},
	} {
		if err := give(); !errors.Is(err, ErrState) {
			t.Errorf("a second verdict: %v", err)
		}
	}
}

func TestReview_HaltEndsByOverrideOrReset(t *testing.T) {
	ctx := t.Context()
	for _, stage := range []string{event.StageLoaded, event.StageSigned} {
		t.Run(stage, func(t *testing.T) {
			table := map[string]string{event.StageLoaded: "loader", event.StageSigned: "signer"}[stage]
			r := reviewRig(t, "["+table+".review]\nmode = \"manual\"\non-reject = \"halt\"\n")
			r.add(smallZone)
			r.approve(stage)
			served := r.served()
			r.reload(changedZone())
			st := r.reject(stage)
			if st.State != "halted" || r.served() != served || r.review(stage).State != "halted" {
				t.Fatalf("after the rejection: %+v", st)
			}
			if err := r.e.Reload(ctx, testActor, "example.com", false); !errors.Is(err, ErrState) {
				t.Errorf("reload of a halted zone: %v", err)
			}
			halted := r.review(stage).Instance
			if _, err := r.e.Reset(ctx, testActor, "example.com", NewDecision{Instance: "l1"}); !errors.Is(err, ErrState) {
				t.Errorf("reset of another instance: %v", err)
			}
			if _, err := r.e.Reset(ctx, testActor, "example.com", NewDecision{Instance: halted}); err != nil {
				t.Fatal(err)
			}
			if st = r.await(); st.State != "published" || len(st.Reviews) != 0 || r.served() != served {
				t.Errorf("after the reset: %+v", st)
			}
			if _, err := r.e.Reset(ctx, testActor, "example.com", NewDecision{}); !errors.Is(err, ErrState) {
				t.Errorf("a second reset: %v", err)
			}
			r.reload(strings.Replace(changedZone(), "192.0.2.81", "192.0.2.82", 1))
			r.reject(stage)
			if _, err := r.e.Override(ctx, testActor, "example.com", stage, NewDecision{Reason: " "}); !errors.Is(err, ErrInvalid) {
				t.Errorf("override without a reason: %v", err)
			}
			if _, err := r.e.Override(ctx, testActor, "example.com", stage, NewDecision{Reason: "it is right", Instance: halted}); !errors.Is(err, ErrState) {
				t.Errorf("override of the instance before: %v", err)
			}
			now := NewDecision{Reason: "it is right", Instance: r.review(stage).Instance}
			if _, err := r.e.Override(ctx, testActor, "example.com", stage, now); err != nil {
				t.Fatal(err)
			}
			if st = r.await(); st.State != "published" || !strings.Contains(r.dump(), "192.0.2.82") {
				t.Errorf("after the override: %+v", st)
			}
			replayAll(t, r)
		})
	}
}

func TestReview_PendingSurvivesARestart(t *testing.T) {
	policies := map[string]Policy{"default": reviewPolicy(t, loadedManual+signedManual)}
	r := newRig(t, journaltest.New(), policies)
	r.add(smallZone)
	again := func(stage string) {
		t.Helper()
		before := r.review(stage)
		r.stop()
		r.start(policies)
		if after := r.review(stage); after.Instance != before.Instance || after.Digest != before.Digest || !after.Since.Equal(before.Since) {
			t.Errorf("%+v after the restart, before it %+v", after, before)
		}
	}
	again(event.StageLoaded)
	r.approve(event.StageLoaded)
	again(event.StageSigned)
	r.stop()
	if err := os.RemoveAll(filepath.Join(r.dir, "projections")); err != nil {
		t.Fatal(err)
	}
	r.start(policies)
	if st := r.approve(event.StageSigned); st.Published == nil {
		t.Errorf("after the verdict: %+v", st)
	}
}

func TestReview_HookIsToldWhatItReviews(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "told")
	script := fmt.Sprintf("env | grep -E '^(SLUICE|CASCADE)_' | sort > %s.$SLUICE_SERIAL; cat $SLUICE_DIFF >> %s.$SLUICE_SERIAL", out, out)
	r := reviewRig(t, fmt.Sprintf("[loader.review]\nmode = \"script\"\nhook = %q\n", script))
	r.add(smallZone)
	if st := r.reload(strings.Replace(changedZone(), " 7 ", " 8 ", 1)); st.State != "published" {
		t.Fatalf("%+v", st)
	}
	text, err := os.ReadFile(out + ".8")
	if err != nil {
		t.Fatal(err)
	}
	st, err := r.e.Zone(t.Context(), "example.com")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"SLUICE_ZONE=example.com\n", "CASCADE_ZONE=example.com\n", "SLUICE_STAGE=loaded\n",
		"SLUICE_INSTANCE=" + st.Loaded.Instance + "\n", "SLUICE_SERIAL=8\n", "CASCADE_SERIAL=8\n",
		"SLUICE_PREVIOUS_SERIAL=7\n", "SLUICE_PUBLISHED_SERIAL=",
		"-www.example.com.\t3600\tIN\tA\t192.0.2.80\n", "+www.example.com.\t3600\tIN\tA\t192.0.2.81\n",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the hook was not told %q:\n%s", want, text)
		}
	}
	if first, err := os.ReadFile(out + ".7"); err != nil || !strings.Contains(string(first), "+ns1.example.com.") {
		t.Errorf("the first instance's diff lacks a record, %v:\n%s", err, first)
	}
	if left, err := filepath.Glob(filepath.Join(r.dir, "spill", "diff-*")); err != nil || len(left) > 0 {
		t.Errorf("files are left: %v, %v", left, err)
	}
}

func TestReview_HookThatRejectsIsHeard(t *testing.T) {
	r := reviewRig(t, "[signer.review]\nmode = \"script\"\nhook = \"echo not this one; exit 3\"\n")
	st := r.add(smallZone)
	if st.Published != nil || r.count("instance.signed") != 1 {
		t.Errorf("%d signed instances, published %v", r.count("instance.signed"), st.Published)
	}
	var line string
	err := r.e.History(t.Context(), "example.com", HistoryQuery{Types: []string{"review.rejected"}}, func(l HistoryLine) error {
		line = l.Text + string(l.Event)
		return nil
	})
	if err != nil || !strings.Contains(line, "exit code 3: not this one") || !strings.Contains(line, `"output":"not this one\n"`) {
		t.Errorf("history: %v, %s", err, line)
	}
}

func TestReview_HookThatCannotBeStartedHaltsTheZone(t *testing.T) {
	r := reviewRig(t, "[loader.review]\nmode = \"script\"\nhook = \"/nowhere/to/be/found\"\n")
	st := r.add(smallZone)
	if st.State != "halted" || len(st.Notices) == 0 || !strings.Contains(st.Notices[len(st.Notices)-1].Text, "cannot be started") {
		t.Fatalf("%+v", st.ZoneSummary)
	}
	if _, err := r.e.Override(t.Context(), testActor, "example.com", event.StageLoaded, NewDecision{Reason: "the hook is missing"}); err != nil {
		t.Fatal(err)
	}
	if st = r.await(); st.State != "published" {
		t.Errorf("%+v", st.ZoneSummary)
	}
}

// gone waits until a process does not run any more.
func gone(t *testing.T, pidFile string) {
	t.Helper()
	var pid int
	until(t, "the hook's child is there", func() bool {
		text, err := os.ReadFile(pidFile)
		if err != nil {
			return false
		}
		n, err := fmt.Sscan(string(text), &pid)
		return n == 1 && err == nil
	})
	until(t, "the hook's child is gone", func() bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) || zombie(pid) })
}

// zombie reports whether a process ended and nobody has asked for it yet.
func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(stat), ") Z ")
}

func TestReview_HookThatHangsIsKilledWithItsGroup(t *testing.T) {
	pid := filepath.Join(t.TempDir(), "pid")
	r := reviewRig(t, fmt.Sprintf("[loader.review]\nmode = \"script\"\nhooks = [{ command = \"sleep 300 & echo $! > %s; wait\", timeout = \"1s\" }]\n", pid))
	st := r.add(smallZone)
	if st.Loaded == nil || st.Published != nil || r.count("review.rejected") != 1 || r.count("instance.abandoned") != 1 {
		t.Errorf("%+v", st.ZoneSummary)
	}
	gone(t, pid)
}

func TestReview_StopKillsHooksAndTheStartRunsThemAgain(t *testing.T) {
	dir := t.TempDir()
	pid, free := filepath.Join(dir, "pid"), filepath.Join(dir, "free")
	hook := fmt.Sprintf("test -e %s && exit 0; sleep 300 & echo $! > %s; wait", free, pid)
	policies := map[string]Policy{"default": reviewPolicy(t, fmt.Sprintf("[loader.review]\nmode = \"script\"\nhook = %q\n", hook))}
	r := newRig(t, journaltest.New(), policies)
	if _, err := r.e.AddZone(t.Context(), testActor, NewZone{Name: "example.com", Source: r.zoneFile(smallZone)}); err != nil {
		t.Fatal(err)
	}
	until(t, "the hook runs", func() bool { text, err := os.ReadFile(pid); return err == nil && len(text) > 0 })
	r.stop()
	gone(t, pid)
	if err := os.WriteFile(free, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r.start(policies)
	if st := r.await(); st.State != "published" {
		t.Errorf("%+v", st.ZoneSummary)
	}
}

func TestReview_AVerdictByHandEndsAHook(t *testing.T) {
	pid := filepath.Join(t.TempDir(), "pid")
	r := reviewRig(t, fmt.Sprintf("[loader.review]\nmode = \"script+manual\"\nhook = \"sleep 300 & echo $! > %s; wait\"\n", pid))
	if _, err := r.e.AddZone(t.Context(), testActor, NewZone{Name: "example.com", Source: r.zoneFile(smallZone)}); err != nil {
		t.Fatal(err)
	}
	until(t, "the hook runs", func() bool { text, err := os.ReadFile(pid); return err == nil && len(text) > 0 })
	if st := r.reject(event.StageLoaded); len(st.Reviews) != 0 {
		t.Errorf("%+v", st.Reviews)
	}
	gone(t, pid)
}

// Weeks in a few seconds, whatever the reviews do with newer
// content.
func TestReview_SignaturesStayFreshWhateverReviewsDo(t *testing.T) {
	const hang = "[loader.review]\nmode = \"script\"\nhooks = [{ command = \"test $SLUICE_SERIAL = 7 || sleep 300\", timeout = \"10m\" }]\n"
	for _, tt := range []struct {
		fact, policy string
		then         func(*rig)
	}{
		{"new content waits", loadedManual, func(*rig) {}},
		{"new content was rejected", loadedManual, func(r *rig) { r.reject(event.StageLoaded) }},
		{"new content halted the zone", loadedManual + "on-reject = \"halt\"\n", func(r *rig) { r.reject(event.StageLoaded) }},
		{"a signed instance waits", signedManual, func(*rig) {}},
		{"a signed instance was rejected", signedManual, func(r *rig) { r.reject(event.StageSigned) }},
		{"a signed instance halted the zone", signedManual + "on-reject = \"halt\"\n", func(r *rig) { r.reject(event.StageSigned) }},
		{"a hook hangs", hang, func(*rig) {}},
	} {
		t.Run(tt.fact, func(t *testing.T) {
			t.Parallel()
			r := &rig{t: t, dir: t.TempDir(), journal: journaltest.New()}
			r.clock = NewRehearsal(time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC), 86400*10)
			policies := map[string]Policy{"default": reviewPolicy(t, tt.policy)}
			r.start(policies)
			st := r.add(smallZone)
			for _, rv := range st.Reviews {
				st = r.approve(rv.Stage)
			}
			r.zoneFile(strings.Replace(changedZone(), " 7 ", " 8 ", 1))
			if err := r.e.Reload(t.Context(), testActor, "example.com", false); err != nil {
				t.Fatal(err)
			}
			until(t, "the new content is loaded", func() bool {
				now, err := r.e.Zone(t.Context(), "example.com")
				return err == nil && now.Loaded.Serial == 8 && len(now.Reviews) > 0
			})
			tt.then(r)
			from := r.count("instance.published")
			until(t, "three refreshes are served", func() bool {
				now, err := r.e.Zone(t.Context(), "example.com")
				if err != nil {
					t.Fatal(err)
				}
				if r.clock.Now().After(*now.NextExpiry) {
					t.Fatalf("signatures expired at %s", now.NextExpiry)
				}
				return r.count("instance.published") >= from+3
			})
			if text := r.dump(); !strings.Contains(text, "192.0.2.80") || strings.Contains(text, "192.0.2.81") {
				t.Error("unapproved content is served")
			}
			if n := r.count("instance.signed"); n > 40 {
				t.Errorf("%d signed instances: made again and again", n)
			}
		})
	}
}

func TestReview_LimitsOnWhatWasLoaded(t *testing.T) {
	for _, tt := range []struct{ fact, check, text, want string }{
		{"fewer records", "min-records = 11", strings.ReplaceAll(smallZone, "a.ent IN TXT \"below an empty non-terminal\"\n", ""), "10 records"},
		{"a record that must be there", `required-records = ["@ NS", "www A"]`, strings.Replace(smallZone, "www IN A", "web IN A", 1), "no A record at www.example.com."},
		{"too much change", "max-change-percent = 20", strings.NewReplacer("192.0.2.80", "192.0.2.81", "a.ent", "b.ent", "\"any\"", "\"other\"").Replace(smallZone), "RRsets changed"},
	} {
		t.Run(tt.fact, func(t *testing.T) {
			r := reviewRig(t, "[loader.checks]\n"+tt.check+"\n")
			if st := r.add(smallZone); st.State != "published" {
				t.Fatalf("%+v", st)
			}
			served := r.served()
			st := r.reload(tt.text)
			if r.served() != served || len(st.Notices) != 1 || !strings.Contains(st.Notices[0].Text, tt.want) {
				t.Errorf("notices %v", st.Notices)
			}
			if st = r.reload(changedZone()); st.State != "published" || len(st.Notices) > 0 || r.served() == served {
				t.Errorf("good content: %+v", st.ZoneSummary)
			}
		})
	}
}

func TestReview_MaintenanceBlocksNewWorkAcrossARestart(t *testing.T) {
	ctx := t.Context()
	r := newRig(t, journaltest.New(), nil)
	r.add(smallZone)
	if _, err := r.e.SetMaintenance(ctx, testActor, "example.com", true, "moving"); err != nil {
		t.Fatal(err)
	}
	r.stop()
	r.start(nil)
	if err := r.e.Reload(ctx, testActor, "example.com", false); !errors.Is(err, ErrState) {
		t.Errorf("reload in maintenance: %v", err)
	}
	if _, err := r.e.SetMaintenance(ctx, testActor, "example.com", true, ""); !errors.Is(err, ErrState) {
		t.Errorf("maintenance twice: %v", err)
	}
	st, err := r.e.SetMaintenance(ctx, testActor, "example.com", false, "")
	if err != nil || st.Maintenance != nil {
		t.Errorf("%+v, %v", st.Maintenance, err)
	}
	if st := r.reload(changedZone()); st.State != "published" || !strings.Contains(r.dump(), "192.0.2.81") {
		t.Errorf("%+v", st.ZoneSummary)
	}
}
