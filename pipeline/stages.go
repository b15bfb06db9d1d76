package pipeline

import (
	"fmt"
	"slices"

	"sluice/journal/event"
)

// StageStatus is where a zone stands at one stage on its way from the source to
// the secondaries.
type StageStatus struct {
	// Stage is source, load, review-loaded, sign, review-signed, publish or
	// secondaries.
	Stage string `json:"stage"`
	// State is done, busy (now), waiting (for Text), failed (Text says why), off
	// (the zone has no such stage) or none (nothing got there yet).
	State string `json:"state"`
	// Serial is that of what got there last.
	Serial *uint32 `json:"serial,omitempty"`
	Text   string  `json:"text,omitempty"`
}

// The states of a stage.
const (
	stageDone    = "done"
	stageBusy    = "busy"
	stageWaiting = "waiting"
	stageFailed  = "failed"
	stageOff     = "off"
	stageNone    = "none"
)

// stagesOf draws a zone's way from what is told of it, under its policy.
func stagesOf(st ZoneStatus, p Policy) []StageStatus {
	return []StageStatus{
		sourceStage(st), loadStage(st), reviewStage(st, event.StageLoaded, p.set.loadedReview.on),
		signStage(st), reviewStage(st, event.StageSigned, p.set.signedReview.on),
		publishStage(st), secondariesStage(st),
	}
}

// told finds the first notice of one of the codes.
func (st ZoneStatus) told(codes ...NoticeCode) (Notice, bool) {
	for _, n := range st.Notices {
		if slices.Contains(codes, n.Code) {
			return n, true
		}
	}
	return Notice{}, false
}

func serialIn(i *InstanceSummary) *uint32 {
	if i == nil {
		return nil
	}
	return &i.Serial
}

func sourceStage(st ZoneStatus) StageStatus {
	out := StageStatus{Stage: "source", State: stageDone, Serial: serialIn(st.Loaded), Text: st.Source}
	if u := st.Upstream; u != nil && u.Serial != nil {
		out.Serial = u.Serial
	}
	switch {
	case st.Held != nil:
		out.State, out.Text = stageOff, "not read: a rollback holds the zone"
	case st.Loaded == nil && st.LastError == "":
		out.State = stageNone
	}
	if st.sourceSilent() {
		out.State, out.Text = stageFailed, st.Upstream.LastError
	}
	if n, bad := st.told(NoticeSourceExpired, NoticeSourceUnreachable, NoticeSourceBehind); bad {
		out.State, out.Text = stageFailed, n.Text
	}
	return out
}

// sourceSilent reports whether the servers of the source do not answer.
func (st ZoneStatus) sourceSilent() bool {
	return st.Held == nil && st.Upstream != nil && st.Upstream.LastError != ""
}

func loadStage(st ZoneStatus) StageStatus {
	out := StageStatus{Stage: "load", State: stageDone, Serial: serialIn(st.Loaded)}
	failed, bad := st.told(NoticeLoadFailed)
	switch {
	case st.State == "loading":
		out.State = stageBusy
	case bad && st.sourceSilent():
		out.State, out.Text = stageWaiting, "the source"
	case bad:
		out.State, out.Text = stageFailed, failed.Text
	case st.Maintenance != nil:
		out.State, out.Text = stageWaiting, "the end of maintenance"
	case st.Loaded == nil:
		out.State = stageNone
	}
	return out
}

// reviewStage is the review of what was loaded, or signed, where the policy
// wants one.
func reviewStage(st ZoneStatus, stage string, wanted bool) StageStatus {
	out := StageStatus{Stage: "review-" + stage, State: stageDone}
	got, dropped := st.Loaded, []NoticeCode{NoticeLoadedDropped}
	if stage == event.StageSigned {
		got, dropped = st.Signed, []NoticeCode{NoticeSignedDropped, NoticeRefreshDropped}
	}
	out.Serial = serialIn(got)
	for _, rv := range st.Reviews {
		if rv.Stage != stage {
			continue
		}
		out.Serial = &rv.Serial
		if rv.State == "halted" {
			out.State, out.Text = stageFailed, "halted: "+rv.Instance
			return out
		}
		out.State, out.Text = stageWaiting, rv.WaitsFor
		if !waitsForPerson(rv.WaitsFor) && st.Maintenance == nil {
			out.State = stageBusy
		}
		return out
	}
	if n, bad := st.told(dropped...); bad {
		out.State, out.Text = stageFailed, n.Text
		return out
	}
	switch {
	case !wanted:
		out.State = stageOff
	case got == nil:
		out.State = stageNone
	}
	return out
}

func signStage(st ZoneStatus) StageStatus {
	out := StageStatus{Stage: "sign", State: stageDone, Serial: serialIn(st.Signed)}
	bad, failed := st.told(NoticeSignFailed, NoticeKeysMissing, NoticeKeystoreDown, NoticeClockDoubted, NoticeZoneBroken)
	waits, waiting := st.told(NoticeBackupWanted, NoticeKeysUnproved, NoticeKeysLacking)
	switch {
	case st.State == "signing" || st.State == "verifying":
		out.State = stageBusy
	case st.Mode == ModePassThrough || st.Mode == ModeUnsigned:
		out.State, out.Text = stageOff, string(st.Mode)
	case failed:
		out.State, out.Text = stageFailed, bad.Text
	case waiting && waits.Severity != severityInfo:
		out.State, out.Text = stageWaiting, waits.Text
	case st.Signed == nil:
		out.State = stageNone
	}
	return out
}

func publishStage(st ZoneStatus) StageStatus {
	out := StageStatus{Stage: "publish", State: stageDone, Serial: st.PublishedSerial}
	switch {
	case st.State == "expired":
		out.State, out.Text = stageFailed, "not served: EXPIRE of the SOA is over"
	case st.Published == nil:
		out.State = stageNone
	}
	return out
}

func secondariesStage(st ZoneStatus) StageStatus {
	out := StageStatus{Stage: "secondaries", State: stageDone}
	if len(st.Secondaries) == 0 {
		out.State = stageOff
		return out
	}
	current := 0
	for _, s := range st.Secondaries {
		switch {
		case s.Serial != nil && st.PublishedSerial != nil && *s.Serial == *st.PublishedSerial:
			current++
		case s.Telling != nil && s.Tries > 1:
			out.State = stageFailed
		case out.State == stageDone:
			out.State = stageBusy
		}
		if s.Serial != nil && (out.Serial == nil || st.PublishedSerial != nil && *out.Serial == *st.PublishedSerial) {
			out.Serial = s.Serial // of one that lags, where one does
		}
	}
	out.Text = fmt.Sprintf("%d of %d know it", current, len(st.Secondaries))
	return out
}
