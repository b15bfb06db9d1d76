package pipeline

import (
	"sync"
	"time"

	"sluice/journal/event"
)

const (
	// askedPause is for how long the same request of the same caller is not
	// recorded again: a program that asks every second would make the journal,
	// which forgets nothing, grow by tens of megabytes a day.
	askedPause = 10 * time.Minute
	// maxAsked bounds the requests that are remembered; where there are more,
	// each further one is recorded.
	maxAsked = 4096
)

// askedFor is a request of somebody.
type askedFor struct {
	actor         event.Actor
	zone, request string
}

// asked remembers what was recorded lately. Its zero value is ready.
type asked struct {
	mu   sync.Mutex
	last map[askedFor]time.Time // guarded by mu
}

// lately reports whether the same was recorded a short while ago.
func (a *asked) lately(now time.Time, q askedFor) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	at, ok := a.last[q]
	return ok && !now.Before(at) && now.Sub(at) < askedPause
}

// recorded takes note of what was recorded.
func (a *asked) recorded(now time.Time, q askedFor) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.last == nil {
		a.last = map[askedFor]time.Time{}
	}
	if len(a.last) >= maxAsked {
		for k, at := range a.last {
			if now.Before(at) || now.Sub(at) >= askedPause {
				delete(a.last, k)
			}
		}
	}
	if _, known := a.last[q]; known || len(a.last) < maxAsked {
		a.last[q] = now
	}
}
