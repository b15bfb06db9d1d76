package pipeline

import (
	"fmt"
	"reflect"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/keymgr"
)

// NewState is the state of a zone that was added and has no events of its
// own yet.
func NewState(added Registered) State {
	f := added.Facts
	s := State{Zone: f.ID, Added: added, Name: f.Name, Source: f.Source, SerialFloor: f.SerialFloor}
	if f.Member != nil {
		s.Member = &Member{Membership: *f.Member, Seq: added.Seq, Time: added.Time}
	}
	return s
}

// EvolveNext is Evolve for the event that must follow the ones folded so far:
// where it does not, an event of the zone is missing, and the zone halts.
func EvolveNext(s State, rec journal.Record, broken string) State {
	if s.Halted == nil && (rec.Event.N != s.Head.N+1 || rec.Event.Prev != s.Head.Hash) {
		s.Halted = &Halt{Seq: rec.Seq, Reason: fmt.Sprintf(
			"the journal is damaged: event %d of the zone does not follow event %d", rec.Event.N, s.Head.N)}
	}
	return Evolve(s, rec, broken)
}

// Evolve folds one of the zone's own events into its state. broken says, for
// an event whose chunks could not be had, why. It is pure.
func Evolve(s State, rec journal.Record, broken string) State {
	s.Head = rec.Head()
	if s.Halted != nil {
		return s
	}
	if rec.Event.Facts == nil {
		if rec.Event.MustUnderstand {
			s.Halted = &Halt{Seq: rec.Seq, Reason: fmt.Sprintf("event %s needs a newer program", rec.Event.Type)}
		}
		return s
	}
	if !s.Counts(rec) {
		s.Stale++
		return s
	}
	s.Keys = keymgr.Evolve(s.Keys, rec.Event)
	s = evolveProposals(s, rec)
	switch f := rec.Event.Facts.(type) {
	case *event.PolicyBound:
		s.Policy = BoundPolicy{Name: f.Policy, SHA256: f.SHA256, Text: f.Text}
		s.Policy.Seq = rec.Seq
		s.Name, s.Source, s.SerialFloor = f.Zone, f.Source, f.SerialFloor
	case *event.ZoneChanged:
		s.Source, s.Sourced = f.Source, rec.Seq
	case *event.SerialRaised:
		floor := f.Floor
		s.SerialFloor = &floor
	case *event.LoadFailed:
		s.LoadFailure = evolveLoadFailure(s.LoadFailure, rec, f)
	case *event.InstanceLoaded:
		facts := *f
		facts.Manifest = event.Manifest{}
		s.Loaded = &Loaded{Seq: rec.Seq, Time: rec.Event.Time, Facts: facts, Broken: broken}
		s.LoadFailure, s.LoadedReview = nil, nil
		return evolveHold(evolveUpdates(s, rec), rec)
	case *event.UpdateAccepted:
		return evolveUpdates(s, rec)
	case *event.ZoneHeld, *event.ZoneReleased:
		return evolveHold(s, rec)
	case *event.InstanceSigned:
		facts := *f
		facts.Manifest = event.Manifest{}
		s.Signed = &Signed{Seq: rec.Seq, Time: rec.Event.Time, Policy: s.Policy.SHA256, Facts: facts, Broken: broken}
		s = evolveSigned(s)
	case *event.SignFailed:
		s.SignFailure = evolveSignFailure(s.SignFailure, rec, f)
	case *event.InstancePublished:
		s = evolvePublished(s, rec, f)
		s.SignFailure = nil
	case *event.InstanceFetched:
		s.Fetched = evolveFetched(s.Fetched, f)
	case *event.DSObserved:
		s.ParentDS = f
	case *event.DSSubmitted, *event.DSWithdrawn, *event.HookRan, *event.DSPushed, *event.DSNotified:
		return evolveTold(s, rec)
	case *event.KeyAdopted:
		if f.KeyTTL > 0 {
			s.KeyTTLs = s.KeyTTLs.See(f.KeyTTL, rec.Event.Time)
		}
	case *event.SignalPushed:
		s.Signal = s.Signal.evolve(f, rec.Event.Time)
	case *event.BulkSwept:
		s.Swept = rec.Seq
	case *event.WorkerGranted, *event.WorkerQuarantined:
		return evolveWorkers(s, rec)
	case *event.BulkPurged:
		s.Retained = evolveRetained(s.Retained, rec, f)
	default:
		if next, ok := evolveCatalog(s, rec); ok {
			return next
		}
		return evolveReview(s, rec)
	}
	return s
}

// evolveSigned draws the conclusions of a new signed instance: what it is
// made of was approved, and it takes the place of one under review. The review
// of one that halted the zone stays.
func evolveSigned(s State) State {
	if s.Loaded != nil && s.Loaded.Seq == s.Signed.Facts.Loaded {
		s.Approved = s.Loaded
	}
	if rv := s.SignedReview; rv != nil && !s.stoppedAt(event.StageSigned, rv.Instance) {
		s.SignedReview = nil
	}
	return s
}

// lean has what was published and what that was made of share memory, where they
// are the same: that is how very many zones rest.
func (s State) lean() State {
	p := s.Published
	if p == nil {
		return s
	}
	if s.Signed != nil && s.Signed.Seq == p.Signed.Seq && reflect.DeepEqual(*s.Signed, p.Signed) {
		s.Signed = &p.Signed
	}
	for _, l := range []**Loaded{&s.Loaded, &s.Approved} {
		if *l != nil && (*l).Seq == p.Loaded.Seq && reflect.DeepEqual(**l, p.Loaded) {
			*l = &p.Loaded
		}
	}
	return s
}

func evolveLoadFailure(last *Failure, rec journal.Record, f *event.LoadFailed) *Failure {
	next := &Failure{
		Seq: rec.Seq, Time: rec.Event.Time, Stage: "load", Reason: f.Reason,
		Errors: f.Errors, Total: f.Total, Source: f.Source, Count: 1,
	}
	if last != nil {
		next.Count = last.Count + 1
	}
	return next
}

func evolveSignFailure(last *Failure, rec journal.Record, f *event.SignFailed) *Failure {
	next := &Failure{
		Seq: rec.Seq, Time: rec.Event.Time, Stage: f.Stage, Loaded: f.Loaded,
		Reason: f.Reason, Errors: f.Errors, Total: uint64(len(f.Errors)), Count: 1,
	}
	if last != nil {
		next.Count = last.Count + 1
	}
	return next
}

func evolvePublished(s State, rec journal.Record, f *event.InstancePublished) State {
	if s.Signed == nil || s.Signed.Seq != f.Signed {
		return s
	}
	p := &Published{Seq: rec.Seq, Time: rec.Event.Time, Signed: *s.Signed}
	switch {
	case s.loaded(f.Loaded) != nil:
		p.Loaded = *s.loaded(f.Loaded)
	default:
		p.Loaded = Loaded{Seq: f.Loaded, Facts: event.InstanceLoaded{ContentDigest: s.Signed.Facts.ContentDigest}}
	}
	before := s.Published
	s.Published = p
	s = evolveServed(s, before)
	if s.review(event.StageSigned, f.Signed) != nil {
		s.SignedReview = nil
	}
	return s.lean()
}
