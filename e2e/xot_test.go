package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// tlsFiles makes a self-signed certificate for a name.
func tlsFiles(t *testing.T, name string) (cert, key string) {
	t.Helper()
	dir := shortDir(t)
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	must(t, "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
		"-subj", "/CN="+name, "-addext", "subjectAltName=DNS:"+name, "-keyout", key, "-out", cert)
	return cert, key
}

// The way of a zone over TLS alone: from named to us, and from us to named
// and kdig. Clear text gets nothing.
func TestXoT_NamedInAndOut(t *testing.T) {
	need(t, "named", "kdig", "openssl")
	theirs, theirKey := tlsFiles(t, "primary.example")
	ours, ourKey := tlsFiles(t, "signer.example")
	file := writeFile(t, filepath.Join(shortDir(t), "live.zone"), liveZone)
	tlsIn, tlsOut := freeAddr(t), freeAddr(t)
	p := startNamedWith(t, fmt.Sprintf("listen-on port %s tls own { 127.0.0.1; };\n", port(tlsIn)), fmt.Sprintf(`
tls own { cert-file %q; key-file %q; };
zone %q { type primary; file %q; check-names ignore; allow-update { 127.0.0.1; };
	allow-transfer port %s transport tls { 127.0.0.1; }; };
`, theirs, theirKey, example, file, port(tlsIn)))
	p.awaitSerial(t, example, 1)

	dir := shortDir(t)
	conf := writeFile(t, filepath.Join(dir, "sluice.conf"), fmt.Sprintf(
		"version = \"v1\"\npolicy-dir = %q\n[server.tls]\nservers = [%q]\ncertificate = %q\nkey = %q\nroots = %q\n", dir, tlsOut, ours, ourKey, theirs))
	writeFile(t, filepath.Join(dir, "default.toml"),
		"version = \"v1\"\n[server.outbound]\nprovide-xfr-to = [\"tls://127.0.0.1\"]\n")
	d := &daemon{data: filepath.Join(shortDir(t), "data"), addr: freeAddr(t)}
	d.flags = []string{"--config", conf, "--zone", example + "=tls://" + tlsIn + "#primary.example"}
	d.start(t)
	serial := d.awaitServed(t, example)
	if history := d.must(t, "zone", "history", example, "--type", "instance.loaded"); !strings.Contains(history, "tls://"+tlsIn) {
		t.Errorf("history does not tell the server:\n%s", history)
	}

	s := startNamed(t, fmt.Sprintf(`
tls signer { ca-file %q; remote-hostname "signer.example"; };
zone %q { type secondary; primaries { 127.0.0.1 port %s tls signer; }; file "secondary.db"; masterfile-format raw; };
`, ours, example, port(tlsOut)))
	s.awaitSerial(t, example, serial)

	// A change comes over both links.
	m := new(dns.Msg)
	m.SetUpdate(example + ".")
	rr, err := dns.NewRR("new." + example + ". 300 IN TXT \"over TLS\"")
	if err != nil {
		t.Fatal(err)
	}
	m.Insert([]dns.RR{rr})
	update(t, p.addr, m)
	d.must(t, "zone", "reload", example)
	s.awaitSerial(t, example, d.awaitChange(t, example, serial))
	if answer := ask(t, s.addr, "new."+example, dns.TypeTXT); len(answer.Answer) == 0 {
		t.Errorf("the change did not come: %v", answer)
	}
	if history := d.must(t, "zone", "history", example, "--type", "instance.loaded"); !strings.Contains(history, "by IXFR") {
		t.Errorf("no incremental transfer over TLS in:\n%s", history)
	}

	// Over TLS only.
	out := must(t, "kdig", "@127.0.0.1", "-p", port(tlsOut), "+tls-ca="+ours, "+tls-host=signer.example", "AXFR", example)
	if !strings.Contains(out, "over TLS") {
		t.Errorf("kdig over TLS:\n%s", out)
	}
	out = run(t, "kdig", "@127.0.0.1", "-p", port(d.addr), "AXFR", example).String()
	if !strings.Contains(out, "REFUSED") || strings.Contains(out, "over TLS") {
		t.Errorf("clear text was not refused:\n%s", out)
	}
	// A server that is not who it should be gets no second, clear attempt.
	r := d.cli(t, "zone", "set", example, "--source", "tls://"+tlsIn+"#other.example")
	if r.code != 1 || !strings.Contains(r.String(), "TLS: ") || !strings.Contains(r.String(), "not other.example") {
		t.Errorf("a server that is another: %v", r)
	}
	if log := p.log(); strings.Contains(log, "denied") {
		t.Error("named was asked for the zone in clear text")
	}
}

func TestXoT_OwnCertificateIsPinned(t *testing.T) {
	need(t, "kdig")
	d := &daemon{data: filepath.Join(shortDir(t), "data"), addr: freeAddr(t)}
	tlsOut := freeAddr(t)
	d.flags = []string{"--listen-tls", tlsOut, "--zone", exampleZone()}
	d.start(t)
	d.awaitServed(t, example)
	pin := pinOf(t, d, tlsOut)
	out := must(t, "kdig", "@127.0.0.1", "-p", port(tlsOut), "+tls-pin="+pin, "AXFR", example)
	if !strings.Contains(out, "RRSIG") {
		t.Errorf("kdig over TLS:\n%s", out)
	}
	if r := run(t, "kdig", "@127.0.0.1", "-p", port(tlsOut), "+tls-pin="+strings.Repeat("A", 43)+"=", "AXFR", example); strings.Contains(r.stdout, "RRSIG") {
		t.Errorf("kdig takes another key: %v", r)
	}
	// It stays the same.
	d.stop()
	d.start(t)
	if again := pinOf(t, d, tlsOut); again != pin {
		t.Errorf("pin %s, after a restart %s", pin, again)
	}
}

// pinOf is the pin that serve tells.
func pinOf(t *testing.T, d *daemon, addr string) string {
	t.Helper()
	var pin string
	await(t, "serve tells the pin", 20*time.Second, func() (bool, string) {
		_, after, ok := strings.Cut(d.log(), "publication on "+addr+", TLS, sha256:")
		pin, _, _ = strings.Cut(after, "\n")
		return ok && pin != "", d.tail()
	})
	return pin
}
