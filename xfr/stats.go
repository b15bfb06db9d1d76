package xfr

import (
	"sync"
	"sync/atomic"
	"time"
)

// Stats is what a server has done since it was made.
type Stats struct {
	Requests          uint64 // well or badly formed, over UDP and TCP
	Dropped           uint64 // messages without answer: responses, no full header
	Answers           uint64 // answers of one message with records
	Transfers         uint64 // AXFR and IXFR streams sent in full
	BrokenTransfers   uint64 // streams that broke off
	Refused           uint64 // answers without records
	Notifies          uint64 // allowed ones
	Faults            uint64 // refusals and broken streams through our own fault
	RefusedConns      uint64 // TCP connections above a limit
	TransfersUnderWay int
	OpenConns         int
}

type counters struct {
	requests, dropped, answers, transfers, brokenTransfers, refused, notifies, faults, refusedConns atomic.Uint64
}

// Stats reads the counters.
func (s *Server) Stats() Stats {
	return Stats{
		Requests:          s.stats.requests.Load(),
		Dropped:           s.stats.dropped.Load(),
		Answers:           s.stats.answers.Load(),
		Transfers:         s.stats.transfers.Load(),
		BrokenTransfers:   s.stats.brokenTransfers.Load(),
		Refused:           s.stats.refused.Load(),
		Notifies:          s.stats.notifies.Load(),
		Faults:            s.stats.faults.Load(),
		RefusedConns:      s.stats.refusedConns.Load(),
		TransfersUnderWay: len(s.transfers),
		OpenConns:         s.conns.len(),
	}
}

// throttle lets one log line a second pass and counts the others.
type throttle struct {
	mu   sync.Mutex
	last time.Time // guarded by mu
	held int       // guarded by mu: lines left out since last
}

// allow reports whether a line may be written now, and how many were left out
// since the one before.
func (t *throttle) allow(now time.Time) (held int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Sub(t.last) < time.Second {
		t.held++
		return 0, false
	}
	held, t.held, t.last = t.held, 0, now
	return held, true
}
