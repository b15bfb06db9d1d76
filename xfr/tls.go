package xfr

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"
)

// alpnDoT is the protocol that XoT negotiates (RFC 9103, 7.1).
const alpnDoT = "dot"

// ErrOtherKey reports a server whose public key is none of those pinned.
var ErrOtherKey = errors.New("the server's public key is none of those pinned")

// clientTLS is how a server is spoken to that must prove itself as peer says.
// own, where not nil, is shown to a server that asks for a certificate.
func clientTLS(peer *TLSPeer, roots *x509.CertPool, own *Certificate) *tls.Config {
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS13, // RFC 9103, 7.1
		NextProtos: []string{alpnDoT},
		ServerName: peer.Name,
		RootCAs:    roots,
	}
	if own != nil {
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own.get(nil) }
	}
	pins := peer.Pins
	if len(pins) > 0 {
		cfg.VerifyConnection = func(state tls.ConnectionState) error {
			hash := sha256.Sum256(state.PeerCertificates[0].RawSubjectPublicKeyInfo)
			if !slices.Contains(pins, hash) {
				return ErrOtherKey
			}
			return nil
		}
		// A pinned key alone says who the server is (RFC 7858, 4.2).
		cfg.InsecureSkipVerify = peer.Name == "" //nolint:gosec // VerifyConnection compares the pin
	}
	return cfg
}

// TLSProof is what a server proved itself by.
type TLSProof struct {
	// Pin is that of its public key, as endpoints have it: sha256: and base64.
	Pin string
	// Certificate is the SHA-256 of its certificate.
	Certificate [sha256.Size]byte
	// Name is what the certificate was valid for up to a trusted root; empty
	// where that was not asked.
	Name string
}

// proofOf is what the server at the other end proved itself by; nil where it
// speaks clear text.
func proofOf(conn net.Conn, peer *TLSPeer) *TLSProof {
	secure, ok := conn.(*tls.Conn)
	if !ok || peer == nil {
		return nil
	}
	certs := secure.ConnectionState().PeerCertificates
	if len(certs) == 0 {
		return nil
	}
	key := sha256.Sum256(certs[0].RawSubjectPublicKeyInfo)
	return &TLSProof{
		Pin: pinScheme + base64.StdEncoding.EncodeToString(key[:]), Certificate: sha256.Sum256(certs[0].Raw), Name: peer.Name,
	}
}

// ListenTLS opens an address for XoT (RFC 9103) as Listen does for clear
// text: TLS 1.3 with the protocol "dot" alone, and where Config.ClientRoots is
// set, for clients that prove themselves by a certificate.
func (s *Server) ListenTLS(ctx context.Context, addr string, cert *Certificate) (netip.AddrPort, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.started {
		return netip.AddrPort{}, fmt.Errorf("listen on %s: server already runs", addr)
	}
	l, err := s.cfg.Listeners.Listen(ctx, "tcp"+familyOf(addr), addr)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("listen on %s: %w", addr, err)
	}
	secure := &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{alpnDoT},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			own, err := cert.get(hello)
			if trouble := cert.trouble(time.Now()); trouble != nil {
				s.log.WarnContext(hello.Context(), "certificate wants renewal", "error", trouble)
			}
			return own, err
		},
	}
	if s.cfg.ClientRoots != nil {
		secure.ClientAuth, secure.ClientCAs = tls.RequireAndVerifyClientCert, s.cfg.ClientRoots
	}
	s.doors = append(s.doors, door{tcp: l, tls: secure})
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

// nameOf is what a client proved to be; empty where it was not asked.
func nameOf(state tls.ConnectionState) string {
	if len(state.VerifiedChains) == 0 {
		return ""
	}
	cert := state.PeerCertificates[0]
	if len(cert.DNSNames) > 0 {
		return cert.DNSNames[0]
	}
	return cert.Subject.CommonName
}

var errNoALPN = errors.New("the client does not ask for the protocol " + alpnDoT)
