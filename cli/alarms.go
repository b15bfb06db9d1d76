package cli

import (
	"fmt"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"sluice/cli/api"
	"sluice/pipeline"
)

func alarmsCommand(e *env) *urfave.Command {
	return &urfave.Command{
		Name:         "alarms",
		Usage:        "who is told of what needs a person, and whether that gets there",
		Description:  "A command or a web server is told, as [alarms] in the daemon's config says.\nMore: sluice help notices",
		OnUsageError: onUsageError,
		Action:       commandMissing,
		Subcommands:  []*urfave.Command{alarmsList(e), alarmsTest(e)},
	}
}

func alarmsList(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "list", Usage: "what was told and is still so, and what could not be told",
		OnUsageError: onUsageError,
		Action: func(c *urfave.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			return e.clientAction(func(client *api.Client) error {
				st, err := client.AlarmsStatus(c.Context)
				if err != nil {
					return err
				}
				if e.json {
					return e.printJSON(st)
				}
				return e.printAlarms(st)
			})
		},
	}
}

// printAlarms tells of each target.
func (e *env) printAlarms(st pipeline.AlarmsStatus) error {
	if len(st.Targets) == 0 {
		return e.printf("nobody is told: name a command or a webhook in the config, [alarms]\n")
	}
	for _, t := range st.Targets {
		state := e.paint(green, "well")
		switch {
		case t.Failed > 0:
			state = e.paint(red, fmt.Sprintf("failed %s in a row, since %s: %s; again %s", count(uint64(t.Failed), "time"), when(*t.Since), t.Error, when(*t.Retry)))
		case t.Tested != nil && !t.Tested.OK:
			state = e.paint(red, fmt.Sprintf("its test failed at %s: %s; mend it, then: sluice alarms test", when(t.Tested.At), t.Tested.Error))
		case t.Tested != nil:
			state += ", tested at " + when(t.Tested.At)
		}
		if err := e.fields("target", t.Target, "to", t.To, "state", state, "told", count(uint64(len(t.Told)), "condition")); err != nil {
			return err
		}
		var lines []string
		for _, told := range t.Told {
			whose := told.Zone
			if whose == "" {
				whose = "this process"
			}
			lines = append(lines, fmt.Sprintf("  %s  %s  %s, since %s: %s", e.paint(severityColor(told.Severity), told.Severity), whose, told.Code, when(told.Since), told.Text))
		}
		if len(lines) > 0 {
			if err := e.printf("%s\n", strings.Join(lines, "\n")); err != nil {
				return err
			}
		}
	}
	return nil
}

func alarmsTest(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "test", Usage: "tell everybody a test, now",
		OnUsageError: onUsageError,
		Action: func(c *urfave.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			return e.clientAction(func(client *api.Client) error {
				results, err := client.TestAlarms(c.Context)
				if err != nil {
					return err
				}
				failed := false
				for _, r := range results {
					failed = failed || !r.OK
				}
				if e.json {
					err = e.printJSON(results)
				} else {
					rows := make([][]string, 0, len(results))
					for _, r := range results {
						outcome := e.paint(green, "told")
						if !r.OK {
							outcome = e.paint(red, "failed: "+r.Error)
						}
						rows = append(rows, []string{r.Target, r.To, fmt.Sprintf("%d ms", r.TookMS), outcome})
					}
					err = e.table([]string{"TARGET", "TO", "TOOK", "OUTCOME"}, rows)
				}
				if err == nil && failed {
					return errSilent
				}
				return err
			})
		},
	}
}
