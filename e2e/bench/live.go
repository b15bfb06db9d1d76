package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/e2e/zonegen"
)

const (
	// livePatience is how long a server may take to sign the zone for the
	// first time, or to publish one change.
	livePatience = 20 * time.Minute
	// livePart is how long the changes of one size are made at most, beyond
	// the first two.
	livePart = 3 * time.Minute
	// settled is how long a serial must stand until a server counts as done
	// with its first signing: named publishes it in thousands of versions.
	settled = 15 * time.Second
	// pollEvery is the pause between two questions for the SOA.
	pollEvery = time.Millisecond
)

// liveChange is a size of change, and how many are made of it in a run: an
// even number, since each is taken back by the next.
type liveChange struct{ rrsets, times int }

// live is what one server did in one zone, all runs together.
type live struct {
	peer   string
	names  int
	first  []time.Duration // source named to signed zone served
	cpu    time.Duration   // of the last first signing
	groups []liveGroup
	steady int64 // RSS in bytes after the changes, at most
	peak   int64
}

// liveGroup is all changes of one size.
type liveGroup struct {
	rrsets int
	took   []time.Duration
	cpu    time.Duration
}

// livePeer is a server that signs what it is told of.
type livePeer struct {
	name, command string
	// start starts it as a secondary of the primary, with the bench's keys
	// where it takes any. It signs in dir.
	start func(b *bench, ctx context.Context, dir string, from netip.AddrPort) (*server, error)
	// slow says that it publishes its first signing bit by bit.
	slow bool
}

func (b *bench) livePeers() []livePeer {
	return []livePeer{
		{"sluice", b.sluice, (*bench).liveSluice, false},
		{"named", "named", (*bench).liveNamed, true},
		{"knotd", "knotd", (*bench).liveKnot, false},
	}
}

// live measures what a change costs at each server: live-NAME in the zone that
// was asked for, flat-NAME in smaller ones too.
func (b *bench) live(ctx context.Context) (big, flat []live, err error) {
	for range b.runs {
		for _, peer := range b.livePeers() {
			if !b.wanted("live-"+peer.name) || !installed(peer.command) {
				continue
			}
			if big, err = b.livePeer(ctx, big, peer, b.zoneFile, b.zone, b.changes); err != nil {
				return nil, nil, fmt.Errorf("live-%s: %w", peer.name, err)
			}
		}
	}
	for _, names := range b.sizes {
		for _, peer := range b.livePeers() {
			if !b.wanted("flat-"+peer.name) || !installed(peer.command) {
				continue
			}
			file, c := b.zoneFile, b.zone
			if c.Names = names; names != b.zone.Names {
				file = b.output("flat.zone")
				if err := writeZone(file, c); err != nil {
					return nil, nil, err
				}
			}
			if flat, err = b.livePeer(ctx, flat, peer, file, c, b.changes[:1]); err != nil {
				return nil, nil, fmt.Errorf("flat-%s: %w", peer.name, err)
			}
		}
	}
	return big, flat, nil
}

func writeZone(file string, c zonegen.Config) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	err = zonegen.Write(f, c)
	return errors.Join(err, f.Close())
}

// livePeer lets one server sign the zone and sends it the changes.
func (b *bench) livePeer(ctx context.Context, all []live, peer livePeer, file string, c zonegen.Config, changes []liveChange) ([]live, error) {
	content, err := loadContent(ctx, file, b.apex)
	if err != nil {
		return nil, err
	}
	p, err := startPrimary(content)
	if err != nil {
		return nil, err
	}
	defer p.stop() //nolint:errcheck // nothing depends on its end
	dir, err := os.MkdirTemp(b.dir, "l-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	s, err := peer.start(b, ctx, dir, p.addr)
	if err != nil {
		return nil, err
	}
	defer s.kill()
	at := slices.IndexFunc(all, func(l live) bool { return l.peer == peer.name && l.names == c.Names })
	if at < 0 {
		at = len(all)
		all = append(all, live{peer: peer.name, names: c.Names})
		for _, change := range changes {
			all[at].groups = append(all[at].groups, liveGroup{rrsets: change.rrsets})
		}
	}
	l := &all[at]
	took, err := s.firstSigning(ctx, peer.slow)
	if err != nil {
		return nil, fmt.Errorf("first signing: %w", err)
	}
	l.first = append(l.first, took)
	l.cpu, _ = usage(s.cmd.Process.Pid)
	fmt.Fprintf(os.Stderr, "bench: live-%s, %d names: %.2f s wall, %.2f s CPU to the first signed zone\n", peer.name, c.Names, took.Seconds(), l.cpu.Seconds())
	for i, change := range changes {
		if err := b.liveGroup(ctx, s, p, c, change, &l.groups[i]); err != nil {
			return nil, fmt.Errorf("%d RRsets: %w", change.rrsets, err)
		}
		fmt.Fprintf(os.Stderr, "bench: live-%s, %d names, %s\n", peer.name, c.Names, l.groups[i])
	}
	_, peak := usage(s.cmd.Process.Pid)
	l.peak, l.steady = max(l.peak, peak), max(l.steady, resident(s.cmd.Process.Pid))
	return all, nil
}

// String is what is told while it runs.
func (g liveGroup) String() string {
	return fmt.Sprintf("%s: %d changes, p50 %.1f ms, p99 %.1f ms, %.1f ms CPU each", rrsets(g.rrsets), len(g.took),
		milliseconds(g.quantile(50)), milliseconds(g.quantile(99)), milliseconds(g.cpu)/float64(len(g.took)))
}

// quantile is the time within which so many percent of the changes were
// published; of an even count the lower middle.
func (g liveGroup) quantile(percent int) time.Duration {
	took := slices.Sorted(slices.Values(g.took))
	return took[min(len(took)-1, max(0, (len(took)*percent+99)/100-1))]
}

// liveGroup makes the changes of one size, each forth and back.
func (b *bench) liveGroup(ctx context.Context, s *server, p *primary, c zonegen.Config, change liveChange, g *liveGroup) error {
	poll, err := newPoller(s.addr, b.apex)
	if err != nil {
		return err
	}
	defer poll.close() //nolint:errcheck // nothing is written through it
	addr, err := netip.ParseAddrPort(s.addr)
	if err != nil {
		return err
	}
	edited := c
	edited.Change, edited.ModifyOnly = min(change.rrsets, c.Names), true
	before, _ := usage(s.cmd.Process.Pid)
	begun := time.Now()
	for n := 0; n < change.times && (n < 2 || n%2 == 1 || time.Since(begun) < livePart); n += 2 {
		// Another place in the zone each time.
		edited.Round, edited.Offset = uint32(n/2+1), (n/2*7919)%c.Names
		e, err := newEdit(ctx, b.dir, edited)
		if err != nil {
			return err
		}
		for range 2 {
			took, err := poll.change(ctx, s, func() error { return p.notify(ctx, addr) }, func() { p.change(&e) })
			if err != nil {
				return err
			}
			g.took = append(g.took, took)
		}
	}
	after, _ := usage(s.cmd.Process.Pid)
	g.cpu += after - before
	return nil
}

// firstSigning waits for the first signed zone; where it comes bit by bit,
// until it is complete.
func (s *server) firstSigning(ctx context.Context, slow bool) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, livePatience)
	defer cancel()
	serial, err := s.awaitOther(ctx, 0)
	since := time.Now()
	for err == nil && slow && time.Since(since) < settled {
		var next uint32
		wait, stop := context.WithTimeout(ctx, settled-time.Since(since))
		next, err = s.awaitOther(wait, serial)
		stop()
		switch {
		case err == nil:
			serial, since = next, time.Now()
		case ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
			err = nil
		}
	}
	return since.Sub(s.began), err
}

// poller asks one server for its serial, over one socket.
type poller struct {
	conn net.Conn
	ask  []byte
	buf  []byte
}

func newPoller(addr, apex string) (*poller, error) {
	conn, err := net.Dial("udp", addr)
	if err != nil {
		return nil, err
	}
	return &poller{conn: conn, ask: question(apex, typeSOA), buf: make([]byte, 4096)}, nil
}

func (p *poller) close() error { return p.conn.Close() }

// serial asks once; false where no answer came.
func (p *poller) serial() (uint32, bool) {
	if p.conn.SetDeadline(time.Now().Add(500*time.Millisecond)) != nil {
		return 0, false
	}
	p.ask[1]++ // a late answer to an earlier question is none
	if _, err := p.conn.Write(p.ask); err != nil {
		return 0, false
	}
	for {
		n, err := p.conn.Read(p.buf)
		if err != nil {
			return 0, false
		}
		if n < 2 || p.buf[1] != p.ask[1] {
			continue
		}
		serial, err := serialOf(p.buf[:n])
		return serial, err == nil
	}
}

// change makes a change, tells the server of it, and waits until it answers
// with another serial.
func (p *poller) change(ctx context.Context, s *server, notify func() error, change func()) (time.Duration, error) {
	old, ok := p.serial()
	for !ok && ctx.Err() == nil {
		old, ok = p.serial()
	}
	change()
	told := make(chan error, 1)
	begun := time.Now()
	go func() { told <- notify() }()
	for {
		if serial, ok := p.serial(); ok && serial != old {
			took := time.Since(begun)
			return took, <-told
		}
		select {
		case <-s.exited:
			return 0, s.ended()
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(pollEvery):
		}
		if time.Since(begun) > livePatience {
			return 0, context.DeadlineExceeded
		}
	}
}

// resident is the memory that a process holds now.
func resident(pid int) int64 {
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return n << 10
		}
	}
	return 0
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
