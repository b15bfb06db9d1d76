package journal

import (
	"crypto/sha256"
	"fmt"
	"testing"

	"sluice/journal/event"
)

func TestFresh_IsBounded(t *testing.T) {
	var f fresh
	for i := range 2 * freshChunks {
		raw := fmt.Appendf(nil, "%0*d", 5+i%2000, i)
		f.keep("bulk.z1.c1", event.Hash(sha256.Sum256(raw)), freshCopy(raw))
		if i%256 != 0 {
			continue
		}
		held := 0
		for _, raw := range f.by {
			held += len(raw)
		}
		if held != f.bytes || held > freshBytes || len(f.order) > freshChunks || len(f.by) > len(f.order) {
			t.Fatalf("%d chunks of %d bytes are held, %d are counted, %d in order", len(f.by), held, f.bytes, len(f.order))
		}
	}
	long := make([]byte, freshChunk+1)
	n := len(f.by)
	f.keep("bulk.z1.c1", event.Hash(sha256.Sum256(long)), freshCopy(long))
	if len(f.by) != n {
		t.Error("a long chunk is kept")
	}
}
