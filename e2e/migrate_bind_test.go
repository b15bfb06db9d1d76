package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// migratedNamed is named as a signer of several zones, each with a folder of
// keys of its own.
type migratedNamed struct {
	*secondary
	dir, conf, control string
	policies           map[string]string // by zone
}

// keysOf is the signer's folder of a zone's keys.
func (n *migratedNamed) keysOf(name string) *kaspSigner {
	return &kaspSigner{secondary: n.secondary, dir: filepath.Join(n.dir, "keys-"+name), control: n.control}
}

// zoneFile is what a zone is signed from.
func (n *migratedNamed) zoneFile(name string) string { return filepath.Join(n.dir, name+".zone") }

// configure writes named.conf; managed says that keys are managed by
// dnssec-policy.
func (n *migratedNamed) configure(t *testing.T, public string, managed bool) {
	t.Helper()
	const key = `key rndc { algorithm hmac-sha256; secret "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI="; };` + "\n"
	_, controls, _ := strings.Cut(readFile(t, n.control), "default-port ")
	var zones strings.Builder
	for name, policy := range n.policies {
		signing := "inline-signing yes;"
		if managed {
			signing += fmt.Sprintf(" dnssec-policy %q;", policy)
		}
		fmt.Fprintf(&zones, "zone %q { type primary; file \"%[1]s.zone\"; %s key-directory \"keys-%[1]s\"; };\n", name, signing)
	}
	timing := `dnskey-ttl 5s; publish-safety 1s; retire-safety 1s; zone-propagation-delay 1s; max-zone-ttl 5s;
	parent-ds-ttl 5s; parent-propagation-delay 1s;
	signatures-validity 1d; signatures-refresh 12h; signatures-validity-dnskey 1d;`
	writeFile(t, n.conf, fmt.Sprintf(`
options {
	directory %q; pid-file none; session-keyfile none; lock-file none;
	listen-on port %s { 127.0.0.1; }; listen-on-v6 { none; };
	recursion no; dnssec-validation no; allow-query { any; }; allow-transfer { 127.0.0.1; key "xfer"; };
	notify explicit; also-notify { 127.0.0.1 port %s; }; notify-delay 0;
};
%scontrols { inet 127.0.0.1 port %s allow { 127.0.0.1; } keys { rndc; }; };
key "xfer" { algorithm hmac-sha256; secret "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="; };
dnssec-policy "short" { keys { ksk lifetime unlimited algorithm ecdsa256; zsk lifetime unlimited algorithm ecdsa256; }; %s };
dnssec-policy "one" { keys { csk lifetime unlimited algorithm ecdsa256; }; %[6]s };
%s`, n.dir, port(n.addr), port(public), key, strings.TrimSuffix(strings.TrimSpace(controls), "; };"), timing, zones.String()))
}

// startMigratedNamed starts named as the signer of zones by the policies "short"
// (KSK and ZSK) and "one" (CSK); keys are taken from folders, serials from the
// files, where they are given.
func startMigratedNamed(t *testing.T, public string, policies map[string]string, keys map[string]string, serials map[string]uint32) *migratedNamed {
	t.Helper()
	dir := shortDir(t)
	n := &migratedNamed{dir: dir, conf: filepath.Join(dir, "named.conf"), policies: policies}
	n.secondary = &secondary{name: "named", addr: freeAddr(t)}
	const key = `key rndc { algorithm hmac-sha256; secret "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI="; };` + "\n"
	n.control = writeFile(t, filepath.Join(dir, "rndc.conf"),
		fmt.Sprintf("%soptions { default-key rndc; default-server 127.0.0.1; default-port %s; };\n", key, port(freeAddr(t))))
	for name := range policies {
		to := filepath.Join(dir, "keys-"+name)
		if err := os.Mkdir(to, 0o700); err != nil {
			t.Fatal(err)
		}
		files, err := filepath.Glob(filepath.Join(keys[name], "K*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			writeFile(t, filepath.Join(to, filepath.Base(file)), readFile(t, file))
		}
		writeFile(t, n.zoneFile(name), fmt.Sprintf(migratedZone, max(serials[name], 1), ""))
	}
	n.configure(t, public, true)
	n.secondary.process = start(t, "named", "named", "-g", "-d", "3", "-4", "-n", "1", "-c", n.conf)
	return n
}

// settledKeys waits until the keys of a zone have got around, and returns the
// base name of the one that signs the keys.
func (n *migratedNamed) settledKeys(t *testing.T, name string) (ksk string) {
	t.Helper()
	k := n.keysOf(name)
	ksk = k.awaitKey(t, "the KSK of "+name+" has got around", map[string]string{"KSK": "yes", "DNSKEYState": "omnipresent", "KRRSIGState": "omnipresent"})
	k.awaitKey(t, "the ZSK of "+name+" has got around", map[string]string{"ZSK": "yes", "DNSKEYState": "omnipresent", "ZRRSIGState": "omnipresent"})
	return ksk
}

// outcomes is what an import told, by zone.
func outcomes(t *testing.T, text string) map[string]string {
	t.Helper()
	var list []struct{ Zone, Outcome, Text string }
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	out := map[string]string{}
	for _, one := range list {
		out[one.Zone] = one.Outcome
	}
	return out
}

// TestMigrate_BINDAndBack has three zones that named signs by dnssec-policy come
// to us, one of them in the middle of a rollover of its ZSK, and go back to named
// with the keys as they stand then.
func TestMigrate_BINDAndBack(t *testing.T) {
	t.Parallel()
	need(t, "named", "rndc", "dnssec-dsfromkey")
	zones := []string{"a.com", "b.com", "c.com"}
	w := newMigration(t, zones...)
	policies := map[string]string{"a.com": "short", "b.com": "one", "c.com": "short"}
	old := startMigratedNamed(t, w.public.addr, policies, nil, nil)
	for _, z := range zones {
		old.awaitAbove(t, z, 0)
	}
	w.take(t, old.addr)
	for _, z := range zones {
		ksk := old.settledKeys(t, z)
		w.give(t, z, must(t, "dnssec-dsfromkey", "-2", filepath.Join(old.keysOf(z).dir, ksk+".key")))
		old.keysOf(z).rndc(t, "dnssec", "-checkds", "published", z)
	}
	w.watch(t)

	// The plan, before anything stands still.
	d := w.startSluice(t)
	dir := filepath.Join(shortDir(t), "plan")
	plan := []string{"migrate", "bind", old.conf, "-o", dir}
	d.must(t, plan...)
	w.adapt(t, dir)
	c := old.keysOf("c.com")
	zsk := c.awaitKey(t, "the ZSK of c.com", map[string]string{"ZSK": "yes", "GoalState": "omnipresent"})
	c.rndc(t, "dnssec", "-rollover", "-key", strings.TrimLeft(zsk[len(zsk)-5:], "0"), "c.com")
	c.rndc(t, "loadkeys", "c.com")
	await(t, "c.com has two ZSKs", 30*time.Second, func() (bool, string) {
		return len(c.states(t)) == 3 && slices.Contains(c.keysWith(t, map[string]string{"GoalState": "hidden", "ZRRSIGState": "omnipresent"}), zsk), fmt.Sprint(c.states(t))
	})
	w.tell(t, "c.com has two ZSKs")
	if r := d.cli(t, "migrate", "import", dir); r.code != 4 || !strings.Contains(r.stderr, "zone c.com: ") || !strings.Contains(r.stderr, "is new") {
		t.Errorf("import of keys that moved: %v", r)
	}

	// Key management ends there, and the plan is made anew.
	old.configure(t, w.public.addr, false)
	c.rndc(t, "reconfig")
	if text := d.must(t, plan...); !strings.Contains(text, "bind-short") || !strings.Contains(text, "bind-one") {
		t.Errorf("plan:\n%s", text)
	}
	w.tell(t, "the plan is made anew")
	checkPlan(t, dir)
	if got := outcomes(t, d.must(t, "--json", "migrate", "import", dir, "--dry-run")); len(got) != 3 || got["c.com"] != "planned" {
		t.Errorf("dry run: %v", got)
	}
	w.tell(t, "all was looked at")
	// An import that ended before its time goes on.
	d.must(t, "migrate", "import", dir, "--zone", "a.com")
	if got := outcomes(t, d.must(t, "--json", "migrate", "import", dir)); len(got) != 3 || got["a.com"] != "here" || got["b.com"] != "published" {
		t.Errorf("import that goes on: %v", got)
	}
	w.tell(t, "all was imported")
	if text := d.must(t, "tsig", "list"); !strings.Contains(text, "xfer.") || !strings.Contains(text, "hmac-sha256") {
		t.Errorf("TSIG keys:\n%s", text)
	}
	w.check(t, d, dir, "ready")

	// Back before anything was switched, and here again.
	if r := d.cli(t, "migrate", "back", dir); r.code != 2 || !strings.Contains(r.stderr, "--i-understand") {
		t.Errorf("back without a word: %v", r)
	}
	if text := d.must(t, "migrate", "back", dir, "--zone", "b.com", "--i-understand"); !strings.Contains(text, "b.com: removed") {
		t.Errorf("back: %s", text)
	}
	if r := d.cli(t, "migrate", "check", dir, "--zone", "b.com"); r.code != 1 || !strings.Contains(r.stderr, "it is not here") {
		t.Errorf("check of a zone that is not here: %v", r)
	}
	w.importPlan(t, d, dir)
	w.check(t, d, dir, "ready")

	// The former signer has a record that is not here.
	writeFile(t, old.zoneFile("a.com"), fmt.Sprintf(migratedZone, 2, "new IN A 192.0.2.81\n"))
	c.rndc(t, "reload", "a.com")
	await(t, "the difference is found", 30*time.Second, func() (bool, string) {
		r := d.cli(t, "migrate", "check", dir, "--zone", "a.com")
		return r.code == 1 && strings.Contains(r.stderr, "- new.a.com. 5 IN A 192.0.2.81"), r.String()
	})
	d.must(t, "zone", "reload", "a.com")
	w.check(t, d, dir, "ready")

	w.take(t, d.addr)
	w.check(t, d, dir, "switched")
	writeFile(t, old.zoneFile("b.com"), fmt.Sprintf(migratedZone, 3, "more IN A 192.0.2.82\n"))
	d.must(t, "zone", "reload", "b.com")
	d.must(t, "zone", "resign", "a.com", "--full")
	for _, z := range zones {
		w.awaitPublic(t, d.addr, z)
	}
	await(t, "the rollover of c.com ends here", time.Minute, func() (bool, string) {
		w.follow(t)
		text := d.must(t, "--json", "key", "status", "c.com")
		return strings.TrimSpace(text) == "[]", text
	})
	w.secure(t, "signed here")
	migrateBackToNamed(t, w, d, old, dir)
	w.judge(t)
}

// checkPlan looks at what a person reads.
func checkPlan(t *testing.T, dir string) {
	t.Helper()
	text := readFile(t, filepath.Join(dir, "PLAN.md"))
	for _, want := range []string{"policies/bind-short.toml stays as it was changed", "### c.com", "| CSK |", "rndc reconfig", "signatures-validity-dnskey"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in the plan:\n%s", want, text)
		}
	}
}

// migrateBackToNamed takes the zones back to a named with the keys that were
// written for it.
func migrateBackToNamed(t *testing.T, w *migration, d *daemon, old *migratedNamed, dir string) {
	t.Helper()
	var list []struct {
		Zone, Outcome string
		Files         []string
		Serial        uint32
	}
	if err := json.Unmarshal([]byte(d.must(t, "--json", "migrate", "back", dir, "--i-understand")), &list); err != nil {
		t.Fatal(err)
	}
	keys, serials := map[string]string{}, map[string]uint32{}
	for _, one := range list {
		if one.Outcome != "waits" || len(one.Files) < 3 || one.Serial == 0 {
			t.Fatalf("back: %+v", one)
		}
		keys[one.Zone], serials[one.Zone] = filepath.Dir(one.Files[0]), one.Serial+1
	}
	if r := d.cli(t, "migrate", "back", dir, "--done"); r.code != 4 || !strings.Contains(r.stdout, "still show serials from here") {
		t.Errorf("done before it was: %v", r)
	}
	old.stop()
	after := startMigratedNamed(t, w.public.addr, old.policies, keys, serials)
	for _, z := range w.zones {
		after.awaitAbove(t, z, serials[z]-1)
	}
	w.take(t, after.addr)
	for _, z := range w.zones {
		w.awaitPublic(t, after.addr, z)
		await(t, "named goes on with the keys of "+z, time.Minute, func() (bool, string) {
			text := after.keysOf(z).rndc(t, "dnssec", "-status", z)
			return strings.Count(text, "No rollover scheduled") == len(after.keysOf(z).states(t)), text
		})
		if now := len(after.keysOf(z).states(t)); now != map[string]int{"short": 2, "one": 1}[old.policies[z]] {
			t.Errorf("%s: named has %d keys", z, now)
		}
	}
	w.secure(t, "back at named")
	await(t, "the zones are gone here", 20*time.Second, func() (bool, string) {
		r := d.cli(t, "migrate", "back", dir, "--done")
		return r.code == 0 && strings.Count(r.stdout, ": removed")+strings.Count(r.stdout, ": absent") == len(w.zones), r.String()
	})
}
