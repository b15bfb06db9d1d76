package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/signer/zone"
	"sluice/xfr"
)

// Signal is what the operator of a zone's name servers says of its CDS and
// CDNSKEY (RFC 9615).
type Signal struct {
	// Keys is what the records say, as events have it; empty for none. Owners is
	// where they were put.
	Keys   []string `json:"keys,omitempty"`
	Owners []string `json:"owners,omitempty"`
	// Telling is the last try to change them.
	Telling *Telling `json:"telling,omitempty"`
}

// evolve folds another try. What a failed one has put stands there, and what
// stood at other names does until all is removed.
func (g *Signal) evolve(f *event.SignalPushed, at time.Time) *Signal {
	next := Signal{}
	if g != nil {
		next = *g
	}
	if next.Telling != nil && next.Telling.Done {
		next.Telling = nil // the failures before are over
	}
	next.Telling = next.Telling.next(at, f.Error, signalText(f))
	if f.Error == "" {
		next.Keys = f.Keys
	}
	switch {
	case len(f.Keys) == 0 && f.Error == "":
		next.Owners = nil
	case len(f.Keys) > 0:
		next.Owners = append(slices.Clone(next.Owners), f.Owners...)
		slices.Sort(next.Owners)
		next.Owners = slices.Compact(next.Owners)
	}
	return &next
}

// PushSignal has the operator's records say what CDS and CDNSKEY do, or go.
type PushSignal struct {
	Keys    []string // as events have it; none has them removed
	Servers []string
}

// Lane implements Command.
func (PushSignal) Lane() Lane { return ParentLane }

// Identity implements Command.
func (c PushSignal) Identity() string { return identity("push signal", c) }

func (PushSignal) command() {}

// bootstraps reports whether the zone asks for its first DS by CDS.
func (s State) bootstraps() bool {
	ds := s.Keys.DS
	return len(ds.Wanted) > 0 && len(s.Keys.CDS()) > 0 &&
		!slices.ContainsFunc(ds.Sets, func(set event.DSSet) bool { return len(set.DS) > 0 })
}

// signals reports whether the operator's records say this.
func (s State) signals(keys []string) bool {
	return s.Signal != nil && len(s.Signal.Owners) > 0 && slices.Equal(s.Signal.Keys, keys)
}

// decideSignal reports whether the operator's records are changed now. They
// stand there from when CDS are published until the parent has a DS.
func decideSignal(d *Decision, s State, p Policy, m Moment) bool {
	to := p.Parent().Signal
	if len(to) == 0 {
		return false
	}
	var want []string
	if s.bootstraps() {
		if want = cdsOf(s.Keys); !s.showsCDS() || s.signals(want) {
			return false
		}
	} else if s.Signal == nil || len(s.Signal.Owners) == 0 {
		return false
	}
	if g := s.Signal; g != nil && !g.Telling.Done {
		if again := g.Telling.tellAgain(); stampHolds(g.Telling.Time, again, m.Now) {
			d.wake(again, "the records of the name servers' operator are updated again")
			return false
		}
	}
	c := PushSignal{Keys: want}
	for _, ep := range to {
		c.Servers = append(c.Servers, ep.String())
	}
	d.add(m, c)
	return true
}

// doSignal updates the operator's records. Each try is an event.
func (e *Engine) doSignal(ctx context.Context, s State, c PushSignal) ([]event.Facts, error) {
	p, err := e.boundPolicy(s)
	if err != nil {
		return nil, err
	}
	if err := take(ctx, e.telling); err != nil {
		return nil, err
	}
	defer give(e.telling)
	f := &event.SignalPushed{Keys: c.Keys}
	owners, failed := e.signalOwners(s, len(c.Keys) == 0)
	want, err := signalSets(s, p, len(c.Keys) == 0)
	if err != nil {
		return nil, err
	}
	for _, owner := range owners {
		err := e.signalAt(ctx, p.Parent().Signal, owner, want)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", owner, err))
			continue
		}
		f.Owners = append(f.Owners, owner.String())
	}
	if failed != nil {
		f.Error = oneLine(failed.Error())
	}
	return []event.Facts{f}, nil
}

// signalOwners are the names at which the records are to stand, or, to remove
// them, stand.
func (e *Engine) signalOwners(s State, remove bool) (owners []zone.Name, err error) {
	if remove {
		for _, text := range s.Signal.Owners {
			owner, err := zone.ParseName(text)
			if err != nil {
				return nil, err
			}
			owners = append(owners, owner)
		}
		return owners, nil
	}
	apex, err := apexOf(s)
	if err != nil {
		return nil, err
	}
	hosts, err := e.nameServers(s)
	if err != nil {
		return nil, err
	}
	var none error
	for _, host := range hosts {
		owner, err := keymgr.SignalName(apex, host)
		if err != nil {
			none = errors.Join(none, err) // the others vouch for the zone
			continue
		}
		owners = append(owners, owner)
	}
	if len(owners) == 0 {
		return nil, fmt.Errorf("no name server can vouch for the zone (RFC 9615): %w", none)
	}
	return owners, nil
}

// nameServers are the names of the published NS RRset.
func (e *Engine) nameServers(s State) (names []zone.Name, err error) {
	v, err := e.store.Published(s.Zone)
	if err != nil {
		return nil, e.note(err)
	}
	defer func() { err = errors.Join(err, e.note(v.Close())) }()
	servers, err := publicServers(v)
	if err != nil {
		return nil, err
	}
	for _, server := range servers {
		name, err := zone.ParseName(server.Name)
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
}

// signalSets are the CDS and CDNSKEY RRsets as the zone has them; empty ones
// where they are to be removed.
func signalSets(s State, p Policy, remove bool) ([]xfr.UpdateSet, error) {
	cds, cdnskey := xfr.UpdateSet{Type: zone.TypeCDS, TTL: p.DNSKEYTTL()}, xfr.UpdateSet{Type: zone.TypeCDNSKEY, TTL: p.DNSKEYTTL()}
	if remove {
		return []xfr.UpdateSet{cds, cdnskey}, nil
	}
	apex, err := apexOf(s)
	if err != nil {
		return nil, err
	}
	if cds.Add, err = wantedDS(apex, s, p); err != nil {
		return nil, err
	}
	for _, id := range s.Keys.CDS() {
		k, ok := s.Keys.ByID(id)
		if !ok {
			return nil, fmt.Errorf("key %s: %w", id, ErrNotFound)
		}
		rdata, err := keymgr.RData(k.Key)
		if err != nil {
			return nil, err
		}
		cdnskey.Add = append(cdnskey.Add, rdata)
	}
	return []xfr.UpdateSet{cds, cdnskey}, nil
}

// signalAt brings the records at one name to what they are to be, at the first
// server that takes that.
func (e *Engine) signalAt(ctx context.Context, servers []xfr.Endpoint, owner zone.Name, want []xfr.UpdateSet) error {
	var failed []string
	for _, ep := range servers {
		parent := ""
		err := func() error {
			in, err := e.zoneOf(ctx, ep, owner)
			if err != nil {
				return err
			}
			if in == "" {
				return errors.New("it does not say which zone the name is in")
			}
			parent = in.String()
			for try := 1; ; try++ {
				err := e.signalUpdate(ctx, ep, in, owner, want)
				if !changedMeanwhile(err) || try == pushTries {
					return err
				}
			}
		}()
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		failed = append(failed, ep.String()+": "+pushFailure(ep, parent, err))
	}
	return errors.New(strings.Join(failed, "; "))
}

// signalUpdate reads the records at a server and changes them in one update.
func (e *Engine) signalUpdate(ctx context.Context, ep xfr.Endpoint, in, owner zone.Name, want []xfr.UpdateSet) error {
	u := xfr.Update{Zone: in, Owner: owner}
	changes := 0
	for _, set := range want {
		have, err := e.rdataAt(ctx, ep, owner, set.Type)
		if err != nil {
			return err
		}
		next := xfr.UpdateSet{Type: set.Type, TTL: set.TTL, Have: have}
		next.Remove = without(have, set.Add)
		next.Add = without(set.Add, have)
		changes += len(next.Remove) + len(next.Add)
		u.Sets = append(u.Sets, next)
	}
	if changes == 0 {
		return nil
	}
	return e.client.Update(ctx, ep, u)
}

// without is what of a list does not stand in another.
func without(list, other [][]byte) (out [][]byte) {
	for _, data := range list {
		if !slices.ContainsFunc(other, func(o []byte) bool { return bytes.Equal(o, data) }) {
			out = append(out, data)
		}
	}
	return out
}

// rdataAt is the RDATA of an RRset at a server; none where there is no such
// RRset.
func (e *Engine) rdataAt(ctx context.Context, ep xfr.Endpoint, owner zone.Name, t zone.Type) (out [][]byte, err error) {
	m, err := e.client.Ask(ctx, ep, owner, t)
	if err != nil {
		if code, ok := errors.AsType[*xfr.RcodeError](err); ok && code.Rcode == dns.RcodeNameError {
			return nil, nil
		}
		return nil, err
	}
	for _, rr := range m.Answer {
		if rr.Header().Rrtype != uint16(t) || !equalName(rr.Header().Name, owner) {
			continue
		}
		buf := make([]byte, dns.Len(rr)+zone.MaxNameLength)
		end, err := dns.PackRR(rr, buf, 0, nil, false)
		if err != nil {
			return nil, err
		}
		n, err := zone.NameLength(buf[:end])
		if err != nil || end < n+10 {
			return nil, fmt.Errorf("%s %s: malformed record", owner, t)
		}
		out = append(out, buf[n+10:end])
	}
	return out, nil
}

// signalText tells an update of the operator's records.
func signalText(f *event.SignalPushed) string {
	what := "records of the name servers' operator (RFC 9615)"
	switch {
	case f.Error != "":
		return what + " not updated: " + f.Error
	case len(f.Keys) == 0:
		return what + " removed at " + strings.Join(f.Owners, ", ")
	}
	return what + " vouch for " + strings.Join(f.Keys, ", ") + " at " + strings.Join(f.Owners, ", ")
}

// signalWay tells what became of them.
func (s State) signalWay(p Policy) ToldWay {
	w := ToldWay{Way: "signal"}
	g := s.Signal
	switch {
	case g == nil && s.bootstraps():
		w.Text = "the records of the name servers' operator are due once the zone is published with CDS"
	case g == nil:
		w.Text = "the records of the name servers' operator are not needed"
	default:
		w.Done, w.Failed, w.At, w.Text = g.Telling.Done, g.Telling.Failed, g.Telling.Time, g.Telling.Text
		if !w.Done && len(p.Parent().Signal) > 0 && (s.bootstraps() || len(g.Owners) > 0) {
			w.RetryAt = timeOrNil(g.Telling.tellAgain())
		}
	}
	return w
}
