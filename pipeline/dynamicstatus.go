package pipeline

import (
	"fmt"
	"time"
)

// UpdatesStatus is what dynamic updates did to a zone.
type UpdatesStatus struct {
	// Taken is how many were applied since the contents came from the source,
	// Waiting how many were accepted and are in no loaded instance yet.
	Taken   uint64 `json:"taken"`
	Waiting uint64 `json:"waiting"`
	// LastAt is when one was accepted last, and LastKey the TSIG key that signed
	// it.
	LastAt  *time.Time `json:"last_at,omitempty"`
	LastKey string     `json:"last_key,omitempty"`
}

// updatesStatus is nil for a zone that takes none and never had one.
func updatesStatus(s State, p Policy) *UpdatesStatus {
	if !s.updated() && (!p.TakesUpdates() || s.mayUpdate(p) != nil && IsTransfer(s.Source)) {
		return nil
	}
	return &UpdatesStatus{Taken: s.Updates.Taken, Waiting: s.Updates.messages(), LastAt: timeOrNil(s.Updates.Last), LastKey: s.Updates.Key}
}

// describeUpdates tells of dynamic updates. The caller holds mu.
func (r *runner) describeUpdates(st *ZoneStatus) {
	s := r.state
	p, err := r.e.boundPolicy(s)
	if err != nil {
		return
	}
	st.Updates = updatesStatus(s, p)
	if p.TakesUpdates() && IsTransfer(s.Source) {
		st.Notices = append(st.Notices, Notice{
			Severity: severityWarning, Code: NoticeUpdatesRefused,
			Text: "the policy allows dynamic updates, and they are refused: the source is servers, whose next transfer would undo them",
			Hint: "send updates to those servers, or take the rules out of loader.update of policy " + p.Name,
		})
	}
	if n := len(s.Updates.Waiting); n > 0 && len(st.Reviews) > 0 {
		since := s.Updates.Waiting[0].Time
		st.Notices = append(st.Notices, Notice{
			Severity: severityInfo, Code: NoticeUpdatesWait, Since: &since,
			Text: fmt.Sprintf("%d dynamic updates wait until the review is over", s.Updates.messages()),
		})
	}
	if s.updated() && s.Updates.Source == s.Source && s.Loaded != nil && s.Loaded.Broken != "" {
		st.Notices = append(st.Notices, Notice{
			Severity: severityAlarm, Code: NoticeUpdatesLost, Since: sinceOf(s.Loaded.Time),
			Text: "what dynamic updates made of the zone cannot be read from the journal: " + s.Loaded.Broken,
			Hint: served(s) + "restore the journal from a backup, or begin with the source again: sluice zone reload --full --replace " + s.Name,
		})
	}
}
