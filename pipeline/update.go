package pipeline

import (
	"context"
	"errors"
	"slices"
	"time"

	"sluice/journal/event"
	"sluice/pipeline/store"
	"sluice/signer"
)

// updateShare is the share of the RRsets up to which a change is signed by
// itself: above 1 in 8, one pass over the zone costs less.
const updateShare = 8

// updatable reports whether little enough has changed since the published
// instance to be signed by itself: same keys, same parameters; where other keys
// sign, only a slice of the signatures is exchanged, and they are counted.
func (e *Engine) updatable(s State, c Sign, keys []signer.Key, spread *spreading) (bool, error) {
	if c.Base == 0 || s.Published == nil {
		return false, nil
	}
	f := s.Published.Signed.Facts
	if signedAhead(&s.Published.Signed, e.clock.Now()) || f.Params != c.Params || !slices.Equal(f.Keys, c.Keys) {
		return false, nil
	}
	if spread == nil {
		if left, known := behind(f, zoneSigners(s.Keys, c.Signers)); !slices.Equal(f.Signers, c.Signers) || known && left > 0 {
			return false, nil
		}
	} else if _, known := maskCounts(f.SignedBy, keys); !known {
		return false, nil
	}
	most := max(s.Loaded.Facts.RRsets/updateShare, 16)
	n, known, err := e.store.CountChanges(s.Zone, s.Published.Loaded.Seq, c.Loaded)
	return known && n <= most, err
}

// update signs what changed on top of the published instance, and what is due
// of it.
func (e *Engine) update(ctx context.Context, s State, c Sign, due slice, keys []signer.Key, params signer.Params, out signer.Sink) (*signer.Result, error) {
	now, err := openAccess(e.store.Loaded(s.Zone, c.Loaded))
	if err != nil {
		return nil, err
	}
	defer now.close() //nolint:errcheck // read only
	old, err := openAccess(e.store.Signed(s.Zone, c.Base))
	if err != nil {
		return nil, err
	}
	defer old.close() //nolint:errcheck // read only
	in := signer.UpdateInput{
		Contents: now.access, Previous: old.access, Spill: e.signSpill,
		Changes: func(fn func(key, before, after []byte) error) error {
			_, err := e.store.Changes(s.Zone, s.Published.Loaded.Seq, c.Loaded, fn)
			return err
		},
	}
	if in.ContentState, err = now.view.SetHash(); err != nil {
		return nil, err
	}
	if in.SignedState, err = old.view.SetHash(); err != nil {
		return nil, err
	}
	f := s.Published.Signed.Facts
	due.view = old.view
	if due.spread != nil {
		due.spread.view = old.view
		in.Exchange = due.spread.each
	}
	if many, err := due.larger(max(fewDue, int(s.Loaded.Facts.RRsets/updateShare))); err != nil {
		return nil, err
	} else if many {
		return nil, signer.ErrFull
	}
	in.Due = due.keys
	left, err := due.rest()
	if err != nil {
		return nil, err
	}
	res, err := signer.Update(ctx, in, keys, params, restSink{out, left})
	if err != nil {
		return nil, err
	}
	res.Records = f.Records + res.Delta.RecordsAdded - res.Delta.RecordsRemoved
	res.Signatures = f.Signatures + res.Delta.SignaturesAdded - res.Delta.SignaturesRemoved
	res.Reused = res.Signatures - res.Made
	counts, known := maskCounts(f.SignedBy, keys)
	known = known && res.SignedBy != nil && addCounts(counts, res.SignedBy)
	if res.SignedBy = nil; known {
		res.SignedBy = counts
	} else if due.spread != nil {
		return nil, errCount
	}
	if at, some := left.earliest(); some && (res.Earliest.IsZero() || at < res.Earliest.Unix()) {
		res.Earliest = time.Unix(at, 0).UTC()
	}
	return res, nil
}

// accessed is a view opened for random access.
type accessed struct {
	view   *store.View
	access *store.Access
}

func openAccess(v *store.View, err error) (*accessed, error) {
	if err != nil {
		return nil, err
	}
	return &accessed{view: v, access: v.Access()}, nil
}

func (a *accessed) close() error { return errors.Join(a.access.Close(), a.view.Close()) }

// gateEvery is which of many signatures the egress gate verifies anew. The
// command that made them verified all of them, or the sample that the policy
// asks for, before they were journaled; that the stored ones are those, the
// chunks' hashes say.
const gateEvery = 512

// gate runs the egress checks over a signed instance: over what changed where
// it was made on top of the published one, which passed them before, else
// over all of it.
func (e *Engine) gate(ctx context.Context, s State, signed uint64) (*signer.Report, error) {
	switch s.Signed.mode() {
	case ModePassThrough:
		return e.gatePassThrough(s)
	case ModeUnsigned:
		return e.gateUnsigned(s, signed)
	case ModeSign:
	}
	content := [32]byte(s.Signed.Facts.ContentDigest)
	opts := signer.VerifyOptions{Every: gateEvery, ContentSum: &content, Spill: e.signSpill, AlsoSigning: alsoSigning(s, s.Signed.Facts)}
	// Opt-out that comes or goes changes each NSEC3 record, whatever its name's
	// changes are.
	if p := s.Published; p != nil && p.Signed.mode() == ModeSign && s.Signed.Facts.Base == p.Signed.Seq && s.Signed.Facts.Denial == p.Signed.Facts.Denial {
		sum := [32]byte(s.Signed.Facts.SignedDigest)
		changed := opts
		changed.SignedSum = &sum
		rep, err := e.checkChanges(ctx, s, signed, changed)
		if !errors.Is(err, signer.ErrFull) {
			return rep, err
		}
	}
	if len(s.Signed.Facts.Parts) > 0 { // the sums of others are not taken on trust
		sum := [32]byte(s.Signed.Facts.SignedDigest)
		opts.SignedSum = &sum
	}
	return e.verifyInstance(ctx, s, signed, opts)
}

func (e *Engine) checkChanges(ctx context.Context, s State, signed uint64, opts signer.VerifyOptions) (*signer.Report, error) {
	apex, err := apexOf(s)
	if err != nil {
		return nil, err
	}
	old, err := openAccess(e.store.Signed(s.Zone, s.Published.Signed.Seq))
	if err != nil {
		return nil, err
	}
	defer old.close() //nolint:errcheck // read only
	now, err := openAccess(e.store.Signed(s.Zone, signed))
	if err != nil {
		return nil, err
	}
	defer now.close() //nolint:errcheck // read only
	in := signer.CheckInput{Previous: old.access, Signed: now.access}
	if in.ContentState, err = old.view.ContentState(); err != nil {
		return nil, err
	}
	if in.SignedState, err = old.view.SetHash(); err != nil {
		return nil, err
	}
	in.Changes = func(fn func(key, before, after []byte) error) error {
		return e.changes(s.Zone, s.Published, now.view.Meta(), fn)
	}
	opts.Apex, opts.At, opts.Spill = apex, e.clock.Now(), e.signSpill
	return signer.CheckChanges(ctx, in, opts)
}

// changes tells what differs between the published instance and a newer one:
// contents first, then what the signer made.
func (e *Engine) changes(id event.ZoneID, from *Published, to store.InstanceMeta, fn func(key, before, after []byte) error) error {
	for _, pair := range [][2]uint64{{from.Loaded.Seq, to.Loaded}, {from.Signed.Seq, to.Seq}} {
		known, err := e.store.Changes(id, pair[0], pair[1], fn)
		if err != nil {
			return err
		}
		if !known {
			return signer.ErrFull
		}
	}
	return nil
}
