package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// contender is one command line that signs the zone, or one that serves it.
type contender struct {
	name string
	// run does one run from nothing and measures it.
	run func(ctx context.Context) (sample, error)
}

// bench holds what all contenders work on.
type bench struct {
	config
	apex     string // with its final dot
	zoneFile string
	keys     []string // K*.private, the KSK first
	records  int      // in the zone file
}

// prepare writes the zone and the keys.
func prepare(ctx context.Context, c config) (*bench, error) {
	b := &bench{config: c, apex: c.zone.Apex(), zoneFile: filepath.Join(c.dir, "zone")}
	for _, dir := range []string{"keys", "out"} {
		if err := os.MkdirAll(filepath.Join(c.dir, dir), 0o755); err != nil {
			return nil, err
		}
	}
	if err := writeZone(b.zoneFile, c.zone); err != nil {
		return nil, err
	}
	lines, _, err := countLines(b.zoneFile)
	if err != nil {
		return nil, err
	}
	b.records = lines - 2 // $ORIGIN and $TTL
	for _, flags := range [][]string{{"-f", "KSK"}, nil} {
		args := append([]string{"-q", "-K", filepath.Join(c.dir, "keys"), "-a", "13"}, flags...)
		out, err := exec.CommandContext(ctx, "dnssec-keygen", append(args, b.apex)...).Output()
		if err != nil {
			return nil, fmt.Errorf("dnssec-keygen: %w", err)
		}
		name := strings.TrimSpace(string(out)) + ".private"
		b.keys = append(b.keys, filepath.Join(c.dir, "keys", name))
	}
	return b, nil
}

func (b *bench) output(tool string) string {
	return filepath.Join(b.dir, "out", tool)
}

// signers returns those that are asked for and installed.
func (b *bench) signers() []contender {
	type signer struct {
		name, command string
		setup         func(context.Context) error
		args          []string
		text          string // the output, when it is text with a record a line
	}
	sluice := []string{"signzone", "--denial", b.denial, "--verify", b.verify}
	for _, key := range b.keys {
		sluice = append(sluice, "--key", key)
	}
	sluice = append(sluice, "-o", b.output("sluice"), b.apex, b.zoneFile)
	// dnssec-signzone verifies all that it signed, unless -P is given.
	bindName := "dnssec-signzone -O raw"
	bind := []string{"-n", "2", "-O", "raw", "-S", "-K", filepath.Join(b.dir, "keys"), "-d", filepath.Join(b.dir, "out"), "-j", "0"}
	if b.verify != "all" {
		bindName, bind = "dnssec-signzone -P -O raw", append(bind, "-P")
	}
	ldns := []string{"-f", b.output("ldns")}
	switch b.denial {
	case "nsec3":
		bind = append(bind, "-3", "-", "-H", "0")
		ldns = append(ldns, "-n", "-t", "0")
	case "nsec3-opt-out":
		bind = append(bind, "-3", "-", "-H", "0", "-A")
		ldns = append(ldns, "-n", "-p", "-t", "0")
	}
	bind = append(bind, "-o", b.apex, "-f", b.output("bind"), b.zoneFile)
	ldns = append(ldns, "-o", b.apex, b.zoneFile)
	for _, key := range b.keys {
		ldns = append(ldns, strings.TrimSuffix(key, ".private"))
	}
	var found []contender
	for _, s := range []signer{
		{"signzone (sluice)", b.sluice, nil, sluice, b.output("sluice")},
		{"kzonesign", "kzonesign", b.knotSetup, []string{"-c", b.knotConf(), "-o", filepath.Join(b.dir, "out"), b.apex}, b.output("zone")},
		{bindName, "dnssec-signzone", nil, bind, ""},
		{"ldns-signzone", "ldns-signzone", nil, ldns, b.output("ldns")},
	} {
		if !b.wanted(s.name) || !installed(s.command) {
			continue
		}
		found = append(found, contender{s.name, func(ctx context.Context) (sample, error) {
			if s.setup != nil {
				if err := s.setup(ctx); err != nil {
					return sample{}, err
				}
			}
			got, err := measure(ctx, s.command, s.args...)
			if err != nil || s.text == "" {
				return got, err
			}
			_, got.signatures, err = countLines(s.text)
			return got, err
		}})
	}
	return found
}

func installed(command string) bool {
	if _, err := exec.LookPath(command); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %s is not there and is left out\n", command)
		return false
	}
	return true
}

func (b *bench) knotConf() string { return filepath.Join(b.dir, "knot.conf") }

// knotSetup gives kzonesign a fresh key database with the same keys.
func (b *bench) knotSetup(ctx context.Context) error {
	onOff := map[bool]string{true: "on", false: "off"}
	conf := fmt.Sprintf(`server:
    rundir: %[1]s
database:
    storage: %[1]s
    kasp-db: kasp
policy:
  - id: bench
    manual: on
    algorithm: ecdsap256sha256
    signing-threads: 2
    nsec3: %[2]s
    nsec3-iterations: 0
    nsec3-salt-length: 0
    nsec3-opt-out: %[3]s
    rrsig-lifetime: 28d
    rrsig-refresh: 14d
    cds-cdnskey-publish: none
zone:
  - domain: %[4]s
    file: %[5]s
    dnssec-signing: on
    dnssec-policy: bench
    zonefile-load: whole
    journal-content: none
`, b.dir, onOff[b.denial != "nsec"], onOff[b.denial == "nsec3-opt-out"], b.apex, b.zoneFile)
	if err := os.RemoveAll(filepath.Join(b.dir, "kasp")); err != nil {
		return err
	}
	if err := os.WriteFile(b.knotConf(), []byte(conf), 0o644); err != nil {
		return err
	}
	for _, key := range b.keys {
		public := strings.TrimSuffix(key, ".private") + ".key"
		cmd := exec.CommandContext(ctx, "keymgr", "-c", b.knotConf(), b.apex, "import-bind", public)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("keymgr: %w: %s", err, out)
		}
	}
	return nil
}

// countLines counts the lines of a file and those that hold an RRSIG.
func countLines(name string) (lines, signatures int, err error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	rrsig := []byte("RRSIG")
	for r := bufio.NewReaderSize(f, 1<<16); ; {
		line, err := r.ReadSlice('\n')
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = r.ReadSlice('\n')
		}
		if errors.Is(err, io.EOF) {
			return lines, signatures, nil
		}
		if err != nil {
			return lines, signatures, err
		}
		lines++
		// The type is the fourth field; a bitmap names it later.
		if f := bytes.Fields(line); len(f) > 3 && (bytes.Equal(f[3], rrsig) || bytes.Equal(f[2], rrsig)) {
			signatures++
		}
	}
}
