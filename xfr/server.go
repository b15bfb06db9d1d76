package xfr

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"sluice/signer/zone"
)

// Config is what a server is made with.
type Config struct {
	// Source finds the zones; needed.
	Source Source
	// Keys finds TSIG keys; nil knows none.
	Keys Keys
	// WeakTSIG allows keys of hmac-sha1 and hmac-md5.
	WeakTSIG bool
	// AllowsNotify says whether a peer may send NOTIFY for the zone of that
	// name (any case): nil, ErrUnknownZone, ErrNotAllowed, or a fault. Without
	// it NOTIFY is not implemented.
	AllowsNotify func(name zone.Name, peer Peer) error
	// Notified is called with each NOTIFY that is allowed, before it is
	// acknowledged, by several goroutines at once; it must not block. The
	// serial is a hint, nil where the peer told none.
	Notified func(name zone.Name, serial *zone.Serial, peer Peer)
	// Update takes a dynamic update that is well formed and signed, and answers
	// its RCODE once that is decided, by several goroutines at once. Its records
	// are the caller's to keep. Without it UPDATE is not implemented.
	Update func(ctx context.Context, m *UpdateMessage) (rcode int)
	// Enclosing finds the zone that takes updates and that a name is below; a
	// question for the SOA of such a name is then answered. nil finds none.
	Enclosing func(name zone.Name) (apex zone.Name, ok bool)
	// Transferred is called once a peer was sent all of a view or of the way
	// to it, before the next request on the same connection is read. The view
	// is still open. It must not block.
	Transferred func(peer Peer, view View, kind TransferKind)
	// ClientRoots, where set, are the certificates that clients of the
	// listeners for TLS must prove themselves by (RFC 9103, 9.3).
	ClientRoots *x509.CertPool
	// Listeners opens the sockets; nil means net.ListenConfig.
	Listeners Listeners
	// Logger takes transfers, refusals and faults; nil drops them. All but
	// transfers sent are logged once a second at most, each sort for itself,
	// with the number left out.
	Logger *slog.Logger
	// MaxConns bounds the open TCP connections; 0 means 512.
	MaxConns int
	// MaxConnsPerAddr bounds those of one IPv4 address or IPv6 /64; 0 means 64.
	MaxConnsPerAddr int
	// MaxTransfers bounds the transfers under way, each of which holds a view
	// and 600 KiB; further ones wait for IdleTimeout. 0 means 32.
	MaxTransfers int
	// IdleTimeout is how long a connection may take for its next whole
	// request; 0 means 30 s.
	IdleTimeout time.Duration
	// WriteTimeout is how long a client may take to read the next 128 KiB; 0
	// means 30 s.
	WriteTimeout time.Duration
	// TransferTimeout is how long a transfer may last; 0 means 2 h.
	TransferTimeout time.Duration
	// Grace is how long answers under way may go on when the server stops; 0
	// means 5 s.
	Grace time.Duration
}

// Listeners opens sockets as net.ListenConfig does, or takes those that were
// opened for this process before it began.
type Listeners interface {
	Listen(ctx context.Context, network, address string) (net.Listener, error)
	ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error)
}

// withDefaults fills in what was left at zero.
func (c Config) withDefaults() Config {
	for _, n := range []struct {
		value *int
		other int
	}{{&c.MaxConns, 512}, {&c.MaxConnsPerAddr, 64}, {&c.MaxTransfers, 32}} {
		if *n.value <= 0 {
			*n.value = n.other
		}
	}
	for _, d := range []struct {
		value *time.Duration
		other time.Duration
	}{
		{&c.IdleTimeout, 30 * time.Second},
		{&c.WriteTimeout, 30 * time.Second},
		{&c.TransferTimeout, 2 * time.Hour},
		{&c.Grace, 5 * time.Second},
	} {
		if *d.value <= 0 {
			*d.value = d.other
		}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Listeners == nil {
		c.Listeners = new(net.ListenConfig)
	}
	return c
}

// Server answers SOA, AXFR and IXFR queries, NOTIFY and UPDATE over UDP, TCP and TLS.
// Make it with NewServer, add listeners with Listen and ListenTLS, then Run it
// once.
type Server struct {
	cfg       Config
	log       *slog.Logger
	transfers chan struct{} // one entry a transfer under way
	updating  chan struct{} // one entry an update over UDP under way
	long      chan struct{} // one entry a long update over TCP under way
	blocks    sync.Pool     // of *[2][]byte: the two blocks of a transfer
	encoders  sync.Pool     // of *encoder
	stats     counters
	refusals  throttle
	broken    throttle
	faults    throttle
	notifies  throttle
	stopping  atomic.Bool
	answering sync.WaitGroup // one a TCP connection

	conns *connSet

	mu      sync.Mutex
	doors   []door // guarded by mu
	started bool   // guarded by mu
}

// NewServer makes a server without listeners.
func NewServer(cfg Config) (*Server, error) {
	if cfg.Source == nil {
		return nil, errors.New("transfer server without a source of zones")
	}
	s := &Server{cfg: cfg.withDefaults()}
	s.log = s.cfg.Logger
	s.transfers = make(chan struct{}, s.cfg.MaxTransfers)
	s.updating, s.long = make(chan struct{}, maxUpdating), make(chan struct{}, maxUpdating)
	s.blocks.New = func() any {
		return &[2][]byte{make([]byte, 0, blockSize), make([]byte, 0, blockSize)}
	}
	s.encoders.New = func() any { return new(encoder) }
	s.conns = newConnSet(s.cfg.MaxConns, s.cfg.MaxConnsPerAddr)
	return s, nil
}
