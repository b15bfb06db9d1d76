package journal

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"sluice/journal/event"
)

// purgedError is the type of ErrPurged.
type purgedError struct{}

// Error implements error.
func (purgedError) Error() string { return "no longer held: retention has purged its chunks" }

// Is implements the relation to ErrNoChunk.
func (purgedError) Is(target error) bool { return target == ErrNoChunk }

// Purger is a Journal that retention can remove chunks from. Both
// implementations are.
type Purger interface {
	// PurgeChunks removes the chunks of a manifest, its lists too, and nothing
	// that was stored after them; those that are gone already are no error. alone
	// says that no manifest that counts has chunks under the same subject. The
	// event that tells of it comes first.
	PurgeChunks(ctx context.Context, m event.Manifest, alone bool) (removed uint64, err error)
	// StoredBytes is what BULK holds of a zone, by subject.
	StoredBytes(ctx context.Context, zone event.ZoneID) (map[string]uint64, error)
}

// EachChunk calls fn for every chunk of a manifest, those of its indirect list
// and then what the list names. A list that cannot be read is ErrNoChunk.
func EachChunk(ctx context.Context, j Journal, m event.Manifest, fn func(event.Chunk) error) error {
	for _, chunks := range [][]event.Chunk{m.Chunks, m.Indirect} {
		for _, c := range chunks {
			if err := fn(c); err != nil {
				return err
			}
		}
	}
	return ahead(ctx, j, m.Subject, m.Indirect, func(_ event.Chunk, raw []byte) error {
		part, err := event.DecodeChunkList(raw)
		if err != nil {
			return err
		}
		for _, c := range part {
			if err := fn(c); err != nil {
				return err
			}
		}
		return nil
	})
}

// PurgeChunks implements Purger: by one request where the manifest's
// sequences hold what it says, else message by message.
func (j *NATS) PurgeChunks(ctx context.Context, m event.Manifest, alone bool) (removed uint64, err error) {
	var list []event.Chunk
	err = EachChunk(ctx, j, m, func(c event.Chunk) error {
		c.Seq = j.moves.find(c.Seq)
		list = append(list, c)
		return nil
	})
	if err != nil && !errors.Is(err, ErrNoChunk) {
		return 0, fmt.Errorf("purge %s: %w", m.Subject, err)
	}
	if len(list) == 0 {
		return 0, nil
	}
	bySeq := func(a, b event.Chunk) int { return cmp.Compare(a.Seq, b.Seq) }
	first, last := slices.MinFunc(list, bySeq), slices.MaxFunc(list, bySeq)
	switch {
	case !alone:
		removed, err = j.purgeStanding(ctx, m.Subject, list)
	case err == nil && j.stands(ctx, m.Subject, first) && j.stands(ctx, m.Subject, last):
		removed, err = j.purgeSubject(ctx, m.Subject, last.Seq+1)
	default:
		removed, err = j.purgeOldest(ctx, m.Subject, list)
	}
	if err != nil {
		return removed, fmt.Errorf("purge %s: %w", m.Subject, err)
	}
	return removed, nil
}

// purgeStanding removes the chunks that stand where the manifest says. Others,
// of a restored store, stay: they cannot be told from those that count.
func (j *NATS) purgeStanding(ctx context.Context, subject string, list []event.Chunk) (removed uint64, err error) {
	for _, c := range list {
		if !j.stands(ctx, subject, c) {
			continue
		}
		if err := j.deleteChunk(ctx, c.Seq); err != nil {
			return removed, err
		}
		removed++
	}
	return removed, ctx.Err()
}

// stands reports whether a chunk stands under its sequence.
func (j *NATS) stands(ctx context.Context, subject string, c event.Chunk) bool {
	line, err := j.get(ctx, bulkStream, getRequest{Seq: max(c.Seq, 1)})
	if err != nil || line.subject != subject {
		return false
	}
	_, ok := j.unpack(line.data, c)
	return ok
}

// purgeSubject removes all messages of a subject below a sequence.
func (j *NATS) purgeSubject(ctx context.Context, subject string, below uint64) (uint64, error) {
	body, err := json.Marshal(struct {
		Filter string `json:"filter"`
		Seq    uint64 `json:"seq"`
	}{subject, below})
	if err != nil {
		return 0, err
	}
	answer, err := j.request(ctx, &nats.Msg{Subject: "$JS.API.STREAM.PURGE." + bulkStream, Data: body})
	if err != nil {
		return 0, err
	}
	var done struct {
		Purged uint64    `json:"purged"`
		Error  *apiError `json:"error"`
	}
	if err := json.Unmarshal(answer.Data, &done); err != nil {
		return 0, err
	}
	if done.Error != nil {
		return 0, done.Error.err()
	}
	return done.Purged, nil
}

// purgeOldest removes of the messages of a subject the oldest ones that hold
// the chunks of a list, each as often as it is listed: what a command that runs
// now has sent comes later.
func (j *NATS) purgeOldest(ctx context.Context, subject string, list []event.Chunk) (removed uint64, err error) {
	listed := make(map[event.Hash]int)
	for _, c := range list {
		listed[c.SHA256]++
	}
	for next := uint64(1); ; {
		line, err := j.get(ctx, bulkStream, getRequest{Seq: next, NextFor: subject})
		if errors.Is(err, errNotFound) {
			return removed, nil
		}
		if err != nil {
			return removed, err
		}
		next = line.seq + 1
		raw, err := j.dec.DecodeAll(line.data, nil)
		hash := event.Hash(sha256.Sum256(raw))
		if err != nil || listed[hash] == 0 {
			continue
		}
		listed[hash]--
		if err := j.deleteChunk(ctx, line.seq); err != nil {
			return removed, err
		}
		removed++
	}
}

// StoredBytes implements Purger.
func (j *NATS) StoredBytes(ctx context.Context, zone event.ZoneID) (map[string]uint64, error) {
	sizes := make(map[string]uint64)
	err := j.eachHeader(ctx, "bulk."+string(zone)+".>", func(m jetstream.Msg, _ *jetstream.MsgMetadata) bool {
		sizes[m.Subject()] += messageSize(m)
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("list chunks of zone %q: %w", zone, err)
	}
	return sizes, nil
}

// messageSize is the length of a message that came without its content.
func messageSize(m jetstream.Msg) (size uint64) {
	_, _ = fmt.Sscanf(m.Headers().Get("Nats-Msg-Size"), "%d", &size)
	return size
}

// eachHeader calls fn for the messages of BULK under a filter, without their
// content, that stand there now, until fn wants no more.
func (j *NATS) eachHeader(ctx context.Context, filter string, fn func(jetstream.Msg, *jetstream.MsgMetadata) bool) error {
	info, err := j.info(ctx, bulkStream)
	if err != nil || info.State.Msgs == 0 {
		return err
	}
	s, err := j.session()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c, err := s.js.OrderedConsumer(ctx, bulkStream, jetstream.OrderedConsumerConfig{HeadersOnly: true, FilterSubjects: []string{filter}})
	if err != nil {
		return j.failure(ctx, err)
	}
	if at := c.CachedInfo(); at != nil && at.NumPending == 0 {
		return nil
	}
	msgs, err := c.Messages(jetstream.PullMaxMessages(1000))
	if err != nil {
		return j.failure(ctx, err)
	}
	defer msgs.Stop()
	for {
		bounded, done := context.WithTimeout(ctx, j.cfg.Timeout)
		m, err := msgs.Next(jetstream.NextContext(bounded))
		done()
		if err != nil {
			return j.failure(ctx, err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		if meta.Sequence.Stream > info.State.LastSeq || !fn(m, meta) || meta.NumPending == 0 {
			return nil
		}
	}
}

var _ Purger = (*NATS)(nil)
