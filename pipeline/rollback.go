package pipeline

import (
	"fmt"
	"strings"
	"time"

	"sluice/journal"
	"sluice/journal/event"
)

// Hold says that a zone was taken back to an earlier version's content, and
// stays there until it is released.
type Hold struct {
	Seq   uint64         `json:"seq"` // of zone.held
	Time  time.Time      `json:"time"`
	Actor event.Actor    `json:"actor"`
	Facts event.ZoneHeld `json:"facts"`
	// Loaded is the sequence of the instance.loaded that has the content anew;
	// 0 before it was made.
	Loaded uint64 `json:"loaded,omitempty"`
}

// Release says that a hold has ended, and the source was not read since.
type Release struct {
	Seq  uint64    `json:"seq"` // of zone.released
	Time time.Time `json:"time"`
}

// Rollback makes a loaded instance with the content of an earlier one.
type Rollback struct {
	Held   uint64 // sequence of the zone.held that asks for it
	Loaded uint64 // the loaded instance whose content it takes
	// Base is the loaded instance that the new one is a diff to; 0 for a new
	// generation.
	Base uint64
}

// Lane implements Command.
func (Rollback) Lane() Lane { return ContentLane }

// Identity implements Command.
func (c Rollback) Identity() string { return identity("rollback", c) }

func (Rollback) command() {}

// brings reports whether a command brings new contents.
func brings(c Command) bool {
	_, load := c.(Load)
	_, back := c.(Rollback)
	_, updates := c.(ApplyUpdates)
	return load || back || updates
}

// evolveHold folds the beginning and the end of a hold, and what is loaded
// meanwhile.
func evolveHold(s State, rec journal.Record) State {
	switch f := rec.Event.Facts.(type) {
	case *event.ZoneHeld:
		s.Held = &Hold{Seq: rec.Seq, Time: rec.Event.Time, Actor: rec.Event.Actor, Facts: *f}
		s.Released = nil
	case *event.ZoneReleased:
		s.Held = nil
		s.Released = &Release{Seq: rec.Seq, Time: rec.Event.Time}
	case *event.InstanceLoaded:
		switch {
		case f.Rollback == 0:
			s.Released = nil
		case s.Held != nil && s.Held.Facts.Loaded == f.Rollback:
			held := *s.Held
			held.Loaded = rec.Seq
			s.Held = &held
		}
	}
	return s
}

// decideHeld is what a held zone needs in the content lane: the content that it
// is to have, once. Where the policy passes the source's signatures through,
// that cannot be made.
func decideHeld(s State, p Policy) Command {
	h := s.Held
	made := h.Loaded != 0 && (s.Loaded == nil || s.Loaded.Seq != h.Loaded || s.Loaded.Broken == "")
	if made || p.passThrough() {
		return nil
	}
	return Rollback{Held: h.Seq, Loaded: h.Facts.Loaded, Base: loadBase(s, p)}
}

// goesBack reports whether an earlier version's content is still to be made:
// nothing of the zone is purged meanwhile.
func (s State) goesBack() bool { return s.Held != nil && s.Held.Loaded == 0 }

// rollbackSource stands in events for the source of what is taken back.
func rollbackSource(loaded uint64) string { return fmt.Sprintf("rollback to l%d", loaded) }

// describeHold tells the beginning and the end of a hold as a sentence; empty
// for other events.
func describeHold(ev event.Event) string {
	switch f := ev.Facts.(type) {
	case *event.ZoneHeld:
		text := fmt.Sprintf("taken back from serial %d to the content of serial %d (l%d), and held there", f.FromSerial, f.Serial, f.Loaded)
		if f.DSChanges > 0 || f.NSChanges > 0 {
			text += fmt.Sprintf("; confirmed: %d DS and %d NS records differ", f.DSChanges, f.NSChanges)
		}
		return text + because(f.Reason)
	case *event.ZoneReleased:
		return "hold ended, the source is compared in full" + because(f.Reason)
	}
	return ""
}

// HoldStatus says that a zone is held by a rollback.
type HoldStatus struct {
	Serial   uint32    `json:"serial"`   // of the version whose content it has
	Instance string    `json:"instance"` // the loaded one that has that content: l<sequence>
	Since    time.Time `json:"since"`
	Actor    string    `json:"actor"`
	Reason   string    `json:"reason"`
	// Loaded is the instance that was made of it, "" before that.
	Loaded string `json:"loaded,omitempty"`
	// Published: that is what is served.
	Published bool `json:"published"`
}

// describeHeld tells of a hold, or of its end that is not yet complete.
func describeHeld(s State, st *ZoneStatus) {
	if s.Released != nil {
		st.Notices = append(st.Notices, Notice{
			Severity: severityInfo, Code: NoticeReleasePending, Since: sinceOf(s.Released.Time),
			Text: "released at " + s.Released.Time.Format(time.RFC3339) + "; the source was not yet compared in full",
		})
	}
	h := s.Held
	if h == nil {
		return
	}
	if strings.HasPrefix(st.State, "published") {
		st.State += ", held"
	}
	st.Held = &HoldStatus{
		Serial: h.Facts.Serial, Instance: instanceWordOf(event.StageLoaded, h.Facts.Loaded),
		Since: h.Time, Actor: h.Actor.Name, Reason: h.Facts.Reason,
	}
	if h.Loaded != 0 {
		st.Held.Loaded = instanceWordOf(event.StageLoaded, h.Loaded)
		st.Held.Published = s.Published != nil && s.Published.Loaded.Seq == h.Loaded
	}
	st.Notices = append(st.Notices, Notice{
		Severity: severityWarning, Code: NoticeHeld, Since: sinceOf(h.Time), Text: heldText(s), Hint: "to follow the source again: sluice zone release " + s.Name,
	})
}

// heldText says by which rollback a zone is held.
func heldText(s State) string {
	h := s.Held
	return fmt.Sprintf("held by the rollback to serial %d (l%d) since %s, by %s%s",
		h.Facts.Serial, h.Facts.Loaded, h.Time.Format(time.RFC3339), h.Actor.Name, because(h.Facts.Reason))
}

// errHeld refuses what a hold keeps from being done.
func errHeld(s State) error {
	return errorState("zone %s is %s; to follow the source again: sluice zone release %s", s.Name, heldText(s), s.Name)
}

// releasedAt is when a hold ended after which the source was not read yet; zero
// for never.
func (s State) releasedAt() time.Time {
	if s.Released == nil {
		return time.Time{}
	}
	return s.Released.Time
}

// afterLoadFailure is what a person can do about a load that failed.
func (s State) afterLoadFailure(reason string) string {
	if s.Held != nil {
		return "it is tried again by itself; or roll back to another version, or: sluice zone release " + s.Name
	}
	if s.updated() && s.Updates.Source == s.Source {
		return "it is tried again by itself; see: sluice zone history " + s.Name
	}
	return loadHint(s.Source, reason) + ", then: sluice zone reload " + s.Name
}
