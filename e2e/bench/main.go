// Command bench measures whole processes of this program beside the field's
// own signers: in one run, on the same zone and keys, in turn (A B C A B C), so
// that a busy machine troubles all alike. It writes a table in Markdown.
//
//	go run ./e2e/bench -sluice bin/sluice -zone tld -n 100000 -runs 3
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"sluice/e2e/manyzones"
	"sluice/e2e/zonegen"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type config struct {
	zone   zonegen.Config
	runs   int
	denial string
	verify string
	sluice string
	tools  string
	dir    string
	out    string

	changes []liveChange
	sizes   []int
	zones   int
	rest    bool
	keep    string
	rate    float64
}

func parse(args []string) (config, error) {
	var c config
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar((*string)(&c.zone.Kind), "zone", string(zonegen.TLD), "tld or hosting")
	flags.IntVar(&c.zone.Names, "n", 100_000, "delegations or hosts in the zone")
	flags.IntVar(&c.runs, "runs", 3, "runs of each")
	flags.StringVar(&c.denial, "denial", "", "nsec, nsec3 or nsec3-opt-out (default: nsec3-opt-out for tld, nsec for hosting)")
	flags.StringVar(&c.verify, "verify", "sample", "how many of its signatures sluice verifies: sample or all")
	flags.StringVar(&c.sluice, "sluice", "bin/sluice", "the program")
	flags.StringVar(&c.tools, "tools", "all", "which to run, by the start of their names, with commas between: signzone,serve,share-1,share-2,kzonesign,dnssec-signzone,ldns-signzone,axfr,live-sluice,live-named,live-knotd,flat-sluice,flat-named,flat-knotd")
	flags.Func("changes", "live and flat: RRsets that a change has and how many are made a run, with commas between; flat takes the first (default 1:100,100:20,10000:4)", c.parseChanges)
	flags.Func("sizes", "flat: names in the zones, with commas between (default: a hundredth, a tenth and all of -n)", c.parseSizes)
	flags.IntVar(&c.zones, "zones", 0, "instead of all else: one daemon with so many small zones, whose ZSKs are due on the same day")
	flags.BoolVar(&c.rest, "rest", false, "with -zones: at the pace of the clock: added, started again, left alone, asked, with another policy")
	flags.StringVar(&c.keep, "keep", "", "with -rest: the folder of an earlier run with as many zones, or where to make one; it is kept")
	flags.Float64Var(&c.rate, "rate", 60, "with -zones: simulated seconds a second")
	flags.StringVar(&c.dir, "dir", "", "folder for zones and output, kept (default: a temporary one, removed)")
	flags.StringVar(&c.out, "o", "", "file for the table (default: standard output)")
	if err := flags.Parse(args); err != nil {
		return c, err
	}
	if flags.NArg() > 0 {
		return c, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if c.denial == "" {
		c.denial = "nsec3-opt-out"
		if c.zone.Kind == zonegen.Hosting {
			c.denial = "nsec"
		}
	}
	switch c.denial {
	case "nsec", "nsec3", "nsec3-opt-out":
	default:
		return c, fmt.Errorf("denial %q: want nsec, nsec3 or nsec3-opt-out", c.denial)
	}
	if c.runs < 1 {
		return c, errors.New("at least one run is needed")
	}
	if c.changes == nil {
		c.changes = []liveChange{{1, 100}, {100, 20}, {10_000, 4}}
	}
	if c.sizes == nil {
		c.sizes = []int{max(c.zone.Names/100, 1), max(c.zone.Names/10, 1), c.zone.Names}
	}
	return c, nil
}

func (c *config) parseChanges(text string) error {
	for part := range strings.SplitSeq(text, ",") {
		var l liveChange
		if _, err := fmt.Sscanf(part, "%d:%d", &l.rrsets, &l.times); err != nil || l.rrsets < 1 || l.times < 2 || l.times%2 != 0 {
			return fmt.Errorf("%q: want RRSETS:TIMES, an even number of times", part)
		}
		c.changes = append(c.changes, l)
	}
	return nil
}

func (c *config) parseSizes(text string) error {
	for part := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(part)
		if err != nil || n < 1 {
			return fmt.Errorf("%q: want a number of names", part)
		}
		c.sizes = append(c.sizes, n)
	}
	return nil
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	c, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	if c.sluice, err = filepath.Abs(c.sluice); err != nil {
		return err
	}
	if c.dir == "" {
		if c.dir, err = os.MkdirTemp("", "sluice-bench-"); err != nil {
			return err
		}
		defer os.RemoveAll(c.dir)
	} else if c.dir, err = filepath.Abs(c.dir); err != nil {
		return err
	}
	if c.zones > 0 {
		return c.manyZones(ctx, stdout)
	}
	b, err := prepare(ctx, c)
	if err != nil {
		return err
	}
	signed, err := b.inTurn(ctx, b.signers())
	if err != nil {
		return err
	}
	served, err := b.serve(ctx)
	if err != nil {
		return err
	}
	big, flat, err := b.live(ctx)
	if err != nil {
		return err
	}
	return c.write(stdout, report(c, signed, served)+reportLive(big, flat))
}

// write puts a table where it is wanted.
func (c config) write(stdout io.Writer, table string) error {
	if c.out == "" {
		_, err := io.WriteString(stdout, table)
		return err
	}
	return os.WriteFile(c.out, []byte(table), 0o644)
}

// manyZones measures one daemon with many zones.
func (c config) manyZones(ctx context.Context, stdout io.Writer) error {
	dir := c.keep
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp(c.dir, "zones-"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	} else if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	run := manyzones.Run
	if c.rest {
		run = manyzones.Rest
	}
	r, err := run(ctx, manyzones.Config{Sluice: c.sluice, Dir: dir, Zones: c.zones, Rate: c.rate, Log: os.Stderr})
	if err != nil {
		return err
	}
	return c.write(stdout, machine()+".\n\n"+r.Markdown())
}

// wanted says whether -tools asks for the contender of that name.
func (c config) wanted(name string) bool {
	if c.tools == "all" {
		return true
	}
	for tool := range strings.SplitSeq(c.tools, ",") {
		if tool != "" && strings.HasPrefix(name, tool) {
			return true
		}
	}
	return false
}

func machine() string {
	return fmt.Sprintf("%d CPUs, %s, %s", runtime.NumCPU(), runtime.Version(), kernel())
}

func kernel() string {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return runtime.GOOS
	}
	return "Linux " + strings.TrimSpace(string(release))
}
