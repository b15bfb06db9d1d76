package kmip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"sluice/keymgr"
	"sluice/keymgr/keystoretest"
)

// pykmip is PyKMIP's server with its database in a folder of the test.
type pykmip struct {
	ca   *authority
	addr string
	dir  string
}

// newPyKMIP starts PyKMIP's server, or skips the test.
func newPyKMIP(t *testing.T) *pykmip {
	t.Helper()
	if _, err := exec.LookPath("pykmip-server"); err != nil {
		if os.Getenv("SLUICE_REQUIRE_PEERS") == "1" {
			t.Fatal("PyKMIP is not installed (e2e/deps.sh)")
		}
		t.Skip("PyKMIP is not installed (e2e/deps.sh)")
	}
	p := &pykmip{ca: newAuthority(t), dir: t.TempDir()}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.addr = l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(p.addr)
	if err != nil {
		t.Fatal(err)
	}
	// Of the cipher suites that PyKMIP has, those that are safe want ECDSA.
	cert, key := p.ca.issue(t, "pykmip", true)
	for name, text := range map[string]string{
		"ca.pem": p.ca.pem, "cert.pem": cert, "key.pem": key,
		"server.conf": fmt.Sprintf(`[server]
hostname=127.0.0.1
port=%s
certificate_path=%[2]s/cert.pem
key_path=%[2]s/key.pem
ca_path=%[2]s/ca.pem
auth_suite=TLS1.2
policy_path=%[2]s/policy
enable_tls_client_auth=True
database_path=%[2]s/db
`, port, p.dir),
	} {
		if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(p.dir, "policy"), 0o700); err != nil {
		t.Fatal(err)
	}
	p.start(t)
	return p
}

// start starts the server; the function stops it.
func (p *pykmip) start(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "/usr/bin/python3", filepath.Join("testdata", "pykmip.py"), "-f", filepath.Join(p.dir, "server.conf"), "-l", filepath.Join(p.dir, "log"))
	// It has a second process that looks after its policies.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cmd.Wait() // it is killed
	}()
	stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); ; <-tick.C {
		c, err := net.Dial("tcp", p.addr)
		if err == nil {
			_ = c.Close()
			return stop
		}
		select {
		case <-done:
			log, _ := os.ReadFile(filepath.Join(p.dir, "log"))
			t.Fatalf("PyKMIP ends: %s\n%s", out.String(), log)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("PyKMIP does not answer: %v\n%s", err, out.String())
		}
	}
}

func (p *pykmip) store(t *testing.T) *Store {
	t.Helper()
	login := keymgr.ServerLogin{CA: p.ca.pem}
	login.Certificate, login.Key = p.ca.issue(t, "sluice", false)
	secret, err := login.Secret()
	if err != nil {
		t.Fatal(err)
	}
	servers := NewServers(t.TempDir(), time.Now)
	if err := servers.KeepPIN("pykmip", secret); err != nil {
		t.Fatal(err)
	}
	s := servers.open(keymgr.Token{Name: "pykmip", Server: keymgr.Server{Address: p.addr}, Sessions: 4, Timeout: 30 * time.Second})
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// TestPyKMIP_Suite runs the suite with RSA keys: PyKMIP 0.10 makes no others.
func TestPyKMIP_Suite(t *testing.T) {
	t.Parallel()
	p := newPyKMIP(t) // for all: the suite looks at its own keys alone
	fresh := func(*testing.T) keystoretest.Open {
		return func(t *testing.T) keymgr.Keystore { return p.store(t) }
	}
	keystoretest.RunWith(t, fresh, keystoretest.Main{Algorithm: dns.RSASHA256, Bits: 1024},
		dns.ECDSAP256SHA256, dns.ECDSAP384SHA384, dns.ED25519, dns.ED448)
}

func TestPyKMIP_EveryVersion(t *testing.T) {
	t.Parallel()
	p := newPyKMIP(t)
	for _, v := range []version{{1, 2}, {1, 3}, {1, 4}, {2, 0}} {
		s := p.store(t)
		s.speaks = []version{v}
		k, err := s.Generate(t.Context(), keymgr.Spec{Zone: "example.", Role: keymgr.ZSK, Algorithm: dns.RSASHA256, Bits: 1024}, nil)
		if err != nil {
			t.Errorf("KMIP %v: %v", v, err)
			continue
		}
		if err := keymgr.Prove(t.Context(), s, k); err != nil {
			t.Errorf("KMIP %v: %v", v, err)
		}
		if err := s.Remove(t.Context(), k.Reference); err != nil {
			t.Errorf("KMIP %v: %v", v, err)
		}
		if _, err := s.Signer(t.Context(), k.Reference); !errors.Is(err, keymgr.ErrNoKey) {
			t.Errorf("KMIP %v: a removed key: %v", v, err)
		}
	}
}

func TestPyKMIP_TestMeasuresAndFallsBackToRSA(t *testing.T) {
	t.Parallel()
	s := newPyKMIP(t).store(t)
	r, err := s.Test(t.Context(), 0, "")
	if err != nil {
		t.Fatal(err)
	}
	if r.Algorithm != dns.RSASHA256 || r.Protocol != "KMIP 2.0" || !strings.Contains(r.Manufacturer, "PyKMIP") || r.Batch < 2 {
		t.Errorf("%+v", r)
	}
	t.Logf("%+v", r)
	if _, err := s.Test(t.Context(), dns.ECDSAP256SHA256, ""); err == nil || !strings.Contains(err.Error(), "makes no keys of algorithm ECDSAP256SHA256") {
		t.Errorf("P-256: %v", err)
	}
}
