package backup

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"

	"sluice/journal"
	"sluice/journal/audit"
	"sluice/journal/event"
)

// chain is what the events so far add up to: each one has to follow from it.
type chain struct {
	heads    map[event.ZoneID]journal.Head
	tree     audit.Tree
	size     uint64
	hash     event.Hash // record hash of the last event
	bulkLast uint64
}

// add takes the next stored message.
func (c *chain) add(seq uint64, message []byte) (event.Event, error) {
	if seq != c.size+1 {
		return event.Event{}, fmt.Errorf("event %d follows event %d: %w", seq, c.size, ErrDamaged)
	}
	e, _, err := event.DecodeMessage(message)
	if err != nil {
		return e, fmt.Errorf("event %d: %w: %w", seq, ErrDamaged, err)
	}
	head := c.heads[e.Zone]
	if e.N != head.N+1 || e.Prev != head.Hash {
		return e, fmt.Errorf("event %d: number %d of zone %s does not follow number %d: %w", seq, e.N, e.Zone, head.N, ErrDamaged)
	}
	if e.Cause >= seq {
		return e, fmt.Errorf("event %d: cause %d is not an earlier event: %w", seq, e.Cause, ErrDamaged)
	}
	c.size, c.hash = seq, event.RecordHash(event.PublicLine(message))
	c.heads[e.Zone] = journal.Head{Seq: seq, N: e.N, Hash: c.hash}
	c.tree.Append(c.hash)
	return e, nil
}

// eachChunk calls fn for the chunks that an event names, in the order of a
// backup: those of an indirect list behind the chunk that lists them. fn
// returns the raw bytes, nil where the journal no longer held them.
func (c *chain) eachChunk(f event.Facts, fn func(subject string, chunk event.Chunk) ([]byte, error)) error {
	each := func(subject string, list []event.Chunk, of func(raw []byte) error) error {
		for _, chunk := range list {
			c.bulkLast = max(c.bulkLast, chunk.Seq)
			raw, err := fn(subject, chunk)
			if err == nil && raw != nil && of != nil {
				err = of(raw)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	for _, m := range event.Manifests(f) {
		err := each(m.Subject, m.Chunks, nil)
		if err == nil {
			err = each(m.Subject, m.Indirect, func(raw []byte) error {
				part, err := event.DecodeChunkList(raw)
				if err != nil {
					return err
				}
				return each(m.Subject, part, nil)
			})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkpoint is what there is, to be signed.
func (c *chain) checkpoint(origin string) audit.Checkpoint {
	var zones audit.Tree
	for _, id := range slices.Sorted(maps.Keys(c.heads)) {
		h := c.heads[id]
		zones.Append(event.RecordHash(audit.Head{Zone: id, N: h.N, Hash: h.Hash}.Line()))
	}
	return audit.Checkpoint{
		Origin: origin, Size: c.tree.Size(), Root: c.tree.Root(), Zones: zones.Size(), ZonesRoot: zones.Root(),
	}
}

// headLine is a line of the file of heads.
type headLine struct {
	Zone event.ZoneID `json:"zone"`
	journal.Head
}

// writeHeads writes where the chains end.
func (c *chain) writeHeads(w io.Writer) error {
	enc := json.NewEncoder(w)
	for _, id := range slices.Sorted(maps.Keys(c.heads)) {
		if err := enc.Encode(headLine{id, c.heads[id]}); err != nil {
			return err
		}
	}
	return nil
}

// newChain goes on where a backup ends; heads is its file of heads.
func newChain(m Manifest, heads []byte) (*chain, error) {
	c := &chain{heads: map[event.ZoneID]journal.Head{}, size: m.Size, hash: m.Hash, bulkLast: m.BulkLast}
	var err error
	if c.tree, err = audit.NewTree(int64(m.Size), m.Tree); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(bytes.NewReader(heads))
	for lines.Scan() {
		var l headLine
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return nil, fmt.Errorf("heads: %w: %w", ErrDamaged, err)
		}
		c.heads[l.Zone] = l.Head
	}
	return c, lines.Err()
}
