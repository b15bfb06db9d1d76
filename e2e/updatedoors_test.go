package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// Updates come over TLS too, and a rule may want that they do; a wrong signature
// is none the better for it.
func TestUpdate_OverTLS(t *testing.T) {
	t.Parallel()
	cert, key := tlsFiles(t, "signer.example")
	tlsAddr := freeAddr(t)
	dir := shortDir(t)
	d := &daemon{data: filepath.Join(dir, "data"), addr: freeAddr(t)}
	policies := filepath.Join(dir, "policies")
	if err := os.Mkdir(policies, 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(policies, "default.toml"), `version = "v1"
[[loader.update]]
key = "upd"
names = ["*"]
types = ["A"]
from = ["tls://127.0.0.1"]
[[loader.update]]
key = "acme"
names = ["*"]
types = ["A"]
`)
	conf := writeFile(t, filepath.Join(dir, "sluice.toml"), fmt.Sprintf(
		"version = \"v1\"\npolicy-dir = %q\n[server.tls]\nservers = [%q]\ncertificate = %q\nkey = %q\n", policies, tlsAddr, cert, key))
	source := writeFile(t, filepath.Join(dir, "zone"), updateZone)
	d.flags = []string{"--config", conf, "--zone", "example.com=" + source}
	d.start(t)
	d.awaitServed(t, "example.com")
	secret := writeFile(t, filepath.Join(dir, "secret"), updateSecret)
	for _, name := range []string{"upd", "acme"} {
		d.must(t, "tsig", "add", name, "hmac-sha256", "--secret-file", secret)
	}
	pem, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	insert := func(line string) func(*dns.Msg) { return func(m *dns.Msg) { m.Insert(updateRRs(t, line)) } }
	overTLS := func(key, line string) string {
		t.Helper()
		c := &dns.Client{Net: "tcp-tls", TLSConfig: &tls.Config{RootCAs: roots, ServerName: "signer.example", NextProtos: []string{"dot"}, MinVersion: tls.VersionTLS13}}
		return sendUpdateBy(t, c, tlsAddr, key, insert(line))
	}
	for _, c := range []struct {
		fact, got, want string
	}{
		{"a rule for TLS, over TLS", overTLS("upd.", "a 60 A 192.0.2.11"), "NOERROR"},
		{"a rule for TLS, over TCP", sendUpdate(t, d.addr, "tcp", "upd.", insert("b 60 A 192.0.2.12")), "REFUSED"},
		{"a rule for TLS, over UDP", sendUpdate(t, d.addr, "udp", "upd.", insert("c 60 A 192.0.2.13")), "REFUSED"},
		{"a rule for all, over TLS", overTLS("acme.", "d 60 A 192.0.2.14"), "NOERROR"},
		{"a rule for all, over TCP", sendUpdate(t, d.addr, "tcp", "acme.", insert("e 60 A 192.0.2.15")), "NOERROR"},
		{"a type that no rule has, over TLS", overTLS("upd.", "f 60 TXT x"), "REFUSED"},
		{"a key that is not known, over TLS", overTLS("other.", "g 60 A 192.0.2.17"), "NOTAUTH"},
	} {
		if c.got != c.want {
			t.Errorf("%s: answered %s, want %s", c.fact, c.got, c.want)
		}
	}
	for _, owner := range []string{"a", "d", "e"} {
		d.publishes(t, owner+".example.com. 60 IN A", true)
	}
	dump := strings.Join(strings.Fields(d.must(t, "zone", "dump", "example.com")), " ")
	for _, owner := range []string{"b", "c", "f", "g"} {
		if strings.Contains(dump, " "+owner+".example.com. 60") {
			t.Errorf("%s was taken:\n%s", owner, dump)
		}
	}
	if history := d.must(t, "zone", "history", "example.com", "--type", "update.accepted"); strings.Count(history, "over TLS") != 2 {
		t.Errorf("history does not say which came over TLS:\n%s", history)
	}
}

// A worker that may load takes updates, as the main process does; another one
// answers SERVFAIL, and soon, and changes nothing.
func TestUpdate_AtWorkers(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	policies := filepath.Join(dir, "policies")
	if err := os.Mkdir(policies, 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(policies, "default.toml"), updatePolicy)
	d := startMain(t, "--policy-dir", policies)
	loads, serves := enrollWorker(t, d, "loads", "load,publish"), enrollWorker(t, d, "serves", "publish")
	for _, w := range []*joined{loads, serves} {
		w.start(t)
		w.awaitHealthy(t)
	}
	secret := writeFile(t, filepath.Join(dir, "secret"), updateSecret)
	d.must(t, "tsig", "add", "upd", "hmac-sha256", "--secret-file", secret)
	d.must(t, "zone", "add", "example.com", "--source", writeFile(t, filepath.Join(dir, "zone"), updateZone))
	d.awaitServed(t, "example.com")
	send := func(addr, line string) string {
		return sendUpdate(t, addr, "tcp", "upd.", func(m *dns.Msg) { m.Insert(updateRRs(t, line)) })
	}
	for _, w := range []*joined{loads, serves} {
		await(t, "the worker knows zone and key", time.Minute, func() (bool, string) {
			n, err := serialAt(w.addr, "example.com")
			return err == nil && n > 0, fmt.Sprint(n, err)
		})
	}
	await(t, "the worker that loads takes an update", time.Minute, func() (bool, string) {
		got := send(loads.addr, "a 60 A 192.0.2.11")
		return got == "NOERROR", got
	})
	if got := send(d.addr, "b 60 A 192.0.2.12"); got != "NOERROR" {
		t.Errorf("the main process answers %s", got)
	}
	var took time.Duration
	await(t, "the worker that only serves, once it has the key, refuses", time.Minute, func() (bool, string) {
		begin := time.Now()
		got := send(serves.addr, "c 60 A 192.0.2.13")
		took = time.Since(begin)
		return got == "SERVFAIL", got
	})
	if took > 5*time.Second {
		t.Errorf("it took %s to say so: clients have given up by then", took)
	}
	d.publishes(t, "a.example.com. 60 IN A 192.0.2.11", true)
	d.publishes(t, "b.example.com. 60 IN A 192.0.2.12", true)
	d.publishes(t, "c.example.com.", false)
	await(t, "all serve the same version", time.Minute, func() (bool, string) {
		here, err1 := serialAt(d.addr, "example.com")
		there, err2 := serialAt(serves.addr, "example.com")
		return err1 == nil && err2 == nil && here == there, fmt.Sprintf("serials %d, %d; %v, %v", here, there, err1, err2)
	})
}
