package journal

import (
	"strings"
	"sync"
	"time"
)

// loneAfter is for how long a server may leave requests unanswered before
// another one of the cluster is tried: a little more than a cluster takes to
// choose a leader.
const loneAfter = 6 * time.Second

// contact notices a server that is reached but is cut off from the others of
// its cluster: it keeps the connection, and answers nothing that needs them.
type contact struct {
	mu    sync.Mutex
	since time.Time // guarded by mu: of the first request without an answer
}

// answered notes an answer. Only that to a write, and every process writes that
// it lives, needs most of the cluster: a server says much else by itself.
func (c *contact) answered(subject string) {
	if !strings.HasPrefix(subject, "ev.") && !strings.HasPrefix(subject, "bulk.") && !strings.HasPrefix(subject, "$KV.") {
		return
	}
	c.mu.Lock()
	c.since = time.Time{}
	c.mu.Unlock()
}

// unanswered notes a request without an answer and reports whether it is time
// to try another server.
func (c *contact) unanswered(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.since.IsZero():
		c.since = now
	case now.Sub(c.since) >= loneAfter:
		c.since = time.Time{} // the next one gets as long
		return true
	}
	return false
}

// leaveServer goes over to another server of the cluster, where one is known.
func (j *NATS) leaveServer() {
	s, err := j.session()
	if err != nil || !s.nc.IsConnected() || len(s.nc.Servers()) < 2 {
		return
	}
	j.log.Warn("journal server answers nothing: trying another one", "url", s.nc.ConnectedUrlRedacted())
	if err := s.nc.ForceReconnect(); err != nil {
		j.log.Warn("journal server was not left", "err", err)
	}
}
