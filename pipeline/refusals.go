package pipeline

import (
	"context"
	"fmt"
	"sync"
	"time"

	"sluice/journal/event"
)

// How refused requests are told: the first of a known token at once; what
// follows, and what comes without a known token, as a number, after a pause that
// doubles from one to the other while it goes on. So whoever knocks for a year
// makes the journal grow by some 24 events a day.
const (
	refusedPause    = time.Minute
	refusedMaxPause = time.Hour
	// maxRefused bounds the kinds of refusals that are told apart, and
	// maxRefusedPeers the addresses of one of them.
	maxRefused      = 512
	maxRefusedPeers = 256
)

// Refusal is a request that was not allowed.
type Refusal struct {
	Actor event.Actor // the token's name; "unknown" without one that is known
	Facts event.AccessRefused
}

// refusalKind is what is counted together.
type refusalKind struct {
	actor              event.Actor
	why, method, route string
}

// refusals counts refused requests until they are told. Its zero value is ready.
type refusals struct {
	mu    sync.Mutex
	kinds map[refusalKind]*refusalCount // guarded by mu
	wake  chan struct{}                 // set once by the engine
}

// refusalCount is what was refused of a kind since it was told last.
type refusalCount struct {
	facts event.AccessRefused
	count uint64
	since time.Time
	peers map[string]uint64
	next  time.Time
	pause time.Duration
}

// note counts a refusal, and returns what is to be told at once.
func (r *refusals) note(now time.Time, q Refusal) (tell Refusal, due bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	kind := refusalKind{q.Actor, q.Facts.Why, q.Facts.Method, q.Facts.Route}
	if q.Facts.Why == event.RefusedUnknown {
		kind.method, kind.route = "", ""
	}
	c := r.kinds[kind]
	if c == nil && len(r.kinds) >= maxRefused {
		kind = refusalKind{actor: event.Actor{Name: "several", Door: "api"}, why: q.Facts.Why}
		c = r.kinds[kind]
	}
	if c == nil {
		if r.kinds == nil {
			r.kinds = map[refusalKind]*refusalCount{}
		}
		c = &refusalCount{facts: q.Facts, next: now.Add(refusedPause), pause: refusedPause}
		c.facts.Method, c.facts.Route = kind.method, kind.route
		r.kinds[kind] = c
		if kind.why != event.RefusedUnknown {
			q.Facts.Count = 1
			return q, true
		}
	}
	if c.count == 0 {
		c.since, c.peers = now, map[string]uint64{}
	}
	c.count++
	if _, ok := c.peers[q.Facts.Peer]; ok || len(c.peers) < maxRefusedPeers {
		c.peers[q.Facts.Peer]++
	}
	return Refusal{}, false
}

// due takes out what is to be told by now, and forgets what has ended.
func (r *refusals) due(now time.Time) (tell []Refusal, left bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for kind, c := range r.kinds {
		if now.Before(c.next) {
			continue
		}
		if c.count == 0 {
			delete(r.kinds, kind)
			continue
		}
		facts := c.facts
		facts.Count, facts.Since, facts.Peer, facts.Peers = c.count, c.since.Unix(), "", 0
		most := uint64(0)
		for peer, n := range c.peers {
			if n > most || n == most && peer < facts.Peer {
				most, facts.Peer = n, peer
			}
		}
		if len(c.peers) > 1 {
			facts.Peers = uint64(len(c.peers))
		}
		tell = append(tell, Refusal{Actor: kind.actor, Facts: facts})
		c.count, c.peers = 0, nil
		c.pause = min(2*c.pause, refusedMaxPause)
		c.next = now.Add(c.pause)
	}
	return tell, len(r.kinds) > 0
}

// Refused takes note of a request that was not allowed. It never waits.
func (e *Engine) Refused(q Refusal) {
	if tell, due := e.refusals.note(e.clock.Now(), q); due {
		e.start(func(ctx context.Context) { e.tellRefusal(ctx, tell) })
	}
	poke(e.refusals.wake)
}

// tellRefusals tells what was refused, while there is something.
func (e *Engine) tellRefusals(ctx context.Context) {
	for left := false; ; {
		var tick <-chan time.Time
		stop := func() {}
		if left {
			tick, stop = e.clock.Timer(e.clock.Now().Add(refusedPause))
		}
		select {
		case <-ctx.Done():
			stop()
			return
		case <-e.refusals.wake:
		case <-tick:
		}
		stop()
		var tell []Refusal
		tell, left = e.refusals.due(e.clock.Now())
		for _, q := range tell {
			e.tellRefusal(ctx, q)
		}
	}
}

// tellRefusal writes down a refusal: as an event where this process writes those
// of the whole instance, and in the log.
func (e *Engine) tellRefusal(ctx context.Context, q Refusal) {
	e.log.WarnContext(ctx, "request refused", "actor", q.Actor.Name, "door", q.Actor.Door, "why", q.Facts.Why,
		"method", q.Facts.Method, "route", q.Facts.Route, "role", q.Facts.Role, "peer", q.Facts.Peer, "count", q.Facts.Count)
	if e.member() {
		return
	}
	if err := e.appendInstance(ctx, q.Actor, &q.Facts, func() error { return nil }); err != nil && ctx.Err() == nil {
		e.log.ErrorContext(ctx, "refused request not recorded", "error", err)
	}
}

// refusedText tells of refused requests.
func refusedText(f *event.AccessRefused) string {
	text := "refused"
	if f.Count > 1 {
		text = fmt.Sprintf("refused %d times since %s", f.Count, time.Unix(f.Since, 0).UTC().Format(time.RFC3339))
	}
	if f.Route != "" {
		text += fmt.Sprintf(": %s %s", f.Method, f.Route)
	}
	switch f.Why {
	case event.RefusedRole:
		text += ", which wants the role " + f.Role
	case event.RefusedExpired:
		text += ", the token has expired"
	case event.RefusedUnknown:
		text += ", no known token"
	case event.RefusedLimit:
		text += ", too many requests"
	case event.RefusedUpdate:
		text += ", which loader.update of its policy does not allow"
	}
	if f.Peers > 1 {
		return text + fmt.Sprintf("; from %d addresses, most from %s", f.Peers, f.Peer)
	}
	if f.Peer != "" {
		text += "; from " + f.Peer
	}
	return text
}
