package e2e

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"sluice/e2e/zonegen"
)

// generated is a zone file of which any round of changes can be put in place.
type generated struct {
	zonegen.Config
	file string
}

func newGenerated(t *testing.T, c zonegen.Config) *generated {
	t.Helper()
	g := &generated{c, filepath.Join(shortDir(t), "zone")}
	g.put(t, c)
	return g
}

func (g *generated) put(t *testing.T, c zonegen.Config) {
	t.Helper()
	replaceFile(t, g.file, func(w io.Writer) error { return zonegen.Write(w, c) })
}

// change puts another round of changes in place.
func (g *generated) change(t *testing.T, changes int, round uint32) {
	t.Helper()
	c := g.Config
	c.Change, c.Round = changes, round
	g.put(t, c)
}

func (g *generated) source() string { return g.Apex() + "=" + g.file }

func TestReload_SecondariesTakeTheChangeByIXFR(t *testing.T) {
	need(t, "named", "knotd", "nsd", "dnssec-verify", "ldns-verify-zone", "kzonecheck")
	for _, denial := range denials {
		t.Run(denial, func(t *testing.T) {
			g := newGenerated(t, zonegen.Config{Kind: zonegen.TLD, Names: 1000})
			d := startDaemon(t, denialPolicy(denial), g.source())
			zone := g.Apex()
			first := d.awaitServed(t, zone)
			before := axfr(t, d.addr, zone)
			var all []*secondary
			for _, peer := range secondaries {
				s := peer.start(t, zone, d.addr)
				s.awaitSerial(t, zone, first)
				all = append(all, s)
			}
			serial := first
			const rounds = 3
			for round := range uint32(rounds) {
				g.change(t, 12, round+1)
				d.must(t, "zone", "reload", zone)
				serial = d.awaitChange(t, zone, serial)
				for _, s := range all {
					s.awaitSerial(t, zone, serial)
				}
			}
			// One whole transfer each, and one to this test; the rest in steps.
			whole, steps := strings.Count(d.log(), "kind=axfr"), strings.Count(d.log(), "kind=ixfr")
			if whole != 1+len(all) || steps < rounds*len(all) {
				t.Errorf("%d AXFR and %d IXFR for %d secondaries and %d changes", whole, steps, len(all), rounds)
			}
			file, after := d.dumpTo(t, zone)
			acceptedByAll(t, zone, file)
			sameZone(t, "IXFR applied", applyIXFR(t, before, ixfr(t, d.addr, zone, first)), after)
			for _, s := range all {
				sameZone(t, "what "+s.name+" serves", axfr(t, s.addr, zone), after)
			}
			if full := len(ixfr(t, d.addr, zone, first)); full >= len(after) {
				t.Errorf("IXFR has %d records, the zone %d", full, len(after))
			}
		})
	}
}

func TestReload_NothingChangedPublishesNothing(t *testing.T) {
	g := newGenerated(t, zonegen.Config{Kind: zonegen.Hosting, Names: 200})
	d := startDaemon(t, "", g.source())
	serial := d.awaitServed(t, g.Apex())
	before := axfr(t, d.addr, g.Apex())
	d.must(t, "zone", "reload", g.Apex())
	sameZone(t, "after a reload of the same file", before, axfr(t, d.addr, g.Apex()))
	if got, err := serialAt(d.addr, g.Apex()); got != serial || err != nil {
		t.Errorf("serial %d, %v; want %d", got, err, serial)
	}
}

// badZones are files that must be refused as a whole.
var badZones = []struct {
	name string
	edit func(good string) string
	says []string // parts of the message that an operator needs
}{
	{"cut off in a record", func(s string) string { return s[:len(s)-9] + "\nx IN" }, nil},
	{"binary", func(string) string { return "\x00\x01\xff\xfe\x7fELF\x00\x00\n\x00" }, nil},
	{"empty", func(string) string { return "" }, []string{"empty"}},
	{"a line of 4 MiB", func(s string) string { return s + "huge IN TXT " + strings.Repeat("a", 4<<20) + "\n" }, nil},
	{"another class", func(s string) string { return s + "chaos 3600 CH TXT \"class\"\n" }, nil},
	{"out of zone", func(s string) string { return s + "www.elsewhere.example. 3600 IN A 192.0.2.1\n" }, []string{"www.elsewhere.example"}},
	{"two SOA records", func(s string) string {
		return s + "@ 3600 IN SOA ns1 hostmaster 77 1800 900 604800 3600\n"
	}, []string{"SOA"}},
	{"no SOA", dropLine(`^@\s.*\sSOA\s`), []string{"SOA"}},
	{"no NS at the apex", dropLine(`^@\s.*\sNS\s`), []string{"NS"}},
	{"CNAME and other data", func(s string) string {
		return s + "alias 3600 IN CNAME ns1\nalias 3600 IN A 192.0.2.1\n"
	}, []string{"alias", "CNAME"}},
	{"RDATA of 65,536 octets", func(s string) string {
		return s + "big 3600 IN TYPE65280 \\# 65536 " + strings.Repeat("00", 65536) + "\n"
	}, nil},
	{"NXNAME as a record", func(s string) string { return s + "nx 3600 IN TYPE128 \\# 0\n" }, nil},
	{"a syntax error", func(s string) string { return s + "broken 3600 IN A 192.0.2.300\n" }, []string{"192.0.2.300"}},
	{"an include that is not there", func(s string) string { return s + "$INCLUDE nothing.here\n" }, []string{"nothing.here"}},
	{"an include outside of the folder", func(s string) string { return s + "$INCLUDE ../../../etc/passwd\n" }, nil},
}

func TestReload_BadFileKeepsTheLastGoodVersion(t *testing.T) {
	g := newGenerated(t, zonegen.Config{Kind: zonegen.Hosting, Names: 50})
	zone := g.Apex()
	good := readFile(t, g.file)
	d := startDaemon(t, "", g.source())
	serial := d.awaitServed(t, zone)
	before := axfr(t, d.addr, zone)
	put := func(text string) {
		replaceFile(t, g.file, func(w io.Writer) error {
			_, err := io.WriteString(w, text)
			return err
		})
	}
	for _, bad := range badZones {
		t.Run(bad.name, func(t *testing.T) {
			put(bad.edit(good))
			r := d.cli(t, "zone", "reload", zone)
			if r.code != 1 {
				t.Errorf("zone reload: %v; want exit code 1", r)
			}
			for _, part := range append(bad.says, "zone") {
				if !strings.Contains(r.stdout+r.stderr, part) {
					t.Errorf("zone reload does not speak of %q: %v", part, r)
				}
			}
			sameZone(t, "after the bad file", before, axfr(t, d.addr, zone))
			status := d.must(t, "zone", "status", zone)
			if !strings.Contains(status, "published, input failed") || !strings.Contains(status, " failed at ") {
				t.Errorf("zone status tells of no failure: %s", status)
			}
		})
	}
	t.Run("a missing file", func(t *testing.T) {
		if err := os.Remove(g.file); err != nil {
			t.Fatal(err)
		}
		if r := d.cli(t, "zone", "reload", zone); r.code != 1 {
			t.Errorf("zone reload: %v; want exit code 1", r)
		}
		sameZone(t, "after the file went away", before, axfr(t, d.addr, zone))
	})
	t.Run("a good one again", func(t *testing.T) {
		g.change(t, 5, 9)
		d.must(t, "zone", "reload", zone)
		d.awaitChange(t, zone, serial)
	})
	if history := d.must(t, "zone", "history", zone, "--type", "load.failed"); strings.Count(history, "load.failed") < len(badZones)/2 {
		t.Errorf("the history tells of too few failed loads:\n%s", history)
	}
}

func TestServe_BadFileOfOneZoneLeavesOthersAlone(t *testing.T) {
	good := newGenerated(t, zonegen.Config{Kind: zonegen.Hosting, Names: 50})
	bad := filepath.Join(shortDir(t), "bad")
	writeFile(t, bad, "this is no zone\n")
	d := startDaemon(t, "", "bad.example="+bad, good.source())
	d.awaitServed(t, good.Apex())
	m := ask(t, d.addr, "bad.example", dns.TypeSOA)
	if m.Rcode != dns.RcodeServerFailure {
		t.Errorf("a zone that was never loaded: %v", m)
	}
}
