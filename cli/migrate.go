package cli

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	urfave "github.com/urfave/cli/v2"

	"sluice/cli/api"
	"sluice/cli/migrate"
	"sluice/pipeline"
)

func migrateCommand(e *env) *urfave.Command {
	c := &urfave.Command{
		Name:            "migrate",
		Usage:           "take zones over from another signer: a plan first, then steps that can be taken back",
		HideHelpCommand: true,
		OnUsageError:    onUsageError,
		Action:          commandMissing,
	}
	for _, kind := range slices.Sorted(maps.Keys(migrate.Readers())) {
		c.Subcommands = append(c.Subcommands, migratePlan(e, kind))
	}
	c.Subcommands = append(c.Subcommands, migrateImport(e), migrateCheck(e), migrateBack(e))
	return c
}

func zonesFlag() urfave.Flag {
	return &urfave.StringSliceFlag{Name: "zone", Usage: "only this `ZONE`; can be repeated"}
}

func migratePlan(e *env, kind string) *urfave.Command {
	return &urfave.Command{
		Name: kind, Usage: "plan how the zones of " + migrate.Names()[kind] + " come here", ArgsUsage: "SOURCE",
		Description: "SOURCE is " + migrate.Sources()[kind] + ". Writes a folder with PLAN.md, which a person reads,\n" +
			"policies, zones and keys; changes nothing, here or there. See: sluice help migrate",
		OnUsageError: onUsageError,
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "the folder `DIR` to write to; a plan of the same source that is there is made anew"},
			zonesFlag(),
		},
		Action: func(c *urfave.Context) error {
			args, err := arguments(c, "SOURCE")
			if err != nil {
				return err
			}
			dir := c.String("output")
			if dir == "" {
				return &usageError{msg: "-o DIR is missing", hint: fmt.Sprintf("usage: sluice migrate %s SOURCE -o DIR", kind)}
			}
			source, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			o := migrate.Options{Now: time.Now()}
			for _, name := range c.StringSlice("zone") {
				if name, err = fullName(name); err != nil {
					return err
				}
				o.Zones = append(o.Zones, strings.TrimSuffix(name, "."))
			}
			former, err := migrate.Readers()[kind](c.Context, source, o)
			if err != nil {
				return err
			}
			plan, err := migrate.Write(dir, kind, source, former, o)
			if err != nil {
				return err
			}
			return e.printMigration(plan, dir)
		},
	}
}

// printMigration tells of a plan. Zones that are refused fail the command.
func (e *env) printMigration(plan migrate.Plan, dir string) error {
	refused := 0
	for _, z := range plan.Zones {
		if z.Refused != "" {
			refused++
		}
	}
	var err error
	if e.json {
		err = e.printJSON(plan)
	} else {
		err = e.migrationText(plan, dir)
	}
	if err == nil && refused > 0 {
		if !e.json {
			e.note("%s cannot be taken over as they are", count(uint64(refused), "zone")) //nolint:gosec // a length
		}
		err = errSilent
	}
	return err
}

func (e *env) migrationText(plan migrate.Plan, dir string) error {
	rows := make([][]string, 0, len(plan.Zones))
	for _, z := range plan.Zones {
		var keys []string
		for _, k := range z.Keys {
			keys = append(keys, fmt.Sprintf("%s %d %s", strings.ToUpper(string(k.Role)), k.Tag, k.State))
		}
		text := orDash(strings.Join(keys, ", "))
		if z.Refused != "" {
			text = e.paint(red, "refused: "+z.Refused)
		}
		rows = append(rows, []string{z.Zone, orDash(z.Policy), text})
	}
	if err := e.table([]string{"ZONE", "POLICY", "KEYS"}, rows); err != nil {
		return err
	}
	for _, text := range plan.Kept {
		e.note("%s", text)
	}
	return e.printf("\nread %s: %s; nothing was changed\nread the plan: %s\nthen: sluice migrate import %s --dry-run\n",
		plan.Source, plan.Software, filepath.Join(dir, "PLAN.md"), dir)
}

func migrateImport(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "import", Usage: "bring in the zones of a plan with their keys", ArgsUsage: "DIR",
		Description: "The former signer is read again first: where its keys moved since the plan was made,\n" +
			"nothing is done. It can be stopped at any time and begun again: zones that are here\n" +
			"are passed over.",
		OnUsageError: onUsageError,
		Flags:        []urfave.Flag{zonesFlag(), &urfave.BoolFlag{Name: "dry-run", Usage: "tell how the keys of each zone would be taken over; nothing is added"}},
		Action: func(c *urfave.Context) error {
			args, err := arguments(c, "DIR")
			if err != nil {
				return err
			}
			q := migrate.ImportQuery{Zones: c.StringSlice("zone"), DryRun: c.Bool("dry-run"), Now: time.Now()}
			var mu sync.Mutex
			bad := 0
			q.Tell = func(one migrate.Imported) {
				mu.Lock()
				defer mu.Unlock()
				if one.Outcome == migrate.Refused || one.Outcome == migrate.Failed {
					bad++
				}
				if !e.json {
					e.importedText(one)
				}
			}
			return e.clientAction(func(client *api.Client) error {
				list, err := migrate.Import(c.Context, client, args[0], q)
				if err != nil && strings.Contains(err.Error(), "permission denied") {
					err = withHint(err, "the daemon reads the keys: give it the folder, such as with: chown -R sluice: %s", args[0])
				}
				if e.json && list != nil {
					if jsonErr := e.printJSON(list); err == nil {
						err = jsonErr
					}
				}
				if err == nil && bad > 0 {
					err = errSilent
				}
				if err == nil && !e.json && !q.DryRun {
					err = e.printf("next: sluice migrate check %s\n", args[0])
				}
				return err
			})
		},
	}
}

// importedText tells what became of a zone.
func (e *env) importedText(one migrate.Imported) {
	color := green
	if one.Outcome == migrate.Refused || one.Outcome == migrate.Failed {
		color = red
	}
	text := fmt.Sprintf("%s: %s", one.Zone, e.paint(color, string(one.Outcome)))
	if one.Serial != nil {
		text += fmt.Sprintf(", serial %d", *one.Serial)
	}
	if one.Text != "" {
		text += ": " + one.Text
	}
	_ = e.printf("%s\n", text) // what cannot be written cannot be reported there
	if one.Plan == nil {
		return
	}
	for _, k := range one.Plan.Keys {
		_ = e.printf("  %s %d %s\n", strings.ToUpper(k.Role), k.Tag, k.State)
	}
	for _, r := range one.Plan.Rollovers {
		_ = e.printf("  rollover of %s goes on at step %d: %s\n", r.Kind, r.Step, r.Text)
	}
	if one.Plan.DS != "" {
		_ = e.printf("  %s\n", one.Plan.DS)
	}
}

func migrateCheck(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "check", Usage: "compare the zones of a plan with what the former signer and the public servers show", ArgsUsage: "DIR",
		Description: "A zone is ready (its secondaries may be switched), switched (all public servers show\n" +
			"what is published here), or not ready, and why. Exits with 0 where none is not ready.",
		OnUsageError: onUsageError,
		Flags: []urfave.Flag{
			zonesFlag(),
			&urfave.BoolFlag{Name: "skip-contents", Usage: "do not compare the records of both, which takes a transfer of each zone"},
		},
		Action: func(c *urfave.Context) error {
			args, err := arguments(c, "DIR")
			if err != nil {
				return err
			}
			q := migrate.CheckQuery{Zones: c.StringSlice("zone"), SkipContents: c.Bool("skip-contents")}
			return e.clientAction(func(client *api.Client) error {
				list, err := migrate.Check(c.Context, client, args[0], q)
				if err != nil {
					return err
				}
				if e.json {
					err = e.printJSON(list)
				} else {
					err = e.checkedText(list)
				}
				if err == nil && slices.ContainsFunc(list, func(one migrate.Checked) bool { return one.Verdict == migrate.NotReady }) {
					err = errSilent
				}
				return err
			})
		},
	}
}

func (e *env) checkedText(list []migrate.Checked) error {
	serial := func(n *uint32) string {
		if n == nil {
			return "-"
		}
		return fmt.Sprint(*n)
	}
	rows := make([][]string, 0, len(list))
	for _, one := range list {
		rows = append(rows, []string{one.Zone, string(one.Verdict), serial(one.Serial), serial(one.Former), fmt.Sprintf("%d of %d", one.Ours, one.Servers)})
	}
	err := e.paintedTable([]string{"ZONE", "VERDICT", "SERIAL", "FORMER", "PUBLIC SERVERS WITH OURS"}, rows, func(row, column int) string {
		switch {
		case column != 1:
			return ""
		case list[row].Verdict == migrate.NotReady:
			return red
		}
		return green
	})
	for _, one := range list {
		for _, r := range one.Reasons {
			e.note("%s: %s\n  to do: %s", one.Zone, r.Text, r.Do)
		}
		for _, n := range one.Notes {
			e.note("%s: %s", one.Zone, n)
		}
	}
	return err
}

func migrateBack(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "back", Usage: "take zones back to the former signer", ArgsUsage: "DIR",
		Description: "As long as all public servers answer, and none shows what is published here, the zones\n" +
			"are taken away here. After that their keys, as they stand now, are written to DIR/back, with what is\n" +
			"to be done at the former signer; the zones go once --done says that their secondaries\n" +
			"are there again. History and keys stay.",
		OnUsageError: onUsageError,
		Flags: []urfave.Flag{
			zonesFlag(),
			&urfave.BoolFlag{Name: "done", Usage: "the secondaries take the zones from the former signer again: remove them here"},
			&urfave.BoolFlag{Name: "i-understand", Usage: "I understand that whoever reads the .private files can sign the zones"},
		},
		Action: func(c *urfave.Context) error {
			args, err := arguments(c, "DIR")
			if err != nil {
				return err
			}
			if !c.Bool("i-understand") && !c.Bool("done") {
				return &usageError{
					msg:  "private keys may leave their keystore: whoever reads the files can sign the zones",
					hint: "where that is meant: sluice migrate back " + args[0] + " --i-understand",
				}
			}
			return e.clientAction(func(client *api.Client) error {
				list, err := migrate.Back(c.Context, client, args[0], migrate.BackQuery{Zones: c.StringSlice("zone"), Done: c.Bool("done")})
				// What was done before an error is told, too.
				if printErr := e.returnedText(list, err); err == nil {
					err = printErr
				}
				if err != nil {
					return err
				}
				if c.Bool("done") && slices.ContainsFunc(list, func(one migrate.Returned) bool { return one.Outcome == migrate.Waits }) {
					return fmt.Errorf("not all zones were taken away: %w", pipeline.ErrState)
				}
				return nil
			})
		},
	}
}

// returnedText tells how zones go back; err is what ended it early.
func (e *env) returnedText(list []migrate.Returned, err error) error {
	if e.json {
		if err != nil && len(list) == 0 {
			return nil
		}
		return e.printJSON(list)
	}
	for _, one := range list {
		text := one.Zone + ": " + one.Outcome
		if one.Text != "" {
			text += ": " + one.Text
		}
		if err := e.printf("%s\n", text); err != nil {
			return err
		}
		for _, s := range one.Steps {
			if err := e.printf("  %s\n", strings.TrimPrefix(s, "$ ")); err != nil {
				return err
			}
		}
	}
	return nil
}
