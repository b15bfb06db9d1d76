package xfr

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/miekg/dns"

	"sluice/signer/zone"
)

// ErrNotAllowed says that a peer may not do what it asks for.
var ErrNotAllowed = errors.New("not allowed")

// notifyQuestion is what both sides of a NOTIFY speak about (RFC 1996, 3.7).
const notifyQuestion = zone.TypeSOA

// Notify tells ep that a zone changed, once, and returns when ep acknowledged
// it (RFC 1996): over UDP, asked again with twice the wait each time, then
// over TCP; over TLS alone where ep says so. soa is the value of the new SOA
// RRset, a hint; nil tells none. An answer with an RCODE is an *RcodeError and
// not asked again.
func (c *Client) Notify(ctx context.Context, ep Endpoint, name zone.Name, soa zone.Value) error {
	if soa != nil {
		if err := soa.Check(); err != nil {
			return fmt.Errorf("notify %s of %s: SOA: %w", ep, name, err)
		}
	}
	q := &query{opcode: dns.OpcodeNotify, name: name, qtype: notifyQuestion, soa: soa}
	_, err := c.ask(ctx, ep, q, c.notifyTries())
	_, answered := errors.AsType[*RcodeError](err)
	switch {
	case err == nil:
		c.stats.told.Add(1)
	case answered:
		c.stats.refused.Add(1)
	case ctx.Err() == nil:
		c.stats.silent.Add(1)
	}
	if err != nil {
		return fmt.Errorf("notify %s of %s: %w", ep, name, err)
	}
	return nil
}

// notified answers a NOTIFY (RFC 1996, 3).
func (s *Server) notified(ctx context.Context, x *exchange) error {
	if s.cfg.AllowsNotify == nil {
		return s.refuse(ctx, x, dns.RcodeNotImplemented, edeNone)
	}
	if x.req.qclass != classIN {
		return s.refuse(ctx, x, dns.RcodeRefused, edeNotSupported)
	}
	if x.req.qtype != notifyQuestion {
		return s.refuse(ctx, x, dns.RcodeNotImplemented, edeNotSupported)
	}
	switch err := s.cfg.AllowsNotify(x.req.name, x.peer); {
	case errors.Is(err, ErrUnknownZone):
		s.stats.notifiesRefused.Add(1)
		return s.refuse(ctx, x, dns.RcodeNotAuth, edeNotAuthoritative)
	case errors.Is(err, ErrNotAllowed):
		s.stats.notifiesRefused.Add(1)
		return s.refuse(ctx, x, dns.RcodeRefused, edeProhibited)
	case err != nil:
		s.stats.notifiesRefused.Add(1)
		s.fault(ctx, x, err)
		return s.refuse(ctx, x, dns.RcodeServerFailure, edeOther)
	}
	s.stats.notifies.Add(1)
	var serial *zone.Serial
	if x.req.hasSerial {
		serial = &x.req.serial
	}
	if more, ok := s.notifies.allow(time.Now()); ok {
		hint := int64(-1)
		if serial != nil {
			hint = int64(*serial)
		}
		s.log.InfoContext(ctx, "notify received", "zone", x.req.name.String(), "serial", hint,
			"peer", x.peer.Addr.String(), "key", x.peer.Key, "unlogged", more)
	}
	if s.cfg.Notified != nil {
		s.cfg.Notified(x.req.name, serial, x.peer)
	}
	x.enc.flags |= flagAA
	x.enc.open()
	return x.enc.end()
}
