package pipeline

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"sluice/journal/journaltest"
	"sluice/signer/zone"
	"sluice/xfr"
)

// primary is a server of example.com that answers as a test wants.
type primary struct {
	t    *testing.T
	addr string

	mu     sync.Mutex
	zone   []dns.RR // SOA first
	ixfr   []dns.RR // the answer to IXFR; nil sends the zone
	refuse bool
	asked  []string // "SOA", "IXFR", "AXFR"
}

func newPrimary(t *testing.T, text string) *primary {
	t.Helper()
	p := &primary{t: t}
	p.serve(text)
	l, u := bothPorts(t, "127.0.0.1")
	p.addr = l.Addr().String()
	for _, s := range []*dns.Server{{Listener: l, Handler: p}, {PacketConn: u, Handler: p}} {
		go func() { _ = s.ActivateAndServe() }() // ends with the listener
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	return p
}

// bothPorts listens on one free port for TCP and UDP.
func bothPorts(t testing.TB, host string) (net.Listener, net.PacketConn) {
	t.Helper()
	for range 50 {
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			t.Skip("no listener: ", err)
		}
		u, err := net.ListenPacket("udp", l.Addr().String())
		if err == nil {
			return l, u
		}
		_ = l.Close() // the port is another's for UDP
	}
	t.Fatal("no port is free for TCP and UDP")
	return nil, nil
}

func records(t *testing.T, text string) []dns.RR {
	t.Helper()
	var out []dns.RR
	zp := dns.NewZoneParser(strings.NewReader(text), "example.com.", "")
	for rr, ok := zp.Next(); ok; rr, ok = zp.Next() {
		out = append(out, rr)
	}
	if err := zp.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// serve makes a zone file what is served; diff, where given, is the answer to
// IXFR without the first and the last SOA.
func (p *primary) serve(text string, diff ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.zone, p.ixfr = records(p.t, text), nil
	if len(diff) > 0 {
		p.ixfr = append(append([]dns.RR{p.zone[0]}, records(p.t, strings.Join(diff, "\n"))...), p.zone[0])
	}
}

func (p *primary) set(refuse bool) {
	p.mu.Lock()
	p.refuse = refuse
	p.mu.Unlock()
}

// questions returns what was asked since the last call.
func (p *primary) questions() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	asked := strings.Join(p.asked, " ")
	p.asked = nil
	return asked
}

func (p *primary) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := new(dns.Msg)
	r.SetReply(q)
	r.Authoritative = true
	p.asked = append(p.asked, dns.TypeToString[q.Question[0].Qtype])
	switch {
	case p.refuse:
		r.Rcode = dns.RcodeRefused
	case q.Question[0].Qtype == dns.TypeSOA:
		r.Answer = p.zone[:1]
	case q.Question[0].Qtype == dns.TypeIXFR && p.ixfr != nil:
		r.Answer = p.ixfr
	default:
		r.Answer = append(slices.Clone(p.zone), p.zone[0])
	}
	_ = w.WriteMsg(r) // a client that left
}

const someDigest = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

const soaOf = "@ 3600 IN SOA ns1 hostmaster %d 7200 3600 1209600 300\n"

func soa(serial int) string { return fmt.Sprintf(soaOf, serial) }

// zoneFileOf is a zone file: records without a class or TTL take 300.
func zoneFileOf(serial int, lines ...string) string {
	return "$TTL 300\n" + soa(serial) + "@ NS ns1\nns1 A 192.0.2.1\n" + strings.Join(lines, "\n") + "\n"
}

// addFrom adds example.com from servers.
func (r *rig) addFrom(source string) ZoneStatus {
	r.t.Helper()
	if _, err := r.e.AddZone(r.t.Context(), testActor, NewZone{Name: "example.com", Source: source}); err != nil {
		r.t.Fatal(err)
	}
	return r.await()
}

func (r *rig) ask(full bool) ZoneStatus {
	r.t.Helper()
	if err := r.e.Reload(r.t.Context(), testActor, "example.com", full); err != nil {
		r.t.Fatal(err)
	}
	return r.await()
}

// unsigned is the newest loaded instance as text.
func (r *rig) unsigned() string {
	r.t.Helper()
	var b strings.Builder
	if err := r.e.Dump(r.t.Context(), "example.com", DumpQuery{Loaded: true}, &b); err != nil {
		r.t.Fatal(err)
	}
	return b.String()
}

func (r *rig) history(types ...string) []string {
	r.t.Helper()
	var out []string
	err := r.e.History(r.t.Context(), "example.com", HistoryQuery{Types: types}, func(l HistoryLine) error {
		out = append(out, l.Text)
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

func TestTransfer_IncrementsGiveTheZoneThatAWholeTransferGives(t *testing.T) {
	p := newPrimary(t, zoneFileOf(1, "www A 192.0.2.80", "www A 192.0.2.81", "old TXT a", "sub NS ns.sub", "ns.sub A 192.0.2.53"))
	r := newRig(t, journaltest.New(), nil)
	if st := r.addFrom(p.addr); st.State != "published" {
		t.Fatalf("%+v", st)
	}
	if got := p.questions(); got != "AXFR" {
		t.Errorf("asked for %s", got)
	}
	// Two steps: a record comes, goes and comes; an RRset takes another TTL; a
	// name in another case; signer's own records are passed over.
	p.serve(zoneFileOf(3, "WWW 60 A 192.0.2.80", "WWW 60 A 192.0.2.81", "new A 192.0.2.9", "sub NS ns.sub", "ns.sub A 192.0.2.53", "sub DS 1 13 2 "+someDigest),
		soa(1), "old 300 TXT a", "www 300 A 192.0.2.81", soa(2), "new 300 A 192.0.2.8", "www 300 A 192.0.2.82", "www 300 RRSIG A 13 3 300 20300101000000 20200101000000 1 example.com. AAAA",
		soa(2), "new 300 A 192.0.2.8", "www 300 A 192.0.2.80", "www 300 A 192.0.2.82", soa(3), "WWW 60 A 192.0.2.80", "WWW 60 A 192.0.2.81", "new 300 A 192.0.2.9", "sub 300 DS 1 13 2 "+someDigest)
	st := r.ask(false)
	if st.LastError != "" || st.Loaded.Serial != 3 || st.Loaded.Stripped["RRSIG"] != 1 {
		t.Fatalf("%+v %q", st.Loaded, st.LastError)
	}
	if got := p.questions(); got != "SOA IXFR" {
		t.Errorf("asked for %s", got)
	}
	byIncrement, digest := r.unsigned(), st.Loaded.ContentDigest
	if st = r.ask(true); st.Loaded.Serial != 3 || st.Loaded.ContentDigest != digest {
		t.Errorf("a full transfer gives another zone (-increment +whole):\n%s", cmp.Diff(byIncrement, r.unsigned()))
	}
	if got := p.questions(); got != "AXFR" {
		t.Errorf("asked for %s", got)
	}
	if st.Loaded.Records != 9 {
		t.Errorf("%d records\n%s", st.Loaded.Records, byIncrement)
	}
	if loads := r.history("instance.loaded"); len(loads) != 2 {
		t.Errorf("loads: %q", loads)
	}
	replayAll(t, r)
}

func TestTransfer_AnIncrementThatDoesNotApplyIsNeverGuessed(t *testing.T) {
	for fact, diff := range map[string][]string{
		"a removed record that is not there": {soa(1), "www 300 A 192.0.2.99", soa(2), "new 300 A 192.0.2.9"},
		"an added record that is there":      {soa(1), soa(2), "www 300 A 192.0.2.80", "new 300 A 192.0.2.9"},
		"another SOA than the one loaded": {
			"@ 3600 SOA other hostmaster 1 7200 3600 1209600 300", soa(2), "new 300 A 192.0.2.9",
		},
		"steps from another serial": {soa(0), soa(2), "new 300 A 192.0.2.9"},
	} {
		t.Run(fact, func(t *testing.T) {
			p := newPrimary(t, zoneFileOf(1, "www A 192.0.2.80"))
			r := newRig(t, journaltest.New(), nil)
			r.addFrom(p.addr)
			p.questions()
			p.serve(zoneFileOf(2, "www A 192.0.2.80", "right A 192.0.2.7"), diff...)
			st := r.ask(false)
			if st.LastError != "" || st.Loaded.Serial != 2 || !strings.Contains(r.unsigned(), "right.example.com.") || strings.Contains(r.unsigned(), "new.") {
				t.Errorf("error %q, loaded\n%s", st.LastError, r.unsigned())
			}
			if got := p.questions(); got != "SOA IXFR AXFR" {
				t.Errorf("asked for %s", got)
			}
		})
	}
}

func TestTransfer_AnIncrementThatSpoilsTheZoneIsRefused(t *testing.T) {
	for fact, c := range map[string]struct{ diff, reason string }{
		"CNAME beside data that does not change": {"\nwww 300 CNAME elsewhere.", "CNAME and other data"},
		"a second CNAME":                         {"\nal 300 CNAME other.", "more than one record"},
		"DS at the apex":                         {"\n@ 300 DS 1 13 2 " + someDigest, "DS"},
	} {
		t.Run(fact, func(t *testing.T) {
			p := newPrimary(t, zoneFileOf(1, "www A 192.0.2.80", "al CNAME www"))
			r := newRig(t, journaltest.New(), nil)
			r.addFrom(p.addr)
			before := r.served()
			p.serve(zoneFileOf(2), soa(1), soa(2)+c.diff)
			if st := r.ask(false); !strings.Contains(st.LastError, c.reason) || !strings.Contains(st.LastError, p.addr) {
				t.Errorf("error is %q", st.LastError)
			}
			if r.served() != before {
				t.Error("what is served changed")
			}
		})
	}
	p := newPrimary(t, zoneFileOf(1))
	r := newRig(t, journaltest.New(), nil)
	r.addFrom(p.addr)
	p.serve(zoneFileOf(2), soa(1)+"@ 300 NS ns1\n", soa(2))
	if st := r.ask(false); !strings.Contains(st.LastError, "no NS record") {
		t.Errorf("a zone without NS: error is %q", st.LastError)
	}
}

func TestTransfer_FailsOverAndTellsEachFailureOnce(t *testing.T) {
	a, b := newPrimary(t, zoneFileOf(1)), newPrimary(t, zoneFileOf(1))
	r := newRig(t, journaltest.New(), nil)
	r.addFrom(a.addr + " " + b.addr)
	a.set(true)
	b.serve(zoneFileOf(2, "b A 192.0.2.2"))
	if st := r.ask(false); st.LastError != "" || st.Loaded.Serial != 2 || st.Upstream.Server != b.addr {
		t.Errorf("%+v, error %q", st.Upstream, st.LastError)
	}
	b.set(true)
	for range 3 {
		st := r.ask(false)
		if !strings.Contains(st.LastError, "REFUSED") || !strings.Contains(st.LastError, a.addr) || !strings.Contains(st.LastError, b.addr) {
			t.Errorf("error is %q", st.LastError)
		}
		if st.Published == nil || st.Upstream.LastError == "" || st.Upstream.ExpiresAt == nil {
			t.Errorf("%+v", st.Upstream)
		}
	}
	if failures := r.history("load.failed"); len(failures) != 1 {
		t.Errorf("failures: %q", failures)
	}
	events := len(r.history())
	a.set(false)
	a.serve(zoneFileOf(2, "b A 192.0.2.2"))
	if st := r.ask(false); st.LastError != "" || st.State != "published" {
		t.Errorf("a server that has nothing newer ends the failure: %q %q", st.State, st.LastError)
	}
	if now := len(r.history()); now != events {
		t.Errorf("nothing new is no event: %d, before %d", now, events)
	}
}

func TestTransfer_ASerialThatWentBackIsToldAndTakenOnlyInFull(t *testing.T) {
	p := newPrimary(t, zoneFileOf(10, "www A 192.0.2.80"))
	r := newRig(t, journaltest.New(), nil)
	r.addFrom(p.addr)
	p.serve(zoneFileOf(5, "www A 192.0.2.81"))
	st := r.ask(false)
	if st.Loaded.Serial != 10 || len(st.Notices) == 0 || !strings.Contains(st.Notices[0].Hint, "--full") {
		t.Errorf("%+v %+v", st.Loaded, st.Notices)
	}
	published := st.Published.Serial
	if st = r.ask(true); st.Loaded.Serial != 5 || !zone.Serial(published).Before(zone.Serial(st.Published.Serial)) {
		t.Errorf("loaded %d, published %d after %d", st.Loaded.Serial, st.Published.Serial, published)
	}
}

func TestTransfer_SOATimersAskAndExpire(t *testing.T) {
	p := newPrimary(t, zoneFileOf(1))
	policy, err := Parse("default", []byte("version = \"v1\"\n[loader]\non-expire = \"stop\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, dir: t.TempDir(), journal: journaltest.New(), clock: hourASecond()}
	r.start(map[string]Policy{"default": policy})
	r.addFrom(p.addr)
	// REFRESH is two hours: two seconds.
	p.serve(zoneFileOf(2, "new A 192.0.2.7"))
	until(t, "the refresh takes the new version", func() bool {
		st, err := r.e.Zone(t.Context(), "example.com")
		return err == nil && st.LoadedSerial != nil && *st.LoadedSerial == 2 && *st.PublishedSerial != 0
	})
	r.stop()
	// A restart asks at once, and EXPIRE counts from there.
	p.serve("$TTL 300\n@ 3600 SOA ns1 hostmaster 3 7200 3600 7200 300\n@ NS ns1\nns1 A 192.0.2.1\n")
	r.start(map[string]Policy{"default": policy})
	until(t, "the restart takes the new version", func() bool {
		st, err := r.e.Zone(t.Context(), "example.com")
		return err == nil && st.LoadedSerial != nil && *st.LoadedSerial == 3 && st.Published.Instance > "s" && st.State == "published"
	})
	p.set(true)
	name, _ := zone.ParseName("example.com")
	until(t, "the zone expires and is served no longer", func() bool {
		v, err := r.e.Source().View(name)
		if err == nil {
			return v.Close() != nil
		}
		st, err := r.e.Zone(t.Context(), "example.com")
		return err == nil && st.State == "expired"
	})
	p.set(false)
	until(t, "a server that answers brings it back", func() bool {
		v, err := r.e.Source().View(name)
		return err == nil && v.Close() == nil
	})
}

func TestNotify_OnlyTheSourceMayAskAndOldSerialsAskForNothing(t *testing.T) {
	p := newPrimary(t, zoneFileOf(4))
	policy, err := Parse("default", []byte("version = \"v1\"\n[server.inbound]\nallow-notify-from = [\"192.0.2.0/24^k.example\"]\n"))
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, journaltest.New(), map[string]Policy{"default": policy})
	r.addFrom(p.addr)
	name, _ := zone.ParseName("Example.COM")
	for _, c := range []struct {
		from, key string
		want      error
	}{
		{"127.0.0.1:9", "", nil},
		{"127.0.0.2:9", "", xfr.ErrNotAllowed},
		{"192.0.2.7:9", "", xfr.ErrNotAllowed},
		{"192.0.2.7:9", "k.example.", nil},
	} {
		if err := r.e.AllowsNotify(name, xfr.Peer{Addr: addrPort(t, c.from), Key: c.key}); err != c.want { //nolint:errorlint // these very values
			t.Errorf("from %s with key %q: %v", c.from, c.key, err)
		}
	}
	other, _ := zone.ParseName("example.org")
	if err := r.e.AllowsNotify(other, xfr.Peer{Addr: addrPort(t, "127.0.0.1:9")}); err != xfr.ErrUnknownZone { //nolint:errorlint // this very value
		t.Errorf("an unknown zone: %v", err)
	}
	p.questions()
	old, news := zone.Serial(4), zone.Serial(5)
	r.e.Notified(name, &old, xfr.Peer{})
	r.await()
	if got := p.questions(); got != "" {
		t.Errorf("an old serial asked for %s", got)
	}
	p.serve(zoneFileOf(5, "www A 192.0.2.8"))
	for range 50 {
		r.e.Notified(name, &news, xfr.Peer{})
	}
	until(t, "the change is loaded", func() bool { return *r.await().LoadedSerial == 5 })
	if got := p.questions(); strings.Count(got, "IXFR") != 1 {
		t.Errorf("a burst asked for %s", got)
	}
}

func TestNotify_OfAZoneThatCannotBeTakenIsFollowedLessAndLess(t *testing.T) {
	p := newPrimary(t, zoneFileOf(4))
	r := newRig(t, journaltest.New(), nil)
	r.addFrom(p.addr)
	name, _ := zone.ParseName("example.com")
	// Each failure is another one: the journal would take them all.
	serial := 5
	spoil := func() {
		serial++
		p.serve(fmt.Sprintf("$TTL 300\n"+soaOf+"@ NS ns1\nns1 A 192.0.2.1\nbad%d CNAME a\nbad%d A 192.0.2.1\n", serial, serial, serial))
	}
	p.questions()
	begun := time.Now()
	for range 100 {
		spoil()
		news := zone.Serial(serial)
		r.e.Notified(name, &news, xfr.Peer{})
		r.await()
	}
	took := time.Since(begun)
	if tries, most := strings.Count(p.questions(), "SOA"), 2+int(took/time.Second); tries > most {
		t.Errorf("100 NOTIFYs had the zone asked for %d times in %v", tries, took)
	}
	if failures := r.history("load.failed"); len(failures) > 2+int(took/time.Second) {
		t.Errorf("%d failures in %v", len(failures), took)
	}
	// What was put off is not forgotten.
	p.serve(zoneFileOf(1000, "www A 192.0.2.8"))
	news := zone.Serial(1000)
	r.e.Notified(name, &news, xfr.Peer{})
	until(t, "the zone is taken once it can be", func() bool { return *r.status().LoadedSerial == 1000 })
}

func TestParseSource_TellsServersFromFiles(t *testing.T) {
	for source, want := range map[string]int{
		"/zones/example.com": 0, "zones/192.0.2.1": 0, "./192.0.2.1": 0, "example.com.zone": 0,
		"192.0.2.1": 1, "192.0.2.1:5353^key, [2001:db8::1]:53": 2, "2001:db8::1 192.0.2.1": 2,
		"tls://192.0.2.1#ns.example": 1,
	} {
		servers, err := ParseSource(source)
		if err != nil || len(servers) != want {
			t.Errorf("%q: %v, %v", source, servers, err)
		}
	}
	for _, source := range []string{"192.0.2.1,zone.file", "192.0.2.1:0,192.0.2.2", "tls://192.0.2.1"} {
		if servers, err := ParseSource(source); err == nil && IsTransfer(source) {
			t.Errorf("%q: %v", source, servers)
		}
	}
}

func TestTimersOf_KeepWithinBounds(t *testing.T) {
	value := func(refresh, retry, expire uint32) zone.Value {
		rr := &dns.SOA{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeSOA, Class: 1}, Ns: ".", Mbox: ".", Refresh: refresh, Retry: retry, Expire: expire}
		buf := make([]byte, 100)
		n, err := dns.PackRR(rr, buf, 0, nil, false)
		if err != nil {
			t.Fatal(err)
		}
		return zone.AppendValue(nil, zone.Root, 1, buf[11:n])
	}
	for _, c := range []struct{ refresh, retry, expire, wantRefresh, wantRetry, wantExpire time.Duration }{
		{7200, 3600, 1209600, 2 * time.Hour, time.Hour, 2 * week},
		{0, 0, 0, minRefresh, minRetry, minRefresh + minRetry},
		{1<<32 - 1, 1<<32 - 1, 0, maxRefresh, maxRetry, maxRefresh + maxRetry},
	} {
		got := timersOf(value(uint32(c.refresh), uint32(c.retry), uint32(c.expire)))
		if got != (soaTimers{c.wantRefresh, c.wantRetry, c.wantExpire}) {
			t.Errorf("%v: %v", c, got)
		}
	}
}

func addrPort(t *testing.T, text string) netip.AddrPort {
	t.Helper()
	ap, err := netip.ParseAddrPort(text)
	if err != nil {
		t.Fatal(err)
	}
	return ap
}

// secondaryServer takes NOTIFY.
type secondaryServer struct {
	addr    string
	mu      sync.Mutex
	serials []uint32
	no      bool
}

func newSecondary(t *testing.T) *secondaryServer {
	t.Helper()
	s := &secondaryServer{}
	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = u.LocalAddr().String()
	server := &dns.Server{PacketConn: u, Handler: s, MsgAcceptFunc: func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept }}
	go func() { _ = server.ActivateAndServe() }() // ends with the listener
	t.Cleanup(func() { _ = server.Shutdown() })
	return s
}

func (s *secondaryServer) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := new(dns.Msg)
	r.SetReply(q)
	r.Opcode = dns.OpcodeNotify
	if s.no {
		r.Rcode = dns.RcodeRefused
	}
	for _, rr := range q.Answer {
		if soa, ok := rr.(*dns.SOA); ok && !s.no {
			s.serials = append(s.serials, soa.Serial)
		}
	}
	_ = w.WriteMsg(r) // a client that left
}

func (s *secondaryServer) told() []uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.serials)
}

func (s *secondaryServer) refuse(no bool) {
	s.mu.Lock()
	s.no = no
	s.mu.Unlock()
}
