package pipeline

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"sluice/journal"
	"sluice/journal/event"
)

// Token is who may use the API over the network. The registry holds them all.
type Token struct {
	event.AccessGranted
	Seq  uint64      `json:"seq"` // of the event that granted it
	Time time.Time   `json:"time"`
	By   event.Actor `json:"by"`
}

// expired reports whether the token's time is over.
func (t Token) expired(now time.Time) bool { return t.Expires != 0 && now.Unix() >= t.Expires }

// TokenInfo is what is told of a token.
type TokenInfo struct {
	Name      string     `json:"name"`
	Roles     []string   `json:"api_roles"`
	Created   time.Time  `json:"created"`
	CreatedBy string     `json:"created_by"`
	Expires   *time.Time `json:"expires,omitempty"`
	Expired   bool       `json:"expired,omitempty"`
}

func (t Token) info(now time.Time) TokenInfo {
	i := TokenInfo{Name: t.Name, Roles: t.Roles, Created: t.Time, CreatedBy: t.By.Name, Expired: t.expired(now)}
	if t.Expires != 0 {
		at := time.Unix(t.Expires, 0).UTC()
		i.Expires = &at
	}
	return i
}

// NewToken is what GrantAccess needs.
type NewToken struct {
	Name    string     `json:"name"`
	Roles   []string   `json:"api_roles"`
	Expires *time.Time `json:"expires,omitempty"`
	// ExpiresIn, in seconds from now, stands in its place.
	ExpiresIn int64 `json:"expires_in,omitempty"`
	// SHA256 is the hash of the token's text, where whoever asks has made that.
	SHA256 *event.Hash `json:"sha256,omitempty"`
}

// maxTokens bounds how many tokens there are: each request is compared with all.
const maxTokens = 1000

// maxExpiresIn bounds for how long a token is made, in seconds: a century.
const maxExpiresIn = 100 * 366 * 86400

// Errors of Authenticate.
var (
	// ErrNoAccess reports a token that is not known here, or no more.
	ErrNoAccess = errors.New("the token is not known here")
	// ErrExpired reports a token whose time is over.
	ErrExpired = errors.New("the token has expired")
)

// ValidTokenName reports whether a token can be called so: 1 to 64 of lower-case
// letters, digits and . _ @ -, the first a letter or digit.
func ValidTokenName(name string) bool {
	for i, c := range []byte(name) {
		alnum := 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
		if !alnum && (i == 0 || !strings.ContainsRune("._@-", rune(c))) {
			return false
		}
	}
	// Those are names that events give to others.
	return name != "" && len(name) <= 64 && name != "unknown" && name != event.Program.Name
}

// check refuses what cannot be a token.
func (n *NewToken) check(now time.Time) error {
	switch {
	case !ValidTokenName(n.Name):
		return fmt.Errorf("%w: name of a token %q: want 1 to 64 lower-case letters, digits and . _ @ -, such as that of the person or machine", ErrInvalid, n.Name)
	case len(n.Roles) == 0:
		return fmt.Errorf("%w: a token without a role may do nothing", ErrInvalid)
	case n.SHA256 == nil || n.SHA256.IsZero():
		return fmt.Errorf("%w: the hash of the token is missing", ErrInvalid)
	case n.ExpiresIn < 0 || n.ExpiresIn > maxExpiresIn || n.ExpiresIn > 0 && n.Expires != nil:
		return fmt.Errorf("%w: expires_in = %d: want seconds from now, up to a century, and no expires beside it", ErrInvalid, n.ExpiresIn)
	case n.Expires != nil && !n.Expires.After(now):
		return fmt.Errorf("%w: the token would have expired at %s already", ErrInvalid, n.Expires.UTC().Format(time.RFC3339))
	}
	if n.ExpiresIn > 0 {
		at := now.Add(time.Duration(n.ExpiresIn) * time.Second)
		n.Expires, n.ExpiresIn = &at, 0
	}
	n.Roles = slices.Compact(slices.Sorted(slices.Values(n.Roles)))
	return nil
}

// GrantAccess makes a token known; whoever shows a text of that hash is its
// holder from then on, in all processes on the journal. Errors: ErrInvalid,
// ErrState (the name is taken, or this process cannot write it).
func (e *Engine) GrantAccess(ctx context.Context, actor event.Actor, n NewToken) (TokenInfo, error) {
	now := e.clock.Now()
	if err := n.check(now); err != nil {
		return TokenInfo{}, err
	}
	facts := &event.AccessGranted{Name: n.Name, Roles: n.Roles, SHA256: *n.SHA256}
	if n.Expires != nil {
		facts.Expires = n.Expires.Unix()
	}
	err := e.appendInstance(ctx, actor, facts, func() error {
		if _, ok := e.registry.Tokens[n.Name]; ok {
			return errorState("token %s is there already; to give it another secret or role: sluice token remove %s", n.Name, n.Name)
		}
		if len(e.registry.Tokens) >= maxTokens {
			return errorState("there are %d tokens already: remove some first, see: sluice token list", maxTokens)
		}
		for _, t := range e.registry.Tokens {
			if t.SHA256 == facts.SHA256 {
				return errorState("token %s has this secret already", t.Name)
			}
		}
		return nil
	})
	if err != nil {
		return TokenInfo{}, err
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	t, ok := e.registry.Tokens[n.Name]
	if !ok {
		return TokenInfo{}, errorState("token %s was withdrawn meanwhile", n.Name)
	}
	return t.info(now), nil
}

// WithdrawAccess ends what a token may do, at once. Errors: ErrNotFound.
func (e *Engine) WithdrawAccess(ctx context.Context, actor event.Actor, name string) error {
	return e.appendInstance(ctx, actor, &event.AccessWithdrawn{Name: name}, func() error {
		if _, ok := e.registry.Tokens[name]; !ok {
			return fmt.Errorf("token %q: %w", name, ErrNotFound)
		}
		return nil
	})
}

// Tokens lists the tokens by name, also those that have expired.
func (e *Engine) Tokens(context.Context) ([]TokenInfo, error) {
	now := e.clock.Now()
	e.mu.RLock()
	tokens := e.registry.Tokens
	e.mu.RUnlock()
	out := make([]TokenInfo, 0, len(tokens))
	for _, t := range tokens {
		out = append(out, t.info(now))
	}
	slices.SortFunc(out, func(a, b TokenInfo) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// Authenticate is the token that a text is. Errors: ErrNoAccess; ErrExpired,
// with the token; ErrState while this process cannot know which tokens stand.
func (e *Engine) Authenticate(text string) (Token, error) {
	if err := e.staleError(); err != nil {
		return Token{}, err
	}
	e.mu.RLock()
	ready, tokens := e.ready, e.registry.Tokens
	e.mu.RUnlock()
	if !ready {
		return Token{}, errorState("the journal is still being read")
	}
	sum := sha256.Sum256([]byte(text))
	var found Token
	for _, t := range tokens {
		if subtle.ConstantTimeCompare(t.SHA256[:], sum[:]) == 1 {
			found = t
		}
	}
	switch {
	case found.Seq == 0:
		return Token{}, ErrNoAccess
	case found.expired(e.clock.Now()):
		return found, ErrExpired
	}
	return found, nil
}

// Stands reports whether a token is the one of its name, and has not expired.
func (e *Engine) Stands(t Token) bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.registry.Tokens[t.Name].Seq == t.Seq && !t.expired(e.clock.Now())
}

// AccessChanged returns a channel that is closed when a token is granted or
// withdrawn, or when the next of them expires.
func (e *Engine) AccessChanged() (changed <-chan struct{}, expires <-chan time.Time, stop func()) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	now, next := e.clock.Now(), int64(0)
	for _, t := range e.registry.Tokens {
		if t.Expires != 0 && !t.expired(now) && (next == 0 || t.Expires < next) {
			next = t.Expires
		}
	}
	if next == 0 {
		return e.granted, nil, func() {}
	}
	expires, stop = e.clock.Timer(time.Unix(next, 0))
	return e.granted, expires, stop
}

// foldAccess folds who may use the API. The map is replaced, never changed.
func foldAccess(known map[string]Token, rec journal.Record) map[string]Token {
	next := maps.Clone(known)
	if next == nil {
		next = map[string]Token{}
	}
	switch f := rec.Event.Facts.(type) {
	case *event.AccessGranted:
		next[f.Name] = Token{AccessGranted: *f, Seq: rec.Seq, Time: rec.Event.Time, By: rec.Event.Actor}
	case *event.AccessWithdrawn:
		delete(next, f.Name)
	}
	return next
}

// maxRequest bounds what an event tells of a request, in bytes.
const maxRequest = 500

// Used records that somebody asks for something that leaves no other event, of
// a zone where name is not "": the same of the same caller once in ten minutes. A
// process that may not write it only logs it.
func (e *Engine) Used(ctx context.Context, actor event.Actor, name, request string) error {
	request = strings.ToValidUTF8(request[:min(len(request), maxRequest)], "\uFFFD")
	facts := &event.AccessUsed{Request: request}
	q, now := askedFor{actor, name, request}, e.clock.Now()
	if e.usage.lately(now, q) {
		return nil
	}
	if e.member() {
		e.log.InfoContext(ctx, "asked for", "actor", actor.Name, "door", actor.Door, "request", request)
		return nil
	}
	var err error
	if name == "" {
		err = e.appendInstance(ctx, actor, facts, func() error { return nil })
	} else {
		var r *runner
		if r, err = e.find(name); err != nil {
			return err
		}
		err = e.appendZone(ctx, actor, r, func(State) (event.Facts, error) { return facts, nil })
	}
	if err == nil {
		e.usage.recorded(now, q)
	}
	return err
}

// describeAccess tells an event about access as a sentence; empty for others.
func describeAccess(ev event.Event) string {
	switch f := ev.Facts.(type) {
	case *event.AccessGranted:
		text := fmt.Sprintf("token %s granted, for %s", f.Name, strings.Join(f.Roles, ", "))
		if f.Expires != 0 {
			text += ", until " + time.Unix(f.Expires, 0).UTC().Format(time.RFC3339)
		}
		return text
	case *event.AccessWithdrawn:
		return fmt.Sprintf("token %s withdrawn", f.Name)
	case *event.AccessUsed:
		return "asked for: " + oneLine(f.Request) + because(f.Reason)
	case *event.AccessRefused:
		return refusedText(f)
	}
	return ""
}
