package zone

import (
	"errors"
	"strings"
	"testing"
)

// zonemdSimple is the zone of RFC 8976, A.1.
const zonemdSimple = `example. 86400 IN SOA ns1 admin 2018031900 ( 1800 900 604800 86400 )
 86400 IN NS ns1
 86400 IN NS ns2
 86400 IN ZONEMD 2018031900 1 1 (
 c68090d90a7aed716bc459f9340e3d7c1370d4d24b7e2fc3a1ddc0b9a87153b9a9713b3c9ae5cc27777f98b8e730044c )
ns1 3600 IN A 203.0.113.63
ns2 3600 IN AAAA 2001:db8::63
`

// zonemdComplex is the zone of RFC 8976, A.2, without its record out of the
// zone, which a load refuses.
const zonemdComplex = `example. 86400 IN SOA ns1 admin 2018031900 ( 1800 900 604800 86400 )
 86400 IN NS ns1
 86400 IN NS ns2
 86400 IN ZONEMD 2018031900 1 1 (
 a3b69bad980a3504e1cffcb0fd6397f93848071c93151f552ae2f6b1711d4bd2d8b39808226d7b9db71e34b72077f8fe )
ns1 3600 IN A 203.0.113.63
NS2 3600 IN AAAA 2001:db8::63
occluded.sub 7200 IN TXT "I'm occluded but must be digested"
sub 7200 IN NS ns1
duplicate 300 IN TXT "I must be digested just once"
duplicate 300 IN TXT "I must be digested just once"
UPPERCASE 3600 IN TXT "canonicalize uppercase owner names"
* 777 IN PTR dont-forget-about-wildcards
mail 3600 IN MX 20 MAIL1
mail 3600 IN MX 10 Mail2.Example.
sortme 3600 IN AAAA 2001:db8::5:61
sortme 3600 IN AAAA 2001:db8::3:62
sortme 3600 IN AAAA 2001:db8::4:63
sortme 3600 IN AAAA 2001:db8::1:65
sortme 3600 IN AAAA 2001:db8::2:64
non-apex 900 IN ZONEMD 2018031900 1 1 (
 616c6c6f776564206275742069676e6f7265642e20616c6c6f776564206275742069676e6f7265642e20616c6c6f7765 )
`

func TestRFC8976_A_DigestsOfTheExamples(t *testing.T) {
	for name, text := range map[string]string{"A.1": zonemdSimple, "A.2": zonemdComplex} {
		l, _, err := loadText(t, text, nil)
		if err != nil || l.ZONEMD != ZONEMDVerified || l.Stripped["ZONEMD"] != 1 {
			t.Errorf("%s: %v", name, err)
		}
		if l, _, err = loadText(t, text, func(o *LoadOptions) { o.KeepSigned = true }); err != nil || l.ZONEMD != ZONEMDUnchecked {
			t.Errorf("%s, kept: %v", name, err)
		}
	}
}

func TestRFC8976_4_Outcomes(t *testing.T) {
	replace := func(old, with string) string { return strings.Replace(zonemdSimple, old, with, 1) }
	other := "2018031900 1 2 " + strings.Repeat("00", 64)
	for _, tc := range []struct {
		name, text string
		want       ZONEMDOutcome
		mismatch   bool
	}{
		{"none", head, ZONEMDAbsent, false},
		{"another address", replace("203.0.113.63", "203.0.113.64"), "", true},
		{"another serial", replace("ZONEMD 2018031900", "ZONEMD 2018031901"), "", true},
		{"another digest", replace("c68090", "c68091"), "", true},
		{"unknown scheme", replace("2018031900 1 1", "2018031900 2 1"), ZONEMDUnsupported, false},
		{"unknown hash", replace("2018031900 1 1", "2018031900 1 3"), ZONEMDUnsupported, false},
		{"one of two matches", zonemdSimple + "example. 86400 IN ZONEMD " + other + "\n", ZONEMDVerified, false},
		{"SHA-512 differs", replace("2018031900 1 1", "2018031900 1 2"), "", true},
		{"two of one scheme and hash", zonemdSimple + "example. 86400 IN ZONEMD 2018031900 1 1 " + strings.Repeat("00", 48) + "\n", ZONEMDUnsupported, false},
		{"a record of the signer's own is missing in the digest", zonemdSimple + "a RRSIG A 13 2 300 20300101000000 20200101000000 1 example. AQ==\n", "", true},
		{"RRSIG of the ZONEMD is left out", zonemdSimple + "example. RRSIG ZONEMD 13 1 300 20300101000000 20200101000000 1 example. AQ==\n", ZONEMDVerified, false},
	} {
		l, _, err := loadText(t, tc.text, nil)
		if errors.Is(err, ErrZONEMD) != tc.mismatch || (!tc.mismatch && (err != nil || l.ZONEMD != tc.want)) {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		if tc.want == ZONEMDUnsupported && len(l.Notices) == 0 {
			t.Errorf("%s: no notice", tc.name)
		}
	}
}
