package migrate

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/keymgr"
	"sluice/pipeline"
)

// odsFolder copies what was recorded of a real OpenDNSSEC 2.1.12 to a folder of
// the test, with paths of that folder, and makes the database of it.
func odsFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	err := filepath.WalkDir("testdata/opendnssec", func(path string, d os.DirEntry, err error) error {
		if err != nil || path == "testdata/opendnssec" {
			return err
		}
		name, err := filepath.Rel("testdata/opendnssec", path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.Mkdir(filepath.Join(dir, name), 0o755)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, name), []byte(strings.ReplaceAll(string(text), "/etc/opendnssec", dir)), 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile(filepath.Join(dir, "kasp.sql"))
	if err != nil {
		t.Fatal(err)
	}
	execODS(t, dir, string(script))
	return dir
}

// execODS changes the database of a folder.
func execODS(t *testing.T, dir, script string) {
	t.Helper()
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(dir, "kasp.db"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), script); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// recordedAt is shortly after the database was recorded.
func recordedAt(t *testing.T, dir string) time.Time {
	t.Helper()
	db, err := readODSDB(t.Context(), filepath.Join(dir, "kasp.db"))
	if err != nil {
		t.Fatal(err)
	}
	var last int64
	for _, z := range db.zones {
		for _, k := range z.keys {
			for _, r := range k.records {
				last = max(last, r.since)
			}
		}
	}
	return time.Unix(last, 0).UTC().Add(2 * time.Second)
}

// told is keys in a line each.
func told(z Zone, now time.Time) (out []string) {
	for _, k := range z.Keys {
		state, _ := keymgr.ReadLife(k.Life, k.Role, now)
		out = append(out, fmt.Sprintf("%s %d algorithm %d %s, keystore %s", k.Role, k.Tag, k.Algorithm, state, k.Keystore))
	}
	slices.Sort(out)
	return out
}

func readODSFolder(t *testing.T, dir string, zones ...string) (Former, error) {
	t.Helper()
	return ReadOpenDNSSEC(t.Context(), dir, Options{Now: recordedAt(t, dir), Zones: zones})
}

func TestODSDuration(t *testing.T) {
	for text, want := range map[string]int64{
		"PT3600S": 3600, "P14D": 14 * 86400, "P1Y": 365 * 86400, "P1M": 31 * 86400, "P3Y6M4DT12H30M5S": 3*365*86400 + 6*31*86400 + 4*86400 + 12*3600 + 30*60 + 5,
		"P1W": 7 * 86400, "PT0S": 0, "PT1M": 60,
	} {
		if got, err := parseODSDuration(text); err != nil || got != want {
			t.Errorf("%s is %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "P", "PT", "3600", "P1H", "PT1D", "P1D2Y", "PT1S1M", "P-1D", "P1DT", "P99Y", "P1", "PTT1S", "P99999999999D"} {
		if got, err := parseODSDuration(text); err == nil {
			t.Errorf("%q is %d", text, got)
		}
	}
	for n, want := range map[int64]string{0: "0s", 3600: "1h", 90061: "1d1h1m1s", 86400: "1d"} {
		if got := odsDuration(n); got != want {
			t.Errorf("%d is written %s", n, got)
		}
		if d, err := pipeline.ParseDuration(odsDuration(n)); err != nil || int64(d.Seconds()) != n {
			t.Errorf("%d is read back as %v, %v", n, d, err)
		}
	}
}

func FuzzODSDuration(f *testing.F) {
	f.Add("P1Y2M3DT4H5M6S")
	f.Fuzz(func(t *testing.T, text string) {
		if n, err := parseODSDuration(text); err == nil && (n < 0 || n > 1<<31-1) {
			t.Errorf("%q is %d", text, n)
		}
	})
}

// FuzzODSFiles: whatever stands in a file, it is an error or a policy that can be
// read.
func FuzzODSFiles(f *testing.F) {
	for _, name := range []string{"kasp.xml", "conf.xml", "b.com.xml", "zonelist.xml"} {
		if text, err := os.ReadFile(filepath.Join("testdata/opendnssec", name)); err == nil {
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var k odsKASP
		if parseODS("kasp.xml", text, &k) == nil {
			if policies, err := k.policies("kasp.xml"); err == nil {
				for name, p := range policies {
					written, _, refused := odsPolicyText(p, &odsConf{}, odsServing{})
					if _, err := pipeline.Parse("p", written); refused == "" && err != nil && p.name == name {
						t.Errorf("%s\n%v", written, err)
					}
				}
			}
		}
		c := &odsConf{}
		if parseODS("conf.xml", text, c) == nil {
			_, _ = c.listener() // no panic is all that is asked
		}
		a := &odsAdapter{}
		if parseODS("addns.xml", text, a) == nil {
			_, _ = a.peers(a.Provide)
			_, _ = a.keys()
			for _, r := range a.Notify {
				_, _ = a.server(r)
			}
		}
	})
}

func TestODSKey_StandsAsItsRecordsDo(t *testing.T) {
	const now = 1_800_000_000
	p := &odsPolicy{keyTTL: 3600, keys: []odsPolicyKey{{role: odsZSK, lifetime: 7776000}, {role: odsKSK, lifetime: 31536000, manual: true}}}
	records := func(ds, rrsig, dnskey, keysig int64) (out [odsRecords]odsRecord) {
		for i, state := range []int64{ds, rrsig, dnskey, keysig} {
			out[i] = odsRecord{state: state, since: now - 100, ttl: 3600, there: true}
		}
		return out
	}
	const h, r, o, u, na = odsHidden, odsRumoured, odsOmnipresent, odsUnretentive, odsNA
	for _, row := range []struct {
		name    string
		key     odsKey
		state   keymgr.State
		dead    bool
		pub     int64
		active  int64
		retired int64
	}{
		{"a ZSK in use", odsKey{role: odsZSK, introducing: true, records: records(na, o, o, na)}, keymgr.Active, false, now - 5000, now - 5000, 0},
		{"a ZSK that comes", odsKey{role: odsZSK, introducing: true, records: records(na, h, r, na)}, keymgr.Published, false, now - 100, 0, 0},
		{"one that has come", odsKey{role: odsZSK, introducing: true, records: records(na, h, o, na)}, keymgr.Published, false, now - 5000, 0, 0},
		{"one that begins to sign", odsKey{role: odsZSK, introducing: true, records: records(na, r, o, na)}, keymgr.Active, false, now - 5000, now - 100, 0},
		{"one that ends to", odsKey{role: odsZSK, records: records(na, u, o, na)}, keymgr.Retired, false, now - 5000, now - 5000, now - 100},
		{"one whose signatures are gone", odsKey{role: odsZSK, records: records(na, h, o, na)}, keymgr.Published, false, now - 5000, 0, 0},
		{"one that goes", odsKey{role: odsZSK, records: records(na, h, u, na)}, keymgr.Removed, false, now - 5000, 0, 0},
		{"one that is gone", odsKey{role: odsZSK, records: records(na, h, h, na)}, keymgr.Removed, true, now - 5000, 0, 0},
		{"one that waits", odsKey{role: odsZSK, introducing: true, records: records(na, h, h, na)}, keymgr.Generated, false, 0, 0, 0},
		{"a KSK in use", odsKey{role: odsKSK, introducing: true, dsAtParent: odsDSSeen, records: records(o, na, o, o)}, keymgr.Active, false, now - 5000, now - 5000, 0},
		{"a KSK that comes", odsKey{role: odsKSK, introducing: true, records: records(h, na, r, r)}, keymgr.Active, false, now - 100, now - 100, 0},
		{"a KSK whose DS goes", odsKey{role: odsKSK, dsAtParent: odsDSRetracted, records: records(u, na, o, o)}, keymgr.Active, false, now - 5000, now - 5000, 0},
		{"a KSK that goes", odsKey{role: odsKSK, records: records(h, na, u, u)}, keymgr.Removed, false, now - 5000, now - 5000, 0},
		{"a KSK whose DS comes first", odsKey{role: odsKSK, introducing: true, dsAtParent: odsDSSubmitted, records: records(r, na, h, h)}, keymgr.Active, false, 0, 0, 0},
		{"a CSK in use", odsKey{role: odsCSK, introducing: true, dsAtParent: odsDSSeen, records: records(o, o, o, o)}, keymgr.Active, false, now - 5000, now - 5000, 0},
		{"a key that the enforcer has not looked at", odsKey{role: odsZSK, introducing: true}, keymgr.Generated, false, 0, 0, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			row.key.inception, row.key.made = now-5000, now-9000
			l := row.key.life(p)
			state, _ := keymgr.ReadLife(l, odsRole(row.key.role), time.Unix(now, 0))
			if state != row.state || row.key.dead() != row.dead {
				t.Errorf("state %s, dead %v, want %s, %v", state, row.key.dead(), row.state, row.dead)
			}
			if diff := cmp.Diff([]int64{row.pub, row.active, row.retired, now - 9000}, []int64{l.Published, l.Activated, l.Retired, l.Created}); diff != "" {
				t.Errorf("published, activated, retired, created (-want +got):\n%s", diff)
			}
			if want := map[int64]uint64{odsZSK: 7776000}[row.key.role]; l.Lifetime != want || l.TTL != 3600 {
				t.Errorf("lifetime %d, TTL %d", l.Lifetime, l.TTL)
			}
			wantDS := map[int64]int64{odsDSSeen: now - 100}[row.key.dsAtParent]
			wantGone := map[int64]int64{odsDSRetracted: now - 100}[row.key.dsAtParent]
			if l.DSPublished != wantDS || l.DSRemoved != wantGone {
				t.Errorf("DS published %d, removed %d", l.DSPublished, l.DSRemoved)
			}
		})
	}
}

func TestODSConf_SaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	for _, row := range []struct{ name, text, want string }{
		{"no XML", "hello", ":1: EOF"},
		{"another file", "<KASP/>", "expected element type <Configuration> but have <KASP>"},
		{"an open element", "<Configuration>\n<Common>\n</Configuration>", "conf.xml:3: element <Common> closed by </Configuration>"},
		{"MySQL", "<Configuration><Enforcer><Datastore><MySQL><Host>x</Host></MySQL></Datastore></Enforcer></Configuration>", "convert_mysql_to_sqlite"},
		{"no database", "<Configuration></Configuration>", "no <SQLite>"},
		{"no policies", "<Configuration><Enforcer><Datastore><SQLite>kasp.db</SQLite></Datastore></Enforcer></Configuration>", "no <PolicyFile>"},
	} {
		t.Run(row.name, func(t *testing.T) {
			path := filepath.Join(dir, "conf.xml")
			if err := os.WriteFile(path, []byte(row.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := readODSConf(dir); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error %v, want %q in it", err, row.want)
			}
		})
	}
	if _, err := readODSConf(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such folder: %v", err)
	}
}

func TestODSKASP_NamesTheLine(t *testing.T) {
	const good = `<KASP><Policy name="p"><Signatures>
<Resign>PT2H</Resign></Signatures>
<Keys><KSK><Algorithm length="2048">8</Algorithm><Lifetime>P1Y</Lifetime><Repository>r</Repository>
<KskRollType>KskDoubleDS</KskRollType></KSK></Keys>
<Zone><SOA><Serial>unixtime</Serial></SOA></Zone></Policy></KASP>`
	read := func(text string) (map[string]*odsPolicy, error) {
		var k odsKASP
		if err := parseODS("kasp.xml", []byte(text), &k); err != nil {
			return nil, err
		}
		return k.policies("kasp.xml")
	}
	policies, err := read(good)
	if p := policies["p"]; err != nil || p.resign != 7200 || p.serial != 2 || len(p.keys) != 1 || p.keys[0].minimize != odsMinimizeDNSKEY || p.maxTTL != 86400 {
		t.Fatalf("read as %+v, %v", policies["p"], err)
	}
	for _, row := range []struct{ old, new, want string }{
		{"PT2H", "2h", `kasp.xml:2: <Resign>: duration "2h"`},
		{"P1Y", "P1X", `kasp.xml:3: <Lifetime>: duration "P1X"`},
		{"unixtime", "random", `kasp.xml:5: <Serial> "random"`},
		{"KskDoubleDS", "KskTriple", `kasp.xml:4: "KskTriple" is no way`},
		{">8<", ">eight<", `kasp.xml:3: <Algorithm> "eight" is no number`},
		{"</KASP>", `<Policy name="p"><Zone><SOA><Serial>keep</Serial></SOA></Zone></Policy></KASP>`, `policy "p" stands twice`},
	} {
		if _, err := read(strings.Replace(good, row.old, row.new, 1)); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: error %v, want %q in it", row.new, err, row.want)
		}
	}
}

// A policy that is written twice, for zones that are served otherwise, takes no
// other policy's name.
func TestODSPolicies_HaveNamesOfTheirOwn(t *testing.T) {
	dir := odsFolder(t)
	execODS(t, dir, "UPDATE policy SET name = 'lab-2' WHERE name != 'default'; UPDATE policy SET name = 'lab' WHERE name = 'default'")
	conf, err := readODSConf(dir)
	if err != nil {
		t.Fatal(err)
	}
	db, err := readODSDB(t.Context(), conf.at(conf.Enforcer.SQLite.text))
	if err != nil {
		t.Fatal(err)
	}
	r := &odsReading{conf: conf, db: db, policies: map[string]*odsMade{}}
	seen := map[string]bool{}
	for _, name := range []string{"lab", "lab", "lab-2"} {
		for _, p := range db.policies {
			if p.name != name {
				continue
			}
			made := r.policy(p, odsServing{provide: []string{fmt.Sprintf("192.0.2.%d", len(seen))}})
			if made.refused != "" || seen[made.name] {
				t.Errorf("policy %s is called %q, as another one is; refused %q", name, made.name, made.refused)
			}
			seen[made.name] = true
		}
	}
	if len(seen) != 3 || len(r.made.list) != 3 {
		t.Errorf("policies %v", seen)
	}
}

func TestODSKeystoreName(t *testing.T) {
	for name, want := range map[string]string{"SoftHSM": "softhsm", "My HSM 2": "my-hsm-2", "--": "opendnssec", "file": "opendnssec", "": "opendnssec", strings.Repeat("a", 40): strings.Repeat("a", 32)} {
		if got := odsKeystoreName(name); got != want {
			t.Errorf("%q is called %q, want %q", name, got, want)
		}
	}
}

func TestODSAdapter_NamesTheLine(t *testing.T) {
	a := &odsAdapter{path: "addns.xml"}
	text := `<Adapter><DNS>
<TSIG><Name>Key.Example.</Name><Algorithm>hmac-md5.sig-alg.reg.int</Algorithm><Secret>c2Vj
cmV0</Secret></TSIG>
<Inbound><RequestTransfer><Remote><Address>192.0.2.1</Address><Port>5353</Port><Key>Key.Example.</Key></Remote>
<Remote><Address>2001:db8::1</Address></Remote></RequestTransfer></Inbound>
<Outbound><ProvideTransfer><Peer><Prefix>192.0.2.0/24</Prefix><Key>key.example</Key></Peer><Peer><Key>key.example</Key></Peer></ProvideTransfer></Outbound>
</DNS></Adapter>`
	if err := parseODS("addns.xml", []byte(text), a); err != nil {
		t.Fatal(err)
	}
	var servers []string
	for _, r := range a.Request {
		one, err := a.server(r)
		if err != nil {
			t.Fatal(err)
		}
		servers = append(servers, odsWithKey(one, r.Key))
	}
	peers, err := a.peers(a.Provide)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := a.keys()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"192.0.2.1:5353^key.example", "2001:db8::1"}, servers); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"192.0.2.0/24^key.example", "0.0.0.0/0^key.example", "::/0^key.example"}, peers); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]TSIGKey{{"key.example", "hmac-md5", []byte("secret")}}, keys); diff != "" {
		t.Error(diff)
	}
	for _, row := range []struct{ old, new, want string }{
		{"192.0.2.1<", "ns1.example<", "addns.xml:4: <Address>"},
		{"5353", "99999", `addns.xml:4: <Port> "99999" is none`},
		{"192.0.2.0/24", "192.0.2.1/24", "addns.xml:6: <Prefix>"},
		{"c2Vj", "!", "addns.xml:2: <Secret> of TSIG key"},
	} {
		a := &odsAdapter{path: "addns.xml"}
		if err := parseODS("addns.xml", []byte(strings.Replace(text, row.old, row.new, 1)), a); err != nil {
			t.Fatal(err)
		}
		_, err := a.server(a.Request[0])
		_, peersErr := a.peers(a.Provide)
		_, keysErr := a.keys()
		if got := fmt.Sprint(errors.Join(err, peersErr, keysErr)); !strings.Contains(got, row.want) {
			t.Errorf("%s: error %s, want %q in it", row.new, got, row.want)
		}
	}
}

func TestReadOpenDNSSEC_AsItWasRecorded(t *testing.T) {
	dir := odsFolder(t)
	f, err := readODSFolder(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	now := recordedAt(t, dir)
	if len(f.Zones) != 2 {
		t.Fatalf("zones %+v", f.Zones)
	}
	a, b := f.Zones[0], f.Zones[1]
	for _, row := range []struct {
		zone                 Zone
		name, source, policy string
		serial               uint32
		keys                 []string
	}{
		{a, "a.com", filepath.Join(dir, "unsigned"), "opendnssec-default", 1795377460, []string{
			"ksk 41387 algorithm 8 active, keystore softhsm", "zsk 63400 algorithm 8 active, keystore softhsm",
		}},
		{b, "b.com", "127.0.0.1:5998", "ecdsa", 107, []string{
			"ksk 62606 algorithm 13 active, keystore softhsm", "zsk 30217 algorithm 13 published, keystore softhsm", "zsk 42613 algorithm 13 active, keystore softhsm",
		}},
	} {
		z := row.zone
		if z.Name != row.name || z.Source != row.source || z.Policy != row.policy || z.Refused != "" || z.Primary != "127.0.0.1:15354" ||
			!slices.Equal(z.Secondaries, []string{"127.0.0.1:5999"}) {
			t.Errorf("zone %+v", z)
		}
		if z.Serial == nil || *z.Serial < row.serial {
			t.Errorf("%s: serial %v, want %d", z.Name, z.Serial, row.serial)
		}
		if diff := cmp.Diff(row.keys, told(z, now)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", z.Name, diff)
		}
		if !slices.ContainsFunc(z.Notes, func(n string) bool { return strings.Contains(n, "taken from what the signer published") }) {
			t.Errorf("%s: notes %q do not say where the public keys are from", z.Name, z.Notes)
		}
	}
	// The ZSK that comes is rumoured since it was published.
	for _, k := range b.Keys {
		if k.Tag != 30217 {
			continue
		}
		if k.ID != "110d2db3c6886075760059991c885810" || k.Life.Published != 1795377463 || k.Life.DNSKEY.State != "rumoured" || k.Life.Goal != "omnipresent" || k.Life.Activated != 0 {
			t.Errorf("key %+v, life %+v", k, k.Life)
		}
	}
	for _, k := range a.Keys {
		if k.Role == keymgr.KSK && (k.Life.DS.State != "omnipresent" || k.Life.DSPublished != k.Life.DS.Since || k.Life.Lifetime != 365*86400) {
			t.Errorf("life %+v", k.Life)
		}
	}
	if len(f.Keystores) != 1 || f.Keystores[0].Name != "softhsm" || f.Keystores[0].Token != "zones" || string(f.Keystores[0].PIN) != "2718281828" {
		t.Errorf("keystores %+v", f.Keystores)
	}
	for _, p := range f.Policies {
		policy, err := pipeline.Parse(p.Name, p.Text)
		if err != nil {
			t.Fatal(err)
		}
		for _, role := range []keymgr.Role{keymgr.KSK, keymgr.ZSK} {
			if in, _ := policy.Keystore(role); in != "softhsm" {
				t.Errorf("policy %s makes keys in %q", p.Name, in)
			}
		}
		if want := map[string]uint8{"opendnssec-default": 8, "ecdsa": 13}[p.Name]; policy.Algorithm() != want {
			t.Errorf("policy %s has algorithm %d", p.Name, policy.Algorithm())
		}
	}
	if all := fmt.Sprint(f.Unequal, f.Stop, f.Back, f.Policies[0].Unequal, a.Notes); strings.Contains(all, "2718281828") {
		t.Errorf("the PIN stands in %s", all)
	}
}

func TestReadOpenDNSSEC_OneZone(t *testing.T) {
	dir := odsFolder(t)
	f, err := readODSFolder(t, dir, "B.com.")
	if err != nil || len(f.Zones) != 1 || f.Zones[0].Name != "b.com" || len(f.Policies) != 1 {
		t.Errorf("read %+v, %v", f.Zones, err)
	}
	if _, err := readODSFolder(t, dir, "c.com"); !errors.Is(err, pipeline.ErrNotFound) {
		t.Errorf("a zone that is not there: %v", err)
	}
	if f, err := ReadOpenDNSSEC(t.Context(), filepath.Join(dir, "conf.xml"), Options{Now: recordedAt(t, dir)}); err != nil || len(f.Zones) != 2 {
		t.Errorf("by conf.xml: %+v, %v", f.Zones, err)
	}
}

func TestReadOpenDNSSEC_RefusesAndTells(t *testing.T) {
	edit := func(name, old, new string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			t.Helper()
			path := filepath.Join(dir, name)
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			after := strings.ReplaceAll(string(text), old, new)
			if after == string(text) {
				t.Fatalf("%s has no %q", name, old)
			}
			if err := os.WriteFile(path, []byte(after), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	exec := func(script string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) { t.Helper(); execODS(t, dir, script) }
	}
	gone := func(names ...string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			t.Helper()
			for _, name := range names {
				if err := os.Remove(filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	all := func(f Former) string {
		var b strings.Builder
		fmt.Fprintln(&b, strings.Join(f.Unequal, "\n"))
		for _, p := range f.Policies {
			fmt.Fprintf(&b, "%s: %s\n%s\n", p.Name, strings.Join(p.Unequal, "\n"), p.Text)
		}
		for _, z := range f.Zones {
			fmt.Fprintf(&b, "%s %s refused: %s\n%s\n%s\n", z.Name, z.Policy, z.Refused, strings.Join(z.Notes, "\n"), strings.Join(z.Unequal, "\n"))
		}
		return b.String()
	}
	for _, row := range []struct {
		name   string
		change func(t *testing.T, dir string)
		want   string // in the error, or in what is told
	}{
		{"neither token nor published keys", gone("signer/a.com.axfr", "signer/a.com.backup2"), "a.com opendnssec-default refused: ZSK 63400"},
		{"no repository", exec("UPDATE hsmKey SET repository = 'other'"), "has no such repository: add it there"},
		{"an algorithm that is none here", exec("UPDATE keyData SET algorithm = 5 WHERE id = 4"), "keys of this algorithm are not signed with here"},
		{"a policy with one", exec("UPDATE policyKey SET algorithm = 7 WHERE policyId = 1"), `its policy "default" has keys of algorithm 7`},
		{"KSK and ZSK of different algorithms", exec("UPDATE policyKey SET algorithm = 13 WHERE id = 1"), `its policy "default" has keys of several algorithms`},
		{"another tag", exec("UPDATE keyData SET keytag = 1 WHERE id = 4"), "its public key is neither on the token"},
		{"no key signs yet", exec("UPDATE keyState SET state = 0 WHERE state < 4"), "none of its keys signs yet"},
		{"a key that has gone", exec("UPDATE keyData SET introducing = 0 WHERE id = 5; UPDATE keyState SET state = 0 WHERE keyDataId = 5 AND state < 4"), "is hidden everywhere, and left out"},
		{"kasp.xml was changed", edit("kasp.xml", "P90D", "P30D"), "ods-enforcer policy import was not run since"},
		{"a policy in the database alone", edit("kasp.xml", `"ecdsa"`, `"other"`), "stands in the enforcer's database alone"},
		{"the list of zones was changed", edit("zonelist.xml", `"a.com"`, `"c.com"`), "does not list are taken over, too: a.com"},
		{"zones that the enforcer lacks", edit("zonelist.xml", `"a.com"`, `"c.com"`), "the enforcer does not have are left out: c.com"},
		{"no PIN", edit("conf.xml", "<PIN>2718281828</PIN>", ""), "it was given by ods-hsmutil login"},
		{"backups", edit("conf.xml", "<SkipPublicKey/>", "<SkipPublicKey/><RequireBackup/>"), "require-backup = true"},
		{"a command for the DS", edit("conf.xml", "<WorkingDirectory>", "<DelegationSignerSubmitCommand>/bin/x</DelegationSignerSubmitCommand><WorkingDirectory>"), "key-manager.parent.hooks"},
		{"a command for secondaries", edit("conf.xml", "<Listener>", "<NotifyCommand>rndc reload</NotifyCommand><Listener>"), "<NotifyCommand> (rndc reload) has no equal"},
		{"manual rollovers", exec("UPDATE policyKey SET manualRollover = 1"), "auto-start = false"},
		{"double DS", exec("UPDATE policyKey SET minimize = 2 WHERE role = 1"), `method = "double-ds"`},
		{"double RRSIG", exec("UPDATE policyKey SET minimize = 2 WHERE role = 2"), "<ZskRollType>ZskDoubleRRsig</ZskRollType> has no equal"},
		{"standby keys", exec("UPDATE policyKey SET standby = 1"), "<Standby>1</Standby> of KSKs has no equal"},
		{"shared keys", exec("UPDATE policy SET keysShared = 1"), "<ShareKeys/>"},
		{"no purge", exec("UPDATE policy SET keysPurgeAfter = 0"), "auto-remove = false"},
		{"signatures that are always renewed", exec("UPDATE policy SET signaturesRefresh = 0"), "<Refresh> 0 renews all"},
		{"signatures that end too soon", exec("UPDATE policy SET signaturesRefresh = 8000"), "the latter two are lowered"},
		{"many iterations", exec("UPDATE policy SET denialIterations = 500"), "500 iterations of NSEC3 make a zone insecure"},
		{"lengths that differ", exec("UPDATE policyKey SET bits = 1024 WHERE role = 2"), "KSK and ZSK have different lengths, 1024 and 2048 bits"},
		{"a zone that is passed through", exec("UPDATE policy SET passthrough = 1"), `mode = "pass-through"`},
		{"a zone without keys", exec("DELETE FROM policyKey; DELETE FROM keyData"), `mode = "unsigned"`},
		{"a signed file", exec("UPDATE zone SET outputAdapterType = 'File', outputAdapterUri = 'signed'"), "The signed zone went out as a file"},
		{"a signer that was not told", exec("UPDATE zone SET signconfNeedsWriting = 1"), "ods-enforcer signconf"},
		{"a source that is not there", gone("unsigned"), "its source cannot be read now"},
		{"no file of the signer", gone("signer/b.com.axfr", "signer/b.com.backup2"), "no file of the signer tells the serial"},
		{"no server to take it from", edit("b.com.xml", "RequestTransfer", "Other"), "has no <RequestTransfer>"},
		{"a policy that is none here", exec("UPDATE policy SET signaturesInceptionOffset = 2000000000"), "do not fit together as a policy here"},
		{"no adapter", gone("b.com.xml"), "no such file"},
		{"a CSK", exec("UPDATE policyKey SET role = 3, minimize = 5 WHERE role = 1; DELETE FROM policyKey WHERE role = 2"), "use-csk = true"},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := odsFolder(t)
			row.change(t, dir)
			f, err := ReadOpenDNSSEC(t.Context(), dir, Options{Now: time.Unix(1795377470, 0)})
			if text := fmt.Sprint(err, "\n", all(f)); !strings.Contains(text, row.want) {
				t.Errorf("want %q in\n%s", row.want, text)
			}
			for _, z := range f.Zones {
				if z.Refused == "" && z.Policy == "" {
					t.Errorf("zone %s has no policy", z.Name)
				}
			}
		})
	}
}
