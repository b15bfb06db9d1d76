package kmip

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"sluice/keymgr"
)

// frozen is a clock that a test moves.
type frozen struct{ at time.Time }

func (c *frozen) now() time.Time { return c.at }

func TestStore_AwayAndBack(t *testing.T) {
	f := newFakeServer(t)
	s := f.store(t)
	clock := &frozen{time.Unix(1_800_000_000, 0)}
	s.servers.now = clock.now
	k := open(t, s, makeKey(t, s, dns.ECDSAP256SHA256))
	f.cut() // connections alone: nobody notices
	if err := sign(k, 10); err != nil {
		t.Errorf("after the connections were cut: %v", err)
	}
	addr := f.listener.Addr().String()
	f.stop()
	err := sign(k, 10)
	if err == nil || !strings.Contains(err.Error(), "KMIP server "+addr) {
		t.Errorf("without a server: %v", err)
	}
	st := s.State()
	if st.Connected || st.Problem == "" || !strings.Contains(st.Hint, "sluice keystore test kms") || !st.Since.Equal(clock.at) {
		t.Errorf("state %+v", st)
	}
	f.listen(t, addr)
	if err := sign(k, 1); err == nil {
		t.Error("it is tried again without a pause")
	}
	clock.at = clock.at.Add(time.Second)
	if err := sign(k, 10); err != nil {
		t.Error(err)
	}
	if st := s.State(); !st.Connected || st.Problem != "" {
		t.Errorf("state %+v", st)
	}
	// A person's word needs no pause.
	f.stop()
	if err := sign(k, 1); err == nil {
		t.Error("signed without a server")
	}
	f.listen(t, addr)
	if _, err := s.Test(t.Context(), 0, ""); err != nil {
		t.Error(err)
	}
}

func TestStore_FaultyAnswers(t *testing.T) {
	for name, row := range map[string]struct {
		reply func(request, response []byte) []byte
		want  string
	}{
		"garbage":      {func(_, _ []byte) []byte { return []byte("HTTP/1.1 400 Bad Request\r\n\r\n") }, "does not speak KMIP"},
		"nothing":      {func(_, _ []byte) []byte { return nil }, "closed the connection"},
		"cut short":    {func(_, r []byte) []byte { r = clone(r); r[7] -= 8; return r[:len(r)-8] }, "malformed"},
		"too long":     {func(_, r []byte) []byte { r = clone(r); r[4] = 0x7f; return r }, "at most"},
		"a length lie": {func(_, r []byte) []byte { r = clone(r); r[15] = 0xff; return r }, "malformed"},
		"empty": {func(_, _ []byte) []byte {
			e := &encoder{}
			e.structure(tagResponseMessage, func() {})
			return e.b
		}, "no answer"},
		"other structure": {func(_, _ []byte) []byte {
			e := &encoder{}
			e.structure(tagRequestMessage, func() {})
			return e.b
		}, "does not speak KMIP"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeServer(t)
			s := f.store(t)
			k := open(t, s, makeKey(t, s, dns.ECDSAP256SHA256))
			f.set(func() { f.reply = row.reply })
			err := sign(k, 1)
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("%v, want %q", err, row.want)
			}
			if st := s.State(); st.Problem == "" {
				t.Errorf("state %+v", st)
			}
			f.set(func() { f.reply = nil })
			if _, err := s.Test(t.Context(), 0, ""); err != nil {
				t.Error(err)
			}
			if err := sign(k, 5); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestStore_ServerThatHangs(t *testing.T) {
	f := newFakeServer(t)
	s := f.store(t, func(k *keymgr.Token, _ *keymgr.ServerLogin) { k.Timeout = 300 * time.Millisecond })
	k := open(t, s, makeKey(t, s, dns.ECDSAP256SHA256))
	hold := make(chan struct{})
	f.set(func() { f.hold = hold })
	if err := sign(k, 1); err == nil || !strings.Contains(err.Error(), "no answer: within 300ms") {
		t.Errorf("a server that hangs: %v", err)
	}
	if st := s.State(); st.Problem == "" || st.Stopped {
		t.Errorf("state %+v", st)
	}
	close(hold)
	f.set(func() { f.hold = nil })
	if _, err := s.Test(t.Context(), 0, ""); err != nil {
		t.Error(err)
	}
	// A port that takes connections and shakes no hands.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dead := f.store(t, func(k *keymgr.Token, _ *keymgr.ServerLogin) {
		k.Server.Address, k.Timeout = l.Addr().String(), 200*time.Millisecond
	})
	if err := dead.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "cannot be reached") {
		t.Errorf("no handshake: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Check(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a call that was given up: %v", err)
	}
	if st := s.State(); st.Problem != "" {
		t.Errorf("that says nothing of the server: %+v", st)
	}
}

func TestStore_FewerConnectionsThanCallers(t *testing.T) {
	f := newFakeServer(t)
	s := f.store(t, func(k *keymgr.Token, _ *keymgr.ServerLogin) { k.Sessions = 2 })
	k := open(t, s, makeKey(t, s, dns.ECDSAP256SHA256))
	errs := make(chan error, 10)
	for range cap(errs) {
		go func() { errs <- sign(k, 7) }()
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if n := len(f.conns); n > 2 {
		t.Errorf("%d connections, want at most 2", n)
	}
}

func TestStore_ClosedIsClosed(t *testing.T) {
	f := newFakeServer(t)
	s := f.store(t)
	k := open(t, s, makeKey(t, s, dns.ECDSAP256SHA256))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := sign(k, 1); !errors.Is(err, errClosed) {
		t.Errorf("a closed keystore: %v", err)
	}
	if _, err := s.Test(t.Context(), 0, ""); !errors.Is(err, errClosed) {
		t.Errorf("a test of a closed keystore: %v", err)
	}
}
