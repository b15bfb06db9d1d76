package xfr

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"sluice/signer/zone"
)

// takenUpdates writes down which updates came, and answers them.
type takenUpdates struct {
	mu    sync.Mutex
	lines []string // guarded by mu
	rcode int
	wait  chan struct{} // where set, the answer waits for it
}

func (u *takenUpdates) update(ctx context.Context, m *UpdateMessage) int {
	var b strings.Builder
	fmt.Fprintf(&b, "%s by %s:", m.Zone, m.Peer.Key)
	for _, section := range [][]UpdateRecord{m.Prerequisites, m.Changes} {
		for _, r := range section {
			fmt.Fprintf(&b, " %s %s class %d ttl %d %x", r.Owner, r.Type, r.Class, r.TTL, r.RData)
		}
		b.WriteString(";")
	}
	u.mu.Lock()
	u.lines = append(u.lines, b.String())
	u.mu.Unlock()
	if u.wait != nil {
		select {
		case <-u.wait:
		case <-ctx.Done():
			return dns.RcodeServerFailure
		}
	}
	return u.rcode
}

func (u *takenUpdates) take() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	defer func() { u.lines = nil }()
	return u.lines
}

func updateOf(t testing.TB, lines ...string) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	m.SetUpdate("example.")
	m.NameUsed([]dns.RR{mustRR(t, "example. SOA . . 1 1 1 1 1")})
	for _, line := range lines {
		m.Insert([]dns.RR{mustRR(t, line)})
	}
	return m
}

func mustRR(t testing.TB, line string) dns.RR {
	t.Helper()
	rr, err := dns.NewRR(line)
	if err != nil {
		t.Fatal(err)
	}
	return rr
}

// sendUpdate exchanges an update, signed with transfer.key where signed.
func sendUpdate(t testing.TB, network, addr string, m *dns.Msg, signed bool, secret string) (*dns.Msg, error) {
	t.Helper()
	c := &dns.Client{Net: network, Timeout: 5 * time.Second, UDPSize: 4096}
	if signed {
		c.TsigSecret = map[string]string{"transfer.key.": secret}
		m.SetTsig("transfer.key.", dns.HmacSHA256, 300, time.Now().Unix())
	}
	r, _, err := c.Exchange(m, addr)
	return r, err
}

func TestRFC2136_UpdateOverUDPAndTCP(t *testing.T) {
	keys, secrets := tsigKeys(t, "hmac-sha256")
	secret := secrets["transfer.key."]
	u := &takenUpdates{}
	addr, s := startServer(t, Config{Source: memSource{}, Keys: keys, Update: u.update})
	const want = "example. by transfer.key.: example. ANY class 255 ttl 0 ; www.example. A class 1 ttl 60 c0000201" +
		" www.example. MX class 1 ttl 60 000a0477777777076578616d706c6500;"
	for _, network := range []string{"udp", "tcp"} {
		m := updateOf(t, "www.example. 60 A 192.0.2.1", "www.example. 60 MX 10 wwww.example.")
		m.Compress = true
		r, err := sendUpdate(t, network, addr, m, true, secret)
		if err != nil || r.Rcode != dns.RcodeSuccess || r.Opcode != dns.OpcodeUpdate || r.IsTsig() == nil {
			t.Fatalf("%s: %v, %v", network, r, err)
		}
		if d := cmp.Diff([]string{want}, u.take()); d != "" {
			t.Errorf("%s: %s", network, d)
		}
	}
	// Nobody signed it; nobody knows the key; the signature is another one.
	for name, tc := range map[string]struct {
		signed bool
		secret string
		rcode  int
	}{
		"unsigned":        {false, "", dns.RcodeRefused},
		"wrong signature": {true, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", dns.RcodeNotAuth},
	} {
		r, err := sendUpdate(t, "tcp", addr, updateOf(t, "www.example. 60 A 192.0.2.1"), tc.signed, tc.secret)
		if r == nil || r.Rcode != tc.rcode {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
	if got := u.take(); len(got) != 0 {
		t.Errorf("taken: %v", got)
	}
	if n := s.Stats().UpdatesRefused; n != 1 {
		t.Errorf("%d unsigned updates counted", n)
	}
}

func TestRFC2136_3_1_ZoneSection(t *testing.T) {
	keys, secrets := tsigKeys(t, "hmac-sha256")
	u := &takenUpdates{rcode: dns.RcodeRefused}
	addr, _ := startServer(t, Config{Source: memSource{}, Keys: keys, Update: u.update})
	for _, tc := range []struct {
		name   string
		change func(*dns.Msg)
		want   int
	}{
		{"as the handler says", func(*dns.Msg) {}, dns.RcodeRefused},
		{"another type", func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeA }, dns.RcodeFormatError},
		{"another class", func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }, dns.RcodeNotAuth},
		{"no zone", func(m *dns.Msg) { m.Question = nil }, dns.RcodeFormatError},
		{"two zones", func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }, dns.RcodeFormatError},
		{"malformed data", func(m *dns.Msg) {
			m.Ns = append(m.Ns, &dns.RFC3597{Hdr: dns.RR_Header{Name: "www.example.", Rrtype: dns.TypeA, Class: dns.ClassINET}, Rdata: "c00002"})
		}, dns.RcodeFormatError},
	} {
		m := updateOf(t, "www.example. 60 A 192.0.2.1")
		tc.change(m)
		r, err := sendUpdate(t, "tcp", addr, m, true, secrets["transfer.key."])
		if r == nil || r.Rcode != tc.want {
			t.Errorf("%s: %v, %v", tc.name, r, err)
		}
	}
}

func TestUpdate_NotImplementedWithoutAHandler(t *testing.T) {
	addr, _ := startServer(t, Config{Source: memSource{}})
	r, err := sendUpdate(t, "tcp", addr, updateOf(t, "www.example. 60 A 192.0.2.1"), false, "")
	if err != nil || r.Rcode != dns.RcodeNotImplemented {
		t.Errorf("%v, %v", r, err)
	}
}

// An update may fill a message over TCP; other requests may not.
func TestUpdate_LongOverTCP(t *testing.T) {
	keys, secrets := tsigKeys(t, "hmac-sha256")
	u := &takenUpdates{}
	addr, _ := startServer(t, Config{Source: memSource{}, Keys: keys, Update: u.update})
	var lines []string
	for i := range 300 {
		lines = append(lines, fmt.Sprintf("h%d.example. 60 TXT %q", i, strings.Repeat("x", 150)))
	}
	r, err := sendUpdate(t, "tcp", addr, updateOf(t, lines...), true, secrets["transfer.key."])
	if err != nil || r.Rcode != dns.RcodeSuccess || len(u.take()) != 1 {
		t.Fatalf("%v, %v", r, err)
	}
	q := new(dns.Msg)
	q.SetQuestion("example.", dns.TypeSOA)
	for range 40 {
		q.Extra = append(q.Extra, mustRR(t, lines[0]))
	}
	if r, err := sendUpdate(t, "tcp", addr, q, false, ""); err == nil {
		t.Errorf("a long question is answered: %v", r)
	}
}

// An update that takes its time holds up nobody else's datagram, and no more wait
// than there are places.
func TestUpdate_OverUDPHoldsUpNobody(t *testing.T) {
	keys, secrets := tsigKeys(t, "hmac-sha256")
	u := &takenUpdates{wait: make(chan struct{})}
	addr, s := startServer(t, Config{Source: memSource{exampleName: exampleView(t, 9)}, Keys: keys, Update: u.update})
	conn, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range 2 * maxUpdating {
		m := updateOf(t, "www.example. 60 A 192.0.2.1")
		m.SetTsig("transfer.key.", dns.HmacSHA256, 300, time.Now().Unix())
		wire, _, err := dns.TsigGenerate(m, secrets["transfer.key."], "", false)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(wire); err != nil {
			t.Fatal(err)
		}
	}
	q := new(dns.Msg)
	q.SetQuestion("example.", dns.TypeSOA)
	if r, err := sendUpdate(t, "udp", addr, q, false, ""); err != nil || len(r.Answer) != 1 {
		t.Errorf("a question meanwhile: %v, %v", r, err)
	}
	close(u.wait)
	if n := s.Stats().Dropped; n > 2*maxUpdating {
		t.Errorf("%d dropped", n)
	}
	if n := len(s.updating); n > maxUpdating {
		t.Errorf("%d under way", n)
	}
}

// Whoever begins long messages and does not end them holds no datagrams up.
func TestUpdate_SlowLongOnesLeaveDatagramsAlone(t *testing.T) {
	keys, secrets := tsigKeys(t, "hmac-sha256")
	u := &takenUpdates{}
	addr, s := startServer(t, Config{Source: memSource{}, Keys: keys, Update: u.update, MaxConnsPerAddr: 2 * maxUpdating})
	for range maxUpdating {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		header := [headerLen]byte{2: dns.OpcodeUpdate << 3}
		if _, err := conn.Write(append([]byte{0xff, 0xff}, header[:]...)); err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(10 * time.Second); len(s.long) < maxUpdating; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d long ones under way", len(s.long))
		}
	}
	r, err := sendUpdate(t, "udp", addr, updateOf(t, "www.example. 60 A 192.0.2.1"), true, secrets["transfer.key."])
	if err != nil || r.Rcode != dns.RcodeSuccess {
		t.Errorf("%v, %v", r, err)
	}
}

// Who is about to update a name learns which zone it is in.
func TestSOA_OfANameBelowAZoneThatTakesUpdates(t *testing.T) {
	below := func(name zone.Name) (zone.Name, bool) { return exampleName, name.Under(exampleName) }
	addr, _ := startServer(t, Config{Source: memSource{exampleName: exampleView(t, 9)}, Enclosing: below})
	q := new(dns.Msg)
	q.SetQuestion("_acme-challenge.www.example.", dns.TypeSOA)
	r, err := sendUpdate(t, "udp", addr, q, false, "")
	if err != nil || r.Rcode != dns.RcodeSuccess || len(r.Answer) != 0 || len(r.Ns) != 1 || !strings.EqualFold(r.Ns[0].Header().Name, "example.") || r.Ns[0].Header().Rrtype != dns.TypeSOA {
		t.Errorf("%v, %v", r, err)
	}
	q.SetQuestion("www.other.", dns.TypeSOA)
	if r, err := sendUpdate(t, "udp", addr, q, false, ""); err != nil || r.Rcode != dns.RcodeRefused {
		t.Errorf("of another zone: %v, %v", r, err)
	}
}

func FuzzParseUpdate(f *testing.F) {
	m := updateOf(f, "www.example. 60 A 192.0.2.1", "www.example. 60 MX 10 w.example.")
	m.Compress = true
	wire, err := m.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(wire)
	f.Fuzz(func(t *testing.T, msg []byte) {
		r, err := parseRequest(msg)
		if err != nil || r.update == nil {
			return
		}
		for _, section := range [][]UpdateRecord{r.update.Prerequisites, r.update.Changes} {
			for _, u := range section {
				if n, err := zone.NameLength([]byte(u.Owner)); err != nil || n != len(u.Owner) {
					t.Errorf("owner %x", u.Owner)
				}
				if len(u.RData) > 0 && zone.CheckRData(u.Type, u.RData) != nil {
					t.Errorf("%s %x", u.Type, u.RData)
				}
			}
		}
	})
}
