package e2e

import (
	"fmt"
	"io"
	"math"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// resolver is an unbound that validates, at the rehearsal's time and as
// strictly as it can: it tries nothing again, and wants a signature by each
// algorithm that the DS RRset has.
type resolver struct {
	*secondary
	control string // socket
}

// startResolver starts one; modules is "validator iterator", or "iterator" for
// one that does not validate.
func (l *life) startResolver(t *testing.T, logged, modules string) *resolver {
	t.Helper()
	dir, addr := shortDir(t), freeAddr(t)
	writeFile(t, filepath.Join(dir, "anchor"), l.com.ds(t)+"\n")
	text := &strings.Builder{}
	fmt.Fprintf(text, `
server:
	directory: %[1]q
	chroot: ""
	username: ""
	pidfile: ""
	use-syslog: no
	logfile: ""
	verbosity: 1
	val-log-level: 2
	do-daemonize: no
	num-threads: 1
	interface: 127.0.0.1
	port: %[2]s
	do-not-query-localhost: no
	do-ip6: no
	module-config: %[4]q
	trust-anchor-file: "%[1]s/anchor"
	trust-anchor-signaling: no
	aggressive-nsec: no
	qname-minimisation: no
	val-max-restart: 0
	harden-algo-downgrade: yes
	ede: yes
	discard-timeout: 0
	infra-host-ttl: 0
	infra-keep-probing: yes
	msg-cache-size: 2m
	rrset-cache-size: 2m
remote-control:
	control-enable: yes
	control-use-cert: no
	control-interface: "%[1]s/control"
stub-zone:
	name: "com."
	stub-addr: 127.0.0.1@%[3]s
	stub-prime: no
`, dir, port(addr), port(l.parent.addr), modules)
	for _, z := range l.zones {
		fmt.Fprintf(text, "stub-zone:\n\tname: %q\n\tstub-prime: no\n", z.name())
		for _, s := range l.public {
			fmt.Fprintf(text, "\tstub-addr: 127.0.0.1@%s\n", port(s.addr))
		}
	}
	cmd := exec.Command("unbound", "-d", "-c", writeFile(t, filepath.Join(dir, "unbound.conf"), text.String()))
	cmd.Env = l.faked.env
	return &resolver{&secondary{"unbound", addr, startCommand(t, logged, cmd)}, filepath.Join(dir, "control")}
}

// tell has the resolver do a command of unbound-control's, and returns what it
// says.
func (r *resolver) tell(command, input string) (string, error) {
	conn, err := net.DialTimeout("unix", r.control, 3*time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, "UBCT1 "+command+"\n"+input); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(conn)
	if err == nil && strings.HasPrefix(string(answer), "error") {
		err = fmt.Errorf("%s: unbound answers %q", command, answer)
	}
	return string(answer), err
}

// forget has the resolver's cache forget all at and below a name.
func (r *resolver) forget(name string) error {
	_, err := r.tell("flush_zone "+name, "")
	return err
}

// ask asks a question; ttl is how long the answer stays in the cache.
func (r *resolver) ask(z *lifeZone, q asked) (m *dns.Msg, ttl time.Duration, err error) {
	m = new(dns.Msg)
	m.SetQuestion(dns.Fqdn(q.below+z.name()), q.qtype)
	m.SetEdns0(4096, true)
	c := dns.Client{Timeout: 3 * time.Second}
	if m, _, err = c.Exchange(m, r.addr); err != nil {
		return nil, 0, err
	}
	least := uint32(math.MaxInt32)
	for _, rr := range slices.Concat(m.Answer, m.Ns) {
		least = min(least, rr.Header().Ttl)
	}
	return m, time.Duration(least) * time.Second, nil
}

// refusal is an answer that was not validated.
type refusal struct {
	resolver, question, why string
	at                      time.Time // simulated
}

// jury is the validators' answers so far.
type jury struct {
	clock     simClock
	faked     *fakedTime
	resolvers []*resolver
	primer    *primer
	mu        sync.Mutex
	bogus     map[string][]refusal      // by zone's label; guarded by mu
	secure    map[string]map[string]int // answers that were validated, by zone and resolver; guarded by mu
	useless   map[string][]string       // what was no answer at all, by resolver; guarded by mu
	doubted   int                       // refusals at a clock that stood still; guarded by mu
}

func newJury(l *life) *jury {
	return &jury{clock: l.clock, faked: l.faked, bogus: map[string][]refusal{}, secure: map[string]map[string]int{}, useless: map[string][]string{}}
}

// try asks a resolver, and takes note of the answer.
func (j *jury) try(name string, r *resolver, z *lifeZone, q asked) {
	begin := time.Now()
	m, _, err := r.ask(z, q)
	j.hear(name, z, q, m, err, begin)
}

// hear takes note of the answer to what was asked for at a time.
func (j *jury) hear(name string, z *lifeZone, q asked, m *dns.Msg, err error, begin time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case err == nil && m.Rcode == dns.RcodeServerFailure:
		if why := whyBogus(m); why != "" && j.faked.late(begin) {
			// What the resolver has may have run out by the daemon's clock.
			j.doubted++
			return
		} else if why != "" {
			j.bogus[z.label] = append(j.bogus[z.label], refusal{name, q.what, why, j.clock.now()})
			return
		}
		j.useless[name] = append(j.useless[name], fmt.Sprintf("%s %s %s: %v", j.clock.now().Format("02T15:04:05"), z.label, q.what, m.IsEdns0()))
	case err != nil:
		j.useless[name] = append(j.useless[name], fmt.Sprintf("%s %s %s: %v", j.clock.now().Format("02T15:04:05"), z.label, q.what, err))
	case m.AuthenticatedData:
		if j.secure[z.label] == nil {
			j.secure[z.label] = map[string]int{}
		}
		j.secure[z.label][name]++
	}
}

// refused is how many answers about a zone were bogus.
func (j *jury) refused(z *lifeZone) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.bogus[z.label])
}

// whyBogus is the reason of a SERVFAIL that comes from validation (RFC 8914);
// "" where the servers could not be asked.
func whyBogus(m *dns.Msg) string {
	opt := m.IsEdns0()
	if opt == nil {
		return ""
	}
	for _, o := range opt.Option {
		if e, ok := o.(*dns.EDNS0_EDE); ok && e.InfoCode >= dns.ExtendedErrorCodeUnsupportedDNSKEYAlgorithm && e.InfoCode <= dns.ExtendedErrorCodeNSECMissing {
			return strings.TrimSpace(dns.ExtendedErrorCodeToString[e.InfoCode] + " " + e.ExtraText)
		}
	}
	return ""
}

// warm asks for everything all the time, and so has whatever its cache may
// have.
func (j *jury) warm(r *resolver, zones []*lifeZone) func(stop <-chan struct{}) {
	return j.round(zones, 15*time.Millisecond, func(z *lifeZone, n int) {
		j.try("warm", r, z, append([]asked{askKeys, askDS}, askData...)[n%5])
	})
}

// cold has forgotten everything at each question.
func (j *jury) cold(r *resolver, zones []*lifeZone) func(stop <-chan struct{}) {
	return j.round(zones, 25*time.Millisecond, func(z *lifeZone, n int) {
		q := askData[n%len(askData)]
		if err := r.forget("com."); err != nil {
			j.hear("cold", z, q, nil, err, time.Now())
			return
		}
		j.try("cold", r, z, q)
	})
}

// round does something for one zone after the other; n counts the rounds.
func (j *jury) round(zones []*lifeZone, every time.Duration, do func(z *lifeZone, n int)) func(stop <-chan struct{}) {
	return func(stop <-chan struct{}) {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			case <-tick.C:
				do(zones[n%len(zones)], n/len(zones))
			}
		}
	}
}

// staleSlack is how long before its end what is cached is asked for, of the
// machine's time: the resolver's clock and the questions take a while.
const staleSlack = 250 * time.Millisecond

// staleEach is how many resolvers have the same part of a zone in their cache,
// from different moments on.
func staleEach() int {
	if long() {
		return 6
	}
	return 3
}

// stale has some answers of each zone in the cache, unchecked, for just under
// their TTL, and asks for the rest then; and again. later is when it begins,
// so that several do not do so together.
func (j *jury) stale(name string, r *resolver, zones []*lifeZone, old []asked, later time.Duration) func(stop <-chan struct{}) {
	return func(stop <-chan struct{}) {
		begin := time.Now().Add(later)
		due, turns, primed := make([]time.Time, len(zones)), make([]int, len(zones)), make([]bool, len(zones))
		for i := range due {
			due[i] = begin
		}
		timer := time.NewTimer(0)
		defer timer.Stop()
		for {
			i := 0
			for n := range due {
				if due[n].Before(due[i]) {
					i = n
				}
			}
			timer.Reset(time.Until(due[i]))
			select {
			case <-stop:
				return
			case <-timer.C:
			}
			z, q := zones[i], askData[turns[i]%len(askData)]
			if primed[i] {
				j.try(name, r, z, q)
				turns[i]++
				q = askData[turns[i]%len(askData)]
			}
			now := time.Now()
			ttl, err := j.prime(r, z, old, q)
			if primed[i] = err == nil; err != nil {
				j.hear(name, z, q, nil, err, now)
			}
			due[i] = now.Add(max(ttl/lifeRate-staleSlack, staleSlack))
		}
	}
}

// prime has the old answers of a zone and none else of it in the cache, and
// says how long all of them stay there. The data are those of a question.
func (j *jury) prime(r *resolver, z *lifeZone, old []asked, data asked) (ttl time.Duration, err error) {
	questions := slices.Clone(old)
	for i, q := range questions {
		if q == someData {
			questions[i] = data
		}
	}
	dump, ttl, err := j.primer.fill(z, questions)
	if err == nil {
		err = r.forget(z.name())
	}
	if err == nil {
		_, err = r.tell("load_cache", dump)
	}
	return ttl, err
}

// primer is a resolver that does not validate, and whose cache others take
// over.
type primer struct {
	mu sync.Mutex
	*resolver
}

// fill has the cache hold answers about a zone and nothing else, and returns
// it, and how long all of it holds.
func (p *primer) fill(z *lifeZone, questions []asked) (dump string, ttl time.Duration, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.forget("com."); err != nil {
		return "", 0, err
	}
	ttl = time.Duration(math.MaxInt64)
	for _, q := range questions {
		m, one, err := p.ask(z, q)
		if err != nil {
			return "", 0, err
		}
		if m.Rcode == dns.RcodeServerFailure {
			return "", 0, fmt.Errorf("unbound has no answer about %s of %s", q.what, z.label)
		}
		ttl = min(ttl, one)
	}
	dump, err = p.tell("dump_cache", "")
	return dump, ttl, err
}

// someData stands for the data that are asked for next.
var someData = asked{what: "data"}

// startJury starts the validators, and returns what has them ask.
func (l *life) startJury(t *testing.T, j *jury) (asking []func(stop <-chan struct{}), kinds []string) {
	t.Helper()
	j.primer = &primer{resolver: l.startResolver(t, "unbound-primer", "iterator")}
	begin := func(name string) *resolver {
		kinds = append(kinds, name)
		r := l.startResolver(t, "unbound-"+strings.ReplaceAll(name, " ", "-"), "validator iterator")
		j.resolvers = append(j.resolvers, r)
		return r
	}
	asking = append(asking, j.warm(begin("warm"), l.zones), j.cold(begin("cold"), l.zones))
	for _, kind := range []struct {
		name string
		old  []asked
	}{
		{"old DS", []asked{askDS}},
		{"old keys", []asked{askKeys}},
		{"old data", []asked{someData}},
		{"old DS and keys", []asked{askDS, askKeys}},
		{"old DS and data", []asked{askDS, someData}},
		{"old keys and data", []asked{askKeys, someData}},
	} {
		for n := range staleEach() {
			name := fmt.Sprintf("%s %d", kind.name, n+1)
			asking = append(asking, j.stale(name, begin(name), l.zones, kind.old, time.Duration(n)*lifeDataTTL/lifeRate/time.Duration(staleEach())))
		}
	}
	return asking, kinds
}

// failures is the lines about a zone in the resolvers' logs that tell of what
// was not validated.
func (j *jury) failures(z *lifeZone) (lines []string) {
	for _, r := range j.resolvers {
		for line := range strings.Lines(r.log()) {
			if strings.Contains(line, "validation failure") && (strings.Contains(line, "<"+z.name()+".") || strings.Contains(line, "."+z.name()+".")) {
				lines = append(lines, strings.TrimSpace(line))
			}
		}
	}
	return lines
}
