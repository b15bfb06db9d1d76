package fleet

import (
	"context"

	"sluice/cli/api"
	"sluice/pipeline"
)

// Running is the folder of what a daemon runs: all zones, and all policies but
// the built-in one. Keys stay with the daemon.
func Running(ctx context.Context, client *api.Client) (Fleet, error) {
	f := Fleet{Policies: map[string][]byte{}}
	policies, err := client.Policies(ctx)
	if err != nil {
		return f, err
	}
	builtin := shaOf(pipeline.Default().Text)
	for _, p := range policies {
		if p.Name == "default" && p.SHA256 == builtin {
			continue
		}
		full, err := client.Policy(ctx, p.Name)
		if err != nil {
			return f, err
		}
		f.Policies[p.Name] = []byte(full.Text)
	}
	zones, err := client.Zones(ctx)
	if err != nil {
		return f, err
	}
	for _, z := range zones {
		one := Zone{Name: z.Name, Source: z.Source}
		if z.Policy != "default" {
			one.Policy = z.Policy
		}
		f.Zones = append(f.Zones, one)
	}
	return f, nil
}
