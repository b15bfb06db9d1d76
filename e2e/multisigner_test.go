package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// signer is one of several that sign a zone, with a public server of its own.
type signer struct {
	*daemon
	public *secondary
}

// newSigner prepares a daemon and starts its public server.
func newSigner(t *testing.T) *signer {
	t.Helper()
	dir := shortDir(t)
	d := &daemon{data: filepath.Join(dir, "data"), addr: freeAddr(t)}
	return &signer{d, startNamed(t, namedSecondary(example, d.addr))}
}

// begin starts the daemon; all public servers are named in its policy.
func (s *signer) begin(t *testing.T, parent, resolver, trust string, public []string) {
	t.Helper()
	dir := filepath.Dir(s.data)
	policies := filepath.Join(dir, "policies")
	if err := os.Mkdir(policies, 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(policies, "default.toml"), fmt.Sprintf(`version = "v1"
[key-manager]
propagation-margin = "2s"
observation-interval = "1m"
parent-nameservers = [%q]
publication-nameservers = [%s]
[key-manager.records]
ttl = "5s"
[server.outbound]
send-notify-to = [%q]
`, parent, `"`+strings.Join(public, `", "`)+`"`, s.public.addr))
	config := writeFile(t, filepath.Join(dir, "config.toml"), fmt.Sprintf(
		"version = \"v1\"\npolicy-dir = %q\n[daemon]\nresolvers = [%q]\ntrust-anchors = [%q]\n", policies, resolver, trust))
	s.flags = []string{"--config", config, "--zone", example + "=" + writeFile(t, filepath.Join(dir, "zone"), rolledZone)}
	s.start(t)
	s.public.awaitSerial(t, example, s.awaitServed(t, example))
}

// imports takes the public keys out of another signer's DNSKEY RRset.
func (s *signer) imports(t *testing.T, from *signer) {
	t.Helper()
	m, err := query(from.public.addr, example, dns.TypeDNSKEY)
	if err != nil || len(m.Answer) == 0 {
		t.Fatalf("the other signer's keys: %v, %v", m, err)
	}
	file := writeFile(t, filepath.Join(shortDir(t), "other.key"), m.String())
	s.must(t, "key", "import", example, "--public", file)
}

func (s *signer) keys(t *testing.T) (keys []struct {
	ID, State string
	Role      string `json:"key_role"`
	Foreign   bool
},
) {
	t.Helper()
	if err := json.Unmarshal([]byte(s.must(t, "--json", "key", "list", example)), &keys); err != nil {
		t.Fatal(err)
	}
	return keys
}

// TestUnbound_ValidatesAnswersOfTwoSigners has two daemons sign the same zone,
// each with keys of its own and the other's public keys (RFC 8901, model 2), and
// unbound ask both, while one exchanges its ZSK.
func TestUnbound_ValidatesAnswersOfTwoSigners(t *testing.T) {
	t.Parallel()
	need(t, "named", "unbound", "dnssec-keygen", "dnssec-signzone", "dnssec-dsfromkey")
	com, top, parent := startParents(t, false)
	a, b := newSigner(t), newSigner(t)
	public := []string{a.public.addr, b.public.addr}
	resolver := startUnbound(t, top.ds(t), map[string]string{".": parent.addr, "com.": parent.addr, example + ".": strings.Join(public, ",")})
	a.begin(t, parent.addr, resolver.addr, top.ds(t), public)
	b.begin(t, parent.addr, resolver.addr, top.ds(t), public)

	// Before they know each other's keys neither goes on.
	await(t, "the first signer waits for the second", time.Minute, func() (bool, string) {
		list := a.rollovers(t)
		return len(list) == 1 && strings.Contains(list[0].Text, b.public.addr+" does not show key "), fmt.Sprint(list)
	})
	a.imports(t, b)
	b.imports(t, a)
	f := &follower{com: com, server: parent, public: a.public.addr}
	settled := func(what string) {
		t.Helper()
		await(t, what, 3*time.Minute, func() (bool, string) {
			f.follow(t)
			one, two := a.rollovers(t), b.rollovers(t)
			return len(one)+len(two) == 0 && len(f.have) == 2, fmt.Sprint(one, two, f.have)
		})
	}
	settled("the DS of both are there, and all caches have the keys of both")

	var looking validator
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		looking.run(resolver.addr, stop)
	}()
	a.must(t, "key", "roll", example, "zsk")
	await(t, "the rollover waits for the other signer", time.Minute, func() (bool, string) {
		list := a.rollovers(t)
		return len(list) == 1 && strings.Contains(list[0].Text, b.public.addr+" does not show key "), fmt.Sprint(list)
	})
	// That of the first signer's server, once it has the new key.
	await(t, "the new key is public", 30*time.Second, func() (bool, string) {
		m, err := query(a.public.addr, example, dns.TypeDNSKEY)
		return err == nil && strings.Count(m.String(), "DNSKEY\t256 3 13") == 3, fmt.Sprint(m, err)
	})
	b.imports(t, a)
	settled("the rollover ends")

	// The old ZSK leaves the other signer, too, once caches cannot have its
	// signatures.
	var old string
	for _, k := range a.keys(t) {
		if k.Role == "zsk" && k.State == "removed" {
			old = k.ID
		}
	}
	b.must(t, "key", "remove", example, old)
	await(t, "the foreign key leaves", time.Minute, func() (bool, string) {
		list := b.rollovers(t)
		return len(list) == 1 && list[0].Kind == "foreign" && strings.Contains(list[0].Text, "TTLns"), fmt.Sprint(list)
	})
	close(stop)
	<-done
	looking.check(t)
	for _, s := range []*signer{a, b} {
		s.must(t, "zone", "verify", example)
		foreign := 0
		for _, k := range s.keys(t) {
			if k.Foreign && k.State == "published" {
				foreign++
			}
		}
		if table := s.must(t, "key", "list", example); foreign < 2 || !strings.Contains(table, " foreign") {
			t.Errorf("foreign keys:\n%s", table)
		}
	}
	await(t, "unbound validates", 30*time.Second, func() (bool, string) {
		m, err := query(resolver.addr, "www."+example, dns.TypeA)
		return err == nil && m.AuthenticatedData, fmt.Sprint(m, err)
	})
	if status := b.must(t, "zone", "status", example); strings.Contains(status, "belongs to another signer, and its DNSKEY RRset lacks") {
		t.Errorf("status:\n%s", status)
	}
}
