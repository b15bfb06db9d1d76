package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// migratedKnot is knotd as a signer of several zones.
type migratedKnot struct {
	*secondary
	dir, conf string
	public    string
	policies  map[string]string // by zone
}

// zoneFile is what a zone is signed from.
func (k *migratedKnot) zoneFile(name string) string {
	return filepath.Join(k.dir, "zones", name+".zone")
}

// configure writes knot.conf; manual says that keys are managed by hand.
func (k *migratedKnot) configure(t *testing.T, manual string) {
	t.Helper()
	var text strings.Builder
	fmt.Fprintf(&text, `
server:
    rundir: "%[1]s/run"
    listen: 127.0.0.1@%[2]s
database:
    storage: "%[1]s/db"
log:
  - target: stderr
    any: info
remote:
  - id: public
    address: 127.0.0.1@%[3]s
acl:
  - id: here
    address: 127.0.0.1
    action: transfer
template:
  - id: default
    storage: "%[1]s/zones"
    notify: public
    acl: here
    zonefile-sync: -1
    zonefile-load: difference
    journal-content: changes
    dnssec-signing: on
`, k.dir, port(k.addr), port(k.public))
	for name, single := range map[string]string{"short": "off", "one": "on"} {
		fmt.Fprintf(&text, `policy:
  - id: %s
    single-type-signing: %s
    manual: %s
    dnskey-ttl: 5
    zone-max-ttl: 5
    propagation-delay: 30
    zsk-lifetime: 0
    rrsig-lifetime: 1d
    rrsig-refresh: 12h
`, name, single, manual)
	}
	text.WriteString("zone:\n")
	for _, name := range slices.Sorted(maps.Keys(k.policies)) {
		fmt.Fprintf(&text, "  - domain: %s\n    dnssec-policy: %s\n", name, k.policies[name])
	}
	writeFile(t, k.conf, text.String())
}

// startMigratedKnot starts knotd as the signer of zones by the policies "short"
// (KSK and ZSK) and "one" (CSK).
func startMigratedKnot(t *testing.T, public string, policies map[string]string) *migratedKnot {
	t.Helper()
	dir := shortDir(t)
	k := &migratedKnot{dir: dir, conf: filepath.Join(dir, "knot.conf"), public: public, policies: policies}
	for _, name := range []string{"run", "db", "zones"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name := range policies {
		writeFile(t, k.zoneFile(name), fmt.Sprintf(migratedZone, 1, ""))
	}
	k.secondary = &secondary{name: "knotd", addr: freeAddr(t)}
	k.configure(t, "off")
	k.secondary.process = start(t, "knotd", "knotd", "-c", k.conf)
	return k
}

// knotKeyLine is a key as keymgr lists it.
type knotKeyLine struct {
	ID                              string
	KSK, ZSK                        bool
	Tag                             uint16
	Publish, Active, Retire, Remove int64
}

// keys lists the keys of a zone.
func (k *migratedKnot) keys(t *testing.T, name string) (list []knotKeyLine) {
	t.Helper()
	if err := json.Unmarshal([]byte(must(t, "keymgr", "-c", k.conf, "-j", name, "list")), &list); err != nil {
		t.Fatal(err)
	}
	return list
}

func (k *migratedKnot) keymgr(t *testing.T, args ...string) string {
	t.Helper()
	return must(t, "keymgr", append([]string{"-c", k.conf}, args...)...)
}

func (k *migratedKnot) knotc(t *testing.T, args ...string) {
	t.Helper()
	await(t, "knotd takes "+strings.Join(args, " "), 20*time.Second, func() (bool, string) {
		r := run(t, "knotc", append([]string{"-c", k.conf}, args...)...)
		return r.code == 0, r.String()
	})
}

// awaitAbove waits until a server has a zone with a serial above one.
func awaitAbove(t *testing.T, addr, name string, serial uint32) {
	t.Helper()
	await(t, fmt.Sprintf("%s has a serial above %d", name, serial), 30*time.Second, func() (bool, string) {
		n, err := serialAt(addr, name)
		return err == nil && n > serial, fmt.Sprint(n, err)
	})
}

// TestMigrate_KnotAndBack has zones that knotd signs come to us, one with a CSK,
// one in the middle of a rollover of its ZSK and one of its KSK, and go back to
// knotd with the keys as they stand then.
func TestMigrate_KnotAndBack(t *testing.T) {
	t.Parallel()
	need(t, "knotd", "knotc", "keymgr")
	zones := []string{"keys.com", "rolls.com", "single.com"}
	w := newMigration(t, zones...)
	old := startMigratedKnot(t, w.public.addr, map[string]string{"keys.com": "short", "rolls.com": "short", "single.com": "one"})
	for _, z := range zones {
		awaitAbove(t, old.addr, z, 0)
		await(t, "knotd signs "+z, 30*time.Second, func() (bool, string) {
			m, err := query(old.addr, z, dns.TypeDNSKEY)
			return err == nil && has(m.Answer, dns.TypeDNSKEY), fmt.Sprint(m, err)
		})
	}
	w.take(t, old.addr)
	for _, z := range zones {
		for line := range strings.Lines(old.keymgr(t, z, "ds")) {
			if fields := strings.Fields(line); len(fields) > 5 && fields[4] == "2" {
				w.give(t, z, line)
			}
		}
	}
	w.watch(t)

	// The plan, in the middle of rollovers of which the key management then ends.
	for name, role := range map[string]string{"rolls.com": "zsk", "keys.com": "ksk"} {
		old.knotc(t, "zone-key-rollover", name, role)
		await(t, name+" has another "+role, 20*time.Second, func() (bool, string) {
			keys := old.keys(t, name)
			return len(keys) == 3, fmt.Sprint(keys)
		})
	}
	old.configure(t, "on")
	old.knotc(t, "reload")
	d := w.startSluice(t)
	dir := filepath.Join(shortDir(t), "plan")
	d.must(t, "migrate", "knot", old.conf, "-o", dir)
	plan := readFile(t, filepath.Join(dir, "PLAN.md"))
	for _, want := range []string{"Knot DNS 3", "### rolls.com", "| CSK |", "published", "manual: on", "zone-flush"} {
		if !strings.Contains(plan, want) {
			t.Errorf("%q is not in the plan:\n%s", want, plan)
		}
	}
	w.adapt(t, dir)
	w.importPlan(t, d, dir)
	for name, role := range map[string]string{"rolls.com": "zsk", "keys.com": "ksk"} {
		if list := d.must(t, "--json", "key", "status", name); !strings.Contains(list, `"`+role+`"`) {
			t.Errorf("the rollover of %s does not go on: %s", name, list)
		}
	}
	w.check(t, d, dir, "ready")

	w.take(t, d.addr)
	w.check(t, d, dir, "switched")
	writeFile(t, old.zoneFile("single.com"), fmt.Sprintf(migratedZone, 3, "more IN A 192.0.2.82\n"))
	d.must(t, "zone", "reload", "single.com")
	d.must(t, "zone", "resign", "rolls.com", "--full")
	for _, name := range []string{"rolls.com", "keys.com"} {
		await(t, "the rollover of "+name+" ends here", 90*time.Second, func() (bool, string) {
			w.follow(t)
			text := d.must(t, "--json", "key", "status", name)
			return strings.TrimSpace(text) == "[]", text
		})
	}
	for _, z := range zones {
		w.awaitPublic(t, d.addr, z)
	}
	w.secure(t, "signed here")
	migrateBackToKnot(t, w, d, old, dir)
	w.judge(t)
}

// migrateBackToKnot takes the zones back to knotd, with the keys that were
// written for it.
func migrateBackToKnot(t *testing.T, w *migration, d *daemon, old *migratedKnot, dir string) {
	t.Helper()
	var list []struct {
		Zone, Outcome string
		Files         []string
		Serial        uint32
	}
	if err := json.Unmarshal([]byte(d.must(t, "--json", "migrate", "back", dir, "--i-understand")), &list); err != nil {
		t.Fatal(err)
	}
	for _, one := range list {
		if one.Outcome != "waits" || len(one.Files) < 3 || one.Serial == 0 {
			t.Fatalf("back: %+v", one)
		}
		stay := map[uint16]bool{}
		for _, file := range one.Files {
			if !strings.HasSuffix(file, ".key") {
				continue
			}
			old.keymgr(t, one.Zone, "import-bind", file)
			var tag uint16
			if _, err := fmt.Sscanf(strings.TrimSuffix(file[strings.LastIndexByte(file, '+')+1:], ".key"), "%d", &tag); err != nil {
				t.Fatal(err)
			}
			stay[tag] = true
			args := []string{one.Zone, "set", fmt.Sprint(tag), "publish=-1h", "active=-1h"}
			if old.policies[one.Zone] == "one" {
				args = append(args, "ksk=yes", "zsk=yes", "ready=-1h")
			}
			old.keymgr(t, args...)
		}
		for _, k := range old.keys(t, one.Zone) {
			if !stay[k.Tag] {
				old.keymgr(t, one.Zone, "delete", fmt.Sprint(k.Tag))
			}
		}
		writeFile(t, old.zoneFile(one.Zone), fmt.Sprintf(migratedZone, one.Serial+1, "back IN A 192.0.2.83\n"))
		old.knotc(t, "zone-reload", one.Zone)
		awaitAbove(t, old.addr, one.Zone, one.Serial)
		await(t, "knotd has the keys of "+one.Zone+" alone", 20*time.Second, func() (bool, string) {
			m, err := query(old.addr, one.Zone, dns.TypeDNSKEY)
			if err != nil {
				return false, err.Error()
			}
			n := 0
			for _, rr := range m.Answer {
				if k, ok := rr.(*dns.DNSKEY); ok {
					n++
					if !stay[k.KeyTag()] {
						return false, m.String()
					}
				}
			}
			return n == len(stay), m.String()
		})
	}
	w.take(t, old.addr)
	for _, z := range w.zones {
		w.awaitPublic(t, old.addr, z)
	}
	w.secure(t, "back at knotd")
	await(t, "the zones are gone here", 20*time.Second, func() (bool, string) {
		r := d.cli(t, "migrate", "back", dir, "--done")
		return r.code == 0 && strings.Count(r.stdout, ": removed")+strings.Count(r.stdout, ": absent") == len(w.zones), r.String()
	})
	old.configure(t, "off")
	old.knotc(t, "reload")
}
