package xfr

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

const (
	// maxRequest is the longest request read: a question, an SOA, OPT with
	// padding and TSIG take much less.
	maxRequest = 4096
	// portTries is how often a port free for both UDP and TCP is looked for.
	portTries = 16
	// lastWord is how long a stopping server waits for a request that is on its
	// way on a connection that it has accepted.
	lastWord = 100 * time.Millisecond
	// acceptPause is how long accepting rests after an error such as too many
	// open files.
	acceptPause = 100 * time.Millisecond
)

// door is one address that is listened on.
type door struct {
	tcp net.Listener
	udp *net.UDPConn // nil for TLS
	tls *tls.Config  // nil for clear text
}

func (d door) close() error {
	if d.udp == nil {
		return d.tcp.Close()
	}
	return errors.Join(d.tcp.Close(), d.udp.Close())
}

// Listen opens an address such as "127.0.0.1:8053" for UDP and TCP and
// returns it with its port, which is a free one where 0 was asked for. "0.0.0.0"
// is every IPv4 address, "[::]" every IPv6 address, and an empty host both.
// Requests wait until Run.
func (s *Server) Listen(ctx context.Context, addr string) (netip.AddrPort, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.started {
		return netip.AddrPort{}, fmt.Errorf("listen on %s: server already runs", addr)
	}
	var err error
	for range portTries {
		var d door
		if d, err = openDoor(ctx, s.cfg.Listeners, addr); err == nil {
			s.doors = append(s.doors, d)
			return d.udp.LocalAddr().(*net.UDPAddr).AddrPort(), nil
		}
		if _, port, splitErr := net.SplitHostPort(addr); splitErr != nil || port != "0" {
			break
		}
	}
	return netip.AddrPort{}, fmt.Errorf("listen on %s: %w", addr, err)
}

func openDoor(ctx context.Context, lc Listeners, addr string) (door, error) {
	family := familyOf(addr)
	tcp, err := lc.Listen(ctx, "tcp"+family, addr)
	if err != nil {
		return door{}, err
	}
	pc, err := lc.ListenPacket(ctx, "udp"+family, tcp.Addr().String())
	if err != nil {
		return door{}, errors.Join(err, tcp.Close())
	}
	udp, ok := pc.(*net.UDPConn)
	if !ok {
		return door{}, errors.Join(fmt.Errorf("%s is no socket for UDP", pc.LocalAddr()), pc.Close(), tcp.Close())
	}
	d := door{tcp: tcp, udp: udp}
	if d.udp.LocalAddr().(*net.UDPAddr).IP.IsUnspecified() {
		// Answers must come from the address that was asked. A socket of one
		// family refuses the other family's option.
		err4 := ipv4.NewPacketConn(d.udp).SetControlMessage(ipv4.FlagDst|ipv4.FlagInterface, true)
		err6 := ipv6.NewPacketConn(d.udp).SetControlMessage(ipv6.FlagDst|ipv6.FlagInterface, true)
		if err4 != nil && err6 != nil {
			return door{}, errors.Join(err4, d.close())
		}
	}
	return d, nil
}

// familyOf keeps "0.0.0.0" to IPv4 and "::" to IPv6, so that both may be
// listened on side by side; no address at all means both.
func familyOf(addr string) string {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return ""
	}
	ip, err := netip.ParseAddr(host)
	switch {
	case err != nil:
		return ""
	case ip.Is4():
		return "4"
	}
	return "6"
}

// Close closes the listeners of a server that was never run; Run does so
// itself.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	for _, d := range s.doors {
		err = errors.Join(err, d.close())
	}
	s.doors = nil
	return err
}

// Run serves until ctx ends, lets answers under way finish within the grace
// time, and returns when all is closed.
func (s *Server) Run(ctx context.Context) error {
	s.mu.Lock()
	if s.started {
		s.mu.Unlock()
		return errors.New("transfer server runs once only")
	}
	s.started = true
	doors := s.doors
	s.doors = nil
	s.mu.Unlock()

	// Answers outlive ctx by the grace time.
	work, abort := context.WithCancel(context.WithoutCancel(ctx))
	defer abort()
	var loops sync.WaitGroup
	for _, d := range doors {
		loops.Go(func() { s.acceptLoop(ctx, work, d) })
		if d.udp != nil {
			loops.Go(func() { s.packetLoop(ctx, work, d.udp) })
		}
	}
	<-ctx.Done()
	s.stopping.Store(true)
	var err error
	for _, d := range doors {
		err = errors.Join(err, d.close())
	}
	loops.Wait()
	s.drain(abort)
	return err
}

// drain ends the connections: idle ones at once, but for a request that is on
// its way already, others after their answer or the grace time.
func (s *Server) drain(abort context.CancelFunc) {
	last := time.Now().Add(lastWord)
	s.conns.each(func(c net.Conn) { _ = c.SetReadDeadline(last) }) // a closed one needs none
	done := make(chan struct{})
	go func() {
		s.answering.Wait()
		close(done)
	}()
	timer := time.NewTimer(s.cfg.Grace)
	defer timer.Stop()
	select {
	case <-done:
		return
	case <-timer.C:
	}
	abort()
	s.conns.each(func(c net.Conn) { _ = c.Close() }) // the connection's own loop reports
	<-done
}

func (s *Server) acceptLoop(ctx, work context.Context, d door) {
	for {
		c, err := d.tcp.Accept()
		switch {
		case err == nil:
			s.admit(work, c, d.tls)
		case ctx.Err() != nil:
			return
		default:
			s.logAccept(ctx, err)
			select {
			case <-time.After(acceptPause):
			case <-ctx.Done():
				return
			}
		}
	}
}

// admit starts serving a connection, or closes it where there are too many.
func (s *Server) admit(work context.Context, c net.Conn, secure *tls.Config) {
	if !s.conns.add(c) {
		s.stats.refusedConns.Add(1)
		if more, ok := s.refusals.allow(time.Now()); ok {
			s.log.InfoContext(work, "connection refused", "peer", c.RemoteAddr().String(), "unlogged", more)
		}
		_ = c.Close() // nothing was said on it
		return
	}
	s.answering.Go(func() {
		defer s.conns.remove(c)
		if secure == nil {
			s.serveConn(work, c)
			return
		}
		s.serveTLS(work, c, secure)
	})
}

func (s *Server) logAccept(ctx context.Context, err error) {
	if more, ok := s.faults.allow(time.Now()); ok {
		s.log.ErrorContext(ctx, "listener fails", "error", err, "unlogged", more)
	}
}

// streamConn is the sink of a TCP connection for answers of one message.
type streamConn struct {
	net.Conn
	step time.Duration
	tls  bool
	name string // of the client, by its certificate
}

func (c *streamConn) emit(block []byte) ([]byte, error) {
	return block[:0], writeBlock(c.Conn, block, c.step, time.Time{})
}

// serveConn answers the requests of a connection in their order (RFC 7766,
// 6.2.1.1 allows that) until it is idle, broken, or the server stops.
func (s *Server) serveConn(ctx context.Context, c net.Conn) {
	defer func() { _ = c.Close() }() // all that could be sent has been
	from := peerAddr(c.RemoteAddr())
	conn := &streamConn{Conn: c, step: s.cfg.WriteTimeout}
	if secure, ok := c.(*tls.Conn); ok {
		conn.tls, conn.name = true, nameOf(secure.ConnectionState())
	}
	var length [2]byte
	var msg []byte
	for first := true; ; first = false {
		// Set before stopping is read: drain does it the other way round.
		if err := c.SetReadDeadline(time.Now().Add(s.cfg.IdleTimeout)); err != nil {
			return
		}
		// Who was let in and asked nothing yet is not turned away.
		if s.stopping.Load() && (!first || c.SetReadDeadline(time.Now().Add(lastWord)) != nil) {
			return
		}
		if _, err := io.ReadFull(c, length[:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(length[:]))
		if n > maxRequest {
			if s.serveLong(ctx, c, n, from, conn) != nil {
				return
			}
			continue
		}
		if cap(msg) < n {
			msg = make([]byte, max(n, 512))
		}
		msg = msg[:n]
		if _, err := io.ReadFull(c, msg); err != nil {
			return
		}
		if s.answerConn(ctx, msg, from, conn) != nil {
			return // logged where it arose
		}
	}
}

// answerConn answers one request of a connection.
func (s *Server) answerConn(ctx context.Context, msg []byte, from netip.AddrPort, conn *streamConn) error {
	enc := s.encoders.Get().(*encoder)
	defer s.encoders.Put(enc)
	defer enc.release()
	return s.answer(ctx, msg, from, enc, conn)
}

// packetLoop answers datagrams one after another.
func (s *Server) packetLoop(ctx, work context.Context, c *net.UDPConn) {
	buf, oob := make([]byte, maxRequest), make([]byte, 128)
	enc := new(encoder)
	for {
		n, oobn, _, from, err := c.ReadMsgUDPAddrPort(buf, oob)
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			s.logAccept(ctx, err)
			select {
			case <-time.After(acceptPause):
			case <-ctx.Done():
				return
			}
			continue
		}
		if s.cfg.Update != nil && isUpdate(buf[:n]) {
			s.updateOverUDP(work, c, bytes.Clone(buf[:n]), from, answerFrom(oob[:oobn]))
			continue
		}
		to := netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		if s.answer(work, buf[:n], to, enc, nil) != nil || len(enc.buf) == 0 {
			continue
		}
		// A datagram that cannot be sent is lost, as any may be.
		_, _, _ = c.WriteMsgUDPAddrPort(enc.buf, answerFrom(oob[:oobn]), from)
		enc.release()
	}
}

// answerFrom makes the control message that sends an answer from the address
// that was asked; nil where the socket has but one.
func answerFrom(oob []byte) []byte {
	if len(oob) == 0 {
		return nil
	}
	var four ipv4.ControlMessage
	if four.Parse(oob) == nil && four.Dst != nil {
		return (&ipv4.ControlMessage{Src: four.Dst}).Marshal()
	}
	var six ipv6.ControlMessage
	if six.Parse(oob) == nil && six.Dst != nil {
		reply := ipv6.ControlMessage{Src: six.Dst}
		if six.Dst.IsLinkLocalUnicast() {
			reply.IfIndex = six.IfIndex // such an address means nothing elsewhere
		}
		return reply.Marshal()
	}
	return nil
}

// peerAddr is the address of a TCP peer, IPv4 in its short form.
func peerAddr(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
