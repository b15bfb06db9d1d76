package api

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// maxLimiters bounds how many tokens or addresses are told apart; those beyond
// share one limit.
const maxLimiters = 4096

// limiters bounds how often something happens, by a key.
type limiters struct {
	mu     sync.Mutex
	each   rate.Limit               // guarded by mu
	burst  int                      // guarded by mu
	known  map[string]*rate.Limiter // guarded by mu
	others *rate.Limiter            // guarded by mu; of those that have no place in known
	swept  time.Time                // guarded by mu
}

// newLimiters allows each key so many a second, and burst at once.
func newLimiters(each float64, burst int) *limiters {
	return &limiters{
		each: rate.Limit(each), burst: burst, known: map[string]*rate.Limiter{}, others: rate.NewLimiter(rate.Limit(each), burst),
	}
}

// set replaces the limits, of those that are known already, too.
func (l *limiters) set(each float64, burst int) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.each, l.burst = rate.Limit(each), burst
	for _, one := range l.known {
		one.SetLimitAt(now, l.each)
		one.SetBurstAt(now, burst)
	}
	l.others.SetLimitAt(now, l.each)
	l.others.SetBurstAt(now, burst)
}

// allow counts one more, and reports whether it is within the limit; where it is
// not, after which time one will be.
func (l *limiters) allow(key string) (wait time.Duration, ok bool) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.of(key, now).ReserveN(now, 1)
	if wait = r.DelayFrom(now); !r.OK() || wait > 0 {
		r.CancelAt(now)
		return wait, false
	}
	return 0, true
}

// of is the limiter of a key. The caller holds mu.
func (l *limiters) of(key string, now time.Time) *rate.Limiter {
	if known := l.known[key]; known != nil {
		return known
	}
	if len(l.known) >= maxLimiters {
		if now.Sub(l.swept) < time.Second {
			return l.others
		}
		l.swept = now
		for k, one := range l.known {
			if one.TokensAt(now) >= float64(l.burst) {
				delete(l.known, k) // a new one is the same
			}
		}
		if len(l.known) >= maxLimiters {
			return l.others
		}
	}
	one := rate.NewLimiter(l.each, l.burst)
	l.known[key] = one
	return one
}
