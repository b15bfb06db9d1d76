package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"sluice/journal/audit"
	"sluice/journal/journaltest"
	"sluice/keymgr"
	"sluice/keymgr/file"
	"sluice/pipeline"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const smallZone = `$TTL 3600
@ SOA ns1.example. hostmaster.example. 7 7200 3600 1209600 300
@ NS ns1.example.
`

// rig is a daemon's API on a socket, on a journal in memory, and its client.
type rig struct {
	dir    string
	socket string
	client *Client
	engine *pipeline.Engine
	// journal is the engine's.
	journal *journaltest.Memory
}

// newEngine runs an engine on a journal in memory, until the test ends.
func newEngine(t testing.TB, changes ...func(*pipeline.Config)) (engine *pipeline.Engine, dir string) {
	t.Helper()
	dir = t.TempDir()
	ks, err := file.Open(file.Config{Dir: filepath.Join(dir, "keys")})
	if err != nil {
		t.Fatal(err)
	}
	secret, err := audit.NewKey("log.example/sluice")
	if err != nil {
		t.Fatal(err)
	}
	key, err := audit.ParseKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	cfg := pipeline.Config{
		Journal: journaltest.New(), Keystore: ks, Logger: slog.New(slog.DiscardHandler),
		StoreDir: filepath.Join(dir, "projection"), SpillDir: filepath.Join(dir, "spill"),
		Sealing: pipeline.Sealing{Key: key, Interval: time.Hour, Events: 1000},
	}
	for _, change := range changes {
		change(&cfg)
	}
	engine, err = pipeline.NewEngine(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- engine.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("engine ended with %v", err)
		}
		if err := engine.Close(); err != nil {
			t.Errorf("projection closed with %v", err)
		}
	})
	until(t, "the engine is ready", func() bool { return engine.Health(t.Context()) == nil })
	return engine, dir
}

func newRig(t *testing.T) *rig {
	t.Helper()
	memory := journaltest.New()
	engine, dir := newEngine(t, func(c *pipeline.Config) { c.Journal = memory })
	r := &rig{dir: dir, socket: filepath.Join(dir, "s"), engine: engine, journal: memory}
	l, err := net.Listen("unix", r.socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	srv := httptest.NewUnstartedServer(Handler(engine, slog.New(slog.DiscardHandler)))
	srv.Listener.Close()
	srv.Listener = l
	srv.Config.ConnContext = ConnContext
	srv.Config.BaseContext = func(net.Listener) context.Context { return ctx }
	srv.Start()
	r.client = testClient(t, r.socket)
	r.client.http.Transport = checking{t, r.client.http.Transport}
	t.Cleanup(func() {
		cancel()
		r.client.Close()
		srv.Close()
	})
	return r
}

func testClient(t *testing.T, socket string) *Client {
	t.Helper()
	c, err := NewClient("unix:"+socket, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// until polls a named condition.
func until(t testing.TB, what string, met func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !met() {
		select {
		case <-deadline:
			t.Fatalf("after 30 s still not: %s", what)
		case <-tick.C:
		}
	}
}

// add adds a zone with smallZone and waits until it is published.
func (r *rig) add(t *testing.T, name string) pipeline.ZoneStatus {
	t.Helper()
	path := filepath.Join(r.dir, "zone")
	if err := os.WriteFile(path, []byte(smallZone), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.client.AddZone(t.Context(), pipeline.NewZone{Name: name, Source: path}); err != nil {
		t.Fatal(err)
	}
	status, err := r.client.Await(t.Context(), name, nil)
	if err != nil {
		t.Fatal(err)
	}
	if status.Published == nil {
		t.Fatalf("zone %s is not published: %+v", name, status)
	}
	return status
}

// rawAnswer is an answer as it came.
type rawAnswer struct {
	status int
	header http.Header
	body   string
}

// raw sends a request as it stands.
func (r *rig) raw(t *testing.T, method, path, body string) rawAnswer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://sluice"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := r.client.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return rawAnswer{res.StatusCode, res.Header, string(text)}
}

func TestErrors_AreProblems(t *testing.T) {
	r := newRig(t)
	r.add(t, "example.com")
	for _, test := range []struct {
		name, method, path, body string
		status                   int
	}{
		{"unknown path", "GET", "/api/v1/nothing", "", 404},
		{"path without prefix", "GET", "/zones", "", 404},
		{"method that the path has not", "PUT", "/api/v1/zones", "", 405},
		{"unknown zone", "GET", "/api/v1/zones/example.org", "", 404},
		{"bad name", "GET", "/api/v1/zones/a..b", "", 422},
		{"no document", "POST", "/api/v1/zones", "", 400},
		{"unknown member", "POST", "/api/v1/zones", `{"name":"a","sauce":"b"}`, 400},
		{"two documents", "POST", "/api/v1/zones", `{} {}`, 400},
		{"too large a body", "POST", "/api/v1/zones", `{"name":"` + strings.Repeat("a", maxBody) + `"}`, 413},
		{"name that is taken", "POST", "/api/v1/zones", `{"name":"EXAMPLE.com.","source":"/x"}`, 409},
		{"unknown policy", "POST", "/api/v1/zones", `{"name":"b","source":"/x","policy":"p"}`, 404},
		{"bad time", "GET", "/api/v1/zones/example.com/history?since=now", "", 400},
		{"bad limit", "GET", "/api/v1/zones/example.com/history?limit=-1", "", 400},
		{"limit of nothing", "GET", "/api/v1/zones?limit=0", "", 400},
		{"limit beyond bounds", "GET", "/api/v1/zones?limit=1001", "", 400},
		{"bad cursor", "GET", "/api/v1/zones?cursor=*", "", 400},
		{"cursor of another list", "GET", "/api/v1/zones/example.com/keys?cursor=YQ", "", 400},
		{"cursor that is no sequence", "GET", "/api/v1/zones/example.com/history?cursor=YQ", "", 400},
		{"unknown severity", "GET", "/api/v1/zones?notices=loud", "", 422},
		{"unknown parameter", "DELETE", "/api/v1/zones/example.com?froce=true", "", 400},
		{"parameter that stands twice", "DELETE", "/api/v1/zones/example.com?force=false&force=true", "", 400},
		{"query that is none", "GET", "/api/v1/zones?state=%zz", "", 400},
		{"body where there is none", "POST", "/api/v1/zones/example.com/reload", "{}", 400},
		{"path that is not clean", "GET", "/api/v1/zones//keys", "", 404},
		{"path with dots", "GET", "/api/v1/zones/../journal", "", 404},
		{"path with a slash at its end", "GET", "/api/v1/zones/", "", 404},
		{"bad boolean", "GET", "/api/v1/zones/example.com/dump?loaded=si", "", 400},
		{"bad serial", "GET", "/api/v1/zones/example.com/dump?serial=4294967296", "", 400},
		{"no such instance", "GET", "/api/v1/zones/example.com/dump?serial=1", "", 404},
		{"diff of nothing", "GET", "/api/v1/zones/example.com/diff", "", 400},
		{"bad version", "GET", "/api/v1/zones/example.com/diff?from=x&to=y", "", 422},
		{"bad replay goal", "GET", "/api/v1/zones/example.com/replay?to=x", "", 422},
		{"bad role", "POST", "/api/v1/zones/example.com/keys", `{"key_role":"boss"}`, 422},
		{"bad format", "GET", "/api/v1/zones/example.com/ds?format=pem", "", 422},
		{"reload without a folder", "POST", "/api/v1/policies/reload", "", 409},
		{"tail from nowhere", "GET", "/api/v1/events?from=x", "", 400},
		{"tail of an unknown zone", "GET", "/api/v1/zones/example.org/events", "", 404},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := r.raw(t, test.method, test.path, test.body)
			if got.status != test.status {
				t.Errorf("status %d, want %d: %s", got.status, test.status, got.body)
			}
			if kind := got.header.Get("Content-Type"); kind != "application/problem+json" {
				t.Errorf("content type %q", kind)
			}
			var p Problem
			if err := json.Unmarshal([]byte(got.body), &p); err != nil || p.Detail == "" || p.Status != test.status || p.Title == "" {
				t.Errorf("problem %+v, error %v", p, err)
			}
		})
	}
}

func TestBodies_AreSaidToBeJSON(t *testing.T) {
	r := newRig(t)
	for _, test := range []struct {
		kind   string
		status int
	}{
		{"", 415},
		{"text/plain", 415},
		{"application/x-www-form-urlencoded", 415},
		{"application/json; charset=latin1", 415},
		{"application/json", 409},
		{"Application/JSON; charset=UTF-8", 409},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://sluice/api/v1/clock/move", strings.NewReader(`{"seconds":1}`))
		if err != nil {
			t.Fatal(err)
		}
		if test.kind != "" {
			req.Header.Set("Content-Type", test.kind)
		}
		res, err := r.client.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != test.status {
			t.Errorf("Content-Type %q: status %d, want %d", test.kind, res.StatusCode, test.status)
		}
	}
}

func TestHead_IsGetWithoutTheBody(t *testing.T) {
	r := newRig(t)
	r.add(t, "example.com")
	for path, kind := range map[string]string{
		"/zones": mediaJSON, "/zones/example.com/dump": "text/dns", "/zones/example.com/await": mediaLines,
		"/events": mediaEvents, "/zones/example.com/events?from=1": mediaEvents, "/audit/export": "application/x-tar",
	} {
		got := r.raw(t, http.MethodHead, Prefix+path, "")
		if got.status != http.StatusOK || got.header.Get("Content-Type") != kind || got.body != "" {
			t.Errorf("HEAD %s: status %d, Content-Type %q, body %q", path, got.status, got.header.Get("Content-Type"), got.body)
		}
	}
	if got := r.raw(t, http.MethodHead, Prefix+"/zones/example.org", ""); got.status != http.StatusNotFound {
		t.Errorf("HEAD of an unknown zone: status %d", got.status)
	}
}

func TestMethodNotAllowed_NamesTheAllowedOnes(t *testing.T) {
	r := newRig(t)
	if got := r.raw(t, "DELETE", "/api/v1/journal", "").header.Get("Allow"); got != "GET, HEAD" {
		t.Errorf("Allow: %q", got)
	}
}

func TestClient_ErrorsAreThePipelines(t *testing.T) {
	r := newRig(t)
	if _, err := r.client.Zone(t.Context(), "example.org"); !errors.Is(err, pipeline.ErrNotFound) {
		t.Errorf("unknown zone: %v", err)
	}
	if _, err := r.client.ReloadPolicies(t.Context()); !errors.Is(err, pipeline.ErrState) {
		t.Errorf("reload without a folder: %v", err)
	}
	if _, err := r.client.GenerateKey(t.Context(), "a..b", NewKey{Role: keymgr.KSK}); !errors.Is(err, pipeline.ErrInvalid) {
		t.Errorf("bad name: %v", err)
	}
	other := testClient(t, filepath.Join(r.dir, "absent"))
	defer other.Close()
	if _, err := other.Health(t.Context()); !errors.Is(err, ErrUnreachable) {
		t.Errorf("no daemon: %v", err)
	}
}

func TestZoneNames_AreOneSegment(t *testing.T) {
	r := newRig(t)
	for _, name := range []string{".", "0/25.2.0.192.in-addr.arpa.", "a%2fb.example.", `a\.b.example.`, "x*y.example.", "a?b.example."} {
		r.add(t, name)
		status, err := r.client.Zone(t.Context(), name)
		if err != nil {
			t.Errorf("zone %q: %v", name, err)
			continue
		}
		if status.Name != name {
			t.Errorf("zone %q came back as %q", name, status.Name)
		}
		if err := r.client.RemoveZone(t.Context(), name, false); err != nil {
			t.Errorf("remove %q: %v", name, err)
		}
	}
}

func TestActor_IsTheUserOfTheSocket(t *testing.T) {
	r := newRig(t)
	r.add(t, "example.com")
	want, err := user.Current()
	if err != nil {
		t.Skip(err)
	}
	var got []string
	err = r.client.History(t.Context(), "example.com", pipeline.HistoryQuery{Types: []string{"zone.added"}}, func(e Event) error {
		got = append(got, e.Actor+" "+e.Door)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{want.Username + " cli"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestHistory_ShowsThePublicLines(t *testing.T) {
	r := newRig(t)
	r.add(t, "example.com")
	n := 0
	err := r.client.History(t.Context(), "example.com", pipeline.HistoryQuery{}, func(e Event) error {
		n++
		var line struct{ Type string }
		if err := json.Unmarshal(e.Event, &line); err != nil || line.Type != e.Type {
			t.Errorf("event %d: line %s, type %s, error %v", e.Seq, e.Event, e.Type, err)
		}
		return nil
	})
	if err != nil || n < 5 {
		t.Errorf("%d events, error %v", n, err)
	}
	stop := errors.New("stop")
	if err := r.client.History(t.Context(), "example.com", pipeline.HistoryQuery{}, func(Event) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("error of the callback came back as %v", err)
	}
}

func TestTail_ResumesBehindLastEventID(t *testing.T) {
	r := newRig(t)
	r.add(t, "example.com")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var seqs []uint64
	err := r.client.Tail(ctx, "", "1", func(e Event) error {
		if seqs = append(seqs, e.Seq); len(seqs) == 3 {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("tail ended with %v", err)
	}
	if diff := cmp.Diff([]uint64{1, 2, 3}, seqs); diff != "" {
		t.Error(diff)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://sluice/api/v1/zones/example.com/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Last-Event-ID", "3")
	res, err := r.client.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	const want = "retry: 3000\nid: 3\n\nid: 4\n"
	first := make([]byte, len(want))
	if _, err := io.ReadFull(res.Body, first); err != nil || string(first) != want {
		t.Errorf("first lines %q, error %v", first, err)
	}
}

func TestDump_IsAZoneFile(t *testing.T) {
	r := newRig(t)
	r.add(t, "example.com")
	var out bytes.Buffer
	if err := r.client.Dump(t.Context(), "example.com", pipeline.DumpQuery{Loaded: true}, &out); err != nil {
		t.Fatal(err)
	}
	const want = "example.com.\t3600\tIN\tNS\tns1.example.\n" +
		"example.com.\t3600\tIN\tSOA\tns1.example. hostmaster.example. 7 7200 3600 1209600 300\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
	failing := errors.New("disk full")
	if err := r.client.Dump(t.Context(), "example.com", pipeline.DumpQuery{}, failingWriter{failing}); !errors.Is(err, failing) || errors.Is(err, ErrUnreachable) {
		t.Errorf("error of the writer came back as %v", err)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

// cutServer answers every request with what looks like the first half of an
// answer.
func cutServer(t *testing.T, contentType, body string) *Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		_, _ = io.WriteString(w, body) // the client notices
	}))
	srv.Listener.Close()
	srv.Listener = l
	srv.Start()
	c := testClient(t, socket)
	t.Cleanup(func() {
		c.Close()
		srv.Close()
	})
	return c
}

func TestReadBody_SaysWhatIsWanted(t *testing.T) {
	for body, want := range map[string]string{
		"":                 "empty: want one JSON document",
		"[]":               "want an object, not a JSON array",
		`{"serial":-1}`:    "serial: want a number of that range, not a JSON number -1",
		`{"serial":"7"}`:   "serial: want a number of that range, not a JSON string",
		`{"sauce":1}`:      `unknown field "sauce"`,
		`{"reason":true}`:  "reason: want a string, not a JSON bool",
		`{"enabled":"no"}`: "enabled: want true or false, not a JSON string",
	} {
		var to struct {
			Serial  uint32 `json:"serial"`
			Reason  string `json:"reason"`
			Enabled bool   `json:"enabled"`
		}
		err := readBody(httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body)), &to)
		if !errors.Is(err, ErrRequest) || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", body, err, want)
		}
	}
}

func TestClient_CutAnswersAreErrors(t *testing.T) {
	c := cutServer(t, "application/x-ndjson", `{"item":{"removed":false,"record":"a."}}`+"\n")
	if err := c.Diff(t.Context(), "a", "1", "2", func(pipeline.DiffLine) error { return nil }); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "broke its answer off") {
		t.Errorf("diff without its end: %v", err)
	}
	c = cutServer(t, "text/dns", "a. 1 IN A 192.0.2.1\n")
	if err := c.Dump(t.Context(), "a", pipeline.DumpQuery{}, io.Discard); !errors.Is(err, ErrUnreachable) {
		t.Errorf("dump without its trailer: %v", err)
	}
	c = cutServer(t, "application/json", `{"name":`)
	if _, err := c.Zone(t.Context(), "a"); !errors.Is(err, ErrUnreachable) {
		t.Errorf("half a document: %v", err)
	}
}

func TestStream_ErrorBehindItemsIsTheLastFrame(t *testing.T) {
	w := httptest.NewRecorder()
	err := streamFrames(w, false, func(f *frames) error {
		if err := f.item("one"); err != nil {
			return err
		}
		return pipeline.ErrState
	})
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"item":"one"}` + "\n" +
		`{"error":{"type":"about:blank","title":"Conflict","status":409,"detail":"not possible now"}}` + "\n"
	if diff := cmp.Diff(want, w.Body.String()); diff != "" {
		t.Error(diff)
	}
}

func TestNewClient_WantsASocket(t *testing.T) {
	for _, address := range []string{"", "unix:", "http://192.0.2.1", "/run/sluice.sock"} {
		if _, err := NewClient(address, slog.New(slog.DiscardHandler)); !errors.Is(err, ErrRequest) {
			t.Errorf("address %q: %v", address, err)
		}
	}
}

func TestReply_RawLinesStayAsTheyAre(t *testing.T) {
	raw, err := marshal(Event{Event: json.RawMessage(`{"text":"<a> & b"}`)})
	if err != nil || !strings.Contains(string(raw), `"event":{"text":"<a> & b"}`) {
		t.Errorf("%s, %v", raw, err)
	}
}
