package xfr

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"sluice/signer/zone"
)

// testServer is a server without listeners, for its answers alone.
func testServer(tb testing.TB, cfg Config) *Server {
	tb.Helper()
	s, err := NewServer(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

var testPeer = netip.MustParseAddrPort("192.0.2.77:4242")

// askPacket gives the server a datagram and returns its answer; nil for none.
func askPacket(tb testing.TB, s *Server, msg []byte) []byte {
	tb.Helper()
	enc := new(encoder)
	if err := s.answer(tb.Context(), msg, testPeer, enc, nil); err != nil {
		if !errors.Is(err, errDrop) {
			tb.Fatal(err)
		}
		return nil
	}
	return enc.buf
}

func ask(tb testing.TB, s *Server, m *dns.Msg) *dns.Msg {
	tb.Helper()
	wire, err := m.Pack()
	if err != nil {
		tb.Fatal(err)
	}
	answer := askPacket(tb, s, wire)
	if answer == nil {
		tb.Fatalf("no answer to %v", m)
	}
	r := new(dns.Msg)
	if err := r.Unpack(answer); err != nil {
		tb.Fatalf("%x: %v", answer, err)
	}
	if r.Id != m.Id || !r.Response || r.Opcode != m.Opcode || r.RecursionAvailable {
		tb.Errorf("header %+v", r.MsgHdr)
	}
	return r
}

// faultSource fails in a way that is no peer's fault.
type faultSource struct{}

func (faultSource) View(zone.Name) (View, error) { return nil, errors.New("disk on fire") }

func TestAnswer_RefusalsSayWhy(t *testing.T) {
	closed := exampleView(t, 5)
	closed.apex, closed.allow = "\x06closed\x00", func(Peer) bool { return false }
	source := memSource{"\x07example\x00": exampleView(t, 5), "\x06closed\x00": closed, "\x05young\x00": nil}
	soa := "Example. 300 IN SOA a. b. 5 1 1 1 1"
	for _, tc := range []struct {
		fact     string
		name     string
		qtype    uint16
		qclass   uint16
		opcode   int
		ns       string
		source   Source
		wantCode int
		wantEDE  int // -1: none
	}{
		{fact: "SOA of an unknown zone", name: "nowhere.", qtype: dns.TypeSOA, wantCode: dns.RcodeRefused, wantEDE: 20},
		{fact: "SOA below a known zone", name: "a.example.", qtype: dns.TypeSOA, wantCode: dns.RcodeRefused, wantEDE: 20},
		{fact: "IXFR of an unknown zone", name: "nowhere.", qtype: dns.TypeIXFR, ns: strings.ReplaceAll(soa, "Example", "nowhere"), wantCode: dns.RcodeNotAuth, wantEDE: 20},
		{fact: "zone not ready", name: "young.", qtype: dns.TypeSOA, wantCode: dns.RcodeServerFailure, wantEDE: 14},
		{fact: "transfer not allowed", name: "closed.", qtype: dns.TypeIXFR, ns: strings.ReplaceAll(soa, "Example", "closed"), wantCode: dns.RcodeRefused, wantEDE: 18},
		{fact: "other type", name: "example.", qtype: dns.TypeDNSKEY, wantCode: dns.RcodeRefused, wantEDE: 21},
		{fact: "type ANY", name: "example.", qtype: dns.TypeANY, wantCode: dns.RcodeRefused, wantEDE: 21},
		{fact: "other class", name: "example.", qtype: dns.TypeSOA, qclass: dns.ClassCHAOS, wantCode: dns.RcodeRefused, wantEDE: 21},
		{fact: "AXFR over UDP", name: "example.", qtype: dns.TypeAXFR, wantCode: dns.RcodeNotImplemented, wantEDE: 21},
		{fact: "IXFR without SOA", name: "example.", qtype: dns.TypeIXFR, wantCode: dns.RcodeFormatError, wantEDE: -1},
		{fact: "IXFR with another zone's SOA", name: "example.", qtype: dns.TypeIXFR, ns: strings.ReplaceAll(soa, "Example", "other"), wantCode: dns.RcodeFormatError, wantEDE: -1},
		{fact: "fault of the store", name: "example.", qtype: dns.TypeSOA, source: faultSource{}, wantCode: dns.RcodeServerFailure, wantEDE: 0},
	} {
		t.Run(tc.fact, func(t *testing.T) {
			s := testServer(t, Config{Source: source})
			if tc.source != nil {
				s = testServer(t, Config{Source: tc.source})
			}
			m := new(dns.Msg).SetQuestion(tc.name, tc.qtype)
			if tc.qclass != 0 {
				m.Question[0].Qclass = tc.qclass
			}
			if tc.ns != "" {
				rr, err := dns.NewRR(tc.ns)
				if err != nil {
					t.Fatal(err)
				}
				m.Ns = []dns.RR{rr}
			}
			if r := ask(t, s, m); r.Rcode != tc.wantCode || r.IsEdns0() != nil || len(r.Answer) != 0 || r.Authoritative {
				t.Errorf("without EDNS: %v", r)
			}
			m.SetEdns0(4096, false)
			r := ask(t, s, m)
			if r.Rcode != tc.wantCode || r.IsEdns0() == nil || !cmp.Equal(r.Question, m.Question) {
				t.Fatalf("with EDNS: %v", r)
			}
			got := -1
			for _, o := range r.IsEdns0().Option {
				got = int(o.(*dns.EDNS0_EDE).InfoCode)
			}
			if got != tc.wantEDE {
				t.Errorf("extended error %d, want %d", got, tc.wantEDE)
			}
			if s.Stats().Refused != 2 {
				t.Errorf("%+v", s.Stats())
			}
		})
	}
	for _, v := range source {
		if v != nil {
			v.awaitClosed(t)
		}
	}
}

func TestAnswer_OpcodesOtherThanQueryAreNotImplemented(t *testing.T) {
	s := testServer(t, Config{Source: memSource{"\x07example\x00": exampleView(t, 5)}})
	for op := 1; op < 16; op++ {
		m := new(dns.Msg).SetQuestion("example.", dns.TypeSOA)
		m.Opcode = op
		if r := ask(t, s, m); r.Rcode != dns.RcodeNotImplemented {
			t.Errorf("opcode %d: %v", op, r)
		}
	}
}

func TestRFC6891_6_1_3_UnknownVersionIsBadVers(t *testing.T) {
	s := testServer(t, Config{Source: memSource{"\x07example\x00": exampleView(t, 5)}})
	m := new(dns.Msg).SetQuestion("example.", dns.TypeSOA)
	m.SetEdns0(1232, false)
	m.IsEdns0().SetVersion(1)
	if r := ask(t, s, m); r.Rcode != dns.RcodeBadVers || r.IsEdns0().Version() != 0 {
		t.Error(r)
	}
}

func TestAnswer_SOAKeepsCaseAndQuestion(t *testing.T) {
	view := exampleView(t, 5)
	s := testServer(t, Config{Source: memSource{"\x07example\x00": view}})
	m := new(dns.Msg).SetQuestion("eXaMpLe.", dns.TypeSOA)
	r := ask(t, s, m)
	key, value := view.SOA()
	if d := cmp.Diff(recordsOf(t, item{key, value}), texts(r.Answer)); d != "" {
		t.Error(d)
	}
	if !r.Authoritative || r.Question[0].Name != "eXaMpLe." || !r.RecursionDesired {
		t.Error(r)
	}
}

func TestAnswer_SignedSOATooLongIsTruncated(t *testing.T) {
	view := exampleView(t, 5)
	for i, it := range view.items {
		if zone.Kind(it.key[0]) == zone.KindSigs && zone.Type(binary.BigEndian.Uint16(it.key[len(it.key)-2:])) == zone.TypeSOA {
			d := make([]byte, 600)
			copy(d, it.value[len(it.value)-90:])
			view.items[i].value = zone.AppendValue(nil, view.apex, 300, d)
		}
	}
	s := testServer(t, Config{Source: memSource{"\x07example\x00": view}})
	for _, tc := range []struct {
		payload   uint16
		truncated bool
	}{{0, true}, {512, true}, {600, true}, {1232, false}, {65535, false}} {
		m := new(dns.Msg).SetQuestion("example.", dns.TypeSOA)
		m.SetEdns0(tc.payload, true)
		wire, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		answer := askPacket(t, s, wire)
		if tc.truncated != (answer[2]&2 != 0) || tc.truncated != (answer[7] == 0) || len(answer) > max(512, int(tc.payload)) {
			t.Errorf("payload %d: %d bytes, header % x", tc.payload, len(answer), answer[:12])
		}
	}
}

func TestAnswer_MalformedRequests(t *testing.T) {
	s := testServer(t, Config{Source: memSource{"\x07example\x00": exampleView(t, 5)}})
	header := func(counts ...byte) []byte {
		h := []byte{0xab, 0xcd, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}
		for i, c := range counts {
			h[5+2*i] = c
		}
		return h
	}
	question := []byte("\x07example\x00\x00\x06\x00\x01")
	opt := []byte("\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00")
	for _, tc := range []struct {
		fact string
		msg  []byte
		drop bool
	}{
		{"nothing", nil, true},
		{"half a header", header()[:11], true},
		{"a response", append([]byte{1, 2, 0x81}, header()[3:]...), true},
		{"no question", header(), false},
		{"two questions", joinBytes(header(2), question, question), false},
		{"question missing", header(1), false},
		{"question cut", joinBytes(header(1), question[:11]), false},
		{"name pointing to itself", joinBytes(header(1), []byte{0xc0, 12, 0, 6, 0, 1}), false},
		{"name pointing into the header", joinBytes(header(1), []byte{0xc0, 4, 0, 6, 0, 1}), false},
		{"reserved label type", joinBytes(header(1), []byte{0x80, 12, 0, 6, 0, 1}), false},
		{"name too long", joinBytes(header(1), bytes.Repeat([]byte("\x3f"+strings.Repeat("a", 63)), 4), []byte{0, 0, 6, 0, 1}), false},
		{"record missing", joinBytes(header(1, 0, 0, 1), question), false},
		{"record cut", joinBytes(header(1, 0, 0, 1), question, opt[:8]), false},
		{"RDATA beyond the end", joinBytes(header(1, 0, 0, 1), question, opt[:10], []byte{9}), false},
		{"two OPT", joinBytes(header(1, 0, 0, 2), question, opt, opt), false},
		{"OPT in the answer section", joinBytes(header(1, 1), question, opt), false},
		{"OPT with an owner", joinBytes(header(1, 0, 0, 1), question, []byte{1, 'a'}, opt), false},
		{"bytes behind the end", joinBytes(header(1), question, []byte{0}), false},
		{"TSIG before the end", joinBytes(header(1, 0, 0, 2), question, []byte("\x00\x00\xfa\x00\xff\x00\x00\x00\x00\x00\x00"), opt), false},
		{"TSIG without RDATA", joinBytes(header(1, 0, 0, 1), question, []byte("\x00\x00\xfa\x00\xff\x00\x00\x00\x00\x00\x00")), false},
		{"SOA cut short", joinBytes(header(1, 0, 1), question, []byte("\xc0\x0c\x00\x06\x00\x01\x00\x00\x00\x00\x00\x03\x00\x00\x01")), false},
	} {
		answer := askPacket(t, s, tc.msg)
		if tc.drop {
			if answer != nil {
				t.Errorf("%s: answered % x", tc.fact, answer)
			}
			continue
		}
		if len(answer) < 12 || !bytes.Equal(answer[:2], tc.msg[:2]) || answer[2]&0x80 == 0 || answer[3]&0xf != dns.RcodeFormatError {
			t.Errorf("%s: % x", tc.fact, answer)
			continue
		}
		if err := new(dns.Msg).Unpack(answer); err != nil {
			t.Errorf("%s: %v in % x", tc.fact, err, answer)
		}
	}
}

func joinBytes(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func TestRefusals_AreLoggedOnceASecond(t *testing.T) {
	var out bytes.Buffer
	s := testServer(t, Config{Source: memSource{}, Logger: slog.New(slog.NewTextHandler(&out, nil))})
	for range 50 {
		ask(t, s, new(dns.Msg).SetQuestion("nowhere.", dns.TypeSOA))
	}
	if n := bytes.Count(out.Bytes(), []byte("\n")); n < 1 || n > 3 {
		t.Errorf("%d lines:\n%s", n, out.String())
	}
	if s.Stats().Refused != 50 {
		t.Errorf("%+v", s.Stats())
	}
}

func FuzzMessage(f *testing.F) {
	view := exampleView(f, 5)
	view.diffs = []Diff{exampleDiff(f, 3, 4), exampleDiff(f, 4, 5)}
	keys := memKeys{"\x01k\x00": {"hmac-sha256", []byte("secret")}}
	server := testServer(f, Config{Source: memSource{"\x07example\x00": view}, Keys: keys, AllowsNotify: allowExample("")})
	told := new(dns.Msg).SetNotify("example.")
	hint, err := dns.NewRR(soaLine("7"))
	if err != nil {
		f.Fatal(err)
	}
	told.Answer = []dns.RR{hint}
	for _, m := range []*dns.Msg{
		new(dns.Msg).SetQuestion("example.", dns.TypeSOA),
		new(dns.Msg).SetAxfr("example."),
		new(dns.Msg).SetIxfr("example.", 3, "ns1.example.", "host.example."),
		new(dns.Msg).SetIxfr("example.", 2, "ns1.example.", "host.example."),
		new(dns.Msg).SetNotify("example."),
		told,
		new(dns.Msg).SetEdns0(1232, true).SetQuestion("example.", dns.TypeSOA),
		new(dns.Msg).SetAxfr("example.").SetTsig("k.", dns.HmacSHA256, 300, 1),
	} {
		wire, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire)
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		enc := new(encoder)
		err := server.answer(context.Background(), msg, testPeer, enc, nil)
		switch {
		case errors.Is(err, errDrop):
			if len(enc.buf) != 0 {
				t.Errorf("an answer of %d bytes to no request", len(enc.buf))
			}
			return
		case err != nil:
			t.Fatal(err)
		case len(enc.buf) < headerLen || len(enc.buf) > udpPayload:
			t.Fatalf("answer of %d bytes", len(enc.buf))
		}
		if err := new(dns.Msg).Unpack(enc.buf); err != nil {
			t.Fatalf("% x: %v", enc.buf, err)
		}
		if view.opened.Load() != view.closed.Load() {
			t.Fatal("view left open")
		}
	})
}

// exampleDiff goes from one serial of the example to another: an address is
// replaced and a name is added.
func exampleDiff(tb testing.TB, from, to uint32) *memDiff {
	tb.Helper()
	_, fromSOA := exampleView(tb, from).SOA()
	_, toSOA := exampleView(tb, to).SOA()
	gone := fmt.Sprintf("a.example. 300 IN A 192.0.2.%d\n", from) + serialSig(from)
	came := fmt.Sprintf("a.example. 300 IN A 192.0.2.%d\nB%d.example. 300 IN TXT new\n", to, to) + serialSig(to)
	return &memDiff{
		from: zone.Serial(from), to: zone.Serial(to), fromSOA: fromSOA, toSOA: toSOA,
		removed: byKey(itemsOf(tb, gone)), added: byKey(itemsOf(tb, came)), size: 400,
	}
}

// serialSig is an RRSIG over the SOA that differs by serial.
func serialSig(serial uint32) string {
	return fmt.Sprintf("example. 300 IN RRSIG SOA %s\n", strings.Replace(sigRest, "12345", fmt.Sprint(serial), 1))
}

// exampleNet is the net difference of the steps from 3 to 5 and from 5 to 7.
func exampleNet(tb testing.TB) *memDiff {
	tb.Helper()
	d := exampleDiff(tb, 3, 7)
	d.added = byKey(append(itemsOf(tb, "B5.example. 300 IN TXT new"), d.added...))
	return d
}

// byKey sorts items as diffs hold them.
func byKey(items []item) []item {
	slices.SortFunc(items, func(a, b item) int { return bytes.Compare(a.key, b.key) })
	return items
}

// memKeys holds TSIG keys.
type memKeys map[zone.Name]struct {
	algorithm string
	secret    []byte
}

func (m memKeys) Secret(name zone.Name) (string, []byte, bool) {
	k, ok := m[name]
	return k.algorithm, k.secret, ok
}
