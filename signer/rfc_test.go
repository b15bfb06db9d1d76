// The example of RFC 5702, 6.1 has a key of 512 bits.
//go:debug rsa1024min=0

package signer

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/base64"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cloudflare/circl/sign/ed448"
	"github.com/google/go-cmp/cmp"

	"sluice/signer/zone"
)

// RFC 8976, appendix A.
func TestRFC8976_A_ZONEMD(t *testing.T) {
	for _, c := range []struct{ file, apex string }{
		{"a1-simple", "example."},
		{"a2-complex", "example."},
		{"a3-multiple", "example."},
		{"a4-uri-arpa", "uri.arpa."},
		{"a5-root-servers", "root-servers.net."},
	} {
		t.Run(c.file, func(t *testing.T) {
			text, err := os.ReadFile("testdata/rfc8976/" + c.file + ".zone")
			if err != nil {
				t.Fatal(err)
			}
			z := parse(t, c.apex, string(text))
			compared := 0
			for rdata := range zone.Value(z[keyOf(t, zone.KindMade, c.apex, zone.TypeZONEMD)]).Records() {
				if rdata[4] != zonemdSimple || rdata[5] > zonemdSHA512 {
					continue
				}
				h := newZONEMDHash(rdata[5], zone.AppendOwnerKey(nil, mustName(t, c.apex)))
				for it := z.merged(); it.Next(); {
					if err := h.add(it.Key(), it.Value()); err != nil {
						t.Fatal(err)
					}
				}
				compared++
				if got := h.sum(); !bytes.Equal(got, rdata[6:]) {
					t.Errorf("hash %d: %x, want %x", rdata[5], got, rdata[6:])
				}
			}
			if compared == 0 {
				t.Error("no ZONEMD record compared")
			}
		})
	}
}

// The zone of RFC 8976, A.4 is a real one, signed with RSA/SHA-256.
func TestVerify_RealZoneOfRFC8976(t *testing.T) {
	text, err := os.ReadFile("testdata/rfc8976/a4-uri-arpa.zone")
	if err != nil {
		t.Fatal(err)
	}
	z := parse(t, "uri.arpa.", string(text))
	r, err := Verify(t.Context(), z.merged(), VerifyOptions{
		Apex: mustName(t, "uri.arpa."), At: time.Date(2018, 10, 15, 0, 0, 0, 0, time.UTC),
	})
	if err != nil {
		t.Fatal(err)
	}
	// ZONEMD was added to the zone for the RFC without signing it, nor does
	// the apex's NSEC show it.
	for _, f := range r.Faults {
		if f.Type != zone.TypeZONEMD && f.Rule != RuleBitmap {
			t.Error(f)
		}
	}
	if !r.ZONEMD || r.Checked != 14 || r.FaultCount != 2 {
		t.Errorf("report %+v", r)
	}
}

// vector is one RRset with a key and a published signature.
type vector struct {
	name, apex, owner, record string
	flags                     uint16
	alg                       uint8
	public, private           string
	tag                       uint16
	inception, expiration     string
	signature                 string
	labels                    uint8 // as signed in RFC 8080, 6.2: one too many
	same                      bool  // signing again gives the same signature
}

func vectors() []vector {
	return []vector{
		{
			name: "RFC 5702, 6.1", apex: "example.net.", owner: "www.example.net.", record: "A 192.0.2.91", flags: 256, alg: 8, tag: 9033,
			public:    "AwEAAcFcGsaxxdgiuuGmCkVImy4h99CqT7jwY3pexPGcnUFtR2Fh36BponcwtkZ4cAgtvd4Qs8PkxUdp6p/DlUmObdk=",
			inception: "20000101000000", expiration: "20300101000000",
			signature: "kRCOH6u7l0QGy9qpC9l1sLncJcOKFLJ7GhiUOibu4teYp5VE9RncriShZNz85mwlMgNEacFYK/lPtPiVYP4bwg==",
		},
		{
			name: "RFC 5702, 6.2", apex: "example.net.", owner: "www.example.net.", record: "A 192.0.2.91", flags: 256, alg: 10, tag: 3740,
			public:    "AwEAAdHoNTOW+et86KuJOWRDp1pndvwb6Y83nSVXXyLA3DLroROUkN6X0O6pnWnjJQujX/AyhqFDxj13tOnD9u/1kTg7cV6rklMrZDtJCQ5PCl/D7QNPsgVsMu1J2Q8gpMpztNFLpPBz1bWXjDtaR7ZQBlZ3PFY12ZTSncorffcGmhOL",
			inception: "20000101000000", expiration: "20300101000000",
			signature: "tsb4wnjRUDnB1BUi+t6TMTXThjVnG+eCkWqjvvjhzQL1d0YRoOe0CbxrVDYd0xDtsuJRaeUw1ep94PzEWzr0iGYgZBWm/zpq+9fOuagYJRfDqfReKBzMweOLDiNa8iP5g9vMhpuv6OPlvpXwm9Sa9ZXIbNl1MBGk0fthPgxdDLw=",
		},
		{
			name: "RFC 6605, 6.1", apex: "example.net.", owner: "www.example.net.", record: "A 192.0.2.1", flags: 257, alg: 13, tag: 55648,
			public:    "GojIhhXUN/u4v54ZQqGSnyhWJwaubCvTmeexv7bR6edbkrSqQpF64cYbcB7wNcP+e+MAnLr+Wi9xMWyQLc8NAA==",
			private:   "GU6SnQ/Ou+xC5RumuIUIuJZteXT2z0O/ok1s38Et6mQ=",
			inception: "20100812100439", expiration: "20100909100439",
			signature: "qx6wLYqmh+l9oCKTN6qIc+bw6ya+KJ8oMz0YP107epXAyGmt+3SNruPFKG7tZoLBLlUzGGus7ZwmwWep666VCw==",
		},
		{
			name: "RFC 6605, 6.2", apex: "example.net.", owner: "www.example.net.", record: "A 192.0.2.1", flags: 257, alg: 14, tag: 10771,
			public:    "xKYaNhWdGOfJ+nPrL8/arkwf2EY3MDJ+SErKivBVSum1w/egsXvSADtNJhyem5RCOpgQ6K8X1DRSEkrbYQ+OB+v8/uX45NBwY8rp65F6Glur8I/mlVNgF6W/qTI37m40",
			private:   "WURgWHCcYIYUPWgeLmiPY2DJJk02vgrmTfitxgqcL4vwW7BOrbawVmVe0d9V94SR",
			inception: "20100812102025", expiration: "20100909102025",
			signature: "/L5hDKIvGDyI1fcARX3z65qrmPsVz73QD1Mr5CEqOiLP95hxQouuroGCeZOvzFaxsT8Glr74hbavRKayJNuydCuzWTSSPdz7wnqXL5bdcJzusdnI0RSMROxxwGipWcJm",
		},
		{
			name: "RFC 8080, 6.1, first", apex: "example.com.", owner: "example.com.", record: "MX 10 mail.example.com.", flags: 257, alg: 15, tag: 3613,
			public:    "l02Woi0iS8Aa25FQkUd9RMzZHJpBoRQwAQEX1SxZJA4=",
			private:   "ODIyNjAzODQ2MjgwODAxMjI2NDUxOTAyMDQxNDIyNjI=",
			inception: "20150729220000", expiration: "20150819220000",
			signature: "oL9krJun7xfBOIWcGHi7mag5/hdZrKWw15jPGrHpjQeRAvTdszaPD+QLs3fx8A4M3e23mRZ9VrbpMngwcrqNAg==", same: true,
		},
		{
			name: "RFC 8080, 6.1, second", apex: "example.com.", owner: "example.com.", record: "MX 10 mail.example.com.", flags: 257, alg: 15, tag: 35217,
			public:    "zPnZ/QwEe7S8C5SPz2OfS5RR40ATk2/rYnE9xHIEijs=",
			private:   "DSSF3o0s0f+ElWzj9E/Osxw8hLpk55chkmx0LYN5WiY=",
			inception: "20150729220000", expiration: "20150819220000",
			signature: "zXQ0bkYgQTEFyfLyi9QoiY6D8ZdYo4wyUhVioYZXFdT410QPRITQSqJSnzQoSm5poJ7gD7AQR0O7KuI5k2pcBg==", same: true,
		},
		{
			name: "RFC 8080, 6.2, first", apex: "example.com.", owner: "example.com.", record: "MX 10 mail.example.com.", flags: 257, alg: 16, tag: 9713,
			public:    "3kgROaDjrh0H2iuixWBrc8g2EpBBLCdGzHmn+G2MpTPhpj/OiBVHHSfPodx1FYYUcJKm1MDpJtIA",
			private:   "xZ+5Cgm463xugtkY5B0Jx6erFTXp13rYegst0qRtNsOYnaVpMx0Z/c5EiA9x8wWbDDct/U3FhYWA",
			inception: "20150729220000", expiration: "20150819220000",
			signature: "Nmc0rgGKpr3GKYXcB1JmqqS4NYwhmechvJTqVzt3jR+Qy/lSLFoIk1L+9e39GPL+5tVzDPN3f9kAwiu8KCuPPjtl227ayaCZtRKZuJax7n9NuYlZJIusX0SOIOKBGzG+yWYtz1/jjbzl5GGkWvREUCUA", same: true, labels: 3,
		},
		{
			name: "RFC 8080, 6.2, second", apex: "example.com.", owner: "example.com.", record: "MX 10 mail.example.com.", flags: 257, alg: 16, tag: 38353,
			public:    "kkreGWoccSDmUBGAe7+zsbG6ZAFQp+syPmYUurBRQc3tDjeMCJcVMRDmgcNLp5HlHAMy12VoISsA",
			private:   "WEykD3ht3MHkU8iH4uVOLz8JLwtRBSqiBoM6fF72+Mrp/u5gjxuB1DV6NnPO2BlZdz4hdSTkOdOA",
			inception: "20150729220000", expiration: "20150819220000",
			signature: "+JjANio/LIzp7osmMYE5XD3H/YES8kXs5Vb9H8MjPS8OAGZMD37+LsCIcjg5ivt0d4Om/UaqETEAsJjaYe56CEQP5lhRWuD2ivBqE0zfwJTyp4WqvpULbpvaukswvv/WNEFxzEYQEIm9+xDlXj4pMAMA", same: true, labels: 3,
		},
	}
}

func decode64(t *testing.T, s string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// privateKey makes the vector's private key; nil where it has none.
func (v *vector) privateKey(t *testing.T) crypto.Signer {
	if v.private == "" {
		return nil
	}
	raw := decode64(t, v.private)
	switch v.alg {
	case algEd25519:
		return ed25519.NewKeyFromSeed(raw)
	case algEd448:
		return ed448.NewKeyFromSeed(raw)
	}
	curve := elliptic.P256()
	if v.alg == algP384 {
		curve = elliptic.P384()
	}
	k, err := ecdsa.ParseRawPrivateKey(curve, raw)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestRFC_RRSIGVectors(t *testing.T) {
	for _, v := range vectors() {
		t.Run(v.name, func(t *testing.T) {
			dnskey := append([]byte{byte(v.flags >> 8), byte(v.flags), 3, v.alg}, decode64(t, v.public)...)
			key, err := newSigningKey(Key{DNSKEY: dnskey, Signer: v.privateKey(t)})
			if err != nil {
				t.Fatal(err)
			}
			if key.tag != v.tag {
				t.Errorf("tag %d, want %d", key.tag, v.tag)
			}
			when := func(s string) uint32 {
				at, err := time.Parse("20060102150405", s)
				if err != nil {
					t.Fatal(err)
				}
				return uint32(at.Unix())
			}
			z := parse(t, v.apex, v.owner+" 3600 IN "+v.record+"\n")
			itemKey := z.keys()[0]
			_, _, typ, err := zone.SplitKey([]byte(itemKey))
			if err != nil {
				t.Fatal(err)
			}
			owner := []byte(mustName(t, v.owner))
			labels := sigLabelCount(owner)
			if v.labels > 0 {
				labels = v.labels
			}
			message := appendSigPrefix(nil, typ, labels, 3600, when(v.expiration), when(v.inception), mustName(t, v.apex))
			setSigKey(message, key.alg, key.tag)
			message = appendSignedRRs(message, owner, typ, 3600, z[itemKey])
			signed := key.appendSigned(nil, message)
			published := decode64(t, v.signature)
			if err := key.check(signed, published); err != nil {
				t.Errorf("published signature: %v", err)
			}
			published[3] ^= 1
			if key.check(signed, published) == nil {
				t.Error("damaged signature verifies")
			}
			published[3] ^= 1
			if key.signer == nil {
				return
			}
			ours, err := key.appendSignatures(nil, signed, []int{len(signed)})
			if err != nil {
				t.Fatal(err)
			}
			if err := key.check(signed, ours); err != nil {
				t.Errorf("our signature: %v", err)
			}
			if v.same && !bytes.Equal(ours, published) {
				t.Errorf("our signature differs from the published one")
			}
		})
	}
}

// The names of RFC 5155, appendix A.
func TestRFC5155_A_Hashes(t *testing.T) {
	for name, want := range map[string]string{
		"example.":       "0p9mhaveqvm6t7vbl5lop2u3t2rp3tom",
		"a.example.":     "35mthgpgcu1qg68fab165klnsnk3dpvl",
		"ai.example.":    "gjeqe526plbf1g8mklp59enfd789njgi",
		"ns1.example.":   "2t7b4g4vsa5smi47k61mv5bv1a22bojr",
		"ns2.example.":   "q04jkcevqvmu85r014c7dkba38o0ji5r",
		"w.example.":     "k8udemvp1j2f7eg6jebps17vp3n8i58h",
		"*.w.example.":   "r53bq7cc2uvmubfu5ocmm6pers9tk9en",
		"x.w.example.":   "b4um86eghhds6nea196smvmlo4ors995",
		"y.w.example.":   "ji6neoaepv8b5o6k4ev33abha8ht9fgc",
		"x.y.w.example.": "2vptu5timamqttgl4luu9kg21e0aor3s",
		"xx.example.":    "t644ebqk9bibcna874givr6joj62mlhv",
		"2t7b4g4vsa5smi47k61mv5bv1a22bojr.example.": "kohar7mbb8dc2ce8a9qvl8hon4k53uhi",
	} {
		var buf []byte
		hash := nsec3Hash([]byte(mustName(t, name)), []byte{0xaa, 0xbb, 0xcc, 0xdd}, 12, &buf)
		if got := nsec3Encoding().EncodeToString(hash[:]); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// exampleZone is what the zones of RFC 4035 and RFC 5155, appendices A, have
// in common.
const exampleZone = `
example. 3600 IN NS ns1.example.
example. 3600 IN NS ns2.example.
example. 3600 IN MX 1 xx.example.
a.example. 3600 IN NS ns1.a.example.
a.example. 3600 IN NS ns2.a.example.
a.example. 3600 IN DS 57855 5 1 B6DCD485719ADCA18E5F3D48A2331627FDD3636B
ns1.a.example. 3600 IN A 192.0.2.5
ns2.a.example. 3600 IN A 192.0.2.6
ai.example. 3600 IN A 192.0.2.9
ai.example. 3600 IN HINFO "KLH-10" "ITS"
ai.example. 3600 IN AAAA 2001:db8::f00:baa9
ns1.example. 3600 IN A 192.0.2.1
ns2.example. 3600 IN A 192.0.2.2
*.w.example. 3600 IN MX 1 ai.example.
x.w.example. 3600 IN MX 1 xx.example.
x.y.w.example. 3600 IN MX 1 xx.example.
xx.example. 3600 IN A 192.0.2.10
xx.example. 3600 IN HINFO "KLH-10" "TOPS-20"
xx.example. 3600 IN AAAA 2001:db8::f00:baaa
example. 3600 IN SOA ns1.example. bugs.x.w.example. 1 3600 300 3600000 3600
`

// wantLines compares the records of some types, text in any order and case.
func wantLines(t *testing.T, z memZone, typ zone.Type, want string) {
	t.Helper()
	var got []string
	for _, l := range z.lines(t, typ) {
		got = append(got, strings.Join(strings.Fields(l), " "))
	}
	lines := strings.Split(strings.TrimSpace(want), "\n")
	if diff := cmp.Diff(lines, got); diff != "" {
		t.Errorf("%v records differ (-want +got):\n%s", typ, diff)
	}
}

func TestRFC4035_A_SignedZone(t *testing.T) {
	contents := parse(t, "example.", exampleZone+`
b.example. 3600 IN NS ns1.b.example.
b.example. 3600 IN NS ns2.b.example.
ns1.b.example. 3600 IN A 192.0.2.7
ns2.b.example. 3600 IN A 192.0.2.8
`)
	keys := testKeys(t, algP256)
	keys[0].CDS = false
	p := testParams("example.", NSEC)
	z, _ := mustSign(t, contents, keys, p)
	wantLines(t, z, zone.TypeNSEC, `
*.w.example. 3600 in nsec x.w.example. mx rrsig nsec
a.example. 3600 in nsec ai.example. ns ds rrsig nsec
ai.example. 3600 in nsec b.example. a hinfo aaaa rrsig nsec
b.example. 3600 in nsec ns1.example. ns rrsig nsec
example. 3600 in nsec a.example. ns soa mx rrsig nsec dnskey
ns1.example. 3600 in nsec ns2.example. a rrsig nsec
ns2.example. 3600 in nsec *.w.example. a rrsig nsec
x.w.example. 3600 in nsec x.y.w.example. mx rrsig nsec
x.y.w.example. 3600 in nsec xx.example. mx rrsig nsec
xx.example. 3600 in nsec example. a hinfo aaaa rrsig nsec
`)
	// "*.w.example. RRSIG MX 5 2 3600": the asterisk is no label.
	if n := len(z.lines(t, zone.TypeRRSIG)); n != 26 {
		t.Errorf("%d RRSIGs, want 26", n)
	}
	for _, l := range z.lines(t, zone.TypeRRSIG) {
		f := strings.Fields(l)
		if f[0] == "*.w.example." && f[6] != "2" {
			t.Errorf("wildcard's RRSIG counts %s labels", f[6])
		}
	}
	if r := mustVerify(t, z, p, nil); !r.OK() {
		t.Error(r.Err())
	}
}

func TestRFC5155_A_SignedZone(t *testing.T) {
	contents := parse(t, "example.", exampleZone+`
2t7b4g4vsa5smi47k61mv5bv1a22bojr.example. 3600 IN A 192.0.2.127
c.example. 3600 IN NS ns1.c.example.
c.example. 3600 IN NS ns2.c.example.
ns1.c.example. 3600 IN A 192.0.2.7
ns2.c.example. 3600 IN A 192.0.2.8
`)
	keys := testKeys(t, algP256)
	keys[0].CDS = false
	p := testParams("example.", NSEC3OptOut)
	p.Iterations, p.Salt = 12, []byte{0xaa, 0xbb, 0xcc, 0xdd}
	z, _ := mustSign(t, contents, keys, p)
	wantLines(t, z, zone.TypeNSEC3PARAM, "example. 0 in nsec3param 1 0 12 aabbccdd")
	wantLines(t, z, zone.TypeNSEC3, `
0p9mhaveqvm6t7vbl5lop2u3t2rp3tom.example. 3600 in nsec3 1 1 12 aabbccdd 2t7b4g4vsa5smi47k61mv5bv1a22bojr ns soa mx rrsig dnskey nsec3param
2t7b4g4vsa5smi47k61mv5bv1a22bojr.example. 3600 in nsec3 1 1 12 aabbccdd 2vptu5timamqttgl4luu9kg21e0aor3s a rrsig
2vptu5timamqttgl4luu9kg21e0aor3s.example. 3600 in nsec3 1 1 12 aabbccdd 35mthgpgcu1qg68fab165klnsnk3dpvl mx rrsig
35mthgpgcu1qg68fab165klnsnk3dpvl.example. 3600 in nsec3 1 1 12 aabbccdd b4um86eghhds6nea196smvmlo4ors995 ns ds rrsig
b4um86eghhds6nea196smvmlo4ors995.example. 3600 in nsec3 1 1 12 aabbccdd gjeqe526plbf1g8mklp59enfd789njgi mx rrsig
gjeqe526plbf1g8mklp59enfd789njgi.example. 3600 in nsec3 1 1 12 aabbccdd ji6neoaepv8b5o6k4ev33abha8ht9fgc a hinfo aaaa rrsig
ji6neoaepv8b5o6k4ev33abha8ht9fgc.example. 3600 in nsec3 1 1 12 aabbccdd k8udemvp1j2f7eg6jebps17vp3n8i58h
k8udemvp1j2f7eg6jebps17vp3n8i58h.example. 3600 in nsec3 1 1 12 aabbccdd kohar7mbb8dc2ce8a9qvl8hon4k53uhi
kohar7mbb8dc2ce8a9qvl8hon4k53uhi.example. 3600 in nsec3 1 1 12 aabbccdd q04jkcevqvmu85r014c7dkba38o0ji5r a rrsig
q04jkcevqvmu85r014c7dkba38o0ji5r.example. 3600 in nsec3 1 1 12 aabbccdd r53bq7cc2uvmubfu5ocmm6pers9tk9en a rrsig
r53bq7cc2uvmubfu5ocmm6pers9tk9en.example. 3600 in nsec3 1 1 12 aabbccdd t644ebqk9bibcna874givr6joj62mlhv mx rrsig
t644ebqk9bibcna874givr6joj62mlhv.example. 3600 in nsec3 1 1 12 aabbccdd 0p9mhaveqvm6t7vbl5lop2u3t2rp3tom a hinfo aaaa rrsig
`)
	if r := mustVerify(t, z, p, nil); !r.OK() {
		t.Error(r.Err())
	}
}

// RFC 4509, 2.3 (for the key of RFC 4034, 5.4) and RFC 6605, 6.
func TestRFC4509_2_3_DS(t *testing.T) {
	for _, c := range []struct{ owner, key, ds string }{
		{
			"dskey.example.com.", "256 3 5 AQOeiiR0GOMYkDshWoSKz9XzfwJr1AYtsmx3TGkJaNXVbfi/2pHm822aJ5iI9BMzNXxeYCmZDRD99WYwYqUSdjMmmAphXdvxegXd/M5+X7OrzKBaMbCVdFLUUh6DhweJBjEVv5f2wwjM9XzcnOf+EPbtG9DMBmADjFDc2w/rljwvFw==",
			"60485 5 2 D4B7D520E7BB5F0F67674A0CCEB1E3E0614B93C4F9E99B8383F6A1E4469DA50A",
		},
		{
			"example.net.", "257 3 13 GojIhhXUN/u4v54ZQqGSnyhWJwaubCvTmeexv7bR6edbkrSqQpF64cYbcB7wNcP+e+MAnLr+Wi9xMWyQLc8NAA==",
			"55648 13 2 b4c8c1fe2e7477127b27115656ad6256f424625bf5c1e2770ce6d6e37df61d17",
		},
		{
			"example.net.", "257 3 14 xKYaNhWdGOfJ+nPrL8/arkwf2EY3MDJ+SErKivBVSum1w/egsXvSADtNJhyem5RCOpgQ6K8X1DRSEkrbYQ+OB+v8/uX45NBwY8rp65F6Glur8I/mlVNgF6W/qTI37m40",
			"10771 14 4 72d7b62976ce06438e9c0bf319013cf801f09ecc84b8d7e9495f27e305c6a9b0563a9b5f4d288405c3008a946df983d6",
		},
	} {
		z := parse(t, "test.", c.owner+" 60 IN DNSKEY "+c.key+"\n"+c.owner+" 60 IN DS "+c.ds+"\n")
		var ds, key []byte
		for k, v := range z {
			for rdata := range zone.Value(v).Records() {
				if k[len(k)-1] == byte(zone.TypeDS) {
					ds = rdata
				} else {
					key = rdata
				}
			}
		}
		got, err := dsRData(mustName(t, c.owner), key, ds[3])
		if err != nil || !bytes.Equal(got, ds) {
			t.Errorf("%s: %x, want %x (%v)", c.ds[:5], got, ds, err)
		}
	}
}
