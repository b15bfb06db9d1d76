package e2e

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// checked is what sluice check prints.
type checked struct {
	Verdict, Summary string
	Healthy, Absent  bool
	Links            []struct {
		Zone, Verdict, Denial string
		Servers               []struct{ Name, Address, Error string }
		Findings              []struct{ Code, Severity, Text string }
	}
}

// chainWorld is a root and com. in one knotd, and example.com of a daemon's in
// three servers of different make, all at one port.
type chainWorld struct {
	t      *testing.T
	d      *daemon
	root   string
	anchor string
	public []*secondary
}

// chainHost is where the n-th public server of example.com is; named, the first
// one, listens only where an interface has the address.
func chainHost(n int) string {
	if n == 1 {
		return "127.0.0.1"
	}
	return fmt.Sprintf("127.58.0.%d", n)
}

// chainTop is where the root and com. are.
const chainTop = "127.58.0.9"

// startKnotdWith starts knotd with these zones, from files.
func startKnotdWith(t *testing.T, addr string, zones ...*parentZone) *secondary {
	t.Helper()
	dir := shortDir(t)
	text := fmt.Sprintf("server:\n    rundir: %[1]s\n    listen: %[2]s@%[3]s\n    background-workers: 1\n    udp-workers: 1\n    tcp-workers: 1\ndatabase:\n    storage: %[1]s\n    journal-db-max-size: 64M\nlog:\n  - target: stderr\n    any: info\nzone:\n",
		dir, host(addr), port(addr))
	for _, z := range zones {
		text += fmt.Sprintf("  - domain: %s\n    storage: %s\n    file: %s\n", z.name, dir, z.file)
	}
	return &secondary{"knotd", addr, start(t, "knotd-top", "knotd", "-c", writeFile(t, filepath.Join(dir, "knot.conf"), text))}
}

func startChainWorld(t *testing.T, more string) *chainWorld {
	t.Helper()
	need(t, "named", "knotd", "nsd", "dnssec-keygen", "dnssec-signzone", "dnssec-dsfromkey")
	source := "$TTL 3600\n@ SOA ns1 h 1 3600 600 604800 300\nwww A 192.0.2.80\nalias CNAME www\n*.wild TXT \"from a wildcard\"\ndeep.empty A 192.0.2.81\nbelow NS ns.below\nns.below A 192.0.2.82\n" + more
	glue := ""
	for n := range 3 {
		source += fmt.Sprintf("@ NS ns%d\nns%[1]d A %[2]s\n", n+1, chainHost(n+1))
		glue += fmt.Sprintf("example.com. IN NS ns%d.example.com.\nns%[1]d.example.com. IN A %[2]s\n", n+1, chainHost(n+1))
	}
	w := &chainWorld{t: t, d: startDaemon(t, denialPolicy("nsec"), example+"="+writeFile(t, filepath.Join(shortDir(t), "zone"), source))}
	serial := w.d.awaitServed(t, example)
	com := newParentZone(t, "com.", "ns.com. IN A "+chainTop+"\n"+glue, true)
	com.sign(t, anchor(t, w.d))
	top := newParentZone(t, ".", "ns.com. IN A "+chainTop+"\ncom. IN NS ns.com.", false)
	top.sign(t, com.ds(t))
	named := startNamed(t, namedSecondary(example, w.d.addr))
	at := func(n int) string { return chainHost(n) + ":" + port(named.addr) }
	above := startKnotdWith(t, chainTop+":"+port(named.addr), top, com)
	await(t, "knotd serves com", 20*time.Second, func() (bool, string) {
		n, err := serialAt(above.addr, "com")
		return err == nil && n == 2, fmt.Sprint(n, err)
	})
	w.root, w.anchor = above.addr, top.ds(t)
	w.public = []*secondary{
		named,
		startKnotdAt(t, at(2), example, w.d.addr),
		startNSDAt(t, at(3), example, w.d.addr),
	}
	w.await(serial)
	return w
}

func (w *chainWorld) await(serial uint32) {
	w.t.Helper()
	for _, s := range w.public {
		s.awaitSerial(w.t, example, serial)
	}
}

// check runs sluice check.
func (w *chainWorld) check(args ...string) (c checked, r result) {
	w.t.Helper()
	r = run(w.t, program(w.t), append([]string{"check", "--json", "--root", w.root, "--anchor", w.anchor}, args...)...)
	if err := json.Unmarshal([]byte(r.stdout), &c); err != nil {
		w.t.Fatalf("sluice check %v: %v: %v", args, err, r)
	}
	return c, r
}

// A zone that Sluice signs and named, knotd and NSD serve is secure with each
// denial chain, whatever is asked.
func TestCheck_ZonesThatWeSignAreSecure(t *testing.T) {
	t.Parallel()
	w := startChainWorld(t, "")
	policy := filepath.Join(filepath.Dir(w.d.data), "policies", "default.toml")
	for i, denial := range []string{"nsec", "nsec3", "nsec3-opt-out"} {
		if i > 0 {
			old, err := serialAt(w.d.addr, example)
			if err != nil {
				t.Fatal(err)
			}
			writeFile(t, policy, denialPolicy(denial))
			w.d.must(t, "policy", "reload")
			w.await(w.d.awaitChange(t, example, old))
		}
		for _, ask := range [][]string{
			{"example.com", "SOA", "MX"}, {"www.example.com"}, {"alias.example.com"}, {"any.wild.example.com", "TXT", "A"}, {"empty.example.com"}, {"deep.empty.example.com"},
		} {
			c, r := w.check(append(ask, "--secure")...)
			if denial == "nsec3-opt-out" && ask[0] == "any.wild.example.com" {
				// An unsigned delegation may hide where the name is: RFC 5155, 9.2.
				if r.code != 1 || c.Verdict != "insecure" || !c.Healthy || !strings.Contains(c.Summary, "opt-out") {
					t.Errorf("%s: sluice check %v: exit code %d: %s %+v", denial, ask, r.code, c.Summary, c.Links)
				}
				continue
			}
			if r.code != 0 || c.Verdict != "secure" || !c.Healthy || c.Absent {
				t.Errorf("%s: sluice check %v: exit code %d: %s %+v", denial, ask, r.code, c.Summary, c.Links)
			}
			if last := c.Links[len(c.Links)-1]; last.Zone != "example.com." || len(last.Servers) != 3 || last.Denial != denial {
				t.Errorf("%s: %v: the last link is %+v", denial, ask, last)
			}
		}
		if c, r := w.check("none.example.com"); r.code != 3 || !c.Absent || !c.Healthy {
			t.Errorf("%s: a name that does not exist: exit code %d: %s", denial, r.code, c.Summary)
		}
	}
	if c, r := w.check("example.com", "--at", "+90d"); r.code != 1 || c.Verdict != "bogus" || !strings.Contains(c.Summary, "expired") {
		t.Errorf("in ninety days: exit code %d: %s", r.code, c.Summary)
	}
	text := run(t, program(t), "check", "www.example.com", "--root", w.root, "--anchor", w.anchor, "--detailed")
	if text.code != 0 || !strings.Contains(text.stdout, "secure") || !strings.Contains(text.stdout, "ok     example.com.") {
		t.Errorf("for people: %v", text)
	}
	w.public[2].stop()
	c, r := w.check("example.com")
	if r.code != 1 || c.Verdict != "secure" || c.Healthy || !strings.Contains(c.Summary, "ns3.example.com. ("+chainHost(3)+")") {
		t.Errorf("with a server that is away: exit code %d: %s %+v", r.code, c.Summary, c.Links)
	}
}

// The record that tlsa make prints goes into a zone as it is, and tlsa check
// finds the certificate to fit it; another certificate does not.
func TestTLSA_RecordsOfAServerFitIt(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(nil)
	server.StartTLS()
	t.Cleanup(server.Close)
	at := server.Listener.Addr().String()
	cert := writeFile(t, filepath.Join(t.TempDir(), "cert.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	fromFile := must(t, program(t), "tlsa", "make", "www.example.com", "--port", port(at), "--cert", cert)
	fromServer := must(t, program(t), "tlsa", "make", "www.example.com", "--port", port(at), "--connect", at)
	if fromFile != fromServer || !strings.HasPrefix(fromFile, fmt.Sprintf("_%s._tcp.www.example.com. IN TLSA 3 1 1 ", port(at))) {
		t.Fatalf("%q of the file, %q of the server", fromFile, fromServer)
	}
	w := startChainWorld(t, fromFile+"_1._tcp.www.example.com. IN TLSA 3 1 1 "+strings.Repeat("ab", 32)+"\n")
	check := func(port, connect string) result {
		return run(t, program(t), "tlsa", "check", "www.example.com", "--port", port, "--connect", connect, "--root", w.root, "--anchor", w.anchor)
	}
	if r := check(port(at), at); r.code != 0 || !strings.Contains(r.stdout, "fits its TLSA records") || !strings.Contains(r.stdout, "only what the server has now") {
		t.Errorf("the server's own record: %v", r)
	}
	if r := check("1", at); r.code != 1 || !strings.Contains(r.stdout, "fits none of its TLSA records") {
		t.Errorf("another key's record: %v", r)
	}
	if r := check("2", at); r.code != 3 || !strings.Contains(r.stdout, "has no TLSA records") {
		t.Errorf("no record: %v", r)
	}
}
