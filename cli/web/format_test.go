package web

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"
	"golang.org/x/sys/unix"

	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/pipeline"
)

func TestSpan_TwoUnits(t *testing.T) {
	for _, c := range []struct {
		d    time.Duration
		want string
	}{
		{0, "0 ms"},
		{1500 * time.Millisecond, "1 s"},
		{59 * time.Second, "59 s"},
		{90 * time.Second, "1 min 30 s"},
		{time.Hour, "1 h"},
		{26 * time.Hour, "1 d 2 h"},
		{27*24*time.Hour + 3*time.Hour, "27 d"},
		{400 * 24 * time.Hour, "1 y 35 d"},
		{-time.Minute, "-1 min"},
	} {
		if got := span(c.d); got != c.want {
			t.Errorf("%v: %q, want %q", c.d, got, c.want)
		}
	}
}

func TestAgo_SaysBoth(t *testing.T) {
	now := time.Date(2030, 3, 4, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		at   any
		want string
	}{
		{now.Add(-90 * time.Minute), `<time datetime="2030-03-04T10:30:00Z" title="2030-03-04 10:30:00 UTC">1 h 30 min ago</time>`},
		{now.Add(time.Second), `<time datetime="2030-03-04T12:00:01Z" title="2030-03-04 12:00:01 UTC">just now</time>`},
		{time.Time{}, ""},
		{(*time.Time)(nil), ""},
	} {
		if got := string(ago(now, c.at)); got != c.want {
			t.Errorf("%v: %s, want %s", c.at, got, c.want)
		}
	}
}

func TestNum_Groups(t *testing.T) {
	n := uint64(1234567)
	for _, c := range []struct {
		v    any
		want string
	}{{999, "999"}, {1234, "1234"}, {12345, "12\u202f345"}, {&n, "1\u202f234\u202f567"}, {0, "0"}} {
		if got := num(c.v); got != c.want {
			t.Errorf("%v: %q, want %q", c.v, got, c.want)
		}
	}
	for _, c := range []struct {
		v    any
		want string
	}{{int64(-1), "no limit"}, {uint64(100), "100 B"}, {&n, "1.2 MiB"}, {uint64(3) << 40, "3.0 TiB"}} {
		if got := byteText(c.v); got != c.want {
			t.Errorf("%v: %q, want %q", c.v, got, c.want)
		}
	}
}

func TestZoneURL_FindsItsWayBack(t *testing.T) {
	for _, name := range []string{".", "example.com.", `a\/b.example.`, "~.", "xn--bcher-kva.example.", "a%2fb.example."} {
		r := httptest.NewRequest("GET", zoneURL(name)+"/keys", nil)
		segment := strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/zones/"), "/keys")
		if got := zoneArg(segment); got != name {
			t.Errorf("%q comes back as %q", name, got)
		}
	}
}

func FuzzHint(f *testing.F) {
	f.Add("correct it, then: sluice zone reload example.com.; or sluice help")
	f.Add("sluice <script>alert(1)</script>")
	f.Fuzz(func(t *testing.T, text string) {
		out := string(hint(text))
		z := html.NewTokenizer(strings.NewReader(out))
		for z.Next() != html.ErrorToken {
			tok := z.Token()
			if tok.Type != html.TextToken && (tok.Data != "code" || len(tok.Attr) > 0) {
				t.Fatalf("%q gives %q", text, out)
			}
		}
	})
}

// The overview's size is bounded however many zones there are, and what is
// worst comes first.
func TestOverview_StaysSmall(t *testing.T) {
	now := time.Date(2030, 3, 4, 12, 0, 0, 0, time.UTC)
	zones, how := manyZones(10000, now), pipeline.Overview{Time: now}
	page := func(path string) overviewPage { return overviewOf(httptest.NewRequest("GET", path, nil), zones, how) }
	p := page("/?page=3&sort=expiry")
	if len(p.Rows) != zonesOnPage || p.Pages.Last != 200 || p.Pages.Page != 3 || p.Matching != 10000 {
		t.Errorf("%d rows, page %d of %d", len(p.Rows), p.Pages.Page, p.Pages.Last)
	}
	for i, row := range p.Soonest[1:] {
		if row.NextExpiry.Before(*p.Soonest[i].NextExpiry) {
			t.Errorf("%s before %s", p.Soonest[i].Name, row.Name)
		}
	}
	if p.Rows[0].NextExpiry.Before(*p.Soonest[0].NextExpiry) {
		t.Error("the third page begins with what ends first")
	}
	if size := len(overviewHTML(t, p, now)); size > 128<<10 {
		t.Errorf("a page of %d bytes", size)
	}
	if q := page("/?q=zone-00042&page=9999999999"); q.Matching != 1 || len(q.Rows) != 1 || q.Pages.Page != 1 {
		t.Errorf("%d match, page %d", q.Matching, q.Pages.Page)
	}
	for path, want := range map[string]int{"/?state=alarm": 1000, "/?state=waiting": 1000, "/?state=ok": 8000, "/?code=sign-failed": 1000, "/?code=held": 0} {
		if q := page(path); q.Matching != want {
			t.Errorf("%s: %d, want %d", path, q.Matching, want)
		}
	}
}

// overviewHTML is the whole page of an overview.
func overviewHTML(t *testing.T, p overviewPage, now time.Time) string {
	t.Helper()
	files, err := readAssets()
	if err != nil {
		t.Fatal(err)
	}
	templates, err := readPages(files)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := templates["overview"].ExecuteTemplate(&b, "layout.html", shell{Title: "Zones", Now: now, Body: p}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Each need leads to where something can be done about it.
func TestNeed_LeadsToWhatCanBeDone(t *testing.T) {
	need := func(zone string, count int, severity string, code pipeline.NoticeCode) string {
		n := needOf(pipeline.Need{Zone: zone, Count: count, Notice: pipeline.Notice{Severity: severity, Code: code}})
		return string(n.Group) + " " + n.Link
	}
	for _, c := range []struct{ got, want string }{
		{need("", 0, severityAlarm, pipeline.NoticeClockDoubted), "alarm /system"},
		{need("a.example.", 1, severityWarning, pipeline.NoticeReviewWaits), "waiting /zones/a.example.#reviews"},
		{need("a.example.", 1, severityAlarm, pipeline.NoticeReviewHalted), "alarm /zones/a.example.#reviews"},
		{need("a.example.", 1, severityWarning, pipeline.NoticeDSMismatch), "warning /zones/a.example./keys"},
		{need("a.example.", 1, severityWarning, pipeline.NoticeLoadFailed), "warning /zones/a.example."},
		{need("a.example.", 7, severityWarning, pipeline.NoticeLoadFailed), "warning /?code=load-failed#zones"},
	} {
		if c.got != c.want {
			t.Errorf("%s, want %s", c.got, c.want)
		}
	}
}

func manyZones(n int, now time.Time) []pipeline.ZoneSummary {
	var zones []pipeline.ZoneSummary
	for i := range n {
		serial := uint32(i)
		expiry := now.Add(time.Duration((i*7919)%n) * time.Hour)
		z := pipeline.ZoneSummary{
			Name: fmt.Sprintf("zone-%05d.example.", i), State: "published", Policy: "default",
			LoadedSerial: &serial, PublishedSerial: &serial, NextExpiry: &expiry,
		}
		switch i % 10 {
		case 0:
			z.Notices = []pipeline.Notice{{Severity: severityInfo, Text: "by the way"}, {Severity: severityAlarm, Code: pipeline.NoticeSignFailed, Text: "signing failed"}, {Severity: severityAlarm, Code: pipeline.NoticeClockDoubted, Text: "of all"}}
		case 1:
			z.State = "published, in review"
		case 2:
			z.Notices = []pipeline.Notice{{Severity: severityAlarm, Code: pipeline.NoticeClockDoubted, Text: "of all"}}
		}
		zones = append(zones, z)
	}
	return zones
}

// BenchmarkOverviewPage makes the overview of 1,000 zones that are published,
// from the browser's request to the end of the answer.
func BenchmarkOverviewPage(b *testing.B) {
	r := newRig(b, "")
	path := r.write(b, "zone", 1, "")
	const zones = 1000
	for i := range zones {
		if _, err := r.admin.AddZone(b.Context(), pipeline.NewZone{Name: fmt.Sprintf("z%d.example.", i), Source: path}); err != nil {
			b.Fatal(err)
		}
	}
	for i := range zones {
		r.rest(b, fmt.Sprintf("z%d.example.", i))
	}
	user := r.login(b, "viewer-token")
	b.ReportAllocs()
	before := cpuTime(b)
	for b.Loop() {
		if a := user.get("/"); a.status != http.StatusOK || !strings.Contains(a.body, "1000 zones") {
			b.Fatalf("%d: %.200s", a.status, a.body)
		}
	}
	// On a machine with other work this says more than the time that passed.
	b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/1000/float64(b.N), "cpu-ms/op")
}

// cpuTime is what this process has used, the browser's side too.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func TestTimeline_DrawsLivesInOrder(t *testing.T) {
	now := time.Date(2030, 3, 4, 12, 0, 0, 0, time.UTC)
	day := 24 * time.Hour
	k := keymgr.Key{
		State: keymgr.Retired, Published: now.Add(-90 * day), Activated: now.Add(-80 * day), Retired: now.Add(-10 * day),
	}
	k.Role, k.Tag = "zsk", 4711
	plan := []pipeline.PlannedStep{
		{Kind: keymgr.RollZSK, Text: "a rollover begins", Earliest: now.Add(5 * day)},
		{Kind: keymgr.RollZSK, Text: "publish", Earliest: now.Add(5 * day), Person: true},
	}
	line := timelineOf([]keyRow{{Key: k}}, plan, now)
	if len(line.Rows) != 2 || len(line.Rows[0].Bars) != 4 || len(line.Rows[1].Marks) != 2 {
		t.Fatalf("%+v", line.Rows)
	}
	classes := []string{"waits", "signs", "leaves", "ahead"}
	for i, bar := range line.Rows[0].Bars {
		if bar.Class != classes[i] || bar.W <= 0 || bar.X < lineGutter || bar.X+bar.W > lineWidth {
			t.Errorf("bar %d: %+v", i, bar)
		}
		if i > 0 && bar.X < line.Rows[0].Bars[i-1].X {
			t.Errorf("bar %d begins before the one before it", i)
		}
	}
	marks := line.Rows[1].Marks
	if marks[0].X <= line.NowX || marks[1].X-marks[0].X < 18 || !marks[1].Person || marks[1].N != 2 {
		t.Errorf("now %d, marks %+v", line.NowX, marks)
	}
	if len(line.Ticks) < 3 || len(line.Ticks) > 14 {
		t.Errorf("%d ticks", len(line.Ticks))
	}
}

func TestStages_ShowWhereItStands(t *testing.T) {
	at := time.Date(2030, 3, 4, 12, 0, 0, 0, time.UTC)
	old, now, next := uint32(6), uint32(7), uint32(8)
	z := pipeline.ZoneStatus{ZoneSummary: pipeline.ZoneSummary{Source: "/etc/zones/example"}}
	z.Loaded = &pipeline.InstanceSummary{Instance: "l9", Serial: 8, Time: at, Records: 1200}
	z.Signed = &pipeline.InstanceSummary{Instance: "s5", Serial: 7, Time: at, Signatures: 5}
	z.Published = z.Signed
	z.Reviews = []pipeline.ReviewStatus{{Stage: stageLoaded, Instance: "l9", Serial: 8, State: "pending", Since: at, WaitsFor: "the verdict of a person"}}
	z.Stages = []pipeline.StageStatus{
		{Stage: "source", State: "done", Serial: &next, Text: z.Source},
		{Stage: "load", State: "done", Serial: &next},
		{Stage: "review-loaded", State: "waiting", Serial: &next, Text: "the verdict of a person"},
		{Stage: "sign", State: "done", Serial: &now},
		{Stage: "review-signed", State: "off"},
		{Stage: "publish", State: "done", Serial: &now},
		{Stage: "secondaries", State: "failed", Serial: &old, Text: "1 of 2 know it"},
	}
	drawn := func() string {
		var got []string
		for _, s := range stagesOf(z) {
			got = append(got, fmt.Sprintf("%s %s %s %t", s.Name, s.State, s.Word, s.Flows))
		}
		return strings.Join(got, "|")
	}
	want := "Source ok file true|Load ok loaded true|Review wait waits false|Sign ok signed true|" +
		"Review idle none is asked for true|Publish ok served true|Secondaries alarm 1 of 2 know it true"
	if got := drawn(); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if lines := stagesOf(z)[2].Lines; strings.Join(lines, "|") != "serial 8|l9|the verdict of a person" {
		t.Errorf("the review: %q", lines)
	}
	// Every state of every stage has a word and a sign.
	for i := range z.Stages {
		for _, state := range []string{"done", "busy", "waiting", "failed", "off", "none"} {
			z.Stages[i].State = state
			z.State = "signing"
			if s := stagesOf(z)[i]; s.Word == "" || s.Icon() == "" {
				t.Errorf("%s, %s: %+v", z.Stages[i].Stage, state, s)
			}
		}
	}
	z.Source, z.Held, z.Stages[0].State = "update:ns1.example.", &pipeline.HoldStatus{}, "off"
	if s := stagesOf(z)[0]; s.Word != "not followed" || len(s.Lines) != 0 {
		t.Errorf("the source of a zone that is held: %+v", s)
	}
}

func TestFacts_TellWhatItWaitsForAndWhatComes(t *testing.T) {
	at := time.Date(2030, 3, 4, 12, 0, 0, 0, time.UTC)
	z := pipeline.ZoneStatus{ZoneSummary: pipeline.ZoneSummary{Name: "dyn.example."}, WaitsFor: "new input", Since: &at}
	for i := range 6 {
		z.Coming = append(z.Coming, pipeline.Coming{At: at, Text: fmt.Sprintf("thing %d", i)})
	}
	z.Updates = &pipeline.UpdatesStatus{Taken: 3, Waiting: 1, LastAt: &at, LastKey: "upd."}
	z.Member = &pipeline.MembershipStatus{Catalog: "cat.example.", Group: "dense"}
	z.Probe = &pipeline.ProbeStatus{Text: "2 of 2 resolvers validate it", At: &at}
	z.LastError = "loading failed: no such file"
	told := func() string {
		var out []string
		for _, f := range factsOf(z) {
			out = append(out, f.Name+": "+f.Text)
		}
		return strings.Join(out, "|")
	}
	want := "Waits for: new input|Next: thing 0|Then: thing 1|Then: thing 2|Then: thing 3|" +
		`Catalog: cat.example. lists it in group "dense"|Updates: 3 taken since the source was read, 1 wait; the last by key upd.|` +
		"Resolvers: 2 of 2 resolvers validate it|Last error: loading failed: no such file"
	if got := told(); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	z = pipeline.ZoneStatus{ZoneSummary: pipeline.ZoneSummary{Name: "cat.example.", Notices: []pipeline.Notice{{Text: "no such file"}}}, Since: &at, LastError: "no such file", Catalog: "produced"}
	if got := told(); got != "Catalog: it is one, produced: sluice catalog show cat.example." {
		t.Errorf("a catalog: %s", got)
	}
}

func TestProposal_LeadsToWhereAnotherAgrees(t *testing.T) {
	z := pipeline.ZoneStatus{ZoneSummary: pipeline.ZoneSummary{Name: "example.com."}, Reviews: []pipeline.ReviewStatus{{Instance: "l3", State: "pending"}, {Instance: "s4", State: "halted"}}}
	for _, c := range []struct {
		action, instance, role string
		below                  bool
		plan                   string
	}{
		{event.ProposeApprove, "l3", "reviewer", true, ""},
		{event.ProposeApprove, "l2", "reviewer", false, ""},
		{event.ProposeOverride, "l3", "operator", false, ""}, // the page overrides halts alone
		{event.ProposeOverride, "s4", "operator", true, ""},
		{event.ProposeRollback, "l1", "operator", false, "/zones/example.com./rollback?to=l1"},
		{event.ProposePolicy, "", "operator", false, ""},
	} {
		got := viewProposal(z, pipeline.ProposalStatus{Action: c.action, Instance: c.instance})
		if got.Role != c.role || got.Below != c.below || got.Plan != c.plan {
			t.Errorf("%s %s: %+v", c.action, c.instance, got)
		}
	}
}

// A record of any length takes little room, and what is left out is said.
func TestShortened_SaysWhatIsLeftOut(t *testing.T) {
	long := "big.example. 3600 IN TXT " + strings.Repeat("ä", 100_000)
	got := shortened(pipeline.DiffLine{Record: long}).Record
	if len(got) > maxRecord+100 || !strings.HasPrefix(got, "big.example. 3600 IN TXT ää") || !strings.Contains(got, "195\u202f929 more bytes are left out") {
		t.Errorf("%d bytes: … %s", len(got), got[max(0, len(got)-80):])
	}
	if short := "a. 1 IN A 192.0.2.1"; shortened(pipeline.DiffLine{Record: short}).Record != short {
		t.Error("a short one is changed")
	}
}
