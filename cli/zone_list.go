package cli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"sluice/cli/api"
	"sluice/pipeline"
)

func zoneList(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "list", Usage: "list the zones, one line each",
		OnUsageError: onUsageError,
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "state", Usage: "only zones whose state has this `WORD`, such as published, review, halted, failed"},
			&urfave.StringFlag{Name: "policy", Usage: "only zones with the policy `NAME`"},
			&urfave.StringFlag{Name: "notices", Usage: "only zones with notices of this `SEVERITY|CODE` or worse: info, warning, alarm, or a code of sluice help notices"},
		},
		Action: func(c *urfave.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			keep, err := zoneFilter(c.String("state"), c.String("policy"), c.String("notices"))
			if err != nil {
				return err
			}
			return e.clientAction(func(client *api.Client) error {
				zones, err := client.Zones(c.Context)
				if err != nil {
					return err
				}
				zones = slices.DeleteFunc(zones, func(z pipeline.ZoneSummary) bool { return !keep(z) })
				if e.json {
					return e.printJSON(zones)
				}
				return e.printZones(zones)
			})
		},
	}
}

// zoneFilter is which zones are listed; empty texts keep all.
func zoneFilter(state, policy, notices string) (keep func(pipeline.ZoneSummary) bool, err error) {
	severities := []string{"info", "warning", "alarm"}
	if notices != "" && !slices.Contains(severities, notices) && !slices.Contains(pipeline.NoticeCodes(), pipeline.NoticeCode(notices)) {
		return nil, &usageError{
			msg:  fmt.Sprintf("--notices %q: neither a severity nor a code of notices", notices),
			hint: "severities: info, warning, alarm; codes: sluice help notices",
		}
	}
	known := strings.Join(pipeline.ZoneStates(), ", ")
	for part := range strings.SplitSeq(state, ",") {
		if !strings.Contains(known, strings.TrimSpace(part)) {
			return nil, &usageError{msg: fmt.Sprintf("--state %q: no zone is ever in that state", state), hint: "states: " + known}
		}
	}
	return func(z pipeline.ZoneSummary) bool {
		if state != "" && !strings.Contains(z.State, state) || policy != "" && z.Policy != policy {
			return false
		}
		return notices == "" || slices.ContainsFunc(z.Notices, func(n pipeline.Notice) bool {
			if slices.Contains(severities, notices) {
				return !pipeline.Worse(notices, n.Severity)
			}
			return string(n.Code) == notices
		})
	}, nil
}

// printZones prints a table of zones.
func (e *env) printZones(zones []pipeline.ZoneSummary) error {
	rows := make([][]string, 0, len(zones))
	for _, z := range zones {
		state := z.State
		if z.Mode == pipeline.ModePassThrough || z.Mode == pipeline.ModeUnsigned {
			state += " (" + string(z.Mode) + ")"
		}
		row := []string{z.Name, state, z.Policy, serialText(z.LoadedSerial), serialText(z.PublishedSerial), "-", noticeText(z.Notices)}
		if z.NextExpiry != nil {
			row[5] = when(*z.NextExpiry)
		}
		rows = append(rows, row)
	}
	return e.paintedTable([]string{"ZONE", "STATE", "POLICY", "LOADED", "PUBLISHED", "NEXT EXPIRY", "NOTICES"}, rows, func(row, column int) string {
		switch {
		case column == 1:
			return stateColor(zones[row].State)
		case column == 6:
			return severityColor(worstOf(zones[row].Notices))
		}
		return ""
	})
}

func serialText(serial *uint32) string {
	if serial == nil {
		return "-"
	}
	return strconv.FormatUint(uint64(*serial), 10)
}

// worstOf is the severity of the worst notice; "" for none.
func worstOf(notices []pipeline.Notice) string {
	worst := ""
	for _, n := range notices {
		if pipeline.Worse(n.Severity, worst) {
			worst = n.Severity
		}
	}
	return worst
}

// noticeText counts notices by severity, and names the code of the worst.
func noticeText(notices []pipeline.Notice) string {
	if len(notices) == 0 {
		return "-"
	}
	worst, code := worstOf(notices), ""
	var parts []string
	for _, severity := range []string{"alarm", "warning", "info"} {
		n := 0
		for _, notice := range notices {
			if notice.Severity == severity {
				if n++; severity == worst && code == "" {
					code = string(notice.Code)
				}
			}
		}
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, severity))
		}
	}
	text := strings.Join(parts, ", ")
	if worst != "info" {
		text += " (" + code + ")"
	}
	return text
}
