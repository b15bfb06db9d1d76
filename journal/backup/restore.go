package backup

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"sluice/journal"
	"sluice/journal/audit"
	"sluice/journal/event"
)

// keptRoots is how many events may stand between a checkpoint's last one and
// its own.
const keptRoots = 1 << 16

// Zone is a zone that a backup has, as of its last event.
type Zone struct {
	ID      event.ZoneID `json:"id"`
	Name    string       `json:"name"`
	Serial  *uint32      `json:"serial,omitempty"` // last published
	Floor   *uint32      `json:"floor,omitempty"`  // serials stand above it
	Removed bool         `json:"removed,omitempty"`
}

// CheckOptions says what Check does besides.
type CheckOptions struct {
	// Key is the public audit key that the reader knows from elsewhere; nil is
	// the one that the backup itself names, which proves less.
	Key *audit.Verifier
	// Each, where not nil, is called for each event.
	Each func(journal.Record)
	// Progress, where not nil, is called after each event with its sequence
	// and the last one.
	Progress func(seq, last uint64)
	// Fill, where not nil, is filled with the events and chunks. The caller
	// ends it, whatever becomes of the check.
	Fill Target
}

// Target takes what a backup holds: an empty store that is filled with it.
type Target interface {
	// Event takes the next line, and may keep it.
	Event(ctx context.Context, e *event.Event, line []byte) error
	// Chunk takes a chunk that the event names, and may keep it.
	Chunk(ctx context.Context, subject string, c event.Chunk, raw []byte) error
}

var _ Target = (*journal.Rebuild)(nil)

// Checked is what a backup was found to be.
type Checked struct {
	Manifest    Manifest `json:"-"`
	Root        string   `json:"root"` // hex, of the tree over all events
	Checkpoints uint64   `json:"checkpoints"`
	// Signed is the number of events that a checkpoint counts whose signature
	// verified.
	Signed uint64 `json:"signed"`
	// Former are the logs before the one of the backup, by their origins.
	Former []string `json:"former,omitempty"`
	Zones  []Zone   `json:"zones"`

	chain *chain
}

// Head is where the chain of a zone ends.
func (c *Checked) Head(zone event.ZoneID) journal.Head { return c.chain.heads[zone] }

// checker reads one backup.
type checker struct {
	CheckOptions
	manifest Manifest
	source   Source
	chain    *chain
	point    *audit.Checkpoint
	roots    []event.Hash // by size modulo keptRoots
	zones    map[event.ZoneID]*Zone
	out      *Checked
}

// Check reads the whole backup in dir and verifies it: every line, link and
// sequence, every chunk, and the root of the events against every checkpoint
// among them. Errors: ErrNoBackup, ErrDamaged.
func Check(ctx context.Context, dir string, opts CheckOptions) (*Checked, error) {
	m, s, err := OfFolder(dir)
	if err != nil {
		return nil, err
	}
	c := &checker{
		CheckOptions: opts, manifest: m, source: s, out: &Checked{Manifest: m},
		chain: &chain{heads: map[event.ZoneID]journal.Head{}},
		roots: make([]event.Hash, keptRoots), zones: map[event.ZoneID]*Zone{},
	}
	if c.point, err = readPoint(m.Head); err != nil {
		return nil, err
	}
	if opts.Key != nil && m.Key != "" && opts.Key.String() != m.Key {
		return nil, fmt.Errorf("the backup names the audit key %s, not the one that it is to be checked with: %w", m.Key, ErrDamaged)
	}
	if opts.Key != nil && c.point == nil {
		return nil, fmt.Errorf("the backup has no signed checkpoint that the key could verify: %w", ErrDamaged)
	}
	if err := s.Events(ctx, 1, m.Size, func(seq uint64, line []byte) error { return c.event(ctx, seq, line) }); err != nil {
		return nil, err
	}
	return c.out, c.end()
}

// event takes one line.
func (c *checker) event(ctx context.Context, seq uint64, line []byte) error {
	e, err := c.chain.add(seq, line)
	if err != nil {
		return err
	}
	c.roots[seq%keptRoots] = c.chain.tree.Root()
	if err := c.chain.checkPoint(c.point); err != nil {
		return err
	}
	if c.Fill != nil {
		if err := c.Fill.Event(ctx, &e, line); err != nil {
			return err
		}
	}
	err = c.chain.eachChunk(e.Facts, func(subject string, chunk event.Chunk) ([]byte, error) {
		raw, err := c.source.Chunk(ctx, subject, chunk)
		if errors.Is(err, journal.ErrNoChunk) {
			return nil, nil
		}
		if err == nil && c.Fill != nil {
			err = c.Fill.Chunk(ctx, subject, chunk, raw)
		}
		return raw, err
	})
	if err != nil {
		return fmt.Errorf("event %d: %w", seq, err)
	}
	if err := c.take(seq, &e); err != nil {
		return err
	}
	if c.Each != nil {
		c.Each(journal.Record{Seq: seq, Hash: c.chain.hash, Line: event.PublicLine(line), Event: e, Subject: event.Subject(&e)})
	}
	if c.Progress != nil {
		c.Progress(seq, c.manifest.Size)
	}
	return nil
}

// take notes what an event says of zones and of the log.
func (c *checker) take(seq uint64, e *event.Event) error {
	z := c.zones[e.Zone]
	switch f := e.Facts.(type) {
	case *event.ZoneAdded:
		c.zones[f.ID] = &Zone{ID: f.ID, Name: f.Name, Floor: f.SerialFloor}
	case *event.ZoneRemoved:
		if removed := c.zones[f.ID]; removed != nil {
			removed.Removed = true
		}
	case *event.SerialRaised:
		if z != nil {
			z.Floor = &f.Floor
		}
	case *event.InstancePublished:
		if z != nil {
			z.Serial = &f.Serial
		}
	case *event.JournalContinued:
		c.out.Former = append(c.out.Former, f.Origin)
		if f.Size >= seq || seq-f.Size >= keptRoots || f.Root != c.roots[f.Size%keptRoots] {
			return fmt.Errorf("event %d says that a log of %d events goes on here, which are not those before it: %w", seq, f.Size, ErrDamaged)
		}
	case *event.JournalCheckpointed:
		if f.Size >= seq || seq-f.Size >= keptRoots || f.Root != c.roots[f.Size%keptRoots] {
			return fmt.Errorf("event %d is a checkpoint of %d events, which are not those before it: %w", seq, f.Size, ErrDamaged)
		}
		c.out.Checkpoints++
	}
	return nil
}

// end compares what was read with what the manifest says of all of it.
func (c *checker) end() error {
	m := c.manifest
	if c.chain.size != m.Size || c.chain.hash != m.Hash || !slices.Equal(c.chain.tree.Edges(), m.Tree) || c.chain.bulkLast != m.BulkLast {
		return fmt.Errorf("the events are not those that the manifest counts: %w", ErrDamaged)
	}
	if c.point != nil {
		if uint64(c.point.Size) > m.Size {
			return fmt.Errorf("the signed checkpoint counts %d events, the backup has %d: %w", c.point.Size, m.Size, ErrDamaged)
		}
		c.out.Signed = uint64(c.point.Size)
	}
	c.out.Root = c.chain.tree.Root().String()
	c.out.chain = c.chain
	c.out.Zones = []Zone{}
	for _, id := range slices.Sorted(maps.Keys(c.zones)) {
		c.out.Zones = append(c.out.Zones, *c.zones[id])
	}
	return nil
}

// Continuation says how a journal goes on behind what a backup holds.
type Continuation struct {
	Now    time.Time
	Actor  event.Actor
	Reason string
	// Floors are put under the serials of zones.
	Floors map[event.ZoneID]uint32
	// FloorReason says why.
	FloorReason string
}

// Continue appends what begins the new log to a journal that was filled: the
// fork is recorded before anything else, and serials are raised above what may
// have been published meanwhile.
func (c *Checked) Continue(ctx context.Context, j journal.Journal, how Continuation) error {
	root := c.chain.tree.Root()
	facts := []struct {
		zone event.ZoneID
		f    event.Facts
	}{{event.Instance, &event.JournalContinued{
		Origin: c.Manifest.Origin, Stream: c.Manifest.Identity, Size: c.Manifest.Size, Hash: c.Manifest.Hash,
		Root: root, Key: c.Manifest.Key, Reason: how.Reason,
	}}}
	for _, id := range slices.Sorted(maps.Keys(how.Floors)) {
		facts = append(facts, struct {
			zone event.ZoneID
			f    event.Facts
		}{id, &event.SerialRaised{Floor: how.Floors[id], Reason: how.FloorReason}})
	}
	for _, one := range facts {
		e := event.New(how.Now, one.zone, how.Actor, one.f)
		e.MustUnderstand = true
		if _, err := j.Append(ctx, one.zone, c.Head(one.zone), e); err != nil {
			return fmt.Errorf("record that the log goes on: %w", err)
		}
	}
	return nil
}
