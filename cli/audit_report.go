package cli

import (
	"cmp"
	"encoding/csv"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"sluice/journal/audit"
	"sluice/journal/event"
	"sluice/pipeline"
)

func auditReport(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "report", Usage: "an export as a person reads it; needs no daemon", ArgsUsage: "DIR",
		Description:  "md has the zones, what people did, lives of keys, verdicts and incidents; csv, and --json,\nevery event. With --key the export is verified first.",
		OnUsageError: onUsageError,
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "format", Value: "md", Usage: "`FORMAT`: md or csv"},
			&urfave.StringFlag{Name: "key", Usage: "public audit key `NAME+HASH+KEY`, as it was handed over, or @FILE"},
			outputFlag(),
		},
		Action: func(c *urfave.Context) error {
			args, err := arguments(c, "DIR")
			if err != nil {
				return err
			}
			format := c.String("format")
			if format != "md" && format != "csv" {
				return usagef("--format %q: want md or csv", format)
			}
			if e.json && c.IsSet("format") {
				return usagef("--format and --json: want one of them")
			}
			if _, err := os.Stat(filepath.Join(args[0], "manifest")); err != nil {
				return fmt.Errorf("no export in %s: %w: %w", args[0], pipeline.ErrNotFound, err)
			}
			proof := "not verified: no key was given"
			if key := c.String("key"); key != "" {
				r, err := verifyExport(args[0], key)
				if err != nil {
					return err
				}
				if r.FaultCount > 0 {
					return e.printExportReport(args[0], r)
				}
				proof = fmt.Sprintf("proved: %d of %d events of %s, root %s", r.Events, r.Size, r.Origin, r.Root)
			}
			dir := os.DirFS(args[0])
			return e.writeTo(c.String("output"), func(w io.Writer) error {
				switch {
				case e.json:
					return reportEvents(dir, jsonLines[reportedEvent](w))
				case format == "csv":
					return reportCSV(dir, w)
				}
				return reportMarkdown(dir, proof, w)
			})
		},
	}
}

// reportCSV writes a row for each event.
func reportCSV(dir fs.FS, w io.Writer) error {
	out := csv.NewWriter(w)
	if err := out.Write([]string{
		"sequence", "time", "zone", "type", "actor", "door", "cause", "text", "api_role", "worker", "software", "evidence",
	}); err != nil {
		return err
	}
	err := reportEvents(dir, func(ev reportedEvent) error {
		cause := ""
		if ev.Cause > 0 {
			cause = strconv.FormatUint(ev.Cause, 10)
		}
		return out.Write([]string{
			strconv.FormatUint(ev.Seq, 10), when(ev.Time), ev.Zone, ev.Type, ev.Actor, ev.Door, cause, ev.Text,
			ev.Role, ev.Worker, ev.Software, evidenceText(ev.Evidence),
		})
	})
	out.Flush()
	return cmp.Or(err, out.Error())
}

// reportedEvent is what a report tells of an event.
type reportedEvent struct {
	Seq      uint64           `json:"seq"`
	Time     time.Time        `json:"time"`
	Zone     string           `json:"zone"`
	Type     string           `json:"type"`
	Actor    string           `json:"actor"`
	Door     string           `json:"door"`
	Role     string           `json:"api_role,omitempty"`
	Cause    uint64           `json:"cause,omitempty"`
	Text     string           `json:"text"`
	Worker   string           `json:"worker,omitempty"`
	Software string           `json:"software,omitempty"`
	Evidence []pipeline.Proof `json:"evidence,omitempty"`
}

// reportEvents gives fn every event of an export.
func reportEvents(dir fs.FS, fn func(reportedEvent) error) error {
	names, workers := zoneNames{}, crew{}
	return audit.ReadEvents(dir, func(seq uint64, ev *event.Event) error {
		return fn(reportedEvent{
			Seq: seq, Time: ev.Time.UTC(), Zone: names.of(ev), Type: ev.Type, Actor: ev.Actor.Name, Door: ev.Actor.Door, Role: ev.Actor.Role,
			Cause: ev.Cause, Text: pipeline.Describe(*ev), Worker: workers.of(ev), Software: event.SoftwareOf(ev.Facts),
			Evidence: pipeline.Evidence(*ev),
		})
	})
}

// evidenceText is what an event can be checked by, in one cell.
func evidenceText(proofs []pipeline.Proof) string {
	var parts []string
	for _, p := range proofs {
		parts = append(parts, p.Name+"="+p.Value)
	}
	return strings.Join(parts, "; ")
}

// crew knows by the events read so far which worker did what the program wrote:
// by zone, role and epoch.
type crew map[event.ZoneID]map[pipeline.Role]map[uint64]string

// of is the worker that wrote an event; empty where none was granted the work,
// and for what came through a door.
func (c crew) of(ev *event.Event) string {
	role := pipeline.RoleOfEvent(ev.Facts)
	if f, ok := ev.Facts.(*event.WorkerGranted); ok {
		if c[ev.Zone] == nil {
			c[ev.Zone] = map[pipeline.Role]map[uint64]string{}
		}
		if c[ev.Zone][role] == nil {
			c[ev.Zone][role] = map[uint64]string{}
		}
		c[ev.Zone][role][f.Epoch] = f.Worker
	}
	if ev.Epoch == 0 {
		return ""
	}
	return c[ev.Zone][role][ev.Epoch]
}

// zoneNames knows zones by the events that added them.
type zoneNames map[event.ZoneID]string

// of is the name of the zone that an event is about, or its id.
func (n zoneNames) of(ev *event.Event) string {
	switch f := ev.Facts.(type) {
	case *event.ZoneAdded:
		n[f.ID] = f.Name
		return f.Name
	case *event.ZoneRemoved:
		return f.Name
	}
	if name := n[ev.Zone]; name != "" {
		return name
	}
	return string(ev.Zone)
}
