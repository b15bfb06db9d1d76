package keymgr_test

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/signer/zone"
)

func record(t testing.TB, text string) dns.RR {
	t.Helper()
	rr, err := dns.NewRR(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return rr
}

// rdata is the RDATA of a record in wire form.
func rdata(t testing.TB, rr dns.RR) []byte {
	t.Helper()
	wire := make([]byte, dns.Len(rr)+300)
	n, err := dns.PackRR(rr, wire, 0, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	owner, err := zone.NameLength(wire)
	if err != nil {
		t.Fatal(err)
	}
	return wire[owner+10 : n]
}

// signed is what an RRSIG over one record signs (RFC 4034, 3.1.8.1).
func signed(t testing.TB, sig *dns.RRSIG, rr dns.RR) []byte {
	t.Helper()
	head := rdata(t, sig)
	n, err := zone.NameLength(head[18:])
	if err != nil {
		t.Fatal(err)
	}
	wire := make([]byte, dns.Len(rr)+300)
	end, err := dns.PackRR(rr, wire, 0, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	return append(slices.Clone(head[:18+n]), wire[:end]...)
}

func name(t testing.TB, text string) zone.Name {
	t.Helper()
	n, err := zone.ParseName(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

type vector struct {
	rfc, dnskey, ds, data, rrsig string
}

// vectors are the examples of the RFCs that define DNSSEC algorithms.
func vectors() []vector {
	const (
		a  = "www.example.net. 3600 IN A 192.0.2.1"
		mx = "example.com. 3600 IN MX 10 mail.example.com."
	)
	return []vector{
		{
			"RFC 6605, 6.1",
			"example.net. 3600 IN DNSKEY 257 3 13 GojIhhXUN/u4v54ZQqGSnyhWJwaubCvTmeexv7bR6edbkrSqQpF64cYbcB7wNcP+e+MAnLr+Wi9xMWyQLc8NAA==",
			"example.net. 3600 IN DS 55648 13 2 b4c8c1fe2e7477127b27115656ad6256f424625bf5c1e2770ce6d6e37df61d17", a,
			"www.example.net. 3600 IN RRSIG A 13 3 3600 20100909100439 20100812100439 55648 example.net. qx6wLYqmh+l9oCKTN6qIc+bw6ya+KJ8oMz0YP107epXAyGmt+3SNruPFKG7tZoLBLlUzGGus7ZwmwWep666VCw==",
		},
		{
			"RFC 6605, 6.2",
			"example.net. 3600 IN DNSKEY 257 3 14 xKYaNhWdGOfJ+nPrL8/arkwf2EY3MDJ+SErKivBVSum1w/egsXvSADtNJhyem5RCOpgQ6K8X1DRSEkrbYQ+OB+v8/uX45NBwY8rp65F6Glur8I/mlVNgF6W/qTI37m40",
			"example.net. 3600 IN DS 10771 14 4 72d7b62976ce06438e9c0bf319013cf801f09ecc84b8d7e9495f27e305c6a9b0563a9b5f4d288405c3008a946df983d6", a,
			"www.example.net. 3600 IN RRSIG A 14 3 3600 20100909102025 20100812102025 10771 example.net. /L5hDKIvGDyI1fcARX3z65qrmPsVz73QD1Mr5CEqOiLP95hxQouuroGCeZOvzFaxsT8Glr74hbavRKayJNuydCuzWTSSPdz7wnqXL5bdcJzusdnI0RSMROxxwGipWcJm",
		},
		{
			"RFC 8080, 6.1",
			"example.com. 3600 IN DNSKEY 257 3 15 l02Woi0iS8Aa25FQkUd9RMzZHJpBoRQwAQEX1SxZJA4=",
			"example.com. 3600 IN DS 3613 15 2 3aa5ab37efce57f737fc1627013fee07bdf241bd10f3b1964ab55c78e79a304b", mx,
			"example.com. 3600 IN RRSIG MX 15 2 3600 1440021600 1438207200 3613 example.com. oL9krJun7xfBOIWcGHi7mag5/hdZrKWw15jPGrHpjQeRAvTdszaPD+QLs3fx8A4M3e23mRZ9VrbpMngwcrqNAg==",
		},
		{
			"RFC 8080, 6.2",
			"example.com. 3600 IN DNSKEY 257 3 16 3kgROaDjrh0H2iuixWBrc8g2EpBBLCdGzHmn+G2MpTPhpj/OiBVHHSfPodx1FYYUcJKm1MDpJtIA",
			"example.com. 3600 IN DS 9713 16 2 6ccf18d5bc5d7fc2fceb1d59d17321402f2aa8d368048db93dd811f5cb2b19c7", mx,
			"example.com. 3600 IN RRSIG MX 16 2 3600 1440021600 1438207200 9713 example.com. 3cPAHkmlnxcDHMyg7vFC34l0blBhuG1qpwLmjInI8w1CMB29FkEAIJUA0amxWndkmnBZ6SKiwZSAxGILn/NBtOXft0+Gj7FSvOKxE/07+4RQvE581N3Aj/JtIyaiYVdnYtyMWbSNyGEY2213WKsJlwEA",
		},
	}
}

func TestVectors_DSAndSignatures(t *testing.T) {
	for _, v := range vectors() {
		t.Run(v.rfc, func(t *testing.T) {
			key, ds := record(t, v.dnskey), record(t, v.ds)
			got, err := keymgr.DS(name(t, key.Header().Name), rdata(t, key), ds.(*dns.DS).DigestType)
			if err != nil {
				t.Fatal(err)
			}
			if want := rdata(t, ds); !slices.Equal(got, want) {
				t.Errorf("DS %x, the RFC says %x", got, want)
			}
			sig := record(t, v.rrsig).(*dns.RRSIG)
			raw, err := base64.StdEncoding.DecodeString(sig.Signature)
			if err != nil {
				t.Fatal(err)
			}
			message := signed(t, sig, record(t, v.data))
			if err := keymgr.Verify(rdata(t, key), message, raw); err != nil {
				t.Errorf("the RFC's signature: %v", err)
			}
			for _, bad := range [][]byte{nil, raw[1:], append(slices.Clone(raw), 0), make([]byte, len(raw))} {
				if err := keymgr.Verify(rdata(t, key), message, bad); err == nil {
					t.Errorf("signature %x verifies", bad)
				}
			}
			raw[len(raw)/2] ^= 1
			if err := keymgr.Verify(rdata(t, key), message, raw); err == nil {
				t.Error("a changed signature verifies")
			}
		})
	}
}

const rfc4509Key = "dskey.example.com. 86400 IN DNSKEY 256 3 5 AQOeiiR0GOMYkDshWoSKz9XzfwJr1AYtsmx3TGkJaNXVbfi/2pHm822aJ5iI9BMzNXxeYCmZDRD99WYwYqUSdjMmmAphXdvxegXd/M5+X7OrzKBaMbCVdFLUUh6DhweJBjEVv5f2wwjM9XzcnOf+EPbtG9DMBmADjFDc2w/rljwvFw=="

func TestRFC4509_2_3_DS(t *testing.T) {
	got, err := keymgr.DS(name(t, "DSkey.Example.COM."), rdata(t, record(t, rfc4509Key)), keymgr.DigestSHA256)
	if err != nil {
		t.Fatal(err)
	}
	const want = "ec450502d4b7d520e7bb5f0f67674a0cceb1e3e0614b93c4f9e99b8383f6a1e4469da50a"
	if hex.EncodeToString(got) != want {
		t.Errorf("DS %x, the RFC says %s", got, want)
	}
	for _, digest := range []uint8{0, 1, 3, 5} {
		if _, err := keymgr.DS(zone.Root, rdata(t, record(t, rfc4509Key)), digest); err == nil {
			t.Errorf("digest type %d: no error", digest)
		}
	}
	if _, err := keymgr.DS(zone.Root, []byte{1, 0, 3, 13}, keymgr.DigestSHA256); err == nil {
		t.Error("a DNSKEY without key: no error")
	}
}

// Each line reads back as the record that miekg/dns makes of the same key.
func TestParentRecords_ReadBack(t *testing.T) {
	v := vectors()[0]
	dnskey := record(t, v.dnskey).(*dns.DNSKEY)
	key := keymgr.Describe(keymgr.KSK, rdata(t, dnskey))
	apex := name(t, "Example.net.")
	sha256, sha384 := dnskey.ToDS(dns.SHA256), dnskey.ToDS(dns.SHA384)
	for format, want := range map[string][]dns.RR{
		"ds": {sha256, sha384}, "DNSKEY": {dnskey}, "cdnskey": {dnskey.ToCDNSKEY()}, "CDS": {sha256.ToCDS(), sha384.ToCDS()},
	} {
		lines, err := keymgr.ParentRecords(apex, key, format, []uint8{2, 4}, 3600)
		if err != nil {
			t.Fatal(err)
		}
		if len(lines) != len(want) {
			t.Fatalf("%s: %d lines, want %d", format, len(lines), len(want))
		}
		for i, line := range lines {
			got := record(t, line)
			if !strings.HasPrefix(line, "Example.net. 3600 IN "+strings.ToUpper(format)+" ") ||
				!slices.Equal(rdata(t, got), rdata(t, want[i])) {
				t.Errorf("%s: %s, want %s", format, line, want[i])
			}
		}
	}
	if _, err := keymgr.ParentRecords(apex, key, "tlsa", []uint8{2}, 3600); err == nil {
		t.Error("format tlsa: no error")
	}
	if _, err := keymgr.ParentRecords(apex, key, "ds", []uint8{1}, 3600); err == nil {
		t.Error("digest type 1: no error")
	}
}

func TestNewKey_RoundTripsThroughPublicKey(t *testing.T) {
	for _, v := range vectors() {
		want := rdata(t, record(t, v.dnskey))
		public, err := keymgr.PublicKey(want)
		if err != nil {
			t.Fatal(err)
		}
		key, err := keymgr.NewKey(keymgr.KSK, want[3], public)
		if err != nil {
			t.Fatal(err)
		}
		got, err := keymgr.RData(key)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) || key.Tag != record(t, v.dnskey).(*dns.DNSKEY).KeyTag() {
			t.Errorf("%s: %x, tag %d, want %x", v.rfc, got, key.Tag, want)
		}
		for _, other := range []uint8{5, 8, 10, 13, 14, 15, 16} {
			if _, err := keymgr.NewKey(keymgr.KSK, other, public); (err == nil) != (other == want[3]) {
				t.Errorf("%s: algorithm %d for its key gives %v", v.rfc, other, err)
			}
		}
	}
}

// RFC 3110, 2: the exponent's length has one byte, or three.
func TestRFC3110_2_Exponents(t *testing.T) {
	modulus := strings.Repeat("c5", 128)
	for field, want := range map[string]int{
		"03010001" + modulus: 65537, "0103" + modulus: 3, "00000103" + modulus: 3, "0000" + "03010001" + modulus: 65537,
		"0400000003" + modulus: 3,
	} {
		raw, err := hex.DecodeString("01000308" + field)
		if err != nil {
			t.Fatal(err)
		}
		public, err := keymgr.PublicKey(raw)
		if err != nil {
			t.Errorf("%s: %v", field[:12], err)
			continue
		}
		if got := exponent(public); got != want {
			t.Errorf("%s: exponent %d, want %d", field[:12], got, want)
		}
	}
	for _, field := range []string{"03", "0301", "000", "00", "0000", "000001", "00000003", "0500000000ff" + modulus, "04ffffffff" + modulus} {
		raw, err := hex.DecodeString("01000308" + field[:len(field)/2*2])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := keymgr.PublicKey(raw); err == nil {
			t.Errorf("%.12s: no error", field)
		}
	}
}

func TestRData_RefusesWhatDoesNotBelongTogether(t *testing.T) {
	key := keymgr.Describe(keymgr.KSK, rdata(t, record(t, vectors()[0].dnskey)))
	if _, err := keymgr.RData(key); err != nil {
		t.Fatal(err)
	}
	bad := key
	bad.ID = "0000000000000000"
	wrongTag, wrongAlgorithm, notBase64, short := key, key, key, key
	wrongTag.Tag++
	wrongAlgorithm.Algorithm = 14
	notBase64.DNSKEY = "!"
	short.DNSKEY = "AQE="
	for fact, k := range map[string]event.Key{
		"ID": bad, "tag": wrongTag, "algorithm": wrongAlgorithm, "base64": notBase64, "length": short,
	} {
		if _, err := keymgr.RData(k); err == nil {
			t.Errorf("wrong %s: no error", fact)
		}
	}
}

func FuzzPublicKey(f *testing.F) {
	for _, v := range vectors() {
		f.Add(rdata(f, record(f, v.dnskey)))
	}
	f.Add([]byte{1, 0, 3, 8, 0, 0, 1, 3, 5})
	f.Fuzz(func(t *testing.T, raw []byte) {
		public, err := keymgr.PublicKey(raw)
		if err == nil && public == nil {
			t.Error("neither a key nor an error")
		}
		if err := keymgr.Verify(raw, []byte("message"), make([]byte, 64)); err == nil {
			t.Error("a signature of zeros verifies")
		}
		if len(raw) > 4 && err == nil && raw[3] >= 13 {
			// Everything but RSA, whose exponent has two forms, has one form.
			key, err := keymgr.NewKey(keymgr.KSK, raw[3], public)
			if err != nil {
				t.Fatal(err)
			}
			if again, err := keymgr.RData(key); err != nil || !slices.Equal(again[4:], raw[4:]) {
				t.Errorf("%x reads back as %x, %v", raw, again, errors.Unwrap(err))
			}
		}
	})
}
