package cli

import (
	urfave "github.com/urfave/cli/v2"

	"sluice/cli/api"
	"sluice/cli/metrics"
	"sluice/pipeline"
)

func templateCommand(e *env) *urfave.Command {
	page := func(name, usage string, text func() (string, error)) *urfave.Command {
		return &urfave.Command{
			Name: name, Usage: usage,
			OnUsageError: onUsageError,
			Action: func(c *urfave.Context) error {
				if _, err := arguments(c); err != nil {
					return err
				}
				s, err := text()
				if err != nil {
					return err
				}
				if e.json {
					return e.printJSON(map[string]string{"name": name, "text": s})
				}
				return e.printf("%s", s)
			},
		}
	}
	return &urfave.Command{
		Name:         "template",
		Usage:        "print annotated files to begin with, and a manual page",
		OnUsageError: onUsageError,
		Action:       commandMissing,
		Subcommands: []*urfave.Command{
			page("config", "the daemon's config file with its defaults", func() (string, error) { return configTemplate, nil }),
			page("policy", "a policy file with its defaults", func() (string, error) { return pipeline.Template(), nil }),
			page("openapi", "the OpenAPI document of the daemon's HTTP interface", func() (string, error) { return api.OpenAPI(), nil }),
			page("prometheus-rules", "recording and alerting rules for Prometheus: sluice.rules.yml", func() (string, error) { return metrics.Rules(), nil }),
			page("grafana-dashboard", "a dashboard for Grafana, to be imported there", func() (string, error) { return metrics.Dashboard(), nil }),
			page("man", "a manual page of all commands, for man: sluice.8", func() (string, error) { return manPage(e) }),
		},
	}
}
