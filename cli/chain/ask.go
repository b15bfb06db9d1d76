package chain

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"

	"sluice/keymgr/validate"
	"sluice/signer/zone"
)

// Bounds of one check. What is real stays far below them.
const (
	maxQuestions   = 4000
	maxServers     = 32 // names that an NS RRset makes us ask
	maxAddresses   = 40 // addresses of a zone
	maxAtATime     = 64 // questions
	maxAliases     = 8
	maxDepth       = 6 // of finding a name server's address by name servers whose addresses must be found
	maxDelegations = 32
	maxHosts       = 400 // whose addresses are looked up
	tries          = 2   // over UDP
	udpSize        = 1232
	wideSize       = 4096 // where TCP is shut
	silentEnough   = 8    // silent addresses of a family, with none that answers: this machine has no way to it
)

// server is one address of a name server.
type server struct {
	name string
	addr netip.AddrPort

	mu     sync.Mutex
	dead   *trouble // guarded by mu; it answered nothing: it is not asked again
	plain  bool     // guarded by mu; it answers without EDNS alone
	shut   bool     // guarded by mu; it does not answer over TCP
	seen   []trouble
	millis int64   // guarded by mu; of the first answer
	serial *uint32 // guarded by mu
}

func (s *server) String() string { return fmt.Sprintf("%s (%s)", s.name, s.addr.Addr()) }

// trouble is why there is no answer, or none as it has to be.
type trouble struct {
	code Code
	text string
}

func (t *trouble) Error() string { return t.text }

// note keeps what is wrong with a server besides an answer.
func (s *server) note(t trouble) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, known := range s.seen {
		if known.code == t.code {
			return
		}
	}
	s.seen = append(s.seen, t)
}

// isDead reports whether it is known that it does not answer.
func (s *server) isDead() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dead != nil
}

// question is what is asked, always with DO.
type question struct {
	name zone.Name
	t    zone.Type
	tcp  bool // over TCP at once
	wide bool // over UDP, with room for a large answer
}

// reply is an answer, grouped by RRset.
type reply struct {
	rcode                     int
	aa, recursive             bool
	ra                        bool // it is what resolvers say
	answer, authority, extras []validate.RRset
	problem                   *trouble // instead of all else
}

func (r *reply) nxdomain() bool { return r.rcode == dns.RcodeNameError }

// of finds an RRset in the answer.
func (r *reply) of(name zone.Name, t zone.Type) *validate.RRset {
	return validate.Find(r.answer, name, t)
}

// asker asks within the bounds of one check.
type asker struct {
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	timeout time.Duration
	recurse bool // the servers are a resolver
	places  chan struct{}

	mu    sync.Mutex
	count int64 // guarded by mu; questions so far
	over  bool  // guarded by mu; a bound was reached
	// v4 and v6 are what addresses of these families do. Guarded by mu.
	v4, v6 family
}

// family is what came of asking addresses of IPv4 or IPv6.
type family struct {
	answered bool // one did
	silent   int
}

// heard takes note of whether an address answers.
func (a *asker) heard(addr netip.Addr, answers bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f := &a.v6
	if addr.Is4() {
		f = &a.v4
	}
	if answers {
		f.answered = true
	} else {
		f.silent++
	}
}

// noWay says why an address is not asked: many of its family are silent, and none
// answers, while those of the other do. That is this machine's network.
func (a *asker) noWay(addr netip.Addr) *trouble {
	a.mu.Lock()
	defer a.mu.Unlock()
	name, mine, other := "IPv6", a.v6, a.v4
	if addr.Is4() {
		name, mine, other = "IPv4", a.v4, a.v6
	}
	if a.recurse || mine.answered || mine.silent < silentEnough || !other.answered {
		return nil
	}
	return &trouble{CodeServerUnreachable, "this machine has no way to the address: nothing answers it over " + name}
}

// excuse takes back that servers are silent that this machine has no way to.
func (a *asker) excuse(servers []*server) {
	for _, s := range servers {
		why := a.noWay(s.addr.Addr())
		s.mu.Lock()
		if why != nil && s.dead != nil {
			s.dead = why
		}
		s.mu.Unlock()
	}
}

// spend takes one of the questions that are left.
func (a *asker) spend() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.count >= maxQuestions {
		a.over = true
		return false
	}
	a.count++
	return true
}

func (a *asker) spent() (count int64, over bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.count, a.over
}

// ask asks a server, over UDP and then over TCP where that is needed.
func (a *asker) ask(ctx context.Context, s *server, q question) *reply {
	s.mu.Lock()
	dead, plain := s.dead, s.plain
	s.mu.Unlock()
	if dead == nil {
		dead = a.noWay(s.addr.Addr())
	}
	if dead != nil {
		s.mu.Lock()
		s.dead = dead
		s.mu.Unlock()
		return &reply{problem: dead}
	}
	m, t := a.exchange(ctx, s, q, !plain)
	if t != nil {
		if t.code == CodeServerSilent || t.code == CodeServerUnreachable {
			s.mu.Lock()
			s.dead = t
			s.mu.Unlock()
		}
		if t.code == CodeServerSilent {
			a.heard(s.addr.Addr(), false)
		}
		return &reply{problem: t}
	}
	a.heard(s.addr.Addr(), true)
	return a.read(q, m)
}

// exchange gets a whole message.
func (a *asker) exchange(ctx context.Context, s *server, q question, edns bool) (*dns.Msg, *trouble) {
	if q.tcp {
		return a.overTCP(ctx, s, q, edns)
	}
	m, t := a.overUDP(ctx, s, q, edns)
	if edns && refusesEDNS(m, t) {
		without, again := a.overUDP(ctx, s, q, false)
		if again == nil && without.Rcode != dns.RcodeFormatError {
			how := "answers nothing to questions with EDNS"
			if m != nil {
				how = "answers " + rcodeText(m.Rcode) + " to questions with EDNS"
			}
			s.note(trouble{CodeServerEDNS, how})
			s.mu.Lock()
			s.plain = true
			s.mu.Unlock()
			m, t = without, nil
		}
	}
	if t != nil {
		return nil, t
	}
	if m.Truncated {
		return a.whole(ctx, s, q, edns)
	}
	return m, nil
}

// whole gets an answer that is truncated over UDP: over TCP, and where that is shut
// over UDP with room for more, so that it goes on with what answers.
func (a *asker) whole(ctx context.Context, s *server, q question, edns bool) (*dns.Msg, *trouble) {
	s.mu.Lock()
	shut := s.shut
	s.mu.Unlock()
	t := &trouble{CodeServerTCP, "truncates the answer over UDP, and does not answer over TCP"}
	if !shut {
		m, why := a.overTCP(ctx, s, q, edns)
		if why == nil {
			return m, nil
		}
		if why.code != CodeServerSilent && why.code != CodeServerUnreachable {
			s.note(*why)
			return nil, why
		}
		t.text += ": " + why.text
		s.note(*t)
		s.mu.Lock()
		s.shut = true
		s.mu.Unlock()
	}
	if !edns {
		return nil, t
	}
	q.wide = true
	m, why := a.once(ctx, s, q, edns, "udp")
	if why != nil || m.Truncated {
		return nil, t
	}
	return m, nil
}

// refusesEDNS reports whether an answer may be due to EDNS.
func refusesEDNS(m *dns.Msg, t *trouble) bool {
	if t != nil {
		return t.code == CodeServerSilent
	}
	return m.Rcode == dns.RcodeFormatError || m.Rcode == dns.RcodeNotImplemented || m.Rcode == dns.RcodeBadVers
}

// pack makes the message.
func (a *asker) pack(q question, edns bool) (id uint16, msg []byte, err error) {
	m := new(dns.Msg)
	m.SetQuestion(q.name.String(), uint16(q.t))
	m.RecursionDesired, m.CheckingDisabled = a.recurse, a.recurse
	if edns {
		size := uint16(udpSize)
		if q.wide {
			size = wideSize
		}
		m.SetEdns0(size, true)
	}
	msg, err = m.Pack()
	return m.Id, msg, err
}

var errNotOurs = errors.New("the answer does not belong to the question")

// check reads a message as an answer to a question.
func check(q question, id uint16, msg []byte) (*dns.Msg, error) {
	m := new(dns.Msg)
	err := m.Unpack(msg)
	if m.Id != id || !m.Response || m.Opcode != dns.OpcodeQuery {
		return nil, errNotOurs
	}
	if err != nil && !m.Truncated {
		return nil, fmt.Errorf("malformed answer: %w", err)
	}
	if len(m.Question) == 0 && m.Rcode == dns.RcodeFormatError {
		return m, nil // what could not be read cannot be repeated
	}
	if len(m.Question) != 1 {
		return nil, errNotOurs
	}
	asked := m.Question[0]
	name, err := zone.ParseName(asked.Name)
	if err != nil || !name.Equal(q.name) || asked.Qtype != uint16(q.t) || asked.Qclass != dns.ClassINET {
		return nil, errNotOurs
	}
	return m, nil
}

// overUDP asks over UDP, a few times where nothing comes.
func (a *asker) overUDP(ctx context.Context, s *server, q question, edns bool) (m *dns.Msg, t *trouble) {
	for range tries {
		if m, t = a.once(ctx, s, q, edns, "udp"); t == nil || t.code != CodeServerSilent || ctx.Err() != nil {
			return m, t
		}
	}
	return m, t
}

func (a *asker) overTCP(ctx context.Context, s *server, q question, edns bool) (*dns.Msg, *trouble) {
	m, t := a.once(ctx, s, q, edns, "tcp")
	if t == nil && m.Truncated {
		return nil, &trouble{CodeServerTruncation, "truncates the answer even over TCP"}
	}
	return m, t
}

// once asks one time.
func (a *asker) once(ctx context.Context, s *server, q question, edns bool, network string) (*dns.Msg, *trouble) {
	select {
	case a.places <- struct{}{}:
		defer func() { <-a.places }()
	case <-ctx.Done():
		return nil, &trouble{CodeNotAsked, "the check's time was up"}
	}
	if !a.spend() {
		return nil, &trouble{CodeNotAsked, fmt.Sprintf("more than %d questions", maxQuestions)}
	}
	outer := ctx
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	begin := time.Now()
	m, err := a.talk(ctx, s, q, edns, network)
	if err == nil {
		s.mu.Lock()
		if s.millis == 0 {
			s.millis = max(1, time.Since(begin).Milliseconds())
		}
		s.mu.Unlock()
		return m, nil
	}
	switch {
	case outer.Err() != nil:
		return nil, &trouble{CodeNotAsked, "the check's time was up"}
	case noRoute(err):
		return nil, &trouble{CodeServerUnreachable, "this machine has no way to the address"}
	case ctx.Err() != nil:
		return nil, &trouble{CodeServerSilent, fmt.Sprintf("no answer over %s within %s", transport(network), a.timeout)}
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return nil, &trouble{CodeServerSilent, fmt.Sprintf("over %s: %v", transport(network), op.Err)}
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, &trouble{CodeServerSilent, fmt.Sprintf("closes the connection over %s without an answer", transport(network))}
	}
	return nil, &trouble{CodeServerMalformed, err.Error()}
}

func transport(network string) string {
	if network == "tcp" {
		return "TCP"
	}
	return "UDP"
}

// noRoute reports whether this machine cannot reach an address at all.
func noRoute(err error) bool {
	for _, no := range []error{syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.EADDRNOTAVAIL, syscall.EAFNOSUPPORT} {
		if errors.Is(err, no) {
			return true
		}
	}
	return false
}

// talk asks and waits for the answer.
func (a *asker) talk(ctx context.Context, s *server, q question, edns bool, network string) (*dns.Msg, error) {
	id, msg, err := a.pack(q, edns)
	if err != nil {
		return nil, err
	}
	conn, err := a.dial(ctx, network, s.addr.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })() // reading tells
	if network == "tcp" {
		return stream(conn, q, id, msg)
	}
	if _, err := conn.Write(msg); err != nil {
		return nil, err
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, err
		}
		m, err := check(q, id, buf[:n])
		if errors.Is(err, errNotOurs) {
			continue // it may be forged
		}
		return m, err
	}
}

// stream asks on a connection over TCP.
func stream(conn net.Conn, q question, id uint16, msg []byte) (*dns.Msg, error) {
	framed := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(msg)), uint16(len(msg))) //nolint:gosec // a question is short
	if _, err := conn.Write(append(framed, msg...)); err != nil {
		return nil, err
	}
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return nil, err
	}
	got := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(conn, got); err != nil {
		return nil, err
	}
	return check(q, id, got)
}

// read groups an answer's records, and says where it is none.
func (a *asker) read(q question, m *dns.Msg) *reply {
	r := &reply{rcode: m.Rcode, aa: m.Authoritative, recursive: a.recurse, ra: m.RecursionAvailable}
	if m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		r.problem = &trouble{CodeServerLame, "answers " + rcodeText(m.Rcode)}
		return r
	}
	var err error
	for _, section := range []struct {
		from []dns.RR
		to   *[]validate.RRset
	}{{m.Answer, &r.answer}, {m.Ns, &r.authority}, {m.Extra, &r.extras}} {
		if *section.to, err = validate.Group(section.from); err != nil {
			r.problem = &trouble{CodeServerMalformed, fmt.Sprintf("%s %s: %v", q.name, q.t, err)}
			return r
		}
	}
	return r
}

func rcodeText(rcode int) string {
	if word, ok := dns.RcodeToString[rcode]; ok {
		return word
	}
	return fmt.Sprintf("RCODE %d", rcode)
}

// referral finds the delegation that an answer refers to, below a zone.
func (r *reply) referral(apex zone.Name) *validate.RRset {
	if r.aa || len(r.answer) > 0 || r.recursive {
		return nil
	}
	for i := range r.authority {
		set := &r.authority[i]
		if set.Type == zone.TypeNS && set.Owner.Under(apex) && !set.Owner.Equal(apex) {
			return set
		}
	}
	return nil
}

// lame says why an answer without a referral is not the zone's own word.
func (r *reply) lame(apex zone.Name) *trouble {
	if r.problem != nil {
		return r.problem
	}
	if !r.aa && !r.recursive && r.ra {
		return &trouble{CodeServerLame, fmt.Sprintf("answers as a resolver does, and is not authoritative for %s", apex)}
	}
	if !r.aa && !r.recursive {
		return &trouble{CodeServerLame, fmt.Sprintf("is not authoritative for %s", apex)}
	}
	return nil
}
