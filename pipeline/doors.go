package pipeline

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/signer/zone"
)

// find is the runner of a zone by name.
func (e *Engine) find(name string) (*runner, error) {
	n, err := zone.ParseName(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	id, ok := e.names[n.Fold().String()]
	if !ok {
		return nil, fmt.Errorf("zone %s: %w", name, ErrNotFound)
	}
	return e.runners[id], nil
}

// AddZone adds a zone; it is loaded, signed and published from then on.
// Errors: ErrInvalid, ErrNotFound (policy), ErrState (the name is taken).
func (e *Engine) AddZone(ctx context.Context, actor event.Actor, z NewZone) (ZoneStatus, error) {
	facts, err := e.newZone(ctx, z)
	if err != nil {
		return ZoneStatus{}, err
	}
	if err := e.addTogether(ctx, actor, facts); err != nil {
		return ZoneStatus{}, err
	}
	return e.Zone(ctx, facts.Name)
}

// wanted checks a request to add a zone, and fills in what it leaves open.
func (e *Engine) wanted(z *NewZone) (n zone.Name, p Policy, err error) {
	if n, err = zone.ParseName(z.Name); err != nil {
		return n, p, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if n.IsWildcard() {
		return n, p, fmt.Errorf("%w: %s: a wildcard cannot be a zone", ErrInvalid, z.Name)
	}
	if z.Policy == "" {
		z.Policy = "default"
	}
	if p, err = e.usablePolicy(z.Policy); err != nil {
		return n, p, err
	}
	if z.Source == "" {
		return n, p, fmt.Errorf("%w: zone %s has no source", ErrInvalid, z.Name)
	}
	if z.Source, err = e.checkSource(z.Source); err == nil {
		err = fitsUpdates(z.Source, p)
	}
	return n, p, err
}

// newZone makes the event that adds a zone.
func (e *Engine) newZone(ctx context.Context, z NewZone) (*event.ZoneAdded, error) {
	if err := checkReason(z.Reason); err != nil {
		return nil, err
	}
	n, p, err := e.wanted(&z)
	if err != nil {
		return nil, err
	}
	private, public := publicOf(z.Import)
	if !z.Force {
		keys, others, err := e.lookAtFiles(ctx, n, z.Import)
		if err == nil {
			err = e.mayTakeOver(ctx, n, p, keys, others)
		}
		if err != nil {
			return nil, err
		}
	}
	var id [8]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, err
	}
	facts := &event.ZoneAdded{
		Name: n.Fold().String(), ID: event.ZoneID(hex.EncodeToString(id[:])),
		Source: z.Source, Policy: z.Policy, SerialFloor: z.SerialFloor, Force: z.Force, Reason: z.Reason,
	}
	if facts.Import, err = e.readFiles(ctx, n, private, true); err != nil {
		return nil, err
	}
	if facts.Public, err = readPublic(n, public); err != nil {
		return nil, err
	}
	before, err := e.former(ctx, facts.Name)
	if err != nil {
		return nil, err
	}
	before.resume(facts, !z.NewKeys)
	return facts, e.fitsOthers(facts)
}

// fitsOthers checks the public keys that a new zone brings along against those
// that it will be signed with.
func (e *Engine) fitsOthers(z *event.ZoneAdded) error {
	p, err := e.usablePolicy(z.Policy)
	if err != nil || len(z.Public) == 0 {
		return err
	}
	if p.Mode() != ModeSign {
		return errorState("zone %s is not to be signed here: policy %s says signer.mode = %q", z.Name, p.Name, p.Mode())
	}
	ours := []uint8{p.Algorithm()}
	if len(z.Import) > 0 {
		ours = nil
	}
	for _, k := range z.Import {
		ours = append(ours, k.Algorithm)
	}
	return sameAlgorithms(z.Public, ours)
}

// mayAppendInstance refuses events of the whole instance in a process that
// writes none.
func (e *Engine) mayAppendInstance(facts event.Facts) error {
	if e.member() {
		return errorState("%s concerns the whole instance: do it at the main process, which has the store; see: sluice worker list", facts.EventType())
	}
	return nil
}

// appendInstance appends one event of the whole instance, and waits until it
// is folded. allowed is asked with mu held, again after each conflict.
func (e *Engine) appendInstance(ctx context.Context, actor event.Actor, facts event.Facts, allowed func() error) error {
	return e.appendInstanceAll(ctx, actor, 0, []event.Facts{facts}, allowed)
}

// appendInstanceAll is appendInstance for several events, all or none; cause is
// the sequence of the event that led to them, or 0.
func (e *Engine) appendInstanceAll(ctx context.Context, actor event.Actor, cause uint64, facts []event.Facts, allowed func() error) error {
	if err := e.mayAppendInstance(facts[0]); err != nil {
		return err
	}
	e.adding.Lock()
	defer e.adding.Unlock()
	for {
		e.mu.RLock()
		ready, head, err := e.ready, e.registry.Head, allowed()
		e.mu.RUnlock()
		if !ready {
			return fmt.Errorf("the journal is still being read: %w", ErrState)
		}
		if err != nil {
			return err
		}
		next, err := e.append(ctx, event.Instance, head, cause, actor, facts...)
		if err == nil {
			return e.awaitFold(ctx, next.Seq)
		}
		if !errors.Is(err, journal.ErrConflict) {
			return err
		}
		if err := e.awaitFold(ctx, head.Seq+1); err != nil {
			return err
		}
	}
}

// Removal says how a zone is removed.
type Removal struct {
	Force  bool
	Reason string
	// At, where not 0, refuses where source or policy were changed after that
	// sequence, which is the position of a zone's outlook.
	At uint64
}

// RemoveZone stops serving a zone; its history and keys stay. Without force
// it is ErrState while a DS is seen at the parent, and of a zone that is
// published also where its absence is not proven. A zone that a catalog lists is
// ErrState.
func (e *Engine) RemoveZone(ctx context.Context, actor event.Actor, name string, force bool) error {
	return e.EndZone(ctx, actor, name, Removal{Force: force})
}

// EndZone is RemoveZone with a reason, or under a condition.
func (e *Engine) EndZone(ctx context.Context, actor event.Actor, name string, how Removal) error {
	if err := checkReason(how.Reason); err != nil {
		return err
	}
	r, err := e.find(name)
	if err != nil {
		return err
	}
	if err := e.removable(r.snapshot()); err != nil {
		return err
	}
	return e.removeZone(ctx, actor, name, how)
}

// removeZone is EndZone, whatever catalogs say.
func (e *Engine) removeZone(ctx context.Context, actor event.Actor, name string, how Removal) error {
	r, err := e.find(name)
	if err != nil {
		return err
	}
	s := r.snapshot()
	if err := s.isAt(how.At); err != nil {
		return err
	}
	if !how.Force && e.cfg.Observe != nil {
		why, seen, err := e.mayHaveDS(ctx, s)
		switch {
		case err != nil:
			return err
		case why != "" && seen:
			return fmt.Errorf("zone %s: %s: %w; have it removed there and wait for its TTL, or use --force", s.Name, why, ErrState)
		case why != "" && s.Published != nil:
			return fmt.Errorf("zone %s: %s: %w; look there yourself, then use --force", s.Name, why, ErrState)
		}
	}
	return e.appendInstance(ctx, actor, &event.ZoneRemoved{Name: s.Name, ID: s.Zone, Force: how.Force, Reason: how.Reason}, func() error {
		if e.names[s.Name] != s.Zone {
			return fmt.Errorf("zone %s: %w", name, ErrNotFound)
		}
		return nil
	})
}

// Reload asks for the source to be read now; with full, everything is taken
// from its servers, whatever its serial. It returns at once; Await tells
// when it was. A zone that dynamic updates changed is read in full only, and only
// by Replace.
func (e *Engine) Reload(ctx context.Context, actor event.Actor, name string, full bool) error {
	return e.reload(ctx, actor, name, full, false)
}

// Replace is Reload in full that also puts the source's contents in the place of
// those that dynamic updates made.
func (e *Engine) Replace(ctx context.Context, actor event.Actor, name string) error {
	return e.reload(ctx, actor, name, true, true)
}

func (e *Engine) reload(ctx context.Context, _ event.Actor, name string, full, replace bool) error {
	r, err := e.find(name)
	if err != nil {
		return err
	}
	switch s := r.snapshot(); {
	case s.Stopped != nil:
		return fmt.Errorf("zone %s is halted at its %s review; %s: %w", s.Name, s.Stopped.Stage, overrideOrReset(s, s.Stopped.Stage), ErrState)
	case s.Maintenance != nil:
		return fmt.Errorf("zone %s is in maintenance; sluice zone maintenance disable %s: %w", s.Name, s.Name, ErrState)
	case s.Held != nil:
		return errHeld(s)
	default:
		if err := e.mayReplace(ctx, s, full, replace); err != nil {
			return err
		}
	}
	return r.ask(ctx, RoleLoad, question{Do: askReload, Full: full}, func() { r.askReload(full) })
}

// Await returns once the zone is at rest, published or failed. progress is
// called while it works.
func (e *Engine) Await(ctx context.Context, name string, progress func(Progress)) (ZoneStatus, error) {
	r, err := e.find(name)
	if err != nil {
		return ZoneStatus{}, err
	}
	for {
		r.mu.Lock()
		rest, at, changed := r.atRest(), r.progress, r.changed
		r.mu.Unlock()
		if rest {
			moved, err := r.awaitOthers(ctx)
			if err != nil {
				return ZoneStatus{}, err
			}
			if !moved {
				return e.Zone(ctx, name)
			}
			continue
		}
		if progress != nil && at.Stage != "" {
			progress(at)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ZoneStatus{}, ctx.Err()
		}
	}
}

// GenerateKey makes a key; it waits in state generated. algorithm and keystore
// are the policy's where they are "".
func (e *Engine) GenerateKey(ctx context.Context, actor event.Actor, name string, role keymgr.Role, algorithm, keystore string) ([]keymgr.Key, error) {
	if err := e.keepsKeys(); err != nil {
		return nil, err
	}
	r, err := e.find(name)
	if err != nil {
		return nil, err
	}
	s := r.snapshot()
	p, err := e.boundPolicy(s)
	if err != nil {
		return nil, err
	}
	alg, bits := p.Algorithm(), p.Bits()
	if algorithm != "" {
		if alg, bits, err = ParseAlgorithm(algorithm); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
	}
	if !slices.Contains([]keymgr.Role{keymgr.KSK, keymgr.ZSK, keymgr.CSK}, role) {
		return nil, fmt.Errorf("%w: key role %q is none of ksk, zsk, csk", ErrInvalid, role)
	}
	if keystore == "" {
		keystore, _ = p.Keystore(role)
	}
	if _, err := e.keystoreOf(keystore); err != nil {
		return nil, err
	}
	k, err := e.generateKey(ctx, keymgr.Spec{Zone: s.Name, Role: role, Algorithm: alg, Bits: bits, Keystore: keystore}, s.Keys.Tags())
	if err != nil {
		return nil, tokenError(err)
	}
	return e.appendKeys(ctx, actor, r, &event.KeyGenerated{Keys: []event.Key{k}}, []string{k.ID})
}

// ImportKey takes up key pairs in BIND's format; they wait in state
// generated.
func (e *Engine) ImportKey(ctx context.Context, actor event.Actor, name string, files []KeyFile) ([]keymgr.Key, error) {
	r, err := e.find(name)
	if err != nil {
		return nil, err
	}
	private, public := publicOf(files)
	switch {
	case len(private) > 0 && len(public) > 0:
		return nil, fmt.Errorf("%w: keys of ours and public keys of another signer are imported one after the other", ErrInvalid)
	case len(public) > 0:
		return e.importPublic(ctx, actor, r, public)
	}
	apex, err := apexOf(r.snapshot())
	if err != nil {
		return nil, err
	}
	keys, err := e.readFiles(ctx, apex, files, true)
	if err != nil {
		return nil, err
	}
	var ids, from []string
	for i, k := range keys {
		if _, ok := r.snapshot().Keys.ByID(k.ID); ok {
			return nil, fmt.Errorf("key %s is already here: %w", k.ID, ErrState)
		}
		ids = append(ids, k.ID)
		from = append(from, files[i].Path)
	}
	return e.appendKeys(ctx, actor, r, &event.KeyImported{Keys: keys, From: strings.Join(from, " ")}, ids)
}

// appendKeys appends a key event of a zone that a door asked for.
func (e *Engine) appendKeys(ctx context.Context, actor event.Actor, r *runner, facts event.Facts, ids []string) ([]keymgr.Key, error) {
	for {
		s := r.snapshot()
		head, err := e.append(ctx, r.id, s.Head, 0, actor, facts)
		if errors.Is(err, journal.ErrConflict) {
			if err := r.await(ctx, func(now State) bool { return now.Head.Seq > s.Head.Seq }); err != nil {
				return nil, err
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := r.await(ctx, func(now State) bool { return now.Head.Seq >= head.Seq }); err != nil {
			return nil, err
		}
		var keys []keymgr.Key
		for _, id := range ids {
			if k, ok := r.snapshot().Keys.ByID(id); ok {
				keys = append(keys, k)
			}
		}
		return keys, nil
	}
}

// readFiles reads key files, into the keystore with keep.
func (e *Engine) readFiles(ctx context.Context, apex zone.Name, files []KeyFile, keep bool) ([]event.Key, error) {
	if len(files) == 0 {
		return nil, nil
	}
	if err := e.keepsKeys(); err != nil {
		return nil, err
	}
	var keys []event.Key
	for _, f := range files {
		k, err := e.readKeyFile(ctx, apex, f, keep)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(keys, func(o event.Key) bool { return o.ID == k.ID }) {
			return nil, fmt.Errorf("%w: %s: the key is given twice", ErrInvalid, f.Path)
		}
		keys = append(keys, k)
	}
	readLives(keys, e.clock.Now())
	return keys, nil
}
