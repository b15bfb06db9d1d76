package cli

import (
	"context"
	"io"
	"net"
	"testing"
	"time"
)

// startSplitter runs a splitter whose connections are answered by what took them.
func startSplitter(t *testing.T, most int) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := newSplitter(l, newConnLimit(most))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 3)
	go func() { done <- s.run(ctx) }()
	for _, part := range []struct {
		name string
		from *handedOver
	}{{"secure", s.secure}, {"plain", s.plain}} {
		go func() {
			for {
				c, err := part.from.Accept()
				if err != nil {
					done <- nil
					return
				}
				first := make([]byte, 3)
				if _, err = io.ReadFull(c, first); err == nil {
					_, _ = io.WriteString(c, part.name+" "+string(first[1:])) // what is wrong, the test sees
				}
				c.Close()
			}
		}()
	}
	t.Cleanup(func() {
		cancel()
		for range 3 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
	return l.Addr().String()
}

func TestSplitter_TellsTLSFromClearText(t *testing.T) {
	addr := startSplitter(t, 10)
	silent, err := net.Dial("tcp", addr) // it keeps nobody else waiting, and is ended with the splitter
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for text, want := range map[string]string{"\x16ab": "secure ab", "GET": "plain ET"} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(c)
		if err != nil || string(got) != want {
			t.Errorf("%q was answered by %q, %v", text, got, err)
		}
		c.Close()
	}
}

func TestSplitter_NoRoomIsClosedAtOnce(t *testing.T) {
	addr := startSplitter(t, 1)
	first, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	for range 5 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err == nil || isTimeout(err) {
			t.Errorf("a connection beyond the limit: %v", err)
		}
		c.Close()
	}
}

func isTimeout(err error) bool {
	n, ok := err.(net.Error) //nolint:errorlint // net.Conn gives it as it is
	return ok && n.Timeout()
}

func TestConnLimit_OneAddressHasAQuarter(t *testing.T) {
	l := newConnLimit(8)
	far := func(host string) net.Conn { return addressed{at: &net.TCPAddr{IP: net.ParseIP(host), Port: 1}} }
	var mine []net.Conn
	for i := range 3 {
		c, ok := l.take(far("2001:db8::" + string(rune('1'+i))))
		if ok != (i < 2) {
			t.Errorf("connection %d from one /64: %v", i, ok)
		}
		if ok {
			mine = append(mine, c)
		}
	}
	if _, ok := l.take(far("192.0.2.1")); !ok {
		t.Error("another address was refused")
	}
	l.set(12)
	c, ok := l.take(far("2001:db8::9"))
	if !ok {
		t.Error("with room for 12, a third of one /64 was refused")
	}
	mine = append(mine, c)
	l.set(4)
	if _, ok := l.take(far("192.0.2.9")); ok {
		t.Error("a fifth was taken with room for 4")
	}
	for _, c := range mine {
		for range 2 { // it counts once
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	if l.all != 1 || len(l.by) != 1 {
		t.Errorf("%d are counted, %v", l.all, l.by)
	}
}

// addressed is a connection from an address.
type addressed struct {
	net.Conn
	at net.Addr
}

func (a addressed) RemoteAddr() net.Addr { return a.at }
func (a addressed) Close() error         { return nil }
