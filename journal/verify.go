package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"sluice/journal/audit"
	"sluice/journal/event"
)

// maxFaults bounds the faults that a report lists.
const maxFaults = 100

// VerifyOptions says what Verify does beyond reading every event.
type VerifyOptions struct {
	// Chunks reads every chunk that a manifest names and checks its hash.
	Chunks bool
	// Key is the public audit key; nil leaves signatures of checkpoints alone.
	Key *audit.Verifier
	// Outside are signed checkpoints that were kept elsewhere; they need Key.
	// What they count must be here.
	Outside []string
	// Progress, where not nil, is called after each event with its sequence
	// and the last one.
	Progress func(seq, last uint64)
}

// Fault is one thing that is wrong with a journal.
type Fault struct {
	Seq  uint64       `json:"seq"` // of the event at which it shows
	Zone event.ZoneID `json:"zone,omitempty"`
	What string       `json:"what"`
}

// VerifyReport is what Verify found. The journal is sound where FaultCount is
// 0.
type VerifyReport struct {
	Identity  string `json:"identity"`
	LastSeq   uint64 `json:"last_seq"`
	Events    uint64 `json:"events"`
	Chains    uint64 `json:"chains"`  // of events: one a zone, one of the facts of the whole instance
	Unknown   uint64 `json:"unknown"` // events of types that this program does not know
	Manifests uint64 `json:"manifests"`
	// Checkpoints is those that the events give the root of, those kept outside
	// included.
	Checkpoints uint64  `json:"checkpoints"`
	Chunks      uint64  `json:"chunks"`      // read and found right
	Purged      uint64  `json:"purged"`      // manifests whose chunks retention has purged
	ChunkBytes  uint64  `json:"chunk_bytes"` // raw
	Sealed      uint64  `json:"sealed"`      // fields that stand in sealed lines
	Dropped     uint64  `json:"dropped"`     // of these, not there any more
	Faults      []Fault `json:"faults"`      // the first ones in order
	FaultCount  uint64  `json:"fault_count"` // all of them
}

// Verify reads the whole journal and reports what is wrong: lines that do not
// decode or are not canonical, subjects that do not follow from the line,
// gaps in the sequences, broken numbers and links of zones, and with Chunks
// set missing or damaged chunks. The error tells only that reading itself
// failed.
func Verify(ctx context.Context, j Journal, opts VerifyOptions) (VerifyReport, error) {
	raw, ok := j.(RawReader)
	if !ok {
		return VerifyReport{}, errors.New("verify journal: it cannot show raw lines")
	}
	purged, err := purgedEvents(ctx, raw)
	if err != nil {
		return VerifyReport{}, fmt.Errorf("verify journal: %w", err)
	}
	identity, last, err := j.Stream(ctx)
	if err != nil {
		return VerifyReport{}, fmt.Errorf("verify journal: %w", err)
	}
	v := verifier{j: j, opts: opts, heads: make(map[event.ZoneID]Head), purged: purged}
	v.report = VerifyReport{Identity: identity, LastSeq: last, Faults: []Fault{}}
	v.readKeys(ctx)
	if err := v.readOutside(); err != nil {
		return VerifyReport{}, err
	}
	next := uint64(1)
	err = raw.ReadRaw(ctx, 1, func(seq uint64, subject string, message []byte) error {
		if seq > last {
			return errEnd
		}
		if seq != next {
			v.fault(seq, "", "events %d to %d are missing", next, seq-1)
		}
		next = seq + 1
		v.report.Events++
		if err := v.message(ctx, seq, subject, message); err != nil {
			return err
		}
		if opts.Progress != nil {
			opts.Progress(seq, last)
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnd) {
		return v.report, fmt.Errorf("verify journal: %w", err)
	}
	if next <= last {
		v.fault(last, "", "events %d to %d are missing", next, last)
	}
	for _, c := range v.outside {
		v.fault(uint64(c.Size), "", "a checkpoint kept outside counts %d events, there are %d", c.Size, v.tree.Size())
	}
	v.report.Chains = uint64(len(v.heads))
	return v.report, nil
}

// errEnd ends a reading where it was to end.
var errEnd = errors.New("end")

// purgedEvents reads which events have lost their chunks to retention. Each is
// named by a later event, whose place in the chain the verification checks.
func purgedEvents(ctx context.Context, raw RawReader) (SeqSet, error) {
	purged := make(SeqSet)
	noun := []byte(`"type":"` + (*event.BulkPurged)(nil).EventType() + `"`)
	err := raw.ReadRaw(ctx, 1, func(at uint64, _ string, message []byte) error {
		line := event.PublicLine(message)
		if !bytes.Contains(line, noun) {
			return nil
		}
		e, err := event.Decode(line)
		if f, ok := e.Facts.(*event.BulkPurged); ok && err == nil {
			for _, seq := range f.Instances {
				if seq < at {
					purged.Add(seq)
				}
			}
		}
		return nil
	})
	return purged, err
}

type verifier struct {
	j      Journal
	opts   VerifyOptions
	heads  map[event.ZoneID]Head
	purged SeqSet // events whose chunks retention has purged
	report VerifyReport

	keys    audit.Keys
	tree    audit.Tree
	roots   [keptRoots]event.Hash // of the sizes before, by size modulo keptRoots
	outside []audit.Checkpoint    // that the tree has not reached, smallest first
}

func (v *verifier) fault(seq uint64, zone event.ZoneID, format string, args ...any) {
	v.report.FaultCount++
	if len(v.report.Faults) < maxFaults {
		v.report.Faults = append(v.report.Faults, Fault{seq, zone, fmt.Sprintf(format, args...)})
	}
}

func (v *verifier) message(ctx context.Context, seq uint64, subject string, message []byte) error {
	line, sealed, two := bytes.Cut(message, []byte{'\n'})
	defer v.grow(seq, line)
	e, err := event.Decode(line)
	if err != nil {
		v.fault(seq, "", "%v", err)
		return nil
	}
	v.sealed(seq, &e, sealed, two)
	if want := event.Subject(&e); subject != want {
		v.fault(seq, e.Zone, "stands under %s, not %s", subject, want)
	}
	head := v.heads[e.Zone]
	switch {
	case e.N != head.N+1:
		v.fault(seq, e.Zone, "number %d follows %d", e.N, head.N)
	case e.Prev != head.Hash:
		v.fault(seq, e.Zone, "link to %s, but event %d is %s", e.Prev, head.Seq, head.Hash)
	}
	if e.Cause >= seq {
		v.fault(seq, e.Zone, "cause %d is not an earlier event", e.Cause)
	}
	switch f := e.Facts.(type) {
	case *event.JournalCheckpointed:
		v.checkpoint(seq, f)
	case *event.JournalContinued:
		v.continued(seq, f)
	}
	v.heads[e.Zone] = Head{Seq: seq, N: e.N, Hash: event.RecordHash(line)}
	if e.Facts == nil {
		v.report.Unknown++
	}
	for _, m := range event.Manifests(e.Facts) {
		v.report.Manifests++
		if err := v.manifest(ctx, seq, e.Zone, m); err != nil {
			return err
		}
	}
	return nil
}

// sealed checks a sealed line, which may be missing.
func (v *verifier) sealed(seq uint64, e *event.Event, line []byte, there bool) {
	v.report.Sealed += uint64(len(e.Sealed))
	var values map[string]event.SealedValue
	if there {
		var err error
		if values, err = event.DecodeSealed(line, e.Sealed); err != nil {
			v.fault(seq, e.Zone, "%v", err)
			return
		}
	}
	v.report.Dropped += uint64(len(e.Sealed) - len(values))
}

func (v *verifier) manifest(ctx context.Context, seq uint64, zone event.ZoneID, m event.Manifest) error {
	if v.purged.Has(seq) {
		v.report.Purged++
		return nil
	}
	if !v.opts.Chunks {
		return nil
	}
	err := Chunks(ctx, v.j, m, func(raw []byte) error {
		v.report.Chunks++
		v.report.ChunkBytes += uint64(len(raw))
		return nil
	})
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil, errors.Is(err, ErrStorage), errors.Is(err, ErrClosed):
		return err
	}
	v.fault(seq, zone, "%v", err)
	return nil
}
