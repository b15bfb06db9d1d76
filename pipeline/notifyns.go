package pipeline

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sluice/pipeline/store"
	"sluice/signer/zone"
	"sluice/xfr"
)

const (
	// maxNameServers and maxAddresses bound whom a zone's NS RRset has told.
	maxNameServers = 64
	maxAddresses   = 8
	// nsPort is where servers of NS records are.
	nsPort = 53
)

// announceNS tells the servers of the published NS RRset, in place of those
// of the one before. The caller holds mu.
func (r *runner) announceNS(ctx context.Context) {
	r.e.start(func(context.Context) {
		names, err := r.nameServers()
		if err != nil {
			if !errors.Is(err, store.ErrNoInstance) && !errors.Is(err, xfr.ErrUnknownZone) {
				r.e.log.WarnContext(ctx, "name servers not told", "zone", r.snapshot().Name, "error", err)
			}
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if ctx.Err() != nil {
			return // another announcement has taken over
		}
		for server, st := range r.out.told {
			if st.Name != "" && !slices.ContainsFunc(names, func(n zone.Name) bool { return n.String() == st.Name }) {
				delete(r.out.told, server)
			}
		}
		for _, name := range names {
			r.tellNameServer(ctx, name, 1)
		}
	})
}

// nameServers are the targets of the published NS RRset, in lower case, but
// the one that the SOA names as the primary (RFC 1996, 2.1).
func (r *runner) nameServers() (names []zone.Name, err error) {
	v, err := r.e.store.Published(r.id)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.e.note(v.Close())) }()
	_, soa := v.SOA()
	var primary zone.Name
	for data := range recordsOf(soa) {
		primary = firstName(data)
	}
	value, err := v.Get(zone.AppendKey(nil, zone.KindContents, v.Apex(), zone.TypeNS))
	if err != nil {
		return nil, r.e.note(err)
	}
	for data := range recordsOf(value) {
		name := firstName(data).Fold()
		if name != "" && !name.Equal(primary) && !slices.Contains(names, name) && len(names) < maxNameServers {
			names = append(names, name)
		}
	}
	return names, nil
}

// firstName is the name that RDATA begins with, uncompressed; "" where it
// does not.
func firstName(data []byte) zone.Name {
	for at := 0; at < len(data); at += 1 + int(data[at]) {
		if data[at] == 0 {
			return zone.Name(data[:at+1])
		}
	}
	return ""
}

// tellNameServer finds the addresses of a name server, when its turn comes,
// trying again until it does, and tells each of them.
func (r *runner) tellNameServer(ctx context.Context, name zone.Name, try int) {
	r.e.naming.add(r.e, "", func(context.Context) { r.tellNameServerNow(ctx, name, try) })
}

func (r *runner) tellNameServerNow(ctx context.Context, name zone.Name, try int) {
	if ctx.Err() != nil {
		return
	}
	host := name.String()
	addrs, err := r.addressesOf(ctx, name)
	if ctx.Err() != nil {
		return
	}
	if err == nil {
		r.tellAddresses(ctx, host, addrs)
		return
	}
	again := r.e.clock.Now().Add(min(time.Minute<<(try-1), time.Hour))
	r.mu.Lock()
	if ctx.Err() == nil {
		st := &SecondaryStatus{Server: host, Name: host, Tries: try, LastError: reasonOf(err)}
		if try < notifyTries {
			st.RetryAt = &again
		}
		r.out.told[host] = st
	}
	r.mu.Unlock()
	r.e.log.WarnContext(ctx, "address of a name server not found", "zone", r.snapshot().Name, "server", host, "try", try, "error", err)
	if try < notifyTries {
		r.e.later(ctx, again, func() { r.tellNameServer(ctx, name, try+1) })
	}
}

// tellAddresses tells each address of a name server that is not told as a
// server of the policy anyway.
func (r *runner) tellAddresses(ctx context.Context, host string, addrs []netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	servers := map[string]xfr.Endpoint{}
	for _, a := range addrs[:min(len(addrs), maxAddresses)] {
		ep := xfr.Endpoint{Addr: netip.AddrPortFrom(a.Unmap(), nsPort)}
		servers[ep.String()] = ep
	}
	for server, st := range r.out.told {
		if _, ok := servers[server]; !ok && st.Name == host {
			delete(r.out.told, server)
		}
	}
	for server, ep := range servers {
		st, known := r.out.told[server]
		if known && (st.Name == "" || st.Name != host) {
			continue // by the policy, or as another name server
		}
		if !known {
			st = &SecondaryStatus{}
			r.out.told[server] = st
		}
		st.Server, st.Name = server, host
		r.tell(ctx, ep, 1)
	}
}

// addressesOf are the addresses of a name server: those in the zone, be they
// glue, else those that the resolvers know.
func (r *runner) addressesOf(ctx context.Context, name zone.Name) ([]netip.Addr, error) {
	addrs, err := r.ownAddresses(name)
	if err != nil || len(addrs) > 0 {
		return addrs, err
	}
	if r.e.cfg.Resolve == nil {
		return nil, errors.New("its address is not in the zone, and no resolver is known")
	}
	if err := take(ctx, r.e.checks); err != nil {
		return nil, err
	}
	defer give(r.e.checks)
	addrs, err = r.e.cfg.Resolve(ctx, name.String())
	if err == nil && len(addrs) == 0 {
		err = errors.New("it has no address")
	}
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", name, err)
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs), nil
}

// ownAddresses are a name's addresses in the published zone.
func (r *runner) ownAddresses(name zone.Name) (addrs []netip.Addr, err error) {
	v, err := r.e.store.Published(r.id)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.e.note(v.Close())) }()
	addrs, err = addressesIn(v, name)
	return addrs, r.e.note(err)
}

// addressesIn are a name's addresses in an instance.
func addressesIn(v *store.View, name zone.Name) (addrs []netip.Addr, err error) {
	if !name.Under(v.Apex().Fold()) {
		return nil, nil
	}
	for _, t := range []zone.Type{zone.TypeA, zone.TypeAAAA} {
		value, err := v.Get(zone.AppendKey(nil, zone.KindContents, name, t))
		if err != nil {
			return nil, err
		}
		for data := range recordsOf(value) {
			if a, ok := netip.AddrFromSlice(data); ok {
				addrs = append(addrs, a)
			}
		}
	}
	return addrs, nil
}

// bySecondary orders secondaries: those of the policy first, then name servers
// by name.
func bySecondary(a, b SecondaryStatus) int {
	if c := strings.Compare(a.Name, b.Name); c != 0 {
		return c
	}
	return strings.Compare(a.Server, b.Server)
}
