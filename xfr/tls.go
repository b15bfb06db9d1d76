package xfr

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"slices"
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
