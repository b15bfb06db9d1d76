package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// share measures one process, and two that share a zone between them, signing
// all of what they have loaded anew, until it is published. Each has one core.
func (b *bench) share(ctx context.Context, add func(string, sample)) error {
	for processes, name := range []string{"share-1", "share-2"} {
		if !b.wanted(name) {
			continue
		}
		if err := b.shareBetween(ctx, processes+1, add); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func (b *bench) shareBetween(ctx context.Context, processes int, add func(string, sample)) error {
	dir, err := os.MkdirTemp("", "bench-share-") // a short name, for its sockets
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Mkdir(filepath.Join(dir, "policies"), 0o755); err != nil {
		return err
	}
	policy := strings.Replace(b.policy(), "[signer]\n", "[signer]\nshare-above = 1000\n", 1)
	if err := os.WriteFile(filepath.Join(dir, "policies", "default.toml"), []byte(policy), 0o644); err != nil {
		return err
	}
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	args := []string{
		"GOMAXPROCS=1", b.sluice, "serve", "--data", filepath.Join(dir, "main"), "--listen", addr,
		"--policy-dir", filepath.Join(dir, "policies"),
	}
	s := &sharers{b: b, dir: dir}
	if processes > 1 {
		gate, err := freeAddr()
		if err != nil {
			return err
		}
		args = append(args, "--nats-listen", gate)
	}
	if err := s.start(ctx, addr, args...); err != nil {
		return err
	}
	defer s.kill()
	if err := s.join(ctx, processes-1); err != nil {
		return err
	}
	if _, err := s.cli(ctx, "zone", "add", b.apex, "--source", b.zoneFile); err != nil {
		return err
	}
	serial, err := s.all[0].awaitOther(ctx, 0)
	if err != nil {
		return err
	}
	for _, one := range s.all {
		one.begin()
	}
	if _, err := s.cli(ctx, "zone", "resign", b.apex, "--full"); err != nil {
		return err
	}
	if _, err := s.all[0].awaitOther(ctx, serial); err != nil {
		return err
	}
	samples := make([]sample, len(s.all))
	for i, one := range s.all {
		samples[i] = one.sample()
	}
	history, err := s.cli(ctx, "zone", "history", b.apex)
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(history), "\n")
	fmt.Fprintf(os.Stderr, "bench: %s\n", lines[max(0, len(lines)-2)])
	name := fmt.Sprintf("sign all again to published: %d processes, 1 core each", processes)
	if processes == 1 {
		name = "sign all again to published: 1 process, 1 core"
	}
	total := samples[0]
	for i, one := range samples[1:] {
		total.cpu += one.cpu
		total.rss = max(total.rss, one.rss)
		add(fmt.Sprintf("%s; of these, worker %d", name, i+1), one)
	}
	if processes > 1 {
		add(name+"; of these, the main one", samples[0])
	}
	add(name, total)
	return nil
}

// sharers are processes on one journal, the main one first.
type sharers struct {
	b   *bench
	dir string
	all []*server
}

func (s *sharers) start(ctx context.Context, addr string, args ...string) error {
	one, err := s.b.startLogged(ctx, fmt.Sprintf("server%d.log", len(s.all)), addr, "env", args...)
	if err == nil {
		s.all = append(s.all, one)
	}
	return err
}

func (s *sharers) kill() {
	for _, one := range s.all {
		one.kill()
	}
}

// cli runs a command at the main process; while that does not answer yet it is
// tried again.
func (s *sharers) cli(ctx context.Context, args ...string) (string, error) {
	args = append([]string{"--api", "unix:" + filepath.Join(s.dir, "main", "sluice.sock")}, args...)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		cmd := exec.CommandContext(ctx, s.b.sluice, args...)
		var said strings.Builder
		cmd.Stderr = &said
		out, err := cmd.Output()
		var exit *exec.ExitError
		if err == nil || !errors.As(err, &exit) || exit.ExitCode() != exitNoDaemon {
			if err != nil {
				err = fmt.Errorf("%v: %w: %s", args[2:], err, lastBytes([]byte(said.String())))
			}
			return string(out), err
		}
		select {
		case <-s.all[0].exited:
			return "", s.all[0].ended()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// exitNoDaemon is the exit code of commands that no daemon answers.
const exitNoDaemon = 5

// join starts workers that sign, and waits until they are at work.
func (s *sharers) join(ctx context.Context, workers int) error {
	for i := range workers {
		name := fmt.Sprintf("w%d", i+1)
		creds := filepath.Join(s.dir, name+".creds")
		if _, err := s.cli(ctx, "worker", "enroll", name, "--roles", "sign", "-o", creds); err != nil {
			return err
		}
		if err := s.start(ctx, "", "GOMAXPROCS=1", s.b.sluice, "worker", "--creds", creds, "--data", filepath.Join(s.dir, name)); err != nil {
			return err
		}
	}
	for {
		out, err := s.cli(ctx, "worker", "list", "--json")
		if err != nil || workers == 0 {
			return err
		}
		var list struct {
			Workers []struct {
				Holds map[string]int `json:"holds"`
			} `json:"workers"`
		}
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			return err
		}
		signing := 0
		for _, w := range list.Workers {
			if w.Holds["sign"] > 0 {
				signing++
			}
		}
		if signing > workers {
			return nil
		}
		select {
		case <-s.all[0].exited:
			return s.all[0].ended()
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}
