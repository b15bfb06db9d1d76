//go:build cgo

package pkcs11

import (
	"context"
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	p11 "github.com/miekg/pkcs11"

	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/keymgr/keystoretest"
	"sluice/signer"
)

func makeKey(t *testing.T, s *Store) event.Key {
	t.Helper()
	k, err := s.Generate(t.Context(), keymgr.Spec{Zone: "example.", Role: keymgr.ZSK, Algorithm: dns.ECDSAP256SHA256}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func signerOf(t *testing.T, s *Store, k event.Key) crypto.Signer {
	t.Helper()
	signs, err := s.Signer(t.Context(), k.Reference)
	if err != nil {
		t.Fatal(err)
	}
	return signs
}

func sign(k crypto.Signer, text string) error {
	sum := sha256.Sum256([]byte(text))
	_, err := k.Sign(nil, sum[:], crypto.SHA256)
	return err
}

// wantText checks that an error tells all of some words.
func wantText(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", words)
	}
	for _, word := range words {
		if !strings.Contains(err.Error()+" | "+keymgr.HintOf(err), word) {
			t.Errorf("error %q, hint %q: %q is missing", err, keymgr.HintOf(err), word)
		}
	}
	if strings.Contains(err.Error(), testPIN) {
		t.Errorf("error %q has the PIN in it", err)
	}
}

func TestStore_ConnectsAnewAfterALoss(t *testing.T) {
	for _, code := range []uint{
		p11.CKR_SESSION_HANDLE_INVALID, p11.CKR_SESSION_CLOSED, p11.CKR_DEVICE_REMOVED, p11.CKR_DEVICE_ERROR,
		p11.CKR_TOKEN_NOT_PRESENT, p11.CKR_USER_NOT_LOGGED_IN, p11.CKR_CRYPTOKI_NOT_INITIALIZED, p11.CKR_GENERAL_ERROR,
	} {
		t.Run(p11.Error(code).Error(), func(t *testing.T) {
			token := &fakeToken{label: "zones", serial: "1"}
			_, stores := newFake(token).open(t, 10*time.Second)
			k := signerOf(t, stores[0], makeKey(t, stores[0]))
			once := true
			token.set(func(t *fakeToken) {
				t.fail = func(call string) error {
					if call == "SignInit" && once {
						once = false
						return p11.Error(code)
					}
					return nil
				}
			})
			if err := sign(k, "a"); err != nil {
				t.Error(err)
			}
			if once {
				t.Error("the fault did not happen")
			}
			if token.logins != 2 {
				t.Errorf("%d logins, want a second one", token.logins)
			}
		})
	}
}

func TestStore_TokenGoneAndBackByTheModuleInitialisedAnew(t *testing.T) {
	token, other := &fakeToken{label: "zones", serial: "1"}, &fakeToken{label: "others", serial: "2"}
	lib := newFake(token, other)
	tokens, stores := lib.open(t, 10*time.Second)
	var mu sync.Mutex
	now := time.Unix(1e9, 0)
	tokens.now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	pass := func(d time.Duration) { mu.Lock(); defer mu.Unlock(); now = now.Add(d) }
	k, beside := signerOf(t, stores[0], makeKey(t, stores[0])), signerOf(t, stores[1], makeKey(t, stores[1]))
	token.set(func(t *fakeToken) { t.absent = true })
	wantText(t, sign(k, "a"), `keystore "k1"`, `token "zones" (serial number 1)`, "not there", `"others" (serial number 2)`, "sluice keystore test k1")
	if st := stores[0].State(); st.Connected || st.Problem == "" || st.Stopped {
		t.Errorf("state %+v of a token that is away", st)
	}
	if err := sign(beside, "a"); err != nil {
		t.Errorf("the other token of the module: %v", err)
	}
	// Within the pause nobody asks the module again.
	lists := lib.initials
	for range 100 {
		wantText(t, sign(k, "b"), "not there")
	}
	if lib.initials != lists {
		t.Errorf("the module was initialised %d times more within the pause", lib.initials-lists)
	}
	token.set(func(t *fakeToken) { t.absent = false })
	pass(time.Minute)
	if err := stores[0].Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := sign(k, "c"); err != nil {
		t.Error(err)
	}
	if err := sign(beside, "c"); err != nil {
		t.Error(err)
	}
	if st := stores[0].State(); !st.Connected || st.Problem != "" {
		t.Errorf("state %+v of a token that is back", st)
	}
}

func TestStore_WrongPINIsTriedOnce(t *testing.T) {
	token := &fakeToken{label: "zones", serial: "1"}
	lib := newFake(token)
	tokens, stores := lib.open(t, 10*time.Second)
	k := makeKey(t, stores[0])
	if err := stores[0].Close(); err != nil {
		t.Fatal(err)
	}
	token.logins = 0
	if err := tokens.KeepPIN("k1", "wrong-secret"); err != nil {
		t.Fatal(err)
	}
	// reopen is a later process.
	reopen := func() *Store {
		s := tokens.open(stores[0].token)
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		return s
	}
	for range 3 {
		s := reopen()
		for range 20 {
			_, err := s.Signer(t.Context(), k.Reference)
			wantText(t, err, "PIN", "not tried again", "sluice keystore test k1 --pin-file")
			if strings.Contains(err.Error(), "wrong-secret") {
				t.Fatalf("error %q has the PIN in it", err)
			}
		}
		if !s.State().Stopped {
			t.Error("it would go on by itself")
		}
	}
	if token.logins != 1 {
		t.Fatalf("%d logins with a wrong PIN, want 1: tokens lock", token.logins)
	}
	s := reopen()
	if _, err := s.Test(t.Context(), 0, "another-wrong"); err == nil {
		t.Fatal("a test passes with a wrong PIN")
	}
	if token.logins != 2 {
		t.Errorf("%d logins, want one for each word of a person", token.logins)
	}
	if _, err := s.Test(t.Context(), 0, testPIN); err != nil {
		t.Fatal(err)
	}
	if err := sign(signerOf(t, s, k), "a"); err != nil {
		t.Error(err)
	}
	if err := sign(signerOf(t, reopen(), k), "a"); err != nil {
		t.Errorf("the PIN was not kept: %v", err)
	}
}

func TestStore_LeavesTheLastTryToAPerson(t *testing.T) {
	token := &fakeToken{label: "zones", serial: "1", flags: flagFinalTry}
	_, stores := newFake(token).open(t, 10*time.Second)
	wantText(t, stores[0].Check(t.Context()), "one more try", "--pin-file")
	if token.logins != 0 {
		t.Fatalf("%d logins", token.logins)
	}
	if _, err := stores[0].Test(t.Context(), 0, testPIN); err != nil {
		t.Fatal(err)
	}
	locked := &fakeToken{label: "zones", serial: "1", flags: flagLocked}
	_, stores = newFake(locked).open(t, 10*time.Second)
	_, err := stores[0].Test(t.Context(), 0, testPIN)
	wantText(t, err, "locked the PIN", "security officer")
	if locked.logins != 0 {
		t.Errorf("%d logins at a locked token", locked.logins)
	}
}

func TestStore_SlowTokenStopsNoOther(t *testing.T) {
	slow, quick := &fakeToken{label: "slow", serial: "1"}, &fakeToken{label: "quick", serial: "2"}
	_, stores := newFake(slow, quick).open(t, 50*time.Millisecond)
	waits, goes := signerOf(t, stores[0], makeKey(t, stores[0])), signerOf(t, stores[1], makeKey(t, stores[1]))
	hold := make(chan struct{})
	slow.set(func(t *fakeToken) { t.hold = hold })
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() { wantText(t, sign(waits, "a"), "no answer in time", `token "slow"`) })
	}
	for i := range 20 {
		if err := sign(goes, fmt.Sprint(i)); err != nil {
			t.Errorf("the quick token: %v", err)
		}
	}
	wg.Wait()
	slow.set(func(token *fakeToken) {
		if token.mostBusy > 4 {
			t.Errorf("%d calls were with the slow token at a time, 4 are allowed", token.mostBusy)
		}
		token.hold = nil
	})
	close(hold)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		err := sign(waits, "b")
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("the token is quick again: %v", err)
		}
	}
}

func TestStore_ContextEndsAWait(t *testing.T) {
	token := &fakeToken{label: "slow", serial: "1"}
	_, stores := newFake(token).open(t, time.Minute)
	k := makeKey(t, stores[0])
	hold := make(chan struct{})
	entered := make(chan struct{})
	enter := sync.OnceFunc(func() { close(entered) })
	token.set(func(t *fakeToken) {
		t.fail = func(call string) error {
			if call == "DestroyObject" {
				enter()
				<-hold
			}
			return nil
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-entered; cancel() }()
	if err := stores[0].Remove(ctx, k.Reference); !errors.Is(err, context.Canceled) {
		t.Errorf("Remove gives %v", err)
	}
	close(hold)
}

func TestStore_BadSignatureIsNotUsed(t *testing.T) {
	token := &fakeToken{label: "zones", serial: "1"}
	_, stores := newFake(token).open(t, 10*time.Second)
	k := signerOf(t, stores[0], makeKey(t, stores[0]))
	token.set(func(t *fakeToken) { t.spoil = true })
	err := sign(k, "a")
	bad, ok := errors.AsType[*BadSignatureError](err)
	if !ok {
		t.Fatalf("error %v", err)
	}
	sum := sha256.Sum256([]byte("a"))
	wantText(t, err, `keystore "k1"`, "serial number 1", fmt.Sprintf("%x", sum), fmt.Sprintf("%x", bad.Signature), "pkcs11:id=")
	batch, ok := k.(signer.BatchSigner)
	if !ok {
		t.Fatal("a P-256 key signs no batches")
	}
	out, err := batch.SignBatch([]byte("before"), make([]byte, 32*50))
	if _, ok := errors.AsType[*BadSignatureError](err); !ok || string(out) != "before" {
		t.Errorf("a batch gives %q, %v", out, err)
	}
}

func TestStore_UsesNoMoreSessionsThanAllowed(t *testing.T) {
	for fact, row := range map[string]struct {
		limit uint
		most  int
	}{"own limit": {0, 4}, "limit of the token": {2, 2}, "one session": {1, 1}} {
		t.Run(fact, func(t *testing.T) {
			token := &fakeToken{label: "zones", serial: "1", sessions: row.limit}
			_, stores := newFake(token).open(t, 10*time.Second)
			k := signerOf(t, stores[0], makeKey(t, stores[0]))
			var wg sync.WaitGroup
			for i := range 40 {
				wg.Go(func() {
					if err := sign(k, fmt.Sprint(i)); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if token.most > row.most {
				t.Errorf("%d sessions were open, %d are allowed", token.most, row.most)
			}
		})
	}
}

func TestStore_TokenThatKeepsItsIDs(t *testing.T) {
	token := &fakeToken{label: "zones", serial: "1", fixedID: true}
	_, stores := newFake(token).open(t, 10*time.Second)
	k := makeKey(t, stores[0])
	if !strings.Contains(k.Reference, "?x-public=") {
		t.Errorf("reference %q does not say which public key it means", k.Reference)
	}
	if err := keymgr.Prove(t.Context(), stores[0], k); err != nil {
		t.Error(err)
	}
}

// The suite runs over the fake too, so that the fake is what the faults are
// tested with, and not something else.
func TestKeystore_Fake(t *testing.T) {
	keystoretest.Run(t, func(t *testing.T) keystoretest.Open {
		lib := newFake(&fakeToken{label: "zones", serial: "1"})
		tokens, stores := lib.open(t, 10*time.Second)
		return func(t *testing.T) keymgr.Keystore {
			s := tokens.open(stores[0].token)
			t.Cleanup(func() {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
			return s
		}
	}, dns.RSASHA256, dns.RSASHA512, dns.ECDSAP384SHA384, dns.ED25519, dns.ED448)
}

func TestPINs_AreTheOwnersAlone(t *testing.T) {
	p := newPINs(filepath.Join(t.TempDir(), "pkcs11"))
	if err := p.keep("hsm", testPIN); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(p.Dir, "hsm.pin")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %04o", info.Mode().Perm())
	}
	if got, err := p.read("hsm"); err != nil || got != testPIN {
		t.Errorf("read gives %q, %v", got, err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	_, err = p.read("hsm")
	wantText(t, err, "open to others", "chmod 600")
	for _, bad := range []string{"", "../x", "a/b", ".x", "a\x00"} {
		if err := p.keep(bad, testPIN); err == nil {
			t.Errorf("a PIN is kept for the name %q", bad)
		}
	}
	for _, bad := range []string{"", "two\nlines", "nul\x00", strings.Repeat("1", 300)} {
		if err := p.keep("hsm", bad); err == nil || bad != "" && strings.Contains(err.Error(), bad) {
			t.Errorf("PIN %q gives %v", bad, err)
		}
	}
	if err := p.Refuse("hsm", testPIN); err != nil {
		t.Fatal(err)
	}
	if err := p.Forget("hsm"); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(p.Dir)
	if err != nil || len(left) > 0 {
		t.Errorf("%v are left, %v", left, err)
	}
	if err := p.Forget("hsm"); err != nil {
		t.Errorf("again: %v", err)
	}
}
