package cli

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	urfave "github.com/urfave/cli/v2"

	"sluice/cli/api"
	"sluice/cli/chain"
	"sluice/cli/fleet"
	"sluice/cli/migrate"
	"sluice/journal"
	"sluice/journal/audit"
	"sluice/journal/backup"
	"sluice/keymgr"
	"sluice/pipeline"
	"sluice/pipeline/alarm"
	"sluice/pipeline/simulate"
)

// page reads a page of the manual.
func page(t *testing.T, name string) string {
	t.Helper()
	text, found := readPage(newApp(&env{}), name)
	if !found {
		t.Fatalf("no page %q", name)
	}
	return text
}

func TestJSONPage_NamesEveryField(t *testing.T) {
	text := page(t, "json")
	for _, v := range []any{
		pipeline.ZoneStatus{},
		pipeline.Overview{},
		pipeline.AlarmsStatus{},
		alarm.TestResult{},
		alarm.Message{},
		api.LogLevel{},
		servingInfo{},
		zoneStart{},
		zoneOutcome{},
		api.Event{},
		pipeline.ZonePlan{},
		pipeline.RollbackPlan{},
		pipeline.ZoneSerials{},
		pipeline.CatalogStatus{},
		pipeline.CatalogMember{},
		pipeline.TSIGKey{},
		pipeline.TSIGSecret{},
		pipeline.ReplayStep{},
		pipeline.DiffLine{},
		api.Report{},
		keymgr.Key{},
		pipeline.TakeoverPlan{},
		keymgr.KeyFiles{},
		migrate.Plan{},
		migrate.Imported{},
		migrate.Checked{},
		migrate.Returned{},
		pipeline.DSRecord{},
		pipeline.RolloverStatus{},
		pipeline.PlannedStep{},
		simulate.Line{},
		simulate.Summary{},
		pipeline.BackupKey{},
		pipeline.KeyShare{},
		pipeline.PolicyInfo{},
		pipeline.PolicyChange{},
		pipeline.PolicyPlan{},
		pipeline.FleetOutlook{},
		fleet.Plan{},
		fleet.Report{},
		fleetExport{},
		policyCheckResult{},
		pipeline.Reloaded{},
		pipeline.JournalStatus{},
		pipeline.CompactReport{},
		journal.VerifyReport{},
		journal.ClusterStatus{},
		journal.GrowReport{},
		journal.StandbyStatus{},
		promotion{},
		backup.Summary{},
		restored{},
		pipeline.AuditHead{},
		audit.Report{},
		signSummary{},
		dumpRecord{},
		versionInfo{},
		chain.Report{},
		tlsaRecord{},
		tlsaReport{},
		api.Health{},
		pipeline.ClockStatus{},
		pipeline.WorkersStatus{},
		pipeline.Enrolment{},
	} {
		for name := range jsonFields(reflect.TypeOf(v)) {
			if !strings.Contains(text, "`"+name+"`") {
				t.Errorf("%T: field %s is not on the page", v, name)
			}
		}
	}
}

// jsonFields collects the names of all fields of a type and of what it holds.
func jsonFields(t reflect.Type) map[string]bool {
	fields := map[string]bool{}
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		return jsonFields(t.Elem())
	case reflect.Struct:
	default:
		return fields
	}
	if t.PkgPath() == "time" {
		return fields
	}
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name != "" && name != "-" {
			fields[name] = true
		}
		if name != "-" {
			for inner := range jsonFields(f.Type) {
				fields[inner] = true
			}
		}
	}
	return fields
}

// The page of notices has every code, and no other.
func TestNoticesPage_HasEveryCode(t *testing.T) {
	var shown []string
	for line := range strings.Lines(page(t, "notices")) {
		if rest, ok := strings.CutPrefix(line, "| `"); ok {
			code, rest, _ := strings.Cut(rest, "`")
			shown = append(shown, code)
			severities, _, _ := strings.Cut(strings.TrimPrefix(rest, " | "), " | ")
			for severity := range strings.SplitSeq(severities, ", ") {
				if !slices.Contains([]string{"info", "warning", "alarm"}, severity) {
					t.Errorf("%s has the severity %q", code, severity)
				}
			}
		}
	}
	slices.Sort(shown)
	var want []string
	for _, code := range pipeline.NoticeCodes() {
		want = append(want, string(code))
		if topic := code.Topic(); pages()[topic] == "" {
			t.Errorf("%s: there is no page %q", code, topic)
		}
	}
	if diff := cmp.Diff(want, shown); diff != "" {
		t.Errorf("codes (-program +page):\n%s", diff)
	}
}

func TestManual_NamesEveryPage(t *testing.T) {
	text := page(t, "manual")
	for _, name := range topics() {
		if name != "manual" && !strings.Contains(text, "`sluice help "+name+"`") {
			t.Errorf("page %s is not in the index", name)
		}
	}
}

// Commands that a page shows exist, with the flags that it shows.
func TestManual_CommandsExist(t *testing.T) {
	app := newApp(&env{})
	for _, name := range topics() {
		text := strings.NewReplacer("\\\n> ", " ", "\\\n", " ").Replace(page(t, name))
		for line := range strings.Lines(text) {
			for _, shown := range commandLines(line) {
				args := strings.Fields(shown)
				ordered, err := orderFlags(app, args)
				if err != nil {
					t.Errorf("page %s: sluice %s: %v", name, shown, err)
					continue
				}
				if len(ordered) > 0 && ordered[0] == "--" || leaf(app.Commands, ordered) == nil {
					t.Errorf("page %s: sluice %s: no such command", name, shown)
				}
			}
		}
	}
}

// commandLines finds the command lines in a line of text: in backquotes,
// indented, or behind the prompt of a console block.
func commandLines(line string) []string {
	var found []string
	for i, part := range strings.Split(line, "`") {
		if i%2 == 1 && strings.HasPrefix(part, "sluice ") {
			found = append(found, strings.TrimPrefix(part, "sluice "))
		}
	}
	for _, shown := range []string{"    sluice ", "$ sluice "} {
		if rest, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), shown); ok {
			for _, end := range []string{" > ", " | ", " &", "  #"} {
				rest, _, _ = strings.Cut(rest, end)
			}
			found = append(found, rest)
		}
	}
	return found
}

// leaf finds the command that words name, nil where they name none.
func leaf(commands []*urfave.Command, words []string) *urfave.Command {
	for _, c := range commands {
		if len(words) > 0 && c.HasName(words[0]) {
			if len(c.Subcommands) > 0 && (len(c.Flags) == 0 || len(words) > 1 && !isFlag(words[1])) {
				return leaf(c.Subcommands, words[1:])
			}
			return c
		}
	}
	return nil
}
