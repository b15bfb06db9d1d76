package pipeline

import (
	"context"
	"fmt"
	"slices"
	"time"

	"sluice/journal"
	"sluice/journal/event"
)

// Proposal is the first half of a decision that needs two persons.
type Proposal struct {
	Seq   uint64               `json:"seq"` // of review.proposed
	Time  time.Time            `json:"time"`
	Actor event.Actor          `json:"actor"`
	Facts event.ReviewProposed `json:"facts"`
}

// proposalTime is for how long a proposal waits for a second person.
const proposalTime = 24 * time.Hour

// open reports whether the proposal still waits.
func (p Proposal) open(now time.Time) bool { return stampHolds(p.Time, p.Time.Add(proposalTime), now) }

// asks reports whether a proposal is for that very thing.
func (p Proposal) asks(f *event.ReviewProposed) bool {
	return p.Facts.Action == f.Action && p.Facts.Stage == f.Stage && p.Facts.Instance == f.Instance && p.Facts.Digest == f.Digest
}

// proposal is the open one for that very thing; nil where there is none.
func (s State) proposal(f *event.ReviewProposed, now time.Time) *Proposal {
	for i := range s.Proposals {
		if p := &s.Proposals[i]; p.asks(f) && p.open(now) {
			return p
		}
	}
	return nil
}

// evolveProposals folds proposals, and what becomes of them. There is one for
// each action and stage at the most.
func evolveProposals(s State, rec journal.Record) State {
	switch f := rec.Event.Facts.(type) {
	case *event.ReviewProposed:
		s = s.withoutProposals(func(p Proposal) bool { return p.Facts.Action == f.Action && p.Facts.Stage == f.Stage })
		s.Proposals = append(slices.Clip(s.Proposals), Proposal{Seq: rec.Seq, Time: rec.Event.Time, Actor: rec.Event.Actor, Facts: *f})
	case *event.ReviewRecalled:
		return s.withoutProposals(func(p Proposal) bool { return p.Seq == f.Proposal })
	case *event.ReviewApproved:
		if f.Checker != checkerManual {
			return s
		}
		return s.withoutProposals(func(p Proposal) bool {
			return p.Facts.Action == event.ProposeApprove && p.Facts.Stage == f.Stage && p.Facts.Instance == f.Instance
		})
	case *event.ReviewRejected:
		return s.withoutVerdicts(f.Stage, f.Instance)
	case *event.ReviewOverridden:
		return s.withoutVerdicts(f.Stage, f.Instance)
	case *event.InstanceAbandoned:
		return s.withoutVerdicts(f.Stage, f.Instance)
	case *event.ZoneHeld:
		return s.withoutProposals(func(p Proposal) bool { return p.Facts.Action == event.ProposeRollback })
	case *event.PolicyBound:
		return s.withoutProposals(func(p Proposal) bool { return p.Facts.Action == event.ProposePolicy })
	}
	return s
}

// withoutVerdicts is the state without proposals about an instance.
func (s State) withoutVerdicts(stage string, instance uint64) State {
	return s.withoutProposals(func(p Proposal) bool { return p.Facts.Stage == stage && p.Facts.Instance == instance })
}

func (s State) withoutProposals(gone func(Proposal) bool) State {
	if slices.ContainsFunc(s.Proposals, gone) {
		s.Proposals = slices.DeleteFunc(slices.Clone(s.Proposals), gone)
	}
	if len(s.Proposals) == 0 {
		s.Proposals = nil
	}
	return s
}

// together is what a person's request comes to where the policy wants two for
// it: the facts that carry it out, with the proposal that they follow from, once
// another person has proposed the same; before that, the proposal.
func (e *Engine) together(ctx context.Context, s State, p Policy, actor event.Actor, want *event.ReviewProposed, facts []event.Facts) ([]event.Facts, uint64, error) {
	if !p.NeedsTwo(want.Action, want.Stage) {
		return facts, 0, nil
	}
	have := s.proposal(want, e.clock.Now())
	if have == nil {
		return []event.Facts{want}, 0, nil
	}
	name := have.Actor.Name
	if name == event.SealedText {
		var err error
		if name, err = e.sealedActor(ctx, s.Zone, have.Seq); err != nil {
			return nil, 0, err
		}
	}
	if name == actor.Name {
		return nil, 0, errorState("%s has proposed this already at %s: it wants a second person, who asks for the same: %s",
			actor.Name, have.Time.Format(time.RFC3339), confirmLine(s.Name, have.Facts))
	}
	return facts, have.Seq, nil
}

// changeTogether is what a change of a zone comes to: a policy that wants two
// persons less often than the one before takes two itself.
func (e *Engine) changeTogether(ctx context.Context, s State, actor event.Actor, facts event.Facts) (event.Facts, uint64, error) {
	bound, ok := facts.(*event.PolicyBound)
	if !ok {
		return facts, 0, nil
	}
	old, err := e.boundPolicy(s)
	if err != nil {
		return nil, 0, err
	}
	next, err := Parse(bound.Policy, []byte(bound.Text))
	if err != nil {
		return nil, 0, err
	}
	switch {
	case !old.lifts(next):
		return facts, 0, nil
	case bound.Source != s.Source:
		return nil, 0, errorState("policy %s wants two persons for what policy %s does not: change source and policy one after the other", old.Name, next.Name)
	}
	all, cause, err := e.together(ctx, s, old, actor, &event.ReviewProposed{
		Action: event.ProposePolicy, Digest: bound.SHA256, Target: bound.Policy,
	}, []event.Facts{facts})
	if err != nil {
		return nil, 0, err
	}
	return all[0], cause, nil
}

// proposal is what the first of two persons asks for.
func (r *Review) proposal(action, reason string) *event.ReviewProposed {
	return &event.ReviewProposed{Action: action, Stage: r.Stage, Instance: r.Instance, Digest: r.Digest, Serial: r.Serial, Reason: reason}
}

// sealedActor is who made an event whose actor is sealed. No fold depends on it.
func (e *Engine) sealedActor(ctx context.Context, id event.ZoneID, seq uint64) (name string, err error) {
	err = e.journal.Read(ctx, id, seq, seq, func(rec journal.Record) error {
		name = opened(rec).Event.Actor.Name
		return nil
	})
	if err == nil && (name == "" || name == event.SealedText || name == event.Dropped) {
		err = errorState("who proposed it is not known any more: take the proposal back, and propose it anew")
	}
	return name, err
}

// Recall takes back what was proposed, by whomever: an action of
// event.ReviewProposed, of a stage where it is about one. Errors: ErrState where
// nothing is.
func (e *Engine) Recall(ctx context.Context, actor event.Actor, name, action, stage, reason string) (ZoneStatus, error) {
	if len(reason) > maxReason {
		return ZoneStatus{}, fmt.Errorf("%w: the reason is longer than %d bytes", ErrInvalid, maxReason)
	}
	return e.throughDoor(ctx, actor, name, func(s State, _ Policy) ([]event.Facts, error) {
		now := e.clock.Now()
		for _, p := range s.Proposals {
			if p.Facts.Action == action && p.Facts.Stage == stage && p.open(now) {
				return []event.Facts{&event.ReviewRecalled{Action: action, Stage: stage, Proposal: p.Seq, Reason: reason}}, nil
			}
		}
		return nil, errorState("zone %s: nothing of that kind is proposed", s.Name)
	})
}

// ProposalStatus is a decision that waits for a second person.
type ProposalStatus struct {
	Action   string    `json:"action"`             // approve, override, rollback, policy
	Stage    string    `json:"stage,omitempty"`    // of approve and override
	Instance string    `json:"instance,omitempty"` // l<sequence> or s<sequence>
	Serial   uint32    `json:"serial,omitempty"`
	Digest   string    `json:"digest"`
	Target   string    `json:"target,omitempty"` // version of a rollback, name of a policy
	Actor    string    `json:"actor"`
	Since    time.Time `json:"since"`
	Until    time.Time `json:"until"` // void from then on
	Reason   string    `json:"reason,omitempty"`
	Confirm  string    `json:"confirm"` // the command by which another person agrees
	Recall   string    `json:"recall"`  // the command that takes it back
}

// proposals describes what waits for a second person.
func (s State) proposals(now time.Time) []ProposalStatus {
	var out []ProposalStatus
	for _, p := range s.Proposals {
		if !p.open(now) {
			continue
		}
		st := ProposalStatus{
			Action: p.Facts.Action, Stage: p.Facts.Stage, Serial: p.Facts.Serial, Digest: p.Facts.Digest.String(), Target: p.Facts.Target,
			Actor: p.Actor.Name, Since: p.Time, Until: p.Time.Add(proposalTime), Reason: p.Facts.Reason,
			Confirm: confirmLine(s.Name, p.Facts), Recall: "sluice zone recall " + s.Name,
		}
		switch p.Facts.Action {
		case event.ProposeApprove, event.ProposeOverride:
			st.Instance = instanceWordOf(p.Facts.Stage, p.Facts.Instance)
		case event.ProposeRollback:
			st.Instance = instanceWordOf(event.StageLoaded, p.Facts.Instance)
		}
		out = append(out, st)
	}
	return out
}

// confirmLine is what a second person types.
func confirmLine(name string, f event.ReviewProposed) string {
	switch f.Action {
	case event.ProposeApprove:
		return fmt.Sprintf("sluice zone approve %s --%s %s", name, f.Stage, instanceWordOf(f.Stage, f.Instance))
	case event.ProposeOverride:
		return fmt.Sprintf("sluice zone override %s --%s --reason TEXT", name, f.Stage)
	case event.ProposeRollback:
		return fmt.Sprintf("sluice zone rollback %s --to %s --reason TEXT", name, instanceWordOf(event.StageLoaded, f.Instance))
	}
	return fmt.Sprintf("sluice zone set %s --policy %s", name, f.Target)
}

// proposedText says what is proposed.
func proposedText(f *event.ReviewProposed) string {
	switch f.Action {
	case event.ProposeApprove:
		return "to approve " + instanceWordOf(f.Stage, f.Instance)
	case event.ProposeOverride:
		return fmt.Sprintf("to override the %s review of %s", f.Stage, instanceWordOf(f.Stage, f.Instance))
	case event.ProposeRollback:
		return fmt.Sprintf("to roll back to serial %d (%s)", f.Serial, instanceWordOf(event.StageLoaded, f.Instance))
	}
	return "policy " + f.Target + ", which wants two persons less often"
}

// describeProposal tells an event about proposals as a sentence; empty for
// others.
func describeProposal(ev event.Event) string {
	switch f := ev.Facts.(type) {
	case *event.ReviewProposed:
		return "proposed " + proposedText(f) + "; another person must ask for the same" + because(f.Reason)
	case *event.ReviewRecalled:
		return fmt.Sprintf("proposal of event %d (%s) taken back%s", f.Proposal, f.Action, because(f.Reason))
	}
	return ""
}

// describeProposals tells of decisions that wait for a second person.
func describeProposals(s State, now time.Time, st *ZoneStatus) {
	st.Proposals = s.proposals(now)
	for _, p := range s.Proposals {
		if !p.open(now) {
			continue
		}
		st.Notices = append(st.Notices, Notice{
			Severity: severityWarning, Code: NoticeProposed, Since: timeOrNil(p.Time),
			Text: fmt.Sprintf("%s proposed %s at %s%s; it wants a second person until %s", p.Actor.Name, proposedText(&p.Facts),
				p.Time.Format(time.RFC3339), because(p.Facts.Reason), p.Time.Add(proposalTime).Format(time.RFC3339)),
			Hint: confirmLine(s.Name, p.Facts) + "; to take it back: sluice zone recall " + s.Name,
		})
	}
}

// NeedsTwo reports whether an action, of event.ReviewProposed, needs two persons.
func (p Policy) NeedsTwo(action, stage string) bool {
	switch action {
	case event.ProposeApprove:
		return p.Review(stage).FourEyes
	case event.ProposeOverride:
		return p.Review(stage).FourEyes || slices.Contains(p.set.fourEyes, action)
	case event.ProposePolicy:
		return true // asked only where it matters
	}
	return slices.Contains(p.set.fourEyes, action)
}

// lifts reports whether a zone that goes over to another policy would need two
// persons less often.
func (p Policy) lifts(other Policy) bool {
	for _, stage := range []string{event.StageLoaded, event.StageSigned} {
		for _, action := range []string{event.ProposeApprove, event.ProposeOverride} {
			if p.NeedsTwo(action, stage) && !other.NeedsTwo(action, stage) {
				return true
			}
		}
	}
	return p.NeedsTwo(event.ProposeRollback, "") && !other.NeedsTwo(event.ProposeRollback, "")
}

// accessFile is the access table of a policy file.
type accessFile struct {
	FourEyes any `toml:"four-eyes"`
}

func (r *policyReader) access(f *accessFile) {
	const key = "access.four-eyes"
	words, ok := r.words(key, f.FourEyes, `a list such as ["override", "rollback"]`)
	if !ok {
		return
	}
	for _, word := range words {
		if word != event.ProposeOverride && word != event.ProposeRollback {
			r.fault(key, `: %q is neither "override" nor "rollback"; for verdicts: loader.review.four-eyes, signer.review.four-eyes`, word)
			return
		}
	}
	r.set.fourEyes = words
}
