package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// kmipServer is PyKMIP's server, with its database in a folder of the test.
type kmipServer struct {
	dir, addr string
	process   *process
}

func newKMIPServer(t *testing.T) *kmipServer {
	t.Helper()
	need(t, "pykmip-server")
	k := &kmipServer{dir: t.TempDir(), addr: freeAddr(t)}
	k.certificates(t)
	if err := os.Mkdir(filepath.Join(k.dir, "policy"), 0o700); err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(k.addr)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(k.dir, "server.conf"), fmt.Sprintf(`[server]
hostname=%s
port=%s
certificate_path=%[3]s/server.pem
key_path=%[3]s/server.key
ca_path=%[3]s/ca.pem
auth_suite=TLS1.2
policy_path=%[3]s/policy
enable_tls_client_auth=True
database_path=%[3]s/db
`, host, port, k.dir))
	k.start(t)
	return k
}

// certificates makes a CA, and what server and client prove themselves by.
func (k *kmipServer) certificates(t *testing.T) {
	t.Helper()
	var parent *x509.Certificate
	var parentKey *ecdsa.PrivateKey
	for i, name := range []string{"ca", "server", "client"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
			KeyUsage: x509.KeyUsageDigitalSignature, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		}
		if parent == nil {
			c = &x509.Certificate{
				SerialNumber: c.SerialNumber, Subject: c.Subject, NotBefore: c.NotBefore, NotAfter: c.NotAfter,
				IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
			}
			parent, parentKey = c, key
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), parentKey)
		if err != nil {
			t.Fatal(err)
		}
		secret, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		for suffix, block := range map[string]*pem.Block{".pem": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "PRIVATE KEY", Bytes: secret}} {
			if err := os.WriteFile(filepath.Join(k.dir, name+suffix), pem.EncodeToMemory(block), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func (k *kmipServer) start(t *testing.T) {
	t.Helper()
	launcher := filepath.Join("..", "keymgr", "kmip", "testdata", "pykmip.py")
	k.process = startCommand(t, "pykmip", exec.Command("/usr/bin/python3", launcher,
		"-f", filepath.Join(k.dir, "server.conf"), "-l", filepath.Join(k.dir, "log")))
	await(t, "PyKMIP answers", time.Minute, func() (bool, string) {
		c, err := net.Dial("tcp", k.addr)
		if err == nil {
			err = c.Close()
		}
		return err == nil, fmt.Sprint(err)
	})
}

// activeKeys are the IDs of a zone's keys that sign.
func (d *daemon) activeKeys(t *testing.T, zone string) (ids []string) {
	t.Helper()
	for line := range strings.Lines(d.must(t, "key", "list", zone)) {
		if strings.Contains(line, " active ") {
			ids = append(ids, strings.Fields(line)[0])
		}
	}
	return ids
}

// TestPyKMIP_SignsRollsAndOutlivesTheServer has a zone's RSA keys on PyKMIP's
// server, exchanges the ZSK, and takes the server away and back: what is published
// stays served, and the zone goes on by itself.
func TestPyKMIP_SignsRollsAndOutlivesTheServer(t *testing.T) {
	t.Parallel()
	need(t, "named")
	server := newKMIPServer(t)
	dir := shortDir(t)
	d := &daemon{data: filepath.Join(dir, "data"), addr: freeAddr(t)}
	public := startNamed(t, namedSecondary(example, d.addr))
	policies := filepath.Join(dir, "policies")
	if err := os.Mkdir(policies, 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(policies, "kms.toml"), fmt.Sprintf(`version = "v1"
[key-manager]
propagation-margin = "1s"
publication-nameservers = [%q]
[key-manager.generation]
keystore = "kms"
algorithm = "RSASHA256:1024"
[key-manager.records]
ttl = "2s"
[server.outbound]
send-notify-to = [%[1]q]
`, public.addr))
	d.flags = []string{"--policy-dir", policies}
	start := func() {
		d.start(t)
		await(t, "the daemon answers", time.Minute, func() (bool, string) {
			r := d.cli(t, "zone", "list")
			return r.code == 0, r.String()
		})
	}
	start()
	zone := func(version int) {
		writeFile(t, filepath.Join(dir, "zone"), fmt.Sprintf(
			"$TTL 2\n@ SOA ns1 h. %d 1 1 86400 2\n@ NS ns1\nns1 A 127.0.0.1\nwww A 192.0.2.%d\n", version, version))
	}
	zone(1)
	files := func(name string) string { return filepath.Join(server.dir, name) }
	out := d.must(t, "keystore", "add", "kms", "--kmip", server.addr, "--ca-file", files("ca.pem"),
		"--cert-file", files("client.pem"), "--key-file", files("client.key"))
	if !strings.Contains(out, "KMIP server "+server.addr) {
		t.Error(out)
	}
	d.must(t, "zone", "add", example, "--source", filepath.Join(dir, "zone"), "--policy", "kms")
	d.awaitServed(t, example)
	if k := d.keystore(t, "kms"); k.Keys != 2 || k.State != "ready" {
		t.Errorf("keystore %+v, want 2 keys", k)
	}
	if out := d.must(t, "zone", "verify", example); !strings.Contains(out, "valid") {
		t.Error(out)
	}

	// Another ZSK, made there too.
	before := d.activeKeys(t, example)
	await(t, "the zone is seen signed", time.Minute, func() (bool, string) {
		r := d.cli(t, "key", "roll", example, "zsk", "--reason", "to see it done")
		return r.code == 0, r.String()
	})
	await(t, "another ZSK signs", 2*time.Minute, func() (bool, string) {
		now := d.activeKeys(t, example)
		return len(now) == 2 && fmt.Sprint(now) != fmt.Sprint(before), d.cli(t, "key", "status", example).String()
	})
	if serial, err := serialAt(d.addr, example); err != nil {
		t.Error(serial, err)
	}

	// The server goes.
	server.process.kill()
	zone(2)
	d.must(t, "zone", "reload", example, "--no-wait")
	await(t, "the server is missed", time.Minute, func() (bool, string) {
		r := d.cli(t, "health")
		return strings.Contains(r.stderr, "KMIP server "+server.addr), r.String()
	})
	k := d.keystore(t, "kms")
	if k.State != "away" || !strings.Contains(k.Hint, "sluice keystore test kms") {
		t.Errorf("keystore %+v", k)
	}
	serial, err := serialAt(d.addr, example)
	if err != nil || serial == 0 {
		t.Errorf("serial %d, %v: what is published is to stay served", serial, err)
	}

	server.start(t)
	serial = d.awaitChange(t, example, serial)
	_, rrs := d.dumpTo(t, example)
	if !has(rrs, dns.TypeRRSIG) || !strings.Contains(fmt.Sprint(rrs), "192.0.2.2") {
		t.Errorf("serial %d has not what is new", serial)
	}
	if k := d.keystore(t, "kms"); k.State != "ready" {
		t.Errorf("keystore %+v", k)
	}

	// After a restart it is found again; the client's key stands nowhere.
	d.stop()
	start()
	d.must(t, "zone", "resign", example, "--full")
	d.awaitChange(t, example, serial)
	secret := strings.Split(readFile(t, files("client.key")), "\n")[1]
	for _, args := range [][]string{{"--json", "keystore", "show", "kms"}, {"--json", "zone", "history", example}} {
		if out := d.must(t, args...); strings.Contains(out, secret) {
			t.Errorf("%v shows the client's key", args)
		}
	}
	if strings.Contains(d.log(), secret) {
		t.Error("the log has the client's key")
	}
	noSecretIn(t, filepath.Join(d.data, "journal"), secret)
}
