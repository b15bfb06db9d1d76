// Package manyzones runs one daemon with many small zones whose keys are due on
// the same day: how long it takes to add them, to start again with them, and to
// roll all their keys, and what that costs. Public servers and a parent that
// follows CDS stand in the same process; one public server takes connections and
// never says anything, and one in twenty zones has it.
package manyzones

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Config is what a run is made with.
type Config struct {
	Sluice string  // the program
	Dir    string  // an empty folder
	Zones  int     // at least 20
	Rate   float64 // simulated seconds a second, once all zones are there
	Log    io.Writer
}

// Validity is the age of the ZSKs at which they are to be gone.
const Validity = 10 * 24 * time.Hour

// spread is within what time before that the rollovers are expected to begin,
// beside the time that the new key has to be published before.
const spread = 14 * time.Hour

// shared is how many zones share one that has the silent server.
const shared = 20

// Part is one part of a run, of the daemon alone.
type Part struct {
	Name      string
	Wall, CPU time.Duration
	RSS, Peak int64 // bytes, at its end and the most so far
}

// Report is what a run shows.
type Report struct {
	Zones, Silent int // all, and those that have the silent server
	Parts         []Part
	Scrape        Scrape // once all zones are published
	// Begun is the time of each zone's rollover, by the simulated clock, and
	// Ended when it was over; Held are the zones whose rollover is not.
	Begun, Ended map[string]time.Time
	Held         []string
}

// run is one run.
type run struct {
	Config
	world  *world
	daemon *daemon
	addr   string
	report Report
	late   bool // what happened before it began is of no interest

	mu    sync.Mutex
	base  time.Time // guarded by mu; simulated time at the last start
	since time.Time // guarded by mu; when that was
	rate  float64   // guarded by mu; from then on
	first time.Time // simulated time when the last zone had been published
	seen  seen      // guarded by mu
}

// seen is what the daemon's events have told, by zone.
type seen struct {
	published, secured, begun, ended, bound map[string]time.Time
	last                                    uint64
}

// Run rolls all keys on one day.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	r := newRun(cfg)
	err := r.finish(r.prepare(ctx, "3h"), func() error { return r.all(ctx) })
	r.report.Begun, r.report.Ended = r.seen.begun, r.seen.ended
	for i := range cfg.Zones {
		name := zoneName(i)
		if !r.seen.ended[name].IsZero() {
			continue
		}
		r.report.Held = append(r.report.Held, name)
		if err == nil && !held(i) {
			err = fmt.Errorf("zone %s was held up, though all of its servers answer", name)
		}
	}
	slices.Sort(r.report.Held)
	return &r.report, err
}

func newRun(cfg Config) *run {
	r := &run{Config: cfg, base: time.Date(2027, 1, 4, 0, 0, 0, 0, time.UTC), since: time.Now(), rate: 1}
	by := func() map[string]time.Time { return map[string]time.Time{} }
	r.seen = seen{published: by(), secured: by(), begun: by(), ended: by(), bound: by()}
	r.report.Zones, r.report.Silent = cfg.Zones, cfg.Zones/shared
	return r
}

// finish runs what was prepared, and stops everything.
func (r *run) finish(prepared error, work func() error) error {
	err := prepared
	if err == nil {
		err = work()
	}
	if r.daemon != nil {
		err = errors.Join(err, r.daemon.stop())
	}
	if r.world != nil {
		err = errors.Join(err, r.world.close())
	}
	return err
}

func (r *run) all(ctx context.Context) error {
	if err := r.start(ctx); err != nil {
		return err
	}
	if err := r.added(ctx); err != nil {
		return err
	}
	if err := r.scrape(ctx); err != nil {
		return err
	}
	r.first = r.now()
	if err := r.again(ctx, r.first); err != nil {
		return err
	}
	r.report.Parts = append(r.report.Parts, r.daemon.part("started again, all zones served"))
	if err := r.part("all but the held zones have their DS", func() error {
		return r.await(ctx, "secure", func(s *seen) int { return len(s.secured) }, r.Zones-r.report.Silent, 0)
	}); err != nil {
		return err
	}
	if err := r.again(ctx, r.first.Add(Validity-spread)); err != nil {
		return err
	}
	if err := r.part("all rollovers begun", func() error {
		return r.await(ctx, "begun", func(s *seen) int { return len(s.begun) }, r.Zones-r.report.Silent, 0)
	}); err != nil {
		return err
	}
	return r.part("all but the held rollovers ended", func() error {
		return r.await(ctx, "ended", func(s *seen) int { return len(s.ended) }, r.Zones-r.report.Silent, 0)
	})
}

// added adds all zones and waits until they are published.
func (r *run) added(ctx context.Context) error {
	return r.part("all zones added, signed and published", func() error {
		if err := r.add(ctx); err != nil {
			return err
		}
		return r.await(ctx, "published", func(s *seen) int { return len(s.published) }, r.Zones, 0)
	})
}

// now is the simulated time.
func (r *run) now() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.base.Add(time.Duration(float64(time.Since(r.since)) * r.rate))
}

// again starts the daemon anew, at another time and at the wanted rate.
func (r *run) again(ctx context.Context, at time.Time) error {
	if err := r.daemon.stop(); err != nil {
		return err
	}
	r.mu.Lock()
	r.base, r.since, r.rate = at, time.Now(), r.Rate
	r.mu.Unlock()
	return r.start(ctx)
}

func zoneName(i int) string { return fmt.Sprintf("z%05d.%s", i, top) }

// held says whether a zone has the silent server.
func held(i int) bool { return i%shared == shared-1 }

// prepare writes zones, policies and the config; a zone is observed so often.
func (r *run) prepare(ctx context.Context, observed string) (err error) {
	if r.Zones < shared {
		return fmt.Errorf("%d zones: want at least %d", r.Zones, shared)
	}
	if r.addr, err = freeAddr(ctx); err != nil {
		return err
	}
	if r.world, err = newWorld(r.addr, 3, r.now); err != nil {
		return err
	}
	for _, dir := range []string{"zones", "policies"} {
		if err := os.Mkdir(filepath.Join(r.Dir, dir), 0o755); err != nil {
			return err
		}
	}
	for i := range r.Zones {
		if err := os.WriteFile(r.zoneFile(i), []byte(zoneText(i)), 0o600); err != nil {
			return err
		}
	}
	for name, public := range map[string][]string{"default": r.world.public, "silent": {r.world.public[0], r.world.silent}} {
		text := fmt.Sprintf(policyText, r.world.parent, strings.Join(public, `", "`), Validity, r.world.secondary, observed)
		if err := os.WriteFile(filepath.Join(r.Dir, "policies", name+".toml"), []byte(text), 0o600); err != nil {
			return err
		}
	}
	text := fmt.Sprintf("version = \"v1\"\npolicy-dir = %q\n[daemon]\nlog-level = \"error\"\nresolvers = [%q]\ntrust-anchors = [%q]\n",
		filepath.Join(r.Dir, "policies"), r.world.parent, r.world.anchor())
	return os.WriteFile(r.config(), []byte(text), 0o600)
}

func (r *run) config() string        { return filepath.Join(r.Dir, "config.toml") }
func (r *run) data() string          { return filepath.Join(r.Dir, "data") }
func (r *run) zoneFile(i int) string { return filepath.Join(r.Dir, "zones", zoneName(i)+"zone") }

func zoneText(i int) string {
	return fmt.Sprintf(`$TTL 3600
@ SOA ns1 hostmaster 1 7200 3600 1209600 300
@ NS ns1
@ NS ns2
@ MX 10 mail
@ TXT "v=spf1 mx -all"
ns1 A 192.0.2.1
ns2 A 192.0.2.2
mail A 192.0.2.%d
www A 198.51.100.%d
www AAAA 2001:db8::%x:%x
`, i%250, i%250, i>>16, i&0xffff)
}

const policyText = `version = "v1"
[key-manager]
propagation-margin = "5m"
observation-interval = "%[5]s"
parent-nameservers = [%[1]q]
publication-nameservers = ["%[2]s"]
[key-manager.zsk]
validity = "%[3]s"
[signer]
signature-lifetime = "60d"
signature-remain-time = "14d"
signature-refresh-interval = "1d"
[server.outbound]
send-notify-to = [%[4]q]
`

// part measures the daemon while fn runs.
func (r *run) part(name string, fn func() error) error {
	r.daemon.begin()
	if err := fn(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	r.report.Parts = append(r.report.Parts, r.daemon.part(name))
	return nil
}

// start starts the daemon and waits until it serves all zones that it has.
func (r *run) start(ctx context.Context) error {
	log, err := os.OpenFile(filepath.Join(r.Dir, "daemon.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	clock := fmt.Sprintf("%s,%g", r.now().Format(time.RFC3339), r.rate)
	d := &daemon{socket: filepath.Join(r.data(), "sluice.sock"), exited: make(chan struct{})}
	d.cmd = exec.Command(r.Sluice, "serve", "--config", r.config(), "--data", r.data(), "--listen", r.addr, "--clock", clock,
		"--review-loaded", "", "--review-signed", "")
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	d.began = time.Now()
	if err := d.cmd.Start(); err != nil {
		return errors.Join(err, log.Close())
	}
	r.daemon = d
	go func() {
		_ = d.cmd.Wait() // it is stopped at the end
		_ = log.Close()
		close(d.exited)
	}()
	if err := d.awaitHealth(ctx); err != nil {
		return err
	}
	go r.follow(d)
	return nil
}
