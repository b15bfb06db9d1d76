package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/signer/zone"
)

func TestReadAnchors_Forms(t *testing.T) {
	apex, err := zone.ParseName("example.com")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "anchors")
	for _, test := range []struct {
		name, text string
		want       int // anchors; 0 is an error
	}{
		{"DS", "example.com. IN DS 1 13 2 00ff\n", 1},
		{"DS with TTL and a split digest", "EXAMPLE.com. 3600 IN DS 1 13 2 00 ff ; comment\n\n; more\n", 1},
		{"DNSKEY in parentheses", "example.com. DNSKEY ( 257 3 13 AQID )\n", 1},
		{"two", "example.com. DS 1 13 2 00\nexample.com. DNSKEY 257 3 13 AQID\n", 2},
		{"none", "; nothing\n", 0},
		{"another zone", "example.org. DS 1 13 2 00\n", 0},
		{"another type", "example.com. A 192.0.2.1\n", 0},
		{"no data", "example.com. DS 1 13 2\n", 0},
		{"bad digest", "example.com. DS 1 13 2 0g\n", 0},
		{"bad key", "example.com. DNSKEY 257 3 13 ?\n", 0},
		{"number too large", "example.com. DS 65536 13 2 00\n", 0},
		{"no owner", "DS 1 13 2 00\n", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := readAnchors(path, apex)
			if (err == nil) != (test.want > 0) || len(got) != test.want {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
}

func FuzzParseAnchor(f *testing.F) {
	f.Add("example.com. 3600 IN DS 1 13 2 00ff")
	f.Add("example.com. DNSKEY 257 3 13 AQID")
	f.Fuzz(func(t *testing.T, line string) {
		a, err := parseAnchor(strings.Fields(line), "\x07example\x03com\x00")
		if err == nil && len(a.RData) < 4 {
			t.Errorf("%q: RDATA of %d bytes", line, len(a.RData))
		}
	})
}
