package web

import (
	"bufio"
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"sluice/cli/api"
	"sluice/pipeline"
)

// zonePages are the pages of a zone, below its own.
func zonePages() []string { return []string{"", "/keys", "/versions", "/history"} }

// allPages are the pages without a zone.
func allPages() []string {
	return []string{"/", "/history", "/policies", "/policies/default", "/system", "/audit", "/access"}
}

func TestPages_AreWellFormedAndStayAtHome(t *testing.T) {
	t.Parallel()
	r := newRig(t, manual)
	first := r.add(t, "example.com.", "")
	b := r.login(t, "admin-token")
	if a := b.press("/zones/example.com.", "Approve", "reason", "first"); a.status != http.StatusOK {
		t.Fatal(a.body)
	}
	r.rest(t, "example.com.")
	second := r.load(t, "example.com.", 2, "www A 192.0.2.1\n")
	if len(first.Reviews) != 1 || len(second.Reviews) != 1 {
		t.Fatalf("reviews %v and %v, want one each", first.Reviews, second.Reviews)
	}
	paths := append(allPages(), "/nothing", "/zones/absent.example.",
		"/?q=exam&state=waiting&policy=default&sort=expiry", "/?q=absent", "/history?type=zone&q=added",
		"/zones/example.com./keys?format=dnskey", "/zones/example.com./history?type=review&since=2020-01-01T00:00",
		"/zones/example.com./diff?from="+first.Loaded.Instance+"&to="+second.Loaded.Instance)
	for _, below := range zonePages() {
		paths = append(paths, "/zones/example.com."+below)
	}
	for _, path := range paths {
		t.Run(strings.ReplaceAll(path, "/", "_"), func(t *testing.T) {
			a := b.get(path)
			want := http.StatusOK
			if path == "/nothing" || path == "/zones/absent.example." {
				want = http.StatusNotFound
			}
			if a.status != want {
				t.Fatalf("status %d:\n%s", a.status, a.body)
			}
			checkHeaders(t, a.header)
			checkPage(t, a.body)
		})
	}
	checkPage(t, r.browser(t).get("/login").body)
}

func checkHeaders(t *testing.T, h http.Header) {
	t.Helper()
	for name, want := range map[string]string{
		"Content-Security-Policy": policyHeader, "X-Content-Type-Options": "nosniff",
		"Referrer-Policy": "same-origin", "X-Frame-Options": "DENY", "Cache-Control": "no-store",
	} {
		if got := h.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// checkPage looks for what a page must not have, and for what it must.
func checkPage(t *testing.T, body string) {
	t.Helper()
	doc, err := html.Parse(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	checkNesting(t, body)
	ids, headings, mains := map[string]bool{}, 0, 0
	var labels, refs []string
	for n := range doc.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		for _, a := range n.Attr {
			switch {
			case a.Key == "style", strings.HasPrefix(a.Key, "on"):
				t.Errorf("<%s> has the attribute %s, which the policy forbids", n.Data, a.Key)
			case a.Key == "id":
				if ids[a.Val] {
					t.Errorf("id %q stands twice", a.Val)
				}
				ids[a.Val] = true
			case a.Key == "for":
				labels = append(labels, a.Val)
			case a.Key == "aria-labelledby", a.Key == "data-copy":
				refs = append(refs, a.Val)
			case slices.Contains([]string{"href", "src", "action", "formaction"}, a.Key):
				if a.Val == "" || !strings.Contains("/?#", a.Val[:1]) || strings.HasPrefix(a.Val, "//") {
					t.Errorf("<%s %s=%q> leads elsewhere", n.Data, a.Key, a.Val)
				}
				if strings.Contains(a.Val, "ZgotmplZ") {
					t.Errorf("<%s %s=%q> was refused by the template", n.Data, a.Key, a.Val)
				}
			}
		}
		switch n.Data {
		case "style":
			t.Error("a style element, which the policy forbids")
		case "script":
			if attr(n, "src") == "" {
				t.Error("a script in the page, which the policy forbids")
			}
		case "h1":
			headings++
		case "main":
			mains++
		case "html":
			if attr(n, "lang") == "" {
				t.Error("the page does not say its language")
			}
		case "table":
			if !strings.Contains(attr(n.Parent, "class"), "scroll") {
				t.Error("a table that does not scroll by itself")
			}
		case "th":
			if attr(n, "scope") == "" {
				t.Error("a th without a scope")
			}
		case "input", "select", "textarea":
			if attr(n, "type") != "hidden" && attr(n, "type") != "checkbox" && attr(n, "id") == "" {
				t.Errorf("a field %q without an id for its label", attr(n, "name"))
			} else if id := attr(n, "id"); id != "" {
				refs = append(refs, "for "+id)
			}
		}
	}
	for _, id := range labels {
		if !ids[id] {
			t.Errorf("a label for %q, which is not there", id)
		}
	}
	for _, id := range refs {
		if field, ok := strings.CutPrefix(id, "for "); ok {
			if !slices.Contains(labels, field) {
				t.Errorf("field %q has no label", field)
			}
		} else if !ids[id] {
			t.Errorf("%q is referred to, and not there", id)
		}
	}
	if headings != 1 || mains != 1 {
		t.Errorf("%d h1 and %d main, want one each", headings, mains)
	}
}

// checkNesting counts tags: what the templates open they close.
func checkNesting(t *testing.T, body string) {
	t.Helper()
	void := []string{"meta", "link", "input", "br", "wbr", "img"}
	var open []string
	z := html.NewTokenizer(strings.NewReader(body))
	for {
		switch z.Next() {
		case html.ErrorToken:
			if len(open) > 0 {
				t.Errorf("left open: %v", open)
			}
			return
		case html.StartTagToken:
			name, _ := z.TagName()
			if !slices.Contains(void, string(name)) {
				open = append(open, string(name))
			}
		case html.EndTagToken:
			name, _ := z.TagName()
			if len(open) == 0 || open[len(open)-1] != string(name) {
				t.Errorf("</%s> closes %v", name, open)
				return
			}
			open = open[:len(open)-1]
		default:
		}
	}
}

// What a zone's owner writes is text on every page, and can neither be code nor
// turn a line round.
func TestPages_ShowHostileTextAsText(t *testing.T) {
	t.Parallel()
	r := newRig(t, manual)
	r.add(t, "xn--bcher-kva.example.", "")
	b := r.login(t, "admin-token")
	b.press("/zones/xn--bcher-kva.example.", "Approve", "reason", "<script>alert(1)</script> \u202etxt.exe")
	r.rest(t, "xn--bcher-kva.example.")
	st := r.load(t, "xn--bcher-kva.example.", 2, `<img\032src=x\032onerror=alert(1)> TXT "<script>alert(2)</script>" "\"><svg onload=alert(3)>"`+"\n")
	b.press("/zones/xn--bcher-kva.example.", "Begin maintenance", "reason", `"><script>alert(4)</script>`)
	for _, path := range []string{
		"/", "/history", "/zones/xn--bcher-kva.example.", "/zones/xn--bcher-kva.example./history",
		"/zones/xn--bcher-kva.example./diff?from=" + st.Published.Instance + "&to=" + st.Loaded.Instance,
		"/zones/xn--bcher-kva.example./diff?from=%3Cscript%3E&to=1", "/?q=%3Cscript%3Ealert(5)%3C/script%3E",
		"/%3Cscript%3Ealert(6)%3C/script%3E",
	} {
		a := b.get(path)
		checkPage(t, a.body)
		if strings.Contains(a.body, "\u202e") {
			t.Errorf("%s turns a line round", path)
		}
		if strings.Contains(a.body, "<script>alert") || strings.Contains(a.body, "<img src=x") || strings.Contains(a.body, "<svg onload") {
			t.Errorf("%s has what was written as code", path)
		}
	}
	if a := b.get("/zones/xn--bcher-kva.example."); !strings.Contains(a.body, "bücher.example") || !strings.Contains(a.body, "xn--bcher-kva") {
		t.Error("the zone's name stands in one form only")
	}
	if a := b.get("/?q=bücher"); !strings.Contains(a.body, "xn--bcher-kva") {
		t.Error("the zone is not found by its name in Unicode")
	}
}

func TestLogin_KeepsAHardCookie(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	b := r.browser(t)
	b.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if a := b.get("/system?x=1"); a.status != http.StatusSeeOther || a.header.Get("Location") != "/login?next=%2Fsystem%3Fx%3D1" {
		t.Errorf("without a login: %d to %s", a.status, a.header.Get("Location"))
	}
	if a := b.post("/login", url.Values{"token": {"wrong"}}); a.status != http.StatusUnauthorized || !strings.Contains(a.body, "no such token") {
		t.Errorf("a wrong token: %d\n%s", a.status, a.body)
	}
	a := b.post("/login", url.Values{"token": {" viewer-token\n"}, "next": {"/system?x=1"}})
	if a.status != http.StatusSeeOther || a.header.Get("Location") != "/system?x=1" {
		t.Fatalf("login: %d to %s", a.status, a.header.Get("Location"))
	}
	cookie := a.header.Get("Set-Cookie")
	for _, want := range []string{"HttpOnly", "SameSite=Strict", "Path=/"} {
		if !strings.Contains(cookie, want) {
			t.Errorf("cookie %q lacks %s", cookie, want)
		}
	}
	if strings.Contains(cookie, "viewer-token") {
		t.Error("the cookie holds the token")
	}
	if a := b.get("/system"); a.status != http.StatusOK {
		t.Errorf("logged in: %d", a.status)
	}
	b.post("/logout", url.Values{})
	if a := b.get("/system"); a.status != http.StatusSeeOther {
		t.Errorf("logged out: %d", a.status)
	}
}

func TestLogin_LeadsNowhereElse(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	for _, next := range []string{"https://evil.example/", "//evil.example/", `/\evil.example`, "javascript:alert(1)", "/\n/evil.example", ""} {
		b := r.browser(t)
		if a := b.post("/login", url.Values{"token": {"viewer-token"}, "next": {next}}); a.path != "/" || a.status != http.StatusOK {
			t.Errorf("next %q leads to %s", next, a.path)
		}
	}
}

func FuzzLocal(f *testing.F) {
	for _, s := range []string{"/zones/a?b=c#d", "//evil", `/\evil`, "http://evil/", "/%2f/evil", "/\t/evil"} {
		f.Add(s)
	}
	base := &url.URL{Scheme: "https", Host: "here.example"}
	f.Fuzz(func(t *testing.T, path string) {
		to, err := base.Parse(local(path))
		if err != nil || to.Host != base.Host || to.Scheme != base.Scheme {
			t.Errorf("%q leads to %v, %v", path, to, err)
		}
	})
}

func TestSession_EndsWithItsToken(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	b := r.login(t, "viewer-token")
	r.withdraw("viewer-token")
	if a := b.get("/system"); !strings.HasPrefix(a.path, "/login") {
		t.Errorf("with a withdrawn token: %s, %d", a.path, a.status)
	}
	if a := b.do(http.MethodGet, "/system", nil, http.Header{liveHeader: {"1"}}); a.status != http.StatusUnauthorized {
		t.Errorf("what a page fetches by itself: %d, want 401", a.status)
	}
}

func TestSession_EndsWhenNobodyClicks(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	s := newSessions(func() time.Time { return now })
	begin := func() *http.Request {
		w := &headerOnly{header: http.Header{}}
		s.begin(w, &http.Request{}, "token")
		return &http.Request{Header: http.Header{"Cookie": {strings.Split(w.header.Get("Set-Cookie"), ";")[0]}}}
	}
	r := begin()
	now = now.Add(idleTime - time.Second)
	if s.find(r) == nil {
		t.Fatal("the session ended too early")
	}
	now = now.Add(idleTime - time.Second)
	byItself := r.Clone(t.Context())
	byItself.Header.Set(liveHeader, "1")
	if s.find(byItself) == nil {
		t.Fatal("the session ended too early")
	}
	now = now.Add(2 * time.Second)
	if s.find(r) != nil {
		t.Error("what a page fetches by itself keeps the session alive")
	}
	r = begin()
	for range int(wholeTime/idleTime)*2 + 1 {
		now = now.Add(idleTime / 2)
		s.find(r)
	}
	if s.find(r) != nil {
		t.Error("the session goes on for ever")
	}
	first := begin()
	for range maxSessions {
		now = now.Add(time.Second)
		begin()
	}
	if len(s.all) != maxSessions || s.find(first) != nil {
		t.Errorf("%d sessions, the oldest there: %v", len(s.all), s.find(first) != nil)
	}
}

type headerOnly struct{ header http.Header }

func (h *headerOnly) Header() http.Header         { return h.header }
func (h *headerOnly) WriteHeader(int)             {}
func (h *headerOnly) Write(b []byte) (int, error) { return len(b), nil }

func TestForms_OfOtherSitesAreRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	r.add(t, "example.com.", "")
	b := r.login(t, "admin-token")
	for _, h := range []http.Header{{"Sec-Fetch-Site": {"cross-site"}}, {"Sec-Fetch-Site": {"same-site"}}, {"Origin": {"https://evil.example"}}} {
		for _, path := range []string{"/zones/example.com./maintenance/enable", "/logout", "/login"} {
			if a := b.do(http.MethodPost, path, url.Values{"token": {"admin-token"}}, h); a.status != http.StatusForbidden {
				t.Errorf("%s with %v: %d, want 403", path, h, a.status)
			}
		}
	}
	if st, err := r.admin.Zone(t.Context(), "example.com."); err != nil || st.Maintenance != nil {
		t.Errorf("maintenance %v, %v", st.Maintenance, err)
	}
	if a := b.get("/zones/example.com./maintenance/enable"); a.status != http.StatusNotFound {
		t.Errorf("GET of an action: %d, want 404", a.status)
	}
}

// eventTypes are those of a zone's history, with who did it.
func (r *rig) events(t *testing.T, name string) []string {
	t.Helper()
	var out []string
	err := r.admin.History(t.Context(), name, pipeline.HistoryQuery{}, func(e api.Event) error {
		out = append(out, e.Type+" "+e.Actor+" "+e.Door)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (r *rig) wantEvent(t *testing.T, zone, want string) {
	t.Helper()
	if got := r.events(t, zone); !slices.Contains(got, want) {
		t.Errorf("no event %q among %q", want, got)
	}
}

// Each thing that a person does on the page is an event by that person, through
// the page's door.
func TestActions_AreDoneAndNoted(t *testing.T) {
	t.Parallel()
	r := newRig(t, manual)
	const zone = "example.com."
	r.add(t, zone, "www A 192.0.2.1\n")
	rev, op := r.login(t, "admin-token"), r.login(t, "admin-token")
	if a := rev.press("/zones/"+zone, "Approve", "reason", "looks right"); !strings.Contains(a.body, "Approved") || a.path != "/zones/"+zone {
		t.Fatalf("after the approval: %s\n%s", a.path, a.body)
	}
	r.wantEvent(t, zone, "review.approved anna web")
	first := r.rest(t, zone)
	r.load(t, zone, 2, "www A 192.0.2.2\n")
	if a := rev.get("/zones/" + zone); !strings.Contains(a.body, "192.0.2.2") || !strings.Contains(a.body, "<ins>") {
		t.Error("the review does not show what changes")
	}
	rev.press("/zones/"+zone, "Reject", "reason", "a wrong address")
	r.wantEvent(t, zone, "review.rejected anna web")
	r.load(t, zone, 3, "www A 192.0.2.3\n")
	rev.press("/zones/"+zone, "Approve")
	third := r.rest(t, zone)
	if third.Published == nil || *third.PublishedSerial == *first.PublishedSerial {
		t.Fatalf("published %v", third.Published)
	}
	if a := op.press("/zones/"+zone+"/rollback?to="+first.Published.Instance, "Go back to serial", "reason", "undo"); !strings.Contains(a.body, "on its way") {
		t.Errorf("after the rollback:\n%s", a.body)
	}
	r.wantEvent(t, zone, "zone.held anna web")
	r.rest(t, zone)
	rev.press("/zones/"+zone, "Approve")
	r.rest(t, zone)
	op.press("/zones/"+zone, "Release")
	r.wantEvent(t, zone, "zone.released anna web")
	op.press("/zones/"+zone, "Begin maintenance", "reason", "a move")
	r.wantEvent(t, zone, "maintenance.changed anna web")
	op.press("/zones/"+zone, "End maintenance")
	if st := r.rest(t, zone); st.Maintenance != nil {
		t.Error("maintenance goes on")
	}
	if a := op.get("/zones/" + zone + "/keys"); !strings.Contains(a.body, "Step 1 of 3") {
		t.Error("the rollover that runs is not shown")
	}
	op.press("/zones/"+zone+"/keys", "Abort rollover", "reason", "later")
	r.wantEvent(t, zone, "rollover.aborted anna web")
	if a := op.press("/zones/"+zone+"/keys", "Begin the rollover", "kind", "zsk", "reason", "practice"); !strings.Contains(a.body, "has begun") {
		t.Errorf("after the beginning of a rollover:\n%s", a.body)
	}
	r.wantEvent(t, zone, "rollover.started anna web")
	r.rest(t, zone) // until the key is published, nobody can have seen it
	if a := op.press("/zones/"+zone+"/keys", "Report", "seen", "dnskey-seen"); strings.Contains(a.body, "Not done.") {
		t.Errorf("after a report:\n%s", a.body)
	}
	r.wantEvent(t, zone, "rollover.advanced anna web")
}

// A verdict is about the digest that was shown: where another instance took its
// place, nothing happens and the page says so.
func TestVerdict_IsAboutWhatWasShown(t *testing.T) {
	t.Parallel()
	r := newRig(t, manual)
	const zone = "example.com."
	st := r.add(t, zone, "")
	b := r.login(t, "admin-token")
	a := b.do(http.MethodPost, "/zones/"+zone+"/reviews/loaded", url.Values{
		"verdict": {"approve"}, "instance": {st.Loaded.Instance}, "digest": {strings.Repeat("0", 64)},
	}, http.Header{"Referer": {r.server.URL + "/zones/" + zone}})
	if a.path != "/zones/"+zone || !strings.Contains(a.body, "Not done.") || !strings.Contains(a.body, "another digest") {
		t.Errorf("%s:\n%s", a.path, a.body)
	}
	if b.get("/zones/"+zone).body == a.body {
		t.Error("the sentence is shown for ever")
	}
	if a := b.post("/zones/"+zone+"/reviews/loaded", url.Values{"verdict": {"shrug"}}); !strings.Contains(a.body, "neither approve, reject nor override") {
		t.Errorf("a verdict that there is not:\n%s", a.body)
	}
}

func TestLive_FollowsAndEndsWithTheSession(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	r.add(t, "example.com.", "")
	b := r.login(t, "viewer-token")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.server.URL+"/zones/example.com./live", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	res, err := b.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if got := res.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Fatalf("content type %q", got)
	}
	checkHeaders(t, res.Header)
	if err := r.admin.Resign(t.Context(), "example.com.", true); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(res.Body)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(line, `"instance.signed"`) {
			break
		}
	}
	r.withdraw("viewer-token")
	if _, err := io.Copy(io.Discard, lines); ctx.Err() != nil {
		t.Errorf("the stream goes on after the token was withdrawn: %v", err)
	}
}

func TestExport_IsATarOfWhoMay(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	r.add(t, "example.com.", "")
	b := r.login(t, "admin-token")
	a := b.get("/zones/example.com./dump")
	if a.header.Get("Content-Type") != "text/dns" || a.header.Get("Content-Disposition") != `attachment; filename="example.com.zone"` || !strings.Contains(a.body, "RRSIG") {
		t.Errorf("the zone file: %v\n%s", a.header, a.body)
	}
	a = b.get("/zones/example.com./dump?serial=4711")
	if a.status != http.StatusNotFound || a.header.Get("Content-Disposition") != "" {
		t.Errorf("a version that there is not: %d %v", a.status, a.header)
	}
	checkPage(t, a.body)
}

func TestStatic_IsKeptAndPacked(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	b := r.browser(t)
	_, at, _ := strings.Cut(b.get("/login").body, `rel="stylesheet" href="`)
	at, _, _ = strings.Cut(at, `"`)
	a := b.do(http.MethodGet, at, nil, http.Header{"Accept-Encoding": {"gzip"}})
	if a.status != http.StatusOK || a.header.Get("Content-Encoding") != "gzip" || !strings.Contains(a.header.Get("Cache-Control"), "immutable") {
		t.Fatalf("%s: %d %v", at, a.status, a.header)
	}
	z, err := gzip.NewReader(strings.NewReader(a.body))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil || !strings.Contains(string(text), "color-scheme") {
		t.Errorf("%v: %.80s", err, text)
	}
	if a := b.get("/static/0000000000000000/style.css"); a.status != http.StatusNotFound {
		t.Errorf("another program's file: %d", a.status)
	}
}

// The overview costs the same few requests whatever the number of zones.
func TestOverview_CostsAFewRequests(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	b := r.login(t, "viewer-token")
	r.add(t, "a.example.", "")
	r.asked()
	b.get("/")
	one := len(r.asked())
	for _, name := range []string{"b.example.", "c.example.", "d.example."} {
		r.add(t, name, "")
	}
	r.asked()
	b.get("/")
	if four := r.asked(); len(four) != one || one > 6 {
		t.Errorf("%d requests for one zone, for four %v", one, four)
	}
}
