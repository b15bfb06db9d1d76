package pipeline

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/journal/journaltest"
)

// putRig is a rig with a policy folder.
func putRig(t *testing.T, policies map[string]Policy) *rig {
	t.Helper()
	r := newRig(t, journaltest.New(), policies)
	dir := filepath.Join(r.dir, "policies")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r.e.cfg.PolicyDir = dir
	return r
}

func (r *rig) policyText(name string) string {
	r.t.Helper()
	text, err := os.ReadFile(filepath.Join(r.e.cfg.PolicyDir, name+".toml"))
	if err != nil {
		r.t.Fatal(err)
	}
	return string(text)
}

const nsec3Text = "version = \"v1\"\n[signer.denial]\ntype = \"nsec3\"\n"

func TestPutPolicy_WritesTheFileAndBindsItsZones(t *testing.T) {
	r := putRig(t, nil)
	r.add(smallZone)
	dry, err := r.e.PutPolicy(t.Context(), jane, "default", NewPolicy{Text: nsec3Text, DryRun: true})
	if err != nil || dry.Done || dry.Change != policyUpdated || len(dry.Effects) != 1 || !strings.Contains(dry.Effects[0].Text, "signed again") ||
		dry.Effects[0].Zones[0] != "example.com." || !strings.Contains(dry.Diff, "+ type = \"nsec3\"") {
		t.Fatalf("dry run: %+v, %v", dry, err)
	}
	if _, err := os.Stat(filepath.Join(r.e.cfg.PolicyDir, "default.toml")); err == nil || r.count("access.used") != 0 {
		t.Fatal("the dry run changed something")
	}
	done, err := r.e.PutPolicy(t.Context(), jane, "default", NewPolicy{Text: nsec3Text, Reason: "commit 3f2a9c1", At: dry.At})
	if err != nil || !done.Done || r.policyText("default") != nsec3Text {
		t.Fatalf("%+v, %v", done, err)
	}
	if got := r.zone().Policy.Text; got != nsec3Text {
		t.Errorf("bound to %q", got)
	}
	for _, kind := range []string{"policy.bound", "access.used"} {
		if lines := strings.Join(r.wholeHistory(kind), "\n"); !strings.Contains(lines, jane.Name) || !strings.Contains(lines, "commit 3f2a9c1") {
			t.Errorf("%s: %s", kind, lines)
		}
	}
	before := r.count("access.used")
	if again, err := r.e.PutPolicy(t.Context(), jane, "default", NewPolicy{Text: nsec3Text}); err != nil || !again.Done || again.Change != policyUnchanged {
		t.Errorf("again: %+v, %v", again, err)
	}
	if r.count("access.used") != before {
		t.Error("what changed nothing left an event")
	}
	if _, err := r.e.PutPolicy(t.Context(), jane, "default", NewPolicy{Text: "version = \"v1\"\n", At: dry.At}); !errors.Is(err, ErrState) {
		t.Errorf("after another change: %v", err)
	}
}

// wholeHistory is all events of a type, of zones and of the instance.
func (r *rig) wholeHistory(kind string) []string {
	r.t.Helper()
	var out []string
	for _, id := range []event.ZoneID{event.Instance, r.zone().Zone} {
		err := r.journal.Read(r.t.Context(), id, 1, 0, func(rec journal.Record) error {
			if rec.Event.Type == kind {
				out = append(out, rec.Event.Actor.Name+" "+Describe(rec.Event))
			}
			return nil
		})
		if err != nil {
			r.t.Fatal(err)
		}
	}
	return out
}

func TestDiffPolicy_SaysWhatAReloadDoes(t *testing.T) {
	r := putRig(t, nil)
	r.add(smallZone)
	file := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(r.e.cfg.PolicyDir, name+".toml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	diff := func(name, change string) PolicyPlan {
		t.Helper()
		plan, err := r.e.DiffPolicy(t.Context(), name)
		if err != nil || plan.Done || plan.Change != change || plan.Name != name {
			t.Errorf("%s: %+v, %v", name, plan, err)
		}
		return plan
	}
	if plan := diff("default", policyUnchanged); plan.Diff != "" || len(plan.Effects) != 0 || len(plan.Zones) != 1 {
		t.Errorf("without a file: %+v", plan)
	}
	file("default", nsec3Text)
	file("other", "version = \"v1\"\n")
	if plan := diff("default", policyUpdated); len(plan.Effects) != 1 || !strings.Contains(plan.Effects[0].Text, "signed again") ||
		plan.Effects[0].Zones[0] != "example.com." || !strings.Contains(plan.Diff, "+ type = \"nsec3\"") {
		t.Errorf("%+v", plan)
	}
	if plan := diff("other", policyAdded); plan.At != NoPolicy {
		t.Errorf("%+v", plan)
	}
	if r.zone().Policy.Text == nsec3Text {
		t.Fatal("a diff changed something")
	}
	if change, err := r.e.ReloadPolicies(t.Context(), jane); err != nil || len(change.Rebound) != 1 {
		t.Fatalf("%+v, %v", change, err)
	}
	diff("default", policyUnchanged)
	if err := os.Remove(filepath.Join(r.e.cfg.PolicyDir, "other.toml")); err != nil {
		t.Fatal(err)
	}
	diff("other", policyRemoved)
	file("bad", "version = \"v9\"\n")
	if plan := diff("other", policyUnchanged); len(plan.Notices) != 1 {
		t.Errorf("with a fault elsewhere: %+v", plan)
	}
	for name, want := range map[string]error{"bad": ErrState, "none": ErrNotFound, "a/b": ErrInvalid} {
		if plan, err := r.e.DiffPolicy(t.Context(), name); !errors.Is(err, want) {
			t.Errorf("%s: %+v, %v", name, plan, err)
		}
	}
}

func TestPutPolicy_RefusesWhatWouldHurt(t *testing.T) {
	two := reviewPolicy(t, loadedByTwo)
	two.Name = "two"
	r := putRig(t, map[string]Policy{"two": two, "default": Default()})
	r.addWith("two", r.zoneFile(smallZone))
	remote := event.Actor{Name: "ci", Door: "api", Role: "admin"}
	hook := "version = \"v1\"\n[signer.review]\nmode = \"script\"\nhook = \"touch /tmp/x\"\n"
	for name, c := range map[string]struct {
		actor            event.Actor
		name, text, want string
		err              error
	}{
		"a fault":                     {jane, "p", "version = \"v2\"\n", "line 1", ErrInvalid},
		"a name":                      {jane, "../p", nsec3Text, "want 1 to 64 letters", ErrInvalid},
		"a hidden name":               {jane, ".p", nsec3Text, "no dot in front", ErrInvalid},
		"a way around two persons":    {jane, "two", nsec3Text, "two persons", ErrState},
		"a command from the network":  {remote, "p", hook, "daemon's machine alone", ErrState},
		"a command hidden in another": {remote, "default", hook, "touch /tmp/x", ErrState},
	} {
		_, err := r.e.PutPolicy(t.Context(), c.actor, c.name, NewPolicy{Text: c.text})
		if !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if entries, err := os.ReadDir(r.e.cfg.PolicyDir); err != nil || len(entries) != 0 || r.count("access.used") != 0 {
		t.Errorf("something was written: %v, %v", entries, err)
	}
	if _, err := r.e.PutPolicy(t.Context(), jane, "p", NewPolicy{Text: hook}); err != nil {
		t.Errorf("through the socket: %v", err)
	}
	if _, err := r.e.PutPolicy(t.Context(), remote, "q", NewPolicy{Text: hook}); err != nil {
		t.Errorf("a command that is known: %v", err)
	}
	r.e.cfg.PolicyDir = ""
	if _, err := r.e.PutPolicy(t.Context(), jane, "p", NewPolicy{Text: nsec3Text}); !errors.Is(err, ErrState) || !strings.Contains(err.Error(), "--policy-dir") {
		t.Errorf("without a folder: %v", err)
	}
}

func TestRemovePolicy_OnlyWhereNoZoneIsBoundToIt(t *testing.T) {
	r := putRig(t, nil)
	if _, err := r.e.PutPolicy(t.Context(), jane, "web", NewPolicy{Text: nsec3Text}); err != nil {
		t.Fatal(err)
	}
	r.addWith("web", r.zoneFile(smallZone))
	if err := r.e.RemovePolicy(t.Context(), jane, "web", ""); !errors.Is(err, ErrState) || !strings.Contains(err.Error(), "example.com.") {
		t.Fatalf("while a zone uses it: %v", err)
	}
	if _, err := r.e.SetZone(t.Context(), jane, "example.com", ZoneChange{Policy: "default", Reason: "less of it"}); err != nil {
		t.Fatal(err)
	}
	if err := r.e.RemovePolicy(t.Context(), jane, "web", "not used"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.e.Policy(t.Context(), "web"); !errors.Is(err, ErrNotFound) {
		t.Errorf("still there: %v", err)
	}
	for name, want := range map[string]error{"web": ErrNotFound, "default": ErrState} {
		if err := r.e.RemovePolicy(t.Context(), jane, name, ""); !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOutlook_TellsWhatWouldChangeAndWhoChangedLast(t *testing.T) {
	r := putRig(t, nil)
	file := r.zoneFile(smallZone)
	if _, err := r.e.AddZone(t.Context(), jane, NewZone{Name: "example.com", Source: file, Reason: "first"}); err != nil {
		t.Fatal(err)
	}
	r.await()
	outlook := func(wish ZoneWish, with ...PolicyWish) ZoneOutlook {
		t.Helper()
		out, err := r.e.Outlook(t.Context(), jane, FleetWish{Zones: []ZoneWish{wish}, With: with}, false)
		if err != nil || len(out.Zones) != 1 {
			t.Fatalf("%+v, %v", out, err)
		}
		return out.Zones[0]
	}
	same := outlook(ZoneWish{Name: "Example.COM", Source: file, Policy: "default", Keys: []string{r.zone().Keys.Signing()[0].ID, "0000000000000000"}})
	if same.Change != zoneUnchanged || same.Bound != nil || len(same.MissingKeys) != 1 {
		t.Errorf("%+v, bound %+v", same, same.Bound)
	}
	same = outlook(ZoneWish{Name: "example.com", Remove: true})
	if same.Change != zoneRemoved || same.Bound == nil || same.Bound.Actor != jane.Name || same.Bound.Reason != "first" {
		t.Errorf("%+v, bound %+v", same, same.Bound)
	}
	turn := outlook(ZoneWish{Name: "example.com", Source: "192.0.2.1", Policy: "web"}, PolicyWish{Name: "web", Text: nsec3Text})
	if text := strings.Join(turn.Changes, "\n"); turn.Change != zoneChanged || !strings.Contains(text, "192.0.2.1") || !strings.Contains(text, "signed again") {
		t.Errorf("%+v", turn)
	}
	for want, wish := range map[string]ZoneWish{
		`policy "web": not found`: {Name: "example.com", Policy: "web"},
		"TSIG key k.":             {Name: "new.example", Source: "192.0.2.1^k"},
		"has no source":           {Name: "new.example"},
	} {
		if got := outlook(wish); !strings.Contains(got.Refused, want) {
			t.Errorf("%+v: %+v", wish, got)
		}
	}
	if got := outlook(ZoneWish{Name: "new.example", Source: file}); got.Change != zoneAdded || got.Refused != "" {
		t.Errorf("%+v", got)
	}
	if _, err := r.e.SetZone(t.Context(), testActor, "example.com", ZoneChange{Source: file + "2", Reason: "by hand"}); err != nil {
		t.Fatal(err)
	}
	moved := outlook(ZoneWish{Name: "example.com", Remove: true})
	if moved.Change != zoneRemoved || moved.Bound.Position <= same.Bound.Position || moved.Bound.Reason != "by hand" || moved.Bound.Actor != testActor.Name {
		t.Errorf("%+v, bound %+v", moved, moved.Bound)
	}
	for what, err := range map[string]error{
		"set":    second(r.e.SetZone(t.Context(), jane, "example.com", ZoneChange{Source: file, At: same.Bound.Position})),
		"remove": r.e.EndZone(t.Context(), jane, "example.com", Removal{Force: true, At: same.Bound.Position}),
	} {
		if !errors.Is(err, ErrState) || !strings.Contains(err.Error(), "changed meanwhile") {
			t.Errorf("%s after another change: %v", what, err)
		}
	}
	if err := r.e.EndZone(t.Context(), jane, "example.com", Removal{Force: true, Reason: "gone", At: moved.Bound.Position}); err != nil {
		t.Error(err)
	}
}

func second[T any](_ T, err error) error { return err }
