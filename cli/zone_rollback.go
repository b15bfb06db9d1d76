package cli

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"sluice/cli/api"
	"sluice/pipeline"
)

func zoneRollback(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "rollback", Usage: "publish an earlier version's content again, and hold the zone there", ArgsUsage: "ZONE",
		Description: "The content of that version is published with today's keys and signatures and a higher serial,\n" +
			"through the reviews. DS and NS records that differ are shown, and want to be confirmed. The source\n" +
			"is not read until sluice zone release.",
		OnUsageError: onUsageError,
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "to", Usage: "the version: the `SERIAL` that it was published with, an instance (s14), seq:N or a time"},
			reasonFlag(),
			&urfave.BoolFlag{Name: "dry-run", Usage: "tell what would change, and change nothing"},
			&urfave.BoolFlag{Name: "yes", Usage: "DS and NS records that differ are meant"},
			noWaitFlag(),
		},
		Action: e.zoneAction(func(c *urfave.Context, client *api.Client, args []string) error {
			const usage = "usage: sluice zone rollback ZONE --to SERIAL --reason TEXT [--dry-run] [--yes]"
			if c.String("to") == "" {
				return &usageError{msg: "--to is missing", hint: usage}
			}
			to, err := versionWord(c.String("to"))
			if err != nil {
				return err
			}
			q := pipeline.RollbackRequest{To: to, Reason: c.String("reason"), Yes: c.Bool("yes"), DryRun: c.Bool("dry-run")}
			if !q.DryRun && strings.TrimSpace(q.Reason) == "" {
				return &usageError{msg: "--reason is missing", hint: usage}
			}
			done, err := e.rollBack(c, client, args[0], q)
			if err != nil || !done {
				return err
			}
			return e.asked(c, client, args[0])
		}),
	}
}

// rollBack asks for a rollback, and a person to confirm what differs. It
// reports false where nothing was to be changed.
func (e *env) rollBack(c *urfave.Context, client *api.Client, name string, q pipeline.RollbackRequest) (done bool, err error) {
	plan, err := client.Rollback(c.Context, name, q)
	if err != nil {
		return false, err
	}
	if q.DryRun || !plan.Done || !e.json {
		if err := e.printRollback(plan); err != nil {
			return false, err
		}
	}
	switch {
	case q.DryRun:
		return false, nil
	case plan.Proposed:
		return false, e.tellProposed(plan.Zone)
	case plan.Done:
		return true, nil
	case !e.json && isTerminal(e.stdin) && e.confirmed("publish this? yes or no: "):
		q.Confirm = plan.Confirm
		if plan, err = client.Rollback(c.Context, name, q); err != nil || plan.Done {
			return err == nil, err
		}
		if plan.Proposed {
			return false, e.tellProposed(plan.Zone)
		}
		err = fmt.Errorf("other records differ by now, nothing was changed: %w", pipeline.ErrState)
	default:
		err = fmt.Errorf("%d DS and %d NS records differ and this is not confirmed, nothing was changed: %w",
			plan.DSChanges, plan.NSChanges, pipeline.ErrState)
	}
	return false, withHint(err, "look at what differs; if it is meant, the same command with --yes")
}

// confirmed asks a person at the terminal.
func (e *env) confirmed(question string) bool {
	fmt.Fprint(e.stderr, question)
	answer, err := bufio.NewReader(io.LimitReader(e.stdin, 100)).ReadString('\n')
	return err == nil && strings.TrimSpace(answer) == "yes"
}

// printRollback tells what a rollback changes.
func (e *env) printRollback(plan pipeline.RollbackPlan) error {
	if e.json {
		return e.printJSON(plan)
	}
	err := e.fields(
		"zone", plan.Zone,
		"published", versionText(plan.From),
		"goes back to", versionText(plan.To),
		"as serial", fmt.Sprint(plan.NextSerial),
		"content", fmt.Sprintf("%s removed, %d added", count(plan.Removed, "record"), plan.Added),
		"DS, NS", fmt.Sprintf("%d DS and %d NS records differ", plan.DSChanges, plan.NSChanges),
	)
	if err != nil {
		return err
	}
	for _, l := range plan.Differences {
		line := e.paint(green, "  + "+l.Record)
		if l.Removed {
			line = e.paint(red, "  - "+l.Record)
		}
		if err := e.printf("%s\n", line); err != nil {
			return err
		}
	}
	if left := plan.DSChanges + plan.NSChanges - uint64(len(plan.Differences)); left > 0 {
		err = e.printf("  and %d more: sluice zone diff %s %s %s\n", left, plan.Zone, plan.From.Loaded, plan.To.Loaded)
	}
	for _, note := range plan.Notes {
		if err == nil {
			err = e.printf("%s\n", note)
		}
	}
	return err
}

// versionText tells a version in one line.
func versionText(v pipeline.ZoneVersion) string {
	text := fmt.Sprintf("serial %d, %s", v.Serial, v.Loaded)
	if v.Signed != "" {
		text += ", " + v.Signed
	}
	return text + ", " + when(v.Time)
}

func zoneRelease(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "release", Usage: "end the hold of a rollback: the source is compared in full and followed again", ArgsUsage: "ZONE",
		OnUsageError: onUsageError,
		Flags:        []urfave.Flag{reasonFlag(), noWaitFlag()},
		Action: e.zoneAction(func(c *urfave.Context, client *api.Client, args []string) error {
			status, err := client.Release(c.Context, args[0], c.String("reason"))
			if err != nil {
				return err
			}
			return e.afterVerdict(c, client, status)
		}),
	}
}
