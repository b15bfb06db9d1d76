package cli

import (
	"cmp"
	"encoding/csv"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
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
		Description:  "md has the zones, what people did, lives of keys, verdicts and incidents; csv every\nevent. With --key the export is verified first.",
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
				if format == "csv" {
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
	if err := out.Write([]string{"sequence", "time", "zone", "type", "actor", "door", "cause", "text"}); err != nil {
		return err
	}
	names := zoneNames{}
	err := audit.ReadEvents(dir, func(seq uint64, ev *event.Event) error {
		cause := ""
		if ev.Cause > 0 {
			cause = strconv.FormatUint(ev.Cause, 10)
		}
		return out.Write([]string{
			strconv.FormatUint(seq, 10), when(ev.Time), names.of(ev), ev.Type, ev.Actor.Name, ev.Actor.Door, cause, pipeline.Describe(*ev),
		})
	})
	out.Flush()
	return cmp.Or(err, out.Error())
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

// reportLine is one event of a report.
type reportLine struct {
	seq  uint64
	at   time.Time
	zone string
	who  string
	text string
}

// keyLife is what became of a key.
type keyLife struct {
	zone string
	key  event.Key
	at   map[string]time.Time // by the type of the event
}

// report collects what a report shows.
type report struct {
	names              zoneNames
	events             uint64
	first, last        time.Time
	published          map[string]uint64 // versions by zone
	zones, doors       []reportLine
	rollovers          []reportLine
	verdicts, troubles []reportLine
	keys               map[string]*keyLife
	order              []string // of keys
}

// reportMarkdown writes the sections that a person reads.
func reportMarkdown(dir fs.FS, proof string, w io.Writer) error {
	r := report{names: zoneNames{}, published: map[string]uint64{}, keys: map[string]*keyLife{}}
	if err := audit.ReadEvents(dir, r.take); err != nil {
		return err
	}
	fmt.Fprintf(w, "# Audit report\n\n%s\n\n%d events, %s to %s.\n", sentence(proof), r.events, when(r.first), when(r.last))
	r.table(w, "Zones", r.zones)
	fmt.Fprint(w, "\n## Versions published\n\n| zone | versions |\n|---|---|\n")
	for _, zone := range slices.Sorted(maps.Keys(r.published)) {
		fmt.Fprintf(w, "| %s | %d |\n", cell(zone), r.published[zone])
	}
	r.table(w, "What people did", r.doors)
	r.keyTable(w)
	r.table(w, "Rollovers and the parent", r.rollovers)
	r.table(w, "Verdicts", r.verdicts)
	r.table(w, "Incidents", r.troubles)
	return nil
}

// sentence makes a text one.
func sentence(text string) string { return strings.ToUpper(text[:1]) + text[1:] + "." }

// take sorts an event in.
func (r *report) take(seq uint64, ev *event.Event) error {
	l := reportLine{seq, ev.Time, r.names.of(ev), ev.Actor.Name + ", " + ev.Actor.Door, pipeline.Describe(*ev)}
	if r.events++; r.first.IsZero() {
		r.first = ev.Time
	}
	r.last = ev.Time
	noun, _, _ := strings.Cut(ev.Type, ".")
	switch noun {
	case "rollover", "ds":
		r.rollovers = append(r.rollovers, l)
	case "review":
		if ev.Type != "review.requested" {
			r.verdicts = append(r.verdicts, l)
		}
	case "key":
		r.takeKey(l.zone, ev)
	}
	switch ev.Facts.(type) {
	case *event.ZoneAdded, *event.ZoneRemoved:
		r.zones = append(r.zones, l)
	case *event.InstancePublished:
		r.published[l.zone]++
	case *event.LoadFailed, *event.SignFailed, *event.ReviewRejected, *event.ZoneHalted, *event.ZoneHeld, *event.ClockDoubted, *event.ReviewOverridden, *event.RolloverAborted:
		r.troubles = append(r.troubles, l)
	}
	if ev.Actor.Door == "cli" || ev.Actor.Door == "api" {
		r.doors = append(r.doors, l)
	}
	return nil
}

// takeKey notes what became of keys.
func (r *report) takeKey(zone string, ev *event.Event) {
	var ids []string
	for _, k := range event.Keys(ev.Facts) {
		if r.keys[k.ID] == nil {
			r.keys[k.ID] = &keyLife{zone: zone, key: k, at: map[string]time.Time{}}
			r.order = append(r.order, k.ID)
		}
		ids = append(ids, k.ID)
	}
	for _, id := range append(ids, event.KeyIDs(ev.Facts)...) {
		if life := r.keys[id]; life != nil {
			life.at[ev.Type] = ev.Time
		}
	}
}

func (r *report) table(w io.Writer, title string, lines []reportLine) {
	fmt.Fprintf(w, "\n## %s\n\n", title)
	if len(lines) == 0 {
		fmt.Fprint(w, "None.\n")
		return
	}
	fmt.Fprint(w, "| seq | time | zone | who | what |\n|---|---|---|---|---|\n")
	for _, l := range lines {
		fmt.Fprintf(w, "| %d | %s | %s | %s | %s |\n", l.seq, when(l.at), cell(l.zone), cell(l.who), cell(l.text))
	}
}

// keyTable writes the lives of keys.
func (r *report) keyTable(w io.Writer) {
	fmt.Fprint(w, "\n## Keys\n\n")
	if len(r.order) == 0 {
		fmt.Fprint(w, "None.\n")
		return
	}
	fmt.Fprint(w, "| zone | key | role | algorithm | tag | kept in | made | published | signing | retired | removed | destroyed |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, id := range r.order {
		k := r.keys[id]
		at := func(types ...string) string {
			for _, t := range types {
				if at, ok := k.at[t]; ok {
					return when(at)
				}
			}
			return ""
		}
		fmt.Fprintf(w, "| %s | %s | %s | %d | %d | %s | %s | %s | %s | %s | %s | %s |\n", cell(k.zone), id, k.key.Role, k.key.Algorithm, k.key.Tag,
			cell(k.key.Keystore), at("key.generated", "key.imported"), at("key.published", "key.activated"), at("key.activated", "key.introduced"),
			at("key.retired", "key.withdrawn"), at("key.removed"), at("key.destroyed"))
	}
}

// cell makes a text fit a cell of a table.
func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ", "<", "&lt;").Replace(text)
}
