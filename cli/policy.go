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

func policyCommand(e *env) *urfave.Command {
	return &urfave.Command{
		Name:         "policy",
		Usage:        "list, show, check, compare, put, remove and reload policies",
		OnUsageError: onUsageError,
		Action:       commandMissing,
		Subcommands:  []*urfave.Command{policyList(e), policyShow(e), policyReload(e), policyCheck(e), policyDiff(e), policyPut(e), policyRemove(e)},
	}
}

func policyList(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "list", Usage: "the policies, and how many zones each rules",
		OnUsageError: onUsageError,
		Action: func(c *urfave.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			return e.clientAction(func(client *api.Client) error {
				policies, err := client.Policies(c.Context)
				if err != nil {
					return err
				}
				if e.json {
					return e.printJSON(policies)
				}
				var rows [][]string
				for _, p := range policies {
					rows = append(rows, []string{p.Name, fmt.Sprint(len(p.Zones)), fmt.Sprint(len(p.Stale)), p.SHA256[:min(16, len(p.SHA256))]})
				}
				return e.table([]string{"POLICY", "ZONES", "ON AN OLDER TEXT", "SHA256"}, rows)
			})
		},
	}
}

func policyShow(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "show", Usage: "a policy's text and its zones", ArgsUsage: "NAME",
		OnUsageError: onUsageError,
		Action: func(c *urfave.Context) error {
			args, err := arguments(c, "NAME")
			if err != nil {
				return err
			}
			return e.clientAction(func(client *api.Client) error {
				p, err := client.Policy(c.Context, args[0])
				if errors.Is(err, pipeline.ErrNotFound) {
					return withHint(err, "see: sluice policy list")
				}
				if err != nil {
					return err
				}
				if e.json {
					return e.printJSON(p)
				}
				return e.printf("# policy %s, sha256 %s\n# zones: %s\n%s\n",
					p.Name, p.SHA256, orNone(p.Zones), strings.TrimRight(p.Text, "\n"))
			})
		},
	}
}

// orNone joins names, or says that there are none.
func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

func policyReload(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "reload", Usage: "read the policy files again and bind their zones to what changed",
		OnUsageError: onUsageError,
		Action: func(c *urfave.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			return e.clientAction(func(client *api.Client) error {
				change, err := client.ReloadPolicies(c.Context)
				if err != nil {
					return err
				}
				return e.printPolicyChange(change)
			})
		},
	}
}

// printPolicyChange tells what a reload did; a file with an error is a
// failure.
func (e *env) printPolicyChange(change pipeline.PolicyChange) error {
	if e.json {
		if err := e.printJSON(change); err != nil {
			return err
		}
	} else {
		for _, diff := range change.Diffs {
			if err := e.printf("%s\n", strings.TrimRight(diff, "\n")); err != nil {
				return err
			}
		}
		err := e.fields(
			"added", strings.Join(change.Added, ", "),
			"updated", strings.Join(change.Updated, ", "),
			"removed", strings.Join(change.Removed, ", "),
			"unchanged", strings.Join(change.Unchanged, ", "),
			"zones bound anew", strings.Join(change.Rebound, ", "),
		)
		if err != nil {
			return err
		}
	}
	if len(change.Errors) == 0 {
		return nil
	}
	return withHint(fmt.Errorf("%s", strings.Join(change.Errors, "\n")), "these files changed nothing; check one with: sluice policy check FILE")
}

func policyCheck(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "check", Usage: "check a policy file; needs no daemon", ArgsUsage: "FILE",
		OnUsageError: onUsageError,
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
			p, err := pipeline.Parse(name, text)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if e.json {
				return e.printJSON(policyCheckResult{File: args[0], Policy: name, Valid: true, Notices: p.Notices()})
			}
			for _, text := range p.Notices() {
				if err := e.printf("notice: %s\n", text); err != nil {
					return err
				}
			}
			return e.printf("policy %s is valid\n", name)
		},
	}
}

// policyCheckResult is what policy check prints of a good file.
type policyCheckResult struct {
	File    string   `json:"file"`
	Policy  string   `json:"policy"`
	Valid   bool     `json:"valid"`
	Notices []string `json:"notices,omitempty"`
}
