package cli

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// firstByteTime is how long a connection of this machine may take for its first
// byte.
const firstByteTime = 10 * time.Second

// tlsHandshake is the first byte of every TLS connection (RFC 8446, 5.1).
const tlsHandshake = 0x16

// splitter accepts connections: those that speak TLS, and those of this machine
// that do not.
type splitter struct {
	accepts       net.Listener
	room          *connLimit
	secure, plain *handedOver
}

func newSplitter(l net.Listener, room *connLimit) *splitter {
	return &splitter{accepts: l, room: room, secure: newHandedOver(l.Addr()), plain: newHandedOver(l.Addr())}
}

// run accepts connections until ctx ends, and returns once none waits for its
// first byte.
func (s *splitter) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var waiting sync.WaitGroup
	defer waiting.Wait()
	defer cancel()
	defer s.secure.Close() //nolint:errcheck // never fails
	defer s.plain.Close()  //nolint:errcheck // as above
	defer context.AfterFunc(ctx, func() { _ = s.accepts.Close() })()
	for {
		c, err := s.accepts.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				return c.Close()
			}
			return nil
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ECONNABORTED), errors.Is(err, syscall.ENOBUFS):
			pause(ctx, 100*time.Millisecond) // others end meanwhile
			continue
		case err != nil:
			return errors.Join(err, s.accepts.Close())
		}
		taken, ok := s.room.take(c)
		switch {
		case !ok:
			_ = c.Close() // it was not let in
		case !onLoopback(c):
			s.secure.give(taken)
		default:
			waiting.Go(func() { s.sort(ctx, taken) })
		}
	}
}

// sort looks at the first byte of a connection.
func (s *splitter) sort(ctx context.Context, c net.Conn) {
	first := make([]byte, 1)
	err := c.SetReadDeadline(time.Now().Add(firstByteTime))
	if err == nil {
		stop := context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Now()) })
		_, err = c.Read(first)
		stop()
	}
	if err == nil && ctx.Err() == nil {
		err = c.SetReadDeadline(time.Time{})
	}
	switch {
	case err != nil || ctx.Err() != nil:
		_ = c.Close() // it has said nothing
	case first[0] == tlsHandshake:
		s.secure.give(&begunConn{Conn: c, first: first})
	default:
		s.plain.give(&begunConn{Conn: c, first: first})
	}
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// onLoopback reports whether a connection never leaves this machine.
func onLoopback(c net.Conn) bool {
	here, there := hostOf(c.LocalAddr()), hostOf(c.RemoteAddr())
	return here.IsLoopback() && there.IsLoopback()
}

func hostOf(a net.Addr) netip.Addr {
	at, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Addr{}
	}
	return at.Addr().Unmap()
}

// begunConn is a connection whose first byte was read.
type begunConn struct {
	net.Conn
	first []byte
}

// Read gives back the first byte first.
func (c *begunConn) Read(p []byte) (int, error) {
	if len(c.first) == 0 || len(p) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.first)
	c.first = c.first[n:]
	return n, nil
}

// handedOver is a listener of connections that another one has accepted.
type handedOver struct {
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newHandedOver(addr net.Addr) *handedOver {
	return &handedOver{addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
}

// give hands over a connection, and closes it where nobody takes it any more.
func (h *handedOver) give(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.closed:
		_ = c.Close() // nobody is there to be told
	}
}

// Accept implements net.Listener.
func (h *handedOver) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener; it may be called again.
func (h *handedOver) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

// Addr implements net.Listener.
func (h *handedOver) Addr() net.Addr { return h.addr }

// connLimit bounds connections at a time: in all, and a quarter of that from one
// address of another machine (of IPv6 its /64).
type connLimit struct {
	mu   sync.Mutex
	most int                  // guarded by mu
	all  int                  // guarded by mu
	by   map[netip.Prefix]int // guarded by mu
}

func newConnLimit(most int) *connLimit { return &connLimit{most: most, by: map[netip.Prefix]int{}} }

// set replaces how many there may be; those that are there stay.
func (l *connLimit) set(most int) {
	l.mu.Lock()
	l.most = most
	l.mu.Unlock()
}

// take counts a connection until it is closed; false where there is no room.
func (l *connLimit) take(c net.Conn) (net.Conn, bool) {
	from := hostOf(c.RemoteAddr())
	bits := from.BitLen()
	if from.Is6() {
		bits = 64
	}
	key, err := from.Prefix(bits)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all >= l.most || err == nil && !from.IsLoopback() && l.by[key] >= max(1, l.most/4) {
		return nil, false
	}
	l.all++
	l.by[key]++
	return &countedConn{Conn: c, leave: sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.all--
		if l.by[key]--; l.by[key] == 0 {
			delete(l.by, key)
		}
	})}, true
}

// countedConn is a connection that counts until it is closed.
type countedConn struct {
	net.Conn
	leave func()
}

// Close closes the connection.
func (c *countedConn) Close() error {
	c.leave()
	return c.Conn.Close()
}
