package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// root is the top of the tree, as seen from this package's folder.
const root = ".."

// long says that the tests are to do many more rounds.
func long() bool { return os.Getenv("SLUICE_LONG") == "1" }

// binaries is the folder that TestMain makes for what the tests build.
var binaries string

// build builds the program under test, for the first test that needs it.
var build = sync.OnceValues(func() (string, error) {
	name := filepath.Join(binaries, "sluice")
	cmd := exec.Command("go", "build", "-o", name, "./cli/sluice")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build of the program: %w\n%s", err, out)
	}
	return name, nil
})

// program returns the program under test.
func program(t *testing.T) string {
	t.Helper()
	name, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// skipped counts the tests left out because a peer is missing.
var skipped struct {
	sync.Mutex
	tests   int
	missing []string
}

func TestMain(m *testing.M) {
	os.Exit(runAll(m))
}

func runAll(m *testing.M) int {
	// The servers stand in folders that an ordinary user's path lacks.
	err := os.Setenv("PATH", os.Getenv("PATH")+":/usr/local/sbin:/usr/sbin:/sbin")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	dir, err := os.MkdirTemp("", "sluice-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binaries = dir
	code := m.Run()
	if skipped.tests > 0 {
		fmt.Printf("e2e: %d tests skipped, because these are not installed: %s\n",
			skipped.tests, strings.Join(skipped.missing, " "))
	}
	return code
}

// need skips the test when a peer's command is not installed; where peers are
// required that is an error.
func need(t *testing.T, commands ...string) {
	t.Helper()
	var missing []string
	for _, c := range commands {
		if _, err := exec.LookPath(c); err != nil {
			missing = append(missing, c)
		}
	}
	if len(missing) == 0 {
		return
	}
	if os.Getenv("SLUICE_REQUIRE_PEERS") == "1" {
		t.Fatalf("not installed: %v", missing)
	}
	skipped.Lock()
	skipped.tests++
	for _, c := range missing {
		if !slices.Contains(skipped.missing, c) {
			skipped.missing = append(skipped.missing, c)
		}
	}
	skipped.Unlock()
	t.Skipf("not installed: %v", missing)
}

// result is what a command that ran to its end left.
type result struct {
	stdout, stderr string
	code           int
}

func (r result) String() string {
	return fmt.Sprintf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
}

// run runs a command to its end, whatever its exit code.
func run(t *testing.T, command string, args ...string) result {
	t.Helper()
	return runIn(t, "", command, args...)
}

func runIn(t *testing.T, dir, command string, args ...string) result {
	t.Helper()
	// Cleanups call it too, when the test's own context has ended.
	within := 2 * time.Minute
	if long() { // of ten thousand zones
		within = time.Hour
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), within)
	defer cancel()
	cmd := exec.CommandContext(ctx, command, args...)
	var stdout, stderr bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("run %s: %v", command, err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// must runs a command that has to succeed and returns its standard output.
func must(t *testing.T, command string, args ...string) string {
	t.Helper()
	r := run(t, command, args...)
	if r.code != 0 {
		t.Fatalf("%s %s: %v", filepath.Base(command), strings.Join(args, " "), r)
	}
	return r.stdout
}

// process is a server that runs beside the test.
type process struct {
	name    string
	cmd     *exec.Cmd
	logFile string
	exited  chan struct{} // closed once Wait has returned
}

// start starts a server; the end of the test stops it. Its log is shown when
// the test has failed.
func start(t *testing.T, name, command string, args ...string) *process {
	t.Helper()
	return startCommand(t, name, exec.Command(command, args...))
}

// startCommand is start for a command that is made already.
func startCommand(t *testing.T, name string, cmd *exec.Cmd) *process {
	t.Helper()
	logFile, err := os.CreateTemp(t.ArtifactDir(), name+"-*.log")
	if err != nil {
		t.Fatal(err)
	}
	defer logFile.Close()
	p := &process{name: name, cmd: cmd, logFile: logFile.Name(), exited: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = logFile, logFile
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // the exit code is read from ProcessState
		close(p.exited)
	}()
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Logf("log of %s:\n%s", name, p.tail())
		}
	})
	return p
}

// stop ends the process politely, then by force.
func (p *process) stop() {
	if p.running() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may end by itself meanwhile
	}
	select {
	case <-p.exited:
	case <-time.After(20 * time.Second):
		p.kill()
	}
}

// kill ends the process and what it started at once, as a crash does.
func (p *process) kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.exited
}

func (p *process) running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

func (p *process) log() string {
	text, err := os.ReadFile(p.logFile)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func (p *process) tail() string {
	text := p.log()
	return text[max(0, len(text)-3000):]
}

// await polls until the condition holds; what names it in the failure, and the
// condition returns what it saw instead.
func await(t *testing.T, what string, within time.Duration, holds func() (bool, string)) {
	t.Helper()
	if ok, saw := eventually(within, holds); !ok {
		t.Fatalf("not within %v: %s; last seen: %s", within, what, saw)
	}
}

// eventually polls until the condition holds or the time is over.
func eventually(within time.Duration, holds func() (ok bool, saw string)) (bool, string) {
	deadline := time.Now().Add(within)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, saw := holds()
		if ok || time.Now().After(deadline) {
			return ok, saw
		}
		<-tick.C
	}
}

// freeAddr returns an address of the loopback whose port is free for UDP and
// TCP.
func freeAddr(t *testing.T) string {
	t.Helper()
	for range 50 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		u, err := net.ListenPacket("udp", l.Addr().String())
		l.Close()
		if err == nil {
			u.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no port is free for both UDP and TCP")
	return ""
}

func port(addr string) string {
	_, p, _ := net.SplitHostPort(addr)
	return p
}

// host is the address without its port.
func host(addr string) string {
	h, _, _ := net.SplitHostPort(addr)
	return h
}

// shortDir is a temporary folder whose name leaves room for socket paths,
// which may have 107 octets.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "e2e") //nolint:usetesting // t.TempDir has the test's name in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// replaceFile puts new contents in place at once, as a registry's export does.
func replaceFile(t *testing.T, name string, write func(io.Writer) error) {
	t.Helper()
	f, err := os.CreateTemp(filepath.Dir(name), ".new")
	if err != nil {
		t.Fatal(err)
	}
	err = write(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(f.Name(), name); err != nil {
		t.Fatal(err)
	}
}
