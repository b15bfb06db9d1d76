package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"sluice/journal/event"
	"sluice/pipeline"
)

// GateConfig is what a Gate is made of.
type GateConfig struct {
	Engine *pipeline.Engine
	Logger *slog.Logger
	// Requests is how many requests a second a token may make, Burst how many of
	// them at once; Failures how many tries a minute without a known token are
	// answered to one address (of IPv6 its /64).
	Requests, Burst, Failures int
}

// Gate lets in who shows a token: it finds out who makes a request, and ends it
// once the token is withdrawn or expires. What they may do is for Handler to
// say. Whoever shows none learns nothing.
type Gate struct {
	engine *pipeline.Engine
	log    *slog.Logger
	calls  *limiters // by token
	tries  *limiters // by address

	mu     sync.Mutex
	active map[*call]struct{} // guarded by mu
}

// call is a request that runs.
type call struct {
	token pipeline.Token // guarded by the gate's mu; zero before it is known
	end   context.CancelCauseFunc
}

// NewGate makes a gate; Run is to run beside it.
func NewGate(cfg GateConfig) *Gate {
	return &Gate{
		engine: cfg.Engine, log: cfg.Logger,
		calls:  newLimiters(float64(cfg.Requests), cfg.Burst),
		tries:  newLimiters(float64(cfg.Failures)/60, cfg.Failures),
		active: map[*call]struct{}{},
	}
}

// SetLimits replaces the limits of GateConfig from now on.
func (g *Gate) SetLimits(requests, burst, failures int) {
	g.calls.set(float64(requests), burst)
	g.tries.set(float64(failures)/60, failures)
}

// errWithdrawn ends requests whose token does not stand any more.
var errWithdrawn = errors.New("the token was withdrawn or has expired")

// Run ends requests whose token is withdrawn or expires, until ctx ends.
func (g *Gate) Run(ctx context.Context) {
	for {
		changed, expires, stop := g.engine.AccessChanged()
		g.endWithdrawn()
		select {
		case <-changed:
		case <-expires:
		case <-ctx.Done():
			stop()
			return
		}
		stop()
	}
}

func (g *Gate) endWithdrawn() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range g.active {
		if c.token.Seq != 0 && !g.engine.Stands(c.token) {
			c.end(errWithdrawn)
		}
	}
}

type callKey struct{}

// Watch lets next find out who makes its requests, by Authenticate, and ends
// them once that token does not stand any more.
func (g *Gate) Watch(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, end := context.WithCancelCause(r.Context())
		c := &call{end: end}
		g.mu.Lock()
		g.active[c] = struct{}{}
		g.mu.Unlock()
		// A handler that waits for a slow reader notices nothing else.
		control := http.NewResponseController(w)
		stop := context.AfterFunc(ctx, func() {
			if errors.Is(context.Cause(ctx), errWithdrawn) {
				_ = control.SetWriteDeadline(time.Now()) // where it cannot be set, the handler ends by ctx
			}
		})
		defer func() {
			stop()
			g.mu.Lock()
			delete(g.active, c)
			g.mu.Unlock()
			end(nil)
		}()
		timed := &timedWriter{ResponseWriter: w, control: control, ended: func() error {
			if cause := context.Cause(ctx); errors.Is(cause, errWithdrawn) {
				return cause
			}
			return nil
		}}
		next.ServeHTTP(timed, r.WithContext(context.WithValue(ctx, callKey{}, c)))
	})
}

// Wrap gives requests that have no identity yet that of their bearer token, and
// refuses those without one.
func (g *Gate) Wrap(next http.Handler) http.Handler {
	return g.Watch(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, known := IdentityOf(r.Context())
		if !known {
			var p *Problem
			if id, p = g.identify(w, r); p != nil {
				p.write(w)
				return
			}
		}
		if r.ContentLength != 0 {
			r.Body = &timedBody{ReadCloser: r.Body, control: http.NewResponseController(w)}
		}
		next.ServeHTTP(w, r.WithContext(WithIdentity(r.Context(), id)))
	}))
}

// Require is Wrap for what is no route of the API: its callers need a role.
// From the addresses that open names at the time it is for everybody.
func (g *Gate) Require(role Role, open func() []netip.Prefix, next http.Handler) http.Handler {
	checked := g.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if id, _ := IdentityOf(r.Context()); !id.Can(role) {
			g.engine.Refused(RefusedRole(r, id, r.URL.Path, role))
			newProblem(http.StatusForbidden, fmt.Sprintf("%s needs the role %s; %s has %s", r.URL.Path, role, id.Name, roleList(id.Roles))).write(w)
			return
		}
		next.ServeHTTP(w, r)
	}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from := peerOf(r)
		for _, prefix := range open() {
			if prefix.Contains(from) {
				next.ServeHTTP(w, r)
				return
			}
		}
		checked.ServeHTTP(w, r)
	})
}

// identify finds out who makes a request. What it answers besides a problem is
// in the header of w.
func (g *Gate) identify(w http.ResponseWriter, r *http.Request) (Identity, *Problem) {
	text, given := bearer(r)
	if !given {
		// Nobody tried anything: that is no event, only an answer.
		if wait, ok := g.tries.allow(tryKey(peerOf(r))); !ok {
			return Identity{}, tooMany(w, wait, "requests without a token from this address")
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="sluice"`)
		return Identity{}, newProblem(http.StatusUnauthorized, "a token is needed: Authorization: Bearer TOKEN; an admin makes one: sluice token add NAME --role ROLE -o FILE")
	}
	id, err := g.Authenticate(r, text)
	if err == nil {
		return id, nil
	}
	var p *Problem
	if !errors.As(err, &p) {
		return Identity{}, problemOf(err)
	}
	if wait, ok := errors.AsType[*limitError](err); ok {
		return Identity{}, tooMany(w, wait.wait, p.Detail)
	}
	if p.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="sluice", error="invalid_token"`)
		if text == "" {
			p = newProblem(p.Status, "Authorization holds no token: send Authorization: Bearer TOKEN; other ways to log in there are none")
		}
	}
	return Identity{}, p
}

// Authenticate tells who holds a token; r is the request that shows it. Errors
// are *Problem: 401 where it is not known or has expired, 429 where there are
// too many requests, 503 while it cannot be known.
func (g *Gate) Authenticate(r *http.Request, text string) (Identity, error) {
	peer := peerOf(r)
	token, err := g.engine.Authenticate(text)
	switch {
	case errors.Is(err, pipeline.ErrNoAccess):
		g.engine.Refused(pipeline.Refusal{
			Actor: event.Actor{Name: "unknown", Door: "api"},
			Facts: event.AccessRefused{Why: event.RefusedUnknown, Peer: peerText(peer)},
		})
		if wait, ok := g.tries.allow(tryKey(peer)); !ok {
			return Identity{}, limited(wait, "tries without a known token from this address")
		}
		return Identity{}, newProblem(http.StatusUnauthorized, "the token is not known here, or was withdrawn; an admin makes one: sluice token add NAME --role ROLE -o FILE")
	case errors.Is(err, pipeline.ErrExpired):
		g.engine.Refused(pipeline.Refusal{
			Actor: event.Actor{Name: token.Name, Door: "api"},
			Facts: event.AccessRefused{Why: event.RefusedExpired, Peer: peerText(peer)},
		})
		return Identity{}, newProblem(http.StatusUnauthorized, fmt.Sprintf("token %s has expired at %s; an admin makes another: sluice token remove %s, then sluice token add %s",
			token.Name, time.Unix(token.Expires, 0).UTC().Format(time.RFC3339), token.Name, token.Name))
	case err != nil:
		return Identity{}, newProblem(http.StatusServiceUnavailable, err.Error())
	}
	if wait, ok := g.calls.allow(token.Name + " " + strconv.FormatUint(token.Seq, 10)); !ok {
		g.engine.Refused(pipeline.Refusal{
			Actor: event.Actor{Name: token.Name, Door: "api"},
			Facts: event.AccessRefused{Why: event.RefusedLimit, Peer: peerText(peer)},
		})
		return Identity{}, limited(wait, "requests with token "+token.Name)
	}
	if c, ok := r.Context().Value(callKey{}).(*call); ok {
		g.mu.Lock()
		c.token = token
		g.mu.Unlock()
		if !g.engine.Stands(token) { // withdrawn since it was looked at
			c.end(errWithdrawn)
		}
	}
	id := Identity{Name: token.Name, Door: "api"}
	for _, role := range token.Roles {
		id.Roles = append(id.Roles, Role(role))
	}
	return id, nil
}

// RefusedRole is a request that was refused because its caller lacks a role;
// route is the path as a pattern.
func RefusedRole(r *http.Request, id Identity, route string, role Role) pipeline.Refusal {
	return pipeline.Refusal{
		Actor: event.Actor{Name: id.Name, Door: id.Door},
		Facts: event.AccessRefused{
			Why: event.RefusedRole, Method: r.Method, Route: route, Role: string(role), Peer: peerText(peerOf(r)),
		},
	}
}

// bearer is the token that a request shows.
func bearer(r *http.Request) (text string, given bool) {
	values := r.Header.Values("Authorization")
	if len(values) == 0 {
		return "", false
	}
	scheme, text, ok := strings.Cut(values[0], " ")
	if !ok || len(values) > 1 || !strings.EqualFold(scheme, "Bearer") {
		return "", true // given, and no token: known to nobody
	}
	return strings.TrimSpace(text), true
}

// peerOf is the address that a request comes from; the zero value where that is
// no network.
func peerOf(r *http.Request) netip.Addr {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return at.Addr().Unmap().WithZone("")
}

func peerText(peer netip.Addr) string {
	if !peer.IsValid() {
		return ""
	}
	return peer.String()
}

// tryKey is what tries are counted by: who has one address of an IPv6 network
// has them all.
func tryKey(peer netip.Addr) string {
	if peer.Is6() {
		if prefix, err := peer.Prefix(64); err == nil {
			return prefix.String()
		}
	}
	return peerText(peer)
}

// limitError is a Problem with the time after which it is over.
type limitError struct {
	*Problem
	wait time.Duration
}

func (l *limitError) Unwrap() error { return l.Problem }

func limited(wait time.Duration, what string) error {
	return &limitError{newProblem(http.StatusTooManyRequests, "too many "+what+": try again in "+strconv.Itoa(seconds(wait))+" s"), wait}
}

// tooMany is the problem of a limit, with the header that goes with it.
func tooMany(w http.ResponseWriter, wait time.Duration, what string) *Problem {
	w.Header().Set("Retry-After", strconv.Itoa(seconds(wait)))
	if !strings.HasPrefix(what, "too many") {
		what = "too many " + what
	}
	return newProblem(http.StatusTooManyRequests, what)
}

// seconds rounds up to whole seconds, at least one.
func seconds(d time.Duration) int { return max(1, int(math.Ceil(d.Seconds()))) }

func roleList(roles []Role) string {
	words := make([]string, 0, len(roles))
	for _, r := range roles {
		words = append(words, string(r))
	}
	return strings.Join(words, ", ")
}

const (
	// bodyTime is how long the next part of a body may take, writeTime how long
	// a reader may take for a part of an answer.
	bodyTime  = 30 * time.Second
	writeTime = time.Minute
)

// timedBody gives each part of a request's body its time, and none to what
// follows: streams go on for longer.
type timedBody struct {
	io.ReadCloser
	control *http.ResponseController
}

// Read reads a part in its time.
func (b *timedBody) Read(p []byte) (int, error) {
	_ = b.control.SetReadDeadline(time.Now().Add(bodyTime)) // of the process's own requests there is none
	n, err := b.ReadCloser.Read(p)
	_ = b.control.SetReadDeadline(time.Time{}) // as above
	return n, err
}

// timedWriter gives each part of an answer its time, and ends it where the token
// behind it does not stand any more.
type timedWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	ended   func() error // why nothing more is written
}

// Write writes a part in its time.
func (w *timedWriter) Write(p []byte) (n int, err error) {
	err = w.timed(func() error {
		n, err = w.ResponseWriter.Write(p)
		return err
	})
	return n, err
}

// FlushError sends in its time what was written.
func (w *timedWriter) FlushError() error { return w.timed(w.control.Flush) }

func (w *timedWriter) timed(do func() error) error {
	if err := w.ended(); err != nil {
		return err
	}
	_ = w.control.SetWriteDeadline(time.Now().Add(writeTime)) // of the process's own requests there is none
	err := do()
	_ = w.control.SetWriteDeadline(time.Time{}) // what comes next has its own; HTTP/2 would end a stream at rest
	return err
}

// Unwrap is for http.ResponseController.
func (w *timedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
