package cli

import (
	"fmt"

	urfave "github.com/urfave/cli/v2"

	"sluice/cli/api"
	"sluice/pipeline"
)

func zoneRecall(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "recall", Usage: "take back what was proposed and waits for a second person", ArgsUsage: "ZONE",
		OnUsageError: onUsageError,
		Flags: []urfave.Flag{
			reasonFlag(),
			&urfave.StringFlag{Name: "action", Usage: "only this `ACTION`: approve, override, rollback, policy", DefaultText: "all"},
		},
		Action: e.zoneAction(func(c *urfave.Context, client *api.Client, args []string) error {
			status, err := client.Zone(c.Context, args[0])
			if err != nil {
				return err
			}
			recalled := 0
			for _, p := range status.Proposals {
				if only := c.String("action"); only != "" && only != p.Action {
					continue
				}
				if status, err = client.Recall(c.Context, args[0], p, c.String("reason")); err != nil {
					return err
				}
				recalled++
			}
			if recalled == 0 {
				return fmt.Errorf("zone %s: nothing of that kind is proposed: %w", status.Name, pipeline.ErrState)
			}
			return e.printStatus(status, false)
		}),
	}
}

// tellProposed tells that a request waits for a second person.
func (e *env) tellProposed(zone string) error {
	if e.json {
		return nil // the plan has said so
	}
	return e.printf("nothing was changed yet: the policy wants a second person, who asks for the same; see: sluice zone status %s\n", zone)
}
