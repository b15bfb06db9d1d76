package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// parentZone is a zone above ours, signed by BIND's tools.
type parentZone struct {
	name, dir, file string // the file is signed
	records         string // without the DS records
	nsec3           bool
	serial          int
	ttl             int // of its own records, in seconds
}

func newParentZone(t *testing.T, name, records string, nsec3 bool) *parentZone {
	t.Helper()
	dir := shortDir(t)
	must(t, "dnssec-keygen", "-q", "-K", dir, "-a", "ECDSAP256SHA256", "-f", "KSK", name)
	must(t, "dnssec-keygen", "-q", "-K", dir, "-a", "ECDSAP256SHA256", name)
	return &parentZone{name: name, dir: dir, file: filepath.Join(dir, "signed"), records: records, nsec3: nsec3, serial: 1, ttl: 600}
}

// startParents starts named with com., which has example.com., and the root
// above it, both signed; nsec3 is for com.
func startParents(t *testing.T, nsec3 bool) (com, top *parentZone, server *secondary) {
	t.Helper()
	com = newParentZone(t, "com.", "ns.com. IN A 127.0.0.1\nexample.com. IN NS ns1.example.com.\nns1.example.com. IN A 192.0.2.1", nsec3)
	com.sign(t)
	top = newParentZone(t, ".", "ns.com. IN A 127.0.0.1\ncom. IN NS ns.com.", false)
	top.sign(t, com.ds(t))
	return com, top, startNamed(t, namedPrimary("com", com.file)+namedPrimary(".", top.file))
}

// sign signs the zone with these further records.
func (p *parentZone) sign(t *testing.T, more ...string) {
	t.Helper()
	p.serial++
	text := fmt.Sprintf("$TTL %d\n@ IN SOA ns.com. h.com. %d 60 60 86400 60\n@ IN NS ns.com.\n%s\n%s\n", p.ttl, p.serial, p.records, strings.Join(more, "\n"))
	args := []string{"-q", "-S", "-K", p.dir, "-d", p.dir, "-o", p.name, "-f", p.file}
	if p.nsec3 {
		args = append(args, "-3", "-", "-A")
	}
	must(t, "dnssec-signzone", append(args, writeFile(t, filepath.Join(p.dir, "unsigned"), text))...)
}

// ds is the DS record of the zone's KSK.
func (p *parentZone) ds(t *testing.T) string {
	t.Helper()
	keys, err := filepath.Glob(filepath.Join(p.dir, "K*.key"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range keys {
		if strings.Contains(readFile(t, file), " 257 ") {
			return strings.TrimSpace(must(t, "dnssec-dsfromkey", "-2", file))
		}
	}
	t.Fatalf("no KSK in %s", p.dir)
	return ""
}

// seen is what zone observe prints of an observation.
type seen struct {
	Observation struct {
		Text   string     `json:"text"`
		Zone   []seenFrom `json:"zone"`
		Parent []seenFrom `json:"parent"`
	} `json:"observation"`
	Notices []struct{ Severity, Text string } `json:"notices"`
}

// warnings are the notices that are more than information.
func (s seen) warnings() (out []string) {
	for _, n := range s.Notices {
		if n.Severity != "info" {
			out = append(out, n.Severity+" "+n.Text)
		}
	}
	return out
}

type seenFrom struct {
	Address, Error, Unvalidated string
	Since                       time.Time
	Serial                      uint32
	Keys                        []string
	Signed                      []struct{ Owner, Type, Key string }
	DS                          []struct{ Key string }
	Validated                   bool
	NoDS                        bool `json:"no_ds"`
}

func (d *daemon) observe(t *testing.T) (s seen) {
	t.Helper()
	if err := json.Unmarshal([]byte(d.must(t, "--json", "zone", "observe", example)), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestObserve_RealServersAndAChainFromTheRoot asks named, knotd and nsd as public
// servers, and named and knotd as the parent's, whose answers are validated
// from a root zone down by what a resolver passes on.
func TestObserve_RealServersAndAChainFromTheRoot(t *testing.T) {
	need(t, "named", "knotd", "nsd", "unbound", "dnssec-keygen", "dnssec-signzone", "dnssec-dsfromkey")
	com, top, named := startParents(t, true)
	knot := startKnotd(t, "com", named.addr)
	knot.awaitSerial(t, "com", 2)
	resolver := startUnbound(t, top.ds(t), map[string]string{".": named.addr, "com.": named.addr})
	await(t, "unbound answers", 20*time.Second, func() (bool, string) {
		m, err := query(resolver.addr, "com.", dns.TypeSOA)
		return err == nil && m.Rcode == dns.RcodeSuccess, fmt.Sprint(m, err)
	})

	d := startObserved(t, resolver.addr, top.ds(t), []string{named.addr, knot.addr})
	serial := d.awaitServed(t, example)
	public := []*secondary{startNamed(t, namedSecondary(example, d.addr)), startKnotd(t, example, d.addr), startNSD(t, example, d.addr)}
	var addrs []string
	for _, s := range public {
		s.awaitSerial(t, example, serial)
		addrs = append(addrs, s.addr)
	}
	d.setPolicy(t, observedPolicy([]string{named.addr, knot.addr}, addrs))

	s := d.observe(t)
	if len(s.Observation.Zone) != 3 || len(s.Observation.Parent) != 2 || len(s.warnings()) != 0 {
		t.Fatalf("seen %+v", s)
	}
	for _, at := range s.Observation.Zone {
		if at.Error != "" || at.Serial != serial || len(at.Keys) != 2 || len(at.Signed) < 5 {
			t.Errorf("name server %+v", at)
		}
		for _, sig := range at.Signed {
			if !slices.Contains(at.Keys, sig.Key) {
				t.Errorf("%s: signature over %s %s does not verify", at.Address, sig.Owner, sig.Type)
			}
		}
	}
	for _, at := range s.Observation.Parent {
		if !at.Validated || !at.NoDS || len(at.DS) != 0 {
			t.Errorf("parent without DS: %+v", at)
		}
	}

	// The DS comes at the parent: at both servers, validated, of our key.
	com.sign(t, anchor(t, d))
	if err := named.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	named.awaitSerial(t, "com", 3)
	knot.awaitSerial(t, "com", 3)
	for _, at := range d.observe(t).Observation.Parent {
		if !at.Validated || at.NoDS || len(at.DS) != 1 || at.DS[0].Key == "" {
			t.Errorf("parent with DS: %+v", at)
		}
	}
	history := d.must(t, "zone", "history", example, "--type", "ds.observed")
	if strings.Count(history, "\n") != 2 || !strings.Contains(history, "the parent has no DS, seen at all 2 servers") || !strings.Contains(history, "TTL 1h0m, seen at all 2 servers") {
		t.Errorf("history:\n%s", history)
	}
	if r := d.cli(t, "zone", "remove", example); r.code != 4 || !strings.Contains(r.stderr, "its parent has a DS") {
		t.Errorf("zone remove with a DS at the parent: %v", r)
	}

	// One server of each side goes away.
	public[1].stop()
	knot.stop()
	s = d.observe(t)
	texts := s.warnings()
	for i, want := range []string{
		"warning name server " + public[1].addr + " gives no usable answer since ", "warning the parent's server " + knot.addr + " gives no usable answer since ",
	} {
		if len(texts) != 2 || !strings.HasPrefix(texts[i], want) {
			t.Errorf("notices %q", texts)
		}
	}
	if table := d.must(t, "zone", "status", example, "--detailed"); !strings.Contains(table, "2 of 3 addresses of the zone's servers answer, 2 with serial "+uintText(serial)) {
		t.Errorf("status:\n%s", table)
	}
}

func observedPolicy(parent, public []string) string {
	list := func(addrs []string) string {
		quoted := make([]string, 0, len(addrs))
		for _, a := range addrs {
			quoted = append(quoted, fmt.Sprintf("%q", a))
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	}
	return fmt.Sprintf("version = \"v1\"\n[key-manager]\nobservation-interval = \"0s\"\nparent-nameservers = %s\npublication-nameservers = %s\n", list(parent), list(public))
}

// startObserved starts the daemon with a resolver and a trust anchor.
func startObserved(t *testing.T, resolver, trust string, parent []string) *daemon {
	t.Helper()
	dir := shortDir(t)
	policies := filepath.Join(dir, "policies")
	if err := os.Mkdir(policies, 0o755); err != nil {
		t.Fatal(err)
	}
	d := &daemon{data: filepath.Join(dir, "data"), addr: freeAddr(t)}
	config := writeFile(t, filepath.Join(dir, "config.toml"), fmt.Sprintf(
		"version = \"v1\"\npolicy-dir = %q\n[daemon]\nresolvers = [%q]\ntrust-anchors = [%q]\n", policies, resolver, trust))
	d.flags = []string{"--config", config, "--zone", exampleZone()}
	writeFile(t, filepath.Join(policies, "default.toml"), observedPolicy(parent, nil))
	d.start(t)
	return d
}

// setPolicy gives the default policy another text.
func (d *daemon) setPolicy(t *testing.T, text string) {
	t.Helper()
	writeFile(t, filepath.Join(filepath.Dir(d.data), "policies", "default.toml"), text)
	d.must(t, "policy", "reload")
}
