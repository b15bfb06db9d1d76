package xfr

import (
	"context"
	"net"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// startServer runs a server on a free port of the loopback until the test
// ends and returns its address.
func startServer(tb testing.TB, cfg Config) (addr string, s *Server) {
	tb.Helper()
	s, err := NewServer(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	ap, err := s.Listen(tb.Context(), "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Errorf("Run: %v", err)
		}
		if n := s.Stats().OpenConns; n != 0 {
			tb.Errorf("%d connections open after the end", n)
		}
	})
	return ap.String(), s
}

// fetch transfers with miekg/dns and returns the records in order.
func fetch(tb testing.TB, addr string, m *dns.Msg, tr *dns.Transfer) []dns.RR {
	tb.Helper()
	envelopes, err := tr.In(m, addr)
	if err != nil {
		tb.Fatal(err)
	}
	var all []dns.RR
	for e := range envelopes {
		if e.Error != nil {
			tb.Fatal(e.Error)
		}
		all = append(all, e.RR...)
	}
	return all
}

func texts(rrs []dns.RR) []string {
	out := make([]string, len(rrs))
	for i, rr := range rrs {
		out[i] = rr.String()
	}
	return out
}

func TestRFC5936_2_2_ZoneBetweenTwoSOAs(t *testing.T) {
	view := exampleView(t, 7)
	addr, _ := startServer(t, Config{Source: memSource{view.apex.Fold(): view}})
	got := texts(fetch(t, addr, new(dns.Msg).SetAxfr("example."), new(dns.Transfer)))
	soa := recordsOf(t, item{func() []byte { k, _ := view.SOA(); return k }(), func() []byte { _, v := view.SOA(); return v }()})[0]
	if got[0] != soa || got[len(got)-1] != soa {
		t.Fatalf("transfer goes from %s to %s", got[0], got[len(got)-1])
	}
	middle := got[1:]
	slices.Sort(middle)
	if d := cmp.Diff(recordsOf(t, view.items...), middle); d != "" {
		t.Error(d)
	}
	view.awaitClosed(t)
	if o := view.opened.Load(); o != 1 {
		t.Errorf("view opened %d times", o)
	}
}

func TestListen_UDPAndTCPShareAPort(t *testing.T) {
	view := exampleView(t, 7)
	addr, _ := startServer(t, Config{Source: memSource{view.apex.Fold(): view}})
	for _, network := range []string{"udp", "tcp"} {
		c := dns.Client{Net: network}
		m := new(dns.Msg).SetQuestion("EXAMPLE.", dns.TypeSOA)
		m.SetEdns0(1232, true)
		r, _, err := c.Exchange(m, addr)
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Answer) != 2 || !r.Authoritative || r.Answer[0].(*dns.SOA).Serial != 7 || r.Answer[1].(*dns.RRSIG).TypeCovered != dns.TypeSOA {
			t.Errorf("%s: %v", network, r)
		}
	}
	if _, err := net.ResolveTCPAddr("tcp", addr); err != nil {
		t.Error(err)
	}
}
