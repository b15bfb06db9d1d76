package journal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"sluice/journal/audit"
	"sluice/journal/event"
)

// keptRoots is how many events may stand between a checkpoint's last one and
// its own. Those that came while it was made do.
const keptRoots = 1 << 16

// readKeys finds the logs that this one goes on from, as far as the events can
// be read: what cannot is a fault where it stands.
func (v *verifier) readKeys(ctx context.Context) {
	v.keys.Present = v.opts.Key
	if v.opts.Key == nil {
		return
	}
	_ = v.j.Read(ctx, event.Instance, 1, 0, func(rec Record) error {
		if f, ok := rec.Event.Facts.(*event.JournalContinued); ok {
			v.keys.Take(f)
		}
		return nil
	})
}

// continued compares what a new log says of the one before with the events.
func (v *verifier) continued(seq uint64, f *event.JournalContinued) {
	size := uint64(v.tree.Size())
	if f.Size > size || f.Size == 0 || size-f.Size >= keptRoots || v.roots[f.Size%keptRoots] != f.Root {
		v.fault(seq, event.Instance, "a log that goes on from %d events: they are not those that stand here", f.Size)
	}
}

// readOutside reads the checkpoints that were kept elsewhere.
func (v *verifier) readOutside() error {
	if len(v.opts.Outside) > 0 && v.opts.Key == nil {
		return errors.New("verify journal: a checkpoint needs the public audit key")
	}
	for _, text := range v.opts.Outside {
		c, err := v.keys.ReadOutside(text)
		if err != nil {
			return fmt.Errorf("verify journal: checkpoint kept outside: %w", err)
		}
		v.outside = append(v.outside, c)
	}
	slices.SortFunc(v.outside, func(a, b audit.Checkpoint) int { return cmp.Compare(a.Size, b.Size) })
	return nil
}

// grow adds a line to the tree. Where events are missing there is a fault
// already, and no root fits any more.
func (v *verifier) grow(seq uint64, line []byte) {
	v.tree.Append(event.RecordHash(line))
	v.roots[v.tree.Size()%keptRoots] = v.tree.Root()
	for ; len(v.outside) > 0 && v.outside[0].Size <= v.tree.Size(); v.outside = v.outside[1:] {
		if c := v.outside[0]; c.Size != v.tree.Size() || c.Root != v.tree.Root() {
			v.fault(seq, "", "a checkpoint kept outside, of %d events: they are not those that stand here", c.Size)
			continue
		}
		v.report.Checkpoints++
	}
}

// checkpoint compares a checkpoint with the events before it.
func (v *verifier) checkpoint(seq uint64, f *event.JournalCheckpointed) {
	size := uint64(v.tree.Size())
	c := audit.Checkpoint{Size: int64(f.Size), Root: f.Root, Zones: int64(f.Zones), ZonesRoot: f.ZonesRoot}
	switch {
	case f.Size > size || size-f.Size >= keptRoots || f.Size == 0:
		v.fault(seq, event.Instance, "a checkpoint of %d events behind %d", f.Size, size)
		return
	case v.roots[f.Size%keptRoots] != f.Root:
		v.fault(seq, event.Instance, "a checkpoint of %d events: they are not those that stand here", f.Size)
		return
	case f.Size == size && !v.sameHeads(c):
		v.fault(seq, event.Instance, "a checkpoint of %d events: the zones do not end as it says", f.Size)
		return
	}
	if v.opts.Key != nil {
		signed, err := v.keys.ReadAt(f.Note, seq)
		if c.Origin = signed.Origin; err == nil && signed != c {
			err = errors.New("its note says something else")
		}
		if err != nil {
			v.fault(seq, event.Instance, "a checkpoint of %d events: %v", f.Size, err)
			return
		}
	}
	v.report.Checkpoints++
}

// sameHeads compares the heads of all chains with a checkpoint.
func (v *verifier) sameHeads(c audit.Checkpoint) bool {
	heads := make([]audit.Head, 0, len(v.heads))
	for id, h := range v.heads {
		heads = append(heads, audit.Head{Zone: id, N: h.N, Hash: h.Hash})
	}
	slices.SortFunc(heads, func(a, b audit.Head) int { return cmp.Compare(a.Zone, b.Zone) })
	var tree audit.Tree
	for _, h := range heads {
		tree.Append(event.RecordHash(h.Line()))
	}
	return tree.Size() == c.Zones && tree.Root() == c.ZonesRoot
}
