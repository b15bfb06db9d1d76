package journal

import (
	"sync"

	"sluice/journal/event"
)

// hub wakes followers when an event is stored. A wake is a hint: a follower
// then reads what is there.
type hub struct {
	mu      sync.Mutex
	waiting map[event.ZoneID]map[chan struct{}]struct{} // guarded by mu
}

func newHub() *hub {
	return &hub{waiting: make(map[event.ZoneID]map[chan struct{}]struct{})}
}

// add registers a follower of zone, "" for all.
func (h *hub) add(zone event.ZoneID) chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := make(chan struct{}, 1)
	if h.waiting[zone] == nil {
		h.waiting[zone] = make(map[chan struct{}]struct{})
	}
	h.waiting[zone][c] = struct{}{}
	return c
}

func (h *hub) remove(zone event.ZoneID, c chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.waiting[zone], c)
	if len(h.waiting[zone]) == 0 {
		delete(h.waiting, zone)
	}
}

func (h *hub) wake(zone event.ZoneID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	signal(h.waiting[zone])
	signal(h.waiting[""])
}

func (h *hub) wakeAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, cs := range h.waiting {
		signal(cs)
	}
}

func signal(cs map[chan struct{}]struct{}) {
	for c := range cs {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}
