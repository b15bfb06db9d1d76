package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestReload_TakesEffectAtOnce is what the manual says of `sluice reload`: what
// it lists holds at once, and the rest is named.
func TestReload_TakesEffectAtOnce(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "", exampleZone())
	d.awaitServed(t, example)
	d.stop()
	config, at := filepath.Join(filepath.Dir(d.data), "config.toml"), freeAddr(t)
	first := fmt.Sprintf("version = \"v1\"\n[http]\nservers = [%q]\n", at)
	writeFile(t, config, first)
	d.flags = append(d.flags, "--config", config)
	d.start(t)
	d.awaitServed(t, example)
	scrape := func() int {
		t.Helper()
		r, err := http.Get("http://" + at + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		return r.StatusCode
	}
	d.awaitHealthy(t)
	const series = `sluice_zone_stage{stage="published",zone="example.com."} 1`
	if text, status := d.metrics(t), scrape(); !strings.Contains(text, series) || status != http.StatusUnauthorized {
		t.Fatalf("metrics for everybody: %d; of the zone: %v", status, strings.Contains(text, series))
	}

	silent := freeAddr(t)
	writeFile(t, config, first+fmt.Sprintf(`metrics-from = ["127.0.0.1"]
[http.limits]
requests = 7
failures = 1
connections = 50
[metrics]
zones = "none"
[prober]
resolvers = [%q]
[audit]
seal = ["reason"]
interval = "2h"
[daemon]
workers = 3
`, silent))
	var done struct {
		Changed []string `json:"changed"`
		Restart []string `json:"restart_needed"`
	}
	if err := json.Unmarshal([]byte(d.must(t, "--json", "reload")), &done); err != nil {
		t.Fatal(err)
	}
	want := []string{"audit.seal", "http.limits.connections", "http.limits.failures", "http.limits.requests", "http.metrics-from", "metrics.zones", "prober.resolvers"}
	if !slices.Equal(done.Changed, want) || !slices.Equal(done.Restart, []string{"audit.interval", "daemon.workers"}) {
		t.Errorf("in effect: %v; with the next start: %v", done.Changed, done.Restart)
	}
	if text, status := d.metrics(t), scrape(); strings.Contains(text, "sluice_zone_stage{") || status != http.StatusOK {
		t.Errorf("metrics: status %d; of zones: %v", status, strings.Contains(text, "sluice_zone_stage{"))
	}
	await(t, "resolvers are told of", 10*time.Second, func() (bool, string) {
		text := d.must(t, "zone", "status", example)
		return strings.Contains(text, "resolvers"), text
	})
	again := filepath.Join(filepath.Dir(d.data), "again.zone")
	writeFile(t, again, readFile(t, testdata("example.com.zone")))
	writeFile(t, filepath.Join(filepath.Dir(again), "example.com.hosts"), readFile(t, testdata("example.com.hosts")))
	d.must(t, "zone", "set", example, "--source", again, "--reason", "nobody else's business")
	if text := d.must(t, "--json", "zone", "history", example, "--type", "zone.changed"); !strings.Contains(text, `"sealed":{"facts.reason"`) {
		t.Errorf("the reason is not sealed: %s", text)
	}
	tries := 0
	for status := 0; status != http.StatusTooManyRequests; tries++ {
		r, err := http.Get("http://" + at + "/api/v1/zones")
		if err != nil || tries > 5 {
			t.Fatalf("after %d tries without a token: status %d, %v", tries, status, err)
		}
		r.Body.Close()
		status = r.StatusCode
	}

	writeFile(t, config, first)
	d.must(t, "reload")
	if text, status := d.metrics(t), scrape(); !strings.Contains(text, series) || status == http.StatusOK {
		t.Errorf("after the way back: status %d; of the zone: %v", status, strings.Contains(text, series))
	}
}
