package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"sluice/cli/api"
	"sluice/keymgr"
	"sluice/pipeline"
)

func keyRoll(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "roll", Usage: "exchange keys: zsk, ksk, csk, algorithm; secure and insecure: the way to the first DS, and to none", ArgsUsage: "ZONE KIND",
		OnUsageError: onUsageError,
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "method", Usage: "`METHOD`: pre-publication or double-signature (zsk); double-ksk, double-ds or double-rrset (ksk); by default the policy's"},
			&urfave.StringFlag{Name: "algorithm", Usage: "`NAME` of the new algorithm, for kind algorithm; by default the policy's"},
			&urfave.BoolFlag{Name: "emergency", Usage: "let nothing wait for a person, whatever the policy says; no wait gets shorter"},
			&urfave.StringFlag{Name: "start", Usage: "begin at `TIME`; by default now"},
			reasonFlag(),
		},
		Action: e.zoneAction(func(c *urfave.Context, client *api.Client, args []string) error {
			q := pipeline.RolloverRequest{
				Kind: keymgr.Kind(args[1]), Method: keymgr.Method(c.String("method")), Algorithm: c.String("algorithm"),
				Emergency: c.Bool("emergency"), Reason: c.String("reason"),
			}
			methods := keymgr.Methods(q.Kind)
			if methods == nil {
				return usagef("%q is no kind of rollover: want zsk, ksk, csk, algorithm, secure or insecure", args[1])
			}
			if q.Method != "" && !slices.Contains(methods, q.Method) {
				return usagef("--method %q: a rollover of kind %s is done by %s", q.Method, q.Kind, methodWords(methods))
			}
			if text := c.String("start"); text != "" {
				var err error
				if q.Start, err = parseTime(text, time.Now()); err != nil {
					return err
				}
			}
			status, err := client.Roll(c.Context, args[0], q)
			if err != nil {
				return err
			}
			return e.printRollovers(args[0], status.Rollovers)
		}, "KIND"),
	}
}

func methodWords(methods []keymgr.Method) string {
	words := make([]string, 0, len(methods))
	for _, m := range methods {
		words = append(words, string(m))
	}
	return strings.Join(words, " or ")
}

func keyStatus(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "status", Usage: "the rollovers that run: what each waits for, and why", ArgsUsage: "ZONE",
		OnUsageError: onUsageError,
		Action: e.zoneAction(func(c *urfave.Context, client *api.Client, args []string) error {
			list, err := client.Rollovers(c.Context, args[0])
			if err != nil {
				return err
			}
			return e.printRollovers(args[0], list)
		}),
	}
}

// printRollovers tells of rollovers.
func (e *env) printRollovers(zone string, list []pipeline.RolloverStatus) error {
	if e.json {
		if list == nil {
			list = []pipeline.RolloverStatus{}
		}
		return e.printJSON(list)
	}
	if len(list) == 0 {
		return e.printf("no rollover of %s runs; what will: sluice key plan %s\n", zone, zone)
	}
	for i, r := range list {
		if i > 0 {
			if err := e.printf("\n"); err != nil {
				return err
			}
		}
		if err := e.printRollover(r); err != nil {
			return err
		}
	}
	return nil
}

func (e *env) printRollover(r pipeline.RolloverStatus) error {
	what := fmt.Sprintf("%s by %s", r.Kind, r.Method)
	if r.Returning {
		what += ", aborted, on its way back"
	}
	if r.Emergency {
		what += ", emergency"
	}
	var seen, wait, until string
	if r.Seen != nil {
		seen = when(*r.Seen)
	}
	if r.Wait != nil {
		wait = keymgr.WaitText(r.Wait)
		until = when(time.Unix(r.Wait.Earliest, 0))
	}
	return e.fields(
		"rollover", fmt.Sprintf("%d, %s", r.ID, what),
		"  because", r.Reason,
		"  begun", when(r.Started),
		"  old keys", strings.Join(r.Old, ", "),
		"  new keys", strings.Join(r.New, ", "),
		"  step", fmt.Sprintf("%d of %d, %s, since %s", r.Step, r.Steps, r.Name, when(r.Since)),
		"  now", r.Text,
		"  seen everywhere", seen,
		"  not before", until,
		"  since", wait,
	)
}

func keyPlan(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "plan", Usage: "what will happen to a zone's keys, when at the earliest, and why; nothing changes", ArgsUsage: "ZONE",
		OnUsageError: onUsageError,
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "until", Usage: "up to `TIME`"},
		},
		Action: e.zoneAction(func(c *urfave.Context, client *api.Client, args []string) error {
			var until time.Time
			if text := c.String("until"); text != "" {
				var err error
				if until, err = parseTime(text, time.Now()); err != nil {
					return err
				}
			}
			plan, err := client.KeyPlan(c.Context, args[0], until)
			if err != nil {
				return err
			}
			return e.printKeyPlan(args[0], plan)
		}),
	}
}

func (e *env) printKeyPlan(zone string, plan []pipeline.PlannedStep) error {
	if e.json {
		return e.printJSON(plan)
	}
	if len(plan) == 0 {
		return e.printf("nothing is planned for the keys of %s\n", zone)
	}
	for _, p := range plan {
		head := string(p.Kind)
		if p.Rollover != 0 {
			head = fmt.Sprintf("rollover %d, %s", p.Rollover, p.Kind)
		}
		if p.Step > 0 {
			head += fmt.Sprintf(", step %d", p.Step)
		}
		lines := []string{fmt.Sprintf("%s  %s: %s", when(p.Earliest), head, p.Text)}
		if p.After != "" {
			lines = append(lines, "  once "+p.After)
		}
		if p.Wait != nil {
			lines = append(lines, "  after "+keymgr.WaitText(p.Wait))
		}
		if p.Person {
			lines = append(lines, "  "+e.paint(yellow, "waits for a person"))
		}
		if err := e.printf("%s\n", strings.Join(lines, "\n")); err != nil {
			return err
		}
	}
	return nil
}

func keyStep(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "step", Usage: "report what a rollover waits to see, or let its next step begin", ArgsUsage: "ZONE",
		OnUsageError: onUsageError,
		Flags: []urfave.Flag{
			&urfave.BoolFlag{Name: string(keymgr.SeeKeys), Usage: "all public servers show the DNSKEY RRset as it is published here"},
			&urfave.BoolFlag{Name: string(keymgr.SeeSigs), Usage: "all public servers show the new signatures, and none from before"},
			&urfave.StringFlag{Name: string(keymgr.SeeDS), Usage: "all servers of the parent show the new DS, with this `TTL`"},
			&urfave.BoolFlag{Name: string(keymgr.SeeDSGone), Usage: "no server of the parent shows the old DS any more"},
			&urfave.BoolFlag{Name: string(keymgr.ReportNext), Usage: "let the next step begin, where that waits for a person"},
			&urfave.StringFlag{Name: "key", Usage: "the rollover in which the key with this `ID` takes part"},
			&urfave.Uint64Flag{Name: "rollover", Usage: "the rollover with this `NUMBER`"},
		},
		Action: e.zoneAction(func(c *urfave.Context, client *api.Client, args []string) error {
			q := pipeline.StepReport{Rollover: c.Uint64("rollover"), Key: c.String("key")}
			n := 0
			for _, s := range []keymgr.Sight{keymgr.SeeKeys, keymgr.SeeSigs, keymgr.SeeDS, keymgr.SeeDSGone, keymgr.ReportNext} {
				if c.IsSet(string(s)) {
					q.Seen = s
					n++
				}
			}
			if n != 1 {
				return &usageError{
					msg:  "want one of --dnskey-seen, --rrsig-seen, --ds-seen TTL, --ds-gone, --next",
					hint: "what is waited for: sluice key status " + args[0],
				}
			}
			if q.Seen == keymgr.SeeDS {
				ttl, err := pipeline.ParseDuration(c.String(string(keymgr.SeeDS)))
				if err != nil || ttl < time.Second {
					return usagef("--ds-seen %q: want the TTL of the DS records at the parent", c.String(string(keymgr.SeeDS)))
				}
				q.TTL = uint32(ttl / time.Second) //nolint:gosec // at most 31 bits
			}
			status, err := client.ReportStep(c.Context, args[0], q)
			if err != nil {
				return err
			}
			return e.printRollovers(args[0], status.Rollovers)
		}),
	}
}

func keyAbort(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "abort", Usage: "end a rollover, or have it go the way back to the old keys", ArgsUsage: "ZONE",
		OnUsageError: onUsageError,
		Flags: []urfave.Flag{
			&urfave.Uint64Flag{Name: "rollover", Usage: "the rollover with this `NUMBER`, where several run"},
			reasonFlag(),
		},
		Action: e.zoneAction(func(c *urfave.Context, client *api.Client, args []string) error {
			status, err := client.AbortRollover(c.Context, args[0], api.AbortRollover{Rollover: c.Uint64("rollover"), Reason: c.String("reason")})
			if err != nil {
				return err
			}
			return e.printRollovers(args[0], status.Rollovers)
		}),
	}
}

func keyRemove(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "remove", Usage: "take out a key that neither signs nor takes part in a rollover", ArgsUsage: "ZONE ID",
		OnUsageError: onUsageError,
		Action: e.zoneAction(func(c *urfave.Context, client *api.Client, args []string) error {
			status, err := client.RemoveKey(c.Context, args[0], args[1])
			if err != nil {
				return err
			}
			if err := e.printKeys(status.Keys); err != nil || e.json {
				return err
			}
			return e.rolloverLines(status)
		}, "ID"),
	}
}

// rolloverLines tells of the rollovers of a zone in a line each.
func (e *env) rolloverLines(s pipeline.ZoneStatus) error {
	for _, r := range s.Rollovers {
		if err := e.printf("rollover %d of %s, step %d of %d: %s\n", r.ID, r.Kind, r.Step, r.Steps, r.Text); err != nil {
			return err
		}
	}
	return nil
}
