package chain

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"sluice/pipeline/observe"
	"sluice/signer/zone"
)

// testServer serves zones at an address.
type testServer struct {
	addr  netip.AddrPort
	zones []*testZone
	// twist changes an answer; nil: no answer at all.
	twist func(r, m *dns.Msg, tcp bool) *dns.Msg

	mu    sync.Mutex
	asked int // guarded by mu
}

// ServeDNS implements dns.Handler.
func (s *testServer) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	s.mu.Lock() // what the test has set before is seen
	s.asked++
	s.mu.Unlock()
	_, tcp := w.RemoteAddr().(*net.TCPAddr)
	m := new(dns.Msg)
	m.SetReply(r)
	q := r.Question[0]
	var best *testZone
	for _, z := range s.zones {
		if dns.IsSubDomain(z.apex, q.Name) && (q.Qtype != dns.TypeDS || !strings.EqualFold(z.apex, q.Name) || z.apex == ".") && (best == nil || len(z.apex) > len(best.apex)) {
			best = z
		}
	}
	if opt := r.IsEdns0(); opt != nil {
		m.SetEdns0(1232, opt.Do())
	}
	if best == nil {
		m.Rcode = dns.RcodeRefused
	} else {
		best.answer(m, q)
	}
	if s.twist != nil {
		if m = s.twist(r, m, tcp); m == nil {
			return
		}
	}
	if !tcp && m.Len() > 1232 {
		m.Truncate(1232)
	}
	_ = w.WriteMsg(m) // who asked may be gone
}

// lastHost numbers the addresses of all servers of this test run.
var lastHost atomic.Uint32

// start starts a server on an address of its own; port 0 is any.
func (s *testServer) start(t testing.TB, port uint16) {
	t.Helper()
	if s.addr.IsValid() {
		port = s.addr.Port()
	}
	for range 50 {
		n := lastHost.Add(1)
		host := fmt.Sprintf("127.53.%d.%d", n>>8&255, n&255)
		if s.addr.IsValid() {
			host = s.addr.Addr().String()
		}
		l, err := net.Listen("tcp", net.JoinHostPort(host, fmt.Sprint(port)))
		if err != nil {
			t.Skip("no listener: ", err)
		}
		p, err := net.ListenPacket("udp", l.Addr().String())
		if err != nil {
			_ = l.Close()
			continue
		}
		s.addr = netip.MustParseAddrPort(l.Addr().String())
		serve(t, &dns.Server{Listener: l, Handler: s})
		serve(t, &dns.Server{PacketConn: p, Handler: s})
		return
	}
	t.Fatal("no port is free for TCP and UDP")
}

func serve(t testing.TB, server *dns.Server) {
	t.Helper()
	started, done := make(chan struct{}), make(chan error, 1)
	server.NotifyStartedFunc = func() { close(started) }
	go func() { done <- server.ActivateAndServe() }()
	<-started
	t.Cleanup(func() {
		if err := errors.Join(server.Shutdown(), <-done); err != nil {
			t.Error(err)
		}
	})
}

// tree is a root, a parent and a zone below it, each on servers of its own.
type tree struct {
	t                  testing.TB
	root, parent, zone *testZone
	extra              []*testZone // on the zone's servers too
	rootAt             *testServer
	parentAt, zoneAt   []*testServer
	anchors            []string
	started            bool
}

// newTree makes one with two servers each of parent and zone. Nothing is signed
// yet: a test may spoil it before start.
func newTree(t testing.TB) *tree {
	t.Helper()
	tr := &tree{t: t, rootAt: &testServer{}}
	tr.rootAt.start(t, 0)
	port := tr.rootAt.addr.Port()
	glue := func(z, other *testZone, servers *[]*testServer) {
		for i := range 2 {
			s := &testServer{}
			s.start(t, port)
			*servers = append(*servers, s)
			ns := fmt.Sprintf("ns%d.%s", i+1, z.apex)
			for _, in := range []*testZone{z, other} {
				in.add(fmt.Sprintf("%s 3600 IN NS %s", z.apex, ns), fmt.Sprintf("%s 3600 IN A %s", ns, s.addr.Addr()))
			}
		}
	}
	tr.root = newZone(t, ".", ". 3600 IN NS ns.")
	tr.root.add("ns. 3600 IN A " + tr.rootAt.addr.Addr().String())
	tr.parent = newZone(t, "example.")
	tr.zone = newZone(t, "zone.example.",
		"www.zone.example. 600 IN A 192.0.2.80", "www.zone.example. 600 IN AAAA 2001:db8::80",
		"alias.zone.example. 600 IN CNAME www.zone.example.", "*.wild.zone.example. 600 IN TXT \"from a wildcard\"",
		"deep.empty.zone.example. 600 IN A 192.0.2.81")
	glue(tr.parent, tr.root, &tr.parentAt)
	glue(tr.zone, tr.parent, &tr.zoneAt)
	return tr
}

// start signs and serves all.
func (tr *tree) start() {
	tr.t.Helper()
	if tr.started {
		return
	}
	tr.started = true
	if !tr.zone.unsigned && len(tr.parent.find("zone.example.", dns.TypeDS)) == 0 {
		tr.parent.add(tr.zone.ds())
	}
	if !tr.parent.unsigned && len(tr.root.find("example.", dns.TypeDS)) == 0 {
		tr.root.add(tr.parent.ds())
	}
	for _, z := range slices.Concat([]*testZone{tr.root, tr.parent, tr.zone}, tr.extra) {
		if z.sets == nil {
			z.build()
		}
	}
	give := func(s *testServer, zones ...*testZone) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.zones = append(s.zones, zones...)
	}
	give(tr.rootAt, tr.root)
	for _, s := range tr.parentAt {
		give(s, tr.parent)
	}
	for _, s := range tr.zoneAt {
		if s.zones == nil {
			give(s, tr.zone)
		}
		give(s, tr.extra...)
	}
	if tr.anchors == nil {
		tr.anchors = []string{tr.root.ds()}
	}
}

func (z *testZone) find(name string, t uint16) (out []dns.RR) {
	for _, rr := range z.plain {
		if rr.Header().Name == name && rr.Header().Rrtype == t {
			out = append(out, rr)
		}
	}
	return out
}

// other is the zone with other contents, for one of its servers.
func (z *testZone) other(change func(*testZone)) *testZone {
	out := *z
	out.plain, out.keys, out.sets = slices.Clone(z.plain), slices.Clone(z.keys), nil
	change(&out)
	out.build()
	return &out
}

func (tr *tree) config() Config {
	tr.t.Helper()
	for _, s := range slices.Concat([]*testServer{tr.rootAt}, tr.parentAt, tr.zoneAt) {
		s.mu.Lock() // what was changed up to now is seen by who answers
		s.asked = 0
		s.mu.Unlock()
	}
	cfg := Config{Now: time.Now(), Timeout: 300 * time.Millisecond, Roots: []netip.AddrPort{tr.rootAt.addr}}
	for _, text := range tr.anchors {
		a, err := observe.ParseAnchor(text)
		if err != nil {
			tr.t.Fatal(err)
		}
		cfg.Anchors = append(cfg.Anchors, a)
	}
	return cfg
}

// check checks a name in the tree.
func (tr *tree) check(name string, types ...zone.Type) *Report {
	tr.t.Helper()
	tr.start()
	n, err := zone.ParseName(name)
	if err != nil {
		tr.t.Fatal(err)
	}
	r, err := Check(tr.t.Context(), tr.config(), n, types)
	if err != nil {
		tr.t.Fatal(err)
	}
	return r
}

// told is a report in short: verdict, then severity and code of each finding.
func told(r *Report) (out []string) {
	for _, l := range r.Links {
		for _, f := range l.Findings {
			out = append(out, fmt.Sprintf("%s %s", f.Severity, f.Code))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
