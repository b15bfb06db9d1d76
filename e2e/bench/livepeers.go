package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// Each server signs in its default way but for the algorithm, the denial chain
// and what its first signing would else take hours for.

func (b *bench) liveSluice(ctx context.Context, dir string, from netip.AddrPort) (*server, error) {
	policies, data := filepath.Join(dir, "policies"), filepath.Join(dir, "data")
	if err := os.Mkdir(policies, 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(policies, "default.toml"), []byte(b.policy()), 0o644); err != nil {
		return nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	s, err := b.startServer(ctx, addr, b.sluice, "serve", "--data", data, "--listen", addr, "--policy-dir", policies,
		"--review-loaded", "", "--review-signed", "")
	if err != nil {
		return nil, err
	}
	api := []string{"--api", "unix:" + filepath.Join(data, "sluice.sock")}
	if err := s.awaitCommand(ctx, b.sluice, append(api, "health")...); err != nil {
		s.kill()
		return nil, err
	}
	add := append(api, "zone", "add", b.apex, "--source", from.String(), "--no-wait",
		"--import-ksk-file", b.keys[0], "--import-zsk-file", b.keys[1])
	s.began = time.Now()
	if out, err := exec.CommandContext(ctx, b.sluice, add...).CombinedOutput(); err != nil {
		s.kill()
		return nil, fmt.Errorf("zone add: %w: %s", err, out)
	}
	return s, nil
}

// awaitCommand runs a command until it succeeds.
func (s *server) awaitCommand(ctx context.Context, command string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		out, err := exec.CommandContext(ctx, command, args...).CombinedOutput()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-s.exited:
			return s.ended()
		case <-ctx.Done():
			return fmt.Errorf("%s: %w: %s", command, err, out)
		}
	}
}

func (b *bench) liveNamed(ctx context.Context, dir string, from netip.AddrPort) (*server, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	nsec3 := map[string]string{
		"nsec3":         "nsec3param iterations 0 optout no salt-length 0;",
		"nsec3-opt-out": "nsec3param iterations 0 optout yes salt-length 0;",
	}[b.denial]
	conf := filepath.Join(dir, "named.conf")
	text := fmt.Sprintf(`options {
	directory %[1]q;
	pid-file none;
	session-keyfile none;
	lock-file none;
	listen-on port %[2]s { 127.0.0.1; };
	listen-on-v6 { none; };
	recursion no;
	notify no;
	dnssec-validation no;
	allow-transfer { any; };
	allow-notify { 127.0.0.1; };
	check-names secondary ignore;
	sig-signing-signatures 1000;
	sig-signing-nodes 10000;
};
controls { };
dnssec-policy bench {
	keys { ksk lifetime unlimited algorithm 13; zsk lifetime unlimited algorithm 13; };
	%[3]s
};
zone %[4]q {
	type secondary;
	primaries { %[5]s port %[6]d; };
	file "zone.raw";
	inline-signing yes;
	dnssec-policy bench;
};
`, dir, port, nsec3, b.apex, from.Addr(), from.Port())
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		return nil, err
	}
	return b.startServer(ctx, addr, "named", "-f", "-4", "-n", "2", "-c", conf)
}

func (b *bench) liveKnot(ctx context.Context, dir string, from netip.AddrPort) (*server, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	onOff := map[bool]string{true: "on", false: "off"}
	conf := filepath.Join(dir, "knot.conf")
	text := fmt.Sprintf(`server:
    rundir: %[1]s
    listen: 127.0.0.1@%[2]s
database:
    storage: %[1]s
    journal-db-max-size: 4G
remote:
  - id: primary
    address: %[3]s@%[4]d
acl:
  - id: all
    address: 127.0.0.1
    action: [notify, transfer]
policy:
  - id: bench
    algorithm: ecdsap256sha256
    signing-threads: 2
    nsec3: %[5]s
    nsec3-iterations: 0
    nsec3-salt-length: 0
    nsec3-opt-out: %[6]s
    cds-cdnskey-publish: none
zone:
  - domain: %[7]s
    storage: %[1]s
    master: primary
    acl: all
    dnssec-signing: on
    dnssec-policy: bench
    zonefile-load: none
    zonefile-sync: -1
    journal-content: changes
    journal-max-usage: 2G
`, dir, port, from.Addr(), from.Port(), onOff[b.denial != "nsec"], onOff[b.denial == "nsec3-opt-out"], b.apex)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		return nil, err
	}
	return b.startServer(ctx, addr, "knotd", "-c", conf)
}
