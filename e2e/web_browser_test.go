package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// page is a window of a browser on the daemon's page.
type page struct {
	t       *testing.T
	ctx     context.Context //nolint:containedctx // chromedp keeps the browser in it
	base    string
	files   string // where downloads go
	pics    string // where pictures go
	mu      sync.Mutex
	trouble []string // guarded by mu; what the browser complained about
}

// openPage starts a browser without a window. What it complains about fails
// the test, breaches of the content security policy above all.
func openPage(t *testing.T, base string) *page {
	t.Helper()
	need(t, "chromium")
	p := &page{t: t, base: base, files: t.TempDir(), pics: t.ArtifactDir()}
	opts := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath("chromium"), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun,
		chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-dev-shm-usage", true),
	)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 6*time.Minute)
	t.Cleanup(cancel)
	ctx, end := chromedp.NewExecAllocator(ctx, opts...)
	t.Cleanup(end)
	ctx, leave := chromedp.NewContext(ctx, chromedp.WithListener(p.hear))
	p.ctx = ctx
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil {
			t.Logf("end of the browser: %v", err)
		}
		leave()
	})
	p.do()
	command(p, log.Enable, cdp.Empty{})
	command(p, browser.SetDownloadBehavior, browser.SetDownloadBehaviorParams{
		Behavior: browser.SetDownloadBehaviorBehaviorAllow, DownloadPath: p.files,
	})
	return p
}

// hear notes what the browser complains about.
func (p *page) hear(ev any) {
	var text string
	switch ev := ev.(type) {
	case *log.EventEntryAdded:
		if ev.Entry.Level == log.EntryLevelError || ev.Entry.Level == log.EntryLevelWarning {
			text = fmt.Sprintf("%s: %s %s", ev.Entry.Source, ev.Entry.Text, ev.Entry.URL)
		}
	case *runtime.EventExceptionThrown:
		text = "exception: " + ev.ExceptionDetails.Text
	case *runtime.EventConsoleAPICalled:
		if ev.Type == runtime.ConsoleAPICalledTypeError {
			text = fmt.Sprintf("console: %s", ev.Args[0].Value)
		}
	}
	if text == "" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trouble = append(p.trouble, text)
}

// silent fails the test where the browser complained.
func (p *page) silent() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, text := range p.trouble {
		p.t.Errorf("the browser complains: %s", text)
	}
	p.trouble = nil
}

func (p *page) do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	p.can(chromedp.Do(p.ctx, steps...))
}

// can ends the test where the browser could not do something.
func (p *page) can(err error) {
	p.t.Helper()
	if err == nil {
		return
	}
	where, _ := chromedp.Run(p.ctx, chromedp.Evaluate[string](`location.href + "\n" + document.body.innerText.slice(0, 3000)`)) // it only helps to understand
	p.t.Fatalf("%v at %s", err, where)
}

// command sends the browser a command of its protocol.
func command[P, R any](p *page, cmd cdp.Command[P, R], params P) {
	p.t.Helper()
	_, err := chromedp.Call(p.ctx, cmd, params)
	p.can(err)
}

// open opens a path.
func (p *page) open(path string) {
	p.t.Helper()
	p.do(chromedp.Navigate(p.base+path), chromedp.WaitReady(chromedp.CSS("main")))
}

// js is what a script gives.
func js[T any](p *page, script string) T {
	p.t.Helper()
	out, err := chromedp.Run(p.ctx, chromedp.Evaluate[T](script))
	p.can(err)
	return out
}

// shows waits until the page has a text.
func (p *page) shows(text string) {
	p.t.Helper()
	await(p.t, fmt.Sprintf("the page shows %q", text), time.Minute, func() (bool, string) {
		body, err := chromedp.Run(p.ctx, chromedp.Evaluate[string](`document.body.innerText`))
		return err == nil && strings.Contains(body, text), body
	})
}

// press clicks the button with a text, in a form that fill fills in: pairs of a
// field's name and its value.
func (p *page) press(button string, fill ...string) {
	p.t.Helper()
	const find = `(text => {
		const all = [...document.querySelectorAll("button, summary, a.button")].filter(b => b.innerText.includes(text) || b.textContent.includes(text));
		return all.find(b => b.tagName === "BUTTON") ?? all[0];
	})(%q)`
	for i := 0; i+1 < len(fill); i += 2 {
		ok := js[bool](p, fmt.Sprintf(`(() => { const b = %s; for (let d = b?.closest("details"); d; d = d.parentElement.closest("details")) d.open = true;
			const f = b?.form?.elements[%q]; if (!f) return false; f.value = %q; return f.value === %q; })()`,
			fmt.Sprintf(find, button), fill[i], fill[i+1], fill[i+1]))
		if !ok {
			p.t.Fatalf("no field %q beside the button %q:\n%s", fill[i], button, js[string](p, `document.body.innerText`))
		}
	}
	before := js[string](p, `String(performance.timeOrigin)`)
	ok := js[bool](p, fmt.Sprintf(`(() => { const b = %s; if (!b) return false; for (let d = b.closest("details"); d; d = d.parentElement.closest("details")) d.open = true; setTimeout(() => b.click()); return true; })()`, fmt.Sprintf(find, button)))
	if !ok {
		p.t.Fatalf("no button %q:\n%s", button, js[string](p, `document.body.innerText`))
	}
	p.leaves(before, button)
}

// leaves waits for another page than the one that began at a time.
func (p *page) leaves(began, button string) {
	p.t.Helper()
	await(p.t, fmt.Sprintf("a new page after %q", button), time.Minute, func() (bool, string) {
		ready, err := chromedp.Run(p.ctx, chromedp.Evaluate[bool](fmt.Sprintf(`performance.timeOrigin !== %s && document.readyState === "complete"`, began)))
		return err == nil && ready, fmt.Sprint(err)
	})
}

// enter goes with Tab to what has the text, presses Enter and waits for the page
// that this leads to.
func (p *page) enter(text string) {
	p.t.Helper()
	p.tabTo(text)
	began := js[string](p, `String(performance.timeOrigin)`)
	p.do(chromedp.KeyEvent(kb.Enter))
	p.leaves(began, text)
}

// tabTo presses Tab until the focus is on what has the text.
func (p *page) tabTo(text string) {
	p.t.Helper()
	for range 120 {
		p.do(chromedp.KeyEvent(kb.Tab))
		if js[bool](p, fmt.Sprintf(`document.activeElement.matches("button, a, summary, textarea, input, select") && (document.activeElement.innerText + " " + (document.activeElement.labels?.[0]?.innerText ?? "")).includes(%q)`, text)) {
			if !js[bool](p, `document.activeElement.matches(":focus-visible") && getComputedStyle(document.activeElement).outlineStyle !== "none"`) {
				p.t.Errorf("the focus on %q cannot be seen", text)
			}
			return
		}
	}
	p.t.Fatalf("Tab never comes to %q:\n%s", text, js[string](p, `document.body.innerText`))
}

// view sets width and colours of the window.
func (p *page) view(width int64, scheme string) {
	p.t.Helper()
	command(p, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: width, Height: 900, DeviceScaleFactor: 1, Mobile: width < 700,
	})
	command(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
}

// contrastScript lists texts that are too faint on what is behind them (WCAG
// 2.1, 1.4.3).
const contrastScript = `(() => {
	const rgb = c => (c.match(/[\d.]+/g) ?? []).map(Number);
	const part = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
	const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
	const behind = e => {
		for (; e; e = e.parentElement) {
			const c = rgb(getComputedStyle(e).backgroundColor);
			if (c.length === 3 || c[3] === 1) return c;
		}
		return [255, 255, 255];
	};
	const out = new Set();
	const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	while (walk.nextNode()) {
		const e = walk.currentNode.parentElement;
		if (!walk.currentNode.data.trim() || e.closest("svg, script, .vh, [hidden]") || !e.checkVisibility()) continue;
		const a = light(rgb(getComputedStyle(e).color)), b = light(behind(e));
		const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
		if (ratio < 4.5) out.add(e.className + " " + ratio.toFixed(2) + ": " + walk.currentNode.data.trim().slice(0, 40));
	}
	return [...out];
})()`

// picture looks at the page in both colours and two widths: nothing is wider
// than the window, nothing too faint. The pictures are kept.
func (p *page) picture(path, name string) {
	p.t.Helper()
	for _, width := range []int64{1440, 390} {
		for _, scheme := range []string{"light", "dark"} {
			p.view(width, scheme)
			p.open(path)
			if over := js[[]string](p, `document.documentElement.scrollWidth <= innerWidth ? [] :
				[...document.querySelectorAll("main *, header *, .banners *")].filter(e => !e.closest(".scroll, pre, .tabs") && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName + "." + e.getAttribute("class")).slice(0, 8)`); len(over) > 0 {
				p.t.Errorf("%s at %d is wider than the window: %v", path, width, over)
			}
			if faint := js[[]string](p, contrastScript); len(faint) > 0 {
				p.t.Errorf("%s, %s: too faint: %q", path, scheme, faint)
			}
			png, err := chromedp.Run(p.ctx, chromedp.FullScreenshot(100))
			p.can(err)
			file := filepath.Join(p.pics, fmt.Sprintf("%s-%d-%s.png", name, width, scheme))
			if err := os.WriteFile(file, png, 0o644); err != nil {
				p.t.Fatal(err)
			}
		}
	}
}

// downloaded waits for a file to be there as a whole.
func (p *page) downloaded(suffix string) string {
	p.t.Helper()
	var found string
	await(p.t, "a file "+suffix+" is downloaded", time.Minute, func() (bool, string) {
		files, err := filepath.Glob(filepath.Join(p.files, "*"+suffix))
		if err == nil && len(files) == 1 {
			found = files[0]
		}
		return found != "", fmt.Sprint(files, err)
	})
	return found
}
