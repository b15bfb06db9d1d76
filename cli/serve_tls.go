package cli

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"

	"sluice/xfr"
)

// tlsConfig is how zones go in and out over TLS (RFC 9103).
type tlsConfig struct {
	Servers     []string `toml:"servers"`
	Certificate string   `toml:"certificate"`
	Key         string   `toml:"key"`
	ClientRoots string   `toml:"client-roots"`
	Roots       string   `toml:"roots"`
}

// check finds values that cannot work; nil where there are none.
func (c *tlsConfig) check() *badValue {
	if (c.Certificate == "") != (c.Key == "") {
		return &badValue{key: "server.tls.certificate", text: "certificate and key belong together: set both or neither"}
	}
	for _, s := range c.Servers {
		if err := checkListen(s); err != nil {
			return &badValue{key: "server.tls.servers", value: s, text: err.Error()}
		}
	}
	return nil
}

// security is what this process proves itself with, and trusts others by.
type security struct {
	certificate *xfr.Certificate // nil where nothing asks for one
	clients     *x509.CertPool   // nil asks clients for nothing
	servers     *x509.CertPool   // nil is the system's
}

// openTLS reads the certificates. Without files named in the config, the
// listeners have a self-signed certificate in the keys folder.
func (s *serving) openTLS() (err error) {
	c := s.cfg.Server.TLS
	if c.ClientRoots != "" {
		if s.secure.clients, err = xfr.ReadRoots(c.ClientRoots); err != nil {
			return err
		}
	}
	if c.Roots != "" {
		if s.secure.servers, err = xfr.ReadRoots(c.Roots); err != nil {
			return err
		}
	}
	switch {
	case c.Certificate != "":
		s.secure.certificate, err = xfr.LoadCertificate(c.Certificate, c.Key)
	case len(c.Servers) > 0:
		s.secure.certificate, err = xfr.OwnCertificate(filepath.Join(s.data.keys(), "tls"), namesFor(s.cfg.Server.TLS.Servers))
	}
	return err
}

// namesFor is what a certificate of our own for listeners is for.
func namesFor(addresses []string) []string {
	var names []string
	if host, err := os.Hostname(); err == nil {
		names = append(names, host)
	}
	for _, address := range addresses {
		host, _, err := net.SplitHostPort(address)
		if ip := net.ParseIP(host); err == nil && ip != nil && !ip.IsUnspecified() {
			names = append(names, host)
		}
	}
	return names
}

// listenTLS opens the listeners of publication over TLS.
func (s *serving) listenTLS(ctx context.Context) error {
	for _, address := range s.cfg.Server.TLS.Servers {
		bound, err := s.xfr.ListenTLS(ctx, address, s.secure.certificate)
		if err != nil {
			return withHint(errors.Join(err, s.xfr.Close()), "choose another address with --listen-tls IP:PORT")
		}
		s.listensTLS = append(s.listensTLS, bound)
	}
	return nil
}
