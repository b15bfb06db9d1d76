package cli

import (
	_ "embed"

	urfave "github.com/urfave/cli/v2"

	"sluice/cli/api"
	"sluice/cli/metrics"
	"sluice/pipeline"
)

var (
	//go:embed packaging/sluice.service
	serviceUnit string
	//go:embed packaging/sluice.socket
	socketUnit string
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
			page("systemd", "the unit of the daemon for systemd: sluice.service", func() (string, error) { return serviceUnit, nil }),
			page("systemd-socket", "sockets that systemd holds while the daemon restarts: sluice.socket", func() (string, error) { return socketUnit, nil }),
			page("man", "a manual page of all commands, for man: sluice.8", func() (string, error) { return manPage(e) }),
			page("man-config", "a manual page of the config file, for man: sluice.toml.5", func() (string, error) {
				return manOfFile("sluice.toml", "config of the Sluice daemon", configTemplate), nil
			}),
			page("man-policy", "a manual page of policy files, for man: sluice-policy.5", func() (string, error) {
				return manOfFile("sluice-policy", "how Sluice loads, signs and serves zones", pipeline.Template()), nil
			}),
		},
	}
}
