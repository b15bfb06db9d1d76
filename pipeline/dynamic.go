package pipeline

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/journal"
	"sluice/journal/event"
)

// Updates is what dynamic updates made of a zone.
type Updates struct {
	// Waiting are those that were accepted and that no loaded instance has yet.
	// It is replaced, never changed.
	Waiting []WaitingUpdate `json:"waiting,omitempty"`
	// Taken is how many were applied since the contents came from the source.
	Taken uint64 `json:"taken,omitempty"`
	// Last is when one was accepted last, and Key who signed it.
	Last time.Time `json:"last,omitzero"`
	Key  string    `json:"key,omitempty"`
	// Source is what the contents began with that the first of them changed.
	Source string `json:"source,omitempty"`
}

// WaitingUpdate is an update.accepted.
type WaitingUpdate struct {
	Seq      uint64         `json:"seq"`
	Time     time.Time      `json:"time"`
	Messages uint64         `json:"messages"`
	Manifest event.Manifest `json:"manifest"`
}

const (
	// maxWaiting and maxWaitingBytes bound what waits for a review.
	maxWaiting      = 512
	maxWaitingBytes = 8 << 20
)

// full reports whether no more can wait.
func (u Updates) full() bool {
	bytes := uint64(0)
	for _, w := range u.Waiting {
		for _, c := range w.Manifest.Chunks {
			bytes += c.Bytes
		}
	}
	return len(u.Waiting) >= maxWaiting || bytes >= maxWaitingBytes
}

// last is the sequence of the newest update that waits; 0 for none.
func (u Updates) last() uint64 {
	if len(u.Waiting) == 0 {
		return 0
	}
	return u.Waiting[len(u.Waiting)-1].Seq
}

// messages is how many messages wait.
func (u Updates) messages() (n uint64) {
	for _, w := range u.Waiting {
		n += w.Messages
	}
	return n
}

// updated reports whether the contents are no longer those of the source alone.
func (s State) updated() bool { return s.Updates.Taken > 0 || len(s.Updates.Waiting) > 0 }

// sourceUnread reports whether updates would change contents of a source that was
// given up: those of the new one take their place.
func (s State) sourceUnread(p Policy) bool {
	base, known := baseOf(s, loadBase(s, p))
	return known && base.Source != s.Source
}

// ApplyUpdates makes a loaded instance of the updates that wait.
type ApplyUpdates struct {
	// Base is the loaded instance that they are applied to.
	Base uint64
	// Released is the sequence of the zone.released that it completes; 0 for
	// none.
	Released uint64
	// To is the newest update that it applies. It is no part of the identity:
	// one that comes while the command runs waits for the next.
	To uint64
}

// Lane implements Command.
func (ApplyUpdates) Lane() Lane { return ContentLane }

// Identity implements Command.
func (c ApplyUpdates) Identity() string {
	c.To = 0
	return identity("apply updates", c)
}

func (ApplyUpdates) command() {}

// evolveUpdates folds what concerns dynamic updates.
func evolveUpdates(s State, rec journal.Record) State {
	switch f := rec.Event.Facts.(type) {
	case *event.UpdateAccepted:
		w := WaitingUpdate{Seq: rec.Seq, Time: rec.Event.Time, Messages: uint64(len(f.Updates)), Manifest: f.Manifest}
		s.Updates.Waiting = append(slices.Clone(s.Updates.Waiting), w)
		s.Updates.Last, s.Updates.Key = rec.Event.Time, rec.Event.Actor.Name
		if s.Updates.Source == "" {
			s.Updates.Source = s.Source
		}
	case *event.InstanceLoaded:
		if f.UpdatesTo != 0 {
			s.Updates.Waiting = slices.DeleteFunc(slices.Clone(s.Updates.Waiting), func(w WaitingUpdate) bool { return w.Seq <= f.UpdatesTo })
		}
		switch {
		case f.Transfer == event.ByUpdate:
			s.Updates.Taken += f.Updates
		case f.Rollback == 0:
			s.Updates.Taken, s.Updates.Source = 0, ""
			if len(s.Updates.Waiting) > 0 {
				s.Updates.Source = s.Source
			}
		}
	}
	return s
}

// decideUpdates is what a zone with updates needs in the content lane; done where
// nothing else is to be done there. What updates made is replaced by the source's
// contents only where somebody asked for that.
func decideUpdates(s State, p Policy, m Moment) (c Command, done bool) {
	if !s.updated() || m.Reload != 0 && m.Full || s.Updates.Source != s.Source {
		return nil, false
	}
	base := loadBase(s, p)
	released := uint64(0)
	if s.Released != nil {
		released = s.Released.Seq
	}
	if base != 0 && (len(s.Updates.Waiting) > 0 || released != 0) {
		return ApplyUpdates{Base: base, Released: released, To: s.Updates.last()}, true
	}
	return nil, true
}

// describeUpdate tells of dynamic updates as a sentence; empty for other events.
func describeUpdate(ev event.Event) string {
	f, ok := ev.Facts.(*event.UpdateAccepted)
	if !ok {
		return ""
	}
	const most = 5
	var parts []string
	for i, u := range f.Updates {
		if i == most {
			parts = append(parts, fmt.Sprintf("and %d more", len(f.Updates)-most))
			break
		}
		from := u.Address
		if u.TLS {
			from += " over TLS"
		}
		parts = append(parts, fmt.Sprintf("from %s: %s", from, changedText(u.Added, u.Removed)))
	}
	return fmt.Sprintf("update by key %s %s", ev.Actor.Name, strings.Join(parts, "; "))
}

// changedText says how many records came and went.
func changedText(added, removed uint64) string {
	records := func(n uint64) string {
		if n == 1 {
			return "1 record"
		}
		return fmt.Sprintf("%d records", n)
	}
	switch {
	case removed == 0:
		return records(added) + " added"
	case added == 0:
		return records(removed) + " removed"
	}
	return fmt.Sprintf("%s added, %d removed", records(added), removed)
}

// loadedByUpdate tells of an instance that updates made.
func loadedByUpdate(f *event.InstanceLoaded) string {
	what := fmt.Sprintf("%d updates taken up", f.Updates)
	switch f.Updates {
	case 0:
		what = "contents kept as updates made them"
	case 1:
		what = "1 update taken up"
	}
	return fmt.Sprintf("%s: serial %d, %d records, %d added, %d removed", what, f.Serial, f.Records, f.Added, f.Removed)
}
