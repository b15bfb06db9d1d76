package migrate

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/keymgr"
)

// pdnsDatabase is the database of testdata/powerdns, with more done to it.
func pdnsDatabase(t *testing.T, statements ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "powerdns", "pdns.sql"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "pdns.sqlite")
	db, err := sql.Open("sqlite3", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // Exec tells
	for _, s := range append([]string{string(text)}, statements...) {
		if _, err := db.Exec(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
	return path
}

// pdnsConfFile is a pdns.conf whose server answers nothing.
func pdnsConfFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pdns.conf")
	if err := os.WriteFile(path, []byte("local-address=127.0.0.1 # here\nlocal-port=1\n"+text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// pdnsText is what was read, in lines.
func pdnsText(f Former) []string {
	var lines []string
	for _, z := range f.Zones {
		serial := "none"
		if z.Serial != nil {
			serial = fmt.Sprint(*z.Serial)
		}
		lines = append(lines, fmt.Sprintf("%s from %s serial %s to %q: %s", z.Name, z.Source, serial, z.Secondaries, z.Refused))
		for _, k := range z.Keys {
			state, _ := keymgr.ReadLife(k.Life, k.Role, knotNow())
			lines = append(lines, fmt.Sprintf("%s %s %d %d %s", z.Name, k.Role, k.Algorithm, k.Tag, state))
		}
	}
	slices.Sort(lines)
	return lines
}

func TestReadPowerDNS_DatabaseAndPdnsutilSayTheSame(t *testing.T) {
	conf := pdnsConfFile(t, "launch=gsqlite3\ngsqlite3-database="+pdnsDatabase(t)+"\n")
	ofDatabase, err := ReadPowerDNS(context.Background(), conf, Options{Now: knotNow()})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{
		`example.com csk 13 52792 active`,
		`example.com from 127.0.0.1:1 serial 0 to ["127.0.0.1:5300"]: `,
		`example.com zsk 13 24846 published`,
		`sec.example csk 13 16299 active`,
		`sec.example from 192.0.2.7:53,192.0.2.8:5300 serial none to []: `,
		`two.example csk 8 35430 active`,
		`two.example from 127.0.0.1:1 serial 0 to []: `,
	}, pdnsText(ofDatabase)); diff != "" {
		t.Error(diff)
	}
	if len(ofDatabase.TSIG) != 1 || ofDatabase.TSIG[0].Name != "xfr" || ofDatabase.TSIG[0].Algorithm != "hmac-sha256" || len(ofDatabase.TSIG[0].Secret) != 32 {
		t.Errorf("%d TSIG keys", len(ofDatabase.TSIG))
	}
	if told := strings.Join(ofDatabase.Unequal, "\n"); len(ofDatabase.Unequal) != 2 || !strings.Contains(told, "plain.example") || !strings.Contains(told, "serials of 3 zones at 127.0.0.1:1") {
		t.Errorf("unequal %q", ofDatabase.Unequal)
	}
	two := ofDatabase.Zones[slices.IndexFunc(ofDatabase.Zones, func(z Zone) bool { return z.Name == "two.example" })]
	if told := strings.Join(two.Unequal, "\n"); !strings.Contains(told, "Records of type ALIAS (1)") {
		t.Errorf("told %q", told)
	}
	if _, err := Make("powerdns", conf, ofDatabase, Options{Now: knotNow()}); err != nil {
		t.Error(err)
	}

	util, err := filepath.Abs(filepath.Join("testdata", "powerdns", "util"))
	if err != nil {
		t.Fatal(err)
	}
	tool(t, "pdnsutil", fmt.Sprintf(`if [ "$1" = --version ]; then echo "pdnsutil 4.7.3"; exit; fi
shift
exec cat "%s/$(echo "$*" | tr " " -)"
`, util))
	ofUtil, err := ReadPowerDNS(context.Background(), pdnsConfFile(t, "launch=gmysql\n"), Options{Now: knotNow()})
	if err != nil {
		t.Fatal(err)
	}
	// It does not list a zone that has no SOA yet.
	want := slices.DeleteFunc(pdnsText(ofDatabase), func(line string) bool { return strings.HasPrefix(line, "sec.example") })
	if diff := cmp.Diff(want, pdnsText(ofUtil)); diff != "" {
		t.Error(diff)
	}
	for _, p := range ofUtil.Policies {
		if !slices.ContainsFunc(ofDatabase.Policies, func(o Policy) bool { return string(o.Text) == string(p.Text) }) {
			t.Errorf("policy of pdnsutil alone:\n%s", p.Text)
		}
	}
	if ofUtil.Software != "PowerDNS 4.7.3" {
		t.Errorf("software %q", ofUtil.Software)
	}
}

func TestReadPowerDNS_PolicySaysTheSame(t *testing.T) {
	conf := pdnsConfFile(t, "launch=gsqlite3\ngsqlite3-database="+pdnsDatabase(t)+"\n")
	f, err := ReadPowerDNS(context.Background(), conf, Options{Now: knotNow(), Zones: []string{"example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	want := `# From the settings of zones in PowerDNS.

version = "v1"

[key-manager]
cds = "always" # PUBLISH-CDS

[key-manager.csk]
validity = "forever" # PowerDNS exchanges no keys by itself

[key-manager.generation]
algorithm = "ECDSAP256SHA256" # as its keys are
use-csk = true

[key-manager.ksk]
validity = "forever" # PowerDNS exchanges no keys by itself

[key-manager.records]
ttl = "1h" # PowerDNS takes the SOA's minimum

[key-manager.zsk]
validity = "forever" # PowerDNS exchanges no keys by itself

[server.outbound]
provide-xfr-to = ["127.0.0.0/8", "::1", "192.0.2.0/24", "0.0.0.0/0^xfr", "::/0^xfr"]
send-notify-to = ["127.0.0.1:5300"]

[signer]
serial-policy = "date-counter" # SOA-EDIT INCEPTION-INCREMENT

[signer.denial]
iterations = 0 # NSEC3PARAM
type = "nsec3" # NSEC3PARAM
`
	if len(f.Policies) != 1 {
		t.Fatalf("%d policies", len(f.Policies))
	}
	if diff := cmp.Diff(want, string(f.Policies[0].Text)); diff != "" {
		t.Error(diff)
	}
	if told := strings.Join(f.Policies[0].Unequal, "\n"); !strings.Contains(told, "AUTO-NS") {
		t.Errorf("told %q", told)
	}
}

func TestReadPowerDNS_WhatCannotComeIsRefused(t *testing.T) {
	for _, row := range []struct{ statement, refused, told string }{
		{"INSERT INTO domainmetadata(domain_id, kind, content) VALUES (1, 'PRESIGNED', '1')", "signed elsewhere (PRESIGNED)", ""},
		{"UPDATE cryptokeys SET active = 0, published = 0 WHERE domain_id = 1", "none of its keys is active or published", ""},
		{"UPDATE cryptokeys SET content = 'Private-key-format: v1.2\nAlgorithm: 13 (ECDSAP256SHA256)\nEngine: softhsm\nSlot: 1\nPIN: secret99\nLabel: x\n' WHERE id = 1", "on a token", ""},
		{"UPDATE cryptokeys SET content = 'Private-key-format: v1.2\nAlgorithm: 5 (RSASHA1)\nModulus: AA==\n' WHERE id = 1", "algorithm 5 (RSASHA1)", ""},
		{"UPDATE cryptokeys SET content = 'x' WHERE id = 1", "cannot be read: key of ID 1", ""},
		{"INSERT INTO domainmetadata(domain_id, kind, content) VALUES (1, 'NSEC3NARROW', '1')", "", "NSEC3NARROW"},
	} {
		f, err := ReadPowerDNS(context.Background(), pdnsDatabase(t, row.statement), Options{Now: knotNow(), Zones: []string{"example.com"}})
		if err != nil || len(f.Zones) != 1 {
			t.Errorf("%s: %v", row.statement, err)
			continue
		}
		z := f.Zones[0]
		if !strings.Contains(z.Refused, row.refused) || (row.refused == "") != (z.Refused == "") || strings.Contains(z.Refused, "secret99") {
			t.Errorf("%s: refused %q", row.statement, z.Refused)
		}
		if told := strings.Join(f.Policies[0].Unequal, "\n"); !strings.Contains(told, row.told) {
			t.Errorf("%s: told %q", row.statement, told)
		}
	}
}

// A database that its program has open is read with what is in its log, and
// stays as it is.
func TestReadPowerDNS_RunningDatabaseStaysAsItIs(t *testing.T) {
	path := pdnsDatabase(t)
	db, err := sql.Open("sqlite3", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // only read
	db.SetMaxOpenConns(1)
	for _, s := range []string{"PRAGMA journal_mode = wal", "UPDATE domainmetadata SET content = '1 0 5 abcd' WHERE kind = 'NSEC3PARAM'"} {
		if _, err := db.Exec(s); err != nil {
			t.Fatal(err)
		}
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := ReadPowerDNS(context.Background(), path, Options{Now: knotNow(), Zones: []string{"example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	if text := string(f.Policies[0].Text); !strings.Contains(text, "iterations = 5") || !strings.Contains(text, `salt = "abcd"`) {
		t.Errorf("policy:\n%s", text)
	}
	after, err := os.ReadFile(path)
	if err != nil || string(after) != string(before) {
		t.Errorf("the database changed, %v", err)
	}
}

// With keys of both kinds in an algorithm each does its part, else one does all.
func TestPdnsRole_FollowsFromWhatIsActive(t *testing.T) {
	for _, row := range []struct {
		flags      uint16
		sep, nosep bool
		want       keymgr.Role
	}{
		{257, true, false, keymgr.CSK},
		{257, true, true, keymgr.KSK},
		{256, true, true, keymgr.ZSK},
		{256, false, true, keymgr.CSK},
		{256, true, false, keymgr.ZSK}, // the next ZSK beside a key that does all
		{257, false, true, keymgr.KSK},
	} {
		if got := pdnsRole(row.flags, row.sep, row.nosep); got != row.want {
			t.Errorf("flags %d, active %v %v: %s, want %s", row.flags, row.sep, row.nosep, got, row.want)
		}
	}
}

func TestReadPDNSConf_FollowsTheFileAndItsFolder(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"pdns.conf":   "# comment\nlaunch=gsqlite3:main\nallow-axfr-ips=192.0.2.0/24, \\\n  2001:db8::/32\ninclude-dir=more\n",
		"more/a.conf": "gsqlite3-main-database=/var/lib/powerdns/pdns.sqlite3\nallow-axfr-ips+=10.0.0.1\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := readPDNSConf(filepath.Join(dir, "pdns.conf"))
	if err != nil {
		t.Fatal(err)
	}
	if c.sqlite() != "/var/lib/powerdns/pdns.sqlite3" || strings.Join(c.list("allow-axfr-ips"), " ") != "192.0.2.0/24 2001:db8::/32 10.0.0.1" {
		t.Errorf("%q", c)
	}
	if err := (pdnsConf{}).parse("pdns.conf", []byte("\nlaunch\n")); err == nil || !strings.Contains(err.Error(), "pdns.conf:2: want a line") {
		t.Errorf("error %v", err)
	}
}

func FuzzPDNSConf(f *testing.F) {
	f.Add([]byte("launch=gsqlite3\nallow-axfr-ips+=1.2.3.4\n x = y \\\n z # c\n"))
	f.Fuzz(func(_ *testing.T, text []byte) {
		c := pdnsConf{}
		if err := c.parse("pdns.conf", text); err == nil {
			c.sqlite()
			c.list("allow-axfr-ips")
		}
	})
}

func FuzzPDNSUtil(f *testing.F) {
	for _, name := range []string{"show-zone-example.com", "show-zone-sec.example", "get-meta-example.com", "list-zone-two.example"} {
		text, err := os.ReadFile(filepath.Join("testdata", "powerdns", "util", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Fuzz(func(_ *testing.T, text string) {
		z := pdnsZone{live: map[string]int{}, meta: parsePDNSMeta(text)}
		z.records(text)
		_ = z.shown(text)
	})
}
