package pipeline

import (
	"fmt"
	"time"
)

// UpstreamStatus is where a zone stands with the servers of its source.
type UpstreamStatus struct {
	// Server is the one that answered last, with Serial.
	Server string  `json:"server,omitempty"`
	Serial *uint32 `json:"serial,omitempty"`
	// CheckedAt is when a server last had nothing newer, or was loaded from;
	// NextAt when they are asked again; ExpiresAt
	// when the contents are too old to be vouched for.
	CheckedAt *time.Time `json:"checked_at,omitempty"`
	NextAt    *time.Time `json:"next_at,omitempty"`
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
	LastError string     `json:"last_error,omitempty"`
	Since     *time.Time `json:"since,omitempty"` // of the error
}

// upstreamStatus is nil for a zone from a file. The caller holds mu.
func (r *runner) upstreamStatus() *UpstreamStatus {
	if !IsTransfer(r.state.Source) {
		return nil
	}
	in, u := r.inbound(), r.up
	if u.source != r.state.Source {
		u = upstream{}
	}
	st := &UpstreamStatus{
		Server: u.peer, CheckedAt: timeOrNil(u.good), NextAt: timeOrNil(in.Next), ExpiresAt: timeOrNil(in.Expires), LastError: u.fault,
	}
	if u.known {
		n := uint32(u.serial)
		st.Serial = &n
	}
	if u.fault != "" {
		st.Since = timeOrNil(u.since)
	}
	return st
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// upstreamNotices tells what is wrong with the servers. The caller holds mu.
func (r *runner) upstreamNotices(st *ZoneStatus) {
	u := st.Upstream
	if u == nil {
		return
	}
	if u.ExpiresAt != nil && r.e.watch.check() == nil && !r.e.clock.Now().Before(*u.ExpiresAt) {
		text := "no server of the source could be asked for the EXPIRE time of the SOA"
		if p, err := r.e.boundPolicy(r.state); err == nil && p.StopsOnExpire() {
			st.State = "expired"
			text += ": the zone is neither signed nor served"
		}
		st.Notices = append(st.Notices, Notice{
			Severity: severityAlarm, Code: NoticeSourceExpired, Since: u.ExpiresAt, Text: text, Hint: "see that a server answers, then: sluice zone reload " + st.Name,
		})
	}
	if u.LastError != "" && st.LastError == "" {
		st.LastError = u.LastError
		st.Notices = append(st.Notices, Notice{
			Severity: severityWarning, Code: NoticeSourceUnreachable, Since: u.Since, Text: "the source cannot be had since " + u.Since.Format(time.RFC3339) + ": " + u.LastError,
			Hint: "what was published stays served; try again with: sluice zone reload " + st.Name,
		})
	}
	if r.up.behind && u.Serial != nil && st.LoadedSerial != nil {
		st.Notices = append(st.Notices, Notice{
			Severity: severityWarning, Code: NoticeSourceBehind,
			Text: fmt.Sprintf("%s has serial %d, which is not after the loaded one, %d (RFC 1982)", u.Server, *u.Serial, *st.LoadedSerial),
			Hint: "to take the zone all the same: sluice zone reload --full " + st.Name,
		})
	}
}
