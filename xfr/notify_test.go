package xfr

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"sluice/signer/zone"
)

// noticed writes down which NOTIFYs came.
type noticed struct {
	mu    sync.Mutex
	lines []string // guarded by mu
}

func (n *noticed) note(name zone.Name, serial *zone.Serial, peer Peer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	hint := "none"
	if serial != nil {
		hint = fmt.Sprint(*serial)
	}
	n.lines = append(n.lines, fmt.Sprintf("%s %s %s %s TLS %v", name, hint, peer.Addr.Addr(), peer.Key, peer.TLS))
}

func (n *noticed) take() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	defer func() { n.lines = nil }()
	return n.lines
}

// allowExample allows NOTIFY for example from those that signed with key.
func allowExample(key string) func(zone.Name, Peer) error {
	return func(name zone.Name, peer Peer) error {
		switch {
		case !name.Equal(exampleName):
			return ErrUnknownZone
		case peer.Key != key:
			return ErrNotAllowed
		}
		return nil
	}
}

func TestRFC1996_NotifyBetweenOurOwn(t *testing.T) {
	keys, _ := tsigKeys(t, "hmac-sha256")
	var seen noticed
	addr, s := startServer(t, Config{Source: memSource{}, Keys: keys, AllowsNotify: allowExample("transfer.key."), Notified: seen.note})
	c := NewClient(ClientConfig{Keys: keys})
	_, soa := exampleView(t, 9).SOA()
	signed, bare := endpoint(t, addr+"^transfer.key"), endpoint(t, addr)
	for _, tc := range []struct {
		ep    Endpoint
		name  zone.Name
		soa   zone.Value
		rcode int
		want  []string
	}{
		{signed, "\x07exAMPle\x00", soa, 0, []string{"exAMPle. 9 127.0.0.1 transfer.key. TLS false"}},
		{signed, exampleName, nil, 0, []string{"example. none 127.0.0.1 transfer.key. TLS false"}},
		{bare, exampleName, soa, dns.RcodeRefused, nil},
		{signed, "\x05other\x00", nil, dns.RcodeNotAuth, nil},
	} {
		err := c.Notify(t.Context(), tc.ep, tc.name, tc.soa)
		if code, ok := errors.AsType[*RcodeError](err); ok != (tc.rcode != 0) || ok && code.Rcode != tc.rcode || !ok && err != nil {
			t.Errorf("%s to %s: %v", tc.name, tc.ep, err)
		}
		if d := cmp.Diff(tc.want, seen.take()); d != "" {
			t.Errorf("%s to %s: %s", tc.name, tc.ep, d)
		}
	}
	if st := s.Stats(); st.Notifies != 2 || st.Refused != 2 || st.NotifiesRefused != 2 {
		t.Errorf("%+v", st)
	}
	if st := c.Stats(); st.Told != 2 || st.Refused != 2 || st.Silent != 0 {
		t.Errorf("%+v", st)
	}
	if err := c.Notify(t.Context(), signed, exampleName, soa[:7]); err == nil {
		t.Error("damaged SOA sent")
	}
}

func TestRFC1996_NotifyFromOthers(t *testing.T) {
	var seen noticed
	cfg := Config{Source: memSource{}, AllowsNotify: allowExample(""), Notified: seen.note}
	s := testServer(t, cfg)
	notify := func(change func(m *dns.Msg)) *dns.Msg {
		m := new(dns.Msg).SetNotify("example.")
		change(m)
		return ask(t, s, m)
	}
	ttl, err := dns.NewRR(soaLine("4294967295"))
	if err != nil {
		t.Fatal(err)
	}
	other, err := dns.NewRR("a." + soaLine("7"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		fact   string
		change func(m *dns.Msg)
		rcode  int
		want   []string
	}{
		{"no hint", func(*dns.Msg) {}, 0, []string{"example. none 192.0.2.77  TLS false"}},
		{"with a hint", func(m *dns.Msg) { m.Answer = []dns.RR{ttl} }, 0, []string{"example. 4294967295 192.0.2.77  TLS false"}},
		{"a hint of another name", func(m *dns.Msg) { m.Answer = []dns.RR{other} }, 0, []string{"example. none 192.0.2.77  TLS false"}},
		{"a hint in the wrong section", func(m *dns.Msg) { m.Ns = []dns.RR{ttl} }, 0, []string{"example. none 192.0.2.77  TLS false"}},
		{"with EDNS", func(m *dns.Msg) { m.SetEdns0(1232, false) }, 0, []string{"example. none 192.0.2.77  TLS false"}},
		{"of another type", func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeCDS }, dns.RcodeNotImplemented, nil},
		{"of another class", func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }, dns.RcodeRefused, nil},
		{"without a question", func(m *dns.Msg) { m.Question = nil }, dns.RcodeFormatError, nil},
	} {
		r := notify(tc.change)
		if r.Rcode != tc.rcode || r.Opcode != dns.OpcodeNotify || !r.Response || len(r.Answer) != 0 {
			t.Errorf("%s: %v", tc.fact, r)
		}
		if r.Rcode == 0 && (!r.Authoritative || len(r.Question) != 1 || r.Question[0].Qtype != dns.TypeSOA) {
			t.Errorf("%s: %v", tc.fact, r)
		}
		if d := cmp.Diff(tc.want, seen.take()); d != "" {
			t.Errorf("%s: %s", tc.fact, d)
		}
	}
	s = testServer(t, Config{Source: memSource{}})
	if r := notify(func(*dns.Msg) {}); r.Rcode != dns.RcodeNotImplemented {
		t.Errorf("server without the hook: %v", r)
	}
	s = testServer(t, Config{Source: memSource{}, AllowsNotify: func(zone.Name, Peer) error { return errors.New("broken") }})
	if r := notify(func(*dns.Msg) {}); r.Rcode != dns.RcodeServerFailure || s.Stats().Faults != 1 {
		t.Errorf("hook that fails: %v", r)
	}
}

func TestNotify_FloodCostsFewLines(t *testing.T) {
	var out strings.Builder
	log := slog.New(slog.NewTextHandler(&out, nil))
	for _, key := range []string{"", "not yours."} {
		out.Reset()
		s := testServer(t, Config{Source: memSource{}, AllowsNotify: allowExample(key), Logger: log})
		begun := time.Now()
		for range 1000 {
			ask(t, s, new(dns.Msg).SetNotify("example."))
		}
		if lines := strings.Count(out.String(), "\n"); lines > 2+int(time.Since(begun)/time.Second) {
			t.Errorf("%d lines", lines)
		}
	}
}

func TestNotify_AskedAgainUntilAnswered(t *testing.T) {
	asked := make(chan uint16, 10)
	ep := packetServer(t, func(m *dns.Msg) []*dns.Msg {
		if asked <- m.Id; len(asked) < 3 {
			return nil
		}
		return []*dns.Msg{new(dns.Msg).SetReply(m)}
	}, nil)
	c := NewClient(ClientConfig{Tries: []time.Duration{10 * time.Millisecond, 20 * time.Millisecond}})
	if err := c.Notify(t.Context(), ep, exampleName, nil); err != nil {
		t.Fatal(err)
	}
	var ids []uint16
	for range len(asked) {
		ids = append(ids, <-asked)
	}
	if len(ids) != 3 || len(slices.Compact(ids)) == 1 {
		t.Errorf("IDs %v", ids)
	}
	// Nobody answers: an error, not for ever.
	silent := packetServer(t, func(*dns.Msg) []*dns.Msg { return nil }, nil)
	c = NewClient(ClientConfig{Tries: []time.Duration{time.Millisecond}, Limits: Limits{Idle: 50 * time.Millisecond}})
	if err := c.Notify(t.Context(), silent, exampleName, nil); err == nil || !strings.Contains(err.Error(), "over UDP") {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Notify(ctx, silent, exampleName, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestTransferred_TellsWhoFetchedWhat(t *testing.T) {
	view := ixfrView(t)
	var mu sync.Mutex
	var got []string
	addr, _ := startServer(t, Config{
		Source: memSource{exampleName: view},
		Transferred: func(peer Peer, view View, kind TransferKind) {
			apex, serial := view.Apex(), view.Serial()
			mu.Lock()
			defer mu.Unlock()
			got = append(got, fmt.Sprintf("%s %s %d %s", peer.Addr.Addr(), apex, serial, kind))
		},
	})
	c, ep := NewClient(ClientConfig{}), endpoint(t, addr)
	for _, have := range []*zone.Serial{nil, serialOf(4), serialOf(5), serialOf(7)} {
		if _, err := c.Transfer(t.Context(), ep, exampleName, have, new(memSink)); err != nil {
			t.Fatal(err)
		}
	}
	udp := dns.Client{Net: "udp"}
	if _, _, err := udp.Exchange(ixfrQuery(5), addr); err != nil {
		t.Fatal(err)
	}
	// A question behind each one on its connection would be answered after
	// the hook; here the clients are gone, so wait for the fact.
	want := []string{"127.0.0.1 Example. 7 AXFR", "127.0.0.1 Example. 7 AXFR", "127.0.0.1 Example. 7 IXFR", "127.0.0.1 Example. 7 IXFR"}
	deadline := time.Now().Add(5 * time.Second)
	for {
		mu.Lock()
		now := slices.Clone(got)
		mu.Unlock()
		if len(now) >= len(want) {
			if d := cmp.Diff(want, sorted(now)); d != "" {
				t.Error(d)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("told %v", now)
		}
		time.Sleep(time.Millisecond) // polls a named condition
	}
}

// A server of miekg/dns, zones with and without TSIG.
func TestClient_AgainstMiekgDNS(t *testing.T) {
	keys, secrets := tsigKeys(t, "hmac-sha512")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	lines := []string{soaLine("3"), lineNS}
	for i := range 3000 {
		lines = append(lines, fmt.Sprintf("n%d.example. 300 IN MX 10 Mail%d.n%d.example.", i, i%7, i))
	}
	lines = append(lines, soaLine("3"))
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, m *dns.Msg) {
		ch := make(chan *dns.Envelope)
		tr := &dns.Transfer{TsigSecret: secrets}
		go func() {
			defer close(ch)
			for part := range slices.Chunk(lines, 250) {
				e := new(dns.Envelope)
				for _, line := range part {
					rr, err := dns.NewRR(line)
					if err != nil {
						t.Error(err)
						return
					}
					e.RR = append(e.RR, rr)
				}
				ch <- e
			}
		}()
		if err := tr.Out(w, m, ch); err != nil {
			t.Error(err)
		}
	})
	srv := &dns.Server{Listener: l, Handler: handler, TsigSecret: secrets}
	done := make(chan error, 1)
	go func() { done <- srv.ActivateAndServe() }()
	t.Cleanup(func() {
		_ = srv.Shutdown() // the test is over
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for _, text := range []string{l.Addr().String(), l.Addr().String() + "^transfer.key"} {
		sink := new(memSink)
		r, err := NewClient(ClientConfig{Keys: keys}).Transfer(t.Context(), endpoint(t, text), exampleName, nil, sink)
		if err != nil || r.Kind != AXFR || r.Messages != 13 {
			t.Fatalf("%s: %+v, %v", text, r, err)
		}
		want := make([]string, 0, len(lines))
		for _, line := range lines[:len(lines)-1] {
			rr, err := dns.NewRR(line)
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, rr.String())
		}
		if d := cmp.Diff(sorted(want), sink.records()); d != "" {
			t.Errorf("%s: %s", text, d)
		}
	}
}
