package pipeline

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"time"

	"sluice/journal"
)

// errLowBulk reports that new contents would take the room in BULK that signing
// needs. It is a kind of journal.ErrNoSpace.
var errLowBulk = fmt.Errorf("%w: BULK is nearly at its limit", journal.ErrNoSpace)

const (
	// warnFill and alarmFill are the shares of a stream's limit, in percent, from
	// which on status tells of it.
	warnFill  = 70
	alarmFill = 85
	// lookFillEvery is how often the streams are looked at, and fillAge how old
	// what was seen may be while contents are written.
	lookFillEvery = 5 * time.Second
	fillAge       = 250 * time.Millisecond
	// bulkShare is the share of BULK's limit that is kept for signing at most: one
	// in so many bytes.
	bulkShare = 4
	// inFlight is what a writer of chunks has sent and not seen stored.
	inFlight = 16 << 20
	fillHint = "let retention free some: sluice journal compact, retention.* in the policies; or raise events-max-size, bulk-max-size in the config"
)

// streamFill is how full the streams were when they were looked at last.
type streamFill struct {
	mu     sync.Mutex
	at     time.Time      // guarded by mu; on the machine's clock
	status journal.Status // guarded by mu
	told   map[string]int // guarded by mu; the level of each stream that was told
}

// look reads how full the streams are, unless that was done a short while ago.
func (f *streamFill) look(ctx context.Context, j journal.Journal, age time.Duration) (journal.Status, error) {
	f.mu.Lock()
	at, st := f.at, f.status
	f.mu.Unlock()
	now := machineTime()
	if !at.IsZero() && now.Sub(at) < age {
		return st, nil
	}
	st, err := j.Status(ctx)
	if err != nil {
		return st, err
	}
	f.mu.Lock()
	f.at, f.status = now, st
	f.mu.Unlock()
	return st, nil
}

// fillOf is how full a stream is, in percent of its limit; 0 without one.
func fillOf(s journal.StreamStatus) int {
	if s.MaxBytes <= 0 {
		return 0
	}
	return int(min(100, s.Bytes*100/uint64(s.MaxBytes)))
}

// fillNotices tells of streams that fill up.
func fillNotices(st journal.Status) []Notice {
	var all []Notice
	for _, s := range []struct {
		name string
		journal.StreamStatus
	}{{"EVENTS", st.Events}, {"BULK", st.Bulk}} {
		n := Notice{
			Severity: severityWarning, Code: NoticeJournalFilling, Hint: fillHint,
			Text: fmt.Sprintf("%s is %d %% full: %.1f of %.1f MiB", s.name, fillOf(s.StreamStatus), mib(s.Bytes), mib(uint64(max(s.MaxBytes, 0)))),
		}
		if s.name == "EVENTS" {
			n.Hint = "events are never purged: raise events-max-size in the config; at its limit nothing is signed or published any more"
		}
		switch fill := fillOf(s.StreamStatus); {
		case fill >= alarmFill:
			n.Severity = severityAlarm
		case fill < warnFill:
			continue
		}
		all = append(all, n)
	}
	return all
}

// fillNotices tells of streams that filled up when they were looked at last.
func (e *Engine) fillNotices() []Notice {
	e.fill.mu.Lock()
	defer e.fill.mu.Unlock()
	return fillNotices(e.fill.status)
}

// filling reports, as an error that says so, that BULK is so full that retention
// must not wait.
func (e *Engine) filling(ctx context.Context) error {
	st, err := e.fill.look(ctx, e.cfg.Journal, lookFillEvery)
	if err != nil || fillOf(st.Bulk) < warnFill {
		return nil //nolint:nilerr // a journal that does not answer is not full
	}
	return fmt.Errorf("BULK is %d %% full", fillOf(st.Bulk))
}

// watchFill tells the log of a stream that fills up, once a level, and lets
// retention look at once.
func (e *Engine) watchFill(ctx context.Context) {
	ctx, done := context.WithTimeout(ctx, time.Second)
	defer done()
	st, err := e.fill.look(ctx, e.cfg.Journal, lookFillEvery)
	if err != nil {
		return // whoever needs it is told
	}
	e.fill.mu.Lock()
	was := e.fill.told
	e.fill.told = map[string]int{"EVENTS": fillLevel(st.Events), "BULK": fillLevel(st.Bulk)}
	now := e.fill.told
	e.fill.mu.Unlock()
	for _, name := range []string{"EVENTS", "BULK"} {
		if now[name] <= was[name] {
			continue
		}
		if name == "BULK" {
			poke(e.retainNow)
		}
		for _, n := range fillNotices(st) {
			if len(n.Text) > len(name) && n.Text[:len(name)] == name {
				e.log.WarnContext(ctx, "stream of the journal fills up", "stream", name, "what", n.Text, "hint", n.Hint)
			}
		}
	}
}

// fillLevel is 0, or 1 from the warning on, or 2 from the alarm on.
func fillLevel(s journal.StreamStatus) int {
	switch fill := fillOf(s); {
	case fill >= alarmFill:
		return 2
	case fill >= warnFill:
		return 1
	}
	return 0
}

// bulkReserve is what new contents leave of BULK's limit: the signing of the zone
// that needs most, as a whole, once more.
func bulkReserve(zones iter.Seq[State], limit int64) uint64 {
	most := uint64(0)
	for s := range zones {
		most = max(most, signNeedOf(s)/signCopies)
	}
	return min(most+inFlight, uint64(max(limit, 0))/bulkShare)
}

// bulkRoom reports errLowBulk where new contents would take up what is kept for
// signing.
func (e *Engine) bulkRoom(ctx context.Context) error {
	st, err := e.fill.look(ctx, e.cfg.Journal, fillAge)
	if err != nil || st.Bulk.MaxBytes <= 0 {
		return nil //nolint:nilerr // the write itself tells
	}
	reserve := bulkReserve(e.eachState(), st.Bulk.MaxBytes)
	if st.Bulk.Bytes+reserve < uint64(st.Bulk.MaxBytes) {
		return nil
	}
	return fmt.Errorf("%w: it holds %.1f of %.1f MiB, and %.1f MiB are kept for signing; %s",
		errLowBulk, mib(st.Bulk.Bytes), mib(uint64(st.Bulk.MaxBytes)), mib(reserve), fillHint)
}
