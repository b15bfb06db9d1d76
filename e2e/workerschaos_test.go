package e2e

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/pipeline"
)

// cable is the way of a worker to the journal; pulled, nothing passes either
// way, and neither side is told.
type cable struct {
	to     string
	listen net.Listener

	mu     sync.Mutex
	pulled chan struct{} // guarded by mu; nil while it is in, closed when it is plugged in again
	ends   []net.Conn    // guarded by mu
}

func newCable(t *testing.T, to string) *cable {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{to: to, listen: l}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			work.Go(func() { c.carry(conn, &work) })
		}
	})
	t.Cleanup(func() {
		c.plug()
		_ = l.Close()
		c.mu.Lock()
		for _, end := range c.ends {
			_ = end.Close()
		}
		c.mu.Unlock()
		work.Wait()
	})
	return c
}

func (c *cable) carry(near net.Conn, work *sync.WaitGroup) {
	c.wait()
	far, err := net.Dial("tcp", c.to)
	if err != nil {
		_ = near.Close()
		return
	}
	c.mu.Lock()
	c.ends = append(c.ends, near, far)
	c.mu.Unlock()
	pass := func(to, from net.Conn) {
		buf := make([]byte, 32<<10)
		for {
			n, err := from.Read(buf)
			c.wait()
			if n > 0 {
				if _, werr := to.Write(buf[:n]); werr != nil {
					err = werr
				}
			}
			if err != nil {
				_, _ = near.Close(), far.Close()
				return
			}
		}
	}
	work.Go(func() { pass(far, near) })
	work.Go(func() { pass(near, far) })
}

// wait blocks while the cable is pulled.
func (c *cable) wait() {
	c.mu.Lock()
	pulled := c.pulled
	c.mu.Unlock()
	if pulled != nil {
		<-pulled
	}
}

func (c *cable) pull() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pulled == nil {
		c.pulled = make(chan struct{})
	}
}

func (c *cable) plug() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pulled != nil {
		close(c.pulled)
		c.pulled = nil
	}
}

// crew is a main process with the journal, and workers on it.
type crew struct {
	t       *testing.T
	dir     string
	main    *daemon
	workers []*crewWorker
	zones   []string
	version map[string]int
}

type crewWorker struct {
	c     *crew
	name  string
	creds string
	data  string
	addr  string
	cable *cable
	*process
}

// start starts the worker, anew after kill.
func (w *crewWorker) start() {
	w.c.t.Helper()
	w.process = start(w.c.t, w.name, program(w.c.t), "worker", "--creds", w.creds, "--nats-url", "tls://"+w.cable.listen.Addr().String(),
		"--data", w.data, "--listen", w.addr)
}

// workersPolicy signs with a slow algorithm, so that workers die while they do.
func workersPolicy(denial string) string {
	return denialPolicy(denial) + "[signer]\nserial-policy = \"counter\"\n[key-manager.generation]\nalgorithm = \"RSASHA256\"\n"
}

func newCrew(t *testing.T, zones int) *crew {
	t.Helper()
	dir := shortDir(t)
	c := &crew{t: t, dir: dir, version: map[string]int{}}
	policies := filepath.Join(dir, "policies")
	if err := os.Mkdir(policies, 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(policies, "default.toml"), workersPolicy("nsec"))
	writeFile(t, filepath.Join(policies, "other.toml"), workersPolicy("nsec3"))
	nats := freeAddr(t)
	c.main = &daemon{data: filepath.Join(dir, "main"), addr: freeAddr(t), flags: []string{
		"--policy-dir", policies, "--nats-listen", nats, "--roles", "keys,observe,publish",
	}}
	c.main.start(t)
	c.main.awaitHealth(t)
	for _, name := range []string{"w1", "w2", "w3"} {
		w := &crewWorker{
			c: c, name: name, creds: filepath.Join(dir, name+".creds"), data: filepath.Join(dir, name), addr: freeAddr(t), cable: newCable(t, nats),
		}
		c.main.must(t, "worker", "enroll", name, "--roles", "load,review,sign,publish", "-o", w.creds)
		w.start()
		c.workers = append(c.workers, w)
	}
	for i := range zones {
		name := fmt.Sprintf("z%d.example.", i)
		c.zones = append(c.zones, name)
		c.write(name)
		c.main.must(t, "zone", "add", name, "--source", c.source(name), "--no-wait")
	}
	return c
}

// allRun ends the test where a process has ended by itself.
func (c *crew) allRun() {
	c.t.Helper()
	for _, w := range c.workers {
		if !w.running() {
			c.t.Fatalf("%s has ended by itself", w.name)
		}
	}
}

// awaitHealth waits until the daemon answers.
func (d *daemon) awaitHealth(t *testing.T) {
	t.Helper()
	await(t, "the daemon is well", time.Minute, func() (bool, string) {
		r := d.cli(t, "health")
		return r.code == 0, r.String()
	})
}

func (c *crew) source(name string) string { return filepath.Join(c.dir, name+"zone") }

// write gives a zone new contents.
func (c *crew) write(name string) string {
	c.t.Helper()
	c.version[name]++
	mark := fmt.Sprintf("version %d of %s", c.version[name], name)
	replaceFile(c.t, c.source(name), func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "$TTL 3600\n@ IN SOA ns1 hostmaster %d 7200 3600 1209600 300\n IN NS ns1\nns1 IN A 192.0.2.1\nmark IN TXT %q\n", c.version[name], mark)
		for i := range 60 {
			if err == nil {
				_, err = fmt.Fprintf(w, "host%d IN A 192.0.2.%d\n", i, i)
			}
		}
		return err
	})
	return mark
}

// sighting is a version that somebody served.
type sighting struct {
	zone   string
	serial uint32
}

// watching is what the workers were seen to serve: each zone is followed by SOA and
// AXFR, as secondaries do.
type watching struct {
	mu     sync.Mutex
	seen   map[sighting][32]byte        // guarded by mu; the records
	last   map[string]map[string]uint32 // guarded by mu; by server and zone
	faults []string                     // guarded by mu
}

// follow looks at all zones of a server until done closes.
func (s *watching) follow(name, addr string, zones []string, done <-chan struct{}) {
	for {
		for _, zone := range zones {
			select {
			case <-done:
				return
			default:
			}
			s.look(name, addr, zone)
		}
		select {
		case <-done:
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// look takes a version of a zone that this server has not shown before.
func (s *watching) look(name, addr, zone string) {
	serial, err := serialAt(addr, zone)
	if err != nil {
		return // it is dead, stopped, or not ready
	}
	s.mu.Lock()
	last := s.last[name][zone]
	s.mu.Unlock()
	if serial == last {
		return
	}
	m := new(dns.Msg)
	m.SetAxfr(zone)
	msgs, _, err := transfer(addr, m)
	if err != nil {
		return
	}
	var rrs []dns.RR
	for _, m := range msgs {
		rrs = append(rrs, m.Answer...)
	}
	soa, ok := rrs[0].(*dns.SOA)
	if !ok {
		return
	}
	sum := sha256.Sum256([]byte(strings.Join(records(rrs[:len(rrs)-1]), "\n")))
	s.mu.Lock()
	defer s.mu.Unlock()
	if last != 0 && int32(soa.Serial-last) < 0 {
		s.faults = append(s.faults, fmt.Sprintf("%s went back from serial %d to %d of %s", name, last, soa.Serial, zone))
	}
	at := sighting{zone, soa.Serial}
	if before, ok := s.seen[at]; ok && before != sum {
		s.faults = append(s.faults, fmt.Sprintf("serial %d of %s was served with different records", soa.Serial, zone))
	}
	s.seen[at] = sum
	if s.last[name] == nil {
		s.last[name] = map[string]uint32{}
	}
	s.last[name][zone] = soa.Serial
}

// acknowledged are the events that the main process has shown, by sequence.
func (c *crew) acknowledged(zone string, known map[uint64]string) {
	c.t.Helper()
	r := c.main.cli(c.t, "zone", "history", zone, "--json")
	if r.code != 0 {
		c.t.Fatalf("history: %v", r)
	}
	for line := range strings.Lines(r.stdout) {
		var l struct {
			Seq   uint64          `json:"seq"`
			Event json.RawMessage `json:"event"`
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			c.t.Fatal(err)
		}
		known[l.Seq] = string(l.Event)
	}
}

// checkJournal holds the journal, whose processes have all ended, against what
// must never happen.
func (c *crew) checkJournal(s *watching, known map[uint64]string) {
	c.t.Helper()
	j, err := journal.Open(c.t.Context(), journal.Config{Dir: filepath.Join(c.main.data, "journal")})
	if err != nil {
		c.t.Fatal(err)
	}
	defer j.Close()
	rep, err := journal.Verify(c.t.Context(), j, journal.VerifyOptions{})
	if err != nil || len(rep.Faults) > 0 {
		c.t.Errorf("verify: %v, %+v", err, rep.Faults)
	}
	names := map[event.ZoneID]string{}
	epochs := map[event.ZoneID]map[pipeline.Role]uint64{}
	serials := map[string]uint32{}
	published := map[sighting]bool{}
	found, grants := 0, map[string]int{}
	err = j.Read(c.t.Context(), "", 1, 0, func(rec journal.Record) error {
		if line, ok := known[rec.Seq]; ok {
			if found++; line != string(rec.Line) {
				c.t.Errorf("event %d is another one: %s, it was %s", rec.Seq, rec.Line, line)
			}
		}
		id, role := rec.Event.Zone, pipeline.RoleOfEvent(rec.Event.Facts)
		if epochs[id] == nil {
			epochs[id] = map[pipeline.Role]uint64{}
		}
		switch f := rec.Event.Facts.(type) {
		case *event.ZoneAdded:
			names[f.ID] = f.Name
		case *event.WorkerGranted:
			if f.Epoch != epochs[id][role]+1 {
				c.t.Errorf("event %d grants epoch %d of %s after %d", rec.Seq, f.Epoch, role, epochs[id][role])
			}
			epochs[id][role] = f.Epoch
			grants[f.Worker]++
			return nil
		}
		if role != "" && rec.Event.Actor == event.Program && rec.Event.Epoch != epochs[id][role] {
			c.t.Errorf("event %d, %s, has epoch %d, in force is %d", rec.Seq, rec.Event.Type, rec.Event.Epoch, epochs[id][role])
		}
		if f, ok := rec.Event.Facts.(*event.InstancePublished); ok {
			name := names[id]
			if last, ok := serials[name]; ok && int32(f.Serial-last) <= 0 {
				c.t.Errorf("event %d publishes serial %d of %s after %d", rec.Seq, f.Serial, name, last)
			}
			serials[name] = f.Serial
			published[sighting{name, f.Serial}] = true
		}
		return nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
	if found != len(known) {
		c.t.Errorf("%d of %d events that were shown are there", found, len(known))
	}
	for at := range s.seen {
		if !published[at] {
			c.t.Errorf("serial %d of %s was served and never published", at.serial, at.zone)
		}
	}
	c.t.Logf("%d versions published, %d seen; grants %v", len(published), len(s.seen), grants)
}

// TestWorkers_Chaos kills workers, stops them for longer than their leases and
// cuts them off while zones and policies change, and holds the journal and what
// secondaries received against what must never happen.
func TestWorkers_Chaos(t *testing.T) {
	t.Parallel()
	span, zones := 12*time.Second, 4
	if long() {
		span, zones = 10*time.Minute, 200
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := new(dice(seed))
	c := newCrew(t, zones)
	for _, zone := range c.zones {
		for _, w := range c.workers {
			await(t, w.name+" serves "+zone, 3*time.Minute, func() (bool, string) {
				c.allRun()
				serial, err := serialAt(w.addr, zone)
				return err == nil && serial != 0, fmt.Sprint(err)
			})
		}
	}
	watch := &watching{seen: map[sighting][32]byte{}, last: map[string]map[string]uint32{}}
	done := make(chan struct{})
	var work sync.WaitGroup
	for _, w := range c.workers {
		work.Go(func() { watch.follow(w.name, w.addr, c.zones, done) })
	}
	known := map[uint64]string{}
	c.disturb(random, span, known)
	for _, w := range c.workers {
		w.cable.plug()
	}
	c.settle()
	close(done)
	work.Wait()
	for _, fault := range watch.faults {
		t.Error(fault)
	}
	for _, w := range c.workers {
		w.stop()
	}
	c.main.stop()
	c.checkJournal(watch, known)
}

// disturb does what can go wrong, and what is asked for, in no order.
func (c *crew) disturb(random *dice, span time.Duration, known map[uint64]string) {
	c.t.Helper()
	end := time.Now().Add(span)
	done := map[string]int{}
	// One worker at a time is stopped or cut off for longer than its leases.
	var away *crewWorker
	var back time.Time
	var comes func()
	for time.Now().Before(end) {
		if away != nil && time.Now().After(back) {
			comes()
			away = nil
		}
		zone := c.zones[random.throw(len(c.zones))]
		w := c.workers[random.throw(len(c.workers))]
		switch op := random.throw(12); {
		case op < 5:
			c.write(zone)
			done["reload"]++
			c.main.cli(c.t, "zone", "reload", zone, "--no-wait") // exit code 4 where nobody has the work just now
		case op < 7:
			done["resign"]++
			c.main.cli(c.t, "zone", "resign", zone, "--no-wait")
		case op < 9:
			done["policy"]++
			c.main.must(c.t, "zone", "set", zone, "--policy", []string{"default", "other"}[random.throw(2)], "--no-wait")
		case op == 9 && w != away:
			done["kill"]++
			w.kill()
			w.start()
		case op == 10 && away == nil:
			done["stop"]++
			pid := w.cmd.Process.Pid
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				c.t.Fatal(err)
			}
			away, back = w, time.Now().Add(journal.DefaultLease+2*time.Second)
			comes = func() { _ = syscall.Kill(pid, syscall.SIGCONT) }
		case op == 11 && away == nil:
			done["cut"]++
			w.cable.pull()
			away, back = w, time.Now().Add(journal.DefaultLease+2*time.Second)
			comes = w.cable.plug
		}
		if random.throw(4) == 0 {
			c.acknowledged(zone, known)
		}
		<-time.After(time.Duration(random.throw(400)) * time.Millisecond)
	}
	if away != nil {
		comes()
	}
	c.t.Logf("done: %v", done)
}

// settle gives each zone its last contents, and waits until every worker serves
// them.
func (c *crew) settle() {
	c.t.Helper()
	for _, zone := range c.zones {
		mark := c.write(zone)
		await(c.t, "the reload of "+zone+" is taken", time.Minute, func() (bool, string) {
			r := c.main.cli(c.t, "zone", "reload", zone, "--no-wait")
			return r.code == 0, r.String()
		})
		for _, w := range c.workers {
			await(c.t, w.name+" serves the last "+zone, 2*time.Minute, func() (bool, string) {
				c.allRun()
				m := new(dns.Msg)
				m.SetAxfr(zone)
				msgs, _, err := transfer(w.addr, m)
				for _, m := range msgs {
					for _, rr := range m.Answer {
						if txt, ok := rr.(*dns.TXT); ok && len(txt.Txt) > 0 {
							return txt.Txt[0] == mark, txt.String()
						}
					}
				}
				return false, fmt.Sprint(err)
			})
		}
	}
}
