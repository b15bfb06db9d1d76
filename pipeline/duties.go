package pipeline

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"sluice/journal"
	"sluice/journal/event"
)

// maxTaking bounds the leases that are taken, renewed or given up at a time.
const maxTaking = 32

// duty is the work of a role in a partition.
type duty struct {
	role      Role
	partition int
}

func (d duty) lease() string { return journal.LeaseName(string(d.role), d.partition) }

// holding is a lease that this process holds.
type holding struct {
	lease journal.Lease
	until time.Time // by the machine's clock; from then on nothing is begun
	// leaving: another worker is to have it, once what is under way has ended.
	leaving bool
	busy    int // commands under way
	stop    func()
}

// duties is the share of the work that this process holds, among the workers
// that live. Leases keep workers out of each other's way; what counts is the
// grants in the journal.
type duties struct {
	e     *Engine
	c     journal.Coordinator
	about aboutWorker
	// before is the run of this data directory before this one.
	before string

	handing atomic.Bool // requests are being handed on

	mu       sync.Mutex
	held     map[duty]*holding // guarded by mu
	free     chan struct{}     // asks for a round before its time
	standing journal.Standing  // guarded by mu; as read last
	holders  map[string]string // guarded by mu; of leases by name, as read last
	touched  time.Time         // guarded by mu; when the stream last answered
}

// aboutWorker is what a worker tells of itself.
type aboutWorker struct {
	Roles   []Role    `json:"worker_roles"`
	Since   time.Time `json:"since"`
	Version string    `json:"version,omitempty"`
	Folded  uint64    `json:"folded"`
	// Run names this run of the process, so that two under one name are told
	// apart.
	Run string `json:"run"`
	// Store: the journal's store is in this process.
	Store bool `json:"store,omitempty"`
	// Lacks is the partitions that it cannot sign for want of private keys.
	Lacks []int `json:"lacks,omitempty"`
}

func newDuties(e *Engine) (*duties, error) {
	var id [8]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, err
	}
	d := &duties{
		e: e, c: e.cfg.Coordinator, held: map[duty]*holding{}, free: make(chan struct{}, 1), touched: machineTime(),
		about: aboutWorker{
			Roles: e.roles, Since: e.since, Version: e.cfg.Version,
			Run: fmt.Sprintf("%x", id), Store: !e.cfg.Remote,
		},
	}
	var err error
	d.before, err = e.intents.replaceRun(d.about.Run)
	return d, err
}

// owns reports whether this process may begin a duty now.
func (d *duties) owns(at duty) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ownsLocked(at)
}

func (d *duties) ownsLocked(at duty) bool {
	h := d.held[at]
	return h != nil && !h.leaving && machineTime().Before(h.until)
}

// begin counts a command as under way, where its duty is held.
func (d *duties) begin(at duty) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.ownsLocked(at) {
		return false
	}
	d.held[at].busy++
	return true
}

// end counts a command that began as ended.
func (d *duties) end(at duty) {
	d.mu.Lock()
	defer d.mu.Unlock()
	h := d.held[at]
	if h == nil || h.busy == 0 {
		return // the lease was lost meanwhile
	}
	if h.busy--; h.busy == 0 && h.leaving {
		poke(d.free)
	}
}

// run keeps the share of the work up to date until ctx ends.
func (d *duties) run(ctx context.Context) {
	tick := time.NewTicker(max(d.c.LeaseTime()*3/10, time.Millisecond))
	defer tick.Stop()
	known := false
	for {
		var err error
		if !known {
			known, err = d.alone(ctx)
		}
		if err == nil && known {
			err = d.round(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			d.e.log.WarnContext(ctx, "workers not coordinated", "error", err)
		}
		select {
		case <-tick.C:
		case <-d.free:
		case <-ctx.Done():
			return
		}
	}
}

// alone reports whether nobody else lives under this worker's name. What an
// earlier run of this data directory said of itself does not count.
func (d *duties) alone(ctx context.Context) (bool, error) {
	st, err := d.c.Standing(ctx)
	if err != nil {
		return false, err
	}
	for _, w := range workersIn(st) {
		if w.name != d.e.worker || w.about.Run == d.before || w.about.Run == d.about.Run {
			continue
		}
		if machineTime().Sub(d.touched) > 2*d.c.LeaseTime() {
			err := fmt.Errorf("another process works as worker %s since %s: give each its own name", w.name, w.about.Since.Format(time.RFC3339))
			d.e.mu.RLock()
			cancel := d.e.cancel
			d.e.mu.RUnlock()
			cancel(err)
			return false, err
		}
		return false, nil // it may have died a moment ago
	}
	return true, nil
}

// livingWorker is a worker that lives.
type livingWorker struct {
	name  string
	about aboutWorker
}

// workersIn reads who lives; what cannot be read is passed over.
func workersIn(st journal.Standing) []livingWorker {
	var out []livingWorker
	for _, l := range st.Workers {
		w := livingWorker{name: l.Worker}
		if json.Unmarshal(l.About, &w.about) == nil {
			out = append(out, w)
		}
	}
	return out
}

// rendezvous is who of some workers is to have a duty: the same for whoever
// asks, and moved by as little as possible when workers come and go.
func rendezvous(names []string, at duty) string {
	best, most := "", uint64(0)
	for _, name := range names {
		h := fnv.New64a()
		h.Write([]byte(name))
		h.Write([]byte{0})
		h.Write([]byte(at.role))
		h.Write(binary.BigEndian.AppendUint16(nil, uint16(at.partition)))
		if sum := mix(h.Sum64()); best == "" || sum > most || sum == most && name < best {
			best, most = name, sum
		}
	}
	return best
}

// mix spreads a hash whose inputs differ in their last bytes only.
func mix(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// round tells that this worker lives, looks who else does, and takes, renews
// and gives up leases.
func (d *duties) round(ctx context.Context) error {
	d.about.Folded, d.about.Lacks = d.e.foldedSeq(), d.e.lacking()
	about, err := json.Marshal(d.about)
	if err != nil {
		return err
	}
	began := machineTime()
	if err := d.c.Announce(ctx, d.e.worker, about); err != nil {
		return err
	}
	st, err := d.c.Standing(ctx)
	if err != nil {
		return err
	}
	holders := map[string]string{}
	for _, l := range st.Leases {
		holders[l.Name] = l.Holder
	}
	d.mu.Lock()
	d.touched, d.standing, d.holders = began, st, holders
	d.mu.Unlock()
	var g errgroup.Group
	g.SetLimit(maxTaking)
	var mu sync.Mutex
	gained := map[duty]bool{} // guarded by mu
	for _, role := range ownedRoles() {
		names := d.living(st, role)
		for p := range Partitions {
			at := duty{role, p}
			able := names
			if role == RoleSign {
				able = signers(st, names, p)
			}
			mine := slices.Contains(able, d.e.worker) && rendezvous(able, at) == d.e.worker
			g.Go(func() error {
				got, err := d.keep(ctx, at, mine && d.e.running(), holders[at.lease()])
				if got {
					mu.Lock()
					gained[at] = true
					mu.Unlock()
				}
				return err
			})
		}
	}
	err = g.Wait()
	d.e.took(gained)
	if d.handing.CompareAndSwap(false, true) {
		started := d.e.start(func(ctx context.Context) {
			defer d.handing.Store(false)
			d.e.handOn(ctx)
		})
		if !started {
			d.handing.Store(false)
		}
	}
	return err
}

// living are the workers with a role that live, this one among them.
func (d *duties) living(st journal.Standing, role Role) []string {
	var names []string
	for _, w := range workersIn(st) {
		if slices.Contains(w.about.Roles, role) {
			names = append(names, w.name)
		}
	}
	return names
}

// keep brings one lease to where it belongs, and reports whether this process
// holds it only now.
func (d *duties) keep(ctx context.Context, at duty, mine bool, holder string) (gained bool, err error) {
	d.mu.Lock()
	h := d.held[at]
	var lease journal.Lease
	release := false
	if h != nil {
		h.leaving = !mine
		lease, release = h.lease, h.leaving && h.busy == 0
	}
	d.mu.Unlock()
	began := machineTime()
	switch {
	case h == nil && (!mine || holder != "" && holder != d.e.worker):
		return false, nil
	case h == nil:
		lease, err = d.c.TakeLease(ctx, at.lease(), d.e.worker)
	case release:
		d.drop(at)
		return false, d.c.ReleaseLease(ctx, lease)
	default:
		lease, err = d.c.RenewLease(ctx, lease)
	}
	switch {
	case errors.Is(err, journal.ErrHeld):
		d.drop(at)
		return false, nil
	case err != nil:
		return false, err // it holds until its time is over
	}
	until := began.Add(d.c.LeaseTime())
	if h != nil {
		d.mu.Lock()
		h.lease, h.until = lease, until
		d.mu.Unlock()
		return false, nil
	}
	stop, err := d.e.answerAs(at)
	if err != nil {
		return false, errors.Join(err, d.c.ReleaseLease(ctx, lease))
	}
	d.mu.Lock()
	d.held[at] = &holding{lease: lease, until: until, stop: stop}
	d.mu.Unlock()
	return true, nil
}

// drop forgets a lease.
func (d *duties) drop(at duty) {
	d.mu.Lock()
	h := d.held[at]
	delete(d.held, at)
	d.mu.Unlock()
	if h != nil {
		h.stop()
	}
}

// leaveTimeout is how long a worker that stops may take to say so.
const leaveTimeout = 3 * time.Second

// leave gives up everything, so that others need not wait for leases to run
// out. Nothing is under way any more.
func (d *duties) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	d.mu.Lock()
	held := maps.Clone(d.held)
	d.mu.Unlock()
	var g errgroup.Group
	g.SetLimit(maxTaking)
	for at, h := range held {
		d.drop(at)
		g.Go(func() error { return d.c.ReleaseLease(ctx, h.lease) })
	}
	err := g.Wait()
	if err == nil {
		err = d.c.Leave(ctx, d.e.worker)
	}
	if err != nil {
		d.e.log.Warn("worker did not take its leave", "error", err)
	}
}

// took lets the zones go to work whose duties this process has only now.
func (e *Engine) took(gained map[duty]bool) {
	if len(gained) == 0 {
		return
	}
	for _, r := range e.allRunners() {
		p := PartitionOf(r.id)
		if slices.ContainsFunc(ownedRoles(), func(role Role) bool { return gained[duty{role, p}] }) {
			r.step()
		}
		if gained[duty{RolePublish, p}] {
			r.announce()
		}
	}
}

// foldedSeq is the sequence of the event folded last.
func (e *Engine) foldedSeq() uint64 {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.folded
}

// owns reports whether this process may begin the work of a role in a zone.
func (e *Engine) owns(role Role, id event.ZoneID) bool {
	if e.duties == nil {
		return slices.Contains(e.roles, role)
	}
	return e.duties.owns(duty{role, PartitionOf(id)})
}

// beginDuty counts a command of a role as under way in a zone, where this
// process may begin it; endDuty follows.
func (e *Engine) beginDuty(role Role, id event.ZoneID) bool {
	if e.duties == nil {
		return slices.Contains(e.roles, role)
	}
	return e.duties.begin(duty{role, PartitionOf(id)})
}

func (e *Engine) endDuty(role Role, id event.ZoneID) {
	if e.duties != nil {
		e.duties.end(duty{role, PartitionOf(id)})
	}
}

// elsewhere are the roles whose work in a zone this process does not own.
func (e *Engine) elsewhere(id event.ZoneID) []Role {
	var out []Role
	for _, role := range ownedRoles() {
		if !e.owns(role, id) {
			out = append(out, role)
		}
	}
	return out
}

// chief reports whether this process does what one does for all: the one with
// the store, or where that is in no worker whoever keeps the keys of the first
// partition.
func (e *Engine) chief() bool {
	if e.member() {
		return false
	}
	if e.duties == nil || !e.cfg.Remote {
		return true
	}
	e.duties.mu.Lock()
	st := e.duties.standing
	e.duties.mu.Unlock()
	if slices.ContainsFunc(workersIn(st), func(w livingWorker) bool { return w.about.Store }) {
		return false
	}
	return e.duties.owns(duty{RoleKeys, 0})
}

// errNotOurs reports work that was granted to another worker.
var errNotOurs = errors.New("another worker does this work now")

// takeUp has a role's work in a zone granted to this process, unless it is
// already. A process that shares its stream with nobody, and never did, needs
// no grant.
func (r *runner) takeUp(ctx context.Context, role Role) error {
	for {
		s := r.snapshot()
		g, granted := s.Grants[role]
		switch {
		case s.Removed != 0, granted && g.Worker == r.e.worker, !granted && r.e.duties == nil:
			return nil
		case !r.e.owns(role, r.id):
			return errNotOurs
		}
		head, err := r.e.append(ctx, r.id, s.Head, g.Seq, event.Program, &event.WorkerGranted{
			Worker: r.e.worker, WorkerRole: string(role), Epoch: g.Epoch + 1,
		})
		if errors.Is(err, journal.ErrConflict) {
			if err := r.await(ctx, func(now State) bool { return now.Head.Seq > s.Head.Seq }); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if err := r.await(ctx, func(now State) bool { return now.Head.Seq >= head.Seq }); err != nil {
			return err
		}
	}
}

// stamp gives what the program writes in a zone the epochs of the roles that
// it belongs to.
func (e *Engine) stamp(id event.ZoneID, events []event.Event) error {
	e.mu.RLock()
	r := e.runners[id]
	e.mu.RUnlock()
	if r == nil {
		return nil
	}
	s := r.snapshot()
	for i, ev := range events {
		role := RoleOfEvent(ev.Facts)
		if f, ok := ev.Facts.(*event.WorkerGranted); ok {
			events[i].Epoch = f.Epoch
			continue
		}
		g, granted := s.Grants[role]
		switch {
		case role == "", !granted && e.duties == nil:
		case !granted || g.Worker != e.worker:
			return fmt.Errorf("role %s of zone %s: %w", role, s.Name, errNotOurs)
		default:
			events[i].Epoch = g.Epoch
		}
	}
	return nil
}
