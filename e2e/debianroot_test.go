package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// debianRoot is a clean Debian system in a folder.
type debianRoot struct{ dir string }

// newDebianRoot unpacks a minimal Debian system. Making one takes a minute and
// the network, so it is kept; without one that was kept, only the long run
// makes it.
func newDebianRoot(t *testing.T) debianRoot {
	t.Helper()
	need(t, "debootstrap", "dpkg-deb")
	if os.Getuid() != 0 {
		t.Skip("only root can install a package")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	kept := filepath.Join(cache, "sluice-e2e", "bookworm.tar")
	r := debianRoot{filepath.Join(t.TempDir(), "root")}
	if _, err := os.Stat(kept); err == nil {
		if err := os.Mkdir(r.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		must(t, "tar", "-C", r.dir, "-xpf", kept)
		return r
	}
	if !long() {
		t.Skipf("no Debian system in %s: SLUICE_LONG=1 makes one", kept)
	}
	cmd := exec.Command("debootstrap", "--variant=minbase", "bookworm", r.dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("debootstrap: %v\n%s", err, out)
	}
	if err := os.MkdirAll(filepath.Dir(kept), 0o755); err != nil {
		t.Fatal(err)
	}
	must(t, "tar", "-C", r.dir, "-cpf", kept+".new", ".")
	if err := os.Rename(kept+".new", kept); err != nil {
		t.Fatal(err)
	}
	return r
}

// command is one that runs inside, as user where that is not empty.
func (r debianRoot) command(user string, args ...string) *exec.Cmd {
	in := []string{}
	if user != "" {
		in = append(in, "--userspec="+user+":"+user)
	}
	cmd := exec.Command("/usr/sbin/chroot", append(append(in, r.dir), args...)...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "DEBIAN_FRONTEND=noninteractive"}
	return cmd
}

// must runs a command inside as root, which has to succeed.
func (r debianRoot) must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := r.command("", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return string(out)
}

// files is everything in the root, with owner and mode.
func (r debianRoot) files(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(r.dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil {
			found[strings.TrimPrefix(name, r.dir)] = info.Mode().String()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// more lists what is in b and not in a, but for what adduser leaves behind for
// any package.
func more(a, b map[string]string) []string {
	var found []string
	for name := range b {
		if _, ok := a[name]; !ok && !regexp.MustCompile(`^/(etc/(passwd|group|shadow|gshadow|subuid|subgid)-|run/adduser|var/log/dpkg\.log|var/lib/dpkg/.*-old)$`).MatchString(name) {
			found = append(found, name)
		}
	}
	slices.Sort(found)
	return found
}

func TestPackage_InstallsRunsAndLeavesNothingOnDebian(t *testing.T) {
	t.Parallel()
	r := newDebianRoot(t)
	deb := thePackage(t)
	must(t, "cp", deb, filepath.Join(r.dir, "sluice.deb"))
	before := r.files(t)

	// Installed and purged without ever having run: nothing stays.
	r.must(t, "dpkg", "-i", "/sluice.deb")
	r.must(t, "dpkg", "-P", "sluice")
	if left := more(before, r.files(t)); len(left) > 0 {
		t.Errorf("purge leaves %v", left)
	}
	if who := r.must(t, "sh", "-c", "getent passwd sluice || true"); who != "" {
		t.Errorf("purge leaves the user %s", who)
	}

	r.must(t, "dpkg", "-i", "/sluice.deb")
	if mode := r.files(t)["/var/lib/sluice"]; mode != "drwx------" {
		t.Errorf("the data directory is %s", mode)
	}
	runInstalled(t, r)

	// An upgrade keeps what the administrator wrote.
	config := readFile(t, filepath.Join(r.dir, "etc/sluice/sluice.toml"))
	r.must(t, "dpkg", "-i", "/sluice.deb")
	if readFile(t, filepath.Join(r.dir, "etc/sluice/sluice.toml")) != config {
		t.Error("an upgrade replaces the config")
	}

	r.must(t, "dpkg", "-r", "sluice")
	for _, stays := range []string{"etc/sluice/sluice.toml", "var/lib/sluice/journal", "var/lib/sluice/keys"} {
		if _, err := os.Stat(filepath.Join(r.dir, stays)); err != nil {
			t.Errorf("removal: %v", err)
		}
	}
	if _, err := os.Stat(filepath.Join(r.dir, "usr/bin/sluice")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("removal leaves the program: %v", err)
	}
	// Purge never takes the only copy of private keys.
	said := r.must(t, "dpkg", "-P", "sluice")
	if !strings.Contains(said, "rm -r /var/lib/sluice && deluser sluice") {
		t.Errorf("purge does not say what stays: %s", said)
	}
	left := more(before, r.files(t))
	for _, name := range left {
		if !regexp.MustCompile(`^/var/lib/sluice(/(version|journal|keys)(/.*)?)?$|^/srv/`).MatchString(name) {
			t.Errorf("purge leaves %s", name)
		}
	}
	if !slices.Contains(left, "/var/lib/sluice/keys") {
		t.Error("purge takes the keys")
	}
	r.must(t, "sh", "-c", "rm -r /var/lib/sluice && deluser sluice")
	if lintian, err := exec.LookPath("lintian"); err == nil && long() {
		if out, err := exec.Command(lintian, "--allow-root", "--fail-on", "error", "--suppress-tags", "bogus-mail-host,bogus-mail-host-in-debian-changelog", deb).CombinedOutput(); err != nil {
			t.Errorf("lintian: %v\n%s", err, out)
		}
	}
}

// runInstalled runs the daemon as the unit does, signs a zone, and ends it.
func runInstalled(t *testing.T, r debianRoot) {
	t.Helper()
	addr := freeAddr(t)
	config := filepath.Join(r.dir, "etc/sluice/sluice.toml")
	writeFile(t, config, strings.Replace(readFile(t, config), `servers = ["127.0.0.1:8053"]`, `servers = ["`+addr+`"]`, 1))
	if err := os.MkdirAll(filepath.Join(r.dir, "srv/zones"), 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(r.dir, "srv/zones/example.com"), "$TTL 3600\n@ SOA ns1 hostmaster 1 7200 3600 1209600 300\n@ NS ns1\nns1 A 192.0.2.1\n")
	r.must(t, "install", "-d", "-o", "sluice", "-g", "sluice", "/run/sluice") // RuntimeDirectory=
	command := regexp.MustCompile(`(?m)^ExecStart=(.*)$`).FindStringSubmatch(readFile(t, filepath.Join(r.dir, "lib/systemd/system/sluice.service")))
	if command == nil {
		t.Fatal("the unit starts nothing")
	}
	d := startCommand(t, "sluice", r.command("sluice", strings.Fields(command[1])...))
	await(t, "the daemon is well", time.Minute, func() (bool, string) {
		out, err := r.command("", "sluice", "health").CombinedOutput()
		return err == nil, string(out) + d.tail()
	})
	r.must(t, "sluice", "zone", "add", example, "--source", "/srv/zones/example.com")
	r.must(t, "sluice", "zone", "verify", example)
	if _, err := serialAt(addr, example); err != nil {
		t.Errorf("the zone is not served: %v", err)
	}
	// Nobody's number: the socket is for root and the daemon's user.
	if out, err := r.command("65534", "sluice", "health").CombinedOutput(); err == nil || !strings.Contains(string(out), "permission denied") {
		t.Errorf("another user reaches the daemon: %s", out)
	}
	d.stop()
	if code := d.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d:\n%s", code, d.tail())
	}
	if who := r.must(t, "stat", "-c", "%U %a", "/var/lib/sluice/keys"); who != "sluice 700\n" {
		t.Errorf("keys are %s", who)
	}
	if text := fmt.Sprint(r.files(t)["/var/lib/sluice/version"]); text == "" {
		t.Error("no data directory was made")
	}
	if err := os.RemoveAll(filepath.Join(r.dir, "srv/zones")); err != nil {
		t.Fatal(err)
	}
}
