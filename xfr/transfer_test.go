package xfr

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"sluice/signer/zone"
)

// ixfrView is the example at serial 7 with the ways 3 -> 5 -> 7.
func ixfrView(tb testing.TB) *memView {
	v := exampleView(tb, 7)
	v.diffs = []Diff{exampleDiff(tb, 3, 5), exampleDiff(tb, 5, 7)}
	return v
}

// diffTexts is the wanted incremental answer (RFC 1995, 4), owners within a
// half in canonical order.
func diffTexts(tb testing.TB, v *memView, diffs []Diff) []string {
	tb.Helper()
	key, soa := v.SOA()
	out := recordsOf(tb, item{key, soa})
	for _, d := range diffs {
		m := d.(*memDiff)
		out = append(out, recordsOf(tb, item{key, m.fromSOA})...)
		for _, it := range m.removed {
			out = append(out, recordsOf(tb, it)...)
		}
		out = append(out, recordsOf(tb, item{key, m.toSOA})...)
		for _, it := range m.added {
			out = append(out, recordsOf(tb, it)...)
		}
	}
	return append(out, recordsOf(tb, item{key, soa})...)
}

func ixfrQuery(serial uint32) *dns.Msg {
	return new(dns.Msg).SetIxfr("example.", serial, "ns1.example.", "host.example.")
}

// whole is the wanted zone, sorted, with its SOA twice.
func whole(tb testing.TB, v *memView) []string {
	key, soa := v.SOA()
	out := append(recordsOf(tb, v.items...), recordsOf(tb, item{key, soa})...)
	slices.Sort(out)
	return out
}

func sorted(s []string) []string { slices.Sort(s); return s }

func TestRFC1995_4_IncrementalAnswer(t *testing.T) {
	view := ixfrView(t)
	addr, _ := startServer(t, Config{Source: memSource{"\x07example\x00": view}})
	tcp := func(m *dns.Msg) []string { return texts(fetch(t, addr, m, new(dns.Transfer))) }
	net := diffTexts(t, view, []Diff{exampleNet(t)})
	if d := cmp.Diff(net, tcp(ixfrQuery(3))); d != "" {
		t.Errorf("both steps as one: %s", d)
	}
	if d := cmp.Diff(diffTexts(t, view, view.diffs[1:]), tcp(ixfrQuery(5))); d != "" {
		t.Errorf("one step: %s", d)
	}
	if d := cmp.Diff(whole(t, view), sorted(tcp(ixfrQuery(4)))); d != "" {
		t.Errorf("unknown serial: %s", d)
	}
	key, soa := view.SOA()
	for _, serial := range []uint32{7, 8, 7 + 1<<31} {
		// dns.Transfer would wait for more after a newer SOA.
		r, _, err := (&dns.Client{Net: "tcp"}).Exchange(ixfrQuery(serial), addr)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(recordsOf(t, item{key, soa}), texts(r.Answer)); d != "" || !r.Authoritative {
			t.Errorf("client at %d: %s", serial, d)
		}
	}
}

func TestIXFR_NeverLargerThanTheZone(t *testing.T) {
	view := ixfrView(t)
	addr, _ := startServer(t, Config{Source: memSource{"\x07example\x00": view}})
	net := diffTexts(t, view, []Diff{exampleNet(t)})
	for _, tc := range []struct {
		size int64
		want []string
	}{
		{0, net},
		{800, net},
		{799, net}, // the sum is larger, the net difference is not
		{300, whole(t, view)},
		{199, whole(t, view)}, // the sum is larger by far
	} {
		view.size = tc.size
		got := texts(fetch(t, addr, ixfrQuery(3), new(dns.Transfer)))
		if d := cmp.Diff(sorted(slices.Clone(tc.want)), sorted(got)); d != "" {
			t.Errorf("zone of %d bytes: %s", tc.size, d)
		}
	}
}

func TestIXFR_BrokenWayGivesTheZone(t *testing.T) {
	for fact, diffs := range map[string]func(v *memView) []Diff{
		"gap":        func(v *memView) []Diff { return []Diff{v.diffs[0], exampleDiff(t, 6, 7)} },
		"ends early": func(v *memView) []Diff { return v.diffs[:1] },
	} {
		view := ixfrView(t)
		view.diffs = diffs(view)
		addr, s := startServer(t, Config{Source: memSource{"\x07example\x00": view}})
		if d := cmp.Diff(whole(t, view), sorted(texts(fetch(t, addr, ixfrQuery(3), new(dns.Transfer))))); d != "" {
			t.Errorf("%s: %s", fact, d)
		}
		if s.Stats().Faults != 1 {
			t.Errorf("%s: %+v", fact, s.Stats())
		}
	}
}

func TestRFC1995_2_DatagramHoldsDiffsOrTheSOA(t *testing.T) {
	view := ixfrView(t)
	long := exampleDiff(t, 2, 3)
	longText := itemsOf(t, "long.example. 300 IN TXT "+strings.Repeat(strings.Repeat("x", 200)+" ", 3))
	long.added = byKey(append(long.added, longText...))
	view.diffs = append([]Diff{long}, view.diffs...)
	s := testServer(t, Config{Source: memSource{"\x07example\x00": view}})
	key, soa := view.SOA()
	only := recordsOf(t, item{key, soa})
	longNet := exampleNet(t)
	longNet.from, longNet.fromSOA, longNet.removed = 2, long.fromSOA, long.removed
	longNet.added = byKey(append(itemsOf(t, "B3.example. 300 IN TXT new"), append(longText, longNet.added...)...))
	for _, tc := range []struct {
		fact    string
		serial  uint32
		payload uint16
		want    []string
	}{
		{"one step fits into 512 bytes", 5, 0, diffTexts(t, view, view.diffs[2:])},
		{"two steps as one fit too", 3, 0, diffTexts(t, view, []Diff{exampleNet(t)})},
		{"a long text does not fit into 900 bytes", 2, 900, only},
		{"it fits into 1232 bytes", 2, 4096, diffTexts(t, view, []Diff{longNet})},
		{"unknown serial", 4, 1232, only},
		{"up to date", 7, 1232, only},
	} {
		m := ixfrQuery(tc.serial)
		if tc.payload > 0 {
			m.SetEdns0(tc.payload, true)
		}
		r := ask(t, s, m)
		if d := cmp.Diff(tc.want, texts(r.Answer)); d != "" || r.Truncated || !r.Authoritative || r.Rcode != 0 {
			t.Errorf("%s: %s", tc.fact, d)
		}
	}
}

// dial opens a connection and sends the messages at once.
func dial(tb testing.TB, addr string, msgs ...*dns.Msg) *net.TCPConn {
	tb.Helper()
	var wire []byte
	for _, m := range msgs {
		b, err := m.Pack()
		if err != nil {
			tb.Fatal(err)
		}
		wire = append(binary.BigEndian.AppendUint16(wire, uint16(len(b))), b...)
	}
	c, err := net.Dial("tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.Close() }) // a second close is no fault
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		tb.Fatal(err)
	}
	if _, err := c.Write(wire); err != nil {
		tb.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// readMessage reads one message; nil at the end of the connection.
func readMessage(tb testing.TB, r io.Reader) ([]byte, *dns.Msg) {
	tb.Helper()
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, nil
	}
	buf := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(r, buf); err != nil {
		return nil, nil
	}
	m := new(dns.Msg)
	if err := m.Unpack(buf); err != nil {
		tb.Fatalf("% x: %v", buf, err)
	}
	return buf, m
}

func TestRFC7766_6_2_1_1_PipelinedRequestsInOrder(t *testing.T) {
	addr, _ := startServer(t, Config{Source: memSource{"\x07example\x00": ixfrView(t)}})
	var asked []*dns.Msg
	for i := range 40 {
		var m *dns.Msg
		switch i % 4 {
		case 0:
			m = new(dns.Msg).SetQuestion("example.", dns.TypeSOA)
		case 1:
			m = new(dns.Msg).SetAxfr("example.")
		case 2:
			m = ixfrQuery(3)
		default:
			m = new(dns.Msg).SetAxfr("nowhere.")
		}
		m.Id = uint16(i)
		asked = append(asked, m)
	}
	c := dial(t, addr, asked...)
	for i := range asked {
		_, m := readMessage(t, c)
		if m == nil || m.Id != uint16(i) || m.Question[0] != asked[i].Question[0] {
			t.Fatalf("answer %d is %v", i, m)
		}
		if wantAnswer := i%4 != 3; wantAnswer != (len(m.Answer) > 0) {
			t.Errorf("answer %d: %v", i, m)
		}
	}
}

// largeView is a zone of about 600 KB with names of many shapes.
func largeView(tb testing.TB) *memView {
	var text strings.Builder
	fmt.Fprintf(&text, soaText, 7)
	for i := range 5_000 {
		fmt.Fprintf(&text, "n%d.Deep%d.example. 300 IN NS ns%d.hoster%d.net.\n", i, i%7, i%3, i%1000)
		fmt.Fprintf(&text, "n%d.deep%d.example. 300 IN MX 10 mx.n%d.deep%d.example.\n", i, i%7, i, i%7)
		if i%100 == 0 {
			fmt.Fprintf(&text, "t%d.example. 300 IN TXT %s\n", i, strings.Repeat("\""+strings.Repeat("x", 250)+"\" ", 1+i/25))
		}
	}
	return &memView{apex: "\x07example\x00", serial: 7, items: itemsOf(tb, text.String())}
}

func TestRFC5936_2_2_MessagesOfALongTransfer(t *testing.T) {
	view := largeView(t)
	addr, s := startServer(t, Config{Source: memSource{"\x07example\x00": view}})
	m := new(dns.Msg).SetAxfr("example.")
	m.SetEdns0(1232, true)
	c := dial(t, addr, m)
	var got []string
	messages, long := 0, 0
	for soas := 0; soas < 2; messages++ {
		wire, r := readMessage(t, c)
		if r == nil {
			t.Fatal("transfer broke off")
		}
		if r.Id != m.Id || !r.Authoritative || r.Rcode != 0 || len(r.Answer) == 0 {
			t.Fatalf("message %d: %v", messages, r.MsgHdr)
		}
		if first := messages == 0; first != (len(r.Question) == 1) || first != (r.IsEdns0() != nil) {
			t.Errorf("message %d has %d questions, OPT %v", messages, len(r.Question), r.IsEdns0())
		}
		if len(wire) > softMessage {
			long++
		}
		for _, rr := range r.Answer {
			if rr.Header().Rrtype == dns.TypeSOA {
				soas++
			}
		}
		got = append(got, texts(r.Answer)...)
	}
	if d := cmp.Diff(whole(t, view), sorted(got)); d != "" {
		t.Error(d)
	}
	if st := s.Stats(); messages < 10 || long == 0 || st.Transfers != 1 {
		t.Errorf("%d messages, %d of them long, %+v", messages, long, st)
	}
}

func TestEncoder_PointsToEarlierNames(t *testing.T) {
	items := itemsOf(t, `
example. 300 IN SOA ns1.example. host.example. 1 1 1 1 1
example. 300 IN NS ns1.example.
example. 300 IN NS ns2.EXAMPLE.
ns1.example. 300 IN A 192.0.2.1
x.ns1.example. 300 IN SRV 1 2 3 ns1.example.
`)
	e := new(encoder)
	e.begin(&request{name: "\x07example\x00", qtype: typeAXFR, qclass: classIN}, nil, nil, false, maxMessage)
	e.apex = []byte("\x07example\x00")
	e.open()
	for _, it := range items {
		if err := e.item(it.key, it.value); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.end(); err != nil {
		t.Fatal(err)
	}
	fixed := "\x00\x01\x00\x00\x01\x2c"
	want := "\x07example\x00\x00\xfc\x00\x01" + // 12
		"\xc0\x0c\x00\x02" + fixed + "\x00\x06\x03ns1\xc0\x0c" + // ns1 at 37
		"\xc0\x0c\x00\x02" + fixed + "\x00\x0d\x03ns2\x07EXAMPLE\x00" + // other case
		"\xc0\x0c\x00\x06" + fixed + "\x00\x1d\xc0\x25\x04host\xc0\x0c" + strings.Repeat("\x00\x00\x00\x01", 5) +
		"\xc0\x25\x00\x01" + fixed + "\x00\x04\xc0\x00\x02\x01" +
		"\x01x\xc0\x25\x00\x21" + fixed + "\x00\x13\x00\x01\x00\x02\x00\x03\x03ns1\x07example\x00" // SRV is not compressed
	if d := cmp.Diff(want, string(e.buf[headerLen:])); d != "" {
		t.Error(d)
	}
}

func TestEncoder_DamagedItemsAreErrors(t *testing.T) {
	good := zone.AppendKey(nil, zone.KindContents, "\x01a\x00", zone.TypeNS)
	for fact, it := range map[string]item{
		"empty key":         {nil, []byte("\x00\x00\x00\x00\x00")},
		"key not ended":     {[]byte{0x10, 'a', 0, 1}, []byte("\x00\x00\x00\x00\x00")},
		"empty value":       {good, nil},
		"owner cut":         {good, []byte("\x00\x00\x00\x00\x05\x01A")},
		"owner not a name":  {good, []byte("\x00\x00\x00\x00\x03\x05A\x00")},
		"length cut":        {good, []byte("\x00\x00\x00\x00\x00\x00")},
		"RDATA cut":         {good, []byte("\x00\x00\x00\x00\x00\x00\x03\x01a")},
		"RDATA beyond 64 K": {good, append([]byte("\x00\x00\x00\x00\x00\xff\xff"), make([]byte, 65535)...)},
	} {
		e := new(encoder)
		e.begin(&request{name: "\x01a\x00"}, make([]byte, 0, blockSize), &countingSink{}, true, maxMessage)
		e.open()
		if err := e.item(it.key, it.value); !errors.Is(err, errBadItem) && !errors.Is(err, errFull) && !strings.Contains(fmt.Sprint(err), "malformed") {
			t.Errorf("%s: %v", fact, err)
		}
	}
}

func FuzzEncoder(f *testing.F) {
	for _, it := range itemsOf(f, zoneText(1)) {
		f.Add(it.key, it.value, uint16(512))
	}
	f.Fuzz(func(t *testing.T, key, value []byte, size uint16) {
		e := new(encoder)
		e.begin(&request{name: "\x07example\x00", qtype: typeAXFR, qclass: classIN}, nil, nil, false, 300+int(size)%60000)
		e.apex = []byte("\x07example\x00")
		e.open()
		for range 3 {
			if e.item(key, value) != nil {
				return
			}
		}
		if err := e.end(); err != nil || len(e.buf) > 300+int(size)%60000 {
			t.Fatalf("%d bytes, %v", len(e.buf), err)
		}
		at := headerLen + len("\x07example\x00") + 4
		for range e.answers {
			rr, ok := readRecord(e.buf, at)
			if !ok {
				t.Fatalf("% x", e.buf)
			}
			at = rr.end
		}
		if at != len(e.buf) {
			t.Fatalf("% x", e.buf)
		}
	})
}

func TestTransfer_FaultBreaksTheConnection(t *testing.T) {
	view := largeView(t)
	view.err = errors.New("iterator fails")
	addr, s := startServer(t, Config{Source: memSource{"\x07example\x00": view}})
	c := dial(t, addr, new(dns.Msg).SetAxfr("example."), new(dns.Msg).SetQuestion("example.", dns.TypeSOA))
	soas := 0
	for {
		_, m := readMessage(t, c)
		if m == nil {
			break
		}
		for _, rr := range m.Answer {
			if rr.Header().Rrtype == dns.TypeSOA {
				soas++
			}
		}
	}
	if st := s.Stats(); soas != 1 || st.BrokenTransfers != 1 || st.Transfers != 0 || st.Faults != 1 {
		t.Errorf("%d SOAs, %+v", soas, st)
	}
	if view.opened.Load() != view.closed.Load() {
		t.Error("view left open")
	}
}
