package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"sluice/cli/api"
	"sluice/cli/fleet"
	"sluice/pipeline"
)

// errChanges is how plan --detailed-exitcode says that there is something to do.
var errChanges = errors.New("there are changes")

// errRefused ends a command with exit code 4 after it has said why itself.
var errRefused = fmt.Errorf("%w: %w", errSilent, pipeline.ErrState)

func fleetFlags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.BoolFlag{Name: "prune", Usage: "remove zones and policies that the folder does not have"},
		&urfave.StringSliceFlag{Name: "zone", Usage: "look at this zone only (`NAME`); may stand several times"},
		&urfave.StringFlag{Name: "commit", Usage: "the commit that the history names (`ID`)", DefaultText: "what git says of DIR"},
	}
}

func planCommand(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "plan", Usage: "show what would change until the daemon runs what a folder says", ArgsUsage: "DIR",
		OnUsageError: onUsageError,
		Flags: append(
			fleetFlags(),
			&urfave.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "keep the plan in `FILE`, for sluice apply --plan"},
			&urfave.BoolFlag{Name: "detailed-exitcode", Usage: "exit with 10 where there is something to do"},
		),
		Action: func(c *urfave.Context) error {
			args, err := arguments(c, "DIR")
			if err != nil {
				return err
			}
			return e.clientAction(func(client *api.Client) error {
				plan, err := e.makePlan(c, client, args[0])
				if err != nil {
					return err
				}
				if file := c.String("output"); file != "" {
					if err := e.writeTo(file, func(w io.Writer) error { return writeJSON(w, plan) }); err != nil {
						return err
					}
				}
				if e.json {
					err = e.printJSON(plan)
				} else {
					err = e.printFleetPlan(plan)
				}
				switch {
				case err != nil:
					return err
				case plan.Summary.Refused > 0:
					return errRefused
				case c.Bool("detailed-exitcode") && !plan.Empty():
					return errChanges
				}
				return nil
			})
		},
	}
}

// makePlan reads a folder and compares it with what runs, as the flags say.
func (e *env) makePlan(c *urfave.Context, client *api.Client, dir string) (fleet.Plan, error) {
	o := fleet.Options{Zones: c.StringSlice("zone"), Prune: c.Bool("prune")}
	for _, name := range o.Zones {
		if _, err := parseZone(name); err != nil {
			return fleet.Plan{}, err
		}
	}
	return e.planOf(c, client, dir, o)
}

func (e *env) planOf(c *urfave.Context, client *api.Client, dir string, o fleet.Options) (fleet.Plan, error) {
	full, err := filepath.Abs(dir)
	if err != nil {
		return fleet.Plan{}, err
	}
	if info, err := os.Stat(full); err != nil || !info.IsDir() {
		return fleet.Plan{}, usagef("%s is no folder", dir)
	}
	o.Remote = strings.HasPrefix(e.apiAddress, "https:") || strings.HasPrefix(e.apiAddress, "http:")
	f, err := fleet.Read(full)
	if err != nil {
		return fleet.Plan{}, err
	}
	plan, err := fleet.Make(c.Context, client, f, o)
	plan.Commit = fleet.Commit{ID: c.String("commit")}
	if plan.Commit.ID == "" {
		plan.Commit = fleet.Head(c.Context, full)
	}
	return plan, err
}

func applyCommand(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "apply", Usage: "make the daemon run what a folder says, each zone all or nothing", ArgsUsage: "DIR",
		OnUsageError: onUsageError,
		Flags: append(
			fleetFlags(),
			reasonFlag(),
			&urfave.StringFlag{Name: "plan", Usage: "do what the plan in `FILE` says, and only if nothing changed since; - is standard input"},
			&urfave.IntFlag{Name: "max-removals", Usage: "remove up to `N` zones", DefaultText: "a tenth of those that run"},
			&urfave.BoolFlag{Name: "no-wait", Usage: "return once all is changed, not only when the zones are loaded and signed"},
		),
		Action: func(c *urfave.Context) error {
			args, err := arguments(c, "DIR")
			if err != nil {
				return err
			}
			if c.IsSet("max-removals") && c.Int("max-removals") < 1 {
				return usagef("--max-removals %d: want a number of zones, 1 at least", c.Int("max-removals"))
			}
			return e.clientAction(func(client *api.Client) error {
				plan, err := e.planToApply(c, client, args[0])
				if err != nil {
					return err
				}
				return e.apply(c, client, plan)
			})
		},
	}
}

// planToApply makes the plan that apply carries out: anew, and where one was kept
// only if it still is the same.
func (e *env) planToApply(c *urfave.Context, client *api.Client, dir string) (fleet.Plan, error) {
	if c.String("plan") == "" {
		return e.makePlan(c, client, dir)
	}
	if c.Bool("prune") || c.IsSet("zone") {
		return fleet.Plan{}, usagef("--plan has its own --prune and --zone, which the plan was made with")
	}
	kept, err := e.readPlan(c.String("plan"))
	if err != nil {
		return kept, err
	}
	plan, err := e.planOf(c, client, dir, fleet.Options{Zones: kept.Only, Prune: kept.Prune})
	if err != nil {
		return plan, err
	}
	return plan, plan.Still(kept)
}

func (e *env) readPlan(path string) (fleet.Plan, error) {
	if path == "-" {
		return fleet.Load(e.stdin)
	}
	in, err := os.Open(path)
	if err != nil {
		return fleet.Plan{}, err
	}
	defer in.Close() //nolint:errcheck // opened for reading
	plan, err := fleet.Load(in)
	if err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return plan, err
}

// apply carries a plan out and tells what became of it.
func (e *env) apply(c *urfave.Context, client *api.Client, plan fleet.Plan) error {
	if err := plan.CheckRemovals(c.Int("max-removals")); err != nil {
		return err
	}
	m := e.newMeter()
	report, err := fleet.Apply(c.Context, client, plan, fleet.Applying{
		Reason:      plan.Commit.Reason(plan.Folder, c.String("reason")),
		MaxRemovals: c.Int("max-removals"), Wait: !c.Bool("no-wait"),
		Floor: func(ctx context.Context, zone, text string) (*uint32, error) {
			return serialFloor(ctx, zone, text)
		},
		Progress: m.together(),
	})
	m.end()
	if e.json {
		err = errors.Join(e.printJSON(report), err)
	} else {
		err = errors.Join(e.printFleetReport(plan, report), err)
	}
	switch {
	case err != nil:
		return err
	case report.Failed > 0:
		return errSilent
	case report.Refused > 0:
		return errRefused
	}
	return nil
}

func fleetCommand(e *env) *urfave.Command {
	return &urfave.Command{
		Name:         "fleet",
		Usage:        "write what runs as a folder, for sluice plan and sluice apply",
		OnUsageError: onUsageError,
		Action:       commandMissing,
		Subcommands: []*urfave.Command{{
			Name: "export", Usage: "write all zones and policies that run into a new folder; keys stay with the daemon", ArgsUsage: "DIR",
			OnUsageError: onUsageError,
			Action: func(c *urfave.Context) error {
				args, err := arguments(c, "DIR")
				if err != nil {
					return err
				}
				return e.clientAction(func(client *api.Client) error {
					f, err := fleet.Running(c.Context, client)
					if err != nil {
						return err
					}
					if err := f.Write(args[0]); err != nil {
						return err
					}
					if e.json {
						return e.printJSON(fleetExport{Folder: args[0], Zones: len(f.Zones), Policies: len(f.Policies)})
					}
					return e.printf("%s: %s, %s; compare with: sluice plan %s\n", args[0],
						count(uint64(len(f.Zones)), "zone"), policyCount(len(f.Policies)), args[0])
				})
			},
		}},
	}
}

// fleetExport is what fleet export prints.
type fleetExport struct {
	Folder   string `json:"folder"`
	Zones    int    `json:"zones"`
	Policies int    `json:"policies"`
}

func policyCount(n int) string {
	if n == 1 {
		return "1 policy"
	}
	return fmt.Sprintf("%d policies", n)
}
