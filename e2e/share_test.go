package e2e

import (
	"encoding/json"
	"path/filepath"
	"testing"
	"time"

	"sluice/e2e/zonegen"
)

// signedParts is who signed what is published, and how many parts of it.
func signedParts(t *testing.T, d *daemon, zone string) map[string]uint64 {
	t.Helper()
	var st struct {
		Published struct {
			Parts []struct {
				Worker string `json:"worker"`
				Parts  uint64 `json:"parts"`
			} `json:"parts"`
		} `json:"published"`
	}
	if err := json.Unmarshal([]byte(d.must(t, "zone", "status", zone, "--json")), &st); err != nil {
		t.Fatal(err)
	}
	out := map[string]uint64{}
	for _, p := range st.Published.Parts {
		out[p.Worker] += p.Parts
	}
	return out
}

// resign has all signatures made anew, and waits until that is served. Where who
// was to do it has died, it is asked for again.
func resign(t *testing.T, d *daemon, zone string, old uint32) uint32 {
	t.Helper()
	for try := 0; ; try++ {
		r := d.cli(t, "zone", "resign", zone, "--full")
		for range 50 {
			if got, err := serialAt(d.addr, zone); err == nil && got != old {
				return got
			}
			if r = d.cli(t, "zone", "status", zone); r.code != 0 {
				break
			}
		}
		if try == 40 {
			t.Fatalf("zone %s is not signed again: %v", zone, r)
		}
	}
}

// Two processes sign one zone between them: each with its own projection, its
// own copy of the keys, over TLS. One that is killed in the middle hinders
// nobody, and helps again when it is back.
func TestShare_ProcessesSignOneZone(t *testing.T) {
	t.Parallel()
	need(t, "dnssec-verify")
	g := newGenerated(t, zonegen.Config{Kind: zonegen.TLD, Names: 4000})
	zone := g.Apex()
	policies := shortDir(t)
	writeFile(t, filepath.Join(policies, "default.toml"),
		"version = \"v1\"\n[signer]\nshare-above = 1000\n[signer.denial]\ntype = \"nsec3\"\nopt-out = true\n")
	d := startMain(t, "--policy-dir", policies)
	w := enrollWorker(t, d, "signer-2", "sign,publish")
	w.start(t)
	w.awaitHealthy(t)
	d.must(t, "zone", "add", zone, "--source", g.file)
	serial := d.awaitServed(t, zone)
	for try := 0; len(signedParts(t, d, zone)) < 2; try++ {
		if try == 10 {
			t.Fatalf("signed by %v", signedParts(t, d, zone))
		}
		serial = resign(t, d, zone, serial) // one was faster than the other had folded
	}
	validated := func() {
		t.Helper()
		file, _ := d.dumpTo(t, zone)
		if r := run(t, "dnssec-verify", "-q", "-o", zone, file); r.code != 0 {
			t.Errorf("dnssec-verify: %v", r)
		}
	}
	validated()

	d.must(t, "zone", "resign", zone, "--full")
	w.kill()
	serial = resign(t, d, zone, serial)
	validated()

	w.start(t)
	w.awaitHealthy(t)
	await(t, "the worker signs parts again", 2*time.Minute, func() (bool, string) {
		serial = resign(t, d, zone, serial)
		parts := signedParts(t, d, zone)
		text, _ := json.Marshal(parts)
		return parts["signer-2"] > 0 && parts["main"] > 0, string(text)
	})
	validated()
	awaitSame(t, zone, d.addr, w.addr)
	if out := d.must(t, "journal", "verify"); out == "" {
		t.Error("the journal was not verified")
	}
}
