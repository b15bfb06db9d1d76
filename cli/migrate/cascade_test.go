package migrate

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/keymgr"
)

// cascadeText is what was read, in lines.
func cascadeText(f Former) []string {
	var lines []string
	for _, z := range f.Zones {
		serial := "none"
		if z.Serial != nil {
			serial = fmt.Sprint(*z.Serial)
		}
		lines = append(lines, fmt.Sprintf("%s from %s by %s serial %s to %q", z.Name, z.Source, z.Policy, serial, z.Secondaries))
		for _, k := range z.Keys {
			state, notes := keymgr.ReadLife(k.Life, k.Role, knotNow())
			lines = append(lines, fmt.Sprintf("%s %s %d %d %s goal %s %v %v", z.Name, k.Role, k.Algorithm, k.Tag, state, k.Life.Goal, len(k.Private) > 0, notes))
		}
	}
	slices.Sort(lines)
	return lines
}

// The state in testdata was written by hand from the sources of Cascade and
// dnst; the keys are real ones.
func TestReadCascade_ZonesPoliciesAndKeys(t *testing.T) {
	dir := copied(t, "cascade")
	f, err := ReadCascade(context.Background(), dir, Options{Now: knotNow()})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{
		`csk.example csk 15 2764 active goal omnipresent true []`,
		`csk.example from /var/lib/zones/csk.example.zone by cascade-csk serial 7 to []`,
		`example.com from 192.0.2.1:53^transfer.example by cascade-usual serial 2026112203 to ["192.0.2.53:53" "192.0.2.54:5353"]`,
		`example.com ksk 13 10479 active goal omnipresent true []`,
		`example.com zsk 13 35037 active goal hidden true []`,
		`example.com zsk 13 38917 published goal omnipresent true []`,
		`kmip.example from /var/lib/zones/kmip.example.zone by cascade-usual serial none to ["192.0.2.53:53" "192.0.2.54:5353"]`,
	}, cascadeText(f)); diff != "" {
		t.Error(diff)
	}
	if len(f.TSIG) != 1 || f.TSIG[0].Algorithm != "hmac-sha256" || string(f.TSIG[0].Secret) != "12345678901234567890123456789012" {
		t.Errorf("%d TSIG keys", len(f.TSIG))
	}
	kmip := f.Zones[slices.IndexFunc(f.Zones, func(z Zone) bool { return z.Name == "kmip.example" })]
	if !strings.Contains(kmip.Refused, "KMIP server hsm1") {
		t.Errorf("refused %q", kmip.Refused)
	}
	if _, err := Make("cascade", dir, f, Options{Now: knotNow()}); err != nil {
		t.Error(err)
	}
}

func TestReadCascade_PolicySaysTheSame(t *testing.T) {
	f, err := ReadCascade(context.Background(), copied(t, "cascade"), Options{Now: knotNow(), Zones: []string{"example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	want := `# From policy usual of Cascade.

version = "v1"

[key-manager]
auto-remove = true
auto-remove-delay = "1w"
cds = "during-rolls" # as in Cascade
ds-algorithm = "SHA-256"
publication-nameservers = ["192.0.2.53:53"]

[key-manager.algorithm]
auto-done = true
auto-expire = true
auto-report = true
auto-start = true

[key-manager.csk]
auto-done = true
auto-expire = true
auto-report = true
auto-start = true
validity = "365d"

[key-manager.generation]
algorithm = "ECDSAP256SHA256"
use-csk = false

[key-manager.ksk]
auto-done = true
auto-expire = true
auto-report = true
validity = "forever"

[key-manager.records]
ttl = "1h"

[key-manager.zsk]
auto-done = true
auto-expire = true
auto-report = true
auto-start = true
validity = "30d12h"

[loader.review]
hook = "/usr/local/bin/check-loaded" # killed after ten minutes; see hooks for another time
mode = "script"
on-reject = "halt"

[retention]
ixfr-versions = 7 # max-diffs

[server.outbound]
provide-xfr-to = ["192.0.2.53", "192.0.2.54^transfer.example"]
send-notify-to = ["192.0.2.53:53", "192.0.2.54:5353^transfer.example"]

[signer]
key-roll-time = "1d12h"
serial-policy = "keep" # keep-strict lets signatures expire as Cascade does
signature-inception-offset = "1d"
signature-lifetime = "2w"
signature-refresh-interval = "12h"
signature-remain-time = "1w"

[signer.denial]
opt-out = false
type = "nsec3"
`
	if diff := cmp.Diff(want, string(f.Policies[0].Text)); diff != "" {
		t.Error(diff)
	}
	told := strings.Join(f.Policies[0].Unequal, "\n")
	for _, part := range []string{"key-manager.ksk.auto-start = false", "without a TSIG key", "records.dnskey.signature-lifetime", "max-diffs-size"} {
		if !strings.Contains(told, part) {
			t.Errorf("%q is not told:\n%s", part, told)
		}
	}
}

func TestReadCascade_MistakesAreNamedWithTheirPlace(t *testing.T) {
	for _, row := range []struct{ file, text, want string }{
		{"config.toml", "policy-dir = [\n", "config.toml:"},
		{"policies/usual.toml", "version = \"v1\"\n[signer]\nsignature-lifetime = \"3 moons\"\n", "usual.toml:3: signer.signature-lifetime: 3 moons is no length of time"},
		{"policies/usual.toml", "version = \"v1\"\n[server.outbound]\nsend-notify-to = [\"ns1.example\"]\n", "usual.toml:3: server.outbound.send-notify-to: ns1.example is no server"},
		{"zone-state/example.com.db", "{\n\"policy\": {]\n}", "example.com.db:2:"},
		{"keys/example.com.state", `{"keyset":{"keys":{"file:///x":{"keytype":{"Other":{}}}}}}`, `key type "Other"`},
		{"keys/Kexample.com.+013+10479.key", "example.com. IN DNSKEY 257 3 13 AAAA\n", "Kexample.com.+013+10479.key has tag"},
		{"tsig-keys.db", `{"map":{"k":{"alg":"sha256","data":[300]}}}`, "the secret of key k is not a list of bytes"},
	} {
		dir := copied(t, "cascade")
		if err := os.WriteFile(filepath.Join(dir, row.file), []byte(row.text), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := ReadCascade(context.Background(), dir, Options{Now: knotNow(), Zones: []string{"example.com"}})
		said := fmt.Sprint(err)
		if err == nil && len(f.Zones) == 1 {
			said = f.Zones[0].Refused // of one zone alone
		}
		if !strings.Contains(said, row.want) {
			t.Errorf("%s: %s, want %q", row.file, said, row.want)
		}
	}
}

// Each step of a rollover of dnst keyset is read as what caches hold in it.
func TestCascadeKeyLife_StepsOfRolloversAreOurs(t *testing.T) {
	at := func(n int64) *cascadeAt { return &cascadeAt{n} }
	type state = cascadeState
	old := func(role keymgr.Role, states ...state) cascadeKey {
		k := cascadeKey{Tag: 1, Type: cascadeType{role, states}}
		k.Times.Published, k.Times.Visible, k.Times.DSVisible, k.Times.SigsVisible = at(10), at(20), at(30), at(30)
		return k
	}
	next := func(role keymgr.Role, visible *cascadeAt, states ...state) cascadeKey {
		k := cascadeKey{Tag: 2, Type: cascadeType{role, states}}
		k.Times.Published, k.Times.Visible = at(1000), visible
		return k
	}
	for _, row := range []struct {
		step      string
		old, next cascadeKey
		want      string // states; DNSKEY and DS of the next
	}{
		{"zsk propagation1", old(keymgr.ZSK, state{Old: true, Signer: true, Present: true}), next(keymgr.ZSK, nil, state{Present: true}), "active published rumoured "},
		{"zsk cache-expire1", old(keymgr.ZSK, state{Old: true, Signer: true, Present: true}), next(keymgr.ZSK, at(1100), state{Present: true}), "active published rumoured "},
		{"zsk propagation2", old(keymgr.ZSK, state{Old: true, Present: true}), next(keymgr.ZSK, at(1100), state{Present: true, Signer: true}), "retired active omnipresent "},
		{"zsk done", old(keymgr.ZSK, state{Old: true}), next(keymgr.ZSK, at(1100), state{Present: true, Signer: true}), "removed active omnipresent "},
		{"ksk propagation1", old(keymgr.KSK, state{Old: true, Signer: true, Present: true, AtParent: true}), next(keymgr.KSK, nil, state{Signer: true, Present: true}), "active active rumoured hidden"},
		{"ksk propagation2", old(keymgr.KSK, state{Old: true, Signer: true, Present: true}), next(keymgr.KSK, at(1100), state{Signer: true, Present: true, AtParent: true}), "active active omnipresent rumoured"},
		{
			"csk propagation1", old(keymgr.CSK, state{Old: true, Signer: true, Present: true, AtParent: true}, state{Old: true, Signer: true, Present: true}),
			next(keymgr.CSK, nil, state{Signer: true, Present: true}, state{Present: true}), "active active rumoured hidden",
		},
	} {
		all := map[string]cascadeKey{"a": row.old, "b": row.next}
		a, b := row.old.life(all, false), row.next.life(all, false)
		first, _ := keymgr.ReadLife(a, row.old.Type.role, knotNow())
		second, _ := keymgr.ReadLife(b, row.next.Type.role, knotNow())
		ds := ""
		if b.DS != nil {
			ds = b.DS.State
		}
		if got := fmt.Sprintf("%s %s %s %s", first, second, b.DNSKEY.State, ds); got != row.want {
			t.Errorf("%s: %q, want %q", row.step, got, row.want)
		}
		if row.old.Type.used() && (a.Goal != "hidden" || a.Successor != 2 || b.Goal != "omnipresent" || b.Predecessor != 1) {
			t.Errorf("%s: old %+v, next %+v", row.step, a, b)
		}
	}
}

func TestCascadeTime_TakesItsForms(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"90": 90 * time.Second, "2h 3m": 123 * time.Minute, "P1DT2H": 26 * time.Hour, "PT5M": 5 * time.Minute, "p2w": 14 * 24 * time.Hour,
	} {
		if got, err := cascadeTime(text); err != nil || got != want {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
	for _, bad := range []string{"", "P", "PT", "P1", "P1H", "PT1D", "3 moons", "P99999999999W"} {
		if got, err := cascadeTime(bad); err == nil {
			t.Errorf("%q: %s", bad, got)
		}
	}
}

func FuzzCascadeTime(f *testing.F) {
	f.Add("P1DT2H")
	f.Add("2h 3m")
	f.Fuzz(func(t *testing.T, text string) {
		if d, err := cascadeTime(text); err == nil && d < 0 {
			t.Fatalf("%q: %s", text, d)
		}
	})
}

func FuzzCascadeKeys(f *testing.F) {
	for _, name := range []string{"example.com.state", "csk.example.state"} {
		text, err := os.ReadFile(filepath.Join("testdata", "cascade", "keys", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(_ *testing.T, text []byte) {
		var set cascadeKeys
		if json.Unmarshal(text, &set) != nil {
			return
		}
		for _, k := range set.KeySet.Keys {
			if len(k.Type.states) > 0 {
				k.life(set.KeySet.Keys, false)
			}
		}
	})
}
