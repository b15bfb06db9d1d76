package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// buildPackage builds the Debian package of the tree and returns its file.
func buildPackage(t *testing.T, version string) string {
	t.Helper()
	out := t.TempDir()
	cmd := exec.Command(filepath.Join(root, "cli/packaging/package.sh"), version)
	cmd.Env = append(os.Environ(), "DIST="+out)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("package: %v\n%s", err, text)
	}
	found, err := filepath.Glob(filepath.Join(out, "sluice_"+version+"-1_*.deb"))
	if err != nil || len(found) != 1 {
		t.Fatalf("packages %v, %v", found, err)
	}
	return found[0]
}

// thePackage is a package of the tree, for all tests that need one.
func thePackage(t *testing.T) string {
	t.Helper()
	theBuilt.Do(func() {
		deb := buildPackage(t, packagedVersion)
		theBuilt.file = filepath.Join(binaries, filepath.Base(deb))
		if err := os.Rename(deb, theBuilt.file); err != nil {
			t.Fatal(err)
		}
	})
	if theBuilt.file == "" {
		t.Fatal("the package was not built")
	}
	return theBuilt.file
}

const packagedVersion = "1.2~test"

var theBuilt struct {
	sync.Once
	file string
}

// packaged is what the package holds; a folder ends in a slash.
var packaged = []string{
	"/etc/sluice/policies/default.toml",
	"/etc/sluice/sluice.toml",
	"/lib/systemd/system/sluice.service",
	"/lib/systemd/system/sluice.socket",
	"/usr/bin/sluice",
	"/usr/share/bash-completion/completions/sluice",
	"/usr/share/doc/sluice/changelog.Debian.gz",
	"/usr/share/doc/sluice/changelog.gz",
	"/usr/share/doc/sluice/copyright",
	"/usr/share/fish/vendor_completions.d/sluice.fish",
	"/usr/share/lintian/overrides/sluice",
	"/usr/share/man/man5/sluice-policy.5.gz",
	"/usr/share/man/man5/sluice.toml.5.gz",
	"/usr/share/man/man8/sluice.8.gz",
	"/usr/share/zsh/vendor-completions/_sluice",
}

func TestPackage_HoldsWhatItShouldAndRuns(t *testing.T) {
	t.Parallel()
	need(t, "dpkg-deb")
	deb := thePackage(t)
	if again := buildPackage(t, packagedVersion); !bytes.Equal([]byte(readFile(t, deb)), []byte(readFile(t, again))) {
		t.Error("the same source gives another package")
	}
	dir := t.TempDir()
	must(t, "dpkg-deb", "-x", deb, dir)
	must(t, "dpkg-deb", "-e", deb, filepath.Join(dir, "DEBIAN"))
	var files []string
	err := filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if name = strings.TrimPrefix(name, dir); err == nil && !d.IsDir() && !strings.HasPrefix(name, "/DEBIAN/") {
			files = append(files, name)
		}
		return err
	})
	if err != nil || !slices.Equal(files, packaged) {
		t.Errorf("the package holds %v, %v", files, err)
	}
	if got := must(t, "cat", filepath.Join(dir, "DEBIAN/conffiles")); got != "/etc/sluice/policies/default.toml\n/etc/sluice/sluice.toml\n" {
		t.Errorf("conffiles: %q", got)
	}
	sluice := filepath.Join(dir, "usr/bin/sluice")
	if got := must(t, sluice, "version"); !strings.HasPrefix(got, "sluice 1.2~test") {
		t.Errorf("version %q", got)
	}
	must(t, sluice, "policy", "check", filepath.Join(dir, "etc/sluice/policies/default.toml"))
	for _, unit := range []string{"service", "socket"} {
		if got, want := readFile(t, filepath.Join(dir, "lib/systemd/system/sluice."+unit)), readFile(t, filepath.Join(root, "cli/packaging/sluice."+unit)); got != want {
			t.Errorf("the unit %s is another than the template", unit)
		}
	}
	runsInAnEmptyRoot(t, sluice, readFile(t, filepath.Join(dir, "etc/sluice/sluice.toml")))
}

// runsInAnEmptyRoot runs the static program as the container does: nothing in
// its root, a user without a name.
func runsInAnEmptyRoot(t *testing.T, sluice, config string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Log("not root: the program is not run in a root of its own")
		return
	}
	const user = 10053
	dir := shortDir(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{"usr/bin", "etc/sluice/policies", "zones"} {
		if err := os.MkdirAll(filepath.Join(dir, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, folder := range []string{"var/lib/sluice", "run/sluice", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, folder), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(filepath.Join(dir, folder), user, user); err != nil {
			t.Fatal(err)
		}
	}
	must(t, "cp", sluice, filepath.Join(dir, "usr/bin/sluice"))
	addr := freeAddr(t)
	config = regexp.MustCompile(`(?m)^servers = \["127\.0\.0\.1:8053"\]`).ReplaceAllLiteralString(config, `servers = ["`+addr+`"]`)
	writeFile(t, filepath.Join(dir, "etc/sluice/sluice.toml"), config)
	writeFile(t, filepath.Join(dir, "etc/sluice/policies/default.toml"), "version = \"v1\"\n")
	writeFile(t, filepath.Join(dir, "zones/example.com"), "$TTL 3600\n@ SOA ns1 hostmaster 1 7200 3600 1209600 300\n@ NS ns1\nns1 A 192.0.2.1\n")
	in := func(args ...string) *exec.Cmd {
		cmd := exec.Command("/usr/sbin/chroot", append([]string{fmt.Sprintf("--userspec=%d:%d", user, user), dir, "/usr/bin/sluice"}, args...)...)
		cmd.Env = []string{"HOME=/"}
		return cmd
	}
	d := startCommand(t, "sluice", in("serve", "--config", "/etc/sluice/sluice.toml", "--zone", example+"=/zones/example.com"))
	await(t, "the zone is served from an empty root", time.Minute, func() (bool, string) {
		_, err := serialAt(addr, example)
		return err == nil, fmt.Sprint(err, d.tail())
	})
	if out, err := in("health").CombinedOutput(); err != nil || string(out) != "ok\n" {
		t.Errorf("health: %v, %s", err, out)
	}
	d.stop()
	if code := d.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d:\n%s", code, d.tail())
	}
}
