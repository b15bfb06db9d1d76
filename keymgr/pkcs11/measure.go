//go:build cgo

package pkcs11

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
	p11 "github.com/miekg/pkcs11"

	"sluice/keymgr"
)

// Bounds of a test's measurement.
const (
	testTime  = time.Second
	testCount = 500 // signatures at most
)

// Test implements keymgr.TokenKeystore. pin, where it is not "", is tried in
// place of the one that is kept, and kept if the token takes it.
func (s *Store) Test(ctx context.Context, algorithm uint8, pin string) (keymgr.TokenTest, error) {
	if pin != "" {
		if err := checkPIN(pin); err != nil {
			return keymgr.TokenTest{}, err
		}
	}
	if err := s.reconnect(ctx, pin); err != nil {
		return keymgr.TokenTest{}, err
	}
	var out keymgr.TokenTest
	err := s.do(ctx, func(ctx context.Context, c *connection) (err error) {
		out, err = s.measure(ctx, c, algorithm)
		return err
	})
	return out, err
}

// reconnect connects on a person's word: at once, with a PIN that may be
// refused. Without a new PIN a connection that works stays.
func (s *Store) reconnect(ctx context.Context, pin string) error {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return s.away(fmt.Errorf("connect: %w", slow(ctx)))
	}
	defer func() { <-s.turn }()
	c, err := s.known()
	if errors.Is(err, errClosed) {
		return err
	}
	if c != nil && pin == "" {
		return nil
	}
	if c != nil {
		s.lose(c)
	}
	if _, err := s.connect(ctx, attempt{asked: true, pin: pin}); err != nil {
		return err
	}
	if pin == "" {
		return nil
	}
	return s.tokens.pins.keep(s.token.Name, pin)
}

// measure makes a key that ends with its session and signs with it.
func (s *Store) measure(ctx context.Context, c *connection, algorithm uint8) (keymgr.TokenTest, error) {
	if algorithm == 0 {
		algorithm = dns.ECDSAP256SHA256
		if !slices.Contains(s.mechanisms(ctx, c), p11.CKM_EC_KEY_PAIR_GEN) {
			algorithm = dns.RSASHA256
		}
	}
	out := keymgr.TokenTest{
		Algorithm: algorithm, Manufacturer: c.info.ManufacturerID, Model: c.info.Model, Sessions: cap(s.slots) - s.narrow(),
	}
	made, err := recipe(algorithm, 0)
	if err != nil {
		return out, err
	}
	var o object
	var handles []p11.ObjectHandle
	var took time.Duration
	err = s.with(ctx, c, func(lib library, session p11.SessionHandle) error {
		var id [printLength]byte
		if _, err := rand.Read(id[:]); err != nil {
			return err
		}
		began := s.tokens.now()
		public, private, err := made.generate(lib, session, false, id[:], "sluice test")
		if err != nil {
			return explain(err, c.info.Label, algorithm)
		}
		took = s.tokens.now().Sub(began)
		handles = []p11.ObjectHandle{private, public}
		o.private = private
		o.public, err = readPublic(lib, session, public)
		return err
	})
	if err != nil {
		return out, err
	}
	out.Generate = took
	print, err := fingerprint(o.public)
	if err != nil {
		return out, err
	}
	ref := reference{id: print, print: print}
	c.mu.Lock()
	c.keys[ref.String()] = &o // it has no CKA_ID that could be looked for
	c.mu.Unlock()
	defer c.forget(ref)
	err = s.time(&out, key{store: s, ref: ref, public: o.public})
	return out, errors.Join(err, s.with(ctx, c, func(lib library, session p11.SessionHandle) error {
		return destroy(lib, session, handles...)
	}))
}

// narrow is how many sessions fewer the token has than are asked for.
func (s *Store) narrow() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lacking
}

// mechanisms lists what the token can do; nil where it does not say.
func (s *Store) mechanisms(ctx context.Context, c *connection) []uint {
	var out []uint
	err := s.with(ctx, c, func(lib library, _ p11.SessionHandle) error {
		list, err := lib.GetMechanismList(c.slot)
		for _, m := range list {
			out = append(out, m.Mechanism)
		}
		return err
	})
	if err != nil {
		return nil // the next call says it too
	}
	return out
}

// time signs in all sessions at once, for a while.
func (s *Store) time(out *keymgr.TokenTest, k key) error {
	h, _ := keymgr.Hash(out.Algorithm)
	message := make([]byte, 64)
	if h != 0 {
		message = message[:h.Size()]
	}
	if _, err := rand.Read(message); err != nil {
		return err
	}
	var mu sync.Mutex
	var took []time.Duration // guarded by mu
	var failed error         // guarded by mu
	began := s.tokens.now()
	var wg sync.WaitGroup
	for range out.Sessions {
		wg.Go(func() {
			for {
				from := s.tokens.now()
				_, err := k.raw(message, h)
				to := s.tokens.now()
				mu.Lock()
				if err != nil {
					failed = err
				} else {
					took = append(took, to.Sub(from))
				}
				done := failed != nil || len(took) >= testCount || to.Sub(began) > testTime
				mu.Unlock()
				if done {
					return
				}
			}
		})
	}
	wg.Wait()
	if failed != nil {
		return failed
	}
	all := s.tokens.now().Sub(began)
	slices.Sort(took)
	out.Signatures, out.Sign, out.Slowest = len(took), took[len(took)/2], took[len(took)-1]
	if all > 0 {
		out.PerSecond = float64(len(took)) / all.Seconds()
	}
	return nil
}
