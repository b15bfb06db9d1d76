package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// rulesFile writes the rules that the program prints.
func rulesFile(t *testing.T, dir string) string {
	t.Helper()
	return writeFile(t, filepath.Join(dir, "sluice.rules.yml"), must(t, program(t), "template", "prometheus-rules"))
}

// Prometheus takes the rules, and each alert fires for what is wrong and for
// nothing else.
func TestPrometheus_RulesFireForWhatIsWrong(t *testing.T) {
	need(t, "promtool")
	t.Parallel()
	dir := t.TempDir()
	rules := rulesFile(t, dir)
	must(t, "promtool", "check", "rules", "--lint=all", "--lint-fatal", rules)
	tests := ""
	for _, name := range []string{"rules_test.yml", "rules_days_test.yml"} {
		text := readFile(t, filepath.Join("testdata", "prometheus", name))
		must(t, "promtool", "test", "rules", writeFile(t, filepath.Join(dir, name), text))
		tests += text
	}
	alerts := regexp.MustCompile(`alert: (\S+)`).FindAllStringSubmatch(readFile(t, rules), -1)
	if len(alerts) < 20 {
		t.Fatalf("only %d alerts were found", len(alerts))
	}
	for _, alert := range alerts {
		if !strings.Contains(tests, "- name: "+alert[1]+"\n") {
			t.Errorf("alert %s has no test", alert[1])
		}
	}
}

// What the alerts say to type exists, and so do the pages that they name.
func TestPrometheus_AlertsNameCommandsThatExist(t *testing.T) {
	t.Parallel()
	rules := must(t, program(t), "template", "prometheus-rules")
	seen := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?:Type|type|then|and|with|or|what it prints):? sluice ((?:[a-z]+ ?){1,2})`).FindAllStringSubmatch(rules, -1) {
		seen[strings.TrimSpace(m[1])] = true
	}
	for _, m := range regexp.MustCompile(`runbook: sluice (help \S+)`).FindAllStringSubmatch(rules, -1) {
		seen[m[1]] = true
	}
	if len(seen) < 15 {
		t.Fatalf("only %d commands were found: %v", len(seen), seen)
	}
	for words := range seen {
		args := append(strings.Fields(words), "--help")
		if strings.HasPrefix(words, "help ") {
			args = strings.Fields(words)
		}
		if r := run(t, program(t), args...); r.code != 0 {
			// The second word may be one of the sentence.
			if r := run(t, program(t), args[0], "--help"); r.code != 0 || len(args) < 3 || strings.Contains(r.stdout, "COMMAND") {
				t.Errorf("sluice %s: %v", words, r)
			}
		}
	}
}

// metricsClient reaches a daemon's socket.
func (d *daemon) metricsClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(d.data, "sluice.sock"))
		},
		DisableKeepAlives: true,
	}}
}

// metrics scrapes a daemon.
func (d *daemon) metrics(t *testing.T) string {
	t.Helper()
	r, err := d.metricsClient().Get("http://daemon/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v:\n%s", r.Status, err, text)
	}
	return string(text)
}

// prometheus is a running Prometheus.
type prometheus struct{ url string }

// startPrometheus starts one that scrapes the daemon's API on the network every
// second, with a token and the daemon's own certificate, and loads the rules.
func startPrometheus(t *testing.T, d *daemon, at string) prometheus {
	t.Helper()
	dir, addr := shortDir(t), freeAddr(t)
	rulesFile(t, dir)
	d.must(t, "token", "add", "prometheus", "--role", "viewer", "-o", filepath.Join(dir, "token"))
	config := writeFile(t, filepath.Join(dir, "prometheus.yml"), fmt.Sprintf(`
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [sluice.rules.yml]
scrape_configs:
  - job_name: sluice
    scheme: https
    authorization: {credentials_file: token}
    tls_config: {ca_file: %q}
    static_configs: [{targets: [%q]}]
`, filepath.Join(d.data, "keys", "http", "cert.pem"), at))
	must(t, "promtool", "check", "config", config)
	start(t, "prometheus", "prometheus", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+addr)
	return prometheus{"http://" + addr}
}

// query asks for the values of an expression, by the label zone, "" without it.
func (p prometheus) query(expr string) (map[string]string, error) {
	r, err := http.Get(p.url + "/api/v1/query?query=" + url.QueryEscape(expr)) //nolint:noctx // the test's own server
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	var answer struct {
		Error string
		Data  struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&answer); err != nil || answer.Error != "" {
		return nil, fmt.Errorf("%s %w", answer.Error, err)
	}
	out := map[string]string{}
	for _, s := range answer.Data.Result {
		out[s.Metric["zone"]] = fmt.Sprint(s.Value[1])
	}
	return out, nil
}

// awaitValue waits until an expression has a value for a zone.
func (p prometheus) awaitValue(t *testing.T, expr, zone, want string, within time.Duration) {
	t.Helper()
	await(t, expr+" is "+want, within, func() (bool, string) {
		got, err := p.query(expr)
		return err == nil && got[zone] == want, fmt.Sprint(got, err)
	})
}

// A real Prometheus scrapes a daemon whose clock runs fast. Its zone waits for a
// serial of the source, as its policy says, until its signatures run out.
func TestPrometheus_AlertsOfSignaturesThatRunOut(t *testing.T) {
	need(t, "prometheus", "promtool")
	t.Parallel()
	d := &daemon{data: filepath.Join(shortDir(t), "data"), addr: freeAddr(t)}
	policies, at := shortDir(t), freeAddr(t)
	writeFile(t, filepath.Join(policies, "default.toml"), "version = \"v1\"\n[signer]\nserial-policy = \"keep-strict\"\n")
	d.flags = []string{"--policy-dir", policies, "--zone", exampleZone(), "--clock", "2026-03-01T00:00:00Z,43200", "--http", at}
	d.start(t)
	serial := d.awaitServed(t, example)
	p := startPrometheus(t, d, at)
	p.awaitValue(t, "up", "", "1", 30*time.Second)
	p.awaitValue(t, `sluice_zone_serial{stage="published"}`, example+".", uintText(serial), 10*time.Second)
	p.awaitValue(t, "sluice_clock_rehearsal", "", "1", 10*time.Second)
	p.awaitValue(t, "sluice:zones_signatures_fresh:ratio", "", "1", 10*time.Second)
	if got, err := p.query("sluice:zone_signature_remaining_seconds > 0"); err != nil || got[example+"."] == "" {
		t.Errorf("time left: %v, %v", got, err)
	}
	for _, alert := range []string{"SluiceSignaturesExpiring", "SluiceSignaturesExpired"} {
		if got, err := p.query(fmt.Sprintf("ALERTS{alertname=%q}", alert)); err != nil || len(got) != 0 {
			t.Errorf("%s at the start: %v, %v", alert, got, err)
		}
	}
	p.awaitValue(t, `ALERTS{alertname="SluiceSignaturesExpiring",alertstate="firing"}`, example+".", "1", 3*time.Minute)
	p.awaitValue(t, `ALERTS{alertname="SluiceSignaturesExpired",alertstate="firing"}`, example+".", "1", 3*time.Minute)
	if got, err := p.query(`ALERTS{alertname=~"SluiceClockOff|SluiceDown|SluiceNotReady"}`); err != nil || len(got) != 0 {
		t.Errorf("alerts of what is well: %v, %v", got, err)
	}
}

// The metrics of a daemon follow what it does.
func TestMetrics_FollowWhatTheDaemonDoes(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "", exampleZone())
	serial := d.awaitServed(t, example)
	axfr(t, d.addr, example)
	d.must(t, "zone", "list")
	for _, want := range []string{
		`sluice_zone_stage{stage="published",zone="example.com."} 1`,
		fmt.Sprintf(`sluice_zone_serial{stage="published",zone="example.com."} %s`, strconv.FormatFloat(float64(serial), 'g', -1, 64)),
		`sluice_zones{stage="published"} 1`,
		`sluice_zone_keys{role="ksk",state="active",zone="example.com."} 1`,
		`sluice_signings_total{mode="sign",result="signed"} 1`,
		`sluice_loads_total{result="loaded",source="file"} 1`,
		`sluice_events_total{type="instance.published"} 1`,
		`sluice_verifications_total{result="passed"} 1`,
		`sluice_transfers_out_total{kind="axfr",result="whole"} 1`,
		`sluice_api_requests_total{method="GET",route="/api/v1/zones",status="200"} 1`,
		`sluice_ready 1`, `sluice_clock_trusted 1`, `sluice_projection_lag_events 0`, `sluice_workers_alive 1`,
	} {
		var saw string
		if ok, _ := eventually(10*time.Second, func() (bool, string) {
			saw = d.metrics(t)
			return strings.Contains(saw, "\n"+want+"\n"), ""
		}); !ok {
			name, _, _ := strings.Cut(want, "{")
			t.Errorf("%s is missing; there is:\n%s", want, strings.Join(regexp.MustCompile(`(?m)^`+name+`.*$`).FindAllString(saw, -1), "\n"))
		}
	}
	if text := d.metrics(t); !regexp.MustCompile(`(?m)^sluice_signatures_made_total [1-9]`).MatchString(text) ||
		!regexp.MustCompile(`(?m)^sluice_journal_append_seconds_count [1-9]`).MatchString(text) {
		t.Error("signatures and appends are not counted")
	}
}

// probed is what zone status shows of validating resolvers.
type probed struct {
	Probe struct {
		Text    string
		Answers []struct{ Resolver, Outcome, Transport, Rcode string }
	}
	Notices []struct{ Severity, Text string }
}

func (d *daemon) probed(t *testing.T) (p probed) {
	t.Helper()
	if err := json.Unmarshal([]byte(d.must(t, "--json", "zone", "status", example)), &p); err != nil {
		t.Fatal(err)
	}
	return p
}

// Two real resolvers: one follows the chain from the root, the other trusts a
// key that the zone does not have, as all do where the DS is wrong.
func TestProber_TellsResolversThatTakeAZoneForBogus(t *testing.T) {
	need(t, "named", "unbound", "dnssec-keygen", "dnssec-signzone", "dnssec-dsfromkey")
	t.Parallel()
	com, top, named := startParents(t, false)
	parents := map[string]string{".": named.addr, "com.": named.addr}
	finder := startUnbound(t, top.ds(t), parents)
	d := startObserved(t, finder.addr, top.ds(t), []string{named.addr})
	serial := d.awaitServed(t, example)
	public := startNamed(t, namedSecondary(example, d.addr))
	public.awaitSerial(t, example, serial)
	parents["example.com."] = public.addr
	good := startUnbound(t, top.ds(t), parents)
	wrong := "example.com. IN DS 12345 13 2 " + strings.Repeat("AB", 32)
	bad := startUnbound(t, top.ds(t)+"\n"+wrong, parents)
	for _, r := range []*secondary{good, bad} {
		await(t, "unbound answers", 20*time.Second, func() (bool, string) {
			m, err := query(r.addr, "com.", dns.TypeSOA)
			return err == nil && m.Rcode == dns.RcodeSuccess, fmt.Sprint(m, err)
		})
	}

	// Resolvers are named in the config; a running daemon reads it again.
	config := d.flags[1]
	writeFile(t, config, readFile(t, config)+fmt.Sprintf("[prober]\nresolvers = [%q, %q]\ninterval = \"1s\"\nnames = [\"@ SOA\", \"absent A\"]\n", good.addr, bad.addr))
	d.must(t, "reload")
	d.observe(t)
	await(t, "no resolver is asked without a DS", 10*time.Second, func() (bool, string) {
		p := d.probed(t)
		return strings.Contains(p.Probe.Text, "the parent has no DS") && len(p.Probe.Answers) == 0, fmt.Sprint(p)
	})

	com.sign(t, anchor(t, d))
	if err := named.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	named.awaitSerial(t, "com", 3)
	d.observe(t)
	await(t, "one resolver validates, the other says bogus", 30*time.Second, func() (bool, string) {
		p := d.probed(t)
		ok := len(p.Probe.Answers) == 6
		for _, a := range p.Probe.Answers {
			ok = ok && (a.Resolver == good.addr && a.Outcome == "validated" || a.Resolver == bad.addr && a.Outcome == "bogus" && a.Rcode == "SERVFAIL")
		}
		ok = ok && slices.ContainsFunc(p.Notices, func(n struct{ Severity, Text string }) bool {
			return n.Severity == "alarm" && strings.Contains(n.Text, "1 of 2 validating resolvers take the zone for bogus")
		})
		return ok && strings.Contains(p.Probe.Text, "1 of 2 resolvers validate all"), fmt.Sprint(p)
	})
	text := d.metrics(t)
	for _, want := range []string{
		fmt.Sprintf(`sluice_zone_probe_result{resolver=%q,result="validated",zone="example.com."} 1`, good.addr),
		fmt.Sprintf(`sluice_zone_probe_result{resolver=%q,result="bogus",zone="example.com."} 1`, bad.addr),
		`sluice_zones_probed{result="bogus"} 1`, `sluice_zone_ds_at_parent{zone="example.com."} 1`,
	} {
		if !strings.Contains(text, "\n"+want) {
			t.Errorf("%s is missing", want)
		}
	}
	if table := d.must(t, "zone", "status", "--detailed", example); !strings.Contains(table, "bogus") || !strings.Contains(table, "RESOLVER") {
		t.Errorf("status:\n%s", table)
	}
}
