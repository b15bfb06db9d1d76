package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/pipeline/store"
	"sluice/signer"
	"sluice/signer/zone"
)

const (
	// sharePlaces is how many parts one process signs at a time: while one is
	// read and stored, the other keeps the cores busy.
	sharePlaces = 2
	// shareFold is how long a process waits for events that it has not folded.
	shareFold = 5 * time.Second
)

// answerShares signs parts of zones for other processes until ctx ends.
func (e *Engine) answerShares(ctx context.Context) {
	places := make(chan struct{}, sharePlaces)
	stop, err := e.cfg.Coordinator.Answer(journal.PartSubject(e.worker), "", func(ctx context.Context, data []byte) ([]byte, error) {
		if err := take(ctx, places); err != nil {
			return nil, err
		}
		defer give(places)
		return e.answerShare(ctx, data)
	})
	if err != nil {
		if ctx.Err() == nil {
			e.log.WarnContext(ctx, "parts of zones are not signed for other processes", "error", err)
		}
		return
	}
	<-ctx.Done()
	stop()
}

// answerShare signs what another process asks for.
func (e *Engine) answerShare(ctx context.Context, data []byte) ([]byte, error) {
	job := &shareJob{}
	var err error
	if job.hashes, err = decodeShare(data, job); err != nil {
		return nil, err
	}
	s, err := e.shareState(ctx, job)
	if err != nil {
		return nil, err
	}
	keys, err := e.shareKeys(ctx, s, job)
	if err != nil {
		return nil, err
	}
	done, err := e.signPart(ctx, job, keys)
	if err != nil {
		return nil, e.note(err)
	}
	return encodeShare(done, done.hashes)
}

// shareState is the zone's state once all is folded that a job needs.
func (e *Engine) shareState(ctx context.Context, job *shareJob) (State, error) {
	if err := job.check(); err != nil {
		return State{}, err
	}
	wait, cancel := context.WithTimeout(ctx, shareFold)
	defer cancel()
	if err := e.awaitFold(wait, job.Head); err != nil {
		return State{}, fmt.Errorf("event %d is not folded here: %w", job.Head, err)
	}
	e.mu.RLock()
	r := e.runners[job.Zone]
	e.mu.RUnlock()
	if r == nil {
		return State{}, fmt.Errorf("zone %s: %w", job.Zone, ErrNotFound)
	}
	s := r.snapshot()
	apex, err := apexOf(s)
	if err != nil {
		return State{}, err
	}
	content := s.loaded(job.Loaded)
	switch {
	case content == nil || content.Broken != "":
		return State{}, fmt.Errorf("l%d is not here any more: %w", job.Loaded, ErrNotFound)
	case content.Facts.ContentDigest != job.Content, string(apex.Fold()) != string(zone.Name(job.Params.Apex).Fold()):
		return State{}, fmt.Errorf("l%d is another one here: %w", job.Loaded, ErrState)
	}
	return s, nil
}

// shareKeys are the keys of a job, with the private parts of those that sign.
// What signs keys alone is not needed: the apex is not given away.
func (e *Engine) shareKeys(ctx context.Context, s State, job *shareJob) ([]signer.Key, error) {
	keys := make([]signer.Key, 0, len(job.Keys))
	for _, k := range job.Keys {
		key := signer.Key{DNSKEY: k.DNSKEY, SignsKeys: k.SignsKeys, SignsZone: k.SignsZone, Published: k.Published, CDS: k.CDS}
		if k.SignsZone {
			known, ok := s.Keys.ByID(k.ID)
			if !ok {
				return nil, fmt.Errorf("key %s: %w", k.ID, ErrNotFound)
			}
			in, err := e.keystoreOf(known.Keystore)
			if err == nil {
				key.Signer, err = e.openSigner(ctx, in, known.Reference)
			}
			if err != nil {
				return nil, fmt.Errorf("key %s is not here: %w", k.ID, err)
			}
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// signPart signs a part with what this process has of the zone.
func (e *Engine) signPart(ctx context.Context, job *shareJob, keys []signer.Key) (*shareDone, error) {
	params := job.Params.params()
	params.Workers = e.cfg.Workers
	out := newChunkSink(ctx, e.signJournal.NewChunks(job.Zone, job.Command))
	var hashes hashList
	var part *signer.Part
	in, done, err := e.shareInput(job)
	if err != nil {
		return nil, err
	}
	if job.Range != nil {
		part, err = signer.SignRange(ctx, *job.Range, job.Frame, in, keys, params, out, func(hash, bitmap []byte) error {
			hashes = hashes.add(hash, bitmap)
			return nil
		})
	} else {
		run := signer.ChainRange{After: job.Chain.After}
		if !job.Chain.None {
			run.Hashes = job.hashes.sorted()
		}
		part, err = signer.SignChain(ctx, run, job.Frame, in, keys, params, out)
	}
	if err = errors.Join(err, done()); err != nil {
		return nil, err
	}
	manifest, err := out.finish()
	if err != nil {
		return nil, err
	}
	if len(manifest.Indirect) > 0 {
		return nil, fmt.Errorf("a part of %d chunks: too many", manifest.Count)
	}
	return sharedPart(e.worker, e.software(), part, manifest.Chunks, hashes), nil
}

// shareInput opens what a part reads, and a function that closes it.
func (e *Engine) shareInput(job *shareJob) (in signer.Input, done func() error, err error) {
	var opened []interface{ Close() error }
	done = func() error {
		var err error
		for _, it := range opened {
			err = errors.Join(err, it.Close())
		}
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, done())
		}
	}()
	open := func(v *store.View, kind zone.Kind, from, to []byte, it *zone.Iterator) {
		if err == nil {
			if *it, err = v.KindBetween(kind, from, to); err == nil {
				opened = append(opened, *it)
			}
		}
	}
	var from, to []byte
	if job.Range != nil {
		from, to = job.Range.From, job.Range.To
		now, err := e.store.Loaded(job.Zone, job.Loaded)
		if err != nil {
			return in, done, err
		}
		opened = append(opened, now)
		open(now, zone.KindContents, from, to, &in.Contents)
	}
	if job.Base == 0 || err != nil {
		return in, done, err
	}
	old, err := e.store.Signed(job.Zone, job.Base)
	if err != nil {
		return in, done, err
	}
	opened = append(opened, old)
	in.Previous = &signer.Previous{}
	if job.Range != nil {
		open(old, zone.KindContents, from, to, &in.Previous.Contents)
		open(old, zone.KindMade, from, to, &in.Previous.Made)
		open(old, zone.KindSigs, from, to, &in.Previous.Sigs)
	} else {
		open(old, zone.KindChain, job.Chain.From, job.Chain.To, &in.Previous.Chain)
		open(old, zone.KindChainSigs, job.Chain.From, job.Chain.To, &in.Previous.ChainSigs)
	}
	return in, done, err
}

// shareFrame is what each part has to know of the apex.
func (e *Engine) shareFrame(id event.ZoneID, apex zone.Name, c Sign) (signer.Frame, error) {
	now, err := e.store.Loaded(id, c.Loaded)
	if err != nil {
		return signer.Frame{}, err
	}
	defer now.Close() //nolint:errcheck // read only
	var dnskey []byte
	if c.Base != 0 {
		old, err := e.store.Signed(id, c.Base)
		if err != nil {
			return signer.Frame{}, err
		}
		defer old.Close() //nolint:errcheck // read only
		if dnskey, err = old.Get(zone.AppendKey(nil, zone.KindMade, apex, zone.TypeDNSKEY)); err != nil {
			return signer.Frame{}, err
		}
	}
	soa, err := now.Get(zone.AppendKey(nil, zone.KindContents, apex, zone.TypeSOA))
	if err != nil {
		return signer.Frame{}, err
	}
	return signer.NewFrame(soa, dnskey)
}
