package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// catalogInfo is what catalog show says.
type catalogInfo struct {
	State     string  `json:"state"`
	Serial    *uint32 `json:"serial"`
	Members   int     `json:"members"`
	Waiting   int     `json:"waiting"`
	Removals  int     `json:"removals"`
	Conflicts int     `json:"conflicts"`
	Held      *struct {
		Gone int `json:"gone"`
	} `json:"held"`
}

func (d *daemon) catalog(t *testing.T, name string) (c catalogInfo) {
	t.Helper()
	if err := json.Unmarshal([]byte(d.must(t, "--json", "catalog", "show", name)), &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// removeUnlisted waits until zones are to be removed, which their parent, whom
// nobody can ask here, holds up; and removes them as a person does.
func (d *daemon) removeUnlisted(t *testing.T, zones ...string) {
	t.Helper()
	for _, zone := range zones {
		await(t, "the removal of "+zone+" waits", time.Minute, func() (bool, string) {
			text := d.cli(t, "zone", "status", zone).stdout
			return strings.Contains(text, "its removal was due at"), text
		})
		d.must(t, "zone", "remove", zone, "--force")
	}
}

// policyOfZone is the policy that a zone has; "" where it is not there.
func (d *daemon) policyOfZone(t *testing.T, name string) string {
	t.Helper()
	r := d.cli(t, "--json", "zone", "status", name)
	if r.code != 0 {
		return ""
	}
	var z struct {
		Policy string `json:"policy"`
	}
	if err := json.Unmarshal([]byte(r.stdout), &z); err != nil {
		t.Fatal(err)
	}
	return z.Policy
}

// catalogDaemon starts a daemon with policies by name.
func catalogDaemon(t *testing.T, policies map[string]string) *daemon {
	t.Helper()
	dir := shortDir(t)
	d := &daemon{data: filepath.Join(dir, "data"), addr: freeAddr(t)}
	folder := filepath.Join(dir, "policies")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range policies {
		writeFile(t, filepath.Join(folder, name+".toml"), "version = \"v1\"\n"+text)
	}
	d.flags = []string{"--policy-dir", folder}
	d.start(t)
	d.awaitHealthy(t)
	return d
}

// producer is knotd with a catalog that it makes of its zones.
type producer struct {
	*secondary
	dir, conf, notify string
}

func startProducer(t *testing.T, notify string) *producer {
	t.Helper()
	dir := shortDir(t)
	p := &producer{dir: dir, conf: filepath.Join(dir, "knot.conf"), notify: notify}
	addr := freeAddr(t)
	p.secondary = &secondary{name: "knotd", addr: addr}
	p.configure(t, map[string]string{"one.example": "", "two.example": "dense"})
	p.process = start(t, "knotd", "knotd", "-c", p.conf)
	await(t, "knotd serves the members", 20*time.Second, func() (bool, string) {
		n, err := serialAt(addr, "two.example")
		return err == nil, fmt.Sprint(n, err)
	})
	return p
}

// configure writes the configuration for zones with their groups.
func (p *producer) configure(t *testing.T, zones map[string]string) {
	t.Helper()
	var text strings.Builder
	fmt.Fprintf(&text, `
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
  - id: signer
    address: 127.0.0.1@%[3]s
acl:
  - id: all
    address: 127.0.0.1
    action: [notify, transfer]
zone:
  - domain: in.example
    storage: %[1]s
    catalog-role: generate
    acl: all
    notify: signer
`, p.dir, port(p.addr), port(p.notify))
	for name, group := range zones {
		writeFile(t, filepath.Join(p.dir, name+".zone"), fmt.Sprintf("$ORIGIN %s.\n@ 300 SOA ns hostmaster 1 60 60 86400 300\n@ 300 NS ns\nns 300 A 192.0.2.1\n", name))
		fmt.Fprintf(&text, "  - domain: %s\n    storage: %s\n    acl: all\n    notify: signer\n    catalog-role: member\n    catalog-zone: in.example\n", name, p.dir)
		if group != "" {
			fmt.Fprintf(&text, "    catalog-group: %s\n", group)
		}
	}
	writeFile(t, p.conf, text.String())
	if p.process != nil {
		must(t, "knotc", "-c", p.conf, "reload")
	}
}

const denseText = "[signer.denial]\ntype = \"nsec3\"\nopt-out = false\n"

// knotd makes a catalog of its zones, Sluice signs these, and makes a catalog of
// what it publishes; named and knotd follow that one.
func TestCatalog_FromKnotdThroughUsToNamedAndKnotd(t *testing.T) {
	t.Parallel()
	need(t, "knotd", "knotc", "named")
	nameds, knots := freeAddr(t), freeAddr(t)
	d := catalogDaemon(t, map[string]string{
		"default": fmt.Sprintf("[server.outbound]\nsend-notify-to = [%q, %q]\n", nameds, knots),
		"dense":   denseText + fmt.Sprintf("[server.outbound]\nsend-notify-to = [%q, %q]\n", nameds, knots),
		"listed":  fmt.Sprintf("[signer]\nmode = \"unsigned\"\n[server.outbound]\nsend-notify-to = [%q, %q]\n", nameds, knots),
	})
	p := startProducer(t, d.addr)
	d.must(t, "catalog", "add", "in.example", "--source", p.addr, "--group", "dense=dense", "--removal-delay", "0s", "--max-removals", "2")
	d.must(t, "catalog", "produce", "out.example", "--policy", "listed", "--group", "dense=thick")
	d.awaitServed(t, "one.example")
	d.awaitServed(t, "two.example")
	if one, two := d.policyOfZone(t, "one.example"), d.policyOfZone(t, "two.example"); one != "default" || two != "dense" {
		t.Errorf("policies %s and %s", one, two)
	}
	if text := d.must(t, "zone", "status", "two.example"); !strings.Contains(text, `in.example. lists it in group "dense"`) {
		t.Errorf("zone status:\n%s", text)
	}

	consumers := []*secondary{startNamedConsumer(t, nameds, d.addr), startKnotdConsumer(t, knots, d.addr)}
	follows(t, consumers, "one.example", "two.example")

	was := d.awaitServed(t, "out.example")

	// One more, one less.
	p.configure(t, map[string]string{"two.example": "dense", "three.example": ""})
	d.awaitServed(t, "three.example")
	d.removeUnlisted(t, "one.example")
	follows(t, consumers, "two.example", "three.example")
	for _, c := range consumers {
		await(t, c.name+" drops one.example", 30*time.Second, func() (bool, string) {
			n, err := serialAt(c.addr, "one.example")
			return err != nil, fmt.Sprint(n)
		})
	}
	// Who had the version before gets what changed.
	m := new(dns.Msg)
	m.SetIxfr("out.example.", was, "invalid.", "invalid.")
	msgs, _, err := transfer(d.addr, m)
	if err != nil {
		t.Fatal(err)
	}
	var changes []dns.RR
	for _, msg := range msgs {
		changes = append(changes, msg.Answer...)
	}
	if _, ok := changes[min(1, len(changes)-1)].(*dns.SOA); !ok || len(changes) < 4 || slices.ContainsFunc(changes, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeNS }) {
		t.Errorf("not what changed since %d: %v", was, changes)
	}
}

// follows waits until all serve all zones with signatures.
func follows(t *testing.T, consumers []*secondary, zones ...string) {
	t.Helper()
	for _, c := range consumers {
		for _, zone := range zones {
			await(t, fmt.Sprintf("%s serves %s, signed", c.name, zone), 45*time.Second, func() (bool, string) {
				r, err := query(c.addr, zone, dns.TypeDNSKEY)
				if err != nil {
					return false, err.Error()
				}
				return slices.ContainsFunc(r.Answer, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeRRSIG }), r.String()
			})
		}
	}
}

func startNamedConsumer(t *testing.T, addr, primary string) *secondary {
	t.Helper()
	dir := shortDir(t)
	conf := writeFile(t, filepath.Join(dir, "named.conf"), fmt.Sprintf(`
options {
	directory %[1]q;
	pid-file none;
	session-keyfile none;
	lock-file none;
	listen-on port %[2]s { 127.0.0.1; };
	listen-on-v6 { none; };
	recursion no;
	notify no;
	dnssec-validation no;
	allow-query { any; };
	allow-notify { 127.0.0.1; };
	min-refresh-time 1;
	min-retry-time 1;
	max-retry-time 1;
	catalog-zones { zone "out.example" default-primaries { 127.0.0.1 port %[3]s; } in-memory yes min-update-interval 1; };
};
controls { };
zone "out.example" { type secondary; primaries { 127.0.0.1 port %[3]s; }; file "out.db"; };
`, dir, port(addr), port(primary)))
	return &secondary{"named", addr, start(t, "named-consumer", "named", "-g", "-4", "-n", "1", "-c", conf)}
}

func startKnotdConsumer(t *testing.T, addr, primary string) *secondary {
	t.Helper()
	dir := shortDir(t)
	conf := writeFile(t, filepath.Join(dir, "knot.conf"), fmt.Sprintf(`
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
  - id: member
    storage: %[1]s
    master: primary
    acl: all
    retry-max-interval: 1
  - id: thick
    storage: %[1]s
    master: primary
    acl: all
    retry-max-interval: 1
zone:
  - domain: out.example
    storage: %[1]s
    master: primary
    acl: all
    retry-max-interval: 1
    catalog-role: interpret
    catalog-template: [member, thick]
`, dir, port(addr), port(primary)))
	return &secondary{"knotd", addr, start(t, "knotd-consumer", "knotd", "-c", conf)}
}

// A catalog that suddenly lists nothing removes nothing, whatever becomes of the
// process, until a person approves it.
func TestCatalog_AnEmptyOneWaitsForAPerson(t *testing.T) {
	t.Parallel()
	need(t, "knotd", "knotc")
	d := catalogDaemon(t, map[string]string{"default": "", "dense": denseText})
	p := startProducer(t, d.addr)
	d.must(t, "catalog", "add", "in.example", "--source", p.addr, "--removal-delay", "0s")
	d.awaitServed(t, "one.example")
	d.awaitServed(t, "two.example")
	p.configure(t, nil)
	await(t, "the removals are held", time.Minute, func() (bool, string) {
		c := d.catalog(t, "in.example")
		return c.Held != nil && c.Held.Gone == 2, fmt.Sprintf("%+v", c)
	})
	if text := d.cli(t, "status").stdout; !strings.Contains(text, "sluice catalog approve in.example.") {
		t.Errorf("status does not say what to type:\n%s", text)
	}
	d.kill()
	d.start(t)
	d.awaitServed(t, "one.example")
	await(t, "they are held again", time.Minute, func() (bool, string) {
		c := d.catalog(t, "in.example")
		return c.Held != nil && c.Members == 2, fmt.Sprintf("%+v", c)
	})
	d.must(t, "catalog", "approve", "in.example", "--reason", "all went to another signer")
	d.removeUnlisted(t, "one.example", "two.example")
	await(t, "both are removed", time.Minute, func() (bool, string) {
		c := d.catalog(t, "in.example")
		return c.Members == 0, fmt.Sprintf("%+v", c)
	})
	if text := d.must(t, "zone", "history", "in.example"); !strings.Contains(text, "all went to another signer") {
		t.Errorf("history:\n%s", text)
	}
}

// Many members are added some at a time, and none is lost or added twice where the
// process dies in the middle. With SLUICE_LONG these are 10,000.
func TestCatalog_ManyMembers(t *testing.T) {
	t.Parallel()
	n, within := 300, 3*time.Minute
	if long() {
		n, within = 10_000, 2*time.Hour
	}
	primary := serveMembers(t, n)
	d := catalogDaemon(t, map[string]string{"default": "[key-manager]\nobservation-interval = \"0s\"\n"})
	d.must(t, "catalog", "add", "in.example", "--source", primary)
	published := func() int {
		r := d.cli(t, "--json", "zone", "list", "--state", "published", "--policy", "default")
		return strings.Count(r.stdout, `"name":`)
	}
	await(t, "some are published", within, func() (bool, string) {
		c := published()
		return c >= n/10, fmt.Sprint(c)
	})
	d.kill()
	d.start(t)
	await(t, "all are published", within, func() (bool, string) {
		c := published()
		return c == n, fmt.Sprint(c)
	})
	if c := d.catalog(t, "in.example"); c.Members != n || c.Waiting != 0 || c.Conflicts != 0 || c.State != "followed" {
		t.Errorf("the catalog: %+v", c)
	}
}

// serveMembers serves a catalog of n small zones, and these.
func serveMembers(t *testing.T, n int) string {
	t.Helper()
	addr := freeAddr(t)
	zone := func(name string) []dns.RR {
		h := func(owner string, rrtype uint16) dns.RR_Header {
			return dns.RR_Header{Name: owner, Rrtype: rrtype, Class: dns.ClassINET, Ttl: 300}
		}
		soa := &dns.SOA{Hdr: h(name, dns.TypeSOA), Ns: "ns.invalid.", Mbox: "hostmaster.invalid.", Serial: 1, Refresh: 7200, Retry: 3600, Expire: 1209600, Minttl: 300}
		rrs := []dns.RR{soa, &dns.NS{Hdr: h(name, dns.TypeNS), Ns: "ns.invalid."}}
		if name != "in.example." {
			return append(rrs, &dns.A{Hdr: h("www."+name, dns.TypeA), A: net.IPv4(192, 0, 2, 1)}, soa)
		}
		rrs = append(rrs, &dns.TXT{Hdr: h("version."+name, dns.TypeTXT), Txt: []string{"2"}})
		for i := range n {
			rrs = append(rrs, &dns.PTR{Hdr: h(fmt.Sprintf("l%d.zones.%s", i, name), dns.TypePTR), Ptr: fmt.Sprintf("m%d.example.", i)})
		}
		return append(rrs, soa)
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		rrs := zone(strings.ToLower(q.Question[0].Name))
		r := new(dns.Msg).SetReply(q)
		r.Authoritative = true
		if q.Question[0].Qtype == dns.TypeSOA {
			r.Answer = rrs[:1]
			_ = w.WriteMsg(r) // a client that left
			return
		}
		for part := range slices.Chunk(rrs, 500) {
			m := new(dns.Msg).SetReply(q)
			m.Authoritative, m.Answer = true, part
			if w.WriteMsg(m) != nil {
				return
			}
		}
	})
	for _, s := range []*dns.Server{{Addr: addr, Net: "tcp", Handler: handler}, {Addr: addr, Net: "udp", Handler: handler}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { _ = s.ListenAndServe() }() // ends with Shutdown
		<-started
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	return addr
}
