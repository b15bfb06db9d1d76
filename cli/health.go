package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"sluice/cli/api"
)

// healthTimeout is how long a daemon may take to say that it is well.
const healthTimeout = 10 * time.Second

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
				ctx, cancel := context.WithTimeout(c.Context, healthTimeout)
				defer cancel()
				h, err := client.Health(ctx)
				if errors.Is(err, context.DeadlineExceeded) {
					err = fmt.Errorf("%w: no answer within %s", api.ErrUnreachable, healthTimeout)
				}
				if err != nil {
					return err
				}
				if e.json {
					return e.printJSON(h)
				}
				for _, text := range h.Alarms {
					e.note("alarm: %s", text)
				}
				if keys := h.Config.Restart; len(keys) > 0 {
					e.note("in effect only after a restart: %s", strings.Join(keys, ", "))
				}
				return e.printf("%s\n", h.Status)
			})
		},
	}
}
