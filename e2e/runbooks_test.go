package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// runbook is a daemon that was brought into the state that a runbook is for,
// and the shell in which its commands are typed.
type runbook struct {
	*session
	d      *daemon // its process belongs to the shell
	t      *testing.T
	dir    string
	blocks [][]shown
}

// systemctl stands for that of a machine where the daemon is a service: start
// returns once the daemon answers, as with Type=notify.
const systemctl = `systemctl() {
	case $1 in
	start)
		bash "$HOME/serve" >>"$HOME/log" 2>&1 3>&- &
		echo $! >"$HOME/pid"
		until sluice zone list >/dev/null 2>&1; do kill -0 "$(cat "$HOME/pid")" || return 1; done ;;
	stop) kill "$(cat "$HOME/pid")" && wait "$(cat "$HOME/pid")" ;;
	esac
}
`

// newRunbook reads a runbook and makes the folders of its daemon, with a policy.
func newRunbook(t *testing.T, title, policy string) *runbook {
	t.Helper()
	dir := shortDir(t)
	b := &runbook{t: t, dir: dir, d: &daemon{data: filepath.Join(dir, "data"), addr: freeAddr(t)}}
	b.blocks = consoleBlocks(t, manualPage(t, "runbooks"), title)
	if err := os.Mkdir(filepath.Join(dir, "policies"), 0o755); err != nil {
		t.Fatal(err)
	}
	b.d.flags = []string{"--policy-dir", b.policy(policy), "--review-loaded", "127.0.0.1:0", "--review-signed", "127.0.0.1:0"}
	b.zone(1)
	return b
}

// start starts the daemon in a shell with this environment.
func (b *runbook) start(env ...string) {
	b.t.Helper()
	b.session = newSession(b.t, b.dir, append(env, "SLUICE_API="+b.d.socket()),
		"/var/lib/sluice", b.d.data, "/srv/zones", b.dir, "/backup", filepath.Join(b.dir, "backup"))
	serve := "exec " + program(b.t) + " serve"
	for _, arg := range append([]string{"--data", b.d.data, "--listen", b.d.addr}, b.d.flags...) {
		serve += " '" + arg + "'"
	}
	writeFile(b.t, filepath.Join(b.dir, "serve"), serve+"\n")
	b.t.Cleanup(func() {
		if b.t.Failed() {
			b.t.Logf("log of the daemon:\n%s", readFile(b.t, filepath.Join(b.dir, "log")))
		}
	})
	b.setUp(systemctl + "systemctl start sluice")
}

// policy writes the default policy and returns its folder.
func (b *runbook) policy(text string) (dir string) {
	b.t.Helper()
	dir = filepath.Join(b.dir, "policies")
	writeFile(b.t, filepath.Join(dir, "default.toml"), "version = \"v1\"\n"+text)
	return dir
}

// source is the zone's file.
func (b *runbook) source() string { return filepath.Join(b.dir, "example.com.zone") }

// zone writes version n of the zone's file.
func (b *runbook) zone(n int) {
	b.t.Helper()
	writeFile(b.t, b.source(), fmt.Sprintf(
		"$TTL 3600\n@ IN SOA ns1 hostmaster %d 7200 3600 1209600 300\n@ IN NS ns1\nns1 IN A 127.0.0.1\nwww IN A 192.0.2.%d\n", n, n))
}

// add adds the zone and waits until it is published.
func (b *runbook) add() (serial uint32) {
	b.t.Helper()
	b.d.must(b.t, "zone", "add", example, "--source", b.source())
	return b.served(0)
}

// served waits until another serial than the one before is served.
func (b *runbook) served(before uint32) (serial uint32) {
	b.t.Helper()
	await(b.t, "the zone is served", time.Minute, func() (bool, string) {
		got, err := serialAt(b.d.addr, example)
		serial = got
		return err == nil && got != before, fmt.Sprint(got, err)
	})
	return serial
}

// says waits until a command's output has a text in it.
func (b *runbook) says(text string, args ...string) {
	b.t.Helper()
	await(b.t, text, time.Minute, func() (bool, string) {
		r := b.d.cli(b.t, args...)
		return strings.Contains(r.stdout+r.stderr, text), r.String()
	})
}

// follow types the runbook's blocks; before names what happens before some of
// them, by their number from 1.
func (b *runbook) follow(before map[int]func()) {
	b.t.Helper()
	for i, block := range b.blocks {
		if fn := before[i+1]; fn != nil {
			fn()
		}
		b.run(block)
	}
	if last := slices.Max(append(slices.Collect(maps.Keys(before)), 0)); last > len(b.blocks) {
		b.t.Errorf("there are %d blocks, and something is to happen before number %d", len(b.blocks), last)
	}
}

// Each runbook has its test here.
func TestRunbooks_EachHasItsTest(t *testing.T) {
	text := readFile(t, "runbooks_test.go")
	for line := range strings.Lines(manualPage(t, "runbooks")) {
		if title, ok := strings.CutPrefix(strings.TrimSpace(line), "## "); ok && !strings.Contains(text, fmt.Sprintf("(t, %q", title)) {
			t.Errorf("no test of the runbook %q", title)
		}
	}
}

// frozen is a simulated clock that stands still.
const frozen = "2030-01-01T00:00:00Z,0"

func TestRunbook_SignaturesRunOut(t *testing.T) {
	t.Parallel()
	b := newRunbook(t, "Signatures run out", "[signer.review]\nmode = \"script\"\nhooks = [{ command = \"test ! -e $HOME/broken\" }]\n")
	b.d.flags = append(b.d.flags, "--clock", frozen)
	b.start()
	b.add()
	broken := writeFile(t, filepath.Join(b.dir, "broken"), "")
	// The first signature ends in two weeks at the earliest.
	b.d.must(t, "clock", "move", "13d")
	b.d.must(t, "clock", "accept")
	b.says("alarm: signatures expire in", "zone", "status", example)
	b.follow(map[int]func(){2: func() { remove(t, broken) }})
	if out := b.d.must(t, "zone", "status", example); strings.Contains(out, "signatures expire") {
		t.Errorf("it is not over:\n%s", out)
	}
}

func TestRunbook_DSMismatch(t *testing.T) {
	t.Parallel()
	need(t, "named", "unbound", "dnssec-keygen", "dnssec-signzone", "dnssec-dsfromkey")
	com, top, parent := startParents(t, false)
	resolver := startUnbound(t, top.ds(t), map[string]string{".": parent.addr, "com.": parent.addr})
	b := newRunbook(t, "The DS does not match",
		fmt.Sprintf("[key-manager]\nobservation-interval = \"0s\"\nparent-nameservers = [%q]\n", parent.addr))
	b.d.flags = append(b.d.flags, "--config", writeFile(t, filepath.Join(b.dir, "config.toml"), fmt.Sprintf(
		"version = \"v1\"\n[daemon]\nresolvers = [%q]\ntrust-anchors = [%q]\n", resolver.addr, top.ds(t))))
	b.start()
	b.add()
	f := &follower{com: com, server: parent}
	hand := func(records ...string) {
		com.sign(t, records...)
		f.reload(t)
		parent.awaitSerial(t, "com", uint32(com.serial)) //nolint:gosec // a small number
	}
	hand(foreignDS)
	b.follow(map[int]func(){2: func() {
		var ds []string
		for line := range strings.Lines(b.d.must(t, "key", "ds", example)) {
			if !strings.HasPrefix(line, ";") {
				ds = append(ds, strings.TrimSpace(line))
			}
		}
		hand(ds...)
	}})
	if out := b.d.must(t, "zone", "status", example); strings.Contains(out, "no DS at the parent is of a key that signs") {
		t.Errorf("it is not over:\n%s", out)
	}
}

// remove deletes a file.
func remove(t *testing.T, name string) {
	t.Helper()
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
}

// copyKeys copies the private keys of the daemon to where the runbooks look
// for them.
func (b *runbook) copyKeys() {
	b.t.Helper()
	b.setUp("mkdir -p backup && cp -a data/keys backup/keys")
}

// loseKeys deletes the zone's private keys.
func (b *runbook) loseKeys() {
	b.t.Helper()
	b.setUp("rm data/keys/*.pem")
	b.says("private keys are not here", "zone", "status", example)
}

func TestRunbook_LostKey(t *testing.T) {
	t.Parallel()
	b := newRunbook(t, "A private key is lost", "")
	b.start()
	serial := b.add()
	b.copyKeys()
	b.loseKeys()
	b.follow(map[int]func(){2: b.loseKeys})
	if now, err := serialAt(b.d.addr, example); err != nil || now <= serial {
		t.Errorf("serial %d, %v, is not above %d", now, err, serial)
	}
}

// rolling starts a daemon that lives ten hours a second, with named as its
// public server, and brings its zone past the first DS.
func rolling(t *testing.T, title string) *runbook {
	t.Helper()
	need(t, "named")
	b := newRunbook(t, title, "")
	public := startNamed(t, namedSecondary(example, b.d.addr))
	b.policy(fmt.Sprintf("[key-manager]\npublication-nameservers = [%q]\n[server.outbound]\nsend-notify-to = [%[1]q]\n", public.addr))
	b.d.flags = append(b.d.flags, "--clock", "2030-01-01T00:00:00Z,36000")
	b.start()
	b.add()
	await(t, "the first DS is reported", time.Minute, func() (bool, string) {
		r := b.d.cli(t, "key", "step", example, "--ds-seen", "1h")
		return r.code == 0, r.String()
	})
	b.says("no rollover of example.com", "key", "status", example)
	return b
}

func TestRunbook_CompromisedKey(t *testing.T) {
	t.Parallel()
	b := rolling(t, "A private key is in wrong hands")
	b.follow(map[int]func(){2: func() { b.says("change-ds", "key", "status", example) }})
	b.says("no rollover of example.com", "key", "status", example)
	if out := b.d.must(t, "key", "list", example); strings.Count(out, " removed ") != 2 || strings.Count(out, " active ") != 2 {
		t.Errorf("keys:\n%s", out)
	}
}

func TestRunbook_SlowRegistrar(t *testing.T) {
	t.Parallel()
	b := rolling(t, "The registrar is slow")
	b.d.must(t, "key", "roll", example, "ksk")
	b.says("change-ds", "key", "status", example)
	b.follow(nil)
	b.says("no rollover of example.com", "key", "status", example)
}

func TestRunbook_WrongClock(t *testing.T) {
	t.Parallel()
	b := newRunbook(t, "The clock is wrong", "")
	b.d.flags = append(b.d.flags, "--clock", frozen)
	b.start()
	b.add()
	b.d.must(t, "clock", "move", "40d")
	b.says("nothing is signed until it is set or accepted", "zone", "status", example)
	b.follow(nil)
}

func TestRunbook_FullDisk(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, "192m")
	b := newRunbook(t, "The disk is full", "")
	b.d.data = filepath.Join(disk, "data")
	b.start()
	serial := b.add()
	b.d.awaitReserve(t, "held")
	first := fillUp(t, disk, 0)
	if err := os.Rename(first, first+"1"); err != nil {
		t.Fatal(err)
	}
	b.d.must(t, "zone", "resign", example, "--full")
	serial = b.served(serial)
	second := fillUp(t, disk, 0)
	b.zone(2)
	b.d.refuses(t, "space", "zone", "reload", example)
	b.follow(map[int]func(){2: func() {
		remove(t, first+"1")
		remove(t, second)
	}})
	b.served(serial)
}

func TestRunbook_HaltedZone(t *testing.T) {
	t.Parallel()
	b := newRunbook(t, "A zone is halted",
		"[loader.review]\nmode = \"script\"\non-reject = \"halt\"\nhooks = [{ command = \"test ! -e $HOME/broken\" }]\n")
	b.start()
	serial := b.add()
	broken := filepath.Join(b.dir, "broken")
	halt := func(n int) {
		b.zone(n)
		writeFile(t, broken, "")
		b.d.must(t, "zone", "reload", example)
		b.says("halted at the loaded review", "zone", "status", example)
	}
	halt(2)
	b.follow(map[int]func(){
		2: func() { remove(t, broken) },
		3: func() {
			serial = b.served(serial)
			halt(3)
		},
	})
	b.served(serial)
}

func TestRunbook_SourceAway(t *testing.T) {
	t.Parallel()
	need(t, "named")
	b := newRunbook(t, "The source is away", "")
	first, second := startNamed(t, namedPrimary(example, b.source())), startNamed(t, namedPrimary(example, b.source()))
	b.start()
	b.swap("192.0.2.1", first.addr, "192.0.2.2", second.addr)
	b.d.must(t, "zone", "add", example, "--source", first.addr)
	b.served(0)
	first.stop()
	b.d.cli(t, "zone", "reload", example)
	b.says("input failed", "zone", "status", example)
	b.follow(nil)
}

func TestRunbook_TokenAway(t *testing.T) {
	t.Parallel()
	token := newSoftToken(t)
	b := newRunbook(t, "The HSM is away", "[key-manager.generation]\nkeystore = \"hsm\"\n")
	b.start("SOFTHSM2_CONF=" + token.conf)
	token.add(t, b.d)
	b.add()
	token.remove(t, true)
	b.d.must(t, "zone", "resign", example, "--full", "--no-wait")
	b.says("not there", "health")
	b.follow(map[int]func(){2: func() { token.remove(t, false) }})
}

func TestRunbook_OldJournal(t *testing.T) {
	t.Parallel()
	b := newRunbook(t, "An old copy of the journal", "")
	b.start()
	b.add()
	b.setUp("systemctl stop sluice; cp -a data/journal old; systemctl start sluice")
	b.zone(2)
	b.d.must(t, "zone", "reload", example)
	serial := b.served(0)
	b.setUp("systemctl stop sluice; rm -r data/journal; mv old data/journal; systemctl start sluice")
	b.swap("2026112299", uintText(serial+100))
	b.follow(nil)
	if now := b.served(0); now < serial+100 {
		t.Errorf("serial %d, it was to be %d or more", now, serial+100)
	}
}

func TestRunbook_BadZone(t *testing.T) {
	t.Parallel()
	b := newRunbook(t, "A bad zone was published", "")
	b.start()
	good := b.add()
	b.zone(2)
	b.d.must(t, "zone", "reload", example)
	bad := b.served(good)
	b.swap("2026112100", uintText(good), "2026112200", uintText(bad))
	b.follow(map[int]func(){3: func() { b.zone(3) }})
	b.served(bad)
}

func TestRunbook_MachineGone(t *testing.T) {
	t.Parallel()
	b := newRunbook(t, "The machine is gone", "")
	b.start()
	serial := b.add()
	b.copyKeys()
	b.d.must(t, "journal", "backup", filepath.Join(b.dir, "backup", "sluice"))
	b.setUp("systemctl stop sluice; rm -r data; mkdir data")
	b.follow(nil)
	if now := b.served(serial); now <= serial+1000 {
		t.Errorf("serial %d is not above %d", now, serial+1000)
	}
}
