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

// startResolver starts one. logged names it.
func (l *life) startResolver(t *testing.T, logged string) *resolver {
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
	module-config: "validator iterator"
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
`, dir, port(addr), port(l.parent.addr))
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

// forget has the resolver's cache forget all at and below a name.
func (r *resolver) forget(name string) error {
	conn, err := net.DialTimeout("unix", r.control, 3*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(3 * time.Second)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(conn, "UBCT1 flush_zone %s\n", name); err != nil {
		return err
	}
	answer, err := io.ReadAll(conn)
	if err == nil && !strings.HasPrefix(string(answer), "ok") {
		err = fmt.Errorf("unbound answers %q", answer)
	}
	return err
}

// ask asks a question. Unchecked, the answer is put into the cache without
// being validated; ttl is how long it stays there.
func (r *resolver) ask(z *lifeZone, q asked, unchecked bool) (m *dns.Msg, ttl time.Duration, err error) {
	m = new(dns.Msg)
	m.SetQuestion(dns.Fqdn(q.below+z.name()), q.qtype)
	m.SetEdns0(4096, true)
	m.CheckingDisabled = unchecked
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
	clock   simClock
	mu      sync.Mutex
	bogus   map[string][]refusal      // by zone's label; guarded by mu
	secure  map[string]map[string]int // answers that were validated, by zone and resolver; guarded by mu
	useless map[string]int            // no answers at all, by resolver; guarded by mu
}

func newJury(clock simClock) *jury {
	return &jury{clock: clock, bogus: map[string][]refusal{}, secure: map[string]map[string]int{}, useless: map[string]int{}}
}

// hear takes note of an answer.
func (j *jury) hear(name string, z *lifeZone, q asked, m *dns.Msg, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case err == nil && m.Rcode == dns.RcodeServerFailure:
		if why := whyBogus(m); why != "" {
			j.bogus[z.label] = append(j.bogus[z.label], refusal{name, q.what, why, j.clock.now()})
			return
		}
		j.useless[name]++
	case err != nil:
		j.useless[name]++
	case m.AuthenticatedData:
		if j.secure[z.label] == nil {
			j.secure[z.label] = map[string]int{}
		}
		j.secure[z.label][name]++
	}
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
		q := append([]asked{askKeys, askDS}, askData...)[n%5]
		m, _, err := r.ask(z, q, false)
		j.hear("warm", z, q, m, err)
	})
}

// cold has forgotten everything at each question.
func (j *jury) cold(r *resolver, zones []*lifeZone) func(stop <-chan struct{}) {
	return j.round(zones, 25*time.Millisecond, func(z *lifeZone, n int) {
		q := askData[n%len(askData)]
		if err := r.forget("com."); err != nil {
			j.hear("cold", z, q, nil, err)
			return
		}
		m, _, err := r.ask(z, q, false)
		j.hear("cold", z, q, m, err)
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

// stale puts some answers of a zone into the cache, unchecked, leaves them
// there for just under their TTL, and asks for the rest then. Then it begins anew.
func (j *jury) stale(name string, r *resolver, zones []*lifeZone, old []asked) func(stop <-chan struct{}) {
	due := make([]time.Time, len(zones))
	turns := make([]int, len(zones))
	return func(stop <-chan struct{}) {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			for i, z := range zones {
				if time.Now().Before(due[i]) {
					continue
				}
				if !due[i].IsZero() {
					q := askData[turns[i]%len(askData)]
					m, _, err := r.ask(z, q, false)
					j.hear(name, z, q, m, err)
					turns[i]++
				}
				due[i] = j.prime(name, r, z, old, askData[turns[i]%len(askData)])
			}
		}
	}
}

// prime fills the cache and says when it is to be asked; zero where that did
// not work. The data are those of the next question.
func (j *jury) prime(name string, r *resolver, z *lifeZone, old []asked, data asked) time.Time {
	begin := time.Now()
	if err := r.forget(z.name()); err != nil {
		j.hear(name, z, data, nil, err)
		return time.Time{}
	}
	least := time.Duration(math.MaxInt64)
	for _, q := range old {
		if q.what == "data" {
			q = data
		}
		m, ttl, err := r.ask(z, q, true)
		if err != nil || m.Rcode == dns.RcodeServerFailure {
			j.hear(name, z, q, m, err)
			return time.Time{}
		}
		least = min(least, ttl)
	}
	return begin.Add(least/lifeRate - staleSlack)
}

// someData stands for the data that are asked for next.
var someData = asked{what: "data"}

// startJury starts the validators, and returns what has them ask.
func (l *life) startJury(t *testing.T, j *jury) (asking []func(stop <-chan struct{}), kinds []string) {
	t.Helper()
	stale := map[string][]asked{
		"old DS":            {askDS},
		"old keys":          {askKeys},
		"old data":          {someData},
		"old DS and keys":   {askDS, askKeys},
		"old DS and data":   {askDS, someData},
		"old keys and data": {askKeys, someData},
	}
	asking = append(asking, j.warm(l.startResolver(t, "unbound-warm"), l.zones), j.cold(l.startResolver(t, "unbound-cold"), l.zones))
	kinds = append(kinds, "warm", "cold")
	for name, old := range stale {
		r := l.startResolver(t, "unbound-"+strings.ReplaceAll(name, " ", "-"))
		asking = append(asking, j.stale(name, r, l.zones, old))
		kinds = append(kinds, name)
	}
	return asking, kinds
}
