package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// secondary is a peer's server that transfers zones from ours.
type secondary struct {
	name string
	addr string
	*process
}

// secondaries lists how each peer is started: zones maps a zone to the address
// of its primary; extra is added to the configuration of named alone.
var secondaries = []struct {
	name    string
	command string
	start   func(t *testing.T, zone, primary string) *secondary
}{
	{"named", "named", func(t *testing.T, zone, primary string) *secondary {
		return startNamed(t, namedSecondary(zone, primary))
	}},
	{"knotd", "knotd", startKnotd},
	{"nsd", "nsd", startNSD},
}

func namedSecondary(zone, primary string) string {
	return fmt.Sprintf("zone %q { type secondary; primaries { 127.0.0.1 port %s; }; file \"secondary.db\"; masterfile-format raw; };\n", zone, port(primary))
}

func namedPrimary(zone, file string) string {
	return fmt.Sprintf("zone %q { type primary; file %q; check-names ignore; };\n", zone, file)
}

// startNamed starts named with these zone statements.
func startNamed(t *testing.T, zones string) *secondary {
	t.Helper()
	return startNamedWith(t, "", zones)
}

// startNamedWith starts named with further options.
func startNamedWith(t *testing.T, options, zones string) *secondary {
	t.Helper()
	dir, addr := shortDir(t), freeAddr(t)
	conf := writeFile(t, filepath.Join(dir, "named.conf"), fmt.Sprintf(`
options {
	directory %q;
	pid-file none;
	session-keyfile none;
	lock-file none;
	listen-on port %s { 127.0.0.1; };
	listen-on-v6 { none; };
	recursion no;
	notify no;
	dnssec-validation no;
	allow-query { any; };
	allow-transfer { any; };
	allow-notify { 127.0.0.1; };
	check-names secondary ignore;
	min-refresh-time 1;
	min-retry-time 1;
	max-retry-time 1;
%s};
controls { };
%s`, dir, port(addr), options, zones))
	return &secondary{"named", addr, start(t, "named", "named", "-g", "-d", "3", "-4", "-n", "1", "-c", conf)}
}

func startKnotd(t *testing.T, zone, primary string) *secondary {
	t.Helper()
	return startKnotdAt(t, freeAddr(t), zone, primary)
}

// startKnotdAt starts knotd at an address.
func startKnotdAt(t *testing.T, addr, zone, primary string) *secondary {
	t.Helper()
	dir := shortDir(t)
	conf := writeFile(t, filepath.Join(dir, "knot.conf"), fmt.Sprintf(`
server:
    rundir: %[1]s
    listen: %[5]s@%[2]s
    background-workers: 1
    udp-workers: 1
    tcp-workers: 1
database:
    storage: %[1]s
    journal-db-max-size: 64M
log:
  - target: stderr
    any: debug
remote:
  - id: primary
    address: 127.0.0.1@%[3]s
acl:
  - id: all
    address: 127.0.0.1
    action: [notify, transfer]
zone:
  - domain: %[4]s
    storage: %[1]s
    master: primary
    acl: all
    retry-max-interval: 1
`, dir, port(addr), port(primary), zone, host(addr)))
	return &secondary{"knotd", addr, start(t, "knotd", "knotd", "-c", conf)}
}

func startNSD(t *testing.T, zone, primary string) *secondary {
	t.Helper()
	return startNSDAt(t, freeAddr(t), zone, primary)
}

// startNSDAt starts NSD at an address.
func startNSDAt(t *testing.T, addr, zone, primary string) *secondary {
	t.Helper()
	dir := shortDir(t)
	conf := writeFile(t, filepath.Join(dir, "nsd.conf"), fmt.Sprintf(`
server:
	ip-address: %[5]s@%[2]s
	username: ""
	chroot: ""
	zonesdir: %[1]q
	database: ""
	pidfile: "%[1]s/nsd.pid"
	xfrdfile: "%[1]s/xfrd.state"
	xfrdir: %[1]q
	zonelistfile: "%[1]s/zone.list"
	server-count: 1
	verbosity: 2
	xfrd-reload-timeout: 0
remote-control:
	control-enable: no
zone:
	name: %[4]q
	request-xfr: 127.0.0.1@%[3]s NOKEY
	allow-notify: 127.0.0.1 NOKEY
	provide-xfr: 127.0.0.1 NOKEY
	max-retry-time: 1
`, dir, port(addr), port(primary), zone, host(addr)))
	return &secondary{"nsd", addr, start(t, "nsd", "nsd", "-d", "-c", conf)}
}

// awaitSerial tells the secondary of the zone until it serves that serial.
func (s *secondary) awaitSerial(t *testing.T, zone string, want uint32) {
	t.Helper()
	next := time.Now()
	await(t, fmt.Sprintf("%s serves %s with serial %d", s.name, zone, want), 30*time.Second, func() (bool, string) {
		got, err := serialAt(s.addr, zone)
		if err == nil && got == want {
			return true, ""
		}
		if now := time.Now(); now.After(next) {
			next = now.Add(time.Second)
			if err := notify(s.addr, zone); err != nil {
				return false, err.Error()
			}
		}
		return false, fmt.Sprintf("serial %d, %v", got, err)
	})
}

// startUnbound starts a validating resolver that knows one trust anchor and
// where each zone is served: one address, or several with commas between.
func startUnbound(t *testing.T, anchor string, zones map[string]string) *secondary {
	t.Helper()
	s, _ := startUnboundWith(t, "control-enable: no", anchor, zones)
	return s
}

// startUnboundWith starts unbound with these words on its remote control; conf
// is its configuration.
func startUnboundWith(t *testing.T, control, anchor string, zones map[string]string) (s *secondary, conf string) {
	t.Helper()
	dir, addr := shortDir(t), freeAddr(t)
	writeFile(t, filepath.Join(dir, "anchor"), anchor+"\n")
	text := fmt.Sprintf(`
server:
	directory: %[1]q
	chroot: ""
	username: ""
	pidfile: ""
	use-syslog: no
	logfile: ""
	verbosity: 1
	val-log-level: 2
	do-daemonize: no
	num-threads: 1
	interface: 127.0.0.1
	port: %[2]s
	do-not-query-localhost: no
	do-ip6: no
	module-config: "validator iterator"
	trust-anchor-file: "%[1]s/anchor"
	aggressive-nsec: no
	qname-minimisation: no
remote-control:
	%[3]s
`, dir, port(addr), control)
	for zone, server := range zones {
		text += fmt.Sprintf("stub-zone:\n\tname: %q\n\tstub-prime: no\n", zone)
		for addr := range strings.SplitSeq(server, ",") {
			text += fmt.Sprintf("\tstub-addr: 127.0.0.1@%s\n", port(addr))
		}
	}
	conf = writeFile(t, filepath.Join(dir, "unbound.conf"), text)
	return &secondary{"unbound", addr, start(t, "unbound", "unbound", "-d", "-c", conf)}, conf
}
