package cli

import (
	"fmt"
	"slices"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"sluice/cli/api"
	"sluice/keymgr"
	"sluice/pipeline"
)

func zoneObserve(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "observe", Usage: "ask the zone's public servers and its parent now what they show", ArgsUsage: "ZONE",
		OnUsageError: onUsageError,
		Action: e.zoneAction(func(c *urfave.Context, client *api.Client, args []string) error {
			status, err := client.Observe(c.Context, args[0])
			if err != nil {
				return err
			}
			if e.json {
				return e.printJSON(status)
			}
			if err := e.fields("zone", status.Name, "seen from outside", observationText(status.Observation)); err != nil {
				return err
			}
			if err := e.printNotices(status); err != nil {
				return err
			}
			return e.printObservation(status.Observation)
		}),
	}
}

// observationText sums up what the world sees; empty where nobody asks.
func observationText(o *pipeline.ObservationStatus) string {
	if o == nil {
		return ""
	}
	text := o.Text
	if !o.At.IsZero() {
		text += ", " + when(o.At)
	}
	switch {
	case o.Running:
		text += "; being asked now"
	case o.NextAt != nil:
		text += "; asked again " + when(*o.NextAt)
	}
	return text
}

// printObservation lists what each server showed.
func (e *env) printObservation(o *pipeline.ObservationStatus) error {
	if o == nil {
		return nil
	}
	var rows [][]string
	for _, s := range o.Zone {
		row := []string{s.Server, addressText(s), "-", "-", "since " + when(s.Since)}
		if s.Error == "" {
			row[2], row[3] = fmt.Sprint(s.Serial), orDash(strings.Join(s.Keys, " "))
			row[4] = signedText(s.Signed) + ", " + row[4]
		} else {
			row[4] = e.paint(red, s.Error) + ", " + row[4]
		}
		rows = append(rows, row)
	}
	if err := e.printTable([]string{"NAME SERVER", "ADDRESS", "SERIAL", "KEYS", "NOTE"}, rows); err != nil {
		return err
	}
	rows = nil
	for _, s := range o.Parent {
		row := []string{s.Server, addressText(s), "-", "since " + when(s.Since)}
		if s.Error != "" {
			row[3] = e.paint(red, s.Error) + ", " + row[3]
			rows = append(rows, row)
			continue
		}
		if row[2] = "none"; len(s.DS) > 0 {
			var tags []string
			for _, ds := range s.DS {
				tags = append(tags, fmt.Sprintf("%d/%d/%d", ds.Tag, ds.Algorithm, ds.DigestType))
			}
			row[2] = fmt.Sprintf("%s (TTL %d)", strings.Join(tags, " "), s.DSTTL)
		}
		if s.Validated {
			row[3] = "validated, " + row[3]
		} else {
			row[3] = "does not count: " + s.Unvalidated
		}
		rows = append(rows, row)
	}
	return e.printTable([]string{"PARENT", "ADDRESS", "DS", "NOTE"}, rows)
}

func addressText(s keymgr.Seen) string {
	if !s.Address.IsValid() {
		return "-"
	}
	return s.Address.String()
}

// signedText counts the RRsets whose signatures were looked at.
func signedText(signed []keymgr.SeenSignature) string {
	var all, good []string
	for _, s := range signed {
		name := s.Owner + " " + s.Type
		all = append(all, name)
		if s.Key != "" {
			good = append(good, name)
		}
	}
	slices.Sort(all)
	slices.Sort(good)
	return fmt.Sprintf("%d of %d RRsets looked at verify", len(slices.Compact(good)), len(slices.Compact(all)))
}
