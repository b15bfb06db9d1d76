package kmip

import (
	"context"
	"errors"
	"time"

	"sluice/keymgr"
)

const (
	defaultSessions = 8
	defaultTimeout  = 10 * time.Second
	// Pause after an attempt to connect that failed; doubled up to longestRest.
	shortestRest = 500 * time.Millisecond
	longestRest  = 15 * time.Second
)

// Servers keeps what a process needs to use KMIP servers: the logins. It is safe
// for concurrent use.
type Servers struct {
	logins logins
	now    func() time.Time
}

var _ keymgr.Tokens = (*Servers)(nil)

// NewServers keeps logins in dir, which is made (0700) once there is one. now is
// the machine's clock.
func NewServers(dir string, now func() time.Time) *Servers {
	return &Servers{logins: newLogins(dir), now: now}
}

// Find implements keymgr.Tokens: it connects to the server with the login, and
// has it say whether it can do what keys need. secret is a keymgr.ServerLogin.
func (s *Servers) Find(ctx context.Context, token keymgr.Token, secret string) (keymgr.Token, error) {
	login, err := keymgr.ParseServerLogin(secret)
	if err != nil {
		return token, err
	}
	if err := CheckServer(token.Server, login); err != nil {
		return token, err
	}
	store := s.open(token)
	store.login = func() (keymgr.ServerLogin, string, error) { return login, secret, nil }
	store.refused = nil
	err = store.Check(ctx)
	return token, errors.Join(err, store.Close())
}

// KeepPIN implements keymgr.Tokens: it stores a login.
func (s *Servers) KeepPIN(name, secret string) error { return s.logins.Keep(name, secret) }

// ForgetPIN implements keymgr.Tokens.
func (s *Servers) ForgetPIN(name string) error { return s.logins.Forget(name) }

// Open implements keymgr.Tokens.
func (s *Servers) Open(token keymgr.Token) keymgr.TokenKeystore { return s.open(token) }

func (s *Servers) open(token keymgr.Token) *Store {
	if token.Sessions <= 0 {
		token.Sessions = defaultSessions
	}
	if token.Timeout <= 0 {
		token.Timeout = defaultTimeout
	}
	store := &Store{
		servers: s, token: token, refused: &s.logins, speaks: versions(),
		login:    func() (keymgr.ServerLogin, string, error) { return s.logins.read(token.Name) },
		slots:    make(chan struct{}, token.Sessions),
		idle:     make(chan *conn, token.Sessions),
		turn:     make(chan struct{}, 1),
		changing: make(chan struct{}, 1),
	}
	store.batch.Store(maxBatch)
	return store
}
