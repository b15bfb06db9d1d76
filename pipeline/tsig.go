package pipeline

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sluice/journal/event"
	"sluice/signer/zone"
	"sluice/xfr"
)

// TSIGStore keeps the secrets of TSIG keys.
type TSIGStore interface {
	xfr.Keys
	// Put stores a key, durably, in place of one of the same name.
	Put(name zone.Name, algorithm string, secret []byte) error
	// Remove deletes a key; one that is not there is no error.
	Remove(name zone.Name) error
}

// TSIGKey is a TSIG key without its secret.
type TSIGKey struct {
	Name      string `json:"name"`
	Algorithm string `json:"algorithm"`
	// UsedBy lists zones and policies that name it.
	UsedBy []string `json:"used_by"`
	// Missing: its secret is not in this instance's keys.
	Missing bool `json:"missing,omitempty"`
}

// NewTSIG is what AddTSIG needs.
type NewTSIG struct {
	Name      string `json:"name"`
	Algorithm string `json:"algorithm,omitempty"` // "" is hmac-sha256
	// Secret is in base64; "" makes a new one.
	Secret string `json:"secret,omitempty"`
}

// TSIGSecret is a TSIG key with its secret.
type TSIGSecret struct {
	Name      string `json:"name"`
	Algorithm string `json:"algorithm"`
	Secret    string `json:"secret"` // base64
}

// minTSIGSecret is the shortest secret that is taken, in bytes.
const minTSIGSecret = 16

// tsigLength is how long a new secret of an algorithm is, in bytes; 0 where the
// algorithm is not known.
func tsigLength(algorithm string) (length int, weak bool) {
	switch algorithm {
	case "hmac-sha224":
		return 28, false
	case "hmac-sha256":
		return 32, false
	case "hmac-sha384":
		return 48, false
	case "hmac-sha512":
		return 64, false
	case "hmac-sha1":
		return 20, true
	case "hmac-md5":
		return 16, true
	}
	return 0, false
}

// AddTSIG stores a TSIG key. Errors: ErrInvalid, ErrState (the name is taken).
func (e *Engine) AddTSIG(ctx context.Context, actor event.Actor, k NewTSIG) (TSIGKey, error) {
	if e.cfg.TSIG == nil {
		return TSIGKey{}, fmt.Errorf("%w: this process keeps no TSIG keys", ErrState)
	}
	if err := e.keepsSecrets(); err != nil {
		return TSIGKey{}, err
	}
	name, err := zone.ParseName(k.Name)
	if err != nil || name == zone.Root {
		return TSIGKey{}, fmt.Errorf("%w: name of a TSIG key %q", ErrInvalid, k.Name)
	}
	facts := &event.TSIGAdded{Name: name.Fold().String(), Algorithm: strings.ToLower(k.Algorithm)}
	if facts.Algorithm == "" {
		facts.Algorithm = "hmac-sha256"
	}
	if e.sharing() {
		facts.Worker = e.worker
	}
	secret, err := e.newSecret(facts.Algorithm, k.Secret)
	if err != nil {
		return TSIGKey{}, err
	}
	e.tsig.Lock()
	defer e.tsig.Unlock()
	taken := func() error {
		if _, ok := e.registry.TSIG[facts.Name]; ok {
			return fmt.Errorf("TSIG key %s is already here: %w", facts.Name, ErrState)
		}
		return nil
	}
	e.mu.RLock()
	err = taken()
	e.mu.RUnlock()
	if err != nil {
		return TSIGKey{}, err
	}
	// The secret first: a key that the journal names can be used.
	if err := e.cfg.TSIG.Put(name.Fold(), facts.Algorithm, secret); err != nil {
		return TSIGKey{}, err
	}
	if err := e.appendInstance(ctx, actor, facts, taken); err != nil {
		return TSIGKey{}, err
	}
	return TSIGKey{Name: facts.Name, Algorithm: facts.Algorithm, UsedBy: e.usersOfTSIG(facts.Name)}, nil
}

// newSecret reads a secret, or makes one.
func (e *Engine) newSecret(algorithm, text string) ([]byte, error) {
	length, weak := tsigLength(algorithm)
	switch {
	case length == 0:
		return nil, fmt.Errorf("%w: algorithm %q: want hmac-sha224, hmac-sha256, hmac-sha384 or hmac-sha512", ErrInvalid, algorithm)
	case weak && !e.cfg.Client.WeakTSIG:
		return nil, fmt.Errorf("%w: %s is too weak; allow it with weak-tsig in the daemon's config", ErrInvalid, algorithm)
	case text == "":
		secret := make([]byte, length)
		_, err := rand.Read(secret)
		return secret, err
	}
	secret, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil {
		return nil, fmt.Errorf("%w: the secret is not base64", ErrInvalid)
	}
	if len(secret) < minTSIGSecret {
		return nil, fmt.Errorf("%w: a secret of %d bytes is too short, want at least %d", ErrInvalid, len(secret), minTSIGSecret)
	}
	return secret, nil
}

// TSIGKeys lists the TSIG keys by name.
func (e *Engine) TSIGKeys(context.Context) ([]TSIGKey, error) {
	e.mu.RLock()
	known := maps.Clone(e.registry.TSIG)
	e.mu.RUnlock()
	out := []TSIGKey{}
	for _, name := range slices.Sorted(maps.Keys(known)) {
		k := TSIGKey{Name: name, Algorithm: known[name], UsedBy: e.usersOfTSIG(name)}
		_, err := e.tsigSecret(name)
		k.Missing = err != nil
		out = append(out, k)
	}
	return out, nil
}

func (e *Engine) tsigSecret(name string) (TSIGSecret, error) {
	n, err := zone.ParseName(name)
	if err != nil {
		return TSIGSecret{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if e.knowsTSIG(n.Fold().String()) && e.cfg.TSIG != nil {
		if algorithm, secret, ok := e.cfg.TSIG.Secret(n.Fold()); ok {
			return TSIGSecret{n.Fold().String(), algorithm, base64.StdEncoding.EncodeToString(secret)}, nil
		}
	}
	return TSIGSecret{}, fmt.Errorf("TSIG key %s: %w", name, ErrNotFound)
}

func (e *Engine) knowsTSIG(name string) bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	_, ok := e.registry.TSIG[name]
	return ok
}

// ExportTSIG is a TSIG key with its secret. That it is given out is recorded
// first. Errors: ErrNotFound, ErrInvalid, ErrState (this is not the main process).
func (e *Engine) ExportTSIG(ctx context.Context, actor event.Actor, name string) (TSIGSecret, error) {
	k, err := e.tsigSecret(name)
	if err != nil {
		return TSIGSecret{}, err
	}
	err = e.appendInstance(ctx, actor, &event.TSIGExported{Name: k.Name}, func() error { return nil })
	if err != nil {
		return TSIGSecret{}, err
	}
	return k, nil
}

// RemoveTSIG deletes a TSIG key that nothing uses any more. Errors:
// ErrNotFound, ErrState (who uses it).
func (e *Engine) RemoveTSIG(ctx context.Context, actor event.Actor, name string) error {
	n, err := zone.ParseName(name)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := e.keepsSecrets(); err != nil {
		return err
	}
	n = n.Fold()
	e.tsig.Lock()
	defer e.tsig.Unlock()
	if !e.knowsTSIG(n.String()) {
		return fmt.Errorf("TSIG key %s: %w", name, ErrNotFound)
	}
	if users := e.usersOfTSIG(n.String()); len(users) > 0 {
		return fmt.Errorf("TSIG key %s is used by %s: %w", name, strings.Join(users, ", "), ErrState)
	}
	if err := e.appendInstance(ctx, actor, &event.TSIGRemoved{Name: n.String()}, func() error { return nil }); err != nil {
		return err
	}
	if e.cfg.TSIG == nil {
		return nil
	}
	return e.cfg.TSIG.Remove(n)
}

// usersOfTSIG lists the zones and policies that name a key.
func (e *Engine) usersOfTSIG(name string) []string {
	users := []string{}
	for _, s := range e.states() {
		servers, err := ParseSource(s.Source)
		if err == nil && slices.ContainsFunc(servers, func(ep xfr.Endpoint) bool { return ep.Key == name }) {
			users = append(users, "zone "+s.Name)
			continue
		}
		if p, err := e.boundPolicy(s); err == nil && p.namesTSIG(name) {
			users = append(users, "zone "+s.Name+" by its policy "+p.Name)
		}
	}
	users = append(users, e.catalogsOfTSIG(name)...)
	e.mu.RLock()
	defer e.mu.RUnlock()
	for _, policy := range slices.Sorted(maps.Keys(e.policies)) {
		if e.policies[policy].namesTSIG(name) {
			users = append(users, "policy "+policy)
		}
	}
	return users
}

// namesTSIG reports whether the policy names a key.
func (p Policy) namesTSIG(name string) bool {
	return slices.Contains(p.tsigNames(), name)
}

// tsigNames lists the TSIG keys that the policy names.
func (p Policy) tsigNames() []string {
	var names []string
	for _, list := range []xfr.Prefixes{p.set.transfer, p.set.axfrOnly, p.set.notifyFrom} {
		for _, line := range list {
			names = append(names, line.Key)
		}
	}
	names = append(names, p.updateKeys()...)
	for _, ep := range slices.Concat(p.set.notifyTo, p.set.parent.Servers, p.set.parent.Signal) {
		names = append(names, ep.Key)
	}
	return slices.DeleteFunc(names, func(n string) bool { return n == "" })
}

// checkSource refuses a source that names a TSIG key that is not here.
func (e *Engine) checkSource(source string) (string, error) {
	source, err := CanonicalSource(source)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	servers, err := ParseSource(source)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	for _, ep := range servers {
		if ep.Key != "" && !e.knowsTSIG(ep.Key) {
			return "", fmt.Errorf("TSIG key %s of the source: %w", ep.Key, ErrNotFound)
		}
	}
	return source, nil
}

// TSIG is the TSIG keys of the instance, for listeners and transfers.
func (e *Engine) TSIG() xfr.Keys { return liveKeys{e} }

// liveKeys are the keys that the journal names and the store holds.
type liveKeys struct{ e *Engine }

// Secret implements xfr.Keys.
func (k liveKeys) Secret(name zone.Name) (algorithm string, secret []byte, ok bool) {
	if k.e.cfg.TSIG == nil || !k.e.knowsTSIG(name.String()) {
		return "", nil, false
	}
	return k.e.cfg.TSIG.Secret(name)
}

// keepsSecrets refuses where TSIG keys are to be changed by a process that others
// take none from.
func (e *Engine) keepsSecrets() error {
	if e.duties == nil || slices.Contains(e.roles, RoleKeys) {
		return nil
	}
	return errorState("this process has not the role keys: add and remove TSIG keys where it runs, from there they go to those that need them")
}

// TSIGOrigin is where the secret of a TSIG key comes from.
type TSIGOrigin struct {
	Seq    uint64 `json:"seq"`              // of the event that named it
	Worker string `json:"worker,omitempty"` // who has it; empty for whoever keeps keys
}

// withTSIG is the origins with one more; an empty one takes it out.
func withTSIG(from map[string]TSIGOrigin, name string, o TSIGOrigin) map[string]TSIGOrigin {
	from = maps.Clone(from)
	if from == nil {
		from = map[string]TSIGOrigin{}
	}
	if from[name] = o; o.Seq == 0 {
		delete(from, name)
	}
	return from
}
