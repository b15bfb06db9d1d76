package observe

import (
	"context"
	"crypto"
	"encoding/base32"
	"errors"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"sluice/signer/zone"
)

// now is when all tests take place.
var now = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)

// fakeZone is a zone of the fake world, signed by one key.
type fakeZone struct {
	t       testing.TB
	apex    string
	records []dns.RR
	key     *dns.DNSKEY
	signer  crypto.Signer
	nsec3   bool // deny by NSEC3 with opt-out
	expired bool // signatures are no more valid
}

func newZone(t testing.TB, apex string, lines ...string) *fakeZone {
	t.Helper()
	key := &dns.DNSKEY{
		Hdr:   dns.RR_Header{Name: apex, Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 3600},
		Flags: 257, Protocol: 3, Algorithm: dns.ECDSAP256SHA256,
	}
	private, err := key.Generate(256)
	if err != nil {
		t.Fatal(err)
	}
	z := &fakeZone{t: t, apex: apex, key: key, signer: private.(crypto.Signer)}
	z.add(apex + " 3600 IN SOA ns." + strings.TrimPrefix(apex, ".") + " h. 7 3600 600 86400 300")
	z.add(lines...)
	z.records = append(z.records, key)
	return z
}

func (z *fakeZone) add(lines ...string) {
	z.t.Helper()
	for _, line := range lines {
		rr, err := dns.NewRR(line)
		if err != nil {
			z.t.Fatalf("%s: %v", line, err)
		}
		z.records = append(z.records, rr)
	}
}

// ds is the DS record of the zone's key.
func (z *fakeZone) ds() string { return z.key.ToDS(dns.SHA256).String() }

func (z *fakeZone) find(name string, t uint16) []dns.RR {
	var out []dns.RR
	for _, rr := range z.records {
		if rr.Header().Rrtype == t && strings.EqualFold(rr.Header().Name, name) {
			out = append(out, rr)
		}
	}
	return out
}

// sign adds a signature to a set.
func (z *fakeZone) sign(set []dns.RR) []dns.RR {
	if len(set) == 0 {
		return nil
	}
	sig := &dns.RRSIG{
		Inception: uint32(now.Add(-time.Hour).Unix()), Expiration: uint32(now.Add(30 * 24 * time.Hour).Unix()),
		KeyTag: z.key.KeyTag(), SignerName: z.apex, Algorithm: z.key.Algorithm,
	}
	if z.expired {
		sig.Expiration = uint32(now.Add(-time.Minute).Unix())
	}
	if err := sig.Sign(z.signer, set); err != nil {
		z.t.Error(err)
	}
	return append(slices.Clone(set), sig)
}

// deny proves that a name has no records of a type: by an NSEC that matches or
// covers, or by NSEC3 with opt-out.
func (z *fakeZone) deny(name string) []dns.RR {
	types := []uint16{}
	for _, rr := range z.records {
		if strings.EqualFold(rr.Header().Name, name) && !slices.Contains(types, rr.Header().Rrtype) {
			types = append(types, rr.Header().Rrtype)
		}
	}
	out := z.sign(z.find(z.apex, dns.TypeSOA))
	if z.nsec3 {
		return append(out, z.denyNSEC3(name)...)
	}
	owner, next := name, z.apex
	if len(types) == 0 {
		owner = z.apex
		types = append(types, dns.TypeSOA, dns.TypeNS, dns.TypeDNSKEY)
	}
	types = append(types, dns.TypeRRSIG, dns.TypeNSEC)
	slices.Sort(types)
	return append(out, z.sign([]dns.RR{&dns.NSEC{
		Hdr:        dns.RR_Header{Name: owner, Rrtype: dns.TypeNSEC, Class: dns.ClassINET, Ttl: 300},
		NextDomain: next, TypeBitMap: types,
	}})...)
}

// denyNSEC3 is the proof of RFC 5155, 8.6: the closest encloser is the apex,
// and the next closer name lies in an opt-out span.
func (z *fakeZone) denyNSEC3(name string) []dns.RR {
	record := func(owner, next string, types ...uint16) []dns.RR {
		return z.sign([]dns.RR{&dns.NSEC3{
			Hdr:  dns.RR_Header{Name: owner + "." + strings.TrimPrefix(z.apex, "."), Rrtype: dns.TypeNSEC3, Class: dns.ClassINET, Ttl: 300},
			Hash: dns.SHA1, Flags: 1, HashLength: 20, NextDomain: next, TypeBitMap: types,
		}})
	}
	at := dns.HashName(name, dns.SHA1, 0, "")
	apex := dns.HashName(z.apex, dns.SHA1, 0, "")
	lo, hi := shift(at, -1), shift(at, 1)
	return append(record(apex, shift(apex, 1), dns.TypeSOA, dns.TypeNS, dns.TypeDNSKEY), record(lo, hi)...)
}

// shift is the hash so far from another.
func shift(hash string, by int64) string {
	enc := base32.HexEncoding.WithPadding(base32.NoPadding)
	sum, err := enc.DecodeString(hash)
	if err != nil {
		panic(err)
	}
	n := new(big.Int).Add(new(big.Int).SetBytes(sum), big.NewInt(by))
	return enc.EncodeToString(n.FillBytes(sum))
}

// fakeServer answers for zones; a resolver for all of them, recursing.
type fakeServer struct {
	zones   []*fakeZone
	recurse bool
	twist   func(m *dns.Msg) *dns.Msg // nil: no answer at all
	asked   int
	tcp     bool // how the last one was asked
	onAsk   func()
	world   *world // its lock guards all of the world
}

// zoneFor is the zone that answers a question: a DS is asked of the parent.
func (s *fakeServer) zoneFor(q dns.Question) *fakeZone {
	var best *fakeZone
	for _, z := range s.zones {
		if !dns.IsSubDomain(z.apex, q.Name) || q.Qtype == dns.TypeDS && strings.EqualFold(q.Name, z.apex) && q.Name != "." {
			continue
		}
		if best == nil || len(z.apex) > len(best.apex) {
			best = z
		}
	}
	return best
}

// ServeDNS implements dns.Handler.
func (s *fakeServer) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	s.asked++
	_, s.tcp = w.RemoteAddr().(*net.TCPAddr)
	if s.onAsk != nil {
		s.onAsk()
	}
	m := new(dns.Msg)
	m.SetReply(r)
	m.Authoritative, m.RecursionAvailable = !s.recurse, s.recurse
	q := r.Question[0]
	z := s.zoneFor(q)
	if z == nil {
		m.Rcode = dns.RcodeRefused
	} else if set := z.find(q.Name, q.Qtype); len(set) > 0 {
		m.Answer = z.sign(set)
	} else {
		m.Ns = z.deny(q.Name)
	}
	if s.twist != nil {
		if m = s.twist(m); m == nil {
			return
		}
	}
	_ = w.WriteMsg(m) // who asked may be gone
}

// world is servers by the address under which they are asked.
type world struct {
	t  testing.TB
	mu sync.Mutex // held while a server answers
	at map[string]string
}

// change changes the world while nobody answers.
func (w *world) change(fn func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fn()
}

func newWorld(t testing.TB) *world { return &world{t: t, at: map[string]string{}} }

// serve starts a server over UDP and TCP under an address of the world.
func (w *world) serve(address string, s *fakeServer) {
	w.t.Helper()
	s.world = w
	host := "127.0.0.1"
	if strings.HasPrefix(address, "[") {
		host = "::1"
	}
	l, p := bothPorts(w.t, host)
	for _, server := range []*dns.Server{{Listener: l, Handler: s}, {PacketConn: p, Handler: s}} {
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		done := make(chan error, 1)
		go func() { done <- server.ActivateAndServe() }()
		<-started
		w.t.Cleanup(func() {
			if err := errors.Join(server.Shutdown(), <-done); err != nil {
				w.t.Error(err)
			}
		})
	}
	w.at[address] = l.Addr().String()
}

func (w *world) dial(ctx context.Context, network, address string) (net.Conn, error) {
	to, ok := w.at[address]
	if !ok {
		return nil, errors.New("connection refused")
	}
	var d net.Dialer
	return d.DialContext(ctx, network, to)
}

// observer asks in the world, with its own root as the anchor.
func (w *world) observer(anchors ...string) *Observer {
	w.t.Helper()
	list := []Anchor{}
	for _, text := range anchors {
		a, err := ParseAnchor(text)
		if err != nil {
			w.t.Fatal(err)
		}
		list = append(list, a)
	}
	return New(Config{
		Resolvers: func() ([]netip.AddrPort, error) {
			return []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53")}, nil
		},
		Anchors: list, Timeout: 2 * time.Second, Dial: w.dial,
	})
}

// tree is a root, a parent and a zone, each signed, with a resolver and two
// servers of the parent.
type tree struct {
	*world
	root, parent, child *fakeZone
	resolver, p1, p2    *fakeServer
}

func newTree(t testing.TB) *tree {
	w := newWorld(t)
	tr := &tree{world: w}
	tr.child = newZone(t, "child.example.", "child.example. 3600 IN NS ns1.child.example.", "child.example. 600 IN MX 1 mx.child.example.")
	tr.parent = newZone(t, "example.",
		"example. 3600 IN NS ns1.example.", "example. 3600 IN NS ns2.example.",
		"ns1.example. 3600 IN A 192.0.2.1", "ns2.example. 3600 IN A 192.0.2.2",
		"child.example. 3600 IN NS ns1.child.example.")
	tr.parent.add(tr.child.ds())
	tr.root = newZone(t, ".", ". 3600 IN NS ns.", "example. 3600 IN NS ns1.example.")
	tr.root.add(tr.parent.ds())
	tr.resolver = &fakeServer{zones: []*fakeZone{tr.root, tr.parent, tr.child}, recurse: true}
	tr.p1, tr.p2 = &fakeServer{zones: []*fakeZone{tr.parent}}, &fakeServer{zones: []*fakeZone{tr.parent}}
	w.serve("192.0.2.53:53", tr.resolver)
	w.serve("192.0.2.1:53", tr.p1)
	w.serve("192.0.2.2:53", tr.p2)
	return tr
}

func parse(t testing.TB, name string) zone.Name {
	t.Helper()
	n, err := zone.ParseName(name)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// bothPorts listens on one free port for TCP and UDP.
func bothPorts(t testing.TB, host string) (net.Listener, net.PacketConn) {
	t.Helper()
	for range 50 {
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			t.Skip("no listener: ", err)
		}
		u, err := net.ListenPacket("udp", l.Addr().String())
		if err == nil {
			return l, u
		}
		_ = l.Close() // the port is another's for UDP
	}
	t.Fatal("no port is free for TCP and UDP")
	return nil, nil
}
