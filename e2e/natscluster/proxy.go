package natscluster

import (
	"errors"
	"io"
	"net"
	"sync"
)

// A proxy carries the connections from one place to another, and can be cut:
// what passes then stays where it is, as on a line that drops everything, or
// the connections break and no new ones come about.
type proxy struct {
	listener net.Listener
	target   string
	running  sync.WaitGroup

	mu    sync.Mutex
	open  chan struct{}         // guarded by mu: closed while bytes pass
	state lineState             // guarded by mu
	conns map[net.Conn]struct{} // guarded by mu
}

type lineState int

const (
	passing lineState = iota
	stalled           // bytes wait
	broken            // connections break
)

func newProxy(target string) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{listener: l, target: target, open: make(chan struct{}), conns: make(map[net.Conn]struct{})}
	close(p.open)
	p.running.Go(p.accept)
	return p, nil
}

func (p *proxy) address() string { return p.listener.Addr().String() }

func (p *proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.running.Go(func() { p.carry(c) })
	}
}

// carry joins one connection with the target.
func (p *proxy) carry(from net.Conn) {
	defer from.Close() //nolint:errcheck // it carries nothing more
	if !p.keep(from) {
		return
	}
	defer p.forget(from)
	to, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer to.Close() //nolint:errcheck // it carries nothing more
	if !p.keep(to) {
		return
	}
	defer p.forget(to)
	var both sync.WaitGroup
	both.Go(func() { p.pump(to, from) })
	both.Go(func() { p.pump(from, to) })
	both.Wait()
}

// pump copies while the line is open.
func (p *proxy) pump(to, from net.Conn) {
	defer to.Close()   //nolint:errcheck // the other direction ends with it
	defer from.Close() //nolint:errcheck // the other direction ends with it
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil && !errors.Is(err, io.EOF) {
			return
		}
		p.wait()
		if _, werr := to.Write(buf[:n]); werr != nil || err != nil {
			return
		}
	}
}

// wait returns once the line is open, or broken for good.
func (p *proxy) wait() {
	p.mu.Lock()
	open := p.open
	p.mu.Unlock()
	<-open
}

func (p *proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == broken {
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

func (p *proxy) forget(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

// set changes the state of the line.
func (p *proxy) set(to lineState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	was := p.state
	p.state = to
	switch {
	case to == stalled && was != stalled:
		p.open = make(chan struct{})
	case to != stalled && was == stalled:
		close(p.open)
	}
	if to == broken {
		for c := range p.conns {
			_ = c.Close() // it was to break
		}
	}
}

func (p *proxy) close() {
	_ = p.listener.Close() // nobody is told any more
	p.set(broken)
	p.running.Wait()
}
