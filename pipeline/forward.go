package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/pipeline/observe"
	"sluice/signer/zone"
)

// What the owner of a role in a zone is asked for.
const (
	askReload   = "reload"   // load: read the source now
	askNotified = "notified" // load: a server of the source sent NOTIFY
	askAnswered = "answered" // load: when the servers of the partition's zones last answered
	askResign   = "resign"   // sign: sign now
	askIdle     = "idle"     // sign: wait until nothing is being signed
	askObserve  = "observe"  // keys: look now
	askNotify   = "notify"   // publish: tell the secondaries again
	askAwait    = "await"    // any: wait until the zone is at rest
)

// question is what the owner of a role is asked.
type question struct {
	Do     string       `json:"do"`
	Zone   event.ZoneID `json:"zone,omitempty"`
	Full   bool         `json:"full,omitempty"`
	Serial *uint32      `json:"serial,omitempty"`
	// Folded is what the asker has folded: the owner answers once it has, too.
	Folded uint64 `json:"folded"`
}

// reply is what the owner answers.
type reply struct {
	// Error says why not; Kind is what it is like.
	Error string `json:"error,omitempty"`
	Kind  string `json:"kind,omitempty"` // not-found, state, invalid; empty is any other
	// Folded is what the owner has folded; Done: what was waited for has come.
	Folded uint64 `json:"folded,omitempty"`
	Done   bool   `json:"done,omitempty"`
	// Status is how the zone is after it was observed.
	Status *ZoneStatus `json:"status,omitempty"`
	// Answered is when the servers of zones last answered, in epoch seconds.
	Answered map[event.ZoneID]int64 `json:"answered,omitempty"`
}

// errorKinds are the errors that keep their meaning on the way to the asker.
func errorKinds() map[string]error {
	return map[string]error{"not-found": ErrNotFound, "state": ErrState, "invalid": ErrInvalid}
}

// carried is an error that another worker answered with.
type carriedError struct {
	text string
	kind error
}

func (c carriedError) Error() string { return c.text }
func (c carriedError) Unwrap() error { return c.kind }

const (
	// askTime is how long an answer may take on its way.
	askTime = 5 * time.Second
	// beginTime is how long an owner may take to begin something.
	beginTime = 3 * time.Second
	// awaitTime is how long an owner waits for something before it answers that
	// it has not come yet: the asker may have gone, or the owner be another.
	awaitTime = 10 * time.Second
)

// time is how long the owner may take.
func (q question) time() time.Duration {
	switch q.Do {
	case askObserve:
		return observeTime
	case askIdle, askAwait:
		return awaitTime
	}
	return beginTime
}

// owner asks the owner of a role in the zone.
func (r *runner) owner(ctx context.Context, role Role, q question) (reply, error) {
	if r.e.duties == nil {
		return reply{}, fmt.Errorf("zone %s: this process has no role %s and shares its journal with no other: %w", r.snapshot().Name, role, ErrState)
	}
	q.Zone = r.id
	a, err := r.e.askOwner(ctx, duty{role, PartitionOf(r.id)}, q)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		err = fmt.Errorf("who has role %s for zone %s does not answer: %w; another worker with the role takes over within %s: ask again then, and see: sluice worker list",
			role, r.snapshot().Name, ErrState, r.e.cfg.Coordinator.LeaseTime())
	}
	if errors.Is(err, journal.ErrNobody) {
		err = fmt.Errorf("nobody holds role %s for zone %s: %w; start a worker with it: sluice worker --roles %s, and see: sluice worker list",
			role, r.snapshot().Name, ErrState, role)
	}
	return a, err
}

// askOwner asks the owner of a duty.
func (e *Engine) askOwner(ctx context.Context, at duty, q question) (a reply, err error) {
	q.Folded = e.foldedSeq()
	data, err := json.Marshal(q)
	if err != nil {
		return a, err
	}
	ctx, cancel := context.WithTimeout(ctx, q.time()+askTime)
	defer cancel()
	data, err = e.cfg.Coordinator.Ask(ctx, journal.AskSubject(string(at.role), at.partition), data)
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal(data, &a); err != nil {
		return a, fmt.Errorf("answer of the owner of role %s: %w", at.role, err)
	}
	if a.Error != "" {
		return a, carriedError{text: a.Error, kind: errorKinds()[a.Kind]}
	}
	return a, nil
}

// answerAs answers what the owner of a duty is asked.
func (e *Engine) answerAs(at duty) (stop func(), err error) {
	return e.cfg.Coordinator.Answer(journal.AskSubject(string(at.role), at.partition), "", func(ctx context.Context, data []byte) ([]byte, error) {
		var q question
		if err := json.Unmarshal(data, &q); err != nil {
			return nil, err
		}
		a, err := e.answer(ctx, at, q)
		if err != nil {
			a.Error = err.Error()
			for kind, is := range errorKinds() {
				if errors.Is(err, is) {
					a.Kind = kind
				}
			}
		}
		a.Folded = e.foldedSeq()
		return json.Marshal(a)
	})
}

// answer does what another worker asked of this one.
func (e *Engine) answer(ctx context.Context, at duty, q question) (a reply, err error) {
	ctx, cancel := context.WithTimeout(ctx, q.time())
	defer cancel()
	if q.Do == askAnswered {
		a.Answered = e.answeredIn(at.partition)
		return a, nil
	}
	if err := e.awaitFold(ctx, q.Folded); err != nil {
		return a, fmt.Errorf("worker %s is behind the journal: %w", e.worker, ErrState)
	}
	e.mu.RLock()
	r := e.runners[q.Zone]
	e.mu.RUnlock()
	if r == nil || r.snapshot().Removed != 0 {
		return a, fmt.Errorf("zone %s: %w", q.Zone, ErrNotFound)
	}
	switch q.Do {
	case askReload:
		r.askReload(q.Full)
	case askNotified:
		var serial *zone.Serial
		if q.Serial != nil {
			serial = new(zone.Serial(*q.Serial))
		}
		r.notified(serial)
	case askResign:
		r.askResign(q.Full)
	case askNotify:
		r.announce()
	case askObserve:
		if err = r.lookFresh(ctx); err == nil {
			a.Status = new(r.status())
		} else if errors.Is(err, context.DeadlineExceeded) {
			err = nil // it goes on
		}
	case askIdle:
		a.Done = r.awaitIdle(ctx, func() bool { return !r.lanes[SigningLane].holdsBack() })
	case askAwait:
		a.Done = r.awaitIdle(ctx, r.atRest)
	default:
		err = fmt.Errorf("%w: worker %s does not know how to %q: it may be an older program", ErrInvalid, e.worker, q.Do)
	}
	return a, err
}

// awaitIdle waits until a condition that is asked with mu held is met, and
// reports whether it was before ctx ended.
func (r *runner) awaitIdle(ctx context.Context, met func() bool) bool {
	for {
		r.mu.Lock()
		ok, changed := met(), r.changed
		r.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// ask has the owner of a role begin something; here is what this process does
// where it is the owner itself.
func (r *runner) ask(ctx context.Context, role Role, q question, here func()) error {
	if r.e.owns(role, r.id) {
		here()
		return nil
	}
	_, err := r.owner(ctx, role, q)
	return err
}

// awaitOthers waits until the owners of the zone's other work have nothing to
// do but wait for time to pass, and until what they folded is folded here. It
// reports whether anything came of that meanwhile.
func (r *runner) awaitOthers(ctx context.Context) (moved bool, err error) {
	if r.e.duties == nil {
		return false, nil
	}
	before := r.snapshot().Head.Seq
	for _, role := range ownedRoles() {
		for !r.e.owns(role, r.id) {
			a, err := r.owner(ctx, role, question{Do: askAwait})
			if ctx.Err() != nil {
				return false, ctx.Err()
			}
			if err != nil {
				break // nobody does that work: nothing more comes of it
			}
			if err := r.e.awaitFold(ctx, a.Folded); err != nil {
				return false, err
			}
			if a.Done {
				break
			}
		}
	}
	return r.snapshot().Head.Seq != before, nil
}

// awaitSigner waits until the worker that signs the zone signs nothing. It is a
// courtesy: what was signed meanwhile would be signed in vain.
func (r *runner) awaitSigner(ctx context.Context) error {
	for r.e.duties != nil && !r.e.owns(RoleSign, r.id) {
		a, err := r.owner(ctx, RoleSign, question{Do: askIdle})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil || a.Done {
			return nil //nolint:nilerr // nobody signs
		}
	}
	return nil
}

// handOn gives requests that came while this process did the work to whoever
// does it now. What cannot be handed on is tried again in the next round.
func (e *Engine) handOn(ctx context.Context) {
	for _, r := range e.allRunners() {
		r.mu.Lock()
		reload, full, loads := r.reload, r.full, r.lanes[ContentLane].runs()
		resign, resignFull, signs := r.resign, r.resignFull, r.lanes[SigningLane].runs()
		r.mu.Unlock()
		if reload != 0 && !loads && !e.owns(RoleLoad, r.id) {
			if _, err := r.owner(ctx, RoleLoad, question{Do: askReload, Full: full}); err == nil {
				r.mu.Lock()
				if r.reload == reload {
					r.reload, r.full = 0, false
				}
				r.mu.Unlock()
			}
		}
		if resign != 0 && !signs && !e.owns(RoleSign, r.id) {
			if _, err := r.owner(ctx, RoleSign, question{Do: askResign, Full: resignFull}); err == nil {
				r.mu.Lock()
				if r.resign == resign {
					r.resign, r.resignFull = 0, false
				}
				r.mu.Unlock()
			}
		}
	}
}

// answeredIn is when the servers of the zones of a partition last answered.
func (e *Engine) answeredIn(partition int) map[event.ZoneID]int64 {
	out := map[event.ZoneID]int64{}
	for _, r := range e.allRunners() {
		if PartitionOf(r.id) != partition {
			continue
		}
		r.mu.Lock()
		if good := r.up.good; !good.IsZero() && r.up.source == r.state.Source && len(out) < maxAnswered {
			out[r.id] = good.Unix()
		}
		r.mu.Unlock()
	}
	return out
}

// maxAnswered bounds the zones of one answer, which must fit into a message.
const maxAnswered = 20_000

// askAnsweredEvery is how often it is asked when servers last answered.
const askAnsweredEvery = time.Minute

// keepAnswered asks those who load when the servers of zones last answered:
// EXPIRE counts from then wherever the zones are signed and served.
func (e *Engine) keepAnswered(ctx context.Context) {
	tick := time.NewTicker(askAnsweredEvery)
	defer tick.Stop()
	for {
		e.hearAnswered(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (e *Engine) hearAnswered(ctx context.Context) {
	wanted := map[int]bool{}
	for _, r := range e.allRunners() {
		if s := r.snapshot(); s.Removed == 0 && IsTransfer(s.Source) && !e.owns(RoleLoad, r.id) {
			wanted[PartitionOf(r.id)] = true
		}
	}
	for p := range wanted {
		a, err := e.askOwner(ctx, duty{RoleLoad, p}, question{Do: askAnswered})
		if err != nil {
			continue // asked again; without it a zone expires sooner, never later
		}
		for id, at := range a.Answered {
			e.mu.RLock()
			r := e.runners[id]
			e.mu.RUnlock()
			if r != nil {
				r.mu.Lock()
				r.answered = time.Unix(at, 0).UTC()
				r.mu.Unlock()
			}
		}
	}
}

// observeQuestion is an observe.Question on its way: names in wire form are no
// JSON strings.
type observeQuestion struct {
	Zone    []byte         `json:"zone"`
	Owners  [][]byte       `json:"owners,omitempty"`
	Samples []zone.Type    `json:"samples,omitempty"` // types, one an owner
	Rest    observedInPart `json:"rest"`
}

// observedInPart is what of a question is JSON as it is.
type observedInPart struct {
	Servers, Parent               []observe.Server
	SkipParent, Fresh, Find, Tags bool
	Now                           time.Time
}

func encodeQuestion(q observe.Question) ([]byte, error) {
	out := observeQuestion{Zone: []byte(q.Zone), Rest: observedInPart{
		Servers: q.Servers, Parent: q.Parent, SkipParent: q.SkipParent, Fresh: q.Fresh, Find: q.Find, Tags: q.Tags, Now: q.Now,
	}}
	for _, s := range q.Samples {
		out.Owners, out.Samples = append(out.Owners, []byte(s.Owner)), append(out.Samples, s.Type)
	}
	return json.Marshal(out)
}

func decodeQuestion(data []byte) (q observe.Question, err error) {
	var in observeQuestion
	if err := json.Unmarshal(data, &in); err != nil {
		return q, err
	}
	q = observe.Question{
		Servers: in.Rest.Servers, Parent: in.Rest.Parent, SkipParent: in.Rest.SkipParent, Fresh: in.Rest.Fresh,
		Find: in.Rest.Find, Tags: in.Rest.Tags, Now: in.Rest.Now,
	}
	if q.Zone, err = zone.NameFromWire(in.Zone); err != nil {
		return q, err
	}
	if len(in.Owners) != len(in.Samples) {
		return q, fmt.Errorf("%w: %d owners of %d samples", ErrInvalid, len(in.Owners), len(in.Samples))
	}
	for i, owner := range in.Owners {
		name, err := zone.NameFromWire(owner)
		if err != nil {
			return q, err
		}
		q.Samples = append(q.Samples, observe.Sample{Owner: name, Type: in.Samples[i]})
	}
	return q, nil
}

// observeTime is how long somebody else's observation may take.
const observeTime = 2 * time.Minute

// observeThere has a worker with role observe look.
func (e *Engine) observeThere(ctx context.Context, q observe.Question) keymgr.Observation {
	var obs keymgr.Observation
	ctx, cancel := context.WithTimeout(ctx, observeTime)
	defer cancel()
	data, err := encodeQuestion(q)
	if err == nil {
		if data, err = e.cfg.Coordinator.Ask(ctx, journal.DoSubject(string(RoleObserve)), data); err == nil {
			err = json.Unmarshal(data, &obs)
		}
	}
	if err == nil {
		return obs
	}
	if errors.Is(err, journal.ErrNobody) {
		err = errors.New("no worker has role observe: start one with it")
	}
	return unseen(q, err)
}

// unseen is an observation that failed as a whole.
func unseen(q observe.Question, err error) keymgr.Observation {
	obs := keymgr.Observation{At: q.Now}
	failed := func(servers []observe.Server) (out []keymgr.Seen) {
		for _, s := range servers {
			out = append(out, keymgr.Seen{Server: s.Name, Error: oneLine(err.Error())})
		}
		return out
	}
	obs.Zone = failed(q.Servers)
	if !q.SkipParent {
		parent := q.Parent
		if len(parent) == 0 {
			parent = []observe.Server{{Name: "parent"}}
		}
		obs.Parent = failed(parent)
	}
	return obs
}

// answerObserve looks for workers that do not.
func (e *Engine) answerObserve() (stop func(), err error) {
	return e.cfg.Coordinator.Answer(journal.DoSubject(string(RoleObserve)), string(RoleObserve), func(ctx context.Context, data []byte) ([]byte, error) {
		q, err := decodeQuestion(data)
		if err != nil {
			return nil, err
		}
		return json.Marshal(e.local(ctx, q))
	})
}

// hasRole reports whether this process takes part in the work of a role.
func (e *Engine) hasRole(role Role) bool { return slices.Contains(e.roles, role) }

// keepsKeys is an error where this process keeps no private keys.
func (e *Engine) keepsKeys() error {
	if e.hasRole(RoleKeys) {
		return nil
	}
	return fmt.Errorf("this process does not keep keys (its roles: %s); ask a worker with role keys, see: sluice worker list: %w",
		roleWords(e.roles), ErrState)
}
