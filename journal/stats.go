package journal

import "sync/atomic"

// Stats is what this process has written since it opened the journal.
type Stats struct {
	EventBytes uint64 // of messages in EVENTS
	Chunks     uint64 // chunks in BULK
	ChunkBytes uint64 // of these, compressed
}

type counters struct{ eventBytes, chunks, chunkBytes atomic.Uint64 }

// Stats reads the counters.
func (j *NATS) Stats() Stats {
	return Stats{EventBytes: j.stats.eventBytes.Load(), Chunks: j.stats.chunks.Load(), ChunkBytes: j.stats.chunkBytes.Load()}
}

// wrote counts events that are stored.
func (c *counters) wrote(lines []Line) {
	sum := 0
	for i := range lines {
		sum += len(lines[i].Bytes)
	}
	c.eventBytes.Add(uint64(sum)) //nolint:gosec // a sum of lengths
}
