package xfr

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/miekg/dns"

	"sluice/signer/zone"
)

// tldItems makes items like those of a signed top-level domain: delegations
// with two name servers, three in five with DS, RRSIG, NSEC3 and its RRSIG.
func tldItems(names int) []item {
	const base32 = "0123456789abcdefghijklmnopqrstuv"
	apex := zone.Name("\x03tld\x00")
	wire := func(labels ...string) []byte {
		var out []byte
		for _, l := range labels {
			out = append(append(out, byte(len(l))), l...)
		}
		return append(out, 0)
	}
	sig := func(covered zone.Type) []byte {
		d := binary.BigEndian.AppendUint16(nil, uint16(covered))
		d = append(d, 13, 2, 0, 0, 14, 16, 1, 2, 3, 4, 1, 1, 3, 4, 9, 9)
		d = append(d, apex...)
		return append(d, make([]byte, 64)...)
	}
	soa := append(append(wire("ns1", "nic", "tld"), wire("host", "tld")...), make([]byte, 20)...)
	items := []item{{zone.AppendKey(nil, zone.KindMade, apex, zone.TypeSOA), zone.AppendValue(nil, apex, 3600, soa)}}
	nsec3 := append([]byte{1, 1, 0, 0, 0, 20}, make([]byte, 29)...)
	copy(nsec3[26:], "\x00\x07\x22\x01\x80\x08\x00\x02\x90") // NS SOA MX TXT ... in its bitmap
	var chain []item
	for i := range names {
		owner := zone.Name(wire(fmt.Sprintf("name-%07d", i), "tld"))
		ns := [][]byte{
			wire("ns1", fmt.Sprintf("hoster%d", i*7919%5000), "net"),
			wire("ns2", fmt.Sprintf("hoster%d", i*7919%5000), "net"),
		}
		items = append(items, item{zone.AppendKey(nil, zone.KindContents, owner, zone.TypeNS), zone.AppendValue(nil, owner, 3600, ns...)})
		if i%5 >= 3 {
			continue
		}
		ds := make([]byte, 36)
		items = append(items,
			item{zone.AppendKey(nil, zone.KindContents, owner, zone.TypeDS), zone.AppendValue(nil, owner, 3600, ds)},
			item{zone.AppendKey(nil, zone.KindSigs, owner, zone.TypeDS), zone.AppendValue(nil, owner, 3600, sig(zone.TypeDS))})
		hash := make([]byte, 32)
		for j, x := 0, uint64(i)*0x9e3779b97f4a7c15; j < 32; j++ {
			hash[j] = base32[x>>59]
			x = x*6364136223846793005 + 1442695040888963407
		}
		h := zone.Name(wire(string(hash), "tld"))
		chain = append(chain,
			item{zone.AppendKey(nil, zone.KindChain, h, zone.TypeNSEC3), zone.AppendValue(nil, h, 300, nsec3)},
			item{zone.AppendKey(nil, zone.KindChainSigs, h, zone.TypeNSEC3), zone.AppendValue(nil, h, 300, sig(zone.TypeNSEC3))})
	}
	return append(items, chain...)
}

// countingSink takes blocks and gives the same one back.
type countingSink struct{ bytes int64 }

func (c *countingSink) emit(block []byte) ([]byte, error) {
	c.bytes += int64(len(block))
	return block[:0], nil
}

func reportRecords(b *testing.B, records, bytes int64) {
	b.ReportMetric(float64(records)*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mrecords/s")
	b.ReportMetric(float64(bytes)/float64(records), "B/record")
}

// BenchmarkEncode is the encoder alone.
func BenchmarkEncode(b *testing.B) {
	items := tldItems(100_000)
	req := request{name: "\x03tld\x00", qtype: typeAXFR, qclass: classIN}
	e := new(encoder)
	buf := make([]byte, 0, blockSize)
	sink := &countingSink{}
	b.ReportAllocs()
	for b.Loop() {
		e.begin(&req, buf, sink, true, maxMessage)
		e.apex = []byte(req.name)
		e.open()
		for _, it := range items {
			if err := e.item(it.key, it.value); err != nil {
				b.Fatal(err)
			}
		}
		if err := e.end(); err != nil {
			b.Fatal(err)
		}
	}
	reportRecords(b, e.records, e.bytes)
}

// BenchmarkAXFR is a whole transfer over the loopback into a reader that
// throws everything away.
func BenchmarkAXFR(b *testing.B) {
	view := &memView{apex: "\x03tld\x00", serial: 1, items: tldItems(1_000_000)}
	addr, _ := startServer(b, Config{Source: memSource{view.apex: view}})
	query, err := new(dns.Msg).SetAxfr("tld.").Pack()
	if err != nil {
		b.Fatal(err)
	}
	query = append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)
	records := int64(2)
	for _, it := range view.items[1:] {
		records += int64(zone.Value(it.value).Count())
	}
	buf, bytes := make([]byte, 1<<18), int64(0)
	b.ReportAllocs()
	for b.Loop() {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := conn.Write(query); err != nil {
			b.Fatal(err)
		}
		// The server closes a connection on which no more can be asked.
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			b.Fatal(err)
		}
		bytes = 0
		for err == nil {
			var n int
			n, err = conn.Read(buf)
			bytes += int64(n)
		}
		if !errors.Is(err, io.EOF) {
			b.Fatal(err)
		}
		if err := conn.Close(); err != nil {
			b.Fatal(err)
		}
	}
	reportRecords(b, records, bytes)
}
