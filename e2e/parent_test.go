package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

const (
	pushKeyName = "push.example"
	pushSecret  = "b25lIG1vcmUgdGVzdCBrZXkgb2YgMzIgb2N0ZXRzLi4="
)

// takingParent is a parent that signs itself and takes dynamic updates of the DS
// of example.com with the push key.
type takingParent struct {
	*secondary
	anchor string // DS of its key
}

const takingZone = `$TTL 5
@ IN SOA ns.com. h.com. 1 60 60 86400 5
@ IN NS ns.com.
ns IN A 127.0.0.1
example IN NS ns1.example
ns1.example IN A 127.0.0.1
`

// more stands in the parent's zone besides.
func startTakingNamed(t *testing.T, more string) *takingParent {
	t.Helper()
	dir := shortDir(t)
	file := writeFile(t, filepath.Join(dir, "com"), takingZone+more)
	s := startNamed(t, fmt.Sprintf(`key %[1]q { algorithm hmac-sha256; secret %[2]q; };
zone "com" { type primary; file %[3]q; key-directory %[4]q; dnssec-policy default;
	update-policy { grant %[1]q name example.com. DS; }; };
`, pushKeyName, pushSecret, file, dir))
	return &takingParent{secondary: s, anchor: anchorAt(t, s.addr, "com.")}
}

func startTakingKnotd(t *testing.T, more string) *takingParent {
	t.Helper()
	dir, addr := shortDir(t), freeAddr(t)
	writeFile(t, filepath.Join(dir, "com.zone"), takingZone+more)
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
    any: debug
key:
  - id: %[3]s
    algorithm: hmac-sha256
    secret: %[4]s
acl:
  - id: push
    key: %[3]s
    action: update
    update-type: [DS]
    update-owner: name
    update-owner-match: equal
    update-owner-name: [example.com.]
zone:
  - domain: com
    storage: %[1]s
    file: com.zone
    acl: push
    dnssec-signing: on
`, dir, port(addr), pushKeyName, pushSecret))
	s := &secondary{"knotd", addr, start(t, "knotd", "knotd", "-c", conf)}
	return &takingParent{secondary: s, anchor: anchorAt(t, addr, "com.")}
}

// anchorAt is the DS of the key that a zone's server shows, once it signs.
func anchorAt(t *testing.T, addr, zone string) (ds string) {
	t.Helper()
	await(t, "the parent is signed", 30*time.Second, func() (bool, string) {
		m, err := query(addr, zone, dns.TypeDNSKEY)
		if err != nil {
			return false, err.Error()
		}
		for _, rr := range m.Answer {
			if k, ok := rr.(*dns.DNSKEY); ok && k.Flags == 257 {
				ds = k.ToDS(dns.SHA256).String()
			}
		}
		soa, err := query(addr, zone, dns.TypeSOA)
		return ds != "" && err == nil && has(soa.Answer, dns.TypeRRSIG), m.String()
	})
	return ds
}

// ds is the tags of the DS records that the parent shows.
func (p *takingParent) ds(t *testing.T) (tags []uint16) {
	t.Helper()
	m, err := query(p.addr, example, dns.TypeDS)
	if err != nil {
		return nil
	}
	for _, rr := range m.Answer {
		if ds, ok := rr.(*dns.DS); ok {
			tags = append(tags, ds.KeyTag)
		}
	}
	slices.Sort(tags)
	return tags
}

// pushing is the daemon with its public server.
type pushing struct {
	*daemon
	public string
}

// startPushing starts the daemon with a parent that is told as policy says.
func startPushing(t *testing.T, p *takingParent, policy string, records ...string) *pushing {
	t.Helper()
	dir := shortDir(t)
	policies := filepath.Join(dir, "policies")
	if err := os.Mkdir(policies, 0o755); err != nil {
		t.Fatal(err)
	}
	d := &pushing{daemon: &daemon{data: filepath.Join(dir, "data"), addr: freeAddr(t)}}
	public := startNamed(t, namedSecondary(example, d.addr))
	d.public = public.addr
	config := writeFile(t, filepath.Join(dir, "config.toml"), fmt.Sprintf(
		"version = \"v1\"\npolicy-dir = %q\n[daemon]\nresolvers = [%q]\ntrust-anchors = [%q]\n", policies, p.addr, p.anchor))
	d.flags = []string{"--config", config}
	writeFile(t, filepath.Join(policies, "default.toml"), fmt.Sprintf(`version = "v1"
[key-manager]
propagation-margin = "1s"
observation-interval = "1m"
parent-nameservers = [%q]
publication-nameservers = [%q]
%s
[key-manager.records]
ttl = "3s"
[server.outbound]
send-notify-to = [%q]
`, p.addr, public.addr, policy, public.addr))
	d.start(t)
	await(t, "the daemon answers", 20*time.Second, func() (bool, string) {
		r := d.cli(t, "health")
		return r.code == 0, r.String()
	})
	d.must(t, "tsig", "add", pushKeyName, "hmac-sha256", "--secret-file", writeFile(t, filepath.Join(dir, "secret"), pushSecret+"\n"))
	d.must(t, "zone", "add", example, "--source", writeFile(t, filepath.Join(dir, "zone"), strings.Replace(rolledZone, "$TTL 5", "$TTL 3", 1)+strings.Join(records, "")))
	public.awaitSerial(t, example, d.awaitServed(t, example))
	return d
}

// settles waits until no rollover runs and the parent has what it is to have.
func (d *pushing) settles(t *testing.T, p *takingParent, what string, want func(tags []uint16) bool) {
	t.Helper()
	await(t, what, 2*time.Minute, func() (bool, string) {
		list, tags := d.rollovers(t), p.ds(t)
		return len(list) == 0 && want(tags), fmt.Sprint(list, tags)
	})
}

// foreignDS is a DS at the parent that is none of ours.
const foreignDS = "example.com. 3 IN DS 4711 13 2 000102030405060708090a0b0c0d0e0f000102030405060708090a0b0c0d0e0f"

// addDS adds DS records to the parent, as somebody else would.
func (p *takingParent) addDS(t *testing.T, records ...string) {
	t.Helper()
	m := new(dns.Msg).SetUpdate("com.")
	for _, record := range records {
		rr, err := dns.NewRR(record)
		if err != nil {
			t.Fatal(err)
		}
		m.Insert([]dns.RR{rr})
	}
	m.SetTsig(pushKeyName+".", dns.HmacSHA256, 300, time.Now().Unix())
	c := dns.Client{Net: "tcp", TsigSecret: map[string]string{pushKeyName + ".": pushSecret}}
	if r, _, err := c.Exchange(m, p.addr); err != nil || r.Rcode != dns.RcodeSuccess {
		t.Fatalf("update: %v, %v", r, err)
	}
}

// TestParents_TakeDSByDynamicUpdate has named and knotd take the first DS, that
// of another KSK by a method that CDS cannot tell of, and the removal of all,
// while a DS of somebody else stays.
func TestParents_TakeDSByDynamicUpdate(t *testing.T) {
	for _, peer := range []struct {
		command string
		start   func(t *testing.T, more string) *takingParent
		method  string
	}{{"named", startTakingNamed, "double-ds"}, {"knotd", startTakingKnotd, "double-rrset"}} {
		t.Run(peer.command, func(t *testing.T) {
			t.Parallel()
			need(t, "named", peer.command)
			p := peer.start(t, "")
			d := startPushing(t, p, fmt.Sprintf("cds = \"never\"\n[key-manager.parent.update]\nservers = [\"%s^%s\"]\nttl = \"3s\"\n", p.addr, pushKeyName))
			d.settles(t, p, "the first DS", func(tags []uint16) bool { return len(tags) == 1 })
			p.addDS(t, foreignDS)
			first := p.ds(t)
			d.must(t, "key", "roll", example, "ksk", "--method", peer.method)
			d.settles(t, p, "the DS of another KSK", func(tags []uint16) bool {
				return len(tags) == 2 && slices.Contains(tags, 4711) && !slices.Equal(tags, first)
			})
			d.must(t, "key", "roll", example, "insecure")
			await(t, "our DS is gone", time.Minute, func() (bool, string) {
				tags := p.ds(t)
				return slices.Equal(tags, []uint16{4711}), fmt.Sprint(tags)
			})
			history := d.must(t, "zone", "history", example, "--type", "ds.pushed")
			if n := strings.Count(history, "pushed to "+p.addr+"^"+pushKeyName+"., zone com.: "); n != 4 || strings.Contains(history, "not pushed") {
				t.Errorf("%d pushes:\n%s", n, history)
			}
			if !strings.Contains(history, "not ours and left there: DS 4711") {
				t.Errorf("history:\n%s", history)
			}
		})
	}
}

// TestParents_RefusalsAreNamed has named and knotd refuse a push, each in its
// own way.
func TestParents_RefusalsAreNamed(t *testing.T) {
	for _, peer := range []struct {
		command string
		start   func(t *testing.T, more string) *takingParent
	}{{"named", startTakingNamed}, {"knotd", startTakingKnotd}} {
		t.Run(peer.command, func(t *testing.T) {
			t.Parallel()
			need(t, "named", peer.command)
			p := peer.start(t, "")
			d := startPushing(t, p, fmt.Sprintf("cds = \"never\"\n[key-manager.parent.update]\nservers = [\"%s^other.example\"]\n", p.addr))
			d.must(t, "tsig", "add", "other.example", "hmac-sha256", "--generate")
			await(t, "the refusal is told", time.Minute, func() (bool, string) {
				st := d.must(t, "zone", "status", example)
				return strings.Contains(st, "it does not know TSIG key other.example."), st
			})
		})
	}
}

// agent is the parent's agent: it notes for which zones it got NOTIFY(CDS).
type agent struct {
	mu    sync.Mutex
	zones []string // guarded by mu
}

// ServeDNS implements dns.Handler.
func (a *agent) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.Opcode == dns.OpcodeNotify && r.Question[0].Qtype == dns.TypeCDS {
		a.zones = append(a.zones, r.Question[0].Name)
	}
	_ = w.WriteMsg(new(dns.Msg).SetReply(r)) // who asked may be gone
}

func (a *agent) told() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.zones)
}

func startAgent(t *testing.T) (a *agent, at uint16) {
	t.Helper()
	a = &agent{}
	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &dns.Server{PacketConn: u, Handler: a, MsgAcceptFunc: func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept }}
	started, done := make(chan struct{}), make(chan error, 1)
	s.NotifyStartedFunc = func() { close(started) }
	go func() { done <- s.ActivateAndServe() }()
	<-started
	t.Cleanup(func() {
		if err := errors.Join(s.Shutdown(), <-done); err != nil {
			t.Error(err)
		}
	})
	return a, netip.MustParseAddrPort(u.LocalAddr().String()).Port()
}

// TestParents_AgentIsFoundAndNotified has named and knotd, as parents, answer for
// DSYNC out of a wildcard. The agent looks for CDS only when it is notified, at
// the public server, which must have them by then.
func TestParents_AgentIsFoundAndNotified(t *testing.T) {
	for _, peer := range []struct {
		command string
		start   func(t *testing.T, more string) *takingParent
	}{{"named", startTakingNamed}, {"knotd", startTakingKnotd}} {
		t.Run(peer.command, func(t *testing.T) {
			t.Parallel()
			need(t, "named", peer.command)
			a, at := startAgent(t)
			// CDS, NOTIFY, the port, agent.com.
			p := peer.start(t, fmt.Sprintf("agent IN A 127.0.0.1\n*._dsync IN TYPE66 \\# 16 003b01%04x056167656e7403636f6d00\n", at))
			marks := filepath.Join(shortDir(t), "marks")
			d := startPushing(t, p, fmt.Sprintf("cds = \"during-rolls\"\n[key-manager.parent]\nnotify = true\nhooks = [{ command = \"echo $SLUICE_EVENT >>%s; cat $SLUICE_DS >>%s\" }]\n", marks, marks))
			await(t, "the agent is notified", time.Minute, func() (bool, string) {
				return len(a.told()) > 0, d.must(t, "zone", "status", example)
			})
			m, err := query(d.public, example, dns.TypeCDS)
			if err != nil || !has(m.Answer, dns.TypeCDS) {
				t.Fatalf("no CDS is public: %v, %v", m, err)
			}
			var list []string
			for _, rr := range m.Answer {
				if cds, ok := rr.(*dns.CDS); ok {
					list = append(list, fmt.Sprintf("%s 3 IN DS %d %d %d %s", example+".", cds.KeyTag, cds.Algorithm, cds.DigestType, cds.Digest))
				}
			}
			p.addDS(t, list...)
			d.settles(t, p, "the first DS", func(tags []uint16) bool { return len(tags) == 1 })
			await(t, "CDS has left", time.Minute, func() (bool, string) {
				m, err := query(d.public, example, dns.TypeCDS)
				return err == nil && m.Rcode == dns.RcodeSuccess && !has(m.Answer, dns.TypeCDS), fmt.Sprint(m, err)
			})
			if got := a.told(); len(got) != 1 || got[0] != example+"." {
				t.Errorf("the agent was told of %q", got)
			}
			if st := d.must(t, "zone", "status", example, "--detailed"); !strings.Contains(st, "it has what it is to have\n  the hook echo ") {
				t.Errorf("status:\n%s", st)
			}
			history := d.must(t, "zone", "history", example)
			for _, want := range []string{
				fmt.Sprintf("agent.com.:%d at 127.0.0.1:%d, which the parent names at example._dsync.com., was notified of CDS", at, at),
				"hook 1 told of ds-ready", "CDS and CDNSKEY leave with the next version: the parent has what they say",
			} {
				if strings.Count(history, want) != 1 {
					t.Errorf("%q does not stand once in\n%s", want, history)
				}
			}
			if strings.Contains(history, "the parent is not signed") {
				t.Errorf("the DSYNC was not validated:\n%s", history)
			}
			if text := readFile(t, marks); !strings.HasPrefix(text, "ds-ready\n"+example+". 3 IN DS ") || strings.Count(text, "\n") != 2 {
				t.Errorf("the hook was told %q", text)
			}
		})
	}
}

// TestParents_NameServersVouchForANewZone has the name server's own zone, whose
// source is named, signed here too: the records of RFC 9615 are put there by
// dynamic update, come out signed, and go again when the parent has the DS.
func TestParents_NameServersVouchForANewZone(t *testing.T) {
	t.Parallel()
	need(t, "named")
	const owner = "_dsboot.example.com._signal.ns.host.test."
	host := startNamed(t, fmt.Sprintf(`key %[1]q { algorithm hmac-sha256; secret %[2]q; };
zone "host.test" { type primary; file %[3]q; update-policy { grant %[1]q subdomain _signal.ns.host.test. CDS CDNSKEY; }; };
`, pushKeyName, pushSecret, writeFile(t, filepath.Join(shortDir(t), "host"), "$TTL 3\n@ IN SOA ns h 1 1 1 86400 3\n@ IN NS ns\nns IN A 127.0.0.1\n")))
	p := startTakingNamed(t, "")
	d := startPushing(t, p, fmt.Sprintf("[key-manager.parent.signal]\nservers = [\"%s^%s\"]\n", host.addr, pushKeyName), "@ IN NS ns.host.test.\n")
	d.must(t, "zone", "add", "host.test", "--source", host.addr)
	signal := func(at string, qtype uint16) (out []string) {
		m, err := query(at, owner, qtype)
		if err != nil {
			return nil
		}
		for _, rr := range m.Answer {
			if rr.Header().Rrtype == qtype {
				_, rdata, _ := strings.Cut(rr.String(), "\tIN\t")
				out = append(out, rdata)
			}
		}
		return out
	}
	await(t, "the name server vouches", time.Minute, func() (bool, string) {
		return len(signal(host.addr, dns.TypeCDS)) == 1, d.must(t, "zone", "status", example)
	})
	for _, qtype := range []uint16{dns.TypeCDS, dns.TypeCDNSKEY} {
		m := ask(t, d.public, example, qtype)
		_, own, _ := strings.Cut(m.Answer[0].String(), "\tIN\t")
		if got := signal(host.addr, qtype); !slices.Equal(got, []string{own}) {
			t.Errorf("the name server says %q, the zone %q", got, own)
		}
	}
	await(t, "its zone is published with that, signed", time.Minute, func() (bool, string) {
		dump := d.must(t, "zone", "dump", "host.test")
		n := 0
		for line := range strings.Lines(dump) {
			if strings.HasPrefix(line, owner) && strings.Contains(line, "RRSIG") && (strings.Contains(line, "CDS") || strings.Contains(line, "CDNSKEY")) {
				n++
			}
		}
		return n >= 2, dump
	})
	d.must(t, "zone", "verify", "host.test")
	m := ask(t, d.public, example, dns.TypeCDS)
	cds, ok := m.Answer[0].(*dns.CDS)
	if !ok {
		t.Fatalf("no CDS in %v", m)
	}
	p.addDS(t, fmt.Sprintf("%s 3 IN DS %d %d %d %s", example+".", cds.KeyTag, cds.Algorithm, cds.DigestType, cds.Digest))
	d.settles(t, p, "the first DS", func(tags []uint16) bool { return len(tags) == 1 })
	await(t, "the name server vouches no longer", time.Minute, func() (bool, string) {
		return len(signal(host.addr, dns.TypeCDS)) == 0 && len(signal(host.addr, dns.TypeCDNSKEY)) == 0, d.must(t, "zone", "status", example, "--detailed")
	})
	history := d.must(t, "zone", "history", example, "--type", "signal.pushed")
	if strings.Count(history, " vouch for ") != 1 || strings.Count(history, " removed at "+owner) != 1 {
		t.Errorf("history:\n%s", history)
	}
}
