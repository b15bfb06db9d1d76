package zone

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

// samples is RDATA in presentation form for every type that miekg/dns
// knows and that can stand in a zone.
func samples() map[uint16][]string {
	return map[uint16][]string{
		dns.TypeA:          {"192.0.2.1"},
		dns.TypeAAAA:       {"2001:db8::1", "::ffff:192.0.2.1", "::"},
		dns.TypeAFSDB:      {"1 Host.example."},
		dns.TypeAMTRELAY:   {"10 0 2 2001:db8::1", "10 0 3 relay.example.", "0 1 0 ."},
		dns.TypeAPL:        {"1:192.0.2.0/24 !2:2001:db8::/32", "1:0.0.0.0/0 2:::/0"},
		dns.TypeAVC:        {`"app-name:x"`},
		dns.TypeCAA:        {`0 issue "ca.example; a=b"`, `128 tbs "a\"\\b\007"`},
		dns.TypeCDNSKEY:    {"0 3 0 AA=="},
		dns.TypeCDS:        {"0 0 0 00"},
		dns.TypeCERT:       {"PKIX 1 RSASHA256 AQIDBA=="},
		dns.TypeCNAME:      {"Target.Example."},
		dns.TypeCSYNC:      {"66 3 A NS AAAA"},
		dns.TypeDHCID:      {"AAIBY2/AuCccgoJbsaxcQc9TUapptP69lOjxfNuVAA2kjEA="},
		dns.TypeDLV:        {"1 8 1 0123456789ABCDEF0123456789ABCDEF01234567"},
		dns.TypeDNAME:      {"x.Example."},
		dns.TypeDNSKEY:     {"257 3 13 AQIDBA==", "256 3 13 AQ ID BA =="},
		dns.TypeDS:         {"60485 5 1 ( 2BB183AF5F22588179A53B0A 98631FAD1A292118 )"},
		dns.TypeEID:        {`0102`},
		dns.TypeEUI48:      {"00-00-5e-00-53-2a"},
		dns.TypeEUI64:      {"00-00-5e-ef-10-00-00-2a"},
		dns.TypeGID:        {"100"},
		dns.TypeGPOS:       {"-32.6882 116.8652 10.0"},
		dns.TypeHINFO:      {`"PC" "x y"`},
		dns.TypeHIP:        {"2 200100107B1A74DF365639CC39F1D578 AwEAAbdxyhNuSutc5EMzxTs9LBPCIkOFH8cIvM4p9+LrV4e19WzK00+CI6zBCQTdtWsuxKbWIy87UOoJTwkUs7lBu+Upr1gsNrut79ryra+bSRGQb1slImA8YVJyuIDsj7kwzG7jnERNqnWxZ48AWkskmdHaVDP4BcelrTI3rMXdXF5D rvs.example."},
		dns.TypeHTTPS:      {`1 . alpn="h2,h3" port="8443" ipv4hint="192.0.2.1"`, "0 x.example."},
		dns.TypeIPSECKEY:   {"10 1 2 192.0.2.38 AQNRU3mG7TVTO2BkR47usntb102uFJtugbo6BSGvgqt4AQ==", "10 3 2 gw.example. AQ==", "10 0 0 ."},
		dns.TypeISDN:       {`"150862028003217" "004"`, `150862028003217 ""`},
		dns.TypeKEY:        {"512 255 1 AQIDBA=="},
		dns.TypeKX:         {"10 kx.example."},
		dns.TypeL32:        {"10 10.1.2.0"},
		dns.TypeL64:        {"10 2001:0DB8:1140:1000"},
		dns.TypeLOC:        {"52 22 23.000 N 4 53 32.000 E -2.00m 0.00m 10000m 10m"},
		dns.TypeLP:         {"10 l64.example."},
		dns.TypeMB:         {"mb.example."},
		dns.TypeMD:         {"md.example."},
		dns.TypeMF:         {"mf.example."},
		dns.TypeMG:         {"mg.example."},
		dns.TypeMINFO:      {"a.example. b.example."},
		dns.TypeMR:         {"mr.example."},
		dns.TypeMX:         {"10 Mail.example.", "0 ."},
		dns.TypeNAPTR:      {`100 50 "s" "z3950+I2L+I2C" "" _z3950._tcp.Gatech.example.`},
		dns.TypeNID:        {"10 0014:4fff:ff20:ee64"},
		dns.TypeNIMLOC:     {"0102"},
		dns.TypeNINFO:      {`"a" "b"`},
		dns.TypeNS:         {"Ns1.example."},
		dns.TypeNSAPPTR:    {"foo.example."},
		dns.TypeNSEC:       {"host.example. A MX RRSIG NSEC TYPE1234"},
		dns.TypeNSEC3:      {"1 1 12 AABBCCDD 2T7B4G4VSA5SMI47K61MV5BV1A22BOJR NS SOA MX RRSIG DNSKEY NSEC3PARAM", "1 0 0 - 2T7B4G4VSA5SMI47K61MV5BV1A22BOJR"},
		dns.TypeNSEC3PARAM: {"1 0 12 AABBCCDD", "1 0 0 -"},
		dns.TypeNULL:       {`\# 2 0102`},
		dns.TypeNXT:        {"next.example. A MX NXT"},
		dns.TypeOPENPGPKEY: {"AQIDBA=="},
		dns.TypePTR:        {"Ptr.example."},
		dns.TypePX:         {"10 map822.example. mapx400.example."},
		dns.TypeRESINFO:    {`"qnamemin" "exterr=15-17"`},
		dns.TypeRKEY:       {"0 3 8 AQIDBA=="},
		dns.TypeRP:         {"mbox.example. txt.example."},
		dns.TypeRRSIG:      {"A 5 3 86400 20030322173103 20030220173103 2642 Example. oJB1W6WNGv+ldvQ3WDG0MQkg5IEhjRip8WTrPYGv07h108dUKGMeDPKijVCHX3DDKdfb+v6oB9wfuh3DTJXUAfI/M0zmO/zz8bW0Rznl8O3tGNazPwQKkRN20XPXV6nwwfoXmJQbsLNrLfkGJ5D6fwFm8nN+6pBzeDQfsS3Ap3o="},
		dns.TypeRT:         {"10 rt.example."},
		dns.TypeSIG:        {"A 5 3 86400 20030322173103 20030220173103 2642 example. oJB1W6WNGv8="},
		dns.TypeSMIMEA:     {"3 0 0 0102"},
		dns.TypeSOA:        {"Ns.example. host.example. 2026112201 1h 15m 604800 300"},
		dns.TypeSPF:        {`"v=spf1 -all"`},
		dns.TypeSRV:        {"1 2 53 Srv.example."},
		dns.TypeSSHFP:      {"2 1 123456789ABCDEF67890123456789ABCDEF67890"},
		dns.TypeSVCB:       {"1 svc.example. mandatory=alpn alpn=h2 no-default-alpn ech=\"AQID\" ipv6hint=2001:db8::1 key65333=ex1"},
		dns.TypeTA:         {"1 8 1 0123456789ABCDEF0123456789ABCDEF01234567"},
		dns.TypeTALINK:     {"a.example. b.example."},
		dns.TypeTKEY:       nil, // a meta-type
		dns.TypeTLSA:       {"3 1 1 d2abde240d7cd3ee6b4b28c54df034b97983a1d16e8a410e4561cb106618e971"},
		dns.TypeTSIG:       nil, // a meta-type
		dns.TypeTXT:        {`"a b" c "\"\\;" "\000\255"`, `""`},
		dns.TypeUID:        {"100"},
		dns.TypeUINFO:      {`"user"`},
		dns.TypeURI:        {`10 1 "ftp://ftp.example/public"`},
		dns.TypeX25:        {"311061700956"},
		dns.TypeZONEMD:     {"2018031500 1 1 FEBE3D4CE2EC2FFA4BA99D46CD69D6D29711E55217057BEE7EB1A7B641A47BA7FED2DD5B97AE499FAFA4F22C6BD647DE"},
	}
}

// TestWriter_RoundTripOfEveryType: what is read, written and read again is
// the same, and what is read is what miekg/dns reads.
func TestWriter_RoundTripOfEveryType(t *testing.T) {
	all := samples()
	for typ := range dns.TypeToRR {
		if _, ok := all[typ]; !ok && CheckType(Type(typ)) == nil {
			t.Errorf("no sample for %s", Type(typ))
		}
	}
	for typ, texts := range all {
		for _, text := range texts {
			line := fmt.Sprintf("x.Sub 60 %s %s\n", Type(typ), text)
			if typ == dns.TypeSOA {
				line = "; the head has one\n"
			}
			keep := func(o *LoadOptions) { o.KeepSigned = true }
			l, got, err := loadText(t, head+line, keep)
			if err != nil {
				t.Errorf("%s: %v", line, err)
				continue
			}
			if typ != dns.TypeSOA {
				want := wireOf(t, "x.Sub.example. 60 IN "+Type(typ).String()+" "+text)
				if name := "x.Sub.example."; !slices.ContainsFunc(got, func(s string) bool {
					return strings.HasSuffix(s, fmt.Sprintf(" %x", want[len(name)+1+10:]))
				}) {
					t.Errorf("%s: got %s\nwant %x", line, strings.Join(got, "\n"), want[25:])
				}
			}
			again, back := rewrite(t, head+line)
			if diff := cmp.Diff(got, back); diff != "" {
				t.Errorf("%s written as\n%s%s", line, again, diff)
			}
			if l.Apex != "\x07example\x00" {
				t.Errorf("apex %s", l.Apex)
			}
		}
	}
}

// rewrite loads text, writes it and loads that.
func rewrite(t testing.TB, text string) (again string, items []string) {
	t.Helper()
	l, err := Load(context.Background(), LoadOptions{
		FS: fstest.MapFS{"zone": {Data: []byte(text)}}, File: "zone", Origin: "\x07example\x00", Spill: &memSpill{}, KeepSigned: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var out bytes.Buffer
	w := NewWriter(&out)
	for l.Items.Next() {
		if err := w.WriteItem(l.Items.Key(), l.Items.Value()); err != nil {
			t.Fatal(err)
		}
		texts, err := RecordTexts(l.Items.Key(), l.Items.Value())
		if err != nil || len(texts) != Value(l.Items.Value()).Count() {
			t.Fatal(texts, err)
		}
		for _, line := range texts {
			if !strings.Contains(out.String()+string(w.buf), line+"\n") {
				t.Fatalf("RecordTexts gives %q, the writer does not", line)
			}
		}
	}
	if err := l.Items.Err(); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	_, items, err = loadText(t, out.String(), func(o *LoadOptions) { o.KeepSigned = true })
	if err != nil {
		t.Fatalf("what was written is refused: %v\n%s", err, out.String())
	}
	return out.String(), items
}

func TestWriter_UnreadableRDataIsWrittenAsUnknown(t *testing.T) {
	for _, tc := range []struct {
		t     Type
		rdata string
		want  string
	}{
		{TypeA, "\x01\x02\x03", `\# 3 010203`},
		{TypeNS, "\x01a", `\# 2 0161`},
		{TypeTXT, "", `\# 0`},
		{TypeTXT, "\x05a", `\# 2 0561`},
		{TypeMX, "\x00\x01\x00\x00", `\# 4 00010000`},
		{TypeNSEC, "\x00\x00\x00", `\# 3 000000`},
		{TypeRRSIG, "\x00", `\# 1 00`},
		{Type(dns.TypeLOC), "\x09", `\# 1 09`},
		{Type(65280), "\xff", `\# 1 FF`},
	} {
		if got := RDataText(tc.t, []byte(tc.rdata)); got != tc.want {
			t.Errorf("%s: got %s, want %s", tc.t, got, tc.want)
		}
	}
}

func TestWriter_TimesAreThoseOfTheCalendar(t *testing.T) {
	for n := uint64(0); n < 1<<32; n += 86400*13 + 4567 {
		w := textWriter{rest: []byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}}
		w.time()
		back, ok := parseTime(w.dst)
		if want := dns.TimeToString(uint32(n)); !ok || back != n || (n < 1<<31 && string(w.dst) != want) {
			t.Fatalf("%d is written as %s, want %s; read as %d", n, w.dst, want, back)
		}
	}
}

// TestWriter_EmptyServiceParametersStandAlone: RFC 9460 2.1 allows key="" too,
// but other programs do not read that.
func TestWriter_EmptyServiceParametersStandAlone(t *testing.T) {
	for _, text := range []string{
		`1 . alpn="h2" no-default-alpn`,
		`1 . alpn="h2" no-default-alpn port="53" ohttp`,
		`1 . key65400="a=\"\"" key65401`,
	} {
		again, _ := rewrite(t, head+"a 60 SVCB "+text+"\n")
		if !strings.Contains(again, "\tSVCB\t"+text+"\n") {
			t.Errorf("%s is written as\n%s", text, again)
		}
	}
}

// TestWriter_NewerTypesAreReadByNameAndWrittenByNumber: DSYNC (RFC 9859) and
// WALLET, which miekg/dns does not know.
func TestWriter_NewerTypesAreReadByNameAndWrittenByNumber(t *testing.T) {
	for text, want := range map[string]string{
		"DSYNC CDS NOTIFY 5359 Scan": `TYPE66	\# 19 003B0114EF045363616E076578616D706C6500`,
		"dsync csync 0 53 .":         `TYPE66	\# 6 003E00003500`,
		"TYPE66 TYPE59 notify 53 .":  `TYPE66	\# 6 003B01003500`,
		`WALLET "BTC" 1a`:            `TYPE262	\# 7 03425443023161`,
		"NSEC . A DSYNC WALLET":      "NSEC	. A TYPE66 TYPE262",
		"DSYNC \\# 6 003B01003500":   `TYPE66	\# 6 003B01003500`,
	} {
		again, _ := rewrite(t, head+"a 60 "+text+"\n")
		if !strings.Contains(again, "\t"+want+"\n") {
			t.Errorf("%s is written as\n%s", text, again)
		}
	}
	for _, text := range []string{"DSYNC CDS 256 53 .", "DSYNC CDS NOTIFY 53", "DSYNC NOTHING 1 53 .", `DSYNC CDS "NOTIFY" 53 .`, "DSYNC CDS 1 53 . x", "WALLET"} {
		if _, _, err := loadText(t, head+"a 60 "+text+"\n", nil); err == nil {
			t.Errorf("%s is read", text)
		}
	}
}
