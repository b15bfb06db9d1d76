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
	for _, z := range tr.extra {
		stub(z.apex, tr.zoneAt...)
	}
	config := filepath.Join(dir, "unbound.conf")
	if err := os.WriteFile(config, []byte(text.String()), 0o600); err != nil {
		tr.t.Fatal(err)
	}
	cmd := exec.CommandContext(tr.t.Context(), peerPath(tr.t, "unbound"), "-d", "-c", config)
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

// peerPath finds another program; where it is not there, the test is skipped.
func peerPath(t testing.TB, program string) string {
	t.Helper()
	for _, name := range []string{program, "/usr/sbin/" + program} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("SLUICE_REQUIRE_PEERS") != "" {
		t.Fatal(program + " is not there")
	}
	t.Skip(program + " is not there: e2e/deps.sh installs it")
	return ""
}

// Where the check says that the name is broken a validator answers SERVFAIL, and
// where it does not, a validator answers.
func TestUnbound_AgreesWithTheVerdict(t *testing.T) {
	peerPath(t, "unbound")
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
			name, q := f.question()
			got := tr.byUnbound(name, q)
			refused := r.Verdict == Bogus || r.Verdict == Unreachable
			if got.refused != refused || got.secure != (r.Verdict == Secure) && !refused {
				t.Errorf("the check says %s: %s; unbound about %s:\n%s", r.Verdict, r.Summary, name, got.text)
			}
		})
	}
}
