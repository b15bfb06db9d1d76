package zone

import (
	"bytes"
	"encoding/base64"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"pgregory.net/rapid"
)

// TestRFC4034_6_1_NameOrder: "the following names are sorted in canonical DNS
// name order".
func TestRFC4034_6_1_NameOrder(t *testing.T) {
	names := []string{
		"example.", "a.example.", "yljkjljk.a.example.", "Z.a.example.", "zABC.a.EXAMPLE.", "z.example.",
		`\001.z.example.`, "*.z.example.", `\200.z.example.`,
	}
	var last []byte
	for _, text := range names {
		n, err := ParseName(text)
		if err != nil {
			t.Fatal(err)
		}
		key := AppendOwnerKey(nil, n)
		if bytes.Compare(last, key) >= 0 {
			t.Errorf("%s does not sort after the name before it", text)
		}
		last = key
	}
}

// TestRFC4034_6_2_CanonicalRData: "all uppercase US-ASCII letters in the DNS
// names contained within the RDATA are replaced".
func TestRFC4034_6_2_CanonicalRData(t *testing.T) {
	for _, tc := range []struct {
		t         Type
		raw, want string
	}{
		{TypeNS, "\x01A\x00", "\x01a\x00"},
		{TypeSOA, "\x01A\x00\x01B\x00CCCCCCCCCCCCCCCCCCCC", "\x01a\x00\x01b\x00CCCCCCCCCCCCCCCCCCCC"},
		{TypeMX, "AA\x01A\x00", "AA\x01a\x00"},
		{Type(dns.TypeSRV), "AAAAAA\x01A\x00", "AAAAAA\x01a\x00"},
		{Type(dns.TypeNAPTR), "AAAA\x01S\x01S\x01S\x01A\x00", "AAAA\x01S\x01S\x01S\x01a\x00"},
		{TypeRRSIG, strings.Repeat("A", 18) + "\x01A\x00SIG", strings.Repeat("A", 18) + "\x01a\x00SIG"},
		{TypeTXT, "\x01A", "\x01A"},
		{TypeNSEC, "\x01A\x00\x00\x01A", "\x01A\x00\x00\x01A"},
		{TypeNS, "\x05A", "\x05A"}, // malformed
	} {
		if got := AppendCanonicalRData(nil, tc.t, []byte(tc.raw)); string(got) != tc.want {
			t.Errorf("%s %q: got %q", tc.t, tc.raw, got)
		}
	}
}

// TestRFC4034_6_3_RDataOrder: "sorted by treating the RDATA portion of the
// canonical form of each RR as a left-justified unsigned octet sequence in
// which the absence of an octet sorts before a zero octet".
func TestRFC4034_6_3_RDataOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		typ := rapid.SampledFrom([]Type{TypeNS, TypeMX, TypeTXT, TypeSOA, TypeRRSIG, Type(dns.TypeNAPTR)}).Draw(t, "type")
		data := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) []byte {
			d := rapid.SliceOfN(rapid.SampledFrom([]byte("aAb\x00\x01\x02")), 0, 20).Draw(t, "head")
			return append(append(d, drawName(t)...), rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(t, "tail")...)
		}), 2, 6).Draw(t, "rdata")
		for _, a := range data {
			for _, b := range data {
				want := bytes.Compare(AppendCanonicalRData(nil, typ, a), AppendCanonicalRData(nil, typ, b))
				if got := CompareRData(typ, a, b); got != want {
					t.Fatalf("%s: %x and %x compare as %d, want %d", typ, a, b, got, want)
				}
			}
		}
		sorted := SortRData(typ, slices.Clone(data))
		for i := 1; i < len(sorted); i++ {
			if CompareRData(typ, sorted[i-1], sorted[i]) >= 0 {
				t.Fatal("not sorted, or a duplicate")
			}
		}
	})
}

// What is malformed is compared as it is, also with what is not.
func TestCompareRData_MalformedBesideWellFormed(t *testing.T) {
	if got := CompareRData(TypeNS, []byte("\x02bA\x00"), []byte("\x02bAa\x00")); got != 1 {
		t.Errorf("compare as %d", got)
	}
}

// canonicalCompare compares names label by label, as RFC 4034, 6.1 says.
func canonicalCompare(a, b Name) int {
	split := func(n Name) [][]byte {
		var labels [][]byte
		for n = n.Fold(); n != Root; n = n.Parent() {
			labels = append(labels, []byte(n[1:1+int(n[0])]))
		}
		slices.Reverse(labels)
		return labels
	}
	return slices.CompareFunc(split(a), split(b), bytes.Compare)
}

func TestOwnerKey_OrderIsThatOfNames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawName(t), drawName(t)
		if rapid.Bool().Draw(t, "related") {
			b = Name(string(b[:len(b)-1]) + string(a))
		}
		if len(b) > MaxNameLength {
			t.Skip()
		}
		ka, kb := AppendOwnerKey(nil, a), AppendOwnerKey(nil, b)
		if got, want := bytes.Compare(ka, kb), canonicalCompare(a, b); got != want {
			t.Fatalf("%s and %s compare as %d, want %d", a, b, got, want)
		}
		if got, want := bytes.HasPrefix(kb, AppendOwnerPrefix(nil, a)), b.Under(a); got != want {
			t.Fatalf("%s has the prefix of %s: %v, want %v", b, a, got, want)
		}
		back, err := NameOfKey(ka)
		if err != nil || back != a.Fold() || !validOwnerKey(ka) {
			t.Fatalf("%s comes back as %s: %v", a, back, err)
		}
		if a.Equal(b) != (canonicalCompare(a, b) == 0) {
			t.Fatalf("Equal(%s, %s) disagrees with the order", a, b)
		}
	})
}

func TestName_TextRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := drawName(t)
		back, err := ParseName(n.String())
		if err != nil || back != n {
			t.Fatalf("%q is written as %s and comes back as %q: %v", n, n, back, err)
		}
		if n != Root {
			rel := strings.TrimSuffix(n.String(), ".")
			at, err := ParseNameAt(rel, "\x01o\x00")
			if err != nil || at != n[:len(n)-1]+"\x01o\x00" {
				t.Fatalf("%s below o. is %q: %v", rel, at, err)
			}
		}
		// miekg/dns packs the text as the same bytes.
		wire := make([]byte, 300)
		off, err := dns.PackDomainName(n.String(), wire, 0, nil, false)
		if err != nil || string(wire[:off]) != string(n) {
			t.Fatalf("miekg/dns packs %s as %q: %v", n, wire[:off], err)
		}
		if n.Labels() != dns.CountLabel(n.String()) {
			t.Fatalf("%s has %d labels", n, n.Labels())
		}
	})
}

func TestParseName_RefusesBadNames(t *testing.T) {
	label := strings.Repeat("a", 63)
	long := strings.Repeat(label+".", 3) + strings.Repeat("a", 61)
	if n, err := ParseName(long); err != nil || len(n) != MaxNameLength {
		t.Errorf("the longest name is refused: %v", err)
	}
	for _, text := range []string{"", "a..b", ".a", "..", label + "a", long + "a", `a\`, `a\25`, `a\256`, `\`} {
		if n, err := ParseName(text); err == nil {
			t.Errorf("%q is read as %q", text, n)
		}
	}
	for _, wire := range []string{"", "\x01", "\x01a", "\x40" + strings.Repeat("a", 64) + "\x00", "\x01a\x00x", "\xc0\x0c", strings.Repeat("\x01a", 128) + "\x00"} {
		if n, err := NameFromWire([]byte(wire)); err == nil {
			t.Errorf("%q is taken as %s", wire, n)
		}
	}
}

func FuzzOwnerKey(f *testing.F) {
	for _, n := range []Name{Root, "\x01a\x00", "\x03\x00\x01\x02\x01*\x00"} {
		f.Add(AppendOwnerKey(nil, n))
	}
	f.Fuzz(func(t *testing.T, key []byte) {
		n, err := NameOfKey(key)
		if valid := validOwnerKey(key); valid != (err == nil && bytes.Equal(AppendOwnerKey(nil, n), key)) {
			t.Fatalf("key %q is valid: %v; name %q, %v", key, valid, n, err)
		}
		if err == nil {
			if _, err := NameFromWire([]byte(n)); err != nil {
				t.Fatalf("key %q gives the name %q: %v", key, n, err)
			}
		}
	})
}

func TestType_TextRoundTrip(t *testing.T) {
	for n := range 1 << 16 {
		typ := Type(n)
		back, ok := ParseType(strings.ToLower(typ.String()))
		if !ok || back != typ {
			t.Fatalf("type %d is written as %s and comes back as %d", n, typ, back)
		}
		if quick, ok := parseTypeText([]byte(typ.String())); !ok || quick != typ || typeText(typ) != typ.String() {
			t.Fatalf("type %d is %s, %s", n, typ, typeText(typ))
		}
	}
	for _, text := range []string{"", "TYPE", "TYPE65536", "TYPE-1", "TYPE1x", "NONE", "X", strings.Repeat("A", 99)} {
		if typ, ok := ParseType(text); ok {
			t.Errorf("%q is read as %s", text, typ)
		}
	}
}

func TestSerial_RFC1982_3_2(t *testing.T) {
	for _, tc := range []struct {
		a, b Serial
		want bool
	}{{0, 1, true}, {1, 0, false}, {1, 1, false}, {0xffffffff, 0, true}, {0, 1 << 31, false}, {1 << 31, 0, false}, {0, 1<<31 - 1, true}} {
		if got := tc.a.Before(tc.b); got != tc.want {
			t.Errorf("%d before %d: %v", tc.a, tc.b, got)
		}
	}
}

func TestRFC4034_B_KeyTag(t *testing.T) {
	// The key of RFC 4034, 5.4 has the tag 60485.
	key, err := base64.StdEncoding.DecodeString("AQOeiiR0GOMYkDshWoSKz9XzfwJr1AYtsmx3TGkJaNXVbfi/2pHm822aJ5iI9BMzNXxeYCmZDRD99WYwYqUSdjMmmAphXdvxegXd/M5+X7OrzKBaMbCVdFLUUh6DhweJBjEVv5f2wwjM9XzcnOf+EPbtG9DMBmADjFDc2w/rljwvFw==")
	if err != nil {
		t.Fatal(err)
	}
	rdata := append([]byte{1, 0, 3, 5}, key...)
	if got := KeyTag(rdata); got != 60485 {
		t.Errorf("tag %d", got)
	}
	rdata[3] = 1 // RFC 4034, B.1: bytes of the modulus
	n := len(rdata)
	if got, want := KeyTag(rdata), uint16(rdata[n-3])<<8|uint16(rdata[n-2]); got != want {
		t.Errorf("tag %d, want %d", got, want)
	}
	if KeyTag([]byte{1, 2}) != 0 || KeyTag([]byte{1, 2, 3, 1, 5}) != 0 {
		t.Error("a short key has a tag")
	}
	if got := KeyID([]byte("abc")); got != "ba7816bf8f01cfea" {
		t.Errorf("ID %s", got)
	}
}
