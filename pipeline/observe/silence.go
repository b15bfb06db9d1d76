package observe

import (
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
	pause time.Duration
}

// silent is the error of a server that did not answer lately.
func (o *Observer) silent(addr netip.AddrPort, now time.Time) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	s, ok := o.dead[addr]
	if !ok || !now.Before(s.until) || now.Before(s.until.Add(-longestRest)) {
		return nil
	}
	return fmt.Errorf("%w; it is asked again in %s", s.err, s.until.Sub(now).Round(time.Second))
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
	if !ok && len(o.dead) >= maxSilent {
		return
	}
	s.pause = min(max(firstPause, 2*s.pause), longestRest)
	s.err, s.until = err, now.Add(s.pause)
	o.dead[addr] = s
}
