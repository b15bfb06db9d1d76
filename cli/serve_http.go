package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"sluice/cli/api"
	"sluice/cli/web"
	"sluice/xfr"
)

// httpConfig is the API, the web page and the metrics on the network.
type httpConfig struct {
	Servers     []string   `toml:"servers"`
	Certificate string     `toml:"certificate"`
	Key         string     `toml:"key"`
	MetricsFrom []string   `toml:"metrics-from"`
	Limits      httpLimits `toml:"limits"`
}

// httpLimits bounds what callers can ask for.
type httpLimits struct {
	Requests    int `toml:"requests"`
	Burst       int `toml:"burst"`
	Failures    int `toml:"failures"`
	Connections int `toml:"connections"`
}

func defaultHTTP() httpConfig {
	return httpConfig{
		Servers: []string{}, MetricsFrom: []string{},
		Limits: httpLimits{Requests: 100, Burst: 1000, Failures: 30, Connections: 512},
	}
}

// check finds values that cannot work; nil where there are none.
func (c *httpConfig) check() *badValue {
	if (c.Certificate == "") != (c.Key == "") {
		return &badValue{key: "http.certificate", text: "certificate and key belong together: set both or neither"}
	}
	for _, s := range c.Servers {
		if err := checkListen(s); err != nil {
			return &badValue{key: "http.servers", value: s, text: err.Error()}
		}
	}
	if _, err := c.metricsFrom(); err != nil {
		return err
	}
	l := c.Limits
	for _, limit := range []struct {
		name string
		n    int
	}{{"requests", l.Requests}, {"burst", l.Burst}, {"failures", l.Failures}, {"connections", l.Connections}} {
		if limit.n < 1 || limit.n > 1_000_000 {
			return &badValue{key: "http.limits." + limit.name, text: fmt.Sprintf("%s = %d: want 1 to 1000000", limit.name, limit.n)}
		}
	}
	return nil
}

// metricsFrom is whom the metrics are for without a token.
func (c *httpConfig) metricsFrom() ([]netip.Prefix, *badValue) {
	var out []netip.Prefix
	for _, text := range c.MetricsFrom {
		prefix, err := netip.ParsePrefix(text)
		if addr, aerr := netip.ParseAddr(text); err != nil && aerr == nil {
			prefix, err = addr.Prefix(addr.BitLen())
		}
		if err != nil {
			return nil, &badValue{key: "http.metrics-from", value: text, text: fmt.Sprintf(`metrics-from %q: want an address or a prefix such as "192.0.2.0/24"`, text)}
		}
		out = append(out, prefix.Masked())
	}
	return out, nil
}

// httpDoor is the network's way to the API.
type httpDoor struct {
	certificate *xfr.Certificate
	own         bool // the certificate is one of ours: its pin is what proves it
	listeners   []net.Listener
	gate        *api.Gate
	room        *connLimit
	open        atomic.Pointer[[]netip.Prefix] // whom the metrics are for without a token
}

// setLimits replaces what callers can ask for.
func (d *httpDoor) setLimits(l httpLimits) {
	d.gate.SetLimits(l.Requests, l.Burst, l.Failures)
	d.room.set(l.Connections)
}

// gateHTTP makes what callers from the network have to pass.
func (s *serving) gateHTTP() error {
	open, bad := s.cfg.HTTP.metricsFrom()
	if bad != nil {
		return bad
	}
	s.http.open.Store(&open)
	limits := s.cfg.HTTP.Limits
	s.http.gate = api.NewGate(api.GateConfig{
		Engine: s.engine, Logger: s.log.With("part", "http"), Requests: limits.Requests, Burst: limits.Burst, Failures: limits.Failures,
	})
	s.http.room = newConnLimit(limits.Connections)
	return nil
}

// openHTTP reads the certificate of the HTTP listeners, or makes one of our own
// in the keys folder.
func (s *serving) openHTTP() (err error) {
	c := s.cfg.HTTP
	switch {
	case len(c.Servers) == 0:
	case c.Certificate != "":
		s.http.certificate, err = xfr.LoadCertificate(c.Certificate, c.Key)
	default:
		s.http.own = true
		s.http.certificate, err = xfr.OwnCertificate(filepath.Join(s.data.keys(), "http"), append(namesFor(c.Servers), "localhost"))
	}
	return err
}

// listenHTTP opens the HTTP listeners.
func (s *serving) listenHTTP(ctx context.Context) error {
	for _, address := range s.cfg.HTTP.Servers {
		l, err := s.sockets.Listen(ctx, "tcp", address)
		if err != nil {
			return withHint(errors.Join(fmt.Errorf("listen for HTTP: %w", err), s.closeHTTP()), "choose another address with --http IP:PORT")
		}
		s.http.listeners = append(s.http.listeners, l)
	}
	return nil
}

func (s *serving) closeHTTP() (err error) {
	for _, l := range s.http.listeners {
		err = errors.Join(err, l.Close())
	}
	return err
}

// httpURLs is where the API is reached, as sluice --api takes it but for the pin.
func (s *serving) httpURLs() []string {
	var urls []string
	for _, l := range s.http.listeners {
		urls = append(urls, "https://"+l.Addr().String())
	}
	return urls
}

// httpPin is what proves a certificate of our own; "" where another one is in use.
func (s *serving) httpPin() string {
	if !s.http.own {
		return ""
	}
	return s.http.certificate.Pin()
}

// httpAlarms is what is wrong with the listeners' certificate.
func (s *serving) httpAlarms() []string {
	if len(s.http.listeners) == 0 {
		return nil
	}
	if text := s.http.certificate.Alarm(time.Now()); text != "" {
		return []string{"API on the network: " + text}
	}
	return nil
}

// newHTTPServer makes a server with the bounds that all of ours have.
func newHTTPServer(ctx context.Context, h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 100},
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// serveHTTP answers on the network until ctx ends: the API and the metrics to
// those with a token. Connections of this machine may come without TLS.
func (s *serving) serveHTTP(ctx context.Context, g *errgroup.Group, handler, metrics http.Handler) error {
	if len(s.http.listeners) == 0 {
		return nil
	}
	log := s.log.With("part", "http")
	g.Go(func() error {
		s.http.gate.Run(ctx)
		return nil
	})
	paths, err := s.httpPaths(handler, metrics)
	if err != nil {
		return err
	}
	// Two, since one that serves both ways at once may forget HTTP/2.
	secure, plain := newHTTPServer(ctx, paths, log), newHTTPServer(ctx, paths, log)
	secure.TLSConfig = s.http.certificate.ServerTLS()
	for _, l := range s.http.listeners {
		split := newSplitter(l, s.http.room)
		g.Go(func() error { return split.run(ctx) })
		g.Go(func() error { return notClosed(secure.ServeTLS(split.secure, "", "")) })
		g.Go(func() error { return notClosed(plain.Serve(split.plain)) })
	}
	g.Go(func() error { return stopServer(ctx, secure) })
	g.Go(func() error { return stopServer(ctx, plain) })
	return nil
}

// httpPaths is what stands where on the network.
func (s *serving) httpPaths(handler, metrics http.Handler) (http.Handler, error) {
	gate := s.http.gate
	page, err := web.Handler(web.Config{API: handler, Authenticate: gate.Authenticate, Logger: s.log.With("part", "web")})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle(metricsPath, gate.Require(api.RoleViewer, func() []netip.Prefix { return *s.http.open.Load() }, metrics))
	mux.Handle(api.Prefix+"/", gate.Wrap(handler))
	mux.Handle("/", gate.Watch(page))
	return mux, nil
}

// notClosed is the error of a server that was not asked to end.
func notClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) { // what ended the listener says so itself
		return nil
	}
	return err
}

// stopServer ends a server with ctx; requests may go on for a little while.
func stopServer(ctx context.Context, server *http.Server) error {
	<-ctx.Done()
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if err := server.Shutdown(stop); err != nil {
		return server.Close()
	}
	return nil
}

// httpLines says where the API and the page are.
func httpLines(info servingInfo) string {
	var b strings.Builder
	for _, url := range info.HTTP {
		if info.HTTPPin != "" {
			url += "#" + info.HTTPPin
		}
		fmt.Fprintf(&b, "API on %s, with a token: sluice help access\n", url)
	}
	return b.String()
}
