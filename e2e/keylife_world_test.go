package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// lifeRate is how many simulated seconds go by in one: an hour a second.
const lifeRate = 3600

// The TTLs of a rehearsal differ, so that one that is taken for another shows.
// Each is the same number of seconds here.
const (
	lifeDataTTL = 4 * time.Hour
	lifeKeyTTL  = 5 * time.Hour
	lifeDSTTL   = 6 * time.Hour
	// The margin is also what a busy machine may keep an answer on its way.
	lifeMargin = 150 * time.Minute
)

// simClock shows the daemon's time.
type simClock struct {
	sim, real time.Time // the same moment
}

func (c simClock) at(real time.Time) time.Time { return c.sim.Add(real.Sub(c.real) * lifeRate) }
func (c simClock) now() time.Time              { return c.at(time.Now()) }

// fakedTime is a file from which libfaketime takes the time, kept up with a
// simulated clock. Timers of the processes that use it stay those of the
// machine.
type fakedTime struct {
	env []string

	mu    sync.Mutex
	last  time.Time  // when it was written; guarded by mu
	stood []standing // when it was not for a while; guarded by mu
}

// standing is a time in which a clock stood still.
type standing struct{ from, until time.Time }

// tolerated is for how long the file may stand still: much less than the margin.
const tolerated = lifeMargin / lifeRate / 3

// startFakedTime keeps a file up until the test ends.
func startFakedTime(t *testing.T, clock simClock) *fakedTime {
	t.Helper()
	file, err := os.Create(filepath.Join(shortDir(t), "offset"))
	if err != nil {
		t.Fatal(err)
	}
	library := strings.TrimSpace(must(t, "faketime", "-m", "-f", "+0", "printenv", "LD_PRELOAD"))
	f := &fakedTime{last: time.Now(), env: append(
		os.Environ(), "LD_PRELOAD="+library, "FAKETIME_TIMESTAMP_FILE="+file.Name(), "FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1")}
	if err := f.write(file, clock); err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				done <- file.Close()
				return
			case <-tick.C:
				if err := f.write(file, clock); err != nil {
					done <- err
					return
				}
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return f
}

// write brings the file up to date.
func (f *fakedTime) write(file *os.File, clock simClock) error {
	now := time.Now()
	if _, err := file.WriteAt(fmt.Appendf(nil, "+%017.3f\n", clock.at(now).Sub(now).Seconds()), 0); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now(); now.Sub(f.last) > tolerated {
		f.stood = append(f.stood, standing{f.last, now})
	}
	f.last = now
	return nil
}

// late reports whether the file was late at some time since another.
func (f *fakedTime) late(since time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Since(f.last) > tolerated || len(f.stood) > 0 && f.stood[len(f.stood)-1].until.After(since)
}

// lifeZone is a zone whose keys are rehearsed.
type lifeZone struct {
	label  string // its name below the parent
	policy string // what its policy has beside the common
	byHand bool   // the parent is told by what key ds prints, not by CDS
	course []act
	// The TTLs of the largest of its data, of its keys and of its DS; zero is the
	// usual one.
	dataTTL, keyTTL, dsTTL time.Duration
	// names is how many further names it has.
	names int
	// bogus says that a wait is missing, so that something has to be bogus.
	bogus bool

	done   int // acts of the course
	status []lifeRollover
	haveDS []string
	since  time.Time // simulated: when the act began
}

func (z *lifeZone) name() string { return z.label + ".com" }

// lifeRollover is one that runs, as its status tells it.
type lifeRollover struct {
	ID        uint64
	Kind      string
	Step      int
	Phase     string
	Text      string
	Returning bool
	Seen      *time.Time
}

// act is a part of a course: it is tried until it says that it is done.
type act func(t *testing.T, l *life, z *lifeZone) (done bool, saw string)

// life is a rehearsal of many zones' keys at one daemon, below one parent.
type life struct {
	*daemon
	http   *http.Client
	zones  []*lifeZone
	clock  simClock
	com    *parentZone
	parent *secondary
	public []*secondary
	faked  *fakedTime
	heard  *jury
}

// startLife starts the daemon, the parent, three public servers, and waits until all serve
// all zones.
func startLife(t *testing.T, program string, zones []*lifeZone) *life {
	t.Helper()
	l := &life{zones: zones}
	for _, z := range zones {
		z.dataTTL, z.keyTTL, z.dsTTL = cmp.Or(z.dataTTL, lifeDataTTL), cmp.Or(z.keyTTL, lifeKeyTTL), cmp.Or(z.dsTTL, lifeDSTTL)
		z.course = append(z.course, forgotten)
	}
	var cut strings.Builder
	for _, z := range zones {
		fmt.Fprintf(&cut, "%s.com. IN NS ns1.%[1]s.com.\nns1.%[1]s.com. IN A 127.0.0.1\n", z.label)
	}
	l.com = newParentZone(t, "com.", "ns.com. IN A 127.0.0.1\n"+cut.String(), false)
	l.com.ttl = 86400
	l.com.sign(t)
	l.parent = startNamed(t, namedPrimary("com", l.com.file))
	resolver := startUnbound(t, l.com.ds(t), map[string]string{"com.": l.parent.addr})

	dir := shortDir(t)
	if err := os.Mkdir(filepath.Join(dir, "policies"), 0o755); err != nil {
		t.Fatal(err)
	}
	d := &daemon{data: filepath.Join(dir, "data"), addr: freeAddr(t), binary: program}
	l.daemon = d
	l.public = startPublic(t, d.addr, zones)
	config := writeFile(t, filepath.Join(dir, "config.toml"), fmt.Sprintf(
		"version = \"v1\"\npolicy-dir = %q\n[daemon]\nresolvers = [%q]\ntrust-anchors = [%q]\n", filepath.Join(dir, "policies"), resolver.addr, l.com.ds(t)))
	for _, z := range zones {
		l.writePolicy(t, z)
	}
	begin := time.Now().UTC().Truncate(time.Second)
	d.flags = []string{"--config", config, "--clock", fmt.Sprintf("%s,%d", begin.Format(time.RFC3339), lifeRate)}
	d.start(t)
	l.http = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(d.data, "sluice.sock"))
	}}}
	t.Cleanup(l.http.CloseIdleConnections)
	await(t, "the daemon answers", 20*time.Second, func() (bool, string) {
		r := d.cli(t, "clock", "status")
		return r.code == 0, r.String()
	})
	l.clock = l.readClock(t)
	l.faked = startFakedTime(t, l.clock)
	for _, z := range zones {
		d.must(t, "zone", "add", z.name(), "--source", l.writeZone(t, z), "--policy", z.label, "--no-wait")
	}
	for _, z := range zones {
		serial := d.awaitServed(t, z.name())
		for _, s := range l.public {
			await(t, s.name+" serves "+z.name(), 20*time.Second, func() (bool, string) {
				got, err := serialAt(s.addr, z.name())
				if err != nil || got < serial {
					_ = notify(s.addr, z.name()) // nsd refuses it
				}
				return err == nil && got >= serial, fmt.Sprint(got, err)
			})
		}
	}
	return l
}

// readClock compares the daemon's clock with the machine's.
func (l *life) readClock(t *testing.T) (best simClock) {
	t.Helper()
	narrowest := time.Hour
	for range 10 {
		var clock struct {
			Now time.Time `json:"now"`
		}
		before := time.Now()
		l.get(t, "/clock", &clock)
		if took := time.Since(before); took < narrowest {
			narrowest, best = took, simClock{sim: clock.Now, real: before.Add(took / 2)}
		}
	}
	return best
}

// get asks the daemon's API.
func (l *life) get(t *testing.T, path string, into any) {
	t.Helper()
	r, err := l.http.Get("http://sluice/api/v1" + path)
	if err != nil {
		t.Fatalf("%v\n%s", err, l.tail())
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s", path, r.Status)
	}
	if err := json.NewDecoder(r.Body).Decode(into); err != nil {
		t.Fatalf("GET %s: %v", path, err)
	}
}

// writePolicy writes the zone's policy.
func (l *life) writePolicy(t *testing.T, z *lifeZone) {
	t.Helper()
	quoted := make([]string, 0, len(l.public))
	for _, s := range l.public {
		quoted = append(quoted, fmt.Sprintf("%q", s.addr))
	}
	servers, told := strings.Join(quoted, ", "), strings.Join(quoted[:2], ", ")
	writeFile(t, filepath.Join(filepath.Dir(l.data), "policies", z.label+".toml"), fmt.Sprintf(`version = "v1"
key-manager.propagation-margin = %q
key-manager.observation-interval = "2h"
key-manager.parent-nameservers = [%q]
key-manager.publication-nameservers = [%s]
key-manager.records.ttl = %q
server.outbound.send-notify-to = [%s]
%s`, lifeMargin, l.parent.addr, servers, z.keyTTL, told, z.policy))
}

// writeZone writes what the zone is made of.
func (l *life) writeZone(t *testing.T, z *lifeZone) string {
	t.Helper()
	text := &strings.Builder{}
	fmt.Fprintf(text, `$TTL %[1]d
@ %[2]d IN SOA ns1 hostmaster 1 3600 1800 1209600 %[2]d
@ IN NS ns1
ns1 IN A 127.0.0.1
www IN A 192.0.2.80
a IN TXT "1"
b IN TXT "2"
`, int(z.dataTTL.Seconds()), int(min(z.dataTTL, lifeDataTTL).Seconds())*3/4)
	for i := range z.names {
		fmt.Fprintf(text, "n%d IN A 192.0.2.%d\n", i, i%250)
	}
	return writeFile(t, filepath.Join(filepath.Dir(l.data), z.label), text.String())
}

// run takes all zones through their courses; the parent follows.
func (l *life) run(t *testing.T) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for ; ; <-tick.C {
		if !l.running() {
			t.Fatalf("the daemon has ended:\n%s", l.tail())
		}
		var more []string
		for _, z := range l.zones {
			if z.done == len(z.course) {
				continue
			}
			if z.since.IsZero() {
				z.since = l.clock.now()
			}
			z.status = nil
			l.get(t, "/zones/"+z.name()+"/rollovers", &z.status)
			if done, saw := z.course[z.done](t, l, z); done {
				t.Logf("%s %s: act %d of %d done", l.clock.now().Format("02T15:04"), z.label, z.done+1, len(z.course))
				z.done++
				z.since = time.Time{}
			} else if l.clock.now().Sub(z.since) > 100*time.Hour {
				t.Fatalf("%s: act %d of %d does not end: %s\n%+v", z.label, z.done+1, len(z.course), saw, z.status)
			}
			more = append(more, z.label)
		}
		if len(more) == 0 {
			return
		}
		l.follow(t)
	}
}

// follow has the parent do what it was told.
func (l *life) follow(t *testing.T) {
	t.Helper()
	changed := false
	var all []string
	for _, z := range l.zones {
		want, told := l.told(t, z)
		if told && !slices.Equal(want, z.haveDS) {
			z.haveDS, changed = want, true
		}
		all = append(all, z.haveDS...)
	}
	if !changed {
		return
	}
	l.com.sign(t, all...)
	if err := l.parent.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}

// told is the DS records that the parent is to have of a zone.
func (l *life) told(t *testing.T, z *lifeZone) (want []string, told bool) {
	t.Helper()
	owner := fmt.Sprintf("%s. %d IN DS ", z.name(), int(z.dsTTL.Seconds()))
	if z.byHand {
		var list []struct {
			Record string
			Submit bool
		}
		l.get(t, "/zones/"+z.name()+"/ds?format=ds", &list)
		for _, r := range list {
			rr, err := dns.NewRR(r.Record)
			if ds, ok := rr.(*dns.DS); ok && err == nil && r.Submit {
				want = append(want, fmt.Sprintf("%s%d %d %d %s", owner, ds.KeyTag, ds.Algorithm, ds.DigestType, ds.Digest))
			}
		}
		slices.Sort(want)
		return want, len(want) > 0
	}
	m, err := query(l.public[0].addr, z.name(), dns.TypeCDS)
	if err != nil || m.Rcode != dns.RcodeSuccess {
		return nil, false
	}
	for _, rr := range m.Answer {
		if cds, ok := rr.(*dns.CDS); ok && cds.Algorithm != 0 {
			want = append(want, fmt.Sprintf("%s%d %d %d %s", owner, cds.KeyTag, cds.Algorithm, cds.DigestType, cds.Digest))
		}
	}
	slices.Sort(want)
	return want, has(m.Answer, dns.TypeCDS)
}

// startPublic starts a named, a knotd and an nsd that take all zones. nsd hears
// of nothing: it asks every other second, and so is late by hours.
func startPublic(t *testing.T, primary string, zones []*lifeZone) []*secondary {
	t.Helper()
	named, knot, nsd := &strings.Builder{}, &strings.Builder{}, &strings.Builder{}
	knotDir, knotAddr, nsdDir, nsdAddr := shortDir(t), freeAddr(t), shortDir(t), freeAddr(t)
	fmt.Fprintf(knot, `
server:
    rundir: %[1]s
    listen: 127.0.0.1@%[2]s
    background-workers: 1
    udp-workers: 1
    tcp-workers: 1
database:
    storage: %[1]s
    journal-db-max-size: 64M
log:
  - target: stderr
    any: info
remote:
  - id: primary
    address: 127.0.0.1@%[3]s
acl:
  - id: all
    address: 127.0.0.1
    action: [notify, transfer]
template:
  - id: default
    storage: %[1]s
    master: primary
    acl: all
    retry-max-interval: 1
zone:
`, knotDir, port(knotAddr), port(primary))
	fmt.Fprintf(nsd, `server:
	ip-address: 127.0.0.1@%[2]s
	username: ""
	chroot: ""
	zonesdir: %[1]q
	database: ""
	pidfile: "%[1]s/nsd.pid"
	xfrdfile: "%[1]s/xfrd.state"
	xfrdir: %[1]q
	zonelistfile: "%[1]s/zone.list"
	server-count: 1
	xfrd-reload-timeout: 0
remote-control:
	control-enable: no
pattern:
	name: "all"
	request-xfr: 127.0.0.1@%[3]s NOKEY
	max-retry-time: 1
	max-refresh-time: 2
`, nsdDir, port(nsdAddr), port(primary))
	for _, z := range zones {
		named.WriteString(strings.Replace(namedSecondary(z.name(), primary), "secondary.db", z.label+".db", 1))
		fmt.Fprintf(knot, "  - domain: %s\n", z.name())
		fmt.Fprintf(nsd, "zone:\n\tname: %q\n\tinclude-pattern: \"all\"\n", z.name())
	}
	return []*secondary{
		startNamed(t, named.String()),
		{"knotd", knotAddr, start(t, "knotd", "knotd", "-c", writeFile(t, filepath.Join(knotDir, "knot.conf"), knot.String()))},
		{"nsd", nsdAddr, start(t, "nsd", "nsd", "-d", "-c", writeFile(t, filepath.Join(nsdDir, "nsd.conf"), nsd.String()))},
	}
}

// lifeSteps is when the steps of a zone's rollovers began.
type lifeStep struct {
	at   time.Time
	text string
}

// steps reads the zone's steps out of its history.
func (l *life) steps(t *testing.T, z *lifeZone) (all []lifeStep) {
	t.Helper()
	text := l.must(t, "zone", "history", z.name(), "--json")
	for dec := json.NewDecoder(strings.NewReader(text)); dec.More(); {
		var e struct {
			Time  time.Time `json:"time"`
			Event struct {
				Type  string `json:"type"`
				Facts struct {
					Kind   string `json:"kind"`
					Method string `json:"method"`
					Name   string `json:"name"`
					Step   uint64 `json:"step"`
					Seen   int64  `json:"seen"`
				} `json:"facts"`
			} `json:"event"`
		}
		if err := dec.Decode(&e); err != nil {
			t.Fatal(err)
		}
		f := e.Event.Facts
		switch what := strings.TrimPrefix(e.Event.Type, "rollover."); {
		case what == e.Event.Type, f.Seen != 0:
		default:
			all = append(all, lifeStep{e.Time, strings.Join(strings.Fields(fmt.Sprintf("%s %s %s %s", what, f.Kind, f.Method, f.Name)), " ")})
		}
	}
	return all
}

// stepAt names what was going on at a time.
func stepAt(all []lifeStep, at time.Time) string {
	text := "before any rollover"
	for _, s := range all {
		if s.at.After(at) {
			break
		}
		text = s.text
	}
	return text
}

// beside runs functions in the background until the returned one is called.
func beside(fns ...func(stop <-chan struct{})) (end func()) {
	stop := make(chan struct{})
	var all sync.WaitGroup
	for _, fn := range fns {
		all.Go(func() { fn(stop) })
	}
	return func() {
		close(stop)
		all.Wait()
	}
}
