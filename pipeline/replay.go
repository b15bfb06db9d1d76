package pipeline

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/pipeline/store"
	"sluice/signer/zone"
)

// errEnough ends a replay at its goal.
var errEnough = errors.New("goal reached")

// scratch is a projection of one zone, built from its events alone in a
// folder of its own.
type scratch struct {
	e     *Engine
	id    event.ZoneID
	dir   string
	store *store.Store
	state State
	limit uint64 // the last sequence to fold; 0 for all
	// lenient: instances whose chunks are no longer held are passed over, as by
	// the projection.
	lenient bool
	// unsigned: what was signed and published is passed over; the store then
	// keeps every loaded instance.
	unsigned bool
	// purges is what retention has done to the zone; learned: it was read.
	purges  purges
	learned bool
	chunks  store.ChunkSource
	over    bool // the event folded last was passed over: its contents are purged
}

// newScratch makes an empty projection for a zone.
func (e *Engine) newScratch(ctx context.Context, id event.ZoneID) (*scratch, error) {
	dir, err := os.MkdirTemp(string(e.spill.SpillDir), "replay-*")
	if err != nil {
		return nil, err
	}
	identity, _, err := e.journal.Stream(ctx)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	st, err := store.Open(dir, store.Config{Stream: identity, Cache: 8 << 20, Logger: e.log})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	s := &scratch{e: e, id: id, dir: dir, store: st}
	s.readFrom(e.journal)
	return s, nil
}

func (s *scratch) close() error { return errors.Join(s.store.Close(), os.RemoveAll(s.dir)) }

// fold folds the zone's events in order and calls met after each.
func (s *scratch) fold(ctx context.Context, met func(journal.Record) error) error {
	err := s.e.journal.Read(ctx, event.Instance, 1, 0, func(rec journal.Record) error {
		f, ok := rec.Event.Facts.(*event.ZoneAdded)
		if !ok || f.ID != s.id {
			return nil
		}
		s.state = NewState(registered(rec, f))
		if err := s.store.Apply(ctx, rec, s.chunks); err != nil {
			return err
		}
		return errEnough
	})
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	if err := s.learn(ctx); err != nil {
		return err
	}
	err = s.e.journal.Read(ctx, s.id, 1, s.limit, func(rec journal.Record) error {
		before := s.state
		s.state = EvolveNext(before, rec, "")
		if !before.Counts(rec) || s.state.Halted != nil || s.unsigned && !loads(rec) {
			return s.store.Skip(ctx, rec)
		}
		if err := s.apply(ctx, rec); err != nil {
			return fmt.Errorf("event %d: %w", rec.Seq, err)
		}
		return met(rec)
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// loads reports whether an event changes what is loaded in a projection.
func loads(rec journal.Record) bool {
	switch rec.Event.Facts.(type) {
	case *event.InstanceSigned, *event.InstancePublished:
		return false
	}
	return true
}

// apply folds one event into the store.
func (s *scratch) apply(ctx context.Context, rec journal.Record) error {
	held, err := s.purges.fold(ctx, s.e.journal, s.store, rec, s.chunks)
	s.over = !held
	if s.lenient && (errors.Is(err, journal.ErrNoChunk) || errors.Is(err, store.ErrBroken)) {
		return s.store.Skip(ctx, rec)
	}
	return err
}

// Replay rebuilds a zone from its events alone, instance by instance, and
// calls fn with each digest as recorded and as rebuilt. It stops at the first
// difference with an error. to ends it early: a serial, seq:N, an
// instance or a time. With
// verify, the digests are computed from the items instead of taken from the
// chunks, and what is published now is compared item by item.
func (e *Engine) Replay(ctx context.Context, name, to string, verify bool, progress func(Progress), fn func(ReplayStep) error) error {
	id, err := e.historyID(ctx, name)
	if err != nil {
		return err
	}
	goal, err := parseGoal(to)
	if err != nil {
		return err
	}
	s, err := e.newScratch(ctx, id)
	if err != nil {
		return err
	}
	defer s.close() //nolint:errcheck // a scratch folder
	s.useArchive()
	if progress == nil {
		progress = func(Progress) {}
	}
	met, arrived := 0, to == ""
	err = s.fold(ctx, func(rec journal.Record) error {
		if goal.before(rec) {
			arrived = true
			return errEnough
		}
		progress(Progress{Zone: name, Stage: "replay", Done: int64(rec.Seq)})
		step, ok, err := s.step(rec, verify)
		if err != nil {
			return err
		}
		if s.over && goal.reached(rec) {
			return e.purgedVersion(name, s.id)
		}
		if ok {
			met++
			if err := fn(step); err != nil {
				return err
			}
			if !step.Equal {
				return fmt.Errorf("%s: rebuilt digest %s differs from the recorded %s", step.Instance, step.Rebuilt, step.Recorded)
			}
		}
		if goal.reached(rec) {
			arrived = true
			return errEnough
		}
		return nil
	})
	if err == nil && (met == 0 || !arrived && goal.at.IsZero()) {
		return fmt.Errorf("zone %s: no instance at %q: %w", name, to, ErrNotFound)
	}
	if err != nil || !verify || to != "" {
		return err
	}
	return e.comparePublished(s)
}

// step compares the digest of the instance that an event names.
func (s *scratch) step(rec journal.Record, verify bool) (ReplayStep, bool, error) {
	step := ReplayStep{Seq: rec.Seq}
	if s.over {
		return step, false, nil
	}
	var recorded, rebuilt [32]byte
	switch f := rec.Event.Facts.(type) {
	case *event.InstanceLoaded:
		step.Instance, step.Serial, step.Records = fmt.Sprintf("l%d", rec.Seq), f.Serial, f.Records
		recorded = f.ContentDigest
		h, err := s.store.ContentState(s.id, rec.Seq)
		if err == nil && verify {
			h, err = digestOf(s.store.LoadedItems(s.id, rec.Seq))(true)
		}
		if err != nil {
			return step, false, err
		}
		rebuilt = h.Sum()
	case *event.InstanceSigned:
		step.Instance, step.Serial, step.Records = fmt.Sprintf("s%d", rec.Seq), f.Serial, f.Records
		recorded = f.SignedDigest
		h, err := s.store.SignedState(s.id, rec.Seq)
		if err == nil && verify {
			h, err = digestOf(signedItems(s.store, s.id, rec.Seq))(false)
		}
		if err != nil {
			return step, false, err
		}
		rebuilt = h.Sum()
	default:
		return step, false, nil
	}
	step.Recorded, step.Rebuilt = hex.EncodeToString(recorded[:]), hex.EncodeToString(rebuilt[:])
	step.Equal = recorded == rebuilt
	return step, true, nil
}

// digestOf computes a set hash from items, in content form or whole.
func digestOf(it zone.Iterator, err error) func(content bool) (*zone.SetHash, error) {
	return func(content bool) (*zone.SetHash, error) {
		if err != nil {
			return nil, err
		}
		defer it.Close() //nolint:errcheck // read only
		var h zone.Hasher
		for it.Next() {
			add := h.AddItem
			if content {
				add = h.AddContent
			}
			if err := add(it.Key(), it.Value()); err != nil {
				return nil, err
			}
		}
		return &h.Set, it.Err()
	}
}

// comparePublished compares what is served with what was rebuilt.
func (e *Engine) comparePublished(s *scratch) error {
	p := s.state.Published
	if p == nil {
		return nil
	}
	rebuilt, err := signedItems(s.store, s.id, p.Signed.Seq)
	if err != nil {
		return err
	}
	defer rebuilt.Close() //nolint:errcheck // read only
	live, err := signedItems(e.store, s.id, p.Signed.Seq)
	if errors.Is(err, store.ErrNoInstance) {
		return nil // another instance was published meanwhile, or the zone was removed
	}
	if err != nil {
		return err
	}
	defer live.Close() //nolint:errcheck // read only
	for {
		a, b := live.Next(), rebuilt.Next()
		if !a || !b {
			if a != b {
				return fmt.Errorf("s%d: the projection and the journal hold different numbers of items", p.Signed.Seq)
			}
			return errors.Join(live.Err(), rebuilt.Err())
		}
		if !bytes.Equal(live.Key(), rebuilt.Key()) || !bytes.Equal(live.Value(), rebuilt.Value()) {
			return fmt.Errorf("s%d: the projection differs from the journal at item %x", p.Signed.Seq, live.Key())
		}
	}
}

// goal is where a replay ends.
type goal struct {
	serial *uint32
	seq    uint64
	at     time.Time
}

// parseGoal reads a serial, seq:N, an instance such as s12, @N or an RFC 3339
// time.
func parseGoal(s string) (goal, error) {
	switch {
	case s == "":
		return goal{}, nil
	case strings.HasPrefix(s, "seq:"):
		n, err := strconv.ParseUint(s[4:], 10, 63)
		if err != nil || n == 0 {
			return goal{}, fmt.Errorf("%w: %q is no journal sequence", ErrInvalid, s)
		}
		return goal{seq: n}, nil
	case s[0] == 'l' || s[0] == 's':
		n, err := strconv.ParseUint(s[1:], 10, 63)
		if err != nil || n == 0 {
			return goal{}, fmt.Errorf("%w: %q is no instance", ErrInvalid, s)
		}
		return goal{seq: n}, nil
	case strings.HasPrefix(s, "@"):
		n, err := strconv.ParseInt(s[1:], 10, 63)
		if err != nil {
			return goal{}, fmt.Errorf("%w: %q is no time", ErrInvalid, s)
		}
		return goal{at: time.Unix(n, 0).UTC()}, nil
	}
	if n, err := strconv.ParseUint(s, 10, 32); err == nil {
		serial := uint32(n)
		return goal{serial: &serial}, nil
	}
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return goal{}, fmt.Errorf("%w: %q is neither a serial, nor seq:N, nor an instance, nor a time (RFC 3339 or @seconds)", ErrInvalid, s)
	}
	return goal{at: at}, nil
}

// before reports whether the goal lies before the event.
func (g goal) before(rec journal.Record) bool {
	return (g.seq != 0 && rec.Seq > g.seq) || (!g.at.IsZero() && rec.Event.Time.After(g.at))
}

// reached reports whether the event is the goal.
func (g goal) reached(rec journal.Record) bool {
	if g.seq != 0 {
		return rec.Seq >= g.seq
	}
	f, ok := rec.Event.Facts.(*event.InstancePublished)
	return ok && g.serial != nil && f.Serial == *g.serial
}
