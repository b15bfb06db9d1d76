package observe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"sluice/keymgr"
	"sluice/keymgr/validate"
	"sluice/signer/zone"
)

// Config is what an Observer is made with. At zero each has its default.
type Config struct {
	// Resolvers gives the resolvers to ask, in order; nil knows none.
	Resolvers func() ([]netip.AddrPort, error)
	// Anchors are what is trusted; nil are RootAnchors.
	Anchors []Anchor
	// Timeout is how long connecting to a server and each of its answers may
	// take; 0 means 5 s.
	Timeout time.Duration
	// Servers is how many servers are asked at a time in all, a quarter of it one
	// server by several zones; 0 means 64.
	Servers int
	// Dial opens connections; nil means net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// perZone is how many servers of one zone are asked at a time, so that no zone
// takes all places.
const perZone = 8

// Observer asks servers. All methods may be called at once; it holds connections
// for two seconds after the last question, and what it remembers is bounded.
type Observer struct {
	cfg   Config
	slots chan struct{}

	memo validate.Memo // of public servers' signatures
	kept kept

	mu     sync.Mutex
	visits map[netip.AddrPort]*visits // guarded by mu; whom somebody asks or is about to
	links  map[zone.Name]link         // guarded by mu; what was validated
	dead   map[netip.AddrPort]silence // guarded by mu; who did not answer lately
}

// New makes an Observer.
func New(cfg Config) *Observer {
	if cfg.Anchors == nil {
		cfg.Anchors = RootAnchors()
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 5 * time.Second
	}
	if cfg.Servers <= 0 {
		cfg.Servers = 64
	}
	if cfg.Dial == nil {
		cfg.Dial = new(net.Dialer).DialContext
	}
	return &Observer{
		cfg: cfg, slots: make(chan struct{}, cfg.Servers),
		kept:   kept{by: map[netip.AddrPort][]*idle{}},
		visits: map[netip.AddrPort]*visits{}, links: map[zone.Name]link{}, dead: map[netip.AddrPort]silence{},
	}
}

// Question is what to observe.
type Question struct {
	// Zone is the zone's name.
	Zone zone.Name
	// Servers are its public name servers; without any, only its parent is
	// asked.
	Servers []Server
	// Samples are RRsets whose signatures are looked at beside those of SOA and
	// DNSKEY.
	Samples []Sample
	// Parent are the parent's servers; without any, they are found by
	// resolvers.
	Parent []Server
	// SkipParent leaves the parent out.
	SkipParent bool
	// Now is the time at which signatures must be valid.
	Now time.Time
	// Fresh asks servers also where they did not answer a moment ago.
	Fresh bool
	// Find has resolvers find the zone's public name servers where Servers is
	// empty.
	Find bool
	// Tags notes the tags of the keys that the zone's servers show.
	Tags bool
}

// Sample is an RRset.
type Sample struct {
	Owner zone.Name
	Type  zone.Type
}

// maxSamples bounds what one server is asked for.
const maxSamples = 16

// Observe asks every address of every server, several at a time, and returns
// when all have answered or had their time. What does not answer stands in the
// observation with its error. Since is not filled in.
func (o *Observer) Observe(ctx context.Context, q Question) keymgr.Observation {
	q.Zone = q.Zone.Fold()
	q.Samples = q.Samples[:min(len(q.Samples), maxSamples)]
	obs := keymgr.Observation{At: q.Now}
	run := &round{o: o, q: q, places: make(chan struct{}, perZone)}
	var work sync.WaitGroup
	work.Go(func() { obs.Zone = run.zone(ctx) })
	if !q.SkipParent && q.Zone != zone.Root {
		work.Go(func() { obs.Parent = run.parent(ctx) })
	}
	work.Wait()
	share(obs.Zone)
	share(obs.Parent)
	return obs
}

// zone asks the zone's public name servers.
func (r *round) zone(ctx context.Context) []keymgr.Seen {
	servers := r.q.Servers
	if len(servers) == 0 && r.q.Find {
		var err error
		if servers, err = r.o.serversOf(ctx, r.q.Zone); err != nil {
			return []keymgr.Seen{{Server: UnknownServers, Error: fmt.Sprintf("the zone's servers are not known: %v", err)}}
		}
	}
	return r.ask(ctx, servers, r.zoneServer)
}

// UnknownServers stands for the zone's servers where they are not known.
const UnknownServers = "servers"

// share lets servers that show the same hold it once: an observation is kept
// for each zone.
func share(seen []keymgr.Seen) {
	for i := 1; i < len(seen); i++ {
		for j := range i {
			one, other := &seen[i], seen[j]
			if slices.Equal(one.Signed, other.Signed) {
				one.Signed = other.Signed
			}
			if slices.Equal(one.Keys, other.Keys) {
				one.Keys = other.Keys
			}
			if slices.Equal(one.CDS, other.CDS) {
				one.CDS = other.CDS
			}
			if slices.Equal(one.CDNSKEY, other.CDNSKEY) {
				one.CDNSKEY = other.CDNSKEY
			}
			if slices.Equal(one.DS, other.DS) {
				one.DS = slices.Clip(other.DS)
			}
		}
	}
}

// round is one observation.
type round struct {
	o      *Observer
	q      Question
	places chan struct{}
}

// ask asks every address of the servers and sorts what they say by server.
func (r *round) ask(ctx context.Context, servers []Server, fn func(context.Context, *session, *keymgr.Seen) error) []keymgr.Seen {
	var mu sync.Mutex
	var out []keymgr.Seen
	var work sync.WaitGroup
	for _, s := range servers[:min(len(servers), maxNames)] {
		work.Go(func() {
			found := r.one(ctx, s, fn)
			mu.Lock()
			out = append(out, found...)
			mu.Unlock()
		})
	}
	work.Wait()
	slices.SortFunc(out, func(a, b keymgr.Seen) int {
		if a.Server != b.Server {
			if a.Server < b.Server {
				return -1
			}
			return 1
		}
		return a.Address.Compare(b.Address)
	})
	return out
}

// one asks every address of one server.
func (r *round) one(ctx context.Context, s Server, fn func(context.Context, *session, *keymgr.Seen) error) []keymgr.Seen {
	addrs, err := r.addresses(ctx, s)
	if err != nil {
		return []keymgr.Seen{{Server: s.Name, Error: err.Error()}}
	}
	out := make([]keymgr.Seen, len(addrs))
	noRoute := make([]bool, len(addrs))
	var work sync.WaitGroup
	for i, addr := range addrs {
		work.Go(func() { out[i], noRoute[i] = r.server(ctx, s.Name, addr, fn) })
	}
	work.Wait()
	if !slices.Contains(noRoute, false) {
		return out
	}
	// Where this machine has no way into one of the two address families, the
	// server's other addresses stand for it.
	var asked []keymgr.Seen
	for i := range out {
		if !noRoute[i] {
			asked = append(asked, out[i])
		}
	}
	return asked
}

// addresses are where a server is asked.
func (r *round) addresses(ctx context.Context, s Server) ([]netip.AddrPort, error) {
	if len(s.Addresses) > 0 {
		return s.Addresses[:min(len(s.Addresses), maxAddresses)], nil
	}
	name, err := zone.ParseName(s.Name)
	if err != nil {
		return nil, err
	}
	if err := take(ctx, r.places); err != nil {
		return nil, err
	}
	defer func() { <-r.places }()
	found, err := r.o.Addresses(ctx, name)
	if err == nil && len(found) == 0 {
		err = errors.New("it has no address")
	}
	var out []netip.AddrPort
	for _, a := range found[:min(len(found), maxAddresses)] {
		out = append(out, netip.AddrPortFrom(a, dnsPort))
	}
	return out, err
}

const dnsPort = 53

// server asks one address, on one connection. noRoute says that this machine
// has no way to it.
func (r *round) server(ctx context.Context, name string, addr netip.AddrPort, fn func(context.Context, *session, *keymgr.Seen) error) (seen keymgr.Seen, noRoute bool) {
	blank := keymgr.Seen{Server: name, Address: addr}
	if name == "" {
		blank.Server = addr.String()
	}
	seen = blank
	err := r.visit(ctx, addr, func(ctx context.Context, s *session) error {
		return fn(ctx, s, &seen)
	})
	if err != nil {
		seen = blank
		seen.Error = err.Error()
	}
	return seen, err != nil && r.o.noRoute(ctx, addr, err)
}

// noRoute reports whether a connection failed since this machine has no way to
// an address. A server that is down may look the same over TCP; connecting a
// UDP socket sends nothing and asks this machine alone.
func (o *Observer) noRoute(ctx context.Context, addr netip.AddrPort, err error) bool {
	away := func(err error) bool {
		for _, no := range []error{syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.EADDRNOTAVAIL, syscall.EAFNOSUPPORT} {
			if errors.Is(err, no) {
				return true
			}
		}
		return false
	}
	if !away(err) {
		return false
	}
	conn, err := o.cfg.Dial(ctx, "udp", addr.String())
	if err == nil {
		_ = conn.Close() // nothing was sent
	}
	return away(err)
}

// visit calls fn on a connection to a server, when there is a place.
func (r *round) visit(ctx context.Context, addr netip.AddrPort, fn func(context.Context, *session) error) error {
	if err := take(ctx, r.places); err != nil {
		return err
	}
	defer func() { <-r.places }()
	leave, err := r.o.enter(ctx, addr)
	if err != nil {
		return err
	}
	defer leave()
	if err := take(ctx, r.o.slots); err != nil {
		return err
	}
	defer func() { <-r.o.slots }()
	if err := r.o.silent(addr, r.q.Now); err != nil && !r.q.Fresh {
		return err
	}
	// The time of all answers together: a server that is slow with each must
	// not hold its place for long.
	ctx, cancel := context.WithTimeoutCause(ctx, 4*r.o.cfg.Timeout, errTimeout)
	defer cancel()
	s, err := r.o.session(ctx, addr)
	if err == nil {
		err = fn(ctx, s)
		r.o.end(addr, s, err)
	}
	r.o.heard(addr, err, r.q.Now)
	return err
}

func take(ctx context.Context, places chan struct{}) error {
	select {
	case places <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// zoneServer asks a public name server of the zone.
func (r *round) zoneServer(ctx context.Context, s *session, seen *keymgr.Seen) error {
	a, err := s.ask(ctx, question{name: r.q.Zone, t: zone.TypeSOA})
	if err != nil {
		return fmt.Errorf("SOA: %w", err)
	}
	soa := a.of(r.q.Zone, zone.TypeSOA)
	if soa == nil || len(soa.Data) != 1 || len(soa.Data[0]) < 22 {
		return errors.New("SOA: the answer has none")
	}
	seen.Serial = serialOf(soa.Data[0])
	if a, err = s.ask(ctx, question{name: r.q.Zone, t: zone.TypeDNSKEY}); err != nil {
		return fmt.Errorf("DNSKEY: %w", err)
	}
	var keys []validate.Key
	set := a.of(r.q.Zone, zone.TypeDNSKEY)
	if set != nil {
		keys = r.o.memo.Remembering(validate.ZoneKeys(set.Data))
		seen.KeyTTL = set.TTL
		if sig, _, err := set.Verified(r.q.Zone, keys, r.q.Now); err == nil {
			seen.KeyTTL = min(set.TTL, sig.OriginalTTL) // RFC 4035, 5.3.3
		}
		for _, data := range set.Data {
			seen.Keys = append(seen.Keys, zone.KeyID(data))
			if r.q.Tags {
				seen.Tags = append(seen.Tags, zone.KeyTag(data))
			}
		}
		seen.Signed = append(seen.Signed, r.signatures(set, keys)...)
	}
	seen.Signed = append(seen.Signed, r.signatures(soa, keys)...)
	if err := r.childDS(ctx, s, seen, set, keys); err != nil {
		return err
	}
	for _, sample := range r.q.Samples {
		if a, err = s.ask(ctx, question{name: sample.Owner, t: sample.Type}); err != nil {
			return fmt.Errorf("%s %s: %w", sample.Owner, sample.Type, err)
		}
		if set := a.of(sample.Owner, sample.Type); set != nil {
			seen.Signed = append(seen.Signed, r.signatures(set, keys)...)
		}
	}
	return nil
}

// serialOf reads the serial of SOA RDATA, which has five numbers at its end.
func serialOf(data []byte) uint32 {
	at := data[len(data)-20:]
	return uint32(at[0])<<24 | uint32(at[1])<<16 | uint32(at[2])<<8 | uint32(at[3])
}

// signatures are the RRSIGs over a set, each with the key beside it that it
// verifies with.
func (r *round) signatures(set *validate.RRset, keys []validate.Key) []keymgr.SeenSignature {
	var out []keymgr.SeenSignature
	for _, sig := range set.Sigs[:min(len(set.Sigs), validate.MaxAttempts)] {
		seen := keymgr.SeenSignature{
			Owner: set.Owner.String(), Type: set.Type.String(), Tag: sig.Tag, Algorithm: sig.Algorithm,
		}
		alone := *set
		alone.Sigs = []validate.Signature{sig}
		if _, k, err := alone.Verified(r.q.Zone, keys, r.q.Now); err == nil {
			seen.Key = zone.KeyID(k.RData)
		}
		out = append(out, seen)
	}
	return out
}
