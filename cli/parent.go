package cli

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"sluice/keymgr"
	"sluice/pipeline/observe"
	"sluice/signer/zone"
)

// resolvConf is where the machine says which resolvers to ask.
const resolvConf = "/etc/resolv.conf"

// resolverList gives the resolvers of the config, else those of resolv.conf as
// they are when they are asked.
func resolverList(named []string, path string) func() ([]netip.AddrPort, error) {
	return func() ([]netip.AddrPort, error) {
		if len(named) == 0 {
			return resolvers(path)
		}
		var out []netip.AddrPort
		for _, text := range named {
			ap, err := parseResolver(text)
			if err != nil {
				return nil, err
			}
			out = append(out, ap)
		}
		return out, nil
	}
}

// parseResolver reads IP[:PORT].
func parseResolver(text string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.AddrPortFrom(a, 53), nil
	}
	ap, err := netip.ParseAddrPort(text)
	if err != nil || ap.Port() == 0 {
		return ap, fmt.Errorf("resolver %q: want IP or IP:PORT such as 192.0.2.1 or [2001:db8::1]:53", text)
	}
	return ap, nil
}

// resolvers reads the name server lines of a resolv.conf.
func resolvers(path string) ([]netip.AddrPort, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var out []netip.AddrPort
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(fields[1]); err == nil {
			out = append(out, netip.AddrPortFrom(a, 53))
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s names no resolver", path)
	}
	return out, nil
}

// newObserver asks the resolvers of the config, else those of resolv.conf, and
// trusts the config's anchors, else the root's.
func newObserver(cfg daemonConfig, path string) (*observe.Observer, error) {
	var anchors []observe.Anchor
	for _, text := range cfg.TrustAnchors {
		a, err := observe.ParseAnchor(text)
		if err != nil {
			return nil, err
		}
		anchors = append(anchors, a)
	}
	return observe.New(observe.Config{Resolvers: resolverList(cfg.Resolvers, path), Anchors: anchors}), nil
}

// openObserver makes the observer of the config.
func (s *serving) openObserver() error {
	o, err := newObserver(s.cfg.Daemon, resolvConf)
	s.observer.Store(o)
	return err
}

// The ways to ask the world's servers, by the observer of the present config.

func (s *serving) observe(ctx context.Context, q observe.Question) keymgr.Observation {
	return s.observer.Load().Observe(ctx, q)
}

func (s *serving) agents(ctx context.Context, child zone.Name, now time.Time) (observe.Agents, error) {
	return s.observer.Load().Agents(ctx, child, now)
}

// resolve finds the addresses of a host by its name as text.
func (s *serving) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	name, err := zone.ParseName(host)
	if err != nil {
		return nil, err
	}
	return s.observer.Load().Addresses(ctx, name)
}
