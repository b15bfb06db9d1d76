package e2e

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// webPolicies are the policies of the zones that the page is looked at with.
var webPolicies = map[string]string{
	"default.toml": "version = \"v1\"\n",
	"reviewed.toml": `version = "v1"
[loader.review]
mode = "manual"
[loader.checks]
max-change-percent = 90
`,
	"halting.toml": `version = "v1"
[loader.review]
mode = "manual"
on-reject = "halt"
`,
	"dynamic.toml": `version = "v1"
[[loader.update]]
key = "upd"
names = ["@", "*"]
types = ["A", "TXT"]
`,
	"listed.toml": `version = "v1"
[signer]
mode = "unsigned"
`,
}

// webSite is a daemon with zones in many states, and a browser on its page.
type webSite struct {
	*opened
	*page
	zones string // folder of their files
}

const webZone = `$TTL 3600
@ IN SOA ns1 hostmaster %d 7200 3600 1209600 300
  IN NS ns1
ns1 IN A 192.0.2.1
%s`

func (w *webSite) write(t *testing.T, name string, serial int, more string) string {
	t.Helper()
	return writeFile(t, filepath.Join(w.zones, name), fmt.Sprintf(webZone, serial, more))
}

// startWebSite starts the daemon in a rehearsal, so that its keys have a past.
func startWebSite(t *testing.T) *webSite {
	t.Helper()
	need(t, "chromium")
	w := &webSite{zones: t.TempDir()}
	policies := t.TempDir()
	for name, text := range webPolicies {
		writeFile(t, filepath.Join(policies, name), text)
	}
	w.opened = startOpened(t, "", "--policy-dir", policies, "--clock", "2030-03-01T08:00:00Z,1")
	for _, z := range []struct{ name, policy, more string }{
		{"example.net", "reviewed", "www IN A 192.0.2.80\nmail IN A 192.0.2.25\n@ IN MX 10 mail\n"},
		{"shop.example", "reviewed", "www IN A 192.0.2.81\n"},
		{"xn--bcher-kva.example", "halting", "www IN A 192.0.2.82\n"},
		{"broken.example", "default", ""},
	} {
		w.must(t, "zone", "add", z.name, "--policy", z.policy, "--source", w.write(t, z.name, 1, z.more))
		if z.policy != "default" {
			w.approve(t, z.name)
		}
	}
	return w
}

// approve approves what is under review.
func (o *opened) approve(t *testing.T, zone string) {
	t.Helper()
	o.judge(t, zone, "approve")
}

// judge gives a verdict on what comes under review.
func (o *opened) judge(t *testing.T, zone, verdict string, more ...string) {
	t.Helper()
	await(t, "a review of "+zone, time.Minute, func() (bool, string) {
		text := o.must(t, "zone", "status", zone, "--json")
		var status struct {
			Reviews []struct{ Stage, Instance string }
		}
		if err := json.Unmarshal([]byte(text), &status); err != nil {
			t.Fatal(err)
		}
		for _, r := range status.Reviews {
			o.must(t, append([]string{"zone", verdict, zone, "--" + r.Stage, r.Instance}, more...)...)
			return true, ""
		}
		return false, text
	})
}

// browse opens a browser and logs in.
func (w *webSite) browse(t *testing.T, token string) {
	t.Helper()
	w.page = openPage(t, "http://"+w.http)
	w.open("/system")
	w.do(chromedp.SendKeys(chromedp.CSS("#token"), strings.TrimSpace(readFile(t, token))))
	w.press("Log in")
	if at := js[string](w.page, `location.pathname`); at != "/system" {
		t.Fatalf("after the login: %s", at)
	}
}

// Every page in both colours and two widths, with zones in all states.
func TestWeb_PagesFitAndCanBeRead(t *testing.T) {
	t.Parallel()
	w := startWebSite(t)
	w.past(t)
	w.browse(t, w.token(t, "ada", "admin"))
	for _, p := range []struct{ path, name string }{
		{"/", "overview"},
		{"/zones/example.net.", "zone-review"},
		{"/zones/xn--bcher-kva.example.", "zone-halted"},
		{"/zones/broken.example.", "zone-broken"},
		{"/zones/example.com./keys", "keys"},
		{"/zones/example.com.", "zone"},
		{"/zones/example.net./versions", "versions"},
		{"/zones/example.net./history", "history"},
		{"/history", "events"},
		{"/policies", "policies"},
		{"/policies/reviewed", "policy"},
		{"/system", "system"},
		{"/audit", "audit"},
		{"/access", "access"},
		{"/zones/held.example.", "zone-held"},
		{"/zones/dyn.example.", "zone-dynamic"},
		{"/zones/out.example.", "zone-catalog"},
		{"/zones/" + longZone + ".", "zone-long"},
		{"/zones/" + longZone + "./keys", "keys-long"},
		{"/zones/shop.example./rollback?to=" + w.firstVersion(t, "shop.example"), "rollback"},
		{"/zones/shop.example./diff?from=" + w.firstVersion(t, "shop.example") + "&to=" + w.published(t, "shop.example"), "diff"},
	} {
		w.picture(p.path, p.name)
	}
	w.silent()
	w.picture("/nothing", "missing")
}

// past gives the zones a history: reviews that wait, a halt, a failure, keys
// that came and went.
func (w *webSite) past(t *testing.T) {
	t.Helper()
	for _, step := range []string{"dnskey-seen", "rrsig-seen"} {
		w.cli(t, "key", "step", "example.com", "--"+step)
	}
	w.move(t, "3d")
	w.cli(t, "key", "step", "example.com", "--next")
	w.cli(t, "key", "step", "example.com", "--ds-seen", "3600")
	w.move(t, "20d")
	w.cli(t, "key", "roll", "example.com", "zsk", "--reason", "twice a year")
	w.cli(t, "key", "step", "example.com", "--dnskey-seen")
	w.move(t, "2d")
	w.cli(t, "key", "step", "example.com", "--rrsig-seen")
	w.write(t, "shop.example", 2, "www IN A 192.0.2.181\nstatus IN CNAME www\nsub IN NS ns.sub\nns.sub IN A 192.0.2.7\n")
	w.must(t, "zone", "reload", "shop.example")
	w.approve(t, "shop.example")
	w.write(t, "example.net", 2, "www IN A 192.0.2.180\n@ IN MX 10 mail\nmail IN A 192.0.2.25\nnew IN TXT \"<b>not bold</b>\"\n")
	w.must(t, "zone", "reload", "example.net")
	w.write(t, "xn--bcher-kva.example", 2, "")
	w.must(t, "zone", "reload", "xn--bcher-kva.example")
	w.judge(t, "xn--bcher-kva.example", "reject", "--reason", "the web site is gone")
	writeFile(t, filepath.Join(w.zones, "broken.example"), "this is no zone file\n")
	w.cli(t, "zone", "reload", "broken.example")
	w.odd(t)
}

// longZone is a name about as long as names can be.
var longZone = strings.Repeat(strings.Repeat("long-label-", 5)+"12345678.", 3) + strings.Repeat("x", 40) + ".example"

// odd adds zones that are held, filled by updates, blocked, a catalog, and one
// with a very long name; and tokens.
func (w *webSite) odd(t *testing.T) {
	t.Helper()
	w.must(t, "zone", "add", "held.example", "--source", w.write(t, "held.example", 1, ""))
	first := w.published(t, "held.example")
	w.write(t, "held.example", 2, "www IN A 192.0.2.90\n")
	w.must(t, "zone", "reload", "held.example")
	w.must(t, "zone", "rollback", "held.example", "--to", first, "--reason", "the new address was wrong")
	w.must(t, "tsig", "add", "upd", "hmac-sha256", "--secret-file", writeFile(t, filepath.Join(t.TempDir(), "secret"), updateSecret))
	w.must(t, "zone", "add", "dyn.example", "--policy", "dynamic", "--source", "update:ns1.example.net")
	w.must(t, "zone", "maintenance", "enable", "dyn.example", "--reason", "the machine moves")
	w.must(t, "catalog", "produce", "out.example", "--policy", "listed")
	w.must(t, "zone", "add", longZone, "--source", w.write(t, "long", 1, ""))
	w.token(t, "grafana", "viewer", "--expires", "90d")
	w.token(t, "rolf", "reviewer,auditor")
}

// move moves the clock, and takes it for right.
func (o *opened) move(t *testing.T, by string) {
	t.Helper()
	o.must(t, "clock", "move", by)
	o.must(t, "clock", "accept", "--reason", "rehearsal")
}

// firstVersion is the signed instance that was published first.
func (o *opened) firstVersion(t *testing.T, zone string) string {
	t.Helper()
	return o.versions(t, zone)[0]
}

// published is the one that was published last.
func (o *opened) published(t *testing.T, zone string) string {
	t.Helper()
	all := o.versions(t, zone)
	return all[len(all)-1]
}

func (o *opened) versions(t *testing.T, zone string) []string {
	t.Helper()
	var out []string
	for line := range strings.Lines(o.must(t, "zone", "history", zone, "--type", "instance.signed", "--json")) {
		_, rest, _ := strings.Cut(line, `"seq":`)
		number, _, _ := strings.Cut(rest, ",")
		out = append(out, "s"+strings.TrimSpace(number))
	}
	if len(out) == 0 {
		t.Fatalf("zone %s has no versions", zone)
	}
	return out
}

// Everything that can be done on the page is done, with mouse and keyboard; what
// happens elsewhere appears by itself.
func TestWeb_ActionsFromLoginToExport(t *testing.T) {
	t.Parallel()
	w := startWebSite(t)
	w.browse(t, w.token(t, "ada", "admin"))
	w.view(1440, "light")

	// A review appears while the page is open, and is approved by keyboard.
	w.open("/zones/example.net.")
	w.shows("live")
	w.write(t, "example.net", 2, "www IN A 192.0.2.180\n")
	w.must(t, "zone", "reload", "example.net")
	w.shows("The loaded review of l")
	w.shows("192.0.2.180")
	w.tabTo("Reason")
	w.do(chromedp.KeyEvent("a new address, seen and right"))
	w.tabTo("Approve")
	w.do(chromedp.KeyEvent(kb.Enter))
	w.shows("Approved")
	await(t, "the new version is served", time.Minute, func() (bool, string) {
		status := w.must(t, "zone", "status", "example.net")
		return strings.Contains(status, "published") && !strings.Contains(status, "in review"), status
	})

	// Another one is rejected.
	w.write(t, "example.net", 3, "")
	w.must(t, "zone", "reload", "example.net")
	w.shows("The loaded review of l")
	w.press("Reject", "reason", "everything is gone")
	w.shows("Rejected")
	if h := w.must(t, "zone", "history", "example.net"); !strings.Contains(h, "everything is gone") || !strings.Contains(h, "ada") {
		t.Errorf("history:\n%s", h)
	}

	// Back to the first version, and on again.
	w.open("/zones/example.net./versions")
	w.press("Go back…")
	w.shows("Nothing has changed yet")
	w.press("Go back to serial", "reason", "the new address is wrong")
	w.shows("on its way")
	w.shows("The loaded review of l")
	w.press("Approve")
	w.shows("Held at the content of serial")
	w.press("Release", "reason", "it was right")
	w.shows("follows its source again")

	// Keys: what runs is given up, a rollover begins, something is reported.
	w.open("/zones/example.com./keys")
	w.press("Abort rollover", "reason", "later")
	w.shows("is aborted")
	w.press("Begin the rollover", "kind", "zsk", "reason", "practice")
	w.shows("has begun")
	w.press("Report", "seen", "dnskey-seen")
	w.shows("Reported.")

	// Small things.
	w.open("/zones/example.com.")
	for _, press := range [][]string{{"Load now", "is being loaded"}, {"Sign now", "is being signed"}} {
		w.press(press[0])
		w.shows(press[1])
	}
	w.press("Begin maintenance", "reason", "a move")
	w.shows("new work on the zone is blocked")
	w.press("End maintenance")
	w.shows("Maintenance has ended.")
	w.open("/policies")
	w.press("Read the files again")
	w.shows("nothing has changed")

	// Events come live, and stop when they are paused.
	w.open("/history")
	w.shows("live")
	w.must(t, "zone", "maintenance", "enable", "example.com", "--reason", "first of two")
	w.shows("first of two")
	w.do(chromedp.Click(chromedp.CSS("#pause")))
	w.shows("paused")
	w.must(t, "zone", "maintenance", "disable", "example.com")
	w.do(chromedp.Click(chromedp.CSS("#pause")))
	w.shows("maintenance ends")
	w.silent()

	w.export(t)
	w.colours(t)
	w.do(chromedp.Click(chromedp.CSS("details.menu summary")))
	w.press("Log out")
	w.open("/")
	w.shows("Paste your token")
	w.silent()
}

// export takes an audit export and verifies it, and the published zone.
func (w *webSite) export(t *testing.T) {
	t.Helper()
	w.open("/audit")
	w.enter("Make a checkpoint now")
	w.shows("A new checkpoint was made.")
	key := strings.TrimSpace(js[string](w.page, `document.getElementById("auditkey").textContent`))
	w.do(chromedp.Click(chromedp.CSS(`form[action="/audit/export"] button`)))
	dir := t.TempDir()
	must(t, "tar", "-xf", w.downloaded(".tar"), "-C", dir)
	must(t, program(t), "audit", "verify", dir, "--key", key)
	w.open("/zones/example.com.")
	w.do(chromedp.Click(chromedp.CSS(`a[href$="/dump"]`)))
	file := w.downloaded("example.com.zone")
	must(t, program(t), "verify", "example.com", file, "--at", w.now(t).Format(time.RFC3339))
}

// colours changes the colours, which stay.
func (w *webSite) colours(t *testing.T) {
	t.Helper()
	w.open("/")
	ground := `getComputedStyle(document.body).backgroundColor`
	before := js[string](w.page, ground)
	w.do(chromedp.Click(chromedp.CSS("#theme")), chromedp.Click(chromedp.CSS("#theme")))
	dark := js[string](w.page, ground)
	w.open("/audit")
	if after := js[string](w.page, ground); before == dark || after != dark {
		t.Errorf("background %s, dark %s, on the next page %s", before, dark, after)
	}
}

// Who may only look is shown no button, and refused; the page works without
// JavaScript.
func TestWeb_ViewerLooksOnly(t *testing.T) {
	t.Parallel()
	w := startWebSite(t)
	w.browse(t, w.token(t, "vera", "viewer"))
	w.open("/zones/example.net.")
	if n := js[int](w.page, `document.querySelectorAll("main form").length`); n != 0 {
		t.Errorf("%d forms for somebody who may only look", n)
	}
	w.shows("needs the role operator")
	status := js[int](w.page, `(() => { const x = new XMLHttpRequest(); x.open("POST", "/zones/example.net./maintenance/enable", false); x.send(); return x.status; })()`)
	if status != 403 {
		t.Errorf("maintenance by a viewer: %d", status)
	}
}
