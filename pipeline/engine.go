package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/pipeline/alarm"
	"sluice/pipeline/observe"
	"sluice/pipeline/store"
	"sluice/signer/zone"
	"sluice/xfr"
)

// maxAppending bounds how many events wait for the disk at a time. Where many
// zones have something to tell, the last of them would else run out of time.
const maxAppending = 64

// Config is what an Engine is built from.
type Config struct {
	Journal  journal.Journal
	Keystore keymgr.Keystore
	// Tokens reaches keystores on tokens; nil where there are none.
	Tokens keymgr.Tokens
	// Servers reaches keystores on KMIP servers; nil where there are none.
	Servers keymgr.Tokens
	// StoreDir holds the projection; it may be deleted at any time while no
	// engine runs.
	StoreDir string
	// JournalDir, where not empty, is a folder on the journal's disk: new
	// contents are refused while that is nearly full.
	JournalDir string
	// Reserve is room that is kept for signing on a full disk; nil keeps none.
	Reserve *Reserve
	// HintFile is where it is written down when the servers of zones last
	// answered, so that EXPIRE does not count anew with each start; it may be
	// lost. "" writes nothing.
	HintFile string
	// SpillDir takes temporary files; it is emptied at the start.
	SpillDir string
	// Policies by name; "default" is added where it is missing and without a
	// fault.
	Policies map[string]Policy
	// PolicyFaults is what LoadDir found wrong besides.
	PolicyFaults []error
	// PolicyDir is where ReloadPolicies reads; "" for none.
	PolicyDir string
	Clock     Clock
	Logger    *slog.Logger
	// Observe asks what the world sees of a zone; nil where nobody can be
	// asked.
	Observe func(ctx context.Context, q observe.Question) keymgr.Observation
	// Resolve finds the addresses of a name server that a zone does not hold
	// itself; nil where nobody can be asked.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)
	// Agents finds whom the parent of a zone wants to be told that its CDS
	// changed; nil where nobody can be asked.
	Agents func(ctx context.Context, child zone.Name, now time.Time) (observe.Agents, error)
	// Workers is the number of signing goroutines of one run; 0: one a core.
	Workers int
	// Worker is this process's name among those that share the stream; empty is
	// "main". Roles are the parts of the work that it takes on; none is all.
	Worker string
	Roles  []Role
	// Coordinator divides the work among the workers on the stream; nil where
	// this process shares it with nobody.
	Coordinator journal.Coordinator
	// Remote: the journal's store is in another process, or on another machine.
	Remote bool
	// Member: another process is the main one, and writes what belongs to the
	// whole instance.
	Member bool
	// Version is what this process tells others of its program.
	Version string
	// Software names this process's software in events, as event.Software does;
	// nil names none. It is asked when the first such event is written.
	Software func() string
	// RunDir keeps what a start is to know of the run before it: which commands
	// were under way when that died, and when the journal last answered. It may
	// be lost; "" keeps nothing.
	RunDir string
	// Joining is how others reach the journal, and Admit is told who may join
	// it, at the start and whenever that changed; nil where nobody can.
	Joining Joining
	Admit   func(members []journal.Member) error
	// Prober is which resolvers are asked whether zones validate; one without
	// Resolvers asks nobody.
	Prober Prober
	// TSIG keeps the secrets of TSIG keys; nil keeps none.
	TSIG TSIGStore
	// Archive keeps what retention purges; nil: it is lost.
	Archive *journal.Archive
	// Certificates tells what is wrong with those of the listeners around the
	// engine; nil: nothing.
	Certificates func() []string
	// Sharing is how secrets get to and from other workers.
	Sharing Sharing
	// Sealing is how the journal is sealed; without a key it is not.
	Sealing Sealing
	// Alarms says who is told of what needs a person; the engine fills in what
	// it looks at and how commands run. Without a target nobody is.
	Alarms alarm.Config
	// LogLevel is what Logger logs, where that can be changed; else nil.
	LogLevel *slog.LevelVar
	// Seal says which fields of new events are sealed, of SealKinds.
	Seal []string
	// Client is how zones are transferred in and secondaries told; its Keys
	// are the engine's own. Zero values have their defaults.
	Client xfr.ClientConfig
}

// Engine runs all zones of one process: it folds the journal into the
// projection and drives every zone.
type Engine struct {
	journal journal.Journal
	// fresh is the journal as the fold sees it: what was just written is at hand.
	fresh journal.Journal
	// signJournal is the journal as signing sees it: it may take the reserve.
	signJournal journal.Journal
	store       *store.Store
	keystore    keymgr.Keystore // the one in files
	keys        keystores       // those on tokens
	shares      shares          // secrets, here and elsewhere
	clock       Clock
	watch       *clockWatch
	log         *slog.Logger
	cfg         Config
	// spill and signSpill take the temporary files of loads, and of signing.
	spill, signSpill roomySpill

	worker    string
	roles     []Role
	duties    *duties // nil where the stream is shared with nobody
	intents   *intents
	since     time.Time // when this run began, by the machine's clock
	contact   contact
	pulse     pulse // of Alive
	config    reconfigure
	catalogs  catalogs
	local     func(ctx context.Context, q observe.Question) keymgr.Observation // asks the world from here; nil where that is not its role
	retention sync.Mutex                                                       // held while retention works on a zone
	alarms    alarming
	retained  retainer      // guarded by retention
	retainNow chan struct{} // asks for retention before its time
	fill      streamFill

	sealing  sync.Mutex    // held while a checkpoint is made
	sealable chan struct{} // asks for a checkpoint before its time

	stuck  chan struct{} // asks tend to reopen the journal
	mended mending
	short  chan struct{} // asks tend to look for room
	heavy  chan struct{} // bounds loads, signings and verifications at a time
	turns  queues        // zones with such work
	// transfers and checks bound what is asked of other servers at a time.
	transfers, checks chan struct{}
	// hooking and telling bound hooks, and updates and NOTIFYs, for parents.
	hooking, telling chan struct{}
	handing          chan struct{} // bounds zones whose keys are handed to workers at a time
	appending        chan struct{} // bounds events on their way to the journal, each of which has its time
	notifying        queues        // by secondary
	naming, looking  queues        // name servers whose addresses are wanted, and zones that are observed
	client           *xfr.Client
	counts           counts
	probing          queues // zones that resolvers are asked about
	work             sync.WaitGroup
	tsig             sync.Mutex  // held while the TSIG keys change
	policing         sync.Mutex  // held while policies are read or written
	additions        additions   // zones that wait to be added
	adding           sync.Mutex  // held while an event of the whole instance is appended: they would only come in each other's way
	clocking         sync.Mutex  // held while it is recorded how the clock is
	newest           time.Time   // of the journal's newest event at the start
	lost             string      // what the projection knew and the journal lacks; set at the start
	answered         atomic.Bool // a server has, since the hints were written

	foldTries int           // of the event being folded; only the fold uses it
	purges    purges        // ahead of the fold; only the fold uses it
	signNeed  atomic.Uint64 // see signNeedOf, of all zones
	refused   atomic.Bool   // the journal itself has refused something for want of room
	roomier   atomic.Bool   // the reserve was given up
	prober    atomic.Pointer[Prober]
	probed    chan struct{} // poked when prober is replaced
	unkept    chan struct{} // poked when something was published, see keepPublished
	sealed    atomic.Pointer[sealed]
	refusals  refusals // of requests
	usage     asked    // by callers of the API
	recent    recentKeys
	texts     policyTexts

	mu          sync.RWMutex
	ctx         context.Context          //nolint:containedctx // guarded by mu; what runs in the background ends with it
	cancel      context.CancelCauseFunc  // guarded by mu; ends Run
	troubles    [troubleKinds]error      // guarded by mu; what keeps all zones from working
	ready       bool                     // guarded by mu; the fold has caught up
	registry    Registry                 // guarded by mu
	sealTrouble string                   // guarded by mu; why the last checkpoint failed
	folded      uint64                   // guarded by mu; last folded sequence
	moved       chan struct{}            // guarded by mu; closed and replaced at every fold
	runners     map[event.ZoneID]*runner // guarded by mu
	names       map[string]event.ZoneID  // guarded by mu; zones that live
	policies    map[string]Policy        // guarded by mu
	faults      map[string]error         // guarded by mu; of policy files by policy, "" is the folder
	parsed      map[event.Hash]Policy    // guarded by mu; parsed policies by their text

	reviewers map[string]netip.AddrPort // guarded by mu; the review listener of each stage
	listeners []Listener                // guarded by mu; where the daemon listens, as it told
	granted   chan struct{}             // guarded by mu; closed and replaced when tokens change
}

// NewEngine opens the projection, throws it away where it is damaged or does
// not belong to the journal, and reads the zones' states.
func NewEngine(ctx context.Context, cfg Config) (*Engine, error) {
	e := &Engine{
		keystore: cfg.Keystore, clock: cfg.Clock, watch: newClockWatch(cfg.Clock), log: cfg.Logger, cfg: cfg,
		stuck:     make(chan struct{}, 1),
		sealable:  make(chan struct{}, 1),
		short:     make(chan struct{}, 1),
		probed:    make(chan struct{}, 1),
		unkept:    make(chan struct{}, 1),
		retainNow: make(chan struct{}, 1),
		heavy:     make(chan struct{}, max(1, runtime.GOMAXPROCS(0))),
		transfers: make(chan struct{}, maxTransfers),
		checks:    make(chan struct{}, maxChecks),
		hooking:   make(chan struct{}, maxHooking),
		telling:   make(chan struct{}, maxTelling),
		handing:   make(chan struct{}, maxSharing),
		appending: make(chan struct{}, maxAppending),
		turns:     queues{most: max(maxTurns, 4*runtime.GOMAXPROCS(0))},
		notifying: queues{most: maxNotifying},
		naming:    queues{most: maxChecks},
		looking:   queues{most: maxLooking},
		probing:   queues{most: maxProbing},
		moved:     make(chan struct{}),
		runners:   map[event.ZoneID]*runner{},
		names:     map[string]event.ZoneID{},
		policies:  map[string]Policy{},
		parsed:    map[event.Hash]Policy{},
		granted:   make(chan struct{}),
		catalogs:  newCatalogs(),
		refusals:  refusals{wake: make(chan struct{}, 1)},
		retained:  retainer{looked: map[event.ZoneID]uint64{}, finished: map[event.ZoneID]bool{}},
	}
	e.journal = roomyJournal{cfg.Journal, e.room, e.bulkRoom}
	e.fresh = journal.Fresh(cfg.Journal)
	e.signJournal = roomyJournal{cfg.Journal, e.signRoom, nil}
	e.spill = roomySpill{SpillDir(cfg.SpillDir), e.room}
	e.signSpill = roomySpill{SpillDir(cfg.SpillDir), e.signRoom}
	cfg.Client.Keys = e.TSIG()
	e.client = xfr.NewClient(cfg.Client)
	if err := e.takePart(); err != nil {
		return nil, err
	}
	maps.Copy(e.policies, cfg.Policies)
	e.SetProber(cfg.Prober)
	e.SetSealing(cfg.Sealing, cfg.Seal)
	e.faults = faultsByPolicy(cfg.PolicyFaults)
	addDefault(e.policies, e.faults)
	if err := e.openAlarms(); err != nil {
		return nil, err
	}
	if err := e.spill.empty(); err != nil {
		return nil, err
	}
	if err := e.openStore(ctx); err != nil {
		return nil, err
	}
	if err := e.readStates(); err != nil {
		return nil, errors.Join(err, e.store.Close())
	}
	e.newest = e.newestTime(ctx)
	return e, nil
}

// openStore opens the projection; one that cannot be read, or that was made
// from another journal, is removed and folded anew.
func (e *Engine) openStore(ctx context.Context) error {
	identity, last, err := e.journal.Stream(ctx)
	away := e.unreachable(err)
	if err != nil && !away {
		return err
	}
	e.startContact(away)
	var opened atomic.Bool // damage found before is an error of the opening
	defer opened.Store(true)
	fault := func(err error) {
		if opened.Load() {
			e.storeFault(err)
		}
	}
	open := func() (err error) {
		e.store, err = store.Open(e.cfg.StoreDir, store.Config{Stream: identity, Events: knownEvents(), Logger: e.log, Fault: fault})
		return err
	}
	if err = e.marked(); err == nil {
		err = open()
	}
	if err == nil && away {
		e.log.ErrorContext(ctx, "the journal does not answer: what was published last is served as it stands")
		return nil // it is held against the journal once that answers
	}
	if err == nil {
		ok, cerr := e.journal.Check(ctx, e.store.Position())
		if cerr != nil {
			return errors.Join(fmt.Errorf("check projection: %w", cerr), e.store.Close())
		}
		if ok || e.store.Position().Seq == 0 {
			return nil
		}
		if at := e.store.Position(); at.Stream == identity && at.Seq > last {
			e.lost = fmt.Sprintf("the journal ends at event %d, but event %d was read from it before: those between are lost; "+
				"is it an old copy? published serials may have gone back, see: sluice zone serial ZONE", last, at.Seq)
		}
		err = errors.Join(errors.New("it does not follow from this journal"), e.store.Close())
	} else if !errors.Is(err, store.ErrDamaged) {
		return err
	}
	e.log.WarnContext(ctx, "projection is rebuilt from the journal", "dir", e.cfg.StoreDir, "reason", err)
	if err := os.RemoveAll(e.cfg.StoreDir); err != nil {
		return err
	}
	return open()
}

// readStates takes up the states that the projection holds.
func (e *Engine) readStates() error {
	e.folded = e.store.Position().Seq
	return e.store.States(func(id event.ZoneID, data []byte) error {
		if id == event.Instance {
			return json.Unmarshal(data, &e.registry)
		}
		s, err := e.decodeState(id, data)
		if err == nil {
			e.adopt(s)
		}
		return err
	})
}

// adopt makes a runner for a zone. The caller holds mu or is alone.
func (e *Engine) adopt(s State) *runner {
	r := newRunner(e, s)
	e.runners[s.Zone] = r
	if s.Removed == 0 {
		e.names[s.Name] = s.Zone
	}
	return r
}

// Run folds the journal and drives the zones until ctx ends, or until the
// projection turns out to be damaged. Close follows it.
func (e *Engine) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	e.mu.Lock()
	e.ctx, e.cancel = ctx, cancel
	first := e.folded + 1
	e.mu.Unlock()
	if err := e.Trouble(); errors.Is(err, store.ErrDamaged) {
		cancel(gaveUp(err))
	}
	e.work.Go(func() { e.tend(ctx) })
	e.work.Go(func() { e.keepHints(ctx) })
	if e.cfg.Remote {
		e.work.Go(func() { e.keepContact(ctx) })
		e.work.Go(func() { e.keepPublished(ctx) })
	}
	done := make(chan error, 1)
	go func() {
		if err := e.awaitContact(ctx); err != nil {
			done <- err
			return
		}
		// A rebuild meets events whose chunks are long gone.
		if err := e.purges.learn(ctx, e.journal, "", first); err != nil && !errors.Is(err, journal.ErrStorage) {
			done <- err
			return
		}
		caughtUp := func() {
			e.purges = purges{}
			e.caughtUp()
		}
		done <- e.journal.Follow(ctx, "", first, caughtUp, func(rec journal.Record) error {
			return e.foldOrWait(ctx, rec)
		})
	}()
	err := e.leftover(ctx, done)
	e.mu.Lock()
	e.ready = false
	e.mu.Unlock()
	cause := context.Cause(ctx)
	cancel(nil)
	e.work.Wait()
	if e.duties != nil {
		e.duties.leave()
	}
	for _, r := range e.allRunners() {
		r.mu.Lock()
		r.disarm()
		r.mu.Unlock()
	}
	e.writeHints()
	if cause != nil {
		err = nil
		if !errors.Is(cause, context.Canceled) {
			err = cause
		}
	}
	return err
}

// Close frees the projection. Run must have ended, and every view of Source
// and ReviewSource must be closed.
func (e *Engine) Close() error { return errors.Join(e.closeKeystores(), e.store.Close()) }

// allRunners lists the zones that are here, in no order.
func (e *Engine) allRunners() []*runner {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return slices.Collect(maps.Values(e.runners))
}

// caughtUp lets the zones go to work.
func (e *Engine) caughtUp() {
	e.readHints()
	e.startClock()
	e.mu.Lock()
	e.ready = true
	e.moveLocked()
	e.mu.Unlock()
	e.admit()
	e.start(e.watchClock)
	e.start(e.watchKeystores)
	if e.hasRole(RoleObserve) {
		e.start(e.probes)
	}
	e.start(e.tellRefusals)
	if e.keeper() {
		e.start(e.retains)
		e.start(e.tendCatalogs)
	}
	e.start(e.sendAlarms)
	e.startSharing()
	if e.cfg.Sealing.Key != nil {
		e.start(e.seals)
	}
	if e.duties != nil {
		e.start(e.share)
		if e.hasRole(RoleSign) {
			e.start(e.answerShares)
		}
	}
	all := e.allRunners()
	slices.SortFunc(all, func(a, b *runner) int { return strings.Compare(string(a.id), string(b.id)) })
	for _, r := range all {
		r.step()
		r.announce()
	}
}

// running reports whether zones may work.
func (e *Engine) running() bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.ready
}

// start runs fn in the background until Run ends, and reports whether it
// could.
func (e *Engine) start(fn func(context.Context)) bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if !e.ready || e.ctx.Err() != nil {
		return false
	}
	ctx := e.ctx
	e.work.Go(func() { fn(ctx) })
	return true
}

// context ends when Run does.
func (e *Engine) context() context.Context {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.ctx
}

// append stores facts as events of a zone behind head.
func (e *Engine) append(ctx context.Context, id event.ZoneID, head journal.Head, cause uint64, actor event.Actor, facts ...event.Facts) (journal.Head, error) {
	if err := take(ctx, e.appending); err != nil {
		return head, err
	}
	defer give(e.appending)
	reading, elapsed := e.clock.Reading()
	now := reading.Truncate(time.Microsecond)
	events := make([]event.Event, 0, len(facts))
	for _, f := range facts {
		e.nameSoftware(f)
		events = append(events, event.Event{
			Type: f.EventType(), Time: now, Zone: id, Actor: actor, Cause: cause,
			MustUnderstand: !passable(f), Facts: f,
		})
	}
	if actor == event.Program && id != event.Instance {
		if err := e.stamp(id, events); err != nil {
			return head, err
		}
	}
	for i := range events {
		if err := sealEvent(&events[i], e.sealed.Load().kinds); err != nil {
			return head, err
		}
	}
	began := machineTime()
	next, err := e.journal.Append(ctx, id, head, events...)
	e.counts.appended(ctx, events, began, err)
	switch {
	case err == nil:
		e.watch.stamped(reading, elapsed)
	case errors.Is(err, journal.ErrDenied):
		err = fmt.Errorf("%w: %w; do it at a process with the role for it, or at the main one, see: sluice worker list", ErrState, err)
	}
	return next, e.note(err)
}

// passable reports whether a program that does not know facts may pass them
// over: what a zone is does not follow from them.
func passable(f event.Facts) bool {
	switch f.(type) {
	case *event.InstanceFetched, *event.JournalExported, *event.TSIGExported, *event.AccessRefused, *event.AccessUsed:
		return true
	}
	return false
}

// policy is a loaded policy.
func (e *Engine) policy(name string) (Policy, bool) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	p, ok := e.policies[name]
	if !ok && name == CatalogPolicy {
		p, err := catalogPolicy()
		return p, err == nil
	}
	return p, ok
}

// boundPolicy parses the policy that a zone is bound to; before it is, the
// zero policy.
func (e *Engine) boundPolicy(s State) (Policy, error) {
	if s.Policy.Name == "" {
		return Policy{}, nil
	}
	e.mu.RLock()
	p, ok := e.parsed[s.Policy.SHA256]
	e.mu.RUnlock()
	if ok {
		return p, nil
	}
	p, err := Parse(s.Policy.Name, []byte(s.Policy.Text))
	if err != nil {
		return Policy{}, fmt.Errorf("bound policy %q: %w", s.Policy.Name, err)
	}
	e.mu.Lock()
	e.parsed[s.Policy.SHA256] = p
	e.mu.Unlock()
	return p, nil
}
