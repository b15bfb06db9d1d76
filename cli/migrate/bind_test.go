package migrate

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/pipeline"
)

// bindFolder is a copy of the configuration and the keys in testdata.
func bindFolder(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	copied := func(from, to string) {
		t.Helper()
		text, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to, []byte(strings.ReplaceAll(string(text), "DIR", dir)), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "keys"), 0o700); err != nil {
		t.Fatal(err)
	}
	copied("testdata/bind/named.conf", filepath.Join(dir, "named.conf"))
	keys, err := filepath.Glob("../../keymgr/file/testdata/life/K*")
	if err != nil || len(keys) != 9 {
		t.Fatalf("keys %q, %v", keys, err)
	}
	for _, path := range keys {
		copied(path, filepath.Join(dir, "keys", filepath.Base(path)))
	}
	writeText(t, filepath.Join(dir, "lists.conf"), `primaries "others" { 2001:db8::5; 192.0.2.9 port 53; };
key "xfer" { algorithm hmac-sha256; secret "c2VjcmV0c2VjcmV0"; };
key "unused" { algorithm hmac-sha512; secret "c2VjcmV0"; };
`)
	return dir
}

func writeText(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// atLife is when the keys in testdata were in the middle of a rollover.
func atLife() time.Time { return time.Date(2026, 11, 22, 9, 21, 0, 0, time.UTC) }

func zoneOf(t *testing.T, f Former, name string) Zone {
	t.Helper()
	i := slices.IndexFunc(f.Zones, func(z Zone) bool { return z.Name == name })
	if i < 0 {
		t.Fatalf("no zone %s", name)
	}
	return f.Zones[i]
}

func TestReadBIND_ZonesPoliciesAndKeys(t *testing.T) {
	dir := bindFolder(t)
	f, err := ReadBIND(t.Context(), filepath.Join(dir, "named.conf"), Options{Now: atLife()})
	if err != nil {
		t.Fatal(err)
	}
	z := zoneOf(t, f, "example.com")
	if z.Refused != "" || z.Source != filepath.Join(dir, "example.zone") || z.Policy != "bind-std" || len(z.Keys) != 3 {
		t.Errorf("zone %+v", z)
	}
	if diff := cmp.Diff([]string{"192.0.2.8:5301", "[2001:db8::5]:5301", "192.0.2.9", "192.0.2.7"}, z.Secondaries); diff != "" {
		t.Errorf("secondaries (-want +got):\n%s", diff)
	}
	if z.Primary != "127.0.0.1:5300^xfer" {
		t.Errorf("primary %q", z.Primary)
	}
	s := zoneOf(t, f, "secondary.example")
	if s.Source != "192.0.2.1^xfer,[2001:db8::1]:53" || !strings.Contains(s.Refused, "key-directory") {
		t.Errorf("secondary %+v", s)
	}
	if b := zoneOf(t, f, "broken.example"); !strings.Contains(b.Refused, "holds no key of it") {
		t.Errorf("broken %+v", b)
	}
	if len(f.Zones) != 3 || len(f.TSIG) != 1 || f.TSIG[0].Name != "xfer" || string(f.TSIG[0].Secret) != "secretsecret" {
		t.Errorf("zones %d, TSIG %+v", len(f.Zones), f.TSIG)
	}
	left := strings.Join(f.Unequal, "\n")
	for _, want := range []string{"plain.example; mirror.example: named does not sign it", "forwarded.example: it is of type forward"} {
		if !strings.Contains(left, want) {
			t.Errorf("%q is not told: %s", want, left)
		}
	}
}

func TestReadBIND_PolicyInOurWords(t *testing.T) {
	dir := bindFolder(t)
	f, err := ReadBIND(t.Context(), filepath.Join(dir, "named.conf"), Options{Now: atLife(), Zones: []string{"example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Policies) != 1 {
		t.Fatalf("policies %+v", f.Policies)
	}
	text := string(f.Policies[0].Text)
	p, err := pipeline.Parse("bind-std", f.Policies[0].Text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	r := p.Rollovers()
	if r.ZSK.Validity != 60*24*time.Hour || !r.ZSK.Auto.Start || r.KSK.Validity != 0 || r.KSK.Auto.Start || p.DNSKEYTTL() != 300 || p.UseCSK() {
		t.Errorf("rollovers %+v, DNSKEY TTL %d", r, p.DNSKEYTTL())
	}
	for _, want := range []string{
		`propagation-margin = "2h10m"`, `max-ttl-action = "reject"`, `signature-lifetime = "3w"`, `signature-remain-time = "1w"`, `type = "nsec3"`,
		`auto-remove = false`, `serial-policy = "unix-time"`, `ds-algorithm = "SHA-256"`,
		`send-notify-to = ["192.0.2.8:5301^xfer", "[2001:db8::5]:5301", "192.0.2.9"]`,
		`provide-xfr-to = ["192.0.2.7", "0.0.0.0/0^xfer", "::/0^xfer", "127.0.0.0/8", "::1", "192.0.2.8^xfer", "2001:db8::5", "192.0.2.9"]`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not in\n%s", want, text)
		}
	}
	told := strings.Join(f.Policies[0].Unequal, "\n")
	for _, want := range []string{"salt-length 8", "cds-digest-types 4", "signatures-validity-dnskey 14d", "parent-ds-ttl 1d"} {
		if !strings.Contains(told, want) {
			t.Errorf("%s is not told:\n%s", want, told)
		}
	}
}

// What cannot be taken over is said so of each zone, and with it what to do.
func TestReadBIND_Refused(t *testing.T) {
	dir := bindFolder(t)
	conf := filepath.Join(dir, "named.conf")
	const zone = `zone "example.com" { type primary; file "z"; key-directory "keys"; inline-signing yes; dnssec-policy "p"; };`
	for _, c := range []struct{ name, text, want string }{
		{"two views", `dnssec-policy "p" { }; view "in" { ` + zone + ` }; view "out" { ` + zone + ` };`, `it is in the views "in" and "out"`},
		{"no such policy", zone, `dnssec-policy "p" is not in the configuration`},
		{"KSK elsewhere", `dnssec-policy "p" { offline-ksk yes; };` + zone, "offline-ksk"},
		{"weak algorithm", `dnssec-policy "p" { keys { csk lifetime 0 algorithm rsasha1; }; };` + zone, "algorithm rsasha1 cannot be signed with here"},
		{"going insecure", strings.Replace(zone, `"p"`, "insecure", 1), "making it insecure"},
	} {
		writeText(t, conf, `options { directory "`+dir+`"; }; `+c.text)
		f, err := ReadBIND(t.Context(), conf, Options{Now: atLife()})
		if err != nil || len(f.Zones) != 1 || !strings.Contains(f.Zones[0].Refused, c.want) {
			t.Errorf("%s: %+v, %v", c.name, f.Zones, err)
		}
	}
	// A key on a token is only named by its file.
	private, err := filepath.Glob(filepath.Join(dir, "keys", "*49080.private"))
	if err != nil || len(private) != 1 {
		t.Fatal(private, err)
	}
	writeText(t, private[0], "Private-key-format: v1.3\nAlgorithm: 13 (ECDSAP256SHA256)\nLabel: cGtjczEx\n")
	writeText(t, conf, `options { directory "`+dir+`"; }; dnssec-policy "p" { }; `+zone)
	if f, err := ReadBIND(t.Context(), conf, Options{Now: atLife()}); err != nil || !strings.Contains(f.Zones[0].Refused, "key 49080 is on a token") {
		t.Errorf("token: %+v, %v", f.Zones, err)
	}
}

// Iterations that validators do not put up with, and address lists that name each
// other, do not stop the plan.
func TestReadBIND_OddConfigurations(t *testing.T) {
	dir := bindFolder(t)
	conf := filepath.Join(dir, "named.conf")
	const zone = `zone "example.com" { type primary; file "z"; key-directory "keys"; inline-signing yes; dnssec-policy "p"; allow-transfer { "a"; }; };`
	lists := strings.Repeat(`"a"; "b"; `, 20)
	writeText(t, conf, `options { directory "`+dir+`"; }; acl "a" { `+lists+`}; acl "b" { `+lists+`};
dnssec-policy "p" { nsec3param iterations 150 optout no; };`+zone)
	f, err := ReadBIND(t.Context(), conf, Options{Now: atLife()})
	if err != nil || len(f.Zones) != 1 || f.Zones[0].Refused != "" {
		t.Fatalf("%+v, %v", f.Zones, err)
	}
	if text := string(f.Policies[0].Text); !strings.Contains(text, "iterations = 0") {
		t.Errorf("policy %s", text)
	}
	if told := strings.Join(f.Policies[0].Unequal, "\n"); !strings.Contains(told, "iterations 150") || !strings.Contains(told, "set server.outbound.provide-xfr-to yourself") {
		t.Errorf("told %s", told)
	}
	// What does not fit together refuses its zones alone.
	writeText(t, conf, `options { directory "`+dir+`"; }; dnssec-policy "p" { nsec3param iterations many; };`+zone)
	if f, err := ReadBIND(t.Context(), conf, Options{Now: atLife()}); err != nil || !strings.Contains(f.Zones[0].Refused, `named.conf:1: nsec3param iterations "many"`) {
		t.Errorf("%+v, %v", f.Zones, err)
	}
	writeText(t, conf, `options { directory "`+dir+`"; }; dnssec-policy "p" { signatures-validity 0; };`+zone)
	if f, err := ReadBIND(t.Context(), conf, Options{Now: atLife()}); err != nil || !strings.Contains(f.Zones[0].Refused, "do not fit together") {
		t.Errorf("%+v, %v", f.Zones, err)
	}
}

// The keys of a policy are in its key stores, too, and where nothing stands apart
// the file itself has the serial.
func TestReadBIND_KeyStoresAndSerialOfTheFile(t *testing.T) {
	dir := bindFolder(t)
	conf := filepath.Join(dir, "named.conf")
	writeText(t, conf, `options { directory "`+dir+`"; }; key-store "ksk" { directory "kskdir"; };
dnssec-policy "p" { inline-signing no; keys { ksk key-store "ksk" lifetime 0 algorithm 13; zsk lifetime 0 algorithm 13; }; };
zone "example.com" { type primary; file "z"; key-directory "keys"; dnssec-policy "p"; };`)
	writeText(t, filepath.Join(dir, "z"), "example.com. 300 IN SOA a.example.com. h.example.com. 41 1 1 1 1\n")
	if f, err := ReadBIND(t.Context(), conf, Options{Now: atLife()}); err != nil || !strings.Contains(f.Zones[0].Refused, "kskdir is not there") {
		t.Fatalf("%+v, %v", f.Zones, err)
	}
	if err := os.Mkdir(filepath.Join(dir, "kskdir"), 0o700); err != nil {
		t.Fatal(err)
	}
	before, err := ReadBIND(t.Context(), conf, Options{Now: atLife()})
	if err != nil || len(before.Zones[0].Keys) < 2 {
		t.Fatalf("%+v, %v", before.Zones, err)
	}
	if n := before.Zones[0].Serial; n == nil || *n != 41 {
		t.Errorf("serial %v", n)
	}
	moved, err := filepath.Glob(filepath.Join(dir, "keys", "Kexample.com.*49080.*"))
	if err != nil || len(moved) == 0 {
		t.Fatal(moved, err)
	}
	for _, path := range moved {
		if err := os.Rename(path, filepath.Join(dir, "kskdir", filepath.Base(path))); err != nil {
			t.Fatal(err)
		}
	}
	after, err := ReadBIND(t.Context(), conf, Options{Now: atLife()})
	if err != nil || len(after.Zones[0].Keys) != len(before.Zones[0].Keys) {
		t.Errorf("%d keys in one folder, %d in two, %v", len(before.Zones[0].Keys), len(after.Zones[0].Keys), err)
	}
}

// What a zone does not say comes from its template, its view, the options.
func TestReadBIND_Inherits(t *testing.T) {
	dir := bindFolder(t)
	conf := filepath.Join(dir, "named.conf")
	writeText(t, conf, `options { directory "`+dir+`"; key-directory "nowhere"; dnssec-policy none; serial-update-method date; };
template "t" { key-directory "keys"; file "from-template"; };
view "v" { dnssec-policy default; zone "example.com" { type primary; template "t"; }; };`)
	f, err := ReadBIND(t.Context(), conf, Options{Now: atLife()})
	if err != nil || len(f.Zones) != 1 || f.Zones[0].Refused != "" || f.Zones[0].Source != filepath.Join(dir, "from-template") || f.Zones[0].Policy != "bind-default" {
		t.Fatalf("%+v, %v", f.Zones, err)
	}
	if text := string(f.Policies[0].Text); !strings.Contains(text, `serial-policy = "date-counter"`) || !strings.Contains(text, "use-csk = true") {
		t.Errorf("policy %s", text)
	}
}

func TestReadBIND_Duration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0": 0, "3600": time.Hour, "1h30m": 90 * time.Minute, "2W": 14 * 24 * time.Hour, "P1Y": 365 * 24 * time.Hour, "P1DT2H": 26 * time.Hour, "PT5M": 5 * time.Minute,
	} {
		if got, err := bindDuration(text); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "p", "1x", "h", "-1", "1h2", "99999999999999999999", "P99Y9"} {
		if got, err := bindDuration(text); err == nil {
			t.Errorf("%s is read as %v", text, got)
		}
	}
}

// The serial of what is signed is that at the end of the journal, else that of
// the file.
func TestSignedSerial_JournalThenFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "zone.signed")
	if n := signedSerial(path); n != nil {
		t.Errorf("no file: %d", *n)
	}
	raw := binary.BigEndian.AppendUint32(nil, 2)
	raw = append(raw, make([]byte, 8)...)                              // version 0, time
	raw = append(raw, 0, 0, 0, 99, 0, 1, 0, 6, 0, 0, 0, 0, 0, 5, 0, 0) // length, class, type, covers, TTL, number
	raw = append(raw, 0, 1, 0, 3, 1, 'a', 0, 0, 22, 0, 0)              // of records, owner, length, mname, rname
	raw = binary.BigEndian.AppendUint32(raw, 2026112201)
	writeText(t, path, string(append(raw, make([]byte, 16)...)))
	if n := signedSerial(path); n == nil || *n != 2026112201 {
		t.Errorf("file: %v", n)
	}
	journal := append([]byte(";BIND LOG V9.2\n\x00"), make([]byte, 48)...)
	binary.BigEndian.PutUint32(journal[28:], 100)
	binary.BigEndian.PutUint32(journal[24:], 7)
	writeText(t, path+".jnl", string(journal))
	if n := signedSerial(path); n == nil || *n != 7 {
		t.Errorf("journal: %v", n)
	}
}

func TestWrite_FolderWithoutSecretsInWhatIsRead(t *testing.T) {
	dir := bindFolder(t)
	conf, out := filepath.Join(dir, "named.conf"), filepath.Join(t.TempDir(), "plan")
	o := Options{Now: atLife()}
	f, err := ReadBIND(t.Context(), conf, o)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := Write(out, "bind", conf, f, o)
	if err != nil {
		t.Fatal(err)
	}
	z := plan.Zones[1]
	states := map[uint16]string{}
	for _, k := range z.Keys {
		states[k.Tag] = string(k.State)
	}
	if diff := cmp.Diff(map[uint16]string{15720: "active", 35174: "retired", 49080: "active"}, states); z.Zone != "example.com" || diff != "" {
		t.Errorf("zone %s (-want +got):\n%s", z.Zone, diff)
	}
	if !slices.ContainsFunc(z.Notes, func(n string) bool { return strings.Contains(n, "being exchanged there") }) {
		t.Errorf("notes %q", z.Notes)
	}
	err = filepath.WalkDir(out, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		secret := strings.HasPrefix(path, filepath.Join(out, "keys")) || d.Name() == "PLAN.md" || d.Name() == "migration.json" || path == out
		if secret && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s is open to others: %v", path, info.Mode())
		}
		if d.IsDir() || strings.HasPrefix(path, filepath.Join(out, "keys")) {
			return nil
		}
		text, err := os.ReadFile(path)
		for _, k := range f.Zones[0].Keys {
			if _, private, _ := strings.Cut(string(k.Private), "PrivateKey: "); strings.Contains(string(text), strings.TrimSpace(strings.Split(private, "\n")[0])) {
				t.Errorf("%s holds a private key", path)
			}
		}
		if strings.Contains(string(text), "c2VjcmV0c2VjcmV0") {
			t.Errorf("%s holds a secret", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	// What was written reads as what was there.
	again, err := Load(out)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(plan, again); diff != "" {
		t.Errorf("-written +read:\n%s", diff)
	}
}

// A folder that holds something else is left as it is.
func TestWrite_LeavesOtherFoldersAlone(t *testing.T) {
	dir := bindFolder(t)
	conf := filepath.Join(dir, "named.conf")
	o := Options{Now: atLife(), Zones: []string{"example.com"}}
	f, err := ReadBIND(t.Context(), conf, o)
	if err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	writeText(t, filepath.Join(other, "mine"), "")
	if err := os.Chmod(other, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Write(other, "bind", conf, f, o); !errors.Is(err, pipeline.ErrState) {
		t.Errorf("written to a folder of something else: %v", err)
	}
	if info, err := os.Stat(other); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	out := filepath.Join(t.TempDir(), "plan")
	if _, err := Write(out, "bind", conf, f, o); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		source string
		zones  []string
	}{{"/etc/other.conf", o.Zones}, {conf, nil}} {
		if _, err := Write(out, "bind", c.source, f, Options{Now: o.Now, Zones: c.zones}); !errors.Is(err, pipeline.ErrState) {
			t.Errorf("%s %q over another plan: %v", c.source, c.zones, err)
		}
	}
}

func TestWrite_AnewKeepsWhatAPersonChanged(t *testing.T) {
	dir := bindFolder(t)
	conf, out := filepath.Join(dir, "named.conf"), filepath.Join(t.TempDir(), "plan")
	o := Options{Now: atLife(), Zones: []string{"example.com"}}
	write := func() (Plan, error) {
		f, err := ReadBIND(t.Context(), conf, o)
		if err != nil {
			t.Fatal(err)
		}
		return Write(out, "bind", conf, f, o)
	}
	first, err := write()
	if err != nil {
		t.Fatal(err)
	}
	policy := filepath.Join(out, "policies", "bind-std.toml")
	text, err := os.ReadFile(policy)
	if err != nil {
		t.Fatal(err)
	}
	writeText(t, policy, string(text)+"\n# mine\n")
	zones, err := os.ReadFile(filepath.Join(out, "zones.toml"))
	if err != nil {
		t.Fatal(err)
	}
	writeText(t, filepath.Join(out, "zones.toml"), strings.Replace(string(zones), "example.zone", "other.zone", 1))
	// Key management is ended there.
	named, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	writeText(t, conf, strings.Replace(string(named), `dnssec-policy "std";`, "inline-signing yes;", 1))
	second, err := write()
	if err != nil {
		t.Fatal(err)
	}
	if len(second.Kept) != 3 || second.Digest != first.Digest || second.Zones[0].Policy != "bind-std" || len(second.Policies) != 1 {
		t.Errorf("kept %q, policies %+v, zones %+v", second.Kept, second.Policies, second.Zones)
	}
	if text, err = os.ReadFile(policy); err != nil || !strings.HasSuffix(string(text), "# mine\n") {
		t.Errorf("policy %s, %v", text, err)
	}
	if zones, err = os.ReadFile(filepath.Join(out, "zones.toml")); err != nil || !strings.Contains(string(zones), "other.zone") {
		t.Errorf("zones %s, %v", zones, err)
	}
	// A key moves on.
	state, err := filepath.Glob(filepath.Join(dir, "keys", "*15720.state"))
	if err != nil || len(state) != 1 {
		t.Fatal(state, err)
	}
	if text, err = os.ReadFile(state[0]); err != nil {
		t.Fatal(err)
	}
	writeText(t, state[0], strings.Replace(string(text), "ZRRSIGState: rumoured", "ZRRSIGState: unretentive", 1))
	third, err := write()
	if err != nil || third.Digest == first.Digest {
		t.Errorf("digest %s, %v", third.Digest, err)
	}
	if moved := second.Zones[0].moved(&third.Zones[0]); moved != "zone example.com: key 15720 was active and is retired" {
		t.Errorf("moved: %s", moved)
	}
}
