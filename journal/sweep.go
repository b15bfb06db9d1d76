package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"sluice/journal/event"
)

const (
	// SweepGrace is how old a chunk must be before it counts as an orphan.
	SweepGrace = time.Hour
	// maxSwept bounds what one sweep removes; the next one goes on.
	maxSwept = 100_000
)

// SweepReport is what a sweep removed.
type SweepReport struct {
	Chunks  uint64         // removed
	Bytes   uint64         // as stored
	Zones   []event.ZoneID // that lost chunks, sorted
	Skipped []event.ZoneID // with orphans, but busy: left for the next sweep
}

// SweepOrphans removes chunks older than grace, judged at now, that no
// manifest names. Each zone is told first by bulk.swept, so that a command
// still about to commit such a chunk conflicts and sends it again. The first
// sweep reads all events, later ones only what is new. A member of a journal
// elsewhere leaves it to the main process.
func (j *NATS) SweepOrphans(ctx context.Context, grace time.Duration, now time.Time) (SweepReport, error) {
	j.sweeping.Lock()
	defer j.sweeping.Unlock()
	var r SweepReport
	if j.cfg.Remote.Member {
		return r, nil
	}
	if err := j.learnNamed(ctx); err != nil {
		return r, fmt.Errorf("sweep chunks: %w", err)
	}
	orphans, err := j.listOrphans(ctx, now.Add(-grace))
	if err == nil && len(orphans) > 0 {
		err = j.keepMisnamed(ctx, orphans)
	}
	if err != nil {
		return r, fmt.Errorf("sweep chunks: %w", err)
	}
	for _, zone := range slices.Sorted(maps.Keys(orphans)) {
		if err := j.sweepZone(ctx, zone, orphans[zone], now, &r); err != nil {
			return r, fmt.Errorf("sweep chunks of zone %q: %w", zone, err)
		}
	}
	return r, nil
}

// sweeper is what the sweeps have learned from the events so far.
type sweeper struct {
	next   uint64 // sequence to read from
	heads  map[event.ZoneID]Head
	named  SeqSet // sequences in BULK that manifests name
	purged SeqSet // events whose chunks retention has purged
	// unread are manifests whose lists are missing, by event: purged, or damaged.
	unread map[uint64]event.Manifest
}

// learnNamed reads the events since the last sweep.
func (j *NATS) learnNamed(ctx context.Context) error {
	s := &j.swept
	if s.named == nil {
		*s = sweeper{next: 1, heads: make(map[event.ZoneID]Head), named: make(SeqSet), purged: make(SeqSet), unread: make(map[uint64]event.Manifest)}
	}
	name := func(c event.Chunk) error { //nolint:unparam // what EachChunk calls may fail
		s.named.Add(c.Seq)
		return nil
	}
	err := j.Read(ctx, "", s.next, 0, func(r Record) error {
		for _, m := range event.Manifests(r.Event.Facts) {
			err := EachChunk(ctx, j, m, name)
			if errors.Is(err, ErrNoChunk) {
				s.unread[r.Seq], err = m, nil
			}
			if err != nil {
				return err
			}
		}
		if f, ok := r.Event.Facts.(*event.BulkPurged); ok {
			for _, seq := range f.Instances {
				s.purged.Add(seq)
				delete(s.unread, seq)
			}
		}
		s.heads[r.Event.Zone], s.next = r.Head(), r.Seq+1
		return nil
	})
	if err != nil {
		return err
	}
	// What a damaged list names cannot be told from orphans.
	for seq, m := range s.unread {
		if err := EachChunk(ctx, j, m, name); err != nil {
			return fmt.Errorf("event %d: %w", seq, err)
		}
		delete(s.unread, seq)
	}
	return nil
}

// orphan is a chunk that no manifest names.
type orphan struct {
	seq, bytes uint64
	subject    string
}

// listOrphans reads which chunks stored before a time no manifest names, by
// zone.
func (j *NATS) listOrphans(ctx context.Context, before time.Time) (map[event.ZoneID][]orphan, error) {
	orphans, found := make(map[event.ZoneID][]orphan), 0
	err := j.eachHeader(ctx, "bulk.>", func(m jetstream.Msg, meta *jetstream.MsgMetadata) bool {
		seq := meta.Sequence.Stream
		if !meta.Timestamp.Before(before) {
			return false
		}
		if !j.swept.named.Has(seq) && !j.restored.holds(seq) {
			found++
			zone, _, _ := strings.Cut(strings.TrimPrefix(m.Subject(), "bulk."), ".")
			orphans[event.ZoneID(zone)] = append(orphans[event.ZoneID(zone)], orphan{seq, messageSize(m), m.Subject()})
		}
		return found < maxSwept
	})
	if err != nil {
		return nil, err
	}
	return orphans, nil
}

// keepMisnamed drops orphans of commands whose manifests name sequences that
// hold something else here: an orphan may then be the chunk that is meant.
func (j *NATS) keepMisnamed(ctx context.Context, orphans map[event.ZoneID][]orphan) error {
	subjects, misnamed := make(map[string]bool), make(map[string]bool)
	for _, os := range orphans {
		for _, o := range os {
			subjects[o.subject] = true
		}
	}
	check := func(m event.Manifest) error {
		err := EachChunk(ctx, j, m, func(c event.Chunk) error {
			misnamed[m.Subject] = misnamed[m.Subject] || !j.stands(ctx, m.Subject, c)
			return nil
		})
		if errors.Is(err, ErrNoChunk) {
			misnamed[m.Subject], err = true, nil
		}
		return err
	}
	err := j.Read(ctx, "", 1, 0, func(r Record) error {
		for _, m := range event.Manifests(r.Event.Facts) {
			if subjects[m.Subject] && !j.swept.purged.Has(r.Seq) {
				if err := check(m); err != nil {
					return err
				}
			}
		}
		return nil
	})
	for zone, os := range orphans {
		orphans[zone] = slices.DeleteFunc(os, func(o orphan) bool { return misnamed[o.subject] })
	}
	return err
}

// sweepZone tells the zone and then removes its orphans.
func (j *NATS) sweepZone(ctx context.Context, zone event.ZoneID, orphans []orphan, now time.Time, r *SweepReport) error {
	if len(orphans) == 0 {
		return nil
	}
	facts := event.BulkSwept{Chunks: uint64(len(orphans)), Until: orphans[len(orphans)-1].seq}
	for _, o := range orphans {
		facts.Bytes += o.bytes
	}
	// A zone without events has no command that could commit a chunk.
	if head := j.swept.heads[zone]; head.Seq != 0 {
		// Commit: from here on whoever was about to name one of these chunks
		// conflicts. The head is that of the reading: a manifest appended
		// since then makes this conflict instead.
		_, err := j.Append(ctx, zone, head, event.New(now, zone, event.Actor{Name: event.Program.Name, Door: "timer"}, &facts))
		if errors.Is(err, ErrConflict) {
			r.Skipped = append(r.Skipped, zone)
			return nil
		}
		if err != nil {
			return err
		}
	}
	for _, o := range orphans {
		if err := j.deleteChunk(ctx, o.seq); err != nil {
			return err
		}
		r.Chunks++
		r.Bytes += o.bytes
	}
	r.Zones = append(r.Zones, zone)
	return nil
}

func (j *NATS) deleteChunk(ctx context.Context, seq uint64) error {
	body, err := json.Marshal(struct {
		Seq     uint64 `json:"seq"`
		NoErase bool   `json:"no_erase"`
	}{seq, true})
	if err != nil {
		return err
	}
	answer, err := j.request(ctx, &nats.Msg{Subject: "$JS.API.STREAM.MSG.DELETE." + bulkStream, Data: body})
	if err != nil {
		return err
	}
	var done struct {
		Success bool      `json:"success"`
		Error   *apiError `json:"error"`
	}
	if err := json.Unmarshal(answer.Data, &done); err != nil {
		return err
	}
	if done.Error != nil {
		return fmt.Errorf("remove chunk %d: %w", seq, done.Error.err())
	}
	return nil
}
