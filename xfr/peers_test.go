package xfr

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"sluice/signer/zone"
)

// peer is another server, run for a test.
type peer struct {
	addr string // without TLS
	tls  string // where it speaks TLS; may be empty
	log  *os.File

	roots *x509.CertPool // what trusts it over TLS
}

// startPeer runs a server in the foreground until the test ends. It is
// skipped where the server is not installed.
func startPeer(t *testing.T, p *peer, command string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(command)
	if err != nil {
		t.Skipf("%s is not installed", command)
	}
	if p.log, err = os.Create(filepath.Join(t.ArtifactDir(), command+".log")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = p.log, p.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // it may be gone
		_ = cmd.Wait()                                      // killed
		if t.Failed() {
			if text, err := os.ReadFile(p.log.Name()); err == nil {
				t.Logf("log of %s:\n%s", command, text[max(0, len(text)-4000):])
			}
		}
		_ = p.log.Close() // only read from now on
	})
}

// freePort is a port free for UDP and TCP.
func freePort(t *testing.T) string {
	t.Helper()
	for range 50 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		pc, err := net.ListenPacket("udp", l.Addr().String())
		_ = l.Close() // it was only asked for
		if err == nil {
			_ = pc.Close() // likewise
			_, port, _ := net.SplitHostPort(l.Addr().String())
			return port
		}
	}
	t.Fatal("no free port")
	return ""
}

// peerDir is a folder with a short name that holds files.
func peerDir(t *testing.T, files map[string]string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "xfr") //nolint:usetesting // socket paths must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // leftovers in the system's folder harm nobody
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.ReplaceAll(text, "DIR", dir)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const peerZone = `$TTL 300
@ IN SOA ns1 host 1 3600 600 86400 300
@ IN NS ns1
@ IN MX 10 Mail.Deep.Names
ns1 IN A 192.0.2.1
srv IN SRV 1 2 3 ns1
txt IN TXT "some text" "more"
www IN CNAME ns1
*.wild IN A 192.0.2.9
sub IN NS ns.sub
ns.sub IN AAAA 2001:db8::1
caa IN CAA 0 issue "ca.example"
`

// testSecret64 is testSecret in base64.
const testSecret64 = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

// namedConf is a configuration for named; with tls it listens for XoT too.
func namedConf(p *peer, port, tlsPort, zones string) string {
	extra := ""
	if tlsPort != "" {
		p.tls = "127.0.0.1:" + tlsPort
		extra = "listen-on port " + tlsPort + " tls own { 127.0.0.1; };\n"
		zones += "tls own { cert-file \"DIR/cert.pem\"; key-file \"DIR/key.pem\"; };\n"
	}
	p.addr = "127.0.0.1:" + port
	return `options { directory "DIR"; pid-file none; session-keyfile none; lock-file none;
	listen-on port ` + port + ` { 127.0.0.1; }; listen-on-v6 { none; };
	recursion no; notify explicit; notify-delay 0; max-ixfr-ratio unlimited; dnssec-validation no; check-names primary ignore; check-names secondary ignore;
	min-refresh-time 1; min-retry-time 1; max-retry-time 1; ` + extra + ` };
controls { };
key transfer.key { algorithm hmac-sha256; secret "` + testSecret64 + `"; };
` + zones
}

func startNamedPrimary(t *testing.T, notify string) *peer {
	p := new(peer)
	conf := namedConf(p, freePort(t), freePort(t), fmt.Sprintf(`zone example { type primary; file "zone"; ixfr-from-differences yes;
	also-notify { %s }; allow-transfer { key transfer.key; }; allow-update { key transfer.key; }; };
`, notify))
	dir := peerDir(t, map[string]string{"named.conf": conf, "zone": peerZone})
	_, p.roots = newCertificate(t, dir, "ns1.example")
	startPeer(t, p, "named", "-g", "-4", "-n", "1", "-c", filepath.Join(dir, "named.conf"))
	return p
}

func startKnotPrimary(t *testing.T, notify string) *peer {
	port := freePort(t)
	p := &peer{addr: "127.0.0.1:" + port}
	to, notifyKey, _ := strings.Cut(strings.TrimSuffix(notify, ";"), " key ")
	host, at, _ := strings.Cut(to, " port ")
	dir := peerDir(t, map[string]string{"zone": peerZone, "knot.conf": fmt.Sprintf(`
server:
    rundir: DIR
    listen: 127.0.0.1@%s
    background-workers: 1
    udp-workers: 1
    tcp-workers: 1
database:
    storage: DIR
    journal-db-max-size: 64M
log:
  - target: stderr
    any: debug
key:
  - id: transfer.key
    algorithm: hmac-sha256
    secret: %s
remote:
  - id: ours
    address: %s@%s
    key: %s
acl:
  - id: all
    key: transfer.key
    action: [transfer, update]
zone:
  - domain: example
    storage: DIR
    file: zone
    zonefile-sync: -1
    zonefile-load: difference
    acl: all
    notify: ours
`, port, testSecret64, host, at, notifyKey)})
	startPeer(t, p, "knotd", "-c", filepath.Join(dir, "knot.conf"))
	return p
}

func startNSDPrimary(t *testing.T, _ string) *peer {
	port := freePort(t)
	p := &peer{addr: "127.0.0.1:" + port}
	dir := peerDir(t, map[string]string{"zone": peerZone, "nsd.conf": fmt.Sprintf(`
server:
	ip-address: 127.0.0.1@%s
	username: ""
	chroot: ""
	zonesdir: "DIR"
	database: ""
	pidfile: "DIR/nsd.pid"
	xfrdfile: "DIR/xfrd.state"
	xfrdir: "DIR"
	zonelistfile: "DIR/zone.list"
	server-count: 1
remote-control:
	control-enable: no
key:
	name: transfer.key
	algorithm: hmac-sha256
	secret: "%s"
zone:
	name: example
	zonefile: zone
	provide-xfr: 127.0.0.1 transfer.key
`, port, testSecret64)})
	startPeer(t, p, "nsd", "-d", "-c", filepath.Join(dir, "nsd.conf"))
	return p
}

// awaitSOA waits until a server has the zone and returns its serial.
func awaitSOA(t *testing.T, c *Client, ep Endpoint, fine func(zone.Serial) bool) zone.Serial {
	t.Helper()
	var last error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) { // polls a named condition
		serial, _, err := c.SOA(t.Context(), ep, exampleName)
		if last = err; err == nil && fine(serial) {
			return serial
		}
	}
	t.Fatalf("%s does not serve what is waited for: %v", ep, last)
	return 0
}

// applySink keeps a zone and applies what comes.
type applySink struct {
	zone map[string]bool
	bad  []string
}

func (s *applySink) Begin(kind TransferKind, _ *Record) error {
	if kind == AXFR {
		s.zone = map[string]bool{}
	}
	return nil
}

func (s *applySink) Record(rr *Record) error { s.zone[recordText(rr)] = true; return nil }

func (s *applySink) Delete(rr *Record) error {
	if text := recordText(rr); !s.zone[text] {
		s.bad = append(s.bad, "not there: "+text)
	}
	delete(s.zone, recordText(rr))
	return nil
}

func (s *applySink) Add(rr *Record) error {
	if text := recordText(rr); s.zone[text] {
		s.bad = append(s.bad, "there already: "+text)
	}
	s.zone[recordText(rr)] = true
	return nil
}

func (s *applySink) lines() []string {
	out := []string{}
	for line := range s.zone {
		out = append(out, line)
	}
	slices.Sort(out)
	return out
}

// update sends a signed dynamic update.
func update(t *testing.T, addr string, remove, insert []string) {
	t.Helper()
	m := new(dns.Msg).SetUpdate("example.")
	parse := func(lines []string) (out []dns.RR) {
		for _, line := range lines {
			rr, err := dns.NewRR(line)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, rr)
		}
		return out
	}
	m.Remove(parse(remove))
	m.Insert(parse(insert))
	m.SetTsig("transfer.key.", dns.HmacSHA256, 300, time.Now().Unix())
	c := dns.Client{Net: "tcp", TsigSecret: map[string]string{"transfer.key.": testSecret64}}
	r, _, err := c.Exchange(m, addr)
	if err != nil || r.Rcode != dns.RcodeSuccess {
		t.Fatalf("update: %v, %v", r, err)
	}
}

func TestPeers_AsPrimaries(t *testing.T) {
	if testing.Short() {
		t.Skip("starts other servers")
	}
	keys, _ := tsigKeys(t, "hmac-sha256")
	for _, tc := range []struct {
		name    string
		start   func(t *testing.T, notify string) *peer
		updates bool
	}{{"named", startNamedPrimary, true}, {"knotd", startKnotPrimary, true}, {"nsd", startNSDPrimary, false}} {
		t.Run(tc.name, func(t *testing.T) {
			told := make(chan zone.Serial, 100)
			ours, _ := startServer(t, Config{
				Source: memSource{}, Keys: keys, AllowsNotify: allowExample("transfer.key."),
				Notified: func(_ zone.Name, serial *zone.Serial, _ Peer) {
					if serial != nil {
						told <- *serial
					}
				},
			})
			host, port, _ := net.SplitHostPort(ours)
			p := tc.start(t, host+" port "+port+" key transfer.key;")
			c := NewClient(ClientConfig{Keys: keys})
			ep := endpoint(t, p.addr+"^transfer.key")
			have := awaitSOA(t, c, ep, func(zone.Serial) bool { return true })
			sink := new(applySink)
			r, err := c.Transfer(t.Context(), ep, exampleName, nil, sink)
			if err != nil || r.Kind != AXFR || len(sink.zone) != 11 {
				t.Fatalf("%+v, %v, %d records", r, err, len(sink.zone))
			}
			bare := endpoint(t, p.addr)
			if _, err := c.Transfer(t.Context(), bare, exampleName, nil, new(memSink)); err == nil {
				t.Error("unsigned transfer taken")
			}
			if r, err = c.Transfer(t.Context(), ep, exampleName, &have, sink); err != nil || r.Kind != UpToDate {
				t.Fatalf("%+v, %v", r, err)
			}
			if !tc.updates {
				return
			}
			for i := range 3 {
				update(t, p.addr, []string{"txt.example. 300 IN TXT \"some text\" \"more\""},
					[]string{fmt.Sprintf("New%d.example. 60 IN A 192.0.2.%d", i, i), fmt.Sprintf("txt.example. 300 IN TXT \"%d\"", i)})
			}
			for serial := range told {
				if !serial.Before(have + 3) {
					break // a NOTIFY for each change, or for the last one
				}
			}
			if r, err = c.Transfer(t.Context(), ep, exampleName, &have, sink); err != nil || r.Kind != IXFR || r.Serial != have+3 || len(sink.bad) > 0 {
				t.Fatalf("%+v, %v, %v", r, err, sink.bad)
			}
			again := new(applySink)
			if _, err := c.Transfer(t.Context(), ep, exampleName, nil, again); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(again.lines(), sink.lines()); d != "" {
				t.Error(d)
			}
			if p.tls == "" {
				return
			}
			secure := NewClient(ClientConfig{Keys: keys, Roots: p.roots})
			if r, err := secure.Transfer(t.Context(), endpoint(t, "tls://"+p.tls+"^transfer.key#ns1.example"), exampleName, &have, new(memSink)); err != nil || r.Kind != IXFR {
				t.Errorf("over TLS: %+v, %v", r, err)
			}
		})
	}
}

// swapSource serves one view, which may be replaced.
type swapSource struct {
	mu   sync.Mutex
	view *memView // guarded by mu
}

func (s *swapSource) View(name zone.Name) (View, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return memSource{exampleName: s.view}.View(name)
}

func (s *swapSource) set(v *memView) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.view = v
}

// peerRecords is the lines at serial n of a small zone that changes with it.
func peerRecords(n int) string {
	var b strings.Builder
	fmt.Fprintf(&b, soaText, n)
	b.WriteString("Example. 300 IN NS ns1.example.\nns1.example. 300 IN A 192.0.2.1\n")
	for i := range 20 {
		if (i+n)%3 > 0 {
			fmt.Fprintf(&b, "n%d.example. %d IN TXT \"%d\"\n", i, 300+(i+n)%2, (i*7+n)%4)
		}
	}
	return b.String()
}

// peerView is that zone with the steps to it from serial 1.
func peerView(t *testing.T, n int) *memView {
	t.Helper()
	v := &memView{apex: "\x07Example\x00", serial: zone.Serial(n), items: itemsOf(t, peerRecords(n))}
	for i := 1; i < n; i++ {
		old := &memView{apex: v.apex, items: itemsOf(t, peerRecords(i))}
		now := &memView{apex: v.apex, items: itemsOf(t, peerRecords(i+1))}
		d := &memDiff{from: zone.Serial(i), to: zone.Serial(i + 1), size: 100}
		_, d.fromSOA = old.SOA()
		_, d.toSOA = now.SOA()
		err := zone.DiffItems(&memIterator{items: byKey(old.items)}, &memIterator{items: byKey(now.items)}, func(key, before, after []byte) error {
			if zone.Kind(key[0]) == zone.KindMade {
				return nil // the SOA
			}
			if before != nil {
				d.removed = append(d.removed, item{slices.Clone(key), before})
			}
			if after != nil {
				d.added = append(d.added, item{slices.Clone(key), after})
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		v.diffs = append(v.diffs, d)
	}
	return v
}

func startNamedSecondary(t *testing.T, port string) *peer {
	p := new(peer)
	conf := namedConf(p, freePort(t), "", fmt.Sprintf(`zone example { type secondary; file "copy"; masterfile-format raw;
	primaries { 127.0.0.1 port %s key transfer.key; }; allow-transfer { any; }; allow-notify { key transfer.key; }; };
`, port))
	dir := peerDir(t, map[string]string{"named.conf": conf})
	startPeer(t, p, "named", "-g", "-4", "-n", "1", "-c", filepath.Join(dir, "named.conf"))
	return p
}

func startKnotSecondary(t *testing.T, primary string) *peer {
	port := freePort(t)
	p := &peer{addr: "127.0.0.1:" + port}
	dir := peerDir(t, map[string]string{"knot.conf": fmt.Sprintf(`
server:
    rundir: DIR
    listen: 127.0.0.1@%s
    background-workers: 1
    udp-workers: 1
    tcp-workers: 1
database:
    storage: DIR
    journal-db-max-size: 64M
log:
  - target: stderr
    any: debug
key:
  - id: transfer.key
    algorithm: hmac-sha256
    secret: %s
remote:
  - id: ours
    address: 127.0.0.1@%s
    key: transfer.key
acl:
  - id: all
    address: 127.0.0.1
    action: transfer
  - id: tell
    key: transfer.key
    action: notify
zone:
  - domain: example
    storage: DIR
    master: ours
    acl: [all, tell]
    retry-max-interval: 1
`, port, testSecret64, primary)})
	startPeer(t, p, "knotd", "-c", filepath.Join(dir, "knot.conf"))
	return p
}

func startNSDSecondary(t *testing.T, primary string) *peer {
	port := freePort(t)
	p := &peer{addr: "127.0.0.1:" + port}
	dir := peerDir(t, map[string]string{"nsd.conf": fmt.Sprintf(`
server:
	ip-address: 127.0.0.1@%s
	username: ""
	chroot: ""
	zonesdir: "DIR"
	database: ""
	pidfile: "DIR/nsd.pid"
	xfrdfile: "DIR/xfrd.state"
	xfrdir: "DIR"
	zonelistfile: "DIR/zone.list"
	server-count: 1
	verbosity: 2
	xfrd-reload-timeout: 0
remote-control:
	control-enable: no
key:
	name: transfer.key
	algorithm: hmac-sha256
	secret: "%s"
zone:
	name: example
	request-xfr: 127.0.0.1@%s transfer.key
	allow-notify: 127.0.0.1 transfer.key
	provide-xfr: 127.0.0.1 NOKEY
	max-retry-time: 1
`, port, testSecret64, primary)})
	startPeer(t, p, "nsd", "-d", "-c", filepath.Join(dir, "nsd.conf"))
	return p
}

func TestPeers_AsSecondariesApplyCondensedIXFR(t *testing.T) {
	if testing.Short() {
		t.Skip("starts other servers")
	}
	keys, _ := tsigKeys(t, "hmac-sha256")
	for name, start := range map[string]func(t *testing.T, port string) *peer{
		"named": startNamedSecondary, "knotd": startKnotSecondary, "nsd": startNSDSecondary,
	} {
		t.Run(name, func(t *testing.T) {
			source := &swapSource{view: peerView(t, 1)}
			kinds := make(chan TransferKind, 100)
			ours, _ := startServer(t, Config{
				Source: source, Keys: keys,
				Transferred: func(_ Peer, _ View, kind TransferKind) { kinds <- kind },
			})
			_, port, _ := net.SplitHostPort(ours)
			p := start(t, port)
			c := NewClient(ClientConfig{Keys: keys})
			ep := endpoint(t, p.addr)
			signed := ep
			signed.Key = "transfer.key."
			awaitSOA(t, c, ep, func(s zone.Serial) bool { return s == 1 })
			if kind := <-kinds; kind != AXFR {
				t.Errorf("begins with %s", kind)
			}
			for _, n := range []int{2, 6, 14} {
				view := peerView(t, n)
				source.set(view)
				_, soa := view.SOA()
				if err := c.Notify(t.Context(), signed, exampleName, soa); err != nil {
					t.Fatal(err)
				}
				awaitSOA(t, c, ep, func(s zone.Serial) bool { return s == zone.Serial(n) })
				if kind := <-kinds; kind != IXFR {
					t.Errorf("to %d by %s", n, kind)
				}
				// NSD's old process may still answer for a moment.
				var sink *memSink
				for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) { // polls a named condition
					sink = new(memSink)
					r, err := c.Transfer(t.Context(), ep, exampleName, nil, sink)
					if err == nil && r.Serial == zone.Serial(n) {
						break
					}
					if time.Now().After(deadline) {
						t.Fatalf("%+v, %v", r, err)
					}
				}
				lower := func(lines []string) []string {
					out := make([]string, len(lines))
					for i, l := range lines {
						out[i] = strings.ToLower(l) // NSD does not keep case
					}
					return sorted(out)
				}
				if d := cmp.Diff(lower(recordsOf(t, view.items...)), lower(sink.records())); d != "" {
					t.Errorf("at %d: %s", n, d)
				}
			}
		})
	}
}

func TestKdig_FetchesOverTLS(t *testing.T) {
	if testing.Short() {
		t.Skip("starts another program")
	}
	path, err := exec.LookPath("kdig")
	if err != nil {
		t.Skip("kdig is not installed")
	}
	dir := t.TempDir()
	pin, _ := newCertificate(t, dir, "ns1.example")
	addr, _ := startTLS(t, Config{Source: memSource{exampleName: exampleView(t, 7)}}, loadCertificate(t, dir))
	_, port, _ := net.SplitHostPort(addr)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "@127.0.0.1", "-p", port, "+tls", "+tls-pin="+strings.TrimPrefix(pin, pinScheme), "AXFR", "example.").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "as it came") {
		t.Errorf("%v\n%s", err, out)
	}
}
