package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/cli/api"
	"sluice/journal/journaltest"
	"sluice/keymgr/file"
	"sluice/pipeline"
)

// rig is a daemon in this process, with a policy folder, and a client of it.
type rig struct {
	t      *testing.T
	dir    string // the fleet's folder
	client *api.Client
	engine *pipeline.Engine
}

func newRig(t *testing.T) *rig {
	t.Helper()
	base := t.TempDir()
	ks, err := file.Open(file.Config{Dir: filepath.Join(base, "keys")})
	if err != nil {
		t.Fatal(err)
	}
	policies := filepath.Join(base, "policies")
	if err := os.Mkdir(policies, 0o700); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	e, err := pipeline.NewEngine(t.Context(), pipeline.Config{
		Journal: journaltest.New(), Keystore: ks, Logger: log, PolicyDir: policies,
		StoreDir: filepath.Join(base, "projection"), SpillDir: filepath.Join(base, "spill"),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, e.Close()); err != nil {
			t.Error(err)
		}
	})
	for deadline := time.Now().Add(time.Minute); e.Health(t.Context()) != nil; {
		if time.Now().After(deadline) {
			t.Fatal("the engine is not ready")
		}
	}
	admin := api.Identity{Name: "ada", Door: "cli", Roles: []api.Role{api.RoleAdmin}}
	r := &rig{t: t, dir: filepath.Join(base, "fleet"), engine: e, client: api.InProcess(api.Handler(e, log), admin, log)}
	t.Cleanup(r.client.Close)
	return r
}

// as is a client with a role, from the network.
func (r *rig) as(role api.Role) *api.Client {
	r.t.Helper()
	log := slog.New(slog.DiscardHandler)
	c := api.InProcess(api.Handler(r.engine, log), api.Identity{Name: "ci", Door: "api", Roles: []api.Role{role}}, log)
	r.t.Cleanup(c.Close)
	return c
}

// zones writes the folder's zones, with their files: "name policy" each.
func (r *rig) zones(list ...string) {
	r.t.Helper()
	var b strings.Builder
	b.WriteString("version = \"v1\"\n")
	for _, one := range list {
		name, policy, _ := strings.Cut(one, " ")
		fmt.Fprintf(&b, "[[zone]]\nname = %q\nsource = %q\npolicy = %q\n", name, name+".zone", policy)
		write(r.t, r.dir, name+".zone", "$TTL 3600\n@ SOA ns1 hostmaster 7 7200 3600 1209600 300\n@ NS ns1\nns1 A 192.0.2.1\n")
	}
	write(r.t, r.dir, "zones.toml", b.String())
}

func (r *rig) plan(o Options) Plan {
	r.t.Helper()
	p, err := r.planBy(r.client, o)
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

func (r *rig) planBy(c *api.Client, o Options) (Plan, error) {
	r.t.Helper()
	f, err := Read(r.dir)
	if err != nil {
		r.t.Fatal(err)
	}
	return Make(r.t.Context(), c, f, o)
}

func (r *rig) apply(p Plan) Report {
	r.t.Helper()
	report, err := Apply(r.t.Context(), r.client, p, Applying{Reason: Commit{ID: "c1"}.Reason("", "test"), MaxRemovals: 100, Wait: true})
	if err != nil {
		r.t.Fatal(err)
	}
	return report
}

// settle applies the folder, and wants all of it done and nothing left.
func (r *rig) settle(o Options) {
	r.t.Helper()
	if report := r.apply(r.plan(o)); report.Failed+report.Refused > 0 {
		r.t.Fatalf("%+v", report)
	}
	if p := r.plan(o); !p.Empty() || len(p.Drift) > 0 {
		r.t.Fatalf("there is still something to do: %+v", p)
	}
}

const nsec3 = "version = \"v1\"\n[signer.denial]\ntype = \"nsec3\"\n"

func TestApply_MakesWhatRunsLikeTheFolderAndIsIdempotent(t *testing.T) {
	r := newRig(t)
	write(t, r.dir, "policies/web.toml", policyText)
	r.zones("a.example web", "B.Example default", "c.example web")
	p := r.plan(Options{})
	if s := p.Summary; s.Add != 3 || s.Policies != 1 || s.Refused != 0 || p.Zones[1].Zone != "b.example." || p.Zones[0].Line != 2 {
		t.Fatalf("%+v", p)
	}
	r.settle(Options{})

	write(t, r.dir, "policies/web.toml", nsec3)
	r.zones("a.example web", "b.example web", "d.example web")
	p = r.plan(Options{})
	if s := p.Summary; s.Add != 1 || s.Change != 1 || s.Remove != 0 || s.Unchanged != 1 || s.Policies != 1 || s.Drift != 1 {
		t.Fatalf("%+v", p)
	}
	if one := p.Policies[0]; one.Action != Change || len(one.Zones) != 2 || !strings.Contains(one.Effects[0].Text, "signed again") || !strings.Contains(one.Diff, "nsec3") {
		t.Errorf("%+v", one)
	}
	if d := p.Drift[0]; d.Zone != "c.example." || d.ByHand || d.Bound == nil || d.Bound.Reason != "apply of commit c1: test" {
		t.Errorf("drift %+v, bound %+v", d, d.Bound)
	}
	if p = r.plan(Options{Zones: []string{"D.example"}}); p.Summary.Add != 1 || p.Summary.Change != 0 || p.Summary.Drift != 0 {
		t.Errorf("of one zone: %+v", p)
	}
	if _, err := r.planBy(r.client, Options{Zones: []string{"nothing.example"}}); !errors.Is(err, pipeline.ErrNotFound) {
		t.Errorf("a zone that is nowhere: %v", err)
	}
	r.settle(Options{Prune: true})
	if _, err := r.client.Zone(t.Context(), "c.example"); !errors.Is(err, pipeline.ErrNotFound) {
		t.Errorf("c.example: %v", err)
	}
	z, err := r.client.Zone(t.Context(), "b.example")
	if err != nil || z.Policy != "web" || z.Published == nil {
		t.Errorf("b.example: %+v, %v", z, err)
	}

	// The last zone of a policy goes, and the policy with it.
	if err := os.Remove(filepath.Join(r.dir, "policies/web.toml")); err != nil {
		t.Fatal(err)
	}
	r.zones("a.example default", "b.example default")
	if p = r.plan(Options{Prune: true}); p.Summary.Policies != 1 || p.Policies[0].Refused != "" {
		t.Errorf("%+v", p)
	}
	r.settle(Options{Prune: true})
}

func TestApply_OneZonesFaultStopsNoOther(t *testing.T) {
	r := newRig(t)
	r.zones("a.example default", "b.example nopolicy", "c.example default", "d.example default")
	write(t, r.dir, "c.example.zone", "not a zone\n")
	more, err := os.ReadFile(filepath.Join(r.dir, "zones.toml"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, r.dir, "zones.toml", string(more)+"[[zone]]\nname = \"e.example\"\nsource = \"192.0.2.1^nokey\"\n"+
		"[[zone]]\nname = \"f.example\"\nsource = \"/f\"\n[[zone.key]]\nrole = \"ksk\"\nfile = \"keys/nokey.private\"\n")
	p := r.plan(Options{})
	refused := map[string]string{}
	for _, z := range p.Zones {
		refused[z.Zone] = z.Refused
	}
	for zone, want := range map[string]string{"b.example.": `policy "nopolicy"`, "e.example.": "TSIG key nokey", "f.example.": "keys/nokey.private"} {
		if !strings.Contains(refused[zone], want) {
			t.Errorf("%s: %q", zone, refused[zone])
		}
	}
	report := r.apply(p)
	got := map[string]string{}
	for _, out := range report.Zones {
		got[out.Zone] = out.Outcome
	}
	if report.Done != 2 || report.Failed != 1 || report.Refused != 3 || got["a.example."] != Done || got["c.example."] != Failed || got["d.example."] != Done {
		t.Errorf("%+v", report)
	}
}

// A policy that a zone cannot follow is not put, and zones that were to go over to
// it stay as they are.
func TestApply_ZonesWaitForTheirPolicies(t *testing.T) {
	r := newRig(t)
	const two = "version = \"v1\"\n[loader.review]\nmode = \"manual\"\nfour-eyes = true\n"
	write(t, r.dir, "policies/two.toml", two)
	r.zones("a.example two", "b.example default")
	r.settle(Options{})
	write(t, r.dir, "policies/two.toml", policyText)
	r.zones("a.example two", "b.example two")
	p := r.plan(Options{})
	if !strings.Contains(p.Policies[0].Refused, "two persons") {
		t.Fatalf("%+v", p.Policies)
	}
	report := r.apply(p)
	if report.Policies[0].Outcome != Refused || report.Zones[0].Outcome != Skipped || !strings.Contains(report.Zones[0].Text, "policy two is not as planned") {
		t.Errorf("%+v", report)
	}
	if z, err := r.client.Zone(t.Context(), "b.example"); err != nil || z.Policy != "default" {
		t.Errorf("%+v, %v", z.Policy, err)
	}
}

func TestApply_ChangesByHandAreToldAndNotOverwrittenUnseen(t *testing.T) {
	r := newRig(t)
	r.zones("a.example default", "b.example default")
	r.settle(Options{})
	byHand := func(zone, source string) {
		t.Helper()
		if _, err := r.client.SetZone(t.Context(), zone, pipeline.ZoneChange{Source: source, Reason: "at night"}); err != nil {
			t.Fatal(err)
		}
	}
	byHand("a.example", "/elsewhere")
	kept := r.plan(Options{})
	if z := kept.Zones[0]; len(kept.Zones) != 1 || !z.ByHand || z.Bound.Reason != "at night" || z.Bound.Actor != "ada" || z.WasSource != "/elsewhere" {
		t.Fatalf("%+v", kept.Zones)
	}
	raw, err := json.Marshal(kept)
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := Load(strings.NewReader(string(raw)))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.plan(Options{}).Still(loaded); err != nil {
		t.Errorf("nothing changed: %v", err)
	}
	byHand("a.example", "/elsewhere2")
	byHand("a.example", "/elsewhere") // as it was when the plan was made, but not the same
	if err := r.plan(Options{}).Still(loaded); !errors.Is(err, pipeline.ErrState) || !strings.Contains(err.Error(), "a.example.") {
		t.Errorf("after a change of a zone: %v", err)
	}
	byHand("b.example", "/elsewhere")
	if err := r.plan(Options{}).Still(loaded); !errors.Is(err, pipeline.ErrState) {
		t.Errorf("after another zone changed: %v", err)
	}
	report := r.apply(kept) // made before the changes
	if report.Refused != 1 || !strings.Contains(report.Zones[0].Text, "changed meanwhile") {
		t.Errorf("%+v", report)
	}
	r.settle(Options{})
	r.zones("a.example default")
	if err := r.plan(Options{}).Still(loaded); !errors.Is(err, pipeline.ErrState) || !strings.Contains(err.Error(), "the folder") {
		t.Errorf("after a change of the folder: %v", err)
	}
	for _, text := range []string{"", "{}", `{"version":"v9"}`, "plan"} {
		if _, err := Load(strings.NewReader(text)); !errors.Is(err, pipeline.ErrInvalid) {
			t.Errorf("a plan of %q: %v", text, err)
		}
	}
}

func TestApply_BrakesBeforeManyRemovals(t *testing.T) {
	r := newRig(t)
	var names []string
	for i := range 20 {
		names = append(names, fmt.Sprintf("z%02d.example default", i))
	}
	r.zones(names...)
	r.settle(Options{})
	r.zones(names[:17]...)
	p := r.plan(Options{Prune: true})
	for most, want := range map[int]bool{0: false, 2: false, 3: true, 4: true} {
		if err := p.CheckRemovals(most); (err == nil) != want {
			t.Errorf("3 of 20 with at most %d: %v", most, err)
		}
	}
	if _, err := Apply(t.Context(), r.client, p, Applying{}); !errors.Is(err, pipeline.ErrState) || !strings.Contains(err.Error(), "--max-removals 3") {
		t.Errorf("without a number: %v", err)
	}
	if all, err := r.client.Zones(t.Context()); err != nil || len(all) != 20 {
		t.Errorf("%d zones, %v", len(all), err)
	}
	r.zones(names[:18]...)
	if err := r.plan(Options{Prune: true}).CheckRemovals(0); err != nil {
		t.Errorf("a tenth: %v", err)
	}
}

// A pipeline shows its plan with a token that may change nothing, and its apply
// needs more.
func TestPlan_NeedsOnlyAViewer(t *testing.T) {
	r := newRig(t)
	write(t, r.dir, "policies/web.toml", policyText)
	r.zones("a.example web")
	if p, err := r.planBy(r.as(api.RoleViewer), Options{}); err != nil || p.Summary.Add != 1 {
		t.Errorf("%+v, %v", p, err)
	}
	p := r.plan(Options{})
	report, err := Apply(t.Context(), r.as(api.RoleOperator), p, Applying{Reason: "x"})
	if err != nil || report.Refused != 2 || !strings.Contains(report.Policies[0].Text, "role admin") {
		t.Errorf("as an operator, who may put no policies: %+v, %v", report, err)
	}
	if _, err := r.planBy(r.client, Options{Remote: true}); err == nil || !strings.Contains(err.Error(), "another machine") {
		t.Errorf("a relative source on another machine: %v", err)
	}
}

func TestRunning_IsAFolderWithNothingToDo(t *testing.T) {
	r := newRig(t)
	write(t, r.dir, "policies/web.toml", nsec3)
	r.zones("a.example web", "b.example default")
	r.settle(Options{})
	f, err := Running(t.Context(), r.client)
	if err != nil {
		t.Fatal(err)
	}
	r.dir = t.TempDir()
	if err := f.Write(r.dir); err != nil {
		t.Fatal(err)
	}
	if p := r.plan(Options{Prune: true}); !p.Empty() || len(p.Drift) > 0 || p.Summary.Unchanged != 2 {
		t.Errorf("%+v", p)
	}
	if text, err := os.ReadFile(filepath.Join(r.dir, "policies/web.toml")); err != nil || string(text) != nsec3 {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := os.Stat(filepath.Join(r.dir, "policies/default.toml")); err == nil {
		t.Error("the built-in policy was written")
	}
}

// A key that the folder has and the zone never had is told.
func TestPlan_TellsOfKeysThatAZoneNeverHad(t *testing.T) {
	r := newRig(t)
	r.zones("a.example default")
	r.settle(Options{})
	keys, err := r.client.Keys(t.Context(), "a.example")
	if err != nil || len(keys) == 0 {
		t.Fatal(keys, err)
	}
	records, err := r.client.DS(t.Context(), "a.example", "dnskey")
	if err != nil || len(records) == 0 {
		t.Fatal(records, err)
	}
	write(t, r.dir, "keys/own.key", records[0].Record+"\n")
	text, err := os.ReadFile(filepath.Join(r.dir, "zones.toml"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, r.dir, "zones.toml", string(text)+"[[zone.key]]\nrole = \"ksk\"\nfile = \"keys/own.private\"\n")
	if p := r.plan(Options{}); !p.Empty() || len(p.Drift) != 0 {
		t.Errorf("of its own key: %+v", p)
	}
	r.zones("a.example default", "b.example default")
	r.settle(Options{})
	strange, err := r.client.DS(t.Context(), "a.example", "dnskey")
	if err != nil {
		t.Fatal(err)
	}
	write(t, r.dir, "keys/b.key", strings.ReplaceAll(strange[0].Record, "a.example.", "b.example.")+"\n")
	text, err = os.ReadFile(filepath.Join(r.dir, "zones.toml"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, r.dir, "zones.toml", string(text)+"[[zone.key]]\nrole = \"ksk\"\nfile = \"keys/b.private\"\n")
	if p := r.plan(Options{}); !p.Empty() || len(p.Drift) != 1 || p.Drift[0].Zone != "b.example." || !strings.Contains(p.Drift[0].Text, "never had key") {
		t.Errorf("of a strange key: %+v", p)
	}
}
