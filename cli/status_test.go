package cli

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/cli/api"
	"sluice/journal/event"
	"sluice/pipeline"
)

// printed is what fn prints.
func printed(t *testing.T, e *env, fn func() error) string {
	t.Helper()
	var b bytes.Buffer
	e.stdout = &b
	if err := fn(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestPicture_ShowsTheStagesThatAZoneHas(t *testing.T) {
	stages := []pipeline.StageStatus{
		{Stage: "source", State: "done", Serial: new(uint32(8))},
		{Stage: "load", State: "failed", Serial: new(uint32(8))},
		{Stage: "review-loaded", State: "off"},
		{Stage: "sign", State: "busy", Serial: new(uint32(2026112203))},
		{Stage: "review-signed", State: "waiting", Serial: new(uint32(7))},
		{Stage: "publish", State: "none"},
		{Stage: "secondaries", State: "off"},
	}
	want := []string{
		"  source --  load  --    sign    -- review -- publish",
		"    ok      FAILED       now        waits        -",
		"    8         8       2026112203      7",
	}
	if diff := cmp.Diff(want, (&env{}).picture(stages)); diff != "" {
		t.Error(diff)
	}
	drawn := (&env{color: true, unicode: true}).picture(stages)
	if len(drawn) != 3 || !strings.Contains(drawn[0], "source ──") || !strings.Contains(drawn[1], red+"✗ failed\x1b[0m") {
		t.Errorf("on a terminal: %q", drawn)
	}
	if got := (&env{}).picture(nil); got != nil {
		t.Errorf("of nothing: %q", got)
	}
}

func TestZoneFilter(t *testing.T) {
	zones := []pipeline.ZoneSummary{
		{Name: "a.", State: "published", Policy: "default"},
		{Name: "b.", State: "published, in review", Policy: "strict", Notices: []pipeline.Notice{{Severity: "warning", Code: pipeline.NoticeReviewWaits}}},
		{Name: "c.", State: "halted", Policy: "strict", Notices: []pipeline.Notice{{Severity: "alarm", Code: pipeline.NoticeReviewHalted}, {Severity: "info", Code: pipeline.NoticeInput}}},
	}
	for _, tt := range []struct{ state, policy, notices, want string }{
		{"", "", "", "a. b. c."},
		{"published", "", "", "a. b."},
		{"review", "", "", "b."},
		{"", "strict", "", "b. c."},
		{"", "", "info", "b. c."},
		{"", "", "warning", "b. c."},
		{"", "", "alarm", "c."},
		{"", "", "input-notice", "c."},
		{"halted", "strict", "review-halted", "c."},
	} {
		keep, err := zoneFilter(tt.state, tt.policy, tt.notices)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, z := range zones {
			if keep(z) {
				got = append(got, z.Name)
			}
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
	}
	if _, err := zoneFilter("", "", "sour"); exitCode(err) != 2 {
		t.Errorf("an unknown code: %v", err)
	}
	if _, err := zoneFilter("publsihed", "", ""); exitCode(err) != 2 {
		t.Errorf("an unknown state: %v", err)
	}
	for _, state := range append(pipeline.ZoneStates(), "published, held", "published,in review") {
		if _, err := zoneFilter(state, "", ""); err != nil {
			t.Errorf("state %s: %v", state, err)
		}
	}
	if got := noticeText(zones[2].Notices); got != "1 alarm, 1 info (review-halted)" {
		t.Errorf("notices: %s", got)
	}
}

// Many versions in a row are told as one matter, with nothing else left out.
func TestBursts_TellNothingWrong(t *testing.T) {
	start := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	var seq uint64
	var b bytes.Buffer
	burst := bursts{
		print: func(ev api.Event) error {
			fmt.Fprintf(&b, "%d %s\n", ev.Seq, ev.Type)
			return nil
		},
		note: func(format string, args ...any) error {
			fmt.Fprintf(&b, format, args...)
			return nil
		},
	}
	add := func(wire, door string) {
		seq++
		ev := api.Event{HistoryLine: pipeline.HistoryLine{Seq: seq, Time: start.Add(time.Duration(seq) * time.Hour), Type: wire, Door: door}}
		if err := burst.add(ev); err != nil {
			t.Fatal(err)
		}
	}
	add("zone.added", "cli")
	for range 10 {
		add("instance.signed", event.Program.Door)
		add("instance.published", event.Program.Door)
	}
	add("load.failed", event.Program.Door)
	add("instance.signed", event.Program.Door)
	add("instance.published", event.Program.Door)
	add("instance.signed", event.Program.Door)
	if err := burst.end(); err != nil {
		t.Fatal(err)
	}
	want := `1 zone.added
2 instance.signed
3 instance.published
    ... signed 8 times and published 8 times more, until 2026-11-01T19:00:00Z, seq 19 (--verbose tells each)
20 instance.signed
21 instance.published
22 load.failed
23 instance.signed
24 instance.published
25 instance.signed
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}

func TestEventTypes_FamiliesStandForTheirTypes(t *testing.T) {
	got, err := eventTypes([]string{"tsig", "load.failed"})
	if err != nil || strings.Join(got, " ") != "load.failed tsig.added tsig.exported tsig.removed" {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := eventTypes([]string{"tsi"}); exitCode(err) != 2 || !strings.Contains(hintOf(err), "rollover") {
		t.Errorf("an unknown family: %v, %s", err, hintOf(err))
	}
}

func TestOverview_IsOneScreenWithTheWorstFirst(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	ago := now.Add(-3 * time.Hour)
	soon := now.Add(26 * time.Hour)
	o := pipeline.Overview{
		Time: now, Severity: "alarm", Alarms: 1, Warnings: 301, Zones: 1000, States: map[string]int{"published": 998, "halted": 2},
		Daemon: pipeline.DaemonStatus{
			Version: "1.0", Since: ago, Clock: pipeline.ClockStatus{Now: now, Trusted: true},
			Listeners: []pipeline.Listener{{Name: "publication", Address: "127.0.0.1:8053"}},
		},
		Needs: []pipeline.Need{
			{Zone: "b.example.", Count: 1, Notice: pipeline.Notice{
				Severity: "alarm", Code: pipeline.NoticeDSMismatch, Since: &ago, Text: "no DS", Hint: "have the parent take what this prints: sluice key ds b.example.",
			}},
			{Zone: "a.example.", Count: 301, Others: []string{"c.example."}, Notice: pipeline.Notice{
				Severity: "warning", Code: pipeline.NoticeLoadFailed, Text: "loading failed", Hint: "correct the source",
			}},
		},
		More:      3,
		Expiries:  []pipeline.ZoneExpiry{{Zone: "b.example.", At: soon}},
		Rollovers: []pipeline.ZoneRollover{{Zone: "d.example.", Kind: "zsk", Step: 1, Steps: 3, Text: "waits", Until: &soon}}, RolloverCount: 1,
		Journal: pipeline.JournalSummary{LastSeq: 5, Events: 2048, Bulk: 1 << 20, BulkFill: 71},
	}
	e := &env{}
	got := printed(t, e, func() error { return e.printOverview(o, false) })
	want := `sluice:   1.0, since 2026-11-22T09:00:00Z
clock:    2026-11-22T12:00:00Z
listens:  publication 127.0.0.1:8053

Needs a person: 1 alarm, 301 warnings
  alarm  b.example., since 2026-11-22T09:00:00Z (3h0m)
    no DS
    -> have the parent take what this prints: sluice key ds b.example.
  warning  301 zones: a.example. c.example. and 299 more
    loading failed
    -> correct the source
  and 3 more: sluice status --all

zones:                   1000: 998 published; 2 halted
first signature to end:  2026-11-23T14:00:00Z (in 1d2h), b.example.
rollovers:               1
  d.example.  zsk, step 1 of 3: waits, until 2026-11-23T14:00:00Z (in 1d2h)
journal:  5 events, 2.0 KiB of events, 1.0 MiB (71 %) of contents
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if line := checkLine(o); line != "ALARM: 1000 zones, 1 alarm, 301 warnings; b.example.: no DS" {
		t.Errorf("check: %s", line)
	}
	if err := e.printOverview(o, true); exitCode(err) != 1 {
		t.Errorf("--check with an alarm: %v", err)
	}
	if err := e.printOverview(pipeline.Overview{Severity: "warning", Warnings: 1}, true); err != nil {
		t.Errorf("--check without one: %v", err)
	}
}
