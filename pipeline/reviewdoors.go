package pipeline

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/pipeline/store"
	"sluice/signer/zone"
	"sluice/xfr"
)

// ReviewStatus is an instance under review, or one that halted its zone.
type ReviewStatus struct {
	Stage    string    `json:"stage"`    // loaded, signed
	Instance string    `json:"instance"` // l<sequence> or s<sequence>
	Serial   uint32    `json:"serial"`
	Digest   string    `json:"digest"` // content digest (loaded), signed digest (signed)
	State    string    `json:"state"`  // pending, halted
	Since    time.Time `json:"since"`
	WaitsFor string    `json:"waits_for,omitempty"`
	Checks   []string  `json:"checks,omitempty"`
	Verdicts []Verdict `json:"verdicts,omitempty"`
	// Server is where the instance can be fetched, Query a command that does.
	Server string `json:"server,omitempty"`
	Query  string `json:"query,omitempty"`
	// Actions are the commands that decide.
	Actions []string `json:"actions,omitempty"`
}

// MaintenanceStatus says who blocked new work.
type MaintenanceStatus struct {
	Since  time.Time `json:"since"`
	Actor  string    `json:"actor"`
	Reason string    `json:"reason,omitempty"`
}

// NewVerdict is a person's verdict on the instance under review.
type NewVerdict struct {
	Instance string `json:"instance"` // l<sequence> or s<sequence>
	// Digest is the digest of the instance as the person was shown it.
	Digest string `json:"digest"`
	Reason string `json:"reason,omitempty"`
}

// NewDecision is what a person decides about the instance that is under review,
// or that halted the zone.
type NewDecision struct {
	Reason string `json:"reason,omitempty"`
	// Instance is the one that the person was shown: l<sequence> or s<sequence>.
	// Where it is given and another one is there by now, nothing is done.
	Instance string `json:"instance,omitempty"`
}

// about reports whether a decision is about the instance that is there.
func (d NewDecision) about(stage string, instance uint64) error {
	if now := instanceWordOf(stage, instance); d.Instance != "" && d.Instance != now {
		return fmt.Errorf("%s is not there any more, now %s is: %w", d.Instance, now, ErrState)
	}
	return nil
}

// Approve gives a person's good verdict on the instance under review at a
// stage, event.StageLoaded or event.StageSigned. Errors: ErrState where that
// instance is not under review, or where the policy does not ask a person.
func (e *Engine) Approve(ctx context.Context, actor event.Actor, name, stage string, v NewVerdict) (ZoneStatus, error) {
	return e.throughTwo(ctx, actor, name, func(s State, p Policy) ([]event.Facts, *event.ReviewProposed, error) {
		rv, err := e.underReview(s, p, stage, v)
		if err != nil {
			return nil, nil, err
		}
		want := p.Review(stage)
		switch {
		case !want.Manual:
			return nil, nil, fmt.Errorf("the %s review of policy %s asks hooks, not a person; to pass it without them: %s: %w",
				stage, p.Name, overrideLine(s, stage), ErrState)
		case rv.approvedBy(checkerManual):
			return nil, nil, fmt.Errorf("%s is already approved by hand; it waits for its hooks: %w", v.Instance, ErrState)
		}
		return []event.Facts{&event.ReviewApproved{
			Stage: stage, Instance: rv.Instance, Digest: rv.Digest, Checker: checkerManual,
			Passed: rv.passes(want, checkerManual), Reason: v.Reason,
		}}, rv.proposal(event.ProposeApprove, v.Reason), nil
	})
}

// Reject gives a person's bad verdict; what follows is said by the policy. A
// person may reject also where only hooks are asked.
func (e *Engine) Reject(ctx context.Context, actor event.Actor, name, stage string, v NewVerdict) (ZoneStatus, error) {
	return e.throughDoor(ctx, actor, name, func(s State, p Policy) ([]event.Facts, error) {
		rv, err := e.underReview(s, p, stage, v)
		if err != nil {
			return nil, err
		}
		return rejection(p, &event.ReviewRejected{
			Stage: stage, Instance: rv.Instance, Digest: rv.Digest, Checker: checkerManual, Reason: v.Reason,
		}), nil
	})
}

// Override passes the instance that is under review or that halted the zone,
// whatever checkers said. Errors: ErrState where that is not the one that d names.
func (e *Engine) Override(ctx context.Context, actor event.Actor, name, stage string, d NewDecision) (ZoneStatus, error) {
	return e.throughTwo(ctx, actor, name, func(s State, p Policy) ([]event.Facts, *event.ReviewProposed, error) {
		switch {
		case strings.TrimSpace(d.Reason) == "":
			return nil, nil, fmt.Errorf("%w: an override needs a reason", ErrInvalid)
		case len(d.Reason) > maxReason:
			return nil, nil, fmt.Errorf("%w: the reason is longer than %d bytes", ErrInvalid, maxReason)
		}
		rv := e.currentReview(s, p, stage)
		if rv == nil {
			return nil, nil, fmt.Errorf("zone %s: nothing is under %s review, nor halted by it: %w", s.Name, stage, ErrState)
		}
		if err := d.about(stage, rv.Instance); err != nil {
			return nil, nil, err
		}
		return []event.Facts{&event.ReviewOverridden{Stage: stage, Instance: rv.Instance, Digest: rv.Digest, Reason: d.Reason}},
			rv.proposal(event.ProposeOverride, d.Reason), nil
	})
}

// Reset ends a halt and drops the instance that led to it. Errors: ErrState where
// that is not the one that d names.
func (e *Engine) Reset(ctx context.Context, actor event.Actor, name string, d NewDecision) (ZoneStatus, error) {
	return e.throughDoor(ctx, actor, name, func(s State, _ Policy) ([]event.Facts, error) {
		stop := s.Stopped
		switch {
		case stop == nil && len(s.Quarantines) == 0:
			return nil, fmt.Errorf("zone %s is not halted: %w", s.Name, ErrState)
		case stop == nil:
			return []event.Facts{&event.ZoneReset{Reason: d.Reason}}, nil
		}
		return []event.Facts{
			&event.InstanceAbandoned{Stage: stop.Stage, Instance: stop.Instance, Reason: stop.Reason},
			&event.ZoneReset{Reason: d.Reason},
		}, d.about(stop.Stage, stop.Instance)
	})
}

// SetMaintenance blocks new work on a zone, or lets it go on.
func (e *Engine) SetMaintenance(ctx context.Context, actor event.Actor, name string, enabled bool, reason string) (ZoneStatus, error) {
	return e.throughDoor(ctx, actor, name, func(s State, _ Policy) ([]event.Facts, error) {
		if enabled == (s.Maintenance != nil) {
			word := map[bool]string{true: "already", false: "not"}[enabled]
			return nil, fmt.Errorf("zone %s is %s in maintenance: %w", s.Name, word, ErrState)
		}
		return []event.Facts{&event.MaintenanceChanged{Enabled: enabled, Reason: reason}}, nil
	})
}

// maxReason bounds what a person may give as a reason, in bytes.
const maxReason = 2000

// throughDoor appends what a person asks for, decided on the state as it is
// folded; after a conflict it is decided anew.
func (e *Engine) throughDoor(ctx context.Context, actor event.Actor, name string, decide func(State, Policy) ([]event.Facts, error)) (ZoneStatus, error) {
	return e.throughTwo(ctx, actor, name, func(s State, p Policy) ([]event.Facts, *event.ReviewProposed, error) {
		facts, err := decide(s, p)
		return facts, nil, err
	})
}

// throughTwo is throughDoor for what may need two persons: decide says what it is
// that the first one proposes; nil where one is enough.
func (e *Engine) throughTwo(ctx context.Context, actor event.Actor, name string, decide func(State, Policy) ([]event.Facts, *event.ReviewProposed, error)) (ZoneStatus, error) {
	r, err := e.find(name)
	if err != nil {
		return ZoneStatus{}, err
	}
	for {
		s := r.snapshot()
		p, err := e.boundPolicy(s)
		if err != nil {
			return ZoneStatus{}, err
		}
		if s.Removed != 0 {
			return ZoneStatus{}, fmt.Errorf("zone %s: %w", name, ErrNotFound)
		}
		facts, want, err := decide(s, p)
		cause := uint64(0)
		if err == nil && want != nil {
			facts, cause, err = e.together(ctx, s, p, actor, want, facts)
		}
		if err != nil {
			return ZoneStatus{}, err
		}
		head, err := e.append(ctx, r.id, s.Head, cmp.Or(cause, doorCause(s, facts)), actor, facts...)
		if errors.Is(err, journal.ErrConflict) {
			if err := r.await(ctx, func(now State) bool { return now.Head.Seq > s.Head.Seq }); err != nil {
				return ZoneStatus{}, err
			}
			continue
		}
		if err != nil {
			return ZoneStatus{}, err
		}
		if err := r.await(ctx, func(now State) bool { return now.Head.Seq >= head.Seq }); err != nil {
			return ZoneStatus{}, err
		}
		return r.status(), nil
	}
}

// currentReview is what is under review at a stage, or halted the zone there.
func (e *Engine) currentReview(s State, p Policy, stage string) *Review {
	if stop := s.Stopped; stop != nil && stop.Stage == stage {
		return s.review(stage, stop.Instance)
	}
	switch {
	case stage == event.StageLoaded && loadedStanding(s, p) == pending:
		return s.LoadedReview
	case stage == event.StageSigned && signedStanding(s, p, e.clock.Now()) == pending:
		return s.SignedReview
	}
	return nil
}

// underReview is the review that a verdict is about.
func (e *Engine) underReview(s State, p Policy, stage string, v NewVerdict) (*Review, error) {
	switch {
	case stage != event.StageLoaded && stage != event.StageSigned:
		return nil, fmt.Errorf("%w: stage %q is neither loaded nor signed", ErrInvalid, stage)
	case len(v.Reason) > maxReason:
		return nil, fmt.Errorf("%w: the reason is longer than %d bytes", ErrInvalid, maxReason)
	}
	seq, loaded, ok := instanceWord(v.Instance)
	if !ok || loaded != (stage == event.StageLoaded) {
		return nil, fmt.Errorf("%w: %q does not name a %s instance", ErrInvalid, v.Instance, stage)
	}
	if s.stoppedAt(stage, seq) {
		return nil, fmt.Errorf("%s halted the zone; %s, or sluice zone reset %s: %w", v.Instance, overrideLine(s, stage), s.Name, ErrState)
	}
	rv := e.currentReview(s, p, stage)
	switch {
	case rv == nil:
		return nil, fmt.Errorf("%s is not under review any more, nothing is at this stage: %w", v.Instance, ErrState)
	case rv.Instance != seq:
		return nil, fmt.Errorf("%s is not under review any more, now %s is: %w", v.Instance, instanceWordOf(stage, rv.Instance), ErrState)
	case v.Digest != hex.EncodeToString(rv.Digest[:]):
		return nil, fmt.Errorf("%s has another digest than the verdict names: %w", v.Instance, ErrState)
	}
	return rv, nil
}

func overrideLine(s State, stage string) string {
	return fmt.Sprintf("sluice zone override %s --%s --reason TEXT", s.Name, stage)
}

// reviews describes what is under review. The caller holds the runner's mu.
func (e *Engine) reviews(s State, p Policy) []ReviewStatus {
	var out []ReviewStatus
	for _, stage := range []string{event.StageLoaded, event.StageSigned} {
		rv := e.currentReview(s, p, stage)
		if rv == nil {
			continue
		}
		st := ReviewStatus{
			Stage: stage, Instance: instanceWordOf(stage, rv.Instance), Serial: rv.Serial,
			Digest: hex.EncodeToString(rv.Digest[:]), State: "pending", Since: rv.Since,
			Checks: rv.Checks, Verdicts: rv.Verdicts,
		}
		if at := e.reviewServer(stage); at.IsValid() {
			st.Server = at.String()
			st.Query = fmt.Sprintf("dig @%s -p %d %s AXFR", at.Addr(), at.Port(), s.Name)
		}
		if s.stoppedAt(stage, rv.Instance) {
			st.State, st.WaitsFor = "halted", "a person"
			st.Actions = []string{overrideLine(s, stage), "sluice zone reset " + s.Name}
		} else {
			st.WaitsFor = waitsForVerdict(s, p, rv)
			if have := s.proposal(rv.proposal(event.ProposeApprove, ""), e.clock.Now()); have != nil && p.NeedsTwo(event.ProposeApprove, stage) {
				st.WaitsFor = secondPerson + ": " + have.Actor.Name + " has proposed to approve it"
			}
			st.Actions = verdictLines(s, p, rv)
		}
		out = append(out, st)
	}
	return out
}

// What a review waits for that hooks alone cannot end: one person, two, or the
// second one.
const (
	personVerdict  = "the verdict of a person"
	personsVerdict = "the verdict of two persons"
	secondPerson   = "a second person"
)

// waitsForPerson reports whether what a review waits for is a person.
func waitsForPerson(waitsFor string) bool {
	return waitsFor == personVerdict || waitsFor == personsVerdict || strings.HasPrefix(waitsFor, secondPerson+": ")
}

func waitsForVerdict(s State, p Policy, rv *Review) string {
	if s.Maintenance != nil {
		return "the end of maintenance"
	}
	if c, ok := nextVerdict(s, p, rv.Stage, rv.Instance).(RunHook); ok {
		return fmt.Sprintf("%s: %s", checkerHook(c.Number), oneLine(c.Command))
	}
	if p.NeedsTwo(event.ProposeApprove, rv.Stage) {
		return personsVerdict
	}
	return personVerdict
}

func verdictLines(s State, p Policy, rv *Review) []string {
	instance := instanceWordOf(rv.Stage, rv.Instance)
	var out []string
	if p.Review(rv.Stage).Manual && !rv.approvedBy(checkerManual) {
		out = append(out, fmt.Sprintf("sluice zone approve %s --%s %s", s.Name, rv.Stage, instance))
	}
	return append(out, fmt.Sprintf("sluice zone reject %s --%s %s", s.Name, rv.Stage, instance))
}

// ReviewSource is what the review listener of a stage serves: the instance
// under review, else the last one that passed.
func (e *Engine) ReviewSource(stage string) xfr.Source { return reviewed{e, stage} }

type reviewed struct {
	e     *Engine
	stage string
}

// View implements xfr.Source.
func (v reviewed) View(name zone.Name) (xfr.View, error) {
	r, err := v.e.served(name)
	if err != nil {
		return nil, err
	}
	s := r.snapshot()
	policy, err := v.e.boundPolicy(s)
	if err != nil {
		return nil, err
	}
	view, err := v.open(s, policy)
	if errors.Is(err, store.ErrNoInstance) {
		return nil, xfr.ErrNotReady
	}
	if err != nil {
		return nil, v.e.note(err)
	}
	return &publishedView{View: view, allowed: policy.Review(v.stage).Transfer}, nil
}

func (v reviewed) open(s State, p Policy) (*store.View, error) {
	open := v.e.store.Loaded
	if v.stage == event.StageSigned {
		open = v.e.store.Signed
	}
	if rv := v.e.currentReview(s, p, v.stage); rv != nil {
		view, err := open(s.Zone, rv.Instance)
		if err == nil || !errors.Is(err, store.ErrNoInstance) || s.Stopped == nil {
			return view, err
		}
	}
	if v.stage == event.StageSigned {
		return v.e.store.Published(s.Zone)
	}
	if content := wantedContent(s, p); content != nil {
		return open(s.Zone, content.Seq)
	}
	return nil, store.ErrNoInstance
}
