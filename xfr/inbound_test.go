package xfr

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"sluice/signer/zone"
)

// memConn is a connection whose peer has said all it will say.
type memConn struct {
	net.Conn
	in *bytes.Reader
}

func (c *memConn) Read(b []byte) (int, error)      { return c.in.Read(b) }
func (c *memConn) SetReadDeadline(time.Time) error { return nil }

// countSink counts.
type countSink struct{ records, bytes int64 }

func (s *countSink) Begin(TransferKind, *Record) error { return nil }

func (s *countSink) Record(rr *Record) error {
	s.records++
	s.bytes += int64(len(rr.RData))
	return nil
}

func (s *countSink) Delete(rr *Record) error { return s.Record(rr) }
func (s *countSink) Add(rr *Record) error    { return s.Record(rr) }

// keepSink keeps the blocks of an encoder.
type keepSink struct{ bytes.Buffer }

func (k *keepSink) emit(block []byte) ([]byte, error) {
	k.Write(block)
	return block, nil
}

// encodedTLD is an AXFR of a top-level domain as a stream.
func encodedTLD(tb testing.TB, names int) []byte {
	tb.Helper()
	items := tldItems(names)
	req := request{name: "\x03tld\x00", qtype: typeAXFR, qclass: classIN}
	e, out := new(encoder), new(keepSink)
	e.begin(&req, make([]byte, 0, blockSize), out, true, maxMessage)
	e.apex = []byte(req.name)
	e.open()
	for _, it := range append(items, items[0]) {
		if err := e.item(it.key, it.value); err != nil {
			tb.Fatal(err)
		}
	}
	if err := e.end(); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

// take runs a transfer of the zone name over what a server says; the ID is 0.
func take(stream []byte, name zone.Name, have *zone.Serial, sink TransferSink, limits Limits) (TransferResult, error) {
	q := &query{name: name, qtype: typeAXFR}
	if have != nil {
		q.qtype, q.have = typeIXFR, have
	}
	t := &inbound{
		q: q, sink: sink, limits: limits.withDefaults(), conn: &memConn{in: bytes.NewReader(stream)},
		end: time.Now().Add(time.Hour),
	}
	t.dec.apex = name.Fold()
	err := t.run()
	return t.result, err
}

// BenchmarkDecode is reading a transfer out of memory.
func BenchmarkDecode(b *testing.B) {
	stream := encodedTLD(b, 100_000)
	var sink countSink
	b.ReportAllocs()
	for b.Loop() {
		sink = countSink{}
		if _, err := take(stream, "\x03tld\x00", nil, &sink, Limits{}); err != nil {
			b.Fatal(err)
		}
	}
	reportRecords(b, sink.records, int64(len(stream)))
}

// BenchmarkTransferIn is a transfer over the loopback, the server included.
func BenchmarkTransferIn(b *testing.B) {
	view := &memView{apex: "\x03tld\x00", serial: 0, items: tldItems(300_000)}
	addr, _ := startServer(b, Config{Source: memSource{view.apex: view}})
	c, ep := NewClient(ClientConfig{}), endpoint(b, addr)
	var sink countSink
	var size int64
	b.ReportAllocs()
	for b.Loop() {
		sink = countSink{}
		r, err := c.Transfer(b.Context(), ep, view.apex, nil, &sink)
		if err != nil {
			b.Fatal(err)
		}
		size = r.Bytes
	}
	reportRecords(b, sink.records, size)
}

// stream packs messages of records in presentation form, each the answers of
// one message; the first repeats the question.
func stream(tb testing.TB, qtype uint16, messages ...[]string) []byte {
	tb.Helper()
	var out []byte
	for i, lines := range messages {
		m := &dns.Msg{MsgHdr: dns.MsgHdr{Response: true, Authoritative: true}, Compress: true}
		if i == 0 {
			m.Question = []dns.Question{{Name: "example.", Qtype: qtype, Qclass: dns.ClassINET}}
		}
		for _, line := range lines {
			rr, err := dns.NewRR(line)
			if err != nil {
				tb.Fatal(err)
			}
			m.Answer = append(m.Answer, rr)
		}
		out = append(out, framed(tb, m)...)
	}
	return out
}

func soaLine(serial string) string {
	return "example. 300 IN SOA ns1.example. host.example. " + serial + " 1 2 3 4"
}

const (
	lineA  = "a.example. 300 IN A 192.0.2.1"
	lineB  = "b.example. 300 IN A 192.0.2.2"
	lineNS = "example. 300 IN NS ns1.example."
)

func TestTransfer_WhatIsTakenAndWhatIsNot(t *testing.T) {
	s1, s2, s3 := soaLine("1"), soaLine("2"), soaLine("3")
	type messages = [][]string
	for _, tc := range []struct {
		fact string
		have *zone.Serial
		in   messages
		kind TransferKind
		err  error
		want string // letters of what the sink saw
	}{
		{"zone in one message", nil, messages{{s3, lineNS, lineA, s3}}, AXFR, nil, "RRR"},
		{"a record a message", nil, messages{{s3}, {lineNS}, {lineA}, {s3}}, AXFR, nil, "RRR"},
		{"an SOA alone is a zone", nil, messages{{s3, s3}}, AXFR, nil, "R"},
		{"empty messages between", nil, messages{{s3, lineNS}, {}, {s3}}, AXFR, nil, "RR"},
		{"final SOA missing", nil, messages{{s3, lineNS, lineA}}, AXFR, errNoEnd, "RRR"},
		{"nothing after the first SOA", nil, messages{{s3}}, 0, errNoEnd, ""},
		{"empty answer", nil, messages{{}}, 0, errFirstSOA, ""},
		{"no SOA first", nil, messages{{lineNS, s3}}, 0, errFirstSOA, ""},
		{"other SOA last", nil, messages{{s3, lineNS, s2}}, AXFR, errLastSOA, "RR"},
		{"same serial, other SOA", nil, messages{{s3, lineNS, soaLine("3")[:len(s3)-1] + "5"}}, AXFR, errLastSOA, "RR"},
		{"records after the end", nil, messages{{s3, lineNS, s3, lineA}}, AXFR, errAfterEnd, "RR"},
		{"SOA below the apex", nil, messages{{s3, "a." + s3, s3}}, 0, errSOABelow, ""},
		{"out of the zone", nil, messages{{s3, "a.test. 300 IN A 192.0.2.1", s3}}, 0, errOutOfZone, ""},
		{"suffix but no label of the zone", nil, messages{{s3, lineNS, "aexample. 300 IN A 192.0.2.1", s3}}, AXFR, errOutOfZone, "RR"},
		{"class CH", nil, messages{{s3, lineNS, "a.example. 300 CH A 192.0.2.1", s3}}, AXFR, errBadClass, "RR"},

		{"one step", serialOf(1), messages{{s3, s1, lineA, s3, lineB, s3}}, IXFR, nil, "DDAA"},
		{"two steps", serialOf(1), messages{{s3, s1, lineA}, {s2, lineB}, {s2, lineB, s3}, {lineA, s3}}, IXFR, nil, "DDAADDAA"},
		{"empty steps", serialOf(1), messages{{s3, s1, s2, s2, s3, s3}}, IXFR, nil, "DADA"},
		{"zone instead of steps", serialOf(1), messages{{s3, lineNS, lineA, s3}}, AXFR, nil, "RRR"},
		{"SOA alone instead of steps", serialOf(1), messages{{s3, s3}}, AXFR, nil, "R"},
		{"up to date", serialOf(3), messages{{s3}}, UpToDate, nil, ""},
		{"server behind", serialOf(4), messages{{s3}}, UpToDate, nil, ""},
		{"server behind sends its zone", serialOf(4), messages{{s3, lineNS, lineA, s3}}, UpToDate, nil, ""},
		{"newer SOA and no more", serialOf(1), messages{{s3}}, 0, errLoneSOA, ""},
		{"from another serial", serialOf(1), messages{{s3, s2, lineA, s3, lineB, s3}}, 0, ErrBrokenIXFR, ""},
		{"gap between steps", serialOf(1), messages{{soaLine("4"), s1, s2, s3, soaLine("4"), soaLine("4")}}, IXFR, ErrBrokenIXFR, "DA"},
		{"step goes back", serialOf(2), messages{{s3, s2, s1, s1, s3, s3}}, IXFR, ErrBrokenIXFR, "D"},
		{"step stays", serialOf(1), messages{{s3, s1, s1, s1, s3, s3}}, IXFR, ErrBrokenIXFR, "D"},
		{"steps go beyond", serialOf(1), messages{{s2, s1, s3, s3, s2, s2}}, IXFR, ErrBrokenIXFR, "D"},
		{"steps end early", serialOf(1), messages{{s3, s1, lineA, s2, lineB}}, IXFR, errNoEnd, "DDAA"},
		{"ends within deletions", serialOf(1), messages{{s3, s1, lineA}}, IXFR, errNoEnd, "DD"},
		{"final SOA missing after steps", serialOf(1), messages{{s3, s1, lineA, s3, lineB}}, IXFR, errNoEnd, "DDAA"},
		{"records after the steps", serialOf(1), messages{{s3, s1, s3, s3, lineA}}, IXFR, errAfterEnd, "DA"},
		{"final SOA differs", serialOf(1), messages{{s3, s1, s3, lineB, soaLine("3")[:len(s3)-1] + "5"}}, IXFR, ErrBrokenIXFR, "DAA"},
	} {
		qtype := dns.TypeAXFR
		if tc.have != nil {
			qtype = dns.TypeIXFR
		}
		sink := new(memSink)
		r, err := take(stream(t, qtype, tc.in...), exampleName, tc.have, sink, Limits{})
		if !errors.Is(err, tc.err) || r.Kind != tc.kind {
			t.Errorf("%s: %v, %v", tc.fact, r.Kind, err)
		}
		var got strings.Builder
		for _, line := range sink.lines[min(1, len(sink.lines)):] {
			switch line[0] {
			case '-':
				got.WriteByte('D')
			case '+':
				got.WriteByte('A')
			default:
				got.WriteByte('R')
			}
		}
		if got.String() != tc.want {
			t.Errorf("%s: sink saw %s, want %s", tc.fact, &got, tc.want)
		}
	}
}

func TestTransfer_HeaderAndQuestion(t *testing.T) {
	good := stream(t, dns.TypeAXFR, []string{soaLine("3"), lineNS, soaLine("3")})
	if _, err := take(good, exampleName, nil, new(memSink), Limits{}); err != nil {
		t.Fatal(err)
	}
	code := func(want int) func(error) bool {
		return func(err error) bool {
			c, ok := errors.AsType[*RcodeError](err)
			return ok && c.Rcode == want
		}
	}
	is := func(want error) func(error) bool { return func(err error) bool { return errors.Is(err, want) } }
	for fact, tc := range map[string]struct {
		change func(b []byte) []byte // b[2:] is the message
		wrong  func(error) bool
	}{
		"other ID":              {func(b []byte) []byte { b[3]++; return b }, is(errNotOurs)},
		"a question":            {func(b []byte) []byte { b[4] &^= 0x80; return b }, is(errNotOurs)},
		"other opcode":          {func(b []byte) []byte { b[4] |= 0x20; return b }, is(errNotOurs)},
		"truncated":             {func(b []byte) []byte { b[4] |= 2; return b }, is(errTruncatedTCP)},
		"refused":               {func(b []byte) []byte { b[5] |= 5; return b }, code(dns.RcodeRefused)},
		"not authoritative":     {func(b []byte) []byte { b[5] |= 9; return b }, code(dns.RcodeNotAuth)},
		"other zone":            {func(b []byte) []byte { b[15]++; return b }, is(errNotOurs)},
		"other type":            {func(b []byte) []byte { b[24]--; return b }, is(errNotOurs)},
		"other class":           {func(b []byte) []byte { b[26]++; return b }, is(errNotOurs)},
		"two questions":         {func(b []byte) []byte { b[7]++; return b }, is(errNotOurs)},
		"fewer records said":    {func(b []byte) []byte { b[9]--; return b }, is(errAnswerEnd)},
		"more records said":     {func(b []byte) []byte { b[9]++; return b }, is(errAfterEnd)},
		"an additional said":    {func(b []byte) []byte { b[13]++; return b }, is(errBadMessage)},
		"half a message":        {func(b []byte) []byte { return b[:len(b)-10] }, is(errNoEnd)},
		"half a length":         {func(b []byte) []byte { return b[:1] }, is(errNoEnd)},
		"nothing":               {func([]byte) []byte { return nil }, is(errNoEnd)},
		"shorter than a header": {func([]byte) []byte { return []byte{0, 3, 0, 0, 0x84} }, is(errNotOurs)},
		"an empty message":      {func([]byte) []byte { return []byte{0, 0} }, is(errNotOurs)},
	} {
		if r, err := take(tc.change(slices.Clone(good)), exampleName, nil, new(memSink), Limits{}); !tc.wrong(err) {
			t.Errorf("%s: %+v, %v", fact, r, err)
		}
	}
	for name, ok := range map[zone.Name]bool{"\x07EXAMPLE\x00": true, "\x07examplf\x00": false} {
		if _, err := take(good, name, nil, new(memSink), Limits{}); (err == nil) != ok {
			t.Errorf("asked for %s: %v", name, err)
		}
	}
}

// wireRecord is a record of a.example in wire form.
func wireRecord(t uint16, rdata string) []byte {
	b := append([]byte("\x01a\x07example\x00"), byte(t>>8), byte(t), 0, 1, 0, 0, 1, 44, byte(len(rdata)>>8), byte(len(rdata)))
	return append(b, rdata...)
}

// withRecord is a transfer whose middle is a record in wire form. The zone's
// name stands at offset 12.
func withRecord(tb testing.TB, rr []byte) []byte {
	tb.Helper()
	b := stream(tb, dns.TypeAXFR, []string{soaLine("3")})
	b = append(b, rr...)
	b[9]++
	binary.BigEndian.PutUint16(b, uint16(len(b)-2))
	return append(b, stream(tb, dns.TypeAXFR, []string{soaLine("3")})...)
}

func TestRFC3597_4_NamesInRDATA(t *testing.T) {
	const ex = "\xc0\x0c" // points to the question
	for _, tc := range []struct {
		rtype    uint16
		in, want string // want "" where it is not taken
	}{
		{dns.TypeNS, "\x01b" + ex, "\x01b\x07example\x00"},
		{dns.TypeNS, "\x01B" + ex, "\x01B\x07example\x00"},
		{dns.TypeNS, "\x01b" + ex + "x", ""},
		{dns.TypeNS, "", ""},
		{dns.TypeNS, "\x01b", ""},
		{dns.TypeCNAME, ex, "\x07example\x00"},
		{dns.TypePTR, "\x00", "\x00"},
		{dns.TypeMX, "\x00\x0a" + ex, "\x00\x0a\x07example\x00"},
		{dns.TypeMX, "\x00", ""},
		{dns.TypeSOA, "", ""},
		{dns.TypeRP, ex + "\x01t" + ex, "\x07example\x00\x01t\x07example\x00"},
		{dns.TypeRP, ex, ""},
		{dns.TypeSRV, "\x00\x01\x00\x02\x00\x03" + ex, "\x00\x01\x00\x02\x00\x03\x07example\x00"},
		{dns.TypeNAPTR, "\x00\x01\x00\x02\x01U\x00\x02!!" + ex, "\x00\x01\x00\x02\x01U\x00\x02!!\x07example\x00"},
		{dns.TypeNAPTR, "\x00\x01\x00\x02\x01U\x00\x09!!" + ex, ""},
		{dns.TypeSIG, strings.Repeat("s", 18) + ex + "sig", strings.Repeat("s", 18) + "\x07example\x00sig"},
		{dns.TypeSIG, strings.Repeat("s", 18) + ex, ""},
		{dns.TypePX, "\x00\x01" + ex + ex, "\x00\x01\x07example\x00\x07example\x00"},
		{dns.TypeDNAME, ex, ""}, // never compressed
		{dns.TypeDNAME, "\x00", "\x00"},
		{dns.TypeRRSIG, strings.Repeat("s", 18) + ex + "sig", ""},
		{dns.TypeNSEC, "\x01b\x00\x00\x01\x40", "\x01b\x00\x00\x01\x40"},
		{dns.TypeNSEC, ex + "\x00\x01\x40", ""},
		{dns.TypeNSEC, "\x01b\x00\x00\x01\x00", ""},
		{dns.TypeNSEC3, "\x01\x00\x00\x00\x00\x02hh\x00\x01\x40", "\x01\x00\x00\x00\x00\x02hh\x00\x01\x40"},
		{dns.TypeNSEC3, "\x01\x00\x00\x00\x00\x02hh\x01\x01\x40\x00\x01\x40", ""},
		{dns.TypeNSEC3, "\x01\x00\x00\x00\x00\x00", ""},
		{dns.TypeNSEC3, "\x01\x00\x00\x00\x09\x00", ""},
		{dns.TypeA, "\x01\x02\x03", ""},
		{dns.TypeAAAA, strings.Repeat("a", 17), ""},
		{dns.TypeTXT, "", ""},
		{dns.TypeTXT, "\x02ab\x00", "\x02ab\x00"},
		{dns.TypeTXT, "\x03ab", ""},
		{dns.TypeDS, "\x00\x01\x0d\x02short", ""},
		{dns.TypeDNSKEY, "\x01\x01\x03\x0d", ""},
		{dns.TypeOPT, "", ""},
		{dns.TypeAXFR, "", ""},
		{0xff01, "\xc0\x0c", "\xc0\x0c"}, // unknown types are opaque
		{0xff01, "", ""},
	} {
		sink := new(rawSink)
		_, err := take(withRecord(t, wireRecord(tc.rtype, tc.in)), exampleName, nil, sink, Limits{})
		switch {
		case tc.want == "" && tc.rtype == 0xff01:
			if err != nil {
				t.Errorf("empty RDATA of an unknown type: %v", err)
			}
		case (err == nil) != (tc.want != ""):
			t.Errorf("%s %q: %v", zone.Type(tc.rtype), tc.in, err)
		case err == nil && sink.rdata != tc.want:
			t.Errorf("%s %q: %q, want %q", zone.Type(tc.rtype), tc.in, sink.rdata, tc.want)
		}
	}
}

// rawSink keeps the last record but SOAs.
type rawSink struct {
	memSink
	owner, rdata string
	ttl          uint32
}

func (s *rawSink) Record(rr *Record) error {
	if rr.Type != zone.TypeSOA {
		s.owner, s.rdata, s.ttl = string(rr.Owner), string(rr.RData), rr.TTL
	}
	return nil
}

func TestTransfer_NamesThatDoNotEnd(t *testing.T) {
	here := len(stream(t, dns.TypeAXFR, []string{soaLine("3")})) - 2 // where the record's owner begins
	for fact, owner := range map[string][]byte{
		"points to itself":     {0xc0, byte(here)},
		"points forward":       {0xc0, byte(here + 1)},
		"points to the header": {0xc0, 2},
		"loop of two":          {1, 'a', 0xc0, byte(here)},
		"reserved label type":  {0x80, 0},
		"cut pointer":          {0xc0},
		"label beyond the end": {60, 'a'},
		"longer than 255":      append(bytes.Repeat([]byte("\x01a"), 127), 0xc0, 12),
	} {
		rr := append(slices.Clone(owner), 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 1, 2, 3, 4)
		if fact == "cut pointer" || fact == "label beyond the end" {
			rr = owner
		}
		if _, err := take(withRecord(t, rr), exampleName, nil, new(memSink), Limits{}); !errors.Is(err, errBadOwner) {
			t.Errorf("%s: %v", fact, err)
		}
	}
}

func TestRFC2181_8_LargeTTLIsZero(t *testing.T) {
	rr := wireRecord(dns.TypeA, "\x01\x02\x03\x04")
	copy(rr[len("\x01a\x07example\x00")+4:], "\x80\x00\x00\x00")
	sink := &rawSink{ttl: 1}
	if _, err := take(withRecord(t, rr), exampleName, nil, sink, Limits{}); err != nil || sink.ttl != 0 {
		t.Errorf("TTL %d, %v", sink.ttl, err)
	}
}

func TestTransfer_Limits(t *testing.T) {
	in := stream(t, dns.TypeAXFR, []string{soaLine("3"), lineNS}, []string{lineA}, []string{lineB, soaLine("3")})
	size := int64(len(in) - 3*2)
	for fact, tc := range map[string]struct {
		limits Limits
		err    error
	}{
		"bytes reached":    {Limits{MaxBytes: size}, nil},
		"bytes exceeded":   {Limits{MaxBytes: size - 1}, errManyBytes},
		"records reached":  {Limits{MaxRecords: 5}, nil},
		"records exceeded": {Limits{MaxRecords: 4}, errManyRRs},
	} {
		if _, err := take(in, exampleName, nil, new(memSink), tc.limits); !errors.Is(err, tc.err) {
			t.Errorf("%s: %v", fact, err)
		}
	}
}

func TestTransfer_SinkEndsIt(t *testing.T) {
	in := stream(t, dns.TypeIXFR, []string{soaLine("3"), soaLine("1"), lineA, soaLine("3"), lineB, soaLine("3")})
	zoneIn := stream(t, dns.TypeIXFR, []string{soaLine("3"), lineNS, soaLine("3")})
	for n := 1; n <= 5; n++ {
		if _, err := take(in, exampleName, serialOf(1), &memSink{failAt: n}, Limits{}); !errors.Is(err, errSink) {
			t.Errorf("call %d: %v", n, err)
		}
		if _, err := take(zoneIn, exampleName, serialOf(1), &memSink{failAt: n}, Limits{}); n <= 3 && !errors.Is(err, errSink) {
			t.Errorf("call %d of AXFR: %v", n, err)
		}
	}
}

// FuzzTransferMessage reads whatever comes; what is taken must be right.
func FuzzTransferMessage(f *testing.F) {
	f.Add(stream(f, dns.TypeAXFR, []string{soaLine("3"), lineNS, lineA, soaLine("3")}), uint32(0), false)
	f.Add(stream(f, dns.TypeIXFR, []string{soaLine("3"), soaLine("1"), lineA, soaLine("3"), lineB, soaLine("3")}), uint32(1), true)
	f.Add(withRecord(f, wireRecord(dns.TypeMX, "\x00\x0a\xc0\x0c")), uint32(0), false)
	f.Add(withRecord(f, wireRecord(dns.TypeNAPTR, "\x00\x01\x00\x02\x01U\x00\x02!!\xc0\x0c")), uint32(0), false)
	f.Add(withRecord(f, wireRecord(dns.TypeNSEC3, "\x01\x00\x00\x00\x00\x02hh\x00\x01\x40")), uint32(0), false)
	m := new(dns.Msg).SetAxfr("example.")
	m.Response = true
	m.SetEdns0(1232, true)
	m.SetTsig("key.", dns.HmacSHA256, 300, 1)
	f.Add(framed(f, m), uint32(0), false)
	f.Fuzz(func(t *testing.T, in []byte, have uint32, ixfr bool) {
		sink := &checkSink{t: t}
		var from *zone.Serial
		if ixfr {
			from = serialOf(have)
		}
		r, err := take(in, exampleName, from, sink, Limits{})
		if err != nil {
			return
		}
		switch r.Kind {
		case UpToDate:
			if !ixfr || sink.calls != 0 || zone.Serial(have).Before(r.Serial) {
				t.Errorf("%+v after %d calls, held %d", r, sink.calls, have)
			}
		case IXFR:
			if !ixfr || sink.last != r.Serial || !sink.begun {
				t.Errorf("%+v ends at %d", r, sink.last)
			}
		case AXFR:
			if sink.last != r.Serial || !sink.begun {
				t.Errorf("%+v with SOA %d", r, sink.last)
			}
		default:
			t.Errorf("%+v", r)
		}
	})
}

// checkSink fails where a record is not what the contract says.
type checkSink struct {
	t     *testing.T
	begun bool
	calls int
	last  zone.Serial
}

func (s *checkSink) Begin(_ TransferKind, soa *Record) error {
	if s.begun {
		s.t.Error("begun twice")
	}
	s.begun = true
	return s.check(soa)
}

func (s *checkSink) check(rr *Record) error {
	s.calls++
	n, err := zone.NameFromWire(rr.Owner)
	if err != nil || !n.Under(exampleName) || rr.TTL > 1<<31-1 {
		s.t.Errorf("%x: %v", rr.Owner, err)
	}
	switch rr.Type {
	case zone.TypeTXT, zone.TypeNSEC, zone.TypeNSEC3, zone.TypeDNSKEY, zone.Type(dns.TypeNXT):
	default:
		if err := zone.CheckRData(rr.Type, rr.RData); err != nil {
			s.t.Errorf("%s %s %x: %v", n, rr.Type, rr.RData, err)
		}
	}
	if rr.Type == zone.TypeSOA {
		s.last = soaSerial(rr.RData)
	}
	return nil
}

func (s *checkSink) Record(rr *Record) error { return s.check(rr) }
func (s *checkSink) Delete(rr *Record) error { return s.check(rr) }
func (s *checkSink) Add(rr *Record) error    { return s.check(rr) }
