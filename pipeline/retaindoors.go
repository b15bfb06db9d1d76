package pipeline

import (
	"context"
	"fmt"
	"time"

	"sluice/journal"
	"sluice/journal/event"
)

const (
	// retainEvery is how often it is looked whether old versions can go, and
	// retainSoon where BULK fills up.
	retainEvery = 6 * time.Hour
	retainSoon  = 10 * time.Minute
	// retainShare and retainLeast are what must go at least, so that the proof is
	// worth its work: a share of what the zone holds, one in so many bytes, or so
	// many bytes.
	retainShare = 8
	retainLeast = 64 << 20
	// maxLooked bounds the zones whose holdings are read for a status.
	maxLooked = 64
)

// retainer is what retention knows in this process.
type retainer struct {
	// looked is what was published when a zone was looked at last, and finished
	// says that no earlier purge is left unfinished.
	looked   map[event.ZoneID]uint64
	finished map[event.ZoneID]bool
}

// CompactQuery says what Compact is to do.
type CompactQuery struct {
	Zones []string `json:"zones,omitempty"` // names; all where empty
	// DryRun tells what would go, and changes nothing.
	DryRun bool `json:"dry_run,omitempty"`
}

// CompactReport is what Compact did, or would do.
type CompactReport struct {
	DryRun  bool            `json:"dry_run"`
	Archive string          `json:"archive,omitempty"` // the folder; empty where there is none
	Zones   []ZoneRetention `json:"zones"`
	Held    uint64          `json:"held"`   // bytes in BULK before
	Bytes   uint64          `json:"bytes"`  // that go
	Failed  int             `json:"failed"` // zones that were left with an error
}

// Compact applies retention now. A zone that cannot be compacted is told of in
// the report and keeps all. Errors: ErrNotFound (zone), ErrState.
func (e *Engine) Compact(ctx context.Context, actor event.Actor, q CompactQuery, progress func(Progress)) (CompactReport, error) {
	if progress == nil {
		progress = func(Progress) {}
	}
	report := CompactReport{DryRun: q.DryRun, Zones: []ZoneRetention{}}
	if e.cfg.Archive != nil {
		report.Archive = e.cfg.Archive.Dir()
	}
	switch {
	case !e.running():
		return report, errorState("the journal is still being read")
	case !e.keeper():
		return report, errorState("retention is the main process's work, this is worker %s", e.worker)
	}
	var all []*runner
	for _, name := range q.Zones {
		r, err := e.find(name)
		if err != nil {
			return report, err
		}
		all = append(all, r)
	}
	if len(q.Zones) == 0 {
		for _, s := range e.states() {
			if r, err := e.find(s.Name); err == nil {
				all = append(all, r)
			}
		}
	}
	for _, r := range all {
		z, err := e.retainZone(ctx, actor, r, !q.DryRun, true, progress)
		if ctx.Err() != nil {
			return report, ctx.Err()
		}
		if err != nil {
			z.Error = oneLine(err.Error())
			report.Failed++
		} else {
			report.Bytes += z.Bytes
		}
		report.Held += z.Held
		report.Zones = append(report.Zones, z)
	}
	return report, nil
}

// retainZone plans for one zone, and with act does it: without all, where it is
// worth the work.
func (e *Engine) retainZone(ctx context.Context, actor event.Actor, r *runner, act, all bool, progress func(Progress)) (z ZoneRetention, err error) {
	if act {
		e.retention.Lock()
		defer e.retention.Unlock()
	}
	t, err := e.prepareRetention(ctx, r)
	if err != nil {
		s := r.snapshot()
		return ZoneRetention{Zone: s.Name, ID: string(s.Zone)}, err
	}
	z = t.describe()
	if !act {
		return z, nil
	}
	if t.p.Days > 0 && !e.clockTrusted() {
		return z, errorState("the clock is not trusted: what is old cannot be told; see: sluice clock accept")
	}
	if !e.retained.finished[t.s.Zone] {
		if err := t.finishPurge(ctx); err != nil {
			return z, err
		}
		e.retained.finished[t.s.Zone] = true
	}
	switch {
	case len(t.plan.purge) == 0:
		z.Done = true
		return z, nil
	case !all && t.plan.raw < retainLeast && t.plan.raw < t.plan.held/retainShare:
		return z, nil
	}
	// Where it ends early, the next run looks again for what is left.
	e.retained.finished[t.s.Zone] = false
	if err := t.run(ctx, actor, progress); err != nil {
		return z, err
	}
	e.retained.finished[t.s.Zone], z.Done = true, true
	e.log.InfoContext(ctx, "old versions purged", "zone", z.Zone, "events", z.Instances, "chunks", z.Chunks, "bytes", z.Bytes,
		"oldest_serial", z.OldestSerial, "archived", z.Archived)
	return z, nil
}

// clockTrusted reports whether the clock is trusted, now and as the journal says.
func (e *Engine) clockTrusted() bool {
	e.mu.RLock()
	recorded := e.registry.Clock
	e.mu.RUnlock()
	return recorded == nil && e.watch.check() == nil
}

// retains applies retention from time to time until ctx ends.
func (e *Engine) retains(ctx context.Context) {
	wait := retainSoon // let a start be over first
	for {
		due, stop := e.clock.Timer(e.clock.Now().Add(wait))
		select {
		case <-due:
		case <-e.retainNow:
		case <-ctx.Done():
		}
		stop()
		if ctx.Err() != nil {
			return
		}
		wait = retainEvery
		fills := e.filling(ctx) != nil
		if fills {
			wait = retainSoon
		}
		for _, s := range e.states() {
			e.retainSometimes(ctx, s, fills)
		}
	}
}

// retainSometimes applies retention to a zone that has published something since
// it was looked at last.
func (e *Engine) retainSometimes(ctx context.Context, s State, fills bool) {
	p, err := e.boundPolicy(s)
	if err != nil || !p.Retention().purges() || s.Published == nil || s.Maintenance != nil || ctx.Err() != nil {
		return
	}
	e.retention.Lock()
	looked := !fills && e.retained.looked[s.Zone] == s.Published.Seq
	e.retained.looked[s.Zone] = s.Published.Seq
	e.retention.Unlock()
	r, err := e.find(s.Name)
	if looked || err != nil {
		return
	}
	_, err = e.retainZone(ctx, event.Actor{Name: event.Program.Name, Door: "timer"}, r, true, fills, func(Progress) {})
	if err != nil && ctx.Err() == nil {
		e.log.WarnContext(ctx, "old versions not purged", "zone", s.Name, "error", err, "hint", "all of them are kept; see: sluice journal compact --dry-run")
	}
}

// retentionStatus is what zones hold and what would go, for a status; nil where
// there are too many to read.
func (e *Engine) retentionStatus(ctx context.Context) map[event.ZoneID]ZoneRetention {
	all := e.states()
	if len(all) > maxLooked || !e.running() || !e.keeper() {
		return nil
	}
	out := map[event.ZoneID]ZoneRetention{}
	for _, s := range all {
		if z, err := e.heldBy(ctx, s); err == nil {
			out[s.Zone] = z
		}
	}
	return out
}

// heldBy is what a zone holds and what would go. Where all stays, its events need
// not be read.
func (e *Engine) heldBy(ctx context.Context, s State) (z ZoneRetention, err error) {
	purger, ok := e.cfg.Journal.(journal.Purger)
	if p, perr := e.boundPolicy(s); perr == nil && ok && !p.Retention().purges() {
		stored, err := purger.StoredBytes(ctx, s.Zone)
		for _, n := range stored {
			z.Held += n
		}
		return z, err
	}
	r, err := e.find(s.Name)
	if err != nil {
		return z, err
	}
	return e.retainZone(ctx, event.Program, r, false, false, nil)
}

// describeRetention tells an event of retention as a sentence; empty for
// others.
func describeRetention(ev event.Event) string {
	switch f := ev.Facts.(type) {
	case *event.SnapshotTaken:
		text := fmt.Sprintf("snapshot of serial %d taken and proved", f.Serial)
		if f.Loaded != nil {
			text += fmt.Sprintf(", contents of %d items", f.Loaded.Items)
		}
		if f.Signed != nil {
			text += fmt.Sprintf(", signatures and what else was made, %d items", f.Signed.Items)
		}
		return text
	case *event.BulkPurged:
		text := fmt.Sprintf("contents of %d old instances purged, %d bytes; the oldest version held is serial %d", len(f.Instances), f.Bytes, f.Serial)
		if f.Archived {
			text += "; they are in the archive"
		}
		return text
	}
	return ""
}
