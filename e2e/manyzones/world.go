package manyzones

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// top is the zone above all others; its key is the trust anchor.
const top = "test."

// world is what stands around the daemon: a secondary that fetches what it is
// told of, public servers that show what it has, one that takes connections and
// says nothing, and a parent that follows CDS at once.
type world struct {
	primary string // where zones are fetched from
	now     func() time.Time

	secondary, parent, silent string
	public                    []string

	mu      sync.Mutex
	zones   map[string]*copied // guarded by mu
	parents map[string][]dns.RR

	key    *dns.DNSKEY
	signer crypto.Signer
	ends   []func() error
}

// copied is a zone as the secondary has it.
type copied struct {
	mu    sync.Mutex
	stale bool                // guarded by mu; a NOTIFY came
	sets  map[string][]dns.RR // guarded by mu; RRsets with their signatures
}

// newWorld starts the servers; close ends them.
func newWorld(primary string, public int, now func() time.Time) (*world, error) {
	w := &world{primary: primary, now: now, zones: map[string]*copied{}, parents: map[string][]dns.RR{}}
	w.key = &dns.DNSKEY{
		Hdr:   dns.RR_Header{Name: top, Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 3600},
		Flags: 257, Protocol: 3, Algorithm: dns.ECDSAP256SHA256,
	}
	private, err := w.key.Generate(256)
	if err != nil {
		return nil, err
	}
	signer, ok := private.(crypto.Signer)
	if !ok {
		return nil, errors.New("the parent's key does not sign")
	}
	w.signer = signer
	if w.secondary, err = w.serve(dns.HandlerFunc(w.answerPublic)); err != nil {
		return nil, w.closeAfter(err)
	}
	for range public {
		addr, err := w.serve(dns.HandlerFunc(w.answerPublic))
		if err != nil {
			return nil, w.closeAfter(err)
		}
		w.public = append(w.public, addr)
	}
	if w.parent, err = w.serve(dns.HandlerFunc(w.answerParent)); err != nil {
		return nil, w.closeAfter(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, w.closeAfter(err)
	}
	// Nobody accepts: connections stay open and nothing is ever answered.
	w.silent = l.Addr().String()
	w.ends = append(w.ends, l.Close)
	return w, nil
}

func (w *world) closeAfter(err error) error { return errors.Join(err, w.close()) }

func (w *world) close() error {
	var errs []error
	for _, end := range w.ends {
		errs = append(errs, end())
	}
	return errors.Join(errs...)
}

// anchor is the trust anchor as a config takes it.
func (w *world) anchor() string {
	ds := w.key.ToDS(dns.SHA256)
	return fmt.Sprintf("%s IN DS %d %d %d %s", top, ds.KeyTag, ds.Algorithm, ds.DigestType, ds.Digest)
}

// serve answers over UDP and TCP on one port.
func (w *world) serve(h dns.Handler) (string, error) {
	for range 50 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", err
		}
		u, err := net.ListenPacket("udp", l.Addr().String())
		if err != nil {
			_ = l.Close() // the port is another's for UDP
			continue
		}
		for _, s := range []*dns.Server{{Listener: l, Handler: h}, {PacketConn: u, Handler: h}} {
			started, ended := make(chan struct{}), make(chan error, 1)
			s.NotifyStartedFunc = func() { close(started) }
			go func() { ended <- s.ActivateAndServe() }()
			<-started
			w.ends = append(w.ends, func() error { return errors.Join(s.Shutdown(), <-ended) })
		}
		return l.Addr().String(), nil
	}
	return "", errors.New("no port is free for UDP and TCP")
}

// zone is the secondary's copy of a zone, empty at first.
func (w *world) zone(name string) *copied {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.zones[name]
	if c == nil {
		c = &copied{stale: true}
		w.zones[name] = c
	}
	return c
}

// apexOf is the zone that a name is in: all are one label below the top.
func apexOf(name string) string {
	labels := dns.SplitDomainName(name)
	if len(labels) < 2 {
		return ""
	}
	return strings.ToLower(strings.Join(labels[len(labels)-2:], ".")) + "."
}

// find gives an RRset with its signatures, fetching the zone first where it is
// stale.
func (w *world) find(name string, t uint16) ([]dns.RR, error) {
	apex := apexOf(name)
	c := w.zone(apex)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stale {
		sets, err := fetch(w.primary, apex)
		if err != nil {
			return nil, err
		}
		c.sets, c.stale = sets, false
	}
	return c.sets[setKey(name, t)], nil
}

func setKey(name string, t uint16) string {
	return strings.ToLower(name) + " " + dns.TypeToString[t]
}

// fetch takes a zone by AXFR.
func fetch(primary, apex string) (map[string][]dns.RR, error) {
	m := new(dns.Msg)
	m.SetAxfr(apex)
	answers, err := new(dns.Transfer).In(m, primary)
	if err != nil {
		return nil, err
	}
	sets := map[string][]dns.RR{}
	for a := range answers {
		if a.Error != nil {
			return nil, a.Error
		}
		for _, rr := range a.RR {
			t := rr.Header().Rrtype
			if sig, ok := rr.(*dns.RRSIG); ok {
				t = sig.TypeCovered
			}
			key := setKey(rr.Header().Name, t)
			if t == dns.TypeSOA && slices.ContainsFunc(sets[key], func(have dns.RR) bool { return have.String() == rr.String() }) {
				continue // the end
			}
			sets[key] = append(sets[key], rr)
		}
	}
	return sets, nil
}

// answerPublic answers as a public server, and takes NOTIFY as its primary.
func (w *world) answerPublic(out dns.ResponseWriter, r *dns.Msg) {
	m := new(dns.Msg)
	m.SetReply(r)
	m.Authoritative = true
	q := r.Question[0]
	if r.Opcode == dns.OpcodeNotify {
		c := w.zone(strings.ToLower(q.Name))
		c.mu.Lock()
		c.stale = true
		c.mu.Unlock()
		_ = out.WriteMsg(m) // who asked may be gone
		return
	}
	set, err := w.find(q.Name, q.Qtype)
	m.Answer = set
	if err != nil {
		m.Rcode = dns.RcodeServerFailure
	}
	_ = out.WriteMsg(m) // who asked may be gone
}

// answerParent answers for the zone above all others.
func (w *world) answerParent(out dns.ResponseWriter, r *dns.Msg) {
	m := new(dns.Msg)
	m.SetReply(r)
	m.Authoritative = true
	q := r.Question[0]
	var err error
	switch {
	case strings.EqualFold(q.Name, top) && q.Qtype == dns.TypeDNSKEY:
		m.Answer, err = w.sign([]dns.RR{w.key})
	case q.Qtype == dns.TypeDS:
		err = w.answerDS(m, strings.ToLower(q.Name))
	default:
		m.Rcode = dns.RcodeRefused
	}
	if err != nil {
		m.Answer, m.Ns, m.Rcode = nil, nil, dns.RcodeServerFailure
	}
	_ = out.WriteMsg(m) // who asked may be gone
}

// answerDS gives the DS RRset that the zone's CDS asks for, or the proof that
// there is none.
func (w *world) answerDS(m *dns.Msg, name string) error {
	cds, err := w.find(name, dns.TypeCDS)
	if err != nil {
		return err
	}
	w.mu.Lock()
	if len(cds) > 0 {
		var set []dns.RR
		for _, rr := range cds {
			if c, ok := rr.(*dns.CDS); ok && c.Algorithm != 0 {
				ds := c.DS
				ds.Hdr = dns.RR_Header{Name: name, Rrtype: dns.TypeDS, Class: dns.ClassINET, Ttl: 3600}
				set = append(set, &ds)
			}
		}
		w.parents[name] = set
	}
	set := w.parents[name]
	w.mu.Unlock()
	if len(set) > 0 {
		m.Answer, err = w.sign(set)
		return err
	}
	soa := &dns.SOA{
		Hdr: dns.RR_Header{Name: top, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 300},
		Ns:  "ns." + top, Mbox: "h." + top, Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: 300,
	}
	nsec := &dns.NSEC{
		Hdr:        dns.RR_Header{Name: name, Rrtype: dns.TypeNSEC, Class: dns.ClassINET, Ttl: 300},
		NextDomain: top, TypeBitMap: []uint16{dns.TypeNS, dns.TypeRRSIG, dns.TypeNSEC},
	}
	for _, rr := range []dns.RR{soa, nsec} {
		signed, err := w.sign([]dns.RR{rr})
		if err != nil {
			return err
		}
		m.Ns = append(m.Ns, signed...)
	}
	return nil
}

// sign adds the parent's signature.
func (w *world) sign(set []dns.RR) ([]dns.RR, error) {
	now := w.now()
	sig := &dns.RRSIG{
		Inception: uint32(now.Add(-24 * time.Hour).Unix()), Expiration: uint32(now.Add(30 * 24 * time.Hour).Unix()),
		KeyTag: w.key.KeyTag(), SignerName: top, Algorithm: w.key.Algorithm,
	}
	if err := sig.Sign(w.signer, set); err != nil {
		return nil, err
	}
	return append(slices.Clone(set), sig), nil
}

// freeAddr is an address whose port is free for UDP and TCP.
func freeAddr(ctx context.Context) (string, error) {
	var lc net.ListenConfig
	for range 50 {
		l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return "", err
		}
		u, err := lc.ListenPacket(ctx, "udp", l.Addr().String())
		if err := l.Close(); err != nil {
			return "", err
		}
		if err == nil {
			return l.Addr().String(), u.Close()
		}
	}
	return "", errors.New("no port is free for UDP and TCP")
}
