package xfr

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"sluice/signer/zone"
)

// memSink writes down what it is given.
type memSink struct {
	lines  []string
	failAt int // the call that fails; 0 none
	calls  int
}

var errSink = fmt.Errorf("sink is full")

func (m *memSink) note(prefix string, rr *Record) error {
	if m.calls++; m.calls == m.failAt {
		return errSink
	}
	m.lines = append(m.lines, prefix+recordText(rr))
	return nil
}

func (m *memSink) Begin(kind TransferKind, soa *Record) error { return m.note(kind.String()+" ", soa) }
func (m *memSink) Record(rr *Record) error                    { return m.note("", rr) }
func (m *memSink) Delete(rr *Record) error                    { return m.note("- ", rr) }
func (m *memSink) Add(rr *Record) error                       { return m.note("+ ", rr) }

// recordText is a record in the presentation form of miekg/dns.
func recordText(rr *Record) string {
	wire := binary.BigEndian.AppendUint16(bytes.Clone(rr.Owner), uint16(rr.Type))
	wire = append(wire, 0, 1)
	wire = binary.BigEndian.AppendUint32(wire, rr.TTL)
	wire = zone.AppendRData(wire, rr.RData)
	r, end, err := dns.UnpackRR(wire, 0)
	if err != nil || end != len(wire) {
		return fmt.Sprintf("%x: %v", wire, err)
	}
	return r.String()
}

// records are the lines without Begin, sorted.
func (m *memSink) records() []string {
	out := slices.Clone(m.lines[min(1, len(m.lines)):])
	slices.Sort(out)
	return out
}

func endpoint(tb testing.TB, text string) Endpoint {
	tb.Helper()
	ep, err := ParseEndpoint(text)
	if err != nil {
		tb.Fatal(err)
	}
	return ep
}

const exampleName = zone.Name("\x07example\x00")

func serialOf(n uint32) *zone.Serial { s := zone.Serial(n); return &s }

func TestClient_AXFRFromOurServer(t *testing.T) {
	view := exampleView(t, 7)
	addr, _ := startServer(t, Config{Source: memSource{exampleName: view}})
	c := NewClient(ClientConfig{})
	sink := new(memSink)
	r, err := c.Transfer(t.Context(), endpoint(t, addr), exampleName, nil, sink)
	if err != nil {
		t.Fatal(err)
	}
	want := recordsOf(t, view.items...)
	if r.Kind != AXFR || r.Serial != 7 || r.Records != int64(len(want)+1) || r.Messages != 1 {
		t.Errorf("%+v", r)
	}
	if d := cmp.Diff(want, sink.records()); d != "" {
		t.Error(d)
	}
	key, soa := view.SOA()
	if want := "AXFR " + recordsOf(t, item{key, soa})[0]; sink.lines[0] != want {
		t.Errorf("begins with %s", sink.lines[0])
	}
	serial, value, err := c.SOA(t.Context(), endpoint(t, addr), exampleName)
	if err != nil || serial != 7 || !bytes.Equal(value, soa) {
		t.Errorf("%d, %x, %v", serial, value, err)
	}
}

func TestClient_IXFRFromOurServer(t *testing.T) {
	view := ixfrView(t)
	addr, _ := startServer(t, Config{Source: memSource{exampleName: view}})
	c := NewClient(ClientConfig{})
	for _, tc := range []struct {
		have uint32
		kind TransferKind
	}{{5, IXFR}, {4, AXFR}, {7, UpToDate}, {8, UpToDate}, {7 + 1<<31, UpToDate}} {
		sink := new(memSink)
		r, err := c.Transfer(t.Context(), endpoint(t, addr), exampleName, serialOf(tc.have), sink)
		if err != nil || r.Kind != tc.kind || r.Serial != 7 {
			t.Fatalf("from %d: %+v, %v", tc.have, r, err)
		}
		switch tc.kind {
		case AXFR:
			if d := cmp.Diff(recordsOf(t, view.items...), sink.records()); d != "" {
				t.Errorf("from %d: %s", tc.have, d)
			}
		case UpToDate:
			if len(sink.lines) != 0 {
				t.Errorf("from %d: %v", tc.have, sink.lines)
			}
		case IXFR:
			wire := diffTexts(t, view, view.diffs[1:])
			got := slices.Clone(sink.lines[1:])
			for i := range got {
				got[i] = got[i][2:]
			}
			if d := cmp.Diff(wire[1:len(wire)-1], got); d != "" {
				t.Errorf("from %d: %s", tc.have, d)
			}
		}
	}
}

func TestParseEndpoint(t *testing.T) {
	pin := "sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
	for text, want := range map[string]string{
		"192.0.2.1":                           "192.0.2.1:53",
		"192.0.2.1:5353^Key.Name":             "192.0.2.1:5353^key.name.",
		"2001:db8::1":                         "[2001:db8::1]:53",
		"[2001:db8::1]":                       "[2001:db8::1]:53",
		"[2001:db8::1]:99^k.":                 "[2001:db8::1]:99^k.",
		"::ffff:192.0.2.1":                    "192.0.2.1:53",
		"tls://192.0.2.1#ns1.example":         "tls://192.0.2.1:853#ns1.example",
		"tls://192.0.2.1:8853^k#ns.a.#" + pin: "tls://192.0.2.1:8853^k.#ns.a#" + pin,
		"tls://[2001:db8::1]#" + pin:          "tls://[2001:db8::1]:853#" + pin,
	} {
		ep, err := ParseEndpoint(text)
		if err != nil || ep.String() != want {
			t.Errorf("%s: %s, %v", text, ep, err)
			continue
		}
		again, err := ParseEndpoint(want)
		if d := cmp.Diff(ep, again, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); err != nil || d != "" {
			t.Errorf("%s: read again: %v %s", text, err, d)
		}
	}
	for _, text := range []string{
		"", "ns1.example", "192.0.2.1:0", "192.0.2.1:70000", "192.0.2.1^", "192.0.2.1^a..b", "192.0.2.1#name",
		"tls://192.0.2.1", "tls://192.0.2.1#", "tls://192.0.2.1#a#b", "tls://192.0.2.1#sha256:AAAA", "tls://#a",
		"[192.0.2.1", "192.0.2.0/24",
	} {
		if ep, err := ParseEndpoint(text); err == nil {
			t.Errorf("%q reads as %s", text, ep)
		}
	}
}
