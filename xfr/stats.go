package xfr

import (
	"sync"
	"sync/atomic"
	"time"
)

// Stats is what a server has done since it was made.
type Stats struct {
	AXFR, IXFR        Sent   // transfers out; an IXFR that was answered by the whole zone is an AXFR
	UpdatesRefused    uint64 // UPDATEs without a signature
	NotifiesRefused   uint64 // NOTIFYs that were not allowed, or failed through our own fault
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

// Sent is what a server sent by one form of transfer, over TCP.
type Sent struct {
	Whole, Broken uint64 // streams sent in full, and that broke off
	Bytes         uint64 // of the messages of both
}

// sent gathers a Sent.
type sent struct{ whole, broken, bytes atomic.Uint64 }

func (s *sent) read() Sent {
	return Sent{Whole: s.whole.Load(), Broken: s.broken.Load(), Bytes: s.bytes.Load()}
}

// ClientStats is what a client has done since it was made.
type ClientStats struct {
	AXFR, IXFR, UpToDate Taken // transfers in, by what the server sent
	// Failed is transfers of which no answer with records came.
	Failed uint64
	// Asked is questions for an SOA that were answered, AskedFailed the others.
	Asked, AskedFailed uint64
	// Told is NOTIFYs that were acknowledged; Refused those that were answered
	// otherwise, Silent those that were not.
	Told, Refused, Silent uint64
}

// Taken is what a client took by one form of transfer.
type Taken struct {
	Whole, Broken uint64 // transfers that ended well, and others
	Bytes         uint64 // of the messages of both
}

type clientCounters struct {
	axfr, ixfr, upToDate, none                sent
	asked, askedFailed, told, refused, silent atomic.Uint64
}

// Stats reads the counters.
func (c *Client) Stats() ClientStats {
	n := &c.stats
	return ClientStats{
		AXFR: Taken(n.axfr.read()), IXFR: Taken(n.ixfr.read()), UpToDate: Taken(n.upToDate.read()), Failed: n.none.broken.Load(),
		Asked: n.asked.Load(), AskedFailed: n.askedFailed.Load(),
		Told: n.told.Load(), Refused: n.refused.Load(), Silent: n.silent.Load(),
	}
}

// took counts a transfer that ended. One that this process broke off does not
// count.
func (n *clientCounters) took(r TransferResult, err error, brokeOff bool) {
	at := &n.none
	switch r.Kind {
	case AXFR:
		at = &n.axfr
	case IXFR:
		at = &n.ixfr
	case UpToDate:
		at = &n.upToDate
	}
	at.bytes.Add(uint64(max(r.Bytes, 0)))
	switch {
	case err == nil:
		at.whole.Add(1)
	case !brokeOff:
		at.broken.Add(1)
	}
}

type counters struct {
	axfr, ixfr      sent
	notifiesRefused atomic.Uint64
	updatesRefused  atomic.Uint64

	requests, dropped, answers, transfers, brokenTransfers, refused, notifies, faults, refusedConns atomic.Uint64
}

// Stats reads the counters.
func (s *Server) Stats() Stats {
	return Stats{
		AXFR: s.stats.axfr.read(), IXFR: s.stats.ixfr.read(), NotifiesRefused: s.stats.notifiesRefused.Load(), UpdatesRefused: s.stats.updatesRefused.Load(),
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
