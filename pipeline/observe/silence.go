package observe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Bounds of what is remembered of servers that do not answer: many zones may
// share one, and none is to wait for it again and again.
const (
	maxSilent   = 4096
	firstPause  = 30 * time.Second
	longestRest = 10 * time.Minute
)

// silence is a server that did not answer.
type silence struct {
	err   error
	until time.Time // it is not asked again before
	tried time.Time // when one began to ask it after that
	pause time.Duration
}

// visits are those to one server.
type visits struct {
	places chan struct{}
	users  int // that have a place or wait for one
}

// enter waits for a place at a server: many zones may share it, and while it
// lets time run out it takes no more than these from all others.
func (o *Observer) enter(ctx context.Context, addr netip.AddrPort) (leave func(), err error) {
	o.mu.Lock()
	v := o.visits[addr]
	if v == nil {
		v = &visits{places: make(chan struct{}, max(1, o.cfg.Servers/4))}
		o.visits[addr] = v
	}
	v.users++
	o.mu.Unlock()
	gone := func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if v.users--; v.users == 0 {
			delete(o.visits, addr)
		}
	}
	if err := take(ctx, v.places); err != nil {
		gone()
		return nil, err
	}
	return func() {
		<-v.places
		gone()
	}, nil
}

// silent is the error of a server that did not answer lately. Once its pause is
// over one visit tries it, and the others go on passing it over.
func (o *Observer) silent(addr netip.AddrPort, now time.Time) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	s, ok := o.dead[addr]
	switch {
	case !ok || now.Before(s.until.Add(-longestRest)):
		return nil
	case now.Before(s.until):
		return fmt.Errorf("%w; it is asked again in %s", s.err, s.until.Sub(now).Round(time.Second))
	case now.Before(s.tried.Add(firstPause)):
		return fmt.Errorf("%w; it is being asked again", s.err)
	}
	s.tried = now
	o.dead[addr] = s
	return nil
}

// heard remembers whether a server answered. One that does, however wrongly,
// costs nobody time.
func (o *Observer) heard(addr netip.AddrPort, err error, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err == nil || !errors.Is(err, errTimeout) {
		delete(o.dead, addr)
		return
	}
	s, ok := o.dead[addr]
	if !ok && len(o.dead) >= maxSilent || ok && now.Before(s.until) && !now.Before(s.until.Add(-longestRest)) {
		return // others that asked at the same time have told it
	}
	s.pause = min(max(firstPause, 2*s.pause), longestRest)
	s.err, s.until = err, now.Add(s.pause)
	o.dead[addr] = s
}
