package pipeline

import (
	"context"
	"crypto"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/pipeline/observe"
)

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
	// Who came first holds everything until it hears of the other.
	c.allHold("a", "b")
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
	until(t, "the roles that it has are held, and no others", func() bool {
		ws, err := w.e.Workers(t.Context())
		return err == nil && len(ws.Workers) == 1 && ws.Workers[0].This && ws.Unheld[RoleLoad] == Partitions && ws.Workers[0].Holds[RoleSign] == Partitions
	})
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
