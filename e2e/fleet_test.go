package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fleetPlan is what the test reads of a plan.
type fleetPlan struct {
	Summary struct {
		Add, Change, Remove, Unchanged, Policies, Drift, Refused int
	}
	Zones []struct {
		Zone   string
		ByHand bool `json:"by_hand"`
		Bound  *struct{ Reason string }
	}
}

// repository is a Git work tree with a fleet's folder.
type repository struct {
	t      *testing.T
	d      *daemon
	dir    string
	source string // the zones' file
}

func (r *repository) git(args ...string) string {
	r.t.Helper()
	args = append([]string{"-C", r.dir, "-c", "user.name=ada", "-c", "user.email=ada@example.com", "-c", "commit.gpgsign=false"}, args...)
	return strings.TrimSpace(must(r.t, "git", args...))
}

// commit writes the folder's zones z0 to zn, and commits them.
func (r *repository) commit(message, policy string, n int) string {
	r.t.Helper()
	var b strings.Builder
	b.WriteString("version = \"v1\"\n")
	for i := range n {
		fmt.Fprintf(&b, "\n[[zone]]\nname = \"z%d.example\"\nsource = %q\npolicy = \"web\"\n", i, r.source)
	}
	writeFile(r.t, filepath.Join(r.dir, "zones.toml"), b.String())
	writeFile(r.t, filepath.Join(r.dir, "policies", "web.toml"), policy)
	r.git("add", ".")
	r.git("commit", "-q", "-m", message)
	return r.git("rev-parse", "HEAD")[:12]
}

func (r *repository) plan(args ...string) (p fleetPlan) {
	r.t.Helper()
	text := r.d.must(r.t, append([]string{"plan", r.dir, "--json"}, args...)...)
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		r.t.Fatal(err)
	}
	return p
}

// history is a zone's events of a type.
func (r *repository) history(zone, kind string) string {
	r.t.Helper()
	return r.d.must(r.t, "zone", "history", zone, "--type", kind)
}

// A fleet is kept in Git: commits are applied, a change by hand is seen and taken
// back, a revert goes back, and each event names its commit.
func TestFleet_FollowsGit(t *testing.T) {
	t.Parallel()
	need(t, "git")
	zones, within := 300, 2*time.Second
	if long() {
		zones = 10_000
	}
	d := startDaemon(t, denialPolicy("nsec"))
	r := &repository{t: t, d: d, dir: filepath.Join(shortDir(t), "fleet")}
	if err := os.MkdirAll(filepath.Join(r.dir, "policies"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.source = writeFile(t, filepath.Join(r.dir, "..", "zone"), "$TTL 3600\n@ SOA ns1 h 7 7200 3600 1209600 300\n@ NS ns1\nns1 A 192.0.2.1\n")
	r.git("init", "-q")
	first := r.commit("All zones", denialPolicy("nsec"), zones)
	await(t, "the daemon answers", time.Minute, func() (bool, string) {
		h := d.cli(t, "health")
		return h.code == 0, h.String()
	})

	began := time.Now()
	p := r.plan()
	planned := time.Since(began)
	if s := p.Summary; s.Add != zones || s.Policies != 1 || s.Refused != 0 {
		t.Fatalf("first plan: %+v", s)
	}
	began = time.Now()
	d.must(t, "apply", r.dir, "--no-wait")
	applied := time.Since(began)
	last := fmt.Sprintf("z%d.example.", zones-1)
	d.awaitServed(t, "z0.example.")
	began = time.Now()
	if s := r.plan().Summary; s.Unchanged != zones || s.Add+s.Change+s.Policies+s.Drift != 0 {
		t.Errorf("after the first apply: %+v", s)
	}
	t.Logf("%d zones: plan of all %v, applied in %v, plan of nothing to do %v", zones, planned, applied, time.Since(began))
	if took := time.Since(began); took > within*10 {
		t.Errorf("a plan of nothing to do took %v", took)
	}
	if lines := r.history("z0.example", "zone.added"); !strings.Contains(lines, "apply of commit "+first) {
		t.Errorf("history: %s", lines)
	}

	// Another commit changes the policy of all, and adds a zone.
	second := r.commit("NSEC3, and one zone more", denialPolicy("nsec3"), zones+1)
	if s := r.plan().Summary; s.Add != 1 || s.Policies != 1 || s.Change != 0 {
		t.Errorf("second plan: %+v", s)
	}
	d.must(t, "apply", r.dir, "--reason", "harder to walk")
	if lines := r.history(last, "policy.bound"); !strings.Contains(lines, "apply of commit "+second+": harder to walk") {
		t.Errorf("history: %s", lines)
	}
	d.awaitServed(t, fmt.Sprintf("z%d.example.", zones))

	// A plan is kept; then somebody changes a zone by hand.
	kept := filepath.Join(r.dir, "..", "kept.json")
	d.must(t, "zone", "set", "z1.example", "--policy", "default", "--reason", "at night", "--no-wait")
	d.must(t, "plan", r.dir, "-o", kept)
	p = r.plan()
	if len(p.Zones) != 1 || !p.Zones[0].ByHand || p.Zones[0].Bound.Reason != "at night" {
		t.Fatalf("after a change by hand: %+v", p)
	}
	d.must(t, "zone", "set", "z1.example", "--source", r.source+"2", "--no-wait")
	if got := d.cli(t, "apply", r.dir, "--plan", kept); got.code != 4 || !strings.Contains(got.stderr, "z1.example.") {
		t.Errorf("a plan that is not the same any more: %v", got)
	}
	d.must(t, "apply", r.dir)

	// Back: what the second commit changed goes, its zone too.
	r.git("revert", "--no-edit", "HEAD")
	third := r.git("rev-parse", "HEAD")[:12]
	back := d.cli(t, "apply", r.dir, "--prune", "--reason", "back")
	// Whether a DS is there cannot be seen here: that zone stays, and is told.
	if back.code != 4 || !strings.Contains(back.stdout, "DS") {
		t.Errorf("revert: %v", back)
	}
	if lines := r.history(last, "policy.bound"); !strings.Contains(lines, "apply of commit "+third+": back") {
		t.Errorf("history: %s", lines)
	}
	extra := fmt.Sprintf("z%d.example", zones)
	d.must(t, "zone", "remove", extra, "--force", "--reason", "it has no DS")
	if s := r.plan("--prune").Summary; s.Add+s.Change+s.Remove+s.Policies+s.Drift != 0 || s.Unchanged != zones {
		t.Errorf("after the revert: %+v", s)
	}

	// What is not committed is applied, and told.
	writeFile(t, filepath.Join(r.dir, "policies", "mail.toml"), "version = \"v1\"\n")
	d.must(t, "zone", "set", "z1.example", "--policy", "default", "--no-wait")
	d.must(t, "apply", r.dir)
	if lines := r.history("z1.example", "policy.bound"); !strings.Contains(lines, "apply of commit "+third+" with changes that are not committed") {
		t.Errorf("history: %s", lines)
	}
}
