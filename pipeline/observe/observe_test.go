package observe

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"sluice/keymgr"
	"sluice/signer/zone"
)

func addrs(texts ...string) (out []netip.AddrPort) {
	for _, text := range texts {
		out = append(out, netip.MustParseAddrPort(text))
	}
	return out
}

// zoneLines are what the zone's servers show, in a few words.
func zoneLines(seen []keymgr.Seen) string {
	var lines []string
	for _, s := range seen {
		line := s.Server
		if s.Error != "" {
			lines = append(lines, line+" error "+s.Error)
			continue
		}
		line += fmt.Sprintf(" serial %d keys %d ttl %d", s.Serial, len(s.Keys), s.KeyTTL)
		for _, sig := range s.Signed {
			line += " " + sig.Type
			if sig.Key == "" {
				line += "(bad)"
			}
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "; ")
}

func TestObserve_ServersOfTheZone(t *testing.T) {
	const good = "serial 7 keys 1 ttl 3600 DNSKEY SOA MX"
	for _, tt := range []struct {
		fact  string
		twist func(child *fakeZone, s *fakeServer)
		want  string
	}{
		{"all is well", func(*fakeZone, *fakeServer) {}, good},
		{"a lame server", func(_ *fakeZone, s *fakeServer) {
			s.twist = func(m *dns.Msg) *dns.Msg { m.Authoritative = false; return m }
		}, "error SOA: not authoritative"},
		{"one that refuses", func(_ *fakeZone, s *fakeServer) { s.zones = nil }, "error SOA: the server answered REFUSED"},
		{"one that truncates over TCP", func(_ *fakeZone, s *fakeServer) {
			s.twist = func(m *dns.Msg) *dns.Msg { m.Truncated = true; return m }
		}, "error SOA: truncated answer over TCP"},
		{"one that never answers", func(_ *fakeZone, s *fakeServer) {
			s.twist = func(*dns.Msg) *dns.Msg { return nil }
		}, "error SOA: no answer in time"},
		{"one that answers another question", func(_ *fakeZone, s *fakeServer) {
			s.twist = func(m *dns.Msg) *dns.Msg { m.Question[0].Qtype = dns.TypeA; return m }
		}, "error SOA: the answer does not belong to the question"},
		{"one with very many records", func(_ *fakeZone, s *fakeServer) {
			s.twist = func(m *dns.Msg) *dns.Msg {
				for range 1000 {
					m.Answer = append(m.Answer, m.Answer[0])
				}
				m.Compress = true
				return m
			}
		}, "error SOA: 1002 records in a section, more than 512"},
		{"one with another DNSKEY", func(child *fakeZone, s *fakeServer) {
			other := newZone(child.t, child.apex)
			s.twist = func(m *dns.Msg) *dns.Msg {
				if m.Question[0].Qtype == dns.TypeDNSKEY {
					m.Answer = other.sign([]dns.RR{other.key})
				}
				return m
			}
		}, "serial 7 keys 1 ttl 3600 DNSKEY SOA(bad) MX(bad)"},
		{"one with expired signatures", func(child *fakeZone, _ *fakeServer) { child.expired = true }, "serial 7 keys 1 ttl 3600 DNSKEY(bad) SOA(bad) MX(bad)"},
		{"one that is behind", func(child *fakeZone, s *fakeServer) {
			s.twist = func(m *dns.Msg) *dns.Msg {
				for _, rr := range m.Answer {
					if soa, ok := rr.(*dns.SOA); ok {
						late := *soa
						late.Serial = 6
						m.Answer = child.sign([]dns.RR{&late})
					}
				}
				return m
			}
		}, "serial 6 keys 1 ttl 3600 DNSKEY SOA MX"},
	} {
		t.Run(tt.fact, func(t *testing.T) {
			tr := newTree(t)
			bad := &fakeServer{zones: []*fakeZone{tr.child}}
			tr.change(func() { tt.twist(tr.child, bad) })
			tr.serve("192.0.2.11:53", bad)
			o := tr.observer(tr.root.ds())
			o.cfg.Timeout = 500 * time.Millisecond
			obs := o.Observe(t.Context(), Question{
				Zone: parse(t, "Child.Example."), Now: now, SkipParent: true,
				Servers: []Server{{Name: "ns1.child.example.", Addresses: addrs("192.0.2.11:53")}},
				Samples: []Sample{{parse(t, "child.example."), zone.TypeMX}},
			})
			if got, want := zoneLines(obs.Zone), "ns1.child.example. "+tt.want; got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			if len(obs.Parent) != 0 {
				t.Errorf("the parent was asked: %v", obs.Parent)
			}
		})
	}
}

func TestObserve_EveryAddressOfEveryServerIsAsked(t *testing.T) {
	tr := newTree(t)
	tr.change(func() {
		tr.parent.add("ns9.example. 3600 IN A 192.0.2.11", "ns9.example. 3600 IN AAAA 2001:db8::11")
	})
	tr.serve("192.0.2.11:53", &fakeServer{zones: []*fakeZone{tr.child}})
	tr.serve("[2001:db8::11]:53", &fakeServer{zones: []*fakeZone{tr.child}})
	obs := tr.observer().Observe(t.Context(), Question{
		Zone: parse(t, "child.example."), Now: now, SkipParent: true,
		Servers: []Server{{Name: "ns9.example."}, {Name: "none.example."}, {Name: "gone.example.", Addresses: addrs("192.0.2.99:53")}},
	})
	const good = "serial 7 keys 1 ttl 3600 DNSKEY SOA"
	want := "gone.example. error connection refused; none.example. error it has no address; ns9.example. " + good + "; ns9.example. " + good
	if got := zoneLines(obs.Zone); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := []netip.AddrPort{obs.Zone[2].Address, obs.Zone[3].Address}; got[0] != addrs("192.0.2.11:53")[0] || got[1] != addrs("[2001:db8::11]:53")[0] {
		t.Errorf("asked at %v", got)
	}
}

func TestObserve_AnAddressFamilyThatIsNotHereDoesNotCount(t *testing.T) {
	tr := newTree(t)
	tr.change(func() {
		tr.parent.add("ns9.example. 3600 IN A 192.0.2.11", "ns9.example. 3600 IN AAAA 2001:db8::11", "ns8.example. 3600 IN AAAA 2001:db8::8")
	})
	tr.serve("192.0.2.11:53", &fakeServer{zones: []*fakeZone{tr.child}})
	o := tr.observer()
	o.cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		if strings.HasPrefix(address, "[") {
			return nil, &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ENETUNREACH)}
		}
		return tr.dial(ctx, network, address)
	}
	obs := o.Observe(t.Context(), Question{
		Zone: parse(t, "child.example."), Now: now, SkipParent: true, Servers: []Server{{Name: "ns8.example."}, {Name: "ns9.example."}},
	})
	const want = "ns8.example. error connect: network is unreachable; ns9.example. serial 7 keys 1 ttl 3600 DNSKEY SOA"
	if got := zoneLines(obs.Zone); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestObserve_ASilentServerIsNotAskedByEveryZone(t *testing.T) {
	tr := newTree(t)
	dead := &fakeServer{twist: func(*dns.Msg) *dns.Msg { return nil }}
	tr.serve("192.0.2.11:53", dead)
	o := tr.observer()
	o.cfg.Timeout = 200 * time.Millisecond
	q := Question{Zone: parse(t, "child.example."), Now: now, SkipParent: true, Servers: At(addrs("192.0.2.11:53"))}
	ask := func(at time.Time, fresh bool) string {
		q.Now, q.Fresh = at, fresh
		return zoneLines(o.Observe(t.Context(), q).Zone)
	}
	asked := func() (n int) {
		tr.change(func() { n = dead.asked })
		return n
	}
	ask(now, false)
	if got := ask(now.Add(10*time.Second), false); got != "192.0.2.11:53 error SOA: no answer in time; it is asked again in 20s" || asked() != 1 {
		t.Errorf("asked %d times: %s", asked(), got)
	}
	if ask(now.Add(10*time.Second), true); asked() != 2 {
		t.Errorf("not asked afresh: %d times", asked())
	}
	tr.change(func() { dead.zones, dead.twist = []*fakeZone{tr.child}, nil })
	if got := ask(now.Add(time.Hour), false); !strings.Contains(got, "serial 7") {
		t.Errorf("not asked after the pause: %s", got)
	}
}

// Many zones share a server that is dead. It takes the time of those alone that
// were asking when it was first found so.
func TestObserve_ADeadServerOfManyZonesHoldsUpFew(t *testing.T) {
	const zones, places = 300, 16
	tr := newTree(t)
	dead := &fakeServer{twist: func(*dns.Msg) *dns.Msg { return nil }}
	tr.serve("192.0.2.11:53", dead)
	tr.serve("192.0.2.12:53", &fakeServer{zones: []*fakeZone{tr.child}})
	o := tr.observer()
	o.slots, o.cfg.Servers, o.cfg.Timeout = make(chan struct{}, places), places, time.Second
	q := Question{Zone: parse(t, "child.example."), Now: now, SkipParent: true, Servers: At(addrs("192.0.2.11:53", "192.0.2.12:53"))}
	var work sync.WaitGroup
	for range zones {
		work.Go(func() {
			got := zoneLines(o.Observe(t.Context(), q).Zone)
			if !strings.Contains(got, "192.0.2.11:53 error") || !strings.Contains(got, "192.0.2.12:53 serial 7") {
				t.Error(got)
			}
		})
	}
	work.Wait()
	if dead.asked > places/4 {
		t.Errorf("the dead server was asked %d times", dead.asked)
	}
	if s := o.dead[addrs("192.0.2.11:53")[0]]; s.pause != firstPause {
		t.Errorf("is passed over for %s, want %s: it was found dead once", s.pause, firstPause)
	}
	if len(o.visits) != 0 {
		t.Errorf("visits to %d servers are remembered", len(o.visits))
	}
	// When it is tried again, one zone does, and the others do not wait.
	before := dead.asked
	q.Now = now.Add(firstPause)
	for range zones {
		work.Go(func() { o.Observe(t.Context(), q) })
	}
	work.Wait()
	if dead.asked != before+1 {
		t.Errorf("the dead server was tried %d times", dead.asked-before)
	}
}

func TestParseAnchor(t *testing.T) {
	if n := len(RootAnchors()); n != 2 {
		t.Errorf("%d anchors of the root", n)
	}
	for text, want := range map[string]string{
		"example. IN A 192.0.2.1":              "want a DS or DNSKEY record",
		"nonsense":                             "want a DS or DNSKEY record",
		"":                                     "want a DS or DNSKEY record",
		"example. IN DS 1 5 2 AABB":            "is not supported",
		"example. IN DNSKEY 0 3 13 AAAA":       "no zone key",
		"example. IN DNSKEY 257 3 5 AwEAAaABC": "",
	} {
		if _, err := ParseAnchor(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
