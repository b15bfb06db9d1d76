package chain

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// unbound starts an unbound that validates the tree, and returns its address.
func (tr *tree) unbound() string {
	tr.t.Helper()
	tr.start()
	n, port := lastHost.Add(1), tr.rootAt.addr.Port()
	host := fmt.Sprintf("127.54.%d.%d", n>>8&255, n&255)
	dir := tr.t.TempDir()
	var text strings.Builder
	fmt.Fprintf(&text, `
server:
	directory: %[1]q
	chroot: ""
	username: ""
	pidfile: ""
	use-syslog: no
	logfile: ""
	verbosity: 1
	val-log-level: 2
	do-daemonize: no
	num-threads: 1
	interface: %[3]s
	port: %[2]d
	do-not-query-localhost: no
	do-ip6: no
	local-zone: "test." nodefault
	module-config: "validator iterator"
	trust-anchor-signaling: no
	aggressive-nsec: no
	qname-minimisation: no
	ede: yes
	msg-cache-size: 1m
	rrset-cache-size: 1m
`, dir, port, host)
	for _, a := range tr.anchors {
		fmt.Fprintf(&text, "\ttrust-anchor: %q\n", strings.ReplaceAll(a, "\t", " "))
	}
	stub := func(name string, servers ...*testServer) {
		fmt.Fprintf(&text, "stub-zone:\n\tname: %q\n\tstub-prime: no\n", name)
		for _, s := range servers {
			fmt.Fprintf(&text, "\tstub-addr: %s@%d\n", s.addr.Addr(), s.addr.Port())
		}
	}
	stub(".", tr.rootAt)
	stub("example.", tr.parentAt...)
	stub("zone.example.", tr.zoneAt...)
	config := filepath.Join(dir, "unbound.conf")
	if err := os.WriteFile(config, []byte(text.String()), 0o600); err != nil {
		tr.t.Fatal(err)
	}
	cmd := exec.CommandContext(tr.t.Context(), unboundPath(tr.t), "-d", "-c", config)
	out, err := cmd.StderrPipe()
	if err != nil {
		tr.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tr.t.Fatal(err)
	}
	ready := make(chan bool, 1)
	var log []string
	done := make(chan struct{})
	go func() {
		defer close(done)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			log = append(log, lines.Text())
			if strings.Contains(lines.Text(), "start of service") {
				ready <- true
			}
		}
		ready <- false
	}()
	tr.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
		_ = cmd.Wait() // it was killed
		if tr.t.(*testing.T).Failed() {
			tr.t.Log(strings.Join(log, "\n"))
		}
	})
	if !<-ready {
		<-done
		tr.t.Fatalf("unbound does not start:\n%s", strings.Join(log, "\n"))
	}
	return net.JoinHostPort(host, fmt.Sprint(port))
}

// unboundPath finds unbound; where it is not there, the test is skipped.
func unboundPath(t testing.TB) string {
	t.Helper()
	for _, name := range []string{"unbound", "/usr/sbin/unbound"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("SLUICE_REQUIRE_PEERS") != "" {
		t.Fatal("unbound is not there")
	}
	t.Skip("unbound is not there: e2e/deps.sh installs it")
	return ""
}

// Where the check says that the name is broken a validator answers SERVFAIL, and
// where it does not, a validator answers.
func TestUnbound_AgreesWithTheVerdict(t *testing.T) {
	unboundPath(t)
	for _, f := range append(allFaults(), fault{fact: "healthy", verdict: Secure}) {
		if f.bogus == "-" {
			continue
		}
		t.Run(fmt.Sprintf("%s/%s", f.code, f.fact), func(t *testing.T) {
			t.Parallel()
			tr := newTree(t)
			if f.make != nil {
				f.make(tr)
			}
			r := f.check(tr)
			at := tr.unbound()
			m := new(dns.Msg)
			m.SetQuestion("www.zone.example.", dns.TypeA)
			if f.bogus != "" {
				m.Question[0].Name = f.bogus
			}
			if f.bogusT != 0 {
				m.Question[0].Qtype = f.bogusT
			}
			m.SetEdns0(4096, true)
			client := dns.Client{Timeout: 20 * time.Second}
			got, _, err := client.Exchange(m, at)
			if err != nil {
				t.Fatal(err)
			}
			refused := r.Verdict == Bogus || r.Verdict == Unreachable
			if (got.Rcode == dns.RcodeServerFailure) != refused {
				t.Errorf("unbound answers %s about %s, the check says %s: %s", dns.RcodeToString[got.Rcode], m.Question[0].Name, r.Verdict, r.Summary)
			}
			if got.AuthenticatedData != (r.Verdict == Secure) && !refused {
				t.Errorf("unbound's AD is %v, the check says %s: %s", got.AuthenticatedData, r.Verdict, r.Summary)
			}
		})
	}
}
