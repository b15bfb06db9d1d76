package e2e

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const accessZone = `$TTL 3600
@ IN SOA ns1 hostmaster %d 7200 3600 1209600 300
  IN NS ns1
ns1 IN A 192.0.2.1
`

// opened is a daemon whose API is on the network.
type opened struct {
	*daemon
	dir  string
	http string // its address
	pin  string
}

// startOpened starts a daemon with an HTTP listener, and a zone example.com.
func startOpened(t *testing.T, policy string, flags ...string) *opened {
	t.Helper()
	o := &opened{dir: t.TempDir(), http: freeAddr(t)}
	o.daemon = &daemon{data: filepath.Join(shortDir(t), "data"), addr: freeAddr(t)}
	if policy != "" {
		writeFile(t, filepath.Join(o.dir, "default.toml"), policy)
		o.flags = append(o.flags, "--policy-dir", o.dir)
	}
	source := writeFile(t, filepath.Join(o.dir, "zone"), fmt.Sprintf(accessZone, 1))
	o.flags = append(append(o.flags, "--http", o.http, "--zone", "example.com="+source), flags...)
	o.start(t)
	found := regexp.MustCompile(`API on https://` + regexp.QuoteMeta(o.http) + `#(sha256:\S+),`)
	await(t, "the daemon says where its API is", time.Minute, func() (bool, string) {
		m := found.FindStringSubmatch(o.log())
		if m != nil {
			o.pin = m[1]
		}
		return m != nil, o.log()
	})
	return o
}

// token makes a token and returns its file.
func (o *opened) token(t *testing.T, name, roles string, more ...string) string {
	t.Helper()
	file := filepath.Join(o.dir, name+".token")
	o.must(t, append([]string{"token", "add", name, "--role", roles, "-o", file}, more...)...)
	return file
}

// as runs a command over the network with the token in a file.
func (o *opened) as(t *testing.T, token string, args ...string) result {
	t.Helper()
	return run(t, program(t), append([]string{"--api", "https://" + o.http + "#" + o.pin, "--token-file", token}, args...)...)
}

func wantResult(t *testing.T, r result, code int, texts ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("want exit code %d: %v", code, r)
	}
	for _, text := range texts {
		if !strings.Contains(r.stdout+r.stderr, text) {
			t.Errorf("%q is missing: %v", text, r)
		}
	}
}

func TestAccess_TokensOverTheNetwork(t *testing.T) {
	t.Parallel()
	o := startOpened(t, "")
	o.awaitServed(t, "example.com")
	ada := o.token(t, "ada", "operator")
	if info, err := os.Stat(ada); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("file of the token: %v, %v", info, err)
	}
	wantResult(t, o.as(t, ada, "zone", "list"), 0, "example.com.")
	wantResult(t, o.as(t, ada, "zone", "dump", "example.com"), 0, "RRSIG")
	wantResult(t, o.as(t, ada, "zone", "diff", "example.com", "l3", "l3"), 3)
	wantResult(t, o.as(t, ada, "zone", "maintenance", "enable", "example.com"), 0)
	wantResult(t, o.as(t, ada, "zone", "history", "example.com"), 0, "maintenance begins", "ada")
	wantResult(t, o.as(t, ada, "tsig", "add", "k", "hmac-sha256", "--generate"), 4, "admin")
	wantResult(t, o.as(t, ada, "audit", "export", "-o", filepath.Join(o.dir, "none")), 4, "auditor")

	// The daemon must prove itself, and the token must be kept well.
	api := func(address string) result {
		return run(t, program(t), "--api", address, "--token-file", ada, "zone", "list")
	}
	wantResult(t, api("https://"+o.http), 5, "--api-roots")
	other := "https://" + o.http + "#sha256:" + strings.Repeat("A", 43) + "="
	wantResult(t, api(other), 5, "another key")
	wantResult(t, api("http://"+o.http), 0, "example.com.")
	wantResult(t, api("http://192.0.2.1:80"), 2, "without TLS only to this machine")
	wantResult(t, run(t, program(t), "--api", "https://"+o.http+"#"+o.pin, "zone", "list"), 2, "--token-file")
	loose := writeFile(t, filepath.Join(o.dir, "loose"), readFile(t, ada))
	wantResult(t, o.as(t, loose, "zone", "list"), 1, "open to others", "chmod 600")
	wrong := filepath.Join(o.dir, "wrong")
	if err := os.WriteFile(wrong, []byte("sluice_AAAA\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantResult(t, o.as(t, wrong, "zone", "list"), 4, "not known here")

	// A token that has expired, and one that is removed while it is used.
	brief := o.token(t, "brief", "viewer", "--expires", "1s")
	await(t, "the token has expired", time.Minute, func() (bool, string) {
		r := o.as(t, brief, "zone", "list")
		return r.code == 4 && strings.Contains(r.stderr, "has expired"), r.String()
	})
	wantResult(t, o.cli(t, "token", "list"), 0, "ada", "operator", "expired")
	tail := start(t, "tail", program(t), "--api", "https://"+o.http+"#"+o.pin, "--token-file", ada, "zone", "tail", "--from", "seq:1")
	await(t, "the tail runs", time.Minute, func() (bool, string) { return strings.Contains(tail.log(), "token"), tail.log() })
	o.must(t, "token", "remove", "ada")
	await(t, "the tail has ended", time.Minute, func() (bool, string) { return !tail.running(), tail.log() })
	wantResult(t, o.as(t, ada, "zone", "list"), 4, "not known here")
	await(t, "refusals are events", time.Minute, func() (bool, string) {
		text := o.cli(t, "audit", "export", "-o", filepath.Join(t.TempDir(), "x")).String()
		found := run(t, "grep", "-r", "access.refused", filepath.Join(o.data, "journal"))
		return found.code == 0, text
	})
	o.secretsAreKept(t, ada, brief)
}

// secretsAreKept looks for tokens in all that the daemon wrote.
func (o *opened) secretsAreKept(t *testing.T, files ...string) {
	t.Helper()
	export := filepath.Join(t.TempDir(), "export")
	o.must(t, "audit", "export", "-o", export)
	for _, file := range files {
		secret := []byte(strings.TrimSpace(readFile(t, file)))
		for _, dir := range []string{o.data, export} {
			err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
				if err != nil || !d.Type().IsRegular() {
					return err
				}
				text, err := os.ReadFile(path)
				if err == nil && bytes.Contains(text, secret) {
					t.Errorf("%s holds the token of %s", path, filepath.Base(file))
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		}
		if strings.Contains(o.log(), string(secret)) {
			t.Errorf("the log holds the token of %s", filepath.Base(file))
		}
	}
}

// Without TLS nothing is answered on an address that others reach.
func TestAccess_ClearTextStaysOnTheMachine(t *testing.T) {
	t.Parallel()
	var host string
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
			host = n.IP.String()
		}
	}
	if host == "" {
		t.Skip("this machine has no address but its loopback")
	}
	o := startOpened(t, "", "--http", host+":0")
	m := regexp.MustCompile(`API on https://(` + regexp.QuoteMeta(host) + `:\d+)#`).FindStringSubmatch(o.log())
	if m == nil {
		t.Fatalf("no second listener: %s", o.log())
	}
	res, err := http.Get("http://" + m[1] + "/api/v1/health")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusBadRequest {
		t.Errorf("status %d of clear text", res.StatusCode)
	}
	file := o.token(t, "ada", "viewer")
	wantResult(t, run(t, program(t), "--api", "https://"+m[1]+"#"+o.pin, "--token-file", file, "health"), 0, "ok")

	// HTTP/2 over TLS 1.3.
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	res, err = (&http.Client{Transport: transport}).Get("https://" + m[1] + "/api/v1/health")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.ProtoMajor != 2 || res.TLS.Version != tls.VersionTLS13 || res.StatusCode != http.StatusUnauthorized {
		t.Errorf("%s, TLS %x, status %d", res.Proto, res.TLS.Version, res.StatusCode)
	}
}

const fourEyesPolicy = `version = "v1"
[loader.review]
mode = "manual"
four-eyes = true
[access]
four-eyes = ["rollback"]
`

// What two persons decide takes effect once the second asks for the same.
func TestAccess_FourEyes(t *testing.T) {
	t.Parallel()
	o := startOpened(t, fourEyesPolicy)
	ada, bob := o.token(t, "ada", "reviewer,operator"), o.token(t, "bob", "reviewer,operator")
	pending := func() string {
		t.Helper()
		var instance string
		await(t, "an instance waits for its review", time.Minute, func() (bool, string) {
			text := o.cli(t, "zone", "status", "example.com").stdout
			m := regexp.MustCompile(`review of (l\d+) \(loaded\)`).FindStringSubmatch(text)
			if m != nil {
				instance = m[1]
			}
			return m != nil, text
		})
		return instance
	}
	l := pending()
	approve := []string{"zone", "approve", "example.com", "--loaded", l}
	wantResult(t, o.as(t, ada, approve...), 0, "a second person: ada has proposed", "sluice zone approve example.com. --loaded "+l)
	wantResult(t, o.as(t, ada, approve...), 4, "second person")
	wantResult(t, o.as(t, bob, "zone", "recall", "example.com"), 0)
	wantResult(t, o.as(t, bob, approve...), 0, "bob has proposed")
	wantResult(t, o.as(t, ada, approve...), 0)
	first := o.awaitServed(t, "example.com")
	wantResult(t, o.cli(t, "zone", "history", "example.com"), 0, "proposed to approve "+l, "taken back", "approved by hand")

	// One rejection is enough, and it ends what was proposed.
	writeFile(t, filepath.Join(o.dir, "zone"), fmt.Sprintf(accessZone, 2)+"www IN A 192.0.2.2\n")
	o.must(t, "zone", "reload", "example.com")
	l = pending()
	wantResult(t, o.as(t, ada, "zone", "approve", "example.com", "--loaded", l), 0, "ada has proposed")
	wantResult(t, o.as(t, bob, "zone", "reject", "example.com", "--loaded", l), 0)
	if r := o.cli(t, "zone", "status", "example.com", "--json"); strings.Contains(r.stdout, `"proposals"`) {
		t.Errorf("a proposal is left: %v", r)
	}

	// A rollback, by two.
	writeFile(t, filepath.Join(o.dir, "zone"), fmt.Sprintf(accessZone, 3)+"www IN A 192.0.2.3\n")
	o.must(t, "zone", "reload", "example.com")
	l = pending()
	wantResult(t, o.as(t, ada, "zone", "approve", "example.com", "--loaded", l), 0)
	wantResult(t, o.as(t, bob, "zone", "approve", "example.com", "--loaded", l), 0)
	second := o.awaitChange(t, "example.com", first)
	back := []string{"zone", "rollback", "example.com", "--to", fmt.Sprint(first), "--reason", "www is wrong", "--no-wait"}
	wantResult(t, o.as(t, bob, back...), 0, "second person")
	wantResult(t, o.as(t, bob, back...), 4, "second person")
	if now := o.awaitServed(t, "example.com"); now != second {
		t.Errorf("serial %d is served after a proposal, want %d", now, second)
	}
	wantResult(t, o.as(t, ada, back...), 0)
	l = pending() // what comes back is reviewed as all else is
	wantResult(t, o.as(t, ada, "zone", "approve", "example.com", "--loaded", l), 0)
	wantResult(t, o.as(t, bob, "zone", "approve", "example.com", "--loaded", l), 0)
	o.awaitChange(t, "example.com", second)
	wantResult(t, o.cli(t, "zone", "history", "example.com"), 0, "taken back from serial")

	// A policy that wants two persons is left by two.
	if r := o.cli(t, "zone", "set", "example.com", "--policy", "loose"); r.code != 3 {
		t.Errorf("an unknown policy: %v", r)
	}
	writeFile(t, filepath.Join(o.dir, "loose.toml"), "version = \"v1\"\n")
	o.must(t, "policy", "reload")
	leave := []string{"zone", "set", "example.com", "--policy", "loose"}
	wantResult(t, o.as(t, ada, leave...), 0, "second person")
	wantResult(t, o.as(t, ada, leave...), 4, "second person")
	wantResult(t, o.as(t, bob, leave...), 0, "loose")
}
