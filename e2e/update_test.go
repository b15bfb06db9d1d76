package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

const (
	updateSecret = "c2x1aWNlIHVwZGF0ZSBzZWNyZXQgb2YgMzIgYnl0ZXM="
	updateZone   = `$TTL 3600
@ IN SOA ns1 hostmaster 1 7200 3600 1209600 300
  IN NS ns1
  IN NS ns2.example.net.
ns1 IN A 192.0.2.1
www IN A 192.0.2.80
sub IN NS ns.example.net.
`
	updatePolicy = `version = "v1"
[[loader.update]]
key = "upd"
names = ["@", "*"]
types = ["A", "AAAA", "TXT", "CNAME", "MX", "NS", "SOA", "DS"]
[[loader.update]]
key = "acme"
names = ["_acme-challenge.*"]
types = ["TXT"]
[server.outbound]
provide-xfr-to = ["127.0.0.0/8^upd"]
`
)

// startUpdated starts a daemon with updateZone, and the keys upd and acme.
func startUpdated(t *testing.T, policy string) *daemon {
	t.Helper()
	source := writeFile(t, filepath.Join(t.TempDir(), "example.com.zone"), updateZone)
	d := startDaemon(t, policy, "example.com="+source)
	d.awaitServed(t, "example.com")
	secret := writeFile(t, filepath.Join(t.TempDir(), "secret"), updateSecret)
	for _, key := range []string{"upd", "acme"} {
		d.must(t, "tsig", "add", key, "hmac-sha256", "--secret-file", secret)
	}
	return d
}

// sendUpdate sends an update of example.com that fill makes and returns its RCODE.
func sendUpdate(t *testing.T, addr, network, key string, fill func(*dns.Msg)) string {
	t.Helper()
	return sendUpdateBy(t, &dns.Client{Net: network}, addr, key, fill)
}

// sendUpdateBy is sendUpdate by a client that may have a TLS config.
func sendUpdateBy(t *testing.T, c *dns.Client, addr, key string, fill func(*dns.Msg)) string {
	t.Helper()
	m := new(dns.Msg)
	m.SetUpdate("example.com.")
	fill(m)
	c.Timeout, c.TsigSecret = 10*time.Second, map[string]string{key: updateSecret}
	m.SetTsig(key, dns.HmacSHA256, 300, time.Now().Unix())
	r, _, err := c.Exchange(m, addr)
	// What is wrong with the key is told unsigned (RFC 8945, 5.3.2).
	if err != nil && (r == nil || r.Rcode != dns.RcodeNotAuth) {
		t.Fatal(err)
	}
	return dns.RcodeToString[r.Rcode]
}

func updateRRs(t *testing.T, lines ...string) (out []dns.RR) {
	t.Helper()
	for _, line := range lines {
		rr, err := dns.NewRR("$ORIGIN example.com.\n$TTL 300\n" + line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		out = append(out, rr)
	}
	return out
}

// publishes waits until what is published has, or has not, a text.
func (d *daemon) publishes(t *testing.T, text string, want bool) {
	t.Helper()
	await(t, fmt.Sprintf("%q published: %v", text, want), 10*time.Second, func() (bool, string) {
		r := d.cli(t, "zone", "dump", "example.com")
		dump := strings.Join(strings.Fields(r.stdout), " ")
		return r.code == 0 && strings.Contains(dump, text) == want, r.String()[:min(len(r.String()), 300)]
	})
}

// feed runs a command that reads what is to be done.
func feed(t *testing.T, input, command string, args ...string) (out string, ok bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command, args...)
	cmd.Stdin = strings.NewReader(input)
	text, err := cmd.CombinedOutput()
	return string(text), err == nil
}

func TestUpdate_NsupdateAndKnsupdate(t *testing.T) {
	t.Parallel()
	need(t, "nsupdate", "knsupdate")
	d := startUpdated(t, updatePolicy)
	server := "server 127.0.0.1 " + port(d.addr) + "\n"
	const upd, acme = "hmac-sha256:upd:" + updateSecret, "hmac-sha256:acme:" + updateSecret
	keyFile := writeFile(t, filepath.Join(t.TempDir(), "upd.key"), `key "upd" { algorithm hmac-sha256; secret "`+updateSecret+`"; };`)
	for _, tc := range []struct {
		name    string
		command []string
		input   string
		fails   string // "" where it succeeds
		has     string // in what is published then
	}{
		{"over UDP", []string{"nsupdate", "-y", upd}, "zone example.com\nupdate add a.example.com 60 A 192.0.2.11\nsend\n", "", "a.example.com. 60 IN A 192.0.2.11"},
		{"over TCP, the key from a file", []string{"nsupdate", "-v", "-k", keyFile}, "zone example.com\nupdate add b.example.com 60 A 192.0.2.12\nsend\n", "", "b.example.com. 60 IN A 192.0.2.12"},
		{"the zone is found", []string{"nsupdate", "-y", upd}, "update add c.deep.example.com 60 TXT \"found\"\nsend\n", "", `c.deep.example.com. 60 IN TXT "found"`},
		{
			"prerequisites that hold",
			[]string{"nsupdate", "-y", upd},
			"zone example.com\nprereq yxdomain a.example.com\nprereq nxrrset a.example.com AAAA\nprereq yxrrset a.example.com A 192.0.2.11\nprereq nxdomain nobody.example.com\n" +
				"update delete a.example.com A\nupdate add a.example.com 60 A 192.0.2.13\nsend\n", "", "a.example.com. 60 IN A 192.0.2.13",
		},
		{"a prerequisite that does not", []string{"nsupdate", "-y", upd}, "zone example.com\nprereq nxdomain a.example.com\nupdate delete a.example.com\nsend\n", "YXDOMAIN", ""},
		{"no key", []string{"nsupdate"}, "zone example.com\nupdate delete a.example.com\nsend\n", "REFUSED", ""},
		{"an unknown key", []string{"nsupdate", "-y", "hmac-sha256:other:" + updateSecret}, "zone example.com\nupdate delete a.example.com\nsend\n", "BADKEY", ""},
		{"another secret", []string{"nsupdate", "-y", "hmac-sha256:upd:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}, "zone example.com\nupdate delete a.example.com\nsend\n", "BADSIG", ""},
		{"a name that is not the key's", []string{"nsupdate", "-y", acme}, "zone example.com\nupdate delete a.example.com\nsend\n", "REFUSED", ""},
		{"the signer's own", []string{"nsupdate", "-y", upd}, "zone example.com\nupdate delete example.com DNSKEY\nsend\n", "REFUSED", ""},
		{"another zone", []string{"nsupdate", "-y", upd}, "zone example.org\nupdate delete a.example.org\nsend\n", "NOTAUTH", ""},
		{
			"knsupdate",
			[]string{"knsupdate", "-y", upd},
			"zone example.com.\norigin example.com.\nttl 60\nprereq yxdomain a\nupdate add d A 192.0.2.14\nsend\nquit\n", "", "d.example.com. 60 IN A 192.0.2.14",
		},
		{"knsupdate over TCP", []string{"knsupdate", "-v", "-y", upd}, "zone example.com.\nupdate add e.example.com. 60 A 192.0.2.15\nsend\nquit\n", "", "e.example.com. 60 IN A 192.0.2.15"},
	} {
		out, ok := feed(t, server+tc.input, tc.command[0], tc.command[1:]...)
		failed := !ok || strings.Contains(out, "failed") || strings.Contains(out, "error")
		if failed != (tc.fails != "") || !strings.Contains(out, tc.fails) {
			t.Errorf("%s: %q, want %q", tc.name, out, tc.fails)
			continue
		}
		if tc.has != "" {
			d.publishes(t, tc.has, true)
		}
	}
	d.must(t, "zone", "verify", "example.com")
	history := d.must(t, "zone", "history", "example.com")
	for _, want := range []string{"update by key upd. from 127.0.0.1: 1 record added", "update by key upd. from 127.0.0.1: 1 record added, 1 removed", "1 update taken up"} {
		if !strings.Contains(history, want) {
			t.Errorf("history lacks %q:\n%s", want, history)
		}
	}
	if r := d.cli(t, "zone", "reload", "example.com"); r.code != 4 || !strings.Contains(r.stderr, "zone reload --full") {
		t.Errorf("reload: %v", r)
	}
	if r := d.cli(t, "zone", "reload", "--full", "example.com"); r.code != 4 || !strings.Contains(r.stderr, "records of it are not in its source") {
		t.Errorf("reload --full: %v", r)
	}
	d.must(t, "zone", "reload", "--full", "--replace", "example.com")
	d.publishes(t, "a.example.com. 60 IN A", false)

	// A zone without a file.
	d.must(t, "zone", "add", "dyn.example", "--source", "update:ns1.example.net,ns2.example.net")
	if out, ok := feed(t, server+"zone dyn.example\nupdate add www.dyn.example 60 A 192.0.2.1\nsend\n", "nsupdate", "-y", upd); !ok {
		t.Fatal(out)
	}
	await(t, "the update of dyn.example is loaded", 10*time.Second, func() (bool, string) {
		dump := d.must(t, "zone", "dump", "--loaded", "dyn.example")
		return strings.Contains(dump, "www.dyn.example."), dump
	})
}

// What an update that was answered NOERROR brought is there after the process was
// killed at once.
func TestUpdate_OutlivesACrash(t *testing.T) {
	t.Parallel()
	d := startUpdated(t, updatePolicy)
	for i := range 3 {
		record := fmt.Sprintf("h%d 60 A 192.0.2.%d", i, i)
		if got := sendUpdate(t, d.addr, "tcp", "upd.", func(m *dns.Msg) { m.Insert(updateRRs(t, record)) }); got != "NOERROR" {
			t.Fatalf("answered %s", got)
		}
		d.kill()
		d.start(t)
		d.awaitServed(t, "example.com")
		d.publishes(t, fmt.Sprintf("h%d.example.com. 60 IN A 192.0.2.%d", i, i), true)
	}
	d.must(t, "journal", "verify")
}

// The ways of external-dns and of certificate clients, as their sources have them.
func TestUpdate_WhatProgramsDo(t *testing.T) {
	t.Parallel()
	d := startUpdated(t, updatePolicy)

	// external-dns lists by AXFR, adds, and removes with the TTL that it knows.
	list := func() (out []string) {
		m := new(dns.Msg)
		m.SetAxfr("example.com.")
		m.SetTsig("upd.", dns.HmacSHA256, 300, time.Now().Unix())
		tr := &dns.Transfer{TsigSecret: map[string]string{"upd.": updateSecret}}
		envelopes, err := tr.In(m, d.addr)
		if err != nil {
			t.Fatal(err)
		}
		for e := range envelopes {
			if e.Error != nil {
				t.Fatal(e.Error)
			}
			for _, rr := range e.RR {
				if h := rr.Header(); slices.Contains([]uint16{dns.TypeA, dns.TypeTXT, dns.TypeCNAME}, h.Rrtype) {
					out = append(out, strings.Join(strings.Fields(rr.String()), " "))
				}
			}
		}
		return out
	}
	lists := func(record string, want bool) {
		t.Helper()
		await(t, fmt.Sprintf("%s listed: %v", record, want), 10*time.Second, func() (bool, string) {
			all := list()
			return slices.Contains(all, record) == want, fmt.Sprint(all)
		})
	}
	records := updateRRs(t, "app 0 A 192.0.2.21", "app 0 A 192.0.2.22", `a-app 0 TXT "heritage=external-dns,external-dns/owner=me"`)
	for _, rr := range records {
		if got := sendUpdate(t, d.addr, "udp", "upd.", func(m *dns.Msg) { m.Insert([]dns.RR{rr}) }); got != "NOERROR" {
			t.Fatalf("%s: answered %s", rr, got)
		}
	}
	lists("app.example.com. 0 IN A 192.0.2.22", true)
	for _, rr := range updateRRs(t, "app 0 A 192.0.2.21", "app 0 A 192.0.2.22") {
		if got := sendUpdate(t, d.addr, "udp", "upd.", func(m *dns.Msg) { m.Remove([]dns.RR{rr}) }); got != "NOERROR" {
			t.Fatalf("%s: answered %s", rr, got)
		}
	}
	lists("app.example.com. 0 IN A 192.0.2.22", false)

	// Certificate clients ask for the SOA of each name upwards, until one answers with
	// it; other names must not be an error.
	const challenge = "_acme-challenge.www.example.com."
	zone := ""
	for _, at := range dns.Split(challenge) {
		q := new(dns.Msg)
		q.SetQuestion(challenge[at:], dns.TypeSOA)
		q.SetEdns0(4096, false)
		r, _, err := new(dns.Client).Exchange(q, d.addr)
		if err != nil || r.Rcode != dns.RcodeSuccess && r.Rcode != dns.RcodeNameError {
			t.Fatalf("SOA of %s: %v, %v", challenge[at:], r, err)
		}
		if len(r.Answer) > 0 && r.Answer[0].Header().Rrtype == dns.TypeSOA && r.Authoritative {
			zone = r.Answer[0].Header().Name
			break
		}
	}
	if zone != "example.com." {
		t.Fatalf("found zone %q", zone)
	}
	token := updateRRs(t, `_acme-challenge.www 120 TXT "token"`)
	got := sendUpdate(t, d.addr, "udp", "acme.", func(m *dns.Msg) {
		m.RemoveRRset(token) // left over from who knows what
		m.Insert(token)
	})
	if got != "NOERROR" {
		t.Fatalf("challenge: answered %s", got)
	}
	d.publishes(t, `_acme-challenge.www.example.com. 120 IN TXT "token"`, true)
	if got := sendUpdate(t, d.addr, "tcp", "acme.", func(m *dns.Msg) { m.Remove(token) }); got != "NOERROR" {
		t.Fatalf("clean up: answered %s", got)
	}
	d.publishes(t, "_acme-challenge.www.example.com.", false)
}

// The same messages, sent to named and to Sluice, have the same answers and lead to
// the same zone.
func TestUpdate_AnswersAsNamedDoes(t *testing.T) {
	t.Parallel()
	need(t, "named")
	d := startUpdated(t, updatePolicy)
	file := writeFile(t, filepath.Join(t.TempDir(), "named.zone"), updateZone)
	named := startNamed(t, fmt.Sprintf(`key "upd." { algorithm hmac-sha256; secret %q; };
key "acme." { algorithm hmac-sha256; secret %q; };
zone "example.com" { type primary; file %q; update-policy {
	grant upd. zonesub A AAAA TXT CNAME MX NS SOA DS;
}; };
`, updateSecret, updateSecret, file))
	named.awaitSerial(t, "example.com", 1)
	raw := func(line string, class, rtype uint16, ttl uint32) dns.RR {
		rr := updateRRs(t, line)[0]
		rr.Header().Class, rr.Header().Ttl, rr.Header().Rrtype = class, ttl, rtype
		return rr
	}
	insert := func(lines ...string) func(*dns.Msg) { return func(m *dns.Msg) { m.Insert(updateRRs(t, lines...)) } }
	remove := func(lines ...string) func(*dns.Msg) { return func(m *dns.Msg) { m.Remove(updateRRs(t, lines...)) } }
	for _, tc := range []struct {
		name string
		fill func(*dns.Msg)
		want string
	}{
		{"add", insert("a 60 A 192.0.2.11", "a 60 A 192.0.2.12"), "NOERROR"},
		{"add again", insert("a 60 A 192.0.2.11"), "NOERROR"},
		{"add with another TTL", insert("a 300 A 192.0.2.13"), "NOERROR"},
		{"CNAME beside others", insert("a 60 CNAME www"), "NOERROR"},
		{"others beside a CNAME", insert("c 60 CNAME www", "c 60 A 192.0.2.11"), "NOERROR"},
		{"CNAME for CNAME", insert("c 60 CNAME a"), "NOERROR"},
		{"delete a record", remove("a A 192.0.2.12"), "NOERROR"},
		{"delete what is not there", remove("a A 192.0.2.99", "nobody A 192.0.2.99"), "NOERROR"},
		{"delete an RRset", func(m *dns.Msg) { m.RemoveRRset(updateRRs(t, "www A 192.0.2.80")) }, "NOERROR"},
		{"delete a name", func(m *dns.Msg) { m.RemoveName(updateRRs(t, "sub NS a")) }, "NOERROR"},
		{"delete the apex", func(m *dns.Msg) { m.RemoveName(updateRRs(t, "@ NS a")) }, "NOERROR"},
		{"delete the NS of the apex", func(m *dns.Msg) { m.RemoveRRset(updateRRs(t, "@ NS a")) }, "NOERROR"},
		{"delete each NS of the apex", remove("@ NS ns1", "@ NS ns2.example.net."), "NOERROR"},
		{"delete the SOA", func(m *dns.Msg) { m.RemoveRRset(updateRRs(t, "@ SOA a b 1 1 1 1 1")) }, "NOERROR"},
		{"an SOA of a lower serial", insert("@ 3600 SOA ns1 other 0 1 1 1 1"), "NOERROR"},
		{"a wildcard", insert("*.w 60 TXT any"), "NOERROR"},
		{"case is kept", insert("MiXed 60 A 192.0.2.11"), "NOERROR"},
		{"delete in other case", remove("mIXED A 192.0.2.11"), "NOERROR"},
		{"in their order", func(m *dns.Msg) {
			m.Insert(updateRRs(t, "o 60 A 192.0.2.1"))
			m.RemoveName(updateRRs(t, "o A 192.0.2.1"))
			m.Insert(updateRRs(t, "o 60 A 192.0.2.2"))
		}, "NOERROR"},
		{"name in use", func(m *dns.Msg) { m.NameUsed(updateRRs(t, "a A 192.0.2.1")) }, "NOERROR"},
		{"name not in use", func(m *dns.Msg) { m.NameUsed(updateRRs(t, "nobody A 192.0.2.1")) }, "NXDOMAIN"},
		{"name in use, not wanted", func(m *dns.Msg) { m.NameNotUsed(updateRRs(t, "a A 192.0.2.1")) }, "YXDOMAIN"},
		{"RRset missing", func(m *dns.Msg) { m.RRsetUsed(updateRRs(t, "a TXT x")) }, "NXRRSET"},
		{"RRset there", func(m *dns.Msg) { m.RRsetNotUsed(updateRRs(t, "a A 192.0.2.1")) }, "YXRRSET"},
		{"records equal", func(m *dns.Msg) { m.Used(updateRRs(t, "a 0 A 192.0.2.11", "a 0 A 192.0.2.13")) }, "NOERROR"},
		{"records differ", func(m *dns.Msg) { m.Used(updateRRs(t, "a 0 A 192.0.2.11")) }, "NXRRSET"},
		{"prerequisite with a TTL", func(m *dns.Msg) { m.Answer = append(m.Answer, raw("a A 192.0.2.11", dns.ClassINET, dns.TypeA, 9)) }, "FORMERR"},
		{"prerequisite not in the zone", func(m *dns.Msg) { m.NameUsed(updateRRs(t, "a.example.net. A 192.0.2.1")) }, "NOTZONE"},
		{"not in the zone", insert("a.example.net. 60 A 192.0.2.1"), "NOTZONE"},
		{"add of type ANY", func(m *dns.Msg) { m.Ns = append(m.Ns, raw("a A 192.0.2.1", dns.ClassINET, dns.TypeANY, 9)) }, "FORMERR"},
		{"delete with a TTL", func(m *dns.Msg) { m.Ns = append(m.Ns, raw("a A 192.0.2.1", dns.ClassNONE, dns.TypeA, 9)) }, "FORMERR"},
		{"delete an RRset with data", func(m *dns.Msg) { m.Ns = append(m.Ns, raw("a A 192.0.2.1", dns.ClassANY, dns.TypeA, 0)) }, "FORMERR"},
		{"a type that is not allowed", insert("a 60 HINFO x y"), "REFUSED"},
		{"all or nothing", insert("n 60 A 192.0.2.1", "n 60 HINFO x y"), "REFUSED"},
		{"an address that is none", func(m *dns.Msg) {
			m.Ns = append(m.Ns, &dns.RFC3597{Hdr: dns.RR_Header{Name: "a.example.com.", Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 9}, Rdata: "c000"})
		}, "FORMERR"},
	} {
		theirs, ours := sendUpdate(t, named.addr, "tcp", "upd.", tc.fill), sendUpdate(t, d.addr, "tcp", "upd.", tc.fill)
		if theirs != ours || ours != tc.want {
			t.Errorf("%s: named answers %s, Sluice %s, want %s", tc.name, theirs, ours, tc.want)
		}
	}
	if got := sendUpdate(t, d.addr, "tcp", "acme.", insert("a 60 A 192.0.2.1")); got != sendUpdate(t, named.addr, "tcp", "acme.", insert("a 60 A 192.0.2.1")) {
		t.Errorf("a key that may not: Sluice answers %s", got)
	}
	d.publishes(t, "o.example.com. 60 IN A 192.0.2.2", true)
	want := zoneLines(t, func() []dns.RR {
		m := new(dns.Msg)
		m.SetAxfr("example.com.")
		envelopes, err := new(dns.Transfer).In(m, named.addr)
		if err != nil {
			t.Fatal(err)
		}
		var all []dns.RR
		for e := range envelopes {
			if e.Error != nil {
				t.Fatal(e.Error)
			}
			all = append(all, e.RR...)
		}
		return all
	}())
	var rrs []dns.RR
	zp := dns.NewZoneParser(strings.NewReader(d.must(t, "zone", "dump", "--loaded", "example.com")), "", "")
	for rr, ok := zp.Next(); ok; rr, ok = zp.Next() {
		rrs = append(rrs, rr)
	}
	if err := zp.Err(); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, zoneLines(t, rrs)); d != "" {
		t.Errorf("the zones differ (-named +Sluice):\n%s", d)
	}
}

// zoneLines is the records of a zone, sorted, the SOA without its serial.
func zoneLines(t *testing.T, rrs []dns.RR) (out []string) {
	t.Helper()
	for _, rr := range rrs {
		if soa, ok := rr.(*dns.SOA); ok {
			soa.Serial = 0
		}
		out = append(out, strings.Join(strings.Fields(strings.ToLower(rr.String())), " "))
	}
	slices.Sort(out)
	return slices.Compact(out)
}
