package xfr

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// pipeClient is a client whose connections end in serve, within a bubble.
func pipeClient(cfg ClientConfig, serve func(c net.Conn)) *Client {
	cfg.Dial = func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go func() {
			defer server.Close()
			serve(server)
		}()
		return client, nil
	}
	return NewClient(cfg)
}

// readQuery reads a framed question.
func readQuery(c net.Conn) (*dns.Msg, []byte) {
	var length [2]byte
	if _, err := io.ReadFull(c, length[:]); err != nil {
		return nil, nil
	}
	wire := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(c, wire); err != nil {
		return nil, nil
	}
	m := new(dns.Msg)
	if m.Unpack(wire) != nil {
		return nil, nil
	}
	return m, wire
}

// withID is a stream whose messages have the ID of a question.
func withID(in []byte, id uint16) []byte {
	for at := 0; at < len(in); at += 2 + int(binary.BigEndian.Uint16(in[at:])) {
		binary.BigEndian.PutUint16(in[at+2:], id)
	}
	return in
}

// endlessMessage is a message of many records without an end.
func endlessMessage(tb testing.TB) []byte {
	lines := make([]string, 0, 400)
	for i := range 400 {
		lines = append(lines, fmt.Sprintf("n%d.example. 300 IN A 192.0.2.1", i))
	}
	return stream(tb, dns.TypeAXFR, lines) // the question is repeated, which is allowed
}

func TestTransfer_TimeAgainstHostileServers(t *testing.T) {
	s3 := soaLine("3")
	for _, tc := range []struct {
		fact  string
		serve func(c net.Conn, m *dns.Msg)
		err   error
		took  time.Duration
	}{
		{"says nothing", func(c net.Conn, _ *dns.Msg) { io.Copy(io.Discard, c) }, errIdle, 30 * time.Second}, //nolint:errcheck // ends with the connection
		{"stops in the middle", func(c net.Conn, m *dns.Msg) {
			c.Write(withID(stream(t, dns.TypeAXFR, []string{s3, lineNS}), m.Id)) //nolint:errcheck // likewise
			io.Copy(io.Discard, c)                                               //nolint:errcheck // likewise
		}, errIdle, 30 * time.Second},
		{"drips bytes", func(c net.Conn, m *dns.Msg) {
			for _, b := range withID(stream(t, dns.TypeAXFR, []string{s3, lineNS, s3}), m.Id) {
				time.Sleep(time.Second) // of the bubble's clock
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
			}
		}, errIdle, 30 * time.Second},
		{"drips messages for ever", func(c net.Conn, m *dns.Msg) {
			first := withID(stream(t, dns.TypeAXFR, []string{s3, lineNS}), m.Id)
			more := withID(stream(t, dns.TypeAXFR, []string{lineA}), m.Id)
			for {
				if _, err := c.Write(first); err != nil {
					return
				}
				first = more
				time.Sleep(20 * time.Second) // of the bubble's clock
			}
		}, errLate, 10 * time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := pipeClient(ClientConfig{Limits: Limits{MaxTime: 10 * time.Minute}}, func(conn net.Conn) {
				if m, _ := readQuery(conn); m != nil {
					tc.serve(conn, m)
				}
			})
			begun := time.Now()
			_, err := c.Transfer(t.Context(), Endpoint{}, exampleName, nil, new(memSink))
			if !errors.Is(err, tc.err) || !strings.Contains(err.Error(), "example.") {
				t.Errorf("%s: %v", tc.fact, err)
			}
			if took := time.Since(begun); took != tc.took {
				t.Errorf("%s: took %v", tc.fact, took)
			}
			time.Sleep(time.Minute) // of the bubble's clock: the server notices
		})
	}
}

func TestTransfer_EndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := pipeClient(ClientConfig{}, func(conn net.Conn) { io.Copy(io.Discard, conn) }) //nolint:errcheck // ends with the connection
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begun := time.Now()
		_, err := c.Transfer(ctx, Endpoint{}, exampleName, nil, new(memSink))
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != time.Second {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
	})
}

func TestTransfer_EndlessOneTakesBoundedMemory(t *testing.T) {
	message := endlessMessage(t)
	c := pipeClient(ClientConfig{Limits: Limits{MaxBytes: 64 << 20}}, func(conn net.Conn) {
		m, _ := readQuery(conn)
		if m == nil {
			return
		}
		if _, err := conn.Write(withID(stream(t, dns.TypeAXFR, []string{soaLine("3"), lineNS}), m.Id)); err != nil {
			return
		}
		withID(message, m.Id)
		for {
			if _, err := conn.Write(message); err != nil {
				return
			}
		}
	})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	sink := new(countSink)
	_, err := c.Transfer(t.Context(), Endpoint{}, exampleName, nil, sink)
	runtime.ReadMemStats(&after)
	if !errors.Is(err, errManyBytes) || sink.records < 1_000_000 {
		t.Errorf("%v after %d records", err, sink.records)
	}
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 4<<20 {
		t.Errorf("%d bytes allocated", grown)
	}
}

func TestTransfer_FallsBackToAXFR(t *testing.T) {
	for fact, tc := range map[string]struct {
		rcode int
		want  bool
	}{
		"not implemented":   {dns.RcodeNotImplemented, true},
		"server failure":    {dns.RcodeServerFailure, true},
		"refused":           {dns.RcodeRefused, true},
		"format error":      {dns.RcodeFormatError, true},
		"not authoritative": {dns.RcodeNotAuth, false},
	} {
		c := pipeClient(ClientConfig{}, func(conn net.Conn) {
			m, _ := readQuery(conn)
			if m.Question[0].Qtype == dns.TypeIXFR {
				r := new(dns.Msg).SetRcode(m, tc.rcode)
				conn.Write(framed(t, r)) //nolint:errcheck // the client's error tells
				return
			}
			conn.Write(withID(stream(t, dns.TypeAXFR, []string{soaLine("3"), lineNS, soaLine("3")}), m.Id)) //nolint:errcheck // likewise
		})
		r, err := c.Transfer(t.Context(), Endpoint{}, exampleName, serialOf(1), new(memSink))
		if (err == nil && r.Kind == AXFR) != tc.want {
			t.Errorf("%s: %+v, %v", fact, r, err)
		}
		if code, ok := errors.AsType[*RcodeError](err); !tc.want && (!ok || code.Rcode != tc.rcode) {
			t.Errorf("%s: %v", fact, err)
		}
	}
}

func TestTransfer_WithoutEDNSWhereItIsNotKnown(t *testing.T) {
	c := pipeClient(ClientConfig{}, func(conn net.Conn) {
		m, _ := readQuery(conn)
		if m.IsEdns0() != nil {
			conn.Write(framed(t, new(dns.Msg).SetRcode(m, dns.RcodeFormatError))) //nolint:errcheck // the client's error tells
			return
		}
		conn.Write(withID(stream(t, dns.TypeAXFR, []string{soaLine("3"), lineNS, soaLine("3")}), m.Id)) //nolint:errcheck // likewise
	})
	if r, err := c.Transfer(t.Context(), Endpoint{}, exampleName, nil, new(memSink)); err != nil || r.Kind != AXFR {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestTransfer_NewerSOAAloneGivesAXFR(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := pipeClient(ClientConfig{}, func(conn net.Conn) {
			m, _ := readQuery(conn)
			if m.Question[0].Qtype == dns.TypeIXFR {
				conn.Write(withID(stream(t, dns.TypeIXFR, []string{soaLine("3")}), m.Id)) //nolint:errcheck // the client's error tells
				io.Copy(io.Discard, conn)                                                 //nolint:errcheck // likewise
				return
			}
			conn.Write(withID(stream(t, dns.TypeAXFR, []string{soaLine("3"), lineNS, soaLine("3")}), m.Id)) //nolint:errcheck // likewise
		})
		if r, err := c.Transfer(t.Context(), Endpoint{}, exampleName, serialOf(1), new(memSink)); err != nil || r.Kind != AXFR {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

// signStream signs the messages of a stream with miekg/dns, every step-th
// and the last one; break of a message's MAC by its number.
func signStream(tb testing.TB, in []byte, requestMAC string, id uint16, step, wrong int, bareEnd bool) []byte {
	tb.Helper()
	in = withID(in, id)
	var out, since []byte
	secret := base64.StdEncoding.EncodeToString(testSecret)
	mac := requestMAC
	for i, at := 0, 0; at < len(in); i++ {
		n := int(binary.BigEndian.Uint16(in[at:]))
		wire := in[at+2 : at+2+n]
		at += 2 + n
		last := at == len(in)
		if i%step != 0 && (!last || bareEnd) {
			out = append(append(out, byte(n>>8), byte(n)), wire...)
			since = append(since, wire...)
			continue
		}
		m := new(dns.Msg)
		if err := m.Unpack(wire); err != nil {
			tb.Fatal(err)
		}
		m.Compress = true
		m.SetTsig("transfer.key.", dns.HmacSHA256, 300, time.Now().Unix())
		signedWire, next, err := dns.TsigGenerateWithProvider(m, gapProvider{secret, since}, mac, i > 0)
		if err != nil {
			tb.Fatal(err)
		}
		since, mac = nil, next
		if i == wrong {
			signedWire[len(signedWire)-10] ^= 1
		}
		out = append(append(out, byte(len(signedWire)>>8), byte(len(signedWire))), signedWire...)
	}
	return out
}

// gapProvider is HMAC-SHA256 over what miekg/dns wants signed, with unsigned
// messages put in behind the MAC before.
type gapProvider struct {
	secret string
	since  []byte
}

func (p gapProvider) Generate(msg []byte, t *dns.TSIG) ([]byte, error) {
	if len(p.since) > 0 {
		cut := 2 + int(binary.BigEndian.Uint16(msg))
		msg = append(append(append([]byte{}, msg[:cut]...), p.since...), msg[cut:]...)
	}
	return hmacSHA256(p.secret, msg)
}

func (p gapProvider) Verify([]byte, *dns.TSIG) error { return errors.New("not for verifying") }

func TestRFC8945_5_3_1_UnsignedMessagesBetween(t *testing.T) {
	keys, _ := tsigKeys(t, "hmac-sha256")
	messages := func(n int) [][]string {
		out := [][]string{{soaLine("3"), lineNS}}
		for i := range n - 2 {
			out = append(out, []string{fmt.Sprintf("n%d.example. 300 IN A 192.0.2.1", i)})
		}
		return append(out, []string{soaLine("3")})
	}
	for _, tc := range []struct {
		fact        string
		count, step int
		wrong       int
		bareEnd     bool
		err         error
	}{
		{"all signed", 10, 1, -1, false, nil},
		{"every tenth", 95, 10, -1, false, nil},
		{"99 between", 201, 100, -1, false, nil},
		{"100 between", 210, 101, -1, false, errManyBare},
		{"last one bare", 25, 10, -1, true, errLastBare},
		{"wrong in the middle", 25, 10, 10, false, errBadMAC},
		{"wrong at first", 25, 10, 0, false, errBadMAC},
	} {
		c := pipeClient(ClientConfig{Keys: keys}, func(conn net.Conn) {
			m, _ := readQuery(conn)
			conn.Write(signStream(t, stream(t, dns.TypeAXFR, messages(tc.count)...), m.IsTsig().MAC, m.Id, tc.step, tc.wrong, tc.bareEnd)) //nolint:errcheck // the client's error tells
		})
		_, err := c.Transfer(t.Context(), Endpoint{Key: "transfer.key."}, exampleName, nil, new(memSink))
		if !errors.Is(err, tc.err) {
			t.Errorf("%s: %v", tc.fact, err)
		}
	}
}

func TestTransfer_TSIGErrorsAreNamed(t *testing.T) {
	keys, _ := tsigKeys(t, "hmac-sha256")
	other := memKeys{"\x08transfer\x03key\x00": {"hmac-sha256", []byte("another secret of some length...")}}
	view := exampleView(t, 7)
	addr, _ := startServer(t, Config{Source: memSource{exampleName: view}, Keys: keys})
	ep := endpoint(t, addr+"^transfer.key")
	if r, err := NewClient(ClientConfig{Keys: keys}).Transfer(t.Context(), ep, exampleName, nil, new(memSink)); err != nil || r.Key != "transfer.key." {
		t.Fatalf("%+v, %v", r, err)
	}
	_, err := NewClient(ClientConfig{Keys: other}).Transfer(t.Context(), ep, exampleName, nil, new(memSink))
	if code, ok := errors.AsType[*RcodeError](err); !ok || code.Rcode != dns.RcodeNotAuth || code.TSIG != dns.RcodeBadSig {
		t.Errorf("wrong secret: %v", err)
	}
	unknown := endpoint(t, addr+"^other.key")
	if _, err = NewClient(ClientConfig{Keys: keys}).Transfer(t.Context(), unknown, exampleName, nil, new(memSink)); !errors.Is(err, errUnknownKey) {
		t.Errorf("unknown here: %v", err)
	}
	weak, _ := tsigKeys(t, "hmac-sha1")
	if _, err = NewClient(ClientConfig{Keys: weak}).Transfer(t.Context(), ep, exampleName, nil, new(memSink)); err == nil {
		t.Error("weak key used")
	}
	// A server without the key answers unsigned; one that answers as if
	// nothing had been signed is not believed.
	plain := pipeClient(ClientConfig{Keys: keys}, func(conn net.Conn) {
		m, _ := readQuery(conn)
		conn.Write(withID(stream(t, dns.TypeAXFR, []string{soaLine("3"), lineNS, soaLine("3")}), m.Id)) //nolint:errcheck // the client's error tells
	})
	if _, err = plain.Transfer(t.Context(), ep, exampleName, nil, new(memSink)); !errors.Is(err, errUnsigned) {
		t.Errorf("unsigned answer: %v", err)
	}
}

// bothPorts listens on one free port for TCP and UDP.
func bothPorts(tb testing.TB, host string) (net.Listener, net.PacketConn) {
	tb.Helper()
	for range 50 {
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			tb.Skip("no listener: ", err)
		}
		u, err := net.ListenPacket("udp", l.Addr().String())
		if err == nil {
			return l, u
		}
		_ = l.Close() // the port is another's for UDP
	}
	tb.Fatal("no port is free for TCP and UDP")
	return nil, nil
}

// packetServer answers datagrams with what reply makes of them, on the port
// that a TCP listener has too where stream is set.
func packetServer(tb testing.TB, reply func(m *dns.Msg) []*dns.Msg, stream func(c net.Conn)) Endpoint {
	tb.Helper()
	l, pc := bothPorts(tb, "127.0.0.1")
	done := make(chan struct{}, 2)
	go func() {
		defer func() { done <- struct{}{} }()
		buf := make([]byte, 4096)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			m := new(dns.Msg)
			if m.Unpack(buf[:n]) != nil {
				continue
			}
			for _, r := range reply(m) {
				wire, err := r.Pack()
				if err != nil {
					tb.Error(err)
					continue
				}
				pc.WriteTo(wire, from) //nolint:errcheck // a datagram may be lost
			}
		}
	}()
	go func() {
		defer func() { done <- struct{}{} }()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if stream != nil {
				stream(c)
			}
			_ = c.Close() // all was said
		}
	}()
	tb.Cleanup(func() {
		_ = pc.Close() // the test is over
		_ = l.Close()
		<-done
		<-done
	})
	return endpoint(tb, l.Addr().String())
}

// soaReply is the right answer to a SOA query.
func soaReply(tb testing.TB, m *dns.Msg, serial string) *dns.Msg {
	tb.Helper()
	r := new(dns.Msg).SetReply(m)
	r.Authoritative = true
	rr, err := dns.NewRR(soaLine(serial))
	if err != nil {
		tb.Fatal(err)
	}
	r.Answer = []dns.RR{rr}
	return r
}

func TestSOA_ForgedAnswersArePassedOver(t *testing.T) {
	ep := packetServer(t, func(m *dns.Msg) []*dns.Msg {
		var out []*dns.Msg
		for i := range 4 {
			f := soaReply(t, m, "666")
			switch i {
			case 0:
				f.Id++
			case 1:
				f.Response = false
			case 2:
				f.Question[0].Name = "other."
			case 3:
				f.Question = nil
			}
			out = append(out, f)
		}
		return append(out, soaReply(t, m, "5"))
	}, nil)
	serial, _, err := NewClient(ClientConfig{}).SOA(t.Context(), ep, exampleName)
	if err != nil || serial != 5 {
		t.Errorf("%d, %v", serial, err)
	}
}

func TestSOA_OverTCPWhereUDPDoesNot(t *testing.T) {
	tcp := func(c net.Conn) {
		if m, _ := readQuery(c); m != nil {
			c.Write(framed(t, soaReply(t, m, "5"))) //nolint:errcheck // the client's error tells
		}
	}
	for fact, udp := range map[string]func(m *dns.Msg) []*dns.Msg{
		"silence": func(*dns.Msg) []*dns.Msg { return nil },
		"truncated": func(m *dns.Msg) []*dns.Msg {
			r := new(dns.Msg).SetReply(m)
			r.Truncated = true
			return []*dns.Msg{r}
		},
	} {
		ep := packetServer(t, udp, tcp)
		c := NewClient(ClientConfig{Tries: []time.Duration{20 * time.Millisecond}})
		if serial, _, err := c.SOA(t.Context(), ep, exampleName); err != nil || serial != 5 {
			t.Errorf("%s: %d, %v", fact, serial, err)
		}
	}
}

func TestSOA_AnswersThatAreNone(t *testing.T) {
	for fact, tc := range map[string]struct {
		change func(r *dns.Msg)
		wrong  func(err error) bool
	}{
		"not authoritative": {func(r *dns.Msg) { r.Authoritative = false }, func(err error) bool { return errors.Is(err, errNotAuthoritative) }},
		"no records":        {func(r *dns.Msg) { r.Answer = nil }, func(err error) bool { return errors.Is(err, errNoSOA) }},
		"SOA of another":    {func(r *dns.Msg) { r.Answer[0].Header().Name = "a.example." }, func(err error) bool { return errors.Is(err, errNoSOA) }},
		"refused with a reason": {func(r *dns.Msg) {
			r.Answer, r.Rcode = nil, dns.RcodeRefused
			r.SetEdns0(1232, false)
			r.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeProhibited, ExtraText: "not\x00you"}}
		}, func(err error) bool {
			return strings.Contains(err.Error(), `the server answered REFUSED (Prohibited: "not\x00you")`)
		}},
		"extended code": {func(r *dns.Msg) {
			r.Answer, r.Rcode = nil, dns.RcodeBadVers
			r.SetEdns0(1232, false)
		}, func(err error) bool {
			code, ok := errors.AsType[*RcodeError](err)
			return ok && code.Rcode == dns.RcodeBadVers
		}},
	} {
		ep := packetServer(t, func(m *dns.Msg) []*dns.Msg {
			r := soaReply(t, m, "5")
			tc.change(r)
			return []*dns.Msg{r}
		}, nil)
		if _, _, err := NewClient(ClientConfig{}).SOA(t.Context(), ep, exampleName); err == nil || !tc.wrong(err) {
			t.Errorf("%s: %v", fact, err)
		}
	}
}

func TestSOA_UnsignedRefusalDoesNotEndASignedQuestion(t *testing.T) {
	keys, _ := tsigKeys(t, "hmac-sha256")
	var forged atomic.Int32
	view := exampleView(t, 7)
	s := testServer(t, Config{Source: memSource{exampleName: view}, Keys: keys})
	ep := packetServer(t, func(m *dns.Msg) []*dns.Msg {
		forged.Add(1)
		return []*dns.Msg{new(dns.Msg).SetRcode(m, dns.RcodeRefused)}
	}, func(c net.Conn) { s.serveConn(context.Background(), c) })
	ep.Key = "transfer.key."
	c := NewClient(ClientConfig{Keys: keys, Tries: []time.Duration{20 * time.Millisecond}})
	serial, _, err := c.SOA(t.Context(), ep, exampleName)
	if err != nil || serial != 7 || forged.Load() != 1 {
		t.Errorf("%d, %v after %d forged answers", serial, err, forged.Load())
	}
}
