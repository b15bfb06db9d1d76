package pipeline

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/miekg/dns"

	"sluice/journal/event"
	"sluice/signer/zone"
	"sluice/xfr"
)

const (
	// transferMemory is what one transfer sorts in before it spills.
	transferMemory = 8 << 20
	// maxTransfers and maxChecks bound what is under way at a time: whole
	// transfers, and questions for an SOA.
	maxTransfers = 8
	maxChecks    = 64
)

// loadTransfer takes a zone from the first of its servers that has something
// newer. errUnchanged where none has, and at least one answered.
func (e *Engine) loadTransfer(ctx context.Context, s State, c Load, servers []xfr.Endpoint, report func(Progress)) (*event.InstanceLoaded, error) {
	var faults []error
	answered := false
	for _, ep := range servers {
		t := transfer{e: e, s: s, c: c, ep: ep, report: report}
		loaded, err := t.run(ctx)
		switch {
		case err == nil:
			return loaded, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, errUnchanged):
			answered = true
			if !t.stale {
				return nil, err
			}
		default:
			faults = append(faults, &peerError{peer: ep, err: err})
		}
	}
	if answered {
		return nil, errUnchanged
	}
	return nil, errors.Join(faults...)
}

// peerError is what went wrong with one server, in words that are the same
// each time: no ports, no clock readings.
type peerError struct {
	peer xfr.Endpoint
	err  error
}

func (p *peerError) Error() string {
	reason, peer := reasonOf(p.err), p.peer.String()
	if strings.Contains(reason, peer) {
		return reason
	}
	return peer + ": " + reason
}

func (p *peerError) Unwrap() error { return p.err }

// reasonOf is the lasting part of an error of a transfer.
func reasonOf(err error) string {
	if le, ok := errors.AsType[*zone.LoadError](err); ok {
		return le.Error()
	}
	if code, ok := errors.AsType[*xfr.RcodeError](err); ok {
		lasting := *code
		if lasting.TSIG == dns.RcodeBadTime {
			lasting.Extended = ""
		}
		return lasting.Error()
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		if op.Timeout() || errors.Is(err, os.ErrDeadlineExceeded) {
			return "no answer in time"
		}
		return op.Op + ": " + op.Err.Error()
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return "no answer in time"
	}
	return err.Error()
}

// transfer is one attempt to take a zone from one server.
type transfer struct {
	e      *Engine
	s      State
	c      Load
	ep     xfr.Endpoint
	report func(Progress)

	apex   zone.Name
	policy Policy
	stale  bool // the server stands behind what is known elsewhere

	// Of the answer under way:
	ctx      context.Context //nolint:containedctx // xfr.TransferSink has none; it lives as long as one call
	receiver *zone.Receiver
	edit     *zoneEdit
	records  int64
}

// run asks and takes what is newer.
func (t *transfer) run(ctx context.Context) (*event.InstanceLoaded, error) {
	var err error
	if t.apex, err = apexOf(t.s); err != nil {
		return nil, err
	}
	if t.policy, err = t.e.boundPolicy(t.s); err != nil {
		return nil, err
	}
	base, known := baseOf(t.s, t.c.Base)
	if !known || t.c.Full {
		return t.fetch(ctx, nil)
	}
	have := zone.Serial(base.Serial)
	serial, err := t.ask(ctx)
	if err != nil {
		return nil, err
	}
	newest := have
	if l := t.s.Loaded; l != nil && l.Facts.Source == t.c.Source {
		newest = zone.Serial(l.Facts.Serial) // what a review dropped is not loaded again
	}
	if !newest.Before(serial) {
		t.stale = serial != newest || t.c.Hint != 0 && newest.Before(t.c.Hint)
		t.e.heard(t.s, t.ep.String(), serial, serial != newest)
		return nil, errUnchanged
	}
	loaded, err := t.fetch(ctx, &have)
	if errors.Is(err, xfr.ErrBrokenIXFR) || errors.Is(err, errNotApplicable) {
		t.e.log.InfoContext(ctx, "incremental transfer given up for a whole one", "zone", t.s.Name, "peer", t.ep.String(), "reason", err)
		return t.fetch(ctx, nil)
	}
	return loaded, err
}

// ask asks the server for its serial.
func (t *transfer) ask(ctx context.Context) (zone.Serial, error) {
	if err := take(ctx, t.e.checks); err != nil {
		return 0, err
	}
	defer give(t.e.checks)
	serial, _, err := t.e.client.SOA(ctx, t.ep, t.apex)
	return serial, err
}

// fetch transfers: what changed since the serial have, or everything.
func (t *transfer) fetch(ctx context.Context, have *zone.Serial) (loaded *event.InstanceLoaded, err error) {
	t.ctx, t.receiver, t.edit, t.records = ctx, nil, nil, 0
	defer func() {
		if t.edit != nil {
			err = errors.Join(err, t.edit.close())
		}
	}()
	result, err := t.receive(ctx, have)
	if err != nil {
		if t.receiver != nil {
			err = errors.Join(err, t.receiver.Close())
		}
		return nil, err
	}
	if result.Kind == xfr.UpToDate {
		t.e.heard(t.s, t.ep.String(), result.Serial, false)
		return nil, errUnchanged
	}
	facts := &event.InstanceLoaded{
		Source: t.c.Source, Base: t.c.Base, PassThrough: t.c.PassThrough,
		Peer: t.ep.String(), Transfer: result.Kind.String(), Bytes: uint64(max(0, result.Bytes)),
		PeerIdentity: peerIdentity(t.ep, result),
	}
	if result.Kind == xfr.IXFR {
		err = t.e.applyEdit(ctx, t, facts)
	} else {
		err = t.takeWhole(ctx, facts)
	}
	if err != nil {
		return nil, err
	}
	t.e.heard(t.s, t.ep.String(), zone.Serial(facts.Serial), false)
	return facts, nil
}

// peerIdentity is what a server proved to be in a transfer.
func peerIdentity(ep xfr.Endpoint, result xfr.TransferResult) *event.PeerIdentity {
	who := &event.PeerIdentity{Address: ep.Addr.Addr().String(), Key: result.Key, Algorithm: result.Algorithm}
	if p := result.Proof; p != nil {
		who.Pin, who.Certificate, who.Name = p.Pin, event.Hash(p.Certificate).String(), p.Name
	}
	return who
}

// receive holds a place among the transfers only while the server sends.
func (t *transfer) receive(ctx context.Context, have *zone.Serial) (xfr.TransferResult, error) {
	if err := take(ctx, t.e.transfers); err != nil {
		return xfr.TransferResult{}, err
	}
	defer give(t.e.transfers)
	return t.e.client.Transfer(ctx, t.ep, t.apex, have, t)
}

// takeWhole ends an AXFR: a new generation, or what changed against the base.
func (t *transfer) takeWhole(ctx context.Context, facts *event.InstanceLoaded) error {
	if err := take(ctx, t.e.heavy); err != nil {
		return errors.Join(err, t.receiver.Close())
	}
	defer give(t.e.heavy)
	in, err := t.receiver.Finish()
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // temporary files
	return t.e.takeLoaded(ctx, t.s, t.c, t.policy, in, facts)
}

// Begin implements xfr.TransferSink.
func (t *transfer) Begin(kind xfr.TransferKind, _ *xfr.Record) (err error) {
	if kind == xfr.IXFR {
		t.edit, err = t.e.newZoneEdit(t.s, t.c.Base, t.apex, t.policy)
		return err
	}
	t.receiver, err = zone.NewReceiver(t.ctx, zone.LoadOptions{
		File: t.ep.String(), Origin: t.apex, Spill: t.e.spill, Memory: transferMemory,
		MaxTTL: t.policy.loadTTL(), ClampTTL: t.policy.ClampTTL(), KeepSigned: t.c.PassThrough,
		SkipZONEMD: t.policy.Checks().ZONEMD == zonemdIgnore, Glue: t.policy.Checks().Glue,
	})
	return err
}

// Record implements xfr.TransferSink.
func (t *transfer) Record(rr *xfr.Record) error {
	t.count()
	return t.receiver.Add(rr.Owner, rr.Type, rr.TTL, rr.RData)
}

// Delete implements xfr.TransferSink.
func (t *transfer) Delete(rr *xfr.Record) error {
	t.count()
	return t.edit.remove(rr)
}

// Add implements xfr.TransferSink.
func (t *transfer) Add(rr *xfr.Record) error {
	t.count()
	return t.edit.add(rr)
}

func (t *transfer) count() {
	if t.records++; t.records%4096 == 1 {
		t.report(Progress{Stage: "load", Done: t.records})
	}
}

// baseOf is the facts of a loaded instance that a new one is a diff to; false
// where the state does not hold them.
func baseOf(s State, base uint64) (event.InstanceLoaded, bool) {
	if l := s.loaded(base); l != nil {
		return l.Facts, true
	}
	return event.InstanceLoaded{}, false
}

// take takes a place, give gives it back.
func take(ctx context.Context, places chan struct{}) error {
	select {
	case places <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func give(places chan struct{}) { <-places }

var errNotApplicable = fmt.Errorf("the changes do not apply to what is loaded")
