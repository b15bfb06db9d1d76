package fleet

import (
	"context"
	"slices"

	"sluice/cli/api"
	"sluice/pipeline"
)

// Running is the folder of what a daemon runs: all zones but those that catalogs
// look after, and all policies but the built-in one. Keys stay with the daemon.
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
	left, err := catalogZones(ctx, client, zones)
	if err != nil {
		return f, err
	}
	for _, z := range zones {
		if left[z.Name] {
			continue
		}
		one := Zone{Name: z.Name, Source: z.Source}
		if z.Policy != "default" {
			one.Policy = z.Policy
		}
		f.Zones = append(f.Zones, one)
	}
	return f, nil
}

// catalogZones are those that are catalogs, or come from one.
func catalogZones(ctx context.Context, client *api.Client, zones []pipeline.ZoneSummary) (map[string]bool, error) {
	found := map[string]bool{}
	for some := range slices.Chunk(zones, maxAsked) {
		var wish pipeline.FleetWish
		for _, z := range some {
			wish.Zones = append(wish.Zones, pipeline.ZoneWish{Name: z.Name, Remove: true})
		}
		out, err := client.Outlook(ctx, wish)
		if err != nil {
			return nil, err
		}
		for _, z := range out.Zones {
			if z.Catalog != "" {
				found[z.Zone] = true
			}
		}
	}
	return found, nil
}
