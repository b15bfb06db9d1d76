package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/keymgr/share"
)

// Sharing is how secrets get from one process of an instance to another.
type Sharing struct {
	// Identity is what this process opens and signs them with; nil shares
	// nothing, and nothing is asked for.
	Identity *share.Identity
	// Enroll has the process enroll itself with the roles named, as soon as
	// another one is: what it sends could not be told from a stranger's else.
	// Empty where somebody else has enrolled it.
	Enroll []string
}

const (
	// handTime bounds how long another worker may take to take up a key.
	handTime = 10 * time.Second
	// behindTime is how long a worker waits for an event that a parcel is about.
	behindTime = 5 * time.Second
	// maxSharing bounds how many keys are handed out at a time.
	maxSharing = 8
)

// shares is what this process knows of secrets, its own and those of others.
type shares struct {
	mu     sync.Mutex
	living []string                 // guarded by mu; sorted
	about  string                   // guarded by mu; the provers when zones were last told
	holds  map[string]bool          // guarded by mu; keys in files whose private parts are here, by ID
	asked  map[share.Nonce]struct{} // guarded by mu; of parcels that are waited for
}

// sharing reports whether secrets are shared.
func (e *Engine) sharing() bool {
	return e.cfg.Sharing.Identity != nil && e.duties != nil
}

// enrolled is the worker of a name; false where none is enrolled so.
func (e *Engine) enrolled(name string) (Enrolled, bool) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	w, ok := e.registry.Workers[name]
	return w, ok
}

func (w Enrolled) peer() share.Peer { return share.Peer{Name: w.Name, Recipient: w.Age, NKey: w.NKey} }

// otherWorkers is what a decision sees of the workers; it is empty where this
// process works alone.
func (e *Engine) otherWorkers() Workers {
	e.mu.RLock()
	known := e.registry.Workers
	e.mu.RUnlock()
	if len(known) == 0 || !e.sharing() {
		return Workers{}
	}
	out := Workers{Provers: proversOf(known, e.worker)}
	e.shares.mu.Lock()
	out.Living = e.shares.living
	e.shares.mu.Unlock()
	return out
}

// proveText is the answer to a parcel that asks for a proof.
type proveText struct {
	Signature []byte `json:"signature"`
}

// doHand has workers prove keys, all workers at a time, and records each proof
// as it comes: one that does not answer does not hold up the others.
func (e *Engine) doHand(ctx context.Context, s State, c HandKeys) error {
	e.mu.RLock()
	r := e.runners[s.Zone]
	e.mu.RUnlock()
	if r == nil {
		return fmt.Errorf("zone %s: %w", s.Name, ErrNotFound)
	}
	errs := make([]error, len(c.To))
	var wg sync.WaitGroup
	for i, to := range c.To {
		wg.Go(func() {
			var proved []string
			err := attempt(func() (err error) {
				proved, err = e.handAll(ctx, s, to)
				return err
			})
			if len(proved) > 0 {
				err = errors.Join(err, e.appendZone(ctx, event.Program, r, func(now State) (event.Facts, error) {
					return provedFact(now, e.otherWorkers().Provers, to.Worker, proved), nil
				}))
			}
			if err != nil {
				err = fmt.Errorf("worker %s: %w", to.Worker, err)
			}
			r.handed(to.Worker, err)
			errs[i] = err
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// handed notes what became of handing keys to a worker.
func (r *runner) handed(worker string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		delete(r.unhanded, worker)
		return
	}
	if r.unhanded == nil {
		r.unhanded = map[string]string{}
	}
	r.unhanded[worker] = oneLine(err.Error())
}

// shareBackoff is how long it takes until keys are handed out again after the
// given number of failures in a row: a few seconds, doubled up to ten minutes. A
// worker that comes or goes makes another command, which waits for nothing.
func shareBackoff(tries int) time.Duration {
	return min(5*time.Second<<max(0, min(tries-1, 7)), 10*time.Minute)
}

// retryHanding has what failed be tried again at once.
func (r *runner) retryHanding() {
	r.mu.Lock()
	lane := &r.lanes[ShareLane]
	lane.tries, lane.LaneState, lane.failure = 0, LaneState{}, nil
	r.mu.Unlock()
	r.step()
}

// handAll has one worker prove keys, and returns the IDs of those that it did.
func (e *Engine) handAll(ctx context.Context, s State, to Handing) (proved []string, err error) {
	w, ok := e.enrolled(to.Worker)
	if !ok || w.NKey != to.NKey || !keepsKeys(w) {
		return nil, fmt.Errorf("%w: it is not enrolled any more for roles that have keys", ErrState)
	}
	for _, id := range to.IDs {
		k, ok := s.Keys.ByID(id)
		if !ok {
			return proved, fmt.Errorf("key %s: %w", id, ErrNotFound)
		}
		if to.Worker == e.worker {
			err = e.proveKey(ctx, k.Key)
		} else {
			err = e.handKey(ctx, s, k.Key, w)
		}
		if err != nil {
			return proved, err
		}
		proved = append(proved, id)
	}
	return proved, nil
}

// handKey hands a key to a worker, or only has it prove one that is on a token,
// and verifies the proof.
func (e *Engine) handKey(ctx context.Context, s State, k event.Key, to Enrolled) error {
	p, err := e.newParcel(ctx, s, k.ID)
	if err != nil {
		return err
	}
	defer p.Wipe()
	p.Kind, p.To = share.KindProof, to.Name
	if k.Keystore == e.keystore.Name() {
		files, ok := e.keystore.(keymgr.Sharer)
		if !ok {
			return errorState("keystore %s gives no keys out", k.Keystore)
		}
		p.Kind = share.KindKey
		if p.Secret, err = files.Share(ctx, k.Reference); err != nil {
			return fmt.Errorf("key %s: %w", k.ID, err)
		}
	}
	answer, err := e.send(ctx, to, p)
	if err != nil {
		return fmt.Errorf("key %s: %w", k.ID, err)
	}
	var proof proveText
	if err := json.Unmarshal(answer, &proof); err != nil {
		return fmt.Errorf("key %s: its answer is damaged", k.ID)
	}
	return p.Verify(proof.Signature, k)
}

// newParcel begins a parcel about a key of a zone.
func (e *Engine) newParcel(ctx context.Context, s State, id string) (share.Parcel, error) {
	stream, _, err := e.journal.Stream(ctx)
	if err != nil {
		return share.Parcel{}, err
	}
	nonce, err := share.NewNonce()
	return share.Parcel{Context: share.Context{Stream: stream, Zone: s.Zone, Name: s.Name, Key: id}, Nonce: nonce}, err
}

// send seals a parcel for a worker and waits for its answer.
func (e *Engine) send(ctx context.Context, to Enrolled, p share.Parcel) ([]byte, error) {
	sealed, err := share.Seal(e.cfg.Sharing.Identity, to.peer(), p)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, handTime)
	defer cancel()
	return e.cfg.Coordinator.Ask(ctx, journal.ToSubject(to.Name), sealed)
}

// holdsKey reports whether the private part of a file's key is here. Once it was
// found it is not looked for again, until it is missed.
func (e *Engine) holdsKey(k event.Key) bool {
	files, ok := e.keystore.(keymgr.Sharer)
	if !ok || k.Keystore != e.keystore.Name() {
		return true // it is found out when it is used
	}
	e.shares.mu.Lock()
	defer e.shares.mu.Unlock()
	if !e.shares.holds[k.ID] && files.Holds(k.Reference) {
		if e.shares.holds == nil {
			e.shares.holds = map[string]bool{}
		}
		e.shares.holds[k.ID] = true
	}
	return e.shares.holds[k.ID]
}

// lookAgain forgets whether a key is here.
func (e *Engine) lookAgain(id string) {
	e.shares.mu.Lock()
	defer e.shares.mu.Unlock()
	delete(e.shares.holds, id)
}

// lacks is the IDs of the keys that sign a zone and whose private parts are not
// here; none where this process works alone.
func (e *Engine) lacks(s State) []string {
	if !e.sharing() {
		return nil
	}
	var out []string
	for _, k := range s.Keys.Signing() {
		if !e.holdsKey(k.Key) {
			out = append(out, k.ID)
		}
	}
	slices.Sort(out)
	return out
}

// missed reports whether a signing failed because a private part that was here
// is gone. Others may sign: it is no failure of the zone.
func (e *Engine) missed(s State, err error) bool {
	if !e.sharing() || !errors.Is(err, keymgr.ErrNoKey) {
		return false
	}
	for _, k := range s.Keys.Signing() {
		e.lookAgain(k.ID)
	}
	return len(e.lacks(s)) > 0
}
