package observe

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// idleTime is how long a connection is kept for the next zone on the same
// server; servers close idle ones later than that (RFC 7766, 6.2.3).
const idleTime = 2 * time.Second

// maxIdle bounds the connections that are kept.
const maxIdle = 64

// kept are connections on which nothing is asked now. With many zones on the same
// servers most of what asking costs is connecting.
type kept struct {
	mu   sync.Mutex
	by   map[netip.AddrPort][]*idle // guarded by mu
	many int                        // guarded by mu
}

// idle is a connection that is closed when nobody takes it.
type idle struct {
	conn  net.Conn
	timer *time.Timer
}

// take returns a connection to a server, nil where there is none.
func (k *kept) take(server netip.AddrPort) net.Conn {
	k.mu.Lock()
	defer k.mu.Unlock()
	list := k.by[server]
	if len(list) == 0 {
		return nil
	}
	last := list[len(list)-1]
	k.set(server, list[:len(list)-1])
	last.timer.Stop() // where it is too late for that, the connection is no longer listed
	return last.conn
}

// put keeps a connection for a while.
func (k *kept) put(server netip.AddrPort, conn net.Conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.many >= maxIdle || conn.SetDeadline(time.Time{}) != nil {
		_ = conn.Close() // it has served
		return
	}
	one := &idle{conn: conn}
	one.timer = time.AfterFunc(idleTime, func() { k.drop(server, one) })
	k.set(server, append(k.by[server], one))
}

// drop closes a connection that nobody took.
func (k *kept) drop(server netip.AddrPort, one *idle) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, other := range k.by[server] {
		if other == one {
			k.set(server, append(k.by[server][:i:i], k.by[server][i+1:]...))
			_ = one.conn.Close() // it has served
			return
		}
	}
}

// set lists the connections to a server anew. The caller holds mu.
func (k *kept) set(server netip.AddrPort, list []*idle) {
	k.many += len(list) - len(k.by[server])
	if len(list) == 0 {
		delete(k.by, server)
		return
	}
	k.by[server] = list
}

// session takes a kept connection to a server, or makes one. It is to be given
// back with end.
func (o *Observer) session(ctx context.Context, server netip.AddrPort) (*session, error) {
	if conn := o.kept.take(server); conn != nil {
		return &session{conn: conn, timeout: o.cfg.Timeout, again: func(ctx context.Context) (net.Conn, error) { return o.dialTCP(ctx, server) }}, nil
	}
	conn, err := o.dialTCP(ctx, server)
	if err != nil {
		return nil, err
	}
	return &session{conn: conn, timeout: o.cfg.Timeout}, nil
}

// end keeps the connection of a session in which all was answered, and closes
// any other.
func (o *Observer) end(server netip.AddrPort, s *session, err error) {
	if err != nil {
		_ = s.conn.Close() // what it says no longer counts
		return
	}
	o.kept.put(server, s.conn)
}

// hungUp reports whether the other side had closed a connection.
func hungUp(err error) bool {
	for _, sign := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE, net.ErrClosed} {
		if errors.Is(err, sign) {
			return true
		}
	}
	return false
}
