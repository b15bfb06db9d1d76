package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"sluice/e2e/zonegen"
)

// anchorOf is the key that a resolver trusts: the zone's key-signing key.
func anchorOf(t *testing.T, rrs []dns.RR) string {
	t.Helper()
	for _, rr := range rrs {
		if key, ok := rr.(*dns.DNSKEY); ok && key.Flags&dns.SEP != 0 {
			return key.String()
		}
	}
	t.Fatal("the zone has no key-signing key")
	return ""
}

// Yesterday's zone goes out again: by IXFR, valid, the content that it had. It
// is held over a kill, every version that was served can be had again, and the
// source is followed once the zone is released.
func TestRollback_SecondariesTakeYesterdaysZoneByIXFR(t *testing.T) {
	need(t, "named", "knotd", "nsd", "unbound", "dnssec-verify", "ldns-verify-zone", "kzonecheck")
	g := newGenerated(t, zonegen.Config{Kind: zonegen.TLD, Names: 400})
	zone := g.Apex()
	d := startDaemon(t, denialPolicy("nsec"), g.source())
	policy := filepath.Join(filepath.Dir(d.data), "policies", "default.toml")
	serial := d.awaitServed(t, zone)
	served := map[uint32][]dns.RR{}
	at := map[uint32]time.Time{}
	var all []*secondary
	for _, peer := range secondaries {
		all = append(all, peer.start(t, zone, d.addr))
	}
	note := func() {
		t.Helper()
		served[serial], at[serial] = axfr(t, d.addr, zone), time.Now()
		for _, s := range all {
			s.awaitSerial(t, zone, serial)
		}
	}
	note()
	yesterday := serial
	unsigned := d.must(t, "zone", "dump", zone, "--loaded")
	for round := range uint32(2) {
		g.change(t, 12, round+1)
		d.must(t, "zone", "reload", zone)
		serial = d.awaitChange(t, zone, serial)
		note()
	}
	writeFile(t, policy, denialPolicy("nsec3"))
	d.must(t, "policy", "reload")
	serial = d.awaitChange(t, zone, serial)
	note()
	resolver := startUnbound(t, anchorOf(t, served[serial]), map[string]string{zone: all[0].addr})

	// Delegations differ: nothing happens before that is confirmed.
	back := []string{"zone", "rollback", zone, "--to", uintText(yesterday), "--reason", "a bad export"}
	if r := d.cli(t, back...); r.code != 4 || !strings.Contains(r.stderr, "not confirmed") || !strings.Contains(r.stdout, "\tNS\t") {
		t.Fatalf("a rollback that nobody confirmed: %v", r)
	}
	whole, before := strings.Count(d.log(), "kind=axfr"), serial
	d.must(t, append(back, "--yes")...)
	serial = d.awaitChange(t, zone, before)
	for _, s := range all {
		s.awaitSerial(t, zone, serial)
	}
	if more := strings.Count(d.log(), "kind=axfr") - whole; more != 0 {
		t.Errorf("%d secondaries took the whole zone", more)
	}
	note()
	sameZone(t, "IXFR applied", applyIXFR(t, served[before], ixfr(t, d.addr, zone, before)), served[serial])
	for _, s := range all {
		sameZone(t, "what "+s.name+" serves", served[serial], axfr(t, s.addr, zone))
	}
	file, _ := d.dumpTo(t, zone)
	acceptedByAll(t, zone, file)
	await(t, "a resolver validates what named serves", 20*time.Second, func() (bool, string) {
		m, err := query(resolver.addr, zone, dns.TypeSOA)
		return err == nil && m.AuthenticatedData && has(m.Answer, dns.TypeSOA), fmt.Sprintf("%v\n%v", err, m)
	})
	if now := d.must(t, "zone", "dump", zone, "--loaded"); now != unsigned {
		t.Error("the content is not that of yesterday")
	}

	// Another one, and the daemon is killed at once; the hold stands.
	d.must(t, "zone", "rollback", zone, "--to", uintText(yesterday+1), "--reason", "that one", "--yes", "--no-wait")
	d.kill()
	d.start(t)
	await(t, "the second rollback is published", time.Minute, func() (bool, string) {
		r := d.cli(t, "zone", "status", zone)
		return strings.Contains(r.stdout, "published, held") && strings.Contains(r.stdout, "rollback to serial "+uintText(yesterday+1)), r.String()
	})
	await(t, "its content is served", time.Minute, func() (bool, string) {
		r := d.cli(t, "zone", "diff", zone, uintText(yesterday+1), "s"+publishedInstance(t, d, zone))
		content := 0
		for line := range strings.Lines(r.stdout) {
			if !strings.Contains(line, "\tRRSIG\t") && !strings.Contains(line, "\tNSEC") && !strings.Contains(line, "\tSOA\t") {
				content++
			}
		}
		return r.code == 0 && content == 0, r.String()
	})
	serial, _ = serialAt(d.addr, zone)
	note()
	d.must(t, "zone", "release", zone)
	serial = d.awaitChange(t, zone, serial)
	note()
	for n, rrs := range served {
		file := filepath.Join(t.TempDir(), "version.zone")
		d.must(t, "zone", "dump", zone, "--serial", uintText(n), "-o", file)
		sameZone(t, "dump of serial "+uintText(n), rrs, parseFile(t, zone, file))
		d.must(t, "zone", "dump", zone, "--at", at[n].UTC().Format(time.RFC3339Nano), "-o", file+"2")
		sameZone(t, "dump of the time of serial "+uintText(n), rrs, parseFile(t, zone, file+"2"))
	}
	d.must(t, "zone", "replay", zone, "--verify")
	d.must(t, "journal", "verify")
}

// publishedInstance is the sequence of what is served.
func publishedInstance(t *testing.T, d *daemon, zone string) string {
	t.Helper()
	for line := range strings.Lines(d.must(t, "zone", "status", zone)) {
		if rest, ok := strings.CutPrefix(line, "published:"); ok {
			instance, _, _ := strings.Cut(strings.TrimSpace(rest), ",")
			return strings.TrimPrefix(instance, "s")
		}
	}
	t.Fatal("nothing is published")
	return ""
}
