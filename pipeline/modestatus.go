package pipeline

import (
	"fmt"
	"time"
)

// describeMode says what is done to the zone, and warns of signatures that are
// not made here and come to their end. The caller holds mu.
func (r *runner) describeMode(st *ZoneStatus) {
	s := r.state
	p, err := r.e.boundPolicy(s)
	if err != nil {
		return
	}
	st.Mode = p.Mode()
	if n, ok := otherAlgorithm(s, p); ok {
		st.Notices = append(st.Notices, n)
	}
	if n, ok := serialNotKept(s, p); ok {
		st.Notices = append(st.Notices, n)
	}
	pub := s.Published
	if pub == nil {
		return
	}
	if now := pub.Signed.mode(); now != st.Mode {
		st.Notices = append(st.Notices, Notice{
			Severity: severityWarning, Code: NoticeModePending,
			Text: fmt.Sprintf("signer.mode is %s, and what is published is still %s", st.Mode, modeText(now)),
			Hint: "see: sluice zone history " + s.Name,
		})
	}
	if n, ok := sourceExpiry(pub, p, r.e.clock.Now()); ok {
		st.Notices = append(st.Notices, n)
	}
}

// otherAlgorithm tells of keys that are not of the policy's algorithm: the zone
// goes on with them, since a change of algorithm takes steps at the parent.
func otherAlgorithm(s State, p Policy) (Notice, bool) {
	if p.Mode() != ModeSign {
		return Notice{}, false
	}
	for i := range s.Keys.Keys {
		if k := &s.Keys.Keys[i]; k.Signs() && k.Algorithm != p.Algorithm() {
			return Notice{
				Severity: severityInfo, Code: NoticeAlgorithmDiffers,
				Text: fmt.Sprintf("key %d signs with algorithm %d, the policy says %d: the zone keeps its keys until they are rolled",
					k.Tag, k.Algorithm, p.Algorithm()),
				Hint: "see: sluice key list " + s.Name,
			}, true
		}
	}
	return Notice{}, false
}

// serialNotKept tells that serial-policy keep could not keep the source's serial
// in what is published: it did not move forward, and ours had to.
func serialNotKept(s State, p Policy) (Notice, bool) {
	pub := s.Published
	if p.Mode() == ModePassThrough || p.SerialPolicy() != SerialKeep || pub == nil {
		return Notice{}, false
	}
	ours, theirs := pub.Signed.Facts.Serial, pub.Loaded.Facts.Serial
	if ours == theirs {
		return Notice{}, false
	}
	return Notice{
		Severity: severityAlarm, Code: NoticeSerialNotKept, Since: sinceOf(pub.Time),
		Text: fmt.Sprintf("serial %d is published, the source has %d: its serial did not move forward, and what is published had to (serial-policy keep)",
			ours, theirs),
		Hint: fmt.Sprintf("raise the serial at the source above %d; then it is kept again", ours),
	}, true
}

func modeText(m Mode) string {
	switch m {
	case ModePassThrough:
		return "passed through"
	case ModeUnsigned:
		return "unsigned"
	case ModeSign:
	}
	return "signed"
}

// sourceExpiry warns of the end of signatures that the source made: from the
// policy's remain time on, and louder when a quarter of it is left.
func sourceExpiry(pub *Published, p Policy, now time.Time) (Notice, bool) {
	if pub.Signed.mode() != ModePassThrough || pub.Signed.Facts.Earliest == 0 {
		return Notice{}, false
	}
	end := time.Unix(pub.Signed.Facts.Earliest, 0).UTC()
	left := end.Sub(now)
	if left > p.RemainTime() {
		return Notice{}, false
	}
	n := Notice{
		Severity: severityWarning, Code: NoticeSourceSignatures, Since: sinceOf(end.Add(-p.RemainTime())),
		Text: "signatures of the source end at " + end.Format(time.RFC3339),
		Hint: "have the source sign again: what is passed through is not signed here",
	}
	switch {
	case left <= 0:
		n.Severity, n.Text = "alarm", "signatures of the source ended at "+end.Format(time.RFC3339)+": validators refuse them"
	case left <= p.RemainTime()/4:
		n.Severity = "alarm"
	}
	return n, true
}
