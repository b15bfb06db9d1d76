package xfr

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

// serve runs a connection of its own inside a bubble and returns the client's
// end and what tells that the server is done with it.
func serve(tb testing.TB, s *Server) (client net.Conn, done <-chan struct{}) {
	tb.Helper()
	client, end := net.Pipe()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		s.serveConn(tb.Context(), end)
	}()
	tb.Cleanup(func() { _ = client.Close() }) // a second close is no fault
	return client, closed
}

// framed is a query with its length in front.
func framed(tb testing.TB, m *dns.Msg) []byte {
	tb.Helper()
	wire, err := m.Pack()
	if err != nil {
		tb.Fatal(err)
	}
	return append([]byte{byte(len(wire) >> 8), byte(len(wire))}, wire...)
}

func send(tb testing.TB, c net.Conn, b []byte) {
	tb.Helper()
	if _, err := c.Write(b); err != nil {
		tb.Fatal(err)
	}
}

func TestConn_IdleOneIsClosed(t *testing.T) {
	for fact, first := range map[string][]byte{
		"nothing sent":         nil,
		"half a length":        {0},
		"half a request":       {0, 100, 1, 2, 3},
		"a request, then none": framed(t, new(dns.Msg).SetQuestion("nowhere.", dns.TypeSOA)),
	} {
		synctest.Test(t, func(t *testing.T) {
			s := testServer(t, Config{Source: memSource{}})
			begun := time.Now()
			c, done := serve(t, s)
			if first != nil {
				send(t, c, first)
				go io.Copy(io.Discard, c) //nolint:errcheck // ends with the connection
			}
			<-done
			if took := time.Since(begun); took != 30*time.Second {
				t.Errorf("%s: closed after %v", fact, took)
			}
		})
	}
}

func TestConn_DripDoesNotKeepItOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := testServer(t, Config{Source: memSource{}})
		c, done := serve(t, s)
		begun := time.Now()
		for sent := 0; ; sent++ {
			if _, err := c.Write([]byte{0}[:1]); err != nil {
				break
			}
			if sent == 0 {
				send(t, c, []byte{200})
			}
			time.Sleep(time.Second) // of the bubble's clock
		}
		<-done
		if took := time.Since(begun); took > 31*time.Second {
			t.Errorf("closed after %v", took)
		}
	})
}

func TestConn_TooLongRequestEndsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := testServer(t, Config{Source: memSource{}})
		c, done := serve(t, s)
		send(t, c, []byte{0x10, 0x01})
		<-done
		if st := s.Stats(); st.Dropped != 1 || st.Requests != 0 {
			t.Errorf("%+v", st)
		}
	})
}

func TestTransfer_ReaderThatStopsIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		view := largeView(t)
		s := testServer(t, Config{Source: memSource{"\x07example\x00": view}})
		c, done := serve(t, s)
		begun := time.Now()
		send(t, c, framed(t, new(dns.Msg).SetAxfr("example.")))
		<-done
		if took := time.Since(begun); took != 30*time.Second {
			t.Errorf("given up after %v", took)
		}
		if st := s.Stats(); st.BrokenTransfers != 1 || st.Faults != 0 || st.TransfersUnderWay != 0 {
			t.Errorf("%+v", st)
		}
		if view.opened.Load() != view.closed.Load() {
			t.Error("view left open")
		}
	})
}

func TestTransfer_SlowReaderEndsAtTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		view := largeView(t)
		s := testServer(t, Config{Source: memSource{"\x07example\x00": view}, TransferTimeout: time.Minute})
		c, done := serve(t, s)
		begun := time.Now()
		send(t, c, framed(t, new(dns.Msg).SetAxfr("example.")))
		buf := make([]byte, 4096)
		for {
			if _, err := c.Read(buf); err != nil {
				break
			}
			time.Sleep(time.Second) // of the bubble's clock
		}
		<-done
		if took := time.Since(begun); took < time.Minute || took > 62*time.Second {
			t.Errorf("ended after %v", took)
		}
	})
}

func TestTransfer_FurtherOnesWaitThenAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := memSource{"\x07example\x00": largeView(t)}
		s := testServer(t, Config{Source: source, MaxTransfers: 1, WriteTimeout: 40 * time.Second})
		first, firstDone := serve(t, s)
		send(t, first, framed(t, new(dns.Msg).SetAxfr("example.")))
		synctest.Wait()
		if n := s.Stats().TransfersUnderWay; n != 1 {
			t.Fatalf("%d transfers under way", n)
		}
		second, secondDone := serve(t, s)
		begun := time.Now()
		send(t, second, framed(t, new(dns.Msg).SetAxfr("example.")))
		_, m := readMessage(t, second)
		if took := time.Since(begun); m == nil || m.Rcode != dns.RcodeServerFailure || m.Authoritative || took != 30*time.Second {
			t.Errorf("after %v: %v", took, m)
		}
		// When the first one is given up, the second has its turn.
		send(t, second, framed(t, new(dns.Msg).SetAxfr("example.")))
		if _, m := readMessage(t, second); m == nil || m.Rcode != dns.RcodeSuccess || len(m.Answer) == 0 {
			t.Errorf("%v", m)
		}
		<-firstDone
		_ = second.Close() // breaks the transfer off
		<-secondDone
	})
}

func TestListen_ConnectionsPerAddress(t *testing.T) {
	addr, s := startServer(t, Config{Source: memSource{"\x07example\x00": exampleView(t, 5)}, MaxConnsPerAddr: 2})
	soa := new(dns.Msg).SetQuestion("example.", dns.TypeSOA)
	for range 2 {
		if _, m := readMessage(t, dial(t, addr, soa)); m == nil {
			t.Fatal("no answer within the limit")
		}
	}
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("third connection: %d bytes, %v", n, err)
	}
	if st := s.Stats(); st.RefusedConns != 1 || st.OpenConns != 2 {
		t.Errorf("%+v", st)
	}
}

// fakeConn is a connection from an address.
type fakeConn struct {
	net.Conn
	from string
}

func (c *fakeConn) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.from))
}

func TestConnSet_CountsSites(t *testing.T) {
	set := newConnSet(5, 2)
	conn := func(from string) *fakeConn { return &fakeConn{from: from} }
	first := conn("[2001:db8::1]:1")
	for _, tc := range []struct {
		c    *fakeConn
		want bool
	}{
		{first, true},
		{conn("[2001:db8::2]:1"), true},
		{conn("[2001:db8::3]:1"), false}, // the same /64
		{conn("[2001:db8:0:1::1]:1"), true},
		{conn("192.0.2.1:1"), true},
		{conn("[::ffff:192.0.2.1]:2"), true},
		{conn("192.0.2.2:1"), false}, // five in all
	} {
		if got := set.add(tc.c); got != tc.want {
			t.Errorf("%s: admitted is %v", tc.c.from, got)
		}
	}
	set.remove(first)
	if !set.add(conn("[2001:db8::4]:1")) || set.len() != 5 {
		t.Error("a freed place is not given again")
	}
}

func TestListen_WildcardAnswersFromTheAddressAsked(t *testing.T) {
	for _, tc := range []struct{ wildcard, asked string }{
		{"0.0.0.0:0", "127.0.0.2"},
		{":0", "127.0.0.2"},
		{":0", "::1"},
		{"[::]:0", "::1"},
	} {
		s := testServer(t, Config{Source: memSource{"\x07example\x00": exampleView(t, 5)}})
		ap, err := s.Listen(t.Context(), tc.wildcard)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		// The client's socket is connected: answers from elsewhere are lost.
		to := netip.AddrPortFrom(netip.MustParseAddr(tc.asked), ap.Port())
		r, _, err := (&dns.Client{Timeout: 10 * time.Second}).Exchange(new(dns.Msg).SetQuestion("example.", dns.TypeSOA), to.String())
		if err != nil || len(r.Answer) != 1 {
			t.Errorf("%s at %s: %v, %v", tc.wildcard, tc.asked, r, err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestListen_FamiliesSideBySide(t *testing.T) {
	s := testServer(t, Config{Source: memSource{}})
	ap, err := s.Listen(t.Context(), "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Listen(t.Context(), netip.AddrPortFrom(netip.IPv6Unspecified(), ap.Port()).String()); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// runUntil runs a server with a transfer begun and the context ended.
func runUntil(t *testing.T, grace time.Duration) (c *net.TCPConn, view *memView, done <-chan error) {
	view = largeView(t)
	s := testServer(t, Config{Source: memSource{"\x07example\x00": view}, Grace: grace})
	ap, err := s.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	idle := dial(t, ap.String(), new(dns.Msg).SetQuestion("example.", dns.TypeSOA))
	if _, m := readMessage(t, idle); m == nil {
		t.Fatal("no answer")
	}
	c = dial(t, ap.String())
	if err := c.SetReadBuffer(64 << 10); err != nil {
		t.Fatal(err)
	}
	send(t, c, framed(t, new(dns.Msg).SetAxfr("example.")))
	if _, err := c.Read(make([]byte, 0, 1)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, m := readMessage(t, idle); m != nil {
		t.Errorf("idle connection says %v", m)
	}
	return c, view, ended
}

func TestRun_StopsAfterAnswersUnderWay(t *testing.T) {
	c, view, done := runUntil(t, time.Minute)
	var got []string
	for {
		_, m := readMessage(t, c)
		if m == nil {
			break
		}
		got = append(got, texts(m.Answer)...)
	}
	// The request may have come too late; half an answer may not.
	if d := cmp.Diff(whole(t, view), sorted(got)); len(got) > 0 && d != "" {
		t.Error(d)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestRun_DoesNotWaitBeyondTheGrace(t *testing.T) {
	_, view, done := runUntil(t, time.Millisecond)
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("still running")
	}
	if view.opened.Load() != view.closed.Load() {
		t.Error("view left open")
	}
}

func TestRun_OnceOnly(t *testing.T) {
	if _, err := NewServer(Config{}); err == nil {
		t.Error("a server without source")
	}
	s := testServer(t, Config{Source: memSource{}})
	if _, err := s.Listen(t.Context(), "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Listen(t.Context(), "192.0.2.1:0"); err == nil {
		t.Error("listens on an address that is not ours")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Error(err)
	}
	if err := s.Run(ctx); err == nil {
		t.Error("runs twice")
	}
	if _, err := s.Listen(ctx, "127.0.0.1:0"); err == nil {
		t.Error("listens after its end")
	}
}
