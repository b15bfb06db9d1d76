package audit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"sluice/journal/event"
)

// The files of an export.
const (
	manifestFile    = "manifest"
	checkpointFile  = "checkpoint"
	headsFile       = "heads.jsonl"
	checkpointsFile = "checkpoints.jsonl"
	eventsPrefix    = "events-"
	sealedPrefix    = "sealed-"
	chunksPrefix    = "chunks/"
)

// maxPart is the size in bytes from which a file of events is followed by
// another one.
const maxPart = 8 << 20

// Zone is a zone of a filtered export.
type Zone struct {
	ID   event.ZoneID
	Name string // as it was when the zone was added
}

// Filter says which events an export has. The zero value takes all.
type Filter struct {
	Zones  []Zone    // none: all, and the events of the whole instance
	Since  time.Time // from the first event of that time or later; zero: from the beginning
	Until  time.Time // to the last event of that time or earlier; zero: to the end
	Chunks bool      // contents go along: every chunk that an event of the export names
}

// Source is what an export is made from.
type Source struct {
	Log Log
	Key *Key
	// Program names the software that makes the export; empty names none.
	Program string
	// Read calls fn for the events with sequences up to last, in order; those
	// of one zone where zone is not empty.
	Read func(ctx context.Context, zone event.ZoneID, last uint64, fn EventFunc) error
	// Chunks calls fn with the raw chunks that a manifest names, those of its
	// lists too.
	Chunks func(ctx context.Context, m event.Manifest, fn func(raw []byte) error) error
}

// EventFunc takes an event: its public line, and the sealed values that are to go
// along with it.
type EventFunc func(seq uint64, line []byte, sealed map[string]event.SealedValue, ev *event.Event) error

// Sink takes the files of an export, each whole; the manifest comes last.
type Sink func(path string, content []byte) error

// exporter writes one export.
type exporter struct {
	Source
	sink     Sink
	size     int64
	manifest manifest
	part     bytes.Buffer // of the events
	parts    int
	sealed   bytes.Buffer // a part of the sealed values
	sealeds  int
	points   bytes.Buffer
	chunks   map[event.Hash]bool
	// early are events from before the first sequence: those of the whole
	// instance, and the last one of each zone. after says which zones had one
	// behind the last sequence. So the chain of a zone shows by itself that none
	// is missing between.
	early []early
	after map[event.ZoneID]bool
}

// early is an event from before the first sequence.
type early struct {
	seq    uint64
	zone   event.ZoneID
	line   []byte
	sealed map[string]event.SealedValue
}

// Export writes what filter asks for, with its proofs. It holds a part of
// the events at a time, and the hashes of chunks.
func Export(ctx context.Context, s Source, filter Filter, sink Sink) error {
	x := exporter{Source: s, sink: sink, after: map[event.ZoneID]bool{}, size: s.Log.Size(), chunks: map[event.Hash]bool{}}
	c, err := Take(s.Key.Name(), s.Log)
	if err != nil {
		return err
	}
	signed, err := c.Sign(s.Key)
	if err != nil {
		return err
	}
	x.manifest = manifest{Origin: c.Origin, Size: c.Size, Program: s.Program, Zones: filter.Zones, Chunks: filter.Chunks}
	if x.manifest.First, x.manifest.Last, err = x.between(ctx, filter.Since, filter.Until); err != nil {
		return err
	}
	if err := x.former(ctx); err != nil {
		return err
	}
	if err := x.file(checkpointFile, []byte(signed)); err != nil {
		return err
	}
	if err := x.events(ctx); err != nil {
		return err
	}
	if err := x.heads(); err != nil {
		return err
	}
	if err := x.file(checkpointsFile, x.points.Bytes()); err != nil {
		return err
	}
	text, err := sign(x.manifest.text(), s.Key)
	if err != nil {
		return err
	}
	return sink(manifestFile, []byte(text))
}

// file writes a file and enters it into the manifest.
func (x *exporter) file(path string, content []byte) error {
	x.manifest.Files = append(x.manifest.Files, manifestEntry{Path: path, Bytes: int64(len(content)), SHA256: sha256.Sum256(content)})
	return x.sink(path, content)
}

// former finds the logs that this one goes on from.
func (x *exporter) former(ctx context.Context) error {
	var keys Keys
	err := x.Read(ctx, event.Instance, uint64(x.size), func(_ uint64, _ []byte, _ map[string]event.SealedValue, ev *event.Event) error {
		if f, ok := ev.Facts.(*event.JournalContinued); ok {
			keys.Take(f)
		}
		return nil
	})
	x.manifest.Former = keys.Former
	return err
}

// between finds the sequences of a stretch of time; last is below first where
// it holds nothing.
func (x *exporter) between(ctx context.Context, since, until time.Time) (first, last uint64, err error) {
	first, last = 1, uint64(x.size)
	if since.IsZero() && until.IsZero() {
		return first, last, nil
	}
	first, last = uint64(x.size)+1, 0
	err = x.Read(ctx, "", uint64(x.size), func(seq uint64, _ []byte, _ map[string]event.SealedValue, ev *event.Event) error {
		if !ev.Time.Before(since) {
			first = min(first, seq)
		}
		if until.IsZero() || !ev.Time.After(until) {
			last = seq
		}
		return nil
	})
	if err == nil && first > last {
		err = ErrNoEvents
	}
	return first, last, err
}

// ErrNoEvents reports a stretch of time without an event.
var ErrNoEvents = errors.New("no event in that time")

// events writes the events that are wanted, and collects the checkpoints.
func (x *exporter) events(ctx context.Context) error {
	m := &x.manifest
	err := x.Read(ctx, "", uint64(x.size), func(seq uint64, line []byte, sealed map[string]event.SealedValue, ev *event.Event) error {
		if f, ok := ev.Facts.(*event.JournalCheckpointed); ok {
			if err := x.checkpoint(seq, f); err != nil {
				return err
			}
		}
		if seq >= m.First {
			if err := x.emitEarly(); err != nil {
				return err
			}
		}
		if !x.wants(seq, line, sealed, ev) {
			return nil
		}
		if err := x.event(seq, line, sealed); err != nil || !m.Chunks {
			return err
		}
		for _, m := range event.Manifests(ev.Facts) {
			if seq > x.manifest.Last {
				return nil
			}
			if err := x.Chunks(ctx, m, x.chunk); err != nil {
				return fmt.Errorf("event %d: %w; leave out --chunks, or ask for later events with --since", seq, err)
			}
		}
		return nil
	})
	if err == nil && x.part.Len() > 0 {
		err = x.flush()
	}
	if err == nil && x.sealed.Len() > 0 {
		err = x.flushSealed()
	}
	return err
}

// wants reports whether an event is to be written now; one from before the
// first sequence is kept until then.
func (x *exporter) wants(seq uint64, line []byte, sealed map[string]event.SealedValue, ev *event.Event) bool {
	m := &x.manifest
	ofInstance := len(m.Zones) > 0 && ev.Zone == event.Instance
	switch {
	case ofInstance && !m.concerns(ev.Facts), !ofInstance && !m.has(ev.Zone):
		return false
	case seq < m.First:
		if len(m.Zones) == 0 {
			return false
		}
		if !ofInstance {
			x.early = slices.DeleteFunc(x.early, func(e early) bool { return e.zone == ev.Zone })
		}
		x.early = append(x.early, early{seq, ev.Zone, bytes.Clone(line), sealed})
		return false
	case seq > m.Last && !ofInstance:
		first := len(m.Zones) > 0 && !x.after[ev.Zone]
		x.after[ev.Zone] = true
		return first
	}
	return true
}

// emitEarly writes what was kept from before the first sequence.
func (x *exporter) emitEarly() error {
	for _, e := range x.early {
		if err := x.event(e.seq, e.line, e.sealed); err != nil {
			return err
		}
	}
	x.early = nil
	return nil
}

// event writes one line of events, and one of sealed values where there are
// any.
func (x *exporter) event(seq uint64, line []byte, sealed map[string]event.SealedValue) error {
	if err := x.seal(seq, sealed); err != nil {
		return err
	}
	fmt.Fprintf(&x.part, `{"seq":%d`, seq)
	if !x.manifest.whole() {
		proof, err := tlog.ProveRecord(x.size, int64(seq)-1, x.Log)
		if err != nil {
			return fmt.Errorf("proof of event %d: %w", seq, err)
		}
		x.part.WriteString(`,"proof":` + hashList(fromHashes(proof)))
	}
	x.part.WriteString(`,"event":`)
	x.part.Write(line)
	x.part.WriteString("}\n")
	x.manifest.Events++
	if x.part.Len() < maxPart {
		return nil
	}
	return x.flush()
}

func (x *exporter) flush() error {
	x.parts++
	err := x.file(fmt.Sprintf("%s%06d.jsonl", eventsPrefix, x.parts), x.part.Bytes())
	x.part.Reset()
	return err
}

// seal writes one line of sealed values.
func (x *exporter) seal(seq uint64, sealed map[string]event.SealedValue) error {
	line, err := event.EncodeSealed(sealed)
	if err != nil || line == nil {
		return err
	}
	fmt.Fprintf(&x.sealed, `{"seq":%d,`, seq)
	x.sealed.Write(line[1:])
	x.sealed.WriteByte('\n')
	if x.sealed.Len() < maxPart {
		return nil
	}
	return x.flushSealed()
}

func (x *exporter) flushSealed() error {
	x.sealeds++
	err := x.file(fmt.Sprintf("%s%06d.jsonl", sealedPrefix, x.sealeds), x.sealed.Bytes())
	x.sealed.Reset()
	return err
}

func (x *exporter) chunk(raw []byte) error {
	sum := event.Hash(sha256.Sum256(raw))
	if x.chunks[sum] {
		return nil
	}
	x.chunks[sum] = true
	return x.file(chunksPrefix+sum.String(), raw)
}

// checkpoint writes an earlier checkpoint with the proof that the log of now
// begins with its.
func (x *exporter) checkpoint(seq uint64, f *event.JournalCheckpointed) error {
	proof, err := tlog.ProveTree(x.size, int64(f.Size), x.Log)
	if err != nil {
		return fmt.Errorf("proof of checkpoint %d: %w", f.Size, err)
	}
	note, err := json.Marshal(f.Note)
	if err != nil {
		return err
	}
	fmt.Fprintf(&x.points, `{"seq":%d,"size":%d,"proof":%s,"note":%s}`+"\n", seq, f.Size, hashList(fromHashes(proof)), note)
	return nil
}

// heads writes where the chains of the zones end, with the proof that the
// checkpoint says so.
func (x *exporter) heads() error {
	var tree headTree
	var all []Head
	if err := x.Log.Heads(func(h Head) error {
		if err := tree.append(h); err != nil {
			return err
		}
		all = append(all, h)
		return nil
	}); err != nil {
		return err
	}
	var out bytes.Buffer
	for i, h := range all {
		if !x.manifest.has(h.Zone) {
			continue
		}
		proof, err := tlog.ProveRecord(int64(len(all)), int64(i), &tree)
		if err != nil {
			return err
		}
		fmt.Fprintf(&out, `{"index":%d,"zone":"%s","n":%d,"hash":"%s","proof":%s}`+"\n", i, h.Zone, h.N, h.Hash, hashList(fromHashes(proof)))
	}
	return x.file(headsFile, out.Bytes())
}

// headTree holds the tree of the heads.
type headTree struct {
	hashes []tlog.Hash
	size   int64
}

func (t *headTree) append(h Head) error {
	grown, err := tlog.StoredHashesForRecordHash(t.size, tlog.Hash(event.RecordHash(h.Line())), t)
	t.hashes = append(t.hashes, grown...)
	t.size++
	return err
}

// ReadHashes implements tlog.HashReader.
func (t *headTree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		out[i] = t.hashes[index]
	}
	return out, nil
}

// hashList writes hashes as a JSON array of hex strings.
func hashList(list []event.Hash) string {
	var b strings.Builder
	b.WriteByte('[')
	for i, h := range list {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`"` + h.String() + `"`)
	}
	b.WriteByte(']')
	return b.String()
}
