package pipeline

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"time"

	"github.com/miekg/dns"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/pipeline/store"
	"sluice/signer/zone"
	"sluice/xfr"
)

const (
	// maxUpdateQueue bounds the updates of a zone that wait for their turn.
	maxUpdateQueue = 1024
	// maxBundle and maxBundleBytes bound what becomes one event.
	maxBundle      = 200
	maxBundleBytes = 512 << 10
	// updateTries is how often an update is judged anew because the zone moved on
	// meanwhile.
	updateTries = 20
	// updateWait is how long it is waited for that.
	updateWait = 5 * time.Second
)

// updateAsked is an update that waits for its answer.
type updateAsked struct {
	ctx context.Context //nolint:containedctx // the client's: who has given up is not served
	m   *xfr.UpdateMessage
	// rcode takes the answer.
	rcode chan int

	// Of the judgement under way:
	err            error
	added, removed uint64
}

func (a *updateAsked) changes() bool { return a.err == nil && a.added+a.removed > 0 }

// updating is the updates of a zone that wait for their turn.
type updating struct {
	queue []*updateAsked
	busy  bool // somebody takes them
	// told is when a refusal was logged last, untold how many were not since.
	told   time.Time
	untold int
}

// Update takes a dynamic update (RFC 2136), and returns its RCODE once it is in
// the journal or refused. It is made for xfr.Config.
func (e *Engine) Update(ctx context.Context, m *xfr.UpdateMessage) (rcode int) {
	r, err := e.find(m.Zone.String())
	if err != nil {
		return dns.RcodeNotAuth
	}
	if !e.running() {
		return dns.RcodeServerFailure
	}
	a := &updateAsked{ctx: ctx, m: m, rcode: make(chan int, 1)}
	r.mu.Lock()
	if len(r.updating.queue) >= maxUpdateQueue {
		r.mu.Unlock()
		e.log.WarnContext(ctx, "update not taken: too many wait", "zone", m.Zone.String(), "key", m.Peer.Key)
		e.counts.updates.add("", "failed", 0)
		return dns.RcodeServerFailure
	}
	r.updating.queue = append(r.updating.queue, a)
	if !r.updating.busy {
		r.updating.busy = e.start(r.takeUpdates)
	}
	r.mu.Unlock()
	select {
	case rcode = <-a.rcode:
		return rcode
	case <-ctx.Done():
		return dns.RcodeServerFailure
	}
}

// takeUpdates takes the zone's updates in their order, several at a time, until
// none waits.
func (r *runner) takeUpdates(ctx context.Context) {
	for {
		r.mu.Lock()
		bundle := nextBundle(r.updating.queue)
		r.updating.queue = slices.Clone(r.updating.queue[len(bundle):])
		r.updating.busy = len(bundle) > 0
		r.mu.Unlock()
		if len(bundle) == 0 {
			return
		}
		if err := r.takeBundle(ctx, bundle); err != nil {
			for _, a := range bundle {
				if a.err == nil {
					a.err = err
				}
			}
		}
		for _, a := range bundle {
			r.answerUpdate(ctx, a)
		}
	}
}

// nextBundle is the updates that become one event: the first ones, of one key.
func nextBundle(queue []*updateAsked) []*updateAsked {
	size := 0
	for i, a := range queue {
		for _, c := range a.m.Changes {
			size += len(c.Owner) + len(c.RData) + editOverhead
		}
		if i > 0 && (i == maxBundle || size > maxBundleBytes || a.m.Peer.Key != queue[0].m.Peer.Key) {
			return queue[:i]
		}
	}
	return queue
}

// answerUpdate gives an update its RCODE, and tells of it.
func (r *runner) answerUpdate(ctx context.Context, a *updateAsked) {
	e, peer := r.e, a.m.Peer
	rcode, outcome := dns.RcodeSuccess, "unchanged"
	refused, decided := errors.AsType[*updateError](a.err)
	switch {
	case a.err == nil && a.changes():
		outcome = "accepted"
	case a.err == nil:
	case decided:
		rcode, outcome = refused.rcode, "refused"
		switch rcode {
		case dns.RcodeNameError, dns.RcodeYXDomain, dns.RcodeNXRrset, dns.RcodeYXRrset:
			outcome = "prerequisite"
		case dns.RcodeServerFailure:
			outcome = "failed"
		}
		r.logUpdate(ctx, a, dns.RcodeToString[rcode], refused.why)
		if rcode == dns.RcodeRefused {
			e.Refused(Refusal{Actor: event.Actor{Name: peer.Key, Door: "dns"}, Facts: event.AccessRefused{
				Why: event.RefusedUpdate, Method: "UPDATE", Route: r.snapshot().Name, Peer: peer.Addr.Addr().String(),
			}})
		}
	default:
		rcode, outcome = dns.RcodeServerFailure, "failed"
		r.logUpdate(ctx, a, dns.RcodeToString[rcode], a.err.Error())
	}
	e.counts.updates.add("", outcome, 0)
	a.rcode <- rcode
}

// logUpdate says why an update was not taken, once a second for each zone at most.
func (r *runner) logUpdate(ctx context.Context, a *updateAsked, rcode, why string) {
	now := machineTime()
	r.mu.Lock()
	untold := r.updating.untold
	if now.Sub(r.updating.told) < time.Second {
		r.updating.untold++
		r.mu.Unlock()
		return
	}
	r.updating.told, r.updating.untold = now, 0
	name := r.state.Name
	r.mu.Unlock()
	r.e.log.WarnContext(ctx, "update not taken", "zone", name, "key", a.m.Peer.Key, "peer", a.m.Peer.Addr.Addr().String(),
		"rcode", rcode, "reason", oneLine(why), "unlogged", untold)
}

// takeBundle judges updates, each against the contents with those before it, and
// appends those that change something as one event.
func (r *runner) takeBundle(ctx context.Context, bundle []*updateAsked) error {
	for range updateTries {
		s := r.snapshot()
		raw, facts, err := r.e.judge(ctx, s, bundle)
		if errors.Is(err, store.ErrNoInstance) {
			// The zone moved on between reading its state and its contents.
			wait, cancel := context.WithTimeout(ctx, updateWait)
			err := r.await(wait, func(now State) bool { return now.Head.Seq > s.Head.Seq })
			cancel()
			if err != nil {
				return err
			}
			continue
		}
		if err != nil || len(facts.Updates) == 0 {
			return err
		}
		if facts.Manifest, err = r.e.storeUpdates(ctx, s, raw); err != nil {
			return err
		}
		head, err := r.e.append(ctx, r.id, s.Head, 0, event.Actor{Name: bundle[0].m.Peer.Key, Door: "dns"}, facts)
		if errors.Is(err, journal.ErrConflict) {
			if err := r.await(ctx, func(now State) bool { return now.Head.Seq > s.Head.Seq }); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		return r.await(ctx, func(now State) bool { return now.Head.Seq >= head.Seq })
	}
	return updateRefused(dns.RcodeServerFailure, "the zone changes all the time")
}

// storeUpdates sends the chunk that an update.accepted names.
func (e *Engine) storeUpdates(ctx context.Context, s State, raw []byte) (event.Manifest, error) {
	sum := sha256.Sum256(raw)
	out := e.journal.NewChunks(s.Zone, hex.EncodeToString(sum[:16]))
	if err := out.Put(ctx, journal.RawChunk{Raw: raw, Items: 1}); err != nil {
		return event.Manifest{}, err
	}
	return out.Finish(ctx)
}

// mayUpdate says why a zone takes no updates now, whoever sends them; nil where it
// does.
func (s State) mayUpdate(p Policy) error {
	switch {
	case s.Removed != 0:
		return updateRefused(dns.RcodeNotAuth, "the zone was removed")
	case !p.TakesUpdates():
		return updateRefused(dns.RcodeRefused, "policy %s has no rule in loader.update", p.Name)
	case IsTransfer(s.Source):
		return updateRefused(dns.RcodeRefused, "its source is servers, and the next transfer would undo the update: send it there, or give the zone a file as its source")
	case s.Halted != nil:
		return updateRefused(dns.RcodeServerFailure, "the zone is halted: %s", s.Halted.Reason)
	case s.Stopped != nil:
		return updateRefused(dns.RcodeServerFailure, "the zone is halted at its %s review; %s", s.Stopped.Stage, overrideOrReset(s, s.Stopped.Stage))
	case s.Maintenance != nil:
		return updateRefused(dns.RcodeServerFailure, "the zone is in maintenance; sluice zone maintenance disable %s", s.Name)
	case s.Held != nil:
		return updateRefused(dns.RcodeServerFailure, "the zone is %s; sluice zone release %s", heldText(s), s.Name)
	case loadBase(s, p) == 0:
		return updateRefused(dns.RcodeServerFailure, "the zone has no contents yet")
	case s.sourceUnread(p):
		return updateRefused(dns.RcodeServerFailure, "the zone has another source now, %s, which was not taken up yet; see: sluice zone status %s", s.Source, s.Name)
	case s.Updates.full():
		return updateRefused(dns.RcodeServerFailure, "%d updates wait already; see: sluice zone status %s", s.Updates.messages(), s.Name)
	}
	return nil
}

// judge decides on updates: each gets its error, and those that change something
// stand in the facts, and their changes in raw.
func (e *Engine) judge(ctx context.Context, s State, bundle []*updateAsked) (raw []byte, facts *event.UpdateAccepted, err error) {
	facts = &event.UpdateAccepted{}
	p, err := e.boundPolicy(s)
	if _, catalog := e.catalogOf(s.Zone); catalog && err == nil {
		err = updateRefused(dns.RcodeRefused, "the zone is a catalog: what it lists is not for updates to say")
	}
	if err == nil {
		err = s.mayUpdate(p)
	}
	if err == nil && e.member() && !e.hasRole(RoleLoad) {
		err = updateRefused(dns.RcodeServerFailure, "worker %s has not the role load: send updates to one that has, or to the main process", e.worker)
	}
	if err != nil {
		return nil, facts, err
	}
	u, err := e.newUpdateEdit(s, loadBase(s, p), p)
	if err != nil {
		return nil, facts, err
	}
	defer func() { err = errors.Join(err, u.close()) }()
	for _, w := range s.Updates.Waiting {
		messages, err := e.changesOf(ctx, w)
		if err != nil {
			return nil, facts, err
		}
		for _, changes := range messages {
			if _, _, err := u.try(changes, nil); err != nil && !isUpdateError(err) {
				return nil, facts, err
			}
		}
	}
	for _, a := range bundle {
		if a.err = a.ctx.Err(); a.err != nil {
			continue // its client has given up
		}
		a.added, a.removed = 0, 0
		if a.err = e.judgeOne(s, p, u, a); a.err != nil && !isUpdateError(a.err) {
			return nil, facts, a.err
		}
		if !a.changes() {
			continue
		}
		raw = appendChanges(raw, a.m.Changes)
		facts.Updates = append(facts.Updates, event.AcceptedUpdate{
			Address: a.m.Peer.Addr.Addr().String(), TLS: a.m.Peer.TLS, Certificate: a.m.Peer.Name,
			Prerequisites: uint64(len(a.m.Prerequisites)), Added: a.added, Removed: a.removed,
		})
	}
	return raw, facts, nil
}

func isUpdateError(err error) bool {
	_, ok := errors.AsType[*updateError](err)
	return ok
}

// judgeOne decides on one update (RFC 2136, 3).
func (e *Engine) judgeOne(s State, p Policy, u *updateEdit, a *updateAsked) error {
	peer := a.m.Peer
	rules, most := p.updaters(peer)
	switch {
	case len(rules) == 0:
		return updateRefused(dns.RcodeRefused, "no rule of loader.update is about key %s from %s", peer.Key, peer.Addr.Addr())
	case len(a.m.Changes) > most:
		return updateRefused(dns.RcodeRefused, "%d records, at most %d are taken at a time (max-records)", len(a.m.Changes), most)
	}
	served := s.servedSerial()
	var now *zone.Serial
	if served != nil && len(s.Updates.Waiting) == 0 && s.Published.Loaded.Seq == loadBase(s, p) {
		now = served
	}
	if err := u.require(a.m.Prerequisites, now); err != nil {
		return err
	}
	if err := u.prescan(a.m.Changes); err != nil {
		return err
	}
	if err := u.permit(rules, peer, a.m.Changes); err != nil {
		return err
	}
	a.m.Changes = slices.DeleteFunc(a.m.Changes, func(c change) bool { return u.staleSOA(c, served) })
	var err error
	a.added, a.removed, err = u.try(a.m.Changes, served)
	return err
}

// staleSOA reports whether a change is an SOA that is passed over: it is not kept,
// since it might count where the changes are made.
func (u *updateEdit) staleSOA(c change, served *zone.Serial) bool {
	if c.Class != dns.ClassINET || c.Type != zone.TypeSOA {
		return false
	}
	ignored, err := u.ignored(c, served)
	return err == nil && ignored
}

// servedSerial is the serial that the zone is published with; nil where it is not.
func (s State) servedSerial() *zone.Serial {
	if s.Published == nil {
		return nil
	}
	return new(zone.Serial(s.Published.Signed.Facts.Serial))
}

// UpdateZone finds the zone that takes updates and that a name is below. It is
// made for xfr.Config.
func (e *Engine) UpdateZone(name zone.Name) (zone.Name, bool) {
	for len(name) > 1 {
		name = name.Parent()
		r, err := e.served(name)
		if errors.Is(err, xfr.ErrUnknownZone) {
			continue
		}
		if err != nil {
			return "", false
		}
		p, err := e.boundPolicy(r.snapshot())
		return name, err == nil && p.TakesUpdates()
	}
	return "", false
}
