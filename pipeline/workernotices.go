package pipeline

import (
	"fmt"
	"strings"
	"time"
)

// workerNotices tells what rests, and what nobody does. The caller holds mu.
func (r *runner) workerNotices(st *ZoneStatus) {
	s := r.state
	st.Notices = append(st.Notices, r.e.staleNotices()...)
	for _, role := range ownedRoles() {
		q, rests := s.Quarantines[role]
		if !rests {
			continue
		}
		why := "its process ended each time"
		if q.Error != "" {
			why = "panic: " + q.Error
		}
		st.Notices = append(st.Notices, Notice{
			Severity: severityAlarm, Code: NoticeRoleRests, Since: sinceOf(q.Time),
			Text: fmt.Sprintf("role %s rests since %s: its command %s failed badly %d times (%s)",
				role, q.Time.Format(time.RFC3339), q.Command, q.Tries, why),
			Hint: "what is published stays served; correct what it stumbles over, then: sluice zone reset " + s.Name,
		})
	}
	if s.Stale > 0 {
		st.Notices = append(st.Notices, Notice{
			Severity: severityInfo, Code: NoticePassedOver, Text: fmt.Sprintf("events of former owners that were passed over: %d", s.Stale),
			Hint: "they changed nothing; the log of each process names them",
		})
	}
	if r.e.duties == nil {
		return
	}
	if missing := r.e.duties.unheld(PartitionOf(r.id)); len(missing) > 0 {
		st.Notices = append(st.Notices, Notice{
			Severity: severityWarning, Code: NoticeRoleUnheld, Text: "no worker has this zone's work of " + roleWords(missing),
			Hint: "start one with it: sluice worker --roles " + strings.ReplaceAll(roleWords(missing), ", ", ",") + "; see: sluice worker list",
		})
	}
}

// unheld are the roles of a partition that no worker held when that was read
// last; none before.
func (d *duties) unheld(partition int) []Role {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.holders == nil {
		return nil
	}
	var out []Role
	for _, role := range ownedRoles() {
		at := duty{role, partition}
		if d.holders[at.lease()] == "" && d.held[at] == nil {
			out = append(out, role)
		}
	}
	return out
}
