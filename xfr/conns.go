package xfr

import (
	"net"
	"net/netip"
	"sync"
)

// connSet holds the open TCP connections within the limits.
type connSet struct {
	max, perAddr int

	mu    sync.Mutex
	open  map[net.Conn]netip.Addr // guarded by mu
	count map[netip.Addr]int      // guarded by mu
}

func newConnSet(most, perAddr int) *connSet {
	return &connSet{max: most, perAddr: perAddr, open: map[net.Conn]netip.Addr{}, count: map[netip.Addr]int{}}
}

// add takes a connection in, unless there are too many.
func (s *connSet) add(c net.Conn) bool {
	site := siteOf(peerAddr(c.RemoteAddr()).Addr())
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.open) >= s.max || s.count[site] >= s.perAddr {
		return false
	}
	s.open[c] = site
	s.count[site]++
	return true
}

func (s *connSet) remove(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	site := s.open[c]
	delete(s.open, c)
	if s.count[site]--; s.count[site] <= 0 {
		delete(s.count, site)
	}
}

func (s *connSet) each(fn func(net.Conn)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		fn(c)
	}
}

func (s *connSet) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

// siteOf is what counts as one client: an IPv4 address or an IPv6 /64.
func siteOf(a netip.Addr) netip.Addr {
	if !a.Is6() {
		return a
	}
	p, err := a.WithZone("").Prefix(64)
	if err != nil {
		return a
	}
	return p.Addr()
}
