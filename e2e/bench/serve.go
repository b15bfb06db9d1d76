package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"sluice/e2e/zonegen"
)

// The parts of a server's run that are measured.
const (
	firstServe  = "serve (sluice): file to published"
	fileChange  = "serve (sluice): file re-read with 1 change to published"
	afterKill   = "serve (sluice): kill -9 to served again"
	fromJournal = "serve (sluice): projections deleted to served again"
	axfrOurs    = "axfr out (sluice)"
	axfrKnot    = "axfr out (knotd)"
)

// patience is how long a server may take for one part.
const patience = 10 * time.Minute

// serve measures the daemon and knotd, as many runs as asked for.
func (b *bench) serve(ctx context.Context) ([]series, error) {
	var all []series
	add := func(name string, s sample) {
		fmt.Fprintf(os.Stderr, "bench: %s: %.2f s wall, %.2f s CPU, %d MiB\n", name, s.wall.Seconds(), s.cpu.Seconds(), s.rss>>20)
		for i := range all {
			if all[i].name == name {
				all[i].samples = append(all[i].samples, s)
				return
			}
		}
		all = append(all, series{name, []sample{s}})
	}
	for range b.runs {
		if b.wanted("serve") && installed(b.sluice) {
			if err := b.serveOurs(ctx, add); err != nil {
				return nil, fmt.Errorf("serve: %w", err)
			}
		}
		if installed(b.sluice) {
			if err := b.share(ctx, add); err != nil {
				return nil, err
			}
		}
		if _, err := os.Stat(b.output("served.zone")); err == nil && b.wanted("axfr") && installed("knotd") {
			if err := b.serveKnot(ctx, add); err != nil {
				return nil, fmt.Errorf("knotd: %w", err)
			}
		}
	}
	return all, nil
}

func (b *bench) serveOurs(ctx context.Context, add func(string, sample)) error {
	dir, err := os.MkdirTemp(b.dir, "serve-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	data, file := filepath.Join(dir, "data"), filepath.Join(dir, "zone")
	if err := os.Link(b.zoneFile, file); err != nil {
		return err
	}
	policies := filepath.Join(dir, "policies")
	if err := os.Mkdir(policies, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(policies, "default.toml"), []byte(b.policy()), 0o644); err != nil {
		return err
	}
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	args := []string{"serve", "--data", data, "--listen", addr, "--policy-dir", policies, "--zone", b.apex + "=" + file}
	s, err := b.startServer(ctx, addr, b.sluice, args...)
	if err != nil {
		return err
	}
	defer func() { s.kill() }()
	serial, err := s.measureChange(ctx, firstServe, 0, add)
	if err != nil {
		return err
	}
	if err := s.measureAXFR(axfrOurs, add); err != nil {
		return err
	}
	if err := b.dump(ctx, data); err != nil {
		return err
	}
	if err := b.measureReload(ctx, s, data, file, serial, add); err != nil {
		return err
	}
	s.kill()
	if s, err = b.startServer(ctx, addr, b.sluice, args...); err != nil {
		return err
	}
	if _, err := s.measureChange(ctx, afterKill, 0, add); err != nil {
		return err
	}
	s.kill()
	if err := os.RemoveAll(filepath.Join(data, "projections")); err != nil {
		return err
	}
	if s, err = b.startServer(ctx, addr, b.sluice, args...); err != nil {
		return err
	}
	_, err = s.measureChange(ctx, fromJournal, 0, add)
	return err
}

// policy is the built-in one but for what the flags of this command say.
func (b *bench) policy() string {
	text := "version = \"v1\"\n[signer]\nverify = " + strconv.Quote(b.verify) + "\n[signer.denial]\n"
	if b.denial == "nsec" {
		return text + "type = \"nsec\"\n"
	}
	return text + fmt.Sprintf("type = \"nsec3\"\nopt-out = %v\n", b.denial == "nsec3-opt-out")
}

// dump keeps the signed zone as a file for knotd.
func (b *bench) dump(ctx context.Context, data string) error {
	if !b.wanted("axfr") {
		return nil
	}
	cmd := exec.CommandContext(ctx, b.sluice, "--api", "unix:"+filepath.Join(data, "sluice.sock"),
		"zone", "dump", b.apex, "-o", b.output("served.zone"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("zone dump: %w: %s", err, out)
	}
	return nil
}

func (b *bench) measureReload(ctx context.Context, s *server, data, file string, serial uint32, add func(string, sample)) error {
	changed := b.zone
	changed.Change, changed.ModifyOnly = 1, true
	f, err := os.Create(file + ".new")
	if err != nil {
		return err
	}
	err = zonegen.Write(f, changed)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	s.begin()
	if err := os.Rename(f.Name(), file); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, b.sluice, "--api", "unix:"+filepath.Join(data, "sluice.sock"), "zone", "reload", b.apex)
	if err := cmd.Start(); err != nil {
		return err
	}
	_, err = s.measureChange(ctx, fileChange, serial, add)
	return errors.Join(err, cmd.Wait())
}

func (b *bench) serveKnot(ctx context.Context, add func(string, sample)) error {
	dir, err := os.MkdirTemp("", "bench-knot-") // a short name, for its socket
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	conf := filepath.Join(dir, "knot.conf")
	text := fmt.Sprintf(`server:
    rundir: %[1]s
    listen: 127.0.0.1@%[2]s
database:
    storage: %[1]s
acl:
  - id: all
    address: 127.0.0.1
    action: transfer
zone:
  - domain: %[3]s
    file: %[4]s
    acl: all
    zonefile-load: whole
    journal-content: none
`, dir, port, b.apex, b.output("served.zone"))
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		return err
	}
	s, err := b.startServer(ctx, addr, "knotd", "-c", conf)
	if err != nil {
		return err
	}
	defer s.kill()
	if _, err := s.awaitOther(ctx, 0); err != nil {
		return err
	}
	return s.measureAXFR(axfrKnot, add)
}

// server is a process that serves the zone.
type server struct {
	cmd    *exec.Cmd
	log    *os.File
	addr   string
	apex   string
	exited chan struct{}
	began  time.Time
	cpu    time.Duration // used when it began
}

func (b *bench) startServer(ctx context.Context, addr, command string, args ...string) (*server, error) {
	return b.startLogged(ctx, "server.log", addr, command, args...)
}

// startLogged is startServer with a log of its own.
func (b *bench) startLogged(ctx context.Context, file, addr, command string, args ...string) (*server, error) {
	log, err := os.Create(b.output(file))
	if err != nil {
		return nil, err
	}
	s := &server{cmd: exec.CommandContext(ctx, command, args...), log: log, addr: addr, apex: b.apex, exited: make(chan struct{})}
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.began = time.Now()
	if err := s.cmd.Start(); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	go func() {
		_ = s.cmd.Wait() // it is killed at the end
		close(s.exited)
	}()
	return s, nil
}

func (s *server) kill() {
	_ = s.cmd.Process.Signal(syscall.SIGKILL) // it may have ended
	<-s.exited
	_ = s.log.Close()
}

// begin starts a new part.
func (s *server) begin() {
	s.began = time.Now()
	s.cpu, _ = usage(s.cmd.Process.Pid)
}

func (s *server) sample() sample {
	wall := time.Since(s.began)
	cpu, rss := usage(s.cmd.Process.Pid)
	return sample{wall: wall, cpu: cpu - s.cpu, rss: rss}
}

// measureChange waits for a serial other than old and ends the part.
func (s *server) measureChange(ctx context.Context, name string, old uint32, add func(string, sample)) (uint32, error) {
	serial, err := s.awaitOther(ctx, old)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	add(name, s.sample())
	return serial, nil
}

func (s *server) awaitOther(ctx context.Context, old uint32) (uint32, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		if serial, err := askSerial(s.addr, s.apex); err == nil && serial != old {
			return serial, nil
		}
		select {
		case <-tick.C:
		case <-s.exited:
			return 0, s.ended()
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// ended is why a server has ended, as far as it said.
func (s *server) ended() error {
	text, _ := os.ReadFile(s.log.Name())
	return fmt.Errorf("the server has ended: %s", lastBytes(text))
}

func (s *server) measureAXFR(name string, add func(string, sample)) error {
	s.begin()
	records, err := countAXFR(s.addr, s.apex)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	got := s.sample()
	got.records = records
	add(name, got)
	return nil
}

// usage reads the CPU time and the peak memory of a running process.
func usage(pid int) (cpu time.Duration, rss int64) {
	const tick = 10 * time.Millisecond // USER_HZ is 100 on Linux
	dir := fmt.Sprintf("/proc/%d/", pid)
	if stat, err := os.ReadFile(dir + "stat"); err == nil {
		// The name in brackets may hold spaces; the fields after it do not.
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		for _, f := range fields[11:13] {
			n, _ := strconv.ParseInt(f, 10, 64)
			cpu += time.Duration(n) * tick
		}
	}
	if status, err := os.ReadFile(dir + "status"); err == nil {
		for line := range strings.Lines(string(status)) {
			if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
				n, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
				rss = n << 10
			}
		}
	}
	return cpu, rss
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// readFull reads one DNS message from a stream.
func readFull(r io.Reader, buf []byte) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	msg := buf[:int(length[0])<<8|int(length[1])]
	_, err := io.ReadFull(r, msg)
	return msg, err
}
