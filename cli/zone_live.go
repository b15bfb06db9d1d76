package cli

import (
	"fmt"
	"strconv"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"sluice/cli/api"
	"sluice/pipeline"
)

func zoneSet(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "set", Usage: "give a zone another source or policy", ArgsUsage: "ZONE",
		OnUsageError: onUsageError,
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "source", Usage: "a zone file, or servers as IP[:PORT][^TSIGKEY], separated by commas, or update:NS,... (`SOURCE`)"},
			&urfave.StringFlag{Name: "policy", Usage: "`NAME` of its policy"},
			&urfave.BoolFlag{Name: "dry-run", Usage: "tell what would change, and change nothing"},
			reasonFlag(),
			noWaitFlag(),
		},
		Action: e.zoneAction(func(c *urfave.Context, client *api.Client, args []string) error {
			change := pipeline.ZoneChange{Policy: c.String("policy"), DryRun: c.Bool("dry-run"), Reason: c.String("reason")}
			if text := c.String("source"); text != "" {
				var err error
				if change.Source, err = absoluteSource(text); err != nil {
					return err
				}
			}
			if change.Source == "" && change.Policy == "" {
				return &usageError{msg: "nothing to set", hint: "usage: sluice zone set ZONE [--source SOURCE] [--policy NAME] [--dry-run]"}
			}
			plan, err := client.SetZone(c.Context, args[0], change)
			if err != nil {
				return err
			}
			if err := e.printPlan(plan, change.DryRun); err != nil {
				return err
			}
			if !plan.Done || c.Bool("no-wait") {
				return nil
			}
			return e.awaitZone(c, client, args[0])
		}),
	}
}

func (e *env) printPlan(plan pipeline.ZonePlan, dry bool) error {
	if e.json {
		if dry || !plan.Done {
			return e.printJSON(plan)
		}
		return nil // the zone's status follows
	}
	if len(plan.Changes) == 0 {
		return e.printf("zone %s: nothing changes\n", plan.Zone)
	}
	var b strings.Builder
	for _, text := range plan.Changes {
		fmt.Fprintf(&b, "%s\n", text)
	}
	if dry {
		b.WriteString("nothing was changed; without --dry-run it is\n")
	} else if plan.Proposed {
		b.WriteString("nothing was changed yet: the policy it is bound to wants a second person, who asks for the same; see: sluice zone status " + plan.Zone + "\n")
	}
	return e.printf("%s", b.String())
}

func zoneSerial(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "serial", Usage: "which serials are where; raise ours", ArgsUsage: "ZONE",
		OnUsageError: onUsageError,
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "set", Usage: "publish the zone with serial `N` now, or the next one that its serial policy gives"},
			noWaitFlag(),
		},
		Action: e.zoneAction(func(c *urfave.Context, client *api.Client, args []string) error {
			if text := c.String("set"); text != "" {
				n, err := strconv.ParseUint(text, 10, 32)
				if err != nil {
					return usagef("--set %q: want a serial, 0 to 4294967295", text)
				}
				if err := client.RaiseSerial(c.Context, args[0], uint32(n)); err != nil {
					return err
				}
				if !c.Bool("no-wait") {
					return e.awaitZone(c, client, args[0])
				}
			}
			serials, err := client.Serials(c.Context, args[0])
			if err != nil {
				return err
			}
			return e.printSerials(serials)
		}),
	}
}

func (e *env) printSerials(s pipeline.ZoneSerials) error {
	if e.json {
		return e.printJSON(s)
	}
	var rows [][]string
	for _, up := range s.Upstream {
		rows = append(rows, []string{"source " + up.Server, serialText(up.Serial), orDash(up.Error)})
	}
	rows = append(rows,
		[]string{"loaded", serialText(s.Loaded), "-"},
		[]string{"signed", serialText(s.Signed), "-"},
		[]string{"published", serialText(s.Published), "serial-policy " + s.Policy})
	if s.Floor != nil {
		rows = append(rows, []string{"floor", serialText(s.Floor), "published serials stand above it"})
	}
	for _, sec := range s.Announced {
		rows = append(rows, []string{"secondary " + secondaryName(sec), serialText(sec.Serial), secondaryText(sec)})
	}
	return e.table([]string{"WHERE", "SERIAL", "NOTE"}, rows)
}

// secondaryName is a secondary's address, with the name that it was found by.
func secondaryName(s pipeline.SecondaryStatus) string {
	if s.Name == "" || s.Name == s.Server {
		return s.Server
	}
	return s.Server + " (" + s.Name + ")"
}

// secondaryText says in a few words where a secondary stands.
func secondaryText(s pipeline.SecondaryStatus) string {
	switch {
	case s.LastError != "" && s.Telling == nil: // its address is not known
		text := s.LastError
		if s.RetryAt != nil {
			text += ", again " + when(*s.RetryAt)
		}
		return text
	case s.LastError != "":
		text := fmt.Sprintf("not told of %s: %s", serialText(s.Telling), s.LastError)
		if s.RetryAt != nil {
			text += ", again " + when(*s.RetryAt)
		}
		return text
	case s.AckedAt != nil:
		return "acknowledged " + when(*s.AckedAt)
	}
	return "being told"
}

func zoneResign(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "resign", Usage: "sign a zone now: what is due soon, or everything", ArgsUsage: "ZONE",
		OnUsageError: onUsageError,
		Flags:        []urfave.Flag{&urfave.BoolFlag{Name: "full", Usage: "make every signature again"}, noWaitFlag()},
		Action: e.zoneAction(func(c *urfave.Context, client *api.Client, args []string) error {
			if err := client.Resign(c.Context, args[0], c.Bool("full")); err != nil {
				return err
			}
			return e.asked(c, client, args[0])
		}),
	}
}

// asked waits for what was asked for, or says that it was.
func (e *env) asked(c *urfave.Context, client *api.Client, name string) error {
	if !c.Bool("no-wait") {
		return e.awaitZone(c, client, name)
	}
	name, err := fullName(name)
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(map[string]any{"zone": name, "asked": true})
	}
	return e.printf("asked for; see: sluice zone status %s\n", name)
}

func zoneNotify(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "notify", Usage: "tell the secondaries again what is published", ArgsUsage: "ZONE",
		OnUsageError: onUsageError,
		Action: e.zoneAction(func(c *urfave.Context, client *api.Client, args []string) error {
			if err := client.NotifySecondaries(c.Context, args[0]); err != nil {
				return err
			}
			name, err := fullName(args[0])
			if err != nil {
				return err
			}
			if e.json {
				return e.printJSON(map[string]any{"zone": name, "asked": true})
			}
			return e.printf("asked for; who acknowledged what: sluice zone status --detailed %s\n", name)
		}),
	}
}

// printServers tells where the zone stands with its source and its
// secondaries.
func (e *env) printServers(s pipeline.ZoneStatus) error {
	if u := s.Upstream; u != nil {
		if err := e.printf("\nupstream\n"); err != nil {
			return err
		}
		fields := []string{"  last answer from", u.Server}
		if u.Serial != nil {
			fields = append(fields, "  its serial", serialText(u.Serial))
		}
		if u.CheckedAt != nil {
			fields = append(fields, "  last good answer", when(*u.CheckedAt))
		}
		if u.NextAt != nil {
			fields = append(fields, "  asked again", when(*u.NextAt))
		}
		if u.ExpiresAt != nil {
			fields = append(fields, "  expires", when(*u.ExpiresAt))
		}
		if err := e.fields(append(fields, "  last error", e.paint(red, u.LastError))...); err != nil {
			return err
		}
	}
	var rows [][]string
	for _, sec := range s.Secondaries {
		rows = append(rows, []string{secondaryName(sec), serialText(sec.Serial), secondaryText(sec)})
	}
	if err := e.printTable([]string{"SECONDARY", "ACKNOWLEDGED", "NOTE"}, rows); err != nil {
		return err
	}
	rows = nil
	for _, f := range s.Fetched {
		how := f.Transfer
		if f.TLS {
			how += " over TLS"
		}
		rows = append(rows, []string{f.Peer, f.Address, serialText(&f.Serial), how, when(f.Time)})
	}
	return e.printTable([]string{"FETCHED BY", "FROM", "SERIAL", "HOW", "TIME"}, rows)
}

// printTable prints a table apart from what stands before it; without rows
// nothing.
func (e *env) printTable(head []string, rows [][]string) error {
	if len(rows) == 0 {
		return nil
	}
	if err := e.printf("\n"); err != nil {
		return err
	}
	return e.table(head, rows)
}
