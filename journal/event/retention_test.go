package event

// retentionSamples holds the types of retention.
func retentionSamples() []Facts {
	whole := Manifest{
		Subject: "bulk.00000000000000aa.snapshot-l8-12",
		Chunks:  []Chunk{{SHA256: hashOf(6), Seq: 40, Items: 10, Bytes: 700}}, Count: 1,
	}
	return []Facts{
		&SnapshotTaken{
			Published: 10, Serial: 7, Proved: 11,
			Loaded: &Snapshot{Instance: 8, Digest: hashOf(3), Items: 10, Manifest: whole},
			Signed: &Snapshot{Instance: 9, Digest: hashOf(4), Items: 10, Manifest: whole},
		},
		&BulkPurged{
			From: 3, To: 6, Instances: []uint64{3, 4, 6}, Chunks: 9, Bytes: 4096,
			Oldest: 10, Serial: 7, Kept: 8, Snapshot: 12, Archived: true,
		},
	}
}
