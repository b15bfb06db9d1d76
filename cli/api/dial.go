package api

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"sluice/xfr"
)

// ClientConfig is how a daemon is reached.
type ClientConfig struct {
	// Address is unix:PATH; https://HOST:PORT, with #sha256:BASE64 where the
	// daemon proves itself by the pin of its public key instead of a certificate
	// that is trusted; or http://HOST:PORT where the host is this machine.
	Address string
	Token   string // for all but unix sockets
	Roots   string // file of certificates (PEM) that the daemon's is trusted by; "" is the system's
	Logger  *slog.Logger
}

// NewClient makes a client for the daemon at address, "unix:PATH". It does
// not connect yet.
func NewClient(address string, log *slog.Logger) (*Client, error) {
	return Dial(ClientConfig{Address: address, Logger: log})
}

// dialTime is how long a daemon elsewhere may take to be reached.
const dialTime = 10 * time.Second

// Dial makes a client. It does not connect yet; errors are about cfg, ErrRequest
// where an address cannot be read.
func Dial(cfg ClientConfig) (*Client, error) {
	c := &Client{at: cfg.Address, base: "http://sluice", log: cfg.Logger}
	dialer := &net.Dialer{Timeout: dialTime}
	transport := &http.Transport{DisableCompression: true, DialContext: dialer.DialContext}
	c.http = &http.Client{
		Transport: transport,
		// The token is for this daemon alone.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if socket, ok := strings.CutPrefix(cfg.Address, "unix:"); ok && socket != "" {
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		}
		return c, nil
	}
	address, pin, pinned := strings.Cut(cfg.Address, "#")
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || strings.Trim(u.Path, "/") != "" {
		return nil, fmt.Errorf("%w: API address %q: want unix:PATH, https://HOST:PORT or https://HOST:PORT#PIN", ErrRequest, cfg.Address)
	}
	c.at, c.base, c.token = u.Scheme+"://"+u.Host, u.Scheme+"://"+u.Host, cfg.Token
	if u.Scheme == "http" {
		if !onThisMachine(u.Hostname()) {
			return nil, fmt.Errorf("%w: API address %q: without TLS only to this machine, such as http://127.0.0.1:8080; else want https://HOST:PORT", ErrRequest, cfg.Address)
		}
		return c, nil
	}
	transport.ForceAttemptHTTP2 = true
	transport.TLSHandshakeTimeout = dialTime
	switch {
	case pinned:
		if transport.TLSClientConfig, err = xfr.PinnedTLS(pin); err != nil {
			return nil, fmt.Errorf("%w: API address %q: %w: want what sluice serve prints of it, such as #sha256:BASE64", ErrRequest, cfg.Address, err)
		}
	case cfg.Roots != "":
		transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS13}
		transport.TLSClientConfig.RootCAs, err = xfr.ReadRoots(cfg.Roots)
	default:
		transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS13}
	}
	return c, err
}

// onThisMachine reports whether what is sent to a host never leaves the machine.
func onThisMachine(host string) bool {
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.IsLoopback()
	}
	return strings.EqualFold(host, "localhost")
}
