package pipeline

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"filippo.io/age"
	"github.com/nats-io/nkeys"

	"sluice/journal"
	"sluice/journal/event"
)

// Enrolled is a further process that may join the journal.
type Enrolled struct {
	event.WorkerEnrolled
	Seq  uint64    `json:"seq"`  // of the event that enrolled it
	Time time.Time `json:"time"` // of the same
}

// Joining is how further processes reach the journal.
type Joining struct {
	// URLs is where, such as tls://192.0.2.1:4222; none: they cannot.
	URLs []string `json:"urls"`
	// Pin is that of the public key that the server proves itself by, Roots
	// certificates in PEM form; both empty is the system's.
	Pin   string `json:"pin,omitempty"`
	Roots string `json:"roots,omitempty"`
	// Gate: the server is a process of this program.
	Gate bool `json:"gate,omitempty"`
}

// NewWorker is what EnrollWorker needs.
type NewWorker struct {
	Name  string `json:"name"`
	Roles []Role `json:"worker_roles"`
	NKey  string `json:"nkey"` // its public key, U...
	Age   string `json:"age"`  // its recipient, age1...
}

// Enrolment is what an enrolled worker needs to know.
type Enrolment struct {
	NewWorker
	Joining
	Journal string `json:"journal"` // identity of the stream
	// Access is what the server must let it do, where that is configured by
	// hand.
	Access *journal.Access `json:"access,omitempty"`
}

// check refuses what cannot be a worker.
func (n *NewWorker) check() error {
	if !journal.ValidWorker(n.Name) {
		return fmt.Errorf("%w: name of a worker %q: want 1 to 32 lower-case letters, digits and hyphens", ErrInvalid, n.Name)
	}
	if len(n.Roles) == 0 {
		return fmt.Errorf("%w: a worker without roles: want some of %s", ErrInvalid, roleWords(AllRoles()))
	}
	for _, r := range n.Roles {
		if !slices.Contains(AllRoles(), r) {
			return fmt.Errorf("%w: role %q is none of %s", ErrInvalid, r, roleWords(AllRoles()))
		}
	}
	n.Roles = slices.Compact(slices.Sorted(slices.Values(n.Roles)))
	if !nkeys.IsValidPublicUserKey(n.NKey) {
		return fmt.Errorf("%w: public nkey %q: want that of a user, which begins with U", ErrInvalid, n.NKey)
	}
	if _, err := age.ParseX25519Recipient(n.Age); err != nil {
		return fmt.Errorf("%w: age recipient %q: want that of an X25519 identity, which begins with age1", ErrInvalid, n.Age)
	}
	return nil
}

// EnrollWorker lets a further process join the journal. Errors: ErrInvalid,
// ErrState (the name is taken, or nobody could reach the journal).
func (e *Engine) EnrollWorker(ctx context.Context, actor event.Actor, n NewWorker) (Enrolment, error) {
	if err := n.check(); err != nil {
		return Enrolment{}, err
	}
	switch {
	case len(e.cfg.Joining.URLs) > 0:
	case e.cfg.Remote:
		return Enrolment{}, errorState("this process is itself a worker: enroll others at the main process")
	default:
		return Enrolment{}, errorState("nobody else can reach this journal: start the daemon with --nats-listen IP:PORT")
	}
	identity, _, err := e.journal.Stream(ctx)
	if err != nil {
		return Enrolment{}, err
	}
	facts := &event.WorkerEnrolled{Name: n.Name, NKey: n.NKey, Age: n.Age}
	for _, r := range n.Roles {
		facts.Roles = append(facts.Roles, string(r))
	}
	err = e.appendInstance(ctx, actor, facts, func() error {
		if _, ok := e.registry.Workers[n.Name]; ok || n.Name == e.worker {
			return errorState("worker %s is there already; to give it new credentials: sluice worker remove %s", n.Name, n.Name)
		}
		for _, w := range e.registry.Workers {
			if w.NKey == n.NKey {
				return errorState("worker %s has this nkey already", w.Name)
			}
		}
		return nil
	})
	if err != nil {
		return Enrolment{}, err
	}
	out := Enrolment{NewWorker: n, Joining: e.cfg.Joining, Journal: identity}
	if !out.Gate {
		a := memberOf(event.WorkerEnrolled{Name: n.Name, NKey: n.NKey, Roles: facts.Roles}).Access()
		out.Access = &a
	}
	return out, nil
}

// RemoveWorker ends what a worker may do; its connection ends at once. Errors:
// ErrNotFound, ErrState (this process).
func (e *Engine) RemoveWorker(ctx context.Context, actor event.Actor, name string) error {
	if e.cfg.Remote && len(e.cfg.Joining.URLs) == 0 {
		return errorState("this process is itself a worker: remove others at the main process")
	}
	return e.appendInstance(ctx, actor, &event.WorkerRemoved{Name: name}, func() error {
		if name == e.worker {
			return errorState("worker %s is this process: it needs no enrolment", name)
		}
		if _, ok := e.registry.Workers[name]; !ok {
			return fmt.Errorf("worker %q: %w", name, ErrNotFound)
		}
		return nil
	})
}

func memberOf(w event.WorkerEnrolled) journal.Member {
	return journal.Member{Name: w.Name, NKey: w.NKey, Roles: w.Roles}
}

// admit tells the journal who may join it.
func (e *Engine) admit() {
	if e.cfg.Admit == nil {
		return
	}
	e.mu.RLock()
	known := e.registry.Workers
	e.mu.RUnlock()
	members := make([]journal.Member, 0, len(known))
	for name, w := range known {
		if name != e.worker {
			members = append(members, memberOf(w.WorkerEnrolled))
		}
	}
	if err := e.cfg.Admit(members); err != nil {
		e.log.Error("workers not admitted", "error", err)
	}
}

// withEnrolled adds the workers that were enrolled, and when.
func (e *Engine) withEnrolled(out WorkersStatus) WorkersStatus {
	e.mu.RLock()
	known := e.registry.Workers
	e.mu.RUnlock()
	missing := maps.Clone(known)
	for i := range out.Workers {
		w := &out.Workers[i]
		w.Alive = true
		if out.LastSeq > w.Folded {
			w.Lag = out.LastSeq - w.Folded
		}
		if enrolled, ok := known[w.Name]; ok {
			w.Enrolled = timeOrNil(enrolled.Time)
			delete(missing, w.Name)
		}
	}
	for name, w := range missing {
		status := WorkerStatus{Name: name, Enrolled: timeOrNil(w.Time)}
		for _, r := range w.Roles {
			status.Roles = append(status.Roles, Role(r))
		}
		out.Workers = append(out.Workers, status)
	}
	slices.SortFunc(out.Workers, func(a, b WorkerStatus) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// foldWorkers folds who may join. The map is replaced, never changed.
func foldWorkers(known map[string]Enrolled, rec journal.Record) map[string]Enrolled {
	next := maps.Clone(known)
	if next == nil {
		next = map[string]Enrolled{}
	}
	switch f := rec.Event.Facts.(type) {
	case *event.WorkerEnrolled:
		next[f.Name] = Enrolled{WorkerEnrolled: *f, Seq: rec.Seq, Time: rec.Event.Time}
	case *event.WorkerRemoved:
		delete(next, f.Name)
	}
	return next
}

// member reports whether this process joined a journal that another process
// looks after: what belongs to the whole instance is written there.
func (e *Engine) member() bool { return e.cfg.Member }

// keeper reports whether this process is the main one, whatever its name.
func (e *Engine) keeper() bool {
	return !e.member() && (e.worker == mainWorker || e.duties == nil || len(e.cfg.Joining.URLs) > 0)
}
