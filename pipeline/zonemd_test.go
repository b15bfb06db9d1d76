package pipeline

import (
	"bytes"
	"crypto/sha512"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"sluice/journal/journaltest"
	"sluice/signer/zone"
)

// zonemdOf is the ZONEMD record of a zone in text (RFC 8976, 3), SHA-384.
func zonemdOf(t *testing.T, serial int, text string) string {
	t.Helper()
	type record struct{ key, wire []byte }
	var all []record
	for _, rr := range records(t, text) {
		buf := make([]byte, 1024)
		n, err := dns.PackRR(rr, buf, 0, nil, false)
		if err != nil {
			t.Fatal(err)
		}
		name, err := zone.ParseName(rr.Header().Name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, record{zone.AppendKey(nil, zone.KindContents, name, zone.Type(rr.Header().Rrtype)), buf[:n]})
	}
	slices.SortFunc(all, func(a, b record) int {
		if c := bytes.Compare(a.key, b.key); c != 0 {
			return c
		}
		return bytes.Compare(a.wire, b.wire)
	})
	h := sha512.New384()
	for _, r := range all {
		h.Write(r.wire)
	}
	return fmt.Sprintf("@ 300 IN ZONEMD %d 1 1 %x", serial, h.Sum(nil))
}

func TestTransfer_ZONEMDThatComesByIXFRIsVerified(t *testing.T) {
	version := func(serial int) string {
		return zoneFileOf(serial, "a TXT one", fmt.Sprintf("m A 192.0.2.%d", serial), fmt.Sprintf("n%d.ent TXT x", serial), "z TXT last")
	}
	with := func(serial int) (text, md string) {
		md = zonemdOf(t, serial, version(serial))
		return version(serial) + md + "\n", md
	}
	step := func(p *primary, from, to int, old, md string) {
		text := version(to)
		if md != "" {
			text += md + "\n"
		}
		lines := []string{soa(from), fmt.Sprintf("m 300 A 192.0.2.%d", from), fmt.Sprintf("n%d.ent 300 TXT x", from)}
		if old != "" {
			lines = append(lines, old)
		}
		lines = append(lines, soa(to), fmt.Sprintf("m 300 A 192.0.2.%d", to), fmt.Sprintf("n%d.ent 300 TXT x", to))
		if md != "" {
			lines = append(lines, md)
		}
		p.serve(text, lines...)
		p.questions()
	}
	policies := map[string]Policy{}
	for name, text := range map[string]string{
		"default": "", "require": "[loader.checks]\nzonemd = \"require\"\n", "ignore": "[loader.checks]\nzonemd = \"ignore\"\n",
		"low": "[loader.checks]\nmax-ttl = \"2m\"\n",
	} {
		p, err := Parse(name, []byte("version = \"v1\"\n"+text))
		if err != nil {
			t.Fatal(err)
		}
		policies[name] = p
	}
	text, first := with(10)
	_, second := with(11)
	wrong := strings.Replace(second, " 1 1 ", " 1 1 00", 1)[:len(second)]

	p := newPrimary(t, text)
	r := newRig(t, journaltest.New(), policies)
	if st := r.addWith("require", p.addr); st.State != "published" || st.Loaded.ZONEMD != "verified" {
		t.Fatalf("AXFR: state %q, error %q, %+v", st.State, st.LastError, st.Loaded)
	}
	step(p, 10, 11, first, second)
	st := r.ask(false)
	if asked := p.questions(); asked != "SOA IXFR" || st.LastError != "" || st.Loaded.Serial != 11 || st.Loaded.ZONEMD != "verified" {
		t.Errorf("IXFR with its digest: asked %s, error %q, %+v", asked, st.LastError, st.Loaded)
	}
	// Gone: the policy requires one.
	step(p, 11, 12, second, "")
	if st = r.ask(false); st.Loaded.Serial != 11 || !strings.Contains(st.LastError, "no ZONEMD") {
		t.Errorf("a ZONEMD that went: serial %d, error %q", st.Loaded.Serial, st.LastError)
	}
	if _, err := r.turn("default"); err != nil {
		t.Fatal(err)
	}
	if st = r.ask(false); st.Loaded.Serial != 12 || st.LastError != "" || st.Loaded.ZONEMD != "" {
		t.Errorf("not required: error %q, %+v", st.LastError, st.Loaded)
	}
	r.replayed()

	// What does not match is asked for in whole, which has the last word.
	for _, c := range []struct{ name, policy, old, md string }{
		{"another digest", "default", first, wrong},
		{"one that stayed", "default", "", ""},
		{"one that stayed, required", "require", "", ""},
	} {
		p := newPrimary(t, text)
		r := newRig(t, journaltest.New(), policies)
		r.addWith(c.policy, p.addr)
		step(p, 10, 11, c.old, c.md)
		if c.md == "" {
			p.serve(version(11)+first+"\n", soa(10), "m 300 A 192.0.2.10", "n10.ent 300 TXT x", soa(11), "m 300 A 192.0.2.11", "n11.ent 300 TXT x")
			p.questions()
		}
		st := r.ask(false)
		if asked := p.questions(); asked != "SOA IXFR AXFR" || st.Loaded.Serial != 10 || !strings.Contains(st.LastError, "ZONEMD does not match") {
			t.Errorf("%s: asked %s, serial %d, error %q", c.name, asked, st.Loaded.Serial, st.LastError)
		}
	}

	ignored := newRig(t, journaltest.New(), policies)
	p = newPrimary(t, text)
	ignored.addWith("ignore", p.addr)
	step(p, 10, 11, first, wrong)
	if st := ignored.ask(false); st.LastError != "" || st.Loaded.Serial != 11 || st.Loaded.ZONEMD != "unchecked" {
		t.Errorf("ignored: error %q, %+v", st.LastError, st.Loaded)
	}

	// Lowered TTLs are not what the digest covers: the whole zone shows it.
	low := newRig(t, journaltest.New(), policies)
	p = newPrimary(t, text)
	if st := low.addWith("low", p.addr); st.State != "published" || st.Loaded.ZONEMD != "verified" {
		t.Fatalf("lowered TTLs: error %q, %+v", st.LastError, st.Loaded)
	}
	step(p, 10, 11, first, second)
	if st := low.ask(false); st.LastError != "" || st.Loaded.Serial != 11 || st.Loaded.ZONEMD != "verified" {
		t.Errorf("lowered TTLs: error %q, %+v", st.LastError, st.Loaded)
	}
}
