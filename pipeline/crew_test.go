package pipeline

import (
	"context"
	"errors"
	"fmt"
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

// allHold waits until each of the workers named, which have all roles, holds what
// it is to hold among them.
func (c *crew) allHold(names ...string) {
	c.t.Helper()
	until(c.t, "the work is shared among "+strings.Join(names, ", "), func() bool {
		st, err := c.coord.Standing(c.t.Context())
		if err != nil {
			return false
		}
		holders := map[string]string{}
		for _, l := range st.Leases {
			holders[l.Name] = l.Holder
		}
		for _, role := range ownedRoles() {
			for p := range Partitions {
				if at := (duty{role, p}); holders[at.lease()] != rendezvous(names, at) {
					return false
				}
			}
		}
		return true
	})
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
