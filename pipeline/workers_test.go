package pipeline

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/journal/journaltest"
	"sluice/keymgr"
	"sluice/keymgr/file"
	"sluice/pipeline/observe"
)

// crew is several engines on one journal.
type crew struct {
	t       *testing.T
	dir     string
	journal journal.Journal
	coord   journal.Coordinator
	keys    keymgr.Keystore
	all     []*worker
}

// worker is one engine of a crew.
type worker struct {
	c    *crew
	name string
	e    *Engine
	cut  *cutCoordinator
	stop func()
	done chan struct{} // closed once Run has returned
}

// cutCoordinator can be cut off from the others.
type cutCoordinator struct {
	journal.Coordinator
	away atomic.Bool
}

func (c *cutCoordinator) err() error {
	if c.away.Load() {
		return journal.ErrStorage
	}
	return nil
}

func (c *cutCoordinator) TakeLease(ctx context.Context, name, holder string) (journal.Lease, error) {
	if err := c.err(); err != nil {
		return journal.Lease{}, err
	}
	return c.Coordinator.TakeLease(ctx, name, holder)
}

func (c *cutCoordinator) RenewLease(ctx context.Context, l journal.Lease) (journal.Lease, error) {
	if err := c.err(); err != nil {
		return journal.Lease{}, err
	}
	return c.Coordinator.RenewLease(ctx, l)
}

func (c *cutCoordinator) ReleaseLease(ctx context.Context, l journal.Lease) error {
	if err := c.err(); err != nil {
		return err
	}
	return c.Coordinator.ReleaseLease(ctx, l)
}

func (c *cutCoordinator) Announce(ctx context.Context, worker string, about []byte) error {
	if err := c.err(); err != nil {
		return err
	}
	return c.Coordinator.Announce(ctx, worker, about)
}

func (c *cutCoordinator) Leave(ctx context.Context, worker string) error {
	if err := c.err(); err != nil {
		return err
	}
	return c.Coordinator.Leave(ctx, worker)
}

func (c *cutCoordinator) Standing(ctx context.Context) (journal.Standing, error) {
	if err := c.err(); err != nil {
		return journal.Standing{}, err
	}
	return c.Coordinator.Standing(ctx)
}

func (c *cutCoordinator) Ask(ctx context.Context, subject string, data []byte) ([]byte, error) {
	if err := c.err(); err != nil {
		return nil, err
	}
	return c.Coordinator.Ask(ctx, subject, data)
}

const crewLease = 500 * time.Millisecond

func newCrew(t *testing.T) *crew {
	t.Helper()
	return crewOn(t, journaltest.New(), journaltest.NewCoordinator(crewLease))
}

func crewOn(t *testing.T, j journal.Journal, coord journal.Coordinator) *crew {
	t.Helper()
	c := &crew{t: t, dir: t.TempDir(), journal: j, coord: coord}
	ks, err := file.Open(file.Config{Dir: filepath.Join(c.dir, "keys")})
	if err != nil {
		t.Fatal(err)
	}
	c.keys = ks
	return c
}

// add starts a worker with roles, "" for all, whose configuration change may
// alter.
func (c *crew) add(name, roles string, change func(*Config)) *worker {
	c.t.Helper()
	list, err := ParseRoles(roles)
	if err != nil {
		c.t.Fatal(err)
	}
	w := &worker{c: c, name: name, cut: &cutCoordinator{Coordinator: c.coord}, done: make(chan struct{})}
	cfg := Config{
		Journal: c.journal, Keystore: c.keys, StoreDir: filepath.Join(c.dir, name, "projections"), SpillDir: filepath.Join(c.dir, name, "spill"),
		RunDir: filepath.Join(c.dir, name, "run"), Logger: testLogger(c.t), Worker: name, Roles: list, Coordinator: w.cut,
	}
	if change != nil {
		change(&cfg)
	}
	if w.e, err = NewEngine(c.t.Context(), cfg); err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	failed := make(chan error, 1)
	go func() {
		failed <- w.e.Run(ctx)
		close(w.done)
	}()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-failed, w.e.Close()); err != nil {
			c.t.Errorf("worker %s ended with %v", name, err)
		}
	})
	c.t.Cleanup(w.stop)
	until(c.t, name+" is ready", func() bool { return w.e.Health(c.t.Context()) == nil })
	c.all = append(c.all, w)
	return w
}

// kill ends a worker without its taking leave.
func (w *worker) kill() {
	w.cut.away.Store(true)
	w.stop()
	w.c.all = slices.DeleteFunc(w.c.all, func(o *worker) bool { return o == w })
}

// zone adds a zone through a worker.
func (w *worker) zone(name, text string) {
	w.c.t.Helper()
	r := &rig{t: w.c.t, dir: filepath.Join(w.c.dir)}
	path := r.zoneFile(text)
	own := filepath.Join(w.c.dir, name+".zone")
	w.c.rename(path, own)
	if _, err := w.e.AddZone(w.c.t.Context(), testActor, NewZone{Name: name, Source: own}); err != nil {
		w.c.t.Fatal(err)
	}
}

// published is the serial that a worker serves of a zone; 0 for none.
func (w *worker) published(name string) uint32 {
	st, err := w.e.Zone(w.c.t.Context(), name)
	if err != nil || st.Published == nil {
		return 0
	}
	return st.Published.Serial
}

func (w *worker) state(name string) State {
	w.c.t.Helper()
	r, err := w.e.find(name)
	if err != nil {
		w.c.t.Fatal(err)
	}
	return r.snapshot()
}

func (c *crew) rename(from, to string) {
	c.t.Helper()
	if err := os.Rename(from, to); err != nil {
		c.t.Fatal(err)
	}
}

// allServe waits until every worker serves some version of a zone.
func (c *crew) allServe(names ...string) {
	c.t.Helper()
	for _, name := range names {
		for _, w := range c.all {
			until(c.t, w.name+" serves "+name, func() bool { return w.published(name) != 0 })
		}
	}
}

// events are all events of the zones, in order.
func (c *crew) events() []journal.Record {
	c.t.Helper()
	var out []journal.Record
	if err := c.journal.Read(c.t.Context(), "", 1, 0, func(rec journal.Record) error {
		out = append(out, rec)
		return nil
	}); err != nil {
		c.t.Fatal(err)
	}
	return out
}

// check holds the journal against what must never happen: epochs go down, a
// stale one counts, a serial is published twice.
func (c *crew) check() (stale int) {
	c.t.Helper()
	serials := map[event.ZoneID]map[uint32]bool{}
	epochs := map[event.ZoneID]map[Role]uint64{}
	for _, rec := range c.events() {
		id := rec.Event.Zone
		if epochs[id] == nil {
			epochs[id], serials[id] = map[Role]uint64{}, map[uint32]bool{}
		}
		role := RoleOfEvent(rec.Event.Facts)
		if f, ok := rec.Event.Facts.(*event.WorkerGranted); ok && f.Epoch == epochs[id][role]+1 {
			epochs[id][role] = f.Epoch
			continue
		}
		if role != "" && rec.Event.Actor == event.Program && rec.Event.Epoch != epochs[id][role] {
			stale++
			continue
		}
		if f, ok := rec.Event.Facts.(*event.InstancePublished); ok {
			if serials[id][f.Serial] {
				c.t.Errorf("serial %d of zone %s was published twice, event %d", f.Serial, id, rec.Seq)
			}
			serials[id][f.Serial] = true
		}
	}
	return stale
}

// servedBy is what a worker serves of a zone, signatures aside.
func (w *worker) servedBy(name string) string {
	w.c.t.Helper()
	var b strings.Builder
	if err := w.e.Dump(w.c.t.Context(), name, DumpQuery{}, &b); err != nil {
		w.c.t.Fatal(err)
	}
	return b.String()
}

func zoneNames(n int) []string {
	names := make([]string, 0, n)
	for i := range n {
		names = append(names, fmt.Sprintf("z%d.example.", i))
	}
	return names
}

func TestWorkers_ShareTheWorkOfZones(t *testing.T) {
	t.Run("in memory", func(t *testing.T) { shareTheWork(t, newCrew(t)) })
	t.Run("over NATS", func(t *testing.T) {
		j, err := journal.Open(t.Context(), journal.Config{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := j.Close(); err != nil {
				t.Error(err)
			}
		})
		coord, err := j.Coordinator(t.Context(), 2*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		shareTheWork(t, crewOn(t, j, coord))
	})
}

func shareTheWork(t *testing.T, c *crew) {
	t.Helper()
	a, b := c.add("a", "", nil), c.add("b", "", nil)
	names := zoneNames(12)
	for _, name := range names {
		a.zone(name, smallZone)
	}
	c.allServe(names...)
	did := map[string]int{}
	for _, name := range names {
		for _, g := range a.state(name).Grants {
			did[g.Worker]++
		}
		if got, want := b.servedBy(name), a.servedBy(name); got != want {
			t.Errorf("%s: the two serve different versions", name)
		}
	}
	if did["a"] == 0 || did["b"] == 0 {
		t.Errorf("the work was not shared: %v", did)
	}
	if stale := c.check(); stale != 0 {
		t.Errorf("%d stale events", stale)
	}
}

func TestWorkers_RolesApartPublishTheSame(t *testing.T) {
	text := strings.Replace(smallZone, "7 7200", "41 7200", 1)
	one := newCrew(t)
	alone := one.add("main", "", nil)
	alone.zone("example.com.", text)
	one.allServe("example.com.")

	c := newCrew(t)
	load := c.add("loads", "load,review", nil)
	c.add("signs", "sign,keys", nil)
	c.add("looks", "observe", nil)
	out := c.add("out", "publish", nil)
	load.zone("example.com.", text)
	c.allServe("example.com.")
	want, got := unsignedLines(alone.servedBy("example.com.")), unsignedLines(out.servedBy("example.com."))
	if !slices.Equal(want, got) {
		t.Errorf("apart: %q\nalone: %q", got, want)
	}
	who := map[Role]string{}
	for role, g := range out.state("example.com.").Grants {
		who[role] = g.Worker
	}
	if want := map[Role]string{RoleLoad: "loads", RoleKeys: "signs", RoleSign: "signs", RolePublish: "out"}; !maps.Equal(who, want) {
		t.Errorf("granted to %v, want %v", who, want)
	}
}

// unsignedLines are the lines of a zone that do not depend on keys or serials.
func unsignedLines(text string) []string {
	var out []string
	for line := range strings.Lines(text) {
		skip := strings.HasPrefix(line, ";") || strings.Contains(line, "RRSIG") || strings.Contains(line, "DNSKEY") || strings.Contains(line, "SOA")
		if !skip {
			out = append(out, line)
		}
	}
	return out
}

// gate is a keystore whose signers wait while it is shut, or panic.
type gate struct {
	keymgr.Keystore
	mu     sync.Mutex
	shut   chan struct{} // guarded by mu; nil while open
	met    chan struct{} // guarded by mu; closed when somebody waits
	panics bool          // guarded by mu
}

func (g *gate) Signer(ctx context.Context, ref string) (crypto.Signer, error) {
	g.mu.Lock()
	shut, met, panics := g.shut, g.met, g.panics
	g.met = nil
	g.mu.Unlock()
	if panics {
		panic("the token driver is broken")
	}
	if shut != nil {
		if met != nil {
			close(met)
		}
		<-shut // a process that is stopped heeds no context
	}
	return g.Keystore.Signer(ctx, ref)
}

// close shuts the gate; met closes when somebody waits at it, open opens it.
func (g *gate) close() (met <-chan struct{}, open func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	shut, at := make(chan struct{}), make(chan struct{})
	g.shut, g.met = shut, at
	return at, sync.OnceFunc(func() {
		g.mu.Lock()
		g.shut = nil
		g.mu.Unlock()
		close(shut)
	})
}

// The zombie: a worker stops in the middle of signing, longer than its lease,
// another takes its work over, and then it goes on.
func TestWorkers_TheZombiesResultDoesNotCount(t *testing.T) {
	c := newCrew(t)
	g := &gate{Keystore: c.keys}
	a := c.add("a", "", func(cfg *Config) { cfg.Keystore = g })
	a.zone("example.com.", smallZone)
	c.allServe("example.com.")
	first := a.published("example.com.")

	met, open := g.close()
	t.Cleanup(open)
	changed := strings.Replace(smallZone, "192.0.2.80", "192.0.2.81", 1)
	c.rename((&rig{t: t, dir: c.dir}).zoneFile(changed), filepath.Join(c.dir, "example.com..zone"))
	if err := a.e.Reload(t.Context(), testActor, "example.com.", false); err != nil {
		t.Fatal(err)
	}
	<-met // a is about to sign
	a.cut.away.Store(true)
	b := c.add("b", "", nil)
	until(t, "b has published", func() bool { return b.published("example.com.") > first })
	if g := b.state("example.com.").Grants[RoleSign]; g.Worker != "b" || g.Epoch != 2 {
		t.Fatalf("signing was granted as %+v", g)
	}
	now := b.published("example.com.")
	a.cut.away.Store(false)
	open() // a finishes what it began
	r, err := a.e.find("example.com.")
	if err != nil {
		t.Fatal(err)
	}
	until(t, "a has given up", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return !r.lanes[SigningLane].busy && r.state.Published.Signed.Facts.Serial == now
	})
	signed := 0
	for _, rec := range c.events() {
		if _, ok := rec.Event.Facts.(*event.InstanceSigned); ok {
			signed++
		}
	}
	if signed != 2 || b.published("example.com.") != now {
		t.Errorf("%d instances signed, want 2; serial %d, want %d", signed, b.published("example.com."), now)
	}
	if stale := c.check(); stale != 0 || a.state("example.com.").Stale != 0 {
		t.Errorf("%d stale events", stale)
	}
}

// What a zombie writes all the same, past every check of its own, is passed
// over by everybody, and at replay.
func TestWorkers_StaleEpochsArePassedOver(t *testing.T) {
	c := newCrew(t)
	a := c.add("a", "", nil)
	a.zone("example.com.", smallZone)
	c.allServe("example.com.")
	s := a.state("example.com.")
	var signed event.InstanceSigned
	for _, rec := range c.events() {
		if f, ok := rec.Event.Facts.(*event.InstanceSigned); ok {
			signed = *f
		}
	}
	a.kill()
	b := c.add("b", "", nil)
	r, err := b.e.find("example.com.")
	if err != nil {
		t.Fatal(err)
	}
	until(t, "b owns the zone", func() bool { return b.e.owns(RoleSign, r.id) && b.e.owns(RolePublish, r.id) })
	for _, role := range []Role{RoleSign, RolePublish} {
		if err := r.takeUp(t.Context(), role); err != nil {
			t.Fatal(err)
		}
	}
	head := b.state("example.com.").Head
	signed.Serial += 10
	signed.Previous = s.Signed.Facts.Serial
	for _, f := range []event.Facts{&signed, &event.InstancePublished{Signed: s.Signed.Seq, Loaded: s.Loaded.Seq, Serial: s.Signed.Facts.Serial, SignedDigest: s.Signed.Facts.SignedDigest}} {
		ev := event.New(time.Now(), s.Zone, event.Program, f)
		ev.Epoch = 1
		if head, err = c.journal.Append(t.Context(), s.Zone, head, ev); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "b has folded it", func() bool { return b.state("example.com.").Head.Seq >= head.Seq })
	now := b.state("example.com.")
	if now.Stale != 2 || now.Signed.Seq != s.Signed.Seq || now.Published.Seq != s.Published.Seq {
		t.Errorf("stale %d, signed s%d (was s%d), published %d (was %d)", now.Stale, now.Signed.Seq, s.Signed.Seq, now.Published.Seq, s.Published.Seq)
	}
	st, err := b.e.Zone(t.Context(), "example.com.")
	if err != nil || !slices.ContainsFunc(st.Notices, func(n Notice) bool { return strings.Contains(n.Text, "passed over: 2") }) {
		t.Errorf("status says nothing of them: %+v, %v", st.Notices, err)
	}
	if got := c.check(); got != 2 {
		t.Errorf("%d stale events in the journal, want 2", got)
	}
	if err := b.e.Replay(t.Context(), "example.com.", "", true, nil, func(ReplayStep) error { return nil }); err != nil {
		t.Errorf("replay: %v", err)
	}
	if err := b.e.Resign(t.Context(), testActor, "example.com.", false); err != nil {
		t.Fatal(err)
	}
	until(t, "b signs on", func() bool { return b.published("example.com.") > s.Signed.Facts.Serial })
}

func TestWorkers_TheWorkOfADeadOneIsTakenOver(t *testing.T) {
	c := newCrew(t)
	a, b := c.add("a", "", nil), c.add("b", "", nil)
	names := zoneNames(6)
	for _, name := range names {
		b.zone(name, smallZone)
	}
	c.allServe(names...)
	a.kill()
	for _, name := range names {
		was := b.published(name)
		until(t, "a's lease of "+name+" is over", func() bool {
			return b.e.owns(RoleSign, b.state(name).Zone) && b.e.owns(RolePublish, b.state(name).Zone)
		})
		if err := b.e.Resign(t.Context(), testActor, name, false); err != nil {
			t.Fatal(err)
		}
		until(t, name+" is published again", func() bool { return b.published(name) > was })
	}
	if stale := c.check(); stale != 0 {
		t.Errorf("%d stale events", stale)
	}
}

func TestWorkers_RequestsReachTheOwner(t *testing.T) {
	c := newCrew(t)
	asked := make(chan observe.Question, 8)
	c.add("works", "load,review,sign,keys,publish", nil)
	idle := c.add("idle", "observe", func(cfg *Config) {
		cfg.Observe = func(_ context.Context, q observe.Question) keymgr.Observation {
			asked <- q
			return keymgr.Observation{At: q.Now, Zone: []keymgr.Seen{{Server: "ns1.example.com.", Serial: 7}}}
		}
	})
	idle.zone("example.com.", smallZone)
	if st, err := idle.e.Await(t.Context(), "example.com.", nil); err != nil || st.Published == nil {
		t.Fatalf("await on a process that does none of it: %+v, %v", st, err)
	}
	first := idle.published("example.com.")
	if err := idle.e.Resign(t.Context(), testActor, "example.com.", false); err != nil {
		t.Fatal(err)
	}
	if st, err := idle.e.Await(t.Context(), "example.com.", nil); err != nil || st.Published.Serial <= first {
		t.Fatalf("signed again elsewhere: %+v, %v", st.Published, err)
	}
	if err := idle.e.Reload(t.Context(), testActor, "example.com.", false); err != nil {
		t.Fatal(err)
	}
	st, err := idle.e.Observe(t.Context(), "example.com.")
	if err != nil {
		t.Fatal(err)
	}
	if q := <-asked; q.Zone.String() != "example.com." || len(q.Samples) == 0 {
		t.Errorf("asked %+v", q)
	}
	if st.Observation == nil || len(st.Observation.Zone) == 0 {
		t.Errorf("observation %+v", st.Observation)
	}
	if err := idle.e.NotifySecondaries(t.Context(), "example.com."); !errors.Is(err, ErrState) {
		t.Errorf("notify with nobody to tell: %v, want ErrState", err)
	}
	if _, err := idle.e.GenerateKey(t.Context(), testActor, "example.com.", keymgr.ZSK, "", ""); !errors.Is(err, ErrState) {
		t.Errorf("a key where no keys are kept: %v, want ErrState", err)
	}
}

func TestWorkers_NobodyHoldsARole(t *testing.T) {
	c := newCrew(t)
	w := c.add("w", "sign,keys,publish", nil)
	w.zone("example.com.", smallZone)
	err := w.e.Reload(t.Context(), testActor, "example.com.", false)
	if !errors.Is(err, ErrState) || !strings.Contains(err.Error(), "nobody holds role load") {
		t.Errorf("got %v", err)
	}
	until(t, "that is said in the status", func() bool {
		st, err := w.e.Zone(t.Context(), "example.com.")
		return err == nil && slices.ContainsFunc(st.Notices, func(n Notice) bool { return strings.Contains(n.Text, "load, review") })
	})
	ws, err := w.e.Workers(t.Context())
	if err != nil || len(ws.Workers) != 1 || !ws.Workers[0].This || ws.Unheld[RoleLoad] != Partitions || ws.Workers[0].Holds[RoleSign] != Partitions {
		t.Errorf("workers %+v, %v", ws, err)
	}
}

func TestWorkers_OneNameOneProcess(t *testing.T) {
	c := newCrew(t)
	a := c.add("a", "", nil)
	until(t, "a lives", func() bool {
		st, err := c.coord.Standing(t.Context())
		return err == nil && len(st.Workers) == 1
	})
	other := &crew{t: t, dir: t.TempDir(), journal: c.journal, coord: c.coord, keys: c.keys}
	cfg := Config{
		Journal: c.journal, Keystore: c.keys, StoreDir: filepath.Join(other.dir, "projections"), SpillDir: filepath.Join(other.dir, "spill"),
		Logger: testLogger(t), Worker: "a", Coordinator: c.coord,
	}
	e, err := NewEngine(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "worker a") {
		t.Errorf("a second process under the name ended with %v", err)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if err := a.e.Health(t.Context()); err != nil {
		t.Error(err)
	}
}

// A process that shares its stream with nobody writes no grants; once one was
// written, it takes up the work before it goes on.
func TestWorkers_AloneAfterOthers(t *testing.T) {
	c := newCrew(t)
	a := c.add("a", "", nil)
	a.zone("example.com.", smallZone)
	c.allServe("example.com.")
	was := a.published("example.com.")
	a.stop()
	c.all = nil
	alone := c.add("main", "", func(cfg *Config) { cfg.Coordinator = nil })
	if err := alone.e.Resign(t.Context(), testActor, "example.com.", false); err != nil {
		t.Fatal(err)
	}
	until(t, "it is signed again", func() bool { return alone.published("example.com.") > was })
	s := alone.state("example.com.")
	if g := s.Grants[RoleSign]; g.Worker != "main" || g.Epoch != 2 || s.Stale != 0 {
		t.Errorf("grant %+v, stale %d", g, s.Stale)
	}
	alone.zone("other.example.", smallZone)
	until(t, "a new zone is published", func() bool { return alone.published("other.example.") != 0 })
	if g := alone.state("other.example.").Grants; len(g) != 0 {
		t.Errorf("grants without need: %v", g)
	}
}

func TestPoison_QuarantinesTheRole(t *testing.T) {
	j := journaltest.New()
	c := crewOn(t, j, journaltest.NewCoordinator(crewLease))
	g := &gate{Keystore: c.keys}
	w := c.add("main", "", func(cfg *Config) { cfg.Coordinator, cfg.Keystore = nil, g })
	w.zone("example.com.", smallZone)
	c.allServe("example.com.")
	was := w.published("example.com.")
	g.mu.Lock()
	g.panics = true
	g.mu.Unlock()
	r, err := w.e.find("example.com.")
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the role rests", func() bool {
		if _, rests := w.state("example.com.").Quarantines[RoleSign]; rests {
			return true
		}
		r.askResign(false) // does not wait for the back-off
		return false
	})
	q := w.state("example.com.").Quarantines[RoleSign]
	if q.Tries != maxTries || q.Command != "sign" || !strings.Contains(q.Error, "token driver") {
		t.Errorf("quarantine %+v", q)
	}
	st, err := w.e.Zone(t.Context(), "example.com.")
	if err != nil || !slices.ContainsFunc(st.Notices, func(n Notice) bool { return strings.Contains(n.Hint, "sluice zone reset") }) {
		t.Errorf("status says nothing: %+v, %v", st.Notices, err)
	}
	if w.published("example.com.") != was {
		t.Error("something was published")
	}
	g.mu.Lock()
	g.panics = false
	g.mu.Unlock()
	if _, err := w.e.Reset(t.Context(), testActor, "example.com.", "driver replaced"); err != nil {
		t.Fatal(err)
	}
	if err := w.e.Resign(t.Context(), testActor, "example.com.", false); err != nil {
		t.Fatal(err)
	}
	until(t, "it is signed again", func() bool { return w.published("example.com.") > was })
}

func TestIntents_CountWhatTheProcessDiedOf(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	c := Publish{Signed: 7}
	id := event.ZoneID("00000000000000aa")
	for tries := range maxTries + 1 {
		in, err := openIntents(dir) // a new process after the last one died
		if err != nil {
			t.Fatal(err)
		}
		before, err := in.begin(id, c)
		if err != nil || before.Tries != tries {
			t.Fatalf("start %d: %d tries before, %v", tries, before.Tries, err)
		}
	}
	in, err := openIntents(dir)
	if err != nil {
		t.Fatal(err)
	}
	if before, err := in.begin(id, Publish{Signed: 8}); err != nil || before.Tries != 0 {
		t.Errorf("another command: %+v, %v", before, err)
	}
	if err := in.end(id, Publish{Signed: 8}, intent{}, ""); err != nil {
		t.Fatal(err)
	}
	if in, err = openIntents(dir); err != nil || len(in.left) != 0 {
		t.Errorf("left after a good end: %v, %v", in.left, err)
	}
}
