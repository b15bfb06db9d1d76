package pipeline

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/journal/event"
	"sluice/journal/journaltest"
)

var (
	ada = event.Actor{Name: "ada", Door: "api"}
	bob = event.Actor{Name: "bob", Door: "web"}
)

const loadedByTwo = "[loader.review]\nmode = \"manual\"\nfour-eyes = true\n[access]\nfour-eyes = [\"rollback\"]\n"

func TestFourEyes_ASecondPersonApproves(t *testing.T) {
	for _, seal := range [][]string{nil, {SealActor}} {
		t.Run(strings.Join(append([]string{"sealed"}, seal...), " "), func(t *testing.T) {
			r := &rig{t: t, dir: t.TempDir(), journal: journaltest.New(), seal: seal}
			r.start(map[string]Policy{"default": reviewPolicy(t, loadedByTwo)})
			defer r.stop()
			r.add(smallZone)
			v := verdictOn(r.review(event.StageLoaded))
			approve := func(actor event.Actor) (ZoneStatus, error) {
				return r.e.Approve(t.Context(), actor, "example.com", event.StageLoaded, v)
			}
			st, err := r.e.Zone(t.Context(), "example.com")
			if err != nil || st.Reviews[0].WaitsFor != "the verdict of two persons" ||
				!slices.ContainsFunc(st.Notices, func(n Notice) bool { return n.Code == NoticeReviewWaits && strings.HasSuffix(n.Text, "two persons") }) {
				t.Fatalf("before anybody: %+v, %v", st, err)
			}
			st, err = approve(ada)
			if err != nil || len(st.Proposals) != 1 || st.Published != nil || !strings.HasPrefix(st.Reviews[0].WaitsFor, "a second person") {
				t.Fatalf("proposed: %+v, %v", st.Proposals, err)
			}
			if st = r.await(); st.Published != nil {
				t.Fatal("one person has published the zone")
			}
			if _, err = approve(ada); !errors.Is(err, ErrState) || !strings.Contains(err.Error(), "second person") {
				t.Errorf("the same person again: %v", err)
			}
			if _, err = approve(bob); err != nil {
				t.Fatal(err)
			}
			if st = r.await(); st.Published == nil || len(st.Proposals) != 0 {
				t.Errorf("after the second person: %+v", st)
			}
			if n := r.count("review.proposed"); n != 1 {
				t.Errorf("%d proposals", n)
			}
		})
	}
}

func TestFourEyes_RecalledOrRejectedIsVoid(t *testing.T) {
	r := reviewRig(t, loadedByTwo)
	r.add(smallZone)
	v := verdictOn(r.review(event.StageLoaded))
	if _, err := r.e.Approve(t.Context(), ada, "example.com", event.StageLoaded, v); err != nil {
		t.Fatal(err)
	}
	st, err := r.e.Recall(t.Context(), bob, "example.com", event.ProposeApprove, event.StageLoaded, "not yet")
	if err != nil || len(st.Proposals) != 0 {
		t.Fatalf("recalled: %+v, %v", st.Proposals, err)
	}
	if _, err := r.e.Recall(t.Context(), bob, "example.com", event.ProposeApprove, event.StageLoaded, ""); !errors.Is(err, ErrState) {
		t.Errorf("recalled twice: %v", err)
	}
	if _, err = r.e.Override(t.Context(), ada, "example.com", event.StageLoaded, NewDecision{Reason: "in a hurry"}); err != nil {
		t.Fatal(err)
	}
	if st = r.await(); st.Published != nil || len(st.Proposals) != 1 || st.Proposals[0].Action != event.ProposeOverride {
		t.Fatalf("an override by one: %+v", st)
	}
	if st = r.reject(event.StageLoaded); len(st.Proposals) != 0 || st.Published != nil {
		t.Errorf("after a rejection: %+v", st.Proposals)
	}
}

func TestFourEyes_AProposalIsForOneInstanceAndADay(t *testing.T) {
	f := &event.ReviewProposed{Action: event.ProposeApprove, Stage: event.StageLoaded, Instance: 10, Digest: event.Hash{1}}
	s := State{}
	facts(f)(&s)
	if s.proposal(f, noon.Add(23*time.Hour)) == nil {
		t.Error("it is void before a day")
	}
	if s.proposal(f, noon.Add(24*time.Hour)) != nil {
		t.Error("it stands after a day")
	}
	for _, other := range []event.ReviewProposed{
		{Action: f.Action, Stage: f.Stage, Instance: 11, Digest: f.Digest},
		{Action: f.Action, Stage: f.Stage, Instance: 10, Digest: event.Hash{2}},
		{Action: f.Action, Stage: event.StageSigned, Instance: 10, Digest: f.Digest},
		{Action: event.ProposeOverride, Stage: f.Stage, Instance: 10, Digest: f.Digest},
	} {
		if s.proposal(&other, noon) != nil {
			t.Errorf("%+v is taken for it", other)
		}
	}
	// A proposal for the next instance takes its place; what was decided goes.
	facts(&event.ReviewProposed{Action: f.Action, Stage: f.Stage, Instance: 11})(&s)
	if len(s.Proposals) != 1 || s.Proposals[0].Facts.Instance != 11 {
		t.Errorf("proposals %+v", s.Proposals)
	}
	facts(&event.InstanceAbandoned{Stage: f.Stage, Instance: 11})(&s)
	if s.Proposals != nil {
		t.Errorf("proposals of what was dropped: %+v", s.Proposals)
	}
}

func TestFourEyes_LeavingThePolicyTakesTwo(t *testing.T) {
	both := map[string]Policy{"default": reviewPolicy(t, loadedByTwo), "loose": reviewPolicy(t, "")}
	loose, err := Parse("loose", []byte("version = \"v1\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	both["loose"] = loose
	r := newRig(t, journaltest.New(), both)
	r.add(smallZone)
	set := func(actor event.Actor) (ZonePlan, error) {
		return r.e.SetZone(t.Context(), actor, "example.com", ZoneChange{Policy: "loose"})
	}
	if plan, err := set(ada); err != nil || plan.Done || !plan.Proposed {
		t.Fatalf("by one: %+v, %v", plan, err)
	}
	if _, err := set(ada); !errors.Is(err, ErrState) {
		t.Errorf("by the same: %v", err)
	}
	if plan, err := set(bob); err != nil || !plan.Done || plan.Proposed {
		t.Errorf("by two: %+v, %v", plan, err)
	}
}

func TestPolicy_FourEyesWords(t *testing.T) {
	for _, text := range []string{
		"[access]\nfour-eyes = [\"approve\"]\n", "[access]\nfour-eyes = true\n", "[loader.review]\nfour-eyes = \"yes\"\n",
	} {
		if _, err := Parse("p", []byte("version = \"v1\"\n"+text)); err == nil || !strings.Contains(err.Error(), "four-eyes") {
			t.Errorf("%q: %v", text, err)
		}
	}
	p := reviewPolicy(t, "[signer.review]\nmode = \"script\"\nhook = \"true\"\nfour-eyes = true\n")
	if !p.NeedsTwo(event.ProposeOverride, event.StageSigned) || p.NeedsTwo(event.ProposeOverride, event.StageLoaded) || p.NeedsTwo(event.ProposeRollback, "") {
		t.Error("four-eyes of a review is for that review")
	}
	if len(p.reviewNotices()) != 1 {
		t.Errorf("notices %q", p.reviewNotices())
	}
}
