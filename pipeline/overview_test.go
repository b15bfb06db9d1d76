package pipeline

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/journal/journaltest"
)

// stagesText is where a zone stands, in a line.
func stagesText(st ZoneStatus) string {
	var parts []string
	for _, s := range st.Stages {
		parts = append(parts, s.Stage+" "+s.State)
	}
	return strings.Join(parts, ", ")
}

func TestOverview_TellsWhatNeedsAPersonFirst(t *testing.T) {
	r := newRig(t, journaltest.New(), nil)
	st := r.add(smallZone)
	if got := stagesText(st); got != "source done, load done, review-loaded off, sign done, review-signed off, publish done, secondaries off" {
		t.Errorf("stages of a published zone: %s", got)
	}
	o, err := r.e.Overview(t.Context(), 0)
	if err != nil || o.Severity != "ok" || len(o.Needs) != 0 || o.Zones != 1 || o.States["published"] != 1 || len(o.Expiries) != 1 || o.Journal.LastSeq == 0 {
		t.Fatalf("of a zone that is well: %+v, %v", o, err)
	}
	st = r.reload(smallZone + "x IN A 300.1.1.1\n")
	if got := stagesText(st); !strings.Contains(got, "load failed") || !strings.Contains(got, "publish done") {
		t.Errorf("stages after a bad file: %s", got)
	}
	if len(st.Notices) != 1 || st.Notices[0].Code != NoticeLoadFailed || st.Notices[0].Since == nil || st.Notices[0].Topic != "operate" {
		t.Errorf("notices %+v", st.Notices)
	}
	if len(st.Coming) == 0 || st.Coming[0].Text != "signatures are made again" || !slices.IsSortedFunc(st.Coming, func(a, b Coming) int { return a.At.Compare(b.At) }) ||
		!slices.ContainsFunc(st.Coming, func(c Coming) bool { return strings.HasPrefix(c.Text, "the first signature ends") }) {
		t.Errorf("coming %+v", st.Coming)
	}
	r.e.mu.Lock()
	r.e.sealTrouble = "the disk is full"
	r.e.mu.Unlock()
	o, err = r.e.Overview(t.Context(), 1)
	if err != nil || o.Severity != severityWarning || o.Warnings != 2 || len(o.Needs) != 1 || o.More != 1 || o.Needs[0].Code != NoticeSealFailed || o.Needs[0].Zone != "" {
		t.Errorf("of a zone that failed, with a need of the process: %+v, %v", o, err)
	}
}

// Alarms that are sent are those that status tells, each of its zone.
func TestCurrentAlarms_AreTheWarningsAndAlarmsOfStatus(t *testing.T) {
	r := newRig(t, journaltest.New(), nil)
	r.add(smallZone)
	r.reload(smallZone + "x IN A 300.1.1.1\n")
	all, known := r.e.currentAlarms(t.Context())
	if !known || len(all) != 1 || all[0].Zone != "example.com." || all[0].Code != "load-failed" || all[0].Severity != "warning" || all[0].Since.IsZero() {
		t.Errorf("%+v, %t", all, known)
	}
	if err := r.e.RemoveZone(t.Context(), testActor, "example.com", true); err != nil {
		t.Fatal(err)
	}
	until(t, "a zone that was removed needs nobody", func() bool {
		all, _ := r.e.currentAlarms(t.Context())
		return len(all) == 0
	})
}

func TestNeeds_OfManyZonesAreOne(t *testing.T) {
	at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	l := needList{by: map[needKey][]Need{}}
	for i := range 40 {
		then := at.Add(-time.Duration(i) * time.Hour)
		l.add(fmt.Sprintf("z%02d.example.", i), Notice{Severity: severityWarning, Code: NoticeLoadFailed, Since: &then, Text: fmt.Sprintf("loading %d failed", i), Hint: "correct it"})
		l.add(fmt.Sprintf("z%02d.example.", i), Notice{Severity: severityWarning, Code: NoticeMaintenance, Since: &at, Text: "maintenance", Hint: "end it"})
	}
	l.add("b.example.", Notice{Severity: severityAlarm, Code: NoticeDSMismatch, Text: "bogus"})
	l.add("", Notice{Severity: severityAlarm, Code: NoticeClockDoubted})
	l.add("c.example.", Notice{Severity: severityInfo, Code: NoticeInput})
	var got []string
	for _, n := range l.list() {
		got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s: %s: %s %s", n.Severity, n.Code, n.Whose(), n.Text, n.Hint)))
	}
	want := []string{
		"alarm clock-doubted: this process:",
		"alarm ds-mismatch: b.example.: bogus",
		"warning load-failed: 40 zones: z00.example. z01.example. z02.example. z03.example. and 36 more: " +
			"z00.example.: loading 0 failed correct it; all of them: sluice zone list --notices load-failed",
		"warning maintenance: 40 zones: z00.example. z01.example. z02.example. z03.example. and 36 more: maintenance end it",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if many := l.list()[2]; many.Since == nil || !many.Since.Equal(at.Add(-39*time.Hour)) {
		t.Errorf("since %v", many.Since)
	}
}
