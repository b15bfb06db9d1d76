package pipeline

import (
	"fmt"
	"slices"
	"time"

	"sluice/journal/event"
)

// The checkers of a review beside hooks, as events name them.
const (
	checkerManual   = "manual"
	checkerBuiltIn  = "built-in"
	checkerPolicy   = "policy" // the policy asks for no further verdict
	checkerOverride = "override"
)

// checkerHook names a hook, counted from 1.
func checkerHook(number int) string { return fmt.Sprintf("hook %d", number) }

// standing is where an instance is on its way through the review.
type standing int

const (
	none     standing = iota // nothing to review, or of no use any more
	toOpen                   // its built-in checks are to run
	pending                  // verdicts are waited for
	halted                   // a bad verdict stopped the zone
	rejected                 // it was abandoned
	approved
)

// loadedStanding is where the newest loaded instance is.
func loadedStanding(s State, p Policy) standing {
	switch {
	case s.Loaded == nil || s.Loaded.Broken != "" || !s.Loaded.fits(p):
		return none
	case s.Loaded.Abandoned != "":
		return rejected
	case s.Approved != nil && sameContent(s.Approved, s.Loaded),
		s.Published != nil && sameContent(&s.Published.Loaded, s.Loaded):
		return approved // nothing new
	case s.stoppedAt(event.StageLoaded, s.Loaded.Seq):
		return halted
	}
	rv := s.review(event.StageLoaded, s.Loaded.Seq)
	off := p.Review(event.StageLoaded).Off()
	switch {
	case rv != nil && (rv.Passed || off):
		return approved
	case rv != nil:
		return pending
	case off && !p.Checks().Any():
		return approved
	}
	return toOpen
}

// signedStanding is where the newest signed instance is that is not served.
func signedStanding(s State, p Policy, now time.Time) standing {
	last := s.Signed
	switch {
	case last == nil || last.Broken != "":
		return none
	case s.Published != nil && s.Published.Signed.Seq >= last.Seq:
		return none
	case s.SignFailure != nil && s.SignFailure.Seq > last.Seq:
		return none
	case last.Abandoned != "":
		return rejected
	case s.stoppedAt(event.StageSigned, last.Seq):
		return halted
	case last.mode() == ModeSign && last.Facts.Earliest != 0 && !now.Before(time.Unix(last.Facts.Earliest, 0)):
		return none
	}
	rv := s.review(event.StageSigned, last.Seq)
	switch {
	case p.Review(event.StageSigned).Off(), rv != nil && rv.Passed:
		return approved
	case rv != nil:
		return pending
	}
	return toOpen
}

func (s State) stoppedAt(stage string, instance uint64) bool {
	return s.Stopped != nil && s.Stopped.Stage == stage && s.Stopped.Instance == instance
}

// newContentHeld reports whether only what is published may be worked on.
func (s State) newContentHeld(loaded uint64) bool {
	return s.Maintenance != nil && (s.Published == nil || s.Published.Loaded.Seq != loaded)
}

// wantedContent is the loaded instance that the zone should show: the newest
// approved one; nil where there is none.
func wantedContent(s State, p Policy) *Loaded {
	switch {
	case loadedStanding(s, p) == approved:
		return s.Loaded
	case s.Approved != nil && s.Approved.Broken == "" && s.Approved.fits(p):
		return s.Approved
	}
	return nil
}

// loadBase is what the next load is a diff to: the newest instance unless it
// was dropped, else the newest approved one; 0 for a new generation.
func loadBase(s State, p Policy) uint64 {
	switch {
	case s.Loaded == nil || s.Loaded.Broken != "" || !s.Loaded.fits(p):
		return 0
	case s.Loaded.Abandoned == "":
		return s.Loaded.Seq
	case s.Approved != nil && s.Approved.Broken == "" && s.Approved.fits(p):
		return s.Approved.Seq
	case s.Published != nil && s.Published.Loaded.Broken == "" && s.Published.Loaded.fits(p):
		return s.Published.Loaded.Seq
	}
	return 0
}

// decideReviews takes up what the reviews need, a lane each, so that a slow
// hook holds up nothing else.
func decideReviews(d *Decision, s State, p Policy, m Moment) {
	if s.Maintenance == nil && loadedStanding(s, p) == pending {
		if c := nextVerdict(s, p, event.StageLoaded, s.Loaded.Seq); c != nil {
			d.add(m, c)
		}
	}
	// A hook that looks at signatures must not judge them by a wrong clock.
	if !m.ClockDoubted && signedStanding(s, p, m.Now) == pending && !s.newContentHeld(s.Signed.Facts.Loaded) {
		if c := nextVerdict(s, p, event.StageSigned, s.Signed.Seq); c != nil {
			d.add(m, c)
		}
	}
}

// nextVerdict is the next hook to run, or the end of the review where all
// have spoken; nil while a person is waited for.
func nextVerdict(s State, p Policy, stage string, instance uint64) Command {
	rv, want := s.review(stage, instance), p.Review(stage)
	for i, h := range want.Hooks {
		if !rv.approvedBy(checkerHook(i + 1)) {
			return RunHook{Stage: stage, Instance: instance, Number: i + 1, Command: h.Command, Timeout: h.Timeout}
		}
	}
	if want.Manual && !rv.approvedBy(checkerManual) {
		return nil
	}
	return CloseReview{Stage: stage, Instance: instance}
}

func (r *Review) approvedBy(checker string) bool {
	return slices.ContainsFunc(r.Verdicts, func(v Verdict) bool { return v.Approved && v.Checker == checker })
}

// passes reports whether a further good verdict ends the review.
func (r *Review) passes(want ReviewPolicy, checker string) bool {
	has := func(c string) bool { return c == checker || r.approvedBy(c) }
	for i := range want.Hooks {
		if !has(checkerHook(i + 1)) {
			return false
		}
	}
	return !want.Manual || has(checkerManual)
}

// carried is the signed instance whose approval by a person stands for one
// that was made so: an approved or published one of which it is a pure
// refresh; 0 for none.
func carried(s State, made Made) uint64 {
	if a := s.SignedApproval; a != nil && a.Made.refreshes(made) {
		return a.Instance
	}
	if p := s.Published; p != nil && madeOf(p.Signed.Facts).refreshes(made) {
		return p.Signed.Seq
	}
	return 0
}

// signWait reports whether a signing has to wait for a person, a hook or
// other input.
func signWait(s State, p Policy, want Sign, now time.Time) bool {
	if s.newContentHeld(want.Loaded) || s.Stopped != nil && s.Stopped.Stage == event.StageSigned {
		return true
	}
	made := want.made()
	if at := signedStanding(s, p, now); (at == pending || at == toOpen) &&
		madeOf(s.Signed.Facts).sameWay(made) && now.Before(staleAt(s, s.Signed, p)) {
		return true
	}
	for _, r := range []*Rejection{s.Rejected, s.RefreshRejected} {
		if r != nil && r.Made.Loaded == made.Loaded && r.Made.sameWay(made) {
			return true
		}
	}
	return false
}

func (c Sign) made() Made {
	return Made{Loaded: c.Loaded, Params: c.Params, Keys: c.Keys, Signers: c.Signers, CDS: c.CDS}
}
