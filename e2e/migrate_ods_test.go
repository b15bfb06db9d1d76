package e2e

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestMigrate_OpenDNSSECAndBack takes two zones over from OpenDNSSEC, whose keys
// stay on their token, and back: one by file, with RSA and NSEC3, and one by
// transfer, in the middle of a rollover of its ZSK.
func TestMigrate_OpenDNSSECAndBack(t *testing.T) {
	t.Parallel()
	w := newMigration(t, "a.com", "b.com")
	dir := shortDir(t)
	source := writeFile(t, filepath.Join(dir, "a.com"), fmt.Sprintf(migratedZone, 100, ""))
	upstream := writeFile(t, filepath.Join(dir, "b.com"), fmt.Sprintf(migratedZone, 100, ""))
	primary := startNamed(t, namedPrimary("b.com", upstream))
	old := newOpenDNSSEC(t, w.public.addr, odsSource{zone: "a.com", policy: "default", file: source},
		odsSource{zone: "b.com", policy: "ecdsa", server: primary.addr})
	old.startEnforcer(t)
	old.startSigner(t)
	old.must(t, "enforcer", "policy", "import")
	old.must(t, "enforcer", "zonelist", "import")
	w.take(t, old.addr)
	for _, z := range w.zones {
		var ds, tags []string
		await(t, z+" is signed and public, with its KSK", time.Minute, func() (bool, string) {
			m, err := query(w.public.addr, "www."+z, dns.TypeA)
			if err != nil || !has(m.Answer, dns.TypeRRSIG) {
				return false, fmt.Sprint(m, err, old.ask(t, "signer", "queue"))
			}
			ds, tags = dsOf(t, w.public.addr, z)
			return len(ds) == 1, fmt.Sprint(ds)
		})
		w.give(t, z, ds...)
		await(t, z+" knows that its DS is there", time.Minute, func() (bool, string) {
			old.ask(t, "enforcer", "key", "ds-submit", "--zone", z, "--keytag", tags[0])
			old.ask(t, "enforcer", "key", "ds-seen", "--zone", z, "--keytag", tags[0])
			lines := old.keys(t, z)
			return strings.Contains(strings.Join(lines, "\n"), "KSK      active"), strings.Join(lines, "\n")
		})
	}
	w.watch(t)

	old.must(t, "enforcer", "key", "rollover", "--zone", "b.com", "--keytype", "ZSK")
	await(t, "b.com has a new ZSK", time.Minute, func() (bool, string) {
		m, err := query(w.public.addr, "b.com", dns.TypeDNSKEY)
		return err == nil && len(m.Answer) == 4, fmt.Sprint(m, err)
	})
	old.stopEnforcer(t)

	d := w.startODSSluice(t, old.token)
	plan := filepath.Join(dir, "plan")
	old.sluice(t, d, "migrate", "opendnssec", old.dir, "-o", plan)
	w.adapt(t, plan)
	old.holdRollover(t, plan)
	for _, name := range []string{"opendnssec-default.toml", "ecdsa.toml"} {
		writeFile(t, filepath.Join(filepath.Dir(d.data), "policies", name), readFile(t, filepath.Join(plan, "policies", name)))
	}
	d.must(t, "policy", "reload")
	old.sluice(t, d, "migrate", "import", plan)
	w.check(t, d, plan, "ready")
	var keys []listedKey
	if err := json.Unmarshal([]byte(d.must(t, "--json", "key", "list", "b.com")), &keys); err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if !k.Adopted || k.Keystore != "softhsm" || len(keys) != 3 {
			t.Errorf("%d keys, one is %+v", len(keys), k)
		}
	}
	w.take(t, d.addr)
	w.check(t, d, plan, "switched")
	writeFile(t, source, fmt.Sprintf(migratedZone, 101, "new IN A 192.0.2.1\n"))
	d.must(t, "zone", "reload", "a.com")
	w.awaitPublic(t, d.addr, "a.com")
	await(t, "the new record is public and secure", 20*time.Second, func() (bool, string) {
		m, err := query(w.warm.addr, "new.a.com", dns.TypeA)
		return err == nil && m.AuthenticatedData && len(m.Answer) > 0, fmt.Sprint(m, err)
	})
	w.forgotten(t, d.addr, "the former signer")
	old.takeBack(t, w, d, plan)
	w.forgotten(t, old.addr, "us")
	w.judge(t)
}

// forgotten waits until the cache that keeps what it has holds nothing any more
// of whom a primary came after: TTLs are those of the SOA records, or less.
func (w *migration) forgotten(t *testing.T, primary, whom string) {
	t.Helper()
	for _, z := range w.zones {
		await(t, "what "+whom+" signed of "+z+" is forgotten", 30*time.Second, func() (bool, string) {
			want, err := serialAt(primary, z)
			if err != nil {
				return false, err.Error()
			}
			m, err := query(w.warm.addr, z, dns.TypeSOA)
			if err != nil || len(m.Answer) == 0 {
				return false, fmt.Sprint(m, err)
			}
			soa, ok := m.Answer[0].(*dns.SOA)
			return ok && int32(soa.Serial-want) >= 0, fmt.Sprint(m, want)
		})
	}
}

// sluice runs a command that uses the token itself.
func (o *openDNSSEC) sluice(t *testing.T, d *daemon, args ...string) string {
	t.Helper()
	return must(t, "env", append([]string{"SOFTHSM2_CONF=" + o.token.conf, program(t), "--api", d.socket()}, args...)...)
}

// takeBack has OpenDNSSEC sign and serve the zones again.
func (o *openDNSSEC) takeBack(t *testing.T, w *migration, d *daemon, plan string) {
	t.Helper()
	out := d.must(t, "migrate", "back", plan, "--i-understand")
	for _, z := range w.zones {
		if !strings.Contains(out, "ods-signer sign "+z+" --serial") {
			t.Errorf("the way back does not say how %s gets its serial:\n%s", z, out)
		}
	}
	o.startEnforcer(t)
	for _, z := range w.zones {
		ours, err := serialAt(d.addr, z)
		if err != nil {
			t.Fatal(err)
		}
		o.must(t, "signer", "clear", z)
		o.must(t, "signer", "sign", z, "--serial", fmt.Sprint(ours+1000))
		if z == "b.com" {
			o.must(t, "signer", "retransfer", z)
		}
		await(t, "OpenDNSSEC is above us with "+z, 90*time.Second, func() (bool, string) {
			theirs, err := serialAt(o.addr, z)
			return err == nil && theirs >= ours+1000, fmt.Sprint(theirs, ours, err)
		})
	}
	w.take(t, o.addr)
	for _, z := range w.zones {
		w.awaitPublic(t, o.addr, z)
	}
	w.secure(t, "back again")
	d.must(t, "migrate", "back", plan, "--i-understand", "--done")
}

// holdRollover has the rollover that is taken over wait before the old ZSK goes:
// as long as it stands here, OpenDNSSEC can go on with it.
func (o *openDNSSEC) holdRollover(t *testing.T, plan string) {
	t.Helper()
	path := filepath.Join(plan, "policies", "ecdsa.toml")
	text := strings.Replace(readFile(t, path), "[key-manager.zsk]\n", "[key-manager.zsk]\nauto-done = false\n", 1)
	if !strings.Contains(text, "auto-done") {
		t.Fatalf("%s has no table for ZSKs", path)
	}
	writeFile(t, path, text)
}

// startODSSluice is startSluice with a token that the daemon can use.
func (w *migration) startODSSluice(t *testing.T, token *softToken) *daemon {
	t.Helper()
	d := w.startSluice(t)
	d.process.stop()
	token.start(t, d)
	return d
}

type listedKey struct {
	ID, Keystore string
	Adopted      bool
}
