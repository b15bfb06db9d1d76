package e2e

import (
	"crypto"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// yearsClock shows a daemon's simulated time.
type yearsClock struct {
	sim, real time.Time // the same moment
	rate      int
}

func (c yearsClock) now() time.Time {
	return c.sim.Add(time.Since(c.real) * time.Duration(c.rate))
}

// yearsWorld is what is around a zone for years: its public servers, its
// parent, and the clock that all of them live by.
type yearsWorld struct {
	clock yearsClock
	zone  string // with the final dot
	lags  []time.Duration
	late  time.Duration // of a site behind the slowest server, that nobody asks

	parentKey    *dns.DNSKEY
	parentSigner crypto.Signer
	reads        parentHabits

	mu       sync.Mutex
	versions []yearsVersion // guarded by mu
	sets     []yearsDS      // guarded by mu; the first is empty
	failed   []string       // guarded by mu; what should not have happened
}

// parentHabits is how the parent reads CDS.
type parentHabits struct {
	interval, delay, bootstrap time.Duration
	ttl                        time.Duration
}

// yearsVersion is a version of the zone that was transferred.
type yearsVersion struct {
	taken   time.Time // simulated
	serial  uint32
	records []dns.RR
}

// yearsDS is a DS RRset of the parent.
type yearsDS struct {
	at  time.Time // simulated
	set []dns.RR
}

func newYearsWorld(t *testing.T, zone string, lags []time.Duration, late time.Duration, reads parentHabits) *yearsWorld {
	t.Helper()
	w := &yearsWorld{zone: zone, lags: lags, late: late, reads: reads, sets: []yearsDS{{}}}
	w.parentKey = &dns.DNSKEY{
		Hdr:   dns.RR_Header{Name: "com.", Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 86400},
		Flags: 257, Protocol: 3, Algorithm: dns.ED25519,
	}
	private, err := w.parentKey.Generate(256)
	if err != nil {
		t.Fatal(err)
	}
	w.parentSigner = private.(crypto.Signer)
	return w
}

// anchor is the parent's key as a trust anchor.
func (w *yearsWorld) anchor() string {
	return strings.Join(strings.Fields(w.parentKey.ToDS(dns.SHA256).String()), " ")
}

// serve starts a DNS server on both transports that ends with the test, and
// returns its address.
func serveDNS(t *testing.T, answer func(q *dns.Msg) *dns.Msg) string {
	t.Helper()
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		_ = w.WriteMsg(answer(q)) // who asked sees that nothing came
	})
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*dns.Server{{Listener: tcp, Handler: handler}, {PacketConn: udp, Handler: handler}} {
		done := make(chan error, 1)
		ready := make(chan struct{})
		s.NotifyStartedFunc = func() { close(ready) }
		go func() { done <- s.ActivateAndServe() }()
		<-ready
		t.Cleanup(func() {
			if err := s.Shutdown(); err != nil {
				t.Error(err)
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	return tcp.Addr().String()
}

// reply begins an answer.
func reply(q *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(q)
	m.Authoritative = true
	if opt := q.IsEdns0(); opt != nil {
		m.SetEdns0(1232, opt.Do())
	}
	return m
}

// take transfers the zone whenever the daemon tells that it changed, until stop.
func (w *yearsWorld) take(primary string, told <-chan struct{}, stop <-chan struct{}) {
	tick := time.NewTicker(500 * time.Millisecond) // a NOTIFY may be lost
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-told:
		case <-tick.C:
		}
		serial, err := serialAt(primary, w.zone)
		if err != nil || serial == w.serial() {
			continue
		}
		q := new(dns.Msg)
		q.SetAxfr(w.zone)
		msgs, _, err := transfer(primary, q)
		if err != nil {
			continue
		}
		var all []dns.RR
		for _, m := range msgs {
			all = append(all, m.Answer...)
		}
		soa, ok := all[0].(*dns.SOA)
		if !ok || soa.Serial == w.serial() {
			continue
		}
		w.mu.Lock()
		w.versions = append(w.versions, yearsVersion{taken: w.clock.now(), serial: soa.Serial, records: all[:len(all)-1]})
		w.mu.Unlock()
	}
}

func (w *yearsWorld) serial() uint32 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.versions); n > 0 {
		return w.versions[n-1].serial
	}
	return 0
}

// shown is what a site shows that is late by lag; false before it has any.
func (w *yearsWorld) shown(lag time.Duration) (v yearsVersion, ok bool) {
	now := w.clock.now()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, v := range slices.Backward(w.versions) {
		if !now.Before(v.taken.Add(lag)) {
			return v, true
		}
	}
	return v, false
}

// public answers as a public server of the zone that is late by lag. A NOTIFY
// goes to told.
func (w *yearsWorld) public(lag time.Duration, told chan<- struct{}) func(q *dns.Msg) *dns.Msg {
	return func(q *dns.Msg) *dns.Msg {
		m := reply(q)
		if q.Opcode == dns.OpcodeNotify {
			select {
			case told <- struct{}{}:
			default:
			}
			return m
		}
		v, ok := w.shown(lag)
		if !ok || len(q.Question) != 1 {
			m.Rcode = dns.RcodeRefused
			return m
		}
		name, t := q.Question[0].Name, q.Question[0].Qtype
		for _, rr := range v.records {
			sig, isSig := rr.(*dns.RRSIG)
			if strings.EqualFold(rr.Header().Name, name) && (rr.Header().Rrtype == t || isSig && sig.TypeCovered == t) {
				m.Answer = append(m.Answer, rr)
			}
		}
		return m
	}
}

// asParent answers as a server of the parent.
func (w *yearsWorld) asParent(q *dns.Msg) *dns.Msg {
	m := reply(q)
	if len(q.Question) != 1 {
		m.Rcode = dns.RcodeFormatError
		return m
	}
	header := func(name string, t uint16, ttl uint32) dns.RR_Header {
		return dns.RR_Header{Name: name, Rrtype: t, Class: dns.ClassINET, Ttl: ttl}
	}
	switch name, t := strings.ToLower(q.Question[0].Name), q.Question[0].Qtype; {
	case name == "com." && t == dns.TypeDNSKEY:
		m.Answer = w.signed(w.parentKey)
	case name == w.zone && t == dns.TypeDS:
		if set := w.newestDS().set; len(set) > 0 {
			m.Answer = w.signed(set...)
			break
		}
		m.Ns = append(w.signed(&dns.SOA{Hdr: header("com.", dns.TypeSOA, 900), Ns: "ns.com.", Mbox: "h.com.", Serial: 1, Refresh: 1, Retry: 1, Expire: 1, Minttl: 900}),
			w.signed(&dns.NSEC{Hdr: header(w.zone, dns.TypeNSEC, 900), NextDomain: "zzz.com.", TypeBitMap: []uint16{dns.TypeNS, dns.TypeRRSIG, dns.TypeNSEC}})...)
	default:
		m.Rcode = dns.RcodeRefused
	}
	return m
}

// signed is an RRset of the parent with its signature.
func (w *yearsWorld) signed(set ...dns.RR) []dns.RR {
	now := w.clock.now()
	sig := &dns.RRSIG{
		Hdr: dns.RR_Header{Ttl: set[0].Header().Ttl}, Algorithm: w.parentKey.Algorithm, KeyTag: w.parentKey.KeyTag(), SignerName: "com.",
		Inception:  uint32(now.Add(-7 * 24 * time.Hour).Unix()), //nolint:gosec // this century
		Expiration: uint32(now.Add(30 * 24 * time.Hour).Unix()), //nolint:gosec // this century
	}
	if err := sig.Sign(w.parentSigner, set); err != nil {
		w.fail("the parent does not sign: %v", err)
		return nil
	}
	return append(slices.Clone(set), sig)
}

func (w *yearsWorld) fail(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failed = append(w.failed, fmt.Sprintf(format, args...))
}

func (w *yearsWorld) newestDS() yearsDS {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sets[len(w.sets)-1]
}

// follow reads CDS from the public servers and does what it says (RFC 7344;
// RFC 8078), until stop.
func (w *yearsWorld) follow(public []string, stop <-chan struct{}) {
	next := w.clock.now().Add(w.reads.interval)
	var seen []string
	var since time.Time
	for {
		wait := next.Sub(w.clock.now()) / time.Duration(w.clock.rate)
		select {
		case <-stop:
			return
		case <-time.After(wait):
		}
		next = next.Add(w.reads.interval)
		have := w.newestDS().set
		want := w.readCDS(public, have)
		if want == nil || slices.Equal(dsTexts(want), dsTexts(have)) {
			since = time.Time{}
			continue
		}
		if texts := dsTexts(want); since.IsZero() || !slices.Equal(texts, seen) {
			seen, since = texts, w.clock.now()
		}
		if len(have) == 0 && w.clock.now().Sub(since) < w.reads.bootstrap {
			continue
		}
		select {
		case <-stop:
			return
		case <-time.After(w.reads.delay / time.Duration(w.clock.rate)):
		}
		w.mu.Lock()
		w.sets = append(w.sets, yearsDS{at: w.clock.now(), set: want})
		w.mu.Unlock()
		since = time.Time{}
	}
}

// readCDS is the DS RRset that CDS asks for; nil where it asks for nothing that
// counts: all servers must show the same, CDNSKEY must agree, a key that has a DS
// must sign it, and with the new DS the zone must validate.
func (w *yearsWorld) readCDS(public []string, have []dns.RR) []dns.RR {
	var want []dns.RR
	for i, addr := range public {
		cds, err1 := query(addr, w.zone, dns.TypeCDS)
		cdnskey, err2 := query(addr, w.zone, dns.TypeCDNSKEY)
		keys, err3 := query(addr, w.zone, dns.TypeDNSKEY)
		if err1 != nil || err2 != nil || err3 != nil || len(cds.Answer) == 0 {
			return nil
		}
		one, err := w.acceptable(cds.Answer, cdnskey.Answer, keys.Answer, have)
		if err != nil {
			w.fail("%s: CDS of %s: %v", w.clock.now().Format(time.RFC3339), addr, err)
			return nil
		}
		if i > 0 && !slices.Equal(dsTexts(one), dsTexts(want)) {
			return nil
		}
		want = one
	}
	return want
}

// acceptable makes DS records of CDS.
func (w *yearsWorld) acceptable(cds, cdnskey, dnskey, have []dns.RR) ([]dns.RR, error) {
	v, now := newStrict(w.zone), w.clock.now()
	keys, words := answerOf(dnskey, now, now), answerOf(slices.Concat(cds, cdnskey), now, now)
	if old := answerOf(have, now, now); len(have) > 0 {
		if fault := v.chain(ofType[*dns.DS](old), keys, words); fault != "" {
			return nil, fmt.Errorf("with the DS as it is: %s", fault)
		}
	}
	want, byKey := []dns.RR{}, map[uint16]bool{}
	for _, c := range ofType[*dns.CDS](words) {
		ds := c.DS
		ds.Hdr = dns.RR_Header{Name: w.zone, Rrtype: dns.TypeDS, Class: dns.ClassINET, Ttl: uint32(w.reads.ttl / time.Second)}
		want = append(want, &ds)
		byKey[ds.KeyTag] = true
	}
	tags := map[uint16]bool{}
	for _, k := range ofType[*dns.CDNSKEY](words) {
		tags[k.KeyTag()] = true
	}
	if !maps.Equal(tags, byKey) {
		return nil, fmt.Errorf("CDS is of keys %v, CDNSKEY of %v", byKey, tags)
	}
	if fault := v.chain(ofType[*dns.DS](answerOf(want, now, now)), keys, words); fault != "" {
		return nil, fmt.Errorf("with the DS that it asks for: %s", fault)
	}
	return want, nil
}

// dsTexts is DS records as text, sorted.
func dsTexts(set []dns.RR) []string {
	out := make([]string, 0, len(set))
	for _, rr := range set {
		out = append(out, normal(rr))
	}
	slices.Sort(out)
	return out
}
