//go:build cgo

package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	p11 "github.com/miekg/pkcs11"
)

// library is what is used of a vendor's library; *p11.Ctx implements it, and
// the tests put faults in between.
type library interface {
	Initialize(opts ...p11.InitializeOption) error
	Finalize() error
	Destroy()
	GetSlotList(tokenPresent bool) ([]uint, error)
	GetTokenInfo(slot uint) (p11.TokenInfo, error)
	GetMechanismList(slot uint) ([]*p11.Mechanism, error)
	OpenSession(slot, flags uint) (p11.SessionHandle, error)
	CloseSession(s p11.SessionHandle) error
	CloseAllSessions(slot uint) error
	GetSessionInfo(s p11.SessionHandle) (p11.SessionInfo, error)
	Login(s p11.SessionHandle, user uint, pin string) error
	FindObjectsInit(s p11.SessionHandle, template []*p11.Attribute) error
	FindObjects(s p11.SessionHandle, most int) ([]p11.ObjectHandle, bool, error)
	FindObjectsFinal(s p11.SessionHandle) error
	GetAttributeValue(s p11.SessionHandle, o p11.ObjectHandle, a []*p11.Attribute) ([]*p11.Attribute, error)
	SetAttributeValue(s p11.SessionHandle, o p11.ObjectHandle, a []*p11.Attribute) error
	GenerateKeyPair(s p11.SessionHandle, m []*p11.Mechanism, public, private []*p11.Attribute) (p11.ObjectHandle, p11.ObjectHandle, error)
	DestroyObject(s p11.SessionHandle, o p11.ObjectHandle) error
	SignInit(s p11.SessionHandle, m []*p11.Mechanism, key p11.ObjectHandle) error
	Sign(s p11.SessionHandle, message []byte) ([]byte, error)
}

var _ library = (*p11.Ctx)(nil)

// loadLibrary loads a vendor's library.
func loadLibrary(path string) (library, error) {
	if lib := p11.New(path); lib != nil {
		return lib, nil
	}
	return nil, problem{
		fmt.Errorf("load PKCS#11 module %s: it cannot be loaded, or is no PKCS#11 module", path),
		"see that the file is there and fits this machine: ldd " + path,
	}
}

// module is a library that this process uses. A library is initialised once
// in a process, whoever uses it: so all keystores with tokens behind the same
// one share it.
type module struct {
	path string
	lib  library

	mu     sync.Mutex
	calls  int           // guarded by mu; that are in the library now
	closed chan struct{} // guarded by mu; while it is initialised anew, newcomers wait for it
	idle   chan struct{} // guarded by mu; closed when the last call leaves, in that time
	epoch  uint64        // guarded by mu; how often it was initialised
	failed error         // guarded by mu; how the last initialising ended
	tried  time.Time     // guarded by mu; when that was
	pause  time.Duration // guarded by mu; how long it is not done again

	users int // guarded by Tokens.mu; keystores
}

// drain is how long newcomers are held up at most until those who are in the
// library have left.
const drain = 2 * time.Second

// errSlow reports a call that took too long; it goes on by itself.
var errSlow = errors.New("no answer in time")

// call runs fn in the library, and waits for its end or that of ctx. A call
// cannot be broken off: one that lasts longer goes on by itself.
func (m *module) call(ctx context.Context, fn func(lib library) error) error {
	if err := m.enter(ctx); err != nil {
		return err
	}
	return m.run(ctx, fn)
}

// run is call for who has entered.
func (m *module) run(ctx context.Context, fn func(lib library) error) error {
	done := make(chan error, 1)
	go func() {
		err := fn(m.lib)
		m.leave()
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return slow(ctx)
	}
}

// slow is errSlow where the time of ctx is up, else why ctx ended.
func slow(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return errSlow
	}
	return ctx.Err()
}

func (m *module) enter(ctx context.Context) error {
	for {
		m.mu.Lock()
		closed := m.closed
		if closed == nil {
			defer m.mu.Unlock()
			if m.failed != nil {
				return m.failed
			}
			m.calls++
			return nil
		}
		m.mu.Unlock()
		select {
		case <-closed:
		case <-ctx.Done():
			return fmt.Errorf("module %s is being initialised: %w", m.path, slow(ctx))
		}
	}
}

func (m *module) leave() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls--
	if m.calls == 0 && m.idle != nil {
		close(m.idle)
		m.idle = nil
	}
}

func (m *module) now() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.epoch
}

// Bounds of the pause between two initialisings: each ends the sessions of all
// keystores behind the module.
const (
	shortestPause = time.Second
	longestPause  = time.Minute
)

// initialise initialises the library, anew where it was before: some find a
// token that went and came back in no other way. It does nothing where that
// was done since epoch, and fails where it was done a short time ago and force
// is not set, or where a call stays in the library.
func (m *module) initialise(ctx context.Context, epoch uint64, now time.Time, force bool) error {
	m.mu.Lock()
	for m.closed != nil {
		closed := m.closed
		m.mu.Unlock()
		select {
		case <-closed:
		case <-ctx.Done():
			return slow(ctx)
		}
		m.mu.Lock()
	}
	if m.epoch != epoch {
		defer m.mu.Unlock()
		return m.failed
	}
	if !force && m.epoch > 0 && now.Sub(m.tried) < m.pause && !now.Before(m.tried) {
		defer m.mu.Unlock()
		return fmt.Errorf("module %s was initialised anew a short time ago", m.path)
	}
	closed, idle := make(chan struct{}), make(chan struct{})
	m.closed = closed
	if m.calls > 0 {
		m.idle = idle
	} else {
		close(idle)
	}
	m.mu.Unlock()
	timer := time.NewTimer(drain)
	defer timer.Stop()
	select {
	case <-idle:
	case <-timer.C:
		if !m.drained(closed) {
			return fmt.Errorf("module %s has not come back from a call: %w", m.path, errSlow)
		}
	}
	go m.restart(closed, now)
	select {
	case <-closed:
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.failed
	case <-ctx.Done():
		return slow(ctx)
	}
}

// drained reports whether nobody is in the library; else newcomers may go on.
func (m *module) drained(closed chan struct{}) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.calls == 0 {
		return true
	}
	m.closed, m.idle = nil, nil
	close(closed)
	return false
}

// restart is the effect of initialise. Nobody is in the library.
func (m *module) restart(closed chan struct{}, now time.Time) {
	m.mu.Lock()
	again := m.epoch > 0
	m.mu.Unlock()
	if again {
		// What it says does not matter: a library that lost itself may refuse.
		_ = m.lib.Finalize()
	}
	err := m.lib.Initialize()
	if is(err, p11.CKR_CRYPTOKI_ALREADY_INITIALIZED) {
		err = nil
	}
	if err != nil {
		err = problem{fmt.Errorf("initialise PKCS#11 module %s: %w", m.path, named(err)), "see the module's own configuration and log"}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.epoch++
	m.failed, m.tried = err, now
	m.pause = min(max(2*m.pause, shortestPause), longestPause)
	m.closed, m.idle = nil, nil
	close(closed)
}

// worked notes that a token was reached: the next loss begins with a short
// pause again.
func (m *module) worked() {
	m.mu.Lock()
	m.pause = 0
	m.mu.Unlock()
}

// finalise ends the use of the library. One that has not come back from a call
// is left alone.
func (m *module) finalise() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.calls > 0 || m.closed != nil {
		return nil
	}
	var err error
	if m.epoch > 0 && m.failed == nil {
		err = m.lib.Finalize()
	}
	m.failed = errors.New("the keystore is closed")
	if is(err, p11.CKR_CRYPTOKI_NOT_INITIALIZED) {
		err = nil
	}
	m.lib.Destroy()
	if err != nil {
		return fmt.Errorf("end the use of PKCS#11 module %s: %w", m.path, named(err))
	}
	return nil
}
