package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"sluice/cli/api"
	"sluice/pipeline"
)

func policyPut(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "put", Usage: "write a policy into the daemon's policy folder and bind its zones to it", ArgsUsage: "FILE",
		OnUsageError: onUsageError,
		Flags: []urfave.Flag{
			reasonFlag(),
			&urfave.BoolFlag{Name: "dry-run", Usage: "tell what would change, and change nothing"},
		},
		Action: func(c *urfave.Context) error {
			args, err := arguments(c, "FILE")
			if err != nil {
				return err
			}
			text, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			name := strings.TrimSuffix(filepath.Base(args[0]), ".toml")
			return e.clientAction(func(client *api.Client) error {
				n := pipeline.NewPolicy{Text: string(text), Reason: c.String("reason"), DryRun: c.Bool("dry-run")}
				plan, err := client.PutPolicy(c.Context, name, n)
				if err != nil {
					return err
				}
				if e.json {
					err = e.printJSON(plan)
				} else {
					err = e.printPolicyPlan(plan, "without --dry-run it is")
				}
				if err == nil && plan.Refused != "" {
					return errRefused
				}
				return err
			})
		},
	}
}

// policyDiff says what a reload would do to one policy.
func policyDiff(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "diff", Usage: "how a policy's file differs from what is loaded, and what a reload would do to its zones", ArgsUsage: "NAME",
		OnUsageError: onUsageError,
		Action: func(c *urfave.Context) error {
			args, err := arguments(c, "NAME")
			if err != nil {
				return err
			}
			return e.clientAction(func(client *api.Client) error {
				plan, err := client.DiffPolicy(c.Context, args[0])
				if errors.Is(err, pipeline.ErrNotFound) {
					return withHint(err, "see: sluice policy list")
				}
				if err != nil {
					return err
				}
				if e.json {
					return e.printJSON(plan)
				}
				return e.printPolicyPlan(plan, "sluice policy reload does that")
			})
		},
	}
}

// printPolicyPlan tells what another text of a policy does, or did; where nothing
// was done, do says how it is.
func (e *env) printPolicyPlan(plan pipeline.PolicyPlan, do string) error {
	var b strings.Builder
	if diff := strings.TrimRight(plan.Diff, "\n"); diff != "" {
		b.WriteString(diff + "\n")
	}
	for _, effect := range plan.Effects {
		fmt.Fprintf(&b, "%s: %s\n", someNames(effect.Zones), effect.Text)
	}
	for _, text := range plan.Notices {
		fmt.Fprintf(&b, "notice: %s\n", text)
	}
	fmt.Fprintf(&b, "policy %s: %s, %s\n", plan.Name, plan.Change, count(uint64(len(plan.Zones)), "zone"))
	switch {
	case plan.Refused != "":
		fmt.Fprintf(&b, "%s\n", e.paint(red, "refused: "+plan.Refused))
	case !plan.Done && (plan.Diff != "" || len(plan.Effects) > 0 || plan.Change != "unchanged"):
		fmt.Fprintf(&b, "nothing was changed; %s\n", do)
	}
	return e.printf("%s", b.String())
}

// someNames lists names, of many the first few and how many more there are.
func someNames(names []string) string {
	const most = 5
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

func policyRemove(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "remove", Usage: "remove a policy that no zone is bound to from the daemon's policy folder", ArgsUsage: "NAME",
		OnUsageError: onUsageError,
		Flags:        []urfave.Flag{reasonFlag()},
		Action: func(c *urfave.Context) error {
			args, err := arguments(c, "NAME")
			if err != nil {
				return err
			}
			return e.clientAction(func(client *api.Client) error {
				if err := client.RemovePolicy(c.Context, args[0], c.String("reason")); err != nil {
					return err
				}
				if e.json {
					return e.printJSON(map[string]any{"policy": args[0], "removed": true})
				}
				return e.printf("policy %s removed\n", args[0])
			})
		},
	}
}
