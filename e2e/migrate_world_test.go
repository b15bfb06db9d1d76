package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/pelletier/go-toml/v2"

	"sluice/signer/zone"
)

// migration is the world in which zones go from another signer to us and back:
// a root and com. that have their DS, one public server that takes them from
// whoever is their primary, an unbound that keeps what it has in its cache, one
// that forgets everything again and again, and somebody who notes each serial.
// A test of a signer does this:
//
//	w := newMigration(t, "a.com", "b.com")           // the servers run
//	old := startThatSigner(t, ..., w.public.addr)    // tells w.public by NOTIFY
//	w.take(t, old.addr)                              // it is their primary
//	w.give(t, "a.com", ds)                           // records of dnssec-dsfromkey -2
//	w.watch(t)                                       // once all are secure: from here on nothing may be bogus
//	d := w.startSluice(t)                            // knows this world's parent and resolver
//	run(t, program(t), "migrate", kind, source, "-o", dir)
//	w.adapt(t, dir)                                  // its policies ask this world
//	w.importPlan(t, d, dir)
//	w.check(t, d, dir, "ready")
//	w.take(t, d.addr)
//	w.check(t, d, dir, "switched")
//	... and the way back ...
//	w.judge(t)                                       // no answer was bogus, serials only rose
type migration struct {
	zones     []string
	com, top  *parentZone
	parent    *secondary
	public    *secondary
	warm      *secondary
	cold      *secondary
	coldConf  string // of the cold one, for unbound-control
	dir       string // of the public server
	control   string // rndc.conf of the public server
	primaries map[string]string
	haveDS    map[string][]string

	began   time.Time
	stop    chan struct{}
	watches sync.WaitGroup
	mu      sync.Mutex
	bad     []string            // guarded by mu
	asked   map[string]int      // by who asked; guarded by mu
	serials map[string][]uint32 // as they were public, by zone; guarded by mu
}

// migratedZone is what each zone holds; a test may add records and raise the
// serial.
const migratedZone = `$TTL 5
@ IN SOA ns1 hostmaster %d 60 60 86400 5
@ IN NS ns1
ns1 IN A 127.0.0.1
www IN A 192.0.2.80
%s`

// newMigration starts the world around zones below com.
func newMigration(t *testing.T, zones ...string) *migration {
	t.Helper()
	need(t, "named", "rndc", "unbound", "unbound-control", "dnssec-keygen", "dnssec-signzone", "dnssec-dsfromkey")
	w := &migration{
		began: time.Now(), zones: zones, primaries: map[string]string{}, haveDS: map[string][]string{}, stop: make(chan struct{}), asked: map[string]int{}, serials: map[string][]uint32{},
	}
	var cut strings.Builder
	for _, z := range zones {
		fmt.Fprintf(&cut, "%s. IN NS ns1.%[1]s.\nns1.%[1]s. IN A 127.0.0.1\n", z)
	}
	w.com = newParentZone(t, "com.", "ns.com. IN A 127.0.0.1\n"+cut.String(), false)
	w.com.ttl = 5
	w.com.sign(t)
	w.top = newParentZone(t, ".", "ns.com. IN A 127.0.0.1\ncom. IN NS ns.com.", false)
	w.top.sign(t, w.com.ds(t))
	w.parent = startNamed(t, namedPrimary("com", w.com.file)+namedPrimary(".", w.top.file))
	w.startPublic(t)
	stubs := map[string]string{".": w.parent.addr, "com.": w.parent.addr}
	for _, z := range zones {
		stubs[z+"."] = w.public.addr
	}
	w.warm = startUnbound(t, w.top.ds(t), stubs)
	socket := filepath.Join(shortDir(t), "control")
	w.cold, w.coldConf = startUnboundWith(t, fmt.Sprintf("control-enable: yes\n\tcontrol-interface: %q\n\tcontrol-use-cert: no", socket), w.top.ds(t), stubs)
	t.Cleanup(w.end)
	return w
}

// startPublic starts the public server, without zones as long as none has a
// primary.
func (w *migration) startPublic(t *testing.T) {
	t.Helper()
	w.dir = shortDir(t)
	addr, control := freeAddr(t), freeAddr(t)
	const key = `key rndc { algorithm hmac-sha256; secret "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI="; };` + "\n"
	w.control = writeFile(t, filepath.Join(w.dir, "rndc.conf"),
		fmt.Sprintf("%soptions { default-key rndc; default-server 127.0.0.1; default-port %s; };\n", key, port(control)))
	writeFile(t, filepath.Join(w.dir, "zones.conf"), "")
	conf := writeFile(t, filepath.Join(w.dir, "named.conf"), fmt.Sprintf(`
options {
	directory %q; pid-file none; session-keyfile none; lock-file none;
	listen-on port %s { 127.0.0.1; }; listen-on-v6 { none; };
	recursion no; notify no; dnssec-validation no;
	allow-query { any; }; allow-transfer { any; }; allow-notify { 127.0.0.1; };
	min-refresh-time 1; min-retry-time 1; max-retry-time 1;
};
%scontrols { inet 127.0.0.1 port %s allow { 127.0.0.1; } keys { rndc; }; };
include %q;
`, w.dir, port(addr), key, port(control), filepath.Join(w.dir, "zones.conf")))
	w.public = &secondary{"public", addr, start(t, "public", "named", "-g", "-d", "1", "-4", "-n", "1", "-c", conf)}
}

// tell notes how far a test is.
func (w *migration) tell(t *testing.T, what string) {
	t.Helper()
	t.Logf("%5.1f s: %s", time.Since(w.began).Seconds(), what)
}

// take has the public server take zones, all where none is named, from a
// primary. What it serves stays until that has a higher serial.
func (w *migration) take(t *testing.T, primary string, zones ...string) {
	t.Helper()
	if len(zones) == 0 {
		zones = w.zones
	}
	for _, z := range zones {
		w.primaries[z] = primary
	}
	var text strings.Builder
	for _, z := range w.zones {
		if at := w.primaries[z]; at != "" {
			fmt.Fprintf(&text, "zone %q { type secondary; primaries { 127.0.0.1 port %s; }; file %q; masterfile-format raw; };\n", z, port(at), z+".db")
		}
	}
	writeFile(t, filepath.Join(w.dir, "zones.conf"), text.String())
	await(t, "the public server reads its configuration again", 20*time.Second, func() (bool, string) {
		r := run(t, "rndc", "-c", w.control, "reconfig")
		return r.code == 0, r.String()
	})
	for _, z := range zones {
		await(t, "the public server asks the new primary of "+z, 20*time.Second, func() (bool, string) {
			r := run(t, "rndc", "-c", w.control, "refresh", z)
			return r.code == 0, r.String()
		})
	}
	w.tell(t, "the public server takes "+strings.Join(zones, ", ")+" from "+primary)
}

// awaitPublic waits until the public server has what a primary has, and returns
// its serial.
func (w *migration) awaitPublic(t *testing.T, primary, name string) uint32 {
	t.Helper()
	var serial uint32
	await(t, "the public server has "+name+" as its primary has it", 30*time.Second, func() (bool, string) {
		want, err := serialAt(primary, name)
		if err != nil {
			return false, err.Error()
		}
		serial = want
		got, err := serialAt(w.public.addr, name)
		return err == nil && got == want, fmt.Sprint(got, want, err)
	})
	return serial
}

// give has the parent have these DS records of a zone, as dnssec-dsfromkey prints
// them.
func (w *migration) give(t *testing.T, name string, ds ...string) {
	t.Helper()
	var have []string
	for _, one := range ds {
		fields := strings.Fields(one)
		i := slices.Index(fields, "DS")
		if i < 0 {
			t.Fatalf("%q is no DS record", one)
		}
		have = append(have, fmt.Sprintf("%s. 5 IN DS %s", name, strings.ToLower(strings.Join(fields[i+1:], " "))))
	}
	w.haveDS[name] = have
	w.signParent(t)
}

// follow has the parent do what CDS at the public server says.
func (w *migration) follow(t *testing.T) {
	t.Helper()
	changed := false
	for _, name := range w.zones {
		m, err := query(w.public.addr, name, dns.TypeCDS)
		if err != nil || m.Rcode != dns.RcodeSuccess || !has(m.Answer, dns.TypeCDS) {
			continue
		}
		var want []string
		for _, rr := range m.Answer {
			if cds, ok := rr.(*dns.CDS); ok && cds.Algorithm != 0 {
				want = append(want, strings.ToLower(fmt.Sprintf("%s. 5 IN DS %d %d %d %s", name, cds.KeyTag, cds.Algorithm, cds.DigestType, cds.Digest)))
			}
		}
		slices.Sort(want)
		had := make([]string, 0, len(w.haveDS[name]))
		for _, one := range w.haveDS[name] {
			had = append(had, strings.ToLower(one))
		}
		slices.Sort(had)
		if !slices.Equal(want, had) {
			w.haveDS[name], changed = want, true
		}
	}
	if changed {
		w.signParent(t)
	}
}

func (w *migration) signParent(t *testing.T) {
	t.Helper()
	var all []string
	for _, z := range w.zones {
		all = append(all, w.haveDS[z]...)
	}
	w.com.sign(t, all...)
	(&follower{server: w.parent}).reload(t)
}

// question is what the resolvers are asked of each zone.
type migrationQuestion struct {
	label string
	qtype uint16
}

func migrationQuestions() []migrationQuestion {
	return []migrationQuestion{{"www.", dns.TypeA}, {"", dns.TypeDNSKEY}, {"", dns.TypeSOA}, {"none.", dns.TypeA}, {"www.", dns.TypeTXT}}
}

// secure waits until a resolver takes all zones for secure.
func (w *migration) secure(t *testing.T, what string) {
	t.Helper()
	for _, z := range w.zones {
		for _, resolver := range []*secondary{w.warm, w.cold} {
			await(t, what+": "+z+" is secure", 30*time.Second, func() (bool, string) {
				m, err := query(resolver.addr, "www."+z, dns.TypeA)
				return err == nil && m.AuthenticatedData && len(m.Answer) > 0, fmt.Sprint(m, err)
			})
		}
	}
	w.tell(t, "all are secure "+what)
}

// watch begins to look on, once all zones are secure. From here on each answer
// of a resolver must be there and validated, and serials must only rise.
func (w *migration) watch(t *testing.T) {
	t.Helper()
	w.secure(t, "before anything moves")
	w.watches.Go(func() { w.look("warm", w.warm, 40*time.Millisecond, nil) })
	w.watches.Go(func() {
		w.look("cold", w.cold, 10*time.Millisecond, func() {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			// What it still answers from its cache is as good as what it asks for.
			_ = exec.CommandContext(ctx, "unbound-control", "-c", w.coldConf, "reload").Run()
		})
	})
	w.watches.Go(w.note)
}

// look asks a resolver for everything again and again; between is called
// before each round.
func (w *migration) look(who string, resolver *secondary, pause time.Duration, between func()) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		if between != nil {
			between()
		}
		for _, z := range w.zones {
			for _, q := range migrationQuestions() {
				select {
				case <-w.stop:
					return
				case <-tick.C:
				}
				m, err := query(resolver.addr, q.label+z, q.qtype)
				if err != nil {
					continue // a busy machine, or one that forgets; silence is not bogus
				}
				w.mu.Lock()
				w.asked[who]++
				if m.Rcode == dns.RcodeServerFailure || !m.AuthenticatedData {
					w.bad = append(w.bad, fmt.Sprintf("%s: %s: %s%s %s: %s, AD %v", time.Now().Format("15:04:05.000"), who, q.label, z,
						dns.TypeToString[q.qtype], dns.RcodeToString[m.Rcode], m.AuthenticatedData))
				}
				w.mu.Unlock()
			}
		}
	}
}

// note notes the serials of the public server.
func (w *migration) note() {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-w.stop:
			return
		case <-tick.C:
		}
		for _, z := range w.zones {
			n, err := serialAt(w.public.addr, z)
			if err != nil {
				continue
			}
			w.mu.Lock()
			if had := w.serials[z]; len(had) == 0 || had[len(had)-1] != n {
				w.serials[z] = append(had, n)
			}
			w.mu.Unlock()
		}
	}
}

// answers is how many answers a resolver has given.
func (w *migration) answers(who string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked[who]
}

// TestMigrationWorld_SeesWhatIsBogus has a zone go to somebody who signs it with
// other keys: all who look on have to see that.
func TestMigrationWorld_SeesWhatIsBogus(t *testing.T) {
	t.Parallel()
	w := newMigration(t, "x.com")
	source := writeFile(t, filepath.Join(shortDir(t), "zone"), fmt.Sprintf(migratedZone, 1, ""))
	first, other := w.startSluice(t), w.startSluice(t)
	first.must(t, "zone", "add", "x.com", "--source", source)
	w.take(t, first.addr)
	serial := w.awaitPublic(t, first.addr, "x.com")
	var ds []string
	for line := range strings.Lines(first.must(t, "key", "ds", "x.com", "--format", "ds")) {
		if rr, err := dns.NewRR(strings.TrimSpace(line)); err == nil && rr != nil && rr.Header().Rrtype == dns.TypeDS {
			ds = append(ds, rr.String())
		}
	}
	w.give(t, "x.com", ds...)
	w.watch(t)
	other.must(t, "zone", "add", "x.com", "--source", source, "--serial-floor", fmt.Sprint(serial), "--force")
	w.take(t, other.addr)
	w.awaitPublic(t, other.addr, "x.com")
	await(t, "both resolvers say that it is bogus", time.Minute, func() (bool, string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		seen := map[string]bool{}
		for _, text := range w.bad {
			for _, who := range []string{"warm", "cold"} {
				if strings.Contains(text, who) && strings.Contains(text, "SERVFAIL") {
					seen[who] = true
				}
			}
		}
		return len(seen) == 2, fmt.Sprint(w.bad)
	})
}

// end ends the looking on.
func (w *migration) end() {
	select {
	case <-w.stop:
	default:
		close(w.stop)
	}
	w.watches.Wait()
}

// judge looks on for longer than the TTLs of the zones, ends the looking on, and
// says what was wrong.
func (w *migration) judge(t *testing.T) {
	t.Helper()
	before := w.answers("warm")
	await(t, "the warm resolver has answered for longer than its cache holds anything", time.Minute, func() (bool, string) {
		now := w.answers("warm")
		return now >= before+175, fmt.Sprint(before, now)
	})
	w.end()
	w.mu.Lock()
	defer w.mu.Unlock()
	t.Logf("asked %v; serials %v", w.asked, w.serials)
	if len(w.bad) > 0 {
		t.Errorf("%d answers were bogus or insecure, the first: %q", len(w.bad), w.bad[:min(len(w.bad), 10)])
	}
	for _, who := range []string{"warm", "cold"} {
		if w.asked[who] < 20 {
			t.Errorf("the %s resolver gave %d answers alone", who, w.asked[who])
		}
	}
	for _, z := range w.zones {
		serials := w.serials[z]
		for i := 1; i < len(serials); i++ {
			if !zone.Serial(serials[i-1]).Before(zone.Serial(serials[i])) {
				t.Errorf("%s: serials went back: %v", z, serials)
			}
		}
		if len(serials) < 2 {
			t.Errorf("%s: serials %v", z, serials)
		}
	}
}

// startSluice starts a daemon without zones that asks this world's resolver and
// trusts its root; its policies are in the folder "policies" beside its data.
func (w *migration) startSluice(t *testing.T) *daemon {
	t.Helper()
	dir := shortDir(t)
	d := &daemon{data: filepath.Join(dir, "data"), addr: freeAddr(t)}
	policies := filepath.Join(dir, "policies")
	if err := os.Mkdir(policies, 0o755); err != nil {
		t.Fatal(err)
	}
	config := writeFile(t, filepath.Join(dir, "config.toml"), fmt.Sprintf(
		"version = \"v1\"\npolicy-dir = %q\n[daemon]\nresolvers = [%q]\ntrust-anchors = [%q]\n", policies, w.warm.addr, w.top.ds(t)))
	d.flags = []string{"--config", config}
	d.start(t)
	d.awaitHealthy(t)
	return d
}

// adapt changes the policies of a plan's folder as an operator would: this
// world's servers are asked, and told. What else they say stays.
func (w *migration) adapt(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "policies", "*.toml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("policies %q, %v", files, err)
	}
	for _, file := range files {
		policy := map[string]any{}
		if err := toml.Unmarshal([]byte(readFile(t, file)), &policy); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		table := func(path ...string) map[string]any {
			at := policy
			for _, name := range path {
				next, ok := at[name].(map[string]any)
				if !ok {
					next = map[string]any{}
					at[name] = next
				}
				at = next
			}
			return at
		}
		keys := table("key-manager")
		keys["parent-nameservers"], keys["publication-nameservers"] = []string{w.parent.addr}, []string{w.public.addr}
		keys["propagation-margin"], keys["parent-propagation-margin"], keys["observation-interval"] = "2s", "2s", "1m"
		out := table("server", "outbound")
		out["provide-xfr-to"], out["send-notify-to"], out["notify-ns"] = []string{"127.0.0.0/8"}, []string{w.public.addr}, false
		text, err := toml.Marshal(policy)
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, file, string(text))
	}
}

// importPlan imports a plan's folder.
func (w *migration) importPlan(t *testing.T, d *daemon, dir string) {
	t.Helper()
	d.must(t, "migrate", "import", dir)
}

// check waits until all zones of a plan have a verdict.
func (w *migration) check(t *testing.T, d *daemon, dir, verdict string) {
	t.Helper()
	await(t, "all zones are "+verdict, 40*time.Second, func() (bool, string) {
		r := d.cli(t, "migrate", "check", dir)
		count := 0
		for line := range strings.Lines(r.stdout) {
			if fields := strings.Fields(line); len(fields) > 2 && slices.Contains(w.zones, fields[0]) && strings.HasPrefix(strings.Join(fields[1:], " "), verdict+" ") {
				count++
			}
		}
		return r.code == 0 && count == len(w.zones), r.String()
	})
	w.tell(t, "all zones are "+verdict)
}
