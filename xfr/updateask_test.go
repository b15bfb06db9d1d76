package xfr

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"sluice/signer/zone"
)

// taken is a peer that writes down what it is sent, and answers with a code.
type taken struct {
	mu    sync.Mutex
	msgs  []*dns.Msg // guarded by mu
	rcode int        // guarded by mu
	bare  bool       // guarded by mu; answers without a question
}

// ServeDNS implements dns.Handler.
func (p *taken) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.msgs = append(p.msgs, r)
	m := new(dns.Msg).SetRcode(r, p.rcode)
	m.Authoritative = true
	if p.bare {
		m.Question = nil
	}
	if t := r.IsTsig(); t != nil {
		if w.TsigStatus() != nil {
			m.Rcode = dns.RcodeNotAuth
		}
		m.SetTsig(t.Hdr.Name, t.Algorithm, 300, time.Now().Unix())
	}
	_ = w.WriteMsg(m) // who asked may be gone
}

func (p *taken) answer(rcode int, bare bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rcode, p.bare = rcode, bare
}

// last is the newest message.
func (p *taken) last() *dns.Msg {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.msgs[len(p.msgs)-1]
}

func startTaken(t *testing.T, secrets map[string]string) (*taken, string) {
	t.Helper()
	p := &taken{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u, err := net.ListenPacket("udp", l.Addr().String())
	if err != nil {
		t.Skip("the port is another's for UDP: ", err)
	}
	all := func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept }
	for _, s := range []*dns.Server{
		{Listener: l, Handler: p, TsigSecret: secrets, MsgAcceptFunc: all}, {PacketConn: u, Handler: p, TsigSecret: secrets, MsgAcceptFunc: all},
	} {
		started, done := make(chan struct{}), make(chan error, 1)
		s.NotifyStartedFunc = func() { close(started) }
		go func() { done <- s.ActivateAndServe() }()
		<-started
		t.Cleanup(func() {
			if err := errors.Join(s.Shutdown(), <-done); err != nil {
				t.Error(err)
			}
		})
	}
	return p, l.Addr().String()
}

func dsData(tag byte) []byte { return []byte{0, tag, 13, 2, 0xaa, tag} }

func TestRFC2136_UpdateHasPrerequisitesAndChanges(t *testing.T) {
	keys, secrets := tsigKeys(t, "hmac-sha256")
	p, addr := startTaken(t, secrets)
	c := NewClient(ClientConfig{Keys: keys})
	u := Update{
		Zone: "\x03com\x00", Owner: "\x07example\x03com\x00", Cut: true,
		Sets: []UpdateSet{{
			Type: zone.TypeDS, Have: [][]byte{dsData(1), dsData(2)}, Remove: [][]byte{dsData(1)}, Add: [][]byte{dsData(3)}, TTL: 600,
		}},
	}
	for _, bare := range []bool{false, true} {
		p.answer(dns.RcodeSuccess, bare)
		if err := c.Update(t.Context(), endpoint(t, addr+"^transfer.key"), u); err != nil {
			t.Fatal(err)
		}
	}
	m := p.last()
	var got []string
	for _, section := range [][]dns.RR{m.Answer, m.Ns} {
		for _, rr := range section {
			h := rr.Header()
			got = append(got, fmt.Sprintf("%s %s class %d ttl %d len %d", h.Name, dns.TypeToString[h.Rrtype], h.Class, h.Ttl, h.Rdlength))
		}
	}
	want := []string{
		"example.com. NS class 255 ttl 0 len 0", "example.com. DS class 1 ttl 0 len 6", "example.com. DS class 1 ttl 0 len 6",
		"example.com. DS class 254 ttl 0 len 6", "example.com. DS class 1 ttl 600 len 6",
	}
	if !slices.Equal(got, want) || m.Opcode != dns.OpcodeUpdate || len(m.Answer) != 3 || m.Question[0].Name != "com." || m.Question[0].Qtype != dns.TypeSOA {
		t.Errorf("sent %q, want %q:\n%v", got, want, m)
	}
	u.Sets[0].Have, u.Sets[0].Remove = nil, nil
	p.answer(dns.RcodeYXRrset, false)
	code, ok := errors.AsType[*RcodeError](c.Update(t.Context(), endpoint(t, addr+"^transfer.key"), u))
	if !ok || code.Rcode != dns.RcodeYXRrset {
		t.Errorf("error %v", code)
	}
	if rr := p.last().Answer[1].Header(); rr.Class != dns.ClassNONE || rr.Rrtype != dns.TypeDS || rr.Rdlength != 0 {
		t.Errorf("no RRset is wanted as %v", rr)
	}
	u.Sets[0].Add = [][]byte{make([]byte, maxUpdate)}
	if err := c.Update(t.Context(), endpoint(t, addr+"^transfer.key"), u); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("a huge update: %v", err)
	}
}

func TestClient_UpdateNamesTSIGErrors(t *testing.T) {
	keys, secrets := tsigKeys(t, "hmac-sha256")
	secrets["transfer.key."] = base64.StdEncoding.EncodeToString([]byte("another secret of thirty-two byte"))
	_, addr := startTaken(t, secrets)
	c := NewClient(ClientConfig{Keys: keys})
	u := Update{Zone: "\x03com\x00", Owner: "\x07example\x03com\x00", Sets: []UpdateSet{{Type: zone.TypeDS, Add: [][]byte{dsData(3)}, TTL: 600}}}
	if err := c.Update(t.Context(), endpoint(t, addr+"^transfer.key"), u); err == nil {
		t.Error("an answer signed with another secret counts")
	}
	if err := c.Update(t.Context(), endpoint(t, addr+"^unknown.key"), u); !errors.Is(err, errUnknownKey) {
		t.Errorf("without the key: %v", err)
	}
}

func TestRFC9859_NotifyNamesTypeAndReportChannel(t *testing.T) {
	p, addr := startTaken(t, nil)
	c := NewClient(ClientConfig{})
	if err := c.NotifyType(t.Context(), endpoint(t, addr), exampleName, zone.TypeCDS, "\x05agent\x03ns1\x00"); err != nil {
		t.Fatal(err)
	}
	m := p.last()
	opt := m.IsEdns0()
	if m.Opcode != dns.OpcodeNotify || m.Question[0].Qtype != dns.TypeCDS || m.Question[0].Name != "example." || opt == nil || len(opt.Option) != 1 {
		t.Fatalf("sent %v", m)
	}
	if report, ok := opt.Option[0].(*dns.EDNS0_REPORTING); ok && report.AgentDomain != "agent.ns1." || !ok && opt.Option[0].Option() != 18 {
		t.Errorf("option %v", opt.Option[0])
	}
	if err := c.NotifyType(t.Context(), endpoint(t, addr), exampleName, zone.TypeCDS, ""); err != nil || p.last().IsEdns0() != nil {
		t.Errorf("%v, sent %v", err, p.last())
	}
	p.answer(dns.RcodeRefused, false)
	code, ok := errors.AsType[*RcodeError](c.NotifyType(t.Context(), endpoint(t, addr), exampleName, zone.TypeCDS, ""))
	if !ok || code.Rcode != dns.RcodeRefused {
		t.Errorf("error %v", code)
	}
}
