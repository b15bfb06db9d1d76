package e2e

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	_ "github.com/ncruces/go-sqlite3/driver" // the driver "sqlite3"
	_ "github.com/ncruces/go-sqlite3/embed"  // SQLite itself
)

// pdnsSchema is the schema of PowerDNS for SQLite, as its package has it.
const pdnsSchema = "/usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql"

// migratedPDNS is pdns_server as a signer of several zones, with the backend
// gsqlite3.
type migratedPDNS struct {
	*secondary
	dir string
}

func (p *migratedPDNS) util(t *testing.T, args ...string) string {
	t.Helper()
	return must(t, "pdnsutil", append([]string{"--config-dir=" + p.dir}, args...)...)
}

// startMigratedPDNS starts pdns_server without zones.
func startMigratedPDNS(t *testing.T) *migratedPDNS {
	t.Helper()
	p := &migratedPDNS{secondary: &secondary{name: "pdns_server", addr: freeAddr(t)}, dir: shortDir(t)}
	db := filepath.Join(p.dir, "pdns.sqlite")
	schema, err := sql.Open("sqlite3", "file:"+db)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := schema.Exec(readFile(t, pdnsSchema)); err != nil {
		t.Fatal(err)
	}
	if err := schema.Close(); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(p.dir, "pdns.conf"), fmt.Sprintf(`
launch=gsqlite3
gsqlite3-database=%s
gsqlite3-dnssec=yes
local-address=127.0.0.1
local-port=%s
socket-dir=%s
daemon=no
guardian=no
write-pid=no
disable-syslog=yes
primary=yes
only-notify=
xfr-cycle-interval=1
cache-ttl=0
query-cache-ttl=0
negquery-cache-ttl=0
zone-cache-refresh-interval=0
domain-metadata-cache-ttl=0
allow-axfr-ips=127.0.0.0/8
`, db, port(p.addr), p.dir))
	p.secondary.process = start(t, "pdns_server", "pdns_server", "--config-dir="+p.dir)
	return p
}

// keyIDs are the IDs of a zone's keys by their tags.
func (p *migratedPDNS) keyIDs(t *testing.T, name string) map[string]string {
	t.Helper()
	ids := map[string]string{}
	for line := range strings.Lines(p.util(t, "list-keys", name)) {
		if fields := strings.Fields(line); len(fields) > 4 && fields[0] == name {
			ids[fields[len(fields)-1]] = fields[len(fields)-3]
		}
	}
	return ids
}

// TestMigrate_PowerDNSAndBack has zones that PowerDNS signs as it answers come to
// us, one with a CSK and one with KSK, ZSK and NSEC3; one gets another ZSK here,
// and both go back to PowerDNS.
func TestMigrate_PowerDNSAndBack(t *testing.T) {
	t.Parallel()
	need(t, "pdns_server", "pdnsutil")
	if _, err := os.Stat(pdnsSchema); err != nil {
		need(t, "pdns-backend-sqlite3") // of which no command is a part
	}
	zones := []string{"both.com", "single.com"}
	w := newMigration(t, zones...)
	old := startMigratedPDNS(t)
	for _, z := range zones {
		old.util(t, "load-zone", z, writeFile(t, filepath.Join(old.dir, z+".zone"), fmt.Sprintf(migratedZone, 1, "")))
		old.util(t, "set-kind", z, "primary")
		old.util(t, "set-meta", z, "ALSO-NOTIFY", w.public.addr)
		old.util(t, "set-meta", z, "SOA-EDIT", "INCEPTION-INCREMENT")
	}
	old.util(t, "secure-zone", "single.com")
	old.util(t, "add-zone-key", "both.com", "ksk", "active", "published", "ecdsa256")
	old.util(t, "add-zone-key", "both.com", "zsk", "active", "published", "ecdsa256")
	old.util(t, "set-nsec3", "both.com", "1 0 0 -")
	for _, z := range zones {
		old.util(t, "rectify-zone", z)
		// Its serial is higher than the one in the database.
		awaitAbove(t, old.addr, z, 2000000000)
	}
	w.take(t, old.addr)
	for _, z := range zones {
		w.awaitPublic(t, old.addr, z)
		for line := range strings.Lines(old.util(t, "export-zone-ds", z)) {
			record, _, _ := strings.Cut(line, ";")
			if fields := strings.Fields(record); len(fields) > 5 && fields[5] == "2" {
				w.give(t, z, record)
			}
		}
	}
	w.watch(t)

	d := w.startSluice(t)
	dir := filepath.Join(shortDir(t), "plan")
	d.must(t, "migrate", "powerdns", old.dir, "-o", dir)
	plan := readFile(t, filepath.Join(dir, "PLAN.md"))
	for _, want := range []string{"PowerDNS 4", "### both.com", "| CSK |", "| ZSK |", "ALLOW-AXFR-FROM"} {
		if !strings.Contains(plan, want) {
			t.Errorf("%q is not in the plan:\n%s", want, plan)
		}
	}
	w.adapt(t, dir)
	w.importPlan(t, d, dir)
	w.check(t, d, dir, "ready")
	if m, err := query(d.addr, "both.com", dns.TypeNSEC3PARAM); err == nil && m.Rcode == dns.RcodeSuccess && !has(m.Answer, dns.TypeNSEC3PARAM) {
		t.Errorf("both.com has no NSEC3 here: %v", m)
	}

	w.take(t, d.addr)
	w.check(t, d, dir, "switched")
	old.util(t, "add-record", "single.com", "more", "A", "5", "192.0.2.82")
	old.util(t, "increase-serial", "single.com")
	d.must(t, "zone", "reload", "single.com")
	await(t, "a record that is new in PowerDNS is public", 30*time.Second, func() (bool, string) {
		m, err := query(w.public.addr, "more.single.com", dns.TypeA)
		return err == nil && len(m.Answer) > 0, fmt.Sprint(m, err)
	})
	d.must(t, "key", "roll", "both.com", "zsk")
	await(t, "both.com has another ZSK", time.Minute, func() (bool, string) {
		text := d.must(t, "--json", "key", "status", "both.com")
		return strings.TrimSpace(text) == "[]", text
	})
	for _, z := range zones {
		w.awaitPublic(t, d.addr, z)
	}
	w.secure(t, "signed here")
	migrateBackToPDNS(t, w, d, old, dir)
	w.judge(t)
}

// migrateBackToPDNS takes the zones back to PowerDNS, which still has the keys of
// before.
func migrateBackToPDNS(t *testing.T, w *migration, d *daemon, old *migratedPDNS, dir string) {
	t.Helper()
	var list []struct {
		Zone, Outcome string
		Files         []string
		Serial        uint32
	}
	if err := json.Unmarshal([]byte(d.must(t, "--json", "migrate", "back", dir, "--i-understand")), &list); err != nil {
		t.Fatal(err)
	}
	fresh := 0
	for _, one := range list {
		if one.Outcome != "waits" || len(one.Files) < 3 || one.Serial == 0 {
			t.Fatalf("back: %+v", one)
		}
		has, stay := old.keyIDs(t, one.Zone), []string{}
		for _, file := range one.Files {
			base, ok := strings.CutSuffix(file, ".private")
			if !ok {
				continue
			}
			tag := strings.TrimLeft(base[strings.LastIndexByte(base, '+')+1:], "0")
			stay = append(stay, tag)
			if has[tag] != "" {
				continue
			}
			fresh++
			role := "zsk"
			if strings.Contains(readFile(t, base+".key"), " 257 ") {
				role = "ksk"
			}
			old.util(t, "import-zone-key", one.Zone, file, "active", role, "published")
		}
		for tag, id := range has {
			if !slices.Contains(stay, tag) {
				old.util(t, "remove-zone-key", one.Zone, id)
			}
		}
		old.util(t, "replace-rrset", one.Zone, "@", "SOA", "5", fmt.Sprintf("ns1.%s hostmaster.%[1]s %d 60 60 86400 5", one.Zone, one.Serial+1))
		old.util(t, "rectify-zone", one.Zone)
		awaitAbove(t, old.addr, one.Zone, one.Serial)
		if now := old.keyIDs(t, one.Zone); len(now) != len(stay) {
			t.Errorf("%s: PowerDNS has keys %v, want %q", one.Zone, now, stay)
		}
	}
	if fresh != 1 {
		t.Errorf("%d keys were new to PowerDNS, want the ZSK of both.com", fresh)
	}
	w.take(t, old.addr)
	for _, z := range w.zones {
		w.awaitPublic(t, old.addr, z)
	}
	w.secure(t, "back at PowerDNS")
	await(t, "the zones are gone here", 20*time.Second, func() (bool, string) {
		r := d.cli(t, "migrate", "back", dir, "--done")
		return r.code == 0 && strings.Count(r.stdout, ": removed")+strings.Count(r.stdout, ": absent") == len(w.zones), r.String()
	})
}
