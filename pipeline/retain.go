package pipeline

import (
	"cmp"
	"slices"
	"time"

	"sluice/journal"
	"sluice/journal/event"
)

// RetentionPolicy says how long old versions of a zone stay rebuildable. The
// zero value keeps all.
type RetentionPolicy struct {
	Versions uint64 // published versions, what is served included; 0 sets no number
	Days     uint64 // each moment of so many days; 0 sets no time
	Hold     bool   // nothing is purged, whatever else is said
}

// purges reports whether anything ever goes.
func (p RetentionPolicy) purges() bool { return !p.Hold && (p.Versions > 0 || p.Days > 0) }

// Retained is what retention has left of a zone.
type Retained struct {
	Purged   uint64 `json:"purged"`             // sequence of the newest bulk.purged
	First    uint64 `json:"first"`              // of the events that were appended with it, the first
	Number   uint64 `json:"number"`             // the running number of the newest one
	Oldest   uint64 `json:"oldest"`             // sequence of the oldest instance.published that can be rebuilt
	Serial   uint32 `json:"serial"`             // of that version
	Kept     uint64 `json:"kept"`               // the first event with chunks
	Snapshot uint64 `json:"snapshot,omitempty"` // the snapshot.taken that a rebuild begins at
}

// purged is the sequence of the newest bulk.purged; 0 for none.
func (r *Retained) purged() uint64 {
	if r == nil {
		return 0
	}
	return r.Purged
}

// evolveRetained folds a bulk.purged.
func evolveRetained(r *Retained, rec journal.Record, f *event.BulkPurged) *Retained {
	next := &Retained{
		Purged: rec.Seq, First: rec.Seq, Number: rec.Event.N,
		Oldest: f.Oldest, Serial: f.Serial, Kept: f.Kept, Snapshot: f.Snapshot,
	}
	if r != nil && r.Number+1 == rec.Event.N {
		next.First = r.First
	}
	return next
}

// chunkKind tells the events with chunks apart.
type chunkKind byte

const (
	loadedChunks chunkKind = iota
	signedChunks
	snapshotChunks
	updateChunks
)

// chunkEvent is an event of a zone with chunks.
type chunkEvent struct {
	seq, base, loaded uint64 // loaded is what a signed instance was made of
	kind              chunkKind
	stands            [2]uint64 // of a snapshot: the instances that it stands for
	subjects          []string
	chunks, raw       uint64 // raw bytes, roughly
}

// held is a published version.
type held struct {
	seq, signed, loaded uint64
	serial              uint32
	at                  time.Time
}

// holdings are what BULK holds of a zone, as its events say.
type holdings struct {
	all       []chunkEvent // ascending
	published []held       // ascending
	gone      journal.SeqSet
	taken     uint64 // the newest dynamic update that a loaded instance has
	grants    State  // the grants folded so far: what a former owner wrote does not count
}

// take adds what an event of the zone says.
func (h *holdings) take(rec journal.Record) {
	counts := h.grants.Counts(rec)
	switch f := rec.Event.Facts.(type) {
	case *event.WorkerGranted:
		if counts {
			h.grants = evolveWorkers(h.grants, rec)
		}
	case *event.InstanceLoaded:
		n := chunkEvent{seq: rec.Seq, kind: loadedChunks}
		if counts {
			n.base = f.Base
			h.taken = max(h.taken, f.UpdatesTo)
		}
		h.add(n, f.Manifest)
	case *event.UpdateAccepted:
		h.add(chunkEvent{seq: rec.Seq, kind: updateChunks}, f.Manifest)
	case *event.InstanceSigned:
		n := chunkEvent{seq: rec.Seq, kind: signedChunks}
		if counts {
			n.base, n.loaded = f.Base, f.Loaded
		}
		h.add(n, f.Manifest)
	case *event.InstancePublished:
		if !counts {
			return
		}
		h.published = append(h.published, held{rec.Seq, f.Signed, f.Loaded, f.Serial, rec.Event.Time})
	case *event.SnapshotTaken:
		n := chunkEvent{seq: rec.Seq, kind: snapshotChunks}
		var all []event.Manifest
		for i, part := range []*event.Snapshot{f.Loaded, f.Signed} {
			if part != nil {
				n.stands[i] = part.Instance
				all = append(all, part.Manifest)
			}
		}
		h.add(n, all...)
	case *event.BulkPurged:
		if h.gone == nil {
			h.gone = journal.SeqSet{}
		}
		for _, seq := range f.Instances {
			h.gone.Add(seq)
		}
	}
}

func (h *holdings) add(n chunkEvent, manifests ...event.Manifest) {
	for _, m := range manifests {
		n.subjects = append(n.subjects, m.Subject)
		n.chunks += m.Count
		for _, c := range m.Chunks {
			n.raw += c.Bytes
		}
		if len(m.Indirect) > 0 {
			n.raw += m.Count * journal.MaxRawChunk
		}
	}
	h.all = append(h.all, n)
}

// settle drops what later events said is gone.
func (h *holdings) settle() {
	h.all = slices.DeleteFunc(h.all, func(n chunkEvent) bool { return h.gone.Has(n.seq) })
	h.published = slices.DeleteFunc(h.published, func(p held) bool {
		return h.find(p.signed) == nil || h.find(p.loaded) == nil
	})
}

// find is the event with that sequence, or nil.
func (h *holdings) find(seq uint64) *chunkEvent {
	i, ok := slices.BinarySearchFunc(h.all, seq, func(n chunkEvent, seq uint64) int { return cmp.Compare(n.seq, seq) })
	if !ok {
		return nil
	}
	return &h.all[i]
}

// snapshots are the newest snapshot of each instance that has one.
func (h *holdings) snapshots() map[uint64]uint64 {
	out := map[uint64]uint64{}
	for _, n := range h.all {
		if n.kind != snapshotChunks {
			continue
		}
		for _, instance := range n.stands {
			if instance != 0 {
				out[instance] = n.seq
			}
		}
	}
	return out
}

// oldest is the index of the oldest published version that a policy keeps, with
// what IXFR from the version of the signed instance diffs needs; all of them go
// on from there. It is len(h.published) where nothing was published.
func (h *holdings) oldest(p RetentionPolicy, now time.Time, diffs uint64) int {
	n := len(h.published)
	if n == 0 || !p.purges() {
		return 0
	}
	at := n - int(min(max(p.Versions, 1), uint64(n)))
	if p.Days > 0 {
		since := now.Add(-time.Duration(min(p.Days, maxRetentionDays)) * day)
		force := 0 // the version in force then
		for i, v := range h.published {
			if !v.at.After(since) {
				force = i
			}
		}
		at = min(at, force)
	}
	if i := slices.IndexFunc(h.published, func(v held) bool { return v.signed == diffs }); i >= 0 {
		at = min(at, i)
	}
	return at
}

// maxRetentionDays bounds retention.days: a hundred years.
const maxRetentionDays = 36525

// retention is what would go, and what has to be done before.
type retention struct {
	oldest held
	kept   uint64       // the first event that keeps its chunks
	stay   int          // published versions that stay
	purge  []chunkEvent // ascending
	// snapshot holds the instances that one must be taken of, loaded and signed; 0
	// where none is needed.
	snapshot [2]uint64
	// snapshots are those that a rebuild relies on, by instance.
	snapshots map[uint64]uint64
	raw       uint64 // raw bytes that go
	cost      uint64 // raw bytes that the snapshot takes, roughly
	held      uint64 // raw bytes of all that is held
}

// plan says what goes so that the published versions from an index on stay. It
// is pure.
func (h *holdings) plan(at int) retention {
	if at >= len(h.published) {
		return retention{}
	}
	r := retention{oldest: h.published[at], stay: len(h.published) - at}
	for _, n := range h.all {
		r.held += n.raw
	}
	taken := h.snapshots()
	want := [2]uint64{}
	for i, seq := range []uint64{r.oldest.loaded, r.oldest.signed} {
		chain, cost := h.chain(seq, taken)
		if taken[seq] == 0 && worthSnapshot(chain, cost) {
			want[i] = seq
			r.cost += cost
		}
	}
	keep := h.closure(at, taken, want)
	for i, seq := range want {
		// Where something that stays builds on what the snapshot would stand
		// for in another way, the rebuilt zone would lack diffs between them.
		if chain, cost := h.chain(seq, taken); seq != 0 && slices.ContainsFunc(chain, func(n *chunkEvent) bool { return keep[n.seq] && n.seq != seq }) {
			want[i] = 0
			r.cost -= cost
		}
	}
	keep = h.closure(at, taken, want)
	r.snapshot, r.snapshots = want, map[uint64]uint64{}
	for _, n := range h.all {
		if !keep[n.seq] {
			r.purge = append(r.purge, n)
			r.raw += n.raw
			continue
		}
		if r.kept == 0 {
			r.kept = n.seq
		}
		for _, instance := range n.stands {
			if n.kind == snapshotChunks && instance != 0 {
				r.snapshots[instance] = n.seq
			}
		}
	}
	return r
}

// chain is an instance and what it builds on, down to what holds it whole, and
// the raw size of that.
func (h *holdings) chain(seq uint64, taken map[uint64]uint64) (chain []*chunkEvent, whole uint64) {
	for {
		n := h.find(seq)
		if n == nil {
			return chain, whole
		}
		chain = append(chain, n)
		if s := h.find(taken[seq]); s != nil {
			return chain, s.raw
		}
		if n.base == 0 {
			return chain, n.raw
		}
		seq = n.base
	}
}

// worthSnapshot reports whether the diffs between what is whole and an instance
// take up as much as the whole again: a snapshot of each version would cost
// more than it frees.
func worthSnapshot(chain []*chunkEvent, whole uint64) bool {
	diffs := uint64(0)
	for _, n := range chain[:max(0, len(chain)-1)] {
		diffs += n.raw
	}
	return len(chain) > 1 && diffs >= whole
}

// closure is what must stay so that the published versions from an index on,
// and all that is newer than the first of them, can be rebuilt: want are
// instances that a new snapshot stands for.
func (h *holdings) closure(at int, taken map[uint64]uint64, want [2]uint64) map[uint64]bool {
	first := [2]uint64{h.published[at].loaded, h.published[at].signed}
	for _, v := range h.published[at:] {
		first[0], first[1] = min(first[0], v.loaded), min(first[1], v.signed)
	}
	keep := map[uint64]bool{}
	var need []uint64
	for _, n := range h.all {
		switch n.kind {
		case loadedChunks, signedChunks:
			if n.seq >= first[n.kind] {
				need = append(need, n.seq)
			}
		case updateChunks:
			// Once an instance has them they are of no use: it is rebuilt without.
			if n.seq > h.taken || n.seq >= first[0] {
				need = append(need, n.seq)
			}
		case snapshotChunks:
		}
	}
	for len(need) > 0 {
		seq := need[len(need)-1]
		need = need[:len(need)-1]
		n := h.find(seq)
		if n == nil || keep[seq] {
			continue
		}
		keep[seq] = true
		if n.loaded != 0 {
			need = append(need, n.loaded)
		}
		switch s := taken[seq]; {
		case s != 0:
			keep[s] = true
		case n.base != 0 && seq != want[0] && seq != want[1]:
			need = append(need, n.base)
		}
	}
	return keep
}

// sizes says how much of what is stored under each subject belongs to an event:
// what several share is divided by their raw bytes.
func (h *holdings) sizes(stored map[string]uint64) func(chunkEvent) uint64 {
	raw := map[string]uint64{}
	for _, n := range h.all {
		for _, subject := range n.subjects {
			raw[subject] += n.raw
		}
	}
	return func(n chunkEvent) uint64 {
		sum := uint64(0)
		for _, subject := range n.subjects {
			if all := raw[subject]; all > 0 {
				sum += uint64(float64(stored[subject]) * float64(n.raw) / float64(all))
			}
		}
		return sum
	}
}

// alone reports, for each event that goes, whether what stays has no chunks under
// its subjects.
func (r retention) alone(h *holdings) map[uint64]bool {
	goes := map[uint64]bool{}
	for _, n := range r.purge {
		goes[n.seq] = true
	}
	shared := map[string]bool{}
	for _, n := range h.all {
		for _, subject := range n.subjects {
			shared[subject] = shared[subject] || !goes[n.seq]
		}
	}
	for _, n := range r.purge {
		goes[n.seq] = !slices.ContainsFunc(n.subjects, func(s string) bool { return shared[s] })
	}
	return goes
}

// maxPurged bounds the instances that one event names: a line has its limit.
const maxPurged = 12_000

// facts are the events that tell of it; size says how much an event's chunks
// take up.
func (r retention) facts(size func(chunkEvent) uint64, archived bool) []event.Facts {
	snapshot := uint64(0)
	for _, seq := range r.snapshots {
		snapshot = max(snapshot, seq)
	}
	var all []event.Facts
	for part := range slices.Chunk(r.purge, maxPurged) {
		f := &event.BulkPurged{
			From: part[0].seq, To: part[len(part)-1].seq, Oldest: r.oldest.seq, Serial: r.oldest.serial,
			Kept: r.kept, Snapshot: snapshot, Archived: archived,
		}
		for _, n := range part {
			f.Instances = append(f.Instances, n.seq)
			f.Chunks += n.chunks
			f.Bytes += size(n)
		}
		all = append(all, f)
	}
	return all
}
