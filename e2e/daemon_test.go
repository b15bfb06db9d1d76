package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// daemon is a running `sluice serve`.
type daemon struct {
	*process
	data  string // its data directory
	addr  string // where it publishes
	flags []string
	// binary is another build of the program; "" is the usual one.
	binary string
}

// startDaemon starts the daemon on a new data directory: zones are NAME=SOURCE.
func startDaemon(t *testing.T, policy string, zones ...string) *daemon {
	t.Helper()
	dir := shortDir(t)
	d := &daemon{data: filepath.Join(dir, "data"), addr: freeAddr(t)}
	if policy != "" {
		policies := filepath.Join(dir, "policies")
		if err := os.Mkdir(policies, 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(policies, "default.toml"), policy)
		d.flags = append(d.flags, "--policy-dir", policies)
	}
	for _, z := range zones {
		d.flags = append(d.flags, "--zone", z)
	}
	d.start(t)
	return d
}

// start starts the daemon, anew after stop or kill.
func (d *daemon) start(t *testing.T) {
	t.Helper()
	args := append([]string{"serve", "--data", d.data, "--listen", d.addr}, d.flags...)
	binary := d.binary
	if binary == "" {
		binary = program(t)
	}
	d.process = start(t, "sluice", binary, args...)
}

// socket is where its clients reach it.
func (d *daemon) socket() string { return "unix:" + filepath.Join(d.data, "sluice.sock") }

// cli runs a client's command.
func (d *daemon) cli(t *testing.T, args ...string) result {
	t.Helper()
	return run(t, program(t), append([]string{"--api", d.socket()}, args...)...)
}

// must runs a client's command that has to succeed.
func (d *daemon) must(t *testing.T, args ...string) string {
	t.Helper()
	r := d.cli(t, args...)
	if r.code != 0 {
		t.Fatalf("sluice %v: %v", args, r)
	}
	return r.stdout
}

// awaitServed waits until the zone is published and returns its serial.
func (d *daemon) awaitServed(t *testing.T, zone string) uint32 {
	t.Helper()
	return d.awaitChange(t, zone, 0)
}

// awaitChange waits until a serial other than old is published.
func (d *daemon) awaitChange(t *testing.T, zone string, old uint32) uint32 {
	t.Helper()
	var serial uint32
	await(t, fmt.Sprintf("%s published with a serial other than %d", zone, old), time.Minute, func() (bool, string) {
		if !d.running() {
			t.Fatalf("the daemon has ended:\n%s", d.tail())
		}
		got, err := serialAt(d.addr, zone)
		serial = got
		return err == nil && got != old, fmt.Sprintf("serial %d, %v", got, err)
	})
	return serial
}

// denialPolicy is a policy that differs from the built-in one in the denial
// chain alone.
func denialPolicy(denial string) string {
	switch denial {
	case "nsec3":
		return "version = \"v1\"\n[signer.denial]\ntype = \"nsec3\"\nopt-out = false\n"
	case "nsec3-opt-out":
		return "version = \"v1\"\n[signer.denial]\ntype = \"nsec3\"\nopt-out = true\n"
	default:
		return "version = \"v1\"\n[signer.denial]\ntype = \"nsec\"\n"
	}
}

// dumpTo writes what the daemon serves to a file.
func (d *daemon) dumpTo(t *testing.T, zone string) (file string, rrs []dns.RR) {
	t.Helper()
	rrs = axfr(t, d.addr, zone)
	return writeFile(t, filepath.Join(t.TempDir(), "served.zone"), zoneText(rrs)), rrs
}
