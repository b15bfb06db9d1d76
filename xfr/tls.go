package xfr

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"
)

// alpnDoT is the protocol that XoT negotiates (RFC 9103, 7.1).
const alpnDoT = "dot"

var errOtherKeyPin = errors.New("the server's public key is none of those pinned")

// clientTLS is how a server is spoken to that must prove itself as peer says.
func clientTLS(peer *TLSPeer, roots *x509.CertPool) *tls.Config {
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS13, // RFC 9103, 7.1
		NextProtos: []string{alpnDoT},
		ServerName: peer.Name,
		RootCAs:    roots,
	}
	pins := peer.Pins
	if len(pins) > 0 {
		cfg.VerifyConnection = func(state tls.ConnectionState) error {
			hash := sha256.Sum256(state.PeerCertificates[0].RawSubjectPublicKeyInfo)
			if !slices.Contains(pins, hash) {
				return errOtherKeyPin
			}
			return nil
		}
		// A pinned key alone says who the server is (RFC 7858, 4.2).
		cfg.InsecureSkipVerify = peer.Name == "" //nolint:gosec // VerifyConnection compares the pin
	}
	return cfg
}

// certificateLook is how long a certificate is used before its files are
// looked at again.
const certificateLook = time.Minute

// Certificate is a server's certificate with its key, from files in PEM form.
// Files that change are read again within a minute; while what they hold
// cannot be used, the certificate before stays in use.
type Certificate struct {
	certFile, keyFile string

	mu     sync.Mutex
	cert   *tls.Certificate // guarded by mu
	read   [2]fileState     // guarded by mu: the files as they were read
	looked time.Time        // guarded by mu
	err    error            // guarded by mu: why newer files are not used
}

// fileState tells one content of a file from another.
type fileState struct {
	modified time.Time
	size     int64
}

// LoadCertificate reads a certificate chain and its private key.
func LoadCertificate(certFile, keyFile string) (*Certificate, error) {
	c := &Certificate{certFile: certFile, keyFile: keyFile}
	if err := c.load(); err != nil {
		return nil, err
	}
	c.looked = time.Now()
	return c, nil
}

// Err is why files that changed are not used; nil where they are.
func (c *Certificate) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// load reads the files where they changed. The caller holds mu or is alone.
func (c *Certificate) load() error {
	var now [2]fileState
	for i, name := range []string{c.certFile, c.keyFile} {
		info, err := os.Stat(name)
		if err != nil {
			return fmt.Errorf("read certificate: %w", err)
		}
		now[i] = fileState{info.ModTime(), info.Size()}
	}
	if c.cert != nil && now == c.read {
		return nil
	}
	cert, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("read certificate %q with key %q: %w", c.certFile, c.keyFile, err)
	}
	c.cert, c.read = &cert, now
	return nil
}

// get implements tls.Config.GetCertificate.
func (c *Certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.looked) >= certificateLook {
		c.looked = now
		c.err = c.load()
	}
	return c.cert, nil
}

// ListenTLS opens an address for XoT (RFC 9103) as Listen does for clear
// text: TLS 1.3 with the protocol "dot" alone.
func (s *Server) ListenTLS(ctx context.Context, addr string, cert *Certificate) (netip.AddrPort, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.started {
		return netip.AddrPort{}, fmt.Errorf("listen on %s: server already runs", addr)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp"+familyOf(addr), addr)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("listen on %s: %w", addr, err)
	}
	s.doors = append(s.doors, door{tcp: l, tls: &tls.Config{
		MinVersion:     tls.VersionTLS13,
		NextProtos:     []string{alpnDoT},
		GetCertificate: cert.get,
	}})
	return l.Addr().(*net.TCPAddr).AddrPort(), nil
}

// serveTLS serves a connection once it is secure.
func (s *Server) serveTLS(ctx context.Context, c net.Conn, cfg *tls.Config) {
	secure := tls.Server(c, cfg)
	limit, cancel := context.WithTimeout(ctx, s.cfg.IdleTimeout)
	err := secure.HandshakeContext(limit)
	cancel()
	if err == nil && secure.ConnectionState().NegotiatedProtocol != alpnDoT {
		err = errNoALPN
	}
	if err != nil {
		s.stats.dropped.Add(1)
		if more, ok := s.refusals.allow(time.Now()); ok {
			s.log.InfoContext(ctx, "TLS connection refused", "peer", c.RemoteAddr().String(), "error", err, "unlogged", more)
		}
		_ = c.Close() // nothing was answered on it
		return
	}
	s.serveConn(ctx, secure)
}

var errNoALPN = errors.New("the client does not ask for the protocol " + alpnDoT)
