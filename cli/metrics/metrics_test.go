package metrics

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/pipeline"
	"sluice/pipeline/store"
	"sluice/xfr"
)

// now is when everything is measured.
func now() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

// everything is a measurement that has something of all there is.
func everything() pipeline.Measurement {
	at := func(d time.Duration) *time.Time { t := now().Add(d); return &t }
	count := func(kind, outcome string) []pipeline.Count {
		return []pipeline.Count{{Kind: kind, Outcome: outcome, N: 3, Seconds: 1.5}}
	}
	times := pipeline.Histogram{Count: 2, Sum: 0.5, Buckets: map[float64]uint64{0.1: 1, 1: 2}}
	stream := journal.StreamStatus{Messages: 7, Bytes: 700, MaxBytes: 1000, LastSeq: 7}
	return pipeline.Measurement{
		Clock: pipeline.ClockStatus{Now: now(), Trusted: true}, Ready: true, Stale: now().Add(-time.Minute), Version: "1.0",
		Counts: pipeline.Counts{
			Loads: count("file", "loaded"), Signings: count("sign", "signed"), Verifications: count("", "passed"), Hooks: count("review", "ok"),
			Appends: count("", "stored"), Events: count("instance.signed", ""), Probes: count("192.0.2.1:53", "validated"), Made: 40,
			AppendTime: times, Keystores: []pipeline.KeystoreTime{{Keystore: "hsm", Operation: "sign", Time: times, Errors: 1}},
		},
		Client:  xfr.ClientStats{AXFR: xfr.Taken{Whole: 1, Bytes: 100}},
		Journal: &pipeline.JournalMeasure{Events: stream, Bulk: stream}, Written: &journal.Stats{EventBytes: 5, ChunkBytes: 6}, Folded: 5,
		Store: store.Metrics{Disk: 1 << 20}, Reserve: &pipeline.ReserveStatus{Bytes: 1, Wanted: 2},
		Workers:   pipeline.WorkersMeasure{Alive: 2, Held: map[pipeline.Role]int{pipeline.RoleSign: 64}, Unheld: map[pipeline.Role]int{pipeline.RoleLoad: 1}},
		Keystores: []pipeline.KeystoreMeasure{{Name: "hsm", Up: true}},
		Catalogs:  []pipeline.CatalogMeasure{{Name: "catalog.", Kind: "consumed", Members: 7, Removals: 2, Waiting: 1, Held: true}},
		Zones:     []pipeline.ZoneMeasure{busyZone(at), {ZoneStatus: pipeline.ZoneStatus{ZoneSummary: pipeline.ZoneSummary{Name: "new.example."}}, Stage: pipeline.StageNew}},
	}
}

// busyZone is a zone that has something of all there is of zones.
func busyZone(at func(time.Duration) *time.Time) pipeline.ZoneMeasure {
	serial := uint32(99)
	instance := &pipeline.InstanceSummary{Serial: 100, Time: *at(-time.Hour), Records: 10, Signatures: 5, DurationMS: 1500}
	z := pipeline.ZoneMeasure{
		ZoneStatus: pipeline.ZoneStatus{
			ZoneSummary: pipeline.ZoneSummary{
				Name: "example.", Policy: "default", Mode: pipeline.ModeSign, NextExpiry: at(24 * time.Hour),
				Notices: []pipeline.Notice{{Severity: "alarm", Code: pipeline.NoticeExpiryNear}, {Severity: "warning"}},
			},
			Since: at(-time.Minute), Loaded: instance, Signed: instance, Published: instance,
			Upstream:    &pipeline.UpstreamStatus{Serial: &serial},
			Secondaries: []pipeline.SecondaryStatus{{Serial: &serial, Telling: &serial}, {Serial: &serial}},
			Reviews:     []pipeline.ReviewStatus{{Stage: "loaded", State: "pending", Since: *at(-time.Hour)}},
			Keys: []keymgr.Key{
				{Key: event.Key{Role: "ksk"}, State: keymgr.Active}, {Key: event.Key{Role: "ksk"}, State: keymgr.Active}, {Key: event.Key{Role: "zsk"}, State: keymgr.Removed},
			},
			Rollovers: []pipeline.RolloverStatus{{
				ID: 12, Kind: keymgr.RollKSK, Step: 2, Steps: 5, Phase: keymgr.PhaseWait, Since: *at(-time.Hour), Until: at(time.Hour),
			}},
			Probe: &pipeline.ProbeStatus{At: at(-time.Minute), Answers: []pipeline.ProbeAnswer{
				{Resolver: "192.0.2.1:53", Outcome: pipeline.ProbeBogus}, {Resolver: "192.0.2.1:53", Outcome: pipeline.ProbeValidated},
			}},
		},
		Stage: pipeline.StageReview, Due: *at(-time.Hour), Alarm: *at(-time.Minute), LoadFailed: *at(-time.Hour), SignFailed: *at(-time.Hour),
		DS: pipeline.DSMeasure{Told: true, Known: true, Since: *at(-time.Hour)}, Late: []time.Time{*at(-time.Minute)},
	}
	z.Observation = &pipeline.ObservationStatus{Observation: keymgr.Observation{At: *at(-time.Minute), Zone: []keymgr.Seen{
		{Address: netip.MustParseAddrPort("192.0.2.1:53"), Serial: 100},
		{Address: netip.MustParseAddrPort("192.0.2.2:53"), Serial: 98},
		{Address: netip.MustParseAddrPort("192.0.2.3:53"), Error: "no answer in time"},
	}}}
	return z
}

func measured(m pipeline.Measurement, zones string) *Metrics {
	return New(Config{
		Measure: func(context.Context) pipeline.Measurement { return m }, Zones: zones,
		Published: func() xfr.Stats { return xfr.Stats{IXFR: xfr.Sent{Whole: 2, Bytes: 50}} },
	})
}

// scrapeOf is what a scrape shows.
func scrapeOf(t *testing.T, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

// namesIn are the families of a scrape.
func namesIn(text string) map[string]bool {
	out := map[string]bool{}
	for _, match := range regexp.MustCompile(`(?m)^# TYPE (\S+)`).FindAllStringSubmatch(text, -1) {
		out[match[1]] = true
	}
	return out
}

// ours are the names that begin with our prefix.
func ours(names map[string]bool) []string {
	var out []string
	for name := range names {
		if strings.HasPrefix(name, prefix) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// exposed is a scrape of everything, after a request to the API.
func exposed(t *testing.T) string {
	t.Helper()
	m := measured(everything(), ZonesAll)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/zones/{zone}", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") })
	m.Instrument(mux).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/api/v1/zones/example", http.NoBody))
	return scrapeOf(t, m)
}

func TestScrape_HasEveryFamilyAndNoMore(t *testing.T) {
	want := []string{prefix + "api_requests_total", prefix + "api_request_seconds"}
	for _, f := range slices.Concat(zoneFamilies(), fleetFamilies(), processFamilies()) {
		want = append(want, prefix+f.name)
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, ours(namesIn(exposed(t)))); diff != "" {
		t.Errorf("-in the table, +exposed:\n%s", diff)
	}
}

func TestScrape_IsAsPrometheusLikesIt(t *testing.T) {
	problems, err := promlint.New(strings.NewReader(exposed(t))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, prefix) {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

func TestScrape_Values(t *testing.T) {
	text := exposed(t)
	for _, want := range []string{
		`sluice_zone_info{mode="sign",policy="default",zone="example."} 1`,
		`sluice_zone_stage{stage="review",zone="example."} 1`,
		`sluice_zone_serial{stage="published",zone="example."} 100`,
		`sluice_zone_serial{stage="upstream",zone="example."} 99`,
		`sluice_zone_servers{state="behind",zone="example."} 1`,
		`sluice_zone_servers{state="current",zone="example."} 1`,
		`sluice_zone_servers{state="silent",zone="example."} 1`,
		`sluice_zone_server_oldest_serial{server="192.0.2.2:53",zone="example."} 98`,
		`sluice_zone_secondaries_unaware{zone="example."} 1`,
		`sluice_catalog_members{catalog="catalog.",state="listed"} 5`,
		`sluice_catalog_members{catalog="catalog.",state="unlisted"} 2`,
		`sluice_catalog_held{catalog="catalog."} 1`,
		`sluice_zone_keys{role="ksk",state="active",zone="example."} 2`,
		`sluice_zone_sign_duration_seconds{zone="example."} 1.5`,
		`sluice_zone_ds_in_step{zone="example."} 0`,
		`sluice_zone_notices{severity="info",zone="example."} 0`,
		`sluice_zone_probe_result{resolver="192.0.2.1:53",result="bogus",zone="example."} 1`,
		`sluice_zone_rollover_phase{kind="ksk",phase="wait",rollover="12",zone="example."} 1`,
		`sluice_zones{stage="review"} 1`,
		`sluice_zones_by_notice{code="expiry-near",severity="alarm"} 1`,
		`sluice_zones{stage="halted"} 0`,
		`sluice_zones_signatures_overdue{urgency="alarm"} 1`,
		`sluice_zones_signatures_overdue{urgency="expired"} 0`,
		`sluice_zones_probed{result="bogus"} 1`,
		`sluice_rollovers_late 1`,
		`sluice_zones_ds_out_of_step 1`,
		`sluice_projection_lag_events 2`,
		`sluice_events_total{type="instance.signed"} 3`,
		`sluice_loads_total{result="failed",source="transfer"} 0`,
		`sluice_journal_append_seconds_bucket{le="0.1"} 1`,
		`sluice_transfers_out_total{kind="ixfr",result="whole"} 2`,
		`sluice_api_requests_total{method="GET",route="/api/v1/zones/{zone}",status="200"} 1`,
	} {
		if !strings.Contains(text, "\n"+want+"\n") {
			t.Errorf("%s is missing", want)
		}
	}
	if strings.Contains(text, `state="removed"`) || strings.Contains(text, `sluice_zone_signature_expiry_timestamp_seconds{zone="new.example."}`) {
		t.Error("the scrape tells of what there is not")
	}
}

func TestZonesNone_LeavesTheSums(t *testing.T) {
	text := scrapeOf(t, measured(everything(), ZonesNone))
	names := namesIn(text)
	for _, f := range zoneFamilies() {
		if names[prefix+f.name] {
			t.Errorf("%s is there", f.name)
		}
	}
	for _, f := range fleetFamilies() {
		if !names[prefix+f.name] {
			t.Errorf("%s is missing", f.name)
		}
	}
	if !strings.Contains(text, `sluice_signature_expiry_min_timestamp_seconds{zone="example."}`) {
		t.Error("the zone whose signatures expire first is not named")
	}
}

func TestZonesAuto_TellsOfManyZonesThoseInTrouble(t *testing.T) {
	now := everything()
	bad := now.Zones[0]
	if troubleOf(&bad, now.Clock.Now) != alarming {
		t.Fatal("the zone is well")
	}
	fine := pipeline.ZoneMeasure{Stage: pipeline.StagePublished}
	late := fine
	late.Due = now.Clock.Now.Add(-time.Second)
	now.Zones = nil
	for i := range 10 {
		z := fine
		switch i {
		case 3, 4:
			z = late
		case 7:
			z = bad
		}
		z.Name = fmt.Sprintf("z%d.example.", i)
		now.Zones = append(now.Zones, z)
	}
	for _, c := range []struct {
		zones string
		limit int
		want  []string
	}{
		{ZonesAuto, 10, []string{"z0", "z1", "z2", "z3", "z4", "z5", "z6", "z7", "z8", "z9"}},
		{ZonesAuto, 9, []string{"z3", "z4", "z7"}},
		{ZonesAuto, 2, []string{"z3", "z7"}},
		{ZonesAuto, 1, []string{"z7"}},
		{ZonesNone, 10, nil},
	} {
		m := measured(now, ZonesAll)
		m.SetZones(c.zones, c.limit)
		text := scrapeOf(t, m)
		var got []string
		for _, match := range regexp.MustCompile(`(?m)^sluice_zone_stage\{stage="[a-z]+",zone="(z\d)\.`).FindAllStringSubmatch(text, -1) {
			got = append(got, match[1])
		}
		slices.Sort(got)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s with %d: zones %v, want %v", c.zones, c.limit, got, c.want)
		}
		if want := fmt.Sprintf("sluice_zones_untold %d\n", 10-len(c.want)); !strings.Contains(text, want) {
			t.Errorf("%s with %d: %q is missing", c.zones, c.limit, want)
		}
	}
}

func TestInstrument_CallersMakeNoSeries(t *testing.T) {
	m := measured(pipeline.Measurement{}, ZonesAll)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/v1/zones", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusConflict)
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
	})
	h := m.Instrument(mux)
	for _, r := range []struct{ method, path string }{{"POST", "/api/v1/zones"}, {"GET", "/one"}, {"BREW", "/two"}} {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(r.method, r.path, http.NoBody))
	}
	text := scrapeOf(t, m)
	for _, want := range []string{
		`sluice_api_requests_total{method="POST",route="/api/v1/zones",status="409"} 1`,
		`sluice_api_requests_total{method="none",route="none",status="404"} 2`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is missing", want)
		}
	}
}

// The page tells each metric with its kind, labels and text.
func TestPage_HasEveryMetric(t *testing.T) {
	page, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	kinds := map[bool]string{true: "counter", false: "gauge"}
	for _, f := range slices.Concat(zoneFamilies(), fleetFamilies(), processFamilies()) {
		kind := kinds[f.kind == counter]
		if f.kind == histo {
			kind = "histogram"
		}
		want = append(want, fmt.Sprintf("| `%s%s` | %s | %s | %s |", prefix, f.name, kind, strings.Join(f.labels, ", "), f.help))
	}
	for line := range strings.Lines(string(page)) {
		if strings.HasPrefix(line, "| `"+prefix) && !strings.HasPrefix(line, "| `"+prefix+"api_") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-code, +page:\n%s", diff)
	}
	for name := range namesIn(exposed(t)) {
		if strings.HasPrefix(name, prefix) && !strings.Contains(string(page), "`"+name+"`") {
			t.Errorf("%s is not on the page", name)
		}
	}
	for _, match := range regexp.MustCompile(`record: (\S+)`).FindAllStringSubmatch(Rules(), -1) {
		if !strings.Contains(string(page), "`"+match[1]+"`") {
			t.Errorf("recording rule %s is not on the page", match[1])
		}
	}
}

// metricNames finds the names of metrics in an expression.
func metricNames(text string) []string {
	return regexp.MustCompile(`\b(?:sluice_|process_|go_)[a-z0-9_]+\b`).FindAllString(text, -1)
}

// exists reports whether a scrape has a metric of that name.
func exists(names map[string]bool, name string) bool {
	return names[name] || names[strings.TrimSuffix(name, "_bucket")]
}

func TestRulesAndDashboard_NameMetricsThatExist(t *testing.T) {
	names := namesIn(exposed(t))
	if runtimeNames := names["go_goroutines"] && names["process_resident_memory_bytes"]; !runtimeNames {
		t.Fatal("the runtime's metrics are missing")
	}
	for _, file := range []string{Rules(), Dashboard()} {
		found := metricNames(file)
		if len(found) < 30 {
			t.Fatalf("only %d metrics were found", len(found))
		}
		for _, name := range found {
			if !exists(names, name) {
				t.Errorf("%s does not exist", name)
			}
		}
	}
}

func TestDashboard_IsOneForGrafana(t *testing.T) {
	var d struct {
		SchemaVersion int
		Panels        []struct {
			ID      int
			Type    string
			Title   string
			GridPos struct{ H, W, X, Y int }
			Targets []struct{ Expr string }
		}
		Templating struct{ List []struct{ Name, Type string } }
	}
	if err := json.Unmarshal([]byte(Dashboard()), &d); err != nil {
		t.Fatal(err)
	}
	ids, rows := map[int]bool{}, []string{}
	taken := map[[2]int]string{}
	for _, p := range d.Panels {
		if ids[p.ID] {
			t.Errorf("id %d is there twice", p.ID)
		}
		ids[p.ID] = true
		if p.Type == "row" {
			rows = append(rows, p.Title)
			continue
		}
		if len(p.Targets) == 0 || p.Title == "" {
			t.Errorf("panel %q shows nothing", p.Title)
		}
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("panel %q stands on %q, or outside", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
	if diff := cmp.Diff([]string{"Fleet", "Zone", "Keys", "Journal", "Process"}, rows); diff != "" {
		t.Error(diff)
	}
	variables := map[string]string{}
	for _, v := range d.Templating.List {
		variables[v.Name] = v.Type
	}
	if !maps.Equal(variables, map[string]string{"datasource": "datasource", "job": "query", "instance": "query", "zone": "query"}) {
		t.Errorf("variables %v", variables)
	}
}

func BenchmarkScrape(b *testing.B) {
	m := everything()
	for i := range 1000 {
		z := m.Zones[0]
		z.Name = fmt.Sprintf("zone%d.example.", i)
		m.Zones = append(m.Zones, z)
	}
	h := measured(m, ZonesAll).Handler()
	for b.Loop() {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	}
}
