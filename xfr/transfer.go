package xfr

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/miekg/dns"

	"sluice/signer/zone"
)

// answerIXFR answers with what changed since the client's serial (RFC 1995),
// with the SOA alone where nothing is newer, or with the whole zone where the
// way is not known or longer than the zone.
func (s *Server) answerIXFR(ctx context.Context, x *exchange, view View) error {
	if !x.req.serial.Before(view.Serial()) {
		return s.answerCurrent(ctx, x, view)
	}
	diffs, ok := s.way(ctx, x, view)
	if x.conn == nil {
		return s.answerDatagram(ctx, x, view, diffs, ok)
	}
	if !ok {
		return s.sendZone(ctx, x, view, "ixfr as axfr")
	}
	return s.stream(ctx, x, view, "ixfr", func() error { return writeDiffs(x.enc, view, diffs) })
}

// sumOverNet is how many times the size of the zone the diffs may have in sum
// for their net difference to be looked for.
const sumOverNet = 4

// way is what leads from the client's serial to the view's, in as few steps
// as can be; false where the zone is to be sent instead.
func (s *Server) way(ctx context.Context, x *exchange, view View) ([]Diff, bool) {
	if only, ok := view.(AXFROnly); ok && only.AXFROnly(x.peer) {
		return nil, false
	}
	diffs, ok := view.Diffs(x.req.serial)
	if !ok {
		return nil, false
	}
	if !joined(diffs, x.req.serial, view.Serial()) {
		s.fault(ctx, x, errBrokenWay)
		return nil, false
	}
	sum, limit := int64(0), view.Bytes()
	for _, d := range diffs {
		sum += d.Bytes()
	}
	if x.conn == nil && sum > maxMessage {
		return nil, false // one datagram is not worth reading much for
	}
	net := condense(diffs, view.Apex())
	if limit <= 0 || sum <= limit {
		return net, true
	}
	if x.conn == nil || len(diffs) == 1 || sum/sumOverNet > limit {
		return nil, false
	}
	err := measure(net, limit)
	if err != nil && !errors.Is(err, errOverLimit) {
		s.fault(ctx, x, err)
	}
	return net, err == nil
}

var errBrokenWay = errors.New("diffs do not join")

// joined reports whether diffs lead from one serial to the other without gap.
func joined(diffs []Diff, from, to zone.Serial) bool {
	for _, d := range diffs {
		if d.From() != from {
			return false
		}
		from = d.To()
	}
	return from == to && len(diffs) > 0
}

// answerDatagram sends diffs over UDP if they fit (RFC 1995, 2), else the SOA
// alone, on which the client comes back over TCP.
func (s *Server) answerDatagram(ctx context.Context, x *exchange, view View, diffs []Diff, try bool) error {
	if try {
		err := x.oneMessage(view, func() error { return writeDiffs(x.enc, view, diffs) })
		if !errors.Is(err, errFull) {
			fine := err == nil
			if err = s.endAnswer(ctx, x, err); err == nil && fine {
				s.transferred(x, view, IXFR)
			}
			return err
		}
		x.restart()
		x.enc.flags |= flagAA
	}
	return s.answerCurrent(ctx, x, view)
}

// writeDiffs writes an incremental answer (RFC 1995, 4): the new SOA around
// the steps, oldest first, each as old SOA, what went, new SOA, what came.
func writeDiffs(e *encoder, view View, diffs []Diff) error {
	soaKey, soa := view.SOA()
	if err := e.item(soaKey, soa); err != nil {
		return err
	}
	for _, d := range diffs {
		for _, half := range []struct {
			soa   []byte
			items func() (zone.Iterator, error)
		}{{d.FromSOA(), d.Removed}, {d.ToSOA(), d.Added}} {
			if err := e.item(soaKey, half.soa); err != nil {
				return err
			}
			items, err := half.items()
			if err != nil {
				return fmt.Errorf("read diff %d to %d: %w", d.From(), d.To(), err)
			}
			if err := writeItems(e, items, nil); err != nil {
				return err
			}
		}
	}
	return e.item(soaKey, soa)
}

// writeItems writes every item but the SOA whose key, its kind aside, is
// skip, and closes the iterator.
func writeItems(e *encoder, items zone.Iterator, skip []byte) error {
	for items.Next() {
		key := items.Key()
		if len(key) == len(skip) && key[0] <= byte(zone.KindMade) && bytes.Equal(key[1:], skip[1:]) {
			continue
		}
		if err := e.item(key, items.Value()); err != nil {
			return errors.Join(err, items.Close())
		}
	}
	return errors.Join(items.Err(), items.Close())
}

// aheadFrom is the size of a zone from which on reading runs beside encoding.
const aheadFrom = 256 << 10

// sendZone sends the whole zone (RFC 5936, 2.2), the SOA first and last.
func (s *Server) sendZone(ctx context.Context, x *exchange, view View, kind string) error {
	items, err := view.Items()
	if err != nil {
		s.fault(ctx, x, err)
		x.enc.flags &^= flagAA
		return s.refuse(ctx, x, dns.RcodeServerFailure, edeOther)
	}
	if n := view.Bytes(); n == 0 || n >= aheadFrom {
		items = zone.Ahead(items)
	}
	begun := false
	err = s.stream(ctx, x, view, kind, func() error {
		begun = true
		soaKey, soa := view.SOA()
		if err := x.enc.item(soaKey, soa); err != nil {
			return errors.Join(err, items.Close())
		}
		if err := writeItems(x.enc, items, soaKey); err != nil {
			return err
		}
		return x.enc.item(soaKey, soa)
	})
	if !begun {
		return errors.Join(err, items.Close())
	}
	return err
}

// stream sends an answer of any length; fill writes its records. Encoding and
// sending run side by side, and so does reading where a zone is sent.
func (s *Server) stream(ctx context.Context, x *exchange, view View, kind string, fill func() error) error {
	if !s.takeTransfer(ctx) {
		x.enc.flags &^= flagAA
		return s.refuse(ctx, x, dns.RcodeServerFailure, edeOther)
	}
	defer func() { <-s.transfers }()
	begun := time.Now()
	own, blocks := x.enc.buf, s.blocks.Get().(*[2][]byte)
	p := startPipe(x.conn.Conn, blocks[1][:0], s.cfg.WriteTimeout, begun.Add(s.cfg.TransferTimeout))
	x.enc.out, x.enc.buf = p, blocks[0][:0]
	x.enc.open()
	err := fill()
	if err == nil {
		err = x.enc.end()
	}
	if sendErr := p.stop(); sendErr != nil {
		err = sendErr
	} else if err != nil {
		s.fault(ctx, x, err)
	}
	x.enc.buf = own
	s.blocks.Put(blocks)
	log := s.log.With("zone", view.Apex().String(), "kind", kind, "serial", view.Serial(),
		"peer", x.peer.Addr.String(), "key", x.peer.Key, "tls", x.peer.TLS, "certificate", x.peer.Name, "records", x.enc.records,
		"messages", x.enc.messages, "bytes", x.enc.bytes, "took", time.Since(begun))
	form := &s.stats.axfr
	if kind == "ixfr" {
		form = &s.stats.ixfr
	}
	form.bytes.Add(uint64(max(x.enc.bytes, 0)))
	if err != nil {
		form.broken.Add(1)
		s.stats.brokenTransfers.Add(1)
		if more, ok := s.broken.allow(time.Now()); ok {
			log.WarnContext(ctx, "zone transfer broken off", "error", err, "unlogged", more)
		}
		return fmt.Errorf("send zone %s: %w", view.Apex(), err)
	}
	form.whole.Add(1)
	s.stats.transfers.Add(1)
	log.InfoContext(ctx, "zone transfer sent")
	if kind == "ixfr" {
		s.transferred(x, view, IXFR)
	} else {
		s.transferred(x, view, AXFR)
	}
	return nil
}

// transferred tells that a peer has what the view holds.
func (s *Server) transferred(x *exchange, view View, kind TransferKind) {
	if s.cfg.Transferred != nil {
		s.cfg.Transferred(x.peer, view, kind)
	}
}

// takeTransfer waits for one of the limited transfers; false where none
// became free in the time that a client may be idle.
func (s *Server) takeTransfer(ctx context.Context) bool {
	select {
	case s.transfers <- struct{}{}:
		return true
	default:
	}
	timer := time.NewTimer(s.cfg.IdleTimeout)
	defer timer.Stop()
	select {
	case s.transfers <- struct{}{}:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// pipe is a sink with two blocks: one is filled while the other is sent.
type pipe struct {
	conn    net.Conn
	step    time.Duration // how long sending one block may take
	limit   time.Time     // when the whole transfer is given up
	full    chan []byte
	empty   chan []byte
	stopped chan struct{}
	err     error // why sending stopped; read after stopped is closed
}

func startPipe(conn net.Conn, second []byte, step time.Duration, limit time.Time) *pipe {
	p := &pipe{
		conn: conn, step: step, limit: limit,
		full: make(chan []byte, 1), empty: make(chan []byte, 2), stopped: make(chan struct{}),
	}
	p.empty <- second
	go p.send()
	return p
}

func (p *pipe) send() {
	defer close(p.stopped)
	for block := range p.full {
		if p.err = writeBlock(p.conn, block, p.step, p.limit); p.err != nil {
			return
		}
		p.empty <- block[:0]
	}
}

func (p *pipe) emit(block []byte) ([]byte, error) {
	select {
	case p.full <- block:
	case <-p.stopped:
		return nil, p.err
	}
	select {
	case empty := <-p.empty:
		return empty, nil
	case <-p.stopped:
		return nil, p.err
	}
}

// stop waits until all is sent and tells what went wrong.
func (p *pipe) stop() error {
	close(p.full)
	<-p.stopped
	return p.err
}

// writeBlock sends a block. A reader has step for it, so one that hardly
// reads is given up, and never later than limit.
func writeBlock(conn net.Conn, block []byte, step time.Duration, limit time.Time) error {
	deadline := time.Now().Add(step)
	if !limit.IsZero() && limit.Before(deadline) {
		deadline = limit
	}
	if err := conn.SetWriteDeadline(deadline); err != nil {
		return err
	}
	_, err := conn.Write(block)
	return err
}
