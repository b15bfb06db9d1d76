package chain

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/miekg/dns"

	"sluice/signer/zone"
)

// A machine whose IPv6 leads nowhere goes on with IPv4, asks no further addresses
// of IPv6 once it is clear, and takes none of them for a fault.
func TestCheck_AFamilyThatLeadsNowhereIsNoFault(t *testing.T) {
	tr := newTree(t)
	for i, z := range []*testZone{tr.parent, tr.zone} {
		above := []*testZone{tr.root, tr.parent}[i]
		for n := range 2 {
			for _, in := range []*testZone{z, above} {
				in.add(fmt.Sprintf("ns%d.%s 3600 IN AAAA 2001:db8::%d:%d", n+1, z.apex, i+1, n))
			}
		}
	}
	tr.start()
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Skip(err)
	}
	defer silent.Close()
	cfg := tr.config()
	for n := range silentEnough {
		cfg.Roots = append(cfg.Roots, netip.AddrPortFrom(netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", n+1)), tr.rootAt.addr.Port()))
	}
	var below atomic.Int64 // times that an address behind the root was asked
	cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		var d net.Dialer
		if strings.HasPrefix(address, "[") {
			if strings.HasPrefix(address, "[2001:db8::1:") || strings.HasPrefix(address, "[2001:db8::2:") {
				below.Add(1)
			}
			address = silent.LocalAddr().String()
		}
		return d.DialContext(ctx, network, address)
	}
	r, err := Check(t.Context(), cfg, "\x03www\x04zone\x07example\x00", nil)
	if err != nil || r.Verdict != Secure || !r.Healthy {
		t.Fatalf("%v %s %v", err, r.Summary, told(r))
	}
	f := fault{code: CodeServerUnreachable, severity: Info, text: "nothing answers it over IPv6"}
	f.seek(t, r)
	if n := below.Load(); n != 0 {
		t.Errorf("addresses of IPv6 were asked %d times more", n)
	}
}

// A zone whose servers have IPv6 alone is not there for a machine without it: that
// is said, and what to do.
func TestCheck_ServersOfIPv6AloneAreOutOfReach(t *testing.T) {
	tr := newTree(t)
	for n := range 2 {
		ns := fmt.Sprintf("ns%d.zone.example.", n+1)
		tr.parent.drop(ns, dns.TypeA)
		tr.parent.add(fmt.Sprintf("%s 3600 IN AAAA 2001:db8::%d", ns, n+1))
	}
	tr.start()
	cfg := tr.config()
	cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		if strings.HasPrefix(address, "[") {
			return nil, &net.OpError{Op: "dial", Err: syscall.ENETUNREACH}
		}
		var d net.Dialer
		return d.DialContext(ctx, network, address)
	}
	r, err := Check(t.Context(), cfg, "\x03www\x04zone\x07example\x00", nil)
	if err != nil || r.Verdict != Unreachable || r.Healthy {
		t.Fatalf("%v: %s: %s", err, r.Verdict, r.Summary)
	}
	if !strings.Contains(r.Summary, "no server of zone.example. could be asked: ns1.zone.example. (2001:db8::1)") || r.Do != noWayThere {
		t.Errorf("%s; to do: %s", r.Summary, r.Do)
	}
}

// Where TCP is shut on the way, larger answers are asked for over UDP.
func TestCheck_WithoutTCPItGoesOn(t *testing.T) {
	tr := newTree(t)
	for _, s := range append(tr.parentAt, tr.zoneAt...) {
		s.twist = func(r, m *dns.Msg, tcp bool) *dns.Msg {
			if tcp {
				return nil
			}
			m.Truncated = r.IsEdns0() == nil || r.IsEdns0().UDPSize() <= udpSize
			return m
		}
	}
	r := tr.check("www.zone.example.")
	if r.Verdict != Secure {
		t.Errorf("%s: %s", r.Verdict, r.Summary)
	}
	f := fault{code: CodeServerTCP, severity: Fault, text: "does not answer over TCP"}
	f.seek(t, r)
}

// Where something on the way answers in the servers' place, it is said what can be
// done at this machine.
func TestCheck_AResolverInThePlaceOfTheRootIsTold(t *testing.T) {
	tr := newTree(t)
	tr.rootAt.twist = func(_, m *dns.Msg, _ bool) *dns.Msg {
		m.Answer, m.Ns, m.Extra = nil, nil, nil
		m.Rcode, m.Authoritative, m.RecursionAvailable = dns.RcodeNameError, false, true
		return m
	}
	r := tr.check("www.zone.example.")
	if r.Verdict != Unreachable || !strings.Contains(r.Summary, "answers as a resolver does") || !strings.Contains(r.Do, "--resolver") {
		t.Errorf("%s: %s; %s", r.Verdict, r.Summary, r.Do)
	}
}

// What an unsigned alias leads to is not validated: the alias may be forged.
func TestRecords_BehindAnInsecureAliasAreNotSecure(t *testing.T) {
	tr := newTree(t)
	tr.zone.unsigned = true
	tr.zone.add("away.zone.example. 60 IN CNAME ns1.example.")
	r := tr.check("away.zone.example.", zone.TypeA)
	owner, data, secure := r.Records(zone.TypeA)
	if owner.String() != "ns1.example." || len(data) != 1 || secure || r.Verdict != Insecure {
		t.Errorf("%s %x secure %v, %s", owner, data, secure, r.Verdict)
	}
}
