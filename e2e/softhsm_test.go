package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

const tokenPIN = "2718281828"

// softToken is a token of SoftHSM in a folder of the test.
type softToken struct {
	module string
	dir    string // of the tokens
	conf   string
	pin    string // file
}

// newSoftToken makes a token with the label zones.
func newSoftToken(t *testing.T) *softToken {
	t.Helper()
	need(t, "softhsm2-util")
	dir := t.TempDir()
	s := &softToken{dir: filepath.Join(dir, "tokens")}
	for _, place := range []string{"/usr/lib/softhsm", "/usr/lib64/softhsm", "/usr/local/lib/softhsm"} {
		if path := filepath.Join(place, "libsofthsm2.so"); s.module == "" {
			if _, err := os.Stat(path); err == nil {
				s.module = path
			}
		}
	}
	if s.module == "" {
		t.Fatal("softhsm2-util is here, libsofthsm2.so is not where it is looked for")
	}
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s.conf = writeFile(t, filepath.Join(dir, "softhsm2.conf"),
		fmt.Sprintf("directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n", s.dir))
	s.pin = filepath.Join(dir, "pin")
	if err := os.WriteFile(s.pin, []byte(tokenPIN+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("softhsm2-util", "--init-token", "--free", "--label", "zones", "--pin", tokenPIN, "--so-pin", tokenPIN)
	cmd.Env = s.env()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("softhsm2-util: %v\n%s", err, out)
	}
	return s
}

func (s *softToken) env() []string { return append(os.Environ(), "SOFTHSM2_CONF="+s.conf) }

// start starts a daemon that finds the token.
func (s *softToken) start(t *testing.T, d *daemon) {
	t.Helper()
	cmd := exec.Command(program(t), append([]string{"serve", "--data", d.data, "--listen", d.addr}, d.flags...)...)
	cmd.Env = s.env()
	d.process = startCommand(t, "sluice", cmd)
	await(t, "the daemon answers", time.Minute, func() (bool, string) {
		r := d.cli(t, "health")
		return r.code == 0, r.String()
	})
}

// remove takes the token out, or puts it back.
func (s *softToken) remove(t *testing.T, out bool) {
	t.Helper()
	from, to := s.dir, s.dir+".away"
	if !out {
		from, to = to, from
	}
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// add has the daemon take the token up as keystore hsm.
func (s *softToken) add(t *testing.T, d *daemon) {
	t.Helper()
	d.must(t, "keystore", "add", "hsm", "--pkcs11", s.module, "--token", "zones", "--pin-file", s.pin)
}

type keystoreInfo struct {
	Name, State, Problem, Hint string
	Keys                       int
}

func (d *daemon) keystore(t *testing.T, name string) (k keystoreInfo) {
	t.Helper()
	if err := json.Unmarshal([]byte(d.must(t, "--json", "keystore", "show", name)), &k); err != nil {
		t.Fatal(err)
	}
	return k
}

// TestSoftHSM_TokenGoneAndBack signs a zone on a token, takes that away, and
// puts it back: what is published stays served, the zone beside goes on, and
// the zone goes on by itself.
func TestSoftHSM_TokenGoneAndBack(t *testing.T) {
	t.Parallel()
	token := newSoftToken(t)
	dir := shortDir(t)
	policies := filepath.Join(dir, "policies")
	if err := os.Mkdir(policies, 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(policies, "hsm.toml"), "version = \"v1\"\n[key-manager.generation]\nkeystore = \"hsm\"\n")
	d := &daemon{data: filepath.Join(dir, "data"), addr: freeAddr(t), flags: []string{"--policy-dir", policies}}
	token.start(t, d)
	zone := func(name string, version int) {
		writeFile(t, filepath.Join(dir, name), fmt.Sprintf(
			"$TTL 300\n@ SOA ns.example.net. h. %d 3600 600 604800 300\n@ NS ns.example.net.\na A 192.0.2.%d\n", version, version))
	}
	zone("token.example", 1)
	zone("file.example", 1)

	r := d.cli(t, "zone", "add", "token.example", "--source", filepath.Join(dir, "token.example"), "--policy", "hsm")
	if r.code == 0 || !strings.Contains(r.stdout+r.stderr, `keystore "hsm" is not known`) {
		t.Errorf("a zone is added whose keystore is not here: %v", r)
	}
	token.add(t, d)
	d.must(t, "zone", "add", "file.example", "--source", filepath.Join(dir, "file.example"))
	onToken, inFiles := d.awaitServed(t, "token.example"), d.awaitServed(t, "file.example")
	if k := d.keystore(t, "hsm"); k.Keys != 2 || k.State != "ready" {
		t.Errorf("keystore %+v, want 2 keys", k)
	}
	if out := d.must(t, "zone", "verify", "token.example"); !strings.Contains(out, "valid") {
		t.Error(out)
	}
	if out := d.must(t, "keystore", "test", "hsm"); !strings.Contains(out, "signatures made and verified") {
		t.Error(out)
	}
	if r := d.cli(t, "keystore", "remove", "hsm"); r.code != 4 || !strings.Contains(r.stderr, "token.example") {
		t.Errorf("a keystore in use is removed: %v", r)
	}

	token.remove(t, true)
	zone("token.example", 2)
	zone("file.example", 2)
	d.must(t, "zone", "reload", "token.example", "--no-wait")
	d.must(t, "zone", "reload", "file.example", "--no-wait")
	inFiles = d.awaitChange(t, "file.example", inFiles)
	await(t, "the token is missed", time.Minute, func() (bool, string) {
		out := d.cli(t, "health")
		return strings.Contains(out.stderr, `token "zones"`) && strings.Contains(out.stderr, "not there"), out.String()
	})
	if k := d.keystore(t, "hsm"); k.State != "away" || !strings.Contains(k.Hint, "sluice keystore test hsm") {
		t.Errorf("keystore %+v", k)
	}
	if status := d.must(t, "zone", "status", "token.example"); !strings.Contains(status, "not there") {
		t.Errorf("status:\n%s", status)
	}
	if got, err := serialAt(d.addr, "token.example"); err != nil || got != onToken {
		t.Errorf("serial %d, %v: what is published is to stay served, %d", got, err, onToken)
	}
	if got, err := serialAt(d.addr, "file.example"); err != nil || got != inFiles {
		t.Errorf("serial %d, %v of the zone beside", got, err)
	}

	token.remove(t, false)
	onToken = d.awaitChange(t, "token.example", onToken)
	if k := d.keystore(t, "hsm"); k.State != "ready" || k.Problem != "" {
		t.Errorf("keystore %+v", k)
	}
	_, rrs := d.dumpTo(t, "token.example")
	if !has(rrs, dns.TypeRRSIG) || !strings.Contains(fmt.Sprint(rrs), "192.0.2.2") {
		t.Errorf("serial %d has not what is new", onToken)
	}

	// After a restart the token is found again, and the PIN stands nowhere.
	d.stop()
	token.start(t, d)
	d.must(t, "zone", "resign", "token.example", "--full")
	d.awaitChange(t, "token.example", onToken)
	for _, args := range [][]string{{"--json", "keystore", "list"}, {"--json", "zone", "history", "token.example"}, {"journal", "verify"}} {
		if out := d.must(t, args...); strings.Contains(out, tokenPIN) {
			t.Errorf("%v shows the PIN", args)
		}
	}
	if strings.Contains(d.log(), tokenPIN) {
		t.Error("the log has the PIN")
	}
	noSecretIn(t, filepath.Join(d.data, "journal"), tokenPIN)
}

// noSecretIn fails where a file below a folder has a text in it.
func noSecretIn(t *testing.T, dir, secret string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		if text := readFile(t, path); strings.Contains(text, secret) {
			t.Errorf("%s has the PIN in it", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestSoftHSM_PolicyMovesKeysToTheToken changes the policy of a secure zone to
// another keystore: KSK and ZSK are exchanged by the usual rollovers, while
// unbound looks on.
func TestSoftHSM_PolicyMovesKeysToTheToken(t *testing.T) {
	t.Parallel()
	need(t, "named", "unbound", "dnssec-keygen", "dnssec-signzone", "dnssec-dsfromkey")
	token := newSoftToken(t)
	com, top, parent := startParents(t, false)
	dir := shortDir(t)
	d := &daemon{data: filepath.Join(dir, "data"), addr: freeAddr(t)}
	public := startNamed(t, namedSecondary(example, d.addr))
	resolver := startUnbound(t, top.ds(t), map[string]string{".": parent.addr, "com.": parent.addr, example + ".": public.addr})
	policies := filepath.Join(dir, "policies")
	if err := os.Mkdir(policies, 0o755); err != nil {
		t.Fatal(err)
	}
	policy := fmt.Sprintf(`version = "v1"
[key-manager]
propagation-margin = "1s"
observation-interval = "1m"
parent-nameservers = [%q]
publication-nameservers = [%q]
[key-manager.records]
ttl = "2s"
[server.outbound]
send-notify-to = [%q]
`, parent.addr, public.addr, public.addr)
	write := func(more string) {
		writeFile(t, filepath.Join(policies, "default.toml"), policy+more)
	}
	write("")
	config := writeFile(t, filepath.Join(dir, "config.toml"), fmt.Sprintf(
		"version = \"v1\"\npolicy-dir = %q\n[daemon]\nresolvers = [%q]\ntrust-anchors = [%q]\n", policies, resolver.addr, top.ds(t)))
	d.flags = []string{"--config", config, "--zone", example + "=" + writeFile(t, filepath.Join(dir, "zone"), rolledZone)}
	token.start(t, d)
	public.awaitSerial(t, example, d.awaitServed(t, example))

	var looking validator
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		looking.run(resolver.addr, stop)
	}()
	f := &follower{com: com, server: parent, public: public.addr}
	settled := func(what string, ok func() bool) {
		t.Helper()
		await(t, what, 3*time.Minute, func() (bool, string) {
			f.follow(t)
			list := d.rollovers(t)
			return len(list) == 0 && len(f.have) > 0 && ok(), fmt.Sprint(list)
		})
	}
	settled("the zone has its first DS", func() bool { return true })
	before := d.must(t, "key", "list", example)
	token.add(t, d)

	// The KSK does not begin by itself; the plan says so.
	write("[key-manager.generation]\nkeystore = \"hsm\"\n")
	d.must(t, "policy", "reload")
	plan := d.must(t, "key", "plan", example)
	if !strings.Contains(plan, "the policy wants its ksk in keystore hsm instead of file") || !strings.Contains(plan, "person") {
		t.Errorf("plan:\n%s", plan)
	}
	active := func(keystore string) func() bool {
		return func() bool {
			n := 0
			for line := range strings.Lines(d.must(t, "key", "list", example)) {
				if strings.Contains(line, " active ") && strings.Contains(line, " "+keystore+":") {
					n++
				}
			}
			return n == map[string]int{"hsm": 2, "file": 0}[keystore]
		}
	}
	d.must(t, "key", "roll", example, "ksk", "--reason", "to the token")
	settled("both keys are on the token", active("hsm"))
	close(stop)
	<-done
	looking.check(t)
	if !active("file")() {
		t.Errorf("keys before:\n%s\nafter:\n%s", before, d.must(t, "key", "list", example))
	}
	if k := d.keystore(t, "hsm"); k.Keys != 2 {
		t.Errorf("keystore %+v", k)
	}
	await(t, "unbound validates with the new DS", 30*time.Second, func() (bool, string) {
		m, err := query(resolver.addr, "www."+example, dns.TypeA)
		return err == nil && m.AuthenticatedData, fmt.Sprint(m, err)
	})
	history := d.must(t, "zone", "history", example, "--type", "rollover.started")
	if !strings.Contains(history, "the policy wants its zsk in keystore hsm instead of file") {
		t.Errorf("history:\n%s", history)
	}
}
