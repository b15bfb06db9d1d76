package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const reviewZone = `$TTL 3600
@ IN SOA ns1 hostmaster %d 7200 3600 1209600 300
  IN NS ns1
ns1 IN A 192.0.2.1
www IN A %s
sub IN NS ns.example.net.
`

// startReviewed starts a daemon whose reviews run the example hooks; setup is
// put before the second one.
func startReviewed(t *testing.T, setup string) (d *daemon, source string) {
	t.Helper()
	hooks, err := filepath.Abs(filepath.Join(root, "cli", "docs", "hooks"))
	if err != nil {
		t.Fatal(err)
	}
	source = filepath.Join(t.TempDir(), "example.com.zone")
	writeFile(t, source, fmt.Sprintf(reviewZone, 1, "192.0.2.80"))
	policy := fmt.Sprintf(`version = "v1"
[loader.review]
mode = "script"
hooks = [{ command = "MAX_REMOVED=2 %s/check-loaded.sh", timeout = "1m" }]
[signer.review]
mode = "script"
hooks = [{ command = "%s%s/check-signed.sh", timeout = "1m" }]
`, hooks, setup, hooks)
	d = startDaemon(t, policy, "example.com="+source)
	return d, source
}

// The hooks that the manual shows approve a good zone, and refuse a bad one.
func TestReview_ExampleHooks(t *testing.T) {
	need(t, "dig", "dnssec-verify", "kzonecheck")
	d, source := startReviewed(t, "")
	first := d.awaitServed(t, "example.com")
	history := d.must(t, "zone", "history", "example.com")
	for _, want := range []string{"review.approved: l", "review.approved: s"} {
		if !strings.Contains(history, want) {
			t.Errorf("history lacks %q:\n%s", want, history)
		}
	}
	writeFile(t, source, fmt.Sprintf(reviewZone, 2, "192.0.2.81"))
	second := d.awaitReload(t, first)
	// Three records go: more than the hook allows.
	writeFile(t, source, "$TTL 3600\n@ IN SOA ns1 hostmaster 3 7200 3600 1209600 300\n  IN NS ns1.example.net.\n")
	status := d.must(t, "zone", "reload", "example.com")
	if !strings.Contains(status, "records would go, more than 2") {
		t.Errorf("status after the bad file:\n%s", status)
	}
	if now := d.awaitServed(t, "example.com"); now != second {
		t.Errorf("serial %d is served, want %d", now, second)
	}
}

// awaitReload loads the zone again and waits for its new serial.
func (d *daemon) awaitReload(t *testing.T, old uint32) uint32 {
	t.Helper()
	d.must(t, "zone", "reload", "example.com")
	return d.awaitChange(t, "example.com", old)
}

// A signed instance that the hook cannot verify is never served: the hook is
// shown another serial than the one it fetches.
func TestReview_ExampleHookRefusesWhatItWasNotAskedAbout(t *testing.T) {
	need(t, "dig", "dnssec-verify", "kzonecheck")
	d, _ := startReviewed(t, "SLUICE_SERIAL=4711 ")
	await(t, "the signed instance is dropped", time.Minute, func() (bool, string) {
		text := d.cli(t, "zone", "history", "example.com").stdout
		return strings.Contains(text, "instance.abandoned: s") && strings.Contains(text, "under review is 4711"), text
	})
	if r := d.cli(t, "zone", "dump", "example.com", "-o", os.DevNull); r.code != 3 {
		t.Errorf("something is served: %v", r)
	}
}
