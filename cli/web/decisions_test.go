package web

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"sluice/pipeline"
)

// What ends a halt is about the instance that was shown, too.
func TestOverride_IsAboutWhatWasShown(t *testing.T) {
	t.Parallel()
	r := newRig(t, strings.Replace(manual, `mode = "manual"`, "mode = \"manual\"\non-reject = \"halt\"", 1))
	const zone = "example.com."
	r.add(t, zone, "")
	b := r.login(t, "admin-token")
	b.press("/zones/"+zone, "Reject", "reason", "wrong")
	old := b.get("/zones/" + zone)
	if a := b.press("/zones/"+zone, "Reset", "reason", "drop it"); !strings.Contains(a.body, "The halt is over") {
		t.Fatalf("after the reset:\n%s", a.body)
	}
	st := r.load(t, zone, 2, "www A 192.0.2.2\n")
	b.press("/zones/"+zone, "Reject", "reason", "wrong, too")
	for _, button := range []string{"Override", "Reset"} {
		action, fields := old.form(t, button)
		fields.Set("reason", "it is right")
		a := b.do(http.MethodPost, action, fields, http.Header{"Referer": {r.server.URL + "/zones/" + zone}})
		if !strings.Contains(a.body, "Not done.") || !strings.Contains(a.body, "now "+st.Loaded.Instance+" is") {
			t.Errorf("%s of what was shown before:\n%s", button, a.body)
		}
	}
	if st = r.rest(t, zone); st.State != "halted" {
		t.Fatalf("the zone is %s", st.State)
	}
	if a := b.press("/zones/"+zone, "Override", "reason", "it is right"); !strings.Contains(a.body, "Overridden: "+st.Loaded.Instance) {
		t.Errorf("after the override:\n%s", a.body)
	}
	r.wantEvent(t, zone, "review.overridden anna web")
}

// Where two persons are wanted the page says that the first one only proposes,
// and each is offered what they may do.
func TestVerdict_OfTheFirstOfTwoIsAProposal(t *testing.T) {
	t.Parallel()
	r := newRig(t, strings.Replace(manual, `mode = "manual"`, "mode = \"manual\"\nfour-eyes = true", 1))
	const zone = "example.com."
	st := r.add(t, zone, "")
	if a := r.login(t, "reviewer-token").press("/zones/"+zone, "Approve", "reason", "right"); !strings.Contains(a.body, "Proposed: approve "+st.Loaded.Instance) ||
		!strings.Contains(a.body, "Take it back") || !strings.Contains(a.body, "asks for the same below") {
		t.Errorf("after the first verdict:\n%s", a.body)
	}
	if a := r.login(t, "operator-token").get("/zones/" + zone); strings.Contains(a.body, "Take it back") {
		t.Error("an operator is offered to take back what only a reviewer may")
	}
	if a := r.login(t, "admin-token").press("/zones/"+zone, "Approve"); !strings.Contains(a.body, "Approved: "+st.Loaded.Instance) {
		t.Errorf("after the second verdict:\n%s", a.body)
	}
}

// The list of tokens is for admins, and holds no secret.
func TestAccess_ListsTokensToAdmins(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	granted, err := r.admin.AddToken(t.Context(), pipeline.NewToken{Name: "grafana", Roles: []string{"viewer", "auditor"}, ExpiresIn: 3600})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.admin.AddToken(t.Context(), pipeline.NewToken{Name: "anna", Roles: []string{"admin"}}); err != nil {
		t.Fatal(err)
	}
	a := r.login(t, "admin-token").get("/access")
	checkPage(t, a.body)
	doc, err := html.Parse(strings.NewReader(a.body))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"2 tokens", "grafana auditor, viewer", "root in", "anna you admin", "for ever"} {
		if !strings.Contains(spaced(doc), want) {
			t.Errorf("the page lacks %q:\n%s", want, spaced(doc))
		}
	}
	hash := sha256.Sum256([]byte(granted.Secret))
	for _, secret := range []string{granted.Secret, hex.EncodeToString(hash[:])} {
		if strings.Contains(a.body, secret) {
			t.Error("the page shows what is secret")
		}
	}
	for _, token := range []string{"viewer-token", "reviewer-token", "operator-token", "auditor-token"} {
		b := r.login(t, token)
		if a := b.get("/access"); a.status != http.StatusForbidden || strings.Contains(a.body, "grafana") {
			t.Errorf("%s: %d", token, a.status)
		}
		if strings.Contains(b.get("/").body, `href="/access"`) {
			t.Errorf("%s is led to what is refused", token)
		}
	}
}

// spaced is a page's text, a space between its parts.
func spaced(doc *html.Node) string {
	var parts []string
	for n := range doc.Descendants() {
		if n.Type == html.TextNode {
			parts = append(parts, strings.Fields(n.Data)...)
		}
	}
	return strings.Join(parts, " ")
}

// What is no time is not taken for none: an export would be of everything.
func TestTimes_ThatAreNoneAreRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	r.add(t, "example.com.", "")
	b := r.login(t, "admin-token")
	for _, path := range []string{"/audit/export?since=yesterday", "/audit/export?until=31.1.2030", "/history?since=x", "/zones/example.com./history?until=x"} {
		if a := b.get(path); a.status != http.StatusBadRequest || !strings.Contains(a.body, "is no time") {
			t.Errorf("%s: %d\n%.300s", path, a.status, a.body)
		}
	}
	if a := b.get("/zones/example.com./history?since=2020-01-01"); a.status != http.StatusOK || !strings.Contains(a.body, "zone.added") {
		t.Errorf("since a day: %d", a.status)
	}
}
