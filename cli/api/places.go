package api

import (
	"context"
	"fmt"
	"net/http"
	"sync"
)

const (
	// maxHeavy is how many requests that read much run at a time for callers of
	// the network, maxHeavyOf how many of them for one: the others wait. Signing
	// is to have the machine, and no caller keeps it from another.
	maxHeavy   = 8
	maxHeavyOf = 2
	// maxLiveOf is how many live streams one caller may hold.
	maxLiveOf = 32
)

// heavy reports whether a route reads so much that only some of its requests run
// at a time.
func (route Route) heavy() bool {
	switch route.ID {
	case "verifyJournal", "backupJournal", "exportAudit", "verifyZone", "checkZone", "replayZone", "dumpZone", "diffVersions",
		"rollBack", "planTakeover":
		return true
	}
	return false
}

// places bounds what callers have run at a time.
type places struct {
	all chan struct{}

	mu      sync.Mutex
	callers map[string]*callerPlaces // guarded by mu; of those with a request that is counted
}

// callerPlaces are those of one caller.
type callerPlaces struct {
	heavy    chan struct{}
	live     int // guarded by places.mu
	requests int // guarded by places.mu
}

func newPlaces() *places {
	return &places{all: make(chan struct{}, maxHeavy), callers: map[string]*callerPlaces{}}
}

// take takes the place that a request of a route needs; leave gives it back.
// Whoever may open the socket runs what they want.
func (p *places) take(ctx context.Context, route Route) (leave func(), problem *Problem) {
	id, _ := IdentityOf(ctx)
	live := route.Answer.Form == FormEvents
	if id.Door == "cli" || !live && !route.heavy() {
		return func() {}, nil
	}
	c := p.enter(id.Name)
	if live {
		if !p.addLive(c, 1) {
			p.exit(id.Name, c)
			return nil, newProblem(http.StatusTooManyRequests, fmt.Sprintf("%s follows %d live streams already: end one", id.Name, maxLiveOf))
		}
		return func() {
			p.addLive(c, -1)
			p.exit(id.Name, c)
		}, nil
	}
	for i, to := range []chan struct{}{c.heavy, p.all} {
		select {
		case to <- struct{}{}:
		case <-ctx.Done():
			if i > 0 {
				<-c.heavy
			}
			p.exit(id.Name, c)
			return nil, problemOf(ctx.Err())
		}
	}
	return func() {
		<-p.all
		<-c.heavy
		p.exit(id.Name, c)
	}, nil
}

// enter counts a request of a caller, exit ends it.
func (p *places) enter(name string) *callerPlaces {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.callers[name]
	if c == nil {
		c = &callerPlaces{heavy: make(chan struct{}, maxHeavyOf)}
		p.callers[name] = c
	}
	c.requests++
	return c
}

func (p *places) exit(name string, c *callerPlaces) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.requests--; c.requests == 0 {
		delete(p.callers, name)
	}
}

// addLive counts live streams; false where there are enough.
func (p *places) addLive(c *callerPlaces, n int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.live+n > maxLiveOf {
		return false
	}
	c.live += n
	return true
}
