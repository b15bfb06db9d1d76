package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"sluice/keymgr"
	"sluice/pipeline"
	"sluice/pipeline/simulate"
)

func simulateCommand(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "simulate", Usage: "rehearse the key life of a zone on paper, with the daemon's own decisions",
		Description: "Years of rollovers in seconds: public servers that follow late, a parent that reads\n" +
			"CDS or a person who tells it, servers that fail, and all caches, which are searched\n" +
			"for what a validator anywhere may refuse. No daemon is needed. Exit code 1: answers\n" +
			"may have been refused.",
		OnUsageError: onUsageError,
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "policy", Usage: "the policy `FILE`; by default the built-in policy"},
			&urfave.StringFlag{Name: "zone", Value: "example.", Usage: "`NAME` of the zone"},
			&urfave.StringFlag{Name: "from", Usage: "begin at `TIME`; by default now"},
			&urfave.StringFlag{Name: "until", Usage: "end at `TIME`, or +DURATION after the begin; by default three years after it"},
			&urfave.StringSliceFlag{Name: "roll", Usage: "begin a rollover, `KIND[:METHOD]@TIME`, TIME also a day such as 2027-05-01; may be given several times"},
			&urfave.StringFlag{Name: "algorithm", Usage: "`NAME` or number of the algorithm that rollovers of kind algorithm lead to"},
			&urfave.StringSliceFlag{Name: "failure", Usage: "a server does not answer, `SERVER@FROM/UNTIL`: ns1, ns2 ... of the zone, parent1 ... of the parent; several times"},
			&urfave.StringFlag{Name: "operator-delay", Usage: "somebody does what waits for a person, after this `DURATION`; by default nobody comes"},
			&urfave.StringFlag{Name: "parent", Usage: "`HOW` the parent learns of the DS, beside what the policy pushes: cds (it reads CDS), hook (the policy's hooks have it changed) or hand; by default cds where the policy publishes CDS"},
			durationFlag("parent-interval", "the parent reads CDS every `DURATION`", simulate.Usual),
			durationFlag("parent-delay", "it takes the parent `DURATION` to publish a change", simulate.Usual),
			durationFlag("bootstrap", "the first CDS must stand for `DURATION` (RFC 8078, 3.3)", simulate.Usual),
			durationFlag("ds-ttl", "`TTL` of the DS RRset", simulate.Usual),
			durationFlag("zone-ttl", "the largest `TTL` of the zone", simulate.Usual),
			durationFlag("soa-refresh", "REFRESH of the zone's SOA, a `DURATION`", simulate.Usual),
			durationFlag("soa-retry", "RETRY of the zone's SOA, a `DURATION`", simulate.Usual),
			durationFlag("soa-expire", "EXPIRE of the zone's SOA, a `DURATION`", simulate.Usual),
			durationFlag("propagation", "each public server shows a version within `DURATION`", simulate.Usual),
			durationFlag("late", "sites behind a server are late by `DURATION`", simulate.Usual),
			&urfave.IntFlag{Name: "servers", Value: 2, Usage: "`NUMBER` of public servers of the zone, and of its parent"},
			&urfave.IntFlag{Name: "rrsets", Value: 1000, Usage: "`NUMBER` of signed RRsets of the zone"},
			&urfave.IntFlag{Name: "width", Usage: "`COLUMNS` of the figures", DefaultText: "the terminal's, else 80"},
		},
		Action: func(c *urfave.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			s, err := settingOf(c)
			if err != nil {
				return err
			}
			width := c.Int("width")
			if c.IsSet("width") && (width < leastWidth || width > mostWidth) {
				return usagef("--width %d: want %d to %d columns", width, leastWidth, mostWidth)
			}
			return e.simulate(c, s, width)
		},
	}
}

// simulate runs a rehearsal and prints it.
func (e *env) simulate(c *urfave.Context, s simulate.Setting, width int) error {
	if width == 0 {
		width = columns(e.stdout)
	}
	p := simulatePrinter{e: e, wrap: isTerminal(e.stdout), width: width}
	sum, err := simulate.Run(c.Context, s, p.line)
	if err != nil {
		return err
	}
	if err := p.summary(sum); err != nil {
		return err
	}
	if sum.Bogus > 0 {
		return withHint(fmt.Errorf("validators may refuse answers at %d of %d moments", sum.Bogus, sum.Checks),
			"what the lines of kind bogus name was gone too early: raise key-manager.propagation-margin above what sites are late by")
	}
	return nil
}

// durations names the flags that are durations, and where they go.
func durations(s *simulate.Setting) map[string]*time.Duration {
	return map[string]*time.Duration{
		"parent-interval": &s.ParentInterval, "parent-delay": &s.ParentDelay, "bootstrap": &s.Bootstrap,
		"ds-ttl": &s.DSTTL, "zone-ttl": &s.ZoneTTL, "soa-refresh": &s.Refresh, "soa-retry": &s.Retry, "soa-expire": &s.Expire,
		"propagation": &s.Propagation, "late": &s.Late,
	}
}

// durationFlag is a flag that shows what is usual.
func durationFlag(name, usage string, usual func(pipeline.Policy, time.Time, time.Time) simulate.Setting) urfave.Flag {
	s := usual(pipeline.Default(), time.Time{}, time.Time{})
	return &urfave.StringFlag{Name: name, Usage: usage, DefaultText: pipeline.DurationText(*durations(&s)[name])}
}

// settingOf reads what the flags say.
func settingOf(c *urfave.Context) (s simulate.Setting, err error) {
	p := pipeline.Default()
	if file := c.String("policy"); file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return s, err
		}
		name := strings.TrimSuffix(filepath.Base(file), filepath.Ext(file))
		if p, err = pipeline.Parse(name, text); err != nil {
			return s, err
		}
	}
	from := time.Now().UTC().Truncate(time.Second)
	if text := c.String("from"); text != "" {
		if from, err = dayOrTime(text, from); err != nil {
			return s, err
		}
	}
	until := from.AddDate(3, 0, 0)
	if text := c.String("until"); text != "" {
		if until, err = dayOrTime(text, from); err != nil {
			return s, err
		}
	}
	s = simulate.Usual(p, from, until)
	s.Servers, s.Parents, s.RRsets = c.Int("servers"), c.Int("servers"), c.Int("rrsets")
	if s.Zone, err = fullName(c.String("zone")); err != nil {
		return s, err
	}
	for name, to := range durations(&s) {
		if text := c.String(name); text != "" {
			if *to, err = pipeline.ParseDuration(text); err != nil {
				return s, usagef("--%s: %v", name, err)
			}
		}
	}
	if text := c.String("operator-delay"); text != "" {
		if s.OperatorDelay, err = pipeline.ParseDuration(text); err != nil {
			return s, usagef("--operator-delay: %v", err)
		}
	}
	switch c.String("parent") {
	case "":
	case "cds":
		if !p.Rollovers().CDS {
			return s, usagef("--parent cds: policy %q publishes no CDS (key-manager.cds)", p.Name)
		}
		s.ReadsCDS = true
	case "hook":
		if len(p.Parent().Hooks) == 0 {
			return s, usagef("--parent hook: policy %q has no hooks (key-manager.parent.hooks)", p.Name)
		}
		s.ReadsCDS, s.HooksTell = false, true
	case "hand":
		s.ReadsCDS = false
	default:
		return s, usagef("--parent %q: want cds, hook or hand", c.String("parent"))
	}
	if err := events(c, &s); err != nil {
		return s, err
	}
	if err := s.Check(); err != nil {
		return s, usagef("%v", err)
	}
	return s, nil
}

// events reads what is to happen meanwhile.
func events(c *urfave.Context, s *simulate.Setting) error {
	algorithm, err := algorithmOf(c.String("algorithm"))
	if err != nil {
		return err
	}
	used := false
	for _, text := range c.StringSlice("roll") {
		bad := usagef("--roll %q: want KIND[:METHOD]@TIME, for example ksk@2027-05-01", text)
		what, at, ok := strings.Cut(text, "@")
		kind, method, _ := strings.Cut(what, ":")
		if !ok || keymgr.Methods(keymgr.Kind(kind)) == nil {
			return bad
		}
		roll := simulate.Roll{Request: pipeline.RolloverRequest{Kind: keymgr.Kind(kind), Method: keymgr.Method(method)}}
		if roll.At, err = dayOrTime(at, s.From); err != nil {
			return err
		}
		if roll.Request.Kind == keymgr.RollAlgorithm {
			roll.Request.Algorithm, used = algorithm, true
			if algorithm == "" {
				return usagef("--roll %q: which algorithm? name it with --algorithm", text)
			}
		}
		s.Rolls = append(s.Rolls, roll)
	}
	if algorithm != "" && !used {
		return usagef("--algorithm is for a rollover of kind algorithm: --roll algorithm@TIME")
	}
	for _, text := range c.StringSlice("failure") {
		server, span, ok := strings.Cut(text, "@")
		from, until, both := strings.Cut(span, "/")
		if !ok || !both {
			return usagef("--failure %q: want SERVER@FROM/UNTIL, for example ns2@2027-05-01/2027-05-08", text)
		}
		f := simulate.Failure{Server: server}
		if f.From, err = dayOrTime(from, s.From); err != nil {
			return err
		}
		if f.Until, err = dayOrTime(until, s.From); err != nil {
			return err
		}
		s.Failures = append(s.Failures, f)
	}
	return nil
}

// dayOrTime reads a time, or the day that begins at it in UTC. from is what a
// duration counts from.
func dayOrTime(text string, from time.Time) (time.Time, error) {
	if t, err := time.Parse(time.DateOnly, text); err == nil {
		return t, nil
	}
	return parseTime(text, from)
}

// algorithmOf is the name of an algorithm that is given by name or number.
func algorithmOf(text string) (string, error) {
	if n, err := strconv.ParseUint(text, 10, 8); err == nil {
		text = keymgr.AlgorithmName(uint8(n))
	}
	if text == "" {
		return "", nil
	}
	if _, _, err := pipeline.ParseAlgorithm(text); err != nil {
		return "", usagef("--algorithm: %v", err)
	}
	return text, nil
}
