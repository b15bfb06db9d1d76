package pipeline

import (
	"context"
	"crypto"
	"encoding/json"
	"fmt"
	"slices"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/keymgr/share"
	"sluice/signer/zone"
)

// answerParcels takes up what is sent to this process, until ctx ends.
func (e *Engine) answerParcels(ctx context.Context) {
	stop, err := e.cfg.Coordinator.Answer(journal.ToSubject(e.worker), "", e.takeParcel)
	if err != nil {
		e.log.ErrorContext(ctx, "keys of other workers cannot be taken up", "error", err)
		return
	}
	<-ctx.Done()
	stop()
}

// takeParcel opens what a worker has sent, and does what it is for.
func (e *Engine) takeParcel(ctx context.Context, sealed []byte) ([]byte, error) {
	name, err := share.Sender(sealed)
	if err != nil {
		return nil, err
	}
	from, err := e.awaitEnrolled(ctx, name)
	if err != nil {
		return nil, err
	}
	p, err := share.Open(e.cfg.Sharing.Identity, from.peer(), sealed)
	if err != nil {
		e.log.WarnContext(ctx, "parcel refused", "from", name, "error", err)
		return nil, err
	}
	defer p.Wipe()
	stream, _, err := e.journal.Stream(ctx)
	if err != nil {
		return nil, err
	}
	if p.Stream != stream {
		return nil, fmt.Errorf("the parcel is for another journal: %w", share.ErrRefused)
	}
	var answer any = struct{}{}
	switch {
	case p.Kind == share.KindWanted:
		err = e.giveWanted(ctx, from, &p)
	case !slices.Contains(from.Roles, workerKeys):
		err = fmt.Errorf("worker %s has not the role keys, and may hand out no secrets: %w", name, share.ErrRefused)
	case p.Kind == share.KindTSIG:
		err = e.takeTSIG(ctx, &p)
	default:
		answer, err = e.takeKey(ctx, &p)
	}
	if err != nil {
		e.log.WarnContext(ctx, "parcel not taken", "from", name, "kind", p.Kind, "zone", p.Name, "key", p.Key, "error", err)
		return nil, err
	}
	return json.Marshal(answer)
}

// takeKey stores a private key, or has one on a token prove itself, and proves
// it with the public key that the journal names.
func (e *Engine) takeKey(ctx context.Context, p *share.Parcel) (proveText, error) {
	refuse := func(format string, args ...any) (proveText, error) {
		return proveText{}, fmt.Errorf("%w: %s", share.ErrRefused, fmt.Sprintf(format, args...))
	}
	if own, ok := e.enrolled(e.worker); !ok || !keepsKeys(own) {
		return refuse("worker %s has neither the role sign nor keys", e.worker)
	}
	r, k, err := e.awaitKey(ctx, p)
	if err != nil {
		return proveText{}, err
	}
	s := r.snapshot()
	if err := p.For(share.Context{Stream: p.Stream, Zone: s.Zone, Name: s.Name, Key: k.ID}); err != nil {
		return proveText{}, err
	}
	if k.Foreign || k.State == keymgr.Removed {
		return refuse("key %s is not one that zone %s signs with", k.ID, s.Name)
	}
	var proof proveText
	prove := func(signer crypto.Signer) error {
		proof.Signature, err = p.Prove(signer, k.Key)
		return err
	}
	if p.Kind == share.KindKey {
		files, ok := e.keystore.(keymgr.Sharer)
		if !ok || k.Keystore != e.keystore.Name() {
			return refuse("key %s is in keystore %s: its private part does not travel", k.ID, k.Keystore)
		}
		if err := files.Accept(ctx, k.Key, p.Secret, prove); err != nil {
			return proveText{}, err
		}
		e.log.InfoContext(ctx, "private key taken up", "zone", s.Name, "key", k.ID, "from", p.From)
	}
	if err := e.proveKey(ctx, k.Key); err != nil {
		return proveText{}, err
	}
	if p.Kind == share.KindProof {
		ks, err := e.keystoreOf(k.Keystore)
		if err != nil {
			return proveText{}, err
		}
		signer, err := ks.Signer(ctx, k.Reference)
		if err != nil {
			return proveText{}, err
		}
		if err := prove(signer); err != nil {
			return proveText{}, err
		}
	}
	r.step() // it may be what the zone waited for
	return proof, nil
}

// awaitEnrolled finds the worker that a parcel comes from. The event that names it
// may be newer than what is folded here.
func (e *Engine) awaitEnrolled(ctx context.Context, name string) (Enrolled, error) {
	ctx, cancel := context.WithTimeout(ctx, behindTime)
	defer cancel()
	for {
		e.mu.RLock()
		w, ok := e.registry.Workers[name]
		moved := e.moved
		e.mu.RUnlock()
		if ok {
			return w, nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return w, fmt.Errorf("worker %q is not enrolled: %w", name, share.ErrRefused)
		}
	}
}

// awaitKey finds the key that a parcel is about. The event that names it may be
// newer than what is folded here.
func (e *Engine) awaitKey(ctx context.Context, p *share.Parcel) (*runner, keymgr.Key, error) {
	ctx, cancel := context.WithTimeout(ctx, behindTime)
	defer cancel()
	for {
		e.mu.RLock()
		r, moved := e.runners[p.Zone], e.moved
		e.mu.RUnlock()
		if r != nil {
			if k, ok := r.snapshot().Keys.ByID(p.Key); ok {
				return r, k, nil
			}
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return nil, keymgr.Key{}, fmt.Errorf("key %s of zone %s is not known here: %w", p.Key, p.Name, ErrNotFound)
		}
	}
}

// giveWanted hands a worker the key or the TSIG secret that it asks for.
func (e *Engine) giveWanted(ctx context.Context, to Enrolled, p *share.Parcel) error {
	if own, ok := e.enrolled(e.worker); !ok || !slices.Contains(own.Roles, workerKeys) {
		return fmt.Errorf("worker %s has not the role keys, and hands out no secrets: %w", e.worker, share.ErrRefused)
	}
	if p.Zone == event.Instance {
		return e.giveTSIG(ctx, to, p)
	}
	if !keepsKeys(to) {
		return fmt.Errorf("worker %s has neither the role sign nor keys: it gets no private keys: %w", to.Name, share.ErrRefused)
	}
	r, k, err := e.awaitKey(ctx, p)
	if err != nil {
		return err
	}
	if k.Keystore != e.keystore.Name() || !e.holdsKey(k.Key) {
		return fmt.Errorf("the private part of key %s is not here: %w", k.ID, keymgr.ErrNoKey)
	}
	if err := e.handKey(ctx, r.snapshot(), k.Key, to); err != nil {
		return err
	}
	r.retryHanding() // what failed with that worker may be done now
	return nil
}

// giveTSIG hands a worker a TSIG secret.
func (e *Engine) giveTSIG(ctx context.Context, to Enrolled, p *share.Parcel) error {
	if !keepsTSIG(to) {
		return fmt.Errorf("worker %s has none of the roles load, publish and keys: it gets no TSIG keys: %w", to.Name, share.ErrRefused)
	}
	name, err := zone.ParseName(p.Name)
	if err != nil {
		return fmt.Errorf("TSIG key %q: %w", p.Name, share.ErrRefused)
	}
	algorithm, secret, ok := e.TSIG().Secret(name.Fold())
	if !ok {
		return fmt.Errorf("TSIG key %s is not here: %w", p.Name, ErrNotFound)
	}
	_, err = e.send(ctx, to, share.Parcel{
		Kind: share.KindTSIG, Context: share.Context{Stream: p.Stream, Zone: event.Instance, Name: p.Name},
		Algorithm: algorithm, Nonce: p.Nonce, Secret: secret,
	})
	return err
}

// takeTSIG stores a TSIG secret that this process asked for.
func (e *Engine) takeTSIG(ctx context.Context, p *share.Parcel) error {
	if own, ok := e.enrolled(e.worker); !ok || !keepsTSIG(own) || e.cfg.TSIG == nil {
		return fmt.Errorf("worker %s keeps no TSIG keys: %w", e.worker, share.ErrRefused)
	}
	name, err := zone.ParseName(p.Name)
	if err != nil || p.Zone != event.Instance || p.Key != "" {
		return fmt.Errorf("TSIG key %q: %w", p.Name, share.ErrRefused)
	}
	if !e.asked(p.Nonce) {
		return fmt.Errorf("TSIG key %s was not asked for: %w", p.Name, share.ErrRefused)
	}
	if length, _ := tsigLength(p.Algorithm); length == 0 || len(p.Secret) < minTSIGSecret {
		return fmt.Errorf("TSIG key %s is none: %w", p.Name, share.ErrRefused)
	}
	e.tsig.Lock()
	defer e.tsig.Unlock()
	e.mu.RLock()
	algorithm, ok := e.registry.TSIG[name.Fold().String()]
	e.mu.RUnlock()
	if !ok || algorithm != p.Algorithm {
		return fmt.Errorf("the journal names no TSIG key %s, %s: %w", p.Name, p.Algorithm, share.ErrRefused)
	}
	if err := e.cfg.TSIG.Put(name.Fold(), p.Algorithm, p.Secret); err != nil {
		return err
	}
	e.log.InfoContext(ctx, "TSIG key taken up", "name", p.Name, "from", p.From)
	return nil
}

// wantTime is how long the worker that is asked for a secret may take: it has to
// send that in between.
const wantTime = 2*handTime + behindTime

// want asks one worker, or where whom is empty the living ones that keep keys one
// after the other, for a secret, until one has sent it.
func (e *Engine) want(ctx context.Context, whom string, c share.Context) error {
	stream, _, err := e.journal.Stream(ctx)
	if err != nil {
		return err
	}
	c.Stream = stream
	last := fmt.Errorf("no worker with the role keys is there to be asked: %w", journal.ErrNobody)
	for _, name := range e.otherWorkers().Living {
		w, ok := e.enrolled(name)
		if !ok || name == e.worker || !slices.Contains(w.Roles, workerKeys) || whom != "" && whom != name {
			continue
		}
		nonce, err := share.NewNonce()
		if err != nil {
			return err
		}
		sealed, err := share.Seal(e.cfg.Sharing.Identity, w.peer(), share.Parcel{Kind: share.KindWanted, Context: c, Nonce: nonce})
		if err != nil {
			return err
		}
		end := e.ask(nonce)
		last = e.askWanted(ctx, name, sealed)
		end()
		if last == nil {
			return nil
		}
		last = fmt.Errorf("worker %s: %w", name, last)
	}
	return last
}

// asked reports whether this process asked for something with a nonce, and no
// answer has come yet: what is sent once is not taken again.
func (e *Engine) asked(n share.Nonce) bool {
	e.shares.mu.Lock()
	defer e.shares.mu.Unlock()
	_, ok := e.shares.asked[n]
	delete(e.shares.asked, n)
	return ok
}

func (e *Engine) ask(n share.Nonce) (end func()) {
	e.shares.mu.Lock()
	defer e.shares.mu.Unlock()
	if e.shares.asked == nil {
		e.shares.asked = map[share.Nonce]struct{}{}
	}
	e.shares.asked[n] = struct{}{}
	return func() { e.asked(n) }
}

func (e *Engine) askWanted(ctx context.Context, name string, sealed []byte) error {
	ctx, cancel := context.WithTimeout(ctx, wantTime)
	defer cancel()
	_, err := e.cfg.Coordinator.Ask(ctx, journal.ToSubject(name), sealed)
	return err
}
