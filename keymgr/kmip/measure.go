package kmip

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"

	"sluice/keymgr"
)

// Bounds of a test's measurement.
const (
	testTime    = time.Second
	testCount   = 500 // signatures at most, one a request
	testMessage = 200 // bytes of what is signed, as of a small RRset
)

// Test implements keymgr.TokenKeystore. secret, where it is not "", is a login, or
// what changes of the one that is kept: it is tried in place of that, and kept if
// the server takes it.
func (s *Store) Test(ctx context.Context, algorithm uint8, secret string) (keymgr.TokenTest, error) {
	if secret != "" {
		login, err := keymgr.ParseServerLogin(secret)
		if err != nil {
			return keymgr.TokenTest{}, err
		}
		if kept, _, err := s.login(); err == nil {
			login = login.Over(kept)
		}
		if err := CheckServer(s.token.Server, login); err != nil {
			return keymgr.TokenTest{}, s.away(err)
		}
		if secret, err = login.Secret(); err != nil {
			return keymgr.TokenTest{}, err
		}
	}
	if err := s.reconnect(ctx, secret); err != nil {
		return keymgr.TokenTest{}, err
	}
	s.batch.Store(maxBatch)
	var out keymgr.TokenTest
	err := s.do(ctx, func(ctx context.Context, srv *server) (err error) {
		out, err = s.measure(ctx, srv, algorithm)
		return err
	})
	return out, err
}

// reconnect connects on a person's word: at once, with a password that may be
// refused. Without a new login a connection that works stays.
func (s *Store) reconnect(ctx context.Context, secret string) error {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.turn }()
	srv, err := s.known()
	if errors.Is(err, errClosed) {
		return err
	}
	if srv != nil && secret == "" {
		return nil
	}
	s.drop() // of those that a former login made
	next, err := s.connect(ctx, attempt{asked: true, secret: secret})
	if err != nil {
		return err
	}
	if srv != nil && srv != next {
		srv.dead.Store(true)
	}
	if secret == "" {
		return nil
	}
	return s.servers.logins.Keep(s.token.Name, secret)
}

// measure makes a key, signs with it, and deletes it.
func (s *Store) measure(ctx context.Context, srv *server, algorithm uint8) (keymgr.TokenTest, error) {
	asked := algorithm != 0
	if !asked {
		algorithm = dns.ECDSAP256SHA256
	}
	out, err := s.measureOne(ctx, srv, algorithm)
	if _, ok := refused(err); ok && !asked && out.Signatures == 0 {
		return s.measureOne(ctx, srv, dns.RSASHA256)
	}
	return out, err
}

func (s *Store) measureOne(ctx context.Context, srv *server, algorithm uint8) (out keymgr.TokenTest, err error) {
	out = keymgr.TokenTest{
		Algorithm: algorithm, Manufacturer: srv.vendor, Model: srv.name, Sessions: s.token.Sessions, Protocol: "KMIP " + srv.version.String(),
	}
	t, err := recipe(algorithm, 0)
	if err != nil {
		return out, err
	}
	name, err := newName("test")
	if err != nil {
		return out, err
	}
	began := s.servers.now()
	o, err := s.pair(ctx, srv, t, algorithm, name)
	if err != nil {
		return out, err
	}
	out.Generate = s.servers.now().Sub(began)
	ref := reference{name: name}
	if ref.print, err = fingerprint(o.public); err == nil {
		err = s.time(&out, key{store: s, ref: ref, public: o.public})
	}
	srv.forget(ref)
	return out, errors.Join(err, s.destroy(ctx, srv, o.private, o.publicID))
}

// time signs on all connections at once, for a while: one by one, then in
// batches.
func (s *Store) time(out *keymgr.TokenTest, k key) error {
	hash, _ := keymgr.Hash(out.Algorithm)
	text := make([]byte, testMessage)
	if _, err := rand.Read(text); err != nil {
		return err
	}
	if _, err := k.SignMessages(nil, text, []int{len(text)}, hash); err != nil {
		return err // and what has to be found out before is
	}
	var mu sync.Mutex
	var took []time.Duration // guarded by mu
	var failed error         // guarded by mu
	began := s.servers.now()
	var wg sync.WaitGroup
	for range out.Sessions {
		wg.Go(func() {
			for {
				from := s.servers.now()
				_, err := k.SignMessages(nil, text, []int{len(text)}, hash)
				to := s.servers.now()
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
	all := s.servers.now().Sub(began)
	slices.Sort(took)
	out.Signatures, out.Sign, out.Slowest = len(took), took[len(took)/2], took[len(took)-1]
	if all > 0 {
		out.PerSecond = float64(len(took)) / all.Seconds()
	}
	return s.timeBatches(out, k)
}

// timeBatches signs as much at a time as the server takes.
func (s *Store) timeBatches(out *keymgr.TokenTest, k key) error {
	hash, _ := keymgr.Hash(out.Algorithm)
	// As much as was signed one by one, within what a second may take.
	count := min(out.Sessions*int(s.batch.Load()), max(out.Signatures, 2*out.Sessions))
	texts := make([]byte, count*testMessage)
	if _, err := rand.Read(texts); err != nil {
		return err
	}
	ends := make([]int, count)
	for i := range ends {
		ends[i] = (i + 1) * testMessage
	}
	if _, err := k.SignMessages(nil, texts, ends, hash); err != nil { // finds out how large a batch may be
		return err
	}
	began := s.servers.now()
	if _, err := k.SignMessages(nil, texts, ends, hash); err != nil {
		return err
	}
	took := s.servers.now().Sub(began)
	out.Signatures += 2 * count
	if out.Batch = min(int(s.batch.Load()), (count+out.Sessions-1)/out.Sessions); out.Batch <= 1 {
		out.Batch = 0
		return nil
	}
	if took > 0 {
		out.BatchedPerSecond = float64(count) / took.Seconds()
	}
	return nil
}
