package pipeline

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"

	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/signer"
	"sluice/signer/zone"
)

// Cause is the sequence of the event that led to a command.
func Cause(s State, c Command) uint64 {
	switch c := c.(type) {
	case BindPolicy:
		return s.Added.Seq
	case Sign:
		return max(c.Loaded, c.Refresh)
	case Publish:
		return c.Signed
	case Rollback:
		return c.Held
	case ApplyUpdates:
		return max(c.To, c.Released)
	case OpenReview:
		return c.Instance
	case RunHook:
		return c.Instance
	case CloseReview:
		return c.Instance
	case GenerateKeys, ActivateKeys, AdoptKeys, HandKeys, Load, BeginRollover, AdvanceRollover, DestroyKeys, ChangeCDS, PushSignal:
		return s.Head.Seq
	case RunParentHook, PushDS, NotifyParent:
		if s.Told != nil {
			return s.Told.Seq
		}
	}
	return s.Head.Seq
}

// do has the effects of a command and returns the facts to append. Where it
// fails, the facts say so, unless the same failure stands there already.
func (e *Engine) do(ctx context.Context, s State, c Command, report func(Progress)) ([]event.Facts, error) {
	switch c := c.(type) {
	case BindPolicy:
		return e.doBind(s, c)
	case GenerateKeys:
		return e.doGenerate(ctx, s, c)
	case AdoptKeys:
		return e.doAdopt(ctx, s)
	case ActivateKeys:
		return e.doActivate(ctx, s, c)
	case HandKeys:
		return nil, e.doHand(ctx, s, c)
	case DestroyKeys:
		return e.doDestroy(ctx, s, c)
	case BeginRollover:
		return e.doBegin(ctx, s, c)
	case AdvanceRollover:
		return e.doAdvance(ctx, s, c)
	case ChangeCDS:
		return []event.Facts{&event.CDSChanged{CDS: c.CDS, Reason: c.Reason}}, nil
	case RunParentHook:
		return e.doParentHook(ctx, s, c)
	case PushDS:
		return e.doPush(ctx, s, c)
	case PushSignal:
		return e.doSignal(ctx, s, c)
	case NotifyParent:
		return e.doNotifyParent(ctx, s, c)
	case Load:
		return e.doLoad(ctx, s, c, report)
	case Rollback:
		return e.doRollback(ctx, s, c, report)
	case ApplyUpdates:
		return e.doUpdates(ctx, s, c, report)
	case Sign:
		return e.doSign(ctx, s, c, report)
	case Publish:
		return e.doPublish(ctx, s, c, report)
	case OpenReview:
		return e.doOpenReview(ctx, s, c, report)
	case RunHook:
		return e.doHook(ctx, s, c)
	case CloseReview:
		return e.doCloseReview(s, c)
	}
	return nil, fmt.Errorf("unknown command %T", c)
}

func (e *Engine) doBind(s State, c BindPolicy) ([]event.Facts, error) {
	p, err := e.usablePolicy(c.Policy)
	if err != nil {
		return nil, err
	}
	added := s.Added.Facts
	facts := []event.Facts{&event.PolicyBound{
		Zone: added.Name, Source: added.Source, Policy: p.Name,
		SHA256: p.SHA256, Text: string(p.Text), SerialFloor: added.SerialFloor,
	}}
	if len(added.Import) > 0 {
		facts = append(facts, &event.KeyImported{Keys: added.Import, From: "zone add"})
	}
	if len(added.Public) > 0 {
		facts = append(facts, &event.KeyImported{Keys: added.Public, From: "zone add", Foreign: true})
	}
	return facts, nil
}

func (e *Engine) doGenerate(ctx context.Context, s State, c GenerateKeys) ([]event.Facts, error) {
	avoid := s.Keys.Tags()
	made := &event.KeyGenerated{Ahead: c.Ahead}
	for i, role := range c.Roles {
		spec := keymgr.Spec{Zone: s.Name, Role: role, Algorithm: c.Algorithm, Bits: c.Bits}
		if len(c.Keystores) > i {
			spec.Keystore = c.Keystores[i]
		}
		k, err := e.generateKey(ctx, spec, avoid)
		if err != nil {
			e.discard(ctx, made.Keys)
			return nil, fmt.Errorf("generate %s: %w", role, err)
		}
		avoid = append(avoid, k.Tag)
		made.Keys = append(made.Keys, k)
	}
	return []event.Facts{made}, nil
}

func (e *Engine) doActivate(ctx context.Context, s State, c ActivateKeys) ([]event.Facts, error) {
	p, err := e.boundPolicy(s)
	if err != nil {
		return nil, err
	}
	for _, id := range c.IDs {
		k, ok := s.Keys.ByID(id)
		if !ok {
			return nil, fmt.Errorf("key %s: %w", id, ErrNotFound)
		}
		if err := e.proveKey(ctx, k.Key); err != nil {
			return nil, err
		}
	}
	return withLives(s.Keys, p, []event.Facts{&event.KeyActivated{IDs: slices.Clone(c.IDs)}}), nil
}

// doPublish lets a signed instance out once the egress gate has passed it,
// where a review has not asked for that already.
func (e *Engine) doPublish(ctx context.Context, s State, c Publish, report func(Progress)) ([]event.Facts, error) {
	f := s.Signed.Facts
	var gate *event.Gate
	if s.review(event.StageSigned, c.Signed) == nil {
		passed, failed, err := e.passGate(ctx, s, c.Signed, report)
		if err != nil {
			return nil, err
		}
		if failed != nil {
			return []event.Facts{failed}, errors.New(failed.Reason)
		}
		gate = passed
	}
	p, err := e.boundPolicy(s)
	if err != nil {
		return nil, err
	}
	return []event.Facts{&event.InstancePublished{
		Signed: c.Signed, Loaded: f.Loaded, Serial: f.Serial, SignedDigest: f.SignedDigest, Keep: p.DiffLimits(), Gate: gate,
	}}, nil
}

// signerKeys opens the keys that a signing run uses.
func (e *Engine) signerKeys(ctx context.Context, ks keymgr.KeySet) ([]signer.Key, error) {
	return keymgr.SignerKeys(ks, func(k keymgr.Key) (crypto.Signer, error) {
		in, err := e.keystoreOf(k.Keystore)
		if err != nil {
			return nil, err
		}
		return e.openSigner(ctx, in, k.Reference)
	})
}

// openSigner opens a private key. What a token signs with it is timed; what the
// processor signs is not, since that takes hardly longer than looking at a clock.
func (e *Engine) openSigner(ctx context.Context, in keymgr.Keystore, reference string) (crypto.Signer, error) {
	began := machineTime()
	s, err := in.Signer(ctx, reference)
	e.counts.keystores.of(in.Name(), "open").add(began, err)
	if _, token := in.(keymgr.TokenKeystore); token && err == nil {
		s = timed(s, e.counts.keystores.of(in.Name(), "sign"))
	}
	return s, err
}

// apexOf is the zone's name in wire form.
func apexOf(s State) (zone.Name, error) { return zone.ParseName(s.Name) }
