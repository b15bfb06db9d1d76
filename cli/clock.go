package cli

import (
	"math"
	"strconv"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"sluice/cli/api"
	"sluice/pipeline"
)

// parseClock reads --clock START[,RATE]: a simulated clock that shows START
// now and runs at RATE seconds a second (1 where it is left out, 0 is
// frozen). An empty text is the machine's clock.
func parseClock(text string) (clock pipeline.Clock, name string, err error) {
	if text == "" {
		return pipeline.Clock{}, realClock, nil
	}
	startText, rateText, hasRate := strings.Cut(text, ",")
	start, err := parseTime(startText, time.Now())
	if err != nil {
		return clock, "", err
	}
	rate := 1.0
	if hasRate {
		rate, err = strconv.ParseFloat(rateText, 64)
		if err != nil || math.IsNaN(rate) || rate < 0 || rate > 1e6 {
			return clock, "", usagef("--clock %q: want a rate of 0 to 1000000 after the comma", text)
		}
	}
	return pipeline.NewRehearsal(start, rate), rehearsalClock, nil
}

func clockCommand(e *env) *urfave.Command {
	return &urfave.Command{
		Name:         "clock",
		Usage:        "the daemon's clock: nothing is signed while it is not trusted",
		OnUsageError: onUsageError,
		Action:       commandMissing,
		Subcommands:  []*urfave.Command{clockStatus(e), clockAccept(e), clockMove(e)},
	}
}

func clockStatus(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "status", Usage: "what the clock shows, and whether it is trusted",
		OnUsageError: onUsageError,
		Action: func(c *urfave.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			return e.clientAction(func(client *api.Client) error {
				st, err := client.Clock(c.Context)
				return e.printClock(st, err)
			})
		},
	}
}

func clockAccept(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "accept", Usage: "trust the clock as it is: signing goes on",
		Description:  "A clock that differs by more than five minutes from the journal's last event and\nthe time that went by since is not trusted. Setting the machine's clock right ends\nthat by itself; this is for a clock that is right.",
		OnUsageError: onUsageError,
		Flags:        []urfave.Flag{&urfave.StringFlag{Name: "reason", Usage: "keep this `TEXT` with it"}},
		Action: func(c *urfave.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			return e.clientAction(func(client *api.Client) error {
				st, err := client.AcceptClock(c.Context, c.String("reason"))
				return e.printClock(st, err)
			})
		},
	}
}

func clockMove(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "move", Usage: "in a rehearsal: move the clock, as if the machine's had been set", ArgsUsage: "DURATION",
		OnUsageError: onUsageError,
		Flags:        []urfave.Flag{&urfave.BoolFlag{Name: "back", Usage: "move it back"}},
		Action: func(c *urfave.Context) error {
			args, err := arguments(c, "DURATION")
			if err != nil {
				return err
			}
			by, err := pipeline.ParseDuration(args[0])
			if err != nil {
				return usagef("%v", err)
			}
			if c.Bool("back") {
				by = -by
			}
			return e.clientAction(func(client *api.Client) error {
				st, err := client.MoveClock(c.Context, by)
				return e.printClock(st, err)
			})
		},
	}
}

func (e *env) printClock(st pipeline.ClockStatus, err error) error {
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(st)
	}
	kind := "the machine's"
	if st.Rehearsal {
		kind = "simulated"
	}
	if st.Trusted {
		return e.fields("clock", when(st.Now)+", "+kind, "trusted", e.paint(green, "yes"))
	}
	return e.fields("clock", when(st.Now)+", "+kind, "trusted", e.paint(red, "no: "+st.Reason), "expected", when(st.Expected),
		"since", sinceText(st.Since), "what to do", pipeline.ClockHint)
}

// sinceText says what the clock showed when something began.
func sinceText(t *time.Time) string {
	if t == nil {
		return ""
	}
	return when(*t) + " by this clock"
}
