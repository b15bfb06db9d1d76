package e2e

import (
	"encoding/json"
	"fmt"
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

const rolledZone = `$TTL 5
@ IN SOA ns1 hostmaster 1 60 60 86400 5
@ IN NS ns1
ns1 IN A 127.0.0.1
www IN A 192.0.2.80
`

// follower is a parent that does what CDS says (RFC 7344).
type follower struct {
	com    *parentZone
	server *secondary // of the parent
	public string     // where the zone's CDS are asked for
	have   []string
}

func (f *follower) follow(t *testing.T) {
	t.Helper()
	m, err := query(f.public, example, dns.TypeCDS)
	if err != nil || m.Rcode != dns.RcodeSuccess {
		return
	}
	var want []string
	for _, rr := range m.Answer {
		if cds, ok := rr.(*dns.CDS); ok && cds.Algorithm != 0 {
			want = append(want, fmt.Sprintf("example.com. 5 IN DS %d %d %d %s", cds.KeyTag, cds.Algorithm, cds.DigestType, cds.Digest))
		}
	}
	slices.Sort(want)
	if !has(m.Answer, dns.TypeCDS) || slices.Equal(want, f.have) {
		return
	}
	f.have = want
	f.com.sign(t, want...)
	f.reload(t)
}

// reload has the parent read its zone.
func (f *follower) reload(t *testing.T) {
	t.Helper()
	if err := f.server.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}

// validator asks a validating resolver again and again, and keeps what it
// refused.
type validator struct {
	mu    sync.Mutex
	bogus []string // guarded by mu
	asked int      // guarded by mu
}

func (v *validator) run(addr string, stop <-chan struct{}) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	names := []struct {
		name  string
		qtype uint16
	}{{"www." + example, dns.TypeA}, {example, dns.TypeDNSKEY}, {example, dns.TypeSOA}, {"none." + example, dns.TypeA}}
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		q := names[i%len(names)]
		m, err := query(addr, q.name, q.qtype)
		v.mu.Lock()
		v.asked++
		if err == nil && m.Rcode == dns.RcodeServerFailure {
			v.bogus = append(v.bogus, fmt.Sprintf("%s: %s %s", time.Now().Format("15:04:05.0"), q.name, dns.TypeToString[q.qtype]))
		}
		v.mu.Unlock()
	}
}

func (v *validator) check(t *testing.T) {
	t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.bogus) > 0 || v.asked < 50 {
		t.Errorf("of %d answers these were bogus: %q", v.asked, v.bogus)
	}
}

// rollovers is what key status prints.
type rollovers []struct {
	ID         uint64
	Kind, Text string
}

func (d *daemon) rollovers(t *testing.T) (list rollovers) {
	t.Helper()
	if err := json.Unmarshal([]byte(d.must(t, "--json", "key", "status", example)), &list); err != nil {
		t.Fatal(err)
	}
	return list
}

// TestUnbound_ValidatesThroughRollovers has a zone get its first DS and then
// another KSK and another ZSK at the same time, by itself: named is the public
// server, named is the parent, which reads CDS, and unbound looks on with
// whatever it has in its cache.
func TestUnbound_ValidatesThroughRollovers(t *testing.T) {
	t.Parallel()
	need(t, "named", "unbound", "dnssec-keygen", "dnssec-signzone", "dnssec-dsfromkey")
	com, top, parent := startParents(t, false)

	dir := shortDir(t)
	d := &daemon{data: filepath.Join(dir, "data"), addr: freeAddr(t)}
	public := startNamed(t, namedSecondary(example, d.addr))
	resolver := startUnbound(t, top.ds(t), map[string]string{".": parent.addr, "com.": parent.addr, example + ".": public.addr})
	policies := filepath.Join(dir, "policies")
	if err := os.Mkdir(policies, 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(policies, "default.toml"), fmt.Sprintf(`version = "v1"
[key-manager]
propagation-margin = "2s"
observation-interval = "1m"
parent-nameservers = [%q]
publication-nameservers = [%q]
[key-manager.records]
ttl = "5s"
[server.outbound]
send-notify-to = [%q]
`, parent.addr, public.addr, public.addr))
	config := writeFile(t, filepath.Join(dir, "config.toml"), fmt.Sprintf(
		"version = \"v1\"\npolicy-dir = %q\n[daemon]\nresolvers = [%q]\ntrust-anchors = [%q]\n", policies, resolver.addr, top.ds(t)))
	d.flags = []string{"--config", config, "--zone", example + "=" + writeFile(t, filepath.Join(dir, "zone"), rolledZone)}
	d.start(t)
	public.awaitSerial(t, example, d.awaitServed(t, example))

	var looking validator
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		looking.run(resolver.addr, stop)
	}()
	f := &follower{com: com, server: parent, public: public.addr}
	settled := func(what string) {
		t.Helper()
		await(t, what, 3*time.Minute, func() (bool, string) {
			f.follow(t)
			list := d.rollovers(t)
			return len(list) == 0 && len(f.have) > 0, fmt.Sprint(list)
		})
	}
	settled("the zone has its first DS")
	old := d.must(t, "key", "list", example)
	d.must(t, "key", "roll", example, "ksk", "--reason", "tried")
	d.must(t, "key", "roll", example, "zsk")
	if plan := d.must(t, "key", "plan", example); !strings.Contains(plan, "IpubC = DprpC + TTLkey") || !strings.Contains(plan, "Iret = Dsgn + Dprp + TTLsig") {
		t.Errorf("plan:\n%s", plan)
	}
	settled("both rollovers end")
	close(stop)
	<-done
	looking.check(t)

	list := d.must(t, "key", "list", example)
	if strings.Count(list, " removed ") != 2 || strings.Count(list, " active ") != 2 {
		t.Errorf("keys before:\n%s\nafter:\n%s", old, list)
	}
	await(t, "unbound validates with the new DS", 30*time.Second, func() (bool, string) {
		m, err := query(resolver.addr, "www."+example, dns.TypeA)
		return err == nil && m.AuthenticatedData, fmt.Sprint(m, err)
	})
	history := d.must(t, "zone", "history", example, "--type", "rollover.advanced")
	if !strings.Contains(history, "seen everywhere at ") || !strings.Contains(history, "next not before ") {
		t.Errorf("history:\n%s", history)
	}
}
