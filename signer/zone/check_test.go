package zone

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

func TestChecker_NamesWhatIsWrong(t *testing.T) {
	soa, ns := "example. 60 IN SOA a. b. 1 2 3 4 5", "example. 60 IN NS a."
	for _, tc := range []struct {
		name  string
		items [][]string
		want  []string
	}{
		{"a good zone", [][]string{{soa}, {ns}, {"c.example. 60 IN CNAME x."}, {"c.example. 60 IN KEY 512 255 1 AQ=="}}, nil},
		{"nothing", nil, []string{"no SOA record at the apex", "no NS record at the apex"}},
		{"SOA and NS below the apex only", [][]string{{"x." + soa}, {"x." + ns}}, []string{
			"x.example. SOA: SOA record below the apex", "no SOA record at the apex", "no NS record at the apex",
		}},
		{"two SOA records", [][]string{{soa, "example. 60 IN SOA a. b. 2 2 3 4 5"}, {ns}}, []string{"example. SOA: more than one record of this type at one name"}},
		{"another zone's name", [][]string{{soa}, {ns}, {"xexample. 60 IN A 192.0.2.1"}}, []string{"xexample. A: owner is not in the zone"}},
		{"the parent's name", [][]string{{soa}, {ns}, {". 60 IN A 192.0.2.1"}}, []string{". A: owner is not in the zone"}},
		{"CNAME at the apex", [][]string{{soa}, {ns}, {"example. 60 IN CNAME x."}}, []string{"example. CNAME: CNAME and other data at one name (RFC 1034, 3.6.2)"}},
		{"once for each name", [][]string{{soa}, {ns}, {"c.example. 60 IN CNAME x."}, {"c.example. 60 IN MX 1 x."}, {"c.example. 60 IN TXT x"}}, []string{
			"c.example. MX: CNAME and other data at one name (RFC 1034, 3.6.2)",
		}},
		{"DS", [][]string{{soa}, {ns}, {"example. 60 IN DS 1 13 5 00"}, {"d.example. 60 IN DS 1 13 5 00"}}, []string{
			"example. DS: DS record at the apex: it belongs to the parent zone", "notice d.example. DS: DS records without NS records at their name",
		}},
		{"DNAME", [][]string{{soa}, {ns}, {"example. 60 IN DNAME x."}, {"d.example. 60 IN NS x."}, {"d.example. 60 IN DNAME x."}}, []string{
			"notice d.example. NS: " + errBelowDNAME.Error(), "d.example. DNAME: DNAME and NS at one name below the apex (RFC 6672, 2.3)",
		}},
		{"below a DNAME", [][]string{
			{soa},
			{ns},
			{"d.example. 60 IN DNAME x."},
			{"d.example. 60 IN A 192.0.2.1"},
			{"e.d.example. 60 IN A 192.0.2.1"},
			{"e.d.example. 60 IN TXT x"},
			{"a.b.d.example. 60 IN TXT x"},
			{"dd.example. 60 IN A 192.0.2.1"},
			{"e.example. 60 IN A 192.0.2.1"},
		}, []string{"notice a.b.d.example. TXT: " + errBelowDNAME.Error(), "notice e.d.example. A: " + errBelowDNAME.Error()}},
		{"NS at wildcards", [][]string{{soa}, {ns}, {"*.example. 60 IN NS x."}, {"a*.example. 60 IN NS x."}, {"*.*.a.example. 60 IN NS x."}, {"x.*.example. 60 IN NS x."}}, []string{
			"*.example. NS: " + errWildcardNS.Error(), "*.*.a.example. NS: " + errWildcardNS.Error(),
		}},
		{"100 records", [][]string{{soa}, {ns}, addresses(100)}, nil},
		{"101 records", [][]string{{soa}, {ns}, addresses(101)}, []string{"notice h.example. A: " + errRRsetMany.Error()}},
		{"an RRset that just fits", [][]string{{soa}, {ns}, addresses(4094)}, []string{"notice h.example. A: " + errRRsetMany.Error()}},
		{"an RRset that does not fit", [][]string{{soa}, {ns}, addresses(4095)}, []string{"h.example. A: " + errRRsetWire.Error()}},
	} {
		var got []string
		c := NewChecker("\x07example\x00", GlueNotice, func(p Problem) {
			s := p.Error()
			if p.Notice {
				s = "notice " + s
			}
			got = append(got, s)
		})
		var items []Item
		for _, lines := range tc.items {
			items = append(items, itemOf(t, KindContents, lines...))
		}
		slices.SortFunc(items, func(a, b Item) int { return strings.Compare(string(a.Key), string(b.Key)) })
		for _, it := range items {
			c.Item(it.Key, it.Value)
		}
		c.Finish()
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s: %s", tc.name, diff)
		}
	}
}

// addresses is an RRset of n A records. Each takes 16 bytes of an answer whose
// owner is compressed; header and question take 12 + 15.
func addresses(n int) []string {
	var lines []string
	for i := range n {
		lines = append(lines, fmt.Sprintf("h.example. 60 IN A 10.0.%d.%d", i>>8, i&0xff))
	}
	return lines
}

// svcALPN is alpn=h2 as an SvcParam.
const svcALPN = "\x00\x01\x00\x03\x02h2"

func TestCheckRData_RefusesWhatItsTypeForbids(t *testing.T) {
	for _, tc := range []struct {
		t     Type
		rdata string
		good  bool
	}{
		{TypeA, "\x01\x02\x03\x04", true},
		{TypeA, "\x01\x02\x03", false},
		{TypeAAAA, "\x01\x02\x03\x04", false},
		{TypeNS, "\x01a\x00", true},
		{TypeNS, "\xc0\x0c", false},
		{TypeNS, "\x01a\x00x", false},
		{TypeNS, "", false},
		{TypeMX, "\x00\x01\x00", true},
		{TypeMX, "\x00\x01", false},
		{TypeSOA, "\x00\x00" + strings.Repeat("x", 20), true},
		{TypeSOA, "\x00\x00" + strings.Repeat("x", 19), false},
		{TypeSOA, "\x00\x00", false},
		{TypeRRSIG, strings.Repeat("\x00", 19) + "sig", true},
		{TypeRRSIG, strings.Repeat("\x00", 19), false},
		{TypeTXT, "\x01a\x00", true},
		{TypeTXT, "", false},
		{TypeTXT, "\x02a", false},
		{TypeDS, "\x00\x01\x0d\x02" + strings.Repeat("x", 32), true},
		{TypeDS, "\x00\x01\x0d\x02" + strings.Repeat("x", 31), false},
		{TypeNSEC, "\x00\x00\x01\x40", true},
		{TypeNSEC, "\x00\x00\x00", false},
		{TypeDNSKEY, "\x01", false},
		{Type(dns.TypeAPL), "", true},
		{Type(dns.TypeHTTPS), "\x00\x00\x01a\x00", true},
		{Type(dns.TypeHTTPS), "\x00\x00\x01a\x00\x00\x03\x00\x02\x00\x50", false},
		{Type(dns.TypeHTTPS), "\x00\x01\x00", true},
		{Type(dns.TypeHTTPS), "\x00\x01", false},
		{Type(dns.TypeSVCB), "\x00\x01\x00" + svcALPN, true},
		{Type(dns.TypeSVCB), "\x00\x01\x00\x00\x01\x00\x00", false},
		{Type(dns.TypeSVCB), "\x00\x01\x00\x00\x01\x00\x01\x00", false},
		{Type(dns.TypeSVCB), "\x00\x01\x00\x00\x02\x00\x00", false},
		{Type(dns.TypeSVCB), "\x00\x01\x00" + svcALPN + "\x00\x02\x00\x00", true},
		{Type(dns.TypeSVCB), "\x00\x01\x00" + svcALPN + svcALPN, false},
		{Type(dns.TypeSVCB), "\x00\x01\x00\x00\x00\x00\x02\x00\x01" + svcALPN, true},
		{Type(dns.TypeSVCB), "\x00\x01\x00\x00\x00\x00\x02\x00\x03" + svcALPN, false},
		{Type(dns.TypeSVCB), "\x00\x01\x00\x00\x00\x00\x04\x00\x01\x00\x03" + svcALPN, false},
		{Type(dns.TypeSVCB), "\x00\x01\x00\x00\x00\x00\x04\x00\x01\x00\x03" + svcALPN + "\x00\x03\x00\x02\x00\x50", true},
		{Type(dns.TypeSVCB), "\x00\x01\x00\x00\x00\x00\x04\x00\x03\x00\x01" + svcALPN + "\x00\x03\x00\x02\x00\x50", false},
		{Type(dns.TypeSVCB), "\x00\x01\x00\x00\x00\x00\x00" + svcALPN, false},
		{Type(dns.TypeSVCB), "\x00\x01\x00\x00\x00\x00\x02\x00\x00" + svcALPN, false},
		{Type(dns.TypeSVCB), "\x00\x01\x00\x00\x00\x00\x04\x00\x01\x00\x01" + svcALPN, false},
		{Type(dns.TypeSVCB), "\x00\x01\x00\x00\x01\x00\x04\x02h2", false},
		{Type(dns.TypeAMTRELAY), "\x0a\x81\xc0\x00\x02\x01", true},
		{Type(dns.TypeAMTRELAY), "\x0a\x81", false},
		{Type(dns.TypeAMTRELAY), "\x0a\x80\x00", false},
		{Type(dns.TypeAMTRELAY), "\x0a\x82\xc0\x00\x02\x01", false},
		{Type(dns.TypeAMTRELAY), "\x0a\x03\x01a\x00", true},
		{Type(dns.TypeAMTRELAY), "\x0a\x03\x01a", false},
		{Type(dns.TypeAMTRELAY), "\x0a\x05anything", true},
		{Type(dns.TypeAMTRELAY), "\x0a", false},
		{Type(dns.TypeISDN), "\x011", true},
		{Type(dns.TypeISDN), "\x011\x00", true},
		{Type(dns.TypeISDN), "\x011\x00\x00", false},
		{Type(dns.TypeISDN), "\x021", false},
		{Type(dns.TypeISDN), "", false},
		{Type(dns.TypeHINFO), "\x011", false},
		{Type(dns.TypeX25), "\x041234", true},
		{Type(dns.TypeX25), "\x03123", false},
		{Type(dns.TypeX25), "\x041234\x00", false},
		{Type(dns.TypeAPL), "\x00\x01\x18\x04\xc0\x00\x02\x01", true},
		{Type(dns.TypeAPL), "\x00\x01\x18\x03\xc0\x00\x00", false},
		{Type(dns.TypeAPL), "\x00\x01\x21\x00", false},
		{Type(dns.TypeAPL), "\x00\x01\x18\x05\xc0\x00\x02\x01\x01", false},
		{Type(dns.TypeAPL), "\x00\x03\xff\x81\x01", true},
		{Type(dns.TypeAPL), "\x00\x01\x18\x04\xc0", false},
		{Type(dns.TypeCAA), "\x00\x05issue", true},
		{Type(dns.TypeCAA), "\x00\x05is-ue", false},
		{Type(dns.TypeCAA), "\x00\x00x", false},
		{Type(dns.TypeCAA), "\x00\x05issu", false},
		{Type(dns.TypeTLSA), "\x03\x01\x01\x00", true},
		{Type(dns.TypeTLSA), "\x03\x01\x01", false},
		{Type(dns.TypeSSHFP), "\x04\x02" + strings.Repeat("x", 32), true},
		{Type(dns.TypeSSHFP), "\x04\x02" + strings.Repeat("x", 31), false},
		{Type(dns.TypeSSHFP), "\x04\x01" + strings.Repeat("x", 32), false},
		{Type(dns.TypeSSHFP), "\x04\x03x", true},
		{Type(dns.TypeSSHFP), "\x04\x03", false},
		{Type(dns.TypeCERT), "\x00\x01\x00\x00\x00", false},
		{Type(dns.TypeKEY), "\xc0\x00\x03\x01", true},
		{Type(dns.TypeKEY), "\x00\x00\x03\x01", false},
		{Type(dns.TypeTA), "\x00\x01\x08\x02xx", false},
		{Type(dns.TypeZONEMD), "\x00\x00\x00\x01\x01\x01" + strings.Repeat("x", 11), false},
		{Type(65280), "anything", true},
		{Type(65280), strings.Repeat("x", 65536), false},
	} {
		if err := CheckRData(tc.t, []byte(tc.rdata)); (err == nil) != tc.good {
			t.Errorf("%s %q: %v", tc.t, tc.rdata, err)
		}
	}
}

func BenchmarkMerge(b *testing.B) {
	var parts [3][]Item
	value := AppendValue(nil, Root, 60, []byte("\x01a\x00"))
	for i := range 20_000 {
		owner := Name(fmt.Sprintf("\x07n%06d\x03tld\x00", i))
		parts[0] = append(parts[0], Item{AppendKey(nil, KindContents, owner, TypeNS), value})
		parts[1] = append(parts[1], Item{AppendKey(nil, KindMade, owner, TypeNSEC), value})
		parts[2] = append(parts[2], Item{AppendKey(nil, KindSigs, owner, TypeNSEC), value})
	}
	b.ReportAllocs()
	for b.Loop() {
		m := Merge(Slice(parts[0]...), Slice(parts[1]...), Slice(parts[2]...))
		n := 0
		for m.Next() {
			n++
		}
		if n != 60_000 || m.Err() != nil {
			b.Fatal(n, m.Err())
		}
	}
	b.ReportMetric(float64(60_000*b.N)/b.Elapsed().Seconds(), "items/s")
}

func BenchmarkChunk(b *testing.B) {
	var items []Item
	value := AppendValue(nil, Root, 60, []byte("\x03ns1\x04prov\x03tld\x00"), []byte("\x03ns2\x04prov\x03tld\x00"))
	for i := range 10_000 {
		items = append(items, Item{AppendKey(nil, KindContents, Name(fmt.Sprintf("\x07n%06d\x03tld\x00", i)), TypeNS), value})
	}
	var c ChunkBuilder
	b.Run("build", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			c.Reset()
			for _, it := range items {
				if full, err := c.Add(it.Key, it.Value); full || err != nil {
					b.Fatal(full, err)
				}
			}
		}
		b.ReportMetric(float64(len(items)*b.N)/b.Elapsed().Seconds(), "items/s")
	})
	b.Run("read", func(b *testing.B) {
		b.ReportAllocs()
		r := NewChunkReader(nil)
		for b.Loop() {
			for r.Reset(c.Bytes()); r.Next(); {
			}
			if r.Err() != nil {
				b.Fatal(r.Err())
			}
		}
		b.ReportMetric(float64(len(items)*b.N)/b.Elapsed().Seconds(), "items/s")
	})
}
