package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// Where the browser runs no JavaScript everything can be read, and the main things
// be done, by keyboard; nothing is shown that would not work.
func TestWeb_WithoutJavaScript(t *testing.T) {
	t.Parallel()
	w := startWebSite(t)
	w.awaitServed(t, "example.com")
	w.write(t, "example.net", 2, "www IN A 192.0.2.180\n")
	w.must(t, "zone", "reload", "example.net")
	w.reviewed(t, "example.net")
	w.page = openPage(t, "http://"+w.http)
	command(w.page, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	w.view(1440, "light")
	w.open("/system")
	w.do(chromedp.SendKeys(chromedp.CSS("#token"), strings.TrimSpace(readFile(t, w.token(t, "ada", "admin")))))
	w.enter("Log in")

	for path, text := range map[string]string{
		"/": "Needs a person", "/?q=shop": "1 of 5 zones match", "/history": "Newest first", "/policies": "reviewed",
		"/policies/reviewed": "max-change-percent", "/system": "Keystores", "/audit": "The latest checkpoint", "/access": "admin",
		"/zones/example.net.": "192.0.2.180", "/zones/example.com./keys": "For the parent", "/zones/example.com./keys?format=cds": "CDS",
		"/zones/example.com./versions": "published now", "/zones/example.com./history?type=review": "No event matches",
	} {
		w.plain(path, text)
	}
	w.judgeWithoutScripts(t)
	w.decideWithoutScripts(t)

	w.plain("/", "Needs a person")
	w.tabTo("Name")
	w.do(chromedp.KeyEvent("shop"))
	w.enter("Show")
	w.shows("1 of 5 zones match")
	w.plain("/history", "Newest first")
	w.tabTo("maintenance.changed")
	w.do(chromedp.KeyEvent(kb.Enter))
	w.shows(`"type": "maintenance.changed"`)
	w.export(t)
	w.plain("/", "Needs a person")
	w.tabTo("ada")
	w.do(chromedp.KeyEvent(kb.Enter))
	w.enter("Log out")
	w.plain("/zones/example.net.", "Paste your token")
	w.silent()
}

// plain opens a page, which has a text and nothing that wants scripts.
func (w *webSite) plain(path, text string) {
	w.t.Helper()
	w.open(path)
	if body := js[string](w.page, `document.body.innerText`); !strings.Contains(body, text) {
		w.t.Errorf("%s lacks %q:\n%s", path, text, body)
	}
	if shown := js[[]string](w.page, `[...document.querySelectorAll("#theme, #live, #pause, [data-copy]")].filter(e => e.checkVisibility()).map(e => e.id || e.textContent)`); len(shown) > 0 {
		w.t.Errorf("%s shows what does not work without scripts: %q", path, shown)
	}
}

// reviewed waits until something of a zone is under review.
func (o *opened) reviewed(t *testing.T, zone string) {
	t.Helper()
	await(t, "a review of "+zone, time.Minute, func() (bool, string) {
		text := o.must(t, "zone", "status", zone)
		return strings.Contains(text, "in review"), text
	})
}

// judgeWithoutScripts approves, rejects, overrides and resets.
func (w *webSite) judgeWithoutScripts(t *testing.T) {
	t.Helper()
	w.open("/zones/example.net.")
	w.tabTo("Reason")
	w.do(chromedp.KeyEvent("seen and right"))
	w.enter("Approve")
	w.shows("Approved: l")
	await(t, "the new version is served", time.Minute, func() (bool, string) {
		status := w.must(t, "zone", "status", "example.net")
		return strings.Contains(status, "published") && !strings.Contains(status, "in review"), status
	})
	const halting = "xn--bcher-kva.example"
	for i, way := range []struct{ content, button, says string }{
		{"", "Override", "Overridden: l"}, {"mail IN A 192.0.2.25\n", "Reset", "The halt is over"},
	} {
		w.write(t, halting, i+2, way.content)
		w.must(t, "zone", "reload", halting)
		w.reviewed(t, halting)
		w.open("/zones/" + halting + ".")
		w.tabTo("Reason")
		w.do(chromedp.KeyEvent("www is gone"))
		w.enter("Reject")
		w.shows("Halted at the loaded review")
		w.tabTo("Reason")
		w.do(chromedp.KeyEvent("it is right"))
		w.enter(way.button)
		w.shows(way.says)
		await(t, "the halt ends", time.Minute, func() (bool, string) {
			status := w.must(t, "zone", "status", halting)
			return !strings.Contains(status, "halted"), status
		})
	}
}

// decideWithoutScripts rolls a zone back and releases it, aborts a rollover and
// begins another, and begins and ends maintenance.
func (w *webSite) decideWithoutScripts(t *testing.T) {
	t.Helper()
	w.plain("/zones/example.net./versions", "published now")
	w.enter("Differences")
	w.shows("192.0.2.180")
	w.open("/zones/example.net./versions")
	w.enter("Go back")
	w.shows("Nothing has changed yet")
	w.tabTo("Reason")
	w.do(chromedp.KeyEvent("the new address is wrong"))
	w.enter("Go back to serial")
	w.shows("on its way")
	w.reviewed(t, "example.net")
	w.open("/zones/example.net.")
	w.enter("Approve")
	w.shows("Approved: l")
	w.open("/zones/example.net.")
	w.enter("Release")
	w.shows("follows its source again")

	w.open("/zones/example.com./keys")
	w.tabTo("Abort")
	w.do(chromedp.KeyEvent(kb.Enter))
	w.enter("Abort rollover")
	w.shows("is aborted")
	w.enter("Begin the rollover")
	w.shows("has begun")
	w.open("/zones/example.com.")
	w.tabTo("Maintenance")
	w.do(chromedp.KeyEvent(kb.Enter))
	w.enter("Begin maintenance")
	w.shows("new work on the zone is blocked")
	w.enter("End maintenance")
	w.shows("Maintenance has ended.")
	w.open("/policies")
	w.enter("Read the files again")
	w.shows("nothing has changed")
}

// The page of a daemon without zones shows the first one by itself.
func TestWeb_FirstZoneAppears(t *testing.T) {
	t.Parallel()
	need(t, "chromium")
	w := &webSite{opened: startOpened(t, ""), zones: t.TempDir()}
	w.awaitServed(t, "example.com")
	w.must(t, "zone", "remove", "example.com", "--force")
	w.browse(t, w.token(t, "ada", "admin"))
	w.open("/")
	w.shows("No zones yet")
	w.shows("live")
	w.must(t, "zone", "add", "first.example", "--source", w.write(t, "first", 1, ""))
	w.shows("first.example")
	w.shows("All zones")
	w.silent()

	// And says so where a zone that is looked at goes.
	w.open("/zones/first.example.")
	w.shows("live")
	w.must(t, "zone", "remove", "first.example", "--force")
	w.shows("There is nothing here")
}
