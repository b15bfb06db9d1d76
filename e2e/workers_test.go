package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

// joined is a running `sluice worker`, with its own data directory.
type joined struct {
	*daemon
	creds string
}

// enrollWorker enrolls a worker at its main process; start runs it.
func enrollWorker(t *testing.T, main *daemon, name, roles string) *joined {
	t.Helper()
	dir := shortDir(t)
	w := &joined{daemon: &daemon{data: filepath.Join(dir, "data"), addr: freeAddr(t)}, creds: filepath.Join(dir, "creds")}
	main.must(t, "worker", "enroll", name, "--roles", roles, "-o", w.creds)
	return w
}

func (w *joined) start(t *testing.T) {
	t.Helper()
	args := []string{"worker", "--data", w.data, "--creds", w.creds, "--listen", w.addr}
	w.process = start(t, "worker", program(t), args...)
}

// awaitSame waits until two servers send the same octets of a zone.
func awaitSame(t *testing.T, zone, a, b string) {
	t.Helper()
	await(t, fmt.Sprintf("%s the same at %s and %s", zone, a, b), time.Minute, func() (bool, string) {
		one, err1 := serialAt(a, zone)
		two, err2 := serialAt(b, zone)
		return err1 == nil && err2 == nil && one == two, fmt.Sprintf("serials %d, %d; %v, %v", one, two, err1, err2)
	})
	if !bytes.Equal(axfrBytes(t, a, zone), axfrBytes(t, b, zone)) {
		t.Errorf("zone %s differs at %s and %s", zone, a, b)
	}
}

func (w *joined) awaitHealthy(t *testing.T) {
	t.Helper()
	await(t, "a healthy worker", time.Minute, func() (bool, string) {
		r := w.cli(t, "health")
		return r.code == 0, r.String()
	})
}

// startMain starts a daemon that lets workers in.
func startMain(t *testing.T, flags ...string) *daemon {
	t.Helper()
	d := &daemon{data: filepath.Join(shortDir(t), "data"), addr: freeAddr(t), flags: append([]string{"--nats-listen", freeAddr(t)}, flags...)}
	d.start(t)
	await(t, "a healthy daemon", time.Minute, func() (bool, string) {
		r := d.cli(t, "health")
		return r.code == 0, r.String()
	})
	return d
}

const workersZone = `$ORIGIN example.com.
$TTL 300
@ IN SOA ns1 hostmaster 1 3600 600 864000 300
@ IN NS ns1
ns1 IN A 192.0.2.1
www IN A 192.0.2.2
`

// A worker serves what the main process serves, byte for byte; it catches up
// after kill -9, serves on while the main process is away, also when it is
// started then, and goes on with it afterwards.
func TestWorkers_ServeTheSameByteForByte(t *testing.T) {
	t.Parallel()
	d := startMain(t)
	w := enrollWorker(t, d, "ns-west", "publish")
	w.start(t)
	w.awaitHealthy(t)
	source := writeFile(t, filepath.Join(t.TempDir(), "zone"), workersZone)
	d.must(t, "zone", "add", "example.com", "--source", source)
	serial := d.awaitServed(t, "example.com")
	awaitSame(t, "example.com", d.addr, w.addr)

	w.kill()
	appendTo(t, source, "more IN TXT \"while the worker was dead\"\n")
	d.must(t, "zone", "reload", "example.com")
	w.start(t)
	serial = d.awaitChange(t, "example.com", serial)
	awaitSame(t, "example.com", d.addr, w.addr)

	d.kill()
	if got, err := serialAt(w.addr, "example.com"); err != nil || got != serial {
		t.Errorf("without the main process: serial %d, %v, want %d", got, err, serial)
	}
	w.kill()
	w.start(t)
	await(t, "the zone from a worker without the main process", time.Minute, func() (bool, string) {
		got, err := serialAt(w.addr, "example.com")
		return err == nil && got == serial, fmt.Sprintf("serial %d, %v", got, err)
	})
	d.start(t)
	w.awaitHealthy(t)
	appendTo(t, source, "again IN TXT \"with both\"\n")
	await(t, "the zone is loaded again", time.Minute, func() (bool, string) {
		r := d.cli(t, "zone", "reload", "example.com")
		return r.code == 0, r.String()
	})
	d.awaitChange(t, "example.com", serial)
	awaitSame(t, "example.com", d.addr, w.addr)
	if out := d.must(t, "journal", "verify"); !strings.Contains(out, "sound") {
		t.Errorf("journal: %s", out)
	}
}

// A worker that was removed is cut off at once; what was published it serves on.
func TestWorkers_RemovedIsCutOff(t *testing.T) {
	t.Parallel()
	d := startMain(t)
	w := enrollWorker(t, d, "ns-west", "publish")
	w.start(t)
	w.awaitHealthy(t)
	d.must(t, "worker", "remove", "ns-west")
	await(t, "a worker that says that it is cut off", time.Minute, func() (bool, string) {
		r := w.cli(t, "health")
		return r.code != 0, r.String()
	})
	w.stop()
	// Without what it knew it cannot start either.
	if err := os.RemoveAll(w.data); err != nil {
		t.Fatal(err)
	}
	r := run(t, program(t), "worker", "--data", w.data, "--creds", w.creds, "--listen", w.addr)
	if r.code == 0 || !strings.Contains(r.stderr, "does not let this process in") || !strings.Contains(r.stderr, "sluice worker enroll") {
		t.Errorf("start of a worker that was removed: %v", r)
	}
}

func appendTo(t *testing.T, name, text string) {
	t.Helper()
	writeFile(t, name, readFile(t, name)+text)
}

// natsUser makes an nkey of a user.
func natsUser(t *testing.T) (seed, public string) {
	t.Helper()
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := pair.Seed()
	if err != nil {
		t.Fatal(err)
	}
	if public, err = pair.PublicKey(); err != nil {
		t.Fatal(err)
	}
	return string(raw), public
}

// The same over a NATS server that runs by itself, with the users that the
// program prints for its config.
func TestWorkers_ServerElsewhere(t *testing.T) {
	t.Parallel()
	binary, err := natsServer()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	seed, public := natsUser(t)
	addr := freeAddr(t)
	conf := filepath.Join(dir, "nats.conf")
	users := "    { nkey: " + public + " }\n"
	write := func() {
		writeFile(t, conf, fmt.Sprintf("listen: %q\nmax_payload: 1MB\njetstream { store_dir: %q, sync_interval: always }\nauthorization {\n  users: [\n%s  ]\n}\n",
			addr, filepath.Join(dir, "store"), users))
	}
	write()
	server := start(t, "nats-server", binary, "-c", conf)
	await(t, "the server listens", time.Minute, func() (bool, string) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
		}
		return err == nil, fmt.Sprint(err)
	})
	creds := filepath.Join(dir, "main.creds")
	if err := os.WriteFile(creds, []byte("name = \"main\"\nnkey = \""+seed+"\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := &daemon{data: filepath.Join(shortDir(t), "data"), addr: freeAddr(t), flags: []string{"--nats-url", "nats://" + addr, "--creds", creds, "--zone", exampleZone()}}
	d.start(t)
	d.awaitServed(t, "example.com")
	if _, err := os.Stat(filepath.Join(d.data, "journal")); err == nil {
		t.Error("the main process has a journal of its own beside that of the server")
	}

	w := enrollWorkerAt(t, d, "ns-west", "publish", &users)
	write()
	if err := server.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	await(t, "a worker that the server lets in", time.Minute, func() (bool, string) {
		w.start(t)
		ok, saw := eventually(5*time.Second, func() (bool, string) {
			r := w.cli(t, "health")
			return r.code == 0 || !w.running(), r.String()
		})
		if !w.running() {
			return false, w.tail()
		}
		return ok, saw
	})
	awaitSame(t, "example.com", d.addr, w.addr)
	refusedElsewhere(t, addr, w.creds)
	server.stop()
	if got, err := serialAt(w.addr, "example.com"); err != nil {
		t.Errorf("without the server: serial %d, %v", got, err)
	}
}

// enrollWorkerAt enrolls a worker and adds the user that is printed to users.
func enrollWorkerAt(t *testing.T, main *daemon, name, roles string, users *string) *joined {
	t.Helper()
	dir := shortDir(t)
	w := &joined{daemon: &daemon{data: filepath.Join(dir, "data"), addr: freeAddr(t)}, creds: filepath.Join(dir, "creds")}
	out := main.must(t, "worker", "enroll", name, "--roles", roles, "-o", w.creds)
	_, user, found := strings.Cut(out, "among their users:\n")
	if !found {
		t.Fatalf("no user in:\n%s", out)
	}
	*users += user
	return w
}

// refusedElsewhere checks that the server refuses what would harm the journal.
func refusedElsewhere(t *testing.T, addr, creds string) {
	t.Helper()
	var seed string
	for line := range strings.Lines(readFile(t, creds)) {
		if rest, ok := strings.CutPrefix(line, "nkey = "); ok {
			seed = strings.Trim(strings.TrimSpace(rest), `'"`)
		}
	}
	pair, err := nkeys.FromSeed([]byte(seed))
	if err != nil {
		t.Fatal(err)
	}
	public, err := pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect("nats://"+addr, nats.Nkey(public, pair.Sign), nats.CustomInboxPrefix("_INBOX_ns-west"),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	for _, subject := range []string{
		"$JS.API.STREAM.DELETE.EVENTS", "$JS.API.STREAM.PURGE.BULK", "$JS.API.STREAM.MSG.DELETE.BULK", "$JS.API.CONSUMER.CREATE.EVENTS",
		"ev._.worker", "ev.0123456789abcdef.key", "bulk.0123456789abcdef.c0",
	} {
		if err := nc.Publish(subject, []byte("{}")); err != nil {
			t.Fatal(err)
		}
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
		if err := nc.LastError(); err == nil || !strings.Contains(err.Error(), `"`+subject+`"`) {
			t.Errorf("publish to %s: %v", subject, err)
		}
	}
	answer, err := nc.Request("$JS.API.STREAM.INFO.EVENTS", nil, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	var info struct {
		Config struct {
			DenyDelete bool `json:"deny_delete"`
		} `json:"config"`
	}
	if err := json.Unmarshal(answer.Data, &info); err != nil || !info.Config.DenyDelete {
		t.Errorf("stream: %s, %v", answer.Data, err)
	}
}
