package migrate

import (
	"context"
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
	"sluice/signer/zone"
)

// knotNow is within the rollover that testdata/knot was recorded in.
func knotNow() time.Time { return time.Unix(1795374000, 0).UTC() }

// tool puts a program of that name, a shell script, first in the path.
func tool(t *testing.T, name, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
}

// copied copies a folder of testdata, and puts its new path into its files in the
// place of @DIR@.
func copied(t *testing.T, from string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(filepath.Join("testdata", from))); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(to, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(path, []byte(strings.ReplaceAll(string(text), "@DIR@", to)), 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// readKnot reads testdata/knot.
func readKnot(t *testing.T, zones ...string) (Former, string, error) {
	t.Helper()
	dir := copied(t, "knot")
	if err := os.MkdirAll(filepath.Join(dir, "kasp"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "keys"), filepath.Join(dir, "kasp", "keys")); err != nil {
		t.Fatal(err)
	}
	zoneFile := filepath.Join(dir, "zones", "example.com.zone")
	if err := os.MkdirAll(filepath.Dir(zoneFile), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(zoneFile, []byte("@ 3600 IN SOA ns hostmaster 2026112201 1 1 1 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tool(t, "keymgr", fmt.Sprintf(`case "$*" in
-V) echo "keymgr (Knot DNS), version 3.2.6";;
*"-j example.com list") cat %s/list.json;;
*list) echo "[]";;
*) echo "unexpected: $*" >&2; exit 1;;
esac
`, dir))
	f, err := ReadKnot(context.Background(), dir, Options{Zones: zones, Now: knotNow()})
	return f, dir, err
}

func TestReadKnot_ZonesPoliciesAndKeys(t *testing.T) {
	f, dir, err := readKnot(t)
	if err != nil {
		t.Fatal(err)
	}
	if f.Software != "Knot DNS 3.2.6" || len(f.TSIG) != 1 || f.TSIG[0].Name != "transfer.example." || len(f.TSIG[0].Secret) != 32 {
		t.Errorf("software %q, %d TSIG keys", f.Software, len(f.TSIG))
	}
	var got []string
	for _, z := range f.Zones {
		got = append(got, z.Name+" "+strings.ReplaceAll(z.Source, dir, "DIR")+" "+z.Policy+" "+strings.Join(z.Secondaries, ","))
	}
	slices.Sort(got)
	want := []string{
		"away.example DIR/zones/example/aw/away.example.zone knot-away ",
		"example.com DIR/zones/example.com.zone knot-usual 192.0.2.53:5353,[2001:db8::53]:53,192.0.2.54:53",
		"sub.example 203.0.113.1:53^transfer.example knot-usual-2 192.0.2.53:5353,[2001:db8::53]:53,192.0.2.54:53",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	z := f.Zones[0]
	if z.Serial == nil || *z.Serial != 2026112201 || z.Primary != "127.0.0.1:5300" || z.Refused != "" {
		t.Errorf("%s: serial %v, primary %q, refused %q", z.Name, z.Serial, z.Primary, z.Refused)
	}
	var keys []string
	for _, k := range z.Keys {
		state, notes := keymgr.ReadLife(k.Life, k.Role, knotNow())
		keys = append(keys, fmt.Sprintf("%s %d %s %s %v %v", k.Role, k.Tag, state, k.Life.Goal, len(k.Private) > 0, notes))
	}
	if diff := cmp.Diff([]string{
		"ksk 64840 active omnipresent true []", "zsk 14146 published omnipresent true []", "zsk 35334 active hidden true []",
	}, keys); diff != "" {
		t.Error(diff)
	}
	if len(f.Unequal) != 1 || !strings.Contains(f.Unequal[0], "plain.example") {
		t.Errorf("unequal %q", f.Unequal)
	}
	if f.Zones[1].Name != "away.example" || !strings.Contains(f.Zones[1].Refused, "offline-ksk") {
		t.Errorf("%+v", f.Zones[1])
	}
	if _, err := Make("knot", dir, f, Options{Now: knotNow()}); err != nil {
		t.Error(err)
	}
}

func TestReadKnot_PolicySaysTheSame(t *testing.T) {
	f, _, err := readKnot(t, "example.com.")
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Zones) != 1 || len(f.Policies) != 1 {
		t.Fatalf("%d zones, %d policies", len(f.Zones), len(f.Policies))
	}
	want := `# From policy usual of Knot DNS.

version = "v1"

[key-manager]
cds = "always" # cds-cdnskey-publish
ds-algorithm = "SHA-384" # cds-digest-type
observation-interval = "10m" # check-interval
parent-nameservers = ["198.51.100.1:53"]
parent-propagation-margin = "2h" # parent-delay
propagation-margin = "30m" # propagation-delay

[key-manager.csk]
auto-start = true # ksk-lifetime
validity = "365d" # ksk-lifetime

[key-manager.generation]
algorithm = "ED25519" # algorithm
use-csk = false # single-type-signing

[key-manager.ksk]
auto-start = true # ksk-lifetime
validity = "365d" # ksk-lifetime

[key-manager.parent.update]
servers = ["198.51.100.2:53^transfer.example"]

[key-manager.records]
ttl = "2h" # dnskey-ttl

[key-manager.zsk]
validity = "60d" # zsk-lifetime

[loader.checks]
max-ttl = "1d" # zone-max-ttl

[server.inbound]
allow-notify-from = ["192.0.2.128/25^transfer.example", "10.0.0.1/32^transfer.example", "10.0.0.2/31^transfer.example", "10.0.0.4/31^transfer.example", "10.0.0.6/32^transfer.example"]

[server.outbound]
provide-xfr-to = ["192.0.2.53^transfer.example", "2001:db8::53", "192.0.2.54", "192.0.2.128/25^transfer.example", "10.0.0.1/32^transfer.example", "10.0.0.2/31^transfer.example", "10.0.0.4/31^transfer.example", "10.0.0.6/32^transfer.example"]
send-notify-to = ["192.0.2.53:5353^transfer.example", "[2001:db8::53]:53", "192.0.2.54:53"]

[signer]
serial-policy = "unix-time" # serial-policy
signature-inception-offset = "1h30m" # as in Knot
signature-lifetime = "2w" # rrsig-lifetime
signature-refresh-interval = "12h"
signature-remain-time = "1w" # rrsig-refresh
zonemd = true # zonemd-generate

[signer.denial]
iterations = 0 # nsec3-iterations
opt-out = false # nsec3-opt-out
type = "nsec3" # nsec3
`
	if diff := cmp.Diff(want, string(f.Policies[0].Text)); diff != "" {
		t.Error(diff)
	}
	text := strings.Join(f.Policies[0].Unequal, "\n")
	for _, part := range []string{"timeout 3d", "nsec3-salt-length 8", "acl not-them denies"} {
		if !strings.Contains(text, part) {
			t.Errorf("%q is not told:\n%s", part, text)
		}
	}
	if text := strings.Join(f.Zones[0].Unequal, "\n"); !strings.Contains(text, "zone-flush") || !strings.Contains(text, "from-admin") {
		t.Errorf("zone: %s", text)
	}
	if _, err := pipeline.Parse("usual", f.Policies[0].Text); err != nil {
		t.Error(err)
	}
}

func TestReadKnot_MistakesAreNamedWithTheirPlace(t *testing.T) {
	tool(t, "keymgr", "echo 'keymgr (Knot DNS), version 3.2.6'\n")
	for _, row := range []struct{ text, want string }{
		{"zone:\n  - domain: a.example\n    dnssec-signing: maybe\n", ":3: dnssec-signing: \"maybe\": want on or off"},
		{"zone:\n  - domain: a.example\n    template: none\n", ":2: zone a.example: there is no template \"none\""},
		{"zone:\n  - domain: a.example\n    dnssec-signing: on\n    notify: [ nobody\n", ":4: the list of notify is not closed"},
		{"zone:\n  - domain: a.example\n    dnssec-signing: on\n    notify: nobody\n", "there is no remote \"nobody\""},
		{"policy:\n  - id: p\n    zsk-lifetime: 3x\nzone:\n  - domain: a.example\n    dnssec-signing: on\n    dnssec-policy: p\n", ":3: zsk-lifetime: \"3x\": want a length of time"},
		{"remotes:\n  - id: a\n    remote: b\n  - id: b\n    remote: a\nzone:\n  - domain: a.example\n    dnssec-signing: on\n    notify: a\n", "there is no remote \"b\""},
		{"include: nowhere/*.conf\n", ":1: include \"nowhere/*.conf\""},
		{"  listen: 1\n", ":1: \"listen\" stands outside of a section"},
		{"key:\n  - id: k\n    secret: \"%%%\"\n", ":3: the secret of key k is not base64"},
		{"server:\n    listen: \"127.0.0.1\n", ":2: a quoted value is not closed"},
	} {
		path := filepath.Join(t.TempDir(), "knot.conf")
		if err := os.WriteFile(path, []byte(row.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadKnot(context.Background(), path, Options{Now: knotNow()}); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%q: error %v, want %q", row.text, err, row.want)
		}
	}
	if _, _, err := readKnot(t, "other.example"); err == nil || !strings.Contains(err.Error(), "other.example is not there") {
		t.Errorf("another zone: %v", err)
	}
}

func TestReadKnot_MissingPrivateKeySaysWhereItWasLookedFor(t *testing.T) {
	dir := copied(t, "knot")
	tool(t, "keymgr", fmt.Sprintf(`case "$*" in
-V) echo "keymgr (Knot DNS), version 3.2.6";;
*dnskey*) echo "example.com. DNSKEY 257 3 13 fIThElQZrqCELPR/J4CAjRujz2OL6kZIMupU4L7ISoswwckbW9IBwepWEGvD9FXtxaB/fwmSlJ0lDB42yY7NoQ==";;
*) cat %s/list.json;;
esac
`, dir))
	f, err := ReadKnot(context.Background(), dir, Options{Zones: []string{"example.com"}, Now: knotNow()})
	if err != nil || len(f.Zones) != 1 {
		t.Fatal(err)
	}
	if no := f.Zones[0].Refused; !strings.Contains(no, "key 64840") || !strings.Contains(no, "99045907c788cef9e09f9b63f0774a88c9939190.pem is in "+dir+"/kasp/keys") {
		t.Errorf("refused %q", no)
	}
}

func TestKnotToken_IsReadAndThePINStaysOutOfWhatIsTold(t *testing.T) {
	c := &knotConf{}
	text := "keystore:\n  - id: hsm\n    backend: pkcs11\n    config: \"pkcs11:token=knot%20keys;pin-value=secret99 /usr/lib/softhsm/libsofthsm2.so\"\n"
	if err := c.parse("knot.conf", []byte(text), 0); err != nil {
		t.Fatal(err)
	}
	k := &knotReader{conf: c, kasp: "/kasp"}
	policy := &knotBlock{items: []knotItem{{name: "keystore", values: []string{"hsm"}}}}
	stores, err := k.keystores(policy)
	if err != nil || len(stores) != 1 || stores[0].keystore != "hsm" {
		t.Fatalf("%+v, %v", stores, err)
	}
	want := []Keystore{{Name: "hsm", Module: "/usr/lib/softhsm/libsofthsm2.so", Token: "knot keys"}}
	if diff := cmp.Diff(want, k.out.Keystores); diff != "" {
		t.Error(diff)
	}
	if told := strings.Join(k.out.Unequal, " "); !strings.Contains(told, "PIN of keystore hsm") || strings.Contains(told, "secret99") {
		t.Errorf("told %q", told)
	}
}

func TestParseKnotKeys_LinesSayTheSameAsJSON(t *testing.T) {
	var lists [2][]knotKey
	for i, name := range []string{"list.json", "list.txt"} {
		text, err := os.ReadFile(filepath.Join("testdata", "knot", name))
		if err != nil {
			t.Fatal(err)
		}
		if lists[i], err = parseKnotKeys(text); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(lists[0], lists[1]); diff != "" || len(lists[0]) != 3 {
		t.Errorf("%d keys\n%s", len(lists[0]), diff)
	}
}

// Each state of Knot's keys is one of ours, the one in which nothing that a cache
// holds becomes bogus.
func TestKnotKeyLife_StatesOfAKeyAreOurs(t *testing.T) {
	now := time.Unix(2000000000, 0)
	at := func(days int64) int64 { return now.Unix() - days*86400 }
	for _, row := range []struct {
		key   knotKey
		state string
		ours  keymgr.State
		ds    string
	}{
		{knotKey{ZSK: true, Publish: at(1)}, knotPublished, keymgr.Published, ""},
		{knotKey{ZSK: true, Publish: at(9), Active: at(5)}, knotActive, keymgr.Active, ""},
		{knotKey{ZSK: true, Publish: at(9), Active: at(5), Retire: at(1)}, knotRetired, keymgr.Retired, ""},
		{knotKey{ZSK: true, Publish: at(9), Active: at(5), Retire: at(2), Remove: at(1)}, knotRemoved, keymgr.Removed, ""},
		{knotKey{ZSK: true, PreActive: at(1)}, knotPreActive, keymgr.Active, ""},
		{knotKey{ZSK: true, Publish: at(9), Active: at(5), RetireActive: at(1)}, knotRetireActive, keymgr.Active, ""},
		{knotKey{ZSK: true, Publish: at(-1)}, knotGenerated, keymgr.Generated, ""},
		{knotKey{KSK: true, Publish: at(1)}, knotPublished, keymgr.Active, "hidden"},
		{knotKey{KSK: true, Publish: at(2), Ready: at(1)}, knotReady, keymgr.Active, "rumoured"},
		{knotKey{KSK: true, Publish: at(3), Ready: at(2), Active: at(1)}, knotActive, keymgr.Active, "omnipresent"},
		{knotKey{KSK: true, Publish: at(4), Ready: at(3), Active: at(2), RetireActive: at(1)}, knotRetireActive, keymgr.Active, "unretentive"},
		{knotKey{KSK: true, ZSK: true, Publish: at(3), Ready: at(2), Active: at(1)}, knotActive, keymgr.Active, "omnipresent"},
		{knotKey{KSK: true, ZSK: true, Publish: at(1)}, knotPublished, keymgr.Active, "hidden"},
	} {
		row.key.ID = "0123456789abcdef"
		life := row.key.life([]knotKey{row.key}, 3600, now)
		state, _ := keymgr.ReadLife(life, row.key.role(), now)
		ds := ""
		if life.DS != nil {
			ds = life.DS.State
		}
		if row.key.state(now) != row.state || state != row.ours || ds != row.ds {
			t.Errorf("%+v: %s, %s, DS %q; want %s, %s, %q", row.key, row.key.state(now), state, ds, row.state, row.ours, row.ds)
		}
	}
}

// A KSK that leaves is noted to go once its successor is there, since the parent
// may have the DS of both.
func TestKnotKeyLife_RolloverNamesBothKeys(t *testing.T) {
	now := time.Unix(2000000000, 0)
	keys := []knotKey{
		{ID: "aaaaaaaa", KSK: true, Tag: 1, Publish: 1000, Ready: 2000, Active: 3000},
		{ID: "bbbbbbbb", KSK: true, Tag: 2, Publish: 1900000000, Ready: 1950000000},
		{ID: "cccccccc", ZSK: true, Tag: 3, Publish: 1000, Active: 3000},
	}
	before, after, alone := keys[0].life(keys, 0, now), keys[1].life(keys, 0, now), keys[2].life(keys, 0, now)
	if before.Goal != "hidden" || before.Successor != 2 || after.Goal != "omnipresent" || after.Predecessor != 1 {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
	// Times are in seconds: a key that came in the same one is told by its use.
	keys[0].Publish, keys[0].Ready, keys[0].Active = 1900000000, 1900000000, 1900000000
	keys[1].Ready = 0
	if l := keys[0].life(keys, 0, now); l.Goal != "hidden" || l.Successor != 2 {
		t.Errorf("in the same second %+v", l)
	}
	if alone.Goal != "omnipresent" || alone.Predecessor != 0 || alone.Successor != 0 {
		t.Errorf("alone %+v", alone)
	}
}

func TestKnotRange_IsThosePrefixes(t *testing.T) {
	for _, row := range []struct{ text, want string }{
		{"10.0.0.0-10.0.0.255", "10.0.0.0/24"},
		{"10.0.0.7-10.0.0.7", "10.0.0.7/32"},
		{"0.0.0.0-255.255.255.255", "0.0.0.0/0"},
		{"2001:db8::-2001:db8::3", "2001:db8::/126"},
		{"255.255.255.254-255.255.255.255", "255.255.255.254/31"},
	} {
		if got, err := knotRange(row.text); err != nil || strings.Join(got, " ") != row.want {
			t.Errorf("%s: %q, %v", row.text, got, err)
		}
	}
	for _, bad := range []string{"10.0.0.2-10.0.0.1", "10.0.0.1-2001:db8::", "a-b", "x", "fe80::1%eth0-fe80::3%eth0"} {
		if got, err := knotRange(bad); err == nil {
			t.Errorf("%s: %q", bad, got)
		}
	}
}

// A name of RFC 2317 has a slash, which file names have not.
func TestKnotZoneFile_SlashesAreUnderscores(t *testing.T) {
	name, err := zone.ParseName("0/25.2.0.192.in-addr.arpa")
	if err != nil {
		t.Fatal(err)
	}
	k := &knotReader{conf: &knotConf{}}
	z := knotZone{name: name, block: &knotBlock{items: []knotItem{{name: "storage", values: []string{"/z"}}, {name: "file", values: []string{"%s %l[5] %c[1-2]"}}}}}
	if got := k.zoneFile(z); got != "/z/0_25.2.0.192.in-addr.arpa 0_25 _2" {
		t.Errorf("file %q", got)
	}
}

func FuzzKnotConf(f *testing.F) {
	text, err := os.ReadFile(filepath.Join("testdata", "knot", "knot.conf"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte("policy:\n  - id: \"a b\"\n    zsk-lifetime: 9d # x\n    keystore: ['a', \"b\\\"c\"]\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if strings.Contains(string(text), "include") {
			t.Skip()
		}
		c := &knotConf{}
		if err := c.parse("knot.conf", text, 0); err != nil {
			return
		}
		for _, b := range c.blocks {
			for _, i := range b.items {
				if i.name == "" || i.at.line < 1 {
					t.Fatalf("item %+v", i)
				}
				if d, has, err := b.time(i.name); err == nil && has && d < 0 {
					t.Fatalf("%s: %s", i.name, d)
				}
			}
		}
	})
}

func FuzzKnotKeys(f *testing.F) {
	for _, name := range []string{"list.json", "list.txt"} {
		text, err := os.ReadFile(filepath.Join("testdata", "knot", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		keys, err := parseKnotKeys(text)
		if err != nil {
			return
		}
		for i := range keys {
			keymgr.ReadLife(keys[i].life(keys, 0, knotNow()), keys[i].role(), knotNow())
		}
	})
}
