package xfr

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"sluice/signer/zone"
)

// item is one item in memory.
type item struct{ key, value []byte }

// memIterator walks items in memory.
type memIterator struct {
	items []item
	at    int
	err   error
}

func (m *memIterator) Next() bool    { m.at++; return m.at <= len(m.items) }
func (m *memIterator) Key() []byte   { return m.items[m.at-1].key }
func (m *memIterator) Value() []byte { return m.items[m.at-1].value }
func (m *memIterator) Err() error    { return m.err }
func (m *memIterator) Close() error  { return nil }

// memDiff is a step in memory.
type memDiff struct {
	from, to       zone.Serial
	fromSOA, toSOA []byte
	removed, added []item
	size           int64
}

func (d *memDiff) From() zone.Serial               { return d.from }
func (d *memDiff) To() zone.Serial                 { return d.to }
func (d *memDiff) FromSOA() []byte                 { return d.fromSOA }
func (d *memDiff) ToSOA() []byte                   { return d.toSOA }
func (d *memDiff) Removed() (zone.Iterator, error) { return &memIterator{items: d.removed}, nil }
func (d *memDiff) Added() (zone.Iterator, error)   { return &memIterator{items: d.added}, nil }
func (d *memDiff) Bytes() int64                    { return d.size }

// memView is one instance in memory; it counts how often it is closed.
type memView struct {
	apex   zone.Name
	serial zone.Serial
	items  []item
	diffs  []Diff // oldest first
	size   int64
	allow  func(Peer) bool
	closed atomic.Int64
	opened atomic.Int64
	err    error // ends Items early
}

func (v *memView) Apex() zone.Name     { return v.apex }
func (v *memView) Serial() zone.Serial { return v.serial }

func (v *memView) SOA() (key, value []byte) { return v.find(zone.KindMade) }

func (v *memView) SOASigs() (key, value []byte) { return v.find(zone.KindSigs) }

func (v *memView) find(kind zone.Kind) (key, value []byte) {
	want := zone.AppendKey(nil, kind, v.apex, zone.TypeSOA)
	for _, it := range v.items {
		if bytes.Equal(it.key, want) {
			return it.key, it.value
		}
	}
	return nil, nil
}

func (v *memView) Items() (zone.Iterator, error) {
	return &memIterator{items: v.items, err: v.err}, nil
}

func (v *memView) Diffs(from zone.Serial) ([]Diff, bool) {
	for i, d := range v.diffs {
		if d.From() == from {
			return v.diffs[i:], true
		}
	}
	return nil, false
}

func (v *memView) Bytes() int64 { return v.size }

func (v *memView) Allows(p Peer) bool { return v.allow == nil || v.allow(p) }

func (v *memView) Close() error { v.closed.Add(1); return nil }

// memSource holds views by folded name; a nil view is a zone not ready.
type memSource map[zone.Name]*memView

func (m memSource) View(name zone.Name) (View, error) {
	v, ok := m[name.Fold()]
	switch {
	case !ok:
		return nil, ErrUnknownZone
	case v == nil:
		return nil, ErrNotReady
	}
	v.opened.Add(1)
	return v, nil
}

// itemsOf makes items of records in presentation form; NSEC3 and its RRSIGs
// go to the chain, SOA and other records of the signer's are made.
func itemsOf(tb testing.TB, text string) []item {
	tb.Helper()
	type set struct {
		owner zone.Name
		ttl   uint32
		data  [][]byte
	}
	sets := map[string]*set{}
	buf := make([]byte, dns.MaxMsgSize)
	parser := dns.NewZoneParser(strings.NewReader(text), "", "")
	for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
		kind, covered := zone.KindContents, zone.Type(rr.Header().Rrtype)
		switch rr := rr.(type) {
		case *dns.SOA, *dns.DNSKEY, *dns.NSEC:
			kind = zone.KindMade
		case *dns.NSEC3:
			kind = zone.KindChain
		case *dns.RRSIG:
			kind, covered = zone.KindSigs, zone.Type(rr.TypeCovered)
			if covered == zone.TypeNSEC3 {
				kind = zone.KindChainSigs
			}
		}
		n, err := dns.PackRR(rr, buf, 0, nil, false)
		if err != nil {
			tb.Fatal(err)
		}
		nameLen, err := zone.NameLength(buf)
		if err != nil {
			tb.Fatal(err)
		}
		owner := zone.Name(buf[:nameLen])
		key := string(zone.AppendKey(nil, kind, owner, covered))
		if sets[key] == nil {
			sets[key] = &set{owner: owner, ttl: rr.Header().Ttl}
		}
		sets[key].data = append(sets[key].data, bytes.Clone(buf[nameLen+10:n]))
	}
	if err := parser.Err(); err != nil {
		tb.Fatal(err)
	}
	var items []item
	for key, s := range sets {
		rr := zone.RRset{Owner: s.owner, Type: zone.Type(binary.BigEndian.Uint16([]byte(key[len(key)-2:]))), TTL: s.ttl, Data: s.data}
		if k := zone.Kind(key[0]); k == zone.KindSigs || k == zone.KindChainSigs {
			rr.Type = zone.TypeRRSIG
		}
		items = append(items, item{[]byte(key), rr.Value()})
	}
	slices.SortFunc(items, func(a, b item) int {
		chain := func(i item) int {
			if zone.Kind(i.key[0]) >= zone.KindChain {
				return 1
			}
			return 0
		}
		return cmp.Or(cmp.Compare(chain(a), chain(b)), bytes.Compare(a.key[1:], b.key[1:]), bytes.Compare(a.key, b.key))
	})
	return items
}

// recordsOf renders items as records in presentation form, sorted.
func recordsOf(tb testing.TB, items ...item) []string {
	tb.Helper()
	var out []string
	for _, it := range items {
		rr, err := zone.RRsetOf(it.key, it.value)
		if err != nil {
			tb.Fatal(err)
		}
		if k := zone.Kind(it.key[0]); k == zone.KindSigs || k == zone.KindChainSigs {
			rr.Type = zone.TypeRRSIG
		}
		for _, d := range rr.Data {
			wire := binary.BigEndian.AppendUint16([]byte(rr.Owner), uint16(rr.Type))
			wire = append(wire, 0, 1)
			wire = binary.BigEndian.AppendUint32(wire, rr.TTL)
			wire = binary.BigEndian.AppendUint16(wire, uint16(len(d)))
			r, _, err := dns.UnpackRR(append(wire, d...), 0)
			if err != nil {
				tb.Fatal(err)
			}
			out = append(out, r.String())
		}
	}
	slices.Sort(out)
	return out
}

const (
	sigRest = "13 2 300 20300101000000 20200101000000 12345 Example. " +
		"oJB1W6WNGv+ldvQ3WDG0MQkg5IEhjRip8WTrPYGv07h108dUKGMeDPKijVCHX3DDKdfb+v6oB9wfuh3DTJXUAf=="
	soaText = "Example. 300 IN SOA ns1.example. Host.Master.example. %d 7200 3600 1209600 300\n"
)

// zoneText is a small signed zone with the types that matter here.
func zoneText(serial uint32) string {
	return fmt.Sprintf(soaText, serial) +
		"Example. 300 IN RRSIG SOA " + sigRest + "\n" + `
Example. 300 IN NS ns1.example.
Example. 300 IN NS ns2.Example.
Example. 300 IN MX 10 mail.example.
Example. 300 IN DNSKEY 257 3 13 mdsswUyr3DPW132mOi8V9xESWE8jTo0dxCjjnopKl+GqJxpVXckHAeF+KkxLbxILfDLUT0rAK9iUzy1L53eKGQ==
Example. 300 IN RRSIG DNSKEY ` + sigRest + `
ns1.example. 300 IN A 192.0.2.1
ns2.example. 300 IN AAAA 2001:db8::1
mail.example. 300 IN CNAME a.b.mail-host.Example.
Case.example. 300 IN TXT "as it came"
case.example. 60 IN SRV 1 2 3 ns1.example.
*.wild.example. 300 IN PTR ns1.example.
sub.example. 300 IN NS ns.sub.example.
sub.example. 300 IN NS ns.other.test.
sub.example. 300 IN DS 12345 13 2 49FD46E6C4B45C55D4AC69CBD3CD34AC1AFE51DE3CD34AC1AFE51DE3CD34AC1A
sub.example. 300 IN RRSIG DS ` + sigRest + `
ns.sub.example. 300 IN A 192.0.2.2
0p9mhaveqvm6t7vbl5lop2u3t2rp3tom.example. 300 IN NSEC3 1 1 0 - 2t7b4g4vsa5smi47k61mv5bv1a22bojr NS SOA MX RRSIG DNSKEY NSEC3PARAM
0p9mhaveqvm6t7vbl5lop2u3t2rp3tom.example. 300 IN RRSIG NSEC3 ` + sigRest + "\n"
}

// exampleView is that zone as a view.
func exampleView(tb testing.TB, serial uint32) *memView {
	return &memView{apex: "\x07Example\x00", serial: zone.Serial(serial), items: itemsOf(tb, zoneText(serial))}
}

// awaitClosed waits until every view that was opened is closed: an answer is
// there before the server is done with its view.
func (v *memView) awaitClosed(t *testing.T) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for v.opened.Load() != v.closed.Load() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Errorf("%s: view opened %d and closed %d times", v.apex, v.opened.Load(), v.closed.Load())
			return
		}
	}
}
