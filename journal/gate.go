package journal

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/journal/event"
)

const (
	// gateHello is how long a connection has to say who it is.
	gateHello = 10 * time.Second
	// maxStrangers bounds the connections that have not said so yet.
	maxStrangers = 64
	// maxPassages bounds the connections of a member; it needs one.
	maxPassages = 8
	// maxBatches bounds the batches that a connection has begun.
	maxBatches = 256
)

// Listen is how other processes reach the journal of an embedded server.
type Listen struct {
	Address string      // IP:PORT; empty for nowhere
	TLS     *tls.Config // how it proves itself
}

// gate is where members reach an embedded server, which itself listens nowhere.
// It reads what they send: the server's permissions know subjects, the gate
// sees that an answer can only go to its asker, that an event is one of the
// member's roles, and that it follows the zone's last one.
type gate struct {
	j        *NATS
	log      *slog.Logger
	tls      *tls.Config
	listener net.Listener
	stranger chan struct{}
	work     sync.WaitGroup
	opened   sync.Once
	open     chan struct{} // closed once it is known who may come in

	mu      sync.Mutex
	closed  bool                // guarded by mu
	told    time.Time           // guarded by mu; when a stranger was told of last
	untold  int                 // guarded by mu; strangers since then
	members map[string]Member   // guarded by mu; by nkey
	conns   map[net.Conn]string // guarded by mu; with the nkey, once it is known
}

// openGate listens; connections wait until Admit says who may come in.
func (j *NATS) openGate(ctx context.Context) error {
	l := j.cfg.Listen
	if l.TLS == nil {
		return errors.New("listen for workers: no certificate")
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", l.Address)
	if err != nil {
		return fmt.Errorf("listen for workers: %w", err)
	}
	g := &gate{
		j: j, log: j.log, tls: l.TLS, listener: listener, stranger: make(chan struct{}, maxStrangers),
		open: make(chan struct{}), members: map[string]Member{}, conns: map[net.Conn]string{},
	}
	j.gate = g
	g.work.Go(g.accept)
	return nil
}

// ListenAddr is where workers reach the journal; the zero value is nowhere.
func (j *NATS) ListenAddr() netip.AddrPort {
	if j.gate == nil {
		return netip.AddrPort{}
	}
	addr, _ := netip.ParseAddrPort(j.gate.listener.Addr().String())
	return addr
}

// Admit says who may reach the journal, from here on. Connections of those who
// may not any more, or whose roles changed, end. Without a listener it does
// nothing.
func (j *NATS) Admit(members []Member) error {
	g := j.gate
	if g == nil {
		return nil
	}
	g.mu.Lock()
	old := g.members
	g.members = map[string]Member{}
	for _, m := range members {
		g.members[m.NKey] = m
	}
	for c, nkey := range g.conns {
		if was, now := old[nkey], g.members[nkey]; nkey != "" && (was.Name != now.Name || !slices.Equal(was.Roles, now.Roles)) {
			_ = c.Close() // its reader sees it
		}
	}
	g.mu.Unlock()
	j.mu.RLock()
	s := j.sess
	j.mu.RUnlock()
	if s != nil {
		if err := s.reload(g.list()); err != nil {
			return fmt.Errorf("admit workers: %w", err)
		}
	}
	g.opened.Do(func() { close(g.open) })
	return nil
}

// list is who may come in.
func (g *gate) list() []Member {
	if g == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]Member, 0, len(g.members))
	for _, m := range g.members {
		out = append(out, m)
	}
	return out
}

func (g *gate) close() {
	g.mu.Lock()
	g.closed = true
	for c := range g.conns {
		_ = c.Close()
	}
	g.mu.Unlock()
	_ = g.listener.Close()
	g.opened.Do(func() { close(g.open) })
	g.work.Wait()
}

func (g *gate) accept() {
	<-g.open
	for {
		c, err := g.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			g.log.Warn("workers' connections not accepted", "err", err)
			time.Sleep(100 * time.Millisecond) // out of files, say
			continue
		}
		select {
		case g.stranger <- struct{}{}:
		default:
			_ = c.Close()
			continue
		}
		if !g.enter(c) {
			<-g.stranger
			_ = c.Close()
			return
		}
		g.work.Go(func() { g.serve(c) })
	}
}

// enter counts a connection; false where the gate is closed.
func (g *gate) enter(c net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		g.conns[c] = ""
	}
	return !g.closed
}

// know notes who a connection is. It is false for one who may not come in.
func (g *gate) know(c net.Conn, nkey string) (Member, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	m, ok := g.members[nkey]
	n := 0
	for _, other := range g.conns {
		if other == nkey {
			n++
		}
	}
	if !ok || g.closed || n >= maxPassages {
		return m, false
	}
	g.conns[c] = nkey
	return m, true
}

// serve passes what a member and the server say to each other.
func (g *gate) serve(c net.Conn) {
	p := &passage{g: g, raw: c, stranger: true, batches: map[string]*batch{}}
	defer func() {
		_ = c.Close()
		g.mu.Lock()
		delete(g.conns, c)
		g.mu.Unlock()
		if p.stranger {
			<-g.stranger
		}
	}()
	_ = c.SetDeadline(time.Now().Add(gateHello))
	outer := tls.Server(c, g.tls)
	if err := outer.HandshakeContext(context.Background()); err != nil {
		g.log.Debug("worker's connection without TLS", "from", c.RemoteAddr(), "err", err)
		return
	}
	s, err := g.j.session()
	if err != nil {
		return
	}
	inner, err := s.srv.InProcessConn()
	if err != nil {
		g.log.Warn("worker not let in", "err", err)
		return
	}
	var answers sync.WaitGroup
	answers.Go(func() {
		_, _ = io.Copy(outer, inner) // ends with either connection
		_ = c.Close()
	})
	p.client, p.server = bufio.NewReaderSize(outer, 32<<10), bufio.NewWriterSize(inner, 32<<10)
	p.outer = outer
	err = p.run()
	_ = inner.Close()
	_ = c.Close()
	answers.Wait()
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), errors.Is(err, io.ErrClosedPipe), errors.Is(err, io.ErrUnexpectedEOF):
	case p.stranger:
		g.tellStranger(c.RemoteAddr(), err)
	default:
		g.log.Warn("worker's connection ended", "worker", p.member.Name, "from", c.RemoteAddr(), "err", err)
	}
}

// strangersTold is how often strangers are told of.
const strangersTold = time.Minute

// tellStranger logs who was not let in, one a minute and how many since.
func (g *gate) tellStranger(from net.Addr, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	if now.Sub(g.told) < strangersTold {
		g.untold++
		return
	}
	g.log.Warn("not let in to the journal", "from", from, "err", err, "others_since", g.untold)
	g.told, g.untold = now, 0
}

// passage is one connection through the gate.
type passage struct {
	g        *gate
	raw      net.Conn
	outer    net.Conn
	stranger bool // it has not said who it is
	member   Member
	client   *bufio.Reader
	server   *bufio.Writer
	batches  map[string]*batch
}

// batch is how far a batch has come.
type batch struct {
	zone    event.ZoneID
	head    Head  // of the zone, behind the newest event of the batch
	refused error // nothing of it is passed on
}

// run passes operations on until the connection ends.
func (p *passage) run() error {
	for {
		op, err := readOperation(p.client)
		if err != nil {
			return err
		}
		if (op.verb == "CONNECT") != p.stranger && op.verb != "PING" {
			return fmt.Errorf("%w: %s", errProtocol, op.verb)
		}
		switch op.verb {
		case "CONNECT":
			if err := p.hello(&op); err != nil {
				return err
			}
			err = op.write(p.server)
		case "PUB":
			err = p.publish(&op)
		default:
			err = op.write(p.server)
		}
		if err == nil && p.client.Buffered() == 0 {
			err = p.server.Flush()
		}
		if err != nil {
			return err
		}
	}
}

// hello finds out who is there. That it is so the server has it prove.
func (p *passage) hello(op *operation) error {
	nkey, err := op.readConnect()
	if err != nil {
		return err
	}
	m, ok := p.g.know(p.raw, nkey)
	if !ok {
		_, _ = io.WriteString(p.outer, "-ERR 'Authorization Violation'\r\n")
		return fmt.Errorf("nobody who was enrolled: %q", nkey)
	}
	p.member, p.stranger = m, false
	<-p.g.stranger
	return p.raw.SetDeadline(time.Time{})
}

// publish passes a message on, where it is one that the member may send.
func (p *passage) publish(op *operation) error {
	inbox := InboxPrefix(p.member.Name) + "."
	if op.reply != "" && !isInbox(op.reply, inbox) {
		// The server sends an answer wherever it is asked to.
		return fmt.Errorf("%w: an answer to %q", errProtocol, op.reply)
	}
	if strings.ContainsAny(op.subject, "*>") {
		return fmt.Errorf("%w: a message for %q", errProtocol, op.subject)
	}
	switch {
	case isUnder(op.subject, "ev."):
		return p.publishEvent(op)
	case isUnder(op.subject, workersSubject+leaseKey):
		return p.publishLease(op)
	case isUnder(op.subject, workersSubject) && op.payload > maxAbout:
		return fmt.Errorf("%w: %d bytes for %s", errProtocol, op.payload, op.subject)
	}
	if err := op.write(p.server); err != nil {
		return err
	}
	if _, err := io.CopyN(p.server, p.client, int64(op.payload)); err != nil {
		return err
	}
	return p.end()
}

// end passes the end of a payload on.
func (p *passage) end() error {
	if err := endPayload(p.client); err != nil {
		return err
	}
	_, err := p.server.WriteString("\r\n")
	return err
}

// take reads a payload that is looked at.
func (p *passage) take(op *operation, most int) ([]byte, error) {
	if op.payload > most {
		return nil, fmt.Errorf("%w: %d bytes for %s", errProtocol, op.payload, op.subject)
	}
	data := make([]byte, op.payload)
	if _, err := io.ReadFull(p.client, data); err != nil {
		return nil, err
	}
	return data, endPayload(p.client)
}

// pass passes a message on that was looked at.
func (p *passage) pass(op *operation, data []byte) error {
	if err := op.write(p.server); err != nil {
		return err
	}
	if _, err := p.server.Write(data); err != nil {
		return err
	}
	_, err := p.server.WriteString("\r\n")
	return err
}

// publishLease passes a lease on that a member takes or gives up for itself.
func (p *passage) publishLease(op *operation) error {
	data, err := p.take(op, 64)
	if err != nil {
		return err
	}
	// The bucket is in memory: it takes no more names than there are partitions.
	if _, partition, _ := strings.Cut(op.subject[len(workersSubject+leaseKey):], "."); !isPartition(partition) {
		return p.refuse(op, fmt.Errorf("a lease of %q", partition))
	}
	if string(data) != p.member.Name && (len(data) > 0 || op.headers[hdrOperation] != "DEL") {
		return p.refuse(op, fmt.Errorf("a lease for %q", data))
	}
	return p.pass(op, data)
}

// refuse answers in place of the server.
func (p *passage) refuse(op *operation, why error) error {
	p.g.log.Warn("worker's write refused", "worker", p.member.Name, "subject", op.subject, "reason", why)
	return p.answer(op, apiError{Code: codeDenied, Description: why.Error()})
}

// isPartition reports whether a word is a number of one or two digits.
func isPartition(word string) bool {
	for _, c := range []byte(word) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(word) == 1 || len(word) == 2 && word[0] != '0'
}

func isUnder(subject, prefix string) bool {
	return len(subject) > len(prefix) && subject[:len(prefix)] == prefix
}

// isInbox reports whether a subject stands under an inbox, without wildcards.
func isInbox(subject, inbox string) bool {
	if !isUnder(subject, inbox) {
		return false
	}
	last := byte('.')
	for _, c := range []byte(subject[len(inbox):]) {
		if c == '*' || c == '>' || c == '.' && last == '.' {
			return false
		}
		last = c
	}
	return last != '.'
}
