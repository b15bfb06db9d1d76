package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"sluice/journal/event"
	"sluice/keymgr"
)

// KeystoreInfo is a keystore, and how it is.
type KeystoreInfo struct {
	Name string `json:"name"`
	Kind string `json:"kind"` // file, pkcs11 or kmip
	// Module, Token and TokenSerial name the token of a pkcs11 keystore.
	Module      string `json:"module,omitempty"`
	Token       string `json:"token,omitempty"`
	TokenSerial string `json:"token_serial,omitempty"`
	// Address names the server of a kmip keystore, ServerName and ServerPin how
	// that proves itself: as in NewServer.
	Address    string `json:"address,omitempty"`
	ServerName string `json:"server_name,omitempty"`
	ServerPin  string `json:"server_pin,omitempty"`
	// Sessions is how many calls may be with it at a time, TimeoutMS how long
	// one may take.
	Sessions  int   `json:"sessions,omitempty"`
	TimeoutMS int64 `json:"timeout_ms,omitempty"`
	// State is ready, idle (not used yet), away, or stopped (a person has to
	// act).
	State   string     `json:"state"`
	Problem string     `json:"problem,omitempty"`
	Hint    string     `json:"hint,omitempty"`
	Since   *time.Time `json:"since,omitempty"` // since when it is so
	// Keys is how many keys of zones it holds, UsedBy the zones and policies
	// that name it.
	Keys   int      `json:"keys"`
	UsedBy []string `json:"used_by"`
}

// NewKeystore is what AddKeystore needs: a token, or a KMIP server.
type NewKeystore struct {
	Name string `json:"name"`
	// KMIP is the server; nil for a token, which Module, Token and PIN are of.
	KMIP   *NewServer `json:"kmip,omitempty"`
	Module string     `json:"module,omitempty"`
	Token  string     `json:"token,omitempty"`
	// TokenSerial is needed where several tokens have the label.
	TokenSerial string `json:"token_serial,omitempty"`
	PIN         string `json:"pin,omitempty"`
	Sessions    int    `json:"sessions,omitempty"`   // 0 is 8
	TimeoutMS   int64  `json:"timeout_ms,omitempty"` // 0 is 10,000
}

// KeystoreTest asks for a test of a keystore.
type KeystoreTest struct {
	Algorithm string `json:"algorithm,omitempty"` // "" is P-256, or RSA
	// PIN is tried in place of the one that is kept, and then kept.
	PIN string `json:"pin,omitempty"`
	// KMIP is what changes of the login for a KMIP server: it is tried, and then
	// kept.
	KMIP *ServerLogin `json:"kmip,omitempty"`
}

// KeystoreReport is what came of a test.
type KeystoreReport struct {
	Keystore     string  `json:"keystore"`
	Token        string  `json:"token"`
	TokenSerial  string  `json:"token_serial"`
	Manufacturer string  `json:"manufacturer"`
	Model        string  `json:"model"`
	Algorithm    string  `json:"algorithm"`
	Sessions     int     `json:"sessions"`
	GenerateMS   float64 `json:"generate_ms"`
	SignMS       float64 `json:"sign_ms"`    // median
	SlowestMS    float64 `json:"slowest_ms"` // the longest
	Signatures   int     `json:"signatures"` // made, and all verified
	PerSecond    float64 `json:"per_second"` // with all sessions at once
	// Address, Protocol ("KMIP 2.0") and the rest are of a KMIP server. Batch is
	// how many signatures one request asked for, absent where it takes one at a
	// time; BatchedPerSecond how many it makes so, with all sessions at once.
	Address          string  `json:"address,omitempty"`
	Protocol         string  `json:"protocol,omitempty"`
	Batch            int     `json:"batch,omitempty"`
	BatchedPerSecond float64 `json:"batched_per_second,omitempty"`
}

// Bounds of what may be asked for.
const (
	maxSessions = 256
	minTimeout  = 100 * time.Millisecond
	maxTimeout  = 10 * time.Minute
)

// keystores is the keystores on tokens and servers that this process has opened.
type keystores struct {
	adding sync.Mutex // held while one is added or removed
	mu     sync.Mutex
	open   map[string]keymgr.TokenKeystore // guarded by mu; by name
	places map[string]chan struct{}        // guarded by mu; bounds the signings of each at a time
	closed bool                            // guarded by mu
}

// kinds and states of a KeystoreInfo.
const (
	kindFile     = "file"
	kindPKCS11   = "pkcs11"
	kindKMIP     = "kmip"
	storeReady   = "ready"
	storeIdle    = "idle"
	storeAway    = "away"
	storeStopped = "stopped"
)

// keystoreOf gives a keystore by its name.
func (e *Engine) keystoreOf(name string) (keymgr.Keystore, error) {
	if name == "" || name == e.keystore.Name() {
		return e.keystore, nil
	}
	e.mu.RLock()
	facts, ok := e.registry.Keystores[name]
	e.mu.RUnlock()
	if !ok {
		return nil, fmt.Errorf("keystore %q is not known: %w; add it: sluice keystore add %s --pkcs11 MODULE --token LABEL --pin-file FILE, or --kmip HOST:PORT (sluice help keys)", name, ErrNotFound, name)
	}
	return e.openKeystore(facts)
}

func (e *Engine) openKeystore(facts event.KeystoreAdded) (keymgr.TokenKeystore, error) {
	tokens, err := e.tokensFor(facts)
	if err != nil {
		return nil, err
	}
	e.keys.mu.Lock()
	defer e.keys.mu.Unlock()
	if e.keys.closed {
		return nil, fmt.Errorf("%w: the daemon stops", ErrState)
	}
	ks, ok := e.keys.open[facts.Name]
	if !ok {
		ks = tokens.Open(tokenOf(facts))
		if e.keys.open == nil {
			e.keys.open = map[string]keymgr.TokenKeystore{}
		}
		e.keys.open[facts.Name] = ks
	}
	return ks, nil
}

func tokenOf(f event.KeystoreAdded) keymgr.Token {
	return keymgr.Token{
		Name: f.Name, Module: f.Module, Label: f.Token, Serial: f.Serial,
		Sessions: f.Sessions, Timeout: time.Duration(f.Timeout) * time.Millisecond,
		Server: keymgr.Server{Address: f.Address, Name: f.ServerName, Pin: f.ServerPin},
	}
}

// closeKeystores ends the use of all tokens.
func (e *Engine) closeKeystores() error {
	e.keys.mu.Lock()
	defer e.keys.mu.Unlock()
	e.keys.closed = true
	var all error
	for name, ks := range e.keys.open {
		if err := ks.Close(); err != nil {
			all = errors.Join(all, fmt.Errorf("close keystore %s: %w", name, err))
		}
	}
	e.keys.open = nil
	return all
}

// tokenError is an error of a token as doors give it, with what to do.
func tokenError(err error) error {
	if hint := keymgr.HintOf(err); hint != "" {
		return fmt.Errorf("%w: %w; %s", ErrState, err, hint)
	}
	return fmt.Errorf("%w: %w", ErrState, err)
}

// generateKey makes a key in the keystore that spec names.
func (e *Engine) generateKey(ctx context.Context, spec keymgr.Spec, avoid []uint16) (event.Key, error) {
	ks, err := e.keystoreOf(spec.Keystore)
	if err != nil {
		return event.Key{}, err
	}
	began := machineTime()
	k, err := ks.Generate(ctx, spec, avoid)
	e.counts.keystores.of(ks.Name(), "generate").add(began, err)
	return k, err
}

// discard deletes keys that were made and will not be used.
func (e *Engine) discard(ctx context.Context, keys []event.Key) {
	for _, k := range keys {
		if k.Adopted {
			continue
		}
		ks, err := e.keystoreOf(k.Keystore)
		if err == nil {
			err = ks.Remove(ctx, k.Reference)
		}
		if err != nil {
			e.log.WarnContext(ctx, "unused key not deleted", "key", k.ID, "keystore", k.Keystore, "reference", k.Reference, "error", err)
		}
	}
}

// discardUnused deletes those of the keys that no event of the zone names.
func (e *Engine) discardUnused(ctx context.Context, name string, keys []event.Key) {
	r, err := e.find(name)
	if err != nil {
		return
	}
	s := r.snapshot()
	e.discard(ctx, slices.DeleteFunc(slices.Clone(keys), func(k event.Key) bool {
		_, named := s.Keys.ByID(k.ID)
		return named
	}))
}

// proveKey has a key prove itself in its keystore.
func (e *Engine) proveKey(ctx context.Context, k event.Key) error {
	ks, err := e.keystoreOf(k.Keystore)
	if err == nil {
		began := machineTime()
		err = keymgr.Prove(ctx, ks, k)
		e.counts.keystores.of(ks.Name(), "prove").add(began, err)
	}
	if err != nil {
		return fmt.Errorf("key %s does not prove itself: %w", k.ID, err)
	}
	return nil
}

// signPlaces is what bounds how many signings run at a time: each token by
// itself, so that a slow one holds up only the zones that sign with it.
func (e *Engine) signPlaces(s State) []chan struct{} {
	names := s.tokens(e.keystore.Name())
	if len(names) == 0 {
		return []chan struct{}{e.heavy}
	}
	e.keys.mu.Lock()
	defer e.keys.mu.Unlock()
	var out []chan struct{}
	for _, name := range names {
		c := e.keys.places[name]
		if c == nil {
			c = make(chan struct{}, cap(e.heavy))
			if e.keys.places == nil {
				e.keys.places = map[string]chan struct{}{}
			}
			e.keys.places[name] = c
		}
		out = append(out, c)
	}
	return out
}

// AddKeystore takes up a token or a KMIP server: it is found, and logged in to,
// before anything is kept. Errors: ErrInvalid, ErrState (the name or the token is
// taken, or it is not as said).
func (e *Engine) AddKeystore(ctx context.Context, actor event.Actor, n NewKeystore) (KeystoreInfo, error) {
	if err := n.check(e.keystore.Name()); err != nil {
		return KeystoreInfo{}, err
	}
	e.keys.adding.Lock()
	defer e.keys.adding.Unlock()
	facts := n.facts()
	tokens, err := e.tokensFor(*facts)
	if err != nil {
		return KeystoreInfo{}, err
	}
	secret, err := n.secret()
	if err != nil {
		return KeystoreInfo{}, err
	}
	taken := func() error {
		if _, ok := e.registry.Keystores[facts.Name]; ok {
			return errorState("keystore %s is already here", facts.Name)
		}
		for _, other := range e.registry.Keystores {
			if facts.Address == "" && other.Token == facts.Token && other.Serial == facts.Serial {
				return errorState("the token %q (serial number %s) is keystore %s already", facts.Token, facts.Serial, other.Name)
			}
		}
		return nil
	}
	e.mu.RLock()
	err = taken()
	e.mu.RUnlock()
	if err != nil {
		return KeystoreInfo{}, err
	}
	found, err := tokens.Find(ctx, tokenOf(*facts), secret)
	if err != nil {
		return KeystoreInfo{}, tokenError(err)
	}
	facts.Serial = found.Serial
	e.mu.RLock()
	err = taken()
	e.mu.RUnlock()
	if err != nil {
		return KeystoreInfo{}, err
	}
	// The secret first: a keystore that the journal names can be used.
	if err := tokens.KeepPIN(facts.Name, secret); err != nil {
		return KeystoreInfo{}, err
	}
	if err := e.appendInstance(ctx, actor, facts, taken); err != nil {
		return KeystoreInfo{}, err
	}
	e.retryKeystore(facts.Name) // zones may have waited for it
	return e.Keystore(ctx, facts.Name)
}

// check refuses what cannot be a keystore.
func (n *NewKeystore) check(files string) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
	}
	timeout := time.Duration(n.TimeoutMS) * time.Millisecond
	switch {
	case n.Name == files || n.Name == fileKeystore:
		return bad("keystore %q is the one in files", n.Name)
	case !keystoreName(n.Name):
		return bad("name of a keystore %q: want up to %d lower-case letters, digits and -", n.Name, maxKeystoreName)
	case n.KMIP != nil:
		if err := n.KMIP.check(); err != nil {
			return bad("%v", err)
		}
		if n.Module != "" || n.Token != "" || n.TokenSerial != "" || n.PIN != "" {
			return bad("a keystore is a token or a KMIP server, not both")
		}
	case !filepath.IsAbs(n.Module):
		return bad("PKCS#11 module %q: want the absolute path of a library", n.Module)
	case n.Token == "":
		return bad("the label of the token is missing")
	case n.PIN == "":
		return bad("the PIN of the token is missing")
	}
	switch {
	case n.Sessions < 0 || n.Sessions > maxSessions:
		return bad("%d sessions: want 1 to %d", n.Sessions, maxSessions)
	case n.TimeoutMS != 0 && (timeout < minTimeout || timeout > maxTimeout):
		return bad("a time-out of %v: want %v to %v", timeout, minTimeout, maxTimeout)
	}
	return nil
}

// Keystores lists the keystores, that in files first.
func (e *Engine) Keystores(ctx context.Context) ([]KeystoreInfo, error) {
	e.mu.RLock()
	known := e.registry.Keystores
	e.mu.RUnlock()
	out := []KeystoreInfo{e.keystoreInfo(event.KeystoreAdded{Name: e.keystore.Name()})}
	for _, name := range slices.Sorted(maps.Keys(known)) {
		out = append(out, e.keystoreInfo(known[name]))
	}
	return out, ctx.Err()
}

// Keystore tells of one.
func (e *Engine) Keystore(_ context.Context, name string) (KeystoreInfo, error) {
	if name == e.keystore.Name() {
		return e.keystoreInfo(event.KeystoreAdded{Name: name}), nil
	}
	e.mu.RLock()
	facts, ok := e.registry.Keystores[name]
	e.mu.RUnlock()
	if !ok {
		return KeystoreInfo{}, fmt.Errorf("keystore %q: %w", name, ErrNotFound)
	}
	return e.keystoreInfo(facts), nil
}

func (e *Engine) keystoreInfo(f event.KeystoreAdded) KeystoreInfo {
	info := KeystoreInfo{Name: f.Name, Kind: kindFile, State: storeReady}
	info.UsedBy, info.Keys = e.usersOfKeystore(f.Name)
	if f.Name == e.keystore.Name() {
		return info
	}
	info.Kind, info.Module, info.Token, info.TokenSerial = kindPKCS11, f.Module, f.Token, f.Serial
	if f.Address != "" {
		info.Kind, info.Address, info.ServerName, info.ServerPin = kindKMIP, f.Address, f.ServerName, f.ServerPin
	}
	ks, err := e.openKeystore(f)
	if err != nil {
		info.State, info.Problem = storeStopped, err.Error()
		return info
	}
	token, st := ks.Token(), ks.State()
	info.Sessions, info.TimeoutMS = token.Sessions, token.Timeout.Milliseconds()
	info.Problem, info.Hint, info.Since = st.Problem, st.Hint, timeOrNil(st.Since)
	switch {
	case st.Stopped:
		info.State = storeStopped
	case st.Problem != "":
		info.State = storeAway
	case !st.Connected:
		info.State = storeIdle
	}
	return info
}

// usersOfKeystore lists the zones and policies that name a keystore, and counts
// the keys of zones that it holds.
func (e *Engine) usersOfKeystore(name string) (users []string, keys int) {
	users = []string{}
	for _, s := range e.states() {
		n := 0
		for _, k := range s.Keys.Keys {
			if k.Keystore == name && k.Destroyed.IsZero() {
				n++
			}
		}
		keys += n
		p, err := e.boundPolicy(s)
		switch {
		case n > 0:
			users = append(users, "zone "+s.Name)
		case err == nil && p.namesKeystore(name):
			users = append(users, "zone "+s.Name+" by its policy "+p.Name)
		}
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	for _, policy := range slices.Sorted(maps.Keys(e.policies)) {
		if e.policies[policy].namesKeystore(name) {
			users = append(users, "policy "+policy)
		}
	}
	return users, keys
}

// RemoveKeystore ends the use of a token that nothing uses any more. Its keys
// stay on it. Errors: ErrNotFound, ErrState (who uses it).
func (e *Engine) RemoveKeystore(ctx context.Context, actor event.Actor, name string) error {
	e.keys.adding.Lock()
	defer e.keys.adding.Unlock()
	if name == e.keystore.Name() {
		return errorState("the keystore in files is always there")
	}
	info, err := e.Keystore(ctx, name)
	if err != nil {
		return err
	}
	if users, _ := e.usersOfKeystore(name); len(users) > 0 {
		return errorState("keystore %s is used by %s", name, strings.Join(users, ", "))
	}
	if err := e.appendInstance(ctx, actor, &event.KeystoreRemoved{Name: name}, func() error { return nil }); err != nil {
		return err
	}
	e.keys.mu.Lock()
	ks := e.keys.open[name]
	delete(e.keys.open, name)
	e.keys.mu.Unlock()
	if ks != nil {
		err = ks.Close()
	}
	if tokens, none := e.tokensFor(event.KeystoreAdded{Address: info.Address}); none == nil {
		err = errors.Join(err, tokens.ForgetPIN(name))
	}
	return err
}

// TestKeystore signs on a token with a key that it forgets again. What failed
// for want of the token is tried again at once. Errors: ErrNotFound,
// ErrInvalid, ErrState (the token does not do it).
func (e *Engine) TestKeystore(ctx context.Context, name string, q KeystoreTest) (KeystoreReport, error) {
	algorithm := uint8(0)
	if q.Algorithm != "" {
		var err error
		if algorithm, _, err = ParseAlgorithm(q.Algorithm); err != nil {
			return KeystoreReport{}, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
	}
	e.mu.RLock()
	facts, ok := e.registry.Keystores[name]
	e.mu.RUnlock()
	if name == e.keystore.Name() {
		return KeystoreReport{}, errorState("the keystore in files needs no test")
	}
	if !ok {
		return KeystoreReport{}, fmt.Errorf("keystore %q: %w", name, ErrNotFound)
	}
	ks, err := e.openKeystore(facts)
	if err != nil {
		return KeystoreReport{}, err
	}
	secret, err := q.secret(facts)
	if err != nil {
		return KeystoreReport{}, err
	}
	t, err := ks.Test(ctx, algorithm, secret)
	if err != nil {
		return KeystoreReport{}, tokenError(err)
	}
	e.retryKeystore(name)
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	return KeystoreReport{
		Keystore: name, Token: facts.Token, TokenSerial: facts.Serial, Manufacturer: t.Manufacturer, Model: t.Model,
		Algorithm: dns.AlgorithmToString[t.Algorithm], Sessions: t.Sessions, GenerateMS: ms(t.Generate), SignMS: ms(t.Sign),
		SlowestMS: ms(t.Slowest), Signatures: t.Signatures, PerSecond: t.PerSecond,
		Address: facts.Address, Protocol: t.Protocol, Batch: t.Batch, BatchedPerSecond: t.BatchedPerSecond,
	}, nil
}
