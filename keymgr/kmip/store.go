package kmip

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"sluice/keymgr"
)

// errClosed reports the use of a keystore that was closed.
var errClosed = errors.New("the keystore is closed")

// errOver reports that what was known of the server ended before it was used,
// since somebody else found a fault.
var errOver = errors.New("the connection is over")

// maxOver bounds how often that may happen to one call.
const maxOver = 50

// Store is a keystore on one KMIP server. It is safe for concurrent use.
type Store struct {
	servers *Servers
	token   keymgr.Token
	login   func() (login keymgr.ServerLogin, secret string, err error)
	speaks  []version // of the protocol, best first
	refused *logins   // where a refused password is noted; nil nowhere
	// slots has an item for each request that is with the server.
	slots chan struct{}
	idle  chan *conn    // connections that nobody uses
	turn  chan struct{} // held by who connects
	// changing is held by who makes or deletes keys.
	changing chan struct{}
	// batch is how many signatures one request may ask for. It only shrinks,
	// and is what it was at first after a test.
	batch atomic.Int32

	mu       sync.Mutex
	server   *server       // guarded by mu; nil: not connected
	failure  error         // guarded by mu; of the last attempt to connect, nil after success
	since    time.Time     // guarded by mu; since when it is connected, or not
	stopped  bool          // guarded by mu; a person has to act before the next attempt
	failedAt time.Time     // guarded by mu; when the last attempt failed
	rest     time.Duration // guarded by mu; how long there is no further one
	closed   bool          // guarded by mu
}

var _ keymgr.TokenKeystore = (*Store)(nil)

// server is what is known of a server since it was connected to. It ends with
// the first fault that may mean that the server was away.
type server struct {
	speaks  []version // of the protocol, by this client
	version version
	login   keymgr.ServerLogin
	config  *tls.Config
	vendor  string          // what it says of itself
	name    string          // likewise
	can     map[uint32]bool // operations; empty where it does not say
	dead    atomic.Bool     // it is not used any more

	mu   sync.Mutex
	keys map[string]*object // guarded by mu; by reference
	ways map[wayOf]way      // guarded by mu; how it wants to be told what to sign
	made map[string]int     // guarded by mu; which form of a request for a key pair it took
}

// Name implements keymgr.Keystore.
func (s *Store) Name() string { return s.token.Name }

// Token implements keymgr.TokenKeystore.
func (s *Store) Token() keymgr.Token { return s.token }

// State implements keymgr.TokenKeystore.
func (s *Store) State() keymgr.TokenState {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := keymgr.TokenState{Connected: s.server != nil, Stopped: s.stopped, Since: s.since}
	if s.failure != nil {
		st.Problem, st.Hint = s.failure.Error(), keymgr.HintOf(s.failure)
	}
	return st
}

// serverName names the server in errors.
func (s *Store) serverName() string { return "KMIP server " + s.token.Server.Address }

// away is an error with the server's name in front, and the keystore's. It is not
// tried again at once any more.
func (s *Store) away(err error) error {
	if broken, ok := lost(err); ok {
		err = broken.error
	}
	wrapped := fmt.Errorf("keystore %q, %s: %w", s.token.Name, s.serverName(), err)
	if hint := keymgr.HintOf(err); hint != "" {
		return problem{wrapped, hint}
	}
	return problem{wrapped, "see to the server and the way to it; then it goes on by itself, or at once: sluice keystore test " + s.token.Name}
}

// connected gives the server; one that is connected already costs nothing.
func (s *Store) connected(ctx context.Context) (*server, error) {
	srv, err := s.known()
	if srv != nil || err != nil {
		return srv, err
	}
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-s.turn }()
	if srv, err = s.known(); srv != nil || err != nil { // somebody connected meanwhile, or could not
		return srv, err
	}
	return s.connect(ctx, attempt{})
}

// known is the server, or why it is not tried now; both nil where it should be.
func (s *Store) known() (*server, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	if s.server != nil {
		return s.server, nil
	}
	rests := s.failure != nil && s.servers.now().Sub(s.failedAt) < s.rest
	if s.stopped || rests {
		return nil, s.failure
	}
	return nil, nil
}

// attempt is how a connection is tried.
type attempt struct {
	// asked: a person wants it, so a refused password is tried once more.
	asked bool
	// secret is a login in place of the one that is kept; "" for that.
	secret string
}

// connect makes a connection, and notes what came of it. The caller holds turn.
func (s *Store) connect(ctx context.Context, how attempt) (*server, error) {
	caller := ctx
	ctx, cancel := context.WithTimeoutCause(ctx, s.token.Timeout, s.timeUp())
	defer cancel()
	srv, stopped, err := s.meet(ctx, how)
	if err != nil && caller.Err() != nil {
		return nil, caller.Err() // it says nothing about the server
	}
	if err != nil {
		err = s.away(err)
		if how.secret != "" {
			return nil, err // says nothing about the login that is kept
		}
	}
	return s.note(srv, stopped, err)
}

// timeUp is the error of a call that takes too long.
func (s *Store) timeUp() error { return fmt.Errorf("within %v", s.token.Timeout) }

// note keeps what came of an attempt to connect.
func (s *Store) note(srv *server, stopped bool, err error) (*server, error) {
	now := s.servers.now()
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
	s.rest, s.server = 0, srv
	return srv, nil
}

// meet connects, agrees on a version, and learns what the server can. stopped
// says that only a person can help.
func (s *Store) meet(ctx context.Context, how attempt) (srv *server, stopped bool, err error) {
	var login keymgr.ServerLogin
	secret := how.secret
	if secret == "" {
		login, secret, err = s.login()
	} else {
		login, err = keymgr.ParseServerLogin(secret)
	}
	if err != nil {
		return nil, true, err
	}
	srv = &server{speaks: s.speaks, login: login, keys: map[string]*object{}, ways: map[wayOf]way{}, made: map[string]int{}}
	if srv.config, err = tlsConfig(s.token.Server, login); err != nil {
		return nil, true, err
	}
	if s.refused != nil && !how.asked {
		before, err := s.refused.Refused(s.token.Name, secret)
		if err != nil {
			return nil, true, err
		}
		if before {
			return nil, true, s.wrongPassword(errors.New("the server refused the password before"))
		}
	}
	c, err := dial(ctx, s.token.Server, srv)
	if err != nil {
		return nil, false, err
	}
	if err := srv.learn(ctx, c); err != nil {
		c.close()
		stopped, err = s.loginRefused(err, login, secret, how)
		return nil, stopped, err
	}
	if s.refused != nil && how.secret == "" {
		if err := s.refused.Accept(s.token.Name); err != nil {
			c.close()
			return nil, false, err
		}
	}
	s.putBack(c)
	return srv, false, nil
}

// loginRefused notes that the server refused a password.
func (s *Store) loginRefused(err error, login keymgr.ServerLogin, secret string, how attempt) (stopped bool, _ error) {
	switch {
	case !denied(err):
		return false, err
	case login.Password == "":
		return false, problem{err, clientHint}
	}
	why := s.wrongPassword(err)
	if s.refused != nil && how.secret == "" {
		return true, errors.Join(why, s.refused.Refuse(s.token.Name, secret))
	}
	return true, why
}

func (s *Store) wrongPassword(err error) error {
	return problem{
		fmt.Errorf("%w; the password is not tried again, since servers lock after some tries", err),
		"give the right one: sluice keystore test " + s.token.Name + " --username USER --password-file FILE",
	}
}

// lose ends what is known of the server after a fault.
func (s *Store) lose(srv *server) {
	srv.dead.Store(true)
	s.mu.Lock()
	if s.server == srv {
		s.server = nil
	}
	s.mu.Unlock()
	s.drop()
}

// drop closes the connections that nobody uses.
func (s *Store) drop() {
	for {
		select {
		case c := <-s.idle:
			c.close()
		default:
			return
		}
	}
}

// putBack keeps a connection for the next one who needs it.
func (s *Store) putBack(c *conn) {
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed || c.spent || c.of.dead.Load() {
		c.close()
		return
	}
	select {
	case s.idle <- c:
	default:
		c.close()
	}
}

// do runs fn with the server. Where that turns out to be lost, fn runs once more
// with a new connection.
func (s *Store) do(ctx context.Context, fn func(context.Context, *server) error) error {
	err := s.try(ctx, fn)
	if _, ok := lost(err); ok {
		err = s.gone(err)
	}
	return err
}

// gone notes that the server is away, unless somebody else has connected
// meanwhile: nothing would take that back while the connection works.
func (s *Store) gone(err error) error {
	err = s.away(err)
	s.mu.Lock()
	connected := s.server != nil
	s.mu.Unlock()
	if connected {
		return err
	}
	_, err = s.note(nil, false, err)
	return err
}

// try is do that does not note yet that the server is away.
func (s *Store) try(ctx context.Context, fn func(context.Context, *server) error) error {
	again := false
	for over := 0; ; {
		srv, err := s.connected(ctx)
		if err != nil {
			return err
		}
		err = fn(ctx, srv)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		broken, isLost := lost(err)
		if !isLost {
			return s.named(err)
		}
		s.lose(srv)
		if errors.Is(err, errOver) && over < maxOver { // nothing was asked of the server
			over++
			continue
		}
		if broken.slow || again {
			return err
		}
		again = true
	}
}

// named puts the server's name before its own words; other errors say enough.
func (s *Store) named(err error) error {
	if _, ok := refused(err); ok || errors.Is(err, errEncoding) || errors.Is(err, errBatch) {
		return s.away(err)
	}
	return err
}

// call sends one message, within the time of one call, and gives an answer to
// each operation.
func (s *Store) call(ctx context.Context, srv *server, ops ...operation) ([]item, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.token.Timeout, s.timeUp())
	defer cancel()
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("all %d connections to it are in use: %w", cap(s.slots), context.Cause(ctx))
	}
	defer func() { <-s.slots }()
	request := encodeRequest(srv.version, srv.login, ops)
	if len(request) > maxRequest {
		return nil, fmt.Errorf("a request of %d bytes: at most %d are sent", len(request), maxRequest)
	}
	for {
		if srv.dead.Load() {
			return nil, lostError{errOver, false}
		}
		c, err := s.connection(ctx, srv)
		if err != nil {
			return nil, err
		}
		before := c.used
		response, answered, err := c.exchange(ctx, request)
		if err != nil {
			c.close()
			if broken, ok := lost(err); before && !answered && ok && !broken.slow && ops[0].op != opCreateKeyPair {
				continue // the server had closed it meanwhile
			}
			return nil, err
		}
		out, err := decodeResponse(response, ops)
		if errors.Is(err, errEncoding) {
			c.close()
			return nil, lostError{err, false}
		}
		s.putBack(c)
		return out, err
	}
}

// connection gives one that nobody uses, or a new one.
func (s *Store) connection(ctx context.Context, srv *server) (*conn, error) {
	for {
		select {
		case c := <-s.idle:
			if c.of == srv {
				return c, nil
			}
			c.close() // of a former login, or from before a fault
		default:
			return dial(ctx, s.token.Server, srv)
		}
	}
}

// Check implements keymgr.TokenKeystore.
func (s *Store) Check(ctx context.Context) error {
	return s.do(ctx, func(ctx context.Context, srv *server) error {
		_, err := s.call(ctx, srv, discover(srv.speaks))
		return err
	})
}

// Close implements keymgr.TokenKeystore.
func (s *Store) Close() error {
	s.mu.Lock()
	srv := s.server
	s.server, s.closed = nil, true
	s.mu.Unlock()
	if srv != nil {
		srv.dead.Store(true)
	}
	s.drop()
	return nil
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
