package cli

import (
	"fmt"

	urfave "github.com/urfave/cli/v2"

	"sluice/cli/api"
	"sluice/pipeline"
)

func journalCompact(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "compact", Usage: "apply retention now: purge the contents of old versions",
		Description:  "What goes follows from retention.* in each zone's policy. Events are always kept, and so is what is served, what waits for it and what IXFR needs.",
		OnUsageError: onUsageError,
		Flags: []urfave.Flag{
			&urfave.StringSliceFlag{Name: "zone", Usage: "the zone `NAME` only; may be given again"},
			&urfave.BoolFlag{Name: "dry-run", Usage: "say what would go, and purge nothing"},
		},
		Action: func(c *urfave.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			q := pipeline.CompactQuery{Zones: c.StringSlice("zone"), DryRun: c.Bool("dry-run")}
			for _, name := range q.Zones {
				if _, err := parseZone(name); err != nil {
					return err
				}
			}
			return e.clientAction(func(client *api.Client) error {
				m := e.newMeter()
				report, err := client.CompactJournal(c.Context, q, m.show)
				m.end()
				if err != nil {
					return err
				}
				return e.printCompact(report)
			})
		},
	}
}

// printCompact tells what went, or would go; zones that were left end in exit code
// 1.
func (e *env) printCompact(r pipeline.CompactReport) error {
	var err error
	if e.json {
		err = e.printJSON(r)
	} else {
		err = e.printCompactText(r)
	}
	if err == nil && r.Failed > 0 {
		return errSilent
	}
	return err
}

func (e *env) printCompactText(r pipeline.CompactReport) error {
	var rows [][]string
	for _, z := range r.Zones {
		oldest := "-"
		if z.OldestSeq != 0 {
			oldest = fmt.Sprint(z.OldestSerial)
		}
		snapshot := "-"
		if z.Snapshot {
			snapshot = sizeText(z.SnapshotBytes)
		}
		rows = append(rows, []string{
			z.Zone, z.Rule, fmt.Sprint(z.Versions), fmt.Sprint(z.Kept), oldest, sizeText(z.Held), sizeText(z.Bytes), snapshot,
		})
	}
	head := []string{"ZONE", "RETENTION", "VERSIONS", "STAY", "OLDEST", "HELD", "GOES", "SNAPSHOT"}
	if !r.DryRun {
		head[6] = "WENT"
	}
	if err := e.table(head, rows); err != nil {
		return err
	}
	for _, z := range r.Zones {
		if z.Error != "" {
			if err := e.printf("%s: %s\n  nothing of it was purged, or the rest goes with the next run\n", z.Zone, e.paint(red, z.Error)); err != nil {
				return err
			}
		}
	}
	verb, archive := "purged", ""
	if r.DryRun {
		verb = "would go"
	}
	if r.Archive != "" {
		archive = ", archived in " + r.Archive
	}
	return e.printf("%s of %s in BULK %s%s\n", sizeText(r.Bytes), sizeText(r.Held), verb, archive)
}
