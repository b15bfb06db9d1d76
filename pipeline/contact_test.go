package pipeline

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
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
	"sluice/signer/zone"
	"sluice/xfr"
)

// farJournal is a journal in memory that can be out of reach.
type farJournal struct {
	*journaltest.Memory
	away atomic.Bool

	mu   sync.Mutex
	back chan struct{} // guarded by mu; closed when it is in reach again
}

func newFar() *farJournal {
	f := &farJournal{Memory: journaltest.New(), back: make(chan struct{})}
	close(f.back)
	return f
}

func (f *farJournal) setAway(away bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.away.Swap(away) == away {
		return
	}
	if away {
		f.back = make(chan struct{})
	} else {
		close(f.back)
	}
}

func (f *farJournal) err() error {
	if f.away.Load() {
		return journal.ErrStorage
	}
	return nil
}

func (f *farJournal) Stream(ctx context.Context) (string, uint64, error) {
	if err := f.err(); err != nil {
		return "", 0, err
	}
	return f.Memory.Stream(ctx)
}

func (f *farJournal) Check(ctx context.Context, p journal.Position) (bool, error) {
	if err := f.err(); err != nil {
		return false, err
	}
	return f.Memory.Check(ctx, p)
}

func (f *farJournal) Append(ctx context.Context, id event.ZoneID, head journal.Head, events ...event.Event) (journal.Head, error) {
	if err := f.err(); err != nil {
		return head, err
	}
	return f.Memory.Append(ctx, id, head, events...)
}

// Follow delivers nothing while it is out of reach.
func (f *farJournal) Follow(ctx context.Context, id event.ZoneID, first uint64, caughtUp func(), fn func(journal.Record) error) error {
	return f.Memory.Follow(ctx, id, first, caughtUp, func(rec journal.Record) error {
		f.mu.Lock()
		back := f.back
		f.mu.Unlock()
		select {
		case <-back:
		case <-ctx.Done():
			return ctx.Err()
		}
		return fn(rec)
	})
}

// A worker that is started for the first time while the journal is out of reach
// begins once it is there, and knows its projection again later.
func TestContact_FirstStartWithoutTheJournal(t *testing.T) {
	far := newFar()
	other := crewOn(t, far.Memory, nil)
	main := other.add("main", "", func(cfg *Config) { cfg.Coordinator = nil })
	main.zone("example.com.", smallZone)
	other.allServe("example.com.")
	far.setAway(true)
	dir := t.TempDir()
	cfg := Config{
		Journal: far, Remote: true, Keystore: other.keys, Logger: testLogger(t), Worker: "late",
		StoreDir: filepath.Join(dir, "projections"), SpillDir: filepath.Join(dir, "spill"), RunDir: filepath.Join(dir, "run"),
		Roles: []Role{RolePublish},
	}
	var lines bytes.Buffer
	for round := range 2 {
		lines.Reset()
		if cfg.Logger = slog.New(slog.NewTextHandler(&lines, nil)); round == 1 {
			far.setAway(false)
		}
		w := &worker{c: other, name: "late"}
		var err error
		if w.e, err = NewEngine(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.e.Run(ctx) }()
		far.setAway(false)
		until(t, "it serves", func() bool { return w.serves("example.com.") == main.serves("example.com.") })
		cancel()
		if err := errors.Join(<-done, w.e.Close()); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(lines.String(), "rebuilt") {
			t.Errorf("start %d: %s", round, lines.String())
		}
	}
}

// serves reports what a worker answers for a zone: its serial, 0 for nothing.
func (w *worker) serves(name string) zone.Serial {
	w.c.t.Helper()
	n, err := zone.ParseName(name)
	if err != nil {
		w.c.t.Fatal(err)
	}
	v, err := w.e.Source().View(n)
	if errors.Is(err, xfr.ErrNotReady) || errors.Is(err, xfr.ErrUnknownZone) {
		return 0
	}
	if err != nil {
		w.c.t.Fatal(err)
	}
	defer v.Close() //nolint:errcheck // read only
	return v.Serial()
}

// A publish worker that is cut off serves what it has, says so, stops as a
// secondary would, and answers again only once it has caught up.
func TestContact_CutOffServesUntilExpire(t *testing.T) {
	c := newCrew(t)
	far := newFar()
	c.journal = far.Memory
	works := c.add("works", "load,review,sign,keys", nil)
	clock := NewRehearsal(time.Now().Truncate(time.Second), 1)
	out := c.add("out", "publish", func(cfg *Config) { cfg.Journal, cfg.Remote, cfg.Clock = far, true, clock })
	works.zone("example.com.", smallZone)
	c.allServe("example.com.")
	first := out.serves("example.com.")
	if first == 0 {
		t.Fatal("nothing is served")
	}
	far.setAway(true)
	out.cut.away.Store(true)
	clock.Move(probeTime + time.Second)
	out.e.probe(t.Context())
	err := out.e.Health(t.Context())
	if !errors.Is(err, ErrState) || !strings.Contains(err.Error(), "has not answered since") {
		t.Errorf("health says %v", err)
	}
	st, err := out.e.Zone(t.Context(), "example.com.")
	if err != nil || !slices.ContainsFunc(st.Notices, func(n Notice) bool { return strings.HasPrefix(n.Text, "stale: ") }) {
		t.Errorf("notices %+v, %v", st.Notices, err)
	}
	if got := out.serves("example.com."); got != first {
		t.Errorf("cut off it serves %d, want %d", got, first)
	}
	// Signed again meanwhile.
	if err := works.e.Resign(t.Context(), testActor, "example.com.", false); err != nil {
		t.Fatal(err)
	}
	until(t, "it is signed again", func() bool { return works.state("example.com.").Signed.Facts.Serial > uint32(first) })
	clock.Move(1209600 * time.Second) // EXPIRE
	if got := out.serves("example.com."); got != 0 {
		t.Errorf("after EXPIRE it serves %d", got)
	}
	// Back: not before it has caught up.
	far.mu.Lock()
	far.away.Store(false) // it answers, but what follows is not here yet
	far.mu.Unlock()
	clock.Move(-1209600 * time.Second)
	out.e.probe(t.Context())
	if err := out.e.Health(t.Context()); err != nil && strings.Contains(err.Error(), "has not answered") {
		t.Errorf("it answers: %v", err)
	}
	if got := out.serves("example.com."); got != 0 {
		t.Errorf("behind the journal it serves %d", got)
	}
	far.mu.Lock()
	close(far.back)
	far.mu.Unlock()
	until(t, "it serves again", func() bool { return out.serves("example.com.") != 0 })
}

// A worker that is started while the journal is out of reach serves what it
// held, and goes on once the journal is back.
func TestContact_StartedWithoutTheJournal(t *testing.T) {
	c := newCrew(t)
	far := newFar()
	c.journal = far
	w := c.add("out", "", func(cfg *Config) { cfg.Remote = true })
	w.zone("example.com.", smallZone)
	c.allServe("example.com.")
	first := w.serves("example.com.")
	w.stop()
	far.setAway(true)
	c.all = nil
	e := w.e.cfg
	e.Observe, e.Coordinator = nil, w.cut
	again := &worker{c: c, name: "out", cut: w.cut}
	var err error
	if again.e, err = NewEngine(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- again.e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, again.e.Close()); err != nil {
			t.Error(err)
		}
	})
	until(t, "it serves what it held", func() bool { return again.serves("example.com.") == first })
	if err := again.e.Health(t.Context()); !errors.Is(err, ErrState) {
		t.Errorf("health says %v", err)
	}
	far.setAway(false)
	until(t, "it is well again", func() bool { return again.e.Health(t.Context()) == nil && again.serves("example.com.") == first })
	if err := again.e.Resign(t.Context(), testActor, "example.com.", false); err != nil {
		until(t, "it owns its work", func() bool { return again.e.Resign(t.Context(), testActor, "example.com.", false) == nil })
	}
	until(t, "it signs on", func() bool { return again.serves("example.com.") > first })
}
