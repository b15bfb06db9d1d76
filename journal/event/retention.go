package event

// SnapshotTaken names chunks that hold whole what a published version's own
// chunks hold as a diff to earlier ones. Who rebuilds the zone and finds those
// purged begins here. It was proved before it was appended: the zone was rebuilt
// from it and the later events, and had the recorded digests.
type SnapshotTaken struct {
	Published uint64 `json:"published"` // sequence of the version's instance.published
	Serial    uint32 `json:"serial"`    // of that version
	// Loaded and Signed stand for the chunks of the version's instances; one is
	// absent where the instance's own chunks are whole, or few.
	Loaded *Snapshot `json:"loaded,omitempty"`
	Signed *Snapshot `json:"signed,omitempty"`
	Proved uint64    `json:"proved"` // sequence up to which the zone was rebuilt from it
}

// Snapshot stands for the chunks of an instance.
type Snapshot struct {
	Instance uint64 `json:"instance"` // sequence of its instance.loaded or instance.signed
	Digest   Hash   `json:"digest"`   // its content digest or signed digest, rebuilt
	Items    uint64 `json:"items"`
	// Manifest holds all its items, and the digest state.
	Manifest Manifest `json:"manifest"`
}

// BulkPurged says that the chunks of old versions are about to be removed for
// good. A fold passes over the instances that it names, as if their events had
// no contents.
type BulkPurged struct {
	From uint64 `json:"from"` // the first event that loses chunks
	To   uint64 `json:"to"`   // the last one
	// Instances are the sequences of the instance.loaded, instance.signed and
	// snapshot.taken events whose chunks go, ascending.
	Instances []uint64 `json:"instances"`
	Chunks    uint64   `json:"chunks"`
	Bytes     uint64   `json:"bytes"` // as stored, roughly
	// Oldest is the sequence of the oldest instance.published that can be rebuilt
	// from here on, Serial its serial and Kept the first event with chunks.
	Oldest uint64 `json:"oldest"`
	Serial uint32 `json:"serial"`
	Kept   uint64 `json:"kept"`
	// Snapshot is the sequence of the snapshot.taken that a rebuild begins at; 0
	// where the oldest version's own chunks are whole.
	Snapshot uint64 `json:"snapshot,omitempty"`
	// Archived: the chunks stand in the archive, which was read back.
	Archived bool `json:"archived,omitempty"`
}

// EventType implements Facts.
func (*SnapshotTaken) EventType() string { return "snapshot.taken" }

// EventType implements Facts.
func (*BulkPurged) EventType() string { return "bulk.purged" }

// manifests are those of the parts.
func (f *SnapshotTaken) manifests() []Manifest {
	var all []Manifest
	for _, part := range []*Snapshot{f.Loaded, f.Signed} {
		if part != nil {
			all = append(all, part.Manifest)
		}
	}
	return all
}
