package pipeline

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/miekg/dns"

	"sluice/journal/event"
	"sluice/pipeline/observe"
	"sluice/signer/zone"
	"sluice/xfr"
)

// doNotifyParent tells one of the parent's agents that CDS changed. Each try is
// an event; that there is no agent is one, too.
func (e *Engine) doNotifyParent(ctx context.Context, s State, c NotifyParent) ([]event.Facts, error) {
	if s.Told == nil || s.Told.Request != c.Request {
		return nil, nil // something else is to be told now
	}
	apex, err := apexOf(s)
	if err != nil {
		return nil, err
	}
	p, err := e.boundPolicy(s)
	if err != nil {
		return nil, err
	}
	if err := take(ctx, e.telling); err != nil {
		return nil, err
	}
	defer give(e.telling)
	f := &event.DSNotified{Request: c.Request}
	err = e.notifyAgent(ctx, s, apex, p.Parent().Agent, f)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		f.Error = oneLine(err.Error())
	}
	return []event.Facts{f}, nil
}

// notifyAgent finds the agents and tells the first that acknowledges it.
func (e *Engine) notifyAgent(ctx context.Context, s State, apex, agent zone.Name, f *event.DSNotified) error {
	if e.cfg.Agents == nil || e.cfg.Resolve == nil {
		return errors.New("this process does not ask other servers")
	}
	if err := e.checkAgent(s, agent); err != nil {
		return err
	}
	found, err := e.cfg.Agents(ctx, apex, e.clock.Now())
	if err != nil {
		return fmt.Errorf("find the parent's agent: %w", err)
	}
	f.Owner, f.Validated = found.Owner, found.Validated
	if len(found.Targets) == 0 {
		f.None = true
		return nil
	}
	var failed []string
	for _, t := range found.Targets {
		f.Target = t.Host.String() + ":" + strconv.Itoa(int(t.Port))
		err := e.notifyTarget(ctx, apex, agent, t, f)
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		failed = append(failed, f.Target+": "+err.Error())
	}
	return errors.New(strings.Join(failed, "; "))
}

func (e *Engine) notifyTarget(ctx context.Context, apex, agent zone.Name, t observe.Agent, f *event.DSNotified) error {
	addrs, err := e.cfg.Resolve(ctx, t.Host.String())
	if err == nil && len(addrs) == 0 {
		err = errors.New("it has no address")
	}
	if err != nil {
		return err
	}
	var failed error
	for _, addr := range addrs[:min(len(addrs), maxAddresses)] {
		ep := xfr.Endpoint{Addr: netip.AddrPortFrom(addr, t.Port)}
		f.Server, f.Rcode = ep.String(), ""
		err := e.client.NotifyType(ctx, ep, apex, zone.TypeCDS, agent)
		if err == nil {
			f.Rcode = rcodeWord(dns.RcodeSuccess)
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if code, ok := errors.AsType[*xfr.RcodeError](err); ok {
			f.Rcode = rcodeWord(code.Rcode)
		}
		failed = errors.Join(failed, err)
	}
	return failed
}

// checkAgent refuses an agent domain that receivers would not report to
// (RFC 9859, 4.2.1).
func (e *Engine) checkAgent(s State, agent zone.Name) (err error) {
	if agent == "" {
		return nil
	}
	v, err := e.store.Published(s.Zone)
	if err != nil {
		return e.note(err)
	}
	defer func() { err = errors.Join(err, e.note(v.Close())) }()
	servers, err := publicServers(v)
	if err != nil {
		return err
	}
	for _, server := range servers {
		name, err := zone.ParseName(server.Name)
		if err == nil && agent.Under(name) {
			return nil
		}
	}
	return fmt.Errorf("key-manager.parent.notify-report-agent = %q is at or below no name server's name of the zone (RFC 9859, 4.2.1)", agent.String())
}
