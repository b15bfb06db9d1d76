package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"sluice/journal/event"
	"sluice/keymgr"
)

// moment is what a decision about a zone sees now.
func (e *Engine) moment(s State) (Policy, Moment, error) {
	p, err := e.boundPolicy(s)
	if err != nil {
		return p, Moment{}, err
	}
	e.mu.RLock()
	r := e.runners[s.Zone]
	e.mu.RUnlock()
	if r == nil {
		return p, Moment{}, fmt.Errorf("zone %s: %w", s.Name, ErrNotFound)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return p, r.moment(), nil
}

// doAdvance records a step of a rollover.
func (e *Engine) doAdvance(ctx context.Context, s State, c AdvanceRollover) ([]event.Facts, error) {
	p, m, err := e.moment(s)
	if err != nil {
		return nil, err
	}
	do := s.Advance(p, m, c)
	return do, e.prove(ctx, s.Keys, do)
}

// Advance is what a command to go on with a rollover records; nothing where
// that is not what the rollover needs now. Keys that sign from then on must
// have proved themselves. It is pure.
func (s State) Advance(p Policy, m Moment, c AdvanceRollover) []event.Facts {
	r, ok := s.Keys.Rollover(c.Rollover)
	if !ok {
		return nil // it has ended: what is wanted is decided anew
	}
	step := keymgr.Next(s.Keys, r, p.Rollovers(), s.known(p, m))
	if step.Phase != keymgr.PhaseDo || whatOf(step.Do) != c.What {
		return nil
	}
	return withLives(s.Keys, p, step.Do)
}

func (e *Engine) doBegin(ctx context.Context, s State, c BeginRollover) ([]event.Facts, error) {
	made := &event.KeyGenerated{}
	do, err := e.begin(ctx, s, RolloverRequest{Kind: c.Kind, Reason: c.Reason}, made)
	if err != nil {
		e.discard(ctx, made.Keys)
	}
	return do, err
}

// begin makes the keys that a rollover lacks and says what begins it. made
// keeps keys that were made for the same request before.
func (e *Engine) begin(ctx context.Context, s State, q RolloverRequest, made *event.KeyGenerated) ([]event.Facts, error) {
	p, m, err := e.moment(s)
	if err != nil {
		return nil, err
	}
	generate := func(spec keymgr.Spec, avoid []uint16) (event.Key, error) {
		return e.generateKey(ctx, spec, avoid)
	}
	do, ks, err := s.Begin(p, m, q, made, generate)
	if err != nil {
		return nil, err
	}
	return do, e.prove(ctx, ks, do)
}

// Begin says what begins a rollover, and the key set with the keys that it
// brings; keys that sign from then on must have proved themselves. generate
// makes a key that is lacking, with none of the tags to avoid; made keeps keys
// that were made for the same request before, nil for none. Errors:
// keymgr.ErrConflicts, ErrState, ErrInvalid.
func (s State) Begin(p Policy, m Moment, q RolloverRequest, made *event.KeyGenerated,
	generate func(spec keymgr.Spec, avoid []uint16) (event.Key, error),
) (do []event.Facts, ks keymgr.KeySet, err error) {
	roll := p.Rollovers()
	plan, err := s.Keys.NewPlan(q.Kind, q.Method, roll)
	if err != nil {
		return nil, ks, err
	}
	plan.Reason, plan.Emergency, plan.Start = q.Reason, q.Emergency, q.Start
	if made == nil {
		made = &event.KeyGenerated{}
	}
	ks = s.Keys
	if roles := keymgr.NewRoles(q.Kind, p.UseCSK()); len(roles) > 0 {
		algorithm, bits, err := newAlgorithm(ks, p, q, plan.Old)
		if err != nil {
			return nil, ks, err
		}
		if q.Kind != keymgr.RollAlgorithm {
			plan.Old = slices.DeleteFunc(plan.Old, func(id string) bool {
				k, _ := ks.ByID(id)
				return k.Algorithm != algorithm
			})
		}
		lacking := func() (missing []keymgr.Role) {
			ks = keymgr.Evolve(s.Keys, event.Event{Time: m.Now, Facts: made})
			plan.New, missing = p.eligible(ks).Spare(roles, algorithm)
			return missing
		}
		for _, role := range lacking() {
			spec := keymgr.Spec{Zone: s.Name, Role: role, Algorithm: algorithm, Bits: bits}
			spec.Keystore, _ = p.Keystore(role)
			k, err := generate(spec, ks.Tags())
			if err != nil {
				return nil, ks, fmt.Errorf("generate %s: %w", role, err)
			}
			made.Keys = append(made.Keys, k)
			ks = keymgr.Evolve(s.Keys, event.Event{Time: m.Now, Facts: made})
		}
		if missing := lacking(); len(missing) > 0 {
			return nil, ks, fmt.Errorf("no key of role %s: %w", missing[0], ErrState)
		}
	}
	if do, err = ks.Begin(plan, roll, s.known(p, m)); err != nil {
		return nil, ks, err
	}
	if len(made.Keys) > 0 {
		do = append([]event.Facts{made}, do...)
	}
	return withLives(ks, p, do), ks, nil
}

// newAlgorithm is the algorithm of the keys that a rollover brings: that of the
// one that has signed longest among those that would leave, but for a rollover
// to another algorithm. Keys of further algorithms stay as they are, since each
// must go on to sign everything (RFC 4035, 2.2).
func newAlgorithm(ks keymgr.KeySet, p Policy, q RolloverRequest, old []string) (algorithm uint8, bits int, err error) {
	algorithm, bits = p.Algorithm(), p.Bits()
	if q.Algorithm != "" {
		if algorithm, bits, err = ParseAlgorithm(q.Algorithm); err != nil {
			return 0, 0, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
	}
	var oldest keymgr.Key
	for _, k := range ks.Signing() {
		switch {
		case q.Kind == keymgr.RollAlgorithm && k.Algorithm == algorithm:
			return 0, 0, errorState("the zone is signed with algorithm %d already: name another, or set key-manager.generation.algorithm in its policy", algorithm)
		case q.Kind == keymgr.RollAlgorithm || !slices.Contains(old, k.ID):
		case q.Algorithm != "" && k.Algorithm == algorithm:
			return algorithm, bits, nil
		case oldest.ID == "" || k.Activated.Before(oldest.Activated):
			oldest = k
		}
	}
	switch {
	case oldest.ID == "" || oldest.Algorithm == algorithm:
		return algorithm, bits, nil
	case q.Algorithm != "":
		return 0, 0, errorState("the zone is signed with algorithm %d: to change it takes a rollover of kind algorithm", oldest.Algorithm)
	}
	return oldest.Algorithm, 0, nil
}

// prove has the keys prove themselves that facts let sign.
func (e *Engine) prove(ctx context.Context, ks keymgr.KeySet, facts []event.Facts) error {
	var ids []string
	for _, f := range facts {
		switch f := f.(type) {
		case *event.KeyActivated:
			ids = append(ids, f.IDs...)
		case *event.KeyIntroduced:
			ids = append(ids, f.IDs...)
		case *event.KeyAdopted:
			for _, k := range f.Keys {
				if k.State == string(keymgr.Active) || k.State == string(keymgr.Introduced) {
					ids = append(ids, k.ID)
				}
			}
		}
	}
	for _, id := range ids {
		k, ok := ks.ByID(id)
		if !ok {
			return fmt.Errorf("key %s: %w", id, ErrNotFound)
		}
		if err := e.proveKey(ctx, k.Key); err != nil {
			return err
		}
	}
	return nil
}

// alsoSigning is the DNSKEY RDATA of the keys that sign an instance without
// standing in its DNSKEY RRset.
func alsoSigning(s State, f event.InstanceSigned) [][]byte {
	var out [][]byte
	for _, id := range f.Signers {
		if slices.Contains(f.Keys, id) {
			continue
		}
		if k, ok := s.Keys.ByID(id); ok {
			if rdata, err := keymgr.RData(k.Key); err == nil {
				out = append(out, rdata)
			}
		}
	}
	return out
}

// doDestroy deletes private parts. One that is gone already is no error.
func (e *Engine) doDestroy(ctx context.Context, s State, c DestroyKeys) ([]event.Facts, error) {
	for _, id := range c.IDs {
		k, ok := s.Keys.ByID(id)
		if !ok {
			return nil, fmt.Errorf("key %s: %w", id, ErrNotFound)
		}
		in, err := e.keystoreOf(k.Keystore)
		if err != nil {
			return nil, fmt.Errorf("delete the private part of key %s: %w", id, err)
		}
		if err := in.Remove(ctx, k.Reference); err != nil && !errors.Is(err, keymgr.ErrNoKey) {
			return nil, fmt.Errorf("delete the private part of key %s: %w", id, err)
		}
	}
	return []event.Facts{&event.KeyDestroyed{IDs: c.IDs}}, nil
}
