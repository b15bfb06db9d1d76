package xfr

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"sluice/signer/zone"
)

// ClientConfig is what a client is made with. The zero value asks in clear
// text without TSIG, from any local address, within the default limits.
type ClientConfig struct {
	// Keys finds the TSIG keys that endpoints name; nil knows none.
	Keys Keys
	// WeakTSIG allows keys of hmac-sha1 and hmac-md5.
	WeakTSIG bool
	// Local are the addresses to ask from: the first of the server's family
	// counts. Without one the system chooses.
	Local []netip.Addr
	// Roots are the certificates that servers with a TLSPeer.Name are
	// trusted by; nil means those of the system.
	Roots *x509.CertPool
	// Certificate is shown to servers that ask for one over TLS; nil shows
	// none.
	Certificate *Certificate
	// Limits bound what one transfer may take.
	Limits Limits
	// Tries is how long an answer over UDP is waited for, once for each time
	// it is asked; TCP comes after them. Nil means 2 s and 4 s. Notify waits
	// twice as long each time and asks twice as often.
	Tries []time.Duration
	// Dial opens connections; nil means net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Limits bound a transfer. At zero each has its default.
type Limits struct {
	// MaxBytes is how many bytes of messages are taken; 0 means 32 GiB.
	MaxBytes int64
	// MaxRecords is how many records are taken; 0 means 1,000,000,000.
	MaxRecords int64
	// MaxTime is how long the whole transfer may last, the sink's work
	// included; 0 means 2 h.
	MaxTime time.Duration
	// Idle is how long connecting may take, and each whole message; 0 means
	// 30 s.
	Idle time.Duration
}

func (l Limits) withDefaults() Limits {
	if l.MaxBytes <= 0 {
		l.MaxBytes = 32 << 30
	}
	if l.MaxRecords <= 0 {
		l.MaxRecords = 1_000_000_000
	}
	if l.MaxTime <= 0 {
		l.MaxTime = 2 * time.Hour
	}
	if l.Idle <= 0 {
		l.Idle = 30 * time.Second
	}
	return l
}

// Client asks servers for SOA records and transfers and notifies them. It
// holds no connection between calls; all methods may be called at once.
type Client struct {
	cfg    ClientConfig
	limits atomic.Pointer[Limits]
	pool   sync.Pool // of *inbound
	stats  clientCounters
}

// NewClient makes a client.
func NewClient(cfg ClientConfig) *Client {
	if cfg.Tries == nil {
		cfg.Tries = []time.Duration{2 * time.Second, 4 * time.Second}
	}
	c := &Client{cfg: cfg}
	c.SetLimits(cfg.Limits)
	c.pool.New = func() any { return new(inbound) }
	return c
}

// SetLimits replaces the limits of what is asked from now on.
func (c *Client) SetLimits(l Limits) {
	l = l.withDefaults()
	c.limits.Store(&l)
}

// SOA asks ep for the SOA of a zone: over UDP, and over TCP where the answer
// is truncated, refused or does not come; over TLS alone where ep says so. The value
// is that of the SOA RRset. A server that is not authoritative is an error,
// an answer with an RCODE an *RcodeError.
func (c *Client) SOA(ctx context.Context, ep Endpoint, name zone.Name) (zone.Serial, zone.Value, error) {
	serial, value, err := c.soa(ctx, ep, name)
	if err == nil {
		c.stats.asked.Add(1)
	} else if ctx.Err() == nil {
		c.stats.askedFailed.Add(1)
	}
	if err != nil {
		return 0, nil, fmt.Errorf("ask %s for the SOA of %s: %w", ep, name, err)
	}
	return serial, value, nil
}

var (
	errNotAuthoritative = errors.New("the server is not authoritative for the zone")
	errNoSOA            = errors.New("no SOA of the zone in the answer")
)

func (c *Client) soa(ctx context.Context, ep Endpoint, name zone.Name) (zone.Serial, zone.Value, error) {
	q := &query{name: name, qtype: zone.TypeSOA, edns: true}
	r, err := c.ask(ctx, ep, q, c.cfg.Tries)
	if code, ok := errors.AsType[*RcodeError](err); ok && code.Rcode == dns.RcodeRefused && ep.TLS == nil {
		// Knot DNS tells of a catalog zone over TCP alone, where it may be had whole.
		if over, tcpErr := c.ask(ctx, ep, q, nil); tcpErr == nil {
			r, err = over, nil
		}
	}
	if err != nil {
		return 0, nil, err
	}
	if r.flags&flagAA == 0 {
		return 0, nil, errNotAuthoritative
	}
	d := decoder{apex: name.Fold()}
	d.begin(r.msg, r.answerAt)
	for range r.answers {
		if err := d.next(); err != nil {
			return 0, nil, err
		}
		if d.rr.Type == zone.TypeSOA && len(d.rr.Owner) == len(name) {
			return soaSerial(d.rr.RData), zone.AppendValue(nil, zone.Name(d.rr.Owner), d.rr.TTL, d.rr.RData), nil
		}
	}
	return 0, nil, errNoSOA
}

// dial connects to ep. The connection is given up with ctx.
func (c *Client) dial(ctx context.Context, network string, ep Endpoint) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, c.limits.Load().Idle)
	defer cancel()
	open := c.cfg.Dial
	if open == nil {
		open = (&net.Dialer{LocalAddr: c.localAddr(network, ep.Addr.Addr())}).DialContext
	}
	conn, err := open(ctx, network, ep.Addr.String())
	if err != nil || ep.TLS == nil {
		return conn, err
	}
	secure := tls.Client(conn, clientTLS(ep.TLS, c.cfg.Roots, c.cfg.Certificate))
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("TLS: %w", err), conn.Close())
	}
	if p := secure.ConnectionState().NegotiatedProtocol; p != alpnDoT {
		return nil, errors.Join(fmt.Errorf("TLS: the server speaks protocol %q, not %q", p, alpnDoT), secure.Close())
	}
	return secure, nil
}

func (c *Client) localAddr(network string, to netip.Addr) net.Addr {
	for _, a := range c.cfg.Local {
		switch {
		case a.Unmap().Is4() != to.Unmap().Is4():
		case network == "udp":
			return net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 0))
		default:
			return net.TCPAddrFromAddrPort(netip.AddrPortFrom(a, 0))
		}
	}
	return nil
}

// newID is an unforeseeable message ID (RFC 5452, 4.3).
func newID() uint16 {
	var b [2]byte
	_, _ = rand.Read(b[:]) // never returns an error
	return uint16(b[0])<<8 | uint16(b[1])
}
