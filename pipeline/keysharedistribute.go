package pipeline

import (
	"context"
	"slices"
	"time"
)

// KeyShare is whether a worker holds the keys of a zone.
type KeyShare struct {
	Zone   string `json:"zone"`
	Worker string `json:"worker"`
	// State is proved (it has all), failed (Reason says why), away (it does not
	// answer: it gets them when it is back) or waiting (it gets them now).
	State  string   `json:"state"`
	Proved []string `json:"proved,omitempty"` // IDs of the keys that it proved
	Lacks  []string `json:"lacks,omitempty"`  // of those that it did not
	Reason string   `json:"reason,omitempty"`
}

// States of a KeyShare.
const (
	handProved  = "proved"
	handFailed  = "failed"
	handAway    = "away"
	handWaiting = "waiting"
)

// distributeTime bounds for how long a door waits for workers.
const distributeTime = 30 * time.Second

// DistributeKeys has workers prove the keys of a zone, or of all where name is
// "", now: what failed before is tried again at once. It waits for those that
// answer, and says of each worker that is to have the keys what it has. The list
// is empty where no other worker is to have any. Errors: ErrNotFound, ErrState
// (the journal is still being read).
func (e *Engine) DistributeKeys(ctx context.Context, name string) ([]KeyShare, error) {
	if !e.running() {
		return nil, errorState("the journal is still being read")
	}
	runners, err := e.runnersOf(name)
	if err != nil {
		return nil, err
	}
	if e.sharing() {
		if err := e.lookAtWorkers(ctx); err != nil {
			return nil, err
		}
	}
	wait, cancel := context.WithTimeout(ctx, distributeTime)
	defer cancel()
	for _, r := range runners {
		r.retryHanding()
	}
	out := []KeyShare{}
	for _, r := range runners {
		r.awaitHanded(wait)
		out = append(out, r.keyShares()...)
	}
	return out, ctx.Err()
}

// awaitHanded waits until no key is on its way to a worker.
func (r *runner) awaitHanded(ctx context.Context) {
	for {
		r.mu.Lock()
		changed := r.changed
		busy := r.lanes[ShareLane].busy || slices.ContainsFunc(r.decide().Commands, func(c Command) bool {
			_, hands := c.(HandKeys)
			return hands
		})
		r.mu.Unlock()
		if !busy {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// keyShares tells which workers hold the keys of the zone.
func (r *runner) keyShares() []KeyShare {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, w := r.state, r.e.otherWorkers()
	p, err := r.e.boundPolicy(s)
	if err != nil || p.Mode() != ModeSign {
		return nil
	}
	var out []KeyShare
	for _, prover := range w.Provers {
		sh := KeyShare{Zone: s.Name, Worker: prover.Worker, State: handProved, Lacks: toProve(s.Keys, prover)}
		for _, k := range s.Keys.Keys {
			if k.ProvedBy(prover) {
				sh.Proved = append(sh.Proved, k.ID)
			}
		}
		switch reason := r.unhanded[prover.Worker]; {
		case len(sh.Lacks) == 0:
		case !slices.Contains(w.Living, prover.Worker):
			sh.State, sh.Reason = handAway, "it does not answer; it gets the keys when it is back"
		case reason != "":
			sh.State, sh.Reason = handFailed, reason
		default:
			sh.State = handWaiting
		}
		out = append(out, sh)
	}
	return out
}
