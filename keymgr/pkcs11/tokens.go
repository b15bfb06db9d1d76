//go:build cgo

package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"sluice/keymgr"
)

// Tokens holds the modules that a process has loaded, and the PINs of its
// keystores. It is safe for concurrent use.
type Tokens struct {
	pins pins
	load func(path string) (library, error)
	now  func() time.Time

	mu      sync.Mutex
	modules map[string]*module // guarded by mu; by path
}

var _ keymgr.Tokens = (*Tokens)(nil)

// NewTokens keeps PINs in dir, which is made (0700) once there is one. now is
// the machine's clock.
func NewTokens(dir string, now func() time.Time) *Tokens {
	return &Tokens{pins: newPINs(dir), load: loadLibrary, now: now, modules: map[string]*module{}}
}

// Find implements keymgr.Tokens.
func (t *Tokens) Find(ctx context.Context, token keymgr.Token, pin string) (keymgr.Token, error) {
	if err := checkPIN(pin); err != nil {
		return token, err
	}
	if !filepath.IsAbs(token.Module) {
		return token, fmt.Errorf("PKCS#11 module %q: want an absolute path", token.Module)
	}
	if info, err := os.Stat(token.Module); errors.Is(err, fs.ErrNotExist) {
		return token, fmt.Errorf("PKCS#11 module %s is not there: name the library of the token's vendor, for SoftHSM libsofthsm2.so", token.Module)
	} else if err != nil {
		return token, err
	} else if !info.Mode().IsRegular() {
		return token, fmt.Errorf("PKCS#11 module %s is not a regular file", token.Module)
	}
	s := t.open(token)
	s.pin = func() (string, error) { return pin, nil }
	s.refused = nil
	err := s.Check(ctx)
	return s.token, errors.Join(err, s.Close())
}

// KeepPIN implements keymgr.Tokens.
func (t *Tokens) KeepPIN(name, pin string) error { return t.pins.keep(name, pin) }

// ForgetPIN implements keymgr.Tokens.
func (t *Tokens) ForgetPIN(name string) error { return t.pins.Forget(name) }

// Open implements keymgr.Tokens.
func (t *Tokens) Open(token keymgr.Token) keymgr.TokenKeystore { return t.open(token) }

// OpenWith is Open with a PIN that is not kept.
func (t *Tokens) OpenWith(token keymgr.Token, pin string) keymgr.TokenKeystore {
	s := t.open(token)
	s.pin = func() (string, error) { return pin, checkPIN(pin) }
	s.refused = nil
	return s
}

func (t *Tokens) open(token keymgr.Token) *Store {
	if token.Sessions <= 0 {
		token.Sessions = defaultSessions
	}
	if token.Timeout <= 0 {
		token.Timeout = defaultTimeout
	}
	return &Store{
		tokens: t, token: token,
		pin:     func() (string, error) { return t.pins.read(token.Name) },
		refused: &t.pins,
		slots:   make(chan struct{}, token.Sessions),
		turn:    make(chan struct{}, 1), changing: make(chan struct{}, 1),
	}
}

// use gives the module behind a path, loaded.
func (t *Tokens) use(path string) (*module, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.modules[path]
	if m == nil {
		lib, err := t.load(path)
		if err != nil {
			return nil, err
		}
		m = &module{path: path, lib: lib}
		t.modules[path] = m
	}
	m.users++
	return m, nil
}

// leave ends the use of a module. After the last one the library is told, but
// stays loaded where a call has not come back.
func (t *Tokens) leave(m *module) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	m.users--
	if m.users > 0 {
		return nil
	}
	delete(t.modules, m.path)
	return m.finalise()
}
