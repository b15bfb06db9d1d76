package cli

import (
	urfave "github.com/urfave/cli/v2"

	"sluice/cli/api"
)

func healthCommand(e *env) *urfave.Command {
	return &urfave.Command{
		Name:         "health",
		Usage:        "exit with 0 when the daemon answers and is ready",
		OnUsageError: onUsageError,
		Action: func(c *urfave.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			return e.clientAction(func(client *api.Client) error {
				h, err := client.Health(c.Context)
				if err != nil {
					return err
				}
				if e.json {
					return e.printJSON(h)
				}
				return e.printf("%s\n", h.Status)
			})
		},
	}
}
