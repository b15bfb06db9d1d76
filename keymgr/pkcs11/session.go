//go:build cgo

package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"strings"

	p11 "github.com/miekg/pkcs11"

	"sluice/keymgr"
)

// Flags of a token (PKCS #11 v2.40, 3.2) that the binding does not name.
const (
	flagFinalTry = 1 << 17 // CKF_USER_PIN_FINAL_TRY
	flagLocked   = 1 << 18 // CKF_USER_PIN_LOCKED
)

// errAmbiguous reports that several tokens or keys fit.
var errAmbiguous = errors.New("one must be named")

// login finds the token and logs in there.
func (s *Store) login(ctx context.Context, m *module, epoch uint64, how attempt) (c *connection, stopped bool, err error) {
	c = &connection{module: m, epoch: epoch, idle: make(chan p11.SessionHandle, s.token.Sessions), keys: map[string]*object{}}
	want := s.Token()
	if err := m.call(ctx, func(lib library) (err error) {
		c.slot, c.info, err = findToken(lib, want)
		return err
	}); err != nil {
		return nil, false, named(err)
	}
	pin := how.pin
	if pin == "" {
		if pin, err = s.pin(); err != nil {
			return nil, true, err
		}
	}
	if err := s.mayLogin(c, pin, how.asked); err != nil {
		return nil, true, err
	}
	err = m.call(ctx, func(lib library) error {
		_ = lib.CloseAllSessions(c.slot) // of a connection before: with them the login ends
		session, err := lib.OpenSession(c.slot, p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
		if err != nil {
			return err
		}
		if err := lib.Login(session, p11.CKU_USER, pin); err != nil && !is(err, p11.CKR_USER_ALREADY_LOGGED_IN) {
			_ = lib.CloseSession(session) // what the login says counts
			return err
		}
		c.idle <- session
		return nil
	})
	if refusal(err) {
		return nil, true, s.pinRefused(err, pin, how)
	}
	if err != nil {
		return nil, false, named(err)
	}
	if s.refused != nil && how.pin == "" {
		if err := s.refused.Accept(want.Name); err != nil {
			return nil, false, err
		}
	}
	s.mu.Lock()
	s.token.Serial = c.info.SerialNumber
	s.mu.Unlock()
	return c, false, nil
}

// present reports whether the token is still in its slot, and the same one.
func (c *connection) present(lib library) error {
	info, err := lib.GetTokenInfo(c.slot)
	if err != nil {
		return fmt.Errorf("%w (%w)", p11.Error(p11.CKR_TOKEN_NOT_PRESENT), named(err))
	}
	if info.SerialNumber != c.info.SerialNumber || info.Label != c.info.Label {
		return fmt.Errorf("%w (its slot now has token %q, serial number %s)", p11.Error(p11.CKR_TOKEN_NOT_PRESENT), info.Label, info.SerialNumber)
	}
	return nil
}

// mayLogin refuses to try a PIN that would lock the token.
func (s *Store) mayLogin(c *connection, pin string, asked bool) error {
	name := s.token.Name
	switch {
	case c.info.Flags&flagLocked != 0:
		return lockedError()
	case asked:
		return nil
	case c.info.Flags&flagFinalTry != 0:
		return problem{
			errors.New("the token allows one more try before it locks the PIN: it is not made by itself"),
			"make sure of the PIN, then: sluice keystore test " + name + " --pin-file FILE",
		}
	case s.refused == nil:
		return nil
	}
	refused, err := s.refused.Refused(name, pin)
	if err != nil {
		return err
	}
	if refused {
		return wrongPIN(name, errors.New("the token refused the PIN before"))
	}
	return nil
}

// pinRefused notes that the token refused the PIN.
func (s *Store) pinRefused(err error, pin string, how attempt) error {
	if is(err, p11.CKR_PIN_LOCKED) {
		return lockedError()
	}
	why := wrongPIN(s.token.Name, fmt.Errorf("the token refuses the PIN: %w", err))
	if s.refused != nil && how.pin == "" {
		return errors.Join(why, s.refused.Refuse(s.token.Name, pin))
	}
	return why
}

func wrongPIN(name string, err error) error {
	return problem{
		fmt.Errorf("%w; it is not tried again, since tokens lock after some tries", err),
		"give the right PIN: sluice keystore test " + name + " --pin-file FILE",
	}
}

func lockedError() error {
	return problem{errors.New("the token has locked the PIN"), "have it unlocked with the token's own tools (by the security officer's PIN)"}
}

// findToken finds the slot of a token by its label and, where that is given,
// its serial number.
func findToken(lib library, want keymgr.Token) (uint, p11.TokenInfo, error) {
	slots, err := lib.GetSlotList(true)
	if err != nil {
		return 0, p11.TokenInfo{}, err
	}
	var fit []uint
	var info []p11.TokenInfo
	var fitting, others []string
	for _, slot := range slots {
		i, err := lib.GetTokenInfo(slot)
		if err != nil || i.Flags&p11.CKF_TOKEN_INITIALIZED == 0 {
			continue // it went just now, or is empty
		}
		name := fmt.Sprintf("%q (serial number %s)", i.Label, i.SerialNumber)
		if i.Label != want.Label || want.Serial != "" && i.SerialNumber != want.Serial {
			others = append(others, name)
			continue
		}
		fit, info = append(fit, slot), append(info, i)
		fitting = append(fitting, fmt.Sprintf("%s in slot %d", name, slot))
	}
	switch {
	case len(fit) == 1:
		return fit[0], info[0], nil
	case len(fit) > 1 && want.Serial == "":
		return 0, p11.TokenInfo{}, problem{fmt.Errorf("%d tokens have this label: %s: %w", len(fit), strings.Join(fitting, ", "), errAmbiguous), "choose one with --serial"}
	case len(fit) > 1:
		return 0, p11.TokenInfo{}, problem{fmt.Errorf("%d tokens have this label and serial number: %s: %w", len(fit), strings.Join(fitting, ", "), errAmbiguous), "unplug all but one"}
	case len(others) == 0:
		return 0, p11.TokenInfo{}, fmt.Errorf("it is not there; module %s shows no token at all", want.Module)
	}
	return 0, p11.TokenInfo{}, fmt.Errorf("it is not there; module %s shows %s", want.Module, strings.Join(others, ", "))
}

// errStale reports that a connection ended before it was used.
var errStale = errors.New("the connection is over")

// do runs fn with a connection. Where that turns out to be lost, fn runs once
// more with a new one.
func (s *Store) do(ctx context.Context, fn func(context.Context, *connection) error) error {
	for lostOnce := false; ; {
		c, err := s.connected(ctx)
		if err != nil {
			return err
		}
		err = fn(ctx, c)
		switch {
		case err == nil || ctx.Err() != nil:
			return s.failed(err)
		case errors.Is(err, errStale): // nothing was asked of the token
			s.lose(c)
		case lost(err) && !lostOnce:
			lostOnce = true
			s.lose(c)
		case lost(err):
			s.lose(c)
			return s.failed(err)
		default:
			return s.failed(err)
		}
	}
}

// failed names the token in a module's error; other errors say enough.
func (s *Store) failed(err error) error {
	if _, ok := errors.AsType[p11.Error](err); ok || errors.Is(err, errSlow) {
		return s.away(named(err))
	}
	return err
}

// with runs fn in a session of its own, within the time of one call.
func (s *Store) with(ctx context.Context, c *connection, fn func(library, p11.SessionHandle) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.token.Timeout)
	defer cancel()
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("its sessions are all in use: %w", slow(ctx))
	}
	if err := c.module.enter(ctx); err != nil {
		<-s.slots
		return err
	}
	return c.module.run(ctx, func(lib library) error {
		defer func() { <-s.slots }()
		if c.dead.Load() || c.module.now() != c.epoch {
			return errStale
		}
		return c.inSession(lib, fn)
	})
}

// inSession runs fn in a session that nobody else uses meanwhile.
func (c *connection) inSession(lib library, fn func(library, p11.SessionHandle) error) error {
	var session p11.SessionHandle
	select {
	case session = <-c.idle:
	default:
		var err error
		session, err = lib.OpenSession(c.slot, p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
		if is(err, p11.CKR_SESSION_COUNT) {
			return problem{fmt.Errorf("the token has no more sessions: %w", err), "add the keystore with fewer: --sessions N"}
		}
		if err != nil {
			return err
		}
	}
	err := fn(lib, session)
	if lost(err) {
		return err // a new connection closes it
	}
	c.idle <- session // there is room for as many as there are calls
	return err
}
