package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"sluice/cli/api"
	"sluice/journal/event"
	"sluice/pipeline"
)

func stageFlags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.BoolFlag{Name: event.StageLoaded, Aliases: []string{"unsigned"}, Usage: "at the review of what was loaded"},
		&urfave.BoolFlag{Name: event.StageSigned, Usage: "at the review of what was signed"},
	}
}

func reasonFlag() urfave.Flag {
	return &urfave.StringFlag{Name: "reason", Usage: "why, for the history: `TEXT`"}
}

// stageOf reads --loaded or --signed.
func stageOf(c *urfave.Context) (string, error) {
	loaded, signed := c.Bool(event.StageLoaded), c.Bool(event.StageSigned)
	switch {
	case loaded == signed:
		return "", usagef("which review? want one of --loaded and --signed")
	case loaded:
		return event.StageLoaded, nil
	}
	return event.StageSigned, nil
}

func zoneApprove(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "approve", Usage: "give a good verdict on the instance under review", ArgsUsage: "ZONE INSTANCE|SERIAL",
		OnUsageError: onUsageError,
		Flags:        append(stageFlags(), reasonFlag(), noWaitFlag()),
		Action:       e.verdictAction((*api.Client).Approve),
	}
}

func zoneReject(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "reject", Usage: "give a bad verdict on the instance under review: it is dropped, or halts the zone, as the policy says",
		ArgsUsage:    "ZONE INSTANCE|SERIAL",
		OnUsageError: onUsageError,
		Flags:        append(stageFlags(), reasonFlag(), noWaitFlag()),
		Action:       e.verdictAction((*api.Client).Reject),
	}
}

// verdictAction gives a verdict on the instance that the caller names, with
// the digest that the daemon shows of it now.
func (e *env) verdictAction(give func(*api.Client, context.Context, string, string, pipeline.NewVerdict) (pipeline.ZoneStatus, error)) urfave.ActionFunc {
	return e.zoneAction(func(c *urfave.Context, client *api.Client, args []string) error {
		stage, err := stageOf(c)
		if err != nil {
			return err
		}
		status, err := client.Zone(c.Context, args[0])
		if err != nil {
			return err
		}
		rv, err := pendingReview(status, stage, args[1])
		if err != nil {
			return err
		}
		status, err = give(client, c.Context, args[0], stage, pipeline.NewVerdict{
			Instance: rv.Instance, Digest: rv.Digest, Reason: c.String("reason"),
		})
		if err != nil {
			return err
		}
		return e.afterVerdict(c, client, status)
	}, "INSTANCE|SERIAL")
}

// afterVerdict shows what came of a verdict.
func (e *env) afterVerdict(c *urfave.Context, client *api.Client, status pipeline.ZoneStatus) error {
	if c.Bool("no-wait") {
		return e.printStatus(status, false)
	}
	return e.awaitZone(c, client, status.Name)
}

// pendingReview finds the review that an instance or a serial names.
func pendingReview(s pipeline.ZoneStatus, stage, word string) (pipeline.ReviewStatus, error) {
	serial, err := strconv.ParseUint(word, 10, 32)
	bySerial := err == nil
	if prefix := map[string]string{event.StageLoaded: "l", event.StageSigned: "s"}[stage]; !bySerial && !strings.HasPrefix(word, prefix) {
		return pipeline.ReviewStatus{}, usagef("%q: want a serial, or a %s instance such as %s12", word, stage, prefix)
	}
	for _, rv := range s.Reviews {
		if rv.Stage != stage {
			continue
		}
		if rv.Instance == word || bySerial && uint64(rv.Serial) == serial {
			return rv, nil
		}
		return rv, withHint(fmt.Errorf("%s is not under %s review, %s (serial %d) is: %w", word, stage, rv.Instance, rv.Serial, pipeline.ErrState),
			"see: sluice zone status %s", s.Name)
	}
	return pipeline.ReviewStatus{}, withHint(fmt.Errorf("zone %s: nothing is under %s review: %w", s.Name, stage, pipeline.ErrState),
		"see: sluice zone status %s", s.Name)
}

func zoneOverride(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "override", Usage: "pass what is under review or halted the zone, whatever checkers say", ArgsUsage: "ZONE",
		OnUsageError: onUsageError,
		Flags:        append(stageFlags(), reasonFlag(), noWaitFlag()),
		Action: e.zoneAction(func(c *urfave.Context, client *api.Client, args []string) error {
			stage, err := stageOf(c)
			if err != nil {
				return err
			}
			if strings.TrimSpace(c.String("reason")) == "" {
				return &usageError{msg: "--reason is missing", hint: "usage: sluice zone override ZONE --loaded|--signed --reason TEXT"}
			}
			status, err := client.Override(c.Context, args[0], stage, pipeline.NewDecision{Reason: c.String("reason")})
			if err != nil {
				return err
			}
			return e.afterVerdict(c, client, status)
		}),
	}
}

func zoneReset(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "reset", Usage: "end a halt and drop the instance that led to it", ArgsUsage: "ZONE",
		OnUsageError: onUsageError,
		Flags:        []urfave.Flag{reasonFlag()},
		Action: e.zoneAction(func(c *urfave.Context, client *api.Client, args []string) error {
			status, err := client.Reset(c.Context, args[0], pipeline.NewDecision{Reason: c.String("reason")})
			if err != nil {
				return err
			}
			return e.printStatus(status, false)
		}),
	}
}

func zoneMaintenance(e *env) *urfave.Command {
	set := func(name, usage string, enabled bool) *urfave.Command {
		return &urfave.Command{
			Name: name, Usage: usage, ArgsUsage: "ZONE",
			OnUsageError: onUsageError,
			Flags:        []urfave.Flag{reasonFlag()},
			Action: e.zoneAction(func(c *urfave.Context, client *api.Client, args []string) error {
				status, err := client.SetMaintenance(c.Context, args[0], api.SetMaintenance{Enabled: enabled, Reason: c.String("reason")})
				if err != nil {
					return err
				}
				return e.printStatus(status, false)
			}),
		}
	}
	return &urfave.Command{
		Name: "maintenance", Usage: "block new work on a zone; what is published is kept fresh",
		HideHelpCommand: true,
		OnUsageError:    onUsageError,
		Action:          commandMissing,
		Subcommands: []*urfave.Command{
			set("enable", "block loads, signings of new content and hooks", true),
			set("disable", "let work go on", false),
		},
	}
}

// printReviews tells what is under review, and what can be done.
func (e *env) printReviews(s pipeline.ZoneStatus) error {
	for _, rv := range s.Reviews {
		state := e.paint(yellow, rv.State)
		if rv.State == "halted" {
			state = e.paint(red, rv.State)
		}
		if err := e.printf("\nreview of %s (%s)\n", rv.Instance, rv.Stage); err != nil {
			return err
		}
		pairs := []string{
			"  state", state,
			"  serial", fmt.Sprint(rv.Serial),
			"  since", when(rv.Since),
			"  digest", rv.Digest,
			"  passed", strings.Join(rv.Checks, ", "),
		}
		for _, v := range rv.Verdicts {
			pairs = append(pairs, "  "+v.Checker, verdictText(v))
		}
		pairs = append(pairs, "  waits for", rv.WaitsFor, "  server", rv.Server, "  fetch it", rv.Query)
		for i, action := range rv.Actions {
			label := "  then"
			if i > 0 {
				label = "  or"
			}
			pairs = append(pairs, label, action)
		}
		if err := e.fields(pairs...); err != nil {
			return err
		}
	}
	return nil
}

func verdictText(v pipeline.Verdict) string {
	text := "rejected"
	if v.Approved {
		text = "approved"
	}
	text += ", " + when(v.Time)
	if v.Checker == "manual" || v.Checker == "override" {
		text += ", " + v.Actor.Name
	}
	if v.Reason != "" {
		text += ": " + v.Reason
	}
	return text
}
