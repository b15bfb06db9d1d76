package api

import (
	"context"
	"fmt"
	"net/http"
	"sync"
)

// maxLiveOf is how many live streams one caller may hold.
const maxLiveOf = 32

// load is what a request costs beside its answer.
type load int

const (
	light   load = iota
	reading      // the events of a zone
	heavy        // a zone's contents, or the journal
)

// room is how many requests of a load run at a time for callers of the network,
// and how many of them for one: the others wait. Signing is to have the machine,
// and no caller keeps it from another.
func (l load) room() (all, each int) {
	if l == reading {
		return 16, 4
	}
	return 8, 2
}

// load is what a request of the route costs.
func (route Route) load() load {
	switch route.ID {
	case "verifyJournal", "backupJournal", "exportAudit", "verifyZone", "checkZone", "replayZone", "dumpZone", "diffVersions",
		"rollBack", "planTakeover":
		return heavy
	case "getHistory", "planKeys":
		return reading
	}
	return light
}

// places bounds what callers have run at a time.
type places struct {
	all [heavy + 1]chan struct{}

	mu      sync.Mutex
	callers map[string]*callerPlaces // guarded by mu; of those with a request that is counted
}

// callerPlaces are those of one caller.
type callerPlaces struct {
	own      [heavy + 1]chan struct{}
	live     int // guarded by places.mu
	requests int // guarded by places.mu
}

func newPlaces() *places {
	p := &places{callers: map[string]*callerPlaces{}}
	for l := range p.all {
		all, _ := load(l).room()
		p.all[l] = make(chan struct{}, all)
	}
	return p
}

// take takes the place that a request of a route needs; leave gives it back.
// Whoever may open the socket runs what they want.
func (p *places) take(ctx context.Context, route Route) (leave func(), problem *Problem) {
	id, _ := IdentityOf(ctx)
	live, cost := route.Answer.Form == FormEvents, route.load()
	if id.Door == "cli" || !live && cost == light {
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
	for i, to := range []chan struct{}{c.own[cost], p.all[cost]} {
		select {
		case to <- struct{}{}:
		case <-ctx.Done():
			if i > 0 {
				<-c.own[cost]
			}
			p.exit(id.Name, c)
			return nil, problemOf(ctx.Err())
		}
	}
	return func() {
		<-p.all[cost]
		<-c.own[cost]
		p.exit(id.Name, c)
	}, nil
}

// enter counts a request of a caller, exit ends it.
func (p *places) enter(name string) *callerPlaces {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.callers[name]
	if c == nil {
		c = &callerPlaces{}
		for l := range c.own {
			_, each := load(l).room()
			c.own[l] = make(chan struct{}, each)
		}
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
