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
	next  uint64 // sequence to read from
	heads map[event.ZoneID]Head
	named seqSet // sequences in BULK that manifests name
}

// seqSet is a set of sequences, dense in parts.
type seqSet map[uint64]*[64]uint64

func (s seqSet) add(seq uint64) {
	p := s[seq>>12]
	if p == nil {
		p = new([64]uint64)
		s[seq>>12] = p
	}
	p[seq>>6&63] |= 1 << (seq & 63)
}

func (s seqSet) has(seq uint64) bool {
	p := s[seq>>12]
	return p != nil && p[seq>>6&63]&(1<<(seq&63)) != 0
}

// learnNamed reads the events since the last sweep.
func (j *NATS) learnNamed(ctx context.Context) error {
	s := &j.swept
	if s.named == nil {
		*s = sweeper{next: 1, heads: make(map[event.ZoneID]Head), named: make(seqSet)}
	}
	return j.Read(ctx, "", s.next, 0, func(r Record) error {
		for _, m := range event.Manifests(r.Event.Facts) {
			if err := j.eachListed(ctx, m, func(c event.Chunk) { s.named.add(c.Seq) }); err != nil {
				return err
			}
		}
		s.heads[r.Event.Zone], s.next = r.Head(), r.Seq+1
		return nil
	})
}

// eachListed calls fn for every chunk of a manifest, those of its indirect
// list too.
func (j *NATS) eachListed(ctx context.Context, m event.Manifest, fn func(event.Chunk)) error {
	for _, c := range m.Chunks {
		fn(c)
	}
	return ahead(ctx, j, m.Subject, m.Indirect, func(c event.Chunk, raw []byte) error {
		fn(c)
		part, err := event.DecodeChunkList(raw)
		for _, c := range part {
			fn(c)
		}
		return err
	})
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
	info, err := j.info(ctx, bulkStream)
	if err != nil || info.State.Msgs == 0 {
		return orphans, err
	}
	s, err := j.session()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c, err := s.js.OrderedConsumer(ctx, bulkStream, jetstream.OrderedConsumerConfig{HeadersOnly: true})
	if err != nil {
		return nil, err
	}
	msgs, err := c.Messages(jetstream.PullMaxMessages(1000))
	if err != nil {
		return nil, err
	}
	defer msgs.Stop()
	for found < maxSwept {
		bounded, done := context.WithTimeout(ctx, j.cfg.Timeout)
		m, err := msgs.Next(jetstream.NextContext(bounded))
		done()
		if err != nil {
			return nil, j.failure(ctx, err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return nil, err
		}
		seq := meta.Sequence.Stream
		if !meta.Timestamp.Before(before) || seq > info.State.LastSeq {
			break
		}
		if !j.swept.named.has(seq) && !j.restored.holds(seq) {
			found++
			zone, _, _ := strings.Cut(strings.TrimPrefix(m.Subject(), "bulk."), ".")
			var size uint64
			_, _ = fmt.Sscanf(m.Headers().Get("Nats-Msg-Size"), "%d", &size)
			orphans[event.ZoneID(zone)] = append(orphans[event.ZoneID(zone)], orphan{seq, size, m.Subject()})
		}
		if meta.NumPending == 0 {
			break
		}
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
		return j.eachListed(ctx, m, func(c event.Chunk) {
			if misnamed[m.Subject] {
				return
			}
			line, err := j.get(ctx, bulkStream, getRequest{Seq: max(c.Seq, 1)})
			if err == nil && line.subject == m.Subject {
				if _, ok := j.unpack(line.data, c); ok {
					return
				}
			}
			misnamed[m.Subject] = true
		})
	}
	err := j.Read(ctx, "", 1, 0, func(r Record) error {
		for _, m := range event.Manifests(r.Event.Facts) {
			if subjects[m.Subject] {
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
