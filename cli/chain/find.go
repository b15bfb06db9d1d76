package chain

import (
	"context"
	"net/netip"
	"slices"
	"sync"

	"sluice/keymgr/validate"
	"sluice/signer/zone"
)

// rootHints are the root's name servers (IANA's named.root).
func rootHints() []hint {
	return []hint{
		{"a", "198.41.0.4", "2001:503:ba3e::2:30"},
		{"b", "170.247.170.2", "2801:1b8:10::b"},
		{"c", "192.33.4.12", "2001:500:2::c"},
		{"d", "199.7.91.13", "2001:500:2d::d"},
		{"e", "192.203.230.10", "2001:500:a8::e"},
		{"f", "192.5.5.241", "2001:500:2f::f"},
		{"g", "192.112.36.4", "2001:500:12::d0d"},
		{"h", "198.97.190.53", "2001:500:1::53"},
		{"i", "192.36.148.17", "2001:7fe::53"},
		{"j", "192.58.128.30", "2001:503:c27::2:30"},
		{"k", "193.0.14.129", "2001:7fd::1"},
		{"l", "199.7.83.42", "2001:500:9f::42"},
		{"m", "202.12.27.33", "2001:dc3::35"},
	}
}

type hint struct{ letter, v4, v6 string }

// firstServers are those at which the way down begins.
func (w *walk) firstServers() []*server {
	if w.cfg.Resolver.IsValid() {
		return []*server{{name: "resolver", addr: w.cfg.Resolver}}
	}
	var out []*server
	for _, at := range w.cfg.Roots {
		out = append(out, &server{name: "hint", addr: at})
	}
	if len(out) > 0 {
		return out
	}
	for _, h := range rootHints() {
		for _, text := range []string{h.v4, h.v6} {
			if addr, err := netip.ParseAddr(text); err == nil {
				out = append(out, &server{name: h.letter + ".root-servers.net.", addr: netip.AddrPortFrom(addr, w.port)})
			}
		}
	}
	return out
}

// delegation is whom a zone's name servers are said to be.
type delegation struct {
	apex  zone.Name
	names []zone.Name
	glue  map[zone.Name][]netip.Addr
}

// delegationOf reads an NS RRset and the addresses beside it. Glue counts where
// the zone above may know it.
func delegationOf(set *validate.RRset, extras []validate.RRset, above zone.Name) delegation {
	d := delegation{apex: set.Owner.Fold(), glue: map[zone.Name][]netip.Addr{}}
	for _, data := range set.Data[:min(len(set.Data), maxServers)] {
		name, err := zone.NameFromWire(data)
		if err != nil {
			continue
		}
		name = name.Fold()
		d.names = append(d.names, name)
		if !name.Under(above) {
			continue
		}
		for _, t := range []zone.Type{zone.TypeA, zone.TypeAAAA} {
			if glue := validate.Find(extras, name, t); glue != nil {
				d.glue[name] = append(d.glue[name], addresses(glue)...)
			}
		}
	}
	slices.Sort(d.names)
	d.names = slices.Compact(d.names)
	return d
}

// addresses are those of an A or AAAA RRset.
func addresses(set *validate.RRset) []netip.Addr {
	var out []netip.Addr
	for _, data := range set.Data[:min(len(set.Data), maxAddresses)] {
		if addr, ok := netip.AddrFromSlice(data); ok {
			out = append(out, addr.Unmap())
		}
	}
	return out
}

// servers finds the addresses of a delegation's servers: the glue, else what
// the DNS says. without names those that have none.
func (w *walk) servers(ctx context.Context, d delegation, depth int) (found []*server, without []zone.Name) {
	if w.cfg.Resolver.IsValid() {
		return w.first, nil
	}
	all := make([][]netip.Addr, len(d.names))
	var work sync.WaitGroup
	for i, name := range d.names {
		if glue := d.glue[name]; len(glue) > 0 {
			all[i] = glue
			continue
		}
		work.Go(func() { all[i] = w.hosts.find(ctx, w, name, depth) })
	}
	work.Wait()
	for i, name := range d.names {
		if len(all[i]) == 0 {
			without = append(without, name)
		}
		for _, addr := range all[i] {
			at := netip.AddrPortFrom(addr, w.port)
			if len(found) < maxAddresses && !slices.ContainsFunc(found, func(s *server) bool { return s.addr == at }) {
				found = append(found, &server{name: name.String(), addr: at})
			}
		}
	}
	return found, without
}

// hosts remembers addresses of name servers.
type hosts struct {
	mu    sync.Mutex
	known map[zone.Name]*host // guarded by mu
}

type host struct {
	done  chan struct{}
	addrs []netip.Addr // once done
}

// find looks a host's addresses up, once for all who ask; none where there are
// too many hosts, or the way is too long. Who waits for what waits for itself
// is let go by depth: each look-up asks with more depth than the one before.
func (h *hosts) find(ctx context.Context, w *walk, name zone.Name, depth int) []netip.Addr {
	if depth > maxDepth {
		return nil
	}
	h.mu.Lock()
	one, ok := h.known[name]
	if !ok {
		if len(h.known) >= maxHosts {
			h.mu.Unlock()
			return nil
		}
		one = &host{done: make(chan struct{})}
		h.known[name] = one
	}
	h.mu.Unlock()
	if !ok {
		one.addrs = w.lookUp(ctx, name, depth)
		close(one.done)
		return one.addrs
	}
	select {
	case <-one.done:
		return one.addrs
	case <-ctx.Done():
		return nil
	default:
	}
	if depth > 0 {
		// It is being looked up, maybe by ourselves: two that wait for each other
		// would wait for ever.
		return w.lookUp(ctx, name, depth+1)
	}
	select {
	case <-one.done:
		return one.addrs
	case <-ctx.Done():
		return nil
	}
}

// lookUp finds the addresses of a host without validation, as a resolver would.
func (w *walk) lookUp(ctx context.Context, name zone.Name, depth int) []netip.Addr {
	var v4, v6 []netip.Addr
	var work sync.WaitGroup
	work.Go(func() { v4 = w.lookUpType(ctx, name, zone.TypeA, depth, maxAliases) })
	work.Go(func() { v6 = w.lookUpType(ctx, name, zone.TypeAAAA, depth, maxAliases) })
	work.Wait()
	out := append(v4, v6...)
	return out[:min(len(out), maxAddresses)]
}

func (w *walk) lookUpType(ctx context.Context, name zone.Name, t zone.Type, depth, aliases int) []netip.Addr {
	apex, at := w.nearest(name)
	for range maxDelegations {
		r := w.anyOf(ctx, at, question{name: name, t: t})
		if r == nil {
			return nil
		}
		if set := r.of(name, t); set != nil {
			return addresses(set)
		}
		if alias := r.of(name, zone.TypeCNAME); alias != nil {
			target, err := zone.NameFromWire(alias.Data[0])
			if err != nil || aliases == 0 || depth > maxDepth {
				return nil
			}
			return w.lookUpType(ctx, target.Fold(), t, depth+1, aliases-1)
		}
		set := r.referral(apex)
		if set == nil || !name.Under(set.Owner) {
			return nil
		}
		d := delegationOf(set, r.extras, apex)
		next, _ := w.servers(ctx, d, depth+1)
		if len(next) == 0 {
			return nil
		}
		apex, at = d.apex, next
	}
	return nil
}

// maxTurned bounds how many servers are asked in turn for an address. Those of
// which it is known that they do not answer do not count.
const maxTurned = 8

// anyOf is the first answer of servers that is one.
func (w *walk) anyOf(ctx context.Context, servers []*server, q question) *reply {
	turned := 0
	for _, s := range servers {
		known := s.isDead()
		r := w.ask.ask(ctx, s, q)
		if r.problem == nil {
			return r
		}
		if !known && r.problem.code != CodeServerUnreachable {
			turned++
		}
		if turned == maxTurned || ctx.Err() != nil {
			return nil
		}
	}
	return nil
}

// nearest is the closest zone above a name whose servers are known.
func (w *walk) nearest(name zone.Name) (zone.Name, []*server) {
	w.mu.Lock()
	defer w.mu.Unlock()
	apex, servers := w.start, w.first
	for known, list := range w.known {
		if name.Under(known) && len(known) > len(apex) && len(list) > 0 {
			apex, servers = known, list
		}
	}
	return apex, servers
}
