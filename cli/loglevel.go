package cli

import (
	"fmt"

	urfave "github.com/urfave/cli/v2"

	"sluice/cli/api"
	"sluice/pipeline"
)

func logLevelCommand(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "log-level", Usage: "what the daemon logs, or change that until it ends: debug, info, warn, error", ArgsUsage: "[LEVEL]",
		OnUsageError: onUsageError,
		Action: func(c *urfave.Context) error {
			want := c.Args().First()
			if c.Args().Len() > 1 {
				return usagef("unexpected argument %q", c.Args().Get(1))
			}
			if want != "" {
				if _, err := pipeline.ParseLogLevel(want); err != nil {
					return usagef("%q is no log level: want debug, info, warn or error", want)
				}
			}
			return e.clientAction(func(client *api.Client) error {
				var l api.LogLevel
				var err error
				if want == "" {
					l, err = client.LogLevel(c.Context)
				} else {
					l, err = client.SetLogLevel(c.Context, want)
				}
				if err != nil {
					return err
				}
				if e.json {
					return e.printJSON(l)
				}
				text := l.Level
				if l.Was != "" && l.Was != l.Level {
					text = fmt.Sprintf("%s, before %s; daemon.log-level in the config holds again after a restart", l.Level, l.Was)
				}
				return e.printf("log level: %s\n", text)
			})
		},
	}
}
