//go:build cgo

package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	p11 "github.com/miekg/pkcs11"

	"sluice/keymgr"
)

const (
	defaultSessions = 8
	defaultTimeout  = 10 * time.Second
	// Pause after an attempt to connect that failed; doubled up to longestRest.
	shortestRest = 500 * time.Millisecond
	longestRest  = 15 * time.Second
)

// errClosed reports the use of a keystore that was closed.
var errClosed = errors.New("the keystore is closed")

// Store is a keystore on one token, which its label and serial number name. It
// is safe for concurrent use.
type Store struct {
	tokens  *Tokens
	token   keymgr.Token // Serial is filled in by the first connection where it is ""
	pin     func() (string, error)
	refused *pins // where a refused PIN is noted; nil nowhere
	// slots has an item for each call that is with the token, also those that
	// nobody waits for any more.
	slots chan struct{}
	turn  chan struct{} // held by who connects
	// changing is held by who makes or deletes keys: tokens are less used to
	// that being done at once than to signing (SoftHSM fails now and then).
	changing chan struct{}
	held     int // items in slots that stand for sessions which the token lacks; of who holds turn

	mu       sync.Mutex
	conn     *connection   // guarded by mu; nil: none
	module   *module       // guarded by mu; nil before the first connection
	failure  error         // guarded by mu; of the last attempt to connect, nil after success
	since    time.Time     // guarded by mu; since when it is connected, or not
	stopped  bool          // guarded by mu; a person has to act before the next attempt
	failedAt time.Time     // guarded by mu; when the last attempt failed
	rest     time.Duration // guarded by mu; how long there is no further one
	closed   bool          // guarded by mu
	lacking  int           // guarded by mu; sessions that the token lacks
}

var _ keymgr.TokenKeystore = (*Store)(nil)

// connection is a login at a token. It ends with its first fault; what was
// found by it is not used after that.
type connection struct {
	module *module
	epoch  uint64
	slot   uint
	info   p11.TokenInfo
	idle   chan p11.SessionHandle
	dead   atomic.Bool // it is not used any more

	mu   sync.Mutex
	keys map[string]*object // guarded by mu; by reference
}

// Name implements keymgr.Keystore.
func (s *Store) Name() string { return s.token.Name }

// Token implements keymgr.TokenKeystore.
func (s *Store) Token() keymgr.Token {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.token
}

// State implements keymgr.TokenKeystore.
func (s *Store) State() keymgr.TokenState {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := keymgr.TokenState{Connected: s.conn != nil, Stopped: s.stopped, Since: s.since}
	if s.failure != nil {
		st.Problem, st.Hint = s.failure.Error(), hintOf(s.failure)
	}
	return st
}

// tokenName names the token in errors.
func tokenName(t keymgr.Token) string {
	if t.Serial == "" {
		return fmt.Sprintf("token %q", t.Label)
	}
	return fmt.Sprintf("token %q (serial number %s)", t.Label, t.Serial)
}

// connected gives a connection; one that is there already costs nothing.
func (s *Store) connected(ctx context.Context) (*connection, error) {
	c, err := s.known()
	if c != nil || err != nil {
		return c, err
	}
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, s.away(fmt.Errorf("connect: %w", slow(ctx)))
	}
	defer func() { <-s.turn }()
	if c, err = s.known(); c != nil || err != nil { // somebody connected meanwhile, or could not
		return c, err
	}
	return s.connect(ctx, attempt{})
}

// known is the connection there is, or why none is tried now; both nil where
// one should be.
func (s *Store) known() (*connection, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	if s.conn != nil {
		if s.conn.epoch == s.conn.module.now() {
			return s.conn, nil
		}
		s.conn.dead.Store(true) // another keystore had the module initialised
		s.conn = nil
	}
	rests := s.failure != nil && s.tokens.now().Sub(s.failedAt) < s.rest
	if s.stopped || rests {
		return nil, s.failure
	}
	return nil, nil
}

// away is an error with the token's name in front, and the keystore's.
func (s *Store) away(err error) error {
	wrapped := fmt.Errorf("keystore %q, %s: %w", s.token.Name, tokenName(s.Token()), err)
	if hint := hintOf(err); hint != "" {
		return problem{wrapped, hint}
	}
	return problem{wrapped, "see to the token; then it goes on by itself, or at once: sluice keystore test " + s.token.Name}
}

// attempt is how a connection is tried.
type attempt struct {
	// asked: a person wants it, so a refused PIN is tried once more.
	asked bool
	pin   string // in place of the one that is kept; "" for that
}

// connect makes a connection, and notes what came of it. The caller holds turn.
func (s *Store) connect(ctx context.Context, how attempt) (*connection, error) {
	ctx, cancel := context.WithTimeout(ctx, s.token.Timeout)
	defer cancel()
	width := cap(s.slots) - s.held
	if err := s.drain(ctx); err != nil {
		return nil, s.away(err)
	}
	c, stopped, err := s.dial(ctx, how)
	if err != nil {
		err = s.away(err)
	} else {
		width = c.width(cap(s.slots))
	}
	s.held = cap(s.slots) - width
	for range width {
		<-s.slots
	}
	if err != nil && how.pin != "" {
		return nil, err // says nothing about the PIN that is kept
	}
	return s.note(c, stopped, err)
}

// drain waits until no call is with the token, and keeps further ones out. So
// nobody uses handles of an old connection once there is a new one: a module
// may give them out again.
func (s *Store) drain(ctx context.Context) error {
	for i := range cap(s.slots) - s.held {
		select {
		case s.slots <- struct{}{}:
		case <-ctx.Done():
			n := cap(s.slots) - s.held - i
			for range i {
				<-s.slots
			}
			return problem{fmt.Errorf("%d calls have not come back: %w", n, slow(ctx)), "see to the token; where it works again and this stays, restart the daemon"}
		}
	}
	return nil
}

// note keeps what came of an attempt to connect.
func (s *Store) note(c *connection, stopped bool, err error) (*connection, error) {
	now := s.tokens.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && s.closed {
		err = errClosed
	}
	if (s.failure == nil) != (err == nil) || s.since.IsZero() {
		s.since = now
	}
	s.failure, s.stopped = err, stopped
	if err != nil {
		s.failedAt, s.rest = now, min(max(2*s.rest, shortestRest), longestRest)
		return nil, err
	}
	s.rest, s.conn, s.lacking = 0, c, s.held
	c.module.worked()
	return c, nil
}

// dial finds the token and logs in. Where the module does not show it, or it
// does not work, the module is initialised anew, once. stopped says that only
// a person can help.
func (s *Store) dial(ctx context.Context, how attempt) (c *connection, stopped bool, err error) {
	m, err := s.loaded()
	if err != nil {
		return nil, false, err
	}
	epoch := m.now()
	if epoch > 0 {
		c, stopped, err = s.login(ctx, m, epoch, how)
		if err == nil || stopped || ctx.Err() != nil || errors.Is(err, errAmbiguous) {
			return c, stopped, err
		}
	}
	if again := m.initialise(ctx, epoch, s.tokens.now(), how.asked); again != nil {
		if err == nil {
			err = again
		}
		return nil, false, err // the first reason says more
	}
	return s.login(ctx, m, m.now(), how)
}

// loaded is the token's module.
func (s *Store) loaded() (*module, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	if s.module == nil {
		m, err := s.tokens.use(s.token.Module)
		if err != nil {
			return nil, err
		}
		s.module = m
	}
	return s.module, nil
}

// width is how many sessions the token has for us, most at the most.
func (c *connection) width(most int) int {
	for _, n := range []uint{c.info.MaxSessionCount, c.info.MaxRwSessionCount} {
		if n > 0 && n < uint(most) { // 0: no limit; all bits: not known
			most = int(n) //nolint:gosec // below most
		}
	}
	return most
}

// lose ends a connection after a fault.
func (s *Store) lose(c *connection) {
	c.dead.Store(true)
	s.mu.Lock()
	if s.conn == c {
		s.conn = nil
	}
	s.mu.Unlock()
}

// Check implements keymgr.TokenKeystore.
func (s *Store) Check(ctx context.Context) error {
	return s.do(ctx, func(ctx context.Context, c *connection) error {
		return s.with(ctx, c, func(lib library, session p11.SessionHandle) error {
			if _, err := lib.GetSessionInfo(session); err != nil {
				return err
			}
			return c.present(lib)
		})
	})
}

// Close implements keymgr.TokenKeystore. A call that does not come back is
// left behind.
func (s *Store) Close() error {
	s.mu.Lock()
	c, m, closed := s.conn, s.module, s.closed
	s.conn, s.module, s.closed = nil, nil, true
	s.mu.Unlock()
	if closed || m == nil {
		return nil
	}
	if c != nil {
		ctx, cancel := context.WithTimeout(context.Background(), s.token.Timeout)
		defer cancel()
		_ = m.call(ctx, func(lib library) error { return lib.CloseAllSessions(c.slot) }) // it is over anyway
	}
	return s.tokens.leave(m)
}

// change waits for the turn to make or delete keys; done gives it back.
func (s *Store) change(ctx context.Context) (done func(), err error) {
	select {
	case s.changing <- struct{}{}:
		return func() { <-s.changing }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
