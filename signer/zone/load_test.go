package zone

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

const head = "$TTL 300\n@ SOA ns.example. host.example. 7 2 3 4 60\n@ NS ns.example.\n"

// loadText loads a zone of one file and returns its items as text, one record
// a line, and what Load or the walk had against it.
func loadText(t testing.TB, text string, change func(*LoadOptions)) (*Loaded, []string, error) {
	t.Helper()
	return loadFS(t, fstest.MapFS{"zone": {Data: []byte(text)}}, change)
}

func loadFS(t testing.TB, fsys fstest.MapFS, change func(*LoadOptions)) (*Loaded, []string, error) {
	t.Helper()
	spill := &memSpill{}
	opts := LoadOptions{FS: fsys, File: "zone", Origin: "\x07example\x00", Spill: spill}
	if change != nil {
		change(&opts)
	}
	l, err := Load(context.Background(), opts)
	if err != nil {
		if spill.open != 0 {
			t.Errorf("%d spill files left open", spill.open)
		}
		return nil, nil, err
	}
	var got []string
	for l.Items.Next() {
		got = append(got, itemText(t, l.Items.Key(), l.Items.Value())...)
	}
	err = l.Items.Err()
	if e := l.Close(); e != nil || spill.open != 0 {
		t.Errorf("close: %v, %d spill files left open", e, spill.open)
	}
	return l, got, err
}

// itemText writes an item's records with RDATA in hexadecimal.
func itemText(t testing.TB, key, value []byte) []string {
	t.Helper()
	set, err := RRsetOf(key, value)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, d := range set.Data {
		lines = append(lines, fmt.Sprintf("%x %s %d %s %x", key[0], set.Owner, set.TTL, set.Type, d))
	}
	return lines
}

func wantLoad(t *testing.T, text string, want []string) {
	t.Helper()
	_, got, err := loadText(t, text, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got[2:]); diff != "" {
		t.Error(diff)
	}
}

func TestLoad_Forms(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       []string
	}{
		{"owner left out", "a A 192.0.2.1\n  A 192.0.2.2\n", []string{"10 a.example. 300 A c0000201", "10 a.example. 300 A c0000202"}},
		{"class and TTL in any order", "a 60 IN A 192.0.2.1\nb IN 61 A 192.0.2.1\nc in a 192.0.2.1\n", []string{
			"10 a.example. 60 A c0000201", "10 b.example. 61 A c0000201", "10 c.example. 300 A c0000201",
		}},
		{"TTL units", "a 1h30m A 192.0.2.1\nb 1W2D A 192.0.2.1\n", []string{"10 a.example. 5400 A c0000201", "10 b.example. 777600 A c0000201"}},
		{"Windows line ends", "a A 192.0.2.1\r\n\r\n  A 192.0.2.2 ; x\r\n", []string{"10 a.example. 300 A c0000201", "10 a.example. 300 A c0000202"}},
		{"parentheses and comments", "a MX ( 10 ; (\n  b ) ; c\n", []string{"10 a.example. 300 MX 000a0162076578616d706c6500"}},
		{"quotes", `a TXT "a;b (" c\"d "\065\"" ""` + "\n", []string{"10 a.example. 300 TXT 05613b6220280363226402412200"}},
		{"escaped names", `a\.b\032\065 A 192.0.2.1` + "\n", []string{`10 a\.b\032A.example. 300 A c0000201`}},
		{"case is kept", "aB A 192.0.2.1\nAb A 192.0.2.2\n", []string{"10 aB.example. 300 A c0000201", "10 aB.example. 300 A c0000202"}},
		{"unknown type", "a TYPE65280 \\# 3 01 02ff\n", []string{"10 a.example. 300 TYPE65280 0102ff"}},
		{"known type in unknown form", "a A \\# 4 c0000201\nb TYPE1 192.0.2.1\nc NS \\# 3 016100\n", []string{
			"10 a.example. 300 A c0000201", "10 b.example. 300 A c0000201", "10 c.example. 300 NS 016100",
		}},
		{"identifiers with and without leading zeros", "a NID 10 14:4FFF:0:ee64\nb NID 10 0014:4fff:0000:ee64\nc L64 1 0:0:0:1\n", []string{
			"10 a.example. 300 NID 000a00144fff0000ee64", "10 b.example. 300 NID 000a00144fff0000ee64", "10 c.example. 300 L64 00010000000000000001",
		}},
		{"NAPTR with and without quotes", "a NAPTR 100 10 u \"E2U+sip\" \"!^.*$!sip:a@b!\" .\nb NAPTR 1 2 \"\" \"\" \"\" C\n", []string{
			"10 a.example. 300 NAPTR 0064000a0175074532552b7369700e215e2e2a24217369703a6140622100",
			"10 b.example. 300 NAPTR 000100020000000143076578616d706c6500",
		}},
		{"ISDN with and without a subaddress", "a ISDN 1234\nb ISDN \"1234\" 5\n", []string{"10 a.example. 300 ISDN 0431323334", "10 b.example. 300 ISDN 04313233340135"}},
		{"AMTRELAY keeps its relay whatever its discovery bit", "a AMTRELAY 10 1 1 192.0.2.1\na AMTRELAY 10 0 1 192.0.2.1\nb AMTRELAY 1 1 2 2001:db8::1\nc AMTRELAY 2 1 3 R\nd AMTRELAY 3 1 0 .\n", []string{
			"10 a.example. 300 AMTRELAY 0a01c0000201", "10 a.example. 300 AMTRELAY 0a81c0000201",
			"10 b.example. 300 AMTRELAY 018220010db8000000000000000000000001",
			"10 c.example. 300 AMTRELAY 02830152076578616d706c6500", "10 d.example. 300 AMTRELAY 0380",
		}},
		{"APL with host bits", "a APL 1:192.0.2.1/24 !2:2001:db8::/32 1:0.0.0.0/0\nb APL\n", []string{
			"10 a.example. 300 APL 00011804c000020100022084" + "20010db8" + "00010000", "10 b.example. 300 APL ",
		}},
		{"highest and lowest altitude", "a LOC 1 N 1 E 42849672.95m\na LOC 1 N 1 E -100000m\n", []string{
			"10 a.example. 300 LOC 001216138036ee808036ee8000000000", "10 a.example. 300 LOC 001216138036ee808036ee80ffffffff",
		}},
		{"seconds of a location to the thousandth", "a LOC 20 29 16.159 N 3 E 1m\na LOC 20 29 16.159\tN 95 56 0.001 W 1275.5 1.5m\n", []string{
			"10 a.example. 300 LOC 0012161384656dff6b6a397f009a88be", "10 a.example. 300 LOC 0012161384656dff80a4cb80009896e4",
		}},
		{"GPOS in quotes", "a GPOS \"-32.6882\" 116.8652 \"10.0\"\n", []string{"10 a.example. 300 GPOS 082d33322e363838320831" + "31362e383635320431302e30"}},
		{"byte order mark", "\xef\xbb\xbf" + head + "a A 192.0.2.1\n", []string{"10 a.example. 300 A c0000201"}},
		{"no line end at the end", "a A 192.0.2.1", []string{"10 a.example. 300 A c0000201"}},
		{"$ORIGIN", "$ORIGIN x.example.\na A 192.0.2.1\n$ORIGIN y\na A 192.0.2.1\n", []string{
			"10 a.x.example. 300 A c0000201", "10 a.y.x.example. 300 A c0000201",
		}},
		{"$TTL in the middle", "$TTL 5\na A 192.0.2.1\n$TTL 1d\nb A 192.0.2.1\n", []string{"10 a.example. 5 A c0000201", "10 b.example. 86400 A c0000201"}},
		{"records below cuts and DNAME stay", "c NS a.c\na.c A 192.0.2.1\nd DNAME x.\ne.d A 192.0.2.1\n", []string{
			"10 c.example. 300 NS 01610163076578616d706c6500",
			"10 a.c.example. 300 A c0000201", "10 d.example. 300 DNAME 017800", "10 e.d.example. 300 A c0000201",
		}},
		{"$GENERATE", "$GENERATE 1-3/2 h$ A 192.0.2.$\n$GENERATE 10-10 ${-2,3,d}\\$ 7 IN TXT ${0,2,X}$$\n", []string{
			`10 008\$.example. 7 TXT 03304124`, "10 h1.example. 300 A c0000201", "10 h3.example. 300 A c0000203",
		}},
		{"$GENERATE of a quoted string", `$GENERATE 5-5 c$ TXT "\"h$ x\" y"` + "\n", []string{"10 c5.example. 300 TXT 04683520780179"}},
		{"$GENERATE nibbles", "$GENERATE 18-18 ${0,5,n}.x PTR a.\n", []string{"10 2.1.0.x.example. 300 PTR 016100"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text := tc.text
			if !strings.Contains(text, head) {
				text = head + text
			}
			wantLoad(t, text, tc.want)
		})
	}
}

func TestLoad_RootZone(t *testing.T) {
	text := ". 60 SOA a. b. 1 2 3 4 5\n. NS a.\ncom NS a.com\na.com A 192.0.2.1\n"
	l, got, err := loadText(t, text, func(o *LoadOptions) { o.Origin = Root })
	want := []string{
		"10 . 60 NS 016100", "10 . 60 SOA 01610001620000000001000000020000000300000004" + "00000005",
		"10 com. 60 NS 016103636f6d00", "10 a.com. 60 A c0000201",
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil || l.Apex != Root {
		t.Error(err, diff)
	}
	for _, origin := range []Name{"", "\x01a", "a."} {
		if _, _, err := loadText(t, text, func(o *LoadOptions) { o.Origin = origin }); err == nil {
			t.Errorf("origin %q is not refused", string(origin))
		}
	}
}

func TestLoad_DefaultTTLs(t *testing.T) {
	_, got, err := loadText(t, "@ SOA a. b. 1 2 3 4 60\n@ NS a.\nx 9 A 192.0.2.1\ny A 192.0.2.1\n", nil)
	want := []string{
		"10 example. 60 NS 016100", "10 example. 60 SOA 0161000162000000000100000002000000030000000400" + "00003c",
		"10 x.example. 9 A c0000201", "10 y.example. 9 A c0000201",
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
}

func TestLoad_BadInputIsNamed(t *testing.T) {
	for _, tc := range []struct {
		name, text, want string
	}{
		{"empty", "", "zone: the zone file is empty"},
		{"comments only", "; x\n\n", "zone: the zone file is empty"},
		{"no SOA", "$TTL 1\n@ NS a.\n", "zone: no SOA record at the apex"},
		{"no NS", "@ 1 SOA a. b. 1 2 3 4 5\n", "zone: no NS record at the apex"},
		{"unclosed parenthesis", head + "a MX ( 10\n b\n", "zone:4: parenthesis is never closed: a MX ( 10 b"},
		{"closing parenthesis", head + "a MX 10 b )\n", "zone:4: closing parenthesis without an opening one: a MX 10 b )"},
		{"unclosed quote", head + "a TXT \"x\nb A 192.0.2.1\n", "zone:4: quote is not closed on its line: a TXT \"x"},
		{"NUL byte", head + "a A \x00\n", "zone:4: NUL byte: this is not a zone file"},
		{"control character", head + "a A \x01\n", "zone:4: control character 0x01: a A"},
		{"class CH", head + "a CH A 192.0.2.1\n", `zone:4: class is not IN: "CH": a CH A 192.0.2.1`},
		{"class HS", head + "a HS A 192.0.2.1\n", `zone:4: class is not IN: "HS": a HS A 192.0.2.1`},
		{"class CLASS3", head + "a CLASS3 A 192.0.2.1\n", `zone:4: class is not IN: "CLASS3": a CLASS3 A 192.0.2.1`},
		{"out of zone", head + "a.other. A 192.0.2.1\n", "zone:4: owner is not in the zone: a.other. is not below example.: a.other. A 192.0.2.1"},
		{"name that ends alike", head + "xexample. A 192.0.2.1\n", "zone:4: owner is not in the zone: xexample. is not below example.: xexample. A 192.0.2.1"},
		{"second SOA", head + "@ SOA ns.example. host.example. 8 2 3 4 60\n", "zone:4: a second SOA record: @ SOA ns.example. host.example. 8 2 3 4 60"},
		{"SOA below", head + "a SOA ns.example. host.example. 8 2 3 4 60\n", "zone:4: SOA record below the apex: a SOA ns.example. host.example. 8 2 3 4 60"},
		{"CNAME and other", head + "a CNAME b\na A 192.0.2.1\n", "zone:4: a.example. CNAME: CNAME and other data at one name (RFC 1034, 3.6.2)"},
		{"CNAME and later type", head + "a CNAME b\n\na TXT x\n", "zone:6: a.example. TXT: CNAME and other data at one name (RFC 1034, 3.6.2)"},
		{"two CNAMEs", head + "a CNAME b\na CNAME c\n", "zone:5: a.example. CNAME: more than one record of this type at one name"},
		{"two DNAMEs", head + "a DNAME b\na DNAME c\n", "zone:5: a.example. DNAME: more than one record of this type at one name"},
		{"DNAME at a cut", head + "a NS b\na DNAME c\n", "zone:5: a.example. DNAME: DNAME and NS at one name below the apex (RFC 6672, 2.3)"},
		{"DS at the apex", head + "@ DS 1 13 2 " + strings.Repeat("00", 32) + "\n", "zone:4: DS record at the apex: it belongs to the parent zone: @ DS 1 13 2 " + strings.Repeat("00", 32)},
		{"NXNAME", head + "a NXNAME \\# 0\n", "zone:4: NXNAME: this type cannot stand in a zone: a NXNAME \\# 0"},
		{"OPT", head + "a OPT \\# 0\n", "zone:4: OPT: this type cannot stand in a zone: a OPT \\# 0"},
		{"ANY", head + "a ANY \\# 0\n", "zone:4: ANY: this type cannot stand in a zone: a ANY \\# 0"},
		{"AXFR", head + "a AXFR \\# 0\n", "zone:4: AXFR: this type cannot stand in a zone: a AXFR \\# 0"},
		{"type 0", head + "a TYPE0 \\# 0\n", "zone:4: TYPE0: this type cannot stand in a zone: a TYPE0 \\# 0"},
		{"unknown mnemonic", head + "a FOO 1\n", `zone:4: unknown record type "FOO" (by its number it is understood: TYPE1234 \# ..., RFC 3597): a FOO 1`},
		{"no type", head + "a 60 IN\n", "zone:4: no record type: a 60 IN"},
		{"unknown type as text", head + "a TYPE65280 x\n", "zone:4: TYPE65280: no presentation form is known; write it as \\# (RFC 3597): a TYPE65280 x"},
		{"empty label", head + "a..b A 192.0.2.1\n", "zone:4: owner: empty label: a..b A 192.0.2.1"},
		{"long label", head + strings.Repeat("a", 64) + " A 192.0.2.1\n", "zone:4: owner: label longer than 63 bytes: " + strings.Repeat("a", 64) + " A 192.0.2.1"},
		{"bad escape", head + "a\\300 A 192.0.2.1\n", "zone:4: owner: bad escape: a\\300 A 192.0.2.1"},
		{"bad address", head + "a A 192.0.2.256\n", `zone:4: A: bad address "192.0.2.256": a A 192.0.2.256`},
		{"RDATA ends early", head + "a MX 10\n", "zone:4: MX: RDATA ends early: a MX 10"},
		{"data after RDATA", head + "a A 192.0.2.1 x\n", "zone:4: A: data after the end of the RDATA: a A 192.0.2.1 x"},
		{"TTL too high", head + "a 2147483648 A 192.0.2.1\n", "zone:4: TTL above 2147483647: a 2147483648 A 192.0.2.1"},
		{"no TTL at all", "@ NS a.\n", "zone:1: cannot be read as a record: no TTL, and neither $TTL nor an earlier record gives one"},
		{"no owner", " A 192.0.2.1\n", "zone:1: cannot be read as a record: no owner: there is no record before this one"},
		{"unknown directive", head + "$FOO\n", "zone:4: $FOO: unknown directive: $FOO"},
		{"wrong length of unknown", head + "a TYPE65280 \\# 2 01\n", "zone:4: TYPE65280: the length after \\# is not that of the data: 2 and 1: a TYPE65280 \\# 2 01"},
		{"bad RDATA of a known type", head + "a NS \\# 2 0161\n", "zone:4: NS: RDATA is not valid for its type: a NS \\# 2 0161"},
		{"RDATA longer than its length can say", head + "a TYPE65280 \\# 65536 01\n", "zone:4: TYPE65280: RDATA longer than 65535 bytes: a TYPE65280 \\# 65536 01"},
		{"NS at a wildcard", head + "a NS a\n*.a NS a\n", "zone:5: *.a.example. NS: NS records at a wildcard (RFC 4592, 4.2): BIND refuses the zone"},
		{"no fields at all", head + "a RP\n", "zone:4: RP: RDATA is not valid for its type: a RP"},
		{"mandatory key missing", head + "a HTTPS 1 . mandatory=alpn port=1\n", "zone:4: HTTPS: a key that mandatory lists is missing (RFC 9460, 8): alpn: a HTTPS 1 . mandatory=alpn port=1"},
		{"three groups", head + "a NID 1 1:2:3\n", `zone:4: NID: want four groups of one to four hexadecimal digits (RFC 6742), not "1:2:3": a NID 1 1:2:3`},
		{"five groups", head + "a NID 1 1:2:3:4:5\n", `zone:4: NID: want four groups of one to four hexadecimal digits (RFC 6742), not "1:2:3:4:5": a NID 1 1:2:3:4:5`},
		{"group of five digits", head + "a L64 1 1:2:3:00004\n", `zone:4: L64: want four groups of one to four hexadecimal digits (RFC 6742), not "1:2:3:00004": a L64 1 1:2:3:00004`},
		{"empty group", head + "a L64 1 1::3:4\n", `zone:4: L64: want four groups of one to four hexadecimal digits (RFC 6742), not "1::3:4": a L64 1 1::3:4`},
		{"group cut short", head + "a L64 1 1:2:3:\n", `zone:4: L64: want four groups of one to four hexadecimal digits (RFC 6742), not "1:2:3:": a L64 1 1:2:3:`},
		{"AMTRELAY without its relay", head + "a AMTRELAY 1 1 1 .\n", `zone:4: AMTRELAY: bad address ".": a AMTRELAY 1 1 1 .`},
		{"AMTRELAY with one too many", head + "a AMTRELAY 1 1 0 a\n", `zone:4: AMTRELAY: where the relay type is 0, the relay is . and not "a": a AMTRELAY 1 1 0 a`},
		{"AMTRELAY of another type", head + "a AMTRELAY 1 1 4 a\n", `zone:4: AMTRELAY: bad relay type (RFC 8777, 4.2) "4": a AMTRELAY 1 1 4 a`},
		{"APL of another family", head + "a APL 2:192.0.2.0/24\n", `zone:4: APL: bad address prefix; it is [!]family:address/length, family 1 or 2 (RFC 3123) "2:192.0.2.0/24": a APL 2:192.0.2.0/24`},
		{"HINFO of one string", head + "a HINFO \"PC Linux\"\n", `zone:4: HINFO: RDATA ends early: a HINFO "PC Linux"`},
		{"X25 with a letter", head + "a X25 123a\n", "zone:4: X25: X.25 address is not one string of at least four digits (RFC 1183, 3.1): a X25 123a"},
		{"altitude too high", head + "a LOC 42 N 71 W 42849673m\n", `zone:4: LOC: altitude is not within -100000.00m and 42849672.95m (RFC 1876, 2): "42849673m": a LOC 42 N 71 W 42849673m`},
		{"CAA tag with a hyphen", head + "a CAA 0 is-sue x\n", `zone:4: CAA: tag is not letters and digits (RFC 8659, 4.1): "is-sue": a CAA 0 is-sue x`},
		{"SSHFP cut short", head + "a SSHFP 4 2 1234\n", "zone:4: SSHFP: digest has the wrong length for its type: 2 bytes of type 2: a SSHFP 4 2 1234"},
		{"CERT without a certificate", head + "a CERT 1 0 0\n", "zone:4: CERT: RDATA is not valid for its type: no data: a CERT 1 0 0"},
		{"a cause that the library loses", head + "a SVCB 1 . port=70000\n", `zone:4: SVCB: bad RDATA: the value does not fit its field: "port=70000": a SVCB 1 . port=70000`},
		{"missing file", head + "\n$INCLUDE sub/hosts\n", "zone:5: $INCLUDE: open sub/hosts: file does not exist: $INCLUDE sub/hosts"},
		{"$GENERATE too many", head + "$GENERATE 0-2000000 a$ A 192.0.2.1\n", fmt.Sprintf("zone:4: $GENERATE: %v: $GENERATE 0-2000000 a$ A 192.0.2.1", errGenerateRange)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, _, err := loadText(t, tc.text, nil)
			var le *LoadError
			if !errors.As(err, &le) {
				t.Fatalf("got %v", err)
			}
			if got := le.Errors[0].Error(); got != tc.want || le.Total != 1 {
				t.Errorf("%d errors\n got %s\nwant %s", le.Total, got, tc.want)
			}
		})
	}
}

// RFC 9460, 2.4.3: "Zone-file implementations SHOULD enforce self-consistency."
func TestRFC9460_2_4_3_ServiceAgreesWithItself(t *testing.T) {
	for text, want := range map[string]error{
		"1 . alpn=h2 no-default-alpn":            nil,
		"1 . mandatory=port,alpn alpn=h2 port=1": nil,
		"0 a.example.":                           nil,
		"0 a.example. alpn=h2":                   errServiceAlias,
		"1 . mandatory=alpn":                     errServiceMissing,
		"1 . mandatory=port,key7 alpn=h2 port=1": errServiceMandatory,
		"1 . mandatory=key800 port=1":            errServiceMissing,
		"1 . mandatory=alpn,alpn alpn=h2":        errServiceMandatory,
		"1 . mandatory=mandatory alpn=h2":        errServiceMandatory,
		"1 . no-default-alpn":                    errServiceDefault,
		"1 . no-default-alpn port=1":             errServiceDefault,
		`1 . alpn=""`:                            errServiceALPN,
	} {
		for _, typ := range []string{"SVCB", "HTTPS"} {
			if _, _, err := loadText(t, head+"a "+typ+" "+text+"\n", nil); !errors.Is(err, want) {
				t.Errorf("%s %s: got %v, want %v", typ, text, err, want)
			}
		}
	}
}

func TestLoad_RecordsMustFitIntoAMessage(t *testing.T) {
	// Header 12, question 9 + 4, owner 11, fixed fields 10.
	const longest = 0xffff - 12 - 13 - 11 - 10
	for n, want := range map[int]error{longest: nil, longest + 1: errRecordLong, 0xffff: errRecordLong, 0x10000: errRDataLong} {
		text := fmt.Sprintf("%sa TYPE65280 \\# %d %s\n", head, n, strings.Repeat("00", n))
		_, got, err := loadText(t, text, nil)
		if !errors.Is(err, want) || err == nil && len(got) != 3 {
			t.Errorf("RDATA of %d bytes: %v", n, err)
		}
		c, err := NewReceiver(t.Context(), LoadOptions{File: "peer", Origin: mustName(t, "example."), Spill: &memSpill{}})
		if err != nil {
			t.Fatal(err)
		}
		add := func(owner string, typ Type, rdata string) {
			if err := c.Add([]byte(mustName(t, owner)), typ, 60, []byte(rdata)); err != nil {
				t.Fatal(err)
			}
		}
		add("example.", TypeSOA, "\x00\x00"+strings.Repeat("\x00", 20))
		add("example.", TypeNS, "\x00")
		add("a.example.", Type(65280), strings.Repeat("\x00", n))
		l, err := c.Finish()
		if !errors.Is(err, want) {
			t.Errorf("received RDATA of %d bytes: %v", n, err)
		}
		if err == nil {
			l.Close()
		}
	}
}
