package cli

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"sluice/signer/zone"
)

// public is a small internet: a resolver and the servers of one zone, all on
// one port of different loopback addresses.
type public struct {
	port uint16
	// servers says what the server at each address does: its serial, or -1
	// for one that refuses, -2 for one that is silent.
	servers map[string]int64
	names   map[string]string // address by server name
}

func (p *public) start(t *testing.T) floorFinder {
	t.Helper()
	resolver := listenUDP(t, "127.0.0.1:0")
	p.port = resolver.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	go p.answer(resolver, -3)
	for address, does := range p.servers {
		go p.answer(listenUDP(t, netip.AddrPortFrom(netip.MustParseAddr(address), p.port).String()), does)
	}
	return floorFinder{
		resolver: &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "udp", resolver.LocalAddr().String())
		}},
		port: p.port, timeout: 200 * time.Millisecond,
	}
}

func listenUDP(t *testing.T, address string) net.PacketConn {
	t.Helper()
	c, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Skipf("listen: %v", err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// answer serves one address until it is closed.
func (p *public) answer(c net.PacketConn, does int64) {
	buf := make([]byte, 1500)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(buf[:n]) != nil || does == -2 {
			continue
		}
		m.Response, m.Authoritative, m.Additionals = true, true, nil
		q := m.Questions[0]
		h := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60}
		switch {
		case does == -1:
			m.RCode = dnsmessage.RCodeRefused
		case q.Type == dnsmessage.TypeSOA:
			m.Answers = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.SOAResource{NS: q.Name, MBox: q.Name, Serial: uint32(does)}}}
		case q.Type == dnsmessage.TypeNS:
			for name := range p.names {
				m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.NSResource{NS: dnsmessage.MustNewName(name)}})
			}
		case q.Type == dnsmessage.TypeA:
			if a, ok := p.names[q.Name.String()]; ok {
				m.Answers = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.AResource{A: netip.MustParseAddr(a).As4()}}}
			}
		}
		if out, err := m.Pack(); err == nil {
			_, _ = c.WriteTo(out, from) // the asker may be gone
		}
	}
}

func TestFloorFinder_HighestOfAllServers(t *testing.T) {
	two := map[string]string{"ns1.example.": "127.0.0.2", "ns2.example.": "127.0.0.3"}
	for _, test := range []struct {
		name    string
		servers map[string]int64
		want    uint32
		fault   string
	}{
		{"both answer", map[string]int64{"127.0.0.2": 41, "127.0.0.3": 42}, 42, ""},
		{"around the end of the numbers", map[string]int64{"127.0.0.2": 4294967290, "127.0.0.3": 5}, 5, ""},
		{"serials without an order", map[string]int64{"127.0.0.2": 0, "127.0.0.3": 2147483648}, 0, "cannot be compared"},
		{"one refuses", map[string]int64{"127.0.0.2": 41, "127.0.0.3": -1}, 0, "does not serve the zone"},
		{"one is silent", map[string]int64{"127.0.0.2": 41, "127.0.0.3": -2}, 0, "timeout"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := &public{servers: test.servers, names: two}
			got, err := p.start(t).find(t.Context(), zone.Name("\x07example\x00"))
			if test.fault != "" {
				if err == nil || !strings.Contains(err.Error(), test.fault) {
					t.Errorf("serial %d, error %v, want one with %q", got, err, test.fault)
				}
				return
			}
			if err != nil || got != test.want {
				t.Errorf("serial %d, error %v, want %d", got, err, test.want)
			}
		})
	}
}

func TestFloorFinder_ZoneWithoutServersIsAnError(t *testing.T) {
	p := &public{}
	if got, err := p.start(t).find(t.Context(), zone.Name("\x07example\x00")); err == nil {
		t.Errorf("serial %d", got)
	}
}
