package observe

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"testing"
)

// counted notes the connections over TCP that are made.
type counted struct {
	mu    sync.Mutex
	conns []net.Conn
}

func (c *counted) wrap(dial func(context.Context, string, string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err == nil && network == "tcp" {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.conns = append(c.conns, conn)
		}
		return conn, err
	}
}

// Many zones on the same server are asked about on the same connection; one that
// the server closed meanwhile is made anew, and nobody notices.
func TestObserve_ZonesOnOneServerShareAConnection(t *testing.T) {
	w := newWorld(t)
	child := newZone(t, "child.example.", "child.example. 3600 IN NS ns1.child.example.")
	w.serve("192.0.2.9:53", &fakeServer{zones: []*fakeZone{child}})
	o := w.observer()
	var made counted
	o.cfg.Dial = made.wrap(o.cfg.Dial)
	server := netip.MustParseAddrPort("192.0.2.9:53")
	q := Question{Zone: parse(t, "child.example."), Servers: At([]netip.AddrPort{server}), SkipParent: true, Now: now}
	ask := func(connections int) {
		t.Helper()
		seen := o.Observe(t.Context(), q).Zone
		if len(seen) != 1 || seen[0].Error != "" || seen[0].Serial != 7 {
			t.Fatalf("seen %+v", seen)
		}
		if made.mu.Lock(); len(made.conns) != connections {
			t.Errorf("%d connections, want %d", len(made.conns), connections)
		}
		made.mu.Unlock()
	}
	ask(1)
	ask(1)
	if err := made.conns[0].Close(); err != nil { // as a server does that waits no longer
		t.Fatal(err)
	}
	ask(2)
	o.kept.mu.Lock()
	kept := o.kept.by[server]
	o.kept.mu.Unlock()
	if len(kept) != 1 {
		t.Fatalf("%d connections are kept", len(kept))
	}
	o.kept.drop(server, kept[0])
	ask(3)
}
