package cli

import (
	"strings"

	urfave "github.com/urfave/cli/v2"

	"sluice/cli/api"
	"sluice/pipeline"
)

func zoneCheck(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "check", Usage: "run the built-in checks over what was loaded last", ArgsUsage: "ZONE",
		OnUsageError: onUsageError,
		Action: e.zoneAction(func(c *urfave.Context, client *api.Client, args []string) error {
			m := e.newMeter()
			found, err := client.CheckZone(c.Context, args[0], m.show)
			m.end()
			if err != nil {
				return err
			}
			return e.printCheck(found)
		}),
	}
}

// printCheck prints what the checks found; faults end in exit code 1.
func (e *env) printCheck(z pipeline.ZoneCheck) error {
	if e.json {
		if err := e.printJSON(z); err != nil {
			return err
		}
	} else if err := e.printf("%s", e.checkText(z)); err != nil {
		return err
	}
	if !z.OK {
		return errSilent
	}
	return nil
}

func (e *env) checkText(z pipeline.ZoneCheck) string {
	var b strings.Builder
	b.WriteString(z.Zone + " " + z.Instance + ", serial " + serialText(&z.Serial) + ", " + count(z.Records, "record") + ", policy " + z.Policy + "\n")
	for _, c := range z.Checks {
		verdict := e.paint(green, "ok")
		if !c.OK {
			verdict = e.paint(red, count(c.Total, "fault"))
		}
		b.WriteString("  " + c.Check + ": " + verdict + "\n")
		for _, text := range c.Faults {
			b.WriteString("    " + text + "\n")
		}
		for _, text := range c.Notices {
			b.WriteString("    notice: " + text + "\n")
		}
	}
	return b.String()
}
