package observe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"sluice/keymgr/validate"
	"sluice/signer/zone"
)

const (
	// maxNames and maxAddresses bound whom an NS RRset makes us ask.
	maxNames     = 64
	maxAddresses = 8
	// maxAliases bounds the chain of CNAME records of an address.
	maxAliases = 8
)

// ErrNoResolver reports that no resolver is known.
var ErrNoResolver = errors.New("no resolver is known: name one in the config (daemon.resolvers)")

// resolve asks the resolvers one after the other until one knows.
func (o *Observer) resolve(ctx context.Context, name zone.Name, t zone.Type) (a answer, err error) {
	servers, err := o.resolvers()
	if err != nil {
		return a, err
	}
	q := question{name: name, t: t, recurse: true}
	for _, server := range servers {
		truncated := false
		a, truncated, err = o.askUDP(ctx, server, q)
		if truncated {
			a, err = o.askTCP(ctx, server, q)
		}
		if err == nil {
			return a, nil
		}
		err = fmt.Errorf("resolver %s, %s %s: %w", server, name, t, err)
		if ctx.Err() != nil {
			break
		}
	}
	return a, err
}

// askTCP asks one question on a session of its own.
func (o *Observer) askTCP(ctx context.Context, server netip.AddrPort, q question) (answer, error) {
	s, done, err := o.connect(ctx, server)
	if err != nil {
		return answer{}, err
	}
	defer done()
	return s.ask(ctx, q)
}

func (o *Observer) resolvers() ([]netip.AddrPort, error) {
	if o.cfg.Resolvers == nil {
		return nil, ErrNoResolver
	}
	servers, err := o.cfg.Resolvers()
	if err == nil && len(servers) == 0 {
		err = ErrNoResolver
	}
	return servers, err
}

// Addresses are those that resolvers find for a host, sorted; none is no
// error.
func (o *Observer) Addresses(ctx context.Context, host zone.Name) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, t := range []zone.Type{zone.TypeA, zone.TypeAAAA} {
		a, err := o.resolve(ctx, host, t)
		if err != nil {
			return nil, err
		}
		name := host
		for range maxAliases {
			alias := a.of(name, zone.TypeCNAME)
			if alias == nil {
				break
			}
			name = zone.Name(alias.Data[0])
		}
		if set := a.of(name, t); set != nil {
			for _, data := range set.Data {
				if addr, ok := netip.AddrFromSlice(data); ok {
					out = append(out, addr.Unmap())
				}
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out), nil
}

// zoneOf finds the zone that a name is in: the SOA that resolvers show for it
// is that zone's.
func (o *Observer) zoneOf(ctx context.Context, name zone.Name) (zone.Name, error) {
	a, err := o.resolve(ctx, name, zone.TypeSOA)
	if err != nil {
		return "", err
	}
	for _, sets := range [][]validate.RRset{a.records, a.authority} {
		for i := range sets {
			if sets[i].Type == zone.TypeSOA && name.Under(sets[i].Owner) {
				return sets[i].Owner.Fold(), nil
			}
		}
	}
	return "", fmt.Errorf("resolvers show no SOA for %s", name)
}

// Server is a name server.
type Server struct {
	// Name is shown; it is resolved where Addresses is empty.
	Name string
	// Addresses are where it is asked.
	Addresses []netip.AddrPort
}

// serversOf finds the servers of a zone's NS RRset by resolvers.
func (o *Observer) serversOf(ctx context.Context, apex zone.Name) ([]Server, error) {
	a, err := o.resolve(ctx, apex, zone.TypeNS)
	if err != nil {
		return nil, err
	}
	set := a.of(apex, zone.TypeNS)
	if set == nil {
		return nil, fmt.Errorf("resolvers find no name server of %s", apex)
	}
	var out []Server
	for _, data := range set.Data[:min(len(set.Data), maxNames)] {
		out = append(out, Server{Name: zone.Name(data).Fold().String()})
	}
	return out, nil
}
