package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// alarmSink is a web server that is told of alarms.
type alarmSink struct {
	*httptest.Server
	mu    sync.Mutex
	token string   // guarded by mu
	down  bool     // guarded by mu
	told  []string // guarded by mu; "raised load-failed example.com."
	asked int      // guarded by mu
}

func newAlarmSink(t *testing.T) *alarmSink {
	s := &alarmSink{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var m struct{ State, Code, Zone, Severity string }
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = json.Unmarshal(body, &m)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.asked++
		s.token = r.Header.Get("Authorization")
		if s.down || err != nil || r.Method != http.MethodPost {
			http.Error(w, "not now", http.StatusServiceUnavailable)
			return
		}
		s.told = append(s.told, strings.TrimSpace(m.State+" "+m.Code+" "+m.Zone))
	}))
	t.Cleanup(s.Close)
	return s
}

// about is what was told of a code, in order.
func (s *alarmSink) about(code string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.told), func(line string) bool { return !strings.Contains(line, code) })
}

func (s *alarmSink) set(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

// A zone file breaks and is mended: a web server and a command are told of each
// once, over a restart and over an outage of the server.
func TestAlarms_CommandAndWebhookAreToldOnceOfEach(t *testing.T) {
	t.Parallel()
	sink := newAlarmSink(t)
	dir := shortDir(t)
	source, log := filepath.Join(dir, "zone"), filepath.Join(dir, "log")
	const good = "$TTL 300\n@ IN SOA ns1 host 7 7200 900 1209600 300\n@ IN NS ns1\nns1 IN A 192.0.2.1\n"
	writeFile(t, source, good)
	if err := os.WriteFile(filepath.Join(dir, "token"), []byte("let-me-in\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	config := writeFile(t, filepath.Join(dir, "config.toml"), `version = "v1"
[daemon]
log-format = "json"
[alarms]
command = "echo $SLUICE_ALARM_STATE $SLUICE_ALARM_CODE $SLUICE_ALARM_ZONE >>`+log+`"
webhook = "`+sink.URL+`/hook"
webhook-token-file = "`+filepath.Join(dir, "token")+`"
delay = "1s"
`)
	d := &daemon{data: filepath.Join(dir, "data"), addr: freeAddr(t), flags: []string{"--config", config}}
	d.start(t)
	well := func() {
		t.Helper()
		await(t, "the daemon is well", time.Minute, func() (bool, string) {
			r := d.cli(t, "health")
			return r.code == 0, r.String()
		})
	}
	well()
	d.must(t, "zone", "add", "example.com", "--source", source)
	if out := d.must(t, "alarms", "test"); strings.Count(out, "told") != 2 {
		t.Errorf("the test says: %s", out)
	}
	if s := sink.about("test"); len(s) != 1 || sink.token != "Bearer let-me-in" {
		t.Errorf("the web server was told %q, token %q", s, sink.token)
	}
	commanded := func() (lines []string) {
		text, err := os.ReadFile(log)
		if err != nil {
			return nil
		}
		return slices.DeleteFunc(strings.Split(string(text), "\n"), func(l string) bool { return !strings.Contains(l, "load-failed") })
	}
	const raised, cleared = "raised load-failed example.com.", "cleared load-failed example.com."
	toldBoth := func(what string, want ...string) {
		t.Helper()
		await(t, what, 30*time.Second, func() (bool, string) {
			web, command := sink.about("load-failed"), commanded()
			return slices.Equal(web, want) && slices.Equal(command, want), strings.Join(web, "; ") + " and " + strings.Join(command, "; ")
		})
	}

	writeFile(t, source, good+"x IN A 300.1.1.1\n")
	if r := d.cli(t, "zone", "reload", "example.com"); r.code != 1 {
		t.Errorf("a bad file: %v", r)
	}
	toldBoth("both are told", raised)
	if r := d.cli(t, "status", "--check"); r.code != 0 || !strings.HasPrefix(r.stdout, "WARNING: ") {
		t.Errorf("status --check: %v", r)
	}

	// A restart tells nothing again.
	d.process.stop()
	d.start(t)
	well()
	d.cli(t, "zone", "reload", "example.com")
	await(t, "it is known what was told", 30*time.Second, func() (bool, string) {
		out := d.must(t, "alarms", "list")
		return strings.Count(out, "load-failed") == 2, out
	})

	// While the web server is away, the command goes on, and status says so.
	sink.set(true)
	writeFile(t, source, good)
	d.must(t, "zone", "reload", "example.com")
	await(t, "the command is told", 30*time.Second, func() (bool, string) {
		return slices.Equal(commanded(), []string{raised, cleared}), strings.Join(commanded(), "; ")
	})
	await(t, "status tells of the webhook", 30*time.Second, func() (bool, string) {
		out := d.must(t, "status")
		return strings.Contains(out, "the webhook for alarms fails") && strings.Contains(out, "503"), out
	})
	sink.set(false)
	toldBoth("both were told of the end", raised, cleared)

	// The log is JSON, line by line.
	for line := range strings.Lines(d.process.log()) {
		if strings.HasPrefix(line, "{") && !json.Valid([]byte(line)) {
			t.Errorf("not JSON: %s", line)
		}
	}
	if !strings.Contains(d.process.log(), `"msg":"alarm not sent"`) {
		t.Errorf("the log does not tell of the webhook:\n%s", d.process.log())
	}
}
