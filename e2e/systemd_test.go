package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// notifySocket is a service manager's end of sd_notify(3).
type notifySocket struct {
	path string
	conn *net.UnixConn
}

func newNotifySocket(t *testing.T) *notifySocket {
	t.Helper()
	n := &notifySocket{path: filepath.Join(shortDir(t), "notify")}
	var err error
	if n.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: n.path, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.conn.Close() })
	return n
}

// await reads messages until one has the assignment and returns its lines; also
// those before it, one after another, in seen.
func (n *notifySocket) await(t *testing.T, assignment string) (lines, seen []string) {
	t.Helper()
	if err := n.conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	for {
		size, err := n.conn.Read(buf)
		if err != nil {
			t.Fatalf("the service manager was not told %s, but %q: %v", assignment, seen, err)
		}
		lines = strings.Split(string(buf[:size]), "\n")
		if slices.Contains(lines, assignment) {
			return lines, seen
		}
		seen = append(seen, lines...)
	}
}

// value is that of an assignment's name among lines; empty where it is absent.
func value(lines []string, name string) string {
	for _, l := range lines {
		if v, ok := strings.CutPrefix(l, name+"="); ok {
			return v
		}
	}
	return ""
}

func TestSystemd_IsToldOfStartReloadWatchdogAndStop(t *testing.T) {
	t.Parallel()
	n := newNotifySocket(t)
	d := startDaemon(t, "version = \"v1\"\n", exampleZone())
	d.awaitServed(t, example)
	d.stop()

	cmd := exec.Command(program(t), append([]string{"serve", "--data", d.data, "--listen", d.addr}, d.flags...)...)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+n.path, "WATCHDOG_USEC=800000")
	d.process = startCommand(t, "sluice", cmd)
	_, seen := n.await(t, "READY=1")
	if _, err := strconv.Atoi(value(seen, "EXTEND_TIMEOUT_USEC")); err != nil {
		t.Errorf("a start that gets on says %q", seen)
	}
	// Ready means that the zone is served: no second try.
	if _, err := serialAt(d.addr, example); err != nil {
		t.Errorf("told to be ready, but: %v", err)
	}
	for range 3 {
		lines, _ := n.await(t, "WATCHDOG=1")
		if how := value(lines, "STATUS"); how != "1 zone, no alarm" {
			t.Errorf("status %q", how)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	lines, _ := n.await(t, "RELOADING=1")
	if at, err := strconv.ParseUint(value(lines, "MONOTONIC_USEC"), 10, 64); err != nil || at == 0 {
		t.Errorf("reloading says %q", lines)
	}
	n.await(t, "READY=1")
	await(t, "the log tells of the reload", 10*time.Second, func() (bool, string) {
		return strings.Contains(d.log(), "config reloaded"), d.tail()
	})
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	n.await(t, "STOPPING=1")
	<-d.exited
	if code := cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d:\n%s", code, d.tail())
	}
}

// heldSockets are those that a service manager opens and hands to each daemon
// in turn.
type heldSockets struct {
	addr, api string
	files     []*os.File
	names     string
}

func holdSockets(t *testing.T) *heldSockets {
	t.Helper()
	h := &heldSockets{api: filepath.Join(shortDir(t), "api.sock")}
	// The port stays open from here on: nobody else can take it.
	var tcp net.Listener
	var udp net.PacketConn
	var err error
	for range 50 {
		if tcp, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		h.addr = tcp.Addr().String()
		if udp, err = net.ListenPacket("udp", h.addr); err == nil {
			break
		}
		tcp.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	unix, err := net.Listen("unix", h.api)
	if err != nil {
		t.Fatal(err)
	}
	stray, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []interface {
		File() (*os.File, error)
		io.Closer
	}{tcp.(*net.TCPListener), udp.(*net.UDPConn), unix.(*net.UnixListener), stray.(*net.TCPListener)} {
		f, err := c.File()
		if err != nil {
			t.Fatal(err)
		}
		h.files = append(h.files, f)
		t.Cleanup(func() { f.Close(); c.Close() })
	}
	h.names = "publication:publication:sluice.socket:stray"
	return h
}

// start starts a daemon with the sockets, as systemd.socket(5) does.
func (h *heldSockets) start(t *testing.T, data string, args ...string) *process {
	t.Helper()
	script := `LISTEN_PID=$$ LISTEN_FDS=` + fmt.Sprint(len(h.files)) + ` LISTEN_FDNAMES=` + h.names + ` exec "$@"`
	cmd := exec.Command("sh", append([]string{"-c", script, "sh", program(t), "serve", "--data", data}, args...)...)
	cmd.ExtraFiles = h.files
	return startCommand(t, "sluice", cmd)
}

func TestSystemd_SocketsThatAreHeldLoseNoQuestionInARestart(t *testing.T) {
	t.Parallel()
	h := holdSockets(t)
	data := filepath.Join(shortDir(t), "data")
	d := h.start(t, data, "--zone", exampleZone())
	await(t, "the zone is served on the held socket", time.Minute, func() (bool, string) {
		_, err := serialAt(h.addr, example)
		return err == nil, fmt.Sprint(err)
	})
	if !strings.Contains(d.log(), "socket of the service manager not used") || strings.Count(d.log(), "not used") != 1 {
		t.Errorf("the one socket that nobody uses is not told:\n%s", d.tail())
	}

	// Somebody asks all the time, each time on a new connection.
	var asked atomic.Int64
	ended := make(chan struct{})
	failed := make(chan error, 1)
	go func() {
		defer close(failed)
		c := dns.Client{Net: "tcp", Timeout: 30 * time.Second}
		for {
			select {
			case <-ended:
				return
			default:
			}
			m := new(dns.Msg)
			m.SetQuestion(example+".", dns.TypeSOA)
			r, _, err := c.Exchange(m, h.addr)
			if err == nil && (r.Rcode != dns.RcodeSuccess || len(r.Answer) != 1) {
				err = errors.New(r.String())
			}
			if err != nil {
				failed <- fmt.Errorf("after %d answers: %w", asked.Load(), err)
				return
			}
			asked.Add(1)
		}
	}()
	for range 3 {
		before := asked.Load()
		await(t, "questions are answered", time.Minute, func() (bool, string) {
			return asked.Load() > before+20, fmt.Sprint(asked.Load() - before)
		})
		d.stop()
		if code := d.cmd.ProcessState.ExitCode(); code != 0 {
			t.Errorf("exit code %d:\n%s", code, d.tail())
		}
		// A command that is begun while no daemon runs waits for the next one.
		health := exec.Command(program(t), "--api", "unix:"+h.api, "zone", "list")
		var said bytes.Buffer
		health.Stdout, health.Stderr = &said, &said
		if err := health.Start(); err != nil {
			t.Fatal(err)
		}
		d = h.start(t, data)
		if err := health.Wait(); err != nil {
			t.Errorf("the command that waited: %v\n%s", err, &said)
		}
	}
	after := asked.Load()
	await(t, "questions are answered", time.Minute, func() (bool, string) {
		return asked.Load() > after+20, fmt.Sprint(asked.Load() - after)
	})
	close(ended)
	if err := <-failed; err != nil {
		t.Errorf("a question was lost: %v", err)
	}
	if _, err := query(h.addr, example, dns.TypeSOA); err != nil {
		t.Errorf("over UDP: %v", err)
	}
	if _, err := os.Stat(h.api); err != nil {
		t.Errorf("the socket of the service manager is gone: %v", err)
	}
}

func TestSystemd_UnitIsSound(t *testing.T) {
	t.Parallel()
	need(t, "systemd-analyze")
	dir := t.TempDir()
	for _, unit := range []string{"systemd", "systemd-socket"} {
		name := map[string]string{"systemd": "sluice.service", "systemd-socket": "sluice.socket"}[unit]
		text := must(t, program(t), "template", unit)
		// Where this program would be installed, none is.
		text = strings.ReplaceAll(text, "/usr/bin/sluice", program(t))
		text = strings.ReplaceAll(text, "Documentation=man:sluice(8)\n", "")
		writeFile(t, filepath.Join(dir, name), text)
	}
	for _, name := range []string{"sluice.service", "sluice.socket"} {
		r := run(t, "systemd-analyze", "verify", "--man=no", filepath.Join(dir, name))
		if r.code != 0 || strings.Contains(r.stderr, name+":") {
			t.Errorf("%s: %v", name, r)
		}
	}
	// The manual states the score.
	r := run(t, "systemd-analyze", "security", "--offline=true", "--threshold=20", filepath.Join(dir, "sluice.service"))
	score := regexp.MustCompile(`exposure level for sluice.service: (\S+)`).FindStringSubmatch(r.stdout)
	if r.code != 0 || score == nil {
		t.Fatalf("the unit is too exposed: %s", r.stdout[max(0, len(r.stdout)-200):])
	}
	if page := strings.Join(strings.Fields(must(t, program(t), "help", "install")), " "); !strings.Contains(page, "gives it "+score[1]+" (0 is") {
		t.Errorf("the page install states another score than %s", score[1])
	}
}

// What the daemon asks of the kernel is what its unit lets it ask.
func TestSystemd_UnitAllowsTheSystemCallsThatAreMade(t *testing.T) {
	t.Parallel()
	need(t, "systemd-analyze", "strace")
	dir := shortDir(t)
	trace := filepath.Join(dir, "trace")
	data := filepath.Join(dir, "data")
	addr := freeAddr(t)
	d := start(t, "strace", "strace", "-f", "-qq", "-o", trace, "-e", "signal=none",
		program(t), "serve", "--data", data, "--listen", addr, "--zone", exampleZone())
	await(t, "the zone is served", time.Minute, func() (bool, string) {
		_, err := serialAt(addr, example)
		return err == nil, fmt.Sprint(err)
	})
	must(t, program(t), "--api", "unix:"+filepath.Join(data, "sluice.sock"), "journal", "verify")
	// A signal for strace would end strace alone.
	pid, err := strconv.Atoi(strings.TrimSpace(readFile(t, filepath.Join(data, "lock"))))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-d.exited
	if code := d.cmd.ProcessState.ExitCode(); code != 0 {
		t.Fatalf("exit code %d:\n%s", code, d.tail())
	}
	allowed := allowedCalls(t, must(t, program(t), "template", "systemd"))
	refused, calls := map[string]bool{}, 0
	for line := range strings.Lines(readFile(t, trace)) {
		_, call, _ := strings.Cut(line, " ")
		name, _, ok := strings.Cut(strings.TrimSpace(call), "(")
		if !ok || strings.HasPrefix(name, "<") || name == "???" || strings.ContainsAny(name, " +") {
			continue
		}
		calls++
		if !allowed[name] {
			refused[name] = true
		}
	}
	if calls < 1000 {
		t.Errorf("%d system calls seen only", calls)
	}
	for name := range refused {
		t.Errorf("the unit does not allow %s, which the daemon calls", name)
	}
}

// allowedCalls are the system calls that a unit's SystemCallFilter= lines leave.
func allowedCalls(t *testing.T, unit string) map[string]bool {
	t.Helper()
	allowed := map[string]bool{}
	var expand func(name string, to bool)
	expand = func(name string, to bool) {
		if !strings.HasPrefix(name, "@") {
			if allowed[name] = to; !to {
				delete(allowed, name)
			}
			return
		}
		for line := range strings.Lines(must(t, "systemd-analyze", "syscall-filter", name)) {
			if member, ok := strings.CutPrefix(line, "    "); ok && !strings.HasPrefix(member, "#") {
				expand(strings.TrimSpace(member), to)
			}
		}
	}
	expand("@default", true) // always
	for line := range strings.Lines(unit) {
		list, ok := strings.CutPrefix(strings.TrimSpace(line), "SystemCallFilter=")
		if !ok {
			continue
		}
		list, forbids := strings.CutPrefix(list, "~")
		for name := range strings.FieldsSeq(list) {
			expand(name, !forbids)
		}
	}
	if len(allowed) < 100 {
		t.Fatalf("the unit allows %d system calls only", len(allowed))
	}
	return allowed
}
