package observe

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"

	"sluice/keymgr/validate"
	"sluice/signer/zone"
)

// question is what is asked. Records of DNSSEC are always asked for.
type question struct {
	name    zone.Name
	t       zone.Type
	recurse bool // ask a resolver; without it, a server that must know
	// validated has the resolver validate; else what it says is validated here.
	validated bool
}

// answer is what a server said, grouped by RRset.
type answer struct {
	nxdomain           bool
	authoritative      bool
	records, authority []validate.RRset
}

// of finds an RRset in the answer section.
func (a *answer) of(name zone.Name, t zone.Type) *validate.RRset {
	return validate.Find(a.records, name, t)
}

var (
	errLame      = errors.New("not authoritative")
	errTruncated = errors.New("truncated answer over TCP")
	errNotOurs   = errors.New("the answer does not belong to the question")
)

// udpSize is the size of answers over UDP that resolvers may send.
const udpSize = 1232

// pack makes the message. CD is set where what needs validation is validated
// here.
func (q question) pack() (id uint16, msg []byte, err error) {
	m := new(dns.Msg)
	m.SetQuestion(q.name.String(), uint16(q.t))
	m.RecursionDesired, m.CheckingDisabled = q.recurse, q.recurse && !q.validated
	m.SetEdns0(udpSize, true)
	msg, err = m.Pack()
	return m.Id, msg, err
}

// check reads an answer.
func (q question) check(id uint16, msg []byte) (m *dns.Msg, err error) {
	m = new(dns.Msg)
	if err := m.Unpack(msg); err != nil {
		return nil, fmt.Errorf("malformed answer: %w", err)
	}
	if m.Id != id || !m.Response || m.Opcode != dns.OpcodeQuery || len(m.Question) != 1 {
		return nil, errNotOurs
	}
	asked := m.Question[0]
	name, err := zone.ParseName(asked.Name)
	if err != nil || !name.Equal(q.name) || asked.Qtype != uint16(q.t) || asked.Qclass != dns.ClassINET {
		return nil, errNotOurs
	}
	return m, nil
}

// read groups the records of an answer that fits the question.
func (q question) read(m *dns.Msg) (a answer, err error) {
	if m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		word, ok := dns.RcodeToString[m.Rcode]
		if !ok {
			word = fmt.Sprintf("RCODE %d", m.Rcode)
		}
		return a, fmt.Errorf("the server answered %s", word)
	}
	a.nxdomain, a.authoritative = m.Rcode == dns.RcodeNameError, m.Authoritative
	if !q.recurse && !m.Authoritative {
		return a, errLame
	}
	if a.records, err = validate.Group(m.Answer); err != nil {
		return a, err
	}
	a.authority, err = validate.Group(m.Ns)
	return a, err
}

// session is a connection over TCP on which one question after the other is
// asked.
type session struct {
	conn    net.Conn
	timeout time.Duration // of each answer
	// again connects anew: the connection was kept, and the server may have closed
	// it meanwhile. It is nil once something was answered.
	again func(context.Context) (net.Conn, error)
}

// connect opens a session, which ends with ctx at the latest.
func (o *Observer) connect(ctx context.Context, server netip.AddrPort) (*session, func(), error) {
	conn, err := o.dialTCP(ctx, server)
	if err != nil {
		return nil, nil, err
	}
	return &session{conn: conn, timeout: o.cfg.Timeout}, func() { _ = conn.Close() }, nil
}

func (o *Observer) dialTCP(ctx context.Context, server netip.AddrPort) (net.Conn, error) {
	dial, cancel := context.WithTimeoutCause(ctx, o.cfg.Timeout, errTimeout)
	defer cancel()
	conn, err := o.cfg.Dial(dial, "tcp", server.String())
	if err != nil {
		return nil, inTime(dial, err)
	}
	return conn, nil
}

var errTimeout = errors.New("no answer in time")

// inTime says that time is up where that is what err comes from.
func inTime(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err // what was tried where is known
	}
	return err
}

// ask asks one question and waits for its answer.
func (s *session) ask(ctx context.Context, q question) (answer, error) {
	m, err := s.exchange(ctx, q)
	if err != nil {
		return answer{}, err
	}
	return q.read(m)
}

// exchange is ask for the message as it came.
func (s *session) exchange(ctx context.Context, q question) (*dns.Msg, error) {
	id, msg, err := q.pack()
	if err != nil {
		return nil, err
	}
	got, err := s.send(ctx, msg)
	if again := s.again; err != nil && again != nil && ctx.Err() == nil && hungUp(err) {
		_ = s.conn.Close() // the other side did
		var conn net.Conn
		if conn, err = again(ctx); err == nil {
			s.conn = conn
			got, err = s.send(ctx, msg)
		}
	}
	if err != nil {
		return nil, err
	}
	s.again = nil
	m, err := q.check(id, got)
	if err != nil {
		return nil, err
	}
	if m.Truncated {
		return nil, errTruncated
	}
	return m, nil
}

// send sends a message and waits for one.
func (s *session) send(ctx context.Context, msg []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.timeout, errTimeout)
	defer cancel()
	conn := s.conn
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()       // reading tells
	framed := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(msg)), uint16(len(msg))) //nolint:gosec // a question is short
	if _, err := conn.Write(append(framed, msg...)); err != nil {
		return nil, inTime(ctx, err)
	}
	in := bufio.NewReaderSize(conn, readAhead)
	var length [2]byte
	if _, err := io.ReadFull(in, length[:]); err != nil {
		return nil, inTime(ctx, err)
	}
	got := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(in, got); err != nil {
		return nil, inTime(ctx, err)
	}
	if in.Buffered() > 0 {
		return nil, errNotOurs
	}
	return got, nil
}

// readAhead is how much is read at once: most answers, with their length.
const readAhead = 2048

// askUDP asks over UDP. truncated says that the answer is to be had over TCP.
func (o *Observer) askUDP(ctx context.Context, server netip.AddrPort, q question) (a answer, truncated bool, err error) {
	m, err := o.exchangeUDP(ctx, server, q)
	switch {
	case err != nil:
		return a, false, err
	case m.Truncated:
		return a, true, nil
	}
	a, err = q.read(m)
	return a, false, err
}

// exchangeUDP asks over UDP; what does not answer the question is passed over,
// it may be forged.
func (o *Observer) exchangeUDP(ctx context.Context, server netip.AddrPort, q question) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, o.cfg.Timeout, errTimeout)
	defer cancel()
	conn, err := o.cfg.Dial(ctx, "udp", server.String())
	if err != nil {
		return nil, inTime(ctx, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	id, msg, err := q.pack()
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(msg); err != nil {
		return nil, inTime(ctx, err)
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, inTime(ctx, err)
		}
		if m, err := q.check(id, buf[:n]); err == nil {
			return m, nil
		}
	}
}
