package xfr

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"

	"sluice/signer/zone"
)

const (
	// maxUpdating bounds the updates over UDP that are under way, and the long ones
	// over TCP, each for themselves: the latter hold their place while they are
	// read, however slow their sender. Further datagrams are lost, as any may be,
	// and further connections closed.
	maxUpdating = 64
	// updateTimeout is how long an update may take. Its client has given up then.
	updateTimeout = 10 * time.Second
)

// UpdateMessage is a dynamic update that came (RFC 2136), signed with the key
// that Peer names.
type UpdateMessage struct {
	Zone zone.Name
	Peer Peer
	// Prerequisites and Changes are the records of the two sections, in their
	// order.
	Prerequisites, Changes []UpdateRecord
}

// UpdateRecord is a record of an update. What it says depends on its class,
// which is IN, ANY or NONE; other classes are handed on, too.
type UpdateRecord struct {
	Owner zone.Name
	Type  zone.Type
	Class uint16
	TTL   uint32 // in seconds, as it came
	// RData is uncompressed and right for its type; nil where there is none.
	RData []byte
}

// readUpdate reads the sections of an update behind its zone section (RFC 2136,
// 2). Of the additional section only OPT and TSIG count.
func (r *request) readUpdate(msg []byte, at int) error {
	r.update = &UpdateMessage{Zone: r.name}
	var d decoder
	sections := []*[]UpdateRecord{&r.update.Prerequisites, &r.update.Changes}
	for i, to := range sections {
		for range binary.BigEndian.Uint16(msg[6+2*i:]) {
			rr, ok := readRecord(msg, at)
			if !ok || rr.rtype == typeOPT || rr.rtype == typeTSIG {
				return errFormat
			}
			u, err := d.update(msg, rr)
			if err != nil {
				return errFormat
			}
			*to = append(*to, u)
			at = rr.end
		}
	}
	additional := int(binary.BigEndian.Uint16(msg[10:]))
	for i := range additional {
		rr, ok := readRecord(msg, at)
		if !ok {
			return errFormat
		}
		if err := r.take(msg, rr, 2, i == additional-1); err != nil {
			return err
		}
		at = rr.end
	}
	if at != len(msg) {
		return errFormat
	}
	return nil
}

// update reads one record of an update. RDATA is checked as that of any record;
// there may be none where the class allows it, which whoever takes the update
// checks.
func (d *decoder) update(msg []byte, rr record) (UpdateRecord, error) {
	u := UpdateRecord{Owner: zone.Name(rr.owner), Type: rr.rtype, Class: rr.class, TTL: rr.ttl}
	if rr.dataAt == rr.end && rr.class != classIN {
		return u, nil
	}
	d.begin(msg, rr.start)
	if err := d.data(rr.rtype, rr.dataAt, rr.end); err != nil {
		return u, err
	}
	u.RData = append(make([]byte, 0, len(d.rr.RData)), d.rr.RData...)
	return u, nil
}

// isUpdate reports whether a message is an update, by its header.
func isUpdate(msg []byte) bool {
	return len(msg) >= headerLen && msg[2]&0x80 == 0 && int(msg[2])>>3&0xf == dns.OpcodeUpdate
}

// updated answers an update. It waits until that is taken.
func (s *Server) updated(ctx context.Context, x *exchange) error {
	switch {
	case s.cfg.Update == nil:
		return s.refuse(ctx, x, dns.RcodeNotImplemented, edeNone)
	case x.req.qtype != zone.TypeSOA: // RFC 2136, 3.1.1
		return s.refuse(ctx, x, dns.RcodeFormatError, edeNone)
	case x.peer.Key == "":
		s.stats.updatesRefused.Add(1)
		return s.refuse(ctx, x, dns.RcodeRefused, edeProhibited)
	case x.req.qclass != classIN:
		return s.refuse(ctx, x, dns.RcodeNotAuth, edeNotAuthoritative)
	}
	ctx, cancel := context.WithTimeout(ctx, updateTimeout)
	defer cancel()
	x.req.update.Peer = x.peer
	rcode := s.cfg.Update(ctx, x.req.update)
	if rcode != dns.RcodeSuccess {
		return s.refuse(ctx, x, rcode, edeOfUpdate(rcode))
	}
	x.enc.open()
	return x.enc.end()
}

func edeOfUpdate(rcode int) ede {
	switch rcode {
	case dns.RcodeRefused:
		return edeProhibited
	case dns.RcodeNotAuth:
		return edeNotAuthoritative
	case dns.RcodeServerFailure:
		return edeNotReady
	}
	return edeNone
}

// updateOverUDP answers an update aside: it takes longer than other requests,
// which wait for each other.
func (s *Server) updateOverUDP(ctx context.Context, c *net.UDPConn, msg []byte, from netip.AddrPort, oob []byte) {
	select {
	case s.updating <- struct{}{}:
	default:
		s.stats.dropped.Add(1)
		if more, ok := s.refusals.allow(time.Now()); ok {
			s.log.InfoContext(ctx, "update dropped: too many are under way", "peer", from.String(), "unlogged", more)
		}
		return
	}
	s.answering.Go(func() {
		defer func() { <-s.updating }()
		enc := new(encoder)
		to := netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		if s.answer(ctx, msg, to, enc, nil) != nil || len(enc.buf) == 0 {
			return
		}
		_, _, _ = c.WriteMsgUDPAddrPort(enc.buf, oob, from) // lost, as any datagram may be
	})
}

// errTooLong: a request is longer than it may be.
var errTooLong = errors.New("request too long")

// serveLong answers a request of a connection that is longer than most may be:
// an update, which may fill a message.
func (s *Server) serveLong(ctx context.Context, c net.Conn, n int, from netip.AddrPort, conn *streamConn) error {
	var header [headerLen]byte
	place := false
	if s.cfg.Update != nil {
		if _, err := io.ReadFull(c, header[:]); err != nil {
			return err
		}
		if isUpdate(header[:]) {
			select {
			case s.long <- struct{}{}:
				place = true
				defer func() { <-s.long }()
			default:
			}
		}
	}
	if !place {
		s.stats.dropped.Add(1)
		if more, ok := s.refusals.allow(time.Now()); ok {
			s.log.InfoContext(ctx, "connection closed: its request is too long", "peer", from.String(), "bytes", n, "unlogged", more)
		}
		return errTooLong
	}
	msg := make([]byte, n)
	copy(msg, header[:])
	if _, err := io.ReadFull(c, msg[headerLen:]); err != nil {
		return err
	}
	return s.answerConn(ctx, msg, from, conn)
}

// answerBelow answers a question for the SOA of a name below a zone that takes
// updates, so that who is about to update it learns which zone that is: no
// answer, and the zone's SOA in the authority section (RFC 2308, 2.2).
func (s *Server) answerBelow(ctx context.Context, x *exchange) error {
	if s.cfg.Enclosing == nil {
		return s.refuse(ctx, x, dns.RcodeRefused, edeNotAuthoritative)
	}
	apex, ok := s.cfg.Enclosing(x.req.name)
	if !ok {
		return s.refuse(ctx, x, dns.RcodeRefused, edeNotAuthoritative)
	}
	view, err := s.cfg.Source.View(apex)
	if err != nil {
		return s.refuse(ctx, x, dns.RcodeServerFailure, edeNotReady)
	}
	x.enc.flags |= flagAA
	x.enc.authority = true
	err = s.endAnswer(ctx, x, x.oneMessage(view, func() error { return x.enc.item(view.SOA()) }))
	if closeErr := view.Close(); closeErr != nil {
		s.fault(ctx, x, closeErr)
	}
	return err
}
