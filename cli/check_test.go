package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/cli/chain"
)

// The page lists each code of a check with its severity and what to do, in the
// order of the program, and no other.
func TestCheckPage_HasEveryCode(t *testing.T) {
	var want, got []string
	for _, m := range chain.Meanings() {
		want = append(want, strings.Join([]string{"`" + string(m.Code) + "`", string(m.Severity), m.Title, m.Do}, " | "))
	}
	_, text, _ := strings.Cut(page(t, "check"), "| code | severity |")
	for line := range strings.Lines(text) {
		if row, ok := strings.CutPrefix(strings.TrimSpace(line), "| `"); ok {
			got = append(got, strings.TrimSuffix("`"+row, " |"))
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("codes (-program +page):\n%s", diff)
	}
}

func TestParseAnchors_RecordsAndFiles(t *testing.T) {
	const ds = "example. IN DS 31589 8 2 3fdc4c11fa3ad3535ea8c1ce3eaf7bfa5ca9ae8a834d98fee10085cfaeb625aa"
	file := filepath.Join(t.TempDir(), "anchors")
	if err := os.WriteFile(file, []byte("; two of them\n"+ds+"\nexample. 3600 IN DS 1 13 2 (\n 3fdc4c11fa3ad3535ea8c1ce3eaf7bfa5ca9ae8a834d98fee10085cfaeb625aa )\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]int{ds: 1, file: 2, "EXAMPLE. IN ds 31589 8 2 3FDC4C11FA3AD3535EA8C1CE3EAF7BFA5CA9AE8A834D98FEE10085CFAEB625AA": 1} {
		all, err := parseAnchors(text, time.Now())
		if err != nil || len(all) != want || all[0].Zone().String() != "example." {
			t.Errorf("%s: %d anchors: %v", text, len(all), err)
		}
	}
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"none", "example. IN A 192.0.2.1", empty} {
		if _, err := parseAnchors(text, time.Now()); err == nil {
			t.Errorf("%q is an anchor", text)
		}
	}
}

// IANA's file has keys that are no longer, or not yet, valid (RFC 9718, 2).
func TestParseAnchors_RootAnchorsXML(t *testing.T) {
	const text = `<?xml version="1.0" encoding="UTF-8"?>
<TrustAnchor id="380DC50D-484E-40D0-A3AE-68F2B18F61C7" source="http://data.iana.org/root-anchors/root-anchors.xml">
<Zone>.</Zone>
<KeyDigest id="Kjqmt7v" validFrom="2010-07-15T00:00:00+00:00" validUntil="2019-01-11T00:00:00+00:00">
<KeyTag>19036</KeyTag><Algorithm>8</Algorithm><DigestType>2</DigestType>
<Digest>49AAC11D7B6F6446702E54A1607371607A1A41855200FD2CE1CDDE32F24E8FB5</Digest>
</KeyDigest>
<KeyDigest id="Klajeyz" validFrom="2017-02-02T00:00:00+00:00">
<KeyTag>20326</KeyTag><Algorithm>8</Algorithm><DigestType>2</DigestType>
<Digest>E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D</Digest>
<PublicKey>AwEAAaz/tAm8yTn4Mfeh5eyI96WSVexTBAvkMgJzkKTOiW1vkIbzxeF3</PublicKey><Flags>257</Flags>
</KeyDigest>
</TrustAnchor>`
	write := func(text string) string {
		path := filepath.Join(t.TempDir(), "root-anchors.xml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for year, want := range map[int][]string{2026: {"20326"}, 2018: {"19036", "20326"}, 2012: {"19036"}, 2009: nil} {
		all, err := parseAnchors(write(text), time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC))
		var got []string
		for _, a := range all {
			got = append(got, strings.Fields(a.String())[2])
		}
		if diff := cmp.Diff(want, got); diff != "" || (err == nil) != (want != nil) {
			t.Errorf("in %d: %v: %s", year, err, diff)
		}
	}
	for _, bad := range []string{"<TrustAnchor>", "<Other></Other>", strings.Replace(text, "<Digest>E06D", "<Digest>XY6D", 1), strings.Replace(text, "validFrom=\"2017", "validFrom=\"soon", 1)} {
		if _, err := parseAnchors(write(bad), time.Now()); err == nil {
			t.Errorf("%.40q is a file of anchors", bad)
		}
	}
}

func TestParseTypes_ThoseThatCanBeSigned(t *testing.T) {
	if got, err := parseTypes([]string{"mx", "DS", "TYPE65280"}); err != nil || len(got) != 3 {
		t.Errorf("%v %v", got, err)
	}
	for _, word := range []string{"RRSIG", "ANY", "AXFR", "OPT", "none", "TYPE0"} {
		if got, err := parseTypes([]string{word}); err == nil {
			t.Errorf("%s: %v", word, got)
		}
	}
}
