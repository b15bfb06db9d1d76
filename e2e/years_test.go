package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/keymgr"
	"sluice/pipeline/simulate"
)

const yearsZone = `$TTL 1d
@ IN SOA ns1 hostmaster 1 12h 6h 30d 1d
@ IN NS ns1
ns1 IN A 127.0.0.1
www IN A 192.0.2.80
sub IN NS ns.elsewhere.example.
`

// yearsNames is so many that signatures follow the keys in slices.
const yearsNames = 300

const yearsPolicy = `version = "v1"
[key-manager]
propagation-margin = "2d"
observation-interval = "1d"
auto-remove-delay = "10d"
parent-nameservers = [%s]
publication-nameservers = [%s]
[key-manager.records]
ttl = "1d"
[key-manager.zsk]
validity = %q
[key-manager.ksk]
validity = %q
auto-start = true
[signer]
signature-lifetime = "40d"
signature-remain-time = "20d"
signature-refresh-interval = "2d"
key-roll-time = "4d"
[server.outbound]
send-notify-to = [%s]
`

// years is how long a life is rehearsed, and how fast.
type years struct {
	days     int
	zsk, ksk string // their validity
	rate     int    // simulated seconds a second
	// algorithm is the day of a rollover to another algorithm; 0 for none.
	algorithm int
}

// A zone lives for years by itself: a parent reads its CDS, its public servers
// are late, and a site behind them later still. No validator with anything in
// its cache, however old, may have refused an answer, and everything happened
// as was foretold on paper.
func TestRehearsal_YearsAsForetold(t *testing.T) {
	t.Parallel()
	life := years{days: 68, zsk: "30d", ksk: "40d", rate: 150_000}
	if long() {
		life = years{days: 3 * 365, zsk: "90d", ksk: "300d", rate: 100_000, algorithm: 500}
	}
	const day = 24 * time.Hour
	w := newYearsWorld(t, example+".", []time.Duration{3 * time.Hour, 6 * time.Hour}, day,
		parentHabits{interval: day, delay: 6 * time.Hour, bootstrap: 3 * day, ttl: 2 * day})
	begin := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	w.clock = yearsClock{sim: begin, real: time.Now(), rate: life.rate}

	told := make(chan struct{}, 1)
	var public, parents []string
	for _, lag := range w.lags {
		public = append(public, serveDNS(t, w.public(lag, told)))
		parents = append(parents, serveDNS(t, w.asParent))
	}
	var source strings.Builder
	source.WriteString(yearsZone)
	for i := range yearsNames {
		fmt.Fprintf(&source, "n%d IN A 192.0.2.%d\n", i, i%250)
	}
	dir := shortDir(t)
	policies := filepath.Join(dir, "policies")
	if err := os.Mkdir(policies, 0o755); err != nil {
		t.Fatal(err)
	}
	policy := writeFile(t, filepath.Join(policies, "default.toml"),
		fmt.Sprintf(yearsPolicy, quotedList(parents), quotedList(public), life.zsk, life.ksk, quotedList(public[:1])))
	config := writeFile(t, filepath.Join(dir, "config.toml"), fmt.Sprintf(
		"version = \"v1\"\npolicy-dir = %q\n[daemon]\nresolvers = [%q]\ntrust-anchors = [%q]\n", policies, parents[0], w.anchor()))
	d := &daemon{data: filepath.Join(dir, "data"), addr: freeAddr(t)}
	d.flags = []string{
		"--config", config, "--zone", example + "=" + writeFile(t, filepath.Join(dir, "zone"), source.String()),
		"--clock", fmt.Sprintf("%s,%d", begin.Format(time.RFC3339), life.rate),
	}
	d.start(t)
	d.awaitServed(t, example)
	before := time.Now()
	sim := d.now(t)
	w.clock = yearsClock{sim: sim, real: before.Add(time.Since(before) / 2), rate: life.rate}

	stop := make(chan struct{})
	var beside sync.WaitGroup
	beside.Go(func() { w.take(d.addr, told, stop) })
	beside.Go(func() { w.follow(public, stop) })
	rolled := life.pass(t, d, w, begin)
	close(stop)
	beside.Wait()

	found, all := w.bogus()
	if len(found) > 0 {
		t.Errorf("of %d that caches may have held, %d do not validate: %q", all, len(found), found[:min(len(found), 10)])
	}
	for _, why := range w.failed {
		t.Error(why)
	}
	if versions := len(w.versions); versions < life.days/4 || all < versions || len(w.sets) < 3 {
		t.Errorf("%d versions, %d DS RRsets, %d that caches may have held together", versions, len(w.sets), all)
	}
	args := []string{
		"--json", "simulate", "--policy", policy, "--zone", example, "--from", sim.Format(time.RFC3339), "--until", begin.Add(time.Duration(life.days) * day).Format(time.RFC3339),
		"--zone-ttl", "1d", "--ds-ttl", "2d", "--soa-refresh", "12h", "--soa-retry", "6h", "--soa-expire", "30d", "--rrsets", fmt.Sprint(2*yearsNames + 8),
		"--propagation", "6h", "--late", "1d", "--parent-interval", "1d", "--parent-delay", "6h", "--bootstrap", "3d",
	}
	if !rolled.IsZero() {
		args = append(args, "--roll", "algorithm@"+rolled.Format(time.RFC3339), "--algorithm", "ED25519")
	}
	life.compare(t, foretold(t, must(t, program(t), args...)), d.rolled(t), begin)
}

// pass lets the time go by, and begins what nobody begins by himself. It returns
// when that was.
func (y years) pass(t *testing.T, d *daemon, w *yearsWorld, begin time.Time) (rolled time.Time) {
	t.Helper()
	const day = 24 * time.Hour
	end, algorithm := begin.Add(time.Duration(y.days)*day), begin.Add(time.Duration(y.algorithm)*day)
	await(t, "the years to go by", time.Duration(y.days)*day/time.Duration(y.rate)+time.Minute, func() (bool, string) {
		if !d.running() {
			t.Fatalf("the daemon has ended:\n%s", d.tail())
		}
		now := w.clock.now()
		if y.algorithm > 0 && rolled.IsZero() && now.After(algorithm) {
			if r := d.cli(t, "key", "roll", example, "algorithm", "--algorithm", "ED25519", "--reason", "tried"); r.code == 0 {
				rolled = now
			}
		}
		return !now.Before(end), now.Format(time.RFC3339)
	})
	return rolled
}

func quotedList(words []string) string {
	quoted := make([]string, 0, len(words))
	for _, word := range words {
		quoted = append(quoted, fmt.Sprintf("%q", word))
	}
	return strings.Join(quoted, ", ")
}

// foretold is the rollovers of a rehearsal on paper.
func foretold(t *testing.T, out string) []simulate.Rolled {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var sum struct {
		Kind string `json:"kind"`
		simulate.Summary
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &sum); err != nil || sum.Kind != "summary" {
		t.Fatalf("%v: %s", err, lines[len(lines)-1])
	}
	if sum.Bogus > 0 {
		t.Errorf("on paper validators refuse answers at %d moments", sum.Bogus)
	}
	return sum.Rollovers
}

// rolled reads the rollovers out of a zone's history.
func (d *daemon) rolled(t *testing.T) (all []simulate.Rolled) {
	t.Helper()
	text := d.must(t, "zone", "history", example, "--json", "--type", "rollover.started", "--type", "rollover.advanced", "--type", "rollover.completed")
	byID := map[uint64]int{}
	for dec := json.NewDecoder(strings.NewReader(text)); dec.More(); {
		var e struct {
			Time  time.Time `json:"time"`
			Event struct {
				N     uint64 `json:"n"`
				Type  string `json:"type"`
				Facts struct {
					Rollover uint64        `json:"rollover"`
					Step     int           `json:"step"`
					Name     string        `json:"name"`
					Kind     keymgr.Kind   `json:"kind"`
					Method   keymgr.Method `json:"method"`
				} `json:"facts"`
			} `json:"event"`
		}
		if err := dec.Decode(&e); err != nil {
			t.Fatal(err)
		}
		f := e.Event.Facts
		switch e.Event.Type {
		case "rollover.started":
			byID[e.Event.N] = len(all)
			all = append(all, simulate.Rolled{Kind: f.Kind, Method: f.Method, From: e.Time, Steps: []simulate.StepBegun{{Step: 1, At: e.Time}}})
		case "rollover.advanced":
			r := &all[byID[f.Rollover]]
			if n := len(r.Steps); r.Steps[n-1].Step != f.Step {
				r.Steps = append(r.Steps, simulate.StepBegun{Step: f.Step, At: e.Time})
			}
			r.Steps[len(r.Steps)-1].Name = f.Name
		case "rollover.completed":
			all[byID[f.Rollover]].Until = &e.Time
		}
	}
	return all
}

// compare holds what happened against what was foretold: the same rollovers in
// the same order with the same steps, each step about as long after the one
// before it, and never much sooner.
func (y years) compare(t *testing.T, paper, real []simulate.Rolled, begin time.Time) {
	t.Helper()
	const day = 24 * time.Hour
	// What begins near the end may or may not have ended there.
	near := begin.Add(time.Duration(y.days-25) * day)
	early := func(all []simulate.Rolled) []simulate.Rolled {
		return slices.DeleteFunc(slices.Clone(all), func(r simulate.Rolled) bool { return r.From.After(near) })
	}
	// A step in reality waits for a machine that has other things to do, and for
	// a parent that looks once a day.
	late, sooner := 4*time.Second*time.Duration(y.rate), 2*day
	t.Logf("on paper: %s\nin reality: %s", rolledText(paper), rolledText(real))
	want, got := early(paper), early(real)
	for i := range max(len(want), len(got)) {
		if i >= len(want) || i >= len(got) {
			t.Fatalf("on paper %s\nin reality %s", rolledText(want), rolledText(got))
		}
		p, r := want[i], got[i]
		if p.Kind != r.Kind || p.Method != r.Method || (p.Until == nil) != (r.Until == nil) || stepNames(p) != stepNames(r) {
			t.Errorf("rollover %d: on paper %s\nin reality %s", i+1, rolledText(want[i:i+1]), rolledText(got[i:i+1]))
			continue
		}
		for n := 1; n < len(p.Steps); n++ {
			off := r.Steps[n].At.Sub(r.Steps[n-1].At) - p.Steps[n].At.Sub(p.Steps[n-1].At)
			if off > late || off < -sooner {
				t.Errorf("rollover %d, step %s: %s later than foretold", i+1, p.Steps[n].Name, off)
			}
		}
		if i > 0 {
			// What it follows from may have been late itself.
			if off := r.From.Sub(got[i-1].From) - p.From.Sub(want[i-1].From); off.Abs() > 2*late {
				t.Errorf("rollover %d begins %s later than foretold", i+1, off)
			}
		}
	}
}

func stepNames(r simulate.Rolled) string {
	names := make([]string, 0, len(r.Steps))
	for _, s := range r.Steps {
		names = append(names, s.Name)
	}
	return strings.Join(names, " ")
}

func rolledText(all []simulate.Rolled) string {
	var out strings.Builder
	for _, r := range all {
		fmt.Fprintf(&out, "\n%s %s by %s:", r.From.Format("2006-01-02T15:04"), r.Kind, r.Method)
		for _, s := range r.Steps {
			fmt.Fprintf(&out, " %s +%s", s.Name, s.At.Sub(r.From).Round(time.Minute))
		}
		if r.Until == nil {
			out.WriteString(" (not done)")
		}
	}
	return out.String()
}
