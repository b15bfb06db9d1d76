package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The recipe of the container image is followed without an engine: what its first
// stage does is done here, and the second stage's command runs with that alone as
// its root, as the recipe's user, in a network of its own.
func TestContainer_TheRecipeMakesAnImageThatSigns(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root, for another root folder and user")
	}
	need(t, "unshare")
	need(t, "chroot")
	const authorities = "/etc/ssl/certs/ca-certificates.crt"
	if _, err := os.Stat(authorities); err != nil {
		t.Skipf("needs %s: on Debian apt-get install ca-certificates", authorities)
	}
	recipe := readRecipe(t)
	out := filepath.Join(shortDir(t), "out")
	build := exec.Command("sh", "-euc", strings.ReplaceAll(recipe.run, "/out", out))
	build.Dir, build.Env = root, append(os.Environ(), "VERSION=9.9~test")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	image := filepath.Join(out, "root")
	for _, name := range []string{filepath.Dir(out), out, image} {
		if err := os.Chmod(name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	zone := writeFile(t, filepath.Join(image, "tmp", "zone"), "$TTL 300\n@ SOA ns hostmaster 1 7200 3600 1209600 300\n@ NS ns\nns A 192.0.2.1\n")
	if err := os.Chmod(zone, 0o644); err != nil {
		t.Fatal(err)
	}
	inside := func(command ...string) []string {
		return append([]string{"--userspec=" + recipe.user, image}, command...)
	}
	// A container has a loopback interface that is up.
	const start = `ip link set lo up 2>/dev/null || true; exec chroot "$@"`
	serve := exec.Command("unshare", append([]string{"--net", "sh", "-c", start, "sh"}, inside(append(recipe.entrypoint, recipe.cmd...)...)...)...)
	var log strings.Builder
	serve.Stdout, serve.Stderr, serve.Env = &log, &log, []string{}
	serve.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- serve.Wait() }()
	await(t, "a healthy container", time.Minute, func() (bool, string) {
		text, err := exec.Command("chroot", inside(recipe.health...)...).CombinedOutput()
		return err == nil, string(text)
	})
	sluice := func(args ...string) string {
		return must(t, "chroot", inside(append([]string{recipe.entrypoint[0], "--api", "unix:/run/sluice/sluice.sock"}, args...)...)...)
	}
	if text := sluice("version"); !strings.Contains(text, "9.9~test") {
		t.Errorf("version: %s", text)
	}
	sluice("zone", "add", example, "--source", "/tmp/zone")
	await(t, "a published zone", time.Minute, func() (bool, string) {
		text := sluice("zone", "list")
		return strings.Contains(text, "published"), text
	})
	sluice("zone", "verify", example)
	if err := serve.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("it stopped with %v\n%s", err, log.String())
	}
}

// recipe is what of the recipe counts.
type recipe struct {
	run, user               string
	health, entrypoint, cmd []string
}

// readRecipe reads the recipe: instructions, with lines that go on behind a
// backslash.
func readRecipe(t *testing.T) (r recipe) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "cli/packaging/Containerfile"))
	if err != nil {
		t.Fatal(err)
	}
	list := func(text string) (out []string) {
		if err := json.Unmarshal([]byte(text), &out); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		return out
	}
	for line := range strings.Lines(strings.ReplaceAll(string(text), "\\\n", "")) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch word {
		case "RUN":
			r.run = rest
		case "USER":
			r.user = rest
		case "HEALTHCHECK":
			_, command, _ := strings.Cut(rest, " CMD ")
			r.health = list(command)
		case "ENTRYPOINT":
			r.entrypoint = list(rest)
		case "CMD":
			r.cmd = list(rest)
		}
	}
	if r.run == "" || r.user == "" || len(r.health) == 0 || len(r.entrypoint) == 0 || len(r.cmd) == 0 {
		t.Fatalf("the recipe lacks something: %+v", r)
	}
	return r
}
