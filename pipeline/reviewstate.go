package pipeline

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"sluice/journal"
	"sluice/journal/event"
)

// Review is an instance under review, or one whose review passed.
type Review struct {
	Stage    string    `json:"stage"`
	Seq      uint64    `json:"seq"` // of the event that opened it
	Since    time.Time `json:"since"`
	Instance uint64    `json:"instance"`
	Serial   uint32    `json:"serial"`
	Digest   Digest    `json:"digest"` // content digest (loaded) or signed digest
	// Made says what a signed instance was made of.
	Made     Made      `json:"made,omitzero"`
	Checks   []string  `json:"checks,omitempty"`
	Verdicts []Verdict `json:"verdicts,omitempty"`
	Passed   bool      `json:"passed,omitempty"`
}

// Digest is a hash of an instance.
type Digest = event.Hash

// Made is what a signed instance follows from, beside the time. Two that are
// equal are refreshes of each other.
type Made struct {
	Loaded  uint64   `json:"loaded,omitempty"`
	Content Digest   `json:"content_digest,omitzero"`
	Params  string   `json:"params,omitempty"`
	Keys    []string `json:"keys,omitempty"`
	Signers []string `json:"signers,omitempty"`
	CDS     []string `json:"cds,omitempty"`
}

// Verdict is what one checker said.
type Verdict struct {
	Seq      uint64             `json:"seq"`
	Time     time.Time          `json:"time"`
	Checker  string             `json:"checker"`
	Approved bool               `json:"approved"`
	Actor    event.Actor        `json:"actor"`
	Reason   string             `json:"reason,omitempty"`
	Carried  uint64             `json:"carried,omitempty"`
	Hook     *event.HookOutcome `json:"hook,omitempty"` // without its output
}

// Rejection is a signed instance that a review refused.
type Rejection struct {
	Seq      uint64    `json:"seq"` // of review.rejected
	Time     time.Time `json:"time"`
	Instance uint64    `json:"instance"`
	Made     Made      `json:"made"`
	Reason   string    `json:"reason"`
}

// Approval is a person's good verdict on a signed instance; it stands for
// pure refreshes of it.
type Approval struct {
	Instance uint64      `json:"instance"`
	Made     Made        `json:"made"`
	Actor    event.Actor `json:"actor"`
	Reason   string      `json:"reason,omitempty"`
}

// Stop is a halt after a review.
type Stop struct {
	Seq      uint64    `json:"seq"`
	Time     time.Time `json:"time"`
	Stage    string    `json:"stage"`
	Instance uint64    `json:"instance"`
	Reason   string    `json:"reason"`
}

// Maintenance says who blocked new work and since when.
type Maintenance struct {
	Seq    uint64      `json:"seq"`
	Time   time.Time   `json:"time"`
	Actor  event.Actor `json:"actor"`
	Reason string      `json:"reason,omitempty"`
}

// madeOf is what a signed instance follows from.
func madeOf(f event.InstanceSigned) Made {
	return Made{Loaded: f.Loaded, Content: f.ContentDigest, Params: f.Params, Keys: f.Keys, Signers: f.Signers, CDS: f.CDS}
}

// sameWay reports whether keys and parameters are the same.
func (m Made) sameWay(o Made) bool {
	return m.Params == o.Params && slices.Equal(m.Keys, o.Keys) && slices.Equal(m.Signers, o.Signers) && slices.Equal(m.CDS, o.CDS)
}

// refreshes reports whether one is a pure refresh of the other.
func (m Made) refreshes(o Made) bool { return m.Content == o.Content && m.sameWay(o) }

// instanceWordOf is how people name an instance.
func instanceWordOf(stage string, seq uint64) string {
	if stage == event.StageSigned {
		return fmt.Sprintf("s%d", seq)
	}
	return fmt.Sprintf("l%d", seq)
}

// review is the review of a stage, of that instance; nil where there is none.
func (s State) review(stage string, instance uint64) *Review {
	r := s.LoadedReview
	if stage == event.StageSigned {
		r = s.SignedReview
	}
	if r == nil || r.Instance != instance {
		return nil
	}
	return r
}

func (s *State) setReview(stage string, r *Review) {
	if stage == event.StageSigned {
		s.SignedReview = r
	} else {
		s.LoadedReview = r
	}
}

// loaded is a loaded instance by its sequence, nil where the state does not
// hold it.
func (s State) loaded(seq uint64) *Loaded {
	switch {
	case s.Loaded != nil && s.Loaded.Seq == seq:
		return s.Loaded
	case s.Approved != nil && s.Approved.Seq == seq:
		return s.Approved
	case s.Published != nil && s.Published.Loaded.Seq == seq:
		return &s.Published.Loaded
	}
	return nil
}

// evolveReview folds what concerns reviews. Events of an instance that is the
// newest no more change nothing.
func evolveReview(s State, rec journal.Record) State {
	switch f := rec.Event.Facts.(type) {
	case *event.ReviewRequested:
		r := s.openReview(rec, f.Stage, f.Instance)
		if r != nil {
			r.Checks = f.Checks
			s.setReview(f.Stage, r)
		}
	case *event.ReviewApproved:
		return evolveApproved(s, rec, f)
	case *event.ReviewRejected:
		return evolveRejected(s, rec, f)
	case *event.ReviewOverridden:
		return evolveOverridden(s, rec, f)
	case *event.InstanceAbandoned:
		return s.abandon(f.Stage, f.Instance, f.Reason)
	case *event.ZoneHalted:
		s.Stopped = &Stop{Seq: rec.Seq, Time: rec.Event.Time, Stage: f.Stage, Instance: f.Instance, Reason: f.Reason}
	case *event.ZoneReset:
		s.Quarantines = nil
		if stop := s.Stopped; stop != nil {
			s.Stopped = nil
			return s.abandon(stop.Stage, stop.Instance, stop.Reason)
		}
	case *event.MaintenanceChanged:
		s.Maintenance = nil
		if f.Enabled {
			s.Maintenance = &Maintenance{Seq: rec.Seq, Time: rec.Event.Time, Actor: rec.Event.Actor, Reason: f.Reason}
		}
	}
	return s
}

// openReview is a new review of the newest instance of a stage, nil where
// that is another one.
func (s State) openReview(rec journal.Record, stage string, instance uint64) *Review {
	r := &Review{Stage: stage, Seq: rec.Seq, Since: rec.Event.Time, Instance: instance}
	switch {
	case stage == event.StageSigned && s.Signed != nil && s.Signed.Seq == instance:
		f := s.Signed.Facts
		r.Serial, r.Digest, r.Made = f.Serial, f.SignedDigest, madeOf(f)
	case stage == event.StageLoaded && s.Loaded != nil && s.Loaded.Seq == instance:
		r.Serial, r.Digest = s.Loaded.Facts.Serial, s.Loaded.Facts.ContentDigest
	default:
		return nil
	}
	return r
}

// withVerdict is the review with one more verdict; it opens one where the
// built-in checks alone decide.
func (s State) withVerdict(rec journal.Record, stage string, instance uint64, v Verdict) *Review {
	r := s.review(stage, instance)
	if r == nil {
		if r = s.openReview(rec, stage, instance); r == nil {
			return nil
		}
	}
	next := *r
	v.Seq, v.Time, v.Actor = rec.Seq, rec.Event.Time, rec.Event.Actor
	if v.Hook != nil {
		short := *v.Hook
		short.Output, short.OutputSHA256, short.Programs = "", "", nil
		v.Hook = &short
	}
	next.Verdicts = append(slices.Clone(r.Verdicts), v)
	return &next
}

func evolveApproved(s State, rec journal.Record, f *event.ReviewApproved) State {
	r := s.withVerdict(rec, f.Stage, f.Instance, Verdict{
		Checker: f.Checker, Approved: true, Reason: f.Reason, Carried: f.Carried, Hook: f.Hook,
	})
	if r == nil {
		return s
	}
	r.Passed = r.Passed || f.Passed
	s.setReview(f.Stage, r)
	if f.Stage == event.StageSigned && f.Checker == checkerManual {
		s.SignedApproval = &Approval{Instance: f.Instance, Made: r.Made, Actor: rec.Event.Actor, Reason: f.Reason}
	}
	return s.approve(r)
}

// approve takes what passed the loaded review as content to be signed.
func (s State) approve(r *Review) State {
	if r.Passed && r.Stage == event.StageLoaded && s.Loaded != nil && s.Loaded.Seq == r.Instance {
		s.Approved = s.Loaded
	}
	return s
}

func evolveRejected(s State, rec journal.Record, f *event.ReviewRejected) State {
	r := s.withVerdict(rec, f.Stage, f.Instance, Verdict{Checker: f.Checker, Reason: f.Reason, Hook: f.Hook})
	if r == nil {
		return s
	}
	s.setReview(f.Stage, r)
	if f.Stage != event.StageSigned {
		return s
	}
	rejected := &Rejection{
		Seq: rec.Seq, Time: rec.Event.Time, Instance: f.Instance, Made: r.Made, Reason: rejectionText(f.Checker, f.Reason),
	}
	if s.Published != nil && s.Published.Loaded.Seq == r.Made.Loaded {
		s.RefreshRejected = rejected
	} else {
		s.Rejected = rejected
	}
	return s
}

func rejectionText(checker, reason string) string {
	text := "rejected by " + checker
	if checker == checkerManual {
		text = "rejected by hand"
	}
	if reason != "" {
		text += ": " + reason
	}
	return text
}

func evolveOverridden(s State, rec journal.Record, f *event.ReviewOverridden) State {
	r := s.review(f.Stage, f.Instance)
	if r == nil {
		return s
	}
	next := *r
	next.Passed = true
	next.Verdicts = append(slices.Clone(r.Verdicts), Verdict{
		Seq: rec.Seq, Time: rec.Event.Time, Actor: rec.Event.Actor, Checker: checkerOverride, Approved: true, Reason: f.Reason,
	})
	s.setReview(f.Stage, &next)
	if s.Stopped != nil && s.Stopped.Stage == f.Stage && s.Stopped.Instance == f.Instance {
		s.Stopped = nil
	}
	if f.Stage == event.StageSigned {
		s.SignedApproval = &Approval{Instance: f.Instance, Made: next.Made, Actor: rec.Event.Actor, Reason: f.Reason}
		if s.Rejected != nil && s.Rejected.Instance == f.Instance {
			s.Rejected = nil
		}
		if s.RefreshRejected != nil && s.RefreshRejected.Instance == f.Instance {
			s.RefreshRejected = nil
		}
	}
	return s.approve(&next)
}

// abandon marks an instance as never to be used.
func (s State) abandon(stage string, instance uint64, reason string) State {
	if s.review(stage, instance) != nil {
		s.setReview(stage, nil)
	}
	switch {
	case stage == event.StageLoaded && s.Loaded != nil && s.Loaded.Seq == instance:
		gone := *s.Loaded
		gone.Abandoned = cmp.Or(reason, "dropped")
		s.Loaded = &gone
	case stage == event.StageSigned && s.Signed != nil && s.Signed.Seq == instance:
		gone := *s.Signed
		gone.Abandoned = cmp.Or(reason, "dropped")
		s.Signed = &gone
	}
	return s
}
