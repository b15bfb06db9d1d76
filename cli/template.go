package cli

import (
	urfave "github.com/urfave/cli/v2"

	"sluice/pipeline"
)

func templateCommand(e *env) *urfave.Command {
	page := func(name, usage string, text func() string) *urfave.Command {
		return &urfave.Command{
			Name: name, Usage: usage,
			OnUsageError: onUsageError,
			Action: func(c *urfave.Context) error {
				if _, err := arguments(c); err != nil {
					return err
				}
				if e.json {
					return e.printJSON(map[string]string{"name": name, "text": text()})
				}
				return e.printf("%s", text())
			},
		}
	}
	return &urfave.Command{
		Name:         "template",
		Usage:        "print annotated files to begin with",
		OnUsageError: onUsageError,
		Action:       commandMissing,
		Subcommands: []*urfave.Command{
			page("config", "the daemon's config file with its defaults", func() string { return configTemplate }),
			page("policy", "a policy file with its defaults", pipeline.Template),
		},
	}
}
