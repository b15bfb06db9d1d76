package xfr

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"

	"sluice/signer/zone"
)

// ede is an extended DNS error (RFC 8914, 4).
type ede int

const (
	edeNone             ede = -1
	edeOther            ede = ede(dns.ExtendedErrorCodeOther)
	edeNotReady         ede = ede(dns.ExtendedErrorCodeNotReady)
	edeProhibited       ede = ede(dns.ExtendedErrorCodeProhibited)
	edeNotAuthoritative ede = ede(dns.ExtendedErrorCodeNotAuthoritative)
	edeNotSupported     ede = ede(dns.ExtendedErrorCodeNotSupported)
)

// exchange is one request on its way to its answer.
type exchange struct {
	peer Peer
	msg  []byte
	req  request
	enc  *encoder
	conn *streamConn // nil over UDP
}

// answer reads a request and answers it. Over UDP the answer is left in the
// encoder; over TCP it has been sent. After an error nothing more can be said
// to this peer: the request was none, or the answer broke off.
func (s *Server) answer(ctx context.Context, msg []byte, from netip.AddrPort, enc *encoder, conn *streamConn) error {
	x := &exchange{peer: Peer{Addr: from}, msg: msg, enc: enc, conn: conn}
	if conn != nil {
		x.peer.TLS, x.peer.Name = conn.tls, conn.name
	}
	var err error
	if x.req, err = parseRequest(msg); errors.Is(err, errDrop) {
		s.stats.dropped.Add(1)
		return err
	}
	s.stats.requests.Add(1)
	x.begin()
	switch {
	case err != nil:
		return s.refuse(ctx, x, dns.RcodeFormatError, edeNone)
	case !slices.Contains([]int{dns.OpcodeQuery, dns.OpcodeNotify, dns.OpcodeUpdate}, x.req.opcode()):
		return s.refuse(ctx, x, dns.RcodeNotImplemented, edeNone)
	case x.req.version != 0:
		return s.refuse(ctx, x, dns.RcodeBadVers, edeNone)
	}
	if x.req.tsig != nil {
		signer, ok := verifyTSIG(msg, &x.req, s.cfg.Keys, s.cfg.WeakTSIG, time.Now())
		if !ok {
			return s.refuse(ctx, x, dns.RcodeFormatError, edeNone)
		}
		enc.signWith(signer)
		if signer.code != 0 {
			return s.refuse(ctx, x, dns.RcodeNotAuth, edeNone)
		}
		x.peer.Key = x.req.tsig.key.String()
	}
	switch x.req.opcode() {
	case dns.OpcodeNotify:
		return s.notified(ctx, x)
	case dns.OpcodeUpdate:
		return s.updated(ctx, x)
	}
	return s.query(ctx, x)
}

// begin starts the answer anew, as one without signature.
func (x *exchange) begin() {
	if x.conn != nil {
		x.enc.begin(&x.req, x.enc.buf[:0], x.conn, true, maxMessage)
		return
	}
	size := dns.MinMsgSize
	if x.req.edns {
		size = min(max(int(x.req.payload), size), udpPayload)
	}
	x.enc.begin(&x.req, x.enc.buf[:0], nil, false, size)
}

// restart drops what was written of a one-message answer; its signature
// stays to be made.
func (x *exchange) restart() {
	signer := x.enc.sign
	x.begin()
	x.enc.signWith(signer)
}

// query answers a well-formed query whose signature, if any, is right.
func (s *Server) query(ctx context.Context, x *exchange) error {
	transfer := x.req.qtype == typeAXFR || x.req.qtype == typeIXFR
	switch {
	case x.req.qclass != classIN:
		return s.refuse(ctx, x, dns.RcodeRefused, edeNotSupported)
	case !transfer && x.req.qtype != zone.TypeSOA:
		return s.refuse(ctx, x, dns.RcodeRefused, edeNotSupported)
	case x.req.qtype == typeAXFR && x.conn == nil:
		// RFC 5936, 4.2 leaves AXFR over UDP undefined: it is not offered.
		return s.refuse(ctx, x, dns.RcodeNotImplemented, edeNotSupported)
	case x.req.qtype == typeIXFR && !x.req.hasSerial:
		return s.refuse(ctx, x, dns.RcodeFormatError, edeNone)
	}
	view, err := s.cfg.Source.View(x.req.name)
	switch {
	case errors.Is(err, ErrUnknownZone) && transfer:
		return s.refuse(ctx, x, dns.RcodeNotAuth, edeNotAuthoritative)
	case errors.Is(err, ErrUnknownZone):
		return s.answerBelow(ctx, x)
	case errors.Is(err, ErrNotReady):
		return s.refuse(ctx, x, dns.RcodeServerFailure, edeNotReady)
	case err != nil:
		s.fault(ctx, x, err)
		return s.refuse(ctx, x, dns.RcodeServerFailure, edeOther)
	}
	err = s.queryView(ctx, x, view)
	if closeErr := view.Close(); closeErr != nil {
		s.fault(ctx, x, closeErr)
	}
	return err
}

// queryView answers from the view of the zone that was asked for. The SOA is
// told to anyone, as every public server of the zone does; transfers are for
// those whom the zone's policy names.
func (s *Server) queryView(ctx context.Context, x *exchange, view View) error {
	x.enc.apex = []byte(view.Apex())
	x.enc.flags |= flagAA
	if x.req.qtype == zone.TypeSOA {
		return s.answerSOA(ctx, x, view)
	}
	if !view.Allows(x.peer) {
		x.enc.flags &^= flagAA
		return s.refuse(ctx, x, dns.RcodeRefused, edeProhibited)
	}
	if x.req.qtype == typeIXFR {
		return s.answerIXFR(ctx, x, view)
	}
	return s.sendZone(ctx, x, view, "axfr")
}

// answerSOA answers with the SOA and, where DNSSEC records are wanted, its
// RRSIGs.
func (s *Server) answerSOA(ctx context.Context, x *exchange, view View) error {
	err := x.oneMessage(view, func() error {
		if err := x.enc.item(view.SOA()); err != nil {
			return err
		}
		if key, value := view.SOASigs(); x.req.do && len(value) > 0 {
			return x.enc.item(key, value)
		}
		return nil
	})
	if errors.Is(err, errFull) {
		x.restart()
		x.enc.flags |= flagAA | flagTC
		x.enc.open()
		return x.enc.end()
	}
	return s.endAnswer(ctx, x, err)
}

// answerCurrent is the answer to an IXFR client that has nothing to fetch, or
// that must come back over TCP (RFC 1995, 2 and 4): the SOA alone.
func (s *Server) answerCurrent(ctx context.Context, x *exchange, view View) error {
	err := x.oneMessage(view, func() error { return x.enc.item(view.SOA()) })
	return s.endAnswer(ctx, x, err)
}

// oneMessage writes an answer of one message; errFull where it does not fit.
// A stream's answer may have no second message either.
func (x *exchange) oneMessage(view View, fill func() error) error {
	out := x.enc.out
	x.enc.out = nil
	defer func() { x.enc.out = out }()
	x.enc.apex = []byte(view.Apex())
	x.enc.open()
	return fill()
}

// endAnswer sends a one-message answer, or SERVFAIL where making it failed.
func (s *Server) endAnswer(ctx context.Context, x *exchange, err error) error {
	if err != nil {
		s.fault(ctx, x, err)
		x.restart()
		return s.refuse(ctx, x, dns.RcodeServerFailure, edeOther)
	}
	s.stats.answers.Add(1)
	return x.enc.end()
}

// refuse answers with an RCODE and no records.
func (s *Server) refuse(ctx context.Context, x *exchange, rcode int, why ede) error {
	s.stats.refused.Add(1)
	if more, ok := s.refusals.allow(time.Now()); ok {
		log := s.log
		if sign := x.enc.sign; sign != nil && sign.code != 0 {
			// Whose signature it is stands nowhere else: it was not taken.
			log = log.With("tsig", dns.RcodeToString[int(sign.code)], "claimed_key", sign.key.String())
		}
		log.InfoContext(ctx, "request refused", "zone", x.req.name.String(), "type", x.req.qtype.String(),
			"peer", x.peer.Addr.String(), "key", x.peer.Key, "rcode", dns.RcodeToString[rcode], "unlogged", more)
	}
	x.enc.setCode(rcode, why)
	x.enc.open()
	return x.enc.end()
}

// fault reports an answer that could not be made through our own fault.
func (s *Server) fault(ctx context.Context, x *exchange, err error) {
	s.stats.faults.Add(1)
	if more, ok := s.faults.allow(time.Now()); ok {
		s.log.ErrorContext(ctx, "zone cannot be served", "zone", x.req.name.String(),
			"type", x.req.qtype.String(), "peer", x.peer.Addr.String(), "error", err, "unlogged", more)
	}
}
