package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/html"

	"sluice/cli/api"
	"sluice/journal/journaltest"
	"sluice/keymgr/file"
	"sluice/pipeline"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const smallZone = `$TTL 3600
@ SOA ns1.example. hostmaster.example. %d 7200 3600 1209600 300
@ NS ns1.example.
%s`

// manual is a policy whose reviews both ask a person.
const manual = `version = "v1"
[loader.review]
mode = "manual"
[signer.review]
mode = "off"
`

// rig is the page over a small daemon, and who may log in.
type rig struct {
	dir    string
	server *httptest.Server
	admin  *api.Client // the daemon's own user

	mu       sync.Mutex
	tokens   map[string]api.Identity // guarded by mu
	requests []string                // guarded by mu; paths that the page asked the API for
}

func newRig(t testing.TB, policy string) *rig {
	t.Helper()
	r := &rig{dir: t.TempDir(), tokens: map[string]api.Identity{
		"viewer-token":   {Name: "vera", Roles: []api.Role{api.RoleViewer}},
		"reviewer-token": {Name: "rolf", Roles: []api.Role{api.RoleReviewer}},
		"operator-token": {Name: "olga", Roles: []api.Role{api.RoleOperator}},
		"auditor-token":  {Name: "aude", Roles: []api.Role{api.RoleAuditor}},
		"admin-token":    {Name: "anna", Roles: []api.Role{api.RoleAdmin}},
	}}
	ks, err := file.Open(file.Config{Dir: filepath.Join(r.dir, "keys")})
	if err != nil {
		t.Fatal(err)
	}
	policies := map[string]pipeline.Policy{}
	if policy != "" {
		p, err := pipeline.Parse("default", []byte(policy))
		if err != nil {
			t.Fatal(err)
		}
		policies["default"] = p
	}
	log := slog.New(slog.DiscardHandler)
	engine, err := pipeline.NewEngine(t.Context(), pipeline.Config{
		Journal: journaltest.New(), Keystore: ks, Logger: log, Policies: policies,
		StoreDir: filepath.Join(r.dir, "projection"), SpillDir: filepath.Join(r.dir, "spill"),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- engine.Run(ctx) }()
	handler := api.Handler(engine, log)
	page, err := Handler(Config{API: r.counted(handler), Authenticate: r.authenticate, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	r.server = httptest.NewServer(page)
	r.admin = api.InProcess(handler, api.Identity{Name: "root", Door: "cli", Roles: []api.Role{api.RoleAdmin}}, log)
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("engine ended with %v", err)
		}
		r.server.CloseClientConnections()
		r.server.Close()
		if err := engine.Close(); err != nil {
			t.Errorf("projection closed with %v", err)
		}
	})
	until(t, "the engine is ready", func() bool {
		_, err := r.admin.Health(t.Context())
		return err == nil
	})
	return r
}

// counted notes what the page asks the API for.
func (r *rig) counted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		r.requests = append(r.requests, req.Method+" "+req.URL.Path)
		r.mu.Unlock()
		next.ServeHTTP(w, req)
	})
}

// asked is what the page asked the API for since the last time.
func (r *rig) asked() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.requests
	r.requests = nil
	return out
}

func (r *rig) authenticate(_ *http.Request, token string) (api.Identity, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	id, ok := r.tokens[token]
	if !ok {
		return api.Identity{}, errors.New("no such token")
	}
	return id, nil
}

func (r *rig) withdraw(token string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.tokens, token)
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

// write writes the zone's file with a serial and more records.
func (r *rig) write(t testing.TB, name string, serial int, more string) string {
	t.Helper()
	path := filepath.Join(r.dir, strings.Trim(name, ".")+"zone")
	if err := os.WriteFile(path, fmt.Appendf(nil, smallZone, serial, more), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// add adds a zone and waits until it is at rest.
func (r *rig) add(t testing.TB, name, more string) pipeline.ZoneStatus {
	t.Helper()
	path := r.write(t, name, 1, more)
	if _, err := r.admin.AddZone(t.Context(), pipeline.NewZone{Name: name, Source: path}); err != nil {
		t.Fatal(err)
	}
	return r.rest(t, name)
}

// load loads a zone anew and waits until it is at rest.
func (r *rig) load(t *testing.T, name string, serial int, more string) pipeline.ZoneStatus {
	t.Helper()
	r.write(t, name, serial, more)
	if err := r.admin.Reload(t.Context(), name, false); err != nil {
		t.Fatal(err)
	}
	return r.rest(t, name)
}

func (r *rig) rest(t testing.TB, name string) pipeline.ZoneStatus {
	t.Helper()
	st, err := r.admin.Await(t.Context(), name, nil)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// browser is somebody's browser.
type browser struct {
	t    testing.TB
	rig  *rig
	http *http.Client
}

// answer is what a browser was shown.
type shown struct {
	status int
	path   string // where it ended up
	header http.Header
	body   string
}

func (r *rig) browser(t testing.TB) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{t, r, &http.Client{Jar: jar, Transport: &http.Transport{DisableKeepAlives: true}}}
}

// login is a browser of somebody who is logged in.
func (r *rig) login(t testing.TB, token string) *browser {
	t.Helper()
	b := r.browser(t)
	if a := b.post("/login", url.Values{"token": {token}}); a.path != "/" {
		t.Fatalf("login ends at %s with %d:\n%s", a.path, a.status, a.body)
	}
	return b
}

func (b *browser) get(path string) shown {
	b.t.Helper()
	return b.do(http.MethodGet, path, nil, nil)
}

// post sends a form as a page of the zone would: from is the page's path.
func (b *browser) post(path string, form url.Values) shown {
	b.t.Helper()
	return b.do(http.MethodPost, path, form, nil)
}

func (b *browser) do(method, path string, form url.Values, header http.Header) shown {
	b.t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.rig.server.URL+path, body)
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header = header.Clone()
	if req.Header == nil {
		req.Header = http.Header{}
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if req.Header.Get("Referer") == "" {
			req.Header.Set("Referer", b.rig.server.URL+"/")
		}
	}
	res, err := b.http.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return shown{res.StatusCode, res.Request.URL.RequestURI(), res.Header, string(text)}
}

// form finds the form on a page whose button has the text, and what it would
// send with nothing filled in.
func (a shown) form(t testing.TB, button string) (action string, fields url.Values) {
	t.Helper()
	doc, err := html.Parse(strings.NewReader(a.body))
	if err != nil {
		t.Fatal(err)
	}
	for f := range doc.Descendants() {
		if f.Type != html.ElementNode || f.Data != "form" {
			continue
		}
		fields, found := url.Values{}, false
		for n := range f.Descendants() {
			switch {
			case n.Type != html.ElementNode:
			case n.Data == "button" && strings.Contains(textOf(n), button):
				found = true
				if name := attr(n, "name"); name != "" {
					fields.Set(name, attr(n, "value"))
				}
				if other := attr(n, "formaction"); other != "" {
					action = other
				}
			case n.Data == "input" && attr(n, "type") == "hidden":
				fields.Set(attr(n, "name"), attr(n, "value"))
			}
		}
		if found {
			if action == "" {
				action = attr(f, "action")
			}
			return action, fields
		}
	}
	t.Fatalf("no form has a button %q:\n%s", button, a.body)
	return "", nil
}

// press sends the form behind a button of a page, with fields filled in.
func (b *browser) press(page, button string, fill ...string) shown {
	b.t.Helper()
	action, fields := b.get(page).form(b.t, button)
	for i := 0; i+1 < len(fill); i += 2 {
		fields.Set(fill[i], fill[i+1])
	}
	return b.do(http.MethodPost, action, fields, http.Header{"Referer": {b.rig.server.URL + page}})
}

func attr(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

func textOf(n *html.Node) string {
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			b.WriteString(d.Data)
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}
