package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// The denial chain changes while the zone is served: each change is one IXFR
// for the secondaries, and a resolver that validated before validates on.
func TestDenial_ChangesWhileServed(t *testing.T) {
	need(t, "named", "nsd", "unbound", "dnssec-verify", "ldns-verify-zone", "kzonecheck")
	// With contents that outweigh the chain, a new chain is less than a zone.
	text := readFile(t, testdata("example.com.zone"))
	for i := range 150 {
		text += fmt.Sprintf("big%d.example.com. 3600 IN TXT \"%03d %s\"\n", i/50, i, strings.Repeat("x", 240))
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(testdata("."))); err != nil {
		t.Fatal(err)
	}
	source := writeFile(t, filepath.Join(dir, "example.com.zone"), text)
	d := startDaemon(t, denialPolicy("nsec"), example+"="+source)
	serial := d.awaitServed(t, example)
	seconds := []*secondary{startNamed(t, namedSecondary(example, d.addr)), startNSD(t, example, d.addr)}
	for _, s := range seconds {
		s.awaitSerial(t, example, serial)
	}
	anchor := ""
	for _, rr := range axfr(t, d.addr, example) {
		if key, ok := rr.(*dns.DNSKEY); ok && key.Flags&dns.SEP != 0 {
			anchor = key.String()
		}
	}
	resolver := startUnbound(t, anchor, map[string]string{example: seconds[0].addr})
	policy := filepath.Join(filepath.Dir(d.data), "policies", "default.toml")
	steps := []struct{ name, text string }{
		{"nsec", denialPolicy("nsec")},
		{"nsec3", denialPolicy("nsec3")},
		{"salt", denialPolicy("nsec3") + "salt = \"c0ffee\"\n"},
		{"opt-out", denialPolicy("nsec3-opt-out")},
		{"ttl", denialPolicy("nsec3-opt-out") + "[key-manager.records]\nttl = \"2h\"\n"},
		{"nsec-again", denialPolicy("nsec")},
	}
	for i, step := range steps {
		if i > 0 {
			before := axfr(t, d.addr, example)
			writeFile(t, policy, step.text)
			d.must(t, "policy", "reload")
			old := serial
			serial = d.awaitChange(t, example, old)
			sameZone(t, step.name+": IXFR applied", applyIXFR(t, before, ixfr(t, d.addr, example, old)), axfr(t, d.addr, example))
		}
		file, ours := d.dumpTo(t, example)
		acceptedByAll(t, example, file)
		for _, s := range seconds {
			s.awaitSerial(t, example, serial)
			sameZone(t, step.name+": what "+s.name+" serves", ours, axfr(t, s.addr, example))
		}
		if got, want := has(ours, dns.TypeNSEC), strings.HasPrefix(step.name, "nsec") && step.name != "nsec3"; got != want {
			t.Errorf("%s: NSEC records are there: %v", step.name, got)
		}
		for _, q := range []struct {
			name  string
			rcode int
		}{
			{"mail.example.com.", dns.RcodeSuccess},
			{step.name + ".example.com.", dns.RcodeNameError},
			{step.name + ".wild.example.com.", dns.RcodeSuccess},
			{step.name + ".x.went.example.com.", dns.RcodeSuccess}, // a wildcard without the type
		} {
			m := ask(t, resolver.addr, q.name, dns.TypeA)
			// What opt-out leaves open is answered without proof (RFC 5155, 9.2).
			secure := q.name == "mail.example.com." || !strings.Contains(step.text, "opt-out = true")
			if m.Rcode != q.rcode || m.AuthenticatedData != secure {
				t.Errorf("%s: unbound on %s: %s, validated: %v", step.name, q.name, dns.RcodeToString[m.Rcode], m.AuthenticatedData)
			}
		}
	}
	if n := strings.Count(d.log(), "ixfr as axfr"); n > 0 {
		t.Errorf("%d requests for IXFR were answered with the whole zone", n)
	}
	if n, least := strings.Count(d.log(), "kind=ixfr"), (len(steps)-1)*(1+len(seconds)); n < least {
		t.Errorf("%d IXFR, want one a step and peer, %d", n, least)
	}
}
