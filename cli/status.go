package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"sluice/cli/api"
	"sluice/pipeline"
)

const (
	// shownNeeds is how many things that need a person fit on a screen.
	shownNeeds = 10
	// shownLines is how many rollovers, and how many reviews, do.
	shownLines = 5
)

func statusCommand(e *env) *urfave.Command {
	return &urfave.Command{
		Name:  "status",
		Usage: "how everything is: what needs a person first",
		Description: "Exits with 0 where it could be told. With --check it prints one line, and exits with 1\n" +
			"where there is an alarm, with 5 where the daemon does not answer: for monitoring.",
		OnUsageError: onUsageError,
		Flags: []urfave.Flag{
			&urfave.BoolFlag{Name: "check", Usage: "one line; exit with 1 where there is an alarm"},
			&urfave.BoolFlag{Name: "all", Usage: "all that needs a person, not only what fits on a screen"},
		},
		Action: func(c *urfave.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			return e.clientAction(func(client *api.Client) error {
				ctx, cancel := context.WithTimeout(c.Context, healthTimeout)
				defer cancel()
				most := shownNeeds
				if c.Bool("all") || e.json {
					most = 0
				}
				o, err := client.Overview(ctx, most)
				if errors.Is(err, context.DeadlineExceeded) {
					err = fmt.Errorf("%w: no answer within %s", api.ErrUnreachable, healthTimeout)
				}
				if err != nil {
					return err
				}
				return e.printOverview(o, c.Bool("check"))
			})
		},
	}
}

// printOverview tells how everything is. With check it is one line, and fails
// where there is an alarm.
func (e *env) printOverview(o pipeline.Overview, check bool) error {
	var err error
	switch {
	case e.json:
		err = e.printJSON(o)
	case check:
		err = e.printf("%s\n", checkLine(o))
	default:
		err = errors.Join(e.printDaemon(o), e.printNeeds(o), e.printFleet(o))
	}
	if err == nil && check && o.Alarms > 0 {
		return errSilent
	}
	return err
}

// checkLine sums up in a line.
func checkLine(o pipeline.Overview) string {
	text := fmt.Sprintf("%s: %s, %s, %s", strings.ToUpper(o.Severity), count(uint64(o.Zones), "zone"), count(uint64(o.Alarms), "alarm"), count(uint64(o.Warnings), "warning"))
	if len(o.Needs) > 0 {
		text += "; " + o.Needs[0].Whose() + ": " + firstLine(o.Needs[0].Text)
	}
	return text
}

// firstLine is the first line of a text.
func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// printDaemon tells of the process.
func (e *env) printDaemon(o pipeline.Overview) error {
	d := o.Daemon
	clock := when(d.Clock.Now)
	switch {
	case !d.Clock.Trusted:
		clock += ", " + e.paint(red, "not trusted")
	case d.Clock.Rehearsal:
		clock += ", simulated: a rehearsal"
	}
	listens := map[string][]string{}
	for _, l := range d.Listeners {
		listens[l.Name] = append(listens[l.Name], l.Address)
	}
	var where []string
	for _, name := range slices.Sorted(maps.Keys(listens)) {
		where = append(where, name+" "+strings.Join(listens[name], " "))
	}
	who := d.Version + ", since " + when(d.Since)
	if o.Workers.Shared {
		who += ", worker " + d.Worker
	}
	return e.fields("sluice", who, "clock", clock, "listens", strings.Join(where, ", "))
}

// printNeeds tells what needs a person.
func (e *env) printNeeds(o pipeline.Overview) error {
	if len(o.Needs) == 0 {
		return e.printf("\n%s\n", e.paint(green, "Nothing needs a person."))
	}
	if err := e.printf("\nNeeds a person: %s, %s\n", count(uint64(o.Alarms), "alarm"), count(uint64(o.Warnings), "warning")); err != nil {
		return err
	}
	var lines []string
	for _, n := range o.Needs {
		lines = append(lines, "  "+e.paint(severityColor(n.Severity), n.Severity)+"  "+n.Whose()+sinceSpan(n.Since, o.Time), "    "+n.Text)
		if n.Hint != "" {
			lines = append(lines, "    -> "+n.Hint)
		}
	}
	if o.More > 0 {
		lines = append(lines, fmt.Sprintf("  and %d more: sluice status --all", o.More))
	}
	return e.printf("%s\n", strings.Join(lines, "\n"))
}

// sinceSpan tells since when something is so, and how long that is.
func sinceSpan(t *time.Time, now time.Time) string {
	if t == nil {
		return ""
	}
	text := ", since " + when(*t)
	if d := now.Sub(*t); d >= time.Minute {
		text += " (" + pipeline.SpanText(d) + ")"
	}
	return text
}

// aheadSpan tells when something will be so, and how long that is off.
func aheadSpan(t, now time.Time) string {
	d := t.Sub(now)
	switch {
	case d >= 0:
		return when(t) + " (in " + pipeline.SpanText(d) + ")"
	default:
		return when(t) + " (" + pipeline.SpanText(-d) + " ago)"
	}
}

// printFleet tells of zones, workers and journal.
func (e *env) printFleet(o pipeline.Overview) error {
	states := slices.SortedFunc(maps.Keys(o.States), func(a, b string) int {
		if o.States[a] != o.States[b] {
			return o.States[b] - o.States[a]
		}
		return strings.Compare(a, b)
	})
	for i, state := range states {
		states[i] = fmt.Sprintf("%d %s", o.States[state], e.paintState(state))
	}
	zones := fmt.Sprint(o.Zones)
	if len(states) > 0 {
		zones += ": " + strings.Join(states, "; ")
	} else {
		zones = "none yet; add one: sluice zone add ZONE --source SOURCE"
	}
	expiry := ""
	if len(o.Expiries) > 0 {
		first := o.Expiries[0]
		expiry = aheadSpan(first.At, o.Time) + ", " + first.Zone
	}
	if err := e.printf("\n"); err != nil {
		return err
	}
	err := e.fields(
		"zones", zones,
		"first signature to end", expiry,
		"rollovers", listedText(o.RolloverCount, "sluice key status ZONE"),
		"reviews", listedText(o.ReviewCount, "sluice zone list"),
	)
	if err != nil {
		return err
	}
	var lines []string
	for _, r := range o.Rollovers[:min(len(o.Rollovers), shownLines)] {
		line := fmt.Sprintf("  %s  %s, step %d of %d: %s", r.Zone, r.Kind, r.Step, r.Steps, r.Text)
		if r.Until != nil {
			line += ", until " + aheadSpan(*r.Until, o.Time)
		}
		lines = append(lines, line)
	}
	for _, r := range o.Reviews[:min(len(o.Reviews), shownLines)] {
		lines = append(lines, fmt.Sprintf("  %s  %s (%s), serial %d, waits for %s%s", r.Zone, r.Instance, r.Stage, r.Serial, r.WaitsFor, sinceSpan(&r.Since, o.Time)))
	}
	if len(lines) > 0 {
		if err := e.printf("%s\n", strings.Join(lines, "\n")); err != nil {
			return err
		}
	}
	return e.fields("workers", workersText(o.Workers), "journal", journalText(o.Journal), "disk", diskText(o.Journal))
}

// listedText counts what is listed below it; "" for none.
func listedText(n int, more string) string {
	switch {
	case n == 0:
		return ""
	case n > shownLines:
		return fmt.Sprintf("%d, the first %d of them here; see: %s", n, shownLines, more)
	}
	return fmt.Sprint(n)
}

// workersText tells who shares the work; "" where nobody could.
func workersText(w pipeline.WorkersSummary) string {
	switch {
	case !w.Shared:
		return ""
	case w.Error != "":
		return "not known: " + w.Error
	}
	parts := []string{strings.Join(w.Living, ", ")}
	if len(w.Silent) > 0 {
		parts = append(parts, "silent: "+strings.Join(w.Silent, ", "))
	}
	for _, role := range slices.Sorted(maps.Keys(w.Unheld)) {
		parts = append(parts, fmt.Sprintf("%s is done by nobody in %d partitions", role, w.Unheld[role]))
	}
	return strings.Join(parts, "; ")
}

func journalText(j pipeline.JournalSummary) string {
	if j.Error != "" {
		return "not known: " + j.Error
	}
	text := fmt.Sprintf("%s, %s of events, %s of contents", count(j.LastSeq, "event"), bytesText(j.Events, j.EventsFill), bytesText(j.Bulk, j.BulkFill))
	if j.Lag > 0 {
		text += fmt.Sprintf(", %d still to be read", j.Lag)
	}
	return text
}

func diskText(j pipeline.JournalSummary) string {
	var parts []string
	for _, d := range j.Disks {
		parts = append(parts, fmt.Sprintf("%s free of %s, %s", bytesText(d.Free, 0), bytesText(d.Size, 0), d.Dir))
	}
	return strings.Join(parts, "; ")
}

// bytesText writes a number of bytes, and what share of its limit that is.
func bytesText(n uint64, percent int) string {
	if percent > 0 {
		return fmt.Sprintf("%s (%d %%)", sizeText(n), percent)
	}
	return sizeText(n)
}
