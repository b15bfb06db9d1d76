package xfr

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/miekg/dns"

	"sluice/signer/zone"
)

// TransferKind is the form of a transfer.
type TransferKind int

// The forms of a transfer.
const (
	UpToDate TransferKind = iota + 1 // nothing newer
	AXFR                             // the whole zone
	IXFR                             // what changed since the serial held
)

// String is "up to date", "AXFR" or "IXFR".
func (k TransferKind) String() string {
	switch k {
	case UpToDate:
		return "up to date"
	case AXFR:
		return "AXFR"
	case IXFR:
		return "IXFR"
	}
	return fmt.Sprintf("TransferKind(%d)", int(k))
}

// TransferSink takes a transfer as it arrives. Nothing of it counts before
// Transfer has returned without an error: the end may be missing, and with
// TSIG up to 99 messages are verified with the one after them. An error ends
// the transfer and is returned by Transfer, wrapped.
type TransferSink interface {
	// Begin is called once, before all others, unless nothing is newer. soa
	// is the new SOA.
	Begin(kind TransferKind, soa *Record) error
	// Record takes the next record of an AXFR, in the server's order. The
	// SOA comes first and once.
	Record(rr *Record) error
	// Delete and Add take the next record of an IXFR. A step begins with
	// Delete of its old SOA; Add of its new SOA ends what is deleted. Steps
	// join from the serial held to the new one.
	Delete(rr *Record) error
	Add(rr *Record) error
}

// TransferResult is what a transfer was.
type TransferResult struct {
	Kind     TransferKind
	Serial   zone.Serial // of the server's SOA
	Records  int64       // as they came, SOAs included
	Messages int64
	Bytes    int64 // of the messages
	Key      string
	// Algorithm is the name of Key's algorithm, such as hmac-sha256.
	Algorithm string
	// Proof is what the server proved itself by over TLS; nil in clear text.
	Proof *TLSProof
	Took  time.Duration
}

// ErrBrokenIXFR says that an incremental answer does not lead from the serial
// held to the new one. The zone is to be transferred whole.
var ErrBrokenIXFR = errors.New("IXFR does not apply")

// Transfer fetches a zone: by IXFR from the serial have on, which the server
// may answer with the whole zone, or by AXFR where have is nil or the server
// refuses IXFR. Errors name zone and server: an *RcodeError where the server
// refused, ErrBrokenIXFR where AXFR is the way out, an error of the sink, or
// of the transfer itself.
func (c *Client) Transfer(ctx context.Context, ep Endpoint, name zone.Name, have *zone.Serial, sink TransferSink) (TransferResult, error) {
	begun := time.Now()
	result, err := c.transfer(ctx, ep, name, have, sink, begun.Add(c.limits.Load().MaxTime))
	result.Key, result.Took = ep.Key, time.Since(begun)
	c.stats.took(result, err, ctx.Err() != nil)
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return result, fmt.Errorf("transfer zone %s from %s: %w", name, ep, err)
	}
	return result, nil
}

// transfer tries IXFR where it can be had, then AXFR, and both without EDNS
// where the server does not understand it.
func (c *Client) transfer(ctx context.Context, ep Endpoint, name zone.Name, have *zone.Serial, sink TransferSink, end time.Time) (TransferResult, error) {
	key, err := c.key(ep)
	if err != nil {
		return TransferResult{}, err
	}
	q := query{name: name, qtype: typeAXFR, edns: true}
	if have != nil {
		q.qtype, q.have = typeIXFR, have
	}
	for {
		result, err := c.transferOnce(ctx, ep, q, key, sink, end)
		if err == nil || result.Kind != 0 || ctx.Err() != nil {
			return result, err
		}
		code, refused := errors.AsType[*RcodeError](err)
		switch {
		case refused && code.Rcode == dns.RcodeFormatError && q.edns:
			q.edns = false
		case q.have != nil && (refused && isIXFRRefusal(code.Rcode) || errors.Is(err, errLoneSOA)):
			q.qtype, q.have = typeAXFR, nil
		default:
			return result, err
		}
	}
}

// isIXFRRefusal reports whether a server that answers so may still offer AXFR.
func isIXFRRefusal(rcode int) bool {
	switch rcode {
	case dns.RcodeFormatError, dns.RcodeServerFailure, dns.RcodeNotImplemented, dns.RcodeRefused:
		return true
	}
	return false
}

// transferOnce asks once, on a connection of its own.
func (c *Client) transferOnce(ctx context.Context, ep Endpoint, q query, key *tsigKey, sink TransferSink, end time.Time) (TransferResult, error) {
	conn, err := c.dial(ctx, "tcp", ep)
	if err != nil {
		return TransferResult{}, err
	}
	defer closeWith(ctx, conn)()
	now := time.Now()
	if err := conn.SetWriteDeadline(now.Add(c.limits.Load().Idle)); err != nil {
		return TransferResult{}, err
	}
	t := c.pool.Get().(*inbound)
	defer func() {
		*t = inbound{buf: t.buf, dec: decoder{rdata: t.dec.rdata}}
		c.pool.Put(t)
	}()
	t.q, t.id, t.sink, t.limits, t.conn, t.end = &q, newID(), sink, *c.limits.Load(), conn, end
	t.dec.apex = q.name.Fold()
	var msg []byte
	msg, t.signed = q.pack(t.id, key, now)
	if err := writeFramed(conn, msg); err != nil {
		return TransferResult{}, err
	}
	err = t.run()
	t.result.Proof = proofOf(conn, ep.TLS)
	if key != nil {
		t.result.Algorithm = strings.TrimSuffix(key.algorithm.String(), ".")
	}
	return t.result, err
}
