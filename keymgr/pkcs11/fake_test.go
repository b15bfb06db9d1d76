//go:build cgo

package pkcs11

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/asn1"
	"path/filepath"
	"sync"
	"testing"
	"time"

	p11 "github.com/miekg/pkcs11"

	"sluice/keymgr"
)

// fakeToken is a token in memory that knows P-256 alone, and fails as it is
// told. Its fields may be changed while nothing is being asked of it.
type fakeToken struct {
	label, serial string
	pin           string
	absent        bool
	flags         uint
	sessions      uint // limit; 0 none
	fixedID       bool // CKA_ID cannot be changed

	mu       sync.Mutex
	logins   int                          // guarded by mu; tries
	loggedIn bool                         // guarded by mu
	open     map[p11.SessionHandle]bool   // guarded by mu
	most     int                          // guarded by mu; sessions at a time
	busy     int                          // guarded by mu; calls of Sign
	mostBusy int                          // guarded by mu
	objects  map[p11.ObjectHandle]fakeKey // guarded by mu
	fail     func(call string) error      // guarded by mu; asked before each call
	hold     chan struct{}                // guarded by mu; signing waits for it
	spoil    bool                         // guarded by mu; signatures are wrong
}

type fakeKey struct {
	id, label []byte
	private   *ecdsa.PrivateKey
	class     uint
}

// fakeLibrary is a module with some tokens; slot n is token n.
type fakeLibrary struct {
	tokens []*fakeToken

	mu          sync.Mutex
	initialised bool
	initials    int
	next        uint
	owner       map[p11.SessionHandle]*fakeToken
	found       map[p11.SessionHandle][]p11.ObjectHandle
	signing     map[p11.SessionHandle]p11.ObjectHandle
}

func newFake(tokens ...*fakeToken) *fakeLibrary {
	f := &fakeLibrary{
		tokens: tokens, owner: map[p11.SessionHandle]*fakeToken{},
		found: map[p11.SessionHandle][]p11.ObjectHandle{}, signing: map[p11.SessionHandle]p11.ObjectHandle{},
	}
	for _, t := range tokens {
		t.open, t.objects = map[p11.SessionHandle]bool{}, map[p11.ObjectHandle]fakeKey{}
		if t.pin == "" {
			t.pin = testPIN
		}
	}
	return f
}

// open gives keystores on the fake's tokens, one each, named after the serial
// number.
func (f *fakeLibrary) open(t *testing.T, timeout time.Duration) (*Tokens, []*Store) {
	t.Helper()
	tokens := NewTokens(filepath.Join(t.TempDir(), "pins"), time.Now)
	tokens.load = func(string) (library, error) { return f, nil }
	var out []*Store
	for _, one := range f.tokens {
		if err := tokens.KeepPIN("k"+one.serial, one.pin); err != nil {
			t.Fatal(err)
		}
		s := tokens.open(keymgr.Token{Name: "k" + one.serial, Module: "/fake", Label: one.label, Serial: one.serial, Sessions: 4, Timeout: timeout})
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		out = append(out, s)
	}
	return tokens, out
}

func (t *fakeToken) set(fn func(*fakeToken)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fn(t)
}

func (t *fakeToken) fault(call string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fail != nil {
		return t.fail(call)
	}
	return nil
}

// Initialize implements library.
func (f *fakeLibrary) Initialize(...p11.InitializeOption) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.initialised {
		return p11.Error(p11.CKR_CRYPTOKI_ALREADY_INITIALIZED)
	}
	f.initialised, f.initials = true, f.initials+1
	return nil
}

// Finalize implements library.
func (f *fakeLibrary) Finalize() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.initialised = false
	f.owner = map[p11.SessionHandle]*fakeToken{}
	for _, t := range f.tokens {
		t.set(func(t *fakeToken) { t.open, t.loggedIn = map[p11.SessionHandle]bool{}, false })
	}
	return nil
}

// Destroy implements library.
func (f *fakeLibrary) Destroy() {}

// GetSlotList implements library.
func (f *fakeLibrary) GetSlotList(bool) ([]uint, error) {
	var out []uint
	for i, t := range f.tokens {
		t.mu.Lock()
		if !t.absent {
			out = append(out, uint(i))
		}
		t.mu.Unlock()
	}
	return out, nil
}

// GetTokenInfo implements library.
func (f *fakeLibrary) GetTokenInfo(slot uint) (p11.TokenInfo, error) {
	t := f.tokens[slot]
	if err := t.fault("GetTokenInfo"); err != nil {
		return p11.TokenInfo{}, err
	}
	return p11.TokenInfo{
		Label: t.label, SerialNumber: t.serial, ManufacturerID: "fake", Model: "fake",
		Flags: t.flags | p11.CKF_TOKEN_INITIALIZED, MaxSessionCount: t.sessions, MaxRwSessionCount: t.sessions,
	}, nil
}

// GetMechanismList implements library.
func (f *fakeLibrary) GetMechanismList(uint) ([]*p11.Mechanism, error) {
	return []*p11.Mechanism{p11.NewMechanism(p11.CKM_EC_KEY_PAIR_GEN, nil)}, nil
}

// OpenSession implements library.
func (f *fakeLibrary) OpenSession(slot, _ uint) (p11.SessionHandle, error) {
	t := f.tokens[slot]
	if err := t.fault("OpenSession"); err != nil {
		return 0, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.absent {
		return 0, p11.Error(p11.CKR_TOKEN_NOT_PRESENT)
	}
	if t.sessions > 0 && uint(len(t.open)) >= t.sessions {
		return 0, p11.Error(p11.CKR_SESSION_COUNT)
	}
	f.next++
	h := p11.SessionHandle(f.next)
	f.owner[h], t.open[h] = t, true
	t.most = max(t.most, len(t.open))
	return h, nil
}

// CloseSession implements library.
func (f *fakeLibrary) CloseSession(h p11.SessionHandle) error {
	t, err := f.session(h, "CloseSession")
	if err != nil {
		return err
	}
	t.set(func(t *fakeToken) {
		if delete(t.open, h); len(t.open) == 0 {
			t.loggedIn = false
		}
	})
	return nil
}

// CloseAllSessions implements library.
func (f *fakeLibrary) CloseAllSessions(slot uint) error {
	f.tokens[slot].set(func(t *fakeToken) { t.open, t.loggedIn = map[p11.SessionHandle]bool{}, false })
	return nil
}

// session is the token of a session.
func (f *fakeLibrary) session(h p11.SessionHandle, call string) (*fakeToken, error) {
	f.mu.Lock()
	t := f.owner[h]
	f.mu.Unlock()
	if t == nil {
		return nil, p11.Error(p11.CKR_SESSION_HANDLE_INVALID)
	}
	if err := t.fault(call); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.absent:
		return nil, p11.Error(p11.CKR_DEVICE_REMOVED)
	case !t.open[h]:
		return nil, p11.Error(p11.CKR_SESSION_HANDLE_INVALID)
	case !t.loggedIn && call != "Login" && call != "CloseSession":
		return nil, p11.Error(p11.CKR_USER_NOT_LOGGED_IN)
	}
	return t, nil
}

// GetSessionInfo implements library.
func (f *fakeLibrary) GetSessionInfo(h p11.SessionHandle) (p11.SessionInfo, error) {
	_, err := f.session(h, "GetSessionInfo")
	return p11.SessionInfo{}, err
}

// Login implements library.
func (f *fakeLibrary) Login(h p11.SessionHandle, _ uint, pin string) error {
	t, err := f.session(h, "Login")
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.logins++
	if pin != t.pin {
		return p11.Error(p11.CKR_PIN_INCORRECT)
	}
	t.loggedIn = true
	return nil
}

// FindObjectsInit implements library.
func (f *fakeLibrary) FindObjectsInit(h p11.SessionHandle, template []*p11.Attribute) error {
	t, err := f.session(h, "FindObjectsInit")
	if err != nil {
		return err
	}
	var class uint
	var id []byte
	for _, a := range template {
		switch a.Type {
		case p11.CKA_CLASS:
			class, _ = number(a.Value)
		case p11.CKA_ID:
			id = a.Value
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.found[h] = nil
	for o, k := range t.objects {
		if k.class == class && (id == nil || bytes.Equal(k.id, id)) {
			f.found[h] = append(f.found[h], o)
		}
	}
	return nil
}

// FindObjects implements library.
func (f *fakeLibrary) FindObjects(h p11.SessionHandle, _ int) ([]p11.ObjectHandle, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.found[h], false, nil
}

// FindObjectsFinal implements library.
func (f *fakeLibrary) FindObjectsFinal(p11.SessionHandle) error { return nil }

// key is an object of a session's token.
func (f *fakeLibrary) key(h p11.SessionHandle, o p11.ObjectHandle, call string) (*fakeToken, fakeKey, error) {
	t, err := f.session(h, call)
	if err != nil {
		return nil, fakeKey{}, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	k, ok := t.objects[o]
	if !ok {
		return nil, k, p11.Error(p11.CKR_OBJECT_HANDLE_INVALID)
	}
	return t, k, nil
}

// GetAttributeValue implements library.
func (f *fakeLibrary) GetAttributeValue(h p11.SessionHandle, o p11.ObjectHandle, a []*p11.Attribute) ([]*p11.Attribute, error) {
	_, k, err := f.key(h, o, "GetAttributeValue")
	if err != nil {
		return nil, err
	}
	var out []*p11.Attribute
	for _, want := range a {
		switch want.Type {
		case p11.CKA_KEY_TYPE:
			out = append(out, p11.NewAttribute(p11.CKA_KEY_TYPE, uint(p11.CKK_EC)))
		case p11.CKA_EC_PARAMS:
			out = append(out, p11.NewAttribute(p11.CKA_EC_PARAMS, curves()[0].params))
		case p11.CKA_EC_POINT:
			if k.class == p11.CKO_PRIVATE_KEY {
				return nil, p11.Error(p11.CKR_ATTRIBUTE_TYPE_INVALID)
			}
			raw, err := k.private.PublicKey.Bytes()
			if err != nil {
				return nil, err
			}
			point, err := asn1.Marshal(raw)
			if err != nil {
				return nil, err
			}
			out = append(out, p11.NewAttribute(p11.CKA_EC_POINT, point))
		case p11.CKA_LABEL:
			out = append(out, p11.NewAttribute(p11.CKA_LABEL, k.label))
		}
	}
	return out, nil
}

// SetAttributeValue implements library.
func (f *fakeLibrary) SetAttributeValue(h p11.SessionHandle, o p11.ObjectHandle, a []*p11.Attribute) error {
	t, k, err := f.key(h, o, "SetAttributeValue")
	if err != nil {
		return err
	}
	if t.fixedID {
		return p11.Error(p11.CKR_ATTRIBUTE_READ_ONLY)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	k.id = a[0].Value
	t.objects[o] = k
	return nil
}

// GenerateKeyPair implements library.
func (f *fakeLibrary) GenerateKeyPair(h p11.SessionHandle, _ []*p11.Mechanism, public, _ []*p11.Attribute) (pub, priv p11.ObjectHandle, err error) {
	t, err := f.session(h, "GenerateKeyPair")
	if err != nil {
		return 0, 0, err
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return 0, 0, err
	}
	k := fakeKey{private: private, class: p11.CKO_PUBLIC_KEY}
	for _, a := range public {
		switch a.Type {
		case p11.CKA_ID:
			k.id = a.Value
		case p11.CKA_LABEL:
			k.label = a.Value
		}
	}
	f.mu.Lock()
	f.next += 2
	pub, priv = p11.ObjectHandle(f.next-1), p11.ObjectHandle(f.next)
	f.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.objects[pub] = k
	k.class = p11.CKO_PRIVATE_KEY
	t.objects[priv] = k
	return pub, priv, nil
}

// DestroyObject implements library.
func (f *fakeLibrary) DestroyObject(h p11.SessionHandle, o p11.ObjectHandle) error {
	t, _, err := f.key(h, o, "DestroyObject")
	if err != nil {
		return err
	}
	t.set(func(t *fakeToken) { delete(t.objects, o) })
	return nil
}

// SignInit implements library.
func (f *fakeLibrary) SignInit(h p11.SessionHandle, _ []*p11.Mechanism, o p11.ObjectHandle) error {
	if _, _, err := f.key(h, o, "SignInit"); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.signing[h] != 0 {
		return p11.Error(p11.CKR_OPERATION_ACTIVE)
	}
	f.signing[h] = o
	return nil
}

// Sign implements library.
func (f *fakeLibrary) Sign(h p11.SessionHandle, message []byte) ([]byte, error) {
	f.mu.Lock()
	o := f.signing[h]
	delete(f.signing, h)
	f.mu.Unlock()
	t, k, err := f.key(h, o, "Sign")
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	t.busy++
	t.mostBusy = max(t.mostBusy, t.busy)
	hold, spoil := t.hold, t.spoil
	t.mu.Unlock()
	defer t.set(func(t *fakeToken) { t.busy-- })
	if hold != nil {
		<-hold
	}
	r, s, err := ecdsa.Sign(rand.Reader, k.private, message)
	if err != nil {
		return nil, err
	}
	sig := make([]byte, 64)
	r.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	if spoil {
		sig[40] ^= 1
	}
	return sig, nil
}
