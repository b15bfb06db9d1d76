package pipeline

import (
	"context"

	"sluice/journal"
	"sluice/journal/audit"
	"sluice/journal/event"
)

// JournalStatus is what both streams hold, and how far the projection is.
type JournalStatus struct {
	journal.Status
	Projections []ProjectionStatus `json:"projections"`
	Zones       []ZonePosition     `json:"zones"`
	// Reserve is the room on the disk that is kept for signing.
	Reserve *ReserveStatus `json:"reserve,omitempty"`
	// Backup is the last copy of the journal; Continued says from which log
	// this one goes on.
	Backup    *BackedUp  `json:"backup,omitempty"`
	Continued *Continued `json:"continued,omitempty"`
}

// ProjectionStatus is how far a projection has read.
type ProjectionStatus struct {
	Name string `json:"name"`
	Seq  uint64 `json:"seq"`
	Lag  uint64 `json:"lag"` // events not yet folded
}

// ZonePosition is where a zone's chain of events ends, and from where on its
// instances can be rebuilt.
type ZonePosition struct {
	Zone string `json:"zone"`
	ID   string `json:"id"`
	Seq  uint64 `json:"seq"`
	N    uint64 `json:"n"`
	// OldestFrom is the sequence of the oldest instance.published that can be
	// rebuilt, OldestSerial its serial; that of zone.added, and 0, where every chunk
	// is still kept.
	OldestFrom   uint64 `json:"oldest_rebuildable"`
	OldestSerial uint32 `json:"oldest_serial,omitempty"`
	// Retention is what the policy says of it. Held is what the zone takes up in
	// BULK and Purgeable what would go of it now, in bytes; both are absent where
	// there are very many zones, see CompactQuery.DryRun.
	Retention string  `json:"retention"`
	Held      *uint64 `json:"held_bytes,omitempty"`
	Purgeable *uint64 `json:"purgeable_bytes,omitempty"`
}

// JournalStatus describes the journal and the projection.
func (e *Engine) JournalStatus(ctx context.Context) (JournalStatus, error) {
	st, err := e.journal.Status(ctx)
	if err != nil {
		return JournalStatus{}, err
	}
	e.mu.RLock()
	folded := e.folded
	out := JournalStatus{Status: st, Zones: []ZonePosition{}, Backup: e.registry.Backup, Continued: e.registry.Continued}
	e.mu.RUnlock()
	lag := uint64(0)
	if st.Events.LastSeq > folded {
		lag = st.Events.LastSeq - folded
	}
	out.Projections = []ProjectionStatus{{Name: "zones", Seq: folded, Lag: lag}}
	held := e.retentionStatus(ctx)
	for _, s := range e.states() {
		out.Zones = append(out.Zones, e.zonePosition(s, held))
	}
	if e.cfg.Reserve != nil {
		reserve := e.cfg.Reserve.status()
		out.Reserve = &reserve
	}
	return out, nil
}

// zonePosition describes one zone; held is what was read of some.
func (e *Engine) zonePosition(s State, held map[event.ZoneID]ZoneRetention) ZonePosition {
	z := ZonePosition{Zone: s.Name, ID: string(s.Zone), Seq: s.Head.Seq, N: s.Head.N, OldestFrom: s.Added.Seq}
	if s.Retained != nil {
		z.OldestFrom, z.OldestSerial = s.Retained.Oldest, s.Retained.Serial
	}
	if p, err := e.boundPolicy(s); err == nil {
		z.Retention = p.Retention().text()
	}
	if h, ok := held[s.Zone]; ok {
		z.Held, z.Purgeable = &h.Held, &h.Bytes
	}
	return z
}

// VerifyQuery says what a verification of the journal relies on.
type VerifyQuery struct {
	// Key is the public audit key; nil is this process's own, if it has one.
	Key *audit.Verifier
	// Checkpoints were kept outside: what they count must be there.
	Checkpoints []string
}

// VerifyJournal reads the whole journal and checks it.
func (e *Engine) VerifyJournal(ctx context.Context, q VerifyQuery, progress func(Progress)) (journal.VerifyReport, error) {
	key := q.Key
	if key == nil && e.cfg.Sealing.Key != nil {
		key = e.cfg.Sealing.Key.Verifier()
	}
	return journal.Verify(ctx, e.cfg.Journal, journal.VerifyOptions{
		Chunks: true, Key: key, Outside: q.Checkpoints,
		Progress: func(done, total uint64) {
			if progress != nil {
				progress(Progress{Stage: "verify", Done: int64(done), Total: int64(total)})
			}
		},
	})
}
