package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sluice/journal/event"
	"sluice/signer"
	"sluice/signer/zone"
)

// doSign signs a loaded instance.
func (e *Engine) doSign(ctx context.Context, s State, c Sign, report func(Progress)) ([]event.Facts, error) {
	began, mark := e.clock.Now(), machineTime()
	facts, err := e.sign(ctx, s, c, report)
	e.counts.signed(ctx, c.mode(), facts, mark, err)
	if err == nil {
		facts.DurationMS = uint64(max(0, e.clock.Now().Sub(began).Milliseconds()))
		return []event.Facts{facts}, nil
	}
	if ctx.Err() != nil {
		return nil, err
	}
	if e.missed(s, err) {
		return nil, err
	}
	failed := &event.SignFailed{Loaded: c.Loaded, Stage: "sign", Reason: oneLine(err.Error())}
	if bad, ok := errors.AsType[*unfitError](err); ok {
		failed = bad.facts(c.Loaded)
	}
	if last := s.SignFailure; last != nil && last.Reason == failed.Reason && last.Loaded == failed.Loaded {
		return nil, err
	}
	return []event.Facts{failed}, err
}

func (e *Engine) sign(ctx context.Context, s State, c Sign, report func(Progress)) (*event.InstanceSigned, error) {
	p, err := e.boundPolicy(s)
	if err != nil {
		return nil, err
	}
	apex, err := apexOf(s)
	if err != nil {
		return nil, err
	}
	now := e.clock.Now()
	content := s.loaded(c.Loaded)
	if content == nil {
		return nil, fmt.Errorf("l%d: %w", c.Loaded, ErrNotFound)
	}
	switch c.mode() {
	case ModePassThrough:
		return e.passThrough(ctx, s, c, p, report)
	case ModeUnsigned:
		return e.unsigned(ctx, s, c, p)
	case ModeSign:
	}
	serial, err := s.NextSerial(p, content.Facts.Serial, now)
	if err != nil {
		return nil, err
	}
	keys, err := e.signerKeys(ctx, s.Keys)
	if err != nil {
		return nil, err
	}
	params := p.SignParams(apex, serial, now)
	params.Workers = e.cfg.Workers
	params.CDSDelete = s.Keys.CDSDelete()
	total := int64(content.Facts.RRsets)
	params.Progress = func(n uint64) { report(Progress{Stage: "sign", Done: int64(n), Total: total}) }
	out := newChunkSink(ctx, e.signJournal.NewChunks(s.Zone, c.Identity()))
	due := dueSlice(s, c, p, now)
	due.spread = spreadOf(s, c, p, keys, now)
	params.Spread = due.spread.params()
	res, err := e.makeSigned(ctx, s, c, due, keys, params, out, report)
	if err != nil {
		return nil, err
	}
	if res.ContentSum != content.Facts.ContentDigest {
		return nil, fmt.Errorf("l%d: content digest of the projection differs from the event's", c.Loaded)
	}
	facts := &event.InstanceSigned{
		Loaded: c.Loaded, Serial: uint32(serial), Base: c.Base, Manifest: res.manifest, Parts: res.parts,
		ContentDigest: res.ContentSum, SignedDigest: res.SignedSum,
		Keys: c.Keys, Signers: c.Signers, CDS: c.CDS, Denial: string(params.Denial), Params: c.Params,
		Records: res.Records, Signatures: res.Signatures,
		Made: res.Made, Reused: res.Reused, Verified: res.Verified,
		NewSets: res.NewSets, Dropped: res.Dropped, DenialChanged: res.DenialChanged,
		Inception: params.Inception.Unix(), Expiration: params.Expiration.Unix(), Earliest: res.Earliest.Unix(),
	}
	facts.SignedBy = signedByKeys(res.SignedBy, keys)
	facts.Exchange = due.spread.left(facts.SignedBy, zoneSigners(s.Keys, c.Signers))
	if s.Published != nil {
		facts.Previous = s.Published.Signed.Facts.Serial
	}
	return facts, nil
}

// makeSigned signs what changed and what is due where that is little, else the
// whole zone, where it is large with the help of others. The manifest names what
// was made.
func (e *Engine) makeSigned(ctx context.Context, s State, c Sign, due slice, keys []signer.Key, params signer.Params, out *chunkSink, report func(Progress)) (signed, error) {
	res, err := e.signChanges(ctx, s, c, due, keys, params, out)
	if errors.Is(err, signer.ErrFull) {
		if helpers := e.helpers(ctx, s, c, params); len(helpers) > 0 {
			return e.signShared(ctx, s, c, keys, params, helpers, report)
		}
		res, err = e.signWhole(ctx, s, c, keys, params, out)
	}
	if err != nil {
		return signed{}, err
	}
	manifest, err := out.finish()
	return signed{res, manifest, nil}, err
}

// signChanges signs what changed and what is due; signer.ErrFull where that is
// much or cannot be told.
func (e *Engine) signChanges(ctx context.Context, s State, c Sign, due slice, keys []signer.Key, params signer.Params, out *chunkSink) (*signer.Result, error) {
	fewChanges, err := e.updatable(s, c, keys, due.spread)
	if err != nil {
		return nil, err
	}
	if !fewChanges {
		return nil, signer.ErrFull
	}
	return e.update(ctx, s, c, due, keys, params, out)
}

// signWhole signs the whole zone in this process.
func (e *Engine) signWhole(ctx context.Context, s State, c Sign, keys []signer.Key, params signer.Params, out *chunkSink) (*signer.Result, error) {
	in, done, err := e.signInput(s, c)
	if err != nil {
		return nil, err
	}
	defer done() //nolint:errcheck // read only
	return signer.Sign(ctx, in, keys, params, out)
}

// NextSerial picks the serial of the next signed instance, source being that of
// what is signed: never back, not even behind one that was signed and not
// published. It is pure.
func (s State) NextSerial(p Policy, source uint32, now time.Time) (zone.Serial, error) {
	// What was signed here stays fresh under a policy that passes through.
	previous, floor := s.serials()
	serial, err := NextSerial(p.set.serial, zone.Serial(source), previous, floor, now)
	if err != nil {
		return 0, fmt.Errorf("serial: %w", err)
	}
	return serial, nil
}

// signInput opens what a signing run reads, and a function that closes it.
func (e *Engine) signInput(s State, c Sign) (signer.Input, func() error, error) {
	in := signer.Input{Spill: e.signSpill}
	var opened []zone.Iterator
	done := func() error {
		var err error
		for _, it := range opened {
			err = errors.Join(err, it.Close())
		}
		return err
	}
	open := func(it zone.Iterator, err error) (zone.Iterator, error) {
		if err == nil {
			opened = append(opened, it)
		}
		return it, err
	}
	fail := func(err error) (signer.Input, func() error, error) {
		return signer.Input{}, nil, errors.Join(err, done())
	}
	var err error
	if in.Contents, err = open(e.store.Contents(s.Zone, c.Loaded)); err != nil {
		return fail(err)
	}
	if in.ContentState, err = e.store.ContentState(s.Zone, c.Loaded); err != nil {
		return fail(err)
	}
	if c.Base == 0 {
		return in, done, nil
	}
	prev := &signer.Previous{}
	if prev.Contents, err = open(e.store.Contents(s.Zone, s.Published.Loaded.Seq)); err != nil {
		return fail(err)
	}
	for _, part := range []struct {
		kind zone.Kind
		to   *zone.Iterator
	}{
		{zone.KindMade, &prev.Made},
		{zone.KindSigs, &prev.Sigs},
		{zone.KindChain, &prev.Chain},
		{zone.KindChainSigs, &prev.ChainSigs},
	} {
		if *part.to, err = open(e.store.Made(s.Zone, c.Base, part.kind)); err != nil {
			return fail(err)
		}
	}
	if prev.SignedState, err = e.store.SignedState(s.Zone, c.Base); err != nil {
		return fail(err)
	}
	in.Previous = prev
	return in, done, nil
}

// verifyInstance runs the verifier over a signed instance.
func (e *Engine) verifyInstance(ctx context.Context, s State, signed uint64, opts signer.VerifyOptions) (*signer.Report, error) {
	apex, err := apexOf(s)
	if err != nil {
		return nil, err
	}
	items, err := signedItems(e.store, s.Zone, signed)
	if err != nil {
		return nil, err
	}
	items = zone.Ahead(items)
	defer items.Close() //nolint:errcheck // read only
	opts.Apex, opts.At = apex, e.clock.Now()
	if opts.Spill == nil {
		opts.Spill = e.spill
	}
	return signer.Verify(ctx, items, opts)
}
