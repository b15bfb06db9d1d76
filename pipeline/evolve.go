package pipeline

import (
	"fmt"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/keymgr"
)

// NewState is the state of a zone that was added and has no events of its
// own yet.
func NewState(added Registered) State {
	f := added.Facts
	return State{Zone: f.ID, Added: added, Name: f.Name, Source: f.Source, SerialFloor: f.SerialFloor}
}

// Evolve folds one of the zone's own events into its state. broken says, for
// an event whose chunks could not be had, why. It is pure.
func Evolve(s State, rec journal.Record, broken string) State {
	before := s.Head
	s.Head = rec.Head()
	if s.Halted != nil {
		return s
	}
	if rec.Event.N != before.N+1 || rec.Event.Prev != before.Hash {
		s.Halted = &Halt{Seq: rec.Seq, Reason: fmt.Sprintf(
			"the journal is damaged: event %d of the zone does not follow event %d", rec.Event.N, before.N)}
		return s
	}
	if rec.Event.Facts == nil {
		if rec.Event.MustUnderstand {
			s.Halted = &Halt{Seq: rec.Seq, Reason: fmt.Sprintf("event %s needs a newer program", rec.Event.Type)}
		}
		return s
	}
	s.Keys = keymgr.Evolve(s.Keys, rec.Event)
	switch f := rec.Event.Facts.(type) {
	case *event.PolicyBound:
		s.Policy = BoundPolicy{Name: f.Policy, SHA256: f.SHA256, Text: f.Text}
		s.Name, s.Source, s.SerialFloor = f.Zone, f.Source, f.SerialFloor
	case *event.ZoneChanged:
		s.Source = f.Source
	case *event.SerialRaised:
		floor := f.Floor
		s.SerialFloor = &floor
	case *event.LoadFailed:
		s.LoadFailure = evolveLoadFailure(s.LoadFailure, rec, f)
	case *event.InstanceLoaded:
		facts := *f
		facts.Manifest = event.Manifest{}
		s.Loaded = &Loaded{Seq: rec.Seq, Time: rec.Event.Time, Facts: facts, Broken: broken}
		s.LoadFailure = nil
	case *event.InstanceSigned:
		facts := *f
		facts.Manifest = event.Manifest{}
		s.Signed = &Signed{Seq: rec.Seq, Time: rec.Event.Time, Policy: s.Policy.SHA256, Facts: facts, Broken: broken}
	case *event.SignFailed:
		s.SignFailure = evolveSignFailure(s.SignFailure, rec, f)
	case *event.InstancePublished:
		s = evolvePublished(s, rec, f)
		s.SignFailure = nil
	case *event.BulkSwept:
		s.Swept = rec.Seq
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
	case s.Loaded != nil && s.Loaded.Seq == f.Loaded:
		p.Loaded = *s.Loaded
	case s.Published != nil && s.Published.Loaded.Seq == f.Loaded:
		p.Loaded = s.Published.Loaded
	default:
		p.Loaded = Loaded{Seq: f.Loaded, Facts: event.InstanceLoaded{ContentDigest: s.Signed.Facts.ContentDigest}}
	}
	s.Published = p
	return s
}
