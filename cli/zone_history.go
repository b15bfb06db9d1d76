package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"sluice/cli/api"
	"sluice/journal/event"
	"sluice/pipeline"
)

func zoneHistory(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "history", Usage: "a zone's events, newest last", ArgsUsage: "ZONE",
		OnUsageError: onUsageError,
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "since", Usage: "from this `TIME` on"},
			&urfave.StringFlag{Name: "until", Usage: "up to this `TIME`"},
			&urfave.StringSliceFlag{Name: "type", Usage: "only events of this `TYPE`, such as instance.published, or of a family, such as key; may be given again"},
			&urfave.IntFlag{Name: "limit", Usage: "only the newest `N`"},
			&urfave.BoolFlag{Name: "evidence", Usage: "below each event what it can be checked by: digests, identities, counts, planned times, software"},
			&urfave.BoolFlag{Name: "verbose", Usage: "below each event its number, its cause and its facts as they stand in the journal"},
		},
		Action: e.zoneAction(func(c *urfave.Context, client *api.Client, args []string) error {
			q := pipeline.HistoryQuery{Limit: c.Int("limit"), Evidence: c.Bool("evidence")}
			if c.IsSet("limit") && q.Limit < 1 {
				return usagef("--limit %d: want a number above 0", q.Limit)
			}
			var err error
			if q.Types, err = eventTypes(c.StringSlice("type")); err != nil {
				return err
			}
			if q.Since, err = timeFlag(c, "since"); err != nil {
				return err
			}
			if q.Until, err = timeFlag(c, "until"); err != nil {
				return err
			}
			verbose := c.Bool("verbose")
			// A person is told of many versions in a row as of one matter; what is
			// piped has a line for each.
			b := bursts{
				print: func(ev api.Event) error { return e.printEvent(ev, false, verbose) }, note: e.printf,
				each: !e.color || verbose || q.Evidence || len(q.Types) > 0,
			}
			err = client.History(c.Context, args[0], q, b.add)
			return errors.Join(err, b.end())
		}),
	}
}

// eventTypes takes families of events for all their types.
func eventTypes(names []string) ([]string, error) {
	var out []string
	for _, name := range names {
		known := len(out)
		for _, wire := range event.Types() {
			if noun, _, _ := strings.Cut(wire, "."); wire == name || noun == name {
				out = append(out, wire)
			}
		}
		if len(out) == known {
			return nil, &usageError{
				msg:  fmt.Sprintf("--type %q: there are no such events", name),
				hint: "families: " + strings.Join(eventFamilies(), ", ") + "; types: " + strings.Join(event.Types(), ", "),
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// eventFamilies lists what the types of events begin with.
func eventFamilies() []string {
	var out []string
	for _, wire := range event.Types() {
		noun, _, _ := strings.Cut(wire, ".")
		out = append(out, noun)
	}
	return slices.Compact(out)
}

// timeFlag reads a time flag; zero where it is not given.
func timeFlag(c *urfave.Context, name string) (time.Time, error) {
	if !c.IsSet(name) {
		return time.Time{}, nil
	}
	return parseTime(c.String(name), time.Now())
}

// printEvent prints one event as a line; verbose adds what stands in it.
func (e *env) printEvent(ev api.Event, withZone, verbose bool) error {
	if e.json {
		return e.printLine(ev)
	}
	name := ""
	if withZone {
		name = ev.Zone + "  "
	}
	next := ""
	if ev.Next != "" {
		next = "; next: " + ev.Next
	}
	var below strings.Builder
	for _, p := range ev.Evidence {
		fmt.Fprintf(&below, "    %s  %s\n", p.Name, p.Value)
	}
	err := e.printf("%s  seq %d  %s%s: %s%s  (%s)\n%s",
		when(ev.Time), ev.Seq, name, ev.Type, ev.Text, next, actorText(ev.Actor, ev.Door, ev.Role), below.String())
	if err == nil && verbose {
		err = e.printFacts(ev)
	}
	return err
}

// actorText says who acted, by which door, and by which role.
func actorText(name, door, role string) string {
	if role != "" {
		role = ", " + role
	}
	return name + ", " + door + role
}

// printFacts prints what stands in an event.
func (e *env) printFacts(ev api.Event) error {
	var line struct {
		N     uint64                     `json:"n"`
		Cause uint64                     `json:"cause"`
		Epoch uint64                     `json:"epoch"`
		Prev  string                     `json:"prev"`
		Facts map[string]json.RawMessage `json:"facts"`
	}
	if err := json.Unmarshal(ev.Event, &line); err != nil {
		return fmt.Errorf("read event %d: %w", ev.Seq, err)
	}
	head := fmt.Sprintf("    event %d of the zone", line.N)
	if line.Cause != 0 {
		head += fmt.Sprintf(", caused by seq %d", line.Cause)
	}
	if line.Epoch != 0 {
		head += fmt.Sprintf(", epoch %d", line.Epoch)
	}
	lines := []string{head + ", after " + line.Prev}
	for _, name := range slices.Sorted(maps.Keys(line.Facts)) {
		lines = append(lines, "      "+name+": "+string(line.Facts[name]))
	}
	return e.printf("%s\n", strings.Join(lines, "\n"))
}

// bursts tells many versions of a zone in a row, made by the program and with
// nothing else between them, as its first ones, how many there were, and its
// last one.
type bursts struct {
	print func(api.Event) error
	note  func(format string, args ...any) error
	each  bool // each event is told

	run    int // events of versions in a row
	held   []api.Event
	signed int // left out
	shown  int // published, left out
	until  api.Event
}

const (
	// burstHead and burstTail are how many events are told at both ends.
	burstHead = 2
	burstTail = 2
)

// add takes the next event.
func (b *bursts) add(ev api.Event) error {
	routine := ev.Door == event.Program.Door && (ev.Type == "instance.signed" || ev.Type == "instance.published")
	if b.each || !routine {
		if err := b.end(); err != nil {
			return err
		}
		return b.print(ev)
	}
	if b.run++; b.run <= burstHead {
		return b.print(ev)
	}
	if b.held = append(b.held, ev); len(b.held) > burstTail {
		out := b.held[0]
		b.held = slices.Delete(b.held, 0, 1)
		if b.until = out; out.Type == "instance.signed" {
			b.signed++
		} else {
			b.shown++
		}
	}
	return nil
}

// end tells what was held back.
func (b *bursts) end() error {
	defer func() { *b = bursts{print: b.print, note: b.note, each: b.each} }()
	var err error
	switch n := b.signed + b.shown; {
	case n == 1:
		err = b.print(b.until)
	case n > 1:
		err = b.note("    ... signed %s and published %s more, until %s, seq %d (--verbose tells each)\n",
			count(uint64(b.signed), "time"), count(uint64(b.shown), "time"), when(b.until.Time), b.until.Seq)
	}
	for _, ev := range b.held {
		err = errors.Join(err, b.print(ev))
	}
	return err
}

func zoneTail(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "tail", Usage: "follow the events of a zone, or of all zones, until interrupted", ArgsUsage: "[ZONE]",
		OnUsageError: onUsageError,
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "from", Usage: "begin at this `seq:N|TIME`, not with the next event"},
		},
		Action: func(c *urfave.Context) error {
			name := c.Args().First()
			if c.Args().Len() > 1 {
				return usagef("unexpected argument %q", c.Args().Get(1))
			}
			if name != "" {
				if _, err := parseZone(name); err != nil {
					return err
				}
			}
			from, err := tailFrom(c)
			if err != nil {
				return err
			}
			return e.clientAction(func(client *api.Client) error {
				err := client.Tail(c.Context, name, from, func(ev api.Event) error {
					return e.printEvent(ev, name == "", false)
				})
				if errors.Is(err, context.Canceled) {
					return nil // interrupted: that is how a tail ends
				}
				return err
			})
		},
	}
}

// tailFrom reads where a tail begins: a sequence or a time.
func tailFrom(c *urfave.Context) (string, error) {
	text := c.String("from")
	if text == "" {
		return "", nil
	}
	if digits, ok := strings.CutPrefix(text, "seq:"); ok {
		n, err := strconv.ParseUint(digits, 10, 63)
		if err != nil || n == 0 {
			return "", usagef("--from %q: want seq:N, N from 1", text)
		}
		return digits, nil
	}
	if strings.Trim(text, "0123456789") == "" && len(text) != len("20060102150405") {
		return "", &usageError{
			msg:  fmt.Sprintf("--from %q: a bare number is a serial; a tail begins at a sequence or a time", text),
			hint: fmt.Sprintf("seq:%s is a sequence, @%s a time", text, text),
		}
	}
	t, err := parseTime(text, time.Now())
	if err != nil {
		return "", usagef("--from %q: want seq:N or a time", text)
	}
	return t.Format(time.RFC3339Nano), nil
}

func zoneReplay(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "replay", Usage: "rebuild a zone from its events alone and compare every digest", ArgsUsage: "ZONE",
		OnUsageError: onUsageError,
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "to", Usage: "end at this `SERIAL|INSTANCE|seq:N|TIME`"},
			&urfave.BoolFlag{Name: "verify", Usage: "compute every digest from the items, and compare what is served item by item"},
		},
		Action: e.zoneAction(func(c *urfave.Context, client *api.Client, args []string) error {
			to := c.String("to")
			if to != "" {
				var err error
				if to, err = versionWord(to); err != nil {
					return err
				}
			}
			began := time.Now()
			var steps, records uint64
			m := e.newMeter()
			err := client.Replay(c.Context, args[0], to, c.Bool("verify"), m.show, func(s pipeline.ReplayStep) error {
				steps++
				records += s.Records
				m.end()
				if e.json {
					return e.printLine(s)
				}
				verdict := e.paint(green, "equal")
				if !s.Equal {
					verdict = e.paint(red, "DIFFERS: recorded "+s.Recorded)
				}
				return e.printf("%s  serial %d  %s  %s  %s\n", s.Instance, s.Serial, count(s.Records, "record"), s.Rebuilt, verdict)
			})
			m.end()
			if err != nil {
				return err
			}
			if !e.json {
				return e.printf("%s rebuilt, all digests equal, %s\n", count(steps, "instance"), tookText(time.Since(began)))
			}
			return nil
		}),
	}
}

// tookText writes how long something took.
func tookText(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return d.Round(time.Second).String()
}
